/*-------------------------------------------------------------------------
 *
 * historysort.c
 *	  Entries of the log, brought together by key.
 *
 * A table that is loaded, or changed by one statement, is mostly logged in
 * the order of its keys.  Each entry whose key comes after all that came
 * before it needs no sorting: it is appended to a run.  The others are sorted,
 * and merged with the run at last.  So a million rows inserted in order cost
 * one write and one read of each entry, whatever else is logged among them.
 *
 * Both live in files beyond a bounded piece of memory, and end with the
 * transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_operator_d.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/tuplesort.h"

#include "changestore.h"
#include "compat.h"
#include "historysort.h"

#define RUN_MEMORY		1024	/* kB */
#define SORT_MEMORY		4096	/* kB: enough to merge what a million entries take at once */

/* where entries come from, in order */
typedef struct HistoryInput
{
	Tuplestorestate *store;		/* NULL: none, or the sort itself */
	TupleTableSlot *slot;		/* the next one; empty at the end */
} HistoryInput;

struct SynchroHistorySort
{
	MemoryContext context;
	TupleDesc	desc;
	HistoryInput run;
	int64		last;			/* order of the run's last entry */
	Tuplesortstate *sort;		/* of all others; NULL: none yet */
	HistoryInput sorted;
	TupleTableSlot *slot;		/* returned last; NULL: none */
};

/*
 * What a slot of entries looks like.
 */
TupleDesc
synchro_historysort_descriptor(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(HISTORY_COLUMNS);

	TupleDescInitEntry(desc, HISTORY_ORDER + 1, "order", INT8OID, -1, 0);
	TupleDescInitEntry(desc, HISTORY_TIME + 1, "time", INT8OID, -1, 0);
	TupleDescInitEntry(desc, HISTORY_TXID + 1, "txid", INT8OID, -1, 0);
	TupleDescInitEntry(desc, HISTORY_PLACE + 1, "place", INT8OID, -1, 0);
	TupleDescInitEntry(desc, HISTORY_STAMP + 1, "stamp", INT8OID, -1, 0);
	TupleDescInitEntry(desc, HISTORY_SOURCE + 1, "source", INT4OID, -1, 0);
	TupleDescInitEntry(desc, HISTORY_FLAGS + 1, "flags", INT4OID, -1, 0);
	TupleDescInitEntry(desc, HISTORY_IDENTITY + 1, "identity", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, HISTORY_OLD + 1, "old", BYTEAOID, -1, 0);
	synchro_finish_tupledesc(desc);
	return desc;
}

/*
 * An empty sort, in the current memory context.  desc: as above; it must last
 * as long.
 */
SynchroHistorySort *
synchro_historysort_create(TupleDesc desc)
{
	SynchroHistorySort *sort = palloc0(sizeof(SynchroHistorySort));

	sort->context = CurrentMemoryContext;
	sort->desc = desc;
	sort->last = PG_INT64_MIN;
	sort->run.store = tuplestore_begin_heap(false, false, RUN_MEMORY);
	sort->run.slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	sort->sorted.slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	return sort;
}

static Tuplesortstate *
begin_sort(TupleDesc desc)
{
	static AttrNumber columns[] = {
		HISTORY_ORDER + 1, HISTORY_IDENTITY + 1, HISTORY_TIME + 1, HISTORY_TXID + 1, HISTORY_PLACE + 1
	};
	static Oid	operators[] = {
		Int8LessOperator, ByteaLessOperator, Int8LessOperator, Int8LessOperator, Int8LessOperator
	};
	static Oid	collations[lengthof(columns)] = {0};
	static bool nulls_first[lengthof(columns)] = {0};

	return tuplesort_begin_heap(desc, lengthof(columns), columns, operators, collations,
								nulls_first, SORT_MEMORY, NULL, TUPLESORT_NONE);
}

/*
 * Add an entry, a virtual tuple.
 */
void
synchro_historysort_put(SynchroHistorySort *sort, TupleTableSlot *slot)
{
	int64		order = DatumGetInt64(slot->tts_values[HISTORY_ORDER]);

	if (order > sort->last)
	{
		sort->last = order;
		tuplestore_putvalues(sort->run.store, sort->desc, slot->tts_values, slot->tts_isnull);
		return;
	}
	if (sort->sort == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(sort->context);

		sort->sort = begin_sort(sort->desc);
		MemoryContextSwitchTo(old);
	}
	tuplesort_puttupleslot(sort->sort, slot);
}

