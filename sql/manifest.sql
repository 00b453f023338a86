-- fingerprints that are the same on every server: whatever its version, these are the expected ones
CREATE EXTENSION synchro;
CREATE SCHEMA data;
SET search_path = data;
SET client_min_messages = warning;

CREATE DOMAIN code AS text CHECK (VALUE <> '');
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE types (
	id serial PRIMARY KEY, code code NOT NULL UNIQUE,
	"Größe" int, "quoted "" name" text, small smallint, big bigint, num numeric, num_scaled numeric(20, 6), single real, double double precision, cash money,
	fixed char(8), varying varchar(20), letter "char", named name, raw bytea, yes boolean,
	day date, hour time, hour_zoned timetz, at timestamp, at_zoned timestamptz, span interval,
	point point, box box, path path, circle circle, address inet, network cidr, mac macaddr, mac8 macaddr8,
	bits bit(5), varbits varbit, lexemes tsvector, query tsquery, uuid uuid, json json, jsonb jsonb, lsn pg_lsn, mood mood, pair pair,
	ints int[], texts text[][], range int4range, times tstzrange, ranges nummultirange,
	doubled int GENERATED ALWAYS AS (small * 2) STORED, note text);

-- how things are written, and in which order they come, does not count
CREATE FUNCTION fill() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO data.types VALUES
		(DEFAULT, 'a', 1, 'O''Reilly \ "x"', -32768, 9223372036854775807, 1.50, 12.5, 1e-7, 0.1, '1234.50', 'ab', 'cd  ', 'x', 'a name', '\x00ff0a5c', true,
		 '2024-02-29', '23:59:59.999999', '12:00:00+02', '1999-12-31 23:59:59.5', '2024-03-10 02:30:00+00', '1 year 2 mons -3 days 04:05:06.7',
		 '(1.5,-0.1)', '(2,2),(0,0)', '((0,0),(1,1),(2,0))', '<(0,0),1.1>', '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
		 B'10101', B'11', 'a:1 fat:2,4 cat', 'fat & (rat | cat)', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"b": 1,  "a": [1.0, null]}', '{"b": 1, "a": [1.0, null]}',
		 '16/B374D848', 'happy', '(7,"x y")', '{1,NULL,3}', '{{a,"b c"},{"d\"e",NULL}}', '[1,10)', '["2024-01-01 00:00+00",)', '{[1.0,2.5),[3,4)}', DEFAULT, E'line\none\ttab'),
		(DEFAULT, 'ä', 2, NULL, 0, -1, 'NaN', 0, 'NaN', '-Infinity', '-0.01', '', '', '', '', '', false,
		 'infinity', '00:00', '00:00-12', '-infinity', '0044-03-15 00:00:00+00 BC', '-00:00:00.000001',
		 '(0,0)', '(0,0),(0,0)', '[(0,0),(1,1)]', '<(1e10,1e-10),0>', '::1', '2001:db8::/32', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00:00:00',
		 B'00000', B'', '', '''it''''s''', '00000000-0000-0000-0000-000000000000', 'null', 'null', '0/0', 'sad', '(,)', '{}', '{}', 'empty', 'empty', '{}', DEFAULT, '€ 𝄞 日本');
	INSERT INTO data.types (code) VALUES ('only a code');
END $$;
SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY'; SET intervalstyle = 'iso_8601'; SET extra_float_digits = 0; SET bytea_output = 'escape'; SET lc_monetary = 'C';
SELECT fill();
INSERT INTO types (code, double, num) VALUES ('zero', '-0', 0.000), ('long', 1.0 / 3, repeat('1234567890', 30)::numeric);

