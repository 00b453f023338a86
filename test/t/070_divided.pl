# WHY: what is refused for a reason of its own must not take others along: rows that clash only with each other, that go together
# only, or that come after a thousand bad ones. Such rows were parked with the bad ones, some of them for ever, or held up all else.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

connect_remote($local, $remote);

# A watched table with a natural key, and what else the remote's has.
sub watched
{
	my ($table, $there) = @_;

	both($local, $remote, "CREATE TABLE $table (id serial PRIMARY KEY, name text NOT NULL UNIQUE, code int)");
	$remote->safe_psql('postgres', "SELECT setval('${table}_id_seq', 1000000); $there");
	$local->safe_psql('postgres', "SELECT synchro.add_table('$table', '{name}')");
	return;
}

sub failed_keys
{
	my ($table) = @_;

	return rows($local, "SELECT string_agg(key, ' ' ORDER BY key::int) FROM synchro.failures WHERE relation = '$table'::regclass");
}

# The cause is mended, and nothing is left of it.
sub mended
{
	my ($table, $mend, $testname) = @_;

	$remote->safe_psql('postgres', $mend);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sync($local, 'office')->{failed}, 0, "$testname: mended, nothing fails");
	same($local, $remote, "SELECT name, code FROM $table ORDER BY name", "$testname: all are the same");
	return;
}

#
# One remote transaction for all of a pass: rows that clash with each other only
#
watched('one_of', 'ALTER TABLE one_of ADD CONSTRAINT one_code UNIQUE (code)');
watched('others', '');
reload_with($local, 'synchro.atomic_pass' => 'on');
$local->safe_psql('postgres', q{INSERT INTO one_of (name, code) VALUES ('one', 1), ('two', 1), ('three', 3); INSERT INTO others (name) VALUES ('another')});
is(sync($local, 'office')->{failed}, 1, 'atomic: of two rows that clash with each other one fails');
is(rows($local, 'SELECT key, sqlstate, constraint_name FROM synchro.failures'), '2|23505|one_code', 'atomic: the later, with its reason');
is(rows($remote, 'SELECT name FROM one_of UNION ALL SELECT name FROM others ORDER BY 1'), "another\none\nthree", 'atomic: the rest arrives');
mended('one_of', 'ALTER TABLE one_of DROP CONSTRAINT one_code', 'atomic');

# among many, with a bad one
$local->safe_psql('postgres', q{DELETE FROM one_of; INSERT INTO one_of (name, code) SELECT 'row ' || i, i FROM generate_series(1, 300) i});
sync($local, 'office');
$remote->safe_psql('postgres', 'ALTER TABLE one_of ADD CONSTRAINT one_code UNIQUE (code), ADD CONSTRAINT positive CHECK (code > 0)');
my $first = rows($local, 'SELECT min(id) - 1 FROM one_of');
$local->safe_psql('postgres', <<"SQL");
BEGIN;
UPDATE one_of SET code = CASE id - $first WHEN 30 THEN -1 WHEN 60 THEN 1001 WHEN 70 THEN 1001 WHEN 80 THEN 1001 ELSE code END;
UPDATE one_of SET name = 'renamed' WHERE id = $first + 100;
DELETE FROM one_of WHERE id = $first + 300;
COMMIT;
SQL
is(sync($local, 'office')->{failed}, 3, 'atomic, many: no more fail than have to');
is(failed_keys('one_of'), join(' ', $first + 30, $first + 70, $first + 80), 'atomic, many: the bad one, and of three that clash with each other two');
is(rows($remote, q{SELECT name, code FROM one_of WHERE name IN ('row 1', 'row 60', 'row 70', 'renamed', 'row 300') ORDER BY name}),
	"renamed|100\nrow 1|1\nrow 60|1001\nrow 70|70", 'atomic, many: a name and a delete arrive with the others');
mended('one_of', 'ALTER TABLE one_of DROP CONSTRAINT one_code, DROP CONSTRAINT positive', 'atomic, many');
reload_with($local, 'synchro.atomic_pass' => 'off');

