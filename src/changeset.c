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
 * What the remote itself has pushed here it knows: such an entry makes the
 * row known there as it then was, and whatever came before it does not count.
 * Only where it changed a name that the remote does not know of (derived, see
 * keycodec.h), that name is told to be gone.
 *
 * What is parked (parked.c) counts as if it came before all that: it tells
 * what the remote calls the row.  By itself it makes a key only when it is due.
 *
 * Sets may be large: they are sorted and kept in files beyond a bounded
 * piece of memory, and outlive the transaction that collects them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_operator_d.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"

#include "changemoves.h"
#include "changeset.h"
#include "compat.h"
#include "logstamp.h"

#define SORT_MEMORY		1024	/* kB, for each table's sort and stores */

/* columns of the sort */
enum
{
	SORT_ORDER, SORT_IDENTITY, SORT_TIME, SORT_TXID, SORT_PART, SORT_POSITION, SORT_FLAGS,
	SORT_OLD, SORT_STAMP, SORT_SOURCE, SORT_COLUMNS
};

#define FLAG_NAMED	0x80		/* from before the keys snapshot: its names
								 * have reached the remote */
#define FLAG_AGAIN	0x40		/* from the backlog, so to be sent again */
#define FLAG_DERIVED 0x20		/* see SYNCHRO_KEY_DERIVED */
#define FLAG_PARKED	0x10		/* see parked.c */
#define FLAG_DUE	0x08
#define FLAG_OP_MASK 0x03

struct ChangeSort
{
	Tuplesortstate *sort;
	List	   *moves;			/* see synchro_moves_add() */
};

typedef struct Collector
{
	SynchroChangeSet *changes;
	const SynchroSnapshot *named;
	List	   *stalled;		/* of SynchroStalled */
	const SynchroStalled *only; /* only of that table, and only what the
								 * following has seen */
	const SynchroSnapshot *since;
	const pg_uuid_t *peer;		/* the remote's id, if it is a node, too */
	SynchroStamps *stamps;
	TupleDesc	desc;
	TupleTableSlot *slot;
	SynchroChangedTable *last;
	MemoryContext row_context;
} Collector;

static TupleDesc
sort_descriptor(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(SORT_COLUMNS);

	TupleDescInitEntry(desc, SORT_ORDER + 1, "order", INT8OID, -1, 0);
	TupleDescInitEntry(desc, SORT_IDENTITY + 1, "identity", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, SORT_TIME + 1, "time", INT8OID, -1, 0);
	TupleDescInitEntry(desc, SORT_TXID + 1, "txid", INT8OID, -1, 0);
	TupleDescInitEntry(desc, SORT_PART + 1, "part", INT4OID, -1, 0);
	TupleDescInitEntry(desc, SORT_POSITION + 1, "position", INT4OID, -1, 0);
	TupleDescInitEntry(desc, SORT_FLAGS + 1, "flags", INT4OID, -1, 0);
	TupleDescInitEntry(desc, SORT_OLD + 1, "old", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, SORT_STAMP + 1, "stamp", INT8OID, -1, 0);
	TupleDescInitEntry(desc, SORT_SOURCE + 1, "source", INT4OID, -1, 0);
	synchro_finish_tupledesc(desc);
	return desc;
}

