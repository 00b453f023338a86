# WHY: a pass is many batches, and deletes wait for the last one. In between rows get new names, some of them names that
# others have just given up, while these still bear them on the remote. What refers to a renamed row is not in the log, so it
# must be found under it afterwards, and nothing may be deleted that has come to be wanted meanwhile.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchro.batch_size = 10\n");
my $remote = synchro_node('remote');

# On the remote, rows of plain go with their parent: to delete the wrong one would be noticed by their absence, that of
# children by an error.
both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE filler (id serial PRIMARY KEY, n int NOT NULL UNIQUE);
CREATE TABLE plain (id serial PRIMARY KEY, label text NOT NULL, parent_id int NOT NULL REFERENCES parents ON DELETE CASCADE, filler_id int REFERENCES filler);
CREATE TABLE children (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int NOT NULL REFERENCES parents);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('parents_id_seq', 1000000), setval('plain_id_seq', 2000000), setval('children_id_seq', 3000000);
CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE TRIGGER stop_here AFTER INSERT ON filler FOR EACH ROW WHEN (NEW.n % 1000 = 15) EXECUTE FUNCTION stop_here();
CREATE TABLE gone (label text);
CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO public.gone VALUES (OLD.label); RETURN NULL; END';
CREATE TRIGGER note_it AFTER DELETE ON plain FOR EACH ROW EXECUTE FUNCTION note_it();
CREATE TABLE parents_of (label text, parent_id int);
CREATE FUNCTION note_parent() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO public.parents_of VALUES (NEW.label, NEW.parent_id); RETURN NULL; END';
CREATE TRIGGER note_parent AFTER INSERT OR UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION note_parent();
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('parents', '{name}'), synchro.add_table('plain'), synchro.add_table('children', '{name}'), synchro.add_table('filler', '{n}')});

my $round = 0;

# Changes, pushed by a pass of several batches, the later ones of rows of plain; and others, made when the second is being
# applied, and the third may have been read. Without filler after that, the next batches are of rows of plain.
sub in_the_middle
{
	my ($testname, $before, $meanwhile, $nfiller, $waits) = @_;
	my $from = 1000 * $round++;
	my $to = $from + ($nfiller // 100);
	my $holder = $remote->background_psql('postgres');
	my $pusher = $local->background_psql('postgres');

	$holder->query_safe('SELECT pg_advisory_lock(1)');
	$local->safe_psql('postgres', "BEGIN; $before; INSERT INTO filler (n) SELECT generate_series($from + 1, $to);
		INSERT INTO plain (label, parent_id) SELECT 'late $from ' || g, (SELECT min(id) FROM parents) FROM generate_series(1, 100) g; COMMIT");
	$pusher->query_until(qr/begun/, "\\echo begun\nSELECT * FROM synchro.synchronize('office');\n");
	wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, "$testname: the second batch is there");
	is(rows($remote, 'SELECT count(*) > 0 FROM synchro_peer.unapplied'), 't', "$testname: deletes wait for the last one");
	$local->safe_psql('postgres', $meanwhile);
	$holder->quit;
	$pusher->quit;
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), $waits || 0, "$testname: nothing has failed, but what waits for the next pass") or diag(rows($local, 'SELECT * FROM synchro.failures'));
	sync($local, 'office');
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, "$testname: nor afterwards") or diag(rows($local, 'SELECT * FROM synchro.failures'));
	same($local, $remote, 'SELECT name FROM parents ORDER BY name', "$testname: parents");
	same($local, $remote, 'SELECT x.label, p.name FROM plain x JOIN parents p ON p.id = x.parent_id ORDER BY x.label', "$testname: plain");
	same($local, $remote, 'SELECT c.name, p.name FROM children c JOIN parents p ON p.id = c.parent_id ORDER BY c.name', "$testname: children");
	is(rows($remote, 'SELECT count(*) FROM synchro_peer.unapplied'), 0, "$testname: no delete is left");
	is(rows($remote, 'SELECT * FROM gone'), '', "$testname: no row went with its parent, to be made anew");
	return;
}

