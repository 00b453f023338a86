# WHY: a row that is renamed may get a name that another node has given to a new row meanwhile. If that one came first, and was newer,
# it found the renamed row by that name, and this was taken to be known there from then on: so nobody said that its old name was gone.
# The other node kept a row of that name, with all below it, and what is below the renamed row was missing there.
use strict;
use warnings;

use lib 'test/t';
use Nodes qw(:DEFAULT on);
use SynchroTest;
use Test::More;

my $schema = <<'SQL';
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE, n int);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text, n int, UNIQUE (parent_id, name));
CREATE TABLE leaf (id serial PRIMARY KEY, child_id int NOT NULL REFERENCES child ON DELETE CASCADE, name text, n int, UNIQUE (child_id, name));
SQL
my $all = q{SELECT 'parent' AS is, name, n FROM parent
	UNION ALL SELECT 'child', p.name || '/' || c.name, c.n FROM child c JOIN parent p ON p.id = c.parent_id
	UNION ALL SELECT 'leaf', p.name || '/' || c.name || '/' || l.name, l.n FROM leaf l JOIN child c ON c.id = l.child_id JOIN parent p ON p.id = c.parent_id
	ORDER BY 1, 2};
my ($a, $b) = nodes({}, 'a', 'b');

$_->safe_psql('postgres', $schema) foreach $a, $b;
$b->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART 1000") foreach 'parent', 'child', 'leaf';
join_nodes($a, $b);
watch([ $a, $b ], parent => '{name}', child => '{parent_id,name}', leaf => '{child_id,name}');

sub add_child
{
	my ($parent, $name, $n) = @_;

	return "INSERT INTO child (parent_id, name, n) SELECT id, '$name', $n FROM parent WHERE name = '$parent'";
}

sub add_parent
{
	my ($name, $n) = @_;

	return "INSERT INTO parent (name, n) VALUES ('$name', $n)";
}

sub rename_parent
{
	my ($from, $to) = @_;

	return "UPDATE parent SET name = '$to' WHERE name = '$from'";
}

# A parent of that name with a child and a leaf, known to both, which is renamed on b.
sub renamed
{
	my ($from, $to) = @_;

	on($a, add_parent($from, 0), add_child($from, 'x', 0), "INSERT INTO leaf (child_id, name, n) SELECT c.id, 'l', 0 FROM child c JOIN parent p ON p.id = c.parent_id WHERE p.name = '$from'");
	settle($a, $b);
	on($b, rename_parent($from, $to));
	return;
}

# What both have below parents of these names in the end, and the parents themselves.
sub ends_as
{
	my ($names, $expected, $testname) = @_;

	settle($a, $b);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', grep { /\|($names)\b/ } split /\n/, rows($_, $all)), $expected, "$testname: on " . $_->name) foreach $a, $b;
	is(rows($_, 'SELECT count(*) FROM synchro.failures'), '0', 'nothing has failed on ' . $_->name) foreach $a, $b;
	return;
}

renamed('a1', 'a2');
on($a, add_parent('a2', 1), add_child('a2', 'z', 1));
sync($a, 'b');
is(rows($b, q{SELECT relation::text, action, key FROM synchro.preview('a')}), 'parent|delete|a1', 'the old name is said to be gone');
ends_as('a.', 'child|a2/x|0 child|a2/z|1 leaf|a2/x/l|0 parent|a2|1', 'a newer row of the new name comes first');

renamed('b1', 'b2');
on($a, add_parent('b2', 1), add_child('b2', 'z', 1));
sync($b, 'a');
ends_as('b.', 'child|b2/x|0 child|b2/z|1 leaf|b2/x/l|0 parent|b2|1', 'the rename comes first');

renamed('c1', 'c2');
on($a, rename_parent('c1', 'c2'), add_parent('c1', 1), add_child('c1', 'z', 1));
sync($a, 'b');
ends_as('c.', 'child|c1/z|1 child|c2/x|0 leaf|c2/x/l|0 parent|c1|1 parent|c2|0', 'both have renamed the row, and the old name is another one');

renamed('d1', 'd2');
on($a, add_parent('d2', 1), add_child('d2', 'z', 1));
sync($a, 'b');
on($a, rename_parent('d2', 'd3'));
sync($a, 'b');
ends_as('d.', 'child|d3/x|0 child|d3/z|1 leaf|d3/x/l|0 parent|d3|1', 'the row of the new name is renamed, too');

renamed('e1', 'e2');
on($a, add_parent('e2', 1), add_child('e2', 'z', 1));
sync($a, 'b');
on($a, q{DELETE FROM parent WHERE name = 'e2'});
sync($a, 'b');
ends_as('e.', '', 'the row of the new name is deleted');

renamed('f1', 'f2');
on($a, add_parent('f2', 1), add_child('f2', 'z', 1), q{UPDATE parent SET n = 5 WHERE name = 'f1'});
sync($a, 'b');
ends_as('f.', 'child|f1/x|0 child|f2/x|0 child|f2/z|1 leaf|f1/x/l|0 leaf|f2/x/l|0 parent|f1|5 parent|f2|1', 'a row that was changed after it was renamed');

# what moves takes a name, too
renamed('g1', 'g2');
on($a, add_parent('h', 0));
settle($a, $b);
on($b, q{UPDATE child SET parent_id = (SELECT id FROM parent WHERE name = 'h') WHERE parent_id = (SELECT id FROM parent WHERE name = 'g2')});
on($a, add_child('h', 'x', 2));
sync($a, 'b');
ends_as('g.|h', 'child|h/x|2 leaf|h/x/l|0 parent|g2|0 parent|h|0', 'a row that was moved');

# The other way round: a name that was refused is the row's on the other node all the same. The name that it had when both knew it
# has been handed on there.
on($a, add_parent($_, 0)) foreach 'i', 'j', 'k';
on($a, add_child('i', 'x', 1), add_child('j', 'x', 2),
	q{INSERT INTO leaf (child_id, name, n) SELECT c.id, p.name, 0 FROM child c JOIN parent p ON p.id = c.parent_id WHERE p.name IN ('i', 'j')});
settle($a, $b);
my $move = "UPDATE child SET parent_id = (SELECT id FROM parent WHERE name = '%s'), name = '%s' WHERE name = 'x' AND parent_id = (SELECT id FROM parent WHERE name = '%s')";

on($a, 'BEGIN; ' . sprintf($move, 'i', 'y', 'i') . '; ' . sprintf($move, 'i', 'x', 'j') . '; COMMIT');
on($b, sprintf $move, 'k', 'x', 'i');
sync($a, 'b');
ends_as('[ijk]', 'child|i/x|2 child|k/x|1 leaf|i/x/j|0 leaf|k/x/i|0 parent|i|0 parent|j|0 parent|k|0', 'a name that was refused, and another that was handed on');
done_testing();
