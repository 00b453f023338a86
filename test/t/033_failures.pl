# What the remote does not take fails clearly, changes nothing there, stays pending, and arrives once the cause is gone;
# and what an administrator does about positions: reset, set_checkpoint, who makes synchro_peer, uninstalling.
#
# WHY: a failure that is swallowed is a row that is lost. The user needs the remote's own words, the table and the key to
# find the cause, and after it is mended nothing else must be needed than the next synchronize().

use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE parents (id serial PRIMARY KEY, name text UNIQUE);
CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE NOT NULL, cash integer, code integer, note text, parent_id integer REFERENCES parents);
CREATE TABLE plain (id serial PRIMARY KEY, name text);
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parents', '{name}');
SELECT synchro.add_table('items', '{name}', skip => '{parent_id}');
SELECT synchro.alter_table('items', skip => '{}');
SELECT synchro.add_table('plain');
INSERT INTO parents (name) VALUES ('p');
INSERT INTO items (name, cash, code, parent_id) SELECT 'item ' || i, i, i, 1 FROM generate_series(1, 20) i;
INSERT INTO plain (name) SELECT 'plain ' || i FROM generate_series(1, 3) i;
SQL
is(sync($local, 'office')->{inserted}, 24, 'rows to begin with');

my $all = q{SELECT i.name, cash, code, note, p.name FROM items i LEFT JOIN parents p ON p.id = parent_id ORDER BY i.name};

my $failures = q{SELECT sqlstate || ': ' || message || ' DETAIL: Table ' || relation || ', key ' || key || '. ' || coalesce(detail, '')
	|| ' HINT: ' || coalesce(hint, '') FROM synchro.failures};

# $obstacle: SQL for the remote. $change: for the local. $mend: for either.
sub failure
{
	my ($testname, $obstacle, $change, $pattern, %mend) = @_;

	$remote->safe_psql('postgres', $obstacle);
	# a row that the remote would take, before and after the bad one
	$local->safe_psql('postgres', "UPDATE items SET note = '$testname' WHERE name IN ('item 1', 'item 20'); $change;
		INSERT INTO parents (name) VALUES ('with $testname')");
	my $result = sync($local, 'office');
	is($result->{failed}, 1, "$testname: one row fails");
	is($result->{message}, 'Some changes could not be applied; see view synchro.failures.', "$testname: which is said");
	like(rows($local, $failures), $pattern, "$testname: with the remote's reason");
	is(rows($remote, "SELECT count(*) FROM items WHERE note = '$testname'"), 2, "$testname: what comes before and after it arrives");
	same($local, $remote, 'SELECT name FROM parents ORDER BY name', "$testname: also other tables' rows");
	is(sync($local, 'office')->{failed}, 1, "$testname: fails again");
	is(rows($local, 'SELECT attempts, next_attempt > first_failed FROM synchro.failures'), '2|t', "$testname: which is counted");
	is(rows($local, 'SELECT failed FROM synchro.remotes'), 1, "$testname: also in view remotes");
	is(rows($local, 'SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE \'synchro%\''), 0, "$testname: no worker is left");
	$local->safe_psql('postgres', $mend{local}) if $mend{local};
	$remote->safe_psql('postgres', $mend{remote}) if $mend{remote};
	is(sync($local, 'office')->{failed}, 0, "$testname: mended, it goes on");
	same($local, $remote, $all, "$testname: and everything arrives");
	is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, "$testname: nothing is left");
	return;
}

failure('check', 'ALTER TABLE items ADD CONSTRAINT cash_is_small CHECK (cash < 1000)', q{UPDATE items SET cash = 5000 WHERE name = 'item 7'},
	qr/23514: .*new row for relation "items" violates check constraint "cash_is_small".*DETAIL: .*Table items, key 7\b/s,
	local => q{UPDATE items SET cash = 999 WHERE name = 'item 7'});
failure('not null', q{UPDATE items SET note = '' WHERE note IS NULL; ALTER TABLE items ALTER note SET NOT NULL}, q{UPDATE items SET note = COALESCE(note, ''); UPDATE items SET note = NULL WHERE name = 'item 8'},
	qr/23502: .*null value in column "note" of relation "items" violates not-null constraint.*Table items, key 8\b/s,
	remote => 'ALTER TABLE items ALTER note DROP NOT NULL');
