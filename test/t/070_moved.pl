# WHY: a row that has no natural key is known on the remote by a reference to its id here. Where the id changed, and the remote
# refused what else had, the old id was gone here, so the remote's row went, too, with all that referred to it; and when it was
# mended there was a new one. The reference has to follow, whatever becomes of the values.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE job (id serial PRIMARY KEY, name text, code int);
CREATE TABLE step (id serial PRIMARY KEY, job_id int REFERENCES job ON DELETE CASCADE ON UPDATE CASCADE, name text NOT NULL UNIQUE);
SQL
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('job_id_seq', 1000), setval('step_id_seq', 5000);
CREATE TABLE note (id serial PRIMARY KEY, job_id int REFERENCES job ON DELETE CASCADE, name text);
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('job'), synchro.add_table('step', '{name}');
INSERT INTO job (name, code) SELECT 'j' || i, i FROM generate_series(1, 6) i;
INSERT INTO step (job_id, name) SELECT i, 's' || i FROM generate_series(1, 6) i;
SQL
sync($local, 'office');
$remote->safe_psql('postgres', 'INSERT INTO note (job_id, name) SELECT id, name FROM job');
$remote->safe_psql('postgres', 'ALTER TABLE job ADD CONSTRAINT small CHECK (code < 100)');
my $jobs = 'SELECT j.name, j.code, (SELECT string_agg(s.name, \',\') FROM step s WHERE s.job_id = j.id) FROM job j ORDER BY j.name, j.code';
my $places = 'SELECT id, name FROM job ORDER BY id';
my $notes = 'SELECT n.name, j.name FROM note n JOIN job j ON j.id = n.job_id ORDER BY n.id';
my ($ids, $noted) = (rows($remote, $places), rows($remote, $notes));
my $before = rows($remote, $jobs);

