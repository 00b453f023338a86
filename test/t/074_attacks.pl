# WHY: whoever may make objects in a database, a table of his own, a function, an operator, an enum, may have others run code
# of his by them. Of all that touches his tables synchro has the most power: it works as the owner of the extension, as the
# owner of a foreign server, and on the remote as the pushing role. So each way is tried by a role that has a table and
# little else; its code says in the server's log as whom it runs, and takes what it can get.
use strict;
use warnings;

use lib 'test/t';
use Attacker;
use JSON::PP ();
use Nodes;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

attack($a, $b);
lay_traps();

# A superuser had better not look at the attacker's tables himself.
sub same_rows
{
	my ($query, $testname) = @_;
	my $there = as($b, 'attacker', $query);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	isnt($there, '', "$testname: something is there");
	return is(as($a, 'attacker', $query), $there, $testname);
}

# Each trap is one: it says so of whoever has it run as it is meant to be. What is not found below was not run, then.
my %traps = (
	'cast to text' => q{SELECT 'good'::evil.mood::text},
	'cast from text' => q{SELECT 'good'::text::evil.mood},
	'cast of a list to text' => q{SELECT '{good}'::evil.mood[]::text},
	'cast of a list from text' => q{SELECT '{good}'::text::evil.mood[]},
	'domain' => q{SELECT 'x'::text::evil.code},
	'operator of domain' => q{SET search_path = evil, pg_catalog; SELECT 'x'::evil.code = 'x'::evil.code},
	'operator = (text, text)' => q{SET search_path = evil, pg_catalog; SELECT 'x'::text = 'x'::text},
	'function count(text)' => q{SET search_path = evil, pg_catalog; SELECT count('x'::text)},
	'function array_agg(text)' => q{SET search_path = pg_catalog, public; SELECT array_agg('x'::text)},
	'statistics' => q{SELECT FROM evil.t WHERE code OPERATOR(pg_catalog.=) 'x'},
	(map { $_ => q{INSERT INTO evil.parent (code) VALUES ('x')} } 'default', 'index of a parent'),
	(map { $_ => q{INSERT INTO evil.parent (code) VALUES ('x'); INSERT INTO evil.t (code, parent) VALUES ('x', 1)} }
		'generated', 'check', 'index expression', 'index predicate', 'trigger'),
	(map { $_ => q{INSERT INTO evil.divided VALUES ('x', 1)} } 'partition key', 'index of partitions'),
	'policy' => 'SELECT FROM evil.t');
both($a, $b, 'ALTER TABLE evil.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY writers ON evil.t FOR INSERT TO bystander WITH CHECK (true)');
foreach my $trap (sort keys %traps)
{
	foreach my $node ($a, $b)
	{
		as($node, 'bystander', "BEGIN; $traps{$trap}; ROLLBACK");
		ok((grep { $_ eq "$trap, as bystander" } strikes($node)), 'a trap of ' . $node->name . ": $trap");
	}
}
as($a, 'attacker', 'SELECT FROM evil.t');
ok((grep { $_ eq 'policy, as attacker' } strikes($a)), 'its policy is for the owner, too');
both($a, $b, q{DROP POLICY writers ON evil.t; ALTER TABLE evil.t DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY; SELECT evil.strike('control')});
foreach my $node ($a, $b)
{
	is(join("\n", strikes($node)), 'control, as postgres', 'they are seen as whom they run on ' . $node->name);
	is(rows($node, q{SELECT rolsuper FROM pg_roles WHERE rolname = 'attacker'}), 't', 'and take what they get');
	$node->safe_psql('postgres', 'ALTER ROLE attacker NOSUPERUSER');
	$node->safe_psql('postgres', 'DROP EXTENSION synchro; CREATE EXTENSION synchro');
}
harmless('CREATE EXTENSION', []);

# the superuser watches what is the attacker's
my @adds = (
	q{SELECT synchro.register_natural_key('evil.parent', '{code}')},
	q{SELECT synchro.add_table('evil.t', '{code,parent}')},
	q{SELECT synchro.add_table('evil.parent')},
	q{SELECT synchro.add_table('evil.keyed')},
	q{SELECT synchro.add_table('evil.divided', '{name}')},
	q{SELECT synchro.alter_table('evil.t', skip => '{n}')},
	q{SELECT synchro.alter_table('evil.t', skip => '{}')},
	q{SELECT pg_catalog.count(synchro.table_mode(relation)) FROM synchro.tables});
