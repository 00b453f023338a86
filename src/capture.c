/*-------------------------------------------------------------------------
 *
 * capture.c
 *	  Row and truncate triggers, and the transaction's buffer of keys.
 *
 * The row trigger appends the key of each changed row to a buffer of the
 * backend; at PRE_COMMIT (PRE_PREPARE for two-phase commit) the buffer is
 * written to the log, in the same transaction.  That is after all deferred
 * triggers and holdable cursors (see CommitTransaction), so nothing that they
 * write is missed; should another extension's callback write rows still
 * later, those are written at once.
 *
 * A subtransaction remembers the buffer's length at its start and cuts it
 * back when it aborts.  If the buffer outgrows synchro.buffer_size, what the
 * current subtransaction added itself is written early: those log rows bear
 * its xid and vanish with it.  Keys of its parents stay in memory, since they
 * must survive its abort.  When these are written at last they bear a time
 * before what was written early, so that the reader sees the true order.
 *
 * A key that the transaction logged a moment ago is not logged again: a
 * direct-mapped table of recent keys knows most of them.  It may forget, never
 * be wrong: an entry counts only if it is of the present epoch, and each cut
 * of the buffer begins a new one.
 *
 * Nothing here runs output functions, SQL or locks anything but the live log
 * segment, so the user's transaction fails for our sake only when the disk
 * is full or memory runs out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "capture.h"
#include "changelog.h"
#include "compat.h"
#include "keycodec.h"
#include "settings.h"
#include "sharedstate.h"
#include "tableinfo.h"

PG_FUNCTION_INFO_V1(synchro_capture);
PG_FUNCTION_INFO_V1(synchro_capture_truncate);
PG_FUNCTION_INFO_V1(synchro_disable_log);
PG_FUNCTION_INFO_V1(synchro_enable_log);

/* one column of an identity or natural key, as it is in the table at hand */
typedef struct CaptureColumn
{
	AttrNumber	attnum;
	int16		typlen;
	bool		typbyval;
} CaptureColumn;

/*
 * How to log rows of a table; kept for the life of the backend, rebuilt when
 * invalid.  A partition has an entry of its own, with its own attribute
 * numbers, that logs under the root.
 */
typedef struct CaptureTable
{
	Oid			relid;			/* hash key */
	bool		valid;
	bool		ignore;			/* no longer watched nor in a key */
	bool		key_only;
	bool		key_is_identity;
	Oid			root;
	uint32		layout;
	int			nidentity;
	CaptureColumn identity[INDEX_MAX_KEYS];
	int			nkey;
	CaptureColumn key[INDEX_MAX_KEYS];
	uint64		tx_epoch;		/* transaction for which tx_index is good */
	uint16		tx_index;
} CaptureTable;

/* precedes each record in the buffer; unaligned there, so copied in and out */
typedef struct BufferHeader
{
	uint16		table;			/* index of tx_tables */
	uint8		flags;			/* the record's first byte */
	uint32		identity_len;
	uint32		len;			/* of the record */
} BufferHeader;

/* table of the present transaction */
typedef struct TxTable
{
	Oid			relation;
	uint32		layout;
} TxTable;

/* where a subtransaction began; level 1 is the transaction itself */
typedef struct SubxactMark
{
	int			len;
	int			disabled;
} SubxactMark;

/* what lies in the buffer before offset is older than time */
typedef struct BufferBreak
{
	int			offset;
	TimestampTz time;
} BufferBreak;

#define RECENT_KEYS 4096		/* power of two; 64 kB per backend */

typedef struct RecentKey
{
	uint64		epoch;
	uint32		offset;			/* of the record's header in the buffer */
} RecentKey;

static HTAB *capture_tables = NULL;
static StringInfoData buffer;	/* data NULL until first used */
static RecentKey *recent_keys = NULL;
static uint64 epoch = 1;		/* of the buffer's present contents */
static uint64 tx_epoch = 1;
static TxTable *tx_tables = NULL;
static int	tx_ntables = 0;
static int	tx_maxtables = 0;
static SubxactMark *marks = NULL;	/* by nest level */
static int	nmarks = 0;
static BufferBreak *breaks = NULL;	/* ascending, in both */
static int	nbreaks = 0;
static int	maxbreaks = 0;
static int	disabled = 0;		/* depth of disable_log() */
static int	tx_segment = -1;	/* the segment this transaction writes to */
static int	tx_segment_level = 0;	/* of the subtransaction that locked it */
static int	tx_part = 0;
static bool tx_flushed_early = false;
static bool tx_closing = false; /* PRE_COMMIT has been through */

