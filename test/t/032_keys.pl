# Keys that change, swap, contain other keys, and references that go round in circles.
#
# WHY: a row is found by its natural key, so a key that changes is what the whole method must survive: the remote row has
# to be found by the name that it had there, keep its id and its children, and leave its name to others at the same
# moment. Foreign keys carry the local server's ids, so each must be translated, also inside keys, through several
# tables, and between rows none of which is there yet.

use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

connect_remote($local, $remote);

# Each topic in tables of its own, whose sequences start elsewhere on the remote.
sub tables
{
	my ($ddl, @watched) = @_;

	both($local, $remote, $ddl);
	$remote->safe_psql('postgres', <<'SQL');
SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 1000 + 7 * length(sequencename), false)
	FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NULL
SQL
	$local->safe_psql('postgres', "SET client_min_messages = warning; SELECT synchro.add_table($_)") foreach @watched;
	return;
}

sub change
{
	$local->safe_psql('postgres', $_) foreach @_;
	return;
}

sub counts
{
	my $result = sync($local, 'office');

	return [ @$result{qw(inserted updated deleted)} ];
}

sub remote_ids
{
	my ($query) = @_;

	return rows($remote, $query);
}

#
# A key changes: the remote row keeps its id and its children.
#
{
	tables(<<'SQL', q{'k', '{name}'}, q{'kc', '{title}'});
CREATE TABLE k (id serial PRIMARY KEY, name text UNIQUE NOT NULL, cash integer);
CREATE TABLE kc (id serial PRIMARY KEY, title text UNIQUE, k_id integer NOT NULL REFERENCES k);
SQL
	change(q{INSERT INTO k (name, cash) SELECT chr(96 + i), i FROM generate_series(1, 9) i;
		INSERT INTO kc (title, k_id) SELECT 'child of ' || name, id FROM k});
	is_deeply(counts(), [ 18, 0, 0 ], 'keys: rows and children arrive');

	my $all = 'SELECT k.name, cash, title FROM k LEFT JOIN kc ON k_id = k.id ORDER BY k.name, title';
	my %id = map { split /\|/ } split /\n/, rows($remote, 'SELECT name, id FROM k');
	my $is = sub {
		my ($expected, $testname) = @_;

		same($local, $remote, $all, $testname);
		is_deeply({ map { split /\|/ } split /\n/, rows($remote, 'SELECT name, id FROM k') }, $expected, "$testname: ids");
	};

	change(q{UPDATE k SET name = 'new a' WHERE name = 'a'});
	is_deeply(counts(), [ 0, 1, 0 ], 'a key changes: one update');
	$id{'new a'} = delete $id{a};
	$is->(\%id, 'a key changes');

	change(q{UPDATE k SET name = 'aa' WHERE name = 'new a'}, q{UPDATE k SET name = 'aaa' WHERE name = 'aa'},
		q{UPDATE k SET name = 'a' WHERE name = 'aaa'});
	is_deeply(counts(), [ 0, 1, 0 ], 'a key changes in a chain of transactions');
	$id{a} = delete $id{'new a'};
	$is->(\%id, 'the end of the chain counts');

	change(q{UPDATE k SET name = 'elsewhere' WHERE name = 'a'; UPDATE k SET name = 'a' WHERE name = 'elsewhere'});
	is_deeply(counts(), [ 0, 0, 0 ], 'a key changes and changes back: nothing is written');
	$is->(\%id, 'there and back');

	change(q{BEGIN; UPDATE k SET name = 'tmp' WHERE name = 'a'; UPDATE k SET name = 'a' WHERE name = 'b';
		UPDATE k SET name = 'b' WHERE name = 'tmp'; COMMIT});
	sync($local, 'office');
	@id{qw(a b)} = @id{qw(b a)};
	$is->(\%id, 'two rows swap their keys in one transaction');

	change(q{BEGIN; UPDATE k SET name = 'tmp' WHERE name = 'c'; UPDATE k SET name = 'c' WHERE name = 'd';
		UPDATE k SET name = 'd' WHERE name = 'e'; UPDATE k SET name = 'e' WHERE name = 'tmp'; COMMIT});
	sync($local, 'office');
	@id{qw(c d e)} = @id{qw(d e c)};
	$is->(\%id, 'three rows rotate');

	change(q{UPDATE k SET name = 'tmp' WHERE name = 'a'}, q{UPDATE k SET name = 'a' WHERE name = 'b'},
		q{UPDATE k SET name = 'b' WHERE name = 'tmp'});
	sync($local, 'office');
	@id{qw(a b)} = @id{qw(b a)};
	$is->(\%id, 'a swap over three transactions');

	change(q{UPDATE k SET name = 'old f' WHERE name = 'f'; INSERT INTO k (name, cash) VALUES ('f', 60)});
	is_deeply(counts(), [ 1, 1, 0 ], 'a key is taken over by a new row');
	$id{'old f'} = delete $id{f};
	$id{f} = rows($remote, q{SELECT id FROM k WHERE name = 'f'});
	$is->(\%id, 'the old row has its id and children, the new one another id');
	isnt($id{f}, $id{'old f'}, 'they are two');

	change(q{DELETE FROM kc WHERE title = 'child of g'; DELETE FROM k WHERE name = 'g'; INSERT INTO k (name, cash) VALUES ('g', 70);
		INSERT INTO kc (title, k_id) SELECT 'child of g', id FROM k WHERE name = 'g'});
	is_deeply(counts(), [ 0, 1, 0 ], 'deleted and inserted again with the same key: the remote row survives');
	$is->(\%id, 'and keeps its id');

	# what referred to it stays in place as well, here seen by a row of the remote's own
	$remote->safe_psql('postgres', q{INSERT INTO kc (title, k_id) SELECT 'own', id FROM k WHERE name = 'h'});
	change(q{DELETE FROM kc WHERE title = 'child of h'; DELETE FROM k WHERE name = 'h'}, q{INSERT INTO k (name, cash) VALUES ('h', 80)});
	is_deeply(counts(), [ 0, 1, 1 ], "a parent that comes back over two transactions does not trip over the remote's own child");
	is(rows($remote, q{SELECT name FROM k JOIN kc ON k_id = k.id WHERE title = 'own'}), 'h', 'which is still there');
	$remote->safe_psql('postgres', q{DELETE FROM kc WHERE title = 'own'});

	change(q{DELETE FROM kc WHERE title = 'child of i'; DELETE FROM k WHERE name = 'i'; UPDATE k SET name = 'i' WHERE name = 'h'});
	sync($local, 'office');
	$id{i} = delete $id{h};
	$is->(\%id, 'a row takes the key of one that is deleted');

	change(q{UPDATE k SET name = 'i2' WHERE name = 'i'}, q{DELETE FROM k WHERE name = 'i2'});
	is_deeply(counts(), [ 0, 0, 1 ], 'renamed, then deleted: deleted by the name that it has there');
	delete $id{i};
	$is->(\%id, 'nothing is left of it');
}

