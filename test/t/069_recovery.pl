# WHY: recovery to an earlier point is what one does after a mistake, so in a hurry: the database comes back as it was at three
# o'clock, in place of the one that went on until four, or beside it to look something up. Its log, its position and its
# sequences are those of three o'clock, and the remote has seen four o'clock. If it simply went on, what was changed after
# three would be taken for pushed, and rows that get the same ids once more for those that the remote has. So it is held,
# and when it has been confirmed, nothing is missing of either past.
use strict;
use warnings;

use lib 'test/t';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my %archived = map { my $node = synchro_node($_, streaming => 1, start => 0); $node->enable_archiving; $node->start; ($_ => $node) } 'original', 'remote';
my ($original, $remote) = @archived{ 'original', 'remote' };

both($original, $remote, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE r (id serial PRIMARY KEY, what text, t int REFERENCES t);
SQL
$remote->safe_psql('postgres', q{SELECT setval('t_id_seq', 1000), setval('r_id_seq', 5000)});
connect_remote($original, $remote);
$original->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t', '{name}'), synchro.add_table('r');
INSERT INTO t (name, n) SELECT 't' || i, 0 FROM generate_series(1, 5) i;
INSERT INTO r (what, t) SELECT 'r' || i, i FROM generate_series(1, 5) i;
SQL
sync($original, 'office');
$_->backup('base') foreach $original, $remote;

# A server that is recovered from the base backup and the archive up to a point.
sub recovered
{
	my ($node, $name, $target) = @_;
	my $segment = rows($node, 'SELECT pg_walfile_name(pg_switch_wal())');
	my $copy = PostgreSQL::Test::Cluster->new($name);

	$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver") or die 'WAL is not archived';
	return sub {
		$copy->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
		$copy->append_conf('postgresql.conf', "archive_mode = off\nrecovery_target_action = promote\n$target\n");
		$copy->start;
		$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery does not end';
		return $copy;
	};
}

# Whatever was changed before the point, and after it, pushed and not.
sub two_pasts
{
	my ($name) = @_;

	$original->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('before $name', 1); INSERT INTO r (what, t) VALUES ('before $name', 1); UPDATE t SET n = n + 1 WHERE name = 't1'");
	sync($original, 'office');
	$original->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('pending $name', 1)");
	my $time = rows($original, "SELECT pg_create_restore_point('$name') IS NOT NULL, clock_timestamp()") =~ s/^t\|//r;
	$original->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('after $name', 1); INSERT INTO r (what, t) VALUES ('after $name', 2); UPDATE t SET n = n + 1 WHERE name = 't3'; DELETE FROM r WHERE what = 'before $name'");
	sync($original, 'office');
	return $time, rows($original, "SELECT id FROM r WHERE what = 'after $name'");
}

# The copy is held, and when it is confirmed, what it changes arrives, and nothing of the other past is touched. $id: of the row
# that was inserted after that point; one of the copy's has it, too. (Recovery has sequences skip a few.)
sub held_and_confirmed
{
	my ($copy, $name, $id) = @_;

	is(rows($copy, "SELECT count(*) FROM t WHERE name IN ('before $name', 'pending $name', 'after $name')"), '2', 'it is as it was at that point');
	$copy->safe_psql('postgres', <<"SQL");
INSERT INTO t (name, n) VALUES ('then $name', 1);
INSERT INTO r (id, what, t) VALUES ($id, 'then $name', 3);
UPDATE t SET n = 100 + n WHERE name IN ('t2', 'before $name');
UPDATE r SET what = 'r1 $name' WHERE what LIKE 'r1%';
SQL
	my $before = rows($remote, 'SELECT name, n FROM t ORDER BY 1') . rows($remote, 'SELECT id, what, t FROM r ORDER BY 1');

	sync_fails($copy, 'office',
		qr/55000.*not in the state that this database left it in.*DETAIL:  This database is the older side: the remote was brought further at 20.*HINT:  If this database is to push, run synchro\.confirm_node\(\): it goes on/s,
		'it is refused, as the older side');
	is(rows($copy, 'SELECT state FROM synchro.node'), 'active', 'it cannot know by itself');
	is(rows($remote, 'SELECT name, n FROM t ORDER BY 1') . rows($remote, 'SELECT id, what, t FROM r ORDER BY 1'), $before, 'nothing of it has arrived');
	$copy->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	is(sync($copy, 'office')->{failed}, 0, 'confirmed, it pushes');
	is(rows($remote, "SELECT name FROM t WHERE name LIKE '% $name' ORDER BY 1"), "after $name\nbefore $name\npending $name\nthen $name", 'all of both pasts is there');
	is(rows($remote, "SELECT what FROM r WHERE what LIKE '% $name' ORDER BY 1"), "after $name\nr1 $name\nthen $name", 'rows without a natural key are not taken for each other');
	is(rows($remote, "SELECT t.name FROM r JOIN t ON t.id = r.t WHERE what = 'then $name'"), 't3', 'they refer to what they did');
	is(rows($remote, "SELECT name, n FROM t WHERE name IN ('t2', 'before $name') ORDER BY 1"),
		rows($copy, "SELECT name, n FROM t WHERE name IN ('t2', 'before $name') ORDER BY 1"), 'what was changed in it has arrived');
	$copy->safe_psql('postgres', "UPDATE r SET what = 'later $name' WHERE what = 'then $name'; UPDATE t SET n = 7 WHERE name = 'then $name'; DELETE FROM t WHERE name = 'pending $name'");
	sync($copy, 'office');
	is(rows($remote, "SELECT what FROM r WHERE what IN ('then $name', 'later $name', 'after $name') ORDER BY 1"), "after $name\nlater $name", 'later changes find their rows');
	is(rows($remote, "SELECT name FROM t WHERE name LIKE '% $name' ORDER BY 1"), "after $name\nbefore $name\nthen $name", 'and deletes');
	return;
}

subtest 'beside the original, by time' => sub {
	my ($time, $id) = two_pasts('beside');
	my $copy = recovered($original, 'beside', "recovery_target_time = '$time'")->();

	held_and_confirmed($copy, 'beside', $id);
	$original->safe_psql('postgres', q{UPDATE r SET what = 'original' WHERE what = 'after beside'; UPDATE t SET n = 300 WHERE name = 't3'; INSERT INTO t (name, n) VALUES ('of the original', 1)});
	is(sync($original, 'office')->{failed}, 0, 'the original goes on');
	is(rows($remote, q{SELECT what FROM r WHERE what IN ('after beside', 'original', 'later beside') ORDER BY 1}), "later beside\noriginal", 'and finds its rows');
	is(rows($remote, q{SELECT n FROM t WHERE name IN ('t3', 'of the original') ORDER BY 1}), "1\n300", 'with what it has changed');
	$copy->stop('fast');
};

subtest 'a remote in place of itself, by name' => sub {
	$original->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('kept', 1); INSERT INTO r (what, t) VALUES ('kept', 1)});
	sync($original, 'office');
	$remote->safe_psql('postgres', q{SELECT pg_create_restore_point('remote')});
	$original->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('lost', 1); INSERT INTO r (what, t) VALUES ('lost', 2); UPDATE r SET what = 'kept!' WHERE what = 'kept'});
	sync($original, 'office');
	$original->safe_psql('postgres', q{UPDATE r SET what = 'lost!' WHERE what = 'lost'; UPDATE t SET name = 'kept!' WHERE name = 'kept'});
	sync($original, 'office');
	my $start = recovered($remote, 'restored_remote', q{recovery_target_name = 'remote'});

	$remote->stop('fast');
	my $restored = $start->();
	is(rows($restored, q{SELECT what FROM r WHERE what LIKE 'kept%' OR what LIKE 'lost%'}), 'kept', 'it is as it was at that point');
	$original->safe_psql('postgres', q{ALTER SERVER office OPTIONS (SET port '} . $restored->port . q{')});
	$original->safe_psql('postgres', q{UPDATE t SET n = 5 WHERE name = 't5'});
	sync_fails($original, 'office', qr/55000.*DETAIL:  The remote is the older side: it is as it was left at 20.*HINT:  If that is to be so, run synchro\.confirm_node\(\): what it has lost is pushed again\./s,
		'it is refused, as the older side');
	is(rows($restored, q{SELECT n FROM t WHERE name = 't5'}), '0', 'nothing has arrived');
	$original->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	is(sync($original, 'office')->{failed}, 0, 'confirmed, it is pushed to');
	is(rows($restored, q{SELECT what FROM r WHERE what LIKE 'kept%' OR what LIKE 'lost%' ORDER BY 1}), "kept!\nlost!", 'what it has lost is there again, once');
	is(rows($restored, q{SELECT name, n FROM t WHERE name LIKE 'kept%' OR name LIKE 'lost%' OR name = 't5' ORDER BY 1}), "kept!|1\nlost|1\nt5|5", 'and what was changed meanwhile');
	$restored->stop('fast');
	$remote->start;
	$original->safe_psql('postgres', q{ALTER SERVER office OPTIONS (SET port '} . $remote->port . q{')});
	$original->safe_psql('postgres', q{SELECT synchro.remove_remote('office'), synchro.add_remote('office'), synchro.reset('office', keep_references => true)});
	sync($original, 'office');
};

subtest 'in place of the original, by name' => sub {
	my (undef, $id) = two_pasts('place');
	my $start = recovered($original, 'place', q{recovery_target_name = 'place'});

	$original->stop('fast');
	held_and_confirmed($start->(), 'place', $id);
};

$remote->stop('fast');
done_testing();
