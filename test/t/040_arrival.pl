# WHY: always on means that a committed change is on the remote in milliseconds, without anybody calling anything, and that
# a pair of servers on which nothing happens has nothing to do: no polling, neither here nor there. What the workers do must
# be visible where an administrator looks: pg_stat_activity and the statistics views.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;
use Time::HiRes qw(time usleep);

# nobody else's transactions, so that ours can be counted
my $local = synchro_node('local', preload => 1, conf => 'autovacuum = off');
my $remote = synchro_node('remote', conf => "track_commit_timestamp = on\nautovacuum = off");

$local->safe_psql('postgres', 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, sent timestamptz)');
$remote->safe_psql('postgres', 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, sent timestamptz)');
$local->safe_psql('postgres', q{CREATE EXTENSION synchro; SELECT synchro.add_table('t', '{name}')});

#
# the first arrival
#
connect_remote($local, $remote);
my $connected = time;
$local->safe_psql('postgres', q{INSERT INTO t (name, sent) VALUES ('first', clock_timestamp())});
wait_arrival($remote, 'SELECT name FROM t', 'first', 'a change arrives by itself');
my $first = time - $connected;
cmp_ok($first, '<', 20, sprintf 'soon after add_remote (%.2f s; as a rule a tenth of a second)', $first);

#
# 100 commits per second
#
my $run = 0;
my $rows = 1;

soon_enough(50, '100 commits per second arrive within 50 ms as a rule', sub {
	$run++;
	$rows += 300;
	$local->safe_psql('postgres', <<"SQL");
DO \$\$
BEGIN
	FOR i IN 1..300 LOOP
		INSERT INTO t (name, sent) VALUES ('row $run ' || i, clock_timestamp());
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
\$\$
SQL
	wait_arrival($remote, 'SELECT count(*) FROM t', $rows, 'all of them arrive');
	my ($p50, $p95, $worst) = split /\|/, rows($remote, <<"SQL");
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY took), percentile_disc(0.95) WITHIN GROUP (ORDER BY took), max(took)
FROM (SELECT round(extract(epoch FROM pg_xact_commit_timestamp(xmin) - sent) * 1000, 1) AS took FROM t WHERE name LIKE 'row $run %') x
SQL
	note("from the change to the commit on the remote: p50 $p50 ms, p95 $p95 ms, at most $worst ms");
	return $p50;
});

#
# one at a time, each from rest, and seen by somebody who polls
#
$remote->safe_psql('postgres', 'CREATE TABLE seen (run int, n int, at timestamptz)');
$run = 0;
soon_enough(50, 'single changes are seen within 50 ms as a rule', sub {
	$run++;
	$rows += 30;
	my $poll = $remote->background_psql('postgres');

	$poll->query_until(qr/polling/, <<"SQL");
\\echo polling
DO \$\$
BEGIN
	FOR i IN 1..30 LOOP
		WHILE NOT EXISTS (SELECT FROM t WHERE name = 'single $run ' || i) LOOP
			PERFORM pg_sleep(0.001);
		END LOOP;
		INSERT INTO seen VALUES ($run, i, clock_timestamp());
		COMMIT;
	END LOOP;
END
\$\$;
SQL
	$local->safe_psql('postgres', <<"SQL");
DO \$\$
BEGIN
	FOR i IN 1..30 LOOP
		INSERT INTO t (name, sent) VALUES ('single $run ' || i, clock_timestamp());
		COMMIT;
		PERFORM pg_sleep(0.1);
	END LOOP;
END
\$\$
SQL
	wait_arrival($remote, "SELECT count(*) FROM seen WHERE run = $run", '30', 'all of them are seen');
	$poll->quit;
	my ($median, $most) = split /\|/, rows($remote, <<"SQL");
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY took), max(took)
FROM (SELECT round(extract(epoch FROM at - sent) * 1000, 1) AS took FROM seen JOIN t ON t.name = 'single $run ' || n WHERE run = $run) x
SQL
	note("from the change to when it is seen: p50 $median ms, at most $most ms");
	return $median;
});

#
# what can be seen
#
wait_for($local, <<'SQL', 'the pusher says who it is and that it is waiting');
SELECT count(*) = 1 FROM pg_stat_activity
WHERE application_name = 'synchro pusher: office' AND backend_type = 'synchro pusher' AND datname = 'postgres'
AND state = 'idle' AND query = 'synchro: waiting for changes' AND wait_event_type = 'Extension'
AND backend_xmin IS NULL AND backend_xid IS NULL
SQL
wait_for($local, q{SELECT application_name FROM pg_stat_activity WHERE backend_type = 'synchro launcher'}, 'so does the launcher',
	expected => 'synchro launcher');
wait_for($remote, q{SELECT application_name, state FROM pg_stat_activity WHERE usename = 'sync'},
	'on the remote its session says who it is, and holds no transaction', expected => 'synchro|idle');
wait_for($local, <<'SQL', 'view remotes tells the same', expected => "idle|0|00:00:00|t|t|t|0|t|$rows|0|0|t");
SELECT state, pending, lag, checkpoint IS NOT NULL, last_success IS NOT NULL, last_error IS NULL, attempts, next_attempt IS NULL,
	inserted, updated, deleted, worker_pid IS NOT NULL
