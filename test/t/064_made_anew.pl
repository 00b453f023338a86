# WHY: where a foreign key is part of a name, the log has the parent's identity in it. A parent that is deleted, with what is below it,
# and made anew has another one, so the names that were lost below the former were nobody's: an older change of a row that went along
# was taken for a new row when it came from another node. It stayed below the new parent there, and went everywhere else.
use strict;
use warnings;

use lib 'test/t';
use Nodes qw(:DEFAULT on);
use SynchroTest;
use Test::More;

my $schema = <<'SQL';
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE, n int);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text, n int, UNIQUE (parent_id, name));
CREATE TABLE leaf (id serial PRIMARY KEY, name text, child_id bigint NOT NULL REFERENCES child ON DELETE CASCADE, n int, UNIQUE (name, child_id));
CREATE TABLE pair (parent_id int REFERENCES parent ON DELETE CASCADE, other_id int REFERENCES parent ON DELETE CASCADE, n int, PRIMARY KEY (parent_id, other_id));
CREATE TABLE dir (id serial PRIMARY KEY, up bigint REFERENCES dir ON DELETE CASCADE, name text, n int, UNIQUE (up, name));
CREATE UNIQUE INDEX ON dir (name) WHERE up IS NULL;
SQL
my $all = q{SELECT 'parent' AS is, name, n FROM parent
	UNION ALL SELECT 'child', p.name || '/' || c.name, c.n FROM child c JOIN parent p ON p.id = c.parent_id
	UNION ALL SELECT 'leaf', p.name || '/' || c.name || '/' || l.name, l.n FROM leaf l JOIN child c ON c.id = l.child_id JOIN parent p ON p.id = c.parent_id
	UNION ALL SELECT 'pair', p.name || '/' || o.name, a.n FROM pair a JOIN parent p ON p.id = a.parent_id JOIN parent o ON o.id = a.other_id
	UNION ALL SELECT 'dir', coalesce(w.name || '/', '') || coalesce(v.name || '/', '') || coalesce(u.name || '/', '') || d.name, d.n
		FROM dir d LEFT JOIN dir u ON u.id = d.up LEFT JOIN dir v ON v.id = u.up LEFT JOIN dir w ON w.id = v.up ORDER BY 1, 2};
my @nodes = nodes({}, 'a', 'b', 'c');
my ($a, $b, $c) = @nodes;

$_->safe_psql('postgres', $schema) foreach @nodes;

# no row has the same id on two of them
foreach my $table ('parent', 'child', 'leaf', 'dir')
{
	$b->safe_psql('postgres', "ALTER SEQUENCE ${table}_id_seq RESTART 1000");
	$c->safe_psql('postgres', "ALTER SEQUENCE ${table}_id_seq RESTART 2000");
}
join_nodes($a, $b);
join_nodes($b, $c);
watch(\@nodes, parent => '{name}', child => '{parent_id,name}', leaf => '{name,child_id}', pair => '{parent_id,other_id}', dir => '{up,name}');

sub parent_id
{
	my ($name) = @_;

	return "(SELECT id FROM parent WHERE name = '$name')";
}

sub child_id
{
	my ($parent, $name) = @_;

	return "(SELECT id FROM child WHERE name = '$name' AND parent_id = " . parent_id($parent) . ')';
}

sub add_child
{
	my ($parent, $name, $n) = @_;

	return "INSERT INTO child (parent_id, name, n) VALUES (" . parent_id($parent) . ", '$name', $n)";
}

# A parent of that name with two children, each with a leaf, known to all nodes.
sub family
{
	my ($name) = @_;

	on($a, "INSERT INTO parent (name, n) VALUES ('$name', 0)", add_child($name, 'x', 0), add_child($name, 'y', 0),
		"INSERT INTO leaf (child_id, name, n) SELECT id, 'l', 0 FROM child WHERE parent_id = " . parent_id($name));
	settle(@nodes);
	return;
}

sub make_anew
{
	my ($node, $name, $n) = @_;

	on($node, "DELETE FROM parent WHERE name = '$name'", "INSERT INTO parent (name, n) VALUES ('$name', $n)");
	return;
}

