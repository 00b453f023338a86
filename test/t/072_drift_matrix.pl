# WHY: 072_drift has what goes wrong most often. Here is the rest of what can be done to a table, on either side: what is
# renamed, moved, retyped, or dropped and made again has more than one name or none, and whatever remembers a table by a
# name, an id or a type may then take it for another one. Values must not get into wrong columns, nor into wrong rows: in
# particular not where rows are found by stored references, which know nothing but ids.
#
#                       here                            on the remote
#   column added        072_drift                       "a column added there"
#   dropped             "a column dropped here"         072_drift
#   renamed             072_drift                       072_drift; "columns exchange their names there"
#   retyped             "retyped here"                  "retyped there", 072_drift (smaller)
#   of the key          "the key dropped here", "lost"  072_drift (renamed); "the key dropped there"
#   table renamed       "renamed here", "exchange"      072_drift
#   moved               "moved here"                    072_drift
#   missing             "dropped here"                  072_drift (a parent); "dropped there"
#   made again          "made again here"               "made again there"
#   trigger             072_triggers                    "of a node"
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1);
my $remote = synchro_node('remote');

# items are found by natural key, plain by stored reference
my $tables = <<'SQL';
CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash numeric, at timestamp, note text);
CREATE TABLE plain (id serial PRIMARY KEY, label text, n int);
SQL
both($local, $remote, "CREATE SCHEMA shop; CREATE TABLE others (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int); $tables");
$remote->safe_psql('postgres', q{SELECT setval('items_id_seq', 1000), setval('plain_id_seq', 2000)});
connect_remote($local, $remote, schemas => [ 'public', 'shop' ]);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('items', '{name}'), synchro.add_table('plain'), synchro.add_table('others', '{name}');
INSERT INTO items (name, cash, at, note) SELECT 'item ' || i, i, '2024-01-01', 'note ' || i FROM generate_series(1, 20) i;
INSERT INTO plain (label, n) SELECT 'plain ' || i, i FROM generate_series(1, 20) i;
INSERT INTO others (name, n) VALUES ('other', 0);
SQL
wait_arrival($remote, 'SELECT count(*) FROM items', '20', 'rows to begin with');

my $round = 0;
my $items = 'SELECT name, cash, at, note FROM items ORDER BY name';
my $plain = 'SELECT label, n FROM plain ORDER BY label, n';

sub others_go_on
{
	my ($testname) = @_;

	$round++;
	$local->safe_psql('postgres', "UPDATE others SET n = $round");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_arrival($remote, 'SELECT n FROM others', $round, "$testname: others go on");
	return;
}

sub settled
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', "$testname: it heals")
	  or diag(rows($local, q{SELECT relation, key, sqlstate, message FROM synchro.failures}));
	return;
}

sub fails_with
{
	my ($testname, $pattern) = @_;

	my $reason = q{SELECT concat_ws(' ', relation, 'key ' || key, sqlstate || ':', message, detail, 'HINT: ' || hint) FROM synchro.failures};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for($local, 'SELECT failed > 0 AND pending = 0 FROM synchro.remotes', "$testname: something has failed");

	# when it is tried again, the remote's definitions are looked at anew
	wait_for($local, 'SELECT min(attempts) > 1 FROM synchro.failures', "$testname: and is tried again");
	like(rows($local, $reason), $pattern, "$testname: with a reason");
	return;
}

sub here { return $local->safe_psql('postgres', $_[0]) }
sub there { return $remote->safe_psql('postgres', $_[0]) }

