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
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "applysql.h"
#include "batch.h"
#include "followers.h"
#include "clocklink.h"
#include "localsql.h"
#include "order.h"
#include "pass.h"
#include "passwork.h"
#include "settings.h"
#include "staging.h"
#include "stalled.h"

static void order_tables(SynchroPass *pass);

/*
 * Have deletes tried again that wait on the remote.
 */
static void
add_due_deletes(SynchroPass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->link->context);
	ListCell   *cell;

	foreach(cell, pass->parked->deletes)
		pass->link->leftovers = lappend(pass->link->leftovers, pstrdup(lfirst(cell)));
	MemoryContextSwitchTo(old);
}

static bool
any_due(const List *stalled)
{
	const ListCell *cell;

	foreach(cell, stalled)
		if (((SynchroStalled *) lfirst(cell))->due)
			return true;
	return false;
}

/*
 * Deletes of tables that have stalled wait with them.
 */
static void
leave_out_stalled(SynchroPass *pass)
{
	ListCell   *cell;
	List	   *kept = NIL;
	MemoryContext old;

	if (pass->stalled == NIL)
		return;
	if (any_due(pass->stalled))
		synchro_peer_find_leftovers(pass->link);
	synchro_local_begin("synchro: looking at what has stalled");
	old = MemoryContextSwitchTo(pass->link->context);
	foreach(cell, pass->link->leftovers)
	{
		SynchroStalled *stalled = synchro_stalled_find(pass->stalled, synchro_table_by_name(lfirst(cell)));

		if (stalled == NULL || stalled->due)
			kept = lappend(kept, lfirst(cell));
	}
	pass->link->leftovers = kept;
	MemoryContextSwitchTo(old);
	synchro_local_commit();
	MemoryContextSwitchTo(pass->context);
	foreach(cell, pass->stalled)
		pass->counts.failed += ((SynchroStalled *) lfirst(cell))->due ? 0 : 1;
}

/*
 * Can the first batch be read in the transaction that has collected the keys?
 *
 * Then it need not read the log once more for names of before.  Those are in
 * what the keys snapshot did not see, and the pass has read what the position's
 * snapshot did not see.  That is all of it and more, since each batch is read
 * after its pass's S1, unless the checkpoint was moved by hand; what is more is
 * marked as named and gives no names.  Not where something is sent again, or
 * the remote's own changes count: that is for each batch to find out.
 */
static bool
can_share(const SynchroPass *pass)
{
	return (!pass->position->rebased || strcmp(pass->position->snapshot, pass->position->keys_snapshot) == 0) &&
		(pass->changes->nkeys > 0 || pass->changes->nolds > 0) &&
		pass->changes->nagain == 0 && pass->parked->count == 0 && pass->stalled == NIL &&
		pass->link->leftovers == NIL && pass->link->peer_node == NULL;
}

/*
 * Take S1 and collect what is new.  A local transaction, which is left open if
 * the first batch is read in it, too.
 */
static void
collect(SynchroPass *pass)
{
	SynchroSqlScope scope;
	SynchroSnapshot *since = synchro_snapshot_parse(pass->position->snapshot);
	SynchroSnapshot *named = synchro_snapshot_parse(pass->position->keys_snapshot);

	synchro_local_begin_locked("synchro: reading the log", synchro_log_lock);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	MemoryContextSwitchTo(pass->context);
	pass->started = GetCurrentTimestamp();
	pass->snapshot = synchro_snapshot_current();
	pass->parked = synchro_parked_load(pass->link->target->name, pass->all_due);

	/* the remote's definitions may be what was mended */
	if (pass->parked->any_due)
		synchro_link_forget(pass->link);
	synchro_link_refresh(pass->link);
	pass->stalled = synchro_stalled_load(pass->link->target->name, pass->all_due);
	pass->changes = synchro_changes_collect(since, named, pass->link->target->name, pass->parked,
											pass->stalled, pass->link->peer_node, true);
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(pass->context);
	order_tables(pass);
	add_due_deletes(pass);
	pass->shared = can_share(pass);
	if (!pass->shared)
		synchro_local_commit();
	MemoryContextSwitchTo(pass->context);
	leave_out_stalled(pass);
}

static SynchroChangeSet *
collect_olds(SynchroPass *pass)
{
	SynchroSqlScope scope;
	SynchroChangeSet *olds;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	MemoryContextSwitchTo(pass->batch_context);
	olds = synchro_changes_collect(synchro_snapshot_parse(pass->position->keys_snapshot),
								   NULL, NULL, pass->parked, pass->stalled, pass->link->peer_node, false);
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(pass->batch_context);
	return olds;
}

/*
 * Put the changed tables in order: parents first, so that a child rarely
 * finds its parent missing.
 */
