# WHY: whatever is changed on whichever of several nodes, and in whatever order it is pushed, they must all end up equal, and
# with the newest state of each name. Nobody can write down all the ways in which changes meet: so histories are made by
# chance, from a seed, and what they must end in is computed here, apart from the product.
#
#   SYNCHRO_SEED=n     the first seed (1)
#   SYNCHRO_SEEDS=n    how many (6); `make check ONLY=062 SYNCHRO_SEEDS=200` takes some minutes
#   SYNCHRO_STEPS=...  only these steps of it, a list of numbers: what SYNCHRO_SHRINK printed
#   SYNCHRO_SHRINK=1   leave out steps of a seed that fails as long as it still fails
#   SYNCHRO_PROFILE=p  only histories of that kind, see below
#   SYNCHRO_ALWAYS=n   how many seeds with workers that are always on (1)
#
# A step is a transaction of several statements on one node, a push over one link, or a restart. All are made one after
# another on one machine, so their stamps are in the order of the steps. What a transaction did is seen by what it makes of
# its node's state, in one REPEATABLE READ snapshot, and by which rows it has written: an update that changes nothing is a
# change, too. A history has two rounds, at the end of each everything is pushed.
use strict;
use warnings;

use lib 'test/t';
use IPC::Open2;
use Nodes;
use PostgreSQL::Test::Utils ();
use SynchroTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $first_seed = $ENV{SYNCHRO_SEED} || 1;
my $nseeds = $ENV{SYNCHRO_SEEDS} || 6;
my $nalways = defined $ENV{SYNCHRO_ALWAYS} ? $ENV{SYNCHRO_ALWAYS} : 1;

my @servers = nodes({}, 'a', 'b', 'c');

my $schema = <<'SQL';
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text NOT NULL, n int,
	UNIQUE (parent_id, name));
CREATE TABLE tag (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int);
CREATE TABLE child_tag (child_id int REFERENCES child ON DELETE CASCADE, tag_id int REFERENCES tag ON DELETE CASCADE,
	PRIMARY KEY (child_id, tag_id));
CREATE TABLE leaf (id serial PRIMARY KEY, child_id int NOT NULL REFERENCES child ON DELETE CASCADE, name text NOT NULL, n int,
	UNIQUE (child_id, name));
CREATE TABLE loose (id serial PRIMARY KEY, name text UNIQUE NOT NULL, parent_id int REFERENCES parent ON DELETE SET NULL, n int);
CREATE TABLE dir (id serial PRIMARY KEY, up int REFERENCES dir ON DELETE CASCADE, name text NOT NULL, n int, UNIQUE (up, name));
CREATE UNIQUE INDEX ON dir (name) WHERE up IS NULL;
SQL

# Who pushes to whom. Not a ring in one direction: whoever rejects a change must be able to say so to the one it came from.
my %topologies = (
	pair => [ [ 0, 1 ], [ 1, 0 ] ],
	line => [ [ 0, 1 ], [ 1, 0 ], [ 1, 2 ], [ 2, 1 ] ],
	star => [ [ 2, 0 ], [ 0, 2 ], [ 2, 1 ], [ 1, 2 ] ],
	mesh => [ [ 0, 1 ], [ 1, 0 ], [ 1, 2 ], [ 2, 1 ], [ 0, 2 ], [ 2, 0 ] ]);

# What a history consists of. exact: which fact of a name is the newest tells all, since no row follows another one, into
# another name or into nothing.
my %profiles = (
	flat => { exact => 1, stock => q{INSERT INTO parent (name, n) VALUES ('@a', 1), ('@b', 2)}, operations => [qw(put put set set drop)] },
	leaves => { exact => 1, stock => q{INSERT INTO parent (name, n) VALUES ('@a', 1), ('@b', 2)}, operations => [qw(put set put_child put_child set_child set_child drop_child)] },
	pairs => { exact => 1, operations => [qw(put put_child put_tag pair pair unpair)] },
	deletes => { operations => [qw(put set drop put_child set_child drop_child put_tag drop_tag pair unpair)] },
	below => { operations => [qw(put set drop anew put_child set_child anew_child drop_child put_leaf put_leaf set_leaf drop_leaf put_loose set_loose drop_loose)] },
	tree => { stock => q{INSERT INTO dir (name, n) VALUES ('@a', 1); INSERT INTO dir (up, name, n) SELECT id, 'x', 2 FROM dir WHERE name = '@a'}, operations => [qw(put_dir put_dir put_dir set_dir set_dir anew_dir drop_dir)] },
	renames => { stock => q{INSERT INTO parent (name, n) VALUES ('@a', 1), ('@b', 2)}, operations => [qw(put set drop rename rename swap)] },
	moves => { operations => [qw(put put_child set_child drop_child rename_child move move)] },
	all => { operations => [qw(put set drop rename swap put_child put_child set_child drop_child rename_child move put_tag drop_tag pair pair unpair)] });

