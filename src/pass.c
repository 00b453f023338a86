/*-------------------------------------------------------------------------
 *
 * pass.c
 *	  One pass: from what is pending to nothing is pending.
 *
 * A pass takes a snapshot, S1; which keys it pushes is what S1 sees of the
 * log and the position's snapshot, S0, did not.  What is pushed of them are
 * the rows as they are when their batch is read.  S1 becomes the position
 * with the last batch; batches before it only move the keys snapshot.  So a
 * crash in between repeats reads, but writes nothing twice: a row that is
 * already as it should be is not touched.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "claimed.h"
#include "clocklink.h"
#include "followers.h"
#include "localsql.h"
#include "pass.h"
#include "passwork.h"
#include "settings.h"
#include "stalled.h"
#include "unwatched.h"

/*
 * Of many rows, batches grow up to so many times synchro.batch_size, as long
 * as each takes less than so many milliseconds, and bytes.
 */
#define GROWN_BATCH		5
#define LONG_BATCH		500
#define LARGE_BATCH		(16 * 1024 * 1024)

/* on a long line that is this many round trips longer, or the line is what takes the time; in ms at most */
#define ROUND_TRIPS		25
#define MAX_LONG_BATCH	5000

/* from so many of its own changes on, the remote is told that they are here */
#define MANY_UNTOLD		1000

/*
 * A row that was only to be there has not been brought up to date, so what is
 * parked of it waits for its own turn, unless that is all it was parked for.
 */
static List *
add_healed(const SynchroPass *pass, List *healed, const List *list)
{
	const ListCell *cell;

	foreach(cell, list)
	{
		const SynchroBatchKeys *keys = lfirst(cell);
		int			n = keys->identities->nidentity;

		for (int i = 0; i < keys->identities->count; i++)
		{
			SynchroParked *parked = synchro_parked_find(pass->parked, keys->relid, &keys->identities->values[i * n], n);

			if (parked != NULL && !parked->banned && (!keys->ensure || parked->ensured))
				healed = list_append_unique_ptr(healed, parked);
		}
	}
	return healed;
}

/*
 * What the batch settles of what has failed before: rows that were parked, and
 * of tables that had stalled the names of before, or, with the pass's last one,
 * all that there was.
 */
static SynchroSettled
settled_by(const SynchroPass *pass, const SynchroBatch *batch)
{
	SynchroSettled settled = {.all = batch->snapshot != NULL};
	ListCell   *cell;

	if (pass->parked->count > 0)
		settled.parked = add_healed(pass, add_healed(pass, NIL, batch->keys), batch->named);
	foreach(cell, pass->stalled)
	{
		SynchroStalled *stalled = lfirst(cell);

		if (stalled->due && (settled.all || stalled->named != NULL))
			settled.stalled = lappend(settled.stalled, stalled);
	}
	return settled;
}

/*
 * It has been settled: also for the rest of the pass.
 */
static void
forget_settled(SynchroPass *pass, const SynchroSettled *settled)
{
	ListCell   *cell;

	synchro_parked_forget(pass->parked, settled->parked);
	foreach(cell, settled->stalled)
		((SynchroStalled *) lfirst(cell))->named = NULL;
}

/*
 * Note how deletes have fared that the remote had kept, with the pass's last
 * batch; a crash before this only has them tried again.
 */
static void
note_deletes(SynchroPass *pass, const SynchroBatch *batch)
{
	List	   *tables = batch->snapshot == NULL ? NIL : batch->apart ? batch->kept : pass->link->leftovers;

	if (tables == NIL || pass->link->preview != NULL || (batch->undeleted == NIL && !pass->parked->has_deletes))
		return;
	synchro_local_begin("synchro: noting what has failed");
	synchro_parked_put_deletes(pass->parked, tables, batch->undeleted);
	synchro_local_commit();
	MemoryContextSwitchTo(pass->batch_context);
}

