# WHY: who writes a table, or has one written by undo(), runs the code of its owner, since PostgreSQL has it so: the writer must
# not run any more of it for our trigger's sake. Whoever calls what only reads must run none at all, a superuser neither, and
# nobody must run that of a policy. (074_attacks.pl shows that each of the traps strikes.)
use strict;
use warnings;

use lib 'test/t';
use Attacker;
use Nodes;
use SynchroTest;
use Test::More;

# names that are looked up by the caller's search_path are the attacker's; what the test itself says has schemas
my $path = 'SET search_path = evil, pg_catalog;';

my ($a, $b) = nodes({}, 'a', 'b');

attack($a, $b);
lay_traps();

sub as_bystander
{
	return grep { /, as bystander$/ } @_;
}

#
# an innocent writer
#
my $writes = <<"SQL";
$path
INSERT INTO evil.parent (code, n) VALUES ('w1', 901), ('w2', 902);
INSERT INTO evil.t (code, mood, parent, n, codes) VALUES ('w1', 'bad', 901, 1, '{x}'), ('w2', 'good', 902, 2, '{x,y}');
UPDATE evil.t SET n = 3, mood = 'good' WHERE parent OPERATOR(pg_catalog.=) 901;
UPDATE evil.t SET code = 'w3', parent = 901 WHERE parent OPERATOR(pg_catalog.=) 902;
UPDATE evil.t SET id = 1000 WHERE n OPERATOR(pg_catalog.=) 3;
UPDATE evil.parent SET code = 'w4' WHERE n OPERATOR(pg_catalog.=) 902;
DELETE FROM evil.t WHERE n OPERATOR(pg_catalog.=) 3;
TRUNCATE evil.t;
DELETE FROM evil.parent;
INSERT INTO evil.keyed VALUES ('good', '{w}', 1);
UPDATE evil.keyed SET mood = 'bad', codes = '{v,w}';
DELETE FROM evil.keyed;
INSERT INTO evil.divided VALUES ('w', 1);
UPDATE evil.divided SET name = 'v', n = 2;
DELETE FROM evil.divided;
SQL
$_->safe_psql('postgres', 'GRANT TRUNCATE ON evil.t TO bystander') foreach $a, $b;
as($a, 'bystander', $writes);
my @before = harmless('a writer, not captured', [ 'a: trigger, as bystander', 'a: check, as bystander', 'a: index expression, as bystander' ], 'bystander');

foreach my $node ($a, $b)
{
	$node->safe_psql('postgres', <<'SQL');
SELECT synchro.register_natural_key('evil.parent', '{code}'), synchro.add_table('evil.parent'), synchro.add_table('evil.t', '{code,parent}');
SELECT synchro.add_table('evil.keyed'), synchro.add_table('evil.divided', '{name}');
SQL
}
harmless('watched', []);
as($a, 'bystander', $writes);
my @captured = harmless('a writer, captured', [], 'bystander');
cmp_ok(rows($a, q{SELECT pg_catalog.count(DISTINCT relation) FROM synchro.changes}), '>=', 4, 'what he writes is captured');
is(join("\n", @captured), join("\n", @before), 'and has nothing run for him that would not be run anyway');

#
# conflicts, undone
#
join_nodes($a, $b);
both($a, $b, <<'SQL');
GRANT USAGE ON SCHEMA evil TO sync;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA evil TO sync;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA evil TO sync;
SQL
as($a, 'attacker', <<'SQL');
INSERT INTO evil.parent (code, n) SELECT 'p' || i, i FROM generate_series(1, 5) i;
INSERT INTO evil.t (code, mood, parent, n, codes) SELECT 't' || i, 'bad', 1 + i % 5, i, '{x,y}' FROM generate_series(1, 20) i;
INSERT INTO evil.keyed SELECT 'good', ARRAY['k' || i], i FROM generate_series(1, 5) i;
SQL
settle($a, $b);
is(as($b, 'attacker', 'SELECT count(*) FROM evil.t'), 20, 'rows of a hostile table arrive');
as($a, 'attacker', q{UPDATE evil.t SET n = 100 WHERE code = 't1'; UPDATE evil.t SET n = 200 WHERE code = 't2'; DELETE FROM evil.t WHERE code = 't3'; UPDATE evil.t SET n = 400 WHERE code = 't4'});
as($b, 'attacker', q{UPDATE evil.t SET n = 101 WHERE code = 't1'; DELETE FROM evil.t WHERE code = 't2'; UPDATE evil.t SET n = 300 WHERE code = 't3'; UPDATE evil.t SET n = 401 WHERE code = 't4'});
settle($a, $b);
harmless('conflicts', [], 'sync');
both($a, $b, 'GRANT EXECUTE ON FUNCTION synchro.undo(bigint) TO bystander');

