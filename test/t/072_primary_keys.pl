# WHY: rows without a natural key are found by stored pairs of primary keys. Where the columns of a primary key become others, or are
# made again and so count their rows anew, these pairs mean other rows, though names and types of the columns may be what they
# were: a row would be written over another one, or come to be there twice. So the table has to stall, on whichever side that was
# done, until somebody says what is to become of its rows; and it must not where the key has stayed what it was.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');
my $tables = <<'SQL';
CREATE TABLE plain (id serial PRIMARY KEY, kind text NOT NULL DEFAULT 'k', label text, n int NOT NULL DEFAULT 0);
CREATE TABLE kids (id serial PRIMARY KEY, name text NOT NULL UNIQUE, plain_id int REFERENCES plain, n int NOT NULL DEFAULT 0);
CREATE TABLE named (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int NOT NULL DEFAULT 0);
SQL
both($local, $remote, $tables);
$remote->safe_psql('postgres', q{SELECT setval('plain_id_seq', 5), setval('kids_id_seq', 100), setval('named_id_seq', 100)});
connect_remote($local, $remote);
here(<<'SQL');
SELECT synchro.add_table('plain'), synchro.add_table('kids', '{name}'), synchro.add_table('named', '{name}');
INSERT INTO plain (label) SELECT 'plain ' || i FROM generate_series(1, 10) i;
INSERT INTO kids (name, plain_id) SELECT 'kid ' || i, i FROM generate_series(1, 10) i;
INSERT INTO named (name) SELECT 'named ' || i FROM generate_series(1, 10) i;
SQL

my %contents = (
	plain => 'SELECT label, kind, n FROM plain ORDER BY label, n',
	kids => 'SELECT k.name, p.label, k.n FROM kids k JOIN plain p ON p.id = k.plain_id ORDER BY k.name',
	named => 'SELECT name, n FROM named ORDER BY name');

sub here { return $local->safe_psql('postgres', "SET client_min_messages = error; $_[0]") }
sub there { return $remote->safe_psql('postgres', "SET client_min_messages = error; $_[0]") }

sub goes_on
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sync($local, 'office')->{failed}, 0, "$testname: nothing fails") or diag(rows($local, 'SELECT relation, message, detail FROM synchro.failures'));
	same($local, $remote, $contents{$_}, "$testname: all of $_ is the same") foreach sort keys %contents;
	return;
}

# What has stalled has one and the same reason, and leaves the remote's rows as they are.
sub stalls
{
	my ($testname, $change, $tables, $reason) = @_;
	my $before = rows($remote, $contents{plain}) . rows($remote, $contents{kids});

	here("$change; UPDATE named SET n = n + 1");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sync($local, 'office');
	is(rows($local, q{SELECT string_agg(relation::text, ' ' ORDER BY relation::text) FROM synchro.failures WHERE key IS NULL}), $tables, "$testname: what needs the pairs stalls");
	like(rows($local, q{SELECT DISTINCT concat_ws(' ', sqlstate || ':', message, detail, 'HINT: ' || hint) FROM synchro.failures}), $reason, "$testname: with a reason, and what to do");
	is(rows($remote, $contents{plain}) . rows($remote, $contents{kids}), $before, "$testname: no row is written, nor a new one");
	same($local, $remote, $contents{named}, "$testname: others go on");
	return;
}

sub made_anew
{
	my ($testname) = @_;

	here(q{SELECT synchro.reset_schema('public', soft => false, remote => 'office', confirm => true)});
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	goes_on("$testname: after a hard reset");
	here(q{UPDATE plain SET n = n + 1 WHERE label LIKE '%3'; UPDATE kids SET n = n + 1});
	goes_on("$testname: and then as ever");
	return;
}

# Rows of plain get other ids, under which kids refer to them, and nothing of that is logged.
sub counted_anew_here
{
	here('SET synchro.log_changes = off; ALTER TABLE kids DROP CONSTRAINT kids_plain_id_fkey; ALTER TABLE plain ADD old int; UPDATE plain SET old = id; ALTER TABLE plain DROP id; ALTER TABLE plain ADD id serial PRIMARY KEY');
	here('SET synchro.log_changes = off; UPDATE kids SET plain_id = p.id FROM plain p WHERE p.old = plain_id; ALTER TABLE plain DROP old; ALTER TABLE kids ADD FOREIGN KEY (plain_id) REFERENCES plain');
	return;
}

