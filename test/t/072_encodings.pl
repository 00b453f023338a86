# WHY: a value that the remote's encoding does not have is one row's, and that is parked. But a table or a column may have such a name,
# which the remote cannot even be asked for: that is this table's alone, and others must go on.
use strict;
use warnings;
use utf8;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

$_->safe_psql('template1', q{CREATE DATABASE old TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'}) foreach $remote;
my ($table, $column) = ("\x{442}", "\x{446}");

utf8::encode($_) foreach $table, $column;
$local->safe_psql('postgres', qq{CREATE TABLE "$table" (id serial PRIMARY KEY, name text UNIQUE); CREATE TABLE columns (id serial PRIMARY KEY, name text NOT NULL UNIQUE, "$column" int);
	CREATE TABLE plain (id serial PRIMARY KEY, name text NOT NULL UNIQUE)});
$remote->safe_psql('old', 'CREATE TABLE columns (id serial PRIMARY KEY, name text NOT NULL UNIQUE); CREATE TABLE plain (id serial PRIMARY KEY, name text NOT NULL UNIQUE)');
connect_remote($local, $remote, remote_db => 'old', local_db => 'postgres');
$local->safe_psql('postgres', qq{SELECT synchro.add_table('"$table"', '{name}'), synchro.add_table('columns', '{name}'), synchro.add_table('plain', '{name}');
	INSERT INTO "$table" (name) VALUES ('x'); INSERT INTO columns (name) VALUES ('x'); INSERT INTO plain (name) VALUES ('x'), ('$table')});
foreach my $time (1 .. 2)
{
	is(sync($local, 'office')->{failed}, 3, "$time: two tables and a row fail");
	is(rows($local, 'SELECT relation, key, sqlstate FROM synchro.failures ORDER BY sqlstate, relation::text'), qq{"$table"||22P05\nplain|2|22P05\ncolumns||42703}, "$time: which is told");
	is(rows($remote, 'SELECT name FROM plain', 'old'), 'x', "$time: all else arrives");
}

# what they are called can be had there
$local->safe_psql('postgres', qq{ALTER TABLE "$table" RENAME TO t; ALTER TABLE columns RENAME "$column" TO n; UPDATE plain SET name = 'y' WHERE id = 2});
$remote->safe_psql('old', 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE); GRANT SELECT, INSERT, UPDATE, DELETE ON t TO sync; GRANT USAGE ON SEQUENCE t_id_seq TO sync; ALTER TABLE columns ADD n int');
is(sync($local, 'office')->{failed}, 0, 'renamed: nothing fails');
is(rows($remote, 'SELECT name FROM t UNION ALL SELECT name FROM columns UNION ALL SELECT name FROM plain ORDER BY 1', 'old'), "x\nx\nx\ny", 'renamed: all arrives');

$_->stop('fast') foreach $local, $remote;
done_testing();
