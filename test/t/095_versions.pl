
# WHY: what only some server versions can do must neither be pushed wrongly nor make a difference on those that cannot.
# What a version lacks is skipped there.
use strict;
use warnings;

use lib 'test/t';
use POSIX ();
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => 'wal_level = logical');
my $remote = synchro_node('remote', conf => 'wal_level = logical');
my $version = $local->safe_psql('postgres', "SELECT current_setting('server_version_num')::int / 10000");

connect_remote($local, $remote);

# Adds a table of the local, and sets the remote's sequence apart from it.
sub watch
{
	my ($table, $arguments, $sequence) = @_;

	$remote->safe_psql('postgres', "SELECT setval('$sequence', 1000)") if $sequence;
	$local->safe_psql('postgres', "SELECT synchro.add_table('$table'" . ($arguments ? ", $arguments" : '') . ')');
	return;
}

subtest 'a deferrable primary key identifies rows' => sub {
	both($local, $remote, 'CREATE TABLE deferred (code text PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, n int)');
	is($local->safe_psql('postgres', q{SELECT synchro.table_mode('deferred')}), 'primary key', 'mode');
	watch('deferred');
	$local->safe_psql('postgres', q{INSERT INTO deferred VALUES ('a', 1), ('b', 2)});
	sync($local, 'office');
	same($local, $remote, 'SELECT * FROM deferred ORDER BY code', 'arrived');
	$local->safe_psql('postgres',
		q{UPDATE deferred SET code = CASE code WHEN 'a' THEN 'b' ELSE 'a' END; DELETE FROM deferred WHERE n = 2});
	sync($local, 'office');
	same($local, $remote, 'SELECT * FROM deferred ORDER BY code', 'swapped, one deleted');
};

subtest 'generated columns are the remote\'s own' => sub {
	my @kinds = $version >= 18 ? qw(STORED VIRTUAL) : qw(STORED);

	foreach my $kind (@kinds)
	{
		my $table = lc "generated_$kind";

		both($local, $remote,
			"CREATE TABLE $table (id serial PRIMARY KEY, name text UNIQUE, n int, twice int GENERATED ALWAYS AS (n * 2) $kind, last text)");
		watch($table, q{'{name}'}, "${table}_id_seq");
		$local->safe_psql('postgres', "INSERT INTO $table (name, n, last) VALUES ('a', 1, 'x'), ('b', 2, 'y')");
		sync($local, 'office');
		same($local, $remote, "SELECT name, n, twice, last FROM $table ORDER BY name", "$kind: inserted");
		$local->safe_psql('postgres', "UPDATE $table SET n = n + 10, last = 'z'; DELETE FROM $table WHERE name = 'b'");
		sync($local, 'office');
		same($local, $remote, "SELECT name, n, twice, last FROM $table ORDER BY name", "$kind: updated and deleted");
		my ($status, undef, $stderr) =
		  $local->psql('postgres', "SELECT synchro.alter_table('$table', '{twice}')");
		like($stderr, qr/generated column "twice" of table "$table" cannot be in a natural key/, "$kind: not in a natural key");
	}
};

