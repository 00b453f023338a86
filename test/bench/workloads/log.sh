# shellcheck shell=bash disable=SC2034,SC1010,SC1091
#
# How much a long log costs: from commit to visible with an empty one, and again when millions of changes are kept in it.

. test/bench/latency.sh

PEERS='^synchro$'

workload_prepare()
{
	latency_tables && sql local --command='CREATE TABLE many (id serial PRIMARY KEY, code text NOT NULL UNIQUE)' &&
		sql remote --command='CREATE TABLE many (id serial PRIMARY KEY, code text NOT NULL UNIQUE)'
}

workload_keys()
{
	latency_keys
	echo many code
}

workload_run()
{
	local empty rows=$((($1 > 5) ? 5000000 : 200000))

	latency "$1" || return 1
	# shellcheck disable=SC2086
	set -- "$1" $FIGURES
	empty=$4
	# kept, but not to be pushed any more
	sql local --command="SELECT synchro.pause('remote')" >/dev/null &&
		sql local --command="INSERT INTO many (code) SELECT i FROM generate_series(1, $rows) i" &&
		sql local --command="SELECT synchro.reset('remote', keep_references => true)" >/dev/null &&
		sql local --command='CHECKPOINT' && sql remote --command='CHECKPOINT' &&
		sql local --command="SELECT synchro.resume('remote')" >/dev/null || return 1
	latency "$1" || return 1
	# shellcheck disable=SC2086
	set -- "$1" $FIGURES
	metric p50_ms_empty "$empty"
	metric p50_ms_long "$4"
	metric p50_long_by_empty "$(awk -v a="$4" -v b="$empty" 'BEGIN { printf "%.2f", a / b }')"
}
