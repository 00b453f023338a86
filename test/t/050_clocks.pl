# WHY: of two changes of a row made on two servers, the newer one is to win. So the nodes must agree on what time it is,
# whatever their clocks say, whichever of them pushes, and without anybody's changes being in the future. And nothing may
# be decided by clocks that are known too badly.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils qw(slurp_file);
use ShiftedClock;
use SynchroTest;
use Test::More;
use Time::HiRes ();

# Ids from small to large: the first node of each pair is the reference.
my ($first, $second, $third) = map { "0000000$_-0000-4000-8000-000000000000" } 1 .. 3;
my $peer_clock = 'synchro.peer_clock(uuid, uuid, integer, bigint, bigint)';

sub make_node
{
	my ($node, $id) = @_;

	$node->safe_psql('postgres', <<"SQL");
CREATE EXTENSION synchro;
UPDATE synchro.node_identity SET id = '$id';
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, amount integer);
SELECT synchro.add_table('t', '{name}');
SQL
	return;
}

# The one pushes to the other; both know each other as nodes.
sub join_nodes
{
	my ($from, $to, %opts) = @_;

	connect_remote($from, $to, add => 0, %opts);
	$to->safe_psql('postgres', q{SELECT synchro.allow_peer('sync')});
	$from->safe_psql('postgres', 'SELECT synchro.add_remote(' . q{'} . ($opts{name} || 'office') . q{')});
	return;
}

sub clock_of
{
	my ($node) = @_;

	return rows($node, q{SELECT clock_reference, clock_stratum FROM synchro.node});
}

# Seconds between the stamp that a change gets and our own clock, which is the unshifted nodes' as well.
my $changes = 0;

sub stamp_error
{
	my ($node, $name) = @_;

	$name ||= 'stamp ' . ++$changes;
	my $before = Time::HiRes::time();
	$node->safe_psql('postgres', "INSERT INTO t (name) VALUES ('$name')");
	my $after = Time::HiRes::time();
	my $stamp = rows($node, q{SELECT extract(epoch FROM changed_at) FROM synchro.changes ORDER BY xid DESC LIMIT 1});
	return $stamp < $before ? $stamp - $before : $stamp > $after ? $stamp - $after : 0;
}

# Is a node's offset what it should be, within what it claims to know (and the little that test and servers take apart)?
sub offset_is
{
	my ($node, $seconds, $testname) = @_;

	my ($offset, $uncertainty) = split /\|/,
	  rows($node, q{SELECT extract(epoch FROM clock_offset), extract(epoch FROM clock_uncertainty) FROM synchro.node});
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	note("offset $offset s, uncertainty $uncertainty s");
	cmp_ok(abs($offset - $seconds), '<=', $uncertainty + 0.000_002, $testname);
	cmp_ok($uncertainty, '<', 0.5, 'which is not much');
	return;
}

#
# a node pushes to the reference: it takes the time of whom it pushes to
#
my $reference = synchro_node('reference', preload => 1);
my $ahead = shifted_node('ahead', 300, preload => 1);
make_node($reference, $first);
make_node($ahead, $second);
cmp_ok(stamp_error($ahead, 'early'), '>', 250, 'before it has met another, a node goes by its own clock');

join_nodes($ahead, $reference);
wait_arrival($reference, q{SELECT count(*) FROM t}, '1', 'its changes arrive');
is(clock_of($ahead), "$first|1", 'the node with the greater id goes by the other one');
is(clock_of($reference), "$first|0", 'which goes by itself');
offset_is($ahead, -300, 'the offset is right within the uncertainty');
offset_is($reference, 0, 'the reference has none');
my $measured = rows($ahead, q{SELECT extract(epoch FROM clock_offset) FROM synchro.remotes});
cmp_ok(abs($measured + 300), '<', 0.5, "the remote's clock, less ours, is in the view ($measured)");
wait_for($ahead, "SELECT node = '$first' FROM synchro.remote_state", 'and it is known which node the remote is');
cmp_ok(abs(stamp_error($ahead)), '<', 0.5, 'from now on changes have the time of the reference');

# What was logged before the clock was set back is in the future, and counts as made when that happened.
is(rows($ahead, <<'SQL'), 't|early|t', 'that the clock was set far back is noted');
SELECT n.clock_set_from - n.clock_set_at BETWEEN interval '299 s' AND interval '301 s',
	string_agg(t.name, ' ') FILTER (WHERE c.xid < n.clock_set_xid),
	bool_and(c.changed_at = n.clock_set_at) FILTER (WHERE c.xid < n.clock_set_xid)
FROM synchro.node_identity n, synchro.changes c JOIN t ON t.id::text = c.key
GROUP BY n.clock_set_from, n.clock_set_at
SQL
like(slurp_file($ahead->logfile), qr/synchro has set common time back by (299|300)\./, 'and in the log of the server');

