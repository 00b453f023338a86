# WHY: the moment that decides about "once" is COMMIT. Its answer may be lost when it has been done; and it may be done long
# after nobody waits for the answer any more, behind the back of a worker that has pushed the same since. Neither may apply
# anything twice, nor take back what is newer. And a remote that takes no more connections is one to come back to.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use OnceOnly;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my ($local, $remote, $proxy) = once_pair();

change('first', 1);
wait_arrival($remote, 'SELECT count(*) FROM plain', '1', 'changes arrive');
settled('first');

#
# The answer to COMMIT is lost.
#
my $committed = answer_to_commit();

foreach my $action ('cut', 'swallow')
{
	foreach my $round (1 .. 3)
	{
		my $n = rows($remote, 'SELECT max(n) FROM plain') + 1;

		$proxy->command("$action at $committed answers");
		change($round == 3 ? 'first' : "$action $round", $n);
		sprung($proxy, $local, "$action $round: COMMIT has been answered, and nobody has heard it");
		is(rows($remote, "SELECT count(*) FROM plain WHERE n = $n"), '1', "$action $round: it has been done");
		if ($action eq 'swallow')
		{
			wait_for($local, q{SELECT attempts > 0 AND pending > 0 FROM synchro.remotes}, "$action $round: the pusher gives up waiting");
			$proxy->command('forward');
			$proxy->command('cut');
		}

		# what is changed meanwhile comes after it
		change("$action $round", $n + 1);
		wait_arrival($remote, "SELECT count(*) FROM plain WHERE n = $n + 1", '1', "$action $round: it goes on");
		settled("$action $round");
	}
}

# What reset() has the remote forget, it forgets once: else the rows that are made there with it would be new to it again.
{
	my $n = rows($remote, 'SELECT max(n) FROM plain') + 1;

	$proxy->command("cut at $committed answers");
	$local->safe_psql('postgres', "BEGIN; SELECT synchro.reset('office'); INSERT INTO plain (label, n) VALUES ('reset', $n); COMMIT");
	sprung($proxy, $local, 'reset: COMMIT has been answered, and nobody has heard it');
	$local->safe_psql('postgres', "UPDATE plain SET n = $n + 1 WHERE label = 'reset'");
	wait_arrival($remote, "SELECT count(*) FROM plain WHERE n = $n + 1", '1', 'reset: it goes on');
	wait_for($local, q{SELECT pending = 0 AND failed = 0 AND state = 'idle' FROM synchro.remotes}, 'reset: it settles');
	is(rows($remote, q{SELECT count(*) FROM plain WHERE label = 'reset'}), '1', 'reset: what was made with it is there once');
	same($local, $remote, 'SELECT label, n FROM plain ORDER BY label', 'reset: both sides are the same');
}

# and a pusher that is gone together with the line
{
	my $pid = pusher_pid($local, 'office');

	$proxy->command("swallow at $committed answers");
	change('killed', 100);
	sprung($proxy, $local, 'killed: nobody has heard of the COMMIT');
	$proxy->command('forward');
	crash_worker($local, $pid);
	$proxy->command('cut');
	change('killed', 101);
	wait_arrival($remote, 'SELECT count(*) FROM plain WHERE n = 101', '1', 'killed: it goes on');
	settled('killed');
}

#
# A batch that is on its way when its worker dies, and gets there when the next one has pushed the same and more.
#
sub zombie
{
	my ($testname, $marker, $n, $meanwhile) = @_;
	my $pid = pusher_pid($local, 'office');

	$proxy->command('hold at ' . unpack 'H*', $marker);

	# so many rows that they go by COPY
	$local->safe_psql('postgres', "INSERT INTO t (name, n) SELECT CASE g WHEN 0 THEN 'zombie' ELSE 'crowd ' || g END, $n FROM generate_series(0, 9) g ON CONFLICT (name) DO UPDATE SET n = EXCLUDED.n");
	sprung($proxy, $local, "$testname: it is under way");
	crash_worker($local, $pid);
	isnt(pusher_pid($local, 'office'), $pid, "$testname: there is another pusher");
	$meanwhile->();
	$proxy->command('release');
	return;
}

# Held before it begins: the next worker gets through, and what comes late meets the fence.
{
	my $offset = -s $remote->logfile;

	zombie('late batch', 'BEGIN;SET CONSTRAINTS', 200, sub {
		change('zombie', 201);
		wait_arrival($remote, q{SELECT n FROM t WHERE name = 'zombie'}, '201', 'late batch: the next pusher gets through');
		settled('late batch, not yet there');
	});
	fence_refuses($offset, 2000, 'late batch: the fence refuses it');
	is(rows($remote, q{SELECT n FROM t WHERE name = 'zombie'}), '201', 'late batch: what is newer stays');
	settled('late batch');
}

