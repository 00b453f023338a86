# WHY: decisions are made from what is committed, and between that and the moment when a row is locked somebody else can
# change it. Such a race is lost once in a million times, and then a change is gone for good on one node, or a deleted row
# comes back. So every race is made to happen here: a transaction of the target holds the row, the pusher is seen waiting for
# it, and only then does the transaction commit. Both nodes must end up with the newer change.
use strict;
use warnings;

use lib 'test/t';
use IPC::Run ();
use Nodes qw(:DEFAULT push_against);
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int, note text);
CREATE TABLE child (id serial PRIMARY KEY, t_id int NOT NULL REFERENCES t, name text UNIQUE);
CREATE TABLE audit (id serial PRIMARY KEY, name text UNIQUE, n int);
SQL

# no row has the same id on both
$b->safe_psql('postgres', 'ALTER SEQUENCE t_id_seq RESTART 1000; ALTER SEQUENCE child_id_seq RESTART 1000');
join_nodes($a, $b);
watch([ $a, $b ], t => '{name}', child => '{name}', audit => '{name}');

my $all = q{SELECT 't', name, n, note FROM t UNION ALL SELECT 'child', c.name, NULL, t.name FROM child c JOIN t ON t.id = c.t_id
	UNION ALL SELECT 'audit', name, n, NULL FROM audit ORDER BY 1, 2};

sub state_in
{
	my ($node, $name) = @_;

	return rows($node, "SELECT n FROM t WHERE name = '$name'");
}

my %operation = (
	update => sub { my ($name, $n) = @_; return "UPDATE t SET n = $n WHERE name = '$name'" },
	delete => sub { my ($name) = @_; return "DELETE FROM t WHERE name = '$name'" },
	insert => sub { my ($name, $n) = @_; return "INSERT INTO t (name, n) VALUES ('$name', $n)" });
my %after = (update => sub { $_[0] }, insert => sub { $_[0] }, delete => sub { '' });

# race($age, $pushed, $held, $name): A's operation is pushed while B's, newer or older, is not committed yet
sub race
{
	my ($age, $pushed, $held, $name) = @_;
	my $errors;

	if ($pushed ne 'insert')
	{
		$a->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('$name', 0)");
		settle($a, $b);
	}
	if ($age eq 'newer')
	{
		# begun before, committed after A's
		$errors = push_against($a, $b, "BEGIN; " . $operation{$held}->($name, 2), $operation{$pushed}->($name, 1), 'COMMIT');
	}
	else
	{
		# the stamp is given by PREPARE, before A's
		$errors = push_against($a, $b,
			'BEGIN; ' . $operation{$held}->($name, 2) . "; PREPARE TRANSACTION '$name'",
			$operation{$pushed}->($name, 1),
			"COMMIT PREPARED '$name'");
	}
	is($errors, '', 'the push gets through');
	settle($a, $b);
	my $expected = $age eq 'newer' ? $after{$held}->(2) : $after{$pushed}->(1);

	is(state_in($_, $name), $expected, 'the newer state is on ' . $_->name) foreach $a, $b;
	same($a, $b, $all, 'both are the same');
	return;
}

$a->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('first', 0)});
settle($a, $b);

foreach my $age ('newer', 'older')
{
	foreach my $pair ([ 'update', 'update' ], [ 'update', 'delete' ], [ 'delete', 'update' ], [ 'delete', 'delete' ], [ 'insert', 'insert' ])
	{
		my ($pushed, $held) = @$pair;

		subtest "A's $pushed is pushed, B's $age $held commits meanwhile" => sub { race($age, $pushed, $held, "$age $pushed $held") };
	}
}