#
# Names that are exchanged beside one that is refused
#
watched('names', q{ALTER TABLE names ADD CONSTRAINT no_bad CHECK (name <> 'bad')});
$local->safe_psql('postgres', q{INSERT INTO names (name, code) SELECT 'n' || i, i FROM generate_series(1, 6) i});
sync($local, 'office');
foreach my $atomic ('off', 'on')
{
	reload_with($local, 'synchro.atomic_pass' => $atomic);
	$local->safe_psql('postgres', <<'SQL');
BEGIN;
UPDATE names SET name = 'x' WHERE code = 1;
UPDATE names SET name = 'n1' WHERE code = 2;
UPDATE names SET name = 'n2' WHERE code = 1;
UPDATE names SET name = 'bad' WHERE code = 6;
COMMIT;
SQL
	is(sync($local, 'office')->{failed}, 1, "names, atomic_pass $atomic: only what is refused fails");
	is(failed_keys('names'), '6', "names, atomic_pass $atomic: which is told");
	is(rows($remote, 'SELECT name, code FROM names WHERE code IN (1, 2, 6) ORDER BY code'), "n2|1\nn1|2\nn6|6", "names, atomic_pass $atomic: the exchange arrives");

	# also beside one that clashes with a row of the remote's own
	$remote->safe_psql('postgres', q{INSERT INTO names (name, code) VALUES ('own', 7); ALTER TABLE names ADD CONSTRAINT few CHECK (name NOT LIKE 'many%'), ADD CONSTRAINT one UNIQUE (code)});
	$local->safe_psql('postgres', <<'SQL');
BEGIN;
UPDATE names SET name = 'x' WHERE code = 1;
UPDATE names SET name = 'n2' WHERE code = 2;
UPDATE names SET name = 'n1' WHERE code = 1;
UPDATE names SET name = 'clashes', code = 7 WHERE code = 3;
UPDATE names SET name = 'many' WHERE code = 4;
COMMIT;
SQL
	is(sync($local, 'office')->{failed}, 3, "names, atomic_pass $atomic, a clash: that fails, too");
	is(failed_keys('names'), '3 4 6', "names, atomic_pass $atomic, a clash: each is told");
	is(rows($remote, 'SELECT name, code FROM names ORDER BY code'), "n1|1\nn2|2\nn3|3\nn4|4\nn5|5\nn6|6\nown|7", "names, atomic_pass $atomic, a clash: the exchange arrives");
	$local->safe_psql('postgres', q{UPDATE names SET name = 'n' || id, code = id});
	mended('names', q{DELETE FROM names WHERE code = 7; ALTER TABLE names DROP CONSTRAINT few, DROP CONSTRAINT one}, "names, atomic_pass $atomic");
}
reload_with($local, 'synchro.atomic_pass' => 'off');

#
# More bad rows than are looked for one by one: those that come after them have their turn
#
watched('many', 'ALTER TABLE many ADD CONSTRAINT positive CHECK (code > 0)');
$local->safe_psql('postgres', q{INSERT INTO many (name, code) SELECT 'row ' || i, CASE WHEN i <= 1200 OR i % 2 = 0 THEN -i ELSE i END FROM generate_series(1, 2400) i});
sync($local, 'office') foreach 1 .. 2;
is(rows($remote, 'SELECT count(*) FROM many'), 600, 'many: all good rows have arrived');
is(rows($local, q{SELECT count(*), min(attempts), count(DISTINCT key), min(sqlstate) FROM synchro.failures}), '1800|2|1800|23514', 'many: the bad ones wait');
is(rows($local, q{SELECT count(DISTINCT message), count(*) FROM synchro.failures WHERE message !~ 'check constraint "positive"'}), '0|0', 'many: each with its reason');

# what has not been tried by itself for longest has its turn
$local->safe_psql('postgres', q{UPDATE many SET code = 1000 + id WHERE id = 1100});
sync($local, 'office');
is(rows($remote, 'SELECT code FROM many WHERE code = 2100'), '2100', 'many: one that is mended arrives');
mended('many', 'ALTER TABLE many DROP CONSTRAINT positive', 'many');

