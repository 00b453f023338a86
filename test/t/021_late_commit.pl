# WHY: transactions commit in another order than they begin, and a log that is read "from the last number on" or "from the
# last time on" loses those that were still open when it was read. Nobody notices until somebody compares the servers. So
# transactions are held open across synchronizations here, in all the forms that have more than one transaction id or write
# to the log before they commit. Open transactions must neither be waited for nor be seen in part; and what they change is
# found on the remote although names and parents have changed there in between.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text);
CREATE TABLE k (id serial PRIMARY KEY, name text NOT NULL, cash int);
CREATE UNIQUE INDEX k_name ON k (name);
CREATE TABLE g (id serial PRIMARY KEY, name text NOT NULL UNIQUE, link int REFERENCES k);
CREATE TABLE land (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE town (id serial PRIMARY KEY, land int REFERENCES land, name text NOT NULL, UNIQUE (land, name));
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('t_id_seq', 1000), setval('k_id_seq', 1000), setval('g_id_seq', 1000), setval('land_id_seq', 1000), setval('town_id_seq', 1000);
SQL

# names are unique on the remote only, so that a writer here takes no lock that another one's reference waits for
$local->safe_psql('postgres', 'DROP INDEX k_name');
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t');
SELECT synchro.add_table('k', '{name}', allow_many => true);
SELECT synchro.add_table('g', '{name}');
SELECT synchro.register_natural_key('land', '{name}');
SELECT synchro.add_table('town', '{land,name}');
SQL

sub here
{
	$local->safe_psql('postgres', $_[0]);
	return;
}

sub there
{
	return $remote->safe_psql('postgres', $_[0]);
}

# pushes($counts, $testname): what was inserted/updated/deleted
sub pushes
{
	my ($counts, $testname) = @_;
	my $result = sync($local, 'office');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join('/', map { $result->{$_} } qw(inserted updated deleted)), $counts, $testname);
	return;
}

my $open = $local->background_psql('postgres', on_error_stop => 1);
my $other = $local->background_psql('postgres', on_error_stop => 1);
my $k = 'SELECT name, cash FROM k ORDER BY name';

subtest 'an insert' => sub {
	$open->query_safe(q{BEGIN; INSERT INTO k (name) VALUES ('early')});
	here(q{INSERT INTO k (name) VALUES ('late')});
	pushes('1/0/0', 'the later one arrives while the earlier one is open');
	pushes('0/0/0', 'and is not pushed again');
	here(q{INSERT INTO k (name) VALUES ('later')});
	pushes('1/0/0', 'nor one that came after it');
	$open->query_safe('COMMIT');
	pushes('1/0/0', 'the earlier one arrives when it commits');
	same($local, $remote, $k, 'all are there');
	pushes('0/0/0', 'nothing is left');
};

subtest 'two at a time, committed in either order, one rolled back' => sub {
	$open->query_safe(q{BEGIN; INSERT INTO k (name) VALUES ('one')});
	$other->query_safe(q{BEGIN; INSERT INTO k (name) VALUES ('two'); INSERT INTO t (name) VALUES ('two')});
	pushes('0/0/0', 'both open');
	$other->query_safe('COMMIT');
	pushes('2/0/0', 'the second has committed');
	$other->query_safe(q{BEGIN; DELETE FROM k WHERE name = 'two'});
	$open->query_safe(q{INSERT INTO k (name) VALUES ('one more')});
	pushes('0/0/0', 'both go on');
	$open->query_safe('COMMIT');
	pushes('2/0/0', 'the first has committed');
	$other->query_safe('ROLLBACK');
	pushes('0/0/0', 'the second was rolled back');
	same($local, $remote, $k, 'all are there');
};

subtest 'savepoints, a large transaction, two-phase commit' => sub {
	$open->query_safe(q{SET synchro.buffer_size = '64kB'});
	$open->query_safe(q{BEGIN; SAVEPOINT a; INSERT INTO k (name) VALUES ('savepoint'); SAVEPOINT b});
	$open->query_safe(q{INSERT INTO t (name) SELECT i FROM generate_series(1, 20000) i; RELEASE a});
	here(q{INSERT INTO k (name) VALUES ('beside it')});
	pushes('1/0/0', 'while it is open');
	$open->query_safe('COMMIT');
	pushes('20001/0/0', 'when it has committed');
	is(there('SELECT count(*) FROM t'), 20001, 'all are there');

	$open->query_safe(q{BEGIN; SAVEPOINT a; DELETE FROM t; INSERT INTO k (name) VALUES ('prepared'); RELEASE a; PREPARE TRANSACTION 'p'});
	here(q{INSERT INTO k (name) VALUES ('not prepared')});
	pushes('1/0/0', 'while it is prepared');
	is(there('SELECT count(*) FROM t'), 20001, 'nothing of it is seen');
	$local->restart;
	$open = $local->background_psql('postgres', on_error_stop => 1);
	$other = $local->background_psql('postgres', on_error_stop => 1);
	pushes('0/0/0', 'after a restart');
	here(q{COMMIT PREPARED 'p'});
	pushes('1/0/20001', 'when it is committed');
	same($local, $remote, $k, 'all are there');
};

