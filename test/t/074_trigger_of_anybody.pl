# WHY: anybody may make a trigger that runs synchro.capture(), and it is said to do nothing on a table that is not watched. A table
# with a trigger of that name must not be taken for one that stands in a natural key by that alone: its entries would have each pass
# describe it on the remote, where it need not be, so it stalls, and for a table that has stalled the log is kept for good. The same
# goes for a trigger that is left over, where what had its table in its key was dropped; but that one has to log again, in sessions
# that have seen it idle, too, as soon as something has its table in its key once more.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchro.log_retention = 0\n");
my $remote = synchro_node('remote');
my $size = q{SELECT sum(pg_relation_size(c)) FROM unnest('{synchro.log_0, synchro.log_1, synchro.log_2}'::regclass[]) c};

both($local, $remote, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE top (id int PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE parent (id int PRIMARY KEY, top int NOT NULL REFERENCES top, name text NOT NULL, UNIQUE (top, name));
CREATE TABLE child (id serial PRIMARY KEY, parent int NOT NULL REFERENCES parent, name text NOT NULL, UNIQUE (parent, name));
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.register_natural_key('top', '{name}'), synchro.register_natural_key('parent', '{top,name}');
SELECT synchro.add_table('t', '{name}'), synchro.add_table('child', '{parent,name}');
INSERT INTO t (name) VALUES ('one');
CREATE ROLE mallory LOGIN;
CREATE SCHEMA AUTHORIZATION mallory;
SQL
sync($local, 'office') foreach 1 .. 3;
is(rows($local, $size), '0', 'to begin with the log is emptied');

sub goes_on
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$local->safe_psql('postgres', "INSERT INTO t (name) VALUES ('$testname'); UPDATE t SET name = name || '.'");
	sync($local, 'office') foreach 1 .. 3;
	same($local, $remote, 'SELECT name FROM t ORDER BY 1', "$testname: the others are pushed");
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), '0', "$testname: nothing has failed") or diag(rows($local, 'SELECT relation, sqlstate, message FROM synchro.failures'));
	is(rows($local, $size), '0', "$testname: the log is emptied");
	return;
}

# somebody without any right
my ($status, undef, $stderr) = $local->psql('postgres', <<'SQL', extra_params => [ '-U', 'mallory' ], on_error_stop => 1);
CREATE TABLE mallory.mine (code text PRIMARY KEY);
CREATE TRIGGER synchro_capture AFTER INSERT OR UPDATE OR DELETE ON mallory.mine FOR EACH ROW EXECUTE FUNCTION synchro.capture();
INSERT INTO mallory.mine VALUES ('a');
DELETE FROM mallory.mine;
SQL
is($status, 0, 'anybody may make such a trigger') or diag($stderr);
is(rows($local, q{SELECT count(*) FROM synchro.changes WHERE relation = 'mallory.mine'::regclass}), '0', 'it does nothing on a table that is not watched');
goes_on('a trigger of anybody');
$local->safe_psql('postgres', 'DROP TABLE mallory.mine; SELECT synchro.retry()');
sync($local, 'office');

# one that is left over
my $session = $local->background_psql('postgres', on_error_stop => 1);
my $logged = q{SELECT count(*) FROM synchro.changes WHERE relation IN ('top'::regclass, 'parent'::regclass)};

$session->query_safe(q{SET client_min_messages = error; INSERT INTO top VALUES (1, 't'); INSERT INTO parent VALUES (1, 1, 'p'); INSERT INTO child (parent, name) VALUES (1, 'c'); UPDATE top SET name = 'u'});
is(rows($local, $logged), '1', 'a table in the key of another one that is in a key is logged');
sync($local, 'office');
both($local, $remote, 'SET client_min_messages = error; DROP TABLE child');
$remote->safe_psql('postgres', 'DROP TABLE parent, top');
$session->query_safe(q{UPDATE parent SET name = 'renamed'; UPDATE top SET name = 'renamed'});
goes_on('a trigger that is left over');

# and it is needed again
$remote->safe_psql('postgres', q{CREATE TABLE top (id int PRIMARY KEY, name text NOT NULL UNIQUE); CREATE TABLE parent (id int PRIMARY KEY, top int NOT NULL REFERENCES top, name text NOT NULL, UNIQUE (top, name))});
both($local, $remote, 'CREATE TABLE other (id serial PRIMARY KEY, parent int NOT NULL REFERENCES parent, n int, UNIQUE (parent))');
$local->safe_psql('postgres', q{SELECT synchro.add_table('other', '{parent}'); INSERT INTO other (parent, n) VALUES (1, 1)});
sync($local, 'office');
$session->query_safe(q{UPDATE top SET name = 'named anew'; UPDATE other SET n = 2});
isnt(rows($local, $logged), '0', 'needed again, it logs');
sync($local, 'office');
is(rows($remote, 'SELECT t.name, p.name, n FROM other JOIN parent p ON p.id = parent JOIN top t ON t.id = top'), 'renamed|renamed|2', '... so the row is found below what was renamed');
is(rows($remote, 'SELECT (SELECT count(*) FROM other), (SELECT count(*) FROM parent), (SELECT count(*) FROM top)'), '1|1|1', '... and nothing is made twice');
$session->quit;

done_testing();
