# WHY: a table of which nothing can be pushed stalls, and a row that is refused is parked: each by itself stops nothing. When both
# come together, the search for the row meets the table's error, which is no row's. It must find the table by that, or nothing at
# all is pushed until somebody comes.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

# aaa and zzz are without rights, before and after the one of which a row is refused
both($local, $remote, <<'SQL');
CREATE TABLE aaa (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE named (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE child (id serial PRIMARY KEY, named int NOT NULL REFERENCES named, name text, UNIQUE (named, name));
CREATE TABLE zzz (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE other (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('aaa', '{name}'), synchro.add_table('named', '{name}'), synchro.add_table('child', '{named,name}'),
	synchro.add_table('zzz', '{name}'), synchro.add_table('other', '{name}');
INSERT INTO aaa (name) VALUES ('A'); INSERT INTO named (name) VALUES ('A'); INSERT INTO zzz (name) VALUES ('A');
SQL
sync($local, 'office');

my $failures = q{SELECT string_agg(relation::text, ' ' ORDER BY relation::text) FROM synchro.failures};
my $n = 0;
foreach my $atomic ('off', 'on')
{
	foreach my $table ('aaa', 'zzz')
	{
		reload_with($local, 'synchro.atomic_pass' => $atomic);
		$remote->safe_psql('postgres', "REVOKE INSERT, UPDATE ON $table FROM sync; ALTER TABLE named ADD CONSTRAINT no_b CHECK (name <> 'B')");
		$local->safe_psql('postgres', "UPDATE $table SET name = 'B'; UPDATE named SET name = 'B'");
		sync($local, 'office');
		is(rows($local, $failures), join(' ', sort $table, 'named'), "$table without rights and a row that is refused, atomic $atomic: both have failed");

		# what needs the row's name has that tried with it
		foreach my $i (1 .. 2)
		{
			$n++;
			$local->safe_psql('postgres', "INSERT INTO child (named, name) VALUES (1, 'child $n'); INSERT INTO other (name) VALUES ('other $n')");
			my ($status, undef, $stderr) = $local->psql('postgres', q{SELECT synchro.synchronize('office')});
			is($status, 0, 'the others go on') or diag($stderr);
			is(rows($remote, 'SELECT count(*) FROM other'), $n, 'and arrive');
		}
		$remote->safe_psql('postgres', "GRANT INSERT, UPDATE ON $table TO sync; ALTER TABLE named DROP CONSTRAINT no_b");
		sync($local, 'office') foreach 1 .. 2;
		is(rows($local, $failures), '', 'both are mended');
		same($local, $remote, "SELECT '$table', name FROM $table UNION ALL SELECT 'named', name FROM named UNION ALL SELECT n.name, c.name FROM child c JOIN named n ON n.id = c.named ORDER BY 1, 2",
			'all is there');
		$local->safe_psql('postgres', "UPDATE $table SET name = 'A'; UPDATE named SET name = 'A'");
		sync($local, 'office');
	}
}

# what has stalled since nothing may be deleted from it is not touched by others' deletes, though it is in the key of a row that waits
$local->safe_psql('postgres', q{INSERT INTO named (name) VALUES ('gone'), ('stays'); INSERT INTO child (named, name) SELECT id, 'good' FROM named WHERE name = 'stays'});
is(sync($local, 'office')->{failed}, 0, 'no right to delete: to begin with');
reload_with($local, 'synchro.atomic_pass' => 'off', 'synchro.batch_size' => 10);
$remote->safe_psql('postgres', q{REVOKE DELETE ON named FROM sync; ALTER TABLE child ADD CONSTRAINT good CHECK (name <> 'bad')});
$local->safe_psql('postgres', q{DELETE FROM named WHERE name = 'gone'; UPDATE child SET name = 'bad' WHERE name = 'good'; DELETE FROM other WHERE name = 'other 1'; DELETE FROM child WHERE name = 'child 1'});
foreach my $i (2 .. 3)
{
	sync($local, 'office');
	is(rows($local, $failures), 'child named', 'no right to delete: the table stalls, and the row waits');
	is(rows($remote, q{SELECT count(*) FROM other WHERE name IN ('other 1', 'other 2')}), 3 - $i, 'no right to delete: others are deleted');
	$local->safe_psql('postgres', "DELETE FROM child WHERE name = 'child $i'; DELETE FROM other WHERE name = 'other $i'; INSERT INTO child (named, name) SELECT id, 'new $i ' || n FROM named, generate_series(1, 30) n WHERE name = 'stays'");
}
$remote->safe_psql('postgres', 'GRANT DELETE ON named TO sync; ALTER TABLE child DROP CONSTRAINT good');
$local->safe_psql('postgres', 'SELECT synchro.retry()');
sync($local, 'office') foreach 1 .. 2;
is(rows($local, $failures), '', 'no right to delete: mended');
same($local, $remote, q{SELECT n.name, c.name FROM named n LEFT JOIN child c ON c.named = n.id UNION ALL SELECT 'other', name FROM other ORDER BY 1, 2}, 'no right to delete: all is the same');

$_->stop('fast') foreach $local, $remote;
done_testing();
