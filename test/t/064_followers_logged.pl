# WHY: what follows a row that the remote had to make anew is known from the answer to that batch alone. If the worker dies
# when it has the answer, or before it comes, the remote must not be left with the row, and without what follows it.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({ preload => 1 }, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE, n int);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text, UNIQUE (parent_id, name));
SQL
join_nodes($a, $b);
watch([$a, $b], parent => '{name}', child => '{parent_id,name}');
my $all = q{SELECT p.name, p.n, c.name FROM parent p LEFT JOIN child c ON c.parent_id = p.id ORDER BY 1, 3};

$a->safe_psql('postgres', q{INSERT INTO parent (name, n) VALUES ('p', 1); INSERT INTO child (parent_id, name) VALUES (1, 'x'), (1, 'y')});
wait_arrival($b, $all, "p|1|x\np|1|y", 'a parent and its children');
wait_quiet($_) foreach $a, $b;

# deleted there, then changed here, before either hears of the other
$a->safe_psql('postgres', q{SELECT synchro.pause('b')});
$b->safe_psql('postgres', q{SELECT synchro.pause('a')});
$b->safe_psql('postgres', q{DELETE FROM parent});
$a->safe_psql('postgres', q{UPDATE parent SET n = 2});

my $holder = $a->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE child');
$a->safe_psql('postgres', q{SELECT synchro.resume('b')});
wait_for($a, q{SELECT count(*) = 1 FROM pg_locks l JOIN pg_stat_activity s USING (pid) WHERE l.relation = 'child'::regclass AND NOT l.granted
	AND s.backend_type = 'synchro pusher' AND s.query LIKE '%rows that follow%'}, 'the worker is about to log what follows the parent');
is(rows($b, 'SELECT count(*) FROM parent'), '0', 'the remote does not have that yet');
is(rows($b, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'sync' AND state LIKE 'idle in transaction%'}), '0', 'and holds no locks');
$a->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'synchro pusher'});
$holder->query_safe('COMMIT');
$holder->quit;
wait_arrival($b, $all, "p|2|x\np|2|y", 'the next worker sends all of it');
$b->safe_psql('postgres', q{SELECT synchro.resume('a')});
wait_quiet($_) foreach $a, $b;
same($a, $b, $all, 'both sides are the same');

$_->stop('fast') foreach $a, $b;
done_testing();
