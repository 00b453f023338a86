# WHY: "newest wins" means that somebody's work is thrown away. He must be able to find out what, when and against what, and to
# have it back. So every kind of conflict is looked for in synchro.conflicts on the node that decided it, with both times and the
# loser's values; and undo() writes it back as a change of his own, with his own rights, which then wins everywhere.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n numeric(8,2), note text, local_note text DEFAULT 'mine', twice numeric GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE child (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t_id int REFERENCES t, "Odd name" text, tags text[], at timestamptz, UNIQUE (t_id, "Odd name"));
CREATE TABLE code (code text PRIMARY KEY, n int);
SQL
$b->safe_psql('postgres', 'ALTER SEQUENCE t_id_seq RESTART 1000');
join_nodes($a, $b);
foreach my $node ($a, $b)
{
	$node->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}', skip => '{local_note}'), synchro.add_table('child', '{t_id,Odd name}'), synchro.add_table('code')});
}

my $all = q{SELECT 't', name, n, note FROM t UNION ALL SELECT 'child', t.name || c."Odd name", array_length(tags, 1), at::text FROM child c JOIN t ON t.id = c.t_id
	UNION ALL SELECT 'code', code, n, NULL FROM code ORDER BY 1, 2};

sub on
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Starts afresh with these rows on both.
sub begin_with
{
	my (@names) = @_;

	on($_, 'TRUNCATE synchro.conflict') foreach $a, $b;
	on($a, "INSERT INTO t (name, n, note) VALUES ('$_', 0, 'old')") foreach @names;
	settle($a, $b);
	return;
}

# What a node has recorded, and whether its times are those of the log entries.
sub conflicts
{
	my ($node) = @_;

	return rows($node, <<'SQL');
SELECT remote, relation, winner, loser ->> 'name', loser ->> 'n', CASE winner WHEN 'local' THEN local_changed_at > remote_changed_at ELSE remote_changed_at > local_changed_at END,
	decided_at >= greatest(local_changed_at, remote_changed_at) FROM synchro.conflicts ORDER BY id
SQL
}

sub undo_last
{
	my ($node) = @_;

	on($node, 'SELECT synchro.undo(max(id)) FROM synchro.conflicts');
	settle($a, $b);
	return;
}

subtest 'an update that is older is pushed, and lost' => sub {
	begin_with('lost update');
	on($a, q{UPDATE t SET n = 1, note = 'of a' WHERE name = 'lost update'});
	on($b, q{UPDATE t SET n = 2, note = 'of b', local_note = 'kept' WHERE name = 'lost update'});
	settle($a, $b);
	is(conflicts($b), 'a|t|local|lost update|1.00|t|t', 'B has decided, and knows what was lost');
	is(conflicts($a), '', 'A has decided nothing');
	is(rows($b, q{SELECT key = (SELECT id::text FROM t WHERE name = 'lost update'), loser ->> 'note' FROM synchro.conflicts}), 't|of a', 'of which row');
	undo_last($b);
	same($a, $b, $all, 'undone, both are the same');
	is(rows($a, q{SELECT n, note, twice FROM t WHERE name = 'lost update'}), '1.00|of a|2.00', 'with the values that had lost');
	is(rows($b, q{SELECT local_note FROM t WHERE name = 'lost update'}), 'kept', 'but for what is never pushed');
	is(rows($a, q{SELECT origin = (SELECT node FROM synchro.remote_state) FROM synchro.changes ORDER BY changed_at DESC LIMIT 1}), 't', 'as a change of B');
	is(conflicts($a), '', 'which is in conflict with nothing');
};

subtest 'a newer update is pushed, and overwrites one' => sub {
	begin_with('overwritten');
	on($b, q{UPDATE t SET n = 2, note = NULL WHERE name = 'overwritten'});
	on($a, q{UPDATE t SET n = 1, note = 'of a' WHERE name = 'overwritten'});
	settle($a, $b);
	is(conflicts($b), 'a|t|remote|overwritten|2.00|t|t', 'B knows what was overwritten');
	undo_last($b);
	same($a, $b, $all, 'undone, both are the same');
	is(rows($a, q{SELECT n, note IS NULL FROM t WHERE name = 'overwritten'}), '2.00|t', 'with the values that had lost');
};

