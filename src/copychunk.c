/*-------------------------------------------------------------------------
 *
 * copychunk.c
 *	  The next piece of a copy, as keys to be pushed.
 *
 * A pass takes one piece of one copy: the next rows in the order of the primary
 * key, found by its index, so that a piece costs the same wherever it is.  They
 * join the keys that the pass collects from the log (changeset.c), and are
 * pushed as if they had been changed: as they are when their batch is read, and
 * once where they have been changed besides.  Changes of the application are
 * pushed with each piece, so they wait no longer than one takes.
 *
 * A row that is inserted or changed after copy_table() is in the log, if
 * anything is: so a copy ends with the row that was the last one then, and
 * need not see what moves from one side of its position to the other.
 *
 * Where the remote compares times, a row has that of its newest change in the
 * log.  One that the log knows nothing of is older than whatever the remote's
 * log has of it, so it gets a time long ago: the number of the copy in
 * microseconds since 2000, by which a later copy wins over an earlier one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "copychunk.h"
#include "identities.h"
#include "localsql.h"
#include "peerlog.h"
#include "reader.h"
#include "readsql.h"
#include "stalled.h"

/* keys that are handed on together */
#define FLUSH_ROWS		10000
#define FLUSH_BYTES		(1024 * 1024)

typedef struct ChunkScan
{
	SynchroCopyChunk *chunk;
	SynchroLogCallback callback;
	void	   *arg;
	MemoryContext context;		/* of what follows */
	StringInfoData keys;		/* identities, one after the other */
	int		   *ends;			/* where each ends in it */
	int			nkeys;
	MemoryContext keeper;		/* of the last key of a piece */
} ChunkScan;

/*
 * Prepare to read the next piece, in the current memory context.  In a local
 * transaction.
 */
SynchroCopyChunk *
synchro_copychunk_create(const SynchroCopy *copy, Oid reader, bool stamped, int64 limit)
{
	SynchroCopyChunk *chunk = palloc0(sizeof(SynchroCopyChunk));

	chunk->table = synchro_table_copy(synchro_table_get(copy->relid, false), CurrentMemoryContext);
	chunk->step.copy = copy;
	chunk->step.layout = chunk->table->layout;
	chunk->reader = reader;
	chunk->stamped = stamped;
	chunk->limit = limit;
	return chunk;
}

/*
 * When the rows were changed, as far as the log knows.
 */
static SynchroNewest *
look_up_stamps(ChunkScan *scan)
{
	SynchroNewest *newest = palloc0(sizeof(SynchroNewest) * scan->nkeys);

	for (int i = 0, start = 0; i < scan->nkeys; start = scan->ends[i++])
	{
		newest[i].bytes.data = scan->keys.data + start;
		newest[i].bytes.len = scan->ends[i] - start;
	}
	(void) synchro_peerlog_newest(scan->chunk->table, newest, scan->nkeys, DT_NOBEGIN, NULL);
	return newest;
}

/*
 * The last one read is where the next piece begins.
 */
static void
note_last(ChunkScan *scan)
{
	int			start = scan->nkeys > 1 ? scan->ends[scan->nkeys - 2] : 0;
	SynchroBytes last = {scan->keys.data + start, scan->keys.len - start};
	MemoryContext old = MemoryContextSwitchTo(scan->keeper);

	scan->chunk->step.last = synchro_key_copy(last);
	MemoryContextSwitchTo(old);
}

/*
 * Hand on what has been read.
 */
