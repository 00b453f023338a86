/*-------------------------------------------------------------------------
 *
 * logwrite.c
 *	  The log's writer: keys made rows of the live segment.
 *
 * Writers add rows, each a chunk of keys of one table, to the live segment;
 * synchro.log_switch names it.  What a transaction has changed of several
 * tables is one row, if it fits: a row costs some 90 bytes of WAL.  The switch
 * is read from the sequence's page, so without regard to snapshots or rights,
 * and once more after the segment is locked: a rotation that came in between
 * is noticed, and one that comes later waits for us with its truncation.  A
 * transaction goes on writing to the segment that it wrote to first, so that
 * it never pins more than one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "commands/tablecmds.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changelog.h"
#include "clock.h"
#include "compat.h"
#include "logindex.h"

/*
 * Keys of a chunk and their bytes.  A chunk row must fit on a page, since
 * its storage is PLAIN; a longer single key goes to a column that is toasted.
 */
#define CHUNK_KEYS		500
#define CHUNK_BYTES		7600

enum
{
	LOG_RELATION, LOG_LAYOUT, LOG_TXID, LOG_CHANGED_AT, LOG_PART,
	LOG_KEYS, LOG_LONG_KEY, LOG_RENAMES, LOG_COLUMNS
};

/* the chunk being filled for one table */
typedef struct Chunk
{
	Oid			relation;
	uint32		layout;
	int			nkeys;
	bool		renames;		/* has names that rows have lost and live on */
	StringInfoData keys;
} Chunk;

struct SynchroLogWriter
{
	MemoryContext context;
	int			segment;
	Relation	rel;
	Relation	index;
	IndexInfo  *index_info;
	Relation	renames;		/* the index of rows with renames; NULL: not opened */
	IndexInfo  *renames_info;
	List	   *others;			/* other indexes; NIL as a rule */
	List	   *chunks;
	Chunk	   *last;			/* most recently used */
	TupleTableSlot *slot;
	bool		snapshot_pushed;
	int64		txid;
	TimestampTz stamp;
	int			part;
};

static void write_chunks(SynchroLogWriter *writer);

/*
 * Lock the live segment for writing, and return its number.
 *
 * To the end of the transaction, whatever becomes of the subtransaction, or of
 * the cursor, that is at work now: what was written early of others stays, and a
 * FETCH that fails gives back what its cursor has locked, also before.
 *
 * Folding may hold a segment that is no longer live for seconds: we do not
 * wait for it, but look again which one is live.
 */
static int
lock_live_segment(void)
{
	/* where we wrote last: as a rule that is live still, and to look once is enough */
	static int	segment = -1;
	ResourceOwner owner = CurrentResourceOwner;

	/* an error leaves it so, but then the (sub)transaction aborts, which sets its own */
	CurrentResourceOwner = TopTransactionResourceOwner;
	if (segment < 0)
		segment = synchro_log_live();
	for (;;)
	{
		Oid			relid = synchro_log_segment(segment);
		bool		locked = ConditionalLockRelationOid(relid, RowExclusiveLock);
		int			live = synchro_log_live();

		if (!locked && live == segment)
		{
			LockRelationOid(relid, RowExclusiveLock);
			locked = true;
			live = synchro_log_live();
		}
		if (locked && live == segment)
			break;

		/* a rotation came in between; nobody saw us write */
		if (locked)
			UnlockRelationOid(relid, RowExclusiveLock);
		segment = live;
	}
	CurrentResourceOwner = owner;
	return segment;
}

/*
 * Begin to write to the log.
 *
 * segment: the one that this transaction wrote to before, or -1.
 * first_part: number of the transaction's rows so far.
 */
SynchroLogWriter *
synchro_log_open(int segment, int first_part)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "synchro log writer",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SynchroLogWriter *writer = palloc0(sizeof(SynchroLogWriter));

	writer->context = context;
	writer->part = first_part;
	writer->segment = segment >= 0 ? segment : lock_live_segment();
	writer->rel = table_open(synchro_log_segment(writer->segment), RowExclusiveLock);
	writer->index = index_open(synchro_log_index(writer->segment), RowExclusiveLock);
	writer->index_info = BuildIndexInfo(writer->index);
	writer->others = synchro_logindex_others(writer->rel, writer->segment);
	writer->slot = MakeSingleTupleTableSlot(RelationGetDescr(writer->rel), &TTSOpsVirtual);

	/* at commit there is none left, which a table with TOAST asks for */
	if (!HaveRegisteredOrActiveSnapshot())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		writer->snapshot_pushed = true;
	}
	writer->txid = (int64) U64FromFullTransactionId(GetTopFullTransactionId());
	writer->stamp = synchro_clock_stamp();
	MemoryContextSwitchTo(old);
	return writer;
}

/*
 * The stamp that rows are written with.
 */
