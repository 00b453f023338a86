# What the application on either side must not notice, and what must not be done quietly.
#
# WHY: triggers fire in other people's transactions and rows are written under other people's rules. A burnt sequence, a
# rewritten row, a writer who suddenly needs a right, a row that a policy hides and that is therefore deleted: each of these
# is noticed late, and by somebody who has never heard of synchro.

use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $local = synchro_node('local', streaming => 'logical', conf => "wal_level = logical\nmax_replication_slots = 4");
my $remote = synchro_node('remote');
my $secret = 'pass word with=\'quotes\' & "more"';

both($local, $remote, <<'SQL');
CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE NOT NULL, cash integer, note text);
CREATE TABLE plain (id serial PRIMARY KEY, name text);
SQL
connect_remote($local, $remote, password => $secret);
$local->safe_psql('postgres', q{SELECT synchro.add_table('items', '{name}'); SELECT synchro.add_table('plain');
	INSERT INTO items (name, cash) VALUES ('a', 1), ('b', 2); INSERT INTO plain (name) VALUES ('x')});
is(sync($local, 'office')->{inserted}, 3, 'rows to begin with');

#
# Existing rows
#
{
	my $sequences = q{SELECT last_value, is_called FROM items_id_seq UNION ALL SELECT last_value, is_called FROM plain_id_seq};
	my $before = rows($remote, $sequences);

	$local->safe_psql('postgres', q{DO $$BEGIN FOR i IN 1..1000 LOOP UPDATE items SET cash = i; UPDATE plain SET name = 'x' || i; COMMIT; END LOOP; END$$});
	my $result = sync($local, 'office');
	is("@$result{qw(inserted updated deleted)}", '0 3 0', 'a thousand updates of a row cost one');
	for my $i (1 .. 10)
	{
		$local->safe_psql('postgres', "UPDATE items SET cash = -$i; UPDATE plain SET name = 'y$i'");
		sync($local, 'office');
	}
	same($local, $remote, 'SELECT name, cash FROM items ORDER BY name', 'the last one counts');
	is(rows($remote, $sequences), $before, 'updates leave the sequences of the remote where they were');

	my $tuples = 'SELECT name, xmin, ctid FROM items UNION ALL SELECT name, xmin, ctid FROM plain ORDER BY 1';
	$before = rows($remote, $tuples);
	$local->safe_psql('postgres', q{UPDATE items SET cash = cash; UPDATE plain SET name = name; UPDATE items SET name = 'tmp' WHERE name = 'a'; UPDATE items SET name = 'a' WHERE name = 'tmp'});
	$result = sync($local, 'office');
	is($result->{message}, 'Synchronization performed successfully.', 'unchanged rows are sent again');
	is("@$result{qw(inserted updated deleted)}", '0 0 0', 'none is counted as written');
	is(rows($remote, $tuples), $before, 'and none is: the tuples are the same');

	$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE seen (what text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$BEGIN
	INSERT INTO seen VALUES (TG_WHEN || ' ' || TG_OP || ' ' || COALESCE(NEW.name, '')); RETURN NEW; END$$;
CREATE TRIGGER see_insert BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION see();
CREATE TRIGGER see_update BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION see();
SQL
	$local->safe_psql('postgres', q{UPDATE items SET cash = 7; INSERT INTO items (name) VALUES ('c')});
	sync($local, 'office');
	is(rows($remote, 'SELECT what FROM seen ORDER BY 1'), "BEFORE INSERT c\nBEFORE UPDATE a\nBEFORE UPDATE b",
		'BEFORE INSERT does not fire for existing rows, BEFORE UPDATE does, each once');
	$remote->safe_psql('postgres', 'DROP FUNCTION see() CASCADE');
}

#
# The writer
#
{
	is(rows($local, <<'SQL'), "3|3\n4|4", "lastval() and currval() are the application's");
INSERT INTO plain (name) VALUES ('l'), ('m');
SELECT lastval(), currval('plain_id_seq');
BEGIN; INSERT INTO plain (name) VALUES ('n'); COMMIT;
SELECT lastval(), currval('plain_id_seq');
SQL
	$local->safe_psql('postgres', <<'SQL');
REVOKE ALL ON SCHEMA synchro FROM PUBLIC;
CREATE ROLE writer LOGIN;
GRANT SELECT, INSERT, UPDATE, DELETE ON items, plain TO writer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO writer;
CREATE SCHEMA hostile AUTHORIZATION writer;
SQL
	my ($status, undef, $stderr) = $local->psql('postgres', q{SET SESSION AUTHORIZATION writer; SELECT synchro.synchronize()});
	isnt($status, 0, 'a writer may not synchronize');
	like($stderr, qr/permission denied for schema synchro/, 'for want of rights');
	$local->safe_psql('postgres', <<'SQL');
SET SESSION AUTHORIZATION writer;
INSERT INTO items (name, cash) VALUES ('by writer', 1), ('gone', 2);
UPDATE items SET name = 'renamed by writer', cash = 5 WHERE name = 'by writer';
DELETE FROM items WHERE name = 'gone';
SQL
	is(sync($local, 'office')->{inserted}, 4, 'one without any right on schema synchro can write');
	same($local, $remote, 'SELECT name, cash FROM items ORDER BY name', 'and what he wrote is pushed');
	$local->safe_psql('postgres', 'GRANT USAGE ON SCHEMA synchro TO PUBLIC');
}

#
# Hostile names
#
{
	# traps that raise an error when anything of ours uses them instead of what it means
	my $traps = <<'SQL';
CREATE FUNCTION hostile.trap() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
CREATE FUNCTION hostile.trapped(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.trapped(integer, integer) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.trapped(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.trapped(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.trapped(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.trapped);
CREATE OPERATOR hostile.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = hostile.trapped);
CREATE OPERATOR hostile.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.trapped);
CREATE OPERATOR hostile.= (LEFTARG = name, RIGHTARG = name, FUNCTION = hostile.trapped);
CREATE OPERATOR hostile.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = hostile.trapped);
CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz WHERE hostile.trap()';
CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz WHERE hostile.trap()';
CREATE FUNCTION hostile.gen_random_uuid() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid WHERE hostile.trap()';
CREATE FUNCTION hostile.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT NULL::text WHERE hostile.trap()';
CREATE FUNCTION hostile.format(text, text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text WHERE hostile.trap()';
CREATE FUNCTION hostile.nextval(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint WHERE hostile.trap()';
CREATE FUNCTION hostile.count(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint WHERE hostile.trap()';
CREATE TABLE hostile.pg_class (oid oid, relname name);
CREATE TABLE hostile.pg_attribute (attrelid oid, attname name);
CREATE TABLE hostile.items (id integer, name text, cash integer, note text);
CREATE TABLE hostile.remote (server name);
CREATE TABLE hostile.remote_state (server name);
CREATE TABLE hostile.backlog (server name);
CREATE TABLE hostile.watched (relation oid);
CREATE TABLE hostile.natural_key (relation oid);
CREATE TABLE hostile.position (node uuid, token uuid);
CREATE TABLE hostile.reference (node uuid);
CREATE TABLE hostile.unapplied (node uuid);
SQL
	my $path = 'hostile, pg_temp, public, pg_catalog';

	$remote->safe_psql('postgres', "CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO sync; $traps; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hostile TO sync");
	$remote->safe_psql('postgres', "ALTER ROLE sync SET search_path = $path");
	$local->safe_psql('postgres', "SET ROLE writer; $traps");
	$local->safe_psql('postgres', "GRANT USAGE ON SCHEMA hostile TO PUBLIC; ALTER DATABASE postgres SET search_path = $path");
	my ($status) = $local->psql('postgres', q{SELECT count(*) FROM public.items WHERE name = 'a'});
	isnt($status, 0, 'the traps work');
	# temporary tables named like ours as well
	my ($written, $out, $stderr) = $local->psql('postgres', <<'SQL');
CREATE TEMP TABLE log_0 (a integer); CREATE TEMP TABLE log_1 (a integer); CREATE TEMP TABLE watched (a integer); CREATE TEMP TABLE items (a integer);
INSERT INTO public.items (name, cash) VALUES ('hostile', 66);
UPDATE public.items SET cash = 67, name = name || '!' WHERE cash OPERATOR(pg_catalog.=) 66;
DELETE FROM public.items WHERE cash OPERATOR(pg_catalog.=) 5;
INSERT INTO public.plain (name) VALUES ('hostile');
SELECT message FROM synchro.synchronize('office');
SQL
	is($out, 'Synchronization performed successfully.', 'a search_path with traps changes nothing') or diag $stderr;
	$local->safe_psql('postgres', q{SELECT synchro.remove_table('public.plain'); SELECT synchro.add_table('public.plain'); SELECT * FROM synchro.tables; SELECT * FROM synchro.changes;
		SELECT synchro.reset('office', true); SELECT synchro.checkpoint('office'); SELECT synchro.set_checkpoint('office', pg_catalog.now()); SELECT synchro.peer_setup()});
	pass('nor for the other functions and views');
	$local->safe_psql('postgres', 'ALTER DATABASE postgres RESET search_path');
	$remote->safe_psql('postgres', 'ALTER ROLE sync RESET search_path');
	same($local, $remote, 'SELECT name, cash FROM items ORDER BY name', 'all arrived at the right tables');
	is(rows($_, 'SELECT count(*) FROM hostile.items'), 0, 'and none elsewhere') foreach $local, $remote;
	$_->safe_psql('postgres', 'SET client_min_messages = warning; DROP SCHEMA hostile CASCADE') foreach $local, $remote;
}

#
# Publications and logical decoding
#
{
	$local->safe_psql('postgres', q{CREATE PUBLICATION everything FOR ALL TABLES; SELECT pg_create_logical_replication_slot('decoded', 'test_decoding')});
	$local->safe_psql('postgres', q{INSERT INTO items (name) VALUES ('published'); UPDATE items SET cash = 3 WHERE name = 'published'; UPDATE items SET name = 'published 2' WHERE name = 'published'});
	is(sync($local, 'office')->{inserted}, 1, 'FOR ALL TABLES does not break writing or pushing');
	$local->safe_psql('postgres', q{DELETE FROM items WHERE name = 'published 2'});
	is(sync($local, 'office')->{deleted}, 1, 'nor deleting');
	my $decoded = rows($local, q{SELECT data FROM pg_logical_slot_get_changes('decoded', NULL, NULL)});
	like($decoded, qr/table public\.items: INSERT/, 'logical decoding shows the application\'s changes');
	unlike($decoded, qr/synchro\.log_/, 'and nothing of the log');
	$local->safe_psql('postgres', q{SELECT pg_drop_replication_slot('decoded'); DROP PUBLICATION everything});
	my $peer = rows($remote, q{SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'synchro_peer'});
	$remote->safe_psql('postgres', 'CREATE PUBLICATION everything FOR ALL TABLES');
	$local->safe_psql('postgres', q{UPDATE items SET cash = 4 WHERE name = 'a'; UPDATE items SET name = 'bb' WHERE name = 'b'; DELETE FROM plain WHERE name = 'm'});
	is(sync($local, 'office')->{failed}, 0, 'nor does one on the remote, for what we keep there');
	$remote->safe_psql('postgres', 'DROP PUBLICATION everything');
	cmp_ok($peer, '>', 0, 'which is there');
}

#
# Row-level security: what is hidden is not gone.
#
{
	both($local, $remote, 'CREATE TABLE secured (id serial PRIMARY KEY, name text UNIQUE, owner text)');
	$local->safe_psql('postgres', q{SELECT synchro.add_table('secured', '{name}'); INSERT INTO secured (name, owner) VALUES ('s1', 'x'), ('s2', 'y')});
	is(sync($local, 'office')->{inserted}, 2, 'without policies rows arrive');

	$remote->safe_psql('postgres', q{ALTER TABLE secured ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON secured TO sync USING (owner = 'x')});
	$local->safe_psql('postgres', q{UPDATE secured SET owner = owner || '!'});
	sync_parks($local, 'office', qr/42501: .*query would be affected by row-level security policy for table "secured"/s, 'a policy on the remote that may hide rows is an error');
	$local->safe_psql('postgres', q{DELETE FROM secured WHERE name = 's2'});
	sync_parks($local, 'office', qr/42501: .*row-level security/s, 'also for deletes');
	is(rows($remote, 'SELECT name, owner FROM secured ORDER BY name'), "s1|x\ns2|y", 'nothing was written');
	$remote->safe_psql('postgres', 'ALTER TABLE secured DISABLE ROW LEVEL SECURITY');
	is(sync($local, 'office')->{failed}, 0, 'when it is gone, all goes on');
	same($local, $remote, 'SELECT name, owner FROM secured ORDER BY name', 'and arrives');
}

#
# An owner who is no superuser: his rights, his password, his policies
#
{
	$local->safe_psql('postgres', 'CREATE DATABASE owned');
	$remote->safe_psql('postgres', 'CREATE DATABASE owned');
	both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE)', dbname => 'owned');
	connect_remote($local, $remote, name => 'branch', dbname => 'owned', user => 'branch_sync', password => $secret, add => 0);
	$local->safe_psql('owned', <<'SQL');
CREATE ROLE keeper LOGIN;
GRANT USAGE ON FOREIGN DATA WRAPPER synchro_fdw TO keeper;
ALTER SERVER branch OWNER TO keeper;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA synchro TO keeper;
SELECT synchro.add_table('t', '{name}');
SET ROLE keeper;
SELECT synchro.add_remote('branch');
SQL
	my %db = (dbname => 'owned');
	$local->safe_psql('owned', q{INSERT INTO t (name) VALUES ('a'), ('b')});
	sync_fails($local, 'branch', qr/user mapping/, 'the owner without a user mapping: an error, the superuser\'s is not used', %db);
	$local->safe_psql('owned', q{CREATE USER MAPPING FOR keeper SERVER branch OPTIONS (user 'branch_sync')});
	sync_fails($local, 'branch', qr/password is required/, 'who is no superuser needs a password', %db);
	$local->safe_psql('owned', "ALTER USER MAPPING FOR keeper SERVER branch OPTIONS (ADD password '" . ($secret =~ s/'/''/gr) . "')");
	sync_parks($local, 'branch', qr/42501: .*permission denied for table t/, 'and rights on the table, since it is read as him', %db);
	$local->safe_psql('owned', q{GRANT SELECT ON t TO keeper; ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON t TO keeper USING (name = 'a')});
	sync_parks($local, 'branch', qr/42501: .*row-level security policy for table "t"/, 'a policy here that hides rows from him is an error', %db);
	is(rows($remote, 'SELECT count(*) FROM t', 'owned'), 0, 'nothing was pushed until then');
	$local->safe_psql('owned', 'ALTER TABLE t DISABLE ROW LEVEL SECURITY');
	is(sync($local, 'branch', %db)->{inserted}, 2, 'then his rows are pushed');
	$local->safe_psql('owned', q{ALTER TABLE t ENABLE ROW LEVEL SECURITY; UPDATE t SET name = name || '2'});
	sync_parks($local, 'branch', qr/42501/, 'a policy that comes later stops it', %db);
	is(rows($remote, 'SELECT count(*) FROM t', 'owned'), 2, 'and what it hides is not deleted');
	$local->safe_psql('owned', 'ALTER TABLE t DISABLE ROW LEVEL SECURITY');
	is(sync($local, 'branch', %db)->{updated}, 2, 'without it the rows are updated');
}

#
# Calls that cannot work, and one that is given up
#
{
	$local->safe_psql('postgres', q{UPDATE items SET cash = 100 WHERE name = 'a'});
	my $started = time;
	my ($status, undef, $stderr) = $local->psql('postgres', "\\set VERBOSITY verbose\nBEGIN; LOCK TABLE items; SELECT synchro.synchronize('office'); COMMIT");
	my $took = time - $started;
	isnt($status, 0, 'a caller that holds a lock on a watched table gets an error');
	like($stderr, qr/55P03: .*HINT:  Commit before/s, '55P03 and what to do');
	cmp_ok($took, '<', 20, sprintf 'soon (%.1f s; as a rule one)', $took);
	wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'synchro pusher%'}, 'no worker is left of it');

	($status, undef, $stderr) = $local->psql('postgres', "\\set VERBOSITY verbose\nBEGIN READ ONLY; SELECT synchro.synchronize('office'); COMMIT");
	isnt($status, 0, 'in a read-only transaction it is an error');
	like($stderr, qr/25006: .*cannot execute synchronize\(\) in a read-only transaction/, 'that says so');

	my $out;
	($status, $out, $stderr) = $local->psql('postgres', q{BEGIN; UPDATE items SET cash = 555 WHERE name = 'bb'; SELECT updated FROM synchro.synchronize('office'); COMMIT});
	is($status, 0, 'own uncommitted changes of a row are no obstacle');
	like($stderr, qr/NOTICE:  changes of this transaction are not committed yet, so they are not pushed/, 'but a notice');
	is($out, '1', 'what others had committed is pushed');
	is(rows($remote, q{SELECT cash FROM items WHERE name = 'a'}), 100, 'and is there');
	is(sync($local, 'office')->{updated}, 1, 'the own change with the next call');
}

#
# Cancelling
#
{
	my $blocker = $remote->background_psql('postgres');
	my $caller = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $local->connstr('postgres'), '-c', q{SELECT synchro.synchronize('office')} ],
		'<', \undef, '>', \my $stdout, '2>', \my $stderr);

	# the call above had nothing to push and may be over: this one waits
	$caller->finish;
	$blocker->query_safe('BEGIN; LOCK TABLE items');
	$local->safe_psql('postgres', q{UPDATE items SET cash = 200 WHERE name = 'a'});
	$caller = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $local->connstr('postgres'), '-c', q{SELECT synchro.synchronize('office')} ],
		'<', \undef, '>', \$stdout, '2>', \$stderr);
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 'items'::regclass AND NOT granted}, 'a push waits for a lock on the remote');
	wait_for($local, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' OR (backend_type LIKE 'synchro pusher%' AND xact_start IS NOT NULL)},
		'its worker holds no transaction meanwhile', expected => 0);
	is(rows($local, q{SELECT count(*) FROM (SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT synchro.synchronize%' AND pid <> pg_backend_pid()) x}), 1, 'the caller is cancelled');
	$caller->finish;
	like($stderr, qr/canceling statement due to user request/, 'and ends');
	wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'synchro pusher%'}, 'so does its worker');
	$blocker->query_safe('ROLLBACK');
	$blocker->quit;
	wait_for($remote, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'sync'}, 'and the session on the remote');
	is(sync($local, 'office')->{updated} + rows($remote, q{SELECT count(*) FROM items WHERE name = 'a' AND cash = 100}), 1, 'nothing is lost');
	is(rows($remote, q{SELECT cash FROM items WHERE name = 'a'}), 200, 'the row is there');
}

