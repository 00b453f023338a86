# WHY: that rows which are refused hold up nothing has to be true of the pass that meets them, whatever refuses them and however
# many they are; and what is refused must be found by few batches, and tried again less and less often, or it costs the others
# their time.
use strict;
use warnings;

use lib 'test/t';
use AlwaysOn;
use PostgreSQL::Test::Utils;
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');

both($local, $remote, <<'SQL');
CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE, code int, note text);
CREATE TABLE others (id serial PRIMARY KEY, name text NOT NULL UNIQUE, n int);
SQL
$remote->safe_psql('postgres', q{SELECT setval('items_id_seq', 1000000); CREATE TABLE codes AS SELECT i AS code FROM generate_series(0, 20000) i; ALTER TABLE codes ADD PRIMARY KEY (code)});
connect_remote($local, $remote);
$local->safe_psql('postgres', <<'SQL');
SELECT synchro.add_table('items', '{name}'), synchro.add_table('others', '{name}');
INSERT INTO items (name, code, note) SELECT 'item ' || i, i, '' FROM generate_series(1, 10000) i;
SQL
is(sync($local, 'office')->{inserted}, 10000, 'rows to begin with');

my $all = 'SELECT name, code, note FROM items ORDER BY name';

#
# 1, 10 and 100 rows among 10,000, each against something else
#
my %obstacles = (
	'a CHECK' => [ 'ALTER TABLE items ADD CONSTRAINT no_bad CHECK (code <> -1)', 'ALTER TABLE items DROP CONSTRAINT no_bad', 'code = -1', '23514|no_bad|.*no_bad.*|Correct the row here, or the constraint there' ],
	'a foreign key' => [ 'ALTER TABLE items ADD CONSTRAINT known FOREIGN KEY (code) REFERENCES codes', 'ALTER TABLE items DROP CONSTRAINT known', 'code = -1', '23503|known|.*known.*|Make the row there that it references, or watch that table' ],
	'a NOT NULL' => [ 'ALTER TABLE items ALTER code SET NOT NULL', 'ALTER TABLE items ALTER code DROP NOT NULL', 'code = NULL', '23502||.*"code".*|Give the column a value here, or drop its NOT NULL there' ],
	'a unique constraint' => [ 'ALTER TABLE items ADD CONSTRAINT one_code UNIQUE (code)', 'ALTER TABLE items DROP CONSTRAINT one_code', 'code = id - 1', '23505|one_code|.*one_code.*|A row there is in its way' ],
	'a trigger' => [ <<'SQL', 'DROP TRIGGER refuse ON items; DROP FUNCTION refuse()', 'code = -1', 'P0001||not this one|none' ],
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.code = -1 THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
);

foreach my $kind (sort keys %obstacles)
{
	my ($obstacle, $mend, $change, $reason) = @{ $obstacles{$kind} };

	# in one batch, and in ten of which each has some
	foreach my $case ([ 1, 10000 ], [ 10, 10000 ], [ 100, 10000 ], $kind =~ /CHECK|foreign/ ? [ 100, 1000 ] : ())
	{
		my ($count, $size) = @$case;
		my $step = 10000 / $count;
		my $testname = "$count of 10,000 rows against $kind, batches of $size";
		my ($state, $constraint, $message, $hint) = split /\|/, $reason;

		reload_with($local, 'synchro.batch_size' => $size);
		$remote->safe_psql('postgres', $obstacle);
		$local->safe_psql('postgres', "BEGIN; UPDATE items SET note = '$testname'; UPDATE items SET $change WHERE id % $step = 7 % $step; COMMIT");
		my $from = -s $remote->logfile;
		my $result = sync($local, 'office');

		is("$result->{updated} $result->{failed}", (10000 - $count) . " $count", "$testname: the pass that meets them brings all others");
		my $batches = () = slurp_file($remote->logfile, $from) =~ /statement: BEGIN;SET CONSTRAINTS ALL DEFERRED/g;
		cmp_ok($batches, '<', (20 + 20 * $count) * ($kind =~ /unique/ ? 2 : 1), "$testname: they are found by few batches, $batches");
		is(rows($local, q{SELECT count(*), count(DISTINCT key), bool_and(attempts = 1 AND next_attempt > first_failed AND operation = 'update'), bool_and(message ~ '^} . $message . q{$' AND coalesce(hint, 'none') ~ '^} . $hint . q{'), min(sqlstate), max(sqlstate), min(constraint_name) FROM synchro.failures}),
			"$count|$count|t|t|$state|$state|$constraint", "$testname: each is shown, with its reason, and what mends it");

		# what is sent then are the newest values
		$local->safe_psql('postgres', "UPDATE items SET note = 'newest' WHERE id % $step = 7 % $step");
		$remote->safe_psql('postgres', $mend);
		$result = sync($local, 'office');
		is("$result->{updated} $result->{failed}", "$count 0", "$testname: the cause gone, they arrive");
		same($local, $remote, $all, "$testname: with the newest values");
		$local->safe_psql('postgres', 'UPDATE items SET code = id WHERE code IS DISTINCT FROM id');
		is(sync($local, 'office')->{updated}, $count, "$testname: the next change of them is like any other");
	}
}

