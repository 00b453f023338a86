# WHY: rows that were there before a table was watched are in no log. copy_table has to bring all of them, whatever their
# keys are, write nothing that is right already, leave alone what is on the remote only, or delete that and nothing else
# where it was asked to; to one remote and not to others, and also where no worker is always on.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => 'synchro.batch_size = 100');
my $remote = synchro_node('remote');
my $other = synchro_node('other');

my $schema = <<'SQL';
CREATE TABLE country (id serial PRIMARY KEY, code text UNIQUE NOT NULL, name text);
CREATE TABLE town (id serial PRIMARY KEY, country int NOT NULL REFERENCES country, name text NOT NULL, n int, UNIQUE (country, name));
CREATE TABLE twin (a int REFERENCES town, b int REFERENCES town, note text, PRIMARY KEY (a, b));
CREATE TABLE remark (id serial PRIMARY KEY, town int REFERENCES town, said text);
CREATE TABLE part (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE keyless (code text UNIQUE, v int);
CREATE TABLE tree (id serial PRIMARY KEY, parent int REFERENCES tree, name text NOT NULL, UNIQUE NULLS NOT DISTINCT (parent, name));
CREATE TABLE odd ("the key" char(4) COLLATE "C", "B" numeric, v text, PRIMARY KEY ("the key", "B"));
SQL
both($local, $remote, $schema);
$other->safe_psql('postgres', $schema);
connect_remote($local, $remote);
connect_remote($local, $other, name => 'other');

# what is written on the remote is counted there
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE audit (relation text, operation text);
GRANT INSERT ON audit TO sync;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit VALUES (TG_TABLE_NAME, TG_OP); RETURN NULL; END $$;
DO $$ DECLARE t text; BEGIN FOREACH t IN ARRAY '{country,town,twin,remark,part,keyless,tree,odd}'::text[] LOOP
	EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION note()', t);
END LOOP; END $$;
SELECT setval('country_id_seq', 500), setval('town_id_seq', 9000), setval('remark_id_seq', 700), setval('tree_id_seq', 4000);
SQL

sub written
{
	return $remote->safe_psql('postgres', <<'SQL');
SELECT coalesce(string_agg(format('%s %s %s', relation, operation, n), ', ' ORDER BY relation, operation), '')
FROM (SELECT relation, operation, count(*) AS n FROM audit GROUP BY 1, 2) x;
TRUNCATE audit;
SQL
}

$local->safe_psql('postgres', <<'SQL');
INSERT INTO country (code, name) SELECT 'C' || i, 'country ' || i FROM generate_series(1, 20) i;
INSERT INTO town (country, name, n) SELECT 1 + i % 20, 'town ' || i, i FROM generate_series(1, 1000) i;
INSERT INTO twin SELECT i, i + 1, 'twins ' || i FROM generate_series(1, 300) i;
INSERT INTO remark (town, said) SELECT i, 'remark ' || i FROM generate_series(1, 250) i;
INSERT INTO part SELECT i, date '2020-01-01' + i, 'p' || i FROM generate_series(1, 700) i;
INSERT INTO keyless SELECT nullif('k' || i, 'k7'), i FROM generate_series(1, 250) i;
INSERT INTO tree (parent, name) SELECT CASE WHEN i > 1 THEN i / 2 END, 'node ' || i FROM generate_series(1, 300) i;
INSERT INTO odd SELECT chr(97 + i % 26) || i % 7, i / 10.0, 'v' || i FROM generate_series(1, 300) i;
SQL

my ($status, undef, $notice) = $local->psql('postgres', "SELECT synchro.add_table('country', '{code}')");
like($notice, qr/NOTICE:  table "country" has rows already.*HINT:  .*SELECT synchro\.copy_table\('office', 'public\.country'\);/s,
	'who watches a table that has rows is told how to copy them');
($status, undef, $notice) = $local->psql('postgres', 'CREATE TABLE empty (id int PRIMARY KEY)' . ";SELECT synchro.add_table('empty')");
unlike($notice, qr/has rows already/, 'and not of one without');
$local->safe_psql('postgres', 'DROP TABLE empty');
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('town', '{country,name}'), synchro.add_table('twin'), synchro.add_table('remark'), synchro.add_table('part'),
	synchro.add_table('keyless', '{code}'), synchro.add_table('tree', '{parent,name}'), synchro.add_table('odd');
SQL
is(sync($local, 'office')->{inserted}, 0, 'by themselves these rows go nowhere');

#
# every row, in every mode; children are queued before their parents
#
my $tables = q{ARRAY['twin', 'remark', 'town', 'country', 'part', 'keyless', 'tree', 'odd']};
is( $local->safe_psql('postgres',
		"SELECT string_agg(synchro.copy_table('office', t::regclass)::text, ' ' ORDER BY i) FROM unnest($tables) WITH ORDINALITY x (t, i)"),
	'300 250 1000 20 700 250 300 300', 'copy_table says how many rows it has queued');
is(rows($local, q{SELECT pending FROM synchro.remotes WHERE remote = 'office'}), 3120, 'they are pending');
is(rows($local, q{SELECT pending FROM synchro.remotes WHERE remote = 'other'}), 0, 'for this remote only');
is(rows($local, q{SELECT remote, phase, rows_done, rows_total FROM synchro.progress}), 'office|copying|0|300', 'view progress tells of them');
is(rows($local, 'SELECT count(*) FROM synchro.changes'), 0, 'nothing is logged for that');
my $result = sync($local, 'office');
is("$result->{inserted} $result->{updated} $result->{deleted} $result->{failed}", '3120 0 0 0', 'synchronize waits for all of it, and counts it');
is(rows($local, 'SELECT count(*) FROM synchro.progress'), 0, 'nothing is left to do');
is(rows($local, q{SELECT sum(pending) FROM synchro.remotes}), 0, 'nothing is pending');

my %contents = (
	country => 'SELECT code, name FROM country ORDER BY code',
	town => 'SELECT c.code, t.name, t.n FROM town t JOIN country c ON c.id = t.country ORDER BY t.name',
	twin => 'SELECT a.name, b.name, w.note FROM twin w JOIN town a ON a.id = w.a JOIN town b ON b.id = w.b ORDER BY w.note',
	remark => 'SELECT t.name, r.said FROM remark r JOIN town t ON t.id = r.town ORDER BY r.said',
	part => 'SELECT * FROM part ORDER BY id',
	keyless => 'SELECT * FROM keyless ORDER BY v',
	tree => 'SELECT p.name, t.name FROM tree t LEFT JOIN tree p ON p.id = t.parent ORDER BY t.name',
	odd => 'SELECT * FROM odd ORDER BY 1, 2');

sub all_same
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	same($local, $remote, $contents{$_}, "$testname: $_") foreach sort keys %contents;
	return;
}
all_same('copied');
is(rows($other, 'SELECT count(*) FROM town'), 0, 'the other remote was given nothing');
written();

