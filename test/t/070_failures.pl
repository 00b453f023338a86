# WHY: the peers stop at the first row that the other side will not take, and everything behind it waits for an
# administrator. Here one bad row stops nothing: the rest arrives, the row is named with its reason, and comes by itself
# when the reason is gone, as it then is.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => "synchro.retry_max_interval = 2s\n");
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int);
CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int REFERENCES parents, cash int, code int, note text);
SQL
$remote->safe_psql('postgres', q{SELECT setval('parents_id_seq', 1000000), setval('items_id_seq', 1000000)});
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parents', '{name}'), synchro.add_table('items', '{name}');
INSERT INTO parents (name, cash) SELECT 'parent ' || i, i FROM generate_series(1, 20) i;
INSERT INTO items (name, parent_id, cash, code, note) SELECT 'item ' || i, 1 + i % 20, i, i, '' FROM generate_series(1, 10000) i;
SQL
my $all = 'SELECT i.name, i.cash, i.code, i.note, p.name FROM items i LEFT JOIN parents p ON p.id = i.parent_id';

wait_arrival($remote, 'SELECT count(*) FROM items', '10000', 'rows to begin with');

# Everything has arrived but for what failed.
sub settled
{
	my ($failed, $testname) = @_;

	return 1 if wait_for($local, "SELECT pending = 0 AND failed = $failed FROM synchro.remotes", $testname);
	diag(rows($local, 'SELECT pending, failed, state, last_error FROM synchro.remotes'));
	diag(rows($local, 'SELECT relation, key, sqlstate, message, attempts, next_attempt - clock_timestamp() FROM synchro.failures LIMIT 10'));
	return 0;
}

# The other rows are the same.
sub others_same
{
	my ($testname) = @_;
	my $bad = rows($local, q{SELECT coalesce(string_agg(key, ','), '0') FROM synchro.failures WHERE relation = 'items'::regclass});
	my $names = rows($local, "SELECT coalesce(string_agg(quote_literal(name), ','), 'NULL') FROM items WHERE id IN ($bad)");

	return same($local, $remote, "$all WHERE ($names) IS NULL OR i.name <> ALL (ARRAY[$names]) ORDER BY 1" =~ s/\(NULL\) IS NULL/true/r
		  =~ s/\('.*'\) IS NULL/false/r, $testname);
}

#
# 1, 10 and 100 rows among 10,000, each against something else
#
my %obstacles = (
	check => [ 'ALTER TABLE items ADD CONSTRAINT no_bad CHECK (code <> -1) NOT VALID', 'ALTER TABLE items DROP CONSTRAINT no_bad',
		'code = -1', '23514|no_bad' ],
	'not null' => [ 'ALTER TABLE items ALTER code SET NOT NULL', 'ALTER TABLE items ALTER code DROP NOT NULL', 'code = NULL', '23502|' ],
	'foreign key' => [ 'CREATE TABLE codes AS SELECT i AS code FROM generate_series(0, 20000) i; ALTER TABLE codes ADD PRIMARY KEY (code);
		ALTER TABLE items ADD CONSTRAINT known FOREIGN KEY (code) REFERENCES codes', 'ALTER TABLE items DROP CONSTRAINT known; DROP TABLE codes',
		'code = -1', '23503|known' ],
	'deferred foreign key' => [ 'CREATE TABLE codes AS SELECT i AS code FROM generate_series(0, 20000) i; ALTER TABLE codes ADD PRIMARY KEY (code);
		ALTER TABLE items ADD CONSTRAINT known FOREIGN KEY (code) REFERENCES codes DEFERRABLE INITIALLY DEFERRED',
		'ALTER TABLE items DROP CONSTRAINT known; DROP TABLE codes', 'code = -1', '23503|known' ],
	unique => [ 'CREATE UNIQUE INDEX one_code ON items (code)', 'DROP INDEX one_code', 'code = 5000', '23505|one_code' ],
	trigger => [ <<'SQL', 'DROP TRIGGER refuse ON items; DROP FUNCTION refuse()', 'code = -1', 'P0001|' ],
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.code = -1 THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
	type => [ 'ALTER TABLE items ALTER code TYPE smallint', 'ALTER TABLE items ALTER code TYPE integer', 'code = 70000', '22003|' ]);

