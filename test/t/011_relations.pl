# WHY: rows refer to each other by ids that differ from server to server. A reference that arrives with the local's id
# points at somebody else's row, and no constraint notices. So ids on the two sides are far apart or crossed, and all
# references are read by name: foreign keys to given and to serial primary keys, pairs of many-to-many relations with and
# without columns of their own, from either side, onto the same table, and tables that are not watched themselves.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE p (name text PRIMARY KEY, cash int);
CREATE TABLE k (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int);
CREATE TABLE f (id serial PRIMARY KEY, name text, link text REFERENCES p);
CREATE TABLE g (id serial PRIMARY KEY, name text, link int REFERENCES k);

-- pairs: bare, with a column of its own, onto the same table, and with a serial id as applications with an ORM make them
CREATE TABLE g_k (g int REFERENCES g ON DELETE CASCADE, k int REFERENCES k ON DELETE CASCADE, PRIMARY KEY (g, k));
CREATE TABLE k_p (k int REFERENCES k ON DELETE CASCADE, p text REFERENCES p ON DELETE CASCADE, since date, PRIMARY KEY (k, p));
CREATE TABLE k_k (of int REFERENCES k ON DELETE CASCADE, part int REFERENCES k ON DELETE CASCADE, PRIMARY KEY (of, part));
CREATE TABLE through (id serial PRIMARY KEY, g int NOT NULL REFERENCES g ON DELETE CASCADE,
	p text NOT NULL REFERENCES p ON DELETE CASCADE, note text, UNIQUE (g, p));

-- not watched: with a natural key, with a given primary key, with nothing but a serial id; and what points at them
CREATE TABLE u (id serial PRIMARY KEY, code text NOT NULL UNIQUE, note text);
CREATE TABLE up (code text PRIMARY KEY, note text);
CREATE TABLE ur (id serial PRIMARY KEY, note text, above int REFERENCES u);
CREATE TABLE w (id serial PRIMARY KEY, name text NOT NULL UNIQUE, u int REFERENCES u, up text REFERENCES up, ur int REFERENCES ur);
SQL

# the same ids for other rows
$remote->safe_psql('postgres', <<'SQL');
INSERT INTO k (name) SELECT 'their ' || i FROM generate_series(1, 9) i;
INSERT INTO g (name, link) SELECT 'their ' || i, 10 - i FROM generate_series(1, 9) i;
INSERT INTO f (name) SELECT 'their ' || i FROM generate_series(1, 9) i;
INSERT INTO u (code) SELECT 'their ' || i FROM generate_series(1, 9) i;
INSERT INTO ur (note) SELECT 'their ' || i FROM generate_series(1, 9) i;
INSERT INTO g_k SELECT i, i FROM generate_series(1, 9) i;
INSERT INTO k_k SELECT i, i FROM generate_series(1, 9) i;
SELECT setval('k_id_seq', 1000), setval('g_id_seq', 2000), setval('f_id_seq', 3000), setval('u_id_seq', 4000),
	setval('ur_id_seq', 5000), setval('w_id_seq', 6000), setval('through_id_seq', 7000);
CREATE TABLE untouched AS SELECT 'k' AS relation, to_jsonb(k) AS row FROM k UNION ALL SELECT 'g', to_jsonb(g) FROM g
	UNION ALL SELECT 'f', to_jsonb(f) FROM f UNION ALL SELECT 'u', to_jsonb(u) FROM u UNION ALL SELECT 'ur', to_jsonb(ur) FROM ur
	UNION ALL SELECT 'g_k', to_jsonb(g_k) FROM g_k UNION ALL SELECT 'k_k', to_jsonb(k_k) FROM k_k;
SQL

connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('p');
SELECT synchro.add_table('k', '{name}');
SELECT synchro.add_table('f');
SELECT synchro.add_table('g');
SELECT synchro.add_table('g_k');
SELECT synchro.add_table('k_p');
SELECT synchro.add_table('k_k');
SELECT synchro.add_table('through', '{g,p}');
SELECT synchro.register_natural_key('u', '{code}');
SELECT synchro.add_table('w', '{name}');
SQL