failure('foreign key', 'CREATE TABLE codes (code integer PRIMARY KEY); INSERT INTO codes SELECT generate_series(1, 20); ALTER TABLE items ADD CONSTRAINT known_code FOREIGN KEY (code) REFERENCES codes',
	q{UPDATE items SET code = 77 WHERE name = 'item 9'},
	qr/23503: .*insert or update on table "items" violates foreign key constraint "known_code".*Table items, key 9\b.*Key \(code\)=\(77\) is not present/s,
	remote => 'INSERT INTO codes VALUES (77)');
failure('unique', 'ALTER TABLE items DROP CONSTRAINT known_code, ADD CONSTRAINT one_code UNIQUE (code)', q{UPDATE items SET code = 1 WHERE name = 'item 10'},
	qr/23505: .*duplicate key value violates unique constraint "one_code".*Table items, key 10\b/s,
	remote => 'ALTER TABLE items DROP CONSTRAINT one_code');
failure('exclusion', 'ALTER TABLE items ADD CONSTRAINT no_two EXCLUDE USING btree (cash WITH =)', q{UPDATE items SET cash = 2 WHERE name = 'item 3'},
	qr/23P01: .*conflicting key value violates exclusion constraint "no_two".*Table items, key 3\b/s,
	remote => 'ALTER TABLE items DROP CONSTRAINT no_two');
failure('trigger', <<'SQL', q{UPDATE items SET cash = 13 WHERE name = 'item 11'},
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
	IF NEW.cash = 13 THEN RAISE EXCEPTION 'not on a Friday' USING ERRCODE = 'P0001', HINT = 'Come back on Monday.'; END IF; RETURN NEW; END$$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
	qr/P0001: .*not on a Friday.*Table items, key 11\b.*HINT: Come back on Monday\./s,
	remote => 'DROP TRIGGER refuse ON items');
failure('own sqlstate', <<'SQL', q{INSERT INTO items (name, cash) VALUES ('item 21', 13)},
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
	IF NEW.cash = 13 THEN RAISE EXCEPTION 'no' USING ERRCODE = 'XX123'; END IF; RETURN NEW; END$$;
CREATE TRIGGER refuse BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
	qr/XX123: .*no\b/s,
	remote => 'DROP TRIGGER refuse ON items');
failure('value out of range', 'ALTER TABLE items ALTER code TYPE smallint', q{UPDATE items SET code = 70000 WHERE name = 'item 12'},
	qr/22003: .*value "70000" is out of range for type smallint.*Table items, key 12\b/s,
	remote => 'ALTER TABLE items ALTER code TYPE integer');
failure('delete', 'CREATE TABLE own (item_id integer REFERENCES items); INSERT INTO own SELECT id FROM items WHERE name = \'item 13\'', q{DELETE FROM items WHERE name = 'item 13'},
	qr/23503: .*update or delete on table "items" violates foreign key constraint "own_item_id_fkey" on table "own".*HINT: Delete the rows there that refer to it/s,
	remote => 'DELETE FROM own');

