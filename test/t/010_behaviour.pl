# WHY: these are the promises of django-synchro, the model of this extension, for single rows: which remote row an add, a
# change or a delete reaches, and what it leaves alone. A wrong row overwritten or deleted on somebody's production server
# is the worst that can happen, so nearly every assertion shows all rows of the remote's table, its own included. The two
# servers hand out different ids, and the remote has rows of its own under ids that the local hands out, too.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

# t: nothing but a serial id; p: a given primary key; k: a serial id and a natural key; twin: a key that is not unique
both($local, $remote, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text, cash int);
CREATE TABLE p (name text PRIMARY KEY, cash int, visits int NOT NULL DEFAULT 0);
CREATE TABLE k (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int, visits int NOT NULL DEFAULT 0);
CREATE TABLE twin (id serial PRIMARY KEY, name text NOT NULL, cash int);
SQL

# The remote's own rows and ids, its own default of the skipped column, and a record of all that is written there.
$remote->safe_psql('postgres', <<'SQL');
INSERT INTO t (name, cash) SELECT 'their ' || i, 0 FROM generate_series(1, 3) i;
INSERT INTO p VALUES ('theirs', 0, 5);
INSERT INTO k (name, cash, visits) VALUES ('theirs', 0, 5), ('their own', 0, 6);
INSERT INTO twin (name, cash) VALUES ('two', 0), ('two', 0), ('one', 0);
ALTER TABLE p ALTER visits SET DEFAULT 70;
ALTER TABLE k ALTER visits SET DEFAULT 70;
ALTER SEQUENCE t_id_seq RESTART 1001;
ALTER SEQUENCE k_id_seq RESTART 1001;
CREATE TABLE seen (operation text, relation text, name text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.seen VALUES (TG_OP, TG_TABLE_NAME, coalesce(NEW.name, OLD.name));
	RETURN NULL;
END$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON p FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON k FOR EACH ROW EXECUTE FUNCTION note();
SQL

# Rows that were there before anything was watched; the ids below 101 are given by hand, the remote's own ones among them.
$local->safe_psql('postgres', <<'SQL');
INSERT INTO t (name, cash) VALUES ('old 1', 1), ('old 2', 2);
ALTER SEQUENCE t_id_seq RESTART 101;
ALTER SEQUENCE k_id_seq RESTART 101;
SQL

connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t');
SELECT synchro.add_table('p', skip => '{visits}');
SELECT synchro.add_table('k', '{name}', '{visits}');
SELECT synchro.add_table('twin', '{name}');
SQL

my %all = (
	t => 'SELECT id, name, cash FROM t ORDER BY id',
	p => 'SELECT name, cash, visits FROM p ORDER BY name',
	k => 'SELECT id, name, cash, visits FROM k ORDER BY id',
	twin => 'SELECT id, name, cash FROM twin ORDER BY id');

sub here
{
	$local->safe_psql('postgres', $_[0]);
	return;
}

sub there
{
	return $remote->safe_psql('postgres', $_[0]);
}

# push($inserted, $updated, $deleted, $testname): synchronizes, and just that was written on the remote
sub push_counts
{
	my ($inserted, $updated, $deleted, $testname) = @_;
	my $result = sync($local, 'office');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(
		join('/', map { $result->{$_} } qw(inserted updated deleted skipped failed)),
		"$inserted/$updated/$deleted/0/0",
		"$testname: inserted/updated/deleted/skipped/failed");
	return $result;
}

# contents($table, $rows, $testname): all rows of the remote's table
sub contents
{
	my ($table, $rows, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(there($all{$table}), join("\n", @$rows), $testname);
	return;
}

# what has been written on the remote since the last call
sub seen
{
	return there('WITH d AS (DELETE FROM seen RETURNING *) SELECT * FROM d ORDER BY relation, name, operation');
}

my @their_t = ('1|their 1|0', '2|their 2|0', '3|their 3|0');

is(sync($local, 'office')->{message}, 'No changes since last synchronization.', 'nothing to do at first');

subtest 'a serial id alone: add, change, delete' => sub {
	here(q{INSERT INTO t (id, name, cash) VALUES (3, 'a', 10)});
	my $result = push_counts(1, 0, 0, 'add');
	is($result->{message}, 'Synchronization performed successfully.', 'message');
	is($result->{remote}, 'office', 'name of the remote');
	contents('t', [ @their_t, '1001|a|10' ], 'added under an id of its own; the row with the same id is untouched');
	here(q{UPDATE t SET cash = 11 WHERE id = 3});
	push_counts(0, 1, 0, 'change');
	contents('t', [ @their_t, '1001|a|11' ], 'changed through the reference; the row with the same id is untouched');
	push_counts(0, 0, 0, 'again');
	here(q{DELETE FROM t WHERE id = 3});
	push_counts(0, 0, 1, 'delete');
	contents('t', [@their_t], 'deleted; the row with the same id is untouched');
	seen();
};

subtest 'a given primary key: add, change, delete' => sub {
	here(q{INSERT INTO p VALUES ('a', 10, 3)});
	push_counts(1, 0, 0, 'add');
	contents('p', [ 'a|10|70', 'theirs|0|5' ], 'added, with the remote\'s default of the skipped column');
	here(q{UPDATE p SET cash = 11, visits = 4});
	push_counts(0, 1, 0, 'change');
	contents('p', [ 'a|11|70', 'theirs|0|5' ], 'changed, but for the skipped column');
	here(q{UPDATE p SET visits = 9});
	push_counts(0, 0, 0, 'change of the skipped column only');
	here(q{INSERT INTO p VALUES ('theirs', 1, 9)});
	push_counts(0, 1, 0, 'add of a key that is there');
	contents('p', [ 'a|11|70', 'theirs|1|5' ], 'overwritten, but for the skipped column');
	here(q{UPDATE p SET name = 'b' WHERE name = 'a'});
	push_counts(0, 1, 0, 'change of the key');
	contents('p', [ 'b|11|70', 'theirs|1|5' ], 'the same row under its new key: its skipped column is kept');
	here(q{DELETE FROM p WHERE name = 'b'});
	push_counts(0, 0, 1, 'delete');
	contents('p', ['theirs|1|5'], 'deleted');
	seen();
};

subtest 'a natural key: add, change, delete' => sub {
	here(q{INSERT INTO k (id, name, cash, visits) VALUES (1, 'a', 10, 3)});
	push_counts(1, 0, 0, 'add');
	contents('k', [ '1|theirs|0|5', '2|their own|0|6', '1001|a|10|70' ],
		'added under an id of its own, with the remote\'s default of the skipped column');
	here(q{UPDATE k SET cash = 11, visits = 4});
	push_counts(0, 1, 0, 'change');
	contents('k', [ '1|theirs|0|5', '2|their own|0|6', '1001|a|11|70' ], 'changed, but for the skipped column');
	here(q{INSERT INTO k (id, name, cash, visits) VALUES (2, 'theirs', 1, 9)});
	push_counts(0, 1, 0, 'add of a key that is there');
	contents('k', [ '1|theirs|1|5', '2|their own|0|6', '1001|a|11|70' ],
		'found by its key: id and skipped column are kept, and the row with the same id is untouched');
	here(q{UPDATE k SET cash = 2, visits = 10 WHERE name = 'theirs'});
	push_counts(0, 1, 0, 'change of a row found by its key');
	contents('k', [ '1|theirs|2|5', '2|their own|0|6', '1001|a|11|70' ], 'changed, but for the skipped column');
	here(q{UPDATE k SET name = 'b' WHERE name = 'a'});
	push_counts(0, 1, 0, 'change of the key');
	contents('k', [ '1|theirs|2|5', '2|their own|0|6', '1001|b|11|70' ], 'the same row under its new key');
	here(q{UPDATE k SET id = 77 WHERE name = 'b'});
	push_counts(0, 0, 0, 'change of the id here');
	contents('k', [ '1|theirs|2|5', '2|their own|0|6', '1001|b|11|70' ], 'ids are each server\'s own');
	here(q{DELETE FROM k WHERE name = 'b'});
	push_counts(0, 0, 1, 'delete');
	contents('k', [ '1|theirs|2|5', '2|their own|0|6' ], 'deleted');
	seen();
};

subtest 'updates and rows found by key take nothing from the remote\'s sequence' => sub {
	here(q{INSERT INTO k (name, cash) VALUES ('counted', 1)});
	sync($local, 'office');
	my $before = there('SELECT last_value FROM k_id_seq');
	here("UPDATE k SET cash = cash + 1 WHERE name = 'counted';\n" x 20);
	push_counts(0, 1, 0, 'twenty changes');
	here(q{UPDATE k SET cash = cash + 1});
	push_counts(0, 2, 0, 'a change of all');
	is(there('SELECT last_value FROM k_id_seq'), $before, 'the sequence is where it was');
	here(q{DELETE FROM k WHERE name = 'counted'});
	sync($local, 'office');
	seen();
};

foreach my $together (0, 1)
{
	my $when = $together ? 'in one transaction' : 'in transactions of their own';
	my $run = sub {
		here(join ";\n", $together ? 'BEGIN' : (), @_, $together ? 'COMMIT' : ());
	};

	subtest "adds and changes before a delete cost nothing, $when" => sub {
		my $sequences = there('SELECT (SELECT last_value FROM t_id_seq), (SELECT last_value FROM k_id_seq)');
		$run->(
			q{INSERT INTO t (name) VALUES ('x')}, q{INSERT INTO p VALUES ('x')}, q{INSERT INTO k (name) VALUES ('x')},
			q{DELETE FROM t WHERE name = 'x'}, q{DELETE FROM p WHERE name = 'x'}, q{DELETE FROM k WHERE name = 'x'});
		push_counts(0, 0, 0, 'add and delete');
		is(seen(), '', 'no row was touched');
		is(there('SELECT (SELECT last_value FROM t_id_seq), (SELECT last_value FROM k_id_seq)'),
			$sequences, 'no id was taken');

		here(q{INSERT INTO t (name) VALUES ('x'); INSERT INTO p VALUES ('x'); INSERT INTO k (name) VALUES ('x')});
		push_counts(3, 0, 0, 'three rows');
		seen();
		$run->(
			q{UPDATE t SET cash = 1 WHERE name = 'x'}, q{UPDATE p SET cash = 1 WHERE name = 'x'},
			q{UPDATE k SET cash = 1 WHERE name = 'x'}, q{DELETE FROM t WHERE name = 'x'},
			q{DELETE FROM p WHERE name = 'x'}, q{DELETE FROM k WHERE name = 'x'});
		push_counts(0, 0, 3, 'change and delete');
		is(seen(), "DELETE|k|x\nDELETE|p|x\nDELETE|t|x", 'each row was deleted, none changed first');
		contents('t', [@their_t], 'the remote\'s own rows are as they were');
	};

	subtest "add, change, delete, add, change, $when" => sub {
		$run->(
			map {
				my ($table, $columns) = @$_;
				(
					"INSERT INTO $table ($columns) VALUES ('y', 1)",
					"UPDATE $table SET cash = 2 WHERE name = 'y'",
					"DELETE FROM $table WHERE name = 'y'",
					"INSERT INTO $table ($columns) VALUES ('y', 3)",
					"UPDATE $table SET cash = 4 WHERE name = 'y'")
			} ([ 't', 'name, cash' ], [ 'p', 'name, cash' ], [ 'k', 'name, cash' ]));
		push_counts(3, 0, 0, 'one row in each table');
		is(seen(), "INSERT|k|y\nINSERT|p|y\nINSERT|t|y", 'each was inserted once');
		is(
			there(join ' UNION ALL ', map { "SELECT '$_', cash FROM $_ WHERE name = 'y'" } qw(t p k)),
			"t|4\np|4\nk|4", 'they are as they were left');

		# the same beginning with a row that is there: its remote id and skipped column are kept where the key says which it is
		there(q{UPDATE k SET visits = 8 WHERE name = 'y'; UPDATE p SET visits = 8 WHERE name = 'y'});
		my $id = there(q{SELECT id FROM k WHERE name = 'y'});
		seen();
		$run->(
			map {
				my ($table) = @$_;
				(
					"UPDATE $table SET cash = 5 WHERE name = 'y'",
					"DELETE FROM $table WHERE name = 'y'",
					"INSERT INTO $table (name, cash) VALUES ('y', 6)",
					"UPDATE $table SET cash = 7 WHERE name = 'y'")
			} (['t'], ['p'], ['k']));
		push_counts(1, 2, 1, 'changed, deleted, added, changed');
		is(seen(), "UPDATE|k|y\nUPDATE|p|y\nDELETE|t|y\nINSERT|t|y", 'what has a key is the same row still');
		is(there(q{SELECT id, cash, visits FROM k WHERE name = 'y'}), "$id|7|8", 'natural key: id and visits are kept');
		is(there(q{SELECT cash, visits FROM p WHERE name = 'y'}), '7|8', 'primary key: visits are kept');
		is(there(q{SELECT cash FROM t WHERE name = 'y'}), '7', 'reference: one row');
		here(join ';', map { "DELETE FROM $_ WHERE name = 'y'" } qw(t p k));
		push_counts(0, 0, 3, 'clean up');
		seen();
	};
}

subtest 'a row without natural key is found again through its reference' => sub {
	here(q{INSERT INTO t (name, cash) VALUES ('r', 1), ('s', 1)});
	push_counts(2, 0, 0, 'add');
	my $id = there(q{SELECT id FROM t WHERE name = 'r'});
	there(qq{UPDATE t SET name = 'their name', cash = 99 WHERE id = $id});
	here(q{UPDATE t SET cash = 2 WHERE name = 'r'});
	push_counts(0, 1, 0, 'change after the remote changed the name');
	is(there(qq{SELECT name, cash FROM t WHERE id = $id}), 'r|2', 'the same row was changed');
	is(there(q{SELECT count(*) FROM t WHERE name IN ('r', 'their name')}), '1', 'there is no second one');
	there(qq{UPDATE t SET name = 'their name' WHERE id = $id});
	here(q{DELETE FROM t WHERE name = 'r'});
	push_counts(0, 0, 1, 'delete after the remote changed the name');
	is(there(qq{SELECT count(*) FROM t WHERE id = $id}), '0', 'the same row was deleted');

	# the remote deletes it: a change brings it back, a delete has nothing to do
	$id = there(q{SELECT id FROM t WHERE name = 's'});
	there(qq{DELETE FROM t WHERE id = $id});
	here(q{UPDATE t SET cash = 3 WHERE name = 's'});
	push_counts(1, 0, 0, 'change of a row that the remote deleted');
	is(there(q{SELECT cash FROM t WHERE name = 's'}), '3', 'it is there again');
	isnt(there(q{SELECT id FROM t WHERE name = 's'}), $id, 'under a new id');
	here(q{UPDATE t SET cash = 4 WHERE name = 's'});
	push_counts(0, 1, 0, 'the reference is the new one');
	there(q{DELETE FROM t WHERE name = 's'});
	here(q{DELETE FROM t WHERE name = 's'});
	push_counts(0, 0, 0, 'delete of a row that the remote deleted');
	contents('t', [@their_t], 'the remote\'s own rows are as they were');
	seen();
};

subtest 'without reference and natural key' => sub {
	is(rows($local, q{SELECT id, name FROM t ORDER BY id}), "1|old 1\n2|old 2", 'rows from before have ids of the remote\'s own');
	here(q{DELETE FROM t WHERE id = 1});
	push_counts(0, 0, 0, 'delete of a row from before');
	contents('t', [@their_t], 'it has touched nothing');
	is(seen(), '', 'nor anything else');
	here(q{UPDATE t SET cash = 22 WHERE id = 2});
	push_counts(1, 0, 0, 'change of a row from before');
	is(there(q{SELECT name, cash FROM t WHERE id > 3}), 'old 2|22', 'it arrives as a new row');
	is(there(q{SELECT name, cash FROM t WHERE id = 2}), 'their 2|0', 'and has not touched the one with the same id');
	seen();
};

subtest 'reset' => sub {
	here(q{INSERT INTO k (name) VALUES ('z'), ('z kept')});
	here(q{INSERT INTO p VALUES ('z')});
	here(q{INSERT INTO t (name) VALUES ('z')});
	push_counts(4, 0, 0, 'add');
	my $id = there(q{SELECT id FROM t WHERE name = 'z'});
	here(q{INSERT INTO k (name) VALUES ('pending'); INSERT INTO t (name) VALUES ('pending')});
	here(q{SELECT synchro.reset()});
	my $result = push_counts(0, 0, 0, 'after reset');
	is($result->{message}, 'No changes since last synchronization.', 'what was pending is forgotten');
	is(there(q{SELECT count(*) FROM k WHERE name = 'pending'}), '0', 'and not there');
	seen();

	here(q{DELETE FROM k WHERE name = 'z'; DELETE FROM p WHERE name = 'z'; DELETE FROM t WHERE name = 'z'});
	push_counts(0, 0, 2, 'delete');
	is(seen(), "DELETE|k|z\nDELETE|p|z", 'found by natural key and by primary key');
	is(there(qq{SELECT name FROM t WHERE id = $id}), 'z', 'the row without reference is left alone');

	here(q{INSERT INTO t (name) VALUES ('zz')});
	push_counts(1, 0, 0, 'add');
	here(q{SELECT synchro.reset('office', keep_references => true)});
	here(q{DELETE FROM t WHERE name = 'zz'});
	push_counts(0, 0, 1, 'delete');
	is(there(q{SELECT count(*) FROM t WHERE name = 'zz'}), '0', 'found by its reference, which reset() has kept');
	seen();
};

subtest 'a natural key that matches many remote rows' => sub {
	here(q{INSERT INTO twin (id, name, cash) VALUES (3, 'two', 1), (2, 'one', 1)});
	sync_parks($local, 'office', qr/21000:.*several rows.*The row's key here is 3\./,
		'leaves out a change that is named');
	contents('twin', [ '1|two|0', '2|two|0', '3|one|1' ], 'only the other has been written');
	sync_parks($local, 'office', qr/21000:.*several rows/, 'the change still waits');
	here(q{SELECT synchro.alter_table('twin', allow_many => true)});
	push_counts(0, 1, 0, 'with allow_many');
	contents('twin', [ '1|two|1', '2|two|0', '3|one|1' ], 'the first by primary key is taken');
	here(q{UPDATE twin SET cash = 2});
	push_counts(0, 2, 0, 'change');
	contents('twin', [ '1|two|2', '2|two|0', '3|one|2' ], 'it is the same one again');
	here(q{UPDATE twin SET name = 'zwei' WHERE name = 'two'});
	push_counts(0, 1, 0, 'change of the key');
	contents('twin', [ '1|zwei|2', '2|two|0', '3|one|2' ], 'only the first gets the new name');
	there(q{UPDATE twin SET name = 'zwei' WHERE id = 2});
	here(q{SELECT synchro.alter_table('twin', allow_many => false)});
	here(q{DELETE FROM twin});
	sync_parks($local, 'office', qr/21000:.*several rows/, 'delete without allow_many is left out');
	contents('twin', [ '1|zwei|2', '2|zwei|0' ], 'only the other is deleted');
	here(q{SELECT synchro.alter_table('twin', allow_many => true)});
	push_counts(0, 0, 1, 'delete');
	contents('twin', ['2|zwei|0'], 'only the first is deleted');
};

done_testing();
