# WHY: when definitions have come apart, or a remote's tables hold what nobody can explain, one schema has to begin anew
# without the others noticing. Soft, nothing may be lost by that; hard, nothing may happen that was not asked for twice.
use strict;
use warnings;

use lib 'test/t';
use IPC::Run;
use Nodes;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => 'synchro.batch_size = 100');
my $remote = synchro_node('remote');

# trees, pairs, circles and composite keys
my $schema = <<'SQL';
CREATE SCHEMA shop;
CREATE TABLE shop.country (id serial PRIMARY KEY, code text UNIQUE NOT NULL);
CREATE TABLE shop.town (id serial PRIMARY KEY, country int NOT NULL REFERENCES shop.country, name text NOT NULL, UNIQUE (country, name));
CREATE TABLE shop.person (id serial PRIMARY KEY, email text UNIQUE NOT NULL, town int REFERENCES shop.town, boss int REFERENCES shop.person);
CREATE TABLE shop.team (id serial PRIMARY KEY, name text UNIQUE NOT NULL, lead int REFERENCES shop.person);
ALTER TABLE shop.person ADD team int REFERENCES shop.team;
CREATE TABLE shop.friends (a int REFERENCES shop.person, b int REFERENCES shop.person, PRIMARY KEY (a, b));
CREATE TABLE shop.note (id serial PRIMARY KEY, person int REFERENCES shop.person, said text);
CREATE TABLE shop.rate (day date, currency text, v numeric, PRIMARY KEY (day, currency));
CREATE TABLE public.other (name text PRIMARY KEY, v int);
SQL
both($local, $remote, $schema);
connect_remote($local, $remote, schemas => [ 'public', 'shop' ]);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.register_natural_key('shop.country', '{code}'), synchro.register_natural_key('shop.town', '{country,name}'),
	synchro.register_natural_key('shop.person', '{email}'), synchro.register_natural_key('shop.team', '{name}');
SELECT synchro.add_schema('shop'), synchro.add_table('other');
INSERT INTO shop.country (code) SELECT 'C' || i FROM generate_series(1, 10) i;
INSERT INTO shop.town (country, name) SELECT 1 + i % 10, 'town ' || i FROM generate_series(1, 200) i;
INSERT INTO shop.person (email, town, boss) SELECT 'p' || i, i, nullif(i / 2, 0) FROM generate_series(1, 200) i;
INSERT INTO shop.team (name, lead) SELECT 'team ' || i, i FROM generate_series(1, 10) i;
UPDATE shop.person SET team = 1 + id % 10;
INSERT INTO shop.friends SELECT i, i + 1 FROM generate_series(1, 150) i;
INSERT INTO shop.note (person, said) SELECT i, 'note ' || i FROM generate_series(1, 120) i;
INSERT INTO shop.rate SELECT date '2024-01-01' + i, 'EUR', i FROM generate_series(1, 130) i;
INSERT INTO other VALUES ('x', 1);
SQL
$remote->safe_psql('postgres', q{SELECT setval('shop.country_id_seq', 100), setval('shop.town_id_seq', 2000), setval('shop.person_id_seq', 3000)});
my $rows = 10 + 200 + 200 + 10 + 150 + 120 + 130;
is(sync($local, 'office')->{inserted}, $rows + 1, 'a schema is synchronized');

my %contents = (
	towns => 'SELECT c.code, t.name FROM shop.town t JOIN shop.country c ON c.id = t.country ORDER BY t.name',
	people => 'SELECT p.email, t.name, b.email, m.name FROM shop.person p LEFT JOIN shop.town t ON t.id = p.town LEFT JOIN shop.person b ON b.id = p.boss LEFT JOIN shop.team m ON m.id = p.team ORDER BY 1',
	teams => 'SELECT t.name, p.email FROM shop.team t LEFT JOIN shop.person p ON p.id = t.lead ORDER BY 1',
	friends => 'SELECT a.email, b.email FROM shop.friends f JOIN shop.person a ON a.id = f.a JOIN shop.person b ON b.id = f.b ORDER BY 1, 2',
	notes => 'SELECT p.email, n.said FROM shop.note n JOIN shop.person p ON p.id = n.person ORDER BY 2',
	rates => 'SELECT * FROM shop.rate ORDER BY 1');

