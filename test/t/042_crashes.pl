# WHY: workers, servers and machines die at any moment. Whatever dies and comes back, syncing must go on by itself, every
# committed change must arrive once, and the remote must never hold what the local has lost in its own crash.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use IPC::Run;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

# a local that loses what was committed in the last moment
my $local = synchro_node('local', preload => 1, conf => <<'CONF');
restart_after_crash = on
synchronous_commit = off
wal_writer_delay = 10s
bgwriter_lru_maxpages = 0
shared_buffers = 32MB
synchro.retry_max_interval = 1s
CONF

# and a remote that would lose it, too, if the pusher did not see to it
my $remote = synchro_node('remote', conf => "synchronous_commit = off\nwal_writer_delay = 10s");

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int)');

# counts what reaches the remote's tables
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE audit (name text, operation text);
CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.audit VALUES (NEW.name, TG_OP);
	RETURN NULL;
END
$$;
CREATE TRIGGER count_it AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION count_it();
SQL
$remote->safe_psql('postgres', 'CHECKPOINT');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}')});

sub arrives
{
	my ($name, $testname) = @_;

	$local->safe_psql('postgres', "INSERT INTO t (name) VALUES ('$name')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_arrival($remote, "SELECT count(*) FROM t WHERE name = '$name'", '1', $testname);
	return;
}

sub nothing_doubled
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( rows($remote, 'SELECT name, operation, count(*) FROM audit GROUP BY name, operation HAVING count(*) > 1 ORDER BY 1 LIMIT 5'),
		'', $testname);
	return;
}

arrives('before', 'changes arrive');

#
# workers that end
#
my $pusher = pusher_pid($local, 'office');
$local->safe_psql('postgres', "SELECT pg_terminate_backend($pusher)");
arrives('pusher terminated', 'a pusher that was terminated is started again');
isnt(pusher_pid($local, 'office'), $pusher, 'it is another one');

my $launcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'synchro launcher'};
my $old_launcher = rows($local, $launcher);
$local->safe_psql('postgres', "SELECT pg_terminate_backend($old_launcher)");
arrives('launcher terminated', 'pushers go on without a launcher');
wait_for($local, "SELECT count(*) = 1 FROM ($launcher) l WHERE pid <> $old_launcher", 'which comes back');
$pusher = pusher_pid($local, 'office');
$local->safe_psql('postgres', "SELECT pg_terminate_backend($pusher)");
arrives('pusher terminated again', 'and starts pushers as before');

#
# kill -9
#
crash_worker($local, pusher_pid($local, 'office'));
arrives('pusher killed', 'after kill -9 of the pusher changes arrive again');
crash_worker($local, rows($local, $launcher));
arrives('launcher killed', 'and of the launcher');
{
	my $looking = q{SELECT pid FROM pg_stat_activity WHERE application_name = 'synchro looking for remotes' AND wait_event_type = 'Lock'};
	my $lock = $local->background_psql('postgres', on_error_stop => 0);

	# a launcher has every database looked into
	$lock->query_safe('BEGIN; LOCK TABLE synchro.remote');
	$local->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM ($launcher) l");
	wait_for($local, "SELECT count(*) = 1 FROM ($looking) l", 'a worker looks for remotes');
	crash_worker($local, rows($local, $looking));
	$lock->quit;
}
arrives('looking killed', 'and of the worker that looks for remotes');
nothing_doubled('nothing arrived twice');

#
# the remote crashes
#
$remote->stop('immediate');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('remote down')});
wait_for($local, <<'SQL', 'view remotes says what is waited for, since when, and when the next attempt is');
SELECT state = 'waiting to try again' AND last_error LIKE 'could not connect to remote "office"%refused%'
AND last_error_at > now() - interval '1 minute' AND attempts > 1 AND next_attempt > now() - interval '1 s'
AND pending = 1 AND lag > '0' AND last_success < last_error_at
FROM synchro.remotes
SQL
$remote->start;
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'remote down'}, '1', 'it goes on when the remote is there again');
wait_for($local, q{SELECT state = 'idle' AND attempts = 0 AND next_attempt IS NULL AND pending = 0 FROM synchro.remotes},
	'and says so');

