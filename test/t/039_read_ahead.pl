# The next batch is read while the remote applies one.
#
# WHY: it is then read with an older snapshot than it would be, and before it is known what becomes of the one before. A row
# that is renamed, moved or deleted meanwhile must not end up under the wrong name or parent, and nothing may be left out or
# sent twice when the batch before fails, or the connection does.

use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => <<'CONF');
synchro.batch_size = 100
synchro.retry_max_interval = 1s
log_min_messages = debug1
log_statement = none
CONF
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TYPE mood AS ENUM ('fine', 'bad');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE children (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n integer CHECK (n < 1000), mood mood DEFAULT 'fine', parent_id integer REFERENCES parents);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('parents_id_seq', 7000), setval('children_id_seq', 9000);
CREATE TABLE audit (name text, operation text);
CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.audit VALUES (coalesce(NEW.name, OLD.name), TG_OP);
	RETURN NULL;
END
$$;
CREATE TRIGGER count_it AFTER INSERT OR UPDATE OR DELETE ON children FOR EACH ROW EXECUTE FUNCTION count_it();
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parents', '{name}'), synchro.add_table('children', '{name}');
INSERT INTO parents (name) SELECT 'p' || i FROM generate_series(1, 20) i;
INSERT INTO children (name, n, mood, parent_id) SELECT 'c' || i, 0, CASE WHEN i = 950 THEN 'bad' ELSE 'fine' END::mood, 1 + i % 20
FROM generate_series(1, 1000) i;
SQL

my $contents = q{SELECT c.name, n, mood, p.name AS parent FROM children c LEFT JOIN parents p ON p.id = parent_id ORDER BY 1};

sub arrived
{
	my ($testname) = @_;

	wait_for($local, q{SELECT pending = 0 AND state = 'idle' FROM synchro.remotes}, "$testname: nothing is pending");
	same($local, $remote, $contents, $testname);
}

arrived('the first rows');

# A session that keeps the remote from going on with a row of the first batch, and one that keeps the next from being read.
my ($there, $here);

sub hold
{
	my ($what, $update) = @_;
	my $offset = -s $local->logfile;

	$remote->safe_psql('postgres', 'TRUNCATE audit');
	$there = $remote->background_psql('postgres');
	$there->query_safe(q{BEGIN; UPDATE children SET n = n WHERE name = 'c1'});
	$local->safe_psql('postgres', $update);
	$local->wait_for_log(qr/synchro: $what the next batch ahead/, $offset);
}

sub let_go
{
	$there->query_safe('ROLLBACK');
	$there->quit;
}

#
# all goes well: each row once, though the next batch was read long before its turn
#
hold('has read', 'UPDATE children SET n = n + 1');
let_go();
arrived('an update of all rows');
is($remote->safe_psql('postgres', 'SELECT count(*), count(DISTINCT name) FROM audit'), '1000|1000', '... each one once');

#
# after the next batch was read, names change hands, and rows of it move and go
#
hold('has read', 'UPDATE children SET n = n + 1');
$local->safe_psql('postgres', <<'SQL');
BEGIN;
UPDATE parents SET name = 'x' WHERE name = 'p3';
UPDATE parents SET name = 'p3' WHERE name = 'p4';
UPDATE parents SET name = 'p4' WHERE name = 'x';
UPDATE parents SET name = 'other' WHERE name = 'p5';
UPDATE children SET parent_id = (SELECT id FROM parents WHERE name = 'p6') WHERE id % 7 = 0;
UPDATE children SET name = 'new ' || name WHERE id % 11 = 0;
DELETE FROM children WHERE id BETWEEN 105 AND 150;
INSERT INTO children (name, n, parent_id) SELECT name, n, parent_id FROM (VALUES ('c110', 5, 3), ('c111', 6, 4)) v (name, n, parent_id);
COMMIT;
SQL
let_go();
arrived('names that change hands meanwhile');

