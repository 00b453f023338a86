# WHY: the log holds keys as bytes, and a disk or a careless superuser may change them. Whoever reads them takes lengths and
# values out of them: a wrong one must end in an error that says what is wrong, never in a crash of the server, in a loop or
# in all of its memory, and never in another row's key. So all that is stored as bytes is damaged by chance, and all that
# reads it is called. In a second part the checksum is made right again: then the reader of the bytes is on its own.
#
# SYNCHRO_SEED=n has the dice fall as before; SYNCHRO_STEPS=n for that many rounds (300).
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $seed = $ENV{SYNCHRO_SEED} || time % 1000000;
my $rounds = $ENV{SYNCHRO_STEPS} || 300;

srand $seed;
diag("seed $seed");

my $node = synchro_node('node', conf => "synchronous_commit = off\nsynchro.retry_max_interval = 1s\nsynchro.log_retention = 1h");
my $there = 'there';

$node->safe_psql('postgres', "CREATE DATABASE $there");

# Of each kind of bytes: natural keys that change, identities that move and have a bit of every type, types that the server
# reads without looking, and keys that do not fit on a page.
foreach my $database ('postgres', $there)
{
	$node->safe_psql($database, <<'SQL');
CREATE TABLE named (id serial PRIMARY KEY, name text NOT NULL, at timestamptz NOT NULL, UNIQUE (name, at));
CREATE TABLE nameless (id serial PRIMARY KEY, what text);
CREATE TABLE given (code text, small int2, at timestamp, day date, id uuid, price numeric, f float8, yes bool, c "char", n name, bytes bytea, v int DEFAULT 0,
	PRIMARY KEY (code, small, at, day, id, price, f, yes, c, n, bytes));
CREATE TABLE trusted (tags text[], span int4range, doc jsonb, net inet, bits varbit, v int DEFAULT 0, PRIMARY KEY (tags, span, doc, net, bits));
CREATE TABLE long (name text NOT NULL, v int DEFAULT 0, id serial PRIMARY KEY);
CREATE TABLE parks (code text PRIMARY KEY, v int);
CREATE EXTENSION synchro;
SQL
}
$node->safe_psql($there, <<'SQL');
SELECT setval('named_id_seq', 1000), setval('nameless_id_seq', 1000), setval('long_id_seq', 1000);
ALTER TABLE parks ADD CHECK (v = 0);
SQL
connect_remote($node, $node, remote_db => $there);
my $watch = <<'SQL';
SELECT synchro.add_table('named', '{name, at}'), synchro.add_table('nameless'), synchro.add_table('given'), synchro.add_table('trusted'),
	synchro.add_table('long', '{name}'), synchro.add_table('parks');
SQL
$node->safe_psql('postgres', $watch);
$node->safe_psql($there, $watch . q{; SELECT synchro.allow_peer('sync')});
$node->safe_psql('postgres', <<'SQL');
INSERT INTO named (name, at) SELECT 'name ' || i, timestamptz '2026-01-01' + i * interval '1 h' FROM generate_series(1, 20) i;
INSERT INTO nameless (what) SELECT 'what ' || i FROM generate_series(1, 20) i;
INSERT INTO given SELECT 'code ' || i, i, timestamp '2026-01-01' + i * interval '1 h', date '2026-01-01' + i, md5(i::text)::uuid, i * 1.5, i / 3.0, i % 2 = 0, 'x',
	'name ' || i, decode(md5(i::text), 'hex') FROM generate_series(1, 20) i;
INSERT INTO trusted SELECT ARRAY['a', 'tag ' || i], int4range(i, 2 * i), jsonb_build_object('a', i, 'b', ARRAY[1, 2]), ('10.0.0.' || i)::inet, i::bit(32)
	FROM generate_series(1, 20) i;
