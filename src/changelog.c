/*-------------------------------------------------------------------------
 *
 * changelog.c
 *	  The only reader and writer of the log's segments.
 *
 * Writers add rows, each a chunk of keys of one table, to the live segment;
 * synchro.log_switch names it.  What a transaction has changed of several
 * tables is one row, if it fits: a row costs some 90 bytes of WAL.  The switch is read from the sequence's page,
 * so without regard to snapshots or rights, and once more after the segment
 * is locked: a rotation that came in between is noticed, and one that comes
 * later waits for us with its truncation.  A transaction goes on writing to
 * the segment that it wrote to first, so that it never pins more than one.
 *
 * Readers ask "what is visible to me and was not to S0", never "what came
 * after": transactions commit in another order than they begin.  With S0 the
 * stored snapshot, that is txid >= S0.xmax or txid in S0.xip; both are found
 * by the segment's BRIN index, so that a pass reads what is new and not what
 * is kept.  The rows' visibility in the reader's own snapshot is MVCC's work.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changelog.h"
#include "clock.h"
#include "compat.h"
#include "localsql.h"
#include "sequence.h"

/*
 * Keys of a chunk and their bytes.  A chunk row must fit on a page, since
 * its storage is PLAIN; a longer single key goes to a column that is toasted.
 */
#define CHUNK_KEYS		500
#define CHUNK_BYTES		7600

/*
 * Relation of a row whose keys are sections, one for each table.  A section
 * is its relation and layout, 4 bytes each, the length of the table's records
 * as 4 bytes, and these.  No table of a user's has that oid.
 */
#define SEVERAL_RELATIONS	((Oid) 1)
#define SECTION_HEADER		(3 * (int) sizeof(uint32))

#define RANGE_GAP		64		/* transactions, see unseen_condition() */

enum
{
	LOG_RELATION, LOG_LAYOUT, LOG_TXID, LOG_CHANGED_AT, LOG_PART,
	LOG_KEYS, LOG_LONG_KEY, LOG_COLUMNS
};

/* the chunk being filled for one table */
typedef struct Chunk
{
	Oid			relation;
	uint32		layout;
	int			nkeys;
	StringInfoData keys;
} Chunk;

struct SynchroLogWriter
{
	MemoryContext context;
	int			segment;
	Relation	rel;
	Relation	index;
	IndexInfo  *index_info;
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
 * Number of the live segment.
 */
int
synchro_log_live(void)
{
	return (int) synchro_sequence_read("log_switch");
}

/*
 * Oid of a segment's table.
 */
Oid
synchro_log_segment(int segment)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "log_%d", segment);
	return synchro_own_relation(name);
}

/*
 * Lock the live segment for writing, and return its number.
 *
 * Folding may hold a segment that is no longer live for seconds: we do not
 * wait for it, but look again which one is live.
 */