#
# again: what is right is not written, what is not is
#
my $again = "SELECT sum(synchro.copy_table('office', t::regclass)) FROM unnest($tables) t";
is($local->safe_psql('postgres', $again), 3120, 'all of it is copied once more');
$result = sync($local, 'office');
is("$result->{inserted} $result->{updated} $result->{deleted}", '0 0 0', 'nothing is changed by that');
is(written(), '', 'and nothing written');
$remote->safe_psql('postgres', <<'SQL');
UPDATE town SET n = -n WHERE n % 100 = 0;
DELETE FROM twin WHERE note = 'twins 5';
UPDATE tree SET name = 'strange' WHERE name = 'node 300';
INSERT INTO country (code, name) VALUES ('X1', 'only there');
INSERT INTO remark (said) VALUES ('only there');
SQL
written();
$local->safe_psql('postgres', $again);
$result = sync($local, 'office');
is("$result->{inserted} $result->{updated} $result->{deleted}", '2 10 0', 'what differs is brought in line');
is(written(), 'town UPDATE 10, tree INSERT 1, twin INSERT 1', 'and only that is written');
is(rows($remote, q{SELECT count(*) FROM country WHERE code = 'X1'}) . rows($remote, q{SELECT count(*) FROM remark WHERE said = 'only there'})
	  . rows($remote, q{SELECT count(*) FROM tree WHERE name = 'strange'}), '111', 'what is on the remote only stays');

#
# delete_extra
#
$remote->safe_psql('postgres', <<'SQL');
INSERT INTO town (country, name) SELECT id, 'extra town ' || g FROM country, generate_series(1, 250) g WHERE code = 'X1';
INSERT INTO town (country, name) SELECT id, 'extra town' FROM country WHERE code = 'C3';
INSERT INTO twin SELECT a.id, b.id, 'extra' FROM town a, town b WHERE a.name = 'extra town' AND b.name = 'town 2';
INSERT INTO part VALUES (9999, '2021-05-05', 'extra');
INSERT INTO keyless VALUES ('extra', 1);
SQL
written();

