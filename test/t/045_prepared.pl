# WHY: what a transaction does about remotes counts from its commit on, also where that is a COMMIT PREPARED, which knows nothing of
# what was done. A remote that was added or resumed so was never served. And while all remotes are paused nobody pushes, but the
# log is to be kept short all the same.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => "synchronous_commit = off\nmax_prepared_transactions = 5\n");
my $remote = synchro_node('remote');

$remote->safe_psql('postgres', 'CREATE DATABASE second');
$_->[0]->safe_psql($_->[1], 'CREATE TABLE t (id int PRIMARY KEY, n int)') foreach [ $local, 'postgres' ], [ $remote, 'postgres' ], [ $remote, 'second' ];
connect_remote($local, $remote);
connect_remote($local, $remote, name => 'other', remote_db => 'second', add => 0);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t'); INSERT INTO t VALUES (1, 0)});
wait_for($local, q{SELECT count(*) = 1 FROM synchro.remotes WHERE state = 'idle' AND pending = 0}, 'one remote is served');

sub prepared
{
	my ($testname, $statement, $id) = @_;

	$local->safe_psql('postgres', "BEGIN; SELECT $statement; PREPARE TRANSACTION 'x'");
	$local->safe_psql('postgres', q{COMMIT PREPARED 'x'});
	$local->safe_psql('postgres', "INSERT INTO t VALUES ($id, 0)");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for($local, q{SELECT state = 'idle' AND pending = 0 FROM synchro.remotes WHERE remote = 'other'}, "$testname: the remote is served");
	is(rows($remote, "SELECT count(*) FROM t WHERE id = $id", 'second'), 1, "$testname: a row arrives");
	return;
}

prepared('add_remote()', q{synchro.add_remote('other')}, 2);
$local->safe_psql('postgres', q{SELECT synchro.pause('other')});
wait_for($local, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}, 'it is paused');
prepared('resume()', q{synchro.resume('other')}, 3);

# all are paused
my $size = q{SELECT sum(pg_relation_size(('synchro.log_' || i)::regclass)) FROM generate_series(0, 2) i};

$local->safe_psql('postgres', q{SELECT synchro.pause('office'), synchro.pause('other')});
wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}, 'all are paused');
$local->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1..20000 LOOP UPDATE t SET n = n + 1 WHERE id = 1; COMMIT; END LOOP; END $$});
# each of them takes 90 bytes of the log at least, so if it is small it has been folded
is(rows($local, 'SELECT n FROM t WHERE id = 1'), 20000, 'a row is changed many times');
wait_for($local, "SELECT ($size) < 400000", 'the log is folded');
$local->safe_psql('postgres', q{SELECT synchro.resume('office'), synchro.resume('other')});
wait_for($local, q{SELECT count(*) = 2 FROM synchro.remotes WHERE state = 'idle' AND pending = 0}, 'both are served again');
is(rows($remote, 'SELECT n FROM t WHERE id = 1', 'second'), 20000, 'what was done meanwhile arrives');

$_->stop('fast') foreach $local, $remote;
done_testing();
