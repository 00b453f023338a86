# WHY: who looks after the data day by day has a SQL client, often a graphical one, and no shell, and must not be given more rights
# than that takes. So the daily work has to be possible with SQL alone, for a role that may do two things and read one view.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use IPC::Run;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int CHECK (n >= 0))');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}')});

# as the README says
$local->safe_psql('postgres', <<'SQL');
CREATE ROLE clerk LOGIN;
GRANT EXECUTE ON FUNCTION synchro.synchronize(name) TO clerk;
GRANT SELECT ON synchro.remotes, synchro.failures TO clerk;
CREATE FUNCTION forget_pending(remote name) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'SELECT synchro.reset($1, keep_references => true)';
REVOKE ALL ON FUNCTION forget_pending(name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_pending(name) TO clerk;
SQL

# (exit status, rows, messages) of the clerk's SQL
sub clerk
{
	my ($sql) = @_;

	return $local->psql('postgres', $sql, extra_params => [ '-U', 'clerk' ]);
}

sub clerk_gets
{
	my ($sql) = @_;
	my ($status, $rows, $messages) = clerk($sql);

	diag($messages) if $status != 0;
	return $rows;
}

# the daily work
is(clerk_gets('SELECT remote, state, pending, failed, last_error FROM synchro.remotes'), 'office|on call|0|0|', 'nothing is pending in the morning');
$local->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('a', 1), ('b', 2)});
is(clerk_gets('SELECT pending, lag > interval $$0$$ FROM synchro.remotes'), '2|t', 'then something is');
is(clerk_gets(q{SELECT * FROM synchro.synchronize('office')}), 'office|2|0|0|0|0|Synchronization performed successfully.', 'it is pushed, of one remote');
is(clerk_gets('SELECT remote, message FROM synchro.synchronize()'), 'office|No changes since last synchronization.', 'or of all');
is(clerk_gets('SELECT pending, inserted, last_success > now() - interval $$1 hour$$ FROM synchro.remotes'), '0|2|t', 'the view shows it');
same($local, $remote, 'SELECT name, n FROM t ORDER BY name', 'the rows are there');

# something goes wrong
$remote->safe_psql('postgres', 'ALTER TABLE t ADD CONSTRAINT small CHECK (n < 100)');
$local->safe_psql('postgres', q{UPDATE t SET n = 100 WHERE name = 'a'; UPDATE t SET n = 3 WHERE name = 'b'});
is(clerk_gets('SELECT updated, failed, message FROM synchro.synchronize()'), '1|1|Some changes could not be applied; see view synchro.failures.', 'a row that is refused is counted');
is(clerk_gets('SELECT failed FROM synchro.remotes'), '1', 'in the view, too');
is(clerk_gets('SELECT count(*) FROM synchro.failures'), '0', 'why is not for those who may not read the table');
is($local->safe_psql('postgres', 'GRANT SELECT ON t TO clerk; SET ROLE clerk; SELECT key FROM synchro.failures; RESET ROLE; REVOKE SELECT ON t FROM clerk'), '1', 'and for those who may');
$remote->stop('fast');
my ($status, $rows, $messages) = clerk('SELECT * FROM synchro.synchronize()');
like($messages, qr/ERROR:  could not connect to remote "office"/, 'a remote that is down is said to be');
$remote->start;

# begun anew
$local->safe_psql('postgres', q{UPDATE t SET n = 4 WHERE name = 'b'});
is(clerk_gets(q{SELECT forget_pending('office')}), '', 'what is pending is forgotten');
is(clerk_gets('SELECT pending, failed FROM synchro.remotes'), '0|0', 'with what has failed');
is(clerk_gets('SELECT message FROM synchro.synchronize()'), 'No changes since last synchronization.', 'so there is nothing to push');
$local->safe_psql('postgres', q{UPDATE t SET n = 5 WHERE name = 'b'});
is(clerk_gets('SELECT updated FROM synchro.synchronize()'), '1', 'what changes from then on is pushed');
is(rows($remote, q{SELECT n FROM t WHERE name = 'b'}), '5', 'and arrives');

