# WHY: whose clock is wrong must not decide who wins. Two servers whose clocks are ten minutes apart change the same rows;
# the change that was made later in truth is the one that stays, whichever of the clocks is ahead and whose time counts.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use ShiftedClock;
use SynchroTest;
use Test::More;
use Time::HiRes qw(usleep);

my ($first, $second) = map { "0000000$_-0000-4000-8000-000000000000" } 1, 2;

sub on
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Waits until what is changed next is later than what has been changed so far, for whoever knows the clocks as badly as the
# machine's load has it.
sub then
{
	my ($uncertainty) = sort { $b <=> $a } map { rows($_, 'SELECT coalesce(extract(epoch FROM clock_uncertainty), 0) FROM synchro.node') } @_;

	usleep(100_000 + 4_000_000 * $uncertainty);
	return;
}

foreach my $shift (600, -600)
{
	my $told = $shift > 0 ? 'ahead' : 'behind';
	my $reference = synchro_node("reference_$told");
	my $other = shifted_node($told, $shift);

	foreach my $node ($reference, $other)
	{
		on($node, 'CREATE EXTENSION synchro; CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int)');
		on($node, 'UPDATE synchro.node_identity SET id = ' . ($node == $reference ? "'$first'" : "'$second'"));
		on($node, q{SELECT synchro.add_table('t', '{name}')});
	}

	# what was there before they met has stamps by clocks that nobody compared
	on($other, q{INSERT INTO t (name, n) SELECT 'row ' || i, 0 FROM generate_series(1, 8) i});
	join_nodes($reference, $other);
	settle($reference, $other);
	same($reference, $other, 'SELECT name, n FROM t ORDER BY name', "$told: both have the rows");

	my ($offset) = rows($reference, q{SELECT extract(epoch FROM clock_offset) FROM synchro.remotes});
	cmp_ok(abs($offset - $shift), '<', 1, "clock_offset shows it: $offset s");
	foreach my $order ([ $reference, $other ], [ $other, $reference ])
	{
		my $name = $order->[0] == $reference ? 'the reference' : 'the other';

		on($reference, q{UPDATE t SET n = 1 WHERE name IN ('row 1', 'row 3'); DELETE FROM t WHERE name = 'row 5'});
		on($other, q{UPDATE t SET n = 2 WHERE name IN ('row 2', 'row 4'); DELETE FROM t WHERE name = 'row 6'});
		then($reference, $other);
		on($reference, q{UPDATE t SET n = 3 WHERE name IN ('row 2', 'row 6'); DELETE FROM t WHERE name = 'row 4'});
		on($other, q{UPDATE t SET n = 4 WHERE name IN ('row 1', 'row 5'); DELETE FROM t WHERE name = 'row 3'});
		settle(@$order);
		same($reference, $other, 'SELECT name, n FROM t ORDER BY name', "$told, $name pushes first: both are the same");
		is(rows($reference, q{SELECT string_agg(name || '=' || n, ' ' ORDER BY name) FROM t WHERE name IN ('row 1', 'row 2', 'row 3', 'row 4', 'row 5', 'row 6')}),
			'row 1=4 row 2=3 row 5=4 row 6=3', 'and have what was changed later in truth');
		on($reference, q{INSERT INTO t (name, n) SELECT 'row ' || i, 0 FROM generate_series(3, 4) i});
		settle(@$order);
	}
	is(rows($reference, q{SELECT count(*) > 0, bool_or(ambiguous) FROM synchro.conflicts}), 't|f', 'the conflicts are recorded, and none was a close thing');

	# a clock that is known badly: the same times cannot be told apart
	on($reference, 'UPDATE synchro.node_identity SET clock_uncertainty = 900000');
	my $ambiguous = 'f';

	# on a busy machine it takes longer to make the second change than the clocks are uncertain
	for (my $try = 1; $try <= 20 && $ambiguous eq 'f'; $try++)
	{
		on($reference, q{UPDATE t SET n = 10 WHERE name = 'row 7'});
		usleep(200_000);
		on($other, q{UPDATE t SET n = 20 WHERE name = 'row 7'});
		settle($reference, $other);
		$ambiguous = rows($other, q{SELECT bool_or(ambiguous) FROM synchro.conflicts});
	}
	is(rows($reference, q{SELECT n FROM t WHERE name = 'row 7'}), '20', 'still decided by the stamps');
	is($ambiguous, 't', 'but marked as ambiguous');
	on($reference, 'UPDATE synchro.node_identity SET clock_uncertainty = 2000000');
	on($reference, q{UPDATE t SET n = 11 WHERE name = 'row 8'});
	sync_fails($reference, $other->name, qr/55000.*uncertain|55000.*clock/s, 'above max_clock_uncertainty nothing is pushed');
	is(rows($other, q{SELECT n FROM t WHERE name = 'row 8'}), '0', 'indeed nothing');
	$_->stop('fast') foreach $reference, $other;
}
done_testing();
