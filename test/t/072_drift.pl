# WHY: definitions come apart: a migration ran on one side only, a right was taken back, a policy was made. The table
# that this is about must stop with a reason that names it and what to do, never write a value into the wrong column,
# and come back by itself with everything; all others go on as if nothing were.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1);
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int);
CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int REFERENCES parents, cash int, note text);
CREATE TABLE others (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
SQL
$remote->safe_psql('postgres', q{SELECT setval('parents_id_seq', 1000), setval('items_id_seq', 1000), setval('others_id_seq', 1000)});
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parents', '{name}'), synchro.add_table('items', '{name}'), synchro.add_table('others', '{name}');
INSERT INTO parents (name, cash) SELECT 'parent ' || i, i FROM generate_series(1, 5) i;
INSERT INTO items (name, parent_id, cash, note) SELECT 'item ' || i, 1 + i % 5, i, 'note ' || i FROM generate_series(1, 20) i;
INSERT INTO others (name, n) VALUES ('other', 0);
SQL
my $items = 'SELECT i.name, i.cash, i.note, p.name FROM items i LEFT JOIN parents p ON p.id = i.parent_id ORDER BY i.name';

wait_arrival($remote, 'SELECT count(*) FROM items', '20', 'rows to begin with');
my $round = 0;

# $break and $mend: [ side, SQL ]. What stalls, as relations; the reason. again: what is done here when it is mended; change:
# and while it has stalled; compare: a column of items that it is about; key, parent: what these columns are called here meanwhile.
sub drifts
{
	my ($testname, $break, $mend, $stalled, $pattern, %more) = @_;
	my ($key, $parent) = ($more{key} // 'name', $more{parent} // 'parent_id');

	$round++;
	$break->[0]->safe_psql('postgres', $break->[1]);
	$local->safe_psql('postgres', <<"SQL");
BEGIN;
UPDATE items SET note = 'round $round' WHERE id % 2 = 0;
UPDATE items SET $key = $key || '''' WHERE id % 5 = 1;
INSERT INTO items ($key, $parent, note) VALUES ('new $round', 1, '');
DELETE FROM items WHERE $key LIKE 'new %' AND $key <> 'new $round';
UPDATE parents SET cash = cash + 1;
UPDATE others SET n = $round;
COMMIT;
SQL
	wait_arrival($remote, 'SELECT n FROM others', $round, "$testname: other tables go on");
	wait_for($local, q{SELECT coalesce(string_agg(relation::text, ' ' ORDER BY relation::text), '') FROM synchro.failures}, "$testname: stalls",
		expected => $stalled);
	like(rows($local, q{SELECT concat_ws(' ', sqlstate || ':', message, detail, 'HINT: ' || hint) FROM synchro.failures}), $pattern, "$testname: with a reason");
	wait_for($local, 'SELECT attempts, next_attempt IS NULL FROM synchro.remotes', "$testname: the remote itself is well", expected => '0|t');

	# changes go on meanwhile, more names change, and the worker is started anew
	$local->safe_psql('postgres', qq{UPDATE items SET $key = $key || '"' WHERE id % 5 = 2; UPDATE items SET cash = cash + 1 WHERE id % 3 = 0});
	$local->safe_psql('postgres', $more{change}) if $more{change};
	$local->restart if $round % 4 == 0;
	$local->safe_psql('postgres', "UPDATE others SET n = -$round");
	wait_arrival($remote, 'SELECT n FROM others', -$round, "$testname: and on");
	$mend->[0]->safe_psql('postgres', $mend->[1]);
	$local->safe_psql('postgres', $more{again}) if $more{again};
	wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', "$testname: mended, it heals by itself");
	same($local, $remote, $items, "$testname: nothing was missed");
	same($local, $remote, 'SELECT name, cash FROM parents ORDER BY 1', "$testname: of its parents, either");
	same($local, $remote, "SELECT name, $more{compare} FROM items ORDER BY name", "$testname: each value is in its row") if $more{compare};
	return;
}

sub no_column
{
	my ($column) = @_;

	return qr/42703: .*items.*has no column "$column".*HINT: Add the column there, or skip it/;
}

# what was in the column there is not in the log: all rows are sent again
drifts('a column dropped on the remote', [ $remote, 'ALTER TABLE items DROP note' ], [ $remote, 'ALTER TABLE items ADD note text' ], 'items', no_column('note'),
	again => 'UPDATE items SET cash = cash');
drifts('a column renamed on the remote', [ $remote, 'ALTER TABLE items RENAME note TO remark' ], [ $remote, 'ALTER TABLE items RENAME remark TO note' ], 'items', no_column('note'));
drifts('a column added here', [ $local, 'ALTER TABLE items ADD extra int DEFAULT 1' ], [ $remote, 'ALTER TABLE items ADD extra int DEFAULT 1' ], 'items', no_column('extra'),
	change => 'UPDATE items SET extra = id * 10', compare => 'extra');
drifts('a column renamed here', [ $local, 'ALTER TABLE items RENAME extra TO remark' ], [ $remote, 'ALTER TABLE items RENAME extra TO remark' ], 'items', no_column('remark'),
	change => 'UPDATE items SET remark = id * 100 WHERE id % 2 = 1', compare => 'remark');
$local->safe_psql('postgres', 'ALTER TABLE items DROP remark');
my $key = qr/42703: .*items.*has no column "\w+".*identifies the table's rows.*HINT: Make the table's definition there the same/;
drifts('a column of the key renamed on the remote', [ $remote, 'ALTER TABLE items RENAME name TO title' ], [ $remote, 'ALTER TABLE items RENAME title TO name' ], 'items', $key);
drifts('a column of the key renamed here', [ $local, 'ALTER TABLE items RENAME name TO title' ], [ $local, 'ALTER TABLE items RENAME title TO name' ], 'items', $key, key => 'title');
drifts('a foreign key\'s column renamed on the remote', [ $remote, 'ALTER TABLE items RENAME parent_id TO up' ], [ $remote, 'ALTER TABLE items RENAME up TO parent_id' ], 'items',
	no_column('parent_id'), change => 'UPDATE items SET parent_id = 1 + parent_id % 5 WHERE id % 4 = 0');
drifts('a foreign key\'s column renamed here', [ $local, 'ALTER TABLE items RENAME parent_id TO up' ], [ $local, 'ALTER TABLE items RENAME up TO parent_id' ], 'items',
	no_column('up'), parent => 'up', change => 'UPDATE items SET up = 1 + up % 5 WHERE id % 4 = 0');

# both sides have followed
both($local, $remote, 'ALTER TABLE items RENAME name TO title');
both($local, $remote, 'ALTER TABLE items RENAME parent_id TO up');
$local->safe_psql('postgres', q{UPDATE items SET title = title || ' called title', up = 1 + up % 5 WHERE id % 2 = 0; UPDATE items SET cash = -id});
wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'columns renamed on both sides: rows go on');
same($local, $remote, 'SELECT i.title, i.cash, p.name FROM items i LEFT JOIN parents p ON p.id = i.up ORDER BY 1', 'columns renamed on both sides: the same rows');
both($local, $remote, 'ALTER TABLE items RENAME title TO name');
both($local, $remote, 'ALTER TABLE items RENAME up TO parent_id');

drifts('a table renamed on the remote', [ $remote, 'ALTER TABLE items RENAME TO things' ], [ $remote, 'ALTER TABLE things RENAME TO items' ], 'items',
	qr/42P01: .*has no table public\.items.*HINT: Create the table there/);
drifts('a table moved on the remote', [ $remote, 'CREATE SCHEMA elsewhere; ALTER TABLE items SET SCHEMA elsewhere' ],
	[ $remote, 'ALTER TABLE elsewhere.items SET SCHEMA public' ], 'items', qr/42P01: .*has no table public\.items.*HINT: Create the table there/);
drifts('a right taken back on the remote', [ $remote, 'REVOKE INSERT ON items FROM sync' ], [ $remote, 'GRANT INSERT ON items TO sync' ], 'items',
	qr/42501: .*permission denied for table items/);
drifts('a policy on the remote', [ $remote, 'ALTER TABLE items ENABLE ROW LEVEL SECURITY' ], [ $remote, 'ALTER TABLE items DISABLE ROW LEVEL SECURITY' ], 'items',
	qr/42501: .*row-level security policy for table "items"/);
drifts('a parent missing on the remote', [ $remote, 'ALTER TABLE parents RENAME TO ancestors' ], [ $remote, 'ALTER TABLE ancestors RENAME TO parents' ], 'items parents',
	qr/42P01: .*has no table public\.parents/);

# a type that takes only some of the values is the rows' matter
$round++;
$remote->safe_psql('postgres', 'ALTER TABLE items ALTER cash TYPE smallint');
$local->safe_psql('postgres', q{UPDATE items SET cash = 100000 WHERE id = 3; UPDATE items SET note = 'small' WHERE id = 4});
wait_for($local, q{SELECT count(*) = 1 AND min(sqlstate) = '22003' AND min(key) = '3' FROM synchro.failures}, 'a smaller type: only the row that does not fit is left out');
$remote->safe_psql('postgres', 'ALTER TABLE items ALTER cash TYPE int');
wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'it comes when it fits');
same($local, $remote, $items, 'all are the same');

# what is to be sent again of a table that has stalled waits, too, while others go on
my $before = rows($local, 'SELECT now()');

$local->safe_psql('postgres', q{UPDATE items SET note = 'again' WHERE id = 8});
wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'pushed once');
$remote->safe_psql('postgres', q{UPDATE items SET note = 'overwritten' WHERE note = 'again'; ALTER TABLE items RENAME TO things});
$local->safe_psql('postgres', "SELECT synchro.set_checkpoint('office', '$before')");
wait_for($local, 'SELECT failed = 1 FROM synchro.remotes', 'stalled before it was sent again');
foreach my $n (1 .. 3)
{
	$local->safe_psql('postgres', 'UPDATE others SET n = n + 1');
	wait_arrival($remote, 'SELECT n FROM others', rows($local, 'SELECT n FROM others'), 'others go on');
}
$remote->safe_psql('postgres', 'ALTER TABLE things RENAME TO items');
wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'mended');
is(rows($remote, q{SELECT count(*) FILTER (WHERE note = 'again'), count(*) FILTER (WHERE note = 'overwritten') FROM items}), '1|0', 'it is sent again then');

# while a table has stalled, the log is kept for it
$remote->safe_psql('postgres', 'ALTER TABLE items RENAME TO things');
$local->safe_psql('postgres', q{LOAD 'synchro'; ALTER SYSTEM SET synchro.log_retention = '1s'});
$local->reload;
$local->safe_psql('postgres', q{UPDATE items SET note = 'kept' WHERE id = 7});
wait_for($local, 'SELECT failed = 1 FROM synchro.remotes', 'stalled');
foreach my $n (1 .. 30)
{
	$local->safe_psql('postgres', "UPDATE others SET n = n + 1; SELECT pg_sleep(0.1)");
}
$remote->safe_psql('postgres', 'ALTER TABLE things RENAME TO items');
wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'mended');
is(rows($remote, 'SELECT note FROM items i WHERE name = ' . rows($local, 'SELECT quote_literal(name) FROM items WHERE id = 7')), 'kept', 'what was logged long ago arrives');
wait_for($local, q{SELECT sum(pg_relation_size(('synchro.log_' || i)::regclass)) = 0 FROM generate_series(0, 2) i}, 'then the log is emptied');

$local->stop('fast');
$remote->stop('fast');
done_testing();