#
# Another unique column
#
{
	tables(<<'SQL', q{'u', '{name}'}, q{'ud', '{name}'});
CREATE TABLE u (id serial PRIMARY KEY, name text UNIQUE, place integer NOT NULL UNIQUE, code text UNIQUE, part text NOT NULL, of text NOT NULL, UNIQUE (part, of));
CREATE TABLE ud (id serial PRIMARY KEY, name text UNIQUE, place integer NOT NULL UNIQUE DEFERRABLE);
SQL
	change(q{INSERT INTO u (name, place, code, part, of) SELECT chr(96 + i), i, 'c' || i, i % 2, i / 2 FROM generate_series(1, 6) i;
		INSERT INTO ud (name, place) SELECT chr(96 + i), i FROM generate_series(1, 6) i});
	sync($local, 'office');

	my %id = map { $_ => rows($remote, "SELECT string_agg(id::text, ' ' ORDER BY name) FROM $_") } qw(u ud);
	my $is = sub {
		same($local, $remote, 'SELECT name, place, code, part, of FROM u ORDER BY name', "$_[0]: not deferrable");
		same($local, $remote, 'SELECT name, place FROM ud ORDER BY name', "$_[0]: DEFERRABLE");
		is(rows($remote, "SELECT string_agg(id::text, ' ' ORDER BY name) FROM $_"), $id{$_}, "$_[0]: ids of $_") foreach qw(u ud);
	};

	change(q{BEGIN; UPDATE u SET place = 100 WHERE name = 'a'; UPDATE u SET place = 1 WHERE name = 'b'; UPDATE u SET place = 2 WHERE name = 'a'; COMMIT;
		BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE ud SET place = 3 - place WHERE place < 3; COMMIT});
	sync($local, 'office');
	$is->('a swap of another unique column');

	change(q{BEGIN; UPDATE u SET place = 0 WHERE name = 'c'; UPDATE u SET place = 3 WHERE name = 'd'; UPDATE u SET place = 4 WHERE name = 'e';
		UPDATE u SET place = 5 WHERE name = 'c'; COMMIT;
		BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE ud SET place = place % 6 + 1; COMMIT});
	sync($local, 'office');
	$is->('a rotation');

	change(q{BEGIN; UPDATE u SET code = NULL WHERE name = 'a'; UPDATE u SET code = 'c1' WHERE name = 'b'; UPDATE u SET code = 'c2' WHERE name = 'a';
		UPDATE u SET part = 'x' WHERE name = 'e'; UPDATE u SET part = '1', of = '2' WHERE name = 'f'; UPDATE u SET part = '0', of = '3' WHERE name = 'e'; COMMIT});
	sync($local, 'office');
	$is->('swaps of a column that may be NULL, and of two columns');

	change(q{BEGIN; UPDATE u SET place = -place; UPDATE u SET place = 7 + place; UPDATE u SET name = upper(name); COMMIT;
		UPDATE ud SET name = upper(name)});
	sync($local, 'office');
	$is->('all rows at once, their keys as well');

	change(q{DELETE FROM u WHERE name = 'A'; UPDATE u SET place = place + 0});
	sync($local, 'office');
	$id{u} =~ s/^\d+ //;
	$is->('one of them goes');
	change(q{DELETE FROM ud WHERE name = 'A'});
	my $free = rows($local, q{SELECT min(g) FROM generate_series(1, 6) g WHERE NOT EXISTS (SELECT FROM ud WHERE place = g)});
	change("INSERT INTO ud (name, place) VALUES ('New', $free)");
	sync($local, 'office');
	same($local, $remote, 'SELECT name, place FROM ud ORDER BY name', 'a new row takes the value of one that is deleted');
}

