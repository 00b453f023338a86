
=pod

=head1 NAME

SynchroTest - local and remote servers for the tests of synchro

=head1 SYNOPSIS

  use lib 'test/t';
  use SynchroTest;
  use Test::More;

  my $local = synchro_node('local');
  my $remote = synchro_node('remote');

  both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE)');
  connect_remote($local, $remote);
  $local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name) VALUES ('a')});

  my $result = sync($local, 'office');
  is($result->{inserted}, 1, 'one row arrived');
  same($local, $remote, 'SELECT name FROM t ORDER BY name', 'both have it');

  done_testing();

A node is a PostgreSQL::Test::Cluster (SynchroNode.pm), so everything that this class can do is there as well. Works with the test
modules of PostgreSQL 15 to 19.

=cut

package SynchroTest;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use JSON::PP ();
use PostgreSQL::Test::Utils;
use SynchroNode;
use Test::More;

our @EXPORT = qw(
  synchro_node
  connect_remote
  grant_dml
  sync
  sync_fails
  sync_parks
  same
  both
  note_deletes
  rows
  update_often
  everything
  comes_back
  wait_for
  started_from
);

=head1 FUNCTIONS

=head2 synchro_node($name, %opts)

A running server. It listens on its unix socket, where nobody is asked for a password, and on 127.0.0.1, where everybody
is: host, port and password as a remote's.

  conf     => text appended to postgresql.conf
  preload  => 1: shared_preload_libraries = 'synchro'
  initdb   => [ arguments of initdb ], such as encoding and locale
  streaming => 1: may have standbys (allows_streaming of PostgreSQL::Test::Cluster)
  start    => 0: leave it stopped

=cut

sub synchro_node
{
	my ($name, %opts) = @_;
	my $node = SynchroNode->new($name);

	$node->init(
		extra => $opts{initdb} || [],
		allows_streaming => $opts{streaming} || 0);
	$node->append_conf('postgresql.conf', <<"CONF");
listen_addresses = '127.0.0.1'
max_connections = 60
max_prepared_transactions = 10
max_worker_processes = 16
log_lock_waits = on
CONF
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'synchro'")
	  if $opts{preload};
	$node->append_conf('postgresql.conf', $opts{conf}) if $opts{conf};

	unlink $node->data_dir . '/pg_hba.conf'
	  or croak "could not remove pg_hba.conf: $!";
	$node->append_conf('pg_hba.conf', <<'HBA');
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
HBA

	$node->start if !exists $opts{start} || $opts{start};
	return $node;
}

=head2 connect_remote($local, $remote, %opts)

Makes C<$remote> a remote of C<$local>. On the remote: an unprivileged role that may log in with a password, connect,
make temporary tables, and read and write the tables of the schemas (grant_dml, present and later tables). On the local:
the extension, a foreign server, a user mapping, add_remote. Returns the remote's name. All but C<fdw> may be repeated with
other names for more remotes.

  name      => name of the foreign server, 'office'
  user      => role on the remote, 'sync'
  password  => its password, 'secret'
  schemas   => [ 'public' ]: where it may read and write
  dbname    => database on both sides, 'postgres'
  local_db, remote_db => where they differ
  fdw       => 'synchro_fdw'
  options   => { more options of the foreign server }
  peer      => 'setup': an administrator runs the SQL of synchro.peer_setup() on the remote (default)
               'create': the role may create schemas, so that the first contact makes what is needed
               'none': neither
  add       => 0: leave out add_remote

The role is to get by with that: whenever C<$remote> is stopped in peace, and at the end of the test, it must be no more than an
ordinary one. It may have no attribute but LOGIN, be a member of nothing, own nothing but what is temporary, create nothing in the
database, unless C<peer> is 'create', and have no privileges but SELECT, INSERT, UPDATE, DELETE on tables and USAGE on sequences.

=cut