static void
order_tables(SynchroPass *pass)
{
	List	   *tables = NIL;
	ListCell   *cell;
	ListCell   *member;

	foreach(cell, pass->changes->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		if (changed->nkeys > 0)
			tables = lappend(tables, synchro_link_table(pass->link, changed->relid, true));
	}

	/* a table that had stalled is looked at even if nothing of it has changed */
	foreach(cell, pass->stalled)
	{
		const SynchroStalled *stalled = lfirst(cell);
		const SynchroTable *table = stalled->due ? synchro_table_get(stalled->relid, true) : NULL;

		if (table != NULL && table->watched && table->mode != SYNCHRO_MODE_NONE)
			(void) synchro_link_table(pass->link, stalled->relid, true);
	}
	pass->order = NIL;
	foreach(cell, synchro_order_by_references(tables))
		foreach(member, lfirst(cell))
		{
			SynchroLinkTable *lt = lfirst(member);
			ListCell   *other;

			foreach(other, pass->changes->tables)
				if (((SynchroChangedTable *) lfirst(other))->relid == lt->table->relid)
					pass->order = lappend(pass->order, lfirst(other));
		}
}

static void
add_dead(SynchroBatch *batch, Oid relid, char **identity, int nidentity, const SynchroChangedKey *key)
{
	SynchroBatchDead *dead = palloc(sizeof(SynchroBatchDead));

	dead->relid = relid;
	dead->text = synchro_identity_key(identity, nidentity);
	dead->key = *key;
	dead->key.kind = SYNCHRO_KIND_GONE[0];
	batch->dead = lappend(batch->dead, dead);
}

/*
 * Add a key to a batch's, or, if it has failed before, to those that are to be
 * tried by themselves: then false.
 */
static bool
take_key(SynchroPass *pass, SynchroBatch *batch, SynchroBatchKeys *keys,
		 const SynchroChangedTable *changed, const SynchroChangedKey *key)
{
	const SynchroTable *table = changed->table;
	char	  **identity = synchro_identities_values(table, table->identity, table->nidentity, key->identity);

	if (key->name.data == NULL && !synchro_atomic_pass &&
		synchro_parked_find(pass->parked, changed->relid, identity, table->nidentity) != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(pass->context);

		if (pass->again == NULL)
			pass->again = synchro_identities_create(table);
		for (int i = 0; i < table->nidentity; i++)
			identity[i] = identity[i] != NULL ? pstrdup(identity[i]) : NULL;
		synchro_identities_add(pass->again, identity);
		synchro_identities_stamp(pass->again, key->changed, key->born);
		MemoryContextSwitchTo(old);
		return false;
	}
	synchro_identities_add(keys->identities, identity);
	synchro_identities_stamp(keys->identities, key->changed, key->born);
	if (key->name.data != NULL)
		add_dead(batch, changed->relid, identity, table->nidentity, key);
	return true;
}

/*
 * Take the next keys, up to a batch's size.  Returns whether any are left.
 *
 * Keys that have failed before come after the others of their table, in a
 * batch of their own: if they fail again, the others are not kept waiting.
 */
static bool
take_keys(SynchroPass *pass, SynchroBatch *batch)
{
	int			count = 0;
	int			limit = synchro_atomic_pass ? PG_INT32_MAX : synchro_batch_size;

	batch->keys = NIL;
	while (pass->current < list_length(pass->order))
	{
		SynchroChangedTable *changed = list_nth(pass->order, pass->current);
		SynchroBatchKeys *keys = palloc0(sizeof(SynchroBatchKeys));
		SynchroChangedKey key;

		keys->relid = changed->relid;
		keys->identities = synchro_identities_create(changed->table);
		batch->keys = lappend(batch->keys, keys);
		while (count < limit && synchro_changes_next_key(changed, &key))
		{
			count += take_key(pass, batch, keys, changed, &key) ? 1 : 0;
		}
		if (count >= limit)
			return true;
		if (pass->again != NULL && count > 0)
			return true;
		if (pass->again != NULL)
		{
			keys->identities = pass->again;
			pass->again = NULL;
			count = limit;
		}
		pass->current++;
	}
	return count >= limit;
}

/*
 * Leave out keys of rows that are in the batch by a name of before.  Names
 * that the pass collected itself are apart from its keys already.
 */
