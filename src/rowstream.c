/*-------------------------------------------------------------------------
 *
 * rowstream.c
 *	  Local rows, and the natural keys that they refer to, as COPY text.
 *
 * Rows are read by their identity under the active snapshot and encoded
 * straight from the executor's slots.  Where a row refers to another, the
 * referenced row's identity is sent, and noted as a request: its natural key
 * must be sent with the batch, too.  The columns come in the order of
 * synchro_sql_copy_rows() and synchro_sql_copy_names().
 *
 * Staged identities are compared with each other as they are, and a NULL
 * among those of a parent would look like no parent.  So where a column of
 * the identity may hold NULL (a natural key without primary key), its values
 * are staged as text, a NULL as '' and any other value with '=' before it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "applysql.h"
#include "localsql.h"
#include "rowstream.h"

/* identities asked for since the last synchro_stream_requests() */
struct SynchroRequests
{
	MemoryContext context;
	HTAB	   *seen;			/* all of this batch, as one string each */
	SynchroIdentities *fresh;
};

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
} RowStream;

/*
 * Make an empty list for identities of a table.
 */
SynchroIdentities *
synchro_identities_create(const SynchroTable *table)
{
	SynchroIdentities *identities = palloc0(sizeof(SynchroIdentities));

	identities->nidentity = table->nidentity;
	identities->allocated = 16;
	identities->values = palloc(sizeof(char *) * identities->allocated * table->nidentity);
	return identities;
}

/*
 * Add an identity; its strings are not copied.
 */
void
synchro_identities_add(SynchroIdentities *identities, char **values)
{
	int			n = identities->nidentity;

	if (identities->count == identities->allocated)
	{
		identities->allocated *= 2;
		identities->values = repalloc(identities->values,
									  sizeof(char *) * identities->allocated * n);
	}
	for (int i = 0; i < n; i++)
		identities->values[identities->count * n + i] = values[i];
	identities->count++;
}

static char **
decode_values(const SynchroTable *table, const int *columns, int ncolumns, SynchroBytes bytes)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];
	char	  **result = palloc(sizeof(char *) * Max(ncolumns, 1));

	synchro_key_values(bytes, table, columns, ncolumns, values, nulls);
	for (int i = 0; i < ncolumns; i++)
	{
		Oid			output;
		bool		is_varlena;

		getTypeOutputInfo(table->columns[columns[i]].type, &output, &is_varlena);
		result[i] = nulls[i] ? NULL : OidOutputFunctionCall(output, values[i]);
	}
	return result;
}

/*
 * Add an identity as the log has it.
 */
void
synchro_identities_decode(SynchroIdentities *identities, const SynchroTable *table,
						  SynchroBytes bytes)
{
	synchro_identities_add(identities,
						   decode_values(table, table->identity, table->nidentity, bytes));
}

/*
 * Append a value in COPY's text format.
 */
static void
put_value(StringInfo line, const char *value)
{
	if (line->len > 0)
		appendStringInfoCharMacro(line, '\t');
	if (value == NULL)
	{
		appendStringInfoString(line, "\\N");
		return;
	}
	for (const char *c = value; *c != '\0'; c++)
	{
		switch (*c)
		{
			case '\\':
				appendStringInfoString(line, "\\\\");
				break;
			case '\n':
				appendStringInfoString(line, "\\n");
				break;
			case '\r':
				appendStringInfoString(line, "\\r");
				break;
			case '\t':
				appendStringInfoString(line, "\\t");
				break;
			default:
				appendStringInfoCharMacro(line, *c);
		}
	}
}

static uint32
hash_string(const void *key, Size size)
{
	const char *string = *(const char *const *) key;

	return hash_bytes((const unsigned char *) string, strlen(string));
}

