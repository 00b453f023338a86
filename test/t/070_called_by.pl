# WHY: a row that has its parent in its natural key was moved away from it, which was refused, and the former parent is gone here. What the
# remote calls the row has that parent in it, and the parent's own name of before was sent: nobody found the row by it any more. So it
# was not kept from going along with the parent, with all below it, which nothing ever sent again; or it was made anew, and the parent's
# delete failed for ever.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use Nodes;
use SynchroTest;
use Test::More;

# kid goes along with its parent, kin does not let it go, of_ref has one that is known by reference, and toy has one in its key that has one itself
my $schema = <<'SQL';
CREATE TABLE par (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE ref (id serial PRIMARY KEY, label text NOT NULL);
CREATE TABLE kid (id serial PRIMARY KEY, par_id int NOT NULL REFERENCES par ON DELETE CASCADE, name text NOT NULL, n int NOT NULL, UNIQUE (par_id, name));
CREATE TABLE kin (id serial PRIMARY KEY, par_id int NOT NULL REFERENCES par, name text NOT NULL, n int NOT NULL, UNIQUE (par_id, name));
CREATE TABLE of_ref (id serial PRIMARY KEY, ref_id int NOT NULL REFERENCES ref ON DELETE CASCADE, name text NOT NULL, n int NOT NULL, UNIQUE (ref_id, name));
CREATE TABLE toy (id serial PRIMARY KEY, kid_id int NOT NULL REFERENCES kid ON DELETE CASCADE, name text NOT NULL, n int NOT NULL, UNIQUE (kid_id, name));
CREATE TABLE below (id serial PRIMARY KEY, name text NOT NULL UNIQUE, kid_id int REFERENCES kid ON DELETE CASCADE,
	of_ref_id int REFERENCES of_ref ON DELETE CASCADE, toy_id int REFERENCES toy ON DELETE CASCADE);
CREATE TABLE filler (n int PRIMARY KEY);
SQL
my @tables = ('par', 'ref', 'kid', 'kin', 'of_ref', 'toy', 'below');
my @keys = (par => '{name}', kid => '{par_id,name}', kin => '{par_id,name}', of_ref => '{ref_id,name}', toy => '{kid_id,name}', below => '{name}');
my @refused = ('kid', 'kin', 'of_ref', 'toy');
my $data = <<'SQL';
INSERT INTO par (name) VALUES ('p1'), ('p2');
INSERT INTO ref (label) VALUES ('r1'), ('r2');
INSERT INTO kid (par_id, name, n) SELECT id, translate(name, 'p', 'k'), 1 FROM par;
INSERT INTO kin (par_id, name, n) SELECT id, 'kin', 1 FROM par WHERE name = 'p1';
INSERT INTO of_ref (ref_id, name, n) SELECT id, 'of ref', 1 FROM ref WHERE label = 'r1';
INSERT INTO toy (kid_id, name, n) SELECT id, 'toy', 1 FROM kid WHERE name = 'k1';
INSERT INTO below (name, kid_id) SELECT 'of a kid', id FROM kid WHERE name = 'k1';
INSERT INTO below (name, of_ref_id) SELECT 'of one of ref', id FROM of_ref;
INSERT INTO below (name, toy_id) SELECT 'of a toy', id FROM toy;
SQL
my $all = q{SELECT 'par', name, NULL FROM par UNION ALL SELECT 'ref', label, NULL FROM ref UNION ALL SELECT 'kid', k.name || k.n, p.name FROM kid k JOIN par p ON p.id = k.par_id
	UNION ALL SELECT 'kin', k.name || k.n, p.name FROM kin k JOIN par p ON p.id = k.par_id UNION ALL SELECT 'of_ref', o.name || o.n, r.label FROM of_ref o JOIN ref r ON r.id = o.ref_id
	UNION ALL SELECT 'toy', t.name || t.n, k.name FROM toy t JOIN kid k ON k.id = t.kid_id
	UNION ALL SELECT 'below', b.name, coalesce(k.name, o.name, t.name) FROM below b LEFT JOIN kid k ON k.id = b.kid_id LEFT JOIN of_ref o ON o.id = b.of_ref_id LEFT JOIN toy t ON t.id = b.toy_id
	ORDER BY 1, 2, 3};
my $ids = join(' UNION ALL ', map { "SELECT '$_', id FROM $_" } @refused, 'below') . ' ORDER BY 1, 2';
my $move = q{UPDATE %s SET par_id = (SELECT id FROM par WHERE name = 'p2'), n = 1000 WHERE name = '%s'};
my $kid = sprintf($move, 'kid', 'k1');
my $kin = sprintf($move, 'kin', 'kin');
my $gone = q{DELETE FROM par WHERE name = 'p1'};

# what is done here, each in a transaction of its own and, where that is wanted, a pass; what is mended; what is to be there until then
my @cases = (
	[ 'it goes along', [ "$kin; UPDATE kin SET n = 1; $kid; $gone" ], 'kid', q{SELECT 1 FROM par WHERE name = 'p1'} ],
	[ 'it does not let go', [ "$kid; UPDATE kid SET n = 1; $kin; $gone" ], 'kin', q{SELECT 1 FROM par WHERE name = 'p1'} ],
	[ 'the parent goes later', [ $kid, "$kin; $gone" ], 'kid, kin', q{SELECT 1 FROM par WHERE name = 'p1'} ],
	[ 'known by reference', [ q{UPDATE of_ref SET ref_id = (SELECT id FROM ref WHERE label = 'r2'), n = 1000; DELETE FROM ref WHERE label = 'r1'} ], 'of_ref', q{SELECT 1 FROM ref WHERE label = 'r1'} ],
	[ 'the parent of the parent', [ "$kin; UPDATE kin SET n = 1; UPDATE toy SET kid_id = (SELECT id FROM kid WHERE name = 'k2'), n = 1000; UPDATE below SET kid_id = NULL; $gone" ],
		'toy', q{SELECT 1 FROM toy t JOIN kid k ON k.id = t.kid_id WHERE k.name = 'k1'} ],
	[ 'another one gets the name', [ "$kin; UPDATE kin SET n = 1; $kid; $gone; INSERT INTO par (name) VALUES ('p1')" ], 'kid', q{SELECT 1 FROM par WHERE name = 'p1'} ],
	[ 'the parent is renamed', [ $kid, q{UPDATE par SET name = 'p3' WHERE name = 'p1'} ], 'kid', q{SELECT 1 FROM par WHERE name = 'p3'} ]);

sub constraints
{
	my ($there, $change) = @_;

	$there->safe_psql('postgres', join ';', map { "ALTER TABLE $_ " . $change } @refused);
	return;
}

sub all_cases
{
	my ($what, $here, $there, $pass) = @_;

	foreach my $case (@cases)
	{
		my ($how, $changes, $tables, $is_there) = @$case;
		my $testname = "$what, $how";

		$here->safe_psql('postgres', $data);
		$pass->();
		same($here, $there, $all, "$testname: all is there");
		my $before = rows($there, $ids);
		constraints($there, 'ADD CONSTRAINT small CHECK (n < 100)');
		foreach my $change (@$changes)
		{
			$here->safe_psql('postgres', "BEGIN; $change; COMMIT");
			$pass->() foreach 1 .. 2;
		}
		foreach my $time (1 .. 2)
		{
			is(rows($there, $ids), $before, "$testname: what waits is there, and what is below it");
			is(rows($there, $is_there), 1, "$testname: so is by whom it is called");
			$here->safe_psql('postgres', q{SELECT synchro.retry(); INSERT INTO par (name) VALUES ('other')});
			$pass->();
			is(rows($there, q{SELECT count(*) FROM par WHERE name = 'other'}), 1, "$testname: other rows arrive");
			$here->safe_psql('postgres', q{DELETE FROM par WHERE name = 'other'});
			$pass->();
			is(rows($there, q{SELECT count(*) FROM par WHERE name = 'other'}), 0, "$testname: and go");
		}
		$here->safe_psql('postgres', join ';', map { "UPDATE $_ SET n = 5" } split /, /, $tables);
		$pass->() foreach 1 .. 3;
		is(rows($here, 'SELECT * FROM synchro.failures'), '', "$testname: mended, nothing waits");
		same($here, $there, $all, "$testname: all is the same");
		my %was = map { $_ => 1 } split /\n/, $before;
		is_deeply([ grep { !$was{$_} } split /\n/, rows($there, $ids) ], [], "$testname: each row is the one that it was");
		constraints($there, 'DROP CONSTRAINT small');
		$here->safe_psql('postgres', join ';', map { "DELETE FROM $_" } reverse @tables);
		$pass->() foreach 1 .. 2;
		is(rows($there, "SELECT count(*) FROM ($all) x"), 0, "$testname: and nothing is left in the end");
	}
	return;
}

my $local = synchro_node('local', conf => "synchro.batch_size = 10\n");
my $remote = synchro_node('remote');
both($local, $remote, $schema);
$remote->safe_psql('postgres', "SELECT setval('${_}_id_seq', 1000)") foreach @tables;
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('ref'), synchro.add_table('filler')});
watch([$local], @keys);
all_cases('remote', $local, $remote, sub { sync($local, 'office') });
reload_with($local, 'synchro.atomic_pass' => 'on');
all_cases('in one transaction', $local, $remote, sub { sync($local, 'office') });
reload_with($local, 'synchro.atomic_pass' => 'off');

