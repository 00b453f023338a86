# WHY: confirm_node(), reset() and set_checkpoint() take away the tokens by which a batch is known, and it may be under way just
# then. As another node the database has no references of its own on the remote: whatever is pushed once more, or is not known as
# its own, is there twice; and what it takes for its own though another has pushed it, is written over.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use OnceOnly;
use SynchroTest;
use Test::More;

my ($local, $remote, $proxy) = once_pair();

change('first', 1);
wait_arrival($remote, 'SELECT count(*) FROM plain', '1', 'changes arrive');
settled('first');

#
# confirm_node() while a batch is under way. As the node that the database is then, it must not push that once more, and a row that
# has only an id is to be found by the reference that was stored for the other one.
#
my $under_way = q{SELECT attempted <> acknowledged FROM synchro.remote_state};

{
	my $lock = $remote->background_psql('postgres');

	$lock->query_safe('BEGIN; LOCK TABLE t IN EXCLUSIVE MODE');
	change('confirmed', 600);
	wait_for($local, $under_way, 'confirmed meanwhile: a batch is under way');
	$local->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	$lock->quit;
	change('confirmed', 601);
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'confirmed'}, '601', 'confirmed meanwhile: it goes on');
	$local->safe_psql('postgres', q{UPDATE plain SET n = 602 WHERE label = 'confirmed 600'});
	settled('confirmed meanwhile');
}

# one that gets there when the next pusher has pushed the same
{
	my $pid = pusher_pid($local, 'office');
	my $offset = -s $remote->logfile;

	$proxy->command('hold at ' . unpack 'H*', 'BEGIN;SET CONSTRAINTS');
	$local->safe_psql('postgres', q{INSERT INTO plain (label, n) SELECT 'held ' || g, 610 FROM generate_series(1, 10) g});
	sprung($proxy, $local, 'confirmed, and late: a batch is under way');
	$local->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	crash_worker($local, $pid);
	$local->safe_psql('postgres', q{UPDATE plain SET n = 611 WHERE label LIKE 'held %'});
	wait_arrival($remote, q{SELECT count(*) FROM plain WHERE n = 611}, '10', 'confirmed, and late: the next pusher gets through');
	settled('confirmed, and late, not yet there');
	$proxy->command('release');
	fence_refuses($offset, 2000, 'confirmed, and late: the fence refuses it');
	settled('confirmed, and late');
}

# more than once before the remote is met
$remote->stop('fast');
$local->safe_psql('postgres', 'SELECT synchro.confirm_node()') for 1 .. 2;
$local->safe_psql('postgres', q{UPDATE plain SET n = 620 WHERE label LIKE 'held %'});
$remote->start;
wait_arrival($remote, q{SELECT count(*) FROM plain WHERE n = 620}, '10', 'confirmed twice: it goes on');
settled('confirmed twice');

# A copy that was made while a batch was under way knows of it, though the original has pushed more since.
{
	my $lock = $remote->background_psql('postgres');

	$lock->query_safe('BEGIN; LOCK TABLE t IN EXCLUSIVE MODE');
	change('copied', 630);
	wait_for($local, $under_way, 'copied meanwhile: a batch is under way');
	my $start = started_from($local, 'copied', 'base backup');

	$lock->quit;
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'copied'}, '630', 'copied meanwhile: it arrives');
	change('copied', 631);
	settled('copied meanwhile, the original');
	my $copy = $start->();

	wait_for($copy, q{SELECT last_error ~ 'not in the state that this database left it in' FROM synchro.remotes}, 'copied meanwhile: the copy is held');
	$copy->safe_psql('postgres', q{SELECT synchro.confirm_node(); UPDATE plain SET n = 632 WHERE label = 'copied 630'});
	wait_arrival($remote, q{SELECT count(*) FROM plain WHERE n = 632}, '1', 'copied meanwhile: the copy goes on');
	is(rows($remote, q{SELECT string_agg(label || ' ' || n, '; ' ORDER BY n) FROM plain WHERE label LIKE 'copied %'}), 'copied 631 631; copied 630 632',
		'copied meanwhile: what both have is there once');
	$copy->stop;
	change('copied', 633);
	$local->safe_psql('postgres', q{UPDATE plain SET n = 632 WHERE label = 'copied 630'});
	settled('copied meanwhile');
}

# It comes between what confirm_node() notes and what it takes away, if it can: the pusher keeps the next token just then. A third
# session holds the row, so that one waits for the other.
{
	my $lock = $remote->background_psql('postgres');
	my $first = $local->background_psql('postgres');
	my $caller = $local->background_psql('postgres');

	$lock->query_safe('BEGIN; LOCK TABLE t IN EXCLUSIVE MODE');
	$first->query_safe('BEGIN; SELECT FROM synchro.remote_state FOR UPDATE');
	change('race', 640);
	wait_for($local, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'synchro pusher' AND wait_event_type = 'Lock'},
		'at the same time: the pusher is to keep what it attempts');
	$caller->query_until(qr/calling/, "\\echo calling\nSELECT synchro.confirm_node();\n");
	wait_for($local, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^SELECT synchro.confirm_node' AND wait_event_type = 'Lock'},
		'at the same time: confirm_node() waits');
	$first->quit;
	$caller->query('SELECT');
	$lock->quit;
	$caller->quit;
	change('race', 641);
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'race'}, '641', 'at the same time: it goes on');
	settled('at the same time');
}