my %operations = (
	put => sub { my ($r, $n) = @_; sprintf q{INSERT INTO parent (name, n) VALUES (%s, %d) ON CONFLICT (name) DO UPDATE SET n = EXCLUDED.n}, name($r), $n },
	set => sub { my ($r, $n) = @_; sprintf q{UPDATE parent SET n = %d WHERE name = %s}, $n, name($r) },
	drop => sub { my ($r) = @_; sprintf q{DELETE FROM parent WHERE name = %s}, name($r) },
	rename => sub
	{
		my ($r) = @_;
		my ($old, $new) = (name($r), name($r));

		"UPDATE parent SET name = $new WHERE name = $old AND NOT EXISTS (SELECT FROM parent WHERE name = $new)";
	},
	swap => sub
	{
		my ($r) = @_;
		my ($one, $other) = (name($r), name($r));

		"UPDATE parent SET name = '-' WHERE name = $one; UPDATE parent SET name = $one WHERE name = $other; UPDATE parent SET name = $other WHERE name = '-'";
	},
	put_child => sub
	{
		my ($r, $n) = @_;

		sprintf q{INSERT INTO child (parent_id, name, n) SELECT id, '%s', %d FROM parent WHERE name = %s ON CONFLICT (parent_id, name) DO UPDATE SET n = EXCLUDED.n},
		  letter($r, 'xy'), $n, name($r);
	},
	set_child => sub { my ($r, $n) = @_; sprintf q{UPDATE child SET n = %d WHERE id = %s}, $n, child($r) },
	drop_child => sub { my ($r) = @_; sprintf q{DELETE FROM child WHERE id = %s}, child($r) },
	rename_child => sub
	{
		my ($r) = @_;
		my ($id, $new) = (child($r), letter($r, 'xyz'));

		"UPDATE child c SET name = '$new' WHERE id = $id AND NOT EXISTS (SELECT FROM child d WHERE d.parent_id = c.parent_id AND d.name = '$new')";
	},
	move => sub
	{
		my ($r) = @_;

		sprintf q{UPDATE child c SET parent_id = p.id FROM parent p WHERE p.name = %s AND c.id = %s AND NOT EXISTS (SELECT FROM child d WHERE d.parent_id = p.id AND d.name = c.name)},
		  name($r), child($r);
	},
	put_tag => sub { my ($r, $n) = @_; sprintf q{INSERT INTO tag (name, n) VALUES (%s, %d) ON CONFLICT (name) DO UPDATE SET n = EXCLUDED.n}, tag($r), $n },
	drop_tag => sub { my ($r) = @_; sprintf q{DELETE FROM tag WHERE name = %s}, tag($r) },
	pair => sub { my ($r) = @_; sprintf q{INSERT INTO child_tag SELECT %s, id FROM tag WHERE name = %s AND EXISTS (SELECT FROM child WHERE id = %1$s) ON CONFLICT DO NOTHING}, child($r), tag($r) },
	anew => sub { my ($r, $n) = @_; my $name = name($r); "DELETE FROM parent WHERE name = $name; INSERT INTO parent (name, n) VALUES ($name, $n)" },
	anew_child => sub
	{
		my ($r, $n) = @_;

		sprintf q{WITH gone AS (DELETE FROM child WHERE id = %s RETURNING parent_id, name) INSERT INTO child (parent_id, name, n) SELECT parent_id, name, %d FROM gone}, child($r), $n;
	},
	put_leaf => sub { my ($r, $n) = @_; sprintf q{INSERT INTO leaf (child_id, name, n) SELECT id, 'l', %d FROM child WHERE id = %s ON CONFLICT (child_id, name) DO UPDATE SET n = EXCLUDED.n}, $n, child($r) },
	set_leaf => sub { my ($r, $n) = @_; sprintf q{UPDATE leaf SET n = %d WHERE child_id = %s}, $n, child($r) },
	drop_leaf => sub { my ($r) = @_; sprintf q{DELETE FROM leaf WHERE child_id = %s}, child($r) },
	put_loose => sub
	{
		my ($r, $n) = @_;

		sprintf q{INSERT INTO loose (name, parent_id, n) VALUES (%s, (SELECT id FROM parent WHERE name = %s), %d) ON CONFLICT (name) DO UPDATE SET n = EXCLUDED.n}, name($r), name($r), $n;
	},
	set_loose => sub { my ($r, $n) = @_; sprintf q{UPDATE loose SET n = %d, parent_id = (SELECT id FROM parent WHERE name = %s) WHERE name = %s}, $n, name($r), name($r) },
	drop_loose => sub { my ($r) = @_; sprintf q{DELETE FROM loose WHERE name = %s}, name($r) },
	put_dir => sub
	{
		my ($r, $n) = @_;
		my ($up, $name) = path($r);

		return "INSERT INTO dir (name, n) VALUES ($name, $n) ON CONFLICT (name) WHERE up IS NULL DO UPDATE SET n = EXCLUDED.n" if $up eq 'NULL';
		return "INSERT INTO dir (up, name, n) SELECT id, $name, $n FROM dir WHERE id = $up ON CONFLICT (up, name) DO UPDATE SET n = EXCLUDED.n";
	},
	set_dir => sub { my ($r, $n) = @_; sprintf 'UPDATE dir SET n = %d WHERE id = %s', $n, dir(path($r)) },
	anew_dir => sub
	{
		my ($r, $n) = @_;
		my ($up, $name) = path($r);
		my $delete = 'DELETE FROM dir WHERE id = ' . dir($up, $name);

		return "$delete; INSERT INTO dir (name, n) VALUES ($name, $n)" if $up eq 'NULL';
		return "$delete; INSERT INTO dir (up, name, n) SELECT id, $name, $n FROM dir WHERE id = $up";
	},
	drop_dir => sub { my ($r) = @_; 'DELETE FROM dir WHERE id = ' . dir(path($r)) },
	unpair => sub { my ($r) = @_; sprintf q{DELETE FROM child_tag WHERE child_id = %s}, child($r) });