# with a row that is inserted here before the copy has been pushed, and one that is there already
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.copy_table('office', t::regclass, delete_extra => true) FROM unnest('{country,town,twin,part,keyless,tree,odd}'::text[]) t;
INSERT INTO country (code, name) VALUES ('X2', 'young');
INSERT INTO town (country, name) SELECT id, 'extra town' FROM country WHERE code = 'C3';
SQL
$result = sync($local, 'office');
is("$result->{inserted} $result->{deleted} $result->{failed}", '1 255 0', 'what is on the remote only goes, children first');
is(rows($remote, q{SELECT count(*) FROM town WHERE name = 'extra town'}), 1, 'a row that was inserted here meanwhile stays');
delete $contents{remark};
all_same('with delete_extra');
is(rows($remote, q{SELECT count(*) FROM remark WHERE said = 'only there'}), 1, 'a table for which it was not asked keeps what it has');
is(written(), 'country DELETE 1, country INSERT 1, keyless DELETE 1, part_2 DELETE 1, town DELETE 250, tree DELETE 1, twin DELETE 1',
	'nothing else is deleted');

# what the remote still needs cannot go, and is a failure
$remote->safe_psql('postgres', <<'SQL');
INSERT INTO country (code) VALUES ('X3'), ('X4');
CREATE TABLE stranger (country int REFERENCES country);
INSERT INTO stranger SELECT id FROM country WHERE code = 'X3';
SQL
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'country', true)});
$result = sync($local, 'office');
is("$result->{deleted} $result->{failed}", '1 1', 'an extra row that the remote refers to stays');
like(rows($local, 'SELECT relation, operation, sqlstate, message FROM synchro.failures'),
	qr/^country\|delete\|23503\|.*stranger/, 'and is a failure that says why');
$remote->safe_psql('postgres', 'DROP TABLE stranger');
$result = sync($local, 'office');
is($result->{deleted}, 1, 'it goes when it can');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'and is no failure any more');

# what was done before a table stalls is counted
both($local, $remote, 'CREATE TABLE early (id int PRIMARY KEY); CREATE TABLE late (id int PRIMARY KEY)');
$local->safe_psql('postgres', q{SELECT synchro.add_table('early'), synchro.add_table('late')});
$local->safe_psql('postgres', "SET synchro.log_changes = off; INSERT INTO $_ SELECT generate_series(1, 300)") foreach 'early', 'late';
$remote->safe_psql('postgres', 'ALTER TABLE late RENAME TO away');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'early'), synchro.copy_table('office', 'late')});
is(sync($local, 'office')->{inserted}, 300, 'rows that arrive before a table stalls are counted');
$remote->safe_psql('postgres', 'ALTER TABLE away RENAME TO late');
is(sync($local, 'office')->{inserted}, 300, 'and those of the table when it is mended');
$local->safe_psql('postgres', q{SELECT synchro.remove_table('early'), synchro.remove_table('late')});
both($local, $remote, 'DROP TABLE early, late');

# where extra rows cannot be told from others
sub refused
{
	my ($sql, $pattern, $testname) = @_;
	my ($code, undef, $stderr) = $local->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($stderr, $pattern, $testname);
}
refused(q{SELECT synchro.copy_table('office', 'remark', true)}, qr/0A000: extra rows of table "remark" cannot be deleted.*HINT:  Register a natural key/s,
	'delete_extra is refused in mode reference');
refused(q{SELECT synchro.alter_table('odd', '{v}', allow_many => true), synchro.copy_table('office', 'odd', true)},
	qr/0A000: extra rows of table "odd" cannot be deleted/, 'and where a key may match many rows');
refused(q{CREATE TABLE unwatched (id int PRIMARY KEY); SELECT synchro.copy_table('office', 'unwatched')},
	qr/55000: table "unwatched" is not watched.*HINT:  SELECT synchro\.add_table\('public\.unwatched'\)/s, 'a table that is not watched is not copied');
refused(q{SELECT synchro.copy_table('office', 'part_1')}, qr/55000: table "part_1" is not watched.*HINT:  It is a partition/s, 'nor a partition alone');
refused(q{CREATE TABLE loses (code text NOT NULL UNIQUE, n int); SELECT synchro.add_table('loses', '{code}'); ALTER TABLE loses DROP code; SELECT synchro.copy_table('office', 'loses')},
	qr/55000: table public\.loses has lost its key.*HINT:  Add a primary key, or name another key/s, 'nor one that has lost its key');
