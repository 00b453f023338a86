# WHY: what a node has pushed is not pushed back to it, and by what id it is known decides which that is. confirm_node() gives it
# another one while the other nodes are connected: all that it pushes as that would come back to it, and a row that has only an id
# as a new one, there twice.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({ preload => 1 }, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE notes (id serial PRIMARY KEY, t_id int REFERENCES t ON DELETE CASCADE, what text, n int);
SQL
$b->safe_psql('postgres', q{SELECT setval('t_id_seq', 1000), setval('notes_id_seq', 5000)});
watch([ $a, $b ], t => '{name}', notes => undef);
join_nodes($a, $b);

my $notes = q{SELECT what, notes.n, name FROM notes LEFT JOIN t ON t.id = t_id ORDER BY what, notes.n};

sub quiet
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $node ($a, $b, $a)
	{
		wait_for($node, q{SELECT pending = 0 AND failed = 0 AND state = 'idle' FROM synchro.remotes}, "$testname: it settles")
		  or diag(rows($node, 'SELECT * FROM synchro.remotes'));
	}
	return same($a, $b, $notes, "$testname: both are the same");
}

sub note_from
{
	my ($node, $other, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('postgres', "INSERT INTO notes (t_id, what, n) SELECT id, '$what', 0 FROM t");
	wait_arrival($other, "SELECT count(*) FROM notes WHERE what = '$what'", '1', "$what: arrives");
	quiet($what);
	return is(rows($node, "SELECT count(*) FROM notes WHERE what = '$what'"), '1', "$what: and does not come back");
}

$a->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('one')});
wait_arrival($b, 'SELECT count(*) FROM t', '1', 'a row arrives');
note_from($a, $b, 'first of a');
note_from($b, $a, 'first of b');

foreach my $confirmed ([ $a, $b ], [ $b, $a ])
{
	my ($node, $other) = @$confirmed;
	my $name = $node->name;

	# after reset() the first batch begins with more than others
	$other->safe_psql('postgres', "SELECT synchro.reset('$name', true)") if $node == $b;
	quiet("$name, before");
	$node->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	note_from($node, $other, "$name, confirmed, $_") foreach 1 .. 2;
	like(rows($other, 'SELECT last_error FROM synchro.remotes'), qr/^remote "$name" has become another node while it was connected/, "$name, confirmed: as is noticed");
	note_from($other, $node, "to $name, confirmed, $_") foreach 1 .. 2;
	$node->safe_psql('postgres', "UPDATE notes SET n = n + 1");
	wait_arrival($other, 'SELECT count(*) FROM notes WHERE n = 0', '0', "$name, confirmed: changes arrive");
	quiet("$name, confirmed");
	$other->safe_psql('postgres', "UPDATE notes SET n = 0");
	wait_arrival($node, 'SELECT count(*) FROM notes WHERE n <> 0', '0', "$name, confirmed: and come the other way");
	quiet("$name, confirmed, changed by the other");
}

$_->stop('fast') foreach $a, $b;
done_testing();
