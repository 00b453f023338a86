# A column whose name the remote's version reserves and ours does not.
#
# WHY: quote_identifier() knows the words of its own version. A database that is brought over to a newer one has columns
# that bear what has become a word since, and each batch of their table would be a syntax error there. What is sent is
# looked at here, so that one version is enough.

use strict;
use warnings;

use lib 'test/t';
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote', conf => 'log_statement = all');

both($local, $remote, <<'SQL');
CREATE TABLE account (id serial PRIMARY KEY, "system_user" text UNIQUE DEFERRABLE, note text);
CREATE TABLE setting (id serial PRIMARY KEY, account_id int REFERENCES account, name text, "system_user" boolean, UNIQUE (account_id, name));
CREATE TABLE direct ("system_user" text PRIMARY KEY, note text);
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('account', '{system_user}'), synchro.add_table('setting', '{account_id, name}'), synchro.add_table('direct');
INSERT INTO account ("system_user") SELECT 'user ' || i FROM generate_series(1, 5) i;
INSERT INTO setting (account_id, name, "system_user") SELECT id, 'dark', true FROM account;
INSERT INTO direct SELECT 'direct ' || i FROM generate_series(1, 5) i;
SQL

sub flows
{
	my ($name) = @_;

	$local->safe_psql('postgres', q{SELECT count(*) FROM synchro.preview('office')});
	is(sync($local, 'office')->{failed}, 0, "$name: none is refused");
	foreach my $query (
		'SELECT "system_user", note FROM account ORDER BY 1',
		'SELECT a."system_user", s.name, s."system_user" FROM setting s JOIN account a ON a.id = s.account_id ORDER BY 1, 2',
		'SELECT * FROM direct ORDER BY 1')
	{
		is(rows($remote, $query), rows($local, $query), "$name: and the rows are the same");
	}
}

flows('new rows');
$local->safe_psql('postgres', <<'SQL');
UPDATE account SET "system_user" = 'other ' || id WHERE id < 4;
UPDATE account SET "system_user" = 'user 1' WHERE id = 2;
UPDATE setting SET "system_user" = false;
UPDATE direct SET "system_user" = 'other', note = 'n' WHERE "system_user" = 'direct 1';
UPDATE direct SET "system_user" = 'moved' WHERE "system_user" = 'direct 2';
DELETE FROM direct WHERE "system_user" = 'direct 3';
DELETE FROM setting WHERE account_id = 5;
DELETE FROM account WHERE id = 5;
SQL
flows('renamed, changed and deleted ones');
$local->safe_psql('postgres', q{UPDATE account SET "system_user" = CASE id WHEN 1 THEN 'user 1' WHEN 2 THEN 'other 1' ELSE "system_user" END});
flows('exchanged ones');
$remote->safe_psql('postgres', q{UPDATE account SET note = 'theirs'});
is(rows($local, q{SELECT count(*) FROM synchro.verify('office') WHERE relation = 'account'::regclass}), 4, 'verify() compares them');

my $log = slurp_file($remote->logfile);
my %bare = map { $_ => 1 } $log =~ /([^\n]{0,40}(?<![."'\w])system_user\b(?!")[^\n]{0,20})/g;

delete $bare{$_} foreach grep { /CREATE TABLE/ } keys %bare;
is(join("\n", sort keys %bare), '', 'nothing that was sent has the word without quotes');

done_testing();
