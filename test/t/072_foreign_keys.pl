# WHY: a foreign key is dropped for a load, and made again: a common recipe. What is pushed in between has ids that nothing says
# are to be translated, so it got to other parents, silently, and stayed there. As with any definition that differs, the table
# has to wait.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE parent (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE child (code text PRIMARY KEY, parent_id int REFERENCES parent, parent_name text REFERENCES parent (name));
CREATE TABLE note (id serial PRIMARY KEY, text text);
CREATE TABLE remark (code text PRIMARY KEY, note_id int REFERENCES note);
CREATE TABLE country (code int PRIMARY KEY);
CREATE TABLE town (name text PRIMARY KEY, country int REFERENCES country);
CREATE TABLE other (code text PRIMARY KEY);
SQL
$remote->safe_psql('postgres', q{INSERT INTO parent (name) SELECT 'r' || i FROM generate_series(1, 9) i; INSERT INTO note (text) SELECT 'r' || i FROM generate_series(1, 9) i});
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parent', '{name}'), synchro.add_table('child'), synchro.add_table('note'), synchro.add_table('remark'),
	synchro.add_table('country'), synchro.add_table('town'), synchro.add_table('other');
INSERT INTO parent (name) SELECT 'p' || i FROM generate_series(1, 3) i;
INSERT INTO note (text) SELECT 'n' || i FROM generate_series(1, 3) i;
INSERT INTO country VALUES (1);
SQL
sync($local, 'office');
my $children = 'SELECT code, name, parent_name FROM child LEFT JOIN parent ON id = parent_id ORDER BY code';
my $remarks = 'SELECT code, text FROM remark LEFT JOIN note ON id = note_id ORDER BY code';

foreach my $case ([ 'child', 'parent_id', 'parent', $children, 'name' ], [ 'remark', 'note_id', 'note', $remarks, 'text' ])
{
	my ($table, $column, $parent, $rows, $name) = @$case;

	$local->safe_psql('postgres', "ALTER TABLE $table DROP CONSTRAINT ${table}_${column}_fkey");
	$local->safe_psql('postgres', "INSERT INTO $table (code, $column) SELECT 'of ' || $name, id FROM $parent; INSERT INTO other VALUES ('beside $table')");
	sync($local, 'office');
	is(rows($remote, "SELECT count(*) FROM $table"), 0, "$table: nothing is pushed while the foreign key is missing");
	is(rows($remote, "SELECT count(*) FROM other WHERE code = 'beside $table'"), 1, "$table: others go on");
	like(rows($local, 'SELECT relation, key, message, hint FROM synchro.failures'),
		qr/^$table\|\|column "$column" of table public.$table has a foreign key on remote "office", and none here\|Add it here/, "$table: it says why");
	like(rows($local, "SELECT string_agg(severity || ' ' || problem || ' ' || fix, '; ') FROM synchro.check('office') WHERE relation = '$table'::regclass AND severity = 'error'"),
		qr/error .*foreign key ${table}_${column}_fkey.* of table public.$table references table public.$parent.*ADD FOREIGN KEY \($column\).*DROP CONSTRAINT/s, "$table: so does check()");
	$local->safe_psql('postgres', "ALTER TABLE $table ADD FOREIGN KEY ($column) REFERENCES $parent; SELECT synchro.retry()");
	sync($local, 'office');
	same($local, $remote, $rows, "$table: with the foreign key it arrives, at the right parents");
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, "$table: nothing waits");
}

# what is no id means the same on both sides
$local->safe_psql('postgres', <<'SQL');
ALTER TABLE child DROP CONSTRAINT child_parent_name_fkey;
ALTER TABLE town DROP CONSTRAINT town_country_fkey;
INSERT INTO child (code, parent_name) VALUES ('by name', 'p2');
INSERT INTO town VALUES ('x', 1);
SQL
is(sync($local, 'office')->{failed}, 0, 'foreign keys by what identifies the parent on both sides may be missing');
same($local, $remote, $children, 'children by name');
same($local, $remote, 'SELECT * FROM town', 'children by the natural key');

# not missed on either side: then it is as it is
$local->safe_psql('postgres', 'ALTER TABLE remark DROP CONSTRAINT remark_note_id_fkey');
$remote->safe_psql('postgres', 'ALTER TABLE remark DROP CONSTRAINT remark_note_id_fkey');
$local->safe_psql('postgres', q{INSERT INTO remark VALUES ('as it is', 77)});
is(sync($local, 'office')->{failed}, 0, 'without one on either side it is a number');
is(rows($remote, q{SELECT note_id FROM remark WHERE code = 'as it is'}), 77, 'pushed as it is');

$_->stop('fast') foreach $local, $remote;
done_testing();
