# WHY: rows without a natural key are known to the other side by a stored pair of ids, which the receiver keeps. Where both
# sides push, each must find the row that the other one has made of its own, or it would be made again and again.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE note (id serial PRIMARY KEY, what text, n int);
CREATE TABLE line (id serial PRIMARY KEY, note_id int NOT NULL REFERENCES note ON DELETE CASCADE, what text);
SQL
$b->safe_psql('postgres', q{SELECT setval('note_id_seq', 1000), setval('line_id_seq', 5000)});
join_nodes($a, $b);
watch([$a, $b], note => undef, line => undef);

my $all = q{SELECT 'note', what, n::text FROM note UNION ALL SELECT 'line', n.what, l.what FROM line l JOIN note n ON n.id = l.note_id ORDER BY 1, 2, 3};

sub on
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

on($a, q{INSERT INTO note (what, n) SELECT 'of a ' || i, 1 FROM generate_series(1, 10) i; INSERT INTO line (note_id, what) SELECT id, 'line of a' FROM note});
on($b, q{INSERT INTO note (what, n) SELECT 'of b ' || i, 1 FROM generate_series(1, 10) i; INSERT INTO line (note_id, what) SELECT id, 'line of b' FROM note});
settle($a, $b);
same($a, $b, $all, 'both have the rows of both');
is(rows($a, 'SELECT count(*) FROM note'), '20', 'each once');

# each side changes what the other one has made
on($a, q{UPDATE note SET n = 2 WHERE what LIKE 'of b%'; UPDATE line SET what = what || ' changed by a' WHERE what = 'line of b'});
on($b, q{UPDATE note SET n = 3 WHERE what LIKE 'of a%'; UPDATE line SET what = what || ' changed by b' WHERE what = 'line of a'});
settle($a, $b);
same($a, $b, $all, 'what the other side has made can be changed here');
is(rows($a, 'SELECT (SELECT count(*) FROM note), (SELECT count(*) FROM line)'), '20|20', 'and is not made again');

on($a, q{INSERT INTO line (note_id, what) SELECT id, 'second, by a' FROM note WHERE what LIKE 'of b%'; DELETE FROM note WHERE what = 'of b 1'});
on($b, q{INSERT INTO line (note_id, what) SELECT id, 'second, by b' FROM note WHERE what LIKE 'of a%'; DELETE FROM note WHERE what = 'of a 1'});
settle($a, $b);
same($a, $b, $all, 'new rows refer to it, and it is deleted');
is(rows($a, 'SELECT count(*) FROM note'), '18', 'on both sides');

# newest wins
foreach my $order ([ $a, $b ], [ $b, $a ])
{
	my $name = $order->[0]->name;

	on($a, q{UPDATE note SET n = 5 WHERE what = 'of a 2'; UPDATE note SET n = 5 WHERE what = 'of b 2'});
	on($b, q{UPDATE note SET n = 6 WHERE what = 'of a 2'});
	on($a, q{UPDATE note SET n = 7 WHERE what = 'of b 2'});
	settle(@$order);
	same($a, $b, $all, "$name first: both are the same");
	is(rows($a, q{SELECT what, n FROM note WHERE what LIKE 'of _ 2' ORDER BY 1}), "of a 2|6\nof b 2|7", 'with the later change');
}
on($a, q{UPDATE note SET n = 8 WHERE what IN ('of a 3', 'of b 3')});
on($b, q{DELETE FROM note WHERE what IN ('of a 3', 'of b 3')});
settle($a, $b);
same($a, $b, $all, 'a delete that is newer than an update');
is(rows($a, q{SELECT count(*) FROM note WHERE what LIKE 'of _ 3'}), '0', 'wins');
on($b, q{DELETE FROM note WHERE what IN ('of a 4', 'of b 4')});
on($a, q{UPDATE note SET n = 9 WHERE what IN ('of a 4', 'of b 4')});
settle($a, $b);
same($a, $b, $all, 'an update that is newer than a delete');
is(rows($a, q{SELECT what, n FROM note WHERE what LIKE 'of _ 4' ORDER BY 1}), "of a 4|9\nof b 4|9", 'wins');

# what identifies a row may look otherwise for the role that pushes: its time zone, date style and style of intervals
on($_, q{ALTER DATABASE postgres SET timezone = 'Europe/Berlin'; ALTER DATABASE postgres SET datestyle = 'SQL, DMY'; ALTER DATABASE postgres SET intervalstyle = 'iso_8601'})
  foreach $a, $b;
