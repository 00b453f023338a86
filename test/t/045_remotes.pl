# WHY: remotes are independent of each other. One that is dead or paused must not slow down one that lives, nor lose anything
# because the other has got it already; back again, it gets each changed row once and not each change. What is pending, for
# how long, and how far a pass has come is what an operator looks at all day: it must be right, and cost nothing to ask.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => <<'CONF');
synchro.retry_max_interval = 1s
synchro.log_retention = 1s
synchronous_commit = off
CONF
my $alive = synchro_node('alive', conf => 'synchronous_commit = off');
my $dead = synchro_node('dead');

$_->safe_psql('postgres', 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int)') foreach $local, $alive, $dead;
$dead->safe_psql('postgres', <<'SQL');
CREATE TABLE audit (name text, operation text);
CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.audit VALUES (coalesce(NEW.name, OLD.name), TG_OP);
	RETURN NULL;
END
$$;
CREATE TRIGGER count_it AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION count_it();
SQL
connect_remote($local, $alive, name => 'alive');
connect_remote($local, $dead, name => 'dead');
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t', '{name}');
INSERT INTO t (name, n) SELECT 'row ' || i, 0 FROM generate_series(1, 1000) i;
SQL
wait_arrival($_, 'SELECT count(*) FROM t', '1000', 'both get everything') foreach $alive, $dead;

# How long one change takes to be seen by who polls, with what psql takes: the median of some, in seconds.
my $single = 1000;

sub seconds_per_change
{
	my @times;

	foreach my $i (1 .. 15)
	{
		$single++;
		$local->safe_psql('postgres', "UPDATE t SET n = $single WHERE name = 'row 990'");
		push @times, wait_arrival($alive, q{SELECT n FROM t WHERE name = 'row 990'}, $single, 'a change arrives');
	}
	return (sort { $a <=> $b } @times)[7];
}

my $usual = seconds_per_change();
$local->safe_psql('postgres', q{UPDATE t SET n = 0 WHERE name = 'row 990'});
wait_for($local, q{SELECT count(*) = 2 FROM synchro.remotes WHERE pending = 0 AND state = 'idle'}, 'both have all of that');
$dead->safe_psql('postgres', 'TRUNCATE audit');

#
# one is dead
#
$dead->stop('immediate');
$local->safe_psql('postgres', <<'SQL');
DO $$
BEGIN
	FOR i IN 1..20 LOOP
		UPDATE t SET n = n + 1 WHERE id <= 500;
		COMMIT;
	END LOOP;
END
$$;
DELETE FROM t WHERE name = 'row 1000';
INSERT INTO t (name, n) VALUES ('new', 1);
INSERT INTO t (name, n) VALUES ('never seen', 1);
DELETE FROM t WHERE name = 'never seen';
UPDATE t SET name = 'renamed' WHERE name = 'row 999';
SQL
wait_arrival($alive, 'SELECT sum(n), count(*) FROM t', '10001|1000', 'the living one gets everything');
wait_for($local, q{SELECT state = 'waiting to try again' AND pending = 10005 AND lag > '0' FROM synchro.remotes WHERE remote = 'dead'},
	'what is pending for the other is counted: entries of the log');
wait_for($local, q{SELECT state = 'idle' AND pending = 0 AND lag = '0' FROM synchro.remotes WHERE remote = 'alive'}, 'for the living one nothing is');

# as fast as ever, also while the dead one's pusher looks after the log
soon_enough(2 * $usual + 0.1, sprintf('the living one is served at full speed: it took %.3f s before', $usual), \&seconds_per_change);
$local->safe_psql('postgres', q{UPDATE t SET n = 0 WHERE name = 'row 990'});

# the log is not pruned although all of it is older than log_retention, and needed by nobody else
wait_for($local, q{SELECT max(changed_at) < now() - interval '3 s' FROM synchro.changes}, 'all of the log has become old');
$dead->start;
wait_arrival($dead, 'SELECT sum(n), count(*) FROM t', '10001|1000', 'back again, the dead one gets everything');
same($alive, $dead, 'SELECT name, n FROM t ORDER BY name', 'both are the same');
is(rows($dead, 'SELECT count(*), count(DISTINCT name), count(*) FILTER (WHERE operation = \'UPDATE\'), count(*) FILTER (WHERE operation = \'DELETE\') FROM audit'),
	'503|503|501|1', 'each changed row came once');
wait_for($local, q{SELECT count(*) = 2 FROM synchro.remotes WHERE pending = 0 AND lag = '0' AND state = 'idle'}, 'nothing is pending');

