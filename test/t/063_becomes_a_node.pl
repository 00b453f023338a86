# WHY: whether a remote is a node is asked when the worker connects, and whether it logs a table when the table is described; both last for
# months. A remote that becomes a node while a worker is connected to it (CREATE EXTENSION), or begins to watch a table (add_table), which
# is how two-way pushing is set up, one side after the other, is then pushed to without any decision: what is older here overwrites what is
# newer there, on both, without a record. The former gets its own changes back, too: with a trigger on both sides that sets a time, for ever.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use Nodes;
use SynchroTest;
use Test::More;

my $schema = <<'SQL';
CREATE TABLE t (name text PRIMARY KEY, n int, touched timestamptz);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.touched := clock_timestamp(); RETURN NEW; END$$;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE note (id serial PRIMARY KEY, body text);
SQL

# is it a node from the beginning, and begins only to watch the table?
foreach my $from_the_beginning (1, 0)
{
	subtest $from_the_beginning ? 'a table that is watched there later' : 'a remote that becomes a node' => sub {
		# nobody analyzes the table here: that would have it described anew
		my $a = synchro_node("a$from_the_beginning", preload => 1, conf => 'autovacuum = off');
		my $b = synchro_node("b$from_the_beginning");

		both($a, $b, $schema);
		$a->safe_psql('postgres', 'CREATE EXTENSION synchro');
		if ($from_the_beginning)
		{
			# what is granted here later would have the table described anew as well
			$b->safe_psql('postgres', 'CREATE EXTENSION synchro');
			join_nodes($a, $b);
		}
		else
		{
			connect_remote($a, $b, name => $b->name);
		}
		$a->safe_psql('postgres', q{SELECT synchro.add_table('t'), synchro.add_table('note'); INSERT INTO t (name, n) VALUES ('x', 0), ('y', 0); INSERT INTO note (body) VALUES ('first')});
		wait_arrival($b, 'SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM note)', '3', 'one side pushes');
		my $pid = pusher_pid($a, $b->name);

		# now the other side is set up, as README has it
		$b->safe_psql('postgres', q{CREATE EXTENSION IF NOT EXISTS synchro; SELECT synchro.allow_peer('sync'), synchro.add_table('t'), synchro.add_table('note')});
		link_nodes($b, $a) unless $from_the_beginning;
		sync($b, $a->name);
		is(pusher_pid($a, $b->name), $pid, 'the worker is the one that was there');

		# a row that only stored references find
		$b->safe_psql('postgres', q{INSERT INTO note (body) VALUES ('of the other')});
		foreach my $round (1 .. 3)
		{
			sync($b, $a->name);
			wait_for($a, 'SELECT pending = 0 FROM synchro.remotes', "round $round: the one has pushed");
		}
		is(rows($_, q{SELECT count(*) FROM note WHERE body = 'of the other'}), 1, 'a row of the other side is there once on ' . $_->name) foreach $a, $b;

		# the older change waits for the newer one's lock
		my $session = $b->background_psql('postgres');
		$session->query_safe(q{BEGIN; UPDATE t SET n = 2 WHERE name = 'x'});
		$a->safe_psql('postgres', q{UPDATE t SET n = 1 WHERE name = 'x'});
		wait_for($b, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'}, 'the older change is on its way');
		$session->query_safe('COMMIT');
		$session->quit;
		my $quiet = 0;
		foreach my $round (1 .. 6)
		{
			wait_for($a, 'SELECT pending = 0 FROM synchro.remotes', "round $round: the one has pushed");
			$quiet = sync($b, $a->name)->{message} =~ /^No changes/ or next;
			last;
		}
		ok($quiet, 'no change goes to and fro');
		is(rows($_, q{SELECT n FROM t WHERE name = 'x'}), 2, 'the newer change is there on ' . $_->name) foreach $a, $b;

		# a delete that is older
		$session = $b->background_psql('postgres');
		$session->query_safe(q{BEGIN; UPDATE t SET n = 2 WHERE name = 'y'});
		$a->safe_psql('postgres', q{DELETE FROM t WHERE name = 'y'});
		wait_for($b, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'}, 'an older delete is on its way');
		$session->query_safe('COMMIT');
		$session->quit;
		foreach my $round (1 .. 3)
		{
			wait_for($a, 'SELECT pending = 0 FROM synchro.remotes', "round $round: the one has pushed");
			sync($b, $a->name);
		}
		is(rows($_, q{SELECT n FROM t WHERE name = 'y'}), 2, 'the row that was changed later is there on ' . $_->name) foreach $a, $b;
		$_->stop('fast') foreach $a, $b;
	};
}

# a batch that has begun already finds the trigger, and has its changes logged as the remote's own
my $a = synchro_node('a', preload => 1, conf => 'autovacuum = off');
my $b = synchro_node('b');

both($a, $b, $schema);
$a->safe_psql('postgres', 'CREATE EXTENSION synchro');
connect_remote($a, $b, name => 'b');
$a->safe_psql('postgres', q{SELECT synchro.add_table('t'); INSERT INTO t (name, n) VALUES ('x', 0), ('y', 0)});
wait_arrival($b, 'SELECT count(*) FROM t', '2', 'one side pushes');
my $pid = pusher_pid($a, 'b');
my $own = q{SELECT count(*) FROM synchro.changes WHERE origin = (SELECT id FROM synchro.node)};
my $session = $b->background_psql('postgres');

$session->query_safe(q{SET client_min_messages = warning; BEGIN; CREATE EXTENSION synchro; SELECT synchro.allow_peer('sync'), synchro.add_table('t')});
$a->safe_psql('postgres', q{UPDATE t SET n = 1 WHERE name = 'x'});
wait_for($b, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event_type = 'Lock'}, 'a batch is under way');
$session->query_safe('COMMIT');
wait_arrival($b, q{SELECT n FROM t WHERE name = 'x'}, '1', 'it arrives');
is(rows($b, $own), '0', 'and is no change of the node that the remote has become meanwhile');
is(rows($b, 'SELECT count(*) > 0 FROM synchro.changes'), 't', 'which has logged it');

# and the other way round
$session->query_safe('DROP EXTENSION synchro');
$a->safe_psql('postgres', q{UPDATE t SET n = 2 WHERE name = 'x'});
wait_arrival($b, q{SELECT n FROM t WHERE name = 'x'}, '2', 'a change arrives on what is no node any more');
wait_for($a, 'SELECT pending = 0 AND failed = 0 FROM synchro.remotes', 'and nothing has failed');

# what the remote would log of tables that are emptied would come back
$b->safe_psql('postgres', q{CREATE EXTENSION synchro; SELECT synchro.allow_peer('sync'), synchro.add_table('t')});
$a->safe_psql('postgres', q{SELECT synchro.reset_schema('public', soft => false, remote => 'b', confirm => true)});
wait_for($a, q{SELECT count(*) > 0 FROM synchro.failures WHERE message LIKE '%cannot be emptied%'}, 'tables of what has become a node cannot be emptied');
is(rows($b, 'SELECT count(*) FROM t'), '2', 'nor are they');
is(rows($b, $own), '0', 'and nothing comes back');
is(pusher_pid($a, 'b'), $pid, 'the worker is the one that was there');
$session->quit;

done_testing();
