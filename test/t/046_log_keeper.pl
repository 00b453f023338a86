# WHY: between two passes the worker keeps the log short, which may fail for long: there is no room for sorting it, a page of it is
# damaged. That must not keep it from pushing. It tried that again at once, before each attempt to push, and never came to that;
# and a pass that had brought everything there was said to have failed.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => "synchronous_commit = off\nsynchro.retry_max_interval = 1s\ntemp_file_limit = 10MB\n");
my $remote = synchro_node('remote', conf => "synchronous_commit = off\n");

both($local, $remote, 'CREATE TABLE t (id int PRIMARY KEY, n int)');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t')});

# by parts: what a pass sorts is to have room
foreach my $i (0 .. 39)
{
	$local->safe_psql('postgres', "INSERT INTO t SELECT i, 0 FROM generate_series($i * 10000 + 1, $i * 10000 + 10000) i");
	wait_for($local, 'SELECT pending = 0 FROM synchro.remotes', "part $i") or BAIL_OUT('no part');
}

# with the remote down, what it has got as well may be folded
my $from = -s $local->logfile;

$remote->stop('fast');
$local->safe_psql('postgres', 'UPDATE t SET n = 1 WHERE id = 1');
# since 18 with quotes
$local->wait_for_log(qr/temporary file size exceeds (?:temp_file_limit|"temp_file_limit")/, $from);
wait_for($local, 'SELECT attempts > 3 FROM synchro.remotes', 'it tries to push meanwhile');
like(rows($local, 'SELECT last_error FROM synchro.remotes'), qr/could not connect/, 'what is shown is why it cannot');

my $failures = () = slurp_file($local->logfile, $from) =~ /temporary file size exceeds/g;

cmp_ok($failures, '<', 3, 'the log is looked after from time to time only');
like(slurp_file($local->logfile, $from), qr/CONTEXT:.*looking after the change log/s, 'and its failure is logged');
$remote->start;
wait_for($local, 'SELECT pending = 0 FROM synchro.remotes', 'it pushes when the remote is back, though the log cannot be folded');
same($local, $remote, 'SELECT count(*), sum(n) FROM t', 'both are the same');
$_->stop('fast') foreach $local, $remote;
done_testing();