#define KEEP_BUFFER (64 * 1024) /* larger ones are freed at transaction end */

static void
invalidate_capture(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	CaptureTable *entry;

	hash_seq_init(&status, capture_tables);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (!OidIsValid(relid) || entry->relid == relid || entry->root == relid)
			entry->valid = false;
}

/*
 * Columns of the root's description, found by name in the table at hand.
 */
static int
map_columns(const SynchroTable *table, const int *columns, int ncolumns,
			Oid relid, CaptureColumn *result)
{
	for (int i = 0; i < ncolumns; i++)
	{
		const SynchroColumn *column = &table->columns[columns[i]];

		result[i].attnum = relid == table->relid ? column->attnum :
			get_attnum(relid, column->name);
		result[i].typlen = column->typlen;
		result[i].typbyval = column->typbyval;
	}
	return ncolumns;
}

static void
build_capture_table(CaptureTable *entry)
{
	const SynchroTable *table = synchro_table_get(entry->relid, false);

	entry->root = entry->relid;
	if (!table->watched)
	{
		Oid			root = synchro_table_root(entry->relid);

		if (root != entry->relid)
			table = synchro_table_get(root, false);
		entry->root = root;
	}
	entry->ignore = (!table->watched && !table->key_only) ||
		table->mode == SYNCHRO_MODE_NONE;
	entry->key_only = table->key_only;
	entry->layout = table->layout;
	entry->nidentity = map_columns(table, table->identity, table->nidentity,
								   entry->relid, entry->identity);
	entry->nkey = map_columns(table, table->key, table->nkey,
							  entry->relid, entry->key);
	entry->key_is_identity = table->nkey == table->nidentity &&
		memcmp(table->key, table->identity, sizeof(int) * table->nkey) == 0;
	entry->tx_epoch = 0;
}