refused(q{SELECT synchro.reset_schema('public')}, qr/55000: table "loses" has no usable key.*HINT:  .*SELECT synchro\.alter_table\('public\.loses'/s, 'nor is its schema reset');
$local->safe_psql('postgres', q{DROP TABLE loses});
refused(q{SELECT synchro.copy_table('nowhere', 'town')}, qr/"nowhere"/, 'nor to nowhere');
$local->safe_psql('postgres', 'CREATE ROLE clerk; GRANT USAGE ON SCHEMA synchro TO clerk; GRANT EXECUTE ON FUNCTION synchro.copy_table TO clerk');
refused(q{SET ROLE clerk; SELECT synchro.copy_table('office', 'town')}, qr/must be owner of table town/, 'nor by somebody else than its owner');

# a key that matches several rows of the remote says nothing of the others
both($local, $remote, 'CREATE TABLE vague (id serial PRIMARY KEY, name text)');
$local->safe_psql('postgres', q{INSERT INTO vague (name) VALUES ('a'); SELECT synchro.add_table('vague', '{name}')});
$remote->safe_psql('postgres', q{INSERT INTO vague (name) VALUES ('b')});
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'vague', true)});
is(sync($local, 'office')->{deleted}, 1, 'a table without unique index is compared, too');
$remote->safe_psql('postgres', q{INSERT INTO vague (name) VALUES ('a')});
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'vague', true); UPDATE country SET name = 'goes on' WHERE code = 'C1'});
sync($local, 'office');
like(rows($local, 'SELECT DISTINCT relation, message FROM synchro.failures WHERE key IS NULL'),
	qr/^vague\|rows of table public\.vague on remote "office" that are not here cannot be told from others/, 'one whose rows cannot be told apart stalls');
is(rows($remote, q{SELECT name FROM country WHERE code = 'C1'}), 'goes on', 'the others go on');
$remote->safe_psql('postgres', q{DELETE FROM vague WHERE id = (SELECT max(id) FROM vague); INSERT INTO vague (name) VALUES ('c')});
sync($local, 'office') foreach 1 .. 2;
same($local, $remote, 'SELECT name FROM vague', 'until that is mended');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'then nothing has failed any more');

#
# what else is done meanwhile
#
$remote->safe_psql('postgres', 'DELETE FROM twin; DELETE FROM remark; DELETE FROM town');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'town'); SELECT synchro.reset('office', true)});
is(rows($local, 'SELECT count(*) FROM synchro.copying'), 0, 'reset() forgets copies');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'town'); SELECT synchro.set_checkpoint('office', now())});
is(rows($local, 'SELECT count(*) FROM synchro.copying'), 0, 'so does set_checkpoint()');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'town'); SELECT synchro.remove_table('town'); SELECT synchro.add_table('town', '{country,name}')});
is(rows($local, 'SELECT count(*) FROM synchro.copying'), 0, 'and remove_table()');
$local->safe_psql('postgres', q{CREATE TABLE goes (id int PRIMARY KEY); INSERT INTO goes VALUES (1); SELECT synchro.add_table('goes');
	SELECT synchro.copy_table('office', 'goes'); DROP TABLE goes});
is(rows($local, 'SELECT count(*) FROM synchro.copying'), 0, 'and DROP TABLE');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('other', 'country'); SELECT synchro.remove_remote('other')});
is(rows($local, 'SELECT count(*) FROM synchro.copying'), 0, 'and remove_remote()');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'town', true); SELECT synchro.copy_table('office', 'town')});
is(rows($local, q{SELECT pending FROM synchro.remotes}), 1001, 'of two copies of a table the latter counts');
$remote->safe_psql('postgres', q{INSERT INTO town (country, name) SELECT min(id), 'extra town 2' FROM country});

# a row that the remote refuses keeps no other waiting; a table that it does not have waits whole
$remote->safe_psql('postgres', q{ALTER TABLE town ADD CONSTRAINT few CHECK (n <> 500)});
$local->safe_psql('postgres', q{INSERT INTO country (code) VALUES ('Z9'); SET synchro.log_changes = off;
	UPDATE town SET country = (SELECT id FROM country WHERE code = 'Z9') WHERE name = 'town 7'});
$result = sync($local, 'office');
is($result->{inserted} . rows($local, 'SELECT count(*) FROM synchro.failures'), '10011', 'a row that the remote refuses is parked, the others arrive');
is(rows($remote, q{SELECT count(*) FROM town WHERE name = 'extra town 2'}), 1, 'extra rows stay');
$remote->safe_psql('postgres', 'ALTER TABLE town DROP CONSTRAINT few');
sync($local, 'office');
$remote->safe_psql('postgres', q{DELETE FROM town WHERE name = 'extra town 2'});
same($local, $remote, $contents{town}, 'it arrives when it can');

