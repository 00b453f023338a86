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
 * A batch knows of deletes up to when it is read, but the pass's keys are as of S1.  So
 * a row that was moved away since from what the last batch deletes is still
 * below that there, and its move is left to the next pass: such rows must not go
 * along (guardsql.c).  Beyond MANY_MOVED nothing is done about them.
 *
 * What was renamed or inserted before the keys snapshot counts as changed, no more:
 * earlier batches may have carried that, but not the move.  What has been renamed
 * since then is in this batch, and moved by it; what has been inserted since then is
 * not there yet.
 */
void
synchro_pass_collect_moved(SynchroPass *pass, SynchroBatch *batch, const char *keys_snapshot)
{
	SynchroSqlScope scope;
	SynchroChangeSet *since;
	const List *deleted = synchro_batch_deleted_tables(batch);
	int64		nmoved = 0;
	ListCell   *cell;

	if (deleted == NIL)
		return;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	MemoryContextSwitchTo(pass->batch_context);
	since = synchro_changes_collect(synchro_snapshot_parse(pass->snapshot), synchro_snapshot_parse(keys_snapshot), NULL, NULL,
									pass->stalled, pass->copies, pass->link->peer_node, true, NULL);
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(pass->batch_context);
	foreach(cell, since->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);
		SynchroBatchKeys *keys;
		SynchroChangedKey key;

		if (changed->nkeys == 0 || !changed->table->watched || !synchro_batch_goes_along(changed->relid, deleted))
			continue;
		nmoved += changed->nkeys;
		if (nmoved > MANY_MOVED)
		{
			batch->moved = NIL;
			break;
		}
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
