# WHY: whoever detaches a partition, to archive it or to drop it, has deleted none of its rows. That is what the README says, but a
# change of a key that was pending then had told that the row of the old key was gone here, so the remote's row went, with all
# that refers to it there. What was really deleted before has to go all the same.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');
my $node = synchro_node('node');

# Rows that have a natural key, that have only a primary key, and that have none.
foreach my $server ($local, $remote, $node)
{
	my $divided = $server == $local ? 'PARTITION BY RANGE (id)' : '';

	$server->safe_psql('postgres', <<"SQL");
CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL, n int NOT NULL DEFAULT 0) $divided;
CREATE TABLE job (id serial PRIMARY KEY, name text, n int NOT NULL DEFAULT 0) $divided;
CREATE TABLE tag (code text PRIMARY KEY, name text, n int NOT NULL DEFAULT 0) @{[$divided =~ s/id/code/r]};
SQL
}
foreach my $table ('item', 'job')
{
	$local->safe_psql('postgres', "CREATE TABLE ${table}_new PARTITION OF $table FOR VALUES FROM (1000) TO (2000)");
	$local->safe_psql('postgres', "CREATE TABLE ${table}_old PARTITION OF $table FOR VALUES FROM (1) TO (1000)");
}
$local->safe_psql('postgres', q{CREATE TABLE tag_old PARTITION OF tag FOR VALUES FROM ('a') TO ('n'); CREATE TABLE tag_new PARTITION OF tag FOR VALUES FROM ('n') TO ('zz')});

