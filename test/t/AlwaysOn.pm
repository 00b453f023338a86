
=pod

=head1 NAME

AlwaysOn - what the tests of the always-on workers have in common

=head1 SYNOPSIS

  use AlwaysOn;

  my $proxy = start_proxy($remote->port);
  connect_remote($local, $remote, options => { port => $proxy->{port} });
  $proxy->command('swallow');

=cut

package AlwaysOn;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  wait_arrival
  wait_quiet
  state_of
  pusher_pid
  crash_worker
  crash_postmaster
  soon_enough
  within
  stops_fast
  reload_with
  start_proxy
  sprung
  answer_to_commit
  silent_port
);

=head1 FUNCTIONS

=head2 wait_arrival($remote, $query, $expected, $testname, %opts)

Polls the remote until the query returns the string, as rows() returns it. Returns how long it took, in seconds. Options:
dbname.

=cut

sub wait_arrival
{
	my ($remote, $query, $expected, $testname, %opts) = @_;
	my $started = time;
	my $dbname = $opts{dbname} || 'postgres';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $arrived = $remote->poll_query_until($dbname, $query, $expected);
	diag('what is there instead: ' . rows($remote, $query, $dbname)) unless $arrived;
	ok($arrived, $testname);
	return time - $started;
}

=head2 wait_quiet($node, %opts)

Polls until no worker of ours has done anything for some seconds: it has looked after the log for the last time, too.
Works as well where the workers are connected to: with 11 seconds, the sessions there have also reported their
statistics, which a server delays for up to 10.

  seconds => 6

=cut

sub wait_quiet
{
	my ($node, %opts) = @_;
	my $seconds = $opts{seconds} || 6;

	$node->poll_query_until('postgres', <<"SQL")
SELECT count(*) FILTER (WHERE state <> 'idle' OR state_change > clock_timestamp() - interval '$seconds s') = 0
	AND count(state_change) > 0
FROM pg_stat_activity WHERE application_name LIKE 'synchro%'
SQL
	  or croak 'the pushers do not come to rest';
	return;
}

=head2 state_of($local, $name, $columns, $dbname)

Columns of view synchro.remotes for one remote, as rows() returns them.

=cut

sub state_of
{
	my ($local, $name, $columns, $dbname) = @_;

	return rows($local, "SELECT $columns FROM synchro.remotes WHERE remote = '$name'", $dbname);
}

=head2 pusher_pid($local, $name, $dbname)

Waits until the remote has a pusher; its process id.

=cut

sub pusher_pid
{
	my ($local, $name, $dbname) = @_;

	$local->poll_query_until($dbname || 'postgres',
		"SELECT worker_pid IS NOT NULL FROM synchro.remotes WHERE remote = '$name'")
	  or croak "there is no pusher for $name";
	return state_of($local, $name, 'worker_pid', $dbname);
}

=head2 crash_worker($node, $pid)

Kills a worker with SIGKILL and waits until the server, which starts all of its processes anew then, has done so: a session
begun before that would be ended with the others.

=cut

sub crash_worker
{
	my ($node, $pid) = @_;
	my $checkpointer = rows($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});

	croak 'there is no such worker' unless $pid =~ /^\d+$/;
	kill 'KILL', $pid;
	$node->poll_query_until('postgres',
		"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'checkpointer' AND pid <> $checkpointer)")
	  or croak 'the server does not come back';
	return;
}

=head2 crash_postmaster($node)

Kills the postmaster with SIGKILL, and starts the server again as soon as that can be: all of its processes have to end by
themselves before, since they have its shared memory. Dies if they do not.

=cut

sub crash_postmaster
{
	my ($node) = @_;
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	$node->kill9;
	until ($node->start(fail_ok => 1))
	{
		croak 'processes of ' . $node->name . " do not end without their postmaster; the end of its log:\n" . substr(slurp_file($node->logfile), -2000)
		  if time > $until;
		usleep(100_000);

		# it may have been taken for running
		$node->stop('fast', fail_ok => 1);
	}
	return;
}

=head2 within($seconds, $testname, $action)

The action does not take longer than that on a machine that has nothing else to do. What it must not do is to wait for something
that does not happen, which takes minutes, or for ever. So it fails only if it takes four times as long: tests run on
machines that are busy. What took too long is told in any case.

=cut

sub within
{
	my ($seconds, $testname, $action) = @_;
	my $started = time;

	$action->();
	my $took = time - $started;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	diag(sprintf '%s: %.1f s, on an idle machine no more than %d', $testname, $took, $seconds) if $took >= $seconds;
	cmp_ok($took, '<', 4 * $seconds, sprintf '%s (%.1f s)', $testname, $took);
	return;
}

=head2 soon_enough($limit, $testname, $measure)

What $measure returns is below the limit in one of five runs at least: a machine that is busy makes some of them slow, code
that waits makes all of them slow.

=cut

