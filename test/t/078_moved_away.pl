# WHY: a row that is moved away, while a pass goes on, from a parent which is then deleted must not go along with that there: the pass's
# last batch knows of the delete, but not of the move. Rows that had also been renamed since the pass began, or inserted, which an
# earlier batch had carried, were not looked for: they went along, with all that is below them, which nothing ever sent again.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchro.batch_size = 10\n");
my $remote = synchro_node('remote');
both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE children (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int NOT NULL REFERENCES parents ON DELETE CASCADE);
CREATE TABLE leaves (id serial PRIMARY KEY, name text NOT NULL UNIQUE, child_id int NOT NULL REFERENCES children ON DELETE CASCADE);
CREATE TABLE filler (id serial PRIMARY KEY, n int NOT NULL UNIQUE);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('parents_id_seq', 1000), setval('children_id_seq', 1000), setval('leaves_id_seq', 1000), setval('filler_id_seq', 1000);
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(NEW.n % 1000); RETURN NULL; END';
CREATE TRIGGER gate AFTER INSERT ON filler FOR EACH ROW WHEN (NEW.n % 1000 IN (55, 355)) EXECUTE FUNCTION gate();
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('parents', '{name}'), synchro.add_table('children', '{name}'), synchro.add_table('leaves', '{name}'), synchro.add_table('filler', '{n}')});
my $all = q{SELECT 'parent', name, NULL FROM parents UNION ALL SELECT 'child', c.name, p.name FROM children c JOIN parents p ON p.id = c.parent_id
	UNION ALL SELECT 'leaf', l.name, c.name FROM leaves l JOIN children c ON c.id = l.child_id ORDER BY 1, 2};
my $from = 0;

foreach my $case (
	[ 'only moved', 'h', 'SELECT 1' ],
	[ 'renamed before', 'h', q{UPDATE children SET name = 'c2'} ],
	[ 'new, with one that was moved below it', 'i', q{INSERT INTO children (name, parent_id) SELECT 'c2', id FROM parents WHERE name = 'h';
		UPDATE leaves SET name = 'l2', child_id = (SELECT id FROM children WHERE name = 'c2')} ])
{
	my ($testname, $parent, $before) = @$case;

	$local->safe_psql('postgres', qq{INSERT INTO parents (name) VALUES ('h'), ('i'); INSERT INTO children (name, parent_id) SELECT 'c', id FROM parents WHERE name = '$parent';
		INSERT INTO leaves (name, child_id) SELECT 'l', id FROM children});
	sync($local, 'office');
	my $id = rows($remote, 'SELECT id FROM leaves');
	my @gates = map { $remote->background_psql('postgres') } 1 .. 2;
	$gates[0]->query_safe('SELECT pg_advisory_lock(55)');
	$gates[1]->query_safe('SELECT pg_advisory_lock(355)');
	$local->safe_psql('postgres', "INSERT INTO filler (n) SELECT generate_series($from + 1, $from + 450)");
	my $caller = $local->background_psql('postgres');
	$caller->query_until(qr/begun/, "\\echo begun\nSELECT * FROM synchro.synchronize('office');\n");
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 55 AND NOT granted}, "$testname: in the middle");
	$local->safe_psql('postgres', $before);
	$gates[0]->quit;
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 355 AND NOT granted}, "$testname: some batches on");
	same($local, $remote, $all, "$testname: which have carried that");
	$local->safe_psql('postgres', q{BEGIN; UPDATE children SET parent_id = (SELECT id FROM parents WHERE name = 'i'); DELETE FROM parents WHERE name = 'h'; COMMIT});
	$gates[1]->quit;
	$caller->quit;
	sync($local, 'office') foreach 1 .. 2;
	is(rows($local, 'SELECT * FROM synchro.failures'), '', "$testname: nothing waits");
	same($local, $remote, $all, "$testname: all is the same");
	is(rows($remote, 'SELECT id FROM leaves'), $id, "$testname: what is below is what it was");
	$local->safe_psql('postgres', 'DELETE FROM parents');
	sync($local, 'office') foreach 1 .. 2;
	$from += 1000;
}
$_->stop('fast') foreach $local, $remote;
done_testing();