foreach my $case ([ 'check', 1 ], [ 'check', 100 ], [ 'not null', 10 ], [ 'foreign key', 10 ], [ 'deferred foreign key', 10 ], [ 'unique', 10 ],
	[ 'trigger', 10 ], [ 'type', 10 ])
{
	my ($kind, $count) = @$case;
	my ($obstacle, $mend, $change, $reason) = @{ $obstacles{$kind} };
	my $step = 10000 / $count;
	my $testname = "$count of 10,000 rows against a $kind";

	$remote->safe_psql('postgres', $obstacle);
	$local->safe_psql('postgres', "BEGIN; UPDATE items SET note = '$testname', cash = cash + 1; UPDATE items SET $change WHERE id % $step = 7 % $step; COMMIT");
	settled($count, "$testname: so many fail");
	others_same("$testname: all others arrive");
	is(rows($local, q{SELECT DISTINCT sqlstate, constraint_name FROM synchro.failures}), $reason, "$testname: the reason is told");
	is(rows($local, q{SELECT bool_and(attempts > 0 AND next_attempt > first_failed AND message <> '' AND operation = 'update') FROM synchro.failures}), 't',
		"$testname: and what comes next");

	# what is sent then are the newest values
	$local->safe_psql('postgres', "UPDATE items SET note = 'newest' WHERE id % $step = 7 % $step");
	$remote->safe_psql('postgres', $mend);
	settled(0, "$testname: mended, they arrive without a call");
	same($local, $remote, "$all ORDER BY 1", "$testname: all are the same");
	$local->safe_psql('postgres', 'UPDATE items SET code = id');
	settled(0, "$testname: the next change of them is like any other");
}

#
# inserts, renames, deletes
#
{
	$remote->safe_psql('postgres', q{ALTER TABLE items ADD CONSTRAINT no_bad CHECK (note <> 'bad'); ALTER TABLE parents ADD CONSTRAINT no_bad CHECK (cash <> -1)});
	$local->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO items (name, note) SELECT 'new ' || i, CASE i WHEN 5 THEN 'bad' ELSE '' END FROM generate_series(1, 10) i;
UPDATE items SET name = 'renamed ' || id, note = CASE id WHEN 105 THEN 'bad' ELSE note END WHERE id BETWEEN 101 AND 110;
COMMIT;
SQL
	settled(2, 'of rows inserted and renamed one each fails');
	is(rows($local, 'SELECT operation FROM synchro.failures ORDER BY id'), "update\ninsert", 'it is told which');
	is(rows($remote, q{SELECT count(*) FROM items WHERE name LIKE 'new %' OR name LIKE 'renamed %'}), 18, 'the others arrive');
	is(rows($remote, q{SELECT count(*) FROM items WHERE name IN ('item 105', 'renamed 105')}), 1, 'the one that could not be renamed is there still');

	# what has failed goes on changing: it is renamed again, another is deleted
	$local->safe_psql('postgres', q{UPDATE items SET name = 'renamed twice', note = '' WHERE id = 105; DELETE FROM items WHERE name = 'new 5'});
	settled(0, 'renamed once more, and deleted');
	same($local, $remote, "$all ORDER BY 1", 'all are the same');
	is(rows($remote, q{SELECT name FROM items WHERE name IN ('item 105', 'renamed 105', 'renamed twice')}), 'renamed twice', 'one row, by its last name');

	# by a foreign key that is looked at at once, and by one that is when all has been done
	foreach my $case ([ 200, '' ], [ 250, ' DEFERRABLE INITIALLY DEFERRED' ])
	{
		my ($id, $deferred) = @$case;
		my $testname = "items$deferred";
		my ($first, $last) = ($id - 4, $id + 5);

		$remote->safe_psql('postgres', "CREATE TABLE own (item_id int REFERENCES items$deferred); INSERT INTO own SELECT id FROM items WHERE name = 'item $id'");
		$local->safe_psql('postgres', "DELETE FROM items WHERE id BETWEEN $first AND $last");
		settled(1, "$testname: of ten deletes one fails");
		is(rows($local, 'SELECT operation, sqlstate, constraint_name FROM synchro.failures'), 'delete|23503|own_item_id_fkey', "$testname: with its reason");
		is(rows($remote, "SELECT name FROM items WHERE name IN ('item $first', 'item $id', 'item $last')"), "item $id", "$testname: the others are gone");
		$remote->safe_psql('postgres', 'DELETE FROM own');
		settled(0, "$testname: mended, it is done without a call");
		same($local, $remote, "$all ORDER BY 1", "$testname: all are the same");
		$remote->safe_psql('postgres', 'DROP TABLE own') if $deferred eq '';
	}

	# a row that is there again before that has come to pass is not deleted later
	$remote->safe_psql('postgres', q{INSERT INTO own SELECT id FROM items WHERE name = 'item 300'});
	$local->safe_psql('postgres', q{DELETE FROM items WHERE name = 'item 300'});
	settled(1, 'one more delete fails');
	$local->safe_psql('postgres', q{INSERT INTO items (name, note) VALUES ('item 300', 'again')});
	settled(0, 'the row wanted again, there is nothing to be deleted');
	$remote->safe_psql('postgres', 'DELETE FROM own');
	$local->safe_psql('postgres', q{UPDATE items SET note = 'once more' WHERE name = 'item 301'});
	sync($local, 'office');
	same($local, $remote, "$all ORDER BY 1", 'it stays');
}

