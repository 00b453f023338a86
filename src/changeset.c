/*-------------------------------------------------------------------------
 *
 * changeset.c
 *	  What has changed between two snapshots: distinct keys, and what rows
 *	  were called before.
 *
 * All log entries of a key are brought together by sorting, in the order in
 * which their transactions committed: two transactions that changed the same
 * row did so one after the other, since the first held the row's lock until
 * it ended, so their log times are in order, too.  Of a key's entries count:
 *
 * - the first: if it is an insert, the row is new since then, and the remote
 *   does not know it by any name of before;
 * - the first with an old key: that is what the row was called in the earlier
 *   snapshot, so what the remote calls it;
 * - those that say that the row moved here from another identity: followed
 *   (changemoves.c), they tell which row of the earlier snapshot it is.
 *
 * Sets may be large: they are sorted and kept in files beyond a bounded
 * piece of memory, and outlive the transaction that collects them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/tuplesort.h"

#include "changemoves.h"
#include "changeset.h"
#include "compat.h"

#define SORT_MEMORY		1024	/* kB, for each table's sort and stores */

/* columns of the sort */
enum
{
	SORT_IDENTITY, SORT_TIME, SORT_TXID, SORT_PART, SORT_POSITION, SORT_FLAGS,
	SORT_OLD, SORT_COLUMNS
};

#define FLAG_NAMED	0x80		/* from before the keys snapshot: its names
								 * have reached the remote */
#define FLAG_AGAIN	0x40		/* from the backlog, so to be sent again */

struct ChangeSort
{
	Tuplesortstate *sort;
	List	   *moves;			/* see synchro_moves_add() */
};

typedef struct Collector
{
	SynchroChangeSet *changes;
	const SynchroSnapshot *named;
	TupleDesc	desc;
	TupleTableSlot *slot;
	SynchroChangedTable *last;
	MemoryContext row_context;
} Collector;

static TupleDesc
sort_descriptor(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(SORT_COLUMNS);

	TupleDescInitEntry(desc, SORT_IDENTITY + 1, "identity", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, SORT_TIME + 1, "time", INT8OID, -1, 0);
	TupleDescInitEntry(desc, SORT_TXID + 1, "txid", INT8OID, -1, 0);
	TupleDescInitEntry(desc, SORT_PART + 1, "part", INT4OID, -1, 0);
	TupleDescInitEntry(desc, SORT_POSITION + 1, "position", INT4OID, -1, 0);
	TupleDescInitEntry(desc, SORT_FLAGS + 1, "flags", INT4OID, -1, 0);
	TupleDescInitEntry(desc, SORT_OLD + 1, "old", BYTEAOID, -1, 0);
	synchro_finish_tupledesc(desc);
	return desc;
}

static TupleDesc
store_descriptor(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(3);

	TupleDescInitEntry(desc, 1, "identity", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, 2, "kind", INT4OID, -1, 0);
	TupleDescInitEntry(desc, 3, "value", BYTEAOID, -1, 0);
	synchro_finish_tupledesc(desc);
	return desc;
}

static Datum
bytes_datum(SynchroBytes bytes)
{
	return PointerGetDatum(cstring_to_text_with_len(bytes.data, bytes.len));
}

static SynchroBytes
datum_bytes(Datum datum)
{
	SynchroBytes bytes;

	bytes.data = VARDATA_ANY(DatumGetPointer(datum));
	bytes.len = VARSIZE_ANY_EXHDR(DatumGetPointer(datum));
	return bytes;
}

static Tuplestorestate *
make_store(void)
{
	Tuplestorestate *store;
	ResourceOwner owner = CurrentResourceOwner;

	/* it shall outlive the transaction */
	CurrentResourceOwner = NULL;
	store = tuplestore_begin_heap(false, true, SORT_MEMORY);
	CurrentResourceOwner = owner;
	return store;
}