#
# reset, checkpoint, set_checkpoint
#
{
	sub pending_after
	{
		my ($sql) = @_;

		$local->safe_psql('postgres', $sql);
		my $result = sync($local, 'office');
		return "@$result{qw(inserted updated deleted)}";
	}

	$local->safe_psql('postgres', q{UPDATE items SET note = 'not for the remote' WHERE name = 'item 2'; DELETE FROM plain WHERE name = 'plain 3'});
	my $before = rows($local, q{SELECT clock_timestamp()});
	is(pending_after(q{SELECT synchro.reset('office', keep_references => true)}), '0 0 0', 'reset: what was pending is forgotten');
	is(rows($local, "SELECT synchro.checkpoint('office') >= '$before'"), 't', 'and the checkpoint is now');
	is(rows($remote, q{SELECT count(*) FROM items WHERE note = 'not for the remote'}), 0, 'the remote did not get it');
	is(pending_after(q{UPDATE plain SET name = 'new ' || name}), '0 2 0', 'references were kept');
	is(rows($remote, 'SELECT string_agg(name, \',\' ORDER BY name) FROM plain'), 'new plain 1,new plain 2,plain 3', 'rows are found by them');
	is(pending_after(q{SELECT synchro.reset(); UPDATE plain SET name = 'newer ' || name}), '2 0 0', 'reset without keeping them: the rows are new ones');
	is(rows($remote, 'SELECT count(*) FROM plain'), 5, 'the old stay');
	is(pending_after(q{DELETE FROM plain}), '0 0 2', 'and are not touched by a delete, which has no reference to them');
	is(rows($remote, 'SELECT string_agg(name, \',\' ORDER BY name) FROM plain'), 'new plain 1,new plain 2,plain 3', 'only those pushed since are deleted');
	is(pending_after(q{DELETE FROM items WHERE name = 'item 14'}), '0 0 1', 'a delete finds its row by natural key after reset()');

	$local->safe_psql('postgres', q{UPDATE items SET note = 'first' WHERE name = 'item 4'});
	my $between = rows($local, 'SELECT clock_timestamp()');
	$local->safe_psql('postgres', q{UPDATE items SET note = 'second' WHERE name = 'item 5'; DELETE FROM items WHERE name = 'item 6'; INSERT INTO items (name) VALUES ('new')});
	is(pending_after(q{SELECT 1}), '1 2 1', 'all are pushed');
	is(rows($local, "SELECT synchro.checkpoint('office') > '$between'"), 't', 'the checkpoint has moved');
	$remote->safe_psql('postgres', q{UPDATE items SET note = 'lost' WHERE name IN ('item 4', 'item 5'); DELETE FROM items WHERE name = 'new'; INSERT INTO items (name) VALUES ('item 6')});
	is(pending_after("SELECT synchro.set_checkpoint('office', '$between')"), '1 1 1', 'set back: what the log has since then is sent again');
	is(rows($remote, q{SELECT name, note FROM items WHERE name IN ('item 4', 'item 5', 'item 6', 'new') ORDER BY name}), "item 4|lost\nitem 5|second\nnew|",
		'and nothing from before');
	is(pending_after("SELECT synchro.set_checkpoint('office', '$between')"), '0 0 0', 'set back again: nothing is written twice');
	$local->safe_psql('postgres', q{UPDATE items SET name = 'renamed 16' WHERE name = 'item 16'; UPDATE items SET name = 'renamed 17' WHERE name = 'item 17'});
	is(pending_after(q{DELETE FROM items WHERE name = 'renamed 17'}), '0 1 1', 'one row is renamed, one renamed and deleted');
	$remote->safe_psql('postgres', q{UPDATE items SET note = 'lost' WHERE name = 'renamed 16'; INSERT INTO items (name) VALUES ('item 17'), ('renamed 17')});
	is(pending_after("SELECT synchro.set_checkpoint('office', '$between')"), '0 1 1', 'set back: the row that was renamed is sent again, the other deleted by its last name');
	is(rows($remote, q{SELECT name, note FROM items WHERE name IN ('item 16', 'renamed 16', 'item 17', 'renamed 17') ORDER BY 1}), "item 17|\nrenamed 16|" . rows($local, q{SELECT note FROM items WHERE name = 'renamed 16'}),
		'a row that bears the name of before now is not touched');
	$remote->safe_psql('postgres', q{DELETE FROM items WHERE name = 'item 17'});
	$local->safe_psql('postgres', q{UPDATE items SET note = 'skipped' WHERE name = 'item 4'});
	is(pending_after(q{SELECT synchro.set_checkpoint('office', clock_timestamp())}), '0 0 0', 'set forward: what is pending is skipped');
	is(rows($remote, q{SELECT note FROM items WHERE name = 'item 4'}), 'lost', 'for good');
	is(pending_after(q{UPDATE items SET cash = 44 WHERE name = 'item 4'}), '0 1 0', 'until the row changes again');
	is(rows($remote, q{SELECT note, cash FROM items WHERE name = 'item 4'}), 'skipped|44', 'then it is as it is');

	my ($status, undef, $stderr) = $local->psql('postgres', q{SELECT synchro.checkpoint('nowhere')});
	isnt($status, 0, 'a remote that is none is an error');
	like($stderr, qr/"nowhere"/, 'that names it');
}

