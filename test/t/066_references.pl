# WHY: rows without a natural key are known to the other side by a stored pair of ids, which the receiver keeps. Where both
# sides push, each must find the row that the other one has made of its own, or it would be made again and again.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE note (id serial PRIMARY KEY, what text, n int);
CREATE TABLE line (id serial PRIMARY KEY, note_id int NOT NULL REFERENCES note ON DELETE CASCADE, what text);
SQL
$b->safe_psql('postgres', q{SELECT setval('note_id_seq', 1000), setval('line_id_seq', 5000)});
join_nodes($a, $b);
watch([$a, $b], note => undef, line => undef);

my $all = q{SELECT 'note', what, n::text FROM note UNION ALL SELECT 'line', n.what, l.what FROM line l JOIN note n ON n.id = l.note_id ORDER BY 1, 2, 3};

sub on
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

on($a, q{INSERT INTO note (what, n) SELECT 'of a ' || i, 1 FROM generate_series(1, 10) i; INSERT INTO line (note_id, what) SELECT id, 'line of a' FROM note});
on($b, q{INSERT INTO note (what, n) SELECT 'of b ' || i, 1 FROM generate_series(1, 10) i; INSERT INTO line (note_id, what) SELECT id, 'line of b' FROM note});
settle($a, $b);
same($a, $b, $all, 'both have the rows of both');
is(rows($a, 'SELECT count(*) FROM note'), '20', 'each once');

# each side changes what the other one has made
on($a, q{UPDATE note SET n = 2 WHERE what LIKE 'of b%'; UPDATE line SET what = what || ' changed by a' WHERE what = 'line of b'});
on($b, q{UPDATE note SET n = 3 WHERE what LIKE 'of a%'; UPDATE line SET what = what || ' changed by b' WHERE what = 'line of a'});
settle($a, $b);
same($a, $b, $all, 'what the other side has made can be changed here');
is(rows($a, 'SELECT (SELECT count(*) FROM note), (SELECT count(*) FROM line)'), '20|20', 'and is not made again');

on($a, q{INSERT INTO line (note_id, what) SELECT id, 'second, by a' FROM note WHERE what LIKE 'of b%'; DELETE FROM note WHERE what = 'of b 1'});
on($b, q{INSERT INTO line (note_id, what) SELECT id, 'second, by b' FROM note WHERE what LIKE 'of a%'; DELETE FROM note WHERE what = 'of a 1'});
settle($a, $b);
same($a, $b, $all, 'new rows refer to it, and it is deleted');
is(rows($a, 'SELECT count(*) FROM note'), '18', 'on both sides');

# newest wins
foreach my $order ([ $a, $b ], [ $b, $a ])
{
	my $name = $order->[0]->name;

	on($a, q{UPDATE note SET n = 5 WHERE what = 'of a 2'; UPDATE note SET n = 5 WHERE what = 'of b 2'});
	on($b, q{UPDATE note SET n = 6 WHERE what = 'of a 2'});
	on($a, q{UPDATE note SET n = 7 WHERE what = 'of b 2'});
	settle(@$order);
	same($a, $b, $all, "$name first: both are the same");
	is(rows($a, q{SELECT what, n FROM note WHERE what LIKE 'of _ 2' ORDER BY 1}), "of a 2|6\nof b 2|7", 'with the later change');
}
on($a, q{UPDATE note SET n = 8 WHERE what IN ('of a 3', 'of b 3')});
on($b, q{DELETE FROM note WHERE what IN ('of a 3', 'of b 3')});
settle($a, $b);
same($a, $b, $all, 'a delete that is newer than an update');
is(rows($a, q{SELECT count(*) FROM note WHERE what LIKE 'of _ 3'}), '0', 'wins');
on($b, q{DELETE FROM note WHERE what IN ('of a 4', 'of b 4')});
on($a, q{UPDATE note SET n = 9 WHERE what IN ('of a 4', 'of b 4')});
settle($a, $b);
same($a, $b, $all, 'an update that is newer than a delete');
is(rows($a, q{SELECT what, n FROM note WHERE what LIKE 'of _ 4' ORDER BY 1}), "of a 4|9\nof b 4|9", 'wins');

$_->stop('fast') foreach $a, $b;
done_testing();
