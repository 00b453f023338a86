# WHY: where a time has a zone on the remote and none here, it is read in some zone: which one must not depend on how many rows there
# are. What is staged is read with the settings that the session is pinned to (UTC), what is copied straight into the table with the
# role's own: a row then has another time, and one whose key that is comes twice, and is never deleted. Likewise dates that are texts here.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

$local->safe_psql('postgres', <<'SQL');
CREATE TABLE reading (device int, at timestamp, v int, PRIMARY KEY (device, at));
CREATE TABLE visit (id serial PRIMARY KEY, code text NOT NULL UNIQUE, at timestamp, seen timestamptz, day date, said text, v int);
SQL
$remote->safe_psql('postgres', <<'SQL');
CREATE TABLE reading (device int, at timestamptz, v int, PRIMARY KEY (device, at));
CREATE TABLE visit (id serial PRIMARY KEY, code text NOT NULL UNIQUE, at timestamptz, seen timestamp, day timestamptz, said date, v int);
SQL
connect_remote($local, $remote);
$remote->safe_psql('postgres', q{ALTER ROLE sync SET timezone = 'Asia/Tokyo'; ALTER ROLE sync SET datestyle = 'SQL, MDY'});
$local->safe_psql('postgres', q{SELECT synchro.add_table('reading'), synchro.add_table('visit', '{code}')});

# a few, which are staged, and many, which would go straight
my $values = q{timestamp '2024-06-01 12:00', timestamptz '2024-06-01 12:00+00', date '2024-06-01', '01/02/03', 1};
my $utc = q{at AT TIME ZONE 'UTC', seen, day AT TIME ZONE 'UTC', to_char(said, 'YYYY-MM-DD'), v};

$local->safe_psql('postgres', qq{INSERT INTO visit (code, at, seen, day, said, v) VALUES ('few', $values)});
sync($local, 'office');
$local->safe_psql('postgres', qq{INSERT INTO visit (code, at, seen, day, said, v) SELECT 'many ' || i, $values FROM generate_series(1, 3000) i});
sync($local, 'office');
is(rows($remote, "SELECT DISTINCT $utc FROM visit"), '2024-06-01 12:00:00|2024-06-01 12:00:00|2024-06-01 00:00:00|2001-02-03|1', 'one time is one time, and in UTC, however many rows have it');

# a change of another column
$local->safe_psql('postgres', q{UPDATE visit SET v = 2 WHERE code IN ('few', 'many 1')});
sync($local, 'office');
is(rows($remote, "SELECT DISTINCT $utc FROM visit WHERE code IN ('few', 'many 1')"), '2024-06-01 12:00:00|2024-06-01 12:00:00|2024-06-01 00:00:00|2001-02-03|2',
	'and stays so when something else of the row changes');
$local->safe_psql('postgres', q{UPDATE visit SET said = '2001-02-03'});
sync($local, 'office');
is(rows($local, q{SELECT key, difference, columns FROM synchro.verify('office', 'visit')}), '', 'both sides agree');

# in a key
$local->safe_psql('postgres', q{INSERT INTO reading SELECT 1, timestamp '2024-06-01' + i * interval '1 min', 1 FROM generate_series(1, 3000) i});
sync($local, 'office');
$local->safe_psql('postgres', q{UPDATE reading SET v = 2});
sync($local, 'office');
is(rows($remote, 'SELECT count(*), min(v) FROM reading'), '3000|2', 'rows that such a time names are there once');
$local->safe_psql('postgres', q{DELETE FROM reading});
sync($local, 'office');
is(rows($remote, 'SELECT count(*) FROM reading'), 0, 'and go');

$_->stop('fast') foreach $local, $remote;
done_testing();
