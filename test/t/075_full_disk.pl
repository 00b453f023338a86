# WHY: a disk that is full is nobody's fault but the disk's: no row may be parked for it, none be lost or applied twice, and when
# there is room again everything must go on by itself. Nor may what a pusher leaves behind be what keeps the disk full.
use strict;
use warnings;

use lib 'test/t';
use SmallDisk;
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

plan skip_all => 'this user cannot mount a tmpfs in a namespace of his own' unless small_disks();

# one for the WAL and one for a tablespace, on either side
my %disks = map { $_->[0] => small_disk(@$_) } [ 'local-wal', 64 ], [ 'remote-wal', 64 ], [ 'local-space', 64 ], [ 'remote-space', 32 ];

# no checkpoint that would make WAL files available again
my $conf = "checkpoint_timeout = 1h\nmax_wal_size = 1GB\nmin_wal_size = 2MB\n";
my $local = synchro_node('local', preload => 1, initdb => [ '--wal-segsize=1', "--waldir=$disks{'local-wal'}" ], conf => $conf . "synchro.retry_max_interval = 1s\nsynchro.batch_size = 20000\n");
my $remote = synchro_node('remote', initdb => [ '--wal-segsize=1', "--waldir=$disks{'remote-wal'}" ], conf => $conf);

# The local database as a whole, with our log and with temporary files; on the remote only the table.
foreach my $node ($local, $remote)
{
	my $name = $node->name;

	$node->safe_psql('postgres', qq{CREATE TABLESPACE small LOCATION '$disks{"$name-space"}'});
	$node->safe_psql('postgres', 'CREATE DATABASE app' . ($name eq 'local' ? ' TABLESPACE small STRATEGY file_copy' : ''));
}
both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, data text)', dbname => 'app');
$remote->safe_psql('app', <<'SQL');
ALTER TABLE t SET TABLESPACE small;
ALTER TABLE t ALTER data SET STORAGE EXTERNAL;
CREATE TABLE audit (name text, operation text);
CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.audit VALUES (NEW.name, TG_OP);
	RETURN NULL;
END
$$;
CREATE TRIGGER note_it AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note_it();
SQL

# the statements that say the password are not to be logged
my $password = 'kept' . join '', map { ('a' .. 'z')[ rand 26 ] } 1 .. 20;

$_->append_conf('postgresql.conf', 'log_statement = none'), $_->reload foreach $local, $remote;
connect_remote($local, $remote, dbname => 'app', password => $password);
$_->append_conf('postgresql.conf', 'log_statement = all'), $_->reload foreach $local, $remote;
$local->safe_psql('app', q{SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name) VALUES ('first')});
wait_arrival($remote, 'SELECT count(*) FROM t', '1', 'a row to begin with', dbname => 'app');

sub settled
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for($local, 'SELECT pending = 0 AND failed = 0 FROM synchro.remotes', "$testname: room again, it goes on by itself", dbname => 'app')
	  or diag(rows($local, 'SELECT * FROM synchro.remotes', 'app'));
	same($local, $remote, 'SELECT name, length(data), md5(data) FROM t ORDER BY name', "$testname: both sides are the same", dbname => 'app');
	is(rows($remote, 'SELECT name, operation FROM audit GROUP BY 1, 2 HAVING count(*) > 1', 'app'), '', "$testname: nothing was applied twice");
	return;
}

my $rows = q{INSERT INTO t (name, data) SELECT '%s ' || i, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, %d) j) FROM generate_series(1, %d) i};
my $full = q{SELECT attempts >= 3 AND pending > 0 AND failed = 0 AND last_error LIKE '%%No space left on device%%' FROM synchro.remotes};

#
# the remote has no room for the rows
#
fill('remote-space');
$local->safe_psql('app', sprintf $rows, 'no room', 32, 1000);
wait_for($local, $full =~ s/%%/%/gr, 'the remote\'s table: tried again, and nothing is parked', dbname => 'app')
  or diag(rows($local, 'SELECT * FROM synchro.remotes', 'app'));
make_room('remote-space');
settled('the remote\'s table');

