# shellcheck shell=bash disable=SC2034,SC1010,SC1091
#
# Nothing to do: the processor time that both servers and the peer's programs take meanwhile.

workload_prepare()
{
	local side

	for side in local remote; do
		sql $side --command='CREATE TABLE t (id integer PRIMARY KEY, n integer)' || return 1
	done
}

workload_keys()
{
	echo t id
}

# processor time so far, in hundredths of a second: of the servers' processes and their ended children, and of daemons
used()
{
	local directory pid

	for directory in /proc/[0-9]*; do
		pid=${directory#/proc/}
		if [ "$directory/cwd" -ef "$WORK/$PAIR-local" ] || [ "$directory/cwd" -ef "$WORK/$PAIR-remote" ] ||
			grep -qx "$pid" "$WORK/daemons" 2>/dev/null; then
			sed 's/.*) //' "$directory/stat" 2>/dev/null
		fi
	done | awk '{ ticks += $12 + $13 + $14 + $15 } END { print ticks * 1 }'
}

is_there()
{
	[ "$(sql remote --command='SELECT count(*) FROM t')" = 1 ]
}

workload_run()
{
	local before

	sql local --command='INSERT INTO t VALUES (1)' || return 1
	[ "$PEER" = none ] || wait_until 60 is_there || return 1
	# what the first contact has left to do
	run_job "$WORK/sleep.log" sleep $((($1 > 5) ? 10 : 3))
	before=$(used)
	run_job "$WORK/sleep.log" sleep "$1"
	metric cpu_s "$(awk -v ticks=$(($(used) - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.2f", ticks / hz }')"
}
