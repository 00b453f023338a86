# WHY: a domain of the remote has rules as a table has, and they are to hold as for any client of the role that pushes: with its
# search_path and its styles. A value was read by the domain where it was staged, with settings of ours: rows that the role may insert
# were refused, or their table stalled, and such came in as the role cannot insert.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

$local->safe_psql('postgres', <<'SQL');
CREATE TABLE place (code text PRIMARY KEY, seen date, said text, short varchar(9), amount numeric, must text, codes text[]);
CREATE TABLE visit (id serial PRIMARY KEY, code text NOT NULL UNIQUE REFERENCES place, n int);
CREATE TABLE label (code text PRIMARY KEY, seen date);
SQL
$remote->safe_psql('postgres', <<'SQL');
CREATE SCHEMA app;
CREATE TABLE app.codes (code text PRIMARY KEY);
INSERT INTO app.codes SELECT 'c' || i FROM generate_series(1, 3000) i;
CREATE FUNCTION public.is_known(v text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN EXISTS (SELECT FROM codes c WHERE c.code = v); END$$;
CREATE DOMAIN known AS text COLLATE "C" CHECK (is_known(VALUE));
CREATE DOMAIN well_known AS known CHECK (VALUE <> 'c13');
CREATE DOMAIN styled AS date CHECK (VALUE::text LIKE '__/__/____');
CREATE DOMAIN said AS text CHECK (extract(month FROM VALUE::date) < 7);
CREATE DOMAIN short AS varchar(3);
CREATE DOMAIN shorter AS short CHECK (VALUE <> 'no');
CREATE DOMAIN amount AS numeric(5, 1);
CREATE DOMAIN must AS text NOT NULL;
CREATE TABLE place (code well_known PRIMARY KEY, seen styled, said said, short shorter, amount amount, must must DEFAULT 'x', codes text[]);
CREATE TABLE visit (id serial PRIMARY KEY, code known NOT NULL UNIQUE REFERENCES place, n int);
CREATE TABLE label (code known PRIMARY KEY, seen styled);
SELECT setval('visit_id_seq', 5000);
SQL
connect_remote($local, $remote, schemas => [ 'public', 'app' ]);
$remote->safe_psql('postgres', q{ALTER ROLE sync SET search_path = app, public; ALTER ROLE sync SET datestyle = 'SQL, DMY'});
$local->safe_psql('postgres', q{SELECT synchro.add_table('place'), synchro.add_table('visit', '{code}'), synchro.add_table('label')});

# nor does it take more rights than a client needs
$remote->safe_psql('postgres', q{CREATE SCHEMA kinds; CREATE DOMAIN kinds.small AS int CHECK (VALUE < 1000); REVOKE ALL ON TYPE kinds.small, must FROM PUBLIC; ALTER TABLE visit ALTER n TYPE kinds.small});
is(rows($local, q{SELECT problem FROM synchro.check('office') WHERE problem ~ 'may not'}), '', 'check() knows of no right that is missing');

my $places = q{SET datestyle = ISO; SELECT code, seen, said, short, amount::numeric(9, 1), must FROM place ORDER BY code COLLATE "C"};
my $visits = q{SELECT code, n FROM visit ORDER BY code COLLATE "C"};

sub arrives
{
	my ($testname, $change) = @_;

	$local->safe_psql('postgres', $change);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sync($local, 'office')->{failed}, 0, "$testname: nothing is refused") or diag(rows($local, 'SELECT key, sqlstate, message, detail FROM synchro.failures'));
	same($local, $remote, $places, "$testname: places", empty => 1);
	same($local, $remote, $visits, "$testname: visits", empty => 1);
	return;
}

arrives('one row', q{INSERT INTO place VALUES ('c1', '2024-12-31', '12/01/2024', 'a', 1.23, 'm')});
arrives('many rows', q{INSERT INTO place SELECT 'c' || i, '2024-12-31', '31/01/2024', 'a', i, 'm' FROM generate_series(20, 60) i; INSERT INTO visit (code, n) SELECT code, 1 FROM place});
arrives('changed', q{UPDATE place SET seen = '2024-01-02', said = '12/02/2024', amount = amount + 1; UPDATE visit SET n = 2});
arrives('renamed', q{INSERT INTO place SELECT 'c' || i, '2024-12-31', '31/01/2024', 'a', i, 'm' FROM generate_series(61, 62) i; UPDATE visit SET code = 'c61' WHERE code = 'c20'; UPDATE visit SET code = 'c62', n = 3 WHERE code = 'c21'});
arrives('deleted', q{DELETE FROM visit WHERE code IN ('c1', 'c30'); DELETE FROM place WHERE code IN ('c1', 'c30')});
$local->safe_psql('postgres', q{INSERT INTO label SELECT 'c' || i, '2024-12-31' FROM generate_series(1, 2000) i});
is(sync($local, 'office')->{inserted}, 2000, 'so many that they are copied into their table');
$local->safe_psql('postgres', 'UPDATE label SET seen = seen + 1');
is(sync($local, 'office')->{updated}, 2000, 'and changed');
$local->safe_psql('postgres', 'DELETE FROM label');
is(sync($local, 'office')->{deleted}, 2000, 'and deleted');

# Refused is what the role could not insert, either. by: the column that the reason names.
sub refused
{
	my ($testname, $row, $sqlstate, $by) = @_;
	my $key = $row =~ /\('(.*?)'/ ? $1 : die;
	my ($status, undef, $errors) = $remote->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE sync; SET search_path = app, public; SET datestyle = 'SQL, DMY'; INSERT INTO place VALUES $row");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($errors, qr/ERROR:  $sqlstate/, "$testname: a client of that role is refused");
	foreach my $among (0, 10)
	{
		$local->safe_psql('postgres', "INSERT INTO place VALUES $row; INSERT INTO place SELECT 'c' || i, '2024-12-31', '12/01/2024', 'a', 1, 'm' FROM generate_series(1001, 1000 + $among) i");
		is(sync($local, 'office')->{failed}, 1, "$testname: refused among $among others");
		is(rows($local, q{SELECT key, sqlstate, coalesce(substring(detail FROM 'column "(.*)" of table public.place, which is of type'), '') FROM synchro.failures}), "$key|$sqlstate|$by", "$testname: the reason");
		$local->safe_psql('postgres', "DELETE FROM place WHERE code = '$key' OR code ~ '^c10..'");
		is(sync($local, 'office')->{failed}, 0, "$testname: it is gone");
		same($local, $remote, $places, "$testname: and all else the same");
	}
	return;
}

refused('a code that is not known', q{('zz', '2024-12-31', '12/01/2024', 'a', 1, 'm')}, '23514', 'code');
refused('one that the outer domain refuses', q{('c13', '2024-12-31', '12/01/2024', 'a', 1, 'm')}, '23514', 'code');
refused('a day that is said otherwise', q{('c3', '2024-12-31', '01/12/2024', 'a', 1, 'm')}, '23514', 'said');
refused('a text that is too long', q{('c3', '2024-12-31', '12/01/2024', 'abcd', 1, 'm')}, '22001', 'short');
refused('a text that is none', q{('c3', '2024-12-31', '12/01/2024', 'no', 1, 'm')}, '23514', 'short');
refused('a number that is too large', q{('c3', '2024-12-31', '12/01/2024', 'a', 100000, 'm')}, '22003', '');
refused('no value', q{('c3', '2024-12-31', '12/01/2024', 'a', 1, NULL)}, '23502', 'must');

$_->stop('fast') foreach $local, $remote;
done_testing();
