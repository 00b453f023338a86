# WHY: newest-wins and set_checkpoint() need the log to be kept for a day. If a pass read what is kept, every commit would
# become dearer the longer the system runs, and unbearably so after an old transaction has been left open. So the pages
# of the log that a pass reads are counted, and it is timed, with an empty log and with a large one.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => <<'CONF');
synchronous_commit = off
shared_buffers = 256MB
max_wal_size = 4GB
track_commit_timestamp = on
CONF
my $remote = synchro_node('remote', conf => "synchronous_commit = off\ntrack_commit_timestamp = on");

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int)');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}')});

# Pages of the log and its indexes that have been asked for, by whomever.
my $pages = <<'SQL';
SELECT sum(coalesce(heap_blks_read + heap_blks_hit, 0) + coalesce(idx_blks_read + idx_blks_hit, 0)
	+ coalesce(toast_blks_read + toast_blks_hit, 0) + coalesce(tidx_blks_read + tidx_blks_hit, 0))
FROM pg_statio_all_tables WHERE schemaname = 'synchro' AND relname ~ '^log_[0-2]$'
SQL

# The pages that one commit and its pass take: the least of some, since keeping the log comes in between now and then. And
# how long it takes from the commit here to that over there: the median, in ms.
my $commits = 0;

sub measure
{
	my ($least, @times);

	foreach my $try (1 .. 9)
	{
		my $before = rows($local, $pages);
		my $stamp = q{SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000 FROM t WHERE name = };

		$commits++;
		$local->safe_psql('postgres', "INSERT INTO t (name) VALUES ('single $commits')");
		$remote->poll_query_until('postgres', "SELECT count(*) = 1 FROM t WHERE name = 'single $commits'")
		  or die 'a change does not arrive';

		# the statistics are there when the pusher has gone to rest
		$local->poll_query_until('postgres',
			q{SELECT state = 'idle' AND query = 'synchro: waiting for changes' FROM pg_stat_activity WHERE backend_type = 'synchro pusher'})
		  or die 'the pusher does not come to rest';
		my $took = rows($local, $pages) - $before;
		my $time = rows($remote, "$stamp 'single $commits'") - rows($local, "$stamp 'single $commits'");

		note(sprintf 'a commit and its pass: %d pages, %.1f ms', $took, $time);
		$least = $took if $took > 0 && (!defined $least || $took < $least);
		push @times, $time;
	}
	return ($least, (sort { $a <=> $b } @times)[4]);
}

# Buffers that reading the view asks for: the least of some.
sub pages_of_view
{
	my ($least) = sort { $a <=> $b } map { pages_of_a_look() } 1 .. 3;

	return $least;
}

sub pages_of_a_look
{
	my $plan = rows($local, 'EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT remote, state, pending, lag FROM synchro.remotes');
	my $pages = 0;

	# planning included: what it has read of the catalogs, execution need not
	$pages += $1 while $plan =~ / (?:hit|read)=(\d+)/g;
	note($plan);
	return $pages;
}

my ($empty, $empty_ms) = measure();
ok(defined $empty, 'pages are counted');
my $empty_view = pages_of_view();
cmp_ok($empty_view, '>', 0, 'also those of the view');

#
# a large log: of many small transactions and of some large ones
#
$local->safe_psql('postgres', <<'SQL');
INSERT INTO t (name) SELECT 'row ' || i FROM generate_series(1, 10000) i;
DO $$
BEGIN
	FOR i IN 1..40000 LOOP
		UPDATE t SET n = i WHERE id = 10 + i % 100;
		COMMIT;
	END LOOP;
	FOR i IN 1..50 LOOP
		UPDATE t SET n = -i;
		COMMIT;
	END LOOP;
END
$$;
SQL

# and ten times that
my $changes = rows($local, 'SELECT count(*) FROM synchro.changes') * 11;
cmp_ok($changes, '>', 5_000_000, "a log of $changes changes");
$local->safe_psql('postgres', <<'SQL');
SELECT format('INSERT INTO synchro.log_%1$s SELECT l.* FROM synchro.log_%1$s l CROSS JOIN generate_series(1, 10)', last_value)
FROM synchro.log_switch \gexec
SQL
my $size = rows($local, q{SELECT (sum(pg_relation_size(('synchro.log_' || i)::regclass)) / 8192)::int FROM generate_series(0, 2) i});
cmp_ok($size, '>', 8000, "the log has grown to $size pages");

#
# old transactions: one prepared, one open that has written some of its keys early
#
$local->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO t (name) VALUES ('prepared');
PREPARE TRANSACTION 'old';
SQL
my $open = $local->background_psql('postgres');
$open->query_safe(q{SET synchro.buffer_size = '64kB'});
$open->query_safe('BEGIN');
$open->query_safe(q{INSERT INTO t (name) SELECT 'open ' || i FROM generate_series(1, 20000) i});
$local->safe_psql('postgres', <<'SQL');
DO $$
BEGIN
	FOR i IN 1..5000 LOOP
		UPDATE t SET n = i WHERE id = 10 + i % 100;
		COMMIT;
	END LOOP;
END
$$;
SQL
wait_arrival($remote, 'SELECT n FROM t WHERE name = (SELECT name FROM t WHERE n = 5000)', '5000', 'all of that has been pushed');

my $large;

soon_enough(2 * $empty_ms + 30, sprintf('and is as fast as with an empty log, which was %.1f ms', $empty_ms), sub {
	my ($pages, $ms) = measure();

	$large = $pages unless defined $large;
	return $ms;
});
cmp_ok($large - $empty, '<=', 64, "a pass reads at most 64 pages more ($empty with an empty log, now $large)");
cmp_ok(pages_of_view(), '<=', $empty_view + 50, 'nor does view remotes read the log');

#
# the same after a restart, when nobody remembers anything of the log
#
$open->query_safe('COMMIT');
$open->quit;
$local->safe_psql('postgres', q{COMMIT PREPARED 'old'});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name LIKE 'open %' OR name = 'prepared'}, '20001', 'what was old arrives once committed');
$local->restart;
measure();
my ($restarted) = measure();
cmp_ok($restarted - $empty, '<=', 64, "also after a restart ($restarted)");
same($local, $remote, 'SELECT name, n FROM t ORDER BY name', 'both sides are the same');

#
# what is pending for a remote that is down: read once after a start, and not by those who look
#
$remote->stop('fast');
$local->safe_psql('postgres', "UPDATE t SET n = 0 WHERE name LIKE 'row %'");
my $what = q{SELECT state, pending, lag > '0' FROM synchro.remotes};
wait_for($local, $what, 'for a remote that is down', expected => 'waiting to try again|10000|t');
cmp_ok(pages_of_view(), '<=', $empty_view + 50, 'view remotes does not read the log, either');
my ($socket, $silent) = silent_port();
$local->safe_psql('postgres', "ALTER SERVER office OPTIONS (SET port '$silent', ADD connect_timeout '600')");
$local->restart;
wait_for($local, $what, 'nor for one that does not answer after a restart', expected => 'connecting|10000|t');
cmp_ok(pages_of_view(), '<=', $empty_view + 50, 'while it waits');

$local->stop('fast');
done_testing();
