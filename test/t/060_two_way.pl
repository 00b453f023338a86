# WHY: two databases that both take writes must end up equal, with the later of two changes of a row, whichever is pushed
# first, and without sending back to each other what they have got.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');
my $schema = <<'SQL';
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE, n int, note text);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text, n int, UNIQUE (parent_id, name));
CREATE TABLE tag (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE child_tag (child_id int REFERENCES child ON DELETE CASCADE, tag_id int REFERENCES tag ON DELETE CASCADE, PRIMARY KEY (child_id, tag_id));
SQL

both($a, $b, $schema);
join_nodes($a, $b);
watch([$a, $b], parent => '{name}', child => '{parent_id,name}', tag => '{name}', child_tag => undef);

my $all = q{SELECT 'parent' AS what, name AS key, n::text, note FROM parent
	UNION ALL SELECT 'child', p.name || '/' || c.name, c.n::text, NULL FROM child c JOIN parent p ON p.id = c.parent_id
	UNION ALL SELECT 'child_tag', p.name || '/' || c.name || '/' || t.name, NULL, NULL FROM child_tag x JOIN child c ON c.id = x.child_id
		JOIN parent p ON p.id = c.parent_id JOIN tag t ON t.id = x.tag_id
	UNION ALL SELECT 'tag', name, NULL, NULL FROM tag ORDER BY 1, 2};

sub on
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# both hand out id 1
on($a, q{INSERT INTO parent (name, n) VALUES ('from a', 1), ('both', 1); INSERT INTO child (parent_id, name, n) VALUES (1, 'x', 1);
	INSERT INTO tag (name) VALUES ('red'); INSERT INTO child_tag VALUES (1, 1)});
on($b, q{INSERT INTO parent (name, n) VALUES ('from b', 2), ('both', 2); INSERT INTO child (parent_id, name, n) VALUES (1, 'y', 2);
	INSERT INTO tag (name) VALUES ('blue'); INSERT INTO child_tag VALUES (1, 1)});
settle($a, $b);
same($a, $b, $all, 'rows with the same ids and other keys are on both sides');
is(rows($a, q{SELECT n FROM parent WHERE name = 'both'}), '2', 'of a key that both have inserted there is one row, with the newer values');

# whichever pushes first
foreach my $order ([$a, $b], [$b, $a])
{
	my ($first, $second) = @$order;
	my $name = $first->name;

	on($a, "UPDATE parent SET n = 10, note = 'a of $name' WHERE name = 'from a'");
	on($b, "UPDATE parent SET n = 20, note = 'b of $name' WHERE name = 'from a'; UPDATE parent SET n = 20, note = 'b of $name' WHERE name = 'from b'");
	on($a, "UPDATE parent SET n = 30, note = 'a of $name' WHERE name = 'from b'");
	settle(@$order);
	same($a, $b, $all, "$name first: both are the same");
	is(rows($a, q{SELECT note FROM parent WHERE name LIKE 'from%' ORDER BY name}), "b of $name\na of $name", 'with the later change of each row');

	# delete and update
	on($a, "INSERT INTO parent (name, n) VALUES ('gone', 1), ('back', 1)");
	settle(@$order);
	on($a, "UPDATE parent SET n = 2 WHERE name = 'gone'; DELETE FROM parent WHERE name = 'back'");
	on($b, "DELETE FROM parent WHERE name = 'gone'; UPDATE parent SET n = 3 WHERE name = 'back'");
	settle(@$order);
	same($a, $b, $all, "$name first: a delete newer than an update wins, and the other way round");
	is(rows($a, q{SELECT name, n FROM parent WHERE name IN ('gone', 'back')}), 'back|3', 'as told');
	on($a, "DELETE FROM parent WHERE name = 'back'");

	# a natural key here, another column there
	on($a, "INSERT INTO parent (name, n) VALUES ('one', 1), ('two', 1)");
	settle(@$order);
	on($a, "UPDATE parent SET name = 'uno' WHERE name = 'one'; UPDATE parent SET n = 5 WHERE name = 'two'");
	on($b, "UPDATE parent SET n = 6 WHERE name = 'one'; UPDATE parent SET name = 'due' WHERE name = 'two'");
	settle(@$order);
	same($a, $b, $all, "$name first: a key changed here and another column there");
	is(rows($a, q{SELECT name, n FROM parent WHERE name IN ('one', 'uno', 'two', 'due') ORDER BY 1}), "due|1\none|6", 'leave one row each');
	on($a, q{DELETE FROM parent WHERE name IN ('one', 'uno', 'two', 'due')});
	settle(@$order);
}

# A parent is deleted there and changed here later, so its children go along when it is made anew: wherever the delete of the
# other side's own children comes in between.
foreach my $between (0, 1, 2)
{
	my $key = "follow $between";

	on($a, "INSERT INTO parent (name, n) VALUES ('$key', 1); INSERT INTO child (parent_id, name, n) SELECT id, 'z', 1 FROM parent WHERE name = '$key'");
	settle($a, $b);
	on($b, "DELETE FROM parent WHERE name = '$key'");
	on($a, "UPDATE parent SET n = 2 WHERE name = '$key'");
	sync($a) foreach 1 .. $between;
	sync($b);
	settle($a, $b);
	same($a, $b, $all, "a parent made anew: the same children on both sides, $between times pushed before the delete comes");
	is(rows($a, "SELECT n FROM parent WHERE name = '$key'"), '2', 'and the later change of the parent');
}

# The same where the parent has no other key than one with a column that may hold NULL, and is referenced by that, or by another
both($a, $b, q{CREATE TABLE berth (a text NOT NULL, c int, code text UNIQUE, n int, UNIQUE NULLS NOT DISTINCT (a, c));
	CREATE TABLE by_key (a text, c int, name text, UNIQUE (a, c, name), FOREIGN KEY (a, c) REFERENCES berth (a, c) ON DELETE CASCADE);
	CREATE TABLE by_code (code text REFERENCES berth (code) ON DELETE CASCADE, name text, UNIQUE (code, name))});
watch([$a, $b], berth => '{a,c}', by_key => '{a,c,name}', by_code => '{code,name}');
on($a, q{INSERT INTO berth VALUES ('k', 1, 'x', 1), ('k', NULL, 'y', 1); INSERT INTO by_key VALUES ('k', 1, 'z'); INSERT INTO by_code VALUES ('x', 'z'), ('y', 'z')});
settle($a, $b);
on($b, 'DELETE FROM berth');
on($a, 'UPDATE berth SET n = 2');
my (undef, undef, $trouble) = $a->psql('postgres', 'SELECT synchro.synchronize()');
unlike($trouble, qr/ERROR/, 'a parent made anew that may have a NULL in its key');
settle($a, $b);
same($a, $b, q{SELECT 'berth', a || coalesce(c, 0), n::text FROM berth UNION ALL SELECT 'key', a || c, name FROM by_key UNION ALL SELECT 'code', code, name FROM by_code ORDER BY 1, 2},
	'... is followed, too');
is(rows($a, 'SELECT (SELECT count(*) FROM berth), (SELECT count(*) FROM by_key), (SELECT count(*) FROM by_code)'), '2|1|2', '... by all that refers to it');

# A table that cannot be pushed, and of which nothing has changed but names
on($a, q{INSERT INTO parent (name, n) VALUES ('old name', 1)});
settle($a, $b);
on($b, 'REVOKE UPDATE ON parent FROM sync');
on($a, q{UPDATE parent SET name = 'new name' WHERE name = 'old name'; INSERT INTO tag (name) VALUES ('meanwhile')});
sync($a);
is(rows($a, 'SELECT relation, sqlstate FROM synchro.failures'), 'parent|42501', 'a table stalls of which there are only new names');
is(rows($b, q{SELECT count(*) FROM tag WHERE name = 'meanwhile'}), '1', '... and no other');
on($b, 'GRANT UPDATE ON parent TO sync');
on($a, q{SELECT synchro.retry('b')});
settle($a, $b);
same($a, $b, $all, 'it heals');

# What a node has got, the other one is told by its own pushes; where it has nothing to push, after many changes.
my $told = "SELECT snapshot FROM synchro_peer.position WHERE node = '" . rows($b, 'SELECT id FROM synchro.node') . "'";
my $before = rows($a, $told);
foreach my $many (0, 1)
{
	on($a, "INSERT INTO tag (name) SELECT 'many $many ' || i FROM generate_series(1, 500 + 1000 * $many) i");
	sync($a, 'b');
	like(sync($b, 'a')->{message}, qr/^No changes/, 'nothing is pushed back');
	my $after = rows($a, $told);

	$many ? isnt($after, $before, '... but that many changes have come') : is($after, $before, '... nor is anything told of a few');
}
$before = rows($a, $told);
sync($b, 'a');
is(rows($a, $told), $before, 'and only once');
on($a, q{DELETE FROM tag WHERE name LIKE 'many%'});
settle($a, $b);

# names that are equal and look different: a row that was made anew under such a one is older than the delete of the other
{
	my $names = q{SELECT tag::text, n FROM folded UNION ALL SELECT code::text, n FROM scaled UNION ALL SELECT p.tag || '/' || b.code, b.n FROM below b JOIN folded p ON p.id = b.folded_id ORDER BY 1};

	both($a, $b, q{CREATE EXTENSION citext; CREATE TABLE folded (id serial PRIMARY KEY, tag citext UNIQUE, n int); CREATE TABLE scaled (code numeric PRIMARY KEY, n int);
		CREATE TABLE below (id serial PRIMARY KEY, folded_id int REFERENCES folded ON DELETE CASCADE, code numeric, n int, UNIQUE (folded_id, code))});
	watch([$a, $b], folded => '{tag}', scaled => undef, below => '{folded_id,code}');
	on($a, q{INSERT INTO folded (tag, n) VALUES ('Red', 1), ('Blue', 1); INSERT INTO scaled VALUES (1.0, 1), (2.0, 1); INSERT INTO below (folded_id, code, n) SELECT id, 1.0, 1 FROM folded});
	settle($a, $b);
	on($b, q{DELETE FROM folded WHERE tag = 'Red'; DELETE FROM scaled WHERE code = 1; INSERT INTO folded (tag, n) VALUES ('RED', 2); INSERT INTO scaled VALUES (1.00, 2);
		DELETE FROM below; INSERT INTO below (folded_id, code, n) SELECT id, 1.00, 2 FROM folded});
	on($a, q{DELETE FROM folded WHERE tag = 'Red'; DELETE FROM scaled WHERE code = 1; DELETE FROM below});
	sync($b, 'a');
	is(rows($a, $names), "2.0|1\nBlue|1", 'what is older than the delete of a name that is equal has lost');
	settle($a, $b);
	same($a, $b, $names, 'names that look different: both are the same');
	is(rows($a, $names), "2.0|1\nBlue|1", 'deleted');
}

# a row that is deleted after what it refers to was renamed, where deletes wait for the pass's last batch
{
	my $rooms = q{SELECT code, 0, n FROM place UNION ALL SELECT place, no, n FROM room ORDER BY 1, 2};

	both($a, $b, q{CREATE TABLE place (id serial PRIMARY KEY, code text UNIQUE NOT NULL, n int);
		CREATE TABLE room (id serial PRIMARY KEY, place text NOT NULL REFERENCES place (code) ON UPDATE CASCADE, no int NOT NULL, n int, UNIQUE (place, no))});
	watch([$a, $b], place => '{code}', room => '{place,no}');
	on($a, q{INSERT INTO place (code, n) SELECT 'p' || i, 1 FROM generate_series(1, 5) i; INSERT INTO room (place, no, n) VALUES ('p1', 1, 1), ('p1', 2, 1)});
	settle($a, $b);
	on($a, q{LOAD 'synchro'; ALTER SYSTEM SET synchro.batch_size = 2});
	$a->reload;
	$a->poll_query_until('postgres', 'SHOW synchro.batch_size', '2') or die;
	on($a, q{UPDATE place SET code = 'p0' WHERE code = 'p1'; DELETE FROM room WHERE no = 2; UPDATE place SET n = 2; UPDATE room SET n = 2});
	settle($a, $b);
	same($a, $b, $rooms, 'deleted below a row that was renamed: both are the same');
	is(rows($b, 'SELECT place, no, n FROM room'), 'p0|1|2', 'without the deleted one');
	on($a, 'ALTER SYSTEM RESET synchro.batch_size');
	$a->reload;
}

# Of two parents that are deleted there, one has a child that is changed here later: the other one is not made anew with it, nor
# one that has only been renamed there
on($a, q{INSERT INTO parent (name, n) VALUES ('older', 1), ('newer', 1), ('called so', 1); INSERT INTO child (parent_id, name, n) SELECT id, 'k', 1 FROM parent WHERE n = 1 AND name IN ('older', 'newer', 'called so')});
settle($a, $b);
on($b, q{UPDATE child SET n = 2 WHERE name = 'k'});
on($a, q{DELETE FROM parent WHERE name IN ('older', 'newer'); UPDATE parent SET name = 'called otherwise' WHERE name = 'called so'});
on($b, q{UPDATE child SET n = 3 WHERE parent_id = (SELECT id FROM parent WHERE name = 'newer')});
settle($b, $a);
same($a, $b, $all, 'parents deleted and renamed: both are the same');
is(rows($a, q{SELECT p.name, c.n FROM parent p LEFT JOIN child c ON c.parent_id = p.id WHERE p.name IN ('older', 'newer', 'called so', 'called otherwise') ORDER BY 1}),
	"called otherwise|2\nnewer|3", 'only what is needed is made anew');

# a subtree that is deleted, after something below it was changed elsewhere, or before
{
	my $paths = q{WITH RECURSIVE d AS (SELECT id, name AS path, n FROM dir WHERE up IS NULL UNION ALL SELECT c.id, path || '/' || name, c.n FROM d JOIN dir c ON c.up = d.id)
		SELECT path, n FROM d ORDER BY 1};

	both($a, $b, 'CREATE TABLE dir (id serial PRIMARY KEY, up int REFERENCES dir ON DELETE CASCADE, name text, n int, UNIQUE NULLS NOT DISTINCT (up, name))');
	watch([$a, $b], dir => '{up,name}');
	foreach my $root (qw(old new))
	{
		on($a, qq{WITH r AS (INSERT INTO dir (name, n) VALUES ('$root', 1) RETURNING id), s AS (INSERT INTO dir (up, name, n) SELECT id, 'sub', 1 FROM r RETURNING id)
			INSERT INTO dir (up, name, n) SELECT id, name, 1 FROM s, (VALUES ('x'), ('y')) v(name)});
	}
	settle($a, $b);
	on($b, q{UPDATE dir SET n = 2 WHERE name = 'x' AND up = (SELECT d.id FROM dir d JOIN dir r ON r.id = d.up WHERE r.name = 'old')});
	on($a, q{DELETE FROM dir WHERE name IN ('old', 'new')});
	on($b, q{UPDATE dir SET n = 3 WHERE name = 'x' AND up = (SELECT d.id FROM dir d JOIN dir r ON r.id = d.up WHERE r.name = 'new')});
	settle($b, $a);
	same($a, $b, $paths, 'a subtree deleted: both are the same');
	is(rows($a, $paths), "new|1\nnew/sub|1\nnew/sub/x|3", 'what was changed before is gone, what was changed later is there, with what is above it');
	on($b, q{UPDATE dir SET n = 4 WHERE name = 'x'});
	on($a, q{UPDATE dir SET name = 'renamed' WHERE name = 'new'});
	settle($b, $a);
	same($a, $b, $paths, 'a root renamed: both are the same');
	is(rows($a, $paths), "renamed|1\nrenamed/sub|1\nrenamed/sub/x|4", 'with what was changed below it');
	on($b, q{DELETE FROM dir WHERE name = 'x'});
	on($a, q{UPDATE dir SET name = 'other' WHERE name = 'sub'});
	settle($b, $a);
	same($a, $b, $paths, 'a directory renamed: both are the same');
	is(rows($a, $paths), "renamed|1\nrenamed/other|1", 'without what was deleted below it');
}

# Stamps that are equal to the microsecond: both sides give the next one after what they are told to have seen. Then the
# node's id decides, the same way on both. This is the last of all, as it leaves their time in the future.
foreach my $order ([$a, $b], [$b, $a])
{
	my $name = 'equal, ' . $order->[0]->name . ' first';

	on($a, "INSERT INTO parent (name, n) VALUES ('$name', 0), ('$name, deleted', 0)");
	settle(@$order);
	my $seen = rows($a, q{SELECT (extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01Z') * 1000000)::bigint + 60000000});
	foreach my $node ($a, $b)
	{
		on($node, "SELECT setval('synchro.clock', $seen)");
		on($node, "UPDATE parent SET note = '" . $node->name . "' WHERE name = '$name'");
		on($node, $node == $a ? "UPDATE parent SET note = 'a' WHERE name = '$name, deleted'" : "DELETE FROM parent WHERE name = '$name, deleted'");
	}
	my $stamps = q{SELECT changed_at FROM synchro.changes ORDER BY changed_at DESC LIMIT 2};
	is(rows($a, $stamps), rows($b, $stamps), 'both have made two changes at the same times');
	settle(@$order);
	same($a, $b, $all, "$name: both are the same");
	my $winner = rows($a, 'SELECT id FROM synchro.node') gt rows($b, 'SELECT id FROM synchro.node') ? 'a' : 'b';
	is(rows($a, "SELECT note FROM parent WHERE name = '$name'"), $winner, 'the change of the node with the greater id has won');
	is(rows($a, "SELECT count(*) FROM parent WHERE name = '$name, deleted'"), $winner eq 'a' ? 1 : 0, 'so has its update, or delete');
	on($a, "DELETE FROM parent WHERE name LIKE '$name%'");
	settle(@$order);
}

# identities that begin with nothing
{
	my $words = q{SELECT word, n FROM word UNION ALL SELECT coalesce(region, 'NULL') || '/' || code, n FROM spot ORDER BY 1};

	both($a, $b, 'CREATE TABLE word (word text PRIMARY KEY, n int); CREATE TABLE spot (region text, code text, n int, UNIQUE NULLS NOT DISTINCT (region, code))');
	watch([$a, $b], word => undef, spot => '{region,code}');
	on($a, q{INSERT INTO word VALUES ('', 1), ('a', 1); INSERT INTO spot VALUES (NULL, 'x', 1), ('', 'x', 1)});
	settle($a, $b);
	same($a, $b, $words, 'an empty key, and one that begins with NULL');
	on($b, q{UPDATE word SET n = 2; UPDATE spot SET n = 2});
	settle($a, $b);
	same($a, $b, $words, 'changed');
	on($a, q{DELETE FROM word WHERE word = ''; DELETE FROM spot WHERE region IS NULL; UPDATE spot SET n = 3});
	settle($a, $b);
	same($a, $b, $words, 'deleted');
	is(rows($b, $words), "/x|3\na|2", 'the last changes are what is there');
}

note(rows($a, 'SELECT remote, relation, key, winner, ambiguous, loser FROM synchro.conflicts ORDER BY id'));
note(rows($b, 'SELECT remote, relation, key, winner, ambiguous, loser FROM synchro.conflicts ORDER BY id'));

$_->stop('fast') foreach $a, $b;
done_testing();
