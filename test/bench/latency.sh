# shellcheck shell=bash
#
# From commit to visible, for the workloads that are about it: 100 transactions per second by two clients, at random
# moments, each of which inserts one order of some customer. A session on the remote looks for new orders every half
# millisecond and notes the time; the time of the commit here is its time stamp. Both are of the one clock of this machine.

latency_tables()
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
	sql remote <<-'SQL'
		CREATE TABLE seen (number uuid PRIMARY KEY, at timestamptz NOT NULL);
		CREATE PROCEDURE watch_orders(until timestamptz) LANGUAGE plpgsql AS $$
		DECLARE
			last integer;
			found_one boolean;
		BEGIN
			INSERT INTO seen SELECT number, '-infinity' FROM orders ON CONFLICT DO NOTHING;
			SELECT coalesce(max(id), 0) INTO last FROM orders;
			COMMIT;
			WHILE clock_timestamp() < until LOOP
				-- ids need not become visible in their order
				INSERT INTO seen SELECT number, clock_timestamp() FROM orders WHERE id > last - 200 ON CONFLICT DO NOTHING;
				found_one := FOUND;
				IF found_one THEN
					SELECT max(id) INTO last FROM orders;
				END IF;
				COMMIT;
				PERFORM pg_sleep(0.0005);
			END LOOP;
		END $$;
	SQL
}

latency_keys()
{
	echo customers email
	echo orders number
}

orders_arrived()
{
	[ "$(sql remote --command='SELECT count(*) FROM orders')" = "$(sql local --command='SELECT count(*) FROM orders')" ]
}

orders_seen()
{
	[ "$(sql remote --command='SELECT count(*) FROM orders')" = "$(sql remote --command='SELECT count(*) FROM seen')" ]
}

# latency SECONDS: sets FIGURES to number, number per second, p50, p95, p99 and greatest, in ms
latency()
{
	local watcher

	# whatever the first contact takes is not what is asked for
	sql local --command="INSERT INTO orders (number, customer_id) VALUES (gen_random_uuid(), 1)" || return 1
	wait_until 120 orders_arrived || return 1
	sql local --command='SET client_min_messages = warning; DROP TABLE IF EXISTS first; CREATE TABLE first AS SELECT number FROM orders' || return 1

	cat >"$WORK/order.sql" <<-'SQL'
		\set customer random(1, 1000)
		INSERT INTO orders (number, customer_id, note) VALUES (gen_random_uuid(), :customer, 'a note');
	SQL
	# two commands: a procedure that commits must not be one of several statements
	sql remote --command="SET synchronous_commit = off" --command="CALL watch_orders(clock_timestamp() + interval '$(($1 + 200)) seconds')" >"$WORK/watch.log" 2>&1 8>&- 9>&- &
	watcher=$!
	wait_until 30 orders_seen || { cat "$WORK/watch.log" >&2; return 1; }
	run_job "$WORK/pgbench.log" pgbench --no-vacuum --host="$WORK/tmp" --port="$LOCAL_PORT" --username=postgres --client=2 \
		--rate=100 --time="$1" --file="$WORK/order.sql" bench 8>&- 9>&- || { cat "$WORK/pgbench.log" >&2; return 1; }
	wait_until 120 orders_arrived || return 1
	wait_until 10 orders_seen || { echo "not all orders were seen" >&2; return 1; }
	sql remote --command="SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%CALL watch\\_orders%' AND pid <> pg_backend_pid()" >/dev/null
	wait $watcher

	sql remote --command="COPY seen TO STDOUT" >"$WORK/there" || return 1
	FIGURES=$(
		sql local <<-SQL
			CREATE TEMP TABLE there (number uuid PRIMARY KEY, at timestamptz);
			\\copy there FROM '$WORK/there'
			SELECT count(*), round(count(*) / extract(epoch FROM max(here) - min(here)), 1),
				round(percentile_disc(0.5) WITHIN GROUP (ORDER BY took), 2),
				round(percentile_disc(0.95) WITHIN GROUP (ORDER BY took), 2),
				round(percentile_disc(0.99) WITHIN GROUP (ORDER BY took), 2),
				round(max(took), 2)
			FROM (SELECT pg_xact_commit_timestamp(o.xmin) AS here,
					extract(epoch FROM there.at - pg_xact_commit_timestamp(o.xmin)) * 1000 AS took
				FROM orders o JOIN there USING (number) WHERE number NOT IN (SELECT number FROM first)) x;
		SQL
	)
}
