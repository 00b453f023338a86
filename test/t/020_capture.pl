# WHY: an application-side log, as django-synchro keeps it, misses whatever does not go through the application's own save
# and delete. Here nothing may be missed, and nothing that was rolled back may be seen. sql/capture.sql shows what the log
# holds; this shows that it is enough: the remote ends up with the same rows by name, and the right ones of them are gone,
# also where the names by which they are found there are gone here.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchro.batch_size = 50000\n");
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text, cash int);
CREATE TABLE k (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int);

-- natural keys that include the parent's, two deep, once with the topmost watched and once not
CREATE TABLE land (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE town (id serial PRIMARY KEY, land int NOT NULL REFERENCES land ON DELETE CASCADE, name text NOT NULL, UNIQUE (land, name));
CREATE TABLE street (id serial PRIMARY KEY, town int NOT NULL REFERENCES town ON DELETE CASCADE, name text NOT NULL, cash int,
	UNIQUE (town, name));
CREATE TABLE area (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE site (id serial PRIMARY KEY, area int NOT NULL REFERENCES area ON DELETE CASCADE, name text NOT NULL, cash int,
	UNIQUE (area, name));

CREATE TABLE part (id int NOT NULL, day int NOT NULL, cash int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20);
CREATE TABLE named_part (id serial, day int NOT NULL, name text NOT NULL, cash int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE named_part_1 PARTITION OF named_part FOR VALUES FROM (0) TO (10);
CREATE TABLE named_part_2 PARTITION OF named_part FOR VALUES FROM (10) TO (20);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('t_id_seq', 1000000), setval('k_id_seq', 1000000), setval('land_id_seq', 1000), setval('town_id_seq', 1000),
	setval('street_id_seq', 1000), setval('area_id_seq', 1000), setval('site_id_seq', 1000), setval('named_part_id_seq', 1000);
INSERT INTO area (id, name) VALUES (501, 'A'), (502, 'B');
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t');
SELECT synchro.add_table('k', '{name}');
SELECT synchro.add_table('land', '{name}');
SELECT synchro.add_table('town', '{land,name}');
SELECT synchro.add_table('street', '{town,name}');
SELECT synchro.register_natural_key('area', '{name}');
SELECT synchro.add_table('site', '{area,name}');
SELECT synchro.add_table('part');
SELECT synchro.add_table('named_part', '{name}', allow_many => true);
SQL

my %by_name = (
	t => 'SELECT name, cash FROM t ORDER BY 1, 2',
	k => 'SELECT name, cash FROM k ORDER BY 1',
	street => 'SELECT land.name, town.name, street.name, cash FROM street JOIN town ON town.id = town JOIN land ON land.id = land ORDER BY 1, 2, 3',
	town => 'SELECT land.name, town.name FROM town JOIN land ON land.id = land ORDER BY 1, 2',
	land => 'SELECT name FROM land ORDER BY 1',
	site => 'SELECT area.name, site.name, cash FROM site JOIN area ON area.id = area ORDER BY 1, 2',
	part => 'SELECT tableoid::regclass, id, day, cash FROM part ORDER BY id, day',
	named_part => 'SELECT tableoid::regclass, day, name, cash FROM named_part ORDER BY name');

sub here
{
	$local->safe_psql('postgres', $_[0]);
	return;
}

sub there
{
	return $remote->safe_psql('postgres', $_[0]);
}

# arrive($counts, $testname, @relations): synchronizes; inserted/updated/deleted rows are as many, and the relations are the same
sub arrive
{
	my ($counts, $testname, @relations) = @_;
	my $result = sync($local, 'office');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join('/', map { $result->{$_} } qw(inserted updated deleted)), $counts, "$testname: inserted/updated/deleted");
	same($local, $remote, $by_name{$_}, "$testname: $_", empty => 1) foreach @relations;
	return;
}

subtest 'large statements' => sub {
	here(q{INSERT INTO k (name, cash) SELECT 'k ' || i, 0 FROM generate_series(1, 100000) i});
	arrive('100000/0/0', 'INSERT of 100,000 rows', 'k');
	is(there('SELECT count(*), min(id) > 1000000 FROM k'), '100000|t', 'all are there, under ids of the remote');
	here(q{UPDATE k SET cash = id WHERE id <= 10000});
	arrive('0/10000/0', 'UPDATE of 10,000 rows', 'k');
	here(q{UPDATE k SET cash = -id});
	arrive('0/100000/0', 'UPDATE of 100,000 rows', 'k');
	here(q{UPDATE k SET name = 'renamed ' || name WHERE id > 50000});
	arrive('0/50000/0', 'UPDATE of 50,000 natural keys', 'k');
	here(q{DELETE FROM k WHERE name NOT LIKE '%7'});
	arrive('0/0/90000', 'DELETE of 90,000 rows', 'k');
	here(q{BEGIN; DELETE FROM k WHERE id <= 50000; TRUNCATE k; COMMIT});
	arrive('0/0/10000', 'DELETE of some and TRUNCATE of the rest', 'k');
	is(there('SELECT count(*) FROM k'), 0, 'none is left');
};

subtest 'statements that are not plain' => sub {
	here("COPY k (name, cash) FROM STDIN;\nc1\t1\nc2\t1\n\\.\n");
	arrive('2/0/0', 'COPY', 'k');
	here(q{INSERT INTO k (name, cash) VALUES ('c2', 2), ('c3', 2) ON CONFLICT (name) DO UPDATE SET cash = EXCLUDED.cash});
	arrive('1/1/0', 'ON CONFLICT', 'k');
	here(q{
		MERGE INTO k USING (VALUES ('c1', NULL), ('c2', 3), ('c4', 3)) s (name, cash) ON k.name = s.name
			WHEN MATCHED AND s.cash IS NULL THEN DELETE
			WHEN MATCHED THEN UPDATE SET cash = s.cash
			WHEN NOT MATCHED THEN INSERT (name, cash) VALUES (s.name, s.cash)});
	arrive('1/1/1', 'MERGE', 'k');
	here(q{
		CREATE FUNCTION double_cash() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			UPDATE public.k SET cash = 2 * cash WHERE name = 'c4';
			INSERT INTO public.t (name, cash) VALUES (NEW.name, NEW.cash);
			RETURN NULL;
		END$$;
		CREATE CONSTRAINT TRIGGER double_cash AFTER UPDATE ON k DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW WHEN (NEW.name = 'c2') EXECUTE FUNCTION double_cash();
		UPDATE k SET cash = 4 WHERE name = 'c2';
		DROP TRIGGER double_cash ON k});
	arrive('1/2/0', 'deferred trigger', 'k', 't');
	here(q{
		CREATE FUNCTION write_k(name text) RETURNS text LANGUAGE sql VOLATILE AS 'INSERT INTO public.k (name) VALUES ($1) RETURNING name';
		BEGIN;
		DECLARE c CURSOR WITH HOLD FOR SELECT write_k('held ' || i) FROM generate_series(1, 3) i;
		COMMIT;
		CLOSE c});
	arrive('3/0/0', 'WITH HOLD cursor', 'k');
	here(q{
		SET session_replication_role = replica;
		INSERT INTO k (name) VALUES ('replicated');
		UPDATE k SET cash = 5 WHERE name = 'c2';
		DELETE FROM k WHERE name = 'c3'});
	arrive('1/1/1', 'session_replication_role = replica', 'k');
};

subtest 'ON DELETE CASCADE, the parent watched' => sub {
	my $fill = q{
		INSERT INTO land (name) VALUES ('A'), ('B'), ('C');
		INSERT INTO town (land, name) SELECT land.id, t FROM land, unnest('{x,y}'::text[]) t;
		INSERT INTO street (town, name) SELECT town.id, s FROM town, unnest('{1,2}'::text[]) s};
	here($fill);
	arrive('21/0/0', 'add', qw(land town street));
	here(q{DELETE FROM town USING land WHERE land.id = land AND land.name = 'A' AND town.name = 'x'});
	arrive('0/0/3', 'one level', qw(land town street));
	here(q{DELETE FROM land WHERE name = 'A'});
	arrive('0/0/4', 'two levels', qw(land town street));

	# the remote has rows of its own under the parent: they do not go along unless its own cascade takes them
	here(q{BEGIN; UPDATE land SET name = 'B2' WHERE name = 'B'; DELETE FROM land WHERE name = 'B2'; COMMIT});
	arrive('0/0/7', 'parent renamed and deleted', qw(land town street));
	here(q{BEGIN; DELETE FROM street; UPDATE town SET name = upper(name); DELETE FROM land; COMMIT});
	arrive('0/0/7', 'each in its own way', qw(land town street));
	is(there('SELECT (SELECT count(*) FROM land), (SELECT count(*) FROM town), (SELECT count(*) FROM street)'), '0|0|0', 'nothing is left');
};

subtest 'parent renamed and child moved or deleted in the same transaction' => sub {
	my $ids = q{SELECT name, id FROM street ORDER BY name};

	here(q{
		INSERT INTO land (name) VALUES ('A'), ('B');
		INSERT INTO town (land, name) SELECT land.id, 'x' FROM land;
		INSERT INTO street (town, name, cash) SELECT town.id, land.name || n, 0 FROM town JOIN land ON land.id = land, generate_series(1, 4) n});
	arrive('12/0/0', 'add', qw(land town street));
	my $before = there($ids);

	here(q{
		BEGIN;
		UPDATE land SET name = 'A renamed' WHERE name = 'A';
		UPDATE street SET town = (SELECT town.id FROM town JOIN land ON land.id = land WHERE land.name = 'B') WHERE name = 'A1';
		COMMIT});
	arrive('0/2/0', 'moved out', qw(land town street));
	here(q{
		BEGIN;
		UPDATE street SET town = (SELECT town.id FROM town JOIN land ON land.id = land WHERE land.name = 'A renamed') WHERE name = 'B1';
		UPDATE land SET name = 'A' WHERE name = 'A renamed';
		COMMIT});
	arrive('0/2/0', 'moved in', qw(land town street));
	here(q{
		BEGIN;
		UPDATE land SET name = 'interim' WHERE name = 'A';
		UPDATE land SET name = 'A' WHERE name = 'B';
		UPDATE land SET name = 'B' WHERE name = 'interim';
		UPDATE street SET cash = 1 WHERE name = 'A3';
		COMMIT});
	arrive('0/3/0', 'parents have swapped their names, a child was changed', qw(land town street));
	is(there($ids), $before, 'each street is the same remote row still');

	here(q{
		BEGIN;
		UPDATE land SET name = 'A renamed' WHERE name = 'A';
		DELETE FROM street WHERE name IN ('A1', 'B2');
		COMMIT});
	arrive('0/1/2', 'deleted', qw(land town street));
	here(q{
		BEGIN;
		DELETE FROM street WHERE name = 'A2';
		UPDATE town SET name = 'y' FROM land WHERE land.id = land AND land.name = 'A renamed';
		UPDATE land SET name = 'A' WHERE name = 'A renamed';
		COMMIT});
	arrive('0/2/1', 'deleted before its parents were renamed', qw(land town street));
	here(q{
		BEGIN;
		UPDATE land SET name = 'interim' WHERE name = 'A';
		UPDATE land SET name = 'A' WHERE name = 'B';
		UPDATE land SET name = 'B' WHERE name = 'interim';
		DELETE FROM town WHERE name = 'y';
		INSERT INTO land (name) VALUES ('C');
		INSERT INTO town (land, name) SELECT id, 'y' FROM land;
		COMMIT});
	sync($local, 'office');
	same($local, $remote, $by_name{$_}, "swapped, deleted and made anew: $_") foreach qw(land town street);
	here('DELETE FROM land');
	sync($local, 'office');
	is(there('SELECT (SELECT count(*) FROM land), (SELECT count(*) FROM town), (SELECT count(*) FROM street)'), '0|0|0', 'nothing is left');
};

subtest 'the same, the parent not watched' => sub {
	here(q{
		INSERT INTO area (id, name) VALUES (1, 'A'), (2, 'B'), (3, 'C');
		INSERT INTO site (area, name, cash) SELECT area.id, area.name || n, 0 FROM area, generate_series(1, 4) n});
	arrive('13/0/0', 'add, and the one area that is missing', 'site');
	my $ids = q{SELECT name, id FROM site ORDER BY name};
	my $before = there($ids);

	here(q{DELETE FROM area WHERE name = 'C'});
	arrive('0/0/4', 'deleted', 'site');
	is(there('SELECT name FROM area ORDER BY 1'), "A\nB\nC", 'its own delete is not pushed');

	# the remote calls it by its former name on
	my $sites = q{SELECT area.name, site.name, cash FROM site JOIN area ON area.id = area ORDER BY 1, 2};
	here(q{
		BEGIN;
		UPDATE area SET name = 'A renamed' WHERE name = 'A';
		UPDATE site SET area = 2 WHERE name = 'A1';
		UPDATE site SET area = 1 WHERE name = 'B1';
		UPDATE site SET cash = 1 WHERE name = 'A2';
		DELETE FROM site WHERE name = 'A3';
		COMMIT});
	arrive('0/3/1', 'renamed; children moved out and in, changed, deleted');
	is(there($sites), "A|A2|1\nA|A4|0\nA|B1|0\nB|A1|0\nB|B2|0\nB|B3|0\nB|B4|0", 'all is well under the former name');
	here(q{UPDATE site SET cash = 2; INSERT INTO site (area, name, cash) VALUES (1, 'new', 2)});
	arrive('1/7/0', 'and later');
	is(there($sites), "A|A2|2\nA|A4|2\nA|B1|2\nA|new|2\nB|A1|2\nB|B2|2\nB|B3|2\nB|B4|2", 'too');
	here(q{UPDATE area SET name = 'A renamed again' WHERE id = 1; UPDATE site SET cash = 3 WHERE name = 'new'});
	arrive('0/1/0', 'renamed once more, in its own transaction');
	is(there(q{SELECT area.name, cash FROM site JOIN area ON area.id = area WHERE site.name = 'new'}), 'A|3', 'still that one');
	here(q{
		INSERT INTO area (id, name) VALUES (4, 'D');
		INSERT INTO site (area, name, cash) VALUES (4, 'D1', 0), (1, 'newer', 0)});
	arrive('3/0/0', 'together with an area that is missing there');
	is(there(q{SELECT area.name, site.name FROM site JOIN area ON area.id = area WHERE site.name IN ('D1', 'newer') ORDER BY 1}),
		"A|newer\nD|D1", 'which alone is made');
	here(q{DELETE FROM site WHERE name = 'newer'; DELETE FROM area WHERE id = 4});
	arrive('0/0/2', 'and deleted');
	here(q{BEGIN; DELETE FROM site WHERE name = 'new'; DELETE FROM area WHERE id = 1; COMMIT});
	arrive('0/0/4', 'deleted');
	is(there($sites), "B|A1|2\nB|B2|2\nB|B3|2\nB|B4|2", 'with its children');

	# ids that are used again stand for other rows: those of a deleted one, of one just renamed, and in one transaction
	here(q{
		INSERT INTO area (id, name) VALUES (1, 'E'), (3, 'F');
		INSERT INTO site (area, name, cash) VALUES (1, 'E1', 0), (3, 'F1', 0)});
	arrive('4/0/0', 'the ids of deleted areas given to others');
	is(there(q{SELECT area.name, site.name FROM site JOIN area ON area.id = area WHERE site.name IN ('E1', 'F1') ORDER BY 1}),
		"E|E1\nF|F1", 'are not mistaken for them');
	here(q{
		BEGIN;
		DELETE FROM area WHERE id IN (1, 3);
		INSERT INTO area (id, name) VALUES (1, 'F'), (3, 'E');
		INSERT INTO site (area, name, cash) VALUES (1, 'F2', 0), (3, 'E2', 0);
		COMMIT});
	arrive('2/0/2', 'ids exchanged');
	is(there(q{SELECT area.name, site.name FROM site JOIN area ON area.id = area WHERE site.name ~ '^[EF]' ORDER BY 1}),
		"E|E2\nF|F2", 'are not mistaken, too');
	here(q{DELETE FROM area WHERE id IN (1, 3)});
	arrive('0/0/2', 'clean up');
	is(there('SELECT id, name FROM area WHERE id < 1000 ORDER BY 1'), "501|A\n502|B", 'the areas of the remote are as they were');
};

subtest 'savepoints, with a buffer that is written early' => sub {
	here(q{INSERT INTO k (name, cash) VALUES ('s1', 0), ('s2', 0), ('s3', 0), ('taken', 0)});
	sync($local, 'office');
	there(q{INSERT INTO k (id, name, cash) VALUES (77, 'theirs', 7)});
	my $ids = q{SELECT id FROM k WHERE name LIKE 's%' ORDER BY name};
	my $before = there($ids);

	here(q{
		SET synchro.buffer_size = '64kB';
		BEGIN;
		INSERT INTO t (name) VALUES ('outer');
		SAVEPOINT a;
		INSERT INTO t (name) SELECT 'inner ' || i FROM generate_series(1, 10000) i;
		UPDATE k SET name = 'gone ' || name;
		DELETE FROM t WHERE name LIKE 'c%';
		ROLLBACK TO a;
		INSERT INTO t (name) VALUES ('after');
		COMMIT});
	arrive('2/0/0', 'rolled back', 't');
	same($local, $remote, q{SELECT name, cash FROM k WHERE name <> 'theirs' ORDER BY 1}, 'rolled back: k');

	# The first name counts, whatever is written first: the outer one's keys stay in memory when the inner one's are written.
	here(q{
		SET synchro.buffer_size = '64kB';
		BEGIN;
		UPDATE k SET name = 'interim 1' WHERE name = 's1';
		INSERT INTO k (name, cash) VALUES ('theirs', 1);
		SAVEPOINT a;
		INSERT INTO t (name) SELECT 'inner ' || i FROM generate_series(1, 10000) i;
		UPDATE k SET name = 's1 renamed' WHERE name = 'interim 1';
		UPDATE k SET name = 's4' WHERE name = 'theirs';
		INSERT INTO t (name) SELECT 'inner ' || i FROM generate_series(1, 10000) i;
		RELEASE a;
		COMMIT});
	arrive('20001/1/0', 'renamed in the transaction and in a savepoint', 't');
	same($local, $remote, q{SELECT name, cash FROM k WHERE name <> 'theirs' ORDER BY 1}, 'renamed: k');
	is(there(q{SELECT name, cash FROM k WHERE id = 77}), 'theirs|7', 'a row that bore the name for a moment only is not taken for it');
	is(there(q{SELECT count(*) FROM k WHERE name = 's1 renamed' AND id IN (} . join(',', split /\n/, $before) . ')'), 1, 'the renamed one is');
	# Many small ones: what has been released is its parent's, is written with that, and goes with it.
	here(q{INSERT INTO k (name, cash) VALUES ('small', 0)});
	arrive('1/0/0', 'a row to be renamed', 't');
	my $small = q{DO $$
		BEGIN
			FOR i IN 1 .. 6000 LOOP
				BEGIN
					INSERT INTO t (name) VALUES ('%s ' || i);
					PERFORM 1 / (i %% 10);
				EXCEPTION WHEN division_by_zero THEN NULL;
				END;
			END LOOP;
		END $$;};
	here(q{
		SET synchro.buffer_size = '64kB';
		BEGIN;
		UPDATE k SET name = 'small, interim' WHERE name = 'small';
		SAVEPOINT a;
		UPDATE k SET name = 'small, gone' WHERE name = 'small, interim';
		SAVEPOINT b;} . sprintf($small, 'gone') . q{
		RELEASE b;
		ROLLBACK TO a;} . sprintf($small, 'kept') . q{
		SAVEPOINT c;
		UPDATE k SET name = 'small, renamed' WHERE name = 'small, interim';
		SAVEPOINT d;} . sprintf($small, 'gone, too') . q{
		ROLLBACK TO d;
		INSERT INTO t (name) VALUES ('in d');
		RELEASE c;
		COMMIT});
	arrive('5401/1/0', 'many small ones', 't');
	same($local, $remote, q{SELECT name, cash FROM k WHERE name <> 'theirs' ORDER BY 1}, 'many small ones: k');
	here(q{TRUNCATE t; DELETE FROM k});
	sync($local, 'office');
	is(there('SELECT (SELECT count(*) FROM t), (SELECT string_agg(name, $$ $$) FROM k)'), '0|theirs', 'all are gone again');
	there('DELETE FROM k');
};

subtest 'two-phase commit' => sub {
	here(q{INSERT INTO k (name, cash) VALUES ('old', 0)});
	sync($local, 'office');
	here(q{
		BEGIN;
		INSERT INTO k (name) VALUES ('prepared 1');
		UPDATE k SET name = 'new' WHERE name = 'old';
		PREPARE TRANSACTION 'one';
		BEGIN;
		INSERT INTO k (name) VALUES ('prepared 2');
		PREPARE TRANSACTION 'two';
		INSERT INTO k (name) VALUES ('later')});
	arrive('1/0/0', 'prepared', 'k');
	here(q{COMMIT PREPARED 'one'; ROLLBACK PREPARED 'two'});
	arrive('1/1/0', 'one committed, one rolled back', 'k');
	is(there('SELECT name FROM k ORDER BY 1'), "later\nnew\nprepared 1", 'a transaction is seen when it commits, however late');
};

subtest 'TRUNCATE' => sub {
	both($local, $remote, 'CREATE TABLE refers (name text PRIMARY KEY, k int REFERENCES k)');
	here(q{SELECT synchro.add_table('refers'); INSERT INTO refers SELECT 'of ' || name, id FROM k});
	arrive('3/0/0', 'add', 'refers');
	there(q{INSERT INTO k (name) VALUES ('theirs'); INSERT INTO refers VALUES ('theirs')});
	here('TRUNCATE k CASCADE');
	arrive('0/0/6', 'CASCADE');
	is(there('SELECT (SELECT string_agg(name, $$ $$) FROM k), (SELECT string_agg(name, $$ $$) FROM refers)'), 'theirs|theirs',
		'just those that were here are gone');
	there('DELETE FROM refers; DELETE FROM k');

	# rows that the snapshot of its transaction does not see go as well
	here(q{INSERT INTO k (name) VALUES ('seen')});
	sync($local, 'office');
	my $session = $local->background_psql('postgres', on_error_stop => 1);
	$session->query_safe('SET client_min_messages = warning');
	$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM k');
	here(q{INSERT INTO k (name) VALUES ('not seen')});
	sync($local, 'office');
	is($session->query_safe('SELECT string_agg(name, $$ $$) FROM k'), 'seen', 'REPEATABLE READ');
	$session->query_safe('TRUNCATE k CASCADE; COMMIT');
	$session->quit;
	arrive('0/0/2', 'REPEATABLE READ', 'k');
};

subtest 'partitions' => sub {
	here(q{INSERT INTO part VALUES (1, 1, 0), (2, 2, 0), (11, 11, 0); INSERT INTO named_part (day, name, cash) VALUES (1, 'a', 0), (11, 'b', 0)});
	arrive('5/0/0', 'add', qw(part named_part));
	my $ids = 'SELECT name, id FROM named_part ORDER BY name';
	my $before = there($ids);
	here(q{UPDATE part SET day = 12 WHERE id = 1; UPDATE named_part SET day = 12, cash = 1 WHERE name = 'a'});
	arrive('1/1/1', 'moved', qw(part named_part));
	is(there($ids), $before, 'with a natural key it is the same row still');
	both($local, $remote, q{
		CREATE TABLE part_3 (LIKE part INCLUDING ALL);
		ALTER TABLE part ATTACH PARTITION part_3 FOR VALUES FROM (20) TO (30)});
	here(q{INSERT INTO part VALUES (21, 21, 0), (22, 22, 0)});
	arrive('2/0/0', 'attached later', 'part');
	here(q{UPDATE part SET day = day + 10 WHERE id IN (11)});
	arrive('1/0/1', 'moved into it', 'part');
	here('TRUNCATE part_3');
	arrive('0/0/3', 'TRUNCATE of it', 'part');
	here('TRUNCATE part_2; TRUNCATE named_part_2');
	arrive('0/0/3', 'TRUNCATE of others', 'part');
	is(there('SELECT count(*) FROM part'), 1, 'one row is left');
	here('TRUNCATE part');
	arrive('0/0/1', 'TRUNCATE of the whole', 'part');

	# The usual form of such a table: beside its serial id, the partition key is a value like any other, default or not.
	both($local, $remote, q{
		CREATE TABLE event (id serial, at timestamptz NOT NULL DEFAULT now(), what text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
		CREATE TABLE event_2001 PARTITION OF event FOR VALUES FROM ('2001-01-01Z') TO ('2002-01-01Z');
		CREATE TABLE event_2002 PARTITION OF event FOR VALUES FROM ('2002-01-01Z') TO ('2003-01-01Z')});
	there(q{ALTER SEQUENCE event_id_seq RESTART 1001});
	my $events = q{SELECT tableoid::regclass, at, what FROM event ORDER BY what};
	here(q{SELECT synchro.add_table('event'); INSERT INTO event (at, what) VALUES ('2001-05-05Z', 'a'), ('2001-06-06Z', 'b'), ('2002-07-07Z', 'c')});
	arrive('3/0/0', 'without natural key: add');
	same($local, $remote, $events, 'without natural key: add');
	here(q{UPDATE event SET at = '2001-08-08Z', what = 'b changed' WHERE what = 'b'});
	arrive('0/1/0', 'without natural key: partition key changed');
	same($local, $remote, $events, 'without natural key: partition key changed');
	here(q{UPDATE event SET what = what || '!'});
	arrive('0/3/0', 'without natural key: found again');
	same($local, $remote, $events, 'without natural key: found again');
	here(q{UPDATE event SET at = at + interval '1 year' WHERE what = 'a!'});
	arrive('1/0/1', 'without natural key: moved');
	same($local, $remote, $events, 'without natural key: moved');
	here('TRUNCATE event');
	arrive('0/0/3', 'without natural key: TRUNCATE');
	is(there('SELECT count(*) FROM event'), 0, 'without natural key: none is left');
};

subtest 'keys longer than a page' => sub {
	both($local, $remote, q{
		CREATE TABLE long_key (name text PRIMARY KEY, cash int);
		CREATE TABLE of_long (id serial PRIMARY KEY, long_key text REFERENCES long_key ON UPDATE CASCADE ON DELETE CASCADE)});
	here(q{
		SELECT synchro.add_table('long_key');
		SELECT synchro.add_table('of_long', '{long_key}', allow_many => true);
		INSERT INTO long_key SELECT repeat(chr(96 + i), 10000), 0 FROM generate_series(1, 26) i;
		INSERT INTO long_key VALUES ('short', 0), (repeat('long ', 20000), 0);
		INSERT INTO of_long (long_key) SELECT name FROM long_key});
	my $rows = 'SELECT md5(name), length(name), cash, long_key = name FROM long_key LEFT JOIN of_long ON long_key = name ORDER BY name COLLATE "C"';
	arrive('56/0/0', 'add');
	same($local, $remote, $rows, 'add');
	here('UPDATE long_key SET cash = length(name)');
	arrive('0/28/0', 'change');
	same($local, $remote, $rows, 'change');
	here(q{UPDATE long_key SET name = 'x' || name WHERE name LIKE 'a%' OR name LIKE 'long%'});
	sync($local, 'office');
	same($local, $remote, $rows, 'change of keys');
	here(q{DELETE FROM long_key WHERE name NOT LIKE 'b%'});
	sync($local, 'office');
	same($local, $remote, $rows, 'delete');
	is(there('SELECT (SELECT count(*) FROM long_key), (SELECT count(*) FROM of_long)'), '1|1', 'one is left');
};

subtest 'many tables in one transaction' => sub {
	both($local, $remote, q{
		DO $$
		BEGIN
			FOR i IN 1 .. 100 LOOP
				EXECUTE format('CREATE TABLE many_%s (id serial PRIMARY KEY, name text UNIQUE NOT NULL)', i);
			END LOOP;
		END$$});
	here(q{
		DO $$
		BEGIN
			FOR i IN 1 .. 100 LOOP
				PERFORM synchro.add_table(format('many_%s', i)::regclass, '{name}');
			END LOOP;
			FOR i IN 1 .. 300 LOOP
				EXECUTE format('INSERT INTO many_%s (name) VALUES (%s)', 1 + i % 100, i);
			END LOOP;
		END$$});
	arrive('300/0/0', 'add');
	my $all = join ' UNION ALL ', map { "SELECT $_ AS number, name FROM many_$_" } 1 .. 100;
	same($local, $remote, "$all ORDER BY number, name", 'add');
	is(there("SELECT count(*), count(DISTINCT number) FROM ($all) x"), '300|100', 'all are there');
	here(q{DO $$ BEGIN FOR i IN 1 .. 100 LOOP EXECUTE format('TRUNCATE many_%s', i); END LOOP; END$$});
	arrive('0/0/300', 'TRUNCATE');
};

done_testing();
