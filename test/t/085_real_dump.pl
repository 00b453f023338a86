# WHY: an application's database is dumped, moved and looked after by people without a shell. With 21 tables, in all modes, the
# restored one must know all that the original did, must not speak for it, and when it is let go must find each row of the remote
# again, those without any name included. And day by day a clerk's few rights must do for all of it.
use strict;
use warnings;

use lib 'test/t';
use RealSchema;
use SynchroTest;
use Test::More;

my ($here, $there) = real_pair();
my $other = synchro_node('other');

# as the README says
$here->safe_psql('postgres', <<'SQL');
CREATE ROLE clerk LOGIN;
GRANT EXECUTE ON FUNCTION synchro.synchronize(name), synchro.reset(name, boolean) TO clerk;
GRANT SELECT ON synchro.remotes TO clerk;
SQL

sub clerk
{
	my ($sql) = @_;

	return $here->safe_psql('postgres', $sql, extra_params => [ '-U', 'clerk' ]);
}

#
# daily work, with SQL alone
#
$here->safe_psql('postgres', $REAL{more});
my $pending = clerk('SELECT pending FROM synchro.remotes');
cmp_ok($pending, '>', 500, 'the clerk sees that changes are pending');
is(clerk('SELECT remote, inserted + updated, failed, message FROM synchro.synchronize()'), "there|$pending|0|Synchronization performed successfully.", 'and pushes them');
$there->safe_psql('postgres', 'ALTER TABLE shop.review ADD CONSTRAINT polite CHECK (words <> $$very good$$)');
$here->safe_psql('postgres', $REAL{changes});
is(clerk('SELECT failed > 0, message FROM synchro.synchronize()'), 't|Some changes could not be applied; see view synchro.failures.', 'sees that some were refused');
is(clerk('SELECT failed FROM synchro.remotes'), rows($here, 'SELECT count(*) FROM synchro.failures'), 'and how many');
$there->safe_psql('postgres', 'ALTER TABLE shop.review DROP CONSTRAINT polite');
is(clerk(q{SELECT failed, message FROM synchro.synchronize('there')}), '0|Synchronization performed successfully.', 'tries again when that is mended');
same($here, $there, $REAL{contents}, 'both hold the same');
$here->safe_psql('postgres', q{UPDATE shop.stock SET quantity = 3});
is(clerk(q{SELECT synchro.reset('there', keep_references => true); SELECT pending FROM synchro.remotes}), "\n0", 'forgets what is pending');
$there->safe_psql('postgres', q{UPDATE shop.stock SET quantity = 3});
is(clerk('SELECT message FROM synchro.synchronize()'), 'No changes since last synchronization.', 'so that nothing is pushed');
my ($status, undef, $stderr) = $here->psql('postgres', 'SELECT count(*) FROM shop.review', extra_params => [ '-U', 'clerk' ]);
like($stderr, qr/permission denied for schema shop/, 'and sees no row');

#
# dumped and restored
#
my $kept = <<'SQL';
SELECT 'table ' || x::text FROM synchro.tables x
UNION ALL SELECT 'key ' || concat_ws(' ', relation, columns, allow_many) FROM synchro.natural_key
UNION ALL SELECT 'remote ' || r::text FROM synchro.remote r
UNION ALL SELECT concat_ws(' ', 'mapping', srvname, usename) FROM pg_user_mappings
UNION ALL SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname, tgenabled, tgfoid::regproc) FROM pg_trigger WHERE tgname LIKE 'synchro%'
ORDER BY 1
SQL
my $file = $here->basedir . '/real.dump';
$here->safe_psql('postgres', q{UPDATE shop.orders SET at = at + interval '1 day' WHERE number = 'o33'});
$here->command_ok([ 'pg_dump', '-Fc', '-d', $here->connstr('postgres'), '-f', $file ], 'pg_dump');
$other->safe_psql('postgres', 'CREATE ROLE clerk; CREATE DATABASE restored');
$other->command_ok([ 'pg_restore', '--exit-on-error', '-d', $other->connstr('restored'), $file ], 'pg_restore');
same($here, $other, $kept, 'tables, keys, skips, remotes and triggers are the same', remote_db => 'restored');
same($here, $other, $REAL{contents}, 'so is what is in the tables', remote_db => 'restored');
is(rows($other, 'SELECT count(*), (SELECT state FROM synchro.node) FROM synchro.tables', 'restored'), '21|held', 'it watches, and is held');
sync_fails($other, 'there', qr/55000.*is a copy and does not push/s, 'and pushes nothing', dbname => 'restored');

# the original does not mind; then the copy takes its place
is(sync($here, 'there')->{updated}, 1, 'the original still pushes');
$here->stop('fast');
my $ids = q{SELECT 'p', id FROM shop.product UNION ALL SELECT 'r', id FROM shop.review UNION ALL SELECT 'y', id FROM shop.payment ORDER BY 1, 2};
my $before = rows($there, $ids);
$other->safe_psql('restored', q{SELECT synchro.confirm_node()});
$other->safe_psql('restored', q{UPDATE shop.review SET words = words || ' (restored)'; UPDATE shop.payment SET amount = amount + 1; UPDATE shop.country SET code = 'iceland' WHERE code = 'c9'; UPDATE shop.category SET name = 'restored' WHERE name = 'root1'});
my $result = sync($other, 'there', dbname => 'restored');
is("$result->{inserted} $result->{deleted} $result->{failed}", '0 0 0', 'confirmed, it pushes, and takes no row for a new one');
same($other, $there, $REAL{contents}, 'both hold the same', local_db => 'restored');
is(rows($there, $ids), $before, 'in the rows that were there');
$other->safe_psql('restored', q{INSERT INTO shop.review (product_id, answers, words) SELECT product_id, id, 'after' FROM shop.review WHERE answers IS NULL; DELETE FROM shop.orders WHERE number IN ('o11', 'o12')});
is(sync($other, 'there', dbname => 'restored')->{failed}, 0, 'it goes on');
same($other, $there, $REAL{contents}, 'and both hold the same', local_db => 'restored');

$_->stop('fast') foreach $other, $there;
done_testing();
