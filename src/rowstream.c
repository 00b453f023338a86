/*-------------------------------------------------------------------------
 *
 * rowstream.c
 *	  Local rows, and the natural keys that they refer to, as COPY text.
 *
 * Rows are read by their identity under the active snapshot and encoded
 * straight from the executor's slots.  Where a row refers to another, the
 * referenced row's identity is sent, and noted as a request: its natural key
 * must be sent with the batch, too.  The columns come in the order of
 * synchro_sql_fill_rows() and synchro_sql_fill_names().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "applysql.h"
#include "localsql.h"
#include "reader.h"
#include "readsql.h"
#include "requests.h"
#include "rowstream.h"
#include "stalled.h"

/* identities looked up by one query */
#define READ_ROWS		1000

/* so many identities in a row are read by one look into the index */
#define RANGE_ROWS		50

/* what the receiver of a query's rows knows */
typedef struct RowStream
{
	SynchroLink *link;
	SynchroLinkTable *lt;
	SynchroSpool *spool;
	StringInfoData line;
	FmgrInfo   *output;			/* by output column; NULL until known */
	int			ncolumns;
	int		   *request_fk;		/* by output column: foreign key, or -1 */
	int64		nrows;
	MemoryContext row_context;

	/* rows that are copied straight into the remote's table */
	bool		straight;
	int			nskipped;		/* output columns that are not sent */
	SynchroSpool *keys;			/* gets their natural keys, or NULL */
	StringInfoData key;
	bool	   *is_key;			/* by output column */
} RowStream;

/*
 * A row that goes straight into the table has no column of ours in front, and
 * synchro_copy_put() tells by the line's length whether a value is the first:
 * so the line begins with a column that end_line() leaves out.
 */
static void
begin_line(RowStream *stream)
{
	resetStringInfo(&stream->line);
	if (stream->straight)
		appendStringInfoChar(&stream->line, '-');
	if (stream->keys == NULL)
		return;
	resetStringInfo(&stream->key);
	appendStringInfoString(&stream->key, SYNCHRO_KIND_PRESENT);
}

static void
end_line(RowStream *stream)
{
	int			start = stream->straight ? 2 : 0;

	appendStringInfoChar(&stream->line, '\n');
	synchro_spool_append(stream->spool, stream->line.data + start, stream->line.len - start);
	if (stream->keys == NULL)
		return;
	appendStringInfoChar(&stream->key, '\n');
	synchro_spool_append(stream->keys, stream->key.data, stream->key.len);
}

static void
receive_row(TupleTableSlot *slot, void *arg)
{
	RowStream  *stream = arg;
	MemoryContext old = MemoryContextSwitchTo(stream->row_context);
	char	   *request[INDEX_MAX_KEYS];
	int			nrequest = 0;

	slot_getallattrs(slot);
	begin_line(stream);
	for (int i = stream->nskipped; i < stream->ncolumns; i++)
	{
		char	   *value = NULL;
		int			fk = stream->request_fk[i];

		if (!OidIsValid(stream->output[i].fn_oid))
		{
			Oid			output;
			bool		is_varlena;

			getTypeOutputInfo(TupleDescAttr(slot->tts_tupleDescriptor, i)->atttypid,
							  &output, &is_varlena);
			fmgr_info_cxt(output, &stream->output[i], GetMemoryChunkContext(stream->output));
		}
		if (!slot->tts_isnull[i])
			value = OutputFunctionCall(&stream->output[i], slot->tts_values[i]);
		synchro_copy_put(&stream->line, value);
		if (stream->keys != NULL && stream->is_key[i])
			synchro_copy_put(&stream->key, value);
		if (fk < 0)
			continue;
		request[nrequest++] = value;
		if (nrequest == stream->lt->parents[fk]->table->nidentity)
		{
			if (request[0] != NULL)
				synchro_request_name(stream->link, stream->lt->parents[fk], request);
			nrequest = 0;
		}
	}
	end_line(stream);
	stream->nrows++;
	MemoryContextSwitchTo(old);
	MemoryContextReset(stream->row_context);
}

/*
 * Is a name of before known by the value of that column, since a foreign key
 * references another column with it than the parent's identity?
 */
static bool
is_value_of_before(const SynchroLinkTable *lt, int column)
{
	int			fk = synchro_column_fk(lt, column);

	return fk >= 0 && synchro_column_is_key(lt->table, column) &&
		synchro_fk_beyond_identity(lt, fk);
}

