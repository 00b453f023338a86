# Foreign keys of several columns, in part in the natural key or in part NULL, and those that reference other columns than
# the primary key.
#
# WHY: which row a value references is not always known. A name of before has the natural key's columns only, a reference
# that is NULL in part references nothing, and a parent that is written by the same statement, or moves, does not bear its
# new value yet. Taken from what is not there, a value turns into NULL, a deleted row stays and a renamed one is there twice.

use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

connect_remote($local, $remote, schemas => ['public']);

sub on_local
{
	return $local->safe_psql('postgres', "SET client_min_messages = warning; $_[0]");
}

# make tables on both sides, and watch them
sub tables
{
	my ($schema, %watched) = @_;

	both($local, $remote, $schema);
	grant_dml($remote, schemas => ['public']);
	on_local("SELECT synchro.add_table('$_'" . (defined $watched{$_} ? ", '$watched{$_}')" : ')')) foreach sort keys %watched;
	return;
}

# all that has been changed arrives
sub arrives
{
	my ($query, $testname) = @_;
	my $failed = sync($local, 'office')->{failed};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return subtest $testname => sub {
		is($failed, 0, 'nothing fails');
		same($local, $remote, $query, 'the rows are the same');
		is(rows($local, q{SELECT string_agg(v::text, ' ') FROM synchro.verify('office') v}), '', 'and so verify() says');
	};
}

#
# Ids given by the application, of one tenant each
#
{
	my $all = 'SELECT t.*, (SELECT count(*) FROM project p WHERE (p.tenant, p.id) = (t.tenant, t.project)) FROM task t ORDER BY 1, 2';

	tables(<<'SQL', project => undef, task => undef);
CREATE TABLE project (tenant int, id int, name text, PRIMARY KEY (tenant, id));
CREATE TABLE task (tenant int, id int, project int, note text, PRIMARY KEY (tenant, id),
	FOREIGN KEY (tenant, project) REFERENCES project ON UPDATE CASCADE);
SQL
	on_local(<<'SQL');
INSERT INTO project VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c');
INSERT INTO task VALUES (1, 1, 1, 'deleted'), (1, 2, 2, 'renamed'), (1, 3, NULL, 'nowhere'), (2, 1, 1, 'of another tenant'), (1, 4, 1, 'moved');
SQL
	arrives($all, 'a key with one column of a foreign key: inserted, also where that is NULL in part');
	on_local(q{DELETE FROM task WHERE id = 1 AND tenant = 1; UPDATE task SET id = 20 WHERE id = 2; UPDATE task SET project = NULL WHERE tenant = 2;
		UPDATE task SET note = 'still nowhere' WHERE id = 3});
	arrives($all, 'deleted, renamed, referring to nothing any more');
	on_local(q{UPDATE project SET tenant = 3 WHERE tenant = 1 AND id = 1; UPDATE task SET note = note || ', with its parent' WHERE id = 4});
	arrives($all, 'moved by its parent on both sides');
	is(rows($remote, 'SELECT note FROM task WHERE tenant = 3'), 'moved, with its parent', 'and changed besides');
	on_local('DELETE FROM task WHERE tenant = 3; DELETE FROM project WHERE tenant = 3');
	arrives($all, 'deleted together with its parent');
}

