# WHY: faults that one thinks of are those that the code was written for. So here they come by chance, in the middle of
# whatever is going on: processes are killed, servers stopped at once, disks full, the line is cut or goes dead after any byte
# of either direction, and all that under load, while the remote refuses some of the rows, or refuses none. When it is quiet
# again both sides must be equal, and the remote must have written each state that was pushed exactly once: a trigger there
# has taken it all down.
#
# Each kind of fault comes once. SYNCHRO_FAULTS=200 makes it long; SYNCHRO_SEED=n has the dice fall as before, but what they hit
# differs from run to run.
use strict;
use warnings;

use lib 'test/t';
use SmallDisk;
use AlwaysOn;
use IO::Select;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = $ENV{SYNCHRO_SEED} || time % 1000000;

srand $seed;
note("seed $seed");
diag('no small disks can be had here, so none gets full') unless small_disks();

# WAL on a disk of its own, where there can be any
sub small_wal
{
	my ($name) = @_;

	return small_disks() ? [ '--wal-segsize=4', '--waldir=' . small_disk("$name-wal", 256) ] : [];
}

# What was committed last may be lost on both sides: there it must be seen to by the pusher, here it must not have been sent.
my $conf = "restart_after_crash = on\nsynchronous_commit = off\nwal_writer_delay = 10s\nmax_wal_size = 64MB\n";
# a disk of WAL is to have room: less than usual stays there, which only segments of 4 MB allow
$conf .= "min_wal_size = 8MB\n" if small_disks();
my $local = synchro_node('local', preload => 1, initdb => small_wal('local'), conf => $conf . <<'CONF');
synchro.connect_timeout = 1s
synchro.retry_max_interval = 1s
synchro.batch_size = 40
CONF
my $remote = synchro_node('remote', initdb => small_wal('remote'), conf => $conf);

# v is another one with each state of a row. Rows of plain have no natural key: one that is applied twice is there twice.
both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v bigint NOT NULL);
CREATE TABLE children (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int NOT NULL REFERENCES parents, v bigint NOT NULL, data text);
CREATE TABLE plain (id serial PRIMARY KEY, label text NOT NULL, parent_id int REFERENCES parents, v bigint NOT NULL);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('parents_id_seq', 1000000), setval('children_id_seq', 2000000), setval('plain_id_seq', 3000000);
CREATE TABLE audit (id bigserial, relation text, operation text, name text, v bigint, same_state boolean, same_parent boolean, same_row boolean);
CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
	r jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
BEGIN
	INSERT INTO public.audit (relation, operation, name, v, same_state, same_parent, same_row)
		VALUES (TG_TABLE_NAME, TG_OP, coalesce(r ->> 'name', r ->> 'label'), (r ->> 'v')::bigint,
			TG_OP = 'UPDATE' AND OLD.v = NEW.v, TG_OP = 'UPDATE' AND to_jsonb(OLD) -> 'parent_id' IS NOT DISTINCT FROM r -> 'parent_id', TG_OP = 'UPDATE' AND OLD IS NOT DISTINCT FROM NEW);
	RETURN NULL;
END
$$;
CREATE TABLE refusing AS SELECT true AS now;
CREATE FUNCTION refuse_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
	r record := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
	IF r.v % 29 = 0 AND (SELECT now FROM public.refusing) THEN
		RAISE EXCEPTION '% of % is refused', TG_OP, r.v;
	END IF;
	RETURN r;
END
$$;
SQL
foreach my $table ('parents', 'children', 'plain')
{
	$remote->safe_psql('postgres', "CREATE TRIGGER $_ FOR EACH ROW EXECUTE FUNCTION ${\ (split ' ')[0]}()")
	  foreach "note_it AFTER INSERT OR UPDATE OR DELETE ON $table", "refuse_it BEFORE INSERT OR UPDATE OR DELETE ON $table";
}

# One transaction of a few steps, and then another. A step that fails, since there is no such row, say, is undone alone.
$local->safe_psql('postgres', <<'SQL');
CREATE SEQUENCE state;
CREATE FUNCTION a_parent() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT id FROM parents ORDER BY random() LIMIT 1';
CREATE FUNCTION a_child() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT id FROM children ORDER BY random() LIMIT 1';
CREATE FUNCTION a_plain() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT id FROM plain ORDER BY random() LIMIT 1';
CREATE PROCEDURE step() LANGUAGE plpgsql AS $$
DECLARE
	dice int := floor(random() * 16);
	chosen int;
	other int;
	first_name text;
