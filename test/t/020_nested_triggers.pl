# WHY: the log has of each row of a transaction the first name that it lost, and takes the first record for that. But AFTER triggers of
# an application fire in the order of their names, and what they (or BEFORE triggers of later rows of the same statement) write to the
# same row is logged before the statement's own change of it. So the record that comes first is not of the first change: rows are
# looked for on the remote by a name that they never had there.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE norm (id serial PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE item (id serial PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE inbox (id serial PRIMARY KEY, code text NOT NULL UNIQUE);
CREATE TABLE bill (id serial PRIMARY KEY, number text UNIQUE, what text);
CREATE TABLE entry (id serial PRIMARY KEY, position int NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED, label text);
SQL
$remote->safe_psql('postgres', "SELECT setval('${_}_id_seq', 1000)") foreach qw(norm item inbox bill entry);
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('norm', '{code}'), synchro.add_table('item', '{code}'), synchro.add_table('inbox', '{code}'),
	synchro.add_table('bill', '{number}'), synchro.add_table('entry', '{position}');
INSERT INTO norm (code) VALUES ('old');
INSERT INTO item (code) VALUES ('x');
INSERT INTO bill (what) VALUES ('a draft');
INSERT INTO entry (id, position, label) VALUES (10, 1, 'first');
SQL
sync($local, 'office');
is(rows($remote, 'SELECT id, code FROM norm'), '1001|old', 'to begin with');
is(rows($remote, 'SELECT id, number, what FROM bill'), '1001||a draft', 'to begin with: a draft');

# 1. a trigger that comes before ours by its name renames the row once more
$local->safe_psql('postgres', <<'SQL');
CREATE FUNCTION lower_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE norm SET code = lower(code) WHERE id = NEW.id AND code <> lower(code);
	RETURN NULL;
END$$;
CREATE TRIGGER lower_it AFTER INSERT OR UPDATE ON norm FOR EACH ROW EXECUTE FUNCTION lower_it();
UPDATE norm SET code = 'NEW';
SQL
sync($local, 'office');
is(rows($remote, 'SELECT id, code FROM norm ORDER BY id'), '1001|new', 'renamed, and once more by a trigger: it is the same row');

# 2. one that deletes the row which was renamed: the delete is lost
$local->safe_psql('postgres', <<'SQL');
CREATE FUNCTION bury_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM item WHERE id = NEW.id; RETURN NULL; END';
CREATE TRIGGER bury_it AFTER UPDATE ON item FOR EACH ROW WHEN (NEW.code = 'dead') EXECUTE FUNCTION bury_it();
UPDATE item SET code = 'dead' WHERE code = 'x';
SQL
sync($local, 'office');
is(rows($local, 'SELECT count(*) FROM item'), '0', 'deleted by a trigger here');
is(rows($remote, 'SELECT code FROM item'), '', '... and there');

# 3. inserted, and deleted by a trigger: says nothing of the name (README, Limits)
$remote->safe_psql('postgres', q{INSERT INTO inbox (code) VALUES ('r')});
$local->safe_psql('postgres', <<'SQL');
CREATE FUNCTION archive_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM inbox WHERE id = NEW.id; RETURN NULL; END';
CREATE TRIGGER archive_it AFTER INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION archive_it();
INSERT INTO inbox (code) VALUES ('r');
SQL
sync($local, 'office');
is(rows($remote, 'SELECT code FROM inbox'), 'r', q{a row of the remote's own stays});

# 4. a number given by an AFTER INSERT trigger: the new row is taken for one that had no number
$local->safe_psql('postgres', <<'SQL');
CREATE FUNCTION assign_number() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN UPDATE bill SET number = 'B-' || id WHERE id = NEW.id; RETURN NULL; END$$;
CREATE TRIGGER assign_number AFTER INSERT ON bill FOR EACH ROW EXECUTE FUNCTION assign_number();
INSERT INTO bill (what) VALUES ('tea');
SQL
sync($local, 'office');
is(rows($remote, 'SELECT number, what FROM bill ORDER BY number NULLS FIRST'), "|a draft\nB-2|tea", 'a new row is a new row, and the draft is there still');

# 5. whatever triggers are called: each new row makes room for itself
$local->safe_psql('postgres', <<'SQL');
CREATE FUNCTION make_room() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN UPDATE entry SET position = position + 1 WHERE position >= NEW.position; RETURN NEW; END';
CREATE TRIGGER zz_make_room BEFORE INSERT ON entry FOR EACH ROW EXECUTE FUNCTION make_room();
INSERT INTO entry (id, position, label) VALUES (1, 1, 'a'), (2, 1, 'b');
SQL
my $first = rows($remote, q{SELECT id FROM entry WHERE label = 'first'});

sync($local, 'office');
same($local, $remote, 'SELECT position, label FROM entry ORDER BY 1, 2', 'rows that have moved others: all are there');
is(rows($remote, q{SELECT id FROM entry WHERE label = 'first'}), $first, '... and the one that was there is the same row still');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), '0', 'nothing has failed') or diag(rows($local, 'SELECT * FROM synchro.failures'));

$_->stop('fast') foreach $local, $remote;
done_testing();
