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

#include "access/xact.h"
#include "commands/extension.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/condition_variable.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "changelog.h"
#include "changestore.h"
#include "clocklink.h"
#include "compat.h"
#include "localsql.h"
#include "logindex.h"
#include "logkeeper.h"
#include "pending.h"
#include "previewqueue.h"
#include "pusher.h"
#include "settings.h"
#include "stalled.h"

/*
 * Kind of the advisory lock that keeps two passes to a remote apart; SQL's
 * own advisory locks are of kinds 1 and 2.
 */
#define PASS_LOCK_KIND 3

#define FIRST_RETRY		200		/* ms; doubles */
#define MAX_STALLED		1000	/* tables that stall one after the other */

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
	bool		count_failed;	/* counting what is pending raises errors */
	bool		littered;		/* temporary files could not be removed */
	TimestampTz next_attempt;
	TimestampTz next_retry;		/* of what has failed; 0: nothing has */
	Oid			suspect;		/* the table that the error was about */
	int			nstalled;		/* how often that was so in a row */
	uint64		ticket;			/* of the last request that was taken */
	bool		all_due;		/* what has failed is to be tried for it */
	bool		counts_copies;	/* the next pass says which copies it waits for */
	int64		copy;			/* the newest of these */
	SynchroPassResult sum;		/* of passes since requests were served last */
	SynchroPreview *preview;	/* only that is made; else NULL */
} Pusher;

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
 * Publish what we are doing, also in pg_stat_activity.
 */
static void
say(SynchroPusherState state)
{
	static const char *const texts[] = {
		[SYNCHRO_STARTING] = "synchro: starting",
		[SYNCHRO_CONNECTING] = "synchro: connecting",
		[SYNCHRO_PUSHING] = "synchro: pushing",
		[SYNCHRO_IDLE] = "synchro: waiting for changes",
		[SYNCHRO_WAITING] = "synchro: waiting to try again"
	};
	bool		waits = state == SYNCHRO_IDLE || state == SYNCHRO_WAITING;

	synchro_shared_publish_state(state);
	pgstat_report_activity(waits ? STATE_IDLE : STATE_RUNNING, texts[state]);
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
	if ((pusher->link != NULL && synchro_link_is_outdated(pusher->link)) ||
		!same_token(pusher->token, position->acknowledged))
		disconnect(pusher);
	if (pusher->link != NULL)
		return;

	say(SYNCHRO_CONNECTING);
	pusher->fresh = true;
	pusher->link = synchro_link_open(target);
	pusher->link->node = MemoryContextStrdup(pusher->link->context, node);
	if (previous != NULL)
		pusher->link->previous_node = MemoryContextStrdup(pusher->link->context, previous);
	if (pusher->preview != NULL)
		synchro_preview_begin(pusher->link, pusher->preview);
	synchro_peer_open(pusher->link, position);
	if (pusher->preview == NULL)
		synchro_clocklink_measure(pusher->link);
}

/*
 * Push all that is pending: one pass, or more where the remote's connection
 * data change meanwhile.  all_due: somebody has asked for it, so try what has
 * failed, too.
 */
static void
push(Pusher *pusher, bool all_due, SynchroPassResult *result)
{
	SynchroTarget *target;
	SynchroPosition *position;
	char	   *node;
	char	   *previous;
	uint64		logged;

	MemoryContextSwitchTo(pusher->context);
	synchro_suspect(InvalidOid);
	logged = synchro_shared_logged();
	synchro_local_begin("synchro: starting a pass");
	MemoryContextSwitchTo(pusher->context);
	target = synchro_target_get(pusher->server, false);
	lock_remote(pusher, target);
	node = synchro_active_node(pusher->context, &previous);
	synchro_local_commit();

	/* anew: the snapshot above is from before we got the lock */
	synchro_local_begin("synchro: reading the position");
	MemoryContextSwitchTo(pusher->context);
	position = synchro_position_read(pusher->server, false);
	MemoryContextSwitchTo(pusher->context);
	synchro_local_commit();
	MemoryContextSwitchTo(pusher->context);

	if (pusher->preview == NULL)
		synchro_logindex_cover();
	do
	{
		SynchroPassResult part;

		connect_remote(pusher, target, node, previous, position);
		say(SYNCHRO_PUSHING);
		synchro_pass_run(pusher->link, position, all_due, &part);
		pusher->fresh = false;
		if (pusher->token != NULL)
			pfree(pusher->token);
		pusher->token = MemoryContextStrdup(TopMemoryContext, position->acknowledged);
		synchro_pass_add(result, &part);
	} while (result->unfinished && synchro_shared_wanted());
	pusher->next_retry = result->next_retry;
	if (!result->unfinished)
		synchro_shared_publish_pushed(logged);
	if (pusher->preview != NULL)
		synchro_preview_end(pusher->link);
	unlock_remote(pusher);
	if (pusher->preview == NULL)
		synchro_logkeeper_run(true, pusher->server);
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
		(ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION ||
		 error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN || error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN);
	pusher->suspect = pusher->link != NULL ? synchro_suspect_take(error->sqlerrcode) : InvalidOid;
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	AbortOutOfAnyTransaction();
	unlock_remote(pusher);
	disconnect(pusher);
	pusher->littered = !synchro_changestore_end_all();
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
		if (until == 0 ? (rc & WL_LATCH_SET) || synchro_shared_unseen() || is_over(pusher->next_retry) :
			is_over(until))
			return;

		/* a remote that is down for long shall not let the log grow */
		if (synchro_logkeeper_run((rc & WL_LATCH_SET) != 0, NULL))
			say(until == 0 ? SYNCHRO_IDLE : SYNCHRO_WAITING);
		rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT,
					   sleep_time(until != 0 ? until : pusher->next_retry), synchro_wait_work());
		ResetLatch(MyLatch);
	}
}