# looking on, in psql
my ($in, $out, $err) = ("SELECT remote, state, pending FROM synchro.remotes\n\\watch 0.2\n", '', '');
my $psql = IPC::Run::start([ $local->installed_command('psql'), '-X', '-U', 'clerk', '-h', $local->host, '-p', $local->port, 'postgres' ],
	'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$psql->pump until $out =~ /office.*office.*office/s;
pass('\watch shows the view again and again');
$psql->kill_kill;
is($err, '', 'without a complaint');

# and nothing else
foreach my $try (
	[ 'SELECT * FROM t', 'read tables' ],
	[ q{SELECT synchro.add_table('t')}, 'watch tables' ],
	[ q{SELECT synchro.remove_table('t')}, 'or stop that' ],
	[ q{SELECT synchro.add_remote('office')}, 'make remotes' ],
	[ q{SELECT synchro.remove_remote('office')}, 'or remove them' ],
	[ q{SELECT synchro.pause('office')}, 'pause them' ],
	[ q{SELECT synchro.set_checkpoint('office', now())}, 'move checkpoints' ],
	[ q{SELECT synchro.confirm_node()}, 'let copies go' ],
	[ q{SELECT * FROM synchro.verify('office')}, 'compare' ],
	[ q{SELECT synchro.requeue('office')}, 'queue again' ],
	[ q{SELECT * FROM synchro.manifest()}, 'take fingerprints' ],
	[ q{SELECT synchro.reset('office')}, 'forget references' ],
	[ 'SELECT * FROM synchro.changes', 'read the log' ],
	[ 'DELETE FROM synchro.log_0', 'write it' ],
	[ 'ALTER SERVER office OPTIONS (SET dbname $$x$$)', 'lead the remote elsewhere' ])
{
	my ($sql, $what) = @$try;

	($status, $rows, $messages) = clerk($sql);
	like($messages, qr/permission denied|must be owner/, "may not $what");
}
unlike(clerk_gets('SELECT * FROM pg_user_mappings'), qr/secret/, 'nor see the password');

# what a view reads may be called by whoever may read the view, and for as long as he may
my $may = q{SELECT has_function_privilege('clerk', 'synchro.pusher_status()', 'EXECUTE'), has_function_privilege('clerk', 'synchro.log_entries()', 'EXECUTE'), has_function_privilege('clerk', 'synchro.table_mode(regclass)', 'EXECUTE')};
is(rows($local, $may), 't|f|f', 'SELECT on view remotes brings EXECUTE on what it reads, and nothing more');
$local->safe_psql('postgres', 'GRANT SELECT ON synchro.progress TO clerk; REVOKE SELECT ON synchro.remotes FROM clerk');
is(rows($local, $may), 't|f|f', 'another view may need it still');
is(clerk_gets('SELECT count(*) FROM synchro.progress'), '0', 'and works');
$local->safe_psql('postgres', 'REVOKE ALL ON ALL TABLES IN SCHEMA synchro FROM clerk');
is(rows($local, $may), 'f|f|f', 'without any it is gone');
$local->safe_psql('postgres', 'GRANT SELECT (remote, pending) ON synchro.remotes TO clerk; GRANT SELECT ON synchro.changes, synchro.tables, t TO clerk');
is(rows($local, $may), 't|t|t', 'of single columns, too, and of the other views');
is(clerk_gets('SELECT remote, pending FROM synchro.remotes; SELECT mode FROM synchro.tables; SELECT count(*) > 0 FROM synchro.changes'), "office|0\nnatural key\nt", 'all of which work');
$local->safe_psql('postgres', q{CREATE ROLE "o'dd ""role"; GRANT SELECT ON ALL TABLES IN SCHEMA synchro TO "o'dd ""role"});
is(rows($local, q{SELECT has_function_privilege('o''dd "role', 'synchro.log_entries()', 'EXECUTE')}), 't', 'whatever the role is called');
$local->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION synchro.table_mode(regclass) TO PUBLIC; REVOKE SELECT ON synchro.changes FROM clerk');
is(rows($local, $may), 't|f|t', 'a right that was granted to others is no business of a REVOKE');

# a REVOKE that takes no view takes nothing else, whoever runs it
my $app = q{SELECT has_function_privilege('app', 'synchro.pusher_status()', 'EXECUTE'), has_function_privilege('app', 'synchro.log_entries()', 'EXECUTE')};
$local->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN;
CREATE ROLE mallory LOGIN;
GRANT EXECUTE ON FUNCTION synchro.pusher_status(), synchro.log_entries() TO app;
GRANT SELECT ON synchro.node TO mallory;
GRANT SELECT ON synchro.remotes TO mallory WITH GRANT OPTION;
SQL
foreach my $view ('node', 'remotes')
{
	(undef, undef, $messages) = $local->psql('postgres', "REVOKE SELECT ON synchro.$view FROM app", extra_params => [ '-U', 'mallory' ]);
	is(rows($local, $app), 't|t', "EXECUTE stays with whom another role takes nothing from, $view") or diag($messages);
}
$local->safe_psql('postgres', 'REVOKE SELECT ON synchro.remotes FROM app');
is(rows($local, $app), 't|t', 'and what was granted by itself, if there was no view to take');
$local->safe_psql('postgres', 'GRANT SELECT ON synchro.remotes TO app; REVOKE SELECT ON synchro.remotes FROM app');
is(rows($local, $app), 'f|t', 'with a view goes what it calls, and no other function');

# and one that takes it from others takes what they have by it
$local->safe_psql('postgres', 'GRANT SELECT ON synchro.remotes TO app', extra_params => [ '-U', 'mallory' ]);
is(rows($local, $app), 't|t', 'a view may be granted by others than its owner');
$local->safe_psql('postgres', 'REVOKE SELECT ON synchro.remotes FROM mallory CASCADE');
is(rows($local, $app), 'f|t', 'what is taken from them is taken from all who have it by them');

$_->stop('fast') foreach $local, $remote;
done_testing();
