# WHY: what refers to a row goes by its name from node to node. A node whose change of a row's name has lost elsewhere calls the
# row so until it hears of that, and whatever it says meanwhile of what refers to the row is said of a name that the other one
# does not know: a delete of a child was taken for one of a child that is not there, and the child stayed on some nodes. And rows
# that follow one which the remote has made anew are logged here just then; that must not get between the moment when another
# node's delete of them has been decided about and its commit, or they end up on the other nodes only.
use strict;
use warnings;

use lib 'test/t';
use Nodes qw(:DEFAULT on);
use SynchroTest;
use Test::More;
use Time::HiRes qw(time);

my $schema = <<'SQL';
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE, n int);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text, n int, UNIQUE (parent_id, name));
CREATE TABLE tag (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE child_tag (child_id int REFERENCES child ON DELETE CASCADE, tag_id int REFERENCES tag ON DELETE CASCADE, PRIMARY KEY (child_id, tag_id));
SQL
my $all = q{SELECT 'parent', name, n FROM parent
	UNION ALL SELECT 'child', p.name || '/' || c.name, c.n FROM child c JOIN parent p ON p.id = c.parent_id
	UNION ALL SELECT 'child_tag', p.name || '/' || c.name || '/' || t.name, NULL FROM child_tag x JOIN child c ON c.id = x.child_id
		JOIN parent p ON p.id = c.parent_id JOIN tag t ON t.id = x.tag_id ORDER BY 1, 2};
my ($a, $b, $c) = nodes({}, 'a', 'b', 'c');
my $start = 1;

foreach my $node ($a, $b, $c)
{
	$node->safe_psql('postgres', $schema);

	# no row has the same id on two of them
	$start += 1000;
	$node->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART $start") foreach 'parent', 'child', 'tag';
}
join_nodes($a, $b);
link_nodes($b, $c);
link_nodes($c, $a);
watch([ $a, $b, $c ], parent => '{name}', child => '{parent_id,name}', tag => '{name}', child_tag => undef);

sub family
{
	my ($name) = @_;

	on($a, "INSERT INTO parent (name, n) VALUES ('$name', 0)",
		"INSERT INTO child (parent_id, name, n) SELECT id, 'c' || i, 0 FROM parent, generate_series(1, 3) i WHERE parent.name = '$name'",
		"INSERT INTO tag (name) VALUES ('$name')",
		"INSERT INTO child_tag SELECT c.id, t.id FROM child c JOIN parent p ON p.id = c.parent_id JOIN tag t ON t.name = p.name WHERE p.name = '$name'");
	settle($a, $b, $c);
	return;
}

# What they all have in the end of what is called like this.
sub ends_as
{
	my ($pattern, $expected, $testname) = @_;

	settle($a, $b, $c);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $node ($a, $b, $c)
	{
		is(join(' ', grep { /\|$pattern/ } split /\n/, rows($node, $all)), $expected, "$testname: on " . $node->name);
	}
	return;
}

sub child_of
{
	my ($parent, $child) = @_;

	return "parent_id = (SELECT id FROM parent WHERE name = '$parent') AND name = '$child'";
}

#
# a change of a name that has lost
#
family('x');
on($a, q{UPDATE parent SET name = 'x too' WHERE name = 'x'});
on($b, q{UPDATE parent SET n = 1 WHERE name = 'x'});
my $id = rows($b, q{SELECT id FROM parent WHERE name = 'x'});

is(sync($a, 'b')->{skipped}, 1, 'the change of the name has lost');

# in other passes, by the name that the sender has not been told to be gone
on($a, 'DELETE FROM child_tag WHERE child_id = (SELECT id FROM child WHERE ' . child_of('x too', 'c1') . ')');
sync($a, 'b');
on($a, 'DELETE FROM child WHERE ' . child_of('x too', 'c2'));
sync($a, 'b');
on($a, 'UPDATE child SET n = 2 WHERE ' . child_of('x too', 'c3'));
sync($a, 'b');
on($a, q{INSERT INTO child (parent_id, name, n) SELECT id, 'c4', 3 FROM parent WHERE name = 'x too'});
sync($a, 'b');
my $expected = 'child|x/c1|0 child|x/c3|2 child|x/c4|3 child_tag|x/c3/x| parent|x|1';

is(join(' ', grep { /\|x/ } split /\n/, rows($b, $all)), $expected, 'what is said of its children is done to those of the row that kept its name');
ends_as('x', $expected, 'they have the newest of all');
is(rows($b, q{SELECT id FROM parent WHERE name = 'x'}), $id, 'and it is the same row');

# another name, before it is told that the first one is gone: newer than what has won
family('y');
on($a, q{UPDATE parent SET name = 'y too' WHERE name = 'y'});
on($b, q{UPDATE parent SET n = 1 WHERE name = 'y'});
sync($a, 'b');
on($a, q{UPDATE parent SET name = 'y three' WHERE name = 'y too'});
$id = rows($b, q{SELECT id FROM parent WHERE name = 'y'});
sync($a, 'b');
is(rows($b, q{SELECT id FROM parent WHERE name = 'y three'}), $id, 'a name that is newer than what has won is the one of the same row');
ends_as('y', 'child|y three/c1|0 child|y three/c2|0 child|y three/c3|0 child_tag|y three/c1/y| child_tag|y three/c2/y| child_tag|y three/c3/y| parent|y three|0', 'and all have it');

# what is called so later is another row
on($a, q{INSERT INTO parent (name, n) VALUES ('y too', 5), ('x too', 6)});
ends_as('[xy] too', 'parent|x too|6 parent|y too|5', 'a new row may have the name that was refused');

# the same by way of a third node, which knows nothing of the name: it has deleted what refers to the row
family('z');
on($a, q{UPDATE parent SET name = 'z too' WHERE name = 'z'});
on($b, q{UPDATE parent SET n = 1 WHERE name = 'z'});
on($c, 'DELETE FROM child_tag WHERE child_id = (SELECT id FROM child WHERE ' . child_of('z', 'c1') . ')', 'DELETE FROM child WHERE ' . child_of('z', 'c2'));
sync($a, 'b');
sync($c, 'a');
sync($a, 'b');
ends_as('z', 'child|z/c1|0 child|z/c3|0 child_tag|z/c3/z| parent|z|1', 'deletes that come by way of who has renamed the row');

# a name that was refused is no change of the row: the log does not show it, and when it is folded, it takes the place of none
family('v');
on($b, q{SELECT synchro.pause('c')}, q{UPDATE parent SET n = 1 WHERE name = 'v'});
my $shown = q{SELECT count(*), max(c.changed_at) FROM synchro.changes c JOIN parent p ON p.id::text = c.key WHERE c.relation = 'parent'::regclass AND p.name = 'v'};
my $before = rows($b, $shown);

on($a, q{UPDATE parent SET name = 'v too' WHERE name = 'v'}, 'DELETE FROM child WHERE ' . child_of('v too', 'c2'));
$a->safe_psql('postgres', q{UPDATE parent SET name = 'v three' WHERE name = 'v too'});
on($b, q{UPDATE parent SET n = 2 WHERE name = 'v'});
sync($a, 'b');
is(rows($b, $shown) =~ s/\|.*//r, ($before =~ s/\|.*//r) + 1, 'the log shows the changes only');
$b->safe_psql('postgres', $_) foreach 'CREATE TABLE filler (id int PRIMARY KEY, n int)', q{SELECT synchro.add_table('filler')}, 'INSERT INTO filler SELECT i, 0 FROM generate_series(1, 2000) i';
$_->safe_psql('postgres', 'CREATE TABLE filler (id int PRIMARY KEY, n int); GRANT SELECT, INSERT, UPDATE, DELETE ON filler TO sync') foreach $a, $c;
update_often($b, 'filler', 25);

# a remote counts as behind after some seconds only
my $until = time + $PostgreSQL::Test::Utils::timeout_default;
my $folded = q{SELECT count(*) < 25000 FROM synchro.changes WHERE relation = 'filler'::regclass};

while (rows($b, $folded) ne 't' && time < $until)
{
	$b->safe_psql('postgres', 'UPDATE filler SET n = n + 1');
	sync($b, 'a');
}
is(rows($b, $folded), 't', 'the log has been folded');
on($a, 'DELETE FROM child_tag WHERE child_id = (SELECT id FROM child WHERE ' . child_of('v', 'c1') . ')');
on($b, q{SELECT synchro.resume('c')});
ends_as('v', 'child|v/c1|0 child|v/c3|0 child_tag|v/c3/v| parent|v|2', 'a change before it gets to who was behind');

#
# rows that follow one which is made anew, while their delete is under way
#
family('w');
on($b, <<'SQL');
CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(42); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER wait_here AFTER DELETE ON child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (current_user = 'sync') EXECUTE FUNCTION wait_here();
SQL
on($a, q{DELETE FROM parent WHERE name = 'w'});
on($b, q{UPDATE parent SET n = 1 WHERE name = 'w'});
my $holder = $b->background_psql('postgres');

sub begin_push
{
	my ($from, $to) = @_;
	my $session = $from->background_psql('postgres', on_error_stop => 0);

	$session->query_until(qr/begun/, "\\echo begun\nSELECT message FROM synchro.synchronize('$to');\n\\echo ended\n");
	return $session;
}

$holder->query_safe('SELECT pg_advisory_lock(42)');
my $deleting = begin_push($a, 'b');

ok($b->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted}),
	'the delete of the children has been decided about and done, and is not committed yet');
my $making = begin_push($b, 'a');

# it must wait for the rows that follow; a second push shows what becomes of them if it does not
ok($b->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'synchro%' AND query LIKE '%rows that follow%'}),
	'the other node would make the row anew');
is(rows($a, q{SELECT count(*) FROM parent WHERE name = 'w'}), '0', 'and has not got it yet');
ok($b->poll_query_until('postgres', <<'SQL'), 'the worker that has it made waits for the children, or is done');
SELECT count(*) FILTER (WHERE wait_event_type = 'Lock') > 0 OR count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'synchro%'
SQL
my $done = rows($b, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'synchro%'}) == 0;

ok(!$done, 'it waits');
sync($b, 'a') if $done;
$holder->query_safe('SELECT pg_advisory_unlock(42)');
foreach my $session ($deleting, $making)
{
	$session->query('\echo all');
	is($session->{stderr}, '', 'the push gets through');
	$session->quit;
}
$holder->quit;
ends_as('w', 'parent|w|1', 'the children are gone');
$_->stop('fast') foreach $a, $b, $c;
done_testing();
