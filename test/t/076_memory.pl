# WHY: what is pending, or changed in one transaction, may be more than memory holds. So neither a pusher nor a writer may
# take more the more there is: what does not fit into a bounded piece of memory lies in files.
#
# SYNCHRO_BIG=1: with a million keys, large rows by the hundred, and five million changes in one transaction.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use Nodes;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;
use Time::HiRes qw(usleep);

plan skip_all => 'there is no /proc/PID/status that tells how much memory a process takes' unless -r "/proc/$$/status";
plan skip_all => 'valgrind takes more memory than what it runs' if $ENV{VALGRIND};

my $big = $ENV{SYNCHRO_BIG};
my $keys = $big ? 1_000_000 : 100_000;
my $large_rows = $big ? 200 : 40;
my $changes = $big ? 5_000_000 : 300_000;

# What is measured is what a process has ever had of address space: it counts all that was allocated, and nothing that is
# shared grows. MB. The sanitizers' allocator keeps what is freed for a while.
my $slack = $ENV{SANITIZE} ? 4 : 1;
my $growth = 4 * $slack;
my $pusher_bound = ($big ? 28 : 24) * $slack;
my $writer_bound = 6 * $slack;

# batches grow with what is pending: half of it, too, is to have the largest
my $batch_size = $big ? 10_000 : 2_000;

my $local = synchro_node('local', preload => 1, conf => <<"CONF");
synchro.batch_size = $batch_size
log_statement = none
shared_buffers = 32MB
max_wal_size = 4GB
jit = off
CONF
my $remote = synchro_node('remote', conf => "log_statement = none\nmax_wal_size = 4GB\n");

both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, parent_id int REFERENCES parents, n int);
CREATE TABLE large (id serial PRIMARY KEY, name text UNIQUE, data text);
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parents', '{name}'), synchro.add_table('t', '{name}'), synchro.add_table('large', '{name}');
INSERT INTO parents (name) SELECT 'parent ' || i FROM generate_series(1, 1000) i;
SQL
wait_arrival($remote, 'SELECT count(*) FROM parents', '1000', 'rows to begin with');

# MB that the process has had at most
sub peak
{
	my ($pid) = @_;

	slurp_file("/proc/$pid/status") =~ /^VmPeak:\s+(\d+) kB/m or die "what process $pid takes is not known";
	return $1 / 1024;
}

# A pusher that begins with this pending, and what it takes more than one with nothing to do.
sub taken_by_pusher
{
	my ($sql, $name) = @_;

	$name //= 'office';
	$local->safe_psql('postgres', "SELECT synchro.pause('$name')");
	$local->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}) or die 'the pusher does not pause';
	$local->safe_psql('postgres', $sql) if defined $sql;
	$local->safe_psql('postgres', "SELECT synchro.resume('$name')");
	my $pid = pusher_pid($local, $name);

	$local->poll_query_until('postgres', q{SELECT pending = 0 AND failed = 0 AND state = 'idle' FROM synchro.remotes}) or die 'not all is pushed: ' . rows($local, 'SELECT * FROM synchro.remotes');
	is(state_of($local, $name, 'worker_pid'), $pid, 'by one process, from start to end');
	return peak($pid);
}

#
# the pusher
#
my $idle = taken_by_pusher();

