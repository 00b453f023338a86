# WHY: a server that boots with a clock that is ahead, and cannot reach its remote as the network is not up yet, waits for a moment of
# that clock. When NTP has put it right, this moment is days away: new changes do not hasten it, so nothing was pushed until then, and
# what the remote had refused was not tried.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use ShiftedClock;
use SynchroTest;
use Test::More;

my $local = shifted_node('local', 10 * 24 * 3600, preload => 1, conf => "synchro.retry_max_interval = 1\n");
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE)');
$remote->safe_psql('postgres', q{ALTER TABLE t ADD CONSTRAINT no_bad CHECK (name <> 'bad')});
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name) VALUES ('one'), ('bad')});
wait_arrival($remote, 'SELECT count(*) FROM t', '1', 'to begin with');
wait_for($local, q{SELECT count(*) = 1 FROM synchro.failures}, 'one is refused');
$remote->stop('fast');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('two')});
wait_for($local, q{SELECT state = 'waiting to try again' FROM synchro.remotes}, 'the remote cannot be reached');
shift_clock($local, 0);
$remote->start;
wait_arrival($remote, 'SELECT count(*) FROM t', '2', 'it is tried again though the clock was set back');
$remote->safe_psql('postgres', 'ALTER TABLE t DROP CONSTRAINT no_bad');
$local->safe_psql('postgres', q{INSERT INTO t (name) VALUES ('three')});
wait_arrival($remote, 'SELECT count(*) FROM t', '4', '... and what was refused');
$_->stop('fast') foreach $local, $remote;
done_testing();