/*
 * A copy of the text for the position, which may be needed for another link
 * when this one is closed.
 */
static char *
position_text(const SynchroPass *pass, const char *text)
{
	return MemoryContextStrdup(GetMemoryChunkContext(pass->position), text);
}

static void
acknowledge(SynchroPass *pass, SynchroBatch *batch, const char *token, const SynchroSettled *settled)
{
	SynchroPosition *position = pass->position;
	MemoryContext old;
	ListCell   *shown;

	foreach(shown, batch->shown)
		synchro_preview_put(pass->link->preview, lfirst(shown));

	if (pass->link->preview == NULL)
		synchro_position_acknowledge(pass->link->target->name, token, batch->snapshot,
									 batch->keys_snapshot, pass->started, &batch->counts,
									 pass->chunk != NULL ? &pass->chunk->step : NULL, pass->extras,
									 synchro_stalled_waiting(pass->stalled), settled);
	MemoryContextSwitchTo(pass->batch_context);
	forget_settled(pass, settled);
	old = MemoryContextSwitchTo(pass->context);
	pass->claimed = synchro_claimed_keep(pass->claimed, batch->claimed);
	MemoryContextSwitchTo(old);
	note_deletes(pass, batch);
	position->acknowledged = position_text(pass, token);
	position->keys_snapshot = position_text(pass, batch->keys_snapshot);
	position->forget_references = pass->link->forgets_references = false;
	if (batch->snapshot != NULL)
	{
		position->snapshot = position_text(pass, batch->snapshot);
		pass->link->untold = 0;
		synchro_link_forget_leftovers(pass->link);
	}
	else
	{
		ListCell   *cell;

		/* this batch may have left deletes of each of its tables */
		foreach(cell, pass->link->tables)
		{
			SynchroLinkTable *lt = lfirst(cell);

			if (lt->had_olds && lt->table->watched)
				synchro_link_add_leftover(pass->link, lt->table->qualified);
		}
	}
	pass->counts.inserted += batch->counts.inserted;
	pass->counts.updated += batch->counts.updated;
	pass->counts.deleted += batch->counts.deleted;
	pass->counts.skipped += batch->counts.skipped;
	pass->counts.failed += batch->counts.failed;
}

static void
publish_progress(SynchroPass *pass, const SynchroBatch *batch)
{
	ListCell   *cell;
	Oid			relid = InvalidOid;

	foreach(cell, batch->keys)
	{
		pass->keys_done += ((SynchroBatchKeys *) lfirst(cell))->identities->count;
		relid = ((SynchroBatchKeys *) lfirst(cell))->relid;
	}
	synchro_shared_publish_progress("pushing", relid, Max(pass->keys_done, 1), pass->changes->nkeys);
}

/*
 * A batch with nothing in it yet, in the pass's batch context.
 */
SynchroBatch *
synchro_pass_batch(SynchroPass *pass)
{
	SynchroBatch *batch = palloc0(sizeof(SynchroBatch));

	batch->link = pass->link;
	batch->position = pass->position;
	batch->ensured = pass->ensured;
	batch->parked = pass->parked;
	batch->atomic = pass->atomic;
	batch->stalled = pass->stalled;
	batch->max_olds = PG_INT64_MAX;
	batch->olds_turn = PG_INT64_MAX;
	return batch;
}

/*
 * The same, for keys that are new to the pass.
 */
SynchroBatch *
synchro_pass_new_batch(SynchroPass *pass)
{
	SynchroBatch *batch = synchro_pass_batch(pass);

	batch->looked_for = pass->looked_for;
	batch->may_be_straight = !pass->no_straight && pass->chunk == NULL;
	return batch;
}

/* what has been done for a batch that is to be pushed */
typedef enum PushState
{
	PUSH_NEW_KEYS,				/* nothing: it takes the next keys */
	PUSH_KEYS,					/* it has its keys */
	PUSH_READ					/* its rows are in the link's tables */
} PushState;

