# WHY: small tables prove small things. Real schemas have trees of several kinds, many-to-many tables, composite keys that refer to
# composite keys, names that go through five tables, and tables without any name; and both databases have most of the data
# already, each under ids of its own. All of it at once must end the same on both sides, and verify() and manifest() must say so.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($here, $there) = nodes({}, 'here', 'there');

my $tables = <<'SQL';
CREATE SCHEMA shop;
SET search_path = shop;
CREATE TABLE country (id serial PRIMARY KEY, code text UNIQUE NOT NULL, name text);
CREATE TABLE currency (code text PRIMARY KEY, rate numeric);
CREATE TABLE category (id serial PRIMARY KEY, up_id int REFERENCES category, name text NOT NULL, UNIQUE NULLS NOT DISTINCT (up_id, name));
CREATE TABLE brand (id serial PRIMARY KEY, country_id int REFERENCES country, name text UNIQUE NOT NULL);
CREATE TABLE product (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, brand_id int NOT NULL REFERENCES brand, sku text NOT NULL, details jsonb, weight numeric(8,3),
	label text GENERATED ALWAYS AS (upper(sku)) STORED, clicks int DEFAULT 0, UNIQUE (brand_id, sku));
CREATE TABLE product_category (product_id bigint REFERENCES product ON DELETE CASCADE, category_id int REFERENCES category, PRIMARY KEY (product_id, category_id));
CREATE TABLE tag (name text PRIMARY KEY);
CREATE TABLE product_tag (product_id bigint REFERENCES product ON DELETE CASCADE, tag text REFERENCES tag ON UPDATE CASCADE, PRIMARY KEY (product_id, tag));
CREATE TABLE price (product_id bigint REFERENCES product ON DELETE CASCADE, currency text REFERENCES currency, since date, amount numeric NOT NULL, PRIMARY KEY (product_id, currency, since));
CREATE TABLE warehouse (id serial PRIMARY KEY, country_id int NOT NULL REFERENCES country, code text NOT NULL, UNIQUE (country_id, code));
CREATE TABLE shelf (id serial PRIMARY KEY, warehouse_id int NOT NULL REFERENCES warehouse, place text NOT NULL, UNIQUE (warehouse_id, place));
CREATE TABLE stock (shelf_id int REFERENCES shelf, product_id bigint REFERENCES product ON DELETE CASCADE, quantity int, PRIMARY KEY (shelf_id, product_id));
CREATE TABLE employee (id serial PRIMARY KEY, badge uuid UNIQUE NOT NULL, manager_id int REFERENCES employee, name text);
CREATE TABLE customer (id serial PRIMARY KEY, email text UNIQUE NOT NULL, main_address int);
CREATE TABLE address (id serial PRIMARY KEY, customer_id int NOT NULL REFERENCES customer ON DELETE CASCADE, kind text NOT NULL, country_id int REFERENCES country, street text, UNIQUE (customer_id, kind));
ALTER TABLE customer ADD FOREIGN KEY (main_address) REFERENCES address ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE orders (id serial PRIMARY KEY, number text UNIQUE NOT NULL, customer_id int NOT NULL REFERENCES customer, ship_to int REFERENCES address, seller_id int REFERENCES employee, at timestamptz);
CREATE TABLE order_line (order_id int REFERENCES orders ON DELETE CASCADE, line int, product_id bigint NOT NULL REFERENCES product, quantity int, PRIMARY KEY (order_id, line));
CREATE TABLE shipment (id serial PRIMARY KEY, order_id int NOT NULL REFERENCES orders ON DELETE CASCADE, n int NOT NULL, shelf_id int REFERENCES shelf, UNIQUE (order_id, n));
CREATE TABLE shipment_line (shipment_id int REFERENCES shipment ON DELETE CASCADE, order_id int, line int, quantity int, PRIMARY KEY (shipment_id, order_id, line),
	FOREIGN KEY (order_id, line) REFERENCES order_line ON DELETE CASCADE);
CREATE TABLE payment (id serial PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE, currency text REFERENCES currency, amount numeric);
CREATE TABLE review (id serial PRIMARY KEY, product_id bigint REFERENCES product ON DELETE CASCADE, customer_id int REFERENCES customer, answers int REFERENCES review, words text);
SQL

