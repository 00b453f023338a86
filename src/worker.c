/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  What all our background workers have in common: how they are started,
 *	  and what they do first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "localsql.h"
#include "worker.h"

#define LOOK_RETRY	10			/* s */

/*
 * Register a worker.
 *
 * function: its entry point.  name: shown after the type of worker.  arg and
 * order: what it is told.  Returns false if there is no free slot.
 *
 * A pusher is started again by the launcher, or its caller is told; a look
 * that failed is repeated by the postmaster.
 */
bool
synchro_worker_start(const char *function, const char *name, Datum arg,
					 const SynchroPusherOrder *order, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};
	bool		look = order != NULL && order->server[0] == '\0';

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = look ? LOOK_RETRY : BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "synchro", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_type, look ? "synchro look" : "synchro pusher", sizeof(worker.bgw_type));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "%s: %s", worker.bgw_type, name);
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
	synchro_sql_settings(true);
	for (int i = 0; i < lengthof(settings); i++)
	{
		/* not every server version has them all */
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
	SetConfigOption("application_name", psprintf("synchro %s", name), PGC_USERSET, PGC_S_OVERRIDE);
}