/*
 * Such a value is the same on the remote, unless the referenced column is a
 * reference or a local id itself.
 */
static void
check_value_of_before(const SynchroLinkTable *lt, int column)
{
	const SynchroColumn *here = &lt->table->columns[column];
	const SynchroTable *parent = lt->parents[here->fk]->table;
	AttrNumber	refcol = lt->table->fks[here->fk].refcols[here->fk_pos];

	for (int i = 0; i < parent->ncolumns; i++)
		if (parent->columns[i].attnum == refcol &&
			(parent->columns[i].fk >= 0 || parent->columns[i].from_sequence))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("renamed or deleted rows of table %s cannot be found on the remote",
							lt->table->qualified),
					 errdetail("Column \"%s\" of its natural key references column \"%s\" of table %s, which is a reference or an id itself.",
							   here->name, parent->columns[i].name, parent->qualified),
					 errhint("Let a foreign key in a natural key reference the primary key.")));
}

/*
 * A name of before has only columns of the natural key, of these values, and they
 * do not say which row a foreign key referenced: an error, unless it was none.
 */
static void
check_identity_of_before(const SynchroLinkTable *lt, int fk, char **key)
{
	const SynchroTable *table = lt->table;

	for (int j = 0; j < table->nkey; j++)
		if (key[j] != NULL && synchro_column_fk(lt, table->key[j]) == fk)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("renamed or deleted rows of table %s cannot be found on the remote", table->qualified),
					 errdetail("Its natural key does not have all columns of foreign key \"%s\", which its column \"%s\" needs to say which row of table %s it references.",
							   table->fks[fk].name, table->columns[table->key[j]].name, lt->parents[fk]->table->qualified),
					 errhint("Put the columns into the natural key: SELECT synchro.alter_table(%s, ...).",
							 quote_literal_cstr(table->qualified))));
}

static void
begin_stream(RowStream *stream, SynchroLink *link, SynchroLinkTable *lt, SynchroSpool *spool, int max_columns)
{
	stream->link = link;
	stream->lt = lt;
	stream->spool = spool;
	stream->request_fk = palloc(sizeof(int) * max_columns);
	stream->is_key = palloc0(sizeof(bool) * max_columns);
	stream->row_context = AllocSetContextCreate(CurrentMemoryContext, "synchro row",
												ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&stream->line);
	initStringInfo(&stream->key);
}

/*
 * The tables that the query which reads rows, or names, joins with.
 */
static List *
joined_parents(const SynchroLinkTable *lt, bool key_only)
{
	List	   *parents = NIL;

	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (lt->parents[fk] != NULL && synchro_sql_joins(lt, fk, key_only))
			parents = lappend(parents, unconstify(SynchroTable *, lt->parents[fk]->table));
	return parents;
}

/*
 * Run the query that reads rows, or names if key_only, and encode its result.
 * identities: NULL for all rows.  head: nhead columns of
 * ours in front, or NULL for rows that go straight into the remote's table;
 * keys: see RowStream.  Returns the number of rows.
 */
