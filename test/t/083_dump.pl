# WHY: a dump is how databases are kept and moved. What synchro was told about tables and remotes must come back with it, on another
# server too; what must not come back is the right to speak for the original. And when it is let go, it must know its rows on
# the remote, and not insert them once more.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $other = synchro_node('other');
my $remote = synchro_node('remote');

$_->safe_psql('postgres', 'CREATE DATABASE shop') foreach $local, $remote;
my $tables = <<'SQL';
CREATE TABLE country (id serial PRIMARY KEY, code text UNIQUE NOT NULL);
CREATE TABLE customer (id serial PRIMARY KEY, country_id int REFERENCES country, email text UNIQUE NOT NULL, name text, secret text);
CREATE TABLE note (id serial PRIMARY KEY, customer_id int REFERENCES customer, what text);
CREATE TABLE alias (id serial PRIMARY KEY, name text NOT NULL, n int);
CREATE TABLE step (id int PRIMARY KEY, what text);
CREATE SEQUENCE step_id_seq START 3 INCREMENT 10 OWNED BY step.id;
ALTER TABLE step ALTER id SET DEFAULT nextval('step_id_seq');
CREATE TABLE ahead (id serial PRIMARY KEY, what text);
CREATE TABLE memo (gone int, id serial PRIMARY KEY, what text);
ALTER TABLE memo DROP gone;
CREATE TABLE part (region text, day date, n int, PRIMARY KEY (region, day)) PARTITION BY LIST (region);
CREATE TABLE part_north PARTITION OF part FOR VALUES IN ('north');
SQL
both($local, $remote, $tables, dbname => 'shop');
$remote->safe_psql('shop', q{SELECT setval('country_id_seq', 100), setval('customer_id_seq', 200), setval('note_id_seq', 300); INSERT INTO memo (what) VALUES ('own')});
connect_remote($local, $remote, dbname => 'shop', options => { keepalives_idle => 7 });
connect_remote($local, $remote, dbname => 'shop', name => 'idle', peer => 'none');
$local->safe_psql('shop', <<'SQL');
SET client_min_messages = warning;
SELECT synchro.register_natural_key('country', '{code}');
SELECT synchro.add_table('customer', '{email}', skip => '{secret}'), synchro.add_table('note'), synchro.add_table('alias', '{name}', allow_many => true),
	synchro.add_table('part'), synchro.add_table('step'), synchro.add_table('ahead'), synchro.add_table('memo');
SELECT synchro.pause('idle');
ALTER DATABASE shop SET synchro.buffer_size = '2MB';
CREATE FUNCTION quietly() RETURNS void LANGUAGE sql SET synchro.log_changes = off AS $$UPDATE customer SET name = upper(name)$$;
INSERT INTO country (code) VALUES ('at'), ('de');
INSERT INTO customer (country_id, email, name, secret) SELECT id, code || '@example.com', code, 'of here' FROM country;
INSERT INTO note (customer_id, what) SELECT id, 'note' FROM customer;
INSERT INTO alias (name, n) VALUES ('x', 1);
INSERT INTO part VALUES ('north', '2024-01-01', 1);
INSERT INTO step (what) VALUES ('first');
INSERT INTO ahead (what) VALUES ('first');
INSERT INTO memo (what) VALUES ('of here');
SQL
sync($local, 'office', dbname => 'shop');

# how its rows are found was decided when it was added; the number of its column is another one when it was restored
both($local, $remote, 'ALTER TABLE memo RENAME id TO number', dbname => 'shop');
$local->safe_psql('shop', 'ALTER TABLE memo ALTER number DROP DEFAULT');
is(rows($local, q{SELECT synchro.table_mode('memo')}, 'shop'), 'reference', 'a default is dropped, and its column renamed');
$local->safe_psql('shop', q{UPDATE customer SET name = 'pending' WHERE email = 'at@example.com'});

