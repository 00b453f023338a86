# WHY: on the remote synchro writes with the pushing role's rights, and not only to the tables that are pushed to: also to what refers
# to their rows, by operators and casts of their columns' types, and to schema synchro_peer. Each of these may be somebody else's, whom
# nobody has asked the role to trust: whoever has been granted REFERENCES, has a type that a column is of, or was there first. So
# nothing of his may be run or written to, and what he has may neither be lost by that nor keep others from arriving.
use strict;
use warnings;

use lib 'test/t';
use Attacker;
use JSON::PP ();
use Nodes qw(:DEFAULT on);
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

attack($a, $b);
both($a, $b, <<'SQL');
CREATE ROLE keeper LOGIN;
SET ROLE attacker;
CREATE TYPE evil.mood AS ENUM ('one', 'two', 'three');
CREATE FUNCTION evil.mood_text(evil.mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM evil.strike('cast to text'); RETURN pg_catalog.format('%s', $1); END $$;
CREATE CAST (evil.mood AS text) WITH FUNCTION evil.mood_text(evil.mood) AS ASSIGNMENT;
CREATE FUNCTION evil.text_mood(text) RETURNS evil.mood LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r evil.mood; BEGIN PERFORM evil.strike('cast from text'); EXECUTE pg_catalog.format('SELECT %L::evil.mood', $1) INTO r; RETURN r; END $$;
CREATE CAST (text AS evil.mood) WITH FUNCTION evil.text_mood(text) AS ASSIGNMENT;
CREATE FUNCTION evil.mood_json(evil.mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('cast to json'); RETURN '1'::json; END $$;
CREATE CAST (evil.mood AS json) WITH FUNCTION evil.mood_json(evil.mood);
CREATE TYPE evil.rank AS ENUM ('one');
CREATE FUNCTION evil.rank_number(evil.rank) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM evil.strike('cast to a number'); RETURN 1; END $$;
CREATE CAST (evil.rank AS int) WITH FUNCTION evil.rank_number(evil.rank) AS IMPLICIT;
CREATE FUNCTION evil.fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('trigger'); RETURN NEW; END $$;
RESET ROLE;
CREATE TYPE public.color AS ENUM ('red', 'blue');
SET ROLE attacker;
CREATE FUNCTION public.same(public.color, public.color) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('operator of color'); RETURN pg_catalog.enum_eq($1, $2); END $$;
CREATE OPERATOR public.= (LEFTARG = public.color, RIGHTARG = public.color, FUNCTION = public.same);
RESET ROLE;
SQL

# Each trap is one, see 074_attacks.
my %traps = (
	'cast to text' => q{SELECT 'one'::evil.mood::text},
	'cast from text' => q{SELECT 'one'::text::evil.mood},
	'cast to json' => q{SELECT pg_catalog.to_jsonb('one'::evil.mood)},
	'cast to a number' => q{SELECT 'one'::evil.rank OPERATOR(pg_catalog.=) 1},
	'operator of color' => q{SELECT 'red'::public.color OPERATOR(public.=) 'red'::public.color});
foreach my $trap (sort keys %traps)
{
	as($b, 'bystander', $traps{$trap});
	ok((grep { $_ eq "$trap, as bystander" } strikes($b)), "a trap: $trap");
}

#
# what refers to rows of a table that is pushed to
#
my @cases = qw(cascade null default nothing bystander added current peer inheriting mood cast);

both($a, $b, join '', map { "CREATE TABLE public.x_$_ (id serial PRIMARY KEY, email text UNIQUE NOT NULL, mood evil.mood UNIQUE); GRANT REFERENCES, SELECT ON public.x_$_ TO attacker, bystander, keeper;" } @cases);
both($a, $b, <<'SQL');
CREATE TABLE public.likes (id serial PRIMARY KEY, x int REFERENCES public.x_bystander ON DELETE CASCADE, what text);
ALTER TABLE public.likes OWNER TO bystander;
CREATE TABLE public.owned (name text PRIMARY KEY, mood evil.mood, moods evil.mood[], n int);
CREATE TABLE public.tinted (id serial PRIMARY KEY, color public.color NOT NULL, colors public.color[] NOT NULL, name text NOT NULL, n int, UNIQUE (color, colors, name));
CREATE EXTENSION citext SCHEMA public;
CREATE TABLE public.folded (id serial PRIMARY KEY, tag public.citext UNIQUE NOT NULL, n int);
SQL
$b->safe_psql('postgres', q{SELECT pg_catalog.setval(c.oid, 1000) FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.=) 'S' AND c.relnamespace OPERATOR(pg_catalog.=) 'public'::regnamespace});
join_nodes($a, $b);
foreach my $node ($a, $b)
{
	on($node, (map { "SELECT synchro.add_table('public.x_$_', '{email}', skip => '{mood}')" } @cases),
		q{SELECT synchro.add_table('public.likes'), synchro.add_table('public.owned'), synchro.add_table('public.tinted', '{color,colors,name}'), synchro.add_table('public.folded', '{tag}')},
		'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO sync; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO sync; GRANT USAGE ON SCHEMA evil TO sync');
}
on($a, map { "INSERT INTO public.x_$_ (email) VALUES ('ann')" } @cases);
settle($a, $b);
on($b, map { "SET synchro.log_changes = off; INSERT INTO public.x_$_ (email) VALUES ('carl')" } @cases);
harmless('joined', []);

# A table of a role's on the remote, with a row that refers to ann: he knows its id, and writes it himself.
sub refer
{
	my ($case, $role, $table, $action) = @_;
	my $id = rows($b, "SELECT id FROM public.x_$case WHERE email = 'ann'");
	my $schema = $role eq 'attacker' ? 'evil' : 'public';

	$b->safe_psql('postgres', "GRANT CREATE ON SCHEMA public TO $role") if $role ne 'postgres';
	as($b, $role, "CREATE TABLE $schema.$table (x int DEFAULT 1 REFERENCES public.x_$case $action, n int); INSERT INTO $schema.$table VALUES ($id, 0); GRANT SELECT, UPDATE ON $schema.$table TO PUBLIC");
	return;
}

# Ann is called carl, as somebody is there already: by default what refers to the former one is to refer to the other.
sub rename_ann
{
	my ($case, $failed, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	on($a, "UPDATE public.x_$case SET email = 'carl' WHERE email = 'ann'");
	return is(sync($a, 'b')->{failed}, $failed, "$testname: " . ($failed ? 'waits' : 'arrives')) || diag(rows($a, 'SELECT * FROM synchro.failures'));
}

# Who reads a table with traps has them run.
sub refers_to
{
	my ($case, $table, $who, $testname) = @_;
	my $role = $table =~ /^evil/ ? 'attacker' : 'postgres';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(as($b, $role, "SELECT email FROM public.x_$case x JOIN $table t ON t.x = x.id"), $who, "$testname: what refers to the row");
}

# It was parked, and arrives when the table has gone.
sub arrives_without
{
	my ($table, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	on($b, "DROP TABLE $table");
	on($a, 'SELECT synchro.retry()');
	return is(sync($a, 'b')->{failed}, 0, "$testname: it arrives when that is gone");
}

my $because = 'the row that had the name before may be referred to, which cannot be changed: ';

foreach my $case ([ 'cascade', 'ON DELETE CASCADE' ], [ 'null', 'ON DELETE SET NULL' ], [ 'default', 'ON DELETE SET DEFAULT' ])
{
	my ($name, $action) = @$case;

	refer($name, 'attacker', 'clings', $action);
	as($b, 'attacker', q{CREATE TRIGGER fire BEFORE UPDATE ON evil.clings FOR EACH ROW EXECUTE FUNCTION evil.fire(); CREATE INDEX ON evil.clings ((evil.number('index') OPERATOR(pg_catalog.+) n))});
	rename_ann($name, 1, $action);
	is(rows($a, 'SELECT relation, operation, sqlstate, message FROM synchro.failures'),
		"public.x_$name|update|23503|${because}table evil.clings belongs to role attacker, none of whose tables is pushed to", "$action: and it is said whose table it is");
	refers_to($name, 'evil.clings', 'ann', $action);
	harmless($action, []);
	arrives_without('evil.clings', $action);
}

# what keeps the row from being deleted does so
refer('nothing', 'attacker', 'keeps', '');
as($b, 'attacker', q{CREATE TRIGGER fire BEFORE UPDATE ON evil.keeps FOR EACH ROW EXECUTE FUNCTION evil.fire()});
rename_ann('nothing', 1, 'NO ACTION');
like(rows($a, 'SELECT sqlstate, message FROM synchro.failures'), qr/^23503\|.*violates foreign key constraint "keeps_x_fkey" on table "keeps"$/, 'NO ACTION: it is the constraint that says so');
refers_to('nothing', 'evil.keeps', 'ann', 'NO ACTION');
on($b, q{DELETE FROM evil.keeps});
on($a, 'SELECT synchro.retry()');
is(sync($a, 'b')->{failed}, 0, 'NO ACTION: a table without rows is in nobody\'s way');
harmless('NO ACTION', []);
on($b, 'DROP TABLE evil.keeps');

# whoever owns a table that is pushed to may run code as the role anyway: what else he has follows
on($a, q{INSERT INTO public.likes (x, what) SELECT id, 'tea' FROM public.x_bystander});
settle($a, $b);
rename_ann('bystander', 0, 'a watched table of another owner');
is(rows($b, q{SELECT email, what FROM public.likes JOIN public.x_bystander x ON x.id = likes.x}), 'carl|tea', 'a watched table of another owner: it is moved');
refer('added', 'bystander', 'added', 'ON DELETE CASCADE');
rename_ann('added', 0, 'another table of that owner');
refers_to('added', 'public.added', 'carl', 'another table of that owner');

# so do tables of the role's own, and of who owns synchro_peer, on which all depends
refer('current', 'postgres', 'of_role', 'ON DELETE CASCADE');
on($b, 'ALTER TABLE public.of_role OWNER TO sync');
rename_ann('current', 0, 'a table of the role');
refers_to('current', 'public.of_role', 'carl', 'a table of the role');
on($b, 'DROP TABLE public.of_role', 'ALTER SCHEMA synchro_peer OWNER TO keeper');
refer('peer', 'keeper', 'of_keeper', 'ON DELETE CASCADE');
rename_ann('peer', 0, 'a table of who owns synchro_peer');
refers_to('peer', 'public.of_keeper', 'carl', 'a table of who owns synchro_peer');
on($b, 'ALTER SCHEMA synchro_peer OWNER TO postgres');

# tables that inherit from one do not inherit its foreign key, and may be another's
refer('inheriting', 'postgres', 'notes', 'ON DELETE CASCADE');
on($b, 'CREATE TABLE public.more () INHERITS (public.notes)', 'INSERT INTO public.more SELECT * FROM ONLY public.notes', 'ALTER TABLE public.more OWNER TO attacker');
as($b, 'attacker', q{CREATE TRIGGER fire BEFORE UPDATE ON public.more FOR EACH ROW EXECUTE FUNCTION evil.fire()});
on($b, 'GRANT SELECT, UPDATE ON public.more TO sync');
my $former = rows($b, q{SELECT id FROM public.x_inheriting WHERE email = 'ann'});
rename_ann('inheriting', 0, 'inheriting');
refers_to('inheriting', 'ONLY public.notes', 'carl', 'inheriting');
is(rows($b, 'SELECT x FROM public.more'), $former, 'inheriting: what does not refer to it is as it was');
harmless('inheriting', []);

# by values of a type whose owner has casts, also where one of two rows that are the same then is followed by what refers to it
on($b, q{SET synchro.log_changes = off; UPDATE public.x_mood SET mood = CASE email WHEN 'ann' THEN 'one'::evil.mood ELSE 'three' END},
	'CREATE TABLE public.felt (id serial PRIMARY KEY, mood evil.mood REFERENCES public.x_mood (mood) ON DELETE CASCADE, what text, UNIQUE (mood, what))',
	'CREATE TABLE public.said (felt int REFERENCES public.felt ON DELETE CASCADE, what text)',
	q{INSERT INTO public.felt (mood, what) VALUES ('one', 'tea'), ('three', 'tea'), ('one', 'milk')},
	q{INSERT INTO public.said SELECT id, 'of ' || mood FROM public.felt WHERE what = 'tea'} =~ s/\|\| mood/|| pg_catalog.format('%s', mood)/r,
	'GRANT SELECT, UPDATE ON public.felt, public.said TO sync');
rename_ann('mood', 0, 'a type of the attacker\'s');
is(rows($b, q{SELECT f.what, s.what FROM public.x_mood x JOIN public.felt f ON f.mood OPERATOR(pg_catalog.=) x.mood LEFT JOIN public.said s ON s.felt = f.id WHERE email = 'carl' ORDER BY 1, 2}),
	"milk|\ntea|of one\ntea|of three", 'a type of the attacker\'s: all of it is there');
harmless('a type of the attacker\'s', []);

# where only a cast of his can tell what refers to the row, it is not used; nor is it for making that, so rows come first
on($b, q{CREATE TABLE public.counted (x evil.rank); INSERT INTO public.counted VALUES ('one')},
	'ALTER TABLE public.counted ADD FOREIGN KEY (x) REFERENCES public.x_cast ON DELETE CASCADE NOT VALID', 'GRANT SELECT, UPDATE ON public.counted TO sync');
rename_ann('cast', 1, 'a cast in a foreign key');
is(rows($a, 'SELECT sqlstate, message FROM synchro.failures'), "23503|${because}a foreign key of table public.counted needs a cast of somebody else's", 'a cast in a foreign key: and it is said why');
harmless('a cast in a foreign key', []);
arrives_without('public.counted', 'a cast in a foreign key');

#
# operators: a superuser's type, next to which anybody may put one
#
on($a, q{INSERT INTO public.tinted (color, colors, name) VALUES ('red', '{red,blue}', 'x'), ('blue', '{}', 'y'), ('blue', '{blue}', 'to go')}, q{INSERT INTO public.folded (tag) VALUES ('Ann')});
on($b, q{SET synchro.log_changes = off; INSERT INTO public.folded (tag) VALUES ('ANN')});
settle($a, $b);
on($a, 'UPDATE public.tinted SET n = 2', q{UPDATE public.tinted SET color = 'red' WHERE name = 'y'}, q{DELETE FROM public.tinted WHERE name = 'to go'}, 'UPDATE public.folded SET n = 3');
settle($a, $b);
is(rows($b, 'SELECT color, colors, name, n FROM public.tinted ORDER BY name'), "red|{red,blue}|x|2\nred|{}|y|2", 'rows are found by an enum');
is(rows($b, 'SELECT pg_catalog.count(*), pg_catalog.max(n) FROM public.folded'), '1|3', 'and by what a type that has its own operators takes for the same');
is(rows($a, q{SELECT pg_catalog.count(*) FROM synchro.verify('b', 'public.tinted')}), '0', 'there is no difference');
is(rows($a, q{SELECT pg_catalog.count(*) FROM synchro.verify('b', 'public.folded')}), '0', 'in neither');
harmless('operators', []);

#
# what has lost is remembered as it was
#
on($a, q{INSERT INTO public.owned VALUES ('x', 'one', '{one}', 1), ('y', 'one', '{one}', 1)});
settle($a, $b);
on($a, q{UPDATE public.owned SET mood = 'two', moods = '{two,NULL,one}', n = 2 WHERE name = 'x'});
on($b, q{UPDATE public.owned SET mood = 'three', moods = '[2:3]={three,one}', n = 3});
on($a, q{UPDATE public.owned SET mood = 'one', moods = NULL, n = 4 WHERE name = 'y'});
sync($a, 'b');
my $lost = q{SELECT winner, loser ->> 'name', loser ->> 'mood', loser ->> 'moods', loser ->> 'n' FROM synchro.conflicts ORDER BY 2};
is(rows($b, $lost), "local|x|two|{two,NULL,one}|2\nremote|y|three|[2:3]={three,one}|3", 'a conflict has what was pushed, or what was there, as text');
harmless('conflicts', []);
is($b->psql('postgres', "SELECT synchro.undo($_)"), 0, 'what was lost is read') foreach split /\n/, rows($b, 'SELECT id FROM synchro.conflicts');
is(rows($b, 'SELECT * FROM public.owned ORDER BY name'), "x|two|{two,NULL,one}|2\ny|three|[2:3]={three,one}|3", 'and can be written back');
harmless('undo()', []);
settle($a, $b);
same($a, $b, 'SELECT * FROM public.owned ORDER BY name', 'which is a change like others');
harmless('undone', []);

#
# schema synchro_peer, made by somebody before those who are to have it
#
my $port = $b->port;
my $position = 'CREATE TABLE synchro_peer.position (node uuid PRIMARY KEY, token uuid NOT NULL, snapshot text NOT NULL, keys_snapshot text NOT NULL, moved_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp())';
my $belongs = 'something of schema "?synchro_peer"? belongs to role';

$a->safe_psql('postgres', 'CREATE DATABASE shop');
$a->safe_psql('shop', 'CREATE EXTENSION synchro; CREATE TABLE public.t (name text PRIMARY KEY); INSERT INTO public.t VALUES (1)');

# Who made it, and how; who is named.
foreach my $case (
	[ 'schema', 'postgres', "SET ROLE attacker; CREATE SCHEMA synchro_peer; $position", 'attacker' ],
	[ 'relation', 'postgres', "CREATE SCHEMA synchro_peer; $position; ALTER TABLE synchro_peer.position OWNER TO attacker", 'attacker' ],
	[ 'super', 'keeper', "CREATE SCHEMA synchro_peer; $position", undef ],
	[ 'owner', 'keeper', "SET ROLE keeper; CREATE SCHEMA synchro_peer; $position", undef ])
{
	my ($name, $owner, $made, $stranger) = @$case;

	$b->safe_psql('postgres', "CREATE DATABASE $name OWNER $owner");
	$b->safe_psql($name, "CREATE TABLE public.t (name text PRIMARY KEY); GRANT CREATE ON DATABASE $name TO attacker; $made");
	connect_remote($a, $b, name => $name, local_db => 'shop', remote_db => $name, peer => 'none');
	$a->safe_psql('shop', q{SELECT synchro.add_table('public.t')}) if $name eq 'schema';
	my (undef, undef, $said) = $b->psql($name, rows($a, 'SELECT synchro.peer_setup()', 'shop'));

	sync($a, $name, dbname => 'shop');
	my @found = map { JSON::PP::decode_json($_) } split /\n/, rows($a, "SELECT row_to_json(c) FROM synchro.check('$name') c WHERE problem ~ '$belongs'", 'shop');

	$b->safe_psql($name, 'CREATE EXTENSION synchro');
	my (undef, undef, $allowed) = $b->psql($name, q{SELECT synchro.allow_peer('sync')});

	if (defined $stranger)
	{
		like($said, qr/WARNING:  $belongs $stranger\n.*HINT:  Where nothing was pushed yet, drop the schema/s, "$name: the SQL of peer_setup() names the owner");
		is(join("\n", map { "$_->{severity}: $_->{problem}" } @found),
			qq{warning: on remote "$name": something of schema synchro_peer belongs to role $stranger, whose triggers and indexes would run as role sync}, "$name: so does check()");
		like($found[0]{fix}, qr/^-- on remote "$name"\n-- where nothing was pushed yet: .*\n-- else: .*$/, "$name: with what can be done, which is to be thought about first");
		like($allowed, qr/WARNING:  $belongs $stranger\n/, "$name: and allow_peer()");
	}
	else
	{
		unlike("$said$allowed", qr/WARNING/, "$name: nobody is named");
		is(scalar @found, 0, "$name: by check() neither");
	}
}

$_->stop('fast') foreach $a, $b;
done_testing();