static SynchroChangedTable *
find_changed(Collector *collector, Oid relid)
{
	static AttrNumber sort_columns[] = {
		SORT_IDENTITY + 1, SORT_TIME + 1, SORT_TXID + 1, SORT_PART + 1, SORT_POSITION + 1
	};
	static Oid	sort_operators[] = {
		ByteaLessOperator, Int8LessOperator, Int8LessOperator, Int4LessOperator, Int4LessOperator
	};
	static Oid	collations[lengthof(sort_columns)] = {0};
	static bool nulls_first[lengthof(sort_columns)] = {0};
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
	old = MemoryContextSwitchTo(collector->changes->context);
	changed = palloc0(sizeof(SynchroChangedTable));
	changed->relid = relid;
	collector->changes->tables = lappend(collector->changes->tables, changed);

	/* what is gone, or no longer watched, has nothing to be pushed */
	if (table != NULL && table->mode != SYNCHRO_MODE_NONE &&
		(table->watched || table->key_only))
	{
		changed->table = synchro_table_copy(table, collector->changes->context);
		changed->keys = make_store();
		changed->olds = make_store();
		changed->sort = palloc0(sizeof(struct ChangeSort));
		changed->sort->sort =
			tuplesort_begin_heap(collector->desc, lengthof(sort_columns), sort_columns,
								 sort_operators, collations, nulls_first,
								 SORT_MEMORY, NULL, TUPLESORT_RANDOMACCESS);
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
	memset(slot->tts_isnull, 0, sizeof(bool) * SORT_COLUMNS);
	slot->tts_values[SORT_IDENTITY] = bytes_datum(record->identity);
	slot->tts_values[SORT_TIME] = Int64GetDatum(row->changed_at);
	slot->tts_values[SORT_TXID] = Int64GetDatum((int64) row->txid);
	slot->tts_values[SORT_PART] = Int32GetDatum(row->part);
	slot->tts_values[SORT_POSITION] = Int32GetDatum(position);
	slot->tts_values[SORT_FLAGS] = Int32GetDatum(record->op | (named ? FLAG_NAMED : 0) |
												 (row->txid == 0 ? FLAG_AGAIN : 0));
	slot->tts_isnull[SORT_OLD] = !record->has_old || !old_is_readable;
	if (!slot->tts_isnull[SORT_OLD])
		slot->tts_values[SORT_OLD] = bytes_datum(record->old_key);
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(changed->sort->sort, slot);
}

static void
collect_row(const SynchroLogRow *row, void *arg)
{
	Collector  *collector = arg;
	SynchroChangedTable *changed;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;
	int			nkey = SYNCHRO_LAYOUT_NKEY(row->layout);
	bool		old_is_readable;
	bool		named = collector->named != NULL &&
		(row->txid == 0 || synchro_snapshot_has(collector->named, row->txid));
	MemoryContext old;

	if (row->relation == SYNCHRO_STAMP_RELATION)
		return;
	changed = find_changed(collector, row->relation);
	if (changed->table == NULL)
		return;
	if (SYNCHRO_LAYOUT_IDENTITY(row->layout) != SYNCHRO_LAYOUT_IDENTITY(changed->table->layout))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("primary key of table %s was altered while changes were pending",
						changed->table->qualified),
				 errhint("Run synchro.reset() for each remote, then update the rows that it lacks, so that they are logged anew.")));
	old_is_readable = SYNCHRO_LAYOUT_KEY(row->layout) == SYNCHRO_LAYOUT_KEY(changed->table->layout);
	old = MemoryContextSwitchTo(collector->row_context);
	for (int position = 0; pos < end; position++)
	{
		SynchroKeyRecord record;

		CHECK_FOR_INTERRUPTS();
		pos = synchro_key_next(pos, end, changed->table->nidentity, nkey, &record);
		put_record(collector, changed, row, &record, position, old_is_readable, named);
		if (record.moved && !named)
		{
			MemoryContextSwitchTo(collector->changes->context);
			changed->sort->moves = synchro_moves_add(changed->sort->moves, row, &record, position);
			MemoryContextSwitchTo(collector->row_context);
		}
		MemoryContextReset(collector->row_context);
	}
	MemoryContextSwitchTo(old);
	collector->changes->newest = Max(collector->changes->newest, row->changed_at);
}

/* all that the log says about one key */
typedef struct KeyHistory
{
	SynchroBytes identity;
	bool		unnamed;		/* has entries that count, see FLAG_NAMED */
	SynchroOp	first_op;		/* of those */
	bool		removed;		/* deleted, or moved to another identity */
	bool		has_old;
	SynchroBytes old_key;
	bool		gone_again;		/* a delete is to be sent again, of the row that */
	SynchroBytes last_key;		/* was called this at last */
} KeyHistory;

typedef void (*HistoryCallback) (SynchroChangedTable *changed, const KeyHistory *group, void *arg);

