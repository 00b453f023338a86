# WHY: a row that is renamed may get a name that another row bears on the other side already. By natural key they are one row then,
# and what bore the former name there goes. All that refers to that one refers to the renamed row, as it does here; if it went along,
# by ON DELETE CASCADE, it would be lost on both nodes, without a word, and so would be what only the other side knows of.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use Nodes qw(:DEFAULT on);
use SynchroTest;
use Test::More;

my $schema = <<'SQL';
CREATE TABLE customers (id serial PRIMARY KEY, email text UNIQUE NOT NULL, name text, boss_id int REFERENCES customers ON DELETE SET NULL);
CREATE TABLE notes (id serial PRIMARY KEY, customer_id int REFERENCES customers ON DELETE CASCADE, body text);
CREATE TABLE orders (id serial PRIMARY KEY, customer_id int NOT NULL REFERENCES customers ON DELETE CASCADE, number int NOT NULL, n int, UNIQUE (customer_id, number));
CREATE TABLE items (id serial PRIMARY KEY, order_id int NOT NULL REFERENCES orders ON DELETE CASCADE, pos int NOT NULL, n int, UNIQUE (order_id, pos));
CREATE TABLE likes (customer_id int REFERENCES customers ON DELETE CASCADE, what text, PRIMARY KEY (customer_id, what));
SQL
my $all = q{SELECT 'customer' AS what, concat_ws(' ', c.email, c.name, b.email) FROM customers c LEFT JOIN customers b ON b.id = c.boss_id
	UNION ALL SELECT 'note', concat_ws(' ', email, body) FROM notes LEFT JOIN customers c ON c.id = customer_id
	UNION ALL SELECT 'order', concat_ws(' ', email, number, n) FROM orders JOIN customers c ON c.id = customer_id
	UNION ALL SELECT 'item', concat_ws(' ', email, number, pos, i.n) FROM items i JOIN orders o ON o.id = order_id JOIN customers c ON c.id = customer_id
	UNION ALL SELECT 'like', concat_ws(' ', email, l.what) FROM likes l JOIN customers c ON c.id = customer_id
	ORDER BY 1, 2};
my @watched = (customers => '{email}', notes => undef, orders => '{customer_id,number}', items => '{order_id,pos}', likes => '{customer_id,what}');

sub add_customer
{
	my ($email, $n) = @_;

	return "INSERT INTO customers (email, name) VALUES ('$email', 'customer $email'); INSERT INTO notes (customer_id, body) SELECT id, 'note of $email' FROM customers WHERE email = '$email';"
	  . "INSERT INTO orders (customer_id, number, n) SELECT id, i, $n FROM customers, generate_series(1, 2) i WHERE email = '$email';"
	  . "INSERT INTO items (order_id, pos, n) SELECT o.id, i, $n FROM orders o JOIN customers c ON c.id = customer_id, generate_series(1, 2) i WHERE email = '$email';"
	  . "INSERT INTO likes SELECT id, x FROM customers, unnest('{tea,$email}'::text[]) x WHERE email = '$email'";
}

sub rename_customer
{
	my ($from, $to) = @_;

	return "UPDATE customers SET email = '$to' WHERE email = '$from'";
}

#
# a remote that is no node
#
my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, $schema);
$remote->safe_psql('postgres', q{SELECT setval(x || '_id_seq', 1000) FROM unnest('{customers,notes,orders,items}'::text[]) x;
CREATE TABLE there ("o'dd ""($1)" int PRIMARY KEY REFERENCES customers ON DELETE CASCADE, what text)});
connect_remote($local, $remote);
watch([$local], @watched);
on($local, add_customer('ann', 1), add_customer('bob', 1), q{UPDATE customers SET boss_id = (SELECT id FROM customers WHERE email = 'ann') WHERE email = 'bob'});
sync($local, 'office');

sub merged
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sync($local, 'office')->{failed}, 0, "$testname: it arrives");
	is(rows($local, q{SELECT count(*) FROM synchro.verify('office')}), '0', "$testname: and all that refers to it");
	return same($local, $remote, $all, "$testname: both are the same");
}

$remote->safe_psql('postgres', q{INSERT INTO customers (email) VALUES ('carl'); GRANT SELECT, UPDATE ON there TO sync; INSERT INTO there SELECT id, 'of ' || email FROM customers WHERE email = 'ann'});
on($local, rename_customer('ann', 'carl'));
merged('the name is taken there');
is(rows($remote, q{SELECT email, what FROM there JOIN customers ON id = "o'dd ""($1)"}), 'carl|of ann', 'also what only the remote has');

