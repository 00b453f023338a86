# WHY: a NULL in a natural key is equal to a NULL. SQL says otherwise wherever two values are compared, and where a value is looked
# up that is not there yet, it is NULL as well. Either mistake is silent: a row that should go stays, or another one is written over.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE parent (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE tag (a text NOT NULL, b text, c int, note text, UNIQUE NULLS NOT DISTINCT (a, b, c));
CREATE TABLE country (id serial PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE category (id serial PRIMARY KEY, name text NOT NULL, up int REFERENCES category, country_id int REFERENCES country, note text,
	UNIQUE NULLS NOT DISTINCT (up, name, country_id));
SQL
$remote->safe_psql('postgres', q{SELECT setval(s, 1000) FROM unnest('{parent_id_seq, country_id_seq, category_id_seq}'::regclass[]) s});
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SET client_min_messages = warning; SELECT synchro.add_table('parent', '{name}'), synchro.add_table('tag', '{a,b,c}'),
	synchro.register_natural_key('country', '{code}'), synchro.add_table('category', '{up,name,country_id}')});

#
# deletes that go one by one, as one of them is refused
#
$local->safe_psql('postgres', <<'SQL');
INSERT INTO parent (name) VALUES ('x'), ('y');
INSERT INTO tag VALUES ('k', NULL, NULL, 'none'), ('k', NULL, 1, 'number'), ('k', '', 1, 'both'), ('it''s 100 %', NULL, NULL, 'odd'), ('NULL', NULL, 1, 'stays');
SQL
sync($local, 'office');
$remote->safe_psql('postgres', q{CREATE TABLE own (parent_id int REFERENCES parent); INSERT INTO own SELECT id FROM parent WHERE name = 'x'});
$local->safe_psql('postgres', q{DELETE FROM parent; DELETE FROM tag WHERE note <> 'stays'});
my $result = sync($local, 'office');
is("$result->{deleted} $result->{failed}", '5 1', 'one delete is refused, the others are done');
is(rows($remote, 'SELECT a, b, c, note FROM tag'), 'NULL||1|stays', 'of rows with NULLs in their keys, too, and of no other row');
is(rows($local, 'SELECT relation, hint FROM synchro.failures'), 'parent|Delete the rows there that refer to it, or have them refer to another one.', 'the one that is refused is shown');

# a row that waits for its delete comes back
$local->safe_psql('postgres', q{INSERT INTO tag VALUES ('k', NULL, 2, 'kept there')});
$remote->safe_psql('postgres', q{DELETE FROM own});
sync($local, 'office');
$remote->safe_psql('postgres', q{CREATE TABLE held (a text, b text, c int); CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'held'; END$$;
	CREATE TRIGGER hold BEFORE DELETE ON tag FOR EACH ROW EXECUTE FUNCTION hold()});
$local->safe_psql('postgres', q{DELETE FROM tag WHERE c = 2});
is(sync($local, 'office')->{failed}, 1, 'a delete of a row with NULLs waits');
$local->safe_psql('postgres', q{INSERT INTO tag VALUES ('k', NULL, 2, 'again')});
$remote->safe_psql('postgres', 'DROP TRIGGER hold ON tag');
is(sync($local, 'office')->{failed}, 0, 'and is called off when there is such a row again');
same($local, $remote, 'SELECT * FROM tag ORDER BY note', 'tags are the same');

#
# a row in a tree whose other parent is new is not the one that has none
#
my $categories = 'SELECT g.name, u.name, c.code, g.note FROM category g LEFT JOIN category u ON u.id = g.up LEFT JOIN country c ON c.id = g.country_id ORDER BY 1, 2, 3';

$local->safe_psql('postgres', q{INSERT INTO category (name, note) VALUES ('Food', 'global'); INSERT INTO category (name, up, note) SELECT 'Bread', id, 'global' FROM category});
sync($local, 'office');
my $ids = rows($remote, 'SELECT id, name, note FROM category ORDER BY id');
$local->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO country (code) VALUES ('FR');
INSERT INTO category (name, country_id, note) SELECT 'Food', id, 'French' FROM country;
INSERT INTO category (name, up, country_id, note) SELECT 'Bread', g.id, c.id, 'French' FROM category g, country c WHERE g.name = 'Food' AND g.country_id IS NULL;
COMMIT;
SQL
is(sync($local, 'office')->{failed}, 0, 'rows with a new parent');
same($local, $remote, $categories, 'are rows of their own');
is(rows($remote, q{SELECT id, name, note FROM category WHERE note = 'global' ORDER BY id}), $ids, 'the rows that have none are what they were');
$local->safe_psql('postgres', q{UPDATE category SET note = note || ', changed'; UPDATE category SET country_id = NULL, name = 'Free' WHERE name = 'Bread' AND country_id IS NOT NULL});
sync($local, 'office');
same($local, $remote, $categories, 'changed and renamed to NULL');
is(rows($remote, 'SELECT count(*) FROM category'), 4, 'none is there twice');

