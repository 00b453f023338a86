-- which tables are watched, by which keys, and the triggers that go with them
CREATE EXTENSION synchro;
CREATE SCHEMA shop;
SET search_path = shop;

-- the triggers that synchro made, with the tables that they are on
CREATE VIEW our_triggers AS
	SELECT t.tgrelid::regclass AS relation, t.tgname AS trigger, t.tgenabled AS enabled, t.tgparentid <> 0 AS of_root,
		   (t.tgtype & 4) <> 0 AS ins, (t.tgtype & 16) <> 0 AS upd, (t.tgtype & 8) <> 0 AS del, (t.tgtype & 32) <> 0 AS trunc,
		   EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
				   WHERE d.classid = 'pg_trigger'::regclass AND d.objid = t.oid AND d.deptype = 'x' AND e.extname = 'synchro') AS goes_along
	FROM pg_trigger t
	WHERE t.tgfoid IN (SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'synchro')
	ORDER BY t.tgrelid::regclass::text COLLATE "C", t.tgname;

--
-- the three modes
--
CREATE TABLE by_reference (id serial PRIMARY KEY, name text, cash int);
CREATE TABLE by_primary_key (name text PRIMARY KEY, cash int, visits int);
CREATE TABLE by_natural_key (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int, visits int);
CREATE TABLE by_identity (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
CREATE TABLE pair (a int REFERENCES by_reference, b int REFERENCES by_natural_key, PRIMARY KEY (a, b));
SELECT synchro.add_table('by_reference');
SELECT synchro.add_table('by_primary_key', skip => '{visits}');
SELECT synchro.add_table('by_natural_key', '{name}', '{visits}');
SELECT synchro.add_table('by_identity');
SELECT synchro.add_table('pair');
SELECT * FROM synchro.tables ORDER BY relation::text COLLATE "C";
SELECT * FROM our_triggers;

--
-- wrong input
--
CREATE VIEW a_view AS SELECT 1 AS one;
CREATE MATERIALIZED VIEW a_matview AS SELECT 1 AS one;
CREATE SEQUENCE a_sequence;
CREATE TYPE a_type AS (one int);
CREATE FOREIGN DATA WRAPPER a_wrapper;
CREATE SERVER a_server FOREIGN DATA WRAPPER a_wrapper;
CREATE FOREIGN TABLE a_foreign_table (one int) SERVER a_server;
CREATE TEMP TABLE a_temp_table (name text PRIMARY KEY);
CREATE UNLOGGED TABLE an_unlogged_table (name text PRIMARY KEY);
CREATE TABLE keyless (name text, cash int);
CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE, twin text, mail text NOT NULL, doc json,
				low text GENERATED ALWAYS AS (lower(name)) STORED, UNIQUE (mail, name));
