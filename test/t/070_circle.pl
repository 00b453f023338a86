# WHY: two new rows refer to each other, and were refused. When that is mended, each is pushed before the other, in turn, until it is deep
# enough, so each fails several times. Tried together then, each must be in the batch once, or they wait for ever.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');
both($local, $remote, <<'SQL');
CREATE TABLE heads (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int NOT NULL, tail_id int);
CREATE TABLE tails (id serial PRIMARY KEY, name text NOT NULL UNIQUE, v int NOT NULL, head_id int REFERENCES heads DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE heads ADD FOREIGN KEY (tail_id) REFERENCES tails DEFERRABLE INITIALLY DEFERRED;
SQL
$remote->safe_psql('postgres', q{SELECT setval('heads_id_seq', 1000), setval('tails_id_seq', 1000);
	ALTER TABLE heads ADD CONSTRAINT small CHECK (v < 100); ALTER TABLE tails ADD CONSTRAINT small CHECK (v < 100)});
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('heads', '{name}'), synchro.add_table('tails', '{name}');
	BEGIN; INSERT INTO heads (id, name, v, tail_id) VALUES (1, 'h', 1000, 1); INSERT INTO tails (id, name, v, head_id) VALUES (1, 't', 1000, 1); COMMIT});
sync($local, 'office');
is(rows($local, 'SELECT relation, operation FROM synchro.failures ORDER BY relation::text'), "heads|insert\ntails|insert", 'both wait');
$remote->safe_psql('postgres', 'ALTER TABLE heads DROP CONSTRAINT small; ALTER TABLE tails DROP CONSTRAINT small');
foreach my $time (1 .. 3)
{
	$local->safe_psql('postgres', 'SELECT synchro.retry()');
	sync($local, 'office');
}
is(rows($local, 'SELECT relation, key, attempts, message FROM synchro.failures ORDER BY relation::text'), '', 'mended: nothing waits');
same($local, $remote, 'SELECT h.name, t.name FROM heads h JOIN tails t ON t.id = h.tail_id AND h.id = t.head_id', 'mended: all is the same');
$_->stop('fast') foreach $local, $remote;
done_testing();
