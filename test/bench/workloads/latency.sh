# shellcheck shell=bash disable=SC2034,SC1010,SC1091
#
# From commit to visible, with 100 transactions per second: see ../latency.sh.

. test/bench/latency.sh

PEERS='^(synchro|logical|bucardo|slony)$'

workload_prepare()
{
	latency_tables
}

workload_keys()
{
	latency_keys
}

workload_run()
{
	latency "$1" || return 1
	# shellcheck disable=SC2086
	set -- $FIGURES
	[ $# -eq 6 ] || return 1
	metric commits "$1"
	metric commits_per_second "$2"
	metric p50_ms "$3"
	metric p95_ms "$4"
	metric p99_ms "$5"
	metric max_ms "$6"
	[ "$(sql local --command='SELECT md5(string_agg(number::text, NULL ORDER BY number)) FROM orders')" = \
		"$(sql remote --command='SELECT md5(string_agg(number::text, NULL ORDER BY number)) FROM orders')" ] ||
		{ echo "latency: contents differ" >&2; return 1; }
}
