# WHY: what a remote says of a row or of a pass is shown to people, who use any client, and is kept in tables and in shared memory. There
# is only so much room; half of a character at the end, or bytes that are no text in this database's encoding, could be read by nobody,
# and whoever asked for all that has failed would see nothing but an error.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => "synchro.retry_max_interval = 1s\n");
my $remote = synchro_node('remote');

sub settled
{
	my ($failed, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_for($local, "SELECT pending = 0 AND failed = $failed FROM synchro.remotes", $testname);
}

# Of two rows one says a byte more than the other, so that wherever the end is, it is in the middle of a character of one of them.
both($local, $remote, 'CREATE TABLE wordy (id serial PRIMARY KEY, name text NOT NULL UNIQUE); CREATE TABLE other (name text PRIMARY KEY, n int)');
connect_remote($local, $remote);
$remote->safe_psql('postgres', <<'SQL');
CREATE FUNCTION say_much() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.name = 'latin' THEN
		PERFORM set_config('client_encoding', 'LATIN1', true);
		RAISE EXCEPTION USING MESSAGE = chr(233), DETAIL = chr(233), HINT = chr(233);
	END IF;
	RAISE EXCEPTION USING MESSAGE = NEW.name || repeat(chr(233), 5000), DETAIL = NEW.name || repeat(chr(233), 5000), HINT = NEW.name || repeat(chr(233), 5000);
END $$;
CREATE TRIGGER say_much BEFORE INSERT ON wordy FOR EACH ROW EXECUTE FUNCTION say_much();
SQL
$local->safe_psql('postgres', q{SELECT synchro.add_table('wordy', '{name}'), synchro.add_table('other'); INSERT INTO wordy (name) VALUES ('x'), ('xx')});
settled(2, 'rows of which the remote says much');
my $same = join ' AND ', map { "convert_from(convert_to($_, 'UTF8'), 'UTF8') = $_" } 'message', 'detail', 'hint';

is(rows($local, "SELECT count(*) FROM synchro.failures WHERE length(message) > 200 AND length(detail) > 200 AND length(hint) > 200 AND $same"), '2', 'messages are cut between characters');
is(rows($local, q{SET client_encoding = 'LATIN1'; SELECT length(string_agg(message || detail || hint, '')) > 1000 FROM synchro.failures}), 't', 'any client can read');
is(length rows($local, q{SET client_encoding = 'LATIN1'; SELECT string_agg(message || detail || hint, '') FROM synchro.failures}),
	rows($local, q{SELECT length(string_agg(message || detail || hint, '')) FROM synchro.failures}), 'all that is kept');

# whatever comes from there, what is kept is text of this database
$local->safe_psql('postgres', q{DELETE FROM wordy; INSERT INTO wordy (name) VALUES ('latin')});
settled(1, 'a row of which the remote speaks in another encoding');
is(rows($local, "SELECT message, $same FROM synchro.failures"), q{(text that is not valid in this database's encoding)|t}, 'that is not kept');
$local->safe_psql('postgres', 'DELETE FROM wordy');
settled(0, 'it is gone');

# what ends a pass
foreach my $name ('x', 'xx')
{
	$remote->safe_psql('postgres', <<"SQL");
CREATE OR REPLACE FUNCTION say_no() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION USING MESSAGE = '$name' || repeat(chr(233), 5000); END \$\$;
CREATE OR REPLACE TRIGGER say_no BEFORE UPDATE ON synchro_peer.position FOR EACH ROW EXECUTE FUNCTION say_no();
SQL
	$local->safe_psql('postgres', "INSERT INTO other VALUES ('$name')");
	wait_for($local, "SELECT last_error LIKE '%\"office\": $name' || chr(233) || '%' FROM synchro.remotes", "what ends a pass, $name");
	is(rows($local, q{SELECT length(last_error) > 200 AND convert_from(convert_to(last_error, 'UTF8'), 'UTF8') = last_error FROM synchro.remotes}), 't', 'is cut so, too');
}
$remote->safe_psql('postgres', 'DROP TRIGGER say_no ON synchro_peer.position');
settled(0, 'and is over');

# a server that does not find a name does not say that it may lie in a schema that nobody looks into
$remote->safe_psql('postgres', <<'SQL');
CREATE SCHEMA apart;
CREATE TABLE apart.traces (name text);
CREATE FUNCTION trace() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO traces VALUES (NEW.name); RETURN NEW; END $$;
CREATE TRIGGER trace BEFORE INSERT OR UPDATE ON other FOR EACH ROW EXECUTE FUNCTION trace();
SQL
$local->safe_psql('postgres', q{UPDATE other SET n = 1});
wait_for($local, q{SELECT count(*) = 1 FROM synchro.failures WHERE sqlstate = '42P01' AND key IS NULL AND hint LIKE '%set search_path there, by ALTER FUNCTION or ALTER ROLE.'}, 'a trigger that names a table without its schema: the hint says what to do');
$remote->safe_psql('postgres', 'ALTER FUNCTION trace() SET search_path = apart, pg_temp');
settled(0, 'done, it goes on');

$local->stop('fast');
$remote->stop('fast');
done_testing();
