
=pod

=head1 NAME

OnceOnly - two databases where a change that is applied twice is noticed

=head1 SYNOPSIS

  use OnceOnly;

  my ($local, $remote, $proxy) = once_pair();
  change('first', 1);
  settled('first');

=cut

package OnceOnly;

use strict;
use warnings;

use AlwaysOn;
use Exporter 'import';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

our @EXPORT = qw(
  change
  fence_refuses
  once_pair
  settled
);

my ($local, $remote);

=head1 FUNCTIONS

=head2 once_pair()

A server that pushes, one that it pushes to, and the proxy in between. Table t has a natural key; rows of plain have neither that
nor a unique value, so one that is applied twice is there twice. Table audit on the remote has what its triggers have seen.

=cut

sub once_pair
{
	$local = synchro_node('local', preload => 1, streaming => 1, conf => <<'CONF');
restart_after_crash = on
synchro.connect_timeout = 2s
CONF
	$remote = synchro_node('remote', conf => "log_line_prefix = '[%p] '\n");
	both($local, $remote, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int);
CREATE TABLE plain (id serial PRIMARY KEY, label text, n int);
SQL
	$remote->safe_psql('postgres', <<'SQL');
SELECT setval('plain_id_seq', 1000);
CREATE TABLE audit (relation text, name text, n int, operation text);
CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
	r jsonb := to_jsonb(coalesce(NEW, OLD));
BEGIN
	INSERT INTO public.audit VALUES (TG_TABLE_NAME, r ->> TG_ARGV[0], (r ->> 'n')::int, TG_OP);
	RETURN NULL;
END
$$;
CREATE TRIGGER note_it AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note_it('name');
CREATE TRIGGER note_it AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW EXECUTE FUNCTION note_it('label');
SQL
	my $proxy = start_proxy($remote->port);

	connect_remote($local, $remote, options => { port => $proxy->{port} });
	$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}'), synchro.add_table('plain')});
	return ($local, $remote, $proxy);
}

=head2 change($name, $n, $one_table)

Inserts or updates the row of t with that name, and inserts one into plain, unless $one_table is true.

=cut

sub change
{
	my ($name, $n, $one_table) = @_;

	$local->safe_psql('postgres', "BEGIN; INSERT INTO t (name, n) VALUES ('$name', $n) ON CONFLICT (name) DO UPDATE SET n = EXCLUDED.n;"
		  . ($one_table ? '' : "INSERT INTO plain (label, n) VALUES ('$name $n', $n);") . 'COMMIT');
	return;
}

=head2 settled($testname)

Waits until all has been pushed, and tests that both sides are the same and nothing was applied twice.

=cut

sub settled
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for($local, q{SELECT pending = 0 AND failed = 0 AND state = 'idle' FROM synchro.remotes}, "$testname: it settles")
	  or diag(rows($local, 'SELECT * FROM synchro.remotes'));
	same($local, $remote, 'SELECT name, n FROM t ORDER BY name', "$testname: t is the same");
	same($local, $remote, 'SELECT label, n FROM plain ORDER BY label', "$testname: and plain");
	is(rows($remote, 'SELECT relation, name, n, operation, count(*) FROM audit GROUP BY 1, 2, 3, 4 HAVING count(*) > 1'), '', "$testname: nothing twice");
	return;
}

=head2 fence_refuses($offset, $looks, $testname)

What comes late meets the fence: the remote's log says so, from that offset on, after that many looks at most.

=cut

sub fence_refuses
{
	my ($offset, $looks, $testname) = @_;
	my $tries = 0;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$remote->poll_query_until('postgres', 'SELECT true') until slurp_file($remote->logfile, $offset) =~ /division by zero/ || $tries++ > $looks;
	return like(slurp_file($remote->logfile, $offset), qr/ERROR:  division by zero/, $testname);
}

1;
