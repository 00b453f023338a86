# shellcheck shell=bash disable=SC2034,SC1010,SC1091
#
# Much at once: rows inserted by one statement, then updated, then deleted; in one table without foreign keys and in one with
# two. For each statement how long it took, what WAL it wrote here, and the time from its commit until the remote has the
# same, by a row of another table that is committed after it.

workload_prepare()
{
	local side

	for side in local remote; do
		sql $side <<-'SQL' || return 1
			CREATE TABLE customers (id serial PRIMARY KEY, email text NOT NULL UNIQUE);
			CREATE TABLE shops (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
			CREATE TABLE items (id serial PRIMARY KEY, code text NOT NULL UNIQUE, quantity integer, note text);
			CREATE TABLE orders (id serial PRIMARY KEY, number text NOT NULL UNIQUE,
				customer_id integer NOT NULL REFERENCES customers, shop_id integer NOT NULL REFERENCES shops, total numeric, note text);
			CREATE TABLE done (id serial PRIMARY KEY, step text NOT NULL UNIQUE);
			INSERT INTO customers (email) SELECT i || '@example.com' FROM generate_series(1, 20000) i;
			INSERT INTO shops (name) SELECT 'shop ' || i FROM generate_series(1, 500) i;
		SQL
	done
	# who can translate ids has to
	if [ "$PEER" = synchro ]; then
		sql remote --command="UPDATE customers SET id = id + 1000000; UPDATE shops SET id = id + 1000000;
			ALTER SEQUENCE orders_id_seq RESTART 5000000; ALTER SEQUENCE items_id_seq RESTART 5000000" || return 1
	fi
	sql local --command='VACUUM ANALYZE' && sql remote --command='VACUUM ANALYZE'
}

workload_keys()
{
	echo customers email
	echo shops name
	echo items code
	echo orders number
	echo done step
}

contents()
{
	sql "$1" --command="SELECT md5(coalesce(string_agg(x, E'\n' ORDER BY x COLLATE \"C\"), '')) FROM (
		SELECT format('%s %s %s', code, quantity, note) AS x FROM items UNION ALL
		SELECT format('%s %s %s %s %s', number, email, name, total, o.note)
			FROM orders o JOIN customers c ON c.id = customer_id JOIN shops s ON s.id = shop_id) y"
}

is_done()
{
	[ "$(sql remote --command="SELECT count(*) FROM done WHERE step = '$1'")" = 1 ]
}

# step NAME ROWS SQL
step()
{
	local started committed drained before

	sql local --command=CHECKPOINT && sql remote --command=CHECKPOINT || return 1
	before=$(wal)
	started=$(date +%s%N)
	sql local --command="$3" || return 1
	committed=$(date +%s%N)
	metric "$1_statement_s" "$(seconds $((committed - started)))"
	metric "$1_wal_mb" "$((($(wal) - before) / 1000000))"
	[ "$PEER" != none ] || return 0
	sql local --command="INSERT INTO done (step) VALUES ('$1')" || return 1
	wait_until 900 is_done "$1" || return 1
	drained=$(date +%s%N)
	metric "$1_drained_rows_per_s" "$(($2 * 1000000 / ((drained - committed) / 1000)))"
	[ "$(contents local)" = "$(contents remote)" ] || { echo "$1: contents differ" >&2; return 1; }
}

workload_run()
{
	local rows=$((($1 > 5) ? 1000000 : 50000))

	step insert $rows "INSERT INTO items (code, quantity, note) SELECT 'i' || i, i, 'note ' || i FROM generate_series(1, $rows) i" &&
		step insert_with_references $rows "INSERT INTO orders (number, customer_id, shop_id, total, note)
			SELECT 'n' || i, 1 + i % 20000, 1 + i % 500, i * 1.5, 'note ' || i FROM generate_series(1, $rows) i" &&
		step update $rows "UPDATE items SET quantity = quantity + 1" &&
		step delete $((rows / 2)) "DELETE FROM items WHERE id <= $((rows / 2))"
}
