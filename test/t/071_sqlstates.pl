# WHY: whether an error is the row's fault decides between two mistakes: parking what only had to be tried again, or
# trying for ever what can never go through while everything else waits. So each class of SQLSTATE is tried.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1);
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int)');
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE obstacle (state text);
GRANT SELECT ON obstacle TO PUBLIC;
CREATE SEQUENCE met;
GRANT USAGE ON SEQUENCE met TO PUBLIC;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	of_all text := (SELECT state FROM public.obstacle);
BEGIN
	IF of_all IS NOT NULL THEN
		PERFORM nextval('public.met');
		RAISE EXCEPTION 'the remote says %', of_all USING ERRCODE = of_all;
	ELSIF NEW.name LIKE 'row %' AND NEW.n = -1 THEN
		RAISE EXCEPTION 'this row is %', substr(NEW.name, 5) USING ERRCODE = substr(NEW.name, 5);
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name, n) VALUES ('first', 0)});
wait_arrival($remote, 'SELECT count(*) FROM t', '1', 'a row to begin with');

#
# not the row's fault
#
my $round = 0;

foreach my $state (qw(08000 08001 08003 08004 08006 08007 08P01 0B000 25P02 25P03 25P04 25006 26000 28000 2B000 2D000 34000 3B001 3D000
	40000 40001 40002 40003 40P01 53000 53100 53200 53300 53400 55006 55P02 55P03 55P04 57000 57014 57P01 57P02 57P03 57P04 57P05
	58000 58030 58P01 58P02 72000 F0000 XX001 XX002))
{
	$round++;
	$remote->safe_psql('postgres', "INSERT INTO obstacle VALUES ('$state')");
	$local->safe_psql('postgres', "UPDATE t SET n = $round WHERE name = 'first'");
	$local->poll_query_until('postgres', q{SELECT attempts >= 2 FROM synchro.remotes}) or die "$state: not tried again";
	wait_for($local, q{SELECT failed, pending > 0, last_error LIKE '%the remote says%', next_attempt IS NOT NULL FROM synchro.remotes},
		"$state is tried again, with everything else, and says so", expected => '0|t|t|t');
	$remote->safe_psql('postgres', 'DELETE FROM obstacle');
	wait_arrival($remote, "SELECT n = $round FROM t WHERE name = 'first'", 't', "$state: gone, all arrives");
}

#
# nor is it if the table's definition is, or the rights on it: the table stalls, others go on
#
both($local, $remote, 'CREATE TABLE other (id serial PRIMARY KEY, name text UNIQUE, n int)');
$remote->safe_psql('postgres', 'GRANT SELECT, INSERT, UPDATE, DELETE ON other TO sync; GRANT USAGE ON SEQUENCE other_id_seq TO sync');
$local->safe_psql('postgres', q{SELECT synchro.add_table('other', '{name}'); INSERT INTO other (name, n) VALUES ('other', 0)});
foreach my $state (qw(0A000 42501 42P01 42703 42883 3F000 55000))
{
	$round++;
	$remote->safe_psql('postgres', "INSERT INTO obstacle VALUES ('$state')");
	$local->safe_psql('postgres', "BEGIN; UPDATE t SET n = $round WHERE name = 'first'; UPDATE other SET n = $round; COMMIT");
	wait_arrival($remote, "SELECT n = $round FROM other", 't', "$state: other tables go on");
	wait_for($local, q{SELECT relation, key IS NULL, sqlstate, message LIKE '%the remote says%', next_attempt IS NOT NULL FROM synchro.failures},
		"$state stalls the table, and says so", expected => "t|t|$state|t|t");
	$remote->safe_psql('postgres', 'DELETE FROM obstacle');
	wait_arrival($remote, "SELECT n = $round FROM t WHERE name = 'first'", 't', "$state: gone, the rest arrives");
	wait_for($local, 'SELECT failed = 0 FROM synchro.remotes', "$state: nothing is left");
}

# what is over before the attempts have been used up is not even seen
foreach my $state (qw(40001 40P01 55P03))
{
	$remote->safe_psql('postgres', <<"SQL");
SELECT setval('met', 1, false);
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	IF nextval('public.met') < 3 THEN
		RAISE EXCEPTION 'wait' USING ERRCODE = '$state';
	ELSIF NEW.name LIKE 'row %' AND NEW.n = -1 THEN
		RAISE EXCEPTION 'this row is %', substr(NEW.name, 5) USING ERRCODE = substr(NEW.name, 5);
	END IF;
	RETURN NEW;
END
\$\$;
SQL
	$round++;
	$local->safe_psql('postgres', "UPDATE t SET n = $round WHERE name = 'first'");
	wait_arrival($remote, "SELECT n = $round FROM t WHERE name = 'first'", 't', "$state, twice: the batch is tried at once again");
	is(rows($local, 'SELECT attempts, failed FROM synchro.remotes'), '0|0', 'without a failure');
}