static int
lock_live_segment(void)
{
	for (;;)
	{
		int			segment = synchro_log_live();
		Oid			relid = synchro_log_segment(segment);

		if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		{
			if (synchro_log_live() != segment)
				continue;
			LockRelationOid(relid, RowExclusiveLock);
		}
		if (synchro_log_live() == segment)
			return segment;

		/* a rotation came in between; nobody saw us write */
		UnlockRelationOid(relid, RowExclusiveLock);
	}
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
	writer->index = index_open(linitial_oid(RelationGetIndexList(writer->rel)),
							   RowExclusiveLock);
	writer->index_info = BuildIndexInfo(writer->index);
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

static void
add_row(SynchroLogWriter *writer, Oid relation, uint32 layout,
		struct varlena *keys, struct varlena *long_key)
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
	ExecStoreVirtualTuple(slot);

	/*
	 * Nothing of the log is for logical decoding: a FOR ALL TABLES
	 * publication shall not carry it.  table_multi_insert() could not say so.
	 */
	table_tuple_insert(writer->rel, slot, GetCurrentCommandId(true),
					   TABLE_INSERT_NO_LOGICAL, NULL);
	index_insert(writer->index, indexed, nulls, &slot->tts_tid,
				 writer->rel, UNIQUE_CHECK_NO, false, writer->index_info);
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
		add_row(writer, chunk->relation, chunk->layout, NULL, keys);
	else
		add_row(writer, chunk->relation, chunk->layout, keys, NULL);
	chunk->nkeys = 0;
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
	ListCell   *cell;

	foreach(cell, writer->chunks)
	{
		const Chunk *chunk = lfirst(cell);

		if (chunk->nkeys > 0)
		{
			nchunks++;
			len += SECTION_HEADER + chunk->keys.len - VARHDRSZ;
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
		appendBinaryStringInfo(&sections, (char *) header, SECTION_HEADER);
		appendBinaryStringInfo(&sections, chunk->keys.data + VARHDRSZ, chunk->keys.len - VARHDRSZ);
		chunk->nkeys = 0;
		chunk->keys.len = VARHDRSZ;
	}
	add_row(writer, SEVERAL_RELATIONS, 0, seal(&sections, SEVERAL_RELATIONS, 0), NULL);
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
 * Add one key record (see keycodec.h) of a table to the log.
 */
void
synchro_log_put(SynchroLogWriter *writer, Oid relation, uint32 layout,
				const char *record, int len)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);
	Chunk	   *chunk = find_chunk(writer, relation, layout);

	if (chunk->nkeys >= CHUNK_KEYS || chunk->keys.len + len > CHUNK_BYTES)
		write_chunk(writer, chunk);
	appendBinaryStringInfo(&chunk->keys, record, len);
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

	add_row(writer, SYNCHRO_STAMP_RELATION, 0, NULL, NULL);
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
	table_close(writer->rel, NoLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(writer->context);
	return segment;
}

/* what the row receiver of a scan hands on */
typedef struct LogScan
{
	SynchroLogCallback callback;
	void	   *arg;
	const SynchroSnapshot *since;	/* without what it saw; NULL: all */
	bool		backlog;
} LogScan;

/*
 * Hand on the sections of a row, each as a row of its own.
 */
static void
split_sections(const SynchroLogRow *row, const LogScan *state)
{
	const char *pos = row->keys.data;
	const char *end = pos + row->keys.len;

	for (int i = 0; pos < end; i++)
	{
		SynchroLogRow section = *row;
		uint32		header[SECTION_HEADER / sizeof(uint32)];

		if (end - pos < SECTION_HEADER)
			synchro_key_damaged();
		memcpy(header, pos, SECTION_HEADER);
		pos += SECTION_HEADER;
		if (header[2] > (uint32) (end - pos))
			synchro_key_damaged();
		section.relation = (Oid) header[0];
		section.layout = header[1];
		section.part += i;
		section.keys.data = pos;
		section.keys.len = (int) header[2];
		pos += section.keys.len;
		state->callback(&section, state->arg);
	}
}

static void
receive_row(TupleTableSlot *slot, void *arg)
{
	LogScan    *state = arg;
	SynchroLogRow row = {0};
	struct varlena *keys;
	Datum		stored;

	slot_getallattrs(slot);
	row.relation = DatumGetObjectId(slot->tts_values[0]);
	row.layout = (uint32) DatumGetInt32(slot->tts_values[1]);
	row.txid = (uint64) DatumGetInt64(slot->tts_values[2]);
	if (state->since != NULL && synchro_snapshot_has(state->since, row.txid))
		return;
	row.changed_at = DatumGetTimestampTz(slot->tts_values[3]);
	if (!state->backlog)
		row.changed_at = synchro_clock_clamp(row.txid, row.changed_at);
	row.part = DatumGetInt32(slot->tts_values[4]);
	row.keys.data = NULL;
	row.keys.len = 0;
	if (slot->tts_isnull[5])
	{
		state->callback(&row, state->arg);
		return;
	}
	stored = slot->tts_values[5];
	keys = PG_DETOAST_DATUM_PACKED(stored);
	row.keys.data = VARDATA_ANY(keys);
	row.keys.len = VARSIZE_ANY_EXHDR(keys);
	row.keys = synchro_key_unseal(row.keys, row.relation, row.layout);
	if (row.relation == SEVERAL_RELATIONS)
		split_sections(&row, state);
	else
		state->callback(&row, state->arg);
	if ((Pointer) keys != DatumGetPointer(stored))
		pfree(keys);
}

static Datum
xid_array(const uint64 *xids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum((int64) xids[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * Condition, with its parameters, for rows of the log that the active
 * snapshot may see and an earlier one did not, and for some more.
 *
 * Of the transactions that were in progress then, those that still are have
 * nothing to be seen: so an old transaction costs nothing as long as it is
 * open.  Each of the others would cost a look into all of the index.  Most of
 * them are young, so a range takes them in, with transactions in between that
 * the earlier snapshot did see.
 */
static const char *
unseen_condition(const SynchroSnapshot *since, Datum *values)
{
	SynchroSnapshot *now = synchro_snapshot_parse(synchro_snapshot_current());
	uint64	   *ended = palloc(sizeof(uint64) * Max(since->nxip, 1));
	int			nended = 0;
	uint64		from = since->xmax;

	for (int i = 0; i < since->nxip; i++)
		if (synchro_snapshot_has(now, since->xip[i]))
			ended[nended++] = since->xip[i];
	while (nended > 0 && from - ended[nended - 1] <= RANGE_GAP)
		from = ended[--nended];
	values[0] = Int64GetDatum((int64) from);
	values[1] = xid_array(ended, nended);
	return nended > 0 ? "txid >= $1 OR txid = ANY ($2)" : "txid >= $1";
}

/*
 * Have queries on the log find rows by the index, whatever the statistics
 * say: there are none.  Returns the level for AtEOXact_GUC().
 */
static int
use_index(void)
{
	int			guc_level = NewGUCNestLevel();

	(void) set_config_option("enable_seqscan", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("max_parallel_workers_per_gather", "0", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return guc_level;
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
}

static const Oid unseen_types[] = {INT8OID, INT8ARRAYOID};

static const char *const log_columns =
"SELECT relation, layout, txid, changed_at, part, coalesce(keys, long_key) FROM synchro.log_%d";

/*
 * Call back for every row of one segment.  Needs a scope of
 * synchro_sql_open().
 */
void
synchro_log_scan_segment(int segment, SynchroLogCallback callback, void *arg)
{
	LogScan		state = {callback, arg};

	synchro_clock_load();
	synchro_sql_query(psprintf(log_columns, segment), 0, NULL, NULL, NULL,
					  synchro_sql_callback(receive_row, &state));
}

/*
 * Call back for every row of the log that the active snapshot sees and the
 * stored one did not; all rows if since is NULL.  Rows come in no order.
 * Needs a scope of synchro_sql_open().
 */
void
synchro_log_scan(const SynchroSnapshot *since, SynchroLogCallback callback, void *arg)
{
	LogScan		state = {callback, arg, since};
	DestReceiver *dest = synchro_sql_callback(receive_row, &state);
	Datum		values[lengthof(unseen_types)];
	const char *condition;
	int			guc_level;

	if (since == NULL)
	{
		for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
			synchro_log_scan_segment(i, callback, arg);
		return;
	}
	synchro_clock_load();
	condition = unseen_condition(since, values);
	guc_level = use_index();
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
		synchro_sql_query(psprintf("%s WHERE %s", psprintf(log_columns, i), condition),
						  lengthof(unseen_types), unseen_types, values, NULL, dest);
	AtEOXact_GUC(false, guc_level);
}

/* transactions whose early rows may be older than their commit */
static void
note_commit(const SynchroLogRow *row, void *arg)
{
	List	  **committed = arg;
	uint64	   *txid;

	if (row->relation != SYNCHRO_STAMP_RELATION)
		return;
	txid = palloc(sizeof(uint64));
	*txid = row->txid;
	*committed = lappend(*committed, txid);
}

/*
 * Call back for rows of the log that the active snapshot sees and that were
 * logged at a given time or later, or were not seen by a snapshot if one is
 * given; also for rows of transactions that were committed since that time but
 * written before.  Rows come in no order, and some twice.  Needs a scope of
 * synchro_sql_open().
 */
void
synchro_log_scan_recent(TimestampTz since, const SynchroSnapshot *unseen_by,
						SynchroLogCallback callback, void *arg)
{
	Oid			types[] = {INT8OID, INT8ARRAYOID, TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	LogScan		state = {callback, arg};
	List	   *committed = NIL;
	LogScan		commits = {note_commit, &committed};
	const char *unseen = NULL;
	int			guc_level;

	synchro_clock_load();
	if (unseen_by != NULL)
		unseen = unseen_condition(unseen_by, values);
	values[2] = TimestampTzGetDatum(since);
	if (unseen == NULL)
	{
		values[0] = Int64GetDatum(0);
		values[1] = xid_array(NULL, 0);
	}
	guc_level = use_index();
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
	{
		const char *columns = psprintf(log_columns, i);

		synchro_sql_query(psprintf("%s WHERE changed_at >= $3%s%s", columns, unseen != NULL ? " OR " : "",
								   unseen != NULL ? unseen : ""),
						  lengthof(types), types, values, NULL, synchro_sql_callback(receive_row, &state));
		synchro_sql_query(psprintf("%s WHERE changed_at >= $3 AND relation = 0", columns),
						  lengthof(types), types, values, NULL, synchro_sql_callback(receive_row, &commits));
	}
	if (committed != NIL)
	{
		uint64	   *xids = palloc(sizeof(uint64) * list_length(committed));
		ListCell   *cell;

		foreach(cell, committed)
			xids[foreach_current_index(cell)] = *(uint64 *) lfirst(cell);
		values[1] = xid_array(xids, list_length(committed));
		for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
			synchro_sql_query(psprintf("%s WHERE txid = ANY ($2) AND changed_at < $3", psprintf(log_columns, i)),
							  lengthof(types), types, values, NULL, synchro_sql_callback(receive_row, &state));
	}
	AtEOXact_GUC(false, guc_level);
}

/*
 * Has a segment a row that is visible now, and was not to the snapshot, and
 * that was logged before a given time?  Needs a scope of synchro_sql_open().
 */
bool
synchro_log_has_unseen(int segment, const SynchroSnapshot *since, TimestampTz before)
{
	Oid			types[] = {INT8OID, INT8ARRAYOID, TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	int			guc_level = use_index();
	bool		found;

	values[0] = Int64GetDatum((int64) since->xmax);
	values[1] = xid_array(since->xip, since->nxip);
	values[2] = TimestampTzGetDatum(before);
	found = synchro_sql_run(psprintf("SELECT FROM synchro.log_%d WHERE (txid >= $1 OR txid = ANY ($2))"
									 " AND changed_at < $3 LIMIT 1", segment),
							lengthof(types), types, values, NULL) > 0;
	AtEOXact_GUC(false, guc_level);
	return found;
}

/*
 * Call back for every row of a remote's backlog.  Needs a scope of
 * synchro_sql_open().
 */
void
synchro_log_scan_backlog(const char *server, SynchroLogCallback callback, void *arg)
{
	LogScan		state = {callback, arg, NULL, true};
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(server);

	synchro_sql_query("SELECT relation, layout, 0::bigint, changed_at, part, coalesce(keys, long_key) "
					  "FROM synchro.backlog WHERE server = $1::name",
					  1, &type, &value, NULL,
					  synchro_sql_callback(receive_row, &state));
}
