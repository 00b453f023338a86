# WHY: a network does not only refuse, it also swallows: packets vanish, and nobody says so. A worker that waits for an answer
# for ever would neither sync nor let its server shut down. So workers must notice within the configured times, say what
# they wait for, go on by themselves, and end at once when told to, whatever they are waiting for.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $local = synchro_node('local', preload => 1, conf => <<'CONF');
max_worker_processes = 30
synchro.connect_timeout = 1s
synchro.retry_max_interval = 1s
CONF

# a batch is seen as a whole
my $remote = synchro_node('remote', conf => 'track_activity_query_size = 1MB');
my $table = 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, data text)';

both($local, $remote, $table);
my ($socket, $silent) = silent_port();
my $proxy = start_proxy($remote->port);

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
my $added = time;
add_remote('silent', port => $silent);
wait_for($local, q{SELECT state = 'connecting' FROM synchro.remotes WHERE remote = 'silent'}, 'a host that never answers: the pusher waits');
wait_for($local, <<'SQL', 'not for ever, and view remotes says for what');
SELECT last_error LIKE 'could not connect to remote "silent": It has not answered within 1 seconds.'
AND last_error_at > now() - interval '1 minute' AND attempts > 1 FROM synchro.remotes WHERE remote = 'silent'
SQL
cmp_ok(time - $added, '<', 60, 'twice within the configured time, and what a busy machine takes');
wait_for($local, <<'SQL', 'nor when it tries next');
SELECT state = 'waiting to try again' AND next_attempt BETWEEN last_error_at AND last_error_at + interval '1.2 s'
FROM synchro.remotes WHERE remote = 'silent'
SQL
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('silent')});
within(5, 'synchronize() ends with the error', sub {
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

# a remote is told to commit apart from its batch only where a round trip is short, which it may not be on a busy machine
my $apart = rows($remote, q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'proxied' AND wait_event_type = 'Lock'
	AND query LIKE '%idle_in_transaction_session_timeout%' AND query NOT LIKE '%COMMIT'});
$proxy->command('swallow');
my $swallowed = time;
$holder->query_safe('COMMIT');
$holder->quit;
wait_for($local, q{SELECT last_error LIKE '%"proxied"%It has not answered within 1 seconds%' AND state IN ('connecting', 'waiting to try again')
	AND pending = 1 AND lag > '1 s' FROM synchro.remotes WHERE remote = 'proxied'}, 'a line that goes dead is noticed');
cmp_ok(time - $swallowed, '<', 60, 'within the configured time, which is three times that of a connection, and once more');
ok($local->wait_for_log(qr/could not push to remote "proxied".*\n.*It has not answered within 1 seconds/), 'and logged');
is(rows($remote, q{SELECT count(*) FROM t WHERE name = 'dead line'}, 'proxied'), $apart ? '0' : '1', 'the batch waits for COMMIT, if it has to');
wait_for($remote, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'proxied' AND state = 'idle in transaction'},
	'not for long, so that its locks are in nobody\'s way');
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'dead line'}, '1', 'the other remote does not care', dbname => 'silent');
$proxy->command('forward');
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'dead line'}, '1', 'it goes on when the line is there again', dbname => 'proxied');

# One that is only slow is not taken for dead: a statement may last longer than the time after which we ask, which is three
# times that of a connection. That is given four seconds here, since a machine that has much to do may take some for one.
$local->safe_psql('postgres', q{ALTER SERVER proxied OPTIONS (ADD connect_timeout '4')});
$holder = $remote->background_psql('proxied');
$holder->query_safe('BEGIN; LOCK TABLE t');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('slow')});
my $session = q{SELECT pid FROM pg_stat_activity WHERE datname = 'proxied' AND wait_event_type = 'Lock'};
wait_for($remote, "SELECT count(*) = 1 FROM ($session) s", 'a batch waits for a lock');
my $pid = rows($remote, $session);
my $taken = $proxy->command('taken');
my $asked = 0;
foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if $asked = $proxy->command('taken') > $taken;
	usleep(100_000);
}
ok($asked, 'for so long that we ask by another connection whether it is alive');
wait_for($remote, "SELECT now() - query_start > '17 s' AND state = 'active' FROM pg_stat_activity WHERE pid = $pid", 'which it is');
$holder->query_safe('COMMIT');
$holder->quit;
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'slow'}, '1', 'a remote that is slow gets it', dbname => 'proxied');
is(rows($remote, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"), '1', 'over the same connection, though we asked by another one');

#
# connections that are cut
#
$proxy->command('cut');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('cut')});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'cut'}, '1', 'a connection that was cut is made anew', dbname => 'proxied');

#
# workers that wait for everything that there is to wait for
#
my %doors = map { $_ => start_proxy($remote->port) } 'stalled', 'sending';

reload_with($local, 'synchro.connect_timeout' => '1h', 'synchro.retry_max_interval' => '1h');
$local->safe_psql('postgres', "SELECT synchro.remove_remote('$_')") foreach 'silent', 'proxied';

