#!/usr/bin/perl
#
# What the runs of the benchmark come to: reads lines "workload peer repetition metric value", prints medians with their
# range and synchro's ratio to the server's own logical replication, and writes the same as JSON and, the ratios, as SVG.
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

my (@json, @ratios);

printf "\n%-10s %-38s %-10s %12s %-20s %s\n", qw(workload what peer median range), 'synchro / logical';
for (@order)
{
	my ($workload, $metric) = @$_;
	my $of = $value{"$workload $metric"};
	my @both = grep { defined $of->{logical}{$_} && $of->{logical}{$_} > 0 } sort keys %{ $of->{synchro} };
	my $ratio = @both && $metric !~ /^commits/ ? median(map { $of->{synchro}{$_} / $of->{logical}{$_} } @both) : undef;
	for my $peer (sort keys %$of)
	{
		my @values = values %{ $of->{$peer} } or next;
		printf "%-10s %-38s %-10s %12s %-20s %s\n", $workload, $metric, $peer, median(@values), range(@values),
			$peer eq 'synchro' && defined $ratio ? sprintf('%.2f', $ratio) : '';
		push @json, sprintf '{"workload": "%s", "metric": "%s", "peer": "%s", "median": %s, "values": [%s]%s}', $workload,
			$metric, $peer, median(@values), join(', ', map { $of->{$peer}{$_} } sort keys %{ $of->{$peer} }),
			$peer eq 'synchro' && defined $ratio ? sprintf(', "ratio": %.3f', $ratio) : '';
	}
	push @ratios, [ "$workload: $metric", $ratio ] if defined $ratio;
}

open my $json, '>', $json_file or die "$json_file: $!";
printf $json qq({"server": "%s", "machine": "%s", "results": [\n  %s\n]}\n), $server, $machine, join(",\n  ", @json);
close $json;

# bars from 1 to the left and to the right, on a scale of powers of ten
open my $svg, '>', $svg_file or die "$svg_file: $!";
my $height = 22 * @ratios + 40;
print $svg qq(<svg xmlns="http://www.w3.org/2000/svg" width="760" height="$height" font-family="sans-serif" font-size="12">\n);
print $svg qq(<text x="10" y="18">synchro / built-in logical replication, by metric (scale of powers of ten, line: 1)</text>\n);
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
