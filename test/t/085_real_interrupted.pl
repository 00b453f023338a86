# WHY: lines are cut, remotes fall silent and people press Ctrl-C while a table is compared, looked at beforehand, checked or copied.
# Each time there must be an error that says so, in time; nobody's session or worker may be left behind, nothing may have been
# written, and the same call must work when the line is there again.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use IPC::Run;
use RealSchema;
use SynchroTest;
use Test::More;

my ($here, $there) = real_pair(conf => 'synchro.batch_size = 200');
my $proxy = start_proxy($there->port);

$here->safe_psql('postgres', $REAL{more});
is(sync($here, 'there')->{failed}, 0, 'both hold the same');
$here->safe_psql('postgres', "ALTER SERVER there OPTIONS (SET port '$proxy->{port}', ADD connect_timeout '2')");
$there->safe_psql('postgres', q{UPDATE shop.stock SET quantity = -1; DELETE FROM shop.shipment_line; UPDATE shop.category SET name = name || '!' WHERE name = 'deep' AND id = (SELECT max(id) FROM shop.category WHERE name = 'deep')});

my %calls = (
	verify => q{SELECT count(*) FROM synchro.verify('there')},
	preview => q{SELECT count(*) FROM synchro.preview('there')},
	check => q{SELECT count(*) FROM synchro.check('there') WHERE problem LIKE 'on remote%'},
	synchronize => q{SELECT sum(inserted) > 0 FROM synchro.synchronize('there')});

# What a call gives where nothing is in its way, and how many bytes the remote answers.
$here->safe_psql('postgres', $REAL{changes});
my $position = q{SELECT synchro.checkpoint('there'), pending FROM synchro.remotes};
my (%result, %bytes);
my $before = rows($here, $position);
foreach my $call ('preview', 'check')
{
	my $bytes = $proxy->command('count');

	$result{$call} = rows($here, $calls{$call});
	$bytes{$call} = $proxy->command('count') - $bytes;
}
cmp_ok($result{preview}, '>', 100, 'there is something to be looked at');

sub nothing_is_left
{
	my ($testname) = @_;
	my $nobody = q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'sync' OR backend_type = 'synchro pusher'};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $here->poll_query_until('postgres', $nobody) && $there->poll_query_until('postgres', $nobody) ? pass($testname) : fail($testname);
}

#
# cut, or silent, at several moments
#
foreach my $call ('preview', 'check')
{
	foreach my $part (0.2, 0.5, 0.8)
	{
		# silence takes some seconds to be noticed
		foreach my $how ('cut', $part == 0.5 ? 'swallow' : ())
		{
			my $after = int($bytes{$call} / 2 * $part);

			$proxy->command("$how after $after");
			my ($status, $stdout, $stderr) = $here->psql('postgres', "\\set VERBOSITY verbose\n$calls{$call}");
			my $sprung = !$proxy->command('armed');
			$proxy->command('disarm');
			$proxy->command('forward');
			$proxy->command('cut');
			if (!$sprung)
			{
				pass("$call, $how after $after bytes: was done before");
			}
			elsif ($call eq 'check')
			{
				is($status, 0, "$call, $how after $after bytes: a remote that cannot be looked at is a row");
			}
			else
			{
				like($stderr, qr/ERROR:  08\w{3}: /, "$call, $how after $after bytes: an error of the connection");
			}
		}
	}
	nothing_is_left("$call: nobody is left behind");
}
is(rows($here, $position), $before, 'checkpoint and what is pending have stayed');
is(rows($here, $calls{preview}), $result{preview}, 'the preview is the same when the line is there again');

# comparing and pushing
foreach my $call ('verify', 'synchronize')
{
	foreach my $how ('cut', 'swallow')
	{
		foreach my $after ($how eq 'cut' ? (500, 5000, 20000) : 5000)
		{
			$proxy->command("$how after $after");
			my ($status, $stdout, $stderr) = $here->psql('postgres', "\\set VERBOSITY verbose\n$calls{$call}");
			my $sprung = !$proxy->command('armed');
			$proxy->command('disarm');
			$proxy->command('forward');
			$proxy->command('cut');
			$sprung ? like($stderr, qr/ERROR:  08\w{3}: /, "$call, $how after $after bytes: an error of the connection")
			  : is($status, 0, "$call, $how after $after bytes: was done before");
		}
	}
	nothing_is_left("$call: nobody is left behind");
	$here->safe_psql('postgres', q{SELECT synchro.requeue('there')}) if $call eq 'verify';
}
is(sync($here, 'there')->{failed}, 0, 'what is left is pushed');
$there->safe_psql('postgres', q{DELETE FROM shop.category WHERE name LIKE '%!'});
same($here, $there, $REAL{contents}, 'both hold the same');

#
# cancelled while the remote does not answer; and when a lock there is in the way
#
$there->safe_psql('postgres', q{BEGIN; LOCK TABLE shop.stock; PREPARE TRANSACTION 'held'});
$here->safe_psql('postgres', q{UPDATE shop.stock SET quantity = 42});
foreach my $call ('verify', 'preview', 'synchronize')
{
	my ($status, $stdout, $stderr) = $here->psql('postgres', "SET statement_timeout = '1s'; $calls{$call}");

	like($stderr, qr/ERROR:  canceling statement due to statement timeout/, "$call can be cancelled");
}
$there->safe_psql('postgres', q{COMMIT PREPARED 'held'});
$here->safe_psql('postgres', 'BEGIN; LOCK TABLE shop.orders IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION $$here$$');
foreach my $sql (q{SELECT synchro.copy_table('there', 'shop.orders')}, q{SELECT synchro.reset_schema('shop')}, q{SELECT count(*) FROM synchro.manifest('shop')}, q{SELECT count(*) FROM synchro.verify('there', 'shop.orders')})
{
	my ($status, $stdout, $stderr) = $here->psql('postgres', "SET statement_timeout = '1s'; $sql");

	like($stderr, qr/ERROR:  canceling statement due to statement timeout/, "can be cancelled: $sql");
}
$here->safe_psql('postgres', 'COMMIT PREPARED $$here$$');
is(rows($here, 'SELECT count(*) FROM synchro.copying'), '0', 'nothing came of what was cancelled');
is(sync($here, 'there')->{failed}, 0, 'and it goes on');
same($here, $there, $REAL{contents}, 'both hold the same');
nothing_is_left('nobody is left behind');

$_->stop('fast') foreach $here, $there;
done_testing();
