#!/usr/bin/perl
#
# What the runs of the benchmark come to: reads lines "workload peer repetition metric value", prints medians with their
# range, each peer's ratio to no replication at all, and synchro's to the server's own logical replication, all of them
# within the same repetition; and writes the same as JSON and, synchro's ratios, as SVG.
use strict;
use warnings;

my ($server, $machine, $json_file, $svg_file) = @ARGV;
my (%value, @order, %seen);

while (<STDIN>)
{
	my ($workload, $peer, $repeat, $metric, $value) = split;
	push @order, [ $workload, $metric ] unless $seen{"$workload $metric"}++;
	$value{"$workload $metric"}{$peer}{$repeat} = $value;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return @sorted % 2 ? $sorted[ $#sorted / 2 ] : ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}

sub range
{
	my @sorted = sort { $a <=> $b } @_;
	return @sorted > 1 ? "$sorted[0]-$sorted[-1]" : '';
}

# ratio(VALUES, BASE): the median of the ratios in the same repetition, or undef
sub ratio
{
	my ($values, $base) = @_;
	my @both = grep { defined $base->{$_} && $base->{$_} > 0 } sort keys %{ $values || {} };
	return @both ? median(map { $values->{$_} / $base->{$_} } @both) : undef;
}

# more is better of rates, less of all others
sub is_rate
{
	return $_[0] =~ /_per_s$/;
}

my (@json, @ratios);

printf "\n%-9s %-40s %-8s %10s %-21s %7s %9s\n", qw(workload what peer median range), 'x none', 'x logical';
for (@order)
{
	my ($workload, $metric) = @$_;
	my $of = $value{"$workload $metric"};
	for my $peer (sort keys %$of)
	{
		my @values = values %{ $of->{$peer} } or next;
		my $by_none = $peer ne 'none' ? ratio($of->{$peer}, $of->{none}) : undef;
		my $by_logical = $peer !~ /^(none|logical)$/ && $metric !~ /^commits/ ? ratio($of->{$peer}, $of->{logical}) : undef;
		printf "%-9s %-40s %-8s %10s %-21s %7s %9s\n", $workload, $metric, $peer, median(@values), range(@values),
			map { defined $_ ? sprintf('%.2f', $_) : '' } $by_none, $by_logical;
		push @json, sprintf '{"workload": "%s", "metric": "%s", "peer": "%s", "median": %s, "values": [%s]%s%s}', $workload,
			$metric, $peer, median(@values), join(', ', map { $of->{$peer}{$_} } sort keys %{ $of->{$peer} }),
			defined $by_none ? sprintf(', "by_none": %.3f', $by_none) : '',
			defined $by_logical ? sprintf(', "by_logical": %.3f', $by_logical) : '';
		next unless $peer eq 'synchro' && defined $by_logical && $by_logical > 0;
		push @ratios, [ "$workload: $metric", is_rate($metric) ? 1 / $by_logical : $by_logical ];
	}
}

open my $json, '>', $json_file or die "$json_file: $!";
printf $json qq({"server": "%s", "machine": "%s", "results": [\n  %s\n]}\n), $server, $machine, join(",\n  ", @json);
close $json;

# bars from 1 to the left and to the right, on a scale of powers of ten
open my $svg, '>', $svg_file or die "$svg_file: $!";
my $height = 22 * @ratios + 40;
print $svg qq(<svg xmlns="http://www.w3.org/2000/svg" width="860" height="$height" font-family="sans-serif" font-size="12">\n);
print $svg qq(<text x="10" y="18">synchro by built-in logical replication, time or size; rates as time. Left of the line synchro takes less (each 100 points: ten times)</text>\n);
my $y = 30;
for (@ratios)
{
	my ($name, $ratio) = @$_;
	my $length = 100 * log($ratio > 0.001 ? $ratio : 0.001) / log(10);
	$length = 180 if $length > 180;
	$length = -180 if $length < -180;
	my $x = $length < 0 ? 530 + $length : 530;
	printf $svg qq(<text x="10" y="%d">%s</text><rect x="%.1f" y="%d" width="%.1f" height="14" fill="#4878a8"/><text x="715" y="%d">%.2f</text>\n),
		$y + 12, $name, $x, $y, abs($length), $y + 12, $ratio;
	$y += 22;
}
printf $svg qq(<line x1="530" y1="26" x2="530" y2="%d" stroke="black"/></svg>\n), $height - 8;
close $svg;
