# WHY: a row is deleted, another one gets its name, which the remote refuses, and a third one refers to that: there the name is still
# the deleted row's. Whoever took that for the new one forgot the delete, and when the new one was deleted, too, before it had ever
# arrived, nobody told the remote: the row stayed there for good, and nothing showed it but verify().
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my $schema = <<'SQL';
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int NOT NULL);
CREATE TABLE children (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int NOT NULL REFERENCES parents);
CREATE TABLE leaves (id serial PRIMARY KEY, name text NOT NULL UNIQUE, leaf_id int REFERENCES leaves, v int NOT NULL);
CREATE TABLE twigs (id serial PRIMARY KEY, name text NOT NULL, twig_id int REFERENCES twigs, v int NOT NULL, UNIQUE NULLS NOT DISTINCT (twig_id, name));
SQL
my $all = q{SELECT 'parent', name, v::text FROM parents UNION ALL SELECT 'child', c.name, p.name FROM children c JOIN parents p ON p.id = c.parent_id
	UNION ALL SELECT 'leaf', l.name || l.v, p.name FROM leaves l LEFT JOIN leaves p ON p.id = l.leaf_id
	UNION ALL SELECT 'twig', t.name || t.v, p.name FROM twigs t LEFT JOIN twigs p ON p.id = t.twig_id ORDER BY 1, 2, 3};
my %keys = (parents => 'name', children => 'name', leaves => 'name', twigs => 'twig_id,name');

sub refuse
{
	my ($where) = @_;

	$where->safe_psql('postgres', join '', map { "ALTER TABLE $_ ADD CONSTRAINT small CHECK (v < 100);" } 'parents', 'leaves', 'twigs');
	return;
}

# pass: pushes; there: the other side
sub handed_on
{
	my ($what, $here, $there, $pass, @cases) = @_;

	foreach my $case (@cases)
	{
		my ($how, $last, @steps) = @$case;

		$here->safe_psql('postgres', q{INSERT INTO parents (name, v) VALUES ('p', 1), ('q', 1); INSERT INTO leaves (name, v) VALUES ('p', 1); INSERT INTO twigs (name, v) VALUES ('p', 1)});
		$pass->();
		refuse($there);
		foreach my $step (@steps, $last)
		{
			$here->safe_psql('postgres', $step);
			$pass->();
		}
		$there->safe_psql('postgres', join '', map { "ALTER TABLE $_ DROP CONSTRAINT small;" } 'parents', 'leaves', 'twigs');
		$here->safe_psql('postgres', 'SELECT synchro.retry()');
		$pass->() foreach 1 .. 2;
		same($here, $there, $all, "$what, $how: all is the same");
		is(rows($here, 'SELECT count(*) FROM synchro.failures'), 0, "$what, $how: nothing waits");
		$here->safe_psql('postgres', 'DELETE FROM children; DELETE FROM parents; DELETE FROM leaves; DELETE FROM twigs');
		$pass->() foreach 1 .. 2;
		is(rows($there, "SELECT count(*) FROM ($all) x"), 0, "$what, $how: and nothing is left in the end");
	}
	return;
}

my $again = q{DELETE FROM parents WHERE name = 'p'; INSERT INTO parents (name, v) VALUES ('p', 1000);};
my $child = q{INSERT INTO children (name, parent_id) SELECT 'c', id FROM parents WHERE name = 'p';};
my $gone = q{DELETE FROM children; DELETE FROM parents WHERE name = 'p'};
my @cases = (
	[ 'nobody refers to it', $gone, $again ],
	[ 'a child', $gone, "$again $child" ],
	[ 'a child that comes later', $gone, $again, $child ],
	[ 'a child that goes elsewhere', q{UPDATE children SET parent_id = (SELECT id FROM parents WHERE name = 'q'); DELETE FROM parents WHERE name = 'p'}, "$again $child" ],
	[ 'a child that has been there', $gone, $child, qq{UPDATE children SET parent_id = (SELECT id FROM parents WHERE name = 'q'); $again UPDATE children SET parent_id = (SELECT id FROM parents WHERE name = 'p')} ],
	[ 'what it is refused for is mended', q{UPDATE parents SET v = 2}, "$again $child" ],
	[ 'after renames', $gone, qq{UPDATE parents SET name = 'r' WHERE name = 'p'; DELETE FROM parents WHERE name = 'r'; UPDATE parents SET name = 'p' WHERE name = 'q'; $again $child} ],
	[ 'rows of its own table', 'DELETE FROM leaves; DELETE FROM twigs', q{DELETE FROM leaves; INSERT INTO leaves (name, v) VALUES ('p', 1000); INSERT INTO leaves (name, v, leaf_id) SELECT 'c', 1, id FROM leaves;
		DELETE FROM twigs; INSERT INTO twigs (name, v) VALUES ('p', 1000); INSERT INTO twigs (name, v, twig_id) SELECT 'c', 1, id FROM twigs} ],
	[ 'a row of its own table that stays', q{UPDATE leaves SET leaf_id = NULL; DELETE FROM leaves WHERE name = 'p'; DELETE FROM twigs WHERE name = 'c'; DELETE FROM twigs},
		q{DELETE FROM leaves; INSERT INTO leaves (name, v) VALUES ('p', 1000); INSERT INTO leaves (name, v, leaf_id) SELECT 'c', 1, id FROM leaves;
		DELETE FROM twigs; INSERT INTO twigs (name, v) VALUES ('p', 1000); INSERT INTO twigs (name, v, twig_id) SELECT 'c', 1, id FROM twigs} ]);

