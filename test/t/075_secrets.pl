# WHY: the password of a remote is in a user mapping, where PostgreSQL keeps it from others. It would be of no use there if it could
# be read in a log, a view, an error or among the running statements, in particular when something is wrong, since that is when
# connection data like to be quoted. And passwords are not the only way in: certificates, passfiles and services must work,
# for those who may have this server read files.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my @secrets = map { "${_}Q7" . join '', map { ('a' .. 'z')[ rand 26 ] } 1 .. 20 } qw(s w p q);
my ($secret, $wrong, $phrase, $wrong_phrase) = @secrets;
my $any = join '|', @secrets;
# so that the search is not what it finds
my $pattern = join '|', map { '[' . substr($_, 0, 1) . ']' . substr $_, 1 } @secrets;
my $verbose = <<'CONF';
log_min_messages = debug5
log_statement = all
log_min_duration_statement = 0
log_min_error_statement = debug5
log_error_verbosity = verbose
log_connections = on
log_parameter_max_length_on_error = -1
debug_print_parse = off
track_activity_query_size = 100kB
CONF
my $local = synchro_node('local', preload => 1, conf => $verbose . "restart_after_crash = on\nsynchro.retry_max_interval = 1s\nsynchro.connect_timeout = 2s\n");
my $remote = synchro_node('remote', conf => $verbose =~ s,debug5,debug1,gr);

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int CHECK (n < 1000))');
$local->safe_psql('postgres', 'ALTER TABLE t DROP CONSTRAINT t_n_check');

# CREATE USER MAPPING is itself a statement, which the server logs if it is told to: not ours to prevent.
my $quietly = join ' ', map { "SET $_;" } 'log_statement = none', 'log_min_duration_statement = -1', 'log_min_messages = panic', 'log_min_error_statement = panic';

sub quietly
{
	my ($node, $sql) = @_;

	$node->safe_psql('postgres', $quietly . $sql);
	return;
}

quietly($remote, "CREATE ROLE sync LOGIN PASSWORD '$secret'");
grant_dml($remote);
$remote->watch_role('sync', 'postgres');
$local->safe_psql('postgres', 'CREATE EXTENSION synchro');
my $port = $remote->port;
$local->safe_psql('postgres', "CREATE SERVER office FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'postgres')");
quietly($local, "CREATE USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (user 'sync', password '$secret')");
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}'), synchro.add_remote('office')});
$remote->safe_psql('postgres', $local->safe_psql('postgres', 'SELECT synchro.peer_setup()'));

# All that there is to read, while it goes on.
my %found;

sub look
{
	my ($when) = @_;

	foreach my $node ($local, $remote)
	{
		$found{$when}{activity} += rows($node, "SELECT count(*) FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid() AND a::text ~ '$pattern'");
	}
	foreach my $place ([ $local, 'synchro' ], [ $remote, 'synchro_peer' ])
	{
		my ($node, $schema) = @$place;

		foreach my $relation (split /\n/, rows($node, "SELECT oid::regclass FROM pg_class WHERE relnamespace = '$schema'::regnamespace AND relkind IN ('r', 'v')"))
		{
			$found{$when}{$relation} += rows($node, "SELECT count(*) FROM $relation x WHERE x::text ~ '$pattern'");
		}
	}
	return;
}

# What may be asked of what is wrong.
sub asked
{
	my ($when) = @_;

	foreach my $function ('check', 'preview', 'verify')
	{
		my (undef, $rows, $says) = $local->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM synchro.$function('office')");

		isnt("$rows$says", '', "$when: $function() says something");
		unlike("$rows$says", qr/$any/, "$when: but no password");
	}
	return;
}

# synchronize() fails, the worker has tried, and what they say is read.
sub fails_with
{
	my ($when, $reason) = @_;

	# without one, an idle connection that is gone would not be noticed
	$local->safe_psql('postgres', 'INSERT INTO t (name, n) VALUES (gen_random_uuid(), 1)');
	my ($status, $stdout, $stderr) = $local->psql('postgres', "\\set VERBOSITY verbose\nSELECT synchro.synchronize('office')");

	like($stderr, $reason, "$when: fails");
	unlike($stderr, qr/$any/, "$when: without a password");
	asked($when);
	wait_for($local, q{SELECT last_error IS NOT NULL FROM synchro.remotes}, "$when: the worker has tried");
	look($when);
	return;
}