#
# Primary keys change
#
{
	tables(<<'SQL', q{'pt'}, q{'ptc', '{title}'}, q{'tag', '{name}'}, q{'pt_tag'}, q{'ser', '{name}'}, q{'serc', '{title}'}, q{'refs'});
CREATE TABLE pt (code text PRIMARY KEY, cash integer);
CREATE TABLE ptc (id serial PRIMARY KEY, title text UNIQUE, code text REFERENCES pt ON UPDATE CASCADE);
CREATE TABLE tag (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE pt_tag (code text REFERENCES pt ON UPDATE CASCADE, tag_id integer REFERENCES tag ON UPDATE CASCADE, note text, PRIMARY KEY (code, tag_id));
CREATE TABLE ser (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE serc (id serial PRIMARY KEY, title text UNIQUE, ser_id integer REFERENCES ser ON UPDATE CASCADE);
CREATE TABLE refs (id serial PRIMARY KEY, name text);
SQL
	change(q{INSERT INTO pt SELECT chr(96 + i), i FROM generate_series(1, 6) i;
		INSERT INTO ptc (title, code) SELECT 'child of ' || code, code FROM pt;
		INSERT INTO tag (name) VALUES ('red'), ('green'), ('blue');
		INSERT INTO pt_tag (code, tag_id, note) SELECT code, id, code || name FROM pt, tag;
		INSERT INTO ser (name) VALUES ('a'), ('b'), ('c');
		INSERT INTO serc (title, ser_id) SELECT 'child of ' || name, id FROM ser;
		INSERT INTO refs (name) VALUES ('x'), ('y'), ('z')});
	is_deeply(counts(), [ 6 + 6 + 3 + 18 + 3 + 3 + 3, 0, 0 ], 'primary keys: all arrive');
	my @queries = ('SELECT code, cash FROM pt ORDER BY code', 'SELECT title, code, id FROM ptc ORDER BY title',
		'SELECT code, name, note FROM pt_tag JOIN tag ON tag_id = tag.id ORDER BY code, name',
		'SELECT name, title FROM ser LEFT JOIN serc ON ser_id = ser.id ORDER BY name, title', 'SELECT name FROM refs ORDER BY name');
	my $is = sub {
		my ($testname) = @_;
		my @compared = map { s/, id FROM/ FROM/r } @queries;

		same($local, $remote, $_, "$testname: $_") foreach @compared;
	};
	my $children = rows($remote, $queries[1]);
	my $sers = rows($remote, 'SELECT name, id FROM ser ORDER BY name');
	my $references = rows($remote, 'SELECT name, id FROM refs ORDER BY name');

	change(q{UPDATE pt SET code = 'new a' WHERE code = 'a'});
	is_deeply(counts()->[0], 0, 'a text primary key changes with ON UPDATE CASCADE: nothing is inserted');
	$is->('a text primary key changes');
	is(rows($remote, 'SELECT title, id FROM ptc ORDER BY title'), join("\n", map { s/\|\w+\|/|/r } split /\n/, $children), 'the children kept their ids');

	change(q{BEGIN; UPDATE pt SET code = 'tmp' WHERE code = 'b'; UPDATE pt SET code = 'b' WHERE code = 'c'; UPDATE pt SET code = 'c' WHERE code = 'tmp'; COMMIT});
	sync($local, 'office');
	$is->('two swap their primary keys, with their children');

	change(q{UPDATE pt SET code = 'd2', cash = 44 WHERE code = 'd'; DELETE FROM pt_tag WHERE code = 'd2' AND note = 'dred';
		UPDATE pt_tag SET note = 'changed' WHERE note = 'dblue'});
	sync($local, 'office');
	$is->('a pair is deleted and one changes after its parent was renamed');

	change(q{UPDATE ser SET id = id + 500 WHERE name <> 'c'; UPDATE refs SET id = id + 700 WHERE name <> 'z'; UPDATE tag SET id = id + 900});
	sync($local, 'office');
	$is->('serial primary keys change');
	is(rows($remote, 'SELECT name, id FROM ser ORDER BY name'), $sers, 'the remote keeps its own');
	is(rows($remote, 'SELECT name, id FROM refs ORDER BY name'), $references, 'also where only a reference tells');
	change(q{UPDATE refs SET name = name || '!'; DELETE FROM refs WHERE name = 'y!'});
	is_deeply(counts(), [ 0, 2, 1 ], 'the reference has moved along');
	$is->('after that');

	change(q{BEGIN; UPDATE refs SET id = 1 WHERE name = 'x!'; UPDATE refs SET id = 701 WHERE name = 'z!'; COMMIT});
	change(q{UPDATE refs SET name = 'zz' WHERE id = 701; UPDATE refs SET name = 'xx' WHERE id = 1});
	is_deeply(counts(), [ 0, 2, 0 ], 'an id is taken over by another row in mode reference');
	is(rows($remote, 'SELECT name, id FROM refs ORDER BY name'), $references =~ s/y\|\d+\n//r =~ s/x/xx/r =~ s/z/zz/r, 'each is itself still');
}

#
# Keys within keys
#
{
	tables(<<'SQL', map { "'$_'" } "land', '{name}", "town', '{land_id, name}", "street', '{town_id, name}", "house', '{street_id, number}", "pair', '{a, b}", "pairc', '{pa, pb, name}", "ucode', '{name}", "byu', '{ucode_code, name}", "byuc', '{byu_id, name}");
CREATE TABLE land (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE town (id serial PRIMARY KEY, name text, land_id integer REFERENCES land ON DELETE CASCADE, UNIQUE (land_id, name));
CREATE TABLE street (id serial PRIMARY KEY, name text, town_id integer NOT NULL REFERENCES town ON DELETE CASCADE, UNIQUE (name, town_id));
CREATE TABLE house (id serial PRIMARY KEY, number integer, street_id integer NOT NULL REFERENCES street ON DELETE CASCADE, colour text, UNIQUE (street_id, number));
CREATE TABLE pair (id serial PRIMARY KEY, a integer NOT NULL REFERENCES land, b integer NOT NULL REFERENCES town, UNIQUE (a, b));
CREATE TABLE pairc (id serial PRIMARY KEY, pa integer, pb integer, name text, FOREIGN KEY (pa, pb) REFERENCES pair (a, b) ON UPDATE CASCADE, UNIQUE (pa, pb, name));
CREATE TABLE ucode (id serial PRIMARY KEY, name text UNIQUE, code numeric UNIQUE);
CREATE TABLE byu (id serial PRIMARY KEY, name text, ucode_code numeric REFERENCES ucode (code) ON UPDATE CASCADE, UNIQUE (ucode_code, name));
CREATE TABLE byuc (id serial PRIMARY KEY, name text, byu_id integer REFERENCES byu ON DELETE CASCADE, UNIQUE (byu_id, name));
SQL
	my @queries = ('SELECT l.name, t.name, s.name, number, colour FROM land l FULL JOIN town t ON land_id = l.id FULL JOIN street s ON town_id = t.id
		FULL JOIN house h ON street_id = s.id ORDER BY 1, 2, 3, 4',
		'SELECT l.name, t.name, c.name FROM pair JOIN land l ON l.id = a JOIN town t ON t.id = b LEFT JOIN pairc c ON (pa, pb) = (a, b) ORDER BY 1, 2, 3',
		'SELECT u.name, code, b.name, c.name FROM ucode u LEFT JOIN byu b ON code = ucode_code LEFT JOIN byuc c ON byu_id = b.id ORDER BY 1, 2, 3, 4');
	my $ids = 'SELECT (SELECT string_agg(id::text, \' \' ORDER BY id) FROM town), (SELECT string_agg(id::text, \' \' ORDER BY id) FROM street),
		(SELECT string_agg(id::text, \' \' ORDER BY id) FROM house), (SELECT string_agg(id::text, \' \' ORDER BY id) FROM byu)';
	my $is = sub {
		my ($testname) = @_;

		same($local, $remote, $queries[$_], "$testname (query $_)") foreach 0 .. $#queries;
	};

	change(q{INSERT INTO land (name) VALUES ('A'), ('B'), ('C');
		INSERT INTO town (name, land_id) SELECT 'Town ' || g, id FROM land, generate_series(1, 3) g;
		INSERT INTO town (name) VALUES ('Nowhere');
		INSERT INTO street (name, town_id) SELECT 'Street ' || g, id FROM town, generate_series(1, 3) g;
		INSERT INTO house (number, street_id) SELECT g, id FROM street, generate_series(1, 3) g;
		INSERT INTO pair (a, b) SELECT l.id, t.id FROM land l, town t WHERE t.name = 'Town 1';
		INSERT INTO pairc (pa, pb, name) SELECT a, b, g::text FROM pair, generate_series(1, 2) g;
		INSERT INTO ucode (name, code) VALUES ('one', 1.0), ('two', 2.50), ('three', 3);
		INSERT INTO byu (name, ucode_code) VALUES ('x', 1), ('x', 2.5), ('y', 2.5000), ('x', 3.0);
		INSERT INTO byuc (name, byu_id) SELECT 'leaf', id FROM byu});
	is_deeply(counts(), [ 3 + 10 + 30 + 90 + 9 + 18 + 3 + 4 + 4, 0, 0 ], 'keys through three tables arrive');
	$is->('keys in keys');
	my $before = rows($remote, $ids);

	change(q{UPDATE house SET colour = 'red'; UPDATE byuc SET name = 'Leaf'});
	is_deeply(counts(), [ 0, 90 + 4, 0 ], 'and are found again');
	$is->('found');

	change(q{UPDATE land SET name = 'new A' WHERE name = 'A'; UPDATE town SET name = 'New Town' WHERE name = 'Town 1';
		UPDATE street SET name = 'New ' || name; UPDATE house SET number = number + 100, colour = 'blue'});
	is_deeply(counts()->[0], 0, 'keys change on all levels at once: nothing is inserted');
	$is->('all levels renamed');
	is(rows($remote, $ids), $before, 'nor has any row got another id');

	change(q{UPDATE town SET land_id = (SELECT id FROM land WHERE name = 'B'), name = 'Moved' WHERE name = 'Town 2' AND land_id = (SELECT id FROM land WHERE name = 'C')},
		q{UPDATE land SET name = 'new B' WHERE name = 'B'},
		q{DELETE FROM house WHERE street_id IN (SELECT s.id FROM street s JOIN town t ON t.id = town_id WHERE t.name = 'Moved') AND number = 101});
	is_deeply(counts(), [ 0, 2, 3 ], 'a row moves to another parent that is renamed, and what hangs from it is deleted');
	$is->('moved');
	is(rows($remote, 'SELECT count(*) FROM town'), 10, 'none is there twice');

	change(q{BEGIN; UPDATE land SET name = 'tmp' WHERE name = 'new A'; UPDATE land SET name = 'new A' WHERE name = 'C'; UPDATE land SET name = 'C' WHERE name = 'tmp';
		DELETE FROM land WHERE name = 'C' AND NOT EXISTS (SELECT FROM pair WHERE a = land.id); COMMIT});
	is_deeply(counts()->[0], 0, 'parents swap keys');
	$is->('swapped');
	change(q{DELETE FROM town WHERE name = 'Moved'});
	is_deeply(counts(), [ 0, 0, 1 + 3 + 6 ], 'one goes with all that hangs from it');
	$is->('cascaded');
}

#
# Paths: the key contains a reference to the table itself
#
{
	tables(<<'SQL', q{'dir', '{parent_id, name}'}, q{'file', '{dir_id, name}'});
CREATE TABLE dir (id serial PRIMARY KEY, name text NOT NULL, parent_id integer REFERENCES dir ON DELETE CASCADE, size integer, UNIQUE (parent_id, name));
CREATE TABLE file (id serial PRIMARY KEY, name text, dir_id integer REFERENCES dir ON DELETE CASCADE, UNIQUE (dir_id, name));
SQL
	my $paths = q{WITH RECURSIVE d AS (SELECT id, name AS path, size FROM dir WHERE parent_id IS NULL UNION ALL
		SELECT c.id, path || '/' || name, c.size FROM d JOIN dir c ON c.parent_id = d.id)
		SELECT path, size, f.name FROM d LEFT JOIN file f ON dir_id = d.id ORDER BY path, f.name};

	$remote->safe_psql('postgres', q{INSERT INTO dir (id, name) VALUES (1, 'usr'); INSERT INTO dir (id, name, parent_id, size) VALUES (2, 'lib', 1, -1)});
	change(q{INSERT INTO dir (id, name, parent_id) VALUES (10, 'usr', NULL), (9, 'lib', 10), (8, 'share', 10), (7, 'doc', 8), (6, 'lib', 7), (5, 'home', NULL), (4, 'lib', 5);
		INSERT INTO file (name, dir_id) SELECT 'readme', id FROM dir});
	is_deeply(counts(), [ 5 + 7, 1, 0 ], 'paths: what was there is found by its path');
	same($local, $remote, $paths, 'paths arrive');
	my $ids = rows($remote, 'SELECT string_agg(id::text, \' \' ORDER BY id) FROM dir');

	change(q{UPDATE dir SET size = id});
	is_deeply(counts(), [ 0, 7, 0 ], 'all are found again');
	change(q{UPDATE dir SET name = 'USR' WHERE name = 'usr'; UPDATE dir SET name = 'Lib' WHERE name = 'lib'; UPDATE file SET name = 'README'});
	is_deeply(counts(), [ 0, 1 + 3 + 7, 0 ], 'directories and what is in them are renamed at once');
	same($local, $remote, $paths, 'renamed paths');
	change(q{UPDATE dir SET parent_id = 4 WHERE name = 'share'; UPDATE dir SET name = 'lost' WHERE id = 4});
	is_deeply(counts(), [ 0, 2, 0 ], 'a subtree moves');
	same($local, $remote, $paths, 'moved subtree');
	is(rows($remote, 'SELECT string_agg(id::text, \' \' ORDER BY id) FROM dir'), $ids, 'no row has another id');
	change(q{UPDATE dir SET name = 'gone' WHERE id = 7; DELETE FROM dir WHERE id = 8});
	is_deeply(counts(), [ 0, 0, 3 + 3 ], 'a subtree is deleted from under its root');
	same($local, $remote, $paths, 'without the subtree');
	change(q{DELETE FROM dir WHERE id = 10; INSERT INTO dir (id, name) VALUES (100, 'USR'); INSERT INTO dir (name, parent_id) VALUES ('Lib', 100), ('new', 100)});
	sync($local, 'office');
	same($local, $remote, $paths, 'deleted and made anew');

	# What is found under the name that is gone, with all below it, is the renamed directory's.
	change(q{INSERT INTO file (name, dir_id) SELECT 'README', id FROM dir WHERE parent_id = 100});
	change(q{UPDATE dir SET name = 'attic' WHERE id = 100; INSERT INTO dir (id, name) VALUES (101, 'USR'); INSERT INTO dir (id, name, parent_id) VALUES (102, 'Lib', 101), (103, 'new', 101);
		INSERT INTO file (name, dir_id) VALUES ('README', 102)});
	is_deeply(counts(), [ 2 + 3 + 1, 1, 0 ], 'a name is taken over at once');
	same($local, $remote, $paths, 'with all that is below it');
	change(q{UPDATE dir SET name = 'newer' WHERE id = 103; INSERT INTO dir (name, parent_id) VALUES ('new', 101)});
	is_deeply(counts(), [ 1, 1, 0 ], 'below a root, too');
	same($local, $remote, $paths, 'both are there');
	change(q{INSERT INTO file (name, dir_id) VALUES ('readme', 101)});
	is_deeply(counts(), [ 1, 0, 0 ], 'a file alone is pushed, in a directory that is there');
	same($local, $remote, $paths, 'and is where it belongs');
}

#
# Trees whose keys do not contain the parent, deep, in any order
#
{
	tables(<<'SQL', q{'tree', '{name}'}, q{'reftree'});
CREATE TABLE tree (id serial PRIMARY KEY, name text UNIQUE, parent_id integer REFERENCES tree);
CREATE TABLE reftree (id serial PRIMARY KEY, name text, parent_id integer REFERENCES reftree);
SQL
	my $query = 'SELECT c.name, p.name FROM %1$s c LEFT JOIN %1$s p ON p.id = c.parent_id ORDER BY c.name';

	foreach my $table (qw(tree reftree))
	{
		change(qq{ALTER TABLE $table DISABLE TRIGGER ALL; ALTER TABLE $table ENABLE TRIGGER USER;
			INSERT INTO $table (id, name, parent_id) SELECT i, 'n' || i, NULLIF(i - 1, 0) FROM generate_series(1, 50) i ORDER BY md5(i::text);
			ALTER TABLE $table ENABLE TRIGGER ALL});
	}
	is_deeply(counts(), [ 100, 0, 0 ], 'trees of depth 50 in shuffled order');
	same($local, $remote, sprintf($query, $_), "$_ arrives") foreach qw(tree reftree);
	change(map { qq{UPDATE $_ SET parent_id = CASE WHEN id < 50 THEN id + 1 END} } qw(tree reftree));
	is_deeply(counts(), [ 0, 100, 0 ], 'turned upside down');
	same($local, $remote, sprintf($query, $_), "$_ turned round") foreach qw(tree reftree);
	change(map { qq{DELETE FROM $_} } qw(tree reftree));
	is_deeply(counts(), [ 0, 0, 100 ], 'and all of it deleted');
}

#
# Circles of tables
#
{
	tables(<<'SQL', map { "'$_', '{name}'" } qw(n1 n2 d1 d2 d3 i1 i2));
CREATE TABLE n1 (id serial PRIMARY KEY, name text UNIQUE, other integer);
CREATE TABLE n2 (id serial PRIMARY KEY, name text UNIQUE, other integer REFERENCES n1);
ALTER TABLE n1 ADD FOREIGN KEY (other) REFERENCES n2;
CREATE TABLE d1 (id serial PRIMARY KEY, name text UNIQUE, other integer NOT NULL);
CREATE TABLE d2 (id serial PRIMARY KEY, name text UNIQUE, other integer NOT NULL REFERENCES d1 DEFERRABLE);
CREATE TABLE d3 (id serial PRIMARY KEY, name text UNIQUE, other integer NOT NULL REFERENCES d2 DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE d1 ADD FOREIGN KEY (other) REFERENCES d3 DEFERRABLE;
CREATE TABLE i1 (id serial PRIMARY KEY, name text UNIQUE, other integer NOT NULL);
CREATE TABLE i2 (id serial PRIMARY KEY, name text UNIQUE, other integer NOT NULL REFERENCES i1);
ALTER TABLE i1 ADD FOREIGN KEY (other) REFERENCES i2;
SQL
	my $two = 'SELECT a.name, b.name, c.name FROM %1$s1 a JOIN %1$s2 b ON b.id = a.other JOIN %1$s1 c ON c.id = b.other ORDER BY 1, 2, 3';
	my $three = 'SELECT a.name, b.name, c.name, d.name FROM d1 a JOIN d3 b ON b.id = a.other JOIN d2 c ON c.id = b.other JOIN d1 d ON d.id = c.other ORDER BY 1';

	change(q{INSERT INTO n1 (name) VALUES ('a'), ('b'); INSERT INTO n2 (name, other) SELECT name, id FROM n1; UPDATE n1 SET other = n2.id FROM n2 WHERE n2.name <> n1.name;
		BEGIN; SET CONSTRAINTS ALL DEFERRED;
		INSERT INTO d1 (id, name, other) VALUES (1, 'a', 2), (2, 'b', 1); INSERT INTO d3 (id, name, other) VALUES (1, 'a', 2), (2, 'b', 1); INSERT INTO d2 (id, name, other) VALUES (1, 'a', 2), (2, 'b', 1);
		COMMIT;
		WITH x AS (INSERT INTO i1 (id, name, other) VALUES (1, 'a', 2), (2, 'b', 1)) INSERT INTO i2 (id, name, other) VALUES (1, 'a', 2), (2, 'b', 1)});
	is_deeply(counts(), [ 4 + 6 + 4, 0, 0 ], 'circles: nullable, deferrable, and NOT NULL checked at once');
	same($local, $remote, sprintf($two, $_), "circle $_") foreach qw(n i);
	same($local, $remote, $three, 'circle of three tables');
	change(q{UPDATE n1 SET name = upper(name); UPDATE n2 SET other = n1.id FROM n1 WHERE n1.name <> upper(n2.name);
		BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE d1 SET other = 3 - other, name = upper(name); COMMIT; UPDATE i1 SET other = 3 - other; INSERT INTO i1 (id, name, other) VALUES (3, 'c', 1)});
	is_deeply(counts(), [ 1, 2 + 2 + 2 + 2, 0 ], 'they turn');
	same($local, $remote, sprintf($two, $_), "circle $_ turned") foreach qw(n i);
	same($local, $remote, $three, 'circle of three tables turned');
	change(q{UPDATE n1 SET other = NULL; DELETE FROM n2; DELETE FROM n1; BEGIN; SET CONSTRAINTS ALL DEFERRED; DELETE FROM d1; DELETE FROM d2; DELETE FROM d3; COMMIT;
		WITH x AS (DELETE FROM i1), y AS (DELETE FROM i2) SELECT 1});
	is_deeply(counts(), [ 0, 0, 4 + 6 + 5 ], 'and are deleted');
	is(rows($remote, 'SELECT (SELECT count(*) FROM n1), (SELECT count(*) FROM d2), (SELECT count(*) FROM i2)'), '0|0|0', 'all of them');
}

#
# Parents that were never logged, three levels up, watched and not
#
{
	tables(<<'SQL');
CREATE TABLE g1 (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE g2 (id serial PRIMARY KEY, name text, g1_id integer REFERENCES g1, UNIQUE (g1_id, name));
CREATE TABLE g3 (id serial PRIMARY KEY, name text, g2_id integer REFERENCES g2);
CREATE TABLE g4 (id serial PRIMARY KEY, name text UNIQUE, g3_id integer REFERENCES g3, code numeric, blank char(5));
CREATE TABLE gn (code numeric PRIMARY KEY, note text);
CREATE TABLE gb (code char(5) PRIMARY KEY, note text);
ALTER TABLE g4 ADD FOREIGN KEY (code) REFERENCES gn, ADD FOREIGN KEY (blank) REFERENCES gb;
SQL
	change(q{INSERT INTO g1 (name) VALUES ('a'), ('unused'); INSERT INTO g2 (name, g1_id) VALUES ('b', 1); INSERT INTO g3 (name, g2_id) VALUES ('c', 1);
		INSERT INTO gn VALUES (1.50, 'n'), (2, 'unused'); INSERT INTO gb VALUES ('x', 'b'), ('y', 'unused')});
	change(map { "SET client_min_messages = warning; $_" } q{SELECT synchro.register_natural_key('g1', '{name}')}, q{SELECT synchro.add_table('g2', '{g1_id, name}')},
		q{SELECT synchro.add_table('g3')}, q{SELECT synchro.add_table('g4', '{name}')}, q{SELECT synchro.add_table('gn')});
	change(q{INSERT INTO g4 (name, g3_id, code, blank) VALUES ('d', 1, 1.5, 'x'), ('e', 1, 1.500, 'x    ')});
	is_deeply(counts(), [ 2 + 1 + 1 + 1 + 1 + 1, 0, 0 ], 'parents that were never logged come along');
	same($local, $remote, 'SELECT g4.name, g3.name, g2.name, g1.name, gn.code, gn.note, gb.code, gb.note
		FROM g4 JOIN g3 ON g3.id = g3_id JOIN g2 ON g2.id = g2_id JOIN g1 ON g1.id = g1_id JOIN gn ON gn.code = g4.code JOIN gb ON gb.code = blank ORDER BY 1',
		'three levels up');
	is(rows($remote, 'SELECT (SELECT count(*) FROM g1), (SELECT count(*) FROM gn), (SELECT count(*) FROM gb)'), '1|1|1', 'and only those that are needed');
	change(q{UPDATE g4 SET code = NULL, blank = 'y', g3_id = NULL WHERE name = 'd'});
	is_deeply(counts(), [ 1, 1, 0 ], 'a NULL reference is NULL there, another parent comes along');
	same($local, $remote, 'SELECT name, g3_id IS NULL, trim_scale(code), blank FROM g4 ORDER BY name', 'as it is here');
}

#
# Keys that contain a reference to another column than the parent's primary key change
#
{
	my $codes = 'SELECT u.name, code, b.name, c.name FROM ucode u LEFT JOIN byu b ON code = ucode_code LEFT JOIN byuc c ON byu_id = b.id ORDER BY 1, 2, 3, 4';
	my $before = rows($remote, q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM byu});

	change(q{UPDATE byu SET name = 'xx' WHERE name = 'x'; UPDATE byuc SET name = 'L'});
	is_deeply(counts(), [ 0, 3 + 4, 0 ], 'their own part changes');
	same($local, $remote, $codes, 'own part changed');
	change(q{UPDATE ucode SET name = 'One', code = 1.5 WHERE name = 'one'; UPDATE byuc SET name = 'M'});
	is(counts()->[0], 0, 'what they reference changes');
	same($local, $remote, $codes, 'referenced value changed');
	is(rows($remote, q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM byu}), $before, 'all rows have kept their ids');
	change(q{UPDATE byu SET ucode_code = 3 WHERE name = 'y'; DELETE FROM byuc WHERE byu_id IN (SELECT id FROM byu WHERE name = 'y')});
	is_deeply(counts(), [ 0, 1, 1 ], 'they are moved to another');
	same($local, $remote, $codes, 'moved');
	change(q{DELETE FROM byu WHERE ucode_code = 2.5; DELETE FROM ucode WHERE code = 2.5});
	is_deeply(counts(), [ 0, 0, 2 + 1 ], 'and deleted with what they reference');
	same($local, $remote, $codes, 'deleted');
}

#
# Pairs of references, for which there is no free value in between
#
{
	change(q{DELETE FROM pt_tag WHERE note = 'eblue'; UPDATE pt_tag SET tag_id = (SELECT id FROM tag WHERE name = 'blue') WHERE note = 'egreen'});
	sync($local, 'office');
	my $pairs = 'SELECT code, name, note FROM pt_tag JOIN tag ON tag_id = tag.id ORDER BY code, name';

	same($local, $remote, $pairs, 'a pair moves to where another was deleted');
	change(q{BEGIN; CREATE TEMP TABLE swapped AS SELECT * FROM pt_tag WHERE note IN ('fred', 'fgreen'); INSERT INTO tag (name) VALUES ('white');
		UPDATE pt_tag SET tag_id = (SELECT id FROM tag WHERE name = 'white') WHERE note = 'fred';
		UPDATE pt_tag SET tag_id = (SELECT tag_id FROM swapped WHERE note = 'fred') WHERE note = 'fgreen';
		UPDATE pt_tag SET tag_id = (SELECT tag_id FROM swapped WHERE note = 'fgreen') WHERE note = 'fred'; COMMIT});
	is_deeply(counts(), [ 1, 2, 0 ], 'two pairs change places');
	same($local, $remote, $pairs, 'each has what the other had');
	change(q{UPDATE pt_tag SET tag_id = (SELECT id FROM tag WHERE name = 'white') WHERE note = 'fblue';
		UPDATE pt_tag SET tag_id = (SELECT id FROM tag WHERE name = 'blue') WHERE note = 'fred'});
	sync($local, 'office');
	same($local, $remote, $pairs, 'one moves on, another takes its place');
	change(q{DELETE FROM pt_tag WHERE note = 'fred';
		UPDATE pt SET code = 'F' WHERE code = 'f'; UPDATE pt_tag SET tag_id = (SELECT id FROM tag WHERE name = 'blue') WHERE note = 'fgreen'});
	sync($local, 'office');
	same($local, $remote, $pairs, 'and with a parent that is renamed');
}

#
# A pass of many batches
#
{
	$local->safe_psql('postgres', q{LOAD 'synchro'; ALTER SYSTEM SET synchro.batch_size = 10});
	$local->reload;
	tables(<<'SQL', q{'bp', '{name}'}, q{'bc', '{parent_id, name}'}, q{'br'});
CREATE TABLE bp (id serial PRIMARY KEY, name text UNIQUE NOT NULL, cash integer UNIQUE NOT NULL);
CREATE TABLE bc (id serial PRIMARY KEY, name text NOT NULL, parent_id integer NOT NULL REFERENCES bp, UNIQUE (parent_id, name));
CREATE TABLE br (id serial PRIMARY KEY, name text, bc_id integer REFERENCES bc);
SQL
	my $query = 'SELECT p.name, cash, c.name, r.name FROM bp p LEFT JOIN bc c ON parent_id = p.id LEFT JOIN br r ON bc_id = c.id ORDER BY 1, 3, 4';
	my $ids = sub { return rows($remote, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM $_[0]") };

	change(q{INSERT INTO bp (name, cash) SELECT 'p' || i, i FROM generate_series(1, 55) i;
		INSERT INTO bc (name, parent_id) SELECT 'c' || i, 1 + i % 55 FROM generate_series(1, 101) i;
		INSERT INTO br (name, bc_id) SELECT 'r' || i, 1 + i % 101 FROM generate_series(1, 77) i});
	$remote->safe_psql('postgres', q{SELECT pg_stat_reset_single_table_counters('synchro_peer.position'::regclass)});
	is_deeply(counts(), [ 55 + 101 + 77, 0, 0 ], 'in batches of ten, and more as they are quick');
	wait_for($remote, q{SELECT n_tup_upd >= 6 FROM pg_stat_all_tables WHERE relid = 'synchro_peer.position'::regclass}, 'and those are many');
	same($local, $remote, $query, 'all arrive');
	my ($bp, $bc, $br) = map { $ids->($_) } qw(bp bc br);

	change(q{UPDATE bp SET cash = -cash; UPDATE bp SET name = 'new ' || name; UPDATE bc SET name = 'new ' || name; UPDATE br SET name = 'new ' || name});
	is_deeply(counts(), [ 0, 55 + 101 + 77, 0 ], 'all are renamed, across batches');
	same($local, $remote, $query, 'renamed in batches');
	is_deeply([ map { $ids->($_) } qw(bp bc br) ], [ $bp, $bc, $br ], 'and have kept their ids');

	change(q{UPDATE bc SET parent_id = parent_id - 10 WHERE parent_id > 45; DELETE FROM bp WHERE id > 45;
		UPDATE br SET bc_id = bc_id - 20 WHERE bc_id > 80; DELETE FROM bc WHERE id > 80; UPDATE br SET name = name || '.'});
	is_deeply(counts(), [ 0, rows($local, 'SELECT count(*) FROM bc WHERE id IN (SELECT l.id FROM bc l WHERE (l.id % 55) + 1 > 45)') + 77, 10 + 21 ],
		'children move away from parents that are deleted');
	same($local, $remote, $query, 'moved in batches');

	change(q{BEGIN; UPDATE bp SET cash = cash - 1000; UPDATE bp SET cash = -(cash + 1000) - 46; UPDATE bp SET name = 'x' || id; UPDATE bp SET name = 'new p' || (46 - id); COMMIT},
		q{DELETE FROM br WHERE id % 3 = 0}, q{INSERT INTO bp (name, cash) SELECT 'p' || i, 1000 + i FROM generate_series(1, 30) i},
		q{INSERT INTO bc (name, parent_id) SELECT 'again', id FROM bp});
	# the one in the middle stays where it is
	is_deeply(counts(), [ 30 + 75, 44, 25 ], 'keys and other unique values are turned round');
	same($local, $remote, $query, 'turned round in batches');

	change(q{DELETE FROM br; DELETE FROM bc; DELETE FROM bp}, q{INSERT INTO bp (name, cash) SELECT 'new p' || i, -i FROM generate_series(1, 20) i});
	sync($local, 'office');
	same($local, $remote, $query, 'deleted, and some made anew');
	is(rows($remote, q{SELECT count(*) FROM synchro_peer.unapplied}), 0, 'nothing is left over');
	$local->safe_psql('postgres', q{LOAD 'synchro'; ALTER SYSTEM RESET synchro.batch_size});
	$local->reload;
}

#
# As many columns as a key can have
#
{
	my $columns = join ', ', map { "c$_" } 1 .. 32;

	tables('CREATE TABLE wide (id serial PRIMARY KEY, ' . join(', ', map { "c$_ int NOT NULL" } 1 .. 32) . ", UNIQUE ($columns))", qq{'wide', '{$columns}'});
	change('INSERT INTO wide VALUES (1, ' . join(', ', 1 .. 32) . ')');
	is_deeply(counts(), [ 1, 0, 0 ], '32 columns: the row arrives');
	change('UPDATE wide SET c32 = 0');
	is_deeply(counts(), [ 0, 1, 0 ], '32 columns: its name of before is known');
	same($local, $remote, "SELECT $columns FROM wide", '32 columns: a changed key');
}

#
# A row's primary key changes, and another row is inserted in its place before either is pushed
#
{
	tables(<<'SQL', q{'place'}, q{'numbered', '{name}'}, q{'told'});
CREATE TABLE place (code text PRIMARY KEY, cash integer);
CREATE TABLE numbered (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash integer);
CREATE TABLE told (id serial PRIMARY KEY, cash integer);
SQL
	my @queries = ('SELECT * FROM place ORDER BY code', 'SELECT name, cash FROM numbered ORDER BY name', 'SELECT cash FROM told ORDER BY cash');
	my $is = sub { same($local, $remote, $_, "$_[0]: $_") foreach @queries };

	change(q{INSERT INTO place SELECT chr(96 + i), i FROM generate_series(1, 9) i; INSERT INTO numbered (name, cash) SELECT code, cash FROM place;
		INSERT INTO told (cash) SELECT cash FROM place});
	sync($local, 'office');
	my $told = rows($remote, 'SELECT id FROM told WHERE cash = 1');

	change(q{BEGIN; UPDATE place SET code = 'z' WHERE code = 'a'; INSERT INTO place VALUES ('a', 10); COMMIT},
		q{UPDATE numbered SET id = 30 WHERE id = 1}, q{INSERT INTO numbered VALUES (1, 'z', 10)},
		q{UPDATE told SET id = 30 WHERE id = 1}, q{INSERT INTO told VALUES (1, 10)});
	is_deeply(counts(), [ 3, 1, 0 ], 'a new row in the place of one that has moved: counts');
	$is->('a new row in the place of one that has moved');
	is(rows($remote, 'SELECT id FROM told WHERE cash = 1'), $told, 'which is the row that it was');

	change(q{BEGIN; DELETE FROM place WHERE code = 'b'; UPDATE place SET code = 'b' WHERE code = 'c'; UPDATE place SET code = 'c' WHERE code = 'd';
		INSERT INTO place VALUES ('d', 11); COMMIT});
	sync($local, 'office');
	$is->('several, one after the other');

	change(q{BEGIN; UPDATE place SET code = 'y' WHERE code = 'e'; DELETE FROM place WHERE code = 'y'; UPDATE place SET code = 'y' WHERE code = 'f';
		INSERT INTO place VALUES ('f', 12); COMMIT});
	sync($local, 'office');
	$is->('one is deleted where it has moved to, which another takes');
}

#
# A row takes the key of one that is deleted in the same batch, where nothing on the remote checks at once that keys are
# unique: for a moment both have that key
#
{
	tables(<<'SQL', q{'later'}, q{'bare', '{code, part}'}, q{'boxed'}, q{'flag'}, q{'slot'});
CREATE TABLE later (code text PRIMARY KEY DEFERRABLE, cash integer);
CREATE TABLE bare (code text NOT NULL, part integer NOT NULL, cash integer, CONSTRAINT bare_key UNIQUE (code, part));
CREATE TABLE boxed (place inet PRIMARY KEY DEFERRABLE, cash integer);
CREATE TABLE flag (name text PRIMARY KEY);
CREATE TABLE slot (name text REFERENCES flag (name), place integer, cash integer, PRIMARY KEY (name, place) DEFERRABLE);
SQL
	$remote->safe_psql('postgres', 'ALTER TABLE bare DROP CONSTRAINT bare_key; CREATE INDEX ON bare (code)');

	my @queries = map { "SELECT * FROM $_ ORDER BY 1, 2" } qw(later bare boxed slot);
	my $is = sub { same($local, $remote, $_, "$_[0]: $_") foreach @queries };

	change(q{INSERT INTO later SELECT chr(96 + i), i FROM generate_series(1, 9) i; INSERT INTO bare SELECT code, cash, cash FROM later;
		INSERT INTO boxed SELECT ('10.0.0.' || cash)::inet, cash FROM later;
		INSERT INTO flag VALUES ('x'), ('y'); INSERT INTO slot SELECT name, cash, cash FROM flag, later});
	sync($local, 'office');
	$is->('keys that are checked late');

	change(q{BEGIN; DELETE FROM later WHERE code = 'b'; UPDATE later SET code = 'b' WHERE code = 'a'; COMMIT;
		BEGIN; DELETE FROM bare WHERE code = 'b'; UPDATE bare SET code = 'b', part = 2 WHERE code = 'a'; COMMIT;
		BEGIN; DELETE FROM slot WHERE place = 2; UPDATE slot SET place = 2 WHERE place = 1; COMMIT});
	is_deeply(counts(), [ 0, 4, 4 ], 'the key of one that is deleted: rows');
	$is->('the key of one that is deleted');

	change(q{BEGIN; DELETE FROM later WHERE code IN ('b', 'i'); UPDATE later SET code = 'b' WHERE code = 'c'; UPDATE later SET code = 'c' WHERE code = 'd';
		UPDATE later SET code = 'i' WHERE code = 'e'; COMMIT});
	sync($local, 'office');
	$is->('one after the other');

	# in batches of one row, the list of deletes has it
	$local->safe_psql('postgres', q{LOAD 'synchro'; ALTER SYSTEM SET synchro.batch_size = 1});
	$local->reload;
	change(q{BEGIN; DELETE FROM later WHERE code = 'g'; UPDATE later SET code = 'g' WHERE code = 'f'; UPDATE later SET cash = -cash; COMMIT});
	sync($local, 'office');
	$is->('in several batches');
	$local->safe_psql('postgres', q{ALTER SYSTEM RESET synchro.batch_size});
	$local->reload;

	# there is no other value for this one, so it waits for the delete
	change(q{BEGIN; DELETE FROM boxed WHERE cash = 2; UPDATE boxed SET place = '10.0.0.2' WHERE cash = 1; COMMIT});
	$local->psql('postgres', q{SELECT * FROM synchro.synchronize('office')});
	sync($local, 'office');
	$is->('a type that has no free value');
	is(rows($local, 'SELECT count(*) FROM synchro.parked'), 0, 'and nothing waits any more');
	is(rows($remote, q{SELECT count(*) FROM synchro_peer.unapplied}), 0, 'nothing is left over');
}

#
# One statement moves rows to keys that others of them leave, where the primary key is checked when it ends
#
{
	tables(<<'SQL', q{'line'}, q{'lined', '{name}'}, q{'told_line'}, q{'list'}, q{'entry'});
CREATE TABLE line (id integer PRIMARY KEY DEFERRABLE, v text);
CREATE TABLE lined (id integer PRIMARY KEY DEFERRABLE, name text NOT NULL UNIQUE DEFERRABLE, v text);
CREATE TABLE told_line (id serial PRIMARY KEY DEFERRABLE, v text);
CREATE TABLE list (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE entry (list_id integer REFERENCES list, position integer, v text, PRIMARY KEY (list_id, position) DEFERRABLE);
SQL
	# each row's trigger is a command of its own
	$local->safe_psql('postgres', <<'SQL');
CREATE TABLE audit (id integer);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NULL; END';
CREATE TRIGGER audit AFTER UPDATE ON line FOR EACH ROW EXECUTE FUNCTION audit();
SQL
	my @queries = ('SELECT * FROM line ORDER BY id', 'SELECT name, v FROM lined ORDER BY name', 'SELECT v FROM told_line ORDER BY v',
		'SELECT name, position, v FROM entry JOIN list ON list.id = list_id ORDER BY name, position');
	my $is = sub { same($local, $remote, $_, "$_[0]: $_") foreach @queries };
	my $told = sub { rows($remote, 'SELECT v, id FROM told_line ORDER BY v') };

	change(q{INSERT INTO line SELECT i, 'v' || i FROM generate_series(1, 9) i; INSERT INTO lined SELECT id, 'n' || id, v FROM line; INSERT INTO told_line SELECT id, v FROM line;
		INSERT INTO list (name) VALUES ('x'), ('y'); INSERT INTO entry SELECT list.id, line.id, name || v FROM list, line});
	sync($local, 'office');
	my $pairs = $told->();

	change(map { "UPDATE $_ SET id = id + 1" } qw(line lined told_line));
	change(q{UPDATE entry SET position = position + 1 WHERE list_id = (SELECT min(id) FROM list) AND position > 3});
	sync($local, 'office');
	$is->('all move up');
	is($told->(), $pairs, 'all move up: by reference');

	change(map { ("UPDATE $_ SET v = v || '.' WHERE id % 3 = 0", "UPDATE $_ SET id = id - 1") } qw(line lined told_line));
	change(q{UPDATE entry SET position = 12 - position, v = v || '.'});
	sync($local, 'office');
	$is->('down again, some changed');
	is($told->(), $pairs =~ s/(v[258])\|/$1.|/gr, 'down again: by reference');

	change(map { "BEGIN; DELETE FROM $_ WHERE id IN (3, 9); UPDATE $_ SET id = id + 1 WHERE id > 4; UPDATE $_ SET id = id % 9 + 1; COMMIT" } qw(line lined told_line));
	change(q{BEGIN; DELETE FROM entry WHERE position = 5; UPDATE entry SET position = position - 1 WHERE position > 5; INSERT INTO entry SELECT id, 20, name FROM list; COMMIT},
		q{UPDATE lined SET name = 'n' || (20 - substr(name, 2)::integer), v = 'new ' || v}, q{INSERT INTO line VALUES (20, 'last')});
	sync($local, 'office');
	$is->('several commands, with deletes');

	change(q{UPDATE line SET id = 41 - id, v = v || ':'}, q{UPDATE told_line SET v = v || ':'}, q{UPDATE lined SET v = v || ':'}, q{UPDATE entry SET v = v || ':'});
	sync($local, 'office');
	$is->('and all are what they were');

	# the log gets them in pieces, and another transaction's move comes in between
	tables(q{CREATE TABLE long_line (id integer PRIMARY KEY DEFERRABLE, v text)}, q{'long_line'});
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO long_line SELECT i, 'v' || i FROM generate_series(1, 5000) i;
INSERT INTO long_line VALUES (9000, 'other');
CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE TRIGGER a_wait AFTER UPDATE ON long_line FOR EACH ROW WHEN (NEW.id = 4001) EXECUTE FUNCTION wait_here();
SQL
	sync($local, 'office');
	$remote->safe_psql('postgres', q{ALTER TABLE long_line ADD own text; UPDATE long_line SET own = v});
	my $other = $local->background_psql('postgres');
	my $mover = $local->background_psql('postgres');

	$other->query_safe('SELECT pg_advisory_lock(1)');
	$mover->query_until(qr/begun/, "SET synchro.buffer_size = '64kB';\n\\echo begun\nUPDATE long_line SET id = id + 1 WHERE id <= 5000;\n");
	wait_for($local, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 'in the middle of a statement');
	$other->query_safe('UPDATE long_line SET id = 9001 WHERE id = 9000');
	$other->query_safe('SELECT pg_advisory_unlock(1)');
	$mover->quit;
	$other->quit;
	sync($local, 'office');
	same($local, $remote, 'SELECT id, v FROM long_line ORDER BY id', 'moved in pieces');
	is(rows($remote, 'SELECT count(*) FROM long_line WHERE own IS DISTINCT FROM v'), 0, 'each row is the one that it was');
}

#
# What cannot be found says so: the referenced column is a reference itself
#
{
	change(q{UPDATE pairc SET name = 'new ' || name});
	sync_parks($local, 'office', qr/0A000: .*rows of table public\.pairc cannot be found.*HINT: /s, 'a key over a reference to a reference');
	change(q{UPDATE pairc SET name = substr(name, 5)});
}

# One tree, of which two foreign keys tell: what a tenant is, is the same on both sides.
{
	tables(q{CREATE TABLE unit (id serial PRIMARY KEY, tenant integer NOT NULL, up integer REFERENCES unit, name text NOT NULL, UNIQUE (tenant, id),
		UNIQUE NULLS NOT DISTINCT (tenant, up, name), FOREIGN KEY (tenant, up) REFERENCES unit (tenant, id))}, q{'unit', '{tenant,up,name}'});
	change(q{INSERT INTO unit (tenant, name) VALUES (1, 'top'), (2, 'top')}, q{INSERT INTO unit (tenant, up, name) SELECT tenant, id, 'below' FROM unit});
	sync($local, 'office');
	change(q{UPDATE unit SET name = 'top of 2' WHERE tenant = 2 AND up IS NULL}, q{UPDATE unit SET name = 'low' WHERE tenant = 1 AND up IS NOT NULL});
	sync($local, 'office');
	same($local, $remote, 'SELECT a.tenant, a.name, b.name FROM unit a LEFT JOIN unit b ON b.id = a.up ORDER BY 1, 2', 'a tree of tenants');
}

#
# Nor does a key that has become two trees at once, by a foreign key that was added later; and who compares is told so.
#
{
	tables(q{CREATE TABLE person (id serial PRIMARY KEY, name text NOT NULL UNIQUE, mother int REFERENCES person, father int)}, q{'person', '{name,mother,father}'});
	change(q{INSERT INTO person (name) VALUES ('Eve')}, q{INSERT INTO person (name, mother) SELECT 'Abel', id FROM person});
	sync($local, 'office');
	change('ALTER TABLE person ADD FOREIGN KEY (father) REFERENCES person', q{UPDATE person SET name = 'Seth' WHERE name = 'Abel'});
	sync_parks($local, 'office', qr/42P16: .*the natural key of table public\.person refers to other rows of it by several foreign keys.*HINT: Leave all but one/s, 'a key that is two trees');
	my (undef, undef, $stderr) = $local->psql('postgres', q{SELECT * FROM synchro.verify('office', 'person')});
	like($stderr, qr/the natural key of table public\.person refers to other rows of it by several/, 'verify() says the same');
	(undef, undef, $stderr) = $local->psql('postgres', q{SELECT * FROM synchro.manifest('public')});
	like($stderr, qr/the natural key of table public\.person refers to other rows of it by several/, 'and manifest()');
	change('ALTER TABLE person DROP CONSTRAINT person_father_fkey');
	sync($local, 'office');
	is(rows($local, q{SELECT count(*) FROM synchro.failures WHERE relation = 'person'::regclass}), 0, 'the foreign key gone, it goes on');
	same($local, $remote, 'SELECT name FROM person ORDER BY 1', 'with all of it');
}

done_testing();
