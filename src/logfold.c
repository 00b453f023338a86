/*-------------------------------------------------------------------------
 *
 * logfold.c
 *	  Folds two segments of the log into one that keeps what has to be known
 *	  of each row.
 *
 * Of each key the entry that committed last is kept, and all that say more
 * than "changed": inserts, deletes, old keys and moves.  Each keeps its own
 * transaction id, time and order.  So whatever snapshot a remote has, it finds
 * the key if it was changed since, and what the row was called then; and the
 * newest entry of a key tells whether it was changed after a given time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"

#include "changelog.h"
#include "changestore.h"
#include "compat.h"
#include "localsql.h"
#include "logkeeper.h"

#define SORT_MEMORY		(16 * 1024) /* kB */

/* what is compared first, and what is found fastest, comes first */
enum
{
	FOLD_ORDER,					/* tells keys apart, most of them */
	FOLD_RELATION, FOLD_LAYOUT, FOLD_TIME, FOLD_TXID,
	FOLD_WRITTEN,				/* time of its own: order within a transaction */
	FOLD_PLACE,					/* part, and position in that */
	FOLD_KEEP, FOLD_RENAMES, FOLD_IDENTITY, FOLD_RECORD, FOLD_COLUMNS
};

typedef struct Folder
{
	TupleDesc	desc;
	Tuplesortstate *by_key;
	Tuplesortstate *by_time;
	TupleTableSlot *slot;
	MemoryContext row_context;
	HTAB	   *stamps;			/* of Stamp */
} Folder;

/* when a transaction committed that had written some of its rows before */
typedef struct Stamp
{
	uint64		txid;			/* hash key */
	TimestampTz at;
} Stamp;

static TupleDesc
make_descriptor(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(FOLD_COLUMNS);

	TupleDescInitEntry(desc, FOLD_ORDER + 1, "order", INT8OID, -1, 0);
	TupleDescInitEntry(desc, FOLD_RELATION + 1, "relation", INT8OID, -1, 0);
	TupleDescInitEntry(desc, FOLD_LAYOUT + 1, "layout", INT4OID, -1, 0);
	TupleDescInitEntry(desc, FOLD_TIME + 1, "time", INT8OID, -1, 0);
	TupleDescInitEntry(desc, FOLD_TXID + 1, "txid", INT8OID, -1, 0);
	TupleDescInitEntry(desc, FOLD_WRITTEN + 1, "written", INT8OID, -1, 0);
	TupleDescInitEntry(desc, FOLD_PLACE + 1, "place", INT8OID, -1, 0);
	TupleDescInitEntry(desc, FOLD_KEEP + 1, "keep", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, FOLD_RENAMES + 1, "renames", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, FOLD_IDENTITY + 1, "identity", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, FOLD_RECORD + 1, "record", BYTEAOID, -1, 0);
	synchro_finish_tupledesc(desc);
	return desc;
}

static void
note_stamp(const SynchroLogRow *row, void *arg)
{
	Stamp	   *stamp;

	if (row->relation != SYNCHRO_STAMP_RELATION)
		return;
	stamp = hash_search(arg, &row->txid, HASH_ENTER, NULL);
	stamp->at = row->changed_at;
}

/*
 * The stamp rows of a segment.  A transaction's rows are all in one segment.
 */
static HTAB *
read_stamps(int segment)
{
	HASHCTL		ctl = {0};
	HTAB	   *stamps;

	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(Stamp);
	ctl.hcxt = CurrentMemoryContext;
	stamps = hash_create("synchro stamps", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	synchro_log_scan_segment(segment, note_stamp, stamps);
	return stamps;
}

/*
 * A row's time, which its transaction's stamp overrides: so the stamp rows
 * need not be kept.
 */
static TimestampTz
commit_time(const Folder *folder, const SynchroLogRow *row)
{
	Stamp	   *stamp = hash_search(folder->stamps, &row->txid, HASH_FIND, NULL);

	return stamp != NULL ? stamp->at : row->changed_at;
}

/*
 * Add an entry.  order: a function of the other parts of its key.
 */
static void
put(Folder *folder, const SynchroLogRow *row, int64 order, SynchroBytes identity, int position,
	bool keep, SynchroBytes records, bool renames)
{
	TupleTableSlot *slot = folder->slot;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, 0, sizeof(bool) * FOLD_COLUMNS);
	slot->tts_values[FOLD_ORDER] = Int64GetDatum(order);
	slot->tts_values[FOLD_RELATION] = Int64GetDatum(row->relation);
	slot->tts_values[FOLD_LAYOUT] = Int32GetDatum((int32) row->layout);
	slot->tts_values[FOLD_TIME] = Int64GetDatum(commit_time(folder, row));
	slot->tts_values[FOLD_TXID] = Int64GetDatum((int64) row->txid);
	slot->tts_values[FOLD_WRITTEN] = Int64GetDatum(row->changed_at);
	slot->tts_values[FOLD_PLACE] = Int64GetDatum(((int64) row->part << 32) + position);
	slot->tts_values[FOLD_KEEP] = BoolGetDatum(keep);
	slot->tts_values[FOLD_RENAMES] = BoolGetDatum(renames);
	slot->tts_values[FOLD_IDENTITY] = synchro_bytes_datum(identity);
	slot->tts_values[FOLD_RECORD] = synchro_bytes_datum(records);
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(folder->by_key, slot);
}

