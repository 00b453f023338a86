/*-------------------------------------------------------------------------
 *
 * conflictapi.c
 *	  SQL-callable functions about conflicts.
 *
 * undo() writes what has lost back, as a change that its caller makes now: the
 * record is read as the owner of the extension, the row written as the caller,
 * with the caller's rights and settings, and logged like any other change.  But
 * the record's texts were written with settings of ours, so the values that are
 * written are made of them before, as the caller, but with these.
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
#include "utils/guc.h"
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

	/* parameters of statements: the identity's values, then the loser's */
	int			nparams;
	Oid		   *types;
	Datum	   *values;
	bool	   *nulls;
	int		   *param;			/* number of a column's of the loser */
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

/*
 * The type that the column's values are read as: domains look at them when they
 * are written.
 */
static char *
type_name(const SynchroColumn *column)
{
	int32		typmod = column->typmod;
	Oid			base = getBaseTypeAndTypmod(column->type, &typmod);

	return format_type_extended(base, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
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
 * Append the list of the columns that are written, or of their values.
 */
static void
append_columns(StringInfo sql, const Lost *lost, bool values)
{
	bool		any = false;

	for (int i = 0; i < lost->table->ncolumns; i++)
	{
		if (!is_written(lost, i))
			continue;
		appendStringInfoString(sql, any ? ", " : "");
		if (values)
			appendStringInfo(sql, "$%d", lost->param[i]);
		else
			appendStringInfoString(sql, quote_identifier(lost->table->columns[i].name));
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
		append_equal(sql, column, psprintf("$%d", i + 1));
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
		append_equal(sql, column, psprintf("$%d", lost->param[table->key[i]]));
	}
	return table->nkey > 0;
}

/*
 * Add a parameter; its number.
 */
static int
add_param(Lost *lost, Oid type, Datum value, bool isnull)
{
	lost->types[lost->nparams] = type;
	lost->values[lost->nparams] = value;
	lost->nulls[lost->nparams] = isnull;
	return ++lost->nparams;
}

/*
 * The values of the recorded identity, which their types read: a cast of text may
 * be a function of the type's owner, and would run with the caller's rights.
 */
static void
make_identity(Lost *lost)
{
	const SynchroTable *table = lost->table;

	for (int i = 0; lost->identity != NULL && i < table->nidentity; i++)
	{
		Oid			type = getBaseType(table->columns[table->identity[i]].type);
		char	   *text = lost->identity[i];
		Oid			input;
		Oid			param;

		getTypeInputInfo(type, &input, &param);
		add_param(lost, type, text != NULL ? OidInputFunctionCall(input, text, param, -1) : (Datum) 0, text == NULL);
	}
}

/*
 * The loser's values.  A null of JSON in a column of JSON is taken for NULL, as
 * both look the same in the record, but where the column must not be NULL.  What
 * is json may be in the record as its text, see synchro_sql_jsonable(): read as
 * text, it looks the same as what is there as JSON.
 */
static void
make_values(Lost *lost)
{
	Oid			types[] = {JSONBOID};
	StringInfoData sql;
	StringInfoData names;
	int			n = 0;

	initStringInfo(&sql);
	initStringInfo(&names);
	for (int i = 0; i < lost->table->ncolumns; i++)
	{
		const SynchroColumn *column = &lost->table->columns[i];
		const char *name = quote_identifier(column->name);
		char	   *value = psprintf("r.%s", name);
		Oid			type = getBaseType(column->type);

		if (!lost->present[i])
			continue;
		if (column->not_null && (type == JSONOID || type == JSONBOID))
			value = psprintf("coalesce(%s, 'null')", value);
		if (type == JSONOID)
			value = psprintf("CAST(%s AS pg_catalog.json)", value);
		appendStringInfo(&sql, "%s%s", n > 0 ? ", " : "SELECT ", value);
		appendStringInfo(&names, "%s%s %s", n > 0 ? ", " : "", name, type == JSONOID ? "pg_catalog.text" : type_name(column));
		n++;
	}
	if (n == 0)
		return;
	appendStringInfo(&sql, " FROM pg_catalog.jsonb_to_record($1) AS r (%s)", names.data);
	synchro_sql_run(sql.data, lengthof(types), types, &lost->loser, NULL);
	n = 0;
	for (int i = 0; i < lost->table->ncolumns; i++)
	{
		bool		isnull;
		Datum		value;

		if (!lost->present[i])
			continue;
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, ++n, &isnull);
		lost->param[i] = add_param(lost, getBaseType(lost->table->columns[i].type), value, isnull);
	}
}

/*
 * Make the record's texts values, with the settings that they were written with.
 */
static void
make_params(Lost *lost)
{
	int			most = lost->table->ncolumns + INDEX_MAX_KEYS;
	int			guc_level = NewGUCNestLevel();

	lost->types = palloc(sizeof(Oid) * most);
	lost->values = palloc(sizeof(Datum) * most);
	lost->nulls = palloc(sizeof(bool) * most);
	lost->param = palloc0(sizeof(int) * most);
	synchro_sql_settings(false);
	make_identity(lost);
	if (lost->loser != (Datum) 0)
		make_values(lost);
	AtEOXact_GUC(false, guc_level);
}

static uint64
run(const Lost *lost, const char *sql)
{
	return synchro_sql_run(sql, lost->nparams, lost->types, lost->values, lost->nulls);
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
	append_columns(&sql, lost, false);
	appendStringInfoString(&sql, ") = ROW(");
	append_columns(&sql, lost, true);
	appendStringInfo(&sql, ") WHERE %s", condition);
	return run(lost, sql.data) > 0;
}

static void
insert(const Lost *lost)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (", lost->table->qualified);
	append_columns(&sql, lost, false);
	appendStringInfoString(&sql, ") VALUES (");
	append_columns(&sql, lost, true);
	appendStringInfoChar(&sql, ')');
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
	make_params(&lost);
	if (lost.loser != (Datum) 0)
		restore_row(&lost);
	else
		delete_row(&lost);
	synchro_sql_close(&scope);
	PG_RETURN_VOID();
}
