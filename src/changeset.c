/*-------------------------------------------------------------------------
 *
 * changeset.c
 *	  What has changed between two snapshots: distinct keys, and what rows
 *	  were called before.
 *
 * What the log says of each key is found by keyhistory.c.
 *
 * Sets may be large: they are sorted and kept in files beyond a bounded
 * piece of memory, and outlive the transaction that collects them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "changemoves.h"
#include "changeset.h"
#include "keyhistory.h"
#include "logstamp.h"

typedef struct Collector
{
	SynchroChangeSet *changes;
	const SynchroSnapshot *named;
	List	   *stalled;		/* of SynchroStalled */
	List	   *copies;			/* of SynchroCopy */
	const SynchroStalled *only; /* only of that table, and only what the
								 * following has seen */
	const SynchroSnapshot *since;
	SynchroHistories histories;
	TupleDesc	desc;			/* of the sorts */
	TupleTableSlot *slot;
	SynchroChangedTable *last;
	MemoryContext row_context;
} Collector;

static SynchroChangedTable *
find_changed(Collector *collector, Oid relid)
{
	SynchroChangedTable *changed = collector->last;
	const SynchroTable *table;
	ListCell   *cell;
	MemoryContext old;

	if (changed != NULL && changed->relid == relid)
		return changed;
	foreach(cell, collector->changes->tables)
	{
		changed = lfirst(cell);
		if (changed->relid == relid)
			return collector->last = changed;
	}

	table = synchro_table_get(relid, true);

	/* to pass over what it has pending would be to forget it */
	if (table != NULL && (table->watched || table->key_only))
		synchro_suspect_keyless(table, relid);
	old = MemoryContextSwitchTo(collector->changes->context);
	changed = palloc0(sizeof(SynchroChangedTable));
	changed->relid = relid;
	collector->changes->tables = lappend(collector->changes->tables, changed);

	/* what is gone, or no longer watched, has nothing to be pushed */
	if (table != NULL && table->mode != SYNCHRO_MODE_NONE &&
		(table->watched || table->key_only))
	{
		changed->table = synchro_table_copy(table, collector->changes->context);
		changed->keys = synchro_changestore_create();
		changed->olds = synchro_changestore_create();
		changed->sort = palloc0(sizeof(struct ChangeSort));
		changed->sort->sort = synchro_historysort_create(collector->desc);
	}
	MemoryContextSwitchTo(old);
	return collector->last = changed;
}

static void
put_record(Collector *collector, SynchroChangedTable *changed, const SynchroLogRow *row,
		   const SynchroKeyRecord *record, int position, bool old_is_readable,
		   bool named)
{
	TupleTableSlot *slot = collector->slot;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, 0, sizeof(bool) * HISTORY_COLUMNS);
	slot->tts_values[HISTORY_ORDER] = Int64GetDatum(synchro_key_order(record->identity, changed->table));
	slot->tts_values[HISTORY_TIME] = Int64GetDatum(row->parked ? DT_NOBEGIN : row->changed_at);
	slot->tts_values[HISTORY_TXID] = Int64GetDatum((int64) row->txid);
	slot->tts_values[HISTORY_PLACE] = Int64GetDatum(((int64) row->part << 32) + position);
	slot->tts_values[HISTORY_STAMP] = Int64GetDatum(record->stamp.at);
	slot->tts_values[HISTORY_SOURCE] = Int32GetDatum(record->stamp.source);
	slot->tts_values[HISTORY_FLAGS] = Int32GetDatum(record->op | (named ? HISTORY_NAMED : 0) |
												 (row->parked ? HISTORY_PARKED | (row->due ? HISTORY_DUE : 0) :
												  row->copied ? HISTORY_COPIED : row->txid == 0 ? HISTORY_AGAIN : 0) |
												 (record->derived ? HISTORY_DERIVED : 0) |
												 (record->moved ? HISTORY_MOVED : 0) |
												 (record->refused ? HISTORY_REFUSED : 0));
	slot->tts_values[HISTORY_IDENTITY] = synchro_bytes_datum(record->identity);
	slot->tts_isnull[HISTORY_OLD] = !record->has_old || !old_is_readable;
	if (!slot->tts_isnull[HISTORY_OLD])
		slot->tts_values[HISTORY_OLD] = synchro_bytes_datum(record->old_key);
	ExecStoreVirtualTuple(slot);
	synchro_historysort_put(changed->sort->sort, slot);
}

