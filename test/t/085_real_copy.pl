# WHY: a first copy is made of a whole application at once, into a database that has most of it already under other ids, while
# people go on working. Trees, pairs and circles cross the pieces in which it goes. Afterwards both must hold the same, no row
# twice and none under a wrong parent; and a copy that is to delete what is too much must delete that and nothing else.
use strict;
use warnings;

use lib 'test/t';
use IPC::Run;
use RealSchema;
use SynchroTest;
use Test::More;

my ($here, $there) = real_pair(conf => 'synchro.batch_size = 40');

# nothing of this is logged, so it gets there by copying only
$here->safe_psql('postgres', "SET synchro.log_changes = off; $REAL{more}");
is(sync($here, 'there')->{message}, 'No changes since last synchronization.', 'by itself nothing is pushed');
my %ids = map { $_ => rows($there, "SELECT string_agg(id::text, ',' ORDER BY id) FROM shop.$_") } 'product', 'address', 'employee';

#
# the whole schema, while eight clients work on it
#
my @scripts = (<<'SQL', <<'SQL', <<'SQL', <<'SQL');
\set u random(1, 60)
\set p random(1, 15)
BEGIN;
INSERT INTO shop.orders (number, customer_id, seller_id) SELECT 'w' || nextval('work'), u.id, e.id FROM shop.customer u, shop.employee e WHERE email LIKE 'u' || :u || '@example.%' AND e.name = 'employee ' || :u % 20 + 1;
INSERT INTO shop.order_line SELECT o.id, n, p.id, n FROM shop.orders o, generate_series(1, 3) n, shop.product p JOIN shop.brand b ON b.id = brand_id
	WHERE number = 'w' || currval('work') AND sku = 'sku' || :p AND b.name LIKE 'brand4%';