sub flat
{
	my ($what, $half, $all, $more, $bound) = @_;

	cmp_ok($all, '<', $half + $growth + ($more // 0) * $slack, sprintf '%s take no more than half of it: %.1f MB, %.1f MB', $what, $all, $half);
	$bound //= $pusher_bound;
	cmp_ok($all, '<', $bound, "and less than $bound MB");
	return;
}

my $insert = "INSERT INTO t (name, parent_id, n) SELECT 'row ' || i, 1 + i %% 1000, 0 FROM generate_series(%d, %d) i";

flat("$keys new rows", taken_by_pusher(sprintf $insert, 1, $keys / 2) - $idle, taken_by_pusher(sprintf $insert, $keys / 2 + 1, $keys * 3 / 2) - $idle);
same($local, $remote, 'SELECT count(*), count(DISTINCT name), count(parent_id) FROM t', 'all of them arrive');
flat("$keys changed keys", taken_by_pusher("UPDATE t SET n = 1 WHERE id % 3 = 0 AND id <= $keys * 3 / 2") - $idle, taken_by_pusher("UPDATE t SET n = 2 WHERE id % 3 > 0") - $idle);
same($local, $remote, 'SELECT n, count(*) FROM t GROUP BY n ORDER BY n', 'all of them, too');

# Keys that are called otherwise, and such as are gone: names of before are all in one batch. They are collected apart from keys, and
# for so few of them the sorting has not taken all that it may take by then.
my $unfilled = $big ? 0 : 4;

flat("$keys renamed keys", taken_by_pusher("UPDATE t SET name = 'renamed ' || id WHERE id % 3 = 0 AND id <= $keys * 3 / 2") - $idle,
	taken_by_pusher(q{UPDATE t SET name = 'renamed ' || id WHERE id % 3 > 0}) - $idle, $unfilled);
same($local, $remote, q{SELECT count(*), md5(string_agg(name, ',' ORDER BY name COLLATE "C")) FROM t WHERE name LIKE 'renamed %'}, 'all of them have the new names');
flat("$keys deleted keys", taken_by_pusher("DELETE FROM t WHERE id % 3 = 0 AND id <= $keys * 3 / 2") - $idle, taken_by_pusher('DELETE FROM t WHERE id % 3 > 0') - $idle, $unfilled);
is(rows($remote, 'SELECT count(*) FROM t'), 0, 'all of them are gone');
$local->safe_psql('postgres', q{INSERT INTO t (id, name, parent_id, n) VALUES (1, 'row 1', 1, 0)});

my $large = "INSERT INTO large (name, data) SELECT 'row ' || i || ' of %d', (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 32768) j) FROM generate_series(1, %d) i";

flat("$large_rows rows of 1 MB", taken_by_pusher(sprintf $large, $large_rows / 2, $large_rows / 2) - $idle, taken_by_pusher(sprintf $large, $large_rows, $large_rows) - $idle);
same($local, $remote, 'SELECT name, length(data), md5(data) FROM large ORDER BY name', 'with all of their data');

# Rows that are found by stored references, and a copy, whose keys are not from the log.
my $insert_referring = 'INSERT INTO referring (n) SELECT 0 FROM generate_series(1, %d)';

both($local, $remote, 'CREATE TABLE referring (id serial PRIMARY KEY, n int); CREATE TABLE copied (name text PRIMARY KEY, n int)');
$remote->safe_psql('postgres', q{SELECT setval('referring_id_seq', 10000000)});
$local->safe_psql('postgres', q{SELECT synchro.add_table('referring'), synchro.add_table('copied')});
flat("$keys rows with references", taken_by_pusher(sprintf $insert_referring, $keys / 2) - $idle, taken_by_pusher(sprintf $insert_referring, $keys) - $idle);
flat("$keys rows found by references", taken_by_pusher("UPDATE referring SET n = 1 WHERE id % 3 = 0") - $idle, taken_by_pusher('UPDATE referring SET n = 2 WHERE id % 3 > 0') - $idle);
same($local, $remote, 'SELECT n, count(*) FROM referring GROUP BY n ORDER BY n', 'all of them are there');

my $copy = q{SET synchro.log_changes = off; INSERT INTO copied SELECT 'row ' || i, i FROM generate_series(%d, %d) i; SELECT synchro.copy_table('office', 'copied')};

flat("$keys copied rows", taken_by_pusher(sprintf $copy, 1, $keys / 2) - $idle, taken_by_pusher(sprintf $copy, $keys / 2 + 1, $keys) - $idle);
same($local, $remote, 'SELECT count(*), sum(n) FROM copied', 'all of them are copied');

#
# A link may stay open for months, so what a pass leaves in its memory would add up.
#
sub taken_by_link
{
	my $from = -s $local->logfile;
	my $used = qr/synchro link: \d+ total in \d+ blocks; \d+ free \(\d+ chunks\); (\d+) used/;

	$local->safe_psql('postgres', q{SELECT pg_log_backend_memory_contexts(worker_pid) FROM synchro.remotes});
	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return $1 if slurp_file($local->logfile, $from) =~ $used;
		usleep(100_000);
	}
	die 'the pusher does not tell what it takes';
}

sub make_passes
{
	$local->safe_psql('postgres', "UPDATE t SET n = n + 1 WHERE id = 1;\nSELECT count(*) FROM synchro.synchronize('office');\n" x $_[0]);
	return;
}

make_passes(100);
my $link = taken_by_link();

make_passes(400);
cmp_ok(taken_by_link(), '<', $link + 16 * 1024, "a pass leaves nothing in the link's memory, $link bytes");

# nor does one that tries a delete again which the remote refuses
$local->safe_psql('postgres', q{INSERT INTO parents (name) VALUES ('needed there')});
wait_arrival($remote, q{SELECT count(*) FROM parents WHERE name = 'needed there'}, '1', 'a row that is referred to only there');
$remote->safe_psql('postgres', q{CREATE TABLE only_there (parent_id int REFERENCES parents);
	INSERT INTO only_there SELECT id FROM parents WHERE name = 'needed there'});
$local->safe_psql('postgres', q{DELETE FROM parents WHERE name = 'needed there'});
make_passes(20);
$link = taken_by_link();
make_passes(100);
cmp_ok(taken_by_link(), '<', $link + 4 * 1024, "nor does one that tries a delete again, $link bytes");
is(rows($local, 'SELECT relation, attempts > 100 FROM synchro.failures'), 'parents|t', 'which is refused each time');
$remote->safe_psql('postgres', 'DROP TABLE only_there');
$local->safe_psql('postgres', q{SELECT synchro.retry()});
wait_arrival($remote, q{SELECT count(*) FROM parents WHERE name = 'needed there'}, '0', 'until nothing refers to the row');

#
# Nor does anything add up in the remote's session: its temporary tables last as long as that, and a table is described anew
# whenever somebody analyzes it here, or a unique value was in the way there.
#
my $temporary = q{SELECT count(*) FROM pg_class WHERE relpersistence = 't'};
my $session = q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name LIKE 'synchro%'};
my $values = 'SELECT name, n FROM swaps ORDER BY name';