/*
 * Error if what a row was known by has no room in its columns any more: cut down to
 * what they hold, it would be another row's.
 */
static void
require_room(const SynchroTable *table, const SynchroKeyRecord *record, bool old_is_readable)
{
	if (synchro_key_fits(record->identity, table, table->identity, table->nidentity) &&
		(!record->moved || synchro_key_fits(record->from, table, table->identity, table->nidentity)) &&
		(!record->has_old || !old_is_readable || synchro_key_fits(record->old_key, table, table->key, table->nkey)))
		return;
	synchro_suspect(table->relid);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a key of table %s has been made too narrow for changes that are pending", table->qualified),
			 errdetail("A row was known by an integer for which there is no room in its column any more."),
			 errhint("Alter the column back to the type that it had, let the changes be pushed, then narrow it.")));
}

static void
collect_row(const SynchroLogRow *row, void *arg)
{
	Collector  *collector = arg;
	SynchroChangedTable *changed;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;
	bool		old_is_readable;
	const SynchroSnapshot *named_in = collector->named;
	const SynchroStalled *stalled;
	const SynchroCopy *copy;
	bool		named;
	MemoryContext old;

	if (synchro_stamps_note(collector->histories.stamps, row))
		return;
	copy = synchro_copyqueue_find(collector->copies, row->relation);
	if (copy != NULL && copy->forgotten != NULL && row->txid != 0 && synchro_snapshot_has(copy->forgotten, row->txid))
		return;
	stalled = synchro_stalled_find(collector->stalled, row->relation);
	if (stalled != NULL && !stalled->due)
		return;
	if (collector->only != NULL &&
		(collector->only != stalled || !synchro_snapshot_has(collector->since, row->txid)))
		return;
	if (stalled != NULL && named_in != NULL && stalled->named != NULL)
		named_in = stalled->named;
	named = named_in != NULL && !row->parked &&
		(row->txid == 0 || synchro_snapshot_has(named_in, row->txid));
	changed = find_changed(collector, row->relation);
	if (changed->table == NULL)
		return;
	if (SYNCHRO_LAYOUT_IDENTITY(row->layout) != SYNCHRO_LAYOUT_IDENTITY(changed->table->layout))
	{
		synchro_suspect(row->relation);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg(changed->table->has_primary_key ? "primary key of table %s was altered while changes were pending" :
						"key of table %s was altered while changes were pending", changed->table->qualified),
				 changed->table->has_primary_key ? 0 :
				 errdetail("It has no primary key, so its natural key is what its rows are known by."),
				 changed->table->mode == SYNCHRO_MODE_REFERENCE ?
				 errhint("Have the rows of each remote made anew by synchro.reset_schema() with soft => false.") :
				 !changed->table->has_primary_key ?
				 errhint("If nothing was changed in it since, give it back the key that it had, and let the changes be pushed. Else, when all else has been pushed, run synchro.reset() for each remote, with keep_references, then synchro.copy_table(); rows whose deletes were pending are then shown by synchro.verify().") :
				 errhint("When all else has been pushed, run synchro.reset() for each remote, with keep_references, then synchro.copy_table(); rows whose deletes were pending are then shown by synchro.verify().")));
	}
	old_is_readable = SYNCHRO_LAYOUT_KEY(row->layout) == SYNCHRO_LAYOUT_KEY(changed->table->layout);
	old = MemoryContextSwitchTo(collector->row_context);
	for (int position = 0; pos < end; position++)
	{
		SynchroKeyRecord record;

		CHECK_FOR_INTERRUPTS();
		pos = synchro_key_next(pos, end, changed->table, row->layout, &record);
		collector->changes->nentries++;
		require_room(changed->table, &record, old_is_readable);
		if (record.refused && (named || !synchro_history_known_to_peer(&collector->histories, record.stamp)))
			continue;
		put_record(collector, changed, row, &record, position, old_is_readable, named);
		collector->changes->nagain += row->txid == 0;
		if (record.moved && !named)
		{
			MemoryContextSwitchTo(collector->changes->context);
			changed->sort->moves = synchro_moves_add(changed->sort->moves, row, &record, position,
													 synchro_history_known_to_peer(&collector->histories, record.stamp));
			MemoryContextSwitchTo(collector->row_context);
		}
		MemoryContextReset(collector->row_context);
	}
	MemoryContextSwitchTo(old);
	if (!row->parked)
		collector->changes->newest = Max(collector->changes->newest, row->changed_at);
}