#
# nor for its WAL: then it goes down
#
fill('remote-wal');
$local->safe_psql('app', sprintf $rows, 'no WAL there', 32, 5000);
wait_for($local, q{SELECT state = 'waiting to try again' AND attempts >= 2 AND pending > 0 AND failed = 0 FROM synchro.remotes}, 'the remote\'s WAL: it is tried again', dbname => 'app');
my $tries = 0;
$local->poll_query_until('postgres', 'SELECT true') while -e $remote->data_dir . '/postmaster.pid' && $tries++ < 300;
like(slurp_file($remote->logfile), qr/PANIC:  .*No space left on device/, 'the remote\'s WAL: the server is down');
make_room('remote-wal');
$remote->stop('immediate', fail_ok => 1);
$remote->start;
settled('the remote\'s WAL');

#
# No room here for what is to be sent, in temporary files of many megabytes: rows, and keys by the ten thousand.
#
my $temporary = q{SELECT coalesce(sum(size), 0) FROM pg_ls_tmpdir((SELECT oid FROM pg_tablespace WHERE spcname = 'small'))};

foreach my $case ([ 'rows', 1024, 400 ], [ 'keys', 1, 60000 ])
{
	my ($what, $length, $count) = @$case;

	$local->safe_psql('app', q{SELECT synchro.pause('office')});
	wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}, "files of $what: no pusher");
	$local->safe_psql('app', sprintf $rows, "files of $what", $length, $count);
	$local->safe_psql('app', 'CHECKPOINT');
	fill('local-space');
	$local->safe_psql('app', q{SELECT synchro.resume('office')});
	wait_for($local, $full =~ s/%%/%/gr =~ s/attempts >= 3/attempts >= 1/r, "files of $what: tried again, and nothing is parked", dbname => 'app')
	  or diag(rows($local, 'SELECT * FROM synchro.remotes', 'app'));
	wait_for($local, "SELECT ($temporary) = 0 AND state <> 'pushing' FROM synchro.remotes", "files of $what: none is left behind", dbname => 'app')
	  or diag(rows($local, $temporary));
	make_room('local-space');
	settled("files of $what");
}

#
# No room here for what the application writes, nor for our log: what is committed is logged.
#
fill('local-space');
my ($done, $refused) = (0, 0);

foreach my $i (1 .. 40)
{
	my ($status, undef, $stderr) = $local->psql('app', sprintf $rows, "transaction $i", 1, $i % 2 ? 1 : 200);

	$status == 0 ? $done++ : $refused++;
	like($stderr, qr/No space left on device/, "transaction $i is refused for that") if $status != 0;
}
cmp_ok($refused, '>', 0, "the application meets it: $refused transactions are refused, $done are not");
make_room('local-space');
settled('the application');

#
# nor for WAL here: then this server goes down, too
#
fill('local-wal');
my $lost = 0;

# until the files are used up that there are; the message is in WAL only
foreach my $i (1 .. 100)
{
	my ($status) = $local->psql('app', "BEGIN; INSERT INTO t (name) VALUES ('no WAL here $i'); SELECT pg_logical_emit_message(true, 'synchro', repeat('x', 1000000)); COMMIT");

	last if $lost = !defined $status || $status != 0;
}
ok($lost, 'WAL here: a transaction is lost');
$tries = 0;
$remote->poll_query_until('postgres', 'SELECT true') while -e $local->data_dir . '/postmaster.pid' && $tries++ < 300;
like(slurp_file($local->logfile), qr/PANIC:  .*No space left on device/, 'WAL here: the server is down');
make_room('local-wal');
$local->stop('immediate', fail_ok => 1);
$local->start;
$local->safe_psql('app', q{INSERT INTO t (name) VALUES ('last')});
wait_arrival($remote, q{SELECT count(*) FROM t WHERE name = 'last'}, '1', 'WAL here: it goes on', dbname => 'app');
settled('WAL here');

# whatever was said of it, the password was not
is(rows($local, qq{SELECT count(*) FROM (SELECT r::text AS seen FROM synchro.remotes r UNION ALL SELECT f::text FROM synchro.failures f UNION ALL SELECT a::text FROM pg_stat_activity a) x WHERE seen LIKE '%${\ join "' || '", split //, $password}%'}, 'app'),
	0, 'views tell no password');
$local->stop('fast');
$remote->stop('fast');
foreach my $node ($local, $remote)
{
	my $log = slurp_file($node->logfile);

	like($log, qr/No space left on device/, $node->name . ': the log is that of what was full');
	unlike($log, qr/$password/, $node->name . ': the log tells no password');
}
done_testing();
