# WHY: a row that waits is called on the remote by a name that has its parent in it, known by that one's key here. When the parent got another primary
# key here (it is the key that is renamed, or a serial is changed), nobody knew any more which parent that was: the row was made a second time when it was
# mended, and the former one stayed for good; or it stayed when it was deleted.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

# the parent's key is what it is called, or has nothing to do with that; it is known by reference; it is not watched
my @parents = ('code', 'num', 'ref', 'lone');
my @refused = map { "of_$_" } @parents;
both($local, $remote, <<'SQL');
CREATE TABLE code (id text PRIMARY KEY);
CREATE TABLE num (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE ref (id serial PRIMARY KEY, label text NOT NULL);
CREATE TABLE lone (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE of_code (id serial PRIMARY KEY, par_id text NOT NULL REFERENCES code ON UPDATE CASCADE ON DELETE CASCADE, name text NOT NULL, n int NOT NULL, UNIQUE (par_id, name));
CREATE TABLE of_num (id serial PRIMARY KEY, par_id int NOT NULL REFERENCES num ON UPDATE CASCADE ON DELETE CASCADE, name text NOT NULL, n int NOT NULL, UNIQUE (par_id, name));
CREATE TABLE of_ref (id serial PRIMARY KEY, par_id int NOT NULL REFERENCES ref ON UPDATE CASCADE ON DELETE CASCADE, name text NOT NULL, n int NOT NULL, UNIQUE (par_id, name));
CREATE TABLE of_lone (id serial PRIMARY KEY, par_id int NOT NULL REFERENCES lone ON UPDATE CASCADE ON DELETE CASCADE, name text NOT NULL, n int NOT NULL, UNIQUE (par_id, name));
SQL
both($local, $remote, "CREATE TABLE below_$_ (id serial PRIMARY KEY, name text NOT NULL UNIQUE, row_id int REFERENCES $_ ON DELETE CASCADE)") foreach @refused;
$remote->safe_psql('postgres', "SELECT setval('${_}_id_seq', 1000000)") foreach 'num', 'ref', 'lone', @refused;
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('code'), synchro.add_table('num', '{name}'), synchro.add_table('ref'), synchro.register_natural_key('lone', '{name}')});
$local->safe_psql('postgres', "SELECT synchro.add_table('$_', '{par_id,name}'), synchro.add_table('below_$_', '{name}')") foreach @refused;
my %name = (code => 'id', num => 'name', ref => 'label', lone => 'name');
my $all = join(' UNION ALL ', map { "SELECT '$_', p.$name{$_}, o.name, o.n::text, b.name FROM $_ p LEFT JOIN of_$_ o ON o.par_id = p.id LEFT JOIN below_of_$_ b ON b.row_id = o.id" } @parents) . ' ORDER BY 1, 2, 3';
my $ids = join(' UNION ALL ', map { "SELECT '$_', id FROM $_" } @refused) . ' ORDER BY 1, 2';
my $rows = join '', map { "INSERT INTO $_ ($name{$_}) VALUES ('a'); INSERT INTO of_$_ (par_id, name, n) SELECT id, 'k1', 1 FROM $_ WHERE $name{$_} = 'a';"
	  . "INSERT INTO below_of_$_ (name, row_id) SELECT 'x', id FROM of_$_;" } @parents;
$rows .= q{INSERT INTO code VALUES ('other'); INSERT INTO num (name) VALUES ('other');};
my $renamed = join '', map { "UPDATE $_ SET name = 'k9', n = 1000;" } @refused;
my $moved = q{UPDATE code SET id = 'b' || id WHERE id LIKE '%a'; UPDATE num SET id = id + 500 WHERE name = 'a'; UPDATE ref SET id = id + 500 WHERE label = 'a'; UPDATE lone SET id = id + 500 WHERE name = 'a';};
my $left = join '', map { "UPDATE of_$_ SET par_id = (SELECT id FROM $_ WHERE $name{$_} = 'other');" } 'code', 'num';
my $gone = q{DELETE FROM code WHERE id <> 'other'; DELETE FROM num WHERE name = 'a'};
my $mended = join '', map { "UPDATE $_ SET n = 5;" } @refused;
my $deleted = join '', map { "DELETE FROM $_;" } @refused;