BEGIN
	CASE dice
		WHEN 0, 1 THEN
			INSERT INTO parents (name, v) VALUES ('p' || floor(random() * 60), nextval('state')) ON CONFLICT DO NOTHING;
		WHEN 2, 3, 4 THEN
			INSERT INTO children (name, parent_id, v, data)
				VALUES ('c' || floor(random() * 300), a_parent(), nextval('state'), repeat('x', (random() * 3000)::int)) ON CONFLICT DO NOTHING;
		WHEN 5, 6 THEN
			chosen := nextval('state');
			INSERT INTO plain (label, parent_id, v) VALUES ('plain ' || chosen, a_parent(), chosen);
		WHEN 7, 8 THEN
			chosen := a_child();
			UPDATE children SET v = nextval('state'), data = repeat('y', (random() * 3000)::int) WHERE id = chosen;
		WHEN 9 THEN
			chosen := a_child();
			UPDATE children SET v = nextval('state'), parent_id = a_parent() WHERE id = chosen;
		WHEN 10 THEN
			chosen := a_parent();
			UPDATE parents SET v = nextval('state'), name = 'p' || floor(random() * 60) WHERE id = chosen;
		WHEN 11 THEN
			chosen := a_child();
			UPDATE children SET v = nextval('state'), name = 'c' || floor(random() * 300) WHERE id = chosen;
		WHEN 12 THEN
			chosen := a_child();
			DELETE FROM children WHERE id = chosen;
		WHEN 13 THEN
			chosen := a_plain();
			UPDATE plain SET v = nextval('state'), parent_id = a_parent() WHERE id = chosen;
		WHEN 14 THEN
			chosen := a_plain();
			DELETE FROM plain WHERE id = chosen;
		ELSE
			-- with all its children, or under another parent
			chosen := a_parent();
			other := a_parent();
			IF other <> chosen THEN
				UPDATE children SET v = nextval('state'), parent_id = other WHERE parent_id = chosen AND random() < 0.5;
				DELETE FROM children WHERE parent_id = chosen;
				UPDATE plain SET v = nextval('state'), parent_id = other WHERE parent_id = chosen;
				DELETE FROM parents WHERE id = chosen;
			END IF;
	END CASE;
EXCEPTION WHEN unique_violation OR not_null_violation OR foreign_key_violation OR serialization_failure OR deadlock_detected THEN
	NULL;
END
$$;
CREATE PROCEDURE churn(transactions int, pause float, seed float) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM setseed(seed);
	FOR i IN 1 .. transactions LOOP
		FOR j IN 1 .. CASE WHEN random() < 0.05 THEN 150 ELSE 1 + floor(random() * 10)::int END LOOP
			CALL step();
		END LOOP;
		IF random() < 0.3 THEN
			SET LOCAL synchronous_commit = on;
		END IF;
		IF random() < 0.1 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
		PERFORM pg_sleep(pause * random());
	END LOOP;
END
$$;
SQL
my $proxy = start_proxy($remote->port);

connect_remote($local, $remote, options => { port => $proxy->{port} });
$local->safe_psql('postgres', q{SELECT synchro.add_table('parents', '{name}'), synchro.add_table('children', '{name}'), synchro.add_table('plain')});

# what is made until here, rights for instance, is not to be lost in a crash
$_->safe_psql('postgres', 'CHECKPOINT') foreach $local, $remote;

#
# The load: processes that begin again whenever their session has been lost, until the pipe is closed.
#
pipe(my $while_open, my $open) or die "pipe: $!";

sub start_load
{
	my ($number) = @_;
	my $connection = $local->connstr('postgres');
	my $pid = fork // die "fork: $!";

	return $pid if $pid;
	close $open;
	open STDOUT, '>', '/dev/null';
	open STDERR, '>', '/dev/null';
	srand $seed + $number;
	my $select = IO::Select->new($while_open);

	until ($select->can_read(0.05))
	{
		system 'psql', '-XAtq', '-d', $connection, '-c', sprintf 'CALL churn(10, 0.03, %.6f)', rand 1;
	}
	require POSIX;
	POSIX::_exit(0);
}