#
# a parent that fails keeps its children
#
{
	$local->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO parents (name, cash) VALUES ('bad parent', -1), ('good parent', 1);
INSERT INTO items (name, parent_id, note) SELECT p.name || ' ' || i, p.id, '' FROM parents p, generate_series(1, 3) i WHERE p.name IN ('bad parent', 'good parent');
COMMIT;
SQL
	settled(4, 'a parent and its children');
	is(rows($remote, q{SELECT count(*) FROM items WHERE name LIKE 'good parent %'}), 3, 'others arrive');
	my $id = rows($local, q{SELECT id FROM parents WHERE name = 'bad parent'});
	is(rows($local, q{SELECT DISTINCT sqlstate, message FROM synchro.failures WHERE relation = 'items'::regclass}),
		"23503|row of table public.parents with key $id, which it references, could not be applied either", 'the children\'s reason names it');
	$local->safe_psql('postgres', q{UPDATE parents SET cash = 0 WHERE name = 'bad parent'});
	settled(0, 'the parent changed, all come together');
	same($local, $remote, "$all ORDER BY 1", 'and belong together');

	# nor need anything be changed or called here, if the cause goes there
	$local->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO parents (name, cash) VALUES ('refused parent', -1);
INSERT INTO items (name, parent_id, note) SELECT p.name || ' ' || i, p.id, '' FROM parents p, generate_series(1, 3) i WHERE p.name = 'refused parent';
COMMIT;
SQL
	settled(4, 'another parent and its children');
	is(rows($remote, q{SELECT count(*) FROM items WHERE name LIKE 'refused parent %'}), 0, 'none of them is there');
	$remote->safe_psql('postgres', 'ALTER TABLE parents DROP CONSTRAINT no_bad');
	settled(0, 'the remote takes it, all come without a call');
	same($local, $remote, "$all ORDER BY 1", 'and belong together, too');
	same($local, $remote, q{SELECT p.name, p.cash, i.name FROM parents p JOIN items i ON i.parent_id = p.id WHERE p.name = 'refused parent' ORDER BY 3}, 'the parent as it is');
	$local->safe_psql('postgres', q{UPDATE parents SET cash = 0 WHERE name = 'refused parent'});
	settled(0, 'changed to what others may have');
	$remote->safe_psql('postgres', 'ALTER TABLE parents ADD CONSTRAINT no_bad CHECK (cash <> -1)');

	# one that was there before is not missed
	$local->safe_psql('postgres', q{BEGIN; UPDATE parents SET cash = -1 WHERE name = 'parent 3'; UPDATE items SET note = 'of parent 3' WHERE parent_id = 3; COMMIT});
	settled(1, 'a parent that is there already keeps no children');
	same($local, $remote, q{SELECT count(*) FROM items WHERE note = 'of parent 3'}, 'they arrive');
	$local->safe_psql('postgres', q{UPDATE parents SET cash = 3 WHERE name = 'parent 3'});
	settled(0, 'mended');
}

