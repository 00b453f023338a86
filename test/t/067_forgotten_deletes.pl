# WHY: deletes that the other side has refused, or that wait for a pass's end, are kept on that side. Whoever forgets what is
# pending means them too: carried out later, they take rows that are here again, and nothing in the log says so.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => 'synchro.batch_size = 100');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE item (id serial PRIMARY KEY, code text UNIQUE NOT NULL, v int);
CREATE TABLE note (id serial PRIMARY KEY, said text);
SQL
$remote->safe_psql('postgres', q{SELECT setval('note_id_seq', 1000); CREATE TABLE stranger (item int REFERENCES item)});
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('item', '{code}'), synchro.add_table('note'); INSERT INTO item (code) VALUES ('stays'); INSERT INTO note (said) VALUES ('stays')});
sync($local, 'office');

# A delete is refused, the row comes back, and what is pending is forgotten by some SQL.
sub forgotten
{
	my ($code, $forget, $testname) = @_;

	$local->safe_psql('postgres', "INSERT INTO item (code) VALUES ('$code')");
	sync($local, 'office');
	$remote->safe_psql('postgres', "INSERT INTO stranger SELECT id FROM item WHERE code = '$code'");
	$local->safe_psql('postgres', "DELETE FROM item WHERE code = '$code'");
	is(sync($local, 'office')->{failed}, 1, "$testname: a delete is refused");
	is(rows($remote, 'SELECT count(*) > 0 FROM synchro_peer.unapplied'), 't', 'and kept there');
	$local->safe_psql('postgres', "SET synchro.log_changes = off; INSERT INTO item (code) VALUES ('$code')");
	$local->safe_psql('postgres', $forget);
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'it is shown no more');
	$remote->safe_psql('postgres', 'TRUNCATE stranger');
	$local->safe_psql('postgres', q{UPDATE item SET v = coalesce(v, 0) + 1 WHERE code = 'stays'});
	sync($local, 'office') foreach 1 .. 2;
	same($local, $remote, 'SELECT code, v FROM item ORDER BY code', 'nor carried out');
	return;
}

forgotten('a', q{SELECT synchro.reset('office', keep_references => true)}, 'reset()');
is(rows($remote, 'SELECT count(*) FROM synchro_peer.reference'), 1, 'references are kept');
forgotten('b', q{SELECT synchro.set_checkpoint('office', now() + interval '1 s')}, 'set_checkpoint()');
forgotten('now', q{SELECT synchro.set_checkpoint('office', now())}, 'set_checkpoint() to now');
forgotten('clock', q{SELECT synchro.set_checkpoint('office', clock_timestamp())}, 'set_checkpoint() by the clock');
forgotten('c', q{SELECT synchro.reset('office', keep_references => true); SELECT synchro.confirm_node()}, 'reset(), and as another node');
forgotten('d', q{SELECT synchro.confirm_node(); SELECT synchro.reset('office', keep_references => true)}, 'as another node, and reset()');

forgotten('e', q{SELECT synchro.remove_remote('office'), synchro.add_remote('office')}, 'a remote that is added anew');

# what is not forgotten: deletes, when what was changed before is sent again
$local->safe_psql('postgres', q{INSERT INTO item (code) VALUES ('f')});
sync($local, 'office');
$remote->safe_psql('postgres', q{INSERT INTO stranger SELECT id FROM item WHERE code = 'f'});
$local->safe_psql('postgres', q{DELETE FROM item WHERE code = 'f'});
sync($local, 'office');
my $then = rows($local, 'SELECT clock_timestamp()');
$local->safe_psql('postgres', "SELECT synchro.set_checkpoint('office', '$then')");
$remote->safe_psql('postgres', 'TRUNCATE stranger');
sync($local, 'office');
same($local, $remote, 'SELECT code, v FROM item ORDER BY code', 'set_checkpoint() to the past forgets no delete');

# a table that cannot be pushed: what is pending of it is skipped, but not what its rows are called now
$local->safe_psql('postgres', q{INSERT INTO item (code) VALUES ('former')});
sync($local, 'office');
my $id = rows($remote, q{SELECT id FROM item WHERE code = 'former'});
my $v = rows($remote, q{SELECT v FROM item WHERE code = 'stays'});
$remote->safe_psql('postgres', 'REVOKE INSERT, UPDATE ON item FROM sync');
$local->safe_psql('postgres', q{UPDATE item SET code = 'renamed' WHERE code = 'former'; UPDATE item SET v = -1 WHERE code = 'stays'});
sync($local, 'office') foreach 1 .. 2;
is(rows($local, 'SELECT relation, sqlstate FROM synchro.failures'), 'item|42501', 'a table has stalled');
$local->safe_psql('postgres', q{SELECT synchro.set_checkpoint('office', now())});
$remote->safe_psql('postgres', 'GRANT INSERT, UPDATE ON item TO sync');
$local->safe_psql('postgres', q{UPDATE item SET v = 8 WHERE code = 'renamed'});
sync($local, 'office');
is(rows($remote, q{SELECT id, code, v FROM item WHERE code IN ('former', 'renamed')}), "$id|renamed|8", 'its renamed row is the one that it was');
is(rows($remote, q{SELECT v FROM item WHERE code = 'stays'}), $v, 'what was pending of it is not pushed');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'and it is like any other');

$_->stop('fast') foreach $local, $remote;
done_testing();