subtest 'an update that is older than a delete is lost' => sub {
	begin_with('gone');
	on($a, q{UPDATE t SET n = 1 WHERE name = 'gone'});
	on($b, q{DELETE FROM t WHERE name = 'gone'});
	settle($a, $b);
	is(conflicts($b), 'a|t|local|gone|1.00|t|t', 'B knows the row that has lost against its delete');
	undo_last($b);
	same($a, $b, $all, 'undone, both are the same');
	is(rows($a, q{SELECT n FROM t WHERE name = 'gone'}), '1.00', 'the row is back');
};

subtest 'a delete that is pushed overwrites an older update' => sub {
	begin_with('taken');
	on($b, q{UPDATE t SET n = 2 WHERE name = 'taken'});
	on($a, q{DELETE FROM t WHERE name = 'taken'});
	settle($a, $b);
	is(conflicts($b), 'a|t|remote|taken|2.00|t|t', 'B knows the row that was deleted');
	undo_last($b);
	same($a, $b, $all, 'undone, both are the same');
	is(rows($a, q{SELECT n FROM t WHERE name = 'taken'}), '2.00', 'the row is back');
};

subtest 'a delete that is older is pushed, and lost' => sub {
	begin_with('kept');
	on($a, q{DELETE FROM t WHERE name = 'kept'});
	on($b, q{UPDATE t SET n = 2 WHERE name = 'kept'});
	settle($a, $b);
	is(conflicts($b), 'a|t|local|||t|t', 'B knows of the delete that was lost');
	is(rows($b, q{SELECT key = (SELECT id::text FROM t WHERE name = 'kept'), loser IS NULL FROM synchro.conflicts}), 't|t', 'and of which row');
	undo_last($b);
	same($a, $b, $all, 'undone, both are the same');
	is(rows($a, q{SELECT count(*) FROM t WHERE name = 'kept'}), '0', 'the row is gone');
	like(on_error($b, 'SELECT synchro.undo(max(id)) FROM synchro.conflicts'), qr/NOTICE: .*gone already/, 'a second time there is nothing to do');
};

subtest 'an update that is newer than a delete here is pushed' => sub {
	begin_with('revived');
	on($b, q{DELETE FROM t WHERE name = 'revived'});
	on($a, q{UPDATE t SET n = 1 WHERE name = 'revived'});
	settle($a, $b);
	is(rows($b, q{SELECT n FROM t WHERE name = 'revived'}), '1.00', 'the row is back');
	is(conflicts($b), 'a|t|remote|||t|t', 'B knows that its delete was lost');
	undo_last($b);
	same($a, $b, $all, 'undone, both are the same');
	is(rows($a, q{SELECT count(*) FROM t WHERE name = 'revived'}), '0', 'the row is gone');
};

foreach my $age ('older', 'newer')
{
	subtest "a changed key that is $age than another column's change is pushed" => sub {
		begin_with("$age key");
		on($b, "UPDATE t SET n = 2 WHERE name = '$age key'") if $age eq 'newer';
		on($a, "UPDATE t SET name = '$age name' WHERE name = '$age key'");
		on($b, "UPDATE t SET n = 2 WHERE name = '$age key'") if $age eq 'older';
		settle($a, $b);
		same($a, $b, $all, 'both are the same');
		is(conflicts($b), $age eq 'older' ? 'a|t|local|older name|0.00|t|t' : 'a|t|remote|newer key|2.00|t|t', 'B knows what has lost');
		undo_last($b);
		same($a, $b, $all, 'undone, both are the same');
		is(rows($a, "SELECT name, n FROM t WHERE name LIKE '$age %'"), $age eq 'older' ? 'older name|0.00' : 'newer key|2.00', 'one row, with the loser\'s values');
	};
}