#
# rows that exchange a unique value do not fail each other
#
{
	$remote->safe_psql('postgres', 'CREATE UNIQUE INDEX one_code ON items (code)');
	$local->safe_psql('postgres', q{BEGIN; UPDATE items SET code = 20000 - id WHERE id <= 2000; UPDATE items SET note = 'bad' WHERE id = 77; COMMIT});
	settled(1, 'only the bad one');
	$local->safe_psql('postgres', q{UPDATE items SET note = '' WHERE id = 77; UPDATE items SET code = id WHERE id <= 2000});
	settled(0, 'mended');
	$local->safe_psql('postgres', q{BEGIN; UPDATE items SET code = CASE id WHEN 10 THEN 9000 ELSE 10 END WHERE id IN (10, 9000); UPDATE items SET note = 'bad' WHERE id = 77; COMMIT});
	settled(1, 'two rows that exchange their values, far from each other, do not fail');
	others_same('and have them');
	$local->safe_psql('postgres', q{UPDATE items SET note = '' WHERE id = 77; UPDATE items SET code = id});
	settled(0, 'mended');

	# a clash with a third row of the remote's own
	$remote->safe_psql('postgres', q{INSERT INTO items (name, code) VALUES ('the remote''s own', 123456)});
	$local->safe_psql('postgres', q{UPDATE items SET code = 123456 WHERE id = 50});
	settled(1, 'a value that a row of the remote has');
	is(rows($remote, q{SELECT code FROM items WHERE name = 'the remote''s own'}), '123456', 'that row is not touched');
	$remote->safe_psql('postgres', q{DELETE FROM items WHERE name = 'the remote''s own'});
	settled(0, 'gone, it arrives');
	$remote->safe_psql('postgres', 'DROP INDEX one_code');
	same($local, $remote, "$all ORDER BY 1", 'all are the same');
}

#
# retry(), reset(), restarts
#
{
	$local->append_conf('postgresql.conf', 'synchro.retry_max_interval = 1h');
	$local->reload;
	$local->safe_psql('postgres', q{UPDATE items SET note = 'bad' WHERE id IN (1, 2, 3)});
	settled(3, 'three fail');

	# somebody may just be trying them, and then says himself when they are due
	foreach my $try (1 .. 100)
	{
		$local->safe_psql('postgres', q{UPDATE synchro.parked SET next_attempt = now() + interval '1 hour'});
		wait_for($local, q{SELECT pending = 0 AND state = 'idle' FROM synchro.remotes}, 'nobody is trying them');
		last if rows($local, q{SELECT min(next_attempt) > now() + interval '30 min' FROM synchro.failures}) eq 't';
	}
	my $attempts = rows($local, 'SELECT max(attempts) FROM synchro.failures');
	$local->restart;
	$remote->restart;
	$local->safe_psql('postgres', q{UPDATE items SET cash = cash + 1 WHERE id = 4});
	wait_arrival($remote, q{SELECT count(*) FROM items i WHERE name = 'item 4' AND cash = } . rows($local, 'SELECT cash FROM items WHERE id = 4'), '1',
		'after a restart of both sides others arrive');
	wait_for($local, 'SELECT failed FROM synchro.remotes', 'the three are not forgotten', expected => 3);
	is(rows($local, 'SELECT max(attempts) FROM synchro.failures'), $attempts, 'nor tried before their time');
	$remote->safe_psql('postgres', 'ALTER TABLE items DROP CONSTRAINT no_bad');
	is(rows($local, q{SELECT synchro.retry('office')}), 3, 'retry() makes them due');
	settled(0, 'and they arrive');
	same($local, $remote, "$all ORDER BY 1", 'all are the same');

	$remote->safe_psql('postgres', q{ALTER TABLE items ADD CONSTRAINT no_bad CHECK (note <> 'worse')});
	$local->safe_psql('postgres', q{UPDATE items SET note = 'worse' WHERE id = 1});
	settled(1, 'one fails');
	is(sync($local, 'office')->{failed}, 1, 'synchronize() tries it again');
	is(rows($local, 'SELECT attempts >= 2 FROM synchro.failures'), 't', 'which is counted');
	$local->safe_psql('postgres', q{SELECT synchro.reset('office', keep_references => true)});
	settled(0, 'reset() forgets it');
}

