/*-------------------------------------------------------------------------
 *
 * batcholds.c
 *	  Names of before that a batch carries: which, and the rows that bore them.
 *	  (header: batch.h)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "applysql.h"
#include "batch.h"
#include "reader.h"
#include "rowstream.h"
#include "stalled.h"

/* names of before that are kept in memory at once */
#define OLD_ROWS		10000

/*
 * What lives as long as the batch.
 */
static void
note_old(SynchroBatch *batch, const SynchroChangedTable *changed, const SynchroChangedKey *old_name, SynchroBatchOld *noted)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(batch));

	noted->relid = changed->relid;
	noted->key = *old_name;
	noted->key.identity = synchro_key_copy(old_name->identity);
	if (old_name->name.data != NULL)
		noted->key.name = synchro_key_copy(old_name->name);
	MemoryContextSwitchTo(old);
}

/*
 * Count one of what can be refused of names of before.  False if only the first
 * ones are wanted, and it comes after them, or only those after some.
 */
static bool
count_old(SynchroBatch *batch, const SynchroChangedTable *changed, const SynchroChangedKey *old_name)
{
	if (batch->nolds >= batch->max_olds)
		return false;
	batch->nolds++;
	batch->olds_mark += (uint64) old_name->changed.at;
	if (batch->nolds <= batch->skipped_olds)
		return false;
	if (batch->nolds == batch->max_olds)
		note_old(batch, changed, old_name, &batch->last_old);
	if (batch->note_olds)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(batch));
		SynchroBatchOld *noted = palloc(sizeof(SynchroBatchOld));

		batch->all_olds = lappend(batch->all_olds, noted);
		MemoryContextSwitchTo(old);
		note_old(batch, changed, old_name, noted);
	}
	return true;
}

/*
 * Is a row with a name of before to be left out: because it has failed in
 * this pass, or only the first ones are wanted?  last: only those that come last
 * are wanted, or else only the others.
 */
static bool
leave_out_old(SynchroBatch *batch, const SynchroChangedTable *changed, const SynchroChangedKey *old_name,
			  const SynchroParked *parked, bool last)
{
	if (parked != NULL && parked->banned)
		return true;
	if ((parked != NULL && parked->alone > batch->olds_turn) != last)
		return true;
	return !count_old(batch, changed, old_name);
}

/*
 * Are names to be left out, too, that others bore which had the identity of a row
 * that is, or that nobody bears?  Not for that row's sake: they are not in the log
 * for the next pass, so that the others would stay on the remote.
 */
static bool
leave_out_others(SynchroBatch *batch, const SynchroChangedTable *changed, const SynchroChangedKey *old_name,
				 const SynchroParked *parked, bool last)
{
	return parked == NULL || !parked->banned || parked->others_banned || last || !changed->table->watched ||
		!count_old(batch, changed, old_name);
}

/*
 * Is a row left out that has failed in this pass, and has lost since what the
 * remote calls it?  One that the remote refused when it was new has no name there.
 */
static bool
loses_name(const SynchroParked *parked, const SynchroChangedTable *changed, const SynchroChangedKey *old_name)
{
	return parked->banned && !parked->has_name && old_name->kind == SYNCHRO_KIND_OLD[0] && changed->table->watched &&
		!synchro_parked_is_insert(parked, changed->table);
}

/*
 * Has a row known by reference come to the identity of one that has failed in this
 * pass?
 */
static bool
takes_identity(const SynchroParked *parked, const SynchroTable *table, const SynchroChangedKey *old_name)
{
	return parked != NULL && parked->banned && table->mode == SYNCHRO_MODE_REFERENCE &&
		old_name->kind == SYNCHRO_KIND_OLD[0] && !synchro_bytes_equal(old_name->name, old_name->identity);
}

/*
 * If the one that has failed was gone in an earlier batch, which did not tell the
 * remote, that is told now, as its reference becomes the other one's.  Returns
 * whether it is.
 */
static bool
tell_gone(SynchroBatch *batch, SynchroLinkTable *lt, const SynchroParked *parked, const SynchroChangedKey *old_name)
{
	SynchroChangedKey gone = *old_name;

	if (!parked->has_name)
		return false;
	gone.kind = SYNCHRO_KIND_DEAD[0];
	gone.name = old_name->identity;
	gone.named.at = synchro_parked_stamp(parked, lt->table).at;
	synchro_stream_old(batch->link, lt, &gone, batch->olds->sources);
	return true;
}

/*
 * Keep what the remote calls a row that has failed in this pass, if it has lost that
 * since.  Returns whether it did.
 */
bool
synchro_batch_keep_name(SynchroBatch *batch, SynchroParked *parked, const SynchroChangedTable *changed,
						const SynchroChangedKey *old_name)
{
	if (parked->moves || !loses_name(parked, changed, old_name))
		return false;
	synchro_parked_keep_name(batch->parked, parked, changed->table, old_name, batch->olds->sources);
	return parked->has_name;
}

