# WHY: a batch names rows that wait, so that they do not go along with what it deletes, and since they keep their names there. If one of them cannot
# be named on the remote, as several rows there bear its name, or a type there refuses that or its parent's, each such batch failed, and nobody was to blame:
# the pass ended with an error each time, and nothing was deleted any more; or all other rows of its table were parked, too.
use strict;
use warnings;
use utf8;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');
my $schema = <<'SQL';
CREATE TABLE par (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE twin (id serial PRIMARY KEY, par_id int REFERENCES par ON DELETE CASCADE, name text NOT NULL);
CREATE INDEX ON twin (name);
CREATE TABLE leaf (id serial PRIMARY KEY, twin_id int NOT NULL REFERENCES twin ON DELETE CASCADE, name text NOT NULL, par_id int REFERENCES par ON DELETE CASCADE, UNIQUE (twin_id, name));
CREATE TABLE kid (id serial PRIMARY KEY, par_id int NOT NULL REFERENCES par, name text NOT NULL, other_id int REFERENCES par ON DELETE CASCADE, v int, UNIQUE (par_id, name));
CREATE TABLE word (word text PRIMARY KEY, par_id int REFERENCES par ON DELETE CASCADE, v int);
SQL
my $all = q{SELECT 'par', name, NULL, NULL FROM par UNION ALL SELECT 'twin', t.name, p.name, NULL FROM twin t LEFT JOIN par p ON p.id = t.par_id
	UNION ALL SELECT 'leaf', t.name || l.name, p.name, NULL FROM leaf l JOIN twin t ON t.id = l.twin_id LEFT JOIN par p ON p.id = l.par_id
	UNION ALL SELECT 'kid', p.name || k.name, o.name, k.v::text FROM kid k JOIN par p ON p.id = k.par_id LEFT JOIN par o ON o.id = k.other_id
	UNION ALL SELECT 'word', word, p.name, v::text FROM word w LEFT JOIN par p ON p.id = w.par_id};

$local->safe_psql('postgres', $schema);
$remote->safe_psql('template1', q{CREATE DATABASE old TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'});
$remote->safe_psql('old', $schema . join '', map { "SELECT setval('${_}_id_seq', 1000);" } 'par', 'twin', 'leaf', 'kid');
connect_remote($local, $remote, remote_db => 'old', local_db => 'postgres');
$local->safe_psql('postgres', q{SELECT synchro.add_table(t::regclass, k::name[]) FROM (VALUES ('par', '{name}'), ('twin', '{name}'), ('leaf', '{twin_id,name}'), ('kid', '{par_id,name}'), ('word', NULL)) v (t, k);
	INSERT INTO par (name) SELECT 'p' || i FROM generate_series(1, 40) i;
	INSERT INTO twin (par_id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c');
	INSERT INTO leaf (twin_id, name, par_id) VALUES (1, 'l', 4), (2, 'l', 5), (3, 'l', 6);
	INSERT INTO kid (par_id, name, other_id, v) VALUES (10, 'k', 11, 1), (12, 'k', 13, 1), (14, 'k', 15, 1);
	INSERT INTO word VALUES ('x', 20, 1), ('y', 21, 1)});
sync($local, 'office');

# nothing but these rows waits, and of the deletes those alone that would take one along; @waits: parents
my $last = 40;

sub goes_on
{
	my ($testname, $failures, @waits) = @_;

	foreach my $time (1 .. 2)
	{
		my ($status, undef, $stderr) = $local->psql('postgres', qq{DELETE FROM par WHERE name = 'p$last'; SELECT synchro.synchronize('office')});

		is($status, 0, "$testname: the pass goes to its end, $time") or diag($stderr);
		is(rows($local, q{SELECT concat_ws(' ', relation, key, operation, sqlstate) FROM synchro.failures WHERE operation <> 'delete' ORDER BY relation::text, key}), $failures,
			"$testname: only what is refused waits, $time");
		is(rows($remote, qq{SELECT string_agg(name, ',' ORDER BY substr(name, 2)::int) FROM par WHERE name IN ('p$last', '} . join("', '", @waits) . q{')}, 'old'), join(',', @waits),
			"$testname: of the deletes those of parents that have it there, $time");
		$last--;
	}
	return;
}

sub mended
{
	my ($testname) = @_;

	foreach my $time (1 .. 3)
	{
		$local->safe_psql('postgres', 'SELECT synchro.retry()');
		$local->psql('postgres', q{SELECT synchro.synchronize('office')});
	}
	is(rows($local, 'SELECT * FROM synchro.failures'), '', "$testname: mended, nothing waits");
	is(rows($remote, "$all ORDER BY 1, 2", 'old'), rows($local, "$all ORDER BY 1, 2"), "$testname: mended, all is the same");
	return;
}

# several rows there bear its name, or the one that it had; below it there are others
$remote->safe_psql('old', q{INSERT INTO twin (par_id, name) SELECT p.id, n FROM unnest('{a,b}'::text[]) n, par p WHERE p.name IN ('p7', 'p8')});
$local->safe_psql('postgres', q{UPDATE twin SET par_id = 9 WHERE name = 'a'; UPDATE twin SET par_id = 9, name = 'd' WHERE name = 'b'; UPDATE leaf SET par_id = 9 WHERE id <= 2});
is(sync($local, 'office')->{failed}, 4, 'several rows: all are refused');
$local->safe_psql('postgres', q{DELETE FROM par WHERE name IN ('p1', 'p2', 'p4', 'p5', 'p7', 'p8')});
goes_on('several rows', "leaf 1 update 21000\nleaf 2 update 23503\ntwin 1 update 21000\ntwin 2 update 21000", 'p1', 'p2', 'p4', 'p5', 'p7', 'p8');
$remote->safe_psql('old', q{DELETE FROM twin t USING par p WHERE p.id = t.par_id AND p.name IN ('p7', 'p8')});
mended('several rows');

# a type there refuses the parent's name; one of those below it has another name, too
$remote->safe_psql('old', 'ALTER TABLE par ALTER name TYPE varchar(5)');
$local->safe_psql('postgres', q{UPDATE par SET name = 'much too long' WHERE name = 'p10'; UPDATE par SET name = 'as well' WHERE name = 'p12'; UPDATE kid SET other_id = 9; UPDATE kid SET name = 'r' WHERE id = 2});
sync($local, 'office');
$local->safe_psql('postgres', q{DELETE FROM par WHERE name IN ('p11', 'p13'); UPDATE kid SET v = 2 WHERE id = 3});
goes_on(q{the parent's name}, "kid 1 update 22001\nkid 2 update 22001\npar 10 update 22001\npar 12 update 22001", 'p11', 'p13');
is(rows($remote, 'SELECT v FROM kid k JOIN par o ON o.id = k.other_id WHERE o.name = \'p9\'', 'old'), 2, q{the parent's name: others of its table arrive});
$remote->safe_psql('old', 'ALTER TABLE par ALTER name TYPE text');
mended(q{the parent's name});

# its own name; it is not known to be new
$local->safe_psql('postgres', q{ALTER TABLE twin DISABLE TRIGGER USER; INSERT INTO twin (par_id, name) VALUES (9, 'much too long'); ALTER TABLE twin ENABLE TRIGGER USER; SELECT synchro.copy_table('office', 'twin')});
$remote->safe_psql('old', 'ALTER TABLE twin ALTER name TYPE varchar(5)');
sync($local, 'office');
goes_on('its own name', 'twin 4 update 22001');
$remote->safe_psql('old', 'ALTER TABLE twin ALTER name TYPE text');
mended('its own name');

# the encoding there does not have it
my $word = "\x{442}";

utf8::encode($word);
$local->safe_psql('postgres', qq{UPDATE word SET word = '$word', par_id = 9 WHERE word = 'x'});
is(sync($local, 'office')->{failed}, 1, 'another encoding: it is refused');
$local->safe_psql('postgres', q{DELETE FROM par WHERE name = 'p20'; UPDATE word SET v = 2 WHERE word = 'y'});
goes_on('another encoding', "word $word update 22P05", 'p20');
is(rows($remote, 'SELECT word, v FROM word ORDER BY 1', 'old'), "x|1\ny|2", 'another encoding: others of its table arrive');
$_->stop('fast') foreach $local, $remote;
done_testing();