sub all_same
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	same($local, $remote, $contents{$_}, "$testname: $_") foreach sort keys %contents;
	return;
}

sub refused
{
	my ($sql, $pattern, $testname, $node) = @_;
	my ($status, undef, $stderr) = ($node || $local)->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($stderr, $pattern, $testname);
}
all_same('synchronized');

#
# soft
#
$local->safe_psql('postgres', <<'SQL');
UPDATE shop.country SET code = 'renamed' WHERE code = 'C1';
DELETE FROM shop.note WHERE said = 'note 1';
ALTER TABLE shop.town DISABLE TRIGGER synchro_capture;
DROP TRIGGER synchro_truncate ON shop.rate;
SQL
my $logged = rows($local, 'SELECT count(*) FROM synchro.changes');
is($local->safe_psql('postgres', q{SELECT synchro.reset_schema('shop')}), 7, 'a soft reset tells how many tables it has renewed');
is(rows($local, 'SELECT count(*) FROM synchro.changes'), $logged, 'nothing of the log is lost');
is( rows($local, q{SELECT string_agg(DISTINCT tgenabled::text, '') || count(*) FROM pg_trigger WHERE tgname LIKE 'synchro\_%' AND tgrelid::regclass::text LIKE 'shop.%'}),
	'A14', 'all triggers are there, and enabled');
$local->safe_psql('postgres', q{UPDATE shop.town SET name = 'renamed' WHERE name = 'town 5'});
sync($local, 'office');
all_same('after a soft reset');
is(rows($remote, q{SELECT id > 100 FROM shop.country WHERE code = 'renamed'}), 't', 'a row that had been renamed before is the same row still');

#
# hard: not by mistake
#
refused(q{SELECT synchro.reset_schema('shop', soft => false)}, qr/22023: to reset a schema hard takes a remote and confirm => true.*HINT:  SELECT synchro\.reset_schema\('shop', soft => false/s,
	'a hard reset is refused without a remote');
refused(q{SELECT synchro.reset_schema('shop', false, 'office')}, qr/22023: to reset a schema hard/, 'and without confirm');
refused(q{SELECT synchro.reset_schema('shop', false, NULL, true)}, qr/22023: to reset a schema hard/, 'and with no remote');
refused(q{SELECT synchro.reset_schema('shop', false, 'nowhere', true)}, qr/42704: .*nowhere/, 'and to nowhere');
refused(q{CREATE SCHEMA empty; SELECT synchro.reset_schema('empty')}, qr/42704: no table of schema "empty" is watched.*HINT:  SELECT synchro\.add_schema\('empty'\)/s,
	'and of a schema without watched tables');
$local->safe_psql('postgres', 'CREATE ROLE clerk; GRANT USAGE ON SCHEMA synchro, shop TO clerk; GRANT EXECUTE ON FUNCTION synchro.reset_schema TO clerk');
refused(q{SET ROLE clerk; SELECT synchro.reset_schema('shop')}, qr/42501: must be owner of all watched tables of schema "shop".*HINT:  Let a role that owns all of them/s, 'and by somebody else than the owner');
is(rows($local, 'SELECT count(*) FROM synchro.copying'), 0, 'nothing came of these');

#
# hard
#
$remote->safe_psql('postgres', <<'SQL');
UPDATE shop.person SET email = 'strange ' || email WHERE id % 3 = 0;
INSERT INTO shop.country (code) VALUES ('only there');
INSERT INTO shop.note (said) VALUES ('only there');
DELETE FROM shop.friends WHERE a % 2 = 0;
ALTER TABLE shop.rate ADD CONSTRAINT few CHECK (v < 1000);
SQL
# with what is pending, and what has failed
$local->safe_psql('postgres', q{INSERT INTO shop.rate VALUES ('2025-01-01', 'EUR', 5000); UPDATE other SET v = 2});
sync($local, 'office');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 1, 'something has failed');
$remote->safe_psql('postgres', 'ALTER TABLE shop.rate DROP CONSTRAINT few');
my $pairs = rows($remote, q{SELECT max(remote_key[1]::int) FROM synchro_peer.reference});
$local->safe_psql('postgres', <<'SQL');
UPDATE shop.person SET email = 'renamed ' || email WHERE id % 5 = 0;
DELETE FROM shop.friends WHERE a = 20;
DELETE FROM shop.note WHERE person = 20;
SQL
is( $local->safe_psql('postgres', q{SELECT synchro.reset_schema('shop', soft => false, remote => 'office', confirm => true)}),
	rows($local, 'SELECT (SELECT count(*) FROM shop.country) + (SELECT count(*) FROM shop.town) + (SELECT count(*) FROM shop.person) + (SELECT count(*) FROM shop.team)'
		  . ' + (SELECT count(*) FROM shop.friends) + (SELECT count(*) FROM shop.note) + (SELECT count(*) FROM shop.rate)'),
	'a hard reset tells how many rows it copies');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'failures are forgotten');
