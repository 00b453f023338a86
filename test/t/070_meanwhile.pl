# WHY: while a pass goes on, rows of it that the remote has refused are changed here once more. They are left out of the rest of the
# pass, which moves the names on all the same; so what such a row was called, or that it is gone, was told by nobody: it stayed on
# the remote for good, or was made there a second time. So, too, where it was refused since it was renamed here before its own turn in the
# pass. And where it gave its id up to another row that is known by reference, this one's row there was deleted, with all that referred to
# it, and made anew.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use Nodes;
use SynchroTest;
use Test::More;

my $schema = <<'SQL';
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int NOT NULL);
CREATE TABLE plain (id serial PRIMARY KEY, label text NOT NULL, v int NOT NULL);
CREATE TABLE children (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int NOT NULL REFERENCES parents, plain_id int REFERENCES plain);
CREATE TABLE filler (id serial PRIMARY KEY, n int NOT NULL UNIQUE, child_id int REFERENCES children);
CREATE TABLE late (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int NOT NULL, filler_id int REFERENCES filler);
SQL
my %keys = (parents => '{name}', children => '{name}', filler => '{n}', late => '{name}');
my @tables = ('parents', 'plain', 'children', 'filler', 'late');
my $all = q{SELECT 'parent', name, v::text, NULL FROM parents UNION ALL SELECT 'plain', label, v::text, NULL FROM plain
	UNION ALL SELECT 'late', name, v::text, NULL FROM late
	UNION ALL SELECT 'child', c.name, p.name, x.label FROM children c JOIN parents p ON p.id = c.parent_id LEFT JOIN plain x ON x.id = c.plain_id ORDER BY 1, 2, 3};
my $round = 0;

# before: its first batches have that. meanwhile: the pass is not over yet. later: nor then, some batches on. over: the pass is.
# long: some batches come after meanwhile
sub in_the_middle
{
	my ($testname, $here, $there, $pass, $before, $meanwhile, $parked, %then) = @_;
	my $last = $then{later} || $then{long} ? 400 : 100;
	my $later = $there->background_psql('postgres');
	my $from = 1000 * $round++;
	my $gate = $there->background_psql('postgres');
	my $server = $here->name eq 'local' ? 'office' : $there->name;

	$there->safe_psql('postgres', "ALTER TABLE $_ ADD CONSTRAINT small CHECK (v < 100)") foreach 'parents', 'plain', 'late';
	$gate->query_safe('SELECT pg_advisory_lock(1)');
	$later->query_safe('SELECT pg_advisory_lock(2)') if $then{later};
	$here->safe_psql('postgres', "BEGIN; $before; INSERT INTO filler (n) SELECT generate_series($from + 1, $from + $last); COMMIT");
	my $caller = $here->background_psql('postgres');
	$caller->query_until(qr/begun/, "\\echo begun\nSELECT * FROM synchro.synchronize('$server');\n");
	wait_for($there, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, "$testname: in the middle");
	is(rows($here, q{SELECT string_agg(relation || ' ' || operation, ', ' ORDER BY relation::text) FROM synchro.failures}), $parked, "$testname: it waits");
	$here->safe_psql('postgres', $meanwhile);
	$gate->quit;
	if ($then{later})
	{
		wait_for($there, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND NOT granted}, "$testname: some batches on");
		$here->safe_psql('postgres', $then{later});
	}
	$later->quit;
	$caller->quit;
	$here->safe_psql('postgres', $then{over}) if $then{over};
	$pass->() foreach 1 .. 2;
	$there->safe_psql('postgres', "ALTER TABLE $_ DROP CONSTRAINT small") foreach 'parents', 'plain', 'late';
	$here->safe_psql('postgres', 'SELECT synchro.retry()');
	$pass->() foreach 1 .. 2;
	is(rows($here, 'SELECT count(*) FROM synchro.failures'), 0, "$testname: nothing waits");
	same($here, $there, $all, "$testname: all is the same");
	is(rows($there, q{SELECT string_agg(n.label || ' ' || p.label, ', ' ORDER BY n.label) FROM notes n JOIN plain p ON p.id = n.plain_id}),
		rows($here, q{SELECT string_agg(label || ' ' || label, ', ' ORDER BY label) FROM plain WHERE label IN ('a', 'b')}), "$testname: what is there still is what it was");
	return;
}

