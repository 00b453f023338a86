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

$_->stop('fast') foreach $local, $remote;
done_testing();
