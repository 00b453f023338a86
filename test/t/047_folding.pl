# WHY: folding throws away most of what the log says of each row. What it keeps must be enough for every remote, however
# far behind: by which name the remote knows a row that has been renamed twice since, that a row is gone, that another
# was never there, and what has changed since a given time.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => <<'CONF');
synchro.retry_max_interval = 1s
synchro.log_retention = 1h
synchronous_commit = off
CONF
my $alive = synchro_node('alive', conf => 'synchronous_commit = off');
my $dead = synchro_node('dead');
my $schema = <<'SQL';
CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE, n int);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, name text, n int, UNIQUE (parent_id, name));
CREATE TABLE nameless (id serial PRIMARY KEY, what text);
CREATE TABLE given (code text PRIMARY KEY, n int);
CREATE TABLE filler (id serial PRIMARY KEY, name text UNIQUE, n int);
SQL

$_->safe_psql('postgres', $schema) foreach $local, $alive, $dead;

# other ids than here
$_->safe_psql('postgres', q{SELECT setval('parent_id_seq', 1000), setval('child_id_seq', 1000), setval('nameless_id_seq', 1000)})
  foreach $alive, $dead;
connect_remote($local, $alive, name => 'alive');
connect_remote($local, $dead, name => 'dead');
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('parent', '{name}'), synchro.add_table('child', '{parent_id, name}'), synchro.add_table('nameless'),
	synchro.add_table('given'), synchro.add_table('filler', '{name}');
INSERT INTO parent (name, n) SELECT 'parent ' || i, 0 FROM generate_series(1, 20) i;
INSERT INTO child (parent_id, name, n) SELECT p.id, 'child ' || i, 0 FROM parent p, generate_series(1, 3) i;
INSERT INTO nameless (what) SELECT 'row ' || i FROM generate_series(1, 20) i;
INSERT INTO given SELECT 'code ' || i, 0 FROM generate_series(1, 20) i;
INSERT INTO filler (name, n) SELECT 'row ' || i, 0 FROM generate_series(1, 2000) i;
SQL
my $all = q{SELECT 'parent', name, n::text FROM parent UNION ALL SELECT 'child', p.name || '/' || c.name, c.n::text FROM child c JOIN parent p ON p.id = c.parent_id
	UNION ALL SELECT 'nameless', what, '' FROM nameless UNION ALL SELECT 'given', code, n::text FROM given
	UNION ALL SELECT 'filler', name, n::text FROM filler ORDER BY 1, 2, 3};
wait_arrival($_, $all, rows($local, $all), 'the start') foreach $alive, $dead;

$dead->safe_psql('postgres', <<'SQL');
CREATE TABLE audit (relation text, operation text, name text);
CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.audit VALUES (TG_TABLE_NAME, TG_OP, coalesce(to_jsonb(NEW), to_jsonb(OLD))->>TG_ARGV[0]);
	RETURN NULL;
END
$$;
CREATE TRIGGER count_it AFTER INSERT OR UPDATE OR DELETE ON parent FOR EACH ROW EXECUTE FUNCTION count_it('name');
CREATE TRIGGER count_it AFTER INSERT OR UPDATE OR DELETE ON nameless FOR EACH ROW EXECUTE FUNCTION count_it('what');
CREATE TRIGGER count_it AFTER INSERT OR UPDATE OR DELETE ON given FOR EACH ROW EXECUTE FUNCTION count_it('code');
SQL
my %id_of = map { split /\|/ } split /\n/, rows($dead, q{SELECT name, id FROM parent});
$dead->stop('immediate');

# so much of updates that the log is folded
my $folds = 0;

sub folded
{
	my $live = rows($local, 'SELECT last_value FROM synchro.log_switch');

	$folds++;
	update_often($local, 'filler', 25);
	wait_for($local, q{SELECT count(*) < 25000 FROM synchro.changes WHERE relation = 'filler'::regclass}, "the log has been folded, $folds");
	return;
}

