# WHY: a network does not only refuse, it also swallows: packets vanish, and nobody says so. A worker that waits for an answer
# for ever would neither sync nor let its server shut down. So workers must notice within the configured times, say what
# they wait for, go on by themselves, and end at once when told to, whatever they are waiting for.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => <<'CONF');
synchro.connect_timeout = 1s
synchro.retry_max_interval = 1s
CONF
my $remote = synchro_node('remote');
my $table = 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, data text)';

both($local, $remote, $table);
my ($socket, $silent) = silent_port();
my $proxy = start_proxy($remote->port);
my $stalled = start_proxy($remote->port);

connect_remote($local, $remote, add => 0);

# one database on the remote server for each remote
sub add_remote
{
	my ($name, %options) = @_;

	$remote->safe_psql('postgres', "CREATE DATABASE $name");
	$remote->safe_psql($name, $table);
	connect_remote($local, $remote, name => $name, remote_db => $name, options => \%options);
	return;
}

$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}')});

#
# a host that takes connections and never answers
#
add_remote('silent', port => $silent);
wait_for($local, q{SELECT state = 'connecting' FROM synchro.remotes WHERE remote = 'silent'}, 'a host that never answers: the pusher waits');
wait_for($local, <<'SQL', 'not for ever, and view remotes says for what');
SELECT last_error LIKE 'could not connect to remote "silent": It has not answered within 1 seconds.'
AND last_error_at > now() - interval '1 minute' AND attempts > 1 FROM synchro.remotes WHERE remote = 'silent'
SQL
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('silent')});
within(10, 'synchronize() ends with the error', sub {
	sync_fails($local, 'silent', qr/08001.*could not connect to remote "silent"/, 'which says so');
});
$local->safe_psql('postgres', 'ALTER SERVER silent OPTIONS (SET port \'' . $remote->port . '\')');
wait_arrival($remote, 'SELECT name FROM t', 'silent', 'the corrected server is taken up', dbname => 'silent');

#
# a line that goes dead behind an established connection, in the middle of a statement
#
add_remote('proxied', port => $proxy->{port});
wait_arrival($remote, 'SELECT name FROM t', 'silent', 'through a proxy changes arrive', dbname => 'proxied');
my $holder = $remote->background_psql('proxied');
$holder->query_safe('BEGIN; LOCK TABLE t');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('dead line')});
wait_for($remote, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'proxied' AND wait_event_type = 'Lock'},
	'a batch is under way');
$proxy->command('swallow');
$holder->query_safe('COMMIT');
$holder->quit;
wait_for($local, q{SELECT last_error LIKE '%"proxied"%It has not answered within 1 seconds%' AND state IN ('connecting', 'waiting to try again')
	AND pending = 1 AND lag > '1 s' FROM synchro.remotes WHERE remote = 'proxied'}, 'a line that goes dead is noticed');
like($local->log_content, qr/remote "proxied" does not answer any more/, 'and logged') if $local->can('log_content');
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'dead line'}, '1', 'the other remote does not care', dbname => 'silent');
$proxy->command('forward');
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'dead line'}, '1', 'it goes on when the line is there again', dbname => 'proxied');

# One that is only slow is not taken for dead: a statement may last longer than the time after which we ask.
$holder = $remote->background_psql('proxied');
$holder->query_safe('BEGIN; LOCK TABLE t');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('slow')});
my $session = q{SELECT pid FROM pg_stat_activity WHERE datname = 'proxied' AND wait_event_type = 'Lock'};
wait_for($remote, "SELECT count(*) = 1 FROM ($session) s", 'a batch waits for a lock');
my $pid = rows($remote, $session);
wait_for($remote, "SELECT now() - query_start > '5 s' AND state = 'active' FROM pg_stat_activity WHERE pid = $pid", 'for long');
$holder->query_safe('COMMIT');
$holder->quit;
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'slow'}, '1', 'a remote that is slow gets it', dbname => 'proxied');
is(rows($remote, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"), '1', 'over the same connection');

#
# connections that are cut
#
$proxy->command('cut');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('cut')});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'cut'}, '1', 'a connection that was cut is made anew', dbname => 'proxied');

#
# shutdown, with workers that wait for everything that there is to wait for
#
$local->append_conf('postgresql.conf', "synchro.connect_timeout = 1h\nsynchro.retry_max_interval = 1h");
$local->reload;
wait_for($local, q{SELECT count(*) = 2 FROM synchro.remotes WHERE state = 'idle'}, 'all is quiet');
add_remote('locked');
add_remote('stalled', port => $stalled->{port});
add_remote('sending', port => $stalled->{port});
wait_for($local, q{SELECT count(*) = 5 FROM synchro.remotes WHERE state = 'idle' AND pending = 0}, 'all remotes are served');
$stalled->command('swallow');
$holder = $remote->background_psql('locked');
$holder->query_safe('BEGIN; LOCK TABLE t');
$local->safe_psql('postgres', "ALTER SERVER silent OPTIONS (SET port '$silent')");
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('last')});
wait_for($local, q{SELECT string_agg(remote || ' ' || state, ', ' ORDER BY remote) FROM synchro.remotes},
	'one each waits for a connection, a lock on the remote, an answer', expected =>
	'locked pushing, proxied idle, sending pushing, silent connecting, stalled pushing');

my $sender = pusher_pid($local, 'sending');
$local->safe_psql('postgres', q{SELECT synchro.pause('sending')});
within(5, 'pg_terminate_backend() is obeyed', sub {
	$local->safe_psql('postgres', "SELECT pg_terminate_backend($sender)");
	$local->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $sender");
});
stops_fast($local, 'pg_ctl stop -m fast ends at once');

# and waiting for the next attempt
$holder->query_safe('COMMIT');
$holder->quit;
$remote->stop('fast');
$local->start;
wait_for($local, q{SELECT count(*) = 2 FROM synchro.remotes WHERE state = 'waiting to try again'}, 'remotes that are down');
stops_fast($local, 'pg_ctl stop -m fast ends at once then, too');
done_testing();
