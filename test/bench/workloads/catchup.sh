# shellcheck shell=bash disable=SC2034,SC1010,SC1091
#
# An outage: rows are changed 40 times each while the remote is away. How long it takes until it has all when it is back,
# and how much the local server has kept for it meanwhile.

PEERS='^(synchro|logical|bucardo|slony)$'

workload_prepare()
{
	local side

	for side in local remote; do
		sql $side <<-'SQL' || return 1
			CREATE TABLE items (id serial PRIMARY KEY, code text NOT NULL UNIQUE, quantity integer, note text);
			CREATE TABLE done (id serial PRIMARY KEY, step text NOT NULL UNIQUE);
			INSERT INTO items (code, quantity, note) SELECT 'i' || i, 0, 'note ' || i FROM generate_series(1, 50000) i;
			VACUUM ANALYZE;
		SQL
	done
}

workload_keys()
{
	echo items code
	echo done step
}

# what has to be kept is a log, or WAL
kept()
{
	if [ -n "$(peer_kept)" ]; then
		sql local --command="SELECT ($(peer_kept)) / 1000000"
		return
	fi
	sql local --command="SELECT greatest(coalesce((SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
			WHERE c.relnamespace = to_regnamespace('synchro') AND relname ~ '^log_[0-9]+\$'), 0),
		coalesce((SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) FROM pg_replication_slots), 0)) / 1000000"
}

finished()
{
	[ "$(sql remote --command="SELECT count(*) FROM done" 2>/dev/null)" = 2 ]
}

first_arrived()
{
	[ "$(sql remote --command="SELECT count(*) FROM done")" = 1 ]
}

workload_run()
{
	local times=$((($1 > 5) ? 40 : 10)) started

	sql local --command="INSERT INTO done (step) VALUES ('first')" && wait_until 60 first_arrived || return 1
	server remote stop || return 1
	for ((i = 0; i < times; i++)); do
		sql local --command="UPDATE items SET quantity = quantity + 1" || return 1
	done
	sql local --command="INSERT INTO done (step) VALUES ('last')" || return 1
	metric kept_mb "$(kept | cut -d. -f1)"
	started=$(date +%s%N)
	server remote start || return 1
	peer_hurry
	wait_until 900 finished || return 1
	metric caught_up_s "$(seconds $(($(date +%s%N) - started)))"
	[ "$(sql local --command="SELECT sum(quantity) FROM items")" = "$(sql remote --command="SELECT sum(quantity) FROM items")" ] ||
		{ echo "catchup: contents differ" >&2; return 1; }
}
