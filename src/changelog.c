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

#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changelog.h"
#include "clock.h"
#include "localsql.h"
#include "sequence.h"

/*
 * Number of the live segment.
 */
int
synchro_log_live(void)
{
	return (int) synchro_sequence_read("log_switch");
}

/*
 * Is there a log?  Not if this transaction has dropped the extension.
 */
bool
synchro_log_exists(void)
{
	return OidIsValid(synchro_own_relation("log_switch", true));
}

/*
 * Oid of a segment's table.
 */
Oid
synchro_log_segment(int segment)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "log_%d", segment);
	return synchro_own_relation(name, false);
}

/*
 * Oid of a segment's index of transactions and times.
 */
Oid
synchro_log_index(int segment)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "log_%d_txid", segment);
	return synchro_own_relation(name, false);
}

/*
 * Oid of a segment's index of rows that tell of renames.
 */
Oid
synchro_log_renames_index(int segment)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "log_%d_renames", segment);
	return synchro_own_relation(name, false);
}

static void
receive_row(TupleTableSlot *slot, void *arg)
{
	slot_getallattrs(slot);
	synchro_logrow_hand_on(arg, slot->tts_values, slot->tts_isnull[5] ? NULL : &slot->tts_values[5], !slot->tts_isnull[6]);
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
 */
static const char *
unseen_condition(const SynchroSnapshot *since, Datum *values)
{
	uint64	   *ended;
	int			nended;

	values[0] = Int64GetDatum((int64) synchro_log_unseen_txids(since, &ended, &nended));
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

static const char *const log_columns =
"SELECT relation, layout, txid, changed_at, part, coalesce(keys, long_key), renames FROM synchro.log_%d";

/*
 * Call back for every row of one segment.  Needs a scope of
 * synchro_sql_open().
 */
void
synchro_log_scan_segment(int segment, SynchroLogCallback callback, void *arg)
{
	SynchroLogScan state = {callback, arg};

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
	if (since != NULL)
	{
		synchro_clock_load();
		synchro_log_scan_unseen(since, callback, arg);
		return;
	}
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
		synchro_log_scan_segment(i, callback, arg);
}

/* transactions whose early rows may be older than their commit */
typedef struct Committed
{
	MemoryContext context;
	uint64	   *txids;
	int			count;
	int			max;
} Committed;

/*
 * Note one.  Rows are handed on in the query's memory context, which goes with it.
 */
static void
note_commit(const SynchroLogRow *row, void *arg)
{
	Committed  *committed = arg;

	if (row->relation != SYNCHRO_STAMP_RELATION)
		return;
	if (committed->count == committed->max)
	{
		committed->max = Max(64, committed->max * 2);
		committed->txids = committed->txids == NULL ?
			MemoryContextAllocHuge(committed->context, sizeof(uint64) * committed->max) :
			repalloc_huge(committed->txids, sizeof(uint64) * committed->max);
	}
	committed->txids[committed->count++] = row->txid;
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
	SynchroLogScan state = {callback, arg};
	Committed	committed = {CurrentMemoryContext};
	SynchroLogScan commits = {note_commit, &committed};
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
	if (committed.count > 0)
	{
		values[1] = xid_array(committed.txids, committed.count);
		for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
			synchro_sql_query(psprintf("%s WHERE txid = ANY ($2) AND changed_at < $3", psprintf(log_columns, i)),
							  lengthof(types), types, values, NULL, synchro_sql_callback(receive_row, &state));
	}
	AtEOXact_GUC(false, guc_level);
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
	SynchroLogScan state = {callback, arg, NULL, true};
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(server);

	if (synchro_sql_is_empty("backlog"))
		return;
	synchro_sql_query("SELECT relation, layout, 0::bigint, changed_at, part, coalesce(keys, long_key), NULL::boolean "
					  "FROM synchro.backlog WHERE server = $1::name",
					  1, &type, &value, NULL,
					  synchro_sql_callback(receive_row, &state));
}
