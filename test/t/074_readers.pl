# WHY: whoever may not read a table must not learn by way of synchro what is in it: by none of its views, by none of its functions,
# by no message of theirs, whatever he has been granted of synchro itself. New views are tried by themselves; a new function that is not
# tried makes this test fail.
use strict;
use warnings;

use lib 'test/t';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

# Rows that are not for the reader say so; so do names that contain them.
both($local, $remote, <<'SQL');
CREATE TABLE dark (id int PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE darker (name text PRIMARY KEY, code int NOT NULL UNIQUE, n int);
CREATE TABLE divided (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE child (id serial PRIMARY KEY, name text NOT NULL UNIQUE, code int REFERENCES darker (code), n int);
CREATE TABLE below (id serial PRIMARY KEY, dark int REFERENCES dark, name text NOT NULL, n int, UNIQUE (dark, name));
CREATE TABLE unnamed (id serial PRIMARY KEY, dark int REFERENCES dark, n int);
SQL
connect_remote($local, $remote);
$remote->safe_psql('postgres', "ALTER TABLE $_ ADD CHECK (n < 100)") foreach qw(dark darker divided child below unnamed);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('dark', '{name}'), synchro.add_table('darker'), synchro.add_table('divided', '{name}'), synchro.add_table('child', '{name}'),
	synchro.add_table('below', '{dark,name}'), synchro.add_table('unnamed');
INSERT INTO dark SELECT i, 'kept dark ' || i, 0 FROM generate_series(1, 100) i;
INSERT INTO darker SELECT 'kept dark ' || i, i, 0 FROM generate_series(1, 100) i;
INSERT INTO divided (name, n) SELECT 'kept dark ' || i, 0 FROM generate_series(1, 100) i;
INSERT INTO child (name, code) SELECT 'child ' || i, i FROM generate_series(1, 100) i;
INSERT INTO below (dark, name) SELECT i, 'below ' || i FROM generate_series(1, 100) i;
INSERT INTO unnamed (dark) SELECT i FROM generate_series(1, 100) i;
SQL
is(sync($local, 'office')->{failed}, 0, 'all is there');

# what only the remote has, or has otherwise
$remote->safe_psql('postgres', <<'SQL');
INSERT INTO dark VALUES (1001, 'kept dark there', 0);
INSERT INTO darker VALUES ('kept dark there', 1001, 0);
INSERT INTO divided (name, n) VALUES ('kept dark there', 0);
INSERT INTO below (dark, name) VALUES (1001, 'below');
INSERT INTO unnamed (dark) VALUES (1001);
UPDATE dark SET n = 7 WHERE id = 10; UPDATE below SET n = 7 WHERE dark = 10; UPDATE unnamed SET n = 7 WHERE dark = 10;
DELETE FROM below WHERE dark = 11; DELETE FROM unnamed WHERE dark = 11;
SQL

# what fails
$local->safe_psql('postgres', <<'SQL');
UPDATE dark SET n = 1000, name = name || ' once more' WHERE id = 1;
UPDATE divided SET n = 1000 WHERE id = 1;
UPDATE below SET n = 1000 WHERE dark IN (2, 1);
UPDATE unnamed SET n = 1000 WHERE dark IN (2, 1);
INSERT INTO darker VALUES ('kept dark and refused', 200, 1000);
INSERT INTO child (name, code) VALUES ('refused', 200);
INSERT INTO dark VALUES (200, 'kept dark and refused', 1000);
INSERT INTO below (dark, name) VALUES (200, 'refused');
INSERT INTO unnamed (dark) VALUES (200);
SQL
cmp_ok(sync($local, 'office')->{failed}, '>=', 10, 'changes are refused');

# what has lost
$local->safe_psql('postgres', <<'SQL');
INSERT INTO synchro.conflict (node, relation, identity, name, local_changed_at, remote_changed_at, winner, ambiguous, loser)
SELECT gen_random_uuid(), t, i, ARRAY['kept dark'], now(), now(), 'local', false, '{"name": "kept dark"}'
	FROM unnest('{dark,darker,divided}'::regclass[]) t, (VALUES ('{1}'::text[]), (NULL), ('{kept dark}')) v (i);
SQL
my @conflicts = split /\n/, rows($local, 'SELECT id FROM synchro.conflict');

# all of synchro that is meant to be granted: its tables, which have everybody's keys, are not
$local->safe_psql('postgres', <<'SQL');
CREATE ROLE reader LOGIN;
GRANT USAGE ON SCHEMA synchro TO reader;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA synchro TO reader;
SELECT format('GRANT SELECT ON %s TO reader', oid::regclass) FROM pg_class WHERE relnamespace = 'synchro'::regnamespace AND relkind = 'v' \gexec
GRANT SELECT, INSERT, UPDATE, DELETE ON child, below, unnamed, divided TO reader;
GRANT INSERT, UPDATE, DELETE ON dark, darker TO reader;
ALTER TABLE divided ENABLE ROW LEVEL SECURITY;
CREATE POLICY a_few ON divided TO reader USING (n < 0);
SQL

# What is pending, each time: passes push it.
my $times = 0;

sub change
{
	$times++;
	$local->safe_psql('postgres', <<"SQL");
UPDATE dark SET name = 'kept dark, $times' WHERE id = 3; DELETE FROM dark WHERE id = 1000 + $times - 1; INSERT INTO dark VALUES (1000 + $times, 'kept dark, new $times', 0);
UPDATE darker SET name = 'kept dark, $times' WHERE code = 3; UPDATE divided SET name = 'kept dark, $times' WHERE id = 3;
UPDATE child SET n = $times % 100 WHERE code IN (3, 4); UPDATE below SET n = $times % 100 WHERE dark IN (3, 4); UPDATE unnamed SET n = $times % 100 WHERE dark IN (3, 4);
SQL
	return;
}

# Output and messages of an SQL script.
sub said
{
	my ($role, $sql) = @_;

	change();
	my ($status, $stdout, $stderr) = $local->psql('postgres', "\\set VERBOSITY verbose\n\\set SHOW_CONTEXT always\n$sql", extra_params => [ '-U', $role ], on_error_stop => 0);
	return "$stdout\n$stderr";
}

sub untold
{
	my ($testname, $sql) = @_;
	my $said = said('reader', $sql);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike($said, qr/kept dark/, $testname);
	return $said;
}

#
# views
#
foreach my $view (split /\n/, rows($local, q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'synchro'::regnamespace AND relkind IN ('v', 'm') ORDER BY 1}))
{
	untold("view $view", "SELECT * FROM $view");
}
like(said('postgres', "SELECT * FROM synchro.$_"), qr/kept dark/, "there would be something to tell by $_") foreach qw(failures changes conflicts);

#
# functions, each called with what can tell most; a peer's in a transaction that pushes
#
my $id = '00000000-0000-4000-8000-000000000000';
my @tables = qw(dark darker divided child below unnamed);
my $of_each = sub { my ($arguments) = @_; return map { $arguments =~ s/%s/$_/gr } @tables };
my $push = "SELECT synchro.peer_begin(gen_random_uuid(), NULL, 0, '1:1:', true)";
my %calls = (
	add_remote => [q{'office'}],
	add_schema => [q{'public'}],
	add_table => [ $of_each->(q{'%s'}), $of_each->(q{'%s', '{n}'}) ],
	allow_peer => [q{'reader'}],
	alter_table => [ $of_each->(q{'%s'}), $of_each->(q{'%s', '{n}'}) ],
	check => [ '', q{'office'} ],
	checkpoint => [q{'office'}],
	confirm_node => [''],
	copy_table => [ $of_each->(q{'office', '%s', true}) ],
	disable_log => [''],
	enable_log => [''],
	fdw_validator => [q{'{}', 'pg_foreign_server'::regclass}],
	log_entries => [''],
	manifest => [ '', q{'public'} ],
	pause => [q{'office'}],
	peer_apply => [ $of_each->(qq{'public.%s', '{"{1}"}', '{9000000000000000}', '{$id}', '{f}', '{f}'}) ],
	peer_begin => [q{gen_random_uuid(), NULL, 0, '1:1:', true}],
	peer_clock => [q{gen_random_uuid(), gen_random_uuid(), 5, 0, 0}],
	peer_gone => [ $of_each->(q{'public.%s', '{1}', '{first}', 0}) ],
	peer_kept => [ $of_each->(qq{'public.%s', '{1}', 0, '$id', 0, '$id'}) ],
	peer_lost => [ $of_each->(qq{'public.%s', '{1}', 0, '$id', 0, '$id', NULL, NULL, NULL, NULL, NULL}) ],
	peer_lost_names => [ $of_each->(q{'public.%s'}) ],
	peer_names => [ $of_each->(q{'public.%s', '{"{first}"}', 0}) ],
	peer_newest => [ $of_each->(q{'public.%s', '{"{1}","{3}"}', 0}) ],
	peer_node => [''],
	peer_recheck => [''],
	peer_referred => [ $of_each->(q{'{public.%s}', '{"{1}"}', 0, '{}'}) ],
	peer_renamed => [ $of_each->(q{'public.%s', '{"{1}","{3}"}'}) ],
	peer_renames => [ $of_each->(q{'public.%s', '{0}'}) ],
	peer_restate => [ $of_each->(q{'public.%s', '{"{1}"}', '{9000000000000000}'}) ],
	peer_setup => [''],
	peer_table => [ $of_each->(q{'public.%s'}) ],
	peer_won => [ $of_each->(qq{'public.%s', '{1}', 0, '$id', 0, '$id', NULL}) ],
	preview => [ '', q{'office'} ],
	pusher_status => [''],
	register_natural_key => [ $of_each->(q{'%s', '{n}'}) ],
	remove_remote => [q{'office'}],
	remove_table => [ $of_each->(q{'%s'}) ],
	requeue => [ q{'office'}, $of_each->(q{'office', '%s'}) ],
	reset => [ '', q{'office'} ],
	reset_schema => [ q{'public'}, q{'public', false, 'office', true} ],
	resume => [q{'office'}],
	retry => [ '', q{'office'} ],
	set_checkpoint => [q{'office', '-infinity'}],
	synchronize => [ '', q{'office'} ],
	table_mode => [ $of_each->(q{'%s'}) ],
	undo => [@conflicts],
	unregister_natural_key => [ $of_each->(q{'%s'}) ],
	verify => [ q{'office'}, $of_each->(q{'office', '%s'}) ],
);
my @functions = split /\n/, rows($local, <<'SQL');
SELECT proname FROM pg_proc WHERE pronamespace = 'synchro'::regnamespace AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) ORDER BY 1
SQL

is_deeply(\@functions, [ sort keys %calls ], 'each function is called');

# those that push do so in transactions of their own, which a caller with changes of his must not hold up
my %alone = map { $_ => 1 } qw(synchronize verify requeue preview check);

foreach my $function (@functions)
{
	my @scripts;

	foreach my $arguments (@{ $calls{$function} || [] })
	{
		my $call = "SELECT * FROM synchro.$function($arguments);";

		push @scripts, $alone{$function} ? $call : 'BEGIN; ' . ($function =~ /^peer_/ ? "$push; " : '') . "$call ROLLBACK;";
	}
	my $said = untold("function $function", join "\n", @scripts);

	unlike($said, qr/syntax error|does not exist|is not unique|permission denied for (?:function|schema)/, "$function: has been called");
}
like(said('postgres', "SELECT * FROM synchro.$_"), qr/kept dark/, "there would be something to tell by $_") foreach q{preview('office')}, q{verify('office')}, q{log_entries()};

$_->stop('fast') foreach $local, $remote;
done_testing();
