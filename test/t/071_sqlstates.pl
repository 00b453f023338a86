# WHY: whether an error is the row's fault decides between two mistakes: parking what only had to be tried again, or
# trying for ever what can never go through while everything else waits. So each class of SQLSTATE is tried.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => "synchro.retry_max_interval = 300ms\n");
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int)');
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE obstacle (state text);
GRANT SELECT ON obstacle TO PUBLIC;
CREATE SEQUENCE met;
GRANT ALL ON SEQUENCE met TO PUBLIC;
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

foreach my $state (qw(08000 08003 08006 08P01 25P02 25006 40000 40001 40P01 53000 53100 53200 53300 55006 55P03 57000 57014 57P01 57P03
	58000 58030))
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
$remote->safe_psql('postgres', 'GRANT ALL ON other TO sync; GRANT ALL ON SEQUENCE other_id_seq TO sync');
$local->safe_psql('postgres', q{SELECT synchro.add_table('other', '{name}'); INSERT INTO other (name, n) VALUES ('other', 0)});
foreach my $state (qw(0A000 42501 42P01 42703 42883 55000))
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

$local->stop('fast');
$remote->stop('fast');
done_testing();