my $refused = q{UPDATE parents SET v = 1000 WHERE name = 'a'};
my $later = q{INSERT INTO parents (name, v) SELECT 'f' || i, 1 FROM generate_series(1, 30) i ON CONFLICT (name) DO UPDATE SET v = parents.v + 1};
my ($apart, $again) = ('UPDATE children SET plain_id = NULL', q{UPDATE children SET plain_id = p.id FROM plain p WHERE children.name = 'of ' || p.label});
my $bad = q{UPDATE plain SET v = 1000 WHERE label = 'a'};
my $new = q{INSERT INTO plain (id, label, v) VALUES (90000, 'n', 1000)};
my $taken = q{UPDATE plain SET id = id - 1, v = 7 WHERE label = 'b'};
my @cases = (
	[ 'it moves on, and another one takes its id', $bad, "$apart; UPDATE plain SET id = id + 50000, v = 2 WHERE label = 'a'; $taken; $again", 'plain update' ],
	[ 'it is gone, and another one takes its id', $bad, "$apart; DELETE FROM plain WHERE label = 'a'; $taken; $again", 'plain update' ],
	[ 'it is gone, and later another one takes its id', $bad, "$apart; DELETE FROM plain WHERE label = 'a'", 'plain update', later => "$taken; $again" ],
	[ 'another one takes its id, and is gone later', $bad, "$apart; DELETE FROM plain WHERE label = 'a'; $taken", 'plain update', later => q{DELETE FROM plain WHERE label = 'b'} ],
	[ 'it was new and is gone, another one takes its id', $new, "$apart; DELETE FROM plain WHERE label = 'n'; UPDATE plain SET id = 90000, v = 7 WHERE label = 'b'; $again", 'plain insert' ],
	[ 'it was new and is gone, another one takes its id, and is gone', $new, "$apart; DELETE FROM plain WHERE label = 'n'; UPDATE plain SET id = 90000, v = 7 WHERE label = 'b'", 'plain insert',
		over => q{DELETE FROM plain WHERE label = 'b'} ],
	[ 'it was new and is gone, another one takes its id, and moves on', $new, "$apart; DELETE FROM plain WHERE label = 'n'; UPDATE plain SET id = 90000, v = 7 WHERE label = 'b'", 'plain insert',
		over => q{UPDATE plain SET id = 90001 WHERE label = 'b'} ],
	[ 'it is gone', $refused, q{DELETE FROM children WHERE name = 'of a'; DELETE FROM parents WHERE name = 'a'}, 'parents update' ],
	[ 'it is gone, known by reference', q{UPDATE plain SET v = 1000 WHERE label = 'a'}, q{UPDATE children SET plain_id = NULL; DELETE FROM plain WHERE label = 'a'}, 'plain update' ],
	[ 'it is renamed', $refused, q{UPDATE parents SET name = 'z', v = 2 WHERE name = 'a'}, 'parents update' ],
	[ 'it is renamed, and still refused', $refused, q{UPDATE parents SET name = 'z' WHERE name = 'a'}, 'parents update' ],
	[ 'it is renamed twice', $refused, q{UPDATE parents SET name = 'y' WHERE name = 'a'; UPDATE parents SET name = 'z', v = 2 WHERE name = 'y'}, 'parents update' ],
	[ 'another one gets its name', $refused, q{UPDATE parents SET name = 'z', v = 2 WHERE name = 'a'; INSERT INTO parents (name, v) VALUES ('a', 3)}, 'parents update' ],
	[ 'another one gets its name, and a child', $refused, q{UPDATE parents SET name = 'z', v = 2 WHERE name = 'a'; INSERT INTO parents (name, v) VALUES ('a', 3);
		INSERT INTO children (name, parent_id) SELECT 'new', id FROM parents WHERE name = 'a'; UPDATE children SET name = 'of b too' WHERE name = 'of b'}, 'parents update' ],
	[ 'it is gone, and another one gets its name', $refused, q{DELETE FROM children WHERE name = 'of a'; DELETE FROM parents WHERE name = 'a'; INSERT INTO parents (name, v) VALUES ('a', 3)}, 'parents update' ],
	[ 'it was renamed before', q{UPDATE parents SET name = 'y', v = 1000 WHERE name = 'a'}, q{DELETE FROM children WHERE name = 'of a'; DELETE FROM parents WHERE name = 'y'}, 'parents update' ],
	[ 'it was new', q{INSERT INTO parents (name, v) VALUES ('n', 1000)}, q{DELETE FROM parents WHERE name = 'n'}, 'parents insert' ],
	[ 'it was new, and is renamed', q{INSERT INTO parents (name, v) VALUES ('n', 1000)}, q{UPDATE parents SET name = 'm', v = 4 WHERE name = 'n'}, 'parents insert' ],
	[ 'it has taken the place of one that is gone', qq{$later; DELETE FROM children WHERE name = 'of a'; DELETE FROM parents WHERE name = 'a'; INSERT INTO parents (name, v) VALUES ('a', 1000);
		UPDATE children SET name = 'y', parent_id = (SELECT id FROM parents WHERE name = 'a') WHERE name = 'of b'}, q{DELETE FROM children WHERE name = 'y'; DELETE FROM parents WHERE name = 'a'}, 'parents update' ],
	[ 'it is renamed before its turn', q{UPDATE late SET v = 2 WHERE name = 'a'}, q{UPDATE late SET name = 'z', v = 1000 WHERE name = 'a'}, '', long => 1 ],
	[ 'it is renamed before its turn, and gone', q{UPDATE late SET v = 2 WHERE name = 'a'}, q{UPDATE late SET name = 'z', v = 1000 WHERE name = 'a'}, '', long => 1,
		over => q{DELETE FROM late WHERE name = 'z'} ],
	[ 'it is new, renamed before its turn, and another one gets its name', q{INSERT INTO late (name, v) VALUES ('n', 2)}, q{UPDATE late SET name = 'm', v = 1000 WHERE name = 'n'}, '', long => 1,
		over => q{INSERT INTO late (name, v) VALUES ('n', 3)} ]);