#
# Ids of a sequence, beside the tenant
#
{
	my $all = q{SELECT j.tenant, j.name, p.code, j.note, (SELECT name FROM job a WHERE a.id = j.after)
		FROM job j LEFT JOIN plan p ON (p.tenant, p.id) = (j.tenant, j.plan) ORDER BY 1, 2};

	tables(<<'SQL', plan => '{tenant, code}', job => '{tenant, plan, name}', visit => '{plan, name}');
CREATE TABLE plan (tenant int, id serial, code text NOT NULL, PRIMARY KEY (tenant, id), UNIQUE (tenant, code));
CREATE TABLE job (id serial PRIMARY KEY, tenant int NOT NULL, plan int, name text NOT NULL, note text, after int,
	UNIQUE (tenant, id), UNIQUE NULLS NOT DISTINCT (tenant, plan, name),
	FOREIGN KEY (tenant, plan) REFERENCES plan, FOREIGN KEY (tenant, after) REFERENCES job (tenant, id));
CREATE TABLE visit (id serial PRIMARY KEY, tenant int NOT NULL, plan int NOT NULL, name text NOT NULL, UNIQUE (plan, name),
	FOREIGN KEY (tenant, plan) REFERENCES plan);
SQL
	$remote->safe_psql('postgres', 'ALTER SEQUENCE plan_id_seq RESTART 500; ALTER SEQUENCE job_id_seq RESTART 700');
	on_local(<<'SQL');
INSERT INTO plan (tenant, code) VALUES (1, 'x'), (2, 'x'), (2, 'y');
INSERT INTO job (tenant, plan, name) SELECT tenant, id, 'of ' || code FROM plan;
INSERT INTO job (tenant, name) VALUES (1, 'free'), (2, 'free');
UPDATE job j SET after = a.id FROM job a WHERE a.tenant = j.tenant AND a.name = 'free' AND j.name <> 'free';
INSERT INTO visit (tenant, plan, name) SELECT tenant, id, 'v' FROM plan;
SQL
	arrives($all, 'ids are translated, tenants are not, and rows that refer to nothing are told apart by them');
	on_local(q{UPDATE job SET name = 'renamed' WHERE tenant = 2 AND name = 'of x'; DELETE FROM job WHERE tenant = 2 AND name = 'of y';
		UPDATE job SET plan = NULL WHERE name = 'of x'; UPDATE job SET note = 'n' WHERE name = 'free' AND tenant = 2});
	arrives($all, 'renamed, deleted, and referring to nothing any more');
	same($local, $remote, 'SELECT v.tenant, p.code, v.name FROM visit v JOIN plan p USING (tenant) WHERE p.id = v.plan ORDER BY 1, 2, 3',
		'a key without the tenant that an id in it belongs to');
	on_local('DELETE FROM visit WHERE tenant = 1');
	sync_parks($local, 'office', qr/0A000: renamed or deleted rows of table public.visit cannot be found .* foreign key "visit_tenant_plan_fkey".*HINT: Put the columns/s,
		'of which none can be deleted');
	on_local(q{SELECT synchro.remove_table('visit')});
}

#
# References to other columns than the primary key
#
{
	my $staff = 'SELECT code, boss, name FROM staff ORDER BY 1';
	my $offers = 'SELECT o.name, o.ean, p.sku, o.note FROM offer o LEFT JOIN product p USING (ean) ORDER BY 1';

	tables(<<'SQL', staff => '{code}', product => undef, offer => '{name}', node => '{above, name}', tag => '{ean, tag}');
CREATE TABLE staff (id serial PRIMARY KEY, code text NOT NULL UNIQUE, boss text REFERENCES staff (code) ON UPDATE CASCADE, name text);
CREATE TABLE product (sku text PRIMARY KEY, ean text UNIQUE);
CREATE TABLE offer (id serial PRIMARY KEY, name text NOT NULL UNIQUE, ean text REFERENCES product (ean), note text);
CREATE TABLE tag (ean text REFERENCES product (ean), tag text, note text, UNIQUE NULLS NOT DISTINCT (ean, tag));
CREATE TABLE node (id serial PRIMARY KEY, path text NOT NULL UNIQUE, above text REFERENCES node (path), name text NOT NULL, UNIQUE NULLS NOT DISTINCT (above, name));
SQL
	$remote->safe_psql('postgres', 'ALTER SEQUENCE staff_id_seq RESTART 500; ALTER SEQUENCE node_id_seq RESTART 500');
	on_local(<<'SQL');
INSERT INTO staff (code, boss) VALUES ('b', NULL), ('s', 'b'), ('t', 's');
INSERT INTO product VALUES ('old', '1'), ('p', '2'), ('q', '3');
INSERT INTO offer (name, ean) VALUES ('one', '1'), ('two', '2'), ('three', '3'), ('none', NULL);
INSERT INTO tag VALUES ('1', 'red'), (NULL, 'red');
INSERT INTO node (path, above, name) VALUES ('a', NULL, 'a'), ('a/b', 'a', 'b'), ('a/b/c', 'a/b', 'c');
SQL
	arrives($staff, 'a parent of the same table that is as new');
	same($local, $remote, $offers, 'of another one');
	same($local, $remote, 'SELECT * FROM tag ORDER BY 1, 2', 'of a row without primary key');
	same($local, $remote, 'SELECT path, above, name FROM node ORDER BY 1', 'of a row that is called by it');
	on_local(q{UPDATE staff SET code = 'chief' WHERE code = 'b'; UPDATE staff SET name = 'S' WHERE code = 's';
		UPDATE node SET name = 'd' WHERE name = 'c'; DELETE FROM tag WHERE ean IS NULL});
	arrives($staff, 'a parent is called otherwise');
	same($local, $remote, 'SELECT path, above, name FROM node ORDER BY 1', 'a row that is called by its parent, too');
	on_local(<<'SQL');
BEGIN;
UPDATE product SET sku = 'new' WHERE sku = 'old';
UPDATE product SET sku = 'tmp' WHERE sku = 'p'; UPDATE product SET sku = 'p' WHERE sku = 'q'; UPDATE product SET sku = 'q' WHERE sku = 'tmp';
UPDATE offer SET note = 'changed'; UPDATE tag SET note = 'changed';
COMMIT;
SQL
	arrives($offers, 'parents get other primary keys, and exchange them');
	same($local, $remote, 'SELECT * FROM tag ORDER BY 1, 2', 'also of a row without one');
}

