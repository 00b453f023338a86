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
is(rows($local, q{SELECT string_agg(action, ' ' ORDER BY action) FROM synchro.preview('office')}), 'delete update', 'a preview of that');
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
like(rows($local, 'SELECT message FROM synchro.failures'), qr/^the row that had the name before may be referred to, which cannot be changed: permission denied for table public.there$/, 'with the reason');
is(rows($remote, q{SELECT what FROM there}), 'of ann', 'nothing is lost');
is(rows($remote, q{SELECT count(*) FROM customers WHERE email = 'fred'}), '1', 'others arrive');
on($remote, 'GRANT SELECT, UPDATE ON there TO sync');
merged('it may be changed');
is(rows($remote, q{SELECT email, what FROM there JOIN customers ON id = "o'dd ""($1)"}), 'emil|of ann', 'and is');
$_->stop('fast') foreach $local, $remote;

#
# What is in the way of moving them. Each case has tables of its own: x, and notes that refer to it.
#
$local = synchro_node('cases_local');
$remote = synchro_node('cases_remote');
both($local, $remote, join '', map { "CREATE TABLE x$_ (id serial PRIMARY KEY, email text UNIQUE NOT NULL, kind text NOT NULL DEFAULT 'p', boss_id int REFERENCES x$_ ON DELETE SET NULL, UNIQUE (kind, id));"
	  . "CREATE TABLE n$_ (id serial PRIMARY KEY, c int REFERENCES x$_ ON DELETE CASCADE, body text);" } 1 .. 9);
on($remote, map { "SELECT setval('x${_}_id_seq', 1000), setval('n${_}_id_seq', 1000)" } 1 .. 9);
connect_remote($local, $remote);
on($local, map { "SELECT synchro.add_table('x$_', '{email}'), synchro.add_table('n$_')" } 1 .. 9);
on($local, map { "INSERT INTO x$_ (email) VALUES ('ann'), ('bob'); UPDATE x$_ SET boss_id = 1 WHERE email = 'bob'; INSERT INTO n$_ (c, body) SELECT id, 'note of ' || email FROM x$_" } 1 .. 9);
sync($local, 'office');
on($remote, map { "INSERT INTO x$_ (email) VALUES ('carl'), ('dora')" } 1 .. 9);

