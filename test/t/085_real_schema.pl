# WHY: small tables prove small things. Real schemas have trees of several kinds, many-to-many tables, composite keys that refer to
# composite keys, names that go through five tables, and tables without any name; and both databases have most of the data
# already, each under ids of its own. All of it at once must end the same on both sides, and verify() and manifest() must say so.
use strict;
use warnings;

use lib 'test/t';
use RealSchema;
use SynchroTest;
use Test::More;

my ($here, $there) = real_nodes();

is(rows($here, q{SELECT count(*), string_agg(DISTINCT mode, ', ' ORDER BY mode) FROM synchro.tables}), '21|natural key, primary key, reference', '21 tables are watched, in all modes');

# relation => rows and fingerprint
my $manifest = q{SELECT relation, rows, fingerprint FROM synchro.manifest('shop') ORDER BY relation::text};
# what differs must do so for a tenth of that: the remote might be about to push it
my $verify = q{SET synchro.verify_wait = '30s'; SELECT relation, key, difference, columns FROM synchro.verify('there') ORDER BY relation::text, key};

equal_for_verify($here, 'what both were loaded with is equal for verify()');
same($here, $there, $manifest, 'and for manifest()');
isnt(rows($here, q{SELECT string_agg(id || sku, ',' ORDER BY id) FROM shop.product}), rows($there, q{SELECT string_agg(id || sku, ',' ORDER BY id) FROM shop.product}), 'under other ids');

$here->safe_psql('postgres', $REAL{more});
is(sync($here, 'there')->{failed}, 0, 'what is only here is pushed');
equal_for_verify($here, 'verify() finds nothing');
same($here, $there, $manifest, 'manifest() is the same');

$here->safe_psql('postgres', $REAL{changes});
isnt(rows($here, $manifest), rows($there, $manifest), 'changes make another manifest');
is(sync($here, 'there')->{failed}, 0, 'changes are pushed');
equal_for_verify($here, 'verify() finds nothing');
same($here, $there, $manifest, 'manifest() is the same again');
same($here, $there, $REAL{contents}, 'and so is what can be read');
is(rows($there, 'SELECT count(*) FROM shop.product WHERE clicks <> 0'), '0', 'what is skipped is not there');

# and if something differs, deep down, both say so
$there->safe_psql('postgres', q{SET synchro.log_changes = off; UPDATE shop.shipment_line SET quantity = 9 WHERE (shipment_id, line) = (SELECT min(shipment_id), min(line) FROM shop.shipment_line)});
like(rows($here, $verify), qr/^shop\.shipment_line\|o\d+, \d, o\d+, \d, \d\|different\|\{quantity\}$/, 'a quantity that differs is found, by its whole name');
my %manifests = map { my $node = $_; $node->name => { map { split /\|/, $_, 2 } split /\n/, rows($node, $manifest) } } $here, $there;
is(join(' ', grep { $manifests{here}{$_} ne $manifests{there}{$_} } sort keys %{ $manifests{here} }), 'shop.shipment_line', 'in the manifest, too');
is(rows($here, q{SELECT synchro.requeue('there')}), '1', 'it is queued again');
sync($here, 'there');
same($here, $there, $manifest, 'and put right');

$_->stop('fast') foreach $here, $there;
done_testing();
