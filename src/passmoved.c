/*-------------------------------------------------------------------------
 *
 * passmoved.c
 *	  Rows that were changed since a pass began, and must not go along with what
 *	  its last batch deletes.  (header: passwork.h)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"
#include "localsql.h"
#include "passwork.h"

/* of more than that nothing is kept from going along */
#define MANY_MOVED	10000

/*
 * Does a table refer to one of which the batch has names of before, or that has
 * deletes which earlier ones have left to it?
 */
static bool
refers_to_deleted(const SynchroBatch *batch, const SynchroTable *table)
{
	ListCell   *cell;

	for (int fk = 0; fk < table->nfks; fk++)
	{
		foreach(cell, batch->olds->tables)
			if (((SynchroChangedTable *) lfirst(cell))->relid == table->fks[fk].parent)
				return true;
		foreach(cell, batch->link->leftovers)
			if (synchro_table_by_name(lfirst(cell)) == table->fks[fk].parent)
				return true;
	}
	return false;
}

/*
 * A batch knows of deletes up to when it is read, but the pass's keys are as of S1.  So
 * a row that was moved away since from what the last batch deletes is still
 * below that there, and its move is left to the next pass: such rows must not go
 * along (guardsql.c).  Beyond MANY_MOVED nothing is done about them.
 */
void
synchro_pass_collect_moved(SynchroPass *pass, SynchroBatch *batch)
{
	SynchroSqlScope scope;
	SynchroChangeSet *since;
	ListCell   *cell;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	MemoryContextSwitchTo(pass->batch_context);
	since = synchro_changes_collect(synchro_snapshot_parse(pass->snapshot), NULL, NULL, NULL, pass->stalled, pass->copies,
									pass->link->peer_node, true, NULL);
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(pass->batch_context);
	foreach(cell, since->nkeys <= MANY_MOVED ? since->tables : NIL)
	{
		SynchroChangedTable *changed = lfirst(cell);
		SynchroBatchKeys *keys;
		SynchroChangedKey key;

		if (changed->nkeys == 0 || !changed->table->watched || !refers_to_deleted(batch, changed->table))
			continue;
		keys = palloc0(sizeof(SynchroBatchKeys));
		keys->relid = changed->relid;
		keys->identities = synchro_identities_create(changed->table);
		while (synchro_changes_next_key(changed, &key))
			if (key.kind == 0 && key.born == 0)
				synchro_identities_decode(keys->identities, changed->table, key.identity);
		batch->moved = lappend(batch->moved, keys);
	}
	synchro_changes_free(since);
}