#
# paused
#
$local->safe_psql('postgres', q{SELECT synchro.pause('dead')});
$local->safe_psql('postgres', q{UPDATE t SET n = -1 WHERE id <= 10});
wait_arrival($alive, 'SELECT count(*) FROM t WHERE n = -1', '10', 'while one is paused the other is served');
is(rows($dead, 'SELECT count(*) FROM t WHERE n = -1'), '0', 'and the paused one is not');
my $paused = q{SELECT state, pending, worker_pid IS NULL FROM synchro.remotes WHERE remote = 'dead'};
wait_for($local, $paused, 'view remotes says so', expected => 'paused|10|t');
$local->restart;
wait_for($local, q{SELECT state = 'idle' FROM synchro.remotes WHERE remote = 'alive'}, 'after a restart');
wait_for($local, $paused, 'it still is', expected => 'paused|10|t');
is(rows($dead, 'SELECT count(*) FROM t WHERE n = -1'), '0', 'and nothing has reached it');
$local->safe_psql('postgres', q{SELECT synchro.resume('dead')});
wait_arrival($dead, 'SELECT count(*) FROM t WHERE n = -1', '10', 'resumed, it gets what it has missed');

#
# what is committed while a batch is under way is pending after it
#
my $waits = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'};
my $holder = $dead->background_psql('postgres');

$holder->query_safe(q{BEGIN; SELECT FROM t WHERE name = 'row 20' FOR UPDATE});
$local->safe_psql('postgres', q{UPDATE t SET n = -2 WHERE id = 20});
wait_for($dead, $waits, 'a batch is under way');
$local->safe_psql('postgres', q{UPDATE t SET n = -2 WHERE id BETWEEN 21 AND 23});
wait_for($local, q{SELECT pending = 4 FROM synchro.remotes WHERE remote = 'dead'}, 'its row, and what has come since, are pending');
$local->safe_psql('postgres', q{SELECT synchro.pause('dead')});
$holder->query_safe('COMMIT');
wait_for($local, $paused, 'after it, what has come since is', expected => 'paused|3|t');
is(rows($dead, 'SELECT count(*) FROM t WHERE n = -2'), '1', 'just as it is');
$local->safe_psql('postgres', q{SELECT synchro.resume('dead')});
wait_arrival($dead, 'SELECT count(*) FROM t WHERE n = -2', '4', 'and it comes');
wait_for($local, q{SELECT pending = 0 FROM synchro.remotes WHERE remote = 'dead'}, 'then nothing is pending');

#
# many rows
#
$dead->safe_psql('postgres', 'DROP TRIGGER count_it ON t');
$local->safe_psql('postgres', q{SELECT synchro.pause('dead')});
$local->append_conf('postgresql.conf', 'synchro.batch_size = 5000');
$local->reload;
my $watcher = $local->background_psql('postgres');
$local->safe_psql('postgres', q{INSERT INTO t (name, n) SELECT 'many ' || i, 0 FROM generate_series(1, 500000) i});
my %seen;
my $lag = 'never seen';
my $last = 0;
my $monotonous = 1;
for (;;)
{
	my ($phase, $relation, $done, $total) = split /\|/,
	  $watcher->query_safe(q{SELECT phase, relation, rows_done, rows_total FROM synchro.progress WHERE remote = 'alive'});

	if (($phase // '') eq 'pushing' && $total == 500000)
	{
		$monotonous = 0 if $done < $last;
		$last = $done;
		$seen{$done} = 1;
		$lag = 't' if $watcher->query_safe(q{SELECT lag > '0' AND pending >= 500000 FROM synchro.remotes WHERE remote = 'alive'}) eq 't';
	}
	last if $watcher->query_safe(q{SELECT pending = 0 FROM synchro.remotes WHERE remote = 'alive'}) eq 't';
}
cmp_ok(scalar keys %seen, '>', 10, 'progress is seen to move: ' . scalar(keys %seen) . ' times');
ok($monotonous, 'forwards');
is($lag, 't', 'and lag and what is pending are right in the middle of a pass');
wait_arrival($alive, q{SELECT count(*) FROM t WHERE name LIKE 'many %'}, '500000', 'all arrives');
wait_for($local, 'SELECT count(*) = 0 FROM synchro.progress', 'then there is no progress to be seen any more');
is($watcher->query_safe(q{SELECT pending, lag FROM synchro.remotes WHERE remote = 'alive'}), '0|00:00:00', 'nothing is pending');
$watcher->quit;

#
# pause and ALTER SERVER in the middle of a pass
#
# A row that somebody else is about to insert there stops the pass where we want it. Who has inserted rows is written down.
$dead->safe_psql('postgres', <<'SQL');
CREATE TABLE batches (application text, rows int);
CREATE FUNCTION count_batch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.batches SELECT current_setting('application_name'), count(*) FROM inserted;
	RETURN NULL;
END
$$;
CREATE TRIGGER count_batch AFTER INSERT ON t REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION count_batch();
SQL
$holder->query_safe(q{BEGIN; INSERT INTO t (name) VALUES ('many 155555')});
reload_with($local, 'synchro.batch_size' => '1000');
$local->safe_psql('postgres', q{SELECT synchro.set_checkpoint('dead', now()), synchro.resume('dead')});
$local->safe_psql('postgres', q{UPDATE t SET n = 7 WHERE name LIKE 'many 1%'});
wait_for($dead, $waits, 'in the middle of a pass');
$local->safe_psql('postgres', q{SELECT synchro.pause('dead')});
$holder->query_safe('ROLLBACK');
wait_for($local, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}, 'pause() takes effect');
wait_for($dead, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'sync'}, 'here and there');
my $done = rows($dead, 'SELECT count(*) FROM t WHERE n = 7');
ok($done > 50000 && $done < 80000, "before the pass has come to its end: $done rows");
$holder->query_safe(q{BEGIN; INSERT INTO t (name) VALUES ('many 177777')});
$local->safe_psql('postgres', q{SELECT synchro.resume('dead')});
wait_for($dead, $waits, 'resumed, the pass begins anew');
$local->safe_psql('postgres', q{ALTER SERVER dead OPTIONS (ADD application_name 'altered')});
$holder->query_safe('ROLLBACK');
$holder->quit;
wait_arrival($_, 'SELECT count(*) FROM t WHERE n = 7', '111111', 'all arrives') foreach $alive, $dead;
cmp_ok(rows($dead, q{SELECT coalesce(sum(rows), 0) FROM batches WHERE application = 'altered'}), '>', 10000, 'an altered server is taken up in the middle of a pass');
cmp_ok(rows($dead, q{SELECT coalesce(sum(rows), 0) FROM batches WHERE application <> 'altered'}), '>', 10000, 'of which some was over');