static CaptureTable *
get_capture_table(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	CaptureTable *entry;
	bool		found;

	entry = hash_search(capture_tables, &relid, HASH_ENTER, &found);
	if (!found)
	{
		entry->valid = false;
		entry->root = InvalidOid;
	}
	if (!entry->valid)
	{
		entry->valid = true;	/* first: an invalidation meanwhile counts */
		PG_TRY();
		{
			build_capture_table(entry);
		}
		PG_CATCH();
		{
			entry->valid = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	return entry;
}

/*
 * What follows after offset is about to be written: what lies before it in
 * the buffer is older than time.
 */
static void
note_break(int offset, TimestampTz time)
{
	/* and older than what was written from further on, or from here, before */
	while (nbreaks > 0 && breaks[nbreaks - 1].offset >= offset)
		time = breaks[--nbreaks].time;
	if (offset == 0)
		return;
	if (nbreaks == maxbreaks)
	{
		int			newmax = Max(16, maxbreaks * 2);

		breaks = breaks == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(BufferBreak) * newmax) :
			repalloc(breaks, sizeof(BufferBreak) * newmax);
		maxbreaks = newmax;
	}
	breaks[nbreaks].offset = offset;
	breaks[nbreaks++].time = time;
}

/*
 * Write the buffer from offset on to the log, and cut it back to there.
 */
static void
flush_buffer(int offset)
{
	TimestampTz now = GetCurrentTimestamp();
	SynchroLogWriter *writer = synchro_log_open(tx_segment, tx_part);
	uint64		txid = U64FromFullTransactionId(GetTopFullTransactionId());
	int			pos = offset;
	int			next = 0;		/* break that the record lies before */
	int64		entries = 0;

	while (next < nbreaks && breaks[next].offset <= pos)
		next++;
	if (next < nbreaks)
		synchro_log_pose(writer, txid, breaks[next].time);
	while (pos < buffer.len)
	{
		BufferHeader header;

		memcpy(&header, buffer.data + pos, sizeof(header));
		pos += sizeof(header);
		synchro_log_put(writer, tx_tables[header.table].relation,
						tx_tables[header.table].layout,
						buffer.data + pos, header.len);
		pos += header.len;
		entries++;
		if (next < nbreaks && pos >= breaks[next].offset)
		{
			next++;
			synchro_log_pose(writer, txid, next < nbreaks ? breaks[next].time : now);
		}
	}
	synchro_shared_wake_at_commit(entries);
	if (tx_flushed_early && tx_closing)
		synchro_log_put_stamp(writer);
	if (tx_segment < 0)
		tx_segment_level = GetCurrentTransactionNestLevel();
	tx_segment = synchro_log_close(writer, &tx_part);
	note_break(offset, now - 1);
	buffer.len = offset;
	epoch++;
}

/*
 * Where the current subtransaction's own records begin.
 */
static int
current_mark(void)
{
	int			level = GetCurrentTransactionNestLevel();

	return level > 1 && level <= nmarks ? marks[level - 1].len : 0;
}

static void
begin_buffer(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (buffer.data == NULL)
		initStringInfo(&buffer);
	if (recent_keys == NULL)
		recent_keys = palloc0(sizeof(RecentKey) * RECENT_KEYS);
	MemoryContextSwitchTo(old);
}

static uint16
tx_table_index(CaptureTable *table)
{
	if (table->tx_epoch == tx_epoch)
		return table->tx_index;
	if (tx_ntables > PG_UINT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many watched tables changed in one transaction")));
	if (tx_ntables == tx_maxtables)
	{
		tx_maxtables = Max(16, tx_maxtables * 2);
		tx_tables = tx_tables == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(TxTable) * tx_maxtables) :
			repalloc(tx_tables, sizeof(TxTable) * tx_maxtables);
	}
	tx_tables[tx_ntables].relation = table->root;
	tx_tables[tx_ntables].layout = table->layout;
	table->tx_epoch = tx_epoch;
	table->tx_index = tx_ntables++;
	return table->tx_index;
}

/*
 * Is the record at offset one of the same row that says all that a new one
 * with these flags would say?
 *
 * The first operation on a row and its first old key are what the reader
 * goes by, so an earlier record makes a later one without an old key
 * needless.  One with an old key is needless, too, if there is an earlier old
 * key, or if the row was inserted by this transaction and so had none.
 */
static bool
says_already(uint32 offset, const BufferHeader *header, const char *identity, uint8 flags)
{
	BufferHeader earlier;

	memcpy(&earlier, buffer.data + offset, sizeof(earlier));
	if (earlier.table != header->table ||
		earlier.identity_len != header->identity_len ||
		memcmp(buffer.data + offset + sizeof(earlier) + 1, identity,
			   header->identity_len) != 0)
		return false;
	if (flags & SYNCHRO_KEY_MOVED)
		return false;

	/* where there is no old key, only the operation tells that it is gone */
	if ((flags & SYNCHRO_KEY_OP_MASK) == SYNCHRO_OP_DELETE &&
		(earlier.flags & SYNCHRO_KEY_OP_MASK) == SYNCHRO_OP_UPDATE)
		return false;
	return (flags & SYNCHRO_KEY_HAS_OLD) == 0 ||
		(earlier.flags & SYNCHRO_KEY_HAS_OLD) != 0 ||
		(earlier.flags & SYNCHRO_KEY_OP_MASK) == SYNCHRO_OP_INSERT;
}

static void
put_columns(const CaptureColumn *columns, int ncolumns, TupleTableSlot *slot)
{
	for (int i = 0; i < ncolumns; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, columns[i].attnum, &isnull);

		synchro_key_put(&buffer, value, isnull, columns[i].typlen, columns[i].typbyval);
	}
}

/*
 * Log that a row changed.
 *
 * identity: the row whose identity is logged.  old_key: the row as it was,
 * where its natural key is to be logged, else NULL.  from: the row with the
 * identity that it had before, where that changed, else NULL.
 */
