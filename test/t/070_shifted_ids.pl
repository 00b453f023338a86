# WHY: names of before are read 10,000 rows at a time. A row that has two (one that it bore, and one that another row bore which had its
# identity), and stands just at the end of these, was staged twice: of rows known by reference each such batch failed, and rows were
# parked that nothing was wrong with.
use strict;
use warnings;

use lib 'test/t';
use SynchroTest;
use Test::More;

my $local = synchro_node('local');
my $remote = synchro_node('remote');
both($local, $remote, <<'SQL');
CREATE TABLE job (id int PRIMARY KEY DEFERRABLE, name text NOT NULL);
CREATE TABLE line (id int PRIMARY KEY DEFERRABLE, name text NOT NULL);
SQL
$remote->safe_psql('postgres', 'CREATE SEQUENCE ids START 100000; GRANT USAGE ON SEQUENCE ids TO PUBLIC; ALTER TABLE job ALTER id SET DEFAULT nextval(\'ids\')');
$local->safe_psql('postgres', 'CREATE SEQUENCE ids OWNED BY job.id; ALTER TABLE job ALTER id SET DEFAULT nextval(\'ids\')');
connect_remote($local, $remote);

# job is known by reference, line by its primary key's name
$local->safe_psql('postgres', q{ALTER TABLE line ADD UNIQUE (name); SELECT synchro.add_table('job'), synchro.add_table('line', '{name}')});
is(rows($local, q{SELECT synchro.table_mode('job'), synchro.table_mode('line')}), 'reference|natural key', 'how they are known');
$local->safe_psql('postgres', q{INSERT INTO job (id, name) SELECT i, 'j' || i FROM generate_series(1, 12000) i; INSERT INTO line (id, name) SELECT i, 'l' || i FROM generate_series(1, 12000) i});
sync($local, 'office');
$local->safe_psql('postgres', 'UPDATE job SET id = id + 1; UPDATE line SET id = id + 1, name = \'m\' || id');
my $result = sync($local, 'office');
is("$result->{failed}|$result->{inserted}|$result->{deleted}", '0|0|0', 'nothing fails, nothing is made, nothing goes') or diag(rows($local, 'SELECT relation, sqlstate, message, count(*), min(key), max(key) FROM synchro.failures GROUP BY 1, 2, 3'));
sync($local, 'office');
same($local, $remote, 'SELECT name FROM job ORDER BY name', 'job is the same');
same($local, $remote, 'SELECT name FROM line ORDER BY name', 'line is the same');
$_->stop('fast') foreach $local, $remote;
done_testing();