static SynchroChangedTable *
find_changed(Collector *collector, Oid relid)
{
	static AttrNumber sort_columns[] = {
		SORT_ORDER + 1, SORT_IDENTITY + 1, SORT_TIME + 1, SORT_TXID + 1, SORT_PART + 1, SORT_POSITION + 1
	};
	static Oid	sort_operators[] = {
		Int8LessOperator, ByteaLessOperator, Int8LessOperator, Int8LessOperator, Int4LessOperator, Int4LessOperator
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
		changed->keys = synchro_changestore_create();
		changed->olds = synchro_changestore_create();
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
	slot->tts_values[SORT_ORDER] = Int64GetDatum(synchro_key_order(record->identity, changed->table));
	slot->tts_values[SORT_IDENTITY] = synchro_bytes_datum(record->identity);
	slot->tts_values[SORT_TIME] = Int64GetDatum(row->parked ? DT_NOBEGIN : row->changed_at);
	slot->tts_values[SORT_TXID] = Int64GetDatum((int64) row->txid);
	slot->tts_values[SORT_PART] = Int32GetDatum(row->part);
	slot->tts_values[SORT_POSITION] = Int32GetDatum(position);
	slot->tts_values[SORT_FLAGS] = Int32GetDatum(record->op | (named ? FLAG_NAMED : 0) |
												 (row->parked ? FLAG_PARKED | (row->due ? FLAG_DUE : 0) :
												  row->txid == 0 ? FLAG_AGAIN : 0) |
												 (record->derived ? FLAG_DERIVED : 0));
	slot->tts_values[SORT_STAMP] = Int64GetDatum(record->stamp.at);
	slot->tts_values[SORT_SOURCE] = Int32GetDatum(record->stamp.source);
	slot->tts_isnull[SORT_OLD] = !record->has_old || !old_is_readable;
	if (!slot->tts_isnull[SORT_OLD])
		slot->tts_values[SORT_OLD] = synchro_bytes_datum(record->old_key);
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(changed->sort->sort, slot);
}

/*
 * Has the remote itself pushed a change here?
 */
static bool
is_known_to_peer(const Collector *collector, SynchroStamp stamp)
{
	return collector->peer != NULL && stamp.source != 0 &&
		synchro_uuid_equal(&synchro_stamps_source(collector->stamps, stamp)->via, collector->peer);
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
	const SynchroSnapshot *named_in = collector->named;
	const SynchroStalled *stalled;
	bool		named;
	MemoryContext old;

	if (synchro_stamps_note(collector->stamps, row))
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
				 errmsg("primary key of table %s was altered while changes were pending",
						changed->table->qualified),
				 errhint("Run synchro.reset() for each remote, then update the rows that it lacks, so that they are logged anew.")));
	}
	old_is_readable = SYNCHRO_LAYOUT_KEY(row->layout) == SYNCHRO_LAYOUT_KEY(changed->table->layout);
	old = MemoryContextSwitchTo(collector->row_context);
	for (int position = 0; pos < end; position++)
	{
		SynchroKeyRecord record;

		CHECK_FOR_INTERRUPTS();
		pos = synchro_key_next(pos, end, changed->table->nidentity, nkey, &record);
		put_record(collector, changed, row, &record, position, old_is_readable, named);
		collector->changes->nentries++;
		collector->changes->nagain += row->txid == 0;
		if (record.moved && !named)
		{
			MemoryContextSwitchTo(collector->changes->context);
			changed->sort->moves = synchro_moves_add(changed->sort->moves, row, &record, position,
													 is_known_to_peer(collector, record.stamp));
			MemoryContextSwitchTo(collector->row_context);
		}
		MemoryContextReset(collector->row_context);
	}
	MemoryContextSwitchTo(old);
	if (!row->parked)
		collector->changes->newest = Max(collector->changes->newest, row->changed_at);
}

/* all that the log says about one key */
typedef struct KeyHistory
{
	SynchroBytes identity;
	bool		pending;		/* something of it is new to the remote */
	bool		unnamed;		/* has entries that count, see FLAG_NAMED */
	SynchroOp	first_op;		/* of those */
	bool		removed;		/* deleted, or moved to another identity */
	bool		has_old;
	SynchroBytes old_key;
	bool		again;			/* is sent again */
	bool		gone_again;		/* a delete is to be sent again, of the row that */
	SynchroBytes last_key;		/* was called this at last */
	SynchroStamp last_stamp;
	SynchroStamp newest;
	TimestampTz born;
	bool		derived;		/* a name is gone that the remote may know */
	SynchroBytes derived_key;
	SynchroStamp derived_stamp;
	bool		waits;			/* is parked, and nothing else is said of it */
} KeyHistory;

typedef void (*HistoryCallback) (SynchroChangedTable *changed, const KeyHistory *group, void *arg);

static SynchroBytes
slot_old_key(TupleTableSlot *slot)
{
	return synchro_key_copy(synchro_datum_bytes(slot->tts_values[SORT_OLD]));
}

/*
 * The remote has sent this: it knows the row as it is now.
 */