static void
flush_keys(ChunkScan *scan)
{
	SynchroCopyChunk *chunk = scan->chunk;
	MemoryContext old = MemoryContextSwitchTo(scan->context);
	SynchroNewest *newest = chunk->stamped ? look_up_stamps(scan) : NULL;
	StringInfoData records;
	SynchroLogRow row = {0};

	note_last(scan);
	initStringInfo(&records);
	for (int i = 0, start = 0; i < scan->nkeys; start = scan->ends[i++])
	{
		bool		known = newest != NULL && newest[i].found;

		appendStringInfoChar(&records, SYNCHRO_OP_UPDATE | (known ? SYNCHRO_KEY_STAMPED : 0));
		appendBinaryStringInfo(&records, scan->keys.data + start, scan->ends[i] - start);
		if (known)
			synchro_key_put_stamp(&records, newest[i].stamp);
	}
	row.relation = chunk->step.copy->relid;
	row.layout = chunk->table->layout;
	row.changed_at = chunk->stamped ? chunk->step.copy->id : chunk->step.copy->queued_at;
	row.copied = true;
	row.keys.data = records.data;
	row.keys.len = records.len;
	scan->callback(&row, scan->arg);
	MemoryContextSwitchTo(old);
	MemoryContextReset(scan->context);
	scan->nkeys = 0;
	scan->keys.data = NULL;
}

static void
put_identity(StringInfo keys, const SynchroTable *table, TupleTableSlot *slot)
{
	slot_getallattrs(slot);
	synchro_key_put_values(keys, table, table->identity, table->nidentity, slot->tts_values, slot->tts_isnull);
}

static void
receive_identity(TupleTableSlot *slot, void *arg)
{
	ChunkScan  *scan = arg;
	MemoryContext old = MemoryContextSwitchTo(scan->context);

	if (scan->keys.data == NULL)
	{
		initStringInfo(&scan->keys);
		scan->ends = palloc(sizeof(int) * FLUSH_ROWS);
	}
	put_identity(&scan->keys, scan->chunk->table, slot);
	scan->ends[scan->nkeys++] = scan->keys.len;
	scan->chunk->step.nrows++;
	MemoryContextSwitchTo(old);

	if (scan->nkeys == FLUSH_ROWS || scan->keys.len >= FLUSH_BYTES)
		flush_keys(scan);
}

/*
 * Append an identity as parameters.  It is a primary key, so none of it is NULL
 * unless the bytes are not those that were written.
 */
static int
put_bound(const SynchroTable *table, SynchroBytes bytes, Datum *values, Oid *types, int n)
{
	bool		nulls[INDEX_MAX_KEYS];

	synchro_key_values(bytes, table, table->identity, table->nidentity, values + n, nulls);
	for (int i = 0; i < table->nidentity; i++)
	{
		if (nulls[i])
			synchro_key_damaged();
		types[n + i] = getBaseType(table->columns[table->identity[i]].type);
	}
	return n + table->nidentity;
}

/*
 * Rows are looked up by the primary key's index, however young the table's
 * statistics are.  Returns the level for AtEOXact_GUC().
 */
