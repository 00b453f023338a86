/*-------------------------------------------------------------------------
 *
 * pushcall.c
 *	  What synchronize() and preview() do in the caller's backend: have a
 *	  worker push, or show what it would push, and wait for it.
 *
 * Pushing never runs in the caller's transaction: so it sees what is
 * committed, and holds none of the caller's locks.  If a pusher is running,
 * it is asked for a pass; else a worker is started that makes one pass and
 * ends.  For that the library need not be preloaded.  A preview always has a
 * worker of its own, which waits for a pass that is under way and keeps others
 * waiting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "pushcall.h"
#include "pusher.h"
#include "reader.h"
#include "rowerror.h"

/* how often a waiting caller looks whether the worker waits for it, ms */
#define BLOCKED_CHECK_INTERVAL 500

/*
 * The remotes that a function's argument means: the one named, or for NULL all
 * that are not paused.
 */
List *
synchro_pushcall_targets(const char *name)
{
	List	   *all;
	List	   *result = NIL;
	ListCell   *cell;

	if (name != NULL)
		return list_make1(synchro_target_get(name, false));
	all = synchro_target_list();
	if (all == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no remote to synchronize with"),
				 errhint("Create a foreign server of %s and run synchro.add_remote() for it.", SYNCHRO_FDW)));
	foreach(cell, all)
		if (!((SynchroTarget *) lfirst(cell))->paused)
			result = lappend(result, lfirst(cell));
	return result;
}

/*
 * Raise an error if that worker waits for a lock that we hold.
 */
static void
check_not_blocked(pid_t pid, const char *function)
{
	ArrayType  *blockers = DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids,
																  Int32GetDatum(pid)));
	int		   *pids = (int *) ARR_DATA_PTR(blockers);

	for (int i = 0; i < ArrayGetNItems(ARR_NDIM(blockers), ARR_DIMS(blockers)); i++)
		if (pids[i] == MyProcPid)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("%s cannot go on because this transaction holds a lock that it needs", function),
					 errhint("Commit before you call %s.", function)));
}

/*
 * If an error may contain values of rows that the caller may not read, leave
 * only its SQLSTATE.
 */
void
synchro_pushcall_censor(SynchroKeptError *error)
{
	if (error->sqlerrcode == 0 || !synchro_error_is_about_rows(unpack_sql_state(error->sqlerrcode)) ||
		synchro_reader_may_see_all(GetUserId()))
		return;
	snprintf(error->message, sizeof(error->message), "error %s, whose text is not shown to you",
			 unpack_sql_state(error->sqlerrcode));
	strlcpy(error->detail, "It may contain values of tables that you may not read.", sizeof(error->detail));
	strlcpy(error->hint, "Ask somebody who may read all watched tables, or see the server's log.", sizeof(error->hint));
}

/*
 * Raise an error that a pass has met, with its SQLSTATE.
 */
void
synchro_pushcall_report(SynchroKeptError *error)
{
	synchro_pushcall_censor(error);
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg_internal("%s", pstrdup(error->message)),
			 error->detail[0] != '\0' ? errdetail_internal("%s", pstrdup(error->detail)) : 0,
			 error->hint[0] != '\0' ? errhint("%s", pstrdup(error->hint)) : 0));
}

static bool
is_late(TimestampTz until)
{
	return until != 0 && GetCurrentTimestamp() >= until;
}

/*
 * Ask the running pusher.  False if there is none, or it has gone before it
 * served us.  until: when to give up, or 0; the pusher goes on then.
 */
static bool
ask_pusher(const SynchroTarget *target, TimestampTz until, SynchroPassResult *result,
		   SynchroKeptError *error, SynchroPushOutcome *outcome)
{
	bool		failed = false;
	uint64		ticket;
	int			pid;
	bool		served = false;

	if (!synchro_shared_request(MyDatabaseId, target->name, &ticket))
		return false;
	for (;;)
	{
		served = synchro_shared_served(MyDatabaseId, target->name, ticket, &pid,
									   &result->counts, &result->had_changes, error, &failed);
		*outcome = failed ? SYNCHRO_PUSH_FAILED : SYNCHRO_PUSH_DONE;
		if (served || pid == 0)
			break;
		if (is_late(until))
		{
			*outcome = SYNCHRO_PUSH_LATE;
			served = true;
			break;
		}
		check_not_blocked(pid, "synchronize()");
		synchro_shared_wait(BLOCKED_CHECK_INTERVAL, synchro_wait_worker());
		CHECK_FOR_INTERRUPTS();
	}
	synchro_shared_wait(0, 0);
	return served;
}

/*
 * Wait until the worker has ended; false if that is not so in time.  The rows of
 * a preview are taken meanwhile: what it has sent before stays in the queue.
 */
