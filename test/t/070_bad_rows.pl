# WHY: how a batch is divided depends on how many bad rows there are among how many, and how it is tried again on what they fail
# for: a reference, a unique value may need others, a constraint may be looked at with the row, after it, or by a trigger of
# anybody's. 070_failures has each kind once; here each is there with one, ten and a hundred bad rows among 10,000.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use SynchroTest;
use Test::More;

my $local = synchro_node('local', preload => 1, conf => "synchro.retry_max_interval = 2s\n");
my $remote = synchro_node('remote');

both($local, $remote, 'CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, code int, round int)');
$remote->safe_psql('postgres', <<'SQL');
SELECT setval('items_id_seq', 1000000);
CREATE TABLE codes AS SELECT i AS code FROM generate_series(0, 20000) i;
ALTER TABLE codes ADD PRIMARY KEY (code);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.code = -1 THEN
		RAISE EXCEPTION 'not this one';
	END IF;
	RETURN NEW;
END
$$;
SQL
connect_remote($local, $remote);
$local->safe_psql('postgres', q{SELECT synchro.add_table('items', '{name}'); INSERT INTO items (name, code) SELECT 'item ' || i, i FROM generate_series(1, 10000) i});
wait_arrival($remote, 'SELECT count(*) FROM items', '10000', 'rows to begin with');

# what is in the way, how it goes away, what makes a row bad, and the reason told: SQLSTATE, constraint, message
my %obstacles = (
	check => [ 'ALTER TABLE items ADD CONSTRAINT no_bad CHECK (code <> -1) NOT VALID', 'ALTER TABLE items DROP CONSTRAINT no_bad', '-1',
		'23514|no_bad|new row for relation "items" violates check constraint "no_bad"' ],
	'not null' => [ 'ALTER TABLE items ALTER code SET NOT NULL', 'ALTER TABLE items ALTER code DROP NOT NULL', 'NULL',
		'23502||null value in column "code" of relation "items" violates not-null constraint' ],
	'foreign key' => [ 'ALTER TABLE items ADD CONSTRAINT known FOREIGN KEY (code) REFERENCES codes', 'ALTER TABLE items DROP CONSTRAINT known', '-1',
		'23503|known|insert or update on table "items" violates foreign key constraint "known"' ],
	unique => [ 'CREATE UNIQUE INDEX one_code ON items (code)', 'DROP INDEX one_code', '5000', '23505|one_code|duplicate key value violates unique constraint "one_code"' ],
	trigger => [ 'CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION refuse()', 'DROP TRIGGER refuse ON items', '-1',
		'P0001||not this one' ]);
my $round = 0;

sub settled
{
	my ($failed, $testname) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for($local, "SELECT pending = 0 AND failed = $failed FROM synchro.remotes", $testname)
	  or diag(rows($local, 'SELECT pending, failed, state, last_error FROM synchro.remotes'));
	return;
}

foreach my $case (map { my $kind = $_; map { [ $kind, $_ ] } 1, 10, 100 } 'check', 'not null', 'foreign key', 'unique', 'trigger')
{
	my ($kind, $count) = @$case;
	my ($obstacle, $mend, $bad, $reason) = @{ $obstacles{$kind} };
	my $testname = "$count of 10,000 rows against a $kind";
	my $step = 10000 / $count;
	my $bad_ones = "id % $step = 7 % $step";

	# 070_failures has these
	next if $kind eq 'check' && $count != 10 || $kind ne 'check' && $count == 10;
	$round++;
	$remote->safe_psql('postgres', $obstacle);
	$local->safe_psql('postgres', "UPDATE items SET round = $round, code = CASE WHEN $bad_ones THEN $bad ELSE code END");
	settled($count, "$testname: so many fail");
	is(rows($remote, "SELECT count(*) FROM items WHERE round = $round"), 10000 - $count, "$testname: all others have arrived by then");
	is(rows($local, 'SELECT DISTINCT sqlstate, constraint_name, message FROM synchro.failures'), $reason, "$testname: the reason is told");
	is(rows($local, "SELECT count(*) FROM synchro.failures f JOIN items i ON i.id::text = f.key AND i.$bad_ones AND f.relation = 'items'::regclass"
			  . q{ AND f.operation = 'update' AND f.attempts > 0 AND f.next_attempt > f.first_failed}), $count, "$testname: of the right rows, and what comes next");
	$local->safe_psql('postgres', "UPDATE items SET round = -$round WHERE $bad_ones");
	$remote->safe_psql('postgres', $mend);
	settled(0, "$testname: mended, they arrive without a call");
	is(rows($remote, "SELECT count(*) FILTER (WHERE round = -$round), count(*) FILTER (WHERE round = $round) FROM items"), "$count|" . (10000 - $count),
		"$testname: with their newest values");
	$local->safe_psql('postgres', 'UPDATE items SET code = id WHERE code IS DISTINCT FROM id');
	settled(0, "$testname: and the next ones");
	same($local, $remote, 'SELECT name, code, round FROM items ORDER BY name', "$testname: all are the same");
}

$local->stop('fast');
$remote->stop('fast');
done_testing();
