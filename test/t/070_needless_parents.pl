# A parent that is not watched is pushed where others need it. When it has been refused, and nobody needs it any more, it is no
# failure any more.
#
# WHY: what stays in failures for ever, with a next attempt in the past, sets off alerts that nobody can still. A parent that is
# in a natural key is nearly one that is watched, since its renames and deletes are logged: these must stay.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE countries (id serial PRIMARY KEY, code text NOT NULL UNIQUE, name text);
CREATE TABLE towns (id serial PRIMARY KEY, country_id int NOT NULL REFERENCES countries, name text NOT NULL, UNIQUE (country_id, name));
SQL
connect_remote($local, $remote);
$remote->safe_psql('postgres', q{INSERT INTO countries (code, name) VALUES ('XX', 'there'), ('CH', 'Schweiz')});
$local->safe_psql('postgres', q{SELECT synchro.add_table('towns', '{country_id, name}')});

sub failing { return rows($local, 'SELECT relation, key, operation FROM synchro.failures ORDER BY 1, 2') }

sub none_fails
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$local->safe_psql('postgres', 'SELECT synchro.retry()');
	is(sync($local, 'office')->{failed}, 0, "$testname: none fails");
	is(failing(), '', "$testname: and nothing is left of what did");
	same($local, $remote, 'SELECT t.name, c.code FROM towns t JOIN countries c ON c.id = t.country_id ORDER BY 1', "$testname: the rows are the same");
	return;
}

# mended as the failure's hint says
$local->safe_psql('postgres', q{INSERT INTO countries (code, name) VALUES ('CH', 'Suisse'); INSERT INTO towns (country_id, name) VALUES (1, 'Bern')});
is(sync($local, 'office')->{failed}, 2, 'a parent that cannot be made a second time is refused, with its child');
like(rows($local, q{SELECT hint FROM synchro.failures WHERE relation = 'countries'::regclass}), qr/register_natural_key\('public\.countries'/, 'with a hint');
$local->safe_psql('postgres', q{SELECT synchro.register_natural_key('countries', '{code}')});
none_fails('the parent is known by its name');

# nobody needs it any more
$remote->safe_psql('postgres', q{ALTER TABLE countries ADD CONSTRAINT no_de CHECK (code <> 'DE')});
$local->safe_psql('postgres', q{INSERT INTO countries (code) VALUES ('DE'); INSERT INTO towns (country_id, name) SELECT id, 'Kiel' FROM countries WHERE code = 'DE'});
is(sync($local, 'office')->{failed}, 2, 'another one is refused');
$local->safe_psql('postgres', q{DELETE FROM towns WHERE name = 'Kiel'});
none_fails('the child is gone');
$local->safe_psql('postgres', q{INSERT INTO towns (country_id, name) SELECT id, 'Ulm' FROM countries WHERE code = 'DE'});
is(sync($local, 'office')->{failed}, 2, 'it is refused again');
$local->safe_psql('postgres', q{UPDATE towns SET country_id = 1 WHERE name = 'Ulm'});
none_fails('the child has another parent');

# somebody does, who is not due yet
$local->safe_psql('postgres', q{INSERT INTO towns (country_id, name) SELECT id, 'Bonn' FROM countries WHERE code = 'DE'});
is(sync($local, 'office')->{failed}, 2, 'once more');
my $before = failing();
$local->safe_psql('postgres', q{INSERT INTO towns (country_id, name) VALUES (1, 'Genf')});
sync($local, 'office');
is(failing(), $before, 'while its child waits, it does');
$remote->safe_psql('postgres', 'ALTER TABLE countries DROP CONSTRAINT no_de');
none_fails('it is taken');

# what its table is in a key for stays: a row that the remote calls by its former name
$local->safe_psql('postgres', q{UPDATE countries SET code = 'D' WHERE code = 'DE'; UPDATE towns SET name = 'Bonn am Rhein' WHERE name = 'Bonn'});
sync($local, 'office');
$local->safe_psql('postgres', q{UPDATE towns SET name = 'Beuel' WHERE name = 'Bonn am Rhein'});
is(sync($local, 'office')->{updated}, 1, 'a renamed parent: its child is found');
is(rows($remote, q{SELECT string_agg(t.name, ' ' ORDER BY t.name) FROM towns t JOIN countries c ON c.id = t.country_id WHERE c.code = 'DE'}), 'Beuel',
	'by the name that the remote calls it by');
is(failing(), '', 'and nothing fails');

done_testing();