#
# Whoever waits for a pusher whose remote is paused and resumed meanwhile has asked one that is gone: it neither waits for ever nor
# takes what another one has done before for an answer. It looks twice a second, so this is tried a few times.
#
foreach my $try (1 .. 4)
{
	my $locker = $dead->background_psql('postgres');
	my $caller = $local->background_psql('postgres', on_error_stop => 0);

	wait_for($local, q{SELECT bool_and(state = 'idle' AND pending = 0) FROM synchro.remotes}, 'nothing is pending');
	$locker->query_safe('BEGIN; LOCK TABLE t');
	$local->safe_psql('postgres', "UPDATE t SET n = 100 + $try WHERE name = 'many 1'");
	wait_for($dead, q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 't'::regclass AND NOT granted}, 'the pusher waits there');
	$caller->query_until(qr/asked/, "\\echo asked\nSELECT * FROM synchro.synchronize('dead');\n\\echo answered\n");
	wait_for($local, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND query ~ 'FROM synchro.synchronize' AND wait_event_type = 'Extension'}, 'the caller waits for it');
	$local->safe_psql('postgres', q{SELECT synchro.pause('dead')});
	wait_for($local, q{SELECT state = 'paused' FROM synchro.remotes WHERE remote = 'dead'}, 'paused');
	$local->safe_psql('postgres', q{SELECT synchro.resume('dead')});
	$locker->query_safe('ROLLBACK');
	$locker->quit;
	$caller->query_until(qr/answered/, '');
	is(rows($dead, q{SELECT n FROM t WHERE name = 'many 1'}), 100 + $try, "try $try: synchronize() ends, and what was pending then is there");
	$caller->quit;
}

#
# a server that is given to another owner: rows are read by his rights, and pushed as his user there
#
$dead->safe_psql('postgres', <<'SQL');
CREATE ROLE kept LOGIN PASSWORD 'secret too';
CREATE TABLE pushers (name text, rows int);
CREATE FUNCTION note_pusher() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.pushers SELECT session_user, count(*) FROM updated;
	RETURN NULL;
