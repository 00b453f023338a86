# shellcheck shell=bash disable=SC2034,SC1010,SC1091
#
# Small transactions as fast as they go: one row inserted and two updated in each, by four clients, while what replicates
# shares the machine's processors with them. How many transactions per second, the WAL of each, and how long it takes after
# the last one until the remote has all. And how many there are while nothing replicates, but the remote is given as many rows
# by a few large statements: what it takes to write them, which is beyond what can be saved.

workload_prepare()
{
	local side

	for side in local remote; do
		sql $side <<-'SQL' || return 1
			CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, filler text DEFAULT repeat('x', 80));
			CREATE TABLE events (number uuid PRIMARY KEY, account_id integer NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
			CREATE TABLE done (step text PRIMARY KEY);
			INSERT INTO accounts SELECT i FROM generate_series(1, 10000) i;
			VACUUM ANALYZE;
		SQL
	done
}

workload_keys()
{
	echo accounts id
	echo events number
	echo done step
}

is_done()
{
	[ "$(sql remote --command="SELECT count(*) FROM done WHERE step = '$1'")" = 1 ]
}

contents()
{
	sql "$1" --command="SELECT (SELECT md5(string_agg(number || ' ' || account_id || ' ' || extract(epoch FROM at), '' ORDER BY number)) FROM events),
		(SELECT md5(string_agg(id || ' ' || balance, '' ORDER BY id)) FROM accounts)"
}

# transactions SECONDS: sets TPS, and TRANSACTIONS to how many they were
transactions()
{
	run_job "$WORK/pgbench.log" pgbench --no-vacuum --host="$WORK/tmp" --port="$LOCAL_PORT" --username=postgres --client=4 --jobs=2 \
		--time="$1" --file="$WORK/small.sql" bench 8>&- 9>&- || { cat "$WORK/pgbench.log" >&2; return 1; }
	TPS=$(sed -n 's/^tps = \([0-9]*\).*/\1/p' "$WORK/pgbench.log")
	TRANSACTIONS=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$WORK/pgbench.log")
}

# by_hand SECONDS: the same while the remote is given the rows of four fifths of TPS, 25 times a second
by_hand()
{
	local bare=$TPS

	cat >"$WORK/by_hand.sql" <<-'SQL'
		BEGIN;
		INSERT INTO events (number, account_id) SELECT gen_random_uuid(), 1 + (random() * 9999)::integer FROM generate_series(1, :transactions);
		UPDATE accounts a SET balance = balance + 1
			FROM (SELECT DISTINCT 1 + (random() * 9999)::integer AS id FROM generate_series(1, 2 * :transactions)) x WHERE a.id = x.id;
		COMMIT;
	SQL
	daemon "$WORK/by_hand.log" pgbench --no-vacuum --host="$WORK/tmp" --port="$REMOTE_PORT" --username=postgres --protocol=prepared --client=1 \
		--rate=25 --time=$((2 * $1)) --define=transactions=$((bare * 4 / 5 / 25)) --file="$WORK/by_hand.sql" bench
	transactions "$1" || return 1
	metric rows_by_hand_x_none "$(awk -v a="$TPS" -v b="$bare" 'BEGIN { printf "%.2f", a / b }')"
}

workload_run()
{
	local before started drained

	cat >"$WORK/small.sql" <<-'SQL'
		\set a random(1, 10000)
		\set b random(1, 10000)
		\set first least(:a, :b)
		\set second greatest(:a, :b)
		BEGIN;
		INSERT INTO events (number, account_id) VALUES (gen_random_uuid(), :a);
		UPDATE accounts SET balance = balance + 1 WHERE id = :first;
		UPDATE accounts SET balance = balance - 1 WHERE id = :second;
		COMMIT;
	SQL
	if [ "$PEER" != none ]; then
		sql local --command="INSERT INTO done VALUES ('first')" && wait_until 60 is_done first || return 1
	fi
	sql local --command=CHECKPOINT && sql remote --command=CHECKPOINT || return 1
	before=$(wal)
	transactions "$1" || return 1
	started=$(date +%s%N)
	metric transactions_per_s "$TPS"
	metric wal_per_transaction "$((($(wal) - before) / TRANSACTIONS))"
	[ "$PEER" != none ] || { by_hand "$1"; return; }
	sql local --command="INSERT INTO done VALUES ('last')" && wait_until 300 is_done last || return 1
	drained=$(date +%s%N)
	metric drained_after_s "$(seconds $((drained - started)))"
	[ "$(contents local)" = "$(contents remote)" ] || { echo "tps: contents differ" >&2; return 1; }
}
