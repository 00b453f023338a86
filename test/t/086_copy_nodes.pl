# WHY: a copy to a node that changes rows itself must not undo what is newer there: neither its changes, nor its deletes, nor
# the rows that delete_extra would take for surplus ones though they are only on their way here.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my ($one, $two) = nodes({ conf => 'synchro.batch_size = 20' }, 'one', 'two');

$_->safe_psql('postgres', <<'SQL') foreach $one, $two;
CREATE TABLE t (id serial PRIMARY KEY, name text UNIQUE NOT NULL, v text);
CREATE TABLE child (id serial PRIMARY KEY, t int REFERENCES t, name text NOT NULL, UNIQUE (t, name));
CREATE TABLE line (id serial PRIMARY KEY, said text);
SQL
$one->safe_psql('postgres', <<'SQL');
INSERT INTO t (name, v) SELECT 'k' || i, 'one' FROM generate_series(1, 100) i;
INSERT INTO child (t, name) SELECT id, 'c' || g FROM t, generate_series(1, 2) g WHERE t.name <> 'k65';
INSERT INTO line (said) SELECT 'line ' || i FROM generate_series(1, 30) i;
SQL
$two->safe_psql('postgres', <<'SQL');
SELECT setval('t_id_seq', 1000);
INSERT INTO t (name, v) SELECT 'k' || i, 'two' FROM generate_series(51, 150) i;
INSERT INTO child (t, name) SELECT id, 'd' FROM t WHERE name IN ('k149', 'k150');
SQL
join_nodes($one, $two);
watch([ $one, $two ], t => '{name}', child => '{t,name}', line => undef);

my $contents = 'SELECT t.name, t.v, string_agg(c.name, \' \' ORDER BY c.name) FROM t LEFT JOIN child c ON c.t = t.id GROUP BY 1, 2 ORDER BY 1';

sub value
{
	my ($node, $name) = @_;

	return rows($node, "SELECT v FROM t WHERE name = '$name'");
}

sub copy
{
	my ($arguments) = @_;

	$one->safe_psql('postgres', "SELECT synchro.copy_table('two', $arguments)");
	return sync($one, 'two');
}

#
# what one of the logs knows is newer than what neither knows
#
$two->safe_psql('postgres', q{UPDATE t SET v = 'newer' WHERE name = 'k60'; DELETE FROM t WHERE name = 'k65'});
$one->safe_psql('postgres', q{UPDATE t SET v = 'known' WHERE name = 'k70'});
my $result = copy("'t'");
is("$result->{inserted} $result->{skipped} $result->{failed}", '50 2 0', 'a copy: rows that are missing arrive');
is(value($two, 'k55'), 'one', 'what neither log knows becomes as it is here');
is(value($two, 'k70'), 'known', 'as does what was changed here');
is(value($two, 'k60'), 'newer', 'a change that the remote has logged stays');
is(value($two, 'k65'), '', 'what was deleted there does not come back');
is(value($two, 'k120'), 'two', 'rows that are there only stay');
settle($one, $two);
is(value($one, 'k60') . value($one, 'k65'), 'newer', 'what won there comes here');
copy("'child'");
settle($one, $two);
is(rows($one, q{SELECT count(*) FROM t JOIN child c ON c.t = t.id WHERE t.name = 'k60'}), 2, 'with the rows that refer to it');

$result = copy("'t'");
is("$result->{inserted} $result->{updated} $result->{deleted} $result->{skipped}", '0 0 0 0', 'a second copy changes nothing');
$one->safe_psql('postgres', q{SET synchro.log_changes = off; UPDATE t SET v = 'quiet' WHERE name = 'k10'});
$result = copy("'t'");
is($result->{updated}, 1, 'but for what was changed with the log off');
is(value($two, 'k10'), 'quiet', 'that is copied');

# an old stamp stays old on its way on
$two->safe_psql('postgres', q{UPDATE t SET v = 'from two' WHERE name = 'k10'});
copy("'t'");
settle($one, $two);
is(value($_, 'k10'), 'from two', 'a change wins over an earlier copy, and a later one') foreach $one, $two;

#
# delete_extra
#
$two->safe_psql('postgres', q{INSERT INTO t (name, v) VALUES ('young', 'two'); UPDATE t SET v = 'touched' WHERE name = 'k120'});
$one->safe_psql('postgres', q{SELECT synchro.copy_table('two', 'child', true)});
$result = copy("'t', true");
is("$result->{deleted} $result->{failed}", '51 0', 'what is there only, and neither log knows, goes');
is(rows($two, q{SELECT string_agg(name, ' ' ORDER BY name) FROM t WHERE name IN ('k101', 'k120', 'k150', 'young')}), 'k120 young',
	'what was changed there, perhaps not pushed here yet, stays');
settle($one, $two);
same($one, $two, $contents, 'and comes here: both sides are the same');
is(rows($one, q{SELECT count(*) FROM t WHERE name IN ('k120', 'young')}), 2, 'with those rows');

#
# mode reference: once
#
foreach my $round (1 .. 2)
{
	copy("'line'");
	settle($one, $two);
	is(rows($_, 'SELECT count(*) FROM line'), 30, "rows without a natural key are there once, copy $round") foreach $one, $two;
}
$two->safe_psql('postgres', q{SELECT synchro.copy_table('one', 'line')});
sync($two, 'one');
settle($one, $two);
is(rows($_, 'SELECT count(*) FROM line'), 30, 'also when they are copied back') foreach $one, $two;

$_->stop('fast') foreach $one, $two;
done_testing();