# What all have of that name in the end: rows of one node are pushed to the other one first.
sub ends_as
{
	my ($from, $to, $name, $expected, $testname) = @_;

	sync($from, $to->name);
	settle(@nodes);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', grep { /\|$name\b/ } split /\n/, rows($_, $all)), $expected, "$testname: on " . $_->name) foreach @nodes;
	is(rows($_, 'SELECT count(*) FROM synchro.failures'), '0', 'nothing has failed on ' . $_->name) foreach @nodes;
	return;
}

sub change_child
{
	my ($node, $parent, $name, $n) = @_;

	on($node, "UPDATE child SET n = $n WHERE id = " . child_id($parent, $name));
	return;
}

#
# an older change comes to the node that has made the parent anew
#
family('p');
change_child($b, 'p', 'x', 1);
make_anew($a, 'p', 2);
ends_as($b, $a, 'p', 'parent|p|2', 'an older change of a child');

family('q');
change_child($b, 'q', 'x', 1);
make_anew($a, 'q', 2);
ends_as($a, $b, 'q', 'parent|q|2', 'the delete comes first');

family('r');
on($b, add_child('r', 'z', 1));
make_anew($a, 'r', 2);
ends_as($b, $a, 'r', 'child|r/z|1 parent|r|2', 'a child that the node has not known');

family('s');
make_anew($a, 's', 2);
change_child($b, 's', 'x', 1);
ends_as($b, $a, 's', 'child|s/x|1 leaf|s/x/l|0 parent|s|2', 'a newer change of a child');

# of several former parents
family('t');
change_child($b, 't', 'x', 1);
make_anew($a, 't', 2);
on($a, add_child('t', 'y', 2));
make_anew($a, 't', 3);
ends_as($b, $a, 't', 'parent|t|3', 'made anew twice');

family('u');
change_child($b, 'u', 'x', 1);
change_child($b, 'u', 'y', 1);
make_anew($a, 'u', 2);
on($a, add_child('u', 'y', 2));
ends_as($b, $a, 'u', 'child|u/y|2 parent|u|2', 'a child that was made anew, too');

# what is below such a child
family('v');
on($b, 'UPDATE leaf SET n = 1 WHERE child_id = ' . child_id('v', 'x'));
make_anew($a, 'v', 2);
on($a, add_child('v', 'x', 2));
ends_as($b, $a, 'v', 'child|v/x|2 parent|v|2', 'two levels');

family('w');
on($b, 'UPDATE leaf SET n = 1 WHERE child_id = ' . child_id('w', 'x'));
make_anew($a, 'w', 2);
ends_as($b, $a, 'w', 'parent|w|2', 'two levels, of which one is made anew');

