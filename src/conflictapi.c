/*-------------------------------------------------------------------------
 *
 * conflictapi.c
 *	  SQL-callable functions about conflicts.
 *
 * undo() writes what has lost back, as a change that its caller makes now: the
 * record is read as the owner of the extension, the row written as the caller,
 * with the caller's rights and settings, and logged like any other change.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "localsql.h"
#include "reader.h"
#include "tableinfo.h"

PG_FUNCTION_INFO_V1(synchro_undo);

/* what a conflict's record says */
typedef struct Lost
{
	const SynchroTable *table;
	char	  **identity;		/* of the row here, or NULL */
	Datum		loser;			/* or 0 */
	bool	   *present;		/* has loser a value of the column? */
} Lost;

static Datum
copy_varlena(int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? (Datum) 0 : SPI_datumTransfer(value, false, -1);
}

/*
 * Take the recorded identity to pieces.  The table may have got another key.
 */
static void
read_identity(Lost *lost, ArrayType *identity)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	deconstruct_array(identity, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	if (count < lost->table->nidentity)
		return;
	lost->identity = palloc(sizeof(char *) * Max(count, 1));
	for (int i = 0; i < count; i++)
		lost->identity[i] = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
}

/*
 * Whoever writes a row may see it in an error, so he must be one who may read
 * the table.
 */
static void
read_lost(int64 id, Lost *lost)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(id)};
	SynchroSqlScope scope;
	const SynchroTable *table;
	Oid			caller = GetUserId();
	Datum		identity;
	bool		isnull;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("SELECT relation::oid, identity, loser FROM synchro.conflict WHERE id = $1",
						lengthof(types), types, values, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no conflict " INT64_FORMAT, id),
				 errhint("See the view synchro.conflicts. The newest synchro.conflicts_kept conflicts are remembered.")));
	table = synchro_table_get(DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)), true);
	if (table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table of conflict " INT64_FORMAT " does not exist any more", id)));
	if (!synchro_reader_may_see(caller, table->relid))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, table->name);
	identity = copy_varlena(2);
	lost->loser = copy_varlena(3);
	synchro_sql_close(&scope);
	lost->table = synchro_table_copy(table, CurrentMemoryContext);
	if (identity != (Datum) 0)
		read_identity(lost, DatumGetArrayTypeP(identity));
	lost->present = palloc0(sizeof(bool) * Max(table->ncolumns, 1));
	if (lost->loser == (Datum) 0)
		return;
	if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(lost->loser)))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the record of conflict " INT64_FORMAT " has no row", id)));
	for (int i = 0; i < lost->table->ncolumns; i++)
	{
		const char *name = lost->table->columns[i].name;
		JsonbValue	value;

		lost->present[i] = getKeyJsonValueFromContainer(&DatumGetJsonbP(lost->loser)->root,
														name, strlen(name), &value) != NULL;
	}
}

static bool
is_in(const int *columns, int ncolumns, int column)
{
	for (int i = 0; i < ncolumns; i++)
		if (columns[i] == column)
			return true;
	return false;
}

/*
 * Is the column written back?  Not what each database makes for itself:
 * generated values, ids, and what is never pushed.
 */
static bool
is_written(const Lost *lost, int i)
{
	const SynchroTable *table = lost->table;
	const SynchroColumn *column = &table->columns[i];

	return lost->present[i] && !column->generated && !column->skipped &&
		column->identity != ATTRIBUTE_IDENTITY_ALWAYS &&
		!(column->from_sequence && is_in(table->identity, table->nidentity, i));
}

