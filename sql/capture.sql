-- what the log holds: every way to change a row leaves its key in it, and what did not happen leaves nothing
CREATE EXTENSION synchro;
CREATE SCHEMA capture;
SET search_path = capture;

-- what has been logged since the last call, and by how many transactions
CREATE TEMP TABLE known (xid xid8);
CREATE FUNCTION news(OUT relation regclass, OUT key text, OUT operation text, OUT tx int) RETURNS SETOF record
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY
		SELECT c.relation, c.key, c.operation, dense_rank() OVER (ORDER BY c.xid)::int
		FROM synchro.changes c WHERE c.xid NOT IN (SELECT k.xid FROM pg_temp.known k)
		ORDER BY c.xid, c.relation::text COLLATE "C", c.key COLLATE "C", c.operation COLLATE "C";
	INSERT INTO pg_temp.known SELECT DISTINCT xid FROM synchro.changes;
END$$;

CREATE TABLE t (id serial PRIMARY KEY, name text, cash int);
CREATE TABLE k (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int);
CREATE TABLE pair (a text, "b b" int, note text, PRIMARY KEY ("b b", a));
SELECT synchro.add_table('t');
SELECT synchro.add_table('k', '{name}');
SELECT synchro.add_table('pair');

--
-- the view
--
INSERT INTO t (name) VALUES ('a'), ('b');
SELECT changed_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS just_now, relation, key, operation,
	   origin = (SELECT id FROM synchro.node_identity) AS from_here, xid < pg_snapshot_xmax(pg_current_snapshot()) AS committed
	FROM synchro.changes ORDER BY key;
SELECT * FROM news();

-- of a key of many columns, of odd values
INSERT INTO pair VALUES ('x', 1), ('', 2), ('a,b (c) "d" ''e'' \f', 3), ('zwölf', -4);
SELECT * FROM news();

--
-- operations
--
UPDATE t SET cash = 1;
SELECT * FROM news();
UPDATE t SET cash = cash;
SELECT * FROM news();
DELETE FROM t WHERE name = 'b';
SELECT * FROM news();
UPDATE t SET id = 10;
SELECT * FROM news();
UPDATE pair SET a = 'y' WHERE a = 'x';
SELECT * FROM news();
INSERT INTO k (name) VALUES ('a'), ('b');
UPDATE k SET name = upper(name);
SELECT * FROM news();
-- one entry for each row and operation that matters
BEGIN;
UPDATE t SET cash = 2;
UPDATE t SET cash = 3;
UPDATE t SET cash = 4;
INSERT INTO t (name) VALUES ('c');
UPDATE t SET cash = 5;
DELETE FROM t WHERE name = 'a';
COMMIT;
SELECT * FROM news();
BEGIN;
INSERT INTO t (id, name) VALUES (20, 'short-lived');
DELETE FROM t WHERE id = 20;
COMMIT;
SELECT key FROM news() WHERE operation <> 'insert';

--
-- statements
--
COPY t (id, name) FROM STDIN;
30	copied
31	copied
\.
SELECT * FROM news();
INSERT INTO k (name, cash) VALUES ('A', 1), ('C', 1) ON CONFLICT (name) DO UPDATE SET cash = EXCLUDED.cash;
SELECT * FROM news();
INSERT INTO k (name, cash) VALUES ('A', 1), ('D', 1) ON CONFLICT DO NOTHING;
SELECT key, operation FROM news();
TABLE k ORDER BY id;
MERGE INTO t USING (VALUES (30, 'merged'), (31, NULL), (32, 'merged')) s (id, name) ON t.id = s.id
	WHEN MATCHED AND s.name IS NULL THEN DELETE
	WHEN MATCHED THEN UPDATE SET name = s.name
	WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name);
SELECT * FROM news();
WITH d AS (DELETE FROM t WHERE id = 30 RETURNING *), i AS (INSERT INTO t (id, name) SELECT 33, name FROM d RETURNING *)
	UPDATE k SET cash = 3 FROM i WHERE k.name = 'A';
