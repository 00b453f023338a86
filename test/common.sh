# Shared by test/check, test/demo/run and test/bench/run (sourced by bash): a private copy of the tree in a temporary folder, an
# ordinary user to work as, servers of our own, and everything gone at the end.
#
# shellcheck shell=bash

die()
{
	echo "${0##*/}: $*" >&2
	exit 1
}

# Servers refuse to run as root. Sets AS to the command prefix that drops root's rights, empty for an ordinary user,
# and AS_USER to the user's name.
choose_ordinary_user()
{
	AS=()
	AS_USER=$(id -un)
	[ "$(id -u)" -eq 0 ] || return 0
	for AS_USER in postgres nobody; do
		if ! id -u "$AS_USER" >/dev/null 2>&1; then
			continue
		elif command -v setpriv >/dev/null; then
			AS=(setpriv "--reuid=$AS_USER" "--regid=$(id -g "$AS_USER")" --init-groups)
		else
			AS=(runuser -u "$AS_USER" --)
		fi
		return 0
	done
	die "root needs an ordinary user (postgres or nobody) to run servers as"
}

# Where the temporary folder goes: unix sockets below it must not get too long a name, and root's TMPDIR may be closed
# to others.
temp_base()
{
	local base=${TMPDIR:-/tmp}

	if [ ${#base} -gt 40 ] || ! "${AS[@]}" test -w "$base" || ! "${AS[@]}" test -x "$base"; then
		base=/tmp
	fi
	echo "$base"
}

# Runs the calling script once more from a copy of the tree in $WORK/tree, as an ordinary user and with a clean
# environment; returns in that second run, with the copy as current folder.
enter_private_tree()
{
	local script tree env name

	if [ -n "${SYNCHRO_WORK:-}" ]; then
		WORK=$SYNCHRO_WORK
		cd "$WORK/tree" || exit 1
		trap cleanup EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM HUP
		return
	fi

	tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
	script=$(cd "$(dirname "$0")" && pwd)/${0##*/}
	script=${script#"$tree"/}

	choose_ordinary_user
	trap 'rm -rf "${WORK:-}"' EXIT
	trap 'exit 130' INT TERM HUP
	WORK=$(mktemp -d "$(temp_base)/synchro-XXXXXX") || exit 1
	mkdir "$WORK/tree" "$WORK/tmp"
	tar -C "$tree" --exclude=./.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' -cf - . |
		tar -C "$WORK/tree" --no-same-owner -xf - || exit 1
	chmod -R u+rwX "$WORK"
	[ ${#AS[@]} -eq 0 ] || chown -R "$AS_USER" "$WORK"

	env=("PATH=$PATH:/usr/sbin:/sbin" "HOME=$WORK" "TMPDIR=$WORK/tmp" LANG=C.UTF-8 LC_ALL=C.UTF-8 "SYNCHRO_WORK=$WORK")
	for name in TERM CC PG_CONFIG PG_TEST_TIMEOUT_DEFAULT REGRESS ONLY KEEP JOBS QUICK VALGRIND SANITIZE COVERAGE CLICOLOR_FORCE NO_COLOR \
		SYNCHRO_SEED SYNCHRO_SEEDS SYNCHRO_PROFILE SYNCHRO_FAULTS SYNCHRO_BIG SYNCHRO_STEPS SYNCHRO_SHRINK SYNCHRO_ALWAYS SYNCHRO_PREVIEW; do
		[ -z "${!name:-}" ] || env+=("$name=${!name}")
	done
	cd "$WORK/tree" || exit 1
	exec "${AS[@]}" env -i "${env[@]}" bash "$script" "$@"
}

# start_job FILE COMMAND ...: in the background, all output to the file, in a process group of its own, so that it can be
# ended with all its children. Whoever waits for it handles a signal at once, not only when the command has ended.
start_job()
{
	local output=$1

	shift
	set -m
	"$@" </dev/null >"$output" 2>&1 &
	JOB=$!
	set +m
}

wait_job()
{
	local status

	wait "$JOB"
	status=$?
	JOB=
	return $status
}

run_job()
{
	start_job "$@"
	wait_job
}

# process_state PID: sets STATE and GROUP, to nothing for a process that is gone or ended and not yet waited for.
process_state()
{
	local line

	STATE=
	GROUP=
	# number (name) state parent group ..., the name with anything in it
	{ line=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
	read -r STATE _ GROUP _ <<<"${line##*) }"
	case $STATE in
		Z | X) STATE='' GROUP='' ;;
	esac
}

# group_runs ID: is there a process of that group?
group_runs()
{
	local directory

	for directory in /proc/[0-9]*; do
		process_state "${directory#/proc/}"
		[ "$GROUP" != "$1" ] || return 0
	done
	return 1
}

end_job()
{
	local tries

	kill -TERM -- "-$JOB" 2>/dev/null
	for ((tries = 0; tries < 100; tries++)); do
		group_runs "$JOB" || break
		sleep 0.1
	done
	kill -KILL -- "-$JOB" 2>/dev/null
	wait "$JOB" 2>/dev/null
}

# Ends what still runs, of this run only, and removes the folder.
cleanup()
{
	local status=$?

	# nothing in here may stop it half-way
	set +eu
	trap - EXIT
	trap '' INT TERM HUP
	if [ -n "${JOB:-}" ]; then
		end_job
	fi
	cd /
	stop_servers
	release_ports
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $WORK" >&2
	else
		rm -rf "$WORK"
	fi
	exit "$status"
}

# server_runs PID DIRECTORY: a number in a file left by a crashed server may be somebody else's by now.
server_runs()
{
	[ "/proc/$1/cwd" -ef "$2" ]
}

# Every server whose data directory lies in our folder: ours and those that a test left.
stop_servers()
{
	local file pid directory tries

	while IFS= read -r file; do
		directory=${file%/postmaster.pid}
		pid=$(head -n 1 "$file" 2>/dev/null)
		pid=${pid#-}
		for ((tries = 0; tries < 100; tries++)); do
			server_runs "$pid" "$directory" || continue 2
			[ $tries -gt 0 ] || kill -QUIT "$pid" 2>/dev/null
			sleep 0.1
		done
		kill -KILL "$pid" 2>/dev/null
	done < <(find "$WORK" -name postmaster.pid 2>/dev/null)
}

# Two runs at the same time take no port from each other: PostgreSQL's test modules reserve ports by files in a folder
# that all runs of a user share, and free_port does as they do. The folder goes with the last run.
share_ports()
{
	local dir tries

	dir=$(dirname "$WORK")/synchro-ports-$(id -u)
	for ((tries = 0; tries < 10; tries++)); do
		mkdir -p "$dir" 2>/dev/null
		# not a folder of ours: somebody else made it
		[ -d "$dir" ] && [ ! -L "$dir" ] && [ -O "$dir" ] || dir=$WORK/ports
		# another run's end may remove it in between
		(: >"$dir/run-$$") 2>/dev/null && break
	done
	export PG_TEST_PORT_DIR=$dir
	PORT_MARK=$dir/run-$$
}

# Reservations of ended processes go too: a test that was killed leaves them.
release_ports()
{
	local file pid

	[ -n "${PORT_MARK:-}" ] || return 0
	rm -f "$PORT_MARK"
	for file in "$PG_TEST_PORT_DIR"/*.rsv "$PG_TEST_PORT_DIR"/run-*; do
		[ -f "$file" ] || continue
		case $file in
			*.rsv) pid=$(tr -dc 0-9 <"$file") ;;
			*) pid=${file##*-} ;;
		esac
		# empty: being written
		[ -n "$pid" ] || continue
		process_state "$pid"
		if [ "$pid" = $$ ] || [ -z "$STATE" ]; then
			rm -f "$file"
		fi
	done
	rmdir "$PG_TEST_PORT_DIR" 2>/dev/null
}

# Sets PORT to a free one above the usual servers' and below the outgoing connections'.
free_port()
{
	local file

	while :; do
		PORT=$((10200 + (RANDOM * 32768 + RANDOM) % 22567))
		file=$PG_TEST_PORT_DIR/$PORT.rsv
		if (set -C && printf '%10d\n' $$ >"$file") 2>/dev/null; then
			(: <>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null || return 0
		fi
	done
}

# private_install [make argument ...]: builds the tree, installs it into a private copy of PostgreSQL and sets PATH, BINDIR
# and PGXS_DIR.
private_install()
{
	PG_CONFIG=${PG_CONFIG:-$(bash test/pg-config)}
	[ -n "$PG_CONFIG" ] || die "no PostgreSQL 15 or newer with server headers found; see test/deps"
	PGXS_DIR=$(dirname "$("$PG_CONFIG" --pgxs)")/../..
	export PGXS_DIR WORK
	BINDIR=$WORK/install$("$PG_CONFIG" --bindir)
	export PG_CONFIG
	run_job "$WORK/build.log" bash test/temp-install "$WORK/install" ${CC:+CC="$CC"} "$@" || return 1
	[ -z "${VALGRIND:-}" ] || put_under_valgrind
	[ -z "${SANITIZE:-}" ] || put_under_sanitizers
	PATH=$BINDIR:$PATH
	unset PG_CONFIG
}

# wrap_server PATTERN: has the private installation's server started by what comes from stdin. Not with the first arguments
# that match.
wrap_server()
{
	mv "$BINDIR/postgres" "$BINDIR/postgres.checked"
	{
		# shellcheck disable=SC2016
		printf '%s\n' '#!/bin/bash' 'case "$1" in' "	$1) exec '$BINDIR/postgres.checked' \"\$@\" ;;" 'esac'
		cat
	} >"$BINDIR/postgres"
	chmod +x "$BINDIR/postgres"
}

# Servers of the private installation run under valgrind, which writes a file for each process to $WORK/valgrind. But for
# those that are called "remote" in test/t: they have nothing of ours in them, and would take as long. Where an undefined
# value comes from is not tracked, which takes as long again: VALGRIND=--track-origins=yes does.
put_under_valgrind()
{
	local suppressions options=''

	[ "$VALGRIND" = 1 ] || options=$VALGRIND
	suppressions=$(dirname "$("$PG_CONFIG" --bindir)")/valgrind.supp
	if [ -f "$suppressions" ]; then
		suppressions=--suppressions=$suppressions
	else
		suppressions=-q
	fi
	mkdir -p "$WORK/valgrind"
	# initdb has nothing to do with us, and would take minutes
	wrap_server '--boot | --single | -V | --version' <<SH
[[ "\$*" != *_remote_data/* ]] || exec '$BINDIR/postgres.checked' "\$@"
exec valgrind -q --leak-check=no --vgdb=no $options --log-file='$WORK/valgrind/%p.log' \
	'$suppressions' '$BINDIR/postgres.checked' "\$@"
SH
}

# The extension was built with gcc's sanitizers, the server was not: their library has to be there before all others. What
# they find each process writes to the server's log (a file of their own they cannot have: the server overwrites the
# environment that they read), and goes on if it can. Leaks are none: memory contexts. A server that speaks several languages
# does not start so: libasan's own start leaves a lock of gettext taken. `pg_ctl restart` starts whatever the server before
# said that it was called. What is preloaded already, another clock, comes after it.
put_under_sanitizers()
{
	local library

	library=$("${CC:-gcc}" -print-file-name=libasan.so)
	wrap_server '--boot | -V | --version' <<SH
LD_PRELOAD='$(realpath "$library")'\${LD_PRELOAD:+:\$LD_PRELOAD}
ASAN_OPTIONS='detect_leaks=0:abort_on_error=1:quarantine_size_mb=16'
export LD_PRELOAD ASAN_OPTIONS
exec -a '$BINDIR/postgres' '$BINDIR/postgres.checked' "\$@"
SH
}

# start_server NAME: a server in $WORK/NAME, socket in $WORK/tmp and TCP on 127.0.0.1, superuser postgres. The socket
# asks for no password, TCP does. Sets PORT; more settings come from stdin.
start_server()
{
	local name=$1 data=$WORK/$1 tries

	if ! run_job "$WORK/$name.initdb.log" initdb --pgdata="$data" --username=postgres --auth=trust --encoding=UTF8 \
		--locale=C.UTF-8 --no-sync; then
		cat "$WORK/$name.initdb.log" >&2
		die "initdb failed"
	fi
	printf '%s\n' 'local all all trust' 'host all all 127.0.0.1/32 scram-sha-256' >"$data/pg_hba.conf"
	{
		cat
		echo "listen_addresses = '127.0.0.1'"
		echo "unix_socket_directories = '$WORK/tmp'"
		echo "cluster_name = '$name'"
	} >>"$data/postgresql.conf"
	for ((tries = 0; tries < 10; tries++)); do
		free_port
		echo "port = $PORT" >"$data/port.conf"
		[ $tries -gt 0 ] || echo "include 'port.conf'" >>"$data/postgresql.conf"
		run_job "$WORK/$name.start.log" pg_ctl --pgdata="$data" --log="$WORK/$name.log" --silent --wait start && return 0
		grep -q 'could not bind' "$WORK/$name.log" || break
	done
	cat "$WORK/$name.start.log" "$WORK/$name.log" >&2
	die "server $name did not start"
}