#
# What is due and cannot be tried waits like anything else, and what nothing is pushed of any more waits no longer.
#
{
	my $far = q{UPDATE synchro.stalled SET next_attempt = now() + interval '1 hour'};
	my $due = q{UPDATE synchro.parked SET next_attempt = now()};

	reload_with($local, 'synchro.retry_max_interval' => '1h');
	both($local, $remote, join ';', map { "CREATE TABLE $_ (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int)" } 'stuck', 'rekeyed', 'gone', 'dropped');
	$remote->safe_psql('postgres', join ';', map { "ALTER TABLE $_ ADD CONSTRAINT small CHECK (n < 100)" } 'stuck', 'rekeyed', 'gone', 'dropped');
	$local->safe_psql('postgres', "SELECT synchro.add_table('$_', '{name}')") foreach 'stuck', 'rekeyed', 'gone', 'dropped';
	$local->safe_psql('postgres', q{INSERT INTO stuck (name, n) VALUES ('held', 1), ('stays', 1)});
	settled(0, 'rows arrive');
	$remote->safe_psql('postgres', q{CREATE TABLE holds (stuck int REFERENCES stuck); INSERT INTO holds SELECT id FROM stuck WHERE name = 'held'});

	# what is due when the pusher wakes up is looked at, and it goes to sleep again
	my $rests = sub {
		my ($testname) = @_;

		foreach my $try (1 .. 100)
		{
			$local->safe_psql('postgres', "$far; $due; UPDATE parents SET cash = cash + 1 WHERE id = 1");
			wait_for($local, q{SELECT pending = 0 AND state = 'idle' FROM synchro.remotes}, "$testname: others go on");
			last if rows($local, q{SELECT count(*) = 0 FROM synchro.stalled WHERE next_attempt < now() + interval '30 min'}) eq 't';
		}
		return ok(eval { wait_quiet($local); 1 }, "$testname: the pusher comes to rest");
	};

	# a row and a delete of a table that stalls
	$local->safe_psql('postgres', q{INSERT INTO stuck (name, n) VALUES ('large', 100); DELETE FROM stuck WHERE name = 'held'});
	settled(2, 'a row and a delete fail');
	$remote->safe_psql('postgres', 'REVOKE INSERT ON stuck FROM sync');
	$local->safe_psql('postgres', q{INSERT INTO stuck (name, n) VALUES ('new', 1)});
	settled(3, 'their table stalls');
	$rests->('stalled');
	is(rows($local, 'SELECT count(*) FROM synchro.parked WHERE next_attempt < now()'), 2, 'they are due still');
	$remote->safe_psql('postgres', 'GRANT INSERT ON stuck TO sync; ALTER TABLE stuck DROP CONSTRAINT small; DROP TABLE holds');
	$local->safe_psql('postgres', q{UPDATE synchro.stalled SET next_attempt = now() + interval '1 s'; UPDATE parents SET cash = cash + 1 WHERE id = 1});
	settled(0, 'they are tried with the table');
	same($local, $remote, 'SELECT name, n FROM stuck ORDER BY name', 'all are the same');

	# what is parked by a primary key that is another one now
	$local->safe_psql('postgres', q{INSERT INTO rekeyed (name, n) VALUES ('large', 100)});
	settled(1, 'a row fails');
	$local->safe_psql('postgres', 'ALTER TABLE rekeyed DROP CONSTRAINT rekeyed_pkey; ALTER TABLE rekeyed ADD PRIMARY KEY (name)');
	$rests->('another primary key');
	$local->safe_psql('postgres', q{SELECT synchro.remove_table('rekeyed')});
	settled(0, 'remove_table() forgets it');

	# tables that are watched no longer, or gone
	foreach my $case ([ 'gone', q{SELECT synchro.remove_table('gone')} ], [ 'dropped', 'DROP TABLE dropped' ])
	{
		my ($table, $how) = @$case;

		$local->safe_psql('postgres', "INSERT INTO $table (name, n) VALUES ('large', 100)");
		settled(1, "a row of $table fails");
		$local->safe_psql('postgres', $how);
		settled(0, "$how: what has failed of it is forgotten");
		is(rows($local, 'SELECT count(*) FROM synchro.parked'), 0, 'all of it');
		$rests->($how);
	}
	$remote->safe_psql('postgres', 'ALTER TABLE stuck DROP n');
	$local->safe_psql('postgres', q{UPDATE stuck SET n = 2});
	settled(1, 'a table stalls');
	$local->safe_psql('postgres', q{SELECT synchro.remove_table('stuck')});
	settled(0, 'that is forgotten with it, too');
}

$local->stop('fast');
$remote->stop('fast');
done_testing();