my $stock = <<'SQL';
INSERT INTO parent (name, n) VALUES ('@a', 1), ('@b', 2);
INSERT INTO child (parent_id, name, n) SELECT id, 'x', 3 FROM parent WHERE name IN ('@a', '@b');
INSERT INTO tag (name, n) VALUES ('@t', 5);
INSERT INTO child_tag SELECT c.id, t.id FROM child c JOIN parent p ON p.id = c.parent_id, tag t WHERE p.name = '@a' AND t.name = '@t'
SQL

# A generator of our own, so that a seed is the same history everywhere. Returns a function that gives 0 .. n - 1.
sub generator
{
	my ($state) = @_;

	$state = ($state * 2654435 + 12345) % 2**31;
	$state = ($state * 1103515245 + 12345) % 2**31 foreach 1 .. 10;
	return sub
	{
		my ($n) = @_;

		$state = ($state * 1103515245 + 12345) % 2**31;
		return int(($state >> 8) % $n);
	};
}

# All names begin with @, in whose place a run puts what is its own: histories do not meet.
sub name { my ($r) = @_; return q{'@} . letter($r, 'abc') . q{'}; }
sub tag { my ($r) = @_; return q{'@} . letter($r, 'tu') . q{'}; }
sub letter { my ($r, $letters) = @_; return substr $letters, $r->(length $letters), 1; }

sub child
{
	my ($r) = @_;

	return sprintf q{(SELECT c.id FROM child c JOIN parent p ON p.id = c.parent_id WHERE p.name = %s AND c.name = '%s')}, name($r), letter($r, 'xy');
}

# A row of the tree: the id of what is above it, and its name.
sub path
{
	my ($r) = @_;
	my ($up, $name) = ('NULL', q{'@} . letter($r, 'ab') . q{'});

	($up, $name) = (dir($up, $name), q{'} . letter($r, 'xy') . q{'}) foreach 1 .. (0, 1, 2, 2)[ $r->(4) ];
	return ($up, $name);
}

sub dir
{
	my ($up, $name) = @_;

	return '(SELECT id FROM dir WHERE ' . ($up eq 'NULL' ? 'up IS NULL' : "up = $up") . " AND name = $name)";
}

