/*-------------------------------------------------------------------------
 *
 * batchcalled.c
 *	  Rows that are gone here, and by which the remote still calls others: they
 *	  wait for these.  (header: batch.h)
 *
 * A row that has its parent in its natural key, and whose new name has been refused,
 * keeps on the remote a name that has its former parent in it.  If that is gone here,
 * nothing but its own name of before says which row there it is.  Were that sent, it
 * would be an old story to the next batch: the row that waits would be found by
 * nobody any more, so that it went along with the parent's delete, or was made anew.
 * So the parent is left out, too, and parked with what the remote calls it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "applysql.h"
#include "batch.h"
#include "localsql.h"
#include "reader.h"
#include "readsql.h"
#include "stalled.h"

/* a row by which another one is called that waits */
typedef struct Called
{
	char	   *row;			/* hash key, see synchro_parked_row() */
	const char *by;				/* that one's table */
} Called;

/* all of them */
typedef struct CalledRows
{
	HTAB	   *rows;
	List	   *parents;		/* oids of their tables */
	List	   *children;		/* oids of tables whose rows wait, and may be called
								 * by others */
} CalledRows;

/*
 * Does a foreign key reference another row by columns of the natural key?  Then
 * values are those of its identity, of a name of before that has these; if it is
 * known what they were.
 */
static bool
parent_of_name(const SynchroTable *table, int fk, const SynchroTable *parent, char **name, char **values)
{
	for (int x = 0; x < parent->nidentity; x++)
	{
		int			j = synchro_stream_key_position(table, fk, parent->columns[parent->identity[x]].attnum);

		if (j < 0)
			return false;
		if (values != NULL)
			values[x] = name[j];
	}
	return values == NULL || values[0] != NULL;
}

static void
add_called(CalledRows *called, const SynchroTable *table, int fk, const SynchroTable *parent, char **name)
{
	char	   *values[INDEX_MAX_KEYS] = {0};
	char	   *row;
	Called	   *slot;

	if (!parent_of_name(table, fk, parent, name, values))
		return;
	row = synchro_parked_row(parent->relid, values, parent->nidentity);
	slot = hash_search(called->rows, &row, HASH_ENTER, NULL);
	slot->by = table->qualified;
	called->parents = list_append_unique_oid(called->parents, parent->relid);
}

/*
 * Find the rows by which others are called that wait, and do not come with this
 * batch.
 */
static CalledRows
find_called(const SynchroBatch *batch)
{
	CalledRows	called = {synchro_string_table(CurrentMemoryContext, sizeof(Called))};
	ListCell   *cell;
	ListCell   *other;

	foreach(cell, synchro_parked_tables(batch->parked))
	{
		const SynchroTable *table = synchro_table_get(lfirst_oid(cell), true);
		List	   *names;

		if (table == NULL || !table->watched || table->mode == SYNCHRO_MODE_NONE || table->mode == SYNCHRO_MODE_REFERENCE || table->nfks == 0)
			continue;

		/* the description may be made anew while others are got */
		table = synchro_table_copy(table, CurrentMemoryContext);
		names = synchro_parked_names(batch->parked, table);
		for (int fk = 0; fk < table->nfks; fk++)
		{
			const SynchroTable *parent = synchro_table_get(table->fks[fk].parent, true);

			if (parent == NULL || !parent->watched || parent->nidentity == 0 || !parent_of_name(table, fk, parent, NULL, NULL))
				continue;
			called.children = list_append_unique_oid(called.children, table->relid);
			foreach(other, names)
			{
				const SynchroChangedKey *name = lfirst(other);
				const SynchroParked *parked = synchro_parked_find_key(batch->parked, table, name->identity);

				/* NULL: the type writes the row's key otherwise since a while ago */
				if (parked == NULL || parked->banned || !parked->due || synchro_stalled_waits(batch->stalled, table->relid))
					add_called(&called, table, fk, parent, synchro_identities_values(table, table->key, table->nkey, name->name));
			}
		}
	}
	return called;
}

static void
receive_here(TupleTableSlot *slot, void *arg)
{
	*(bool *) arg = true;
}

static bool
is_here(const SynchroBatch *batch, const SynchroLinkTable *lt, SynchroBytes identity)
{
	const SynchroTable *table = lt->table;
	SynchroIdentities *identities = synchro_identities_create(table);
	SynchroReader reader;
	StringInfoData sql;
	Datum		values[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	int			nparams;
	bool		here = false;
	MemoryContext context = CurrentMemoryContext;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT true");
	synchro_sql_from(&sql, lt, true);
	synchro_identities_decode(identities, table, identity);
	synchro_reader_begin(&reader, batch->link->target->owner, table, true, synchro_stream_joined(lt, true));
	nparams = synchro_identities_params(identities, table, 0, 1, types, values);
	synchro_sql_query(sql.data, nparams, types, values, NULL, synchro_sql_callback(receive_here, &here));
	synchro_reader_end(&reader);

	/* queries leave their own behind */
	MemoryContextSwitchTo(context);
	return here;
}

/*
 * Look through a table's names of before for rows by which others are called, and
 * that are gone; and for what the remote calls rows that have failed in this pass,
 * which may have other such rows in it.  Returns whether there are any that were
 * not known.
 */
static bool
keep_table(SynchroBatch *batch, SynchroChangedTable *changed, const CalledRows *called)
{
	SynchroLinkTable *lt = synchro_link_table(batch->link, changed->relid, changed->table->watched);
	const SynchroTable *table = changed->table;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro called row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SynchroChangedKey name;
	bool		any = false;

	synchro_batch_require_rights(batch, lt);
	synchro_suspect(lt->root);
	synchro_stream_reads(table->relid);
	tuplestore_rescan(changed->olds);
	while (synchro_changes_next_old(changed, &name))
	{
		char	  **identity = synchro_identities_values(table, table->identity, table->nidentity, name.identity);
		SynchroParked *parked = synchro_parked_find(batch->parked, table->relid, identity, table->nidentity);
		char	   *row = synchro_parked_row(table->relid, identity, table->nidentity);
		const Called *slot = hash_search(called->rows, &row, HASH_FIND, NULL);

		CHECK_FOR_INTERRUPTS();
		if (parked != NULL && parked->banned)
			any |= synchro_batch_keep_name(batch, parked, changed, &name);
		else if (slot != NULL && name.kind == SYNCHRO_KIND_OLD[0] && !is_here(batch, lt, name.identity))
		{
			synchro_parked_hold(batch->parked, table, &name, batch->olds->sources, slot->by);
			any = true;
		}
		MemoryContextReset(context);
	}
	tuplestore_rescan(changed->olds);
	synchro_stream_reads(InvalidOid);
	synchro_suspect(InvalidOid);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return any;
}

/*
 * Leave those out of the batch.  One may itself be called by another one that is gone:
 * until nothing new is found.
 */
void
synchro_batch_keep_called(SynchroBatch *batch)
{
	bool		again = batch->parked->count > 0 && batch->olds->nolds > 0;

	while (again)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro called rows", ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);
		CalledRows	called = find_called(batch);
		ListCell   *cell;

		again = false;
		foreach(cell, batch->olds->tables)
		{
			SynchroChangedTable *changed = lfirst(cell);

			if (changed->nolds > 0 && changed->table->watched && synchro_table_get(changed->relid, true) != NULL &&
				(list_member_oid(called.parents, changed->relid) || list_member_oid(called.children, changed->relid)))
				again |= keep_table(batch, changed, &called);
		}
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
	}
}
