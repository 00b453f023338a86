# WHY: whoever runs a database in two places wants proof that both agree, also while the application writes. A check that raises
# false alarms is not looked at any more, and one that overlooks a difference is worse than none. So each kind of difference must
# be found and named, what is only written in another way must not, and what is under way must be waited for.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use IPC::Run;
use Nodes;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n numeric, at timestamptz, f float8, j json, b jsonb, span interval, list numeric[], secret text);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent, name text NOT NULL, n int, UNIQUE (parent_id, name));
CREATE TABLE tree (id serial PRIMARY KEY, up int REFERENCES tree, name text NOT NULL, UNIQUE (up, name));
CREATE TABLE note (id serial PRIMARY KEY, child_id int REFERENCES child, what text);
CREATE TABLE line (id serial PRIMARY KEY, note_id int REFERENCES note, what text);
SQL
$remote->safe_psql('postgres', q{SELECT setval(c.oid::regclass, 5000) FROM pg_class c WHERE relkind = 'S'});
connect_remote($local, $remote, name => 'remote');
$local->safe_psql('postgres', <<'SQL');
SET client_min_messages = warning;
SELECT synchro.add_table('parent', '{name}', skip => '{secret}'), synchro.add_table('child', '{parent_id,name}'), synchro.add_table('tree', '{up,name}'),
	synchro.add_table('note'), synchro.add_table('line');
INSERT INTO parent (name, n, at, f, j, b, span, list, secret) SELECT 'p' || i, i, timestamptz '2020-01-01 00:00+00' + i * interval '1 h', i / 3.0::float8, '{"a": 1}', '{"a": 1}', '1 mon', '{1,2}', 'here'
	FROM generate_series(1, 300) i;
INSERT INTO child (parent_id, name, n) SELECT p.id, 'c' || i, i FROM parent p, generate_series(1, 3) i;
INSERT INTO tree (name) VALUES ('root'), ('other');
INSERT INTO tree (up, name) SELECT id, 'leaf' FROM tree;
INSERT INTO note (child_id, what) SELECT id, 'note' FROM child WHERE n = 1;
INSERT INTO line (note_id, what) SELECT id, 'line' FROM note;
SQL

# relation|key|difference|columns, sorted
sub differences
{
	my ($node, $arguments) = @_;

	# what is under way is waited for, however slow the machine is
	return rows($node, "SET synchro.verify_wait = '10min'; SELECT relation, key, difference, columns FROM synchro.verify($arguments) ORDER BY relation::text, key, difference");
}

is(differences($local, q{'remote'}), '', 'what is pending is pushed first, and then there is no difference');

# written in another way
$remote->safe_psql('postgres', <<'SQL');
UPDATE parent SET n = n + 0.00, j = '{ "a" : 1 }', b = '{"a": 1.0}', span = '30 days', list = '{1.0,2.00}', secret = 'there' WHERE id % 2 = 0;
SET timezone = 'Asia/Tokyo';
UPDATE parent SET at = at::text::timestamptz, f = '-0' WHERE name = 'p1';
SQL
$local->safe_psql('postgres', q{SET synchro.log_changes = off; UPDATE parent SET f = 0 WHERE name = 'p1'});
is(differences($local, q{'remote'}), '', 'values are compared as their types compare, and skipped columns not at all');