sub connect_remote
{
	my ($local, $remote, %opts) = @_;
	my $name = $opts{name} || 'office';
	my $user = $opts{user} || 'sync';
	my $password = $opts{password} || 'secret';
	my $local_db = $opts{local_db} || $opts{dbname} || 'postgres';
	my $remote_db = $opts{remote_db} || $opts{dbname} || 'postgres';
	my $fdw = $opts{fdw} || 'synchro_fdw';
	my $peer = $opts{peer} || 'setup';
	my %server = (
		host => '127.0.0.1',
		port => $remote->port,
		dbname => $remote_db,
		%{ $opts{options} || {} });
	my $server_options = join ', ',
	  map { "$_ " . _literal($server{$_}) } sort keys %server;
	my ($role, $server) = (_identifier($user), _identifier($name));

	$remote->safe_psql($remote_db, sprintf(<<'SQL', _literal($user), $role, _literal($password)));
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %s) AS missing \gset
\if :missing
CREATE ROLE %s LOGIN PASSWORD %s NOSUPERUSER NOCREATEDB NOCREATEROLE;
\endif
SQL
	$remote->safe_psql($remote_db,
		    'GRANT CONNECT, TEMP'
		  . ($peer eq 'create' ? ', CREATE' : '')
		  . ' ON DATABASE '
		  . _identifier($remote_db)
		  . " TO $role");
	grant_dml(
		$remote,
		user => $user,
		dbname => $remote_db,
		schemas => $opts{schemas});

	$local->safe_psql($local_db, 'CREATE EXTENSION IF NOT EXISTS synchro');
	if ($peer eq 'setup')
	{
		$remote->safe_psql($remote_db,
			$local->safe_psql($local_db, 'SELECT synchro.peer_setup()'));
		_grant_peer($remote, $remote_db, $role);
	}
	$remote->watch_role($user, $remote_db, $peer eq 'create');
	$local->safe_psql(
		$local_db, sprintf(
			<<'SQL', $server, $fdw, $server_options, $server, _literal($user), _literal($password)));
CREATE SERVER %s FOREIGN DATA WRAPPER %s OPTIONS (%s);
CREATE USER MAPPING FOR CURRENT_USER SERVER %s OPTIONS (user %s, password %s);
SQL
	$local->safe_psql($local_db,
		'SELECT synchro.add_remote(' . _literal($name) . ')')
	  if !exists $opts{add} || $opts{add};
	return $name;
}

=head2 grant_dml($node, %opts)

SELECT, INSERT, UPDATE, DELETE on the tables and USAGE on the sequences of the schemas, those that the superuser
makes later included.

  user    => 'sync'
  dbname  => 'postgres'
  schemas => [ 'public' ]

=cut

sub grant_dml
{
	my ($node, %opts) = @_;
	my $role = _identifier($opts{user} || 'sync');

	foreach my $schema (map { _identifier($_) } @{ $opts{schemas} || ['public'] })
	{
		my $dml = 'SELECT, INSERT, UPDATE, DELETE';
		my $defaults = "ALTER DEFAULT PRIVILEGES IN SCHEMA $schema GRANT";

		$node->safe_psql($opts{dbname} || 'postgres', <<"SQL");
GRANT USAGE ON SCHEMA $schema TO $role;
GRANT $dml ON ALL TABLES IN SCHEMA $schema TO $role;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA $schema TO $role;
$defaults $dml ON TABLES TO $role;
$defaults USAGE ON SEQUENCES TO $role;
SQL
	}
	return;
}

# What an administrator grants on what peer_setup() made, which cannot know the role.
sub _grant_peer
{
	my ($remote, $dbname, $role) = @_;

	$remote->safe_psql($dbname, <<"SQL");
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'synchro_peer') AS made \\gset
\\if :made
GRANT USAGE ON SCHEMA synchro_peer TO $role;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA synchro_peer TO $role;
\\endif
SQL
	return;
}

=head2 sync($local, $remote_name, %opts)

Runs synchro.synchronize() for one remote, or for all without a name. Returns a hash reference with what it returned for
the remote (remote, inserted, updated, deleted, skipped, failed, message); in list context those of all remotes. Dies if it
fails.

With SYNCHRO_PREVIEW=1 in the environment it first has synchro.preview() say what will happen, and dies if that is not what
then happens.

  dbname => 'postgres'

=cut

