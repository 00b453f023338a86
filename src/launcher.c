/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The worker that has pushers running wherever they are wanted.
 *
 * The launcher knows the databases, but not what is in them: a short-lived
 * worker looks into each once, and again when remotes of that database have
 * changed, and notes in shared memory for which of them it wants pushers.
 * The launcher starts those that are wanted and not running.  It sleeps until
 * it is told that something has changed.
 *
 * A database that has the extension, but no pusher that would look after its
 * log, is looked into now and then for that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "launcher.h"
#include "localsql.h"
#include "logkeeper.h"
#include "pusher.h"
#include "settings.h"
#include "sharedstate.h"
#include "target.h"

/* how long to wait when all worker slots are taken, ms */
#define SLOT_DELAY	10000

#define MAX_LOOKING 2			/* databases looked into at a time */

/* how often to look after the log of a database without pushers, ms */
#define MIN_LOOK_INTERVAL	5000
#define MAX_LOOK_INTERVAL	(60 * 60 * 1000)
#define PAUSED_LOOK_INTERVAL	(30 * 1000)

typedef struct LookedDatabase
{
	Oid			database;
	BackgroundWorkerHandle *handle; /* of the worker that looks, or NULL */
	bool		again;			/* asked for while one was looking */
} LookedDatabase;

static List *databases = NIL;	/* of LookedDatabase; those looked into */
static bool slots_exhausted = false;

/*
 * Have the postmaster start the launcher; called when it preloads the library.
 */
void
synchro_launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "synchro", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "synchro_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "synchro launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "synchro launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

/*
 * Databases that can be connected to.  A transaction of its own.
 */
static List *
list_databases(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *result = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!database->datallowconn || !synchro_database_is_valid(database))
			continue;
		old = MemoryContextSwitchTo(context);
		result = lappend_oid(result, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return result;
}

static LookedDatabase *
find_database(Oid oid)
{
	ListCell   *cell;

	foreach(cell, databases)
		if (((LookedDatabase *) lfirst(cell))->database == oid)
			return lfirst(cell);
	return NULL;
}

static bool
is_looking(const LookedDatabase *looked)
{
	pid_t		pid;

	return looked->handle != NULL && GetBackgroundWorkerPid(looked->handle, &pid) != BGWH_STOPPED;
}

static int
count_looking(void)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, databases)
		n += is_looking(lfirst(cell));
	return n;
}

/*
 * A worker could not be started: will there be one when those that look have
 * ended?  If not, say so once.
 */
static bool
workers_will_do(void)
{
	if (count_looking() > 0)
		return true;
	if (!slots_exhausted)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start all workers of synchro: all background worker slots are in use"),
				 errhint("Increase max_worker_processes, and restart the server.")));
	slots_exhausted = true;
	return false;
}

/*
 * Have a worker look into a database, at once or when another has done so:
 * we are told of its end.  False if there is none to be had.
 */
static bool
start_looking(Oid database)
{
	LookedDatabase *looked = find_database(database);
	SynchroPusherOrder order = {0};
	MemoryContext old;
	char	   *name;
	bool		started;

	if (looked == NULL)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		looked = palloc0(sizeof(LookedDatabase));
		looked->database = database;
		databases = lappend(databases, looked);
		MemoryContextSwitchTo(old);
	}
	looked->again = true;
	if (is_looking(looked) || count_looking() >= MAX_LOOKING)
		return true;
	if (looked->handle != NULL)
	{
		/* it may have failed, and be about to be started again */
		TerminateBackgroundWorker(looked->handle);
		pfree(looked->handle);
	}
	looked->handle = NULL;
	order.database = database;
	name = psprintf("database %u", database);
	old = MemoryContextSwitchTo(TopMemoryContext);
	started = synchro_worker_start("synchro_look_main", name, (Datum) 0, &order, &looked->handle);
	MemoryContextSwitchTo(old);
	looked->again = !started;
	return started || workers_will_do();
}

/*
 * Look for databases that are new or gone, and look into those, or all.
 */
static void
look_for_databases(bool into_all)
{
	List	   *existing = list_databases();
	ListCell   *cell;

	synchro_shared_forget_databases(existing);
	foreach(cell, databases)
	{
		LookedDatabase *looked = lfirst(cell);

		if (!list_member_oid(existing, looked->database))
		{
			/* it would be started again and again, since it cannot connect */
			if (looked->handle != NULL)
				TerminateBackgroundWorker(looked->handle);
			databases = foreach_delete_current(databases, cell);
			pfree(looked);
		}
	}
	foreach(cell, existing)
		if (into_all || find_database(lfirst_oid(cell)) == NULL)
			start_looking(lfirst_oid(cell));
	list_free(existing);
}

