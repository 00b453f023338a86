# WHY: workers are connections that nobody has opened. They must find every database that has the extension, whenever it
# got it, and must not be in the way of commands that want a database, a server or the extension for themselves: not
# even while they are in the middle of something.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => "max_worker_processes = 30\nsynchro.retry_max_interval = 1s\nautovacuum = off");
my $remote = synchro_node('remote');
my $table = 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE)';
my $pushers = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'synchro pusher'};

# a database on each side, and the remotes as given: each a database of its own on the remote server
sub make_database
{
	my ($name, @remotes) = @_;

	$local->safe_psql('postgres', "CREATE DATABASE $name");
	$local->safe_psql($name, $table);
	add_remote($name, $_) foreach @remotes;
	$local->safe_psql($name, q{SELECT synchro.add_table('t', '{name}')}) if @remotes;
	return;
}

sub add_remote
{
	my ($database, $name) = @_;
	my $there = "${database}_$name";

	$remote->safe_psql('postgres', "CREATE DATABASE $there");
	$remote->safe_psql($there, $table);
	connect_remote($local, $remote, name => $name, local_db => $database, remote_db => $there);
	return;
}

my $count = 0;

sub arrives
{
	my ($database, $remotes, $testname) = @_;

	$count++;
	$local->safe_psql($database, "INSERT INTO t (name) VALUES ('row $count')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_arrival($remote, "SELECT count(*) FROM t WHERE name = 'row $count'", '1', "$testname: $_", dbname => $_)
	  foreach @$remotes;
	return;
}

#
# three databases with two remotes each, and one without the extension
#
make_database('plain');
foreach my $database ('one', 'two', 'three')
{
	make_database($database, 'a', 'b');
	arrives($database, [ "${database}_a", "${database}_b" ], 'a database made after the start');
}
wait_for($local, $pushers, 'each has its pushers', expected => 6);
is(rows($local, q{SELECT string_agg(DISTINCT datname, ' ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}),
	'one three two', 'and they are where the extension is');
wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro look'}, 'nobody is left who looks');

# of anybody, in the database without the extension; ours have been counted when their server processes have gone
my $transactions = q{SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'plain'};
my $nobody = q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'plain'};
wait_for($local, $nobody, 'nor is anybody else in the database without the extension');
my $before = rows($local, $transactions);
$local->restart;
foreach my $database ('one', 'two', 'three')
{
	arrives($database, [ "${database}_a", "${database}_b" ], 'after a restart');
}
wait_for($local, $pushers, 'with as many pushers', expected => 6);
wait_for($local, "SELECT ($transactions) > $before AND ($nobody)", 'after a short look');
my $look = rows($local, $transactions) - $before;
cmp_ok($look, '<=', 3, "a database without the extension costs $look transactions at a start");
arrives('one', [ 'one_a', 'one_b' ], 'another change') foreach 1 .. 3;
is(rows($local, $transactions) - $before, $look, 'and no more after that');

#
# the extension, and remotes, come later and go
#
add_remote('plain', 'a');
$local->safe_psql('plain', q{SELECT synchro.add_table('t', '{name}')});
arrives('plain', ['plain_a'], 'an extension made later');
add_remote('plain', 'b');
arrives('plain', [ 'plain_a', 'plain_b' ], 'a remote added later');
$local->safe_psql('plain', q{SELECT synchro.remove_remote('a')});
wait_for($local, $pushers, 'a remote that is removed has no pusher', expected => 7);
arrives('plain', ['plain_b'], 'the other one goes on');
wait_for($remote, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'plain_a'}, 'the connection is gone');
$local->safe_psql('plain', 'ALTER SERVER b RENAME TO c');
arrives('plain', ['plain_b'], 'a server that is renamed');
is(state_of($local, 'c', 'remote', 'plain'), 'c', 'is shown by its new name');

#
# commands that want a database for themselves
#
within(5, 'ALTER DATABASE ... RENAME', sub { $local->safe_psql('postgres', 'ALTER DATABASE three RENAME TO drei') });
arrives('drei', [ 'three_a', 'three_b' ], 'a renamed database is served at once');

# one transaction may have several of them, or concern a database and the one that it runs in
$local->safe_psql('postgres', 'BEGIN; ALTER DATABASE one RENAME TO eins; ALTER DATABASE two RENAME TO zwei; COMMIT');
arrives($_->[0], [ "$_->[1]_a", "$_->[1]_b" ], 'two databases renamed in one transaction') foreach [ 'zwei', 'two' ], [ 'eins', 'one' ];
$local->safe_psql('postgres', 'BEGIN; ALTER DATABASE zwei RENAME TO two; ALTER DATABASE eins RENAME TO one; COMMIT');
arrives($_, [ "${_}_a", "${_}_b" ], 'and back again') foreach 'one', 'two';
$local->safe_psql('one', q{SELECT synchro.pause('a')});
wait_for($local, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'one' AND backend_type = 'synchro pusher'}, 'a paused remote has no pusher');
$local->safe_psql('one', q{BEGIN; SELECT synchro.resume('a'); ALTER DATABASE plain CONNECTION LIMIT 50; COMMIT});
arrives('one', [ 'one_a', 'one_b' ], 'a remote resumed together with a command on another database');
within(5, 'CREATE DATABASE ... TEMPLATE', sub { $local->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE two') });
arrives('two', [ 'two_a', 'two_b' ], 'a database that was copied is served at once');
wait_for($local, q{SELECT count(*) = 2 FROM synchro.remotes WHERE state = 'waiting to try again' AND last_error LIKE '%is a copy%'},
	'the copy does not push', dbname => 'copy');
within(5, 'DROP DATABASE', sub { $local->safe_psql('postgres', 'DROP DATABASE copy') });
within(5, 'and of one that is served', sub { $local->safe_psql('postgres', 'DROP DATABASE drei') });
wait_for($remote, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname LIKE 'three%'}, 'with its connections');

# a role that may not do that has no effect
$local->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
my $pid = pusher_pid($local, 'a', 'one');
my (undef, undef, $stderr) = $local->psql('postgres', 'DROP DATABASE one',
	connstr => $local->connstr('postgres') . ' user=nobody');
like($stderr, qr/must be owner/, 'a stranger cannot drop a database');
is(pusher_pid($local, 'a', 'one'), $pid, 'nor disturb its pushers');
$local->safe_psql('postgres', 'CREATE ROLE maker LOGIN CREATEDB');
my $maker = $local->connstr('postgres') . ' user=maker';

(undef, undef, $stderr) = $local->psql('postgres', 'CREATE DATABASE copy TEMPLATE one', connstr => $maker);
like($stderr, qr/permission denied to copy database "one"/, 'who may make databases cannot copy that of another');
is(pusher_pid($local, 'a', 'one'), $pid, 'nor disturb its pushers');
$local->safe_psql('postgres', 'ALTER DATABASE one IS_TEMPLATE true');
within(5, 'CREATE DATABASE ... TEMPLATE by who only may make databases', sub { $local->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE one', connstr => $maker) });
$local->safe_psql('postgres', 'ALTER DATABASE one IS_TEMPLATE false');
$local->safe_psql('postgres', 'DROP DATABASE copy');
arrives('one', [ 'one_a', 'one_b' ], 'a template that was copied');

#
# and so while the pushers wait in the middle of a batch
#
my %sessions;

sub lock_table
{
	my ($database) = @_;

	$sessions{$database} = $remote->background_psql($database);
	$sessions{$database}->query_safe('BEGIN; LOCK TABLE t');
	return;
}

sub unlock_table
{
	my ($database) = @_;
	my $session = delete $sessions{$database};

	$session->query_safe('COMMIT');
	$session->quit;
	return;
}

sub in_a_batch
{
	my ($database, @there) = @_;

	lock_table($_) foreach @there;
	$count++;
	$local->safe_psql($database, "INSERT INTO t (name) VALUES ('row $count')");
	foreach my $there (@there)
	{
		$remote->poll_query_until('postgres',
			"SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '$there' AND wait_event_type = 'Lock'")
		  or die 'no batch is under way';
	}
	return;
}

in_a_batch('two', 'two_a', 'two_b');
within(5, 'CREATE DATABASE ... TEMPLATE in the middle of a batch', sub { $local->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE two') });
unlock_table($_) foreach 'two_a', 'two_b';
arrives('two', [ 'two_a', 'two_b' ], 'after that');
in_a_batch('two', 'two_a', 'two_b');
within(5, 'DROP SERVER ... CASCADE in the middle of a batch', sub { $local->safe_psql('two', q{DROP SERVER a CASCADE}) });
wait_for($local, q{SELECT string_agg(remote, ' ') FROM synchro.remotes}, 'its remote is gone with it', expected => 'b', dbname => 'two');
unlock_table($_) foreach 'two_a', 'two_b';
arrives('two', ['two_b'], 'the other one is served');
in_a_batch('two', 'two_b');
within(5, 'DROP DATABASE in the middle of a batch', sub { $local->safe_psql('postgres', 'DROP DATABASE two') });
unlock_table('two_b');

in_a_batch('one', 'one_a', 'one_b');
within(5, 'DROP EXTENSION in the middle of a batch', sub { $local->safe_psql('one', 'DROP EXTENSION synchro') });
unlock_table($_) foreach 'one_a', 'one_b';
wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'one' AND backend_type LIKE 'synchro%'}, 'the pushers have gone');
wait_for($remote, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname LIKE 'one%'}, 'and their connections');
is(rows($local, q{SELECT count(*) FROM pg_foreign_server}, 'one'), '0', 'and the servers');
$local->safe_psql('one', q{INSERT INTO t (name) VALUES ('without')});
connect_remote($local, $remote, name => 'a', local_db => 'one', remote_db => 'one_a', peer => 'none');
$local->safe_psql('one', q{SELECT synchro.add_table('t', '{name}')});
arrives('one', ['one_a'], 'an extension made anew');

#
# DROP EXTENSION that is rolled back
#
$local->safe_psql('one', 'BEGIN; DROP EXTENSION synchro; ROLLBACK');
arrives('one', ['one_a'], 'DROP EXTENSION rolled back');

#
# a database that cannot be connected to, and then can
#
within(5, 'a database that takes no connections', sub {
	$local->safe_psql('postgres', 'ALTER DATABASE plain ALLOW_CONNECTIONS false');
	$local->restart;
});
arrives('one', ['one_a'], 'keeps no other from being served');
$local->safe_psql('postgres', 'ALTER DATABASE plain ALLOW_CONNECTIONS true');
arrives('plain', ['plain_b'], 'and is served when it does');

stops_fast($local, 'pg_ctl stop -m fast');
$remote->stop('fast');
done_testing();