END
$$;
CREATE TRIGGER note_pusher AFTER UPDATE ON t REFERENCING NEW TABLE AS updated FOR EACH STATEMENT EXECUTE FUNCTION note_pusher();
GRANT USAGE ON SCHEMA synchro_peer TO kept;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA synchro_peer TO kept;
SQL
grant_dml($dead, user => 'kept');
$local->safe_psql('postgres', q{CREATE ROLE keeper; CREATE USER MAPPING FOR keeper SERVER dead OPTIONS (user 'kept', password 'secret too')});
$local->safe_psql('postgres', q{UPDATE t SET n = 10 WHERE id = 1});
wait_arrival($dead, 'SELECT n FROM t WHERE id = 1', '10', 'pushed as the first owner');
wait_for($local, q{SELECT pending = 0 AND state = 'idle' FROM synchro.remotes WHERE remote = 'dead'}, 'the connection is kept');
$local->safe_psql('postgres', q{GRANT USAGE ON FOREIGN DATA WRAPPER synchro_fdw TO keeper; ALTER SERVER dead OWNER TO keeper; UPDATE t SET n = 11 WHERE id = 1});
wait_for($local, q{SELECT message FROM synchro.failures WHERE remote = 'dead'}, 'another owner: the table may not be read', expected => 'permission denied for table t');
is(rows($dead, 'SELECT n FROM t WHERE id = 1'), '10', 'nor is it');
$local->safe_psql('postgres', q{GRANT SELECT ON t TO keeper; SELECT synchro.retry('dead')});
wait_arrival($dead, 'SELECT n FROM t WHERE id = 1', '11', 'until he has the right');
wait_for($dead, q{SELECT string_agg(DISTINCT usename, ' ') FROM pg_stat_activity WHERE application_name IN ('altered', 'synchro')}, 'and the session is his', expected => 'kept');
wait_for($local, q{SELECT pending = 0 AND failed = 0 AND state = 'idle' FROM synchro.remotes WHERE remote = 'dead'}, 'all is well');

# in the middle of a pass
$dead->safe_psql('postgres', 'TRUNCATE pushers');
$holder = $dead->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT FROM t WHERE name = 'many 165555' FOR UPDATE});
$local->safe_psql('postgres', q{UPDATE t SET n = 12 WHERE name LIKE 'many 16%'});
wait_for($dead, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'kept' AND wait_event_type = 'Lock'}, 'in the middle of a pass');
$local->safe_psql('postgres', 'ALTER SERVER dead OWNER TO CURRENT_USER');
$holder->query_safe('ROLLBACK');
$holder->quit;
wait_arrival($dead, 'SELECT count(*) FROM t WHERE n = 12', rows($local, 'SELECT count(*) FROM t WHERE n = 12'), 'all arrives');
is(rows($dead, q{SELECT string_agg(DISTINCT name, ' ' ORDER BY name) FROM pushers WHERE rows > 0}), 'kept sync', 'the rest of it for the new owner');
wait_for($local, q{SELECT pending = 0 FROM synchro.remotes WHERE remote = 'dead'}, 'nothing is pending');

#
# settings of the session over there follow a reload
#
$local->append_conf('postgresql.conf', 'synchro.statement_timeout = 300ms');
$local->reload;
$holder = $dead->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE t');
$local->safe_psql('postgres', q{UPDATE t SET n = 8 WHERE id = 1});
wait_for($local, q{SELECT last_error LIKE '%statement timeout%' FROM synchro.remotes WHERE remote = 'dead'}, 'statement_timeout is applied');
wait_for($local, q{SELECT attempts >= 3 AND state = 'waiting to try again' AND last_error LIKE '%statement timeout%' FROM synchro.remotes WHERE remote = 'dead'},
	'over and over, as long as the lock is held');
is(rows($local, q{SELECT failed, pending > 0 FROM synchro.remotes WHERE remote = 'dead'}), '0|t', 'which is no fault of the row');
is(rows($local, q{SELECT count(*) FROM synchro.failures WHERE remote = 'dead'}), '0', 'so it is not parked');
reload_with($local, 'synchro.statement_timeout' => '10min');
$holder->query_safe('COMMIT');
$holder->quit;
wait_arrival($dead, 'SELECT n FROM t WHERE id = 1', '8', 'and it is tried again');

#
# a remote that lets us in, and no further
#
my $sessions = q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'sync'};
$dead->safe_psql('postgres', <<'SQL');
REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC, sync;
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'sync';
SQL
$local->safe_psql('postgres', q{UPDATE t SET n = 9 WHERE id = 1});
wait_for($local, q{SELECT attempts >= 4 AND last_error LIKE '%permission denied to create temporary tables%' FROM synchro.remotes WHERE remote = 'dead'},
	'a remote that lets us in, and no further');
wait_for($dead, "SELECT ($sessions) <= 1", 'no attempt leaves its connection behind');
$dead->safe_psql('postgres', 'GRANT TEMPORARY ON DATABASE postgres TO sync');
wait_arrival($dead, 'SELECT n FROM t WHERE id = 1', '9', 'and it goes on when that is mended');

$_->stop('fast') foreach $local, $alive, $dead;
done_testing();