#
# the remote crashes right after it has got something
#
foreach my $round (1 .. 2)
{
	arrives("remote round $round row $_", "row $_ of round $round arrives") foreach 1 .. 3;
	wait_for($local, q{SELECT pending = 0 AND state = 'idle' FROM synchro.remotes}, 'all of it');
	$remote->stop('immediate');
	$remote->start;
	same($local, $remote, q{SELECT name FROM t WHERE name LIKE 'remote round%' ORDER BY name}, 'it still has it after a crash');
}
arrives('after those', 'and is served as before');

#
# a remote that is down when the local starts
#
$remote->stop('immediate');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('down at start 1'), ('down at start 2')});
$local->safe_psql('postgres', 'CHECKPOINT');
$local->restart;
wait_for($local, q{SELECT state = 'waiting to try again' AND pending = 2 AND lag > '0' FROM synchro.remotes},
	'a remote that is down at start: what is pending is known all the same');
$remote->start;
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name LIKE 'down at start %'}, '2', 'it goes on when it is there');

#
# the local crashes, and what it had not yet written is lost
#
foreach my $round (1 .. 3)
{
	arrives("round $round row $_", "row $_ of round $round arrives") foreach 1 .. 3;
	$local->stop('immediate');
	$local->start;
	is( rows($remote, 'SELECT string_agg(name, \' \' ORDER BY name) FROM t'),
		rows($local, 'SELECT string_agg(name, \' \' ORDER BY name) FROM t'),
		'the remote has nothing that the local has lost in its crash');
}

# Commits that are lost before anything of them was sent: their transaction ids are handed out again. The WAL writer is
# stopped meanwhile, else it may have written them before the crash, and killed, since stopped it would keep the server from ending.
foreach my $round (1 .. 3)
{
	$local->safe_psql('postgres', q{SELECT synchro.pause('office')});
	wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}, 'a paused remote has no pusher');

	my $wal_writer = rows($local, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
	my $lost;
	kill 'STOP', $wal_writer;
	foreach my $i (1 .. 5)
	{
		$lost = $local->safe_psql('postgres', "INSERT INTO t (name) VALUES ('lost $round $i') RETURNING pg_current_xact_id()");
	}
	kill 'KILL', $wal_writer;
	$local->stop('immediate');
	$local->start;
	is(rows($local, "SELECT count(*) FROM t WHERE name = 'lost $round 5'"), '0', "commits are lost in crash $round");
	$local->safe_psql('postgres', q{SELECT synchro.resume('office')});

	my $first = $local->safe_psql('postgres', "INSERT INTO t (name) VALUES ('new $round 1') RETURNING pg_current_xact_id()");

	cmp_ok($first, '<=', $lost, 'and their transaction ids are handed out again');
	$local->safe_psql('postgres', "INSERT INTO t (name) VALUES ('new $round $_')") foreach 2 .. 3;
	wait_arrival($remote, "SELECT count(*) FROM t WHERE name LIKE 'new $round %'", '3', 'what was committed after a crash arrives');
	wait_for($local, q{SELECT pending = 0 FROM synchro.remotes}, 'all of it');
	is( rows($remote, q{SELECT string_agg(name, ' ' ORDER BY name) FROM t}),
		rows($local, q{SELECT string_agg(name, ' ' ORDER BY name) FROM t}),
		'both sides are the same');
}
nothing_doubled('nothing arrived twice in all of that');

#
# in the middle of a pass
#
$local->append_conf('postgresql.conf', 'synchro.batch_size = 100');
$local->reload;

my %ends = (
	'a restart of the local' => sub { stops_fast($local, 'pg_ctl stop in the middle of a pass'); $local->start },
	'a crash of the local' => sub { $local->stop('immediate'); $local->start },
	'a crash of the remote' => sub { $remote->stop('immediate'); $remote->start },
	'kill -9 of the pusher' => sub { crash_worker($local, pusher_pid($local, 'office')) });
