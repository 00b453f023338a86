/*-------------------------------------------------------------------------
 *
 * referring.c
 *	  Rows that have been changed here, and refer to rows that another node
 *	  deletes.
 *
 * Rows that were changed lately are few, so the way goes up: from what the log
 * has of all tables that refer to the deletes' tables to the rows that they refer
 * to.  Not by way of what the same batch is going to write over, as
 * synchro_applied_put() was told before.  Whatever else the other node itself has
 * said of such rows is no newer than its delete: there, the reference was given
 * up before.
 *
 * Only watched tables are looked at.  Of others nothing is logged.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "applied.h"
#include "fksql.h"
#include "identities.h"
#include "keyarray.h"
#include "localsql.h"
#include "peerlog.h"
#include "reader.h"
#include "referring.h"
#include "registryrow.h"

/* what the callback of a query for references needs */
typedef struct References
{
	SynchroReferring *search;
	SynchroReferringPlace *from;
	SynchroReferringPlace *to;
	StringInfoData bytes;
} References;

/*
 * The place of the table with that oid, NULL if it has none.
 */
SynchroReferringPlace *
synchro_referring_find(const SynchroReferring *search, Oid relid)
{
	ListCell   *cell;

	foreach(cell, search->places)
		if (((SynchroReferringPlace *) lfirst(cell))->table->relid == relid)
			return lfirst(cell);
	return NULL;
}

/*
 * The place of a table, which is given one if it has none.  table: lives as long
 * as the search.
 */
SynchroReferringPlace *
synchro_referring_place(SynchroReferring *search, const SynchroTable *table)
{
	SynchroReferringPlace *place = synchro_referring_find(search, table->relid);

	if (place != NULL)
		return place;
	place = palloc0(sizeof(SynchroReferringPlace));
	place->table = table;
	place->rows = synchro_bytes_table("synchro referring rows", sizeof(SynchroReferringRow), 256);
	search->places = lappend(search->places, place);
	return place;
}

/*
 * A row of a table, which is added if it is not there.
 */
SynchroReferringRow *
synchro_referring_row(SynchroReferring *search, SynchroReferringPlace *place, SynchroBytes identity)
{
	bool		known;
	SynchroReferringRow *row = hash_search(place->rows, &identity, HASH_ENTER, &known);

	if (!known)
	{
		MemoryContext old = MemoryContextSwitchTo(search->context);

		memset(row, 0, sizeof(SynchroReferringRow));
		row->identity = synchro_key_copy(identity);
		row->overridden = synchro_applied_find(place->table->relid, identity) != NULL;
		MemoryContextSwitchTo(old);
	}
	return row;
}

/*
 * What that row refers to is to be read, once.
 */
static void
list_unread(SynchroReferring *search, SynchroReferringPlace *place, SynchroReferringRow *row)
{
	MemoryContext old;

	if (row->listed)
		return;
	row->listed = true;
	old = MemoryContextSwitchTo(search->context);
	place->unread = lappend(place->unread, row);
	MemoryContextSwitchTo(old);
}

/*
 * Which watched tables refer to the deletes' ones, or to such a table?  Returns
 * whether any does.
 */
static bool
find_referring(SynchroReferring *search)
{
	List	   *watched = synchro_registry_watched();
	bool		any = false;
	bool		found;

	do
	{
		ListCell   *cell;

		found = false;
		foreach(cell, watched)
		{
			const SynchroTable *table = synchro_table_get(lfirst_oid(cell), true);
			SynchroReferringPlace *place;
			bool		refers = false;

			if (table == NULL || !table->watched || table->mode == SYNCHRO_MODE_NONE)
				continue;
			place = synchro_referring_find(search, table->relid);
			if (place != NULL && place->refers)
				continue;
			for (int fk = 0; fk < table->nfks; fk++)
				refers |= synchro_referring_find(search, table->fks[fk].parent) != NULL;
			if (!refers)
				continue;
			if (place == NULL)
				place = synchro_referring_place(search, synchro_table_copy(table, search->context));
			place->refers = true;
			synchro_applied_refers(place->table->relid);
			any = found = true;
		}
	} while (found);
	return any;
}

/*
 * Look for changes of rows of these tables.  Returns whether there are any.
 */
static bool
find_changed(SynchroReferring *search, TimestampTz since)
{
	List	   *tables = NIL;
	List	  **rows = palloc(sizeof(List *) * list_length(search->places));
	int			next = 0;
	bool		any = false;
	ListCell   *cell;

	foreach(cell, search->places)
		if (((SynchroReferringPlace *) lfirst(cell))->refers)
			tables = lappend(tables, unconstify(SynchroTable *, ((SynchroReferringPlace *) lfirst(cell))->table));
	search->stamps = synchro_peerlog_changed(tables, since, rows);
	foreach(cell, search->places)
	{
		SynchroReferringPlace *place = lfirst(cell);

		if (!place->refers)
			continue;
		place->changed = rows[next++];
		any |= place->changed != NIL;
	}
	return any;
}