/*
 * Collect what the active snapshot sees of the log and the snapshot since did
 * not, and a remote's backlog.
 *
 * since: NULL for all of the log.  named: log entries that this snapshot saw
 * give keys, but no names of before; NULL: none.  backlog: name of the remote,
 * or NULL.  parked: what is parked of it, or NULL.  stalled: tables that
 * are not collected, or, if they are due, since snapshots of their own.  copies:
 * tables some of whose log may be forgotten.  peer: id
 * of the remote if it is a node that pushes, too; what it has sent is not
 * collected.  with_keys: collect keys as well as names of before.  more: keys
 * to be pushed besides, or NULL.
 *
 * The result lives in a child of the current memory context, and outlives
 * the transaction.  Needs a scope of synchro_sql_open().
 */
SynchroChangeSet *
synchro_changes_collect(const SynchroSnapshot *since, const SynchroSnapshot *named,
						const char *backlog, const SynchroParkedSet *parked, List *stalled, List *copies,
						const pg_uuid_t *peer, bool with_keys, const SynchroMoreKeys *more)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro changes",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SynchroChangeSet *changes = palloc0(sizeof(SynchroChangeSet));
	Collector	collector = {0};
	ListCell   *cell;

	changes->context = context;
	collector.changes = changes;
	collector.named = named;
	collector.histories.peer = peer;
	collector.stalled = stalled;
	collector.copies = copies;
	collector.since = since;
	collector.histories.stamps = synchro_stamps_create();
	changes->sources = synchro_stamps_sources(collector.histories.stamps);
	collector.desc = synchro_historysort_descriptor();
	collector.slot = MakeSingleTupleTableSlot(collector.desc, &TTSOpsVirtual);
	collector.row_context = AllocSetContextCreate(context, "synchro log row",
												  ALLOCSET_SMALL_SIZES);
	synchro_log_scan(since, collect_row, &collector);
	foreach(cell, stalled)
	{
		const SynchroSnapshot *own;

		collector.only = lfirst(cell);
		own = with_keys ? collector.only->since : collector.only->named;
		if (collector.only->due && own != NULL && since != NULL)
			synchro_log_scan(own, collect_row, &collector);
	}
	collector.only = NULL;
	if (backlog != NULL)
		synchro_log_scan_backlog(backlog, collect_row, &collector);
	synchro_parked_scan(parked, collect_row, &collector);
	if (more != NULL)
		more->scan(collect_row, &collector, more->arg);
	foreach(cell, changes->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		if (changed->table == NULL)
			continue;
		synchro_history_finish(&collector.histories, changed, with_keys);
		changes->nkeys += changed->nkeys;
		changes->nolds += changed->nolds;
	}
	ExecDropSingleTupleTableSlot(collector.slot);
	MemoryContextSwitchTo(old);
	return changes;
}

/*
 * The next key of a table, in the current memory context; false at the end.
 * With kind 'g' it is a name only, which is gone.  With kind 0 and a name it is
 * a row, and that name is gone.
 */
bool
synchro_changes_next_key(SynchroChangedTable *changed, SynchroChangedKey *key)
{
	return changed->keys != NULL && synchro_changestore_next(changed->keys, key);
}

/*
 * The next name of before of a table, in the current memory context; false at
 * the end.  Its kind: 'o' what the row with that identity was called, 'd' what
 * another row was called that bore the identity before, 'g' a name that is
 * gone.
 */
bool
synchro_changes_next_old(SynchroChangedTable *changed, SynchroChangedKey *old)
{
	return changed->olds != NULL && synchro_changestore_next(changed->olds, old);
}

/*
 * Begin again with the first name of before of each table.
 */
void
synchro_changes_rewind(SynchroChangeSet *changes)
{
	ListCell   *cell;

	foreach(cell, changes->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		if (changed->olds != NULL)
			tuplestore_rescan(changed->olds);
	}
}

/*
 * Give back memory and files.
 */
void
synchro_changes_free(SynchroChangeSet *changes)
{
	ListCell   *cell;

	foreach(cell, changes->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		if (changed->keys != NULL)
			synchro_changestore_end(changed->keys);
		if (changed->olds != NULL)
			synchro_changestore_end(changed->olds);
	}
	MemoryContextDelete(changes->context);
}
