# WHY: before a pass over a whole application's tables somebody wants to know what it will do to each row, with parents that are
# renamed, trees that move, pairs that go with what they join, rows that have lost and rows that are refused among each other. What
# is announced must be what is then done, table by table, and the announcement must leave no trace.
use strict;
use warnings;

use lib 'test/t';
use RealSchema;
use SynchroTest;
use Test::More;

my ($here, $there) = real_nodes(both => 1);

# what a pass writes there, as its triggers see it
$there->safe_psql('postgres', <<'SQL');
CREATE TABLE audit (relation text, operation text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN INSERT INTO public.audit VALUES (TG_TABLE_NAME, lower(TG_OP)); RETURN NULL; END$$;
DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r' LOOP
	EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION note()', t);
END LOOP; END $$;
SQL

my $position = q{SELECT synchro.checkpoint('there'), pending, state, inserted, updated, deleted, skipped, failed, last_success, last_error FROM synchro.remotes};

# relation|key|action|detail of all rows; nothing has changed by that
sub preview
{
	my ($testname) = @_;
	my @before = (everything($here), everything($there), rows($here, $position));
	my @said = sort split /\n/, $here->safe_psql('postgres', q{SELECT concat_ws('|', relation, coalesce(key, '-'), action, detail) FROM synchro.preview('there')});
	my @after = (everything($here), everything($there), rows($here, $position));

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($before[0] eq $after[0], "$testname: nothing is written here, and no sequence has moved on");
	ok($before[1] eq $after[1], "$testname: nor there");
	is($after[2], $before[2], "$testname: checkpoint, counts and what is pending stay");
	return @said;
}

# the same is done, by table and operation; returns how many rows of each action
sub keeps_its_word
{
	my ($testname, @said) = @_;
	my (%announced, %actions, %done);

	$there->safe_psql('postgres', 'TRUNCATE audit');
	my $result = sync($here, 'there');
	foreach my $row (@said)
	{
		my ($relation, undef, $action) = split /\|/, $row;

		$actions{$action}++;
		$announced{"$relation $action"}++ unless $action =~ /skip|fail/;
	}
	%done = map { /^(.*)\|(.*)$/ } split /\n/, rows($there, q{SELECT format('shop.%s %s', relation, operation), count(*) FROM audit GROUP BY 1 ORDER BY 1});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply(\%done, \%announced, "$testname: what was announced is done, in each table");
	is(join(' ', map { $result->{$_} } qw(inserted updated deleted skipped failed)), join(' ', map { $actions{$_} || 0 } qw(insert update delete skip fail)), "$testname: and counted so");
	return;
}

#
# new rows of all kinds
#
$here->safe_psql('postgres', $REAL{more});
my @said = preview('new rows');
is(scalar(grep { !/\|insert$/ } @said), 0, 'nothing but inserts') or diag(join "\n", grep { !/\|insert$/ } @said);
ok(scalar(grep { /^shop\.shipment_line\|o7, 1, o7, 1, 1\|insert$/ } @said), 'a row that is called after five tables');
ok(scalar(grep { m{^shop\.category\|root1, middle2, leaf2, deep\|insert$} } @said), 'a row of a tree, with its path');
keeps_its_word('new rows', @said);
same($here, $there, $REAL{contents}, 'both hold the same');

#
# a day's changes; the remote has newer ones of its own, and refuses some
#
$there->safe_psql('postgres', q{ALTER TABLE shop.payment ADD CONSTRAINT few CHECK (amount < 10000); ALTER TABLE shop.category ADD CONSTRAINT good CHECK (name <> 'bad');
	CREATE TABLE invoice (order_number int REFERENCES shop.orders); INSERT INTO invoice SELECT id FROM shop.orders WHERE number = 'o50'; GRANT SELECT, INSERT, UPDATE, DELETE ON invoice TO sync});
# but for the name of a tag: what the remote's own ON UPDATE CASCADE writes counts as its own, and a preview has no such rows
$here->safe_psql('postgres', $REAL{changes} =~ s/^UPDATE tag .*$//mr);
$here->safe_psql('postgres', <<'SQL');
SET search_path = shop;
UPDATE payment SET amount = 20000 WHERE order_id = (SELECT id FROM orders WHERE number = 'o10');
INSERT INTO category (up_id, name) SELECT id, 'bad' FROM category WHERE name = 'root2';
INSERT INTO category (up_id, name) SELECT id, 'below' FROM category WHERE name = 'bad';
INSERT INTO product_category SELECT p.id, c.id FROM product p, category c WHERE sku = 'sku4' AND c.name = 'below';
DELETE FROM orders WHERE number = 'o50';
UPDATE employee SET name = 'older' WHERE name IN ('employee 3', 'employee 4');
UPDATE stock SET quantity = 1;
SQL
$there->safe_psql('postgres', <<'SQL');
SET search_path = shop;
UPDATE employee SET name = 'newer' WHERE name = 'employee 3';
UPDATE stock SET quantity = 77 WHERE (shelf_id, product_id) = (SELECT min(shelf_id), min(product_id) FROM stock);
DELETE FROM employee WHERE badge = md5('e20')::uuid AND NOT EXISTS (SELECT FROM orders WHERE seller_id = employee.id);
SQL
@said = preview('changes');
my $all = join "\n", @said;
like($all, qr/^shop\.country\|austria\|update\|code: 'c1' -> 'austria'$/m, 'a name');
like($all, qr/^shop\.category\|root3, moved\|update\|up_id -> 'root3', name: 'middle1' -> 'moved'$/m, 'a branch of a tree that has moved');
like($all, qr/^shop\.employee\|\S+\|update\|manager_id -> NULL$/m, 'a root');
like($all, qr/^shop\.order_line\|o2, 1\|delete$/m, 'a row that goes with its parent');
like($all, qr/^shop\.employee\|\S+\|skip\|changed here .*, changed on the remote later, /m, 'a row that has lost');
like($all, qr/^shop\.stock\|.*\|skip\|/m, 'a pair that has lost');
like($all, qr/^shop\.payment\|\d+\|fail\|23514: .*few/m, 'a row that is refused');
like($all, qr/^shop\.category\|root2, bad\|fail\|23514: .*good/m, 'another one');
like($all, qr/^shop\.category\|root2, bad, below\|fail\|23503: /m, 'with what is below it');
like($all, qr/^shop\.product_category\|brand\d, sku4, root2, bad, below\|fail\|23503: /m, 'and beside it');
like($all, qr/^shop\.orders\|o50\|fail\|23503: .*invoice/m, 'a delete that is refused');
unlike($all, qr/^shop\.review\|.*\|fail/m, 'of rows that refer to each other and all go, none is in the way of another');
unlike($all, qr/clicks/, 'nothing of a column that is skipped');
is_deeply([ preview('looked at again') ], \@said, 'looked at again it says the same');
keeps_its_word('changes', @said);
is(rows($here, 'SELECT count(*) FROM synchro.failures'), scalar(grep { /\|fail\|/ } @said), 'what was said to fail is parked');

# mended, it goes through
$there->safe_psql('postgres', 'ALTER TABLE shop.payment DROP CONSTRAINT few; ALTER TABLE shop.category DROP CONSTRAINT good; DROP TABLE invoice');
keeps_its_word('mended', preview('mended'));
foreach my $round (1 .. 3)
{
	sync($there, 'here');
	sync($here, 'there');
}
same($here, $there, $REAL{contents}, 'both hold the same');
is(rows($here, q{SELECT count(*) FROM synchro.preview('there')}), '0', 'and there is nothing to be announced');

$_->stop('fast') foreach $here, $there;
done_testing();