static int64
run_stream(SynchroLink *link, SynchroLinkTable *lt, SynchroSpool *spool, SynchroSpool *keys,
		   const SynchroIdentities *identities, int first, int count,
		   bool key_only, const char *head, int nhead)
{
	const SynchroTable *table = lt->table;
	RowStream	stream = {0};
	SynchroReader reader;
	StringInfoData sql;
	Datum		values[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	bool		in_range;
	int			max_columns = nhead + 3 * INDEX_MAX_KEYS * (table->nfks + 1) + table->ncolumns;
	int			times = key_only && table->mode == SYNCHRO_MODE_REFERENCE ? 2 : 1;
	int			nparams = 0;

	synchro_suspect(lt->root);
	begin_stream(&stream, link, lt, spool, max_columns);
	stream.keys = keys;
	stream.straight = head == NULL;
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s", stream.straight ? "true" : head);
	for (int i = 0; i < nhead; i++)
		stream.request_fk[stream.ncolumns++] = -1;
	for (int n = 0; n < times; n++)
		for (int i = 0; i < table->nidentity; i++)
		{
			const char *name = quote_identifier(table->columns[table->identity[i]].name);

			appendStringInfo(&sql, ", %s", synchro_sql_staged(table, i, psprintf("t.%s", name)));
			stream.request_fk[stream.ncolumns++] = -1;
		}
	stream.nskipped = stream.straight ? stream.ncolumns : 0;
	for (int fk = 0; fk < table->nfks; fk++)
	{
		if (lt->parents[fk] == NULL || (key_only && !synchro_fk_names_key(lt, fk)))
			continue;
		synchro_sql_parent_identity(&sql, lt, fk);
		for (int x = 0; x < lt->parents[fk]->table->nidentity; x++)
			stream.request_fk[stream.ncolumns++] = fk;
	}
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (synchro_column_fk(lt, i) >= 0 ||
			!(key_only ? synchro_column_is_key(table, i) : lt->pushed[i]))
			continue;
		appendStringInfo(&sql, ", t.%s", quote_identifier(table->columns[i].name));
		stream.is_key[stream.ncolumns] = synchro_column_is_key(table, i);
		stream.request_fk[stream.ncolumns++] = -1;
	}
	for (int i = 0; key_only && i < table->ncolumns; i++)
		if (is_value_of_before(lt, i))
		{
			appendStringInfoString(&sql, ", NULL");
			stream.request_fk[stream.ncolumns++] = -1;
		}
	in_range = count >= RANGE_ROWS && synchro_identities_run(identities, table, first) >= count;
	if (identities == NULL)
		synchro_sql_from_all(&sql, lt, key_only);
	else if (in_range)
		synchro_sql_from_range(&sql, lt, key_only);
	else
		synchro_sql_from(&sql, lt, key_only);

	stream.output = palloc0(sizeof(FmgrInfo) * stream.ncolumns);
	synchro_reader_begin(&reader, link->target->owner, table, key_only, joined_parents(lt, key_only));
	if (in_range)
		nparams = synchro_identities_bounds(identities, table, first, count, types, values);
	else if (identities != NULL)
		nparams = synchro_identities_params(identities, table, first, count, types, values);
	synchro_sql_query(sql.data, nparams, types, values, NULL, synchro_sql_callback(receive_row, &stream));
	synchro_reader_end(&reader);
	synchro_suspect(InvalidOid);
	MemoryContextDelete(stream.row_context);
	return stream.nrows;
}

static SynchroSpool *
make_spool(SynchroLink *link)
{
	MemoryContext old = MemoryContextSwitchTo(link->batch_context);
	SynchroSpool *spool = synchro_spool_create();

	MemoryContextSwitchTo(old);
	return spool;
}

/*
 * How many of the identities, from number first on, are best read by one
 * query.
 */
int
synchro_stream_piece(const SynchroLinkTable *lt, const SynchroIdentities *identities, int first)
{
	int			run = synchro_identities_run(identities, lt->table, first);

	return run >= RANGE_ROWS ? run : Min(READ_ROWS, identities->count - first);
}

/*
 * Add rows to the batch: those of the given identities that exist.
 *
 * ensure: the rows shall only be there, not be brought up to date.
 */
void
synchro_stream_rows(SynchroLink *link, SynchroLinkTable *lt,
					const SynchroIdentities *identities, int first, int count, bool ensure)
{
	int64		nrows;

	if (lt->rows == NULL)
		lt->rows = make_spool(link);
	lt->involved = true;
	nrows = run_stream(link, lt, lt->rows, NULL, identities, first, count, false,
					   ensure ? "true" : "false", 1);
	lt->nrows += nrows;
	if (ensure)
		lt->nensured += nrows;
	else if (nrows < count && lt->nrows == 0)
	{
		/* nothing there: the table needs no COPY */
		synchro_spool_free(lt->rows);
		lt->rows = NULL;
	}
}

/*
 * Add rows that are to be copied straight into the remote's table: columns as
 * in synchro_sql_straight_rows(), and, with_keys, their natural keys as in
 * synchro_sql_straight_keys().
 */
void
synchro_stream_straight(SynchroLink *link, SynchroLinkTable *lt,
						const SynchroIdentities *identities, int first, int count, bool with_keys)
{
	if (lt->rows == NULL)
		lt->rows = make_spool(link);
	if (lt->names == NULL && with_keys)
		lt->names = make_spool(link);
	lt->involved = true;
	lt->nrows += run_stream(link, lt, lt->rows, lt->names, identities, first, count, false, NULL, 1);
}

