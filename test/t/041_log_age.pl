# WHY: newest-wins and set_checkpoint() need the log to be kept for a day. If a pass read what is kept, every commit would
# become dearer the longer the system runs, and unbearably so after an old transaction has been left open. So the pages
# of the log that a pass reads are counted, with an empty log and with a large one.
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
CONF
my $remote = synchro_node('remote', conf => 'synchronous_commit = off');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int)');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}')});

# Pages of the log and its indexes that have been asked for, by whomever.
my $pages = <<'SQL';
SELECT sum(coalesce(heap_blks_read + heap_blks_hit, 0) + coalesce(idx_blks_read + idx_blks_hit, 0)
	+ coalesce(toast_blks_read + toast_blks_hit, 0) + coalesce(tidx_blks_read + tidx_blks_hit, 0))
FROM pg_statio_all_tables WHERE schemaname = 'synchro' AND relname ~ '^log_[0-2]$'
SQL

# The pages that one commit and its pass take: the least of some, since keeping the log comes in between now and then.
my $commits = 0;

sub pages_per_pass
{
	my $least;

	foreach my $try (1 .. 5)
	{
		my $before = rows($local, $pages);

		$commits++;
		$local->safe_psql('postgres', "INSERT INTO t (name) VALUES ('single $commits')");
		$remote->poll_query_until('postgres', "SELECT count(*) = 1 FROM t WHERE name = 'single $commits'")
		  or die 'a change does not arrive';

		# the statistics are there when the pusher has gone to rest
		$local->poll_query_until('postgres',
			q{SELECT state = 'idle' AND query = 'synchro: waiting for changes' FROM pg_stat_activity WHERE backend_type = 'synchro pusher'})
		  or die 'the pusher does not come to rest';
		my $took = rows($local, $pages) - $before;

		note("a commit and its pass: $took pages");
		$least = $took if $took > 0 && (!defined $least || $took < $least);
	}
	return $least;
}

my $empty = pages_per_pass();
ok(defined $empty, 'pages are counted');

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

# what years would take
$local->safe_psql('postgres', <<'SQL');
SELECT format('INSERT INTO synchro.log_%1$s SELECT l.* FROM synchro.log_%1$s l CROSS JOIN generate_series(1, 25)', last_value)
FROM synchro.log_switch \gexec
SQL
my $size = rows($local, q{SELECT (sum(pg_relation_size(('synchro.log_' || i)::regclass)) / 8192)::int FROM generate_series(0, 2) i});
cmp_ok($size, '>', 10000, "the log has grown to $size pages");

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

my $large = pages_per_pass();
note("pages that a commit and its pass read: $empty with an empty log, $large with a large one");
cmp_ok($large - $empty, '<=', 64, "a pass reads at most 64 pages more ($empty, now $large)");

#
# the same after a restart, when nobody remembers anything of the log
#
$open->query_safe('COMMIT');
$open->quit;
$local->safe_psql('postgres', q{COMMIT PREPARED 'old'});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name LIKE 'open %' OR name = 'prepared'}, '20001', 'what was old arrives once committed');
$local->restart;
pages_per_pass();
my $restarted = pages_per_pass();
cmp_ok($restarted - $empty, '<=', 64, "also after a restart ($restarted)");
same($local, $remote, 'SELECT name, n FROM t ORDER BY name', 'both sides are the same');

$local->stop('fast');
$remote->stop('fast');
done_testing();
