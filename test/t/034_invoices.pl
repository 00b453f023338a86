# Thousands of rows of several tables, under other ids on the other side, are equal afterwards.
#
# WHY: every mechanism at once and in numbers: many batches, parents found and made, pairs of references, bulk updates and
# deletes by one statement. The comparison knows nothing of synchro: it names each row by its natural key and lists all.

use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE customers (id serial PRIMARY KEY, email text NOT NULL UNIQUE, name text, parent_id integer REFERENCES customers);
CREATE TABLE tags (id serial PRIMARY KEY, label text NOT NULL UNIQUE);
CREATE TABLE invoices (id serial PRIMARY KEY, number text NOT NULL UNIQUE, customer_id integer NOT NULL REFERENCES customers,
	total numeric(12,2), paid boolean NOT NULL DEFAULT false, printed integer NOT NULL DEFAULT 0);
CREATE TABLE lines (invoice_id integer REFERENCES invoices ON DELETE CASCADE, position integer, what text, price numeric(10,2), PRIMARY KEY (invoice_id, position));
CREATE TABLE invoice_tags (invoice_id integer REFERENCES invoices ON DELETE CASCADE, tag_id integer REFERENCES tags ON DELETE CASCADE, PRIMARY KEY (invoice_id, tag_id));
CREATE INDEX ON invoices (customer_id);
CREATE INDEX ON invoice_tags (tag_id);
CREATE INDEX ON customers (parent_id);
SQL

# The remote knows half of the customers and some tags, in another order, and has handed out other ids.
$remote->safe_psql('postgres', <<'SQL');
ALTER SEQUENCE customers_id_seq RESTART 70001;
ALTER SEQUENCE tags_id_seq RESTART 501;
ALTER SEQUENCE invoices_id_seq RESTART 900001;
INSERT INTO customers (email, name) SELECT 'c' || i || '@example.org', 'as known there' FROM generate_series(5000, 2, -2) i;
INSERT INTO tags (label) VALUES ('tag 7'), ('tag 3');
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('customers', '{email}');
SELECT synchro.add_table('tags', '{label}');
SELECT synchro.add_table('invoices', '{number}', skip => '{printed}');
SELECT synchro.add_table('lines');
SELECT synchro.add_table('invoice_tags');
INSERT INTO customers (email, name) SELECT 'c' || i || '@example.org', 'Customer ' || i FROM generate_series(1, 5000) i;
UPDATE customers SET parent_id = 1 + (id * 7919) % 5000 WHERE id % 3 = 0;
INSERT INTO tags (label) SELECT 'tag ' || i FROM generate_series(1, 10) i;
INSERT INTO invoices (number, customer_id, total, printed) SELECT 'I-' || i, 1 + i % 5000, i / 7.0, 9 FROM generate_series(1, 50000) i;
INSERT INTO invoice_tags SELECT i, 1 + (i + t) % 10 FROM generate_series(1, 50000) i, generate_series(1, 1 + i % 3) t;
INSERT INTO lines SELECT i, p, 'line ' || p, i / 100.0 + p FROM generate_series(1, 50000, 5) i, generate_series(1, 3) p;
SQL

# Every row by natural keys alone, each table as one sorted text.
my $contents = <<'SQL';
SELECT 'customer', c.email, c.name, p.email FROM customers c LEFT JOIN customers p ON p.id = c.parent_id
UNION ALL SELECT 'tag', label, NULL, NULL FROM tags
UNION ALL SELECT 'invoice', number, total::text || paid::text, email FROM invoices JOIN customers c ON c.id = customer_id
UNION ALL SELECT 'line', number, position::text, what || price::text FROM lines JOIN invoices i ON i.id = invoice_id
UNION ALL SELECT 'invoice_tag', number, label, NULL FROM invoice_tags JOIN invoices i ON i.id = invoice_id JOIN tags t ON t.id = tag_id
ORDER BY 1, 2, 3, 4
SQL