#
# names
#
foreach my $age ('newer', 'older')
{
	subtest "B's $age rename commits while A's update is pushed" => sub {
		$a->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('$age name', 0)");
		settle($a, $b);
		push_against($a, $b,
			"BEGIN; UPDATE t SET name = '$age other' WHERE name = '$age name'" . ($age eq 'older' ? "; PREPARE TRANSACTION 'name'" : ''),
			"UPDATE t SET n = 1 WHERE name = '$age name'",
			$age eq 'older' ? "COMMIT PREPARED 'name'" : 'COMMIT');
		settle($a, $b);
		same($a, $b, $all, 'both are the same');
		is(rows($a, "SELECT name, n FROM t WHERE name IN ('$age name', '$age other')"),
			$age eq 'newer' ? 'newer other|0' : 'older name|1', 'one row, with the newer change');
	};
}

#
# a row that others refer to
#
subtest q{B deletes a row while A pushes one that refers to it} => sub {
	$a->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('parent', 0)});
	settle($a, $b);
	push_against($a, $b, q{BEGIN; DELETE FROM t WHERE name = 'parent'},
		q{INSERT INTO child (t_id, name) SELECT id, 'child' FROM t WHERE name = 'parent'}, 'COMMIT');
	settle($a, $b);
	same($a, $b, $all, 'both are the same');
	is(rows($_, q{SELECT t.name FROM child c JOIN t ON t.id = c.t_id WHERE c.name = 'child'}), 'parent',
		'the child and its parent are on ' . $_->name) foreach $a, $b;
};

subtest q{B adds a row that refers to one whose delete A pushes} => sub {
	$a->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('wanted', 0)});
	settle($a, $b);
	$b->safe_psql('postgres', q{BEGIN; INSERT INTO child (t_id, name) SELECT id, 'late' FROM t WHERE name = 'wanted'; PREPARE TRANSACTION 'late'});
	$a->safe_psql('postgres', q{DELETE FROM t WHERE name = 'wanted'});
	$b->safe_psql('postgres', q{COMMIT PREPARED 'late'});

	# whoever deletes first is told by B's foreign key that it cannot be, until it has got the new row
	sync_parks($a, 'b', qr/23503/, 'the delete is refused by the foreign key');
	settle($b);
	settle($a, $b);
	same($a, $b, $all, 'both are the same');
	is(rows($_, q{SELECT t.name FROM child c JOIN t ON t.id = c.t_id WHERE c.name = 'late'}), 'wanted',
		'both rows are on ' . $_->name) foreach $a, $b;
};

#
# what was prepared does not come back
#
subtest q{an insert prepared on B, and a delete of the same key from A meanwhile} => sub {
	$b->safe_psql('postgres', q{BEGIN; INSERT INTO t (name, n) VALUES ('prepared', 1); PREPARE TRANSACTION 'insert'});
	$a->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('prepared', 2)});
	$a->safe_psql('postgres', q{DELETE FROM t WHERE name = 'prepared'});
	settle($a, $b);
	$b->safe_psql('postgres', q{COMMIT PREPARED 'insert'});
	settle($a, $b);
	same($a, $b, $all, 'both are the same');
	is(state_in($_, 'prepared'), '', 'the row is gone from ' . $_->name) foreach $a, $b;
};

subtest q{the same, of a row that B never had} => sub {
	$b->safe_psql('postgres', q{BEGIN; INSERT INTO t (name, n) VALUES ('unknown', 1); PREPARE TRANSACTION 'insert'});
	$a->safe_psql('postgres', q{SET synchro.log_changes = off; INSERT INTO t (name, n) VALUES ('unknown', 2)});
	$a->safe_psql('postgres', q{DELETE FROM t WHERE name = 'unknown'});
	settle($a, $b);
	$b->safe_psql('postgres', q{COMMIT PREPARED 'insert'});
	settle($b, $a);
	same($a, $b, $all, 'both are the same');
	is(state_in($_, 'unknown'), '', 'the row is gone from ' . $_->name) foreach $a, $b;
};