# The history of a seed.
sub history
{
	my ($seed, $always) = @_;
	my $r = generator($seed);
	my @topologies = sort keys %topologies;
	my @profiles = $ENV{SYNCHRO_PROFILE} ? $ENV{SYNCHRO_PROFILE} : $always ? grep { $profiles{$_}{exact} } sort keys %profiles : sort keys %profiles;
	my $plan = {
		seed => $seed,
		topology => $topologies[ $seed % @topologies ],
		profile => $profiles[ $r->(scalar @profiles) ],
		batch_size => (1, 2, 3, 5000)[ $r->(4) ],
		always => $always,
		steps => [] };
	my $links = $topologies{ $plan->{topology} };
	my $nnodes = $plan->{topology} eq 'pair' ? 2 : 3;
	my $operations = $profiles{ $plan->{profile} }{operations};
	my $pushes = (1, 3, 6)[ $r->(3) ];
	my $with_stock = $r->(4);
	my $restart = $r->(12) == 0 ? $r->(20) : -1;

	# something to begin with, nearly always
	push @{ $plan->{steps} }, { round => 0, what => 'transaction', node => $r->($nnodes), end => 'COMMIT', statements => [ [ 'stock', $profiles{ $plan->{profile} }{stock} || $stock ] ] } if $with_stock;
	foreach my $round (1, 2)
	{
		foreach my $step (1 .. 8 + $r->(14))
		{
			my $number = @{ $plan->{steps} };

			if ($number == $restart)
			{
				push @{ $plan->{steps} }, { round => $round, what => 'restart', node => $r->($nnodes), mode => (qw(fast immediate))[ $r->(2) ] };
			}
			elsif ($always && $r->(12) == 0)
			{
				push @{ $plan->{steps} }, { round => $round, what => 'kill', node => $r->($nnodes) };
			}
			elsif ($r->(10) < $pushes)
			{
				push @{ $plan->{steps} }, { round => $round, what => 'push', link => $links->[ $r->(scalar @$links) ] };
			}
			else
			{
				my @statements;

				foreach my $i (1 .. 1 + ($r->(2) ? 0 : $r->(4)))
				{
					my $operation = $operations->[ $r->(scalar @$operations) ];
					my $statement = $operations{$operation}->($r, $number * 10 + $i);

					push @statements, $r->(12) ? [ $operation, $statement ] : [ "$operation, rolled back", "SAVEPOINT s; $statement; ROLLBACK TO s" ];
				}
				push @{ $plan->{steps} }, {
					round => $round,
					what => 'transaction',
					node => $r->($nnodes),
					statements => \@statements,
					end => $r->(12) ? 'COMMIT' : 'ROLLBACK' };
			}
		}
	}
	return $plan;
}

# a psql whose server has gone
$SIG{PIPE} = 'IGNORE';

# A psql for each node that stays: starting one for each step takes most of the time.
my %sessions;

sub ask
{
	my ($group, $node, $sql) = @_;
	my $session = $sessions{"$group->{dbname} $node"} ||= open_session($group, $node);
	my @lines;

	syswrite $session->{in}, "$sql\n\\echo -- done\n" or die "psql is gone: $!";
	while (defined(my $line = readline $session->{out}))
	{
		chomp $line;
		return @lines if $line eq '-- done';
		push @lines, $line;
	}
	close_session("$group->{dbname} $node");
	die "connection lost: @lines";
}

sub open_session
{
	my ($group, $node) = @_;
	my $server = $servers[$node];
	my ($in, $out);
	my @command = ('psql', '-XAtq', '-h', $server->host, '-p', $server->port, '-d', $group->{dbname});
	my $pid = open2($out, $in, 'sh', '-c', 'exec "$@" 2>&1', 'psql', @command);

	syswrite $in, "SET log_statement = none;\n";
	return { pid => $pid, in => $in, out => $out };
}

sub close_session
{
	my ($key) = @_;
	my $session = delete $sessions{$key} or return;

	close $session->{in};
	close $session->{out};
	waitpid $session->{pid}, 0;
	return;
}

END
{
	my $status = $?;

	close_session($_) foreach keys %sessions;
	$? = $status;
}

# A database on each server, linked as the topology says. They serve one seed after the other, until one fails.
my %groups;
my $made = 0;

sub group
{
	my ($topology) = @_;
	my $links = $topologies{$topology};
	my $group = { dbname => $topology . ++$made, nodes => $topology eq 'pair' ? [ 0, 1 ] : [ 0, 1, 2 ], links => $links };
	my $dbname = $group->{dbname};

	foreach my $node (@{ $group->{nodes} })
	{
		$servers[$node]->safe_psql('postgres', "CREATE DATABASE $dbname");
		$servers[$node]->safe_psql($dbname, "CREATE EXTENSION synchro; $schema");
	}
	link_nodes($servers[ $_->[0] ], $servers[ $_->[1] ], dbname => $dbname) foreach @$links;
	foreach my $node (@{ $group->{nodes} })
	{
		$servers[$node]->safe_psql($dbname, <<'SQL');
SELECT synchro.add_table('parent', '{name}'); SELECT synchro.add_table('child', '{parent_id,name}');
SELECT synchro.add_table('tag', '{name}'); SELECT synchro.add_table('child_tag');
SELECT synchro.add_table('leaf', '{child_id,name}'); SELECT synchro.add_table('loose', '{name}'); SELECT synchro.add_table('dir', '{up,name}')
SQL
	}
	return $group;
}

