# shellcheck shell=bash
#
# Bucardo by Debian's package, with its defaults; its own database is on the local server.

peer_available()
{
	command -v bucardo >/dev/null && [ -f "$(pg_config --pkglibdir)/plperl.so" ]
}

peer_conf()
{
	:
}

bucardo_do()
{
	run_job "$WORK/bucardo.out" bucardo --no-bucardorc --dbhost="$WORK/tmp" --dbport="$LOCAL_PORT" --dbname=bucardo --dbuser=bucardo \
		"$@" || { echo "bucardo $*:" >&2; cat "$WORK/bucardo.out" >&2; return 1; }
}

peer_connect()
{
	local tables

	mapfile -t tables < <(workload_keys | sed 's/ .*//; s/^/public./')
	mkdir -p "$WORK/bucardo"
	sql local --command="CREATE ROLE bucardo SUPERUSER LOGIN" &&
		sql local --command="CREATE DATABASE bucardo OWNER bucardo" &&
		bucardo_do install --batch --piddir="$WORK/bucardo" &&
		bucardo_do set piddir="$WORK/bucardo" reason_file="$WORK/bucardo/reason" warning_file="$WORK/bucardo/warning" \
			log_level=normal default_email_to=nobody@localhost &&
		bucardo_do add db here dbname=bench host="$WORK/tmp" port="$LOCAL_PORT" user=postgres &&
		bucardo_do add db there dbname=bench host="$WORK/tmp" port="$REMOTE_PORT" user=postgres &&
		bucardo_do add tables "${tables[@]}" db=here relgroup=bench &&
		bucardo_do add sync bench relgroup=bench dbs=here:source,there:target &&
		start_bucardo
}

start_bucardo()
{
	bucardo_do start --log-destination="$WORK/bucardo" --piddir="$WORK/bucardo" "bench begins" || return 1
	wait_until 60 is_running
}

is_running()
{
	bucardo_do status >/dev/null 2>&1 && grep -q 'bench.*Good\|bench.*|' "$WORK/bucardo.out"
}

# it says that it has stopped before it has
is_stopped()
{
	[ ! -e "$WORK/bucardo/bucardo.mcp.pid" ]
}

# Until its sync has run once; 0 would be for ever, also where that is not active any more.
kick()
{
	bucardo_do kick bench 60 && grep -q DONE "$WORK/bucardo.out"
}

is_given_up()
{
	[ "$(grep -o 'Active syncs: [0-9]*' "$WORK/bucardo/log.bucardo" | tail -n 1)" = 'Active syncs: 0' ]
}

# a sync that has lost its target is asleep until it is kicked, or has been given up until all of it is started anew
peer_hurry()
{
	! is_given_up && kick && return
	bucardo_do stop --piddir="$WORK/bucardo" "bench goes on"
	wait_until 60 is_stopped && start_bucardo && kick
}

peer_kept()
{
	echo "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relnamespace = 'bucardo'::regnamespace AND relname ~ '^(delta|track|stage)_'"
}