my $number = 0;
foreach my $end (sort keys %ends)
{
	$number++;
	my $rows = 0;

	# whoever looks may come too late, which is less likely the more there is to push
	foreach my $try (1 .. 20)
	{
		my $more = 10000 * $try;

		$rows += $more;
		$local->safe_psql('postgres',
			"SET synchronous_commit = on; INSERT INTO t (name) SELECT 'pass $number $try ' || i FROM generate_series(1, $more) i");
		$remote->poll_query_until('postgres', "SELECT count(*) >= $rows - 0.9 * $more FROM t WHERE name LIKE 'pass $number %'") or die 'no pass';
		last if rows($remote, "SELECT count(*) FROM t WHERE name LIKE 'pass $number %'") < $rows;
		die 'always missed the middle of the pass' if $try == 20;
	}
	$ends{$end}->();
	wait_arrival($remote, "SELECT count(*) FROM t WHERE name LIKE 'pass $number %'", $rows,
		"$end in the middle of a pass: all arrives");
	nothing_doubled('nothing twice');
}
same($local, $remote, 'SELECT name FROM t ORDER BY name', 'at last both sides are the same');

#
# A pusher that dies leaves a batch behind that the remote goes on with, and commits when nobody waits for the answer any
# more, perhaps after the next pusher has come.
#
my $batches = q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'};

sub leave_behind
{
	my ($name) = @_;
	my $holder = $remote->background_psql('postgres');

	$holder->query_safe('BEGIN; LOCK TABLE t');

	# so many rows that they go by COPY, and COMMIT with them
	$local->safe_psql('postgres', "SET synchronous_commit = on; INSERT INTO t (name) VALUES ('$name'); INSERT INTO t (name) SELECT '$name, ' || i FROM generate_series(1, 9) i");
	wait_for($remote, $batches, 'a batch waits for a lock', expected => '1');
	my $pid = pusher_pid($local, 'office');
	$local->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	return $holder;
}

my $holder = leave_behind('left behind');
wait_for($remote, $batches, 'the next pusher waits, too', expected => '2');
$holder->query_safe('COMMIT');
$holder->quit;
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'left behind'}, '1', 'what was left behind gets through');
arrives('after that', 'and it goes on');

$holder = leave_behind('left again');
$holder->query_safe(q{ALTER TABLE t ADD CONSTRAINT strict CHECK (name <> 'refused')});
$holder->query_safe('COMMIT');
$holder->quit;
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('refused')});
wait_for($local, q{SELECT count(*) = 1 FROM synchro.failures WHERE message LIKE '%violates check constraint "strict"%'},
	'the same, and the next batch fails');
$remote->safe_psql('postgres', 'ALTER TABLE t DROP CONSTRAINT strict');
arrives('after that, too', 'it goes on all the same');
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name IN ('left again', 'refused')}, '2', 'with everything');
nothing_doubled('nothing arrived twice');

#
# A postmaster is killed while a batch waits for a lock on the remote: nobody tells the others to end. Rows that go by COPY, and few.
# Those of plain have neither natural key nor a unique value: one that is applied twice is there twice.
#
both($local, $remote, 'CREATE TABLE plain (id serial PRIMARY KEY, label text)');
$remote->safe_psql('postgres', q{SELECT setval('plain_id_seq', 1000)});
$local->safe_psql('postgres', q{SELECT synchro.add_table('plain')});

foreach my $side ($local, $remote)
{
	foreach my $rows (10, 1)
	{
		my $name = 'postmaster of ' . $side->name . " killed, $rows";
		my $lock = $remote->background_psql('postgres');

		$lock->query_safe('BEGIN; LOCK TABLE t');
		$local->safe_psql('postgres', "SET synchronous_commit = on; BEGIN; INSERT INTO t (name) SELECT '$name: ' || i FROM generate_series(1, $rows) i;"
			  . "INSERT INTO plain (label) SELECT '$name: ' || i FROM generate_series(1, $rows) i; COMMIT");
		wait_for($remote, $batches, "$name: a batch waits for a lock", expected => '1');
		ok(eval { crash_postmaster($side); 1 }, "$name: all processes end by themselves") or diag($@);
		if ($side == $local)
		{
			# the batch is left behind
			wait_for($remote, $batches, "$name: the next pusher waits, too", expected => '2');
			$lock->query_safe('COMMIT');
		}
		$lock->quit;
		wait_arrival($remote, "SELECT count(*) FROM t WHERE name LIKE '$name: %'", $rows, "$name: all arrives");
		arrives("$name: after that", "$name: it goes on");
		wait_for($local, q{SELECT pending = 0 AND failed = 0 AND state = 'idle' FROM synchro.remotes}, "$name: it settles");
		same($local, $remote, 'SELECT name FROM t UNION ALL SELECT label FROM plain ORDER BY 1', "$name: both sides are the same");
		nothing_doubled("$name: nothing arrived twice");
	}
}

