# WHY: a copy that deletes what only the remote has must know which rows these are. Where that cannot be told, now or any more, it
# deletes nothing and says so, of its table; and all that has nothing to do with it goes on.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, join ';', map { "CREATE TABLE $_ (id serial PRIMARY KEY, code text UNIQUE, v int)" } 'item', 'other', 'third');
both($local, $remote, join ';', map { "CREATE TABLE $_ (id serial PRIMARY KEY, code text, v int)" } 'loose', 'many');
connect_remote($local, $remote);
$local->safe_psql('postgres', "SELECT synchro.add_table('$_', '{code}')") foreach 'item', 'other', 'third', 'loose', 'many';
$local->safe_psql('postgres', "INSERT INTO $_ (code) VALUES ('a'), ('b')") foreach 'item', 'other', 'third';
sync($local, 'office');

my $n = 0;
my $says = q{SELECT relation, message, hint FROM synchro.failures WHERE key IS NULL};

# Extra rows of item cannot be looked for, those of third can, and others go on.
sub stalls
{
	my ($pattern, $testname) = @_;

	$n++;
	$remote->safe_psql('postgres', q{INSERT INTO item (code) VALUES ('xtra') ON CONFLICT DO NOTHING; INSERT INTO third (code) VALUES ('xtra') ON CONFLICT DO NOTHING});
	$local->safe_psql('postgres', "SELECT synchro.copy_table('office', 'third', true), synchro.copy_table('office', 'item', true); INSERT INTO other (code) VALUES ('row $n')");
	my ($status, undef, $stderr) = $local->psql('postgres', q{SELECT synchro.synchronize('office')});
	is($status, 0, "$testname: others go on") or diag($stderr);
	like(rows($local, $says), $pattern, 'the failure says why');
	return;
}

sub deletes
{
	my ($testname) = @_;

	sync($local, 'office') foreach 1 .. 2;
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, $testname);
	is(rows($local, 'SELECT count(*) FROM synchro.copying'), 0, 'nothing is left to do');
	same($local, $remote, 'SELECT code FROM item ORDER BY 1', 'what was there only is gone');
	same($local, $remote, q{SELECT 'other', code FROM other UNION ALL SELECT 'third', code FROM third ORDER BY 1, 2}, 'and all else is there');
	return;
}

#
# a name that the remote's type refuses
#
$remote->safe_psql('postgres', 'ALTER TABLE item ALTER code TYPE varchar(5)');
$local->safe_psql('postgres', q{INSERT INTO item (code) VALUES ('too long for it')});
is(sync($local, 'office')->{failed}, 1, 'a name is too long there');
stalls(qr/^item\|rows of table public\.item on remote "office" that are not here cannot be looked for: value too long.*copy_table\('office', 'public\.item'\);$/, 'a name that is refused');
is(rows($remote, q{SELECT count(*) FROM item WHERE code = 'xtra'}), 1, 'nothing is deleted');
is(rows($remote, q{SELECT count(*) FROM other WHERE code LIKE 'row%'}), $n, 'others arrive');
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'item')});
sync($local, 'office') foreach 1 .. 2;
is(rows($local, $says), '', 'another copy in place of it deletes nothing, and mends that');
stalls(qr/value too long/, 'once more');
$local->safe_psql('postgres', q{DELETE FROM item WHERE code LIKE 'too%'});
deletes('the name is gone');