#
# the row's fault
#
my @states = qw(09000 0L000 20000 21000 22000 22001 22003 22012 22023 22P02 22P05 23000 23001 23502 23503 23505 23514 23P01 27000 2F000 38000 39000 44000 54000
	54023 P0000 P0001 P0002 P0004 XX000 ABC12 99999 HV000);

$local->safe_psql('postgres', 'BEGIN; ' . join('', map { "INSERT INTO t (name, n) VALUES ('row $_', -1);" } @states)
	  . q{INSERT INTO t (name, n) SELECT 'good ' || i, i FROM generate_series(1, 100) i; COMMIT});
wait_for($local, 'SELECT failed = ' . @states . ' AND pending = 0 FROM synchro.remotes', 'each of the bad rows is parked');
is(rows($remote, q{SELECT count(*) FROM t WHERE name LIKE 'good %'}), 100, 'all others arrive');
is(rows($remote, q{SELECT count(*) FROM t WHERE name LIKE 'row %'}), 0, 'and none of them');
is(rows($local, q{SELECT string_agg(sqlstate, ' ' ORDER BY sqlstate COLLATE "C") FROM synchro.failures}), join(' ', sort @states), 'each with its SQLSTATE');
is(rows($local, q{SELECT count(*) FROM synchro.failures f JOIN t ON t.id::text = f.key WHERE 'row ' || f.sqlstate = t.name AND f.message = 'this row is ' || f.sqlstate}),
	scalar @states, 'and its own message');
$local->safe_psql('postgres', q{UPDATE t SET n = 1 WHERE name LIKE 'row %'});
wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'changed to what the remote takes, they arrive');
same($local, $remote, 'SELECT name, n FROM t ORDER BY name', 'both sides are the same');

#
# nor are errors ours because they look so: what a trigger says by our own SQLSTATEs is the row's fault like any other
#
$remote->safe_psql('postgres', <<'SQL');
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.name LIKE 'bare %' AND NEW.n = -1 THEN
		RAISE EXCEPTION 'this row is not ours' USING ERRCODE = substr(NEW.name, 6);
	ELSIF NEW.name LIKE 'said %' AND NEW.n = -1 THEN
		RAISE EXCEPTION 'this row is not ours' USING ERRCODE = substr(NEW.name, 6, 5), DETAIL = substr(NEW.name, 12);
	END IF;
	RETURN NEW;
END
$$;
SQL
my @bare = map { "bare $_" } qw(SY001 SY002 SY003);
my @said = map { ("said SY001 $_", "said SY002 $_") } 'nonsense', '1', '1 {"x"}', '1 {', '987654 {"x"}', '-1 {x}', '99999999999999999999 {x}';
my $bad = @bare + @said;

# conflicts are tried again with the whole batch, so they are not to be in one with rows that are parked
foreach my $state (qw(40SY1 40SY2 40SY3))
{
	$local->safe_psql('postgres', "INSERT INTO t (name, n) VALUES ('bare $state', -1)");
	$local->poll_query_until('postgres', q{SELECT attempts >= 2 AND last_error LIKE '%not ours%' FROM synchro.remotes}) or die "$state: not given up";
	wait_for($local, q{SELECT failed, pending > 0 FROM synchro.remotes}, "$state without a cause is a conflict like others", expected => '0|t');
	$local->safe_psql('postgres', "DELETE FROM t WHERE name = 'bare $state'");
	wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', "$state: gone, nothing is left");
}
$local->safe_psql('postgres', 'BEGIN; ' . join('', map { "INSERT INTO t (name, n) VALUES ('$_', -1);" } @bare, @said)
	  . q{INSERT INTO t (name, n) VALUES ('beside them', 0); COMMIT});
wait_for($local, "SELECT failed = $bad AND pending = 0 FROM synchro.remotes", 'what a trigger says by our SQLSTATEs is parked');
is(rows($remote, q{SELECT count(*) FROM t WHERE name = 'beside them'}), 1, 'the row beside them arrives');
is(rows($local, q{SELECT count(*) FROM synchro.failures f JOIN t ON t.id::text = f.key WHERE f.message = 'this row is not ours'
	AND f.sqlstate = substr(t.name, 6, 5) AND f.detail IS NOT DISTINCT FROM nullif(substr(t.name, 12), '')}), $bad, 'as it was said');
$local->safe_psql('postgres', 'UPDATE t SET n = 1 WHERE n = -1');
wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'changed to what the remote takes, they arrive');