#
# Tenants that are in no natural key, and that all refer to by what they belong to
#
{
	my $rows = q{SELECT 'room', tenant, note, (SELECT note FROM room a WHERE (a.tenant, a.id) = (r.tenant, r.above)) FROM room r
		UNION ALL SELECT 'desk', tenant, note, (SELECT note FROM room a WHERE (a.tenant, a.id) = (d.tenant, d.room)) FROM desk d
		UNION ALL SELECT 'lamp', tenant, note, (SELECT note FROM desk a WHERE (a.tenant, a.id) = (l.tenant, l.desk)) FROM lamp l
		UNION ALL SELECT 'part', tenant, code, (SELECT code FROM part a WHERE (a.tenant, a.id) = (p.tenant, p.above)) FROM part p ORDER BY 1, 3};

	tables(<<'SQL', room => undef, desk => undef, lamp => undef, part => '{code}');
CREATE TABLE room (tenant text, id serial, above int, note text, PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, above) REFERENCES room ON UPDATE CASCADE);
CREATE TABLE desk (tenant text, id serial, room int, note text, PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, room) REFERENCES room ON UPDATE CASCADE);
CREATE TABLE lamp (tenant text, id serial, desk int, note text, PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, desk) REFERENCES desk ON UPDATE CASCADE);
CREATE TABLE part (tenant text, id serial, above int, code text NOT NULL UNIQUE, PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, above) REFERENCES part ON UPDATE CASCADE);
SQL
	$remote->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART 500") foreach qw(room desk lamp part);
	on_local(<<'SQL');
INSERT INTO room (tenant, above, note) VALUES ('a', NULL, 'house'), ('a', 1, 'floor'), ('a', 2, 'room'), ('b', NULL, 'hut');
INSERT INTO desk (tenant, room, note) VALUES ('a', 3, 'in room'), ('a', NULL, 'nowhere'), ('b', 4, 'in hut');
INSERT INTO lamp (tenant, desk, note) VALUES ('a', 1, 'on desk'), ('a', 2, 'on the other'), ('a', NULL, 'on nothing'), ('b', 3, 'of b');
INSERT INTO part (tenant, above, code) VALUES ('a', NULL, 'p'), ('a', 1, 'q'), ('a', 2, 'r'), ('b', NULL, 's');
SQL
	arrives($rows, 'rows at the top have their tenant, and so have those that belong to nothing');
	on_local(<<'SQL');
UPDATE room SET above = NULL, note = 'of its own' WHERE id = 3; UPDATE desk SET room = NULL WHERE id = 1; UPDATE lamp SET desk = 2 WHERE note = 'on nothing';
UPDATE part SET above = 1 WHERE code = 'r'; UPDATE part SET code = 'pp' WHERE code = 'p'; DELETE FROM lamp WHERE tenant = 'b'; DELETE FROM desk WHERE tenant = 'b'; DELETE FROM room WHERE tenant = 'b';
SQL
	arrives($rows, 'changed, renamed and deleted');
	on_local(q{UPDATE room SET tenant = 'c' WHERE id = 1; UPDATE part SET tenant = 'c' WHERE code = 'pp'});
	arrives($rows, 'and moved to another tenant, with all that belongs to them');
}

done_testing();
