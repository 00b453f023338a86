# WHY: the log's index spares a pass from reading what it knows, and must cost those who write next to nothing. Whoever adds a
# row to blocks that the index covers already has to widen its entry, with WAL of almost the row's own size. So blocks are
# covered when they are full, also where the file is extended by many of them at once, and also the first ones, which a new
# index covers while they are empty.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use List::Util qw(min);
use Test::More;

my $local = synchro_node('local', preload => 1, conf => <<'CONF');
synchro.log_retention = 1h
synchronous_commit = off
CONF
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int)');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{CREATE EXTENSION pg_walinspect; CREATE EXTENSION pageinspect; SELECT synchro.add_table('t', '{name}')});

my $blocks = q{(SELECT sum(pg_relation_size(('synchro.log_' || i)::regclass)) / 8192 FROM generate_series(0, 2) i)};
my $covered = q{SELECT count(*) FROM generate_series(0, 2) i, LATERAL (SELECT ('synchro.log_' || i || '_txid')::regclass AS oid) x,
	generate_series(2, pg_relation_size(x.oid) / 8192 - 1) page, brin_page_items(get_raw_page(x.oid::text, page::int), x.oid)
	WHERE attnum = 1 AND NOT placeholder AND NOT allnulls};
my $script = $PostgreSQL::Test::Utils::tmp_check . '/insert.sql';

append_to_file($script, "INSERT INTO t (name, n) VALUES (gen_random_uuid()::text, 1);\n");

# so many transactions by each of so many clients: how many BRIN records they make
sub write_some
{
	my ($clients, $transactions) = @_;
	my $before = rows($local, 'SELECT pg_current_wal_insert_lsn()');

	run_log([ 'pgbench', '-n', '-c', $clients, '-j', 1, '-t', $transactions, '-f', $script, '-p', $local->port, '-h', $local->host, 'postgres' ], '>', '/dev/null', '2>', '/dev/null')
	  or die 'pgbench';
	$local->safe_psql('postgres', 'SET synchronous_commit = on; CREATE TABLE flushed (); DROP TABLE flushed');
	return rows($local, "SELECT count(*) FROM pg_get_wal_records_info('$before', pg_current_wal_flush_lsn()) WHERE resource_manager = 'BRIN'");
}

foreach my $segment ('a new segment', 'a segment that was truncated')
{
	cmp_ok(write_some(1, 300), '<', 10, "$segment: of its first blocks the index has nothing while they are filled");

	# the best of three: a writer that has to wait for a processor adds to its block when that is long covered
	cmp_ok(min(map { write_some(8, 1000) } 1 .. 3), '<', 333, "$segment: nor of others");
	wait_for($local, 'SELECT pending = 0 FROM synchro.remotes', "$segment: all is pushed");

	my $ranges = rows($local, "SELECT floor($blocks / 16)");

	cmp_ok($ranges, '>', 8, "$segment: $ranges ranges of blocks are full");
	cmp_ok(rows($local, $covered), '>=', $ranges - 8, "$segment: and covered, but for the last");

	reload_with($local, 'synchro.log_retention' => '1s');
	wait_for($local, "SELECT $blocks = 0", "$segment: the log is truncated");
	reload_with($local, 'synchro.log_retention' => '1h');
}

$local->stop('fast');
$remote->stop('fast');
done_testing();
