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
 * pass, or the preview of one, and ends, and the error is the caller's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/extension.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "localsql.h"
#include "logkeeper.h"
#include "pending.h"
#include "previewqueue.h"
#include "pusher.h"
#include "pushlink.h"
#include "settings.h"

#define FIRST_RETRY		200		/* ms; doubles */

typedef struct Pusher
{
	SynchroPushLink push;
	int			failures;
	int			last_code;		/* SQLSTATE of the last error logged */
	bool		retry_now;		/* the error was only a stale connection */
	bool		count_failed;	/* counting what is pending raises errors */
	TimestampTz next_attempt;
	uint64		ticket;			/* of the last request that was taken */
	bool		asked;			/* it is not served yet */
	bool		all_due;		/* what has failed is to be tried for it */
	bool		counts_copies;	/* the next pass says which copies it waits for */
	int64		copy;			/* the newest of these */
	SynchroPassResult sum;		/* of passes for the requests that are not served */
} Pusher;

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
			 errmsg("could not push to remote \"%s\": %s", pusher->push.server, error->message),
			 error->detail[0] != '\0' ? errdetail_internal("%s", error->detail) : 0,
			 errhint("%s%sIt is tried again; see view synchro.remotes.", error->hint, error->hint[0] != '\0' ? " " : "")));
}

/*
 * Milliseconds to sleep at most, -1 for ever.  until: 0, or the time to try
 * again.
 */
static long
sleep_time(TimestampTz until)
{
	long		timeout = synchro_logkeeper_timeout();
	long		left;

	if (until == 0)
		return timeout;
	left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
	return timeout < 0 ? left : Min(timeout, left);
}

static bool
is_over(TimestampTz time)
{
	return time != 0 && GetCurrentTimestamp() >= time;
}

/*
 * The same of a time that next_attempt() has set; also if it is further away than that
 * would have it: since then the clock has been set back.
 */
static bool
is_to_be_tried(TimestampTz time)
{
	return is_over(time) || TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 2000 * (int64) Max(synchro_retry_max_interval, 1)) < time;
}

/*
 * Sleep until there is something to do.  until: 0, or the time to try again,
 * which new changes do not hasten.  Returns at once if somebody asks for a
 * pass.
 */
static void
wait_for_work(Pusher *pusher, TimestampTz until)
{
	uint64		ticket = pusher->ticket;
	int			rc = 0;

	pgstat_report_stat(true);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!synchro_shared_wanted() || synchro_shared_take_request(&ticket))
			return;
		if (ConfigReloadPending)
			return;				/* the new settings may be what it takes */
		if (until == 0 ? (rc & WL_LATCH_SET) || synchro_shared_unseen() || is_over(pusher->push.next_retry) :
			is_to_be_tried(until))
			return;

		/* a remote that is down for long shall not let the log grow; what has woken us for a pass that failed is in it, too */
		if (synchro_logkeeper_run(rc == 0 ? until != 0 : (rc & WL_LATCH_SET) != 0, NULL))
			synchro_pushlink_say(until == 0 ? SYNCHRO_IDLE : SYNCHRO_WAITING);
		rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT,
					   sleep_time(until != 0 ? until : pusher->push.next_retry), synchro_wait_work());
		ResetLatch(MyLatch);
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
		SynchroTarget *target = synchro_target_get(pusher->push.server, true);

		wanted = target != NULL && !target->paused;
	}
	synchro_local_commit();
	return wanted;
}

/*
 * The remote is gone or paused; look again, in case it has just come back.
 */
static void
quit(void)
{
	synchro_shared_detach(true);
	synchro_shared_look(MyDatabaseId);
	proc_exit(0);
}

/*
 * An attempt has failed: tell whoever asked for it, and when the next one
 * will be.
 */
static void
note_failure(Pusher *pusher, const SynchroKeptError *error)
{
	SynchroCounts none = {0};

	pusher->failures++;
	pusher->next_attempt = next_attempt(pusher->failures);
	log_failure(pusher, error);
	synchro_shared_serve(pusher->ticket, &none, true, error);
	pusher->asked = false;
	synchro_shared_publish_failure(error, pusher->failures, pusher->next_attempt);
	if (pusher->push.littered)
		proc_exit(0);			/* what is ours must not keep the disk full */
}

/*
 * Publish what is pending, if that is not known: after a start, and where a
 * position was reset.  Whoever looks at synchro.remotes has to count himself
 * until then.
 */
static void
count_pending(Pusher *pusher)
{
	uint64		logged;
	SynchroPending pending;

	if (synchro_shared_counted() || pusher->count_failed)
		return;
	logged = synchro_shared_logged();
	pusher->count_failed = true;
	synchro_local_begin("synchro: counting what is pending");
	synchro_pending_count(pusher->push.server, &pending);
	synchro_local_commit();
	synchro_shared_publish_pending(logged, pending.entries, pending.oldest);
	pusher->count_failed = false;
}

/*
 * After a failure: wait for the time to try again.
 */
static void
wait_to_retry(Pusher *pusher)
{
	count_pending(pusher);
	synchro_pushlink_say(SYNCHRO_WAITING);
	wait_for_work(pusher, pusher->next_attempt);
}