SELECT synchro.add_table('a_view');
\echo :LAST_ERROR_SQLSTATE
SELECT synchro.add_table('a_matview');
SELECT synchro.add_table('a_sequence');
SELECT synchro.add_table('t_pkey');
SELECT synchro.add_table('a_type');
SELECT synchro.add_table('a_foreign_table');
SELECT synchro.add_table('a_temp_table');
SELECT synchro.add_table('pg_class');
SELECT synchro.add_table('information_schema.sql_features');
SELECT synchro.add_table('synchro.watched');
SELECT synchro.register_natural_key('a_view', '{one}');
SELECT synchro.register_natural_key('pg_class', '{relname}');
SELECT synchro.add_table('keyless');
\echo :LAST_ERROR_SQLSTATE
SELECT synchro.add_table(NULL);
SELECT synchro.add_table('t', '{nmae}');
\echo :LAST_ERROR_SQLSTATE
SELECT synchro.add_table('t', '{ctid}');
SELECT synchro.add_table('t', skip => '{nmae}');
SELECT synchro.add_table('t', '{name,mail,name}');
SELECT synchro.add_table('t', skip => '{mail,mail}');
SELECT synchro.add_table('t', '{}');
SELECT synchro.add_table('t', '{{name},{mail}}');
SELECT synchro.add_table('t', ARRAY[NULL]::name[]);
SELECT synchro.add_table('t', skip => ARRAY['name', NULL]::name[]);
-- more columns than an index can have are more than a key is kept with
SELECT format('CREATE TABLE wide (%s)', string_agg('c' || i || ' int DEFAULT 0 NOT NULL', ', ' ORDER BY i)) FROM generate_series(1, 33) i \gexec
SELECT synchro.add_table('wide', ARRAY(SELECT 'c' || i FROM generate_series(1, 33) i)::name[]);
SELECT synchro.register_natural_key('wide', ARRAY(SELECT 'c' || i FROM generate_series(1, 33) i)::name[]);
SET client_min_messages = warning;
SELECT synchro.add_table('wide', ARRAY(SELECT 'c' || i FROM generate_series(1, 32) i)::name[]);
RESET client_min_messages;
INSERT INTO wide VALUES (1);
UPDATE wide SET c32 = 1;
DROP TABLE wide;
SELECT synchro.add_table('t', '{id}');
SELECT synchro.add_table('t', '{name,id}');
SELECT synchro.add_table('t', '{doc}');
SELECT synchro.add_table('t', '{low}');
SELECT synchro.add_table('t', '{name}', '{name}');
\echo :LAST_ERROR_SQLSTATE
SELECT synchro.add_table('an_unlogged_table', skip => '{name}');
SELECT synchro.add_table('by_reference');
\echo :LAST_ERROR_SQLSTATE
SELECT synchro.remove_table('t');
SELECT synchro.remove_table('a_view');
SELECT synchro.alter_table('t', '{name}');
SELECT synchro.unregister_natural_key('t');
SELECT synchro.register_natural_key('t', NULL);
SELECT synchro.register_natural_key('t', '{}');
SELECT * FROM synchro.tables WHERE relation IN ('t'::regclass, 'keyless'::regclass, 'an_unlogged_table'::regclass);

--
-- notices: NULL in the key, nothing that keeps it unique
--
SELECT synchro.add_table('t', '{mail,name}');
SELECT synchro.alter_table('t', '{name,mail}');
SELECT synchro.alter_table('t', '{twin}');
SELECT synchro.alter_table('t', '{twin}', allow_many => true);
CREATE UNIQUE INDEX ON t (twin) WHERE twin <> '';
CREATE UNIQUE INDEX ON t (lower(twin));
CREATE UNIQUE INDEX ON t (twin, name) INCLUDE (mail);
SELECT synchro.alter_table('t', allow_many => false);
SELECT synchro.alter_table('t', '{name,twin}');
SELECT synchro.add_table('keyless', '{name}', allow_many => true);
SELECT synchro.alter_table('by_reference', allow_many => true);
SELECT synchro.add_table('an_unlogged_table');
SELECT * FROM synchro.tables WHERE relation IN ('t'::regclass, 'keyless'::regclass, 'an_unlogged_table'::regclass)
	ORDER BY relation::text COLLATE "C";

--
-- changing and removing; what stays when only one thing is given
--
SELECT synchro.alter_table('t', skip => '{twin}');
SELECT synchro.alter_table('t', '{mail}', '{twin,doc}');
SELECT synchro.alter_table('t', '{name}');
SELECT synchro.alter_table('t', skip => '{name}');
SELECT synchro.alter_table('t', '{twin}');
SELECT * FROM synchro.tables WHERE relation = 't'::regclass;
SELECT synchro.alter_table('t', skip => '{}');
SELECT * FROM synchro.tables WHERE relation = 't'::regclass;
SELECT synchro.unregister_natural_key('t');
SELECT * FROM synchro.tables WHERE relation = 't'::regclass;
SELECT synchro.unregister_natural_key('keyless');
SELECT synchro.remove_table('keyless');
SELECT synchro.remove_table('an_unlogged_table');
-- a key of its own outlives the watching, one of add_table does not
SELECT synchro.register_natural_key('t', '{name}');
SELECT synchro.remove_table('t');
SELECT synchro.table_mode('t');
SELECT synchro.add_table('t');
SELECT synchro.alter_table('t', '{mail,name}');
SELECT synchro.remove_table('t');
SELECT relation, columns FROM synchro.natural_key ORDER BY relation::text COLLATE "C";
SELECT synchro.unregister_natural_key('t');
SELECT synchro.add_table('t', '{name}');
SELECT synchro.remove_table('t');
SELECT synchro.table_mode('t');
SELECT * FROM our_triggers WHERE relation IN ('t'::regclass, 'keyless'::regclass);