#
# everything that folding could forget, spread over several foldings
#
$local->safe_psql('postgres', <<'SQL');
UPDATE parent SET name = 'once' WHERE name = 'parent 1';
UPDATE parent SET name = 'twice, first' WHERE name = 'parent 2';
UPDATE parent SET name = 'there' WHERE name = 'parent 3';
DELETE FROM parent WHERE name = 'parent 10';
UPDATE parent SET name = 'renamed, then deleted' WHERE name = 'parent 11';
INSERT INTO parent (name, n) VALUES ('never seen', 1), ('new', 1);
INSERT INTO child (parent_id, name, n) SELECT id, 'of new', 1 FROM parent WHERE name = 'new';
DELETE FROM nameless WHERE what = 'row 1';
INSERT INTO nameless (what) VALUES ('never seen'), ('new');
UPDATE nameless SET what = 'changed, then deleted' WHERE what = 'row 2';
UPDATE given SET code = 'moved once' WHERE code = 'code 1';
UPDATE given SET code = 'moved twice, first' WHERE code = 'code 2';
DELETE FROM given WHERE code = 'code 3';
UPDATE child SET name = 'renamed' WHERE name = 'child 1' AND parent_id = (SELECT id FROM parent WHERE name = 'once');
SQL
folded();
my $between = rows($local, 'SELECT clock_timestamp()');
$local->safe_psql('postgres', <<'SQL');
UPDATE parent SET name = 'twice, second' WHERE name = 'twice, first';
UPDATE parent SET name = 'parent 3' WHERE name = 'there';
DELETE FROM parent WHERE name = 'renamed, then deleted';
DELETE FROM parent WHERE name = 'never seen';
DELETE FROM nameless WHERE what IN ('never seen', 'changed, then deleted');
UPDATE given SET code = 'moved twice, second' WHERE code = 'moved twice, first';
INSERT INTO given VALUES ('code 3', 3);
INSERT INTO parent (name, n) VALUES ('parent 10', 10);
SQL
folded();

# two that exchange their names
$local->safe_psql('postgres', <<'SQL');
UPDATE parent SET name = 'elsewhere' WHERE name = 'parent 4';
UPDATE parent SET name = 'parent 4' WHERE name = 'parent 5';
UPDATE parent SET name = 'parent 5' WHERE name = 'elsewhere';
DELETE FROM child WHERE name = 'child 3';
UPDATE nameless SET what = 'last' WHERE what = 'row 3';
SQL
folded();

#
# the one that was alive all the time
#
wait_arrival($alive, $all, rows($local, $all), 'the living remote has everything');

# what was changed there behind our back is mended where the log says that it has changed since then, and only there
$alive->safe_psql('postgres', q{UPDATE parent SET n = -1; UPDATE child SET n = -1; UPDATE given SET n = -1});
$local->safe_psql('postgres', "SELECT synchro.set_checkpoint('alive', '$between')");
wait_arrival($alive, q{SELECT string_agg(name, ', ' ORDER BY name) FROM parent WHERE n <> -1},
	'parent 10, parent 3, parent 4, parent 5, twice, second', 'set_checkpoint(): what has changed since then, of a folded log, is sent again');
wait_arrival($alive, q{SELECT string_agg(code, ', ' ORDER BY code) FROM given WHERE n <> -1}, 'code 3, moved twice, second',
	'and nothing else');

#
# the one that was dead
#
$dead->start;
wait_arrival($dead, $all, rows($local, $all), 'the dead remote has everything when it is back');
my %id_now = map { split /\|/ } split /\n/, rows($dead, q{SELECT name, id FROM parent});
is($id_now{'once'}, $id_of{'parent 1'}, 'a renamed row is the same row there');
is($id_now{'twice, second'}, $id_of{'parent 2'}, 'renamed twice');
is($id_now{'parent 3'}, $id_of{'parent 3'}, 'renamed there and back');
is("$id_now{'parent 4'} $id_now{'parent 5'}", "$id_of{'parent 5'} $id_of{'parent 4'}", 'names exchanged');
is(rows($dead, q{SELECT count(*) FROM audit WHERE name = 'never seen'}), '0', 'what came and went meanwhile was never there');
is( rows($dead, q{SELECT relation, operation, count(*) FROM audit WHERE name IN ('once', 'twice, second', 'new', 'row 1', 'row 2', 'last') GROUP BY 1, 2 ORDER BY 1, 2}),
	"nameless|DELETE|2\nnameless|INSERT|1\nnameless|UPDATE|1\nparent|INSERT|1\nparent|UPDATE|2", 'each change came once');

