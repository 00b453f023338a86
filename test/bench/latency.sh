# shellcheck shell=bash
#
# From commit to visible, for the workloads that are about it: 100 transactions per second by two clients, at random
# moments, each of which inserts one order of some customer. A session on the remote takes a snapshot every half millisecond
# and notes the time; an order was visible from the first snapshot on that sees its transaction. That is all it does, as it
# shares the processors with what is measured. The time of the commit here is its time stamp. Both are of the one clock of
# this machine.

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
		CREATE TABLE watching (over boolean);
		CREATE TABLE polls (at timestamptz, snapshot pg_snapshot);
		CREATE INDEX ON polls (pg_snapshot_xmax(snapshot), at);
		CREATE PROCEDURE watch_orders() LANGUAGE plpgsql AS $$
		DECLARE
			snapshot text;
			last text := '';
			over boolean;
			times timestamptz[] := '{}';
			snapshots text[] := '{}';
		BEGIN
			LOOP
				SELECT pg_current_snapshot(), w.over INTO snapshot, over FROM watching w;
				COMMIT;
				IF snapshot <> last THEN
					times := times || clock_timestamp();
					snapshots := snapshots || snapshot;
					last := snapshot;
				END IF;
				EXIT WHEN over;
				PERFORM pg_sleep(0.0005);
			END LOOP;
			INSERT INTO polls SELECT t, s::pg_snapshot FROM unnest(times, snapshots) p (t, s);
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

orders_watched()
{
	[ "$(sql remote --command="SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL watch\\_orders%' AND state = 'active'")" = 1 ]
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
	sql remote --command='TRUNCATE watching, polls' --command='INSERT INTO watching VALUES (false)' || return 1
	sql remote --command='CALL watch_orders()' >"$WORK/watch.log" 2>&1 8>&- 9>&- &
	watcher=$!
	wait_until 30 orders_watched || { cat "$WORK/watch.log" >&2; return 1; }
	run_job "$WORK/pgbench.log" pgbench --no-vacuum --host="$WORK/tmp" --port="$LOCAL_PORT" --username=postgres --client=2 \
		--rate=100 --time="$1" --file="$WORK/order.sql" bench 8>&- 9>&- || { cat "$WORK/pgbench.log" >&2; return 1; }
	wait_until 120 orders_arrived || return 1
	sql remote --command='UPDATE watching SET over = true' || return 1
	wait $watcher || { cat "$WORK/watch.log" >&2; return 1; }

	sql remote >"$WORK/there" <<-'SQL' || return 1
		SET enable_seqscan = off;
		COPY (SELECT number, (SELECT at FROM polls p WHERE pg_snapshot_xmax(p.snapshot) > o.xmin::text::xid8
				AND pg_visible_in_snapshot(o.xmin::text::xid8, p.snapshot) ORDER BY pg_snapshot_xmax(p.snapshot), p.at LIMIT 1) FROM orders o) TO STDOUT;
	SQL
	FIGURES=$(
		sql local <<-SQL
			CREATE TEMP TABLE there (number uuid PRIMARY KEY, at timestamptz NOT NULL);
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
