
=pod

=head1 NAME

Nodes - servers that push to each other

=head1 SYNOPSIS

  use Nodes;

  my ($a, $b) = nodes('a', 'b');
  $_->safe_psql('postgres', $schema) foreach $a, $b;
  join_nodes($a, $b);
  watch([$a, $b], t => '{name}');

=cut

package Nodes;

use strict;
use warnings;

use Exporter 'import';
use SynchroTest;
use Test::More;

our @EXPORT = qw(
  join_nodes
  link_nodes
  nodes
  settle
  watch
);
our @EXPORT_OK = qw(on push_against);

=head1 FUNCTIONS

=head2 nodes($options, @names)

Servers with the extension; $options is a reference to options of synchro_node().

=cut

sub nodes
{
	my ($options, @names) = @_;
	my @nodes = map { synchro_node($_, %$options) } @names;

	$_->safe_psql('postgres', 'CREATE EXTENSION synchro') foreach @nodes;
	return @nodes;
}

=head2 link_nodes($from, $to, %opts)

$from pushes to $to, which is called by its name there. The tables must be there.

  dbname => database on both sides, 'postgres'

=cut

sub link_nodes
{
	my ($from, $to, %opts) = @_;
	my $dbname = $opts{dbname} || 'postgres';

	$to->safe_psql($dbname, <<'SQL');
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sync') AS missing \gset
\if :missing
CREATE ROLE sync LOGIN PASSWORD 'secret';
\endif
SELECT synchro.allow_peer('sync');
SQL
	connect_remote($from, $to, name => $to->name, dbname => $dbname, peer => 'none');
	return;
}

=head2 join_nodes($one, $other)

Both push to each other.

=cut

sub join_nodes
{
	my ($one, $other) = @_;

	link_nodes($one, $other);
	link_nodes($other, $one);
	return;
}

=head2 watch(\@nodes, table => key, ...)

Watches tables by natural key on all nodes.

=cut

sub watch
{
	my ($nodes, @tables) = @_;

	while (my ($table, $key) = splice @tables, 0, 2)
	{
		my $arguments = defined $key ? "'$table', '$key'" : "'$table'";

		$_->safe_psql('postgres', "SELECT synchro.add_table($arguments)") foreach @$nodes;
	}
	return;
}

=head2 on($node, @statements)

Runs each of the statements in a transaction of its own: so a stamp tells which change it is. Only exported on request.

=cut

sub on
{
	my ($node, @statements) = @_;

	$node->safe_psql('postgres', $_) foreach @statements;
	return;
}

=head2 push_against($from, $to, $held, $change, $release)

Runs $change on $from and pushes it to $to, where a session has run $held, which has locked what the push needs;
$release is run there as soon as the pusher waits for it. Returns what the push has said on its standard error. Only
exported on request.

=cut

sub push_against
{
	my ($from, $to, $held, $change, $release) = @_;
	my $session = $to->background_psql('postgres');
	my $pushing;

	# what is prepared is no session's any more, so it can be released from any
	$session->query_safe($held);
	$from->safe_psql('postgres', $change);
	$pushing = $from->background_psql('postgres', on_error_stop => 0);
	$pushing->query_until(qr/begun/, "\\echo begun\nSELECT message FROM synchro.synchronize('" . $to->name . "');\n\\echo ended\n");
	my $waits = $to->poll_query_until('postgres', <<'SQL');
SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock' AND pg_blocking_pids(pid) <> '{}'
SQL
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($waits, 'the pusher waits for the row');
	$session->query_safe($release);
	$pushing->query('\echo all');
	my $errors = $pushing->{stderr};

	diag("the push ended with: $errors") if $errors ne '';
	$pushing->quit;
	$session->quit;
	return $errors;
}

=head2 settle(@nodes)

Synchronizes all nodes until none has anything to push any more; dies if they do not come to an end. Returns the number
of rounds.

=cut

sub settle
{
	my (@nodes) = @_;

	foreach my $round (1 .. 20)
	{
		my $busy = 0;

		foreach my $node (@nodes)
		{
			$busy += grep { $_->{message} !~ /^No changes/ } sync($node);
		}
		return $round unless $busy;
	}
	die 'the nodes do not come to rest';
}

1;