# A database with four remotes, each waiting for something else.
sub hang_all
{
	if (rows($local, q{SELECT count(*) FROM pg_database WHERE datname = 'hung'}) eq '0')
	{
		$local->safe_psql('postgres', 'CREATE DATABASE hung');
		$local->safe_psql('hung', $table);
	}
	$local->safe_psql('hung', 'CREATE EXTENSION IF NOT EXISTS synchro');
	foreach my $name ('locked', 'sending', 'silent', 'stalled')
	{
		my $port = $name eq 'silent' ? $silent : $doors{$name} ? $doors{$name}{port} : $remote->port;
		my $there = rows($remote, "SELECT count(*) FROM pg_database WHERE datname = '$name'") ne '0';

		next if rows($local, "SELECT count(*) FROM pg_foreign_server WHERE srvname = '$name'", 'hung') ne '0';
		if (!$there)
		{
			$remote->safe_psql('postgres', "CREATE DATABASE $name");
			$remote->safe_psql($name, $table);
		}
		connect_remote(
			$local, $remote,
			name => $name,
			local_db => 'hung',
			remote_db => $name,
			options => { port => $port },
			peer => $name eq 'silent' || rows($remote, q{SELECT to_regclass('synchro_peer.position') IS NULL}, $name) eq 'f' ? 'none' : 'setup');
	}
	$local->safe_psql('hung', q{SELECT synchro.add_table('t', '{name}') WHERE NOT EXISTS (SELECT FROM synchro.tables)});
	$local->poll_query_until('hung', q{SELECT count(*) = 3 FROM synchro.remotes WHERE state = 'idle' AND pending = 0 AND remote <> 'silent'})
	  or die 'not all remotes are served: ' . rows($local, 'SELECT * FROM synchro.remotes', 'hung');

	my $holder = $remote->background_psql('locked');

	$holder->query_safe('BEGIN; LOCK TABLE t');
	$doors{stalled}->command('swallow');
	$doors{sending}->command('swallow after 500000');

	# more than any socket's buffers take
	$local->safe_psql('hung', q{INSERT INTO t (name, data) SELECT clock_timestamp()::text || i, repeat('x', 1000000) FROM generate_series(1, 40) i});
	$local->poll_query_until('hung', q{SELECT string_agg(remote || ' ' || state, ', ' ORDER BY remote) FROM synchro.remotes},
		'locked pushing, sending pushing, silent connecting, stalled pushing')
	  or die 'other states: ' . rows($local, 'SELECT remote, state, last_error FROM synchro.remotes', 'hung');
	$remote->poll_query_until('postgres', <<'SQL') or die 'no lock is waited for, or no data: ' . rows($remote, q{SELECT datname, state, wait_event, left(query, 40) FROM pg_stat_activity WHERE usename = 'sync'});
SELECT count(*) = 2 FROM pg_stat_activity WHERE usename = 'sync' AND state = 'active'
AND (datname = 'locked' AND wait_event_type = 'Lock' OR datname = 'sending' AND wait_event = 'ClientRead')
SQL
	return $holder;
}

sub let_go
{
	my ($holder) = @_;

	$holder->query_safe('COMMIT');
	$holder->quit;
	foreach my $door (values %doors)
	{
		$door->command('forward');
		$door->command('cut');
	}
	return;
}

my $gone = q{SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = };

$holder = hang_all();
my %pusher = map { $_ => pusher_pid($local, $_, 'hung') } 'locked', 'sending', 'silent', 'stalled';
within(5, 'CREATE DATABASE ... TEMPLATE succeeds, whatever the pushers wait for', sub {
	$local->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE hung');
});
$local->safe_psql('postgres', 'DROP DATABASE copy');
let_go($holder);
$holder = hang_all();
foreach my $name (sort keys %pusher)
{
	my $pid = pusher_pid($local, $name, 'hung');

	within(5, "pg_terminate_backend() is obeyed: $name", sub {
		$local->safe_psql('hung', "SELECT synchro.pause('$name'), pg_terminate_backend($pid)");
		$local->poll_query_until('postgres', $gone . $pid);
	});
	my (undef, undef, $stderr) = $local->psql('hung', "DROP SERVER $name");

	like($stderr, qr/cannot drop server $name because other objects depend on it.*user mapping/s, 'PostgreSQL wants the user mapping dropped first')
	  if $name eq 'silent';
	$local->safe_psql('hung', "SELECT synchro.resume('$name')");
}
let_go($holder);
$holder = hang_all();
foreach my $name ('sending', 'silent')
{
	within(5, "DROP USER MAPPING and then DROP SERVER, without CASCADE: $name", sub {
		$local->safe_psql('hung', "DROP USER MAPPING FOR CURRENT_USER SERVER $name");
		$local->safe_psql('hung', "DROP SERVER $name");
	});
}
is(rows($local, q{SELECT string_agg(remote, ' ' ORDER BY remote) FROM synchro.remotes}, 'hung'), 'locked stalled', 'their remotes are gone');
within(5, 'DROP EXTENSION, without CASCADE', sub { $local->safe_psql('hung', 'DROP EXTENSION synchro') });
wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro pusher' AND datname = 'hung'}, 'then no pusher is left');
let_go($holder);
$holder = hang_all();
within(5, 'DROP DATABASE', sub { $local->safe_psql('postgres', 'DROP DATABASE hung') });
let_go($holder);
$holder = hang_all();
stops_fast($local, 'pg_ctl stop -m fast ends at once');

# and waiting for the next attempt
let_go($holder);
$remote->stop('fast');
$local->start;
wait_for($local, q{SELECT count(*) = 3 FROM synchro.remotes WHERE state = 'waiting to try again'}, 'remotes that are down', dbname => 'hung');
stops_fast($local, 'pg_ctl stop -m fast ends at once then, too');
done_testing();