static void
advance(SynchroHistorySort *sort, HistoryInput *source)
{
	/* the slot frees its tuple at the next call: that must not be gone before */
	MemoryContext old = MemoryContextSwitchTo(sort->context);
	bool		found = false;

	if (source->store != NULL)
		found = tuplestore_gettupleslot(source->store, true, false, source->slot);
	else if (sort->sort != NULL)
		found = tuplesort_gettupleslot(sort->sort, true, false, source->slot, NULL);
	if (found)
		slot_getallattrs(source->slot);
	else
		ExecClearTuple(source->slot);
	MemoryContextSwitchTo(old);
}

/*
 * No more entries are added: what was is to be read, again: more than once.
 */
void
synchro_historysort_finish(SynchroHistorySort *sort, bool again)
{
	if (sort->sort != NULL)
		tuplesort_performsort(sort->sort);
	if (sort->sort != NULL && again)
	{
		MemoryContext old = MemoryContextSwitchTo(sort->context);
		Tuplestorestate *store = tuplestore_begin_heap(false, false, RUN_MEMORY);

		MemoryContextSwitchTo(old);
		while (advance(sort, &sort->sorted), !TTS_EMPTY(sort->sorted.slot))
			tuplestore_puttupleslot(store, sort->sorted.slot);
		sort->sorted.store = store;
	}
	advance(sort, &sort->run);
	advance(sort, &sort->sorted);
}

/*
 * Begin again with the first one.
 */
void
synchro_historysort_rewind(SynchroHistorySort *sort)
{
	Assert(sort->sort == NULL || sort->sorted.store != NULL);
	sort->slot = NULL;
	tuplestore_rescan(sort->run.store);
	advance(sort, &sort->run);
	if (sort->sorted.store != NULL)
		tuplestore_rescan(sort->sorted.store);
	advance(sort, &sort->sorted);
}

static int
compare_numbers(const TupleTableSlot *a, const TupleTableSlot *b, int column)
{
	int64		x = DatumGetInt64(a->tts_values[column]);
	int64		y = DatumGetInt64(b->tts_values[column]);

	return x < y ? -1 : x > y ? 1 : 0;
}

/*
 * As begin_sort() has it.
 */
static int
compare_entries(const TupleTableSlot *a, const TupleTableSlot *b)
{
	int			cmp = compare_numbers(a, b, HISTORY_ORDER);

	if (cmp == 0)
	{
		SynchroBytes x = synchro_datum_bytes(a->tts_values[HISTORY_IDENTITY]);
		SynchroBytes y = synchro_datum_bytes(b->tts_values[HISTORY_IDENTITY]);

		cmp = memcmp(x.data, y.data, Min(x.len, y.len));
		if (cmp == 0)
			cmp = x.len - y.len;
	}
	if (cmp == 0)
		cmp = compare_numbers(a, b, HISTORY_TIME);
	if (cmp == 0)
		cmp = compare_numbers(a, b, HISTORY_TXID);
	return cmp != 0 ? cmp : compare_numbers(a, b, HISTORY_PLACE);
}

/*
 * The next entry, which lasts until the next call; NULL at the end.
 */
TupleTableSlot *
synchro_historysort_next(SynchroHistorySort *sort)
{
	TupleTableSlot *run = sort->run.slot;
	TupleTableSlot *sorted = sort->sorted.slot;

	if (sort->slot != NULL)
		advance(sort, sort->slot == run ? &sort->run : &sort->sorted);
	if (TTS_EMPTY(run) && TTS_EMPTY(sorted))
		return sort->slot = NULL;
	if (TTS_EMPTY(run))
		return sort->slot = sorted;
	if (TTS_EMPTY(sorted))
		return sort->slot = run;
	return sort->slot = compare_entries(run, sorted) <= 0 ? run : sorted;
}

/*
 * Give back memory and files.
 */
void
synchro_historysort_end(SynchroHistorySort *sort)
{
	ExecDropSingleTupleTableSlot(sort->run.slot);
	ExecDropSingleTupleTableSlot(sort->sorted.slot);
	tuplestore_end(sort->run.store);
	if (sort->sorted.store != NULL)
		tuplestore_end(sort->sorted.store);
	if (sort->sort != NULL)
		tuplesort_end(sort->sort);
}
