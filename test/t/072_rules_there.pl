# WHY: PostgreSQL refuses most rules in the statements that a batch consists of. A table with rules on the remote waits with a
# reason, whatever the rule is, while others go on; it must not be that a rule swallows rows and nothing says so.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE ruled (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE other (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
CREATE TABLE trace (what text);
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('ruled', '{name}'), synchro.add_table('other', '{name}')});
my $round = 0;

foreach my $rule (
	'ON INSERT TO ruled DO ALSO INSERT INTO trace VALUES (new.name)',
	'ON UPDATE TO ruled DO ALSO INSERT INTO trace VALUES (new.name)',
	'ON DELETE TO ruled DO ALSO INSERT INTO trace VALUES (old.name)',
	'ON INSERT TO ruled DO INSTEAD NOTHING',
	'ON UPDATE TO ruled DO INSTEAD NOTHING',
	'ON DELETE TO ruled DO INSTEAD NOTHING',
	'ON INSERT TO ruled WHERE new.n > 0 DO INSTEAD NOTHING',
	'ON UPDATE TO ruled WHERE new.n > 0 DO INSTEAD NOTHING',
	'ON DELETE TO ruled WHERE old.n > 0 DO INSTEAD NOTHING',
	'ON INSERT TO ruled DO INSTEAD INSERT INTO trace VALUES (new.name)',
	'ON UPDATE TO ruled DO INSTEAD UPDATE trace SET what = new.name',
	'ON DELETE TO ruled DO INSTEAD DELETE FROM trace')
{
	$round++;
	$local->safe_psql('postgres', "INSERT INTO $_ (name, n) VALUES ('updated $round', 1), ('deleted $round', 1)") foreach qw(ruled other);
	is(sync($local, 'office')->{failed}, 0, "$rule: before it is made");
	$remote->safe_psql('postgres', "CREATE RULE it AS $rule");
	$local->safe_psql('postgres', <<"SQL") foreach qw(ruled other);
INSERT INTO $_ (name, n) VALUES ('inserted $round', 1);
UPDATE $_ SET n = 2 WHERE name = 'updated $round';
DELETE FROM $_ WHERE name = 'deleted $round';
SQL
	sync($local, 'office');
	like(rows($local, q{SELECT sqlstate || ' ' || message FROM synchro.failures WHERE relation = 'ruled'::regclass AND key IS NULL}), qr/^0A000 remote "office": .*(rules|RETURNING)/, "$rule: the table waits");
	same($local, $remote, 'SELECT name, n FROM other ORDER BY 1', "$rule: another table goes on");
	isnt(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, "$rule: it is said") if rows($local, 'SELECT name, n FROM ruled ORDER BY 1') ne rows($remote, 'SELECT name, n FROM ruled ORDER BY 1');
	$remote->safe_psql('postgres', 'DROP RULE it ON ruled');
	$local->safe_psql('postgres', 'SELECT synchro.retry()');
	is(sync($local, 'office')->{failed}, 0, "$rule: nothing fails when it is gone");
	same($local, $remote, 'SELECT name, n FROM ruled ORDER BY 1', "$rule: and all is there");
}

done_testing();