/*
 * Keep a row as it is.
 */
static void
keep_row(Folder *folder, const SynchroLogRow *row)
{
	put(folder, row, 0, row->keys, 0, true, row->keys, row->renames);
}

static void
fold_records(Folder *folder, const SynchroLogRow *row, const SynchroTable *table)
{
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;

	for (int position = 0; pos < end; position++)
	{
		SynchroKeyRecord record;
		const char *start = pos;

		CHECK_FOR_INTERRUPTS();
		pos = synchro_key_next(pos, end, table, row->layout, &record);
		put(folder, row, synchro_key_order(record.identity, table), record.identity, position,
			record.op != SYNCHRO_OP_UPDATE || record.has_old || record.moved,
			(SynchroBytes) {start, pos - start}, synchro_key_renames(start));
	}
}

/*
 * A table is only described if nobody has it locked, or an index of it: a
 * REINDEX has SHARE on it.  To wait for that would keep all who read or write
 * the log waiting, too, and might be for ever, if he who has the lock reads it.
 */
static void
fold_row(const SynchroLogRow *row, void *arg)
{
	Folder	   *folder = arg;
	MemoryContext old;

	if (row->relation == SYNCHRO_STAMP_RELATION)
		return;
	old = MemoryContextSwitchTo(folder->row_context);
	if (!ConditionalLockRelationOid(row->relation, RowExclusiveLock))
		keep_row(folder, row);
	else
	{
		const SynchroTable *table = synchro_table_get(row->relation, true);

		/* what is gone from here cannot be pushed any more */
		if (table != NULL && SYNCHRO_LAYOUT_IDENTITY(table->layout) != SYNCHRO_LAYOUT_IDENTITY(row->layout))
			keep_row(folder, row);
		else if (table != NULL)
			fold_records(folder, row, table);
		UnlockRelationOid(row->relation, RowExclusiveLock);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(folder->row_context);
}

static bool
same_key(TupleTableSlot *a, TupleTableSlot *b)
{
	struct varlena *x = (struct varlena *) DatumGetPointer(a->tts_values[FOLD_IDENTITY]);
	struct varlena *y = (struct varlena *) DatumGetPointer(b->tts_values[FOLD_IDENTITY]);

	return a->tts_values[FOLD_RELATION] == b->tts_values[FOLD_RELATION] &&
		a->tts_values[FOLD_LAYOUT] == b->tts_values[FOLD_LAYOUT] &&
		VARSIZE_ANY_EXHDR(x) == VARSIZE_ANY_EXHDR(y) &&
		memcmp(VARDATA_ANY(x), VARDATA_ANY(y), VARSIZE_ANY_EXHDR(x)) == 0;
}

/*
 * Does an entry say nothing of its row but how another node calls it?
 */
static bool
is_refused_name(TupleTableSlot *slot)
{
	const struct varlena *record = (struct varlena *) DatumGetPointer(slot->tts_values[FOLD_RECORD]);

	return (*(const uint8 *) VARDATA_ANY(record) & SYNCHRO_KEY_REFUSED) != 0;
}

/*
 * From the sort by key into the sort by time: the last entry of each key, and
 * those that say more.
 */
static void
choose(Folder *folder)
{
	TupleTableSlot *previous = MakeSingleTupleTableSlot(folder->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *next = MakeSingleTupleTableSlot(folder->desc, &TTSOpsMinimalTuple);
	bool		any = false;

	tuplesort_performsort(folder->by_key);
	while (tuplesort_gettupleslot(folder->by_key, true, true, next, NULL))
	{
		TupleTableSlot *swap = previous;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(next);

		/* it is no later change, so must not take the place of one */
		if (is_refused_name(next))
		{
			tuplesort_puttupleslot(folder->by_time, next);
			continue;
		}
		if (any && (DatumGetBool(previous->tts_values[FOLD_KEEP]) || !same_key(previous, next)))
			tuplesort_puttupleslot(folder->by_time, previous);
		previous = next;
		next = swap;
		any = true;
	}
	if (any)
		tuplesort_puttupleslot(folder->by_time, previous);
	tuplesort_performsort(folder->by_time);
	ExecDropSingleTupleTableSlot(previous);
	ExecDropSingleTupleTableSlot(next);
}

/*
 * Write what was chosen, with the ids and times it had.
 */
static void
write_chosen(Folder *folder, int target)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(folder->desc, &TTSOpsMinimalTuple);
	SynchroLogWriter *writer = synchro_log_open(target, 0);
	int			parts;

	while (tuplesort_gettupleslot(folder->by_time, true, false, slot, NULL))
	{
		struct varlena *record;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		record = (struct varlena *) DatumGetPointer(slot->tts_values[FOLD_RECORD]);
		synchro_log_pose(writer, (uint64) DatumGetInt64(slot->tts_values[FOLD_TXID]),
						 DatumGetInt64(slot->tts_values[FOLD_TIME]));
		synchro_log_put(writer, (Oid) DatumGetInt64(slot->tts_values[FOLD_RELATION]),
						(uint32) DatumGetInt32(slot->tts_values[FOLD_LAYOUT]),
						VARDATA_ANY(record), VARSIZE_ANY_EXHDR(record),
						DatumGetBool(slot->tts_values[FOLD_RENAMES]));
	}
	synchro_log_close(writer, &parts);
	ExecDropSingleTupleTableSlot(slot);
}

static Tuplesortstate *
begin_sort(TupleDesc desc, int ncolumns, AttrNumber *columns, Oid *operators)
{
	Oid			collations[FOLD_COLUMNS] = {0};
	bool		nulls_first[FOLD_COLUMNS] = {0};

	return tuplesort_begin_heap(desc, ncolumns, columns, operators, collations,
								nulls_first, SORT_MEMORY, NULL, TUPLESORT_NONE);
}

/*
 * Fold two segments into target; the other is empty then.  other: -1 to fold
 * one in place.  The caller holds ACCESS EXCLUSIVE on them, has an active
 * snapshot taken after that, and a scope of synchro_sql_open().
 */
void
synchro_log_fold(int target, int other)
{
	AttrNumber	key_columns[] = {
		FOLD_ORDER + 1, FOLD_RELATION + 1, FOLD_LAYOUT + 1, FOLD_IDENTITY + 1,
		FOLD_TIME + 1, FOLD_TXID + 1, FOLD_WRITTEN + 1, FOLD_PLACE + 1
	};
	Oid			key_operators[] = {
		Int8LessOperator, Int8LessOperator, Int4LessOperator, ByteaLessOperator,
		Int8LessOperator, Int8LessOperator, Int8LessOperator, Int8LessOperator
	};
	AttrNumber	time_columns[] = {
		FOLD_TIME + 1, FOLD_TXID + 1, FOLD_WRITTEN + 1, FOLD_PLACE + 1
	};
	Oid			time_operators[] = {
		Int8LessOperator, Int8LessOperator, Int8LessOperator, Int8LessOperator
	};
	const int	segments[] = {target, other};
	Folder		folder = {0};

	folder.desc = make_descriptor();
	folder.slot = MakeSingleTupleTableSlot(folder.desc, &TTSOpsVirtual);
	folder.row_context = AllocSetContextCreate(CurrentMemoryContext, "synchro fold",
											   ALLOCSET_DEFAULT_SIZES);
	folder.by_key = begin_sort(folder.desc, lengthof(key_columns), key_columns, key_operators);
	folder.by_time = begin_sort(folder.desc, lengthof(time_columns), time_columns, time_operators);
	for (int i = 0; i < lengthof(segments); i++)
	{
		if (segments[i] < 0)
			continue;
		folder.stamps = read_stamps(segments[i]);
		synchro_log_scan_segment(segments[i], fold_row, &folder);
		hash_destroy(folder.stamps);
	}
	choose(&folder);
	for (int i = 0; i < lengthof(segments); i++)
		if (segments[i] >= 0)
			synchro_log_truncate(segments[i]);
	write_chosen(&folder, target);
	tuplesort_end(folder.by_key);
	tuplesort_end(folder.by_time);
	ExecDropSingleTupleTableSlot(folder.slot);
}