both($local, $remote, 'CREATE TABLE swaps (name text PRIMARY KEY, n int UNIQUE)');
$local->safe_psql('postgres', q{SELECT synchro.add_table('swaps'); INSERT INTO swaps VALUES ('a', 1), ('b', 2)});

sub swap
{
	my ($times) = @_;

	$local->safe_psql('postgres', <<'SQL' x $times);
BEGIN;
UPDATE swaps SET n = -n;
UPDATE swaps SET n = 3 + n;
COMMIT;
SELECT synchro.synchronize('office');
ANALYZE t;
UPDATE t SET n = n + 1 WHERE id = 1;
SELECT synchro.synchronize('office');
SQL
	return;
}

swap(2);
my $made = rows($remote, $temporary);
my $by = rows($remote, $session);

swap(51);
same($local, $remote, $values, 'values that have changed places many times');
is(rows($remote, $temporary), $made, 'leave no more temporary tables behind');
is(rows($remote, $session), $by, 'in the same session');

both($local, $remote, 'ALTER TABLE swaps ALTER n TYPE numeric(12, 1)');
swap(3);
$local->safe_psql('postgres', q{UPDATE swaps SET n = n + 0.5});
sync($local, 'office');
same($local, $remote, $values, 'with values of another type they are made anew');
is(rows($remote, $temporary), $made, 'instead of those of before');
is(rows($remote, $session), $by, 'in the same session, too');
$local->safe_psql('postgres', 'DROP TABLE swaps');
make_passes(2);
cmp_ok(rows($remote, $temporary), '<', $made, 'those of a table that is gone go, too');

#
# The writer: as much as with nothing logged, for which PostgreSQL queues the triggers, too.
#
sub taken_by_writer
{
	my ($settings, $buffer_size, $first, $sql) = @_;
	my $session = $local->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	# all that a session needs once, also for what is written before the end; but for the buffer, which is to be measured
	$session->query_safe("$settings; SET synchro.buffer_size = '64kB'; BEGIN; $first; COMMIT");
	my $before = peak($pid);

	$session->query_safe("SET synchro.buffer_size = '$buffer_size'; BEGIN; $sql; COMMIT");
	my $taken = peak($pid) - $before;

	$session->quit;
	return $taken;
}

$local->safe_psql('postgres', q{SELECT synchro.pause('office')});

# whose rows, how many, and how many of these; those that are renamed have been inserted before
my %statements = (
	changes => q{INSERT INTO t (name, n) SELECT 'change ' || i || ' of %1$s', 0 FROM generate_series(1, %2$d) i WHERE i <= %3$d},
	renames => q{UPDATE t SET name = 'other ' || name WHERE name LIKE 'change %% of %1$s'});

# MB for so many changes with such a buffer, beyond what PostgreSQL takes for them
sub taken_by_capture
{
	my ($number, $what, $buffer_size) = @_;
	my %taken;

	foreach my $log ('off', 'on')
	{
		my $whose = "log $log $number $buffer_size";

		no warnings 'redundant';
		$taken{$log} = taken_by_writer("SET synchro.log_changes = $log", $buffer_size,
			sprintf($statements{$what}, $whose, $number, 40000) =~ s/'change /'before /r, sprintf($statements{$what}, $whose, $number, $number));
	}
	cmp_ok($taken{on} - $taken{off}, '<', $slack * $buffer_size =~ s/MB//r,
		sprintf '%d %s in a transaction take %.1f MB with a buffer of %s, of which PostgreSQL\'s queue of triggers %.1f MB',
		$number, $what, $taken{on}, $buffer_size, $taken{off});
	return $taken{on} - $taken{off};
}

