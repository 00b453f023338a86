# WHY: synchro.atomic_pass is switched on while a batch with a bad row is being divided. From then on its parts were only tried, as if
# all were to be pushed in one transaction at the end; but the pass had begun otherwise, so nobody did, and the checkpoint moved on
# over them: these rows never arrived.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "synchro.batch_size = 10\n");
my $remote = synchro_node('remote');
both($local, $remote, 'CREATE TABLE filler (id serial PRIMARY KEY, n int NOT NULL UNIQUE)');
$remote->safe_psql('postgres', <<'SQL');
ALTER TABLE filler ADD CONSTRAINT no_9 CHECK (n <> 9);
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE TRIGGER gate AFTER INSERT ON filler FOR EACH ROW WHEN (NEW.n = 2) EXECUTE FUNCTION gate();
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('filler', '{n}')});

# the bad row fails before any trigger fires, so it is the first half that waits
my $gate = $remote->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(1)');
$local->safe_psql('postgres', 'INSERT INTO filler (n) SELECT generate_series(1, 100)');
my $caller = $local->background_psql('postgres');
$caller->query_until(qr/begun/, "\\echo begun\nSELECT * FROM synchro.synchronize('office');\n");
wait_for($remote, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 'in the middle');
reload_with($local, 'synchro.atomic_pass' => 'on');
$gate->quit;
$caller->quit;
sync($local, 'office');
is(rows($local, 'SELECT relation, key, sqlstate FROM synchro.failures'), 'filler|9|23514', 'one is refused');
is(rows($remote, 'SELECT count(*) FROM filler'), 99, 'all others are there');
is(rows($local, q{SELECT string_agg(key || ' ' || difference, ', ' ORDER BY key::int) FROM synchro.verify('office')}), '9 missing', 'verify finds no other');
$_->stop('fast') foreach $local, $remote;
done_testing();
