# WHY: the most dangerous bad rows are those that clash with rows which are nobody's fault: a key that stands for several, a
# value that another row has, a row that another server brings at the same moment. What helps one row must not cost another
# one anything: no row is deleted, doubled, or taken for one that it is not.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $conf = "synchro.retry_max_interval = 1s\n";
my $local = synchro_node('local', preload => 1, conf => $conf);
my $other = synchro_node('other', preload => 1, conf => $conf);
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, code int, n int);
CREATE TABLE kinds (id serial PRIMARY KEY, name text NOT NULL, n int);
CREATE TABLE things (id serial PRIMARY KEY, name text NOT NULL UNIQUE, kind_id int REFERENCES kinds, n int);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('t_id_seq', 1000000), setval('kinds_id_seq', 1000000), setval('things_id_seq', 1000000);
SQL
note_deletes('t', $remote);
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t', '{name}'), synchro.add_table('kinds', '{name}'), synchro.add_table('things', '{name}');
INSERT INTO t (name, code) SELECT 'row ' || i, i FROM generate_series(1, 1000) i;
SQL
wait_arrival($remote, 'SELECT count(*) FROM t', '1000', 'rows to begin with');

sub settled
{
	my ($failed, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return 1 if wait_for($local, "SELECT pending = 0 AND failed = $failed FROM synchro.remotes", $testname);
	diag(rows($local, 'SELECT pending, failed, state, last_error FROM synchro.remotes'));
	diag(rows($local, 'SELECT relation, key, sqlstate, message, attempts FROM synchro.failures LIMIT 10'));
	return 0;
}

my $all = 'SELECT name, code, n FROM t';

#
# A second unique value that a third row has: of the remote's own, or one of ours that is not in the batch.
#
foreach my $kind ('immediate', 'deferred')
{
	$remote->safe_psql('postgres', 'ALTER TABLE t ADD CONSTRAINT one_code UNIQUE (code)' . ($kind eq 'deferred' ? ' DEFERRABLE INITIALLY DEFERRED' : ''));
	$remote->safe_psql('postgres', q{INSERT INTO t (name, code) VALUES ('own 1', 5001), ('own 2', 5002), ('own 3', 5003)});
	$local->safe_psql('postgres', <<'SQL');
BEGIN;
UPDATE t SET n = 1;
INSERT INTO t (name, code) VALUES ('new against own', 5001), ('new against ours', 5004), ('new', 6000);
UPDATE t SET code = 5002 WHERE name = 'row 100';
UPDATE t SET code = 5003, name = 'renamed 200' WHERE name = 'row 200';
COMMIT;
SQL

	# of two rows that have the same code here one has it there
	settled(3, "$kind: those that clash are parked");
	$local->safe_psql('postgres', q{UPDATE t SET code = 5004 WHERE name = 'row 300'});
	settled(4, "$kind: also one with a row of ours");
	is(rows($local, 'SELECT DISTINCT sqlstate, constraint_name FROM synchro.failures'), '23505|one_code', "$kind: the reason is told");
	is(rows($remote, q{SELECT name, code FROM t WHERE code > 5000 ORDER BY code}), "own 1|5001\nown 2|5002\nown 3|5003\nnew against ours|5004\nnew|6000",
		"$kind: whoever had the values has them still");
	is(rows($remote, q{SELECT name, code, n FROM t WHERE name IN ('row 100', 'row 200', 'renamed 200', 'row 300') ORDER BY id}), "row 100|100|\nrow 200|200|\nrow 300|300|1",
		"$kind: the others are as they were");
	is(rows($remote, 'SELECT count(*) FROM t WHERE n = 1'), 998, "$kind: all the rest has arrived");
	is(rows($remote, 'SELECT * FROM deleted'), '', "$kind: no row was deleted");
	$remote->safe_psql('postgres', q{DELETE FROM t WHERE name LIKE 'own %'; TRUNCATE deleted});
	$local->safe_psql('postgres', q{UPDATE t SET code = 300 WHERE name = 'row 300'});
	settled(0, "$kind: mended, they arrive without a call");
	same($local, $remote, "$all ORDER BY name", "$kind: all are the same");
	$local->safe_psql('postgres', <<'SQL');
BEGIN;
DELETE FROM t WHERE name LIKE 'new%';
UPDATE t SET name = 'row ' || id, code = id, n = NULL;
COMMIT;
SQL
	settled(0, "$kind: back to what it was");
	same($local, $remote, "$all ORDER BY name", "$kind: on both sides");
	$remote->safe_psql('postgres', 'ALTER TABLE t DROP CONSTRAINT one_code; TRUNCATE deleted');
}

#
# A unique value that is taken over from a row which is deleted, over and over in one pass of many batches: deletes come last,
# so the rows are given other values meanwhile, each its own.
#
{
	$remote->safe_psql('postgres', 'CREATE TABLE labels (id serial PRIMARY KEY, name text UNIQUE, label varchar(12) NOT NULL UNIQUE)');
	$local->safe_psql('postgres', <<'SQL');
CREATE TABLE labels (id serial PRIMARY KEY, name text UNIQUE, label varchar(12) NOT NULL UNIQUE);
INSERT INTO labels (name, label) SELECT 'name ' || i, 'label ' || i FROM generate_series(1, 40) i;
SELECT synchro.add_table('labels', '{name}');
SQL
	$local->safe_psql('postgres', 'UPDATE labels SET label = label');
	settled(0, 'rows with labels');
	same($local, $remote, 'SELECT name, label FROM labels ORDER BY name', 'on both sides');
	reload_with($local, 'synchro.batch_size' => 1, 'synchro.retry_max_interval' => '1h');
	my $before = rows($local, q{SELECT synchro.checkpoint('office')});
	my $offset = -s $remote->logfile;

	$local->safe_psql('postgres', <<'SQL');
BEGIN;
DELETE FROM labels WHERE id % 2 = 0;
UPDATE labels SET label = 'label ' || id + 1 WHERE id % 2 = 1;
COMMIT;
SQL
	wait_for($local, "SELECT synchro.checkpoint('office') > '$before' AND pending = 0 FROM synchro.remotes", 'the pass has come to its end');
	is(rows($local, 'SELECT * FROM synchro.failures'), '', 'nothing has failed');
	unlike(slurp_file($remote->logfile, $offset), qr/Key \(label\)=\(\x01/, 'nor have two of them met on the way');
	same($local, $remote, 'SELECT name, label FROM labels ORDER BY name', 'all have the labels of the deleted ones');
	reload_with($local, 'synchro.batch_size' => 10000, 'synchro.retry_max_interval' => '1s');
}

#
# A rule that is looked at when all has been done, which a batch asks for before it commits; and one that is left to COMMIT itself:
# the trigger has its constraint deferred again, and itself called again.
#
my %refuse = (
	'a deferred trigger' => '',
	'a trigger at COMMIT' => <<'SQL');
	IF coalesce(current_setting('at_last.row_' || NEW.id, true), '') = '' THEN
		PERFORM set_config('at_last.row_' || NEW.id, 'seen', true);
		SET CONSTRAINTS public.refuse DEFERRED;
		UPDATE public.t SET n = n WHERE id = NEW.id;
		RETURN NULL;
	END IF;
SQL

sub refuse_at_last
{
	my ($kind, $error) = @_;

	$remote->safe_psql('postgres', <<"SQL");
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	IF NOT EXISTS (SELECT FROM public.t WHERE id = NEW.id AND n = -1) THEN
		RETURN NULL;
	END IF;
	$refuse{$kind}
	RAISE EXCEPTION 'not at last' USING ERRCODE = '$error', CONSTRAINT = 'at_last';
END
\$\$;
DROP TRIGGER IF EXISTS refuse ON t;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
	return;
}

foreach my $case ([ 'a deferred trigger', 'off' ], [ 'a trigger at COMMIT', 'off' ], [ 'a trigger at COMMIT', 'on' ])
{
	my ($kind, $atomic) = @$case;
	my $testname = $kind . ($atomic eq 'on' ? ', one transaction for each pass' : '');

	reload_with($local, 'synchro.atomic_pass' => $atomic);
	refuse_at_last($kind, '23514');
	$local->safe_psql('postgres', q{UPDATE t SET n = CASE WHEN id % 100 = 7 THEN -1 ELSE 1 END});
	settled(10, "$testname: the bad rows are parked");
	is(rows($local, 'SELECT DISTINCT sqlstate, constraint_name, message FROM synchro.failures'), '23514|at_last|not at last', "$testname: the reason is told");
	is(rows($remote, 'SELECT count(*) FROM t WHERE n = 1'), 990, "$testname: all others arrive");
	$remote->safe_psql('postgres', 'DROP TRIGGER refuse ON t');
	settled(0, "$testname: gone, they arrive without a call");
	same($local, $remote, "$all ORDER BY name", "$testname: all are the same");

	# rows that are renamed, too
	refuse_at_last($kind, '23514');
	$local->safe_psql('postgres', q{UPDATE t SET name = 'renamed ' || id, n = CASE id WHEN 7 THEN -1 ELSE 2 END WHERE id < 20});
	settled(1, "$testname: of rows that are renamed the bad one is parked");
	is(rows($remote, q{SELECT count(*) FROM t WHERE name LIKE 'renamed %' AND n = 2}), 18, "$testname: the others are renamed");
	is(rows($remote, q{SELECT name FROM t WHERE name IN ('row 7', 'renamed 7')}), 'row 7', "$testname: that one is called as before");
	$remote->safe_psql('postgres', 'DROP TRIGGER refuse ON t');
	settled(0, "$testname: gone, it is renamed without a call");
	same($local, $remote, "$all ORDER BY name", "$testname: all have the same names");
	$local->safe_psql('postgres', q{UPDATE t SET name = 'row ' || id, n = 0});
	settled(0, "$testname: back to what it was");
}
reload_with($local, 'synchro.atomic_pass' => 'off');

# COMMIT comes by itself where the remote is near, and a trigger may say then what only our own statements say before
foreach my $error ('23514', '22012')
{
	my $offset = -s $remote->logfile;
	my $said = -s $local->logfile;

	refuse_at_last('a trigger at COMMIT', $error);
	$local->safe_psql('postgres', q{UPDATE t SET n = -1 WHERE id = 7});
	settled(1, "$error at COMMIT: one row is parked");
	is(rows($local, 'SELECT sqlstate, message FROM synchro.failures'), "$error|not at last", "$error at COMMIT: the reason is told");
	like(slurp_file($remote->logfile, $offset), qr/ERROR:  not at last(?:(?!ERROR:).)*STATEMENT:  COMMIT\n/s, "$error at COMMIT: by the statement COMMIT");
	unlike(slurp_file($local->logfile, $said), qr/another worker has moved the position/, "$error at COMMIT: the fence is not taken to have said it");
	$remote->safe_psql('postgres', 'DROP TRIGGER refuse ON t');
	settled(0, "$error at COMMIT: gone, it arrives without a call");
	same($local, $remote, "$all ORDER BY name", "$error at COMMIT: all are the same");
	$local->safe_psql('postgres', q{UPDATE t SET n = 0 WHERE id = 7});
	settled(0, "$error at COMMIT: back to what it was");
}

#
# a key that stands for several rows there, in the middle of others
#
{
	$local->safe_psql('postgres', q{INSERT INTO kinds (name) SELECT 'kind ' || i FROM generate_series(1, 200) i; INSERT INTO things (name, kind_id) SELECT 'thing ' || i, i FROM generate_series(1, 200) i});
	settled(0, 'kinds and things');
	$remote->safe_psql('postgres', q{INSERT INTO kinds (name, n) VALUES ('kind 50', -1), ('kind 50', -2), ('kind 60', -1)});
	my $before = rows($remote, q{SELECT id, name, n FROM kinds WHERE name IN ('kind 50', 'kind 60') ORDER BY id});
	$local->safe_psql('postgres', q{BEGIN; UPDATE kinds SET n = 1; UPDATE things SET n = 1; DELETE FROM things WHERE name = 'thing 60'; DELETE FROM kinds WHERE name = 'kind 60'; COMMIT});

	# the thing needs to know which kind is meant
	settled(3, 'a key with several rows is parked, with what refers to it');
	is(rows($local, 'SELECT relation, sqlstate, count(DISTINCT key) FROM synchro.failures GROUP BY 1, 2 ORDER BY 1'), "kinds|21000|2\nthings|21000|1", 'each by name');
	is(rows($remote, q{SELECT id, name, n FROM kinds WHERE name IN ('kind 50', 'kind 60') ORDER BY id}), $before, 'none of the rows is touched');
	is(rows($remote, 'SELECT (SELECT count(*) FROM kinds WHERE n = 1), (SELECT count(*) FROM things WHERE n = 1)'), '198|198', 'all others arrive');
	$remote->safe_psql('postgres', 'DELETE FROM kinds WHERE n < 0');
	settled(0, 'the surplus rows gone, it arrives without a call');
	same($local, $remote, 'SELECT t.name, t.n, k.name, k.n FROM things t JOIN kinds k ON k.id = t.kind_id ORDER BY t.name', 'all are the same');
	is(rows($remote, q{SELECT count(*) FROM kinds}), 199, 'none is left over');
}

#
# Two servers bring the same new row at the same time, and no unique index tells one of them: the second waits for the first,
# and finds what that has made.
#
{
	$other->safe_psql('postgres', 'CREATE TABLE kinds (id serial PRIMARY KEY, name text NOT NULL, n int)');
	connect_remote($other, $remote, peer => 'none');
	$other->safe_psql('postgres', q{SELECT synchro.add_table('kinds', '{name}')});
	$remote->safe_psql('postgres', <<'SQL');
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(1);
	RETURN NEW;
END
$$;
CREATE TRIGGER wait BEFORE INSERT ON kinds FOR EACH ROW EXECUTE FUNCTION wait();
SQL
	# whoever meets a new trigger tries its batch again
	$local->safe_psql('postgres', q{INSERT INTO kinds (name, n) VALUES ('before', 1)});
	settled(0, 'the trigger is known');

	my $gate = $remote->background_psql('postgres');
	my $waiting = q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'};

	$gate->query_safe('SELECT pg_advisory_lock(1)');
	$local->safe_psql('postgres', q{INSERT INTO kinds (name, n) VALUES ('twin', 1), ('only here', 1)});
	wait_for($remote, $waiting, 'one pusher is about to insert', expected => '1');
	$other->safe_psql('postgres', q{INSERT INTO kinds (name, n) VALUES ('twin', 2), ('only there', 2)});
	wait_for($remote, $waiting, 'the other comes, too', expected => '2');
	$gate->query_safe('SELECT pg_advisory_unlock(1)');
	wait_for($_, 'SELECT pending = 0 AND failed = 0 FROM synchro.remotes', 'both get through: ' . $_->name) foreach $local, $other;
	is(rows($remote, q{SELECT name, n FROM kinds WHERE name IN ('twin', 'only here', 'only there') ORDER BY name}), "only here|1\nonly there|2\ntwin|2",
		'there is one row of the name, as the second wants it');

	# nobody else is kept waiting
	$gate->query_safe('SELECT pg_advisory_lock(1)');
	$local->safe_psql('postgres', q{INSERT INTO kinds (name) VALUES ('another')});
	wait_for($remote, $waiting, 'a pusher has its turn', expected => '1');
	$remote->safe_psql('postgres', q{SET lock_timeout = '30s'; UPDATE kinds SET n = 7 WHERE name = 'kind 7'});
	pass('the remote\'s own clients can write meanwhile');
	$gate->query_safe('SELECT pg_advisory_unlock(1)');
	$gate->quit;
	settled(0, 'and it gets through');
}

$_->stop('fast') foreach $local, $other, $remote;
done_testing();