subtest 'changes of names' => sub {
	my $g = 'SELECT g.name, k.name FROM g LEFT JOIN k ON k.id = link ORDER BY 1';

	here(q{TRUNCATE k, g; INSERT INTO k (name, cash) VALUES ('a', 0), ('b', 0), ('c', 0)});
	sync($local, 'office');
	my $id = there(q{SELECT id FROM k WHERE name = 'a'});
	$open->query_safe(q{BEGIN; UPDATE k SET name = 'a renamed' WHERE name = 'a'});
	here(q{INSERT INTO g (name, link) SELECT 'child', id FROM k WHERE name = 'a'; UPDATE k SET cash = 1 WHERE name = 'b'});
	pushes('1/1/0', 'a child of a row that is being renamed');
	same($local, $remote, $g, 'refers to it by its former name');
	$open->query_safe('COMMIT');
	pushes('0/1/0', 'the new name');
	same($local, $remote, $g, 'is the same row\'s');
	is(there(q{SELECT name FROM k WHERE id = } . $id), 'a renamed', 'under the same id');

	# the name goes on to another row, while the first renaming is not known yet
	$open->query_safe(q{BEGIN; UPDATE k SET name = 'b renamed' WHERE name = 'b'});
	here(q{UPDATE k SET cash = 2 WHERE name = 'c'});
	pushes('0/1/0', 'another row changed');
	$open->query_safe('COMMIT');
	here(q{UPDATE k SET name = 'b' WHERE name = 'c'; UPDATE k SET cash = 3});
	pushes('0/3/0', 'a name passed on');
	same($local, $remote, $k, 'all are there');
	is(there(q{SELECT count(*) FROM k}), 3, 'none was made anew');

	$open->query_safe(q{BEGIN; DELETE FROM k WHERE name = 'b'});
	here(q{UPDATE k SET name = 'a' WHERE name = 'a renamed'});
	pushes('0/1/0', 'a row renamed while another is being deleted');
	here(q{UPDATE k SET name = 'd' WHERE name = 'b renamed'});
	$open->query_safe('COMMIT');
	pushes('0/1/1', 'deleted');
	same($local, $remote, $k, 'all are there');
};

subtest 'a parent that is not watched is renamed' => sub {
	here(q{INSERT INTO land (name) VALUES ('A'), ('B'); INSERT INTO town (land, name) VALUES (1, 'x'), (1, 'y'), (2, 'x')});
	pushes('5/0/0', 'add');
	$open->query_safe(q{BEGIN; DELETE FROM town WHERE (land, name) = (1, 'x')});
	here(q{UPDATE land SET name = 'A renamed' WHERE name = 'A'; UPDATE town SET name = 'z' WHERE name = 'y'});
	pushes('0/1/0', 'a child renamed with it');
	$open->query_safe('COMMIT');
	pushes('0/0/1', 'a child deleted before, and committed later');
	is(there('SELECT land.name, town.name FROM town JOIN land ON land.id = land ORDER BY 1, 2'), "A|z\nB|x", 'it was the right one');
};

subtest 'a delete that comes late, after the row\'s parents are gone' => sub {
	here(q{TRUNCATE k, g; INSERT INTO k (name) VALUES ('parent'), ('kept'); INSERT INTO g (name, link) SELECT 'child of ' || name, id FROM k});
	sync($local, 'office');
	$open->query_safe(q{BEGIN; DELETE FROM g WHERE name = 'child of parent'});
	here(q{INSERT INTO k (name) VALUES ('meanwhile')});
	pushes('1/0/0', 'while it is open');
	$open->query_safe('COMMIT');
	here(q{DELETE FROM k WHERE name = 'parent'});
	pushes('0/0/2', 'both in one pass');
	same($local, $remote, 'SELECT g.name, k.name FROM g JOIN k ON k.id = link', 'the other is left');
};