# what is to be kept, by names
my $kept = <<'SQL';
SELECT 'table ' || x::text FROM synchro.tables x
UNION ALL SELECT 'key ' || concat_ws(' ', relation, columns, allow_many) FROM synchro.natural_key
UNION ALL SELECT 'remote ' || r::text FROM synchro.remote r
UNION ALL SELECT concat_ws(' ', 'server', srvname, fdwname, (SELECT array_agg(o ORDER BY o) FROM unnest(srvoptions) o), pg_get_userbyid(srvowner)) FROM pg_foreign_server s JOIN pg_foreign_data_wrapper f ON f.oid = srvfdw
UNION ALL SELECT concat_ws(' ', 'mapping', srvname, usename, (SELECT array_agg(o ORDER BY o) FROM unnest(umoptions) o)) FROM pg_user_mappings
UNION ALL SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname, tgenabled, tgfoid::regproc) FROM pg_trigger WHERE tgname LIKE 'synchro%'
UNION ALL SELECT concat_ws(' ', 'setting', setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = current_database()
UNION ALL SELECT concat_ws(' ', 'function', proname, proconfig) FROM pg_proc WHERE proname = 'quietly'
UNION ALL SELECT concat_ws(' ', 'event trigger', evtname, evtenabled) FROM pg_event_trigger
UNION ALL SELECT concat_ws(' ', 'extension', extname, extversion) FROM pg_extension
ORDER BY 1
SQL

my $file = $local->basedir . '/shop.dump';
$local->command_ok([ 'pg_dump', '-Fc', '-d', $local->connstr('shop'), '-f', $file ], 'pg_dump');
$other->command_ok([ 'pg_restore', '--create', '--exit-on-error', '-d', $other->connstr('postgres'), $file ], 'pg_restore on another server, with the database');
same($local, $other, $kept, 'tables, keys, skips, remotes, triggers and settings are the same', dbname => 'shop');
same($local, $other, 'SELECT * FROM customer ORDER BY id', 'so are the rows', dbname => 'shop');
is(rows($other, q{SELECT synchro.table_mode('customer'), current_setting('synchro.buffer_size')}, 'shop'), 'natural key|2MB', 'the setting counts');

# held
is(rows($other, 'SELECT state FROM synchro.node', 'shop'), 'held', 'the restored database is held');
is(rows($local, 'SELECT state FROM synchro.node', 'shop'), 'active', 'the original is not');
$other->safe_psql('shop', q{UPDATE note SET what = 'changed in the copy' WHERE customer_id = (SELECT id FROM customer WHERE email = 'de@example.com')});
is(rows($other, 'SELECT count(*) FROM synchro.changes', 'shop'), '1', 'it logs changes; the log of the original is not there');
sync_fails($other, 'office', qr/55000.*is a copy and does not push/s, 'and pushes nothing', dbname => 'shop');
is(rows($remote, q{SELECT count(*) FROM note WHERE what LIKE 'changed%'}, 'shop'), '0', 'nothing has arrived');
$other->safe_psql('shop', 'SELECT quietly()');
is(rows($other, 'SELECT count(*) FROM synchro.changes', 'shop'), '1', 'functions that switch the log off still do');

# let go
my $rows = rows($remote, 'SELECT string_agg(id::text, $$,$$ ORDER BY id) FROM note', 'shop');
$other->safe_psql('shop', 'SELECT synchro.confirm_node()');
is(rows($other, 'SELECT state FROM synchro.node', 'shop'), 'active', 'confirm_node() lets it go');
is(sync($other, 'office', dbname => 'shop')->{failed}, 0, 'it pushes');
is(rows($remote, q{SELECT count(*) FROM note WHERE what = 'changed in the copy'}, 'shop'), '1', 'what was changed meanwhile has arrived');
is(rows($remote, 'SELECT string_agg(id::text, $$,$$ ORDER BY id) FROM note', 'shop'), $rows, 'in the rows that were there: references are taken over');
$other->safe_psql('shop', q{INSERT INTO customer (country_id, email, secret) SELECT id, 'new@example.com', 'of here' FROM country WHERE code = 'de'; INSERT INTO part VALUES ('north', '2024-01-02', 2)});
sync($other, 'office', dbname => 'shop');
is(rows($remote, q{SELECT code, secret FROM customer c JOIN country ON country.id = country_id WHERE email = 'new@example.com'}, 'shop'), 'de|', 'natural keys and skips count');
is(rows($remote, 'SELECT count(*) FROM part', 'shop'), '2', 'partitions are watched');
is(rows($other, q{SELECT state FROM synchro.remotes WHERE remote = 'idle'}, 'shop'), 'paused', 'what was paused still is');

$other->safe_psql('shop', q{UPDATE memo SET what = 'changed in the copy'});
sync($other, 'office', dbname => 'shop');
is(rows($remote, q{SELECT string_agg(what, ', ' ORDER BY number) FROM memo}, 'shop'), 'own, changed in the copy', 'references find rows where a default was dropped, and no other row is overwritten');

# what is pushed after the dump was made, and is not in it
$local->safe_psql('shop', q{INSERT INTO note (customer_id, what) SELECT 1, 'lost here ' || i FROM generate_series(1, 3) i;
	INSERT INTO step (what) SELECT 'lost here ' || i FROM generate_series(1, 3) i; INSERT INTO ahead (what) VALUES ('lost here')});
is(rows($local, 'SELECT max(id) FROM step', 'shop'), 33, 'ids are given by whole steps');
sync($local, 'office', dbname => 'shop');
$rows = rows($remote, 'SELECT string_agg(id::text, $$,$$ ORDER BY id) FROM note', 'shop');

# in the place of what it is a dump of: there it is for this database, as is what CREATE EXTENSION makes
$local->safe_psql('shop', 'SET client_min_messages = warning; DROP EXTENSION synchro CASCADE; DROP TABLE country, customer, note, alias, part, step, ahead, memo CASCADE; DROP FUNCTION quietly()');
$local->command_ok([ 'pg_restore', '--exit-on-error', '-d', $local->connstr('shop'), $file ], 'pg_restore into the same database');
is(rows($local, 'SELECT state FROM synchro.node', 'shop'), 'held', 'it is held, too');
$local->safe_psql('shop', q{SELECT setval('ahead_id_seq', 1000); SELECT synchro.confirm_node(); UPDATE note SET what = 'changed here'});
is(sync($local, 'office', dbname => 'shop')->{inserted}, 0, 'and knows its rows on the remote');
is(rows($remote, 'SELECT string_agg(id::text, $$,$$ ORDER BY id) FROM note', 'shop'), $rows, 'none is there twice');
$local->safe_psql('shop', q{INSERT INTO note (customer_id, what) VALUES (1, 'new')});
is(sync($local, 'office', dbname => 'shop')->{inserted}, 1, 'a new row is not taken for one that was lost');
is(rows($remote, q{SELECT string_agg(what, ', ' ORDER BY what) FROM note WHERE what ~ '^(new|lost)'}, 'shop'), 'lost here 1, lost here 2, lost here 3, new', 'so those stay on the remote');

is(rows($local, q{SELECT nextval('step_id_seq'), nextval('ahead_id_seq')}, 'shop'), '43|1001', 'ids go on by whole steps after those, and never back');

# a dump without one of the tables brings none of the registry: all triggers are there and do nothing, and that must be told
$_->safe_psql('postgres', 'CREATE DATABASE part') foreach $local, $other;
$local->safe_psql('part', <<'SQL');
CREATE EXTENSION synchro;
CREATE TABLE customers (id serial PRIMARY KEY, email text UNIQUE NOT NULL);
CREATE TABLE streets (town text, name text, PRIMARY KEY (town, name)) PARTITION BY LIST (town);
CREATE TABLE streets_a PARTITION OF streets FOR VALUES IN ('a');
CREATE TABLE towns (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE houses (town_id int REFERENCES towns, nr int, PRIMARY KEY (town_id, nr));
CREATE TABLE left_out (name text PRIMARY KEY);
SELECT synchro.register_natural_key('towns', '{name}');
SELECT synchro.add_table('customers', '{email}'), synchro.add_table('streets'), synchro.add_table('houses'), synchro.add_table('left_out');
SQL
my $unwatched = q{SELECT severity, relation, fix FROM synchro.check() WHERE problem LIKE 'table % is not watched%' ORDER BY relation::text};
is(rows($local, $unwatched, 'part'), '', 'all is watched');
$local->command_ok([ 'pg_dump', '-Fc', '-T', 'left_out', '-d', $local->connstr('part'), '-f', $file ], 'a dump without a table');
$other->command_fails([ 'pg_restore', '-d', $other->connstr('part'), $file ], 'its restore is not without errors');
is(rows($other, 'SELECT count(*) FROM synchro.tables', 'part'), '0', 'no table is watched');
my $once_more = q{-- watch it as it was before, with its natural key and skipped columns: SELECT synchro.add_table('public.%s'%s);};
is_deeply([ grep { /^error/ } split /\n/, rows($other, $unwatched, 'part') ], [
	'error|customers|' . sprintf($once_more, 'customers', q{, natural_key => '{email}'}), 'error|houses|' . sprintf($once_more, 'houses', ''), 'error|streets|' . sprintf($once_more, 'streets', '') ],
	'check() names those that were, and not what is only in a key, nor partitions');
$other->safe_psql('part', q{SELECT synchro.add_table('customers', '{email}'), synchro.add_table('streets')});
like(rows($other, $unwatched, 'part'), qr/^error\|houses\|/, 'those that are watched again are not named any more');
$other->safe_psql('part', q{SELECT synchro.remove_table('houses')});
is(rows($other, $unwatched, 'part'), '', 'nor is one that is not to be');
is(rows($other, q{SELECT string_agg(DISTINCT tgrelid::regclass::text, ' ') FROM pg_trigger WHERE tgname LIKE 'synchro%'}, 'part'), 'customers streets streets_a', 'it has no trigger any more');
like(($other->psql('part', q{SELECT synchro.remove_table('houses')}))[2], qr/table "houses" is not watched/, 'and that is all that is known of it');

# and away, without leaving anything
$other->safe_psql('shop', 'DROP EXTENSION synchro');
is(rows($other, q{SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'synchro%'), (SELECT count(*) FROM pg_foreign_server)}, 'shop'), '0|0', 'the extension can be dropped, and nothing is left');

$_->stop('fast') foreach $local, $other, $remote;
done_testing();
