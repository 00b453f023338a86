
=head1 NAME

SmallDisk - disks that can be filled

=head1 SYNOPSIS

  use lib 'test/t';
  use SmallDisk;			# before the modules of servers

  plan skip_all => '...' unless small_disks();
  my $folder = small_disk('wal', 64);	# in megabytes
  fill('wal');
  make_room('wal');

=head1 DESCRIPTION

They are of tmpfs, in a mount namespace of the test's own: for that no root is needed where ordinary users may have user
namespaces. The test is begun anew for that, in the namespace. Nothing stays mounted when its processes have gone.

=cut

package SmallDisk;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(small_disks small_disk fill make_room);

BEGIN
{
	my @unshare = qw(unshare --user --map-current-user --keep-caps --mount);

	if (!$ENV{SYNCHRO_OWN_MOUNTS} && system("@unshare sh -c 'mount -t tmpfs tmpfs /tmp' >/dev/null 2>&1") == 0)
	{
		$ENV{SYNCHRO_OWN_MOUNTS} = 1;
		exec @unshare, $^X, map({ "-I$_" } @INC), $0 or die "exec: $!";
	}
}

use Carp;
use PostgreSQL::Test::Utils;

my $disks;
my @mounted;

=head1 FUNCTIONS

=head2 small_disks()

Whether this user can have any.

=cut

sub small_disks { return $ENV{SYNCHRO_OWN_MOUNTS} }

=head2 small_disk($name, $megabytes)

Makes one. Returns an empty folder on it.

=cut

sub small_disk
{
	my ($name, $megabytes) = @_;

	$disks = PostgreSQL::Test::Utils::tempdir_short() unless defined $disks;
	mkdir "$disks/$name" or croak "mkdir: $!";
	system_or_bail('mount', '-t', 'tmpfs', '-o', "size=${megabytes}m,mode=0700", 'tmpfs', "$disks/$name");
	push @mounted, "$disks/$name";
	mkdir "$disks/$name/data" or croak "mkdir: $!";
	return "$disks/$name/data";
}

=head2 fill($name)

Writes there until nothing goes there any more.

=cut

sub fill
{
	my ($name) = @_;

	open my $file, '>', "$disks/$name/ballast" or croak "open: $!";
	binmode $file;
	foreach my $size (65536, 4096)
	{
		1 while (syswrite($file, "\0" x $size) || 0) == $size;
	}
	close $file;
	return;
}

=head2 make_room($name)

Undoes fill().

=cut

sub make_room
{
	my ($name) = @_;

	unlink "$disks/$name/ballast" or croak "unlink: $!";
	return;
}

# After servers are stopped by PostgreSQL::Test::Cluster, and before File::Temp removes folders: the last to be compiled is run
# first.
END
{
	my $status = $?;

	system 'umount', '-l', $_ foreach @mounted;
	$? = $status;
}

1;
