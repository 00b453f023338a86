# shellcheck shell=bash disable=SC2034,SC1010,SC1091
#
# A long line: rows per second of a catch-up with 20 ms of round trip, by a proxy that holds bytes back, and by one that
# does not: what a proxy takes of the processors is no part of a line.

PEERS='^synchro$'

workload_prepare()
{
	local side

	ROWS=$(((SECONDS_EACH > 5) ? 300000 : 50000))
	for side in local remote; do
		sql $side <<-SQL || return 1
			CREATE TABLE items (id serial PRIMARY KEY, code text NOT NULL UNIQUE, quantity integer, note text);
			INSERT INTO items (code, quantity, note) SELECT 'i' || i, 0, 'note ' || i FROM generate_series(1, $ROWS) i;
			VACUUM ANALYZE;
		SQL
	done
}

workload_keys()
{
	echo items code
}

same_sum()
{
	[ "$(sql local --command="SELECT sum(quantity) FROM items")" = "$(sql remote --command="SELECT sum(quantity) FROM items")" ]
}

# catch_up PORT: sets RATE to rows per second, of as many as are updated while the remote is paused
catch_up()
{
	local started

	sql local --command="SELECT synchro.pause('remote')" >/dev/null &&
		sql local --command="ALTER SERVER remote OPTIONS (SET port '$1')" &&
		sql local --command="UPDATE items SET quantity = quantity + 1 WHERE id <= $ROWS" &&
		sql local --command=CHECKPOINT && sql remote --command=CHECKPOINT || return 1
	started=$(date +%s%N)
	sql local --command="SELECT synchro.resume('remote')" >/dev/null
	wait_until 600 same_sum || return 1
	RATE=$(($ROWS * 1000000 / (($(date +%s%N) - started) / 1000)))
}

workload_run()
{
	local short near

	free_port
	near=$PORT
	daemon "$WORK/near.log" perl test/bench/delay.pl "$near" "$REMOTE_PORT" 0
	free_port
	daemon "$WORK/proxy.log" perl test/bench/delay.pl "$PORT" "$REMOTE_PORT" 0.010
	catch_up "$near" && catch_up "$near" || return 1
	short=$RATE
	catch_up "$PORT" || return 1
	metric rows_per_s_0ms "$short"
	metric rows_per_s_20ms "$RATE"
	metric rate_20ms_by_0ms "$(awk -v a="$RATE" -v b="$short" 'BEGIN { printf "%.2f", a / b }')"
}