static bool
wait_for_worker(BackgroundWorkerHandle *handle, TimestampTz until, SynchroPreviewReader *reader)
{
	TimestampTz checked = GetCurrentTimestamp();

	for (;;)
	{
		pid_t		pid;
		BgwHandleStatus status = GetBackgroundWorkerPid(handle, &pid);

		if (reader != NULL)
			synchro_previewqueue_read(reader);
		if (status == BGWH_STOPPED || status == BGWH_POSTMASTER_DIED)
			return true;
		if (is_late(until))
			return false;
		if (status == BGWH_STARTED &&
			TimestampDifferenceExceeds(checked, GetCurrentTimestamp(), BLOCKED_CHECK_INTERVAL))
		{
			check_not_blocked(pid, reader != NULL ? "preview()" : "synchronize()");
			checked = GetCurrentTimestamp();
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 BLOCKED_CHECK_INTERVAL, synchro_wait_worker());
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Have a worker started for this call alone.  If it is late it is ended, as it
 * is when the call is cancelled; what it has committed there stays.
 *
 * callback: is given the rows of a preview; NULL: to push.
 */
static SynchroPushOutcome
run_worker(const SynchroTarget *target, TimestampTz until, SynchroPreviewCallback callback, void *arg,
		   SynchroPassResult *result, SynchroKeptError *error)
{
	dsm_segment *segment = dsm_create(MAXALIGN(sizeof(SynchroPusherCall)) + (callback != NULL ? SYNCHRO_PREVIEW_QUEUE : 0), 0);
	SynchroPusherCall *call = dsm_segment_address(segment);
	SynchroPreviewReader reader;
	BackgroundWorkerHandle *handle;
	bool		failed;
	bool		ended = false;

	if (!IsUnderPostmaster)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nothing can be pushed in single-user mode"),
				 errhint("Start the server. What is changed until then is logged.")));
	memset(call, 0, sizeof(*call));
	call->database = MyDatabaseId;
	strlcpy(call->server, target->name, sizeof(call->server));
	call->state = SYNCHRO_CALL_RUNNING;
	call->preview = callback != NULL;
	if (callback != NULL)
		synchro_previewqueue_open(&reader, segment, SYNCHRO_CALL_QUEUE(call), callback, arg);
	if (!synchro_worker_start("synchro_pusher_main", target->name,
							  UInt32GetDatum(dsm_segment_handle(segment)), NULL, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a worker to push to remote \"%s\"", target->name),
				 errdetail("All background worker slots are in use."),
				 errhint("Increase max_worker_processes, and restart the server.")));
	PG_TRY();
	{
		ended = wait_for_worker(handle, until, callback != NULL ? &reader : NULL);
	}
	PG_CATCH();
	{
		TerminateBackgroundWorker(handle);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (!ended)
	{
		TerminateBackgroundWorker(handle);
		dsm_detach(segment);
		return SYNCHRO_PUSH_LATE;
	}
	pg_read_barrier();
	failed = call->state == SYNCHRO_CALL_FAILED;
	if (!failed && call->state != SYNCHRO_CALL_DONE)
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("the worker that pushes to remote \"%s\" ended before it was done", target->name),
				 errhint("See the server's log. Nothing is lost: synchronize again.")));
	*result = call->result;
	*error = call->error;
	dsm_detach(segment);
	return failed ? SYNCHRO_PUSH_FAILED : SYNCHRO_PUSH_DONE;
}

/*
 * Have all that is committed pushed to a remote, and wait for it, but no longer
 * than that, in ms; 0: as long as it takes.
 *
 * If the pass has failed, *error has the reason.
 */
SynchroPushOutcome
synchro_pushcall_within(const SynchroTarget *target, long timeout, SynchroPassResult *result,
						SynchroKeptError *error)
{
	TimestampTz until = timeout == 0 ? 0 : TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
	SynchroPushOutcome outcome;

	if (ask_pusher(target, until, result, error, &outcome))
		return outcome;
	return run_worker(target, until, NULL, NULL, result, error);
}

/*
 * Have all that is committed pushed to a remote, and wait for it.
 *
 * Returns false if the pass has failed, with the reason in *error.
 */
bool
synchro_pushcall(const SynchroTarget *target, SynchroPassResult *result, SynchroKeptError *error)
{
	return synchro_pushcall_within(target, 0, result, error) == SYNCHRO_PUSH_DONE;
}

/*
 * Have it found out what that would do.  The callback is given each row.
 *
 * Returns false if that has failed, with the reason in *error.
 */
bool
synchro_pushcall_preview(const SynchroTarget *target, SynchroPreviewCallback callback, void *arg,
						 SynchroKeptError *error)
{
	SynchroPassResult result;

	return run_worker(target, 0, callback, arg, &result, error) == SYNCHRO_PUSH_DONE;
}
