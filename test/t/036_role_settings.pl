# WHY: what is to be deleted waits on the remote for the last batch of a pass, as text. Of a time that text depends on the settings of
# the role that pushes, and there are such by which it is not what is read from it: CST is a time zone in China and another one in
# America. Another row than the one that was meant was deleted.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local', conf => "timezone = 'UTC'\nsynchro.batch_size = 10");
my $remote = synchro_node('remote');

connect_remote($local, $remote);
both($local, $remote, <<'SQL');
CREATE TABLE reading (device int, at timestamptz, v int, PRIMARY KEY (device, at));
CREATE TABLE span (day date, took interval, at timestamp, v int, PRIMARY KEY (day, took, at));
CREATE TABLE parent (id int PRIMARY KEY, name text);
SQL
$remote->safe_psql('postgres', q{ALTER ROLE sync SET datestyle = 'SQL, DMY'; ALTER ROLE sync SET timezone = 'Asia/Shanghai'; ALTER ROLE sync SET intervalstyle = 'sql_standard'});
is(rows($remote, q{SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Shanghai'; SELECT timestamptz '2024-06-01 10:00+08'::text}), '01/06/2024 10:00:00 CST', 'a time as that role sees it');
$local->safe_psql('postgres', q{SELECT synchro.add_table('reading'), synchro.add_table('span'), synchro.add_table('parent')});

my $all = q{SELECT 'reading' AS is, device::text, at AT TIME ZONE 'UTC', v FROM reading UNION ALL SELECT 'span', day || ' ' || took, at, v FROM span ORDER BY 1, 2, 3};

# A row, and 14 hours before it one that is only there.
sub readings
{
	my ($device) = @_;

	$local->safe_psql('postgres', "INSERT INTO reading VALUES ($device, '2024-06-02 00:00+08', 1), ($device, '2024-03-04 12:30+08', 2);
		INSERT INTO span VALUES ('2024-03-04', '1 mon -2 days 03:04:0$device', '2024-05-06 07:08:09', $device), ('2024-04-03', '-$device day', '2024-06-05 07:08:09', $device)");
	sync($local, 'office');
	return;
}

readings(1);
$remote->safe_psql('postgres', q{INSERT INTO reading VALUES (1, '2024-06-01 10:00+08', 3), (1, '2024-04-03 12:30+08', 4); INSERT INTO span VALUES ('2024-04-03', '1 mon -2 days 03:04:05', '2024-05-06 07:08:09', 1)});
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'reading', delete_extra => true), synchro.copy_table('office', 'span', delete_extra => true)});
sync($local, 'office') foreach 1 .. 2;
same($local, $remote, $all, 'a copy deletes what is there only, and nothing else');

# deletes of a pass of several batches
readings(2);
$local->safe_psql('postgres', q{BEGIN; INSERT INTO reading VALUES (2, '2024-06-01 10:00+08', 3); COMMIT});
sync($local, 'office');
$local->safe_psql('postgres', q{BEGIN; INSERT INTO parent SELECT i, 'p' || i FROM generate_series(1, 100) i; DELETE FROM reading WHERE device = 2 AND v = 3;
	DELETE FROM span WHERE took < '0'; COMMIT});
sync($local, 'office');
same($local, $remote, $all, 'a pass of several batches');

# deletes that go one by one, as one of them is refused
readings(3);
$local->safe_psql('postgres', q{INSERT INTO reading VALUES (3, '2024-06-01 10:00+08', 3)});
sync($local, 'office');
$remote->safe_psql('postgres', q{CREATE TABLE own (parent_id int REFERENCES parent); INSERT INTO own VALUES (7)});
$local->safe_psql('postgres', q{DELETE FROM parent WHERE id = 7; DELETE FROM reading WHERE device = 3 AND v = 3; DELETE FROM span WHERE v = 3});
is(sync($local, 'office')->{failed}, 1, 'one delete is refused');
same($local, $remote, $all, 'the others are done');

# one that waits and is wanted again
$remote->safe_psql('postgres', q{CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'held'; END$$;
	CREATE TRIGGER hold BEFORE DELETE ON reading FOR EACH ROW EXECUTE FUNCTION hold()});
$local->safe_psql('postgres', q{DELETE FROM reading WHERE device = 1});
is(sync($local, 'office')->{failed}, 3, 'deletes that wait');
$local->safe_psql('postgres', q{INSERT INTO reading VALUES (1, '2024-06-02 00:00+08', 5)});
sync($local, 'office');
$remote->safe_psql('postgres', 'DROP TRIGGER hold ON reading; DELETE FROM own');
is(sync($local, 'office')->{failed}, 0, 'and are done');
same($local, $remote, $all, 'but for one whose row is there again');

# tables that we make there for the session are ordinary ones, whatever the role's own are to be
$remote->safe_psql('postgres', <<'SQL');
CREATE ACCESS METHOD columns TYPE TABLE HANDLER heap_tableam_handler;
ALTER ROLE sync SET default_table_access_method = columns;
CREATE FUNCTION look_at_it() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'columns') THEN
		RAISE 'this kind of table takes no updates';
	END IF;
END
$$;
CREATE EVENT TRIGGER look_at_it ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION look_at_it();
SQL
$local->safe_psql('postgres', q{UPDATE reading SET v = v + 10});
sync($local, 'office');
same($local, $remote, $all, 'what the role makes tables as does not matter');

$_->stop('fast') foreach $local, $remote;
done_testing();