watched('renamed', q{ALTER TABLE renamed ADD CONSTRAINT no_bad CHECK (name NOT LIKE 'bad%')});
$local->safe_psql('postgres', q{INSERT INTO renamed (name, code) SELECT 'row ' || i, i FROM generate_series(1, 600) i});
sync($local, 'office');
$local->safe_psql('postgres', q{UPDATE renamed SET name = CASE WHEN id <= 400 THEN 'bad ' ELSE 'good ' END || id});
sync($local, 'office') foreach 1 .. 2;
is(rows($remote, q{SELECT count(*) FILTER (WHERE name LIKE 'good%'), count(*) FILTER (WHERE name LIKE 'row%') FROM renamed}), '200|400', 'renamed: all that may have arrived');
is(rows($local, q{SELECT count(*), min(attempts), count(DISTINCT key), min(sqlstate) FROM synchro.failures}), '400|2|400|23514', 'renamed: the others wait');
$local->safe_psql('postgres', q{UPDATE renamed SET name = 'good ' || id WHERE id = 300});
sync($local, 'office');
is(rows($remote, q{SELECT name FROM renamed WHERE code = 300}), 'good 300', 'renamed: one that is mended arrives');
mended('renamed', 'ALTER TABLE renamed DROP CONSTRAINT no_bad', 'renamed');

#
# Unique values that are exchanged, beside several that others have
#
watched('codes', '');
$local->safe_psql('postgres', q{INSERT INTO codes (name, code) SELECT 'row ' || i, i FROM generate_series(1, 40) i});
sync($local, 'office');
$remote->safe_psql('postgres', q{ALTER TABLE codes ADD CONSTRAINT one_code UNIQUE (code); INSERT INTO codes (name, code) VALUES ('own 1', 501), ('own 2', 502), ('own 3', 503)});
foreach my $atomic ('off', 'on')
{
	reload_with($local, 'synchro.atomic_pass' => $atomic);
	$local->safe_psql('postgres', q{UPDATE codes SET code = CASE id WHEN 1 THEN 40 WHEN 40 THEN 1 WHEN 5 THEN 501 WHEN 35 THEN 502 ELSE code END});
	is(sync($local, 'office')->{failed}, 2, "codes, atomic_pass $atomic: what clashes fails");
	is(failed_keys('codes'), '5 35', "codes, atomic_pass $atomic: which is told");
	is(rows($remote, q{SELECT name, code FROM codes WHERE name IN ('row 1', 'row 40', 'row 5', 'row 35') ORDER BY name}), "row 1|40\nrow 35|35\nrow 40|1\nrow 5|5",
		"codes, atomic_pass $atomic: the exchange arrives");

	# three go round, two clash, one of them with a value that one of these leaves, and one needs the value of a row that stays
	$local->safe_psql('postgres', q{UPDATE codes SET code = CASE id WHEN 2 THEN 20 WHEN 20 THEN 38 WHEN 38 THEN 2 WHEN 7 THEN 503 WHEN 39 THEN 7 ELSE code END});
	is(sync($local, 'office')->{failed}, 4, "codes, atomic_pass $atomic, three: what clashes fails, and what needs that");
	is(failed_keys('codes'), '5 7 35 39', "codes, atomic_pass $atomic, three: which is told");
	is(rows($remote, q{SELECT name, code FROM codes WHERE name IN ('row 2', 'row 20', 'row 38', 'row 7', 'row 39') ORDER BY name}),
		"row 2|20\nrow 20|38\nrow 38|2\nrow 39|39\nrow 7|7", "codes, atomic_pass $atomic, three: they arrive");

	# with some that clash with each other only, and one that takes a value which another leaves
	$local->safe_psql('postgres', q{UPDATE codes SET code = CASE id WHEN 3 THEN 4 WHEN 4 THEN 3 WHEN 10 THEN 601 WHEN 12 THEN 601 WHEN 14 THEN 601 WHEN 36 THEN 10 ELSE code END});
	is(sync($local, 'office')->{failed}, 6, "codes, atomic_pass $atomic, each other: all but one fail");
	is(failed_keys('codes'), '5 7 12 14 35 39', "codes, atomic_pass $atomic, each other: which is told");
	is(rows($remote, q{SELECT name, code FROM codes WHERE name IN ('row 3', 'row 4', 'row 10', 'row 36') ORDER BY name}),
		"row 10|601\nrow 3|4\nrow 36|10\nrow 4|3", "codes, atomic_pass $atomic, each other: the others arrive");
	$local->safe_psql('postgres', q{UPDATE codes SET code = id});
	is(sync($local, 'office')->{failed}, 0, "codes, atomic_pass $atomic: back to what it was");
}
reload_with($local, 'synchro.atomic_pass' => 'off');
mended('codes', q{DELETE FROM codes WHERE name LIKE 'own%'; ALTER TABLE codes DROP CONSTRAINT one_code}, 'codes');

