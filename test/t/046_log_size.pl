# WHY: a remote that is down for a week must not fill the local's disk. The log may hold what is needed to tell which rows
# have changed, not how often they did; no WAL may be kept for it; and when everybody has got everything and the time of
# log_retention is over, nothing may be left. Transactions that stay open, or prepared, must not change that.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => <<'CONF');
synchro.retry_max_interval = 2s
synchro.log_retention = 1h
synchronous_commit = off
autovacuum = off
CONF
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int) WITH (fillfactor = 20)');

my $blocks = q{(SELECT sum(pg_relation_size(('synchro.log_' || i)::regclass)) / 8192 FROM generate_series(0, 2) i)};
my $empty = qq{SELECT $blocks = 0};

#
# without a remote
#
$local->safe_psql('postgres', <<'SQL');
CREATE EXTENSION synchro;
SELECT synchro.add_table('t', '{name}');
INSERT INTO t (name, n) SELECT 'row ' || i, 0 FROM generate_series(1, 10000) i;
SQL
cmp_ok(rows($local, "SELECT $blocks"), '>', 0, 'changes are logged without a remote, too');
reload_with($local, 'synchro.log_retention' => '1s');
wait_for($local, $empty, 'and go with log_retention, also one that is shortened');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{UPDATE t SET n = 1});
wait_arrival($remote, 'SELECT count(*) FROM t', '10000', 'a remote gets what changes after that');
wait_for($local, $empty, 'what it has got goes');

#
# 1,000,000 updates of 10,000 rows while the remote is down
#
$remote->stop('immediate');
update_often($local, 't', 100);

# who looks in the very moment of folding may see a part of the log only
wait_for($local, q{SELECT count(*) < 40000 AND count(DISTINCT key) = 10000 FROM synchro.changes},
	'the log is folded to less than four entries for each changed row, and not to less than one');
wait_for($local, "SELECT $blocks < 64", 'it has become small');
is(rows($local, 'SELECT count(*) FROM pg_replication_slots'), '0', 'no replication slot keeps WAL');
wait_for($local,
	q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'synchro%' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)},
	'no worker keeps VACUUM from its work while it waits, but for a moment');
wait_for($local, 'SELECT pending = 1000000 FROM synchro.remotes', 'what is pending is counted in changes as they were made');

#
# transactions that stay open
#
my $writer = $local->background_psql('postgres');
$writer->query_safe(q{SET synchro.buffer_size = '64kB'});

# One that is prepared and one that is open have written to the same segment, that is if no rotation comes in between. The lock
# that they have on it tells which.
my ($open, $pinned);

foreach my $try (1 .. 20)
{
	$local->safe_psql('postgres', q{BEGIN; INSERT INTO t (name) VALUES ('prepared'); PREPARE TRANSACTION 'p'});
	$open = $writer->query_safe('BEGIN; SELECT pg_current_xact_id()');
	$writer->query_safe(q{INSERT INTO t (name) SELECT 'open ' || i FROM generate_series(1, 20000) i});
	my @locked = split /\n/, rows($local, <<'SQL');
SELECT DISTINCT right(relation::regclass::text, 1) FROM pg_locks
WHERE relation IN ('synchro.log_0'::regclass, 'synchro.log_1'::regclass, 'synchro.log_2'::regclass) AND mode = 'RowExclusiveLock'
SQL
	$pinned = $locked[0];
	last if @locked == 1;
	$writer->query_safe('ROLLBACK');
	$local->safe_psql('postgres', q{ROLLBACK PREPARED 'p'});
}
my $live = 'SELECT last_value FROM synchro.log_switch';

# the log goes on being rotated and folded
foreach my $round (1 .. 4)
{
	my $segment = rows($local, $live);
	my $rotated = 0;

	# changes go on until there is a rotation: how many lie in a segment depends on when the worker looks
	foreach my $update (1 .. 1000)
	{
		$local->safe_psql('postgres', q{UPDATE t SET n = n + 1 WHERE name LIKE 'row %'});
		$rotated ||= rows($local, $live) != $segment;
		last if $rotated && $update >= 15;
	}
	ok($rotated, "round $round: another segment is written to");
	$writer->query_safe("INSERT INTO t (name) SELECT 'open $round ' || i FROM generate_series(1, 10000) i");
}

# An update of all rows takes some 20 pages, and there were 60 at least.
my $rest = join ' + ', map { "pg_relation_size('synchro.log_$_')" } grep { $_ != $pinned } 0 .. 2;

