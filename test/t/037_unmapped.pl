# Rows that nothing else of their batch refers to are looked up by the statement that writes them, as if they had been mapped.
#
# WHY: the map says which remote row is which; without it the same has to come of the same rows: each keeps the id that it
# has there, a parent's is translated, what is missing is inserted with the remote's defaults, nothing is written that is
# the same already, and who gets in between is waited for, or met by the unique index, and never overwrites or is
# overwritten for good. Where something else needs the map, it must be there.

use strict;
use warnings;

use lib 'test/t';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE shops (id serial PRIMARY KEY, name text NOT NULL UNIQUE, town text);
CREATE TABLE items (id serial PRIMARY KEY, code text NOT NULL UNIQUE, n integer, shop_id integer REFERENCES shops, note text);
CREATE TABLE rates (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, rate numeric NOT NULL UNIQUE, label text);
CREATE TABLE plain (code integer PRIMARY KEY, label text);
CREATE TABLE loose (id serial PRIMARY KEY, code text UNIQUE, label text);
INSERT INTO shops (name) SELECT 'shop ' || i FROM generate_series(1, 20) i;
SQL
$remote->safe_psql('postgres', <<'SQL');
UPDATE shops SET id = id + 100;
ALTER SEQUENCE items_id_seq RESTART 5001;
CREATE TABLE fired (code text, what text);
GRANT INSERT ON fired TO PUBLIC;
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO fired VALUES (NEW.code, TG_OP); RETURN NEW; END $$;
CREATE TRIGGER fire BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION fire();
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('shops', '{name}'), synchro.add_table('items', '{code}'), synchro.add_table('rates', '{rate}'),
	synchro.add_table('plain'), synchro.add_table('loose', '{code}');
SQL

my $contents = q{SELECT code, n, name, note FROM items LEFT JOIN shops s ON s.id = shop_id ORDER BY code COLLATE "C"};
my $log;

# which tables' maps were filled since the last look
sub mapped
{
	my $text = slurp_file($remote->logfile, $log);

	$log = -s $remote->logfile;
	my %named = reverse($text =~ /INSERT INTO pg_temp\.(m_\d+) [^;]*? FROM (?:ONLY )?public\.(\w+) x /g);
	return join(' ', sort keys %named);
}

# What changes, and comes of it: rows inserted and updated on the remote, tables that needed a map
sub pushes
{
	my ($sql, $expected, $testname) = @_;

	$log = -s $remote->logfile;
	$local->safe_psql('postgres', $sql);
	my $result = sync($local, 'office');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("$result->{inserted} $result->{updated} " . mapped(), $expected, $testname);
	return same($local, $remote, $contents, "$testname: both sides are the same");
}

foreach my $count (3, 4000)
{
	$remote->safe_psql('postgres', 'TRUNCATE fired');
	pushes("INSERT INTO items (code, n, shop_id) SELECT 'i$count ' || i, i, 1 + i % 20 FROM generate_series(1, $count) i",
		"$count 0 shops", "$count new rows that refer to others");
	is(rows($remote, "SELECT count(DISTINCT id), count(*) FILTER (WHERE id <= 5000) FROM items WHERE code ~ '^i$count '"), "$count|0", 'they have ids of the remote');
	my $ids = rows($remote, 'SELECT code, id FROM items ORDER BY code COLLATE "C"');
	my $next = rows($remote, 'SELECT last_value FROM items_id_seq');

	$remote->safe_psql('postgres', 'TRUNCATE fired');
	pushes("UPDATE items SET n = n + 1, shop_id = NULL WHERE code ~ '^i$count '", "0 $count ", "$count rows updated");
	is(rows($remote, 'SELECT code, id FROM items ORDER BY code COLLATE "C"'), $ids, 'they keep their ids');
	is(rows($remote, 'SELECT last_value FROM items_id_seq'), $next, 'no value of the sequence is used up');
	is(rows($remote, 'SELECT what, count(*) FROM fired GROUP BY 1'), "UPDATE|$count", 'and triggers fire once for each');

	# one of them is there no more, one is as it shall be already
	$remote->safe_psql('postgres', "DELETE FROM items WHERE code = 'i$count 1'; UPDATE items SET n = 0 WHERE code = 'i$count 2'; TRUNCATE fired");
	pushes("UPDATE items SET n = 0 WHERE code ~ '^i$count '", '1 ' . ($count - 2) . ' ', 'one is missing there, one is the same');
	is(rows($remote, 'SELECT what, count(*) FROM fired GROUP BY 1 ORDER BY 1'), 'INSERT|1' . "\nUPDATE|" . ($count - 2), 'which no trigger hears of');
}

# where the map is needed: rows that others refer to, other names
pushes(q{UPDATE shops SET town = 'here' WHERE id = 3; UPDATE items SET shop_id = 3 WHERE code IN ('i3 1', 'i3 2')}, '0 3 shops',
	'a row and others that refer to it');
pushes(q{UPDATE shops SET town = 'there' WHERE id < 5}, '0 4 ', 'the same table without them');
pushes(q{UPDATE items SET code = 'renamed', n = 7 WHERE code = 'i3 3'; UPDATE items SET n = 8 WHERE code = 'i3 2'}, '0 2 items shops', 'a row with another name');
pushes(q{DELETE FROM items WHERE code = 'renamed'; INSERT INTO items (code, n) VALUES ('renamed', 9)}, '0 1 items', 'a row deleted and inserted again');

