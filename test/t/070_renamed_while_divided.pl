# WHY: each part of a batch that is being divided carries the names that rows have lost since the part before. A row that a client renames
# meanwhile to what the remote refuses made all parts fail that came after: innocent rows were parked with its reason, which shows its
# values to whoever may not read its table, and the pass ended with an error.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');
both($local, $remote, <<'SQL');
CREATE TABLE numbers (id serial PRIMARY KEY, n int NOT NULL UNIQUE);
CREATE TABLE names (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int NOT NULL DEFAULT 1, number_id int REFERENCES numbers);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('names_id_seq', 1000);
ALTER TABLE numbers ADD CONSTRAINT no_9 CHECK (n % 10 <> 9);
ALTER TABLE names ADD CONSTRAINT no_bad CHECK (name NOT LIKE 'bad%');
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE TRIGGER gate AFTER INSERT ON numbers FOR EACH ROW WHEN (NEW.n % 10 = 2) EXECUTE FUNCTION gate();
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('numbers', '{n}'), synchro.add_table('names', '{name}');
	INSERT INTO names (name) VALUES ('off'), ('its key comes later, off'), ('on'), ('its key comes later, on')});
sync($local, 'office');
my $ids = rows($remote, 'SELECT id FROM names ORDER BY id');
my $from = 0;

foreach my $atomic ('off', 'on')
{
	my $gate = $remote->background_psql('postgres');
	my $testname = "atomic_pass $atomic";

	reload_with($local, 'synchro.atomic_pass' => $atomic);
	$gate->query_safe('SELECT pg_advisory_lock(1)');
	$local->safe_psql('postgres', "BEGIN; INSERT INTO numbers (n) SELECT generate_series($from + 1, $from + 10); UPDATE names SET v = 2 WHERE name LIKE 'its% $atomic'; COMMIT");
	my $caller = $local->background_psql('postgres');
	$caller->query_until(qr/begun/, "\\echo begun\nSELECT * FROM synchro.synchronize('office');\n");
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, "$testname: in the middle");
	$local->safe_psql('postgres', "UPDATE names SET name = 'bad, ' || name WHERE name ~ '$atomic\$'");
	$gate->quit;
	$caller->quit;
	is(rows($local, q{SELECT relation, operation, constraint_name, count(*), bool_or(concat(message, detail) LIKE '%bad, %') FROM synchro.failures GROUP BY 1, 2, 3 ORDER BY 1}),
		"numbers|insert|no_9|1|f\nnames|update|no_bad|2|t", "$testname: only what is refused waits, with its own reason");
	is(rows($remote, "SELECT count(*) FROM numbers WHERE n > $from"), 9, "$testname: all others are there when the pass has come to its end");
	$local->safe_psql('postgres', q{DELETE FROM numbers WHERE n % 10 = 9; UPDATE names SET name = 'good' || id});
	sync($local, 'office') foreach 1 .. 2;
	is(rows($local, 'SELECT * FROM synchro.failures'), '', "$testname: mended, nothing waits");
	same($local, $remote, 'SELECT name, v::text FROM names UNION ALL SELECT n::text, NULL FROM numbers ORDER BY 1', "$testname: all is the same");
	is(rows($remote, 'SELECT id FROM names ORDER BY id'), $ids, "$testname: no row was made a second time");
	$local->safe_psql('postgres', q{UPDATE names SET name = 'on' WHERE id = 3; UPDATE names SET name = 'its key comes later, on' WHERE id = 4});
	sync($local, 'office');
	$from += 10;
}
$_->stop('fast') foreach $local, $remote;
done_testing();
