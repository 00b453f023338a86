/*-------------------------------------------------------------------------
 *
 * verifyapi.c
 *	  SQL-callable functions that compare with a remote.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/tuplestore.h"

#include "capturebuffer.h"
#include "compat.h"
#include "identities.h"
#include "localsql.h"
#include "peerlog.h"
#include "rowerror.h"
#include "verify.h"

PG_FUNCTION_INFO_V1(synchro_verify);
PG_FUNCTION_INFO_V1(synchro_requeue);

/*
 * Keys and values of rows are for those who may read them.
 */
static void
require_select(Oid relid)
{
	AclResult	result = pg_class_aclcheck(relid, GetUserId(), ACL_SELECT);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, get_relkind_objtype(get_rel_relkind(relid)), get_rel_name(relid));
	if (check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("rows of table \"%s\" are hidden from you by a policy", get_rel_name(relid)),
				 errhint("Have a role that bypasses row security compare it.")));
}

/*
 * The same for these tables, and all whose names are in their keys.
 */
static void
require_select_on_names(List *tables)
{
	ListCell   *cell;

	foreach(cell, synchro_table_with_names(tables))
		require_select(lfirst_oid(cell));
}

/*
 * Tables without a key that tells rows apart cannot be compared row by row.
 */
static List *
leave_out_keyless(List *tables)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, tables)
	{
		const SynchroTable *table = synchro_table_get(lfirst_oid(cell), false);

		if (table->mode != SYNCHRO_MODE_NONE)
			result = lappend_oid(result, lfirst_oid(cell));
		else
			ereport(NOTICE,
					(errmsg("table %s has lost its key and is left out", table->qualified),
					 errhint("Name another one: SELECT synchro.alter_table(%s, natural_key => ...).",
							 quote_literal_cstr(table->qualified))));
	}
	return result;
}

/*
 * The watched tables that are meant: one, or all; in the current memory
 * context.
 */
static List *
tables_of(FunctionCallInfo fcinfo, int n)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(PG_ARGISNULL(n) ? InvalidOid : PG_GETARG_OID(n));
	SynchroSqlScope scope;
	List	   *result;

	if (!PG_ARGISNULL(n) && get_rel_name(PG_GETARG_OID(n)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", PG_GETARG_OID(n))));
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	result = synchro_sql_oids("SELECT w.relation::oid FROM synchro.watched w JOIN pg_class c ON c.oid = w.relation"
							  " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE $1 = 0 OR c.oid = $1"
							  " ORDER BY n.nspname, c.relname", 1, &type, &value, context);
	synchro_sql_close(&scope);
	if (result == NIL && !PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not watched", get_rel_name(PG_GETARG_OID(n))),
				 synchro_table_root(PG_GETARG_OID(n)) != PG_GETARG_OID(n) ?
				 errhint("It is a partition: name the table that is watched.") :
				 errhint("Run synchro.add_table() for it.")));
	return result;
}

/*
 * Compare one of all tables.  False if that cannot be done with it as it is, which
 * a notice has said, or it has been dropped: then the link is not to be used any more.
 * It may wait for an answer, and has the table among its own.
 */
static bool
verify_or_leave_out(SynchroLink *link, Oid relid, SynchroDifferenceCallback callback, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	char	   *schema;
	char	   *name;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		synchro_verify_table(link, relid, callback, arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		error = synchro_undo_subtransaction(context, owner);

		/* a table as it is, here or on the remote, is no reason not to compare others */
		if (!synchro_error_is_about_definitions(unpack_sql_state(error->sqlerrcode)))
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error == NULL)
		return true;

	/* nothing locks the tables that are still to come: one may be gone by now */
	schema = get_namespace_name(get_rel_namespace(relid));
	name = get_rel_name(relid);
	if (schema != NULL && name != NULL)
		ereport(NOTICE,
				(errmsg("table %s cannot be compared with remote \"%s\" and is left out",
						quote_qualified_identifier(schema, name), link->target->name),
				 errdetail("The error is: %s.", error->message),
				 error->hint != NULL ? errhint("%s", error->hint) : 0));
	FreeErrorData(error);
	return false;
}

/*
 * Compare what the arguments of verify() and requeue() say.
 */
