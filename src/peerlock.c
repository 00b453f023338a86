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
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "applied.h"
#include "keyarray.h"
#include "localsql.h"
#include "peerlock.h"
#include "reader.h"

/*
 * Append the condition that a row has one of the identities in the parameters.
 */
static void
append_identities(StringInfo sql, const SynchroTable *table, const bool *any_null)
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
						 synchro_operator_name(lookup_type_cache(column->type, TYPECACHE_EQ_OPR)->eq_opr), value);
		if (any_null[i])
			appendStringInfo(sql, " OR t.%s IS NULL AND %s IS NULL", name, value);
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
	Datum		params[INDEX_MAX_KEYS];
	int			nparams;
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
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT");
	append_identities(&sql, table, any_null);
	appendStringInfoString(&sql, " FOR NO KEY UPDATE OF t");
	LockRelationOid(relation, AccessShareLock);
	nparams = synchro_keyarray_params(table, values, nulls, count, types, params);
	synchro_reader_begin_as_owner(&reader, relation);
	if (pg_class_aclcheck(relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		pg_class_aclcheck(relation, GetUserId(), ACL_UPDATE) == ACLCHECK_OK)
		synchro_sql_run(sql.data, nparams, types, params, NULL);
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