/*
 * These are what the way starts from: all rows that were changed and are there,
 * but those that are to be deleted themselves, by something newer still.
 */
static void
put_changed(SynchroReferring *search)
{
	ListCell   *cell;
	ListCell   *changed;

	foreach(cell, search->places)
	{
		SynchroReferringPlace *place = lfirst(cell);

		foreach(changed, place->changed)
		{
			const SynchroNewest *newest = lfirst(changed);
			SynchroReferringRow *row;

			if (!newest->live)
				continue;
			row = synchro_referring_row(search, place, newest->bytes);
			if (row->text != (Datum) 0)
				continue;
			row->newest = newest->stamp;
			search->changed = lappend(search->changed, row);
			list_unread(search, place, row);
		}
	}
}

static SynchroBytes
put_identity(StringInfo buf, const SynchroTable *table, TupleTableSlot *slot, int first)
{
	resetStringInfo(buf);
	synchro_key_put_values(buf, table, table->identity, table->nidentity, slot->tts_values + first, slot->tts_isnull + first);
	return (SynchroBytes) {buf->data, buf->len};
}

static void
note_reference(TupleTableSlot *slot, void *arg)
{
	References *references = arg;
	const SynchroTable *table = references->from->table;
	SynchroReferringPlace *to = references->to;
	SynchroBytes identity;
	MemoryContext old;
	SynchroReferringRow *row;
	SynchroReferringRow *parent;

	slot_getallattrs(slot);
	identity = put_identity(&references->bytes, table, slot, 0);
	row = hash_search(references->from->rows, &identity, HASH_FIND, NULL);
	if (row == NULL)
		return;
	identity = put_identity(&references->bytes, to->table, slot, table->nidentity);
	parent = to->refers ? synchro_referring_row(references->search, to, identity) : hash_search(to->rows, &identity, HASH_FIND, NULL);
	if (parent == NULL)
		return;
	old = MemoryContextSwitchTo(references->search->context);
	row->refers = lappend(row->refers, parent);
	MemoryContextSwitchTo(old);
	if (to->refers)
		list_unread(references->search, to, parent);
}

/*
 * Are what a foreign key says and the parent's identity the same bytes?
 */
static bool
is_identity(const SynchroTable *table, const SynchroForeignKey *key, const SynchroTable *parent)
{
	if (!synchro_table_fk_to_identity(key, parent) || !synchro_sql_fk_is_direct(table, key, parent))
		return false;
	for (int i = 0; i < key->ncols; i++)
		if (table->columns[key->cols[i]].type != parent->columns[parent->identity[i]].type)
			return false;
	return true;
}

/*
 * Append the query for what rows with given identities refer to.
 */
static void
append_query(StringInfo sql, const SynchroTable *table, const SynchroForeignKey *key, const SynchroTable *parent,
			 bool joins, const bool *any_null)
{
	appendStringInfoString(sql, "SELECT ");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, "%st.%s", i > 0 ? ", " : "", quote_identifier(table->columns[table->identity[i]].name));
	for (int i = 0; i < parent->nidentity; i++)
		appendStringInfo(sql, ", %s.%s", joins ? "p" : "t",
						 quote_identifier(joins ? parent->columns[parent->identity[i]].name : table->columns[key->cols[i]].name));
	synchro_keyarray_join(sql, table, any_null);
	if (joins)
	{
		appendStringInfo(sql, " JOIN %s p ON ", synchro_table_rows(parent));
		synchro_sql_fk_equal(sql, table, key, "p", "t");
		return;
	}
	appendStringInfoString(sql, " WHERE ");
	for (int i = 0; i < key->ncols; i++)
		appendStringInfo(sql, "%st.%s IS NOT NULL", i > 0 ? " AND " : "", quote_identifier(table->columns[key->cols[i]].name));
}

/*
 * Does the batch write what a foreign key of a table says?
 */
static bool
is_written(const SynchroReferringPlace *place, const SynchroForeignKey *key)
{
	for (int i = 0; i < key->ncols; i++)
		if (place->written == NULL || !place->written[key->cols[i]])
			return false;
	return true;
}

/*
 * Note what rows refer to by one foreign key.  rows: of SynchroReferringRow.
 *
 * Those that the batch writes will refer to something else when its deletes are
 * done: to what they refer to at the other node, where the rows to be deleted are
 * gone.  Those that are to be deleted count as long as something newer keeps
 * them.
 *
 * It is read with the rights of the tables' owners.  Where these may not read
 * their own tables, or it takes a join and neither may see both, such rows do not
 * count.
 */
