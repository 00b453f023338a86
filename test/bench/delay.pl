#!/usr/bin/perl
#
# usage: delay.pl PORT TO-PORT SECONDS: what arrives at one port of 127.0.0.1 goes on to another, and back, after that time
# each way.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

my ($port, $to, $delay) = @ARGV;
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 10, ReuseAddr => 1) or die "port $port: $!";
my $readable = IO::Select->new($server);
my (%other, %queue);

sub drop
{
	my ($socket) = @_;

	for ($socket, $other{$socket})
	{
		next unless $_;
		$readable->remove($_);
		delete $queue{$_};
		close $_;
	}
	delete $other{ $other{$socket} } if $other{$socket};
	delete $other{$socket};
}

while (1)
{
	my $next;
	for my $waiting (values %queue)
	{
		$next = $waiting->{pieces}[0][0] if @{ $waiting->{pieces} } && (!defined $next || $waiting->{pieces}[0][0] < $next);
	}
	my $wait = defined $next ? $next - time : undef;
	for my $socket ($readable->can_read(defined $wait && $wait < 0 ? 0 : $wait))
	{
		if ($socket == $server)
		{
			my $client = $server->accept or next;
			my $remote = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $to) or do { close $client; next };
			setsockopt $_, IPPROTO_TCP, TCP_NODELAY, 1 for $client, $remote;
			@other{ $client, $remote } = ($remote, $client);
			@queue{ $client, $remote } = ({ to => $remote, pieces => [] }, { to => $client, pieces => [] });
			$readable->add($client, $remote);
			next;
		}
		next unless $other{$socket};
		if (sysread $socket, my $bytes, 262144)
		{
			push @{ $queue{$socket}{pieces} }, [ time + $delay, $bytes ];
		}
		else
		{
			drop($socket);
		}
	}
	for my $waiting (values %queue)
	{
		while (@{ $waiting->{pieces} } && $waiting->{pieces}[0][0] <= time)
		{
			my $bytes = (shift @{ $waiting->{pieces} })->[1];
			while (length $bytes)
			{
				my $sent = syswrite $waiting->{to}, $bytes or last;
				substr $bytes, 0, $sent, '';
			}
		}
	}
}