sub renamed
{
	my ($i, $testname, $failed, $query, $expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	on($local, "UPDATE x$i SET email = 'carl' WHERE email = 'ann'");
	is(sync($local, 'office')->{failed}, $failed, "$testname: " . ($failed ? 'waits' : 'arrives')) or diag(rows($local, 'SELECT * FROM synchro.failures'));
	is(rows($remote, "SELECT string_agg(email || ': ' || body, ', ' ORDER BY body) FROM n$i JOIN x$i x ON x.id = c"),
		($failed ? 'ann' : 'carl') . ': note of ann, ' . ($i == 1 ? 'dora' : 'bob') . ': note of bob', "$testname: no note is lost");
	is(rows($remote, $query), $expected, "$testname: nor anything else") if $query;
	return;
}

on($local, q{BEGIN; UPDATE x1 SET email = 'carl' WHERE email = 'ann'; UPDATE x1 SET email = 'dora' WHERE email = 'bob'; COMMIT});
renamed(1, 'one of two refers to the other', 0, q{SELECT x.email, b.email FROM x1 x JOIN x1 b ON b.id = x.boss_id}, 'dora|carl');

on($remote, q{CREATE TABLE t2 (id serial PRIMARY KEY, kind text GENERATED ALWAYS AS ('p') STORED, c int, FOREIGN KEY (kind, c) REFERENCES x2 (kind, id) ON DELETE CASCADE);
	GRANT SELECT, INSERT, UPDATE, DELETE ON t2 TO sync; INSERT INTO t2 (c) SELECT id FROM x2 WHERE email = 'ann'});
renamed(2, 'a generated column in the foreign key', 0, 'SELECT email FROM t2 JOIN x2 x ON x.id = c', 'carl');

on($remote, q{CREATE TABLE t3 (c int REFERENCES x3); REVOKE ALL ON t3 FROM sync});
renamed(3, 'a table without rights that keeps rows from being deleted', 0);

on($remote, q{CREATE TABLE t4 (id serial PRIMARY KEY, c int REFERENCES x4 ON DELETE CASCADE, what text, def boolean); CREATE UNIQUE INDEX ON t4 (c) WHERE def; GRANT SELECT, INSERT, UPDATE, DELETE ON t4 TO sync;
	INSERT INTO t4 (c, what, def) SELECT id, 'of ' || email, true FROM x4 WHERE email IN ('ann', 'carl')});
renamed(4, 'a partial index', 1, q{SELECT string_agg(email || ' ' || what, ', ' ORDER BY what) FROM t4 JOIN x4 x ON x.id = c}, 'ann of ann, carl of carl');
like(rows($local, 'SELECT message FROM synchro.failures'), qr/^a row of t4 refers to the row that had the name before, and cannot be moved to the one that has it now: duplicate key value/, 'a partial index: with the reason');
on($remote, q{UPDATE t4 SET def = false WHERE what = 'of ann'});
is(sync($local, 'office')->{failed}, 0, 'a partial index: that is mended');
is(rows($remote, q{SELECT string_agg(email || ' ' || what, ', ' ORDER BY what) FROM t4 JOIN x4 x ON x.id = c}), 'carl of ann, carl of carl', 'a partial index: and both are there');

on($remote, q{CREATE TABLE t5 (id serial PRIMARY KEY, c int REFERENCES x5 ON DELETE CASCADE, n int); GRANT SELECT, INSERT, UPDATE, DELETE ON t5 TO sync;
CREATE FUNCTION renumber() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN UPDATE t5 SET n = n - 1 WHERE c = OLD.c AND n > OLD.n; RETURN NULL; END$$;
CREATE TRIGGER renumber AFTER UPDATE OF c ON t5 FOR EACH ROW EXECUTE FUNCTION renumber();
INSERT INTO t5 (c, n) SELECT id, i FROM x5, generate_series(1, 3) i WHERE email = 'ann'});
renamed(5, 'a trigger writes to those beside it', 0, q{SELECT email, count(*) FROM t5 JOIN x5 x ON x.id = c GROUP BY 1}, 'carl|3');

on($remote, q{CREATE TABLE seen (who text); GRANT SELECT, INSERT, UPDATE, DELETE ON seen TO PUBLIC; CREATE FUNCTION public.cardinality(text[]) RETURNS int LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.seen VALUES (current_user); RETURN pg_catalog.cardinality($1); END$$;
CREATE FUNCTION public.format(text, text, text, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.seen VALUES (current_user); RETURN pg_catalog.format($1, $2, $3, $4); END$$;
CREATE FUNCTION public.said(text[], text) RETURNS text[] LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.seen VALUES (current_user); RETURN pg_catalog.array_append($1, $2); END$$;
CREATE OPERATOR public.|| (LEFTARG = text[], RIGHTARG = text, FUNCTION = public.said)});
renamed(6, 'functions of the same names', 0, 'SELECT count(*) FROM seen', '0');

on($remote, q{CREATE TABLE t7 (id serial PRIMARY KEY, c int REFERENCES x7 ON DELETE CASCADE, what varchar(10), extra text); CREATE UNIQUE INDEX ON t7 (c, what) INCLUDE (extra);
	CREATE TABLE u7 (t int REFERENCES t7 ON DELETE CASCADE, what text); GRANT SELECT, INSERT, UPDATE, DELETE ON t7, u7 TO sync;
	INSERT INTO t7 (c, what, extra) SELECT id, 'tea', email FROM x7 WHERE email IN ('ann', 'carl'); INSERT INTO u7 SELECT id, 'below ' || extra FROM t7});
renamed(7, 'an index that includes a column', 0, q{SELECT string_agg(extra || ' ' || u7.what, ', ' ORDER BY u7.what) FROM u7 JOIN t7 ON t = t7.id}, 'carl below ann, carl below carl');

on($remote, q{CREATE TABLE t8 (c int REFERENCES x8 ON DELETE SET NULL, what text); GRANT SELECT, INSERT, UPDATE, DELETE ON t8 TO sync; INSERT INTO t8 SELECT id, 'mine' FROM x8 WHERE email = 'ann';
	CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER stay BEFORE UPDATE ON t8 FOR EACH ROW EXECUTE FUNCTION stay()});
renamed(8, 'a trigger that lets nothing change', 1, q{SELECT email, what FROM t8 LEFT JOIN x8 x ON x.id = c}, 'ann|mine');
on($remote, 'DROP TRIGGER stay ON t8');
is(sync($local, 'office')->{failed}, 0, 'a trigger that lets nothing change: gone, it arrives');

on($remote, q{CREATE TABLE t9 (c int REFERENCES x9 ON DELETE CASCADE, what text) PARTITION BY LIST (what); CREATE TABLE t9_a PARTITION OF t9 FOR VALUES IN ('a'); CREATE TABLE t9_b PARTITION OF t9 DEFAULT; GRANT SELECT, INSERT, UPDATE, DELETE ON t9 TO sync;
	CREATE UNIQUE INDEX ON t9 (c, what); INSERT INTO t9 SELECT id, w FROM x9, unnest('{a,b,c}'::text[]) w WHERE email = 'ann'; INSERT INTO t9 SELECT id, 'b' FROM x9 WHERE email = 'carl'});
renamed(9, 'partitions', 0, q{SELECT string_agg(email || ' ' || what, ', ' ORDER BY what) FROM t9 JOIN x9 x ON x.id = c}, 'carl a, carl b, carl c');
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