foreach my $what ('changes', 'renames')
{
	my $half = taken_by_capture($changes / 2, $what, '1MB');
	my $all = taken_by_capture($changes, $what, '1MB');
	my $buffered = taken_by_capture($changes, $what, '8MB');

	cmp_ok($all, '<', $half + 0.5 * $slack, sprintf 'twice as many take no more: %.1f MB, %.1f MB', $all, $half);
	cmp_ok($buffered, '>', $all + 4, sprintf 'and a larger buffer is used: %.1f MB', $buffered);
}
is(rows($local, "SELECT pending >= $changes FROM synchro.remotes"), 't', 'all of them are logged');

# nor has whoever looks at the log all of it in memory
my $reader = taken_by_writer(q{SET work_mem = '1MB'}, '64kB', 'SELECT FROM synchro.node', 'SELECT count(*) FROM synchro.changes');
cmp_ok($reader, '<', $writer_bound, sprintf 'to read the log takes %.1f MB', $reader);

#
# Each in a subtransaction of its own: what is released is its parent's, which writes nothing itself. Keys of 300 bytes.
#
$local->safe_psql('postgres', q{CREATE TABLE long_keys (name text PRIMARY KEY); SELECT synchro.add_table('long_keys')});
sub taken_by_subtransactions
{
	my ($settings, $what) = @_;
	my $session = $local->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $block = q{BEGIN; DO $$ BEGIN FOR i IN 1 .. %d LOOP BEGIN INSERT INTO long_keys VALUES (repeat('%s', 300 - length('%s')) || i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$; %s};

	$session->query_safe("$settings; " . sprintf $block, 10, $what, $what, 'ROLLBACK');
	my $before = peak($pid);

	$session->query_safe(sprintf $block, 40_000, $what, $what, 'COMMIT');
	my $taken = peak($pid) - $before;

	$session->quit;
	return $taken;
}
my $bare = taken_by_subtransactions('SET synchro.log_changes = off', 'a');
my $logged = taken_by_subtransactions('SET synchro.log_changes = on', 'b');
cmp_ok($logged - $bare, '<', $writer_bound, sprintf '40000 subtransactions take %.1f MB, without the log %.1f MB', $logged, $bare);
is(rows($local, q{SELECT count(DISTINCT key) FROM synchro.changes WHERE relation = 'long_keys'::regclass}), '40000', 'all of them are logged');

#
# A remote that is a node is told when each row was changed, and what was deleted.
#
my $node = synchro_node('node', conf => "log_statement = none\nmax_wal_size = 4GB\n");
my $insert_stamped = "INSERT INTO stamped SELECT 'row ' || i, 0 FROM generate_series(%d, %d) i";

$local->safe_psql('postgres', q{SELECT synchro.remove_remote('office'); SELECT synchro.remove_table(relation) FROM synchro.tables});
both($local, $node, 'CREATE TABLE stamped (name text PRIMARY KEY, n int)');
$node->safe_psql('postgres', q{CREATE EXTENSION synchro; SELECT synchro.add_table('stamped')});
$local->safe_psql('postgres', q{SELECT synchro.add_table('stamped')});
link_nodes($local, $node);
$idle = taken_by_pusher(undef, 'node');
flat("$keys new rows of a node's", taken_by_pusher(sprintf($insert_stamped, 1, $keys / 2), 'node') - $idle,
	taken_by_pusher(sprintf($insert_stamped, $keys / 2 + 1, $keys * 3 / 2), 'node') - $idle);
flat("$keys changed rows of a node's", taken_by_pusher("UPDATE stamped SET n = 1 WHERE substr(name, 5)::int <= $keys / 2", 'node') - $idle,
	taken_by_pusher("UPDATE stamped SET n = 2 WHERE substr(name, 5)::int > $keys / 2", 'node') - $idle);
same($local, $node, 'SELECT n, count(*) FROM stamped GROUP BY n ORDER BY n', 'all of them are there');

# a node is told more of each, and what is deleted is all in one batch: that takes as much for 50,000 rows as for 400,000
flat("$keys deleted rows of a node's", taken_by_pusher("DELETE FROM stamped WHERE substr(name, 5)::int <= $keys / 2", 'node') - $idle,
	taken_by_pusher('DELETE FROM stamped', 'node') - $idle, $unfilled, 48 * $slack);
is(rows($node, 'SELECT count(*) FROM stamped'), 0, 'all of them are gone');

$_->stop('fast') foreach $local, $remote, $node;
done_testing();
