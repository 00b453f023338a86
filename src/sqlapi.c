/*-------------------------------------------------------------------------
 *
 * sqlapi.c
 *	  SQL-callable wrappers: arguments, rights, result.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "checkpoint.h"
#include "localsql.h"
#include "registry.h"
#include "sqlapi.h"
#include "tableinfo.h"
#include "target.h"

PG_FUNCTION_INFO_V1(synchro_add_table);
PG_FUNCTION_INFO_V1(synchro_add_schema);
PG_FUNCTION_INFO_V1(synchro_alter_table);
PG_FUNCTION_INFO_V1(synchro_remove_table);
PG_FUNCTION_INFO_V1(synchro_register_natural_key);
PG_FUNCTION_INFO_V1(synchro_unregister_natural_key);
PG_FUNCTION_INFO_V1(synchro_table_mode);
PG_FUNCTION_INFO_V1(synchro_add_remote);
PG_FUNCTION_INFO_V1(synchro_remove_remote);
PG_FUNCTION_INFO_V1(synchro_allow_peer);

/*
 * Error if the caller does not own the relation.
 */
void
synchro_require_relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	class = (Form_pg_class) GETSTRUCT(tuple);
	if (!has_privs_of_role(GetUserId(), class->relowner))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(class->relkind),
					   pstrdup(NameStr(class->relname)));
	ReleaseSysCache(tuple);
}

/*
 * The relation argument of a function that is not STRICT, owned by the
 * caller.
 */
static Oid
relation_argument(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("relation must not be NULL"),
				 errhint("Name a table.")));
	synchro_require_relation_owner(PG_GETARG_OID(n));
	return PG_GETARG_OID(n);
}

/*
 * An argument of type name[] as a list of char *; NULL gives NIL.
 */
static List *
names_argument(FunctionCallInfo fcinfo, int n, const char *argument)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	List	   *names = NIL;

	if (PG_ARGISNULL(n))
		return NIL;
	array = PG_GETARG_ARRAYTYPE_P(n);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be a one-dimensional array", argument),
				 errhint("Write ARRAY['column', ...].")));
	deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not contain NULL", argument),
					 errhint("Name columns.")));
		names = lappend(names, pstrdup(NameStr(*DatumGetName(elements[i]))));
	}
	return names;
}

/*
 * As names_argument(), for a natural key: an empty one is an error.
 */
static List *
key_argument(FunctionCallInfo fcinfo, int n, const char *argument)
{
	List	   *key = names_argument(fcinfo, n, argument);

	if (key == NIL && !PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a natural key needs at least one column"),
				 errhint("Leave the argument out to do without one; synchro.unregister_natural_key takes away one that is registered.")));
	return key;
}

/*
 * synchro.add_table(relation regclass, natural_key name[], skip name[],
 * allow_many boolean)
 */
Datum
synchro_add_table(PG_FUNCTION_ARGS)
{
	Oid			relid = relation_argument(fcinfo, 0);
	List	   *key = key_argument(fcinfo, 1, "natural_key");
	List	   *skip = names_argument(fcinfo, 2, "skip");
	bool		allow_many = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);

	synchro_registry_add(relid, key, skip, allow_many);
	PG_RETURN_VOID();
}

/*
 * synchro.add_schema(schema regnamespace) returns integer
 */
Datum
synchro_add_schema(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(synchro_registry_add_schema(PG_GETARG_OID(0)));
}

/*
 * synchro.alter_table(relation regclass, natural_key name[], skip name[],
 * allow_many boolean): what is NULL stays.
 */
Datum
synchro_alter_table(PG_FUNCTION_ARGS)
{
	Oid			relid = relation_argument(fcinfo, 0);
	SynchroAlteration change = {0};

	change.key = key_argument(fcinfo, 1, "natural_key");
	change.set_skip = !PG_ARGISNULL(2);
	change.skip = names_argument(fcinfo, 2, "skip");
	change.set_allow_many = !PG_ARGISNULL(3);
	change.allow_many = change.set_allow_many && PG_GETARG_BOOL(3);

	synchro_registry_alter(relid, &change);
	PG_RETURN_VOID();
}

