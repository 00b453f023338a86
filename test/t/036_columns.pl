# Tables whose columns are unlike the usual: odd names, NULLs in keys, identity and generated columns, another order or
# dropped columns on one side, values too large for a page, another encoding on the remote.
#
# WHY: SQL is generated from names, keys are compared with NULLs in them, columns correspond by name and not by position,
# and the remote hands out some values itself. Wherever one of these is taken for granted, rows end up twice, in the wrong
# column, or with their key lost.

use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

connect_remote($local, $remote, schemas => ['public']);

sub watch
{
	$local->safe_psql('postgres', "SET client_min_messages = warning; SELECT synchro.add_table($_)") foreach @_;
	return;
}

sub counts
{
	my $result = sync($local, 'office');

	return [ @$result{qw(inserted updated deleted)} ];
}

#
# Names
#
{
	my $long = 'x' x 63;
	my $umlauts = "\303\244" x 31;

	both($local, $remote, <<"SQL");
CREATE SCHEMA "My Schema";
CREATE TABLE "My Schema"."Mixed ""Case"" Table" ("Id" serial PRIMARY KEY, "Key Col" text UNIQUE, "it's" text, "a\\b" text,
	"\$1" text, "select" text, "tab	new
line" text, "%s %d" text);
CREATE TABLE $long (${\ substr $long, 1} serial PRIMARY KEY, $long text UNIQUE, "$umlauts" text);
CREATE TABLE s_1 (l0 serial PRIMARY KEY, r0 text, v0 text, UNIQUE (r0, v0));
CREATE TABLE m (id serial PRIMARY KEY, kind text UNIQUE, fresh text, ensure text, c0 text, c1 text, f0_0 text, s integer REFERENCES s_1,
	t text, q text, o text, p0 text, n text, x text);
SQL
	grant_dml($remote, schemas => ['My Schema']);
	watch(q{'"My Schema"."Mixed ""Case"" Table"', '{Key Col}'}, "'$long', '{$long}'", q{'s_1', '{r0, v0}'}, q{'m', '{kind}'});
	$remote->safe_psql('postgres', 'ALTER SEQUENCE s_1_l0_seq RESTART 500');
	$local->safe_psql('postgres', <<"SQL");
INSERT INTO "My Schema"."Mixed ""Case"" Table" VALUES (DEFAULT, 'a', 'b', 'c', 'd', 'e', 'f', 'g'), (DEFAULT, NULL, 'b', 'c', 'd', 'e', 'f', 'g');
INSERT INTO $long VALUES (DEFAULT, 'a', 'b'), (DEFAULT, 'c', 'd');
INSERT INTO s_1 (r0, v0) VALUES ('r', 'v'), ('r', NULL);
INSERT INTO m (kind, fresh, ensure, c0, c1, f0_0, s, t, q, o, p0, n, x)
	SELECT l0::text, 'fresh', 'ensure', 'c0', 'c1', 'f0_0', l0, 't', 'q', 'o', 'p0', 'n', 'x' FROM s_1;
SQL
	my @queries = (
		[ 'spaces, quotes, backslashes and keywords', 'SELECT "Key Col", "it\'s", "a\b", "$1", "select", "tab	new
line", "%s %d" FROM "My Schema"."Mixed ""Case"" Table" ORDER BY 1' ],
		[ '63 bytes', qq{SELECT $long, "$umlauts" FROM $long ORDER BY 1} ],
		[ "the names of synchro's own tables and columns",
			'SELECT r0, v0, kind, fresh, ensure, c0, c1, f0_0, t, q, o, p0, n, x FROM m JOIN s_1 ON s = l0 ORDER BY 1, 2' ]);

	is_deeply(counts(), [ 8, 0, 0 ], 'all rows are inserted');
	same($local, $remote, $_->[1], "names: $_->[0]") foreach @queries;
	$local->safe_psql('postgres', <<"SQL");
UPDATE "My Schema"."Mixed ""Case"" Table" SET "Key Col" = 'new ' || "Key Col", "it's" = 'other';
UPDATE $long SET $long = 'z' WHERE $long = 'a'; DELETE FROM $long WHERE $long = 'c';
UPDATE s_1 SET v0 = 'w' WHERE v0 = 'v';
SQL
	is_deeply(counts(), [ 0, 4, 1 ], 'each change is one');
	same($local, $remote, $_->[1], "names, changed: $_->[0]") foreach @queries;
}

#
# NULLs in natural keys
#
{
	both($local, $remote, <<'SQL');
CREATE TABLE one_null (id serial PRIMARY KEY, a text NOT NULL, b text, n integer, UNIQUE (a, b));
CREATE TABLE all_null (id serial PRIMARY KEY, a text, b integer, n integer);
CREATE TABLE null_fk (id serial PRIMARY KEY, name text, parent integer REFERENCES one_null, n integer);
CREATE TABLE null_fk_first (id serial PRIMARY KEY, parent integer REFERENCES one_null, n integer);
CREATE TABLE no_pk (a text, b text, n integer);
CREATE TABLE no_pk_child (id serial PRIMARY KEY, name text UNIQUE, code text);
SQL
	watch(q{'one_null', '{a, b}'}, q{'all_null', '{a, b}'}, q{'null_fk', '{parent, name}'}, q{'null_fk_first', '{parent}'},
		q{'no_pk', '{a, b}'});
	$remote->safe_psql('postgres', <<'SQL');
INSERT INTO one_null (id, a, b, n) VALUES (100, 'a', NULL, -1), (101, 'z', NULL, -1);
INSERT INTO all_null (id, a, b, n) VALUES (100, NULL, NULL, -1), (101, 'z', 9, -1);
INSERT INTO null_fk (id, name, parent, n) VALUES (100, NULL, NULL, -1), (101, 'x', 100, -1), (102, NULL, 100, -1);
INSERT INTO null_fk_first (id, parent, n) VALUES (100, NULL, -1), (101, 101, -1);
INSERT INTO no_pk VALUES (NULL, NULL, -1), ('a', NULL, -1);
SQL
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO one_null (a, b, n) VALUES ('a', NULL, 1), ('a', 'b', 2), ('c', NULL, 3);
INSERT INTO all_null (a, b, n) VALUES (NULL, NULL, 1), (NULL, 1, 2), ('a', NULL, 3), ('a', 1, 4);
INSERT INTO null_fk (name, parent, n) VALUES (NULL, NULL, 1), ('x', NULL, 2), (NULL, 1, 3), ('x', 1, 4), ('x', 2, 5);
INSERT INTO null_fk_first (parent, n) VALUES (NULL, 1), (1, 2), (3, 3);
INSERT INTO no_pk VALUES (NULL, NULL, 1), ('a', NULL, 2), (NULL, 'b', 3), ('a', 'b', 4);
SQL
	# z is the remote's own everywhere
	my %contents = (
		one_null => q{SELECT a, b, n FROM one_null WHERE a <> 'z' ORDER BY a, b},
		all_null => q{SELECT a, b, n FROM all_null WHERE a IS DISTINCT FROM 'z' ORDER BY a, b, n},
		null_fk => q{SELECT p.a, p.b, c.name, c.n FROM null_fk c LEFT JOIN one_null p ON p.id = parent ORDER BY 1, 2, 3, 4},
		null_fk_first => q{SELECT p.a, p.b, c.n FROM null_fk_first c LEFT JOIN one_null p ON p.id = parent
			WHERE p.a IS DISTINCT FROM 'z' ORDER BY 1, 2, 3},
		no_pk => 'SELECT a, b, n FROM no_pk ORDER BY a, b, n');

	is_deeply(counts(), [ 11, 8, 0 ], 'NULL matches NULL: what was there is updated, the rest inserted');
	same($local, $remote, $contents{$_}, "NULLs in the key of $_") foreach sort keys %contents;
	is(rows($remote, q{SELECT 'one_null', id FROM one_null WHERE a = 'a' AND b IS NULL
		UNION ALL SELECT 'all_null', id FROM all_null WHERE a IS NULL AND b IS NULL
		UNION ALL SELECT 'null_fk', id FROM null_fk WHERE name IS NULL AND parent IS NULL
		UNION ALL SELECT 'null_fk', id FROM null_fk WHERE name IS NULL AND parent = 100
		UNION ALL SELECT 'null_fk_first', id FROM null_fk_first WHERE parent IS NULL}),
		"one_null|100\nall_null|100\nnull_fk|100\nnull_fk|102\nnull_fk_first|100", 'the rows that were there, under their ids');

	$local->safe_psql('postgres', <<'SQL');
UPDATE one_null SET n = n + 10, b = CASE WHEN b IS NULL AND a = 'c' THEN 'new' END WHERE b IS NULL;
UPDATE all_null SET b = 7 WHERE b IS NULL AND a IS NULL;
UPDATE all_null SET a = NULL, n = 40 WHERE a = 'a' AND b = 1;
DELETE FROM all_null WHERE n = 2;
UPDATE null_fk SET parent = NULL, name = 'y' WHERE n = 4;
UPDATE null_fk SET parent = 3 WHERE n = 1;
DELETE FROM null_fk WHERE n = 2;
UPDATE null_fk_first SET parent = 2 WHERE parent IS NULL;
UPDATE no_pk SET b = 'c' WHERE b IS NULL AND a IS NULL;
UPDATE no_pk SET n = 20 WHERE a = 'a' AND b IS NULL;
UPDATE no_pk SET a = NULL WHERE a = 'a' AND b = 'b';
DELETE FROM no_pk WHERE a IS NULL AND n = 3;
SQL
	is_deeply(counts(), [ 0, 10, 3 ], 'keys change to NULL and from NULL');
	same($local, $remote, $contents{$_}, "NULLs in the key of $_, changed") foreach sort keys %contents;
	is(rows($remote, q{SELECT (SELECT count(*) FROM one_null WHERE a = 'z'), (SELECT count(*) FROM all_null WHERE a = 'z'),
		(SELECT count(*) FROM null_fk_first WHERE parent = 101)}), '1|1|1', "the remote's own rows are as they were");
	$local->safe_psql('postgres', 'DELETE FROM no_pk; DELETE FROM null_fk; DELETE FROM null_fk_first; DELETE FROM all_null');
	is_deeply(counts(), [ 0, 0, 13 ], 'rows with NULLs in their keys are deleted');
	is(rows($remote, 'SELECT (SELECT count(*) FROM no_pk), (SELECT count(*) FROM null_fk), (SELECT count(*) FROM all_null)'),
		'0|0|1', 'and only those');
}

#
# A unique index lets several rows with the same NULLs pass: then the key does not tell which is meant.
#
{
	both($local, $remote, 'CREATE TABLE twice (id serial PRIMARY KEY, a text NOT NULL, b text, n integer, UNIQUE (a, b)); CREATE TABLE twice_all (id serial PRIMARY KEY, a text UNIQUE, n integer)');
	watch(q{'twice', '{a, b}'}, q{'twice_all', '{a}'});
	$remote->safe_psql('postgres', q{INSERT INTO twice (a, b, n) VALUES ('x', NULL, -1), ('x', NULL, -2); INSERT INTO twice_all (a, n) VALUES (NULL, -1), (NULL, -2)});
	$local->safe_psql('postgres', q{INSERT INTO twice (a, b, n) VALUES ('x', NULL, 1), ('x', 'y', 1)});
	sync_parks($local, 'office', qr/21000: .*table public\.twice matches several rows.*HINT: .*allow_many/s, 'two remote rows with the same key and NULL');
	$local->safe_psql('postgres', q{SELECT synchro.alter_table('twice', allow_many => true)});
	is_deeply(counts(), [ 0, 1, 0 ], 'allow_many takes the first');
	is(rows($remote, q{SELECT id, n FROM twice WHERE b IS NULL ORDER BY id}), "1|1\n2|-2", 'by primary key');
	$local->safe_psql('postgres', q{INSERT INTO twice_all (a, n) VALUES (NULL, 1)});
	sync_parks($local, 'office', qr/21000: .*table public\.twice_all matches several rows/s, 'two remote rows whose key is all NULL');
	$remote->safe_psql('postgres', 'DELETE FROM twice_all WHERE n = -1');
	is_deeply(counts(), [ 0, 1, 0 ], 'one of them removed, the other is meant');
}

#
# Identity and generated columns
#
{
	both($local, $remote, <<'SQL');
CREATE TABLE always_key (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, cash integer,
	twice integer GENERATED ALWAYS AS (cash * 2) STORED);
CREATE TABLE always_reference (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, parent integer REFERENCES always_key);
CREATE TABLE always_other (name text PRIMARY KEY, number integer GENERATED ALWAYS AS IDENTITY, cash integer);
CREATE TABLE default_other (name text PRIMARY KEY, number integer GENERATED BY DEFAULT AS IDENTITY, cash integer);
CREATE TABLE default_key (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text UNIQUE);
SQL
	$local->safe_psql('postgres', 'CREATE TABLE generated_here (name text PRIMARY KEY, a integer, b integer GENERATED ALWAYS AS (a + 1) STORED)');
	$remote->safe_psql('postgres', 'CREATE TABLE generated_here (name text PRIMARY KEY, a integer, b integer)');
	$local->safe_psql('postgres', 'CREATE TABLE generated_there (name text PRIMARY KEY, a integer, b integer)');
	$remote->safe_psql('postgres', 'CREATE TABLE generated_there (name text PRIMARY KEY, b integer GENERATED ALWAYS AS (a + 1) STORED, a integer)');
	watch(q{'always_key', '{name}'}, q{'always_reference'}, q{'always_other'}, q{'default_other'}, q{'default_key', '{name}'},
		q{'generated_here'}, q{'generated_there'});
	$remote->safe_psql('postgres', <<'SQL');
INSERT INTO always_key (name, cash) VALUES ('own', 1), ('b', 7);
INSERT INTO always_reference (name) VALUES ('own'), ('own');
INSERT INTO always_other (name, cash) VALUES ('own', 1), ('b', 7);
INSERT INTO default_key (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'own');
ALTER SEQUENCE default_key_id_seq RESTART 2;
SQL
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO always_key (name, cash) VALUES ('a', 10), ('b', 20);
INSERT INTO always_reference (name, parent) VALUES ('x', 1), ('x', 2);
INSERT INTO always_other (name, cash) VALUES ('a', 10), ('b', 20);
INSERT INTO default_other (name, number) VALUES ('a', 77), ('b', 78);
INSERT INTO default_key (name) VALUES ('a'), ('b');
INSERT INTO generated_here (name, a) VALUES ('x', 1);
INSERT INTO generated_there (name, a, b) VALUES ('x', 1, 100);
SQL
	counts();
	is(rows($remote, 'SELECT id, name, cash, twice FROM always_key ORDER BY id'), "1|own|1|2\n2|b|20|40\n3|a|10|20",
		'GENERATED ALWAYS primary key: the remote gives its own ids; generated columns are its own work');
	is(rows($remote, q{SELECT r.name, k.name FROM always_reference r LEFT JOIN always_key k ON k.id = parent WHERE r.id > 2 ORDER BY 2}), "x|a\nx|b",
		'also in mode reference, the reference translated');
	is(rows($remote, q{SELECT id, name, parent FROM always_reference WHERE id <= 2 ORDER BY id}), "1|own|\n2|own|", "the remote's own rows are as they were");
	my $reference = rows($remote, 'SELECT id FROM always_reference WHERE parent = 3');
	is(rows($remote, 'SELECT name, number, cash FROM always_other ORDER BY name'), "a|3|10\nb|2|20\nown|1|1",
		'a GENERATED ALWAYS column beside the key is the remote\'s');
	is(rows($remote, 'SELECT name, number FROM default_other ORDER BY name'), "a|77\nb|78", 'a BY DEFAULT column beside the key is pushed');
	is(rows($remote, q{SELECT name, id > 1 FROM default_key ORDER BY name}), "a|t\nb|t\nown|f", 'a BY DEFAULT primary key is the remote\'s');
	is(rows($remote, 'SELECT name, a, b FROM generated_here'), 'x|1|', 'what is generated here only is not pushed');
	is(rows($remote, 'SELECT name, a, b FROM generated_there'), 'x|1|2', 'what is generated there is not written');

	$local->safe_psql('postgres', <<'SQL');
UPDATE always_key SET name = 'aa', cash = 11 WHERE name = 'a';
UPDATE always_reference SET name = 'y' WHERE parent = 1;
UPDATE always_other SET cash = 12 WHERE name = 'a';
UPDATE generated_there SET b = 0;
INSERT INTO always_other (name) VALUES ('c');
SQL
	is_deeply(counts(), [ 1, 3, 0 ], 'changes of rows with such columns');
	is(rows($remote, q{SELECT id, name, cash, twice FROM always_key WHERE name = 'aa'}), '3|aa|11|22', 'a renamed row keeps its identity');
	is(rows($remote, q{SELECT id, name FROM always_reference WHERE parent = 3}), "$reference|y", 'a row found by reference, too');
	is(rows($remote, q{SELECT number, cash FROM always_other WHERE name = 'a'}), '3|12', 'an identity column beside the key is left alone');
	is(rows($remote, q{SELECT number FROM always_other WHERE name = 'c'}), '4', 'and no update has used up a value');
}

#
# A generated column in a key: a new row's identity is known before the row is written, so nothing can come of it
#
{
	my $drop = sub { qr/HINT: Make it an ordinary column$_[0]: ALTER TABLE public\.$_[1] ALTER COLUMN $_[2] DROP EXPRESSION;/ };

	both($local, $remote, <<'SQL');
CREATE SCHEMA made;
CREATE TABLE doc (body jsonb NOT NULL, id text GENERATED ALWAYS AS (body ->> 'id') STORED PRIMARY KEY);
CREATE TABLE doc_name (body jsonb NOT NULL, id text GENERATED ALWAYS AS (body ->> 'id') STORED PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE made.doc (body jsonb NOT NULL, id text GENERATED ALWAYS AS (body ->> 'id') STORED PRIMARY KEY);
CREATE TABLE made.other (id text PRIMARY KEY);
SQL
	my (undef, undef, $stderr) = $local->psql('postgres', q{SELECT synchro.add_table('doc')});
	like($stderr, qr/ERROR:  column "id" in the primary key of table "doc" is generated\n/, 'a generated primary key is refused');
	like($stderr, qr/HINT:  Make it an ordinary column on all servers, .*: ALTER TABLE public\.doc ALTER COLUMN id DROP EXPRESSION;/, 'the hint says what to do');
	(undef, undef, $stderr) = $local->psql('postgres', q{SELECT synchro.add_table('doc_name', '{name}')});
	like($stderr, qr/ERROR:  column "id" in the primary key of table "doc_name" is generated\n/, 'also beside a natural key');
	(undef, undef, $stderr) = $local->psql('postgres', q{SELECT synchro.add_schema('made')});
	like($stderr, qr/NOTICE:  table "doc" was not added: column "id" in its primary key is generated\n/, 'of a schema the others are added');
	is(rows($local, q{SELECT count(*) FROM synchro.watched WHERE relation = 'made.other'::regclass}), 1, 'as they are');
	$local->safe_psql('postgres', q{SELECT synchro.remove_table('made.other')});

	$local->safe_psql('postgres', <<'SQL');
CREATE TABLE made_there (body jsonb NOT NULL, id text PRIMARY KEY);
CREATE TABLE named_there (id integer PRIMARY KEY, body jsonb NOT NULL, name text NOT NULL UNIQUE);
SQL
	$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE made_there (body jsonb NOT NULL, id text GENERATED ALWAYS AS (body ->> 'id') STORED PRIMARY KEY);
CREATE TABLE named_there (id integer PRIMARY KEY, body jsonb NOT NULL, name text NOT NULL UNIQUE GENERATED ALWAYS AS (body ->> 'id') STORED);
SQL
	watch(q{'made_there'}, q{'named_there', '{name}'});
	foreach (['made_there', 'id'], ['named_there', 'name'])
	{
		my ($table, $column) = @$_;

		$local->safe_psql('postgres', qq{INSERT INTO $table (body, id) VALUES ('{"id": "1"}', 1)}) if $table eq 'made_there';
		$local->safe_psql('postgres', qq{INSERT INTO $table (body, id, name) VALUES ('{"id": "1"}', 1, 1)}) if $table eq 'named_there';
		sync_parks($local, 'office', qr/42P16: column "$column" of table public\.$table is generated on remote "office".*${\$drop->(' there', $table, $column)}/s,
			"a $column that is generated there");
		$remote->safe_psql('postgres', "ALTER TABLE $table ALTER COLUMN $column DROP EXPRESSION");
		is_deeply(counts(), [ 1, 0, 0 ], 'and mended');
		$local->safe_psql('postgres', "UPDATE $table SET $column = 2");
		is_deeply(counts(), [ 0, 1, 0 ], 'for changes, too');
		same($local, $remote, "SELECT id, body FROM $table", 'as it is here');
	}
}

#
# Another order, dropped columns, more columns
#
{
	$local->safe_psql('postgres', <<'SQL');
CREATE TABLE parents (gone integer, a integer, b text, gone2 text, cash integer, PRIMARY KEY (a, b));
ALTER TABLE parents DROP COLUMN gone, DROP COLUMN gone2;
CREATE TABLE children (dead text, id serial PRIMARY KEY, name text UNIQUE, pa integer, pb text, note text, FOREIGN KEY (pa, pb) REFERENCES parents);
ALTER TABLE children DROP COLUMN dead;
ALTER TABLE parents ADD COLUMN added text DEFAULT 'added';
SQL
	$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE parents (x1 integer, b text, cash integer, a integer, x2 integer, extra text DEFAULT 'extra', added text, PRIMARY KEY (b, a));
ALTER TABLE parents DROP COLUMN x1, DROP COLUMN x2;
CREATE TABLE children (note text, pb text, name text UNIQUE, y1 text, id serial PRIMARY KEY, pa integer, FOREIGN KEY (pb, pa) REFERENCES parents);
ALTER TABLE children DROP COLUMN y1;
ALTER SEQUENCE children_id_seq RESTART 300;
SQL
	watch(q{'parents'}, q{'children', '{name}'});
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO parents (a, b, cash) VALUES (1, 'x', 10), (2, 'x', 20), (1, 'y', 30);
INSERT INTO children (name, pa, pb, note) SELECT 'child ' || a || b, a, b, 'note ' || cash FROM parents;
SQL
	is_deeply(counts(), [ 6, 0, 0 ], 'columns in another order');
	same($local, $remote, 'SELECT a, b, cash, added FROM parents ORDER BY a, b', 'columns correspond by name');
	same($local, $remote, 'SELECT name, pa, pb, note FROM children ORDER BY name', 'in foreign keys of two columns, too');
	is(rows($remote, q{SELECT DISTINCT extra FROM parents}), 'extra', "a column that only the remote has gets its default");
	$local->safe_psql('postgres', <<'SQL');
ALTER TABLE children DROP COLUMN note;
UPDATE parents SET cash = cash + 1;
UPDATE children SET pa = 2 WHERE name = 'child 1x';
DELETE FROM children WHERE name = 'child 1y';
DELETE FROM parents WHERE b = 'y';
INSERT INTO parents (a, b, cash) VALUES (3, 'z', 1);
SQL
	is_deeply(counts(), [ 1, 3, 2 ], 'after a column was dropped here');
	same($local, $remote, 'SELECT a, b, cash, added FROM parents ORDER BY a, b', 'rows are found by keys in another order');
	same($local, $remote, 'SELECT name, pa, pb FROM children ORDER BY name', 'and so are their children');
	is(rows($remote, q{SELECT note FROM children WHERE name = 'child 1x'}), 'note 10', 'a column that was dropped here is left alone');
	$remote->safe_psql('postgres', 'ALTER TABLE children DROP COLUMN note, ADD COLUMN fresh text');
	$local->safe_psql('postgres', q{ALTER TABLE children ADD COLUMN fresh text; UPDATE children SET fresh = 'f' || id});
	is_deeply(counts(), [ 0, 2, 0 ], 'after columns were dropped and added on both sides');
	same($local, $remote, 'SELECT name, pa, pb, fresh FROM children WHERE fresh IS NOT NULL ORDER BY name', 'the new column arrives');
}

#
# Equal keys that look different: numeric scale, case of citext, blanks of char(n), negative zero
#
{
	both($local, $remote, <<'SQL');
CREATE EXTENSION citext;
CREATE TABLE looks_pk (code numeric PRIMARY KEY, n integer);
CREATE TABLE looks_pair (code citext, number numeric, n integer, PRIMARY KEY (code, number));
CREATE TABLE looks_child (id serial PRIMARY KEY, name text UNIQUE, code citext, number numeric, FOREIGN KEY (code, number) REFERENCES looks_pair);
CREATE TABLE looks_key (id serial PRIMARY KEY, code citext UNIQUE, f double precision, n integer);
SQL
	watch(q{'looks_pk'}, q{'looks_pair'}, q{'looks_child', '{name}'}, q{'looks_key', '{code}'});
	$remote->safe_psql('postgres', q{INSERT INTO looks_pk VALUES (1.000, -1); INSERT INTO looks_pair VALUES ('ONE', 1.0, -1);
		INSERT INTO looks_key (id, code, n) VALUES (50, 'one', -1)});
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO looks_pk VALUES (1.0, 1);
INSERT INTO looks_pair VALUES ('one', 1, 1);
INSERT INTO looks_child (name, code, number) VALUES ('c', 'oNE', 1.00);
INSERT INTO looks_key (code, f, n) VALUES ('ONE', '0', 1);
SQL
	is_deeply(counts(), [ 1, 3, 0 ], 'equal keys match however they are written');
	my @queries = ('SELECT code, n FROM looks_pk', 'SELECT code, number, n FROM looks_pair',
		'SELECT name, lower(code::text), number::float FROM looks_child', 'SELECT code, f, n FROM looks_key');
	same($local, $remote, $_, "equal: $_") foreach @queries;
	$local->safe_psql('postgres', <<'SQL');
UPDATE looks_pk SET code = 1.0000;
UPDATE looks_pair SET code = 'One', number = 1.000;
UPDATE looks_key SET code = 'onE', f = '-0';
SQL
	is_deeply(counts(), [ 0, 3, 0 ], 'a key that changes its looks is the same row still');
	same($local, $remote, $_, "looks changed: $_") foreach @queries;
	is(rows($remote, 'SELECT id FROM looks_key'), '50', 'which has kept its id');
	$local->safe_psql('postgres', 'DELETE FROM looks_child; DELETE FROM looks_pair; DELETE FROM looks_pk');
	is_deeply(counts(), [ 0, 0, 3 ], 'and is deleted by either');
}

#
# Text that its collation takes for the same
#
{
	both($local, $remote, <<'SQL');
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE person (email text COLLATE nocase PRIMARY KEY, n integer);
CREATE TABLE login (id serial PRIMARY KEY, name text NOT NULL UNIQUE, email text COLLATE nocase REFERENCES person);
CREATE TABLE alias (email varchar(50) COLLATE nocase REFERENCES person, kind text, n integer, PRIMARY KEY (email, kind));
SQL
	watch(q{'person'}, q{'login', '{name}'}, q{'alias'});
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO person VALUES ('Ann@x', 1), ('Bob@x', 2);
INSERT INTO login (name, email) VALUES ('ann', 'ann@X'), ('bob', 'Bob@x');
INSERT INTO alias VALUES ('ANN@x', 'home', 1), ('BOB@x', 'home', 2), ('bob@x', 'work', 3);
SQL
	my @queries = ('SELECT email, n FROM person ORDER BY email', 'SELECT name, lower(email) FROM login ORDER BY name', 'SELECT lower(email), kind, n FROM alias ORDER BY email, kind');

	is_deeply(counts(), [ 7, 0, 0 ], 'rows arrive though they spell what they refer to otherwise');
	same($local, $remote, $_, "collation: $_") foreach @queries;
	$local->safe_psql('postgres', q{UPDATE login SET email = 'BOB@X' WHERE name = 'ann'; UPDATE alias SET n = 10 WHERE kind = 'home'});
	is_deeply(counts(), [ 0, 3, 0 ], 'and are changed');
	same($local, $remote, $_, "collation, changed: $_") foreach @queries;
	$local->safe_psql('postgres', q{UPDATE alias SET kind = 'here' WHERE kind = 'home'; DELETE FROM alias WHERE kind = 'work'});
	is_deeply(counts(), [ 0, 2, 1 ], 'and renamed and deleted');
	same($local, $remote, $_, "collation, renamed: $_") foreach @queries;
	is($local->safe_psql('postgres', 'SELECT count(*) FROM synchro.failures'), '0', 'none has failed');
}

#
# Large values
#
{
	both($local, $remote, <<'SQL');
CREATE TABLE large (id serial PRIMARY KEY, name text UNIQUE, body text, data bytea, n integer);
CREATE TABLE large_key (id serial PRIMARY KEY, name text, n integer);
SQL
	watch(q{'large', '{name}'}, q{'large_key', '{name}'});
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO large (name, body, data, n)
	SELECT 'ten megabytes', string_agg(md5(i::text), E'\n\\'), decode(string_agg(md5(i::text), ''), 'hex'), 1 FROM generate_series(1, 310000) i;
INSERT INTO large_key (name, n) SELECT string_agg(md5((i + k)::text), ''), k FROM generate_series(1, 1000) i, generate_series(1, 3) k GROUP BY k;
SQL
	cmp_ok(rows($local, 'SELECT length(body) FROM large'), '>', 10_000_000, 'a text of more than 10 MB');
	is_deeply(counts(), [ 4, 0, 0 ], 'large values are pushed');
	same($local, $remote, 'SELECT name, md5(body), md5(data), n FROM large', 'and arrive');
	same($local, $remote, 'SELECT md5(name), n FROM large_key ORDER BY n', 'large keys, too');
	$local->safe_psql('postgres', q{UPDATE large SET n = 2; UPDATE large_key SET name = name || 'x' WHERE n = 1; DELETE FROM large_key WHERE n = 2});
	is_deeply(counts(), [ 0, 2, 1 ], 'another column of the row changes; keys longer than a page change');
	same($local, $remote, 'SELECT name, md5(body), md5(data), n FROM large', 'the text that did not change is still there');
	same($local, $remote, 'SELECT md5(name), n FROM large_key ORDER BY n', 'the row of the long key was found');
	is(rows($remote, 'SELECT string_agg(id::text, \',\' ORDER BY n) FROM large_key'),
		rows($local, 'SELECT string_agg(id::text, \',\' ORDER BY n) FROM large_key'), 'under its id');
}

#
# A remote in another encoding
#
{
	my %there = (dbname => 'latin');

	$local->safe_psql('postgres', 'CREATE DATABASE utf8');
	$remote->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
	my $table = qq{CREATE TABLE "stra\303\237e" (id serial PRIMARY KEY, "n\303\244me" text UNIQUE, value text);};
	$local->safe_psql('utf8', "SET client_encoding = 'UTF8'; $table");
	$remote->safe_psql('latin', "SET client_encoding = 'UTF8'; $table");
	connect_remote($local, $remote, name => 'latin', local_db => 'utf8', remote_db => 'latin');
	$local->safe_psql('utf8', qq{SELECT synchro.add_table('"stra\303\237e"', '{n\303\244me}');
		INSERT INTO "stra\303\237e" ("n\303\244me", value) VALUES ('\303\274', '\303\251t\303\251'), ('b', 'plain')});
	is(sync($local, 'latin', dbname => 'utf8')->{inserted}, 2, 'UTF8 here, LATIN1 there: names and values are converted');
	same($local, $remote, qq{SET client_encoding = 'UTF8'; SELECT "n\303\244me", value FROM "stra\303\237e" ORDER BY value},
		'and read the same', local_db => 'utf8', remote_db => 'latin');
	$local->safe_psql('utf8', qq{UPDATE "stra\303\237e" SET "n\303\244me" = '\303\244' WHERE id = 1});
	is(sync($local, 'latin', dbname => 'utf8')->{updated}, 1, 'a key of such letters changes');
	$local->safe_psql('utf8', qq{UPDATE "stra\303\237e" SET value = '5 \342\202\254' WHERE id = 2});
	sync_parks($local, 'latin', qr/22P05.*character with byte sequence 0xe2 0x82 0xac in encoding "UTF8" has no equivalent in encoding "LATIN1"/,
		'a character that the remote cannot have is named', dbname => 'utf8');
	$local->safe_psql('utf8', qq{UPDATE "stra\303\237e" SET value = '5 EUR' WHERE id = 2});
	is(sync($local, 'latin', dbname => 'utf8')->{updated}, 1, 'and when it is gone, the row arrives');
	same($local, $remote, qq{SET client_encoding = 'UTF8'; SELECT "n\303\244me", value FROM "stra\303\237e" ORDER BY value},
		'as it is', local_db => 'utf8', remote_db => 'latin');
}

done_testing();