static void
add_to_group(KeyHistory *group, TupleTableSlot *slot)
{
	int			flags = DatumGetInt32(slot->tts_values[SORT_FLAGS]);

	if (flags & FLAG_NAMED)
	{
		group->gone_again = (flags & FLAG_AGAIN) != 0 && !slot->tts_isnull[SORT_OLD] &&
			(flags & ~(FLAG_NAMED | FLAG_AGAIN)) == SYNCHRO_OP_DELETE;
		if (group->gone_again)
			group->last_key = synchro_key_copy(datum_bytes(slot->tts_values[SORT_OLD]));
		return;
	}
	if (!group->unnamed)
		group->first_op = (SynchroOp) flags;
	group->unnamed = true;
	group->removed |= flags == SYNCHRO_OP_DELETE;
	if (!group->has_old && !slot->tts_isnull[SORT_OLD])
	{
		group->has_old = true;
		group->old_key = synchro_key_copy(datum_bytes(slot->tts_values[SORT_OLD]));
	}
}

/*
 * Call back for each key of a sorted table.
 */
static void
walk_groups(SynchroChangedTable *changed, TupleDesc desc, HistoryCallback callback, void *arg)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro group",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	KeyHistory		group = {{0}};

	tuplesort_rescan(changed->sort->sort);
	while (tuplesort_gettupleslot(changed->sort->sort, true, false, slot, NULL))
	{
		SynchroBytes identity;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		identity = datum_bytes(slot->tts_values[SORT_IDENTITY]);
		if (group.identity.data == NULL || group.identity.len != identity.len ||
			memcmp(group.identity.data, identity.data, identity.len) != 0)
		{
			if (group.identity.data != NULL)
				callback(changed, &group, arg);
			MemoryContextReset(context);
			memset(&group, 0, sizeof(group));
			group.identity = synchro_key_copy(identity);
		}
		add_to_group(&group, slot);
	}
	if (group.identity.data != NULL)
		callback(changed, &group, arg);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
}

static void
put_old(SynchroChangedTable *changed, char kind, SynchroBytes identity, SynchroBytes value)
{
	static TupleDesc desc = NULL;
	Datum		values[3];
	bool		nulls[3] = {0};

	if (desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		desc = store_descriptor();
		MemoryContextSwitchTo(old);
	}
	values[0] = bytes_datum(identity);
	values[1] = Int32GetDatum(kind);
	nulls[2] = value.data == NULL;
	values[2] = nulls[2] ? (Datum) 0 : bytes_datum(value);
	tuplestore_putvalues(kind == 0 ? changed->keys : changed->olds, desc, values, nulls);
	if (kind == 0)
		changed->nkeys++;
	else
		changed->nolds++;
}

/*
 * What the row with that key was called in the earlier snapshot: its natural
 * key, or its identity in mode reference.  False if it was not there, or is
 * called the same still.
 */
static bool
name_of_before(SynchroChangedTable *changed, const KeyHistory *group, SynchroBytes *name)
{
	if (!group->unnamed || group->first_op == SYNCHRO_OP_INSERT)
		return false;
	if (changed->table->mode == SYNCHRO_MODE_REFERENCE)
	{
		*name = group->identity;
		return group->removed;
	}
	*name = group->old_key;
	return group->has_old;
}

static void
learn_name(SynchroChangedTable *changed, const KeyHistory *group, void *arg)
{
	SynchroOrigin *origin = synchro_moves_find(arg, group->identity);
	SynchroBytes name;

	if (origin != NULL && name_of_before(changed, group, &name))
	{
		MemoryContext old = MemoryContextSwitchTo(changed->table->context);

		origin->known = true;
		origin->name = synchro_key_copy(name);
		MemoryContextSwitchTo(old);
	}
}

typedef struct Emitter
{
	HTAB	   *origins;		/* NULL: no row moved */
	bool		with_keys;
} Emitter;

static void
emit_group(SynchroChangedTable *changed, const KeyHistory *group, void *arg)
{
	const Emitter *emitter = arg;
	const SynchroBytes none = {0};
	SynchroOrigin *origin = NULL;
	SynchroBytes name;
	int64		nolds = changed->nolds;

	if (emitter->origins != NULL)
		origin = synchro_moves_find(emitter->origins, group->identity);
	if (origin != NULL && origin->arrived)
	{
		SynchroOrigin *from = synchro_moves_find(emitter->origins, origin->from);

		if (from != NULL && from->known)
			put_old(changed, 'o', group->identity, from->name);
		if (name_of_before(changed, group, &name))
			put_old(changed, 'd', group->identity, name);
	}
	else if (name_of_before(changed, group, &name))
	{
		/* what is gone of a table that is not watched leaves no successor */
		put_old(changed, group->removed && !changed->table->watched ? 'd' : 'o',
				group->identity, name);
	}

	/* a row with a name of before is in the batch because of that */
	if (changed->nolds == nolds && emitter->with_keys && changed->table->watched)
		put_old(changed, 0, group->identity, group->gone_again ? group->last_key : none);
}

