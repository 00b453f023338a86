# WHY: a node that is restored from a backup is the older side of every way, of what it pushes and of what is pushed to it. What it
# had changed itself since the backup is nowhere but on the others, what they had changed it has lost, and both have to come back
# by nothing else than that it is said which side is to go on. The same for a copy of a remote's files, made while it was stopped.
use strict;
use warnings;

use lib 'test/t';
use Nodes qw(:DEFAULT on);
use SynchroTest;
use Test::More;

my $all = q{SELECT 't ' || name, n FROM t UNION ALL SELECT 'c ' || c.name || ' of ' || t.name, c.n FROM c JOIN t ON t.id = c.t_id ORDER BY 1};

foreach my $how ('base backup', 'copied data directory')
{
	(my $word = $how) =~ s/\W.*//;
	my ($a, $b) = nodes({ streaming => 1 }, "a_$word", "b_$word");

	both($a, $b, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE c (id serial PRIMARY KEY, t_id int NOT NULL REFERENCES t ON DELETE CASCADE, name text NOT NULL, n int, UNIQUE (t_id, name));
SQL
	$b->safe_psql('postgres', q{SELECT setval('t_id_seq', 1000), setval('c_id_seq', 5000)});
	watch([ $a, $b ], t => '{name}', c => '{t_id,name}');
	join_nodes($a, $b);
	on($a, q{INSERT INTO t (name, n) SELECT 't' || i, 0 FROM generate_series(1, 6) i; INSERT INTO c (t_id, name, n) SELECT id, 'x', 0 FROM t});
	settle($a, $b);

	# something is pending when it is made
	on($b, q{UPDATE t SET n = 1 WHERE name = 't6'});
	my $start = started_from($b, "restored_$word", $how);

	on($a, q{INSERT INTO t (name, n) VALUES ('of a', 1)}, q{UPDATE t SET n = 2 WHERE name = 't1'}, q{UPDATE t SET name = 'renamed by a' WHERE name = 't4'});
	on($b, q{INSERT INTO t (name, n) VALUES ('of b', 1)}, q{INSERT INTO c (t_id, name, n) SELECT id, 'of b', 1 FROM t WHERE name IN ('t1', 'of b')},
		q{UPDATE t SET n = 2 WHERE name = 't2'}, q{DELETE FROM t WHERE name = 't3'}, q{UPDATE t SET name = 'renamed by b' WHERE name = 't5'});
	settle($a, $b);
	same($a, $b, $all, "$how: both are the same before");

	# b comes back as it was, and goes on
	$b->stop;
	my $restored = $start->();
	my $port = $restored->port;
	on($a, "ALTER SERVER b_$word OPTIONS (SET port '$port')", q{UPDATE t SET n = n + 1 WHERE name = 't1'});
	on($restored, q{INSERT INTO t (name, n) VALUES ('of b again', 1)}, q{UPDATE c SET n = 7 WHERE t_id = (SELECT id FROM t WHERE name = 't6')});
	sync_fails($a, "b_$word", qr/55000.*DETAIL:  The remote is the older side/s, "$how: the other node sees that it is older");
	sync_fails($restored, "a_$word", qr/55000.*DETAIL:  This database is the older side/s, "$how: and so does it itself");
	is(rows($a, q{SELECT count(*) FROM t WHERE name = 'of b again'}), '0', "$how: nothing is pushed by it");

	# as README says: there first
	on($_, 'SELECT synchro.confirm_node()') foreach $restored, $a;
	settle($restored, $a);
	same($a, $restored, $all, "$how: confirmed, both are the same");
	is(rows($restored, q{SELECT string_agg(name || ' ' || n, ', ' ORDER BY name) FROM t}), 'of a 1, of b 1, of b again 1, renamed by a 0, renamed by b 0, t1 3, t2 2, t6 1',
		"$how: and have all that was changed on either, before and after");
	is(rows($restored, q{SELECT string_agg(t.name || ' ' || c.name || ' ' || c.n, ', ' ORDER BY t.name, c.name) FROM c JOIN t ON t.id = c.t_id}),
		'of b of b 1, renamed by a x 0, renamed by b x 0, t1 of b 1, t1 x 0, t2 x 0, t6 x 7', "$how: also below");
	on($a, q{UPDATE t SET n = 10 WHERE name = 'of b'});
	on($restored, q{DELETE FROM t WHERE name = 'of a'});
	settle($a, $restored);
	same($a, $restored, $all, "$how: and go on");
	$_->stop('fast') foreach $a, $restored;
}
done_testing();
