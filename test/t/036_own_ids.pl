# WHY: a remote may have its own mind about ids and references: triggers that hand out ids whatever is given, identity columns that
# nobody may change, references by other columns than the primary key, types that the pushing role may not use. What then goes wrong
# is that a row gets another row's children, or NULL, or is there once more with each change, without a word: it must arrive as it
# should be, or be told.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

connect_remote($local, $remote);

sub failures
{
	return rows($local, q{SELECT relation, key, sqlstate, message, concat_ws(' ', detail, hint) FROM synchro.failures ORDER BY 1, 2});
}

#
# a trigger that gives ids, whatever a row has
#
both($local, $remote, <<'SQL');
CREATE SEQUENCE ids;
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE orders (id serial PRIMARY KEY, no text NOT NULL UNIQUE, customer_id int REFERENCES customer);
CREATE TABLE line (id serial PRIMARY KEY, order_id int NOT NULL REFERENCES orders, n int NOT NULL, v text, UNIQUE (order_id, n));
CREATE TABLE note (id serial PRIMARY KEY, body text);
CREATE FUNCTION give_id() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := nextval('public.ids'); RETURN NEW; END$$;
SQL
grant_dml($remote);
$remote->safe_psql('postgres', <<'SQL');
CREATE TRIGGER give_id BEFORE INSERT ON customer FOR EACH ROW EXECUTE FUNCTION give_id();
CREATE TRIGGER give_id BEFORE INSERT ON line FOR EACH ROW EXECUTE FUNCTION give_id();
CREATE TRIGGER give_id BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION give_id();
INSERT INTO customer (name) SELECT 'there ' || i FROM generate_series(1, 10) i;
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('customer', '{name}'), synchro.add_table('orders', '{no}'), synchro.add_table('line', '{order_id,n}'), synchro.add_table('note');
INSERT INTO customer SELECT i, 'here ' || i FROM generate_series(5, 7) i;
INSERT INTO orders (no, customer_id) SELECT 'order ' || i, i FROM generate_series(5, 7) i;
SQL
is(sync($local, 'office')->{failed}, 0, 'rows whose ids a trigger gives');
same($local, $remote, 'SELECT o.no, c.name FROM orders o JOIN customer c ON c.id = o.customer_id ORDER BY 1', 'and their children, which have the right parents');
$local->safe_psql('postgres', q{INSERT INTO line (order_id, n, v) SELECT id, i, 'new' FROM orders, generate_series(1, 3) i});
is(sync($local, 'office')->{failed}, 0, 'rows that nobody refers to, whose keys refer to others');
$local->safe_psql('postgres', q{UPDATE line SET v = 'changed'});
sync($local, 'office');
same($local, $remote, 'SELECT o.no, l.n, l.v FROM line l JOIN orders o ON o.id = l.order_id ORDER BY 1, 2', 'are there once');
$local->safe_psql('postgres', q{INSERT INTO note (body) VALUES ('a'), ('b')});
sync($local, 'office');
is(failures(), join("\n", map { "note|$_|27000|a trigger of table public.note gives new rows other ids than they are inserted with|Let it give an id only where there is none." } 1, 2),
	'where only the id finds a row, it is told');
is(rows($remote, 'SELECT count(*) FROM note'), 0, 'and nothing is inserted again and again');
$remote->safe_psql('postgres', q{CREATE OR REPLACE FUNCTION give_id() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := coalesce(NEW.id, nextval('public.ids')); RETURN NEW; END$$});
is(sync($local, 'office')->{failed}, 0, 'until the trigger is mended');
$local->safe_psql('postgres', q{UPDATE note SET body = body || '!'});
sync($local, 'office');
same($local, $remote, 'SELECT body FROM note ORDER BY 1', 'then they are there once');

#
# references by a column that is not the primary key, to rows that are new
#
both($local, $remote, <<'SQL');
CREATE TABLE employee (id serial PRIMARY KEY, badge serial UNIQUE, name text NOT NULL UNIQUE, boss int REFERENCES employee (badge));
SQL
grant_dml($remote);
$remote->safe_psql('postgres', q{SELECT setval('employee_id_seq', 100), setval('employee_badge_seq', 500)});
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('employee', '{name}');
INSERT INTO employee (name) VALUES ('chief');
INSERT INTO employee (name, boss) SELECT 'clerk ' || i, badge FROM employee, generate_series(1, 3) i;
SQL
my $bosses = 'SELECT e.name, b.name FROM employee e LEFT JOIN employee b ON b.badge = e.boss ORDER BY 1';
is(sync($local, 'office')->{failed}, 0, 'rows that refer to a new one of the same table, by another column');
same($local, $remote, $bosses, 'have what they refer to');
$local->safe_psql('postgres', <<'SQL');
INSERT INTO employee (name) VALUES ('new chief');
UPDATE employee SET boss = (SELECT badge FROM employee WHERE name = 'new chief') WHERE name = 'clerk 1';
SQL
is(sync($local, 'office')->{failed}, 0, 'one that is there, and refers to a new one now');
same($local, $remote, $bosses, 'does so there, too');
$local->safe_psql('postgres', q{INSERT INTO employee (badge, name, boss) VALUES (900, 'self', 900), (901, 'one', 902), (902, 'other', 901)});
is(sync($local, 'office')->{failed}, 0, 'new ones that refer to themselves, or to each other');
same($local, $remote, $bosses, 'do so there, too');