static void
finish_table(SynchroChangedTable *changed, TupleDesc desc, bool with_keys)
{
	Emitter		emitter = {NULL, with_keys};

	tuplesort_performsort(changed->sort->sort);
	if (changed->sort->moves != NIL)
	{
		emitter.origins = synchro_moves_follow(changed->sort->moves);
		walk_groups(changed, desc, learn_name, emitter.origins);
	}
	walk_groups(changed, desc, emit_group, &emitter);
	tuplesort_end(changed->sort->sort);
	changed->sort = NULL;
}

/*
 * Collect what the active snapshot sees of the log and the snapshot since did
 * not, and a remote's backlog.
 *
 * since: NULL for all of the log.  named: log entries that this snapshot saw
 * give keys, but no names of before; NULL: none.  backlog: name of the remote,
 * or NULL.  with_keys: collect keys as well as names of before.
 *
 * The result lives in a child of the current memory context, and outlives
 * the transaction.  Needs a scope of synchro_sql_open().
 */
SynchroChangeSet *
synchro_changes_collect(const SynchroSnapshot *since, const SynchroSnapshot *named,
						const char *backlog, bool with_keys)
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
	collector.desc = sort_descriptor();
	collector.slot = MakeSingleTupleTableSlot(collector.desc, &TTSOpsVirtual);
	collector.row_context = AllocSetContextCreate(context, "synchro log row",
												  ALLOCSET_SMALL_SIZES);
	synchro_log_scan(since, collect_row, &collector);
	if (backlog != NULL)
		synchro_log_scan_backlog(backlog, collect_row, &collector);
	foreach(cell, changes->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		if (changed->table == NULL)
			continue;
		finish_table(changed, collector.desc, with_keys);
		changes->nkeys += changed->nkeys;
		changes->nolds += changed->nolds;
	}
	ExecDropSingleTupleTableSlot(collector.slot);
	MemoryContextSwitchTo(old);
	return changes;
}

static bool
next_stored(Tuplestorestate *store, TupleTableSlot **slot)
{
	static TupleTableSlot *shared = NULL;
	MemoryContext old;
	bool		found;

	/* the slot frees its tuple at the next call: that must not be gone before */
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (shared == NULL)
		shared = MakeSingleTupleTableSlot(store_descriptor(), &TTSOpsMinimalTuple);
	found = tuplestore_gettupleslot(store, true, true, shared);
	if (found)
		slot_getallattrs(shared);
	MemoryContextSwitchTo(old);
	*slot = shared;
	return found;
}

/*
 * The next key of a table, in the current memory context; false at the end.
 * name: the natural key of a row whose delete is to be sent again, else its
 * data is NULL.
 */
bool
synchro_changes_next_key(SynchroChangedTable *changed, SynchroBytes *identity,
						 SynchroBytes *name)
{
	TupleTableSlot *slot;

	if (changed->keys == NULL || !next_stored(changed->keys, &slot))
		return false;
	*identity = synchro_key_copy(datum_bytes(slot->tts_values[0]));
	memset(name, 0, sizeof(*name));
	if (!slot->tts_isnull[2])
		*name = synchro_key_copy(datum_bytes(slot->tts_values[2]));
	return true;
}

/*
 * The next name of before of a table, in the current memory context; false at
 * the end.  kind: 'o' what the row with that identity was called, 'd' what
 * another row was called that bore the identity before.  value: a natural
 * key, or a former identity in mode reference.
 */
bool
synchro_changes_next_old(SynchroChangedTable *changed, char *kind,
						 SynchroBytes *identity, SynchroBytes *value)
{
	TupleTableSlot *slot;

	if (changed->olds == NULL || !next_stored(changed->olds, &slot))
		return false;
	*identity = synchro_key_copy(datum_bytes(slot->tts_values[0]));
	*kind = (char) DatumGetInt32(slot->tts_values[1]);
	*value = synchro_key_copy(datum_bytes(slot->tts_values[2]));
	return true;
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
			tuplestore_end(changed->keys);
		if (changed->olds != NULL)
			tuplestore_end(changed->olds);
	}
	MemoryContextDelete(changes->context);
}
