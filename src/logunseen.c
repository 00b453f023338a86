/*-------------------------------------------------------------------------
 *
 * logunseen.c
 *	  Rows of the log that a snapshot has not seen, read without SQL.
 *
 * Each pass asks for them, and each batch that another node pushes.  Which
 * blocks may have some the BRIN index says, and those at the log's end, which
 * it does not cover yet, are always among them.  Where many sessions write, each
 * into a block of its own, these are many.  But most have nothing that is new,
 * and their LSN tells: a row of a transaction was written after that got its
 * id.  Now and then we note the next id, and before that the end of WAL.  The
 * rows of this transaction, and of all with greater ids, lie in blocks that were
 * changed after that, so with greater LSNs.  Folding and whatever else touches a
 * block only makes its LSN greater.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "changelog.h"
#include "compat.h"

#define RANGE_GAP		64		/* transactions, see synchro_log_unseen_txids() */

/* columns of a segment, as they lie in the table */
enum
{
	COLUMN_TXID = 3, COLUMN_KEYS = 6, COLUMN_LONG_KEY = 7, COLUMN_RENAMES = 8, LOG_TABLE_COLUMNS = 8
};

/*
 * Blocks with an LSN up to that end of WAL have no row of the transaction that
 * got its id next, nor of later ones.
 */
typedef struct Moment
{
	uint64		next;
	XLogRecPtr	end;
} Moment;

/*
 * The last ones, in a ring.  Where a transaction has been open for longer, all
 * blocks are read.
 */
#define MOMENTS		128

static Moment moments[MOMENTS];
static uint64 nmoments = 0;

/*
 * In this order: whatever gets an id after we have looked writes after that.
 */
static void
note_moment(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

	if (nmoments > 0 && moments[(nmoments - 1) % MOMENTS].next == next)
		return;
	moments[nmoments++ % MOMENTS] = (Moment){next, end};
}

/*
 * Blocks with that LSN or a smaller one have no row of that transaction or a
 * later one.
 */
static XLogRecPtr
nothing_up_to(uint64 txid)
{
	for (uint64 i = nmoments; i > 0 && i + MOMENTS > nmoments; i--)
	{
		const Moment *moment = &moments[(i - 1) % MOMENTS];

		if (moment->next <= txid)
			return moment->end;
	}
	return InvalidXLogRecPtr;
}

/*
 * Lock the segments for reading.  To be called before the snapshot is taken
 * by which the log is read: folding and truncating a segment are not seen
 * with the eyes of an older snapshot, which would miss what they wrote anew.
 */
void
synchro_log_lock(void)
{
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
		LockRelationOid(synchro_log_segment(i), AccessShareLock);

	/* what this snapshot will not see is what is read next time */
	note_moment();
}

/*
 * Make a snapshot active that sees all of the log, whatever snapshot the
 * caller's statement has.
 */
void
synchro_log_begin_latest(void)
{
	synchro_log_lock();
	PushActiveSnapshot(GetLatestSnapshot());
}

/*
 * Undo that, the locks too, unless there were more before: the caller's
 * transaction may stay open for long, and folding is not to wait for it.
 */
void
synchro_log_end_latest(void)
{
	PopActiveSnapshot();
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
		UnlockRelationOid(synchro_log_segment(i), AccessShareLock);
}

/*
 * Which transactions the active snapshot may see, and an earlier one did not:
 * those from the result on, and *ended, which are older; and some more.
 *
 * Of the transactions that were in progress then, those that still are have
 * nothing to be seen: so an old transaction costs nothing as long as it is
 * open.  Each of the others would cost a look into all of the index.  Most of
 * them are young, so a range takes them in, with transactions in between that
 * the earlier snapshot did see.
 */
uint64
synchro_log_unseen_txids(const SynchroSnapshot *since, uint64 **ended, int *nended)
{
	SynchroSnapshot *now = synchro_snapshot_parse(synchro_snapshot_current());
	uint64		from = since->xmax;

	*ended = palloc(sizeof(uint64) * Max(since->nxip, 1));
	*nended = 0;
	for (int i = 0; i < since->nxip; i++)
		if (synchro_snapshot_has(now, since->xip[i]))
			(*ended)[(*nended)++] = since->xip[i];
	while (*nended > 0 && from - (*ended)[*nended - 1] <= RANGE_GAP)
		from = (*ended)[--*nended];
	return from;
}

/*
 * Add the ranges of blocks that may have transactions with that id, or from it
 * on.
 */
static void
add_ranges(TIDBitmap *blocks, Relation index, StrategyNumber strategy, RegProcedure compare, uint64 txid)
{
	IndexScanDesc scan = index_beginscan_bitmap(index, GetActiveSnapshot(), NULL, 1);
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, 1, strategy, INT8OID, InvalidOid, compare, Int64GetDatum((int64) txid));
	index_rescan(scan, &key, 1, NULL, 0);
	(void) index_getbitmap(scan, blocks);
	index_endscan(scan);
}

static void
hand_on_tuple(const SynchroLogScan *scan, HeapTuple tuple, TupleDesc desc)
{
	Datum		values[LOG_TABLE_COLUMNS];
	bool		nulls[LOG_TABLE_COLUMNS];
	int			keys;

	heap_deform_tuple(tuple, desc, values, nulls);
	keys = nulls[COLUMN_KEYS - 1] ? COLUMN_LONG_KEY - 1 : COLUMN_KEYS - 1;
	synchro_logrow_hand_on(scan, values, nulls[keys] ? NULL : &values[keys], !nulls[COLUMN_RENAMES - 1]);
}

