# WHY: the event triggers of the extension do their work as its owner, a superuser, in the DDL of whoever is at it, and its functions
# work as others in the session of whoever calls them. Here that session is the attacker's: its search_path begins with his schema,
# and its temporary schema, which the server searches for tables and types before any other, is full of what has the names of
# synchro's and pg_catalog's. (074_attacks.pl shows that his other traps strike.)
use strict;
use warnings;

use lib 'test/t';
use Attacker;
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

attack($a, $b);
lay_traps();
foreach my $node ($a, $b)
{
	$node->safe_psql('postgres', <<'SQL');
SELECT synchro.register_natural_key('evil.parent', '{code}'), synchro.add_table('evil.parent'), synchro.add_table('evil.t', '{code,parent}');
SELECT synchro.add_table('evil.keyed'), synchro.add_table('evil.divided', '{name}');
SQL
}
$a->safe_psql('postgres', <<'SQL');
GRANT USAGE ON FOREIGN DATA WRAPPER synchro_fdw TO attacker;
GRANT CREATE ON DATABASE postgres TO attacker;
GRANT SELECT ON synchro.remotes TO attacker WITH GRANT OPTION;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA synchro TO attacker;
SQL
$b->safe_psql('postgres', <<'SQL');
CREATE ROLE sync LOGIN PASSWORD 'secret';
SELECT synchro.allow_peer('sync');
GRANT USAGE ON SCHEMA evil TO sync;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA evil TO sync;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA evil TO sync;
SQL
$b->watch_role('sync', 'postgres');
harmless('watched', []);

#
# the attacker's session
#
my $names = <<'SQL';
DO $do$
DECLARE
	r record;
	made int := 0;
BEGIN
	FOR r IN SELECT CASE WHEN p.prorettype::regtype::text IN ('trigger', 'event_trigger') THEN 'trigger' ELSE 'text' END AS result,
			p.proname, oidvectortypes(p.proargtypes) AS arguments
		FROM pg_proc p WHERE p.pronamespace = 'synchro'::regnamespace LOOP
		EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', r.proname, r.arguments, r.result,
			format('BEGIN PERFORM evil.strike(%L); RETURN NULL; END', 'our function ' || r.proname));
		made := made + 1;
	END LOOP;
	FOR r IN SELECT n.nspname, c.relname, (SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
				WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND atttypid <> 'anyarray'::regtype) AS columns
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname IN ('pg_catalog', 'synchro') AND c.relkind IN ('r', 'v') AND c.relname !~ '^pg_(statistic|stats)' LOOP
		EXECUTE format('CREATE VIEW pg_temp.%I AS SELECT %s FROM %I.%I WHERE evil.number(%L) = 1', r.relname, r.columns, r.nspname, r.relname, 'temporary view ' || r.relname);
		made := made + 1;
	END LOOP;
	FOR r IN SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b'
			AND typname IN ('text', 'name', 'oid', 'uuid', 'jsonb', 'timestamptz', 'pg_snapshot', 'xid8', 'bytea', 'regclass', 'regnamespace', 'regprocedure', 'regrole', 'regtype')
		ORDER BY typname = 'text' LOOP
		EXECUTE format('CREATE DOMAIN pg_temp.%I AS pg_catalog.%I CHECK (evil.number(%L) = 1)', r.typname, r.typname, 'temporary type ' || r.typname);
		made := made + 1;
	END LOOP;
	RAISE NOTICE '%', made;
END
$do$;
CREATE TABLE pg_temp.divided_2 (n int);
GRANT ALL ON ALL FUNCTIONS IN SCHEMA evil TO PUBLIC;
SET search_path = evil, pg_catalog, public;
SQL
my $session = $a->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'attacker' ]);

$session->query('SET search_path = pg_catalog;' . twins('pg_temp') . $names);
my @made = $session->{stderr} =~ /NOTICE:  (\d+)/g;
is(scalar @made, 2, 'the session has twins, and things of our names') or diag($session->{stderr});
cmp_ok($_, '>', 150, 'not few') foreach @made;

# What the session says to statements of his.
sub told
{
	my ($sql) = @_;
	my $answer;

	$session->{stderr} = '';
	$answer = $session->query($sql);
	return $answer . $session->{stderr};
}