static void
drop_double_keys(SynchroBatch *batch)
{
	ListCell   *cell;
	ListCell   *other;

	batch->named = NIL;
	foreach(cell, batch->olds->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);
		SynchroIdentities *named;
		SynchroChangedKey key;

		if (changed->nolds == 0)
			continue;
		named = synchro_identities_create(changed->table);
		while (synchro_changes_next_old(changed, &key))
			synchro_identities_decode(named, changed->table, key.identity);
		{
			SynchroBatchKeys *renamed = palloc(sizeof(SynchroBatchKeys));

			renamed->relid = changed->relid;
			renamed->identities = named;
			batch->named = lappend(batch->named, renamed);
		}
		foreach(other, batch->keys)
		{
			SynchroBatchKeys *keys = lfirst(other);

			if (keys->relid == changed->relid)
				synchro_identities_subtract(keys->identities, named);
		}
	}
	synchro_changes_rewind(batch->olds);
}

/*
 * One local transaction that reads the batch, or as many as it takes until
 * all is known about its tables.
 */
static void
read_batch(SynchroPass *pass, SynchroBatch *batch, bool new_keys, bool *more)
{
	for (;;)
	{
		bool		shared = pass->shared;
		bool		ready;

		CHECK_FOR_INTERRUPTS();
		pass->shared = false;
		if (!shared)
			synchro_local_begin_locked("synchro: reading changed rows", synchro_log_lock);
		MemoryContextSwitchTo(pass->batch_context);
		batch->olds = shared ? pass->changes : collect_olds(pass);
		ready = synchro_batch_describe(batch);
		if (ready)
		{
			if (new_keys)
				*more = take_keys(pass, batch);
			new_keys = false;
			if (!shared)
				drop_double_keys(batch);
			batch->snapshot = *more ? NULL : pass->snapshot;
			ready = synchro_batch_describe(batch);
		}
		if (ready)
		{
			if (pass->link->peer_node != NULL)
				batch->seen = synchro_position_of_peer(pass->link->peer_node);
			synchro_batch_read(batch);
		}
		MemoryContextSwitchTo(pass->batch_context);
		synchro_local_commit();
		MemoryContextSwitchTo(pass->batch_context);
		if (!shared)
			synchro_changes_free(batch->olds);
		batch->olds = NULL;
		if (ready)
			return;
		synchro_staging_prepare(pass->link);
	}
}

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

			if (parked != NULL && !parked->banned)
				healed = list_append_unique_ptr(healed, parked);
		}
	}
	return healed;
}

/*
 * What was parked has been applied with the batch, or has failed once more.
 * A crash before this is noted only has it tried again.
 */
static void
note_parked(SynchroPass *pass, SynchroBatch *batch, List *leftovers)
{
	List	   *healed = NIL;

	if (pass->parked->count > 0)
		healed = add_healed(pass, add_healed(pass, NIL, batch->keys), batch->named);
	if (healed == NIL && batch->undeleted == NIL && (!pass->parked->has_deletes || leftovers == NIL))
		return;
	synchro_local_begin("synchro: noting what has failed");
	if (healed != NIL)
		synchro_parked_heal(pass->parked, healed);
	if (leftovers != NIL)
		synchro_parked_put_deletes(pass->parked, leftovers, batch->undeleted);
	synchro_local_commit();
	MemoryContextSwitchTo(pass->batch_context);
}

/*
 * Tables that had stalled have been pushed with the batch: their names of
 * before, or all that there was.  A crash before this is noted has the next
 * batch, before any other, send the same again.
 */
static void
note_stalled(SynchroPass *pass, const SynchroBatch *batch)
{
	bool		any = false;
	ListCell   *cell;

	foreach(cell, pass->stalled)
	{
		const SynchroStalled *stalled = lfirst(cell);

		any |= stalled->due && (batch->snapshot != NULL || stalled->named != NULL);
	}
	if (!any)
		return;
	synchro_local_begin("synchro: noting what has been mended");
	synchro_stalled_sent(pass->link->target->name, pass->stalled, batch->snapshot != NULL);
	synchro_local_commit();
	MemoryContextSwitchTo(pass->batch_context);
}

static void
acknowledge(SynchroPass *pass, SynchroBatch *batch, const char *token)
{
	SynchroPosition *position = pass->position;
	MemoryContext old;

	/* before it counts as done: a crash in between repeats the batch */
	if (batch->anew != NIL)
	{
		synchro_local_begin("synchro: queuing rows that follow others");
		MemoryContextSwitchTo(pass->batch_context);
		synchro_followers_queue(pass->link, batch->anew);
		synchro_local_commit();
		MemoryContextSwitchTo(pass->batch_context);
	}
	synchro_position_acknowledge(pass->link->target->name, token, batch->snapshot,
								 batch->keys_snapshot, pass->started, &batch->counts);
	note_stalled(pass, batch);
	note_parked(pass, batch, batch->snapshot == NULL ? NIL : batch->apart ? batch->kept : pass->link->leftovers);
	old = MemoryContextSwitchTo(pass->link->context);
	position->acknowledged = pstrdup(token);
	position->keys_snapshot = pstrdup(batch->keys_snapshot);
	if (batch->snapshot != NULL)
		position->snapshot = pstrdup(batch->snapshot);
	position->forget_references = false;
	if (batch->snapshot != NULL)
		pass->link->leftovers = NIL;
	else
	{
		ListCell   *cell;

		/* this batch may have left deletes of each of its tables */
		foreach(cell, pass->link->tables)
		{
			SynchroLinkTable *lt = lfirst(cell);

			if (lt->nolds > 0 && lt->table->watched)
				pass->link->leftovers = lappend(pass->link->leftovers,
												pstrdup(lt->table->qualified));
		}
	}
	MemoryContextSwitchTo(old);
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
	batch->max_olds = PG_INT64_MAX;
	return batch;
}

