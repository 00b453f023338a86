/*-------------------------------------------------------------------------
 *
 * pusher.c
 *	  The background worker that pushes to one remote.
 *
 * Always on, it makes a pass whenever a commit has logged changes, and keeps
 * the connection in between.  After an error it drops the connection and all
 * it knows of the remote, and tries again after a time that doubles with each
 * failure up to synchro.retry_max_interval; a new commit does not hasten
 * that, a call of synchronize() does.  Started for a single call it makes one
 * pass and ends, and the error is the caller's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/extension.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "changelog.h"
#include "compat.h"
#include "localsql.h"
#include "logkeeper.h"
#include "pusher.h"
#include "settings.h"

/*
 * Kind of the advisory lock that keeps two passes to a remote apart; SQL's
 * own advisory locks are of kinds 1 and 2.
 */
#define PASS_LOCK_KIND 3

#define FIRST_RETRY		200		/* ms; doubles */

typedef struct Pusher
{
	char		server[NAMEDATALEN];
	MemoryContext context;		/* of the pass at hand */
	SynchroLink *link;			/* NULL: not connected */
	bool		fresh;			/* no pass has gone over the link yet */
	char	   *token;			/* the position that the link has seen */
	bool		locked;
	LOCKTAG		lock;
	int			failures;
	int			last_code;		/* SQLSTATE of the last error logged */
	bool		retry_now;		/* the error was only a stale connection */
	uint64		ticket;			/* requests up to it are served by the pass */
} Pusher;

/* a server or a user mapping was altered: connect anew */
static bool conninfo_changed = false;

static void
invalidate_conninfo(Datum arg, int cacheid, uint32 hashvalue)
{
	conninfo_changed = true;
}

/*
 * Register a worker.
 *
 * arg and order: what it is told.  Returns false if there is no free slot.
 */
bool
synchro_worker_start(const char *function, const char *name, Datum arg,
					 const SynchroPusherOrder *order, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "synchro", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "synchro pusher: %s", name);
	strlcpy(worker.bgw_type, "synchro pusher", sizeof(worker.bgw_type));
	worker.bgw_main_arg = arg;
	worker.bgw_notify_pid = MyProcPid;
	if (order != NULL)
		memcpy(worker.bgw_extra, order, sizeof(*order));
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/*
 * What every worker of ours does first: signals, database, and settings that
 * reading and pushing depend on, whatever the database or the server has been
 * given.
 *
 * name: shown as application_name, after "synchro ".
 */
void
synchro_worker_connect(Oid database, const char *name)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"datestyle", "ISO, YMD"},
		{"intervalstyle", "postgres"},
		{"timezone", "UTC"},
		{"extra_float_digits", "3"},
		{"bytea_output", "hex"},
		{"lc_monetary", "C"},
		{"row_security", "off"},
		{"jit", "off"},
		{"max_parallel_workers_per_gather", "0"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},
		{"synchro.log_changes", "off"}
	};

	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	for (int i = 0; i < lengthof(settings); i++)
	{
		/* not every server version has them all */
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
	SetConfigOption("application_name", psprintf("synchro %s", name), PGC_USERSET, PGC_S_OVERRIDE);
}

/*
 * One pass to a remote at a time: a second one waits.
 */
static void
lock_remote(Pusher *pusher, const SynchroTarget *target)
{
	SET_LOCKTAG_ADVISORY(pusher->lock, MyDatabaseId, target->server, 0, PASS_LOCK_KIND);
	(void) LockAcquire(&pusher->lock, ExclusiveLock, true, false);
	pusher->locked = true;
}

static void
unlock_remote(Pusher *pusher)
{
	if (pusher->locked)
		LockRelease(&pusher->lock, ExclusiveLock, true);
	pusher->locked = false;
}

/*
 * Our node's id; an error if this database is a copy that must not push.
 */
static char *
active_node(MemoryContext context, char **previous)
{
	SynchroSqlScope scope;
	char	   *node;
	bool		active;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("SELECT n.id, n.state = 'active', i.previous FROM synchro.node n JOIN synchro.node_identity i USING (id)", 0, NULL, NULL, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has no identity as a node"),
				 errhint("Drop and create the extension \"%s\" anew.", SYNCHRO_EXTENSION)));
	node = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	*previous = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3);
	if (*previous != NULL)
		*previous = MemoryContextStrdup(context, *previous);
	active = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2)[0] == 't';
	synchro_sql_close(&scope);
	if (!active)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a copy and does not push until that is confirmed"),
				 errdetail("Its system identifier or OID is not the one that it had as a node."),
				 errhint("If it shall push, run synchro.confirm_node().")));
	return node;
}

static void
disconnect(Pusher *pusher)
{
	SynchroLink *link = pusher->link;

	pusher->link = NULL;
	if (link != NULL)
		synchro_link_close(link);
}

