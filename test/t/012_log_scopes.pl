# WHY: some changes are not to be pushed, because the other side makes them by itself. What is written inside a log-free
# scope must leave no trace on the remote, and what is written a moment later must not be lost because a scope was left
# open: by a savepoint rolled back, an error, a function that returned. The scopes are for applications, so each of them is
# tried by a role that has no rights on anything of synchro's.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

#
# before there is any remote
#
both($local, $remote, 'CREATE TABLE k (id serial PRIMARY KEY, name text NOT NULL UNIQUE, cash int)');
$local->safe_psql('postgres', <<'SQL');
CREATE EXTENSION synchro;
SELECT synchro.add_table('k', '{name}');
CREATE ROLE app LOGIN;
GRANT SELECT, INSERT, UPDATE, DELETE ON k TO app;
GRANT USAGE ON SEQUENCE k_id_seq TO app;
SQL

# The names that one call of psql leaves in the log, told by transactions that were not there before.
my $before = '{}';

sub logged
{
	my $names = rows($local, <<"SQL");
SELECT string_agg(k.name, ' ' ORDER BY k.name) FROM synchro.changes c LEFT JOIN k ON c.key = k.id::text
WHERE c.relation = 'k'::regclass AND c.xid <> ALL ('$before'::xid8[])
SQL
	$before = rows($local, q{SELECT coalesce(array_agg(DISTINCT xid), '{}') FROM synchro.changes});
	return $names;
}

# app($sql): as the application, which may fail and go on, like psql does
sub app
{
	my ($sql) = @_;
	my ($status, $stdout, $stderr) = $local->psql(
		'postgres', "\\set VERBOSITY verbose\n$sql",
		connstr => $local->connstr('postgres') . ' user=app',
		on_error_stop => 0);

	return $stderr;
}

is(app(q{INSERT INTO k (name) VALUES ('first')}), '', 'an application without any right on synchro can write');
is(logged(), 'first', 'without a remote its changes are logged');
sync_fails($local, undef, qr/ERROR:  55000: .*no remote.*\n.*HINT:.*add_remote/, 'without a remote synchronize() is an error, 55000');

connect_remote($local, $remote);
sync($local, 'office');
is(rows($remote, 'SELECT name FROM k'), 'first', 'a remote that is added later gets what the log has');

#
# SET LOCAL, SET
#
is(
	app(q{
		BEGIN;
		INSERT INTO k (name) VALUES ('set 1');
		SET LOCAL synchro.log_changes = off;
		INSERT INTO k (name) VALUES ('set 2');
		UPDATE k SET cash = 1 WHERE name = 'first';
		COMMIT;
		INSERT INTO k (name) VALUES ('set 3');
		SET synchro.log_changes = off;
		INSERT INTO k (name) VALUES ('set 4');
		RESET synchro.log_changes;
		INSERT INTO k (name) VALUES ('set 5');
	}),
	'', 'SET LOCAL');
is(logged(), 'set 1 set 3 set 5', 'SET LOCAL holds for the rest of the transaction only');
is(
	app(q{
		BEGIN;
		SAVEPOINT s;
		SET LOCAL synchro.log_changes = off;
		INSERT INTO k (name) VALUES ('set 6');
		ROLLBACK TO s;
		INSERT INTO k (name) VALUES ('set 7');
		COMMIT;
	}),
	'', 'SET LOCAL in a savepoint');
is(logged(), 'set 7', 'it ends when the savepoint is rolled back');

#
# ALTER FUNCTION ... SET: the decorator
#
$local->safe_psql('postgres', 'GRANT CREATE ON SCHEMA public TO app');
is(
	app(q{
		CREATE FUNCTION add(name text) RETURNS void LANGUAGE sql AS 'INSERT INTO public.k (name) VALUES ($1)';
		CREATE FUNCTION fail(name text) RETURNS void LANGUAGE plpgsql AS
			'BEGIN INSERT INTO public.k (name) VALUES ($1); RAISE EXCEPTION ''failed''; END';
		ALTER FUNCTION add(text) SET synchro.log_changes = off;
		ALTER FUNCTION fail(text) SET synchro.log_changes = off;
	}),
	'', 'an application may put the setting on its own functions, in a session that has nothing of synchro loaded');
