# shellcheck shell=bash
#
# The server's own logical replication, with its defaults. It needs the same ids on both sides, checks no foreign keys
# and fires no triggers.

peer_conf()
{
	[ "$1" != local ] || echo "wal_level = logical"
}

peer_connect()
{
	local tables

	tables=$(workload_keys | sed 's/ .*//' | paste -sd,)
	sql local --command="CREATE PUBLICATION bench FOR TABLE $tables" &&
		sql remote --command="CREATE SUBSCRIPTION bench CONNECTION 'host=$WORK/tmp port=$LOCAL_PORT dbname=bench user=postgres'
			PUBLICATION bench WITH (copy_data = false)" >/dev/null 2>&1 &&
		wait_until 30 subscribed
}

subscribed()
{
	[ "$(sql remote --command="SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'")" = 0 ]
}

# nothing to hurry: its worker connects when the server starts
peer_hurry()
{
	:
}