INSERT INTO long (name) SELECT i || string_agg(md5((1000 * i + j)::text), '') FROM generate_series(1, 3) i, generate_series(1, 300) j GROUP BY i;
INSERT INTO parks SELECT 'code ' || i, 0 FROM generate_series(1, 5) i;
CREATE FUNCTION attempt(what text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE what;
	RETURN 'read';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
SQL
sync($node, 'office');

# Changes of every kind; the keys of the rows as they were are in the log then.
my $change = <<'SQL';
BEGIN;
UPDATE named SET name = name || 'x' WHERE id % 5 = 0;
UPDATE named SET at = at WHERE id % 5 = 1;
UPDATE nameless SET what = what;
UPDATE given SET v = v + 1 WHERE small % 3 = 0;
UPDATE given SET small = small + 3, price = price + 1 WHERE small % 3 = 1;
UPDATE trusted SET v = v + 1;
UPDATE trusted SET tags = array_append(tags, 'more') WHERE v % 2 = 0;
UPDATE long SET v = v + 1, name = name || 'x';
COMMIT;
SQL
my $started = rows($node, 'SELECT pg_postmaster_start_time()');

sub survives
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(rows($node, 'SELECT pg_postmaster_start_time()'), $started, "the server is the same after $what");
	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/was terminated by signal|TRAP:/, 'and no process of it has crashed');
	return;
}

my @crc32c = map {
	my $crc = $_;

	$crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 foreach 1 .. 8;
	$crc;
} 0 .. 255;

sub sealed
{
	my ($bytes, $relation, $layout) = @_;
	my $crc = 0xffffffff;

	$crc = ($crc >> 8) ^ $crc32c[ ($crc ^ $_) & 0xff ] foreach unpack 'C*', pack('L', $relation) . pack('l', $layout) . $bytes;
	return $bytes . pack('L', $crc ^ 0xffffffff);
}

# Other bytes of a stored row under a checksum that is right. Of a copy only half of the layout counts.
sub resealed
{
	my ($row, $other) = @_;
	my $layout = $row->{layout};

	$layout = ($layout & 0xffffffff) >> 16 if $row->{table} eq 'copying';
	return sealed($other->(substr $row->{bytes}, 0, -4), $row->{relation}, $layout);
}

sub random_bytes
{
	my ($length) = @_;

	return join '', map { chr int rand 256 } 1 .. $length;
}

# The value with that number is NULL. A record has its flags before the first value.
sub without_value
{
	my ($bytes, $at, $number) = @_;

	$at += ord(substr $bytes, $at, 1) || 1 while $number-- > 0 && $at < length $bytes;
	substr($bytes, $at, ord(substr $bytes, $at, 1) || 1) = "\0" if $at < length $bytes;
	return $bytes;
}

# Bytes that are not the same any more.
sub damaged
{
	my ($bytes) = @_;
	my $length = length $bytes;
	my $at = int rand($length || 1);
	my $result = $bytes;
	my $dice = int rand 13;

	if ($dice == 0) { vec($result, int rand(8 * ($length || 1)), 1) ^= 1; }
	elsif ($dice == 1) { substr($result, int rand($length || 1), 1) = random_bytes(1) foreach 1 .. 1 + rand 5; }
	elsif ($dice == 2) { $result = substr $bytes, 0, $at; }
	elsif ($dice == 3) { $result .= random_bytes(1 + rand 40); }
	elsif ($dice == 4) { $result = random_bytes(rand 200); }
	elsif ($dice == 5) { substr($result, $at, 0) = random_bytes(1 + rand 10); }
	elsif ($dice == 6) { substr($result, $at, rand 12) = ''; }
	elsif ($dice == 7) { substr($result, $at, 1) = ("\x00", "\x01", "\x7f", "\x80", "\xff")[ rand 5 ]; }
	elsif ($dice < 10) { substr($result, $at, 1) = chr(($length - $at + rand 5) & 0x7f); }
	elsif ($dice == 12) { $result = without_value($bytes, int rand 2, int rand 12); }
	else { substr($result, $at, 5) = ("\xff\xff\xff\xff\x0f", "\xff\xff\xff\xff\xff", "\x80\x80\x80\x80\x00", "\x80\x80\x80\x80\x08")[ rand 4 ]; }
	return $result eq $bytes ? damaged($bytes) : $result;
}

# Rows that hold bytes, with the columns that belong to them. Where to look: tables and columns of theirs.
sub stored
{
	my ($database, $where, @places) = @_;
	my $query = join ' UNION ALL ', map {
		my ($table, $column) = split /\./;

		qq{SELECT '$table' AS place, '$column', ctid, relation, relation::regclass, layout, encode($column, 'hex') FROM synchro.$table
			WHERE $column IS NOT NULL AND relation <> 0 AND $where};
	} @places;

	return map {
		my %row;

		@row{qw(table column ctid relation name layout bytes)} = split /\|/;
		$row{bytes} = pack 'H*', $row{bytes};
		\%row;
	} split /\n/, rows($node, "$query ORDER BY place, ctid", $database);
}

