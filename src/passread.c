/*-------------------------------------------------------------------------
 *
 * passread.c
 *	  What a pass pushes: collected, put in order, taken batch by batch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "applysql.h"
#include "claimed.h"
#include "localsql.h"
#include "order.h"
#include "passwork.h"
#include "settings.h"
#include "staging.h"
#include "stalled.h"

/* names of before that are looked at by themselves if a batch is about definitions */
#define FEW_OLDS	3

static void order_tables(SynchroPass *pass);

/*
 * Have deletes tried again that wait on the remote.
 */
static void
add_due_deletes(SynchroPass *pass)
{
	ListCell   *cell;

	foreach(cell, pass->parked->deletes)
		synchro_link_add_leftover(pass->link, lfirst(cell));
}

/*
 * Deletes of tables that have stalled wait with them.
 */
void
synchro_pass_leave_out_leftovers(SynchroPass *pass)
{
	MemoryContext context = CurrentMemoryContext;
	ListCell   *cell;

	if (pass->stalled == NIL)
		return;
	synchro_local_begin("synchro: looking at what has stalled");
	foreach(cell, pass->link->leftovers)
		if (synchro_stalled_waits(pass->stalled, synchro_table_by_name(lfirst(cell))))
			pass->link->leftovers = foreach_delete_current(pass->link->leftovers, cell);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

static void
leave_out_stalled(SynchroPass *pass)
{
	ListCell   *cell;

	if (synchro_stalled_any_due(pass->stalled))
		synchro_peer_find_leftovers(pass->link);
	synchro_pass_leave_out_leftovers(pass);
	foreach(cell, pass->stalled)
		pass->counts.failed += ((SynchroStalled *) lfirst(cell))->due ? 0 : 1;
}

/*
 * Tables that a preview has met an error with are left out, as those are that
 * have stalled and are not due.
 */
static void
leave_out_of_preview(SynchroPass *pass)
{
	ListCell   *cell;

	foreach(cell, pass->link->preview->stalled)
	{
		Oid			relid = ((SynchroPreviewRow *) lfirst(cell))->relid;
		SynchroStalled *stalled = synchro_stalled_find(pass->stalled, relid);

		if (stalled == NULL)
		{
			stalled = palloc0(sizeof(SynchroStalled));
			stalled->relid = relid;
			pass->stalled = lappend(pass->stalled, stalled);
		}
		stalled->due = false;
	}
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
	return pass->chunk == NULL && pass->extras == NIL &&
		(!pass->position->rebased || strcmp(pass->position->snapshot, pass->position->keys_snapshot) == 0) &&
		(pass->changes->nkeys > 0 || pass->changes->nolds > 0) &&
		pass->changes->nagain == 0 && pass->parked->count == 0 && pass->stalled == NIL &&
		pass->link->leftovers == NIL && pass->link->peer_node == NULL;
}

/*
 * Take S1 and collect what is new.  A local transaction, which is left open if
 * the first batch is read in it, too.
 */
void
synchro_pass_collect(SynchroPass *pass)
{
	SynchroSqlScope scope;
	SynchroSnapshot *since = synchro_snapshot_parse(pass->position->snapshot);
	SynchroSnapshot *named = synchro_snapshot_parse(pass->position->keys_snapshot);
	SynchroMoreKeys more = {synchro_copychunk_scan};

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
	pass->stalled = synchro_stalled_load(pass->link->target->name, pass->all_due, pass->just_stalled,
										 pass->link->preview == NULL ? pass->position->keys_snapshot : NULL);
	if (pass->link->preview != NULL)
		leave_out_of_preview(pass);
	synchro_pass_choose_copy(pass);
	more.arg = pass->chunk;
	pass->changes = synchro_changes_collect(since, named, pass->link->target->name, pass->parked,
											pass->stalled, pass->copies, pass->link->peer_node, true,
											pass->chunk != NULL ? &more : NULL);
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
collect_olds(SynchroPass *pass, const char *keys_snapshot)
{
	SynchroSqlScope scope;
	SynchroChangeSet *olds;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	MemoryContextSwitchTo(pass->batch_context);
	olds = synchro_changes_collect(synchro_snapshot_parse(keys_snapshot), NULL, NULL, pass->parked, pass->stalled, pass->copies, pass->link->peer_node, false, NULL);
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
	dead->alone = key->kind == SYNCHRO_KIND_GONE[0];
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

	/* of a name that is gone, the row is here on its own account, if at all */
	if (key->kind == SYNCHRO_KIND_GONE[0])
	{
		add_dead(batch, changed->relid, identity, table->nidentity, key);
		return true;
	}
	if (key->name.data == NULL && !pass->atomic &&
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
take_some_keys(SynchroPass *pass, SynchroBatch *batch)
{
	int			count = 0;
	int			limit = pass->atomic ? PG_INT32_MAX : pass->batch_rows;

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
			count += take_key(pass, batch, keys, changed, &key) ? 1 : 0;
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

static bool
take_keys(SynchroPass *pass, SynchroBatch *batch)
{
	bool		more;

	pass->taking = true;
	more = take_some_keys(pass, batch);
	pass->taking = false;
	return more;
}

/*
 * Look through a table's names of before, of which there may be any number, so
 * nothing is kept of most.  Rows of taken that have one are taken out of it.
 */
static SynchroBatchKeys *
look_through_olds(const SynchroPass *pass, SynchroChangedTable *changed, HTAB *taken)
{
	const SynchroTable *table = changed->table;
	int			nfresh = 0;
	SynchroBatchKeys *named = palloc0(sizeof(SynchroBatchKeys));
	MemoryContext name_context = AllocSetContextCreate(CurrentMemoryContext, "synchro name of before",
													   ALLOCSET_SMALL_SIZES);
	MemoryContext old;
	SynchroChangedKey key;

	named->relid = changed->relid;
	named->identities = synchro_identities_create(table);
	old = MemoryContextSwitchTo(name_context);
	while (synchro_changes_next_old(changed, &key))
	{
		char	  **identity = synchro_identities_values(table, table->identity, table->nidentity, key.identity);
		char	   *row = synchro_identity_key(identity, table->nidentity);

		CHECK_FOR_INTERRUPTS();
		(void) hash_search(taken, &row, HASH_REMOVE, NULL);
		if (synchro_parked_find(pass->parked, changed->relid, identity, table->nidentity) != NULL || nfresh++ < FEW_OLDS)
		{
			MemoryContextSwitchTo(old);
			synchro_identities_decode(named->identities, table, key.identity);
			synchro_identities_stamp(named->identities, key.changed, key.born);
			MemoryContextSwitchTo(name_context);
		}
		MemoryContextReset(name_context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(name_context);
	return named;
}

/*
 * Leave out keys of rows that are in the batch by a name of before, but for a
 * batch that has no such names: it only tries its keys as they are.  Names
 * that the pass collected itself are apart from its keys already.
 */
static void
drop_double_keys(const SynchroPass *pass, SynchroBatch *batch)
{
	ListCell   *cell;
	ListCell   *other;

	batch->named = NIL;
	foreach(cell, batch->olds->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);
		MemoryContext taken_context;
		MemoryContext old;
		HTAB	   *taken;

		if (changed->nolds == 0)
			continue;
		taken_context = AllocSetContextCreate(CurrentMemoryContext, "synchro taken keys", ALLOCSET_DEFAULT_SIZES);
		old = MemoryContextSwitchTo(taken_context);
		taken = synchro_string_set(taken_context);
		foreach(other, batch->keys)
		{
			const SynchroBatchKeys *keys = lfirst(other);

			if (keys->relid == changed->relid)
				synchro_identities_enter(keys->identities, taken);
		}
		MemoryContextSwitchTo(old);
		batch->named = lappend(batch->named, look_through_olds(pass, changed, taken));
		foreach(other, batch->keys)
		{
			SynchroBatchKeys *keys = lfirst(other);

			if (keys->relid == changed->relid && batch->max_olds > 0)
				synchro_identities_intersect(keys->identities, taken);
		}
		MemoryContextDelete(taken_context);
	}
	synchro_changes_rewind(batch->olds);
}

/*
 * Has a row of some keys failed in this pass by a name of before, with which it waits?
 * Not if it is new: that name is not its on the remote, unless it has claimed another
 * one's.
 */
static bool
waits_with_name(const SynchroPass *pass, const SynchroBatchKeys *keys, int position)
{
	const SynchroIdentities *identities = keys->identities;
	char	  **identity = &identities->values[position * identities->nidentity];
	const SynchroParked *parked = synchro_parked_find(pass->parked, keys->relid, identity, identities->nidentity);
	const SynchroTable *table;

	if (parked == NULL || !parked->banned || !parked->has_name)
		return false;
	if (identities->stamps == NULL || identities->stamps[position].born <= SYNCHRO_BORN_LONG_AGO)
		return true;
	table = synchro_table_get(keys->relid, true);
	return table != NULL && synchro_claimed_has(pass->claimed, table, identity);
}

/*
 * Leave out keys of such rows, which were renamed before their turn has come.  What is
 * parked of them says all that there is to be done, and as what: by what they are
 * called now they would be made there a second time, or be parked without that name.
 */
static void
drop_waiting_keys(const SynchroPass *pass, SynchroBatch *batch)
{
	ListCell   *cell;

	if (pass->parked->count == 0 || batch->max_olds == 0)
		return;
	foreach(cell, batch->keys)
	{
		SynchroBatchKeys *keys = lfirst(cell);
		int			n = keys->identities->nidentity;
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro waiting keys", ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);
		HTAB	   *waiting = synchro_string_set(context);

		for (int i = 0; i < keys->identities->count; i++)
			if (waits_with_name(pass, keys, i))
			{
				char	   *row = synchro_identity_key(&keys->identities->values[i * n], n);

				(void) hash_search(waiting, &row, HASH_ENTER, NULL);
			}
		MemoryContextSwitchTo(old);
		if (hash_get_num_entries(waiting) > 0)
			synchro_identities_subtract(keys->identities, waiting);
		MemoryContextDelete(context);
	}
}

/*
 * One local transaction that reads the batch.  Returns false if the remote has
 * to be asked first about tables of it.
 *
 * keys_snapshot: names on the remote are as of then.  taken: have the batch's
 * keys been taken?  If not, they are now, and *more is set.  *error: set to NULL,
 * or to that of a row which cannot be read.
 */
static bool
read_once(SynchroPass *pass, SynchroBatch *batch, const char *keys_snapshot, bool *taken, bool *more,
		  SynchroRemoteError **error)
{
	bool		shared = pass->shared;
	bool		ready;

	CHECK_FOR_INTERRUPTS();
	*error = NULL;
	pass->shared = false;
	if (!shared)
		synchro_local_begin_locked("synchro: reading changed rows", synchro_log_lock);
	MemoryContextSwitchTo(pass->batch_context);
	batch->olds = shared ? pass->changes : collect_olds(pass, keys_snapshot);
	ready = synchro_batch_describe(batch);
	if (ready)
	{
		if (!*taken)
			*more = take_keys(pass, batch);
		*taken = true;
		if (!shared)
			drop_double_keys(pass, batch);
		drop_waiting_keys(pass, batch);
		batch->snapshot = *more ? NULL : pass->snapshot;
		batch->moved = NIL;
		if (!shared)
			synchro_pass_collect_moved(pass, batch, keys_snapshot);
		ready = synchro_batch_describe(batch);
	}
	if (ready)
	{
		if (pass->link->peer_node != NULL)
			batch->seen = synchro_position_of_peer(pass->link->peer_node, &batch->named_there);
		*error = synchro_unreadable_read(batch);

		/* if one of them is found none goes straight any more */
		if (*error == NULL && batch->straight != NULL && batch->straight->rows != NULL)
			pass->looked_for = batch->straight->table->relid;
	}
	MemoryContextSwitchTo(pass->batch_context);
	synchro_local_commit();
	MemoryContextSwitchTo(pass->batch_context);
	if (!shared)
		synchro_changes_free(batch->olds);
	batch->olds = NULL;
	return ready;
}

/*
 * Read a batch, by as many local transactions as it takes until all is known
 * about its tables.  Returns NULL, or the error of a row that cannot be read: then
 * there is nothing to be applied.
 */
SynchroRemoteError *
synchro_pass_read(SynchroPass *pass, SynchroBatch *batch, bool new_keys, bool *more)
{
	bool		taken = !new_keys;
	SynchroRemoteError *error;

	while (!read_once(pass, batch, pass->position->keys_snapshot, &taken, more, &error))
		synchro_staging_prepare(pass->link);
	return error;
}

/*
 * Can the batch that comes after the one at hand be read while the remote
 * applies that?
 *
 * It carries the changes of names since the keys snapshot of the one before,
 * as it would if it were read later, and is thrown away if that one fails.
 * Not where what becomes of the one before counts for reading the next: where
 * something has failed or is put off, deletes are left to the last batch, or
 * the remote decides.
 */
bool
synchro_pass_may_read_ahead(const SynchroPass *pass)
{
	const SynchroLink *link = pass->link;
	ListCell   *cell;

	if (pass->chunk != NULL || pass->extras != NIL || pass->stalled != NIL || pass->parked->count > 0 ||
		pass->parked->has_deletes || link->leftovers != NIL || link->peer_node != NULL || link->preview != NULL)
		return false;
	foreach(cell, link->tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (lt->nolds > 0 || lt->all_names)
			return false;
	}
	return true;
}

/*
 * Read the next batch while the remote applies one.  Raises no error but where
 * keys would be lost: what is wrong with the rows shows when they are read in
 * their turn.
 */
void
synchro_pass_read_ahead(SynchroPass *pass, const SynchroBatch *sent)
{
	MemoryContext whole = pass->batch_context;
	SynchroBatch *next;

	MemoryContextReset(pass->next_context);
	pass->batch_context = pass->next_context;
	MemoryContextSwitchTo(pass->batch_context);
	next = synchro_pass_new_batch(pass);
	pass->next_is_taken = pass->next_is_read = false;
	PG_TRY();
	{
		SynchroRemoteError *error;

		pass->next_is_read = read_once(pass, next, sent->keys_snapshot, &pass->next_is_taken, &pass->next_has_more, &error) && error == NULL;
	}
	PG_CATCH();
	{
		if (pass->taking || geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		synchro_suspect(InvalidOid);
		if (next->olds != NULL)
			synchro_changes_free(next->olds);
		next->olds = NULL;
	}
	PG_END_TRY();
	pass->next = pass->next_is_taken ? next : NULL;
	elog(DEBUG1, "synchro: %s the next batch ahead", pass->next_is_read ? "has read" : "could not read");
	pass->batch_context = whole;
	MemoryContextSwitchTo(whole);
}
