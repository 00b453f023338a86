# shellcheck shell=bash
#
# synchro, always on.

peer_conf()
{
	[ "$1" != local ] || echo "shared_preload_libraries = 'synchro'"
}

peer_connect()
{
	sql local --command='CREATE EXTENSION synchro' &&
		sql remote --command="CREATE ROLE sync LOGIN PASSWORD 'secret'; GRANT CONNECT, TEMP, CREATE ON DATABASE bench TO sync;
			GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO sync;
			GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO sync" &&
		sql local --command="CREATE SERVER remote FOREIGN DATA WRAPPER synchro_fdw
				OPTIONS (host '127.0.0.1', port '$REMOTE_PORT', dbname 'bench');
			CREATE USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (user 'sync', password 'secret');
			SELECT synchro.add_remote('remote')" >/dev/null &&
		workload_keys | while read -r table key; do
			sql local --command="SELECT synchro.add_table('$table', '{$key}')" >/dev/null || return 1
		done
}

# as an administrator would, instead of waiting for the next attempt
peer_hurry()
{
	sql local --command="SELECT FROM synchro.synchronize('remote')"
}
