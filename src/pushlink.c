/*-------------------------------------------------------------------------
 *
 * pushlink.c
 *	  A pusher's link to its remote: passes over it, and what an error leaves.
 *
 * The connection is kept from one push to the next.  After an error it is
 * dropped, with all that is known of the remote; if a table is to blame, the
 * next push goes without it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "changestore.h"
#include "clocklink.h"
#include "localsql.h"
#include "logindex.h"
#include "logkeeper.h"
#include "pushlink.h"
#include "stalled.h"

/*
 * Kind of the advisory lock that keeps two passes to a remote apart; SQL's
 * own advisory locks are of kinds 1 and 2.
 */
#define PASS_LOCK_KIND 3

/* tables that stall one after the other */
#define MAX_STALLED		1000

/*
 * One pass to a remote at a time: a second one waits.
 */
static void
lock_remote(SynchroPushLink *push, const SynchroTarget *target)
{
	SET_LOCKTAG_ADVISORY(push->lock, MyDatabaseId, target->server, 0, PASS_LOCK_KIND);
	(void) LockAcquire(&push->lock, ExclusiveLock, true, false);
	push->locked = true;
}

static void
unlock_remote(SynchroPushLink *push)
{
	if (push->locked)
		LockRelease(&push->lock, ExclusiveLock, true);
	push->locked = false;
}

/*
 * Publish what we are doing, also in pg_stat_activity.
 */
void
synchro_pushlink_say(SynchroPusherState state)
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

/*
 * Drop the connection and what is known of the remote.
 */
void
synchro_pushlink_close(SynchroPushLink *push)
{
	SynchroLink *link = push->link;

	push->link = NULL;
	if (link != NULL)
		synchro_link_close(link);
}

/*
 * Get a link that knows where the remote is, the old one if it still does.
 * position: as it is kept here; on return, what counts.
 */
static void
connect_remote(SynchroPushLink *push, SynchroTarget *target, const char *previous, SynchroPosition *position)
{
	if ((push->link != NULL && (synchro_link_is_outdated(push->link) || strcmp(push->link->node, position->node) != 0)) ||
		!synchro_position_same(push->token, position->acknowledged))
		synchro_pushlink_close(push);
	if (push->link != NULL)
		return;

	synchro_pushlink_say(SYNCHRO_CONNECTING);
	push->fresh = true;
	push->link = synchro_link_open(target);
	push->link->node = MemoryContextStrdup(push->link->context, position->node);
	if (previous != NULL)
		push->link->previous_node = MemoryContextStrdup(push->link->context, previous);
	if (push->preview != NULL)
		synchro_preview_begin(push->link, push->preview);
	synchro_peer_open(push->link, position);
	if (push->preview == NULL)
		synchro_clocklink_measure(push->link);
}

/*
 * Push all that is pending: one pass, or more where the remote's connection
 * data change meanwhile.  all_due: somebody has asked for it, so try what has
 * failed, too, but for tables that have stalled by that.
 */
void
synchro_pushlink_push(SynchroPushLink *push, bool all_due, SynchroPassResult *result)
{
	SynchroTarget *target;
	SynchroPosition *position;
	char	   *previous;
	uint64		logged;

	MemoryContextSwitchTo(push->context);
	synchro_suspect(InvalidOid);
	logged = synchro_shared_logged();
	synchro_local_begin("synchro: starting a pass");
	MemoryContextSwitchTo(push->context);
	target = synchro_target_get(push->server, false);
	lock_remote(push, target);
	synchro_active_node(push->context, &previous);
	synchro_local_commit();

	/* anew: the snapshot above is from before we got the lock */
	synchro_local_begin("synchro: reading the position");
	MemoryContextSwitchTo(push->context);
	position = synchro_position_read(push->server, false);
	MemoryContextSwitchTo(push->context);
	synchro_local_commit();
	MemoryContextSwitchTo(push->context);

	if (push->preview == NULL)
		synchro_logindex_cover();
	do
	{
		SynchroPassResult part;

		connect_remote(push, target, previous, position);
		synchro_pushlink_say(SYNCHRO_PUSHING);
		synchro_pass_run(push->link, position, all_due, push->stalled, &part);
		push->fresh = false;
		if (push->token != NULL)
			pfree(push->token);
		push->token = MemoryContextStrdup(TopMemoryContext, position->acknowledged);
		synchro_pass_add(result, &part);
	} while (result->unfinished && synchro_shared_wanted());
	push->next_retry = result->next_retry;
	if (!result->unfinished)
	{
		synchro_shared_publish_pushed(logged);
		synchro_pushlink_forget_stalled(push);
	}
	if (push->preview != NULL)
		synchro_preview_end(push->link);
	unlock_remote(push);
	if (push->preview == NULL)
		synchro_logkeeper_run(true, push->server);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(push->context);
}

