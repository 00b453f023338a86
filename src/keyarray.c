/*-------------------------------------------------------------------------
 *
 * keyarray.c
 *	  Identities of rows as parameters of SQL.
 *
 * They are arrays of the columns' own types.  SQL that made them of text would
 * cast it, and to cast to a type, or from it, runs what the type's owner has
 * said in CREATE CAST, with the rights of whoever we read the table as.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "keyarray.h"
#include "localsql.h"

static Oid
type_of(const SynchroTable *table, int identity)
{
	return getBaseType(table->columns[table->identity[identity]].type);
}

/*
 * Is there one array, of the table's rows?  There are no arrays of arrays.
 */
bool
synchro_keyarray_of_rows(const SynchroTable *table)
{
	for (int i = 0; i < table->nidentity; i++)
		if (OidIsValid(get_element_type(type_of(table, i))))
			return true;
	return false;
}

static Datum
make_array(Oid type, Datum *values, bool *nulls, int count)
{
	int			bound = 1;
	int16		typlen;
	bool		typbyval;
	char		typalign;

	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	return PointerGetDatum(construct_md_array(values, nulls, 1, &count, &bound, type, typlen, typbyval, typalign));
}

/*
 * Is the table's column still what it was when the values were made?
 */
static void
check_column(const SynchroTable *table, const SynchroColumn *column, TupleDesc desc)
{
	if (column->attnum > desc->natts || TupleDescAttr(desc, column->attnum - 1)->atttypid != column->type)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of table %s has been altered meanwhile", column->name, table->qualified)));
}

/*
 * An array of rows that have nothing but their identities.
 */
static Datum
make_rows(const SynchroTable *table, Oid type, Datum *const *values, bool *const *nulls, int count)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);
	Datum	   *columns = palloc0(sizeof(Datum) * desc->natts);
	bool	   *absent = palloc(sizeof(bool) * desc->natts);
	Datum	   *rows = palloc(sizeof(Datum) * Max(count, 1));
	bool	   *none = palloc0(sizeof(bool) * Max(count, 1));

	for (int i = 0; i < table->nidentity; i++)
		check_column(table, &table->columns[table->identity[i]], desc);
	memset(absent, true, sizeof(bool) * desc->natts);
	for (int row = 0; row < count; row++)
	{
		for (int i = 0; i < table->nidentity; i++)
		{
			AttrNumber	attnum = table->columns[table->identity[i]].attnum;

			columns[attnum - 1] = values[i][row];
			absent[attnum - 1] = nulls[i][row];
		}
		rows[row] = HeapTupleGetDatum(heap_form_tuple(desc, columns, absent));
	}
	ReleaseTupleDesc(desc);
	return make_array(type, rows, none, count);
}

/*
 * Make the parameters for identities, from number 1 on; values and nulls are
 * given column by column.  The table must be locked.  Returns how many there are.
 */
int
synchro_keyarray_params(const SynchroTable *table, Datum *const *values, bool *const *nulls, int count,
						Oid *types, Datum *params)
{
	if (synchro_keyarray_of_rows(table))
	{
		Oid			type = get_rel_type_id(table->relid);

		types[0] = get_array_type(type);
		params[0] = make_rows(table, type, values, nulls, count);
		return 1;
	}
	for (int i = 0; i < table->nidentity; i++)
	{
		types[i] = get_array_type(type_of(table, i));
		params[i] = make_array(type_of(table, i), values[i], nulls[i], count);
	}
	return table->nidentity;
}

/*
 * The same for identities as the log has them.  any_null: set, for each column
 * of the identity, to whether one of them is NULL in it.
 */
int
synchro_keyarray_of_bytes(const SynchroTable *table, const SynchroBytes *identities, int count,
						  Oid *types, Datum *params, bool *any_null)
{
	Datum	   *values[INDEX_MAX_KEYS];
	bool	   *nulls[INDEX_MAX_KEYS];

	for (int i = 0; i < table->nidentity; i++)
	{
		values[i] = palloc(sizeof(Datum) * Max(count, 1));
		nulls[i] = palloc(sizeof(bool) * Max(count, 1));
		any_null[i] = false;
	}
	for (int row = 0; row < count; row++)
	{
		Datum		value[INDEX_MAX_KEYS];
		bool		isnull[INDEX_MAX_KEYS];

		synchro_key_values(identities[row], table, table->identity, table->nidentity, value, isnull);
		for (int i = 0; i < table->nidentity; i++)
		{
			values[i][row] = value[i];
			nulls[i][row] = isnull[i];
			any_null[i] |= isnull[i];
		}
	}
	return synchro_keyarray_params(table, values, nulls, count, types, params);
}

/*
 * Append what makes rows of these parameters, alias k, for FROM.
 */
void
synchro_keyarray_from(StringInfo sql, const SynchroTable *table)
{
	if (synchro_keyarray_of_rows(table))
	{
		appendStringInfoString(sql, "unnest($1) k");
		return;
	}
	appendStringInfoString(sql, "unnest(");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, "%s$%d", i > 0 ? ", " : "", i + 1);
	appendStringInfoString(sql, ") k(");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, "%sk%d", i > 0 ? ", " : "", i);
	appendStringInfoChar(sql, ')');
}

/*
 * A value of such a row.
 */
char *
synchro_keyarray_value(const SynchroTable *table, int identity)
{
	if (synchro_keyarray_of_rows(table))
		return psprintf("k.%s", quote_identifier(table->columns[table->identity[identity]].name));
	return psprintf("k.k%d", identity);
}

/*
 * Append FROM: the table's rows, alias t, that have those identities.
 * may_be_null: for each column of the identity, whether one may be NULL in it.
 */
void
synchro_keyarray_join(StringInfo sql, const SynchroTable *table, const bool *may_be_null)
{
	appendStringInfoString(sql, " FROM ");
	synchro_keyarray_from(sql, table);
	appendStringInfo(sql, " JOIN %s t ON ", synchro_table_rows(table));
	for (int i = 0; i < table->nidentity; i++)
	{
		const SynchroColumn *column = &table->columns[table->identity[i]];
		const char *name = quote_identifier(column->name);
		const char *value = synchro_keyarray_value(table, i);

		appendStringInfo(sql, "%s(t.%s %s %s", i > 0 ? " AND " : "", name,
						 synchro_equality_name(column->type), value);
		if (may_be_null[i])
			appendStringInfo(sql, " OR (t.%s " SYNCHRO_SQL_IS_NULL " AND %s " SYNCHRO_SQL_IS_NULL ")", name, value);
		appendStringInfoChar(sql, ')');
	}
}