#
# Faults. Each returns what it has done, and whether it has hit anything. What lets a fault go by, a kind that is never hit, say,
# is no better than a test that is not run.
#
my $pusher = q{backend_type = 'synchro pusher'};
my $launcher = q{backend_type = 'synchro launcher'};
my $writer = q{state = 'active' AND query LIKE 'CALL churn%'};
my $session = q{usename = 'sync'};

sub ask
{
	my ($node, $query) = @_;
	my ($status, $output) = eval { $node->psql('postgres', $query) };

	return defined $status && $status == 0 ? $output : '';
}

# Whoever is there at this moment, or comes soon: after a pusher that has just been killed, say.
sub victim
{
	my ($node, $condition) = @_;
	my $until = time + 60;
	my $pid;

	do
	{
		$pid = ask($node, "SELECT pid FROM pg_stat_activity WHERE $condition AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1");
		return $pid if $pid ne '';
		usleep(20_000);
	} while (time < $until);
	return;
}

sub kill_one
{
	my ($node, $what, $condition) = @_;
	my $pid = victim($node, $condition);

	return "$what: there is none" if !defined $pid;
	return ($what, kill 'KILL', $pid);
}

sub terminate
{
	my ($node, $what, $condition) = @_;
	my $pid = victim($node, $condition);

	return "$what: there is none" if !defined $pid;
	return ($what, ask($node, "SELECT pg_terminate_backend($pid)") eq 't');
}

sub crash
{
	my ($node) = @_;
	my $offset = -s $node->logfile;

	$node->stop('immediate');
	usleep(rand 500_000);
	$node->start;
	return ('immediate stop of the ' . $node->name, slurp_file($node->logfile, $offset) =~ /received immediate shutdown request/);
}

# Nobody tells the other processes to end.
sub lose_postmaster
{
	my ($node) = @_;
	my $started = ask($node, 'SELECT pg_postmaster_start_time()');

	crash_postmaster($node);
	return ('kill -9 of the postmaster of the ' . $node->name, $started ne ask($node, 'SELECT pg_postmaster_start_time()'));
}

# A server that finds no room for its WAL goes down. What makes it need some is in WAL only.
sub full_disk
{
	my ($node) = @_;
	my $written = 0;
	my $offset = -s $node->logfile;

	fill($node->name . '-wal');
	usleep(rand 1_000_000);
	1 while ask($node, q{SELECT pg_logical_emit_message(false, 'synchro', repeat('x', 8000000)) IS NOT NULL}) eq 't' && $written++ < 40;
	make_room($node->name . '-wal');

	# it may be on its way down, or up again, and not get there
	$node->stop('immediate', fail_ok => 1);
	$node->start;
	my $seen = slurp_file($node->logfile, $offset) =~ /No space left on device/;

	return ('no room for the WAL of the ' . $node->name . ($seen ? '' : ', which it did not notice'), $seen);
}

sub bad_line
{
	my ($action) = @_;
	my $bytes = int 10**(rand 5);
	my $answers = rand(2) < 1 ? '' : ' answers';
	my $said = "$action after $bytes$answers";
	my $until = time + 3;

	$proxy->command($said);
	usleep(20_000) while $proxy->command('armed') && time < $until;
	my $came = !$proxy->command('armed');

	$said .= ', which did not come' unless $came;
	$proxy->command('disarm');
	return ($said, $came) if $action eq 'cut';

	# long enough to be noticed, or not: what is closed then may have been done
	usleep(rand 5_000_000);
	$proxy->command('forward');
	$proxy->command('cut');
	return ($said, $came);
}

# What was sent first is answered by a server that the worker has left.
sub late_batch
{
	my $until = time + 3;

	$proxy->command('hold at ' . unpack 'H*', rand(2) < 1 ? 'BEGIN;SET CONSTRAINTS' : 'c' . pack('N', 4));
	usleep(20_000) while $proxy->command('armed') && time < $until;
	my $came = !$proxy->command('armed');

	$proxy->command('disarm');
	my ($said, $killed) = kill_one($local, 'kill -9 of the pusher, its batch on the way', $pusher);
	usleep(rand 2_000_000);
	$proxy->command('release');
	return ($said . ($came ? '' : ', which did not come'), $came && $killed);
}