like(
	app(q{
		BEGIN;
		INSERT INTO k (name) VALUES ('function 1');
		SELECT add('function 2');
		INSERT INTO k (name) VALUES ('function 3');
		COMMIT;
		BEGIN;
		SAVEPOINT s;
		\set VERBOSITY terse
		SELECT fail('function 4');
		ROLLBACK TO s;
		INSERT INTO k (name) VALUES ('function 5');
		COMMIT;
	}),
	qr/\A\S+ ERROR:  failed\z/, 'a function in a transaction');
is(logged(), 'function 1 function 3 function 5', 'the setting holds while the function runs');

#
# ALTER ROLE ... SET
#
is(app('ALTER ROLE app SET synchro.log_changes = off'), '', 'an application may put the setting on its own role');
is(app(q{INSERT INTO k (name) VALUES ('role 1')}), '', 'what the role writes');
$local->safe_psql('postgres', q{INSERT INTO k (name) VALUES ('role 2')});
is(logged(), 'role 2', 'is not logged, what others write is');
app('ALTER ROLE app RESET synchro.log_changes');
is(app(q{INSERT INTO k (name) VALUES ('role 3')}), '', 'and back');
is(logged(), 'role 3', 'it is logged again');

#
# disable_log(), enable_log()
#
is(
	app(q{
		BEGIN;
		SELECT synchro.disable_log();
		INSERT INTO k (name) VALUES ('nested 1');
		SELECT synchro.disable_log();
		INSERT INTO k (name) VALUES ('nested 2');
		SELECT synchro.enable_log();
		INSERT INTO k (name) VALUES ('nested 3');
		SELECT synchro.enable_log();
		INSERT INTO k (name) VALUES ('nested 4');
		COMMIT;
	}),
	'', 'disable_log() in disable_log()');
is(logged(), 'nested 4', 'each enable_log() takes back one disable_log()');

is(
	app(q{
		BEGIN;
		SELECT synchro.disable_log();
		INSERT INTO k (name) VALUES ('end 1');
		COMMIT;
		INSERT INTO k (name) VALUES ('end 2');
		BEGIN;
		SELECT synchro.disable_log();
		ROLLBACK;
		INSERT INTO k (name) VALUES ('end 3');
		SELECT synchro.disable_log();
		INSERT INTO k (name) VALUES ('end 4');
	}),
	'', 'disable_log() without enable_log()');
is(logged(), 'end 2 end 3 end 4', 'it ends with the transaction');

is(
	app(q{
		BEGIN;
		SAVEPOINT s;
		SELECT synchro.disable_log();
		INSERT INTO k (name) VALUES ('savepoint 1');
		ROLLBACK TO s;
		INSERT INTO k (name) VALUES ('savepoint 2');
		SELECT synchro.disable_log();
		INSERT INTO k (name) VALUES ('savepoint 3');
		RELEASE s;
		INSERT INTO k (name) VALUES ('savepoint 4');
		COMMIT;
	}),
	'', 'disable_log() in a savepoint');
is(logged(), 'savepoint 2 savepoint 4', 'it ends with the savepoint, rolled back or released');

is(
	app(q{
		BEGIN;
		SELECT synchro.disable_log();
		SAVEPOINT s;
		SELECT synchro.enable_log();
		INSERT INTO k (name) VALUES ('outer 1');
		ROLLBACK TO s;
		INSERT INTO k (name) VALUES ('outer 2');
		SELECT synchro.enable_log();
		INSERT INTO k (name) VALUES ('outer 3');
		RELEASE s;
		INSERT INTO k (name) VALUES ('outer 4');
		COMMIT;
	}),
	'', 'enable_log() in a savepoint');
