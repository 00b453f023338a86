/*-------------------------------------------------------------------------
 *
 * viewgrants.c
 *	  Whoever may read a view of ours may call the functions that it reads.
 *
 * A view reads tables with the rights of its owner, but calls functions with
 * those of whoever reads it, and ours are revoked from PUBLIC.  So GRANT SELECT
 * on a view grants EXECUTE on its functions as well, and REVOKE takes it back
 * from those who have lost the view by it, unless another view that reads the
 * function can still be read.
 *
 * Who has lost it is seen by comparing: a REVOKE may take nothing, since its caller
 * has not granted anything, and with CASCADE it takes from roles that it does not
 * name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "localsql.h"
#include "synchro.h"
#include "viewgrants.h"

/* which views call which functions, and who may do what; to_regclass: not all are in version 1.0 */
#define HOLDERS \
	"WITH v AS (SELECT pg_catalog.to_regclass('synchro.' || x.view) AS view, x.function" \
	"  FROM (VALUES ('remotes', 'synchro.pusher_status()'), ('progress', 'synchro.pusher_status()')," \
	"  ('metrics_remotes', 'synchro.pusher_status()'), ('changes', 'synchro.log_entries()')," \
	"  ('tables', 'synchro.table_mode(regclass)')) x (view, function))," \
	" readers AS (SELECT v.view, a.grantee FROM v JOIN pg_class c ON c.oid = v.view CROSS JOIN aclexplode(c.relacl) a" \
	"  WHERE a.privilege_type = 'SELECT' AND a.grantee <> c.relowner" \
	"  UNION SELECT v.view, a.grantee FROM v JOIN pg_attribute t ON t.attrelid = v.view CROSS JOIN aclexplode(t.attacl) a" \
	"  WHERE a.privilege_type = 'SELECT')," \
	" reads AS (SELECT DISTINCT v.function, r.grantee FROM v JOIN readers r ON r.view = v.view)," \
	" calls AS (SELECT DISTINCT v.function, a.grantee FROM v JOIN pg_proc p ON p.oid = v.function::regprocedure" \
	"  CROSS JOIN aclexplode(p.proacl) a WHERE a.grantee <> p.proowner)"
#define ROLE	"CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END"

/*
 * Who could read which view when a REVOKE began, as two arrays of OIDs.  It lasts
 * as long as the transaction.
 */
static struct
{
	const GrantStmt *revoke;	/* NULL: none is under way */
	ArrayType  *views;
	ArrayType  *readers;
}			before;

/*
 * Is a GRANT or REVOKE about relations of our schema?
 */
bool
synchro_viewgrants_concern(const GrantStmt *grant)
{
	ListCell   *cell;

	if (grant->objtype != OBJECT_TABLE || grant->targtype == ACL_TARGET_DEFAULTS)
		return false;
	foreach(cell, grant->objects)
	{
		Oid			relid;

		if (grant->targtype == ACL_TARGET_ALL_IN_SCHEMA)
		{
			if (strcmp(strVal(lfirst(cell)), SYNCHRO_SCHEMA) == 0)
				return true;
			continue;
		}
		relid = RangeVarGetRelid((RangeVar *) lfirst(cell), NoLock, true);
		if (OidIsValid(relid) && get_rel_namespace(relid) == get_namespace_oid(SYNCHRO_SCHEMA, true))
			return true;
	}
	return false;
}

/*
 * The roles that a statement names, as an array; 0 is PUBLIC.
 */
static Datum
roles_of(const GrantStmt *grant)
{
	Datum	   *roles = palloc(sizeof(Datum) * Max(list_length(grant->grantees), 1));
	ListCell   *cell;

	foreach(cell, grant->grantees)
	{
		const RoleSpec *role = lfirst(cell);

		roles[foreach_current_index(cell)] =
			ObjectIdGetDatum(role->roletype == ROLESPEC_PUBLIC ? InvalidOid : get_rolespec_oid(role, true));
	}
	return PointerGetDatum(construct_array(roles, list_length(grant->grantees), OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

static void
forget_before(void *arg)
{
	memset(&before, 0, sizeof(before));
}

static ArrayType *
keep_array(Datum array)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	ArrayType  *result = DatumGetArrayTypePCopy(array);

	MemoryContextSwitchTo(old);
	return result;
}

/*
 * A REVOKE begins: note who may read the views.
 */
void
synchro_viewgrants_begin(const GrantStmt *revoke)
{
	MemoryContextCallback *callback = MemoryContextAllocZero(TopTransactionContext, sizeof(MemoryContextCallback));
	SynchroSqlScope scope;
	HeapTuple	tuple;
	TupleDesc	desc;
	bool		isnull;

	forget_before(NULL);
	callback->func = forget_before;
	MemoryContextRegisterResetCallback(TopTransactionContext, callback);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run(HOLDERS " SELECT coalesce(array_agg(view::oid), '{}'), coalesce(array_agg(grantee), '{}') FROM readers",
					0, NULL, NULL, NULL);
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	before.views = keep_array(SPI_getbinval(tuple, desc, 1, &isnull));
	before.readers = keep_array(SPI_getbinval(tuple, desc, 2, &isnull));
	before.revoke = revoke;
	synchro_sql_close(&scope);
}

/*
 * The statements that bring the functions' rights in line with the views',
 * left in SPI_tuptable.  How many there are.
 */
static int
find_statements(const GrantStmt *grant)
{
	Oid			types[] = {OIDARRAYOID, OIDARRAYOID};
	Datum		values[lengthof(types)];

	if (grant->is_grant)
	{
		values[0] = roles_of(grant);
		return (int) synchro_sql_run(HOLDERS " SELECT format('GRANT EXECUTE ON FUNCTION %s TO %s', x.function, " ROLE ")"
									 " FROM (SELECT * FROM reads EXCEPT SELECT * FROM calls) x WHERE x.grantee = ANY ($1)",
									 1, types, values, NULL);
	}
	values[0] = PointerGetDatum(before.views);
	values[1] = PointerGetDatum(before.readers);
	return (int) synchro_sql_run(HOLDERS ", lost AS (SELECT * FROM unnest($1, $2) EXCEPT SELECT view::oid, grantee FROM readers)"
								 " SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM %s', x.function, " ROLE ")"
								 " FROM (SELECT v.function, l.grantee FROM lost l (view, grantee) JOIN v ON v.view = l.view"
								 "  INTERSECT SELECT * FROM calls EXCEPT SELECT * FROM reads) x",
								 lengthof(types), types, values, NULL);
}

/*
 * Bring the functions' rights in line with the views', at the end of a GRANT or
 * REVOKE.
 */
void
synchro_viewgrants_follow(const GrantStmt *grant)
{
	SynchroSqlScope scope;
	int			count;
	char	  **statements;

	/* nobody has noted what was before: until ALTER EXTENSION UPDATE has been run */
	if (!grant->is_grant && before.revoke != grant)
		return;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	count = find_statements(grant);
	statements = palloc(sizeof(char *) * Max(count, 1));
	for (int i = 0; i < count; i++)
		statements[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
	for (int i = 0; i < count; i++)
		synchro_sql_run(statements[i], 0, NULL, NULL, NULL);
	synchro_sql_close(&scope);
}