both($a, $b, <<'SQL');
CREATE TABLE event (id serial, at timestamptz, what text, n int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE event_2024 PARTITION OF event FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2025-01-01 00:00+00');
CREATE TABLE span (id serial, day date, took interval, what text, n int, PRIMARY KEY (id, day, took));
SQL
on($b, q{SELECT setval('event_id_seq', 1000), setval('span_id_seq', 5000)});
watch([$a, $b], event => undef, span => undef);
foreach my $node ($a, $b)
{
	my $name = $node->name;

	on($node, qq{INSERT INTO event (at, what, n) SELECT timestamptz '2024-06-14 23:30+00' + i * interval '1 day', 'of $name ' || i, 1 FROM generate_series(1, 5) i;
		INSERT INTO span (day, took, what, n) SELECT date '2024-03-04' + i, i * interval '1 month -2 days 3 hours', 'of $name ' || i, 1 FROM generate_series(1, 5) i});
}
settle($a, $b);
my $events = q{SELECT 'event', what, at::text, n FROM event UNION ALL SELECT 'span', what, format('%s %s', day, took), n FROM span ORDER BY 1, 2, 3, 4};
my $counts = 'SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM span)';

sub events_are
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	settle($a, $b);
	same($a, $b, $events, $testname);
	is(rows($a, $counts), '10|10', 'each row once');
	foreach my $pair ([ $a, 'b' ], [ $b, 'a' ])
	{
		is(rows($pair->[0], "SELECT count(*) FROM synchro.verify('$pair->[1]', '$_')"), '0', "verify('$pair->[1]') finds nothing in $_") foreach qw(event span);
	}
	return;
}
events_are('times in a primary key: both have the rows of both');
on($a, q{UPDATE event SET n = n + 1 WHERE what LIKE 'of b%'; UPDATE span SET n = n + 1 WHERE what LIKE 'of b%'});
on($b, q{UPDATE event SET n = n + 2 WHERE what LIKE 'of a%'; UPDATE span SET n = n + 2 WHERE what LIKE 'of a%'});
events_are('each changes those of the other');

# so did earlier versions write them
on($_, q{DELETE FROM synchro_peer.reference WHERE relation = '#pinned';
	UPDATE synchro_peer.reference SET remote_key = ARRAY[remote_key[1], remote_key[2]::timestamptz::text] WHERE relation = 'public.event';
	UPDATE synchro_peer.reference SET remote_key = ARRAY[remote_key[1], remote_key[2]::date::text, remote_key[3]::interval::text] WHERE relation = 'public.span'})
  foreach $a, $b;
like(rows($b, q{SELECT remote_key[2] FROM synchro_peer.reference WHERE relation = 'public.event' LIMIT 1}), qr{^\d\d/\d\d/2024 \d\d:30:00 CEST$}, 'references as they were before');
on($_, q{UPDATE event SET n = n + 10 WHERE what LIKE 'of _ 1'; UPDATE span SET n = n + 10 WHERE what LIKE 'of _ 1'}) foreach $a, $b;
events_are('references of before');
is(rows($b, q{SELECT count(*) FROM synchro_peer.reference WHERE relation IN ('public.event', 'public.span') AND remote_key[2] !~ '^2024-\d\d-\d\d( \d\d:30:00\+00)?$'}), '0', 'are written anew');
on($a, q{DELETE FROM event WHERE what = 'of b 2'; DELETE FROM span WHERE what = 'of b 2'});
settle($a, $b);
same($a, $b, $events, 'and deletes are of the right rows');
is(rows($b, $counts), '9|9', 'of one each');

# a cast to text writes some types otherwise than they do: true for t, no blanks at the end, a netmask that goes without saying
both($a, $b, <<'SQL');
CREATE TABLE msg (id serial, archived boolean, n int, PRIMARY KEY (id, archived)) PARTITION BY LIST (archived);
CREATE TABLE msg_old PARTITION OF msg FOR VALUES IN (true);
CREATE TABLE msg_new PARTITION OF msg FOR VALUES IN (false);
CREATE TABLE reg (id serial, region char(8), n int, PRIMARY KEY (id, region));
CREATE TABLE host (id serial, address inet, n int, PRIMARY KEY (id, address));
SQL
on($b, q{SELECT setval(s, 1000) FROM unnest('{msg_id_seq, reg_id_seq, host_id_seq}'::regclass[]) s});
watch([$a, $b], msg => undef, reg => undef, host => undef);
my @spelled = qw(msg reg host);
my $spelled = join ' UNION ALL ', map { "SELECT '$_', (to_jsonb($_) - 'id')::text FROM $_" } @spelled;
my $spelled_rows = join ' UNION ALL ', map { "SELECT '$_', count(*) FROM $_" } @spelled;

sub insert_spelled
{
	my ($node) = @_;

	on($node, q{INSERT INTO msg (archived, n) VALUES (true, 1), (false, 1); INSERT INTO reg (region, n) VALUES ('east', 1), ('west', 1);
		INSERT INTO host (address, n) VALUES ('10.0.0.1', 1), ('10.0.0.0/8', 1), ('2001:db8::/32', 1)});
	return;
}