sub sync
{
	my ($local, $name, %opts) = @_;
	my $announced = $ENV{SYNCHRO_PREVIEW} ? _announced($local, $name, %opts) : undef;
	my @results = map { JSON::PP::decode_json($_) }
	  split /\n/,
	  $local->safe_psql($opts{dbname} || 'postgres',
		'SELECT row_to_json(s) FROM ' . _synchronize($name) . ' AS s');

	foreach my $result ($announced ? @results : ())
	{
		my $said = join ' ', map { $announced->{"$result->{remote} $_"} || 0 } qw(insert update delete skip fail);
		my $done = join ' ', map { $result->{$_} } qw(inserted updated deleted skipped failed);

		croak "the preview said $said, and done was $done:\n$announced->{rows}" if $said ne $done;
	}
	return wantarray ? @results : $results[0];
}

# What a preview says: how many rows by remote and action, and all rows.
sub _announced
{
	my ($local, $name, %opts) = @_;
	my $rows = $local->safe_psql($opts{dbname} || 'postgres',
		q{SELECT concat_ws('|', remote, action, relation, key, detail) FROM } . _synchronize($name) =~ s/synchronize/preview/r);
	my %announced = (rows => $rows);

	foreach my $row (split /\n/, $rows)
	{
		my ($remote, $action) = split /\|/, $row;

		$announced{"$remote $action"}++;
	}
	return \%announced;
}

=head2 sync_fails($local, $remote_name, $pattern, $testname, %opts)

synchro.synchronize() is expected to end with an error whose text, with its SQLSTATE, matches the pattern.

=cut

sub sync_fails
{
	my ($local, $name, $pattern, $testname, %opts) = @_;
	my ($status, undef, $stderr) = $local->psql(
		$opts{dbname} || 'postgres',
		"\\set VERBOSITY verbose\nSELECT * FROM " . _synchronize($name));

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return subtest $testname => sub {
		isnt($status, 0, 'ends with an error');
		like($stderr, $pattern, 'and says why');
	};
}

=head2 sync_parks($local, $remote_name, $pattern, $testname, %opts)

synchro.synchronize() is expected to leave something out; what synchro.failures says of it, a line each with SQLSTATE,
message, detail and hint, matches the pattern.

=cut

sub sync_parks
{
	my ($local, $name, $pattern, $testname, %opts) = @_;
	my $result = sync($local, $name, %opts);
	my $says = $local->safe_psql($opts{dbname} || 'postgres',
		q{SELECT concat_ws(' ', sqlstate || ':', message, detail, 'HINT: ' || hint) FROM synchro.failures});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return subtest $testname => sub {
		cmp_ok($result->{failed}, '>', 0, 'something is left out');
		like($says, $pattern, 'and it is said why');
	};
}

=head2 same($local, $remote, $query, $testname, %opts)

A query returns the same rows on both sides, and it returns some: a comparison of nothing with nothing proves nothing.

  dbname => database on both sides, 'postgres'
  local_db, remote_db => where they differ
  empty  => 1: no rows are as good

=cut

sub same
{
	my ($local, $remote, $query, $testname, %opts) = @_;
	my $local_rows = $local->safe_psql($opts{local_db} || $opts{dbname} || 'postgres', $query);
	my $remote_rows = $remote->safe_psql($opts{remote_db} || $opts{dbname} || 'postgres', $query);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	if ($local_rows eq '' && !$opts{empty})
	{
		fail($testname);
		diag("no rows on the local, so there is nothing to compare: $query");
		return 0;
	}
	return 1 if $local_rows eq $remote_rows && pass($testname);
	fail($testname);
	_diag_difference($local_rows, $remote_rows);
	return 0;
}

# The rows of one side only, the first few: results can be long.
sub _diag_difference
{
	my ($local_rows, $remote_rows) = @_;
	my @local = split /\n/, $local_rows;
	my @remote = split /\n/, $remote_rows;
	my (%local, %remote);

	$local{$_}++ foreach @local;
	$remote{$_}++ foreach @remote;
	my @local_only = grep { !$remote{$_} } @local;
	my @remote_only = grep { !$local{$_} } @remote;

	diag(sprintf 'the local has %d rows, the remote %d', scalar @local, scalar @remote);
	diag("only on the local:  $_") foreach grep { defined } @local_only[ 0 .. 9 ];
	diag("only on the remote: $_") foreach grep { defined } @remote_only[ 0 .. 9 ];
	diag('the same rows in another order or number')
	  unless @local_only || @remote_only;
	return;
}

