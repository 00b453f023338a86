# The remote session keeps the plans of small batches, and nothing wrong comes of it.
#
# WHY: a kept plan must not outlive what it was made for: a table that is altered, a batch that has failed half-way, other
# tables and other kinds of changes in between, a table that has grown. And what each of many small batches leaves in the
# session's temporary tables, where no VACUUM comes by, must not make the next one slower.

use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1);
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE groups (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n integer CHECK (n < 100), group_id integer REFERENCES groups);
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('groups', '{name}'); SELECT synchro.add_table('t', '{name}')});

my $contents = q{SELECT t.name, n, g.name FROM t LEFT JOIN groups g ON g.id = group_id ORDER BY 1};

# run SQL here, and wait until all of it is there
sub arrives
{
	my ($sql, $testname) = @_;

	$local->safe_psql('postgres', $sql);
	wait_for($local, 'SELECT pending = 0 FROM synchro.remotes', "$testname: nothing is pending");
	same($local, $remote, $contents, $testname);
}

$local->safe_psql('postgres', q{INSERT INTO groups (name) VALUES ('g')});
arrives("INSERT INTO t (name, n, group_id) VALUES ('row $_', $_, 1)", "row $_") foreach 1 .. 6;
my $log = slurp_file($remote->logfile);
like($log, qr/statement: BEGIN.*PREPARE synchro_\d+ AS INSERT INTO pg_temp\.m_/, 'what comes again is prepared');
like($log, qr/;EXECUTE synchro_\d+;EXECUTE synchro_\d+;/, 'and executed then');
cmp_ok(() = $log =~ /statement: BEGIN.*PREPARE synchro_0 AS/g, '==', 1, 'once');

arrives("UPDATE t SET n = n + 1, group_id = NULL WHERE name = 'row $_'", "update of row $_") foreach 1 .. 3;
arrives("UPDATE t SET name = 'renamed $_' WHERE name = 'row $_'", "new name of row $_") foreach 1 .. 3;
arrives("DELETE FROM t WHERE name = 'renamed $_'", "delete of row $_") foreach 1 .. 2;
arrives("INSERT INTO t (name, n) SELECT 'many ' || i, i % 90 FROM generate_series(1, 3000) i", 'many');
arrives("INSERT INTO t (name, n, group_id) VALUES ('after $_', $_, 1)", "row $_ after many") foreach 1 .. 3;

# a batch that fails leaves it open how many of its statements were prepared
$remote->safe_psql('postgres', q{ALTER TABLE t ADD CHECK (name <> 'refused')});
$local->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('refused', 13)});
wait_for($local, q{SELECT count(*) = 1 FROM synchro.failures}, 'a row that is refused is parked');
arrives("INSERT INTO t (name, n, group_id) VALUES ('beside $_', $_, 1); DELETE FROM t WHERE name = 'refused'", "row $_ beside it") foreach 1 .. 3;
like(slurp_file($remote->logfile, length $log), qr/DEALLOCATE ALL;/, 'what was prepared is forgotten then');

# a table that is altered on both sides
both($local, $remote, q{ALTER TABLE t ALTER n TYPE bigint, ADD x text});
$contents =~ s/, n,/, n, x,/;
arrives("INSERT INTO t (name, n, x) VALUES ('altered $_', $_, 'x')", "row $_ of an altered table") foreach 1 .. 3;
$remote->safe_psql('postgres', q{ALTER TABLE t ALTER x SET DEFAULT 'none', ADD y text DEFAULT 'own'});
arrives("INSERT INTO t (name, n) VALUES ('default $_', $_)", "row $_ beside a column of the remote's own") foreach 1 .. 3;
is(rows($remote, q{SELECT DISTINCT y FROM t}), 'own', 'which has its default');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'nothing has failed');

# many batches of one row: each leaves a line pointer, of which a page has room for 291
$local->safe_psql('postgres', <<'SQL');
CREATE PROCEDURE one_by_one(n integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		INSERT INTO t (name, n, group_id) VALUES ('one by one ' || i, 1, 1);
		COMMIT;
		WHILE (SELECT pending > 0 FROM synchro.remotes) LOOP
			PERFORM pg_sleep(0.0005);
			COMMIT;
		END LOOP;
	END LOOP;
END $$;
SQL
$local->safe_psql('postgres', 'CALL one_by_one(1000)');
same($local, $remote, $contents, 'a thousand rows, one by one');
cmp_ok(rows($remote, q{SELECT max(size) FROM (SELECT pg_relation_size(oid) / current_setting('block_size')::int AS size,
		dense_rank() OVER (ORDER BY substr(relname, 3)::int DESC) AS rank
	FROM pg_class WHERE relpersistence = 't' AND relkind = 'r') t WHERE rank <= 2}),
	'<', 3, 'and none of the staging tables has grown by them');

# Batches of some hundred rows, after one that was large enough to have its map analyzed, so that the planner knows that all in
# it is of one kind, and takes what earlier batches have deleted there for as many rows more.
both($local, $remote, <<'SQL');
CREATE TABLE stock (id integer PRIMARY KEY, n bigint NOT NULL, filler text);
INSERT INTO stock SELECT i, 0, repeat('x', 80) FROM generate_series(1, 10000) i;
VACUUM ANALYZE stock;
SQL
$local->safe_psql('postgres', q{SELECT synchro.add_table('stock')});
$contents = 'SELECT id, n FROM stock ORDER BY 1';
$local->safe_psql('postgres', 'UPDATE stock SET n = n + 1 WHERE id % 16 = 0');
wait_for($local, 'SELECT pending = 0 FROM synchro.remotes', 'many rows of a table of 10,000');
$log = slurp_file($remote->logfile);
foreach my $rest (1 .. 12)
{
	$local->safe_psql('postgres', "UPDATE stock SET n = n + 1 WHERE id % 50 = $rest");
	wait_for($local, 'SELECT pending = 0 FROM synchro.remotes', "200 rows of them, $rest");
}
$log = slurp_file($remote->logfile, length $log);

# a session's statistics are there for all when it is gone
$remote->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sync'});
wait_for($remote, q{SELECT idx_scan > 3000 FROM pg_stat_user_tables WHERE relname = 'stock'}, 'the remote has counted');
is(rows($remote, q{SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'stock'}), 0, 'they are found by the index');
same($local, $remote, $contents, 'and are the same');
cmp_ok(() = $log =~ /EXECUTE synchro_\d+;SET CONSTRAINTS ALL IMMEDIATE/g, '>=', 9, 'their statements are prepared ones, too');

done_testing();
