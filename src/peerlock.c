/*-------------------------------------------------------------------------
 *
 * peerlock.c
 *	  Rows locked that are logged as changed by another node, but not written.
 *
 * That the locks of rows keep everybody else out is what the last look at the
 * log relies on (synchro_sql_recheck()), and what the log's order comes from:
 * of a row's entries the later one is the newer one (keyhistory.c, logfold.c).
 * A row that is as the other node wants it already is not written, so nothing
 * has locked it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "applied.h"
#include "localsql.h"
#include "peerlock.h"
#include "reader.h"

/*
 * Append the condition that a row has one of the identities in the arrays $1...
 */
static void
append_identities(StringInfo sql, const SynchroTable *table, const bool *any_null)
{
	appendStringInfo(sql, " FROM unnest(");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, "%s$%d", i > 0 ? ", " : "", i + 1);
	appendStringInfoString(sql, ") u(");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, "%sk%d", i > 0 ? ", " : "", i);
	appendStringInfo(sql, ") JOIN %s t ON ", synchro_table_rows(table));
	for (int i = 0; i < table->nidentity; i++)
	{
		const SynchroColumn *column = &table->columns[table->identity[i]];
		const char *name = quote_identifier(column->name);

		appendStringInfo(sql, "%s(t.%s %s u.k%d", i > 0 ? " AND " : "", name,
						 synchro_operator_name(lookup_type_cache(column->type, TYPECACHE_EQ_OPR)->eq_opr), i);
		if (any_null[i])
			appendStringInfo(sql, " OR t.%s IS NULL AND u.k%d IS NULL", name, i);
		appendStringInfoChar(sql, ')');
	}
}

/*
 * Lock rows of a table, unless its owner has taken the right to update it from
 * himself.  rows: of SynchroApplied, also of other tables.
 */
static void
lock_rows(Oid relation, const List *rows)
{
	const SynchroTable *found = synchro_table_get(relation, true);
	const SynchroTable *table;
	SynchroReader reader;
	StringInfoData sql;
	Datum	   *values[INDEX_MAX_KEYS];
	bool	   *nulls[INDEX_MAX_KEYS];
	bool		any_null[INDEX_MAX_KEYS] = {0};
	Oid			types[INDEX_MAX_KEYS];
	Datum		arrays[INDEX_MAX_KEYS];
	int			count = 0;
	const ListCell *cell;

	if (found == NULL)
		return;
	table = synchro_table_copy(found, CurrentMemoryContext);
	for (int i = 0; i < table->nidentity; i++)
	{
		values[i] = palloc(sizeof(Datum) * list_length(rows));
		nulls[i] = palloc(sizeof(bool) * list_length(rows));
	}
	foreach(cell, rows)
	{
		const SynchroApplied *applied = lfirst(cell);
		Datum		row[INDEX_MAX_KEYS];
		bool		isnull[INDEX_MAX_KEYS];

		if (applied->relation != relation || SYNCHRO_LAYOUT_IDENTITY(applied->layout) != SYNCHRO_LAYOUT_IDENTITY(table->layout))
			continue;
		synchro_key_values(applied->identity, table, table->identity, table->nidentity, row, isnull);
		for (int i = 0; i < table->nidentity; i++)
		{
			values[i][count] = row[i];
			nulls[i][count] = isnull[i];
			any_null[i] |= isnull[i];
		}
		count++;
	}
	for (int i = 0; i < table->nidentity; i++)
	{
		Oid			type = getBaseType(table->columns[table->identity[i]].type);
		int16		typlen;
		bool		typbyval;
		char		typalign;

		get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
		types[i] = get_array_type(type);
		arrays[i] = PointerGetDatum(construct_md_array(values[i], nulls[i], 1, &count, &(int) {1},
													   type, typlen, typbyval, typalign));
	}
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT");
	append_identities(&sql, table, any_null);
	appendStringInfoString(&sql, " FOR NO KEY UPDATE OF t");
	synchro_reader_begin_as_owner(&reader, relation);
	if (pg_class_aclcheck(relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		pg_class_aclcheck(relation, GetUserId(), ACL_UPDATE) == ACLCHECK_OK)
		synchro_sql_run(sql.data, table->nidentity, types, arrays, NULL);
	synchro_reader_end(&reader);
}

/*
 * Lock the rows that this transaction has not written, since they are as the
 * other node wants them already, and yet will log as changed by that one.
 *
 * Whoever changes such a row meanwhile would not be seen, and what we log comes
 * after his change, though it is older: as if the other node knew that one.
 */
void
synchro_peerlock_touched(void)
{
	SynchroSqlScope scope;
	List	   *touched = NIL;
	List	   *relations = NIL;
	ListCell   *cell;

	for (SynchroApplied *applied = synchro_applied_next(true); applied != NULL; applied = synchro_applied_next(false))
		if (applied->touch && !applied->logged)
		{
			touched = lappend(touched, applied);
			relations = list_append_unique_oid(relations, applied->relation);
		}
	if (touched == NIL)
		return;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	foreach(cell, relations)
		lock_rows(lfirst_oid(cell), touched);
	synchro_sql_close(&scope);
}