# Both have this, in another order and so under other ids; $order is a column's sign.
my $common = <<'SQL';
SET search_path = shop;
INSERT INTO country (code, name) SELECT 'c' || i, 'country ' || i FROM generate_series(1, 12) i ORDER BY ORDER_BY;
INSERT INTO currency SELECT 'cur' || i, i / 4.0 FROM generate_series(1, 3) i;
INSERT INTO category (name) SELECT 'root' || i FROM generate_series(1, 3) i ORDER BY ORDER_BY;
INSERT INTO category (up_id, name) SELECT c.id, 'middle' || i FROM category c, generate_series(1, 3) i ORDER BY ORDER_BY, c.name;
INSERT INTO category (up_id, name) SELECT c.id, 'leaf' || i FROM category c, generate_series(1, 2) i WHERE up_id IS NOT NULL ORDER BY ORDER_BY, c.id;
INSERT INTO brand (country_id, name) SELECT c.id, 'brand' || i FROM generate_series(1, 8) i JOIN country c ON c.code = 'c' || i ORDER BY ORDER_BY;
INSERT INTO product (brand_id, sku, details, weight) SELECT b.id, 'sku' || i, jsonb_build_object('size', i), i / 3.0 FROM brand b, generate_series(1, 15) i ORDER BY ORDER_BY, b.name;
INSERT INTO product_category SELECT p.id, c.id FROM product p JOIN brand b ON b.id = brand_id, category c JOIN category m ON m.id = c.up_id WHERE c.name = 'leaf1' AND m.name = 'middle1' AND b.name = 'brand1';
INSERT INTO tag VALUES ('new'), ('cheap');
INSERT INTO product_tag SELECT id, 'new' FROM product WHERE sku IN ('sku1', 'sku2');
INSERT INTO price SELECT id, 'cur1', '2024-01-01', weight * 2 FROM product;
INSERT INTO warehouse (country_id, code) SELECT id, 'w' FROM country ORDER BY id;
INSERT INTO shelf (warehouse_id, place) SELECT w.id, 'p' || i FROM warehouse w, generate_series(1, 4) i ORDER BY ORDER_BY;
INSERT INTO stock SELECT s.id, p.id, 5 FROM shelf s JOIN warehouse w ON w.id = warehouse_id JOIN country c ON c.id = w.country_id, product p JOIN brand b ON b.id = brand_id
	WHERE s.place = 'p1' AND c.code IN ('c1', 'c2') AND b.name = 'brand2';
INSERT INTO employee (badge, name) SELECT md5('e' || i)::uuid, 'employee ' || i FROM generate_series(1, 20) i ORDER BY ORDER_BY;
UPDATE employee e SET manager_id = m.id FROM generate_series(2, 20) i JOIN employee m ON m.badge = md5('e' || i / 2)::uuid WHERE e.badge = md5('e' || i)::uuid;
INSERT INTO customer (email) SELECT 'u' || i || '@example.com' FROM generate_series(1, 60) i ORDER BY ORDER_BY;
INSERT INTO address (customer_id, kind, country_id, street) SELECT u.id, kind, c.id, 'street of ' || email FROM customer u, unnest('{home,work}'::text[]) kind, country c WHERE c.code = 'c3' ORDER BY u.id;
UPDATE customer u SET main_address = a.id FROM address a WHERE a.customer_id = u.id AND kind = 'home';
INSERT INTO orders (number, customer_id, ship_to, seller_id, at) SELECT 'o' || i, u.id, a.id, e.id, '2024-01-01 00:00+00'::timestamptz + i * interval '1 h'
	FROM generate_series(1, 60) i JOIN customer u ON u.email = 'u' || i || '@example.com' JOIN address a ON a.customer_id = u.id AND kind = 'work' JOIN employee e ON e.name = 'employee ' || i % 20 + 1 ORDER BY ORDER_BY;
INSERT INTO order_line SELECT o.id, l, p.id, l FROM orders o, generate_series(1, 2) l, product p JOIN brand b ON b.id = brand_id WHERE sku = 'sku' || l AND b.name = 'brand3';
SQL

# Only here.
my $more = <<'SQL';
SET search_path = shop;
INSERT INTO shipment (order_id, n, shelf_id) SELECT o.id, n, s.id FROM orders o, generate_series(1, 2) n, shelf s JOIN warehouse w ON w.id = warehouse_id JOIN country c ON c.id = country_id WHERE place = 'p' || n AND c.code = 'c5';
INSERT INTO shipment_line SELECT s.id, l.order_id, l.line, 1 FROM shipment s JOIN order_line l USING (order_id) WHERE s.n = l.line;
INSERT INTO payment (order_id, currency, amount) SELECT id, 'cur2', id FROM orders;
INSERT INTO review (product_id, customer_id, words) SELECT p.id, u.id, 'good' FROM product p, customer u WHERE sku = 'sku3' AND email LIKE 'u1%';
INSERT INTO review (product_id, answers, words) SELECT product_id, id, 'thanks' FROM review;
INSERT INTO review (product_id, answers, words) SELECT product_id, id, 'welcome' FROM review WHERE words = 'thanks';
INSERT INTO category (up_id, name) SELECT id, 'deep' FROM category WHERE name = 'leaf2';
INSERT INTO price SELECT id, 'cur2', '2024-02-01', weight FROM product WHERE sku = 'sku1';
SQL

