/*-------------------------------------------------------------------------
 *
 * peerreferred.c
 *	  SQL-callable function: what has been changed here of rows that refer to
 *	  rows which another node deletes.
 *
 * A row that is deleted takes along what refers to it by ON DELETE CASCADE, and
 * is held by it otherwise, or is forgotten by it.  Where such a row was changed
 * after the delete, by somebody who did not know of it, the newer change has to
 * win: if it had come to the other node first, that one would have got it with
 * the row which it refers to (README, Parents).  So the delete loses against
 * whatever refers to the row, be it by way of others.
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

#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "applied.h"
#include "compat.h"
#include "fksql.h"
#include "identities.h"
#include "keyarray.h"
#include "localsql.h"
#include "peerlog.h"
#include "peersession.h"
#include "reader.h"
#include "registryrow.h"

PG_FUNCTION_INFO_V1(synchro_peer_referred);

/* a row that is to be deleted, was changed, or that one which was refers to */
typedef struct Row
{
	SynchroBytes identity;		/* hash key */
	Datum		text;			/* as the caller gave it, if it is to be deleted, else 0 */
	bool		overridden;		/* the batch writes it */
	SynchroStamp newest;		/* change of it, or of what refers to it, if it is reached */
	List	   *refers;			/* to these: of Row */
	bool		listed;			/* what it refers to has been read, or will be */
	bool		reached;		/* newest is what it will be */
} Row;

/* a table with rows to be deleted, or one that refers to such a table */
typedef struct Place
{
	const SynchroTable *table;
	Datum		name;			/* as the caller gave it, or 0 */
	bool		refers;			/* to one of the places */
	bool	   *written;		/* by column: the batch writes it; NULL if none */
	HTAB	   *rows;			/* of Row */
	List	   *changed;		/* of SynchroNewest */
	List	   *unread;			/* of Row: what they refer to is not known yet */
} Place;

typedef struct Search
{
	MemoryContext context;
	List	   *places;
	List	   *changed;		/* of Row */
	SynchroStamps *stamps;
} Search;

/* what the callback of a query for references needs */
typedef struct References
{
	Search	   *search;
	Place	   *from;
	Place	   *to;
	StringInfoData bytes;
} References;

static Place *
find_place(const Search *search, Oid relid)
{
	ListCell   *cell;

	foreach(cell, search->places)
		if (((Place *) lfirst(cell))->table->relid == relid)
			return lfirst(cell);
	return NULL;
}

static Place *
add_place(Search *search, const SynchroTable *table)
{
	Place	   *place = palloc0(sizeof(Place));

	place->table = table;
	place->rows = synchro_bytes_table("synchro referring rows", sizeof(Row), 256);
	search->places = lappend(search->places, place);
	return place;
}