TimestampTz
synchro_log_stamp(const SynchroLogWriter *writer)
{
	return writer->stamp;
}

/*
 * From now on write rows that bear another transaction's id and time: for
 * folding, which keeps entries as they are.
 */
void
synchro_log_pose(SynchroLogWriter *writer, uint64 txid, TimestampTz stamp)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);

	if ((uint64) writer->txid != txid || writer->stamp != stamp)
	{
		write_chunks(writer);
		writer->txid = (int64) txid;
		writer->stamp = stamp;
	}
	MemoryContextSwitchTo(old);
}

/*
 * Note where a row lies that tells of renames.  Few transactions rename rows,
 * so this index takes nothing of the others, and whoever asks whether any names
 * have changed looks at one page.
 */
static void
index_renames(SynchroLogWriter *writer, Datum txid)
{
	bool		isnull = false;

	if (writer->renames == NULL)
	{
		writer->renames = index_open(synchro_log_renames_index(writer->segment), RowExclusiveLock);
		writer->renames_info = BuildIndexInfo(writer->renames);
	}
	index_insert(writer->renames, &txid, &isnull, &writer->slot->tts_tid,
				 writer->rel, UNIQUE_CHECK_NO, false, writer->renames_info);
}

static void
add_row(SynchroLogWriter *writer, Oid relation, uint32 layout,
		struct varlena *keys, struct varlena *long_key, bool renames)
{
	TupleTableSlot *slot = ExecClearTuple(writer->slot);
	Datum		indexed[] = {Int64GetDatum(writer->txid), TimestampTzGetDatum(writer->stamp)};
	bool		nulls[] = {false, false};

	memset(slot->tts_isnull, 0, sizeof(bool) * LOG_COLUMNS);
	slot->tts_values[LOG_RELATION] = ObjectIdGetDatum(relation);
	slot->tts_values[LOG_LAYOUT] = Int32GetDatum((int32) layout);
	slot->tts_values[LOG_TXID] = indexed[0];
	slot->tts_values[LOG_CHANGED_AT] = indexed[1];
	slot->tts_values[LOG_PART] = Int32GetDatum(writer->part++);
	slot->tts_values[LOG_KEYS] = PointerGetDatum(keys);
	slot->tts_isnull[LOG_KEYS] = keys == NULL;
	slot->tts_values[LOG_LONG_KEY] = PointerGetDatum(long_key);
	slot->tts_isnull[LOG_LONG_KEY] = long_key == NULL;
	slot->tts_values[LOG_RENAMES] = BoolGetDatum(true);
	slot->tts_isnull[LOG_RENAMES] = !renames;
	ExecStoreVirtualTuple(slot);

	/*
	 * Nothing of the log is for logical decoding: a FOR ALL TABLES
	 * publication shall not carry it.  table_multi_insert() could not say so.
	 */
	table_tuple_insert(writer->rel, slot, GetCurrentCommandId(true),
					   TABLE_INSERT_NO_LOGICAL, NULL);
	index_insert(writer->index, indexed, nulls, &slot->tts_tid,
				 writer->rel, UNIQUE_CHECK_NO, false, writer->index_info);
	if (renames)
		index_renames(writer, indexed[0]);
	if (writer->others != NIL)
		synchro_logindex_insert(writer->rel, writer->others, slot);
}

/*
 * A row's bytes, which begin with room for a header, as a datum: with the
 * header that is one byte where that serves, which their column's storage
 * keeps others from doing.
 */
static struct varlena *
seal(StringInfo keys, Oid relation, uint32 layout)
{
	int			len;
	char	   *datum;

	synchro_key_seal(keys, VARHDRSZ, relation, layout);
	len = keys->len - VARHDRSZ + VARHDRSZ_SHORT;
	datum = keys->data;

	if (len > VARATT_SHORT_MAX)
		SET_VARSIZE(datum, keys->len);
	else
	{
		datum += VARHDRSZ - VARHDRSZ_SHORT;
		SET_VARSIZE_SHORT(datum, len);
	}
	return (struct varlena *) datum;
}

static void
write_chunk(SynchroLogWriter *writer, Chunk *chunk)
{
	bool		is_long;
	struct varlena *keys;

	if (chunk->nkeys == 0)
		return;
	is_long = chunk->keys.len > CHUNK_BYTES;
	keys = seal(&chunk->keys, chunk->relation, chunk->layout);
	if (is_long)
		add_row(writer, chunk->relation, chunk->layout, NULL, keys, chunk->renames);
	else
		add_row(writer, chunk->relation, chunk->layout, keys, NULL, chunk->renames);
	chunk->nkeys = 0;
	chunk->renames = false;
	chunk->keys.len = VARHDRSZ;
}

/*
 * Write what is left of all tables, as one row if it fits.
 */