#
# the reference pushes: it gives its time to whom it pushes to, who has no link himself
#
my $behind = shifted_node('behind', -200);
make_node($behind, $third);
cmp_ok(stamp_error($behind), '<', -150, 'another one is behind');
join_nodes($reference, $behind, name => 'branch');
$reference->safe_psql('postgres', q{SELECT * FROM synchro.synchronize('branch')});
is(clock_of($behind), "$first|1", 'it has taken the time of the node that pushes to it');
offset_is($behind, 200, 'with the right offset');
cmp_ok(abs(stamp_error($behind)), '<', 0.5, 'and its changes have the time of the reference');
is(rows($behind, 'SELECT clock_set_at IS NULL FROM synchro.node_identity'), 't', 'nothing was set back for that');
my $there = rows($reference, q{SELECT extract(epoch FROM clock_offset) FROM synchro.remotes WHERE remote = 'branch'});
cmp_ok(abs($there + 200), '<', 0.5, "the view shows the remote's clock");

#
# over two links, and with the pusher gone
#
my $far = shifted_node('far', 77, preload => 1);
make_node($far, 'ffffffff-0000-4000-8000-000000000000');
join_nodes($far, $ahead);
$far->safe_psql('postgres', q{SELECT * FROM synchro.synchronize()});
is(clock_of($far), "$first|2", 'the reference is known over two links');
offset_is($far, -77, 'and so is its time');
$far->safe_psql('postgres', q{SELECT synchro.pause('office')});
wait_for($far, q{SELECT worker_pid IS NULL FROM synchro.remotes}, 'no pusher runs');
cmp_ok(abs(rows($far, 'SELECT extract(epoch FROM clock_offset) FROM synchro.remotes') - 223),
	'<', 0.5, "the view shows the remote's clock without a pusher, too");

# The other's offers change nothing, as they lead to the same reference on a longer way.
my $before = rows($ahead, 'SELECT clock_measured_at FROM synchro.node_identity');
is(rows($ahead, "SELECT own_reference, own_stratum FROM synchro.peer_clock('$third', '$third', 0, 5, 5)"),
	"$first|1", 'a greater reference is not taken');
is(rows($ahead, "SELECT own_reference, own_stratum FROM synchro.peer_clock('$third', '$first', 1, 5, 5)"),
	"$first|1", 'nor the same one over as many links');
is(rows($ahead, "SELECT own_reference, own_stratum FROM synchro.peer_clock('$third', '00000000-0000-4000-8000-000000000000', 0, 5, 1000001)"),
	"$first|1", 'nor what is too uncertain');
is(rows($ahead, 'SELECT clock_measured_at FROM synchro.node_identity'), $before, 'and nothing was written');

#
# drift
#
shift_clock($ahead, 300.4);
cmp_ok(abs(rows($ahead, q{SELECT extract(epoch FROM clock_offset) FROM synchro.node}) + 300), '<', 0.15, 'a clock drifts');
$ahead->safe_psql('postgres', q{SELECT pg_terminate_backend(worker_pid) FROM synchro.remotes});
$ahead->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('drifted')});
wait_arrival($reference, q{SELECT count(*) FROM t WHERE name = 'drifted'}, '1', 'it pushes again');
wait_for($ahead, q{SELECT abs(extract(epoch FROM clock_offset) + 300.4) < 0.15 FROM synchro.node}, 'the offset has followed');
is(rows($ahead, q{SELECT clock_set_at < clock_measured_at + clock_offset - interval '0.1 s' FROM synchro.node_identity, synchro.node}),
	't', 'without a set-back: the step is a small one');
cmp_ok(abs(stamp_error($ahead)), '<', 0.9, 'changes have the time of the reference again');

# Nor has the connection to be made anew for that: clocks are measured with batches now and then, and at once if there was a jump.
my $session = q{SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'synchro%' AND usename = 'sync' AND state = 'idle'};
wait_for($reference, "SELECT count(*) = 1 FROM ($session) s", 'a connection that is idle');
my $pid = rows($reference, $session);
shift_clock($ahead, 345);
$ahead->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('jumped')});
wait_arrival($reference, q{SELECT count(*) FROM t WHERE name = 'jumped'}, '1', 'a clock jumps');
wait_for($ahead, q{SELECT abs(extract(epoch FROM clock_offset) + 345) < 0.15 FROM synchro.node}, 'the offset has followed');
is(rows($reference, $session), $pid, 'over the same connection');
shift_clock($ahead, 300.4);
$ahead->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('jumped back')});
wait_for($ahead, q{SELECT abs(extract(epoch FROM clock_offset) + 300.4) < 0.15 FROM synchro.node}, 'so it does when the clock jumps back');

