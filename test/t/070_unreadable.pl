# WHY: not only the remote can refuse a row. A value that is damaged here, or that its type will not give as text, is met by each
# batch that has the row, so nothing would ever be pushed any more. Such a row has to wait alone, and say which it is, like one
# that the remote does not take.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TYPE mood AS ENUM ('good', 'fine', 'bad');
CREATE TABLE by_name (id serial PRIMARY KEY, name text NOT NULL UNIQUE, mood mood, n int);
CREATE TABLE by_key (id int PRIMARY KEY, name text NOT NULL, mood mood, n int);
CREATE TABLE by_reference (id serial PRIMARY KEY, name text NOT NULL, mood mood, n int);
CREATE TABLE kinds (id serial PRIMARY KEY, kind mood NOT NULL UNIQUE);
CREATE TABLE kids (id serial PRIMARY KEY, name text NOT NULL UNIQUE, kind_id int REFERENCES kinds);
CREATE TABLE docs (name text PRIMARY KEY, body text, n int);
ALTER TABLE docs ALTER body SET STORAGE EXTERNAL;
SQL
$remote->safe_psql('postgres', "SELECT setval('${_}_id_seq', 10000)") foreach 'by_name', 'by_reference', 'kinds', 'kids';
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('by_name', '{name}'), synchro.add_table('by_key'), synchro.add_table('by_reference'), synchro.add_table('kinds', '{kind}'),
	synchro.add_table('kids', '{name}'), synchro.add_table('docs');
INSERT INTO kinds (kind) VALUES ('good'), ('bad');
CREATE TABLE label AS SELECT * FROM pg_enum WHERE enumtypid = 'mood'::regtype AND enumlabel = 'bad';
SQL

my @tables = ('by_name', 'by_key', 'by_reference');

# A label that is gone is what damage to a value looks like: it is there, but cannot be shown.
sub damage { return $local->safe_psql('postgres', q{DELETE FROM pg_enum WHERE enumtypid = 'mood'::regtype AND enumlabel = 'bad'}) }
sub mend { return $local->safe_psql('postgres', 'INSERT INTO pg_enum SELECT * FROM label') }

