/*-------------------------------------------------------------------------
 *
 * logindex.c
 *	  The log's indexes: which blocks they cover, and those that come and go.
 *
 * The BRIN index of a segment has an entry for a range of blocks once somebody
 * asks for that; ranges without one are read by each pass.  So they are to be
 * covered soon, but not before they are full: whoever adds a row to a range
 * with an entry has to widen it, since its transaction is the newest, with a
 * WAL record of almost the size of the row's and a lock on the index's only
 * page.  Where the file ends does not tell: if several processes wait to extend
 * it, it is extended by many blocks at once.  So the blocks are looked at.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"

#include "changelog.h"
#include "compat.h"
#include "localsql.h"
#include "logindex.h"

#define RANGE_BLOCKS	16		/* as the install script says */
#define MANY_RANGES		256		/* rather have all looked at than one by one */

/* a range is left when so many blocks after it are in use; a pass reads these, too */
#define AHEAD_BLOCKS	1

/* a block that somebody has left half empty does not keep more from being covered */
#define OPEN_BLOCKS		(8 * RANGE_BLOCKS)

/* what we remember of a segment; nothing depends on it but speed */
typedef struct IndexNote
{
	Oid			file;			/* it is about this file */
	BlockNumber covered;		/* the index has the blocks below */
} IndexNote;

static IndexNote notes[SYNCHRO_LOG_SEGMENTS];

/*
 * How many bytes of a block are free; BLCKSZ if it was never written to.
 */
static Size
free_space(Relation rel, BlockNumber block)
{
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page;
	Size		result;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	result = PageIsNew(page) || PageIsEmpty(page) ? BLCKSZ : PageGetHeapFreeSpace(page);
	UnlockReleaseBuffer(buffer);
	return result;
}

/*
 * Will nobody add to the range that begins there?  A row takes up to a block,
 * so what is half full may be all that goes into one.
 */
static bool
is_left(Relation rel, BlockNumber begin, BlockNumber nblocks)
{
	if (begin + OPEN_BLOCKS <= nblocks)
		return true;
	if (begin + RANGE_BLOCKS + AHEAD_BLOCKS > nblocks)
		return false;
	for (BlockNumber i = 0; i < RANGE_BLOCKS + AHEAD_BLOCKS; i++)
		if (free_space(rel, begin + i) > (i < RANGE_BLOCKS ? BLCKSZ / 2 : BLCKSZ - 1))
			return false;
	return true;
}

static void
cover_segment(int segment, Relation rel)
{
	IndexNote  *note = &notes[segment];
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	Datum		index = ObjectIdGetDatum(synchro_log_index(segment));

	if (note->file != rel->rd_rel->relfilenode)
	{
		note->file = rel->rd_rel->relfilenode;
		note->covered = 0;
	}
	if (note->covered + (MANY_RANGES + 1) * RANGE_BLOCKS < nblocks &&
		ConditionalLockRelationOid(RelationGetRelid(rel), ShareUpdateExclusiveLock))
	{
		(void) DirectFunctionCall1(brin_summarize_new_values, index);
		note->covered = nblocks - nblocks % RANGE_BLOCKS;
	}

	/* the lock that this takes, if it is free at once */
	while (is_left(rel, note->covered, nblocks) &&
		   ConditionalLockRelationOid(RelationGetRelid(rel), ShareUpdateExclusiveLock))
	{
		(void) DirectFunctionCall2(brin_summarize_range, index, Int64GetDatum(note->covered));
		note->covered += RANGE_BLOCKS;
	}
}

/*
 * Have the log's indexes cover the blocks that are full.  A local transaction
 * of its own.
 */
void
synchro_logindex_cover(void)
{
	synchro_local_begin("synchro: indexing the log");
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
	{
		Relation	rel = table_open(synchro_log_segment(i), AccessShareLock);

		cover_segment(i, rel);
		table_close(rel, AccessShareLock);
	}
	synchro_local_commit();
}

/*
 * Indexes of a segment besides the two that its writer knows: while it is made anew
 * concurrently (REINDEX) there is another one of either, which takes its place later,
 * and expects to have by then whatever was written meanwhile.  Returns those that are
 * to be inserted into, opened; as a rule NIL.  With a lock on the segment: who makes an
 * index waits for whoever has that and may not know of it.
 */
List *
synchro_logindex_others(Relation rel, int segment)
{
	List	   *oids = RelationGetIndexList(rel);
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, list_length(oids) > 2 ? oids : NIL)
	{
		Oid			oid = lfirst_oid(cell);
		Relation	index;

		if (oid == synchro_log_index(segment) || oid == synchro_log_renames_index(segment))
			continue;
		index = index_open(oid, RowExclusiveLock);
		if (index->rd_index->indisready)
			result = lappend(result, index);
		else
			index_close(index, NoLock);
	}
	list_free(oids);
	return result;
}

/*
 * Insert a row into these.
 */
void
synchro_logindex_insert(Relation rel, List *others, TupleTableSlot *slot)
{
	EState	   *estate = CreateExecutorState();
	ExprContext *context = GetPerTupleExprContext(estate);
	ListCell   *cell;

	context->ecxt_scantuple = slot;
	foreach(cell, others)
	{
		Relation	index = lfirst(cell);
		IndexInfo  *info = BuildIndexInfo(index);
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];

		if (info->ii_Predicate != NIL && !ExecQual(ExecPrepareQual(info->ii_Predicate, estate), context))
			continue;
		FormIndexDatum(info, slot, estate, values, nulls);
		index_insert(index, values, nulls, &slot->tts_tid, rel, UNIQUE_CHECK_NO, false, info);
		synchro_index_insert_cleanup(index, info);
	}
	FreeExecutorState(estate);
}

/*
 * Close them.
 */
void
synchro_logindex_close(List *others)
{
	ListCell   *cell;

	foreach(cell, others)
		index_close((Relation) lfirst(cell), NoLock);
}

/*
 * A segment was truncated: its first range has an entry, which goes.
 */
void
synchro_logindex_begin(int segment)
{
	(void) DirectFunctionCall2(brin_desummarize_range, ObjectIdGetDatum(synchro_log_index(segment)), Int64GetDatum(0));
}
