# WHY: an operator wants to see what a pass would do to the remote before it is done. Only a pass that is really made there,
# and rolled back, knows what the remote's rules and triggers say to it; so it must leave nothing behind on either side, not
# even a sequence that has moved on, and what it announces must be what the next pass does.
use strict;
use warnings;

use lib 'test/t';
use Nodes;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE country (id serial PRIMARY KEY, code text NOT NULL UNIQUE, name text, area numeric(10, 2));
CREATE TABLE city (id serial PRIMARY KEY, country_id int NOT NULL REFERENCES country, name text NOT NULL, mayor text, founded date,
	ticket bigserial, UNIQUE (country_id, name));
CREATE TABLE node (id serial PRIMARY KEY, parent_id int REFERENCES node, name text NOT NULL, note text, UNIQUE NULLS NOT DISTINCT (parent_id, name));
CREATE TABLE tag (id serial PRIMARY KEY, name text NOT NULL UNIQUE DEFERRABLE);
CREATE TABLE city_tag (city_id int REFERENCES city, tag_id int REFERENCES tag, PRIMARY KEY (city_id, tag_id));
CREATE TABLE visit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, city_id int REFERENCES city, note text);
CREATE TABLE unit (code text PRIMARY KEY, label text);
SQL
$local->safe_psql('postgres', 'ALTER SEQUENCE country_id_seq RESTART 5000; ALTER SEQUENCE city_id_seq RESTART 7000');