static Row *
get_row(Search *search, Place *place, SynchroBytes identity)
{
	bool		known;
	Row		   *row = hash_search(place->rows, &identity, HASH_ENTER, &known);

	if (!known)
	{
		MemoryContext old = MemoryContextSwitchTo(search->context);

		memset(row, 0, sizeof(Row));
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
list_unread(Search *search, Place *place, Row *row)
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
find_referring(Search *search)
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
			Place	   *place;
			bool		refers = false;

			if (table == NULL || !table->watched || table->mode == SYNCHRO_MODE_NONE)
				continue;
			place = find_place(search, table->relid);
			if (place != NULL && place->refers)
				continue;
			for (int fk = 0; fk < table->nfks; fk++)
				refers |= find_place(search, table->fks[fk].parent) != NULL;
			if (!refers)
				continue;
			if (place == NULL)
				place = add_place(search, synchro_table_copy(table, search->context));
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
find_changed(Search *search, TimestampTz since)
{
	List	   *tables = NIL;
	List	  **rows = palloc(sizeof(List *) * list_length(search->places));
	int			next = 0;
	bool		any = false;
	ListCell   *cell;

	foreach(cell, search->places)
		if (((Place *) lfirst(cell))->refers)
			tables = lappend(tables, unconstify(SynchroTable *, ((Place *) lfirst(cell))->table));
	search->stamps = synchro_peerlog_changed(tables, since, rows);
	foreach(cell, search->places)
	{
		Place	   *place = lfirst(cell);

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
put_changed(Search *search)
{
	ListCell   *cell;
	ListCell   *changed;

	foreach(cell, search->places)
	{
		Place	   *place = lfirst(cell);

		foreach(changed, place->changed)
		{
			const SynchroNewest *newest = lfirst(changed);
			Row		   *row;

			if (!newest->live)
				continue;
			row = get_row(search, place, newest->bytes);
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
	SynchroBytes result;

	resetStringInfo(buf);
	for (int i = 0; i < table->nidentity; i++)
	{
		const SynchroColumn *column = &table->columns[table->identity[i]];

		synchro_key_put(buf, slot->tts_values[first + i], slot->tts_isnull[first + i], column->typlen, column->typbyval);
	}
	result.data = buf->data;
	result.len = buf->len;
	return result;
}

static void
note_reference(TupleTableSlot *slot, void *arg)
{
	References *references = arg;
	const SynchroTable *table = references->from->table;
	Place	   *to = references->to;
	SynchroBytes identity;
	MemoryContext old;
	Row		   *row;
	Row		   *parent;

	slot_getallattrs(slot);
	identity = put_identity(&references->bytes, table, slot, 0);
	row = hash_search(references->from->rows, &identity, HASH_FIND, NULL);
	if (row == NULL)
		return;
	identity = put_identity(&references->bytes, to->table, slot, table->nidentity);
	parent = to->refers ? get_row(references->search, to, identity) : hash_search(to->rows, &identity, HASH_FIND, NULL);
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
 * May the present user read all rows of a table?
 */
static bool
may_read(Oid relid)
{
	return pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		synchro_namespace_aclcheck(get_rel_namespace(relid), GetUserId(), ACL_USAGE) == ACLCHECK_OK &&
		check_enable_rls(relid, GetUserId(), true) != RLS_ENABLED;
}

/*
 * Does the batch write what a foreign key of a table says?
 */
static bool
is_written(const Place *place, const SynchroForeignKey *key)
{
	for (int i = 0; i < key->ncols; i++)
		if (place->written == NULL || !place->written[key->cols[i]])
			return false;
	return true;
}

/*
 * Note what rows refer to by one foreign key.  rows: of Row.
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
read_references(Search *search, Place *from, const SynchroForeignKey *key, Place *to, List *rows)
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
		const Row  *row = lfirst(cell);

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
	if (may_read(table->relid) && (!joins || may_read(to->table->relid)))
		synchro_sql_query(sql.data, nparams, types, params, NULL, synchro_sql_callback(note_reference, &references));
	synchro_reader_end(&reader);
}

/*
 * Read what the rows that were changed refer to, and what that refers to.  What
 * a row refers to is read once, so this comes to an end in circles, too.
 */
static void
read_all_references(Search *search)
{
	SynchroSqlScope scope;
	bool		any;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);

	/* the batch has it off while it decides: that would read all of our tables; the scope takes it back */
	(void) set_config_option("enable_nestloop", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	do
	{
		ListCell   *cell;

		any = false;
		foreach(cell, search->places)
		{
			Place	   *place = lfirst(cell);
			List	   *rows = place->unread;

			CHECK_FOR_INTERRUPTS();
			if (rows == NIL)
				continue;
			any = true;
			place->unread = NIL;
			for (int fk = 0; fk < place->table->nfks; fk++)
			{
				Place	   *to = find_place(search, place->table->fks[fk].parent);

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
	return synchro_stamps_compare(stamps, (*(Row *const *) b)->newest, (*(Row *const *) a)->newest);
}

/*
 * What a row refers to is as new as the row.  The newest go first, so whatever
 * is reached has its stamp for good, and each reference is followed once.
 */
static void
carry_upwards(Search *search)
{
	int			count = list_length(search->changed);
	Row		  **changed = palloc(sizeof(Row *) * count);
	ListCell   *cell;

	foreach(cell, search->changed)
		changed[foreach_current_index(cell)] = lfirst(cell);
	qsort_arg(changed, count, sizeof(Row *), newest_first, search->stamps);
	for (int i = 0; i < count; i++)
	{
		List	   *way = changed[i]->reached ? NIL : list_make1(changed[i]);

		changed[i]->reached = true;
		while (way != NIL)
		{
			Row		   *row = llast(way);

			way = list_delete_last(way);
			foreach(cell, row->refers)
			{
				Row		   *parent = lfirst(cell);

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
 * Is an element of an array of tables' names the same as the one before?
 */
static bool
is_repeated(Datum name, Datum before)
{
	return DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, name, before));
}

/*
 * The tables of rows that are to be deleted.  Returns for each row its place,
 * NULL if the table is not watched.
 */
static Place **
put_tables(Search *search, Datum *names, int count)
{
	Place	  **places = palloc0(sizeof(Place *) * Max(count, 1));

	for (int i = 0; i < count; i++)
	{
		const SynchroTable *table;

		if (i > 0 && is_repeated(names[i], names[i - 1]))
		{
			places[i] = places[i - 1];
			continue;
		}
		table = synchro_peersession_table(names[i]);
		if (table == NULL)
			continue;
		places[i] = find_place(search, table->relid);
		if (places[i] == NULL)
			places[i] = add_place(search, table);
		places[i]->name = names[i];
	}
	return places;
}

/*
 * The rows that are to be deleted.
 */
static void
put_rows(Search *search, Place **places, Datum *identities, int count)
{
	for (int i = 0; i < count; i++)
	{
		const SynchroTable *table;
		SynchroBytes bytes;

		if (places[i] == NULL)
			continue;
		table = places[i]->table;
		bytes = synchro_identities_encode_text(table, table->identity, table->nidentity, TextDatumGetCString(identities[i]));
		get_row(search, places[i], bytes)->text = identities[i];
	}
}

/*
 * The columns that the batch writes: each after its table's name.
 */
static void
put_written(Search *search, Datum array)
{
	Datum	   *elements;
	int			count = synchro_text_elements(array, &elements);
	Place	   *place = NULL;

	for (int i = 0; i + 1 < count; i += 2)
	{
		char	   *column = TextDatumGetCString(elements[i + 1]);

		if (i == 0 || !is_repeated(elements[i], elements[i - 2]))
			place = find_place(search, synchro_table_by_name(TextDatumGetCString(elements[i])));
		if (place == NULL)
			continue;
		if (place->written == NULL)
			place->written = palloc0(sizeof(bool) * Max(place->table->ncolumns, 1));
		for (int j = 0; j < place->table->ncolumns; j++)
			if (strcmp(place->table->columns[j].name, column) == 0)
				place->written[j] = true;
	}
}

/*
 * peer_referred(relations, identities, since, written): the newest changes of
 * rows that refer to these rows here, be it by way of others, as far as they were
 * made since then.  relations: one for each identity.  written: tables of which
 * the batch writes rows, each with the columns that it writes.
 */
Datum
synchro_peer_referred(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Search		search = {CurrentMemoryContext};
	Datum	   *relations;
	Datum	   *identities;
	int			count = synchro_text_elements(PG_GETARG_DATUM(0), &relations);
	Place	  **places;
	ListCell   *cell;

	(void) synchro_peersession();
	InitMaterializedSRF(fcinfo, 0);
	if (synchro_text_elements(PG_GETARG_DATUM(1), &identities) != count)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("arrays of different lengths")));
	places = put_tables(&search, relations, count);

	/* as a rule there is nothing newer: then the rows need not be looked at */
	if (!find_referring(&search) || !find_changed(&search, PG_GETARG_INT64(2)))
		return (Datum) 0;
	put_written(&search, PG_GETARG_DATUM(3));
	put_rows(&search, places, identities, count);
	put_changed(&search);
	if (search.changed == NIL)
		return (Datum) 0;
	read_all_references(&search);
	carry_upwards(&search);
	foreach(cell, search.places)
	{
		const Place *place = lfirst(cell);
		HASH_SEQ_STATUS status;
		Row		   *row;

		hash_seq_init(&status, place->rows);
		while ((row = hash_seq_search(&status)) != NULL)
		{
			Datum		values[4];
			bool		nulls[4] = {0};

			if (row->text == (Datum) 0 || !row->reached)
				continue;
			values[0] = place->name;
			values[1] = row->text;
			values[2] = Int64GetDatum(row->newest.at);
			values[3] = UUIDPGetDatum(&synchro_stamps_source(search.stamps, row->newest)->origin);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}
