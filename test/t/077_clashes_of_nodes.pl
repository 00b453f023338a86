# WHY: where both sides take writes, each can give a value that must be unique to another row. Neither row can go to the other
# side then, and neither is wrong: so each side keeps its own, says so, and deletes nothing. As soon as one of them is given
# another value both are equal again, by themselves.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use Nodes qw(:DEFAULT on);
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({ preload => 1, conf => "synchro.retry_max_interval = 1s\n" }, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE seat (id serial PRIMARY KEY, name text UNIQUE, code int UNIQUE, n int);
SQL
note_deletes('seat', $a, $b);
join_nodes($a, $b);
watch([ $a, $b ], seat => '{name}');

my $all = 'SELECT name, code, n FROM seat ORDER BY name';

# What the two say before they hear of each other.
sub apart
{
	my (@steps) = @_;

	$_->safe_psql('postgres', 'SELECT synchro.pause(remote) FROM synchro.remotes') foreach $a, $b;
	$_->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}) or die 'the pusher does not pause' foreach $a, $b;
	while (my ($node, $statement) = splice @steps, 0, 2)
	{
		on($node, $statement);
	}
	$_->safe_psql('postgres', 'SELECT synchro.resume(remote) FROM synchro.remotes') foreach $a, $b;
	return;
}

# So many rows wait on either side, and nothing else.
sub settled
{
	my ($failed, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $node ($a, $b)
	{
		wait_for($node, "SELECT pending = 0 AND failed = $failed FROM synchro.remotes", "$testname: " . $node->name)
		  || diag(rows($node, 'SELECT pending, failed, state, last_error FROM synchro.remotes') . "\n" . rows($node, 'SELECT relation, key, sqlstate, message FROM synchro.failures'));
	}
	return;
}

# One row of each side is refused by the other one; the rows of both are as expected.
sub both_refuse
{
	my ($testname, $on_a, $on_b) = @_;
	my %expected = (a => $on_a, b => $on_b);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	settled(1, "$testname: one row is parked");

	# what is parked is tried again every second: each keeps its own meanwhile
	foreach my $node ($a, $b)
	{
		my $name = $node->name;

		wait_for($node, 'SELECT attempts >= 3 FROM synchro.failures', "$testname: it is tried again on $name");
		is(rows($node, 'SELECT relation, sqlstate, constraint_name FROM synchro.failures'), 'seat|23505|seat_code_key', "$testname: $name says why");
		is(rows($node, 'SELECT name, code FROM seat ORDER BY name'), $expected{$name}, "$testname: $name has what it had");
		is(rows($node, 'SELECT * FROM deleted'), '', "$testname: no row is deleted on $name");
	}
	return;
}

# They are the same without a call.
sub equal_again
{
	my ($testname, $expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	settled(0, "$testname: nothing is left");
	same($a, $b, $all, "$testname: both are the same");
	is(rows($a, 'SELECT name, code FROM seat ORDER BY name'), $expected, "$testname: as the last who changed them wanted");
	is(rows($_, 'SELECT * FROM deleted'), '', "$testname: no row is deleted on " . $_->name) foreach $a, $b;
	return;
}

# two new rows with the same value
apart($a, q{INSERT INTO seat (name, code) VALUES ('x', 1)}, $b, q{INSERT INTO seat (name, code) VALUES ('y', 1)});
both_refuse('two new rows', 'x|1', 'y|1');
on($a, q{UPDATE seat SET code = 2 WHERE name = 'x'});
equal_again('two new rows', "x|2\ny|1");

# a row that is given the value which a row of the other side has
apart($b, q{INSERT INTO seat (name, code) VALUES ('z', 3)}, $a, q{UPDATE seat SET code = 3 WHERE name = 'x'});
both_refuse('a newer update', "x|3\ny|1", "x|2\ny|1\nz|3");
on($a, q{UPDATE seat SET code = 4 WHERE name = 'x'});
equal_again('a newer update', "x|4\ny|1\nz|3");
apart($a, q{UPDATE seat SET code = 5 WHERE name = 'x'}, $b, q{UPDATE seat SET code = 5 WHERE name = 'y'});
both_refuse('an older update', "x|5\ny|1\nz|3", "x|4\ny|5\nz|3");

# mended where the value was given last
on($b, q{UPDATE seat SET code = 6 WHERE name = 'y'});
equal_again('an older update', "x|5\ny|6\nz|3");

# values that are exchanged in one transaction
sub exchange
{
	my ($x, $y) = @_;

	return "BEGIN; UPDATE seat SET code = -1 WHERE name = 'x'; UPDATE seat SET code = $y WHERE name = 'y'; UPDATE seat SET code = $x WHERE name = 'x'; COMMIT";
}

on($a, exchange(6, 5));
equal_again('exchanged values', "x|6\ny|5\nz|3");
on($b, exchange(5, 6));
equal_again('exchanged back', "x|5\ny|6\nz|3");
apart($a, exchange(6, 5), $b, exchange(6, 5));
equal_again('exchanged on both sides', "x|6\ny|5\nz|3");

# of one of the two rows the other side has a newer version, with the value that it had
apart($a, exchange(5, 6), $b, q{UPDATE seat SET n = 1 WHERE name = 'y'});
both_refuse('half of an exchange', "x|5\ny|6\nz|3", "x|6\ny|5\nz|3");
on($a, q{UPDATE seat SET code = 8 WHERE name = 'x'});
equal_again('half of an exchange', "x|8\ny|5\nz|3");

$_->stop('fast') foreach $a, $b;
done_testing();