static void
begin_anew(KeyHistory *group, TupleTableSlot *slot, int flags, SynchroStamp stamp)
{
	SynchroBytes identity = group->identity;
	KeyHistory	before = *group;

	memset(group, 0, sizeof(*group));
	group->identity = identity;
	group->newest = stamp;
	group->derived = before.derived;
	group->derived_key = before.derived_key;
	group->derived_stamp = before.derived_stamp;
	if ((flags & FLAG_DERIVED) != 0 && !slot->tts_isnull[SORT_OLD])
	{
		group->derived = true;
		group->derived_key = slot_old_key(slot);
		group->derived_stamp = stamp;
	}
}

static void
add_to_group(const Collector *collector, KeyHistory *group, TupleTableSlot *slot)
{
	int			flags = DatumGetInt32(slot->tts_values[SORT_FLAGS]);
	SynchroOp	op = (SynchroOp) (flags & FLAG_OP_MASK);
	SynchroStamp stamp = {DatumGetInt64(slot->tts_values[SORT_STAMP]), DatumGetInt32(slot->tts_values[SORT_SOURCE])};

	group->waits = (flags & (FLAG_PARKED | FLAG_DUE)) == FLAG_PARKED;
	if ((flags & (FLAG_AGAIN | FLAG_PARKED)) == 0 && is_known_to_peer(collector, stamp))
	{
		begin_anew(group, slot, flags, stamp);
		return;
	}
	stamp = synchro_stamps_of(collector->stamps, (uint64) DatumGetInt64(slot->tts_values[SORT_TXID]),
							  DatumGetInt64(slot->tts_values[SORT_TIME]), stamp);
	group->pending = true;
	if (group->newest.at == 0 || synchro_stamps_compare(collector->stamps, stamp, group->newest) > 0)
		group->newest = stamp;
	if (flags & FLAG_NAMED)
	{
		bool		gone = (flags & FLAG_AGAIN) != 0 && !slot->tts_isnull[SORT_OLD] && op == SYNCHRO_OP_DELETE;

		/* another node is told of a name whatever came after it */
		if (gone || collector->peer == NULL)
			group->gone_again = gone;
		group->again |= (flags & FLAG_AGAIN) != 0;
		if (gone)
		{
			group->last_key = slot_old_key(slot);
			group->last_stamp = stamp;
		}
		return;
	}
	if (!group->unnamed)
	{
		group->first_op = op;
		group->born = op == SYNCHRO_OP_INSERT ? stamp.at : 0;
	}
	group->unnamed = true;
	group->removed |= op == SYNCHRO_OP_DELETE;
	if (!group->has_old && !slot->tts_isnull[SORT_OLD])
	{
		group->has_old = true;
		group->old_key = slot_old_key(slot);
	}
}

/*
 * Call back for each key of a sorted table.
 */
static void
walk_groups(const Collector *collector, SynchroChangedTable *changed,
			HistoryCallback callback, void *arg)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(collector->desc, &TTSOpsMinimalTuple);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro group",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	KeyHistory	group = {{0}};

	tuplesort_rescan(changed->sort->sort);
	while (tuplesort_gettupleslot(changed->sort->sort, true, false, slot, NULL))
	{
		SynchroBytes identity;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		identity = synchro_datum_bytes(slot->tts_values[SORT_IDENTITY]);
		if (group.identity.data == NULL || group.identity.len != identity.len ||
			memcmp(group.identity.data, identity.data, identity.len) != 0)
		{
			if (group.identity.data != NULL)
				callback(changed, &group, arg);
			MemoryContextReset(context);
			memset(&group, 0, sizeof(group));
			group.identity = synchro_key_copy(identity);
		}
		add_to_group(collector, &group, slot);
	}
	if (group.identity.data != NULL)
		callback(changed, &group, arg);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Store a key (kind 0) or a name of before.
 */
static void
put_key(SynchroChangedTable *changed, const KeyHistory *group, char kind,
		SynchroBytes name, SynchroStamp named)
{
	SynchroChangedKey key = {group->identity, kind, name, named, group->newest, group->born};

	synchro_changestore_put(kind == 0 ? changed->keys : changed->olds, &key);
	if (kind == 0)
		changed->nkeys++;
	else
		changed->nolds++;
}

