/*-------------------------------------------------------------------------
 *
 * changelog.c
 *	  The log's segments, and their only reader.  Their only writer is
 *	  logwrite.c.
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
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changelog.h"
#include "clock.h"
#include "compat.h"
#include "localsql.h"
#include "sequence.h"

#define RANGE_GAP		64		/* transactions, see unseen_condition() */

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
 * Oid of a segment's index of transactions and times.
 */
Oid
synchro_log_index(int segment)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "log_%d_txid", segment);
	return synchro_own_relation(name);
}

/*
 * Oid of a segment's index of rows that tell of renames.
 */
Oid
synchro_log_renames_index(int segment)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "log_%d_renames", segment);
	return synchro_own_relation(name);
}

/* what the row receiver of a scan hands on */
typedef struct LogScan
{
	SynchroLogCallback callback;
	void	   *arg;
	const SynchroSnapshot *since;	/* without what it saw; NULL: all */
	bool		as_logged;		/* times are taken as they are */
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
		uint32		header[SYNCHRO_SECTION_HEADER / sizeof(uint32)];

		if (end - pos < SYNCHRO_SECTION_HEADER)
			synchro_key_damaged();
		memcpy(header, pos, SYNCHRO_SECTION_HEADER);
		pos += SYNCHRO_SECTION_HEADER;
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

/*
 * Hand on a row of the log, whose first columns are given, and its keys, if it
 * has any.
 */
static void
hand_on(const LogScan *state, const Datum *values, const Datum *stored_keys)
{
	SynchroLogRow row = {0};
	struct varlena *keys;
	Datum		stored;

	row.relation = DatumGetObjectId(values[0]);
	row.layout = (uint32) DatumGetInt32(values[1]);
	row.txid = (uint64) DatumGetInt64(values[2]);
	if (state->since != NULL && synchro_snapshot_has(state->since, row.txid))
		return;
	row.changed_at = DatumGetTimestampTz(values[3]);
	if (!state->as_logged)
		row.changed_at = synchro_clock_clamp(row.txid, row.changed_at);
	row.part = DatumGetInt32(values[4]);
	row.keys.data = NULL;
	row.keys.len = 0;
	if (stored_keys == NULL)
	{
		state->callback(&row, state->arg);
		return;
	}
	stored = *stored_keys;
	keys = PG_DETOAST_DATUM_PACKED(stored);
	row.keys.data = VARDATA_ANY(keys);
	row.keys.len = VARSIZE_ANY_EXHDR(keys);
	row.keys = synchro_key_unseal(row.keys, row.relation, row.layout);
	if (row.relation == SYNCHRO_SEVERAL_RELATIONS)
		split_sections(&row, state);
	else
		state->callback(&row, state->arg);
	if ((Pointer) keys != DatumGetPointer(stored))
		pfree(keys);
}

static void
receive_row(TupleTableSlot *slot, void *arg)
{
	slot_getallattrs(slot);
	hand_on(arg, slot->tts_values, slot->tts_isnull[5] ? NULL : &slot->tts_values[5]);
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

/* columns of a segment, as they lie in the table */
enum
{
	COLUMN_TXID = 3, COLUMN_KEYS = 6, COLUMN_LONG_KEY = 7, LOG_TABLE_COLUMNS = 8
};

static void
scan_renames(int segment, const LogScan *state, uint64 from, const bool *enough)
{
	Relation	rel = table_open(synchro_log_segment(segment), AccessShareLock);
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], COLUMN_TXID, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum((int64) from));
	scan = systable_beginscan(rel, synchro_log_renames_index(segment), true, GetActiveSnapshot(), 1, key);
	while (!(enough != NULL && *enough) && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[LOG_TABLE_COLUMNS];
		bool		nulls[LOG_TABLE_COLUMNS];
		int			keys;

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		keys = nulls[COLUMN_KEYS - 1] ? COLUMN_LONG_KEY - 1 : COLUMN_KEYS - 1;
		hand_on(state, values, nulls[keys] ? NULL : &values[keys]);
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
	LogScan		state = {callback, arg, since, true};
	uint64		from = since->xmax;

	/* whatever was in progress then and has ended meanwhile is younger */
	for (int i = 0; i < since->nxip; i++)
		from = Min(from, since->xip[i]);
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS && !(enough != NULL && *enough); i++)
		scan_renames(i, &state, from, enough);
}

/*
 * Has a segment a row that is visible now, and was not to the snapshot, and
 * that was logged before a given time?  Needs a scope of synchro_sql_open().
 *
 * The index is not to look for the time: most of the log is from before it.
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
									 " AND (changed_at < $3) IS TRUE LIMIT 1", segment),
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

	if (synchro_sql_is_empty("backlog"))
		return;
	synchro_sql_query("SELECT relation, layout, 0::bigint, changed_at, part, coalesce(keys, long_key) "
					  "FROM synchro.backlog WHERE server = $1::name",
					  1, &type, &value, NULL,
					  synchro_sql_callback(receive_row, &state));
}
