# WHY: a delete takes along what refers to the row by ON DELETE CASCADE. A node that deletes a row does not know what others have
# changed meanwhile, or inserted, below it: if its delete came to their node, newer rows went without a word, and their loss was
# taken for a newer change of that node and went to all others. Where they came first, they brought their parents back. So which
# came first decided what was left. A delete has to lose against newer rows that refer to the row, at whatever depth, and whoever
# has deleted it gets it back.
use strict;
use warnings;

use lib 'test/t';
use Nodes qw(:DEFAULT on push_against);
use SynchroTest;
use Test::More;

my $schema = <<'SQL';
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE, n int);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text, n int, UNIQUE (parent_id, name));
CREATE TABLE grandchild (id serial PRIMARY KEY, child_id int NOT NULL REFERENCES child ON DELETE CASCADE, name text UNIQUE, n int);
CREATE TABLE bound (id serial PRIMARY KEY, parent_name text REFERENCES parent (name), name text UNIQUE, n int);
CREATE TABLE loose (id serial PRIMARY KEY, parent_id int REFERENCES parent ON DELETE SET NULL, name text UNIQUE, n int);
CREATE TABLE dir (id serial PRIMARY KEY, up bigint REFERENCES dir ON DELETE CASCADE, name text UNIQUE, n int);
CREATE TABLE line (id serial PRIMARY KEY, what text);
CREATE TABLE word (id serial PRIMARY KEY, line_id int NOT NULL REFERENCES line ON DELETE CASCADE, what text);
CREATE TABLE own (id serial PRIMARY KEY, parent_id int REFERENCES parent ON DELETE CASCADE, name text UNIQUE);
CREATE TABLE unwatched (id serial PRIMARY KEY, parent_id int REFERENCES parent ON DELETE CASCADE);
SQL
my $all = q{SELECT 'parent' AS is, name, NULL AS of, n FROM parent
	UNION ALL SELECT 'child', c.name, p.name, c.n FROM child c JOIN parent p ON p.id = c.parent_id
	UNION ALL SELECT 'grandchild', g.name, c.name, g.n FROM grandchild g JOIN child c ON c.id = g.child_id
	UNION ALL SELECT 'bound', name, parent_name, n FROM bound
	UNION ALL SELECT 'loose', l.name, p.name, l.n FROM loose l LEFT JOIN parent p ON p.id = l.parent_id
	UNION ALL SELECT 'dir', d.name, u.name, d.n FROM dir d LEFT JOIN dir u ON u.id = d.up
	UNION ALL SELECT 'line', what, NULL, NULL FROM line
	UNION ALL SELECT 'word', w.what, l.what, NULL FROM word w JOIN line l ON l.id = w.line_id ORDER BY 1, 2, 3, 4};
my ($a, $b) = nodes({}, 'a', 'b');

$_->safe_psql('postgres', $schema) foreach $a, $b;

# no row has the same id on both
$b->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART 1000") foreach 'parent', 'child', 'grandchild', 'bound', 'loose', 'dir', 'line', 'word';
join_nodes($a, $b);
watch([ $a, $b ], parent => '{name}', child => '{parent_id,name}', grandchild => '{name}', bound => '{name}', loose => '{name}',
	dir => '{name}', line => undef, word => undef);
watch([$b], own => '{name}');

# A parent of that name with two children and a grandchild, known to both nodes.
sub family
{
	my ($name) = @_;

	on($a, "INSERT INTO parent (name, n) VALUES ('$name', 0)",
		"INSERT INTO child (parent_id, name, n) SELECT id, '$name' || i, 0 FROM parent, generate_series(1, 2) i WHERE parent.name = '$name'",
		"INSERT INTO grandchild (child_id, name, n) SELECT id, '${name}1x', 0 FROM child WHERE name = '${name}1'");
	settle($a, $b);
	return;
}

# What both have of that name in the end.
sub ends_as
{
	my ($name, $expected, $testname) = @_;

	settle($a, $b);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', grep { /^\w+\|$name/ } split /\n/, rows($_, $all)), $expected, "$testname: on " . $_->name) foreach $a, $b;
	is(rows($_, 'SELECT count(*) FROM synchro.failures'), '0', 'nothing has failed on ' . $_->name) foreach $a, $b;
	return;
}

