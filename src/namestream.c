/*-------------------------------------------------------------------------
 *
 * namestream.c
 *	  Names of before, and when rows were changed, as COPY text; see rowstream.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "applysql.h"
#include "localsql.h"
#include "reader.h"
#include "readsql.h"
#include "requests.h"
#include "rowstream.h"
#include "stalled.h"

/*
 * Such a value is the same on the remote, unless the referenced column is a
 * reference or a local id itself.
 */
static void
check_value_of_before(const SynchroLinkTable *lt, int column)
{
	const SynchroColumn *here = &lt->table->columns[column];
	const SynchroTable *parent = lt->parents[here->fk]->table;
	const SynchroColumn *referenced = &parent->columns[synchro_column_referenced(lt, column)];

	if (referenced->fk >= 0 || referenced->from_sequence)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("renamed or deleted rows of table %s cannot be found on the remote",
						lt->table->qualified),
				 errdetail("Column \"%s\" of its natural key references column \"%s\" of table %s, which is a reference or an id itself.",
						   here->name, referenced->name, parent->qualified),
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
		lt->changes = synchro_stream_spool(link);
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
	char	  **values = synchro_identities_read(slot);

	for (int i = 0; i < spelling->table->nidentity; i++)
		spelling->values[i] = synchro_staged_value(spelling->table, i, values[i]);
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
	Oid			child = synchro_stream_being_read();

	synchro_stream_reads(table->relid);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(&sql, "%st.%s", i > 0 ? ", " : "", quote_identifier(table->columns[table->identity[i]].name));
	synchro_sql_from(&sql, parent, true);
	synchro_identities_add(identities, raw);
	synchro_reader_begin(&reader, link->target->owner, table, true, synchro_stream_joined(parent, true));
	nparams = synchro_identities_params(identities, table, 0, 1, types, values);
	synchro_sql_query(sql.data, nparams, types, values, NULL, synchro_sql_callback(receive_spelling, &spelling));
	synchro_reader_end(&reader);
	synchro_stream_reads(child);

	/* queries leave their own behind */
	MemoryContextSwitchTo(spelling.context);
}

/*
 * Which value of the natural key references that column of a foreign key's
 * parent?  -1: none.
 */
int
synchro_stream_key_position(const SynchroTable *table, int fk, AttrNumber refcol)
{
	const SynchroForeignKey *key = &table->fks[fk];

	for (int i = 0; i < key->ncols; i++)
		for (int j = 0; key->refcols[i] == refcol && j < table->nkey; j++)
			if (table->key[j] == key->cols[i])
				return j;
	return -1;
}

/*
 * Put which rows the foreign keys in a name of before referenced, and ask for
 * their names.  key: its values.
 */
static void
put_parents_of_before(SynchroLink *link, SynchroLinkTable *lt, char **key, StringInfo line)
{
	const SynchroTable *table = lt->table;

	for (int fk = 0; fk < table->nfks; fk++)
	{
		char	   *request[INDEX_MAX_KEYS];
		char	   *raw[INDEX_MAX_KEYS];
		const SynchroTable *parent = lt->parents[fk] != NULL ? lt->parents[fk]->table : NULL;
		bool		beyond;

		if (parent == NULL || !synchro_fk_names_key(lt, fk))
			continue;
		Assert(parent->nidentity > 0);
		beyond = synchro_fk_beyond_identity(lt, fk);
		for (int x = 0; x < parent->nidentity; x++)
		{
			int			j = synchro_stream_key_position(table, fk, parent->columns[parent->identity[x]].attnum);

			if (j < 0 && !beyond)
				check_identity_of_before(lt, fk, key);
			raw[x] = j >= 0 ? key[j] : NULL;
			request[x] = raw[x] != NULL ? synchro_staged_value(parent, x, raw[x]) : NULL;
		}
		if (raw[0] != NULL && !beyond && !synchro_sql_is_direct(lt, fk))
			respell(link, lt->parents[fk], raw, request);
		for (int x = 0; x < parent->nidentity; x++)
			synchro_copy_put(line, request[x]);
		if (request[0] != NULL)
			synchro_request_name(link, lt->parents[fk], request);
	}
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
	synchro_stream_reads(table->relid);
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

		put_parents_of_before(link, lt, key, &line);
		for (int i = 0; i < table->ncolumns; i++)
			for (int j = 0; j < table->nkey; j++)
				if (table->key[j] == i && synchro_column_fk(lt, i) < 0)
					synchro_copy_put(&line, key[j]);
		for (int i = 0; i < table->ncolumns; i++)
			for (int j = 0; j < table->nkey; j++)
				if (table->key[j] == i && synchro_column_is_value_of_before(lt, i))
				{
					check_value_of_before(lt, i);
					synchro_copy_put(&line, key[j]);
				}
	}
	appendStringInfoChar(&line, '\n');
	lt->involved = true;
	synchro_spool_append(synchro_stream_names_spool(link, lt), line.data, line.len);
	pfree(line.data);
	lt->nnames++;
	lt->nwaiting += waits;
	lt->nolds += 1 - waits;
	synchro_stream_reads(InvalidOid);
	synchro_suspect(InvalidOid);
}