# the other one has rows below it, of which some are the same by their keys
on($remote, q{INSERT INTO customers (email) VALUES ('dora'); INSERT INTO orders (customer_id, number, n) SELECT id, 1, 9 FROM customers WHERE email = 'dora'; INSERT INTO likes SELECT id, 'tea' FROM customers WHERE email = 'dora'});
on($local, rename_customer('carl', 'dora'));
is(sync($local, 'office')->{failed}, 0, 'with rows below it: it arrives') or diag(rows($local, 'SELECT * FROM synchro.failures'));
is(rows($local, q{SELECT relation, difference, columns FROM synchro.verify('office')}), 'orders|different|{n}', 'with rows below it: verify() shows what was another row, by the same name');
on($local, q{SELECT synchro.requeue('office')});
merged('with rows below it, sent again');

# what is deleted below it in the same batch is
on($remote, q{INSERT INTO customers (email) VALUES ('doris')});
on($local, q{BEGIN; DELETE FROM likes WHERE what = 'tea' AND customer_id = (SELECT id FROM customers WHERE email = 'dora'); DELETE FROM orders WHERE number = 2 AND customer_id = (SELECT id FROM customers WHERE email = 'dora');}
	. rename_customer('dora', 'doris') . '; COMMIT');
merged('with deletes below it');
on($local, rename_customer('doris', 'dora'));

# together with others, in batches of few rows
on($local, map { add_customer("c$_", $_) } 1 .. 10);
sync($local, 'office');
on($remote, map { "INSERT INTO customers (email) VALUES ('d$_')" } 1 .. 10);
on($local, q{UPDATE customers SET email = 'd' || substr(email, 2) WHERE email ~ '^c[0-9]'}, q{UPDATE notes SET body = body || ', changed'});
reload_with($local, 'synchro.batch_size' => 3);
merged('many, in small batches');
reload_with($local, 'synchro.batch_size' => 1000);

# what must not be moved holds up the renamed row, and nothing else
on($remote, q{REVOKE ALL ON there FROM sync; INSERT INTO customers (email) VALUES ('emil')});
on($local, rename_customer('dora', 'emil'), add_customer('fred', 1));
is(sync($local, 'office')->{failed}, 1, 'what the user may not change: the row waits');
is(rows($local, 'SELECT relation, operation, sqlstate FROM synchro.failures'), 'customers|update|23503', 'and is named');
like(rows($local, 'SELECT message FROM synchro.failures'), qr/^the row that had the name before is still referred to, which cannot be changed: permission denied for table there$/, 'with the reason');
is(rows($remote, q{SELECT what FROM there}), 'of ann', 'nothing is lost');
is(rows($remote, q{SELECT count(*) FROM customers WHERE email = 'fred'}), '1', 'others arrive');
on($remote, 'GRANT SELECT, UPDATE ON there TO sync');
merged('it may be changed');
is(rows($remote, q{SELECT email, what FROM there JOIN customers ON id = "o'dd ""($1)"}), 'emil|of ann', 'and is');
$_->stop('fast') foreach $local, $remote;

#
# nodes
#
foreach my $order ('a', 'b')
{
	my ($a, $b) = nodes({}, "a_$order", "b_$order");

	both($a, $b, $schema);
	$b->safe_psql('postgres', q{SELECT setval(x || '_id_seq', 1000) FROM unnest('{customers,notes,orders,items}'::text[]) x});
	watch([ $a, $b ], @watched);
	join_nodes($a, $b);
	on($a, map { add_customer($_, 1) } 'ann', 'bob', 'p', 'q');
	settle($a, $b);

	# A new row there, and one that was renamed there. Of two that were renamed to one name, what only refers to the one that was
	# renamed first is lost where the other one comes first.
	my $both = $order eq 'a' ? '' : ', z: note of q';

	on($b, add_customer('carl', 2), rename_customer('q', 'z'));
	on($a, rename_customer('ann', 'carl'), rename_customer('p', 'z'));
	settle($order eq 'a' ? ($a, $b) : ($b, $a));
	same($a, $b, $all, "$order first: both are the same");
	foreach my $node ($a, $b)
	{
		is(rows($node, q{SELECT string_agg(email || ': ' || body, ', ' ORDER BY email, body) FROM notes JOIN customers c ON c.id = customer_id}),
			"bob: note of bob, carl: note of ann, carl: note of carl, z: note of p$both", "$order first: all notes are there, on " . $node->name);
		is(rows($node, q{SELECT string_agg(email || ' ' || what, ', ' ORDER BY email, what) FROM likes JOIN customers c ON c.id = customer_id}),
			'bob bob, bob tea, carl ann, carl carl, carl tea, z p, z q, z tea', "$order first: and what they like");
	}
	is(rows($a, q{SELECT count(*) FROM synchro.verify('} . $b->name . q{')}), '0', "$order first: verify() finds nothing");
	$_->stop('fast') foreach $a, $b;
}

done_testing();