sub delete_parent
{
	my ($name) = @_;

	on($a, "DELETE FROM parent WHERE name = '$name'");
	return;
}

# n of the parent, the first child and the grandchild of that name.
sub numbers
{
	my ($node, $name) = @_;

	return rows($node, "SELECT p.n, c.n, g.n FROM parent p JOIN child c ON c.parent_id = p.id JOIN grandchild g ON g.child_id = c.id WHERE p.name = '$name'");
}

sub parent_id
{
	my ($name) = @_;

	return "(SELECT id FROM parent WHERE name = '$name')";
}

#
# the delete comes first to where the row below was changed later
#
family('p');
delete_parent('p');
on($b, q{UPDATE child SET n = 1 WHERE name = 'p2'});
is(rows($a, q{SELECT relation::text, action FROM synchro.preview('b') ORDER BY 1, 2}), "child|delete\nchild|skip\ngrandchild|delete\nparent|skip", 'a preview tells');
my $id = rows($b, q{SELECT id FROM child WHERE name = 'p2'});
sync($a, 'b');
is(rows($b, $all), "child|p2|p|1\nparent|p||0", 'a parent stays with the child that was changed later, and the other child goes');
is(rows($b, q{SELECT id FROM child WHERE name = 'p2'}), $id, 'it is the same row');
is(rows($b, q{SELECT relation, winner, loser FROM synchro.conflicts ORDER BY relation::text}), "child|local|\nparent|local|", 'both conflicts are recorded');
ends_as('p', 'child|p2|p|1 parent|p||0', 'the parent comes back');

family('q');
delete_parent('q');
on($b, q{INSERT INTO child (parent_id, name, n) VALUES } . '(' . parent_id('q') . ", 'q3', 1)");
sync($a, 'b');
ends_as('q', 'child|q3|q|1 parent|q||0', 'a new child');

family('r');
on($b, q{INSERT INTO child (parent_id, name, n) VALUES } . '(' . parent_id('r') . ", 'r3', 1)", q{UPDATE child SET n = 1 WHERE name = 'r2'});
delete_parent('r');
sync($a, 'b');
ends_as('r', '', 'an older change goes with the parent');

family('s');
delete_parent('s');
on($b, q{UPDATE grandchild SET n = 1 WHERE name = 's1x'});
sync($a, 'b');
ends_as('s', 'child|s1|s|0 grandchild|s1x|s1|1 parent|s||0', 'two levels below');

# other ways to refer
family('t');
on($a, q{INSERT INTO bound (parent_name, name, n) VALUES ('t', 't', 0)}, q{INSERT INTO loose (parent_id, name, n) VALUES (} . parent_id('t') . q{, 't', 0)});
settle($a, $b);
on($a, q{DELETE FROM bound WHERE name = 't'});
delete_parent('t');
on($b, q{UPDATE bound SET n = 1 WHERE name = 't'});
sync($a, 'b');
ends_as('t', 'bound|t|t|1 loose|t||0 parent|t||0', 'NO ACTION, and a foreign key to a unique column');

family('u');
on($a, q{INSERT INTO loose (parent_id, name, n) VALUES (} . parent_id('u') . q{, 'u', 0)});
settle($a, $b);
delete_parent('u');
on($b, q{UPDATE loose SET n = 1 WHERE name = 'u'});
sync($a, 'b');
ends_as('u', 'loose|u|u|1 parent|u||0', 'SET NULL');

# one that the foreign key has held until then
family('n');
on($b, q{INSERT INTO bound (parent_name, name, n) VALUES ('n', 'n', 0)});
delete_parent('n');
sync_parks($a, 'b', qr/23503/, 'an older row holds the parent');
on($b, q{UPDATE bound SET n = 1 WHERE name = 'n'});
on($a, q{SELECT synchro.retry('b')});
sync($a, 'b');
is(rows($a, 'SELECT count(*) FROM synchro.failures'), '0', 'until it is newer');
ends_as('n', 'bound|n|n|1 parent|n||0', 'then the delete has lost');

# trees
on($a, q{INSERT INTO dir (name, n) VALUES ('d', 0)}, q{INSERT INTO dir (up, name, n) SELECT id, 'd' || i, 0 FROM dir, generate_series(1, 2) i WHERE name = 'd'},
	q{INSERT INTO dir (up, name, n) SELECT id, name || 'x', 0 FROM dir WHERE name LIKE 'd_'});