# A batch that has nothing to be copied gets there as a whole although its worker has gone: the last one of a pass, say. Held
# before it begins, and let go between the next worker's look at the position and its batch: that one is kept from collecting
# its changes by a lock. What comes late has been called off.
{
	my $pid = pusher_pid($local, 'office');
	my $parked = $local->background_psql('postgres');
	my $locker = $remote->background_psql('postgres');
	my $offset = -s $remote->logfile;

	reload_with($local, 'synchro.batch_size' => 1);
	$locker->query_safe('BEGIN; LOCK TABLE t IN EXCLUSIVE MODE');
	change('zombie', 250, 1);
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'}, 'called off: the first batch waits');
	$proxy->command('hold at ' . unpack 'H*', 'BEGIN;SET CONSTRAINTS');
	$locker->quit;
	sprung($proxy, $local, 'called off: the last one is under way');
	$parked->query_safe('BEGIN; LOCK TABLE synchro.parked');
	$local->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_for($local, "SELECT count(*) = 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'synchro pusher' AND l.pid <> $pid AND NOT l.granted",
		'called off: the next pusher has looked at the position');
	change('zombie', 251, 1);
	$proxy->command('release');
	fence_refuses($offset, 300, 'called off: the fence refuses it');
	$parked->quit;
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'zombie'}, '251', 'called off: the next pusher goes on');
	settled('called off');
	is(rows($remote, q{SELECT string_agg(n::text, ' ') FROM audit WHERE name = 'zombie' AND relation = 't' AND n >= 250}), '250 251', 'called off: each state once');
	reload_with($local, 'synchro.batch_size' => 10000);
}

# Held in its last moment, at the end of the last COPY: the next worker waits for it.
foreach my $testname ('late end of COPY', 'late and cut off')
{
	my $n = $testname eq 'late end of COPY' ? 300 : 400;

	zombie($testname, 'c' . pack('N', 4), $n, sub {
		wait_for($remote, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'},
			"$testname: the next pusher waits for it");
		change('zombie', $n + 1);
		$proxy->command('cut') if $n == 400;
	});
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'zombie'}, $n + 1, "$testname: it goes on");
	settled($testname);
	is(rows($remote, "SELECT string_agg(n::text, ' ') FROM audit WHERE name = 'zombie' AND relation = 't' AND n >= $n"), $n == 300 ? '300 301' : '401',
		"$testname: " . ($n == 300 ? 'both get through, one after the other' : 'only the later'));
}

#
# A few rows, and a remote that is near: COMMIT is sent by itself, and alone decides about a batch that has been applied.
#
my $zombie_states = q{SELECT string_agg(n::text, ' ') FROM audit WHERE name = 'zombie' AND relation = 't' AND n >= };

# Held back. Returns which state of the row it is about, and the session that waits for it.
sub lone_commit
{
	my ($testname, $n) = @_;
	my $tries = 0;

	$proxy->command('hold at ' . unpack 'H*', 'Q' . pack('N', 4 + 7) . "COMMIT\0");
	change('zombie', $n);

	# A machine that is busy can make a remote look far: then COMMIT comes with the rest. The next session may be near.
	while ($proxy->command('armed') && $tries < 20)
	{
		next if rows($remote, "SELECT count(*) FROM t WHERE name = 'zombie' AND n = $n") eq '0';
		$tries++;
		$remote->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sync'});
		change('zombie', ++$n);
	}
	ok(!$proxy->command('armed'), "$testname: COMMIT comes by itself");
	my $session = rows($remote, q{SELECT pid FROM pg_stat_activity WHERE usename = 'sync' AND state = 'idle in transaction'});
	like($session, qr/^\d+$/, "$testname: the remote has done all else, and waits for it");
	cmp_ok(rows($remote, q{SELECT n FROM t WHERE name = 'zombie'}), '<', $n, "$testname: nobody sees it yet");
	return ($n, $session);
}

sub next_pusher
{
	my ($testname, $n) = @_;
	my $pid = pusher_pid($local, 'office');

	crash_worker($local, $pid);
	isnt(pusher_pid($local, 'office'), $pid, "$testname: there is another pusher");
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'},
		"$testname: which waits");
	change('zombie', $n + 1);
	return;
}

# It gets there while the next pusher waits for what becomes of it.
{
	my ($n) = lone_commit('lone COMMIT', 1000);

	next_pusher('lone COMMIT', $n);
	$proxy->command('release');
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'zombie'}, $n + 1, 'lone COMMIT: it goes on');
	settled('lone COMMIT');
	is(rows($remote, "$zombie_states $n"), "$n " . ($n + 1), 'lone COMMIT: both get through, one after the other');
}