static void
log_row(CaptureTable *table, SynchroOp op, TupleTableSlot *identity,
		TupleTableSlot *old_key, TupleTableSlot *from)
{
	BufferHeader header;
	int			start;
	int			record;
	RecentKey  *recent;
	uint8		flags = op;

	if (old_key != NULL && table->nkey > 0)
		flags |= SYNCHRO_KEY_HAS_OLD;
	if (from != NULL)
		flags |= SYNCHRO_KEY_MOVED;

	begin_buffer();
	memset(&header, 0, sizeof(header));
	header.table = tx_table_index(table);
	header.flags = flags;
	start = buffer.len;
	appendBinaryStringInfo(&buffer, (char *) &header, sizeof(header));
	record = buffer.len;
	appendStringInfoCharMacro(&buffer, (char) flags);
	put_columns(table->identity, table->nidentity, identity);
	header.identity_len = buffer.len - record - 1;

	recent = &recent_keys[hash_bytes((unsigned char *) buffer.data + record + 1,
									 header.identity_len) & (RECENT_KEYS - 1)];
	if (recent->epoch == epoch &&
		says_already(recent->offset, &header, buffer.data + record + 1, flags))
	{
		buffer.len = start;
		return;
	}

	if (flags & SYNCHRO_KEY_HAS_OLD)
		put_columns(table->key, table->nkey, old_key);
	if (flags & SYNCHRO_KEY_MOVED)
		put_columns(table->identity, table->nidentity, from);
	header.len = buffer.len - record;
	memcpy(buffer.data + start, &header, sizeof(header));
	recent->epoch = epoch;
	recent->offset = start;

	if (tx_closing)
		flush_buffer(0);
	else if (buffer.len - current_mark() > synchro_buffer_size * 1024)
	{
		tx_flushed_early = true;
		flush_buffer(current_mark());
	}
}

static bool
columns_differ(const CaptureColumn *columns, int ncolumns,
			   TupleTableSlot *a, TupleTableSlot *b)
{
	for (int i = 0; i < ncolumns; i++)
	{
		bool		anull;
		bool		bnull;
		Datum		avalue = slot_getattr(a, columns[i].attnum, &anull);
		Datum		bvalue = slot_getattr(b, columns[i].attnum, &bnull);

		if (anull != bnull)
			return true;
		if (!anull && !datum_image_eq(avalue, bvalue, columns[i].typbyval, columns[i].typlen))
			return true;
	}
	return false;
}

static void
log_update(CaptureTable *table, TupleTableSlot *old, TupleTableSlot *new)
{
	bool		moved = columns_differ(table->identity, table->nidentity, old, new);
	bool		renamed;

	renamed = table->key_is_identity ? moved :
		columns_differ(table->key, table->nkey, old, new);
	if (moved)
	{
		/* under its old identity the row is gone, under the new it came */
		log_row(table, SYNCHRO_OP_DELETE, old, old, NULL);
		log_row(table, SYNCHRO_OP_UPDATE, new, old, old);
	}
	else if (renamed || !table->key_only)
		log_row(table, SYNCHRO_OP_UPDATE, new, renamed ? old : NULL, NULL);
}

/*
 * Row trigger: note the changed row's key.
 */
