# WHY: rows that a node is sent, and which are as the sender wants them already, are logged at the end of the transaction one by one,
# in the order of a hash table, so tables take turns. A transaction may have 65,536 tables in its buffer, and a table that comes again
# must not count once more: or else a script that two nodes have run on large tables, such as a migration, ends all pushing between
# them, as renames are not divided over batches. What the pushing node calls is called by hand here, which is a matter of seconds.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $node = synchro_node('node');
my $n = 70000;
my $apply = join "\n", map {
	"SELECT count(synchro.peer_apply('public.$_', i, s, o, f, t)) FROM (SELECT array_agg('{' || g || '}'), array_agg(g::bigint), array_agg(other_node.id), array_agg(false), array_agg(true)"
	  . " FROM generate_series(1, $n) g, other_node) a (i, s, o, f, t);"
} qw(x y);

$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION synchro;
CREATE TABLE x (code int PRIMARY KEY);
CREATE TABLE y (code int PRIMARY KEY);
CREATE TABLE other_node AS SELECT gen_random_uuid() AS id;
SET client_min_messages = error;
SELECT synchro.add_table('x'), synchro.add_table('y');
SQL
my ($status, undef, $stderr) = $node->psql('postgres', "BEGIN; SELECT synchro.peer_begin((SELECT id FROM other_node), NULL, 0, NULL, true); $apply COMMIT", on_error_stop => 1);

is($status, 0, 'rows of two tables that are so already, many times in turns') or diag($stderr);
is(rows($node, 'SELECT relation, count(*), count(DISTINCT key) FROM synchro.changes GROUP BY 1 ORDER BY 1'), "x|$n|$n\ny|$n|$n", 'all of them are logged');

done_testing();