sub refused
{
	my ($testname, $change, $failed, $arrived) = @_;

	$local->safe_psql('postgres', $change);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = sync($local, 'office');
	is("$result->{failed}|$result->{deleted}|$result->{inserted}", "$failed|0|0", "$testname: what is refused fails, nothing is deleted nor made");
	is(rows($remote, $places), $ids, "$testname: each row is where it was");
	is(rows($remote, $notes), $noted, "$testname: and what refers to it");
	is(rows($remote, $jobs), $arrived // $before, "$testname: as it was but for what was not refused");
	return;
}

sub mended
{
	my ($testname, $mend) = @_;

	$local->safe_psql('postgres', $mend);
	$local->safe_psql('postgres', 'SELECT synchro.retry()');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = sync($local, 'office');
	is("$result->{failed}|$result->{deleted}|$result->{inserted}", '0|0|0', "$testname: mended, all goes to the rows that there are");
	same($local, $remote, $jobs, "$testname: they are the same");
	is(rows($remote, $places), $ids, "$testname: in their places");
	is(rows($local, q{SELECT count(*) FROM synchro.verify('office')}), 0, "$testname: verify finds nothing");
	$before = rows($remote, $jobs);
	return;
}

refused('another id', 'UPDATE job SET id = id + 100, code = 200 WHERE id = 2', 1);
is(rows($local, 'SELECT key, operation, sqlstate FROM synchro.failures'), '102|update|23514', 'it waits under its new id, as an update');
mended('another id', 'UPDATE job SET code = 2 WHERE id = 102');

# refused first, then moved, then once more, while another row takes its place
refused('moved later', 'UPDATE job SET code = 300 WHERE id = 3', 1);
refused('moved later, twice', 'UPDATE job SET id = 103 WHERE id = 3', 1);
$local->safe_psql('postgres', q{INSERT INTO job (id, name, code) VALUES (3, 'new', 33)});
is(sync($local, 'office')->{inserted}, 1, 'a row that has the id of before by now is another one');
is(rows($remote, $notes), $noted, 'nobody else got what it had');
($ids, $before) = (rows($remote, $places), rows($remote, $jobs));
refused('moved again', 'UPDATE job SET id = 203 WHERE id = 103', 1);
mended('moved later', 'UPDATE job SET code = 3 WHERE id = 203');

# all one further, one of them refused
$local->safe_psql('postgres', 'DELETE FROM step');
sync($local, 'office');
$local->safe_psql('postgres', q{SELECT synchro.remove_table('step'); ALTER TABLE job DROP CONSTRAINT job_pkey CASCADE, ADD PRIMARY KEY (id) DEFERRABLE});
($before, $noted) = (rows($remote, $jobs), rows($remote, $notes));
refused('shifted', q{BEGIN; UPDATE job SET code = 500 WHERE id = 4; UPDATE job SET id = id + 1; COMMIT}, 1);
mended('shifted', 'UPDATE job SET code = 4 WHERE id = 5');

# beside others, new ones and deletes among them, that are refused or not: the batch is divided after the names of before have gone
$local->safe_psql('postgres', q{INSERT INTO job (id, name, code) VALUES (51, 'e1', 1), (52, 'e2', 2)});
sync($local, 'office');
($ids, $before) = (rows($remote, $places), rows($remote, $jobs));
$local->safe_psql('postgres', q{BEGIN; UPDATE job SET id = 151 WHERE id = 51; UPDATE job SET id = 152, code = 900 WHERE id = 52;
	INSERT INTO job (id, name, code) VALUES (53, 'e3', 3), (54, 'e4', 400), (55, 'e5', 5); DELETE FROM job WHERE code = 33; COMMIT});
my $beside = sync($local, 'office');
is("$beside->{failed}|$beside->{inserted}|$beside->{deleted}", '2|2|1', 'beside others: two fail, two are new, one goes');
is(rows($local, 'SELECT string_agg(key, \',\' ORDER BY key) FROM synchro.failures'), '152,54', 'beside others: these two');
is(rows($remote, q{SELECT string_agg(name || code, ',' ORDER BY name) FROM job WHERE name LIKE 'e%'}), 'e11,e22,e33,e55', 'beside others: each row once');
$local->safe_psql('postgres', q{UPDATE job SET code = 4 WHERE code IN (400, 900)});
is(sync($local, 'office')->{failed}, 0, 'beside others: mended');
same($local, $remote, $jobs, 'beside others: they are the same');
is(rows($local, q{SELECT count(*) FROM synchro.verify('office')}), 0, 'beside others: verify finds nothing');
($ids, $before) = (rows($remote, $places), rows($remote, $jobs));

# exchanged values: refused alone, tried once more together, by then with references that have followed
$local->safe_psql('postgres', q{UPDATE job SET code = id});
$local->safe_psql('postgres', q{DELETE FROM job WHERE id NOT IN (151, 152)});
$remote->safe_psql('postgres', 'ALTER TABLE job DROP CONSTRAINT small');
sync($local, 'office');
$remote->safe_psql('postgres', 'ALTER TABLE job ADD CONSTRAINT codes UNIQUE (code)');
($ids, $before) = (rows($remote, $places), rows($remote, $jobs));
$local->safe_psql('postgres', q{UPDATE job SET id = id + 100, code = 303 - code});
my $exchanged = sync($local, 'office');
is("$exchanged->{inserted}|$exchanged->{deleted}", '0|0', 'exchanged: nothing is made, nothing is deleted');
is(rows($remote, $places), $ids, 'exchanged: each row is where it was');
$local->safe_psql('postgres', 'SELECT synchro.retry()');
sync($local, 'office');
is(rows($remote, $places), $ids, 'exchanged: still, when it was tried again');

# the same beside one that is refused: they fail one by one, and are tried once more when their references have followed
$local->safe_psql('postgres', q{SELECT synchro.retry(); INSERT INTO job (id, name, code) VALUES (50, 'third', 50)});
sync($local, 'office');
same($local, $remote, $jobs, 'exchanged: they have arrived');
$remote->safe_psql('postgres', q{ALTER TABLE job ADD CONSTRAINT named CHECK (name <> 'bad')});
($ids, $noted) = (rows($remote, $places), rows($remote, $notes));
$local->safe_psql('postgres', q{BEGIN; UPDATE job SET id = id + 100, code = 303 - code WHERE id > 200; UPDATE job SET id = 1050, name = 'bad' WHERE id = 50; COMMIT});
$exchanged = sync($local, 'office');
is("$exchanged->{failed}|$exchanged->{inserted}|$exchanged->{deleted}", '1|0|0', 'exchanged beside a bad one: only that one waits');
is(rows($local, 'SELECT string_agg(key, \',\') FROM synchro.failures'), '1050', 'exchanged beside a bad one: it is that one');
is(rows($remote, $places), $ids, 'exchanged beside a bad one: each row is where it was');
$local->safe_psql('postgres', q{UPDATE job SET name = 'third' WHERE id = 1050; UPDATE job SET id = id - 100 WHERE id BETWEEN 300 AND 400});
sync($local, 'office');
same($local, $remote, $jobs, 'exchanged beside a bad one: mended');
$remote->safe_psql('postgres', 'ALTER TABLE job DROP CONSTRAINT codes, DROP CONSTRAINT named');
$local->safe_psql('postgres', 'SELECT synchro.retry()');
is(sync($local, 'office')->{failed}, 0, 'exchanged: mended');
same($local, $remote, $jobs, 'exchanged: they are the same');
$local->safe_psql('postgres', q{DELETE FROM job WHERE id = 1050; UPDATE job SET code = id - 200; INSERT INTO job (id, name, code) VALUES (2, 'g', 2), (4, 'h', 4)});
sync($local, 'office');
$remote->safe_psql('postgres', 'ALTER TABLE job ADD CONSTRAINT small CHECK (code < 100)');
($ids, $noted, $before) = (rows($remote, $places), rows($remote, $notes), rows($remote, $jobs));

# deleted while it waits, and moved before
refused('gone', 'UPDATE job SET id = 777, code = 700 WHERE id = 2', 1);
$local->safe_psql('postgres', 'DELETE FROM job WHERE id = 777');
is(sync($local, 'office')->{deleted}, 1, 'gone: it is deleted there');
same($local, $remote, $jobs, 'gone: they are the same');
is(rows($local, 'SELECT count(*) FROM synchro.failures'), 0, 'gone: nothing waits');

# a value that the remote's type refuses: no such row can be staged
($ids, $noted, $before) = (rows($remote, $places), rows($remote, $notes), rows($remote, $jobs));
$remote->safe_psql('postgres', 'ALTER TABLE job ALTER code TYPE smallint');
refused('type', 'UPDATE job SET id = 888, code = 99999 WHERE code = 4', 1);
mended('type', 'UPDATE job SET code = 4 WHERE id = 888');

$_->stop('fast') foreach $local, $remote;
done_testing();