foreach my $atomic ('off', 'on')
{
	my $testname = "atomic_pass $atomic";

	reload_with($local, 'synchro.atomic_pass' => $atomic);
	foreach my $table (@tables)
	{
		$local->safe_psql('postgres', "DELETE FROM $table; INSERT INTO $table (id, name, mood, n) SELECT i, 'row ' || i, 'good', 0 FROM generate_series(1, 40) i; UPDATE $table SET mood = 'bad' WHERE id = 7");
	}
	is(sync($local, 'office')->{failed}, 0, "$testname: to begin with");
	foreach my $table (@tables)
	{
		my $renamed = $table eq 'by_key' ? 'id = id + 100' : q{name = name || '!'};

		$local->safe_psql('postgres', <<"SQL");
UPDATE $table SET n = 1, mood = CASE WHEN id IN (3, 9) THEN 'bad' ELSE mood END WHERE id <= 20 AND id <> 7;
DELETE FROM $table WHERE id = 7;
UPDATE $table SET $renamed, n = 1, mood = CASE WHEN id = 25 THEN 'bad' ELSE mood END WHERE id BETWEEN 21 AND 30;
INSERT INTO $table (id, name, mood, n) VALUES (50, 'new', 'fine', 1), (51, 'new and bad', 'bad', 1);
SQL
	}
	$local->safe_psql('postgres', "INSERT INTO kids (name, kind_id) VALUES ('good $atomic', 1), ('bad $atomic', 2)");
	damage();
	is(rows($local, q{SELECT count(*), count(*) FILTER (WHERE detail ~ 'invalid internal value for enum'), string_agg(detail, '') FILTER (WHERE relation = 'kids'::regclass) FROM synchro.preview('office') WHERE action = 'fail'}),
		'13|12|22P03: row of table public.kinds, which it needs, could not be read on this side', "$testname: a preview tells");
	is(sync($local, 'office')->{failed}, 3 * 4 + 1, "$testname: what cannot be read waits");
	is(rows($local, 'SELECT relation, count(*) FROM synchro.failures GROUP BY relation ORDER BY relation::text'), "by_key|4\nby_name|4\nby_reference|4\nkids|1", "$testname: of each table");
	is(rows($local, q{SELECT DISTINCT relation::text = 'kids', sqlstate, regexp_replace(message, '\d+', 'N'), hint FROM synchro.failures ORDER BY 1}),
		"f|22P03|invalid internal value for enum: N|Mend the row here, or delete it.\nt|22P03|row of table public.kinds, which it needs, could not be read on this side|Mend the row here, or delete it.",
		"$testname: it is said why");
	is(rows($local, q{SELECT DISTINCT detail FROM synchro.failures WHERE relation::text = 'by_name'}),
		'A row of table public.by_name could not be read on this side.', "$testname: and of which table");
	foreach my $table (@tables)
	{
		is(rows($remote, "SELECT count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n = 0), count(*) FILTER (WHERE name LIKE '%bad' OR id = 7) FROM $table"), (17 + 9 + 1) . '|13|0',
			"$testname: all others of $table are there, and what was deleted is not");
	}
	is(rows($remote, "SELECT count(*) FROM kids WHERE name LIKE '%$atomic'"), '1', "$testname: and of what refers to them");

	# it is as with any row that fails: the others go on, and it is tried again
	$local->safe_psql('postgres', "UPDATE $_ SET n = 2 WHERE id IN (3, 4)") foreach @tables;
	is(sync($local, 'office')->{failed}, 3 * 4 + 1, "$testname: they wait still");
	is(rows($remote, "SELECT string_agg(name || ' ' || n, ' ' ORDER BY name) FROM by_name WHERE name IN ('row 3', 'row 4')"), 'row 3 0 row 4 2', "$testname: the others go on");
	mend();
	$local->safe_psql('postgres', q{SELECT synchro.retry('office')});
	is(sync($local, 'office')->{failed}, 0, "$testname: mended, all go");
	same($local, $remote, "SELECT name, mood, n FROM $_ ORDER BY name", "$testname: all of $_") foreach @tables;
	same($local, $remote, 'SELECT c.name, k.kind FROM kids c JOIN kinds k ON k.id = c.kind_id ORDER BY c.name', "$testname: under the right parents");
}
reload_with($local, 'synchro.atomic_pass' => 'off');

#
# What waits is named by batches that delete what it may refer to, and by those of its table. If that cannot be read either, they go without.
#
both($local, $remote, <<'SQL');
CREATE TABLE sorts (id serial PRIMARY KEY, kind mood NOT NULL UNIQUE);
CREATE TABLE parts (id serial PRIMARY KEY, sort_id int NOT NULL REFERENCES sorts ON DELETE CASCADE, name text NOT NULL, n int, UNIQUE (sort_id, name));
SQL
$remote->safe_psql('postgres', q{SELECT setval('sorts_id_seq', 1000), setval('parts_id_seq', 1000)});
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('sorts', '{kind}'), synchro.add_table('parts', '{sort_id,name}');
INSERT INTO sorts (kind) VALUES ('good'), ('bad'), ('fine');
INSERT INTO parts (sort_id, name, n) SELECT s, 'part ' || s || i, 0 FROM generate_series(1, 2) s, generate_series(1, 20) i;
SQL
is(sync($local, 'office')->{failed}, 0, 'names that cannot be read: to begin with');
$remote->safe_psql('postgres', q{ALTER TABLE parts ADD CONSTRAINT small CHECK (n < 100)});
$local->safe_psql('postgres', q{UPDATE parts SET n = 1000, name = name || '!' WHERE name = 'part 13'});
damage();
$local->safe_psql('postgres', q{UPDATE parts SET name = name || '!' WHERE name = 'part 21'; UPDATE parts SET n = 1 WHERE name = 'part 22'});
is(sync($local, 'office')->{failed}, 3, 'names that cannot be read: two rows wait for that, and one for something else');
$local->safe_psql('postgres', q{DELETE FROM sorts WHERE kind = 'fine'});
my $passed = sync($local, 'office');
is("$passed->{deleted}|$passed->{failed}", '1|3', 'names that cannot be read: others are deleted');
$local->safe_psql('postgres', q{UPDATE parts SET n = 2 WHERE name LIKE 'part 1%' AND n = 0; UPDATE parts SET name = 'renamed' WHERE name = 'part 15'; DELETE FROM parts WHERE name IN ('part 16', 'part 23'); INSERT INTO parts (sort_id, name, n) VALUES (1, 'part 13', 3)});
$passed = sync($local, 'office');
is("$passed->{failed}", 5, 'names that cannot be read: what else is of the table goes, but for a deleted row that cannot be named itself, and for a name that is taken there');
is(rows($remote, q{SELECT count(*) FILTER (WHERE n = 2), count(*) FILTER (WHERE name = 'renamed'), count(*) FILTER (WHERE name = 'part 13' AND n = 0) FROM parts}), '18|1|1',
	'names that cannot be read: they are there');