#
# Each attempt is twice as far from the one before, a fifth more or less, up to synchro.retry_max_interval. Of a row, and of a
# table that stalls.
#
reload_with($local, 'synchro.retry_max_interval' => '10s');
$local->safe_psql('postgres', q{INSERT INTO others (name, n) VALUES ('first', 1)});
sync($local, 'office');
foreach my $case ([ 'items', 'ALTER TABLE items ADD CONSTRAINT no_bad CHECK (code <> -1)', 'UPDATE items SET code = -1 WHERE id = 7', 'ALTER TABLE items DROP CONSTRAINT no_bad' ],
	[ 'others', 'REVOKE UPDATE ON others FROM sync', 'UPDATE others SET n = 2', 'GRANT UPDATE ON others TO sync' ])
{
	my ($table, $obstacle, $change, $mend) = @$case;

	$remote->safe_psql('postgres', $obstacle);
	$local->safe_psql('postgres', $change);
	foreach my $attempt (1 .. 6)
	{
		my $tried = rows($local, 'SELECT clock_timestamp()');
		my $most = 2**($attempt - 1) > 10 ? 10 : 2**($attempt - 1);

		sync($local, 'office');

		# it was tried after $tried, and before now
		is(rows($local, "SELECT relation, attempts, next_attempt >= '$tried'::timestamptz + 0.8 * interval '$most s', next_attempt <= clock_timestamp() + 1.2 * interval '$most s'
			FROM synchro.failures ORDER BY 1"), "$table|$attempt|t|t", "$table, attempt $attempt: the next one is in some $most s");
	}
	$remote->safe_psql('postgres', $mend);
	is(sync($local, 'office')->{failed}, 0, "$table: the cause gone, it arrives");
}

# A table that has stalled does not keep synchronize() from trying rows of others.
$remote->safe_psql('postgres', q{ALTER TABLE others ADD CONSTRAINT small CHECK (n < 1000); REVOKE UPDATE ON items FROM sync});
$local->safe_psql('postgres', q{UPDATE items SET note = 'stalls'; UPDATE others SET n = 5000});
is(sync($local, 'office')->{failed}, 2, 'a table stalls, and a row of another is refused');
$local->safe_psql('postgres', q{UPDATE synchro.parked SET next_attempt = now() + interval '1 hour'; UPDATE synchro.stalled SET next_attempt = now() + interval '1 hour'});
$remote->safe_psql('postgres', 'ALTER TABLE others DROP CONSTRAINT small');
is(sync($local, 'office')->{failed}, 1, 'the row is tried by the call that finds the table as it was');
same($local, $remote, 'SELECT name, n FROM others', 'and arrives');
$remote->safe_psql('postgres', 'GRANT UPDATE ON items TO sync');
is(sync($local, 'office')->{failed}, 0, 'the next call tries the table');
same($local, $remote, $all, 'and all is the same');

# A parent that is not watched is pushed only where others need it. Refused, it is shown as they are, and goes when they do,
# whichever way that is mended; and stays for as long as one that has not been tried since may need it.
both($local, $remote, <<'SQL');
CREATE TABLE countries (id serial PRIMARY KEY, code text NOT NULL UNIQUE, n int);
CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL UNIQUE, country_id int REFERENCES countries);
SQL
$remote->safe_psql('postgres', q{SELECT setval('countries_id_seq', 100); ALTER TABLE countries ADD CONSTRAINT positive CHECK (n > 0)});
$local->safe_psql('postgres', q{SELECT synchro.register_natural_key('countries', '{code}'), synchro.add_table('customers', '{name}')});
my $failures = q{SELECT string_agg(concat_ws(' ', relation, key, attempts), ', ' ORDER BY relation::text, key) FROM synchro.failures};

sub refused_parents
{
	my ($testname, $n, @mends) = @_;
	my $first = 1 + rows($local, 'SELECT count(*) FROM countries');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$local->safe_psql('postgres', "INSERT INTO countries (code, n) SELECT 'c' || i, -1 FROM generate_series($first, $first + $n - 1) i;"
		  . "INSERT INTO customers (name, country_id) SELECT 'of c' || i, i FROM generate_series($first, $first + $n - 1) i");
	sync($local, 'office');
	is(rows($local, $failures), join(', ', (map { "countries $_ 1" } $first .. $first + $n - 1), map { "customers $_ 1" } $first .. $first + $n - 1), "$testname: both are shown");
	while (my ($node, $mend, $left) = splice @mends, 0, 3)
	{
		$node->safe_psql('postgres', $mend =~ s/FIRST/$first/gr);
		sync($local, 'office');
		is(rows($local, $failures), $left =~ s/(\d+)(?= \d)/$first + $1/ger, "$testname: and gone");
	}
	return;
}

refused_parents('corrected here', 1, $local, 'UPDATE countries SET n = 1', '');
refused_parents('refused no more', 1, $remote, 'ALTER TABLE countries DROP CONSTRAINT positive', '');
$remote->safe_psql('postgres', 'ALTER TABLE countries ADD CONSTRAINT positive CHECK (n > 0) NOT VALID');
refused_parents('made there', 1, $remote, q{INSERT INTO countries (code, n) VALUES ('cFIRST', 2)}, '');
refused_parents('not needed any more', 1, $local, 'UPDATE customers SET country_id = NULL WHERE country_id = FIRST', '');
refused_parents('one of two', 2, $local, 'UPDATE countries SET n = 1 WHERE id = FIRST', 'countries 1 2, customers 1 2', $local, 'UPDATE countries SET n = 1', '');

# one that is there already, and has no natural key to be found by
both($local, $remote, 'CREATE TABLE colours (id serial PRIMARY KEY, code text NOT NULL UNIQUE); ALTER TABLE customers ADD colour_id int REFERENCES colours');
$remote->safe_psql('postgres', q{SELECT setval('colours_id_seq', 100); INSERT INTO colours (code) VALUES ('red')});
$local->safe_psql('postgres', q{INSERT INTO colours (code) VALUES ('red'); INSERT INTO customers (name, colour_id) VALUES ('red one', 1)});
sync($local, 'office');
is(rows($local, q{SELECT sqlstate, hint FROM synchro.failures WHERE relation = 'colours'::regclass}),
	q{23505|If that row there is the same one, say by what: SELECT synchro.register_natural_key('public.colours', '{...}').}, 'a parent that is there already: what helps');
$local->safe_psql('postgres', q{SELECT synchro.register_natural_key('colours', '{code}')});
sync($local, 'office');
is(rows($remote, q{SELECT name, code FROM customers JOIN colours c ON c.id = colour_id}), 'red one|red', 'and it does');
is(rows($local, q{SELECT failed FROM synchro.remotes}), '0', 'nothing has failed');
same($local, $remote, 'SELECT name, code FROM customers c LEFT JOIN countries p ON p.id = country_id ORDER BY name', 'and all that refer to them are there');

$local->stop('fast');
$remote->stop('fast');
done_testing();
