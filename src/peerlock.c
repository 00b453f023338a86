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
#include "utils/lsyscache.h"

#include "applied.h"
#include "keyarray.h"
#include "localsql.h"
#include "peerlock.h"
#include "reader.h"

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
	SynchroBytes *identities;
	bool		any_null[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	Datum		params[INDEX_MAX_KEYS];
	int			nparams;
	int			count = 0;
	const ListCell *cell;

	if (found == NULL)
		return;
	table = synchro_table_copy(found, CurrentMemoryContext);
	identities = palloc(sizeof(SynchroBytes) * list_length(rows));
	foreach(cell, rows)
	{
		const SynchroApplied *applied = lfirst(cell);

		if (applied->relation == relation && SYNCHRO_LAYOUT_IDENTITY(applied->layout) == SYNCHRO_LAYOUT_IDENTITY(table->layout))
			identities[count++] = applied->identity;
	}
	LockRelationOid(relation, AccessShareLock);
	nparams = synchro_keyarray_of_bytes(table, identities, count, types, params, any_null);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT");
	synchro_keyarray_join(&sql, table, any_null);
	appendStringInfoString(&sql, " FOR NO KEY UPDATE OF t");
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
