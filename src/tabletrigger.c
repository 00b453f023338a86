/*-------------------------------------------------------------------------
 *
 * tabletrigger.c
 *	  A table's triggers of ours: looked for, made and dropped one by one.
 *
 * Which ones a table is to have watchtrigger.c knows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "localsql.h"
#include "reader.h"
#include "tableinfo.h"
#include "tabletrigger.h"

/*
 * Oid of one of our trigger functions; InvalidOid while the extension is on
 * its way in or out.
 */
Oid
synchro_tabletrigger_function(const char *name)
{
	Oid			schema = get_namespace_oid(SYNCHRO_SCHEMA, true);
	oidvector  *no_arguments = buildoidvector(NULL, 0);

	if (!OidIsValid(schema))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(name), PointerGetDatum(no_arguments),
						   ObjectIdGetDatum(schema));
}

/*
 * Does a trigger go with the extension when that is dropped?
 */
bool
synchro_tabletrigger_goes_with_extension(Oid trigger)
{
	return list_member_oid(getAutoExtensionsOfObject(TriggerRelationId, trigger),
						   synchro_extension_oid());
}

static SysScanDesc
begin_trigger_scan(Relation rel, Oid relid, const char *name)
{
	ScanKeyData key[2];

	ScanKeyInit(&key[0], Anum_pg_trigger_tgrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&key[1], Anum_pg_trigger_tgname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(name));
	return systable_beginscan(rel, TriggerRelidNameIndexId, true, NULL, 2, key);
}

/*
 * The function that a table's trigger of the given name runs; InvalidOid if
 * there is no such trigger.  Needs no lock of the table.
 */
Oid
synchro_tabletrigger_runs(Oid relid, const char *name)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = begin_trigger_scan(rel, relid, name);
	HeapTuple	tuple = systable_getnext(scan);
	Oid			function = InvalidOid;

	if (HeapTupleIsValid(tuple))
		function = ((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return function;
}

static void
enable_always(Oid relid, const char *name)
{
	SynchroSqlScope scope;
	SynchroReader owner;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_reader_begin_as_owner(&owner, relid);
	synchro_sql_run(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
							 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid)), name),
					0, NULL, NULL, NULL);
	synchro_reader_end(&owner);
	synchro_sql_close(&scope);
}

