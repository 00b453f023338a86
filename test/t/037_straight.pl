# New rows in bulk go straight into the remote's table, and deletes by their names, as if they had been staged.
#
# WHY: a batch of nothing but rows that were inserted here is not looked up row by row. If one of them is there after
# all, no BEFORE INSERT trigger may fire for it and no sequence value be used up; defaults and triggers must run with the
# settings of the remote's user; and what a single row is to blame for must not stop the others.

use strict;
use warnings;

use lib 'test/t';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE items (id serial PRIMARY KEY, code text NOT NULL UNIQUE, quantity integer CHECK (quantity < 1000000), note text,
	stamped timestamptz, day date, local_only text DEFAULT 'made');
CREATE TABLE parts (id serial PRIMARY KEY, code text NOT NULL UNIQUE REFERENCES items (code), n integer);
CREATE TABLE ruled (id serial PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE spans (code text PRIMARY KEY, span interval);
SQL
$remote->safe_psql('postgres', <<'SQL');
ALTER SEQUENCE items_id_seq RESTART 500001;
CREATE TABLE fired (code text, zone text, style text);
GRANT INSERT ON fired TO PUBLIC;
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO fired VALUES (NEW.code, current_setting('timezone'), current_setting('datestyle')); RETURN NEW; END $$;
CREATE TRIGGER fire BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TABLE elsewhere (code text);
GRANT INSERT ON elsewhere TO PUBLIC;
CREATE RULE instead AS ON INSERT TO ruled DO INSTEAD INSERT INTO elsewhere VALUES (NEW.code) RETURNING 0, code;
SQL
connect_remote($local, $remote);
$remote->safe_psql('postgres', q{ALTER ROLE sync SET timezone = 'Asia/Tokyo'; ALTER ROLE sync SET datestyle = 'SQL, DMY'; ALTER ROLE sync SET intervalstyle = 'sql_standard'});
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('items', '{code}', skip => '{local_only}');
SELECT synchro.add_table('ruled', '{code}');
SELECT synchro.add_table('spans');
SQL

my $contents = 'SELECT code, quantity, note, stamped AT TIME ZONE \'UTC\', day FROM items ORDER BY code COLLATE "C"';

# how often rows were copied into the table itself since the last look
my $log = -s $remote->logfile;

sub copied
{
	my ($table) = @_;
	my $text = slurp_file($remote->logfile, $log);

	$log = -s $remote->logfile;
	return scalar(() = $text =~ /COPY public\.$table \(/g);
}

# new rows, one of them with an empty value in front, and with all that COPY has to escape
$local->safe_psql('postgres', <<'SQL');
INSERT INTO items (code, quantity, note, stamped, day)
	SELECT 'c' || i, i, E'a\tb\nc\\d ' || i, '2024-01-02 03:04:05.678+00', '2024-03-04' FROM generate_series(1, 25000) i;
INSERT INTO items (code, note) VALUES ('', NULL), (E'\\.', ''), (E'\\N', E'\\N');
SQL
my $result = sync($local, 'office');
is($result->{inserted}, 25003, 'new rows are inserted');
is(copied('items'), 3, 'by batches that are copied into the table');
same($local, $remote, $contents, 'both sides are the same');
is(rows($remote, 'SELECT count(*), count(DISTINCT zone || style), min(zone), min(style) FROM fired'), '25003|1|Asia/Tokyo|SQL, DMY',
	'triggers fire once for each, with the settings of the remote\'s user');
is(rows($remote, 'SELECT min(id), max(id), min(local_only), max(local_only) FROM items'), '500001|525003|made|made', 'with the remote\'s defaults');

# some of them are there after all
$remote->safe_psql('postgres', q{INSERT INTO items (code, quantity) VALUES ('d1500', 1), ('d2999', 1); TRUNCATE fired});
my $next = rows($remote, 'SELECT last_value FROM items_id_seq');
$local->safe_psql('postgres', q{INSERT INTO items (code, quantity) SELECT 'd' || i, i FROM generate_series(1, 3000) i});
$result = sync($local, 'office');
is("$result->{inserted} $result->{updated}", '2998 2', 'rows that are there are updated');
is(rows($remote, 'SELECT count(*) FROM fired'), 2998, 'no trigger fires for them');
is(rows($remote, 'SELECT last_value FROM items_id_seq'), $next + 2998, 'and no sequence value is used up');
same($local, $remote, $contents, 'both sides are the same');

# a table without triggers is looked at once in a pass; what is there of later batches is met all the same
both($local, $remote, 'CREATE TABLE quiet (id serial PRIMARY KEY, code text NOT NULL UNIQUE, n integer)');
$remote->safe_psql('postgres', q{INSERT INTO quiet (code, n) VALUES ('q29000', 1)});
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('quiet', '{code}');
INSERT INTO quiet (code, n) SELECT 'q' || i, i FROM generate_series(1, 30000) i;
SQL
copied('quiet');
my $before = -s $remote->logfile;
$result = sync($local, 'office');
is("$result->{inserted} $result->{updated}", '29999 1', 'a row of a later batch that is there is updated, once');
my $looks = () = slurp_file($remote->logfile, $before) =~ /rows are there already', ''\) FROM pg_temp/g;
is($looks, 1, 'only the first batch was looked for');
is(copied('quiet'), 4, 'the others were copied without, until one met the row (what fails is logged twice)');
same($local, $remote, 'SELECT code, n FROM quiet ORDER BY code COLLATE "C"', 'both sides are the same');

# one row is refused
$remote->safe_psql('postgres', 'ALTER TABLE items ADD CONSTRAINT refuse CHECK (code <> \'e1234\')');
$local->safe_psql('postgres', q{INSERT INTO items (code, quantity) SELECT 'e' || i, i FROM generate_series(1, 3000) i});
$result = sync($local, 'office');
is("$result->{inserted} $result->{failed}", '2999 1', 'a row that is refused stops no other');
is(rows($local, 'SELECT key FROM synchro.failures'), rows($local, q{SELECT id FROM items WHERE code = 'e1234'}), 'it is parked')
	or diag(rows($local, 'SELECT key, message FROM synchro.failures'));
$remote->safe_psql('postgres', 'ALTER TABLE items DROP CONSTRAINT refuse');
$local->safe_psql('postgres', q{UPDATE items SET quantity = 4 WHERE code = 'e1234'});
sync($local, 'office');
same($local, $remote, $contents, 'and arrives when it is mended');

# rules are the remote's own, too, and COPY would pass them by; and an interval's text depends on the session
copied('items');
$local->safe_psql('postgres', <<'SQL');
INSERT INTO ruled (code) SELECT 'r' || i FROM generate_series(1, 2000) i;
INSERT INTO spans SELECT 's' || i, '-1 day -02:03:04' FROM generate_series(1, 2000) i;
SQL
sync($local, 'office');
is(copied('(?:ruled|spans)'), 0, 'a table with rules is not copied into, nor one with intervals');
is(rows($remote, 'SELECT (SELECT count(*) FROM ruled), (SELECT count(*) FROM elsewhere)'), '0|2000', 'its rules hold');
same($local, $remote, 'SELECT code, extract(epoch FROM span) FROM spans ORDER BY code COLLATE "C"', 'intervals arrive as they are');

# deletes: by names, unless something there is in the way
$local->safe_psql('postgres', q{DELETE FROM items WHERE code ~ '^c'});
$result = sync($local, 'office');
is($result->{deleted}, 25000, 'rows are deleted');
like(slurp_file($remote->logfile, $log), qr/DELETE FROM ONLY public\.items t USING pg_temp\.n_/, 'by their names');
same($local, $remote, $contents, 'both sides are the same');
$remote->safe_psql('postgres', q{INSERT INTO parts (code, n) VALUES ('d17', 1)});
$local->safe_psql('postgres', q{DELETE FROM items WHERE code ~ '^d'});
$result = sync($local, 'office');
is("$result->{deleted} $result->{failed}", '2999 1', 'one that something there refers to is parked, and stops no other');
is(rows($remote, q{SELECT string_agg(code, ' ') FROM items WHERE code ~ '^d'}), 'd17', 'it stays');

# deleted and inserted again between two passes: the remote's row survives
my $id = rows($remote, q{SELECT id FROM items WHERE code = 'e7'});
$local->safe_psql('postgres', q{BEGIN; DELETE FROM items WHERE code ~ '^e'; INSERT INTO items (code, quantity) VALUES ('e7', 70); COMMIT});
sync($local, 'office');
is(rows($remote, q{SELECT string_agg(id || ' ' || quantity, ',') FROM items WHERE code ~ '^e'}), "$id 70", 'a row that is inserted again keeps its id');

done_testing();