# what is renamed goes with a pass's first batch, and the row that it refers to by name with a later one
my $others = q{INSERT INTO parents (name, v) SELECT 'f' || i, 1 FROM generate_series(1, 30) i};
my $renamed = q{UPDATE children SET name = 'c', parent_id = (SELECT id FROM parents WHERE name = 'p')};
my @later = (
	[ 'it comes later', $gone, qq{$others; INSERT INTO children (name, parent_id) SELECT 'b', id FROM parents WHERE name = 'q'},
		qq{UPDATE parents SET v = 2 WHERE name LIKE 'f%'; $again $renamed} ],
	[ 'it comes later, the delete before', $gone, qq{$others; INSERT INTO children (name, parent_id) SELECT 'b', id FROM parents WHERE name = 'q'},
		qq{UPDATE parents SET v = 2 WHERE name LIKE 'f%'; $again}, $renamed ]);

my $local = synchro_node('local');
my $remote = synchro_node('remote');
both($local, $remote, $schema);
$remote->safe_psql('postgres', "SELECT setval('${_}_id_seq', 1000)") foreach sort keys %keys;
connect_remote($local, $remote);
$local->safe_psql('postgres', "SELECT synchro.add_table('$_', '{$keys{$_}}')") foreach 'parents', 'children', 'leaves', 'twigs';
handed_on('remote', $local, $remote, sub { sync($local, 'office') }, @cases);
$local->append_conf('postgresql.conf', 'synchro.atomic_pass = on');
$local->reload;
handed_on('in a pass as a whole', $local, $remote, sub { sync($local, 'office') }, @cases, @later);

# in one transaction with what is refused: new rows are, and only who has been renamed to refer to them waits with them; so, too,
# if so many other renames are refused that the rest of them goes together
foreach my $many (0, 300)
{
	my $what = "in a pass as a whole, $many other renames refused";

	$local->safe_psql('postgres', qq{INSERT INTO parents (name, v) SELECT x || i, 1 FROM generate_series(1, 5) i, unnest('{p,q,f}'::text[]) x;
		INSERT INTO children (name, parent_id) SELECT 'b' || v.name, v.id FROM parents v WHERE name LIKE 'q%';
		INSERT INTO twigs (name, v) SELECT 'x' || i, 1 FROM generate_series(1, $many) i});
	sync($local, 'office');
	refuse($remote);
	$local->safe_psql('postgres', q{BEGIN; UPDATE parents SET v = 2 WHERE name LIKE 'f%'; DELETE FROM parents WHERE name LIKE 'p%';
		INSERT INTO parents (name, v) SELECT x || i, CASE x WHEN 'p' THEN 1000 ELSE 1 END FROM generate_series(1, 5) i, unnest('{n,p,o}'::text[]) x;
		UPDATE children SET name = 'c' || name, parent_id = (SELECT id FROM parents WHERE name = translate(children.name, 'bq', 'p'));
		UPDATE twigs SET name = 'y' || name, v = 1000; COMMIT});
	is(sync($local, 'office')->{failed}, 10 + $many, "$what: refused rows, and those that need them by their names");
	is(rows($local, q{SELECT relation::text COLLATE "C", operation, count(*) FROM synchro.failures WHERE relation <> 'twigs'::regclass GROUP BY 1, 2 ORDER BY 1, 2}),
		"children|update|5\nparents|insert|5", "$what: ... wait, and no other");
	is(rows($remote, q{SELECT count(*), sum(v) FROM parents WHERE name ~ '^[fno]'}), '15|20', "$what: ... which have arrived");
	is(rows($remote, q{SELECT count(*) FROM parents WHERE name ~ '^p'}), '0', "$what: ... and what is deleted is");
	$remote->safe_psql('postgres', join '', map { "ALTER TABLE $_ DROP CONSTRAINT small;" } 'parents', 'leaves', 'twigs');
	$local->safe_psql('postgres', 'SELECT synchro.retry()');
	sync($local, 'office') foreach 1 .. 2;
	same($local, $remote, $all, "$what: ... mended, all is the same");
	$local->safe_psql('postgres', 'DELETE FROM children; DELETE FROM parents; DELETE FROM twigs');
	sync($local, 'office');
}
$local->append_conf('postgresql.conf', "synchro.atomic_pass = off\nsynchro.batch_size = 10");
$local->reload;
handed_on('in batches', $local, $remote, sub { sync($local, 'office') }, @cases, @later);
$local->append_conf('postgresql.conf', 'synchro.batch_size = 10000');
$local->reload;

# what the remote has of its own stays, and rows that refer to it by name come
$remote->safe_psql('postgres', q{INSERT INTO parents (name, v) VALUES ('own', 1)});
refuse($remote);
$local->safe_psql('postgres', q{INSERT INTO parents (name, v) VALUES ('own', 1000); INSERT INTO children (name, parent_id) SELECT 'c', id FROM parents});
sync($local, 'office');
is(rows($remote, 'SELECT p.name, p.v, c.name FROM parents p JOIN children c ON c.parent_id = p.id'), 'own|1|c', 'a name that the remote has of its own is what is meant');
$local->safe_psql('postgres', 'DELETE FROM children; DELETE FROM parents');
sync($local, 'office');
is(rows($remote, 'SELECT name, v FROM parents'), 'own|1', 'and it stays there');
$_->stop('fast') foreach $local, $remote;

# between nodes
my ($a, $b) = nodes({}, 'a', 'b');
$_->safe_psql('postgres', $schema) foreach $a, $b;
$b->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART 1000") foreach sort keys %keys;
join_nodes($a, $b);
watch([ $a, $b ], map { $_ => "{$keys{$_}}" } 'parents', 'children', 'leaves', 'twigs');
handed_on('between nodes', $a, $b, sub { sync($a, 'b'); sync($b, 'a') }, @cases);
$_->stop('fast') foreach $a, $b;
done_testing();