sub setting
{
	my ($row, $bytes) = @_;

	return sprintf q{UPDATE synchro.%s SET %s = '\x%s' WHERE ctid = '%s';}, $row->{table}, $row->{column}, unpack('H*', $bytes), $row->{ctid};
}

# the log's, in all three segments
my @segments = map { ("log_$_.keys", "log_$_.long_key") } 0 .. 2;

# What a column besides the bytes may hold.
sub other_column
{
	my ($row) = @_;
	my @others = (
		"relation = 'given'::regclass", "relation = 'nameless'::regclass", 'relation = 1', 'relation = 4294967295',
		'layout = ' . (int(rand 2**32) - 2**31), 'layout = layout # ' . (1 << int rand 31),
		"changed_at = '-infinity'", "changed_at = 'infinity'", "changed_at = '4714-11-24 BC'", "changed_at = '294276-12-31'",
		'txid = 9223372036854775807', 'txid = -9223372036854775808', 'txid = 0', 'part = -2147483648', 'part = 2147483647');

	@others = grep { !/txid/ } @others if $row->{table} eq 'backlog';
	return $others[ rand @others ];
}

# One session reads: rounds of damage, each in a transaction that is rolled back. Returns what the readers said.
my @readers = (
	'SELECT * FROM synchro.changes',
	'SELECT * FROM synchro.remotes',
	q{SELECT synchro.set_checkpoint('office', '-infinity')});

sub read_rounds
{
	my ($rows, $spoil, $with_columns) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/readers.sql";
	my $read = join '', map { 'SELECT attempt($read$' . $_ . '$read$);' . "\n" } @readers;
	my $script = "SET statement_timeout = '60s';\n";
	my $peak = q{SELECT 'peak ' || (regexp_match(pg_read_file('/proc/self/status', 0, 100000), 'VmHWM:\s+(\d+)'))[1];} . "\n";

	$script .= "BEGIN;\n$read" . "ROLLBACK;\n";
	$script .= $peak if -r '/proc/self/status';
	foreach my $round (1 .. $rounds)
	{
		my $row = $rows->[ rand @$rows ];

		$script .= "BEGIN;\n";
		$script .= setting($row, $spoil->($row)) . "\n" if !$with_columns;
		$script .= "UPDATE synchro.$row->{table} SET " . other_column($row) . " WHERE ctid = '$row->{ctid}';\n" if $with_columns;
		$script .= $read . "ROLLBACK;\n";
	}
	$script .= $peak if -r '/proc/self/status';
	PostgreSQL::Test::Utils::append_to_file($file, $script);
	my ($status, $stdout, $stderr) = $node->psql('postgres', undef, extra_params => [ '-f', $file ], on_error_stop => 1);

	unlink $file;
	is($status, 0, "$rounds rounds were read to their end") or diag($stderr);
	my @peaks = $stdout =~ /^peak (\d+)$/mg;

	cmp_ok($peaks[1] - $peaks[0], '<', 100 * 1024, 'the session took no more than 100 MB for them') if @peaks == 2;
	my @said = grep { /^(read|[0-9A-Z]{5} )/ } split /\n/, $stdout;

	is_deeply([ splice @said, 0, scalar @readers ], [ ('read') x @readers ], 'and all is read as long as nothing is damaged');
	return @said;
}

# How often each was said.
sub tally
{
	my %count;

	$count{$_}++ foreach map { /^(\w+ .{0,60})/ ? $1 : $_ } @_;
	note("$count{$_} times: $_") foreach sort keys %count;
	return;
}

# An error of one of these kinds is an answer: damaged, no such value of that type, another primary key.
my $answer = qr/^(read$|XX001 |22\w{3} |55000 )/;

#
# a session reads what is damaged
#
$node->safe_psql('postgres', $change);
my @rows = stored('postgres', 'true', @segments);