wait_for($local, "SELECT ($rest) / 8192 < 100", 'old transactions do not keep the rest from being folded');

# only it can see that, and while it is open nobody folds what it has written to
my $written = join ' UNION ALL ', map { "SELECT $_ AS segment FROM synchro.log_$_ WHERE txid = $open" } 0 .. 2;
is($writer->query_safe("SELECT count(DISTINCT segment), min(segment) = $pinned, count(*) > 60 FROM ($written) s"), '1|t|t',
	'all that the open transaction has written, before and after a rotation, is in one segment');
$writer->query_safe('COMMIT');

#
# back again
#
$remote->start;
wait_arrival($remote, q{SELECT count(*) FILTER (WHERE name LIKE 'row %'), count(*) FILTER (WHERE name LIKE 'open%') FROM t}, '10000|60000',
	'the remote gets everything');
wait_for($local, qq{SELECT count(*) <= 1 FROM generate_series(0, 2) i WHERE pg_relation_size(('synchro.log_' || i)::regclass) > 0},
	'of the log only what the prepared transaction has written to is left');
$local->safe_psql('postgres', q{COMMIT PREPARED 'p'});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'prepared'}, '1', 'which arrives when it is committed');
wait_for($local, $empty, 'in the end the log is empty files');
same($local, $remote, q{SELECT name, n FROM t ORDER BY name}, 'both sides are the same');

#
# what was rolled back goes, too
#
my $rolled_back = $local->safe_psql('postgres', <<"SQL");
SET synchro.buffer_size = '64kB';
BEGIN;
INSERT INTO t (name) SELECT 'rolled back ' || i FROM generate_series(1, 20000) i;
SELECT $blocks;
ROLLBACK;
SQL
cmp_ok($rolled_back, '>', 10, 'a transaction that is rolled back leaves pages behind');
$local->safe_psql('postgres', q{UPDATE t SET n = 0 WHERE name = 'prepared'});
wait_for($local, $empty, 'they go');

#
# set_checkpoint() skips what is pending, but not what rows are called now: that still goes with the next batch
#
my $id = rows($remote, q{SELECT id FROM t WHERE name = 'prepared'});
$remote->stop('fast');
$local->safe_psql('postgres', q{UPDATE t SET name = 'renamed' WHERE name = 'prepared'; SELECT synchro.set_checkpoint('office', now())});
my $renamed_at = rows($local, 'SELECT clock_timestamp()');
wait_for($local, "SELECT clock_timestamp() > '$renamed_at'::timestamptz + '5 s'", 'what has been skipped becomes old');
$remote->start;
$local->safe_psql('postgres', q{UPDATE t SET n = 8 WHERE name = 'renamed'});
wait_arrival($remote, q{SELECT id, n FROM t WHERE name IN ('prepared', 'renamed')}, "$id|8", 'and the row is the one that it was');
wait_for($local, $empty, 'then the log is empty again');

#
# log_retention is kept
#
reload_with($local, 'synchro.log_retention' => '1h');
$local->safe_psql('postgres', q{UPDATE t SET n = n + 1 WHERE name LIKE 'row %'});
wait_for($local, q{SELECT pending = 0 AND state = 'idle' FROM synchro.remotes}, 'what has been pushed');
wait_quiet($local);
is(rows($local, 'SELECT count(*) FROM synchro.changes'), '10000', 'is kept for log_retention');

#
# a remote that is slow is not one that is down: what came while it was busy is what it gets next, so nothing is folded
#
my $segments = q{SELECT string_agg(pg_relation_filenode(('synchro.log_' || i)::regclass)::text, ' ' ORDER BY i) || ' live '
	|| (SELECT last_value FROM synchro.log_switch) FROM generate_series(0, 2) i};
my $before = rows($local, $segments);
my $holder = $remote->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE t');
$local->safe_psql('postgres', q{INSERT INTO t (name) SELECT 'many ' || i FROM generate_series(1, 100000) i});
wait_for($remote, q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 't'::regclass AND NOT granted}, 'the remote keeps the pusher waiting');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('meanwhile')});
my $since = rows($local, 'SELECT clock_timestamp()');
wait_for($local, "SELECT clock_timestamp() > '$since'::timestamptz + '7 s'", 'for so long that others would fold the log');
$holder->query_safe('ROLLBACK');
$holder->quit;
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name LIKE 'many %' OR name = 'meanwhile'}, '100001', 'all arrives');
wait_quiet($local);
is(rows($local, $segments), $before, 'and the log is as it was');

$local->stop('fast');
$remote->stop('fast');
done_testing();