$local->safe_psql('postgres', q{INSERT INTO sorts (kind) VALUES ('fine')});
sync($local, 'office');
$local->safe_psql('postgres', q{DELETE FROM sorts WHERE kind = 'fine'; UPDATE parts SET sort_id = 2 WHERE name = 'renamed'});
$passed = sync($local, 'office');
is("$passed->{deleted}|$passed->{failed}", '1|6', 'names that cannot be read: once more');
mend();
$remote->safe_psql('postgres', 'ALTER TABLE parts DROP CONSTRAINT small');
$local->safe_psql('postgres', q{SELECT synchro.retry('office')});
sync($local, 'office') foreach 1 .. 2;
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'names that cannot be read: mended, all go');
same($local, $remote, 'SELECT s.kind, p.name, p.n FROM sorts s LEFT JOIN parts p ON p.sort_id = s.id ORDER BY 1, 2', 'names that cannot be read: all is the same');

#
# a page of values that is lost
#
$local->safe_psql('postgres', q{INSERT INTO docs SELECT 'doc ' || i, repeat(md5(i::text), 3000), 0 FROM generate_series(1, 3) i});
my $file = $local->data_dir . '/' . rows($local, q{CHECKPOINT; SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE relname = 'docs'});
my $pages = -s $file;

$local->stop('fast');
{
	# some in the middle
	my $zeros = "\0" x 8192;

	open my $fh, '+<', $file or die "$file: $!";
	binmode $fh;
	seek $fh, 8192 * int($pages / 8192 / 2), 0 or die "$file: $!";
	print $fh $zeros or die "$file: $!";
	close $fh or die "$file: $!";
}
$local->start;
is(sync($local, 'office')->{failed}, 1, 'a lost page: the row waits');
like(rows($local, 'SELECT relation, key, operation, sqlstate, message, detail FROM synchro.failures'),
	qr/^docs\|doc 2\|insert\|XX001\|unexpected chunk number \d+ .*\|A row of table public\.docs could not be read on this side\.$/, 'a lost page: it is said why');
same($local, $remote, q{SELECT name, md5(body) FROM docs WHERE name <> 'doc 2' ORDER BY name}, 'a lost page: the others go');
$remote->safe_psql('postgres', 'TRUNCATE docs');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'docs')});
is(sync($local, 'office')->{failed}, 1, 'a lost page, copied: the row waits');
same($local, $remote, q{SELECT name, md5(body) FROM docs WHERE name <> 'doc 2' ORDER BY name}, 'a lost page, copied: the others go');
$local->safe_psql('postgres', q{UPDATE docs SET body = 'written anew' WHERE name = 'doc 2'});
is(sync($local, 'office')->{failed}, 0, 'a lost page, mended: it goes');
same($local, $remote, 'SELECT name, md5(body) FROM docs ORDER BY name', 'a lost page, mended: all are there');

#
# a page of rows that is damaged: those on it wait, and a copy, which cannot get past it
#
both($local, $remote, 'CREATE TABLE pages (id int PRIMARY KEY, filler text NOT NULL); CREATE TABLE others (id int PRIMARY KEY)');
$remote->safe_psql('postgres', 'GRANT SELECT, INSERT, UPDATE, DELETE ON pages, others TO sync');
$local->safe_psql('postgres', q{SELECT synchro.add_table('pages'), synchro.add_table('others'); INSERT INTO pages SELECT i, repeat('x', 1000) FROM generate_series(1, 28) i});
my $rows_file = $local->data_dir . '/' . rows($local, q{CHECKPOINT; SELECT pg_relation_filepath('pages')});
my $damaged = rows($local, q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM pages WHERE (ctid::text::point)[0] = 1});
my $kept;

