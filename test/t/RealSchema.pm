
=pod

=head1 NAME

RealSchema - a schema of 21 tables as an application has it, loaded on two servers under other ids

=head1 SYNOPSIS

  use RealSchema;

  my ($here, $there) = real_nodes();       # both run synchro
  my ($here, $there) = real_pair();        # the remote does not
  $here->safe_psql('postgres', $REAL{more});
  sync($here, 'there');
  same($here, $there, $REAL{contents}, 'all is there');

Trees of several kinds, many-to-many tables, composite keys that refer to composite keys, names that go through five
tables, a circle, and tables without any name.

=cut

package RealSchema;

use strict;
use warnings;

use Exporter 'import';
use Nodes;
use SynchroTest;
use Test::More;

our @EXPORT = qw(
  %REAL
  equal_for_verify
  load_real
  real_nodes
  real_pair
);

=head1 FUNCTIONS

=head2 %REAL

SQL. C<tables> makes the schema shop. C<common> is loaded on both sides. C<more> are rows that one side has alone, in all
kinds of tables. C<changes> is what an application does in a day: names of parents, trees, pairs, deletes. C<watch> watches
all. C<contents> reads all rows of all tables, each by the names of what it refers to, without a line of synchro's: two
sides that return the same hold the same.

=cut

our %REAL;

$REAL{tables} = <<'SQL';
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

# ORDER_BY stands for an order, which is another one on the other side: so ids are, too.
$REAL{common} = <<'SQL';
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

$REAL{more} = <<'SQL';
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

$REAL{changes} = <<'SQL';
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

$REAL{watch} = <<'SQL';
SET client_min_messages = warning;
SET search_path = shop;
SELECT synchro.add_table('country', '{code}'), synchro.add_table('category', '{up_id,name}'), synchro.add_table('brand', '{name}'), synchro.add_table('product', '{brand_id,sku}', skip => '{clicks}'),
	synchro.add_table('warehouse', '{country_id,code}'), synchro.add_table('shelf', '{warehouse_id,place}'), synchro.add_table('employee', '{badge}'), synchro.add_table('customer', '{email}'),
	synchro.add_table('address', '{customer_id,kind}'), synchro.add_table('orders', '{number}'), synchro.add_table('shipment', '{order_id,n}');
SELECT synchro.add_schema('shop');
SQL

$REAL{contents} = <<'SQL';
WITH RECURSIVE
	category AS (SELECT id, name AS path FROM shop.category WHERE up_id IS NULL
		UNION ALL SELECT c.id, concat_ws('/', p.path, c.name) FROM shop.category c JOIN category p ON p.id = c.up_id),
	product AS (SELECT p.id, concat_ws('/', b.name, sku) AS name FROM shop.product p JOIN shop.brand b ON b.id = brand_id),
	shelf AS (SELECT s.id, concat_ws('/', c.code, w.code, place) AS name FROM shop.shelf s JOIN shop.warehouse w ON w.id = warehouse_id JOIN shop.country c ON c.id = country_id),
	address AS (SELECT a.id, concat_ws('/', email, kind) AS name FROM shop.address a JOIN shop.customer u ON u.id = customer_id),
	shipment AS (SELECT s.id, concat_ws('/', number, n) AS name FROM shop.shipment s JOIN shop.orders o ON o.id = order_id),
	review AS (SELECT r.id, concat_ws('/', p.name, email, words) AS path FROM shop.review r LEFT JOIN product p ON p.id = product_id LEFT JOIN shop.customer u ON u.id = customer_id WHERE answers IS NULL
		UNION ALL SELECT r.id, concat_ws('/', q.path, p.name, email, words) FROM shop.review r JOIN review q ON q.id = answers LEFT JOIN product p ON p.id = product_id LEFT JOIN shop.customer u ON u.id = customer_id)