#
# columns
#
settled('to begin with');
there(q{ALTER TABLE items ADD more int, ADD own text DEFAULT 'own'});
here(q{INSERT INTO items (name) VALUES ('item 21'); UPDATE items SET note = 'changed' WHERE id = 1});
settled('a column added there');
same($local, $remote, $items, 'a column added there: all arrives');
is(rows($remote, q{SELECT more, own FROM items WHERE name = 'item 21'}), '|own', 'a column added there: is the remote\'s');
there(q{ALTER TABLE items ADD must int; UPDATE items SET must = 1; ALTER TABLE items ALTER must SET NOT NULL});
here(q{INSERT INTO items (name) VALUES ('item 22'); UPDATE items SET note = 'changed' WHERE id = 2});
fails_with('a column that must not be NULL added there', qr/^items key 22 23502: .*column "must" of relation "items" violates not-null.* HINT: No value is pushed for the column: give it a default there/);
is(rows($remote, q{SELECT note FROM items WHERE name = 'item 2'}), 'changed', 'a column that must not be NULL added there: rows that are there go on');
there('ALTER TABLE items DROP must, DROP more, DROP own');
settled('a column that must not be NULL added there');

there(q{UPDATE items SET note = 'the remote''s' WHERE name = 'item 3'});
here(q{ALTER TABLE items DROP note; UPDATE items SET cash = 30 WHERE id = 3});
settled('a column dropped here');
is(rows($remote, q{SELECT cash, note FROM items WHERE name = 'item 3'}), q{30|the remote's}, 'a column dropped here: is left alone there');
here(q{ALTER TABLE items ADD note text; UPDATE items SET note = 'new ' || id});
settled('a column dropped here, and made again');
same($local, $remote, $items, 'a column dropped here, and made again: is pushed again');

# what it is called there counts, at any moment
both($local, $remote, 'ALTER TABLE items ADD a text, ADD b text');
here(q{UPDATE items SET a = 'a ' || id, b = 'b ' || id});
settled('two columns');
there('BEGIN; ALTER TABLE items RENAME a TO c; ALTER TABLE items RENAME b TO a; ALTER TABLE items RENAME c TO b; COMMIT');
here(q{UPDATE items SET a = 'a! ' || id, b = 'b! ' || id});
settled('columns exchange their names there');
same($local, $remote, 'SELECT name, a, b FROM items ORDER BY name', 'columns exchange their names there: names decide');
here(q{SELECT synchro.pause('office'); UPDATE items SET a = 'a? ' || id, b = 'b? ' || id});
here('BEGIN; ALTER TABLE items RENAME a TO c; ALTER TABLE items RENAME b TO a; ALTER TABLE items RENAME c TO b; COMMIT');
here(q{UPDATE items SET a = 'a. ' || id WHERE id % 2 = 0; SELECT synchro.resume('office')});
settled('columns exchange their names here');
same($local, $remote, 'SELECT name, a, b FROM items ORDER BY name', 'columns exchange their names here: names decide');
both($local, $remote, 'ALTER TABLE items DROP a, DROP b');

# how rows are found is decided when a table is added: ids of ours are not taken for the remote's while a serial becomes an identity column
there(q{INSERT INTO plain (id, label, n) VALUES (6, 'own', 6)});
here(q{ALTER TABLE plain ALTER id DROP DEFAULT; UPDATE plain SET n = 30 + n WHERE id % 3 = 0; INSERT INTO plain (id, label, n) VALUES (300, 'given', 1)});
settled('a default dropped here');
here(q{ALTER TABLE plain ALTER id ADD GENERATED BY DEFAULT AS IDENTITY (START 600); UPDATE plain SET n = 30 + n WHERE id % 3 = 1});
settled('an identity column made here');
same($local, $remote, $plain =~ s/ORDER/WHERE label <> 'own' ORDER/r, 'a serial made an identity column: rows are found as before');
is(rows($remote, q{DELETE FROM plain WHERE id = 6 RETURNING label, n}), 'own|6', 'a serial made an identity column: and no others');
here(q{ALTER TABLE plain ALTER id DROP IDENTITY, ALTER id SET DEFAULT nextval('plain_id_seq')});

#
# types, of tables that a worker is connected to
#
here(q{UPDATE items SET cash = 1, at = '2024-02-01' WHERE id = 4});
settled('a small change');
foreach my $case (
	[ 'cash', 'integer', 'numeric', '2.5', '7', '22P02: .*invalid input syntax for type integer: "2.5"' ],
	[ 'at', 'date', 'timestamp', "'2024-03-01 10:00'", "'2024-03-02'", undef ],
	[ 'note', 'varchar(5)', 'text', "'too long'", "'short'", '22001: .*value too long' ],
	[ 'note', 'integer USING NULL', 'text', "'none'", "'7'", '22P02: .*invalid input syntax for type integer: "none"' ])
{
	my ($column, $type, $before, $bad, $good, $reason) = @$case;
	my $testname = "$column retyped there to $type";

	there("UPDATE items SET note = NULL WHERE '$type' LIKE 'varchar%'; ALTER TABLE items ALTER $column TYPE $type");
	here("INSERT INTO items (id, name, $column) VALUES (100, 'bad', $bad)");
	if (defined $reason)
	{
		fails_with($testname, qr/^items key 100 $reason.*It is the value of column "$column" of table public\.items, which is of type \w+.* on the remote.*HINT: Correct the value/);
		here("UPDATE items SET $column = $good WHERE id = 6");
		wait_for($local, 'SELECT pending = 0 FROM synchro.remotes', "$testname: others are pushed");
		is(rows($remote, "SELECT $column = $good FROM items WHERE name = 'item 6'"), 't', "$testname: values that fit arrive");
	}
	else
	{
		# the input of a date takes a time, too, and drops it: that is what the remote asks for
		settled($testname);
		is(rows($remote, "SELECT $column FROM items WHERE name = 'bad'"), '2024-03-01', "$testname: the day is right");
	}
	there("ALTER TABLE items ALTER $column TYPE $before");
	here("UPDATE items SET $column = $column; DELETE FROM items WHERE id = 100");
	others_go_on($testname);
	settled($testname);
}
here(q{UPDATE items SET note = 'n ' || id, at = '2024-03-03'});
settled('retyped there');
same($local, $remote, $items, 'retyped there: all is as it was');

here(q{ALTER TABLE items ALTER cash TYPE text USING cash || ' EUR'; UPDATE items SET cash = '7' WHERE id = 7; UPDATE items SET cash = 'much' WHERE id = 8});
fails_with('retyped here', qr/^items key 8 22P02: .*numeric: "much".*column "cash".* HINT: Correct the value here, or make the column's type there the same as here\./);
is(rows($remote, q{SELECT cash FROM items WHERE name = 'item 7'}), '7', 'retyped here: values that fit arrive');
there('ALTER TABLE items ALTER cash TYPE text');
settled('retyped here, and there');
here('UPDATE items SET cash = cash');
settled('retyped on both sides');
same($local, $remote, $items, 'retyped on both sides: all are the same');

# wider keys, the usual migration, while changes are pending; the history of row 500 is one, whatever the width of its entries
there(q{INSERT INTO items (name, note) VALUES ('coming and going', 'own')});
here(q{SELECT synchro.pause('office'); UPDATE items SET name = 'renamed ' || id WHERE id IN (9, 10); DELETE FROM items WHERE id = 11; UPDATE plain SET n = -1 WHERE id = 1; DELETE FROM plain WHERE id = 2});
here(q{INSERT INTO items (id, name) VALUES (500, 'coming and going'); UPDATE plain SET id = 502 WHERE id = 3});
is(rows($local, 'SELECT pending FROM synchro.remotes'), '8', 'keys retyped here: changes are pending');
here(q{ALTER TABLE items ALTER name TYPE varchar(100), ALTER id TYPE bigint; ALTER TABLE plain ALTER id TYPE bigint});
here(q{DELETE FROM items WHERE id = 500; UPDATE plain SET id = 503 WHERE id = 502; SELECT synchro.resume('office')});
settled('keys retyped here');
is(rows($remote, q{DELETE FROM items WHERE name = 'coming and going' RETURNING note}), 'own', 'keys retyped here: a row that came before and went after is none that the remote knows');
same($local, $remote, $items, 'keys retyped here: renames and deletes that were pending arrive');
same($local, $remote, $plain, 'keys retyped here: by reference, too');
is(rows($local, q{SELECT count(*) FROM plain WHERE id = 503}), '1', 'keys retyped here: also what has moved before and after');

# and narrower ones
here(q{SELECT synchro.pause('office'); UPDATE items SET name = 'renamed once more ' || id WHERE id = 9; INSERT INTO items (id, name) VALUES (500, 'coming and going')});
there(q{INSERT INTO items (name, note) VALUES ('coming and going', 'own')});
here(q{ALTER TABLE items ALTER id TYPE int; DELETE FROM items WHERE id = 500; SELECT synchro.resume('office')});
settled('keys retyped to narrower ones here');
is(rows($remote, q{DELETE FROM items WHERE name = 'coming and going' RETURNING note}), 'own', 'keys retyped to narrower ones here: a history is one');
same($local, $remote, $items, 'keys retyped to narrower ones here: all is as here');
here(q{ALTER TABLE items ALTER name TYPE text, ALTER id TYPE bigint});

# a table of which nothing is pending but names, so no row to try by itself, stalls alone, too
foreach my $case (
	[ 'renames only', 'UPDATE', 'items', q{UPDATE items SET name = name || '+' WHERE id BETWEEN 17 AND 19} ],
	[ 'deletes only', 'DELETE', 'items', q{DELETE FROM items WHERE id = 20} ],
	[ 'deletes by reference only', 'DELETE', 'plain', q{DELETE FROM plain WHERE id = 20} ])
{
	my ($testname, $right, $table, $change) = @$case;

	settled($testname);
	there("REVOKE $right ON $table FROM sync");
	$round++;
	here("BEGIN; $change; UPDATE others SET n = $round; COMMIT");
	wait_arrival($remote, 'SELECT n FROM others', $round, "$testname: what was changed with them arrives");
	fails_with($testname, qr/^$table 42501: .*permission denied for table $table/);
	others_go_on($testname);
	there("GRANT $right ON $table TO sync");
	settled($testname);
	same($local, $remote, $table eq 'items' ? $items : $plain, "$testname: all is done then");
}

# the column that rows are found by
there('ALTER TABLE items DROP name');
here(q{UPDATE items SET note = 'while it is gone' WHERE id = 12});
fails_with('the key dropped there', qr/^items 42703: table public\.items of remote "office" has no column "name" The column identifies the table's rows\. HINT: Make the table's definition there the same/);
others_go_on('the key dropped there');
there(q{TRUNCATE items; ALTER TABLE items ADD name text NOT NULL UNIQUE});
here(q{UPDATE items SET note = note || ''});
settled('the key dropped there');
same($local, $remote, $items, 'the key dropped there: all is there');
{
	my (undef, undef, $stderr) = $local->psql('postgres', 'ALTER TABLE items DROP name');

	like($stderr, qr/WARNING:  natural key of table "items" has lost its column "name".*HINT:  Name one with synchro\.register_natural_key/s, 'the key dropped here: a warning');
	here(q{UPDATE items SET note = 'nobody knows whose'});
	others_go_on('the key dropped here');
	is(rows($remote, q{SELECT count(*) FROM items WHERE note = 'nobody knows whose'}), '0', 'the key dropped here: nothing is pushed by another');
	here(q{ALTER TABLE items ADD name text; UPDATE items SET name = 'named ' || id; ALTER TABLE items ALTER name SET NOT NULL, ADD UNIQUE (name)});
	here(q{SELECT synchro.alter_table('items', '{name}'); UPDATE items SET note = 'mine'});
	settled('the key dropped here, and named again');
	same($local, $remote, q{SELECT name, note FROM items WHERE note = 'mine' ORDER BY name}, 'the key dropped here, and named again: rows are pushed by it');
	there(q{DELETE FROM items WHERE name NOT LIKE 'named %'});
}

# what is pending of a table waits for a key, and so does what refers to it: ids there are others
both($local, $remote, <<'SQL');
CREATE TABLE shelf (id serial PRIMARY KEY, code text NOT NULL UNIQUE, spare text NOT NULL UNIQUE);
CREATE TABLE book (id serial PRIMARY KEY, title text NOT NULL UNIQUE, shelf_id int REFERENCES shelf);
SQL
there(q{INSERT INTO shelf (code, spare) VALUES ('own', 'own')});
here(<<'SQL');
SELECT synchro.add_table('shelf', '{code}'), synchro.add_table('book', '{title}');
INSERT INTO shelf (code, spare) VALUES ('a', 'aa');
SQL
settled('two tables');
foreach my $case ([ 'its column', 'ALTER TABLE shelf DROP code', q{SELECT synchro.alter_table('shelf', '{spare}')}, 1 ],
	[ 'the primary key', 'ALTER TABLE book DROP CONSTRAINT book_pkey', 'ALTER TABLE book ADD PRIMARY KEY (id)', 0 ])
{
	my ($what, $lose, $name, $is_parent) = @$case;
	my $table = $is_parent ? 'shelf' : 'book';

	here(q{SELECT synchro.unregister_natural_key('book')}) if !$is_parent;
	here(q{SELECT synchro.pause('office')});
	wait_for($local, q{SELECT worker_pid IS NULL FROM synchro.remotes}, "$what lost here: the remote is paused");
	here($is_parent ? q{INSERT INTO shelf (code, spare) VALUES ('b', 'bb')} : q{INSERT INTO book (title, shelf_id) VALUES ('pending', 2)});
	my (undef, undef, $stderr) = $local->psql('postgres', $lose);
	like($stderr, qr/WARNING:  .*"$table" has lost its /, "$what lost here: a warning");
	here(q{INSERT INTO book (title, shelf_id) VALUES ('refers', 1)}) if $is_parent;
	here(q{SELECT synchro.resume('office')});
	fails_with("$what lost here", qr/^$table 55000: table public\.$table has lost its key Its rows, .* HINT: Add a primary key, or name another key/m);
	like(rows($local, 'SELECT relation, message FROM synchro.failures'), qr/^book\|table public\.shelf has lost its key$/m, "$what lost here: what refers to it waits") if $is_parent;
	others_go_on("$what lost here");
	there('ALTER TABLE shelf DROP code') if $is_parent;
	here($name);
	settled("$what lost here, and named again");
	same($local, $remote, q{SELECT spare FROM shelf WHERE spare <> 'own' ORDER BY 1}, "$what lost here, and named again: what was pending is there");
	same($local, $remote, q{SELECT title, spare FROM book JOIN shelf ON shelf.id = shelf_id ORDER BY title}, "$what lost here, and named again: under the right parent");
}
both($local, $remote, 'DROP TABLE book, shelf');

#
# tables that are called otherwise, or elsewhere
#
foreach my $case (
	[ 'renamed here', 'ALTER TABLE %s RENAME TO %s_2', 'public.%s_2', 'ALTER TABLE %s_2 RENAME TO %s' ],
	[ 'moved here', 'ALTER TABLE %s SET SCHEMA shop', 'shop.%s', 'ALTER TABLE shop.%s SET SCHEMA public' ])
{
	my ($testname, $break, $name, $back) = @$case;

	foreach my $table ('items', 'plain')
	{
		my ($text, $number) = $table eq 'items' ? ('note', 'cash') : ('label', 'n');
		my $now = $name =~ s/%s/$table/r;
		my $rename = $break =~ s/%s/$table/gr;

		here($rename);
		here("BEGIN; UPDATE $now SET $number = '70' WHERE id = 15; DELETE FROM $now WHERE id = 16; INSERT INTO $now ($text"
			  . ($table eq 'items' ? ', name' : '') . ") VALUES ('$testname'" . ($table eq 'items' ? ", '$testname'" : '') . '); COMMIT');
		fails_with("$table $testname", qr/^$now 42P01: remote "office" has no table $now HINT: Create the table there/) if $name =~ /shop/;
		fails_with("$table $testname", qr/42P01: remote "office" has no table $now HINT: Create the table there/) if $name !~ /shop/;
		others_go_on("$table $testname");
		there($rename);
		settled("$table $testname, and there");
		same($local, $remote, ($table eq 'items' ? $items : $plain) =~ s/FROM $table/FROM $now/r, "$table $testname, and there: one row each");

		# names go back while nobody is looking, and a delete is not done
		here(q{SELECT synchro.pause('office')});
		both($local, $remote, $back =~ s/%s/$table/gr);
		here("UPDATE $table SET $number = '71' WHERE id = 15; SELECT synchro.resume('office')");
		settled("$table $testname, and back");
		same($local, $remote, $table eq 'items' ? $items : $plain, "$table $testname, and back: one row each");
		here("INSERT INTO $table (id, $text" . ($table eq 'items' ? ', name' : '') . ") VALUES (16, 'again'" . ($table eq 'items' ? ", 'named 16'" : '') . ')');
		settled("$table $testname: a row again");
	}
}

# two tables exchange their names, here and there, and have rows with the same ids
both($local, $remote, 'CREATE TABLE flat (id serial PRIMARY KEY, label text, n int)');
here(q{SELECT synchro.add_table('flat'); INSERT INTO flat (label, n) SELECT 'flat ' || i, i FROM generate_series(1, 20) i});
settled('a third table');
both($local, $remote, 'BEGIN; ALTER TABLE flat RENAME TO other; ALTER TABLE plain RENAME TO flat; ALTER TABLE other RENAME TO plain; COMMIT');
here(q{UPDATE flat SET n = 100 + n WHERE id % 2 = 0; UPDATE plain SET n = 200 + n WHERE id % 2 = 1; DELETE FROM flat WHERE id = 4; DELETE FROM plain WHERE id = 5});
settled('tables exchange their names');
same($local, $remote, $plain, 'tables exchange their names: the one');
same($local, $remote, $plain =~ s/plain/flat/r, 'tables exchange their names: and the other');
is(rows($remote, q{SELECT count(*) FILTER (WHERE label LIKE 'flat %') > 10, count(*) FILTER (WHERE label LIKE 'plain %') FROM plain}), 't|0', 'tables exchange their names: each row is where it was');

# a delete that waits on the remote goes along with the name
there('CREATE TABLE own (flat_id int REFERENCES flat, plain_id int REFERENCES plain); INSERT INTO own VALUES ((SELECT min(id) FROM flat), (SELECT max(id) FROM plain))');
here('DELETE FROM flat WHERE label = ' . rows($remote, 'SELECT quote_literal(label) FROM flat ORDER BY id LIMIT 1'));
fails_with('a delete that waits', qr/^flat key \S+ 23503: .*foreign key constraint "own_flat_id_fkey"/);
both($local, $remote, 'ALTER TABLE flat RENAME TO even');
there('DELETE FROM own');
settled('a delete that waits, and its table renamed');
same($local, $remote, $plain =~ s/plain/even/r, 'a delete that waits, and its table renamed: is done');
both($local, $remote, 'ALTER TABLE even RENAME TO flat');

#
# tables that are gone, and made again
#
here('UPDATE flat SET n = n + 1');
settled('all are there');
there('DROP TABLE own, flat');
here(q{UPDATE flat SET n = 0 WHERE id = 10});
fails_with('dropped there', qr/^flat 42P01: remote "office" has no table public\.flat HINT: Create the table there/);
others_go_on('dropped there');

# its sequence begins anew: ids that our references lead to are soon those of other rows
my $anew = q{CREATE TABLE flat (id serial PRIMARY KEY, label text, n int)};
my $lowest = q{SELECT min(remote_key[1]::int) FROM synchro_peer.reference WHERE relation = 'public.flat'};

there("$anew; ALTER SEQUENCE flat_id_seq RESTART " . rows($remote, $lowest));
there(q{INSERT INTO flat (label, n) VALUES ('own', -1), ('own', -2)});
settled('made again there');
here(q{UPDATE flat SET n = 1000 + id});
settled('made again there, and all rows changed');
is(rows($remote, q{SELECT label, n FROM flat WHERE label = 'own' ORDER BY n}), "own|-2\nown|-1", 'made again there: rows of its own are not touched');
is(rows($remote, q{SELECT label, n FROM flat WHERE label <> 'own' ORDER BY 1, 2}), rows($local, 'SELECT label, n FROM flat ORDER BY 1, 2'), 'made again there: each row is there once');

# unnoticed, while a worker is connected
my $again = rows($remote, $lowest);

there("BEGIN; DROP TABLE flat; $anew; ALTER SEQUENCE flat_id_seq RESTART $again; INSERT INTO flat (label, n) VALUES ('own', -1); COMMIT");
here(q{UPDATE flat SET n = 2000 + id WHERE id % 2 = 0});
settled('made again there unnoticed');
here(q{UPDATE flat SET n = 2000 + id});
settled('made again there unnoticed, and all rows changed');
is(rows($remote, q{SELECT n FROM flat WHERE label = 'own'}), '-1', 'made again there unnoticed: its own row is not touched');
is(rows($remote, q{SELECT label, n FROM flat WHERE label <> 'own' ORDER BY 1, 2}), rows($local, 'SELECT label, n FROM flat ORDER BY 1, 2'), 'made again there unnoticed: each row is there once');
there(q{DELETE FROM flat WHERE label = 'own'});

# made anew of the old one: the rows are still those
there('BEGIN; ALTER TABLE flat RENAME TO old; CREATE TABLE flat (LIKE old INCLUDING ALL); INSERT INTO flat SELECT * FROM old; COMMIT');
here(q{UPDATE flat SET n = 3000 + id WHERE id % 3 = 0});
settled('rebuilt there');
same($local, $remote, $plain =~ s/plain/flat/r, 'rebuilt there: rows are the same');

# a table that is dropped here says nothing, and one that is made again is another one
my $before = rows($remote, $plain =~ s/plain/flat/r);

{
	my (undef, undef, $stderr) = $local->psql('postgres', 'UPDATE flat SET n = -1; DROP TABLE flat');

	like($stderr, qr/WARNING:  table public\.flat is not watched any more\nDETAIL:  It was dropped.*\nHINT:  If it is made again: SELECT synchro\.add_table\('public\.flat'\)\.$/m, 'dropped here: a warning');
}
others_go_on('dropped here');
settled('dropped here');
is(rows($local, q{SELECT count(*) FROM synchro.tables WHERE relation::text LIKE '%flat' OR relation::text ~ '^[0-9]+$'}), '0', 'dropped here: it is not watched any more');
here(q{CREATE TABLE flat (id serial PRIMARY KEY, label text, n int); INSERT INTO flat (label, n) VALUES ('early', 1), ('early', 2)});
others_go_on('made again here, and not watched as yet');
is(rows($local, q{SELECT remote, relation, key, operation, sqlstate, message, attempts, hint FROM synchro.failures}),
	'office|flat||all|55000|table public.flat is not watched, but one that had its name was|0|'
	. 'SELECT problem, fix FROM synchro.check() has the call that watches this one, and the one that says it is not to be.', 'made again here: a failure says why nothing of it is pushed');
is(rows($local, 'SELECT failed FROM synchro.remotes'), '1', 'made again here: it counts as failed');
is(rows($local, q{SELECT severity, relation, split_part(fix, E'\n', 1) FROM synchro.check() WHERE problem LIKE '%is not watched%'}),
	q{error|flat|SELECT synchro.add_table('public.flat');}, 'made again here: check() says so');
here(q{SELECT synchro.add_table('flat'); UPDATE flat SET n = n + 10; INSERT INTO flat (label, n) VALUES ('late', 3)});
settled('made again here');
is(rows($remote, q{SELECT label, n FROM flat WHERE label IN ('early', 'late') ORDER BY n}), "late|3\nearly|11\nearly|12", 'made again here: its rows arrive');
cmp_ok(rows($remote, q{SELECT count(*) FROM flat WHERE label NOT IN ('early', 'late')}), '>=', 18, 'made again here: the old one\'s are not taken for them');
here(q{UPDATE flat SET n = n + 10; DELETE FROM flat WHERE label = 'late'});
settled('made again here, and changed');
is(rows($remote, q{SELECT label, n FROM flat WHERE label IN ('early', 'late') ORDER BY n}), "early|21\nearly|22", 'made again here: and are found again');

# the same with a natural key: names tell which row is which
here(q{SELECT synchro.alter_table('items', skip => '{cash,at}')});
{
	my (undef, undef, $stderr) = $local->psql('postgres', 'DROP TABLE items');

	like($stderr, qr/WARNING:  table public\.items is not watched any more.*SELECT synchro\.add_table\('public\.items', natural_key => '\{name\}', skip => '\{cash,at\}'\)\.$/ms, 'items dropped here: a warning, with how it was watched');
}
here(q{CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, note text)});
here(q{INSERT INTO items (name, note) SELECT 'named ' || i, 'again' FROM generate_series(20, 15, -1) i; SELECT synchro.add_table('items', '{name}'); UPDATE items SET note = 'here again'});
settled('items made again here');
is(rows($remote, q{SELECT count(*), count(DISTINCT name) FROM items WHERE note = 'here again'}), '6|6', 'items made again here: rows are found by name');
is(rows($remote, q{SELECT count(*) - count(DISTINCT name) FROM items}), '0', 'items made again here: none is there twice');
there(q{BEGIN; DROP TABLE items; CREATE TABLE items (note text, name text NOT NULL UNIQUE, id serial PRIMARY KEY); COMMIT});
here(q{UPDATE items SET note = name});
settled('items made again there');
same($local, $remote, 'SELECT name, note FROM items ORDER BY name', 'items made again there: all is there, in its column');

#
# the trigger of a node that is pushed to
#
{
	my $node = synchro_node('node', preload => 1);

	$node->safe_psql('postgres', $tables . 'CREATE TABLE others (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int); CREATE EXTENSION synchro; CREATE ROLE sync LOGIN PASSWORD \'secret\'');
	$node->safe_psql('postgres', q{SELECT synchro.allow_peer('sync'), synchro.add_table('items', '{name}'), synchro.add_table('others', '{name}')});
	here(q{SELECT synchro.remove_remote('office'), synchro.remove_table('plain'), synchro.remove_table('flat')});
	connect_remote($local, $node, name => 'node', peer => 'none');
	here('UPDATE items SET note = note || \'\'; UPDATE others SET n = n');
	wait_arrival($node, 'SELECT count(*) FROM items', '6', 'of a node: rows arrive');
	foreach my $how ('ALTER TABLE items DISABLE TRIGGER synchro_capture', 'DROP TRIGGER synchro_capture ON items')
	{
		$node->safe_psql('postgres', "SET client_min_messages = error; $how");
		here(q{UPDATE items SET note = 'not yet'; UPDATE others SET n = n + 1});
		wait_for($local, q{SELECT concat_ws(' ', relation, sqlstate, message, hint) FROM synchro.failures}, "of a node, $how: the table stalls",
			expected => 'items 55000 remote "node": changes of table public.items are not captured: its trigger is missing or disabled'
			  . q{ Run there: SELECT synchro.alter_table('public.items').});
		wait_arrival($node, 'SELECT n FROM others', rows($local, 'SELECT n FROM others'), "of a node, $how: others go on");
		is(rows($node, q{SELECT count(*) FROM items WHERE note = 'not yet'}), '0', "of a node, $how: nothing is written behind its log's back");
		$node->safe_psql('postgres', q{SELECT synchro.alter_table('items')});
		wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', "of a node, $how: mended, it heals");
		is(rows($node, q{SELECT count(*) FROM items WHERE note = 'not yet'}), '6', "of a node, $how: all arrives");
		here(q{UPDATE items SET note = 'and on'});
		wait_for($local, 'SELECT failed = 0 AND pending = 0 FROM synchro.remotes', "of a node, $how: it goes on");
	}
	$node->stop('fast');
}

$local->stop('fast');
$remote->stop('fast');
done_testing();