# who waits for a synchronization
sub kill_caller
{
	my $pid = fork // die "fork: $!";

	if (!$pid)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec 'psql', '-XAtq', '-d', $local->connstr('postgres'), '-c', q{SELECT * FROM synchro.synchronize('office')} or die "psql: $!";
	}
	my @done = kill_one($local, 'kill -9 of who waits in synchronize()', q{state = 'active' AND query LIKE 'SELECT * FROM synchro.synchronize%'});

	waitpid $pid, 0;
	return @done;
}

sub no_connections
{
	my $offset = -s $remote->logfile;

	ask($remote, 'ALTER ROLE sync CONNECTION LIMIT 0');
	ask($remote, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $session");
	usleep(rand 2_000_000);
	# what is not waited for is lost with the next crash, and nobody would lift the limit again
	ask($remote, 'SET synchronous_commit = on; ALTER ROLE sync CONNECTION LIMIT -1');
	my $refused = slurp_file($remote->logfile, $offset) =~ /too many connections for role "sync"/;

	return ('no connections for the role' . ($refused ? '' : ', which did not ask for one'), $refused);
}

# what is parked meanwhile is hit by the other faults, too
sub refuse
{
	my ($now) = @_;

	return ask($remote, "SET synchronous_commit = on; UPDATE refusing SET now = $now RETURNING now");
}

sub other_refusals
{
	my $parked = ask($local, 'SELECT count(*) FROM synchro.failures');
	my $now = refuse('NOT now');

	return ('some rows are refused ' . ($now eq 't' ? 'again' : "no more, of which $parked have been"), $now eq 't' || $parked =~ /^[1-9]/);
}

# what there is always, if only after a moment
my %always = (
	'pusher killed' => sub { kill_one($local, 'kill -9 of the pusher', $pusher) },
	'launcher killed' => sub { kill_one($local, 'kill -9 of the launcher', $launcher) },
	'backend killed' => sub { kill_one($local, 'kill -9 of a backend', $writer) },
	'pusher terminated' => sub { terminate($local, 'pusher terminated', $pusher) },
	'session killed' => sub { kill_one($remote, 'kill -9 of the session on the remote', $session) },
	'session terminated' => sub { terminate($remote, 'session on the remote terminated', $session) },
	'local stopped' => sub { crash($local) },
	'remote stopped' => sub { crash($remote) },
	'local postmaster' => sub { lose_postmaster($local) },
	'remote postmaster' => sub { lose_postmaster($remote) });
my %kinds = (
	%always,
	'line cut' => sub { bad_line('cut') },
	'line cut again' => sub { bad_line('cut') },
	'line dark' => sub { bad_line('swallow') },
	'late batch' => \&late_batch,
	'other refusals' => \&other_refusals,
	'caller killed' => \&kill_caller,
	'no connections' => \&no_connections);

if (small_disks())
{
	$kinds{'local disk full'} = sub { full_disk($local) };
	$kinds{'remote disk full'} = sub { full_disk($remote) };
}
my $faults = $ENV{SYNCHRO_FAULTS} || scalar keys %kinds;

#
# What one needs to know when it has not come to rest, or has come to another: nothing of it may wait, nor end the test.
#
sub show
{
	my ($node, $query) = @_;
	my ($output, $errors, $timed_out) = ('', '', 0);

	eval { $node->psql('postgres', $query, stdout => \$output, stderr => \$errors, timeout => 20, timed_out => \$timed_out, on_error_stop => 0); 1 }
	  or $errors = $@;
	diag($node->name . ": $query");
	diag("    $_") foreach grep { /\S/ } split /\n/, ($output // '') . "\n" . ($errors // '') . ($timed_out ? "\nno answer" : '');
	return;
}

sub show_log
{
	my ($node) = @_;
	my @lines = grep { /could not|served again|server process|ERROR|FATAL|PANIC|still waiting/ && !/statement:|execute |prepare:/ } split /\n/, slurp_file($node->logfile);

	splice @lines, 0, @lines - 40 if @lines > 40;
	diag($node->name . ': the last of its log', map { "\n    $_" } @lines);
	return;
}

sub diagnose
{
	my $activity = q{SELECT pid, backend_type, state, wait_event_type, wait_event, state_change, xact_start, left(query, 200)
		FROM pg_stat_activity WHERE backend_type ~ 'synchro|client'};
	my $locks = 'SELECT pid, locktype, relation::regclass, mode, granted FROM pg_locks WHERE NOT granted';

	diag(sprintf 'proxy: %s connections, %s bytes', $proxy->command('taken'), $proxy->command('count'));
	show($local, $_) foreach 'SELECT * FROM synchro.remotes', 'SELECT * FROM synchro.remote_state', 'SELECT * FROM synchro.failures',
	  'SELECT * FROM synchro.stalled', 'SELECT * FROM synchro.progress', 'SELECT * FROM synchro.node', 'SELECT pg_current_snapshot(), now()', $activity, $locks;
	show($remote, $_) foreach 'SELECT * FROM synchro_peer.position', 'SELECT * FROM synchro_peer.unapplied', $activity, $locks;
	show_log($_) foreach $local, $remote;
	return;
}

# Rows that one side has only, and the parents that they have on either: what the log here and the triggers there say of them.
sub diagnose_rows
{
	my ($table, $query) = @_;
	my @sides = map { { map { $_ => 1 } split /\n/, rows($_, $query) } } $local, $remote;
	my @differing = ((grep { !$sides[1]{$_} } keys %{ $sides[0] }), (grep { !$sides[0]{$_} } keys %{ $sides[1] }));
	my %names = ($table => {}, parents => {});

	foreach my $row (@differing)
	{
		my ($name, $parent) = split /\|/, $row;

		$names{$table}{$name} = 1;
		$names{parents}{$parent} = 1 if $table ne 'parents';
	}
	foreach my $relation (sort keys %names)
	{
		my $column = $relation eq 'plain' ? 'label' : 'name';
		my $list = join ', ', map { "'$_'" } (sort keys %{ $names{$relation} })[ 0 .. 19 ];
		my $found = "SELECT to_jsonb(t) - 'data' FROM $relation t WHERE $column IN ($list) ORDER BY id";

		no warnings 'uninitialized';
		show($local, $found);
		show($remote, $found);
		show($local, "SELECT e.* FROM synchro.log_entries() e JOIN $relation t ON e.relation = '$relation'::regclass AND e.key = t.id::text WHERE t.$column IN ($list) ORDER BY e.key, e.changed_at");
		show($remote, "SELECT * FROM audit WHERE relation = '$relation' AND name IN ($list) ORDER BY id");
	}
	show($remote, q{SELECT * FROM synchro_peer.reference}) if $table eq 'plain';
	return;
}

# Whatever it is that does not come back is said, too.
my $stage = 'begin';
$SIG{ALRM} = sub {
	diag("no end of it: $stage");
	eval { diagnose(); 1 } or diag($@);
	die "no end of it: $stage\n";
};

my @loads = map { start_load($_) } 1, 2;

# Each kind once before any comes again, in any order.
my @deck;
my (%tried, %hit);

foreach my $number (1 .. $faults)
{
	if (!@deck)
	{
		@deck = sort keys %kinds;
		foreach my $i (reverse 1 .. $#deck)
		{
			my $j = int rand $i + 1;

			@deck[ $i, $j ] = @deck[ $j, $i ];
		}
	}

	# a server that has just crashed is given the time to come back, and the pusher some to get into the middle of something
	comes_back($_) foreach $local, $remote;
	usleep(rand 700_000);
	my $kind = pop @deck;

	$stage = "fault $number";
	alarm 180;
	my ($said, $hit) = $kinds{$kind}->();

	$tried{$kind}++;
	$hit{$kind}++ if $hit;
	note("fault $number: $said");
}

#
# quiet
#
comes_back($_) foreach $local, $remote;
close $open;
$stage = 'end of the load';
waitpid $_, 0 foreach @loads;
alarm 900;
$stage = 'rest';
wait_for($local, 'SELECT pending = 0 FROM synchro.remotes', "after $faults faults nothing waits but what is refused (seed $seed)")
  or diagnose();
note('refused at the end: ' . rows($local, q{SELECT string_agg(n || ' ' || operation || ' ' || sqlstate, ', ') FROM (SELECT count(*) AS n, operation, sqlstate FROM synchro.failures GROUP BY 2, 3) f}));
refuse('false');
wait_for($local, 'SELECT pending = 0 AND failed = 0 FROM synchro.remotes', "after $faults faults it comes to rest (seed $seed)")
  or diagnose();

my %query = (
	parents => 'SELECT name, v FROM parents ORDER BY name',
	children => 'SELECT c.name, p.name, c.v, md5(c.data) FROM children c JOIN parents p ON p.id = c.parent_id ORDER BY c.name',
	plain => 'SELECT x.label, p.name, x.v FROM plain x LEFT JOIN parents p ON p.id = x.parent_id ORDER BY x.label, x.v');

foreach my $table (sort keys %query)
{
	same($local, $remote, $query{$table}, "$table: both sides are the same (seed $seed)") or diagnose_rows($table, $query{$table});
	is(rows($remote, "SELECT count(*) FROM $table t WHERE NOT EXISTS (SELECT FROM audit a WHERE a.relation = '$table' AND a.v = t.v AND a.operation <> 'DELETE')"),
		0, "$table: the trigger has fired for each state");
}
is(rows($remote, q{SELECT relation, v, count(*), string_agg(operation || ' ' || name, ', ' ORDER BY id) FROM audit
	WHERE operation <> 'DELETE' AND NOT same_state GROUP BY relation, v HAVING count(*) > 1 ORDER BY 1, 2 LIMIT 10}), '', "exactly once (seed $seed)");
is(rows($remote, q{SELECT relation, v, count(*) FROM audit WHERE operation = 'DELETE' GROUP BY relation, v HAVING count(*) > 1 LIMIT 10}), '',
	'a row is deleted once');
is(rows($remote, 'SELECT * FROM audit WHERE same_row LIMIT 10'), '', 'nothing is written that is so already');

# What is written without a new state is a name that is freed for another row. Nothing else: a row stays under its parent on the
# remote, whatever that one is called meanwhile, and rows of plain have no name.
is(rows($remote, q{SELECT * FROM audit WHERE same_state AND (relation = 'plain' OR NOT same_parent) ORDER BY id LIMIT 10}), '',
	"without a new state no row gets another parent, nor is one without a name written (seed $seed)")
  or show($remote, q{SELECT a.*, x.xmin, x.parent_id FROM audit a LEFT JOIN (SELECT label AS name, xmin, parent_id FROM plain UNION ALL SELECT name, xmin, parent_id FROM children) x USING (name)
	WHERE a.name IN (SELECT name FROM audit WHERE same_state AND (relation = 'plain' OR NOT same_parent)) ORDER BY a.name, a.id});
cmp_ok(rows($remote, 'SELECT count(*) FROM audit'), '>', 20 * $faults, 'much has been pushed: ' . rows($remote, q{SELECT count(*) || ' rows, ' || count(*) FILTER (WHERE same_state) || ' of them without a new state' FROM audit}));
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'nothing has failed');
alarm 0;

#
# Something has been hit. Whether there is anything to hit is a matter of chance for some kinds: these must have hit something in
# so many tries.
#
my $enough = 8;
my ($tried, $hits) = (0, 0);

foreach my $kind (sort keys %tried)
{
	$tried += $tried{$kind};
	$hits += $hit{$kind} || 0;
	note("$kind: $tried{$kind} times, of which " . ($hit{$kind} || 0) . ' hit something');
	cmp_ok($hit{$kind} || 0, '>', 0, "$kind: has hit something") if $always{$kind} || $tried{$kind} >= $enough;
}
cmp_ok(2 * ($tried - $hits), '<', $tried, "more than half of all faults have hit something: $hits of $tried (seed $seed)");

# Servers start again by themselves, so whoever only looks at the rows sees nothing of our own crashes. Signal 9 is the test's; a
# process that finds no room for WAL ends itself.
sub crashes
{
	my ($node) = @_;
	my $log = slurp_file($node->logfile);
	my %no_room = map { $_ => 1 } $log =~ /\[(\d+)\].* PANIC:  .*No space left on device$/mg;
	my @found = $log =~ /^(.*TRAP:.*)$/mg;

	while ($log =~ /^(.*\(PID (\d+)\) was terminated by signal (\d+).*)$/mg)
	{
		push @found, $1 unless $3 == 9 || ($3 == 6 && $no_room{$2});
	}
	return join "\n", @found;
}

is(crashes($_), '', $_->name . ': nothing has crashed by itself') foreach $local, $remote;

$local->stop('fast');
$remote->stop('fast');
done_testing();