static void
put_old(SynchroChangedTable *changed, const KeyHistory *group, char kind, SynchroBytes name)
{
	put_key(changed, group, kind, name, group->newest);
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
	bool		for_peer;
} Emitter;

static void
emit_group(SynchroChangedTable *changed, const KeyHistory *group, void *arg)
{
	const Emitter *emitter = arg;
	const SynchroBytes none = {0};
	SynchroOrigin *origin = NULL;
	SynchroBytes name;
	int64		nolds = changed->nolds;

	if (group->waits)
		return;
	if (emitter->origins != NULL)
		origin = synchro_moves_find(emitter->origins, group->identity);
	if (origin != NULL && origin->arrived)
	{
		SynchroOrigin *from = synchro_moves_find(emitter->origins, origin->from);

		if (from != NULL && from->known)
			put_old(changed, group, 'o', from->name);
		if (name_of_before(changed, group, &name))
			put_old(changed, group, 'd', name);
	}
	else if (name_of_before(changed, group, &name))
	{
		/* what is gone of a table that is not watched leaves no successor */
		put_old(changed, group, group->removed && !changed->table->watched ? 'd' : 'o', name);
	}

	if (group->derived && changed->table->watched)
		put_key(changed, group, 'g', group->derived_key, group->derived_stamp);

	/* a row with a name of before is in the batch because of that */
	if (changed->nolds == nolds && group->pending && emitter->with_keys && changed->table->watched)
	{
		if (group->gone_again)
			put_key(changed, group, 0, group->last_key, group->last_stamp);
		else if (emitter->for_peer && group->again && group->unnamed && group->has_old)
		{
			/*
			 * The row is new, and yet the remote has one of its first name, or
			 * it would not have been told to hear of it: the name is gone.
			 */
			put_key(changed, group, 0, group->old_key, group->newest);
		}
		else
			put_key(changed, group, 0, none, group->newest);
	}
}

static void
finish_table(const Collector *collector, SynchroChangedTable *changed, bool with_keys)
{
	Emitter		emitter = {NULL, with_keys, collector->peer != NULL};

	tuplesort_performsort(changed->sort->sort);
	if (changed->sort->moves != NIL)
	{
		emitter.origins = synchro_moves_follow(changed->sort->moves);
		walk_groups(collector, changed, learn_name, emitter.origins);
	}
	walk_groups(collector, changed, emit_group, &emitter);
	tuplesort_end(changed->sort->sort);
	changed->sort = NULL;
}

/*
 * Collect what the active snapshot sees of the log and the snapshot since did
 * not, and a remote's backlog.
 *
 * since: NULL for all of the log.  named: log entries that this snapshot saw
 * give keys, but no names of before; NULL: none.  backlog: name of the remote,
 * or NULL.  parked: what is parked of it, or NULL.  stalled: tables that
 * are not collected, or, if they are due, since snapshots of their own.  peer: id of the remote if it is a node that pushes, too; what it
 * has sent is not collected.  with_keys: collect keys as well as names of
 * before.
 *
 * The result lives in a child of the current memory context, and outlives
 * the transaction.  Needs a scope of synchro_sql_open().
 */
SynchroChangeSet *
synchro_changes_collect(const SynchroSnapshot *since, const SynchroSnapshot *named,
						const char *backlog, const SynchroParkedSet *parked, List *stalled,
						const pg_uuid_t *peer, bool with_keys)
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
	collector.peer = peer;
	collector.stalled = stalled;
	collector.since = since;
	collector.stamps = synchro_stamps_create();
	changes->sources = synchro_stamps_sources(collector.stamps);
	collector.desc = sort_descriptor();
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
	foreach(cell, changes->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		if (changed->table == NULL)
			continue;
		finish_table(&collector, changed, with_keys);
		changes->nkeys += changed->nkeys;
		changes->nolds += changed->nolds;
	}
	ExecDropSingleTupleTableSlot(collector.slot);
	MemoryContextSwitchTo(old);
	return changes;
}

/*
 * The next key of a table, in the current memory context; false at the end.
 * Its name: the natural key of a row whose delete is to be sent again, else
 * none.
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
			tuplestore_end(changed->keys);
		if (changed->olds != NULL)
			tuplestore_end(changed->olds);
	}
	MemoryContextDelete(changes->context);
}
