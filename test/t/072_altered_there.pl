# WHY: a worker keeps what it knows of a remote's table as long as it is connected, and not all that is altered there meanwhile is an
# error by itself: a trigger that gives ids (036_own_ids.pl: the row "is there once more with each change, without a word"), a unique
# index that is gone, so that a name means several rows, a default, a foreign key that is not here, an expression that is dropped.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

# nobody analyzes a table here: that would have it described anew
my $local = synchro_node('local', preload => 1, conf => 'autovacuum = off');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE note (id serial PRIMARY KEY, body text);
CREATE TABLE customer (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int);
CREATE TABLE shop (id serial PRIMARY KEY, name text NOT NULL UNIQUE, customer_id int, CHECK (customer_id > 0));
SQL
$local->safe_psql('postgres', 'CREATE TABLE item (id serial PRIMARY KEY, code text NOT NULL UNIQUE, n int, twice int)');
$remote->safe_psql('postgres', 'CREATE TABLE item (id serial PRIMARY KEY, code text NOT NULL UNIQUE, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('note'), synchro.add_table('customer', '{name}'), synchro.add_table('shop', '{name}'), synchro.add_table('item', '{code}')});
$local->safe_psql('postgres', q{INSERT INTO note (body) VALUES ('first'); INSERT INTO customer (name, v) VALUES ('ann', 1); INSERT INTO shop (name, customer_id) VALUES ('one', 1); INSERT INTO item (code, n, twice) VALUES ('a', 1, 2)});
wait_arrival($remote, 'SELECT (SELECT count(*) FROM note) + (SELECT count(*) FROM customer) + (SELECT count(*) FROM shop) + (SELECT count(*) FROM item)', '4', 'the worker knows the tables');
my $pid = pusher_pid($local, 'office');

# a trigger that gives ids, whatever a row has
$remote->safe_psql('postgres', <<'SQL');
CREATE FUNCTION give_id() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := NEW.id + 100000; RETURN NEW; END$$;
CREATE TRIGGER give_id BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION give_id();
SQL
$local->safe_psql('postgres', q{INSERT INTO note (body) VALUES ('second')});
wait_for($local, q{SELECT pending = 0 FROM synchro.remotes}, 'it is pushed, or refused');
foreach my $n (1 .. 3)
{
	$local->safe_psql('postgres', "UPDATE note SET body = 'second, $n' WHERE id = 2");
	wait_for($local, q{SELECT pending = 0 FROM synchro.remotes}, "change $n is pushed, or refused");
}
cmp_ok(rows($remote, q{SELECT count(*) FROM note WHERE body LIKE 'second%'}), '<=', 1, 'the row is not there once more with each change');
is(rows($local, q{SELECT DISTINCT sqlstate FROM synchro.failures WHERE relation = 'note'::regclass}), '27000', 'and it is told');

# a name that is no longer unique there
$remote->safe_psql('postgres', q{ALTER TABLE customer DROP CONSTRAINT customer_name_key; INSERT INTO customer (name, v) VALUES ('ann', 50)});
$local->safe_psql('postgres', q{UPDATE customer SET v = 2});
wait_for($local, q{SELECT pending = 0 FROM synchro.remotes}, 'it is pushed, or refused');
is(rows($local, q{SELECT message LIKE '%matches several rows%' FROM synchro.failures WHERE relation = 'customer'::regclass}), 't', 'a name of several rows is told');
is(rows($remote, 'SELECT v FROM customer ORDER BY id'), "1\n50", 'and none of them is written');

# ids that another sequence gives
$remote->safe_psql('postgres', q{CREATE SEQUENCE others START 5000; ALTER TABLE shop ALTER id SET DEFAULT nextval('others')});
$local->safe_psql('postgres', q{INSERT INTO shop (name, customer_id) VALUES ('two', 1)});
wait_arrival($remote, q{SELECT id FROM shop WHERE name = 'two'}, '5000', 'a new row gets its id from the sequence that gives them now');

# ids that are others there, as a foreign key says which is not here
$remote->safe_psql('postgres', 'ALTER TABLE shop ADD FOREIGN KEY (customer_id) REFERENCES customer');
$local->safe_psql('postgres', q{UPDATE shop SET customer_id = 2});
wait_for($local, q{SELECT count(*) > 0 FROM synchro.failures WHERE relation = 'shop'::regclass}, 'it is told');
like(rows($local, q{SELECT message FROM synchro.failures WHERE relation = 'shop'::regclass}), qr/column "customer_id" of table public.shop has a foreign key on remote/, 'that the remote has a foreign key');
is(rows($remote, 'SELECT DISTINCT customer_id FROM shop'), '1', 'and no id of ours is taken for one of the remote\'s');

# a column that is not generated any more
$remote->safe_psql('postgres', 'ALTER TABLE item ALTER twice DROP EXPRESSION');
$local->safe_psql('postgres', q{UPDATE item SET n = 5, twice = 10});
wait_arrival($remote, 'SELECT n FROM item', '5', 'a change arrives');
is(rows($remote, 'SELECT twice FROM item'), '10', 'with the column that is an ordinary one now');
is(pusher_pid($local, 'office'), $pid, 'by the same worker');

done_testing();