# What is on the remote only: rules, a number of its own, and a trigger that leaves traces.
$remote->safe_psql('postgres', <<'SQL');
ALTER TABLE country ADD CHECK (id > 0), ADD CHECK (area >= 0), ADD number serial UNIQUE;
CREATE TABLE trace (at timestamptz DEFAULT clock_timestamp(), what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.trace (what) VALUES (TG_OP); RETURN NULL; END$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON city FOR EACH ROW EXECUTE FUNCTION note();
SQL
connect_remote($local, $remote);
my @tables = ([ country => '{code}' ], [ city => '{country_id,name}' ], [ node => '{parent_id,name}' ], [ tag => '{name}' ], ['city_tag'], ['visit'], ['unit']);

$local->safe_psql('postgres', 'SELECT synchro.add_table(' . join(', ', map { "'$_'" } @$_) . ')') foreach @tables;

sub preview
{
	my ($node, $name) = @_;

	return join "\n", sort split /\n/, $node->safe_psql('postgres',
		sprintf q{SELECT concat_ws('|', relation, coalesce(key, '-'), action, detail) FROM synchro.preview(%s)}, defined $name ? "'$name'" : '');
}

# The preview says this; it changes nothing; and a pass then does what it said.
sub announces
{
	my ($expected, $testname, %opts) = @_;
	my $from = $opts{from} || $local;
	my $to = $opts{to} || $remote;
	my $name = $opts{name} || 'office';
	my @before = (everything($from), everything($to));
	my $said = preview($from, $name);
	my @after = (everything($from), everything($to));
	my %count = (insert => 0, update => 0, delete => 0, skip => 0, fail => 0);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	subtest $testname => sub {
		is($said, $expected, 'it says what will happen') if ref $expected eq '';
		like($said, $expected, 'it says what will happen') if ref $expected ne '';
		is($after[0], $before[0], 'nothing has changed here');
		is($after[1], $before[1], 'nor on the remote');
		return if $opts{only};
		$count{ (split /\|/)[2] }++ foreach split /\n/, $said;
		my $result = sync($from, $name);
		is(join(' ', map { $result->{$_} } qw(inserted updated deleted skipped failed)),
			join(' ', map { $count{$_} } qw(insert update delete skip fail)), 'and that is what the next pass does');
	};
	return $said;
}

#
# Before the first contact, with rows on both sides
#
$remote->safe_psql('postgres', q{INSERT INTO country (code, name, area) VALUES ('DE', 'Deutschland', 357000), ('FR', 'France', 1)});
$local->safe_psql('postgres', <<'SQL');
INSERT INTO country (code, name, area) VALUES ('DE', 'Germany', 357588), ('IT', 'Italy', 302000), ('FR', 'France', 1);
INSERT INTO city (country_id, name, mayor, founded) SELECT id, 'Capital', 'M. of ' || code, '1200-01-02' FROM country;
INSERT INTO node (name) VALUES ('root');
INSERT INTO node (parent_id, name) SELECT id, 'leaf' FROM node;
INSERT INTO tag (name) VALUES ('big'), ('old');
INSERT INTO city_tag SELECT c.id, t.id FROM city c, tag t WHERE c.mayor = 'M. of IT';
INSERT INTO visit (city_id, note) SELECT id, 'nice' FROM city WHERE mayor = 'M. of IT';
INSERT INTO unit VALUES ('kg', 'kilogram');
SQL
announces(<<'ROWS' =~ s/\n\z//r, 'rows of all kinds of tables, before the first contact');
city_tag|IT, Capital, big|insert
city_tag|IT, Capital, old|insert
city|DE, Capital|insert
city|FR, Capital|insert
city|IT, Capital|insert
country|DE|update|name: 'Deutschland' -> 'Germany', area: 357000.00 -> 357588.00
country|IT|insert
node|root, leaf|insert
node|root|insert
tag|big|insert
tag|old|insert
unit|kg|insert
visit|1|insert
ROWS
is(preview($local, 'office'), '', 'afterwards there is nothing to be shown');
is(rows($remote, 'SELECT count(*) FROM country WHERE id BETWEEN 1 AND 10'), '3', 'and the ids of the remote have no holes');

#
# Changes of all kinds
#
$local->safe_psql('postgres', <<'SQL');
UPDATE city SET mayor = repeat('x', 60), founded = NULL WHERE mayor = 'M. of DE';
UPDATE country SET code = 'FX' WHERE code = 'FR';
UPDATE city SET country_id = (SELECT id FROM country WHERE code = 'IT'), name = 'Second' WHERE mayor = 'M. of FR';
UPDATE country SET name = name WHERE code = 'IT';
UPDATE node SET name = 'stem' WHERE name = 'root';
UPDATE tag SET name = CASE name WHEN 'big' THEN 'old' ELSE 'big' END;
DELETE FROM city_tag WHERE tag_id = (SELECT id FROM tag WHERE name = 'big');
DELETE FROM visit;
UPDATE unit SET code = 'g', label = 'it''s a gram';
SQL
announces(<<'ROWS' =~ s/\n\z//r, 'changes, renamed keys, a swap, moves in a tree, deletes');
city_tag|IT, Capital, old|delete
city|DE, Capital|update|mayor: 'M. of DE' -> 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...', founded: '1200-01-02' -> NULL
city|IT, Second|update|country_id -> 'IT', name: 'Capital' -> 'Second'
country|FX|update|code: 'FR' -> 'FX'
node|stem|update|name: 'root' -> 'stem'
tag|big|update|name: 'old' -> 'big'
tag|old|update|name: 'big' -> 'old'
unit|g|update|code: 'kg' -> 'g', label: 'kilogram' -> 'it''s a gram'
visit|1|delete
ROWS

#
# Parents that were never logged
#
$local->safe_psql('postgres', <<'SQL');
BEGIN;
SET LOCAL synchro.log_changes = off;
INSERT INTO country (code, name, area) VALUES ('NO', 'Norway', 5);
COMMIT;
INSERT INTO city (country_id, name) SELECT id, 'Oslo' FROM country WHERE code = 'NO';
SQL
announces("city|NO, Oslo|insert\ncountry|NO|insert|rows that refer to it need it", 'a missing parent is shown as well');

#
# Rows that fail, among others; deletes too
#
$remote->safe_psql('postgres', q{CREATE TABLE uses (country_id int REFERENCES country);
	INSERT INTO country (code, name, area) VALUES ('XX', 'x', 1); INSERT INTO uses SELECT id FROM country WHERE code = 'XX';
	GRANT SELECT, INSERT, UPDATE, DELETE ON uses TO sync});
$local->safe_psql('postgres', <<'SQL');
INSERT INTO country (code, name, area) VALUES ('XX', 'x', 1), ('YY', 'y', 1);
SQL
sync($local, 'office');
$local->safe_psql('postgres', <<'SQL');
INSERT INTO country (code, name, area) SELECT 'C' || i, 'country ' || i, CASE WHEN i = 7 THEN -1 ELSE i END FROM generate_series(1, 20) i;
INSERT INTO city (country_id, name) SELECT id, 'in a bad one' FROM country WHERE code = 'C7';
UPDATE country SET area = -2 WHERE code = 'IT';
DELETE FROM country WHERE code IN ('XX', 'YY');
SQL
my $said = announces(qr/^country\|C7\|fail\|23514: .*country_area_check/m, 'rows that the remote refuses, among others');
like($said, qr/^city\|C7, in a bad one\|fail\|23503: .*could not be applied either/m, 'a row that refers to such a one');
like($said, qr/^country\|IT\|fail\|23514: /m, 'an update');
like($said, qr/^country\|XX\|fail\|23503: .*uses/m, 'a delete');
like($said, qr/^country\|YY\|delete$/m, 'another one goes through');
is(scalar(() = $said =~ /\|insert$/mg), 19, 'the others are shown as they will be');

# They are parked now, and tried again; mended they go through.
$remote->safe_psql('postgres', 'DELETE FROM uses');
$local->safe_psql('postgres', q{UPDATE country SET area = 1 WHERE code IN ('C7', 'IT')});
announces(<<'ROWS' =~ s/\n\z//r, 'what is parked, when it has been mended');
city|C7, in a bad one|insert
country|C7|insert
country|IT|update|area: 302000.00 -> 1.00
country|XX|delete
ROWS
is(rows($local, 'SELECT count(*) FROM synchro.failures'), '0', 'nothing is parked any more');

#
# A table that cannot be pushed at all
#
$local->safe_psql('postgres', q{ALTER TABLE unit ADD extra int; UPDATE unit SET extra = 1; INSERT INTO tag (name) VALUES ('new')});
announces(qr/\Atag\|new\|insert\nunit\|-\|fail\|42703: .*no column "extra".*\z/, 'a table that is not the same there, and another one');
$remote->safe_psql('postgres', 'ALTER TABLE unit ADD extra int');
announces('unit|g|update|extra: NULL -> 1', 'the same, mended');

#
# Ids that are taken at the end of their type, and sequences in other places
#
both($local, $remote, 'CREATE TABLE taken (id smallserial PRIMARY KEY, name text UNIQUE, label text, said text)');
$remote->safe_psql('postgres', q{CREATE SEQUENCE labels; GRANT USAGE ON labels TO sync; ALTER TABLE taken ALTER label SET DEFAULT 'L' || nextval('labels');
	CREATE FUNCTION my_nextval(text) RETURNS text LANGUAGE sql AS $$SELECT 'my ' || $1$$;
	CREATE FUNCTION "nextval("(text) RETURNS text LANGUAGE sql AS $$SELECT $1 || '.'$$;
	ALTER TABLE taken ALTER said SET DEFAULT my_nextval('it''s nextval(') || "nextval("('one');
	INSERT INTO taken VALUES (32767, 'last', 'l', 'l')});
$local->safe_psql('postgres', q{SELECT synchro.add_table('taken', '{name}', skip => '{label,said}'); INSERT INTO taken (name) VALUES ('a'), ('b')});
announces("taken|a|insert\ntaken|b|insert", 'sequences of other kinds');
is(rows($remote, q{SELECT id, name, label, said FROM taken ORDER BY id}), "1|a|L1|my it's nextval(one.\n2|b|L2|my it's nextval(one.\n32767|last|l|l",
	'which begin with 1 after all');

#
# Unique values: a real clash, one that a pass can solve, a renamed row that is refused; in one transaction as well
#
both($local, $remote, 'CREATE TABLE seat (id serial PRIMARY KEY, name text NOT NULL UNIQUE, place int NOT NULL)');
$remote->safe_psql('postgres', q{ALTER TABLE seat ADD UNIQUE (place), ADD CHECK (name <> 'bad'); INSERT INTO seat (name, place) VALUES ('theirs', 100)});
$local->safe_psql('postgres', q{SELECT synchro.add_table('seat', '{name}'); INSERT INTO seat (name, place) SELECT 's' || i, i FROM generate_series(1, 6) i});
sync($local, 'office');
foreach my $atomic ('off', 'on')
{
	my ($x, $y) = $atomic eq 'on' ? ('s3', 's4') : ('s1', 's2');

	$local->append_conf('postgresql.conf', "synchro.atomic_pass = $atomic");
	$local->reload;
	$local->safe_psql('postgres', qq{UPDATE seat SET place = 3 - place + 4 * (place / 3) WHERE name IN ('$x', '$y');
		UPDATE seat SET name = 'bad' WHERE name = 's5'; UPDATE seat SET place = 100 WHERE name = 's6'});
	announces(qr/\Aseat\|bad\|fail\|23514:\ .*\n
		seat\|$x\|update\|place:\ \d\ ->\ \d\nseat\|$y\|update\|place:\ \d\ ->\ \d\n
		seat\|s6\|fail\|23505:\ .*\z/x,
		"unique values, atomic_pass = $atomic");
	is(rows($remote, "SELECT string_agg(place::text, ' ' ORDER BY name) FROM seat WHERE name IN ('$x', '$y')"),
		$atomic eq 'on' ? '4 3' : '2 1', 'a swap has arrived');
}
$local->append_conf('postgresql.conf', 'synchro.atomic_pass = off');
$local->safe_psql('postgres', q{UPDATE seat SET name = 's5' WHERE name = 'bad'; UPDATE seat SET place = 6 WHERE name = 's6'});
sync($local, 'office');

#
# A copy that is queued
#
$remote->safe_psql('postgres', q{UPDATE unit SET label = 'other' WHERE code = 'g'});
$local->safe_psql('postgres', q{SELECT synchro.copy_table('office', 'unit')});
announces("unit|g|update|label: 'other' -> 'it''s a gram'", 'a piece of a copy');

#
# Many rows: more than one batch
#
$local->append_conf('postgresql.conf', 'synchro.batch_size = 100');
$local->reload;
$local->safe_psql('postgres', <<'SQL');
INSERT INTO node (name) SELECT 'n ' || i FROM generate_series(1, 450) i;
INSERT INTO node (parent_id, name) SELECT id, 'below' FROM node WHERE name LIKE 'n %';
DELETE FROM city WHERE name = 'Second';
SQL
$said = announces(qr/^city\|IT, Second\|delete$/m, 'many batches');
is(scalar(() = $said =~ /^node\|n \d+\|insert$/mg), 450, 'roots');
is(scalar(() = $said =~ /^node\|n \d+, below\|insert$/mg), 450, 'and what is below them');
same($local, $remote, q{SELECT p.name, n.name FROM node n LEFT JOIN node p ON p.id = n.parent_id ORDER BY 1, 2}, 'all have arrived');

#
# Who may see what
#
$local->safe_psql('postgres', q{INSERT INTO tag (name) VALUES ('secret'); INSERT INTO unit VALUES ('s', 'second');
	CREATE ROLE operator LOGIN; GRANT USAGE ON SCHEMA synchro TO operator});
my ($status, $out, $err) = $local->psql('postgres', 'SELECT * FROM synchro.preview()', extra_params => [ '-U', 'operator' ]);

like($err, qr/permission denied for function preview/, 'it is not for everybody');
$local->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION synchro.preview TO operator; GRANT SELECT ON unit TO operator');
($status, $out, $err) = $local->psql('postgres', 'SELECT relation, key FROM synchro.preview()', extra_params => [ '-U', 'operator' ]);
is($out, 'unit|s', 'a role sees rows of the tables that it may read');
like($err, qr/NOTICE:  rows are not shown that you may not read: 1\n.*Tables: tag/, 'and is told of others');
unlike($err, qr/secret/, 'though not which');
$local->safe_psql('postgres', q{INSERT INTO country (code) VALUES ('hush'); INSERT INTO city (country_id, name) SELECT id, 'Known' FROM country WHERE code = 'hush';
	GRANT SELECT ON city TO operator});
($status, $out, $err) = $local->psql('postgres', 'SELECT relation, key FROM synchro.preview()', extra_params => [ '-U', 'operator' ]);
is($out, 'unit|s', 'nor is a row shown whose key has the name of one of a table that he may not read');
like($err, qr/rows are not shown that you may not read: 3\n.*Tables: .*\bcity\b/, 'which is told, too');
unlike($err, qr/hush|Known/, 'without its name');
$local->safe_psql('postgres', 'GRANT SELECT ON country TO operator');
($status, $out, $err) = $local->psql('postgres', q{SELECT relation, key FROM synchro.preview() WHERE relation <> 'unit'::regclass ORDER BY relation::text}, extra_params => [ '-U', 'operator' ]);
is($out, "city|hush, Known\ncountry|hush", 'until he may read both');

$local->safe_psql('postgres', 'BEGIN READ ONLY; SELECT count(*) FROM synchro.preview(); COMMIT');
pass('a transaction that may only read may do it');
($status, $out, $err) = $local->psql('postgres', q{BEGIN; INSERT INTO unit VALUES ('m', 'metre'); SELECT key FROM synchro.preview() WHERE relation = 'unit'::regclass});
is($out, 's', 'changes that are not committed are not shown');
like($err, qr/NOTICE:  changes of this transaction are not committed yet.*\nHINT:  Commit before you call preview\(\)\./, 'which it says');

($status, $out, $err) = $local->psql('postgres', "\\set VERBOSITY verbose\nBEGIN; LOCK unit; SELECT * FROM synchro.preview()");
like($err, qr/ERROR:  55P03: preview\(\) cannot go on because this transaction holds a lock/, 'a caller who is in the way is told so');

# Somebody there holds a row that is to be written; the caller does not wait for ever, and the worker goes with him.
my $holder = $remote->background_psql('postgres');

$local->safe_psql('postgres', q{UPDATE unit SET label = 'G' WHERE code = 'g'});
$holder->query_safe(q{BEGIN; UPDATE unit SET label = label WHERE code = 'g'});
($status, $out, $err) = $local->psql('postgres', q{SET statement_timeout = '2s'; SELECT * FROM synchro.preview()});
like($err, qr/canceling statement due to statement timeout/, 'it can be cancelled');
wait_for($local, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'synchro pusher'}, 'and leaves no worker behind');
$holder->query_safe('ROLLBACK');
$holder->quit;
wait_for($remote, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'sync'}, 'nor a session on the remote');

#
# A second remote, where nothing is yet
#
$remote->safe_psql('postgres', 'CREATE DATABASE other');
$remote->safe_psql('other', 'CREATE TABLE unit (code text PRIMARY KEY, label text, extra int)');
connect_remote($local, $remote, name => 'second', remote_db => 'other', peer => 'create');
$local->safe_psql('postgres', q{INSERT INTO unit VALUES ('cd', 'candela')});
like(preview($local, 'second'), qr/^unit\|cd\|insert$/m, 'a remote that was never met');
is(rows($remote, q{SELECT count(*) FROM pg_namespace WHERE nspname = 'synchro_peer'}, 'other'), '0', 'nothing is made there');
is(rows($local, q{SELECT string_agg(remote, ' ' ORDER BY remote) FROM synchro.preview() WHERE relation = 'unit'::regclass AND key = 'cd'}),
	'office second', 'all remotes at once');
$local->safe_psql('postgres', q{ALTER SERVER second OPTIONS (SET dbname 'nowhere')});
($status, $out, $err) = $local->psql('postgres', q{SELECT remote FROM synchro.preview() WHERE key = 'cd'});
is($out, 'office', 'one that cannot be reached does not hide the others');
like($err, qr/WARNING:  could not look at remote "second"\n.*HINT:  .*SELECT \* FROM synchro\.preview\('second'\);/s, 'and is named');
$local->safe_psql('postgres', q{SELECT synchro.remove_remote('second')});

#
# A remote that is paused, or dead
#
$local->safe_psql('postgres', q{SELECT synchro.pause('office')});
like(preview($local, 'office'), qr/unit\|s\|insert/, 'a paused remote can be looked at');
is(preview($local), '', 'but only if it is named');
$local->safe_psql('postgres', q{SELECT synchro.resume('office')});
$remote->stop('fast');
($status, $out, $err) = $local->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM synchro.preview('office')");
like($err, qr/ERROR:  08\w{3}: could not connect to remote "office"/, 'a remote that is down is an error');
is(rows($local, 'SELECT last_error IS NULL FROM synchro.remotes'), 't', 'which is nobody else\'s business');
$remote->start;
sync($local, 'office');
$_->stop('fast') foreach $local, $remote;

#
# Both sides take writes
#
my ($a, $b) = nodes({}, 'a', 'b');

both($a, $b, q{CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
	CREATE TABLE part (id serial PRIMARY KEY, item_id int NOT NULL REFERENCES item, name text, UNIQUE (item_id, name))});
join_nodes($a, $b);
watch([ $a, $b ], item => '{name}', part => '{item_id,name}');
$a->safe_psql('postgres', q{INSERT INTO item (name, n) SELECT 'i' || i, 0 FROM generate_series(1, 6) i});
settle($a, $b);
$a->safe_psql('postgres', q{UPDATE item SET n = 1 WHERE name IN ('i1', 'i2'); DELETE FROM item WHERE name IN ('i3', 'i4'); UPDATE item SET n = 1 WHERE name = 'i5'});
$b->safe_psql('postgres', q{UPDATE item SET n = 2 WHERE name = 'i1'; UPDATE item SET n = 2 WHERE name = 'i3'; DELETE FROM item WHERE name = 'i5'});
$a->safe_psql('postgres', q{INSERT INTO item (name, n) VALUES ('i7', 7); INSERT INTO part (item_id, name) SELECT id, 'p' FROM item WHERE name = 'i7'});
announces(qr/\A
	item\|i1\|skip\|changed\ here\ \S+\ \S+,\ changed\ on\ the\ remote\ later,\ \S+\ \S+\n
	item\|i2\|update\|n:\ 0\ ->\ 1\n
	item\|i3\|skip\|deleted\ here\ \S+\ \S+,\ changed\ on\ the\ remote\ later,\ \S+\ \S+\n
	item\|i4\|delete\n
	item\|i5\|skip\|changed\ here\ \S+\ \S+,\ deleted\ on\ the\ remote\ later,\ \S+\ \S+\n
	item\|i7\|insert\n
	part\|i7,\ p\|insert\z/x, 'changes that are older than the remote\'s', from => $a, to => $b, name => 'b');
settle($a, $b);
same($a, $b, 'SELECT name, n FROM item ORDER BY 1', 'both sides are the same after all');

# a parent that was never logged, and is refused there
$b->safe_psql('postgres', 'ALTER TABLE item ADD CHECK (n >= 0)');
$a->safe_psql('postgres', q{BEGIN; SET LOCAL synchro.log_changes = off; INSERT INTO item (name, n) VALUES ('i8', -1), ('i9', 9); COMMIT;
	INSERT INTO part (item_id, name) SELECT id, 'q' FROM item WHERE name IN ('i8', 'i9')});
announces(qr/\Aitem\|i8\|fail\|23514: .*\nitem\|i9\|insert\|rows that refer to it need it\npart\|i8,\ q\|fail\|23503: .*\npart\|i9,\ q\|insert\z/,
	'parents that were never logged, one of them refused', from => $a, to => $b, name => 'b');
$_->stop('fast') foreach $a, $b;

done_testing();