sub page
{
	my ($content) = @_;
	my $before;

	$local->stop('fast');
	open my $fh, '+<', $rows_file or die "$rows_file: $!";
	binmode $fh;
	seek $fh, 8192, 0 or die "$rows_file: $!";
	read $fh, $before, 8192 or die "$rows_file: $!";
	seek $fh, 8192, 0 or die "$rows_file: $!";
	print $fh $content or die "$rows_file: $!";
	close $fh or die "$rows_file: $!";
	$local->start;
	return $before;
}

$kept = page('damage' x 1000);
$local->safe_psql('postgres', 'INSERT INTO others VALUES (1)');
is(sync($local, 'office')->{failed}, scalar(split ' ', $damaged), 'a damaged page: its rows wait');
is(rows($local, q{SELECT string_agg(key, ' ' ORDER BY key::int) FROM synchro.failures WHERE sqlstate = 'XX001'}), $damaged, 'a damaged page: only those');
is(rows($remote, 'SELECT count(*) FROM pages'), 28 - split(' ', $damaged), 'a damaged page: the others go');
is(rows($remote, 'SELECT count(*) FROM others'), 1, 'a damaged page: and of other tables');
page($kept);
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'pages'); INSERT INTO others VALUES (2)});
page('damage' x 1000);
sync($local, 'office');
is(rows($local, q{SELECT relation, sqlstate FROM synchro.failures WHERE key IS NULL}), 'pages|XX001', 'a damaged page: a copy stalls its table');
is(rows($remote, 'SELECT count(*) FROM others'), 2, 'a damaged page: other tables go on');
page($kept);
is(sync($local, 'office')->{failed}, 0, 'a damaged page, mended: all go');
same($local, $remote, 'SELECT id, md5(filler) FROM pages ORDER BY id', 'a damaged page, mended: they are the same');

#
# a name that the log has of a row that is gone: it is read before all rows, by a worker that is new, or that has read rows of another table last
#
both($local, $remote, 'CREATE TABLE moods (id serial PRIMARY KEY, kind mood NOT NULL UNIQUE)');
$remote->safe_psql('postgres', 'GRANT SELECT, INSERT, UPDATE, DELETE ON moods TO sync; GRANT USAGE ON moods_id_seq TO sync');
$local->safe_psql('postgres', q{SELECT synchro.add_table('moods', '{kind}')});
foreach my $worker ('new', 'old')
{
	if ($worker eq 'old')
	{
		$local->append_conf('postgresql.conf', "shared_preload_libraries = 'synchro'");
		$local->restart;
	}
	$local->safe_psql('postgres', q{INSERT INTO moods (kind) VALUES ('bad'), ('good')});
	sync($local, 'office');
	$local->safe_psql('postgres', 'TRUNCATE others; INSERT INTO others VALUES (10)');
	is(sync($local, 'office')->{failed}, 0, "a name of before, $worker worker: to begin with");
	damage();
	$local->safe_psql('postgres', 'DELETE FROM moods; INSERT INTO others VALUES (11)');
	my ($status, undef, $stderr) = $local->psql('postgres', q{SELECT synchro.synchronize('office')});
	is($status, 0, "a name of before, $worker worker: the pass goes on") or diag($stderr);
	is(rows($remote, 'SELECT (SELECT count(*) FROM others WHERE id = 11), count(*) FROM moods'), '1|1', "a name of before, $worker worker: all others go");
	like(rows($local, 'SELECT relation, sqlstate, message, detail FROM synchro.failures'),
		qr/^moods\|22P03\|invalid internal value for enum: \d+\|A row of table public\.moods could not be read on this side\.$/, "a name of before, $worker worker: it is said why");
	mend();
	$local->safe_psql('postgres', q{SELECT synchro.retry('office')});
	sync($local, 'office');
	is(rows($remote, 'SELECT count(*) FROM moods'), 0, "a name of before, $worker worker: mended, it goes");
}

$local->stop('fast');
$remote->stop('fast');
done_testing();