SELECT * FROM news();
CREATE VIEW simple AS SELECT id, name FROM t;
INSERT INTO simple VALUES (34, 'through a view');
SELECT * FROM news();
PREPARE change AS UPDATE t SET cash = 6 WHERE id = $1;
EXECUTE change(34);
SELECT * FROM news();
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM t WHERE id = 34 FOR UPDATE;
FETCH c;
UPDATE t SET cash = 7 WHERE CURRENT OF c;
COMMIT;
SELECT * FROM news();
DELETE FROM t;
SELECT count(*) FROM news();

--
-- foreign keys
--
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE cascades (name text PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE sets_null (name text PRIMARY KEY, parent int REFERENCES parent ON DELETE SET NULL);
CREATE TABLE sets_default (name text PRIMARY KEY, parent int DEFAULT 0 REFERENCES parent ON DELETE SET DEFAULT);
SELECT synchro.add_table('cascades');
SELECT synchro.add_table('sets_null');
SELECT synchro.add_table('sets_default');
INSERT INTO parent VALUES (0), (1), (2);
INSERT INTO cascades VALUES ('a', 1), ('b', 2);
INSERT INTO sets_null VALUES ('a', 1), ('b', 2);
INSERT INTO sets_default VALUES ('a', 1), ('b', 2);
SELECT count(*) FROM news();
DELETE FROM parent WHERE id = 1;
SELECT * FROM news();
DELETE FROM sets_null WHERE name = 'b';
DELETE FROM sets_default WHERE name = 'b';
SELECT count(*) FROM news();
UPDATE parent SET id = 3 WHERE id = 2;
SELECT * FROM news();

--
-- triggers, deferred ones too
--
CREATE FUNCTION also_t() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO capture.t (id, name) VALUES (NEW.cash, NEW.name);
	RETURN NULL;
END$$;
CREATE CONSTRAINT TRIGGER also_t AFTER UPDATE ON k DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION also_t();
BEGIN;
UPDATE k SET cash = 50 WHERE name = 'A';
UPDATE k SET cash = 51 WHERE name = 'B';
COMMIT;
SELECT * FROM news();
DROP TRIGGER also_t ON k;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE capture.t SET cash = 1 WHERE id = 50;
	RETURN NULL;
END$$;
CREATE TRIGGER instead BEFORE UPDATE ON k FOR EACH ROW EXECUTE FUNCTION instead();
UPDATE k SET cash = 52 WHERE name = 'A';
SELECT * FROM news();
DROP TRIGGER instead ON k;

-- a holdable cursor's query runs when the transaction commits
CREATE FUNCTION write_t(id int) RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO capture.t VALUES ($1, ''by cursor'') RETURNING id';
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT capture.write_t(i) FROM generate_series(60, 62) i;
COMMIT;
FETCH ALL FROM h;
CLOSE h;
SELECT * FROM news();

--
-- rolled back; synchro.buffer_size makes the log be written early
--
BEGIN;
INSERT INTO t (id) VALUES (70);
ROLLBACK;
SELECT * FROM news();
BEGIN;
INSERT INTO t (id) VALUES (71);
SAVEPOINT a;
INSERT INTO t (id) VALUES (72);
SAVEPOINT b;
INSERT INTO t (id) VALUES (73);
RELEASE b;
INSERT INTO t (id) VALUES (74);
ROLLBACK TO a;
INSERT INTO t (id) VALUES (75);
SAVEPOINT c;
UPDATE t SET cash = 1 WHERE id IN (71, 75);
ROLLBACK TO c;
DELETE FROM t WHERE id = 75;
RELEASE a;
COMMIT;
SELECT * FROM news() WHERE key <> '75' OR operation <> 'insert';
-- a key that was logged before the savepoint, and in it
BEGIN;
SAVEPOINT a;
UPDATE t SET cash = 1 WHERE id = 71;
ROLLBACK TO a;
UPDATE t SET cash = 2 WHERE id = 71;
COMMIT;
SELECT * FROM news();
DO $$
BEGIN
	FOR i IN 80 .. 83 LOOP
		BEGIN
			INSERT INTO t (id) VALUES (i);
			IF i % 2 = 0 THEN
				RAISE EXCEPTION 'no';
			END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END LOOP;
END$$;
SELECT * FROM news();

SET synchro.buffer_size = '64kB';
BEGIN;
INSERT INTO k (name) SELECT 'kept ' || i FROM generate_series(1, 10000) i;
SAVEPOINT a;
INSERT INTO k (name) SELECT 'gone ' || i FROM generate_series(1, 10000) i;
SAVEPOINT b;
UPDATE k SET name = name || ' renamed' WHERE name LIKE 'kept%';
ROLLBACK TO a;
UPDATE k SET cash = 1 WHERE name = 'kept 1';
SAVEPOINT c;
INSERT INTO k (name) SELECT 'released ' || i FROM generate_series(1, 10000) i;
RELEASE c;
COMMIT;
SELECT n.operation, split_part(k.name, ' ', 1) AS name, count(DISTINCT n.key), min(tx), max(tx)
	FROM news() n LEFT JOIN k ON k.id::text = n.key GROUP BY 1, 2 ORDER BY 1, 2;
BEGIN;
DELETE FROM k WHERE name ~ '^(kept|released)';
ROLLBACK;
SELECT count(*) FROM news();
BEGIN;
DELETE FROM k WHERE name ~ '^(kept|released)';
COMMIT;
SELECT operation, count(*), count(DISTINCT key), max(tx) FROM news() GROUP BY 1;
RESET synchro.buffer_size;

--
-- two-phase commit
--
BEGIN;
INSERT INTO t (id) VALUES (90);
SAVEPOINT a;
INSERT INTO t (id) VALUES (91);
ROLLBACK TO a;
PREPARE TRANSACTION 'regress_synchro_1';
BEGIN;
INSERT INTO t (id) VALUES (92);
PREPARE TRANSACTION 'regress_synchro_2';
INSERT INTO t (id) VALUES (93);
SELECT * FROM news();
COMMIT PREPARED 'regress_synchro_1';
ROLLBACK PREPARED 'regress_synchro_2';
SELECT * FROM news();

--
-- TRUNCATE
--
CREATE TABLE refers (name text PRIMARY KEY, k int REFERENCES k);
SELECT synchro.add_table('refers');
INSERT INTO refers SELECT 'of ' || name, id FROM k WHERE name < 'C';
SELECT count(*) FROM news();
TRUNCATE t;
SELECT count(*), count(DISTINCT key), min(operation), max(operation), max(tx) FROM news();
TRUNCATE k;
TRUNCATE k CASCADE;
SELECT * FROM news();
TRUNCATE k, t, refers;
SELECT * FROM news();
INSERT INTO k (id, name) VALUES (1, 'again');
BEGIN;
INSERT INTO k (id, name) VALUES (2, 'and again');
TRUNCATE k CASCADE;
INSERT INTO k (id, name) VALUES (3, 'and then');
COMMIT;
SELECT * FROM news() WHERE key <> '2';
BEGIN;
TRUNCATE k CASCADE;
ROLLBACK;
SELECT * FROM news();
-- log-free
INSERT INTO k (id, name) VALUES (4, 'left');
SELECT count(*) FROM news();
BEGIN;
SET LOCAL synchro.log_changes = off;
TRUNCATE k CASCADE;
COMMIT;
SELECT * FROM news();

--
-- partitions: logged under the root
--
CREATE TABLE part (day int, name text, cash int, PRIMARY KEY (name, day)) PARTITION BY RANGE (day);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
-- columns in another order, and a dropped one
CREATE TABLE part_2 (gone int, cash int, name text NOT NULL, day int NOT NULL);
ALTER TABLE part_2 DROP COLUMN gone;
ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES FROM (10) TO (20);
SELECT synchro.add_table('part');
INSERT INTO part VALUES (1, 'a'), (11, 'b');
INSERT INTO part_2 (day, name) VALUES (12, 'c');
SELECT * FROM news();
-- moves
UPDATE part SET day = 2 WHERE name = 'b';
SELECT * FROM news();
UPDATE part SET cash = 1;
SELECT * FROM news();
-- later ones, also of partitions
CREATE TABLE part_3 PARTITION OF part FOR VALUES FROM (20) TO (30);
CREATE TABLE part_4 (LIKE part) PARTITION BY LIST (name);
CREATE TABLE part_4a PARTITION OF part_4 FOR VALUES IN ('a');
ALTER TABLE part ATTACH PARTITION part_4 FOR VALUES FROM (30) TO (40);
CREATE TABLE part_4b PARTITION OF part_4 FOR VALUES IN ('b');
INSERT INTO part VALUES (21, 'a'), (31, 'a'), (31, 'b');
SELECT * FROM news();
UPDATE part SET day = 32 WHERE (day, name) = (21, 'a');
SELECT * FROM news();
TRUNCATE part_4a;
SELECT * FROM news();
TRUNCATE part_4;
SELECT * FROM news();
TRUNCATE part;
SELECT * FROM news();
-- taken off: it is no part of the table any more
INSERT INTO part VALUES (21, 'd');
ALTER TABLE part DETACH PARTITION part_3;
SELECT * FROM news();
UPDATE part_3 SET cash = 1;
TRUNCATE part_3;
SELECT * FROM news();

--
-- what replication applies
--
SET session_replication_role = replica;
INSERT INTO t (id) VALUES (100);
UPDATE t SET cash = 1 WHERE id = 100;
DELETE FROM t WHERE id = 100;
INSERT INTO k (id, name) VALUES (100, 'replicated');
TRUNCATE k CASCADE;
RESET session_replication_role;
SELECT * FROM news();

--
-- tables inside a natural key are logged where a name is lost, and not otherwise
--
CREATE TABLE outer_key (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int);
CREATE TABLE inner_key (id serial PRIMARY KEY, above int NOT NULL REFERENCES outer_key, name text NOT NULL, UNIQUE (above, name));
SELECT synchro.register_natural_key('outer_key', '{name}');
SELECT synchro.add_table('inner_key', '{above,name}');
INSERT INTO outer_key (name) VALUES ('a'), ('b');
UPDATE outer_key SET cash = 1;
SELECT * FROM news();
UPDATE outer_key SET name = 'c' WHERE name = 'a';
DELETE FROM outer_key WHERE name = 'b';
SELECT * FROM news();

--
-- keys longer than a page, among others
--
CREATE TABLE long_key (id serial PRIMARY KEY, name text NOT NULL);
ALTER TABLE long_key ALTER name SET STORAGE EXTERNAL;
SELECT synchro.add_table('long_key', '{name}', allow_many => true);
INSERT INTO long_key (id, name) VALUES (1, repeat('a', 10000)), (2, 'b'), (3, repeat('c', 100000)), (4, 'd');
UPDATE long_key SET name = name || '!';
DELETE FROM long_key;
SELECT * FROM news();
CREATE TABLE long_identity (name text COMPRESSION pglz PRIMARY KEY);
SELECT synchro.add_table('long_identity');
INSERT INTO long_identity VALUES (repeat('x', 50000)), ('short'), (repeat('y', 7600));
DELETE FROM long_identity;
SELECT relation, left(key, 5) AS key, length(key), operation, tx FROM news();

--
-- many tables in one transaction
--
DO $$
BEGIN
	FOR i IN 0 .. 299 LOOP
		EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY)', i);
		PERFORM synchro.add_table(format('many_%s', i)::regclass);
	END LOOP;
END$$;
DO $$
BEGIN
	FOR i IN 1 .. 900 LOOP
		EXECUTE format('INSERT INTO many_%s VALUES (%s), (%s)', i % 300, i, -i);
	END LOOP;
END$$;
SELECT count(*), count(DISTINCT relation), count(DISTINCT (relation, key)), max(tx) FROM news();

-- what is written before is nobody's any more
BEGIN;
INSERT INTO many_0 VALUES (1000);
DROP EXTENSION synchro;
COMMIT;
SET client_min_messages = warning;
DROP SCHEMA capture CASCADE;
