# WHY: whoever runs version 1.0 has watched tables, remotes and pending changes, and does not want to begin anew. An upgrade must
# leave the same catalog as a fresh installation, or what is tested on one is not true of the other, and lose nothing, with the
# worker running all the while.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1);
my $remote = synchro_node('remote');

# All that the extension consists of, a line each.
my $catalog = <<'SQL';
WITH namespaces AS (SELECT oid FROM pg_namespace WHERE nspname = 'synchro'),
	relations AS (SELECT * FROM pg_class WHERE relnamespace IN (TABLE namespaces) AND relkind NOT IN ('i', 'I', 't'))
SELECT concat_ws(' ', 'function', oid::regprocedure, pg_get_function_arguments(oid), pg_get_function_result(oid), prolang::regrole, provolatile,
		proparallel, proisstrict, prosecdef, proconfig, proacl, probin, prosrc, prosqlbody IS NULL, obj_description(oid, 'pg_proc'))
	FROM pg_proc WHERE pronamespace IN (TABLE namespaces)
UNION ALL SELECT concat_ws(' ', 'relation', oid::regclass, relkind, relpersistence, relacl, reloptions, obj_description(oid, 'pg_class'),
		CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) END) FROM relations
UNION ALL SELECT concat_ws(' ', 'column', attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attstorage, attacl,
		pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
	FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	WHERE attrelid IN (SELECT oid FROM relations) AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
	WHERE conrelid IN (SELECT oid FROM relations)
UNION ALL SELECT concat_ws(' ', 'index', pg_get_indexdef(indexrelid)) FROM pg_index WHERE indrelid IN (SELECT oid FROM relations)
UNION ALL SELECT concat_ws(' ', 'event trigger', evtname, evtevent, evtenabled, evttags, evtfoid::regproc, obj_description(oid, 'pg_event_trigger'))
	FROM pg_event_trigger
UNION ALL SELECT concat_ws(' ', 'member', CASE WHEN deptype = 'e' THEN pg_describe_object(classid, objid, objsubid) END)
	FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'synchro') AND deptype = 'e'
UNION ALL SELECT concat_ws(' ', 'dumped', config::regclass, condition)
	FROM pg_extension, unnest(extconfig, extcondition) x(config, condition) WHERE extname = 'synchro'
UNION ALL SELECT concat_ws(' ', 'version', extversion) FROM pg_extension WHERE extname = 'synchro'
UNION ALL SELECT concat_ws(' ', 'schema', nspacl, obj_description(oid, 'pg_namespace')) FROM pg_namespace WHERE nspname = 'synchro'
ORDER BY 1
SQL
$catalog =~ s/prolang::regrole/(SELECT lanname FROM pg_language l WHERE l.oid = prolang)/;

# 1.0, in use
both($local, $remote, 'CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE NOT NULL, n int, secret text); CREATE TABLE note (id serial PRIMARY KEY, t_id int REFERENCES t, what text)');
$remote->safe_psql('postgres', q{SELECT setval('t_id_seq', 100), setval('note_id_seq', 200); ALTER TABLE t ADD CHECK (n < 1000)});
$local->safe_psql('postgres', q{CREATE EXTENSION synchro VERSION '1.0'});
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('t', '{name}', skip => '{secret}'), synchro.add_table('note');
INSERT INTO t (name, n) VALUES ('a', 1), ('b', 2);
INSERT INTO note (t_id, what) SELECT id, 'of ' || name FROM t;
SQL
wait_arrival($remote, 'SELECT count(*) FROM note', '2', 'version 1.0 pushes');
$local->safe_psql('postgres', q{UPDATE t SET n = 5000 WHERE name = 'b'});
wait_for($local, q{SELECT count(*) = 1 FROM synchro.failures WHERE relation = 't'::regclass}, 'a row is refused');

