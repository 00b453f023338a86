# WHY: a table that is partitioned when it has grown becomes a partition of one that is watched. If a natural key is registered for
# it still, which remove_table() leaves alone where it was registered for itself, PostgreSQL gives it the trigger of its root all the
# same, so its rows are the root's. Taken for a table by itself, which only stands in a key, it would have nothing logged but renames,
# and nobody would say so. What refers to it has to find its rows where they are logged, too.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE customers_all (id int NOT NULL, email text NOT NULL, n int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE customers_1 PARTITION OF customers_all FOR VALUES FROM (1000) TO (2000);
CREATE TABLE towns_all (id int NOT NULL, name text NOT NULL, n int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
SQL
$_->safe_psql('postgres', 'CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL, n int); CREATE TABLE towns (id int PRIMARY KEY, name text NOT NULL, n int)') foreach $local, $remote;
connect_remote($local, $remote);

sub here { return $local->safe_psql('postgres', "SET client_min_messages = error; $_[0]") }

# It was watched, by a key that was registered for itself, and is to be watched as a partition now.
here(q{SELECT synchro.register_natural_key('customers', '{email}'), synchro.add_table('customers'); INSERT INTO customers VALUES (1, 'ann', 1)});
sync($local, 'office');
here(q{SELECT synchro.remove_table('customers')});
both($local, $remote, 'ALTER TABLE customers_all ATTACH PARTITION customers FOR VALUES FROM (0) TO (1000)');
here(q{SELECT synchro.add_table('customers_all', '{email}', allow_many => true)});
here(q{UPDATE customers_all SET n = 2 WHERE id = 1; INSERT INTO customers_all VALUES (2, 'bob', 1), (1001, 'cid', 1)});
sync($local, 'office');
same($local, $remote, 'SELECT email, n FROM customers_all ORDER BY email', 'a partition that has a key registered: what is written to it by way of the root');
here(q{DELETE FROM customers_all});
sync($local, 'office');
same($local, $remote, 'SELECT email, n FROM customers_all ORDER BY email', '... and what is deleted', empty => 1);

# It was only referred to, so it has a key, and is attached to a root that is watched already.
here(q{SELECT synchro.add_table('towns_all', '{name}', allow_many => true); SELECT synchro.register_natural_key('towns', '{name}')});
both($local, $remote, 'ALTER TABLE towns_all ATTACH PARTITION towns FOR VALUES FROM (0) TO (1000)');
here(q{INSERT INTO towns_all VALUES (1, 'A', 1); INSERT INTO towns VALUES (2, 'B', 1)});
sync($local, 'office');
same($local, $remote, 'SELECT name, n FROM towns_all ORDER BY name', 'attached later: what is written to it');

# What refers to the partition by an id of this side's: to the table itself before its root is watched, and to the root's rows then.
both($local, $remote, <<'SQL');
CREATE TABLE lands_all (id serial, name text NOT NULL, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE lands (id int PRIMARY KEY DEFAULT nextval('lands_all_id_seq'), name text NOT NULL);
CREATE TABLE rivers (id serial PRIMARY KEY, name text NOT NULL UNIQUE, land int REFERENCES lands);
SQL
$remote->safe_psql('postgres', q{SELECT setval('lands_all_id_seq', 100)});
here(q{SELECT synchro.register_natural_key('lands', '{name}'), synchro.add_table('rivers', '{name}')});
both($local, $remote, 'ALTER TABLE lands_all ATTACH PARTITION lands FOR VALUES FROM (0) TO (1000)');
here(q{INSERT INTO lands (name) VALUES ('L'), ('M'); INSERT INTO rivers (name, land) VALUES ('r', 1)});
sync($local, 'office');

my $rivers = q{SELECT r.name, l.name FROM rivers r JOIN lands l ON l.id = r.land ORDER BY r.name};

same($local, $remote, $rivers, 'not watched, it has the rows that are referred to');
here(q{SELECT synchro.add_table('lands_all', '{name}', allow_many => true); UPDATE lands SET name = 'N' WHERE name = 'L'; UPDATE rivers SET name = 's'; INSERT INTO rivers (name, land) VALUES ('t', 1), ('u', 2)});
sync($local, 'office');
same($local, $remote, $rivers, 'its root watched, they are that one\'s, with their names of before');
is(rows($remote, 'SELECT count(*) FROM lands'), '2', 'and nothing is made twice');
here(q{SELECT synchro.remove_table('lands_all'); UPDATE rivers SET land = 1 WHERE name = 'u'; INSERT INTO lands (name) VALUES ('O'); INSERT INTO rivers (name, land) VALUES ('v', 3)});
sync($local, 'office');
same($local, $remote, $rivers, 'its root no longer watched, they are found as before');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), '0', 'nothing has failed') or diag(rows($local, 'SELECT relation, sqlstate, message FROM synchro.failures'));

done_testing();
