# WHY: errors that say a name is unknown, a right is missing, something is not supported are the tables' as a rule, not a row's: the
# table stalls until it is altered. But a value may be such a name itself, of a type or a table, and a trigger may raise what it
# likes. One such row had every pass fail, so nothing else arrived, of any table; or, where it came first, its whole table stall.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

$local->safe_psql('postgres', <<'SQL');
CREATE TABLE path (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value text);
CREATE TABLE class (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value regclass);
CREATE TABLE made (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value numeric);
CREATE TABLE raised (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value int);
CREATE TABLE other (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE only_here ();
SQL
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE path (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value jsonpath);
CREATE TABLE class (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value regclass);
CREATE TABLE made (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value numeric, n int GENERATED ALWAYS AS (value::int) STORED);
CREATE TABLE raised (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value int);
CREATE TABLE other (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF NEW.value = 7 THEN
		RAISE insufficient_privilege USING MESSAGE = 'seven is not for you';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON raised FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', "SELECT synchro.add_table('$_', '{name}')") foreach qw(path class made raised other);

sub arrives
{
	my ($testname, $table, $values, $failed, $sqlstate) = @_;

	$local->safe_psql('postgres', "INSERT INTO $table (name, value) SELECT '$testname ' || o, v FROM unnest(ARRAY[$values]) WITH ORDINALITY u (v, o)");
	$local->safe_psql('postgres', "INSERT INTO other (name) VALUES ('$testname $table')");
	my $count = rows($local, "SELECT count(*) FROM $table WHERE name LIKE '$testname %'");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sync($local, 'office')->{failed}, $failed, "$testname, $table: so many fail");
	is(rows($remote, "SELECT count(*) FROM $table WHERE name LIKE '$testname %'"), $count - $failed, "$testname, $table: the others arrive");
	is(rows($remote, "SELECT count(*) FROM other WHERE name = '$testname $table'"), 1, "$testname, $table: and those of other tables");
	is(rows($local, "SELECT count(*), min(sqlstate), max(sqlstate), count(key) FROM synchro.failures"), "$failed|$sqlstate|$sqlstate|$failed", "$testname, $table: each is parked for itself");
	return;
}

sub mended
{
	my ($testname, $side, $mend, $table) = @_;

	$side->safe_psql('postgres', $mend);
	$local->safe_psql('postgres', 'SELECT synchro.retry()');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sync($local, 'office')->{failed}, 0, "$testname: mended, all arrives");
	same($local, $remote, "SELECT name, value FROM $table ORDER BY name", "$testname: they are the same");
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, "$testname: nothing waits");
	return;
}

# in the middle, the first, the last, several
foreach my $case ([ 'middle', q{'$."a"', '$.a(', '$."b"'} ], [ 'first', q{'$.a(', '$."a"', '$."b"'} ], [ 'last', q{'$."a"', '$."b"', '$.a('} ])
{
	arrives($case->[0], 'path', $case->[1], 1, '42601');
	mended($case->[0], $local, q{UPDATE path SET value = '$."c"' WHERE value = '$.a('}, 'path');
}
arrives('class', 'class', q{'pg_class'::regclass, 'only_here', 'pg_type', 'only_here', 'pg_attribute'}, 2, '42P01');
mended('class', $remote, 'CREATE TABLE only_here ()', 'class');
arrives('made', 'made', q{1::numeric, 'NaN', 2}, 1, '0A000');
mended('made', $local, q{UPDATE made SET value = 3 WHERE value = 'NaN'}, 'made');
arrives('raised', 'raised', join(', ', 1 .. 40), 1, '42501');
is(rows($local, 'SELECT message FROM synchro.failures'), 'seven is not for you', 'with what the trigger says');

# it fails again, and again nothing else waits
$local->safe_psql('postgres', 'SELECT synchro.retry()');
$local->safe_psql('postgres', q{INSERT INTO raised (name, value) VALUES ('again 1', 50), ('again 2', 51)});
is(sync($local, 'office')->{failed}, 1, 'again: it fails');
is(rows($local, 'SELECT count(*), count(key) FROM synchro.failures'), '1|1', 'again: for itself');
is(rows($remote, q{SELECT count(*) FROM raised WHERE name LIKE 'again%'}), 2, 'again: others of its table arrive');
mended('raised', $remote, 'DROP TRIGGER refuse ON raised', 'raised');