# the remote's own rows are left out
my %by_name = (
	f => q{SELECT name, link FROM f WHERE name NOT LIKE 'their%' ORDER BY name},
	g => q{SELECT g.name, k.name FROM g LEFT JOIN k ON k.id = g.link WHERE g.name NOT LIKE 'their%' ORDER BY g.name},
	g_k => q{SELECT g.name, k.name FROM g_k JOIN g ON g.id = g JOIN k ON k.id = k WHERE g.name NOT LIKE 'their%' ORDER BY 1, 2},
	k_p => q{SELECT k.name, p, since FROM k_p JOIN k ON k.id = k ORDER BY 1, 2},
	k_k => q{SELECT o.name, p.name FROM k_k JOIN k o ON o.id = of JOIN k p ON p.id = part WHERE o.name NOT LIKE 'their%' ORDER BY 1, 2},
	through => q{SELECT g.name, p, note FROM through JOIN g ON g.id = g ORDER BY 1, 2},
	w => q{SELECT w.name, u.code, u.note, up, up.note, ur.note, above.code FROM w LEFT JOIN u ON u.id = w.u LEFT JOIN up ON up.code = up
		LEFT JOIN ur ON ur.id = w.ur LEFT JOIN u above ON above.id = ur.above ORDER BY 1});

sub here
{
	$local->safe_psql('postgres', $_[0]);
	return;
}

sub there
{
	return $remote->safe_psql('postgres', $_[0]);
}

# arrives($relation, $rows, $testname): synchronizes; the relation is the same by name on both sides, and that is what is
# expected
sub arrives
{
	my ($relation, $rows, $testname) = @_;
	my $expected = join("\n", @$rows);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = sync($local, 'office');
	is(rows($local, $by_name{$relation}), $expected, "$testname: the local") if $expected ne '';
	is(there($by_name{$relation}), $expected, $testname);
	return $result;
}

sub added_updated_deleted
{
	my ($result) = @_;

	return join '/', map { $result->{$_} } qw(inserted updated deleted);
}

subtest 'a foreign key to a given primary key' => sub {
	here(q{INSERT INTO p VALUES ('p1', 1), ('p2', 2); INSERT INTO f (name, link) VALUES ('f1', 'p1'), ('f2', NULL)});
	arrives('f', [ 'f1|p1', 'f2|' ], 'add');
	here(q{UPDATE f SET link = 'p2'});
	arrives('f', [ 'f1|p2', 'f2|p2' ], 'change');
	here(q{UPDATE f SET link = NULL WHERE name = 'f1'});
	arrives('f', [ 'f1|', 'f2|p2' ], 'taken away');
	here(q{BEGIN; UPDATE f SET link = NULL; DELETE FROM p WHERE name = 'p2'; COMMIT});
	arrives('f', [ 'f1|', 'f2|' ], 'parent deleted');
	is(there('SELECT name FROM p'), 'p1', 'and that is gone');
};

subtest 'a foreign key to a serial primary key' => sub {
	here(q{INSERT INTO k (id, name, cash) VALUES (1, 'k1', 1), (2, 'k2', 2), (3, 'k3', 3)});
	here(q{INSERT INTO g (id, name, link) VALUES (1, 'g1', 1), (2, 'g2', 2), (3, 'g3', NULL)});
	arrives('g', [ 'g1|k1', 'g2|k2', 'g3|' ], 'add');
	here(q{UPDATE g SET link = 4 - id});
	arrives('g', [ 'g1|k3', 'g2|k2', 'g3|k1' ], 'change');
	here(q{UPDATE k SET name = 'k1 renamed' WHERE name = 'k1'});
	my $result = arrives('g', [ 'g1|k3', 'g2|k2', 'g3|k1 renamed' ], 'parent renamed');
	is(added_updated_deleted($result), '0/1/0', 'only the parent was written');
	here(q{BEGIN; UPDATE k SET name = 'k1' WHERE name = 'k1 renamed'; UPDATE g SET link = 1 WHERE name = 'g1'; COMMIT});
	arrives('g', [ 'g1|k1', 'g2|k2', 'g3|k1' ], 'parent renamed and child moved to it in one transaction');
	here(q{BEGIN; UPDATE k SET id = 33 WHERE id = 3; UPDATE g SET link = 33 WHERE name = 'g1'; COMMIT});
	arrives('g', [ 'g1|k3', 'g2|k2', 'g3|k1' ], 'parent with another id here');
	here(q{UPDATE g SET link = NULL WHERE name = 'g1'});
	arrives('g', [ 'g1|', 'g2|k2', 'g3|k1' ], 'taken away');
};

