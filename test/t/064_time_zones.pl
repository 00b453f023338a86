# WHY: a node is asked for the newest changes of rows by their identities, and for rows that have lost a name by that name, as text, which
# was written and read with the settings of the role that pushes. With DateStyle SQL a time is written with the abbreviation of its zone, and
# CST is read as another zone than the one that wrote it (up to PostgreSQL 17; 036_role_settings.pl has the same for deletes that wait). So
# the log had nothing of such a row: an older change won, and was the node's own, and a row that was renamed came a second time.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, <<'SQL');
CREATE TABLE reading (device int, at timestamptz, v int, PRIMARY KEY (device, at));
CREATE TABLE visit (id serial PRIMARY KEY, at timestamptz NOT NULL UNIQUE, v int);
CREATE TABLE stay (visit_id int REFERENCES visit, night date, v int, PRIMARY KEY (visit_id, night));
SQL
join_nodes($a, $b);
watch([ $a, $b ], reading => undef, visit => '{at}', stay => undef);
$_->safe_psql('postgres', q{ALTER ROLE sync SET datestyle = 'SQL, DMY'; ALTER ROLE sync SET timezone = 'Asia/Shanghai'}) foreach $a, $b;
$a->safe_psql('postgres', q{INSERT INTO reading VALUES (1, '2024-06-01 10:00+08', 0), (2, '2024-06-01 10:00+08', 0);
	INSERT INTO visit (at, v) VALUES ('2024-06-01 10:00+08', 0), ('2024-06-02 10:00+08', 0); INSERT INTO stay SELECT id, '2024-06-02', 0 FROM visit});
settle($a, $b);

$a->safe_psql('postgres', 'UPDATE reading SET v = 1 WHERE device = 1');
$b->safe_psql('postgres', 'UPDATE reading SET v = 2 WHERE device = 1');
$a->safe_psql('postgres', 'DELETE FROM reading WHERE device = 2');
$b->safe_psql('postgres', 'UPDATE reading SET v = 2 WHERE device = 2');
settle($a, $b);
is(rows($_, 'SELECT device, v FROM reading ORDER BY 1'), "1|2\n2|2", 'the newer changes are there on ' . $_->name) foreach $a, $b;
is(rows($b, 'SELECT count(*) FROM synchro.conflicts'), 2, 'and the older ones are recorded');

# no echo: what A has changed is A's change on B
$a->safe_psql('postgres', 'UPDATE reading SET v = 3 WHERE device = 1');
settle($a, $b);
is(rows($b, q{SELECT origin = (SELECT id FROM synchro.node) FROM synchro.changes ORDER BY changed_at DESC LIMIT 1}), 'f', 'a change that was applied is not B\'s own');

# a row that B calls otherwise by now, and one that is gone there
$b->safe_psql('postgres', q{UPDATE visit SET at = at + interval '1 h' WHERE at = '2024-06-01 10:00+08'; DELETE FROM stay WHERE visit_id = (SELECT id FROM visit WHERE at = '2024-06-02 10:00+08')});
$a->safe_psql('postgres', q{UPDATE visit SET v = 1 WHERE at = '2024-06-01 10:00+08'; UPDATE stay SET v = 1});
settle($a, $b);
is(rows($_, q{SELECT at AT TIME ZONE 'UTC', v.v, night, s.v FROM visit v LEFT JOIN stay s ON s.visit_id = v.id ORDER BY 1}),
	"2024-06-01 02:00:00|1|2024-06-02|1\n2024-06-02 02:00:00|0|2024-06-02|1", 'a row that was renamed is one row still on ' . $_->name) foreach $a, $b;

$_->stop('fast') foreach $a, $b;
done_testing();
