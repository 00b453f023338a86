# WHY: pg_upgrade starts the old server to read its catalogs, and then takes the files over as they are said to be there. A worker that
# goes on meanwhile empties and swaps segments of the log behind its back, and pushes from a database that is being given up. What is
# pending must be so afterwards, and reach the remote once the new database has been confirmed. And nothing that pg_upgrade
# does not take over may keep the extension from being dropped.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use IPC::Run;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $conf = "synchro.log_retention = 0\nsynchro.retry_max_interval = 1s";
my $old = synchro_node('old', preload => 1, conf => $conf);
my $new = synchro_node('new', preload => 1, conf => $conf, start => 0);
my $remote = synchro_node('remote');
my $bindir = $old->config_data('--bindir');

if (!-x "$bindir/pg_upgrade")
{
	$_->stop('fast') foreach $old, $remote;
	plan skip_all => "there is no $bindir/pg_upgrade";
}

both($old, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE); CREATE TABLE note (id serial PRIMARY KEY, t_id int REFERENCES t, what text)');
connect_remote($old, $remote);
$old->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t', '{name}'), synchro.add_table('note');
INSERT INTO t (name) VALUES ('before');
INSERT INTO note (t_id, what) SELECT id, name FROM t;
SQL
wait_arrival($remote, 'SELECT count(*) FROM note', '1', 'the old server pushes');
$remote->stop('fast');
$old->safe_psql('postgres', <<'SQL');
INSERT INTO t (name) SELECT 'pending ' || i FROM generate_series(1, 1000) i;
UPDATE note SET what = 'changed';
SQL
wait_for($old, 'SELECT attempts > 0 AND pending > 0 FROM synchro.remotes', 'until its remote is down');
$old->stop('fast');
$remote->start;

# it leaves files where it is run, and its sockets have to have short names
my $sockets = PostgreSQL::Test::Utils::tempdir_short();
my $said = '';
my $done = IPC::Run::run(
	[ "$bindir/pg_upgrade", '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir,
		'-s', $sockets, '-p', $old->port, '-P', $new->port ],
	'>&', \$said, init => sub { chdir $new->basedir or die $! });
ok($done, 'pg_upgrade') or diag($said);
is(rows($remote, 'SELECT count(*) FROM t'), '1', 'has nothing pushed meanwhile, though the remote is there');

$new->start;
is(rows($new, 'SELECT state FROM synchro.node'), 'held', 'nor is it pushed by the new server');
$new->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('after')});
$new->safe_psql('postgres', 'SELECT synchro.confirm_node()');
wait_arrival($remote, 'SELECT count(*) FROM t', '1002', 'until it is confirmed: then all that was pending is');
wait_arrival($remote, q{SELECT string_agg(what, ',') FROM note}, 'changed', 'and rows that are found by stored references');
same($new, $remote, 'SELECT name FROM t ORDER BY name', 'both sides are the same');

# pg_dump knows nothing of what lets servers and user mappings go with the extension, and event triggers are restored last
$new->safe_psql('postgres', 'DROP EXTENSION synchro');
is(rows($new, 'SELECT count(*) FROM pg_foreign_server'), '0', 'DROP EXTENSION takes the remote along, without CASCADE');

$_->stop('fast') foreach $new, $remote;
done_testing();