sub soon_enough
{
	my ($limit, $testname, $measure) = @_;
	my @measured;

	foreach my $run (1 .. 5)
	{
		push @measured, $measure->();
		last if $measured[-1] < $limit;
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok($measured[-1], '<', $limit, "$testname (" . join(', ', @measured) . ')');
	return;
}

=head2 stops_fast($node, $testname)

C<pg_ctl stop -m fast> ends within five seconds, as within() has it.

=cut

sub stops_fast
{
	my ($node, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	within(5, $testname, sub { $node->stop('fast') });
	return;
}

=head2 reload_with($node, %settings)

New settings for a running server, until it has told all of its processes. A value is to be written as SHOW writes it.

=cut

sub reload_with
{
	my ($node, %settings) = @_;

	$node->append_conf('postgresql.conf', join "\n", map { "$_ = '$settings{$_}'" } sort keys %settings);
	$node->reload;

	# The postmaster reads the file, signals the others, and only then starts a session that shows it.
	foreach my $name (sort keys %settings)
	{
		$node->poll_query_until('postgres', "SHOW $name", $settings{$name}) or croak "$name is not taken up";
	}
	return;
}

=head2 silent_port()

A port on 127.0.0.1 where connections are taken and nothing is ever answered, like a host behind a firewall that drops
packets. It is there as long as the returned socket is.

=cut

sub silent_port
{
	my $socket = IO::Socket::INET->new(
		Listen => 20,
		LocalAddr => '127.0.0.1',
		Proto => 'tcp') or croak "could not listen: $!";

	return ($socket, $socket->sockport);
}

=head2 sprung($proxy, $node, $testname)

What the proxy was told to wait for has come by; it must not be asked for in vain. C<$node> is asked meanwhile.

=cut

sub sprung
{
	my ($proxy, $node, $testname) = @_;
	my $tries = 0;

	comes_back($node) while $proxy->command('armed') && $tries++ < 2000;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(!$proxy->command('armed'), $testname);
}

=head2 answer_to_commit()

What a server answers to COMMIT, in hexadecimal digits: CommandComplete with that tag.

=cut

sub answer_to_commit
{
	return unpack 'H*', pack('A N', 'C', 4 + 7) . "COMMIT\0";
}

=head2 start_proxy($port)

A process that forwards TCP connections to that port of 127.0.0.1. Its C<port> is where it listens. Ends with the test.

=head2 $proxy->command($command)

C<swallow>: nothing is forwarded any more, in no direction, and new connections are not answered, though all of them stay
open. C<forward>: new connections are forwarded again; those from before stay as they are. C<cut>: all are closed.
C<delay N>: what is forwarded waits for N seconds before, each way. C<taken>, C<count>: nothing happens.

C<swallow after N>, C<cut after N>: the same as soon as clients have sent N bytes more, and these are forwarded;
C<swallow after N answers>, C<cut after N answers>: as soon as servers have. C<swallow at HEX>, C<cut at HEX>, with or
without C<answers>: before these bytes, given as hexadecimal digits. C<hold at HEX>: what that client sends from there on is
kept, whether it stays or goes, and everything else forwarded, until C<release>. One such trap at a time; C<disarm> takes it
away. C<armed> asks whether it is still set: 1 or 0.

It is done when this returns. Returns how many connections have been taken so far;
C<count>: how many bytes have been forwarded, both ways together.

=cut

sub start_proxy
{
	my ($port) = @_;
	my $listener = IO::Socket::INET->new(
		Listen => 20,
		LocalAddr => '127.0.0.1',
		ReuseAddr => 1,
		Proto => 'tcp') or croak "could not listen: $!";
	my ($reader, $writer, $answers, $answerer);

	pipe($reader, $writer) or croak "pipe: $!";
	pipe($answers, $answerer) or croak "pipe: $!";
	my $pid = fork;
	croak "fork: $!" unless defined $pid;
	if (!$pid)
	{
		close $writer;
		close $answers;
		$answerer->autoflush(1);
		_forward($listener, $port, $reader, $answerer);
		require POSIX;
		POSIX::_exit(0);
	}
	close $reader;
	close $answerer;
	$writer->autoflush(1);
	return bless {
		pid => $pid,
		port => $listener->sockport,
		answers => $answers,
		writer => $writer
	  },
	  'AlwaysOn::Proxy';
}

# Connections, what was said about them, and what they are waiting for.
sub _forward
{
	my ($listener, $port, $commands, $answerer) = @_;
	my $self = {
		select => IO::Select->new($listener, $commands),
		of => {},
		deaf => [],
		swallow => 0,
		delay => 0,
		taken => 0,
		bytes => 0,
		trap => undef
	};

	$SIG{PIPE} = 'IGNORE';
	while (1)
	{
		foreach my $socket ($self->{select}->can_read)
		{
			if ($socket == $commands)
			{
				my $line = <$commands>;

				return unless defined $line;
				chomp $line;
				print $answerer _obey($self, $line), "\n";

				# what else is ready may be so no longer
				last;
			}
			elsif ($socket == $listener)
			{
				_take($self, $listener, $port);
			}
			elsif (my $connection = $self->{of}{$socket})
			{
				# the same
				last if _move($self, $connection, $socket);
			}
		}
	}
	return;
}

sub _obey
{
	my ($self, $line) = @_;

	if ($line eq 'swallow') { _swallow($self) }
	elsif ($line eq 'cut') { _cut($self) }
	elsif ($line eq 'forward') { $self->{swallow} = 0 }
	elsif ($line eq 'disarm') { undef $self->{trap} }
	elsif ($line eq 'count') { return $self->{bytes} }
	elsif ($line eq 'armed') { return $self->{trap} ? 1 : 0 }
	elsif ($line =~ /^delay (\S+)$/) { $self->{delay} = $1 }
	elsif ($line =~ /^(swallow|cut) after (\d+)( answers)?$/)
	{
		$self->{trap} = { action => $1, left => $2, from => $3 ? 'server' : 'client' };
	}
	elsif ($line =~ /^(swallow|cut|hold) at ([0-9a-f]+)( answers)?$/)
	{
		$self->{trap} = { action => $1, text => pack('H*', $2), from => $3 ? 'server' : 'client' };
	}
	elsif ($line eq 'release')
	{
		foreach my $connection (values %{ $self->{of} })
		{
			my $held = delete $connection->{held};

			next unless defined $held;
			_write($connection->{server}, $held);
			shutdown $connection->{server}, 1 if $connection->{gone};
		}
	}
	return $self->{taken};
}

sub _swallow
{
	my ($self) = @_;

	$self->{swallow} = 1;
	foreach my $connection (values %{ $self->{of} })
	{
		$self->{select}->remove($connection->{client}, $connection->{server});
	}
	return;
}

sub _cut
{
	my ($self) = @_;

	foreach my $connection (values %{ $self->{of} })
	{
		$self->{select}->remove($connection->{client}, $connection->{server});
		close $connection->{$_} foreach 'client', 'server';
	}
	close $_ foreach @{ $self->{deaf} };
	$self->{of} = {};
	$self->{deaf} = [];
	return;
}

sub _take
{
	my ($self, $listener, $port) = @_;
	my $client = $listener->accept or return;

	$self->{taken}++;

	# kept, so that it stays open
	if ($self->{swallow})
	{
		push @{ $self->{deaf} }, $client;
		return;
	}
	my $server = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Proto => 'tcp');
	if (!$server)
	{
		close $client;
		return;
	}
	my $connection = { client => $client, server => $server, tail => '' };

	$self->{of}{$client} = $self->{of}{$server} = $connection;
	$self->{select}->add($client, $server);
	return;
}

sub _write
{
	my ($socket, $data) = @_;
	my $sent = 0;

	while ($sent < length $data)
	{
		my $n = syswrite($socket, $data, length($data) - $sent, $sent);

		last unless defined $n;
		$sent += $n;
	}
	return;
}

# Forwards what can be read from one side of a connection. Returns whether that has changed more than this connection.
sub _move
{
	my ($self, $connection, $socket) = @_;
	my $from = $socket == $connection->{client} ? 'client' : 'server';
	my $other = $connection->{ $from eq 'client' ? 'server' : 'client' };
	my $data;

	if (!sysread($socket, $data, 65536))
	{
		$self->{select}->remove($socket);

		# what is held is to get there, whoever has gone
		if (defined $connection->{held} && $from eq 'client')
		{
			$connection->{gone} = 1;
			return 0;
		}
		$self->{select}->remove($other);
		delete $self->{of}{$_} foreach $connection->{client}, $connection->{server};
		close $connection->{$_} foreach 'client', 'server';
		return 0;
	}
	usleep($self->{delay} * 1_000_000) if $self->{delay};
	if (defined $connection->{held} && $from eq 'client')
	{
		$connection->{held} .= $data;
		return 0;
	}
	my $trap = $self->{trap};
	my $rest = $trap && $trap->{from} eq $from ? _trapped($trap, $connection, \$data) : undef;

	_write($other, $data);
	$self->{bytes} += length $data;
	return 0 unless defined $rest;
	undef $self->{trap};
	if ($trap->{action} eq 'hold')
	{
		$connection->{held} = $rest;
		return 0;
	}
	$trap->{action} eq 'cut' ? _cut($self) : _swallow($self);
	return 1;
}

# Is the trap sprung by these bytes? Then they are cut off where it is, and what follows is returned.
sub _trapped
{
	my ($trap, $connection, $data) = @_;
	my $at;

	if (defined $trap->{left})
	{
		$at = $trap->{left} if length $$data >= $trap->{left};
		$trap->{left} -= length $$data;
	}
	else
	{
		# it may have come in two pieces, the first of which is gone
		my $known = length $connection->{tail};
		my $found = index $connection->{tail} . $$data, $trap->{text};

		$at = $found > $known ? $found - $known : 0 if $found >= 0;
		$connection->{tail} = substr $connection->{tail} . $$data, -length $trap->{text};
	}
	return unless defined $at;
	$connection->{tail} = '';
	return substr $$data, $at, length $$data, '';
}

package AlwaysOn::Proxy;

sub command
{
	my ($self, $command) = @_;

	print { $self->{writer} } "$command\n";
	my $taken = readline $self->{answers} // die 'the proxy is gone';
	chomp $taken;
	return $taken;
}

sub DESTROY
{
	my ($self) = @_;

	local ($?, $!);
	close $self->{writer};
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	return;
}

1;