#
# stamps go up, whatever the clock does
#
shift_clock($ahead, 290);
$ahead->safe_psql('postgres', 'CREATE TABLE stamps (n serial, stamp timestamptz)');
$ahead->safe_psql('postgres', "INSERT INTO t (name) VALUES ('again $_')") foreach 1 .. 5;
is(rows($ahead, <<'SQL'), '5|t', 'a clock that is set back by ten seconds does not set stamps back');
SELECT count(*), bool_and(changed_at > earlier)
FROM (SELECT key, changed_at, lag(changed_at) OVER (ORDER BY xid::text::bigint) AS earlier
	FROM synchro.changes WHERE xid >= (SELECT clock_set_xid FROM synchro.node_identity)) c
WHERE key IN (SELECT id::text FROM t WHERE name LIKE 'again %')
SQL
$ahead->stop('immediate');
start_shifted($ahead);
$ahead->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('after the crash')});
is(rows($ahead, <<'SQL'), 't', 'nor does a crash');
SELECT max(changed_at) FILTER (WHERE key = (SELECT id::text FROM t WHERE name = 'after the crash'))
	> max(changed_at) FILTER (WHERE key = (SELECT id::text FROM t WHERE name = 'again 5')) FROM synchro.changes
SQL

# without shared memory: stamps given above the floor are in the sequence
my $floor = rows($behind, q{SELECT setval('synchro.clock', (extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01Z') * 1000000)::bigint + 500000000)});
$behind->safe_psql('postgres', "INSERT INTO t (name) VALUES ('floor $_')") foreach 1 .. 3;
is(rows($behind, <<"SQL"), '3|t|t', 'changes are later than what has come from elsewhere, and than each other');
SELECT count(*), min(stamp) > $floor AND max(stamp) < $floor + 100, count(DISTINCT stamp) = 3
FROM (SELECT (extract(epoch FROM changed_at - timestamptz '2000-01-01Z') * 1000000)::bigint AS stamp FROM synchro.changes
	WHERE key IN (SELECT id::text FROM t WHERE name LIKE 'floor %')) s
SQL

# lastval() stays the application's, and no rights are needed for it
is(rows($behind, <<'SQL'), 't', 'a role without rights may write, and its lastval() is its own');
\set QUIET 1
CREATE ROLE app;
GRANT SELECT, INSERT ON t TO app;
GRANT USAGE ON SEQUENCE t_id_seq TO app;
SET ROLE app;
BEGIN;
INSERT INTO t (name) VALUES ('by app');
SET TRANSACTION READ ONLY;
COMMIT;
SELECT lastval() = max(id) FROM t;
SQL

#
# a connection that is too slow
#
my $proxy = start_proxy($reference->port);
my $slow = synchro_node('slow', preload => 1, conf => "synchro.max_clock_uncertainty = '100ms'");
make_node($slow, $second);
join_nodes($slow, $reference, peer => 'none', options => { port => $proxy->{port} });
$slow->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('in time')});
wait_arrival($reference, q{SELECT count(*) FROM t WHERE name = 'in time'}, '1', 'a fast connection');
$proxy->command('delay 0.15');
$proxy->command('cut');
$slow->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('late')});
wait_for($slow, <<'SQL', 'a slow one is refused, and tried again; view remotes says why');
SELECT attempts > 1 AND next_attempt IS NOT NULL AND last_error ~
	'^clock of remote "office" is not known well enough: It is known to within 0\.\d+ seconds only; synchro\.max_clock_uncertainty is 0\.100 seconds\.$'
FROM synchro.remotes
SQL
sync_fails($slow, 'office', qr/ERROR:  55000: clock of remote "office" is not known well enough/, 'so does synchronize()');
is(rows($reference, q{SELECT count(*) FROM t WHERE name = 'late'}), '0', 'nothing was pushed');
$slow->append_conf('postgresql.conf', "synchro.max_clock_uncertainty = '2s'");
$slow->reload;
wait_arrival($reference, q{SELECT count(*) FROM t WHERE name = 'late'}, '1', 'it is enough to say that it need not be so exact');
cmp_ok(rows($slow, 'SELECT clock_uncertainty FROM synchro.remote_state'), '>', 100_000, 'the uncertainty is known, too');

#
# a node with a new id begins anew
#
$far->safe_psql('postgres', 'SELECT synchro.confirm_node()');
is(rows($far, 'SELECT clock_reference = id, clock_stratum, clock_offset, clock_uncertainty FROM synchro.node'),
	't|0|00:00:00|00:00:00', 'after confirm_node() a node goes by its own clock, until it meets another');

#
# a remote that has synchro, but does not let us in as a node, is a remote like any other
#
$reference->safe_psql('postgres', "REVOKE EXECUTE ON FUNCTION $peer_clock FROM sync");
$slow->safe_psql('postgres', q{SELECT synchro.reset(); INSERT INTO t (name) VALUES ('no node')});
$proxy->command('delay 0');
$proxy->command('cut');
wait_arrival($reference, q{SELECT count(*) FROM t WHERE name = 'no node'}, '1', 'without peer_clock() changes arrive all the same');

foreach my $node ($reference, $ahead, $behind, $far, $slow)
{
	$node->stop('fast');
	unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal/, 'no crash on ' . $node->name);
}
done_testing();
