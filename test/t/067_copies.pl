# WHY: a copy of a node has its identity, its log and its remotes. If it pushed, or were pushed to, as the node that it was copied
# from, the others would take its changes for that one's: some would be missing on them, some there twice. So a copy is held
# until somebody says that it is a node of its own, however it was made.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({ streaming => 1 }, 'a', 'b');

both($a, $b, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int)');
join_nodes($a, $b);
watch([ $a, $b ], t => '{name}');
my $all = 'SELECT name, n FROM t ORDER BY name';

$a->safe_psql('postgres', q{INSERT INTO t (name, n) SELECT 'row ' || i, 0 FROM generate_series(1, 10) i});
settle($a, $b);
my $id = rows($a, 'SELECT id FROM synchro.node');

foreach my $way ('template', 'dump')
{
	subtest "a copy made by $way" => sub {
		# something that is pending is copied, too
		$a->safe_psql('postgres', "UPDATE t SET n = n + 1 WHERE name = 'row 1'");
		if ($way eq 'template')
		{
			$a->safe_psql('template1', 'CREATE DATABASE template TEMPLATE postgres');
		}
		else
		{
			my $file = $a->basedir . '/dump.sql';

			$a->safe_psql('template1', 'CREATE DATABASE dump');
			$a->command_ok([ 'pg_dump', '-d', $a->connstr('postgres'), '-f', $file ], 'pg_dump');
			$a->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $a->connstr('dump'), '-f', $file ], 'and psql');
		}
		is(rows($a, 'SELECT state FROM synchro.node', $way), 'held', 'is held');
		is(rows($a, 'SELECT state FROM synchro.node'), 'active', 'the original is not');
		$a->safe_psql($way, "UPDATE t SET n = 100 WHERE name = 'row 2'");
		my (undef, undef, $stderr) = $a->psql($way, 'SELECT synchro.synchronize()');
		like($stderr, qr/is a copy and does not push/, 'it pushes nothing');

		# B is told to push to the copy
		grant_dml($a, dbname => $way);
		$a->safe_psql($way, q{SELECT synchro.allow_peer('sync')});
		connect_remote($b, $a, name => "copy_$way", remote_db => $way, peer => 'none');
		$b->safe_psql('postgres', "UPDATE t SET n = 3 WHERE name = 'row 3'");
		sync_fails($b, "copy_$way", qr/55000.*is a copy that is held/s, 'it does not take what is pushed to it');
		settle($a);
		is(rows($b, q{SELECT n FROM t WHERE name = 'row 2'}), '0', 'what was changed in the copy is not on B');

		# let go
		$a->safe_psql($way, 'SELECT synchro.confirm_node()');
		is(rows($a, 'SELECT state FROM synchro.node', $way), 'active', 'confirmed, it is a node');
		isnt(rows($a, 'SELECT id FROM synchro.node', $way), $id, 'under an id of its own');
		is(rows($a, 'SELECT id FROM synchro.node'), $id, 'the original keeps its own');
		foreach my $round (1 .. 3)
		{
			sync($b);
			sync($a);
			sync($a, undef, dbname => $way);
		}
		is(rows($b, q{SELECT count(*), count(DISTINCT name) FROM t}), '10|10', 'B has no row twice');
		same($a, $b, $all, 'B and the original are the same');
		same($a, $b, $all, 'B and the copy are the same', local_db => $way);
		is(rows($b, q{SELECT n FROM t WHERE name = 'row 2'}), '100', 'what was changed in the copy has arrived');
		$a->safe_psql($way, q{UPDATE t SET n = 0 WHERE name = 'row 2'; DELETE FROM t WHERE name = 'row 3'});
		$b->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('row 3 of $way', 1)");
		foreach my $round (1 .. 3)
		{
			sync($a, undef, dbname => $way);
			sync($b);
			sync($a);
		}
		same($a, $b, $all, 'later changes reach all of them');
		same($a, $b, $all, 'both ways', local_db => $way);
		$b->safe_psql('postgres', "DELETE FROM t WHERE name = 'row 3 of $way'; INSERT INTO t (name, n) VALUES ('row 3', 0)");
		sync($b);
		$b->safe_psql('postgres', "SELECT synchro.remove_remote('copy_$way')");
		settle($a, $b);
	};
}

#
# A base backup cannot be told from its original by what it is, but by what the remote has got since.
#
subtest 'a node that is restored from a base backup' => sub {
	both($a, $b, 'CREATE TABLE nameless (id serial PRIMARY KEY, what text)');
	$b->safe_psql('postgres', q{SELECT setval('nameless_id_seq', 1000)});
	watch([ $a, $b ], nameless => undef);
	my $both = q{SELECT 't', name, n FROM t UNION ALL SELECT 'nameless', what, NULL FROM nameless ORDER BY 1, 2};

	$a->safe_psql('postgres', q{INSERT INTO nameless (what) SELECT 'row ' || i FROM generate_series(1, 5) i});
	settle($a, $b);
	$a->backup('backup');
	$a->safe_psql('postgres', q{UPDATE t SET n = 7 WHERE name = 'row 7'; UPDATE nameless SET what = what || ', lost' WHERE what = 'row 4'});
	settle($a, $b);
	$a->stop('fast');

	my $restored = PostgreSQL::Test::Cluster->new('restored');

	$restored->init_from_backup($a, 'backup');
	$restored->start;
	$restored->safe_psql('postgres', q{UPDATE t SET n = 100 WHERE name = 'row 5'; UPDATE nameless SET what = 'row 5, changed' WHERE what = 'row 5';
		INSERT INTO nameless (what) VALUES ('row 6')});
	sync_fails($restored, 'b', qr/55000.*is not in the state that this database left it in/s, 'it pushes nothing');
	is(rows($b, q{SELECT n FROM t WHERE name = 'row 5'}), '0', 'indeed nothing');
	$restored->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	isnt(rows($restored, 'SELECT id FROM synchro.node'), $id, 'confirmed, it is a node with an id of its own');

	# B goes on with it
	$b->safe_psql('postgres', 'ALTER SERVER a OPTIONS (SET port \'' . $restored->port . '\')');
	settle($restored);
	is(rows($b, q{SELECT n FROM t WHERE name = 'row 5'}), '100', 'what was changed in it arrives');
	is(rows($b, q{SELECT count(*), count(DISTINCT name) FROM t}), '10|10', 'B has no row twice');
	is(rows($b, q{SELECT string_agg(what, '; ' ORDER BY what) FROM nameless}), 'row 1; row 2; row 3; row 4, lost; row 5, changed; row 6',
		'nor one without a natural key');
	$restored->stop('fast');
};

$b->stop('fast');
done_testing();