foreach my $atomic ('off', 'on')
{
	reload_with($local, 'synchro.atomic_pass' => $atomic);
	foreach my $case (
		[ 'mended', $mended, $renamed, $moved, $moved ],
		[ 'deleted', $deleted, $renamed, $moved ],
		[ 'at once', $mended, "$renamed $moved" ],
		[ 'the parent first', $mended, "$moved $renamed" ],
		[ 'the parent goes', $mended, $renamed, "$left $moved $gone" ],
		[ 'the parent goes later', $mended, $renamed, $moved, "$left $gone" ])
	{
		my ($how, $last, @steps) = @$case;
		my $testname = "atomic_pass $atomic, $how";

		$local->safe_psql('postgres', $rows);
		sync($local, 'office');
		same($local, $remote, $all, "$testname: to begin with");
		my $before = rows($remote, $ids);
		$remote->safe_psql('postgres', "ALTER TABLE $_ ADD CONSTRAINT small CHECK (n < 100)") foreach @refused;
		foreach my $step (@steps)
		{
			$local->safe_psql('postgres', "BEGIN; $step; COMMIT");
			sync($local, 'office') foreach 1 .. 2;
			is(rows($remote, $ids), $before, "$testname: what waits is there");
		}
		is(rows($local, q{SELECT count(*) FROM synchro.failures WHERE sqlstate = '23514'}), scalar @refused, "$testname: all are refused");
		$local->safe_psql('postgres', $last);
		sync($local, 'office') foreach 1 .. 3;
		is(rows($local, 'SELECT * FROM synchro.failures'), '', "$testname: nothing waits");
		same($local, $remote, $all, "$testname: all is the same");
		is(rows($remote, $ids), $how eq 'deleted' ? '' : $before, "$testname: each row is the one that it was");
		$remote->safe_psql('postgres', "ALTER TABLE $_ DROP CONSTRAINT small") foreach @refused;
		$local->safe_psql('postgres', join '', map { "DELETE FROM $_;" } @parents);
		sync($local, 'office') foreach 1 .. 2;
		$remote->safe_psql('postgres', 'DELETE FROM lone');
		is(rows($remote, "SELECT count(*) FROM ($all) x"), 0, "$testname: and nothing is left in the end");
	}
}

# what waits is called by a row that is gone here, and that one by one which moves in the same transaction
both($local, $remote, 'CREATE TABLE toy (id serial PRIMARY KEY, row_id int NOT NULL REFERENCES of_num ON DELETE CASCADE, name text NOT NULL, n int NOT NULL, UNIQUE (row_id, name))');
$local->safe_psql('postgres', q{SELECT synchro.add_table('toy', '{row_id,name}'); INSERT INTO num (name) VALUES ('a'); INSERT INTO of_num (par_id, name, n) SELECT id, k, 1 FROM num, unnest('{k1,k2}'::text[]) k;
	INSERT INTO toy (row_id, name, n) SELECT id, 'toy', 1 FROM of_num WHERE name = 'k1'});
sync($local, 'office');
my $toys = 'SELECT p.name, o.name, t.name, t.n FROM num p JOIN of_num o ON o.par_id = p.id LEFT JOIN toy t ON t.row_id = o.id ORDER BY 1, 2';
same($local, $remote, $toys, 'a row that is gone: to begin with');
my $id = rows($remote, 'SELECT id FROM toy');
$remote->safe_psql('postgres', 'ALTER TABLE toy ADD CONSTRAINT small CHECK (n < 100)');
$local->safe_psql('postgres', q{BEGIN; UPDATE toy SET row_id = (SELECT id FROM of_num WHERE name = 'k2'), n = 1000; DELETE FROM of_num WHERE name = 'k1'; UPDATE num SET id = id + 500; COMMIT});
sync($local, 'office') foreach 1 .. 2;
is(rows($remote, q{SELECT t.id, o.name FROM toy t JOIN of_num o ON o.id = t.row_id}), "$id|k1", 'a row that is gone: what waits is there');
$local->safe_psql('postgres', 'UPDATE toy SET n = 5');
sync($local, 'office') foreach 1 .. 3;
is(rows($local, 'SELECT * FROM synchro.failures'), '', 'a row that is gone: nothing waits');
same($local, $remote, $toys, 'a row that is gone: all is the same');
is(rows($remote, 'SELECT id FROM toy'), $id, 'a row that is gone: what waited is the row that it was');
$_->stop('fast') foreach $local, $remote;
done_testing();