#
# a few rows: the remote is told to commit them only when what they are, and that they are sent, is on disk here
#
my $here = $local->background_psql('postgres');
my $waiting = q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'sync' AND state = 'idle in transaction'};
my $pid;

# the pusher may just be noting what became of the pass before
foreach my $try (1 .. 20)
{
	$here->query_safe('BEGIN; LOCK TABLE synchro.remote_state IN SHARE MODE');
	$pid = pusher_pid($local, 'office');
	$local->safe_psql('postgres', qq{SET synchronous_commit = on; INSERT INTO t (name) VALUES ('not yet $try')});
	$local->poll_query_until('postgres', "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid") or die 'the pusher does not wait';
	$remote->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'sync' AND state = 'active'});
	last if rows($remote, $waiting) eq '1';
	die 'the pusher always waits before it pushes' if $try == 20;
	$here->query_safe('COMMIT');
	$local->safe_psql('postgres', q{DELETE FROM t WHERE name LIKE 'not yet%'});
	wait_for($local, q{SELECT pending = 0 AND state = 'idle' FROM synchro.remotes}, 'once more');
}
is(rows($remote, $waiting), '1', 'the remote has applied a row');
is(rows($remote, q{SELECT count(*) FROM t WHERE name LIKE 'not yet%'}), '0', 'and not committed it');
$local->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_for($remote, $waiting, 'if the pusher dies it does not wait any more', expected => '0');
is(rows($remote, q{SELECT count(*) FROM t WHERE name LIKE 'not yet%'}), '0', 'and has not got the row');
$here->query_safe('COMMIT');
$here->quit;
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name LIKE 'not yet%'}, '1', 'which comes with the next pusher');
nothing_doubled('nothing arrived twice');

#
# a password that is changed on the remote
#
$remote->safe_psql('postgres', <<'SQL');
ALTER ROLE sync PASSWORD 'changed';
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sync';
SQL
reload_with($local, 'synchro.retry_max_interval' => '1h');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('password changed')});
wait_for($local, q{SELECT state = 'waiting to try again' AND attempts >= 4 AND last_error LIKE '%password%' FROM synchro.remotes},
	'a password that is no longer right: view remotes says so');
unlike(state_of($local, 'office', 'last_error'), qr/secret/, 'without telling it');
$local->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (SET password 'changed')});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'password changed'}, '1', 'the new one is taken up at once');
nothing_doubled('nothing arrived twice');

#
# A worker on call. Who waits for it is told that it has ended, if he still can be told; what it leaves behind on the remote is
# waited for by the next call, and nothing is done twice.
#
$local->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$local->restart;

# Calls while the remote's table is locked, has the worker end in the middle, and returns what the caller is told.
sub ends_on_call
{
	my ($name, $end) = @_;
	my $lock = $remote->background_psql('postgres');
	my ($stdout, $stderr) = ('', '');

	$lock->query_safe('BEGIN; LOCK TABLE t');
	$local->safe_psql('postgres', "SET synchronous_commit = on; INSERT INTO t (name) SELECT '$name ' || i FROM generate_series(1, 100) i");
	my $caller = IPC::Run::start([ 'psql', '-XAtq', '-d', $local->connstr('postgres'), '-c', q{SELECT * FROM synchro.synchronize('office')} ],
		'>', \$stdout, '2>', \$stderr, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	wait_for($remote, $batches, "$name: the worker on call waits with its batch", expected => '1');
	$end->(rows($local, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}));
	$caller->finish;
	$lock->query_safe('COMMIT');
	$lock->quit;
	is($stdout, '', "$name: the call returns nothing");
	$local->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'});
	sync($local, 'office');
	is(rows($remote, "SELECT count(*) FROM t WHERE name LIKE '$name %'"), '100', "$name: after the next call all is there");
	nothing_doubled("$name: once");
	return $stderr;
}

like(ends_on_call('on call, terminated', sub { $local->safe_psql('postgres', "SELECT pg_terminate_backend($_[0])") }),
	qr/ERROR:  the worker that pushes to remote "office" ended before it was done/, 'which says that its worker has ended');
like(ends_on_call('on call, killed', sub { crash_worker($local, $_[0]) }), qr/terminating connection because of crash of another server process/,
	'which goes down with the server');

$local->stop('fast');
$remote->stop('fast');
done_testing();
