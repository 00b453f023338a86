/*-------------------------------------------------------------------------
 *
 * batchdetached.c
 *	  Rows that a partition has taken along when it was detached or dropped: nobody
 *	  has deleted them.  (header: batch.h)
 *
 * A row with a name of before that is not here is deleted on the remote.  That is
 * right for one that was deleted, but not for one that was renamed, or has got
 * another primary key, and then went with its partition: nothing is said of what it
 * was called, as nothing is said of a row that was only changed before it went.
 *
 * What tells them apart is the log's last entry of the row.  Log and table are read
 * with one snapshot, and a delete of a row that was updated before is always logged, in
 * the order in which they were made.  So if the row is not here, and the log says last
 * that it was updated, it was not deleted: keyhistory.c notes where it should be.  If it
 * says last that it was inserted, nobody knows: what one transaction has inserted and
 * deleted is logged as inserted.  Nor where what is parked of it is all that is left.
 *
 * No snapshot keeps rows from TRUNCATE, nor those that were deleted since from going
 * with a partition.  So where rows are missing, what the log says since the snapshot is
 * looked at, too, after that: whatever took them away has committed by then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "applysql.h"
#include "batch.h"
#include "localsql.h"
#include "reader.h"
#include "readsql.h"
#include "rowstream.h"
#include "stalled.h"

/* names of before that are looked at at once */
#define PIECE			1000

/* rows that are here */
typedef struct Here
{
	HTAB	   *rows;			/* see synchro_string_set() */
	MemoryContext context;
} Here;

static void
receive_here(TupleTableSlot *slot, void *arg)
{
	Here	   *here = arg;
	MemoryContext old = MemoryContextSwitchTo(here->context);
	char	   *row = synchro_identity_key(synchro_identities_read(slot), slot->tts_tupleDescriptor->natts);

	(void) hash_search(here->rows, &row, HASH_ENTER, NULL);
	MemoryContextSwitchTo(old);
}

/*
 * Which of these are here?
 */
static HTAB *
find_here(const SynchroBatch *batch, const SynchroLinkTable *lt, const SynchroIdentities *identities)
{
	const SynchroTable *table = lt->table;
	Here		here = {synchro_string_set(CurrentMemoryContext), CurrentMemoryContext};
	SynchroReader reader;
	StringInfoData sql;
	Datum		values[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	int			nparams;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(&sql, "%st.%s", i > 0 ? ", " : "", quote_identifier(table->columns[table->identity[i]].name));
	synchro_sql_from(&sql, lt, true);
	synchro_reader_begin(&reader, batch->link->target->owner, table, true, synchro_stream_joined(lt, true));
	nparams = synchro_identities_params(identities, table, 0, identities->count, types, values);
	synchro_sql_query(sql.data, nparams, types, values, NULL, synchro_sql_callback(receive_here, &here));
	synchro_reader_end(&reader);

	/* queries leave their own behind */
	MemoryContextSwitchTo(here.context);
	return here.rows;
}

static char *
row_of(const SynchroTable *table, SynchroBytes identity)
{
	return synchro_identity_key(synchro_identities_values(table, table->identity, table->nidentity, identity), table->nidentity);
}

/*
 * Which rows of a table have been deleted since the batch's snapshot?
 */
static HTAB *
find_deleted_since(const SynchroBatch *batch, const SynchroTable *table)
{
	MemoryContext context = CurrentMemoryContext;
	HTAB	   *rows = synchro_string_set(context);
	SynchroSqlScope scope;
	SynchroChangeSet *since;
	ListCell   *cell;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	MemoryContextSwitchTo(context);
	PushActiveSnapshot(GetLatestSnapshot());
	since = synchro_changes_collect(synchro_snapshot_parse(batch->keys_snapshot), NULL, NULL, NULL, NIL, NIL, NULL, false, NULL);
	PopActiveSnapshot();
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(context);
	foreach(cell, since->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);
		SynchroChangedKey key;

		while (changed->relid == table->relid && synchro_changes_next_old(changed, &key))
		{
			char	   *row = row_of(table, key.identity);

			CHECK_FOR_INTERRUPTS();
			if (key.logged_at.data == NULL)
				(void) hash_search(rows, &row, HASH_ENTER, NULL);
		}
	}
	synchro_changes_free(since);
	return rows;
}

/*
 * Put a piece of a table's names of before into a store, but for those of rows that
 * should be here and are not.
 */
static int64
put_piece(const SynchroBatch *batch, const SynchroLinkTable *lt, SynchroChangedKey *keys, int count, Tuplestorestate *store)
{
	const SynchroTable *table = lt->table;
	SynchroIdentities *wanted = synchro_identities_create(table);
	HTAB	   *here = NULL;
	HTAB	   *deleted = NULL;
	int64		put = 0;

	for (int i = 0; i < count; i++)
		if (keys[i].logged_at.data != NULL)
			synchro_identities_decode(wanted, table, keys[i].logged_at);
	if (wanted->count > 0)
		here = find_here(batch, lt, wanted);
	for (int i = 0; i < count; i++)
	{
		char	   *row = keys[i].logged_at.data != NULL ? row_of(table, keys[i].logged_at) : NULL;

		if (row != NULL && hash_search(here, &row, HASH_FIND, NULL) == NULL)
		{
			if (deleted == NULL)
				deleted = find_deleted_since(batch, table);
			if (hash_search(deleted, &row, HASH_FIND, NULL) == NULL)
				continue;
		}
		synchro_changestore_put(store, &keys[i]);
		put++;
	}
	return put;
}

static void
spare_of_table(SynchroBatch *batch, SynchroChangedTable *changed)
{
	SynchroLinkTable *lt = synchro_link_table(batch->link, changed->relid, true);
	SynchroChangedKey *keys = palloc(sizeof(SynchroChangedKey) * PIECE);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro detached rows", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(batch->olds->context);
	Tuplestorestate *store = synchro_changestore_create();
	int64		put = 0;
	int			count;

	synchro_batch_require_rights(batch, lt);
	synchro_suspect(lt->root);
	synchro_stream_reads(changed->relid);
	MemoryContextSwitchTo(context);
	do
	{
		CHECK_FOR_INTERRUPTS();
		for (count = 0; count < PIECE && synchro_changes_next_old(changed, &keys[count]);)
			count++;
		put += put_piece(batch, lt, keys, count, store);
		Assert(CurrentMemoryContext == context);
		MemoryContextReset(context);
	} while (count == PIECE);
	synchro_stream_reads(InvalidOid);
	synchro_suspect(InvalidOid);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	pfree(keys);

	synchro_changestore_end(changed->olds);
	changed->olds = store;
	batch->olds->nolds += put - changed->nolds;
	changed->nolds = put;
}

/*
 * Take names of before of such rows out of the batch.
 */
void
synchro_batch_spare_detached(SynchroBatch *batch)
{
	ListCell   *cell;

	foreach(cell, batch->olds->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		/* of one that is not watched nothing is deleted there */
		if (changed->nolds > 0 && changed->table->watched && changed->table->relkind == RELKIND_PARTITIONED_TABLE &&
			synchro_table_get(changed->relid, true) != NULL)
			spare_of_table(batch, changed);
	}
}