static void
verify(FunctionCallInfo fcinfo, const char *function, SynchroDifferenceCallback callback, void *arg)
{
	SynchroTarget *target;
	SynchroLink *volatile link;
	List	   *tables;
	ListCell   *cell;

	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("remote must not be NULL"),
				 errhint("Name a remote; view synchro.remotes lists them.")));
	target = synchro_target_get(NameStr(*PG_GETARG_NAME(0)), false);
	tables = leave_out_keyless(tables_of(fcinfo, 1));
	require_select_on_names(tables);
	if (target->paused)
		ereport(NOTICE,
				(errmsg("remote \"%s\" is paused, so what is pending is shown as different", target->name),
				 errhint("To have it pushed first: SELECT synchro.resume(%s);", quote_literal_cstr(target->name))));
	else if (synchro_buffer_pending())
		ereport(NOTICE,
				(errmsg("changes of this transaction are not committed yet, so they are shown as different"),
				 errhint("Commit before you call %s.", "verify()")));
	link = synchro_verify_open(target);
	PG_TRY();
	{
		foreach(cell, tables)
		{
			SynchroLink *former = link;

			if (!PG_ARGISNULL(1))
				synchro_verify_table(link, lfirst_oid(cell), callback, arg);
			else if (!verify_or_leave_out(link, lfirst_oid(cell), callback, arg))
			{
				link = synchro_verify_connect(target);
				synchro_link_close(former);
			}
		}
	}
	PG_FINALLY();
	{
		synchro_link_close(link);
	}
	PG_END_TRY();
}

static void
put_difference(const SynchroDifference *difference, void *arg)
{
	static const char *const kinds[] = {
		[SYNCHRO_MISSING] = "missing",
		[SYNCHRO_DIFFERENT] = "different",
		[SYNCHRO_EXTRA] = "extra"
	};
	ReturnSetInfo *rsinfo = arg;
	Datum	   *columns = palloc(sizeof(Datum) * Max(list_length(difference->columns), 1));
	Datum		values[4];
	bool		nulls[4] = {0};

	for (int i = 0; i < list_length(difference->columns); i++)
		columns[i] = CStringGetTextDatum(list_nth(difference->columns, i));
	values[0] = ObjectIdGetDatum(difference->table->relid);
	values[1] = CStringGetTextDatum(difference->shown);
	values[2] = CStringGetTextDatum(kinds[difference->kind]);
	values[3] = PointerGetDatum(construct_array(columns, list_length(difference->columns), TEXTOID, -1, false, TYPALIGN_INT));
	nulls[3] = difference->kind != SYNCHRO_DIFFERENT;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * verify(remote, relation): the rows of a watched table, or of all, that differ
 * from the remote's.
 */
Datum
synchro_verify(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	verify(fcinfo, "verify()", put_difference, fcinfo->resultinfo);
	return (Datum) 0;
}

/* what requeue() found: rows of (oid, text), on disk beyond work_mem */
typedef struct Requeuer
{
	TupleDesc	desc;
	Tuplestorestate *rows;
} Requeuer;

static void
note_row(const SynchroDifference *difference, void *arg)
{
	Requeuer   *requeuer = arg;
	Datum		values[2];
	bool		nulls[2] = {0};

	if (difference->identity == NULL)
		return;
	values[0] = ObjectIdGetDatum(difference->table->relid);
	values[1] = CStringGetTextDatum(difference->identity);
	tuplestore_putvalues(requeuer->rows, requeuer->desc, values, nulls);
}

static void
log_row(TupleTableSlot *slot)
{
	const SynchroTable *table;

	slot_getallattrs(slot);
	table = synchro_table_get(DatumGetObjectId(slot->tts_values[0]), false);
	synchro_buffer_touch(table->relid, table->layout,
						 synchro_identities_encode_text(table, table->identity, table->nidentity,
												TextDatumGetCString(slot->tts_values[1])));
}

/*
 * requeue(remote, relation): log the rows that are missing on the remote, or
 * different there, as changed now.  Returns how many.
 *
 * All are found before the first is logged: from then on this transaction's own
 * log entries would keep the log's segments from being emptied, and have been
 * announced as pending.
 */
Datum
synchro_requeue(PG_FUNCTION_ARGS)
{
	Requeuer	requeuer;
	MemoryContext context;
	MemoryContext old;
	TupleTableSlot *slot;
	int64		count = 0;

	requeuer.desc = CreateTemplateTupleDesc(2);
	TupleDescInitEntry(requeuer.desc, 1, "relation", OIDOID, -1, 0);
	TupleDescInitEntry(requeuer.desc, 2, "identity", TEXTOID, -1, 0);
	synchro_finish_tupledesc(requeuer.desc);
	requeuer.rows = tuplestore_begin_heap(false, false, work_mem);
	verify(fcinfo, "requeue()", note_row, &requeuer);

	context = AllocSetContextCreate(CurrentMemoryContext, "synchro requeued row", ALLOCSET_SMALL_SIZES);
	slot = MakeSingleTupleTableSlot(requeuer.desc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(requeuer.rows, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(context);
		log_row(slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		count++;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(requeuer.rows);
	MemoryContextDelete(context);
	PG_RETURN_INT64(count);
}
