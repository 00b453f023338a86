# WHY: the remote's table need not be the same: an id without a default, a column of another type. What was pushed there is no
# difference, however the remote writes it, or nobody looks at verify() any more.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

connect_remote($local, $remote);

# key|difference|columns, sorted
sub differences
{
	my ($table) = @_;

	return rows($local, "SET synchro.verify_wait = '10min'; SELECT key, difference, columns FROM synchro.verify('office', '$table') ORDER BY key, difference");
}

# an id that the remote does not hand out itself is that of here in new rows, and in no others
my $columns = 'email text UNIQUE NOT NULL, name text';

$local->safe_psql('postgres', "CREATE TABLE customer (id serial PRIMARY KEY, $columns); CREATE TABLE account (id uuid PRIMARY KEY, $columns)");
$remote->safe_psql('postgres', <<"SQL");
CREATE TABLE customer (id int PRIMARY KEY, $columns);
CREATE TABLE account (id uuid PRIMARY KEY, $columns);
INSERT INTO customer VALUES (7, 'ann', 'x');
INSERT INTO account VALUES (gen_random_uuid(), 'ann', 'x');
GRANT ALL ON customer, account TO sync;
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('customer', '{email}'), synchro.add_table('account', '{email}');
INSERT INTO customer (email, name) VALUES ('ann', 'Ann'), ('bob', 'Bob');
INSERT INTO account SELECT gen_random_uuid(), email, name FROM customer;
SQL
is(differences($_), '', "an id that a row of the remote's $_ had already is no difference") foreach qw(customer account);
$remote->safe_psql('postgres', q{UPDATE customer SET name = 'x' WHERE email = 'ann'; UPDATE account SET name = NULL WHERE email = 'bob'});
is(differences('customer'), 'ann|different|{name}', 'another value of that row is');
is(differences('account'), 'bob|different|{name}', 'and of one that has the id of here');
$local->safe_psql('postgres', q{SELECT synchro.remove_table('customer'), synchro.remove_table('account')});

# values that cannot be read here, since what they name is only there, or a rule is
both($local, $remote, <<'SQL');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE item (id serial PRIMARY KEY, name text UNIQUE NOT NULL, list positive[], relation regclass, owner regrole, said text);
GRANT ALL ON item TO PUBLIC;
GRANT USAGE ON SEQUENCE item_id_seq TO PUBLIC;
SQL
$local->safe_psql('postgres', q{SELECT synchro.add_table('item', '{name}'); INSERT INTO item (name, list, relation, owner, said) SELECT v, '{1}', 'item', 'pg_monitor', 'x' FROM unnest('{a,b,c,d,e}'::text[]) v});
is(differences('item'), '', 'all can be read');
$remote->safe_psql('postgres', <<'SQL');
ALTER DOMAIN positive DROP CONSTRAINT positive_check;
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.there ();
CREATE TABLE only_there ();
CREATE ROLE only_there;
UPDATE item SET list = '{-1}' WHERE name = 'a';
UPDATE item SET relation = 'only_there' WHERE name = 'b';
UPDATE item SET owner = 'only_there' WHERE name = 'c';
UPDATE item SET relation = 'elsewhere.there' WHERE name = 'd';
SQL
is(differences('item'), "a|different|{list}\nb|different|{relation}\nc|different|{owner}\nd|different|{relation}", 'what cannot be read here is different');
my ($rc, $stdout, $stderr) = $local->psql('postgres', q{SELECT count(*) FROM synchro.verify('office')});
is($rc . $stdout, '04', 'and ends no look at all tables') or diag($stderr);
$local->safe_psql('postgres', q{SELECT synchro.remove_table('item')});

$_->stop('fast') foreach $local, $remote;
done_testing();