static char *
type_name(const SynchroColumn *column)
{
	return format_type_extended(column->type, column->typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/*
 * Append a comparison of the row t's column.  By operators with their schema:
 * the search_path is the caller's.
 */
static void
append_equal(StringInfo sql, const SynchroColumn *column, const char *value)
{
	const char *name = quote_identifier(column->name);

	appendStringInfo(sql, "(t.%s %s %s OR (t.%s IS NULL AND %s IS NULL))", name,
					 synchro_equality_name(column->type), value, name, value);
}

/*
 * Append "FROM ... r": the loser's values as a row.
 */
static void
append_loser(StringInfo sql, const Lost *lost)
{
	bool		any = false;

	appendStringInfoString(sql, " FROM pg_catalog.jsonb_to_record($1) AS r (");
	for (int i = 0; i < lost->table->ncolumns; i++)
	{
		if (!lost->present[i])
			continue;
		appendStringInfo(sql, "%s%s %s", any ? ", " : "", quote_identifier(lost->table->columns[i].name),
						 type_name(&lost->table->columns[i]));
		any = true;
	}
	appendStringInfoChar(sql, ')');
}

/*
 * Append the list of the columns that are written.
 */
static void
append_columns(StringInfo sql, const Lost *lost, const char *prefix)
{
	bool		any = false;

	for (int i = 0; i < lost->table->ncolumns; i++)
	{
		if (!is_written(lost, i))
			continue;
		appendStringInfo(sql, "%s%s%s", any ? ", " : "", prefix, quote_identifier(lost->table->columns[i].name));
		any = true;
	}
}

/*
 * Append the condition that t is the row with the recorded identity.
 */
static void
append_is_row(StringInfo sql, const Lost *lost)
{
	for (int i = 0; i < lost->table->nidentity; i++)
	{
		const SynchroColumn *column = &lost->table->columns[lost->table->identity[i]];

		appendStringInfoString(sql, i > 0 ? " AND " : "");
		append_equal(sql, column, psprintf("$%d", i + 2));
	}
}

/*
 * Append the condition that t has the loser's natural key; false if that is
 * not known.
 */
static bool
append_is_called(StringInfo sql, const Lost *lost)
{
	const SynchroTable *table = lost->table;

	for (int i = 0; i < table->nkey; i++)
	{
		const SynchroColumn *column = &table->columns[table->key[i]];

		if (!lost->present[table->key[i]])
			return false;
		appendStringInfoString(sql, i > 0 ? " AND " : "");
		append_equal(sql, column, psprintf("r.%s", quote_identifier(column->name)));
	}
	return table->nkey > 0;
}

/*
 * Run a statement with the loser and the values of the recorded identity, which
 * their types read: a cast of text may be a function of the type's owner, and
 * would run with the caller's rights.
 */
static uint64
run(const Lost *lost, const char *sql)
{
	const SynchroTable *table = lost->table;
	Oid			types[1 + INDEX_MAX_KEYS] = {JSONBOID};
	Datum		params[1 + INDEX_MAX_KEYS] = {lost->loser};
	bool		nulls[1 + INDEX_MAX_KEYS] = {lost->loser == (Datum) 0};
	int			nargs = 1;

	for (int i = 0; lost->identity != NULL && i < table->nidentity; i++, nargs++)
	{
		Oid			input;
		Oid			param;

		types[nargs] = getBaseType(table->columns[table->identity[i]].type);
		getTypeInputInfo(types[nargs], &input, &param);
		nulls[nargs] = lost->identity[i] == NULL;
		params[nargs] = nulls[nargs] ? (Datum) 0 : OidInputFunctionCall(input, lost->identity[i], param, -1);
	}
	return synchro_sql_run(sql, nargs, types, params, nulls);
}

/*
 * Give the row that the condition names the loser's values; false if there is
 * none.
 */
static bool
update(const Lost *lost, const char *condition)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s t SET (", synchro_table_rows(lost->table));
	append_columns(&sql, lost, "");
	appendStringInfoString(&sql, ") = ROW(");
	append_columns(&sql, lost, "r.");
	appendStringInfoChar(&sql, ')');
	append_loser(&sql, lost);
	appendStringInfo(&sql, " WHERE %s", condition);
	return run(lost, sql.data) > 0;
}

static void
insert(const Lost *lost)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (", lost->table->qualified);
	append_columns(&sql, lost, "");
	appendStringInfoString(&sql, ") SELECT ");
	append_columns(&sql, lost, "r.");
	append_loser(&sql, lost);
	run(lost, sql.data);
}

/*
 * Write a lost row back: to the row that won, else to the one that is called
 * so now, else as a new row.
 */
static void
restore_row(const Lost *lost)
{
	StringInfoData condition;
	bool		any = false;

	for (int i = 0; i < lost->table->ncolumns; i++)
		any |= is_written(lost, i);
	if (!any)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table %s has none of the loser's columns any more", lost->table->qualified)));
	initStringInfo(&condition);
	if (lost->identity != NULL)
	{
		append_is_row(&condition, lost);
		if (update(lost, condition.data))
			return;
		resetStringInfo(&condition);
	}
	if (append_is_called(&condition, lost) && update(lost, condition.data))
		return;
	insert(lost);
}

static void
delete_row(const Lost *lost)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM %s t WHERE ", synchro_table_rows(lost->table));
	append_is_row(&sql, lost);
	if (lost->identity == NULL || run(lost, sql.data) == 0)
		ereport(NOTICE,
				(errmsg("the row of table %s is gone already", lost->table->qualified)));
}

/*
 * undo(conflict): write the loser of a conflict back, as a new change of the
 * caller's.
 */
Datum
synchro_undo(PG_FUNCTION_ARGS)
{
	Lost		lost = {0};
	SynchroSqlScope scope;

	read_lost(PG_GETARG_INT64(0), &lost);
	synchro_sql_open_as_caller(&scope);
	if (lost.loser != (Datum) 0)
		restore_row(&lost);
	else
		delete_row(&lost);
	synchro_sql_close(&scope);
	PG_RETURN_VOID();
}
