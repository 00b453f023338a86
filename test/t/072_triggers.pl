# WHY: the log has what our triggers note, so a change that they do not see is never sent, and nobody hears of it. If one of
# them is dropped, or disabled, by hand or by a restore, of a table, of one of its partitions, or of a table that is only inside
# a natural key, the tables that this is about must stop, with a reason that names them and what to do.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils qw(run_command);
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1);
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int, note text);
CREATE TABLE others (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
SQL
$remote->safe_psql('postgres', q{SELECT setval('items_id_seq', 1000), setval('others_id_seq', 1000)});
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('items', '{name}'), synchro.add_table('others', '{name}');
INSERT INTO items (name, cash, note) SELECT 'item ' || i, i, 'note ' || i FROM generate_series(1, 20) i;
INSERT INTO others (name, n) VALUES ('other', 0);
SQL
my $items = 'SELECT name, cash, note FROM items ORDER BY name';
my $healed = 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes';

wait_arrival($remote, 'SELECT count(*) FROM items', '20', 'rows to begin with');

# what happens until the trigger is renewed is in no log
foreach my $how (
	'ALTER TABLE items DISABLE TRIGGER synchro_capture', 'ALTER TABLE items ENABLE REPLICA TRIGGER synchro_capture', 'ALTER TABLE items DISABLE TRIGGER ALL',
	'DROP TRIGGER synchro_capture ON items', 'ALTER TABLE items DISABLE TRIGGER synchro_truncate', 'DROP TRIGGER synchro_truncate ON items')
{
	my (undef, undef, $stderr) = $local->psql('postgres', $how);

	like($stderr, qr/WARNING:  changes of table public\.items are not captured.*HINT:  Run synchro\.alter_table\('public\.items'\)/s, "$how: a warning");
	wait_for($local, q{SELECT count(*) = 1 AND min(relation::text) = 'items' AND min(sqlstate) = '55000' FROM synchro.failures}, 'the table stalls');
	like(rows($local, 'SELECT message, hint FROM synchro.failures'), qr/^changes of table public\.items are not captured: its trigger.*\|Run .*synchro\.alter_table\('public\.items'\)/, 'which says what is wrong with it, and how that is mended');
	$local->safe_psql('postgres', q{UPDATE items SET note = 'meanwhile'; UPDATE others SET n = n + 1});
	wait_arrival($remote, 'SELECT n FROM others', rows($local, 'SELECT n FROM others'), 'others go on');
	wait_for($local, 'SELECT failed FROM synchro.remotes', 'it has still stalled', expected => 1);
	$local->safe_psql('postgres', 'ALTER TABLE items ENABLE TRIGGER ALL') if $how =~ /ALL/;
	$local->safe_psql('postgres', q{SELECT synchro.alter_table('items'); UPDATE items SET cash = cash});
	wait_for($local, $healed, 'alter_table() mends it');
	same($local, $remote, $items, 'what is changed then arrives');
}
$local->safe_psql('postgres', q{TRUNCATE items; INSERT INTO items (name, cash) VALUES ('the only one', 1)});
wait_for($local, $healed, 'all are gone here');
same($local, $remote, $items, 'and there');

# another trigger, and a trigger of a table that is nothing to us, are nobody's matter
$local->safe_psql('postgres', 'CREATE TRIGGER same BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger(); CREATE TABLE unwatched (id int)');
{
	my (undef, undef, $stderr) = $local->psql('postgres',
		'ALTER TABLE items DISABLE TRIGGER same; DROP TRIGGER same ON items; ALTER TABLE unwatched DISABLE TRIGGER ALL; DROP TRIGGER IF EXISTS synchro_capture ON unwatched; DROP TABLE unwatched');

	unlike($stderr, qr/WARNING/, 'other triggers: no warning');
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), '0', 'other triggers: nothing stalls');
}