FROM synchro.remotes WHERE remote = 'office'
SQL
my $version = rows($local, 'SHOW server_version_num');
SKIP:
{
	skip 'wait events of extensions have no names before 17', 1 if $version < 170000;
	wait_for($local, q{SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}, 'the wait event has a name',
		expected => 'SynchroPusherMain');
}

# A pusher's own reading is in the statistics views although it goes on running.
wait_for($local, q{SELECT idx_scan > 0 FROM pg_stat_all_tables WHERE schemaname = 'synchro' AND relname = 'remote_state'},
	'statistics are flushed before the pusher goes to rest');

#
# nothing to do
#
sub activity
{
	my $query = q{SELECT pid, state, query_start, state_change FROM pg_stat_activity WHERE application_name LIKE 'synchro%' ORDER BY 1};

	return rows($local, $query, 'template1') . "\n" . rows($remote, $query, 'template1');
}

# of our workers, and of their sessions over there
sub cpu_ticks
{
	my $ticks = 0;

	foreach my $node ($local, $remote)
	{
		foreach my $pid (split /\n/, rows($node, q{SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'synchro%'}, 'template1'))
		{
			next unless -r "/proc/$pid/stat";
			my @fields = split / /, slurp_file("/proc/$pid/stat") =~ s/.*\) //r;

			$ticks += $fields[11] + $fields[12];
		}
	}
	return $ticks;
}

# Transactions of anybody, background workers included, in the database on both servers; asked in another database.
sub transactions
{
	my $query = q{SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = 'postgres'};

	return join ' and ', map { rows($_, $query, 'template1') } $local, $remote;
}

# and our own sessions have gone, having reported theirs: a psql ends before its server process does
foreach my $node ($local, $remote)
{
	wait_quiet($node, seconds => 11);
	$node->poll_query_until('template1', <<'SQL') or die 'somebody else is connected';
SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'postgres' AND application_name NOT LIKE 'synchro%'
SQL
}
is(rows($local, q{SELECT query FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}, 'template1'), 'synchro: waiting for changes',
	'after looking after the log, the pusher says again what it waits for');
my $before = activity();
my $ticks = cpu_ticks();
my $transactions = transactions();
my $local_log = -s $local->logfile;
my $remote_log = -s $remote->logfile;
sleep 30;
is(transactions(), $transactions, 'in 30 idle seconds there is not one transaction, on neither server');
is(activity(), $before, 'no worker did anything');
cmp_ok(cpu_ticks() - $ticks, '<=', 1, 'nor used the processor, here or there');
unlike(slurp_file($local->logfile, $local_log), qr/ synchro /, 'nor is there anything in the log of the local server');
unlike(slurp_file($remote->logfile, $remote_log), qr/ synchro /, 'nor in that of the remote one');

# and it was not just dead
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('last')});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'last'}, '1', 'the next change arrives all the same');
isnt(activity(), $before, 'which can be seen in what was compared');
my $seen = 0;
foreach my $try (1 .. 600)
{
	last if $seen = transactions() ne $transactions;
	usleep(100_000);
}
ok($seen, 'all of it');

#
# two-phase commit, savepoints, rollback
#
$local->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO t (name) VALUES ('prepared');
PREPARE TRANSACTION 'later';
BEGIN;
INSERT INTO t (name) VALUES ('outer');
SAVEPOINT s;
INSERT INTO t (name) VALUES ('rolled back');
ROLLBACK TO s;
COMMIT;
SQL
wait_arrival($remote, q{SELECT string_agg(name, ' ') FROM t WHERE name IN ('prepared', 'outer', 'rolled back')}, 'outer',
	'of savepoints, what was not rolled back arrives; not what is only prepared');
$local->safe_psql('postgres', q{COMMIT PREPARED 'later'});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'prepared'}, '1', 'a prepared transaction arrives when it is committed');

# also where replication commits it: nothing else happens here that could wake anybody
my $publisher = synchro_node('publisher', streaming => 'logical');

$publisher->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY, name text, sent timestamptz); CREATE PUBLICATION p FOR TABLE t');
$local->safe_psql('postgres', "CREATE SUBSCRIPTION s CONNECTION '" . $publisher->connstr('postgres') =~ s/'/''/gr . "' PUBLICATION p WITH (two_phase = true, copy_data = false)");
wait_for($local, q{SELECT subtwophasestate = 'e' FROM pg_subscription}, 'replication is there');
$publisher->safe_psql('postgres', q{BEGIN; INSERT INTO t VALUES (1000000, 'replicated'); PREPARE TRANSACTION 'there'});
wait_for($local, 'SELECT count(*) = 1 FROM pg_prepared_xacts', 'it prepares a transaction');
wait_for($local, q{SELECT state = 'idle' FROM synchro.remotes}, 'of which there is nothing to push as yet');
$publisher->safe_psql('postgres', q{COMMIT PREPARED 'there'});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'replicated'}, '1', 'which arrives when replication commits it');
$local->safe_psql('postgres', 'DROP SUBSCRIPTION s');
$publisher->stop('fast');

$local->stop('fast');
$remote->stop('fast');
unlike(slurp_file($local->logfile), qr/TRAP|PANIC|terminated by signal/, 'no worker has crashed');
done_testing();