sub works
{
	my ($when) = @_;

	$local->safe_psql('postgres', 'INSERT INTO t (name, n) VALUES (gen_random_uuid(), 1)');
	my ($status, $stdout, $stderr) = $local->psql('postgres', "SELECT message FROM synchro.synchronize('office')");
	is($status, 0, "$when: works") or diag($stderr);
	wait_arrival($remote, 'SELECT count(*) FROM t', rows($local, 'SELECT count(*) FROM t'), "$when: rows arrive");
	look($when);
	return;
}

sub server_options
{
	my ($options) = @_;

	$local->safe_psql('postgres', "ALTER SERVER office OPTIONS ($options)");
	return;
}

works('at first');

#
# failures of every kind
#
quietly($local, "ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (SET password '$wrong')");
fails_with('wrong password', qr/08001.*password authentication failed/s);
quietly($local, "ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (SET password '$secret')");
works('right again');

foreach my $case (
	[ 'refused', "SET port '1'", qr/08001.*(?:refused|Connection)/s, "SET port '$port'" ],
	[ 'no such database', "SET dbname 'nowhere'", qr/08001.*does not exist/s, "SET dbname 'postgres'" ],
	[ 'a bad value', "ADD sslmode 'nonsense'", qr/08001.*invalid sslmode/s, 'DROP sslmode' ],
	[ 'no certificate at all', "ADD sslmode 'require'", qr/08001.*SSL/s, 'DROP sslmode' ],
	[ 'a service that is not there', "ADD service 'nowhere'", qr/08001.*service/s, 'DROP service' ],
	[ 'no such host', "SET host 'no-such-host.invalid'", qr/08001.*could not translate host name/s, "SET host '127.0.0.1'" ])
{
	my ($when, $break, $reason, $mend) = @$case;

	server_options($break);
	fails_with($when, $reason);
	server_options($mend);
	works("after $when");
}

# mistakes of whoever writes the mapping
foreach my $options ("pasword '$secret'", "user 'sync', pass '$secret'", "password '$secret', host 'x'")
{
	my (undef, undef, $stderr) = $local->psql('postgres', "$quietly\nCREATE USER MAPPING FOR PUBLIC SERVER office OPTIONS ($options)");

	like($stderr, qr/option "\w+" is not valid for a user mapping/, 'a mistake in an option');
	unlike($stderr, qr/$secret/, 'is refused without its value');
}

# errors of the remote, with statements and values
$local->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('refused', 5000)});
wait_for($local, q{SELECT count(*) = 1 FROM synchro.failures WHERE sqlstate = '23514'}, 'a row is refused');
look('a row refused');
$remote->safe_psql('postgres', 'REVOKE INSERT ON t FROM sync');
$local->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('no right', 1)});
wait_for($local, q{SELECT count(*) = 1 FROM synchro.failures WHERE sqlstate = '42501'}, 'a right is missing');
look('a right missing');
$remote->safe_psql('postgres', 'GRANT INSERT ON t TO sync');

# a table that stalls
$remote->safe_psql('postgres', 'ALTER TABLE t RENAME n TO m');
$local->safe_psql('postgres', q{UPDATE t SET n = 2 WHERE name = 'no right'});
wait_for($local, q{SELECT count(*) = 1 FROM synchro.failures WHERE sqlstate = '42703' AND key IS NULL}, 'a table stalls');
asked('a table stalls');
look('a table stalls');
$remote->safe_psql('postgres', 'ALTER TABLE t RENAME m TO n');
$local->safe_psql('postgres', q{UPDATE t SET n = 1 WHERE name = 'refused'; SELECT synchro.retry()});
works('after errors');

# gone in the middle of it; only the local side can be asked meanwhile
$remote->stop('immediate');
$local->safe_psql('postgres', q{UPDATE t SET n = 2 WHERE name = 'refused'});
my (undef, undef, $gone) = $local->psql('postgres', "\\set VERBOSITY verbose\nSELECT synchro.synchronize('office')");
like($gone, qr/ERROR:  (?:08|57P0)/, 'the remote is gone: fails');
unlike($gone, qr/$any/, 'without a password');
$remote->start;
look('the remote was gone');
works('after the remote was gone');