static TimestampTz
earlier(TimestampTz a, TimestampTz b)
{
	if (a == 0 || b == 0)
		return a + b;
	return Min(a, b);
}

/*
 * Look where that is asked for.  False if workers do not suffice; *next is
 * set to when the next look is due, 0 for never.
 */
static bool
look(TimestampTz *next)
{
	ListCell   *cell;
	Oid			database;
	bool		into_all;
	bool		done = true;

	while (synchro_shared_next_look(&database, &into_all, next))
	{
		if (!OidIsValid(database))
			look_for_databases(into_all);
		else
			done &= start_looking(database);
	}
	foreach(cell, databases)
	{
		LookedDatabase *looked = lfirst(cell);

		if (looked->again)
			done &= start_looking(looked->database);
	}
	return done;
}

/*
 * Do what is to be done.  Returns how long to sleep then, in ms, or -1.
 */
static long
launch(void)
{
	SynchroPusherOrder order;
	TimestampTz next_look;
	TimestampTz next_start = 0;
	TimestampTz next;
	bool		exhausted = !look(&next_look);

	while (!exhausted && synchro_shared_next_start(&order.database, order.server, &next_start))
	{
		BackgroundWorkerHandle *handle;

		if (synchro_worker_start("synchro_pusher_main", order.server, (Datum) 0, &order, &handle))
		{
			pfree(handle);
			continue;
		}
		synchro_shared_not_started(order.database, order.server);
		exhausted = !workers_will_do();
		if (!exhausted)
			break;
	}
	if (exhausted)
		return SLOT_DELAY;
	slots_exhausted &= count_looking() > 0;
	next = earlier(next_look, next_start);
	if (next == 0)
		return -1;
	return Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next), 10);
}

/*
 * Take up changed settings.  The next look at the log of a database without
 * pushers may be a quarter of log_retention away: not of the former one, if
 * that is shortened.
 */
static void
reload(void)
{
	int			log_retention = synchro_log_retention;

	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	if (synchro_log_retention < log_retention)
		look_for_databases(true);
}

static void
launcher_exit(int code, Datum arg)
{
	synchro_shared_launcher(false);
}

/*
 * Entry point of the launcher.
 */
void
synchro_launcher_main(Datum main_arg)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "synchro launcher",
												  ALLOCSET_DEFAULT_SIZES);

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", "synchro launcher", PGC_USERSET, PGC_S_OVERRIDE);
	pgstat_report_appname("synchro launcher");
	before_shmem_exit(launcher_exit, (Datum) 0);
	synchro_shared_launcher(true);

	for (;;)
	{
		long		timeout;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		if (ConfigReloadPending)
			reload();
		timeout = launch();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0),
						 timeout, synchro_wait_launcher());
		ResetLatch(MyLatch);
	}
}

/*
 * How soon to look again into a database without pushers, ms.  paused: it has
 * remotes, so the log is not emptied, but folded.
 */
static int64
look_interval(bool paused)
{
	return Min(Max((int64) synchro_log_retention * 1000 / 4, MIN_LOOK_INTERVAL), paused ? PAUSED_LOOK_INTERVAL : MAX_LOOK_INTERVAL);
}

/*
 * Entry point of the worker that looks into a database: which remotes does
 * it want pushers for?  Where there are none it looks after the log.
 */
void
synchro_look_main(Datum main_arg)
{
	const SynchroPusherOrder *order = (const SynchroPusherOrder *) MyBgworkerEntry->bgw_extra;
	List	   *wanted = NIL;
	bool		installed;
	bool		paused = false;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	synchro_worker_connect(order->database, "looking for remotes");

	synchro_local_begin("synchro: looking for remotes");
	installed = OidIsValid(get_extension_oid(SYNCHRO_EXTENSION, true));
	if (installed)
	{
		List	   *targets = synchro_target_list();
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		ListCell   *cell;

		/* outlives the transaction */
		foreach(cell, targets)
			if (((SynchroTarget *) lfirst(cell))->paused)
				paused = true;
			else
				wanted = lappend(wanted, pstrdup(((SynchroTarget *) lfirst(cell))->name));
		MemoryContextSwitchTo(old);
	}
	synchro_local_commit();
	synchro_shared_want(order->database, wanted);
	if (installed && wanted == NIL)
	{
		synchro_logkeeper_run(true, NULL);
		synchro_shared_look_later(order->database,
								  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), look_interval(paused)));
	}
	proc_exit(0);
}
