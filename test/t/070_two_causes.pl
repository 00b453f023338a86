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

$_->stop('fast') foreach $local, $remote;
done_testing();
