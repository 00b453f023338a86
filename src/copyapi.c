/*-------------------------------------------------------------------------
 *
 * copyapi.c
 *	  SQL-callable functions that have whole tables pushed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "copychunk.h"
#include "sharedstate.h"
#include "sqlapi.h"
#include "target.h"

PG_FUNCTION_INFO_V1(synchro_copy_table);

/*
 * The watched table that a copy can be made of.
 */
static const SynchroTable *
table_to_copy(Oid relid)
{
	const SynchroTable *table = synchro_table_get(relid, false);

	if (!table->watched || table->mode == SYNCHRO_MODE_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not watched", table->name),
				 synchro_table_root(relid) != relid ?
				 errhint("It is a partition: copy the table that is watched.") :
				 errhint("SELECT synchro.add_table(%s); first, so that what changes while it is copied is pushed, too.",
						 quote_literal_cstr(table->qualified))));
	return synchro_table_copy(table, CurrentMemoryContext);
}

/*
 * Can what is on the remote only be told from other rows?
 */
static void
require_extra_is_known(const SynchroTable *table)
{
	if (table->mode == SYNCHRO_MODE_REFERENCE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("extra rows of table \"%s\" cannot be deleted", table->name),
				 errdetail("Its rows are matched by stored references, which say nothing about rows that are on the remote only."),
				 errhint("Register a natural key, or leave out delete_extra.")));
	if (table->allow_many)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("extra rows of table \"%s\" cannot be deleted", table->name),
				 errdetail("Its natural key may match many rows on the remote."),
				 errhint("Leave out delete_extra, or let the key match one row only: SELECT synchro.alter_table(%s, allow_many => false);",
						 quote_literal_cstr(table->qualified))));
}

/*
 * Queue a copy of a table; returns the number of its rows.
 *
 * The rows are looked at with the latest snapshot: what is committed later is
 * in the log, since the table is watched, or was changed with the log off.
 */
static int64
queue_copy(const SynchroTarget *target, Oid relid, bool delete_extra)
{
	const SynchroTable *table = table_to_copy(relid);
	SynchroCopy copy = {0};

	if (delete_extra)
		require_extra_is_known(table);
	copy.relid = relid;
	copy.delete_extra = delete_extra;
	PushActiveSnapshot(GetLatestSnapshot());
	synchro_copychunk_measure(table, target->owner, &copy);
	PopActiveSnapshot();
	synchro_copyqueue_add(target->name, &copy);
	synchro_shared_retry_at_commit();
	return copy.rows_total;
}

/*
 * copy_table(remote, relation, delete_extra): queue every row; returns how
 * many.
 */
Datum
synchro_copy_table(PG_FUNCTION_ARGS)
{
	SynchroTarget *target = synchro_target_get(NameStr(*PG_GETARG_NAME(0)), false);

	synchro_require_relation_owner(PG_GETARG_OID(1));
	PG_RETURN_INT64(queue_copy(target, PG_GETARG_OID(1), PG_GETARG_BOOL(2)));
}
