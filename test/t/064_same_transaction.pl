# WHY: the log has each row of a transaction once, by the first thing that was done to it. But other nodes ask it whether the row is
# there: applications delete all rows of a list and insert them again, and what a transaction inserts it may delete. A row that was
# there counted as gone, so a newer one went along with an older delete of what it refers to; one that was gone counted as there,
# so what came for it was written to nothing, and never came again.
use strict;
use warnings;

use lib 'test/t';
use Nodes qw(:DEFAULT on);
use SynchroTest;
use Test::More;

my $schema = <<'SQL';
CREATE TABLE child (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE tag (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE child_tag (child_id int REFERENCES child ON DELETE CASCADE, tag_id int REFERENCES tag ON DELETE CASCADE, PRIMARY KEY (child_id, tag_id));
CREATE TABLE place (n int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, tag_id int REFERENCES tag ON DELETE CASCADE);
CREATE TABLE country (code text PRIMARY KEY, n int);
CREATE TABLE town (id serial PRIMARY KEY, name text UNIQUE NOT NULL, country text REFERENCES country);
SQL
my $all = q{SELECT 'child' AS is, name, NULL FROM child UNION ALL SELECT 'tag', name, NULL FROM tag
	UNION ALL SELECT 'pair', c.name, t.name FROM child_tag p JOIN child c ON c.id = p.child_id JOIN tag t ON t.id = p.tag_id
	UNION ALL SELECT 'place', n::text, t.name FROM place LEFT JOIN tag t ON t.id = tag_id
	UNION ALL SELECT 'country', code, n::text FROM country UNION ALL SELECT 'town', name, country FROM town ORDER BY 1, 2, 3};
my ($a, $b) = nodes({}, 'a', 'b');

$_->safe_psql('postgres', $schema) foreach $a, $b;
$b->safe_psql('postgres', "ALTER SEQUENCE ${_}_id_seq RESTART 1000") foreach 'child', 'tag', 'town';
join_nodes($a, $b);
watch([ $a, $b ], child => '{name}', tag => '{name}', child_tag => undef, place => undef, country => undef, town => '{name}');

# What both have of these names in the end.
sub ends_as
{
	my ($names, $expected, $testname) = @_;

	settle($a, $b);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', grep { /\b(?:$names)\b/ } split /\n/, rows($_, $all)), $expected, "$testname: on " . $_->name) foreach $a, $b;
	is(rows($_, 'SELECT count(*) FROM synchro.failures'), '0', 'nothing has failed on ' . $_->name) foreach $a, $b;
	return;
}

#
# there: deleted and inserted again
#
my $pair = q{INSERT INTO child_tag SELECT c.id, t.id FROM child c, tag t WHERE (c.name, t.name) = };

on($a, q{INSERT INTO child (name) VALUES ('c')}, q{INSERT INTO tag (name) VALUES ('t')}, "$pair ('c', 't')");
settle($a, $b);
on($a, q{DELETE FROM tag WHERE name = 't'});
on($b, "BEGIN; DELETE FROM child_tag; $pair ('c', 't'); COMMIT");
sync($a, 'b');
ends_as('t', "pair|c|t tag|t|", 'a pair that was made anew, later than what it refers to was deleted elsewhere');

on($a, "BEGIN; DELETE FROM child_tag; $pair ('c', 't'); DELETE FROM child_tag; $pair ('c', 't'); DELETE FROM child_tag; COMMIT");
ends_as('t', "tag|t|", 'deleted in the end');
on($a, "BEGIN; $pair ('c', 't'); DELETE FROM child_tag; $pair ('c', 't'); COMMIT");
ends_as('t', "pair|c|t tag|t|", 'inserted in the end');

# A command that moves several rows logs that one has come to an identity before it logs that another one has left it.
on($a, q{INSERT INTO tag (name) VALUES ('first'), ('second')}, q{INSERT INTO place SELECT row_number() OVER (ORDER BY id), id FROM tag WHERE name IN ('first', 'second')});
settle($a, $b);
on($a, q{DELETE FROM tag WHERE name = 'first'});
on($b, q{UPDATE place SET n = n + 1});
sync($a, 'b');
ends_as('first|second', 'place|2|first place|3|second tag|first| tag|second|', 'a row that has come where another one was');

#
# gone: inserted and deleted again
#
on($a, q{INSERT INTO country VALUES ('N', 1), ('O', 1), ('P', 1)});
settle($a, $b);
on($b, q{DELETE FROM country WHERE code = 'N'}, q{BEGIN; INSERT INTO country VALUES ('N', 5); DELETE FROM country WHERE code = 'N'; COMMIT});
on($a, q{UPDATE country SET n = 9 WHERE code = 'N'});
sync($a, 'b');
is(rows($b, q{SELECT n FROM country WHERE code = 'N'}), '9', 'a row that was deleted twice there is inserted, as it was changed later');
ends_as('N', 'country|N|9', 'such a row');

# A purge that is not to be pushed is not in the log, and what comes after it has to get there all the same.
on($b, q{DELETE FROM country WHERE code = 'O'}, q{INSERT INTO country VALUES ('O', 2)});
settle($a, $b);
on($b, q{BEGIN; SET LOCAL synchro.log_changes = off; DELETE FROM country WHERE code = 'O'; COMMIT});
on($a, q{UPDATE country SET n = 9 WHERE code = 'O'});
sync($a, 'b');
is(rows($b, q{SELECT n FROM country WHERE code = 'O'}), '9', 'so is one that was deleted there without being logged');
on($a, q{INSERT INTO town (name, country) VALUES ('Oslo', 'O')});
ends_as('O', 'country|O|9 town|Oslo|O', 'and what refers to it');

# the same for a row that is only referred to
on($b, q{DELETE FROM country WHERE code = 'P'}, q{INSERT INTO country VALUES ('P', 2)});
settle($a, $b);
on($b, q{BEGIN; SET LOCAL synchro.log_changes = off; DELETE FROM country WHERE code = 'P'; COMMIT});
on($a, q{INSERT INTO town (name, country) VALUES ('Porto', 'P')});
sync($a, 'b');
ends_as('P', 'country|P|2 town|Porto|P', 'what is referred to comes along');

same($a, $b, $all, 'both are the same');
$_->stop('fast') foreach $a, $b;
done_testing();