#
# triggers
#
subtest 'triggers of B that write while A\'s rows are applied' => sub {
	$b->safe_psql('postgres', <<'SQL');
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.name LIKE 'trigger%' THEN
		INSERT INTO audit (name, n) VALUES (NEW.name, 1) ON CONFLICT (name) DO UPDATE SET n = audit.n + 1;
		UPDATE t SET note = coalesce(note, '') || '+' WHERE name = NEW.name AND pg_trigger_depth() = 1;
		UPDATE t SET note = 'counted' WHERE name = 'first';
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON t FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION note();
SQL
	$a->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('trigger', 1)});
	cmp_ok(settle($a, $b), '<', 6, 'it comes to an end');
	is(rows($a, q{SELECT n FROM audit WHERE name = 'trigger'}), '1', 'what the trigger wrote elsewhere arrives at A');
	is(rows($a, q{SELECT note FROM t WHERE name = 'first'}), 'counted', 'and so do other rows of the same table');
	is(rows($a, q{SELECT DISTINCT c.origin = (SELECT node FROM synchro.remote_state) FROM synchro.changes c WHERE relation = 'audit'::regclass}),
		't', 'as changes of B');

	# What a trigger makes of the very row that is applied is not sent back, or two such triggers would never end: it is A's
	# change still, with A's stamp, and the trigger's column is B's until the row changes again.
	is(join(' ', map { rows($_, q{SELECT coalesce(note, 'none') FROM t WHERE name = 'trigger'}) } $a, $b), 'none +',
		'what it made of the row itself stays where it is');
	is(rows($b, q{SELECT max(changed_at) FROM synchro.changes WHERE relation = 't'::regclass AND key = (SELECT id::text FROM t WHERE name = 'trigger')}),
		rows($a, q{SELECT max(changed_at) FROM synchro.changes WHERE relation = 't'::regclass AND key = (SELECT id::text FROM t WHERE name = 'trigger')}),
		'as part of the change that was applied');
	$b->safe_psql('postgres', q{DROP TRIGGER note ON t; UPDATE t SET n = 2 WHERE name = 'trigger'});
	settle($a, $b);
	same($a, $b, $all, 'when the row changes again, both are the same');
};

# What is as the pusher wants it already is not written, but logged as changed. If the row were not locked for that, B's own change
# of it would go unseen, and be taken for older than what is logged after it. A trigger of another row holds the batch between
# its last look at the log and its commit.
subtest "a row that A's push leaves as it is, B's newer update commits meanwhile" => sub {
	$a->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('as it is', 0), ('held', 0)});
	settle($a, $b);
	$b->safe_psql('postgres', <<'SQL');
CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(42); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER wait_here AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.name = 'held') EXECUTE FUNCTION wait_here();
SQL
	$_->safe_psql('postgres', q{UPDATE t SET n = 1 WHERE name = 'as it is'}) foreach $b, $a;
	my $session = $b->background_psql('postgres');

	$session->query_safe('SELECT pg_advisory_lock(42)');
	$a->safe_psql('postgres', q{UPDATE t SET n = 1 WHERE name = 'held'});
	my $pushing = $a->background_psql('postgres', on_error_stop => 0);

	$pushing->query_until(qr/begun/, "\\echo begun\nSELECT message FROM synchro.synchronize('b');\n\\echo ended\n");
	ok($b->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted}), 'the batch is held');
	my $client = $b->background_psql('postgres');

	$client->query_until(qr/begun/, "\\echo begun\nUPDATE t SET n = 2 WHERE name = 'as it is';\n\\echo ended\n");
	ok($b->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'UPDATE t SET n = 2%' AND wait_event_type = 'Lock'}),
		'whoever changes the row waits for it');
	$session->query_safe('SELECT pg_advisory_unlock(42)');
	$_->query('\echo all') foreach $pushing, $client;
	is($pushing->{stderr}, '', 'the push gets through');
	$_->quit foreach $pushing, $session, $client;
	$b->safe_psql('postgres', 'DROP FUNCTION wait_here CASCADE');
	settle($a, $b);
	is(state_in($_, 'as it is'), 2, 'the newer state is on ' . $_->name) foreach $a, $b;
	same($a, $b, $all, 'both are the same');
};