# The query of all rows by their names, whose values follow after =.
sub state_query
{
	my ($prefix, $which) = @_;
	my $mine = "LIKE '$prefix%'";
	my ($parent, $child, $tag, $pair, $leaf, $loose, $dir) = map { $which ? " AND $_.$which" : '' } 'parent', 'c', 'tag', 'x', 'l', 's', 'd';

	return qq{SELECT 'parent ' || name || ' = ' || coalesce(n, 0) FROM parent WHERE name $mine$parent
	UNION ALL SELECT 'child ' || p.name || '/' || c.name || ' = ' || c.n FROM child c JOIN parent p ON p.id = c.parent_id WHERE p.name $mine$child
	UNION ALL SELECT 'tag ' || name || ' = ' || n FROM tag WHERE name $mine$tag
	UNION ALL SELECT 'pair ' || p.name || '/' || c.name || ' ' || t.name || ' = 1' FROM child_tag x JOIN child c ON c.id = x.child_id
		JOIN parent p ON p.id = c.parent_id JOIN tag t ON t.id = x.tag_id WHERE p.name $mine$pair
	UNION ALL SELECT 'leaf ' || p.name || '/' || c.name || '/' || l.name || ' = ' || l.n FROM leaf l JOIN child c ON c.id = l.child_id
		JOIN parent p ON p.id = c.parent_id WHERE p.name $mine$leaf
	UNION ALL SELECT 'loose ' || s.name || coalesce(' ' || p.name, '') || ' = ' || s.n FROM loose s LEFT JOIN parent p ON p.id = s.parent_id WHERE s.name $mine$loose
	UNION ALL SELECT 'dir ' || concat_ws('/', v.name, u.name, d.name) || ' = ' || d.n FROM dir d LEFT JOIN dir u ON u.id = d.up LEFT JOIN dir v ON v.id = u.up
		WHERE coalesce(v.name, u.name, d.name) $mine$dir ORDER BY 1};
}

sub state_of_lines
{
	my (@lines) = @_;

	return { map { /^(.*) = (.*)$/ ? ($1 => $2) : ('error ' . $_ => 1) } @lines };
}

# The names that something said of a key bears upon, and those that bear upon it: a parent's for its children.
sub names_of
{
	my ($key) = @_;
	my (undef, @words) = split / /, $key;

	return map { s{/.*}{}r } @words;
}

# Runs a history; returns a list of what is wrong with it, and notes what was done in $run->{trace}.
my $runs = 0;