# What an application does in a day: names of parents, trees, pairs, deletes.
my $changes = <<'SQL';
SET search_path = shop;
UPDATE country SET code = 'austria' WHERE code = 'c1';
UPDATE brand SET name = 'renamed' WHERE name = 'brand3';
UPDATE category SET name = 'moved', up_id = (SELECT id FROM category WHERE name = 'root3') WHERE name = 'middle1' AND up_id = (SELECT id FROM category WHERE name = 'root1');
UPDATE tag SET name = 'fresh' WHERE name = 'new';
INSERT INTO product_tag SELECT id, 'cheap' FROM product WHERE sku = 'sku5';
DELETE FROM product_category WHERE product_id IN (SELECT id FROM product WHERE sku = 'sku2');
UPDATE employee SET manager_id = NULL WHERE name = 'employee 7';
DELETE FROM orders WHERE number IN ('o1', 'o2', 'o3');
DELETE FROM product p USING brand b WHERE b.id = brand_id AND b.name = 'brand8';
UPDATE address SET kind = 'office' WHERE kind = 'work' AND customer_id IN (SELECT id FROM customer WHERE email LIKE 'u2%');
UPDATE order_line SET quantity = quantity + 1 WHERE line = 2;
UPDATE review SET words = 'very good' WHERE words = 'good';
DELETE FROM review WHERE words = 'welcome' AND id % 2 = 0;
UPDATE stock SET quantity = 0;
UPDATE product SET clicks = clicks + 1;
SQL

my $watch = <<'SQL';
SET client_min_messages = warning;
SET search_path = shop;
SELECT synchro.add_table('country', '{code}'), synchro.add_table('category', '{up_id,name}'), synchro.add_table('brand', '{name}'), synchro.add_table('product', '{brand_id,sku}', skip => '{clicks}'),
	synchro.add_table('warehouse', '{country_id,code}'), synchro.add_table('shelf', '{warehouse_id,place}'), synchro.add_table('employee', '{badge}'), synchro.add_table('customer', '{email}'),
	synchro.add_table('address', '{customer_id,kind}'), synchro.add_table('orders', '{number}'), synchro.add_table('shipment', '{order_id,n}');
SELECT synchro.add_schema('shop');
SQL

foreach my $node ($here, $there)
{
	my $order = $node == $here ? '1' : '1 DESC';
	my $load = $common =~ s/ORDER_BY/$order/gr;

	$node->safe_psql('postgres', $tables);
	$node->safe_psql('postgres', q{SELECT setval(c.oid::regclass, CASE WHEN current_setting('cluster_name') = 'here' THEN 10 ELSE 5000 END) FROM pg_class c WHERE relkind = 'S' AND relnamespace = 'shop'::regnamespace});
	$node->safe_psql('postgres', $load);
	$node->safe_psql('postgres', $watch);
}
is(rows($here, q{SELECT count(*), string_agg(DISTINCT mode, ', ' ORDER BY mode) FROM synchro.tables}), '21|natural key, primary key, reference', '21 tables are watched, in all modes');
link_nodes($here, $there);
grant_dml($there, schemas => ['shop']);

# relation => rows and fingerprint
my $manifest = q{SELECT relation, rows, fingerprint FROM synchro.manifest('shop') ORDER BY relation::text};
my $verify = q{SET synchro.verify_wait = '10min'; SELECT relation, key, difference, columns FROM synchro.verify('there') ORDER BY relation::text, key};

is(rows($here, $verify), '', 'what both were loaded with is equal for verify()');
same($here, $there, $manifest, 'and for manifest()');
isnt(rows($here, q{SELECT string_agg(id || sku, ',' ORDER BY id) FROM shop.product}), rows($there, q{SELECT string_agg(id || sku, ',' ORDER BY id) FROM shop.product}), 'under other ids');

$here->safe_psql('postgres', $more);
is(sync($here, 'there')->{failed}, 0, 'what is only here is pushed');
is(rows($here, $verify), '', 'verify() finds nothing');
same($here, $there, $manifest, 'manifest() is the same');

$here->safe_psql('postgres', $changes);
isnt(rows($here, $manifest), rows($there, $manifest), 'changes make another manifest');
is(sync($here, 'there')->{failed}, 0, 'changes are pushed');
is(rows($here, $verify), '', 'verify() finds nothing');
same($here, $there, $manifest, 'manifest() is the same again');
is(rows($there, 'SELECT count(*) FROM shop.product WHERE clicks <> 0'), '0', 'what is skipped is not there');

# and if something differs, deep down, both say so
$there->safe_psql('postgres', q{SET synchro.log_changes = off; UPDATE shop.shipment_line SET quantity = 9 WHERE (shipment_id, line) = (SELECT min(shipment_id), min(line) FROM shop.shipment_line)});
like(rows($here, $verify), qr/^shop\.shipment_line\|o\d+, \d, o\d+, \d\|different\|\{quantity\}$/, 'a quantity that differs is found, by its whole name');
my %manifests = map { my $node = $_; $node->name => { map { split /\|/, $_, 2 } split /\n/, rows($node, $manifest) } } $here, $there;
is(join(' ', grep { $manifests{here}{$_} ne $manifests{there}{$_} } sort keys %{ $manifests{here} }), 'shop.shipment_line', 'in the manifest, too');
is(rows($here, q{SELECT synchro.requeue('there')}), '1', 'it is queued again');
sync($here, 'there');
same($here, $there, $manifest, 'and put right');

$_->stop('fast') foreach $here, $there;
done_testing();