sub family
{
	my (@names) = @_;

	foreach my $name (@names)
	{
		$local->safe_psql('postgres', "INSERT INTO parents (name) VALUES ('$name'); INSERT INTO plain (label, parent_id) SELECT '$name ' || g, currval('parents_id_seq') FROM generate_series(1, 3) g;
			INSERT INTO children (name, parent_id) SELECT '$name ' || g, currval('parents_id_seq') FROM generate_series(1, 3) g");
	}
	sync($local, 'office');
	return;
}

family('a');
$local->safe_psql('postgres', q{INSERT INTO parents (name) VALUES ('a2'), ('b2'), ('c2'), ('d2'), ('e2')});
sync($local, 'office');
my $id = rows($remote, q{SELECT id FROM parents WHERE name = 'a'});

in_the_middle('taken', q{DELETE FROM parents WHERE name = 'a2'}, q{UPDATE parents SET name = 'a2' WHERE name = 'a'});
is(rows($remote, q{SELECT id FROM parents WHERE name = 'a2'}), $id, 'taken: it is the row that it was');

# the name of before is another row's at once
family('b');
in_the_middle('passed on', q{DELETE FROM parents WHERE name = 'b2'}, q{UPDATE parents SET name = 'b2' WHERE name = 'b'; INSERT INTO parents (name) VALUES ('b')});

# a chain: each takes what the one before it has left
family('c', 'cc');
in_the_middle('a chain', q{DELETE FROM parents WHERE name = 'c2'}, q{UPDATE parents SET name = 'c2' WHERE name = 'c'; UPDATE parents SET name = 'c' WHERE name = 'cc'});

# a new row, which is not among the keys of the pass; others refer to it, which are, and go with it, but not in the last batch
family('d');
in_the_middle('anew', q{DELETE FROM parents WHERE name = 'd2'},
	q{INSERT INTO parents (name) VALUES ('d2'); UPDATE plain SET parent_id = currval('parents_id_seq') WHERE label ~ '^late 3000 [1-3]?.$';
	UPDATE children SET parent_id = currval('parents_id_seq') WHERE name = 'd 1'});

# a new row that has the name of one which is called otherwise now, and is not among the keys of the pass either
$local->safe_psql('postgres', q{INSERT INTO parents (name) VALUES ('g2')});
family('g');
in_the_middle('named', q{DELETE FROM parents WHERE name = 'g2'},
	q{UPDATE parents SET name = 'g3' WHERE name = 'g'; INSERT INTO parents (name) VALUES ('g'); UPDATE plain SET parent_id = currval('parents_id_seq') WHERE label LIKE 'late 4000 %'}, 20);
is(rows($remote, q{SELECT count(*) FROM parents_of WHERE label LIKE 'late 4000 %' AND parent_id = (SELECT id FROM parents WHERE name = 'g3')}), 0, 'named: none was under the other one, not even for a moment');

# and what was wanted again is not, in the end
in_the_middle('anew, and gone', q{DELETE FROM parents WHERE name = 'e2'; INSERT INTO parents (name) VALUES ('e')},
	q{INSERT INTO parents (name) VALUES ('e2'); DELETE FROM parents WHERE name = 'e2'});

# rows that were moved away from what is deleted, which the last batch knows of, unlike of the move
family('h', 'i');
$local->safe_psql('postgres', q{INSERT INTO parents (name) VALUES ('h2')});
sync($local, 'office');
in_the_middle('moved away', q{DELETE FROM parents WHERE name = 'h2'}, q{BEGIN; UPDATE plain SET parent_id = (SELECT id FROM parents WHERE name = 'i') WHERE label LIKE 'h %';
	UPDATE children SET parent_id = (SELECT id FROM parents WHERE name = 'i') WHERE name LIKE 'h %'; DELETE FROM parents WHERE name = 'h'; COMMIT}, undef, 1);

# Where names are not unique on the remote, both rows bear it for a while; whoever refers to the name means the one that stays.
$remote->safe_psql('postgres', 'ALTER TABLE parents DROP CONSTRAINT parents_name_key');
$local->safe_psql('postgres', q{SELECT synchro.alter_table('parents', allow_many => true)});
$local->safe_psql('postgres', q{INSERT INTO parents (name) VALUES ('f2')});
sync($local, 'office');
family('f');
in_the_middle('many', q{DELETE FROM parents WHERE name = 'f2'},
	q{UPDATE parents SET name = 'f2' WHERE name = 'f'; UPDATE plain SET parent_id = (SELECT id FROM parents WHERE name = 'f2') WHERE label LIKE 'late 6000 %'});

$local->stop('fast');
$remote->stop('fast');
done_testing();