static int
match_string(const void *a, const void *b, Size size)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static HTAB *
make_string_set(MemoryContext context)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(char *);
	ctl.entrysize = sizeof(char *);
	ctl.hash = hash_string;
	ctl.match = match_string;
	ctl.hcxt = context;
	return hash_create("synchro identities", 256, &ctl,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/*
 * The values of an identity as one string, different for different ones.
 */
static char *
join_values(char **values, int count)
{
	StringInfoData joined;

	initStringInfo(&joined);
	appendStringInfoChar(&joined, '=');
	for (int i = 0; i < count; i++)
		put_value(&joined, values[i]);
	return joined.data;
}

/*
 * Take away from a list what is in another.
 */
void
synchro_identities_subtract(SynchroIdentities *identities, const SynchroIdentities *others)
{
	HTAB	   *set = make_string_set(CurrentMemoryContext);
	int			n = identities->nidentity;
	int			kept = 0;
	char	   *key;

	for (int i = 0; i < others->count; i++)
	{
		key = join_values(&others->values[i * n], n);
		(void) hash_search(set, &key, HASH_ENTER, NULL);
	}
	for (int i = 0; i < identities->count; i++)
	{
		key = join_values(&identities->values[i * n], n);
		if (hash_search(set, &key, HASH_FIND, NULL) != NULL)
			continue;
		memmove(&identities->values[kept++ * n], &identities->values[i * n], sizeof(char *) * n);
	}
	identities->count = kept;
	hash_destroy(set);
}

/*
 * An identity for people: its values, joined by commas.
 */
char *
synchro_identities_text(const SynchroIdentities *identities, int position)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < identities->nidentity; i++)
	{
		const char *value = identities->values[position * identities->nidentity + i];

		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "", value != NULL ? value : "NULL");
	}
	return text.data;
}

/*
 * A value of an identity as it is staged.
 */
static char *
staged_value(const SynchroTable *table, int identity, char *value)
{
	if (table->columns[table->identity[identity]].not_null)
		return value;
	return value != NULL ? psprintf("=%s", value) : "";
}

/*
 * The same as SQL, of an expression for the value.
 */
static char *
staged_expression(const SynchroTable *table, int identity, const char *value)
{
	if (table->columns[table->identity[identity]].not_null)
		return pstrdup(value);
	return psprintf("CASE WHEN %s " SYNCHRO_SQL_IS_NULL " THEN '' ELSE format('=%%s', %s) END",
					value, value);
}

/*
 * And back.
 */
static char *
unstaged_value(const SynchroTable *table, int identity, char *value)
{
	if (value == NULL || table->columns[table->identity[identity]].not_null)
		return value;
	return value[0] == '=' ? value + 1 : NULL;
}

/*
 * Note that the natural key of a row of lt, with that identity as it is
 * staged, is needed.
 */
static void
request_name(SynchroLink *link, SynchroLinkTable *lt, char **values)
{
	struct SynchroRequests *requests = lt->requests;
	char	   *key;
	bool		found;
	MemoryContext old;

	if (requests == NULL)
	{
		old = MemoryContextSwitchTo(link->batch_context);
		requests = lt->requests = palloc0(sizeof(struct SynchroRequests));
		requests->context = link->batch_context;
		requests->seen = make_string_set(link->batch_context);
		requests->fresh = synchro_identities_create(lt->table);
		MemoryContextSwitchTo(old);
	}
	lt->involved = true;
	values = memcpy(palloc(sizeof(char *) * lt->table->nidentity), values,
					sizeof(char *) * lt->table->nidentity);
	for (int i = 0; i < lt->table->nidentity; i++)
		values[i] = unstaged_value(lt->table, i, values[i]);
	key = join_values(values, lt->table->nidentity);
	if (hash_search(requests->seen, &key, HASH_FIND, NULL) != NULL)
		return;
	old = MemoryContextSwitchTo(requests->context);
	key = pstrdup(key);
	hash_search(requests->seen, &key, HASH_ENTER, &found);
	values = memcpy(palloc(sizeof(char *) * lt->table->nidentity), values,
					sizeof(char *) * lt->table->nidentity);
	for (int i = 0; i < lt->table->nidentity; i++)
		values[i] = values[i] != NULL ? pstrdup(values[i]) : NULL;
	synchro_identities_add(requests->fresh, values);
	MemoryContextSwitchTo(old);
}

/*
 * Can a referencing value be compared with the parent's identity as text?
 * Only if equal values always look the same.
 */
static bool
is_direct(const SynchroLinkTable *lt, int fk)
{
	const SynchroTable *parent = lt->parents[fk]->table;

	if (!synchro_table_fk_to_identity(&lt->table->fks[fk], parent))
	{
		/* the same columns in another order will do, too */
		if (lt->table->fks[fk].ncols != parent->nidentity)
			return false;
		for (int i = 0; i < parent->nidentity; i++)
			if (synchro_identity_position(parent, lt->table->fks[fk].refcols[i]) < 0)
				return false;
	}
	for (int i = 0; i < lt->table->fks[fk].ncols; i++)
	{
		Oid			here = lt->table->columns[lt->table->fks[fk].cols[i]].type;
		Oid			there = get_atttype(parent->relid, lt->table->fks[fk].refcols[i]);
		bool		integers = (here == INT2OID || here == INT4OID || here == INT8OID) &&
			(there == INT2OID || there == INT4OID || there == INT8OID);

		if (integers)
			continue;
		if (here != there || (get_typtype(here) != TYPTYPE_ENUM &&
							  here != TEXTOID && here != VARCHAROID && here != UUIDOID &&
							  here != DATEOID && here != TIMESTAMPOID &&
							  here != TIMESTAMPTZOID && here != OIDOID && here != BYTEAOID))
			return false;
	}
	return true;
}