static void
write_chunks(SynchroLogWriter *writer)
{
	StringInfoData sections;
	int			nchunks = 0;
	int			len = VARHDRSZ;
	bool		renames = false;
	ListCell   *cell;

	foreach(cell, writer->chunks)
	{
		const Chunk *chunk = lfirst(cell);

		if (chunk->nkeys > 0)
		{
			nchunks++;
			len += SYNCHRO_SECTION_HEADER + chunk->keys.len - VARHDRSZ;
		}
	}
	if (nchunks < 2 || len > CHUNK_BYTES)
	{
		foreach(cell, writer->chunks)
			write_chunk(writer, lfirst(cell));
		return;
	}
	initStringInfo(&sections);
	sections.len = VARHDRSZ;
	foreach(cell, writer->chunks)
	{
		Chunk	   *chunk = lfirst(cell);
		uint32		header[] = {chunk->relation, chunk->layout, chunk->keys.len - VARHDRSZ};

		if (chunk->nkeys == 0)
			continue;
		appendBinaryStringInfo(&sections, (char *) header, SYNCHRO_SECTION_HEADER);
		appendBinaryStringInfo(&sections, chunk->keys.data + VARHDRSZ, chunk->keys.len - VARHDRSZ);
		renames |= chunk->renames;
		chunk->renames = false;
		chunk->nkeys = 0;
		chunk->keys.len = VARHDRSZ;
	}
	add_row(writer, SYNCHRO_SEVERAL_RELATIONS, 0, seal(&sections, SYNCHRO_SEVERAL_RELATIONS, 0), NULL, renames);
	/* sections are numbered as rows are: two may be of one table, altered in between */
	writer->part += nchunks - 1;
	pfree(sections.data);
}

static Chunk *
find_chunk(SynchroLogWriter *writer, Oid relation, uint32 layout)
{
	ListCell   *cell;
	Chunk	   *chunk = writer->last;

	if (chunk != NULL && chunk->relation == relation && chunk->layout == layout)
		return chunk;
	foreach(cell, writer->chunks)
	{
		chunk = lfirst(cell);
		if (chunk->relation == relation && chunk->layout == layout)
			return writer->last = chunk;
	}
	chunk = palloc0(sizeof(Chunk));
	chunk->relation = relation;
	chunk->layout = layout;
	initStringInfo(&chunk->keys);
	chunk->keys.len = VARHDRSZ;
	writer->chunks = lappend(writer->chunks, chunk);
	return writer->last = chunk;
}

/*
 * Add a key record (see keycodec.h) of a table to the log, or several.
 *
 * renames: they tell of names that rows have lost, see synchro_key_renames().
 */
void
synchro_log_put(SynchroLogWriter *writer, Oid relation, uint32 layout,
				const char *records, int len, bool renames)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);
	Chunk	   *chunk = find_chunk(writer, relation, layout);

	if (chunk->nkeys >= CHUNK_KEYS || chunk->keys.len + len > CHUNK_BYTES)
		write_chunk(writer, chunk);
	appendBinaryStringInfo(&chunk->keys, records, len);
	chunk->renames |= renames;
	chunk->nkeys++;
	MemoryContextSwitchTo(old);
}

/*
 * Add a row that only says when this transaction, which wrote some of its
 * rows early, commits.
 */
void
synchro_log_put_stamp(SynchroLogWriter *writer)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);

	add_row(writer, SYNCHRO_STAMP_RELATION, 0, NULL, NULL, false);
	MemoryContextSwitchTo(old);
}

/*
 * Write what is left and end writing.  The segment stays locked until the
 * transaction's end, so that it is not truncated under it.
 *
 * Returns the segment's number; *next_part is for the next synchro_log_open().
 */
int
synchro_log_close(SynchroLogWriter *writer, int *next_part)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);
	int			segment = writer->segment;

	write_chunks(writer);
	*next_part = writer->part;
	if (writer->snapshot_pushed)
		PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(writer->slot);
	synchro_index_insert_cleanup(writer->index, writer->index_info);
	index_close(writer->index, NoLock);
	if (writer->renames != NULL)
	{
		synchro_index_insert_cleanup(writer->renames, writer->renames_info);
		index_close(writer->renames, NoLock);
	}
	synchro_logindex_close(writer->others);
	table_close(writer->rel, NoLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(writer->context);
	return segment;
}

/*
 * Empty a segment, which is locked against all others, in a transaction of the log's
 * owner.  TRUNCATE as SQL would be for logical decoding: a publication FOR ALL TABLES
 * would empty the subscriber's own log, with changes in it that nobody else has.
 */
void
synchro_log_truncate(int segment)
{
	Relation	rel = table_open(synchro_log_segment(segment), AccessExclusiveLock);

	CheckTableNotInUse(rel, "TRUNCATE");
	synchro_truncate(list_make1(rel), list_make1_oid(RelationGetRelid(rel)), NIL);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}
