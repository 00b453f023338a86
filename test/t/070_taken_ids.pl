# WHY: a row may take the id of another one that is gone, or has moved on. Where the remote refuses what has taken it, the other
# one's part must not wait, nor be forgotten, with it: a row that was deleted here stayed there for good, and one that had moved on was
# taken for the newcomer as soon as that was mended.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE num (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE code (code text PRIMARY KEY, n int);
CREATE TABLE job (id serial PRIMARY KEY, name text, n int);
SQL
$remote->safe_psql('postgres', <<'SQL');
ALTER TABLE num ADD CHECK (n < 100), ADD was text NOT NULL DEFAULT '-';
ALTER TABLE code ADD CHECK (n < 100), ADD was text NOT NULL DEFAULT '-';
ALTER TABLE job ADD CHECK (n < 100), ADD was text NOT NULL DEFAULT '-';
SELECT setval('job_id_seq', 1000), setval('num_id_seq', 1000);
CREATE TABLE uses_code (id serial PRIMARY KEY, code text REFERENCES code ON DELETE CASCADE ON UPDATE CASCADE, was text);
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('num', '{name}'), synchro.add_table('code'), synchro.add_table('job')});

my %rows = (num => 'name, n', code => 'code, n', job => 'name, n');

# What the remote's rows are, with what each was at first there.
sub there
{
	my ($table) = @_;

	return rows($remote, "SELECT string_agg(concat_ws(' ', was, $rows{$table}), ', ' ORDER BY was, n) FROM $table");
}

sub fill
{
	my ($table) = @_;

	$local->safe_psql('postgres', "DELETE FROM $table");
	sync($local, 'office');
	$local->safe_psql('postgres', $table eq 'code' ? q{INSERT INTO code VALUES ('a', 1), ('b', 2), ('c', 3)} :
		"INSERT INTO $table (id, name, n) VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)");
	sync($local, 'office');
	$remote->safe_psql('postgres', "UPDATE $table SET was = chr(96 + n)");
	return;
}

sub refused
{
	my ($testname, $table, $change, $there, $failures) = @_;

	$local->safe_psql('postgres', $change);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sync($local, 'office');
	is(there($table), $there, "$testname: only what is refused waits");
	is(rows($local, q{SELECT string_agg(concat_ws(' ', relation, key, operation, sqlstate), ', ' ORDER BY relation::text, key) FROM synchro.failures}),
		$failures, "$testname: shown as what it is");
	return;
}

sub mended
{
	my ($testname, $table, $change, $there, $left) = @_;

	$local->safe_psql('postgres', $change);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sync($local, 'office')->{failed}, 0, "$testname: mended");
	is(there($table), $there, "$testname: each row is the one that it was");
	is(rows($local, "SELECT key, difference FROM synchro.verify('office', '$table')"), $left // '', "$testname: verify finds nothing else");
	return;
}

# of a row that was deleted
fill('num');
refused('natural key', 'num', q{DELETE FROM num WHERE id = 2; UPDATE num SET id = 2, n = 1000 WHERE id = 1}, 'a a 1, c c 3', 'num 2 update 23514');
mended('natural key', 'num', q{UPDATE num SET n = 5 WHERE id = 2}, 'a a 5, c c 3');

fill('code');
$remote->safe_psql('postgres', 'INSERT INTO uses_code (code, was) SELECT code, code FROM code');
refused('primary key', 'code', q{DELETE FROM code WHERE code = 'b'; UPDATE code SET code = 'b', n = 1000 WHERE code = 'a'}, 'a a 1, c c 3', 'code b update 23514');
mended('primary key', 'code', q{UPDATE code SET n = 5 WHERE code = 'b'}, 'a b 5, c c 3');
is(rows($remote, q{SELECT string_agg(concat_ws(' ', code, was), ', ' ORDER BY id) FROM uses_code}), 'b a, c c', 'primary key: what referred to the one does not refer to the other');

fill('job');
refused('reference', 'job', q{DELETE FROM job WHERE id = 2; UPDATE job SET id = 2, n = 1000 WHERE id = 1}, 'a a 1, c c 3', 'job 2 update 23514');
mended('reference', 'job', q{UPDATE job SET n = 5 WHERE id = 2}, 'a a 5, c c 3');

# of a row that has moved on: it is a new one that is refused
fill('num');
refused('natural key, new', 'num', q{UPDATE num SET id = 11 WHERE id = 1; INSERT INTO num (id, name, n) VALUES (1, 'new', 1000)}, 'a a 1, b b 2, c c 3', 'num 1 insert 23514');
mended('natural key, new', 'num', q{UPDATE num SET n = 5 WHERE id = 1}, '- new 5, a a 1, b b 2, c c 3');

fill('code');
refused('primary key, new', 'code', q{UPDATE code SET code = 'x' WHERE code = 'a'; INSERT INTO code VALUES ('a', 1000)}, 'a x 1, b b 2, c c 3', 'code a insert 23514');
mended('primary key, new', 'code', q{UPDATE code SET n = 5 WHERE code = 'a'}, '- a 5, a x 1, b b 2, c c 3');

fill('job');
refused('reference, new', 'job', q{UPDATE job SET id = 11 WHERE id = 1; INSERT INTO job (id, name, n) VALUES (1, 'new', 1000)}, 'a a 1, b b 2, c c 3', 'job 1 insert 23514');
mended('reference, new', 'job', q{UPDATE job SET n = 5 WHERE id = 1}, '- new 5, a a 1, b b 2, c c 3');

# both at once, and the newcomer goes before it is mended
fill('num');
refused('natural key, chain', 'num', q{DELETE FROM num WHERE id = 3; UPDATE num SET id = 3, n = 2000 WHERE id = 2; UPDATE num SET id = 2, n = 1000 WHERE id = 1}, 'a a 1, b b 2',
	'num 2 update 23514, num 3 update 23514');
$local->safe_psql('postgres', 'DELETE FROM num WHERE id = 3');
sync($local, 'office');
is(there('num'), 'a a 1', 'natural key, chain: what is deleted goes, what waits does not');
mended('natural key, chain', 'num', q{UPDATE num SET n = 5 WHERE id = 2}, 'a a 5');

# if what the other one was called is itself what fails, all else goes on
fill('num');
$local->safe_psql('postgres', q{UPDATE num SET name = n WHERE id <> 2});
sync($local, 'office');
$remote->safe_psql('postgres', 'ALTER TABLE num ALTER name TYPE int USING n');
refused('names', 'num', q{DELETE FROM num WHERE id = 2; UPDATE num SET id = 2, name = 5 WHERE id = 1; UPDATE num SET id = 1, name = 7 WHERE id = 3}, 'a 1 1, b 2 2, c 7 3', 'num 2 update 22P02');
mended('names', 'num', 'SELECT synchro.retry()', 'a 5 1, b 2 2, c 7 3', '2|extra');

$_->stop('fast') foreach $local, $remote;
done_testing();