# what is shown of it, and before
$local->safe_psql('postgres', $data);
sync($local, 'office');
constraints($remote, 'ADD CONSTRAINT small CHECK (n < 100)');
$local->safe_psql('postgres', "BEGIN; $kid; UPDATE kin SET par_id = (SELECT id FROM par WHERE name = 'p2'); $gone; COMMIT");
my $called = 'a row of table public.kid, of which a change has not arrived, is still called by it on the remote';
like(rows($local, q{SELECT * FROM synchro.preview('office') p WHERE p::text LIKE '%still called%'}), qr/\Q$called\E/, 'a preview says why it stays');
is(sync($local, 'office')->{failed}, 2, 'both wait');
is(rows($local, q{SELECT relation, sqlstate, message FROM synchro.failures WHERE relation = 'par'::regclass}), "par|23503|$called", 'and it is said why');
$local->safe_psql('postgres', 'UPDATE kid SET n = 5');
sync($local, 'office') foreach 1 .. 2;
same($local, $remote, $all, 'mended, all is the same');

# both are gone while the pass goes on
my $gate = $remote->background_psql('postgres');
$remote->safe_psql('postgres', <<'SQL');
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE TRIGGER gate AFTER INSERT ON filler FOR EACH ROW WHEN (NEW.n = 55) EXECUTE FUNCTION gate();
SQL
$gate->query_safe('SELECT pg_advisory_lock(1)');
$local->safe_psql('postgres', q{BEGIN; UPDATE kin SET n = 1000; INSERT INTO filler SELECT generate_series(1, 100); COMMIT});
my $caller = $local->background_psql('postgres');
$caller->query_until(qr/begun/, "\\echo begun\nSELECT * FROM synchro.synchronize('office');\n");
wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 'in the middle');
is(rows($local, q{SELECT relation FROM synchro.failures}), 'kin', 'in the middle: it waits');
$local->safe_psql('postgres', 'DELETE FROM kin; DELETE FROM par');
$gate->quit;
$caller->quit;
foreach (1 .. 3)
{
	$local->safe_psql('postgres', 'SELECT synchro.retry()');
	sync($local, 'office');
}
is(rows($local, 'SELECT * FROM synchro.failures'), '', 'gone in the middle: nothing waits');
same($local, $remote, $all, 'gone in the middle: both are gone there');
$_->stop('fast') foreach $local, $remote;

my ($a, $b) = nodes({}, 'a', 'b');
$_->safe_psql('postgres', $schema) foreach $a, $b;
$b->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART 1000") foreach @tables;
join_nodes($a, $b);
watch([ $a, $b ], @keys);
$_->safe_psql('postgres', q{SELECT synchro.add_table('ref')}) foreach $a, $b;
all_cases('between nodes', $a, $b, sub { sync($a, 'b'); sync($b, 'a') });
$_->stop('fast') foreach $a, $b;
done_testing();