#
# Others change rows of a batch faster than it is applied: each try meets some, and what is decided of them is out of date. The batch
# goes in parts then, each of which meets fewer.
#
subtest 'a table that others keep changing' => sub {
	$a->safe_psql('postgres', q{INSERT INTO t (name, n) SELECT 'busy ' || i, 0 FROM generate_series(1, 5000) i});
	settle($a, $b);
	my $client = IPC::Run::start([ 'psql', '-XAtq', '-d', $b->connstr('postgres'), '-c',
		q{DO $$ BEGIN LOOP UPDATE t SET note = clock_timestamp() WHERE name = 'busy ' || 1 + (random() * 4999)::int; COMMIT; PERFORM pg_sleep(0.0005); END LOOP; END $$} ],
		'<', \undef, '>', \my $said, '2>', \my $ended);
	wait_for($b, q{SELECT count(*) > 10 FROM t WHERE name LIKE 'busy %' AND note IS NOT NULL}, 'rows change all the time');
	my $from = -s $b->logfile;
	$a->safe_psql('postgres', q{UPDATE t SET n = 1 WHERE name LIKE 'busy %'});
	my $result = sync($a, 'b');
	my $tries = () = slurp_file($b->logfile, $from) =~ /ERROR:  rows were changed while they were being pushed/g;

	note("tries that came too late: $tries");
	is($result->{failed}, 0, 'the push gets through');
	cmp_ok(rows($b, q{SELECT count(*) FROM t WHERE name LIKE 'busy %' AND n = 1}), '>', 100, 'and brings what was not changed later');
	$b->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %busy%'});
	$client->finish;
	settle($a, $b);
	same($a, $b, $all, 'both are the same');
	$a->safe_psql('postgres', q{DELETE FROM t WHERE name LIKE 'busy %'});
	settle($a, $b);
};

