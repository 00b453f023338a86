# WHY: verify() of all tables is run now and then to see whether all is well. One table that cannot be compared, missing on the
# remote or closed to us, must not keep it from looking at the others; nor may it be left out without a word.
use strict;
use warnings;

use lib 'test/t';
use IPC::Run;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');
my ($rc, $stdout, $stderr);

connect_remote($local, $remote);

sub verify
{
	my ($arguments) = @_;

	($rc, $stdout, $stderr) = $local->psql('postgres', "SET synchro.verify_wait = '10min'; SELECT relation, key, difference, columns FROM synchro.verify($arguments) ORDER BY relation::text, key");
	return;
}

both($local, $remote, <<'SQL');
CREATE ROLE one;
CREATE ROLE two;
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE child (id serial PRIMARY KEY, name text UNIQUE NOT NULL, parent_id int REFERENCES parent);
CREATE TABLE absent (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE closed (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE zebra (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO PUBLIC;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO PUBLIC;
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table(t, '{name}') FROM unnest('{parent,child,absent,closed,zebra}'::regclass[]) t;
INSERT INTO parent (name) VALUES ('p');
INSERT INTO child (name, parent_id) SELECT 'c', id FROM parent;
INSERT INTO zebra (name) VALUES ('z'), ('y');
SQL
sync($local, 'office');
$remote->safe_psql('postgres', q{DROP TABLE absent; ALTER TABLE closed ENABLE ROW LEVEL SECURITY; DELETE FROM zebra WHERE name = 'y'});
$local->safe_psql('postgres', q{ALTER TABLE parent OWNER TO one; ALTER TABLE child OWNER TO two});
verify(q{'office'});
is($rc . $stdout, '0zebra|y|missing|', 'what can be compared is') or diag($stderr);
like($stderr, qr/NOTICE:  table public\.absent cannot be compared with remote "office" and is left out\nDETAIL:  .*has no table public\.absent/, 'a table that the remote does not have is left out');
like($stderr, qr/NOTICE:  table public\.closed .*\nDETAIL:  .*query would be affected by row-level security policy for table "closed"/, 'so is one that may not be read there');
like($stderr, qr/NOTICE:  table public\.child .*\nDETAIL:  .*tables public\.child and public\.parent have different owners/, 'and one whose names are of several owners');
is(() = $stderr =~ /NOTICE/g, 3, 'and no other');
is(rows($local, q{SET client_min_messages = error; SELECT synchro.requeue('office')}), '1', 'requeue() goes by the same');
foreach my $case ([ absent => 'has no table public.absent' ], [ closed => 'query would be affected by row-level security policy for table "closed"' ], [ child => 'have different owners and cannot be read together' ])
{
	verify("'office', '$case->[0]'");
	like($stderr, qr/ERROR: .*\Q$case->[1]\E/, "$case->[0]: an error where it is asked for by name");
}
like($stderr, qr/\nDETAIL:  What a row refers to is found by a join, which runs code of both owners as one of them\./, 'which says why');
($rc, $stdout, $stderr) = $local->psql('postgres', 'SELECT * FROM synchro.manifest()');
like($stderr, qr/ERROR: .*have different owners.*\nDETAIL:  What a row refers to/, 'so does that of manifest()');

# columns of foreign keys, and texts of which names are made, under several collations
both($local, $remote, <<'SQL');
CREATE TABLE country (code text COLLATE "C" PRIMARY KEY, n int);
CREATE TABLE city (id serial PRIMARY KEY, name text UNIQUE NOT NULL, code text COLLATE "POSIX" REFERENCES country);
CREATE TABLE language (id serial PRIMARY KEY, name text COLLATE "POSIX" UNIQUE NOT NULL);
CREATE TABLE branch (id serial PRIMARY KEY, up int REFERENCES branch, language_id int NOT NULL REFERENCES language, name text COLLATE "C" NOT NULL, UNIQUE (up, language_id, name));
CREATE TABLE path (name text COLLATE "C" PRIMARY KEY, up text COLLATE "POSIX" REFERENCES path, n int);
CREATE TABLE remark (id serial PRIMARY KEY, no text COLLATE "C" UNIQUE, answers text COLLATE "POSIX" REFERENCES remark (no), said text);
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO PUBLIC;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO PUBLIC;
SQL
$local->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT synchro.remove_table(t) FROM unnest('{parent,child,absent,closed,zebra}'::regclass[]) t;
SELECT synchro.add_table('country'), synchro.add_table('city', '{name}'), synchro.add_table('language', '{name}'), synchro.add_table('branch', '{up,language_id,name}'),
	synchro.add_table('path', '{up,name}'), synchro.add_table('remark');
INSERT INTO country VALUES ('at', 1);
INSERT INTO city (name, code) VALUES ('Wien', 'at');
INSERT INTO language (name) VALUES ('de');
INSERT INTO branch (language_id, name) VALUES (1, 'a');
INSERT INTO branch (up, language_id, name) VALUES (1, 1, 'b');
INSERT INTO path VALUES ('a', NULL, 1), ('b', 'a', 1);
INSERT INTO remark (no, answers, said) VALUES ('a', NULL, 'x'), ('b', 'a', 'y');
SQL
sync($local, 'office');
verify(q{'office'});
is("$rc$stdout", '0', 'columns of several collations are compared') or diag($stderr);
unlike($stderr, qr/NOTICE/, 'all of them');
$remote->safe_psql('postgres', q{UPDATE city SET code = NULL; UPDATE branch SET name = 'c' WHERE name = 'b'; UPDATE path SET n = 2 WHERE name = 'b'});
verify(q{'office'});
is($stdout, join("\n", 'branch|de, a, de, b|missing|', 'branch|de, a, de, c|extra|', 'city|Wien|different|{code}', 'path|a, b|different|{n}'), 'and what differs is found') or diag($stderr);
is(rows($local, 'SELECT count(DISTINCT fingerprint), sum(rows) FROM synchro.manifest()'), '6|9', 'and have fingerprints');

# a table that is dropped while the ones before it are compared
my $holder = $remote->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE branch');
foreach my $function ('verify', 'requeue')
{
	$local->safe_psql('postgres', q{SET client_min_messages = error; CREATE TABLE zoo (id int PRIMARY KEY); SELECT synchro.add_table('zoo')});
	my $caller = IPC::Run::start([ 'psql', '-XAt', '-d', $local->connstr('postgres'), '-c', "SELECT count(*) > 0 FROM synchro.$function('office')" ], '<', \undef, '>', \my $out, '2>', \my $err);
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 'branch'::regclass AND NOT granted}, "$function() waits for a table of the remote");
	$local->safe_psql('postgres', 'DROP TABLE zoo');
	$holder->query_safe('COMMIT');
	$caller->finish;
	is($out, "t\n", "$function(): a table that is dropped meanwhile does not matter") or diag($err);
	unlike($err, qr/NOTICE/, 'nor is it left out, as it is not watched any more');
	$holder->query_safe('BEGIN; LOCK TABLE branch');
}
$holder->quit;

# the connection is gone: that is no table's fault
$remote->stop('fast');
verify(q{'office'});
like($stderr, qr/could not connect to remote "office"/, 'a remote that is down is an error');

$local->stop('fast');
done_testing();