subtest 'parents arrive though never logged' => sub {
	# a chain of them, and one that the remote has under another id
	here(q{
		BEGIN;
		SET LOCAL synchro.log_changes = off;
		INSERT INTO p VALUES ('quiet', 1);
		INSERT INTO k (id, name, cash) VALUES (4, 'quiet', 1), (5, 'their 7', 1);
		INSERT INTO g (id, name, link) VALUES (4, 'quiet', 4);
		COMMIT;
		INSERT INTO f (name, link) VALUES ('f3', 'quiet');
		INSERT INTO g (id, name, link) VALUES (5, 'g5', 5);
		INSERT INTO through (g, p, note) VALUES (4, 'quiet', 'loud');
	});
	my $result = arrives('f', [ 'f1|', 'f2|', 'f3|quiet' ], 'a row with a given primary key');
	is(added_updated_deleted($result), '6/0/0', 'three rows and their three missing parents');
	arrives('g', [ 'g1|', 'g2|k2', 'g3|k1', 'g5|their 7', 'quiet|quiet' ], 'a row that the remote has, and one that it has not');
	arrives('through', ['quiet|quiet|loud'], 'and that one\'s child');
	is(there(q{SELECT id, cash FROM k WHERE name = 'their 7'}), '7|', 'a parent that is there is not written to');
	is(there(q{SELECT cash FROM k WHERE name = 'quiet'}), '1', 'one that is missing arrives with all its columns');

	# it is found again, not made again
	here(q{INSERT INTO f (name, link) VALUES ('f4', 'quiet'); INSERT INTO g (id, name, link) VALUES (6, 'g6', 4)});
	is(added_updated_deleted(sync($local, 'office')), '2/0/0', 'the next children find them there');
	here(q{DELETE FROM through; DELETE FROM f WHERE name IN ('f3', 'f4'); DELETE FROM g WHERE name IN ('g5', 'g6', 'quiet')});
	is(added_updated_deleted(sync($local, 'office')), '0/0/6', 'all can be deleted again');
};

subtest 'pairs without columns of their own' => sub {
	here(q{INSERT INTO g_k VALUES (1, 1), (1, 2), (2, 2), (3, 33)});
	arrives('g_k', [ 'g1|k1', 'g1|k2', 'g2|k2', 'g3|k3' ], 'add');
	here(q{DELETE FROM g_k WHERE (g, k) = (1, 2)});
	arrives('g_k', [ 'g1|k1', 'g2|k2', 'g3|k3' ], 'remove');
	here(q{INSERT INTO g_k VALUES (1, 2), (1, 33)});
	arrives('g_k', [ 'g1|k1', 'g1|k2', 'g1|k3', 'g2|k2', 'g3|k3' ], 'add more, one of them again');
	here(q{DELETE FROM g_k WHERE g = 1});
	arrives('g_k', [ 'g2|k2', 'g3|k3' ], 'clear from one side');
	here(q{INSERT INTO g_k VALUES (1, 1), (2, 1), (3, 1)});
	arrives('g_k', [ 'g1|k1', 'g2|k1', 'g2|k2', 'g3|k1', 'g3|k3' ], 'add from the other side');
	here(q{DELETE FROM g_k WHERE k = 1});
	arrives('g_k', [ 'g2|k2', 'g3|k3' ], 'clear from the other side');
	here(q{UPDATE g_k SET k = 1 WHERE g = 2});
	arrives('g_k', [ 'g2|k1', 'g3|k3' ], 'change of a pair');
	here(q{BEGIN; DELETE FROM g_k WHERE g = 2; INSERT INTO g_k VALUES (2, 1), (2, 2); COMMIT});
	my $result = arrives('g_k', [ 'g2|k1', 'g2|k2', 'g3|k3' ], 'clear and set again');
	is(added_updated_deleted($result), '1/0/0', 'the pair that is there again was left as it is');
	here(q{DELETE FROM g WHERE name = 'g2'});
	arrives('g_k', ['g3|k3'], 'one end deleted');
	here(q{DELETE FROM k WHERE name = 'k3'});
	arrives('g_k', [], 'the other end deleted');
};

