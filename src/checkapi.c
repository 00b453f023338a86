/*-------------------------------------------------------------------------
 *
 * checkapi.c
 *	  SQL-callable function that tells what is in the way of syncing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "check.h"

PG_FUNCTION_INFO_V1(synchro_check);

/*
 * check(remote): what is in the way, here and on a remote, or on all that are
 * not paused.  Names of tables and columns, no values of rows: whoever may call
 * it may see them all.
 */
Datum
synchro_check(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SynchroFindings findings = {CurrentMemoryContext, NIL};
	List	   *targets;
	ListCell   *cell;
	const char *name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	char	   *tables;

	targets = name != NULL ? list_make1(synchro_target_get(name, false)) : synchro_target_list();
	InitMaterializedSRF(fcinfo, 0);
	tables = synchro_check_here(&findings, name);
	foreach(cell, targets)
		if (name != NULL || !((SynchroTarget *) lfirst(cell))->paused)
			synchro_check_there(&findings, lfirst(cell), tables);
	synchro_finding_sort(&findings);
	foreach(cell, findings.list)
	{
		const SynchroFinding *finding = lfirst(cell);
		Datum		values[4];
		bool		nulls[4] = {0};

		values[0] = CStringGetTextDatum(synchro_finding_severity_name(finding->severity));
		nulls[1] = !OidIsValid(finding->relation);
		values[1] = ObjectIdGetDatum(finding->relation);
		values[2] = CStringGetTextDatum(finding->problem);
		values[3] = CStringGetTextDatum(finding->fix);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
