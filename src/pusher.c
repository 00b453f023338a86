/*-------------------------------------------------------------------------
 *
 * pusher.c
 *	  The background worker that pushes to one remote.
 *
 * synchronize() has a worker started that makes one pass and ends, and waits
 * for it.  So pushing never runs in the caller's transaction: it sees what is
 * committed, and holds none of the caller's locks.  Caller and worker share a
 * piece of dynamic shared memory; the library need not be preloaded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "localsql.h"
#include "pusher.h"

/* how often a waiting caller looks whether the worker waits for it, ms */
#define BLOCKED_CHECK_INTERVAL 500

/*
 * Kind of the advisory lock that keeps two passes to a remote apart; SQL's
 * own advisory locks are of kinds 1 and 2.
 */
#define PASS_LOCK_KIND 3

typedef enum CallState
{
	CALL_RUNNING,
	CALL_DONE,
	CALL_FAILED
} CallState;

/*
 * What caller and worker share.  The caller fills in the upper part before
 * the worker starts; the worker the rest, and sets state last, after a
 * barrier.
 */
typedef struct PusherCall
{
	Oid			database;
	char		server[NAMEDATALEN];

	volatile CallState state;
	SynchroPassResult result;
	int			sqlerrcode;
	char		message[1024];
	char		detail[4096];
	char		hint[1024];
	char		context[1024];
} PusherCall;

static void
copy_field(char *to, size_t size, const char *from)
{
	strlcpy(to, from != NULL ? from : "", size);
}

/*
 * Settings that reading and pushing depend on, whatever the database or the
 * server has been given.
 */
static void
pin_settings(void)
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
		{"synchro.log_changes", "off"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * One pass to a remote at a time: a second one waits.
 */
static void
lock_remote(const SynchroTarget *target)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, target->server, 0, PASS_LOCK_KIND);
	(void) LockAcquire(&tag, ExclusiveLock, true, false);
}

/*
 * Our node's id; an error if this database is a copy that must not push.
 */
static char *
active_node(MemoryContext context)
{
	SynchroSqlScope scope;
	char	   *node;
	bool		active;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("SELECT id, state = 'active' FROM synchro.node", 0, NULL, NULL, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has no identity as a node"),
				 errhint("Drop and create the extension \"%s\" anew.", SYNCHRO_EXTENSION)));
	node = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
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
run_call(PusherCall *call)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "synchro pusher",
												  ALLOCSET_DEFAULT_SIZES);
	SynchroTarget *target;
	SynchroPosition *position;
	SynchroLink *link;
	char	   *node;

	synchro_local_begin("synchro: starting");
	MemoryContextSwitchTo(context);
	target = synchro_target_get(call->server, false);
	lock_remote(target);
	node = active_node(context);
	MemoryContextSwitchTo(context);
	synchro_local_commit();

	/* the snapshot above is from before we got the lock */
	synchro_local_begin("synchro: reading the position");
	MemoryContextSwitchTo(context);
	position = synchro_position_read(call->server);
	synchro_local_commit();

	MemoryContextSwitchTo(context);
	link = synchro_link_open(target);
	link->node = node;
	synchro_peer_open(link, position);
	synchro_pass_run(link, position, &call->result);
	synchro_link_close(link);
}

static void
keep_error(PusherCall *call)
{
	ErrorData  *error;

	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	call->sqlerrcode = error->sqlerrcode;
	copy_field(call->message, sizeof(call->message), error->message);
	copy_field(call->detail, sizeof(call->detail), error->detail);
	copy_field(call->hint, sizeof(call->hint), error->hint);
	copy_field(call->context, sizeof(call->context), error->context);
}

/*
 * Entry point of the worker.
 *
 * main_arg: handle of the segment shared with the caller.
 */
