# WHY: where the remote refuses a row's new name, it goes on calling that row what it did, while here others may have taken the
# name that was given up. Then a name alone no longer tells which row is meant; a row that refers to another by it must not get
# a stranger for its parent, nor one that has the name now be taken for the one that kept it there.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE plain (id serial PRIMARY KEY, label text NOT NULL, parent_id int NOT NULL REFERENCES parents);
CREATE TABLE trees (id serial PRIMARY KEY, up_id int REFERENCES trees, name text NOT NULL, UNIQUE (up_id, name));
CREATE TABLE leaves (id serial PRIMARY KEY, label text NOT NULL, tree_id int NOT NULL REFERENCES trees);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('parents_id_seq', 1000000), setval('plain_id_seq', 2000000), setval('trees_id_seq', 3000000), setval('leaves_id_seq', 4000000);
ALTER TABLE parents ADD CONSTRAINT no_z CHECK (name NOT LIKE 'z%');
ALTER TABLE trees ADD CONSTRAINT no_z CHECK (name NOT LIKE 'z%');
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parents', '{name}'), synchro.add_table('plain'), synchro.add_table('trees', '{up_id,name}'), synchro.add_table('leaves');
INSERT INTO parents (name) VALUES ('x'), ('y'), ('u');
INSERT INTO plain (label, parent_id) VALUES ('x1', 1), ('y1', 2), ('u1', 3);
INSERT INTO trees (up_id, name) VALUES (NULL, 'root'), (1, 'x'), (1, 'y'), (1, 'u'), (2, 'twig'), (3, 'twig'), (4, 'twig');
INSERT INTO leaves (label, tree_id) SELECT name || id, id FROM trees;
SQL
sync($local, 'office');

my $plain = 'SELECT x.label, p.name FROM plain x JOIN parents p ON p.id = x.parent_id ORDER BY x.label';
my $leaves = <<'SQL';
WITH RECURSIVE paths AS (SELECT id, name AS path FROM trees WHERE up_id IS NULL UNION ALL SELECT t.id, p.path || '.' || t.name FROM trees t JOIN paths p ON p.id = t.up_id)
SELECT l.label, p.path FROM leaves l JOIN paths p ON p.id = l.tree_id ORDER BY l.label
SQL
same($local, $remote, $plain, 'all is there');
same($local, $remote, $leaves, 'and the trees');

sub failures
{
	return rows($local, q{SELECT string_agg(concat_ws(' ', relation, key, operation, sqlstate), ', ' ORDER BY relation::text, key) FROM synchro.failures});
}

# 'y' becomes what is refused, so 'x' cannot become 'y' there; a new row is called 'x', and one 'u' is there anew.
$local->safe_psql('postgres', <<'SQL');
UPDATE parents SET name = 'z' WHERE name = 'y';
UPDATE parents SET name = 'y' WHERE name = 'x';
INSERT INTO parents (name) VALUES ('x');
INSERT INTO plain (label, parent_id) VALUES ('x2', 1), ('y2', 2), ('new', 4);
UPDATE plain SET label = label || '!' WHERE label IN ('x1', 'y1');
SQL
sync($local, 'office');
is(failures(), 'parents 1 update 23505, parents 2 update 23514, parents 4 insert 23505, plain 6 insert 23503', 'the names are refused, and the row whose parent is not there');
my $kept = "u1|u\nx1!|x\nx2|x\ny1!|y\ny2|y";
is(rows($remote, $plain), $kept, 'the others are under their parents, whatever these are called');

# in later passes, as long as it waits
$local->safe_psql('postgres', q{INSERT INTO plain (label, parent_id) VALUES ('x3', 1), ('y3', 2); UPDATE plain SET parent_id = 1 WHERE label = 'u1'});
sync($local, 'office');
is(rows($remote, $plain), "u1|x\nx1!|x\nx2|x\nx3|x\ny1!|y\ny2|y\ny3|y", 'the same as long as they wait');