subtest 'other kinds of rows' => sub {
	begin_with('parent');
	on($a, q{INSERT INTO child (t_id, "Odd name", tags, at) SELECT id, 'it''s', '{a,"b c"}', '2020-02-29 12:00+00' FROM t WHERE name = 'parent'; INSERT INTO code VALUES ('x', 0)});
	settle($a, $b);
	on($b, q{UPDATE child SET tags = '{"d,e",NULL}', at = '2021-01-01 00:00+00'; UPDATE code SET n = 2});
	on($a, q{UPDATE child SET tags = '{}'; DELETE FROM code});
	settle($a, $b);
	is(rows($b, 'SELECT count(*) FROM synchro.conflicts'), '2', 'two changes of B were overwritten');
	on($b, 'SET search_path = pg_catalog; SELECT synchro.undo(id) FROM synchro.conflicts');
	settle($a, $b);
	same($a, $b, $all, 'undone, both are the same');
	is(rows($a, q{SELECT tags, at AT TIME ZONE 'UTC' FROM child}), '{"d,e",NULL}|2021-01-01 00:00:00', 'arrays and times are as they were');
	is(rows($a, 'SELECT code, n FROM code'), 'x|2', 'and a key that says it all is kept');
};

sub on_error
{
	my ($node, $sql) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	return $stderr;
}

subtest 'who may undo' => sub {
	begin_with('rights');
	on($b, q{UPDATE t SET n = 2 WHERE name = 'rights'});
	on($a, q{UPDATE t SET n = 1 WHERE name = 'rights'});
	settle($a, $b);
	on($b, 'CREATE ROLE clerk');
	my $undo = 'SELECT synchro.undo(' . rows($b, 'SELECT max(id) FROM synchro.conflicts') . ')';

	like(on_error($b, "SET ROLE clerk;\n$undo"), qr/42501: permission denied for function undo/, 'nobody without being told');
	on($b, 'GRANT EXECUTE ON FUNCTION synchro.undo TO clerk');
	like(on_error($b, "SET ROLE clerk;\n$undo"), qr/42501: permission denied for table t/, 'who may call it needs rights on the table');
	is(rows($b, q{SELECT n FROM t WHERE name = 'rights'}), '1.00', 'nothing was changed');
	on($b, 'GRANT SELECT, UPDATE ON t TO clerk');
	on($b, "SET ROLE clerk; $undo");
	is(rows($b, q{SELECT n FROM t WHERE name = 'rights'}), '2.00', 'and then needs nothing else');
	like(on_error($b, 'SELECT synchro.undo(0)'), qr/42704: there is no conflict 0/, 'a conflict that does not exist');
	on($b, 'UPDATE t SET note = note');
	settle($a, $b);
};

subtest 'a key that was widened in between' => sub {
	both($a, $b, 'CREATE TABLE wide (id serial PRIMARY KEY, name text UNIQUE, n int)');
	$_->safe_psql('postgres', q{SELECT synchro.add_table('wide', '{name}')}) foreach $a, $b;
	on($a, q{INSERT INTO wide (name, n) VALUES ('logged before', 0)});
	begin_with();
	settle($a, $b);
	on($a, 'UPDATE wide SET n = 1');
	on($b, 'UPDATE wide SET n = 2');
	both($a, $b, 'ALTER TABLE wide ALTER id TYPE bigint');
	settle($a, $b);
	same($a, $b, 'SELECT name, n FROM wide', 'both are the same');
	is(rows($a, 'SELECT n FROM wide'), '2', 'the newer change has won');
	is(conflicts($b), 'a|wide|local|logged before|1|t|t', 'and the older one is on record');
};

subtest 'what has become of the table' => sub {
	begin_with('changed');
	on($b, q{UPDATE t SET n = 2, note = 'of b' WHERE name = 'changed'});
	on($a, q{UPDATE t SET n = 1, note = 'of a' WHERE name = 'changed'});
	settle($a, $b);
	both($a, $b, q{ALTER TABLE t DROP COLUMN note; ALTER TABLE t ADD COLUMN note2 text DEFAULT 'new'});
	on($b, 'SELECT synchro.undo(max(id)) FROM synchro.conflicts');
	is(rows($b, q{SELECT n, note2 FROM t WHERE name = 'changed'}), '2.00|new', 'columns that are there still are written');
	on($b, q{INSERT INTO synchro.conflict (node, relation, local_changed_at, remote_changed_at, winner, ambiguous, loser)
		SELECT node, 4294967294, now(), now(), 'local', false, '{}' FROM synchro.remote_state});
	like(on_error($b, 'SELECT synchro.undo(max(id)) FROM synchro.conflicts'), qr/42P01: the table of conflict \d+ does not exist any more/, 'a table that is gone is told');
	settle($a, $b);
};

