# WHY: synchronize() says how many rows were written, or why that was not possible. The always-on worker goes on as soon as it is done,
# and whoever has asked may be slow to wake up: what he is told must be of the pass that was made for him, not of one that came after
# it. Else somebody who checks the result takes a good synchronization for a failed one, or a failed one for a good one.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use IPC::Run;
use SynchroTest;
use Test::More;
use Time::HiRes qw(usleep);

my $local = synchro_node('local', preload => 1);
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int)');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name, n) VALUES ('first', 0)});
wait_arrival($remote, 'SELECT count(*) FROM t', '1', 'a row');

my $waiting = q{FROM pg_stat_activity WHERE query LIKE 'SELECT inserted%' AND state = 'active' AND wait_event_type = 'Extension'};

# Somebody calls synchronize() while a pass is under way, so that the next one, of so many new rows, is made for him, and does not wake
# up when that is done; then something else happens, and then he does. What he is told.
sub slow_caller
{
	my ($new, $meanwhile) = @_;
	my $there = rows($remote, 'SELECT count(*) FROM t');
	my $holder = $remote->background_psql('postgres');
	my ($in, $out) = ('', '');

	$holder->query_safe('BEGIN; LOCK TABLE t');
	$local->safe_psql('postgres', q{UPDATE t SET n = n + 1 WHERE name = 'first'});
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'}, 'a pass is under way');
	my $caller = IPC::Run::start([ $local->installed_command('psql'), '-XAt', '-d', $local->connstr('postgres'),
			'-c', q{SELECT inserted, updated, message FROM synchro.synchronize('office')} ], '<', \$in, '>&', \$out);
	wait_for($local, "SELECT count(*) = 1 $waiting", 'somebody has asked for the next one');
	my $pid = rows($local, "SELECT pid $waiting");

	# not while he looks who keeps the worker waiting, which takes locks
	kill 'STOP', $pid;
	while (rows($local, "SELECT count(*) $waiting") eq '0')
	{
		kill 'CONT', $pid;
		usleep(10_000);
		kill 'STOP', $pid;
	}
	$local->safe_psql('postgres', "INSERT INTO t (name) SELECT 'new ' || i FROM generate_series($there, $there + $new - 1) i");
	$holder->query_safe('COMMIT');
	$holder->quit;
	wait_arrival($remote, 'SELECT count(*) FROM t', $there + $new, 'it is made');
	wait_for($local, q{SELECT state = 'idle' AND pending = 0 FROM synchro.remotes}, 'and done');
	$meanwhile->();
	kill 'CONT', $pid;
	$caller->finish;
	chomp $out;
	return $out;
}

is( slow_caller(10, sub {
		$local->safe_psql('postgres', 'UPDATE t SET n = 1');
		wait_arrival($remote, 'SELECT count(*) FROM t WHERE n = 1', '11', 'another pass, that nobody has asked for');
		wait_for($local, q{SELECT state = 'idle' AND pending = 0 FROM synchro.remotes}, 'is done');
	}),
	'10|0|Synchronization performed successfully.',
	'the counts are those of his own pass');

is( slow_caller(5, sub {
		$local->safe_psql('postgres', 'UPDATE t SET n = 2');
		sync($local, 'office');
		sync($local, 'office');
	}),
	'5|0|Synchronization performed successfully.',
	'also where others have asked since');

is( slow_caller(3, sub {
		$remote->stop('fast');
		$local->safe_psql('postgres', 'UPDATE t SET n = 3');
		wait_for($local, 'SELECT attempts > 0 FROM synchro.remotes', 'another pass fails');
	}),
	'3|0|Synchronization performed successfully.',
	'nor is the error of a later pass his');
sync_fails($local, 'office', qr/could not connect to remote "office"/, 'who asks now gets it');

#
# A copy takes many passes. Of those that had been made before somebody asks, nothing is told, and so after one that has failed.
#
$local->append_conf('postgresql.conf', 'synchro.batch_size = 10');
$local->reload;
$remote->start;
$local->safe_psql('postgres', q{SET synchro.log_changes = off; INSERT INTO t (name) SELECT 'copied ' || i FROM generate_series(1, 100) i});
wait_arrival($remote, 'SELECT count(*) FROM t WHERE n = 3', '19', 'the remote is there again');
$remote->safe_psql('postgres', <<'SQL');
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_catalog.pg_advisory_xact_lock(1) WHERE NEW.name = 'copied 50';
	IF NEW.name = 'copied 80' THEN
		RAISE 'no more' USING ERRCODE = 'disk_full';
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER hold BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION hold();
SQL
my $holder = $remote->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(1)');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 't')});
wait_for($remote, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event = 'advisory'}, 'half of a copy is made');
my $before = rows($remote, q{SELECT count(*) FROM t WHERE name LIKE 'copied %'});
cmp_ok($before, '>', 20, 'and committed');
my ($in, $out) = ('', '');
my $caller = IPC::Run::start([ $local->installed_command('psql'), '-XAt', '-d', $local->connstr('postgres'),
		'-v', 'VERBOSITY=sqlstate', '-c', q{SELECT inserted FROM synchro.synchronize('office')} ], '<', \$in, '>&', \$out);
wait_for($local, "SELECT count(*) = 1 $waiting", 'somebody asks for the rest');
$holder->query_safe('SELECT pg_advisory_unlock(1)');
$holder->quit;
$caller->finish;
is($out, "ERROR:  53100\n", 'which fails after some of it');
$before = rows($remote, q{SELECT count(*) FROM t WHERE name LIKE 'copied %'});
$remote->safe_psql('postgres', 'DROP TRIGGER hold ON t');

# the worker may have begun to try again by itself
cmp_ok(sync($local, 'office')->{inserted}, '<=', 100 - $before, 'who asks once more is told of the rest, and of nothing before');
same($local, $remote, 'SELECT name FROM t ORDER BY name', 'all is there');

$_->stop('fast') foreach $local, $remote;
done_testing();