is(rows($local, 'SELECT phase FROM synchro.progress'), 'deleting', 'view progress tells what comes first');
is( rows($local, q{SELECT relation, key, detail FROM synchro.preview('office') WHERE action = 'delete' AND relation IN ('shop.rate'::regclass, 'shop.note'::regclass) ORDER BY relation::text}),
	'shop.note||all rows: ' . rows($remote, 'SELECT count(*) FROM shop.note') . "\nshop.rate||all rows: " . rows($remote, 'SELECT count(*) FROM shop.rate'), 'and so does a preview');
my $result = sync($local, 'office');
is($result->{failed}, 0, 'the tables are emptied and copied');
all_same('after a hard reset');
is(rows($remote, q{SELECT count(*) FROM shop.country WHERE code = 'only there'}), 0, 'what was there only is gone');
cmp_ok(rows($remote, q{SELECT min(remote_key[1]::int) FROM synchro_peer.reference WHERE relation = 'shop.note'}), '>', $pairs, 'pairs are new ones');
is(rows($remote, 'SELECT v FROM other'), 2, 'other schemas are left alone');
is(rows($local, 'SELECT count(*) FROM synchro.copying'), 0, 'nothing is left to do');
$local->safe_psql('postgres', q{UPDATE shop.note SET said = said || '!' WHERE said = 'note 7'; DELETE FROM shop.note WHERE said = 'note 8'});
$result = sync($local, 'office');
is("$result->{inserted} $result->{updated} $result->{deleted}", '0 1 1', 'then it goes on as ever');
all_same('at last');

# a primary key that was altered while changes were pending
$_->safe_psql('postgres', 'ALTER TABLE shop.rate DROP CONSTRAINT rate_pkey; ALTER TABLE shop.rate ADD PRIMARY KEY (currency, day)') foreach $remote;
$local->safe_psql('postgres', q{UPDATE shop.rate SET v = v + 1; ALTER TABLE shop.rate DROP CONSTRAINT rate_pkey; ALTER TABLE shop.rate ADD PRIMARY KEY (currency, day)});
sync($local, 'office');
like(rows($local, 'SELECT relation, message FROM synchro.failures'), qr/^shop\.rate\|primary key of table shop\.rate was altered/, 'a log that cannot be read any more');
$local->safe_psql('postgres', q{SELECT synchro.reset_schema('shop', false, 'office', true)});
sync($local, 'office');
all_same('is forgotten');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'and no failure any more');

# a table that cannot be emptied
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE stranger (country int REFERENCES shop.country);
INSERT INTO stranger SELECT id FROM shop.country WHERE code = 'C2';
SQL
$local->safe_psql('postgres', q{SELECT synchro.reset_schema('shop', false, 'office', true); UPDATE other SET v = 3});
sync($local, 'office');
like(rows($local, 'SELECT relation, sqlstate, message FROM synchro.failures'),
	qr/^shop\.country\|55000\|table shop\.country of remote "office" cannot be emptied: .*"stranger"/, 'a table that cannot be emptied is a failure that says why');
is(rows($remote, 'SELECT v FROM other'), 3, 'others go on');
$remote->safe_psql('postgres', 'DROP TABLE stranger');
sync($local, 'office') foreach 1 .. 2;
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'until that is mended');
all_same('mended');