static bool
fires_on_origin_only(Oid relid, const char *name, const char *function)
{
	Oid			ours = synchro_tabletrigger_function(function);
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = begin_trigger_scan(rel, relid, name);
	HeapTuple	tuple = systable_getnext(scan);
	bool		result;

	result = HeapTupleIsValid(tuple) && OidIsValid(ours) &&
		((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid == ours &&
		((Form_pg_trigger) GETSTRUCT(tuple))->tgenabled == TRIGGER_FIRES_ON_ORIGIN;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Have our triggers of a table and its partitions fire for replicated rows,
 * too, where all triggers have been switched on: that is less than they had
 * before they were switched off.  Locks what the command has locked.
 */
void
synchro_tabletrigger_fire_always(Oid relid)
{
	static const char *const triggers[][2] = {
		{SYNCHRO_ROW_TRIGGER, SYNCHRO_ROW_FUNCTION}, {SYNCHRO_TRUNCATE_TRIGGER, SYNCHRO_TRUNCATE_FUNCTION}
	};
	bool		has_parts = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE;
	List	   *tables = has_parts ? find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
	ListCell   *cell;

	foreach(cell, tables)
	{
		for (int i = 0; i < lengthof(triggers); i++)
			if (fires_on_origin_only(lfirst_oid(cell), triggers[i][0], triggers[i][1]))
				enable_always(lfirst_oid(cell), triggers[i][0]);
	}
}

/*
 * Has a table our row trigger, of its own or as a partition?
 */
bool
synchro_tabletrigger_present(Oid relid)
{
	Oid			function = synchro_tabletrigger_runs(relid, SYNCHRO_ROW_TRIGGER);

	return OidIsValid(function) && function == synchro_tabletrigger_function(SYNCHRO_ROW_FUNCTION);
}

/*
 * Has it that of a watched table, its own?
 */
bool
synchro_tabletrigger_is_watched(Oid relid)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = begin_trigger_scan(rel, relid, SYNCHRO_ROW_TRIGGER);
	HeapTuple	tuple = systable_getnext(scan);
	Form_pg_trigger trigger = HeapTupleIsValid(tuple) ? (Form_pg_trigger) GETSTRUCT(tuple) : NULL;
	bool		result;

	result = trigger != NULL && trigger->tgfoid == synchro_tabletrigger_function(SYNCHRO_ROW_FUNCTION) &&
		trigger->tgtype == SYNCHRO_TYPE_WATCHED && !OidIsValid(trigger->tgparentid);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Error if there is a trigger of the given name that runs another function:
 * CREATE OR REPLACE would take it away from its owner.
 */
static void
refuse_foreign_trigger(Oid relid, const char *name, Oid function)
{
	Oid			present = synchro_tabletrigger_runs(relid, name);

	if (OidIsValid(present) && present != function)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("trigger \"%s\" on table \"%s\" is not one of synchro's",
						name, get_rel_name(relid)),
				 errhint("Rename it: synchro makes a trigger of that name.")));
}

/*
 * Have it seen what triggers a table has now, and a partition's root has by it.
 */
static void
forget_triggers(Oid relid)
{
	Oid			root = synchro_table_covering(relid);

	CacheInvalidateRelcacheByRelid(relid);
	if (root != relid)
		CacheInvalidateRelcacheByRelid(root);

	/* which table its partitions' rows are known under depends on it, too */
	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		synchro_table_forget_referring(relid);
}

/*
 * Make one trigger, or put it right.  As the table's owner, whoever has asked
 * for it: DDL of a partitioned table evaluates its partition key's expressions.
 */
void
synchro_tabletrigger_make(Oid relid, int16 type)
{
	bool		truncate = type == SYNCHRO_TYPE_TRUNCATE;
	const char *name = truncate ? SYNCHRO_TRUNCATE_TRIGGER : SYNCHRO_ROW_TRIGGER;
	const char *function = truncate ? SYNCHRO_TRUNCATE_FUNCTION : SYNCHRO_ROW_FUNCTION;
	const char *events = truncate ? "BEFORE TRUNCATE" :
		type == SYNCHRO_TYPE_KEY_ONLY ? "AFTER UPDATE OR DELETE" : "AFTER INSERT OR UPDATE OR DELETE";
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												   get_rel_name(relid));
	SynchroSqlScope scope;
	SynchroReader owner;

	refuse_foreign_trigger(relid, name, synchro_tabletrigger_function(function));

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_reader_begin_as_owner(&owner, relid);
	synchro_sql_run(psprintf("CREATE OR REPLACE TRIGGER %s %s ON %s FOR EACH %s"
							 " EXECUTE FUNCTION " SYNCHRO_SCHEMA ".%s()",
							 name, events, table, truncate ? "STATEMENT" : "ROW", function),
					0, NULL, NULL, NULL);
	synchro_sql_run(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", table, name),
					0, NULL, NULL, NULL);
	synchro_sql_run(psprintf("ALTER TRIGGER %s ON %s DEPENDS ON EXTENSION " SYNCHRO_EXTENSION,
							 name, table),
					0, NULL, NULL, NULL);
	synchro_reader_end(&owner);
	synchro_sql_close(&scope);
	forget_triggers(relid);
}

/*
 * Drop it, if it is there still, nor is its table gone.
 */
void
synchro_tabletrigger_drop(Oid relid, const char *trigger)
{
	char	   *name = get_rel_name(relid);
	SynchroSqlScope scope;
	SynchroReader owner;

	if (name == NULL)
		return;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_reader_begin_as_owner(&owner, relid);
	synchro_sql_run(psprintf("DROP TRIGGER IF EXISTS %s ON %s", quote_identifier(trigger),
							 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
														name)),
					0, NULL, NULL, NULL);
	synchro_reader_end(&owner);
	synchro_sql_close(&scope);
	forget_triggers(relid);
}
