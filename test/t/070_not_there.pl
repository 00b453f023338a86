# WHY: a row that the remote does not have (it was there before its table was watched, or somebody has deleted it there) is renamed here, and
# refused. It waits with the name that it has lost, as if the remote called it so. When another row got that name here, and arrived, the
# remote's row of that name was taken for the first one's: it was renamed when that one was mended, and deleted when that one was deleted,
# with all that refers to it.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchro.batch_size = 1000\n");
my $remote = synchro_node('remote');
both($local, $remote, <<'SQL');
CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int NOT NULL);
CREATE TABLE parts (id serial PRIMARY KEY, item_id int NOT NULL REFERENCES items ON DELETE CASCADE, name text NOT NULL, v int NOT NULL, UNIQUE (item_id, name));
CREATE TABLE twigs (id serial PRIMARY KEY, twig_id int REFERENCES twigs ON DELETE CASCADE, name text NOT NULL, v int NOT NULL, UNIQUE NULLS NOT DISTINCT (twig_id, name));
CREATE TABLE children (id serial PRIMARY KEY, name text NOT NULL UNIQUE, item_id int REFERENCES items ON DELETE CASCADE, part_id int REFERENCES parts ON DELETE CASCADE,
	twig_id int REFERENCES twigs ON DELETE CASCADE);
CREATE TABLE filler (n int PRIMARY KEY);
SQL
$remote->safe_psql('postgres', "SELECT setval('${_}_id_seq', 1000000)") foreach 'items', 'parts', 'twigs', 'children';
$remote->safe_psql('postgres', "ALTER TABLE $_ ADD CONSTRAINT small CHECK (v < 100)") foreach 'items', 'parts', 'twigs';
connect_remote($local, $remote);
my $all = q{SELECT 'item', name, v::text FROM items WHERE name NOT LIKE 'f%' UNION ALL SELECT 'part', i.name || p.name, p.v::text FROM parts p JOIN items i ON i.id = p.item_id
	UNION ALL SELECT 'twig', p.name || t.name, t.v::text FROM twigs t LEFT JOIN twigs p ON p.id = t.twig_id
	UNION ALL SELECT 'child', c.name, coalesce(i.name, p.name, t.name) FROM children c LEFT JOIN items i ON i.id = c.item_id LEFT JOIN parts p ON p.id = c.part_id LEFT JOIN twigs t ON t.id = c.twig_id
	ORDER BY 1, 2, 3};
my $ids = q{SELECT 'item', id FROM items WHERE name = 'n' UNION ALL SELECT 'part', id FROM parts WHERE name = 'n' UNION ALL SELECT 'twig', id FROM twigs WHERE name = 'n' ORDER BY 1};
my $rows = <<'SQL';
INSERT INTO items (name, v) VALUES ('n', 1), ('x', 1);
INSERT INTO parts (item_id, name, v) SELECT id, 'n', 1 FROM items WHERE name = 'x';
INSERT INTO twigs (name, v) VALUES ('r', 1);
INSERT INTO twigs (twig_id, name, v) SELECT id, 'n', 1 FROM twigs;
SQL
my $renamed = <<'SQL';
INSERT INTO items (name, v) VALUES ('z', 1);
UPDATE items SET name = 'm', v = 1000 WHERE name = 'n';
UPDATE parts SET item_id = (SELECT id FROM items WHERE name = 'z'), name = 'm', v = 1000 WHERE name = 'n';
UPDATE twigs SET name = 'm', v = 1000 WHERE name = 'n';
SQL
my $others = <<'SQL';
INSERT INTO items (name, v) VALUES ('n', 7);
INSERT INTO parts (item_id, name, v) SELECT id, 'n', 7 FROM items WHERE name = 'x';
INSERT INTO twigs (twig_id, name, v) SELECT id, 'n', 7 FROM twigs WHERE name = 'r';
INSERT INTO children (name, item_id) SELECT 'of an item', id FROM items WHERE name = 'n';
INSERT INTO children (name, part_id) SELECT 'of a part', id FROM parts WHERE name = 'n';
INSERT INTO children (name, twig_id) SELECT 'of a twig', id FROM twigs WHERE name = 'n';
SQL
my $mended = q{UPDATE items SET v = 5 WHERE name = 'm'; UPDATE parts SET v = 5 WHERE name = 'm'; UPDATE twigs SET v = 5 WHERE name = 'm'};
my $deleted = q{DELETE FROM items WHERE name = 'm'; DELETE FROM parts WHERE name = 'm'; DELETE FROM twigs WHERE name = 'm'};

# so many are copied straight into their table, by a batch of their own
my $many = <<'SQL';
INSERT INTO filler SELECT generate_series(1, 1000);
UPDATE items SET name = 'm', v = 1000 WHERE name = 'n';
INSERT INTO items (name, v) SELECT 'f' || i, 7 FROM generate_series(1, 999) i UNION ALL SELECT 'n', 7;
SQL

$local->safe_psql('postgres', $rows);
$local->safe_psql('postgres', q{SELECT synchro.add_table('items', '{name}'), synchro.add_table('parts', '{item_id,name}'), synchro.add_table('twigs', '{twig_id,name}'), synchro.add_table('children', '{name}'), synchro.add_table('filler')});
foreach my $atomic ('off', 'on')
{
	reload_with($local, 'synchro.atomic_pass' => $atomic);
	foreach my $case ([ 'mended', $mended, $renamed, $others ], [ 'deleted', $deleted, $renamed, $others ], [ 'all at once', $mended, "$renamed$others" ], [ 'many', $deleted, q{DELETE FROM items WHERE name = 'x'; DELETE FROM twigs}, $many ])
	{
		my ($how, $last, @steps) = @$case;
		my $testname = "atomic_pass $atomic, $how";

		foreach my $step (@steps)
		{
			$local->safe_psql('postgres', "BEGIN; $step; COMMIT");
			sync($local, 'office');
		}
		like(rows($local, q{SELECT string_agg(relation || ' ' || sqlstate, ',' ORDER BY relation::text) FROM synchro.failures}), qr/^items 23514(,parts 23514,twigs 23514)?$/, "$testname: it is refused");
		my $before = rows($remote, $ids);
		like($before, qr/^item\|\d+(\npart\|\d+\ntwig\|\d+)?$/, "$testname: another one has its name, and is there");
		$local->safe_psql('postgres', $last);
		sync($local, 'office') foreach 1 .. 2;
		is(rows($local, 'SELECT * FROM synchro.failures'), '', "$testname: nothing waits");
		same($local, $remote, $all, "$testname: all is the same");
		is(rows($remote, $ids), $before, "$testname: the other one is the row that it was");

		# once more: somebody deletes it there
		$local->safe_psql('postgres', q{DELETE FROM items; DELETE FROM twigs; DELETE FROM filler});
		sync($local, 'office') foreach 1 .. 2;
		$local->safe_psql('postgres', $rows);
		sync($local, 'office');
		$remote->safe_psql('postgres', q{DELETE FROM items; DELETE FROM twigs});
	}
}
$_->stop('fast') foreach $local, $remote;
done_testing();
