/*-------------------------------------------------------------------------
 *
 * parking.c
 *	  Rows that the remote refuses, as they are parked: by which name, and as what.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "applysql.h"
#include "claimed.h"
#include "clock.h"
#include "localsql.h"
#include "passwork.h"

/*
 * Park a change that the remote has refused.  In a local transaction.  What
 * there is of it is in failure, but for the reason.  name: by which a preview
 * shows it, or NULL.  Returns it as it is kept, or NULL.
 */
static SynchroParked *
park(SynchroPass *pass, Oid relid, SynchroFailure *failure, const SynchroRemoteError *error, const char *name)
{
	const SynchroTable *table = synchro_table_get(relid, true);
	SynchroParked *parked;

	if (table == NULL)
		return NULL;
	failure->table = synchro_table_copy(table, CurrentMemoryContext);
	failure->origin = &synchro_source_find(pass->changes->sources, failure->stamp.source)->origin;
	synchro_parking_describe(pass, error, failure);
	if (pass->link->preview == NULL)
		parked = synchro_parked_put(pass->parked, failure);
	else
	{
		SynchroIdentities identity = {failure->table->nidentity, 1, 1, failure->identity};
		MemoryContext old;

		parked = synchro_parked_keep(pass->parked, failure);
		old = MemoryContextSwitchTo(pass->parked->context);
		parked->name = name != NULL ? pstrdup(name) : synchro_identities_text(&identity, 0);
		parked->reason = synchro_preview_reason(failure->sqlstate, failure->message);
		MemoryContextSwitchTo(old);
	}
	pass->counts.failed++;
	return parked;
}

/*
 * What a preview calls a row that has failed: by its natural key, if it is
 * here and the remote's tables can hold it; else NULL.  Waits for the network.
 */
static char *
name_of(SynchroPass *pass, Oid relid, const SynchroIdentities *identities, int position)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext whole = pass->batch_context;
	SynchroRowStamp unknown = {{0}};
	SynchroIdentities one = {identities->nidentity, 1, 1, &identities->values[position * identities->nidentity], &unknown};
	SynchroBatchKeys keys = {relid, &one};
	SynchroBatch *batch;
	char	   *name;
	bool		more = true;

	if (pass->link->preview == NULL)
		return NULL;
	pass->batch_context = AllocSetContextCreate(whole, "synchro name", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(pass->batch_context);
	batch = synchro_pass_batch(pass);
	batch->keys = list_make1(&keys);
	batch->ensured = NIL;
	batch->max_olds = 0;
	name = synchro_pass_read(pass, batch, false, &more) == NULL ? synchro_batch_name(batch) : NULL;
	if (name != NULL)
		name = MemoryContextStrdup(context, name);
	MemoryContextSwitchTo(context);
	MemoryContextDelete(pass->batch_context);
	pass->batch_context = whole;
	return name;
}

/*
 * The same of a row with a name of before.
 */
static char *
name_of_old(SynchroPass *pass, const SynchroBatchOld *old)
{
	MemoryContext context = CurrentMemoryContext;
	const SynchroTable *table;
	SynchroIdentities *identities = NULL;

	if (pass->link->preview == NULL)
		return NULL;
	synchro_local_begin("synchro: looking up a name");
	MemoryContextSwitchTo(context);
	table = synchro_table_get(old->relid, true);
	if (table != NULL)
	{
		identities = synchro_identities_create(table);
		synchro_identities_decode(identities, table, old->key.identity);
	}
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	return identities != NULL ? name_of(pass, old->relid, identities, 0) : NULL;
}

/*
 * Park a row with a name of before that the remote has refused.  shared: the
 * error is that of all that was tried with it.  Returns it as it is kept, or NULL.
 *
 * One that is known by reference, and has another identity now, is parked under
 * that: the rest of the pass has its reference follow (read_olds() in batcholds.c), of
 * which nothing is refused.  Else what is gone here would be gone there, too, with all
 * that refers to it.
 *
 * If the name is another one's, who had the row's identity, or nobody's, it goes
 * along all the same, and the row has none: see leave_out_others() in batcholds.c.
 */
