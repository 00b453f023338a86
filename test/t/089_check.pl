# WHY: whoever sets two databases up, or finds that something does not arrive, must be told what is in the way before
# rows are refused, and how it is mended. So each problem is made, must be seen, must go by the very SQL that check()
# gives, on the side that it says, and must leave nothing else: a check that cries wolf is not read.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use JSON::PP ();
use SynchroTest;
use Test::More;

# the harness turns these off, which are two of the problems; synchronous_commit is none
my $conf = "fsync = on\nfull_page_writes = on\nsynchronous_commit = off\n";
my $local = synchro_node('local', conf => $conf);
my $remote = synchro_node('remote', conf => $conf, streaming => 1);
our ($db, $name) = ('postgres', 'office');

# What check() says, as hashes.
sub found
{
	my $remote_name = defined $name ? "'$name'" : '';

	return map { JSON::PP::decode_json($_) } split /\n/, $local->safe_psql($db, "SELECT row_to_json(c) FROM synchro.check($remote_name) c");
}

# Nothing is in the way.
sub healthy
{
	my ($testname, @rows) = @_;
	my @bad = grep { $_->{severity} ne 'info' } @rows;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(scalar @bad, 0, "$testname: nothing is in the way");
	diag("$_->{severity}: $_->{problem}") foreach @bad;
	return;
}

# Runs a fix as it is, on the side that it says.
sub run_fix
{
	my ($fix) = @_;

	($fix =~ /^-- on remote "\Q$name\E"\n/ ? $remote : $local)->safe_psql($db, $fix);
	return;
}

# Problems that have nothing to do with each other. break: side and SQL, or a function; severity, table, problem, fix: of
# the row that is seen for it. When all fixes have been run (or by instead, where the fix is a comment), nothing is left.
sub mends
{
	my ($testname, @cases) = @_;
	my @fixes;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $case (@cases)
	{
		my ($side, $sql) = @{ $case->{break} || [ $local, 'SELECT' ] };

		ref $side eq 'CODE' ? $side->() : $side->safe_psql($db, $sql);
	}
	my @all = found();
	foreach my $case (@cases)
	{
		my @rows = grep { $_->{problem} =~ $case->{problem} } @all;

		unless (is(scalar @rows, 1, "$testname: seen: $case->{problem}"))
		{
			diag("$_->{severity}: $_->{problem}") foreach @all;
			next;
		}
		is($rows[0]{severity}, $case->{severity}, "$testname: severity");
		is($rows[0]{relation}, $case->{table}, "$testname: table");
		like($rows[0]{fix}, $case->{fix}, "$testname: fix");
		push @fixes, $case->{by} || $rows[0]{fix};
	}
	foreach my $fix (@fixes)
	{
		ref $fix ? $fix->[0]->safe_psql($db, $fix->[1]) : run_fix($fix);
	}
	@all = found();
	foreach my $case (@cases)
	{
		is(scalar(grep { $_->{problem} =~ $case->{problem} } @all), 0, "$testname: gone: $case->{problem}");
	}
	healthy($testname, @all);
	return;
}

my $there = qr/^-- on remote "office"\n/;

both($local, $remote, <<'SQL');
CREATE TABLE customers (id serial PRIMARY KEY, email text NOT NULL UNIQUE, name varchar(50), balance numeric(12,2) NOT NULL DEFAULT 0);
CREATE TABLE orders (id serial PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, number int NOT NULL, note text, UNIQUE (customer_id, number));
CREATE TABLE folders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent_id int REFERENCES folders, name text NOT NULL, note text, UNIQUE NULLS NOT DISTINCT (parent_id, name));
CREATE TABLE payments (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), customer_id int NOT NULL REFERENCES customers, amount numeric(12,2) NOT NULL);
CREATE INDEX ON payments (customer_id);
CREATE TABLE parts (code int, region text, note text, PRIMARY KEY (region, code)) PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TYPE state AS ENUM ('new', 'seen');
CREATE TABLE notes (id serial PRIMARY KEY, body text, state state);
SQL
$local->safe_psql('postgres', 'CREATE EXTENSION synchro');
{
	local $name = undef;
	healthy('nothing watched and no remote', found());
}

connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('customers', '{email}'), synchro.add_table('orders', '{customer_id, number}'), synchro.add_table('folders', '{parent_id, name}'),
	synchro.add_table('payments'), synchro.add_table('parts'), synchro.add_table('notes');
INSERT INTO customers (email) VALUES ('ann@example.com');
INSERT INTO orders (customer_id, number) VALUES (1, 1);
INSERT INTO folders (name) VALUES ('root');
INSERT INTO payments (customer_id, amount) VALUES (1, 5);
INSERT INTO parts VALUES (1, 'a');
INSERT INTO notes (body) VALUES ('a note');
SQL
healthy('before the first contact', found());
is( $local->safe_psql($db, q{SET quote_all_identifiers = on; SELECT problem FROM synchro.check('office')}),
	join("\n", map { $_->{problem} } found()), 'names are compared as they are, however the caller has them quoted');
is(sync($local, 'office')->{inserted}, 6, 'all arrives');
my $preload = "info: ALTER SYSTEM SET shared_preload_libraries = 'synchro';\n-- then restart the server";
is_deeply([ map { "$_->{severity}: $_->{fix}" } found() ], [$preload], 'a healthy set-up: one thing to know, nothing else');

mends('keys', {
	break => [ $local, 'ALTER TABLE customers DROP CONSTRAINT customers_email_key' ],
	severity => 'warning', table => 'customers', problem => qr/^there is no unique index on the key \(email\) of table public\.customers$/,
	fix => qr/^CREATE UNIQUE INDEX ON public\.customers \(email\);$/ }, {
	break => [ $remote, 'ALTER TABLE customers DROP CONSTRAINT customers_email_key' ],
	severity => 'warning', table => 'customers', problem => qr/^on remote "office": there is no unique index on the key \(email\) of table public\.customers$/,
	fix => qr/${there}CREATE UNIQUE INDEX ON public\.customers \(email\);$/ }, {
	break => [ $local, 'ALTER TABLE orders ALTER number DROP NOT NULL' ],
	severity => 'warning', table => 'orders', problem => qr/^the key \(customer_id, number\) of table public\.orders may hold NULL/,
	fix => qr/^CREATE UNIQUE INDEX ON public\.orders \(customer_id, number\) NULLS NOT DISTINCT;$/ }, {
	break => [ $remote, 'ALTER TABLE orders ALTER number DROP NOT NULL' ],
	severity => 'warning', table => 'orders', problem => qr/^on remote "office": the key \(customer_id, number\) of table public\.orders may hold NULL/,
	fix => qr/${there}CREATE UNIQUE INDEX ON public\.orders \(customer_id, number\) NULLS NOT DISTINCT;$/ }, {
	break => [ $remote, 'ALTER TABLE notes DROP CONSTRAINT notes_pkey' ],
	severity => 'warning', table => 'notes', problem => qr/^on remote "office": the primary key's columns \(id\) of table public\.notes are not unique/,
	fix => qr/${there}CREATE UNIQUE INDEX ON public\.notes \(id\);$/ }, {
	break => [ $remote, 'ALTER TABLE parts DROP CONSTRAINT parts_pkey' ],
	severity => 'warning', table => 'parts', problem => qr/^on remote "office": there is no unique index on the key \(region, code\) of table public\.parts$/,
	fix => qr/${there}CREATE UNIQUE INDEX ON public\.parts \(region, code\);$/ });

