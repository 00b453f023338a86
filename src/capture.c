/*-------------------------------------------------------------------------
 *
 * capture.c
 *	  Row and truncate triggers.
 *
 * The row trigger appends the key of each changed row to the transaction's
 * buffer (capturebuffer.c), which is written to the log before commit.
 *
 * Nothing here or there runs output functions, SQL or locks anything but the
 * live log segment, so the user's transaction fails for our sake only when
 * the disk is full or memory runs out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "applied.h"
#include "capture.h"
#include "capturebuffer.h"
#include "capturexact.h"
#include "compat.h"
#include "keycodec.h"
#include "settings.h"
#include "tableinfo.h"

PG_FUNCTION_INFO_V1(synchro_capture);
PG_FUNCTION_INFO_V1(synchro_capture_truncate);

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
	SynchroTablePlace place;
} CaptureTable;

static HTAB *capture_tables = NULL;
static CaptureTable *latest = NULL; /* of capture_tables, which removes none */

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
		bool		passing;
		Oid			root = synchro_table_covering_seen(entry->relid, &passing);

		if (root != entry->relid)
			table = synchro_table_get(root, false);
		entry->root = root;

		/* the next row may be written by a statement that sees it otherwise */
		if (passing)
			entry->valid = false;
	}

	/* while it is being detached, a partition still has the triggers of the root */
	entry->ignore = (!table->watched && !table->key_only) ||
		table->mode == SYNCHRO_MODE_NONE || synchro_table_is_detaching(entry->root);
	entry->key_only = table->key_only;
	entry->layout = table->layout;
	entry->nidentity = map_columns(table, table->identity, table->nidentity,
								   entry->relid, entry->identity);
	entry->nkey = map_columns(table, table->key, table->nkey,
							  entry->relid, entry->key);
	entry->key_is_identity = table->nkey == table->nidentity &&
		memcmp(table->key, table->identity, sizeof(int) * table->nkey) == 0;
	entry->place.tx_epoch = 0;
}

static CaptureTable *
get_capture_table(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	CaptureTable *entry;
	bool		found;

	if (latest != NULL && latest->relid == relid && latest->valid)
		return latest;
	entry = hash_search(capture_tables, &relid, HASH_ENTER, &found);
	if (!found)
	{
		entry->valid = false;
		entry->root = InvalidOid;
	}
	latest = entry;
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

static void
put_columns(StringInfo record, const CaptureColumn *columns, int ncolumns,
			TupleTableSlot *slot)
{
	for (int i = 0; i < ncolumns; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, columns[i].attnum, &isnull);

		synchro_key_put(record, value, isnull, columns[i].typlen, columns[i].typbyval);
	}
}

/*
 * Is the row, whose identity is in the record from start on, written on behalf
 * of another node?  Then its record bears the stamp of that one's change.
 */
static SynchroApplied *
find_applied(const CaptureTable *table, StringInfo record, int start, uint8 *flags)
{
	SynchroBytes identity = {record->data + start, record->len - start};
	SynchroApplied *applied = synchro_applied_find(table->root, identity);

	if (applied == NULL)
	{
		if ((*flags & SYNCHRO_KEY_OP_MASK) == SYNCHRO_OP_DELETE)
			synchro_applied_note_affected(table->root, identity);
		return NULL;
	}
	applied->logged = true;
	*flags |= SYNCHRO_KEY_STAMPED;
	if (applied->derived)
		*flags |= SYNCHRO_KEY_DERIVED;
	synchro_buffer_set_flags(*flags);
	return applied;
}

/*
 * A version of a row as it is on its page, or NULL.
 */
static HeapTupleHeader
header_of(TupleTableSlot *slot)
{
	HeapTuple	tuple = NULL;

	if (TTS_IS_HEAPTUPLE(slot) || TTS_IS_BUFFERTUPLE(slot))
		tuple = ((HeapTupleTableSlot *) slot)->tuple;
	return tuple != NULL ? tuple->t_data : NULL;
}

/*
 * Which command wrote this version of a row, a moment ago?  Not the current
 * one: other triggers run theirs between two rows of one command.
 */
static CommandId
written_by(TupleTableSlot *slot)
{
	HeapTupleHeader header = header_of(slot);

	if (header != NULL && TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(header)))
		return HeapTupleHeaderGetCmin(header);
	return GetCurrentCommandId(false);
}

/*
 * The same of the one that deleted it.
 */
static CommandId
deleted_by(TupleTableSlot *slot)
{
	HeapTupleHeader header = header_of(slot);

	if (header != NULL && (header->t_infomask & HEAP_XMAX_INVALID) == 0 &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(header)))
		return HeapTupleHeaderGetCmax(header);
	return GetCurrentCommandId(false);
}