#
# Who makes synchro_peer
#
{
	foreach my $case ([ 'create', 'may create' ], [ 'none', 'may not create' ])
	{
		my ($peer, $words) = @$case;

		$remote->safe_psql('postgres', "CREATE DATABASE db_$peer");
		$local->safe_psql('postgres', "CREATE DATABASE db_$peer");
		both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE)', dbname => "db_$peer");
		connect_remote($local, $remote, name => "r_$peer", user => "u_$peer", dbname => "db_$peer", peer => $peer);
		$local->safe_psql("db_$peer", q{SELECT synchro.add_table('t', '{name}'); INSERT INTO t (name) VALUES ('a')});
	}
	is(sync($local, 'r_create', dbname => 'db_create')->{inserted}, 1, 'a role that may create schemas makes synchro_peer itself');
	is(rows($remote, q{SELECT relname FROM pg_class WHERE relnamespace = 'synchro_peer'::regnamespace AND relkind = 'r' ORDER BY 1}, 'db_create'),
		"known_table\nposition\nreference\nunapplied", 'of plain tables');
	sync_fails($local, 'r_none', qr/42501: .*remote "r_none".*synchro_peer.*HINT: .*synchro\.peer_setup\(\)/s, 'one that may not gets a hint', dbname => 'db_none');
	$remote->safe_psql('db_none', $local->safe_psql('db_none', 'SELECT synchro.peer_setup()'));
	$remote->safe_psql('db_none', 'GRANT USAGE ON SCHEMA synchro_peer TO u_none; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA synchro_peer TO u_none');
	is(sync($local, 'r_none', dbname => 'db_none')->{inserted}, 1, 'when an administrator has followed it, the row arrives');
	is(rows($remote, 'SELECT name FROM t', 'db_none'), 'a', 'and is there');
	$remote->safe_psql('db_none', q{DROP SCHEMA synchro_peer CASCADE});
	$remote->safe_psql('db_none', $local->safe_psql('db_none', 'SELECT synchro.peer_setup()'));
	$remote->safe_psql('db_none', 'GRANT USAGE ON SCHEMA synchro_peer TO u_none; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA synchro_peer TO u_none');
	sync_fails($local, 'r_none', qr/55000: .*remote "r_none" is not in the state that this database left it in.*HINT: .*synchro\.confirm_node/s,
		'a remote that has forgotten us is not pushed to', dbname => 'db_none');
	$local->safe_psql('db_none', q{SELECT synchro.reset('r_none'); INSERT INTO t (name) VALUES ('b')});
	is(sync($local, 'r_none', dbname => 'db_none')->{inserted}, 1, 'until reset() says that it is the right one');
}

#
# Uninstalling
#
{
	my $traces = q{SELECT 'trigger', tgname FROM pg_trigger WHERE tgname LIKE '%synchro%'
		UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspname LIKE '%synchro%'
		UNION ALL SELECT 'server', srvname FROM pg_foreign_server
		UNION ALL SELECT 'wrapper', fdwname FROM pg_foreign_data_wrapper
		UNION ALL SELECT 'mapping', umuser::text FROM pg_user_mapping
		UNION ALL SELECT 'event trigger', evtname FROM pg_event_trigger
		UNION ALL SELECT 'function', proname FROM pg_proc WHERE probin LIKE '%synchro%'
		UNION ALL SELECT 'depend', objid::text FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND refobjid NOT IN (SELECT oid FROM pg_extension)
		UNION ALL SELECT 'worker', pid::text FROM pg_stat_activity WHERE backend_type LIKE 'synchro%' AND datname = current_database()};

	isnt(rows($local, $traces), '', 'there is something to be removed');
	$local->safe_psql('postgres', 'UPDATE items SET cash = 1; DROP EXTENSION synchro');
	is(rows($local, $traces), '', 'DROP EXTENSION without CASCADE leaves nothing');
	$local->safe_psql('postgres', q{UPDATE items SET cash = 2; DELETE FROM items; TRUNCATE parents CASCADE});
	is(rows($local, 'SELECT count(*) FROM items'), 0, 'the tables are as any others');
	$local->safe_psql('postgres', 'CREATE EXTENSION synchro; DROP EXTENSION synchro');
	is(rows($local, $traces), '', 'and it can come and go again');
}

done_testing();