# differences of each kind
$remote->safe_psql('postgres', <<'SQL');
UPDATE parent SET n = n + 0.01 WHERE name = 'p7';
UPDATE parent SET j = '{"a": 2}', b = NULL, at = at + interval '1 us' WHERE name = 'p8';
UPDATE child SET parent_id = (SELECT id FROM parent WHERE name = 'p9') , name = 'moved' WHERE name = 'c2' AND parent_id = (SELECT id FROM parent WHERE name = 'p10');
DELETE FROM line WHERE id = (SELECT min(id) FROM line);
UPDATE note SET child_id = NULL WHERE id = (SELECT max(id) FROM note);
INSERT INTO note (what) VALUES ('of the remote');
INSERT INTO tree (up, name) SELECT id, 'leaf' FROM tree WHERE name = 'leaf' LIMIT 1;
SQL
my $found = differences($local, q{'remote'});
like($found, qr/^parent\|p7\|different\|\{n\}$/m, 'a value is different');
like($found, qr/^parent\|p8\|different\|\{at,b,j\}$/m, 'several are');
like($found, qr/^child\|p10, c2\|missing\|$/m, 'a row is missing');
like($found, qr/^child\|p9, moved\|extra\|$/m, 'a row is only there');
like($found, qr/^line\|\d+\|missing\|$/m, 'a row without natural key is missing');
like($found, qr/^note\|\d+\|different\|\{child_id\}$/m, 'a row without natural key has another parent');
like($found, qr/^note\|remote \d+\|extra\|$/m, 'a row without natural key is only there');
like($found, qr/^tree\|(root|other), leaf, leaf\|extra\|$/m, 'the row of a tree is called by its whole path');
is(() = $found =~ /\n/g, 7, 'and nothing else') or diag($found);
is(differences($local, q{'remote', 'parent'}), "parent|p7|different|{n}\nparent|p8|different|{at,b,j}", 'of one table');

# put right
is(rows($local, q{SELECT synchro.requeue('remote')}), '5', 'what is here is queued again');
sync($local, 'remote');
unlike(differences($local, q{'remote'}), qr/missing|different/, 'and then it is there');
is(rows($local, q{SELECT synchro.requeue('remote', 'child')}), '0', 'what is extra is left alone');
$remote->safe_psql('postgres', q{DELETE FROM tree WHERE name = 'leaf' AND up IN (SELECT id FROM tree WHERE name = 'leaf'); DELETE FROM child WHERE name = 'moved'; DELETE FROM note WHERE what = 'of the remote'});
is(differences($local, q{'remote'}), '', 'both are the same again');

# rows without natural key that have exchanged their values, of two keys whose hashes begin with the same eight bits: so the sums are the same
$local->safe_psql('postgres', q{INSERT INTO note (what) SELECT 'what ' || i FROM generate_series(1, 300) i});
is(differences($local, q{'remote', 'note'}), '', 'many rows without natural key are equal');
my ($x, $y) = split /\|/, rows($local, q{SELECT min(what), max(what) FROM note WHERE what LIKE 'what %'
	GROUP BY (hashtextextended(('L' || ARRAY[id::text]::text) COLLATE "C", 0) >> 56) & 255 HAVING count(*) > 1 ORDER BY 1 LIMIT 1});
$remote->safe_psql('postgres', "UPDATE note SET what = CASE what WHEN '$x' THEN '$y' ELSE '$x' END WHERE what IN ('$x', '$y')");
is(() = differences($local, q{'remote', 'note'}) =~ /^note\|\d+\|different\|\{what\}$/mg, 2, 'rows that have exchanged their values are different');
is(rows($local, q{SELECT synchro.requeue('remote', 'note')}), '2', 'and are queued again');
sync($local, 'remote');
is(differences($local, q{'remote', 'note'}), '', 'then each has its own');

# a key that may match many rows there means the first of them
both($local, $remote, 'CREATE TABLE several (id serial PRIMARY KEY, parent_id int REFERENCES parent, name text, n int)');
$remote->safe_psql('postgres', q{INSERT INTO several (parent_id, name, n) SELECT p.id, v, i FROM parent p, generate_series(1, 5) i, unnest('{a,NULL}'::text[]) v WHERE p.name = 'p1';
	INSERT INTO several (name, n) VALUES ('only there', 1), ('only there', 2)});
$local->safe_psql('postgres', q{SET client_min_messages = warning; SELECT synchro.add_table('several', '{parent_id,name}', allow_many => true);
	INSERT INTO several (parent_id, name, n) SELECT p.id, v, 7 FROM parent p, unnest('{a,NULL,b}'::text[]) v WHERE p.name = 'p1'});
