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
GRANT SELECT, INSERT, UPDATE, DELETE ON customer, account TO sync;
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

# columns of another type there: what was pushed is what the type here writes, and what the one there reads from that
my %types = (
	bool_text => [ 'boolean', 'text', 'true' ], char_text => [ 'char(5)', 'text', q('ab') ], char_varchar => [ 'char(5)', 'varchar(5)', q('ab') ], char_char => [ 'char(5)', 'char(8)', q('ab') ],
	varchar_char => [ 'varchar(5)', 'char(5)', q('ab') ], inet_text => [ 'inet', 'text', q('1.2.3.4') ], cidr_inet => [ 'cidr', 'inet', q('1.2.3.4') ], inet_cidr => [ 'inet', 'cidr', q('1.2.3.4') ],
	numeric_text => [ 'numeric(10,2)', 'text', '5' ], float_text => [ 'float8', 'text', '1e20' ], int_numeric => [ 'int', 'numeric(6,1)', '1' ], numeric_money => [ 'numeric(8,2)', 'money', '1.5' ],
	money_text => [ 'money', 'text', '1.5' ], xml_xml => [ 'xml', 'xml', q('<?xml version="1.0" encoding="UTF-8"?><a/>') ], json_jsonb => [ 'json', 'jsonb', q('{"a":  1}') ], text_numeric => [ 'text', 'numeric(6,2)', q('5') ],
	date_timestamp => [ 'date', 'timestamp', q('2024-02-29') ], interval_text => [ 'interval', 'text', q('1 day') ]);
my @types = sort keys %types;

foreach my $table ([ typed => \@types ], [ keyed => [ qw(bool_text char_text char_char varchar_char inet_text cidr_inet inet_cidr numeric_text int_numeric) ] ])
{
	my ($name, $names) = @$table;
	my $key = $name eq 'keyed' ? join ',', @$names : 'name';
	my $values = join ', ', map { $types{$_}[2] } @$names;

	foreach my $i (0, 1)
	{
		($local, $remote)[$i]->safe_psql('postgres', "CREATE TABLE $name (id serial PRIMARY KEY, name text NOT NULL, " . join(', ', map { "$_ $types{$_}[$i] NOT NULL" } @$names) . ", UNIQUE ($key)); GRANT SELECT, INSERT, UPDATE, DELETE ON $name TO PUBLIC; GRANT USAGE ON SEQUENCE ${name}_id_seq TO PUBLIC");
	}
	$local->safe_psql('postgres', "SELECT synchro.add_table('$name', '{$key}'); INSERT INTO $name (name, " . join(', ', @$names) . ") VALUES ('a', $values)");
	sync($local, 'office');
	is(differences($name), '', "$name: columns of another type there have what was pushed");
}
$remote->safe_psql('postgres', q{UPDATE typed SET bool_text = 'f', char_char = 'abc', numeric_text = '6', numeric_money = 2, cidr_inet = '1.2.3.5', date_timestamp = '2024-02-29 05:00', json_jsonb = '{"a": 2}', text_numeric = 6});
is(differences('typed'), 'a|different|{bool_text,char_char,cidr_inet,date_timestamp,json_jsonb,numeric_money,numeric_text,text_numeric}', 'or are different');
$local->safe_psql('postgres', q{SELECT synchro.remove_table('typed'), synchro.remove_table('keyed')});

# values that cannot be read here, since what they name is only there, or a rule is
both($local, $remote, <<'SQL');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE item (id serial PRIMARY KEY, name text UNIQUE NOT NULL, list positive[], relation regclass, owner regrole, said text);
GRANT SELECT, INSERT, UPDATE, DELETE ON item TO PUBLIC;
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