SELECT relation, x FROM (
	SELECT 'country' AS relation, row(code, name)::text AS x FROM shop.country
	UNION ALL SELECT 'currency', row(code, rate)::text FROM shop.currency
	UNION ALL SELECT 'category', path FROM category
	UNION ALL SELECT 'brand', row(b.name, c.code)::text FROM shop.brand b LEFT JOIN shop.country c ON c.id = country_id
	UNION ALL SELECT 'product', row(n.name, details, weight, label)::text FROM shop.product p JOIN product n USING (id)
	UNION ALL SELECT 'product_category', row(p.name, c.path)::text FROM shop.product_category x JOIN product p ON p.id = product_id JOIN category c ON c.id = category_id
	UNION ALL SELECT 'tag', name FROM shop.tag
	UNION ALL SELECT 'product_tag', row(p.name, tag)::text FROM shop.product_tag x JOIN product p ON p.id = product_id
	UNION ALL SELECT 'price', row(p.name, currency, since, amount)::text FROM shop.price x JOIN product p ON p.id = product_id
	UNION ALL SELECT 'warehouse', row(c.code, w.code)::text FROM shop.warehouse w JOIN shop.country c ON c.id = country_id
	UNION ALL SELECT 'shelf', name FROM shelf
	UNION ALL SELECT 'stock', row(s.name, p.name, quantity)::text FROM shop.stock x JOIN shelf s ON s.id = shelf_id JOIN product p ON p.id = product_id
	UNION ALL SELECT 'employee', row(e.badge, m.badge, e.name)::text FROM shop.employee e LEFT JOIN shop.employee m ON m.id = e.manager_id
	UNION ALL SELECT 'customer', row(email, a.name)::text FROM shop.customer u LEFT JOIN address a ON a.id = main_address
	UNION ALL SELECT 'address', row(n.name, c.code, street)::text FROM shop.address a JOIN address n USING (id) LEFT JOIN shop.country c ON c.id = country_id
	UNION ALL SELECT 'orders', row(number, email, a.name, badge, extract(epoch FROM at))::text FROM shop.orders o JOIN shop.customer u ON u.id = customer_id LEFT JOIN address a ON a.id = ship_to LEFT JOIN shop.employee e ON e.id = seller_id
	UNION ALL SELECT 'order_line', row(number, line, p.name, quantity)::text FROM shop.order_line x JOIN shop.orders o ON o.id = order_id JOIN product p ON p.id = product_id
	UNION ALL SELECT 'shipment', row(n.name, f.name)::text FROM shop.shipment s JOIN shipment n USING (id) LEFT JOIN shelf f ON f.id = shelf_id
	UNION ALL SELECT 'shipment_line', row(s.name, number, line, quantity)::text FROM shop.shipment_line x JOIN shipment s ON s.id = shipment_id JOIN shop.orders o ON o.id = x.order_id
	UNION ALL SELECT 'payment', row(number, currency, amount)::text FROM shop.payment x LEFT JOIN shop.orders o ON o.id = order_id
	UNION ALL SELECT 'review', path FROM review
	UNION ALL ALL_COUNTS) contents
ORDER BY relation, x COLLATE "C"
SQL

# and how many, for what is left out by a join
my @names = $REAL{tables} =~ /^CREATE TABLE (\w+)/mg;
my $counts = join ' UNION ALL ', map { "SELECT 'all of $_', count(*)::text FROM shop.$_" } @names;
$REAL{contents} =~ s/ALL_COUNTS/$counts/;

=head2 load_real($node, $side)

Makes the schema and loads C<common>, under ids that depend on the side, 0 or 1.

=cut

sub load_real
{
	my ($node, $side) = @_;
	my $order = $side ? '1 DESC' : '1';
	my $first = $side ? 5000 : 10;

	$node->safe_psql('postgres', $REAL{tables});
	$node->safe_psql('postgres', "SELECT setval(c.oid::regclass, $first) FROM pg_class c WHERE relkind = 'S' AND relnamespace = 'shop'::regnamespace");
	$node->safe_psql('postgres', $REAL{common} =~ s/ORDER_BY/$order/gr);
	return;
}

=head2 real_nodes(%options)

Two servers with the extension, here and there, loaded and with all tables watched; the first pushes to the second, which
it calls there. Options as for synchro_node(), and

  both => 1: the second pushes to the first, too

=cut

sub real_nodes
{
	my (%options) = @_;
	my $both = delete $options{both};
	my @nodes = nodes(\%options, 'here', 'there');

	foreach my $side (0, 1)
	{
		load_real($nodes[$side], $side);
		$nodes[$side]->safe_psql('postgres', $REAL{watch});
	}
	$both ? join_nodes(@nodes) : link_nodes(@nodes);
	grant_dml($_, schemas => ['shop']) foreach $both ? @nodes : $nodes[1];
	return @nodes;
}

=head2 real_pair(%options)

The same, with a remote that does not run synchro. Options as for synchro_node() for the first; conf is for both.

=cut

sub real_pair
{
	my (%options) = @_;
	my $here = synchro_node('here', %options);
	my $there = synchro_node('there', conf => $options{conf} || '');

	load_real($here, 0);
	load_real($there, 1);
	connect_remote($here, $there, name => 'there', schemas => ['shop']);
	$here->safe_psql('postgres', $REAL{watch});
	return ($here, $there);
}

=head2 equal_for_verify($here, $testname)

verify() finds no difference of the remote called there.

=cut

sub equal_for_verify
{
	my ($here, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	# what is under way is waited for, however slow the machine is
	return is(rows($here, q{SET synchro.verify_wait = '10min'; SELECT relation, key, difference, columns FROM synchro.verify('there') ORDER BY relation::text, key}), '', $testname);
}

1;
