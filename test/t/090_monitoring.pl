# WHY: whoever runs many servers looks at none of them but at what a collector has read. The numbers must be right, be
# there for a role that may read nothing else, and be those that the alerts and the dashboard ask for.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP ();
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1);
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int CHECK (n < 100))');
connect_remote($local, $remote);
$remote->safe_psql('postgres', 'ALTER TABLE t DROP CONSTRAINT t_n_check, ADD CHECK (n < 10)');
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t', '{name}');
CREATE ROLE monitor LOGIN PASSWORD 'watching';
GRANT USAGE ON SCHEMA synchro TO monitor;
GRANT SELECT ON synchro.metrics_remotes, synchro.metrics_node TO monitor;
INSERT INTO t (name, n) VALUES ('a', 1), ('b', 2), ('refused', 50);
SQL
wait_for($local, 'SELECT pending = 0 AND failed = 1 FROM synchro.remotes', 'all is pushed but what is refused');

#
# the views
#
my $as_monitor = sub { rows($local, "SET ROLE monitor; $_[0]") };

is($as_monitor->('SELECT remote, paused, worker, pending, lag_seconds, inserted_total, updated_total, failed FROM synchro.metrics_remotes'),
	'office|0|1|0|0|2|0|1', 'a role that may do nothing else reads how a remote is');
is($as_monitor->('SELECT held, log_bytes > 0, tables, tables_not_captured, conflicts_total FROM synchro.metrics_node'),
	'0|t|1|0|0', 'and how this node is');
foreach my $how ('ALTER TABLE t DISABLE TRIGGER synchro_capture', 'ALTER TABLE t ENABLE TRIGGER synchro_capture', 'DROP TRIGGER synchro_truncate ON t')
{
	$local->safe_psql('postgres', "SET client_min_messages = error; $how");
	is($as_monitor->('SELECT tables_not_captured FROM synchro.metrics_node'), '1', "$how: counts");
	$local->safe_psql('postgres', q{SELECT synchro.alter_table('t')});
	is($as_monitor->('SELECT tables_not_captured FROM synchro.metrics_node'), '0', "$how, and renewed: does not");
}
wait_for($local, 'SELECT failed = 1 FROM synchro.remotes', 'a table that has stalled for a moment does no longer');
foreach my $query ('SELECT FROM synchro.failures', 'SELECT FROM synchro.changes', 'SELECT FROM t', 'SELECT FROM synchro.conflict_id_seq')
{
	my ($status, undef, $stderr) = $local->psql('postgres', "SET ROLE monitor; $query");

	like($stderr, qr/permission denied/, "the role may not: $query");
}

#
# the collector, from Debian's package: installed, or unpacked here
#
sub find_exporter
{
	my $folder = $local->basedir;

	foreach my $file ('/usr/bin/prometheus-postgres-exporter', map { "$_/postgres_exporter" } split /:/, $ENV{PATH})
	{
		return $file if -x $file;
	}
	system("cd '$folder' && timeout 60 apt-get -qq download prometheus-postgres-exporter >exporter.log 2>&1 && dpkg -x prometheus-postgres-exporter_*.deb exporter >>exporter.log 2>&1");
	return "$folder/exporter/usr/bin/prometheus-postgres-exporter";
}

sub metrics
{
	my ($port) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5) or return '';

	print $socket "GET /metrics HTTP/1.0\r\n\r\n";
	local $/;
	return <$socket> // '';
}