INSERT INTO shop.payment (order_id, currency, amount) SELECT id, 'cur1', 5 FROM shop.orders WHERE number = 'w' || currval('work');
COMMIT;
SQL
\set e random(2, 20)
\set n random(1, 1000000)
UPDATE shop.employee SET manager_id = (SELECT id FROM shop.employee WHERE name = 'employee ' || :e / 2), badge = badge WHERE name = 'employee ' || :e;
UPDATE shop.brand SET name = 'brand4 ' || :n WHERE name LIKE 'brand4%' AND NOT EXISTS (SELECT FROM shop.brand WHERE name = 'brand4 ' || :n);
SQL
\set p random(1, 15)
UPDATE shop.stock SET quantity = quantity + 1 WHERE product_id IN (SELECT id FROM shop.product WHERE sku = 'sku' || :p);
INSERT INTO shop.product_tag SELECT id, 'cheap' FROM shop.product WHERE sku = 'sku' || :p ON CONFLICT DO NOTHING;
DELETE FROM shop.product_tag WHERE product_id IN (SELECT id FROM shop.product WHERE sku = 'sku' || :p % 15 + 1) AND tag = 'cheap';
INSERT INTO shop.review (product_id, answers, words) SELECT product_id, id, 'by ' || nextval('work') FROM shop.review ORDER BY id DESC LIMIT 1;
SQL
\set u random(1, 60)
UPDATE shop.customer SET email = 'u' || :u || '@example.org' WHERE email = 'u' || :u || '@example.com' AND :u > 50;
DELETE FROM shop.orders WHERE number = (SELECT max(number) FROM shop.orders WHERE number LIKE 'w%') AND :u % 3 = 0;
INSERT INTO shop.category (up_id, name) SELECT id, 'w' || nextval('work') FROM shop.category WHERE name LIKE 'leaf%' ORDER BY id DESC LIMIT 1;
UPDATE shop.category c SET name = 'x' || nextval('work') WHERE id = (SELECT max(id) FROM shop.category WHERE name LIKE 'w%');
SQL
my @files;
foreach my $i (0 .. $#scripts)
{
	push @files, $here->basedir . "/work$i.sql";
	open my $file, '>', $files[-1] or die "$files[-1]: $!";
	print $file $scripts[$i];
	close $file;
}
$here->safe_psql('postgres', 'CREATE SEQUENCE work');
my ($out, $err) = ('', '');
my $bench = IPC::Run::start([ $here->installed_command('pgbench'), '-n', '-c', '8', '-R', '60', '-t', '30', '--max-tries=10', (map { ('-f', $_) } @files), '-h', $here->host, '-p', $here->port, 'postgres' ],
	'>', \$out, '2>', \$err);
wait_for($here, q{SELECT last_value > 10 FROM work}, 'there is work');
is(rows($here, q{SELECT sum(synchro.copy_table('there', relation)) >= 1300 FROM synchro.tables}), 't', 'every table is copied');
is(rows($here, q{SELECT phase, rows_done, rows_total > 0 FROM synchro.progress}), 'copying|0|t', 'which is in view progress');
is(sync($here, 'there')->{failed}, 0, 'no row is refused while it is copied');
is(rows($here, 'SELECT count(*) FROM synchro.copying'), '0', 'the copy is done');
$bench->finish;
is($bench->result(0), 0, 'the clients have done their work') or diag($err);
sync($here, 'there');
is(rows($here, 'SELECT count(*) FROM synchro.failures'), '0', 'nothing is refused after it');
same($here, $there, $REAL{contents}, 'both hold the same');
equal_for_verify($here, 'verify() finds nothing');
foreach my $table (sort keys %ids)
{
	like(rows($there, "SELECT string_agg(id::text, ',' ORDER BY id) FROM shop.$table"), qr/^\Q$ids{$table}\E/, "rows of $table that were there are the same rows");
}
isnt(rows($here, q{SELECT string_agg(id || sku, ',' ORDER BY id) FROM shop.product}), rows($there, q{SELECT string_agg(id || sku, ',' ORDER BY id) FROM shop.product}), 'under other ids');

#
# once more: nothing is written
#
my $states = 'SELECT ' . join ' || ', map { "(SELECT coalesce(md5(string_agg(t.xmin::text || t.ctid::text, ',' ORDER BY t.ctid)), '') FROM shop.$_ t)" } split /\n/,
  rows($here, q{SELECT relname FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r' ORDER BY 1});
my $before = rows($there, $states);
$here->safe_psql('postgres', q{SELECT synchro.copy_table('there', relation) FROM synchro.tables});
my $result = sync($here, 'there');
is("$result->{inserted} $result->{updated} $result->{deleted} $result->{failed}", '0 0 0 0', 'a second copy changes nothing');
is(rows($there, $states), $before, 'and writes nothing');

#
# what was spoilt there, in all kinds of tables, and rows that are there only, with rows that refer to them
#
$there->safe_psql('postgres', <<'SQL');
SET search_path = shop;
INSERT INTO country (code, name) VALUES ('extra', 'extra');
INSERT INTO brand (country_id, name) SELECT id, 'extra' FROM country WHERE code = 'extra';
INSERT INTO product (brand_id, sku) SELECT id, 'extra' FROM brand WHERE name IN ('extra', 'brand1');
INSERT INTO tag VALUES ('extra');
INSERT INTO product_tag SELECT id, 'extra' FROM product WHERE sku IN ('extra', 'sku9');
INSERT INTO price SELECT id, 'cur3', '2030-01-01', 1 FROM product WHERE sku IN ('extra', 'sku9');
INSERT INTO category (up_id, name) SELECT id, 'extra' FROM category WHERE name = 'leaf1';
INSERT INTO category (up_id, name) SELECT id, 'below extra' FROM category WHERE name = 'extra';
INSERT INTO product_category SELECT p.id, c.id FROM product p, category c WHERE p.sku = 'extra' AND c.name = 'below extra' ON CONFLICT DO NOTHING;
INSERT INTO employee (badge, manager_id, name) SELECT md5('extra')::uuid, id, 'extra' FROM employee WHERE name = 'employee 9';
UPDATE employee SET manager_id = (SELECT id FROM employee WHERE name = 'extra') WHERE name = 'employee 11';
INSERT INTO customer (email) VALUES ('extra@example.com');
INSERT INTO address (customer_id, kind) SELECT id, 'home' FROM customer WHERE email LIKE 'extra%';
UPDATE customer SET main_address = (SELECT a.id FROM address a WHERE a.customer_id = customer.id) WHERE email LIKE 'extra%';
INSERT INTO orders (number, customer_id, seller_id) SELECT 'extra', u.id, e.id FROM customer u, employee e WHERE email LIKE 'extra%' AND e.name = 'extra';
INSERT INTO order_line SELECT o.id, 1, p.id, 1 FROM orders o, product p JOIN brand b ON b.id = brand_id WHERE number = 'extra' AND b.name = 'extra';
INSERT INTO shipment (order_id, n) SELECT id, 9 FROM orders WHERE number IN ('extra', 'o9');
INSERT INTO shipment_line SELECT s.id, l.order_id, l.line, 1 FROM shipment s JOIN order_line l USING (order_id) WHERE s.n = 9;
DELETE FROM orders WHERE number IN ('o20', 'o21');
UPDATE product SET weight = 99 WHERE sku = 'sku7';
UPDATE orders SET customer_id = (SELECT id FROM customer WHERE email LIKE 'extra%'), ship_to = NULL WHERE number = 'o30';
DELETE FROM stock WHERE quantity % 2 = 0;
SQL
$here->safe_psql('postgres', q{SELECT synchro.copy_table('there', relation, delete_extra => mode <> 'reference') FROM synchro.tables});
$result = sync($here, 'there');
is($result->{failed}, 0, 'a copy that deletes what is too much');
same($here, $there, $REAL{contents}, 'both hold the same again');
equal_for_verify($here, 'verify() finds nothing again');

$_->stop('fast') foreach $here, $there;
done_testing();