goes_on('to begin with');

#
# the key stays what it is
#
here(q{CREATE UNIQUE INDEX anew ON plain (id); ALTER TABLE kids DROP CONSTRAINT kids_plain_id_fkey; ALTER TABLE plain DROP CONSTRAINT plain_pkey;
	ALTER TABLE plain ADD PRIMARY KEY USING INDEX anew; ALTER TABLE kids ADD FOREIGN KEY (plain_id) REFERENCES plain; UPDATE plain SET n = 1 WHERE id < 4});
goes_on('another index');
here('ALTER TABLE plain RENAME id TO number');
there('ALTER TABLE plain RENAME id TO number');
here('UPDATE plain SET n = 2 WHERE number < 5; UPDATE kids SET n = 2');
$contents{kids} =~ s/p\.id/p.number/;
goes_on('another name on both sides');
here('ALTER TABLE plain RENAME number TO id');
there('ALTER TABLE plain RENAME number TO id');
$contents{kids} =~ s/p\.number/p.id/;
there('BEGIN; CREATE TABLE copy (n int, label text, gone int, kind text NOT NULL, id int PRIMARY KEY); ALTER TABLE copy DROP gone; INSERT INTO copy (n, label, kind, id) SELECT n, label, kind, id FROM plain;
	ALTER SEQUENCE plain_id_seq OWNED BY copy.id; DROP TABLE plain CASCADE; ALTER TABLE copy RENAME TO plain; ALTER TABLE plain ALTER id SET DEFAULT nextval(\'plain_id_seq\');
	ALTER TABLE plain ALTER kind SET DEFAULT \'k\', ALTER n SET DEFAULT 0; GRANT SELECT, INSERT, UPDATE, DELETE ON plain TO sync; ALTER TABLE kids ADD FOREIGN KEY (plain_id) REFERENCES plain; COMMIT');
here('UPDATE plain SET n = 3 WHERE id < 6; UPDATE kids SET n = 3');
goes_on('made of the old one there, with its columns in another order');
here(q{ALTER TABLE named DROP id, ADD id serial PRIMARY KEY; UPDATE named SET n = 3});
goes_on('other ids of rows that have names');

#
# there, and it counts anew
#
there('ALTER TABLE plain DROP id CASCADE; ALTER TABLE plain ADD id serial PRIMARY KEY; UPDATE kids SET plain_id = 11 - n; ALTER TABLE kids ADD FOREIGN KEY (plain_id) REFERENCES plain');
stalls('made again there', 'UPDATE plain SET n = n + 10 WHERE id < 6; UPDATE kids SET n = 4', 'kids plain',
	qr/^55000: primary key of table public\.plain is not the one that its stored references are of Its columns on remote "office" were made again\. HINT: .*reset_schema\(\) with soft => false\.$/);

# a table that cannot be emptied: then none is, and it stays as it was
there('CREATE TABLE audit (named_id int REFERENCES named); INSERT INTO audit SELECT id FROM named LIMIT 1');
here(q{SELECT synchro.reset_schema('public', soft => false, remote => 'office', confirm => true)});
my $stale = rows($remote, $contents{plain}) . rows($remote, $contents{kids});
sync($local, 'office');
like(rows($local, 'SELECT message FROM synchro.failures'), qr/table public\.named of remote "office" cannot be emptied/, 'made again there, and not to be emptied: that fails');
here('UPDATE plain SET n = n + 1; UPDATE kids SET n = n + 1');
sync($local, 'office');
is(rows($remote, $contents{plain}) . rows($remote, $contents{kids}), $stale, 'made again there, and not to be emptied: no row is written meanwhile');
like(rows($local, 'SELECT string_agg(message, E\'\\n\') FROM synchro.failures'), qr/primary key of table public\.plain is not the one/, 'made again there, and not to be emptied: the references are there');
there('DROP TABLE audit');
goes_on('made again there, and emptied at last');
made_anew('made again there');

#
# here, the same
#
counted_anew_here();
stalls('made again here', 'UPDATE plain SET n = n + 10 WHERE id < 6; UPDATE kids SET n = 4', 'kids plain',
	qr/^55000: primary key of table public\.plain is not the one that its stored references are of It has other columns than when they were made, or these were made again\. HINT: .*reset_schema\(\) with soft => false\.$/);
made_anew('made again here');

#
# here, of other columns
#
here('ALTER TABLE kids DROP CONSTRAINT kids_plain_id_fkey; ALTER TABLE plain DROP CONSTRAINT plain_pkey; ALTER TABLE plain ADD UNIQUE (id), ADD PRIMARY KEY (kind, id)');
stalls('other columns', 'UPDATE plain SET n = n + 10 WHERE id < 6', 'plain', qr/^55000: primary key of table public\.plain is not the one .*It has other columns than/);
is(rows($local, q{SELECT synchro.preview('office')::text ~ 'plain'}), 't', 'other columns: a preview shows it');
here('ALTER TABLE plain DROP CONSTRAINT plain_pkey, DROP CONSTRAINT plain_id_key, ADD PRIMARY KEY (id)');
stalls('as it was, but changed in between', 'UPDATE plain SET n = n + 10 WHERE id < 6', 'plain',
	qr/^55000: primary key of table public\.plain was altered while changes were pending HINT: .*reset_schema\(\) with soft => false\.$/);
here('ALTER TABLE kids ADD FOREIGN KEY (plain_id) REFERENCES plain');
made_anew('as it was');

here('ALTER TABLE kids DROP CONSTRAINT kids_plain_id_fkey; ALTER TABLE plain DROP CONSTRAINT plain_pkey; ALTER TABLE plain ADD PRIMARY KEY (kind, id)');
is(sync($local, 'office')->{failed}, 0, 'nothing is pushed of it meanwhile');
here('ALTER TABLE plain DROP CONSTRAINT plain_pkey, ADD PRIMARY KEY (id); ALTER TABLE kids ADD FOREIGN KEY (plain_id) REFERENCES plain; UPDATE plain SET n = n + 10 WHERE id < 6; UPDATE kids SET n = 5');
goes_on('as it was, and not changed in between');

#
# Whoever has the references forgotten has them forgotten.
#
here('ALTER TABLE kids DROP CONSTRAINT kids_plain_id_fkey; UPDATE kids SET plain_id = NULL; ALTER TABLE plain DROP id; ALTER TABLE plain ADD id serial PRIMARY KEY; ALTER TABLE kids ADD FOREIGN KEY (plain_id) REFERENCES plain');
stalls('made again here, once more', 'UPDATE plain SET n = n + 10', 'kids plain', qr/^55000: primary key of table public\.plain is not the one/);
there('UPDATE kids SET plain_id = NULL; DELETE FROM plain');
here(q{SELECT synchro.reset('office')});
here(q{UPDATE plain SET n = n + 10; UPDATE kids SET plain_id = 11 - n});
goes_on('after a reset');
here(q{UPDATE plain SET n = n + 10});
goes_on('and after that');

# The same of a table with a natural key.
here(q{ALTER TABLE named DROP CONSTRAINT named_pkey; UPDATE named SET n = 7; ALTER TABLE named ADD PRIMARY KEY (name, id)});
here(q{UPDATE named SET n = 8 WHERE name = 'named 1'; ALTER TABLE named DROP CONSTRAINT named_pkey; ALTER TABLE named ADD PRIMARY KEY (id)});
sync($local, 'office');
like(rows($local, q{SELECT relation || ' ' || message || ' ' || hint FROM synchro.failures}), qr/^named primary key of table public\.named was altered while changes were pending .*keep_references, then synchro\.copy_table\(\);/,
	'with a natural key: what is pending cannot be read');
here(q{SELECT synchro.reset('office', keep_references => true), synchro.copy_table('office', 'named')});
goes_on('with a natural key: reset and copied');

# Or of what was refused; rows of other tables that are refused go their way.
there('ALTER TABLE named ADD CONSTRAINT small CHECK (n < 500); ALTER TABLE plain ADD CONSTRAINT small CHECK (n < 5000)');
here(q{UPDATE named SET n = 500 WHERE name = 'named 1'; UPDATE plain SET n = n + 5000 WHERE id = (SELECT min(id) FROM plain)});
is(sync($local, 'office')->{failed}, 2, 'two rows are refused');
here('ALTER TABLE named DROP id; ALTER TABLE named ADD id serial PRIMARY KEY; SELECT synchro.retry()');
sync($local, 'office');
like(rows($local, 'SELECT relation, message FROM synchro.failures WHERE key IS NULL'), qr/^named\|primary key of table public\.named was altered while changes were pending$/,
	'with a natural key: what was refused cannot be read, and is not passed over');
there('ALTER TABLE named DROP CONSTRAINT small; ALTER TABLE plain DROP CONSTRAINT small');
here('SELECT synchro.retry()');
sync($local, 'office');
is(rows($local, 'SELECT DISTINCT relation FROM synchro.failures'), 'named', 'with a natural key: another table\'s row arrives meanwhile');
here(q{SELECT synchro.reset('office', keep_references => true), synchro.copy_table('office', 'named')});
goes_on('with a natural key: what was refused is there, too');

#
# Without a primary key a row is known by its natural key; the primary key is nothing to speak of then.
#
both($local, $remote, 'CREATE TABLE bare (a text UNIQUE, b text UNIQUE, n int)');
grant_dml($remote);
here(q{SELECT synchro.add_table('bare', '{a}'); INSERT INTO bare SELECT 'a' || i, 'b' || i, i FROM generate_series(1, 5) i});
$contents{bare} = 'SELECT * FROM bare ORDER BY a';
goes_on('no primary key');
here(q{UPDATE bare SET n = n + 1; SELECT synchro.alter_table('bare', natural_key => '{b}')});
sync($local, 'office');
like(rows($local, 'SELECT message, detail, hint FROM synchro.failures'),
	qr/^key of table public\.bare was altered while changes were pending\|It has no primary key, so .*\|.*give it back the key that it had, .*copy_table\(\);/,
	'no primary key: it is the natural one that was altered');
here(q{SELECT synchro.alter_table('bare', natural_key => '{a}')});
goes_on('no primary key: given back the key that it had');
here(q{SELECT synchro.alter_table('bare', natural_key => '{b}'); UPDATE bare SET n = n + 1, a = 'other ' || a});
goes_on('no primary key: and then the other');

#
# A key that is gone for a moment, while a delete waits.
#
here(q{INSERT INTO plain (label) VALUES ('waits')});
goes_on('a row more');
there(q{CREATE TABLE ext (plain_id int REFERENCES plain); INSERT INTO ext SELECT id FROM plain WHERE label = 'waits'});
here(q{DELETE FROM plain WHERE label = 'waits'});
is(sync($local, 'office')->{failed}, 1, 'whose delete waits');
here('ALTER TABLE kids DROP CONSTRAINT kids_plain_id_fkey; ALTER TABLE plain DROP CONSTRAINT plain_pkey; SELECT synchro.retry(); UPDATE named SET n = n + 1');
sync($local, 'office');
here('ALTER TABLE plain ADD PRIMARY KEY (id); ALTER TABLE kids ADD FOREIGN KEY (plain_id) REFERENCES plain; UPDATE plain SET n = n + 1; SELECT synchro.retry()');
there('DROP TABLE ext');
goes_on('the key gone for a moment');

#
# Another mode in between: rows come and go then that no reference tells of.
#
here(q{SELECT synchro.register_natural_key('plain', '{label}')});
here('ALTER TABLE kids DROP CONSTRAINT kids_plain_id_fkey; ALTER TABLE plain DROP CONSTRAINT plain_pkey, ADD PRIMARY KEY (kind, id)');
here(q{INSERT INTO plain (label) VALUES ('in between'); UPDATE plain SET n = n + 1});
is(sync($local, 'office')->{failed}, 0, 'found by name meanwhile');
same($local, $remote, $contents{plain}, 'found by name meanwhile: all are the same');
here('ALTER TABLE plain DROP CONSTRAINT plain_pkey, ADD PRIMARY KEY (id); ALTER TABLE kids ADD FOREIGN KEY (plain_id) REFERENCES plain');
here(q{SELECT synchro.unregister_natural_key('plain')});
stalls('found by references again', q{UPDATE plain SET n = n + 1 WHERE label = 'in between'}, 'plain', qr/^55000: primary key of table public\.plain is not the one/);
made_anew('found by references again');

#
# Who this is has no say in it.
#
counted_anew_here();
here('SELECT synchro.confirm_node()');
stalls('another node', 'UPDATE plain SET n = n + 10 WHERE id < 6; UPDATE kids SET n = 4', 'kids plain', qr/^55000: primary key of table public\.plain is not the one/);
made_anew('another node');

#
# A delete that waits on the remote is of an id there.
#
there('CREATE TABLE ext (named_id int REFERENCES named); INSERT INTO ext SELECT id FROM named WHERE name = \'named 3\'');
here(q{DELETE FROM named WHERE name = 'named 3'});
is(sync($local, 'office')->{failed}, 1, 'a delete waits');
my $id = rows($remote, q{SELECT remote_key[1] FROM synchro_peer.unapplied});
there("ALTER TABLE named DROP id CASCADE; ALTER TABLE named ADD id int; UPDATE named SET id = substring(name FROM 7)::int; UPDATE named SET id = CASE name WHEN 'named 3' THEN 1000 ELSE $id END WHERE name IN ('named 3', 'named 4')");
there('CREATE SEQUENCE anew START 2000 OWNED BY named.id; GRANT USAGE ON anew TO sync; ALTER TABLE named ADD PRIMARY KEY (id), ALTER id SET DEFAULT nextval(\'anew\')');
here(q{UPDATE named SET n = n + 1 WHERE name = 'named 5'; SELECT synchro.retry()});
sync($local, 'office');
same($local, $remote, q{SELECT name, n FROM named WHERE name <> 'named 3' ORDER BY name}, 'and deletes nobody else, when ids there are made again');
is(rows($remote, 'SELECT count(*) FROM synchro_peer.unapplied'), '0', 'it waits no longer');
there(q{DELETE FROM named WHERE name = 'named 3'});
goes_on('without it');

#
# What a table that is in the key of another one was called on the remote, before it was renamed there alone, or here.
#
both($local, $remote, 'CREATE TABLE countries (id serial PRIMARY KEY, name text NOT NULL UNIQUE); CREATE TABLE cities (id serial PRIMARY KEY, country_id int NOT NULL REFERENCES countries, name text NOT NULL, n int NOT NULL DEFAULT 0, UNIQUE (country_id, name))');
there(q{SELECT setval('countries_id_seq', 50), setval('cities_id_seq', 50); GRANT SELECT, INSERT, UPDATE, DELETE ON countries, cities TO sync; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO sync});
here(q{SELECT synchro.register_natural_key('countries', '{name}'), synchro.add_table('cities', '{country_id, name}')});
here(q{INSERT INTO countries (name) VALUES ('one'), ('two'), ('three'); INSERT INTO cities (country_id, name) SELECT id, 'city' FROM countries});
my $cities = 'SELECT c.name, x.name, x.n FROM cities x JOIN countries c ON c.id = x.country_id ORDER BY 1, 2';
is(sync($local, 'office')->{failed}, 0, 'cities and countries');
here(q{UPDATE countries SET name = 'first' WHERE name = 'one'; UPDATE cities SET n = n + 1});
is(sync($local, 'office')->{failed}, 0, 'a country renamed here');
cmp_ok(rows($remote, q{SELECT count(*) FROM synchro_peer.reference WHERE relation = 'public.countries'}), '>', 0, 'is remembered as what it was');
there(q{UPDATE countries SET name = 'first' WHERE name = 'one'});
here(q{SET synchro.log_changes = off; ALTER TABLE cities DROP CONSTRAINT cities_country_id_fkey; ALTER TABLE countries ADD old int; UPDATE countries SET old = id; ALTER TABLE countries DROP id; ALTER TABLE countries ADD id int; UPDATE countries SET id = 4 - old;
	ALTER TABLE countries ADD PRIMARY KEY (id); ALTER TABLE cities DROP CONSTRAINT cities_country_id_name_key; UPDATE cities SET country_id = 4 - country_id; ALTER TABLE cities ADD UNIQUE (country_id, name), ADD FOREIGN KEY (country_id) REFERENCES countries; ALTER TABLE countries DROP old});
here('SELECT synchro.reset(\'office\', keep_references => true); UPDATE cities SET n = n + id');
is(sync($local, 'office')->{failed}, 0, 'countries counted anew here');
same($local, $remote, $cities, 'each city is in its country');
here(q{SELECT synchro.remove_table('cities'), synchro.unregister_natural_key('countries')});

#
# here, of a column that is skipped
#
both($local, $remote, 'CREATE TABLE moved (name text PRIMARY KEY, own text, note text, n int); CREATE TABLE moved_named (id serial PRIMARY KEY, name text NOT NULL UNIQUE, own text, n int)');
here(q{SELECT synchro.add_table('moved', skip => '{note, own}'), synchro.add_table('moved_named', '{name}', skip => '{own}');
	INSERT INTO moved VALUES ('x', 'here', 'a note', 1); INSERT INTO moved_named (name, own, n) VALUES ('x', 'here', 1)});
sync($local, 'office');
here('ALTER TABLE moved DROP CONSTRAINT moved_pkey; ALTER TABLE moved ADD PRIMARY KEY (own); ALTER TABLE moved_named DROP CONSTRAINT moved_named_pkey; ALTER TABLE moved_named ADD PRIMARY KEY (own);
	UPDATE moved SET n = 2; UPDATE moved_named SET n = 2');
sync($local, 'office');
is(rows($local, q{SELECT concat_ws(' ', sqlstate || ':', message, 'HINT: ' || hint) FROM synchro.failures WHERE relation::text LIKE 'moved%' ORDER BY relation::text}),
	q{42P16: column "own" of table public.moved is skipped, but is in its primary key HINT: Have it pushed: SELECT synchro.alter_table('public.moved', skip => ARRAY['note']::name[]); or make other columns the primary key.} . "\n" .
	q{42P16: column "own" of table public.moved_named is skipped, but is in its primary key HINT: Have it pushed: SELECT synchro.alter_table('public.moved_named', skip => '{}'); or make other columns the primary key.},
	'of a skipped column: a reason that names it, and what to do');
there(q{UPDATE moved_named SET own = 'there'});
here(q{SELECT synchro.alter_table('public.moved_named', skip => '{}'), synchro.alter_table('public.moved', skip => ARRAY['note']::name[])});
sync($local, 'office');
is(rows($remote, 'SELECT name, own, n FROM moved_named'), 'x|there|2', 'of a skipped column: rows are pushed when it is not skipped any more, and have their own ids');
here(q{SELECT synchro.remove_table('moved'), synchro.remove_table('moved_named')});

#
# A dump of the remote gives its columns other numbers, and they are what they were.
#
there('CREATE DATABASE restored');
my $dump = sprintf 'pg_dump -d \'%s\' | psql -XqAt -v ON_ERROR_STOP=1 -d \'%s\'', $remote->connstr('postgres'), $remote->connstr('restored');
is(system("$dump >/dev/null"), 0, 'the remote is dumped, and restored');
there('GRANT CONNECT, TEMP ON DATABASE restored TO sync');
here(q{ALTER SERVER office OPTIONS (SET dbname 'restored')});
here('UPDATE plain SET n = n + 1 WHERE id < 4; UPDATE kids SET n = n + 1');
is(sync($local, 'office')->{failed}, 0, 'restored there: nothing fails') or diag(rows($local, 'SELECT relation, message, detail FROM synchro.failures'));
is(rows($remote, $contents{$_}, 'restored'), rows($local, $contents{$_}), "restored there: all of $_ is the same") foreach sort keys %contents;
my $number = q{SELECT substring(own_key FROM ' .*') FROM synchro_peer.known_table WHERE relation = 'public.plain'};
isnt(rows($remote, $number, 'restored'), rows($remote, $number), 'restored there: the columns have other numbers');

$local->stop('fast');
$remote->stop('fast');

#
# Nodes tell each other the pairs that they have left: those of another key are told to nobody.
#
my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, 'CREATE TABLE note (id serial PRIMARY KEY, what text, n int)');
$b->safe_psql('postgres', q{SELECT setval('note_id_seq', 1000)});
join_nodes($a, $b);
watch([ $a, $b ], note => undef);
$a->safe_psql('postgres', q{INSERT INTO note (what, n) SELECT 'of a ' || i, 1 FROM generate_series(1, 5) i});
settle($a, $b);
$b->safe_psql('postgres', q{INSERT INTO note (what, n) SELECT 'of b ' || i, 1 FROM generate_series(1, 5) i});
settle($a, $b);
is(rows($a, 'SELECT count(*) FROM note'), '10', 'both nodes have the rows of both');
$a->safe_psql('postgres', 'SET client_min_messages = error; SET synchro.log_changes = off; ALTER TABLE note DROP id; ALTER TABLE note ADD id int; UPDATE note SET id = 11 - x.n FROM (SELECT what, row_number() OVER (ORDER BY what) AS n FROM note) x WHERE x.what = note.what;
	ALTER TABLE note ADD PRIMARY KEY (id); CREATE SEQUENCE anew START 2000 OWNED BY note.id; ALTER TABLE note ALTER id SET DEFAULT nextval(\'anew\')');
my $there = rows($b, 'SELECT id, what, n FROM note ORDER BY id');
foreach my $pushes ([ $a, 'b' ], [ $b, 'a' ])
{
	my ($node, $to) = @$pushes;
	my $name = $node->name;

	$node->safe_psql('postgres', 'UPDATE note SET n = n + 1');
	is(sync($node, $to)->{failed}, 1, "counted anew on a: $name stalls");
	like(rows($node, 'SELECT message FROM synchro.failures'), qr/^primary key of table public\.note (is not the one|was altered)/, "counted anew on a: $name says why");
}
$there =~ s/1$/2/mg;
is(rows($b, 'SELECT id, what, n FROM note ORDER BY id'), $there, 'counted anew on a: b has what it had');
$a->safe_psql('postgres', q{SELECT synchro.reset('b')});
$a->safe_psql('postgres', 'UPDATE note SET n = n + 10');
is(sync($a, 'b')->{failed}, 0, 'a has its references on b forgotten');
is(rows($b, 'SELECT id, what, n FROM note WHERE n = 2 ORDER BY id'), $there, 'and does not write over what b has');
is(rows($b, 'SELECT count(*) FROM note WHERE n > 10'), '10', 'but inserts what it has');

# how that is mended: the rows of one side go, and the references with them
$b->safe_psql('postgres', 'SET synchro.log_changes = off; DELETE FROM note');
$_->safe_psql('postgres', q{DELETE FROM synchro_peer.reference WHERE relation = 'public.note'}) foreach $a, $b;
$a->safe_psql('postgres', q{SELECT synchro.copy_table('b', 'note')});
settle($a, $b);
is(rows($_, 'SELECT count(*) FROM synchro.failures'), '0', 'begun anew: nothing stalls on ' . $_->name) foreach $a, $b;
same($a, $b, 'SELECT what, n FROM note ORDER BY what', 'begun anew: both have the rows once');
$a->safe_psql('postgres', q{UPDATE note SET n = n + 1 WHERE what LIKE '%2'});
$b->safe_psql('postgres', q{UPDATE note SET n = n + 1 WHERE what LIKE '%3'; DELETE FROM note WHERE what LIKE '%4'});
settle($a, $b);
same($a, $b, 'SELECT what, n FROM note ORDER BY what', 'begun anew: and then as ever');
is(rows($a, 'SELECT count(*) FROM note'), '8', 'begun anew: none is there twice');

# the same on the other node, of which only the pairs that it has left here tell
$b->safe_psql('postgres', q{INSERT INTO note (what, n) SELECT 'late, of b ' || i, 1 FROM generate_series(1, 5) i});
settle($a, $b);
$b->safe_psql('postgres', 'CREATE TABLE former AS SELECT id, lead(what, 1, first) OVER (ORDER BY id) AS what FROM note, (SELECT what AS first FROM note ORDER BY id LIMIT 1) f');
$b->safe_psql('postgres', 'SET client_min_messages = error; SET synchro.log_changes = off; ALTER TABLE note DROP id; ALTER TABLE note ADD id int; UPDATE note SET id = x.id FROM former x WHERE x.what = note.what;
	ALTER TABLE note ADD PRIMARY KEY (id); CREATE SEQUENCE anew START 9000 OWNED BY note.id; ALTER TABLE note ALTER id SET DEFAULT nextval(\'anew\')');
$there = rows($b, 'SELECT id, what, n FROM note ORDER BY id');
$a->safe_psql('postgres', q{SELECT synchro.reset('b')});
$a->safe_psql('postgres', 'UPDATE note SET n = n + 1000');
is(sync($a, 'b')->{failed}, 0, 'counted anew on b: a pushes when its references are forgotten');
is(rows($b, 'SELECT id, what, n FROM note WHERE n < 1000 ORDER BY id'), $there, 'counted anew on b: and does not write over what b has');

$_->stop('fast') foreach $a, $b;
done_testing();
