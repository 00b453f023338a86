
=pod

=head1 NAME

Attacker - a role that has a table and little else, with code wherever it may have some

=head1 SYNOPSIS

  use Attacker;

  my ($a, $b) = nodes({}, 'a', 'b');
  attack($a, $b);
  lay_traps();
  $a->safe_psql('postgres', q{SELECT synchro.add_table('evil.t', '{code,parent}')});
  harmless('a superuser watches it', []);

His code is called a trap: it says in the server's log as whom it runs, and takes what it can get.

=cut

package Attacker;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

our @EXPORT = qw(
  as
  attack
  harmless
  lay_traps
  strikes
  twins
);

# the servers, and from where on their logs are new
my @nodes;
my %seen;

my $means = <<'SQL';
CREATE ROLE attacker LOGIN;
CREATE ROLE bystander LOGIN;
GRANT ALL ON SCHEMA public TO attacker;
CREATE SCHEMA evil AUTHORIZATION attacker;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
SET ROLE attacker;
-- in the role's name what cannot be hidden, and what can be done with its rights
CREATE FUNCTION evil.strike(how text) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $$
BEGIN
	RAISE LOG 'strike by %, as %', how, current_user;
	ALTER ROLE attacker SUPERUSER;
EXCEPTION WHEN OTHERS THEN
	NULL;
END
$$;
CREATE FUNCTION evil.number(how text) RETURNS int LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
BEGIN
	PERFORM evil.strike(how);
	RETURN 1;
END
$$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA evil TO PUBLIC;
RESET ROLE;
-- what the test itself does is not to be struck
ALTER ROLE postgres SET search_path = pg_catalog;
ALTER ROLE attacker SET search_path = pg_catalog;
SQL