# It comes too late: the remote has ended the session by then, and got something newer; by another pusher, or by the same, which
# is told so while it waits for the answer.
foreach my $killed (1, 0)
{
	my $testname = $killed ? 'lone COMMIT, too late' : 'lone COMMIT, called off by the remote';
	my $offset = -s $remote->logfile;
	my ($n, $session) = lone_commit($testname, 2000 - 500 * $killed);

	$killed ? next_pusher($testname, $n) : change('zombie', $n + 1);
	wait_for($remote, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $session", "$testname: the remote does not wait for ever");
	like(slurp_file($remote->logfile, $offset), qr/^\[$session\] FATAL:  .*idle-in-transaction timeout/m, "$testname: by its own timeout");
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'zombie'}, $n + 1, "$testname: it goes on");
	settled("$testname, not yet there");
	$proxy->command('release');
	change('zombie', $n + 2);
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'zombie'}, $n + 2, "$testname: and on");
	settled($testname);
	is(rows($remote, "$zombie_states $n"), ($n + 1) . ' ' . ($n + 2), "$testname: what is newer stays, and each state comes once");
}

#
# A position that is moved while the remote is met for the first time, or anew after it was moved before: what counts is what
# was said last. The remote is one that has all rows, of which the log still has each.
#
$remote->safe_psql('postgres', 'CREATE DATABASE copy');
$remote->safe_psql('copy', 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int); CREATE TABLE plain (id serial PRIMARY KEY, label text, n int)');
my $meeting = start_proxy($remote->port);
my $meetings = 0;

# The pusher has read the position, and has not yet told the remote.
sub while_they_meet
{
	my ($testname, $begin, $move) = @_;

	$meeting->command('hold at ' . unpack 'H*', "SELECT to_regclass('synchro_peer.position')");
	$begin->();
	sprung($meeting, $local, "$testname: a pusher meets the remote");
	$meetings++;
	$local->safe_psql('postgres', "INSERT INTO plain (label, n) VALUES ('before', -$meetings)");
	$local->safe_psql('postgres', $move);
	$local->safe_psql('postgres', "INSERT INTO plain (label, n) VALUES ('$testname', 0)");
	$meeting->command('release');
	wait_arrival($remote, "SELECT count(*) FROM plain WHERE label = '$testname'", '1', "$testname: what comes after that arrives", dbname => 'copy');
	is(rows($remote, q{SELECT count(*) FROM plain WHERE label = 'before'}, 'copy'), $move =~ /confirm_node/ ? '1' : '0',
		"$testname: and what comes before it, where that does not move the position");
	return;
}

while_they_meet('first contact', sub {
	connect_remote($local, $remote, name => 'copy', local_db => 'postgres', remote_db => 'copy', options => { port => $meeting->{port} });
}, q{SELECT synchro.reset('copy')});
is(rows($remote, 'SELECT count(*) FROM plain', 'copy'), '1', 'first contact: nor anything else');
while_they_meet('reset', sub { $local->safe_psql('postgres', q{SELECT synchro.reset('copy')}) }, q{SELECT synchro.reset('copy')});
while_they_meet('checkpoint', sub { $local->safe_psql('postgres', q{SELECT synchro.reset('copy')}) }, q{SELECT synchro.set_checkpoint('copy', clock_timestamp())});
while_they_meet('another node', sub { $local->safe_psql('postgres', q{SELECT synchro.reset('copy')}) }, 'SELECT synchro.confirm_node()');
$local->safe_psql('postgres', q{SELECT synchro.remove_remote('copy')});
settled('moved positions');

#
# no connection to be had
#
sub refused
{
	my ($testname, $n, $message, $free) = @_;

	$remote->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sync'});
	change('refused', $n);
	wait_for($local, "SELECT attempts >= 3 AND pending > 0 AND failed = 0 AND last_error LIKE '%$message%' FROM synchro.remotes",
		"$testname: nothing is parked, and view remotes says why") or diag(rows($local, 'SELECT * FROM synchro.remotes'));
	$free->();
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'refused'}, $n, "$testname: when there is one again, it goes on");
	settled($testname);
	return;
}

$remote->safe_psql('postgres', 'ALTER ROLE sync CONNECTION LIMIT 0');
refused('a limit on the role', 500, 'too many connections for role', sub { $remote->safe_psql('postgres', 'ALTER ROLE sync CONNECTION LIMIT -1') });

# Ordinary users cannot have what is reserved: here, all that there is.
$remote->append_conf('postgresql.conf', "max_connections = 20\nsuperuser_reserved_connections = 10");
$remote->restart;
$remote->safe_psql('postgres', 'CREATE ROLE hoarder LOGIN');
my @hoard = map { $remote->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'hoarder' ]) } 1 .. 9;
push @hoard, $remote->background_psql('postgres', on_error_stop => 0);
refused('no free slot', 600, 'remaining connection slots are reserved', sub { $_->quit foreach @hoard });

$local->stop('fast');
$remote->stop('fast');
done_testing();