#
# what tells rows apart is gone when the copy comes to that
#
foreach my $case (
	[ 'loose', q{SELECT synchro.unregister_natural_key('loose')}, qr/loose\|extra rows of table "loose" cannot be deleted\|Register a natural key, or leave out delete_extra\./ ],
	[ 'many', q{SELECT synchro.alter_table('many', allow_many => true)}, qr/many\|extra rows of table "many" cannot be deleted\|Leave out delete_extra, or let the key match/ ])
{
	my ($table, $sql, $pattern) = @$case;

	$n++;
	$local->safe_psql('postgres', "SET synchro.log_changes = off; INSERT INTO $table (code) VALUES ('one')");
	$remote->safe_psql('postgres', "INSERT INTO $table (code) VALUES ('one'), ('two'), ('two')");
	$local->safe_psql('postgres', "SELECT synchro.copy_table('office', '$table', true); $sql; INSERT INTO other (code) VALUES ('row $n')");
	sync($local, 'office');
	like(rows($local, $says), $pattern, "$table: the failure says that it cannot be told any more");
	is(rows($remote, "SELECT count(*) FROM $table WHERE code = 'two'"), 2, 'nothing is deleted');
	is(rows($remote, "SELECT count(*) FROM other WHERE code = 'row $n'"), 1, 'others arrive');
	$local->safe_psql('postgres', "SELECT synchro.copy_table('office', '$table')");
	sync($local, 'office') foreach 1 .. 2;
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'a copy that deletes nothing takes its place');
}

#
# rows are called by those of a table that has stalled, whose new names are not there yet
#
both($local, $remote, <<'SQL');
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE child (id serial PRIMARY KEY, parent int NOT NULL REFERENCES parent, name text NOT NULL, only_there text, UNIQUE (parent, name));
CREATE TABLE grandchild (id serial PRIMARY KEY, child int NOT NULL REFERENCES child, name text NOT NULL, only_there text, UNIQUE (child, name));
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parent', '{name}'), synchro.add_table('child', '{parent,name}', '{only_there}'), synchro.add_table('grandchild', '{child,name}', '{only_there}');
INSERT INTO parent (name) VALUES ('A');
INSERT INTO child (parent, name) SELECT 1, 'child ' || g FROM generate_series(1, 3) g;
INSERT INTO grandchild (child, name) SELECT id, 'of ' || name FROM child;
SQL
sync($local, 'office');
$remote->safe_psql('postgres', q{UPDATE child SET only_there = 'kept'; UPDATE grandchild SET only_there = 'kept'; REVOKE INSERT, UPDATE ON parent FROM sync});
$local->safe_psql('postgres', q{UPDATE parent SET name = 'B'});
sync($local, 'office');
is(rows($local, $says =~ s/message, hint/sqlstate/r), 'parent|42501', 'a table has stalled');
$n++;
$local->safe_psql('postgres', "SELECT synchro.copy_table('office', 'child', true), synchro.copy_table('office', 'grandchild', true); INSERT INTO other (code) VALUES ('row $n')");

# as if that had come after their rows, while those of others were sent
$local->safe_psql('postgres', 'UPDATE synchro.copying SET rows_sent = true');
sync($local, 'office') foreach 1 .. 2;
is(rows($remote, q{SELECT count(*) FROM child WHERE only_there = 'kept'}) . rows($remote, q{SELECT count(*) FROM grandchild WHERE only_there = 'kept'}), '33',
	'rows that it gives their names to are not taken for extra ones');
is(rows($remote, "SELECT count(*) FROM other WHERE code = 'row $n'"), 1, 'others arrive');
$remote->safe_psql('postgres', q{GRANT INSERT, UPDATE ON parent TO sync; INSERT INTO child (parent, name) SELECT id, 'only there' FROM parent});
sync($local, 'office') foreach 1 .. 3;
is(rows($local, 'SELECT count(*) FROM synchro.failures') . rows($local, 'SELECT count(*) FROM synchro.copying'), '00', 'when it is mended the copy goes on');
same($local, $remote, 'SELECT p.name, c.name, g.name FROM parent p JOIN child c ON c.parent = p.id LEFT JOIN grandchild g ON g.child = c.id ORDER BY 1, 2, 3', 'and all is there');
is(rows($remote, q{SELECT count(*) FROM child WHERE only_there = 'kept'}), 3, 'the same rows');

$_->stop('fast') foreach $local, $remote;
done_testing();
