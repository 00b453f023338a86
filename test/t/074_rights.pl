# WHY: synchro reads tables for many and writes them as one: whoever has no right to a table must not get at its rows by way of
# a view, a function, an error or a remote of his own. And the pushing role must get by with what any client has, or nobody
# could let it in.
use strict;
use warnings;

use lib 'test/t';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => 'synchro.batch_size = 10000');
my $remote = synchro_node('remote');

sub as
{
	my ($role, $sql) = @_;
	my ($status, $stdout, $stderr) =
	  $local->psql('postgres', "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', $role ], on_error_stop => 1);

	return wantarray ? ($stdout, $stderr) : $stdout;
}

sub denied
{
	my ($role, $sql, $pattern, $testname) = @_;
	my ($stdout, $stderr) = as($role, $sql);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($stderr, $pattern, $testname);
	return $stderr;
}

both($local, $remote, <<'SQL');
CREATE TABLE open (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE closed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE divided (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE remembered (id serial PRIMARY KEY, name text, n int);
SQL
$remote->safe_psql('postgres', "ALTER TABLE $_ ADD CHECK (n < 100)") foreach qw(open closed divided);

#
# the pushing role
#
subtest 'what the pushing role has' => sub {
	connect_remote($local, $remote);
	$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table(t, '{name}') FROM unnest('{open,closed,divided}'::regclass[]) t;
SELECT synchro.add_table('remembered');
INSERT INTO open (name, n) VALUES ('o', 1);
INSERT INTO closed (name, n) VALUES ('c', 1), ('c to go', 1), ('c to be renamed', 1);
INSERT INTO divided (name, n) VALUES ('d', 1);
INSERT INTO remembered (name, n) VALUES ('r', 1), ('s', 1);
SQL
	is(sync($local, 'office')->{inserted}, 7, 'rows get there, where ids are serial, identity or remembered');
	$local->safe_psql('postgres', q{UPDATE remembered SET n = 2 WHERE name = 'r'; DELETE FROM remembered WHERE name = 's'; UPDATE open SET name = 'p'});
	is(sync($local, 'office')->{deleted}, 1, 'are updated, renamed and deleted');
	same($local, $remote, 'SELECT name, n FROM remembered UNION SELECT name, n FROM open ORDER BY name', 'both are the same');
	is(rows($remote, <<'SQL'), <<'EXPECTED' =~ s/\n\z//r, 'and all that it has been granted is this');
WITH given(what, grantee, privilege) AS (
	SELECT 'database', a.grantee, a.privilege_type FROM pg_database d, aclexplode(d.datacl) a WHERE datname = current_database()
	UNION SELECT 'schema', a.grantee, a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a WHERE nspname !~ '^pg_|^information_schema$'
	UNION SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, a.grantee, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
	UNION SELECT 'column', a.grantee, a.privilege_type FROM pg_attribute c, aclexplode(c.attacl) a
	UNION SELECT 'function', a.grantee, a.privilege_type FROM pg_proc p, aclexplode(p.proacl) a
	UNION SELECT 'parameter', a.grantee, a.privilege_type FROM pg_parameter_acl p, aclexplode(p.paracl) a)
SELECT what, string_agg(privilege, ' ' ORDER BY privilege COLLATE "C") FROM given WHERE grantee = 'sync'::regrole GROUP BY what ORDER BY what
SQL
database|CONNECT TEMPORARY
schema|USAGE
sequence|USAGE
table|DELETE INSERT SELECT UPDATE
EXPECTED
	is(rows($remote, q{SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = 'sync'}),
		'f|t|f|f|f|f', 'it is nothing special');
	is(rows($remote, q{SELECT count(*) FROM pg_auth_members WHERE member = 'sync'::regrole}), '0', 'nor a member of anything');
	is(rows($remote, q{SELECT count(*) FROM pg_class WHERE relowner = 'sync'::regrole AND relpersistence <> 't'}), '0', 'and owns nothing that stays');
	# before 15 of new databases, and in old ones still, anybody may make objects in public
	is(rows($remote, q{SELECT has_schema_privilege('sync', 'public', 'CREATE'), has_database_privilege('sync', 'postgres', 'CREATE')}), 'f|f', 'nor could it');
};

# that it stays so, every test sees to when it stops the remote, or ends
is_deeply([ $remote->excess ], [], 'the pushing role has nothing else that it should not have');
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE owned (n int); CREATE ROLE others; GRANT others TO sync; ALTER TABLE owned OWNER TO sync;
GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT CREATE ON DATABASE postgres TO others; ALTER ROLE sync CREATEDB BYPASSRLS;
GRANT ALL ON open TO sync; GRANT TRUNCATE ON closed TO PUBLIC; GRANT REFERENCES (name) ON closed TO sync; GRANT SELECT ON open_id_seq TO sync;
GRANT SET ON PARAMETER log_statement TO sync; GRANT EXECUTE ON FUNCTION pg_read_file(text) TO sync;
SQL
# from 17 on, ALL is MAINTAIN, too
is(join("\n", sort map { s/MAINTAIN, //r } $remote->excess), <<'EXPECTED' =~ s/\n\z//r, 'if it had, that would be seen');
sync: has BYPASSRLS
sync: has CREATEDB
sync: has EXECUTE on function pg_read_file(text)
sync: has REFERENCES on column closed.name
sync: has REFERENCES, TRIGGER, TRUNCATE on table open
sync: has SELECT on sequence open_id_seq
sync: has SET on parameter log_statement
sync: has TRUNCATE on table closed
sync: is a member of others
sync: may create in database postgres
sync: may create in schema public
sync: owns public.owned
EXPECTED
$remote->safe_psql('postgres', <<'SQL');
DROP TABLE owned; REVOKE CREATE ON DATABASE postgres FROM others; DROP ROLE others;
REVOKE CREATE ON SCHEMA public FROM PUBLIC; ALTER ROLE sync NOCREATEDB NOBYPASSRLS;
REVOKE ALL ON open FROM sync; GRANT SELECT, INSERT, UPDATE, DELETE ON open TO sync; REVOKE TRUNCATE ON closed FROM PUBLIC; REVOKE REFERENCES (name) ON closed FROM sync;
REVOKE SELECT ON open_id_seq FROM sync; REVOKE SET ON PARAMETER log_statement FROM sync; REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM sync;
SQL

#
# views and functions
#
$local->safe_psql('postgres', <<'SQL');
CREATE ROLE reader LOGIN;
CREATE SCHEMA lab AUTHORIZATION reader;
GRANT SELECT ON ALL TABLES IN SCHEMA synchro TO reader;
REVOKE SELECT ON synchro.log_0, synchro.log_1, synchro.log_2, synchro.backlog, synchro.parked, synchro.stalled, synchro.conflict FROM reader;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA synchro TO reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON open, divided TO reader;
GRANT INSERT, UPDATE, DELETE ON closed TO reader;
ALTER TABLE divided ENABLE ROW LEVEL SECURITY;
CREATE POLICY a_few ON divided TO reader USING (n < 0);
UPDATE open SET n = 1000; UPDATE closed SET n = 1000 WHERE name = 'c'; UPDATE divided SET n = 1000;
SQL
is(sync($local, 'office')->{failed}, 3, 'a row of each table is refused');
$local->safe_psql('postgres', <<'SQL');
INSERT INTO synchro.conflict (node, relation, identity, name, local_changed_at, remote_changed_at, winner, ambiguous, loser)
	SELECT gen_random_uuid(), t, '{77}', '{lost key}', now(), now(), 'local', false, jsonb_build_object('name', t || ' lost', 'n', NULL)
	FROM unnest('{open,closed,divided}'::regclass[]) t;
-- the server believes that this is cheaper than whatever the view asks
CREATE FUNCTION lab.peek(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS 'BEGIN RAISE NOTICE ''peek %'', $1; RETURN true; END';
SQL

foreach my $view ('failures', 'changes', 'conflicts', 'log_entries()')
{
	is(as('reader', "SELECT DISTINCT relation FROM synchro.$view"), 'open', "$view: rows of the table that one may read");
	is(rows($local, "SELECT count(DISTINCT relation) FROM synchro.$view"), $view =~ /failures|conflicts/ ? '3' : '4', "$view: there are others");
	foreach my $column ('key', 'relation::text')
	{
		my (undef, $stderr) = as('reader', "SELECT count(*) FROM synchro.$view WHERE lab.peek($column)");
		my @seen = $stderr =~ /NOTICE: .*peek (.*)/g;
		my @keys = split /\n/, as('reader', "SELECT $column FROM synchro.$view");

		is_deeply([ sort @seen ], [ sort @keys ], "$view: nor does a condition see the others ($column)");
	}
}
my (undef, $planned) = as('reader', q{SELECT count(*) FROM synchro.failures WHERE lab.peek(message) AND lab.peek(constraint_name) AND lab.peek(detail)});
unlike($planned, qr/closed|divided/, 'nor a message');
is(as('reader', 'SELECT failed FROM synchro.remotes'), '3', 'how many have failed is no secret');
foreach my $table ('closed', 'divided')
{
	my $id = rows($local, "SELECT id FROM synchro.conflicts WHERE relation = '$table'::regclass");
	my $said = denied('reader', "SELECT synchro.undo($id)", qr/42501: permission denied for table $table/, "undo() of what one may write and not read, $table");

	unlike($said, qr/lost/, 'without its values');
}
$local->safe_psql('postgres', 'DROP TABLE remembered');
is(as('reader', 'SELECT DISTINCT relation::text FROM synchro.changes'), 'open', 'a table that is gone is nobody\'s');
foreach my $function ('add_table(regclass, name[], name[], boolean)', 'log_entries()', 'pusher_status()', 'undo(bigint)', 'synchronize(name)')
{
	is(rows($local, "SELECT bool_or(a.grantee = 0) FROM pg_proc p, aclexplode(p.proacl) a WHERE p.oid = 'synchro.$function'::regprocedure"),
		'f', "$function is nothing for PUBLIC");
}
is(rows($local, q{SELECT string_agg(DISTINCT p.proname, ' ' ORDER BY p.proname) FROM pg_proc p
	WHERE p.pronamespace = 'synchro'::regnamespace AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) WHERE grantee = 0))}),
	'capture capture_truncate disable_log enable_log', 'only these are');
is(rows($local, q{SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'synchro'::regnamespace AND EXISTS (SELECT FROM aclexplode(c.relacl) WHERE grantee = 0)}),
	'0', 'and no table or view is');

#
# an error that may be about a row
#
$local->safe_psql('postgres', <<'SQL');
CREATE TABLE lab.switch (on_ boolean);
CREATE FUNCTION lab.speak(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF EXISTS (SELECT FROM lab.switch) THEN RAISE 'the key is c'; END IF; RETURN 1; END $$;
CREATE INDEX ON closed ((lab.speak(1) + n));
UPDATE closed SET n = 2;
SELECT synchro.copy_table('office', 'closed');
INSERT INTO lab.switch VALUES (true);
SQL
sync_fails($local, 'office', qr/P0001: the key is c/, 'who may read everything sees the reason of an error');
my $said = denied('reader', 'SELECT synchro.synchronize()', qr/P0001: error P0001, whose text is not shown to you.*HINT:  Ask somebody who may read/s, 'who may not, sees its SQLSTATE');
unlike($said, qr/the key/, 'and no more');
$remote->safe_psql('postgres', 'CREATE DATABASE away');
connect_remote($local, $remote, name => 'away', remote_db => 'away', peer => 'create');
$said = denied('reader', 'SELECT * FROM synchro.preview()', qr/WARNING:  P0001: could not look at remote "office".*DETAIL:  error P0001, whose text is not shown to you/s, 'of several remotes it is the same');
unlike($said, qr/the key/, 'and no more');
$local->safe_psql('postgres', q{SELECT synchro.remove_remote('away')});
$local->safe_psql('postgres', 'GRANT SELECT ON closed TO reader; ALTER TABLE divided DISABLE ROW LEVEL SECURITY');
denied('reader', 'SELECT synchro.synchronize()', qr/P0001: the key is c/, 'until he may');
$local->safe_psql('postgres', 'TRUNCATE lab.switch; REVOKE SELECT ON closed FROM reader');
sync($local, 'office');

#
# a remote of one's own gets what its owner may read
#
$remote->safe_psql('postgres', q{CREATE DATABASE branch});
$local->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN;
GRANT USAGE ON FOREIGN DATA WRAPPER synchro_fdw TO app;
GRANT EXECUTE ON FUNCTION synchro.add_remote, synchro.synchronize, synchro.retry TO app;
GRANT SELECT ON open, closed TO app;
GRANT SELECT (id, name) ON divided TO app;
SELECT synchro.alter_table('divided', skip => '{n}');
SQL
$remote->safe_psql('branch', <<'SQL');
CREATE TABLE open (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE closed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE divided (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
SQL
grant_dml($remote, dbname => 'branch');
$remote->safe_psql('branch', $local->safe_psql('postgres', 'SELECT synchro.peer_setup()'));
my $port = $remote->port;
as('app', <<"SQL");
CREATE SERVER branch FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'branch');
CREATE USER MAPPING FOR app SERVER branch OPTIONS (user 'sync', password 'secret');
SELECT synchro.add_remote('branch');
SQL
as('app', q{SELECT * FROM synchro.synchronize('branch')});
is(rows($remote, 'SELECT name FROM closed ORDER BY 1', 'branch'), "c\nc to be renamed\nc to go", 'what the owner may read arrives');
$local->safe_psql('postgres', <<'SQL');
REVOKE SELECT ON closed FROM app;
DELETE FROM closed WHERE name = 'c to go';
UPDATE closed SET name = 'c renamed' WHERE name = 'c to be renamed';
UPDATE open SET n = 3; UPDATE divided SET name = 'd''';
SQL
as('app', q{SELECT * FROM synchro.synchronize('branch')});
is(rows($remote, 'SELECT name, n FROM open', 'branch'), 'p|3', 'the table that the owner may read arrives');
is(rows($remote, 'SELECT name FROM divided', 'branch'), q{d'}, 'and the one of which he may read the columns that are pushed');
is(rows($remote, 'SELECT name FROM closed ORDER BY 1', 'branch'), "c\nc to be renamed\nc to go", 'of the other, not even a delete or a name of before');
is(rows($remote, q{SELECT count(*) FROM synchro_peer.unapplied}, 'branch'), '0', 'nor is one left for later');
is(rows($local, q{SELECT relation, sqlstate, message, hint FROM synchro.failures WHERE remote = 'branch'}),
	'closed|42501|permission denied for table closed|Run GRANT SELECT ON public.closed TO app.', 'it is said why, and what to do');
$local->safe_psql('postgres', <<'SQL');
GRANT SELECT ON closed TO app;
ALTER TABLE closed ENABLE ROW LEVEL SECURITY;
CREATE POLICY a_few ON closed USING (n > 0);
SELECT synchro.retry('branch');
SQL
as('app', q{SELECT * FROM synchro.synchronize('branch')});
is(rows($local, q{SELECT sqlstate, message FROM synchro.failures WHERE remote = 'branch'}),
	'42501|query would be affected by row-level security policy for table "closed"', 'nor does he get some of the rows');
$local->safe_psql('postgres', q{ALTER TABLE closed DISABLE ROW LEVEL SECURITY; SELECT synchro.retry('branch')});
as('app', q{SELECT * FROM synchro.synchronize('branch')});
is(rows($remote, 'SELECT name FROM closed ORDER BY 1', 'branch'), "c\nc renamed", 'all is there once he has the right');

#
# nor does he get, with a row that he may read, what one is called that he may not
#
my $family = <<'SQL';
CREATE TABLE watched (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE registered (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE of_watched (id serial PRIMARY KEY, name text NOT NULL UNIQUE, watched_id int REFERENCES watched);
CREATE TABLE of_registered (id serial PRIMARY KEY, name text NOT NULL UNIQUE, registered_id int REFERENCES registered);
CREATE TABLE named_by (watched_id int REFERENCES watched, name text, PRIMARY KEY (watched_id, name));
CREATE TABLE partly (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
SQL
both($local, $remote, $family);
$remote->safe_psql('branch', $family);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.pause('office');
SELECT synchro.add_table(t, '{name}') FROM unnest('{watched,of_watched,of_registered,partly}'::regclass[]) t;
SELECT synchro.register_natural_key('registered', '{name}'), synchro.add_table('named_by');
GRANT SELECT ON of_watched, of_registered, named_by TO app;
GRANT SELECT (id, name) ON partly TO app;
INSERT INTO watched VALUES (4711, 'kept dark');
INSERT INTO registered VALUES (4711, 'kept dark');
INSERT INTO of_watched (name, watched_id) VALUES ('child', 4711);
INSERT INTO of_registered (name, registered_id) VALUES ('child', 4711);
INSERT INTO named_by (name, watched_id) VALUES ('child', 4711);
INSERT INTO partly (name, n) VALUES ('kept dark', 4711);
SQL
my $logged = -s $remote->logfile;
as('app', q{SELECT * FROM synchro.synchronize('branch')});
unlike(everything($remote, 'branch'), qr/kept dark|4711/, 'of what he may not read nothing arrives by way of those that refer to it, or in part');
is(join("\n", grep { /kept dark|4711/ } split /\n/, slurp_file($remote->logfile, $logged)), '', 'nor is it sent');
is(rows($remote, 'SELECT count(*) FROM of_watched', 'branch'), '0', 'nor do children arrive without what they refer to');
is(rows($local, q{SELECT relation, sqlstate, message FROM synchro.failures WHERE remote = 'branch' ORDER BY relation::text}), <<'EXPECTED' =~ s/\n\z//r, 'it is said of each why');
named_by|42501|permission denied for table watched
of_registered|42501|permission denied for table registered
of_watched|42501|permission denied for table watched
partly|42501|permission denied for table partly
watched|42501|permission denied for table watched
EXPECTED
my $grants = rows($local, q{SELECT fix FROM synchro.check('branch') WHERE problem LIKE 'role app, who owns remote "branch", may not read table %' ORDER BY fix});
is($grants, join("\n", map { "GRANT SELECT ON public.$_ TO app;" } qw(partly registered watched)), 'and what to do');
$local->safe_psql('postgres', "$grants SELECT synchro.retry('branch')");
as('app', q{SELECT * FROM synchro.synchronize('branch')});
same($local, $remote, <<'SQL', 'that done, all is there', local_db => 'postgres', remote_db => 'branch');
SELECT c.name, w.name FROM of_watched c JOIN watched w ON w.id = c.watched_id UNION ALL
SELECT c.name, r.name FROM of_registered c JOIN registered r ON r.id = c.registered_id UNION ALL
SELECT c.name, w.name FROM named_by c JOIN watched w ON w.id = c.watched_id UNION ALL
SELECT name, n::text FROM partly
SQL
$local->safe_psql('postgres', q{SELECT synchro.resume('office')});

#
# tables of several owners, that only a join can bring together
#
both($local, $remote, <<'SQL');
CREATE TABLE parent (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n numeric NOT NULL UNIQUE);
CREATE TABLE child (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent numeric REFERENCES parent (n));
SQL
$local->safe_psql('postgres', <<'SQL');
CREATE ROLE father;
CREATE ROLE son;
GRANT USAGE ON SCHEMA public TO father, son;
ALTER TABLE parent OWNER TO father;
ALTER TABLE child OWNER TO son;
SELECT synchro.add_table('parent', '{name}'), synchro.add_table('child', '{name}');
INSERT INTO parent (name, n) VALUES ('p', 1.0);
INSERT INTO child (name, parent) VALUES ('c', 1);
SELECT synchro.remove_remote('branch');
SQL
sync_parks($local, 'office', qr/55000: tables public\.child and public\.parent have different owners and cannot be read together.*HINT: Give both tables the same owner/s,
	'tables of owners who have nothing to do with each other are not read together');
$local->safe_psql('postgres', 'GRANT son TO father; GRANT SELECT ON parent TO son; SELECT synchro.retry()');
sync($local, 'office');
same($local, $remote, 'SELECT c.name, p.name FROM child c JOIN parent p ON p.n = c.parent', 'as the one whose rights the other has, too, they are');

#
# so many rows fail that they are not tried one by one any more: none is shown what was said of another table's row
#
both($local, $remote, <<'SQL');
CREATE TABLE untold (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE told (id serial PRIMARY KEY, name text NOT NULL UNIQUE, after int REFERENCES untold);
CREATE TABLE trail (name text);
SQL
$remote->safe_psql('postgres', <<'SQL');
ALTER TABLE untold ADD CHECK (name !~ 'secret');
ALTER TABLE trail ADD CHECK (name !~ 'secret');
CREATE FUNCTION trail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO trail VALUES ('secret'); RETURN NULL; END $$;
CREATE TRIGGER trail AFTER INSERT ON told FOR EACH ROW EXECUTE FUNCTION trail();
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table(t, '{name}') FROM unnest('{told,untold}'::regclass[]) t;
GRANT SELECT ON told TO reader;
INSERT INTO untold (name) SELECT 'secret ' || i FROM generate_series(1, 1100) i;
INSERT INTO told (name) SELECT 'told ' || i FROM generate_series(1, 400) i;
SQL
is(sync($local, 'office')->{failed}, 1500, 'all fail');
is(as('reader', q{SELECT count(*), count(*) FILTER (WHERE f::text ~ 'secret') FROM synchro.failures f WHERE relation = 'told'::regclass}), '400|0', 'of one table nothing is told by those of another');
is(as('reader', q{SELECT DISTINCT message FROM synchro.failures WHERE relation = 'told'::regclass}), 'it was in a batch that failed because of a row of another table', 'it is said that it is another one');
is(rows($local, q{SELECT count(DISTINCT message) FROM synchro.failures WHERE relation = 'untold'::regclass AND detail ~ 'secret'}), '1', 'those who may read that one see why');

#
# Nor does the reason why a row has failed tell more of what it refers to, or that refers to, than the row itself does: whoever may
# read that is shown the reason.
#
my @steps = map { "step_$_" } 0 .. 10;
both($local, $remote, <<'SQL');
CREATE TABLE coded (secret text PRIMARY KEY, code int NOT NULL UNIQUE, n int);
CREATE TABLE by_code (id serial PRIMARY KEY, name text NOT NULL UNIQUE, code int REFERENCES coded (code));
CREATE TABLE by_secret (id serial PRIMARY KEY, name text NOT NULL UNIQUE, secret text REFERENCES coded);
CREATE TABLE by_either (id serial PRIMARY KEY, name text NOT NULL UNIQUE, code int REFERENCES coded (code), secret text REFERENCES coded);
CREATE TABLE sort (id serial PRIMARY KEY, secret text NOT NULL UNIQUE);
CREATE TABLE by_sort (id serial PRIMARY KEY, name text NOT NULL UNIQUE, sort_id int REFERENCES sort);
CREATE TABLE twice (id serial PRIMARY KEY, secret text NOT NULL);
CREATE TABLE below (id serial PRIMARY KEY, twice_id int REFERENCES twice, name text NOT NULL, UNIQUE (twice_id, name));
CREATE TABLE by_below (id serial PRIMARY KEY, name text NOT NULL UNIQUE, below_id int REFERENCES below);
CREATE TABLE by_twice (id serial PRIMARY KEY, name text NOT NULL UNIQUE, twice_id int REFERENCES twice);
SQL
both($local, $remote, join '', map { "CREATE TABLE $steps[$_] (id serial PRIMARY KEY, name text NOT NULL UNIQUE"
		. ($_ > 0 ? ", before int NOT NULL REFERENCES $steps[$_ - 1]);" : ');') } 0 .. $#steps);
$remote->safe_psql('postgres', <<'SQL');
ALTER TABLE coded ADD CHECK (n < 100);
CREATE TYPE kind AS ENUM ('small', 'large');
ALTER TABLE sort ALTER secret TYPE kind USING 'small';
INSERT INTO twice (secret) VALUES ('kept dark'), ('kept dark');
ALTER TABLE step_0 ADD CHECK (name <> 'kept dark');
SQL
$local->safe_psql('postgres', <<'SQL');
CREATE ROLE looker LOGIN;
GRANT USAGE ON SCHEMA synchro TO looker;
GRANT SELECT ON synchro.failures TO looker;
GRANT SELECT ON by_code, by_secret, by_either, by_sort, by_below, by_twice, step_10 TO looker;
SELECT synchro.add_table('coded');
SELECT synchro.add_table(t, '{name}') FROM unnest('{by_code,by_secret,by_either,by_sort,by_below,by_twice}'::regclass[]) t;
SELECT synchro.add_table(t, '{secret}') FROM unnest('{sort,twice}'::regclass[]) t;
SELECT synchro.add_table('below', '{twice_id,name}');
INSERT INTO coded VALUES ('kept dark', 1, 1000), ('told', 2, 1000);
INSERT INTO by_code (name, code) VALUES ('child', 1);
INSERT INTO by_secret (name, secret) VALUES ('child', 'told');
INSERT INTO by_either (name, code) VALUES ('child', 1);
INSERT INTO sort (secret) VALUES ('kept dark');
INSERT INTO by_sort (name, sort_id) SELECT 'child', id FROM sort;
INSERT INTO twice VALUES (4711, 'kept dark');
INSERT INTO below VALUES (815, 4711, 'below');
INSERT INTO by_below (name, below_id) VALUES ('child', 815);
INSERT INTO by_twice (name, twice_id) VALUES ('child', 4711);
SQL
$local->safe_psql('postgres', join '', map { "SELECT synchro.add_table('$_', '{name}');" } @steps);
$local->safe_psql('postgres', join '', 'SET synchro.log_changes = off;', map { "INSERT INTO $steps[$_] VALUES (1, 'kept dark'" . ($_ > 0 ? ', 1);' : ');') } 0 .. $#steps);
$local->safe_psql('postgres', q{UPDATE step_10 SET name = 'child'});
sync($local, 'office');
is(as('looker', q{SELECT relation, sqlstate, message, detail FROM synchro.failures WHERE relation::text ~ '^by_' ORDER BY relation::text}), <<'EXPECTED' =~ s/\n\z//r, 'reasons tell no more of others than the row does');
by_below|21000|natural key of a row of table public.twice matches several rows on the remote|
by_code|23503|row of table public.coded, which it references, could not be applied either|
by_either|23503|row of table public.coded, which it references, could not be applied either|
by_secret|23503|row of table public.coded with key told, which it references, could not be applied either|
by_sort|22P02|row of table public.sort, which it needs, is refused by the remote|It is the value of column "secret" of table public.sort, which is of type public.kind on the remote.
by_twice|21000|natural key of a row of table public.twice matches several rows on the remote|The row's key here is 4711.
EXPECTED
is(as('looker', q{SELECT relation, sqlstate, message, constraint_name, detail FROM synchro.failures WHERE relation::text ~ '^step'}),
	'step_10|23514|row of table public.step_0, which it needs, is refused by the remote|step_0_name_check|', 'nor of one that it refers to by way of others');
unlike(scalar as('looker', 'SELECT * FROM synchro.failures'), qr/kept dark/, 'nor is anything told of those that none of them refers to');
is(rows($local, q{SELECT string_agg(DISTINCT relation::text, ' ') FROM synchro.failures f WHERE f::text ~ 'kept dark'}), 'coded sort', 'whoever may read these sees why');

#
# The common time is everybody's: whoever may not tell this node what time it is, by peer_clock(), may not have a remote of his own
# do it.
#
$remote->safe_psql('postgres', q{CREATE DATABASE his; CREATE ROLE his SUPERUSER LOGIN PASSWORD 'secret'});
$remote->safe_psql('his', <<'SQL');
CREATE EXTENSION synchro;
CREATE TABLE open (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE OR REPLACE FUNCTION synchro.peer_clock(node uuid, reference uuid, stratum integer, clock_difference bigint, uncertainty bigint,
	OUT own_node uuid, OUT own_reference uuid, OUT own_stratum integer, OUT own_offset bigint, OUT own_uncertainty bigint, OUT own_clock timestamptz) LANGUAGE sql
	AS $$ SELECT (SELECT id FROM synchro.node), '00000000-0000-4000-8000-000000000000'::uuid, 0, 5000000::int8, 0::int8, pg_catalog.clock_timestamp() $$;
SQL
$local->safe_psql('postgres', <<"SQL");
SELECT synchro.pause('office');
SET ROLE app;
CREATE SERVER his FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'his');
CREATE USER MAPPING FOR app SERVER his OPTIONS (user 'his', password 'secret');
SELECT synchro.add_remote('his');
SQL
my $common = 'SELECT clock_reference, clock_stratum, clock_offset FROM synchro.node';
my $own = rows($local, 'SELECT id FROM synchro.node') . '|0|00:00:00';

is(rows($local, $common), $own, 'the node goes by itself');
my $denied = denied('app', q{SELECT * FROM synchro.synchronize('his')},
	qr/ERROR:  42501: remote "his" runs synchro, too, and role app may not let it set this node's common time/, 'the owner of a remote may not let it set the time');
is(rows($local, $common), $own, 'which it has not');
is(rows($remote, 'SELECT count(*) FROM open', 'his'), '0', 'nor has anything been pushed');
my ($grant) = $denied =~ /HINT:  Have an administrator run here: (GRANT EXECUTE ON FUNCTION .* TO app)\.\n/;
$local->safe_psql('postgres', $grant);
as('app', q{SELECT * FROM synchro.synchronize('his')});
isnt(rows($remote, 'SELECT count(*) FROM open', 'his'), '0', 'with the right that the error names, rows arrive');
like(rows($local, $common), qr/^00000000-0000-4000-8000-000000000000\|1\|00:00:0[45]/, 'and so does the time');

$_->stop('fast') foreach $local, $remote;
done_testing();
