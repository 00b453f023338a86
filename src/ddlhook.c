/*-------------------------------------------------------------------------
 *
 * ddlhook.c
 *	  Commands that concern the always-on workers, before they run.
 *
 * DROP DATABASE, CREATE DATABASE ... TEMPLATE and some forms of ALTER
 * DATABASE want nobody else to be connected: the pushers of that database are
 * ended first, and started again when the command's transaction has ended,
 * if the database is still there.  So they are for DROP EXTENSION, which would
 * have to wait for what they are doing.  Only a role that may run the command
 * makes us do so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "compat.h"
#include "ddlhook.h"
#include "sharedstate.h"
#include "synchro.h"

#define STOP_TIMEOUT	4000	/* ms; PostgreSQL itself then waits five
								 * seconds more */

static ProcessUtility_hook_type previous_hook = NULL;

/*
 * End the pushers of a database and wait until they are gone.
 */
static void
stop_pushers(Oid database)
{
	List	   *pids = synchro_shared_stop(database);
	int			waited = 0;

	while (pids != NIL && waited < STOP_TIMEOUT)
	{
		List	   *left = NIL;
		ListCell   *cell;

		foreach(cell, pids)
		{
			if (BackendPidGetProc(lfirst_int(cell)) == NULL)
				continue;
			if (waited == 0)
				kill(lfirst_int(cell), SIGTERM);
			left = lappend_int(left, lfirst_int(cell));
		}
		pids = left;
		if (pids == NIL)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 synchro_wait_worker());
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		waited += 10;
	}
}

static const char *
template_of(const CreatedbStmt *statement)
{
	ListCell   *cell;

	foreach(cell, statement->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return "template1";
}

/*
 * May the current user make a database that is a copy of this one, which others own?
 * The server's own functions are not exported by all minor versions.
 */
static bool
may_copy_database(Oid database)
{
	HeapTuple	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	HeapTuple	template = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result = HeapTupleIsValid(role) && HeapTupleIsValid(template) &&
		((Form_pg_authid) GETSTRUCT(role))->rolcreatedb && ((Form_pg_database) GETSTRUCT(template))->datistemplate;

	if (HeapTupleIsValid(role))
		ReleaseSysCache(role);
	if (HeapTupleIsValid(template))
		ReleaseSysCache(template);
	return result;
}

/*
 * A command wants to be alone with a database.
 */
static void
leave_alone(const char *name, bool may_copy)
{
	Oid			database = get_database_oid(name, true);

	if (OidIsValid(database) &&
		(synchro_database_ownercheck(database, GetUserId()) ||
		 (may_copy && may_copy_database(database))))
		stop_pushers(database);
}

static bool
has_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
		if (strcmp(((DefElem *) lfirst(cell))->defname, name) == 0)
			return true;
	return false;
}

/*
 * DROP of objects that are not databases.
 */
static void
prepare_for_drop(DropStmt *drop)
{
	ListCell   *cell;

	if (drop->removeType != OBJECT_EXTENSION)
		return;
	foreach(cell, drop->objects)
	{
		Oid			extension = get_extension_oid(strVal(lfirst(cell)), true);

		if (strcmp(strVal(lfirst(cell)), SYNCHRO_EXTENSION) != 0 ||
			!synchro_extension_ownercheck(extension, GetUserId()))
			continue;
		stop_pushers(MyDatabaseId);
		synchro_shared_look_at_commit(MyDatabaseId);
	}
}

/*
 * Commands on databases.
 */
static void
prepare_for_database(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			leave_alone(((DropdbStmt *) statement)->dbname, false);
			break;
		case T_CreatedbStmt:
			leave_alone(template_of((CreatedbStmt *) statement), true);
			break;
		case T_AlterDatabaseStmt:
			if (has_option(((AlterDatabaseStmt *) statement)->options, "tablespace"))
				leave_alone(((AlterDatabaseStmt *) statement)->dbname, false);
			break;
		case T_RenameStmt:
			leave_alone(((RenameStmt *) statement)->subname, false);
			break;
		default:
			break;
	}

	/* there may be one more, one less, or one that can be connected to now */
	synchro_shared_look_at_commit(InvalidOid);
}

/*
 * Before the command.
 */
static void
prepare_for(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
			prepare_for_database(statement);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				prepare_for_database(statement);
			break;
		case T_DropStmt:
			prepare_for_drop((DropStmt *) statement);
			break;
		case T_CreateExtensionStmt:
			/* its log is to be looked after, though there is no remote yet */
			if (strcmp(((CreateExtensionStmt *) statement)->extname, SYNCHRO_EXTENSION) == 0)
				synchro_shared_look_at_commit(MyDatabaseId);
			break;
		case T_AlterForeignServerStmt:
		case T_CreateUserMappingStmt:
		case T_AlterUserMappingStmt:
			synchro_shared_retry_at_commit();
			break;
		case T_TransactionStmt:
			if (((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED)
				synchro_shared_prepared_at_commit();
			break;
		default:
			break;
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	prepare_for(pstmt->utilityStmt);
	if (previous_hook)
		previous_hook(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv,
								dest, qc);
}

/*
 * Install the hook; called when the postmaster preloads the library.
 */
void
synchro_ddlhook_init(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