#
# Errors that are no row's fault park nothing, also where deletes are tried one by one
#
both($local, $remote, <<'SQL');
CREATE TABLE parent (id serial PRIMARY KEY, name text NOT NULL UNIQUE, code int);
CREATE TABLE child (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int REFERENCES parent);
SQL
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE needs_child (child_id int REFERENCES child);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room for that' USING ERRCODE = TG_ARGV[0]; END $$;
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parent', '{name}'), synchro.add_table('child', '{name}');
INSERT INTO parent (name) VALUES ('refused');
INSERT INTO child (name) VALUES ('needed');
SQL
sync($local, 'office');
$remote->safe_psql('postgres', q{INSERT INTO needs_child SELECT id FROM child});
$local->safe_psql('postgres', 'DELETE FROM child; DELETE FROM parent');
foreach my $state ('F0000', '72000', 'XX001', '2D000')
{
	$remote->safe_psql('postgres', "CREATE OR REPLACE TRIGGER refuse BEFORE DELETE ON parent FOR EACH ROW EXECUTE FUNCTION refuse('$state')");
	sync_fails($local, 'office', qr/$state: .*no room for that/, "deletes: $state ends the pass");
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), '0', "deletes: $state parks nothing");
}
$remote->safe_psql('postgres', q{CREATE OR REPLACE TRIGGER refuse BEFORE DELETE ON parent FOR EACH ROW EXECUTE FUNCTION refuse('P0001')});
is(sync($local, 'office')->{failed}, 2, 'deletes: what a row may be to blame for does');
$remote->safe_psql('postgres', 'DROP TRIGGER refuse ON parent; DROP TABLE needs_child');
is(sync($local, 'office')->{deleted}, 2, 'deletes: mended, they go');