# what is renamed once more goes by what it is called there
$local->safe_psql('postgres', q{UPDATE parents SET name = 'v' WHERE name = 'y'; INSERT INTO plain (label, parent_id) VALUES ('v4', 1)});
sync($local, 'office');
is(rows($remote, q{SELECT string_agg(x.label, ' ' ORDER BY x.label) FROM plain x JOIN parents p ON p.id = x.parent_id WHERE p.name = 'v'}), 'u1 v4 x1! x2 x3', 'another name is not refused');
sync($local, 'office');
is(failures(), 'parents 2 update 23514', 'and what waited for its name has got it');
$local->safe_psql('postgres', q{INSERT INTO parents (name) VALUES ('y'); INSERT INTO plain (label, parent_id) SELECT 'y5', id FROM parents WHERE name = 'y'});
sync($local, 'office');
is(failures(), 'parents 2 update 23514, parents 5 insert 23505, plain 10 insert 23503', 'a name that is kept there is not free');
$remote->safe_psql('postgres', 'ALTER TABLE parents DROP CONSTRAINT no_z');
sync($local, 'office');
sync($local, 'office');
is(failures(), '', 'nothing is refused any more');
same($local, $remote, $plain, 'and all is the same');

# the same with paths
$local->safe_psql('postgres', <<'SQL');
UPDATE trees SET name = 'z' WHERE up_id = 1 AND name = 'y';
UPDATE trees SET name = 'y' WHERE up_id = 1 AND name = 'x';
INSERT INTO trees (up_id, name) VALUES (1, 'x');
INSERT INTO trees (up_id, name) SELECT id, 'twig' FROM trees WHERE up_id = 1 AND name = 'x';
INSERT INTO leaves (label, tree_id) SELECT t.name || ' of ' || u.name, t.id FROM trees t JOIN trees u ON u.id = t.up_id;
SQL
sync($local, 'office');
is(rows($remote, q{SELECT string_agg(l.label, ', ' ORDER BY l.label) FROM leaves l JOIN trees t ON t.id = l.tree_id JOIN trees u ON u.id = t.up_id WHERE u.name = 'y' AND t.name = 'twig'}),
	'twig of z, twig6', 'trees: below the one that waits is what belongs there');
is(rows($remote, q{SELECT string_agg(l.label, ', ' ORDER BY l.label) FROM leaves l JOIN trees t ON t.id = l.tree_id JOIN trees u ON u.id = t.up_id WHERE u.name = 'x' AND t.name = 'twig'}),
	'twig of y, twig5', 'trees: and below the one that waits for its name');
$remote->safe_psql('postgres', 'ALTER TABLE trees DROP CONSTRAINT no_z');
sync($local, 'office') foreach 1 .. 3;
is(failures(), '', 'trees: nothing is refused any more');
same($local, $remote, $leaves, 'trees: and all is the same');