# what is equal on one side only
my $collation = q{CREATE COLLATION public.anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)};
my $differs = qr/^on remote "office": key column email of table public\.customers has collation/;
mends('a collation there', {
	break => [ $remote, "$collation; ALTER TABLE customers ALTER email TYPE text COLLATE anycase" ],
	severity => 'warning', table => 'customers', problem => qr/$differs public\.anycase, not pg_catalog\."default"/,
	fix => qr/${there}ALTER TABLE public\.customers ALTER COLUMN email TYPE text COLLATE pg_catalog\."default";$/ });
$remote->safe_psql('postgres', 'DROP COLLATION anycase');
mends('a collation here', {
	break => [ $local, "$collation; ALTER TABLE customers ALTER email TYPE text COLLATE anycase" ],
	severity => 'warning', table => 'customers', problem => qr/$differs pg_catalog\."default", not public\.anycase/,
	fix => qr/${there}CREATE COLLATION public\.anycase .*\nALTER TABLE public\.customers ALTER COLUMN email TYPE text COLLATE public\.anycase;$/ });
mends('another collation of the same name', {
	break => [ $remote, q{ALTER TABLE customers ALTER email TYPE text; DROP COLLATION anycase;
		CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level1', deterministic = false); ALTER TABLE customers ALTER email TYPE text COLLATE anycase} ],
	severity => 'warning', table => 'customers', problem => qr/$differs public\.anycase, not public\.anycase/,
	fix => qr/${there}-- collation public\.anycase is not there, or not as it is here: make it so first\n-- ALTER TABLE/,
	by => [ $remote, "ALTER TABLE customers ALTER email TYPE text; DROP COLLATION anycase; $collation; ALTER TABLE customers ALTER email TYPE text COLLATE anycase" ] });
both($local, $remote, 'ALTER TABLE customers ALTER email TYPE text COLLATE "default"');
mends('a collation that sorts differently', {
	break => [ $local, 'ALTER TABLE customers ALTER email TYPE text COLLATE "C"' ],
	severity => 'info', table => 'customers', problem => qr/$differs pg_catalog\."default", not pg_catalog\."C"$/,
	fix => qr/${there}ALTER TABLE public\.customers ALTER COLUMN email TYPE text COLLATE pg_catalog\."C";$/ });

# keys that lead through other tables
both($local, $remote, <<'SQL');
CREATE TABLE vendors (id serial PRIMARY KEY, name text NOT NULL, code text NOT NULL);
CREATE TABLE products (id serial PRIMARY KEY, vendor_id int NOT NULL REFERENCES vendors, code text NOT NULL, UNIQUE (vendor_id, code));
CREATE TABLE hens (id int PRIMARY KEY, egg_id int NOT NULL UNIQUE);
CREATE TABLE eggs (id int PRIMARY KEY, hen_id int NOT NULL UNIQUE);
SQL
$local->safe_psql('postgres', q{SELECT synchro.add_table('products', '{vendor_id, code}'), synchro.add_table('hens', '{egg_id}'), synchro.add_table('eggs', '{hen_id}')});
my $nameless = qr/^the key of table public\.products contains foreign key products_vendor_id_fkey to table public\.vendors, which has no natural key/;
like((grep { $_->{problem} =~ $nameless } found())[0]{fix},
	qr/^-- name the columns that identify a row: SELECT synchro\.register_natural_key\('public\.vendors', '\{\.\.\.\}'\);$/, 'a key through a table without one');
both($local, $remote, 'CREATE UNIQUE INDEX ON vendors (code)');
mends('a key through a table that could have one', {
	severity => 'warning', table => 'products', problem => $nameless,
	fix => qr/^SELECT synchro\.register_natural_key\('public\.vendors', '\{code\}'\);$/ });
both($local, $remote, 'DROP INDEX vendors_code_idx; ALTER TABLE vendors ADD CONSTRAINT one UNIQUE (name, code)');
$local->safe_psql('postgres', q{SELECT synchro.register_natural_key('vendors', '{name, code}')});
mends('a key that goes round in a circle', {
	break => [ $local, 'ALTER TABLE hens ADD FOREIGN KEY (egg_id) REFERENCES eggs; ALTER TABLE eggs ADD FOREIGN KEY (hen_id) REFERENCES hens DEFERRABLE' ],
	severity => 'error', table => 'eggs', problem => qr/^the key of table public\.eggs goes round in a circle/,
	fix => qr/^SELECT synchro\.unregister_natural_key\('public\.eggs'\);$/ });

# circles of foreign keys; what is said of them is true
is_deeply([ map { $_->{problem} . ' ' . $_->{fix} } grep { $_->{problem} =~ /circle/ } found() ],
	['tables public.eggs, public.hens refer to each other in a circle; their rows arrive, since a foreign key of it may be NULL or deferred -- nothing to do'],
	'a circle with a way in');
$local->safe_psql('postgres', q{SELECT synchro.unregister_natural_key('hens')});
$remote->safe_psql('postgres', 'ALTER TABLE hens ADD FOREIGN KEY (egg_id) REFERENCES eggs');
mends('a circle without a way in', {
	break => [ $local, 'ALTER TABLE eggs ALTER CONSTRAINT eggs_hen_id_fkey NOT DEFERRABLE' ],
	severity => 'warning', table => 'hens', problem => qr/^tables public\.eggs, public\.hens refer to each other in a circle without a way in/,
	fix => qr/^ALTER TABLE public\.hens ALTER CONSTRAINT hens_egg_id_fkey DEFERRABLE INITIALLY IMMEDIATE;$/ }, {
	break => [ $remote, 'ALTER TABLE eggs ADD FOREIGN KEY (hen_id) REFERENCES hens' ],
	severity => 'warning', table => 'hens', problem => qr/^on remote "office": tables public\.eggs, public\.hens refer to each other in a circle without a way in/,
	fix => qr/${there}ALTER TABLE public\.hens ALTER CONSTRAINT hens_egg_id_fkey DEFERRABLE INITIALLY IMMEDIATE;$/ });
both($local, $remote, 'ALTER TABLE hens ALTER CONSTRAINT hens_egg_id_fkey NOT DEFERRABLE');
$local->safe_psql('postgres', 'WITH h AS (INSERT INTO hens VALUES (1, 1)) INSERT INTO eggs VALUES (1, 1)');
is(sync($local, 'office')->{inserted}, 2, 'rows of such a circle arrive, too');
both($local, $remote, 'DROP TABLE hens, eggs CASCADE');

# one that takes the place of a watched table
my $crates = 'CREATE TABLE crates (id serial PRIMARY KEY, label text NOT NULL UNIQUE, note text)';
my %made_again = (
	severity => 'error', table => 'crates', problem => qr/^table public\.crates is not watched, but one that had its name was$/,
	fix => qr/^SELECT synchro\.add_table\('public\.crates', natural_key => '\{label\}', skip => '\{note\}'\);\n-- or, if it is not to be: SELECT synchro\.remove_table\('public\.crates'\);$/);
both($local, $remote, $crates);
$local->safe_psql('postgres', q{SELECT synchro.add_table('crates', '{label}', '{note}'); SET client_min_messages = error; SET quote_all_identifiers = on; DROP TABLE crates});
healthy('a watched table is dropped', found());
mends('and made again', { break => [ $local, $crates ], %made_again });
$local->safe_psql('postgres', q{INSERT INTO crates (label) VALUES ('blue')});
is(sync($local, 'office')->{inserted}, 1, 'watched again, its rows arrive');
mends('another one is renamed to it', {
	break => [ $local, 'SET client_min_messages = error; BEGIN; CREATE TABLE new_crates (LIKE crates INCLUDING ALL); DROP TABLE crates CASCADE; ALTER TABLE new_crates RENAME TO crates; COMMIT' ],
	%made_again, by => [ $local, q{SELECT synchro.remove_table('crates')} ] });
like(($local->psql('postgres', q{SELECT synchro.remove_table('crates')}))[2], qr/table "crates" is not watched/, 'what was dropped is forgotten');
# watched again as by a restore, and then no longer
$local->safe_psql('postgres', qq{SELECT synchro.add_table('crates', '{label}'); SET client_min_messages = error; DROP TABLE crates; $crates;
	INSERT INTO synchro.watched (relation) VALUES ('crates'); SELECT synchro.alter_table('crates'), synchro.remove_table('crates')});
healthy('what is removed is not mentioned any more', found());
$local->safe_psql('postgres', qq{SET client_min_messages = error; SELECT synchro.add_table('crates', '{label}', allow_many => true); DROP TABLE crates; $crates});
like(rows($local, q{SELECT fix FROM synchro.check() WHERE problem ~ 'crates is not watched'}), qr/^SELECT synchro\.add_table\('public\.crates', natural_key => '\{label\}', allow_many => true\);$/m,
	'watched again as it was');
$local->safe_psql('postgres', q{SELECT synchro.add_table('crates', '{label}'); SET client_min_messages = error; DROP TABLE crates; CREATE VIEW crates AS SELECT 1});
healthy('a view is no table', found());
$local->safe_psql('postgres', q{DROP VIEW crates; CREATE TABLE crates (code int, region text, note text, PRIMARY KEY (region, code));
	ALTER TABLE parts ATTACH PARTITION crates FOR VALUES IN ('crates')});
healthy('a partition is watched with its table', found());
$local->safe_psql('postgres', 'SET client_min_messages = error; ALTER TABLE parts DETACH PARTITION crates; DROP TABLE crates');
$remote->safe_psql('postgres', 'DROP TABLE crates');

# the same where the watched one is only renamed, or moved, and may be dropped later
my %took_its_name = (
	severity => 'error', table => 'swapped', problem => qr/^table public\.swapped is not watched, but one that had its name was$/,
	fix => qr/^SELECT synchro\.add_table\('public\.swapped', skip => '\{note\}'\);\n-- or, if it is not to be: SELECT synchro\.remove_table\('public\.swapped'\);$/);
both($local, $remote, 'CREATE TABLE swapped (name text PRIMARY KEY, n int, note text)');
$local->safe_psql('postgres', q{SELECT synchro.add_table('swapped', skip => '{note}')});
mends('a swap by renaming', {
	break => [ $local, 'SET client_min_messages = error; BEGIN; CREATE TABLE swapped_new (LIKE swapped INCLUDING ALL); ALTER TABLE swapped RENAME TO swapped_old; ALTER TABLE swapped_new RENAME TO swapped; COMMIT; DROP TABLE swapped_old' ],
	%took_its_name });
$local->safe_psql('postgres', q{INSERT INTO swapped VALUES ('n', 1)});
is(sync($local, 'office')->{inserted}, 1, 'its rows arrive when it is watched');
both($local, $remote, 'ALTER TABLE swapped RENAME TO renamed');
healthy('a table is renamed on both sides', found());
both($local, $remote, 'ALTER TABLE renamed RENAME TO swapped');
healthy('and back', found());
mends('a schema of its own', {
	break => [ $local, 'CREATE SCHEMA away; SET search_path = away, public; ALTER TABLE swapped SET SCHEMA away; CREATE TABLE public.swapped AS SELECT * FROM swapped' ],
	%took_its_name, by => [ $local, 'DROP TABLE public.swapped; ALTER TABLE away.swapped SET SCHEMA public' ] });
mends('a schema that is renamed', {
	break => [ $local, 'ALTER TABLE public.swapped SET SCHEMA away; ALTER SCHEMA away RENAME TO far; CREATE SCHEMA away CREATE TABLE swapped (name text PRIMARY KEY, n int)' ],
	severity => 'error', table => 'away.swapped', problem => qr/^table away\.swapped is not watched, but one that had its name was$/, fix => qr/^SELECT synchro\.add_table\('away\.swapped', skip => '\{note\}'\);/,
	by => [ $local, 'DROP TABLE away.swapped; ALTER TABLE far.swapped SET SCHEMA public; DROP SCHEMA away, far' ] });
$local->safe_psql('postgres', q{SELECT synchro.remove_table('swapped'); DROP TABLE swapped});
$remote->safe_psql('postgres', 'DROP TABLE swapped');

# tables and columns that are not the same
mends('definitions', {
	break => [ $remote, 'ALTER TABLE customers DROP name' ],
	severity => 'error', table => 'customers', problem => qr/^on remote "office": table public\.customers has no column name$/,
	fix => qr/${there}ALTER TABLE public\.customers ADD COLUMN name character varying\(50\);$/ }, {
	break => [ $remote, 'ALTER TABLE orders ALTER note TYPE varchar(3)' ],
	severity => 'warning', table => 'orders', problem => qr/^on remote "office": column note of table public\.orders has type character varying\(3\), not text$/,
	fix => qr/${there}ALTER TABLE public\.orders ALTER COLUMN note TYPE text USING note::text;$/ }, {
	break => [ $remote, 'ALTER TABLE orders ALTER number TYPE bigint' ],
	severity => 'info', table => 'orders', problem => qr/^on remote "office": column number of table public\.orders has type bigint, not integer$/,
	fix => qr/${there}ALTER TABLE public\.orders ALTER COLUMN number TYPE integer USING number::integer;$/ }, {
	break => [ $remote, q{UPDATE folders SET note = ''; ALTER TABLE folders ALTER note SET NOT NULL} ],
	severity => 'warning', table => 'folders', problem => qr/^on remote "office": column note of table public\.folders must not be NULL, as it may be here$/,
	fix => qr/${there}ALTER TABLE public\.folders ALTER COLUMN note DROP NOT NULL;$/ }, {
	break => [ $local, q{ALTER TYPE state ADD VALUE 'it''s gone'} ],
	severity => 'warning', table => 'notes', problem => qr/^on remote "office": type public\.state of column state of table public\.notes lacks the value 'it''s gone'$/,
	fix => qr/${there}ALTER TYPE public\.state ADD VALUE IF NOT EXISTS 'it''s gone';$/ }, {
	break => [ $remote, q{ALTER TABLE payments ADD account text NOT NULL DEFAULT ''; ALTER TABLE payments ALTER account DROP DEFAULT} ],
	severity => 'error', table => 'payments', problem => qr/^on remote "office": column account of table public\.payments must not be NULL, has no default, and is not pushed/,
	fix => qr/${there}ALTER TABLE public\.payments ALTER COLUMN account DROP NOT NULL;$/ }, {
	break => [ $remote, 'DROP TABLE vendors CASCADE; ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE USAGE ON SEQUENCES FROM sync' ],
	severity => 'error', table => 'vendors', problem => qr/^on remote "office": there is no table public\.vendors$/,
	fix => qr/${there}CREATE SCHEMA IF NOT EXISTS public;\nCREATE TABLE public\.vendors .*\n-- without foreign keys, defaults and checks: pg_dump --schema-only --table=public\.vendors.*\nDO \$grant\$BEGIN EXECUTE .*\('public\.vendors', 'id'\), 'sync'\); END\$grant\$;$/s });
$local->safe_psql('postgres', q{UPDATE customers SET name = 'Ann'; INSERT INTO vendors (name, code) VALUES ('acme', 'a'); INSERT INTO products (vendor_id, code) VALUES (1, 'x'); INSERT INTO payments (customer_id, amount) VALUES (1, 6)});
is(sync($local, 'office')->{failed}, 0, 'and rows are taken');
same($local, $remote, 'SELECT p.code, v.code FROM products p JOIN vendors v ON v.id = p.vendor_id', 'by the table that was made, too');
$remote->safe_psql('postgres', 'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO sync');

# a column of the key that was renamed here: what weakens the remote is not to be run unread
{
	$local->safe_psql('postgres', 'ALTER TABLE vendors RENAME code TO kode');
	is_deeply([ map { $_->{fix} } grep { ($_->{relation} // '') eq 'vendors' && $_->{fix} !~ /^-- on remote "office"\n-- / } found() ], [], 'a renamed key column: nothing is to be run as it is')
	  or diag(map { "$_->{problem}\n$_->{fix}\n" } found());
	$local->safe_psql('postgres', 'ALTER TABLE vendors RENAME kode TO code');
}

# what is good to know of a key
{
	both($local, $remote, 'CREATE TABLE groups (id serial PRIMARY KEY, name text NOT NULL UNIQUE)');
	grant_dml($remote);
	$local->safe_psql('postgres', q{SELECT synchro.add_table('groups')});
	is_deeply([ map { "$_->{severity}: $_->{problem}\n$_->{fix}" } grep { ($_->{relation} // '') eq 'groups' } found() ], [
		"info: rows of table public.groups are found by stored references, though (name) is unique: those that were on both sides before are not found\n-- if they are to be: SELECT synchro.alter_table('public.groups', natural_key => '{name}');" ],
		'a unique key that nobody has named');
	$local->safe_psql('postgres', q{SELECT synchro.remove_table('groups')});
	$_->safe_psql('postgres', 'DROP TABLE groups') foreach $local, $remote;
}

# what the remote refuses though no definition tells why, and a table of which nothing can be pushed
$remote->safe_psql('postgres', 'ALTER TABLE payments ADD CHECK (amount < 10); ALTER TABLE notes RENAME body TO text');
$local->safe_psql('postgres', q{INSERT INTO payments (customer_id, amount) VALUES (1, 11), (1, 12); INSERT INTO notes (body) VALUES ('another')});
is(sync($local, 'office')->{failed}, 3, 'two rows are refused, and all of another table');
foreach my $remotes ('office', undef)
{
	local $name = $remotes;
	is_deeply([ map { "$_->{severity} $_->{relation}: $_->{problem}\n$_->{fix}" } grep { $_->{problem} =~ /take|nothing/ } found() ],
		[ map { "error $_->[0]: $_->[1]\n-- see why, and mend that (it is tried again by itself): SELECT * FROM synchro.failures WHERE remote = 'office' AND relation = 'public.$_->[0]'::regclass;" }
			[ 'notes', 'nothing of table public.notes can be pushed to remote "office"' ], [ 'payments', 'changes of table public.payments that remote "office" does not take: 2' ] ],
		'what is refused is told' . (defined $name ? '' : ', of all remotes'));
}
$remote->safe_psql('postgres', 'ALTER TABLE payments DROP CONSTRAINT payments_amount_check; ALTER TABLE notes RENAME text TO body');
$local->safe_psql('postgres', q{SELECT synchro.retry()});
is(sync($local, 'office')->{failed}, 0, 'and taken when the causes are gone');
healthy('after that', found());

# what a push needs of a table, and what makes values that it does not bring
both($local, $remote, 'CREATE TABLE codes (code text PRIMARY KEY); CREATE TABLE words (word text PRIMARY KEY, n int); CREATE TABLE tags (id serial PRIMARY KEY, tag text NOT NULL UNIQUE, note text); CREATE TABLE texts (line text PRIMARY KEY)');
$local->safe_psql('postgres', q{SELECT synchro.add_table('codes'), synchro.add_table('words'), synchro.add_table('tags', '{tag}'), synchro.add_table('texts')});
mends('what a push needs', {
	break => [ $remote, 'ALTER TABLE words RENAME TO all_words; CREATE VIEW words AS SELECT * FROM all_words' ],
	severity => 'error', table => 'words', problem => qr/^on remote "office": public\.words is a view, where a table is needed$/,
	fix => qr/${there}-- rename the view, and let the table that it shows be called public\.words$/,
	by => [ $remote, 'DROP VIEW words; ALTER TABLE all_words RENAME TO words' ] }, {
	break => [ $remote, 'ALTER TABLE tags ADD spelt text, DROP tag; ALTER TABLE tags ADD tag text NOT NULL UNIQUE GENERATED ALWAYS AS (lower(spelt)) STORED' ],
	severity => 'error', table => 'tags', problem => qr/^on remote "office": column tag of table public\.tags is generated, but identifies its rows$/,
	fix => qr/${there}ALTER TABLE public\.tags ALTER COLUMN tag DROP EXPRESSION;$/ }, {
	break => [ $remote, 'ALTER TABLE codes DROP CONSTRAINT codes_pkey; ALTER TABLE codes ADD UNIQUE (code), ADD "Id" int PRIMARY KEY' ],
	severity => 'error', table => 'codes', problem => qr/^on remote "office": column "Id" of table public\.codes must not be NULL, has no default, and is not pushed/,
	fix => qr/${there}ALTER TABLE public\.codes ALTER COLUMN "Id" ADD GENERATED BY DEFAULT AS IDENTITY \(SEQUENCE NAME public\."codes_Id_seq"\);\nSELECT setval\(.*;\nGRANT USAGE ON SEQUENCE public\."codes_Id_seq" TO sync;$/ }, {
	break => [ $remote, 'ALTER TABLE texts DROP CONSTRAINT texts_pkey; ALTER TABLE texts ADD UNIQUE (line), ADD key uuid PRIMARY KEY' ],
	severity => 'error', table => 'texts', problem => qr/^on remote "office": column key of table public\.texts must not be NULL, has no default, and is not pushed/,
	fix => qr/${there}ALTER TABLE public\.texts ALTER COLUMN key SET DEFAULT gen_random_uuid\(\);$/ }, {
	break => [ $remote, 'CREATE DOMAIN filled AS text NOT NULL; ALTER TABLE tags ADD mark filled' ],
	severity => 'error', table => 'tags', problem => qr/^on remote "office": column mark of table public\.tags must not be NULL, has no default, and is not pushed/,
	fix => qr/${there}ALTER DOMAIN public\.filled DROP NOT NULL;$/ });
$local->safe_psql('postgres', q{INSERT INTO codes VALUES ('a'); INSERT INTO words VALUES ('a'); INSERT INTO tags (tag) VALUES ('a'); INSERT INTO texts VALUES ('a')});
is(sync($local, 'office')->{inserted}, 4, 'and rows arrive');
$local->safe_psql('postgres', q{SELECT synchro.remove_table(t) FROM unnest('{codes,words,tags,texts}'::regclass[]) t});
both($local, $remote, 'DROP TABLE codes, words, tags, texts');

# rights and policies on the remote
mends('rights there', {
	break => [ $remote, 'REVOKE INSERT, DELETE ON orders FROM sync' ],
	severity => 'error', table => 'orders', problem => qr/^on remote "office": role sync lacks INSERT, DELETE on table public\.orders$/,
	fix => qr/${there}GRANT INSERT, DELETE ON public\.orders TO sync;$/ }, {
	break => [ $remote, 'REVOKE ALL ON vendors FROM sync' ],
	severity => 'error', table => 'vendors', problem => qr/^on remote "office": role sync lacks SELECT, INSERT, UPDATE, DELETE on table public\.vendors$/,
	fix => qr/${there}GRANT SELECT, INSERT, UPDATE, DELETE ON public\.vendors TO sync;$/ }, {
	break => [ $remote, 'REVOKE ALL ON SEQUENCE orders_id_seq FROM sync' ],
	severity => 'error', table => 'orders', problem => qr/^on remote "office": role sync may not use sequence public\.orders_id_seq of table public\.orders$/,
	fix => qr/${there}GRANT USAGE ON SEQUENCE public\.orders_id_seq TO sync;$/ }, {
	break => [ $remote, 'REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC, sync' ],
	severity => 'error', table => undef, problem => qr/^on remote "office": role sync may not make temporary tables$/,
	fix => qr/${there}GRANT TEMPORARY ON DATABASE postgres TO sync;$/ }, {
	break => [ $remote, 'REVOKE DELETE ON synchro_peer.unapplied FROM PUBLIC, sync' ],
	severity => 'error', table => undef, problem => qr/^on remote "office": role sync may not write the tables of schema synchro_peer$/,
	fix => qr/${there}GRANT USAGE ON SCHEMA synchro_peer TO sync;\nGRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA synchro_peer TO sync;$/ }, {
	break => [ $remote, 'REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC' ],
	severity => 'error', table => undef, problem => qr/^on remote "office": role sync may not use the language plpgsql$/,
	fix => qr/${there}GRANT USAGE ON LANGUAGE plpgsql TO sync;$/ }, {
	break => [ $remote, 'CREATE RULE kept AS ON UPDATE TO orders DO ALSO SELECT 1' ],
	severity => 'error', table => 'orders', problem => qr/^on remote "office": rule kept of table public\.orders: batches cannot write a table that has rules$/,
	fix => qr/${there}ALTER TABLE public\.orders DISABLE RULE kept;$/ }, {
	break => [ $remote, 'ALTER TABLE orders ENABLE ROW LEVEL SECURITY' ],
	severity => 'error', table => 'orders', problem => qr/^on remote "office": row-level security of table public\.orders is in the way of role sync$/,
	fix => qr/${there}ALTER ROLE sync BYPASSRLS;$/ });

# not to be kept
$remote->safe_psql('postgres', 'ALTER TABLE orders DISABLE ROW LEVEL SECURITY; ALTER ROLE sync NOBYPASSRLS');
mends('what is missing there', {
	break => [ $remote, 'DROP EXTENSION plpgsql' ],
	severity => 'error', table => undef, problem => qr/^on remote "office": the language plpgsql is missing$/, fix => qr/${there}CREATE EXTENSION plpgsql;$/ }, {
	break => [ $remote, 'DROP SCHEMA synchro_peer CASCADE' ],
	severity => 'error', table => undef, problem => qr/^on remote "office": there is no schema "synchro_peer", and role sync may not create it$/,
	fix => qr/${there}CREATE SCHEMA synchro_peer;/ }, {
	break => [ $remote, 'REVOKE USAGE ON SCHEMA public FROM PUBLIC, sync' ],
	severity => 'error', table => undef, problem => qr/^on remote "office": role sync may not use schema public$/,
	fix => qr/${there}GRANT USAGE ON SCHEMA public TO sync;$/ });

# what is slow or risky, on either side
mends('slow or risky', {
	break => [ $local, 'DROP INDEX payments_customer_id_idx' ],
	severity => 'warning', table => 'payments', problem => qr/^foreign key payments_customer_id_fkey of table public\.payments has no index/,
	fix => qr/^CREATE INDEX ON public\.payments \(customer_id\);$/ }, {
	break => [ $remote, 'DROP INDEX payments_customer_id_idx' ],
	severity => 'warning', table => 'payments', problem => qr/^on remote "office": foreign key payments_customer_id_fkey of table public\.payments has no index/,
	fix => qr/${there}CREATE INDEX ON public\.payments \(customer_id\);$/ }, {
	break => [ $local, 'ALTER TABLE parts_a SET UNLOGGED' ],
	severity => 'warning', table => 'parts', problem => qr/^table public\.parts_a is UNLOGGED/, fix => qr/^ALTER TABLE public\.parts_a SET LOGGED;$/ }, {
	break => [ $remote, 'ALTER TABLE notes SET UNLOGGED' ],
	severity => 'warning', table => 'notes', problem => qr/^on remote "office": table public\.notes is UNLOGGED/, fix => qr/${there}ALTER TABLE public\.notes SET LOGGED;$/ },
	map { my $setting = $_; ({
	break => [ $local, "ALTER SYSTEM SET $setting = off; SELECT pg_reload_conf()" ],
	severity => 'warning', table => undef, problem => qr/^setting $setting is off/, fix => qr/^ALTER SYSTEM SET $setting = on;\nSELECT pg_reload_conf\(\);$/ }, {
	break => [ $remote, "ALTER SYSTEM SET $setting = off; SELECT pg_reload_conf()" ],
	severity => 'warning', table => undef, problem => qr/^on remote "office": setting $setting is off/, fix => qr/${there}ALTER SYSTEM SET $setting = on;/ }) }
	  qw(fsync full_page_writes));

# triggers on both sides
both($local, $remote, <<'SQL');
CREATE FUNCTION set_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE customers SET balance = balance + NEW.amount WHERE id = NEW.customer_id;
	RETURN NEW;
END $$;
CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := btrim(NEW.note); RETURN NEW; END';
CREATE TRIGGER tidy BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tidy();
SQL
$remote->safe_psql('postgres', 'CREATE TRIGGER set_balance AFTER INSERT ON payments FOR EACH ROW EXECUTE FUNCTION set_balance()');
healthy('a trigger on the remote only, and one that writes nothing', found());
mends('a trigger on both sides', {
	break => [ $local, 'CREATE TRIGGER balance AFTER INSERT ON payments FOR EACH ROW EXECUTE FUNCTION set_balance()' ],
	severity => 'warning', table => 'payments', problem => qr/^on remote "office": trigger balance of table public\.payments is on both sides/,
	fix => qr/^ALTER FUNCTION public\.set_balance\(\) SET synchro\.log_changes = off;$/ });

# what the registry and the log have to say
mends('captured or not', {
	break => [ $local, 'ALTER TABLE customers DISABLE TRIGGER synchro_capture' ],
	severity => 'error', table => 'customers', problem => qr/^changes of table public\.customers are not all captured: trigger synchro_capture of public\.customers is disabled$/,
	fix => qr/^SELECT synchro\.alter_table\('public\.customers'\);\n-- what was changed meanwhile is in no log/ }, {
	break => [ $local, 'DROP TRIGGER synchro_capture ON orders' ],
	severity => 'error', table => 'orders', problem => qr/^changes of table public\.orders are not all captured: trigger synchro_capture of public\.orders is missing$/,
	fix => qr/^SELECT synchro\.alter_table\('public\.orders'\);/ }, {
	break => [ $local, 'DROP TRIGGER synchro_truncate ON parts_a' ],
	severity => 'error', table => 'parts', problem => qr/^changes of table public\.parts are not all captured: trigger synchro_truncate of public\.parts_a is missing$/,
	fix => qr/^SELECT synchro\.alter_table\('public\.parts'\);/ }, {
	break => [ $local, 'DROP TRIGGER synchro_capture ON vendors' ],
	severity => 'error', table => 'vendors', problem => qr/^changes of table public\.vendors are not all captured: trigger synchro_capture of public\.vendors is missing$/,
	fix => qr/^SELECT synchro\.alter_table\('public\.customers'\);/ }, {
	break => [ $local, 'ALTER TABLE notes ENABLE TRIGGER synchro_capture' ],
	severity => 'warning', table => 'notes', problem => qr/^changes of table public\.notes are not all captured: trigger synchro_capture of public\.notes does not fire for replicated rows$/,
	fix => qr/^SELECT synchro\.alter_table\('public\.notes'\);/ });
mends('of several triggers, the one that is missing is named', {
	break => [ $local, 'DROP TRIGGER synchro_capture ON orders; ALTER TABLE orders ENABLE TRIGGER synchro_truncate' ],
	severity => 'error', table => 'orders', problem => qr/^changes of table public\.orders are not all captured: trigger synchro_capture of public\.orders is missing$/,
	fix => qr/^SELECT synchro\.alter_table\('public\.orders'\);/ });
mends('of a table inside a key, TRUNCATE is captured or not', {
	break => [ $local, 'DROP TRIGGER synchro_truncate ON vendors' ],
	severity => 'error', table => 'vendors', problem => qr/^changes of table public\.vendors are not all captured: trigger synchro_truncate of public\.vendors is missing$/,
	fix => qr/^SELECT synchro\.alter_table\('public\.customers'\);/ });
both($local, $remote, <<'SQL');
CREATE TABLE rooms (number serial UNIQUE, label text UNIQUE);
CREATE TABLE guests (name text PRIMARY KEY, room int REFERENCES rooms (number));
CREATE INDEX ON guests (room);
CREATE TABLE cities (country text, name text NOT NULL UNIQUE, PRIMARY KEY (country, name));
CREATE TABLE countries (code text UNIQUE);
ALTER TABLE cities ADD FOREIGN KEY (country) REFERENCES countries (code);
SQL
mends('ids without a primary key', {
	break => [ $local, q{SELECT synchro.add_table('guests'), synchro.add_table('cities')} ],
	severity => 'error', table => 'guests', problem => qr/^foreign key guests_room_fkey of table public\.guests refers to values of a sequence, but table public\.rooms has no primary key/,
	fix => qr/^ALTER TABLE public\.rooms ADD PRIMARY KEY \(number\);$/ });
both($local, $remote, 'CREATE TABLE things (id serial PRIMARY KEY, a text NOT NULL, b text NOT NULL UNIQUE); CREATE TABLE bare (a text NOT NULL, b text NOT NULL)');
both($local, $remote, 'CREATE UNIQUE INDEX ON bare (a)');
$local->safe_psql('postgres', q{CREATE TABLE keyed (id uuid PRIMARY KEY, a text UNIQUE); SELECT synchro.add_table('things', '{a}'), synchro.add_table('bare', '{a}'), synchro.add_table('keyed', '{a}')});
$remote->safe_psql('postgres', 'CREATE TABLE keyed (id uuid PRIMARY KEY)');
$remote->safe_psql('postgres', 'ALTER TABLE things ALTER a DROP NOT NULL');
mends('a key that is lost', {
	break => [ $local, 'ALTER TABLE things DROP a' ],
	severity => 'error', table => 'things', problem => qr/^table public\.things has lost its key \(a\): its changes are not logged$/,
	fix => qr/^SELECT synchro\.register_natural_key\('public\.things', '\{b\}'\);\n-- what was changed meanwhile/ }, {
	break => [ $local, 'ALTER TABLE keyed DROP a' ],
	severity => 'error', table => 'keyed', problem => qr/^table public\.keyed has lost its key \(a\)/,
	fix => qr/^-- name other columns that identify a row: SELECT synchro\.register_natural_key\('public\.keyed', '\{\.\.\.\}'\);\n-- or let ids find rows; .*: SELECT synchro\.unregister_natural_key\('public\.keyed'\);\n/,
	by => [ $local, q{SELECT synchro.unregister_natural_key('keyed')} ] }, {
	break => [ $local, 'ALTER TABLE bare DROP a' ],
	severity => 'error', table => 'bare', problem => qr/^table public\.bare has lost its key \(a\)/,
	fix => qr/^-- add a primary key, or name columns that identify a row: SELECT synchro\.register_natural_key\('public\.bare', '\{\.\.\.\}'\);/,
	by => [ $local, q{SELECT synchro.remove_table('bare')} ] });
mends('what is not logged', {
	break => [ $local, 'CREATE ROLE importer; ALTER ROLE importer SET synchro.log_changes = off' ],
	severity => 'warning', table => undef, problem => qr/^changes are not logged of role importer: synchro\.log_changes is off$/, fix => qr/^ALTER ROLE importer RESET synchro\.log_changes;$/ }, {
	break => [ $local, 'CREATE ROLE loader; ALTER ROLE loader IN DATABASE postgres SET synchro.log_changes = off' ],
	severity => 'warning', table => undef, problem => qr/^changes are not logged of role loader in this database/,
	fix => qr/^ALTER ROLE loader IN DATABASE postgres RESET synchro\.log_changes;$/ }, {
	break => [ $local, 'ALTER DATABASE postgres SET synchro.log_changes = off' ],
	severity => 'warning', table => undef, problem => qr/^changes are not logged in this database/, fix => qr/^ALTER DATABASE postgres RESET synchro\.log_changes;$/ });
mends('log and clock', {
	break => [ sub {
		$local->safe_psql('postgres', q{UPDATE notes SET body = body; LOAD 'synchro'; ALTER SYSTEM SET synchro.log_retention = '1s'; SELECT pg_reload_conf()});
		wait_for($local, q{SELECT lag > '1 s' FROM synchro.remotes}, 'a change is pending for some time');
	} ],
	severity => 'warning', table => undef, problem => qr/^changes for remote "office" are pending since .*, longer than synchro\.log_retention \(1s\)/,
	fix => qr/^LOAD 'synchro';\nALTER SYSTEM SET synchro\.log_retention = '2d';\nSELECT pg_reload_conf\(\);$/ }, {
	break => [ $local, q{LOAD 'synchro'; ALTER SYSTEM SET synchro.log_changes = off; SELECT pg_reload_conf()} ],
	severity => 'warning', table => undef, problem => qr/^changes are not logged on this server/, fix => qr/^LOAD 'synchro';\nALTER SYSTEM SET synchro\.log_changes = on;/ }, {
	break => [ $local, 'UPDATE synchro.node_identity SET clock_uncertainty = 5000000' ],
	severity => 'error', table => undef, problem => qr/^the clock of this node is known to its group to within 00:00:05 only, synchro\.max_clock_uncertainty is 1s$/,
	fix => qr/^LOAD 'synchro';\nALTER SYSTEM SET synchro\.max_clock_uncertainty = '10000ms';\nSELECT pg_reload_conf\(\);$/ });
$local->safe_psql('postgres', q{UPDATE synchro.node_identity SET clock_uncertainty = 0; LOAD 'synchro'; ALTER SYSTEM RESET synchro.log_retention; SELECT pg_reload_conf()});
mends('a copy', {
	break => [ $local, 'UPDATE synchro.node_identity SET system_identifier = 1' ],
	severity => 'error', table => undef, problem => qr/^this database is a copy or was restored, and is held/,
	fix => qr/^-- if this database is to push, too, or in place of the original:\n-- SELECT synchro\.confirm_node\(\);$/, by => [ $local, 'SELECT synchro.confirm_node()' ] });

# a column of the key that has another name there: to add it would make each row another one
mends('a key renamed', {
	break => [ $local, 'ALTER TABLE customers RENAME email TO mail' ],
	severity => 'error', table => 'customers', problem => qr/^on remote "office": table public\.customers has no column mail$/,
	fix => qr/${there}-- it is in the natural key\. If it was renamed: ALTER TABLE public\.customers RENAME COLUMN email TO mail; if it is new: ALTER TABLE public\.customers ADD COLUMN mail text;$/,
	by => [ $remote, 'ALTER TABLE customers RENAME email TO mail' ] });
both($local, $remote, 'ALTER TABLE customers RENAME mail TO email');

# a remote whose owner is no superuser
$local->safe_psql('postgres', sprintf(<<'SQL', $remote->port));
CREATE ROLE app;
GRANT USAGE ON FOREIGN DATA WRAPPER synchro_fdw TO app;
CREATE SERVER branch FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host '127.0.0.1', port '%s', dbname 'postgres');
ALTER SERVER branch OWNER TO app;
SELECT synchro.add_remote('branch');
GRANT SELECT ON ALL TABLES IN SCHEMA public TO app;
SQL
{
	local $name = 'branch';
	mends('rights here', {
		severity => 'error', table => undef, problem => qr/^remote "branch" has no user mapping for app, who owns it$/,
		fix => qr/^-- with the user and password there: CREATE USER MAPPING FOR app SERVER branch OPTIONS \(user 'app', password '\.\.\.'\);$/,
		by => [ $local, q{CREATE USER MAPPING FOR app SERVER branch OPTIONS (user 'sync', password 'secret')} ] }, {
		break => [ $local, 'REVOKE SELECT ON orders FROM app; GRANT SELECT (id, number, customer_id) ON orders TO app' ],
		severity => 'error', table => 'orders', problem => qr/^role app, who owns remote "branch", may not read table public\.orders$/,
		fix => qr/^GRANT SELECT ON public\.orders TO app;$/ }, {
		break => [ $local, 'REVOKE USAGE ON SCHEMA public FROM PUBLIC' ],
		severity => 'error', table => undef, problem => qr/^role app, who owns remote "branch", may not use schema public$/,
		fix => qr/^GRANT USAGE ON SCHEMA public TO app;$/ }, {
		break => [ $local, 'ALTER TABLE notes ENABLE ROW LEVEL SECURITY' ],
		severity => 'error', table => 'notes', problem => qr/^row-level security of table public\.notes is in the way of role app, who owns remote "branch"$/,
		fix => qr/^ALTER ROLE app BYPASSRLS;$/ });

	$local->safe_psql('postgres', q{ALTER USER MAPPING FOR app SERVER branch OPTIONS (SET password 'another')});
	my ($row) = found();
	like("$row->{problem} $row->{fix}", qr/^could not connect to remote "branch": .*password authentication failed.* -- /s, 'a mapping with a wrong password');
	$local->safe_psql('postgres', q{ALTER USER MAPPING FOR app SERVER branch OPTIONS (DROP password)});
	($row) = found();
	like("$row->{problem} $row->{fix}", qr/^password is required for remote "branch": .* -- CREATE or ALTER USER MAPPING FOR app/s, 'and without one');
	$local->safe_psql('postgres', q{SELECT synchro.remove_remote('branch')});
}
{
	# what else the caller may do does not matter, but to call it he has to be allowed to
	my (undef, undef, $stderr) = $local->psql('postgres', 'SET ROLE app; SELECT * FROM synchro.check()');

	like($stderr, qr/permission denied for function check/, 'it is for those who were granted it');
	is(rows($local, q{GRANT EXECUTE ON FUNCTION synchro.check(name) TO app; SET ROLE app; SELECT count(*) FROM synchro.check() WHERE severity <> 'info'}), 0, 'and then for anyone');

	# who is told what is wrong with tables that he may not read, but nothing that is in them
	$local->safe_psql('postgres', 'REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM app');
	$remote->safe_psql('postgres', <<'SQL');
DROP INDEX customers_email_idx;
INSERT INTO customers (email, name) VALUES ('kept dark', 'kept dark'), ('kept dark', 'kept dark');
ALTER TABLE notes RENAME body TO text;
UPDATE notes SET text = 'kept dark';
ANALYZE;
SQL
	my $said = rows($local, <<'SQL');
BEGIN;
DROP INDEX customers_email_idx;
INSERT INTO customers (email, name) VALUES ('kept dark', 'kept dark'), ('kept dark', 'kept dark');
INSERT INTO orders (customer_id, number, note) VALUES (1, 4711, 'kept dark');
ANALYZE;
SET ROLE app;
SELECT c FROM synchro.check() c;
ROLLBACK;
SQL
	like($said, qr/$_/, "he is told of $_") foreach 'the key \(email\) of table public\.customers', 'on remote .*public\.customers', 'on remote .*public\.notes';
	unlike($said, qr/kept dark|4711/, 'but of no value of a row');
	$remote->safe_psql('postgres', q{DELETE FROM customers WHERE email = 'kept dark'; CREATE UNIQUE INDEX ON customers (email); ALTER TABLE notes RENAME text TO body});
	healthy('after that', found());
}

# the remote runs synchro, too
{
	local $db = 'nodes';

	foreach my $node ($local, $remote)
	{
		$node->safe_psql('postgres', 'CREATE DATABASE nodes');
		$node->safe_psql('nodes', <<'SQL');
CREATE EXTENSION synchro;
CREATE TABLE customers (id serial PRIMARY KEY, email text NOT NULL UNIQUE, name text NOT NULL UNIQUE, n int);
CREATE FUNCTION count_them() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE customers SET n = n + 1 WHERE id < NEW.id; RETURN NEW; END';
ALTER FUNCTION count_them() SET synchro.log_changes = off;
CREATE TRIGGER count_them AFTER INSERT ON customers FOR EACH ROW EXECUTE FUNCTION count_them();
SELECT synchro.add_table('customers', '{email}');
SQL
	}
	connect_remote($local, $remote, dbname => 'nodes', peer => 'none');
	mends('another node', {
		severity => 'error', table => undef, problem => qr/^on remote "office": role sync may not push to this database, which runs synchro, too$/,
		fix => qr/${there}SELECT synchro\.allow_peer\('sync'\);$/ });
	mends('another node that differs', {
		break => [ $remote, q{SELECT synchro.alter_table('customers', '{name}')} ],
		severity => 'error', table => 'customers', problem => qr/^on remote "office": table public\.customers is watched by other keys: id; name, not id; email$/,
		fix => qr/${there}SELECT synchro\.register_natural_key\('public\.customers', '\{email\}'\);$/ }, {
		break => [ $remote, 'ALTER FUNCTION count_them() RESET synchro.log_changes' ],
		severity => 'warning', table => 'customers', problem => qr/^on remote "office": trigger count_them of table public\.customers is on both sides, and what its function public\.count_them\(\) writes there/,
		fix => qr/${there}ALTER FUNCTION public\.count_them\(\) SET synchro\.log_changes = off;$/ });
	my $proxy = start_proxy($remote->port);
	$proxy->command('delay 0.02');
	mends('a node that is far away', {
		break => [ $local, "ALTER SERVER office OPTIONS (SET port '$proxy->{port}'); LOAD 'synchro'; ALTER SYSTEM SET synchro.max_clock_uncertainty = '10ms'; SELECT pg_reload_conf()" ],
		severity => 'error', table => undef, problem => qr/^the clock of remote "office" is known to within 0\.\d+ seconds only, synchro\.max_clock_uncertainty is 0\.010 seconds$/,
		fix => qr/^LOAD 'synchro';\nALTER SYSTEM SET synchro\.max_clock_uncertainty = '\d+ms';\nSELECT pg_reload_conf\(\);$/ });
	$local->safe_psql('nodes', sprintf(<<'SQL', $remote->port));
ALTER SERVER office OPTIONS (SET port '%s');
LOAD 'synchro';
ALTER SYSTEM RESET synchro.max_clock_uncertainty;
SELECT pg_reload_conf();
INSERT INTO customers (email, name) VALUES ('a', 'a');
SQL
	is(sync($local, 'office', dbname => 'nodes')->{inserted}, 1, 'then it is pushed to');
}

# the way leads to a standby of the remote
$remote->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($remote, 'copy', has_streaming => 1);
$standby->start;
mends('a standby', {
	break => [ $local, sprintf q{ALTER SERVER office OPTIONS (SET port '%s')}, $standby->port ],
	severity => 'error', table => undef, problem => qr/^on remote "office": the server is a standby$/, fix => qr/^-- let the foreign server lead to the primary$/,
	by => [ $local, sprintf q{ALTER SERVER office OPTIONS (SET port '%s')}, $remote->port ] });
$standby->stop('immediate');

# workers, and the library preloaded
$local->append_conf('postgresql.conf', 'max_worker_processes = 1');
$local->restart;
{
	my ($row) = grep { $_->{problem} eq 'max_worker_processes is 1, but at least 2 background workers are needed' } found();

	is($row->{severity}, 'error', 'too few workers: seen');
	is($row->{fix}, "ALTER SYSTEM SET max_worker_processes = 8;\n-- then restart the server", 'and how it is mended');
	run_fix($row->{fix});
	($row) = grep { $_->{problem} =~ /not preloaded/ } found();
	run_fix($row->{fix});
	$local->restart;
	is_deeply([ map { $_->{problem} } found() ], [], 'then nothing is left to be said');
}

# a remote that cannot be reached is no error of the call, and hides nothing else
$remote->stop('fast');
{
	local $name = undef;
	$local->safe_psql('postgres', 'DROP INDEX payments_customer_id_idx');
	my @rows = found();

	is_deeply([ map { $_->{severity} } @rows ], [ 'error', 'warning' ], 'a remote that is down: one row');
	like($rows[0]{problem}, qr/^could not connect to remote "office": /, 'that says so');
	like($rows[0]{fix}, qr/^-- /, 'and a comment');
	$local->safe_psql('postgres', q{SELECT synchro.pause('office')});
	is_deeply([ map { $_->{severity} } found() ], ['warning'], 'a paused one is not asked, unless it is named');
	$name = 'office';
	is(scalar(grep { $_->{severity} eq 'error' } found()), 1, 'as here');
	my (undef, undef, $stderr) = $local->psql('postgres', q{SELECT * FROM synchro.check('nowhere')});
	like($stderr, qr/there is no remote "nowhere"/, 'one that does not exist is an error');
}

$local->stop('fast');
done_testing();