# They go through, are followed by us, as the query says, and his code is run as himself at most.
sub follows
{
	my ($testname, $sql, $query, $followed) = @_;
	my $told = told($sql);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike($told, qr/ERROR|could not follow/, "$testname: it goes through");
	harmless($testname, [], 'sync');
	is(rows($a, $query), $followed, "$testname: it is followed");
	return;
}

told(q{SELECT FROM pg_class; SELECT FROM remotes; SELECT 'x'::text; SELECT 'x'::pg_catalog.text = 'x'::pg_catalog.text; SELECT peer_setup()});
harmless('what the session has',
	[ map { "a: $_, as attacker" } 'temporary view pg_class', 'temporary view remotes', 'temporary type text', 'operator = \(text, text\)', 'our function peer_setup' ]);

#
# DDL that is followed
#
my $depends = q{SELECT pg_catalog.count(*) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE extname = 'synchro' AND deptype = 'x' AND classid = '%s'::regclass};
my $of_server = sprintf $depends, 'pg_foreign_server';
my $of_mapping = sprintf $depends, 'pg_user_mapping';
my $remotes = 'SELECT remote FROM synchro.remotes';
my $port = $b->port;

follows('CREATE SERVER', "CREATE SERVER his FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'other')", $of_server, 1);
follows('CREATE USER MAPPING', q{CREATE USER MAPPING FOR attacker SERVER his OPTIONS (user 'sync', password 'secret')}, $of_mapping, 1);
follows('ALTER SERVER', q{ALTER SERVER his OPTIONS (SET dbname 'postgres')}, $of_server, 1);
follows('ALTER USER MAPPING', q{ALTER USER MAPPING FOR attacker SERVER his OPTIONS (SET password 'secret')}, $of_mapping, 1);
follows('add_remote()', q{SELECT synchro.add_remote('his')}, $remotes, 'his');
follows('ALTER SERVER ... RENAME', 'ALTER SERVER his RENAME TO hers', $remotes, 'hers');

my $captures = q{SELECT pg_catalog.count(*), pg_catalog.min(tgenabled) FROM pg_trigger WHERE tgname = 'synchro_capture' AND tgrelid = 'evil.%s'::regclass};
my $truncates = q{SELECT pg_catalog.count(*) FROM pg_trigger WHERE tgname = 'synchro_truncate' AND tgrelid = '%s'::regclass};
my $stalled = q{SELECT pg_catalog.count(*) FROM synchro.stalled WHERE relation = 'evil.t'::regclass};
my $key = q{SELECT natural_key FROM synchro.tables WHERE relation = 'evil.t'::regclass};

# the new table is not what its name means afterwards
follows('CREATE TABLE ... PARTITION OF', 'CREATE TABLE divided_2 PARTITION OF divided FOR VALUES FROM (100) TO (200)', sprintf($truncates, 'evil.divided_2'), 1);
follows('CREATE SCHEMA', 'CREATE SCHEMA his CREATE TABLE divided_4 PARTITION OF evil.divided FOR VALUES FROM (300) TO (400)', sprintf($truncates, 'his.divided_4'), 1);
follows('ATTACH PARTITION', 'CREATE TABLE divided_3 (LIKE divided); ALTER TABLE divided ATTACH PARTITION divided_3 FOR VALUES FROM (200) TO (300)', sprintf($truncates, 'evil.divided_3'), 1);
follows('DETACH PARTITION', 'ALTER TABLE divided DETACH PARTITION divided_3', sprintf($truncates, 'evil.divided_3'), 0);
follows('ADD COLUMN', q{CREATE TABLE town (n pg_catalog.numeric PRIMARY KEY); ALTER TABLE t ADD more pg_catalog.int4 DEFAULT number('new default')}, sprintf($captures, 'town'), '0|');
follows('ADD FOREIGN KEY', 'ALTER TABLE t DROP CONSTRAINT t_parent_fkey, ADD FOREIGN KEY (parent) REFERENCES town', sprintf($captures, 'town'), '1|A');
follows('RENAME COLUMN', 'ALTER TABLE t RENAME code TO coded', $key, '{coded,parent}');
follows('RENAME COLUMN once more', 'ALTER TABLE t RENAME coded TO code', $key, '{code,parent}');
follows('DISABLE TRIGGER', 'ALTER TABLE t DISABLE TRIGGER USER', $stalled, 1);
follows('ENABLE TRIGGER', 'ALTER TABLE t ENABLE TRIGGER USER', sprintf($captures, 't'), '1|A');
as($b, 'attacker', <<'SQL');
CREATE TABLE evil.town (n numeric PRIMARY KEY);
ALTER TABLE evil.t ADD more int DEFAULT evil.number('new default'), DROP CONSTRAINT t_parent_fkey, ADD FOREIGN KEY (parent) REFERENCES evil.town;
GRANT SELECT ON evil.town TO sync;
INSERT INTO evil.town VALUES (1);
SQL
$a->safe_psql('postgres', 'SELECT synchro.retry()');
sync($a);
is(rows($a, $stalled), 0, 'the table goes on');
harmless('ENABLE TRIGGER, pushed', [], 'sync');
follows('DROP TRIGGER', 'DROP TRIGGER synchro_capture ON t', $stalled, 1);
follows('alter_table()', q{SELECT synchro.alter_table('evil.t')}, sprintf($captures, 't'), '1|A');
follows('DROP COLUMN', 'ALTER TABLE divided DROP name', q{SELECT mode FROM synchro.tables WHERE relation = 'evil.divided'::regclass}, 'none');
follows('DROP TABLE', 'DROP TABLE keyed, divided', q{SELECT relation FROM synchro.tables ORDER BY relation::pg_catalog.text}, "evil.parent\nevil.t");

