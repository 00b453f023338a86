# WHY: a fingerprint is only worth something if it is the same wherever the contents are, and differs wherever they do. Ids, the
# order of rows and of columns, encodings and collations all differ between servers that hold the same data; a single value, a
# parent, a row more or less must show.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $one = synchro_node('one');
my $other = synchro_node('other');

$other->safe_psql('postgres', q{CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'});
$other->safe_psql('postgres', q{CREATE DATABASE icu TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-u-kn-ks-level2' LOCALE 'C'});
my @databases = ([ $one, 'postgres' ], [ $other, 'latin' ], [ $other, 'icu' ]);

# a collation of the operating system's, where there is one
my $locale = rows($one, q{SELECT collname FROM pg_collation WHERE collname ~ '^(en_US|de_DE|fr_FR)\.utf8$' LIMIT 1});
if ($locale ne '')
{
	$other->safe_psql('postgres', "CREATE DATABASE libc TEMPLATE template0 ENCODING 'UTF8' LOCALE '$locale'");
	push @databases, [ $other, 'libc' ];
}

# how sessions write values
my %settings = (
	latin => { timezone => 'Asia/Tokyo', datestyle => 'German', intervalstyle => 'iso_8601', extra_float_digits => -15, bytea_output => 'escape' },
	icu => { timezone => 'America/New_York', datestyle => 'SQL, DMY', intervalstyle => 'sql_standard', extra_float_digits => 0 });
foreach my $dbname (sort keys %settings)
{
	$other->safe_psql('postgres', "ALTER DATABASE $dbname SET $_ = '$settings{$dbname}{$_}'") foreach sort keys %{ $settings{$dbname} };
}

sub on
{
	my ($at, $sql) = @_;

	return $at->[0]->safe_psql($at->[1], "SET client_encoding = 'UTF8'; $sql");
}

# relation => "rows fingerprint"
sub manifest
{
	my ($at, $schema) = @_;

	return { map { /^(.*?)\|(.*)$/ } split /\n/, on($at, 'SELECT relation, rows, fingerprint FROM synchro.manifest(' . ($schema // '') . ')') };
}

my $tables = <<'SQL';
CREATE TABLE country (id serial PRIMARY KEY, code text UNIQUE NOT NULL, name text, area numeric, since timestamptz, share float8, raw bytea, span interval, "Fläche" real);
CREATE TABLE city (id serial PRIMARY KEY, country_id int NOT NULL REFERENCES country, name text NOT NULL, UNIQUE (country_id, name));
CREATE TABLE place (id serial PRIMARY KEY, up_id int REFERENCES place, name text NOT NULL, UNIQUE NULLS NOT DISTINCT (up_id, name));
CREATE TABLE visit (id serial PRIMARY KEY, city_id int REFERENCES city, note text, details jsonb, secret text);
CREATE TABLE "Straße" (id serial PRIMARY KEY, "Führt nach" int REFERENCES "Straße", "Länge" numeric, "Breite" int);
CREATE TABLE photo (id serial PRIMARY KEY, visit_id int REFERENCES visit, title text);
CREATE TABLE link (city_id int REFERENCES city, place_id int REFERENCES place, PRIMARY KEY (city_id, place_id));
SQL
my $watch = <<'SQL';
SET client_min_messages = warning;
SELECT synchro.add_table('country', '{code}'), synchro.add_table('city', '{country_id,name}'), synchro.add_table('place', '{up_id,name}'),
	synchro.add_table('visit', skip => '{secret}'), synchro.add_table('photo'), synchro.add_table('link'), synchro.add_table('"Straße"');
SQL
foreach my $i (0 .. $#databases)
{
	my $order = $i ? 'DESC' : 'ASC';

	on($databases[$i], 'CREATE EXTENSION synchro');
	on($databases[$i], $i ? $tables =~ s/name text, area numeric/area numeric, name text/r : $tables);
	on($databases[$i], $watch . <<"SQL");
SELECT setval('country_id_seq', 1000 * $i + 1), setval('city_id_seq', 500 * $i + 1), setval('place_id_seq', 70 * $i + 1), setval('visit_id_seq', 900 * $i + 1);
INSERT INTO country (code, name, area, since, share, raw, span, "Fläche") SELECT 'c' || i, 'Österreich ' || i, i + 0.5@{[ $i ? '00' : '' ]}, timestamptz '1955-05-15 12:00+00' + i * interval '1 h', i / 7.0::float8,
	decode('00ff', 'hex'), i * interval '1 mon 2 days 03:04:05.6', i / 7.0::real FROM generate_series(1, 50) i ORDER BY i $order;
INSERT INTO city (country_id, name) SELECT c.id, 'Köln ' || i FROM country c, generate_series(1, 4) i ORDER BY c.code $order, i $order;
INSERT INTO place (name) VALUES ('here'), ('there');
INSERT INTO place (up_id, name) SELECT p.id, p.name || i FROM place p, generate_series(1, 3) i ORDER BY i $order;
INSERT INTO place (up_id, name) SELECT p.id, 'below' FROM place p WHERE up_id IS NOT NULL ORDER BY name $order;
INSERT INTO visit (city_id, note, details, secret) SELECT c.id, 'visit ' || i, jsonb_build_object('n', i), random()::text FROM city c, generate_series(1, 2) i ORDER BY c.id $order;
INSERT INTO photo (visit_id, title) SELECT v.id, 'photo' FROM visit v ORDER BY v.id $order;
INSERT INTO "Straße" ("Länge", "Breite") SELECT i, 5 FROM generate_series(1, 5) i ORDER BY i $order;
INSERT INTO "Straße" ("Führt nach", "Länge") SELECT id, 100 + "Länge" FROM "Straße" ORDER BY id $order;
INSERT INTO "Straße" ("Führt nach", "Länge") SELECT id, 10 FROM "Straße" WHERE "Länge" > 101 ORDER BY id $order;
INSERT INTO link SELECT c.id, p.id FROM city c, place p WHERE p.name = 'below' ORDER BY c.id $order;
SQL
}

my $before = manifest($databases[0]);
is(join(' ', sort keys %$before), '"Straße" city country link photo place visit', 'all watched tables are listed');
is_deeply(manifest($_), $before, "ids, order, columns, encodings, collations and settings do not count: $_->[1]") foreach @databases[ 1 .. $#databases ];
isnt(on($databases[1], q{SELECT span, share, raw FROM country WHERE code = 'c2'}), on($databases[0], q{SELECT span, share, raw FROM country WHERE code = 'c2'}), 'though values are written in another way');
isnt(on($databases[2], 'SELECT code FROM country ORDER BY code'), on($databases[0], 'SELECT code FROM country ORDER BY code'), 'and sorted in another way');
is_deeply(manifest($databases[0], q{'public'}), $before, 'the same of a schema');
is_deeply(manifest($databases[0], q{'pg_catalog'}), manifest($databases[0], q{'pg_catalog'}), 'tables that are not watched have one, too');
is(on($databases[0], 'SELECT rows FROM synchro.manifest() WHERE relation = $$city$$::regclass'), '200', 'rows are counted');

# what changes, and which tables it is a part of
foreach my $change (
	[ q{UPDATE country SET area = area + 0.01 WHERE code = 'c7'}, 'a value', 'country' ],
	[ q{UPDATE country SET name = NULL WHERE code = 'c7'}, 'a NULL', 'country' ],
	[ q{UPDATE country SET code = 'c77' WHERE code = 'c7'}, 'a name', 'city country link photo visit' ],
	[ q{UPDATE city SET country_id = (SELECT id FROM country WHERE code = 'c2'), name = 'x' WHERE name = 'Köln 1' AND country_id = (SELECT id FROM country WHERE code = 'c1')}, 'a parent', 'city link photo visit' ],
	[ q{DELETE FROM photo WHERE id = (SELECT max(id) FROM photo)}, 'a row less', 'photo' ],
	[ q{INSERT INTO photo (visit_id, title) SELECT visit_id, title FROM photo LIMIT 1}, 'a row twice', 'photo' ],
	[ q{UPDATE visit SET details = '{}' WHERE id = (SELECT max(id) FROM visit)}, 'a value of a row without a natural key', 'photo visit' ],
	[ q{UPDATE "Straße" SET "Führt nach" = (SELECT min(id) FROM "Straße") WHERE "Länge" = 10 AND "Führt nach" <> (SELECT min(id) FROM "Straße")}, 'what a row refers to, without a natural key', '"Straße"' ],
	[ q{ALTER TABLE "Straße" RENAME "Länge" TO "Laenge"}, 'the name of a column', '"Straße"' ],
	[ q{UPDATE visit SET secret = 'changed'}, 'a skipped column', '' ],
	[ q{UPDATE place SET name = 'HERE' WHERE name = 'here'}, 'the root of a tree', 'link place' ],
	[ q{UPDATE country SET area = area + 0.000}, 'nothing but how a number is written', '' ])
{
	my ($sql, $what, $tables) = @$change;
	my %after = map { /^(.*?)\|(.*)$/ } split /\n/,
	  (on($databases[0], "BEGIN; $sql; SELECT relation, rows, fingerprint FROM synchro.manifest(); ROLLBACK"));

	is(join(' ', grep { $after{$_} ne $before->{$_} } sort keys %after), $tables, "$what shows where it should");
}
is_deeply(manifest($databases[0]), $before, 'and what was is again');

# rights
$one->safe_psql('postgres', 'CREATE ROLE reader; GRANT EXECUTE ON FUNCTION synchro.manifest(regnamespace) TO reader');
my ($rc, $stdout, $stderr) = $one->psql('postgres', 'SET ROLE reader; SELECT * FROM synchro.manifest()');
like($stderr, qr/permission denied for table/, 'it takes the right to read the tables');

# visits have no natural key: what a photo refers to is all that is in a visit, so that is what could be guessed by its fingerprint
$one->safe_psql('postgres', 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; REVOKE SELECT ON visit, city FROM reader; GRANT SELECT (id, country_id, name) ON city TO reader; GRANT SELECT (id, city_id, note) ON visit TO reader');
$one->safe_psql('postgres', 'CREATE SCHEMA photos; ALTER TABLE photo SET SCHEMA photos; GRANT USAGE ON SCHEMA photos TO reader');
($rc, $stdout, $stderr) = $one->psql('postgres', q{SET ROLE reader; SELECT * FROM synchro.manifest('photos')});
like($stderr, qr/permission denied for table visit/, 'also of parents without a natural key, all that is pushed');
$one->safe_psql('postgres', 'GRANT SELECT (details) ON visit TO reader');
($rc, $stdout, $stderr) = $one->psql('postgres', q{SET ROLE reader; SELECT relation FROM synchro.manifest('photos')});
is("$stdout$stderr", 'photos.photo', 'of others the names, and nothing of skipped columns');
$one->safe_psql('postgres', 'ALTER TABLE photos.photo SET SCHEMA public; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; ALTER TABLE city ENABLE ROW LEVEL SECURITY');
($rc, $stdout, $stderr) = $one->psql('postgres', 'SET ROLE reader; SELECT * FROM synchro.manifest()');
like($stderr, qr/row-level security.*HINT:  Give role reader the attribute BYPASSRLS/s, 'rows that are hidden are no rows that are missing');

$_->stop('fast') foreach $one, $other;
done_testing();