#
# the same before it is read, and after the one before was: the names since that one was read belong to it
#
foreach my $swap (1, 2)
{
	$there = $remote->background_psql('postgres');
	$there->query_safe(q{BEGIN; UPDATE children SET n = n WHERE name = 'c1'});
	my $offset = -s $local->logfile;

	# the first batch has parents only, and waits for the lock of none; the second one's reading waits for ours
	$here = $local->background_psql('postgres');
	$local->safe_psql('postgres', q{UPDATE children SET n = n + 1});
	$local->wait_for_log(qr/synchro: has read the next batch ahead/, $offset);
	$here->query_safe(q{BEGIN; LOCK TABLE children IN ACCESS EXCLUSIVE MODE});
	$offset = -s $local->logfile;
	let_go();
	wait_for($local, q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted
		AND relation = 'children'::regclass AND backend_type LIKE 'synchro%'}, 'the next but one waits for a lock here');
	$here->query_safe(<<'SQL');
UPDATE parents SET name = 'y' WHERE name = 'p7';
UPDATE parents SET name = 'p7' WHERE name = 'p8';
UPDATE parents SET name = 'p8' WHERE name = 'y';
UPDATE children SET name = 'z' WHERE name = 'c992';
UPDATE children SET name = 'c992' WHERE name = 'c993';
UPDATE children SET name = 'c993' WHERE name = 'z';
COMMIT;
SQL
	$here->quit;
	arrived("names that change hands before it is read, $swap");
}

#
# the batch before fails: its bad row is parked, the next one is read again
#
$remote->safe_psql('postgres', q{ALTER TABLE children ADD CONSTRAINT not_c2 CHECK (name <> 'c2' OR n < 5)});
hold('has read', q{UPDATE children SET n = n + 10});
$local->safe_psql('postgres', q{UPDATE parents SET name = 'renamed ' || name WHERE name IN ('p9', 'p10'); DELETE FROM children WHERE name = 'c180'});
let_go();
wait_for($local, 'SELECT count(*) = 1 FROM synchro.failures', 'the bad row is parked');
wait_for($local, q{SELECT pending <= 1 AND state = 'idle' FROM synchro.remotes}, 'and all else is through');
same($local, $remote, "SELECT * FROM ($contents) x WHERE name <> 'c2'", '... and equal');
$remote->safe_psql('postgres', 'ALTER TABLE children DROP CONSTRAINT not_c2');
wait_for($local, 'SELECT count(*) = 0 FROM synchro.failures', 'it heals when the cause is gone');
arrived('the bad row, when the cause is gone');

#
# the connection is lost while the next batch has been read
#
hold('has read', 'UPDATE children SET n = n + 1');
is($remote->safe_psql('postgres', q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'sync'}) > 0 ? 1 : 0, 1, 'the connection is cut');
let_go();
arrived('a lost connection');

#
# the next batch cannot be read: the one before is done all the same, and the error comes in its turn
#
my $before = $remote->safe_psql('postgres', q{SELECT n FROM children WHERE name = 'c1'});
hold('has read', 'UPDATE children SET n = n + 1');
my $offset = -s $local->logfile;
$local->safe_psql('postgres', q{CREATE TABLE kept AS SELECT * FROM pg_enum WHERE enumlabel = 'bad'; DELETE FROM pg_enum WHERE enumlabel = 'bad'});
let_go();
$local->wait_for_log(qr/synchro: could not read the next batch ahead/, $offset);
wait_arrival($remote, q{SELECT n FROM children WHERE name = 'c1'}, $before + 1, 'the batch before is done');
$local->safe_psql('postgres', 'INSERT INTO pg_enum SELECT * FROM kept');
wait_for($local, 'SELECT count(*) = 0 FROM synchro.failures', 'the error was one for the time being');
arrived('what could not be read ahead');
is($remote->safe_psql('postgres', q{SELECT n FROM children WHERE name = 'c1'}), $before + 1, 'no update is lost');

done_testing();