sync($local, 'remote');
is(differences($local, q{'remote', 'several'}), "several|only there|extra|\nseveral|only there|extra|", 'of several rows there that a key may match, others than the first are none of ours');
$remote->safe_psql('postgres', q{UPDATE several SET n = 8 WHERE n = 7 AND name = 'a'; UPDATE several SET n = 7 WHERE n = 3 AND name = 'a'; DELETE FROM several WHERE name = 'b'});
is(differences($local, q{'remote', 'several'}), "several|only there|extra|\nseveral|only there|extra|\nseveral|p1, a|different|{n}\nseveral|p1, b|missing|", 'and the first is compared');

# a foreign key that is NULL in part references no row: an id in it is not pushed, and that shows
both($local, $remote, <<'SQL');
CREATE TABLE client (parent_id int REFERENCES parent, no int, PRIMARY KEY (parent_id, no));
CREATE TABLE bill (id serial PRIMARY KEY, number text UNIQUE NOT NULL, parent_id int, no int, FOREIGN KEY (parent_id, no) REFERENCES client);
SQL
$local->safe_psql('postgres', q{SET client_min_messages = warning; SELECT synchro.add_table('client'), synchro.add_table('bill', '{number}');
	INSERT INTO client SELECT id, 1 FROM parent WHERE name < 'p2'; INSERT INTO bill (number, parent_id, no) SELECT name, id, 1 FROM parent WHERE name < 'p2'; INSERT INTO bill (number, no) VALUES ('only a number', 1)});
sync($local, 'remote');
is(differences($local, q{'remote', 'client'}) . differences($local, q{'remote', 'bill'}), '', 'a foreign key of several columns, of which one is a value of its own, is equal');
$local->safe_psql('postgres', q{UPDATE bill SET no = NULL WHERE number IN ('p1', 'p10')});
is(differences($local, q{'remote', 'bill'}), "bill|p1|different|{parent_id}\nbill|p10|different|{parent_id}", 'or not, where it says what no row says there');
$remote->safe_psql('postgres', q{UPDATE bill SET parent_id = (SELECT id FROM parent WHERE name = number) WHERE number = 'p1'});
is(differences($local, q{'remote', 'bill'}), 'bill|p10|different|{parent_id}', 'until it does');

# no column but ids, and more of them than a function takes arguments
my $columns = join ', ', map { "c$_ int DEFAULT $_" } 1 .. 250;
both($local, $remote, "CREATE TABLE ids (id serial PRIMARY KEY); CREATE TABLE wide (id int PRIMARY KEY, $columns)");
$local->safe_psql('postgres', q{SELECT synchro.add_table('ids'), synchro.add_table('wide'); INSERT INTO ids DEFAULT VALUES; INSERT INTO wide (id) VALUES (1), (2), (3)});
sync($local, 'remote');
is(differences($local, q{'remote', 'ids'}) . differences($local, q{'remote', 'wide'}), '', 'tables without columns but ids, and with very many, are equal');
$remote->safe_psql('postgres', q{DELETE FROM ids; UPDATE wide SET c99 = NULL, c1 = 0 WHERE id = 2; UPDATE wide SET c250 = NULL WHERE id = 3});
is(differences($local, q{'remote', 'ids'}) . "\n" . differences($local, q{'remote', 'wide'}), "ids|1|missing|\nwide|2|different|{c1,c99}\nwide|3|different|{c250}", 'or are not');
$local->safe_psql('postgres', q{SELECT synchro.remove_table(t) FROM unnest('{several,bill,client,ids,wide}'::regclass[]) t});

# who, and when
my ($rc, $stdout, $stderr) = $local->psql('postgres', q{CREATE ROLE looker; GRANT EXECUTE ON FUNCTION synchro.verify(name, regclass) TO looker; SET ROLE looker; SELECT * FROM synchro.verify('remote')});
like($stderr, qr/permission denied for table/, 'who may not read a table is not told its keys');
($rc, $stdout, $stderr) = $local->psql('postgres', q{SELECT * FROM synchro.verify('remote', 'pg_class')});
like($stderr, qr/table "pg_class" is not watched.*add_table/s, 'a table that is not watched cannot be compared');
($rc, $stdout, $stderr) = $local->psql('postgres', q{BEGIN; UPDATE parent SET n = n + 1 WHERE name = 'p3'; SELECT key, difference FROM synchro.verify('remote', 'parent')});
like($stderr, qr/NOTICE:  changes of this transaction are not committed yet.*\nHINT:  Commit before you call verify\(\)\./, 'own changes that are not committed are announced');
is($stdout, 'p3|different', 'as differences');
$local->safe_psql('postgres', q{SELECT synchro.pause('remote'); UPDATE parent SET n = n + 1 WHERE name = 'p4'});
($rc, $stdout, $stderr) = $local->psql('postgres', q{SELECT key, difference FROM synchro.verify('remote', 'parent')});
like($stderr, qr/NOTICE:  remote "remote" is paused, so what is pending is shown as different\nHINT:  .*SELECT synchro\.resume\('remote'\);/, 'so is a remote that is paused');
is($stdout, 'p4|different', 'what is pending for it is a difference');
$local->safe_psql('postgres', q{SELECT synchro.resume('remote')});