static int
use_primary_key(void)
{
	static const char *const others[] = {"enable_seqscan", "enable_sort", "enable_bitmapscan"};
	int			guc_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(others); i++)
		(void) set_config_option(others[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return guc_level;
}

/*
 * Call back with the keys of the piece, as rows of the log, under the active
 * snapshot; see SynchroMoreKeys.  arg: the SynchroCopyChunk.
 */
void
synchro_copychunk_scan(SynchroLogCallback callback, void *callback_arg, void *arg)
{
	SynchroCopyChunk *chunk = arg;
	const SynchroCopy *copy = chunk->step.copy;
	const SynchroTable *table = chunk->table;
	ChunkScan	scan = {chunk, callback, callback_arg};
	bool		same_key = SYNCHRO_LAYOUT_IDENTITY(copy->layout) == SYNCHRO_LAYOUT_IDENTITY(table->layout);
	bool		after = same_key && copy->last.data != NULL;
	bool		until = same_key && copy->until.data != NULL;
	bool		bounded;
	StringInfoData sql;
	Datum		values[2 * INDEX_MAX_KEYS + 1];
	Oid			types[2 * INDEX_MAX_KEYS + 1];
	int			n = 0;
	int			guc_level;
	SynchroSqlScope scope;
	SynchroReader owner;

	/* not the current one: queries leave their own behind */
	scan.keeper = GetMemoryChunkContext(chunk);
	scan.context = AllocSetContextCreate(scan.keeper, "synchro copy", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&sql);
	bounded = synchro_sql_identities(&sql, table, after, until);
	if (bounded && after)
		n = put_bound(table, copy->last, values, types, n);
	if (bounded && until)
		n = put_bound(table, copy->until, values, types, n);
	if (bounded)
	{
		types[n] = INT8OID;
		values[n++] = Int64GetDatum(chunk->limit);
	}
	synchro_suspect(copy->relid);
	synchro_sql_open(&scope, chunk->reader);
	guc_level = use_primary_key();
	synchro_reader_begin(&owner, chunk->reader, table, true, NIL);
	synchro_sql_query(sql.data, n, types, values, NULL, synchro_sql_callback(receive_identity, &scan));
	synchro_reader_end(&owner);
	AtEOXact_GUC(false, guc_level);
	synchro_sql_close(&scope);
	synchro_suspect(InvalidOid);
	chunk->step.complete = !bounded || chunk->step.nrows < chunk->limit;
	MemoryContextSwitchTo(scan.keeper);
	if (scan.nkeys > 0)
		flush_keys(&scan);
	MemoryContextDelete(scan.context);
}

static void
receive_count(TupleTableSlot *slot, void *arg)
{
	SynchroCopy *copy = arg;

	slot_getallattrs(slot);
	copy->rows_total = DatumGetInt64(slot->tts_values[0]);
}

/* what the last row is */
typedef struct LastRow
{
	SynchroCopy *copy;
	const SynchroTable *table;
	MemoryContext context;
} LastRow;

static void
receive_last(TupleTableSlot *slot, void *arg)
{
	LastRow    *last = arg;
	MemoryContext old = MemoryContextSwitchTo(last->context);
	StringInfoData key;

	initStringInfo(&key);
	put_identity(&key, last->table, slot);
	last->copy->until.data = key.data;
	last->copy->until.len = key.len;
	MemoryContextSwitchTo(old);
}

/*
 * How many rows a copy is to have, and which is the last one, under the active
 * snapshot.  Filled in are rows_total, layout and until.
 */
void
synchro_copychunk_measure(const SynchroTable *table, Oid reader, SynchroCopy *copy)
{
	LastRow		last = {copy, table, CurrentMemoryContext};
	StringInfoData count;
	StringInfoData sql;
	SynchroSqlScope scope;
	SynchroReader owner;
	bool		has_order;
	int			guc_level;

	initStringInfo(&count);
	initStringInfo(&sql);
	synchro_sql_count(&count, table);
	has_order = synchro_sql_last_identity(&sql, table);
	copy->layout = table->layout;
	synchro_sql_open(&scope, reader);
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	synchro_reader_begin(&owner, reader, table, true, NIL);
	synchro_sql_query(count.data, 0, NULL, NULL, NULL, synchro_sql_callback(receive_count, copy));
	guc_level = use_primary_key();
	if (has_order)
		synchro_sql_query(sql.data, 0, NULL, NULL, NULL, synchro_sql_callback(receive_last, &last));
	synchro_reader_end(&owner);
	AtEOXact_GUC(false, guc_level);
	synchro_sql_close(&scope);
}

/*
 * Error if what is on a remote only cannot be told from other rows of the table.
 */
void
synchro_copychunk_require_extra(const SynchroTable *table)
{
	if (table->mode == SYNCHRO_MODE_REFERENCE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("extra rows of table \"%s\" cannot be deleted", table->name),
				 errdetail("Its rows are matched by stored references, which say nothing about rows that are on the remote only."),
				 errhint("Register a natural key, or leave out delete_extra.")));
	if (table->allow_many)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("extra rows of table \"%s\" cannot be deleted", table->name),
				 errdetail("Its natural key may match many rows on the remote."),
				 errhint("Leave out delete_extra, or let the key match one row only: SELECT synchro.alter_table(%s, allow_many => false);",
						 quote_literal_cstr(table->qualified))));
}