static void
get_tuple(Relation rel, Buffer buffer, OffsetNumber offset, HeapTuple tuple)
{
	Page		page = BufferGetPage(buffer);
	ItemId		item = PageGetItemId(page, offset);

	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	tuple->t_tableOid = RelationGetRelid(rel);
	ItemPointerSet(&tuple->t_self, BufferGetBlockNumber(buffer), offset);
}

/*
 * Hand on what the active snapshot sees of a block, unless its LSN tells that
 * there is nothing.  Nobody can remove rows, or move them, as long as we keep
 * the segment locked.  An LSN of zero tells nothing: what a transaction adds
 * to a table that it has made, or truncated, may be without WAL.
 */
static void
scan_block(const SynchroLogScan *scan, Relation rel, BlockNumber block, XLogRecPtr nothing)
{
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page = BufferGetPage(buffer);
	OffsetNumber visible[MaxHeapTuplesPerPage];
	int			n = 0;
	HeapTupleData tuple;
	XLogRecPtr	lsn;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);

	/* a hint bit may set the LSN under a share lock, too, so it could be torn */
	lsn = BufferGetLSNAtomic(buffer);
	if (!PageIsNew(page) && (XLogRecPtrIsInvalid(lsn) || lsn > nothing))
	{
		for (OffsetNumber i = FirstOffsetNumber; i <= PageGetMaxOffsetNumber(page); i++)
		{
			if (!ItemIdIsNormal(PageGetItemId(page, i)))
				continue;
			get_tuple(rel, buffer, i, &tuple);
			if (HeapTupleSatisfiesVisibility(&tuple, GetActiveSnapshot(), buffer))
				visible[n++] = i;
		}
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	for (int i = 0; i < n; i++)
	{
		get_tuple(rel, buffer, visible[i], &tuple);
		hand_on_tuple(scan, &tuple, RelationGetDescr(rel));
	}
	ReleaseBuffer(buffer);
}

static void
scan_segment(const SynchroLogScan *scan, int segment, uint64 from, const uint64 *ended, int nended, XLogRecPtr nothing)
{
	Relation	rel = table_open(synchro_log_segment(segment), AccessShareLock);
	Relation	index;
	TIDBitmap  *blocks;
	SynchroBitmapIterator iterator;
	BlockNumber block;

	if (RelationGetNumberOfBlocks(rel) == 0)
	{
		table_close(rel, AccessShareLock);
		return;
	}
	index = index_open(synchro_log_index(segment), AccessShareLock);
	blocks = tbm_create(work_mem * (Size) 1024, NULL);
	add_ranges(blocks, index, BTGreaterEqualStrategyNumber, F_INT8GE, from);
	for (int i = 0; i < nended; i++)
		add_ranges(blocks, index, BTEqualStrategyNumber, F_INT8EQ, ended[i]);
	index_close(index, AccessShareLock);
	iterator = synchro_bitmap_begin(blocks);
	while (synchro_bitmap_next(iterator, &block))
	{
		CHECK_FOR_INTERRUPTS();
		scan_block(scan, rel, block, nothing);
	}
	synchro_bitmap_end(iterator);
	tbm_free(blocks);
	table_close(rel, AccessShareLock);
}

/*
 * Call back for every row of the log that the active snapshot sees and the
 * stored one did not.  Rows come in no order.  The segments are to be locked
 * before.
 */
void
synchro_log_scan_unseen(const SynchroSnapshot *since, SynchroLogCallback callback, void *arg)
{
	SynchroLogScan scan = {callback, arg, since};
	uint64	   *ended;
	int			nended;
	uint64		from = synchro_log_unseen_txids(since, &ended, &nended);
	XLogRecPtr	nothing = nothing_up_to(nended > 0 ? ended[0] : from);

	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
		scan_segment(&scan, i, from, ended, nended, nothing);
}

static void
scan_renames(int segment, const SynchroLogScan *log_scan, uint64 from, const bool *enough)
{
	Relation	rel = table_open(synchro_log_segment(segment), AccessShareLock);
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], COLUMN_TXID, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum((int64) from));
	scan = systable_beginscan(rel, synchro_log_renames_index(segment), true, GetActiveSnapshot(), 1, key);
	while (!(enough != NULL && *enough) && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		hand_on_tuple(log_scan, tuple, RelationGetDescr(rel));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * Call back for every row of the log that tells of renames, that the active
 * snapshot sees and the stored one did not, until *enough, if that is given.
 * Rows come in no order, with the times that they bear.
 *
 * Neither SQL nor a plan: this is asked for each batch that another node
 * pushes, and as a rule there is nothing.  The segments are to be locked as
 * for the other scans.
 */
void
synchro_log_scan_renames(const SynchroSnapshot *since, SynchroLogCallback callback, void *arg, const bool *enough)
{
	SynchroLogScan scan = {callback, arg, since, true};
	uint64		from = since->xmax;

	/* whatever was in progress then and has ended meanwhile is younger */
	for (int i = 0; i < since->nxip; i++)
		from = Min(from, since->xip[i]);
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS && !(enough != NULL && *enough); i++)
		scan_renames(i, &scan, from, enough);
}