cmp_ok(scalar @rows, '>=', 10, 'the log has chunks of every kind');
ok((grep { $_->{column} eq 'long_key' } @rows), 'also keys that are longer than a page');
my @said = read_rounds(\@rows, sub { damaged($_[0]->{bytes}) });
my $log_reads = grep { $said[$_] !~ /^XX001 damaged key in the change log/ && $_ % 3 != 1 } 0 .. $#said;

tally(@said);
is($log_reads, 0, 'whatever of the bytes is damaged, who reads all of the log says so');
ok((grep { /^XX001/ } map { $said[$_] } grep { $_ % 3 == 1 } 0 .. $#said), 'and who reads what is pending, if it is in there');
survives('damage by chance');

@said = read_rounds(\@rows, undef, 1);
tally(@said);
is_deeply([ grep { !/$answer/ } @said ], [], 'damage of the other columns ends in an answer as well');
survives('damage of other columns');

# jsonb, arrays and the like are read by the server without a look at what they hold: nothing of ours can help there
my @plain = grep { $_->{name} ne 'trusted' } @rows;

@said = read_rounds(\@plain, sub { resealed($_[0], \&damaged) });
tally(@said);
is_deeply([ grep { !/$answer/ } @said ], [], 'with a checksum that is right, each damage ends in an answer');
ok((grep { /^read/ } @said) && (grep { /^XX001/ } @said), 'some of it can be read, and some not');
survives('damage under a checksum that is right');

#
# a worker reads it, and the node that it pushes to
#
# Damage, and what a pass then says, in one line.
sub push_damaged
{
	my ($database, $row, $bytes) = @_;
	my (undef, undef, $stderr) = $node->psql($database, setting($row, $bytes)
		  . "\n\\connect postgres\n\\set VERBOSITY verbose\nSELECT * FROM synchro.synchronize('office')");

	return $stderr =~ /ERROR:\s+(.*)/ ? $1 : '';
}

# Undo it, and push. Returns psql's status.
sub push_repaired
{
	my ($database, $row, $bytes) = @_;
	my ($status) = $node->psql($database, sprintf(<<'SQL', $row->{table}, $row->{column}, unpack('H*', $row->{bytes}), $row->{column}, unpack('H*', $bytes)));
UPDATE synchro.%s SET %s = '\x%s' WHERE %s = '\x%s';
\connect postgres
SELECT * FROM synchro.synchronize('office');
SQL

	return $status;
}

my $newest = q{txid = (SELECT max(txid) FROM (SELECT txid FROM synchro.log_0 UNION ALL SELECT txid FROM synchro.log_1 UNION ALL SELECT txid FROM synchro.log_2) l)};
my (%missed, $status);

foreach my $round (1 .. $rounds / 20)
{
	$node->safe_psql('postgres', $change);
	@rows = stored('postgres', $newest, @segments);
	my $row = $rows[ rand @rows ];
	my $bytes = damaged($row->{bytes});

	$missed{$_}++ foreach grep { !/^XX001: .*damaged key in the change log/ } push_damaged('postgres', $row, $bytes);
	$status ||= push_repaired('postgres', $row, $bytes);
}
is_deeply(\%missed, {}, 'a pass over damaged keys says so');
ok(!$status, 'and goes on when they are whole again');
survives('passes over damaged keys');

# What else keeps keys: what the remote refuses, what is to be sent to it again, and copies that are not yet over. One of these has
# come half-way: the remote has taken one piece, and has no room for another.
$node->safe_psql($there, <<'SQL');
CREATE SEQUENCE pieces;
CREATE FUNCTION one_piece() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	IF nextval('public.pieces') > 1 THEN
		RAISE SQLSTATE '53100';
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER one_piece BEFORE UPDATE ON synchro_peer.position FOR EACH ROW EXECUTE FUNCTION one_piece();
SQL
reload_with($node, 'synchro.batch_size' => 10);
$node->psql('postgres', q{SELECT synchro.copy_table('office', 'given'); SELECT * FROM synchro.synchronize('office')}, on_error_stop => 0);
is(rows($node, 'SELECT rows_done > 0 AND rows_done < rows_total FROM synchro.copying'), 't', 'a copy has come half-way');
$node->safe_psql($there, 'DROP TRIGGER one_piece ON synchro_peer.position');
reload_with($node, 'synchro.batch_size' => 1000);

$node->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'nameless'); CREATE TABLE kept_copying AS SELECT * FROM synchro.copying});
$node->safe_psql('postgres', q{SELECT synchro.reset('office', true); UPDATE parks SET v = 1});
sync($node, 'office');