# a schema, whose SQLSTATE is of another class
both($local, $remote, 'CREATE TABLE place (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value regnamespace)');
$remote->safe_psql('postgres', 'GRANT SELECT, INSERT, UPDATE, DELETE ON place TO sync; GRANT USAGE ON SEQUENCE place_id_seq TO sync');
$local->safe_psql('postgres', q{CREATE SCHEMA only_here; SELECT synchro.add_table('place', '{name}')});
arrives('schema', 'place', q{'public'::regnamespace, 'only_here', 'pg_catalog'}, 1, '3F000');
mended('schema', $remote, 'CREATE SCHEMA only_here', 'place');

# names of before, in whichever place, and again when only that one is tried
both($local, $remote, 'CREATE TABLE renamed (id serial PRIMARY KEY, name text NOT NULL UNIQUE, value int)');
$remote->safe_psql('postgres', <<'SQL');
GRANT SELECT, INSERT, UPDATE, DELETE ON renamed TO sync;
GRANT USAGE ON SEQUENCE renamed_id_seq TO sync;
CREATE TRIGGER refuse BEFORE UPDATE ON renamed FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
$local->safe_psql('postgres', q{SELECT synchro.add_table('renamed', '{name}'); INSERT INTO renamed (name, value) SELECT 'r' || i, 0 FROM generate_series(1, 5) i});
sync($local, 'office');
foreach my $bad (1, 3, 5)
{
	$local->safe_psql('postgres', "UPDATE renamed SET name = name || 'x', value = CASE WHEN id = $bad THEN 7 ELSE 0 END; INSERT INTO other (name) VALUES ('renamed $bad')");
	foreach my $time (1 .. 3)
	{
		is(sync($local, 'office')->{failed}, 1, "names, number $bad, $time: it fails");
		is(rows($local, 'SELECT relation, key, sqlstate FROM synchro.failures'), "renamed|$bad|42501", "names, number $bad, $time: for itself");
	}
	is(rows($remote, q{SELECT count(*) FROM renamed WHERE name LIKE '%x'}), 4, "names, number $bad: the others have theirs");
	is(rows($remote, "SELECT count(*) FROM other WHERE name = 'renamed $bad'"), 1, "names, number $bad: other tables flow");
	$local->safe_psql('postgres', q{UPDATE renamed SET name = 'r' || id, value = 0; SELECT synchro.retry()});
	is(sync($local, 'office')->{failed}, 0, "names, number $bad: mended");
	same($local, $remote, 'SELECT name, value FROM renamed ORDER BY name', "names, number $bad: all are the same");
}

# updates, and a name that is not to change
$remote->safe_psql('postgres', 'CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON raised FOR EACH ROW EXECUTE FUNCTION refuse()');
$local->safe_psql('postgres', q{UPDATE raised SET name = name || '!'});
is(sync($local, 'office')->{failed}, 1, 'renamed: one fails');
is(rows($remote, q{SELECT count(*) FILTER (WHERE name LIKE '%!') - count(*) FROM raised}), -1, 'renamed: the others arrive');
mended('renamed', $remote, 'DROP TRIGGER refuse ON raised', 'raised');

# a table's own: it stalls as a whole, and the others flow
$remote->safe_psql('postgres', 'REVOKE INSERT ON raised FROM sync');
$local->safe_psql('postgres', q{INSERT INTO raised (name, value) VALUES ('x', 1), ('y', 2), ('z', 3); INSERT INTO other (name) VALUES ('beside')});
sync($local, 'office');
is(rows($local, 'SELECT count(*), count(key), min(sqlstate) FROM synchro.failures'), '1|0|42501', 'a right that is missing stalls the table');
is(rows($remote, q{SELECT count(*) FROM other WHERE name = 'beside'}), 1, 'the others flow');
$remote->safe_psql('postgres', 'GRANT INSERT ON raised TO sync');
mended('right', $remote, 'GRANT INSERT ON raised TO sync', 'raised');

# slower than a statement may be: the batch goes in parts that are not
$remote->safe_psql('postgres', <<'SQL');
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON raised FOR EACH ROW EXECUTE FUNCTION slow();
SQL
$local->safe_psql('postgres', q{INSERT INTO raised (name, value) SELECT 's' || i, i FROM generate_series(100, 400) i; INSERT INTO other (name) VALUES ('slow')});
is($local->safe_psql('postgres', q{SET synchro.statement_timeout = '1s'; SELECT (synchro.synchronize('office')).failed}), 0, 'slow: nothing fails');
same($local, $remote, 'SELECT name, value FROM raised ORDER BY name', 'slow: all arrives');
is(rows($remote, q{SELECT count(*) FROM other WHERE name = 'slow'}), 1, 'slow: and those of other tables');

$_->stop('fast') foreach $local, $remote;
done_testing();
