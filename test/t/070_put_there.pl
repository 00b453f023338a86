# WHY: a new row was put on the remote for the sake of a renamed one that refers to it. It was changed since, and refused when its own turn came
# in the same pass: it counted as one that had never arrived, so when it was deleted, nobody told the remote.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchro.batch_size = 10\n");
my $remote = synchro_node('remote');
both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int NOT NULL);
CREATE TABLE children (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int NOT NULL REFERENCES parents);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('parents_id_seq', 1000), setval('children_id_seq', 1000);
ALTER TABLE parents ADD CONSTRAINT small CHECK (v < 100);
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE TRIGGER gate AFTER UPDATE ON children FOR EACH ROW WHEN (NEW.name = 'c') EXECUTE FUNCTION gate();
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('parents', '{name}'), synchro.add_table('children', '{name}');
	INSERT INTO parents (name, v) SELECT 'f' || i, 1 FROM generate_series(1, 50) i; INSERT INTO children (name, parent_id) VALUES ('b', 1)});
sync($local, 'office');

# the child is renamed, so goes with the first batch; the new parent comes with the last one
my $gate = $remote->background_psql('postgres');
my $caller = $local->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(1)');
$local->safe_psql('postgres', q{BEGIN; UPDATE parents SET v = 2; INSERT INTO parents (name, v) VALUES ('n', 1);
	UPDATE children SET name = 'c', parent_id = (SELECT id FROM parents WHERE name = 'n'); COMMIT});
$caller->query_until(qr/begun/, "\\echo begun\nSELECT * FROM synchro.synchronize('office');\n");
wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 'in the first batch');
$local->safe_psql('postgres', q{UPDATE parents SET v = 1000 WHERE name = 'n'});
$gate->quit;
$caller->quit;
is(rows($remote, q{SELECT v FROM parents WHERE name = 'n'}), 1, 'it has gone along');
is(rows($local, 'SELECT relation, operation FROM synchro.failures'), 'parents|update', 'it waits, and is known to be there');
$local->safe_psql('postgres', q{DELETE FROM children; DELETE FROM parents WHERE name = 'n'});
sync($local, 'office') foreach 1 .. 2;
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'nothing waits');
same($local, $remote, q{SELECT name, v FROM parents ORDER BY 1}, 'all is the same');
$_->stop('fast') foreach $local, $remote;
done_testing();