subtest 'pairs with columns of their own' => sub {
	here(q{INSERT INTO p VALUES ('p2'), ('p3'); INSERT INTO k_p VALUES (1, 'p1', '2001-01-01'), (2, 'p1', '2002-01-01'), (2, 'p2', NULL)});
	arrives('k_p', [ 'k1|p1|2001-01-01', 'k2|p1|2002-01-01', 'k2|p2|' ], 'add');
	my $ctid = there(q{SELECT ctid FROM k_p WHERE p = 'p2'});
	here(q{UPDATE k_p SET since = '2003-01-01' WHERE p = 'p1'});
	my $result = arrives('k_p', [ 'k1|p1|2003-01-01', 'k2|p1|2003-01-01', 'k2|p2|' ], 'change of the column');
	is(added_updated_deleted($result), '0/2/0', 'two rows changed');
	is(there(q{SELECT ctid FROM k_p WHERE p = 'p2'}), $ctid, 'the third was not rewritten');
	here(q{UPDATE k_p SET p = 'p3' WHERE p = 'p2'});
	arrives('k_p', [ 'k1|p1|2003-01-01', 'k2|p1|2003-01-01', 'k2|p3|' ], 'change of an end');
	here(q{UPDATE k SET name = 'k2 renamed' WHERE name = 'k2'});
	arrives('k_p', [ 'k1|p1|2003-01-01', 'k2 renamed|p1|2003-01-01', 'k2 renamed|p3|' ], 'an end renamed');
	here(q{DELETE FROM k_p WHERE k = 2});
	arrives('k_p', ['k1|p1|2003-01-01'], 'clear from one side');
	here(q{DELETE FROM k_p WHERE p = 'p1'});
	arrives('k_p', [], 'clear from the other side');

	here(q{INSERT INTO through (g, p, note) VALUES (1, 'p1', 'a'), (1, 'p2', 'b'), (3, 'p2', 'c')});
	arrives('through', [ 'g1|p1|a', 'g1|p2|b', 'g3|p2|c' ], 'with a serial id: add');
	here(q{UPDATE through SET note = 'd' WHERE p = 'p2'});
	arrives('through', [ 'g1|p1|a', 'g1|p2|d', 'g3|p2|d' ], 'with a serial id: change');
	here(q{DELETE FROM through WHERE g = 1});
	arrives('through', ['g3|p2|d'], 'with a serial id: clear from one side');
	here(q{DELETE FROM p WHERE name = 'p2'});
	arrives('through', [], 'with a serial id: the other end deleted');
};

