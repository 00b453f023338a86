/*-------------------------------------------------------------------------
 *
 * copyapi.c
 *	  SQL-callable functions that have whole tables pushed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "copychunk.h"
#include "keycheck.h"
#include "localsql.h"
#include "logsnapshot.h"
#include "registry.h"
#include "sharedstate.h"
#include "sqlapi.h"
#include "stalled.h"
#include "target.h"

PG_FUNCTION_INFO_V1(synchro_copy_table);
PG_FUNCTION_INFO_V1(synchro_reset_schema);

/*
 * The watched table that a copy can be made of.
 */
static const SynchroTable *
table_to_copy(Oid relid)
{
	const SynchroTable *table = synchro_table_get(relid, false);

	synchro_suspect_keyless(table, InvalidOid);
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
 * Queue a copy of a table; returns the number of its rows.
 *
 * The rows are looked at with the latest snapshot: what is committed later is
 * in the log, since the table is watched, or was changed with the log off.
 * empty: all rows of the remote go first.
 */
static int64
queue_copy(const SynchroTarget *target, Oid relid, bool delete_extra, bool empty)
{
	const SynchroTable *table = table_to_copy(relid);
	SynchroCopy copy = {0};
	char	   *seen;

	if (delete_extra)
		synchro_copychunk_require_extra(table);
	copy.relid = relid;
	copy.delete_extra = delete_extra;
	copy.empty = empty;
	PushActiveSnapshot(GetLatestSnapshot());

	/* nobody is kept from writing to a partition: what comes while rows are counted is in the log */
	seen = synchro_snapshot_current();
	synchro_copychunk_measure(table, target->owner, &copy);
	PopActiveSnapshot();
	synchro_copyqueue_add(target->name, &copy, seen);
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
	PG_RETURN_INT64(queue_copy(target, PG_GETARG_OID(1), PG_GETARG_BOOL(2), false));
}

/*
 * Can the tables be emptied on a remote?  What its log would say of that would
 * come back here.
 */
static void
require_no_node(const SynchroTarget *target)
{
	SynchroSqlScope scope;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(target->name);
	bool		is_node;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	is_node = synchro_sql_run("SELECT FROM synchro.remote_state WHERE server = $1::name AND node IS NOT NULL",
							  1, &type, &value, NULL) > 0;
	synchro_sql_close(&scope);
	if (is_node)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("tables of remote \"%s\" cannot be emptied", target->name),
				 errdetail("It logs changes itself: that its rows were deleted would come back here."),
				 errhint("Run synchro.copy_table() for each table, with delete_extra where rows are found by a natural key.")));
}

/*
 * Forget what has failed or waits of tables for a remote, or have it tried at
 * once.
 */
static void
forget_failures(List *tables, const char *server, bool forget)
{
	static const char *const forgetting[] = {
		"DELETE FROM synchro.parked WHERE server = $2::name AND relation = ANY ($1)",
		"DELETE FROM synchro.stalled WHERE server = $2::name AND relation = ANY ($1)",
		"DELETE FROM synchro.backlog WHERE server = $2::name AND relation = ANY ($1)"
	};
	static const char *const trying[] = {
		"UPDATE synchro.parked SET next_attempt = clock_timestamp() WHERE relation = ANY ($1)",
		"UPDATE synchro.stalled SET next_attempt = clock_timestamp() WHERE relation = ANY ($1)"
	};
	SynchroSqlScope scope;
	Datum	   *elements = palloc(sizeof(Datum) * list_length(tables));
	Oid			types[] = {OIDARRAYOID, TEXTOID};
	Datum		values[lengthof(types)];
	bool		nulls[] = {false, server == NULL};
	ListCell   *cell;

	foreach(cell, tables)
		elements[foreach_current_index(cell)] = ObjectIdGetDatum(lfirst_oid(cell));
	values[0] = PointerGetDatum(construct_array(elements, list_length(tables), OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	values[1] = server != NULL ? CStringGetTextDatum(server) : (Datum) 0;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	for (int i = 0; i < (forget ? lengthof(forgetting) : lengthof(trying)); i++)
		synchro_sql_run(forget ? forgetting[i] : trying[i], forget ? 2 : 1, types, values, nulls);
	synchro_sql_close(&scope);
}

/*
 * reset_schema(schema, soft, remote, confirm): renew what is known of a
 * schema's watched tables; or have them emptied on a remote, and copied anew.
 */
Datum
synchro_reset_schema(PG_FUNCTION_ARGS)
{
	bool		soft = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	bool		confirm = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	SynchroTarget *target;
	char	   *name;
	List	   *tables;
	ListCell   *cell;
	int64		rows = 0;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("schema must not be NULL"),
				 errhint("Name a schema.")));
	name = synchro_keycheck_schema(PG_GETARG_OID(0));
	if (!soft && (PG_ARGISNULL(2) || !confirm))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("to reset a schema hard takes a remote and confirm => true"),
				 errdetail("All rows of its watched tables are deleted on the remote, and copied anew."),
				 errhint("SELECT synchro.reset_schema(%s, soft => false, remote => ..., confirm => true);",
						 quote_literal_cstr(quote_identifier(name)))));
	tables = synchro_registry_schema(PG_GETARG_OID(0));
	target = PG_ARGISNULL(2) ? NULL : synchro_target_get(NameStr(*PG_GETARG_NAME(2)), false);
	synchro_registry_renew(tables);
	if (soft)
	{
		forget_failures(tables, NULL, false);
		synchro_shared_retry_at_commit();
		PG_RETURN_INT64(list_length(tables));
	}
	require_no_node(target);
	forget_failures(tables, target->name, true);
	foreach(cell, tables)
		rows += queue_copy(target, lfirst_oid(cell), false, true);
	PG_RETURN_INT64(rows);
}