# the node that has the record of a conflict of that row, or of one that was deleted, and its number
sub lost
{
	my ($code) = @_;
	my $which = $code eq 't3' ? 'loser IS NULL' : "loser OPERATOR(pg_catalog.->>) 'code' OPERATOR(pg_catalog.=) '$code'";

	foreach my $node ($a, $b)
	{
		my $id = rows($node, "SELECT id FROM synchro.conflicts WHERE relation OPERATOR(pg_catalog.=) 'evil.t'::pg_catalog.regclass AND $which");

		return ($node, $id) if $id ne '';
	}
	die "there is no conflict of $code";
}

# Undoing runs what the statements would, as who undoes it: both are compared, those by hand being taken back. What is inserted
# again has been looked for.
my %by_hand = (
	t1 => q{UPDATE evil.t SET (code, mood, parent, n, codes) = ROW ('t1'::evil.code, 'bad'::evil.mood, 2::pg_catalog.numeric, 100, '{x,y}'::evil.code[]) WHERE n OPERATOR(pg_catalog.=) 101},
	t2 => q{UPDATE evil.t SET n = 0 WHERE code OPERATOR(pg_catalog.=) 't2'; INSERT INTO evil.t (code, mood, parent, n, codes) VALUES ('t2'::evil.code, 'bad'::evil.mood, 3::pg_catalog.numeric, 200, '{x,y}'::evil.code[])},
	t3 => q{DELETE FROM evil.t WHERE n OPERATOR(pg_catalog.=) 300});
my %undone = (t1 => '100', t2 => '200', t3 => '');
foreach my $code (sort keys %by_hand)
{
	my ($node, $id) = lost($code);
	my $trap = $node->name . ': trigger, as bystander';

	as($node, 'bystander', "$path BEGIN; $by_hand{$code}; ROLLBACK");
	my %expected = map { $_ => 1 } as_bystander(harmless("$code by hand", [ $trap ], 'bystander'));
	as($node, 'bystander', "$path SELECT synchro.undo($id)");
	my @undo = harmless("undo() of $code", [ $trap ], 'bystander');

	is(as($node, 'attacker', "SELECT n FROM evil.t WHERE code = '$code'"), $undone{$code}, "undo() of $code: it is undone");
	is(join("\n", grep { !$expected{$_} } as_bystander(@undo)), '', "undo() of $code: who undoes it runs what he would by hand, and nothing else");
}
settle($a, $b);
harmless('undone', [], 'sync');
my ($node, $id) = lost('t4');
$node->safe_psql('postgres', "$path SELECT synchro.undo($id)");
ok((grep { $_ eq 'trigger, as postgres' } strikes($node)), 'a superuser who undoes writes as himself, too, which README warns of');
$node->safe_psql('postgres', 'ALTER ROLE attacker NOSUPERUSER');
settle($a, $b);
harmless('undone by a superuser', [], 'sync');

#
# what only reads, or writes what is ours
#
sub called
{
	my ($testname, $role, $sql, $answer, $expected, @users) = @_;
	my ($status, $told, $error);

	strikes($_) foreach $a, $b;
	($status, $told, $error) = $a->psql('postgres', "\\set VERBOSITY verbose\n$path\n$sql", extra_params => [ '-U', $role ]);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($told . ($status == 0 ? '' : $error), $answer, "$testname, called by $role: it answers");
	return harmless("$testname, called by $role", $expected, @users);
}

both($a, $b, <<'SQL');
GRANT EXECUTE ON FUNCTION synchro.verify(name, regclass), synchro.requeue(name, regclass), synchro.manifest(regnamespace), synchro.preview(name),
	synchro.synchronize(name), synchro.add_schema(regnamespace), synchro.reset_schema(regnamespace, boolean, name, boolean) TO bystander;