# what is pending while the remote is away
$remote->stop('fast');
$local->safe_psql('postgres', q{INSERT INTO t (name, n) VALUES ('c', 3); INSERT INTO note (t_id, what) SELECT id, 'of c' FROM t WHERE name = 'c'; DELETE FROM note WHERE what = 'of a'});
wait_for($local, q{SELECT attempts > 0 FROM synchro.remotes}, 'the worker tries in vain');
my $kept = <<'SQL';
SELECT string_agg(x::text, ';' ORDER BY x::text) FROM synchro.tables x UNION ALL
SELECT string_agg(x::text, ';' ORDER BY x::text) FROM synchro.remote x UNION ALL
SELECT string_agg(x::text, ';' ORDER BY x::text) FROM synchro.changes x UNION ALL
SELECT concat(id, relation, key, operation, sqlstate, message) FROM synchro.failures UNION ALL
SELECT x::text FROM synchro.node x UNION ALL
SELECT string_agg(tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text, ';' ORDER BY tgrelid, tgname) FROM pg_trigger WHERE tgname LIKE 'synchro%'
SQL
my $before = rows($local, $kept);
my $pid = pusher_pid($local, 'office');

# the upgrade
is(rows($local, q{SELECT count(*) FROM pg_proc WHERE proname = 'verify' AND pronamespace = 'synchro'::regnamespace}), '0', '1.0 is not 1.1 by another name');
$local->safe_psql('postgres', q{ALTER EXTENSION synchro UPDATE});
is(rows($local, $kept), $before, 'tables, remotes, log, failures, node and triggers are what they were');
is(pusher_pid($local, 'office'), $pid, 'the worker goes on');
$local->safe_psql('postgres', 'CREATE DATABASE fresh');
$local->safe_psql('fresh', 'CREATE EXTENSION synchro');
same($local, $local, $catalog, 'an upgraded catalog equals a fresh one', remote_db => 'fresh');
cmp_ok(rows($local, "SELECT count(*) FROM ($catalog) x"), '>', 300, 'and that compares a lot');

# and it goes on
$remote->start;
wait_arrival($remote, q{SELECT string_agg(t.name || t.n || ' ' || coalesce(what, '-'), ',' ORDER BY name) FROM t LEFT JOIN note ON t_id = t.id}, 'a1 -,b2 of b,c3 of c', 'what was pending arrives');
$local->safe_psql('postgres', q{UPDATE t SET n = 20 WHERE name = 'b'});
wait_arrival($remote, q{SELECT n FROM t WHERE name = 'b'}, '20', 'what had failed, too, once it is mended');
is(rows($local, q{SET synchro.verify_wait = '10min'; SELECT count(*) FROM synchro.verify('office')}), '0', 'what is new in 1.1 works on it');
is(rows($local, q{SELECT synchro.alter_table('note'); ALTER TABLE note ALTER id DROP DEFAULT; SELECT mode FROM synchro.tables WHERE relation = 'note'::regclass}),
	"\nreference", 'how rows are found is decided when a table is altered');

# confirmed long ago, and reset since: it is as the present node that the remote was met last
$_->safe_psql('postgres', 'CREATE DATABASE another') foreach $local, $remote;
both($local, $remote, 'CREATE TABLE plain (id serial PRIMARY KEY, label text)', dbname => 'another');
$remote->safe_psql('another', q{SELECT setval('plain_id_seq', 100)});
$local->safe_psql('another', q{CREATE EXTENSION synchro VERSION '1.0'});
connect_remote($local, $remote, dbname => 'another');
$local->safe_psql('another', q{SELECT synchro.add_table('plain'); INSERT INTO plain (label) VALUES ('of the first node')});
wait_arrival($remote, 'SELECT count(*) FROM plain', '1', 'met as one node', dbname => 'another');
$local->safe_psql('another', q{SELECT synchro.confirm_node(); INSERT INTO plain (label) VALUES ('of the second node')});
wait_arrival($remote, 'SELECT count(*) FROM plain', '2', 'and as another', dbname => 'another');
$local->safe_psql('another', q{SELECT synchro.pause('office'), synchro.set_checkpoint('office', clock_timestamp()); ALTER EXTENSION synchro UPDATE; SELECT synchro.confirm_node(), synchro.resume('office'); UPDATE plain SET label = label || ', changed'});
wait_arrival($remote, q{SELECT string_agg(label, '; ' ORDER BY label) FROM plain}, 'of the first node, changed; of the second node, changed',
	'upgraded after the position was moved, it is known as which node the remote was met last', dbname => 'another');

$_->stop('fast') foreach $local, $remote;
done_testing();
