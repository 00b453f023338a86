# WHY: a base backup, a copied data directory, a state that was recovered: none of them differs from the original by anything that
# it has in itself, and all come with positions, references and ids that are also another's. So it is the remote that must
# notice, and say which of the two is older, since that decides what to do. And when somebody has decided, nothing may be
# missing: not what was changed here, not what a remote has lost, and not a row of the other's that happens to have the same id.
use strict;
use warnings;

use lib 'test/t';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $original = synchro_node('original', streaming => 1);
my $remote = synchro_node('remote', streaming => 1);

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
my $all = q{SELECT name, n FROM t UNION ALL SELECT what || ' of ' || name, n FROM r JOIN t ON t.id = r.t ORDER BY 1};

#
# copies of the local side
#
foreach my $how ('base backup', 'copied data directory')
{
	(my $name = $how) =~ s/\W/_/g;
	subtest "a $how beside the original" => sub {
		# something is pending when it is made
		$original->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('pending $name', 1); INSERT INTO r (what, t) VALUES ('pending $name', 1)");
		my $start = started_from($original, $name, $how);
		$original->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('of original $name', 1); INSERT INTO r (what, t) VALUES ('of original $name', 2); UPDATE t SET n = n + 1 WHERE name = 't3'");
		sync($original, 'office');
		my $copy = $start->();

		$copy->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('of copy $name', 1); INSERT INTO r (what, t) VALUES ('of copy $name', 3); UPDATE t SET n = n + 10 WHERE name = 't2'; DELETE FROM r WHERE what = 'r4'");
		is(rows($copy, "SELECT max(id) FROM r"), rows($original, 'SELECT max(id) FROM r'), 'both have given the same id');
		my $before = rows($remote, $all);
		sync_fails($copy, 'office',
			qr/55000.*not in the state that this database left it in.*DETAIL:  This database is the older side: the remote was brought further at 20.*HINT:  If this database is to push, run synchro\.confirm_node\(\): it goes on/s,
			'is refused, as the older side');
		is(rows($remote, $all), $before, 'nothing of it has arrived');
		$original->safe_psql('postgres', "UPDATE t SET n = n + 1 WHERE name = 't3'");
		is(sync($original, 'office')->{updated}, 1, 'the original goes on');

		$copy->safe_psql('postgres', 'SELECT synchro.confirm_node()');
		sync($copy, 'office');
		is(rows($remote, "SELECT count(*) FROM t WHERE name LIKE '%$name'"), '3', 'confirmed, all of both is there');
		is(rows($remote, "SELECT string_agg(what, '|' ORDER BY what) FROM r WHERE what LIKE '%$name'"), "of copy $name|of original $name|pending $name|pending $name",
			'and neither has taken a row of the other for its own: what was pending, and has no key but its id, is both\'s');
		is(rows($remote, q{SELECT n FROM t WHERE name = 't2'}), rows($copy, q{SELECT n FROM t WHERE name = 't2'}), 'what was changed in the copy, too');
		is(rows($remote, q{SELECT count(*) FROM r WHERE what = 'r4'}), '0', 'what was deleted there is gone');
		$copy->safe_psql('postgres', "UPDATE r SET what = what || '!' WHERE what IN ('of copy $name', 'r1'); UPDATE t SET n = n - 10 WHERE name = 't2'");
		$original->safe_psql('postgres', "UPDATE r SET what = what || '?' WHERE what = 'of original $name'");
		sync($copy, 'office');
		sync($original, 'office');
		is(rows($remote, "SELECT string_agg(what, '|' ORDER BY what) FROM r WHERE what LIKE '%$name%' OR what = 'r1!'"),
			"of copy $name!|of original $name?|pending $name|pending $name|r1!", 'later changes find their rows');
		$copy->safe_psql('postgres', "UPDATE r SET what = 'r1' WHERE what = 'r1!'");
		sync($copy, 'office');
		$copy->stop;
		# as the copy had it; for the next one to delete
		$original->safe_psql('postgres', q{DELETE FROM r WHERE what = 'r4'; INSERT INTO r (what, t) VALUES ('r4', 4)});
		sync($original, 'office');
	};
}

subtest 'a copy with a worker of its own, and nothing to push' => sub {
	my $copy = started_from($original, 'always_on', 'base backup')->();

	$original->safe_psql('postgres', "UPDATE t SET n = n + 1 WHERE name = 't3'");
	sync($original, 'office');
	my $before = rows($remote, $all);

	$copy->append_conf('postgresql.conf', "shared_preload_libraries = 'synchro'");
	$copy->restart;
	wait_for($copy, q{SELECT last_error ~ 'not in the state that this database left it in' AND attempts > 1 FROM synchro.remotes}, 'is held where it connects, and says so');
	$copy->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('of a copy that is held', 1)});
	wait_for($copy, q{SELECT attempts > 3 FROM synchro.remotes}, 'also when it has something');
	is(rows($remote, $all), $before, 'nothing of it has arrived');
	$copy->stop;
};

