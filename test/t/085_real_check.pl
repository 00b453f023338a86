# WHY: on an application's own schema check() has to be right as well: silent where all is well, though it has circles, trees, names
# that lead through five tables and tables without any name; and each thing that is wrong must be found in the table where it is,
# and nothing else, and be gone when its SQL has been run. A false alarm among 21 tables is one too many.
use strict;
use warnings;

use lib 'test/t';
use JSON::PP ();
use RealSchema;
use SynchroTest;
use Test::More;

# the harness turns these off
my ($here, $there) = real_pair(conf => "fsync = on\nfull_page_writes = on");

sub found
{
	return map { JSON::PP::decode_json($_) } split /\n/, $here->safe_psql('postgres', q{SELECT row_to_json(c) FROM synchro.check('there') c});
}

# Runs a fix as it is, on the side that it says; returns its side.
sub run_fix
{
	my ($fix) = @_;
	my $side = $fix =~ /^-- on remote "there"\n/ ? $there : $here;

	$side->safe_psql('postgres', $fix);
	return $side;
}

sub told
{
	return map { "$_->{severity}: " . ($_->{relation} // '') . ": $_->{problem}" } @_;
}

my @sound = ("info: : the library is not preloaded: changes are pushed by calls of synchronize() only",
	'info: shop.customer: tables shop.address, shop.customer refer to each other in a circle; their rows arrive, since a foreign key of it may be NULL or deferred');

#
# what it says of the schema as it is: foreign keys that no index begins with, as anyone can count them
#
my @found = found();
my $unindexed = rows($here, <<'SQL');
SELECT count(*) FROM pg_constraint f WHERE contype = 'f' AND connamespace = 'shop'::regnamespace AND NOT EXISTS (
	SELECT FROM pg_index i WHERE indrelid = conrelid AND (string_to_array(indkey::text, ' ')::int2[])[1:cardinality(conkey)] @> conkey)
SQL
cmp_ok($unindexed, '>', 15, 'foreign keys have no index');
foreach my $side ('', 'on remote "there": ')
{
	is(scalar(grep { $_->{severity} eq 'warning' && $_->{problem} =~ /^\Q$side\Eforeign key \S+ of table \Q$_->{relation}\E has no index/ } @found), $unindexed, "${side}all of them are found");
}
is_deeply([ sort(told(grep { $_->{problem} !~ /^(on remote "there": )?foreign key .* has no index/ } @found)) ], [ sort @sound ], 'and nothing else');
my %sides;
$sides{ run_fix($_->{fix})->name }++ foreach grep { $_->{severity} ne 'info' } @found;
is_deeply(\%sides, { here => $unindexed + 0, there => $unindexed + 0 }, 'their SQL can be run');
is_deeply([ sort(told(found())) ], [ sort @sound ], 'then the schema is sound');
$here->safe_psql('postgres', $REAL{more});
is(sync($here, 'there')->{failed}, 0, 'what is only here is pushed');
$here->safe_psql('postgres', $REAL{changes});
is_deeply([ sort(told(found())) ], [ sort @sound ], 'it is sound with changes that are pending');
is(sync($here, 'there')->{failed}, 0, 'and they are pushed');

#
# each of these is found, and its SQL mends it. Side, SQL, what is found; what mends it, where that is for somebody to decide;
# what is as true (an index that was dropped has been of use to a foreign key, too).
#
foreach my $case (
	[ $here, 'ALTER TABLE shop.address DROP CONSTRAINT address_customer_id_kind_key', qr/^warning: shop\.address: there is no unique index on the key \(customer_id, kind\) of table shop\.address$/, undef, qr/^warning: shop\.address: foreign key address_customer_id_fkey .* has no index/ ],
	[ $there, 'ALTER TABLE shop.product DROP CONSTRAINT product_brand_id_sku_key', qr/^warning: shop\.product: on remote "there": there is no unique index on the key \(brand_id, sku\)/, undef, qr/^warning: shop\.product: on remote "there": foreign key product_brand_id_fkey .* has no index/ ],
	[ $there, 'ALTER TABLE shop.shipment_line DROP CONSTRAINT shipment_line_pkey', qr/^warning: shop\.shipment_line: on remote "there": there is no unique index on the key \(shipment_id, order_id, line\)/, undef,
		qr/^warning: shop\.shipment_line: on remote "there": foreign key shipment_line_shipment_id_fkey .* has no index/ ],
	[ $there, 'ALTER TABLE shop.category DROP CONSTRAINT category_up_id_name_key, ADD UNIQUE (up_id, name)', qr/^warning: shop\.category: on remote "there": the key \(up_id, name\) of table shop\.category may hold NULL/ ],
	[ $here, q{SELECT synchro.remove_table('shop.country')},
		qr/^warning: shop\.warehouse: the key of table shop\.warehouse contains foreign key \S+ to table shop\.country, which has no natural key/, q{SELECT synchro.add_table('shop.country', '{code}')} ],
	[ $there, 'ALTER TABLE shop.employee DROP badge', qr/^error: shop\.employee: on remote "there": table shop\.employee has no column badge/, undef,
		qr/^warning: shop\.employee: on remote "there": (there is no unique index on|column badge of table)/ ],
	[ $there, 'DROP TABLE shop.review', qr/^error: shop\.review: on remote "there": there is no table shop\.review$/, undef, qr/has no index|role sync lacks|may not use sequence|are not unique/ ],
	[ $there, 'ALTER TABLE shop.price ALTER amount TYPE integer', qr/^warning: shop\.price: on remote "there": column amount of table shop\.price has type integer, not numeric/ ],
	[ $there, q{UPDATE shop.stock SET quantity = 0 WHERE quantity IS NULL; ALTER TABLE shop.stock ALTER quantity SET NOT NULL}, qr/^warning: shop\.stock: on remote "there": column quantity of table shop\.stock must not be NULL/ ],
	[ $there, q{ALTER TABLE shop.orders ADD bill text NOT NULL DEFAULT ''; ALTER TABLE shop.orders ALTER bill DROP DEFAULT}, qr/^error: shop\.orders: on remote "there": column bill of table shop\.orders must not be NULL, has no default/ ],
	[ $there, 'REVOKE DELETE ON shop.product_tag FROM sync', qr/^error: shop\.product_tag: on remote "there": role sync lacks DELETE on table shop\.product_tag$/ ],
	[ $there, 'REVOKE ALL ON SEQUENCE shop.payment_id_seq FROM sync', qr/^error: shop\.payment: on remote "there": role sync may not use sequence shop\.payment_id_seq/ ],
	[ $there, 'ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY', qr/^error: shop\.customer: on remote "there": row-level security of table shop\.customer is in the way/ ],
	[ $here, 'ALTER TABLE shop.order_line DISABLE TRIGGER synchro_capture', qr/^error: shop\.order_line: changes of table shop\.order_line are not all captured/ ],
	[ $here, 'DROP TRIGGER synchro_truncate ON shop.shelf', qr/^error: shop\.shelf: changes of table shop\.shelf are not all captured/ ],
	[ $here, 'DROP INDEX shop.shipment_shelf_id_idx', qr/^warning: shop\.shipment: foreign key shipment_shelf_id_fkey of table shop\.shipment has no index/ ],
	[ $there, 'DROP INDEX shop.shipment_line_order_id_line_idx', qr/^warning: shop\.shipment_line: on remote "there": foreign key shipment_line_order_id_line_fkey/ ],
	[ $here, 'ALTER TABLE shop.tag ALTER name TYPE text COLLATE "C"', qr/^info: shop\.tag: on remote "there": key column name of table shop\.tag has collation/, undef,
		qr/^info: shop\.product_tag: on remote "there": key column tag/ ],
	[ $here, 'ALTER TABLE shop.customer ALTER CONSTRAINT customer_main_address_fkey NOT DEFERRABLE; ALTER TABLE shop.customer ALTER main_address SET NOT NULL',
		qr/^warning: shop\.\w+: tables shop\.address, shop\.customer refer to each other in a circle without a way in/, q{ALTER TABLE shop.customer ALTER main_address DROP NOT NULL; ALTER TABLE shop.customer ALTER CONSTRAINT customer_main_address_fkey DEFERRABLE INITIALLY DEFERRED},
		qr/^info: shop\.customer: .*in a circle; their rows arrive/ ])
{
	my ($side, $sql, $expected, $by, $besides) = @$case;
	my %sound = map { $_ => 1 } @sound;

	$side->safe_psql('postgres', $sql);
	my @now = found();
	my @news = grep { !$sound{$_} && !($besides && $_ =~ $besides) } told(@now);

	ok(@news == 1 && $news[0] =~ $expected, "found, and nothing else: $sql") or diag(join "\n", "expected $expected", @news);

	# what else follows from it has SQL of its own, and some may show only when the worst is mended
	foreach my $round (1 .. 4)
	{
		my @bad = grep { my ($row) = told($_); !$sound{$row} } found();

		last if !@bad;
		if ($by) { $side->safe_psql('postgres', $by) }
		else { run_fix($_->{fix}) foreach @bad }
	}
	is_deeply([ sort(told(found())) ], [ sort @sound ], 'mended by its SQL');
}

#
# and so mended it works
#
$here->safe_psql('postgres', q{SELECT synchro.copy_table('there', relation) FROM synchro.tables WHERE relation <> 'shop.review'::regclass});
$here->safe_psql('postgres', q{SELECT synchro.reset('there'); UPDATE shop.review SET words = words; SELECT synchro.copy_table('there', relation) FROM synchro.tables WHERE mode <> 'reference'});
is(sync($here, 'there')->{failed}, 0, 'a copy of what has been mended');

# one of the fixes has made it more than an ordinary role
$there->safe_psql('postgres', 'ALTER ROLE sync NOBYPASSRLS');
$_->stop('fast') foreach $here, $there;
done_testing();
