# WHY: a server that starts with a wrong clock, years ahead, and is put right by NTP a moment later has entries in its log that are
# of then, and do not become old before that time has come; so the log would grow for years. There has to be a way out that loses
# nothing: synchro.log_retention = 0 keeps nothing for its age, whatever time it is of.
use strict;
use warnings;

use lib 'test/t';
use ShiftedClock;
use SynchroTest;
use Test::More;

my $size = q{SELECT sum(pg_relation_size(c)) FROM unnest('{synchro.log_0, synchro.log_1, synchro.log_2}'::regclass[]) c};

foreach my $preload (0, 1)
{
	my $local = shifted_node("local_$preload", 10 * 24 * 3600, preload => $preload, conf => "synchro.log_retention = 0\n");
	my $remote = synchro_node("remote_$preload");

	both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE)');
	connect_remote($local, $remote);
	$local->safe_psql('postgres', q{SELECT synchro.pause('office'); SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name) VALUES ('while the clock was wrong')});
	shift_clock($local, 0);
	$local->safe_psql('postgres', q{SELECT synchro.resume('office'); INSERT INTO t (name) VALUES ('now')});
	sync($local, 'office') foreach 1 .. 3;
	same($local, $remote, 'SELECT name FROM t ORDER BY name', "preload $preload: all is pushed");
	if ($preload)
	{
		wait_for($local, "SELECT ($size) = 0", 'always on: the log is emptied');
	}
	else
	{
		is(rows($local, $size), '0', 'on call: the log is emptied');
	}
	$local->stop('fast');
	$remote->stop('fast');
}

done_testing();