/*
 * If a table is to blame for the last error, have the others go on without
 * it.
 */
static bool
stall_suspect(Pusher *pusher, const SynchroKeptError *error)
{
	if (!OidIsValid(pusher->suspect) || ++pusher->nstalled > MAX_STALLED)
		return false;
	if (pusher->preview != NULL)
	{
		synchro_preview_stall(pusher->preview, pusher->suspect, error);
		return true;
	}
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not push a table to remote \"%s\": %s", pusher->server, error->message),
			 error->detail[0] != '\0' ? errdetail_internal("%s", error->detail) : 0,
			 errhint("The others are pushed. It is tried again; see view synchro.failures.")));
	synchro_local_begin("synchro: noting what has stalled");
	synchro_stalled_note(pusher->server, pusher->suspect, error);
	synchro_local_commit();
	return true;
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
	synchro_shared_publish_failure(error, pusher->failures, pusher->next_attempt);
	if (pusher->littered)
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
	synchro_pending_count(pusher->server, &pending);
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
	say(SYNCHRO_WAITING);
	wait_for_work(pusher, pusher->next_attempt);
}

/*
 * Take requests that have come since the last ones, if any.
 */
static void
take_requests(Pusher *pusher)
{
	uint64		taken = pusher->ticket;

	pusher->all_due |= synchro_shared_take_request(&pusher->ticket);
	pusher->counts_copies |= pusher->ticket > taken;
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
	if (served)
		memset(&pusher->sum, 0, sizeof(pusher->sum));
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

	strlcpy(pusher->server, order->server, sizeof(pusher->server));
	if (!synchro_shared_attach(order->database, order->server))
		proc_exit(0);
	synchro_worker_connect(order->database, psprintf("pusher: %s", order->server));

	if (sigsetjmp(on_error, 1) != 0)
	{
		recover(pusher, &last_error, &pusher->retry_now);
		failed = true;
	}
	PG_exception_stack = &on_error;

	for (;;)
	{
		SynchroPassResult result = {{0}};
		bool		stalled = failed && !pusher->retry_now && stall_suspect(pusher, &last_error);

		/* what has failed is tried once for each request */
		if (failed && !pusher->retry_now)
			pusher->all_due = false;
		if (failed && !pusher->retry_now && !stalled)
		{
			note_failure(pusher, &last_error);
			wait_to_retry(pusher);
		}
		failed = pusher->retry_now = false;
		take_requests(pusher);
		if (!synchro_shared_wanted() || !still_wanted(pusher))
			quit();

		/* to connect may take long */
		count_pending(pusher);
		push(pusher, pusher->all_due, &result);
		if (result.unfinished)
			continue;
		if (pusher->failures > 0)
			ereport(LOG,
					(errmsg("remote \"%s\" is served again", pusher->server)));
		pusher->failures = pusher->nstalled = 0;
		pusher->last_code = 0;
		serve_requests(pusher, &result);
		if (result.oldest_copy != 0)
			continue;
		say(SYNCHRO_IDLE);
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
	bool		stalled;

	if (segment == NULL)
		return;					/* the caller is gone */
	dsm_pin_mapping(segment);
	call = dsm_segment_address(segment);
	strlcpy(pusher->server, call->server, sizeof(pusher->server));
	synchro_worker_connect(call->database, psprintf("pusher: %s", call->server));
	if (call->preview)
		pusher->preview = synchro_preview_create();

	if (sigsetjmp(on_error, 1) != 0)
	{
		bool		lost;

		recover(pusher, &call->error, &lost);
		if (!OidIsValid(pusher->suspect) || pusher->nstalled == MAX_STALLED)
		{
			pg_write_barrier();
			call->state = SYNCHRO_CALL_FAILED;
			proc_exit(0);
		}
	}
	PG_exception_stack = &on_error;
	stalled = stall_suspect(pusher, &call->error);
	memset(&call->error, 0, sizeof(call->error));
	memset(&call->result, 0, sizeof(call->result));
	do
	{
		SynchroPassResult result = {{0}};

		/* what has failed is tried once */
		push(pusher, (!stalled || call->preview) && call->result.newest_copy == 0, &result);
		synchro_pass_add(&call->result, &result);
	} while (call->result.oldest_copy != 0 && !call->preview && still_wanted(pusher));
	disconnect(pusher);
	if (call->preview)
		synchro_previewqueue_send(segment, SYNCHRO_CALL_QUEUE(call), pusher->preview);
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
	if (DatumGetUInt32(main_arg) != 0)
		run_call(pusher, DatumGetUInt32(main_arg));
	else
		run_always(pusher, (const SynchroPusherOrder *) MyBgworkerEntry->bgw_extra);
	proc_exit(0);
}