subtest 'the copy is faster' => sub {
	my $copy = started_from($original, 'faster', 'base backup')->();

	$copy->safe_psql('postgres', q{UPDATE t SET n = 50 WHERE name = 't4'});
	sync($copy, 'office');
	$original->safe_psql('postgres', q{UPDATE t SET n = 60 WHERE name = 't5'});
	sync_fails($original, 'office', qr/55000.*This database is the older side/s, 'then it is the original that is refused');
	$original->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	sync($original, 'office');
	is(rows($remote, q{SELECT n FROM t WHERE name = 't5'}), '60', 'confirmed, its changes arrive');
	$copy->safe_psql('postgres', q{UPDATE t SET n = 0 WHERE name = 't4'});
	is(sync($copy, 'office')->{updated}, 1, 'and the copy goes on');
	$copy->stop;
};

#
# copies of the remote side
#
# without what copies have made there
my $made_here = q{SELECT name, n FROM t WHERE name NOT LIKE '% copy %'
	UNION ALL SELECT what || ' of ' || name, n FROM r JOIN t ON t.id = r.t WHERE what NOT LIKE '% copy %' AND what NOT LIKE 'pending %' ORDER BY 1};

sub same_all
{
	my ($node, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(rows($node, $made_here), rows($original, $made_here), $testname);
}

foreach my $reaches (1, 0)
{
	subtest 'a remote that was restored' . ($reaches ? '' : ' to where the log does not reach back any more') => sub {
		my $start = started_from($remote, "restored_$reaches", 'base backup');

		$original->safe_psql('postgres', <<"SQL");
INSERT INTO t (name, n) VALUES ('lost $reaches', 1);
INSERT INTO r (what, t) VALUES ('lost $reaches', 1), ('lost and changed $reaches', 2);
UPDATE t SET name = 'renamed $reaches' WHERE name = 'of original base_backup' OR name = 'renamed 1';
DELETE FROM r WHERE what IN ('r2', 'r3') AND (what = 'r2') = ($reaches = 1);
SQL
		sync($original, 'office');
		$original->safe_psql('postgres', "UPDATE r SET what = 'changed $reaches' WHERE what = 'lost and changed $reaches'");
		sync($original, 'office');
		if (!$reaches)
		{
			$original->append_conf('postgresql.conf', 'synchro.log_retention = 0');
			$original->reload;
			$original->poll_query_until('postgres', q{SELECT (SELECT message IS NOT NULL FROM synchro.synchronize('office')) AND NOT EXISTS (SELECT FROM synchro.changes)})
			  or die 'the log is not truncated';
		}
		# what the worker looks at last is what it is told by the remote now
		$remote->stop;
		my $restored = $start->();
		my $port = $restored->port;

		$original->safe_psql('postgres', "ALTER SERVER office OPTIONS (SET port '$port')");
		$original->safe_psql('postgres', "UPDATE t SET n = n + 1 WHERE name = 't1'");
		my $hint = $reaches ? qr/what it has lost is pushed again\./ : qr/what the log still has is pushed again\. Then copy what the remote lacks/;
		sync_fails($original, 'office', qr/55000.*DETAIL:  The remote is the older side: it is as it was left at 20.*HINT:  If that is to be so, run synchro\.confirm_node\(\): $hint/s,
			'it is refused, as the older side');
		$original->safe_psql('postgres', 'SELECT synchro.confirm_node()');
		sync($original, 'office');
		if ($reaches)
		{
			same_all($restored, 'confirmed, it gets all that it has lost, and nothing twice');
		}
		else
		{
			is(rows($restored, q{SELECT count(*) FROM t WHERE name IN ('lost 0', 'renamed 0')}), '0', 'confirmed, it does not get what no log has any more');

			# as the hint says
			$original->safe_psql('postgres', q{SELECT synchro.copy_table('office', relation) FROM synchro.tables});
			sync($original, 'office');
			foreach my $row ([ t => 'name', 'lost 0' ], [ r => 'what', 'lost 0' ], [ r => 'what', 'changed 0' ], [ t => 'name', 'renamed 0' ])
			{
				my ($table, $column, $value) = @$row;

				is(rows($restored, "SELECT count(*) FROM $table WHERE $column = '$value'"), '1', "copied, '$value' of $table is there once");
			}

			# what was deleted or renamed since is in no log, either: that is for whoever looks for it
			my %more = map { $_ => 1 } split /\n/, rows($original, $made_here);
			my @there = split /\n/, rows($restored, $made_here);
			my @extra = grep { !delete $more{$_} } @there;

			is(join(', ', @extra), 'r3 of t3|5, renamed 1|1', 'and so is all else, but for what had gone here');
			is(join(', ', sort keys %more), '', 'and nothing is missing');
			is(rows($original, q{SELECT string_agg(DISTINCT difference, ' ') FROM synchro.verify('office')}), 'extra', 'which is what verify() says');
			is(rows($original, q{SELECT count(*) FROM synchro.verify('office', 't') WHERE key LIKE '%renamed 1%'}), '1', 'and it shows what it is');
		}
		is(rows($restored, q{SELECT n FROM t WHERE name = 't1'}), rows($original, q{SELECT n FROM t WHERE name = 't1'}), 'and what was changed meanwhile');
		$restored->stop;
		$remote->start;
		$port = $remote->port;
		$original->safe_psql('postgres', "ALTER SERVER office OPTIONS (SET port '$port')");
		$original->safe_psql('postgres', q{SELECT synchro.remove_remote('office'), synchro.add_remote('office')});
		$original->safe_psql('postgres', q{SELECT synchro.reset('office', keep_references => true)});
		sync($original, 'office');
	};
}

$_->stop('fast') foreach $original, $remote;
done_testing();