#
# rows of other tables that would go along, or lose what they refer to
#
my $spared = q{SELECT count(*), count(country) FROM stranger};
foreach my $case (
	[ 'CASCADE', 'int REFERENCES shop.country ON DELETE CASCADE', '' ],
	[ 'SET NULL', 'int REFERENCES shop.country ON DELETE SET NULL', '' ],
	[ 'SET DEFAULT', 'int DEFAULT NULL REFERENCES shop.country ON DELETE SET DEFAULT', '' ],
	[ 'CASCADE', 'int REFERENCES shop.country ON DELETE CASCADE', 'PARTITION BY HASH (country); CREATE TABLE stranger_1 PARTITION OF stranger FOR VALUES WITH (MODULUS 1, REMAINDER 0)' ])
{
	my ($action, $type, $more) = @$case;

	$remote->safe_psql('postgres', "CREATE TABLE stranger (country $type) $more; INSERT INTO stranger SELECT id FROM shop.country WHERE code = 'C2'");
	$local->safe_psql('postgres', q{SELECT synchro.reset_schema('shop', false, 'office', true); UPDATE other SET v = v + 1});
	sync($local, 'office');
	like(rows($local, 'SELECT relation, sqlstate, message, hint FROM synchro.failures'),
		qr/^shop\.country\|55000\|table shop\.country of remote "office" cannot be emptied: rows of table public\.stranger(_1)? refer to shop\.country ON DELETE $action\|Delete there/,
		"$action: a table that another one's rows refer to is not emptied");
	is(rows($remote, $spared), '1|1', 'these are left alone');
	same($local, $remote, 'SELECT v FROM other', 'others go on');

	# what may not be read cannot be looked at
	$remote->safe_psql('postgres', 'TRUNCATE stranger; REVOKE ALL ON ALL TABLES IN SCHEMA public FROM sync; GRANT SELECT, INSERT, UPDATE, DELETE ON other TO sync');
	sync($local, 'office');
	like(rows($local, 'SELECT message FROM synchro.failures'), qr/rows of table public\.stranger(_1)? may refer to shop\.country ON DELETE $action: they cannot be read$/, 'nor is one whose rows cannot be looked at');
	$remote->safe_psql('postgres', 'GRANT SELECT (country) ON stranger TO sync' . ($more ? '; GRANT SELECT (country) ON stranger_1 TO sync' : ''));
	sync($local, 'office') foreach 1 .. 2;
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'it is when no row refers to it');
	all_same("$action");
	$remote->safe_psql('postgres', 'DROP TABLE stranger');
}

# a copy that is queued meanwhile takes the place of one that was to be emptied first, so it is
$local->safe_psql('postgres', q{SELECT synchro.reset_schema('shop', false, 'office', true); SELECT synchro.copy_table('office', 'shop.rate'), synchro.copy_table('office', 'shop.country')});
$remote->safe_psql('postgres', q{INSERT INTO shop.rate VALUES ('2030-01-01', 'EUR', 1); INSERT INTO shop.country (code) VALUES ('only there')});
sync($local, 'office');
is(rows($local, 'SELECT count(*) FROM synchro.failures') . rows($local, 'SELECT count(*) FROM synchro.copying'), '00', 'a copy of one table does not keep the schema from being emptied');
all_same('copied once more');
is(rows($remote, q{SELECT count(*) FROM shop.country WHERE code = 'only there'}), 0, 'nor the table');

# a row that somebody has locked
$remote->safe_psql('postgres', q{ALTER ROLE sync SET lock_timeout = '100ms'});
my $locker = $remote->background_psql('postgres');
$locker->query_safe(q{BEGIN; UPDATE shop.country SET code = code WHERE code = 'C2'});
$local->safe_psql('postgres', q{SELECT synchro.reset_schema('shop', false, 'office', true); UPDATE other SET v = v + 1});
sync($local, 'office');
like(rows($local, 'SELECT relation, sqlstate, message FROM synchro.failures'), qr/^shop\.country\|55000\|table shop\.country of remote "office" cannot be emptied: .*lock timeout/,
	'a table of which a row is locked is not emptied');
same($local, $remote, 'SELECT v FROM other', 'others go on');
$locker->quit;
$remote->safe_psql('postgres', 'ALTER ROLE sync RESET lock_timeout');
sync($local, 'office') foreach 1 .. 2;
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'it is when the lock is gone');
all_same('unlocked');