#
# what is ours names rows, whatever is in their keys
#
both($local, $remote, <<'SQL');
CREATE TABLE parents (code text PRIMARY KEY, n int);
CREATE TABLE children (name text PRIMARY KEY, parent text REFERENCES parents);
CREATE TABLE doubles (code text PRIMARY KEY, name text);
SQL
$remote->safe_psql('postgres', <<'SQL');
GRANT SELECT, INSERT, UPDATE, DELETE ON parents, children, doubles TO sync;
ALTER TABLE parents ADD CONSTRAINT no_bad CHECK (n <> -1);
INSERT INTO doubles VALUES ('r1', 'double'), ('r2', 'double');
SQL
$local->safe_psql('postgres', q{SELECT synchro.add_table('parents'), synchro.add_table('children'), synchro.add_table('doubles', '{name}')});
my @keys = ("a\nb", "\n", "a}b", "{", 'a\nb', "\\", "\\\n\\", "3 {\"x\"}\n4 {\"y\"}", 'a"b', "NULL", "");
my $list = join ', ', map { "E'" . s/\\/\\\\/gr . "'" } @keys;

# that parents are missing there is only found out by their children
$local->safe_psql('postgres', <<"SQL");
SET synchro.log_changes = off;
INSERT INTO parents SELECT k, 1 FROM unnest(ARRAY[$list]) k;
SET synchro.log_changes = on;
INSERT INTO children SELECT 'of ' || k, k FROM unnest(ARRAY[$list]) k;
SQL
wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'missing parents go with their children');
same($local, $remote, 'SELECT name, parent, n FROM children JOIN parents ON code = parent ORDER BY name', 'whatever they are called');
$local->safe_psql('postgres', <<"SQL");
SET synchro.log_changes = off;
INSERT INTO parents SELECT 'bad ' || k, -1 FROM unnest(ARRAY[$list]) k;
SET synchro.log_changes = on;
INSERT INTO children SELECT 'of bad ' || k, 'bad ' || k FROM unnest(ARRAY[$list]) k;
INSERT INTO children VALUES ('of none', NULL);
INSERT INTO doubles VALUES (E'a}\\nb', 'double');
SQL
wait_for($local, 'SELECT failed = ' . (2 * @keys + 1) . ' AND pending = 0 FROM synchro.remotes', 'parents that are refused keep their children');
is(rows($remote, q{SELECT count(*) FROM children WHERE name = 'of none'}), 1, 'others arrive');
is(rows($local, q{SELECT count(*) FROM synchro.failures f JOIN children c ON c.name = f.key WHERE f.relation = 'children'::regclass AND f.sqlstate = '23503'
	AND f.message = format('row of table public.parents with key %s, which it references, could not be applied either',
		regexp_replace(ARRAY[c.parent]::text, '^.(.*).$', '\1'))}), scalar @keys, 'it is told by which parent');
is(rows($local, q{SELECT sqlstate, detail FROM synchro.failures WHERE relation = 'doubles'::regclass}), qq(21000|The row's key here is "a}\nb".),
	'as it is of a name that several rows have');
$remote->safe_psql('postgres', q{ALTER TABLE parents DROP CONSTRAINT no_bad; DELETE FROM doubles WHERE code = 'r2'});
$local->safe_psql('postgres', 'SELECT synchro.retry()');
wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'mended, all of them arrive');
same($local, $remote, 'SELECT name, parent, n FROM children LEFT JOIN parents ON code = parent ORDER BY name', 'and are the same');

#
# A lock that the role on the remote does not wait for: nobody's fault, for as long as it is held.
#
{
	my $holder = $remote->background_psql('postgres');

	$remote->safe_psql('postgres', q{ALTER ROLE sync SET lock_timeout = '200ms'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sync'});
	$local->safe_psql('postgres', q{UPDATE t SET n = 1000 WHERE name = 'first'});
	wait_arrival($remote, q{SELECT n FROM t WHERE name = 'first'}, '1000', 'by a new session');
	is(rows($remote, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'sync'}), 1, 'which has the role\'s settings');
	$holder->query_safe('BEGIN; LOCK TABLE t');
	$local->safe_psql('postgres', q{BEGIN; UPDATE t SET n = n + 1; UPDATE other SET n = n + 1; COMMIT});
	wait_for($local, q{SELECT attempts >= 3 AND last_error LIKE '%lock timeout%' FROM synchro.remotes}, 'a lock that is held is waited for over and over, and named');
	is(rows($local, q{SELECT failed, pending > 0 FROM synchro.remotes}), '0|t', 'as what is no row\'s fault');
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'nor the table\'s');
	$holder->query_safe('COMMIT');
	$holder->quit;
	wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', 'not held any more, all is tried again');
	same($local, $remote, 'SELECT name, n FROM t UNION ALL SELECT name, n FROM other ORDER BY name', 'and arrives');
	$remote->safe_psql('postgres', 'ALTER ROLE sync RESET lock_timeout');
}

