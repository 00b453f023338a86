# WHY: with three nodes there are ways for a change to come back to where it was made, and to reach a node twice. If it were
# taken for a new change then, it would go round for ever; if its stamp or origin got lost on the way, a node further on would
# decide otherwise than the first. So every shape in which three nodes can be joined must come to the same end, each change must
# cross each link once in each direction at most, and when nothing changes any more, nothing must be sent.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use Nodes qw(:DEFAULT on);
use SynchroTest;
use Test::More;
use Time::HiRes qw(time usleep);

# seconds
my $quiet = 60;
my $schema = <<'SQL';
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE, n int, note text);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text, n int, UNIQUE (parent_id, name));
CREATE TABLE tag (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE child_tag (child_id int REFERENCES child ON DELETE CASCADE, tag_id int REFERENCES tag ON DELETE CASCADE, PRIMARY KEY (child_id, tag_id));
SQL
my $all = q{SELECT 'parent' AS what, name AS key, n::text, note FROM parent
	UNION ALL SELECT 'child', p.name || '/' || c.name, c.n::text, NULL FROM child c JOIN parent p ON p.id = c.parent_id
	UNION ALL SELECT 'child_tag', p.name || '/' || c.name || '/' || t.name, NULL, NULL FROM child_tag x JOIN child c ON c.id = x.child_id
		JOIN parent p ON p.id = c.parent_id JOIN tag t ON t.id = x.tag_id
	UNION ALL SELECT 'tag', name, NULL, NULL FROM tag ORDER BY 1, 2};

# What a node's log says of its rows by name: when and where their newest changes were made.
my $stamps = q{SELECT DISTINCT ON (r.what, r.name) r.what, r.name, c.changed_at, c.origin
	FROM synchro.changes c
	JOIN (SELECT 'parent' AS what, id::text, name FROM parent UNION ALL SELECT 'tag', id::text, name FROM tag) r
	ON r.what = c.relation::text AND r.id = c.key
	ORDER BY r.what, r.name, c.changed_at DESC, c.origin};

# Every fact that crosses a link is staged on the target, in tables c_N (rows) and n_N (names) with its stamp and origin. They are
# written down there at the end of each transaction that applies some, whatever has been decided about them. What is rolled
# back is not counted.
my $count_facts = <<'SQL';
CREATE TABLE crossed (node uuid, fact text);
ALTER FUNCTION synchro.peer_begin RENAME TO peer_really_begin;
CREATE FUNCTION synchro.peer_begin(node uuid, seen pg_snapshot, uncertainty bigint, named pg_snapshot DEFAULT NULL, looks boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('test.node', node::text, true);
	PERFORM synchro.peer_really_begin(node, seen, uncertainty, named, looks);
END
$$;
ALTER FUNCTION synchro.peer_recheck RENAME TO peer_really_recheck;
CREATE FUNCTION synchro.peer_recheck() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	staged name;
BEGIN
	FOR staged IN SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r' AND relname ~ '^[cn]_' LOOP
		-- numbers of tables are each connection's own, so a table is known by its columns in n_N
		EXECUTE format('INSERT INTO public.crossed SELECT %L, %L || to_jsonb(x)::text FROM pg_temp.%I x WHERE x.stamp IS NOT NULL',
			current_setting('test.node'), left(staged, 1) || (SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_catalog.pg_attribute
				WHERE attrelid = ('pg_temp.n' || substr(staged, 2))::regclass AND attnum > 0), staged);
	END LOOP;
	PERFORM synchro.peer_really_recheck();
END
$$;
SQL

sub all_same
{
	my ($testname, @nodes) = @_;
	my $first = shift @nodes;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $node (@nodes)
	{
		same($first, $node, $all, "$testname: " . $first->name . ' and ' . $node->name . ' have the same rows');
		same($first, $node, $stamps, "$testname: " . $first->name . ' and ' . $node->name . ' say that they were changed then and there');
	}
	return;
}

# A change crosses a link once. It does so once more only where its node has refused an older one that came from there meanwhile:
# then the winner is queued for the other side, which may have got it in the very moment. So what has come again is counted
# against the conflicts that the sender has decided for itself. Always on, there is a second case: a batch carries all changes
# of names up to when it is read, and what was committed after its pass had begun comes with the next pass, too. That is rare.
sub crossed_once
{
	my ($testname, @nodes) = @_;
	my %refused;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $node (@nodes)
	{
		my $id = rows($node, 'SELECT id FROM synchro.node');

		foreach (split /\n/, rows($node, q{SELECT node, count(*) FROM synchro.conflict WHERE winner = 'local' GROUP BY 1}))
		{
			my ($from, $count) = split /\|/;

			$refused{"$id $from"} = $count;
		}
	}
	foreach my $node (@nodes)
	{
		my $id = rows($node, 'SELECT id FROM synchro.node');

		foreach (split /\n/, rows($node, 'SELECT node, count(*), count(DISTINCT fact) FROM crossed GROUP BY 1'))
		{
			my ($from, $facts, $distinct) = split /\|/;

			my $ahead = $testname =~ /always on/ ? int($distinct / 10) : 0;

			cmp_ok($facts - $distinct, '<=', ($refused{"$from $id"} // 0) + $ahead,
				sprintf '%s: of %d facts that have come to %s, %d came again, %d were refused the other way', $testname, $facts, $node->name,
				$facts - $distinct, $refused{"$from $id"} // 0);
		}
	}
	return;
}

# Changes on all of them that are at odds with each other. $run: what makes their names unique; $hold: keeps the first ones apart
# until $settle.
sub conflicting_changes
{
	my ($run, $hold, $settle, @nodes) = @_;
	my ($a, $b, $c) = my @others = @nodes;

	$hold->();
	foreach my $name ('a', 'b', 'c')
	{
		my $node = shift @others;

		# all hand out the same ids
		on($node, "INSERT INTO parent (name, n) VALUES ('$run from $name', 1)", "INSERT INTO parent (name, n, note) VALUES ('$run all', 1, '$name')",
			"INSERT INTO child (parent_id, name, n) SELECT id, '$name', 1 FROM parent WHERE name = '$run from $name'",
			"INSERT INTO child (parent_id, name, n) SELECT id, 'all', 1 FROM parent WHERE name = '$run all'",
			"INSERT INTO tag (name) VALUES ('$run $name')",
			"INSERT INTO child_tag SELECT c.id, t.id FROM child c JOIN parent p ON p.id = c.parent_id, tag t WHERE p.name LIKE '$run%' AND t.name = '$run $name'");
	}
	on($a, "INSERT INTO parent (name, n) VALUES ('$run alone', 1), ('$run alone, too', 1)");
	$settle->();
	foreach my $from ('a', 'b', 'c')
	{
		# everybody changes everybody's rows
		on($_, "UPDATE parent SET n = n + 10, note = 'by @{[ $_->name ]}' WHERE name = '$run from $from'") foreach @nodes;
	}
	on($b, "UPDATE parent SET n = 2 WHERE name = '$run alone'");
	on($c, "DELETE FROM parent WHERE name = '$run alone'");
	on($c, "UPDATE parent SET name = '$run alone no more' WHERE name = '$run alone, too'");
	on($a, "UPDATE parent SET name = '$run renamed' WHERE name = '$run all'");
	on($b, "UPDATE parent SET n = 100 WHERE name = '$run all'");
	on($c, "DELETE FROM child_tag WHERE tag_id = (SELECT id FROM tag WHERE name = '$run a')");
	$settle->();
	on($c, "UPDATE parent SET n = 7 WHERE name = '$run from a'");
	on($a, "DELETE FROM parent WHERE name = '$run from a'");
	on($b, "DELETE FROM parent WHERE name = '$run from b'");
	on($c, "UPDATE parent SET n = 8 WHERE name = '$run from b'");
	$settle->();
	return;
}

# Nobody has anything to push.
sub wait_pushed
{
	my (@nodes) = @_;
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	while (time < $until)
	{
		return if !grep { rows($_, q{SELECT coalesce(sum(pending), 1) FROM synchro.remotes}) } @nodes;
		usleep(50_000);
	}
	die 'the nodes do not come to rest';
}

my (%nodes_of, @titles);

foreach my $shape (
	[ 'line', 'ab', 'ba', 'bc', 'cb' ],
	[ 'ring in one direction', 'ab', 'bc', 'ca' ],
	[ 'mesh, a ring in both directions', 'ab', 'ba', 'bc', 'cb', 'ac', 'ca' ])
{
	my ($title, @links) = @$shape;
	my $word = (split /[ ,]/, $title)[0];
	my @nodes = nodes({ conf => "log_statement = all\nlog_line_prefix = '%m [%p] <%u> '" }, map { "${word}_$_" . @links } 'a', 'b', 'c');

	push @titles, $title;
	$nodes_of{$title} = \@nodes;
	subtest $title => sub {
		my %node;

		@node{ 'a', 'b', 'c' } = @nodes;
		$_->safe_psql('postgres', $schema . $count_facts) foreach @nodes;
		foreach my $link (@links)
		{
			my ($from, $to) = map { $node{$_} } split //, $link;

			link_nodes($from, $to);
		}
		watch(\@nodes, parent => '{name}', child => '{parent_id,name}', tag => '{name}', child_tag => undef);

		my $rounds = 0;
		conflicting_changes('called', sub { }, sub { $rounds = settle(@nodes); note("$rounds rounds") }, @nodes);
		all_same('on call', @nodes);
		like(rows($node{a}, q{SELECT name FROM parent ORDER BY name}), qr/called from b/, 'the update that was newer than the delete has won');
		crossed_once('on call', @nodes);

		# the same with workers, in whatever order they come
		foreach my $node (@nodes)
		{
			$node->append_conf('postgresql.conf', "shared_preload_libraries = 'synchro'");
			$node->restart;
		}
		my $hold = sub {
			on($_, 'SELECT synchro.pause(remote) FROM synchro.remotes') foreach @nodes;
		};
		my $rest = sub {
			on($_, q{SELECT synchro.resume(remote) FROM synchro.remotes WHERE state = 'paused'}) foreach @nodes;
			wait_pushed(@nodes);
		};
		conflicting_changes('always on', $hold, $rest, @nodes);
	};
}

# What is pushed may be passed on.
my @all_nodes = map { @$_ } values %nodes_of;

foreach my $try (1 .. 3)
{
	wait_pushed(@all_nodes);
	wait_quiet($_) foreach @all_nodes;
}
wait_pushed(@all_nodes);
foreach my $title (@titles)
{
	subtest "$title, always on" => sub {
		all_same('always on', @{ $nodes_of{$title} });
		crossed_once('always on', @{ $nodes_of{$title} });
	};
}

#
# no echo: nothing is sent any more
#
sub observe
{
	return join "\n", map {
		$_->name . ' ' . rows($_, q{SELECT (SELECT count(*) FROM synchro.changes), (SELECT count(*) FROM crossed),
			(SELECT string_agg(moved_at::text, ',' ORDER BY node) FROM synchro_peer.position)})
	} @all_nodes;
}

my @offsets = map { -s $_->logfile } @all_nodes;
my $before = observe();
my $end = time + $quiet;
my $after = $before;

while (time < $end && $after eq $before)
{
	usleep(1_000_000);
	$after = observe();
}
is($after, $before, "for $quiet seconds no log grows, no fact crosses a link and no position moves");
foreach my $i (0 .. $#all_nodes)
{
	my $log = PostgreSQL::Test::Utils::slurp_file($all_nodes[$i]->logfile, $offsets[$i]);
	my @statements = grep { /<sync> LOG/ } split /\n/, $log;

	is(scalar @statements, 0, 'and ' . $all_nodes[$i]->name . ' is sent no statement') or diag(join "\n", @statements[ 0 .. 4 ]);
}
$_->stop('fast') foreach @all_nodes;
done_testing();
