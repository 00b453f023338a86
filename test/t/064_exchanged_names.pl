# WHY: whatever refers to a row goes with it when it is renamed, and no entry of the log says so. So where rows have exchanged
# names on one node, a fact that another node, which has not heard of it, says of such a name would meet another row there than
# it was said of: children would end up under different parents on the two nodes, or on one of them only, for good. And a node
# that hears of the same exchange by two ways must not take each row for the other one: a parent would vanish from all nodes.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use PostgreSQL::Test::Utils ();
use SynchroTest;
use Test::More;

my ($a, $b, $c) = nodes({}, 'a', 'b', 'c');

$_->safe_psql('postgres', <<'SQL') foreach $a, $b, $c;
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text NOT NULL, n int,
	UNIQUE (parent_id, name));
CREATE TABLE tag (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE child_tag (child_id int REFERENCES child ON DELETE CASCADE, tag_id int REFERENCES tag ON DELETE CASCADE,
	PRIMARY KEY (child_id, tag_id));
CREATE TABLE note (id serial PRIMARY KEY, parent_id int REFERENCES parent ON DELETE CASCADE, name text UNIQUE NOT NULL, n int);
SQL
join_nodes($a, $b);
watch([ $a, $b, $c ], parent => '{name}', child => '{parent_id,name}', tag => '{name}', child_tag => undef, note => '{name}');

# In what follows @a and @b are the names of two parents, other ones in each history; <a/x> is the id of a child.
my $history = 0;
my $exchange = q{UPDATE parent SET name = '-' WHERE name = '@a'; UPDATE parent SET name = '@a' WHERE name = '@b'; UPDATE parent SET name = '@b' WHERE name = '-'};

sub run
{
	my ($node, $sql) = @_;

	$sql =~ s{<(\w)/(\w)>}{(SELECT c.id FROM child c JOIN parent p ON p.id = c.parent_id WHERE p.name = '\@$1' AND c.name = '$2')}g;
	$sql =~ s/\@/h${history}_/g;
	$node->safe_psql('postgres', "BEGIN; $sql; COMMIT");
	return;
}

# Parents, children, children's tags and notes by their names.
sub state_of
{
	my ($node) = @_;
	my $state = $node->safe_psql('postgres', <<"SQL");
SELECT string_agg(x, ' ' ORDER BY x) FROM (
	SELECT name || '=' || n FROM parent WHERE name LIKE 'h${history}\\_%'
	UNION ALL SELECT p.name || '/' || c.name || '=' || c.n FROM child c JOIN parent p ON p.id = c.parent_id WHERE p.name LIKE 'h${history}\\_%'
	UNION ALL SELECT p.name || '/' || c.name || '+' || t.name FROM child_tag x JOIN child c ON c.id = x.child_id
		JOIN parent p ON p.id = c.parent_id JOIN tag t ON t.id = x.tag_id WHERE p.name LIKE 'h${history}\\_%'
	UNION ALL SELECT p.name || '<' || x.name || '=' || x.n FROM note x JOIN parent p ON p.id = x.parent_id WHERE p.name LIKE 'h${history}\\_%') z (x)
SQL

	return $state =~ s/h${history}_//gr;
}

# Both parents have a child x, that of the first has a tag. Steps are [ node, SQL ], [ node, whom it pushes to ], or
# [ undef, what is done ]. Then all push
# until they are quiet.
sub history
{
	my ($testname, $nodes, $expected, @steps) = @_;

	$history++;
	run($nodes->[0], q{INSERT INTO parent (name, n) VALUES ('@a', 1), ('@b', 2);
		INSERT INTO child (parent_id, name, n) SELECT id, 'x', 3 FROM parent WHERE name IN ('@a', '@b');
		INSERT INTO tag (name) VALUES ('t') ON CONFLICT DO NOTHING;
		INSERT INTO child_tag SELECT <a/x>, id FROM tag});
	settle(@$nodes);
	foreach my $step (@steps)
	{
		my ($node, $what) = @$step;

		ref $what eq 'CODE' ? $what->() : ref $what ? sync($node, $what->name) : run($node, $what);
	}
	settle(@$nodes);
	is(state_of($_), $expected, "$testname: " . $_->name) foreach @$nodes;
	return;
}

my @pair = ($a, $b);

# What is said of a name that has changed hands counts for the name. What is pushed first, the exchange or the other change, makes
# no difference to whether both end up equal; it may to how, since after the exchange there is another row by that name.
history('a child is changed', \@pair, 'a/x=3 a=2 b/x+t b/x=4 b=1',
	[ $b, $exchange ], [ $a, 'UPDATE child SET n = 4 WHERE id = <b/x>' ], [ $a, $b ]);
history('a child is changed, the exchange comes first', \@pair, 'a/x=4 a=2 b/x+t b/x=3 b=1',
	[ $b, $exchange ], [ $a, 'UPDATE child SET n = 4 WHERE id = <b/x>' ], [ $b, $a ]);
history('a child is new', \@pair, 'a/x=3 a/y=4 a=2 b/x+t b/x=3 b=1',
	[ $b, $exchange ], [ $a, q{INSERT INTO child (parent_id, name, n) SELECT id, 'y', 4 FROM parent WHERE name = '@a'} ], [ $a, $b ]);
history('a child has got another name, and its parent has been touched, before the exchange', \@pair, 'a/y=4 a=2 b/x+t b/x=3 b=1',
	[ $a, q{UPDATE parent SET n = n WHERE name = '@a'; UPDATE child SET name = 'y', n = 4 WHERE id = <a/x>} ], [ $b, $exchange ], [ $a, $b ]);
history('a child is deleted', \@pair, 'a/x=3 a=2 b=1',
	[ $b, $exchange ], [ $a, 'DELETE FROM child WHERE id = <b/x>' ], [ $a, $b ]);
history('a tag is given', \@pair, 'a/x=3 a=2 b/x+t b/x=3 b=1',
	[ $b, $exchange ], [ $a, 'INSERT INTO child_tag SELECT <b/x>, id FROM tag' ], [ $a, $b ]);
history('a tag is taken away', \@pair, 'a/x=3 a=2 b/x+t b/x=3 b=1',
	[ $b, $exchange ], [ $a, 'DELETE FROM child_tag WHERE child_id = <a/x>' ], [ $a, $b ]);
history('a child gets another parent', \@pair, 'a/x=3 a=2 b=1 c/x+t c/x=3 c=5',
	[ $b, $exchange ], [ $a, q{INSERT INTO parent (name, n) VALUES ('@c', 5); UPDATE child SET parent_id = (SELECT id FROM parent WHERE name = '@c') WHERE id = <b/x>} ],
	[ $a, $b ]);
history('a parent is changed', \@pair, 'a/x=3 a=4 b/x+t b/x=3 b=1',
	[ $b, $exchange ], [ $a, q{UPDATE parent SET n = 4 WHERE name = '@a'} ], [ $a, $b ]);
history('a parent and its child are changed', \@pair, 'a/x=5 a=4 b/x+t b/x=3 b=1',
	[ $b, $exchange ], [ $a, q{UPDATE parent SET n = 4 WHERE name = '@a'; UPDATE child SET n = 5 WHERE id = <a/x>} ], [ $a, $b ]);
history('the name is taken by a new row', \@pair, 'a/x+t a/x=4 a=9 c/x+t c/x=3 c=1',
	[ $b, q{DELETE FROM parent WHERE name = '@b'; UPDATE parent SET name = '@c' WHERE name = '@a'; INSERT INTO parent (name, n) VALUES ('@a', 9)} ],
	[ $a, 'UPDATE child SET n = 4 WHERE id = <a/x>' ], [ $a, $b ]);

# Who has nothing to look for does not: what is sent to B has not a statement for it, until B has renamed something.
sub statements_of_push
{
	my ($sql) = @_;
	my $offset = -s $b->logfile;

	run($a, $sql);
	sync($a, 'b');
	my $log = PostgreSQL::Test::Utils::slurp_file($b->logfile, $offset);

	like($log, qr/peer_recheck/, 'a batch has been sent');
	return $log;
}

history('nothing is changed', \@pair, 'a/x+t a/x=3 a=1 b/x=3 b=2');
unlike(statements_of_push('UPDATE child SET n = 7 WHERE id = <b/x>'), qr/peer_lost_names|peer_renamed|peer_restate|40SY2|renamed here/,
	'where nobody has renamed anything, names are not looked for');
run($a, q{UPDATE parent SET name = '@c' WHERE name = '@b'});
settle(@pair);
unlike(statements_of_push('UPDATE child SET n = 8 WHERE id = <c/x>'), qr/peer_lost_names|peer_renamed|peer_restate|renamed here/,
	'nor for renames that the sender has brought itself');
run($b, q{UPDATE parent SET name = '@b' WHERE name = '@c'});
like(statements_of_push('UPDATE child SET n = 9 WHERE id = <c/x>'), qr/renamed here.*peer_lost_names.*peer_restate/s,
	'but for one that it has not been told');
settle(@pair);
unlike(statements_of_push('UPDATE child SET n = 7 WHERE id = <b/x>'), qr/peer_lost_names|peer_renamed|peer_restate|renamed here/,
	'and not for that once it has been');

# what refers to a parent by a column that does not stand for its name
my $note = q{INSERT INTO note (name, parent_id, n) SELECT '@note', id, 3 FROM parent WHERE name = '@a'};

history('a note of a parent is changed', \@pair, 'a/x=3 a<note=4 a=2 b/x+t b/x=3 b=1',
	[ $a, $note ], [ $a, $b ], [ $b, $exchange ], [ $a, q{UPDATE note SET n = 4 WHERE name = '@note'} ], [ $a, $b ]);
history('a note of a parent is changed, the exchange comes first', \@pair, 'a/x=3 a=2 b/x+t b/x=3 b<note=4 b=1',
	[ $a, $note ], [ $a, $b ], [ $b, $exchange ], [ $a, q{UPDATE note SET n = 4 WHERE name = '@note'} ], [ $b, $a ]);
history('a note of a parent is new', \@pair, 'a/x=3 a<note=3 a=2 b/x+t b/x=3 b=1',
	[ $b, $exchange ], [ $a, $note ], [ $a, $b ]);

# The names are exchanged while a batch is being applied that has been told of no renames: after that was looked at, and before the
# batch's rows are looked for.
$b->safe_psql('postgres', <<'SQL');
ALTER FUNCTION synchro.peer_begin RENAME TO peer_really_begin;
CREATE FUNCTION synchro.peer_begin(node uuid, seen pg_snapshot, uncertainty bigint, named pg_snapshot DEFAULT NULL, looks boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM synchro.peer_really_begin(node, seen, uncertainty, named, looks), pg_advisory_xact_lock_shared(64);
END
$$;
GRANT EXECUTE ON FUNCTION synchro.peer_begin, synchro.peer_really_begin TO sync;
SQL
history('a child is changed, and its parent while that is applied', \@pair, 'a/x=3 a=2 b/x+t b/x=4 b=1',
	[ $a, 'UPDATE child SET n = 4 WHERE id = <b/x>' ],
	[ undef, sub {
		my $session = $b->background_psql('postgres');
		my $pushing = $a->background_psql('postgres', on_error_stop => 0);

		$session->query_safe('SELECT pg_advisory_lock(64)');
		$pushing->query_until(qr/begun/, "\\echo begun\nSELECT message FROM synchro.synchronize('b');\n");
		ok($b->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 64 AND NOT granted}),
			'the push waits');
		run($b, $exchange);
		$session->query_safe('SELECT pg_advisory_unlock(64)');
		$pushing->query('\echo all');
		is($pushing->{stderr}, '', 'and gets through');
		$pushing->quit;
		$session->quit;
	} ]);
