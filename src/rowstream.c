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

static Oid	being_read = InvalidOid;

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
List *
synchro_stream_joined(const SynchroLinkTable *lt, bool key_only)
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
	MemoryContext context = CurrentMemoryContext;

	synchro_suspect(lt->root);
	synchro_stream_reads(table->relid);
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
		if (synchro_column_is_value_of_before(lt, i))
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
	synchro_reader_begin(&reader, link->target->owner, table, key_only, synchro_stream_joined(lt, key_only));
	if (in_range)
		nparams = synchro_identities_bounds(identities, table, first, count, types, values);
	else if (identities != NULL)
		nparams = synchro_identities_params(identities, table, first, count, types, values);
	synchro_sql_query(sql.data, nparams, types, values, NULL, synchro_sql_callback(receive_row, &stream));
	synchro_reader_end(&reader);
	synchro_stream_reads(InvalidOid);
	synchro_suspect(InvalidOid);
	MemoryContextDelete(stream.row_context);

	/* queries leave that of the scope behind, which lasts as long as a batch is read */
	MemoryContextSwitchTo(context);
	return stream.nrows;
}

/*
 * Name the table whose rows, or names, are read from now on; InvalidOid: none.
 */
void
synchro_stream_reads(Oid relid)
{
	being_read = relid;
}

/*
 * That table, or what it was when reading failed.
 */
Oid
synchro_stream_being_read(void)
{
	return being_read;
}

/*
 * A spool that lasts as long as the batch at hand.
 */
SynchroSpool *
synchro_stream_spool(SynchroLink *link)
{
	MemoryContext old = MemoryContextSwitchTo(link->batch_context);
	SynchroSpool *spool = synchro_spool_create();

	MemoryContextSwitchTo(old);
	return spool;
}

/*
 * What the names of a table's rows go to, as long as there is the batch at hand.
 */
SynchroSpool *
synchro_stream_names_spool(SynchroLink *link, SynchroLinkTable *lt)
{
	SynchroSpool **spool = link->for_waiting ? &lt->waiting : &lt->names;

	if (*spool == NULL)
		*spool = synchro_stream_spool(link);
	return *spool;
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
		lt->rows = synchro_stream_spool(link);
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
		lt->rows = synchro_stream_spool(link);
	if (lt->names == NULL && with_keys)
		lt->names = synchro_stream_spool(link);
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
	lt->involved = true;
	lt->nnames += run_stream(link, lt, synchro_stream_names_spool(link, lt), NULL, identities, first, count, true,
							 lt->decides ? "'" SYNCHRO_KIND_PRESENT "'::\"char\", NULL, NULL, NULL" :
							 "'" SYNCHRO_KIND_PRESENT "'::\"char\"", lt->decides ? 4 : 1);
}

/*
 * The same of any number of rows.
 */
void
synchro_stream_names_of(SynchroLink *link, SynchroLinkTable *lt, const SynchroIdentities *identities)
{
	for (int first = 0; first < identities->count; first += READ_ROWS)
		synchro_stream_names(link, lt, identities, first, Min(READ_ROWS, identities->count - first));
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