#
# nobody forges stamps
#
subtest 'stamps and origins are for the roles that may push' => sub {
	my $node = rows($a, 'SELECT id FROM synchro.node');

	$b->safe_psql('postgres', <<'SQL');
CREATE ROLE writer LOGIN;
GRANT ALL ON ALL TABLES IN SCHEMA public TO writer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO writer;
SQL
	my @calls = ("peer_begin('$node', NULL, 0)", "peer_apply('public.t', '{\"{1}\"}', '{9000000000000000}', '{$node}', '{f}', '{f}')",
		"peer_newest('public.t', '{\"{1}\"}', 0)", "peer_names('public.t', '{\"{first}\"}', 0)", 'peer_node()', "peer_table('public.t')",
		"peer_lost('public.t', '{1}', 0, '$node', 0, '$node', NULL, NULL, NULL, NULL, NULL)", "peer_won('public.t', '{1}', 0, '$node', 0, '$node', NULL)",
		'peer_recheck()', "peer_lost_names('public.t')", "peer_renamed('public.t', '{1}')", "peer_renames('public.t', '{0}')",
		"peer_restate('public.t', '{\"{1}\"}', '{9000000000000000}')", "peer_gone('public.t', '{1}', '{first}', 0)",
		"peer_referred('{public.t}', '{\"{1}\"}', 0, '{}')", "peer_kept('public.t', '{1}', 0, '$node', 0, '$node')", "allow_peer('writer')");

	foreach my $call (@calls)
	{
		my ($status, undef, $stderr) = $b->psql('postgres', "SET ROLE writer; SELECT synchro.$call");

		like($stderr, qr/permission denied/, $call =~ /^(\w+)/ ? "$1 is refused" : $call);
	}
	foreach my $table ('log_0', 'source', 'conflict', 'backlog', 'node_identity')
	{
		my ($status, undef, $stderr) = $b->psql('postgres', "SET ROLE writer; DELETE FROM synchro.$table");

		like($stderr, qr/permission denied/, "$table is out of reach");
	}
	$b->safe_psql('postgres', q{SET ROLE writer; UPDATE t SET n = 77 WHERE name = 'first'});
	is(rows($b, q{SELECT origin = (SELECT id FROM synchro.node), changed_at BETWEEN now() - interval '1 min' AND now() + interval '1 min'
		FROM synchro.changes ORDER BY changed_at DESC LIMIT 1}), 't|t', 'its changes are this node\'s, made now');

	# one who may push says so in a transaction of his own
	my (undef, undef, $stderr) = $b->psql('postgres', "SET ROLE sync; SELECT synchro.peer_apply('public.t', '{\"{1}\"}', '{1}', '{$node}', '{f}', '{f}')");
	like($stderr, qr/no other node is pushing in this transaction/, 'outside of a push a role that may push forges nothing either');

	# nor does one learn more than he may read
	$b->safe_psql('postgres', q{CREATE ROLE blind; SELECT synchro.allow_peer('blind')});
	foreach my $rights ('', 'GRANT INSERT, UPDATE, DELETE ON t TO blind', 'GRANT SELECT ON t TO blind; ALTER TABLE t ENABLE ROW LEVEL SECURITY')
	{
		$b->safe_psql('postgres', $rights);
		foreach my $call (grep { /'public\.t'|\{public\.t\}/ } @calls)
		{
			(undef, undef, $stderr) = $b->psql('postgres', "SET ROLE blind; BEGIN; SELECT synchro.peer_begin(gen_random_uuid(), NULL, 0, '1:1:', true); SELECT * FROM synchro.$call");
			like($stderr, qr/permission denied for table public\.t/, ($call =~ /^(\w+)/)[0] . " tells nothing of a table to who may not read all of it ($rights)");
		}
	}
	$b->safe_psql('postgres', 'ALTER TABLE t DISABLE ROW LEVEL SECURITY');
	my ($status, $told) = $b->psql('postgres', "SET ROLE blind; BEGIN; DO \$\$ BEGIN PERFORM synchro.peer_begin(gen_random_uuid(), NULL, 0, '1:1:', true); END \$\$; SELECT identity FROM synchro.peer_newest('public.t', (SELECT array_agg(ARRAY[id]::text) FROM t), 0) LIMIT 1");
	like($told, qr/^\{\d+\}$/, '... and to who may, what there is');

	settle($a, $b);
	same($a, $b, $all, 'both are the same');
};

subtest 'a role that may not push' => sub {
	$b->safe_psql('postgres', <<'SQL');
CREATE ROLE stranger LOGIN PASSWORD 'secret';
GRANT ALL ON ALL TABLES IN SCHEMA public TO stranger;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO stranger;
GRANT USAGE ON SCHEMA synchro_peer TO stranger;
GRANT ALL ON ALL TABLES IN SCHEMA synchro_peer TO stranger;
SQL
	$a->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER b OPTIONS (SET user 'stranger'); UPDATE t SET n = 78 WHERE name = 'first'});
	sync_fails($a, 'b', qr/42501: .*its user may not push there.*allow_peer\('stranger'\)/s, 'is told by whom it is to be allowed');
	is(state_in($b, 'first'), '77', 'and has changed nothing');
	$a->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER b OPTIONS (SET user 'sync')});
	settle($a, $b);
	same($a, $b, $all, 'allowed, it gets through');
};

#
# Without the last look: the races above are decided by it. B's newer update would be overwritten, as it was not seen when
# it was decided.
#
subtest 'the last look is what makes the difference' => sub {
	$b->safe_psql('postgres', q{CREATE OR REPLACE FUNCTION synchro.peer_recheck() RETURNS void LANGUAGE sql AS ''});
	$a->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('blind', 0)});
	settle($a, $b);
	push_against($a, $b, q{BEGIN; UPDATE t SET n = 2 WHERE name = 'blind'}, q{UPDATE t SET n = 1 WHERE name = 'blind'}, 'COMMIT');
	is(state_in($b, 'blind'), '1', 'without it a newer change is overwritten');
};

$_->stop('fast') foreach $a, $b;
done_testing();
