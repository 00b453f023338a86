# WHY: a delete has been put on the list, then its table stalled. While it is left out, a row of another table refers to a new one of the deleted
# one's name, and takes the delete off the list. If the new one is deleted, too, before the table is mended, the row stays for good.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchro.batch_size = 10\n");
my $remote = synchro_node('remote');
both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int);
CREATE TABLE children (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent_id int REFERENCES parents);
CREATE TABLE filler (id serial PRIMARY KEY, n int NOT NULL UNIQUE, child_id int REFERENCES children);
SQL
$remote->safe_psql('postgres', "SELECT setval('${_}_id_seq', 1000)") foreach 'parents', 'children', 'filler';
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('parents', '{name}'), synchro.add_table('children', '{name}'), synchro.add_table('filler', '{n}');
	INSERT INTO parents (name, v) VALUES ('a', 1), ('b', 1)});
sync($local, 'office');

# the delete gets on the list with a first batch; the last one may not carry it out
$remote->safe_psql('postgres', 'REVOKE DELETE ON parents FROM sync');
$local->safe_psql('postgres', q{BEGIN; DELETE FROM parents WHERE name = 'a'; INSERT INTO filler (n) SELECT generate_series(1, 50); COMMIT});
sync($local, 'office');
is(rows($local, 'SELECT relation, key IS NULL FROM synchro.failures'), 'parents|t', 'the table stalls');
is(rows($remote, 'SELECT count(*) FROM synchro_peer.unapplied'), 1, 'the delete is on the list');

# from now on nothing of the table is tried with others
$remote->safe_psql('postgres', 'GRANT DELETE ON parents TO sync; ALTER TABLE parents RENAME v TO w');
$local->safe_psql('postgres', q{BEGIN; INSERT INTO parents (name, v) VALUES ('a', 2); INSERT INTO children (name, parent_id) SELECT 'new', id FROM parents WHERE name = 'a';
	INSERT INTO filler (n) SELECT generate_series(51, 100); COMMIT});
sync($local, 'office');
is(rows($remote, 'SELECT count(*) FROM synchro_peer.unapplied'), 1, 'the delete is on the list still');
$local->safe_psql('postgres', q{DELETE FROM children WHERE name = 'new'; DELETE FROM parents WHERE name = 'a'});
sync($local, 'office');
$remote->safe_psql('postgres', 'ALTER TABLE parents RENAME w TO v');
foreach my $time (1 .. 2)
{
	$local->safe_psql('postgres', 'SELECT synchro.retry()');
	sync($local, 'office');
}
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'mended: nothing waits');
same($local, $remote, 'SELECT name, v FROM parents ORDER BY 1', 'mended: all is the same');
$_->stop('fast') foreach $local, $remote;
done_testing();
