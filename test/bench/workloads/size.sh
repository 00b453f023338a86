# shellcheck shell=bash disable=SC2034,SC1010,SC1091
#
# How much a large table costs: as many rows changed in one that is a hundred times as large as another. Once the newest
# rows, which lie on as many pages in both; once rows all over the table, each of which is on a page of its own in the large
# one, so what that costs the server itself is measured by the same UPDATE there.

PEERS='^synchro$'

workload_prepare()
{
	local side large=$(((SECONDS_EACH > 5) ? 10000000 : 1000000))

	for side in local remote; do
		sql $side <<-SQL || return 1
			CREATE TABLE small (id serial PRIMARY KEY, code text NOT NULL UNIQUE, quantity integer);
			CREATE TABLE large (id serial PRIMARY KEY, code text NOT NULL UNIQUE, quantity integer);
			INSERT INTO small (code, quantity) SELECT 'i' || i, 0 FROM generate_series(1, $large / 100) i;
			INSERT INTO large (code, quantity) SELECT 'i' || i, 0 FROM generate_series(1, $large) i;
			VACUUM ANALYZE;
		SQL
	done
}

workload_keys()
{
	echo small code
	echo large code
}

changed_sum()
{
	[ "$(sql remote --command="SELECT sum(quantity) FROM $1")" = "$2" ]
}

none_pending()
{
	[ "$(sql local --command="SELECT pending = 0 AND state <> 'pushing' FROM synchro.remotes")" = t ]
}

# rows SPREAD TABLE: the condition for those that are changed
rows()
{
	case $1 in
		newest) echo "id > (SELECT max(id) FROM $2) - $CHANGED" ;;
		scattered) echo "id IN (SELECT i::bigint * (SELECT max(id) FROM $2) / $CHANGED FROM generate_series(1, $CHANGED) i)" ;;
	esac
}

# drain SPREAD TABLE: sets TOOK to milliseconds from resume to done
drain()
{
	local started

	sql local --command="SELECT synchro.pause('remote')" >/dev/null &&
		sql local --command="UPDATE $2 SET quantity = quantity + 1 WHERE $(rows "$1" "$2")" &&
		sql local --command=CHECKPOINT && sql remote --command=CHECKPOINT || return 1
	started=$(date +%s%N)
	sql local --command="SELECT synchro.resume('remote')" >/dev/null
	wait_until 300 none_pending || return 1
	TOOK=$((($(date +%s%N) - started) / 1000000))
}

# bare SPREAD TABLE: sets TOOK to milliseconds of the UPDATE by hand on the remote, which changes no value
bare()
{
	local started

	sql remote --command=CHECKPOINT || return 1
	started=$(date +%s%N)
	sql remote --command="UPDATE $2 SET quantity = quantity WHERE $(rows "$1" "$2")" || return 1
	TOOK=$((($(date +%s%N) - started) / 1000000))
}

# both_sizes drain|bare SPREAD: sets SMALL and LARGE to the sums of three. The first one of each finds a cold table.
both_sizes()
{
	SMALL=0 LARGE=0
	"$@" small && "$@" large || return 1
	for _ in 1 2 3; do
		"$@" small || return 1
		SMALL=$((SMALL + TOOK))
		"$@" large || return 1
		LARGE=$((LARGE + TOOK))
	done
}

large_by_small()
{
	awk -v a="$LARGE" -v b="$SMALL" 'BEGIN { printf "%.2f", a / b }'
}

workload_run()
{
	local spread

	CHANGED=$((($1 > 5) ? 10000 : 2000))
	for spread in newest scattered; do
		both_sizes drain $spread || return 1
		metric ${spread}_small_ms "$((SMALL / 3))"
		metric ${spread}_large_ms "$((LARGE / 3))"
		metric ${spread}_large_by_small "$(large_by_small)"
		both_sizes bare $spread || return 1
		metric ${spread}_large_by_small_by_hand "$(large_by_small)"
	done
	changed_sum small "$(sql local --command='SELECT sum(quantity) FROM small')" &&
		changed_sum large "$(sql local --command='SELECT sum(quantity) FROM large')" || { echo "size: contents differ" >&2; return 1; }
}