is(logged(), 'outer 3 outer 4', 'rolled back, it was not called; released, it was');

is(
	app(q{
		BEGIN;
		DO $$
		BEGIN
			PERFORM synchro.disable_log();
			INSERT INTO k (name) VALUES ('block 1');
			BEGIN
				PERFORM synchro.disable_log();
				INSERT INTO k (name) VALUES ('block 2');
				RAISE EXCEPTION 'no';
			EXCEPTION WHEN raise_exception THEN
				INSERT INTO k (name) VALUES ('block 3');
			END;
			PERFORM synchro.enable_log();
			INSERT INTO k (name) VALUES ('block 4');
		END$$;
		COMMIT;
	}),
	'', 'in blocks with an exception handler');
is(logged(), 'block 4', 'they are savepoints, too');

like(app('SELECT synchro.enable_log()'), qr/ERROR:  55000: .*not disabled/, 'enable_log() without disable_log() is an error, 55000');
like(
	app(q{
		BEGIN;
		SELECT synchro.disable_log();
		SELECT synchro.enable_log();
		SELECT synchro.enable_log();
		COMMIT;
		INSERT INTO k (name) VALUES ('once more');
	}),
	qr/ERROR:  55000: .*not disabled/, 'one too many is, too');
is(logged(), 'once more', 'which does no harm to what follows');

#
# none of it has reached the remote
#
sync($local, 'office');
is(
	rows($remote, 'SELECT name FROM k WHERE cash IS NULL ORDER BY id'),
	join("\n",
		'first', 'set 1', 'set 3', 'set 5', 'set 7', 'function 1', 'function 3', 'function 5', 'role 2', 'role 3',
		'nested 4', 'end 2', 'end 3', 'end 4', 'savepoint 2', 'savepoint 4', 'outer 3', 'outer 4', 'block 4', 'once more'),
	'on the remote there is just what was logged');

#
# a trigger function on both sides
#
both($local, $remote, <<'SQL');
CREATE TABLE account (id serial PRIMARY KEY, name text NOT NULL UNIQUE, balance int NOT NULL DEFAULT 0);
CREATE TABLE entry (id serial PRIMARY KEY, account int NOT NULL REFERENCES account, amount int NOT NULL);
CREATE FUNCTION update_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.account SET balance = balance + NEW.amount WHERE id = NEW.account;
	RETURN NULL;
END$$;
ALTER FUNCTION update_balance() SET synchro.log_changes = off;
CREATE TRIGGER update_balance AFTER INSERT ON entry FOR EACH ROW EXECUTE FUNCTION update_balance();
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('account_id_seq', 100);
INSERT INTO account (name) VALUES ('shared'), ('theirs');
INSERT INTO entry (account, amount) SELECT id, 500 FROM account;
SQL
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('account', '{name}');
SELECT synchro.add_table('entry');
BEGIN;
SET LOCAL synchro.log_changes = off;
INSERT INTO account (name) VALUES ('shared');
COMMIT;
INSERT INTO entry (account, amount) VALUES (1, 10), (1, 20);
SQL
my $result = sync($local, 'office');
is("$result->{inserted}/$result->{updated}", '2/0', 'the entries are pushed, the balance is not');
is(rows($local, 'SELECT name, balance FROM account'), 'shared|30', 'the local has its balance');
is(rows($remote, 'SELECT name, balance FROM account ORDER BY 1'), "shared|530\ntheirs|500",
	'the remote has reckoned its own, with its own entries');

# what if it were logged: the test above would notice
both($local, $remote, 'ALTER FUNCTION update_balance() RESET synchro.log_changes');
$local->safe_psql('postgres', 'INSERT INTO entry (account, amount) VALUES (1, 1)');
sync($local, 'office');
isnt(rows($remote, q{SELECT balance FROM account WHERE name = 'shared'}), 531, 'without the setting the local\'s value is pushed');

done_testing();
