# WHY: a standby is a copy that must not speak for its primary; promoted, it is the primary, and must go on where that ended,
# without losing what was pending and without pushing twice what had been pushed.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Cluster;
use SynchroTest;
use Test::More;

my $primary = synchro_node('primary', preload => 1, streaming => 1, conf => 'synchro.retry_max_interval = 1s');
my $remote = synchro_node('remote', streaming => 1);

both($primary, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int)');
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE audit (name text, operation text);
CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.audit VALUES (NEW.name, TG_OP);
	RETURN NULL;
END
$$;
CREATE TRIGGER count_it AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION count_it();
SQL
connect_remote($primary, $remote);
$primary->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t', '{name}');
INSERT INTO t (name, n) SELECT 'before ' || i, 0 FROM generate_series(1, 100) i;
SQL
wait_arrival($remote, 'SELECT count(*) FROM t', '100', 'the primary pushes');

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('with a standby', 0)});
wait_arrival($remote, 'SELECT count(*) FROM t', '101', 'and goes on with a standby');
$primary->wait_for_catchup($standby);
is(rows($standby, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'synchro%'}), '0', 'the standby runs no worker');
wait_for($standby, q{SELECT state, pending, worker_pid IS NULL FROM synchro.remotes}, 'which view remotes tells there, too',
	expected => 'standby|0|t');
sync_fails($standby, 'office', qr/25006.*cannot execute synchronize\(\)/, 'nor can it be made to push');

# pending when the primary dies: rows, and a transaction that is prepared
$remote->stop('fast');
$primary->safe_psql('postgres', <<'SQL');
INSERT INTO t (name, n) SELECT 'pending ' || i, 0 FROM generate_series(1, 100) i;
UPDATE t SET n = 1 WHERE name LIKE 'before %';
BEGIN;
INSERT INTO t (name, n) VALUES ('prepared', 0);
PREPARE TRANSACTION 'p';
SQL
$primary->wait_for_catchup($standby);
wait_for($standby, 'SELECT state, pending FROM synchro.remotes', 'what is pending can be seen on the standby', expected => 'standby|200');
$primary->stop('immediate');
$standby->promote;
$remote->start;
wait_arrival($remote, 'SELECT count(*), sum(n) FROM t', '201|100', 'promoted, it pushes what was pending');
$standby->safe_psql('postgres', q{COMMIT PREPARED 'p'; INSERT INTO t (name, n) VALUES ('after', 0)});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name IN ('prepared', 'after')}, '2', 'and what comes after that');
is(rows($remote, 'SELECT count(*) FROM (SELECT FROM audit GROUP BY name, operation HAVING count(*) > 1) x'), '0', 'nothing arrived twice');
same($standby, $remote, 'SELECT name, n FROM t ORDER BY name', 'both sides are the same');

# the remote may be one, too: after a failover there, or since the server leads to the wrong host
$remote->backup('backup');
my $mirror = PostgreSQL::Test::Cluster->new('mirror');
$mirror->init_from_backup($remote, 'backup', has_streaming => 1);
$mirror->start;
$standby->safe_psql('postgres', 'ALTER SERVER office OPTIONS (SET port \'' . $mirror->port . "'); INSERT INTO t (name) VALUES ('mirrored')");
sync_fails($standby, 'office', qr/25006: remote "office" is a standby.*\n.*HINT:  Let the foreign server lead to the primary, or name all hosts and set its option target_session_attrs to 'read-write'[.]/,
	'a remote that is a standby is called that, with a hint');
like(rows($standby, q{SELECT problem FROM synchro.check('office') WHERE severity = 'error'}), qr/^on remote "office": the server is a standby$/m, 'check() does so, too');
$standby->safe_psql('postgres', "ALTER SERVER office OPTIONS (SET host '127.0.0.1,127.0.0.1', SET port '" . $mirror->port . ',' . $remote->port
	  . "', ADD target_session_attrs 'read-write')");
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'mirrored'}, '1', 'what the hint says helps');
$mirror->stop('fast');

stops_fast($standby, 'pg_ctl stop of the promoted standby');
$remote->stop('fast');
done_testing();