SQL
my @here = map { "a: $_, as attacker" } 'index expression', 'index predicate', 'statistics';
my @there = map { "b: $_, as sync" } 'index expression', 'index predicate', 'statistics';
foreach my $role ('postgres', 'bystander')
{
	my $n = $role eq 'postgres' ? 1000 : 2000;

	as($b, 'attacker', "SET synchro.log_changes = off; UPDATE evil.t SET n = $n WHERE code = 't7'");
	called('verify()', $role, q{SELECT relation, key, columns FROM synchro.verify('b', 'evil.t')}, qr/\At\|t7, 3\|\{n\}\z/, [ @here, @there ], 'sync');
	called('manifest()', $role, q{SELECT relation FROM synchro.manifest('evil')}, qr/\Adivided\nkeyed\nparent\nt\z/, \@here, 'sync');
	called('requeue()', $role, q{SELECT synchro.requeue('b', 'evil.t')}, qr/\A1\z/, [ @here, @there ], 'sync');
	as($a, 'attacker', "UPDATE evil.t SET n = $n WHERE code = 't8'");
	called('preview()', $role, 'SELECT key, action FROM synchro.preview()', qr/^t8, 4\|update$/m, [ @here, @there, 'b: trigger, as sync' ], 'sync');
	called('synchronize()', $role, 'SELECT updated FROM synchro.synchronize()', qr/\A2\z/, [ @here, @there, 'b: trigger, as sync' ], 'sync');
}
both($a, $b, 'SET ROLE attacker; CREATE TABLE evil.late (LIKE evil.t INCLUDING ALL); GRANT SELECT ON evil.late TO bystander');
called('add_schema()', 'bystander', q{SELECT synchro.add_schema('evil')}, qr/42501: must be owner of all tables/, []);
called('reset_schema()', 'bystander', q{SELECT synchro.reset_schema('evil')}, qr/42501: must be owner of all watched tables/, []);
called('add_schema()', 'postgres', q{SELECT synchro.add_schema('evil')}, qr/\A1\z/, \@here);
called('reset_schema()', 'postgres', q{SELECT synchro.reset_schema('evil')}, qr/\A5\z/, []);
called('reset_schema(), hard', 'postgres', q{SELECT synchro.reset_schema('evil', false, 'b', true)}, qr/0A000: tables of remote "b" cannot be emptied/, []);

#
# code of a policy
#
sub without_policy
{
	my ($testname, @call) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike(join("\n", called($testname, @call, 'sync')), qr/policy/, "$testname: no code of a policy is run");
	return;
}

as($a, 'attacker', q{UPDATE evil.t SET n = 500 WHERE code = 't5'});
as($b, 'attacker', q{UPDATE evil.t SET n = 501 WHERE code = 't5'});
settle($a, $b);
harmless('one more conflict', [], 'sync');
both($a, $b, 'ALTER TABLE evil.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY');
as($_, 'bystander', 'SELECT FROM evil.t') foreach $a, $b;
harmless('a policy', [ 'a: policy, as bystander', 'b: policy, as bystander' ], 'bystander');
as($a, 'attacker', q{UPDATE evil.t SET n = 600 WHERE code = 't6'});
without_policy('synchronize(), a policy', 'bystander', 'SELECT failed FROM synchro.synchronize()', qr/\A1\z/, []);
without_policy('preview(), a policy', 'postgres', 'SELECT action FROM synchro.preview()', qr/\Afail\z/, []);
foreach my $function ('verify', 'requeue')
{
	my $call = "SELECT synchro.$function('b', 'evil.t')";

	without_policy("$function(), a policy there", 'postgres', $call, qr/42501: .*row-level security policy for table "t"/, []);
	without_policy("$function(), a policy here", 'bystander', $call, qr/42501: rows of table "t" are hidden from you by a policy/, []);
}
without_policy('manifest(), a policy', 'bystander', q{SELECT synchro.manifest()}, qr/42501: .*row-level security policy for table "t"/, []);
without_policy('manifest(), a policy', 'postgres', q{SELECT relation FROM synchro.manifest('evil')}, qr/^t$/m, [ 'a: index expression, as attacker' ]);
($node, $id) = lost('t5');
my (undef, undef, $denied) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT synchro.undo($id)", extra_params => [ '-U', 'bystander' ]);
like($denied, qr/42501: permission denied for table t$/m, 'undo(), a policy: it is refused');
unlike(join("\n", harmless('undo(), a policy', [])), qr/policy/, 'undo(), a policy: no code of it is run');

# whom policies do not apply to
$b->safe_psql('postgres', 'ALTER ROLE sync BYPASSRLS');
$a->safe_psql('postgres', 'SELECT synchro.retry()');
without_policy('synchronize(), a policy for others', 'postgres', 'SELECT updated, failed FROM synchro.synchronize()', qr/\A1\|0\z/, [ @here, @there ]);
without_policy('verify(), a policy for others', 'postgres', q{SELECT synchro.verify('b', 'evil.t')}, qr/\A\z/, [ @here, @there ]);
without_policy('copy_table(), a policy for others', 'postgres', q{SELECT synchro.copy_table('b', 'evil.t', true)}, qr/\A\d+\z/, [ 'a: index expression, as attacker' ]);
without_policy('the copy, a policy for others', 'postgres', 'SELECT failed FROM synchro.synchronize()', qr/\A0\z/, [ @here, @there ]);
$b->safe_psql('postgres', 'ALTER ROLE sync NOBYPASSRLS');

$_->stop('fast') foreach $a, $b;
done_testing();
