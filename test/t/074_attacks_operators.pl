# WHY: README, Security: other people's functions and operators on the pushing role's search_path are not used. PostgreSQL takes one whose
# types fit better than those of its own, wherever it is on the path; so a preview of deletes, which compared arrays by a bare =, ran
# somebody's as the pushing role, and showed what that made of it. (074_attacks*.pl bear with what is run as sync by triggers.)
use strict;
use warnings;

use lib 'test/t';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE unit (code text PRIMARY KEY, label text);
CREATE TABLE item (id serial PRIMARY KEY, unit text REFERENCES unit, UNIQUE (unit));
SQL
connect_remote($local, $remote);
$remote->safe_psql('postgres', <<'SQL');
CREATE ROLE other;
GRANT CREATE, USAGE ON SCHEMA public TO other;
SET ROLE other;
CREATE FUNCTION public.strike(how text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$BEGIN RAISE LOG 'strike by %, as %', how, current_user; END$$;
CREATE FUNCTION public.same(text[], text[]) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN PERFORM public.strike('operator = (text[], text[])'); RETURN false; END$$;
CREATE OPERATOR public.= (LEFTARG = text[], RIGHTARG = text[], FUNCTION = public.same);
CREATE FUNCTION public.array_to_string(text[], text, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM public.strike('function array_to_string(text[], text, text)'); RETURN ''; END$$;
SQL
$local->safe_psql('postgres', q{SELECT synchro.add_table('unit'), synchro.add_table('item', '{unit}')});

my $log = -s $remote->logfile;

sub harmless
{
	my ($testname) = @_;
	my $text = slurp_file($remote->logfile, $log);

	$log = -s $remote->logfile;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(join("\n", $text =~ /LOG:  (strike by .*)/g), '', $testname);
}

$remote->safe_psql('postgres', q{SELECT ARRAY['x'] = ARRAY['x'::text]});
like(slurp_file($remote->logfile, $log), qr/strike by operator/, 'the trap is one');
$log = -s $remote->logfile;

$local->safe_psql('postgres', q{INSERT INTO unit VALUES ('m', 'metre'), ('s', 'second'); INSERT INTO item (unit) VALUES ('m'), ('s')});
sync($local, 'office');
$local->safe_psql('postgres', q{DELETE FROM item WHERE unit = 'm'; DELETE FROM unit WHERE code = 'm'; UPDATE unit SET label = 'sec'});
is(rows($local, q{SELECT relation, key, action FROM synchro.preview('office') ORDER BY 1, 2}), "unit|m|delete\nunit|s|update\nitem|m|delete", 'a preview of deletes');
harmless('calls nobody\'s operator');
sync($local, 'office');
harmless('nor do they');

# a delete that waits from an earlier pass, and one that is refused
$remote->safe_psql('postgres', q{CREATE TABLE held (unit text REFERENCES unit); INSERT INTO held VALUES ('s')});
$local->safe_psql('postgres', q{DELETE FROM item; DELETE FROM unit});
is(rows($local, q{SELECT relation, key, action FROM synchro.preview('office') ORDER BY 1, 2}), "unit|s|fail\nitem|s|delete", 'a preview of deletes that are tried one by one');
sync($local, 'office');
is(rows($local, q{SELECT relation, key, action FROM synchro.preview('office') ORDER BY 1, 2}), 'unit|s|fail', 'and of one that waits');
harmless('likewise');

$_->stop('fast') foreach $local, $remote;
done_testing();