foreach my $node ($a, $b)
{
	$node->safe_psql('postgres', $_) foreach @adds;
}
harmless('a superuser watches them', []);

# DDL of the attacker's that ours follows
foreach my $node ($a, $b)
{
	as($node, 'attacker', <<'SQL');
CREATE TABLE evil.divided_2 PARTITION OF evil.divided FOR VALUES FROM (100) TO (200);
CREATE TABLE evil.divided_3 (LIKE evil.divided);
ALTER TABLE evil.divided ATTACH PARTITION evil.divided_3 FOR VALUES FROM (200) TO (300);
ALTER TABLE evil.divided DETACH PARTITION evil.divided_3;
ALTER TABLE evil.t ADD FOREIGN KEY (parent) REFERENCES evil.parent (n);
ALTER TABLE evil.t RENAME COLUMN n TO m;
ALTER TABLE evil.t RENAME COLUMN m TO n;
SQL
}
harmless('DDL', []);

# changes, in both directions, with conflicts; the servers are owned by superusers
join_nodes($a, $b);
$_->safe_psql('postgres', 'GRANT USAGE ON SCHEMA evil TO sync; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA evil TO sync; GRANT USAGE ON ALL SEQUENCES IN SCHEMA evil TO sync')
  foreach $a, $b;
settle($a, $b);
harmless('joined', [], 'sync');

my $rows = q{SELECT t.code, t.mood, p.code, t.n FROM evil.t t JOIN evil.parent p ON p.n = t.parent ORDER BY t.code};