/*
 * Take requests that have come since the last ones, if any.  What was pushed
 * before does not count for them, unless others wait still.
 */
static void
take_requests(Pusher *pusher)
{
	uint64		taken = pusher->ticket;

	pusher->all_due |= synchro_shared_take_request(&pusher->ticket);
	if (pusher->ticket == taken)
		return;
	pusher->counts_copies = true;
	if (!pusher->asked)
		memset(&pusher->sum, 0, sizeof(pusher->sum));
	pusher->asked = true;
}

/*
 * A pass has been made: are the requests that were taken served?  Not before
 * the copies are done that the first pass for them knew of; each pass pushes a
 * piece.
 */
static void
serve_requests(Pusher *pusher, const SynchroPassResult *result)
{
	bool		served;

	synchro_pass_add(&pusher->sum, result);
	if (pusher->counts_copies)
		pusher->copy = result->newest_copy;
	pusher->all_due = pusher->counts_copies = false;
	served = result->oldest_copy == 0 || result->oldest_copy > pusher->copy;
	synchro_shared_serve(served ? pusher->ticket : 0, &pusher->sum.counts, pusher->sum.had_changes, NULL);
	pusher->asked &= !served;
}

/*
 * The always-on worker.
 */
static void
run_always(Pusher *pusher, const SynchroPusherOrder *order)
{
	static SynchroKeptError last_error;
	sigjmp_buf	on_error;
	volatile bool failed = false;

	strlcpy(pusher->push.server, order->server, sizeof(pusher->push.server));
	if (!synchro_shared_attach(order->database, order->server))
		proc_exit(0);
	synchro_worker_connect(order->database, psprintf("pusher: %s", order->server));

	if (sigsetjmp(on_error, 1) != 0)
	{
		synchro_pushlink_recover(&pusher->push, &last_error, &pusher->retry_now);
		failed = true;
	}
	PG_exception_stack = &on_error;

	for (;;)
	{
		SynchroPassResult result = {{0}};
		bool		stalled = failed && !pusher->retry_now && synchro_pushlink_stall(&pusher->push, &last_error);

		/* what has failed is tried once for each request; where a table has stalled, the rest of it is still to be */
		if (failed && !pusher->retry_now && !stalled)
		{
			pusher->all_due = false;
			synchro_pushlink_forget_stalled(&pusher->push);
			note_failure(pusher, &last_error);
			wait_to_retry(pusher);
		}
		failed = pusher->retry_now = false;
		take_requests(pusher);
		if (!synchro_shared_wanted() || !still_wanted(pusher))
			quit();

		/* to connect may take long */
		count_pending(pusher);
		synchro_pushlink_push(&pusher->push, pusher->all_due, &result);
		if (result.unfinished)
			continue;
		if (pusher->failures > 0)
			ereport(LOG,
					(errmsg("remote \"%s\" is served again", pusher->push.server)));
		pusher->failures = 0;
		pusher->last_code = 0;
		serve_requests(pusher, &result);
		if (result.oldest_copy != 0)
			continue;
		synchro_pushlink_say(SYNCHRO_IDLE);
		synchro_shared_gather(&result.counts);
		wait_for_work(pusher, 0);
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
	strlcpy(pusher->push.server, call->server, sizeof(pusher->push.server));
	synchro_worker_connect(call->database, psprintf("pusher: %s", call->server));
	if (call->preview)
		pusher->push.preview = synchro_preview_create();

	if (sigsetjmp(on_error, 1) != 0)
	{
		bool		lost;

		synchro_pushlink_recover(&pusher->push, &call->error, &lost);
		if (!synchro_pushlink_may_stall(&pusher->push))
		{
			pg_write_barrier();
			call->state = SYNCHRO_CALL_FAILED;
			proc_exit(0);
		}
	}
	PG_exception_stack = &on_error;
	(void) synchro_pushlink_stall(&pusher->push, &call->error);
	memset(&call->error, 0, sizeof(call->error));

	/* what passes before a table stalled have done stays done, but for a preview's */
	if (call->preview)
		memset(&call->result, 0, sizeof(call->result));
	do
	{
		SynchroPassResult result = {{0}};

		/* what has failed is tried once */
		synchro_pushlink_push(&pusher->push, call->result.newest_copy == 0, &result);
		synchro_pass_add(&call->result, &result);
	} while (call->result.oldest_copy != 0 && !call->preview && still_wanted(pusher));
	synchro_pushlink_close(&pusher->push);
	if (call->preview)
		synchro_previewqueue_send(segment, SYNCHRO_CALL_QUEUE(call), pusher->push.preview);
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
	pusher->push.context = AllocSetContextCreate(TopMemoryContext, "synchro pusher",
											ALLOCSET_DEFAULT_SIZES);
	if (DatumGetUInt32(main_arg) != 0)
		run_call(pusher, DatumGetUInt32(main_arg));
	else
		run_always(pusher, (const SynchroPusherOrder *) MyBgworkerEntry->bgw_extra);
	proc_exit(0);
}