subtest 'pairs onto the same table' => sub {
	here(q{INSERT INTO k (id, name) VALUES (6, 'k6'); INSERT INTO k_k VALUES (1, 2), (2, 1), (1, 6), (6, 6)});
	arrives('k_k', [ 'k1|k2 renamed', 'k1|k6', 'k2 renamed|k1', 'k6|k6' ], 'add: directions are kept');
	here(q{DELETE FROM k_k WHERE (of, part) = (2, 1)});
	arrives('k_k', [ 'k1|k2 renamed', 'k1|k6', 'k6|k6' ], 'remove of one direction');
	here(q{UPDATE k_k SET of = part, part = of WHERE (of, part) = (1, 6)});
	arrives('k_k', [ 'k1|k2 renamed', 'k6|k1', 'k6|k6' ], 'turned round');
	here(q{DELETE FROM k_k WHERE part = 6});
	arrives('k_k', [ 'k1|k2 renamed', 'k6|k1' ], 'clear from one side');
	here(q{BEGIN; UPDATE k SET name = CASE id WHEN 1 THEN 'k one' ELSE 'k six' END WHERE id IN (1, 6); DELETE FROM k_k WHERE of = 6; COMMIT});
	arrives('k_k', ['k one|k2 renamed'], 'both ends renamed and the pair deleted in one transaction');
	here(q{DELETE FROM k WHERE name = 'k2 renamed'});
	arrives('k_k', [], 'one end deleted');
};

subtest 'a watched table that points at unwatched ones' => sub {
	there(q{INSERT INTO u (code, note) VALUES ('there', 'their note'); INSERT INTO up VALUES ('there', 'their note')});
	here(q{
		INSERT INTO u (id, code, note) VALUES (1, 'there', 'our note'), (2, 'missing', 'our note');
		INSERT INTO up VALUES ('there', 'our note'), ('missing', 'our note');
		INSERT INTO ur (id, note, above) VALUES (1, 'our note', 2);
		INSERT INTO w (name, u, up) VALUES ('w1', 1, 'there');
	});
	my $result = sync($local, 'office');
	is(there($by_name{w}), 'w1|there|their note|there|their note||', 'what is there is found and left as it is');
	is(added_updated_deleted($result), '1/0/0', 'and nothing else was written');

	here(q{INSERT INTO w (name, u, up, ur) VALUES ('w2', 2, 'missing', 1)});
	$result = sync($local, 'office');
	is(
		there($by_name{w}),
		"w1|there|their note|there|their note||\nw2|missing|our note|missing|our note|our note|missing",
		'what is missing is pushed along, and its parents');
	is(added_updated_deleted($result), '4/0/0', 'each of them once');

	here(q{UPDATE u SET note = 'changed'; UPDATE up SET note = 'changed'; UPDATE ur SET note = 'changed'; INSERT INTO u (id, code) VALUES (3, 'not pushed')});
	is(sync($local, 'office')->{message}, 'No changes since last synchronization.', 'their own changes are not pushed');
	here(q{INSERT INTO w (name, u, up, ur) VALUES ('w3', 1, 'missing', 1)});
	sync($local, 'office');
	is(
		there($by_name{w}),
		"w1|there|their note|there|their note||\nw2|missing|our note|missing|our note|our note|missing\n"
		  . 'w3|there|their note|missing|our note|our note|missing',
		'nor are they when another row refers to them: each is found again, with natural key, primary key and reference');
	here(q{DELETE FROM w; DELETE FROM ur; DELETE FROM u; DELETE FROM up});
	is(added_updated_deleted(sync($local, 'office')), '0/0/3', 'deletes of watched rows only');
	is(there(q{SELECT code, note FROM u WHERE code NOT LIKE 'their%' ORDER BY 1}),
		"missing|our note\nthere|their note", 'those of unwatched ones are not pushed');
};

is(
	there(q{
		SELECT relation, row FROM (SELECT 'k' AS relation, to_jsonb(k) AS row FROM k UNION ALL SELECT 'g', to_jsonb(g) FROM g
			UNION ALL SELECT 'f', to_jsonb(f) FROM f UNION ALL SELECT 'u', to_jsonb(u) FROM u UNION ALL SELECT 'ur', to_jsonb(ur) FROM ur
			UNION ALL SELECT 'g_k', to_jsonb(g_k) FROM g_k UNION ALL SELECT 'k_k', to_jsonb(k_k) FROM k_k) x
		INTERSECT SELECT relation, row FROM untouched ORDER BY 1, 2}),
	there('SELECT relation, row FROM untouched ORDER BY 1, 2'),
	'all the rows of the remote\'s own are as they were');

done_testing();