/*
 * Append "the foreign key references a row".  One that is NULL in part
 * references nothing.
 */
static void
append_references(StringInfo sql, const SynchroLinkTable *lt, int fk, bool direct)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];

	if (!direct)
		appendStringInfo(sql, "t%d.tableoid IS NOT NULL", fk);
	for (int i = 0; direct && i < key->ncols; i++)
		appendStringInfo(sql, "%st.%s IS NOT NULL", i > 0 ? " AND " : "",
						 quote_identifier(lt->table->columns[key->cols[i]].name));
}

/*
 * Append the identity of the row that a foreign key references, from alias t,
 * or from the joined parent t<fk> where values do not tell.
 */
static void
append_parent_identity(StringInfo sql, const SynchroLinkTable *lt, int fk)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];
	const SynchroTable *parent = lt->parents[fk]->table;
	bool		direct = is_direct(lt, fk);

	for (int x = 0; x < parent->nidentity; x++)
	{
		const SynchroColumn *column = &parent->columns[parent->identity[x]];
		char	   *value = psprintf("t%d.%s", fk, quote_identifier(column->name));

		for (int i = 0; direct && i < key->ncols; i++)
			if (key->refcols[i] == column->attnum)
				value = psprintf("t.%s", quote_identifier(lt->table->columns[key->cols[i]].name));
		if (column->not_null && !(direct && key->ncols > 1))
		{
			appendStringInfo(sql, ", %s", value);
			continue;
		}
		appendStringInfoString(sql, ", CASE WHEN ");
		append_references(sql, lt, fk, direct);
		appendStringInfo(sql, " THEN %s END", staged_expression(parent, x, value));
	}
}

/*
 * The equality operator of a type, qualified.
 */
static char *
equality_of(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR);

	if (!OidIsValid(entry->eq_opr))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("could not identify an equality operator for type %s",
						format_type_be(type))));
	return synchro_operator_name(entry->eq_opr);
}

static void
append_parent_joins(StringInfo sql, const SynchroLinkTable *lt, bool key_only)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroForeignKey *key = &lt->table->fks[fk];

		if (lt->parents[fk] == NULL || (key_only && !synchro_fk_names_key(lt, fk)) ||
			is_direct(lt, fk))
			continue;
		appendStringInfo(sql, " LEFT JOIN %s t%d ON ", lt->parents[fk]->table->qualified, fk);
		for (int i = 0; i < key->ncols; i++)
			appendStringInfo(sql, "%st%d.%s %s t.%s", i > 0 ? " AND " : "", fk,
							 quote_identifier(get_attname(key->parent, key->refcols[i], false)),
							 equality_of(get_atttype(key->parent, key->refcols[i])),
							 quote_identifier(lt->table->columns[key->cols[i]].name));
	}
}

/*
 * The type of an identity's value, so named that no length is implied: plain
 * character and bit would mean one of length 1.
 */