my $result = sync($local, 'office');
is($result->{inserted}, 5000 - 2500 + 8 + 50000 + rows($local, 'SELECT (SELECT count(*) FROM invoice_tags) + (SELECT count(*) FROM lines)'),
	'everything that was not there is inserted');
is($result->{updated}, 2500, 'the customers that were there are brought up to date');
same($local, $remote, $contents, 'equal by natural keys');
is(rows($remote, 'SELECT count(*) FROM customers WHERE id BETWEEN 70001 AND 72500 AND substring(email FROM 2 FOR position(\'@\' IN email) - 2)::int % 2 = 0'), 2500,
	'they have kept their ids');
is(rows($remote, 'SELECT DISTINCT printed FROM invoices'), 0, 'the skipped column has its default');
is(sync($local, 'office')->{message}, 'No changes since last synchronization.', 'then nothing is left to be pushed');

# bulk changes, each a statement or a transaction of several
$remote->safe_psql('postgres', 'UPDATE invoices SET printed = 3');
$local->safe_psql('postgres', <<'SQL');
UPDATE invoices SET paid = true, total = total + 1 WHERE id % 2 = 0;
UPDATE customers SET email = 'new-' || email WHERE id % 5 = 0;
UPDATE customers SET parent_id = CASE WHEN parent_id IS NULL THEN 1 + (id * 31) % 5000 END;
UPDATE invoices SET number = 'J-' || id WHERE id % 11 = 0;
UPDATE invoices SET customer_id = 5001 - customer_id WHERE id % 13 = 0;
BEGIN;
DELETE FROM invoices WHERE id % 17 = 0;
UPDATE tags SET label = 'old ' || label WHERE id < 4;
INSERT INTO tags (label) VALUES ('tag 1'), ('tag 11');
DELETE FROM tags WHERE label = 'tag 5';
COMMIT;
DELETE FROM invoice_tags WHERE tag_id = 2;
INSERT INTO invoice_tags SELECT id, (SELECT id FROM tags WHERE label = 'tag 11') FROM invoices WHERE id % 10 = 1;
UPDATE lines SET price = price * 2 WHERE position = 2;
DELETE FROM lines WHERE position = 3;
INSERT INTO invoices (number, customer_id, total) SELECT 'K-' || i, 1 + i % 5000, i FROM generate_series(1, 1000) i;
BEGIN;
CREATE TEMP TABLE gone AS SELECT id FROM customers WHERE id % 50 = 7;
UPDATE customers SET parent_id = NULL WHERE parent_id IN (SELECT id FROM gone);
DELETE FROM invoices WHERE customer_id IN (SELECT id FROM gone);
DELETE FROM customers WHERE id IN (SELECT id FROM gone);
COMMIT;
SQL
$result = sync($local, 'office');
same($local, $remote, $contents, 'equal after bulk changes and deletes');
is($result->{inserted}, 2 + 1000 - 20 + rows($local, q{SELECT count(*) FROM invoice_tags JOIN tags ON tag_id = tags.id WHERE label = 'tag 11'}),
	'only what is new was inserted');
is(rows($remote, q{SELECT DISTINCT printed FROM invoices WHERE number NOT LIKE 'K-%'}), 3, 'the skipped column was left alone');
is(rows($remote, q{SELECT count(*) FROM customers WHERE email LIKE 'new-%' AND id BETWEEN 70001 AND 72500}),
	rows($local, q{SELECT count(*) FROM customers WHERE email LIKE 'new-%' AND substring(email FROM 6 FOR position('@' IN email) - 6)::int % 2 = 0}),
	'renamed customers have kept their ids');

# rows of one side only would have shown above; now all go, parents and children in whatever order
$local->safe_psql('postgres', <<'SQL');
TRUNCATE customers CASCADE;
INSERT INTO customers (email, name) VALUES ('c1@example.org', 'the first again');
SQL
$result = sync($local, 'office');
same($local, $remote, $contents, 'equal after TRUNCATE');
is(rows($remote, 'SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM invoices), (SELECT count(*) FROM lines)'), '1|0|0', 'nothing else is left');

done_testing();