$remote->safe_psql('postgres', 'ALTER TABLE odd RENAME TO away; DELETE FROM part');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'odd'), synchro.copy_table('office', 'part')});
sync($local, 'office');
same($local, $remote, $contents{part}, 'a table that is missing there holds up no other');
is(rows($local, 'SELECT relation, rows_done FROM synchro.progress'), 'odd|0', 'its copy waits');
$remote->safe_psql('postgres', 'ALTER TABLE away RENAME TO odd; DELETE FROM odd');
sync($local, 'office');
same($local, $remote, $contents{odd}, 'until the table is there');

# a primary key that is altered while the copy is under way
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'odd')});
$_->safe_psql('postgres', q{ALTER TABLE odd DROP CONSTRAINT odd_pkey, ADD PRIMARY KEY ("B")}) foreach $local, $remote;
$remote->safe_psql('postgres', 'DELETE FROM odd');
sync($local, 'office');
same($local, $remote, $contents{odd}, 'a copy whose primary key was altered begins anew');

#
# A worker that is always on makes many passes for one call: what has failed is tried in the first of them.
#
$local->append_conf('postgresql.conf', "shared_preload_libraries = 'synchro'");
$local->restart;
$remote->safe_psql('postgres', 'ALTER TABLE odd RENAME TO away');
$local->safe_psql('postgres', q{UPDATE odd SET v = v || '!'});

# then it is some 8 seconds until it is tried again by itself
wait_for($local, q{SELECT attempts >= 4 FROM synchro.failures WHERE relation = 'odd'::regclass}, 'a table that is missing there has stalled');
my $attempts = rows($local, 'SELECT attempts FROM synchro.failures');

$remote->safe_psql('postgres', 'DELETE FROM twin; DELETE FROM remark; DELETE FROM town; DELETE FROM part');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'town'), synchro.copy_table('office', 'part')});
sync($local, 'office');
same($local, $remote, $contents{$_}, "others are copied, piece by piece: $_") foreach 'town', 'part';
cmp_ok(rows($local, 'SELECT attempts FROM synchro.failures'), '<=', $attempts + 3, "it is not tried with each of 20 pieces, but once ($attempts before)");
$remote->safe_psql('postgres', 'ALTER TABLE away RENAME TO odd');
sync($local, 'office');
same($local, $remote, $contents{odd}, 'and again with the next call');

#
# A call does not wait for copies that were queued after its first pass. The remote stops at three rows.
#
$remote->safe_psql('postgres', <<'SQL');
CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(TG_ARGV[0]::int); RETURN NEW; END $$;
CREATE TRIGGER stop_1 BEFORE INSERT ON town FOR EACH ROW WHEN (NEW.n = 300) EXECUTE FUNCTION stop_here(1);
CREATE TRIGGER stop_2 BEFORE INSERT ON town FOR EACH ROW WHEN (NEW.n = 600) EXECUTE FUNCTION stop_here(2);
CREATE TRIGGER stop_3 BEFORE INSERT ON part FOR EACH ROW WHEN (NEW.id = 300) EXECUTE FUNCTION stop_here(3);
DELETE FROM town;
DELETE FROM part;
SQL
my $gate = $remote->background_psql('postgres');
my $call = $local->background_psql('postgres');
my $calling = q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%synchronize(%' AND pid <> pg_backend_pid()};

sub stops_at
{
	my ($row) = @_;

	return wait_for($remote, "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = $row AND NOT granted", "the remote stops at row $row");
}

$gate->query_safe('SELECT pg_advisory_lock(g) FROM generate_series(1, 3) g');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'town')});
stops_at(1);
$call->query_until(qr/begun/, "\\echo begun\nSELECT FROM synchro.synchronize('office');\n");
wait_for($local, $calling, 'somebody waits for the copy', expected => 1);
$gate->query_safe('SELECT pg_advisory_unlock(1)');
stops_at(2);
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'part')});
$gate->query_safe('SELECT pg_advisory_unlock(2)');
stops_at(3);
wait_for($local, $calling, 'and no longer for another one', expected => 0);
same($local, $remote, $contents{town}, 'when all of it is there');
cmp_ok(rows($remote, 'SELECT count(*) FROM part'), '<', 300, 'and not all of the other one');
$gate->quit;
$call->quit;
sync($local, 'office');
same($local, $remote, $contents{part}, 'that one arrives, too');

$local->stop('fast');
$remote->stop('fast');
$other->stop('fast');
done_testing();
