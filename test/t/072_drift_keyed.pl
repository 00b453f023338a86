# WHY: 072_drift and 072_drift_matrix have tables that are found by natural key and by stored reference. Where rows are found by their
# primary keys, whose values are the same on both sides, nothing is looked up and no pairs are stored: whatever happens to the
# columns of the key, or to the table, is noticed there or nowhere, and a row written by a key that is none is another's.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');
my $keyed = q{CREATE TABLE %s (region text, no int, label text, n numeric, PRIMARY KEY (region, no))};
my $contents = 'SELECT region, no, label, n FROM keyed ORDER BY 1, 2';

both($local, $remote, sprintf($keyed, 'keyed') . '; CREATE SCHEMA shop; CREATE TABLE others (name text PRIMARY KEY, n int)');
connect_remote($local, $remote, schemas => [ 'public', 'shop' ]);
here(<<'SQL');
SELECT synchro.add_table('keyed'), synchro.add_table('others');
INSERT INTO keyed SELECT CASE WHEN i % 2 = 0 THEN 'north' ELSE 'south' END, i, 'row ' || i, i FROM generate_series(1, 20) i;
INSERT INTO others VALUES ('other', 0);
SQL
goes_on('to begin with');
is(rows($local, q{SELECT DISTINCT mode FROM synchro.tables}), 'primary key', 'rows are found by their primary keys');

sub here { return $local->safe_psql('postgres', "SET client_min_messages = error; $_[0]") }
sub there { return $remote->safe_psql('postgres', "SET client_min_messages = error; $_[0]") }

sub goes_on
{
	my ($testname, $query) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	here(q{SELECT synchro.retry('office')});
	is(sync($local, 'office')->{failed}, 0, "$testname: nothing fails") or diag(rows($local, 'SELECT relation, key, message, detail FROM synchro.failures'));
	same($local, $remote, $query || $contents, "$testname: all is the same");
	return;
}

# The table stalls with a reason, its rows there are as they were, and others go on.
sub stalls
{
	my ($testname, $change, $reason, $looked_at) = @_;
	my $before = rows($remote, $looked_at || 'SELECT * FROM keyed ORDER BY 1, 2');

	here("$change; UPDATE others SET n = n + 1");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sync($local, 'office');
	like(rows($local, q{SELECT concat_ws(' ', relation, 'key ' || key, sqlstate || ':', message, detail, 'HINT: ' || hint) FROM synchro.failures}), $reason, "$testname: with a reason");
	is(rows($remote, $looked_at || 'SELECT * FROM keyed ORDER BY 1, 2'), $before, "$testname: nothing is written there");
	same($local, $remote, 'SELECT * FROM others', "$testname: others go on");
	return;
}

my $change = q{UPDATE keyed SET n = n + 1 WHERE no IN (1, 2); INSERT INTO keyed SELECT 'new', max(no) + 1, 'new', 0 FROM keyed; DELETE FROM keyed WHERE no = (SELECT min(no) FROM keyed WHERE no > 2 AND region <> 'new')};

# columns that are values
there('ALTER TABLE keyed DROP label');
stalls('a column dropped there', $change, qr/^keyed 42703: table public\.keyed of remote "office" has no column "label".* HINT: /s);
there('ALTER TABLE keyed ADD label text');
here(q{UPDATE keyed SET label = label || '!'});
goes_on('a column dropped there, and made again');
there('ALTER TABLE keyed RENAME label TO title');
stalls('a column renamed there', $change, qr/^keyed 42703: .*no column "label"/s);
here('ALTER TABLE keyed RENAME label TO title');
goes_on('a column renamed there, and here', $contents =~ s/label/title/r);
both($local, $remote, 'ALTER TABLE keyed RENAME title TO label');
there('ALTER TABLE keyed ALTER n TYPE int');
stalls('a column retyped there', 'UPDATE keyed SET n = 2.5 WHERE no = 20', qr/^keyed key north, 20 22P02: .*integer: "2\.5".*HINT: /s);
there('ALTER TABLE keyed ALTER n TYPE numeric');
goes_on('a column retyped there, and back');