/*
 * Read a batch and apply it, again where that helps.  Returns NULL when it is
 * done and acknowledged, or what must be left out.
 */
static SynchroRemoteError *
push(SynchroPass *pass, SynchroBatch *batch, bool new_keys, bool *more)
{
	int			retries = 0;

	for (;;)
	{
		SynchroRemoteError *error;
		char	   *token;

		read_batch(pass, batch, new_keys, more);
		new_keys = false;
		token = synchro_position_attempt(pass->link->target->name, pass->position->attempted);
		pass->position->attempted = MemoryContextStrdup(pass->link->context, token);
		pgstat_report_activity(STATE_RUNNING, "synchro: applying a batch on the remote");
		error = synchro_batch_apply(batch, token, true);
		if (error == NULL)
		{
			acknowledge(pass, batch, token);
			synchro_link_clear_batch(pass->link);
			return NULL;
		}
		if (!synchro_quarantine_again(pass, batch, error, &retries))
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

	return push(pass, batch, false, &more);
}

/*
 * Apply a batch of given keys without committing it.
 */
SynchroRemoteError *
synchro_pass_try(SynchroPass *pass, SynchroBatch *batch)
{
	bool		more = true;

	read_batch(pass, batch, false, &more);
	return synchro_batch_apply(batch, pass->position->attempted, false);
}

/*
 * Push one batch.  Returns whether there are more.
 */
static bool
run_batch(SynchroPass *pass)
{
	SynchroBatch *batch;
	SynchroRemoteError *error;
	bool		more = false;

	MemoryContextReset(pass->batch_context);
	MemoryContextSwitchTo(pass->batch_context);
	if (!pass->shared)
		synchro_clocklink_refresh(pass->link);
	batch = synchro_pass_batch(pass);
	error = push(pass, batch, true, &more);
	if (error != NULL)
		synchro_division_push(pass, batch, error, !more);
	publish_progress(pass, batch);
	return more;
}

/*
 * Push all that is pending for the link's remote.
 *
 * position: as synchro_peer_open() left it; moved on here.  all_due: try what
 * has failed before whatever the time for that.  Errors of the
 * remote are raised as ours; what batches before have committed stays.  If
 * the result is unfinished, the link is not to be used any more, or the remote
 * no longer wanted; another pass goes on.
 */
void
synchro_pass_run(SynchroLink *link, SynchroPosition *position, bool all_due, SynchroPassResult *result)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro pass",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SynchroPass *pass = palloc0(sizeof(SynchroPass));

	pass->context = context;
	pass->link = link;
	pass->position = position;
	pass->all_due = all_due;
	pass->batch_context = AllocSetContextCreate(context, "synchro pass batch",
												ALLOCSET_DEFAULT_SIZES);
	collect(pass);
	memset(result, 0, sizeof(*result));
	if (pass->changes->nkeys > 0 || pass->changes->nolds > 0 || link->leftovers != NIL || any_due(pass->stalled))
	{
		result->had_changes = true;
		synchro_shared_publish_progress("pushing", InvalidOid, 0, pass->changes->nkeys);
		while (run_batch(pass))
		{
			CHECK_FOR_INTERRUPTS();

			/* an altered server, or pause(), counts from the next batch on */
			result->unfinished = synchro_link_is_outdated(link) || !synchro_shared_wanted();
			if (result->unfinished)
				break;
		}
	}
	else if (pass->changes->nentries > 0 && !position->rebased)
		synchro_position_skip(link->target->name, position, pass->snapshot, pass->started);
	result->counts = pass->counts;
	if (pass->parked->count > 0 || pass->parked->has_deletes || pass->stalled != NIL || pass->counts.failed > 0)
	{
		synchro_local_begin("synchro: looking at what has failed");
		(void) synchro_parked_next(link->target->name, &result->next_retry);
		synchro_local_commit();
	}
	MemoryContextSwitchTo(old);
	synchro_changes_free(pass->changes);
	MemoryContextDelete(context);
}