static bool
same_token(const char *a, const char *b)
{
	return a != NULL && b != NULL && strcmp(a, b) == 0;
}

/*
 * Get a link that knows where the remote is, the old one if it still does.
 * position: as it is kept here; on return, what counts.
 */
static void
connect_remote(Pusher *pusher, SynchroTarget *target, const char *node, const char *previous,
			   SynchroPosition *position)
{
	if (conninfo_changed || !same_token(pusher->token, position->acknowledged))
		disconnect(pusher);
	conninfo_changed = false;
	if (pusher->link != NULL)
		return;

	synchro_shared_publish_state(SYNCHRO_CONNECTING);
	pusher->fresh = true;
	pusher->link = synchro_link_open(target);
	pusher->link->node = MemoryContextStrdup(pusher->link->context, node);
	if (previous != NULL)
		pusher->link->previous_node = MemoryContextStrdup(pusher->link->context, previous);
	synchro_peer_open(pusher->link, position);
}

/*
 * One pass.
 */
static void
push(Pusher *pusher, SynchroPassResult *result)
{
	SynchroTarget *target;
	SynchroPosition *position;
	char	   *node;
	char	   *previous;
	uint64		logged;

	MemoryContextSwitchTo(pusher->context);
	logged = synchro_shared_logged();
	synchro_local_begin("synchro: starting a pass");
	MemoryContextSwitchTo(pusher->context);
	target = synchro_target_get(pusher->server, false);
	lock_remote(pusher, target);
	node = active_node(pusher->context, &previous);
	synchro_local_commit();

	/* anew: the snapshot above is from before we got the lock */
	synchro_local_begin("synchro: reading the position");
	MemoryContextSwitchTo(pusher->context);
	position = synchro_position_read(pusher->server);
	MemoryContextSwitchTo(pusher->context);
	synchro_local_commit();
	MemoryContextSwitchTo(pusher->context);

	connect_remote(pusher, target, node, previous, position);
	synchro_shared_publish_state(SYNCHRO_PUSHING);
	synchro_pass_run(pusher->link, position, result);
	pusher->fresh = false;
	if (pusher->token != NULL)
		pfree(pusher->token);
	pusher->token = MemoryContextStrdup(TopMemoryContext, position->acknowledged);
	synchro_shared_publish_pushed(logged);
	unlock_remote(pusher);
	synchro_logkeeper_run();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(pusher->context);
}

/*
 * Leave the state that an error has left behind; keep the error.
 */
static void
recover(Pusher *pusher, SynchroKeptError *kept, bool *lost)
{
	ErrorData  *error;

	error_context_stack = NULL;
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(pusher->context);
	error = CopyErrorData();
	FlushErrorState();
	memset(kept, 0, sizeof(*kept));
	kept->sqlerrcode = error->sqlerrcode;
	strlcpy(kept->message, error->message != NULL ? error->message : "", sizeof(kept->message));
	strlcpy(kept->detail, error->detail != NULL ? error->detail : "", sizeof(kept->detail));
	strlcpy(kept->hint, error->hint != NULL ? error->hint : "", sizeof(kept->hint));
	kept->at = GetCurrentTimestamp();

	/* a connection that was idle may have been closed since: no real error */
	*lost = pusher->link != NULL && !pusher->fresh &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION;
	AbortOutOfAnyTransaction();
	unlock_remote(pusher);
	disconnect(pusher);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(pusher->context);
	pgstat_report_activity(STATE_IDLE, NULL);
	RESUME_INTERRUPTS();
}

/*
 * When to try again: twice as long after each failure, a fifth more or less,
 * so that many pushers do not come at once.
 */
static TimestampTz
next_attempt(int failures)
{
	double		delay = FIRST_RETRY;

	for (int i = 1; i < failures && delay < synchro_retry_max_interval * 1000.0; i++)
		delay *= 2;
	delay = Min(delay, synchro_retry_max_interval * 1000.0);
	delay *= 0.8 + 0.4 * pg_prng_double(&pg_global_prng_state);
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), (int64) delay);
}

static void
log_failure(Pusher *pusher, const SynchroKeptError *error)
{
	/* once for each kind: a remote that is down for a day fills no log */
	if (pusher->last_code == error->sqlerrcode)
		return;
	pusher->last_code = error->sqlerrcode;
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not push to remote \"%s\": %s", pusher->server, error->message),
			 error->detail[0] != '\0' ? errdetail_internal("%s", error->detail) : 0,
			 errhint("It is tried again; see view synchro.remotes.")));
}

/*
 * Sleep until there is something to do.  until: 0, or the time to try again.
 * Returns at once if somebody asks for a pass.
 */
