# WHY: a batch may be large, and what both sides have done may be about all rows of a table: all have been renamed here and
# there, alike or not, or have handed on their names to each other. Then most rows of a batch lose, are found by names that the
# log has, or are in each other's way, and a statement that looks through the staged rows for each of these takes minutes where
# it takes a second otherwise. So it is counted how many staged rows are read.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my $rows = 3000;
my ($a, $b) = nodes({ preload => 1 }, 'a', 'b');

both($a, $b, <<"SQL");
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int);
INSERT INTO t (name, n) SELECT 'row ' || i, i FROM generate_series(1, $rows) i;
VACUUM ANALYZE t;
SQL
join_nodes($a, $b);
watch([ $a, $b ], t => '{name}');

# What a push has read and written in the staging tables of its session there, which stays.
my $staged = q{FROM pg_stat_all_tables WHERE schemaname ~ '^pg_temp' AND relname ~ '^[a-z]_[0-9]+$'};

sub pushes
{
	my ($from, $to, $testname) = @_;
	my $before = rows($to, "SELECT coalesce(sum(n_tup_ins), 0) $staged AND relname ~ '^m_'");
	my $read = rows($to, "SELECT coalesce(sum(seq_tup_read), 0) $staged");

	$from->safe_psql('postgres', 'SELECT synchro.resume(' . "'" . $to->name . "')");
	wait_for($from, 'SELECT pending = 0 FROM synchro.remotes', "$testname: nothing is pending");
	wait_for($to, "SELECT sum(n_tup_ins) >= $before + $rows $staged AND relname ~ '^m_'", "$testname: the remote has counted");
	$read = rows($to, "SELECT sum(seq_tup_read) $staged") - $read;
	note("$testname: $read");
	cmp_ok($read, '<', 1000 * $rows, "$testname: no staging table is read for each row");
	return;
}

sub pause
{
	$a->safe_psql('postgres', q{SELECT synchro.pause('b')});
	$b->safe_psql('postgres', q{SELECT synchro.pause('a')});
	return;
}

my $contents = 'SELECT name, n FROM t ORDER BY n, name';
my %rename = (
	'renamed alike' => [ q{UPDATE t SET name = name || 'x'}, q{UPDATE t SET name = name || 'x'} ],
	'renamed differently' => [ q{UPDATE t SET name = name || 'y'}, q{UPDATE t SET name = name || 'z'} ],
	'some renamed alike' => [ q{UPDATE t SET name = name || 'v'}, q{UPDATE t SET name = name || CASE WHEN n % 2 = 0 THEN 'v' ELSE 'w' END} ]);

pause();
$a->safe_psql('postgres', <<"SQL");
BEGIN;
UPDATE t SET name = '-' || n;
UPDATE t SET name = 'row ' || (n % $rows + 1);
COMMIT;
SQL
pushes($a, $b, 'names handed on');
same($a, $b, $contents, 'names handed on: both are the same');

pause();
foreach my $what (sort keys %rename)
{
	$a->safe_psql('postgres', $rename{$what}->[0]);
	$b->safe_psql('postgres', $rename{$what}->[1]);
	pushes($a, $b, "$what, to the one that was later");
	pushes($b, $a, "$what, to the one that was sooner");
	wait_for($_, 'SELECT pending = 0 FROM synchro.remotes', "$what: nothing is pending") foreach $a, $b;
	same($a, $b, $contents, "$what: both are the same");
	pause();
}

$_->stop('fast') foreach $a, $b;
done_testing();
