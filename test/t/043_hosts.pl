# WHY: a remote with a standby has two hosts, and a name may have several addresses. The one that is gone after a failover does not
# refuse connections: it says nothing. libpq goes on to the next one by itself only for who lets it block, so this is for us to do:
# otherwise nothing is pushed until somebody takes the dead host out of the options, which is what naming both was to spare.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use IO::Socket::INET;
use PostgreSQL::Test::Utils qw(system_or_bail);
use SynchroTest;
use Test::More;
use Time::HiRes qw(usleep);

my $addresses = PostgreSQL::Test::Utils::tempdir() . '/two_addresses.so';
system_or_bail($ENV{CC} || 'gcc', '-shared', '-fPIC', '-O', '-o', $addresses, 'test/t/two_addresses.c', '-ldl');

my $local = synchro_node('local', preload => 1, start => 0, conf => <<'CONF');
synchro.connect_timeout = 2s
synchro.retry_max_interval = 1s
CONF

{
	local $ENV{LD_PRELOAD} = $addresses;
	$local->start;
}
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE)');
my ($socket, $silent) = silent_port();
my ($other_socket, $also_silent) = silent_port();

connect_remote($local, $remote, options => { host => '127.0.0.1,127.0.0.1', port => "$silent," . $remote->port, target_session_attrs => 'read-write' });
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name) VALUES ('second host')});
wait_arrival($remote, 'SELECT name FROM t', 'second host', 'where the first host says nothing, the second one is asked');

# Other hosts from now on; a row arrives, or the worker's error has that.
sub with_hosts
{
	my ($testname, $options, $pattern) = @_;

	$local->safe_psql('postgres', 'ALTER SERVER office OPTIONS (' . join(', ', map { "SET $_ '$options->{$_}'" } sort keys %$options) . ')');
	$local->safe_psql('postgres', "INSERT INTO t (name) VALUES ('$testname')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_arrival($remote, "SELECT count(*) FROM t WHERE name = '$testname'", '1', $testname) if !defined $pattern;
	return wait_for($local, "SELECT regexp_replace(last_error, E'\\n', ' / ', 'g') ~ '$pattern' FROM synchro.remotes", $testname)
	  || diag(state_of($local, 'office', 'last_error'));
}

my $good = $remote->port;

with_hosts('the only host says nothing', { host => '127.0.0.1', port => $silent },
	'^could not connect to remote "office": It has not answered within 2 seconds[.]$');
with_hosts('none of them says anything', { host => '127.0.0.1,127.0.0.1', port => "$silent,$also_silent" },
	"^could not connect to remote \"office\": Host \"127.0.0.1\", port $silent, has not answered within 2 seconds[.] / Host \"127.0.0.1\", port $also_silent, has not answered within 2 seconds[.]\$");

# nobody listens at port 1
with_hosts('one says nothing, the other one refuses', { host => '127.0.0.1,127.0.0.1', port => "1,$silent" },
	"port $silent, has not answered within 2 seconds[.] / .*port 1 failed: Connection refused");
with_hosts('the last of four', { host => '127.0.0.1,127.0.0.1,localhost,127.0.0.1', port => "1,$silent,$also_silent,$good" });
with_hosts('one port for all, and the host that a session prefers is not there',
	{ host => '127.0.0.2,127.0.0.1', port => $good, target_session_attrs => 'prefer-standby' });

#
# a name that has two addresses, of which the first says nothing
#
my $same_port = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.2', LocalPort => $good, Proto => 'tcp');

SKIP:
{
	skip 'nobody can listen at 127.0.0.2', 2 if !$same_port;
	with_hosts('the second address of the name', { host => 'two.addresses', port => $good, target_session_attrs => 'any' });
	with_hosts('both addresses say nothing', { host => 'two.addresses,127.0.0.1', port => "$silent,$also_silent" },
		"Host \"two.addresses\" [(]127.0.0.1[)], port $silent, has not answered within 2 seconds");
}

#
# A remote that is silent for long is asked whether it is there. It is that host that is asked, not the first one, which is not. The
# time is longer, since a busy machine may take long to answer.
#
my $proxy = start_proxy($good);

$local->safe_psql('postgres', q{ALTER SERVER office OPTIONS (ADD connect_timeout '4')});
with_hosts('through a proxy', { host => '127.0.0.1,127.0.0.1', port => "$silent,$proxy->{port}" });
my $holder = $remote->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE t');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('slow')});
my $session = q{SELECT pid FROM pg_stat_activity WHERE datname = 'postgres' AND wait_event_type = 'Lock'};
wait_for($remote, "SELECT count(*) = 1 FROM ($session) s", 'a batch waits for a lock');
my $pid = rows($remote, $session);
my $taken = $proxy->command('taken');
my $asked = 0;
foreach my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if $asked = $proxy->command('taken') > $taken || rows($remote, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") eq '0';
	usleep(100_000);
}
ok($asked, 'for so long that the host is asked whether it is there');
$holder->query_safe('COMMIT');
$holder->quit;
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'slow'}, '1', 'which it is');
is(rows($remote, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"), '1', 'so the session has been kept');

$_->stop('fast') foreach $local, $remote;
done_testing();