settle($a, $b);
on($a, q{DELETE FROM dir WHERE name = 'd'});
on($b, q{INSERT INTO dir (up, name, n) SELECT id, 'd1xy', 1 FROM dir WHERE name = 'd1x'});
sync($a, 'b');
ends_as('d', 'dir|d||0 dir|d1|d|0 dir|d1x|d1|0 dir|d1xy|d1x|1', 'a branch of a tree');

# no natural keys
on($a, q{INSERT INTO line (what) VALUES ('l')}, q{INSERT INTO word (line_id, what) SELECT id, 'l1' FROM line});
settle($a, $b);
on($a, q{DELETE FROM line});
on($b, q{INSERT INTO word (line_id, what) SELECT id, 'l2' FROM line});
sync($a, 'b');
ends_as('l', 'line|l|| word|l2|l|', 'rows without a natural key');

# tables of which the other node knows nothing
family('v');
delete_parent('v');
on($b, q{INSERT INTO own (parent_id, name) VALUES (} . parent_id('v') . q{, 'v')});
sync($a, 'b');
is(rows($b, q{SELECT name FROM own}), 'v', 'a row of a table that is watched there only keeps its parent');
on($b, q{SELECT synchro.remove_table('own')}, q{DELETE FROM own});
ends_as('v', 'parent|v||0', 'and the other node gets that back');
family('w');
delete_parent('w');
on($b, q{INSERT INTO unwatched (parent_id) VALUES (} . parent_id('w') . ')');
sync($a, 'b');
ends_as('w', '', 'what is not watched has no time');

#
# deletes that wait for the last batch of a pass
#
family('x');
$a->safe_psql('postgres', q{LOAD 'synchro'; ALTER SYSTEM SET synchro.batch_size = 10});
$a->reload;
delete_parent('x');
on($a, q{INSERT INTO parent (name, n) SELECT 'z' || i, i FROM generate_series(1, 50) i});
on($b, q{UPDATE child SET n = 1 WHERE name = 'x2'});
sync($a, 'b');
ends_as('x', 'child|x2|x|1 parent|x||0', 'a pass of several batches');

#
# a row that commits while the delete is on its way
#
family('y');
is(push_against($a, $b, 'BEGIN; INSERT INTO child (parent_id, name, n) VALUES (' . parent_id('y') . q{, 'y3', 1)}, q{DELETE FROM parent WHERE name = 'y'}, 'COMMIT'),
	'', 'the push gets through');
ends_as('y', 'child|y3|y|1 parent|y||0', 'a child that is inserted meanwhile');
family('k');
is(push_against($a, $b, q{BEGIN; UPDATE child SET n = 1 WHERE name = 'k2'}, q{DELETE FROM parent WHERE name = 'k'}, 'COMMIT'),
	'', 'the push gets through');
ends_as('k', 'child|k2|k|1 parent|k||0', 'a child that is changed meanwhile');

family('e');
is(push_against($a, $b, 'BEGIN; INSERT INTO loose (parent_id, name, n) VALUES (' . parent_id('e') . q{, 'e', 1)}, q{DELETE FROM parent WHERE name = 'e'}, 'COMMIT'),
	'', 'the push gets through');
ends_as('e', 'loose|e|e|1 parent|e||0', 'a row that is inserted meanwhile, whose reference would become NULL');

#
# rows of which the batch that deletes has something newer still
#
family('f');
family('o');
on($a, q{UPDATE grandchild SET child_id = (SELECT id FROM child WHERE name = 'o1') WHERE name = 'f1x'});
delete_parent('f');
on($b, q{UPDATE grandchild SET n = 1 WHERE name = 'f1x'});
on($a, q{UPDATE grandchild SET n = 2 WHERE name = 'f1x'});
sync($a, 'b');
is(rows($b, q{SELECT count(*) FROM parent WHERE name = 'f'}), '0', 'a row that refers to another parent now keeps nothing');
ends_as('f', 'grandchild|f1x|o1|2', 'on both');
family('g');
on($a, q{UPDATE grandchild SET child_id = (SELECT id FROM child WHERE name = 'o1') WHERE name = 'g1x'});
delete_parent('g');
on($b, q{UPDATE grandchild SET n = 1 WHERE name = 'g1x'});
on($a, q{DELETE FROM grandchild WHERE name = 'g1x'});
is(rows($a, q{SELECT DISTINCT action FROM synchro.preview('b')}), 'delete', 'a preview tells that, too');
sync($a, 'b');
ends_as('g', '', 'nor does one that goes itself');
family('c');
on($a, q{UPDATE child SET parent_id = (SELECT id FROM parent WHERE name = 'o') WHERE name = 'c1'});
delete_parent('c');
on($b, q{UPDATE grandchild SET n = 1 WHERE name = 'c1x'});
sync($a, 'b');
is(rows($b, q{SELECT count(*) FROM parent WHERE name = 'c'}), '0', 'nor does what refers to a row that refers to another parent now');
ends_as('c', 'child|c1|o|0 grandchild|c1x|c1|1', 'on both');