my $may_call = q{SELECT pg_catalog.has_function_privilege('bystander', 'synchro.pusher_status()', 'EXECUTE')};
follows('GRANT', 'GRANT SELECT ON synchro.remotes TO bystander', $may_call, 't');
follows('REVOKE', 'REVOKE SELECT ON synchro.remotes FROM bystander', $may_call, 'f');

#
# functions that he may call
#
sub answers
{
	my ($testname, $sql, $answer, @expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like(told($sql), $answer, "$testname: it answers");
	return harmless($testname, \@expected, 'sync');
}

# the session has evaluated the indexes' expressions already
my $read = 'a: statistics, as attacker';
my $written = 'b: trigger, as sync';

answers('synchronize()', 'SELECT message FROM synchro.synchronize()', qr/\A(?:Synchronization|No changes)/);
told(q{INSERT INTO town VALUES (1); INSERT INTO t (code, mood, parent, n) VALUES ('t', 'good', 1, 1)});
harmless('changes', [ 'a: trigger, as attacker' ]);
answers('preview()', q{SELECT action FROM synchro.preview('hers') WHERE relation OPERATOR(pg_catalog.=) 'evil.t'::pg_catalog.regclass}, qr/\Ainsert\z/, $read, $written);
answers('synchronize() with changes', q{SELECT failed FROM synchro.synchronize('hers')}, qr/\A0\z/, $read, $written);
as($b, 'attacker', 'SET synchro.log_changes = off; UPDATE evil.t SET n = 2');
harmless('a difference', []);
answers('verify()', q{SELECT difference FROM synchro.verify('hers', 'evil.t')}, qr/\Adifferent\z/, $read);
answers('requeue()', q{SELECT synchro.requeue('hers', 'evil.t')}, qr/\A1\z/, $read);
answers('copy_table()', q{SELECT synchro.copy_table('hers', 'evil.t', true)}, qr/\A1\z/, $read);
answers('synchronize() of a copy', 'SELECT failed FROM synchro.synchronize()', qr/\A0\z/, $read, $written);
answers('manifest()', q{SELECT rows FROM synchro.manifest('evil') WHERE relation OPERATOR(pg_catalog.=) 'evil.t'::pg_catalog.regclass}, qr/\A1\z/, $read);
answers('check()', 'SELECT pg_catalog.array_agg(severity OPERATOR(pg_catalog.||) problem) FROM synchro.check()', qr/\A\{/);
answers('retry()', 'SELECT synchro.retry()', qr/\A\d+\z/);
answers('checkpoint()', q{SELECT synchro.checkpoint('hers')}, qr/\A\d{4}-/);
answers('pause() and resume()', q{SELECT synchro.pause('hers'), synchro.resume('hers')}, qr/\A\|\z/);
answers('add_table()', q{CREATE TABLE late (LIKE t INCLUDING ALL); SELECT synchro.add_table('evil.late', '{code,parent}', '{n}')}, qr/\A\z/);
answers('remove_table()', q{SELECT synchro.remove_table('evil.late')}, qr/\A\z/);
follows('DROP SERVER', 'DROP SERVER hers CASCADE', $remotes, '');

$session->quit;
$_->stop('fast') foreach $a, $b;
done_testing();