# Nothing that we write has a long key in the backlog, but whoever reads it looks there, too.
my $before = rows($node, 'SELECT clock_timestamp()');

$node->safe_psql('postgres', $change . "SELECT synchro.set_checkpoint('office', '$before')");
$node->safe_psql('postgres', <<'SQL');
UPDATE synchro.backlog SET long_key = keys, keys = NULL WHERE length(keys) > 2000;
CREATE TABLE kept_backlog AS SELECT * FROM synchro.backlog;
CREATE TABLE kept_parked AS SELECT * FROM synchro.parked;
SQL
my @waits = ('parked', 'backlog', 'copying');

# All of it as it was then. Returns what can be damaged, by where it is.
sub wait_again
{
	my %places;

	$node->safe_psql('postgres', join '', 'DELETE FROM synchro.stalled;',
		map { "DELETE FROM synchro.$_; INSERT INTO synchro.$_ OVERRIDING SYSTEM VALUE SELECT * FROM kept_$_;" } @waits);
	push @{ $places{"$_->{table}.$_->{column}"} }, $_
	  foreach stored('postgres', 'true', 'parked.record', 'backlog.keys', 'backlog.long_key', 'copying.last_key', 'copying.until_key');
	return \%places;
}

# Another place each time.
sub one_of
{
	my ($places, $round) = @_;
	my @names = sort keys %$places;
	my $rows = $places->{ $names[ $round % @names ] };

	return $rows->[ rand @$rows ];
}

# As long as nothing is damaged, nobody says so.
sub pushed_whole
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($row) = @{ wait_again()->{'parked.record'} };

	is(push_damaged('postgres', $row, $row->{bytes}), '', 'what is whole is pushed');
	is(rows($node, 'SELECT (SELECT count(*) FROM synchro.backlog) + (SELECT count(*) FROM synchro.copying)'), 0, 'all of it');
	return;
}

my $places = wait_again();

is_deeply([ sort keys %$places ], [ 'backlog.keys', 'backlog.long_key', 'copying.last_key', 'copying.until_key', 'parked.record' ],
	'keys wait wherever they can');
is(scalar @{ $places->{'parked.record'} }, 5, 'five of them are parked');
is(scalar @{ $places->{'copying.until_key'} }, 2, 'and those of two copies are queued');

# a session first
@readers = ('SELECT * FROM synchro.remotes', 'SELECT * FROM synchro.progress');
my @waiting = map { @$_ } @$places{ sort keys %$places };

@said = read_rounds(\@waiting, sub { damaged($_[0]->{bytes}) });
tally(@said);
is_deeply([ grep { !/^(read$|XX001 damaged key in the change log)/ } @said ], [], 'who reads damaged keys among what waits says so');
ok((grep { /^XX001/ } @said), 'and some do read them');
@said = read_rounds([ grep { $_->{name} ne 'trusted' } @waiting ], sub { resealed($_[0], \&damaged) });
tally(@said);
is_deeply([ grep { !/$answer/ } @said ], [], 'with a checksum that is right, each damage of these ends in an answer');
survives('reading what waits');

# then a worker
%missed = ();
foreach my $round (1 .. $rounds / 12)
{
	my $row = one_of(wait_again(), $round);

	$missed{"$row->{table}.$row->{column}: $_"}++ foreach grep { !/^XX001: .*damaged key in the change log/ } push_damaged('postgres', $row, damaged($row->{bytes}));
}
is_deeply(\%missed, {}, 'so does a pass that finds damaged keys among what is parked, to be sent again or to be copied');
pushed_whole();
wait_again();
$node->safe_psql($there, q{ALTER TABLE parks DROP CONSTRAINT parks_v_check});
$node->safe_psql('postgres', q{SELECT synchro.retry('office')});
sync($node, 'office');

