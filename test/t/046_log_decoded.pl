# WHY: nothing of the log is for logical decoding. Its rows are inserted so, but segments were emptied by TRUNCATE, which is decoded, and
# which a publication FOR ALL TABLES carries: a subscriber without such a table stopped for good, and one that has the extension
# emptied its own log, with changes in it that its remotes had not got.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local', streaming => 'logical', conf => "synchro.log_retention = 0\n");
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE)');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('items', '{name}'); CREATE PUBLICATION everything FOR ALL TABLES});
$local->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('decoded', 'test_decoding'), pg_create_logical_replication_slot('published', 'pgoutput')});
foreach my $i (1 .. 4)
{
	$local->safe_psql('postgres', "INSERT INTO items (name) VALUES ('$i')");
	sync($local, 'office');
}
is(rows($local, q{SELECT sum(pg_relation_size(c)) FROM unnest('{synchro.log_0, synchro.log_1, synchro.log_2}'::regclass[]) c}), '0', 'the log was emptied');
unlike(rows($local, q{SELECT data FROM pg_logical_slot_get_changes('decoded', NULL, NULL)}), qr/synchro\.log_/, 'logical decoding shows nothing of the log');
is(rows($local, q{SELECT count(*) FROM pg_logical_slot_get_binary_changes('published', NULL, NULL, 'proto_version', '1', 'publication_names', 'everything')
	WHERE strpos(encode(data, 'escape'), 'log_') > 0}), '0', 'nor does a publication for all tables carry any of it');
$local->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots});
$_->stop('fast') foreach $local, $remote;
done_testing();