# which takes as long as a statement may: that is waited for once, and the others have as much time for themselves
$local->append_conf('postgresql.conf', 'synchro.statement_timeout = 2s');
$local->reload;
$locker = $remote->background_psql('postgres');
$locker->query_safe(q{BEGIN; UPDATE shop.country SET code = code WHERE code = 'C2'});
my $log = -s $remote->logfile;
my $before = rows($local, 'SELECT clock_timestamp()');
$local->safe_psql('postgres', q{SELECT synchro.reset_schema('shop', false, 'office', true); UPDATE other SET v = v + 1});
sync($local, 'office');
like(rows($local, 'SELECT relation, sqlstate, message, hint FROM synchro.failures'), qr/^shop\.\w+\|55000\|table shop\.\w+ of remote "office" cannot be emptied: .*statement timeout\|See who holds locks there/,
	'it is not emptied either where the time for a statement is over');
is(() = slurp_file($remote->logfile, $log) =~ /canceling statement due to statement timeout/g, 1, 'which is waited for once');
is(rows($local, "SELECT next_attempt >= '$before'::timestamptz + interval '4 s' FROM synchro.failures"), 't', 'and not again before others have had as much time');
same($local, $remote, 'SELECT v FROM other', 'others go on');
$locker->quit;
$local->append_conf('postgresql.conf', 'synchro.statement_timeout = 10min');
$local->reload;
sync($local, 'office') foreach 1 .. 2;
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'when the lock is gone it is');
all_same('unlocked again');

#
# a hard reset locks a table, but not its partitions: what is written to one of them while rows are counted is no part of the copy
#
both($local, $remote, <<'SQL');
CREATE SCHEMA parts;
CREATE TABLE parts.t (id serial, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE parts.one PARTITION OF parts.t FOR VALUES IN (1);
CREATE TABLE parts.two PARTITION OF parts.t FOR VALUES IN (2);
SQL
grant_dml($remote, schemas => ['parts']);
$local->safe_psql('postgres', q{SELECT synchro.add_schema('parts'); INSERT INTO parts.t (part, v) SELECT 1 + i % 2, 'row ' || i FROM generate_series(1, 20) i});
sync($local, 'office');
my $holder = $local->background_psql('postgres');
my $resetter = $local->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE parts.two');
$resetter->query_until(qr/begun/, "\\echo begun\nSELECT synchro.reset_schema('parts', false, 'office', true);\n");
wait_for($local, q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 'parts.two'::regclass AND NOT granted}, 'rows are being counted');
$local->safe_psql('postgres', q{INSERT INTO parts.one (part, v) VALUES (1, 'meanwhile')});
$holder->query_safe('ROLLBACK');
$_->quit foreach $holder, $resetter;
sync($local, 'office') foreach 1 .. 2;
same($local, $remote, 'SELECT part, v FROM parts.t ORDER BY v', 'a row that is inserted meanwhile arrives, too');
is(rows($remote, q{SELECT count(*) FROM parts.t WHERE v = 'meanwhile'}), 1, 'once');

# nor is what has been pushed before the reset commits
$resetter = $local->background_psql('postgres');
$resetter->query_safe(q{BEGIN; SELECT synchro.reset_schema('parts', false, 'office', true)});
$local->safe_psql('postgres', q{INSERT INTO parts.one (part, v) VALUES (1, 'pushed meanwhile')});
sync($local, 'office');
is(rows($remote, q{SELECT count(*) FROM parts.t WHERE v = 'pushed meanwhile'}), 1, 'a row is pushed before a reset commits');
$resetter->query_safe('COMMIT');
$resetter->quit;
sync($local, 'office') foreach 1 .. 2;
same($local, $remote, 'SELECT part, v FROM parts.t ORDER BY v', 'and is there after it');

#
# a hard reset whose transaction is open while a later copy of the table is made: what that has pushed is deleted, too
#
both($local, $remote, 'CREATE SCHEMA half; CREATE TABLE half.t (id int PRIMARY KEY, v int)');
$remote->safe_psql('postgres', <<'SQL');
GRANT USAGE ON SCHEMA half TO sync;
GRANT SELECT, INSERT, UPDATE, DELETE ON half.t TO sync;
CREATE FUNCTION half.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_catalog.pg_advisory_xact_lock(1) WHERE NEW.id = 250;
	RETURN NEW;
