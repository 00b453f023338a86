/*-------------------------------------------------------------------------
 *
 * batchguard.c
 *	  Rows that are not to go along with what a batch deletes: which they are.
 *	  (header: batch.h)
 *
 * These are rows that may still refer on the remote to what is deleted, though
 * they were moved away from it here: since that was refused, or is left to the next
 * pass.  guardsql.c keeps them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "applysql.h"
#include "batch.h"
#include "requests.h"
#include "stalled.h"

/*
 * Tables of which the batch deletes rows, or may do so: list of oids.  That is for
 * the pass's last one.
 */
List *
synchro_batch_deleted_tables(const SynchroBatch *batch)
{
	List	   *result = NIL;
	ListCell   *cell;

	if (batch->snapshot == NULL)
		return NIL;
	foreach(cell, batch->olds->tables)
		if (((SynchroChangedTable *) lfirst(cell))->nolds > 0)
			result = list_append_unique_oid(result, ((SynchroChangedTable *) lfirst(cell))->relid);
	foreach(cell, batch->link->leftovers)
		result = list_append_unique_oid(result, synchro_table_by_name(lfirst(cell)));
	foreach(cell, batch->dead)
		result = list_append_unique_oid(result, ((SynchroBatchDead *) lfirst(cell))->relid);
	foreach(cell, batch->extras)
		result = list_append_unique_oid(result, ((SynchroCopy *) lfirst(cell))->relid);
	return result;
}

static bool
refers_to_any(Oid relid, const List *deleted, List **seen)
{
	const SynchroTable *table;
	List	   *parents = NIL;
	ListCell   *cell;

	if (list_member_oid(*seen, relid))
		return false;
	*seen = lappend_oid(*seen, relid);
	table = synchro_table_get(relid, true);

	/* the description may be made anew while others are got */
	for (int fk = 0; table != NULL && fk < table->nfks; fk++)
		parents = list_append_unique_oid(parents, table->fks[fk].parent);
	foreach(cell, parents)
		if (list_member_oid(deleted, lfirst_oid(cell)) || refers_to_any(lfirst_oid(cell), deleted, seen))
			return true;
	return false;
}

/*
 * May rows of a table go along with what is deleted from others, since they refer
 * to that, or to what does?
 */
bool
synchro_batch_goes_along(Oid relid, const List *deleted)
{
	List	   *seen = NIL;

	return refers_to_any(relid, deleted, &seen);
}

/*
 * Tables of which rows wait, or are left to the next pass, that might go along with what the batch deletes, as
 * they may still refer to that there.
 */
List *
synchro_batch_guarded_tables(const SynchroBatch *batch)
{
	List	   *result = NIL;
	List	   *deleted = batch->parked->count > 0 || batch->moved != NIL ? synchro_batch_deleted_tables(batch) : NIL;
	List	   *tables;
	ListCell   *cell;

	if (deleted == NIL)
		return NIL;
	tables = synchro_parked_tables(batch->parked);
	foreach(cell, batch->moved)
		tables = list_append_unique_oid(tables, ((SynchroBatchKeys *) lfirst(cell))->relid);
	foreach(cell, tables)
	{
		const SynchroTable *table = synchro_table_get(lfirst_oid(cell), true);

		if (table != NULL && table->watched && table->mode != SYNCHRO_MODE_NONE && !synchro_stalled_waits(batch->stalled, table->relid) &&
			synchro_batch_goes_along(lfirst_oid(cell), deleted))
			result = lappend_oid(result, lfirst_oid(cell));
	}
	return result;
}

/*
 * Rows that wait are named, so that what is deleted does not take them along: see
 * guardsql.c.  What they were called before, where that is what the remote calls
 * them, comes with all that the batch has of the table (read_waiting() of batchread.c).
 */
void
synchro_batch_read_guarded(SynchroBatch *batch)
{
	ListCell   *cell;
	ListCell   *other;

	batch->guarded = NIL;
	foreach(cell, synchro_batch_guarded_tables(batch))
	{
		SynchroLinkTable *lt = synchro_link_table(batch->link, lfirst_oid(cell), false);
		SynchroIdentities *waiting = synchro_parked_updates(batch->parked, lt->table, false);
		SynchroIdentities *renamed = synchro_parked_updates(batch->parked, lt->table, true);
		SynchroGuarded *guarded;
		char	   *rows;
		MemoryContext old;

		batch->names_waiting |= waiting->count > 0 || renamed->count > 0;
		foreach(other, batch->moved)
		{
			const SynchroBatchKeys *moved = lfirst(other);

			for (int i = 0; moved->relid == lt->table->relid && i < moved->identities->count; i++)
				synchro_identities_add(waiting, &moved->identities->values[i * waiting->nidentity]);
		}
		if (waiting->count + renamed->count == 0)
			continue;
		lt->involved = true;
		synchro_request_names(batch->link, lt, waiting);
		old = MemoryContextSwitchTo(GetMemoryChunkContext(batch));
		rows = synchro_sql_identity_rows(lt->table, list_make2(waiting, renamed));
		if (rows != NULL)
		{
			guarded = palloc(sizeof(SynchroGuarded));
			guarded->lt = lt;
			guarded->rows = rows;
			batch->guarded = lappend(batch->guarded, guarded);
		}
		MemoryContextSwitchTo(old);
	}
}