subtest 'a foreign key that is not enforced is translated' => sub {
	plan skip_all => 'since PostgreSQL 18' if $version < 18;
	both($local, $remote, <<'SQL');
CREATE TABLE loose_parent (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE loose_child (id serial PRIMARY KEY, name text NOT NULL UNIQUE,
	parent_id int REFERENCES loose_parent NOT ENFORCED);
SQL
	watch('loose_parent', q{'{name}'}, 'loose_parent_id_seq');
	watch('loose_child', q{'{name}'}, 'loose_child_id_seq');
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO loose_parent (name) VALUES ('p');
INSERT INTO loose_child (name, parent_id) SELECT 'c', id FROM loose_parent;
SQL
	sync($local, 'office');
	same($local, $remote, 'SELECT c.name, p.name FROM loose_child c JOIN loose_parent p ON p.id = c.parent_id', 'child and parent');
};

subtest 'a foreign key that is not enforced keeps no table from being emptied' => sub {
	plan skip_all => 'since PostgreSQL 18' if $version < 18;
	both($local, $remote, 'CREATE SCHEMA spare; CREATE TABLE spare.t (name text PRIMARY KEY)');
	$remote->safe_psql('postgres', q{GRANT USAGE ON SCHEMA spare TO sync; GRANT SELECT, INSERT, UPDATE, DELETE ON spare.t TO sync;
		CREATE TABLE spare.stranger (name text REFERENCES spare.t ON DELETE CASCADE NOT ENFORCED); INSERT INTO spare.stranger VALUES ('a')});
	$local->safe_psql('postgres', q{SELECT synchro.add_schema('spare'); INSERT INTO spare.t VALUES ('a')});
	sync($local, 'office');
	$remote->safe_psql('postgres', q{INSERT INTO spare.t VALUES ('only there')});
	$local->safe_psql('postgres', q{SELECT synchro.reset_schema('spare', false, 'office', true)});
	sync($local, 'office');
	is(rows($local, q{SELECT message FROM synchro.failures}), '', 'nothing has failed');
	same($local, $remote, 'SELECT * FROM spare.t', 'the table is emptied and copied');
	is(rows($remote, 'SELECT count(*) FROM spare.stranger'), 1, 'and no row has gone along');
};

subtest 'keys without overlaps' => sub {
	plan skip_all => 'since PostgreSQL 18' if $version < 18;
	both($local, $remote, <<'SQL');
CREATE TABLE room (nr int4range, during daterange, name text, PRIMARY KEY (nr, during WITHOUT OVERLAPS));
CREATE TABLE booking (id serial PRIMARY KEY, code text NOT NULL UNIQUE, nr int4range, during daterange,
	FOREIGN KEY (nr, PERIOD during) REFERENCES room (nr, PERIOD during));
SQL
	watch('room');
	watch('booking', q{'{code}'}, 'booking_id_seq');
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO room VALUES ('[1,2)', '[2024-01-01,2025-01-01)', 'red'), ('[1,2)', '[2025-01-01,2026-01-01)', 'blue');
INSERT INTO booking (code, nr, during) VALUES ('x', '[1,2)', '[2024-12-01,2025-02-01)');
SQL
	sync($local, 'office');
	same($local, $remote, 'SELECT * FROM room ORDER BY during', 'rows with a period');
	same($local, $remote, 'SELECT code, nr, during FROM booking', 'a row that refers to a period');
	$local->safe_psql('postgres', q{UPDATE room SET name = 'green' WHERE name = 'blue'; DELETE FROM booking; DELETE FROM room WHERE name = 'red'});
	sync($local, 'office');
	same($local, $remote, 'SELECT * FROM room ORDER BY during', 'updated and deleted');
};

subtest 'a NOT NULL that is not valid' => sub {
	plan skip_all => 'since PostgreSQL 18' if $version < 18;
	both($local, $remote, 'CREATE TABLE half_null (id serial PRIMARY KEY, a text, b text, n int)');
	$local->safe_psql('postgres', <<'SQL');
INSERT INTO half_null (a, b, n) VALUES (NULL, 'x', 1);
ALTER TABLE half_null ADD CONSTRAINT a_given NOT NULL a NOT VALID;
SQL
	$remote->safe_psql('postgres', q{INSERT INTO half_null (a, b, n) VALUES (NULL, 'x', 0)});
	watch('half_null', q{'{a,b}'}, 'half_null_id_seq');
	$local->safe_psql('postgres', q{DELETE FROM half_null; ALTER TABLE half_null DROP CONSTRAINT a_given;
		INSERT INTO half_null (a, b, n) VALUES (NULL, 'x', 2);
		ALTER TABLE half_null ADD CONSTRAINT a_given NOT NULL a NOT VALID});
	sync($local, 'office');
	same($local, $remote, 'SELECT a, b, n FROM half_null', 'the row with the NULL was found');
};

# Each of them is shorter than the pass: here it waits for a lock, and the remote meanwhile for it; there a trigger is slow.
subtest 'limits on transactions and idle sessions are not for us' => sub {
	my @limits = ('idle_session_timeout', 'idle_in_transaction_session_timeout');
	my $unlimited = $version >= 17 ? 'SET transaction_timeout = 0;' : '';

	$remote->safe_psql('postgres', <<'SQL');
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(1); RETURN NULL; END';
CREATE TRIGGER slow AFTER INSERT ON deferred EXECUTE FUNCTION slow();
SQL
	push @limits, 'transaction_timeout' if $version >= 17;
	foreach my $limit (@limits)
	{
		$local->safe_psql('postgres', "${unlimited} ALTER DATABASE postgres SET $limit = '500ms'");
		$remote->safe_psql('postgres', "ALTER ROLE sync SET $limit = '500ms'");
	}
	$local->safe_psql('postgres', "$unlimited INSERT INTO deferred VALUES ('slow', 3)");

	my $pid = fork;
	if (!$pid)
	{
		$local->psql('postgres', "$unlimited BEGIN; LOCK TABLE deferred; SELECT pg_sleep(1.5)");
		POSIX::_exit(0);
	}
	$local->poll_query_until('postgres',
		"SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'deferred'::regclass AND mode = 'AccessExclusiveLock')")
	  or die 'the table is not locked';
	is($local->safe_psql('postgres', "$unlimited SELECT inserted FROM synchro.synchronize('office')"), 1, 'pushed');
	waitpid $pid, 0;

	foreach my $limit (@limits)
	{
		$local->safe_psql('postgres', "$unlimited ALTER DATABASE postgres RESET $limit");
		$remote->safe_psql('postgres', "ALTER ROLE sync RESET $limit");
	}
	$remote->safe_psql('postgres', 'DROP TRIGGER slow ON deferred');
};

# FOR ALL TABLES means ours, too, and a table without replica identity may then not be written any more.
subtest 'with a publication for all tables on both sides' => sub {
	my $published = "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('everything', NULL, NULL, "
	  . "'proto_version', '1', 'publication_names', 'everything') WHERE strpos(encode(data, 'escape'), '%s') > 0";

	both($local, $remote, <<'SQL');
CREATE TABLE published (id serial PRIMARY KEY, name text);
CREATE PUBLICATION everything FOR ALL TABLES;
SQL
	watch('published', '', 'published_id_seq');
	my $before = $local->safe_psql('postgres', 'SELECT clock_timestamp()');
	$local->safe_psql('postgres', <<'SQL');
SELECT pg_create_logical_replication_slot('everything', 'pgoutput');
INSERT INTO published (name) VALUES ('a'), ('b');
SQL
	sync($local, 'office');
	$local->safe_psql('postgres', q{UPDATE published SET name = 'c' WHERE name = 'a'; DELETE FROM published WHERE name = 'b'});
	sync($local, 'office');
	same($local, $remote, 'SELECT name FROM published', 'pushed');
	cmp_ok($local->safe_psql('postgres', sprintf $published, 'published'), '>', 0, 'the watched table is decoded');
	is($local->safe_psql('postgres', sprintf $published, 'log_'), 0, 'the log is not');
	$local->safe_psql('postgres', "SELECT synchro.set_checkpoint('office', '$before')");
	sync($local, 'office');
	same($local, $remote, 'SELECT name FROM published', 'pushed again');
	$local->safe_psql('postgres', q{SELECT pg_drop_replication_slot('everything')});
	both($local, $remote, 'DROP PUBLICATION everything');
};

done_testing();
