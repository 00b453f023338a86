# WHY: background workers are a resource that others use as well. When there are too few of them for all remotes, what can
# be served must be, the administrator must be told once what to do, and nobody may spin.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use IPC::Run;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

# one for PostgreSQL's logical replication launcher, one for our launcher, and one that is left
my $local = synchro_node('local', preload => 1, conf => 'max_worker_processes = 3');
my $remote = synchro_node('remote');
my $table = 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE)';

both($local, $remote, $table);
$remote->safe_psql('postgres', 'CREATE DATABASE second');
$remote->safe_psql('second', $table);
connect_remote($local, $remote, name => 'first');
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name) VALUES ('one')});
wait_arrival($remote, 'SELECT name FROM t', 'one', 'the first remote is served');
connect_remote($local, $remote, name => 'second', remote_db => 'second');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('two')});
wait_arrival($remote, 'SELECT count(*) FROM t', '2', 'it still is when there is no worker for a second one');

sub messages
{
	my $log = slurp_file($local->logfile);
	my $count = () = $log =~ /could not start all workers of synchro/g;

	return $count;
}

ok($local->wait_for_log(qr/could not start all workers of synchro.*\n.*HINT:  Increase max_worker_processes/), 'this is logged, with a hint');
sync_fails($local, 'second', qr/ERROR:  53400: could not start a worker.*\n.*DETAIL:.*\n?.*HINT:  Increase max_worker_processes/,
	'synchronize() says so');
is(sync($local, 'first')->{message}, 'No changes since last synchronization.', 'for a remote that is served it works');

# no crash loop: the launcher sleeps, and says nothing twice
my $ended = () = slurp_file($local->logfile) =~ /exited with exit code/g;
my $since = rows($local, 'SELECT clock_timestamp()');
wait_for($local, "SELECT clock_timestamp() - '$since' > '12 s'", 'some time goes by, in which it looks again');
is(messages(), 1, 'it is not said again and again');
is(() = slurp_file($local->logfile) =~ /exited with exit code/g, $ended, 'and no worker starts and ends all the time');

# a worker that becomes free is used
$local->safe_psql('postgres', q{SELECT synchro.remove_remote('first')});
wait_arrival($remote, 'SELECT count(*) FROM t', '2', 'a worker that becomes free is used', dbname => 'second');

#
# not even one
#
foreach my $workers (2, 1, 0)
{
	$local->append_conf('postgresql.conf', "max_worker_processes = $workers");
	$local->restart;
	$local->safe_psql('postgres', "INSERT INTO t (name) VALUES ('workers $workers')");
	sync_fails($local, 'second', qr/53400.*HINT:  Increase max_worker_processes/s, "with $workers workers the server runs, and synchronize() says what it takes");
}
$local->append_conf('postgresql.conf', 'max_worker_processes = 8');
$local->restart;
wait_arrival($remote, 'SELECT count(*) FROM t', '5', 'with enough of them all is pushed', dbname => 'second');
stops_fast($local, 'pg_ctl stop');

#
# where there are none at all, and no setting makes any
#
my $said = '';
my $script = "INSERT INTO t (name) VALUES ('alone')\nSELECT * FROM synchro.synchronize('second')\nSELECT * FROM synchro.preview('second')\n";

IPC::Run::run([ $local->installed_command('postgres'), '--single', '-D', $local->data_dir, 'postgres' ], '<', \$script, '>&', \$said);
my $hints = () = $said =~ /ERROR:  nothing can be pushed in single-user mode\n.*HINT:  Start the server[.] What is changed until then is logged[.]/g;
is($hints, 2, 'in single-user mode there are no workers, which is said instead of slots') or diag($said);
$local->start;
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'alone'}, '1', 'what was changed there is logged, and pushed later', dbname => 'second');
$local->stop('fast');
$remote->stop('fast');
done_testing();
