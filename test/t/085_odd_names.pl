# WHY: nobody chooses names so that SQL written by others stays right: schemas, tables, columns, constraints, roles and servers have
# quotes, percent signs, blanks and backslashes in theirs, and tables are empty, partitioned, computed or refer to themselves. All
# that is for before, during and after must work for these as for any, also for an owner without other rights, and no text of a
# name may ever be run.
use strict;
use warnings;

use lib 'test/t';
use JSON::PP ();
use SynchroTest;
use Test::More;

my $here = synchro_node('here', conf => "fsync = on\nfull_page_writes = on\nsynchro.batch_size = 10");
my $there = synchro_node('there', conf => "fsync = on\nfull_page_writes = on");

# names as SQL writes them, and their text as a literal
my $schema = q{"a ""schema""; DROP TABLE x; --'%s"};
my $remote = q{re'm"o%te \\};
my ($r, $o) = (q{'re''m"o%te \\'}, q{"the ""owner's"""});
my %t = (
	parent => qq{$schema."par""ent'%d"}, child => qq{$schema."chi'ld %1\$s"}, tree => qq{$schema."tr""ee"}, part => qq{$schema."par%t"},
	none => qq{$schema."no'ne"}, unwatched => qq{$schema."un'watched"});
my %l = map { $_ => "'" . $t{$_} =~ s/'/''/gr . "'" } keys %t;
my $s = "'" . $schema =~ s/'/''/gr . "'";

my $tables = <<"SQL";
CREATE SCHEMA $schema;
CREATE TABLE x (id int);
CREATE TABLE $t{unwatched} ("i d" serial PRIMARY KEY, "co'de" text NOT NULL CONSTRAINT "one ""code""" UNIQUE);
CREATE TABLE $t{parent} ("i d" serial PRIMARY KEY, "un'" int REFERENCES $t{unwatched}, "na""me'%s" text NOT NULL CONSTRAINT "un'ique ""%s" UNIQUE, "va\\lue %" numeric CONSTRAINT "po'si%tive" CHECK ("va\\lue %" >= 0), "dou""ble" numeric GENERATED ALWAYS AS ("va\\lue %" * 2) STORED, "ski'p" text);
CREATE TABLE $t{child} ("i d" serial PRIMARY KEY, "par""ent" int NOT NULL CONSTRAINT "f'k ""%s" REFERENCES $t{parent} ON DELETE CASCADE, "n'" int NOT NULL, "te xt" text, UNIQUE ("par""ent", "n'"));
CREATE INDEX ON $t{child} ("te xt");
CREATE TABLE $t{tree} ("i d" serial PRIMARY KEY, "u'p" int REFERENCES $t{tree}, "par""ent" int REFERENCES $t{parent}, "sa""id" text);
CREATE INDEX ON $t{tree} ("u'p");
CREATE INDEX ON $t{tree} ("par""ent");
CREATE INDEX ON $t{parent} ("un'");
CREATE TABLE $t{part} ("ke'y" text, "da""y" date, v int, PRIMARY KEY ("ke'y", "da""y")) PARTITION BY RANGE ("da""y");
CREATE TABLE $schema."par%t '1" PARTITION OF $t{part} FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
CREATE TABLE $schema."par%t ""2" PARTITION OF $t{part} DEFAULT;
CREATE TABLE $t{none} ("na'me" text PRIMARY KEY);
SQL
foreach my $node ($here, $there)
{
	$node->safe_psql('postgres', "CREATE ROLE $o LOGIN; GRANT CREATE ON DATABASE postgres TO $o");
	$node->safe_psql('postgres', "GRANT CREATE ON SCHEMA public TO $o; SET ROLE $o; $tables");
}
$there->safe_psql('postgres', "SELECT setval(c.oid::regclass, 5000) FROM pg_class c WHERE relkind = 'S'");
connect_remote($here, $there, name => $remote, user => q{sy'n"c %}, password => q{se'c"ret %\\}, schemas => [ 'public', q{a "schema"; DROP TABLE x; --'%s} ]);
my $server = q{"re'm""o%te \\"};

# everything is done by an owner who has been granted EXECUTE, and owns server and tables
$here->safe_psql('postgres', "GRANT USAGE ON FOREIGN DATA WRAPPER synchro_fdw TO $o; ALTER SERVER $server OWNER TO $o; CREATE USER MAPPING FOR $o SERVER $server OPTIONS (user 'sy''n\"c %', password 'se''c\"ret %\\');");
$here->safe_psql('postgres', "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA synchro TO $o; GRANT SELECT ON ALL TABLES IN SCHEMA synchro TO $o");

sub owner
{
	my ($sql) = @_;

	return $here->safe_psql('postgres', "SET client_min_messages = warning; SET ROLE $o; $sql");
}

# the messages of it
sub owner_is_told
{
	my ($sql) = @_;
	my (undef, undef, $stderr) = $here->psql('postgres', "SET ROLE $o; $sql");

	return $stderr;
}

sub pushed
{
	my ($testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(owner("SELECT failed FROM synchro.synchronize($r)"), '0', $testname) || diag(rows($here, 'SELECT relation, key, message FROM synchro.failures'));
}

my $contents = <<"SQL";
WITH RECURSIVE w AS (SELECT "i d", "sa""id" AS path, "par""ent" FROM $t{tree} WHERE "u'p" IS NULL
	UNION ALL SELECT c."i d", path || '/' || c."sa""id", c."par""ent" FROM $t{tree} c JOIN w ON w."i d" = c."u'p")
SELECT * FROM (
	SELECT 'p' AS x, row(p."na""me'%s", u."co'de", p."va\\lue %", p."dou""ble")::text AS y FROM $t{parent} p LEFT JOIN $t{unwatched} u ON u."i d" = p."un'"
	UNION ALL SELECT 'c', row(p."na""me'%s", c."n'", c."te xt")::text FROM $t{child} c JOIN $t{parent} p ON p."i d" = c."par""ent"
	UNION ALL SELECT 't', row(path, p."na""me'%s")::text FROM w LEFT JOIN $t{parent} p ON p."i d" = w."par""ent"
	UNION ALL SELECT 'r', x::text FROM $t{part} x UNION ALL SELECT 'n', x::text FROM $t{none} x) z ORDER BY x, y COLLATE "C"
SQL

#
# empty tables first
#
is(owner(qq{SELECT synchro.add_table($l{parent}, '{"na\\"me''%s"}', skip => '{"ski''p"}'), synchro.add_table($l{child}, '{"par\\"ent","n''"}');
	SELECT synchro.register_natural_key($l{unwatched}, '{"co''de"}');
	SELECT synchro.add_table($l{tree}), synchro.add_table($l{part}), synchro.add_table($l{none})}) =~ s/[|\s]//gr, '', 'tables of such names are watched');
is(owner("SELECT string_agg(synchro.copy_table($r, relation)::text, ' ') FROM synchro.tables"), '0 0 0 0 0', 'empty tables are copied');
pushed('which is done at once');
is(rows($here, 'SELECT count(*) FROM synchro.copying'), '0', 'and over');
is(owner("SELECT count(*) FROM synchro.verify($r)"), '0', 'nothing is equal to nothing');
is(owner("SELECT count(*), sum(rows) FROM synchro.manifest($s)"), '6|0', 'a manifest of nothing');
is(owner("SELECT count(*) FROM synchro.preview($r)"), '0', 'a preview of nothing');
is(owner("SELECT synchro.reset_schema($s, false, $r, true)"), '0', 'empty tables are emptied');
pushed('and copied');

#
# rows
#
owner(<<"SQL");
SET synchro.log_changes = off;
INSERT INTO $t{unwatched} ("co'de") SELECT 'c''"' || i FROM generate_series(1, 3) i;
INSERT INTO $t{parent} ("un'", "na""me'%s", "va\\lue %", "ski'p") SELECT i % 3 + 1, 'p''"%s\\ ' || i, i, 'here' FROM generate_series(1, 25) i;
INSERT INTO $t{child} ("par""ent", "n'", "te xt") SELECT p."i d", i, NULLIF('t''"' || i, 't''"2') FROM $t{parent} p, generate_series(1, 2) i;
INSERT INTO $t{tree} ("par""ent", "sa""id") SELECT "i d", 'a''"' FROM $t{parent} LIMIT 5;
INSERT INTO $t{tree} ("u'p", "sa""id") SELECT "i d", 'b''"' || "i d" FROM $t{tree};
INSERT INTO $t{tree} ("u'p", "sa""id") SELECT "i d", 'c' FROM $t{tree} WHERE "u'p" IS NOT NULL;
INSERT INTO $t{part} SELECT 'k''"%' || i, date '2023-12-20' + i, i FROM generate_series(1, 20) i;
INSERT INTO $t{none} VALUES ('only '' one');
SQL
is(owner("SELECT string_agg(synchro.copy_table($r, relation)::text, ' ' ORDER BY relation::text COLLATE \"C\") FROM synchro.tables"), '50 1 25 20 15', 'rows are copied');
my $said = owner("SELECT relation, key, action FROM synchro.preview($r)");
like($said, qr/\Q$t{none}|only ' one|insert\E|\Q$t{parent}|p'"%s\ \E\d+\|insert/, 'the preview names a row of the first piece');
pushed('and arrive');
same($here, $there, $contents, 'both hold the same');
is(owner("SELECT count(*) FROM synchro.verify($r)"), '0', 'which verify() finds, too');
is(rows($there, qq{SELECT count(*) FROM $t{parent} WHERE "ski'p" IS NOT NULL}), '0', 'a skipped column stays here');
is(rows($there, 'SELECT count(*) FROM x'), '0', 'no name was run');

# changes, previewed and made
owner(<<"SQL");
UPDATE $t{parent} SET "na""me'%s" = 'new ''"%d' WHERE "va\\lue %" = 3;
UPDATE $t{parent} SET "va\\lue %" = 100.5 WHERE "va\\lue %" = 4;
DELETE FROM $t{parent} WHERE "va\\lue %" = 25;
UPDATE $t{tree} SET "u'p" = (SELECT min("i d") FROM $t{tree}) WHERE "sa""id" = 'c';
DELETE FROM $t{part} WHERE "ke'y" = 'k''"%1';
UPDATE $t{part} SET "da""y" = '2023-01-01' WHERE "ke'y" = 'k''"%20';
SQL
$said = owner("SELECT relation, key, action, detail FROM synchro.preview($r)");
like($said, qr/^\Q$t{parent}\E\|new '"%d\|update\|na"me'%s: E'.*' -> 'new ''"%d'$/m, 'a name') or diag($said);
like($said, qr/^\Q$t{parent}\E\|.*\|update\|va\\lue %: 4 -> 100\.5$/m, 'a value, and none that is computed');
like($said, qr/^\Q$t{child}\E\|p'"%s\\ 25, 1\|delete\|$/m, 'a row that goes with its parent');
like($said, qr/^\Q$t{tree}\E\|\d+\|update\|u'p -> '/m, 'a row without a name, below another one');
like($said, qr/^\Q$t{part}\E\|.*\|(update|delete|insert)/m, 'a row of a partition');
pushed('they arrive');
same($here, $there, $contents, 'both hold the same');

# refused, by a constraint of such a name
$there->safe_psql('postgres', qq{ALTER TABLE $t{none} ADD CONSTRAINT "fe'w ""%s" CHECK ("na'me" <> 'b''ad')});
owner(qq{INSERT INTO $t{none} VALUES ('b''ad'), ('good')});
like(owner("SELECT key, action, detail FROM synchro.preview($r)"), qr/^b'ad\|fail\|23514: .*"fe'w "%s"/m, 'what will fail');
is(owner("SELECT inserted, failed FROM synchro.synchronize($r)"), '1|1', 'fails');
is(rows($here, 'SELECT relation, key, sqlstate, constraint_name FROM synchro.failures'), qq{$t{none}|b'ad|23514|fe'w "%s}, 'and is shown');
$there->safe_psql('postgres', qq{ALTER TABLE $t{none} DROP CONSTRAINT "fe'w ""%s"});
pushed('and comes when it can');

#
# differences, found and put right; extra rows go
#
$there->safe_psql('postgres', <<"SQL");
UPDATE $t{parent} SET "va\\lue %" = 77 WHERE "na""me'%s" = 'new ''"%d';
DELETE FROM $t{child} WHERE "n'" = 2 AND "te xt" IS NULL AND "par""ent" = (SELECT "i d" FROM $t{parent} WHERE "na""me'%s" = 'new ''"%d');
UPDATE $t{tree} SET "u'p" = NULL WHERE "i d" = (SELECT max("i d") FROM $t{tree});
INSERT INTO $t{part} VALUES ('ex''tra', '2025-01-01', 1);
INSERT INTO $t{unwatched} ("co'de") VALUES ('extra');
INSERT INTO $t{parent} ("na""me'%s", "un'") SELECT 'extra', "i d" FROM $t{unwatched} WHERE "co'de" = 'extra';
SQL
$said = owner("SELECT relation, key, difference, columns FROM synchro.verify($r) ORDER BY relation::text COLLATE \"C\", key");
is($said, <<"ROWS" =~ s/\n\z//r =~ s/TREE/($said =~ m{tr""ee"\|(\d+)})[0]/er, 'verify() names them');
$t{child}|new '"%d, 2|missing|
$t{parent}|extra|extra|
$t{parent}|new '"%d|different|{"va\\\\lue %"}
$t{part}|ex'tra, 2025-01-01|extra|
$t{tree}|TREE|different|{u'p}
ROWS
is(owner("SELECT synchro.requeue($r, $l{parent})"), '1', 'one is queued again');
is(owner("SELECT synchro.requeue($r)"), '2', 'and the others');
pushed('they arrive');
is(owner("SELECT synchro.copy_table($r, $l{part}, delete_extra => true) + synchro.copy_table($r, $l{child}, true) + synchro.copy_table($r, $l{parent}, true)"), '91', 'a copy is to delete extra rows');
pushed('and does');
same($here, $there, $contents, 'both hold the same');

#
# check() is silent, and its SQL works for such names
#
my $check = sub { return map { JSON::PP::decode_json($_) } split /\n/, owner("SELECT row_to_json(c) FROM synchro.check($r) c WHERE severity <> 'info'") };
is(join("\n", map { $_->{problem} } $check->()), '', 'check() finds nothing in the way');
foreach my $case (
	[ $there, qq{ALTER TABLE $t{parent} DROP CONSTRAINT "un'ique ""%s"}, qr/no unique index on the key/ ],
	[ $there, qq{ALTER TABLE $t{tree} DROP "sa""id"}, qr/has no column/ ],
	[ $there, qq{DROP INDEX $schema."tr""ee_par""ent_idx"}, qr/has no index/ ],
	[ $there, qq{REVOKE DELETE ON $t{child} FROM "sy'n""c %"}, qr/lacks DELETE/ ],
	[ $there, qq{ALTER TABLE $t{child} ALTER "te xt" TYPE varchar(9)}, qr/has type character varying\(9\)/ ],
	[ $here, qq{ALTER TABLE $t{tree} DISABLE TRIGGER synchro_capture}, qr/not all captured/ ])
{
	my ($side, $sql, $problem) = @$case;

	$side->safe_psql('postgres', $sql);
	my @found = $check->();
	is(scalar(@found), 1, "one thing is found: $sql") or diag(map { "$_->{problem}\n" } @found);
	like($found[0]{problem}, $problem, 'it is that');
	($found[0]{fix} =~ /^-- on remote/ ? $there : $here)->safe_psql('postgres', $found[0]{fix});
	is(join("\n", map { $_->{problem} } $check->()), '', 'its SQL mends it');
}

#
# begun anew
#
is(owner("SELECT synchro.reset_schema($s)"), '5', 'soft');
like(owner_is_told("SELECT synchro.reset_schema($s, false)"), qr/HINT:  SELECT synchro\.reset_schema\('\Q${\($schema =~ s{'}{''}gr)}\E', soft => false/, 'the hint is SQL that can be run');
$there->safe_psql('postgres', qq{DELETE FROM $t{child}; UPDATE $t{parent} SET "na""me'%s" = 'x' || "i d"});
owner("SELECT synchro.reset_schema($s, false, $r, true)");
pushed('hard');
same($here, $there, $contents, 'both hold the same');
is(owner("SELECT count(*) FROM synchro.verify($r)"), '0', 'verify() finds nothing');

# a copy of nothing that deletes what is extra deletes everything, and nothing else
owner("SET synchro.log_changes = off; DELETE FROM $t{part}");
owner("SELECT synchro.copy_table($r, $l{part}, delete_extra => true)");
is(owner("SELECT deleted FROM synchro.synchronize($r)"), '19', 'a table that is empty here is emptied there');
same($here, $there, $contents, 'the others are as they were');

# and what an administrator of the remote is to run grants what is needed there
$there->safe_psql('postgres', qq{REVOKE ALL ON SCHEMA $schema FROM "sy'n""c %"});
$there->safe_psql('postgres', $here->safe_psql('postgres', 'SELECT synchro.peer_setup()'));
is($there->safe_psql('postgres', qq{SELECT has_schema_privilege('sy''n"c %', n.oid, 'USAGE') FROM pg_namespace n WHERE quote_ident(n.nspname) = $s}), 't', 'peer_setup() names the schema');

$_->stop('fast') foreach $here, $there;
done_testing();
