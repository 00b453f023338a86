# Every type arrives as it is: as a value, as a natural key and as a primary key that others reference.
#
# WHY: rows travel as text between two servers whose settings differ, are staged under the remote's types, and are compared
# there with what is already there. Each type has its own way to go wrong: its text form depends on settings, it has no
# equality, equal values look different, its operators lie outside pg_catalog. A row that silently arrives as something
# else, or is rewritten forever because it never looks equal, is found only by trying each.

use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

# every setting that text forms depend on is different on the two sides, and neither is what synchro pins
my $local = synchro_node('local', conf => <<'CONF');
datestyle = 'German, DMY'
intervalstyle = 'iso_8601'
timezone = 'Europe/Paris'
bytea_output = 'escape'
extra_float_digits = -5
xmloption = 'document'
array_nulls = off
quote_all_identifiers = on
CONF
my $remote = synchro_node('remote', conf => <<'CONF');
datestyle = 'SQL, MDY'
intervalstyle = 'sql_standard'
timezone = 'Asia/Kathmandu'
bytea_output = 'escape'
extra_float_digits = -10
xmloption = 'document'
array_nulls = off
quote_all_identifiers = on
CONF

# What the test itself reads and writes is to be told apart to the last digit.
my $pin = <<'SQL';
SET datestyle = 'ISO, YMD';
SET intervalstyle = postgres;
SET timezone = 'UTC';
SET bytea_output = hex;
SET extra_float_digits = 3;
SET xmloption = content;
SET array_nulls = on;
SET quote_all_identifiers = off;
SQL

sub equal
{
	my ($query, $testname, %opts) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return same($local, $remote, $pin . $query, $testname, %opts);
}

sub literal
{
	my ($value, $type) = @_;

	return 'NULL' if !defined $value;
	$value =~ s/\\/\\\\/g;
	$value =~ s/'/''/g;
	return "E'$value'::$type";
}

