# WHY: a transaction that changes much writes to the log before it commits, with the time of then, and says at its end when that was.
# A node that decides which of two changes is newer has to find such entries, too, though they were written before the other change
# was made; and there may be many of them.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int)');
join_nodes($a, $b);
watch([ $a, $b ], t => '{name}');
$a->safe_psql('postgres', q{INSERT INTO t (name, n) SELECT 'row ' || i, 0 FROM generate_series(1, 20000) i});
settle($a, $b);

# begun before the others' changes, and committed after
my $session = $b->background_psql('postgres');
$session->query_safe(q{LOAD 'synchro'; SET synchro.buffer_size = '64kB'});
my $all = 0;
foreach my $transactions (1, 50)
{
	$session->query_safe(q{BEGIN; UPDATE t SET n = 1});
	$a->safe_psql('postgres', q{UPDATE t SET n = 2 WHERE name IN ('row 1', 'row 10000', 'row 20000')});
	$session->query_safe('COMMIT');

	# and more of them, all about the same
	$session->query_safe(q{DO $$ BEGIN FOR i IN 2 .. } . $transactions . q{ LOOP UPDATE t SET n = 1; COMMIT; END LOOP; END $$});
	is(rows($b, q{SELECT count(*) FROM (TABLE synchro.log_0 UNION ALL TABLE synchro.log_1 UNION ALL TABLE synchro.log_2) l WHERE relation = 0}),
		$all += $transactions, 'all have written before they committed');
	my $result = sync($a, 'b');

	is($result->{skipped}, 3, "of $transactions: what was committed last wins");
	settle($a, $b);
	is(rows($_, 'SELECT count(*), min(n), max(n) FROM t'), '20000|1|1', "of $transactions: " . $_->name . ' has it') foreach $a, $b;
}
$session->quit;

$_->stop('fast') foreach $a, $b;
done_testing();
