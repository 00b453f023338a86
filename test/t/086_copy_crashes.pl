# WHY: a large table takes long to copy, and meanwhile the application writes, and workers and servers die. All of it must
# arrive, once, from where it had come to; with what is changed in between, and without keeping that waiting.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => <<'CONF');
restart_after_crash = on
synchro.batch_size = 200
synchro.retry_max_interval = 1s
max_connections = 100
CONF
my $remote = synchro_node('remote');
my $rows = 14000;

both($local, $remote, <<'SQL');
CREATE TABLE town (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE visit (id serial PRIMARY KEY, town int REFERENCES town, n int UNIQUE, v int DEFAULT 0, w text);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('town_id_seq', 5000);
CREATE TABLE audit (n int, operation text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.audit VALUES (NEW.n, TG_OP); RETURN NULL; END $$;
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$;
CREATE TRIGGER hold BEFORE INSERT ON visit FOR EACH ROW WHEN (NEW.n >= 10000 AND NEW.n % 500 = 0) EXECUTE FUNCTION hold();
CREATE TRIGGER note AFTER INSERT OR UPDATE ON visit FOR EACH ROW EXECUTE FUNCTION note();
SQL
$local->safe_psql('postgres', <<"SQL");
INSERT INTO town (name) SELECT 'town ' || i FROM generate_series(1, 100) i;
INSERT INTO visit (town, n, w) SELECT 1 + i % 100, i, repeat('x', 50) FROM generate_series(1, $rows) i;
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('town', '{name}'), synchro.add_table('visit', '{n}')});
pusher_pid($local, 'office');

my $contents = 'SELECT v.n, t.name, v.v, v.w FROM visit v JOIN town t ON t.id = v.town ORDER BY v.n';

# A copy from now on comes to its middle, and stays there until the returned session ends.
sub hold_in_the_middle
{
	my $holder = $remote->background_psql('postgres');

	$holder->query_safe('SELECT pg_advisory_lock(4711)');
	return $holder;
}

sub in_the_middle
{
	$remote->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'sync' AND wait_event = 'advisory'})
	  or die 'the copy does not come to its middle';
	return;
}

#
# with 50 clients that write
#
my $holder = hold_in_the_middle();
is($local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'visit'), synchro.copy_table('office', 'town')}), "$rows|100",
	'a table is copied');
wait_for($local, <<"SQL", 'view progress tells how far it has come');
SELECT count(*) = 1 FROM synchro.progress WHERE phase = 'copying' AND relation = 'visit'::regclass AND rows_done > 0 AND rows_done < rows_total
AND rows_total = $rows AND started_at < now()
SQL
cmp_ok(rows($local, 'SELECT pending FROM synchro.remotes'), '>', 0, 'what is left is pending');

my $script = $local->basedir . '/clients.sql';
append_to_file($script, <<"SQL");
\\set n random(1, $rows)
\\set m random(1, $rows)
\\set t random(1, 100)
UPDATE visit SET v = v + 1 WHERE n = :n;
UPDATE visit SET town = :t WHERE n = :m;
DELETE FROM visit WHERE n = :n AND :t > 90;
INSERT INTO visit (town, n, w) VALUES (:t, -:m, 'new') ON CONFLICT (n) DO UPDATE SET v = visit.v + 1;
SQL
my @clients = ('pgbench', '-n', '-c', 50, '-j', 1, '-t', 20, '-f', $script, '-p', $local->port, '-h', $local->host, 'postgres');
my $clients = fork;
if (!$clients)
{
	open STDOUT, '>', '/dev/null';
	open STDERR, '>', '/dev/null';
	exec @clients;
}
in_the_middle();
$holder->quit;
waitpid $clients, 0;
is($?, 0, '50 clients write meanwhile');
wait_for($local, q{SELECT count(*) = 0 FROM synchro.progress}, 'the copy comes to its end');
wait_for($local, q{SELECT pending = 0 FROM synchro.remotes}, 'with what was changed meanwhile');
same($local, $remote, $contents, 'both sides are the same');
is(rows($remote, q{SELECT count(*) FROM (SELECT FROM audit WHERE operation = 'INSERT' AND n > 0 GROUP BY n HAVING count(*) > 1) x}), 0,
	'nothing arrived twice');

#
# what dies in the middle
#
my %ends = (
	'kill -9 of the pusher' => sub { crash_worker($local, pusher_pid($local, 'office')) },
	'a crash of the local' => sub { $local->stop('immediate'); $local->start },
	'a restart of the local' => sub { $local->restart },
	'a crash of the remote' => sub { $remote->stop('immediate'); $remote->start });
foreach my $end (sort keys %ends)
{
	$local->safe_psql('postgres', q{SELECT synchro.pause('office')});
	wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}, 'a paused remote has no pusher');
	$remote->safe_psql('postgres', 'TRUNCATE visit, audit');
	$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'visit')});
	is(rows($local, 'SELECT phase, rows_done FROM synchro.progress'), 'copying|0', 'a copy to a paused remote waits');
	$holder = hold_in_the_middle();
	$local->safe_psql('postgres', q{SELECT synchro.resume('office')});
	in_the_middle();
	$ends{$end}->();
	cmp_ok(rows($local, 'SELECT rows_done FROM synchro.copying'), '>', 0, "$end in the middle: how far the copy had come is known");
	eval { $holder->quit };
	wait_for($local, q{SELECT count(*) = 0 FROM synchro.progress}, 'and comes to its end');
	same($local, $remote, $contents, 'both sides are the same');
	is(rows($remote, q{SELECT count(*) FROM (SELECT FROM audit GROUP BY n HAVING count(*) > 1) x}), 0, 'nothing arrived twice');
}

#
# synchronize() waits for the copies that are queued when it is called
#
$remote->safe_psql('postgres', 'TRUNCATE visit, audit');
$holder = hold_in_the_middle();
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'visit')});
in_the_middle();
my $caller = $local->background_psql('postgres');
$caller->query_until(qr/called/, "\\echo called\nSELECT synchro.synchronize('office');\n");
wait_for($local, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT synchro.synchronize%' AND state = 'active' AND wait_event_type = 'Extension'},
	'synchronize() waits for a copy that is under way');
$holder->quit;
like($caller->query('SELECT 1'), qr/\(office,[1-9]\d*,0,0,0,0,"Synchronization performed successfully\."\)/, 'and counts what was copied');
$caller->quit;
same($local, $remote, $contents, 'all is there when it returns');

#
# a remote that is down
#
$remote->stop('immediate');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'visit')});
wait_for($local, q{SELECT attempts > 1 AND pending > 0 FROM synchro.remotes}, 'a remote that is down: the copy waits');
is(rows($local, 'SELECT phase, relation, rows_done FROM synchro.progress'), 'copying|visit|0', 'as view progress says');
$local->safe_psql('postgres', q{DELETE FROM visit WHERE n % 2 = 0; UPDATE visit SET v = -1 WHERE n % 3 = 0; INSERT INTO visit (town, n) VALUES (1, 1000000)});
$remote->start;
wait_for($local, q{SELECT count(*) = 0 FROM synchro.progress}, 'it is made when the remote is there again');
wait_for($local, q{SELECT pending = 0 FROM synchro.remotes}, 'with what was changed meanwhile');
same($local, $remote, $contents, 'both sides are the same');

$local->stop('fast');
$remote->stop('fast');
done_testing();