/*
 * Log that a row was changed by a command.
 *
 * identity: the row whose identity is logged.  old_key: the row as it was,
 * where its natural key is to be logged, else NULL.  from: the row with the
 * identity that it had before, where that changed, else NULL.
 */
static void
log_row(CaptureTable *table, SynchroOp op, CommandId command, TupleTableSlot *identity,
		TupleTableSlot *old_key, TupleTableSlot *from)
{
	StringInfo	record;
	uint8		flags = op;
	int			start;
	SynchroApplied *applied = NULL;

	if (old_key != NULL && table->nkey > 0)
		flags |= SYNCHRO_KEY_HAS_OLD;
	if (from != NULL)
	{
		flags |= SYNCHRO_KEY_MOVED;
		if (synchro_capture_moves_together(&table->place, table->root, table->layout, command))
			flags |= SYNCHRO_KEY_TOGETHER;
	}

	record = synchro_buffer_begin(&table->place, table->root, table->layout, flags, command);
	start = record->len;
	put_columns(record, table->identity, table->nidentity, identity);
	if (synchro_applied_any())
		applied = find_applied(table, record, start, &flags);
	if (!synchro_buffer_needs_more())
		return;
	if (flags & SYNCHRO_KEY_HAS_OLD)
		put_columns(record, table->key, table->nkey, old_key);
	if (flags & SYNCHRO_KEY_MOVED)
		put_columns(record, table->identity, table->nidentity, from);
	if (applied != NULL)
		synchro_key_put_stamp(record, applied->stamp);
	synchro_buffer_end();
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

/*
 * Does the row refer to something else than before?
 */
static bool
reference_differs(const CaptureTable *table, TupleTableSlot *old, TupleTableSlot *new)
{
	const SynchroTable *root = synchro_table_get(table->root, false);

	for (int i = 0; i < root->nfks; i++)
	{
		CaptureColumn columns[INDEX_MAX_KEYS];

		map_columns(root, root->fks[i].cols, root->fks[i].ncols, table->relid, columns);
		if (columns_differ(columns, root->fks[i].ncols, old, new))
			return true;
	}
	return false;
}

/*
 * While deletes are applied for another node: has the row, of which that one has
 * said nothing, lost a reference by them?
 */
static void
note_reference_lost(const CaptureTable *table, TupleTableSlot *old, TupleTableSlot *new)
{
	StringInfoData identity;

	if (!reference_differs(table, old, new))
		return;
	initStringInfo(&identity);
	put_columns(&identity, table->identity, table->nidentity, new);
	synchro_applied_note_affected(table->root, (SynchroBytes) {identity.data, identity.len});
	pfree(identity.data);
}

static void
log_update(CaptureTable *table, TupleTableSlot *old, TupleTableSlot *new)
{
	bool		moved = columns_differ(table->identity, table->nidentity, old, new);
	CommandId	command = written_by(new);
	bool		renamed;

	if (synchro_applied_is_referring(table->root))
		note_reference_lost(table, old, new);
	renamed = table->key_is_identity ? moved :
		columns_differ(table->key, table->nkey, old, new);
	if (moved)
	{
		/* under its old identity the row is gone, under the new it came */
		log_row(table, SYNCHRO_OP_DELETE, command, old, old, NULL);
		log_row(table, SYNCHRO_OP_UPDATE, command, new, old, old);
	}
	else if (renamed || !table->key_only)
		log_row(table, SYNCHRO_OP_UPDATE, command, new, renamed ? old : NULL, NULL);
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
	if (!synchro_log_changes || synchro_capturexact_disabled())
		return PointerGetDatum(NULL);

	table = get_capture_table(data->tg_relation);
	if (table->ignore)
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
	{
		if (!table->key_only)
			log_row(table, SYNCHRO_OP_INSERT, written_by(data->tg_trigslot), data->tg_trigslot, NULL, NULL);
	}
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		log_row(table, SYNCHRO_OP_DELETE, deleted_by(data->tg_trigslot), data->tg_trigslot, data->tg_trigslot, NULL);
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
	CommandId	command;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(data->tg_event) ||
		!TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired BEFORE TRUNCATE", "synchro.capture_truncate")));
	if (!synchro_log_changes || synchro_capturexact_disabled())
		return PointerGetDatum(NULL);
	table = get_capture_table(data->tg_relation);
	if (table->ignore || data->tg_relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		return PointerGetDatum(NULL);

	command = GetCurrentCommandId(false);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(data->tg_relation, NULL);
	scan = table_beginscan(data->tg_relation, snapshot, 0, NULL, SO_NONE);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		log_row(table, SYNCHRO_OP_DELETE, command, slot, slot, NULL);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	return PointerGetDatum(NULL);
}

/*
 * Prepare capture; called once per backend.
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
}