# the worker is killed, and the server says what it was doing
my $lock = $remote->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE t');
$local->safe_psql('postgres', q{UPDATE t SET n = 3 WHERE name = 'refused'});
wait_for($remote, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'}, 'killed: a batch is under way');
look('a batch is under way');
crash_worker($local, pusher_pid($local, 'office'));
look('the worker was killed');
$lock->query_safe('ROLLBACK');
$lock->quit;
works('after the worker was killed');
ok(slurp_file($local->logfile) =~ /background worker "synchro pusher[^"]*" \(PID \d+\) was terminated by signal 9/, 'which the log has');

# a line that is dead, first of an established connection, then of new ones
my $proxy = start_proxy($port);
server_options("SET port '$proxy->{port}'");
works('through a proxy');
$proxy->command('swallow');
fails_with('a dead line', qr/08006.*does not answer any more|08001.*has not answered/s);
server_options("SET port '$port'");
works('after a dead line');

# let in no more
$remote->safe_psql('postgres', q{ALTER ROLE sync CONNECTION LIMIT 0; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sync'});
$local->safe_psql('postgres', q{UPDATE t SET n = 4 WHERE name = 'refused'});
wait_for($local, q{SELECT last_error LIKE '%too many connections%' FROM synchro.remotes}, 'too many connections: it is not the connection that was ended');
fails_with('too many connections', qr/08001.*too many connections for role "sync"/s);
$remote->safe_psql('postgres', 'ALTER ROLE sync CONNECTION LIMIT -1');
works('after too many connections');

# held, as the remote is not as it was left, and neither side knows why
my $token = rows($remote, 'SELECT token FROM synchro_peer.position');
$remote->safe_psql('postgres', 'UPDATE synchro_peer.position SET token = gen_random_uuid()');
$local->safe_psql('postgres', q{UPDATE t SET n = 5 WHERE name = 'refused'});
wait_for($local, q{SELECT last_error LIKE '%is not in the state%' FROM synchro.remotes}, 'another token: it is held');
fails_with('another token', qr/55000.*is not in the state that this database left it in/s);
$remote->safe_psql('postgres', "UPDATE synchro_peer.position SET token = '$token'");
works('after another token');

# a node, which has not been told that we may push there
$remote->safe_psql('postgres', q{CREATE EXTENSION synchro});
$local->safe_psql('postgres', q{UPDATE t SET n = 6 WHERE name = 'refused'});
wait_for($local, q{SELECT last_error LIKE '%may not push there%' FROM synchro.remotes}, 'a node: it is met as one');
fails_with('a node', qr/42501.*remote "office" runs synchro, too, and its user may not push there/s);
$remote->safe_psql('postgres', 'DROP EXTENSION synchro');
works('after a node');

# a log that cannot be read
my @segments = map { "synchro.log_$_" } 0 .. 2;
$local->safe_psql('postgres', q{SELECT synchro.pause('office'); UPDATE t SET n = 7 WHERE name = 'refused'});
my $damaged = rows($local, 'SELECT max(txid) FROM (' . join(' UNION ALL ', map { "SELECT txid FROM $_" } @segments) . ') l');
$local->safe_psql('postgres', join '', map { "UPDATE $_ SET keys = '\\xff' || keys WHERE txid = $damaged;" } @segments);
$local->safe_psql('postgres', q{SELECT synchro.resume('office')});
foreach my $sql (q{SELECT synchro.synchronize('office')}, 'SELECT * FROM synchro.remotes', 'SELECT * FROM synchro.changes')
{
	my (undef, $rows, $says) = $local->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	like($says, qr/XX001.*damaged/, "a damaged log: $sql fails");
	unlike("$rows$says", qr/$any/, 'a damaged log: without a password');
}
asked('a damaged log');
$local->safe_psql('postgres', join '', map { "UPDATE $_ SET keys = substr(keys, 2) WHERE txid = $damaged;" } @segments);
works('after a damaged log');

#
# certificates, passfile, service
#
my $dir = PostgreSQL::Test::Utils::tempdir();
my $openssl = `openssl version 2>/dev/null`;

SKIP: {
	my $has_ssl = $remote->config_data('--configure') =~ /with-(?:open)?ssl/;

	skip 'no openssl, or a server without SSL', 1 if !$openssl || !$has_ssl;

	# our own authority, a certificate of the server's and one of the role's
	my @commands = (
		"openssl req -new -x509 -nodes -days 30 -subj /CN=authority -keyout ca.key -out ca.crt -addext basicConstraints=critical,CA:TRUE",
		"openssl req -new -nodes -subj /CN=localhost -keyout server.key -out server.csr",
		"openssl x509 -req -days 30 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt",
		"openssl req -new -nodes -subj /CN=sync -keyout client.key -out client.csr",
		"openssl x509 -req -days 30 -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client.crt",
		"openssl rsa -aes256 -in client.key -out locked.key -passout pass:$phrase",
		"openssl req -new -x509 -nodes -days 30 -subj /CN=another -keyout other.key -out other.crt");
	foreach my $command (@commands)
	{
		system("cd $dir && $command >>openssl.log 2>&1") == 0 or die slurp_file("$dir/openssl.log");
	}
	chmod 0600, glob "$dir/*.key";
	my $data = $remote->data_dir;

	system("cp $dir/ca.crt $dir/server.crt $dir/server.key $data/") == 0 or die 'could not copy certificates';
	chmod 0600, "$data/server.key";
	$remote->append_conf('postgresql.conf', "ssl = on\nssl_ca_file = 'ca.crt'");
	unlink "$data/pg_hba.conf";
	$remote->append_conf('pg_hba.conf', "local all all trust\nhostssl all all 127.0.0.1/32 cert");
	$remote->restart;
	fails_with('without a certificate', qr/08001.*certificate/s);
	server_options("SET host 'localhost', ADD hostaddr '127.0.0.1', ADD sslmode 'verify-full', ADD sslrootcert '$dir/ca.crt'");
	quietly($local, "ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (DROP password, ADD sslcert '$dir/client.crt', ADD sslkey '$dir/client.key')");
	works('with a certificate, and the server checked');
	is(rows($remote, q{SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'sync'}), 't', 'over SSL');
	server_options("SET sslrootcert '$dir/other.crt'");
	fails_with('of another authority', qr/08001.*certificate verify failed/s);
	server_options("SET sslrootcert '$dir/ca.crt'");
	works('of the right one');
	server_options("SET host 'elsewhere.invalid'");
	fails_with('of another server', qr/08001.*does not match host name "elsewhere\.invalid"/s);
	server_options("SET host 'localhost'");
	works('of the server that is meant');
	quietly($local, "ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (SET sslkey '$dir/locked.key', ADD sslpassword '$phrase')");
	works('with a key that has a passphrase');
	quietly($local, "ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (SET sslpassword '$wrong_phrase')");
	fails_with('with a wrong passphrase', qr/08001.*could not load private key file/s);

	# a password again
	unlink "$data/pg_hba.conf";
	$remote->append_conf('pg_hba.conf', "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256");
	$remote->reload;
	quietly($local, 'ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (DROP sslcert, DROP sslkey, DROP sslpassword)');
}

append_to_file("$dir/passfile", "*:*:*:sync:$secret\n");
append_to_file("$dir/wrongfile", "*:*:*:sync:$wrong\n");
chmod 0600, "$dir/passfile", "$dir/wrongfile";
$local->psql('postgres', 'ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (DROP password)');
server_options("ADD passfile '$dir/passfile'");
works('with a passfile');
server_options("SET passfile '$dir/wrongfile'");
fails_with('with a passfile that is wrong', qr/08001.*password authentication failed.*/s);
server_options('DROP passfile');
fails_with('with no password', qr/08001.*no password supplied/s);

append_to_file("$dir/service.conf", "[$_->[0]]\nport=$port\npassword=$_->[1]\ndbname=postgres\n") foreach [ 'branch', $secret ], [ 'wrong', $wrong ];
$local->stop;
{
	local $ENV{PGSERVICEFILE} = "$dir/service.conf";
	$local->start;
}
server_options("ADD service 'branch', DROP dbname, DROP port");
works('with a service');
server_options("SET service 'wrong'");
fails_with('with a service that has a wrong password', qr/08001.*password authentication failed/s);
server_options("SET service 'branch'");
works('with the right one');

#
# a role without superuser: a password of his own, and no files
#
$local->safe_psql('postgres', <<"SQL");
CREATE ROLE app LOGIN;
GRANT USAGE ON FOREIGN DATA WRAPPER synchro_fdw TO app;
GRANT EXECUTE ON FUNCTION synchro.add_remote, synchro.synchronize TO app;
GRANT SELECT ON t TO app;
SELECT synchro.remove_remote('office');
SET ROLE app;
CREATE SERVER branch FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR app SERVER branch OPTIONS (user 'sync');
SQL
foreach my $option ("passfile '$dir/passfile'", "service 'branch'", "sslrootcert '/x'", "sslcert '/x'", "sslkey '/x'", "sslcrl '/x'")
{
	my $sql = $option =~ /sslcert|sslkey/ ? "ALTER USER MAPPING FOR app SERVER branch OPTIONS (ADD $option)" : "ALTER SERVER branch OPTIONS (ADD $option)";
	my (undef, undef, $stderr) = $local->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE app; $sql");

	like($stderr, qr/42501.*option "\w+" is for superusers only/, "$option is for superusers");
}
$local->safe_psql('postgres', q{SET ROLE app; SELECT synchro.add_remote('branch')});
# before the server's environment could be used
my (undef, undef, $stderr) = $local->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE app; SELECT synchro.synchronize('branch')");
like($stderr, qr/2F003.*password is required for remote "branch"/, 'he needs a password of his own');
unlink $remote->data_dir . '/pg_hba.conf';
$remote->append_conf('pg_hba.conf', "local all all trust\nhost all all 127.0.0.1/32 trust");
$remote->reload;
quietly($local, "ALTER USER MAPPING FOR app SERVER branch OPTIONS (ADD password '$wrong')");
(undef, undef, $stderr) = $local->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE app; SELECT synchro.synchronize('branch')");
like($stderr, qr/2F003.*password is required for remote "branch".*did not ask/s, 'which the remote must have asked for');
unlike($stderr, qr/$wrong/, 'it is not said which');
look('a role without superuser');

# Who is a superuser no longer is one of them, also over a connection that was made before.
quietly($local, <<"SQL");
CREATE ROLE boss LOGIN SUPERUSER;
GRANT SELECT ON t TO boss;
SET ROLE boss;
CREATE SERVER trusted FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR boss SERVER trusted OPTIONS (user 'sync');
SELECT synchro.remove_remote('branch'), synchro.add_remote('trusted');
INSERT INTO t (name) VALUES ('by a superuser');
SQL
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'by a superuser'}, '1', 'a superuser needs no password of his own');
wait_for($remote, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'sync' AND state = 'idle'}, 'the connection stays');
$local->safe_psql('postgres', q{ALTER ROLE boss NOSUPERUSER; INSERT INTO t (name) VALUES ('by nobody')});
wait_for($local, q{SELECT last_error LIKE 'password is required for remote "trusted"%' FROM synchro.remotes WHERE remote = 'trusted'}, 'who is none any more does');
is(rows($remote, q{SELECT count(*) FROM t WHERE name = 'by nobody'}), '0', 'and nothing is pushed without');
look('no superuser any more');
$local->safe_psql('postgres', q{SELECT synchro.remove_remote('trusted')});