$b->safe_psql('postgres', 'DROP FUNCTION synchro.peer_begin; ALTER FUNCTION synchro.peer_really_begin RENAME TO peer_begin');

# the change goes on from node to node ahead of the exchange
my @all = ($a, $b, $c);

join_nodes($b, $c);
history('in a line', \@all, 'a/x=3 a=2 b/x+t b/x=4 b=1',
	[ $c, $exchange ], [ $a, 'UPDATE child SET n = 4 WHERE id = <b/x>' ], [ $a, $b ], [ $b, $c ], [ $c, $b ]);

# the exchange comes by two ways: nobody else changes anything
join_nodes($a, $c);
history('by two ways', \@all, 'a/x=3 a=2 b/x+t b/x=3 b=1',
	[ $c, $exchange ], [ $c, $a ], [ $c, $b ], [ $a, $b ], [ $b, $a ]);
history('by two ways, and a child is changed', \@all, 'a/x=3 a=2 b/x+t b/x=4 b=1',
	[ $c, $exchange ], [ $c, $a ], [ $c, $b ], [ $a, 'UPDATE child SET n = 4 WHERE id = <b/x>' ], [ $a, $b ]);
history('by two ways, and all is changed', \@all, 'a/x=4 a=12 b/x+t b/x=3 b=11',
	[ $c, $exchange ], [ $c, $a ], [ $c, $b ], [ $a, q{UPDATE parent SET n = n + 10 WHERE name IN ('@a', '@b'); UPDATE child SET n = 4 WHERE id = <a/x>} ],
	[ $a, $b ]);
history('by two ways, and exchanged back', \@all, 'a/x+t a/x=3 a=1 b/x=3 b=2',
	[ $c, $exchange ], [ $c, $a ], [ $c, $b ], [ $a, $b ], [ $a, $exchange ], [ $a, $b ]);

$_->stop('fast') foreach @all;
done_testing();