# keys that are the same, but do not look so; identities that are always made, or are the key; keys that may be NULL
$local->safe_psql('postgres', q{INSERT INTO rates (rate, label) VALUES (1.0, 'a'); INSERT INTO plain VALUES (1, 'a'); INSERT INTO loose (code, label) VALUES (NULL, 'a'), ('b', 'b')});
sync($local, 'office');
$remote->safe_psql('postgres', 'UPDATE rates SET rate = 1.000');
pushes(q{UPDATE rates SET label = 'b'; UPDATE plain SET label = 'b'; UPDATE loose SET label = 'c'; INSERT INTO rates (rate) VALUES (2)}, '1 4 loose', 'other kinds of keys');
same($local, $remote, 'SELECT rate::text, label, NULL FROM rates UNION ALL SELECT code::text, label, 1 FROM plain UNION ALL SELECT code, label, 2 FROM loose ORDER BY 1, 2',
	'rates, plain, loose: both sides are the same');

# push while SQL that the remote has run is not committed yet, and commit it when the pusher waits for it
sub push_against
{
	my ($held, $change, $testname) = @_;
	my $session = $remote->background_psql('postgres');
	my $pushing;

	$session->query_safe("BEGIN; $held");
	$local->safe_psql('postgres', $change);
	$pushing = $local->background_psql('postgres', on_error_stop => 0);
	$pushing->query_until(qr/begun/, "\\echo begun\nSELECT FROM synchro.synchronize('office');\n");
	wait_for($remote, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'}, "$testname: is waited for");
	$session->query_safe('COMMIT');
	$pushing->query('\echo all');
	is($pushing->{stderr}, '', "$testname: the push ends well");
	$pushing->quit;
	$session->quit;
	return same($local, $remote, $contents, "$testname: both sides are the same");
}

push_against(q{UPDATE items SET n = 100, note = 'x' WHERE code = 'i3 1'}, q{UPDATE items SET n = 101 WHERE code = 'i3 1'}, 'a row that is being updated there');
push_against(q{INSERT INTO items (code, n) VALUES ('new', 1)}, q{INSERT INTO items (code, n) VALUES ('new', 2)}, 'a row that is being inserted there');
is(rows($remote, q{SELECT count(*) FROM items WHERE code = 'new'}), 1, 'there is one of it');
push_against(q{DELETE FROM items WHERE code = 'i3 2'; INSERT INTO items (code, n) VALUES ('i3 2', 1)}, q{UPDATE items SET n = 102 WHERE code IN ('i3 1', 'i3 2')},
	'a row that is being deleted and inserted there');
push_against(q{DELETE FROM items WHERE code = 'i3 2'}, q{UPDATE items SET n = 103 WHERE code IN ('i3 1', 'i3 2')}, 'a row that is being deleted there');
like(slurp_file($remote->logfile, $log), qr/ERROR:  rows were deleted while they were pushed to/, 'that is noticed');

# who has rows left as they are is not asked again and again
$remote->safe_psql('postgres', <<'SQL');
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN OLD.code = 'i3 1' THEN NULL ELSE NEW END; END $$;
CREATE TRIGGER keep BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION keep();
SQL
$log = -s $remote->logfile;
$local->safe_psql('postgres', q{UPDATE items SET n = 200 WHERE code IN ('i3 1', 'i3 2')});
is(sync($local, 'office')->{updated}, 1, 'a row that a trigger there leaves as it is, beside another one');
is(mapped(), 'items shops', 'the second try has a map');
is(rows($remote, q{SELECT string_agg(n::text, ' ' ORDER BY code) FROM items WHERE code IN ('i3 1', 'i3 2')}), '103 200', 'the trigger holds');

# tables in pieces, and with heirs
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE pieces (code text PRIMARY KEY, n integer) PARTITION BY HASH (code);
CREATE TABLE pieces_0 PARTITION OF pieces FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE pieces_1 PARTITION OF pieces FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE heirs (code text PRIMARY KEY, n integer);
CREATE TABLE heirs_more () INHERITS (heirs);
SQL
$local->safe_psql('postgres', <<'SQL');
CREATE TABLE pieces (code text PRIMARY KEY, n integer);
CREATE TABLE heirs (code text PRIMARY KEY, n integer);
SELECT synchro.add_table('pieces'), synchro.add_table('heirs');
INSERT INTO pieces SELECT i, i FROM generate_series(1, 50) i;
INSERT INTO heirs SELECT i, i FROM generate_series(1, 50) i;
SQL
sync($local, 'office');
$remote->safe_psql('postgres', q{INSERT INTO heirs_more SELECT 'other ' || i, i FROM generate_series(1, 50) i});
$local->safe_psql('postgres', 'UPDATE pieces SET n = n + 1 WHERE n > 10; UPDATE heirs SET n = n + 1 WHERE n > 10');
is(sync($local, 'office')->{updated}, 80, 'rows of tables in pieces are updated');
same($local, $remote, q{SELECT code, n FROM pieces UNION ALL SELECT code, n FROM heirs WHERE code !~ 'other' ORDER BY 1, 2}, 'pieces, heirs: both sides are the same');
is(rows($remote, 'SELECT count(*) FROM heirs_more WHERE code = \'other \' || n'), 50, 'others in them are as they were');

done_testing();