# What servers of other wrappers have, our validator has not seen: it is looked at when they are used.
$local->safe_psql('postgres', <<"SQL");
CREATE FOREIGN DATA WRAPPER postgres_fdw;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO app;
SET ROLE app;
CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'postgres');
SQL
quietly($local, "SET ROLE app; CREATE USER MAPPING FOR app SERVER other OPTIONS (user 'sync', password '$wrong')");
$local->safe_psql('postgres', q{SET ROLE app; SELECT synchro.add_remote('other')});
my $of_app = "\\set VERBOSITY verbose\nSET ROLE app; SELECT synchro.synchronize('other')";
foreach my $object ('server', 'user mapping for app server')
{
	foreach my $option ('service', 'passfile', 'sslkey', 'sslcert', 'sslrootcert')
	{
		my $value = { service => 'branch', passfile => "$dir/passfile" }->{$option} || "$dir/x";

		quietly($local, "SET ROLE app; ALTER $object other OPTIONS (ADD $option '$value')");
		(undef, undef, $stderr) = $local->psql('postgres', $of_app);
		like($stderr, qr/ERROR:  42501: option "$option" of remote "other" is for superusers only/, "of postgres_fdw, too: $option of a $object");
		unlike($stderr, qr/$any/, 'and no password is told');
		quietly($local, "SET ROLE app; ALTER $object other OPTIONS (DROP $option)");
	}
}
(undef, undef, $stderr) = $local->psql('postgres', $of_app);
like($stderr, qr/ERROR:  2F003: password is required for remote "other".*did not ask/s, 'without them he gets as far as with ours');
look('a server of postgres_fdw');

#
# what was found
#
my @told = map { my $when = $_; map { "$when: $_" } grep { $found{$when}{$_} } sort keys %{ $found{$when} } } sort keys %found;
is(join("\n", @told), '', 'no view, table or running statement has had a password');
cmp_ok(scalar keys %found, '>', 15, 'that was looked at often: ' . scalar keys %found);
cmp_ok((map { scalar keys %{ $found{$_} } } 'at first')[0], '>', 20, 'and at all there is');
cmp_ok(scalar(grep { /^synchro_peer\./ } keys %{ $found{'at first'} }), '>', 3, 'on the remote, too');
$local->stop('fast');
$remote->stop('fast');
foreach my $node ($local, $remote)
{
	my $log = slurp_file($node->logfile);
	my @lines = grep { /$any/ } split /\n/, $log;

	cmp_ok(length $log, '>', 100000, 'the log of ' . $node->name . ' has everything');
	is(join("\n", @lines[ 0 .. ($#lines > 4 ? 4 : $#lines) ]), '', 'but no password');
}
done_testing();
