/*-------------------------------------------------------------------------
 *
 * ddlhook.c
 *	  Commands on whole databases, and COMMIT PREPARED, as the always-on
 *	  workers are concerned.
 *
 * DROP DATABASE, CREATE DATABASE ... TEMPLATE and some forms of ALTER
 * DATABASE want nobody else to be connected: the pushers of that database are
 * ended first, and the launcher starts them again a little later if the
 * database is still there.  Event triggers do not fire for these commands.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/utility.h"

#include "compat.h"
#include "ddlhook.h"
#include "sharedstate.h"

#define STOP_TIMEOUT	4000	/* ms; PostgreSQL itself then waits five
								 * seconds more */

static ProcessUtility_hook_type previous_hook = NULL;

/*
 * End the pushers of a database and wait until they are gone.
 */
static void
stop_pushers(const char *name)
{
	Oid			database = get_database_oid(name, true);
	List	   *pids;
	int			waited = 0;

	if (!OidIsValid(database))
		return;
	pids = synchro_shared_stop(database, NULL);
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
 * Before the command.
 */
static void
prepare_for(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			stop_pushers(((DropdbStmt *) statement)->dbname);
			synchro_shared_look_at_commit(InvalidOid);
			break;
		case T_CreatedbStmt:
			stop_pushers(template_of((CreatedbStmt *) statement));
			synchro_shared_look_at_commit(InvalidOid);
			break;
		case T_AlterDatabaseStmt:
			stop_pushers(((AlterDatabaseStmt *) statement)->dbname);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				stop_pushers(((RenameStmt *) statement)->subname);
			break;
		case T_TransactionStmt:
			/* what a prepared transaction logged counts from now on */
			if (((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED)
				synchro_shared_wake_at_commit(1);
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
