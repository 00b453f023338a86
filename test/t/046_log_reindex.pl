# WHY: an administrator rebuilds indexes concurrently, the log's along with all others. Until the new one takes the old one's
# place, somebody's long report has it wait, and transactions commit; the new index has to know of them, or passes that read by
# it leave them out, without an error, for ever.
use strict;
use warnings;

use lib 'test/t';
use SynchroNode;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchronous_commit = off\n");
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text NOT NULL UNIQUE)');
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name) VALUES ('first')});
sync($local, 'office');

my $report = $local->background_psql('postgres', on_error_stop => 1);
my $reindex = $local->background_psql('postgres', on_error_stop => 1);
my $writer = $local->background_psql('postgres', on_error_stop => 1);
my $waits = q{SELECT count(*) > 0 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for old snapshots'};
my $segment = 'synchro.log_' . rows($local, 'SELECT last_value FROM synchro.log_switch');

# open since before there was another index, and not written to the log yet
$writer->query_safe(q{BEGIN; INSERT INTO t (name) VALUES ('open')});
$report->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');
$reindex->query_until(qr/begun/, "\\echo begun\nREINDEX TABLE CONCURRENTLY $segment;\n\\echo done\n");
wait_for($local, q{SELECT count(*) > 0 FROM pg_stat_progress_create_index}, 'REINDEX has begun');
wait_for($local, $waits, 'it waits for the report');
$writer->query_safe('COMMIT');

# rows of both indexes: names that are lost, too
$local->safe_psql('postgres', <<'SQL');
DO $$ BEGIN FOR i IN 1..3000 LOOP INSERT INTO t (name) VALUES ('in between ' || i); COMMIT; END LOOP; END $$;
UPDATE t SET name = 'second' WHERE name = 'first';
SQL
$report->query_safe('COMMIT');
wait_for($local, 'SELECT count(*) = 0 FROM pg_stat_progress_create_index', 'REINDEX ends');
is(rows($local, 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), '0', 'its indexes are valid');

my $result = sync($local, 'office');

is("$result->{inserted}|$result->{updated}|$result->{failed}", '3001|1|0', 'all that has committed meanwhile is pushed, and renamed');
same($local, $remote, 'SELECT name FROM t ORDER BY name', 'both are the same');
is(rows($local, 'SELECT pending FROM synchro.remotes'), '0', 'nothing is pending');

# amcheck looks for each row of the table in a btree index
$local->safe_psql('postgres', 'CREATE EXTENSION amcheck');
is(rows($local, "SELECT bt_index_check(('$segment' || '_renames')::regclass, true)"), '', 'the index of names has all that it should');

$_->quit foreach $report, $writer;
$reindex->quit;
$_->stop('fast') foreach $local, $remote;
done_testing();