#
# A remote that is not as it should be
#
{
	my $escaped = $secret =~ s/'/''/gr;

	$local->safe_psql('postgres', q{UPDATE items SET cash = 300 WHERE name = 'a'});
	$remote->stop;
	sync_fails($local, 'office', qr/08001: .*could not connect to remote "office".*Connection refused/s, 'a remote that is down');
	$remote->start;
	$local->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (SET password 'Xwrong-one')});
	sync_fails($local, 'office', qr/08001: .*could not connect to remote "office".*password authentication failed for user "sync"/s, 'a wrong password');
	$local->safe_psql('postgres', "ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (SET password '$escaped')");

	$remote->safe_psql('postgres', 'ALTER TABLE items RENAME TO items_elsewhere');
	sync_parks($local, 'office', qr/42P01: .*remote "office" has no table public\.items.*HINT: Create the table there/s, 'a missing table');
	$remote->safe_psql('postgres', 'ALTER TABLE items_elsewhere RENAME TO items; ALTER TABLE items RENAME cash TO money');
	sync_parks($local, 'office', qr/42703: .*table public\.items of remote "office" has no column "cash".*HINT: Add the column there, or skip it/s, 'a missing column');
	$remote->safe_psql('postgres', 'ALTER TABLE items RENAME money TO cash; ALTER TABLE items RENAME name TO title');
	sync_parks($local, 'office', qr/42703: .*table public\.items of remote "office" has no column "name".*HINT: /s, 'a missing column of the key');
	$remote->safe_psql('postgres', 'ALTER TABLE items RENAME title TO name; REVOKE UPDATE ON items FROM sync');
	sync_parks($local, 'office', qr/42501: .*remote "office": permission denied for table items.*HINT: SELECT \* FROM synchro\.check\('office'\) gives/s, 'a missing right');
	is(rows($local, q{SELECT fix FROM synchro.check('office') WHERE problem ~ 'lacks'}), qq{-- on remote "office"\nGRANT UPDATE ON public.items TO sync;}, 'which check() gives, indeed');
	$remote->safe_psql('postgres', 'GRANT UPDATE ON items TO sync');
	is(sync($local, 'office')->{updated}, 1, 'all mended, the row arrives');
}