-- names through other tables, trees of all kinds, pairs, rows without a name, partitions
CREATE TABLE region (id serial PRIMARY KEY, up_id int REFERENCES region, name text NOT NULL, UNIQUE NULLS NOT DISTINCT (up_id, name));
CREATE TABLE place (id serial PRIMARY KEY, region_id int NOT NULL REFERENCES region, name text NOT NULL, capital_of int REFERENCES region, UNIQUE (region_id, name));
CREATE TABLE road (a int REFERENCES place, b int REFERENCES place, length int, PRIMARY KEY (a, b));
CREATE TABLE remark (id serial PRIMARY KEY, place_id int REFERENCES place, answers int REFERENCES remark, copies int REFERENCES remark, said text);
CREATE TABLE likes (id serial PRIMARY KEY, remark_id int REFERENCES remark, who text);
CREATE TABLE measured (station text, day date, degrees numeric, PRIMARY KEY (station, day)) PARTITION BY RANGE (day);
CREATE TABLE measured_old PARTITION OF measured FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
CREATE TABLE measured_new PARTITION OF measured DEFAULT;
CREATE TABLE nothing (id serial PRIMARY KEY, name text);
CREATE TABLE keyless (a int, b text);
SELECT synchro.add_table('types', '{code}', skip => '{note}'), synchro.add_table('region', '{up_id,name}'), synchro.add_table('place', '{region_id,name}'), synchro.add_table('road'),
	synchro.add_table('remark'), synchro.add_table('likes'), synchro.add_table('measured'), synchro.add_table('nothing');
INSERT INTO region (up_id, name) VALUES (NULL, 'Österreich'), (1, 'Wien'), (1, 'Tirol'), (3, 'Innsbruck');
INSERT INTO place (region_id, name, capital_of) VALUES (2, 'Praterstern', NULL), (2, 'Wien', 1), (4, 'Goldenes Dachl', NULL);
INSERT INTO road VALUES (1, 2, 10), (2, 3, NULL);
INSERT INTO remark (place_id, answers, copies, said) VALUES (1, NULL, NULL, 'nice'), (NULL, 1, NULL, 'very'), (NULL, 2, 1, 'indeed'), (2, NULL, NULL, 'nice'), (NULL, 4, NULL, 'very'), (NULL, 6, NULL, 'I say so');
INSERT INTO likes (remark_id, who) VALUES (2, 'ann'), (3, 'bob'), (6, NULL);
INSERT INTO measured VALUES ('a', '2023-12-31', 1.0), ('a', '2024-01-01', -2.50);
INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (NULL, NULL);
SELECT * FROM synchro.manifest('data') ORDER BY relation::text COLLATE "C";

-- the same under other ids, in another order, and written in another way; watched tables of all schemas
CREATE TABLE before AS SELECT * FROM synchro.manifest('data');
ALTER TABLE before SET SCHEMA public;
TRUNCATE types, region, place, road, remark, likes, measured, keyless CASCADE;
SET timezone = 'America/St_Johns'; SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; SET extra_float_digits = 1; SET bytea_output = 'hex';
ALTER SEQUENCE types_id_seq RESTART 100;
INSERT INTO types (code, double, num) VALUES ('long', 1.0 / 3, repeat('1234567890', 30)::numeric), ('zero', 0, 0);
SELECT fill();
UPDATE types SET note = 'of this side', num = trim_scale(num) + 0.000 WHERE num <> 'NaN';
INSERT INTO region VALUES (40, NULL, 'Österreich'), (12, 40, 'Tirol'), (11, 40, 'Wien'), (13, 12, 'Innsbruck');
INSERT INTO place VALUES (9, 13, 'Goldenes Dachl', NULL), (8, 11, 'Wien', 40), (7, 11, 'Praterstern', NULL);
INSERT INTO road VALUES (8, 9, NULL), (7, 8, 10);
INSERT INTO remark VALUES (60, NULL, 60, NULL, 'I say so'), (50, 8, NULL, NULL, 'nice'), (51, NULL, 50, NULL, 'very'), (21, 7, NULL, NULL, 'nice'), (22, NULL, 21, NULL, 'very'), (23, NULL, 22, 21, 'indeed');
INSERT INTO likes VALUES (5, 60, NULL), (6, 23, 'bob'), (7, 22, 'ann');
INSERT INTO measured VALUES ('a', '2024-01-01', -2.5), ('a', '2023-12-31', 1);
INSERT INTO keyless VALUES (NULL, NULL), (1, 'x'), (1, 'x');
SELECT a.relation AS differs FROM synchro.manifest() a JOIN public.before b USING (relation) WHERE a IS DISTINCT FROM b;
SELECT count(*) AS compared FROM synchro.manifest() JOIN public.before USING (relation, rows, fingerprint);