SKIP:
{
	my $exporter = find_exporter();

	skip 'prometheus-postgres-exporter is not to be had here', 1 unless -x $exporter;
	local $ENV{DATA_SOURCE_NAME} = 'host=127.0.0.1 port=' . $local->port . ' user=monitor password=watching dbname=postgres sslmode=disable';
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $said = '';

	# its own collectors, which are called otherwise in each version, have nothing to do with it
	my %collectors = map { $_ => 1 } `$exporter --help 2>&1` =~ /--(?:\[no-\])?collector\.(\w+)(?![\w.])/g;
	my $run = IPC::Run::start(
		[ $exporter, '--disable-default-metrics', '--disable-settings-metrics', (map { "--no-collector.$_" } sort keys %collectors),
			"--web.listen-address=127.0.0.1:$port", '--extend.query-path=src/monitoring/queries.yml' ],
		'>', \$said, '2>', \$said);
	my $metrics = '';
	my $tries = 10 * $PostgreSQL::Test::Utils::timeout_default;

	# reading them is what makes it look: it answers before it has reached the server
	while ($metrics !~ /^synchro_node_held/m && $tries-- > 0)
	{
		$run->pump_nb;
		$metrics = metrics($port);
		select undef, undef, undef, 0.1 if $metrics eq '';
	}
	my $value = sub { my ($name) = @_; return $metrics =~ /^\Q$name\E\{([^}]*)\} (\S+)$/m ? "$1 $2" : 'nothing' };
	my $labels = 'datname="postgres",remote="office",server="127.0.0.1:' . $local->port . '"';

	is($value->('synchro_remote_pending'), "$labels 0", 'the collector reads what is pending') or diag($said);
	is($value->('synchro_remote_inserted_total'), "$labels 2", 'what was pushed');
	is($value->('synchro_remote_failed'), "$labels 1", 'what was refused');
	like($value->('synchro_node_log_bytes'), qr/ [\d.e+]+$/, 'and how large the log is');
	unlike($metrics, qr/^pg_exporter_user_queries_load_error.* 1$/m, 'it understands the file of queries');

	# what the alerts and the dashboard ask for is there
	foreach my $file ('alerts.yml', 'grafana.json')
	{
		my $text = PostgreSQL::Test::Utils::slurp_file("src/monitoring/$file");
		my %names = map { $_ => 1 } $text =~ /\b(synchro_(?:remote|node)_\w+)/g;
		my @unknown = grep { $metrics !~ /^$_\{/m } sort keys %names;

		cmp_ok(scalar keys %names, '>', 5, "$file asks for metrics");
		is("@unknown", '', 'all of which there are');
		JSON::PP::decode_json($text) if $file =~ /json$/;
	}
	$run->signal('TERM');
	$run->finish;
}

#
# an error that ends a pass and may be about a row, whose text is for those who may read all watched tables
#
$local->safe_psql('postgres', <<'SQL');
GRANT SELECT ON synchro.remotes, synchro.progress TO monitor;
CREATE TABLE switch (on_ boolean);
CREATE FUNCTION speak(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN IF EXISTS (SELECT FROM public.switch) THEN RAISE 'the key is b' USING DETAIL = 'Its number is 2.'; END IF; RETURN 1; END $$;
CREATE INDEX ON t ((speak(1) + n));
-- at once, since whoever changes the table meets the error, too
BEGIN;
SELECT synchro.copy_table('office', 't');
INSERT INTO switch VALUES (true);
COMMIT;
SQL
my ($open, $censored) = ('the key is b: Its number is 2.', 'error P0001, whose text is not shown to you: It may contain values of tables that you may not read.');
my @status = ('remotes', 'pusher_status()');

wait_for($local, 'SELECT last_error FROM synchro.remotes', 'who may read everything sees the text of such an error', expected => $open);
is($as_monitor->("SELECT last_error FROM synchro.$_"), $censored, "who may not, sees its SQLSTATE: $_") foreach @status;
unlike($as_monitor->("SELECT s FROM synchro.$_ s"), qr/the key|number is/, "and nothing of its text in any column: $_") foreach @status, 'progress', 'metrics_remotes';
$local->safe_psql('postgres', 'GRANT SELECT ON t TO monitor');
is($as_monitor->("SELECT last_error FROM synchro.$_"), $open, "until he may read the table: $_") foreach @status;
$local->safe_psql('postgres', 'ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY a_few ON t TO monitor USING (n < 3)');
is($as_monitor->("SELECT last_error FROM synchro.$_"), $censored, "all of it: $_") foreach @status;
$local->safe_psql('postgres', q{TRUNCATE switch; ALTER SERVER office OPTIONS (SET port '1')});
wait_for($local, q{SET ROLE monitor; SELECT last_error LIKE 'could not connect to remote "office": %' FROM synchro.remotes},
	'an error that is about no row is shown to anybody');

$local->stop('fast');
$remote->stop('fast');
done_testing();