static void
wait_for_work(TimestampTz until)
{
	bool		busy = false;

	for (;;)
	{
		uint64		ticket;
		long		timeout = -1;
		int			rc;

		/* a remote that is down for long shall not let the log grow */
		if (until != 0 && busy)
			synchro_logkeeper_run();

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (synchro_shared_take_request(&ticket))
			return;
		if (until != 0)
			timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		else
			timeout = synchro_logkeeper_timeout();
		if (until != 0 && timeout <= 0)
			return;
		rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0),
					   timeout, synchro_wait_work());
		ResetLatch(MyLatch);
		AcceptInvalidationMessages();
		if (until == 0 || conninfo_changed || (rc & WL_TIMEOUT))
			return;
		busy = true;
	}
}

/*
 * Is the extension still there, and the remote in use?
 */
static bool
still_wanted(Pusher *pusher)
{
	bool		wanted = false;

	synchro_local_begin("synchro: looking up the remote");
	if (OidIsValid(get_extension_oid(SYNCHRO_EXTENSION, true)))
	{
		SynchroTarget *target = synchro_target_get(pusher->server, true);

		wanted = target != NULL && !target->paused;
	}
	synchro_local_commit();
	return wanted;
}

/*
 * The always-on worker.
 */
static void
run_always(Pusher *pusher, const SynchroPusherOrder *order)
{
	sigjmp_buf	on_error;
	volatile bool failed = false;

	strlcpy(pusher->server, order->server, sizeof(pusher->server));
	if (!synchro_shared_attach(order->database, order->server))
		proc_exit(0);
	synchro_worker_connect(order->database, psprintf("pusher: %s", order->server));

	if (sigsetjmp(on_error, 1) != 0)
	{
		SynchroKeptError error;
		SynchroCounts none = {0};
		bool		lost;

		recover(pusher, &error, &lost);
		failed = true;
		if (!lost)
		{
			pusher->failures++;
			log_failure(pusher, &error);
			synchro_shared_serve(pusher->ticket, &none, true, &error);
			synchro_shared_publish_failure(&error, pusher->failures, next_attempt(pusher->failures));
			synchro_shared_publish_state(SYNCHRO_WAITING);
		}
		pusher->retry_now = lost;
	}
	PG_exception_stack = &on_error;

	for (;;)
	{
		SynchroPassResult result = {{0}};
		SynchroPusherStatus status;

		if (failed && !pusher->retry_now)
		{
			synchro_shared_status(MyDatabaseId, pusher->server, &status);
			wait_for_work(status.next_attempt);
		}
		failed = pusher->retry_now = false;
		(void) synchro_shared_take_request(&pusher->ticket);
		if (!still_wanted(pusher))
		{
			synchro_shared_detach(true);
			proc_exit(0);
		}
		push(pusher, &result);
		if (pusher->failures > 0)
			ereport(LOG,
					(errmsg("remote \"%s\" is served again", pusher->server)));
		pusher->failures = 0;
		pusher->last_code = 0;
		synchro_shared_serve(pusher->ticket, &result.counts, result.had_changes, NULL);
		synchro_shared_publish_state(SYNCHRO_IDLE);
		wait_for_work(0);
	}
}

/*
 * The worker that was started for one call.
 */
static void
run_call(Pusher *pusher, dsm_handle handle)
{
	dsm_segment *segment = dsm_attach(handle);
	SynchroPusherCall *call;
	sigjmp_buf	on_error;

	if (segment == NULL)
		return;					/* the caller is gone */
	dsm_pin_mapping(segment);
	call = dsm_segment_address(segment);
	strlcpy(pusher->server, call->server, sizeof(pusher->server));
	synchro_worker_connect(call->database, psprintf("pusher: %s", call->server));

	if (sigsetjmp(on_error, 1) != 0)
	{
		bool		lost;

		recover(pusher, &call->error, &lost);
		pg_write_barrier();
		call->state = SYNCHRO_CALL_FAILED;
		proc_exit(0);
	}
	PG_exception_stack = &on_error;
	push(pusher, &call->result);
	disconnect(pusher);
	pg_write_barrier();
	call->state = SYNCHRO_CALL_DONE;
}

/*
 * Entry point of the worker.
 *
 * main_arg: handle of the memory shared with a caller, or 0: always on, for
 * the remote named in bgw_extra.
 */
void
synchro_pusher_main(Datum main_arg)
{
	Pusher	   *pusher = MemoryContextAllocZero(TopMemoryContext, sizeof(Pusher));

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	pusher->context = AllocSetContextCreate(TopMemoryContext, "synchro pusher",
											ALLOCSET_DEFAULT_SIZES);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, invalidate_conninfo, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, invalidate_conninfo, (Datum) 0);
	if (DatumGetUInt32(main_arg) != 0)
		run_call(pusher, DatumGetUInt32(main_arg));
	else
		run_always(pusher, (const SynchroPusherOrder *) MyBgworkerEntry->bgw_extra);
	proc_exit(0);
}