-- and whatever is changed shows, also who is answered, where no row has a name
CREATE FUNCTION shows(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	BEGIN
		EXECUTE statement;
		SELECT string_agg(a.relation::text, ' ' ORDER BY a.relation::text COLLATE "C") INTO result
			FROM synchro.manifest('data') a JOIN public.before b USING (relation) WHERE a IS DISTINCT FROM b;
		RAISE EXCEPTION 'undo' USING ERRCODE = 'SY999';
	EXCEPTION WHEN SQLSTATE 'SY999' THEN
		RETURN result;
	END;
END $$;
SELECT shows('UPDATE remark SET answers = 50 WHERE id = 22') AS another_is_answered,
	shows('UPDATE remark SET copies = 51 WHERE id = 23') AS another_is_copied,
	shows('UPDATE remark SET said = ''Nice'' WHERE id = 21') AS above_others,
	shows('UPDATE remark SET place_id = 8 WHERE id = 21') AS where_the_first_was_said,
	shows('UPDATE remark SET answers = NULL WHERE id = 60') AS out_of_a_circle;
SELECT shows('UPDATE region SET name = ''tirol'' WHERE id = 12') AS a_branch,
	shows('UPDATE place SET capital_of = 11 WHERE id = 8') AS another_parent,
	shows('UPDATE types SET note = ''x''') AS skipped,
	shows('UPDATE types SET json = ''{"b":1,"a":[1.0,null]}'' WHERE json IS NOT NULL') AS json_text,
	shows('UPDATE types SET jsonb = jsonb || ''{}'' WHERE jsonb_typeof(jsonb) = ''object''') AS nothing,
	shows('DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE a = 1)') AS one_of_two;
SELECT shows('UPDATE types SET at_zoned = at_zoned + interval ''1 us'' WHERE code = ''a''') AS microsecond, shows('UPDATE types SET double = 0.1::float8 + 1e-18 WHERE code = ''a''') AS nothing,
	shows('UPDATE types SET double = 0.1::float8 + 2e-17 WHERE code = ''a''') AS last_bit;

-- no column but ids, and more columns than a function takes arguments
CREATE SCHEMA sizes;
CREATE TABLE sizes.ids (id serial PRIMARY KEY);
DO $$
BEGIN
	EXECUTE (SELECT format('CREATE TABLE sizes.wide (id int PRIMARY KEY, %s)', string_agg(format('c%s int DEFAULT %1$s', i), ', ' ORDER BY i)) FROM generate_series(1, 250) i);
END $$;
INSERT INTO sizes.ids DEFAULT VALUES;
INSERT INTO sizes.wide (id) VALUES (1), (2);
SELECT * FROM synchro.manifest('sizes') ORDER BY relation::text COLLATE "C";
UPDATE sizes.wide SET c250 = 0 WHERE id = 2;
UPDATE sizes.ids SET id = 7;
SELECT * FROM synchro.manifest('sizes') ORDER BY relation::text COLLATE "C";

-- ids that each server makes for itself, by whatever default; such a column is a value like any other beside one from a sequence
CREATE TABLE sizes.made (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE sizes.of_made (made_id uuid REFERENCES sizes.made, n int, day date DEFAULT 'today', no serial, PRIMARY KEY (no, day));
SELECT synchro.add_table('sizes.made', '{name}'), synchro.add_table('sizes.of_made');
INSERT INTO sizes.made (name) VALUES ('a'), ('b');
INSERT INTO sizes.of_made SELECT id, 1, '2024-02-29' FROM sizes.made;
SELECT * FROM synchro.manifest() WHERE relation::text LIKE '%made' ORDER BY relation::text COLLATE "C";
UPDATE sizes.of_made SET day = '2024-03-01' WHERE made_id = (SELECT id FROM sizes.made WHERE name = 'b');
SELECT * FROM synchro.manifest() WHERE relation::text LIKE '%made' ORDER BY relation::text COLLATE "C";

SET client_min_messages = error;
DROP EXTENSION synchro;
DROP SCHEMA data, sizes CASCADE;
DROP TABLE public.before;