# the log of a node that is pushed to tells it whose changes are newer
%missed = ();
foreach my $round (1 .. $rounds / 60)
{
	$node->safe_psql('postgres', $change);
	$node->safe_psql($there, 'UPDATE nameless SET what = what');
	my ($row) = stored($there, "relation = 'nameless'::regclass AND $newest", @segments);
	my $bytes = damaged($row->{bytes});

	$missed{$_}++ foreach grep { !/damaged key in the change log/ } push_damaged($there, $row, $bytes);
	$status ||= push_repaired($there, $row, $bytes);
}
is_deeply(\%missed, {}, 'a node that is pushed to says so of its own log');
ok(!$status, 'and can be pushed to when it is whole again');
foreach my $query (
	'SELECT name, at FROM named ORDER BY 1, 2', 'SELECT what FROM nameless ORDER BY 1', 'SELECT * FROM given ORDER BY 1, 2',
	'SELECT * FROM trusted ORDER BY 1', 'SELECT name, v FROM long ORDER BY 1', 'SELECT * FROM parks ORDER BY 1')
{
	same($node, $node, $query, "both sides are equal: $query", local_db => 'postgres', remote_db => $there);
}
survives('damage of what waits, and of the remote\'s log');

# how one gets out of it where the bytes are gone for good
$node->safe_psql('postgres', 'UPDATE given SET v = v + 1 WHERE small % 2 = 0');
my ($lost) = stored('postgres', $newest, @segments);

my $lost_bytes = damaged($lost->{bytes});

like(push_damaged('postgres', $lost, $lost_bytes), qr/damaged key/, 'a chunk is lost');
$node->safe_psql('postgres', q{SELECT synchro.reset('office', true)});
my @differ = split /\n/, rows($node, q{SELECT difference FROM synchro.verify('office', 'given')});

is_deeply(\@differ, [ ('different') x rows($node, 'SELECT count(*) FROM given WHERE small % 2 = 0') ], 'after reset(), verify() tells which rows were in it');
$node->safe_psql('postgres', 'UPDATE given SET v = v WHERE small % 2 = 0');
sync($node, 'office');
same($node, $node, 'SELECT * FROM given ORDER BY 1, 2', 'and an update of these has them arrive', local_db => 'postgres', remote_db => $there);

# with a checksum that is right
my %says;

foreach my $round (1 .. $rounds / 10)
{
	$node->safe_psql('postgres', $change);
	@rows = grep { $_->{name} ne 'trusted' } stored('postgres', $newest, @segments);
	my $row = $rows[ rand @rows ];
	my $bytes = resealed($row, \&damaged);

	$says{$_}++ foreach map { s/^(.{5}): /$1 /r || 'read' } push_damaged('postgres', $row, $bytes);

	# what it made of the keys may be parked, or be refused: forget it
	$node->safe_psql('postgres', q{SELECT synchro.reset('office', true)}) if push_repaired('postgres', $row, $bytes);
}
tally(map { ($_) x $says{$_} } sort keys %says);
is_deeply([ grep { !/$answer/ } sort keys %says ], [], 'a pass over keys with a checksum that is right ends in an answer, too');
survives('such passes');

# the same for what waits; what a pass has found wrong with a table as a whole is an answer as well
push_repaired('postgres', $lost, $lost_bytes);
pushed_whole();
%says = ();
foreach my $round (1 .. $rounds / 10)
{
	$places = wait_again();
	@$_ = grep { $_->{name} ne 'trusted' } @$_ foreach values %$places;
	my $row = one_of($places, $round);

	$says{$_}++ foreach map { s/^(.{5}): /$1 /r || 'read' } push_damaged('postgres', $row, resealed($row, \&damaged)),
	  split /\n/, rows($node, q{SELECT sqlstate || ': ' || message FROM synchro.stalled});
}
tally(map { ($_) x $says{$_} } sort keys %says);
is_deeply([ grep { !/$answer/ } sort keys %says ], [], 'a pass over what waits with a checksum that is right ends in an answer, too');
ok($says{read} && (grep { /^XX001/ } keys %says), 'some of it can be read, and some not');

# no primary key is NULL
%missed = ();
foreach my $number (0 .. 10)
{
	my ($row) = @{ wait_again()->{'copying.last_key'} };
	my $bytes = resealed($row, sub { without_value($_[0], 0, $number) });

	$missed{"value $number: $_"}++ foreach grep { !/^XX001: .*damaged key in the change log/ } push_damaged('postgres', $row, $bytes);
}
is_deeply(\%missed, {}, 'a pass over a copy that has come to a key with a NULL in it says so');
survives('passes over such that waits');

done_testing();