sub spelled_are
{
	my ($testname, $expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $pair ([ $a, 'b' ], [ $b, 'a' ])
	{
		is(rows($pair->[0], $spelled_rows), $expected, "$testname: each row once on " . $pair->[0]->name);
		is(rows($pair->[0], "SELECT relation, key, difference FROM synchro.verify('$pair->[1]', '$_')"), '', "verify('$pair->[1]') finds nothing in $_") foreach @spelled;
	}
	return;
}
insert_spelled($b);
settle($a, $b);
spelled_are('types that a cast writes otherwise', "msg|2\nreg|2\nhost|3");
on($a, join ';', map { "UPDATE $_ SET n = 2" } @spelled);
settle($a, $b);
spelled_are('changed by the other side', "msg|2\nreg|2\nhost|3");
same($a, $b, "$spelled ORDER BY 1, 2", 'and there it is changed');
insert_spelled($_) foreach $a, $b;
settle($a, $b);

# version 1.0 has stored what the cast writes, and the side that has made the rows does not push
on($_, <<'SQL') foreach $a, $b;
DELETE FROM synchro_peer.reference WHERE relation = '#pinned';
UPDATE synchro_peer.reference SET remote_key[2] = remote_key[2]::boolean::text WHERE relation = 'public.msg';
UPDATE synchro_peer.reference SET remote_key[2] = remote_key[2]::bpchar::text WHERE relation = 'public.reg';
UPDATE synchro_peer.reference SET remote_key[2] = remote_key[2]::inet::text WHERE relation = 'public.host';
SQL
spelled_are('references of version 1.0', "msg|6\nreg|6\nhost|9");
on($a, join ';', map { "UPDATE $_ SET n = 3" } @spelled);
sync($a);
spelled_are('are found', "msg|6\nreg|6\nhost|9");
same($a, $b, "$spelled ORDER BY 1, 2", 'by who changes what they are of');
on($b, join ';', map { "DELETE FROM $_ WHERE id <= 1002" } @spelled);
settle($a, $b);
spelled_are('and what is deleted goes', "msg|4\nreg|4\nhost|7");

# three of which each pushes to both others: what has come by two ways is one row
{
	my $c = synchro_node('c');
	my @all = ($a, $b, $c);
	my $tasks = q{SELECT 'task', what, n::text FROM task UNION ALL SELECT 'step', t.what, s.what FROM step s JOIN task t ON t.id = s.task_id ORDER BY 1, 2, 3};
	my $equal = sub
	{
		my ($testname, $expected) = @_;

		local $Test::Builder::Level = $Test::Builder::Level + 1;
		settle(@all);
		is(rows($a, $tasks), $expected, "$testname: a");
		same($a, $_, $tasks, "$testname: " . $_->name) foreach $b, $c;
	};

	$c->safe_psql('postgres', 'CREATE EXTENSION synchro');
	foreach my $i (0 .. 2)
	{
		on($all[$i], qq{CREATE TABLE task (id serial PRIMARY KEY, what text, n int); CREATE TABLE step (id serial PRIMARY KEY, task_id int NOT NULL REFERENCES task ON DELETE CASCADE, what text);
			SELECT setval('task_id_seq', 1000 + 10 * $i), setval('step_id_seq', 2000 + 10 * $i)});
	}
	on($_, 'DROP TABLE line, note, event, span, msg, reg, host') foreach $a, $b;
	link_nodes(@$_) foreach [ $a, $c ], [ $c, $a ], [ $b, $c ], [ $c, $b ];
	watch(\@all, task => undef, step => undef);
	on($_, sprintf q{WITH t AS (INSERT INTO task (what, n) VALUES ('of %1$s', 1) RETURNING id) INSERT INTO step (task_id, what) SELECT id, 'by %1$s' FROM t}, $_->name) foreach @all;
	$equal->('a mesh', join "\n", (map { "step|of $_|by $_" } qw(a b c)), (map { "task|of $_|1" } qw(a b c)));
	on($b, q{UPDATE task SET n = 2 WHERE what IN ('of a', 'of c')});
	on($c, q{UPDATE task SET n = 3 WHERE what IN ('of a', 'of b'); DELETE FROM step WHERE what = 'by a'});
	on($a, q{DELETE FROM task WHERE what = 'of b'});
	$equal->('changed and deleted by others', "step|of c|by c\ntask|of a|3\ntask|of c|2");
	on($a, q{INSERT INTO step (task_id, what) SELECT id, 'new' FROM task WHERE what = 'of c'});
	on($b, q{UPDATE task SET n = 4});
	$equal->('a new row refers to one of another', "step|of c|by c\nstep|of c|new\ntask|of a|4\ntask|of c|4");
	is(rows($_, q{SELECT count(*) FROM synchro.failures}), '0', 'nothing is refused by ' . $_->name) foreach @all;
	$c->stop('fast');
}

$_->stop('fast') foreach $a, $b;
done_testing();
