# The ISO tables of countries, subdivisions, languages and currencies arrive whole under other ids.
#
# WHY: real data: names in many scripts, parents that come after their children, codes that begin alike, columns that are
# missing in some rows. A generated row is as its author imagined it; these are not.

use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $json = '/usr/share/iso-codes/json';
-f "$json/iso_3166-2.json" or die "$json/iso_3166-2.json is missing: install the package iso-codes";

my $local = synchro_node('local');
my $remote = synchro_node('remote');

sub run_file
{
	my ($node, $name) = @_;

	open my $file, '<', "test/demo/$name.sql" or die "test/demo/$name.sql: $!";
	local $/ = undef;
	$node->safe_psql('postgres', <$file>);
	return;
}

run_file($_, 'schema') foreach $local, $remote;
run_file($remote, 'remote');
connect_remote($local, $remote);
run_file($local, 'watch');
run_file($local, 'load');

my %rows = map { $_ => rows($local, "SELECT count(*) FROM $_") } qw(countries subdivisions languages currencies country_currency);
my %least = (countries => 240, subdivisions => 4500, languages => 7000, currencies => 150, country_currency => 100);
my $total = 0;
foreach my $table (sort keys %least)
{
	cmp_ok($rows{$table}, '>', $least{$table}, "$table of the package were loaded");
	$total += $rows{$table};
}
cmp_ok(rows($local, 'SELECT count(*) FROM subdivisions WHERE parent_id IS NOT NULL'), '>', 1000, 'many subdivisions have parents');

my $contents = <<'SQL';
SELECT jsonb_build_array('country', alpha_2, alpha_3, name, official_name)::text COLLATE "C" AS line FROM countries
UNION ALL SELECT jsonb_build_array('subdivision', s.code, s.name, s.type, c.alpha_2, p.code)::text
	FROM subdivisions s JOIN countries c ON c.id = s.country_id LEFT JOIN subdivisions p ON p.id = s.parent_id
UNION ALL SELECT jsonb_build_array('language', alpha_3, name, type)::text FROM languages
UNION ALL SELECT jsonb_build_array('currency', alpha_3, name)::text FROM currencies
UNION ALL SELECT jsonb_build_array('country_currency', c.alpha_2, u.alpha_3)::text
	FROM country_currency JOIN countries c ON c.id = country_id JOIN currencies u ON u.id = currency_id
ORDER BY 1
SQL

my $before = rows($remote, 'SELECT alpha_2, id, visits FROM countries ORDER BY 1');
my %here = map { $_ => 1 } split /\n/, rows($local, $contents);
my @there = split /\n/, rows($remote, $contents);
my $result = sync($local, 'office');
is($result->{inserted}, $total - @there, 'what was not there is inserted');
is($result->{updated}, scalar(grep { !$here{$_} } @there), 'what was there is updated, but where it was as it is here');
same($local, $remote, $contents, 'all is as it is here');
is(rows($remote, q{SELECT alpha_2, id, visits FROM countries WHERE id <= 1003 ORDER BY 1}), $before,
	'countries that were there have kept ids and visits');
is(rows($remote, 'SELECT count(*) FROM countries c JOIN subdivisions s ON s.country_id = c.id WHERE c.id > 1000 AND s.id > 100000'), $rows{subdivisions},
	"all ids are the remote's");

run_file($local, 'changes');
$result = sync($local, 'office');
same($local, $remote, $contents, 'changes of all kinds arrive');
is($result->{inserted}, 0, 'a country that is renamed is not inserted again');
my ($burma) = $before =~ /^BU\|(\d+)\|/m;
is(rows($remote, q{SELECT id FROM countries WHERE alpha_2 = 'MM'}), $burma, 'it has the id that it had');
is(sync($local, 'office')->{message}, 'No changes since last synchronization.', 'then nothing is left to be pushed');

done_testing();
