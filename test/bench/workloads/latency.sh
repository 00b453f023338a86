# shellcheck shell=bash
#
# From commit to visible: 100 transactions per second by two clients, each of which inserts one order of some customer, and
# for each the time from its commit here to the commit over there. Both servers stamp their commits by the one clock of
# this machine.

RATE=100

workload_prepare()
{
	local side

	for side in local remote; do
		sql $side <<-'SQL' || return 1
			CREATE TABLE customers (id serial PRIMARY KEY, email text NOT NULL UNIQUE);
			CREATE TABLE orders (id serial PRIMARY KEY, number uuid NOT NULL UNIQUE,
				customer_id integer NOT NULL REFERENCES customers, note text);
			INSERT INTO customers (email) SELECT i || '@example.com' FROM generate_series(1, 1000) i;
			VACUUM ANALYZE;
		SQL
	done
}

workload_keys()
{
	echo customers email
	echo orders number
}

arrived()
{
	[ "$(sql remote --command='SELECT count(*) FROM orders')" = "$(sql local --command='SELECT count(*) FROM orders')" ]
}

workload_run()
{
	local figures

	# whatever the first contact takes is not what is asked for
	sql local --command="INSERT INTO orders (number, customer_id) VALUES (gen_random_uuid(), 1)" || return 1
	wait_until 60 arrived || return 1
	sql local --command='CREATE TABLE first AS SELECT number FROM orders' || return 1

	cat >"$WORK/order.sql" <<-'SQL'
		\set customer random(1, 1000)
		INSERT INTO orders (number, customer_id, note) VALUES (gen_random_uuid(), :customer, 'a note');
	SQL
	run_job "$WORK/pgbench.log" pgbench --no-vacuum --host="$WORK/tmp" --port="$LOCAL_PORT" --username=postgres --client=2 \
		--rate=$RATE --time="$1" --file="$WORK/order.sql" bench 9>&- || { cat "$WORK/pgbench.log" >&2; return 1; }
	wait_until 120 arrived || return 1

	sql remote --command='COPY (SELECT number, pg_xact_commit_timestamp(xmin) FROM orders) TO STDOUT' >"$WORK/there" || return 1
	figures=$(
		sql local <<-SQL
			CREATE TEMP TABLE there (number uuid PRIMARY KEY, committed timestamptz);
			\\copy there FROM '$WORK/there'
			SELECT count(*), round(count(*) / extract(epoch FROM max(here) - min(here)), 1),
				round(percentile_disc(0.5) WITHIN GROUP (ORDER BY took), 2),
				round(percentile_disc(0.95) WITHIN GROUP (ORDER BY took), 2),
				round(percentile_disc(0.99) WITHIN GROUP (ORDER BY took), 2),
				round(max(took), 2)
			FROM (SELECT pg_xact_commit_timestamp(o.xmin) AS here,
					extract(epoch FROM there.committed - pg_xact_commit_timestamp(o.xmin)) * 1000 AS took
				FROM orders o JOIN there USING (number) WHERE number NOT IN (SELECT number FROM first)) x;
		SQL
	) || return 1
	# shellcheck disable=SC2086
	set -- $figures
	[ $# -eq 6 ] || return 1
	metric commits "$1"
	metric commits_per_second "$2"
	metric p50_ms "$3"
	metric p95_ms "$4"
	metric p99_ms "$5"
	metric max_ms "$6"
}