# the same where nothing but foreign keys is the key: what refers to such a row stays with it, and its place is not free
both($local, $remote, <<'SQL');
CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE groups (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE member (user_id int REFERENCES users ON UPDATE CASCADE, group_id int REFERENCES groups ON UPDATE CASCADE, role text, PRIMARY KEY (user_id, group_id));
CREATE TABLE duty (id serial PRIMARY KEY, name text NOT NULL UNIQUE, user_id int, group_id int, FOREIGN KEY (user_id, group_id) REFERENCES member ON UPDATE CASCADE);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('users_id_seq', 1000), setval('groups_id_seq', 2000);
ALTER TABLE member ADD CONSTRAINT no_boss CHECK (role <> 'boss');
CREATE TABLE badge (id serial PRIMARY KEY, role text, user_id int, group_id int, FOREIGN KEY (user_id, group_id) REFERENCES member ON DELETE CASCADE ON UPDATE CASCADE);
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('users', '{name}'), synchro.add_table('groups', '{name}'), synchro.add_table('member'), synchro.add_table('duty', '{name}');
INSERT INTO users (name) VALUES ('u1'), ('u2');
INSERT INTO groups (name) VALUES ('g1'), ('g2'), ('g3');
INSERT INTO member VALUES (1, 1, 'a'), (2, 1, 'b');
INSERT INTO duty (name, user_id, group_id) VALUES ('da', 1, 1), ('db', 2, 1);
SQL
sync($local, 'office');
$remote->safe_psql('postgres', 'INSERT INTO badge (role, user_id, group_id) SELECT role, user_id, group_id FROM member');
my $members = q{SELECT u.name, g.name, m.role, (SELECT string_agg(d.name, ',' ORDER BY d.name) FROM duty d WHERE (d.user_id, d.group_id) = (m.user_id, m.group_id))
	FROM member m JOIN users u ON u.id = m.user_id JOIN groups g ON g.id = m.group_id ORDER BY 1, 2};
my $badges = 'SELECT b.role, u.name, g.name FROM badge b LEFT JOIN users u ON u.id = b.user_id LEFT JOIN groups g ON g.id = b.group_id ORDER BY 1';
$local->safe_psql('postgres', q{UPDATE member SET group_id = 2, role = 'boss' WHERE user_id = 1});
my $refused = sync($local, 'office');
is("$refused->{failed}|$refused->{deleted}", '2|0', 'pairs: one that is refused stays where it is');
is(rows($remote, $members), "u1|g1|a|da\nu2|g1|b|db", 'pairs: as it was');
is(rows($remote, $badges), "a|u1|g1\nb|u2|g1", 'pairs: with what refers to it there');
$local->safe_psql('postgres', q{INSERT INTO duty (name, user_id, group_id) VALUES ('d2', 1, 2); UPDATE users SET name = 'u9' WHERE id = 1});
sync($local, 'office');
is(rows($remote, $members), "u2|g1|b|db\nu9|g1|a|da", 'pairs: it goes with the rows that it names; what refers to its new place waits, too');
$local->safe_psql('postgres', q{UPDATE member SET role = 'ok' WHERE role = 'boss'});
sync($local, 'office') foreach 1 .. 2;
is(failures(), '', 'pairs: nothing is refused any more');
same($local, $remote, $members, 'pairs: and all is the same');
is(rows($remote, $badges), "a|u9|g2\nb|u2|g1", 'pairs: what refers to it there has moved, too');

# its place is taken meanwhile: there each is then the row that has its place
$local->safe_psql('postgres', q{UPDATE member SET group_id = 1, role = 'boss' WHERE user_id = 1});
sync($local, 'office');
$local->safe_psql('postgres', q{INSERT INTO member VALUES (1, 2, 'new one'), (2, 2, 'c')});
sync($local, 'office');
is(failures(), 'duty 1 update 23503, duty 3 update 23503, member 1, 1 update 23514, member 1, 2 insert 23505', 'pairs: its place is not free for another one, but others are');
is(rows($remote, $members), "u2|g1|b|db\nu2|g2|c|\nu9|g2|ok|d2,da", 'pairs: it stays as it was');
$local->safe_psql('postgres', q{UPDATE member SET role = 'fine' WHERE role = 'boss'});
sync($local, 'office') foreach 1 .. 2;
is(failures(), '', 'pairs: once more nothing is refused');
same($local, $remote, $members, 'pairs: and all is the same');

# exchanged places, of which one is refused
$local->safe_psql('postgres', q{BEGIN; UPDATE member SET group_id = 3, role = 'boss' WHERE (user_id, group_id) = (1, 1); UPDATE member SET group_id = 1 WHERE (user_id, group_id) = (1, 2);
	UPDATE member SET group_id = 2 WHERE (user_id, group_id) = (1, 3); COMMIT});
is(sync($local, 'office')->{deleted}, 0, 'pairs: of two that exchange their places none goes if one is refused');
$local->safe_psql('postgres', q{UPDATE member SET role = 'ok too' WHERE role = 'boss'; SELECT synchro.retry()});
sync($local, 'office') foreach 1 .. 2;
is(failures(), '', 'pairs: both are exchanged when it is mended');
same($local, $remote, $members, 'pairs: and all is the same');

# its place was another one's, which is deleted
$local->safe_psql('postgres', q{INSERT INTO users (name) VALUES ('u3'); INSERT INTO member SELECT id, g, 'c' || g FROM users, generate_series(1, 2) g WHERE name = 'u3'});
sync($local, 'office');
my $of_3 = q{SELECT g.name, m.role FROM member m JOIN users u ON u.id = m.user_id JOIN groups g ON g.id = m.group_id WHERE u.name = 'u3'};
$local->safe_psql('postgres', q{BEGIN; DELETE FROM member WHERE role = 'c2'; UPDATE member SET group_id = 2, role = 'boss' WHERE role = 'c1'; COMMIT});
sync($local, 'office');
is(rows($remote, $of_3), 'g1|c1', 'pairs: the place of another one that is deleted: that one goes');
$local->safe_psql('postgres', q{DELETE FROM member WHERE role = 'boss'});
sync($local, 'office');
is(failures(), '', 'pairs: nothing is refused any more');
same($local, $remote, $members, 'pairs: and all is the same');

$local->stop('fast');
$remote->stop('fast');
done_testing();