/*
 * Add the natural keys of rows to the batch.
 */
void
synchro_stream_names(SynchroLink *link, SynchroLinkTable *lt,
					 const SynchroIdentities *identities, int first, int count)
{
	if (lt->names == NULL)
		lt->names = make_spool(link);
	lt->involved = true;
	lt->nnames += run_stream(link, lt, lt->names, NULL, identities, first, count, true,
							 lt->decides ? "'" SYNCHRO_KIND_PRESENT "'::\"char\", NULL, NULL, NULL" :
							 "'" SYNCHRO_KIND_PRESENT "'::\"char\"", lt->decides ? 4 : 1);
}

/*
 * Add the natural keys of all rows of a table to the batch.
 */
void
synchro_stream_all_names(SynchroLink *link, SynchroLinkTable *lt)
{
	int			guc_level = NewGUCNestLevel();

	(void) set_config_option("enable_seqscan", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	synchro_stream_names(link, lt, NULL, 0, 0);
	AtEOXact_GUC(false, guc_level);
}

/*
 * Append a stamp: microseconds, and the node where the change was made; sources
 * is NULL if it has none.
 */
static void
put_stamp(StringInfo line, SynchroStamp stamp, const SynchroSources *sources)
{
	const SynchroSource *source = sources != NULL ? synchro_source_find(sources, stamp.source) : NULL;

	synchro_copy_put(line, source == NULL ? NULL : psprintf(INT64_FORMAT, stamp.at));
	synchro_copy_put(line, source == NULL ? NULL : DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&source->origin))));
}

/*
 * Add to the batch when rows were changed: columns as in
 * synchro_sql_fill_changes().
 */