# what has been synchronized meanwhile counts, too, when the checkpoint is set to now
subtest 'reset' => sub {
	$open->query_safe(q{BEGIN; INSERT INTO k (name) VALUES ('open')});
	here(q{INSERT INTO k (name) VALUES ('forgotten'); SELECT synchro.reset('office')});
	pushes('0/0/0', 'what had committed is forgotten');
	$open->query_safe('COMMIT');
	pushes('1/0/0', 'what had not is not');
	is(there(q{SELECT name FROM k WHERE name IN ('open', 'forgotten')}), 'open', 'it is there');
};

subtest 'set_checkpoint' => sub {
	here('TRUNCATE t');
	sync($local, 'office');
	$open->query_safe(q{SET synchro.buffer_size = '64kB'});
	$open->query_safe(q{BEGIN; INSERT INTO t (name) SELECT i FROM generate_series(1, 10000) i});
	here(q{INSERT INTO k (name) VALUES ('committed before')});
	my $at = rows($local, 'SELECT clock_timestamp()');
	$open->query_safe('COMMIT');
	sync($local, 'office');
	there('DELETE FROM g; DELETE FROM k; DELETE FROM t');
	here("SELECT synchro.set_checkpoint('office', '$at')");
	pushes('10000/0/0', 'all of a transaction that has committed since is sent again, though written to the log before');
	is(there('SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM k)'), '10000|0', 'and nothing else');
};

# The server's own snapshots do not count the caller among those in progress, so whether it is one of those that were seen
# would depend on whether a later transaction has ended by then.
subtest 'the transaction that moves the checkpoint' => sub {
	my %calls = (
		'set_checkpoint() to the past' => q{synchro.set_checkpoint('office', now() - interval '1 second')},
		'set_checkpoint() to now' => q{synchro.set_checkpoint('office', now())},
		'reset()' => q{synchro.reset('office', keep_references => true)},
		'reset_schema()' => q{synchro.reset_schema('public', soft => false, remote => 'office', confirm => true)},
	);

	here('CREATE TABLE plain (n int)');
	foreach my $call (sort keys %calls)
	{
		foreach my $later (0, 1)
		{
			my $name = "$call, $later";

			$open->query_safe("SET client_min_messages = warning; BEGIN; INSERT INTO k (name) VALUES ('$name: before it')");
			here('INSERT INTO plain VALUES (1)') if $later;
			$open->query_safe("SELECT $calls{$call}");
			$open->query_safe("INSERT INTO k (name) VALUES ('$name: after it'); COMMIT");
			sync($local, 'office');
			is(there("SELECT count(*) FROM k WHERE name LIKE '$name: %'"), '2',
				"$call: what the transaction changes is pushed" . ($later ? ', also if a later one has ended' : ''));
		}
	}
};

# what a subtransaction's failure gives back is not the lock on what the whole transaction has written to the log
subtest 'a cursor whose FETCH fails' => sub {
	here('DELETE FROM t');
	sync($local, 'office');
	here(<<'SQL');
CREATE FUNCTION put(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
	IF i > 20000 THEN RAISE 'no more'; END IF;
	INSERT INTO t (name) VALUES (i);
	RETURN i;
END $$;
SQL
	$open->query_safe(q{SET synchro.buffer_size = '64kB'});
	$open->query_safe(<<'SQL');
BEGIN;
DO $$ DECLARE
	c CURSOR FOR SELECT put(i) FROM generate_series(1, 30000) i;
	r record;
BEGIN
	OPEN c;
	FOR j IN 1..20000 LOOP FETCH c INTO r; END LOOP;
	BEGIN
		FETCH c INTO r;
	EXCEPTION WHEN OTHERS THEN
		NULL;
	END;
END $$;
SQL
	is(rows($local, q{SELECT count(*) > 0 FROM pg_locks WHERE mode = 'RowExclusiveLock'
		AND relation = ('synchro.log_' || (SELECT last_value FROM synchro.log_switch))::regclass}), 't', 'the log is locked still');
	here(q{LOAD 'synchro'; ALTER SYSTEM SET synchro.log_retention = '1s'; SELECT pg_reload_conf()});
	foreach my $i (1 .. 4)
	{
		here("INSERT INTO k (name) VALUES ('after the cursor $i')");
		pushes('1/0/0', "others go on, $i");
		$local->poll_query_until('postgres', q{SELECT now() - max(changed_at) > '1.1 s' FROM synchro.changes}) or die;
	}
	$open->query_safe('COMMIT');
	pushes('20000/0/0', 'all of it arrives');
	here(q{LOAD 'synchro'; ALTER SYSTEM SET synchro.log_retention = '1h'; SELECT pg_reload_conf()});
};

$open->quit;
$other->quit;
done_testing();