=head2 both($local, $remote, $sql, %opts)

Runs SQL on both sides.

  dbname => 'postgres'

=cut

sub both
{
	my ($local, $remote, $sql, %opts) = @_;

	$_->safe_psql($opts{dbname} || 'postgres', $sql) foreach $local, $remote;
	return;
}

=head2 note_deletes($table, @nodes)

From now on, table deleted has the names of rows that were deleted from that table.

=cut

sub note_deletes
{
	my ($table, @nodes) = @_;

	$_->safe_psql('postgres', <<"SQL") foreach @nodes;
CREATE TABLE deleted (name text);
CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \$\$
BEGIN
	INSERT INTO public.deleted VALUES (OLD.name);
	RETURN NULL;
END
\$\$;
CREATE TRIGGER note_it AFTER DELETE ON $table FOR EACH ROW EXECUTE FUNCTION note_it();
SQL
	return;
}

=head2 rows($node, $query, $dbname)

A query's rows as one string, columns separated by C<|>, rows by newlines: short for safe_psql where the value matters.

=cut

sub rows
{
	my ($node, $query, $dbname) = @_;

	return $node->safe_psql($dbname || 'postgres', $query);
}

=head2 update_often($node, $table, $times)

All rows of a table updated, C<n = n + 1>, in so many transactions.

=cut

sub update_often
{
	my ($node, $table, $times) = @_;

	$node->safe_psql('postgres', "DO \$\$ BEGIN FOR i IN 1 .. $times LOOP UPDATE $table SET n = n + 1; COMMIT; END LOOP; END \$\$");
	return;
}

=head2 everything($node, $dbname)

All that is in a database: rows of all tables, also ours and temporary ones, and where sequences are. For what must leave
no trace.

=cut

sub everything
{
	my ($node, $dbname) = @_;

	return rows($node, <<'SQL', $dbname);
SELECT format('%s %s', c.oid::regclass, query_to_xml(CASE c.relkind
	WHEN 'S' THEN format('SELECT last_value, is_called FROM %s', c.oid::regclass)
	ELSE format('SELECT x FROM %s x ORDER BY x::text', c.oid::regclass) END, true, true, ''))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1
SQL
}

=head2 comes_back($node)

Waits until a server that was crashed, or is being started, answers; dies if it does not.

=cut

sub comes_back
{
	my ($node) = @_;

	$node->poll_query_until('postgres', 'SELECT true') or croak $node->name . ' does not come back';
	return;
}

=head2 wait_for($node, $query, $testname, %opts)

Polls until the query returns C<t>, at most as long as PG_TEST_TIMEOUT_DEFAULT says.

  expected => something else than t
  dbname   => 'postgres'

=cut

sub wait_for
{
	my ($node, $query, $testname, %opts) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(
		$node->poll_query_until(
			$opts{dbname} || 'postgres', $query,
			exists $opts{expected} ? $opts{expected} : 't'),
		$testname);
}

=head2 started_from($node, $name, $how)

Takes a 'base backup' of a server, or, while it is stopped, makes a 'copied data directory'. Returns a function that starts a
server of that name from it, and returns that.

=cut

sub started_from
{
	my ($node, $name, $how) = @_;
	my $copy = SynchroNode->new($name);

	if ($how eq 'base backup')
	{
		$node->backup($name);
	}
	else
	{
		$node->stop;
		$node->backup_fs_cold($name);
		$node->start;
	}
	return sub {
		$copy->init_from_backup($node, $name);
		$copy->start;
		return $copy;
	};
}

sub _synchronize
{
	my ($name) = @_;

	return 'synchro.synchronize(' . (defined $name ? _literal($name) : '') . ')';
}

sub _literal
{
	my ($value) = @_;

	$value =~ s/'/''/g;
	return $value =~ s/\\/\\\\/g ? " E'$value'" : "'$value'";
}

sub _identifier
{
	my ($value) = @_;

	$value =~ s/"/""/g;
	return qq("$value");
}

1;
