# WHY: synchro.conflicts keeps which row a change has lost about as text. That was written with the settings of the role that pushed, and
# undo() read it with those of its caller: 01/06/2024 is another day to him, and it was another row that was deleted, on all nodes.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, 'CREATE TABLE daily (day date PRIMARY KEY, n int); CREATE TABLE note (name text PRIMARY KEY, j jsonb NOT NULL, took interval)');
join_nodes($a, $b);
watch([ $a, $b ], daily => undef, note => undef);
$b->safe_psql('postgres', q{ALTER ROLE sync SET datestyle = 'SQL, DMY'; ALTER ROLE sync SET intervalstyle = 'sql_standard'});

$a->safe_psql('postgres', q{INSERT INTO daily VALUES ('2024-06-01', 1), ('2024-01-06', 1)});
settle($a, $b);
$a->safe_psql('postgres', q{DELETE FROM daily WHERE day = '2024-06-01'});
$b->safe_psql('postgres', q{UPDATE daily SET n = 2 WHERE day = '2024-06-01'});
settle($a, $b);
is(rows($b, 'SELECT winner, loser IS NULL FROM synchro.conflicts'), 'local|t', 'a delete has lost');
$b->safe_psql('postgres', q{SET datestyle = 'ISO, MDY'; SELECT synchro.undo(max(id)) FROM synchro.conflicts});
settle($a, $b);
is(rows($_, q{SELECT to_char(day, 'YYYY-MM-DD') FROM daily ORDER BY 1}), '2024-01-06', 'undone, that row is gone and no other on ' . $_->name) foreach $a, $b;

# values of the loser: an interval, and JSON's null, which is a value
$b->safe_psql('postgres', 'TRUNCATE synchro.conflict');
$a->safe_psql('postgres', q{INSERT INTO note VALUES ('x', '1', '1 day')});
settle($a, $b);
$a->safe_psql('postgres', q{UPDATE note SET j = 'null', took = '-1 day -02:03:04'});
$b->safe_psql('postgres', q{UPDATE note SET j = '2', took = '1 hour'});
settle($a, $b);
is(rows($b, 'SELECT winner FROM synchro.conflicts'), 'local', 'an update has lost');
is($b->psql('postgres', 'SELECT synchro.undo(max(id)) FROM synchro.conflicts'), 0, 'it is undone, though it has JSON\'s null in a column that must not be NULL');
settle($a, $b);
is(rows($_, q{SELECT j, extract(epoch FROM took)::int FROM note}), 'null|-93784', 'with the values that it had on ' . $_->name) foreach $a, $b;

$_->stop('fast') foreach $a, $b;
done_testing();
