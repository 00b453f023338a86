# WHY: what the other side has refused is in no log any more: it lies in a table, with the names that the other side knows the rows
# by, and belongs to the node that tried. A copy has that table too. When it becomes a node of its own these rows must neither
# be forgotten, nor be taken for those of another, nor arrive twice.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my @tables = ('named', 'nameless');
my $all = q{SELECT 'named', name, n FROM named UNION ALL SELECT 'nameless', name, n FROM nameless ORDER BY 1, 2, 3};
my $failures = 'SELECT relation, key, operation, sqlstate FROM synchro.failures ORDER BY 1, 2, 3';
my $schema = <<'SQL';
CREATE TABLE named (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int NOT NULL);
CREATE TABLE nameless (id serial PRIMARY KEY, name text NOT NULL, n int NOT NULL);
SQL

# A copy of $local that replaces it, of what it has told $remote by the name of $name.
sub replaced
{
	my ($local, $remote, $name, $testname) = @_;

	$remote->safe_psql('postgres', <<'SQL');
SELECT setval('named_id_seq', 1000), setval('nameless_id_seq', 1000);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		IF OLD.n = 3 THEN
			RAISE EXCEPTION 'this one stays';
		END IF;
		RETURN OLD;
	ELSIF NEW.n < 0 THEN
		RAISE EXCEPTION 'not this one';
	END IF;
	RETURN NEW;
END
$$;
SQL
	$local->safe_psql('postgres', "INSERT INTO $_ (name, n) SELECT 'row ' || i, i FROM generate_series(1, 8) i") foreach @tables;
	sync($local, $name);
	same($local, $remote, $all, "$testname: to begin with");
	foreach my $table (@tables)
	{
		$remote->safe_psql('postgres', "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON $table FOR EACH ROW EXECUTE FUNCTION refuse()");
		$local->safe_psql('postgres', <<"SQL");
UPDATE $table SET n = -1 WHERE name = 'row 1';
UPDATE $table SET n = -2, name = 'row 2!' WHERE name = 'row 2';
DELETE FROM $table WHERE name = 'row 3';
UPDATE $table SET n = -4, id = 400 WHERE name = 'row 4';
INSERT INTO $table (name, n) VALUES ('new', -5), ('new and corrected', -6);
SQL
	}
	is(sync($local, $name)->{failed}, 12, "$testname: rows are refused");
	my $refused = rows($local, $failures);
	my $start = started_from($local, $testname =~ s/ /_/gr, 'base backup');

	# what makes the copy the older side
	$local->safe_psql('postgres', "UPDATE $_ SET n = 55 WHERE name = 'row 5'") foreach @tables;
	sync($local, $name);
	$local->stop('fast');

	my $copy = $start->();

	$copy->safe_psql('postgres', "UPDATE $_ SET n = 66 WHERE name IN ('row 6', 'new and corrected')") foreach @tables;
	sync_fails($copy, $name, qr/55000.*is not in the state that this database left it in/s, "$testname: it pushes nothing");
	is(rows($copy, $failures), $refused, "$testname: what was refused is in the copy, too");
	$copy->safe_psql('postgres', 'SELECT synchro.confirm_node()');
	sync($copy, $name);
	foreach my $table (@tables)
	{
		is(rows($remote, "SELECT string_agg(name || ' ' || n, ', ' ORDER BY name) FROM $table"),
			'new and corrected 66, row 1 1, row 2 2, row 3 3, row 4 4, row 5 55, row 6 66, row 7 7, row 8 8', "$testname: what it has changed in $table arrives");
	}
	is(rows($copy, 'SELECT count(*) FROM synchro.failures'), 10, "$testname: the others are still refused");
	$remote->safe_psql('postgres', "DROP TRIGGER refuse ON $_") foreach @tables;
	$copy->safe_psql('postgres', "SELECT synchro.retry('$name')");
	is(sync($copy, $name)->{failed}, 0, "$testname: until nothing is in the way");
	$copy->safe_psql('postgres', "UPDATE $_ SET n = 56 WHERE name = 'row 5'") foreach @tables;
	sync($copy, $name);
	same($copy, $remote, $all, "$testname: all are the same");
	is(rows($copy, "SELECT relation, key, difference FROM synchro.verify('$name')"), '', "$testname: nor does verify() see a difference");
	return $copy;
}

my $local = synchro_node('local', streaming => 1);
my $remote = synchro_node('remote');

both($local, $remote, $schema);
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('named', '{name}'), synchro.add_table('nameless')});
$_->stop('fast') foreach replaced($local, $remote, 'office', 'a remote'), $remote;

my ($a, $b) = nodes({ streaming => 1 }, 'a', 'b');

both($a, $b, $schema);
join_nodes($a, $b);
watch([ $a, $b ], named => '{name}', nameless => undef);
$_->stop('fast') foreach replaced($a, $b, 'b', 'a node'), $b;
done_testing();
