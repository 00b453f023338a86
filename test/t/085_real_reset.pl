# WHY: what brings a database in line again must do so for a whole application: definitions read anew without losing a change of
# 21 tables; single rows queued again, however deep in names they are; and everything on the remote thrown away and copied, in the
# order that trees, circles and pairs allow, while other schemas notice nothing.
use strict;
use warnings;

use lib 'test/t';
use RealSchema;
use SynchroTest;
use Test::More;

my ($here, $there) = real_pair(conf => 'synchro.batch_size = 100');

both($here, $there, 'CREATE TABLE other (name text PRIMARY KEY, v int)');
$there->safe_psql('postgres', 'GRANT SELECT, INSERT, UPDATE, DELETE ON other TO sync');
$here->safe_psql('postgres', q{SELECT synchro.add_table('other'); INSERT INTO other VALUES ('x', 1)});
$here->safe_psql('postgres', $REAL{more});
is(sync($here, 'there')->{failed}, 0, 'what is only here is pushed');
same($here, $there, $REAL{contents}, 'both hold the same');

#
# soft, with changes that are pending, and definitions that came apart behind our back
#
my $ids = q{SELECT 'p', id FROM shop.product UNION ALL SELECT 'a', id FROM shop.address UNION ALL SELECT 'e', id FROM shop.employee UNION ALL SELECT 'r', id FROM shop.review ORDER BY 1, 2};
my $before = rows($there, $ids);
$here->safe_psql('postgres', $REAL{changes} =~ s/^DELETE.*$//mgr);
my $logged = rows($here, 'SELECT count(*) FROM synchro.changes');
$here->safe_psql('postgres', q{DROP TRIGGER synchro_capture ON shop.order_line; DROP TRIGGER synchro_truncate ON shop.review; ALTER TABLE shop.brand DISABLE TRIGGER synchro_capture});
is($here->safe_psql('postgres', q{SELECT synchro.reset_schema('shop')}), '21', 'soft: all tables of the schema are renewed');
is(rows($here, 'SELECT count(*) FROM synchro.changes'), $logged, 'nothing of the log is lost');
is(rows($here, q{SELECT count(DISTINCT tgrelid), count(*), min(tgenabled::text), max(tgenabled::text) FROM pg_trigger WHERE tgname IN ('synchro_capture', 'synchro_truncate') AND tgrelid::regclass::text LIKE 'shop.%'}),
	'21|42|A|A', 'all triggers are there');
$here->safe_psql('postgres', q{UPDATE shop.order_line SET quantity = quantity + 5 WHERE line = 1; UPDATE shop.brand SET name = 'after' WHERE name = 'brand5'});
is(sync($here, 'there')->{failed}, 0, 'it goes on');
same($here, $there, $REAL{contents}, 'both hold the same');
is(rows($there, $ids), $before, 'in the same rows, renamed parents or not');

#
# single rows, spoilt there in all kinds of tables: queued again one by one table, and together
#
$there->safe_psql('postgres', <<'SQL');
SET search_path = shop;
UPDATE shipment_line SET quantity = 9 WHERE (shipment_id, line) IN (SELECT shipment_id, line FROM shipment_line ORDER BY 1, 2 LIMIT 3);
DELETE FROM stock WHERE (shelf_id, product_id) IN (SELECT shelf_id, product_id FROM stock ORDER BY 1, 2 LIMIT 2);
UPDATE category SET name = 'spoilt' WHERE name = 'deep' AND id = (SELECT min(id) FROM category WHERE name = 'deep');
UPDATE customer SET main_address = NULL WHERE email = 'u7@example.com';
DELETE FROM payment WHERE id = (SELECT min(id) FROM payment);
UPDATE review SET words = 'spoilt' WHERE id = (SELECT max(id) FROM review);
UPDATE employee SET manager_id = (SELECT id FROM employee WHERE name = 'employee 20') WHERE name = 'employee 5';
INSERT INTO tag VALUES ('extra');
SQL
my $verify = q{SELECT relation, difference, columns FROM synchro.verify('there') ORDER BY relation::text, difference};
is(rows($here, $verify), <<'ROWS' =~ s/\n\z//r, 'verify() finds each of them');
shop.category|extra|
shop.category|missing|
shop.customer|different|{main_address}
shop.employee|different|{manager_id}
shop.payment|missing|
shop.review|different|{words}
shop.shipment_line|different|{quantity}
shop.shipment_line|different|{quantity}
shop.shipment_line|different|{quantity}
shop.stock|missing|
shop.stock|missing|
shop.tag|extra|
ROWS
is(rows($here, q{SELECT synchro.requeue('there', 'shop.shipment_line')}), '3', 'those of one table are queued again');
is(rows($here, q{SELECT count(*) FROM synchro.verify('there', 'shop.shipment_line')}), '0', 'and arrive');
is(rows($here, q{SELECT synchro.requeue('there')}), '7', 'and all others');
sync($here, 'there');
is(rows($here, $verify), "shop.category|extra|\nshop.tag|extra|", 'what is there only stays');
$there->safe_psql('postgres', q{DELETE FROM shop.category WHERE name = 'spoilt'; DELETE FROM shop.tag WHERE name = 'extra'});
same($here, $there, $REAL{contents}, 'both hold the same');

#
# hard, with changes that are pending, rows that are refused, and rows that nobody can explain
#
$there->safe_psql('postgres', <<'SQL');
SET search_path = shop;
ALTER TABLE payment ADD CONSTRAINT few CHECK (amount < 1000);
UPDATE customer SET email = 'strange ' || email WHERE id % 3 = 0;
UPDATE category SET up_id = NULL WHERE name = 'leaf1' AND id = (SELECT min(id) FROM category WHERE name = 'leaf1');
DELETE FROM order_line WHERE line = 1;
INSERT INTO review (words) VALUES ('only there');
INSERT INTO employee (badge, manager_id) SELECT md5('there')::uuid, id FROM employee WHERE name = 'employee 1';
SQL
$here->safe_psql('postgres', q{UPDATE shop.payment SET amount = 5000 WHERE order_id = (SELECT id FROM shop.orders WHERE number = 'o30'); UPDATE other SET v = 2});
cmp_ok(sync($here, 'there')->{failed}, '>', 0, 'a row is refused');
$there->safe_psql('postgres', 'ALTER TABLE shop.payment DROP CONSTRAINT few');
$here->safe_psql('postgres', q{DELETE FROM shop.orders WHERE number IN ('o40', 'o41'); UPDATE shop.country SET code = 'spain' WHERE code = 'c4'; UPDATE other SET v = 3});
my $tables = rows($here, q{SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r'});
is($here->safe_psql('postgres', q{SELECT synchro.reset_schema('shop', soft => false, remote => 'there', confirm => true)}),
	rows($here, 'SELECT ' . join ' + ', map { "(SELECT count(*) FROM shop.$_)" } split / /, $tables), 'hard: all rows are to be copied');
is(rows($here, 'SELECT count(*) FROM synchro.failures'), '0', 'what had failed is forgotten');
is(sync($here, 'there')->{failed}, 0, 'the tables are emptied, and copied');
same($here, $there, $REAL{contents}, 'both hold the same');
equal_for_verify($here, 'verify() finds nothing');
is(rows($there, 'SELECT v FROM other'), '3', 'another schema has had its change');
unlike(rows($there, q{SELECT string_agg(id::text, ' ') FROM shop.product}), qr/\b5001\b/, 'the rows there are new ones');
$here->safe_psql('postgres', q{UPDATE shop.review SET words = words || '!' WHERE words LIKE 'very%'; DELETE FROM shop.review r WHERE NOT EXISTS (SELECT FROM shop.review a WHERE a.answers = r.id); UPDATE shop.tag SET name = 'old' WHERE name = 'fresh'});
is(sync($here, 'there')->{failed}, 0, 'then it goes on as ever');
same($here, $there, $REAL{contents}, 'and both hold the same');

$_->stop('fast') foreach $here, $there;
done_testing();