# columns of the key
there('ALTER TABLE keyed RENAME no TO number');
stalls('a column of the key renamed there', $change, qr/^keyed 42703: .*no column "no".* HINT: /s);
here('ALTER TABLE keyed RENAME no TO number');
goes_on('a column of the key renamed there, and here', $contents =~ s/no/number/r);
both($local, $remote, 'ALTER TABLE keyed RENAME number TO no');
here('ALTER TABLE keyed RENAME no TO number');
stalls('a column of the key renamed here', $change =~ s/\bno\b/number/gr, qr/^keyed 42703: .*no column "number".* HINT: /s);
there('ALTER TABLE keyed RENAME no TO number');
goes_on('a column of the key renamed here, and there', $contents =~ s/no/number/r);
both($local, $remote, 'ALTER TABLE keyed RENAME number TO no');
goes_on('a column of the key called as before');
there('ALTER TABLE keyed DROP region');
stalls('a column of the key dropped there', $change, qr/^keyed 42703: .*no column "region".* HINT: /s);
there(sprintf "DROP TABLE keyed; $keyed", 'keyed');
there('GRANT SELECT, INSERT, UPDATE, DELETE ON keyed TO sync');
here('UPDATE keyed SET n = n + 1');
goes_on('made again there');
there('ALTER TABLE keyed ALTER no TYPE text');
here($change);
goes_on('a column of the key retyped there', $contents =~ s/\bno,/no::int,/r =~ s/ORDER BY 1, 2/ORDER BY region, no::int/r);
there('ALTER TABLE keyed ALTER no TYPE int USING no::int');
goes_on('a column of the key retyped there, and back');

# what was the key is not unique any more: a row is still found by it, and no second one is made
there('ALTER TABLE keyed DROP CONSTRAINT keyed_pkey');
here($change);
goes_on('the key dropped there');
there('ALTER TABLE keyed ADD PRIMARY KEY (region, no)');
goes_on('the key dropped there, and made again');

# columns of one type that exchange their names: names decide, on both sides
both($local, $remote, 'CREATE TABLE pairs (a int, b int, v text, PRIMARY KEY (a, b))');
there('GRANT SELECT, INSERT, UPDATE, DELETE ON pairs TO sync');
here(q{SELECT synchro.add_table('pairs'); INSERT INTO pairs SELECT i, 100 + i, 'v' || i FROM generate_series(1, 10) i});
my $pairs = 'SELECT a, b, v FROM pairs ORDER BY 1, 2';

goes_on('pairs', $pairs);
my $exchange = 'BEGIN; ALTER TABLE pairs RENAME a TO c; ALTER TABLE pairs RENAME b TO a; ALTER TABLE pairs RENAME c TO b; COMMIT';

here('UPDATE pairs SET v = v || \'!\' WHERE a <= 5; DELETE FROM pairs WHERE a = 6');
both($local, $remote, $exchange);
here('UPDATE pairs SET v = v || \'?\' WHERE b <= 3; UPDATE pairs SET a = a + 1000 WHERE b = 9; DELETE FROM pairs WHERE b = 7');
goes_on('columns of the key exchange their names', $pairs);

