# WHY: another width of integers is no alteration of a key, so what was logged before it is read with the width that the column has now.
# A number for which that has no room cannot be any row's that is there, but cut down to what there is room for it is another
# row's: on the remote that one would be deleted, or have its name taken. Nothing else says which row was meant, so the table has to
# stall until the column can hold it again; and only then, as wider keys are the usual migration, and narrower ones follow renumbering.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');
my $failed = q{SELECT relation, sqlstate, message FROM synchro.failures ORDER BY 1};

sub here { return $local->safe_psql('postgres', "SET client_min_messages = error; $_[0]") }

both($local, $remote, <<'SQL');
CREATE TABLE given (id bigint PRIMARY KEY, name text);
CREATE TABLE named (id serial PRIMARY KEY, no bigint NOT NULL UNIQUE);
CREATE TABLE remembered (id bigserial PRIMARY KEY, name text);
CREATE TABLE other (id bigint PRIMARY KEY);
SQL
$remote->safe_psql('postgres', q{SELECT setval('remembered_id_seq', 1000); INSERT INTO given VALUES (2, 'own'); INSERT INTO named (no) VALUES (2)});
connect_remote($local, $remote);

# 4294967297 is 1 in 32 bits, and 4294967298 is 2
here(<<'SQL');
SELECT synchro.add_table('given'), synchro.add_table('named', '{no}'), synchro.add_table('remembered'), synchro.add_table('other');
INSERT INTO given VALUES (1, 'one'), (4294967297, 'large'), (4294967298, 'larger');
INSERT INTO named (no) VALUES (1), (4294967297), (4294967298);
INSERT INTO remembered VALUES (1, 'one'), (4294967297, 'large'), (4294967298, 'moved');
INSERT INTO other VALUES (1);
SQL
sync($local, 'office');
here(<<'SQL');
DELETE FROM given WHERE id > 2;
DELETE FROM named WHERE no = 4294967297;
UPDATE named SET no = 3 WHERE no = 4294967298;
DELETE FROM remembered WHERE id = 4294967297;
UPDATE remembered SET id = 2, name = 'moved on' WHERE id = 4294967298;
ALTER TABLE given ALTER id TYPE int;
ALTER TABLE named ALTER no TYPE int;
ALTER TABLE remembered ALTER id TYPE int;
ALTER TABLE other ALTER id TYPE int;
INSERT INTO other VALUES (2);
SQL
sync($local, 'office') foreach 1 .. 4;
is(rows($local, $failed), join("\n", map { "$_|55000|a key of table public.$_ has been made too narrow for changes that are pending" } qw(given named remembered)), 'the tables stall');
is(rows($remote, 'SELECT count(*) FROM given'), '4', 'nothing is deleted');
is(rows($remote, 'SELECT string_agg(no::text, $$ $$ ORDER BY no) FROM named'), '1 2 4294967297 4294967298', '... nor renamed');
same($local, $remote, 'SELECT id FROM other ORDER BY id', 'a table all of whose ids have room is pushed');

# what the hint says
here('ALTER TABLE given ALTER id TYPE bigint; ALTER TABLE named ALTER no TYPE bigint; ALTER TABLE remembered ALTER id TYPE bigint; SELECT synchro.retry()');
sync($local, 'office');
here('ALTER TABLE given ALTER id TYPE int; ALTER TABLE named ALTER no TYPE int; ALTER TABLE remembered ALTER id TYPE int');
here(q{UPDATE given SET name = 'one.'; UPDATE remembered SET name = name || '.'});
sync($local, 'office');
is(rows($remote, 'SELECT id, name FROM given ORDER BY id'), "1|one.\n2|own", 'mode primary key: what was deleted is gone, and nothing else');
is(rows($remote, 'SELECT no FROM named ORDER BY no'), "1\n2\n3", 'natural key: likewise, and what was renamed has its name');
same($local, $remote, 'SELECT name FROM remembered ORDER BY name', 'mode reference: likewise, and what has another id is the row that it was');
is(rows($local, $failed), '', 'nothing has failed');

done_testing();