# the other node does not write that reference
$_->safe_psql('postgres', 'ALTER TABLE bound ADD COLUMN loose int REFERENCES parent ON DELETE CASCADE') foreach $a, $b;
$_->safe_psql('postgres', q{SELECT synchro.alter_table('bound', skip => '{loose}')}) foreach $a, $b;
family('h');
on($a, q{INSERT INTO bound (name, n) VALUES ('h', 0)});
settle($a, $b);
delete_parent('h');
on($b, 'UPDATE bound SET loose = ' . parent_id('h') . q{ WHERE name = 'h'});
on($a, q{UPDATE bound SET n = 1 WHERE name = 'h'});
sync($a, 'b');
ends_as('h', 'bound|h||1 parent|h||0', 'a reference of its own keeps the parent all the same');

same($a, $b, $all, 'both are the same');

#
# A parent that is kept is as old as it was, all the same: what a third node has changed in it is newer than the delete.
#
my ($c) = nodes({}, 'c');
$c->safe_psql('postgres', $schema);
$c->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART 2000") foreach 'parent', 'child', 'grandchild';
join_nodes($a, $c);
watch([$c], parent => '{name}', child => '{parent_id,name}', grandchild => '{name}');
sync($a, 'c');

# One node deletes the parent, another one changes it after that, and a third one what refers to it.
sub apart
{
	my ($name) = @_;

	family($name);
	settle($a, $b, $c);
	delete_parent($name);
	on($c, "UPDATE parent SET n = 7 WHERE name = '$name'");
	on($b, "UPDATE grandchild SET n = 1 WHERE name = '${name}1x'");
	return;
}

apart('i');
sync($a, 'b');
sync($b, 'a');
settle($a, $b, $c);
is(numbers($_, 'i'), '7|0|1', 'what a third node has changed in the parent: on ' . $_->name) foreach $a, $b, $c;

# likewise if the newer row comes first to where the parent was deleted
apart('m');
sync($b, 'a');
settle($a, $b, $c);
is(numbers($_, 'm'), '7|0|1', 'where the child comes first: on ' . $_->name) foreach $a, $b, $c;

# if the delete comes to that one first, too
family('j');
settle($a, $b, $c);
delete_parent('j');
on($b, q{UPDATE grandchild SET n = 1 WHERE name = 'j1x'});
sync($a, 'c');
sync($a, 'b');
settle($a, $b, $c);
is(numbers($_, 'j'), '0|0|1', 'it comes back to a third node: on ' . $_->name) foreach $a, $b, $c;

# the node that has kept the parent knows that it is newer than the delete, from whom ever it hears of that again
join_nodes($b, $c);
family('b');
settle($a, $b, $c);
$id = rows($b, q{SELECT id FROM parent WHERE name = 'b'});
delete_parent('b');
on($b, q{UPDATE grandchild SET n = 1 WHERE name = 'b1x'});
sync($a, 'b');
sync($a, 'c');
on($b, q{UPDATE child SET parent_id = (SELECT id FROM parent WHERE name = 'o') WHERE name = 'b1'});
sync($c, 'b');
is(rows($b, q{SELECT id FROM parent WHERE name = 'b'}), $id, 'a parent that was kept stays, if the delete comes again by a third node');
settle($a, $b, $c);
is(rows($_, q{SELECT count(*) FROM parent WHERE name = 'b'}), '1', 'and comes back: on ' . $_->name) foreach $a, $b, $c;
done_testing();