/* what the batch's hooks are told */
typedef struct Applying
{
	SynchroPass *pass;
	SynchroBatch *batch;
	char	   *token;
	SynchroSettled settled;
} Applying;

/*
 * Keep the token of a batch that is to be committed.
 */
static void
keep_token(void *arg)
{
	Applying   *applying = arg;
	SynchroPass *pass = applying->pass;

	synchro_position_attempt(pass->link->target->name, pass->position->attempted, applying->token,
							 applying->batch->keys_snapshot, &applying->settled);
	pass->position->attempted = position_text(pass, applying->token);
}

static void
read_ahead(void *arg)
{
	Applying   *applying = arg;

	synchro_pass_read_ahead(applying->pass, applying->batch);
}

/*
 * Apply a batch that was read.  commit, may_read_ahead: see push().
 */
static SynchroRemoteError *
apply(SynchroPass *pass, SynchroBatch *batch, bool commit, bool may_read_ahead)
{
	Applying	applying = {pass, batch, commit ? synchro_position_token() : pass->position->attempted, settled_by(pass, batch)};
	SynchroRemoteError *error;

	if (commit)
		synchro_parking_save_names(pass);
	batch->hook_arg = &applying;
	batch->before_commit = pass->link->preview == NULL ? keep_token : NULL;
	batch->meanwhile = may_read_ahead && pass->next == NULL && synchro_pass_may_read_ahead(pass) ? read_ahead : NULL;
	error = synchro_batch_apply(batch, applying.token, commit);
	if (error != NULL || !commit || batch->withdrawn)
		return error;
	if (pass->link->preview != NULL)
		pass->position->attempted = position_text(pass, applying.token);
	acknowledge(pass, batch, applying.token, &applying.settled);
	pass->link->crossing = Max(pass->link->crossing - 1, 0);
	pass->link->mapping = Max(pass->link->mapping - 1, 0);
	return NULL;
}

/*
 * Read a batch, unless that is done, and apply it, again where that helps.
 * Returns NULL when it is done and acknowledged, or what must be left out.
 * commit: false to see only whether it would be.  may_read_ahead: the next
 * batch may be read meanwhile.
 */
static SynchroRemoteError *
push(SynchroPass *pass, SynchroBatch *batch, PushState state, bool may_read_ahead, bool *more, bool commit)
{
	int			retries = 0;

	for (;;)
	{
		SynchroRemoteError *error;

		error = state != PUSH_READ ? synchro_pass_read(pass, batch, state == PUSH_NEW_KEYS, more) : NULL;
		if (error != NULL)
			return error;
		state = PUSH_KEYS;
		error = apply(pass, batch, commit, may_read_ahead && *more);
		if (error == NULL && !batch->withdrawn)
			return NULL;

		/* its rows go with the next one that is read */
		pass->next_is_read = false;
		if (error == NULL)
		{
			synchro_followers_touch(pass->link, batch->anew);
			batch->told = list_concat(batch->told, batch->anew);
		}
		else if (!synchro_quarantine_again(pass, batch, error, &retries))
			return error;
	}
}

/*
 * Push a batch of given keys.  final: the pass has come to its end with it.
 */
SynchroRemoteError *
synchro_pass_push(SynchroPass *pass, SynchroBatch *batch, bool final)
{
	bool		more = !final;

	return push(pass, batch, PUSH_KEYS, false, &more, true);
}

/*
 * The same without committing it, so not final.
 */
SynchroRemoteError *
synchro_pass_rehearse(SynchroPass *pass, SynchroBatch *batch)
{
	bool		more = true;

	return push(pass, batch, PUSH_KEYS, false, &more, false);
}

/*
 * Apply a batch of given keys once, as it is, without committing it.  final: as
 * the pass's last one, so that deletes are done.
 */
