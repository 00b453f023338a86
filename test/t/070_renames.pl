# WHY: rows that were renamed, and are refused by their new names, are looked for one by one, and each look takes all that come before.
# Where a whole table was renamed to what the remote does not allow that took hours, at each retry again, and everything else
# waited behind it.
use strict;
use warnings;

use lib 'test/t';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE item (id serial PRIMARY KEY, code text NOT NULL UNIQUE, n int);
CREATE TABLE other (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
SQL
$remote->safe_psql('postgres', q{SELECT setval('item_id_seq', 100000)});
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('item', '{code}'), synchro.add_table('other', '{name}');
INSERT INTO item (code, n) SELECT i, i FROM generate_series(1, 1000) i;
SQL
sync($local, 'office');
my $all = 'SELECT code, n FROM item ORDER BY n';
my $ids = rows($remote, 'SELECT id, n FROM item ORDER BY n');

# Changes, and a row of another table, in a pass: what fails, what else arrives, and how many batches that took.
sub pass
{
	my ($testname, $change, $failed, $most) = @_;
	my $from = -s $remote->logfile;

	$local->safe_psql('postgres', $change);
	$local->safe_psql('postgres', "INSERT INTO other (name) VALUES ('$testname')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sync($local, 'office')->{failed}, $failed, "$testname: so many fail");
	my $batches = () = slurp_file($remote->logfile, $from) =~ /statement: BEGIN;SET CONSTRAINTS ALL DEFERRED/g;
	cmp_ok($batches, '<', $most, "$testname: found by $batches batches");
	is(rows($remote, "SELECT count(*) FROM other WHERE name = '$testname'"), 1, "$testname: a row of another table arrives");
	return;
}

# The cause is mended, and nothing is left of it.
sub mended
{
	my ($testname, $side, $mend) = @_;

	$side->safe_psql('postgres', $mend);
	$local->safe_psql('postgres', 'SELECT synchro.retry()');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sync($local, 'office')->{failed}, 0, "$testname: mended, all arrives");
	same($local, $remote, $all, "$testname: by the new names");
	is(rows($remote, 'SELECT id, n FROM item ORDER BY n'), $ids, "$testname: each row is the one that it was");
	return;
}

my $check = q{ALTER TABLE item ADD CONSTRAINT digits CHECK (code ~ '^[0-9]+$')};

# some
$remote->safe_psql('postgres', $check);
pass('some', q{UPDATE item SET code = CASE WHEN n % 20 = 7 THEN 'X' || code ELSE 10000 + n || '' END}, 50, 20 + 20 * 50);
is(rows($remote, 'SELECT count(*) FROM item WHERE code::int > 10000'), 950, 'some: the others arrive in the same pass');
is(rows($local, 'SELECT count(*), count(DISTINCT message), min(operation), min(sqlstate) FROM synchro.failures'), '50|1|update|23514', 'some: each with its reason');
mended('some', $remote, 'ALTER TABLE item DROP CONSTRAINT digits');
$local->safe_psql('postgres', 'UPDATE item SET code = n');
sync($local, 'office');

# all
$remote->safe_psql('postgres', $check);
pass('all', q{UPDATE item SET code = 'X' || code}, 1000, 500);
is(rows($local, q{SELECT count(*), count(DISTINCT message), min(sqlstate), max(sqlstate) FROM synchro.failures}), '1000|1|23514|23514', 'all: each with its reason');
is(rows($remote, 'SELECT count(*) FROM item WHERE code::int = n'), 1000, 'all: they are what they were there');
mended('all', $remote, 'ALTER TABLE item DROP CONSTRAINT digits');

# so many, and then some that are good
$remote->safe_psql('postgres', q{ALTER TABLE item ADD CONSTRAINT digits CHECK (code !~ '^Y')});
pass('many', q{UPDATE item SET code = CASE WHEN n <= 500 THEN 'Y' ELSE 'Z' END || n}, 1000, 3500);
mended('many', $local, q{UPDATE item SET code = n});

$_->stop('fast') foreach $local, $remote;
done_testing();
