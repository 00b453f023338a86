# shellcheck shell=bash
#
# Slony-I by Debian's packages, with its defaults.

peer_available()
{
	command -v slonik >/dev/null && [ -x "$(slon_program)" ] && compgen -G "$(pg_config --pkglibdir)/slony1_funcs*.so" >/dev/null
}

slon_program()
{
	command -v slon || compgen -G '/usr/lib/postgresql/*/bin/slon' | head -n 1 || echo /usr/bin/slon
}

peer_conf()
{
	:
}

conninfo()
{
	echo "host=$WORK/tmp port=$1 dbname=bench user=postgres"
}

peer_connect()
{
	local id=0 tables

	tables=$(workload_keys | while read -r table _; do
		id=$((id + 1))
		echo "set add table (set id = 1, origin = 1, id = $id, fully qualified name = 'public.$table');"
	done)
	cat >"$WORK/slonik.sql" <<-SLONIK
		cluster name = bench;
		node 1 admin conninfo = '$(conninfo "$LOCAL_PORT")';
		node 2 admin conninfo = '$(conninfo "$REMOTE_PORT")';
		init cluster (id = 1, comment = 'local');
		create set (id = 1, origin = 1, comment = 'bench');
		$tables
		store node (id = 2, comment = 'remote', event node = 1);
		store path (server = 1, client = 2, conninfo = '$(conninfo "$LOCAL_PORT")');
		store path (server = 2, client = 1, conninfo = '$(conninfo "$REMOTE_PORT")');
	SLONIK
	run_job "$WORK/slonik.log" slonik "$WORK/slonik.sql" || { cat "$WORK/slonik.log" >&2; return 1; }
	daemon "$WORK/slon1.log" "$(slon_program)" bench "$(conninfo "$LOCAL_PORT")"
	daemon "$WORK/slon2.log" "$(slon_program)" bench "$(conninfo "$REMOTE_PORT")"
	cat >"$WORK/subscribe.sql" <<-SLONIK
		cluster name = bench;
		node 1 admin conninfo = '$(conninfo "$LOCAL_PORT")';
		node 2 admin conninfo = '$(conninfo "$REMOTE_PORT")';
		subscribe set (id = 1, provider = 1, receiver = 2, forward = no, omit copy = true);
	SLONIK
	run_job "$WORK/slonik.log" slonik "$WORK/subscribe.sql" || { cat "$WORK/slonik.log" >&2; return 1; }
	wait_until 120 subscribed
}

subscribed()
{
	[ "$(sql remote --command="SELECT count(*) FROM _bench.sl_subscribe WHERE sub_active" 2>/dev/null)" = 1 ] &&
		[ "$(sql remote --command="SELECT count(*) FROM pg_trigger WHERE tgname LIKE '\\_bench\\_denyaccess%' AND tgenabled <> 'D'" 2>/dev/null)" != 0 ]
}

# it looks again by itself
peer_hurry()
{
	:
}

peer_kept()
{
	echo "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relnamespace = '_bench'::regnamespace AND relname ~ '^sl_log_'"
}
