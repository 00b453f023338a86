
=pod

=head1 NAME

SynchroNode - a server of the tests, whose psql stays

=head1 DESCRIPTION

A PostgreSQL::Test::Cluster. Its psql(), safe_psql() and poll_query_until() do what that one's do, but with a psql that stays
from one call to the next: to start the program costs more than most of what the tests ask. Each call has a session of its own all
the same. It ends as soon as the call returns, by the server's timeouts: psql must not notice, since one that reads a script
ends if it has no connection, and is told to connect anew by the next call. A script that fails ends it, as ever.

What has a backslash in it, which may be a command that changes the psql itself, and what asks for more than the usual, has
a psql of its own.

Its stop(), and the end of a test that leaves it running, see to it that roles which tests push as have stayed what they were
made as (watch_role()).

=cut

package SynchroNode;

use strict;
use warnings;

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();    # its functions would hide methods
use Test::More ();
use Time::HiRes qw(usleep);

use parent -norequire, 'PostgreSQL::Test::Cluster';

use constant {
	FIRST_PAUSE => 10_000,    # between two looks, in microseconds: doubled up to
	LAST_PAUSE => 100_000,
	PIPE_CAPACITY => 4096,    # what POSIX has all pipes take at once
	END_OF_SESSION => q{SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', '1', false) AS a, pg_catalog.set_config('idle_session_timeout', '1', false) AS b \gset _},
};

my %USUAL = map { $_ => 1 } qw(stdout stderr on_error_die on_error_stop);

# one for each process and environment, see _environment()
my %psqls;
my $calls = 0;

# those that have roles to be watched, in the process that made them
my %watching;
my $main = $$;

sub psql
{
	my ($self, $dbname, $sql, %params) = @_;
	my $caught = wantarray || (ref $params{stdout} && ref $params{stderr});
	my $usual = !grep { !$USUAL{$_} } keys %params;

	return $self->SUPER::psql($dbname, $sql, %params)
	  if !$caught || !$usual || !($params{on_error_stop} // 1) || !defined $sql || $sql =~ /\\/;

	my ($status, $stdout, $stderr) = $self->_ask($self->connstr($dbname), $sql);

	# nobody there: it is for the other to say that
	return $self->SUPER::psql($dbname, $sql, %params) if !defined $status;

	${ $params{stdout} } = $stdout if ref $params{stdout};
	${ $params{stderr} } = $stderr if ref $params{stderr};
	die "psql returns $status: '$stderr'\nwhile running psql with sql '$sql'"
	  if $status && $params{on_error_die};
	return wantarray ? ($status, $stdout, $stderr) : $status;
}

sub poll_query_until
{
	my ($self, $dbname, $query, $expected) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my $pause = FIRST_PAUSE;
	my ($stdout, $stderr);

	$expected //= 't';
	$query //= '';
	do
	{
		(undef, $stdout, $stderr) = $self->_answer($dbname, $query);
		return 1 if defined $stdout && $stdout eq $expected && $stderr eq '';
		usleep($pause);
		$pause = $pause * 2 < LAST_PAUSE ? $pause * 2 : LAST_PAUSE;
	} while (time < $end);

	Test::More::diag "gave up waiting for the answer to\n$query\nto be\n$expected\nthe last one was\n", $stdout // '', "\nwith\n", $stderr // '';
	return 0;
}

# `pg_ctl restart` starts the program that the server before was, not what has that run under valgrind.
sub restart
{
	my ($self, @options) = @_;

	return $self->SUPER::restart(@options) if !$ENV{VALGRIND};
	$self->stop;
	return $self->start(@options);
}

# From now on, stop() dies, or the test fails at its end, if that role can do more in that database than an ordinary one, or
# than what any client of an application has to tables, sequences and so on.
sub watch_role
{
	my ($self, $role, $dbname, $may_create) = @_;

	$self->{watched_roles}{$dbname}{$role} ||= $may_create;
	$watching{ $self->name } = $self;
	return;
}

# What is made of a server has its roles.
sub init_from_backup
{
	my ($self, $root, @arguments) = @_;

	foreach my $dbname (keys %{ $root->{watched_roles} || {} })
	{
		$self->watch_role($_, $dbname, $root->{watched_roles}{$dbname}{$_}) foreach keys %{ $root->{watched_roles}{$dbname} };
	}
	return $self->SUPER::init_from_backup($root, @arguments);
}

sub stop
{
	my ($self, $mode, @options) = @_;
	my @excess = $self->{_pid} && ($mode || 'fast') ne 'immediate' ? $self->excess : ();
	my $result = $self->SUPER::stop($mode, @options);

	die $self->_complaint(@excess) if @excess;
	return $result;
}

sub _complaint
{
	my ($self, @excess) = @_;

	return join "\n", 'the role that pushes to ' . $self->name . ' must get by with less:', @excess, '';
}

# What watched roles have that they should not. A database that is gone, or lets nobody in, is nobody's.
sub excess
{
	my ($self) = @_;
	my @excess;

	foreach my $dbname (sort keys %{ $self->{watched_roles} || {} })
	{
		foreach my $role (sort keys %{ $self->{watched_roles}{$dbname} })
		{
			my $may_create = $self->{watched_roles}{$dbname}{$role} ? 'true' : 'false';
			my ($status, $has) = $self->_answer($dbname, sprintf <<'SQL', $role =~ s/'/''/gr, $may_create);
WITH r AS (SELECT * FROM pg_roles WHERE rolname = '%s'), given (may_create) AS (VALUES (%s)),
	s AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'),
	acl (privilege, grantee, usual, what) AS (
		SELECT a.privilege_type, a.grantee, CASE c.relkind WHEN 'S' THEN '{USAGE}'::text[] ELSE '{SELECT,INSERT,UPDATE,DELETE}' END,
			CASE c.relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END || c.oid::regclass
			FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee <> c.relowner
		UNION ALL SELECT a.privilege_type, a.grantee, '{SELECT,INSERT,UPDATE,DELETE}', format('column %%s.%%I', c.oid::regclass, t.attname)
			FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a WHERE a.grantee <> c.relowner
		-- what a node grants its peers is seen to elsewhere
		UNION ALL SELECT a.privilege_type, a.grantee, '{}', 'function ' || p.oid::regprocedure
			FROM pg_proc p, aclexplode(p.proacl) a WHERE a.grantee NOT IN (0, p.proowner) AND p.pronamespace NOT IN (SELECT oid FROM s WHERE nspname = 'synchro')
		UNION ALL SELECT a.privilege_type, a.grantee, '{}', 'parameter ' || p.parname FROM pg_parameter_acl p, aclexplode(p.paracl) a WHERE p.parname !~ '^synchro[.]'),
	o AS (SELECT i.* FROM r, pg_shdepend d, pg_identify_object(d.classid, d.objid, d.objsubid) i
		WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o'
		AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
SELECT format('%%s: %%s', rolname, what) FROM r, LATERAL (
	SELECT 'is a superuser' AS what WHERE rolsuper
	UNION ALL SELECT 'has CREATEROLE' WHERE rolcreaterole
	UNION ALL SELECT 'has CREATEDB' WHERE rolcreatedb
	UNION ALL SELECT 'has REPLICATION' WHERE rolreplication
	UNION ALL SELECT 'has BYPASSRLS' WHERE rolbypassrls
	UNION ALL SELECT 'is a member of ' || m.roleid::regrole FROM pg_auth_members m WHERE m.member = r.oid
	UNION ALL SELECT 'owns ' || o.identity FROM o, given WHERE coalesce(o.schema, '') !~ '^pg_temp' AND o.identity !~ '^pg_temp' AND NOT (may_create AND o.identity ~ '^synchro_peer')
	UNION ALL SELECT 'may create in database ' || current_database() FROM given WHERE NOT may_create AND has_database_privilege(r.oid, current_database(), 'CREATE')
	UNION ALL SELECT 'may create in schema ' || nspname FROM s, given WHERE has_schema_privilege(r.oid, s.oid, 'CREATE') AND NOT (may_create AND nspname = 'synchro_peer')
	UNION ALL SELECT format('has %%s on %%s', string_agg(privilege, ', ' ORDER BY privilege), acl.what) FROM acl
		WHERE grantee IN (0, r.oid) AND privilege <> ALL (usual) GROUP BY acl.what) w
SQL

			push @excess, split /\n/, $has if defined $status && $status == 0 && defined $has;
		}
	}
	return @excess;
}

# What psql() returns; nothing if a psql was gone before it had read what it was to ask, since it has found no server.
sub _answer
{
	my ($self, @arguments) = @_;
	my @answer = eval { $self->psql(@arguments) };

	die $@ if $@ ne '' && $@ !~ /Broken pipe/;
	return @answer;
}

# What a psql goes by besides the connection string.
sub _environment
{
	return join "\n", $$, map { "$_=$ENV{$_}" } sort grep { /^PG/ && !/^PG(?:HOST|PORT)$/ } keys %ENV;
}

# Have a psql run a script in a session of its own. Returns exit status (0 if it has not exited), output and messages; nothing
# if there was no connection.
sub _ask
{
	my ($self, $connstr, $sql) = @_;
	my $environment = _environment();
	my $psql = $psqls{$environment};
	my $mark = 'end of call ' . ++$calls . " of $$";
	my $first = !$psql;

	local %ENV = $self->_get_env();
	$psql = $psqls{$environment} = _start($self->installed_command('psql'), $connstr) if $first;

	my $lines = $psql->{lines};
	my $input = $first ? '' : '\connect -reuse-previous=off ' . _quoted($connstr) . "\n";
	my $before = $input =~ tr/\n//;

	$input .= $sql . ($sql =~ /;\s*$/ ? "\n" : "\n;\n") . END_OF_SESSION . "\n\\echo $mark\n\\warn $mark\n";
	$psql->{lines} += $input =~ tr/\n//;
	${ $psql->{$_} } = '' foreach qw(out err);
	${ $psql->{in} } = $input;

	my $done = eval {
		while (!(${ $psql->{out} } =~ /^\Q$mark\E\n\z/m && ${ $psql->{err} } =~ /^\Q$mark\E\n\z/m))
		{
			$psql->{harness}->pumpable or last;
			$psql->{harness}->pump;
		}
		1;
	};
	my $failure = $@;
	my ($stdout, $stderr) = (${ $psql->{out} }, ${ $psql->{err} });

	if ($stderr =~ s/^\Q$mark\E\n\z//m && $stdout =~ s/^\Q$mark\E\n\z//m)
	{
		# where the machine is busy, the session's end may come in time to be seen
		$stderr =~ s/^psql:<stdin>:\d+: FATAL:  terminating connection due to idle-(?:session|in-transaction) timeout\n?\z//m;
		chomp($stdout, $stderr);
		return (0, $stdout, _renumbered($stderr, $lines + $before));
	}

	# it has ended
	delete $psqls{$environment};
	eval { $psql->{harness}->finish };
	if (!$done && $failure =~ /Broken pipe/)
	{
		die $failure if length $input > PIPE_CAPACITY;

		# before it had read any of this: the first time since nobody was there
		return $first ? () : $self->_ask($connstr, $sql);
	}
	my $status = $psql->{harness}->full_result(0);
	($stdout, $stderr) = (${ $psql->{out} }, ${ $psql->{err} });
	die 'psql exited with signal ' . ($status & 127) . ": '$stderr'" if $status & 127;
	return if $stderr =~ /\A(?:psql:<stdin>:\d+: error: \\connect: |psql: error: )/;
	chomp($stdout, $stderr);
	return ($status >> 8, $stdout, _renumbered($stderr, $lines + $before));
}

sub _start
{
	my ($program, $connstr) = @_;
	my ($in, $out, $err) = ('', '', '');
	my $harness = IPC::Run::start([ $program, '-XAtq', '-d', $connstr, '-f', '-', '-v', 'ON_ERROR_STOP=1' ], '<', \$in, '>', \$out, '2>', \$err);

	return { harness => $harness, in => \$in, out => \$out, err => \$err, lines => 0 };
}

# Messages as if the call's script had begun the psql's input.
sub _renumbered
{
	my ($stderr, $lines) = @_;

	$stderr =~ s/^psql:<stdin>:(\d+): /'psql:<stdin>:' . ($1 - $lines) . ': '/gem;
	return $stderr;
}

# A word in single quotes, as psql's commands take it.
sub _quoted
{
	my ($word) = @_;

	$word =~ s/([\\'])/\\$1/g;
	return "'$word'";
}

END
{
	my $status = $?;

	# what has failed has its own complaints
	foreach my $node ($status == 0 && $$ == $main ? map { $watching{$_} } sort keys %watching : ())
	{
		my @excess = $node->{_pid} ? $node->excess : ();

		next if !@excess;
		Test::More::diag $node->_complaint(@excess);
		$status = 1;
	}
	foreach my $psql (map { $psqls{$_} } grep { /\A$$(?:\n|\z)/ } keys %psqls)
	{
		${ $psql->{in} } = "\\q\n";
		eval { $psql->{harness}->finish };
	}
	$? = $status;
}

1;