void
synchro_pusher_main(Datum main_arg)
{
	dsm_segment *segment;
	PusherCall *call;
	sigjmp_buf	on_error;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	segment = dsm_attach(DatumGetUInt32(main_arg));
	if (segment == NULL)
		return;					/* the caller is gone */
	dsm_pin_mapping(segment);
	call = dsm_segment_address(segment);

	/*
	 * An error is the caller's: it is handed over and not logged here.  We
	 * end then, so there is no state to clean up but what exit does.
	 */
	if (sigsetjmp(on_error, 1) != 0)
	{
		error_context_stack = NULL;
		HOLD_INTERRUPTS();
		keep_error(call);
		pg_write_barrier();
		call->state = CALL_FAILED;
		proc_exit(1);
	}
	PG_exception_stack = &on_error;

	BackgroundWorkerInitializeConnectionByOid(call->database, InvalidOid, 0);
	pin_settings();
	pgstat_report_appname(psprintf("synchro pusher: %s", call->server));
	run_call(call);
	pg_write_barrier();
	call->state = CALL_DONE;
	proc_exit(0);
}

static BackgroundWorkerHandle *
start_worker(dsm_segment *segment, const char *server)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "synchro", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "synchro_pusher_main", sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "synchro pusher: %s", server);
	strlcpy(worker.bgw_type, "synchro pusher", sizeof(worker.bgw_type));
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(segment));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a worker to push to remote \"%s\"", server),
				 errdetail("All background worker slots are in use."),
				 errhint("Increase max_worker_processes, and restart the server.")));
	return handle;
}

/*
 * Does the worker wait for a lock that we hold?
 */
static bool
waits_for_us(pid_t pid)
{
	ArrayType  *blockers = DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids,
																  Int32GetDatum(pid)));
	int		   *pids = (int *) ARR_DATA_PTR(blockers);

	for (int i = 0; i < ArrayGetNItems(ARR_NDIM(blockers), ARR_DIMS(blockers)); i++)
		if (pids[i] == MyProcPid)
			return true;
	return false;
}

static void
wait_for_worker(PusherCall *call, BackgroundWorkerHandle *handle)
{
	TimestampTz checked = GetCurrentTimestamp();

	for (;;)
	{
		pid_t		pid;
		BgwHandleStatus status = GetBackgroundWorkerPid(handle, &pid);

		if (status == BGWH_STOPPED || status == BGWH_POSTMASTER_DIED)
			return;
		if (status == BGWH_STARTED &&
			TimestampDifferenceExceeds(checked, GetCurrentTimestamp(), BLOCKED_CHECK_INTERVAL))
		{
			if (waits_for_us(pid))
				ereport(ERROR,
						(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						 errmsg("synchronize() cannot go on because this transaction holds a lock that it needs"),
						 errhint("Commit before you call synchronize().")));
			checked = GetCurrentTimestamp();
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 BLOCKED_CHECK_INTERVAL, synchro_wait_worker());
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Have all that is committed pushed to a remote, and wait for it.
 *
 * Errors of the pass are raised here, with their SQLSTATE.
 */
void
synchro_pusher_call(const SynchroTarget *target, SynchroPassResult *result)
{
	dsm_segment *segment = dsm_create(sizeof(PusherCall), 0);
	PusherCall *call = dsm_segment_address(segment);
	BackgroundWorkerHandle *handle;

	memset(call, 0, sizeof(*call));
	call->database = MyDatabaseId;
	strlcpy(call->server, target->name, sizeof(call->server));
	call->state = CALL_RUNNING;
	handle = start_worker(segment, target->name);
	PG_TRY();
	{
		wait_for_worker(call, handle);
	}
	PG_CATCH();
	{
		TerminateBackgroundWorker(handle);
		PG_RE_THROW();
	}
	PG_END_TRY();

	pg_read_barrier();
	if (call->state == CALL_FAILED)
		ereport(ERROR,
				(errcode(call->sqlerrcode),
				 errmsg_internal("%s", pstrdup(call->message)),
				 call->detail[0] != '\0' ? errdetail_internal("%s", pstrdup(call->detail)) : 0,
				 call->hint[0] != '\0' ? errhint("%s", pstrdup(call->hint)) : 0,
				 call->context[0] != '\0' ? errcontext("%s", pstrdup(call->context)) : 0));
	if (call->state != CALL_DONE)
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("the worker that pushes to remote \"%s\" ended before it was done", target->name),
				 errhint("See the server's log. Nothing is lost: synchronize again.")));
	*result = call->result;
	dsm_detach(segment);
}