/*
 * Copy as much of a text as there is room for, in whole characters.
 */
static void
keep_text(char *kept, Size size, const char *text)
{
	int			len;

	if (text == NULL)
		text = "";
	len = pg_mbcliplen(text, strlen(text), size - 1);
	memcpy(kept, text, len);
	kept[len] = '\0';
}

/*
 * Leave the state that an error has left behind, in a handler of sigsetjmp().
 *
 * kept: set to the error.  lost: set to whether it was only an idle connection
 * that the other side had closed, or to what has become a node, or is none any more.
 */
void
synchro_pushlink_recover(SynchroPushLink *push, SynchroKeptError *kept, bool *lost)
{
	ErrorData  *error;

	error_context_stack = NULL;
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(push->context);
	error = CopyErrorData();
	FlushErrorState();
	memset(kept, 0, sizeof(*kept));
	kept->sqlerrcode = error->sqlerrcode;
	keep_text(kept->message, sizeof(kept->message), error->message);
	keep_text(kept->detail, sizeof(kept->detail), error->detail);
	keep_text(kept->hint, sizeof(kept->hint), error->hint);
	kept->at = GetCurrentTimestamp();

	/* a connection that was idle may have been closed since, or what it leads to has become a node: no real error */
	*lost = push->link != NULL && !push->fresh &&
		(push->link->is_other || ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION ||
		 error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN || error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN);
	push->suspect = push->link != NULL ? synchro_suspect_take(error->sqlerrcode) : InvalidOid;
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	AbortOutOfAnyTransaction();
	unlock_remote(push);
	synchro_pushlink_close(push);
	push->littered = !synchro_changestore_end_all();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(push->context);
	pgstat_report_activity(STATE_IDLE, NULL);
	RESUME_INTERRUPTS();
}

/*
 * From now on tables that have stalled are tried again when they are due, or
 * somebody asks for it.
 */
void
synchro_pushlink_forget_stalled(SynchroPushLink *push)
{
	list_free(push->stalled);
	push->stalled = NIL;
}

/*
 * Is a table to blame for the last error, that the next push can go without?  One
 * that it has been left out before helps nobody.
 */
bool
synchro_pushlink_may_stall(const SynchroPushLink *push)
{
	return OidIsValid(push->suspect) && !list_member_oid(push->stalled, push->suspect) &&
		list_length(push->stalled) < MAX_STALLED;
}

/*
 * If so, have the others go on without it; else false.
 */
bool
synchro_pushlink_stall(SynchroPushLink *push, const SynchroKeptError *error)
{
	MemoryContext old;

	if (!synchro_pushlink_may_stall(push))
		return false;
	old = MemoryContextSwitchTo(TopMemoryContext);
	push->stalled = lappend_oid(push->stalled, push->suspect);
	MemoryContextSwitchTo(old);
	if (push->preview != NULL)
	{
		synchro_preview_stall(push->preview, push->suspect, error);
		return true;
	}
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not push a table to remote \"%s\": %s", push->server, error->message),
			 error->detail[0] != '\0' ? errdetail_internal("%s", error->detail) : 0,
			 errhint("The others are pushed. It is tried again; see view synchro.failures.")));
	synchro_local_begin("synchro: noting what has stalled");
	synchro_stalled_note(push->server, push->suspect, error);
	synchro_local_commit();
	return true;
}