static char *
identity_type(const SynchroTable *table, int identity)
{
	Oid			type = table->columns[table->identity[identity]].type;

	return format_type_extended(getBaseType(type), -1,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/*
 * Append FROM and WHERE: the rows whose identities are in the parameters, an
 * array of text for each value.
 */
static void
append_from(StringInfo sql, const SynchroLinkTable *lt, bool key_only)
{
	const SynchroTable *table = lt->table;
	const char *only = table->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";

	/* there is no array of arrays */
	if (table->nidentity == 1 &&
		!OidIsValid(get_base_element_type(table->columns[table->identity[0]].type)))
	{
		const SynchroColumn *column = &table->columns[table->identity[0]];

		appendStringInfo(sql, " FROM %s%s t", only, table->qualified);
		append_parent_joins(sql, lt, key_only);
		appendStringInfo(sql, " WHERE t.%s %s ANY ($1::text[]::%s[])",
						 quote_identifier(column->name), equality_of(column->type),
						 identity_type(table, 0));
		if (!column->not_null)
			appendStringInfo(sql, " OR (t.%s " SYNCHRO_SQL_IS_NULL " AND array_position($1, NULL) IS NOT NULL)",
							 quote_identifier(column->name));
		return;
	}
	appendStringInfoString(sql, " FROM unnest(");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, "%s$%d", i > 0 ? ", " : "", i + 1);
	appendStringInfoString(sql, ") k(");
	synchro_sql_list(sql, "k", table->nidentity);
	appendStringInfo(sql, ") JOIN %s%s t ON ", only, table->qualified);
	for (int i = 0; i < table->nidentity; i++)
	{
		const SynchroColumn *column = &table->columns[table->identity[i]];
		const char *name = quote_identifier(column->name);

		appendStringInfo(sql, "%s(t.%s %s k.k%d::%s", i > 0 ? " AND " : "", name,
						 equality_of(column->type), i, identity_type(table, i));
		if (!column->not_null)
			appendStringInfo(sql, " OR (t.%s " SYNCHRO_SQL_IS_NULL " AND k.k%d IS NULL)", name, i);
		appendStringInfoChar(sql, ')');
	}
	append_parent_joins(sql, lt, key_only);
}

static Datum
text_array(const SynchroIdentities *identities, int first, int count, int position)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(count, 1));
	int			dimensions[1] = {count};
	int			bounds[1] = {1};

	for (int i = 0; i < count; i++)
	{
		const char *value = identities->values[(first + i) * identities->nidentity + position];

		nulls[i] = value == NULL;
		elements[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(value);
	}
	return PointerGetDatum(construct_md_array(elements, nulls, 1, dimensions, bounds,
											  TEXTOID, -1, false, TYPALIGN_INT));
}

static void
receive_row(TupleTableSlot *slot, void *arg)
{
	RowStream  *stream = arg;
	MemoryContext old = MemoryContextSwitchTo(stream->row_context);
	char	   *request[INDEX_MAX_KEYS];
	int			nrequest = 0;

	slot_getallattrs(slot);
	resetStringInfo(&stream->line);
	for (int i = 0; i < stream->ncolumns; i++)
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
		put_value(&stream->line, value);
		if (fk < 0)
			continue;
		request[nrequest++] = value;
		if (nrequest == stream->lt->parents[fk]->table->nidentity)
		{
			if (request[0] != NULL)
				request_name(stream->link, stream->lt->parents[fk], request);
			nrequest = 0;
		}
	}
	appendStringInfoChar(&stream->line, '\n');
	synchro_spool_append(stream->spool, stream->line.data, stream->line.len);
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
 * Run the query that reads rows, or names if key_only, and encode its result.
 * Returns the number of rows.
 */