subtest 'columns of whatever name are recorded' => sub {
	both($a, $b, 'CREATE TABLE point (id serial PRIMARY KEY, name text UNIQUE, x int, y int, z int, m int, s int, t int)');
	$b->safe_psql('postgres', 'ALTER SEQUENCE point_id_seq RESTART 1000');
	watch([$a, $b], point => '{name}');
	on($_, 'TRUNCATE synchro.conflict') foreach $a, $b;
	on($a, q{INSERT INTO point (name, x, y, z, m, s, t) VALUES ('lost', 0, 0, 0, 0, 0, 0), ('overwritten', 0, 0, 0, 0, 0, 0)});
	settle($a, $b);
	on($a, q{UPDATE point SET x = 1, y = 2, z = 3, m = 4, s = 5, t = 6 WHERE name = 'lost'});
	on($b, q{UPDATE point SET x = -1 WHERE name = 'lost'; UPDATE point SET x = 6, y = 5, z = 4, m = 3, s = 2, t = 1 WHERE name = 'overwritten'});
	on($a, q{UPDATE point SET z = -1 WHERE name = 'overwritten'});
	settle($a, $b);
	my $points = 'SELECT name, x, y, z, m, s, t FROM point ORDER BY 1';

	same($a, $b, $points, 'both are the same');
	is(rows($b, q{SELECT winner, loser ->> 'name', concat_ws(' ', loser ->> 'x', loser ->> 'y', loser ->> 'z', loser ->> 'm', loser ->> 's', loser ->> 't') FROM synchro.conflicts ORDER BY 1}),
		"local|lost|1 2 3 4 5 6\nremote|overwritten|6 5 4 3 2 1", 'the losers are recorded');
	on($b, 'SELECT synchro.undo(id) FROM synchro.conflicts');
	settle($a, $b);
	is(rows($a, $points), "lost|1|2|3|4|5|6\noverwritten|6|5|4|3|2|1", 'and are written back');
};

subtest 'the record is bounded' => sub {
	# a parameter of a library that is not loaded beforehand
	on($b, q{LOAD 'synchro'; ALTER SYSTEM SET synchro.conflicts_kept = 150});
	$b->reload;
	$b->poll_query_until('postgres', 'SHOW synchro.conflicts_kept', '150') or die;
	on($_, 'TRUNCATE synchro.conflict') foreach $a, $b;
	on($a, q{INSERT INTO code SELECT 'c' || i FROM generate_series(1, 1000) i});
	settle($a, $b);
	on($b, 'UPDATE code SET n = 1');
	on($a, 'UPDATE code SET n = 2');
	settle($a, $b);
	my ($count, $lowest) = split /\|/, rows($b, 'SELECT count(*), max(id) - min(id) FROM synchro.conflicts');

	cmp_ok($count, '>=', 150, "of 1000 conflicts at least as many are kept as asked for ($count)");
	cmp_ok($count, '<=', 250, 'and not many more');
	is($lowest, $count - 1, 'the newest');
	on($b, q{LOAD 'synchro'; ALTER SYSTEM SET synchro.conflicts_kept = 0});
	$b->reload;
	$b->poll_query_until('postgres', 'SHOW synchro.conflicts_kept', '0') or die;
	on($_, 'TRUNCATE synchro.conflict') foreach $a, $b;
	on($b, 'UPDATE code SET n = 3');
	on($a, 'UPDATE code SET n = 4');
	settle($a, $b);
	same($a, $b, 'SELECT code, n FROM code ORDER BY 1', 'decided is as before');
	is(rows($b, 'SELECT count(*) FROM synchro.conflict'), '0', 'zero records none');
};

$_->stop('fast') foreach $a, $b;
done_testing();