# where the remote fills that column, it is not known before the row is there
$remote->safe_psql('postgres', 'ALTER TABLE employee ALTER badge DROP DEFAULT; DROP SEQUENCE employee_badge_seq; ALTER TABLE employee ALTER badge ADD GENERATED ALWAYS AS IDENTITY (START 5000)');
grant_dml($remote);
$local->safe_psql('postgres', q{INSERT INTO employee (badge, name) VALUES (903, 'head'); INSERT INTO employee (badge, name, boss) SELECT 903 + i, 'hand ' || i, 903 FROM generate_series(1, 3) i});
is(sync($local, 'office')->{failed}, 0, 'rows that refer to a new one by what the remote fills');
same($local, $remote, $bosses, 'go after it');

#
# a parent that is not there, though the foreign key says so
#
both($local, $remote, <<'SQL');
CREATE TABLE by_numeric (id numeric PRIMARY KEY, name text);
CREATE TABLE child (id int PRIMARY KEY, parent_id numeric, note text);
CREATE DOMAIN code AS char(4);
CREATE TABLE by_code (code code PRIMARY KEY);
CREATE TABLE coded (id int PRIMARY KEY, code char(4), note text);
SQL
grant_dml($remote);
both($local, $remote, q{INSERT INTO child VALUES (1, 99, 'a'), (2, NULL, 'a'); INSERT INTO by_numeric VALUES (1.50, 'there'); INSERT INTO child VALUES (3, 1.5, 'a');
	ALTER TABLE child ADD FOREIGN KEY (parent_id) REFERENCES by_numeric NOT VALID;
	INSERT INTO coded VALUES (1, 'gone', 'a'), (2, 'x', 'a'); INSERT INTO by_code VALUES ('x'); ALTER TABLE coded ADD FOREIGN KEY (code) REFERENCES by_code NOT VALID});
$local->safe_psql('postgres', q{SELECT synchro.add_table('by_numeric'), synchro.add_table('child'), synchro.add_table('by_code'), synchro.add_table('coded'); UPDATE child SET note = 'b'; UPDATE coded SET note = 'b'});
is(sync($local, 'office')->{failed}, 2, 'orphans');
like(failures(), qr/^coded\|1\|23503\|row of table public\.by_code with key \{?gone\}?, which it references, does not exist/m, 'are told, by domains and char(n)');
is(rows($remote, 'SELECT id, code, note FROM coded ORDER BY id'), "1|gone|a\n2|x   |b", 'and keep what they refer to');
like(failures(), qr/^child\|1\|23503\|row of table public\.by_numeric with key \{?99\}?, which it references, does not exist/m, 'by numbers, too');
is(rows($remote, 'SELECT id, parent_id, note FROM child ORDER BY id'), "1|99|a\n2||b\n3|1.50|b", 'others arrive');
$local->safe_psql('postgres', q{DELETE FROM child WHERE id = 1; DELETE FROM coded WHERE id = 1});
sync($local, 'office');

#
# a key that the remote does not let anybody change
#
both($local, $remote, 'CREATE TABLE fixed (id int PRIMARY KEY, v text)');
grant_dml($remote);
$remote->safe_psql('postgres', 'ALTER TABLE fixed ALTER id ADD GENERATED ALWAYS AS IDENTITY');
$local->safe_psql('postgres', q{SELECT synchro.add_table('fixed'); INSERT INTO fixed VALUES (1, 'a'), (5, 'e')});
sync($local, 'office');
$local->safe_psql('postgres', q{UPDATE fixed SET v = v || '!'; UPDATE fixed SET id = 2 WHERE id = 1});
is(sync($local, 'office')->{failed}, 1, 'a row that gets another key, where keys are GENERATED ALWAYS');
like(failures(), qr/^fixed\|2\|27000\|column id of table public\.fixed is GENERATED ALWAYS AS IDENTITY there.*\|Make it GENERATED BY DEFAULT there\.$/, 'is told');
is(rows($remote, 'SELECT id, v FROM fixed ORDER BY id'), "1|a\n5|e!", 'and stays what it was');
$remote->safe_psql('postgres', 'ALTER TABLE fixed ALTER id SET GENERATED BY DEFAULT');
is(sync($local, 'office')->{failed}, 0, 'until that is mended');
same($local, $remote, 'SELECT id, v FROM fixed ORDER BY id', 'it is there once then');

#
# a type that the role may not use: its table stalls, the others go on
#
both($local, $remote, q{CREATE SCHEMA types; CREATE TYPE types.status AS ENUM ('new', 'old'); CREATE TABLE job (no text PRIMARY KEY, st types.status)});
grant_dml($remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('job'); INSERT INTO job VALUES ('1', 'new'); UPDATE fixed SET v = 'others go on' WHERE id = 5});
is(sync($local, 'office')->{failed}, 1, 'a table with a type in a schema that the role may not use');
like(failures(), qr/^job\|\|42501\|.*permission denied for schema types\|SELECT \* FROM synchro\.check\('office'\) gives what mends it\.$/, 'stalls');
is(rows($remote, 'SELECT v FROM fixed WHERE id = 5'), 'others go on', 'and no other');
is(rows($local, q{SELECT severity, relation, fix FROM synchro.check('office') WHERE problem ~ 'may not use schema'}), qq{error||-- on remote "office"\nGRANT USAGE ON SCHEMA types TO sync;}, 'check() gives the right that is missing');
$remote->safe_psql('postgres', 'GRANT USAGE ON SCHEMA types TO sync');
is(sync($local, 'office')->{failed}, 0, 'until that is given');
same($local, $remote, 'SELECT no, st FROM job', 'the row is there');

$_->stop('fast') foreach $local, $remote;
done_testing();