Datum
synchro_capture(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	CaptureTable *table;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "synchro.capture")));
	if (!TRIGGER_FIRED_AFTER(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired AFTER ROW", "synchro.capture")));
	if (!synchro_log_changes || disabled > 0)
		return PointerGetDatum(NULL);

	table = get_capture_table(data->tg_relation);
	if (table->ignore)
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
	{
		if (!table->key_only)
			log_row(table, SYNCHRO_OP_INSERT, data->tg_trigslot, NULL, NULL);
	}
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		log_row(table, SYNCHRO_OP_DELETE, data->tg_trigslot, data->tg_trigslot, NULL);
	else
		log_update(table, data->tg_trigslot, data->tg_newslot);
	return PointerGetDatum(NULL);
}

/*
 * Truncate trigger: each row of the table is a delete.
 *
 * TRUNCATE has locked the table against everyone before it fires this, so
 * the latest snapshot sees all rows that are about to go, also those that a
 * REPEATABLE READ caller's own snapshot does not.
 */
Datum
synchro_capture_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	CaptureTable *table;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(data->tg_event) ||
		!TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired BEFORE TRUNCATE", "synchro.capture_truncate")));
	if (!synchro_log_changes || disabled > 0)
		return PointerGetDatum(NULL);
	table = get_capture_table(data->tg_relation);
	if (table->ignore || data->tg_relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		return PointerGetDatum(NULL);

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(data->tg_relation, NULL);
	scan = table_beginscan(data->tg_relation, snapshot, 0, NULL, SO_NONE);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		log_row(table, SYNCHRO_OP_DELETE, slot, slot, NULL);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	return PointerGetDatum(NULL);
}

/*
 * disable_log(): until enable_log() or the (sub)transaction's end, changes
 * are not logged.
 */
Datum
synchro_disable_log(PG_FUNCTION_ARGS)
{
	disabled++;
	PG_RETURN_VOID();
}

/*
 * enable_log(): take back one disable_log().
 */
Datum
synchro_enable_log(PG_FUNCTION_ARGS)
{
	if (disabled == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log is not disabled"),
				 errhint("Each call of synchro.enable_log() takes back one synchro.disable_log() of the same transaction.")));
	disabled--;
	PG_RETURN_VOID();
}

/*
 * Has the current transaction changes that are not yet committed?
 */
bool
synchro_capture_pending(void)
{
	return buffer.len > 0 || tx_segment >= 0;
}

static void
forget_transaction(void)
{
	if (buffer.data != NULL)
	{
		if (buffer.maxlen > KEEP_BUFFER)
		{
			pfree(buffer.data);
			buffer.data = NULL;
			buffer.maxlen = 0;
		}
		buffer.len = 0;
	}
	epoch++;
	tx_epoch++;
	tx_ntables = 0;
	nmarks = 0;
	nbreaks = 0;
	disabled = 0;
	tx_segment = -1;
	tx_part = 0;
	tx_flushed_early = false;
	tx_closing = false;
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			tx_closing = true;
			if (buffer.len > 0 || tx_flushed_early)
				flush_buffer(0);
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget_transaction();
			break;
		default:
			/* parallel workers run no triggers */
			break;
	}
}

static void
remember_mark(int level)
{
	static int	maxmarks = 0;

	if (level > maxmarks)
	{
		int			newmax = Max(16, level * 2);

		marks = marks == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(SubxactMark) * newmax) :
			repalloc(marks, sizeof(SubxactMark) * newmax);
		maxmarks = newmax;
	}
	marks[level - 1].len = buffer.len;
	marks[level - 1].disabled = disabled;
	nmarks = level;
}

static void
at_subtransaction_event(SubXactEvent event, SubTransactionId mySubid,
						SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	switch (event)
	{
		case SUBXACT_EVENT_START_SUB:
			remember_mark(level);
			break;
		case SUBXACT_EVENT_COMMIT_SUB:
			if (level <= nmarks)
				disabled = Min(disabled, marks[level - 1].disabled);
			nmarks = level - 1;
			tx_segment_level = Min(tx_segment_level, level - 1);
			break;
		case SUBXACT_EVENT_ABORT_SUB:

			/* the segment's lock goes, so it may be left and truncated */
			if (tx_segment_level >= level)
				tx_segment = -1;
			if (level <= nmarks)
			{
				disabled = marks[level - 1].disabled;
				if (buffer.len > marks[level - 1].len)
				{
					buffer.len = marks[level - 1].len;
					while (nbreaks > 0 && breaks[nbreaks - 1].offset > buffer.len)
						nbreaks--;
					epoch++;
				}
			}
			nmarks = level - 1;
			break;
		default:
			break;
	}
}

/*
 * Prepare capture; called once per backend when the library is loaded, which
 * may be in the middle of a transaction.
 */
void
synchro_capture_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(CaptureTable);
	ctl.hcxt = TopMemoryContext;
	capture_tables = hash_create("synchro capture", 64, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(invalidate_capture, (Datum) 0);
	RegisterXactCallback(at_transaction_event, NULL);
	RegisterSubXactCallback(at_subtransaction_event, NULL);
	for (int level = 1; level <= GetCurrentTransactionNestLevel(); level++)
		remember_mark(level);
}
