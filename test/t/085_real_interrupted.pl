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

# A call while the line is cut or falls silent after so many bytes. Returns whether it came to that, its exit status and messages.
sub interrupted
{
	my ($call, $how, $after) = @_;

	$proxy->command("$how after $after");
	my ($status, undef, $stderr) = $here->psql('postgres', "\\set VERBOSITY verbose\n$calls{$call}");
	my $sprung = !$proxy->command('armed');
	$proxy->command($_) foreach 'disarm', 'forward', 'cut';
	return ($sprung, $status, $stderr);
}

#
# cut, or silent, at several moments; silence takes some seconds to be noticed
#
my @moments = map { my $call = $_; map { [ $call, 'cut', int($bytes{$call} / 2 * $_) ] } 0.2, 0.5, 0.8 } 'preview', 'check';
push @moments, map { my $call = $_; map { [ $call, 'cut', $_ ] } 500, 5000, 20000 } 'verify', 'synchronize';
push @moments, [ 'preview', 'swallow', int($bytes{preview} / 4) ], [ 'check', 'swallow', int($bytes{check} / 4) ], [ 'verify', 'swallow', 5000 ], [ 'synchronize', 'swallow', 5000 ];
my $pending = grep { $_->[0] =~ /preview|check/ } @moments;
foreach my $moment (sort { ($b->[0] =~ /preview|check/) <=> ($a->[0] =~ /preview|check/) } @moments)
{
	my ($call, $how, $after) = @$moment;
	my ($sprung, $status, $stderr) = interrupted(@$moment);

	if (!$sprung || $call eq 'check')
	{
		is($status, 0, "$call, $how after $after bytes: " . ($sprung ? 'a remote that cannot be looked at is a row' : 'was done before'));
	}
	else
	{
		like($stderr, qr/ERROR:  08\w{3}: /, "$call, $how after $after bytes: an error of the connection");
	}
	next if --$pending;

	# of those that write nothing
	nothing_is_left('nobody is left behind');
	is(rows($here, $position), $before, 'checkpoint and what is pending have stayed');
	is(rows($here, $calls{preview}), $result{preview}, 'the preview is the same when the line is there again');
}
nothing_is_left('nobody is left behind');
$here->safe_psql('postgres', q{SELECT synchro.requeue('there')});
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