SynchroParked *
synchro_parking_old(SynchroPass *pass, const SynchroBatchOld *old, const SynchroRemoteError *error, bool shared)
{
	MemoryContext context = CurrentMemoryContext;
	const SynchroTable *table;
	bool		by_reference;
	bool		is_there = old->key.kind == SYNCHRO_KIND_OLD[0];
	SynchroFailure failure = {0};
	SynchroParked *parked = NULL;
	SynchroParked *known;
	char	   *name = name_of_old(pass, old);

	synchro_local_begin("synchro: parking what has failed");
	table = synchro_table_get(old->relid, true);
	if (table != NULL)
	{
		by_reference = table->mode == SYNCHRO_MODE_REFERENCE;
		failure.identity = synchro_identities_values(table, table->identity, table->nidentity, old->key.identity);
		known = synchro_parked_find(pass->parked, old->relid, failure.identity, table->nidentity);
		failure.moves = by_reference && is_there && !synchro_bytes_equal(old->key.name, old->key.identity);
		failure.op = is_there && (!by_reference || failure.moves) ? SYNCHRO_OP_UPDATE : SYNCHRO_OP_DELETE;
		failure.has_old = old->key.name.data != NULL && !by_reference;
		if (!is_there && table->watched)
		{
			bool		is_new = old->key.kind == SYNCHRO_KIND_DEAD[0] || old->key.born != 0;

			failure.op = is_new && !synchro_claimed_has(pass->claimed, table, failure.identity) ? SYNCHRO_OP_INSERT : SYNCHRO_OP_UPDATE;
			failure.has_old = false;
		}
		failure.old = old->key.name;
		failure.stamp = old->key.changed;
		failure.shared = shared;
		if (known == NULL || !known->banned)
			parked = park(pass, old->relid, &failure, error, name);
		else if (!shared)
			known->others_banned = true;
	}
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	return parked;
}

/*
 * Park a change of a row that the remote has refused.  dead: the delete that is
 * sent again with it, or NULL.  shared: the error is that of all that was tried
 * with it.  Returns it as it is kept, or NULL.
 */
SynchroParked *
synchro_parking_key(SynchroPass *pass, const SynchroBatchKeys *keys, int position,
					const SynchroBatchDead *dead, const SynchroRemoteError *error, bool shared)
{
	const SynchroIdentities *identities = keys->identities;
	MemoryContext context = CurrentMemoryContext;
	SynchroFailure failure = {0};
	SynchroParked *parked;
	const SynchroTable *table;
	bool		is_new = false;
	char	   *name = name_of(pass, keys->relid, identities, position);

	failure.identity = &identities->values[position * identities->nidentity];
	failure.op = SYNCHRO_OP_UPDATE;
	failure.ensured = keys->ensure;
	failure.shared = shared;
	if (identities->stamps != NULL)
	{
		failure.stamp = identities->stamps[position].changed;
		is_new = identities->stamps[position].born > SYNCHRO_BORN_LONG_AGO;
	}
	if (dead != NULL)
	{
		failure.op = SYNCHRO_OP_DELETE;
		failure.has_old = true;
		failure.old = dead->key.name;
	}
	synchro_local_begin("synchro: parking what has failed");
	if (failure.stamp.at == 0)
		failure.stamp.at = synchro_clock_now();
	table = is_new && dead == NULL ? synchro_table_get(keys->relid, true) : NULL;
	if (table != NULL && !synchro_claimed_has(pass->claimed, table, failure.identity))
		failure.op = SYNCHRO_OP_INSERT;
	parked = park(pass, keys->relid, &failure, error, name);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	return parked;
}

/*
 * In a preview, note why rows wait for others which are called by them.
 */
static void
show_held(SynchroPass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->parked->context);
	ListCell   *cell;

	foreach(cell, pass->parked->held)
	{
		const SynchroFailure *failure = lfirst(cell);
		SynchroIdentities identity = {failure->table->nidentity, 1, 1, failure->identity};
		SynchroParked *parked = synchro_parked_find(pass->parked, failure->table->relid, failure->identity, failure->table->nidentity);

		parked->name = synchro_identities_text(&identity, 0);
		parked->reason = synchro_preview_reason(failure->sqlstate, failure->message);
	}
	pass->parked->held = NIL;
	MemoryContextSwitchTo(old);
}

/*
 * Save the names that rows have lost since they failed in this pass.  What a
 * preview has parked is nowhere else.
 */
void
synchro_parking_save_names(SynchroPass *pass)
{
	pass->counts.failed += list_length(pass->parked->held);
	if (pass->link->preview != NULL)
		show_held(pass);
	else if (pass->parked->unsaved != NIL || pass->parked->held != NIL)
	{
		synchro_local_begin("synchro: keeping what has failed");
		synchro_parked_save_names(pass->parked);
		synchro_local_commit();
		MemoryContextSwitchTo(pass->batch_context);
	}
}