# it had gone elsewhere before
family('m');
family('n');
change_child($b, 'm', 'x', 1);
on($a, q{UPDATE child SET name = 'moved', parent_id = } . parent_id('n') . ' WHERE id = ' . child_id('m', 'x'));
make_anew($a, 'm', 2);
ends_as($b, $a, 'm', 'parent|m|2', 'a child that was moved before');
is(join(' ', grep { /\|n\// } split /\n/, rows($_, $all)), 'child|n/moved|0 child|n/x|0 child|n/y|0 leaf|n/moved/l|0 leaf|n/x/l|0 leaf|n/y/l|0', 'it is where it was moved: on ' . $_->name) foreach @nodes;

# pairs, of which either may be made anew
family('d');
family('e');
family('f');
on($a, map { 'INSERT INTO pair VALUES (' . parent_id($_->[0]) . ', ' . parent_id($_->[1]) . ', 0)' } [ 'd', 'e' ], [ 'e', 'f' ], [ 'f', 'd' ]);
settle(@nodes);
on($b, 'UPDATE pair SET n = 1');
make_anew($a, 'd', 2);
make_anew($a, 'e', 2);
on($a, 'INSERT INTO pair VALUES (' . parent_id('d') . ', ' . parent_id('d') . ', 2)');
sync($b, 'a');
settle(@nodes);
is(join(' ', grep { /^pair/ } split /\n/, rows($_, $all)), 'pair|d/d|2', 'pairs: on ' . $_->name) foreach @nodes;

# what is no successor: rows of its own are below it, which the other node means
family('k');
on($a, q{INSERT INTO parent (name, n) VALUES ('ka', 0)});
settle(@nodes);
on($b, add_child('ka', 'x', 1));
on($a, q{DELETE FROM parent WHERE name = 'k'}, q{UPDATE parent SET name = 'k' WHERE name = 'ka'});
ends_as($b, $a, 'ka?', 'child|k/x|1 parent|k|0', 'a row that is renamed to the name');

family('kb');
on($a, q{INSERT INTO parent (name, n) VALUES ('kc', 0), ('kd', 0)});
settle(@nodes);
on($b, add_child('kc', 'x', 1));
on($a, q{UPDATE child SET name = 'moved', parent_id = } . parent_id('kd') . ' WHERE id = ' . child_id('kb', 'x'),
	q{DELETE FROM parent WHERE name = 'kb'}, q{UPDATE parent SET name = 'kb' WHERE name = 'kc'});
change_child($b, 'kc', 'x', 5);
ends_as($b, $a, 'k[bcd]', 'child|kb/x|5 child|kd/moved|0 leaf|kd/moved/l|0 parent|kb|0 parent|kd|0', 'nor is the moved row its child');

# ids that are used again
on($a, q{INSERT INTO parent (id, name, n) VALUES (501, 'ia', 0), (502, 'ib', 0)});
settle(@nodes);
on($a, q{DELETE FROM parent WHERE id IN (501, 502)}, q{INSERT INTO parent (id, name, n) VALUES (501, 'ib', 0), (502, 'ia', 0)}, add_child('ib', 'x', 1));
settle(@nodes);
on($b, add_child('ia', 'x', 2));
on($a, 'DELETE FROM child WHERE id = ' . child_id('ib', 'x'));
ends_as($b, $a, 'i[ab]', 'child|ia/x|2 parent|ia|0 parent|ib|0', 'a row that was lost below another one with the id of the former');

# trees
sub up
{
	my (@names) = @_;
	my $up = 'NULL';

	$up = "(SELECT id FROM dir WHERE name = '$_' AND up IS NOT DISTINCT FROM $up)" foreach @names;
	return $up;
}

sub add_dir
{
	my ($n, @names) = @_;
	my $name = pop @names;

	return 'INSERT INTO dir (up, name, n) VALUES (' . up(@names) . ", '$name', $n)";
}

sub tree
{
	my ($root) = @_;

	on($a, map { add_dir(0, $root, @$_) } [], ['i'], [ 'i', 'j' ], [ 'i', 'j', 'k' ]);
	settle(@nodes);
	return;
}

tree('g');
on($b, 'UPDATE dir SET n = 1 WHERE id = ' . up('g', 'i', 'j'));
on($a, q{DELETE FROM dir WHERE name = 'g'}, add_dir(2, 'g'), add_dir(2, 'g', 'i'));
ends_as($b, $a, 'g', 'dir|g|2 dir|g/i|2', 'a tree');

tree('h');
on($b, 'UPDATE dir SET n = 1 WHERE id = ' . up('h', 'i', 'j', 'k'));
on($a, q{DELETE FROM dir WHERE name = 'h'}, add_dir(2, 'h'), add_dir(2, 'h', 'i'));
ends_as($b, $a, 'h', 'dir|h|2 dir|h/i|2', 'two levels below what was made anew');

tree('l');
on($b, 'UPDATE dir SET n = 1 WHERE id = ' . up('l', 'i', 'j'));
on($a, 'DELETE FROM dir WHERE id = ' . up('l', 'i'), add_dir(2, 'l', 'i'));
on($b, 'UPDATE dir SET n = 3 WHERE id = ' . up('l', 'i', 'j', 'k'));
ends_as($b, $a, 'l', 'dir|l|0 dir|l/i|2 dir|l/i/j|1 dir|l/i/j/k|3', 'a newer change below');

# from the end of the line
family('o');
change_child($c, 'o', 'x', 1);
make_anew($a, 'o', 2);
sync($c, 'b');
ends_as($b, $a, 'o', 'parent|o|2', 'by way of another node');

family('z');
change_child($a, 'z', 'x', 1);
change_child($c, 'z', 'y', 1);
make_anew($b, 'z', 2);
sync($c, 'b');
ends_as($a, $b, 'z', 'parent|z|2', 'in the middle');
done_testing();