# a table that is not watched, but whose names are in the key of one that is, at some depth
both($local, $remote, <<'SQL');
CREATE TABLE house (id serial PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE shelf (id serial PRIMARY KEY, house_id int REFERENCES house, code text NOT NULL, UNIQUE (house_id, code));
CREATE TABLE book (id serial PRIMARY KEY, shelf_id int REFERENCES shelf, title text NOT NULL, house_id int REFERENCES house, UNIQUE (shelf_id, title));
CREATE TABLE chair (id serial PRIMARY KEY, name text NOT NULL UNIQUE, house_id int REFERENCES house);
INSERT INTO house (code) VALUES ('h');
INSERT INTO shelf (house_id, code) VALUES (1, 's');
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.register_natural_key('house', '{code}'), synchro.register_natural_key('shelf', '{house_id,code}');
SELECT synchro.add_table('book', '{shelf_id,title}'), synchro.add_table('chair', '{name}');
INSERT INTO book (shelf_id, title) VALUES (1, 'first');
INSERT INTO chair (name, house_id) VALUES ('throne', 1);
SQL
wait_for($local, $healed, 'a book on a shelf');
foreach my $how (map { ("ALTER TABLE $_ DISABLE TRIGGER synchro_capture", "DROP TRIGGER synchro_capture ON $_", "DROP TRIGGER synchro_truncate ON $_") } 'shelf', 'house')
{
	my ($table) = $how =~ /(shelf|house)/;
	my (undef, undef, $stderr) = $local->psql('postgres', $how);

	like($stderr, qr/^\S*\s*WARNING:  changes of table public\.$table are not captured.*HINT:  Run synchro\.alter_table\('public\.book'\)/s, "$how: a warning");
	$local->safe_psql('postgres', q{UPDATE book SET house_id = 1; UPDATE chair SET house_id = 1; UPDATE others SET n = n + 1});
	wait_arrival($remote, 'SELECT n FROM others', rows($local, 'SELECT n FROM others'), "$how: others go on");
	wait_for($local, q{SELECT concat_ws(' ', relation, sqlstate, message, hint) FROM synchro.failures}, "$how: what has it in its key stalls, and nothing else",
		expected => "book 55000 changes of table public.$table are not captured: its trigger is missing or disabled"
		  . q{ Run synchro.alter_table('public.book'), which renews it. Rows that were changed meanwhile are pushed when they change again.});
	$local->safe_psql('postgres', q{SELECT synchro.alter_table('book')});
	wait_for($local, $healed, "$how: it heals");
}
$local->safe_psql('postgres', q{UPDATE house SET code = code || '!'; UPDATE shelf SET code = code || '!'; UPDATE book SET title = 'second'});
$remote->safe_psql('postgres', q{UPDATE house SET code = code || '!'; UPDATE shelf SET code = code || '!'});
wait_for($local, $healed, 'names that changed then are known');
same($local, $remote, 'SELECT title, s.code, h.code FROM book JOIN shelf s ON s.id = shelf_id JOIN house h ON h.id = s.house_id', 'and rows are found by what they were called');

# the same with one partition of several, and where a restore does it to load rows; what replication applies is logged after that, too
both($local, $remote, <<'SQL');
CREATE TABLE split (region text PRIMARY KEY, n int) PARTITION BY LIST (region);
CREATE TABLE split_a PARTITION OF split FOR VALUES IN ('a', 'b');
CREATE TABLE split_c PARTITION OF split FOR VALUES IN ('c') PARTITION BY LIST (region);
CREATE TABLE split_c_1 PARTITION OF split_c FOR VALUES IN ('c');
CREATE TABLE bulk (code text PRIMARY KEY, n int);
INSERT INTO bulk VALUES ('x', 1);
SQL
$local->safe_psql('postgres', q{SELECT synchro.add_table('split'), synchro.add_table('bulk'); INSERT INTO split VALUES ('a', 1), ('c', 1)});
my $enabled = q{SELECT string_agg(DISTINCT tgenabled::text, ' ') FROM pg_trigger WHERE tgname LIKE 'synchro%' AND tgrelid::regclass::text ~ '^(split|bulk)'};

sub stalls_alone
{
	my ($table, $testname) = @_;

	wait_for($local, q{SELECT string_agg(concat_ws(' ', relation, sqlstate), ', ') FROM synchro.failures}, "$testname: the table stalls", expected => "$table 55000");
	$local->safe_psql('postgres', 'UPDATE others SET n = n + 1');
	wait_arrival($remote, 'SELECT n FROM others', rows($local, 'SELECT n FROM others'), "$testname: others go on");
	wait_for($local, 'SELECT failed FROM synchro.remotes', "$testname: it has still stalled", expected => 1);
	return;
}

wait_arrival($remote, 'SELECT count(*) FROM split', '2', 'rows of partitions arrive');
foreach my $how (
	'ALTER TABLE split_a DISABLE TRIGGER ALL', 'ALTER TABLE split_c_1 DISABLE TRIGGER synchro_capture', 'ALTER TABLE split_a DISABLE TRIGGER synchro_truncate',
	'DROP TRIGGER synchro_truncate ON split_c_1')
{
	my ($partition) = $how =~ /(split_\w+)/;
	my (undef, undef, $stderr) = $local->psql('postgres', $how);

	like($stderr, qr/WARNING:  changes of table public\.$partition are not captured.*HINT:  Run synchro\.alter_table\('public\.split'\)/s, "$how: a warning");
	stalls_alone('split', $how);
	$local->safe_psql('postgres', $how =~ /ALL/ ? "ALTER TABLE $partition ENABLE TRIGGER ALL" : q{SELECT synchro.alter_table('split')});
	wait_for($local, 'SELECT failed = 0 FROM synchro.remotes', "$how: it heals");
	is(rows($local, $enabled), 'A', "$how: all triggers are as they were");
	$local->safe_psql('postgres', 'UPDATE split SET n = n + 1');
	wait_arrival($remote, 'SELECT region, n FROM split ORDER BY 1', rows($local, 'SELECT region, n FROM split ORDER BY 1'), "$how: changes arrive");
}
{
	my $dump = $local->basedir . '/bulk.dump';

	$local->command_ok([ 'pg_dump', '-Fc', '-a', '-t', 'bulk', '-f', $dump, '-d', $local->connstr('postgres') ], 'rows are dumped');
	$local->safe_psql('postgres', 'DELETE FROM bulk');
	wait_arrival($remote, 'SELECT count(*) FROM bulk', '0', 'and deleted');
	my ($stdout, $stderr) = run_command([ 'pg_restore', '--verbose', '--data-only', '--disable-triggers', '-d', $local->connstr('postgres'), $dump ]);

	like($stderr, qr/WARNING:  changes of table public\.bulk are not captured/, 'pg_restore --disable-triggers: a warning');
	is(rows($local, 'SELECT count(*) FROM bulk'), '1', 'pg_restore --disable-triggers: the row is there');
	is(rows($local, $enabled), 'A', 'pg_restore --disable-triggers: all triggers are as they were');
	$local->safe_psql('postgres', 'SET client_min_messages = error; SET check_function_bodies = off; ALTER TABLE bulk DISABLE TRIGGER ALL');
	stalls_alone('bulk', 'while a restore goes on');
	$local->safe_psql('postgres', 'SET check_function_bodies = off; ALTER TABLE bulk ENABLE TRIGGER ALL');
	wait_for($local, 'SELECT failed = 0 FROM synchro.remotes', 'and heals after it');
}

# Each file that pg_dump has written begins with a setting by which a restore is told, and so does what was made from one.
{
	my $sql = 'SET check_function_bodies = off; CREATE TABLE split_d PARTITION OF split FOR VALUES IN (\'d\')';
	my (undef, undef, $stderr) = $local->psql('postgres', $sql);

	is($stderr, '', 'a partition made by such a file: no warning');
	$remote->safe_psql('postgres', $sql);
	$local->safe_psql('postgres', q{INSERT INTO split VALUES ('d', 1)});
	wait_arrival($remote, q{SELECT count(*) FROM split WHERE region = 'd'}, '1', '... its rows arrive');
	$local->safe_psql('postgres', 'TRUNCATE split_d');
	wait_arrival($remote, q{SELECT count(*) FROM split WHERE region = 'd'}, '0', '... and go with TRUNCATE');

	# what a dump itself does: it makes the trigger after that
	$sql = q{SET check_function_bodies = off; CREATE TABLE split_e (region text NOT NULL PRIMARY KEY, n int); ALTER TABLE ONLY split ATTACH PARTITION split_e FOR VALUES IN ('e')};
	$remote->safe_psql('postgres', $sql);
	(undef, undef, $stderr) = $local->psql('postgres', $sql);
	like($stderr, qr/WARNING:  changes of table public\.split are not captured.*HINT:  Run synchro\.alter_table\('public\.split'\)/s, 'one attached by such a file: a warning');
	stalls_alone('split', 'one attached by such a file');
	$local->safe_psql('postgres', 'CREATE TRIGGER synchro_truncate BEFORE TRUNCATE ON split_e FOR EACH STATEMENT EXECUTE FUNCTION synchro.capture_truncate()');
	$local->safe_psql('postgres', q{SELECT synchro.alter_table('split'); INSERT INTO split VALUES ('e', 1)});
	wait_arrival($remote, q{SELECT count(*) FROM split WHERE region = 'e'}, '1', '... which can make the trigger itself, and then it heals');
	is(rows($local, $enabled), 'A', '... with all triggers as they are to be');
}

$local->stop('fast');
$remote->stop('fast');
done_testing();
