# WHY: tables are divided when they have grown, long after they were watched: what was a table becomes a partition, and that of
# something that nobody has told synchro of; or whole schemas take each other's names. Rows are then still those that they were,
# and must be found, translated and named as before, by a worker too that has known the tables for long, and no table may be
# taken for another one, or rows end up under the parents of others.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1);
my $remote = synchro_node('remote');
my $healed = 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes';

both($local, $remote, <<'SQL');
CREATE SCHEMA shop;
CREATE TABLE customers (id serial PRIMARY KEY, email text NOT NULL UNIQUE);
CREATE TABLE invoices (number text PRIMARY KEY, customer_id int REFERENCES customers);
CREATE INDEX ON invoices (customer_id);
CREATE TABLE town (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE street (id serial PRIMARY KEY, town_id int NOT NULL REFERENCES town, name text NOT NULL, n int NOT NULL DEFAULT 0, UNIQUE (town_id, name));
CREATE TABLE r (code text PRIMARY KEY, n int) PARTITION BY LIST (code);
CREATE TABLE r1 PARTITION OF r FOR VALUES IN ('a', 'b', 'c');
CREATE TABLE shop.items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
SQL
$remote->safe_psql('postgres', q{INSERT INTO customers (email) VALUES ('own 1'), ('own 2'), ('own 3'); SELECT setval('customers_id_seq', 100), setval('town_id_seq', 100), setval('street_id_seq', 200)});
connect_remote($local, $remote, schemas => [ 'public', 'shop' ]);
here(<<'SQL');
SELECT synchro.register_natural_key('town', '{name}');
SELECT synchro.add_table('customers', '{email}'), synchro.add_table('invoices'), synchro.add_table('street', '{town_id, name}'), synchro.add_table('r'), synchro.add_table('shop.items', '{name}');
INSERT INTO customers (email) VALUES ('ann'), ('bob'), ('cid');
INSERT INTO invoices VALUES ('1', 1);
INSERT INTO r VALUES ('a', 1);
INSERT INTO shop.items (name, n) VALUES ('x', 1), ('y', 1);
SQL

my $invoices = q{SELECT number, email FROM invoices LEFT JOIN customers c ON c.id = customer_id ORDER BY number};
my $streets = q{SELECT t.name, s.name, s.n FROM street s JOIN town t ON t.id = town_id ORDER BY 1, 2};

sub here { return $local->safe_psql('postgres', "SET client_min_messages = error; $_[0]") }

sub arrives
{
	my ($query, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for($local, $healed, "$testname: all is pushed") or diag(rows($local, 'SELECT relation, sqlstate, message, detail FROM synchro.failures'));
	return same($local, $remote, $query, $testname);
}

# What is in the way, but for the harness's settings.
sub in_the_way { return rows($local, q{SELECT problem FROM synchro.check('office') WHERE severity <> 'info' AND problem !~ 'setting' ORDER BY 1}) }

# Only the log has the names that a town had together with its streets.
sub towns_are_followed
{
	my ($testname) = @_;

	here(q{INSERT INTO town (name) SELECT unnest('{A,B}'::text[]); INSERT INTO street (town_id, name) SELECT id, 'main' FROM town WHERE name IN ('A', 'B')});
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	arrives($streets, "$testname: streets");
	here(q{UPDATE town SET name = 'C' WHERE name = 'A'; UPDATE street SET n = n + 1});
	wait_for($local, $healed, "$testname: a town renamed");
	is(rows($remote, $streets), "A|main|1\nB|main|1", "$testname: it is the town that it was, which is not watched");
	here(q{BEGIN; DELETE FROM street; DELETE FROM town; COMMIT; INSERT INTO town (name) VALUES ('D'); INSERT INTO street (town_id, name) SELECT id, 'new' FROM town});
	arrives($streets, "$testname: towns deleted with their streets");
	here(q{BEGIN; DELETE FROM street; DELETE FROM town; COMMIT});
	wait_for($local, $healed, "$testname: none is left here");
	is(rows($remote, 'SELECT count(*) FROM street'), '0', "$testname: nor there");
	$remote->safe_psql('postgres', 'DELETE FROM town');
	return;
}

arrives($invoices, 'to begin with');
towns_are_followed('before');
my $known = in_the_way();

#
# schemas that take each other's names
#
here(q{CREATE SCHEMA shop_new; CREATE TABLE shop_new.items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int); INSERT INTO shop_new.items (name, n) VALUES ('x', -1), ('y', -1);
	BEGIN; ALTER SCHEMA shop RENAME TO shop_old; ALTER SCHEMA shop_new RENAME TO shop; COMMIT; UPDATE shop_old.items SET n = 2 WHERE name = 'x'; UPDATE shop.items SET n = -2});
wait_for($local, q{SELECT count(*) = 1 FROM synchro.failures WHERE relation = 'shop_old.items'::regclass AND key IS NULL AND sqlstate = '42P01'}, 'its schema renamed, the table stalls');
here(q{UPDATE shop_old.items SET n = 3 WHERE name = 'y'; UPDATE invoices SET customer_id = 1});
wait_arrival($remote, q{SELECT count(*) FROM invoices JOIN customers c ON c.id = customer_id WHERE email = 'ann'}, rows($local, 'SELECT count(*) FROM invoices'), 'others go on');
is(rows($remote, 'SELECT name, n FROM shop.items ORDER BY name'), "x|1\ny|1", 'nothing of the one that has its name now is pushed');
here('BEGIN; ALTER SCHEMA shop RENAME TO shop_new; ALTER SCHEMA shop_old RENAME TO shop; COMMIT; SELECT synchro.retry()');
arrives('SELECT name, n FROM shop.items ORDER BY name', 'renamed back, it heals');
is(rows($remote, 'SELECT name, n FROM shop.items ORDER BY name'), "x|2\ny|3", 'with its own rows');

#
# a watched table becomes a partition of something that is not registered
#
here(q{BEGIN; CREATE TABLE customers_all (id int NOT NULL, email text NOT NULL) PARTITION BY RANGE (id);
	ALTER TABLE customers_all ATTACH PARTITION customers FOR VALUES FROM (0) TO (100); COMMIT; INSERT INTO invoices VALUES ('2', 2)});
arrives($invoices, 'what refers to an attached table is translated');
here(q{UPDATE customers_all SET email = 'bill' WHERE id = 2; INSERT INTO customers_all VALUES (50, 'dora'); INSERT INTO invoices VALUES ('3', 50)});
arrives($invoices, 'what is written by way of the root, too');
is(rows($local, q{SET synchro.verify_wait = '1min'; SELECT relation, key FROM synchro.verify('office') WHERE relation::text <> 'customers'}), '', 'verify() finds each row with its parent');
is(rows($local, q{SET synchro.verify_wait = '1min'; SELECT string_agg(key || ' ' || difference, ', ' ORDER BY key) FROM synchro.verify('office', 'customers')}),
	'own 1 extra, own 2 extra, own 3 extra', 'and only the remote\'s own ones extra');
is(in_the_way(), $known, 'check() knows it for the table that is watched');

# its foreign key comes to be the root's, too
here(q{CREATE TABLE invoices_all (number text NOT NULL, customer_id int) PARTITION BY RANGE (number); CREATE INDEX ON invoices_all (customer_id); ALTER TABLE invoices_all ADD FOREIGN KEY (customer_id) REFERENCES customers;
	ALTER TABLE invoices_all ATTACH PARTITION invoices DEFAULT; INSERT INTO invoices VALUES ('4', 3); INSERT INTO invoices_all VALUES ('5', 1)});
arrives($invoices, 'a foreign key that is the root\'s, too, is translated');
is(in_the_way(), $known, 'and check() knows it');
{
	# what refers to nothing that is left there is refused, and not put below another one
	$remote->safe_psql('postgres', q{ALTER TABLE customers RENAME email TO mail});
	like(in_the_way(), qr/^on remote "office": table public\.customers has no column email$/m, 'check() looks at what the table refers to');
	$remote->safe_psql('postgres', q{ALTER TABLE customers RENAME mail TO email});
}
here(q{ALTER TABLE invoices_all DETACH PARTITION invoices; ALTER TABLE customers_all DETACH PARTITION customers; INSERT INTO invoices VALUES ('6', 2)});
arrives($invoices, 'so it is when they are tables by themselves again');

#
# one that is in a key only, and a tree of partitions
#
here(q{CREATE TABLE towns_all (id int NOT NULL, name text NOT NULL) PARTITION BY RANGE (id); ALTER TABLE towns_all ATTACH PARTITION town DEFAULT});
towns_are_followed('attached');
is(in_the_way(), $known, 'attached: check()');
here('ALTER TABLE towns_all DETACH PARTITION town');
towns_are_followed('detached');
is(in_the_way(), $known, 'detached: check()');

here(q{CREATE TABLE rr (code text NOT NULL, n int) PARTITION BY LIST (code); ALTER TABLE rr ATTACH PARTITION r FOR VALUES IN ('a', 'b', 'c');
	INSERT INTO r1 VALUES ('b', 1); INSERT INTO rr VALUES ('c', 1); UPDATE rr SET n = 2 WHERE code = 'a'});
arrives('SELECT * FROM r ORDER BY code', 'a partitioned table below another one');
is(in_the_way(), $known, 'a partitioned table below another one: check()');
here(q{UPDATE r SET n = 3; DELETE FROM r1 WHERE code = 'b'; ALTER TABLE rr DETACH PARTITION r; UPDATE r SET n = 4 WHERE code = 'c'});
arrives('SELECT * FROM r ORDER BY code', 'and by itself again');

#
# defaults that are the type's
#
both($local, $remote, q{CREATE SEQUENCE ids; CREATE DOMAIN serial_id AS int DEFAULT nextval('ids'); CREATE DOMAIN own_id AS uuid DEFAULT gen_random_uuid()});
both($local, $remote, 'CREATE TABLE numbered (id serial_id PRIMARY KEY, v text); CREATE TABLE tagged (id own_id PRIMARY KEY, tag text NOT NULL UNIQUE)');
here('CREATE TABLE counted (id serial_id PRIMARY KEY, v text)');
$remote->safe_psql('postgres', q{CREATE TABLE counted (id bigserial PRIMARY KEY, v text); INSERT INTO numbered (v) VALUES ('own'); INSERT INTO counted (v) VALUES ('own')});
here(q{SELECT synchro.add_table('numbered'), synchro.add_table('counted'), synchro.add_table('tagged', '{tag}', skip => '{id}');
	INSERT INTO counted (v) VALUES ('first'); SELECT setval('ids', 1, false); INSERT INTO numbered (v) VALUES ('first'); INSERT INTO tagged (tag) VALUES ('t')});
foreach my $table ('numbered', 'counted')
{
	is(rows($local, "SELECT mode FROM synchro.tables WHERE relation = '$table'::regclass"), 'reference', "$table: ids that a domain takes from a sequence say nothing on another server");
	wait_for($local, $healed, "$table: what it has is pushed");
	is(rows($remote, "SELECT string_agg(id || ' ' || v, ', ' ORDER BY v) FROM $table"), '2 first, 1 own', "$table: and over no other row");
}
here(q{SELECT synchro.pause('office'); INSERT INTO numbered (v) VALUES ('second')});
is(rows($local, q{SELECT relation, action FROM synchro.preview('office')}), 'numbered|insert', 'a preview shows it');
is(rows($remote, 'SELECT last_value FROM ids'), '2', 'and asks no sequence');
here(q{SELECT synchro.resume('office')});
wait_for($local, $healed, 'before rights are taken');
is(rows($remote, 'SELECT count(*) FROM tagged'), '1', 'an id that a domain makes can be skipped');
is(in_the_way(), $known, 'check() does not compare the types of ids that each side makes for itself');
$remote->safe_psql('postgres', 'REVOKE ALL ON SEQUENCE ids FROM sync');
like(in_the_way(), qr/^on remote "office": role sync may not use sequence public\.ids of table public\.numbered$/m, 'but says whose sequence the role may not use');
$remote->safe_psql('postgres', 'GRANT USAGE ON SEQUENCE ids TO sync');
my $fingerprint = q{SELECT fingerprint FROM synchro.manifest('public') WHERE relation = 'tagged'::regclass};
here(q{SELECT synchro.alter_table('tagged', skip => '{}')});
my $before = rows($local, $fingerprint);
here('UPDATE tagged SET id = DEFAULT');
is(rows($local, $fingerprint), $before, 'nor does manifest() count them');

$_->stop('fast') foreach $local, $remote;
done_testing();