# What is on the remote only goes with the row.
foreach my $server ($remote, $node)
{
	$server->safe_psql('postgres', <<'SQL');
ALTER TABLE item ADD UNIQUE (name);
SELECT setval('item_id_seq', 500), setval('job_id_seq', 500);
CREATE TABLE item_note (row_id int NOT NULL REFERENCES item ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE job_note (row_id int NOT NULL REFERENCES job ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE tag_note (row_id text NOT NULL REFERENCES tag ON DELETE CASCADE ON UPDATE CASCADE);
SQL
}
$node->safe_psql('postgres', 'CREATE EXTENSION synchro');
connect_remote($local, $remote);
connect_remote($local, $node, name => 'plant', peer => 'none');
$node->safe_psql('postgres', q{SELECT synchro.allow_peer('sync'); SELECT synchro.add_table('item', '{name}'), synchro.add_table('job'), synchro.add_table('tag')});
$local->safe_psql('postgres', q{SELECT synchro.add_table('item', '{name}'), synchro.add_table('job'), synchro.add_table('tag')});

# By what they are known, and by what else in the primary key.
my %with = (
	item => { rename => q{name = name || '!'}, move => 'id = id + 300', id => 'id', bounds => '(1) TO (1000)' },
	job => { rename => 'id = id + 300', move => 'id = id + 300', id => 'id', bounds => '(1) TO (1000)' },
	tag => { rename => q{code = code || '!'}, move => q{code = code || '!'}, id => 'code', bounds => q{('a') TO ('n')} });

# Rows 1 to 6 in the old partition, and two others.
sub begin
{
	my ($table) = @_;

	$local->safe_psql('postgres', $table eq 'tag' ?
		q{DELETE FROM tag; INSERT INTO tag (code, name) SELECT v, v FROM unnest('{a1,a2,a3,a4,a5,a6,x1,x2}'::text[]) v} :
		qq{DELETE FROM $table; INSERT INTO $table (id, name) SELECT i, 'a' || i FROM generate_series(1, 6) i; INSERT INTO $table (id, name) VALUES (1001, 'x1'), (1002, 'x2')});
	sync($local);
	foreach my $server ($remote, $node)
	{
		$server->safe_psql('postgres', "INSERT INTO ${table}_note SELECT $with{$table}{id} FROM $table");
	}
	return;
}

# What is there, by the name that rows began with, and whether something refers to it still.
sub there
{
	my ($server, $table) = @_;
	my $id = $with{$table}{id};

	return rows($server, "SELECT string_agg(name || ' ' || n || CASE WHEN EXISTS (SELECT FROM ${table}_note WHERE row_id = $id) THEN '' ELSE ' alone' END, ', ' ORDER BY name) FROM $table");
}

sub attach { return "ALTER TABLE $_[0] ATTACH PARTITION $_[0]_old FOR VALUES FROM $with{$_[0]}{bounds}" }

# What a push deletes on both, and what is there then.
sub pushed
{
	my ($table, $testname, $expected, $deleted) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $result (sync($local))
	{
		is("$result->{deleted}|$result->{failed}", "$deleted|0", "$table, $result->{remote}: $testname: what is deleted");
	}
	is(there($remote, $table), $expected, "$table: $testname: the remote's rows");
	is(there($node, $table), $expected, "$table: $testname: the node's rows");
	return;
}

# So that all begin with the same.
sub clear
{
	my ($table) = @_;

	$local->safe_psql('postgres', "DELETE FROM $table");
	sync($local);
	foreach my $server ($remote, $node)
	{
		$server->safe_psql('postgres', "DELETE FROM $table");
	}
	$local->safe_psql('postgres', 'SELECT synchro.reset()');
	return;
}

# Detached after a change, nothing else may become of the remotes' rows than is said.
sub detached
{
	my ($table, $testname, $change, $expected, %opts) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	begin($table);
	$local->safe_psql('postgres', $change);
	$local->safe_psql('postgres', "ALTER TABLE $table DETACH PARTITION ${table}_old" . ($opts{concurrently} ? ' CONCURRENTLY' : ''));
	$local->safe_psql('postgres', $opts{after}) if $opts{after};
	pushed($table, $testname, $expected, $opts{deleted} // 0);
	$local->safe_psql('postgres', attach($table)) if !$opts{attached};
	clear($table);
	return;
}

my $all = 'a1 0, a2 0, a3 0, a4 0, a5 0, a6 0, x1 0, x2 0';

foreach my $table ('item', 'job', 'tag')
{
	my $is = $table eq 'tag' ? q{code = 'a2'} : 'id = 2';
	my ($rename, $move) = @{ $with{$table} }{ 'rename', 'move' };

	detached($table, 'renamed', "UPDATE $table SET $rename WHERE $is", $all);
	detached($table, 'its primary key changed', "UPDATE $table SET $move WHERE $is", $all);
	detached($table, 'both, with a value, in two transactions', "UPDATE $table SET $rename, n = 1 WHERE $is; UPDATE $table SET $move, n = 2 WHERE name LIKE 'a2%'", $all);
	detached($table, 'all renamed', "UPDATE $table SET $rename WHERE name LIKE 'a%'; UPDATE $table SET n = 3 WHERE name = 'x1'", $all =~ s/x1 0/x1 3/r);
	detached($table, 'changed', "UPDATE $table SET n = 1 WHERE $is", $all);
	detached($table, 'deleted', "DELETE FROM $table WHERE $is", $all =~ s/a2 0, //r, deleted => 1);
	detached($table, 'renamed, then deleted', "UPDATE $table SET $rename WHERE $is; DELETE FROM $table WHERE name LIKE 'a2%'", $all =~ s/a2 0, //r, deleted => 1);
	detached($table, 'changed, renamed and deleted in one transaction', "BEGIN; UPDATE $table SET n = 1 WHERE $is; UPDATE $table SET $rename WHERE $is; UPDATE $table SET n = 2 WHERE name LIKE 'a2%'; DELETE FROM $table WHERE name LIKE 'a2%'; COMMIT",
		$all =~ s/a2 0, //r, deleted => 1);
	detached($table, 'deleted, made anew and deleted', "BEGIN; DELETE FROM $table WHERE $is; INSERT INTO $table SELECT (r).* FROM (SELECT jsonb_populate_record(NULL::$table, '{\"id\": 2, \"code\": \"a2\", \"name\": \"a2\", \"n\": 1}') r) x; DELETE FROM $table WHERE $is; COMMIT",
		$all =~ s/a2 0, //r, deleted => 1);
	detached($table, 'renamed and attached again', "UPDATE $table SET $rename, n = 5 WHERE $is",
		$table eq 'item' ? $all =~ s/a2 0/a2! 5/r : $all =~ s/a2 0/a2 5/r, attached => 1, after => attach($table));
	detached($table, 'emptied', "UPDATE $table SET $rename WHERE $is; TRUNCATE ${table}_old", 'x1 0, x2 0', deleted => 6);
	detached($table, 'renamed, and dropped', "UPDATE $table SET $rename WHERE name LIKE 'a%'", $all, attached => 1,
		after => "DROP TABLE ${table}_old; CREATE TABLE ${table}_old PARTITION OF $table FOR VALUES FROM $with{$table}{bounds}");
	detached($table, 'detached concurrently', "UPDATE $table SET $rename WHERE $is", $all, concurrently => 1);

	# emptied after the log has been read, which shows through any snapshot
	begin($table);
	$local->safe_psql('postgres', "UPDATE $table SET $rename WHERE $is");
	my $other = $local->background_psql('postgres', on_error_stop => 1);
	$other->query_safe("BEGIN; LOCK TABLE ${table}_old");
	my $push = $local->background_psql('postgres', on_error_stop => 0);
	$push->query_until(qr/begun/, "\\echo begun\nSELECT synchro.synchronize('office');\n");
	wait_for($local, "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '${table}_old'::regclass AND NOT granted)", "$table: rows are about to be read");
	$other->query_safe("TRUNCATE ${table}_old; COMMIT");
	$other->quit;
	$push->quit;
	sync($local);
	is(there($remote, $table), 'x1 0, x2 0', "$table: emptied while it was read");
	clear($table);
}

#
# it goes on by itself
#
foreach my $server ($remote, $node)
{
	$server->safe_psql('postgres', 'CREATE TABLE item_old (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int NOT NULL DEFAULT 0)');
}
$node->safe_psql('postgres', q{SELECT synchro.add_table('item_old', '{name}')});
begin('item');
$local->safe_psql('postgres', q{UPDATE item SET name = 'a2!' WHERE id = 2; DELETE FROM item WHERE id = 3; ALTER TABLE item DETACH PARTITION item_old;
	SELECT synchro.add_table('item_old', '{name}'); UPDATE item_old SET n = 1 WHERE id = 2; DELETE FROM item_old WHERE id = 4});
pushed('item', 'watched by itself', $all =~ s/a3 0, //r, 1);
foreach my $server ($remote, $node)
{
	is(rows($server, 'SELECT name, n FROM item_old'), 'a2!|1', 'what it has since then goes to a table of its own');
}

$_->stop('fast') foreach $local, $remote, $node;
done_testing();