SynchroRemoteError *
synchro_pass_try(SynchroPass *pass, SynchroBatch *batch, bool final)
{
	bool		more = !final;
	SynchroRemoteError *error = synchro_pass_read(pass, batch, false, &more);

	if (error != NULL)
		return error;

	/* that rows are gone there would hide what else is wrong with them */
	pass->link->mapping = Max(pass->link->mapping, 1);
	error = synchro_batch_apply(batch, pass->position->attempted, false);
	if (error != NULL)
		synchro_quarantine_require_node(pass->link, error);
	return error;
}

/*
 * Take more keys for a batch while that costs the remote little, since each
 * batch costs round trips and a commit; fewer where rows are large or slow.
 */
static void
adapt_batches(SynchroPass *pass, TimestampTz begun)
{
	int64		trips = ROUND_TRIPS * synchro_remote_round_trip(pass->link->remote) / 1000;
	bool		slow = TimestampDifferenceExceeds(begun, GetCurrentTimestamp(), (int) Min(LONG_BATCH + trips, MAX_LONG_BATCH));
	int64		bytes = 0;
	ListCell   *cell;

	foreach(cell, pass->link->stagings)
		bytes += ((SynchroStaging *) lfirst(cell))->sent_bytes;
	if (slow || bytes > LARGE_BATCH)
		pass->batch_rows = Max(pass->batch_rows / 2, Min(pass->batch_rows, synchro_batch_size));
	else
		pass->batch_rows = (int) Min((int64) pass->batch_rows * 2, (int64) synchro_batch_size * GROWN_BATCH);
}

/*
 * Push one batch.  Returns whether there are more.
 */
static bool
run_batch(SynchroPass *pass)
{
	SynchroBatch *batch = pass->next;
	PushState	state = batch == NULL ? PUSH_NEW_KEYS : pass->next_is_read ? PUSH_READ : PUSH_KEYS;
	SynchroRemoteError *error;
	bool		more = pass->next_has_more;
	TimestampTz begun;

	if (batch == NULL)
	{
		MemoryContextReset(pass->batch_context);
		MemoryContextSwitchTo(pass->batch_context);
		batch = synchro_pass_new_batch(pass);
	}
	else
	{
		MemoryContext done = pass->batch_context;

		pass->batch_context = pass->next_context;
		pass->next_context = done;
		MemoryContextSwitchTo(pass->batch_context);
		pass->next = NULL;
		batch->ensured = pass->ensured;
		batch->may_be_straight &= !pass->no_straight;
	}
	if (!pass->shared && pass->link->preview == NULL)
		synchro_clocklink_refresh(pass->link);
	begun = GetCurrentTimestamp();
	error = push(pass, batch, state, true, &more, true);
	if (error != NULL)
		synchro_division_push(pass, batch, error, !more);
	else
		adapt_batches(pass, begun);
	publish_progress(pass, batch);
	return more;
}

/*
 * What would fail, now that the pass has come to its end without it.
 */
static void
show_failures(SynchroPass *pass)
{
	SynchroPreview *preview = pass->link->preview;
	ListCell   *cell;

	foreach(cell, synchro_parked_kept(pass->parked))
	{
		const SynchroParked *parked = lfirst(cell);
		SynchroPreviewRow row = {parked->relid, unconstify(char *, parked->name), "fail", unconstify(char *, parked->reason)};

		synchro_preview_put(preview, &row);
	}
	foreach(cell, preview->stalled)
		synchro_preview_put(preview, lfirst(cell));
}

/*
 * All that the log has is known to the remote: move on.  Here only, but where
 * the remote decides by what we have got of its log (peer_newest()), it is told
 * now and then, by a batch of nothing: or it would look at all that it has ever
 * sent, where we never change anything.
 */
static void
skip_echoes(SynchroPass *pass)
{
	SynchroLink *link = pass->link;

	link->untold += pass->changes->nentries;
	if (link->peer_node == NULL || link->untold < MANY_UNTOLD)
		synchro_position_skip(link->target->name, pass->position, pass->snapshot, pass->started);
	else
		(void) run_batch(pass);
}

