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

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "applysql.h"
#include "batch.h"
#include "requests.h"
#include "rowstream.h"
#include "stalled.h"

/*
 * Does the batch delete rows, or may it?  That is for the pass's last one.
 */
bool
synchro_batch_deletes(const SynchroBatch *batch)
{
	bool		deletes = batch->link->leftovers != NIL || batch->dead != NIL || batch->extras != NIL;
	ListCell   *cell;

	foreach(cell, batch->olds->tables)
		deletes |= ((SynchroChangedTable *) lfirst(cell))->nolds > 0;
	return deletes && batch->snapshot != NULL;
}

/*
 * Tables of which rows wait, or are left to the next pass, that might go along with what the batch deletes, as
 * they may still refer to that there.  If it deletes anything.
 */
List *
synchro_batch_guarded_tables(const SynchroBatch *batch)
{
	List	   *result = NIL;
	List	   *tables;
	ListCell   *cell;

	if (!synchro_batch_deletes(batch))
		return NIL;
	tables = synchro_parked_tables(batch->parked);
	foreach(cell, batch->moved)
		tables = list_append_unique_oid(tables, ((SynchroBatchKeys *) lfirst(cell))->relid);
	foreach(cell, tables)
	{
		const SynchroTable *table = synchro_table_get(lfirst_oid(cell), true);
		const SynchroStalled *stalled = synchro_stalled_find(batch->stalled, lfirst_oid(cell));

		if (table != NULL && table->watched && table->mode != SYNCHRO_MODE_NONE && table->nfks > 0 && (stalled == NULL || stalled->due))
			result = lappend_oid(result, table->relid);
	}
	return result;
}

/*
 * Rows that wait are named, so that what is deleted does not take them along: see
 * guardsql.c.
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
		SynchroIdentities *waiting = synchro_parked_updates(batch->parked, lt->table);
		SynchroGuarded *guarded;
		StringInfoData rows;
		MemoryContext old;

		foreach(other, batch->moved)
		{
			const SynchroBatchKeys *moved = lfirst(other);

			for (int i = 0; moved->relid == lt->table->relid && i < moved->identities->count; i++)
				synchro_identities_add(waiting, &moved->identities->values[i * waiting->nidentity]);
		}
		if (waiting->count == 0)
			continue;
		synchro_stream_names_of(batch->link, lt, waiting);
		old = MemoryContextSwitchTo(GetMemoryChunkContext(batch));
		initStringInfo(&rows);
		for (int i = 0; i < waiting->count; i++)
		{
			appendStringInfoString(&rows, i > 0 ? "), (" : "(");
			for (int x = 0; x < waiting->nidentity; x++)
				appendStringInfo(&rows, "%s%s::%s", x > 0 ? ", " : "",
								 quote_literal_cstr(synchro_staged_value(lt->table, x, waiting->values[i * waiting->nidentity + x])),
								 synchro_stage_type(lt->table, x));
		}
		appendStringInfoChar(&rows, ')');
		guarded = palloc(sizeof(SynchroGuarded));
		guarded->lt = lt;
		guarded->rows = rows.data;
		batch->guarded = lappend(batch->guarded, guarded);
		MemoryContextSwitchTo(old);
	}
}