-- a primary key that the remote may make up itself, once there is another key
CREATE TABLE with_uuid (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL UNIQUE);
SELECT synchro.add_table('with_uuid', skip => '{id}');
SELECT synchro.add_table('with_uuid', '{name}', '{id}');
SELECT synchro.unregister_natural_key('with_uuid');
SELECT synchro.remove_table('with_uuid');

--
-- tables inside a natural key, recursively; trees; circles
--
CREATE TABLE country (id serial PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE town (id serial PRIMARY KEY, country int NOT NULL REFERENCES country, name text NOT NULL, UNIQUE (country, name));
CREATE TABLE street (id serial PRIMARY KEY, town int NOT NULL REFERENCES town, name text NOT NULL,
					 mayor int REFERENCES by_reference, UNIQUE (town, name));
CREATE TABLE node (id serial PRIMARY KEY, parent int REFERENCES node, name text, UNIQUE (parent, name));
SELECT synchro.register_natural_key('country', '{code}');
SELECT synchro.register_natural_key('town', '{country,name}');
SELECT synchro.add_table('street', '{town,name}');
SELECT synchro.add_table('node', '{parent,name}');
SELECT * FROM our_triggers WHERE relation IN ('country'::regclass, 'town'::regclass, 'street'::regclass, 'node'::regclass);
-- one tree only, also where another table's key leads there
CREATE TABLE person (id serial PRIMARY KEY, name text, mother int REFERENCES person, father int REFERENCES person, UNIQUE (name, mother, father));
CREATE TABLE pet (id serial PRIMARY KEY, owner int NOT NULL REFERENCES person, name text NOT NULL, UNIQUE (owner, name));
SELECT synchro.register_natural_key('person', '{name,mother,father}');
\echo :LAST_ERROR_SQLSTATE
ALTER TABLE person DROP CONSTRAINT person_father_fkey;
SELECT synchro.register_natural_key('person', '{name,mother,father}');
ALTER TABLE person ADD FOREIGN KEY (father) REFERENCES person;
SELECT synchro.add_table('pet', '{owner,name}');
SELECT synchro.unregister_natural_key('person');
DROP TABLE pet, person;
-- watched as well, and no longer
SELECT synchro.add_table('town');
SELECT relation, trigger, ins, upd, del FROM our_triggers WHERE relation = 'town'::regclass;
SELECT synchro.remove_table('town');
SELECT relation, trigger, ins, upd, del FROM our_triggers WHERE relation = 'town'::regclass;
-- the foreign key goes: what is above it is not needed any more, and goes at
-- the next registration; the foreign key comes back
ALTER TABLE town DROP CONSTRAINT town_country_fkey;
SELECT synchro.alter_table('street');
SELECT relation, trigger FROM our_triggers WHERE relation IN ('country'::regclass, 'town'::regclass);
ALTER TABLE town ADD FOREIGN KEY (country) REFERENCES country;
SELECT relation, trigger FROM our_triggers WHERE relation IN ('country'::regclass, 'town'::regclass);
ALTER TABLE country ADD COLUMN capital int REFERENCES town;
SELECT synchro.register_natural_key('country', '{capital}');
\echo :LAST_ERROR_SQLSTATE
SELECT synchro.unregister_natural_key('town');
SELECT synchro.register_natural_key('town', '{name}');
SELECT relation, trigger FROM our_triggers WHERE relation IN ('country'::regclass, 'town'::regclass);
SELECT synchro.remove_table('street');
SELECT relation, trigger FROM our_triggers WHERE relation IN ('country'::regclass, 'town'::regclass, 'street'::regclass);
SELECT synchro.unregister_natural_key('town');
SELECT synchro.unregister_natural_key('country');

--
-- partitions
--
CREATE TABLE root (name text, day int, cash int, PRIMARY KEY (name, day)) PARTITION BY RANGE (day);
CREATE TABLE leaf1 PARTITION OF root FOR VALUES FROM (0) TO (10);
CREATE TABLE middle PARTITION OF root FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (day);
CREATE TABLE leaf2 PARTITION OF middle FOR VALUES FROM (10) TO (15);
SELECT synchro.add_table('leaf2');
SELECT synchro.register_natural_key('leaf1', '{name}');
SELECT synchro.add_table('root');
-- later ones, in three ways
CREATE TABLE leaf3 PARTITION OF middle FOR VALUES FROM (15) TO (20);
CREATE TABLE leaf4 (LIKE root INCLUDING ALL);
ALTER TABLE root ATTACH PARTITION leaf4 FOR VALUES FROM (20) TO (30);
CREATE SCHEMA annex
	CREATE TABLE leaf5 PARTITION OF shop.root FOR VALUES FROM (30) TO (40);
SELECT relation, trigger, enabled, of_root, ins, upd, del, trunc, goes_along FROM our_triggers
	WHERE relation::text ~ 'root|middle|leaf';
ALTER TABLE root DETACH PARTITION leaf4;
SELECT relation, trigger FROM our_triggers WHERE relation = 'leaf4'::regclass;
SELECT synchro.add_table('leaf4');
ALTER TABLE root ATTACH PARTITION leaf4 FOR VALUES FROM (20) TO (30);
SELECT synchro.remove_table('leaf4');
ALTER TABLE root ATTACH PARTITION leaf4 FOR VALUES FROM (20) TO (30);
SELECT synchro.remove_table('root');
SELECT relation, trigger FROM our_triggers WHERE relation::text ~ 'root|middle|leaf';
-- a table that was watched and becomes a partition goes on by itself
ALTER TABLE root DETACH PARTITION leaf4;
SELECT synchro.add_table('leaf4');
ALTER TABLE root ATTACH PARTITION leaf4 FOR VALUES FROM (20) TO (30);
SELECT synchro.add_table('root');
SELECT synchro.remove_table('leaf4');
SELECT synchro.add_table('root');
SELECT relation, trigger, of_root FROM our_triggers WHERE relation::text ~ 'root|middle|leaf';

-- a trigger that nothing needs any more is in the way of that of the root, until it goes with the next registration
CREATE TABLE up (name text, day int, cash int, PRIMARY KEY (name, day));
CREATE TABLE down (name text, day int, PRIMARY KEY (name, day), FOREIGN KEY (name, day) REFERENCES up);
SELECT synchro.add_table('down');
DROP TABLE down;
ALTER TABLE root ATTACH PARTITION up FOR VALUES FROM (90) TO (100);
SELECT synchro.alter_table('root');
ALTER TABLE root ATTACH PARTITION up FOR VALUES FROM (90) TO (100);
SELECT relation, trigger, of_root FROM our_triggers WHERE relation = 'up'::regclass;
DROP TABLE up;

--
-- names: quoted, upper case, 63 bytes; dropped columns
--
CREATE SCHEMA "Odd ""Schema";
CREATE TABLE "Odd ""Schema"."Order" (gone int, "select" text, "Ärger" int, "a ""b" text NOT NULL UNIQUE);
ALTER TABLE "Odd ""Schema"."Order" DROP COLUMN gone;
CREATE TABLE "Odd ""Schema".a23456789b23456789c23456789d23456789e23456789f23456789g23 (
	c23456789d23456789e23456789f23456789g23456789h23456789i23456789 text PRIMARY KEY, x int);
SELECT synchro.add_table('"Odd ""Schema"."Order"', ARRAY['a "b'], ARRAY['Ärger']);
SELECT synchro.add_table('"Odd ""Schema".a23456789b23456789c23456789d23456789e23456789f23456789g23');
SELECT synchro.add_table('"Odd ""Schema"."Order"');
SELECT synchro.alter_table('"Odd ""Schema"."Order"', '{gone}');
SELECT synchro.alter_table('"Odd ""Schema"."Order"', '{........pg.dropped.1........}');
SELECT * FROM synchro.tables WHERE relation::text ~ 'Odd';
-- columns renamed, a skipped one dropped, one of the key dropped
ALTER TABLE "Odd ""Schema"."Order" RENAME "a ""b" TO "A""B";
ALTER TABLE "Odd ""Schema"."Order" RENAME COLUMN "Ärger" TO "select2";
ALTER TABLE "Odd ""Schema"."Order" RENAME TO "Group";
SELECT * FROM synchro.tables WHERE relation::text ~ 'Group';
ALTER TABLE "Odd ""Schema"."Group" DROP COLUMN select2;
ALTER TABLE "Odd ""Schema"."Group" ADD COLUMN select2 int;
SELECT * FROM synchro.tables WHERE relation::text ~ 'Group';
ALTER TABLE "Odd ""Schema"."Group" DROP COLUMN "A""B";
SELECT synchro.unregister_natural_key('"Odd ""Schema"."Group"');
SELECT synchro.alter_table('"Odd ""Schema"."Group"', '{select}', allow_many => true);
SELECT * FROM synchro.tables WHERE relation::text ~ 'Group';
SELECT * FROM our_triggers WHERE relation::text ~ 'Odd';
-- columns of a typed table are renamed with the type's attributes
CREATE TYPE kind AS (name text, label text);
CREATE TABLE typed OF kind (PRIMARY KEY (name));
SELECT synchro.add_table('typed', '{name}', skip => '{label}');
ALTER TYPE kind RENAME ATTRIBUTE name TO name2 CASCADE;
ALTER TYPE kind RENAME ATTRIBUTE label TO label2 CASCADE;
SELECT * FROM synchro.tables WHERE relation = 'typed'::regclass;
DROP TABLE typed;
-- what a sequence made when the table was added is known by name, and only as long as the column is there
CREATE TABLE noted (id serial PRIMARY KEY, name text);
SELECT synchro.add_table('noted');
ALTER TABLE noted ALTER id DROP DEFAULT;
ALTER TABLE noted RENAME id TO nr;
SELECT synchro.table_mode('noted');
ALTER TABLE noted DROP nr;
ALTER TABLE noted ADD nr text PRIMARY KEY;
SELECT synchro.table_mode('noted');
SELECT synchro.alter_table('noted');
ALTER TABLE noted DROP nr, ADD nr serial PRIMARY KEY;
SELECT synchro.table_mode('noted');
DROP TABLE noted;
-- a column that takes the name of a skipped one, by the same command or by way of a type, is another one
CREATE TABLE skipping (name text PRIMARY KEY, secret text, other int);
CREATE TABLE skipping_more () INHERITS (skipping);
ALTER TABLE skipping_more ADD PRIMARY KEY (name);
SELECT synchro.add_table('skipping', skip => '{other, secret}'), synchro.add_table('skipping_more', skip => '{secret}');
ALTER TABLE skipping DROP COLUMN secret, ADD COLUMN secret text;
SELECT relation, skip FROM synchro.tables WHERE relation::text ~ 'skipping' ORDER BY relation::text;
CREATE TABLE typed OF kind (PRIMARY KEY (name2));
SELECT synchro.add_table('typed', '{name2}', skip => '{label2}');
ALTER TYPE kind DROP ATTRIBUTE label2 CASCADE;
ALTER TYPE kind ADD ATTRIBUTE label2 text CASCADE;
SELECT skip FROM synchro.tables WHERE relation = 'typed'::regclass;
SELECT synchro.alter_table('typed', skip => '{label2}');
ALTER TYPE kind DROP ATTRIBUTE label2 CASCADE, ADD ATTRIBUTE label2 text CASCADE;
SELECT skip FROM synchro.tables WHERE relation = 'typed'::regclass;
ALTER TYPE kind DROP ATTRIBUTE name2 CASCADE;
DROP TABLE typed, skipping, skipping_more;
DROP TYPE kind;
-- dropped tables leave the registry
DROP SCHEMA "Odd ""Schema" CASCADE;
SELECT relation::text FROM synchro.watched WHERE relation::text !~ '^[a-z_0-9.]+$' OR relation::text ~ '^\d+$'
UNION ALL
SELECT relation::text FROM synchro.natural_key WHERE relation::text !~ '^[a-z_0-9.]+$' OR relation::text ~ '^\d+$';

--
-- a trigger of the user's that bears our name
--
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TABLE taken (name text PRIMARY KEY);
CREATE TRIGGER synchro_capture AFTER INSERT ON taken FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT synchro.add_table('taken');
SELECT * FROM synchro.tables WHERE relation = 'taken'::regclass;

--
-- whole schemas, and who may
--
CREATE ROLE regress_synchro_owner;
GRANT CREATE ON DATABASE :DBNAME TO regress_synchro_owner;
GRANT USAGE ON SCHEMA synchro, shop TO regress_synchro_owner;
SET ROLE regress_synchro_owner;
CREATE SCHEMA mine;
SET search_path = mine, shop;
CREATE TABLE one (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE two (name text PRIMARY KEY, one int REFERENCES one);
CREATE TABLE three (one int REFERENCES one, two text REFERENCES two, PRIMARY KEY (one, two));
CREATE TABLE "no key" (name text);
CREATE TABLE root2 (name text, day int, PRIMARY KEY (name, day)) PARTITION BY RANGE (day);
CREATE TABLE root2_leaf PARTITION OF root2 FOR VALUES FROM (0) TO (10);
CREATE VIEW v AS SELECT * FROM one;
SELECT synchro.add_table('one');
RESET ROLE;
GRANT EXECUTE ON FUNCTION synchro.add_table, synchro.add_schema, synchro.remove_table, synchro.alter_table,
	synchro.register_natural_key, synchro.unregister_natural_key, synchro.table_mode TO regress_synchro_owner;
GRANT SELECT ON synchro.tables TO regress_synchro_owner;
CREATE TABLE shop.root3 (name text, day int, PRIMARY KEY (name, day)) PARTITION BY RANGE (day);
ALTER TABLE shop.root3 OWNER TO regress_synchro_owner;
CREATE TABLE mine.not_mine (name text PRIMARY KEY);
CREATE TABLE mine.not_mine_either (name text PRIMARY KEY);
SET ROLE regress_synchro_owner;
CREATE TABLE root3_leaf PARTITION OF root3 FOR VALUES FROM (0) TO (10);
SELECT synchro.add_table('not_mine');
\echo :LAST_ERROR_SQLSTATE
SELECT synchro.remove_table('by_reference');
SELECT synchro.register_natural_key('not_mine', '{name}');
SELECT synchro.add_table('pg_class');
SELECT synchro.add_schema('mine');
RESET ROLE;
DROP TABLE mine.not_mine, mine.not_mine_either;
SET ROLE regress_synchro_owner;
SELECT synchro.add_table('one', '{name}');
SELECT synchro.add_schema('mine');
SELECT synchro.add_schema('mine');
SELECT synchro.add_schema('pg_catalog');
SELECT synchro.add_schema('synchro');
SELECT synchro.add_schema(NULL);
SELECT relation, natural_key, mode FROM synchro.tables WHERE relation::text !~ '[.]' ORDER BY relation::text COLLATE "C";
-- DDL of someone without any right on synchro
RESET ROLE;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA synchro FROM regress_synchro_owner;
REVOKE ALL ON SCHEMA synchro FROM regress_synchro_owner;
SET ROLE regress_synchro_owner;
SELECT synchro.remove_table('one');
CREATE TABLE root2_leaf2 PARTITION OF root2 FOR VALUES FROM (10) TO (20);
ALTER TABLE one RENAME name TO title;
ALTER TABLE two ADD COLUMN more int REFERENCES one;
DROP TABLE two CASCADE;
RESET ROLE;
SELECT relation, trigger FROM our_triggers WHERE relation::text ~ 'root2' OR relation::text = 'one';
SELECT relation, natural_key, mode FROM synchro.tables WHERE relation::text !~ '[.]' AND relation::text ~ 'root2|one|two|three'
	ORDER BY relation::text COLLATE "C";
-- our trouble is not theirs: a trigger cannot be made, the DDL goes through
SET ROLE regress_synchro_owner;
CREATE TABLE root2_leaf3 (LIKE root2 INCLUDING ALL);
CREATE TRIGGER synchro_truncate BEFORE TRUNCATE ON root2_leaf3 FOR EACH STATEMENT EXECUTE FUNCTION nothing();
ALTER TABLE root2 ATTACH PARTITION root2_leaf3 FOR VALUES FROM (20) TO (30);
SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'root2'::regclass ORDER BY 1;
-- nor does it stop others when we do it in a transaction
BEGIN;
DROP TRIGGER synchro_truncate ON root2_leaf3;
ALTER TABLE root2 ADD CHECK (day >= 0);
SAVEPOINT s;
DROP TABLE root2_leaf3;
ROLLBACK TO s;
COMMIT;
RESET ROLE;
SELECT relation, trigger FROM our_triggers WHERE relation = 'root2_leaf3'::regclass;

--
-- numbers that no table and no schema has
--
\set VERBOSITY terse
SELECT synchro.add_table('-');
SELECT synchro.add_table(99999::regclass);
SELECT synchro.alter_table('-');
SELECT synchro.remove_table('-');
SELECT synchro.register_natural_key('-', '{name}');
SELECT synchro.unregister_natural_key('-');
SELECT synchro.table_mode('-'), synchro.table_mode(99999::regclass);
SELECT synchro.add_schema('-');
SELECT synchro.add_schema(99999::regnamespace);
SELECT synchro.reset_schema('-');
SELECT synchro.reset_schema(99999::regnamespace);
SELECT synchro.reset_schema('-', soft => false);
SELECT synchro.reset_schema(99999::regnamespace, soft => false);
SELECT synchro.reset_schema(99999::regnamespace, soft => false, remote => 'none', confirm => true);
SELECT * FROM synchro.manifest('-');
SELECT * FROM synchro.manifest(99999::regnamespace);
CREATE SERVER a_remote FOREIGN DATA WRAPPER synchro_fdw;
SELECT synchro.add_remote('a_remote');
SELECT synchro.copy_table('a_remote', '-');
SELECT synchro.copy_table('a_remote', 99999::regclass);
SELECT * FROM synchro.verify('a_remote', '-');
SELECT * FROM synchro.verify('a_remote', 99999::regclass);
SELECT synchro.requeue('a_remote', '-');
SELECT synchro.remove_remote('a_remote');
DROP SERVER a_remote;
SELECT synchro.allow_peer(0::regrole);
SELECT synchro.undo(0);
-- what has lost a conflict is a row
BEGIN;
SELECT synchro.peer_begin(gen_random_uuid(), NULL, 0);
SAVEPOINT s;
SELECT synchro.peer_won('shop.by_reference', '{1}', 0, gen_random_uuid(), 0, gen_random_uuid(), '"x"');
ROLLBACK TO s;
SELECT synchro.peer_lost('shop.by_reference', '{1}', 0, gen_random_uuid(), 0, gen_random_uuid(), '["x"]', NULL, NULL, NULL, NULL);
ROLLBACK;
WITH made AS (INSERT INTO synchro.conflict (node, relation, identity, name, local_changed_at, remote_changed_at, winner, ambiguous, loser)
	SELECT gen_random_uuid(), 'shop.by_reference', '{1}', '{a}', now(), now(), 'local', false, l FROM unnest(ARRAY['"x"', '["x"]', '1']::jsonb[]) l RETURNING 1)
	SELECT count(*) FROM made;
SELECT format('SELECT synchro.undo(%s)', id) FROM synchro.conflict WHERE relation = 'shop.by_reference'::regclass ORDER BY id \gexec
DELETE FROM synchro.conflict;
\set VERBOSITY default

--
-- all goes with the extension, without CASCADE
--
DROP EXTENSION synchro;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname ~ 'synchro' AND tgrelid <> 'taken'::regclass ORDER BY 1, 2;
SELECT evtname FROM pg_event_trigger WHERE evtname ~ 'synchro';
SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'x';
SELECT nspname FROM pg_namespace WHERE nspname ~ '^synchro';
INSERT INTO by_reference (name) VALUES ('still writable');
TRUNCATE root;

SET client_min_messages = warning;
DROP SCHEMA shop, mine, annex CASCADE;
DROP SERVER a_server;
DROP FOREIGN DATA WRAPPER a_wrapper;
REVOKE ALL ON DATABASE :DBNAME FROM regress_synchro_owner;
DROP ROLE regress_synchro_owner;