both($local, $remote, <<'SQL');
CREATE EXTENSION citext;
CREATE EXTENSION hstore;
CREATE SCHEMA kinds;
CREATE TYPE kinds.mood AS ENUM ('sad', 'ok', 'ha"ppy', 'With Space', '\');
CREATE DOMAIN kinds.positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN kinds.small AS kinds.positive CHECK (VALUE < 100);
CREATE DOMAIN kinds.short AS varchar(8) COLLATE "C";
CREATE DOMAIN kinds.folded AS citext;
CREATE DOMAIN kinds.list AS integer[];
CREATE TYPE kinds.pair AS (number integer, "Some Text" text, at timestamptz);
CREATE TYPE kinds.moods AS RANGE (subtype = kinds.mood);
CREATE TABLE kinds.thing (id serial PRIMARY KEY);
SQL

# name, type, key (btree: has equality and an order; hash: has equality only; '': has none), values that are all different
my @types = (
	[ 'bool', 'boolean', 'btree', 'f', 't' ],
	[ 'int2', 'smallint', 'btree', -32768, 0, 32767, 1 ],
	[ 'int4', 'integer', 'btree', -2147483648, 0, 2147483647, 1 ],
	[ 'int8', 'bigint', 'btree', '-9223372036854775808', 0, '9223372036854775807', 1 ],
	[ 'float4', 'real', 'btree', 'NaN', '-Infinity', '0.1', '3.4028235e38', '1.1754944e-38', 'Infinity' ],
	[ 'float8', 'double precision', 'btree', 'NaN', '-Infinity', '0.1', '1.7976931348623157e308',
		'0.30000000000000004', 'Infinity', '4.9406564584124654e-324' ],
	[ 'numeric', 'numeric', 'btree', 'NaN', '-Infinity', '1.10', '1.1000001', 'Infinity', '-0.000',
		'12345678901234567890123456789012345678901234567890.0987654321000' ],
	[ 'numeric_scale', 'numeric(12,3)', 'btree', '1.5', '-999999999.999', 'NaN', '2' ],
	[ 'money', 'money', 'btree', '-92233720368547758.08', '0', '1234567.89', '1' ],
	[ 'text', 'text', 'btree', '', 'a	tab and
newline', '\\.', '\\N', "carriage\rreturn", 'it\'s "quoted"', 'backslash \\ at end \\', ' spaces ', '{1,2}', '(,)',
		"\x{1}\x{7f}", '$$; DROP TABLE x; --', 'NULL', '\\t' ],
	[ 'unicode', 'text', 'btree', "\303\274\303\237", "\342\202\254", "\360\237\220\230", "e\314\201" ],
	[ 'varchar', 'varchar(20)', 'btree', '', 'a', ' a', 'a ' ],
	[ 'bpchar', 'char(5)', 'btree', '', 'a', ' a', 'abcde' ],
	[ 'onechar', '"char"', 'btree', 'a', '', '\\', '7' ],
	[ 'name', 'name', 'btree', 'a', '', 'A b', "it's" ],
	[ 'bytea', 'bytea', 'btree', '\\x', '\\x00', '\\x5c2e0a09ff', '\\xdeadbeef' ],
	[ 'date', 'date', 'btree', '-infinity', 'infinity', '0044-03-15 BC', '2024-02-29', '5874897-12-31' ],
	[ 'time', 'time', 'btree', '00:00', '24:00', '12:34:56.789012', '01:02' ],
	[ 'timetz', 'timetz', 'btree', '00:00+14', '23:59:59.999999-12', '12:00+05:45', '12:00+00' ],
	[ 'timestamp', 'timestamp', 'btree', '-infinity', 'infinity', '0044-03-15 10:00 BC', '2024-03-31 02:30:00.000001',
		'294276-12-31 23:59:59.999999' ],
	[ 'timestamptz', 'timestamptz', 'btree', '-infinity', 'infinity', '0044-03-15 10:00+00 BC',
		'2024-10-27 02:30:00.123456+01', '2024-10-27 02:30:00.123456+02' ],
	[ 'timestamptz_seconds', 'timestamptz(0)', 'btree', '2024-01-01 00:00+00', 'infinity', '1999-12-31 23:59:59+00',
		'2000-01-01 00:00+00' ],
	[ 'interval', 'interval', 'btree', '1 year -2 mons +3 days -04:05:06.000007', '-1 days +00:00:01', '0',
		'178000000 years', '-00:00:00.5' ],
	[ 'bit', 'bit(5)', 'btree', '00000', '10101', '11111', '00001' ],
	[ 'varbit', 'varbit', 'btree', '', '1', '01', '10' ],
	[ 'inet', 'inet', 'btree', '10.1.2.3/8', '10.1.2.3', '::1', '2001:db8::/32' ],
	[ 'cidr', 'cidr', 'btree', '10.0.0.0/8', '10.1.0.0/16', '::/0', '2001:db8::/32' ],
	[ 'macaddr', 'macaddr', 'btree', '08:00:2b:01:02:03', '00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff', '08:00:2b:01:02:04' ],
	[ 'macaddr8', 'macaddr8', 'btree', '08:00:2b:01:02:03:04:05', '00:00:00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff:ff:ff',
		'08:00:2b:ff:fe:01:02:03' ],
	[ 'uuid', 'uuid', 'btree', '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
		'123e4567-e89b-12d3-a456-426614174000', '123e4567-e89b-12d3-a456-426614174001' ],
	[ 'json', 'json', '', '{"b": 1,  "a": 1, "a": 2}', '[1.10, "\\\\u20ac", null]', '"line\\nbreak"', 'null' ],
	[ 'jsonb', 'jsonb', 'btree', '{"b": 1, "a": [1.10, {"c": null}]}', '"tab\\t and \\\\ "', '[]', '1e400', 'null' ],
	[ 'jsonpath', 'jsonpath', '', '$.a[*] ? (@ > 1)', 'strict $."with space"', '$', 'lax $.b' ],
	[ 'xml', 'xml', '', '<a b="&lt;">x &amp; y</a>', 'just text <b/>', '<!-- c --><d><![CDATA[<]]></d>', '<e/>' ],
	[ 'point', 'point', '', '(0.1,-1e300)', '(NaN,Infinity)', '(1,2)' ],
	[ 'line', 'line', '', '{1,-1,0}', '{0,-1,0.1}' ],
	[ 'lseg', 'lseg', '', '[(0,0),(1,0.1)]', '[(1,2),(3,4)]' ],
	[ 'box', 'box', '', '(1,1),(0.1,0)', '(2,2),(1,1)' ],
	[ 'path', 'path', '', '[(0,0),(1,1),(2,0.1)]', '((0,0),(1,1),(2,0))' ],
	[ 'polygon', 'polygon', '', '((0,0),(1,1),(2,0.1))', '((0,0),(0,1),(1,1),(1,0))' ],
	[ 'circle', 'circle', '', '<(0,0.1),2>', '<(1,1),0>' ],
	[ 'tsvector', 'tsvector', 'btree', '', '\'fat\':2A,4B \'c\\\'at\':3', '\'with space\' b\\\\c', 'a:1' ],
	[ 'tsquery', 'tsquery', 'btree', '', '\'fat\' & !\'rat\':AB | \'c d\':*', 'a <2> b', 'a' ],
	[ 'int4range', 'int4range', 'btree', 'empty', '[1,5)', '(,)', '[7,)' ],
	[ 'int8range', 'int8range', 'btree', 'empty', '[1,5)', '(,)', '[7,)' ],
	[ 'numrange', 'numrange', 'btree', 'empty', '[1.10,5.0]', '(,NaN]', '(1.10,5.0]' ],
	[ 'tsrange', 'tsrange', 'btree', 'empty', '["2024-01-01 00:00","2024-02-01 00:00")', '(,infinity]', '[,]' ],
	[ 'tstzrange', 'tstzrange', 'btree', 'empty', '["2024-01-01 00:00+02","2024-02-01 00:00+02")', '(,infinity]', '[-infinity,)' ],
	[ 'daterange', 'daterange', 'btree', 'empty', '[2024-01-01,2024-02-01)', '(,infinity]', '[-infinity,)' ],
	[ 'own_range', 'kinds.moods', 'btree', 'empty', '[sad,ok]', '(,"ha\\"ppy")', '["With Space",]' ],
	[ 'int4multirange', 'int4multirange', 'btree', '{}', '{[1,3),[5,7)}', '{(,)}', '{[1,3)}' ],
	[ 'nummultirange', 'nummultirange', 'btree', '{}', '{[1.0,3.00),[5,7]}', '{(,1]}', '{[1,3)}' ],
	[ 'tstzmultirange', 'tstzmultirange', 'btree', '{}', '{["2024-01-01 00:00+02","2024-02-01 00:00+02")}', '{(,infinity)}',
		'{(,)}' ],
	[ 'int4_array', 'integer[]', 'btree', '{}', '{1,NULL,3}', '{{1,2},{3,NULL}}', '[0:1]={7,8}', '{7,8}' ],
	[ 'text_array', 'text[]', 'btree', '{}', '{"a,b","\\"q\\"","\\\\",NULL,"NULL","","	"}', '{{a,b},{c,d}}', '{" "}' ],
	[ 'float8_array', 'double precision[]', 'btree', '{0.1,NaN}', '{0.30000000000000004}', '{-Infinity,NULL}', '{}' ],
	[ 'timestamptz_array', 'timestamptz[]', 'btree', '{infinity,"2024-10-27 02:30:00.123456+02"}', '{NULL}', '{}',
		'{"0044-03-15 10:00+00 BC"}' ],
	[ 'interval_array', 'interval[]', 'btree', '{"1 year -3 days 04:05:06","-1 days"}', '{}', '{NULL}', '{0}' ],
	[ 'bytea_array', 'bytea[]', 'btree', '{"\\\\x00ff","\\\\x"}', '{}', '{NULL}', '{"\\\\x01"}' ],
	[ 'jsonb_array', 'jsonb[]', 'btree', '{"{\\"a\\": [1, 2]}"}', '{}', '{NULL,"null"}', '{"1"}' ],
	[ 'enum', 'kinds.mood', 'btree', 'sad', 'ok', 'ha"ppy', 'With Space', '\\' ],
	[ 'enum_array', 'kinds.mood[]', 'btree', '{sad,NULL}', '{}', '{"ha\\"ppy","With Space"}', '{"\\\\"}' ],
	[ 'domain', 'kinds.positive', 'btree', 1, 2, 2147483647, 3 ],
	[ 'domain_of_domain', 'kinds.small', 'btree', 1, 2, 99, 3 ],
	[ 'domain_varchar', 'kinds.short', 'btree', '', 'a', 'A', 'eight by' ],
	[ 'domain_array', 'kinds.list', 'btree', '{}', '{1,NULL}', '{{1},{2}}', '{7}' ],
	[ 'composite', 'kinds.pair', 'btree', '(1,"a b","2024-10-27 02:30:00+02")', '(,,)', '(2,"",infinity)',
		'(3,"(\\"x\\\\\\",\'y\')","0044-03-15 10:00+00 BC")' ],
	[ 'composite_array', 'kinds.pair[]', 'btree', '{"(1,\\"a b\\",infinity)",NULL}', '{}', '{"(,,)"}', '{"(2,x,)"}' ],
	[ 'oid', 'oid', 'btree', 0, 1, 4294967295, 2 ],
	[ 'regclass', 'regclass', 'btree', 'kinds.thing', 'pg_class', 'pg_type', 'kinds.thing_id_seq', '-' ],
	[ 'regtype', 'regtype', 'btree', 'kinds.pair', 'timestamptz', 'kinds.mood[]', 'integer' ],
	[ 'oidvector', 'oidvector', 'btree', '1 2', '', '3', '4 5 6' ],
	[ 'pg_lsn', 'pg_lsn', 'btree', '0/0', '16/B374D848', 'FFFFFFFF/FFFFFFFF', '0/1' ],
	[ 'tid', 'tid', 'btree', '(0,1)', '(4294967295,65535)', '(1,1)', '(1,2)' ],
	[ 'xid8', 'xid8', 'btree', 0, '18446744073709551615', 1, 2 ],
	[ 'xid', 'xid', 'hash', 0, 4294967295, 1, 2 ],
	[ 'pg_snapshot', 'pg_snapshot', '', '10:20:10,14', '1:1:' ],
	[ 'aclitem', 'aclitem', 'hash', '=r/postgres', 'postgres=arw*/postgres', '=w/postgres', '=X/postgres' ],
	[ 'citext', 'citext', 'btree', 'One', 'tWo', '', 'FOUR' ],
	[ 'domain_citext', 'kinds.folded', 'btree', 'One', 'tWo', '', 'FOUR' ],
	[ 'hstore', 'hstore', 'btree', '', 'a=>1', '"b c"=>"\\"x\\"", d=>NULL', 'a=>2' ],
	[ 'hstore_array', 'hstore[]', 'btree', '{}', '{"a=>1",NULL}', '{"\\"b c\\"=>\\"d\\""}', '{""}' ],
);

# Each type in three tables: v_ as a value, k_ as natural key, p_ as primary key with children c_ that reference it.
my @keys = grep { $_->[2] } @types;
# a type of two values has none to be renamed to
my @primary = grep { $_->[2] eq 'btree' && @$_ >= 7 } @types;
my %primary = map { $_->[0] => 1 } @primary;

sub create_tables
{
	my $ddl = '';

	foreach my $entry (@types)
	{
		my ($name, $type, $key) = @$entry;
		my $unique = $key eq 'btree' ? 'UNIQUE' : '';

		$ddl .= "CREATE TABLE v_$name (id serial PRIMARY KEY, name text UNIQUE, value $type);";
		$ddl .= "CREATE TABLE k_$name (id serial PRIMARY KEY, code $type $unique, n integer NOT NULL);" if $key;
		$ddl .= "CREATE TABLE p_$name (code $type PRIMARY KEY, n integer NOT NULL);"
		  . "CREATE TABLE c_$name (id serial PRIMARY KEY, name text UNIQUE, "
		  . "code $type REFERENCES p_$name ON UPDATE CASCADE);"
		  if $primary{$name};
	}
	both($local, $remote, $ddl);
	return;
}

sub watch_tables
{
	my $watch = 'SET client_min_messages = warning;';

	foreach my $entry (@types)
	{
		my ($name, undef, $key) = @$entry;

		$watch .= "SELECT synchro.add_table('v_$name', '{name}');";
		$watch .= "SELECT synchro.add_table('k_$name', '{code}');" if $key;
		$watch .= "SELECT synchro.add_table('p_$name'); SELECT synchro.add_table('c_$name', '{name}');"
		  if $primary{$name};
	}
	$local->safe_psql('postgres', $watch);
	return;
}

# The remote has been in use: other ids, and the second value and the NULL are there already, with another n.
sub fill_tables
{
	my ($here, $there) = ($pin, $pin);

	foreach my $entry (@types)
	{
		my ($name, $type, $key, @values) = @$entry;
		my $number = 0;

		$here .= sprintf "INSERT INTO v_$name (name, value) VALUES ('v%d', %s);", $number++, literal($_, $type)
		  foreach @values, undef;
		next if !$key;
		my @first = @values[ 0 .. ($#values < 2 ? $#values : 2) ];
		$here .= "INSERT INTO k_$name (code, n) VALUES (" . literal($_, $type) . ', 1);' foreach @first, undef;
		$there .= "ALTER SEQUENCE k_${name}_id_seq RESTART 1001;";
		$there .= "INSERT INTO k_$name (code, n) VALUES (" . literal($_, $type) . ', -1);' foreach $values[1], undef;
		next if !$primary{$name};
		foreach my $i (0 .. $#first)
		{
			my $value = literal($values[$i], $type);

			$here .= "INSERT INTO p_$name VALUES ($value, 1); INSERT INTO c_$name (name, code) VALUES ('c$i', $value);";
		}
		$there .= "INSERT INTO p_$name VALUES (" . literal($values[1], $type) . ', -1);';
	}
	$local->safe_psql('postgres', $here);
	$remote->safe_psql('postgres', $there);
	return;
}

sub compare
{
	my ($when) = @_;

	equal("SELECT name, value::text FROM v_$_->[0] ORDER BY name", "$_->[0] as a value $when") foreach @types;
	equal("SELECT code::text, n FROM k_$_->[0] ORDER BY code::text, n", "$_->[0] as natural key $when") foreach @keys;
	foreach my $name (map { $_->[0] } @primary)
	{
		equal("SELECT code::text, n FROM p_$name ORDER BY code::text", "$name as primary key $when");
		equal("SELECT name, code::text FROM c_$name ORDER BY name", "$name as foreign key $when");
	}
	return;
}

# ids of the rows of all k_ tables, by which value they have
sub ids
{
	my ($node) = @_;

	return { map { my ($name, $id) = split /=/; $name => $id } split /\n/,
		$node->safe_psql('postgres', $pin . join ' UNION ALL ',
			map {
				my ($name, $type, undef, @values) = @$_;
				"SELECT '$name ' || v.i || '=' || id FROM k_$name JOIN (VALUES "
				  . join(', ', map { "($_, " . literal($values[$_], $type) . ')' } 0 .. $#values)
				  . ') v (i, code) USING (code)'
			} @keys) };
}

create_tables();
connect_remote($local, $remote, schemas => [ 'public', 'kinds' ]);
watch_tables();
fill_tables();

my $result = sync($local, 'office');
is($result->{failed}, 0, 'nothing failed');
compare('arrives');
my $before = ids($remote);
my %found = map { $_->[0] => $before->{"$_->[0] 1"} } @keys;
is_deeply([ grep { $found{$_} != 1001 } sort keys %found ], [], 'a row that was there is found by its key');
is(rows($remote, join ' UNION ALL ', map { "SELECT '$_->[0]' FROM k_$_->[0] WHERE code IS NOT DISTINCT FROM NULL AND id <> 1002" } @keys),
	'', 'and by a key that is NULL');

# What is so already must look so: a value that comes back different from its text would be written each time.
my $same = '';
foreach my $entry (@types)
{
	my ($name, undef, $key) = @$entry;

	$same .= "UPDATE v_$name SET value = value;";
	$same .= "UPDATE k_$name SET n = n;" if $key;
	$same .= "UPDATE p_$name SET n = n; UPDATE c_$name SET code = code;" if $primary{$name};
}
$local->safe_psql('postgres', $same);
$result = sync($local, 'office');
is_deeply([ @$result{qw(inserted updated deleted)} ], [ 0, 0, 0 ], 'rows that are the same already are not written');
is($result->{message}, 'Synchronization performed successfully.', 'although they were sent');

# each row gets its successor's value; all n change
my $change = $pin;
foreach my $entry (@types)
{
	my ($name, undef, $key) = @$entry;

	$change .= "UPDATE v_$name v SET value = (SELECT value FROM v_$name w WHERE w.id = v.id % (SELECT max(id) FROM v_$name) + 1);";
	$change .= "UPDATE k_$name SET n = n + 10;" if $key;
	$change .= "UPDATE p_$name SET n = n + 10;" if $primary{$name};
}
$local->safe_psql('postgres', $change);
sync($local, 'office');
compare('changes');
is_deeply(ids($remote), $before, 'all rows have kept their ids');

# The second row goes; the first gets another key: a value of which there is no row, or the second's.
$change = $pin;
my %expected = %$before;
foreach my $entry (@keys)
{
	my ($name, $type, $key, @values) = @$entry;
	my ($from, $gone) = map { literal($_, $type) } @values[ 0, 1 ];
	my $new = $#values >= 3 ? 3 : 1;
	my $to = literal($values[$new], $type);

	delete $expected{"$name 1"};
	$expected{"$name $new"} = delete $expected{"$name 0"};
	$change .= "DELETE FROM k_$name WHERE code = $gone; UPDATE k_$name SET code = $to WHERE code = $from;"
	  . "UPDATE k_$name SET n = 100 WHERE code IS NULL;";
	$change .= "DELETE FROM c_$name WHERE code = $gone; DELETE FROM p_$name WHERE code = $gone;"
	  . "UPDATE p_$name SET code = $to WHERE code = $from;"
	  if $primary{$name};
}
$local->safe_psql('postgres', $change);
sync($local, 'office');
compare('is renamed and deleted');
is_deeply(ids($remote), \%expected, 'a renamed row has kept its id');

done_testing();