# many rows, and more than fit into one look; encodings in which text hashes differently
$remote->safe_psql('postgres', q{CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'});
my $many = 'CREATE TABLE many (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int)';
$local->safe_psql('postgres', "$many; INSERT INTO many (name, n) SELECT 'm' || i, i FROM generate_series(1, 30000) i; SELECT synchro.add_table('many', '{name}')");
foreach my $dbname ('postgres', 'ascii')
{
	$remote->safe_psql($dbname, "$many; INSERT INTO many (name, n) SELECT 'm' || i, i FROM generate_series(30000, 1, -1) i");
}
connect_remote($local, $remote, name => 'ascii', remote_db => 'ascii');
foreach my $name ('remote', 'ascii')
{
	my $dbname = $name eq 'remote' ? 'postgres' : $name;

	is(differences($local, "'$name', 'many'"), '', "$name: many rows are equal");
	$remote->safe_psql($dbname, q{UPDATE many SET n = -n WHERE id % 3 = 0; DELETE FROM many WHERE id % 1000 = 1; INSERT INTO many (name, n) SELECT 'extra' || i, 0 FROM generate_series(1, 70) i});
	my $changed = rows($remote, 'SELECT count(*) FROM many WHERE n < 0', $dbname);
	my $gone = 30000 - rows($remote, q{SELECT count(*) FROM many WHERE name NOT LIKE 'extra%'}, $dbname);
	is(rows($local, "SELECT difference, count(*), count(DISTINCT key) FROM synchro.verify('$name', 'many') GROUP BY 1 ORDER BY 1"),
		"different|$changed|$changed\nextra|70|70\nmissing|$gone|$gone", "$name: all that differ are found");
}
$local->safe_psql('postgres', q{SELECT synchro.remove_remote('ascii'), synchro.requeue('remote', 'many')});
sync($local, 'remote');
$remote->safe_psql('postgres', q{DELETE FROM many WHERE name LIKE 'extra%'});

# while the application writes, no false alarms; a row that really differs is found all the same
$remote->safe_psql('postgres', q{UPDATE many SET n = -1 WHERE name = 'm77'});
my $work = $local->basedir . '/work.sql';
open my $file, '>', $work or die "$work: $!";
print $file <<'SQL';
\set i random(100, 30000)
\set k random(1, 1000000000)
UPDATE many SET n = n + 1 WHERE id = :i;
INSERT INTO many (name, n) VALUES ('new' || :k, 1) ON CONFLICT DO NOTHING;
UPDATE many SET name = name || 'x' WHERE id = :i + 1;
DELETE FROM many WHERE id = (SELECT max(id) FROM many);
SQL
close $file;
chmod 0644, $work;
my ($out, $err) = ('', '');

# a rate that a slow machine can push, too, and an end
my $bench = IPC::Run::start([ $local->installed_command('pgbench'), '-n', '-c', '2', '-R', '40', '-T', '170', '-f', $work, '-h', $local->host, '-p', $local->port, 'postgres' ], '>', \$out, '2>', \$err);
wait_for($local, q{SELECT count(*) > 20 FROM many WHERE name LIKE 'm%x'}, 'there is work');
foreach my $try (1 .. 3)
{
	is(differences($local, q{'remote', 'many'}), 'many|m77|different|{n}', "under load only what differs is found ($try)");
}
$bench->signal('TERM');
$bench->finish;
is(differences($local, q{'remote', 'many'}), 'many|m77|different|{n}', 'and after it');
$local->safe_psql('postgres', q{SELECT synchro.requeue('remote', 'many')});
sync($local, 'remote');

# a push that does not come to an end does not keep it: what may be under way is left out, and said so
$remote->safe_psql('postgres', q{UPDATE parent SET n = -7 WHERE name = 'p7'; BEGIN; LOCK TABLE parent IN SHARE ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'held'});
$local->safe_psql('postgres', q{UPDATE parent SET n = n + 1 WHERE name = 'p5'});
($rc, $stdout, $stderr) = $local->psql('postgres', q{SET synchro.verify_wait = '1s'; SELECT key, difference FROM synchro.verify('remote', 'parent')});
is($rc . $stdout, '0', 'what cannot be confirmed is not listed');
like($stderr, qr/NOTICE:  rows of table public\.parent that differ but may be on their way were left out: 2\n.*not pushed within 1 s.*synchro\.verify_wait/s, 'and is announced');
$remote->safe_psql('postgres', q{COMMIT PREPARED 'held'});
is(differences($local, q{'remote', 'parent'}), 'parent|p7|different|{n}', 'when it goes on, the rest is there');
$local->safe_psql('postgres', q{SELECT synchro.requeue('remote')});
sync($local, 'remote');

# can be cancelled while it waits for the remote, and leaves no session there
$remote->safe_psql('postgres', q{BEGIN; LOCK TABLE parent; PREPARE TRANSACTION 'held'});
($rc, $stdout, $stderr) = $local->psql('postgres', q{SET statement_timeout = '3s'; SELECT * FROM synchro.verify('remote', 'parent')});
like($stderr, qr/canceling statement due to statement timeout/, 'it can be cancelled');
$remote->safe_psql('postgres', q{COMMIT PREPARED 'held'});
wait_for($remote, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'synchro'}, 'its session on the remote ends');

# several rows of one key, which no unique index forbids
both($local, $remote, 'CREATE TABLE double (id serial PRIMARY KEY, name text NOT NULL, n int)');
$local->safe_psql('postgres', q{SET client_min_messages = warning; SELECT synchro.add_table('double', '{name}'); INSERT INTO double (name, n) VALUES ('a', 1)});
sync($local, 'remote');
$remote->safe_psql('postgres', q{UPDATE double SET n = 2; INSERT INTO double (name, n) VALUES ('a', 3)});
is(differences($local, q{'remote', 'double'}), "double|a|different|{n}\ndouble|a|extra|", 'each row of a key that is there twice is listed');

# keys that are the same to their types, and written in another way
both($local, $remote, q{CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE folded (id serial PRIMARY KEY, name text COLLATE nocase UNIQUE NOT NULL, n int); CREATE TABLE spans (id serial PRIMARY KEY, span interval UNIQUE NOT NULL);
	CREATE TABLE same (id serial PRIMARY KEY, a numeric, b float8, c char(5), d timestamptz, UNIQUE (a, b, c, d))});
$local->safe_psql('postgres', q{SELECT synchro.add_table('folded', '{name}'), synchro.add_table('spans', '{span}'); SET client_min_messages = warning; SELECT synchro.add_table('same', '{a,b,c,d}');
	SET synchro.log_changes = off; INSERT INTO folded (name, n) VALUES ('Ann', 1); INSERT INTO spans (span) VALUES ('1 mon'); INSERT INTO same (a, b, c, d) VALUES (1.0, '-0', 'ab', '2024-01-01 12:00+00')});
$remote->safe_psql('postgres', q{INSERT INTO folded (name, n) VALUES ('ANN', 2); INSERT INTO spans (span) VALUES ('30 days'); INSERT INTO same (a, b, c, d) VALUES (1.00, 0, 'ab   ', '2024-01-01 07:00-05')});
is(differences($local, q{'remote', 'same'}), '', 'keys are compared as their types compare');
is(differences($local, q{'remote', 'folded'}) . "\n" . differences($local, q{'remote', 'spans'}), "folded|ANN|extra|\nfolded|Ann|missing|\nspans|1 mon|missing|\nspans|30 days|extra|", 'as far as that is how they are written');
is(rows($local, q{SELECT synchro.requeue('remote', 'folded') + synchro.requeue('remote', 'spans')}), '2', 'others are queued again');
my $renamed = sync($local, 'remote');
is("$renamed->{inserted} $renamed->{updated} $renamed->{deleted}", '0 2 0', 'and it is the same rows that get the name of here');
is(differences($local, q{'remote', 'folded'}) . differences($local, q{'remote', 'spans'}), '', 'then they agree');

# numbers in other types there, each of which writes them in its own way
both($local, $remote, q{CREATE TABLE number (id serial PRIMARY KEY, name text UNIQUE NOT NULL, x real, y double precision, z real)});
$remote->safe_psql('postgres', q{ALTER TABLE number ALTER x TYPE double precision, ALTER y TYPE numeric, ALTER z TYPE numeric});
$local->safe_psql('postgres', q{SELECT synchro.add_table('number', '{name}');
	INSERT INTO number (name, x, y, z) SELECT v, v::real, v::float8, v::real FROM unnest('{0.1, 1e10, 1234567, -0, 0, -1.5e-30, 16777216, 1e15, 1e30, Infinity, -Infinity, NaN}'::text[]) v});
sync($local, 'remote');
is(differences($local, q{'remote', 'number'}), '', 'equal numbers are equal in any type');
$remote->safe_psql('postgres', q{UPDATE number SET x = 0.10000001 WHERE name = '0.1'; UPDATE number SET y = y + 1 WHERE name = '1e15'; UPDATE number SET z = 0.01 WHERE name = '-0'});
is(differences($local, q{'remote', 'number'}), "number|-0|different|{z}\nnumber|0.1|different|{x}\nnumber|1e15|different|{y}", 'others are not');

# a value that is another one each time it is looked at, and a table that has lost its key
both($local, $remote, q{CREATE TABLE restless (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int); INSERT INTO restless (name, n) VALUES ('a', 1), ('b', 2);
	CREATE TABLE lost (id serial PRIMARY KEY)});
my $ticker = IPC::Run::start([ 'psql', '-XAtq', '-d', $remote->connstr('postgres'), '-c',
	'DO $$ BEGIN LOOP UPDATE restless SET n = n + 1; COMMIT; END LOOP; END $$' ], '<', \undef, '>', \my $ticks, '2>', \my $ended);
wait_for($remote, q{SELECT min(n) > 2 FROM restless}, 'rows change all the time');
$local->safe_psql('postgres', q{SET client_min_messages = warning; SELECT synchro.add_table('restless', '{name}'), synchro.add_table('lost'); ALTER TABLE lost DROP CONSTRAINT lost_pkey});
($rc, $stdout, $stderr) = $local->psql('postgres', q{SELECT key FROM synchro.verify('remote', 'restless')});
is($rc . $stdout, '0', 'rows that are other ones in each look are not listed');
like($stderr, qr/NOTICE:  rows of table public\.restless that change all the time were left out: 2\nHINT:  .*SELECT \* FROM synchro\.verify\('remote', 'public\.restless'\);/, 'and are announced');
$remote->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %restless%'});
$ticker->finish;
$remote->safe_psql('postgres', 'DROP TABLE restless');
$local->safe_psql('postgres', q{SELECT synchro.remove_table('restless')});
($rc, $stdout, $stderr) = $local->psql('postgres', q{SELECT key FROM synchro.verify('remote') WHERE relation = 'lost'::regclass});
like($stderr, qr/NOTICE:  table public\.lost has lost its key and is left out\nHINT:  Name another one: SELECT synchro\.alter_table\('public\.lost', natural_key => \.\.\.\)/, 'a table without a key is left out, and said to be');
$local->safe_psql('postgres', q{SELECT synchro.remove_table('lost')});

# what it costs where all is equal; the rows have other ids there, and parents in their names
my $equal = $ENV{SYNCHRO_BIG} ? 1_000_000 : 100_000;
my $proxy = start_proxy($remote->port);
both($local, $remote, <<"SQL");
CREATE TABLE equal (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent, name text NOT NULL, n int, rest text) WITH (autovacuum_enabled = off);
INSERT INTO equal (parent_id, name, n, rest) SELECT p.id, 'e' || i, i, repeat('x', 20) FROM generate_series(1, $equal) i JOIN parent p ON p.name = 'p' || i % 300 + 1;
ALTER TABLE equal ADD UNIQUE (parent_id, name);
ANALYZE equal;
SQL
$local->safe_psql('postgres', "SELECT synchro.add_table('equal', '{parent_id,name}'); ALTER SERVER remote OPTIONS (SET port '$proxy->{port}')");
sync($local, 'remote');
is(differences($local, q{'remote', 'equal'}), '', 'a table is equal');

# sessions count their scans before they are gone
my $scans = q{SELECT seq_scan, idx_scan, seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'equal'};
my $alone = q{SELECT count(*) = 0 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type IN ('client backend', 'synchro pusher')};
wait_for($_, $alone, 'what has been done is counted on ' . $_->name) foreach $local, $remote;
my @before = map { [ split /\|/, rows($_, $scans) ] } $local, $remote;
my $bytes_before = $proxy->command('count');

# its own memory before and after, in kB
my $memory = q{SELECT substring(pg_read_file('/proc/self/status') FROM 'VmPeak:\s+(\d+)')};
my ($first, $seconds, $none, $peak) = split /\|/, $local->safe_psql('postgres', <<"SQL") =~ s/\n/|/gr;
$memory;
CREATE TEMP TABLE times AS SELECT clock_timestamp() AS began;
SELECT extract(epoch FROM (SELECT clock_timestamp() FROM (SELECT count(*) AS n FROM synchro.verify('remote', 'equal') OFFSET 0) v WHERE n = 0) - began) FROM times;
SELECT 'none';
$memory;
SQL
my $bytes = $proxy->command('count') - $bytes_before;
is($none, 'none', 'and equal again');
cmp_ok($seconds, '>', 0, 'no row is different');
note(sprintf '%d rows: %d bytes, %.1f s, %.1f MB', $equal, $bytes, $seconds, ($peak - $first) / 1024);
cmp_ok($bytes, '<', 40_000, 'few bytes go to and fro, pass and descriptions included');
cmp_ok($peak - $first, '<', 64 * 1024, 'and it takes little memory');
foreach my $i (0, 1)
{
	my $node = ($local, $remote)[$i];
	my $at = $node->name;

	wait_for($node, $alone, "the sessions on $at have ended");
	my @after = split /\|/, rows($node, $scans);
	is($after[0] - $before[$i][0], 1, "one scan on $at");
	is($after[2] - $before[$i][2], $equal, 'that reads each row once');
	cmp_ok($after[3] - $before[$i][3], '<', 10, 'and no row is looked up, but for those that the planner looks at');
}
$local->safe_psql('postgres', "ALTER SERVER remote OPTIONS (SET port '@{[ $remote->port ]}')");

# rights on parents that are in the names, and policies
$local->safe_psql('postgres', q{GRANT SELECT ON child TO looker});
my $as_looker = q{SET ROLE looker; SELECT count(*) FROM synchro.verify('remote', 'child')};
($rc, $stdout, $stderr) = $local->psql('postgres', $as_looker);
like($stderr, qr/permission denied for table parent/, 'a name has parts of other tables, which must be readable too');
$local->safe_psql('postgres', q{GRANT SELECT ON parent TO looker});
is(rows($local, $as_looker), '0', 'then it is');
$remote->safe_psql('postgres', 'DELETE FROM child WHERE n = 2');
$local->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION synchro.requeue(name, regclass) TO looker; REVOKE SELECT ON parent, child FROM looker');
my $before = rows($local, 'SELECT now()');
my $logged = "SELECT count(*) > 0 FROM synchro.changes WHERE changed_at >= '$before'";
foreach my $table ('child', 'parent')
{
	($rc, $stdout, $stderr) = $local->psql('postgres', q{SET ROLE looker; SELECT synchro.requeue('remote', 'child')});
	like($stderr, qr/permission denied for table $table/, "nor are rows logged anew for one who may not read $table");
	is(rows($local, $logged), 'f', 'nothing of them is in the log');
	$local->safe_psql('postgres', "GRANT SELECT ON $table TO looker");
}
is(rows($local, q{SET ROLE looker; SELECT synchro.requeue('remote', 'child') > 0}), 't', 'for one who may, they are');
is(rows($local, $logged), 't', 'and there they are');
sync($local, 'remote');
$local->safe_psql('postgres', q{ALTER TABLE child ENABLE ROW LEVEL SECURITY});
($rc, $stdout, $stderr) = $local->psql('postgres', $as_looker);
like($stderr, qr/rows of table "child" are hidden from you by a policy/, 'who does not see all rows is not told of them');
$local->safe_psql('postgres', q{ALTER TABLE child DISABLE ROW LEVEL SECURITY});
$remote->safe_psql('postgres', q{ALTER TABLE parent ENABLE ROW LEVEL SECURITY});
($rc, $stdout, $stderr) = $local->psql('postgres', q{SELECT * FROM synchro.verify('remote', 'parent')});
like($stderr, qr/remote "remote": query would be affected by row-level security policy/, 'nor are rows that the remote hides taken for missing');
$remote->safe_psql('postgres', q{ALTER TABLE parent DISABLE ROW LEVEL SECURITY});
($rc, $stdout, $stderr) = $local->psql('postgres', q{BEGIN READ ONLY; SELECT * FROM synchro.verify('remote', 'parent')});
like($stderr, qr/cannot execute verify\(\) in a read-only transaction/, 'it pushes, so not read only');

# nobody there
$remote->stop('fast');
($rc, $stdout, $stderr) = $local->psql('postgres', q{SELECT * FROM synchro.verify('remote')});
like($stderr, qr/could not connect to remote "remote"/, 'a remote that is down is an error, not a difference');
$local->stop('fast');

# both sides push, workers are on
my ($a, $b) = nodes({ conf => "shared_preload_libraries = 'synchro'" }, 'a', 'b');

both($a, $b, 'CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int); CREATE TABLE note (id serial PRIMARY KEY, parent_id int REFERENCES parent, what text)');
$b->safe_psql('postgres', q{SELECT setval('parent_id_seq', 100), setval('note_id_seq', 200)});
join_nodes($a, $b);
watch([ $a, $b ], parent => '{name}', note => undef);
foreach my $node ($a, $b)
{
	my $name = $node->name;

	$node->safe_psql('postgres', "INSERT INTO parent (name, n) SELECT '$name' || i, i FROM generate_series(1, 50) i; INSERT INTO note (parent_id, what) SELECT id, 'of $name' FROM parent WHERE name LIKE '$name%'");
}
wait_for($_, 'SELECT count(*) = 100 FROM note', 'the rows of both are on ' . $_->name) foreach $a, $b;
is(differences($a, q{'b'}), '', 'from one side there is no difference');
is(differences($b, q{'a'}), '', 'nor from the other');
is(rows($a, q{SET synchro.verify_wait = '10min'; SET quote_all_identifiers = on; SELECT relation, key, difference, columns FROM synchro.verify('b')}), '',
	'nor where the caller has all names quoted: by those of tables it is known which row is which');
$b->safe_psql('postgres', q{SET synchro.log_changes = off; UPDATE note SET what = 'quietly' WHERE id = 201; UPDATE parent SET n = -1 WHERE name = 'a3'});
$found = rows($a, q{SET synchro.verify_wait = '30s'; SELECT relation, key, difference, columns FROM synchro.verify('b') ORDER BY relation::text});
like($found, qr/^note\|\d+\|different\|\{what\}\nparent\|a3\|different\|\{n\}$/, 'changes that were not logged are found');
my ($note) = $found =~ /^note\|(\d+)/;
$a->safe_psql('postgres', "UPDATE note SET what = 'again' WHERE id = $note");
$b->safe_psql('postgres', q{UPDATE parent SET n = n + 1});
is(differences($a, q{'b'}), '', 'what the other side has under way is waited for');
$_->stop('fast') foreach $a, $b;

done_testing();