/*
 * Names of before are in the log, so nothing but this asks whether the remote's
 * owner may read them.
 */
void
synchro_batch_require_rights(SynchroBatch *batch, const SynchroLinkTable *lt)
{
	synchro_suspect(lt->root);
	synchro_reader_require(batch->link->target->owner, lt->table, true);
	synchro_suspect(InvalidOid);
}

/*
 * Names of before, and the rows that bore them if they are still there.
 *
 * Of rows known by reference that have failed only the reference follows: whoever
 * has its identity of before by now is another row, and the remote's must not be
 * taken for that one's, nor go.  Likewise of a row that has taken the identity of one
 * that has failed: its values are in the log for the next pass.  Of others that have
 * failed, only the names of others go along, see leave_out_others(); what they are
 * called on the remote is kept, since to the next pass that is an old story.  last:
 * see leave_out_old().
 */
static void
read_olds(SynchroBatch *batch, SynchroChangedTable *changed, bool last)
{
	SynchroLinkTable *lt = synchro_link_table(batch->link, changed->relid, changed->table->watched);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro olds",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SynchroIdentities *identities = synchro_identities_create(lt->table);
	SynchroIdentities *moved = synchro_identities_create(lt->table);
	SynchroChangedKey old_name;
	SynchroBytes before = {0};
	SynchroParked *parked = NULL;
	bool		left_out = false;
	bool		only_moves = false;
	bool		told_gone = false;
	bool		others_seen = false;
	bool		others_left_out = false;

	synchro_batch_require_rights(batch, lt);
	while (synchro_changes_next_old(changed, &old_name))
	{
		SynchroBytes identity = old_name.identity;
		bool		same = before.data != NULL && synchro_bytes_equal(before, identity);

		CHECK_FOR_INTERRUPTS();
		if (!same)
		{
			bool		taken;

			parked = synchro_parked_find_key(batch->parked, changed->table, old_name.identity);
			taken = takes_identity(parked, changed->table, &old_name);
			only_moves = (taken || (parked != NULL && parked->banned && parked->moves)) && batch->max_olds > 0 && !last;
			left_out = !only_moves && leave_out_old(batch, changed, &old_name, parked, last);
			told_gone = taken && only_moves && tell_gone(batch, lt, parked, &old_name);
			if (taken && only_moves)
				synchro_parked_take_place(batch->parked, parked, changed->table, &old_name, batch->olds->sources);
			others_seen = false;
		}
		before = identity;
		if (left_out && parked != NULL && loses_name(parked, changed, &old_name))
			synchro_parked_keep_name(batch->parked, parked, changed->table, &old_name, batch->olds->sources);
		if (left_out && old_name.kind != SYNCHRO_KIND_OLD[0] && !others_seen)
		{
			others_left_out = leave_out_others(batch, changed, &old_name, parked, last);
			others_seen = true;
		}
		if (left_out && (old_name.kind == SYNCHRO_KIND_OLD[0] || others_left_out))
			continue;
		if (told_gone && old_name.kind == SYNCHRO_KIND_DEAD[0])
			continue;
		synchro_stream_old(batch->link, lt, &old_name, batch->olds->sources);
		lt->nrenamed += old_name.kind == SYNCHRO_KIND_OLD[0] ? 1 : 0;

		/* an identity may come several times, one after the other */
		if (!same && only_moves)
			synchro_identities_decode(moved, lt->table, identity);
		else if (!same && !left_out)
		{
			synchro_identities_decode(identities, lt->table, identity);
			synchro_identities_stamp(identities, old_name.changed, old_name.born);
		}
		if (identities->count == OLD_ROWS || moved->count == OLD_ROWS)
		{
			if (lt->table->watched)
				synchro_batch_read_changed(batch, lt, identities);
			synchro_stream_names_of(batch->link, lt, moved);
			Assert(CurrentMemoryContext == context);

			/* a name of before that comes next may be of the same identity */
			MemoryContextSwitchTo(old);
			before = synchro_key_copy(before);
			MemoryContextSwitchTo(context);
			MemoryContextReset(context);
			identities = synchro_identities_create(lt->table);
			moved = synchro_identities_create(lt->table);
		}
	}
	if (lt->table->watched)
		synchro_batch_read_changed(batch, lt, identities);
	synchro_stream_names_of(batch->link, lt, moved);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * Names of before of all tables.  last: see leave_out_old().
 */
void
synchro_batch_read_olds(SynchroBatch *batch, bool last)
{
	ListCell   *cell;

	foreach(cell, batch->olds->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		if (changed->nolds > 0 && synchro_table_get(changed->relid, true) != NULL)
			read_olds(batch, changed, last);
	}
}