static void
read_references(SynchroReferring *search, SynchroReferringPlace *from, const SynchroForeignKey *key, SynchroReferringPlace *to, List *rows)
{
	References	references = {search, from, to};
	const SynchroTable *table = from->table;
	bool		joins = !is_identity(table, key, to->table);
	bool		written = is_written(from, key);
	SynchroBytes *identities = palloc(sizeof(SynchroBytes) * list_length(rows));
	bool		any_null[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	Datum		params[INDEX_MAX_KEYS];
	int			nparams;
	int			count = 0;
	SynchroReader reader;
	StringInfoData sql;
	ListCell   *cell;

	foreach(cell, rows)
	{
		const SynchroReferringRow *row = lfirst(cell);

		if (!written || !row->overridden || row->text != (Datum) 0)
			identities[count++] = row->identity;
	}
	if (count == 0)
		return;
	initStringInfo(&references.bytes);
	initStringInfo(&sql);
	LockRelationOid(table->relid, AccessShareLock);
	LockRelationOid(to->table->relid, AccessShareLock);
	nparams = synchro_keyarray_of_bytes(table, identities, count, types, params, any_null);
	append_query(&sql, table, key, to->table, joins, any_null);
	if (!joins)
		synchro_reader_begin_as_owner(&reader, table->relid);
	else if (!synchro_reader_begin_as_common_owner(&reader, table, to->table))
		return;
	if (synchro_reader_may_read_all(table->relid) && (!joins || synchro_reader_may_read_all(to->table->relid)))
		synchro_sql_query(sql.data, nparams, types, params, NULL, synchro_sql_callback(note_reference, &references));
	synchro_reader_end(&reader);
}

/*
 * Read what the rows that were changed refer to, and what that refers to.  What
 * a row refers to is read once, so this comes to an end in circles, too.
 */
static void
read_all_references(SynchroReferring *search)
{
	SynchroSqlScope scope;
	bool		any;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_nested_loops();
	do
	{
		ListCell   *cell;

		any = false;
		foreach(cell, search->places)
		{
			SynchroReferringPlace *place = lfirst(cell);
			List	   *rows = place->unread;

			CHECK_FOR_INTERRUPTS();
			if (rows == NIL)
				continue;
			any = true;
			place->unread = NIL;
			for (int fk = 0; fk < place->table->nfks; fk++)
			{
				SynchroReferringPlace *to = synchro_referring_find(search, place->table->fks[fk].parent);

				if (to != NULL)
					read_references(search, place, &place->table->fks[fk], to, rows);
			}
		}
	} while (any);
	synchro_sql_close(&scope);
}

static int
newest_first(const void *a, const void *b, void *stamps)
{
	return synchro_stamps_compare(stamps, (*(SynchroReferringRow *const *) b)->newest, (*(SynchroReferringRow *const *) a)->newest);
}

/*
 * What a row refers to is as new as the row.  The newest go first, so whatever
 * is reached has its stamp for good, and each reference is followed once.
 */
static void
carry_upwards(SynchroReferring *search)
{
	int			count = list_length(search->changed);
	SynchroReferringRow **changed = palloc(sizeof(SynchroReferringRow *) * count);
	ListCell   *cell;

	foreach(cell, search->changed)
		changed[foreach_current_index(cell)] = lfirst(cell);
	qsort_arg(changed, count, sizeof(SynchroReferringRow *), newest_first, search->stamps);
	for (int i = 0; i < count; i++)
	{
		List	   *way = changed[i]->reached ? NIL : list_make1(changed[i]);

		changed[i]->reached = true;
		while (way != NIL)
		{
			SynchroReferringRow *row = llast(way);

			way = list_delete_last(way);
			foreach(cell, row->refers)
			{
				SynchroReferringRow *parent = lfirst(cell);

				if (parent->reached)
					continue;
				parent->reached = true;
				parent->newest = row->newest;
				way = lappend(way, parent);
			}
		}
	}
}

/*
 * Look for changes of rows that refer to rows of the search's tables, be it by
 * way of others, which were made since then.  Returns whether there are any: as a
 * rule there are none, and then the rows that are to be deleted need not be looked
 * at.
 */
bool
synchro_referring_changed(SynchroReferring *search, TimestampTz since)
{
	return find_referring(search) && find_changed(search, since);
}

/*
 * Follow these changes up to the rows that are to be deleted, which have their
 * text by now: those that are reached have the newest.  Returns whether any may be.
 */
bool
synchro_referring_follow(SynchroReferring *search)
{
	put_changed(search);
	if (search->changed == NIL)
		return false;
	read_all_references(search);
	carry_upwards(search);
	return true;
}