/*
 * Push all that is pending for the link's remote.
 *
 * position: as synchro_peer_open() left it; moved on here.  all_due: try what
 * has failed before whatever the time for that, but for the tables stalled,
 * which have just been tried.  Errors of the remote are raised as ours; what
 * batches before have committed stays.  If the result is unfinished, the link is
 * not to be used any more, or the remote no longer wanted; another pass goes on.
 */
void
synchro_pass_run(SynchroLink *link, SynchroPosition *position, bool all_due, const List *stalled, SynchroPassResult *result)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro pass",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SynchroPass *pass = palloc0(sizeof(SynchroPass));

	pass->context = context;
	pass->link = link;
	pass->position = position;
	link->forgets_references = position->forget_references;
	pass->all_due = all_due;

	/* as it is set now, to the end; the batches of a preview are one transaction in any case */
	pass->atomic = synchro_atomic_pass && link->preview == NULL;
	pass->just_stalled = stalled;
	pass->batch_context = AllocSetContextCreate(context, "synchro pass batch",
												ALLOCSET_DEFAULT_SIZES);
	pass->next_context = AllocSetContextCreate(context, "synchro pass batch", ALLOCSET_DEFAULT_SIZES);
	pass->batch_rows = synchro_batch_size * (synchro_remote_is_far(link->remote) ? 2 : 1);
	synchro_pass_collect(pass);
	memset(result, 0, sizeof(*result));
	if (pass->changes->nkeys > 0 || pass->changes->nolds > 0 || link->leftovers != NIL || synchro_stalled_any_due(pass->stalled) ||
		pass->chunk != NULL || pass->extras != NIL)
	{
		result->had_changes = true;
		if (pass->extras != NIL)
			synchro_pass_delete_extras(pass);
		synchro_shared_publish_progress("pushing", InvalidOid, 0, pass->changes->nkeys);
		while (run_batch(pass))
		{
			CHECK_FOR_INTERRUPTS();

			/* an altered server, or pause(), counts from the next batch on */
			result->unfinished = link->preview == NULL && (synchro_link_is_outdated(link) || !synchro_shared_wanted());
			if (result->unfinished)
			{
				synchro_link_clear_batch(link);
				break;
			}
		}
	}
	else if (pass->changes->nentries > 0 && !position->rebased && link->preview == NULL)
		skip_echoes(pass);
	if (link->preview != NULL)
		show_failures(pass);
	else if (pass->parked->any_due && !result->unfinished)
		synchro_unwatched_forget_parents(pass->parked, pass->all_due, pass->started);
	result->counts = pass->counts;
	synchro_pass_copies_left(pass, &result->oldest_copy, &result->newest_copy);
	if (pass->parked->count > 0 || pass->parked->has_deletes || pass->stalled != NIL || pass->counts.failed > 0)
	{
		synchro_local_begin("synchro: looking at what has failed");
		result->next_retry = synchro_parked_next(link->target->name, pass->started);
		synchro_local_commit();
	}
	MemoryContextSwitchTo(old);
	synchro_changes_free(pass->changes);
	MemoryContextDelete(context);
}

/*
 * Add what a pass did to what passes before it did.
 */
void
synchro_pass_add(SynchroPassResult *sum, const SynchroPassResult *part)
{
	sum->counts.inserted += part->counts.inserted;
	sum->counts.updated += part->counts.updated;
	sum->counts.deleted += part->counts.deleted;
	sum->counts.skipped += part->counts.skipped;
	sum->counts.failed += part->counts.failed;
	sum->had_changes |= part->had_changes;
	sum->unfinished = part->unfinished;
	sum->oldest_copy = part->oldest_copy;
	sum->newest_copy = Max(sum->newest_copy, part->newest_copy);
	sum->next_retry = part->next_retry;
}
