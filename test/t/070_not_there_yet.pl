# WHY: the last batch of a pass names rows that were changed since the pass began, and one of a copy that deletes what only the remote
# has names all rows. A row that waits as it was refused when it was new must not be taken for that one of its name there which is to
# be deleted, whatever it is named for: that delete would be forgotten.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchro.batch_size = 10\n");
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int NOT NULL, note text, parent_id int REFERENCES parents);
CREATE TABLE filler (id serial PRIMARY KEY, n int NOT NULL UNIQUE, item_id int REFERENCES items);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('parents_id_seq', 1000000), setval('items_id_seq', 2000000), setval('filler_id_seq', 3000000);
CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE TRIGGER stop_here AFTER INSERT ON filler FOR EACH ROW WHEN (NEW.n = 55) EXECUTE FUNCTION stop_here();
ALTER TABLE items ADD CONSTRAINT small CHECK (v < 100);
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('parents', '{name}'), synchro.add_table('items', '{name}'), synchro.add_table('filler', '{n}');
	INSERT INTO parents (name) VALUES ('z'), ('y'); INSERT INTO items (name, v) VALUES ('c', 1), ('d', 1)});
sync($local, 'office');

# rows that were moved since the pass began: deletes of parents make the last batch name them
my $holder = $remote->background_psql('postgres');
my $pusher = $local->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(1)');
$local->safe_psql('postgres', q{BEGIN; DELETE FROM parents WHERE name = 'z'; DELETE FROM items WHERE name = 'c'; INSERT INTO items (name, v) VALUES ('c', 1000);
	INSERT INTO filler (n) SELECT generate_series(1, 100); COMMIT});
$pusher->query_until(qr/begun/, "\\echo begun\nSELECT * FROM synchro.synchronize('office');\n");
wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 'in the middle');
is(rows($local, 'SELECT relation, operation FROM synchro.failures'), 'items|insert', 'the new one waits');
$local->safe_psql('postgres', q{UPDATE items SET note = 'changed' WHERE name = 'c'});
$holder->quit;
$pusher->quit;
is(rows($remote, q{SELECT count(*) FROM items WHERE name = 'c'}), 0, 'moved: the deleted one is gone');
$local->safe_psql('postgres', q{DELETE FROM items WHERE name = 'c'});
sync($local, 'office') foreach 1 .. 2;
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'moved: nothing waits');
same($local, $remote, 'SELECT name, v FROM items ORDER BY name', 'moved: all is the same');

# all names, of a copy with delete_extra, where a delete waits on the remote
$remote->safe_psql('postgres', q{CREATE TABLE own (item_id int REFERENCES items); INSERT INTO own SELECT id FROM items WHERE name = 'd'});
$local->safe_psql('postgres', q{DELETE FROM items WHERE name = 'd'; INSERT INTO items (name, v) VALUES ('d', 1000), ('e', 1)});
sync($local, 'office');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 2, 'extra: the delete waits, and the insert');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'items', true)});
sync($local, 'office') foreach 1 .. 2;
$remote->safe_psql('postgres', 'DELETE FROM own');
$local->safe_psql('postgres', q{DELETE FROM items WHERE name = 'd'});
sync($local, 'office') foreach 1 .. 2;
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'extra: nothing waits');
same($local, $remote, 'SELECT name, v FROM items ORDER BY name', 'extra: all is the same');

$_->stop('fast') foreach $local, $remote;
done_testing();