/*
 * synchro.remove_table(relation regclass)
 */
Datum
synchro_remove_table(PG_FUNCTION_ARGS)
{
	synchro_registry_remove(relation_argument(fcinfo, 0));
	PG_RETURN_VOID();
}

/*
 * synchro.register_natural_key(relation regclass, columns name[],
 * allow_many boolean)
 */
Datum
synchro_register_natural_key(PG_FUNCTION_ARGS)
{
	Oid			relid = relation_argument(fcinfo, 0);
	List	   *columns = key_argument(fcinfo, 1, "columns");

	if (columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("columns must not be NULL"),
				 errhint("Name the columns that identify a row.")));
	synchro_registry_set_key(relid, columns, !PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	PG_RETURN_VOID();
}

/*
 * synchro.unregister_natural_key(relation regclass)
 */
Datum
synchro_unregister_natural_key(PG_FUNCTION_ARGS)
{
	synchro_registry_unset_key(relation_argument(fcinfo, 0));
	PG_RETURN_VOID();
}

/*
 * synchro.table_mode(relation regclass) returns text; NULL where there is no
 * such table.
 */
Datum
synchro_table_mode(PG_FUNCTION_ARGS)
{
	const SynchroTable *table = synchro_table_get(PG_GETARG_OID(0), true);

	if (table == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(synchro_mode_name(table->mode)));
}

/*
 * synchro.add_remote(server name)
 */
Datum
synchro_add_remote(PG_FUNCTION_ARGS)
{
	synchro_target_add(NameStr(*PG_GETARG_NAME(0)));
	PG_RETURN_VOID();
}

/*
 * synchro.remove_remote(server name)
 */
Datum
synchro_remove_remote(PG_FUNCTION_ARGS)
{
	synchro_target_remove(NameStr(*PG_GETARG_NAME(0)));
	PG_RETURN_VOID();
}

/*
 * allow_peer(role): give a role what it needs to push to this node.
 */
Datum
synchro_allow_peer(PG_FUNCTION_ARGS)
{
	char	   *role = GetUserNameFromId(PG_GETARG_OID(0), false);
	SynchroSqlScope scope;
	StringInfoData sql;
	const char *quoted = quote_identifier(role);

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	initStringInfo(&sql);
	if (!OidIsValid(get_namespace_oid(SYNCHRO_PEER_SCHEMA, true)))
		synchro_peer_tables(&sql, false);
	else if (synchro_sql_run(SYNCHRO_PEER_STRANGERS, 0, NULL, NULL, NULL) > 0)
		ereport(WARNING,
				(errmsg("something of schema \"%s\" belongs to role %s", SYNCHRO_PEER_SCHEMA,
						quote_identifier(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1))),
				 errdetail("Triggers and indexes of his would run as whoever pushes."),
				 errhint("Where nothing was pushed yet, drop the schema and run this again.")));
	appendStringInfo(&sql, "GRANT USAGE ON SCHEMA " SYNCHRO_PEER_SCHEMA ", " SYNCHRO_SCHEMA " TO %s;"
					 "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " SYNCHRO_PEER_SCHEMA " TO %s;",
					 quoted, quoted);
	synchro_sql_run("SELECT string_agg(format('GRANT EXECUTE ON FUNCTION %s TO ', oid::regprocedure) || quote_ident($1), ';')"
					" FROM pg_proc WHERE pronamespace = '" SYNCHRO_SCHEMA "'::regnamespace AND proname LIKE 'peer\\_%'"
					" AND proname <> 'peer_setup'", 1, (Oid[]) {TEXTOID}, (Datum[]) {CStringGetTextDatum(role)}, NULL);
	appendStringInfoString(&sql, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	synchro_sql_script(sql.data);
	synchro_sql_close(&scope);
	PG_RETURN_VOID();
}