#
# Deletes of rows that refer to each other, beside one that is refused
#
both($local, $remote, <<'SQL');
CREATE TABLE other (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE tree (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int REFERENCES tree DEFERRABLE);
CREATE TABLE p (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE q (id serial PRIMARY KEY, name text NOT NULL UNIQUE, p_id int REFERENCES p DEFERRABLE);
ALTER TABLE p ADD q_id int REFERENCES q DEFERRABLE;
SQL
$remote->safe_psql('postgres', q{CREATE TABLE needs_other (other_id int REFERENCES other); CREATE TABLE needs_tree (tree_id int REFERENCES tree)});
$local->safe_psql('postgres', "SELECT synchro.add_table('$_', '{name}')") foreach 'other', 'tree', 'p', 'q';
foreach my $preview (0, 1)
{
	local $ENV{SYNCHRO_PREVIEW} = $preview;

	my $testname = 'circles' . ($preview ? ', previewed' : '');
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO other (name) VALUES ('needed'), ('not needed');
INSERT INTO tree (name) SELECT x FROM unnest('{a,b,c,d,e,f}'::text[]) x;
UPDATE tree t SET parent_id = o.id FROM tree o WHERE (t.name, o.name) IN (('a', 'b'), ('b', 'a'), ('c', 'd'), ('d', 'c'), ('e', 'd'), ('f', 'e'));
INSERT INTO p (name) VALUES ('one'), ('two'), ('three');
INSERT INTO q (name, p_id) SELECT name, id FROM p;
UPDATE p SET q_id = q.id FROM q WHERE q.p_id = p.id;
SQL
	sync($local, 'office');
	same($local, $remote, q{SELECT t.name, o.name FROM tree t JOIN tree o ON o.id = t.parent_id UNION ALL SELECT p.name, q.name FROM p JOIN q ON q.id = p.q_id AND p.id = q.p_id ORDER BY 1},
		"$testname: rows that refer to each other");
	$remote->safe_psql('postgres', q{INSERT INTO needs_other SELECT id FROM other WHERE name = 'needed'});
	$local->safe_psql('postgres', 'DELETE FROM tree; DELETE FROM other; BEGIN; SET CONSTRAINTS ALL DEFERRED; DELETE FROM p; DELETE FROM q; COMMIT');
	my $result = sync($local, 'office');
	is("$result->{deleted} $result->{failed}", '13 1', "$testname: only what is needed there is not deleted");
	is(rows($local, 'SELECT relation, sqlstate FROM synchro.failures'), 'other|23503', "$testname: which is told");
	is(rows($remote, 'SELECT count(*) FROM tree UNION ALL SELECT count(*) FROM p UNION ALL SELECT count(*) FROM q'), "0\n0\n0", "$testname: the others are gone");
	$remote->safe_psql('postgres', 'DELETE FROM needs_other');
	is(sync($local, 'office')->{deleted}, 1, "$testname: mended, that goes, too");

	# nor does one in a circle hold up another circle
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO tree (name) SELECT x FROM unnest('{a,b,c,d,e,f}'::text[]) x;
UPDATE tree t SET parent_id = o.id FROM tree o WHERE (t.name, o.name) IN (('a', 'b'), ('b', 'a'), ('c', 'd'), ('d', 'c'), ('e', 'd'), ('f', 'e'));
SQL
	sync($local, 'office');
	$remote->safe_psql('postgres', q{INSERT INTO needs_tree SELECT id FROM tree WHERE name = 'c'});
	$local->safe_psql('postgres', 'DELETE FROM tree');
	$result = sync($local, 'office');
	is("$result->{deleted} $result->{failed}", '4 2', "$testname, one needed: it fails, and what it refers to");
	is(rows($remote, 'SELECT name FROM tree ORDER BY name'), "c\nd", "$testname, one needed: the others are gone");
	$remote->safe_psql('postgres', 'DELETE FROM needs_tree');
	is(sync($local, 'office')->{deleted}, 2, "$testname, one needed: mended, these go, too");
}

#
# what a deferred trigger there wants together, whatever it raises
#
watched('entry', <<'SQL');
ALTER TABLE entry ADD CONSTRAINT few CHECK (code < 1000);
CREATE FUNCTION balanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT sum(code) FROM entry WHERE left(name, 1) = left(NEW.name, 1)) <> 0 THEN
		RAISE EXCEPTION 'entry % is not balanced', left(NEW.name, 1);
	END IF;
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER balanced AFTER INSERT OR UPDATE ON entry DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION balanced();
SQL
$local->safe_psql('postgres', q{INSERT INTO entry (name, code) VALUES ('1a', 5), ('9a', 2000), ('1b', -5), ('2a', 7), ('2b', -7), ('3a', 9)});
is(sync($local, 'office')->{failed}, 2, 'entries: what is refused by itself fails');
is(rows($local, 'SELECT string_agg(name, $$ $$ ORDER BY name) FROM entry e JOIN synchro.failures f ON f.key = e.id::text'), '3a 9a', 'entries: which is told');
is(rows($remote, 'SELECT string_agg(name, $$ $$ ORDER BY name) FROM entry'), '1a 1b 2a 2b', 'entries: what is balanced arrives');
$local->safe_psql('postgres', q{INSERT INTO entry (name, code) VALUES ('3b', -9)});
mended('entry', 'ALTER TABLE entry DROP CONSTRAINT few; DROP TRIGGER balanced ON entry', 'entries');

#
# deletes that wait, of a table that has stalled since
#
watched('gone', 'CREATE TABLE needs_gone (id int REFERENCES gone)');
watched('kept', 'CREATE TABLE needs_kept (id int REFERENCES kept)');
$local->safe_psql('postgres', "INSERT INTO $_ (name) VALUES ('a'), ('b'), ('c')") foreach 'gone', 'kept';
sync($local, 'office');
$remote->safe_psql('postgres', q{INSERT INTO needs_gone SELECT id FROM gone WHERE name = 'a'; INSERT INTO needs_kept SELECT id FROM kept WHERE name = 'a'});
$local->safe_psql('postgres', q{DELETE FROM gone WHERE name = 'a'});
is(sync($local, 'office')->{failed}, 1, 'stalled with deletes: one waits');
$remote->safe_psql('postgres', 'REVOKE SELECT, DELETE ON gone FROM sync');
$local->safe_psql('postgres', q{UPDATE gone SET code = 1 WHERE name = 'b'});
sync($local, 'office');
$local->safe_psql('postgres', q{DELETE FROM kept WHERE name IN ('a', 'b')});
foreach my $time (1 .. 2)
{
	sync($local, 'office');
	is(rows($local, 'SELECT relation, key IS NULL, sqlstate FROM synchro.failures ORDER BY relation::text, key'), "gone|f|23503\ngone|t|42501\nkept|f|23503", "stalled with deletes, $time: what is refused of another table waits");
	is(rows($remote, 'SELECT string_agg(name, $$ $$ ORDER BY name) FROM kept'), 'a c', "stalled with deletes, $time: the others go");
	is(rows($local, q{SELECT coalesce(max(attempts), 0) < 10 FROM synchro.failures}), 't', "stalled with deletes, $time: it is not tried over and over");
}
$remote->safe_psql('postgres', 'DELETE FROM needs_gone; DELETE FROM needs_kept');
mended('kept', 'GRANT SELECT, DELETE ON gone TO sync', 'stalled with deletes');
same($local, $remote, 'SELECT name, code FROM gone ORDER BY name', 'stalled with deletes: of both');

#
# a row that waits, and is put there by itself for the sake of another one: if the pass ends before its own turn, what has not arrived waits still, and
# what has arrived does not
#
watched('leaf', <<'SQL');
CREATE TABLE refusing AS VALUES (1000), (1001);
GRANT SELECT ON refusing TO PUBLIC;
CREATE FUNCTION refuse_leaf() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.code = 2000 OR NEW.code < 2000 AND NEW.code IN (TABLE public.refusing) THEN
		RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation';
	ELSIF NEW.code IN (TABLE public.refusing) THEN
		RAISE EXCEPTION 'the pass ends' USING ERRCODE = 'disk_full';
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON leaf FOR EACH ROW EXECUTE FUNCTION refuse_leaf();
SQL
both($local, $remote, 'ALTER TABLE leaf ADD leaf_id int REFERENCES leaf');
$local->safe_psql('postgres', q{SELECT synchro.alter_table('leaf'); INSERT INTO leaf (name) VALUES ('changed')});
sync($local, 'office');
$local->safe_psql('postgres', q{UPDATE leaf SET code = 1000; INSERT INTO leaf (name, code) VALUES ('new', 1000), ('taken', 1000), ('worse', 1001), ('along', 1000)});
is(sync($local, 'office')->{failed}, 5, 'put there for a child: five rows wait');

# their own turn comes after all others of the table; who needs one of a later batch has rows of the table pushed along
reload_with($local, 'synchro.batch_size' => 1);
$remote->safe_psql('postgres', q{INSERT INTO leaf (name, code) VALUES ('taken', 7); UPDATE refusing SET column1 = 3000 WHERE column1 = 1000});
$local->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO leaf (name) VALUES ('needs');
INSERT INTO leaf (name, code, leaf_id) SELECT 'child of ' || name, CASE name WHEN 'along' THEN 1 ELSE 2000 END, id FROM leaf WHERE code IN (1000, 1001);
INSERT INTO leaf (name, code) VALUES ('needed', 1), ('ends', 3000);
UPDATE leaf SET leaf_id = (SELECT id FROM leaf WHERE name = 'needed') WHERE name = 'needs';
COMMIT;
SQL
isnt($local->psql('postgres', q{SELECT synchro.synchronize('office')}), 0, 'put there for a child: the pass ends');
is(rows($remote, q{SELECT string_agg(name, ' ' ORDER BY name) FROM leaf}), 'along changed child of along needed needs new taken', 'put there for a child: before their turn');
is(rows($local, q{SELECT l.name, f.operation FROM synchro.failures f JOIN leaf l ON f.key = l.id::text WHERE l.code < 2000 ORDER BY 1}), "changed|update\nworse|insert",
	'put there for a child: what has not arrived waits as before');
$local->safe_psql('postgres', q{DELETE FROM leaf WHERE name IN ('new', 'child of new', 'along', 'child of along'); UPDATE leaf SET code = 3 WHERE name LIKE 'child%'});
$remote->safe_psql('postgres', 'TRUNCATE refusing');
sync($local, 'office') foreach 1 .. 2;
is(failed_keys('leaf'), '', 'put there for a child: all arrive');
same($local, $remote, 'SELECT l.name, l.code, u.name FROM leaf l LEFT JOIN leaf u ON u.id = l.leaf_id ORDER BY 1', 'put there for a child: all is the same');

$_->stop('fast') foreach $local, $remote;
done_testing();