void
synchro_stream_changes(SynchroLink *link, SynchroLinkTable *lt,
					   const SynchroIdentities *identities, const SynchroSources *sources)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro changes line",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;

	if (identities->count == 0)
		return;
	if (lt->changes == NULL)
		lt->changes = make_spool(link);
	lt->involved = true;
	old = MemoryContextSwitchTo(context);
	for (int i = 0; i < identities->count; i++)
	{
		const SynchroRowStamp *stamp = &identities->stamps[i];
		StringInfoData line;

		initStringInfo(&line);
		put_stamp(&line, stamp->changed, sources);
		synchro_copy_put(&line, stamp->born != 0 ? psprintf(INT64_FORMAT, stamp->born) : NULL);
		for (int x = 0; x < lt->table->nidentity; x++)
			synchro_copy_put(&line, synchro_staged_value(lt->table, x, identities->values[i * identities->nidentity + x]));
		appendStringInfoChar(&line, '\n');
		synchro_spool_append(lt->changes, line.data, line.len);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* an identity as it is read */
typedef struct Spelling
{
	const SynchroTable *table;
	char	  **values;			/* as they are staged */
	MemoryContext context;		/* of the values */
} Spelling;

static void
receive_spelling(TupleTableSlot *slot, void *arg)
{
	Spelling   *spelling = arg;
	MemoryContext old = MemoryContextSwitchTo(spelling->context);

	slot_getallattrs(slot);
	for (int i = 0; i < spelling->table->nidentity; i++)
	{
		Oid			output;
		bool		is_varlena;
		char	   *value = NULL;

		getTypeOutputInfo(TupleDescAttr(slot->tts_tupleDescriptor, i)->atttypid, &output, &is_varlena);
		if (!slot->tts_isnull[i])
			value = OidOutputFunctionCall(output, slot->tts_values[i]);
		spelling->values[i] = synchro_staged_value(spelling->table, i, value);
	}
	MemoryContextSwitchTo(old);
}

/*
 * The log has a reference as the referencing row spelled it: have it spelled as
 * the referenced row does, if that is still there.
 */
static void
respell(const SynchroLink *link, SynchroLinkTable *parent, char **raw, char **staged)
{
	const SynchroTable *table = parent->table;
	SynchroIdentities *identities = synchro_identities_create(table);
	Spelling	spelling = {table, staged, CurrentMemoryContext};
	SynchroReader reader;
	StringInfoData sql;
	Datum		values[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	int			nparams;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(&sql, "%st.%s", i > 0 ? ", " : "", quote_identifier(table->columns[table->identity[i]].name));
	synchro_sql_from(&sql, parent, true);
	synchro_identities_add(identities, raw);
	synchro_reader_begin(&reader, link->target->owner, table, true, joined_parents(parent, true));
	nparams = synchro_identities_params(identities, table, 0, 1, types, values);
	synchro_sql_query(sql.data, nparams, types, values, NULL, synchro_sql_callback(receive_spelling, &spelling));
	synchro_reader_end(&reader);

	/* queries leave their own behind */
	MemoryContextSwitchTo(spelling.context);
}

/*
 * Add a name of before, of synchro_changes_next_old() or synchro_parked_names().
 */
void
synchro_stream_old(SynchroLink *link, SynchroLinkTable *lt, const SynchroChangedKey *old,
				   const SynchroSources *sources)
{
	const SynchroTable *table = lt->table;
	char	  **here = synchro_identities_values(table, table->identity, table->nidentity, old->identity);
	int			waits = old->kind == SYNCHRO_KIND_WAITING[0] ? 1 : 0;
	StringInfoData line;

	initStringInfo(&line);
	synchro_suspect(lt->root);
	appendStringInfoChar(&line, old->kind);
	if (lt->decides)
		put_stamp(&line, old->kind == SYNCHRO_KIND_OLD[0] ? old->changed : old->named, waits ? NULL : sources);
	if (lt->decides)
		synchro_copy_put(&line, waits ? NULL : psprintf(INT64_FORMAT, old->named.at));
	for (int i = 0; i < table->nidentity; i++)
		synchro_copy_put(&line, synchro_staged_value(table, i, here[i]));
	if (table->mode == SYNCHRO_MODE_REFERENCE)
	{
		char	  **former = synchro_identities_values(table, table->identity, table->nidentity, old->name);

		for (int i = 0; i < table->nidentity; i++)
			synchro_copy_put(&line, former[i]);
	}
	else
	{
		char	  **key = synchro_identities_values(table, table->key, table->nkey, old->name);

		for (int fk = 0; fk < table->nfks; fk++)
		{
			char	   *request[INDEX_MAX_KEYS];
			char	   *raw[INDEX_MAX_KEYS];
			const SynchroTable *parent = lt->parents[fk] != NULL ? lt->parents[fk]->table : NULL;

			if (parent == NULL || !synchro_fk_names_key(lt, fk))
				continue;
			Assert(parent->nidentity > 0);
			for (int x = 0; x < parent->nidentity; x++)
			{
				bool		known = synchro_fk_beyond_identity(lt, fk);

				request[x] = raw[x] = NULL;
				for (int i = 0; i < table->fks[fk].ncols; i++)
					for (int j = 0; j < table->nkey; j++)
					{
						if (table->fks[fk].refcols[i] != parent->columns[parent->identity[x]].attnum ||
							table->key[j] != table->fks[fk].cols[i])
							continue;
						known = true;
						if (key[j] != NULL)
							request[x] = synchro_staged_value(parent, x, raw[x] = key[j]);
					}
				if (!known)
					check_identity_of_before(lt, fk, key);
			}
			if (raw[0] != NULL && !synchro_sql_is_direct(lt, fk) && !synchro_fk_beyond_identity(lt, fk))
				respell(link, lt->parents[fk], raw, request);
			for (int x = 0; x < parent->nidentity; x++)
				synchro_copy_put(&line, request[x]);
			if (request[0] != NULL)
				synchro_request_name(link, lt->parents[fk], request);
		}
		for (int i = 0; i < table->ncolumns; i++)
			for (int j = 0; j < table->nkey; j++)
				if (table->key[j] == i && synchro_column_fk(lt, i) < 0)
					synchro_copy_put(&line, key[j]);
		for (int i = 0; i < table->ncolumns; i++)
			for (int j = 0; j < table->nkey; j++)
				if (table->key[j] == i && is_value_of_before(lt, i))
				{
					check_value_of_before(lt, i);
					synchro_copy_put(&line, key[j]);
				}
	}
	appendStringInfoChar(&line, '\n');
	if (lt->names == NULL)
		lt->names = make_spool(link);
	lt->involved = true;
	synchro_spool_append(lt->names, line.data, line.len);
	lt->nnames++;
	lt->nwaiting += waits;
	lt->nolds += 1 - waits;
	synchro_suspect(InvalidOid);
}