END
$$;
CREATE TRIGGER hold BEFORE INSERT ON half.t FOR EACH ROW EXECUTE FUNCTION half.hold();
SQL
$local->safe_psql('postgres', q{INSERT INTO half.t SELECT i, i FROM generate_series(1, 500) i; SET client_min_messages = error; SELECT synchro.add_schema('half')});
foreach my $when ('while a piece is pushed', 'after some pieces')
{
	$remote->safe_psql('postgres', 'TRUNCATE half.t; INSERT INTO half.t VALUES (1000, 0)');
	$holder = $remote->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(1)');
	$resetter = $local->background_psql('postgres');
	$resetter->query_safe(q{BEGIN; SELECT synchro.reset_schema('half', false, 'office', true)});
	$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'half.t')});
	my $caller = IPC::Run::start([ 'psql', '-XAt', '-d', $local->connstr('postgres'), '-c', q{SELECT inserted FROM synchro.synchronize('office')} ], '<', \undef, '>', \my $out, '2>', \my $err);
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, "$when: half of a copy is made");
	$local->safe_psql('postgres', q{SELECT synchro.pause('office')});
	$resetter->query_safe('COMMIT') if $when =~ /while/;
	$holder->query_safe('SELECT pg_advisory_unlock(1)');
	$caller->finish;
	cmp_ok(rows($remote, 'SELECT count(*) FROM half.t WHERE id < 1000'), '<', 500, 'and no more') or diag($err);
	$resetter->query_safe('COMMIT') if $when !~ /while/;
	$_->quit foreach $holder, $resetter;
	$local->safe_psql('postgres', q{SELECT synchro.resume('office')});
	sync($local, 'office') foreach 1 .. 2;
	is(rows($local, 'SELECT count(*) FROM synchro.copying'), 0, 'all is done');
	same($local, $remote, 'SELECT * FROM half.t ORDER BY id', 'all rows are there, and no others');
}

#
# a remote that is a node would send the deletes back
#
my $node = synchro_node('node');
$node->safe_psql('postgres', $schema);
connect_remote($local, $node, name => 'node', schemas => [ 'public', 'shop' ]);
$local->safe_psql('postgres', q{SELECT synchro.reset('node'); SELECT synchro.copy_table('node', relation) FROM synchro.tables WHERE relation::text LIKE 'shop.%'});
sync($local, 'node');
same($local, $node, $contents{$_}, "another remote has all: $_") foreach sort keys %contents;

# it becomes one while a reset waits: then copies take the place of that, and deletes of before count
$local->safe_psql('postgres', q{DELETE FROM shop.note WHERE said = 'note 30'; SELECT synchro.reset_schema('shop', false, 'node', true)});
$node->safe_psql('postgres', q{CREATE EXTENSION synchro; SELECT synchro.allow_peer('sync'); UPDATE shop.rate SET v = -v; INSERT INTO shop.country (code) VALUES ('only there')});
sync($local, 'node');
like(rows($local, 'SELECT relation, message, hint FROM synchro.failures'), qr/^shop\.\w+\|tables of remote "node" cannot be emptied\|Run synchro\.copy_table\(\) for each table/, 'what has become a node is not emptied');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('node', relation, delete_extra => mode <> 'reference') FROM synchro.tables WHERE relation::text LIKE 'shop.%'});
sync($local, 'node') foreach 1 .. 2;
is(rows($local, 'SELECT count(*) FROM synchro.failures') . rows($local, 'SELECT count(*) FROM synchro.copying'), '00', 'what the hint says takes its place');
same($local, $node, $contents{$_}, "the node has all: $_") foreach sort keys %contents;
is(rows($node, q{SELECT count(*) FROM shop.country WHERE code = 'only there'}), 0, 'and no more');
refused(q{SELECT synchro.reset_schema('shop', false, 'node', true)}, qr/0A000: tables of remote "node" cannot be emptied.*HINT:  Run synchro\.copy_table/s,
	'a hard reset of a node is refused');

$_->stop('fast') foreach $local, $remote, $node;
done_testing();