#
# Conflicts with clients there that nobody has to raise, as the server finds them: both are tried again at once, and not by way of
# dividing the batch, which an atomic pass is not. So that it is always the pusher whom it tells, that is kept waiting between the
# tables until the client has done what there is to clash with. Our sessions are read committed, where a row that goes to another
# partition meanwhile is what cannot be serialized.
#
both($local, $remote, 'CREATE TABLE uppers (name text PRIMARY KEY, n int)');
$local->safe_psql('postgres', 'CREATE TABLE lowers (name text PRIMARY KEY, upper text REFERENCES uppers, n int)');
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE lowers (name text, upper text REFERENCES uppers, n int, area text DEFAULT 'a') PARTITION BY LIST (area);
CREATE TABLE lowers_a PARTITION OF lowers FOR VALUES IN ('a');
CREATE TABLE lowers_b PARTITION OF lowers FOR VALUES IN ('b');
CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_user = 'sync' THEN
		PERFORM pg_catalog.pg_advisory_xact_lock(20);
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER gate BEFORE UPDATE ON lowers FOR EACH STATEMENT EXECUTE FUNCTION wait_at_gate();
ALTER ROLE sync SET deadlock_timeout = '10ms';
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sync';
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('uppers'), synchro.add_table('lowers');
INSERT INTO uppers VALUES ('u', 0);
INSERT INTO lowers VALUES ('l', 'u', 0);
SQL
my $clash = 'SELECT u.n, l.n FROM uppers u JOIN lowers l ON l.upper = u.name';
my $well = 'SELECT failed = 0 AND pending = 0 AND attempts = 0 FROM synchro.remotes';

wait_arrival($remote, $clash, '0|0', 'rows to clash about');
reload_with($local, 'synchro.atomic_pass' => 'on');
foreach my $case (
	[ 'a deadlock', 'BEGIN; UPDATE lowers SET n = -1', 'UPDATE uppers SET n = -2', qr/deadlock detected/ ],
	[ 'a row that has moved', undef, q{UPDATE lowers SET area = 'b'}, qr/already moved to another partition due to concurrent update/ ])
{
	my ($what, $before, $meanwhile, $error) = @$case;
	my $gate = $remote->background_psql('postgres');
	my $client = $remote->background_psql('postgres');
	my $pid = $client->query_safe('SELECT pg_backend_pid()');

	$round++;
	wait_for($local, $well, "$what: all is well before");
	my ($there, $here) = map { -s $_->logfile } $remote, $local;

	$gate->query_safe('SELECT pg_advisory_lock(20)');
	$client->query_safe("SET deadlock_timeout = '1h'; $before") if $before;
	$local->safe_psql('postgres', "BEGIN; UPDATE uppers SET n = $round; UPDATE lowers SET n = $round; COMMIT");
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event = 'advisory'}, "$what: the pusher has changed the one table only");
	if ($before)
	{
		$client->query_until(qr/asked/, "\\echo asked\n$meanwhile;\n");
		wait_for($remote, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid", "$what: the client waits for the pusher");
	}
	else
	{
		$client->query_safe($meanwhile);
	}
	$gate->query_safe('SELECT pg_advisory_unlock(20)');
	$client->query_safe('COMMIT') if $before;
	wait_arrival($remote, $clash, "$round|$round", "$what: all arrives");
	wait_for($local, $well, "$what: nothing has failed");
	like(slurp_file($remote->logfile, $there), qr/ERROR: .*$error/, "$what: there it was");
	unlike(slurp_file($local->logfile, $here), $error, "$what: here it is not even told");
	$_->quit foreach $gate, $client;
}
reload_with($local, 'synchro.atomic_pass' => 'off');
$remote->safe_psql('postgres', 'ALTER ROLE sync RESET deadlock_timeout');

#
# what is kept for us there may have been altered
#
foreach my $column (qw(token snapshot keys_snapshot))
{
	my $kept = rows($remote, "SELECT $column FROM synchro_peer.position");

	$remote->safe_psql('postgres', <<"SQL");
ALTER TABLE synchro_peer.position ALTER $column DROP NOT NULL;
UPDATE synchro_peer.position SET $column = NULL;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sync';
SQL
	$local->safe_psql('postgres', q{UPDATE t SET n = n + 1 WHERE name = 'first'});
	wait_for($local, q{SELECT last_error LIKE '%remote "office" returned NULL%' FROM synchro.remotes}, "without a value in $column nothing is pushed");
	$remote->safe_psql('postgres', "UPDATE synchro_peer.position SET $column = '$kept'");
	wait_for($local, 'SELECT pending = 0 FROM synchro.remotes', 'with it, all is');
}
same($local, $remote, 'SELECT name, n FROM t ORDER BY name', 'both sides are the same still');
unlike(slurp_file($local->logfile), qr/terminated by signal/, 'no process has crashed');

$local->stop('fast');
$remote->stop('fast');
done_testing();