#
# set_checkpoint() while the log is being folded: it has to wait for what it changes, here for us, and whoever folds meanwhile
# leaves nothing in the log that an older snapshot sees
#
my $before = rows($local, 'SELECT clock_timestamp()');
$local->safe_psql('postgres', 'UPDATE given SET n = 77');
wait_arrival($_, 'SELECT count(*) FROM given WHERE n = 77', rows($local, 'SELECT count(*) FROM given'), 'changes that are to be sent again') foreach $alive, $dead;
$dead->safe_psql('postgres', 'UPDATE given SET n = -1');
my $holder = $local->background_psql('postgres', on_error_stop => 1);
my $setter = $local->background_psql('postgres', on_error_stop => 1);
my $pid = $setter->query_safe('SELECT pg_backend_pid()');
$holder->query_safe(q{BEGIN; SELECT FROM synchro.remote_state WHERE server = 'dead' FOR UPDATE});
$setter->query_until(qr/started/, "\\echo started\nSELECT synchro.set_checkpoint('dead', '$before');\n");
wait_for($local, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid", 'set_checkpoint() waits');
my $segment = 'synchro.log_' . rows($local, 'SELECT last_value FROM synchro.log_switch');
my $file = rows($local, "SELECT pg_relation_filenode('$segment')");

# the other remote's pusher folds what has become four times as large
update_often($local, 'filler', 60);
wait_for($local, <<"SQL", 'the log is folded, or cannot be');
SELECT pg_relation_filenode('$segment') <> $file OR EXISTS (SELECT FROM pg_locks WHERE pid = $pid AND granted AND relation = '$segment'::regclass)
SQL
$holder->query_safe('COMMIT');
$_->quit foreach $holder, $setter;
wait_arrival($dead, 'SELECT count(*) FROM given WHERE n = -1', '0', 'set_checkpoint() finds what has changed since then');

#
# nor does folding wait for a table that somebody has locked, as all who write to the log would wait with it: its rows stay as they are
#
sub file_of_segment { return rows($local, "SELECT pg_relation_filenode('$segment')") }

wait_arrival($dead, $all, rows($local, $all), 'all is there before a table is locked');
wait_for($local, 'SELECT bool_and(pending = 0) FROM synchro.remotes', 'on both');
$dead->stop('immediate');
$segment = 'synchro.log_' . rows($local, 'SELECT last_value FROM synchro.log_switch');
my $txid = rows($local, q{BEGIN; UPDATE parent SET n = 5 WHERE name = 'new'; UPDATE parent SET name = 'newer' WHERE name = 'new'; COMMIT; SELECT xid FROM synchro.changes WHERE key = (SELECT id::text FROM parent WHERE name = 'newer') AND relation = 'parent'::regclass ORDER BY changed_at DESC LIMIT 1});
wait_arrival($alive, q{SELECT n FROM parent WHERE name = 'newer'}, '5', 'the living remote has what is going to be folded');
$file = file_of_segment();
$local->safe_psql('postgres', 'ANALYZE parent');
$holder = $local->background_psql('postgres', on_error_stop => 1);
$holder->query_safe('BEGIN; LOCK TABLE parent IN ACCESS EXCLUSIVE MODE');

# more than what was folded before
update_often($local, 'filler', 80);
wait_for($local, "SELECT pg_relation_filenode('$segment') <> $file", 'the log is folded while a table is locked');
$holder->query_safe('SELECT count(*) FROM synchro.changes');
is(rows($local, join ' UNION ALL ', map { "SELECT renames FROM synchro.log_$_ WHERE txid = $txid" } 0 .. 2), 't', 'its names of before are known as such');
update_often($local, 'filler', 1);
wait_arrival($alive, 'SELECT max(n) FROM filler', rows($local, 'SELECT max(n) FROM filler'), 'and other changes are pushed');
$holder->query_safe('COMMIT');
$holder->quit;
$dead->start;
wait_arrival($dead, $all, rows($local, $all), 'the dead remote gets what was kept');
is(rows($dead, q{SELECT id FROM parent WHERE name = 'newer'}), $id_now{'new'}, 'by the name that it knows');

$_->stop('fast') foreach $local, $alive, $dead;
done_testing();
