# WHY: to decide which of two changes is newer, a batch asks the log of the remote, which is kept for a day or longer. If it read
# what is kept, pushing would become dearer the longer the remote runs. So the remote's log is filled with millions of
# changes, pushed and not pushed, and the pages of it are counted that batches read: only those that are younger than the
# oldest change that is pushed, and those that the sender has not got yet; and of renames that it has not got, which are looked at for
# each batch, only these.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

plan skip_all => 'what is counted is the same under valgrind, which would take hours' if $ENV{VALGRIND};

my $conf = <<'CONF';
synchronous_commit = off
shared_buffers = 256MB
max_wal_size = 4GB
autovacuum = off
CONF
my ($a, $b) = nodes({ conf => $conf }, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE, n int);
CREATE TABLE bulk (id serial PRIMARY KEY, name text UNIQUE, n int);
SQL
join_nodes($a, $b);
watch([ $a, $b ], t => '{name}', bulk => '{name}');

# Pages of B's log and its indexes that have been asked for, by whomever.
my $pages = <<'SQL';
SELECT sum(coalesce(heap_blks_read + heap_blks_hit, 0) + coalesce(idx_blks_read + idx_blks_hit, 0))
FROM pg_statio_all_tables WHERE schemaname = 'synchro' AND relname ~ '^log_[0-2]$'
SQL

# The pages that a push of a change reads: the least of some.
sub pages_per_push
{
	my ($change) = @_;
	my $least;

	foreach my $try (1 .. 3)
	{
		$a->safe_psql('postgres', $change->($try));
		my $before = rows($b, $pages);
		my $result = sync($a, 'b');

		die $result->{message} if $result->{message} =~ /^No changes/;

		# the session on the remote is at its end, so what it has counted is there
		$b->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'sync'}) or die;
		my $took = rows($b, $pages) - $before;

		note("$took pages");
		$least = $took if !defined $least || $took < $least;
	}
	return $least;
}

my $batch = 0;
my %change = (
	'new rows' => sub { $batch++; return "INSERT INTO t (name, n) SELECT 'new $batch ' || i, 1 FROM generate_series(1, 100) i" },
	'updates' => sub { $batch++; return "UPDATE t SET n = $batch WHERE name LIKE 'row %'" },
	'deletes' => sub { my ($try) = @_; return "DELETE FROM t WHERE name LIKE 'delete $batch $try %'" },
	'changed keys' => sub { my ($try) = @_; return "UPDATE t SET name = 'renamed ' || name WHERE name LIKE 'key $batch $try %'" });

sub measure
{
	my %pages;

	$batch++;
	$a->safe_psql('postgres', "INSERT INTO t (name) SELECT w || ' $batch ' || j || ' ' || i FROM generate_series(1, 100) i, generate_series(1, 3) j, unnest('{delete,key}'::text[]) w");
	settle($a);
	my $own = $batch;

	foreach my $what ('deletes', 'changed keys', 'updates', 'new rows')
	{
		$batch = $own if $what eq 'deletes' || $what eq 'changed keys';
		$pages{$what} = pages_per_push($change{$what});
	}
	return \%pages;
}

$a->safe_psql('postgres', q{INSERT INTO t (name) SELECT 'row ' || i FROM generate_series(1, 100) i});
settle($a, $b);
$a->safe_psql('postgres', q{INSERT INTO t (name) SELECT 'aside ' || i FROM generate_series(1, 1000) i});
settle($a, $b);
my $empty = measure();

#
# a large log, of which nothing has been pushed to A, and then all
#
my $port = $a->port;

$b->safe_psql('postgres', q{ALTER SERVER a OPTIONS (SET port '1')});
$b->safe_psql('postgres', q{INSERT INTO bulk (name) SELECT 'bulk ' || i FROM generate_series(1, 20000) i});
foreach my $transaction (1 .. 50)
{
	$b->safe_psql('postgres', "UPDATE bulk SET n = $transaction");
}
# and many of small transactions
$b->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1 .. 20000 LOOP UPDATE bulk SET n = -i WHERE id = i; COMMIT; END LOOP; END $$});

# nobody is there, but the log is looked after
sync_fails($b, 'a', qr/08001/, 'A cannot be reached from B');
my $size = rows($b, q{SELECT (sum(pg_relation_size(('synchro.log_' || i)::regclass)) / 8192)::int FROM generate_series(0, 2) i});
cmp_ok($size, '>', 800, "B's log has grown to $size pages");

my $changes = rows($b, 'SELECT count(*) FROM synchro.changes');
cmp_ok($changes, '>', 1_000_000, "of $changes changes");

my $pushed = 0;
foreach my $state ('that have not been pushed', 'that have not been pushed, renames among them', 'that have been pushed')
{
	if ($state =~ /renames/)
	{
		# names that change hands, but none of those that A's batches are about
		$b->safe_psql('postgres', <<'SQL');
BEGIN;
UPDATE t SET name = 'was ' || name WHERE name LIKE 'aside %';
UPDATE t SET name = 'aside ' || (substr(name, 11)::int % 1000 + 1) WHERE name LIKE 'was aside %';
COMMIT;
SQL
	}
	elsif ($state !~ /not/)
	{
		$pushed = 1;
		$b->safe_psql('postgres', "ALTER SERVER a OPTIONS (SET port '$port')");
		settle($b, $a);

		# and several times that
		$b->safe_psql('postgres', <<'SQL');
SELECT format('INSERT INTO synchro.log_%1$s SELECT l.* FROM synchro.log_%1$s l CROSS JOIN generate_series(1, 4)', i)
FROM generate_series(0, 2) i \gexec
SQL

		# the log's index is kept by B's own passes
		$b->safe_psql('postgres', q{UPDATE bulk SET n = 0 WHERE id = 1});
		settle($b, $a);
		$changes = rows($b, 'SELECT count(*) FROM synchro.changes');
		cmp_ok($changes, '>', 5_000_000, "then B has logged $changes changes");
	}
	my $large = measure();

	foreach my $what (sort keys %$large)
	{
		# What the sender has not got yet is read once, to tell who overwrites what without knowing of it. Only of new rows there
		# is nothing to be overwritten.
		my $unseen = $pushed || $what eq 'new rows' ? 0 : $size;

		cmp_ok($large->{$what} - $empty->{$what}, '<=', 256 + $unseen,
			"a batch of 100 $what reads $large->{$what} pages of a log of $changes changes $state, $empty->{$what} of a small one");
	}
}
same($a, $b, 'SELECT name, n FROM t ORDER BY name', 'both are the same');

$_->stop('fast') foreach $a, $b;
done_testing();