as($a, 'attacker', <<'SQL');
INSERT INTO evil.parent (code, n) SELECT 'p' || i, i FROM generate_series(1, 5) i;
INSERT INTO evil.t (code, mood, parent, n, codes) SELECT 't' || i, 'bad', 1 + i % 5, i, '{x,y}' FROM generate_series(1, 20) i;
INSERT INTO evil.keyed SELECT 'good', ARRAY['k' || i], i FROM generate_series(1, 5) i;
INSERT INTO evil.divided SELECT 'd' || i, i FROM generate_series(1, 150) i;
SQL
settle($a, $b);
same_rows($rows, 'rows arrive');
same_rows('SELECT name, n FROM evil.divided ORDER BY 1', 'of partitions, too');
as($a, 'attacker', q{UPDATE evil.t SET n = n + 1, mood = 'good'; UPDATE evil.parent SET code = code || '''' WHERE n < 3; DELETE FROM evil.t WHERE code = 't3';
	UPDATE evil.keyed SET codes = codes || ARRAY['new'::evil.code] WHERE n = 2; DELETE FROM evil.keyed WHERE n = 3});
as($b, 'attacker', q{UPDATE evil.t SET n = n + 7 WHERE code < 't2'; UPDATE evil.parent SET code = code || '"' WHERE n = 2; UPDATE evil.t SET code = 'renamed' WHERE code = 't9'});
settle($a, $b);
same_rows($rows, 'changes, too');
same_rows('SELECT mood, codes, n FROM evil.keyed ORDER BY n', 'of odd keys, too');
harmless('pushed', [ 'a: index expression, as attacker', 'a: statistics, as attacker', 'b: trigger, as sync' ], 'sync');

# the attacker's column on which a row fails
as($b, 'attacker', q{ALTER TABLE evil.t ADD CONSTRAINT small CHECK (n < 5000)});
as($a, 'attacker', q{UPDATE evil.t SET n = 6000 WHERE code = 't5'; UPDATE evil.keyed SET n = 6000});
sync($a);
is(rows($a, 'SELECT count(*) FROM synchro.failures'), '1', 'a row fails');
harmless('a failure', [], 'sync');
as($b, 'attacker', 'ALTER TABLE evil.t DROP CONSTRAINT small');
$a->safe_psql('postgres', 'SELECT synchro.retry()');
settle($a, $b);

# all rows again
$a->safe_psql('postgres', "SELECT synchro.copy_table('b', '$_', true)") foreach qw(evil.parent evil.t evil.keyed evil.divided);
settle($a, $b);
same_rows($rows, 'copied');
harmless('copy_table()', [ 'a: index expression, as attacker' ], 'sync');

# Policies whose expressions are the attacker's: what might hide rows from the pushing role is an error, before anybody asks it;
# and what might hide them from their owner is not asked.
as($b, 'attacker', 'ALTER TABLE evil.t ENABLE ROW LEVEL SECURITY');
as($a, 'attacker', q{UPDATE evil.t SET n = n + 1 WHERE code = 't5'});
sync_parks($a, 'b', qr/42501: .*row-level security policy for table "t"/, 'a policy there: the table stalls');
harmless('a policy there', [], 'sync');
as($b, 'attacker', 'ALTER TABLE evil.t DISABLE ROW LEVEL SECURITY');
as($a, 'attacker', 'ALTER TABLE evil.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY');
$a->safe_psql('postgres', 'SELECT synchro.retry()');
as($a, 'attacker', q{UPDATE evil.t SET n = n + 1 WHERE code = 't6'});
settle($a, $b);
as($a, 'attacker', 'ALTER TABLE evil.t DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY');
harmless('a policy here, for the owner, too', [], 'sync');
same_rows($rows, 'a policy here: rows arrive');

# values that change hands, of all the types for which another one is put in between
both($a, $b, <<'SQL2');
CREATE TABLE public.swaps (name text PRIMARY KEY, i smallint NOT NULL UNIQUE, n numeric NOT NULL UNIQUE, t varchar(20) NOT NULL UNIQUE, u uuid NOT NULL UNIQUE,
	d date NOT NULL UNIQUE, s timestamptz NOT NULL UNIQUE, parent text REFERENCES public.swaps ON UPDATE CASCADE);
GRANT SELECT, INSERT, UPDATE, DELETE ON public.swaps TO sync;
SELECT synchro.add_table('public.swaps');
SQL2
$a->safe_psql('postgres', q{INSERT INTO public.swaps SELECT 's' || i, i, i, i, md5(i::text)::uuid, date '2024-01-01' + i, timestamptz '2024-01-01' + i * interval '1 day', 's1' FROM generate_series(1, 4) i});
settle($a, $b);
$a->safe_psql('postgres', <<'SQL2');
CREATE TEMP TABLE old AS SELECT * FROM public.swaps;
DELETE FROM public.swaps WHERE name = 's2';
UPDATE public.swaps x SET i = -1, n = -1, t = -1, u = '00000000-0000-0000-0000-000000000000', d = '1999-01-01', s = '1999-01-01' WHERE name = 's3';
UPDATE public.swaps x SET (i, n, t, u, d, s) = (SELECT i, n, t, u, d, s FROM old WHERE name = 's3') WHERE name = 's4';
UPDATE public.swaps x SET (i, n, t, u, d, s) = (SELECT i, n, t, u, d, s FROM old WHERE name = 's4') WHERE name = 's3';
UPDATE public.swaps SET name = 'renamed' WHERE name = 's1';
SQL2
settle($a, $b);
same($a, $b, 'SELECT * FROM public.swaps ORDER BY name', 'swaps arrive');
$a->safe_psql('postgres', q{UPDATE public.swaps SET i = i + 100 WHERE name = 's3'});
$b->safe_psql('postgres', q{UPDATE public.swaps SET i = i + 200 WHERE name = 's3'; UPDATE public.swaps SET name = 'other' WHERE name = 's4'});
$a->safe_psql('postgres', q{UPDATE public.swaps SET i = i + 10 WHERE name = 's4'});
settle($a, $b);
same($a, $b, 'SELECT * FROM public.swaps ORDER BY name', 'and their conflicts');
my $conflicts = 0;
$conflicts += rows($_, 'SELECT count(*) FROM synchro.conflicts') foreach $a, $b;
cmp_ok($conflicts, '>', 0, 'of which there are some');
harmless('swaps', [], 'sync');

# tables of the superuser's own with columns of the attacker's types: nothing but his casts comes with them
both($a, $b, <<'SQL2');
CREATE TABLE public.owned (mood evil.mood PRIMARY KEY, n int);
CREATE TABLE public.owned_pair (mood evil.mood, n int, moods evil.mood[], PRIMARY KEY (mood, n));
CREATE TABLE public.owned_list (moods evil.mood[], place int, n int, PRIMARY KEY (moods, place));
CREATE TABLE public.owned_either (mood evil.mood, n int, UNIQUE (mood));
CREATE TABLE public.owned_child (id serial PRIMARY KEY, name text NOT NULL, mood evil.mood NOT NULL REFERENCES public.owned, UNIQUE (mood, name));
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO sync;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO sync;
SQL2
my @owned = qw(owned owned_pair owned_list owned_either owned_child);
my %keys = (owned_either => q{, '{mood}'}, owned_child => q{, '{mood,name}'});
foreach my $node ($a, $b)
{
	$node->safe_psql('postgres', "SELECT synchro.add_table('public.$_'" . ($keys{$_} // '') . ')') foreach @owned;
}
my %queries = (
	owned => 'SELECT mood, n FROM public.owned ORDER BY mood',
	owned_pair => 'SELECT mood, n, moods FROM public.owned_pair ORDER BY mood, n',
	owned_list => 'SELECT moods, place, n FROM public.owned_list ORDER BY place',
	owned_either => 'SELECT mood, n FROM public.owned_either ORDER BY mood',
	owned_child => 'SELECT mood, name FROM public.owned_child ORDER BY mood, name');

sub same_owned
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	same($a, $b, $queries{$_}, "$testname: $_") foreach @owned;
	return harmless($testname, []);
}
$a->safe_psql('postgres', <<'SQL2');
INSERT INTO public.owned VALUES ('good', 1), ('bad', 2);
INSERT INTO public.owned_pair SELECT 'good', i, '{bad,good}' FROM generate_series(1, 5) i;
INSERT INTO public.owned_list SELECT '{good,bad}', i, i FROM generate_series(1, 5) i;
INSERT INTO public.owned_list VALUES ('[2:3][5:6]={{good,bad},{bad,good}}', 6), ('{}', 7);
INSERT INTO public.owned_either VALUES ('good', 1), (NULL, 2);
INSERT INTO public.owned_child (name, mood) VALUES ('x', 'good'), ('y', 'bad');
SQL2
settle($a, $b);
same_owned('types of another owner');
$a->safe_psql('postgres', "SELECT synchro.copy_table('b', 'public.$_')") foreach @owned;
settle($a, $b);
same_owned('types of another owner, copied');
$a->safe_psql('postgres', <<'SQL2');
UPDATE public.owned SET n = n + 10 WHERE n = 1;
UPDATE public.owned_pair SET mood = 'bad' WHERE n = 2;
DELETE FROM public.owned_pair WHERE n = 3;
UPDATE public.owned_list SET moods = '{bad}' WHERE place = 2;
UPDATE public.owned_list SET n = 70 WHERE place IN (6, 7);
UPDATE public.owned_either SET n = n + 10;
UPDATE public.owned_child SET name = 'z' WHERE name = 'x';
SQL2
$b->safe_psql('postgres', q{UPDATE public.owned SET n = n + 20 WHERE n = 1; UPDATE public.owned_pair SET n = 44 WHERE n = 4; DELETE FROM public.owned_list WHERE place = 5; UPDATE public.owned_list SET n = 70 WHERE place IN (6, 7)});
settle($a, $b);
same_owned('types of another owner, changed');

# a row that the remote makes anew has others follow it
$b->safe_psql('postgres', q{DELETE FROM public.owned_child WHERE name = 'y'; DELETE FROM public.owned WHERE n = 2});
$a->safe_psql('postgres', q{UPDATE public.owned SET n = 3 WHERE n = 2});
settle($a, $b);
same_owned('types of another owner, made anew');

# what differs is asked of the type, and what has lost is written back
$b->safe_psql('postgres', q{SET synchro.log_changes = off; UPDATE public.owned_pair SET moods = '{bad}' WHERE n = 1; DELETE FROM public.owned_list WHERE place = 4});
is($a->safe_psql('postgres', "SELECT pg_catalog.count(*) FROM synchro.verify('b', 'public.owned_pair')"), 1, 'a difference in a list');
$a->safe_psql('postgres', "SELECT * FROM synchro.verify('b', 'public.$_')") foreach @owned;
$a->safe_psql('postgres', 'SELECT * FROM synchro.manifest()');
$a->safe_psql('postgres', 'SELECT * FROM synchro.preview()');
my $undone = 0;
foreach my $node ($a, $b)
{
	my $ids = $node->safe_psql('postgres', q{SELECT id FROM synchro.conflicts WHERE relation OPERATOR(pg_catalog.=) 'public.owned'::pg_catalog.regclass});

	# what others refer to cannot be deleted
	$undone += $node->psql('postgres', "SELECT synchro.undo($_)") == 0 foreach split /\n/, $ids;
}
cmp_ok($undone, '>', 0, 'a conflict is undone');
harmless('types of another owner, compared', [], 'sync');
settle($a, $b);

# a superuser whose search_path begins with the attacker's schema looks at everything, and writes back what has lost
my $path = 'SET search_path = evil, pg_catalog, public;';
$a->safe_psql('postgres', "$path SELECT * FROM synchro.$_") foreach qw(tables changes remotes progress failures conflicts node);
$b->safe_psql('postgres', "$path SELECT * FROM synchro.$_") foreach qw(tables changes remotes progress failures conflicts node);
$a->safe_psql('postgres', "$path SELECT * FROM synchro.check()");
$a->safe_psql('postgres', "$path SELECT synchro.synchronize()");
$a->safe_psql('postgres', "$path SELECT * FROM synchro.verify('b')");
$a->safe_psql('postgres', "$path SELECT * FROM synchro.verify('b', 'public.swaps')");
$a->safe_psql('postgres', "$path SELECT * FROM synchro.manifest()");
$a->safe_psql('postgres', "$path SELECT * FROM synchro.manifest('evil')");
$a->safe_psql('postgres', "$path SELECT * FROM synchro.preview()");
$a->safe_psql('postgres', "$path SELECT synchro.retry()");
$a->safe_psql('postgres', "$path SELECT synchro.peer_setup()");
$a->safe_psql('postgres', "$path SELECT synchro.pause('b'); SELECT synchro.resume('b')");
$a->safe_psql('postgres', "$path SELECT synchro.set_checkpoint('b', 'yesterday')");
$a->safe_psql('postgres', "$path SELECT synchro.checkpoint('b')");
$a->safe_psql('postgres', "$path SELECT synchro.alter_table('evil.keyed', skip => '{}')");
$a->safe_psql('postgres', "$path SELECT synchro.allow_peer('sync')");
$a->safe_psql('postgres', "$path CREATE TABLE public.mine (id serial PRIMARY KEY, name text UNIQUE)");
$a->safe_psql('postgres', "$path SELECT synchro.add_table('public.mine', '{name}'), synchro.remove_table('public.mine')");
foreach my $node ($a, $b)
{
	# what cannot be written back any more does not matter
	$node->psql('postgres', "$path SELECT synchro.undo(id) FROM synchro.conflicts WHERE relation OPERATOR(pg_catalog.=) 'public.swaps'::pg_catalog.regclass");
}
harmless('search_path', [], 'sync');

#
# a remote without the extension, where he may make schemas, and makes those that the extension would have
#
my $c = synchro_node('c');

$c->safe_psql('postgres', <<'SQL2');
CREATE TABLE public.swaps (name text PRIMARY KEY, i smallint NOT NULL UNIQUE, n numeric NOT NULL UNIQUE, t varchar(20) NOT NULL UNIQUE, u uuid NOT NULL UNIQUE,
	d date NOT NULL UNIQUE, s timestamptz NOT NULL UNIQUE, parent text REFERENCES public.swaps ON UPDATE CASCADE);
CREATE ROLE attacker;
GRANT CREATE ON DATABASE postgres TO attacker;
SET ROLE attacker;
CREATE SCHEMA synchro;
CREATE FUNCTION synchro.strike(how text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'strike by %, as %', how, current_user; END $$;
CREATE FUNCTION synchro.peer_node() RETURNS uuid LANGUAGE plpgsql AS $$ BEGIN PERFORM synchro.strike('peer_node'); RETURN NULL; END $$;
CREATE FUNCTION synchro.peer_table(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM synchro.strike('peer_table'); RETURN NULL; END $$;
CREATE FUNCTION synchro.peer_clock(uuid, uuid, integer, bigint, bigint, OUT own_node uuid, OUT own_reference uuid, OUT own_stratum integer,
	OUT own_offset bigint, OUT own_uncertainty bigint) LANGUAGE plpgsql AS $$ BEGIN PERFORM synchro.strike('peer_clock'); END $$;
SQL2
connect_remote($a, $c, name => 'c');
$a->safe_psql('postgres', q{SELECT synchro.copy_table('c', 'public.swaps')});
foreach my $usage ('GRANT', 'REVOKE')
{
	my $whom = $usage eq 'GRANT' ? 'TO' : 'FROM';

	$c->safe_psql('postgres', "$usage USAGE ON SCHEMA synchro $whom PUBLIC");
	sync($a, 'c');
	same($a, $c, 'SELECT * FROM public.swaps ORDER BY name', "$usage USAGE: what is pushed arrives");
	is(rows($a, q{SELECT count(*) FROM synchro.check() WHERE problem LIKE '%runs synchro, too%'}), 0, 'it is not taken for a node');
	$a->safe_psql('postgres', q{SELECT * FROM synchro.preview('c')});
	$a->psql('postgres', q{SELECT * FROM synchro.verify('c', 'public.swaps')});
	$a->safe_psql('postgres', q{UPDATE public.swaps SET i = i + 1000 WHERE name = 's3'});
}
unlike(slurp_file($c->logfile), qr/LOG:  strike by/, 'nothing of his is called');
harmless('a schema of the same name', []);

#
# SQL that is made for administrators, who run it: what the attacker has called his things is in it
#
my $strike = 'ALTER ROLE attacker SUPERUSER; --';
my $name = "x\$synchro\$; $strike";
my $options = sprintf q{host '127.0.0.1', port '%s'}, $b->port;

$a->safe_psql('postgres', <<'SQL');
GRANT USAGE ON FOREIGN DATA WRAPPER synchro_fdw TO attacker;
GRANT EXECUTE ON FUNCTION synchro.add_remote(name), synchro.add_table(regclass, name[], name[], boolean) TO attacker;
SQL
$b->safe_psql('postgres', qq{CREATE DATABASE his; CREATE ROLE "$name" LOGIN PASSWORD 'secret'});
as($_, 'attacker', qq{CREATE TABLE evil."$name" (id int PRIMARY KEY)}) foreach $a, $b;
as($a, 'attacker', <<"SQL");
CREATE SERVER his FOREIGN DATA WRAPPER synchro_fdw OPTIONS ($options, dbname 'his');
CREATE USER MAPPING FOR attacker SERVER his OPTIONS (user '$name', password 'secret');
SELECT synchro.add_remote('his'), synchro.add_table('evil."$name"');
SQL
my $setup = rows($a, 'SELECT synchro.peer_setup()');
like($setup, qr/\A\\set ON_ERROR_STOP on\n/, 'the SQL of peer_setup() ends at an error');
foreach my $time ('at first', 'once more')
{
	my ($status, undef, $said) = $b->psql('postgres', $setup, on_error_stop => 0);

	is($status, 0, "and meets none, $time") or diag($said);
}
is(rows($b, qq{SELECT has_table_privilege('$name', 'evil."$name"', 'UPDATE')}), 't', 'it grants what it is to grant');
harmless('peer_setup()', [], 'sync');

# a line break ends a comment
my %names = (newline => "n\n$strike", return => "r\r$strike", type => "y\n$strike", server => "s\n$strike");
foreach my $kind ('newline', 'return')
{
	as($a, 'attacker', qq{CREATE TABLE evil.bare (id int NOT NULL UNIQUE); SELECT synchro.add_table('evil.bare', '{id}');
		ALTER TABLE evil.bare DROP id; ALTER TABLE evil.bare RENAME TO "$names{$kind}"});
}
as($a, 'attacker', <<"SQL");
CREATE TYPE evil."$names{type}" AS ENUM ('a');
ALTER TABLE evil.keyed ADD other evil."$names{type}";
CREATE COLLATION evil."$names{newline}" FROM "C";
CREATE TABLE evil.named (name text COLLATE evil."$names{newline}" PRIMARY KEY);
SELECT synchro.add_table('evil.named');
CREATE SERVER "$names{server}" FOREIGN DATA WRAPPER synchro_fdw OPTIONS ($options, dbname 'template1');
CREATE USER MAPPING FOR attacker SERVER "$names{server}" OPTIONS (user 'sync', password 'secret');
SELECT synchro.add_remote('$names{server}');
CREATE FUNCTION evil.twin() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO evil.t DEFAULT VALUES; RETURN NULL; END';
CREATE TRIGGER twin AFTER INSERT ON evil.keyed FOR EACH ROW EXECUTE FUNCTION evil.twin();
SQL

as($b, 'attacker', 'CREATE TABLE evil.named (name text COLLATE "POSIX" PRIMARY KEY)');

# on the remote that is his, he is a superuser
$b->safe_psql('his', <<"SQL");
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE TABLE evil.keyed (n int);
CREATE FUNCTION evil.twin() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER twin AFTER INSERT ON evil.keyed FOR EACH ROW EXECUTE FUNCTION evil.twin();
CREATE FUNCTION pg_catalog.format(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS \$\$ SELECT CASE WHEN \$1 ~ 'ALTER FUNCTION' THEN '$strike' ELSE pg_catalog.concat(\$1, \$2) END \$\$;
SQL
my @fixes = map { JSON::PP::decode_json($_) } split /\n/, rows($a, 'SELECT row_to_json(c) FROM synchro.check() c');
my @his = grep { $_->{problem} =~ /^on remote "his": trigger/ } @fixes;
is(join("\n", map { $_->{fix} } @his), 'ALTER FUNCTION evil.twin() SET synchro.log_changes = off;', 'what is to be done here is not taken from a remote');
@fixes = grep { $_->{fix} =~ /ATTACKER SUPERUSER/i && ($_->{fix} !~ /^-- on remote "his"/) } @fixes;
foreach my $pattern (map { qr/^$_/ } '-- add a primary key.*\bn ', '-- add a primary key.*\br ', '-- on remote "s .*"\n', '-- on remote .*\n(.*\n)*-- make type ', '-- on remote .*\n(.*\n)*-- collation ', '-- on remote .*\n(.*\n)*-- without foreign keys')
{
	ok((grep { $_->{fix} =~ $pattern } @fixes), "there is a comment with such a name in it, $pattern") or diag(map { "$_->{fix}\n" } @fixes);
}
($_->{fix} =~ /^-- on remote/ ? $b : $a)->psql('postgres', $_->{fix}, on_error_stop => 0) foreach @fixes;
harmless('check()', [], 'sync');

#
# a table of his on a remote that is no node, which is emptied and filled anew: his code there runs as the pushing role
#
my $offset = -s $c->logfile;

$c->safe_psql('postgres', <<'SQL2');
GRANT USAGE ON SCHEMA synchro TO PUBLIC;
SET ROLE attacker;
CREATE SCHEMA evil;
CREATE TABLE evil.keyed (mood text, codes text[], n int, other text, PRIMARY KEY (mood, codes));
CREATE FUNCTION evil.fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	PERFORM synchro.strike(concat_ws(' ', TG_NAME, lower(TG_OP)));
	RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER before BEFORE INSERT OR UPDATE OR DELETE ON evil.keyed FOR EACH ROW EXECUTE FUNCTION evil.fire();
CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE OR DELETE ON evil.keyed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.fire();
INSERT INTO evil.keyed VALUES ('bad', '{his}', 1);
GRANT USAGE ON SCHEMA evil TO sync;
GRANT SELECT, INSERT, UPDATE, DELETE ON evil.keyed TO sync;
SQL2
$a->safe_psql('postgres', q{SELECT synchro.remove_table(relation) FROM synchro.tables WHERE relation <> 'evil.keyed'::regclass});
is(rows($a, q{SELECT synchro.reset_schema('evil', false, 'c', true)}), as($a, 'attacker', 'SELECT count(*) FROM evil.keyed'), 'hard');
sync($a, 'c');
my $keyed = q{SELECT mood, codes, n FROM evil.keyed ORDER BY n};

is(rows($c, $keyed), as($a, 'attacker', $keyed), 'his table there is emptied and filled');
{
	my %struck = map { $_ => 1 } slurp_file($c->logfile, $offset) =~ /LOG:  strike by (.*, as \S+)/g;

	is(join("\n", sort keys %struck), join("\n", 'before delete, as sync', 'before insert, as attacker', 'before insert, as sync',
		'late delete, as sync', 'late insert, as attacker', 'late insert, as sync'), 'by the pushing role alone');
}
harmless('reset_schema(), hard', [], 'sync');

$_->stop('fast') foreach $a, $b, $c;
done_testing();