#
# Secrets
#
{
	my $views = rows($local, q{SELECT string_agg(x::text, ' ') FROM (SELECT row_to_json(r)::text AS x FROM synchro.remotes r UNION ALL SELECT query || application_name FROM pg_stat_activity) y});

	isnt($views, '', 'there is something to look at');
	unlike($views, qr/pass word|Xwrong-one/, 'no password in views');
	# the statements by which this test sets passwords are its own, and logged by log_statement
	foreach my $node ($local, $remote)
	{
		my @lines = grep { /pass word|Xwrong-one/ && !/USER MAPPING|CREATE ROLE/ } split /\n/, slurp_file($node->logfile);

		is_deeply(\@lines, [], 'none in the log of ' . $node->name);
	}
}

#
# Tables that inherit: a row of one of them is none of the other's, whatever it is called
#
{
	both($local, $remote, <<'SQL');
CREATE TABLE cities (id integer PRIMARY KEY, name text);
CREATE TABLE capitals (land text, PRIMARY KEY (id)) INHERITS (cities);
CREATE TABLE places (id serial PRIMARY KEY, name text NOT NULL UNIQUE, depth integer);
CREATE TABLE harbours (PRIMARY KEY (id), UNIQUE (name)) INHERITS (places);
CREATE TABLE ships (id serial PRIMARY KEY, name text NOT NULL UNIQUE, place integer REFERENCES places);
SQL
	$remote->safe_psql('postgres', 'ALTER SEQUENCE places_id_seq RESTART 500');
	$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('cities'), synchro.add_table('capitals'), synchro.add_table('places', '{name}'), synchro.add_table('harbours', '{name}'),
	synchro.add_table('ships', '{name}');
INSERT INTO cities SELECT i, 'city ' || i FROM generate_series(1, 9) i;
INSERT INTO capitals VALUES (20, 'capital', 'land');
INSERT INTO places (name, depth) SELECT 'place ' || i, i FROM generate_series(1, 9) i;
INSERT INTO harbours SELECT * FROM places WHERE depth < 4;
INSERT INTO ships (name, place) SELECT 'ship ' || depth, id FROM ONLY places;
SQL
	my @queries = ('SELECT id, name FROM ONLY cities ORDER BY id', 'SELECT id, name, land FROM capitals ORDER BY id', 'SELECT name, depth FROM ONLY places ORDER BY name',
		'SELECT name, depth FROM harbours ORDER BY name', 'SELECT s.name, p.name FROM ships s LEFT JOIN ONLY places p ON p.id = s.place ORDER BY 1');
	my $is = sub { same($local, $remote, $_, "heirs: $_[0]: $_") foreach @queries };

	sync($local, 'office');
	$is->('all arrive');
	$local->safe_psql('postgres', q{BEGIN; INSERT INTO capitals SELECT id, name, 'land' FROM ONLY cities WHERE id = 7; DELETE FROM ONLY cities WHERE id = 7; COMMIT;
		BEGIN; INSERT INTO cities VALUES (10, 'city 10'); INSERT INTO capitals VALUES (8, 'capital 8'), (9, 'capital 9'); COMMIT});
	sync($local, 'office');
	$is->('one moves to the other table');
	$local->safe_psql('postgres', q{UPDATE ONLY cities SET name = 'new ' || name WHERE id = 8; UPDATE ONLY places SET depth = -depth WHERE depth < 3;
		UPDATE ONLY places SET name = 'new ' || name WHERE depth = 3; UPDATE ships SET name = 'new ' || name});
	sync($local, 'office');
	$is->('changes');
	$local->safe_psql('postgres', q{DELETE FROM ONLY cities WHERE id = 9; DELETE FROM ships WHERE name = 'new ship 1'; DELETE FROM ONLY places WHERE depth = -1;
		UPDATE capitals SET land = 'other'});
	sync($local, 'office');
	$is->('deletes');
	is(rows($local, q{SELECT count(*) FROM synchro.verify('office')}), 0, 'heirs: nothing else is on either side');
}

#
# More than is kept in memory between reading and sending
#
{
	my $n = 12;

	$local->safe_psql('postgres', "INSERT INTO items (name, note) SELECT 'large ' || i, repeat(i::text, 1000000) FROM generate_series(1, $n) i");
	is(sync($local, 'office')->{inserted}, $n, 'a batch of many megabytes arrives');
	same($local, $remote, q{SELECT name, md5(note) FROM items WHERE name LIKE 'large %' ORDER BY 1}, 'byte by byte');
}

done_testing();