#
# what the remote says of rows that are known by such a key, and have no other: a parent that is missing, several rows there
#
both($local, $remote, <<'SQL');
CREATE TABLE label (a text NOT NULL, c int, v int, UNIQUE NULLS NOT DISTINCT (a, c));
CREATE TABLE labelled (id int PRIMARY KEY, a text, c int, FOREIGN KEY (a, c) REFERENCES label (a, c));
CREATE TABLE loose (a text NOT NULL, c int, v int);
SQL
grant_dml($remote);
$remote->safe_psql('postgres', q{ALTER TABLE label ADD CHECK (v < 100); INSERT INTO loose VALUES ('k', NULL, 1), ('k', NULL, 2)});
$local->safe_psql('postgres', q{ALTER TABLE loose ADD UNIQUE NULLS NOT DISTINCT (a, c); SET client_min_messages = warning;
	SELECT synchro.add_table('label', '{a,c}'), synchro.add_table('labelled'), synchro.add_table('loose', '{a,c}');
	INSERT INTO label VALUES ('k', 1, 1000); INSERT INTO labelled VALUES (1, 'k', 1); INSERT INTO loose VALUES ('k', NULL, 3), ('k', 1, 3)});
is(sync($local, 'office')->{failed}, 3, 'rows are parked');
is(rows($local, q{SELECT coalesce(detail, message) FROM synchro.failures WHERE relation <> 'label'::regclass ORDER BY relation::text}),
	qq(row of table public.label with key k,1, which it references, could not be applied either\nThe row's key here is k,NULL.), 'and it is told by which key');
is(rows($remote, 'SELECT a, c FROM loose WHERE v = 3'), 'k|1', 'others arrive');
$local->safe_psql('postgres', 'DELETE FROM labelled; DELETE FROM label; DELETE FROM loose');
sync($local, 'office');

#
# new ones that others refer to have claimed rows of the remote, come with a later batch, and are refused
#
$local->append_conf('postgresql.conf', 'synchro.batch_size = 10');
$local->reload;
foreach my $type ('int', 'text')
{
	both($local, $remote, <<"SQL");
CREATE SCHEMA of_$type;
CREATE TABLE of_$type.groups (id $type PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE of_$type.items (group_id $type REFERENCES of_$type.groups, name text NOT NULL, v int NOT NULL, UNIQUE NULLS NOT DISTINCT (group_id, name));
CREATE TABLE of_$type.uses (id serial PRIMARY KEY, name text NOT NULL UNIQUE, group_id $type, item text, FOREIGN KEY (group_id, item) REFERENCES of_$type.items (group_id, name));
SQL
	grant_dml($remote, schemas => ["of_$type"]);
	$local->safe_psql('postgres', <<"SQL");
SET search_path = of_$type;
SELECT synchro.add_table('groups', '{name}'), synchro.add_table('items', '{group_id,name}'), synchro.add_table('uses', '{name}');
INSERT INTO groups VALUES (1, 'g'), (2, 'h');
INSERT INTO items VALUES (1, 'p', 1), (2, 'q', 1);
INSERT INTO items SELECT 2, 'f' || i, 1 FROM generate_series(1, 30) i;
INSERT INTO uses (name, group_id, item) VALUES ('b', 2, 'q');
SQL
	sync($local, 'office');
	$remote->safe_psql('postgres', "ALTER TABLE of_$type.items ADD CHECK (v < 100)");
	$local->safe_psql('postgres', <<"SQL");
SET search_path = of_$type;
BEGIN;
UPDATE items SET v = 2 WHERE name LIKE 'f%';
DELETE FROM items WHERE name = 'p';
DELETE FROM groups WHERE name = 'g';
INSERT INTO groups VALUES (3, 'g');
INSERT INTO items VALUES (3, 'p', 1000);
UPDATE uses SET name = 'c', group_id = 3, item = 'p';
COMMIT;
SQL
	my (undef, undef, $stderr) = $local->psql('postgres', q{SELECT synchro.synchronize('office')});
	unlike($stderr, qr/ERROR/, "a new row that has claimed another one's is parked, by $type");
	sync($local, 'office');
	$local->safe_psql('postgres', "DELETE FROM of_$type.uses; DELETE FROM of_$type.items WHERE name = 'p'");
	sync($local, 'office') foreach 1 .. 2;
	same($local, $remote, "SELECT name, v FROM of_$type.items ORDER BY name", "what it has claimed goes with it, by $type");
}

$_->stop('fast') foreach $local, $remote;
done_testing();
