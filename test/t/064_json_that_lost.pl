# WHY: what has lost is recorded as jsonb. A json column may hold what jsonb cannot, "\u0000" or a number that is too large: to record the
# conflict failed, so the newer change was refused, and the older one on its way back, time and again, until it was no conflict any more, and
# was lost without a record; where only one of the nodes pushes, for ever.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, q{CREATE DOMAIN document AS json; CREATE TABLE doc (name text PRIMARY KEY, j json NOT NULL, d document, list json[], n int)});
join_nodes($a, $b);
watch([ $a, $b ], doc => undef);

my %values = (
	character => '{"log":  "\u0000"}',
	number => '1e200000',
	string => '"{}"',
	null => 'null',
	plain => '{"a": [1, "x"]}',
	long => '["' . 'x' x 20000 . '"]');
my @names = sort keys %values;

$a->safe_psql('postgres', qq{INSERT INTO doc VALUES ('$_ here', '{}', '{}', '{}', 0), ('$_ there', '{}', '{}', '{}', 0), ('$_ gone', '{}', '{}', '{}', 0)}) foreach @names;
settle($a, $b);

sub set_to
{
	my ($node, $name) = @_;

	$node->safe_psql('postgres', "UPDATE doc SET j = '$values{$_}', d = '$values{$_}', list = ARRAY['$values{$_}'::json] WHERE name = '$_ $name'") foreach @names;
	return;
}

# older on B, newer on A, an update or a delete; and the other way round
set_to($b, 'there');
set_to($b, 'gone');
set_to($a, 'here');
$a->safe_psql('postgres', q{UPDATE doc SET n = 1 WHERE name LIKE '% there'; DELETE FROM doc WHERE name LIKE '% gone'});
$b->safe_psql('postgres', q{UPDATE doc SET n = 2 WHERE name LIKE '% here'});
is(sync($a)->{failed}, 0, 'A pushes: nothing is refused');
is(sync($b)->{failed}, 0, 'nor as B does');
settle($a, $b);

my $now = join "\n", map { ("$_ here|{}|{}|{}|2", "$_ there|{}|{}|{}|1") } @names;

is(rows($_, 'SELECT * FROM doc ORDER BY name COLLATE "C"'), $now, 'the newer changes are there on ' . $_->name) foreach $a, $b;
is(rows($b, 'SELECT count(*) FROM synchro.conflicts'), 3 * @names, 'the older ones are recorded');
is(rows($b, q{SELECT loser -> 'j' FROM synchro.conflicts WHERE loser ->> 'name' = 'plain there'}), '{"a": [1, "x"]}', 'as JSON where they can be');

# undone
$b->safe_psql('postgres', 'SELECT synchro.undo(id) FROM synchro.conflicts ORDER BY id');
settle($a, $b);

my $before = join "\n", map
{
	my $name = $_;
	map { join '|', "$name $_", $values{$name}, $name eq 'null' ? 'NULL' : $values{$name}, $values{$name} } qw(gone here there)
} @names;

is(rows($_, q{SELECT name, j, coalesce(d::text, 'NULL'), list[1] FROM doc ORDER BY name COLLATE "C"}), $before, 'undone, all is as it was on ' . $_->name) foreach $a, $b;

$_->stop('fast') foreach $a, $b;
done_testing();
