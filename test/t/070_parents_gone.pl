# WHY: a row that was moved away from a parent that is then deleted is still below it on a remote that has refused the move. There it
# went along with the parent, by ON DELETE CASCADE, and all that was below it, which nothing ever sent again; between nodes that
# came back as a newer change, and both had lost it. The parent's delete has to wait, and nothing else.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my $schema = <<'SQL';
CREATE TABLE par (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE kid (id serial PRIMARY KEY, name text NOT NULL UNIQUE, par_id int REFERENCES par ON DELETE CASCADE, n int);
CREATE TABLE grandkid (id serial PRIMARY KEY, name text NOT NULL UNIQUE, kid_id int REFERENCES kid ON DELETE CASCADE);
CREATE TABLE other (id serial PRIMARY KEY, name text NOT NULL UNIQUE, par_id int REFERENCES par ON DELETE SET NULL, n int);
CREATE TABLE thing (id serial PRIMARY KEY, kid_id int REFERENCES kid ON DELETE CASCADE, n int);
SQL
my $all = q{SELECT 'par', name, NULL FROM par UNION ALL SELECT 'kid', k.name || ' ' || k.n, p.name FROM kid k LEFT JOIN par p ON p.id = k.par_id
	UNION ALL SELECT 'grandkid', g.name, k.name FROM grandkid g LEFT JOIN kid k ON k.id = g.kid_id
	UNION ALL SELECT 'other', o.name || ' ' || o.n, p.name FROM other o LEFT JOIN par p ON p.id = o.par_id
	UNION ALL SELECT 'thing', t.n::text, k.name FROM thing t LEFT JOIN kid k ON k.id = t.kid_id ORDER BY 1, 2, 3};
my $data = <<'SQL';
INSERT INTO par (name) SELECT 'p' || i FROM generate_series(1, 5) i;
INSERT INTO kid (name, par_id, n) SELECT 'k' || i, i, i FROM generate_series(1, 5) i;
INSERT INTO grandkid (name, kid_id) SELECT 'g' || i, 1 + i % 5 FROM generate_series(1, 10) i;
INSERT INTO other (name, par_id, n) SELECT 'o' || i, i, i FROM generate_series(1, 5) i;
INSERT INTO thing (kid_id, n) SELECT i, i FROM generate_series(1, 5) i;
SQL

my $local = synchro_node('local');
my $remote = synchro_node('remote');
both($local, $remote, $schema);
$remote->safe_psql('postgres', "SELECT setval('${_}_id_seq', 1000)") foreach 'par', 'kid', 'grandkid', 'other', 'thing';
$remote->safe_psql('postgres', 'CREATE TABLE notes (kid_id int REFERENCES kid ON DELETE CASCADE, note text)');
connect_remote($local, $remote);
$local->safe_psql('postgres', "SELECT synchro.add_table('$_', '{name}')") foreach 'par', 'kid', 'grandkid', 'other';
$local->safe_psql('postgres', q{SELECT synchro.add_table('thing')});
$local->safe_psql('postgres', $data);
sync($local, 'office');
$remote->safe_psql('postgres', q{INSERT INTO notes SELECT id, name FROM kid;
	ALTER TABLE kid ADD CONSTRAINT small CHECK (n < 100); ALTER TABLE other ADD CONSTRAINT small CHECK (n < 100); ALTER TABLE thing ADD CONSTRAINT small CHECK (n < 100)});
my $notes = q{SELECT string_agg(k.name, ',' ORDER BY k.name) FROM notes n JOIN kid k ON k.id = n.kid_id};
my $failures = q{SELECT string_agg(concat_ws(' ', relation, key, operation, sqlstate), ', ' ORDER BY relation::text, key, operation) FROM synchro.failures};

$local->safe_psql('postgres', q{UPDATE kid SET par_id = 2, n = 1000 WHERE name = 'k1'; DELETE FROM par WHERE name IN ('p1', 'p3')});
my $result = sync($local, 'office');
is("$result->{deleted}|$result->{failed}", '5|2', 'of two parents that are deleted one waits, and the row that was moved away from it');
is(rows($remote, q{SELECT string_agg(name, ',' ORDER BY name) FROM par}), 'p1,p2,p4,p5', 'it is the one that this is still below');
is(rows($remote, q{SELECT count(*) FROM grandkid g JOIN kid k ON k.id = g.kid_id WHERE k.name = 'k1'}), 2, 'all is there that is below it');
like(rows($local, $failures), qr/^kid 1 update 23514, par \S+ delete 23503$/, 'both are shown');
like(rows($local, q{SELECT message FROM synchro.failures WHERE operation = 'delete'}), qr/a row of table public\.kid, of which a change has not arrived, still refers to it/, 'the delete with whom it waits for');

$local->safe_psql('postgres', q{DELETE FROM par WHERE name = 'p4'; SELECT synchro.retry()});
sync($local, 'office');
is(rows($remote, q{SELECT string_agg(name, ',' ORDER BY name) FROM par}), 'p1,p2,p5', 'later deletes do not wait for it, nor does it go when it is tried again');
$local->safe_psql('postgres', q{UPDATE kid SET n = 5 WHERE name = 'k1'});
sync($local, 'office') foreach 1 .. 2;
is(rows($local, $failures), '', 'when the row is mended the delete goes through');
same($local, $remote, $all, 'and all is the same');
is(rows($remote, $notes), 'k1,k2,k5', 'what refers to it there is there');

# with names that are to be quoted, and of types of their own
both($local, $remote, q{CREATE TYPE part AS ENUM ('it''s', '"{a,b}\'); CREATE TABLE odd (a text, b part, par_id int REFERENCES par ON DELETE CASCADE, n int, PRIMARY KEY (a, b))});
$remote->safe_psql('postgres', q{GRANT SELECT, INSERT, UPDATE, DELETE ON odd TO sync});
$local->safe_psql('postgres', q{SELECT synchro.add_table('odd'); INSERT INTO par (name) VALUES ('p6'), ('p7');
	INSERT INTO odd SELECT a, b, p.id, 1 FROM unnest(enum_range(NULL::part)) b, (VALUES (''), ('NULL'), ($x$\'"{}, $x$)) v (a), par p WHERE p.name = 'p6'});
sync($local, 'office');
$remote->safe_psql('postgres', 'ALTER TABLE odd ADD CONSTRAINT small CHECK (n < 100)');
$local->safe_psql('postgres', q{UPDATE odd SET n = 1000, par_id = (SELECT id FROM par WHERE name = 'p7'); DELETE FROM par WHERE name = 'p6'});
sync($local, 'office');
is(rows($remote, q{SELECT count(*), min(p.name), max(p.name) FROM odd LEFT JOIN par p ON p.id = odd.par_id}), '6|p6|p6', 'odd names: all rows are there, and their parent');
$local->safe_psql('postgres', q{UPDATE odd SET n = 2});
sync($local, 'office') foreach 1 .. 2;
same($local, $remote, q{SELECT a, b, o.n, p.name FROM odd o JOIN par p ON p.id = o.par_id ORDER BY 1, 2}, 'odd names: mended, they are the same');
is(rows($remote, q{SELECT count(*) FROM par WHERE name = 'p6'}), 0, 'and the parent is gone');
$local->safe_psql('postgres', q{DELETE FROM odd; DELETE FROM par WHERE name = 'p7'});

# the same of a row that would only lose what it refers to, of one known by reference, and in one transaction for all
$local->safe_psql('postgres', q{UPDATE other SET par_id = 2, n = 1000 WHERE name = 'o5'; UPDATE kid SET par_id = 2 WHERE name = 'k5'; DELETE FROM par WHERE name = 'p5'});
sync($local, 'office');
is(rows($remote, q{SELECT p.name FROM other o JOIN par p ON p.id = o.par_id WHERE o.name = 'o5'}), 'p5', 'ON DELETE SET NULL: it refers to what it did');
$local->safe_psql('postgres', q{UPDATE other SET n = 5 WHERE name = 'o5'});
sync($local, 'office') foreach 1 .. 2;
same($local, $remote, $all, 'ON DELETE SET NULL: all is the same');
$local->append_conf('postgresql.conf', 'synchro.atomic_pass = on');
$local->reload;
$local->safe_psql('postgres', q{UPDATE thing SET kid_id = 2, n = 1000 WHERE n = 5; DELETE FROM kid WHERE name = 'k5'});
sync($local, 'office');
is(rows($remote, q{SELECT k.name FROM thing t JOIN kid k ON k.id = t.kid_id WHERE t.n = 5}), 'k5', 'by reference: it is there');
$local->safe_psql('postgres', q{UPDATE thing SET n = 5 WHERE n = 1000});
sync($local, 'office') foreach 1 .. 2;
is(rows($local, $failures), '', 'by reference: mended');
same($local, $remote, $all, 'by reference: all is the same');
$local->append_conf('postgresql.conf', 'synchro.atomic_pass = off');
$local->reload;

# what refers to the parent and waits, but has nothing there to lose, is in nobody's way
$local->safe_psql('postgres', q{INSERT INTO par (name) VALUES ('p6'); INSERT INTO kid (name, par_id, n) VALUES ('k6', 2, 1000); DELETE FROM par WHERE name = 'p6'});
sync($local, 'office');
$local->safe_psql('postgres', q{UPDATE kid SET n = 2000 WHERE name = 'k2'; INSERT INTO par (name) VALUES ('p7')});
sync($local, 'office');
$local->safe_psql('postgres', q{DELETE FROM par WHERE name = 'p7'});
is(sync($local, 'office')->{deleted}, 1, 'rows that wait below another parent hold nothing up');
$local->safe_psql('postgres', q{DELETE FROM par WHERE name = 'p2'});
sync($local, 'office');
is(rows($local, $failures), '', 'what is deleted here along with its parent goes along there, too');
same($local, $remote, $all, 'and nothing is left');

# what a trigger there counts in a row that waits takes nothing away from it
both($local, $remote, <<'SQL');
CREATE TABLE bill (id serial PRIMARY KEY, name text NOT NULL UNIQUE, par_id int REFERENCES par ON DELETE CASCADE, n int);
CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL UNIQUE, bill_id int REFERENCES bill);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('bill_id_seq', 1000), setval('item_id_seq', 1000);
ALTER TABLE bill ADD CONSTRAINT small CHECK (n < 100);
ALTER TABLE bill ADD items int DEFAULT 0;
CREATE FUNCTION count_items() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE bill SET items = items - 1 WHERE id = OLD.bill_id; RETURN NULL; END';
CREATE TRIGGER count_items AFTER DELETE ON item FOR EACH ROW EXECUTE FUNCTION count_items();
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('bill', '{name}'), synchro.add_table('item', '{name}');
INSERT INTO par (name) VALUES ('old'), ('new');
INSERT INTO bill (name, par_id, n) SELECT 'b1', id, 1 FROM par WHERE name = 'new';
INSERT INTO item (name, bill_id) SELECT i, b.id FROM bill b, unnest('{i1,i2,i3}'::text[]) i;
SQL
sync($local, 'office');
$local->safe_psql('postgres', 'UPDATE bill SET n = 1000');
is(sync($local, 'office')->{failed}, 1, 'a trigger that counts: a row waits');
$local->safe_psql('postgres', q{DELETE FROM item WHERE name IN ('i1', 'i2'); DELETE FROM par WHERE name = 'old'});
$result = sync($local, 'office');
is("$result->{deleted}|$result->{failed}", '3|1', 'a trigger that counts: others are deleted');
is(rows($remote, 'SELECT items FROM bill'), '-2', 'a trigger that counts: it has');
$_->stop('fast') foreach $local, $remote;

# between nodes
my ($a, $b) = nodes({}, 'a', 'b');
$_->safe_psql('postgres', $schema) foreach $a, $b;
$b->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART 1000") foreach 'par', 'kid', 'grandkid', 'other', 'thing';
join_nodes($a, $b);
watch([ $a, $b ], par => '{name}', kid => '{name}', grandkid => '{name}');
$a->safe_psql('postgres', $data);
settle($a, $b);
$b->safe_psql('postgres', 'ALTER TABLE kid ADD CONSTRAINT small CHECK (n < 100)');
$a->safe_psql('postgres', q{UPDATE kid SET par_id = 2, n = 1000 WHERE name = 'k1'});
$a->safe_psql('postgres', q{DELETE FROM par WHERE name = 'p1'});
my $pushed = q{SELECT 'par', name, NULL FROM par UNION ALL SELECT 'kid', k.name, p.name FROM kid k LEFT JOIN par p ON p.id = k.par_id
	UNION ALL SELECT 'grandkid', g.name, k.name FROM grandkid g LEFT JOIN kid k ON k.id = g.kid_id ORDER BY 1, 2, 3};
my $here = rows($a, $pushed);
foreach (1 .. 2)
{
	sync($a, 'b');
	sync($b, 'a');
}
is(rows($a, $pushed), $here, 'nodes: nothing comes back');
$a->safe_psql('postgres', q{UPDATE kid SET n = 5 WHERE name = 'k1'});
settle($a, $b);
is(rows($a, $pushed), $here, 'nodes: mended, all is here');
is(rows($b, $pushed), $here, 'nodes: and there');
$_->stop('fast') foreach $a, $b;
done_testing();