sub run
{
	my ($plan, $keep) = @_;
	my $group = $groups{ $plan->{topology} } ||= group($plan->{topology});
	my $exact = $profiles{ $plan->{profile} }{exact};
	my $run = { prefix => 's' . ++$runs . '_', trace => [], errors => 0 };
	my @wrong;

	foreach my $node (@{ $group->{nodes} })
	{
		next if ($servers[$node]->{synchro_batch_size} || 0) == $plan->{batch_size};
		$servers[$node]->safe_psql($group->{dbname}, "LOAD 'synchro';\nALTER SYSTEM SET synchro.batch_size = $plan->{batch_size}");
		$servers[$node]->reload;
		$servers[$node]->{synchro_batch_size} = $plan->{batch_size};
	}
	$run->{facts} = {};
	foreach my $round (0, 1, 2)
	{
		# what each node has seen: steps of this round
		$run->{seen} = [ map { {} } @{ $group->{nodes} } ];
		$run->{transactions} = [];
		foreach my $number (0 .. $#{ $plan->{steps} })
		{
			my $step = $plan->{steps}[$number];

			next if $step->{round} != $round || ($keep && !$keep->{$number});
			eval { run_step($plan, $group, $run, $number, $step); 1 } or push @wrong, "step $number: $@";
			last if @wrong;
		}
		push @wrong, $plan->{always} ? wait_equal($group, $run) : push_all($group, $run) unless @wrong;
		push @wrong, compare($group, $run, $exact, $plan->{always}) unless @wrong;
		last if @wrong;
		push @{ $run->{trace} }, "-- round $round: all equal";
	}

	# nothing of it is to be in the way of others
	if (@wrong)
	{
		close_session("$group->{dbname} $_") foreach @{ $group->{nodes} };
		delete $groups{ $plan->{topology} };
	}
	$run->{wrong} = \@wrong;
	return $run;
}

sub run_step
{
	my ($plan, $group, $run, $number, $step) = @_;

	if ($step->{what} eq 'push')
	{
		my ($from, $to) = @{ $step->{link} };

		push @{ $run->{trace} }, sprintf '%d: %s pushes to %s', $number, map { $servers[$_]->name } $from, $to;
		push_link($group, $run, $from, $to) unless $plan->{always};
	}
	elsif ($step->{what} eq 'restart')
	{
		my $server = $servers[ $step->{node} ];

		push @{ $run->{trace} }, sprintf '%d: restart %s %s', $number, $server->name, $step->{mode};
		close_session("$group->{dbname} $step->{node}");
		close_session($_) foreach grep { / $step->{node}$/ } keys %sessions;
		$server->stop($step->{mode});
		$server->start;
	}
	elsif ($step->{what} eq 'kill')
	{
		kill_worker($group, $run, $number, $step->{node});
	}
	else
	{
		run_transaction($group, $run, $number, $step);
	}
	return;
}

# An operation and the names in it.
sub summary
{
	my ($operation, $statement) = @_;
	my @names = $statement =~ /'\@?([a-z])'/g;
	my $last = '';

	return join ' ', $operation, grep { my $new = $_ ne $last; $last = $_; $new } @names;
}

# On a busy machine clocks are measured badly. So what comes next on another node waits until its stamp is the later one also if
# both are as wrong as they may be.
sub let_clocks_tell
{
	my ($group, $node) = @_;
	my $last = $group->{last};

	return if !$last || $last->{node} == $node;
	my $unknown = 0.001;

	$unknown += $group->{uncertainty}[$_] || 0 foreach $last->{node}, $node;
	my $wait = $last->{at} + $unknown - time;

	usleep($wait * 1_000_000) if $wait > 0;
	return;
}

sub run_transaction
{
	my ($group, $run, $number, $step) = @_;
	my $statements = join ";\n", map { $_->[1] } @{ $step->{statements} };
	my $query = state_query($run->{prefix});

	# by this transaction or a savepoint of it: what others write later is not in its snapshot
	my $written = state_query($run->{prefix}, 'xmin::text::bigint >= pg_current_xact_id()::text::bigint');
	my (@lines, @before, @after, @written, %changed);

	push @{ $run->{trace} }, map { sprintf '%d: %s: %s', $number, $servers[ $step->{node} ]->name, summary(@$_) } @{ $step->{statements} };
	push @{ $run->{trace} }, "$number: $step->{end}" if $step->{end} ne 'COMMIT';
	$statements =~ s/\@/$run->{prefix}/g;
	let_clocks_tell($group, $step->{node});
	@lines = ask($group, $step->{node}, "BEGIN ISOLATION LEVEL REPEATABLE READ;\n$query;\n\\echo -- before\n$statements;\n\\echo -- after\n$query;\n\\echo -- written\n$written;\n$step->{end};"
		  . "\n\\echo -- clock\nSELECT extract(epoch FROM clock_uncertainty) FROM synchro.node;");
	$group->{last} = { node => $step->{node}, at => time };
	$group->{uncertainty}[ $step->{node} ] = pop @lines if $lines[-1] =~ /^[0-9.]+$/;
	pop @lines if $lines[-1] eq '-- clock';
	push @before, shift @lines while @lines && $lines[0] ne '-- before';
	shift @lines;
	if (grep { /ERROR/ } @before, @lines)
	{
		# a row was changed by a worker meanwhile: nothing has been done
		die "unexpected: @before @lines" if grep { /ERROR/ && !/could not serialize|current transaction is aborted/ } @before, @lines;
		push @{ $run->{trace} }, "$number: rolled back by the server";
		return;
	}
	shift @lines while $lines[0] ne '-- after';
	shift @lines;
	push @after, shift @lines while @lines && $lines[0] ne '-- written';
	shift @lines;
	@written = @lines;
	return if $step->{end} ne 'COMMIT';
	my ($before, $after, $wrote) = map { state_of_lines(@$_) } \@before, \@after, \@written;

	foreach my $key (keys %$before, keys %$after)
	{
		next if defined $before->{$key} && defined $after->{$key} && $before->{$key} eq $after->{$key} && !defined $wrote->{$key};
		$changed{$key} = defined $after->{$key} ? $after->{$key} : 'gone';
		$run->{facts}{$key} = $after->{$key};
	}
	return unless %changed;
	push @{ $run->{trace} }, '   ' . join ', ', map { s/$run->{prefix}//gr . " = $changed{$_}" } sort keys %changed;
	push @{ $run->{transactions} }, {
		number => $number,
		names => { map { $_ => 1 } map { names_of($_) } keys %changed },
		unseen => { map { $_->{number} => 1 } grep { !$run->{seen}[ $step->{node} ]{ $_->{number} } } @{ $run->{transactions} } },
		after => $after };
	$run->{seen}[ $step->{node} ]{$number} = 1;
	return;
}

# Returns how much there was to do, or undef and notes the error.
sub push_link
{
	my ($group, $run, $from, $to) = @_;
	my @lines = ask($group, $from, sprintf q{SELECT 'pushed', inserted, updated, deleted, skipped, message FROM synchro.synchronize('%s');}, $servers[$to]->name);
	my ($result) = grep { /^pushed\|/ } @lines;

	if (!defined $result)
	{
		push @{ $run->{trace} }, map { "   $_" } @lines;
		$run->{errors}++;
		$run->{failed}{"$from $to"} = 1;
		return;
	}
	push @{ $run->{trace} }, "   $result";
	$run->{failed}{"$from $to"} = 0;

	# what follows a row that was made anew there goes with the next push: until then the other one has not seen all of it
	my ($pending) = ask($group, $from, sprintf q{SELECT pending FROM synchro.remotes WHERE remote = '%s';}, $servers[$to]->name);
	$run->{seen}[$to] = { %{ $run->{seen}[$to] }, %{ $run->{seen}[$from] } } if $pending eq '0';
	return $result =~ /No changes/ ? 0 : 1;
}

# Pushes over all links until there is nothing to be pushed any more.
sub push_all
{
	my ($group, $run) = @_;
	my $errors = 0;

	foreach my $round (1 .. 12)
	{
		my ($busy, $failed) = (0, 0);

		push @{ $run->{trace} }, "-- everything is pushed, $round";
		foreach my $link (@{ $group->{links} })
		{
			my ($from, $to) = @$link;
			my ($pending) = ask($group, $from, sprintf q{SELECT pending FROM synchro.remotes WHERE remote = '%s';}, $servers[$to]->name);
			my $done = 0;

			# what has failed may have left deletes to be done
			$done = push_link($group, $run, $from, $to) if $pending ne '0' || $run->{failed}{"$from $to"};

			$failed++ unless defined $done;
			$busy ||= $done;
		}
		return () unless $busy || $failed;
		return 'pushing fails again and again' if $failed && ++$errors >= 4;
	}
	return 'the nodes do not come to rest';
}

# Without pushing ourselves.
sub wait_equal
{
	my ($group, $run) = @_;
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;
	my $quiet = 0;

	while (time < $until)
	{
		my $busy = eval
		{
			my %states = map { join("\n", ask($group, $_, state_query($run->{prefix}) . ';')) => 1 } @{ $group->{nodes} };
			my ($pending) = map { ask($group, $_, q{SELECT 1 FROM synchro.remotes WHERE pending > 0 OR state IS DISTINCT FROM 'idle';}) } @{ $group->{nodes} };

			keys %states > 1 || defined $pending;
		};

		$quiet = defined $busy && !$busy ? $quiet + 1 : 0;
		return () if $quiet >= 3;
		usleep(50_000);
	}
	push @{ $run->{trace} }, map { my $node = $_; map { $servers[$node]->name . ": $_" } ask($group, $node, 'SELECT * FROM synchro.remotes;') } @{ $group->{nodes} };
	return 'the nodes do not come to rest';
}

sub kill_worker
{
	my ($group, $run, $number, $node) = @_;
	my ($pid) = grep { /^\d+$/ } ask($group, $node, 'SELECT worker_pid FROM synchro.remotes LIMIT 1;');
	my ($checkpointer) = ask($group, $node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer';});

	push @{ $run->{trace} }, sprintf '%d: kill a worker of %s', $number, $servers[$node]->name;
	return unless $pid;
	close_session($_) foreach grep { / $node$/ } keys %sessions;
	kill 'KILL', $pid;

	# the server starts all its processes anew
	$servers[$node]->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'checkpointer' AND pid <> $checkpointer)")
	  or die 'the server does not come back';
	return;
}

sub compare
{
	my ($group, $run, $exact, $always) = @_;
	my @states = map { state_of_lines(ask($group, $_, state_query($run->{prefix}) . ';')) } @{ $group->{nodes} };
	my (%keys, @wrong);

	$keys{$_} = 1 foreach map { keys %$_ } @states;
	foreach my $key (sort keys %keys)
	{
		my @values = map { defined $_->{$key} ? $_->{$key} : 'gone' } @states;

		push @wrong, "nodes differ in $key: @values" if grep { $_ ne $values[0] } @values;
	}
	return @wrong if @wrong;
	if ($exact)
	{
		push @wrong, differences($states[0], { map { $_ => $run->{facts}{$_} } grep { defined $run->{facts}{$_} } keys %{ $run->{facts} } }, sub { 1 });
	}
	push @wrong, uncontested($run, $states[0]) unless $always;
	return @wrong;
}

sub differences
{
	my ($is, $should, $which) = @_;
	my %keys = map { $_ => 1 } grep { $which->($_) } keys %$is, keys %$should;
	my @wrong;

	foreach my $key (sort keys %keys)
	{
		my ($got, $expected) = map { defined $_->{$key} ? $_->{$key} : 'gone' } $is, $should;

		push @wrong, "$key is $got, expected $expected" if $got ne $expected;
	}
	return @wrong;
}

# Names that were changed together hang together. If whoever changed them last knew of all the changes before, then they
# are what he made of them.
sub uncontested
{
	my ($run, $state) = @_;
	my (%set, @wrong);

	foreach my $transaction (@{ $run->{transactions} })
	{
		my %members = map { $_ => 1 } map { $set{$_} ? keys %{ $set{$_} } : $_ } keys %{ $transaction->{names} };

		$set{$_} = \%members foreach keys %members;
	}
	foreach my $members (values %{ { map { $_ => $_ } values %set } })
	{
		my @mine = grep { my $transaction = $_; grep { $members->{$_} } keys %{ $transaction->{names} } } @{ $run->{transactions} };
		my $final = $mine[-1];

		next if grep { $final->{unseen}{ $_->{number} } } @mine;
		push @wrong, map { "uncontested: $_" } differences($state, $final->{after}, sub { my ($key) = @_; !grep { !$members->{$_} } names_of($key) });
	}
	return @wrong;
}

# Steps are left out, large pieces first, as long as it fails in the same way.
sub shrink
{
	my ($plan, $numbers, $wrong) = @_;
	my @keep = @$numbers;

	for (my $size = int(@keep / 2); $size >= 1; $size = int($size / 2))
	{
		my $changed = 1;

		while ($changed)
		{
			$changed = 0;
			for (my $i = 0; $i < @keep; )
			{
				my @fewer = @keep;

				splice @fewer, $i, $size;
				if (alike(run($plan, { map { $_ => 1 } @fewer })->{wrong}, $wrong))
				{
					@keep = @fewer;
					$changed = 1;
				}
				else
				{
					$i += $size;
				}
			}
			last if $size > 1;
		}
	}
	return @keep;
}

sub alike
{
	my ($some, $others) = @_;

	return @$some && substr($some->[0], 0, 12) eq substr($others->[0], 0, 12);
}

sub check_seed
{
	my ($seed, $always) = @_;
	my $plan = history($seed, $always);
	my $title = "seed $seed: $plan->{topology}, $plan->{profile}, batches of $plan->{batch_size}" . ($always ? ', always on' : '');
	my @numbers = $ENV{SYNCHRO_STEPS} ? split /[ ,]+/, $ENV{SYNCHRO_STEPS} : 0 .. $#{ $plan->{steps} };
	my $run = run($plan, { map { $_ => 1 } @numbers });

	note("$title: $run->{errors} pushes failed") if $run->{errors};
	return if ok(!@{ $run->{wrong} }, $title);
	if ($ENV{SYNCHRO_SHRINK} && !$always)
	{
		@numbers = shrink($plan, \@numbers, $run->{wrong});
		$run = run($plan, { map { $_ => 1 } @numbers });
		diag('SYNCHRO_STEPS=' . join ',', @numbers);
	}
	diag("$_") foreach @{ $run->{trace} }, @{ $run->{wrong} };
	return;
}

check_seed($_, 0) foreach $first_seed .. $first_seed + $nseeds - 1;

if ($nalways && !$ENV{SYNCHRO_STEPS})
{
	close_session($_) foreach keys %sessions;
	foreach my $server (@servers)
	{
		foreach my $dbname (split /\n/, $server->safe_psql('postgres', q{SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'}))
		{
			$server->safe_psql('postgres', "DROP DATABASE $dbname WITH (FORCE)");
		}
		$server->append_conf('postgresql.conf', "shared_preload_libraries = 'synchro'\nsynchro.retry_max_interval = 1s\nrestart_after_crash = on\n");
		$server->restart;
	}
	%groups = ();
	check_seed($_, 1) foreach $first_seed .. $first_seed + $nalways - 1;
}

close_session($_) foreach keys %sessions;
$_->stop('fast') foreach @servers;
done_testing();