sub all_cases
{
	my ($what, $here, $there, $pass) = @_;

	$there->safe_psql('postgres', <<'SQL');
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE TRIGGER gate AFTER INSERT ON filler FOR EACH ROW WHEN (NEW.n % 1000 = 55) EXECUTE FUNCTION gate();
CREATE FUNCTION gate2() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(2); RETURN NULL; END';
CREATE TRIGGER gate2 AFTER INSERT ON filler FOR EACH ROW WHEN (NEW.n % 1000 = 355) EXECUTE FUNCTION gate2();
CREATE TABLE notes (plain_id int REFERENCES plain ON DELETE CASCADE, label text);
SQL
	foreach my $case (@cases)
	{
		my ($how, @case) = @$case;

		$here->safe_psql('postgres', q{INSERT INTO late (name, v) VALUES ('a', 1); INSERT INTO parents (name, v) VALUES ('a', 1), ('b', 1); INSERT INTO plain (label, v) VALUES ('a', 1), ('b', 1);
			INSERT INTO children (name, parent_id, plain_id) SELECT 'of ' || name, p.id, x.id FROM parents p JOIN plain x ON x.label = p.name});
		$pass->();
		$there->safe_psql('postgres', 'DELETE FROM notes; INSERT INTO notes SELECT id, label FROM plain');
		in_the_middle("$what, $how", $here, $there, $pass, @case);
		$here->safe_psql('postgres', 'DELETE FROM late; DELETE FROM filler; DELETE FROM children; DELETE FROM parents; DELETE FROM plain');
		$pass->() foreach 1 .. 2;
		is(rows($there, "SELECT count(*) FROM ($all) x"), 0, "$what, $how: and nothing is left in the end");
	}
	return;
}

my $local = synchro_node('local', conf => "synchro.batch_size = 10\n");
my $remote = synchro_node('remote');
both($local, $remote, $schema);
$remote->safe_psql('postgres', "SELECT setval('${_}_id_seq', 1000)") foreach @tables;
connect_remote($local, $remote);
$local->safe_psql('postgres', 'SELECT ' . join ', ', map { "synchro.add_table('$_'" . ($keys{$_} ? ", '$keys{$_}'" : '') . ')' } @tables);
all_cases('remote', $local, $remote, sub { sync($local, 'office') });
$_->stop('fast') foreach $local, $remote;

my ($a, $b) = nodes({ conf => "synchro.batch_size = 10\n" }, 'a', 'b');
$_->safe_psql('postgres', $schema) foreach $a, $b;
$b->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART 1000") foreach @tables;
join_nodes($a, $b);
watch([ $a, $b ], map { $_ => $keys{$_} } @tables);
all_cases('between nodes', $a, $b, sub { sync($a, 'b'); sync($b, 'a') });
$_->stop('fast') foreach $a, $b;
done_testing();