# In the first pass after the position was moved: then too the batch counts that has arrived.
sub first_pass
{
	my ($testname, $n, $changes) = @_;
	my $lock = $remote->background_psql('postgres');

	$lock->query_safe('BEGIN; LOCK TABLE t IN EXCLUSIVE MODE');
	$local->safe_psql('postgres', "BEGIN; $changes; INSERT INTO plain (label, n) VALUES ('$testname', $n); COMMIT");
	wait_for($local, $under_way, "$testname: a batch is under way");
	$local->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	$lock->quit;
	change($testname, $n + 1);
	wait_arrival($remote, "SELECT n FROM t WHERE name = '$testname'", $n + 1, "$testname: it goes on");
	settled($testname);
	return;
}

first_pass('after reset()', 650, q{SELECT synchro.reset('office'); INSERT INTO t (name, n) VALUES ('reset', 650)});
change('handed on', 660);
settled('a name to be handed on');
my $handed_on = q{UPDATE t SET name = 'former ' || n, n = n + 1 WHERE name = 'handed on'; INSERT INTO t (name, n) VALUES ('handed on', };
my $at = rows($local, 'SELECT clock_timestamp()');
first_pass('after set_checkpoint()', 662, "SELECT synchro.set_checkpoint('office', '$at'); ${handed_on}662)");

# The pusher has told the remote the position, and dies before it has noted so: the next one does not ask once more how the remote
# was left.
{
	my $lock = $remote->background_psql('postgres');
	my $first = $local->background_psql('postgres');
	my $pusher = q{backend_type = 'synchro pusher' AND wait_event_type = 'Lock'};

	$lock->query_safe('BEGIN; LOCK TABLE t IN EXCLUSIVE MODE');
	$local->safe_psql('postgres', "BEGIN; ${handed_on}670); INSERT INTO plain (label, n) VALUES ('told', 670); COMMIT");
	wait_for($local, $under_way, 'told: a batch is under way');
	$local->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	$proxy->command('hold at ' . unpack 'H*', 'INSERT INTO synchro_peer.position');
	$lock->quit;
	sprung($proxy, $local, 'told: the next contact is about to tell the position');
	$first->query_safe('BEGIN; SELECT FROM synchro.remote_state FOR UPDATE');
	$proxy->command('release');
	wait_for($local, "SELECT count(*) = 1 FROM pg_stat_activity WHERE $pusher", 'told: and to note it');
	$local->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $pusher");
	wait_for($local, "SELECT count(*) = 0 FROM pg_stat_activity WHERE $pusher", 'told: it has gone');
	$first->quit;
	change('told', 671);
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'told'}, '671', 'told: it goes on');
	settled('told');
}

# A copy that is held writes how it knows the remote, by itself or since its server is renamed: what the original has pushed after
# it was made does not become its own by that.
foreach my $how ('renamed', 'another node')
{
	my $id = 1 + rows($local, 'SELECT max(id) FROM plain');
	my $n = $how eq 'renamed' ? 680 : 690;
	my $start = started_from($local, $how =~ s/ /_/gr, 'base backup');

	$local->safe_psql('postgres', "INSERT INTO plain (id, label, n) VALUES ($id, '$how, of the original', $n); SELECT setval('plain_id_seq', $id)");
	settled("$how, the original");
	$local->safe_psql('postgres', q{SELECT synchro.pause('office')});
	$remote->safe_psql('postgres', q{CREATE EXTENSION synchro; SELECT synchro.allow_peer('sync')}) if $how eq 'another node';
	my $copy = $start->();

	$copy->safe_psql('postgres', 'SELECT pg_current_xact_id()') for 1 .. 10;
	wait_for($copy, q{SELECT last_error ~ 'not in the state that this database left it in' FROM synchro.remotes}, "$how: the copy is held");
	$copy->safe_psql('postgres', 'ALTER SERVER office RENAME TO bureau') if $how eq 'renamed';
	$copy->safe_psql('postgres', "SELECT synchro.confirm_node(); INSERT INTO plain (id, label, n) VALUES ($id, '$how, of the copy', $n + 1)");
	wait_arrival($remote, "SELECT count(*) FROM plain WHERE label LIKE '$how, of the %'", '2', "$how: both have their row");
	$copy->stop;
	$remote->safe_psql('postgres', 'DELETE FROM plain WHERE n = ' . ($n + 1));
	$local->safe_psql('postgres', q{SELECT synchro.resume('office')});
	settled($how);
}

done_testing();
