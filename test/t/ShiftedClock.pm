
=pod

=head1 NAME

ShiftedClock - servers whose clock is not ours

=head1 SYNOPSIS

  use ShiftedClock;

  my $ahead = shifted_node('ahead', 300, preload => 1);
  shift_clock($ahead, 301);

=cut

package ShiftedClock;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils qw(system_or_bail);
use SynchroTest;

our @EXPORT = qw(
  shift_clock
  shifted_node
  start_shifted
);

my $shifter;
my %clock_file;

=head1 FUNCTIONS

=head2 shift_clock($node, $seconds)

Sets by how many seconds the server's clock is ahead of ours; while it runs, too.

=cut

sub shift_clock
{
	my ($node, $seconds) = @_;
	my $file = $clock_file{ $node->name } ||= $node->basedir . '/clock';

	# in place, since the server has it mapped, and at once
	open my $handle, (-e $file ? '+<' : '>'), $file or die "$file: $!";
	syswrite $handle, pack('q', $seconds * 1_000_000) or die "$file: $!";
	close $handle;
	return;
}

=head2 shifted_node($name, $seconds, %opts)

A running server whose clock is ahead of ours; options as of synchro_node().

=cut

sub shifted_node
{
	my ($name, $seconds, %opts) = @_;
	my $node = synchro_node($name, %opts, start => 0);

	shift_clock($node, $seconds);
	start_shifted($node);
	return $node;
}

=head2 start_shifted($node)

Starts such a server again.

=cut

sub start_shifted
{
	my ($node) = @_;

	if (!$shifter)
	{
		$shifter = PostgreSQL::Test::Utils::tempdir() . '/shifted_clock.so';
		system_or_bail($ENV{CC} || 'gcc', '-shared', '-fPIC', '-O', '-o', $shifter, 'test/t/shifted_clock.c');
	}
	local $ENV{LD_PRELOAD} = $shifter;
	local $ENV{SHIFTED_CLOCK} = $clock_file{ $node->name };
	$node->start;
	return;
}

1;