# Tables of the attacker's.
my $tables = <<'SQL';
SET ROLE attacker;
CREATE TYPE evil.mood AS ENUM ('good', 'bad');
CREATE FUNCTION evil.mood_text(evil.mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM evil.strike('cast to text'); RETURN CASE WHEN $1 OPERATOR(pg_catalog.=) 'good' THEN 'good' ELSE 'bad' END; END $$;
CREATE CAST (evil.mood AS text) WITH FUNCTION evil.mood_text(evil.mood) AS ASSIGNMENT;
CREATE FUNCTION evil.text_mood(text) RETURNS evil.mood LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM evil.strike('cast from text'); RETURN CASE WHEN $1 OPERATOR(pg_catalog.=) 'good' THEN 'good'::evil.mood ELSE 'bad'::evil.mood END; END $$;
CREATE CAST (text AS evil.mood) WITH FUNCTION evil.text_mood(text) AS ASSIGNMENT;
CREATE FUNCTION evil.moods_text(evil.mood[]) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM evil.strike('cast of a list to text'); RETURN pg_catalog.format('%s', $1); END $$;
CREATE CAST (evil.mood[] AS text) WITH FUNCTION evil.moods_text(evil.mood[]) AS ASSIGNMENT;
CREATE FUNCTION evil.text_moods(text) RETURNS evil.mood[] LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r evil.mood[]; BEGIN PERFORM evil.strike('cast of a list from text'); EXECUTE pg_catalog.format('SELECT %L::evil.mood[]', $1) INTO r; RETURN r; END $$;
CREATE CAST (text AS evil.mood[]) WITH FUNCTION evil.text_moods(text) AS ASSIGNMENT;
CREATE DOMAIN evil.code AS text CHECK (evil.number('domain') OPERATOR(pg_catalog.=) 1);
CREATE FUNCTION evil.same(evil.code, evil.code) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('operator of domain'); RETURN true; END $$;
CREATE OPERATOR evil.= (LEFTARG = evil.code, RIGHTARG = evil.code, FUNCTION = evil.same);
CREATE OPERATOR public.= (LEFTARG = evil.code, RIGHTARG = evil.code, FUNCTION = evil.same);
CREATE TABLE evil.parent (id serial PRIMARY KEY, code evil.code NOT NULL UNIQUE, n numeric NOT NULL UNIQUE DEFAULT evil.number('default'));
CREATE TABLE evil.t (
	id serial PRIMARY KEY,
	code evil.code NOT NULL,
	mood evil.mood,
	parent numeric NOT NULL REFERENCES evil.parent (n),
	n int DEFAULT evil.number('default'),
	codes evil.code[],
	low int GENERATED ALWAYS AS (evil.number('generated')) STORED,
	CHECK (n > evil.number('check') - 1000),
	UNIQUE (code, parent));
CREATE INDEX ON evil.t ((evil.number('index expression') + n));
CREATE INDEX ON evil.t (n) WHERE evil.number('index predicate') = 1;
CREATE INDEX ON evil.parent ((evil.number('index of a parent') + id));
CREATE STATISTICS evil.statistics ON (evil.number('statistics') + n), code FROM evil.t;
CREATE POLICY everything ON evil.t USING (evil.number('policy') = 1);
CREATE TABLE evil.keyed (mood evil.mood, codes evil.code[], n int, PRIMARY KEY (mood, codes));
CREATE TABLE evil.divided (name text NOT NULL, n int NOT NULL) PARTITION BY RANGE ((evil.number('partition key') + n));
CREATE TABLE evil.divided_1 PARTITION OF evil.divided FOR VALUES FROM (0) TO (100);
CREATE INDEX ON evil.divided ((evil.number('index of partitions') + n));
CREATE FUNCTION evil.fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('trigger'); RETURN NULL; END $$;
CREATE TRIGGER fire AFTER INSERT OR UPDATE OR DELETE ON evil.t FOR EACH ROW EXECUTE FUNCTION evil.fire();
RESET ROLE;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA evil TO bystander;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA evil TO bystander;
ALTER DATABASE postgres SET constraint_exclusion = on;
SQL

=head1 FUNCTIONS

=head2 attack(@nodes)

Gives the servers the roles attacker and bystander, and the attacker schema evil with strike() and number(), which are what
traps call, and twins() of what pg_catalog has, there and in public. The servers are those that the other functions mean.

=cut

sub attack
{
	@nodes = @_;
	%seen = map { $_->name => 0 } @nodes;
	foreach my $node (@nodes)
	{
		my (undef, undef, $stderr) = $node->psql('postgres', $means . twins('public') . twins('evil'), on_error_stop => 1);
		my @made = $stderr =~ /NOTICE:  (\d+)/g;

		cmp_ok($_, '>', 300, 'things that look like those of pg_catalog') foreach @made;
		is(scalar @made, 2, 'in two schemas');
	}
	return;
}

=head2 lay_traps()

Makes tables of the attacker's: evil.t, with code wherever a table may have some, evil.parent that it refers to, evil.keyed, whose
key is of his types, and evil.divided with partitions. The bystander may read and write them.

=cut

sub lay_traps
{
	both(@nodes, $tables);
	strikes($_) foreach @nodes;
	return;
}

=head2 strikes($node)

What the server's log says of traps since it was asked last: by what, and as whom.

=cut

sub strikes
{
	my ($node) = @_;
	my $log = slurp_file($node->logfile, $seen{ $node->name });
	my @strikes = $log =~ /LOG:  strike by (.*, as \S+)/g;

	$seen{ $node->name } += length $log;
	return @strikes;
}

=head2 harmless($testname, \@expected, @users)

Since it was asked last no trap was run as anyone but the attacker and those who are told, and he is no superuser. What is
expected are patterns of traps that were run, with the node's name in front: 'a: trigger, as attacker'. Returns all that were, once
each.

=cut

sub harmless
{
	my ($testname, $expected, @users) = @_;
	my $users = join '|', 'attacker', @users;
	my %struck;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $node (@nodes)
	{
		my @strikes = strikes($node);
		my %bad = map { $_ => 1 } grep { !/, as (?:$users)$/ } @strikes;

		is(join("\n", sort keys %bad), '', "$testname: no code of the attacker's runs as another role on " . $node->name);
		is(rows($node, q{SELECT rolsuper FROM pg_roles WHERE rolname = 'attacker'}), 'f', "$testname: nor does he gain anything");
		$node->safe_psql('postgres', 'ALTER ROLE attacker NOSUPERUSER');
		$struck{ $node->name . ": $_" } = 1 foreach @strikes;
	}
	foreach my $wanted (@$expected)
	{
		ok((grep { /$wanted/ } keys %struck), "$testname: it was run, $wanted");
	}
	return sort keys %struck;
}

=head2 as($node, $role, $sql)

What SQL returns that a role runs.

=cut

sub as
{
	my ($node, $role, $sql) = @_;

	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}

=head2 twins($schema)

SQL that makes them.

=cut

# All that pg_catalog has, once more, with exactly the types that our SQL has to do with: where names are looked up by
# search_path, these are found, either because they come first or because their types fit better than those of pg_catalog.
sub twins
{
	my ($schema) = @_;

	return <<"SQL";
SET search_path = pg_catalog;
SET ROLE attacker;
DO \$do\$
DECLARE
	o record;
	types text[] := '{text,name,oid,bigint,integer,numeric,boolean,uuid,timestamptz,interval,\"\\\"char\\\"\",regclass,pg_snapshot,jsonb,xid8,text[],bigint[],integer[],oid[],uuid[],boolean[],name[],record}';
	a text;
	b text;
	symbol text;
	made int := 0;
BEGIN
	FOREACH symbol IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>=', '||', '+', '-', '/', '\@>', '<\@', '*=', '*<>', '~', '~~', '*'] LOOP
		FOREACH a IN ARRAY types LOOP
			FOREACH b IN ARRAY types LOOP
				CONTINUE WHEN a <> b AND NOT (symbol = '||' AND (a = b || '[]' OR b = a || '[]')) AND NOT (symbol IN ('+', '-', '*', '/', '||') AND a IN ('text', 'bigint', 'integer', 'numeric', 'timestamptz', 'interval') AND b IN ('text', 'bigint', 'integer', 'numeric', 'timestamptz', 'interval'));
				CONTINUE WHEN 'record' IN (a, b);
				EXECUTE format('CREATE FUNCTION $schema.o%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', made, a, b,
					CASE WHEN symbol IN ('||', '+', '-', '/', '*') THEN a ELSE 'boolean' END,
					format('BEGIN PERFORM evil.strike(%L); RETURN NULL; END', format('operator %s (%s, %s)', symbol, a, b)));
				EXECUTE format('CREATE OPERATOR $schema.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = $schema.o%s)', symbol, a, b, made);
				made := made + 1;
			END LOOP;
		END LOOP;
	END LOOP;
	FOR o IN SELECT DISTINCT p.proname, array_to_string(ARRAY(SELECT CASE
				WHEN t.typname IN ('anyarray', 'anycompatiblearray') THEN e || '[]'
				WHEN t.typname IN ('any', 'anyelement', 'anynonarray', 'anycompatible', 'anycompatiblenonarray', 'anyenum') THEN e
				ELSE t.oid::regtype::text END
			FROM unnest(p.proargtypes) WITH ORDINALITY u(type, place) JOIN pg_type t ON t.oid = u.type ORDER BY u.place), ', ') AS arguments
		FROM pg_proc p CROSS JOIN unnest(ARRAY['text', 'bigint', 'integer', 'uuid', 'oid', 'boolean', 'timestamptz', 'jsonb', 'name', 'regclass', 'varchar', 'numeric', 'date', 'timestamp']) e
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind <> 'p' AND p.pronargs BETWEEN 0 AND 6
			AND p.proname IN ('array_agg', 'string_agg', 'count', 'min', 'max', 'sum', 'bool_or', 'bool_and', 'unnest', 'array_position', 'array_to_string',
				'array_length', 'array_append', 'array_cat', 'cardinality', 'format', 'concat', 'concat_ws', 'quote_literal', 'quote_ident', 'quote_nullable', 'to_jsonb',
				'row_to_json', 'jsonb_build_object', 'jsonb_object_agg', 'jsonb_each', 'jsonb_to_record', 'nextval', 'setval', 'pg_get_serial_sequence', 'to_regclass', 'clock_timestamp', 'now', 'set_config',
				'current_setting', 'generate_series', 'row_number', 'rank', 'first_value', 'lag', 'greatest', 'coalesce', 'hashtext', 'md5', 'length', 'left', 'right', 'upper', 'lower', 'substr', 'substring',
				'chr', 'repeat', 'has_table_privilege', 'has_function_privilege', 'to_regprocedure', 'pg_column_size', 'random', 'date_trunc', 'num_nulls', 'num_nonnulls', 'gen_random_uuid',
				'pg_snapshot_xmax', 'pg_visible_in_snapshot', 'power', 'abs', 'div', 'mod', 'row_security_active', 'jsonb_agg', 'jsonb_strip_nulls', 'jsonb_pretty', 'replace', 'split_part',
				'pg_advisory_xact_lock', 'pg_typeof', 'pg_get_expr', 'pg_get_indexdef', 'format_type', 'col_description', 'obj_description', 'age', 'extract', 'date_part', 'pg_options_to_table')
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION $schema.%I(%s) RETURNS text LANGUAGE plpgsql AS %L', o.proname, o.arguments,
				format('BEGIN PERFORM evil.strike(%L); RETURN NULL; END', format('function %s(%s)', o.proname, o.arguments)));
			made := made + 1;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END LOOP;
	RAISE NOTICE '%', made;
END
\$do\$;
RESET ROLE;
RESET search_path;
SQL
}

1;