#
# tables that are called otherwise, or elsewhere
#
both($local, $remote, sprintf $keyed, 'twin');
there('GRANT SELECT, INSERT, UPDATE, DELETE ON twin TO sync');
here(q{SELECT synchro.add_table('twin'); INSERT INTO twin SELECT region, no, 'twin ' || no, -n FROM keyed});
goes_on('a second table', $contents =~ s/keyed/twin/r);
here($change);
both($local, $remote, 'BEGIN; ALTER TABLE keyed RENAME TO other; ALTER TABLE twin RENAME TO keyed; ALTER TABLE other RENAME TO twin; COMMIT');
here("UPDATE keyed SET n = n - 7 WHERE no % 3 = 0; DELETE FROM twin WHERE no = 12; UPDATE twin SET region = 'moved' WHERE no = 14");
goes_on('tables exchange their names');
same($local, $remote, $contents =~ s/keyed/twin/r, 'tables exchange their names: the other one');
both($local, $remote, 'BEGIN; ALTER TABLE keyed RENAME TO other; ALTER TABLE twin RENAME TO keyed; ALTER TABLE other RENAME TO twin; COMMIT');
foreach my $case ([ 'renamed', 'ALTER TABLE keyed RENAME TO renamed', 'renamed', 'ALTER TABLE renamed RENAME TO keyed' ],
	[ 'moved', 'ALTER TABLE keyed SET SCHEMA shop', 'shop.keyed', 'ALTER TABLE shop.keyed SET SCHEMA public' ])
{
	my ($what, $do, $name, $undo) = @$case;

	here($do);
	stalls("$what here", $change =~ s/\bkeyed\b/$name/gr, qr/42P01: remote "office" has no table (public\.)?$name HINT: Create the table there/);
	there($do);
	goes_on("$what here, and there", $contents =~ s/keyed/$name/r);
	there($undo);
	stalls("$what there", $change =~ s/\bkeyed\b/$name/gr, qr/42P01: remote "office" has no table (public\.)?$name HINT: /);
	here($undo);
	goes_on("$what there, and here");
}

#
# tables that are gone, and made again
#
there('DROP TABLE keyed');
stalls('dropped there', $change, qr/^keyed 42P01: remote "office" has no table public\.keyed HINT: Create the table there/, 'SELECT 1');
there(sprintf $keyed, 'keyed');
there('GRANT SELECT, INSERT, UPDATE, DELETE ON keyed TO sync');
here(q{SELECT synchro.copy_table('office', 'keyed')});
goes_on('dropped there, made again and copied');
here('UPDATE keyed SET n = -1; DROP TABLE keyed');
is(sync($local, 'office')->{failed}, 0, 'dropped here: nothing fails');
is(rows($remote, 'SELECT count(*) FROM keyed WHERE n = -1'), '0', 'dropped here: nothing of it is pushed');
cmp_ok(rows($remote, 'SELECT count(*) FROM keyed'), '>', 10, 'dropped here: its rows there stay');
here(sprintf $keyed, 'keyed');
here(q{SELECT synchro.add_table('keyed'); INSERT INTO keyed VALUES ('north', 4, 'again', 1), ('far', 1, 'again', 1)});
is(sync($local, 'office')->{failed}, 0, 'made again here: nothing fails');
is(rows($remote, q{SELECT string_agg(region || no, ' ' ORDER BY region) FROM keyed WHERE label = 'again'}), 'far1 north4', 'made again here: a row is found by its key');

# ids that a sequence gives from now on are still those of both: how rows are found is decided when a table is added
both($local, $remote, 'CREATE TABLE numbered (no int PRIMARY KEY, label text)');
there('GRANT SELECT, INSERT, UPDATE, DELETE ON numbered TO sync');
here(q{SELECT synchro.add_table('numbered'); INSERT INTO numbered SELECT i, 'row ' || i FROM generate_series(1, 10) i});
my $numbered = 'SELECT no, label FROM numbered ORDER BY no';

goes_on('numbers', $numbered);
here(q{ALTER TABLE numbered ALTER no ADD GENERATED BY DEFAULT AS IDENTITY (START 11); UPDATE numbered SET label = label || '!' WHERE no % 2 = 0; INSERT INTO numbered (label) VALUES ('eleven')});
goes_on('numbers from a sequence', $numbered);

$local->stop('fast');
$remote->stop('fast');
done_testing();
