# WHY: before a node has for good what it makes anew, what follows these rows is logged where they come from, and the batch is sent
# again. Whether that is done already is told by what the node says of them: if it says the same in another order each time,
# the batch is withdrawn for ever. The order is that of hash joins, which changes from one try to the next if they do not fit
# into memory, as many rows do not; here they are few, and so is the memory.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({ conf => "work_mem = 64kB\nautovacuum = off\nsynchro.batch_size = 3000\n" }, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int);
CREATE TABLE u (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int);
INSERT INTO t (name, n) SELECT 'row ' || i, i FROM generate_series(1, 3000) i;
INSERT INTO u (name, n) SELECT 'row ' || i, i FROM generate_series(1, 3000) i;
SQL
join_nodes($a, $b);
watch([ $a, $b ], t => '{name}', u => '{name}');

# both say the same of all names; the names of the one table go along with the rows of the other
both($a, $b, q{UPDATE t SET name = name || 'x'; UPDATE u SET name = name || 'x'});
is(sync($a, 'b')->{skipped}, 6000, 'what was said sooner loses');

my $log = length slurp_file($a->logfile);
my ($status, undef, $errors) = $b->psql('postgres', q{SET statement_timeout = '10min'; SELECT synchro.synchronize('a')});
my $withdrawn = () = slurp_file($a->logfile, $log) =~ /statement: ROLLBACK$/mg;

is($status, 0, 'what was said later arrives') or diag($errors);
cmp_ok($withdrawn, '<=', 4, "and $withdrawn batches were withdrawn");
settle($a, $b);
same($a, $b, "SELECT name, n FROM $_ ORDER BY name", "both have the same in $_") foreach 't', 'u';

$_->stop('fast') foreach $a, $b;
done_testing();