static int64
run_stream(SynchroLink *link, SynchroLinkTable *lt, SynchroSpool *spool,
		   const SynchroIdentities *identities, int first, int count,
		   bool key_only, const char *head)
{
	const SynchroTable *table = lt->table;
	RowStream	stream = {0};
	StringInfoData sql;
	Datum		values[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	int			times = key_only && table->mode == SYNCHRO_MODE_REFERENCE ? 2 : 1;

	stream.link = link;
	stream.lt = lt;
	stream.spool = spool;
	stream.request_fk = palloc(sizeof(int) * (1 + 3 * INDEX_MAX_KEYS * (table->nfks + 1) + table->ncolumns));
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s", head);
	stream.request_fk[stream.ncolumns++] = -1;
	for (int n = 0; n < times; n++)
		for (int i = 0; i < table->nidentity; i++)
		{
			const char *name = quote_identifier(table->columns[table->identity[i]].name);

			appendStringInfo(&sql, ", %s", staged_expression(table, i, psprintf("t.%s", name)));
			stream.request_fk[stream.ncolumns++] = -1;
		}
	for (int fk = 0; fk < table->nfks; fk++)
	{
		if (lt->parents[fk] == NULL || (key_only && !synchro_fk_names_key(lt, fk)))
			continue;
		append_parent_identity(&sql, lt, fk);
		for (int x = 0; x < lt->parents[fk]->table->nidentity; x++)
			stream.request_fk[stream.ncolumns++] = fk;
	}
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (synchro_column_fk(lt, i) >= 0 ||
			!(key_only ? synchro_column_is_key(table, i) : lt->pushed[i]))
			continue;
		appendStringInfo(&sql, ", t.%s", quote_identifier(table->columns[i].name));
		stream.request_fk[stream.ncolumns++] = -1;
	}
	for (int i = 0; key_only && i < table->ncolumns; i++)
		if (is_value_of_before(lt, i))
		{
			appendStringInfoString(&sql, ", NULL");
			stream.request_fk[stream.ncolumns++] = -1;
		}
	append_from(&sql, lt, key_only);

	stream.output = palloc0(sizeof(FmgrInfo) * stream.ncolumns);
	stream.row_context = AllocSetContextCreate(CurrentMemoryContext, "synchro row",
											   ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&stream.line);
	for (int i = 0; i < table->nidentity; i++)
	{
		types[i] = TEXTARRAYOID;
		values[i] = text_array(identities, first, count, i);
	}
	synchro_sql_query(sql.data, table->nidentity, types, values, NULL,
					  synchro_sql_callback(receive_row, &stream));
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
	nrows = run_stream(link, lt, lt->rows, identities, first, count, false,
					   ensure ? "true" : "false");
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
 * Add the natural keys of rows to the batch.
 */
void
synchro_stream_names(SynchroLink *link, SynchroLinkTable *lt,
					 const SynchroIdentities *identities, int first, int count)
{
	if (lt->names == NULL)
		lt->names = make_spool(link);
	lt->involved = true;
	lt->nnames += run_stream(link, lt, lt->names, identities, first, count, true,
							 "'" SYNCHRO_KIND_PRESENT "'::\"char\"");
}

/*
 * Add what a row was called before.
 *
 * kind, identity, value: see synchro_changes_next_old().
 */
void
synchro_stream_old(SynchroLink *link, SynchroLinkTable *lt, char kind,
				   SynchroBytes identity, SynchroBytes value)
{
	const SynchroTable *table = lt->table;
	char	  **here = decode_values(table, table->identity, table->nidentity, identity);
	StringInfoData line;

	initStringInfo(&line);
	appendStringInfoChar(&line, kind);
	for (int i = 0; i < table->nidentity; i++)
		put_value(&line, staged_value(table, i, here[i]));
	if (table->mode == SYNCHRO_MODE_REFERENCE)
	{
		char	  **former = decode_values(table, table->identity, table->nidentity, value);

		for (int i = 0; i < table->nidentity; i++)
			put_value(&line, former[i]);
	}
	else
	{
		char	  **key = decode_values(table, table->key, table->nkey, value);

		for (int fk = 0; fk < table->nfks; fk++)
		{
			char	   *request[INDEX_MAX_KEYS];
			const SynchroTable *parent;

			if (lt->parents[fk] == NULL || !synchro_fk_names_key(lt, fk))
				continue;
			parent = lt->parents[fk]->table;
			for (int x = 0; x < parent->nidentity; x++)
			{
				request[x] = NULL;
				for (int i = 0; i < table->fks[fk].ncols; i++)
					for (int j = 0; j < table->nkey; j++)
						if (table->fks[fk].refcols[i] == parent->columns[parent->identity[x]].attnum &&
							table->key[j] == table->fks[fk].cols[i] && key[j] != NULL)
							request[x] = staged_value(parent, x, key[j]);
				put_value(&line, request[x]);
			}
			if (request[0] != NULL)
				request_name(link, lt->parents[fk], request);
		}
		for (int i = 0; i < table->ncolumns; i++)
			for (int j = 0; j < table->nkey; j++)
				if (table->key[j] == i && synchro_column_fk(lt, i) < 0)
					put_value(&line, key[j]);
		for (int i = 0; i < table->ncolumns; i++)
			for (int j = 0; j < table->nkey; j++)
				if (table->key[j] == i && is_value_of_before(lt, i))
				{
					check_value_of_before(lt, i);
					put_value(&line, key[j]);
				}
	}
	appendStringInfoChar(&line, '\n');
	if (lt->names == NULL)
		lt->names = make_spool(link);
	lt->involved = true;
	synchro_spool_append(lt->names, line.data, line.len);
	lt->nnames++;
	lt->nolds++;
}

/*
 * Identities whose natural keys were asked for since the last call; NULL if
 * none were.
 */
SynchroIdentities *
synchro_stream_requests(SynchroLinkTable *lt)
{
	SynchroIdentities *fresh;
	MemoryContext old;

	if (lt->requests == NULL || lt->requests->fresh->count == 0)
		return NULL;
	fresh = lt->requests->fresh;
	old = MemoryContextSwitchTo(lt->requests->context);
	lt->requests->fresh = synchro_identities_create(lt->table);
	MemoryContextSwitchTo(old);
	return fresh;
}
