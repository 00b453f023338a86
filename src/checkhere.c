/*-------------------------------------------------------------------------
 *
 * checkhere.c
 *	  What is in the way of syncing on this side.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#include "check.h"
#include "checksql.h"
#include "localsql.h"
#include "sharedstate.h"

/* servers start with at least as many, unless told otherwise */
#define USUAL_WORKERS	8

/*
 * The library is not preloaded: pushing is on call only.
 */
static void
check_preload(SynchroFindings *findings)
{
	StringInfoData fix;
	List	   *libraries = NIL;
	ListCell   *cell;

	if (synchro_shared_available())
		return;
	initStringInfo(&fix);
	appendStringInfoString(&fix, "ALTER SYSTEM SET shared_preload_libraries = ");
	(void) SplitDirectoriesString(pstrdup(shared_preload_libraries_string), ',', &libraries);
	foreach(cell, libraries)
		appendStringInfo(&fix, "%s, ", quote_literal_cstr(lfirst(cell)));
	appendStringInfoString(&fix, "'synchro';\n-- then restart the server");
	synchro_finding_add(findings, SYNCHRO_INFO, InvalidOid,
						"the library is not preloaded: changes are pushed by calls of synchronize() only", fix.data);
}

/*
 * Are there workers enough, for this database's remotes at least?
 */
static void
check_workers(SynchroFindings *findings)
{
	int			needed = 1;
	ListCell   *cell;

	/* PostgreSQL's own takes one */
	if (strcmp(GetConfigOption("max_logical_replication_workers", false, false), "0") != 0)
		needed++;
	if (synchro_shared_available())
		foreach(cell, synchro_target_list())
			needed += ((SynchroTarget *) lfirst(cell))->paused ? 0 : 1;
	if (max_worker_processes >= needed)
		return;
	synchro_finding_add(findings, SYNCHRO_ERROR, InvalidOid,
						psprintf("max_worker_processes is %d, but at least %d background workers are needed", max_worker_processes, needed),
						psprintf("ALTER SYSTEM SET max_worker_processes = %d;\n-- then restart the server", Max(needed + 2, USUAL_WORKERS)));
}

static char *
value_of(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column + 1);
}

/*
 * Look for everything on this side.
 *
 * remote: what concerns one remote only is looked for of this one; NULL: of
 * all.  Returns a description of the tables for synchro_check_there(), in the
 * findings' context.
 */
char *
synchro_check_here(SynchroFindings *findings, const char *remote)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];
	bool		nulls[] = {false, remote == NULL};
	SynchroSqlScope scope;
	char	   *tables;

	check_preload(findings);
	check_workers(findings);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);

	/* catalogs are small, but that is not what the planner makes of such queries */
	(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	/* names of types and all are compared with the remote's */
	(void) set_config_option("quote_all_identifiers", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	synchro_sql_run(synchro_check_tables_sql(), 0, NULL, NULL, NULL);
	tables = MemoryContextStrdup(findings->context, value_of(0, 0));
	values[0] = CStringGetTextDatum(tables);
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(remote);
	for (const char *const *probe = synchro_check_probes(SYNCHRO_CHECK_HERE); *probe != NULL; probe++)
	{
		uint64		rows = synchro_sql_run(*probe, lengthof(types), types, values, nulls);

		for (uint64 i = 0; i < rows; i++)
		{
			char	   *relation = value_of(i, PROBE_RELATION);

			synchro_finding_add(findings, synchro_finding_severity(value_of(i, PROBE_SEVERITY)),
								relation != NULL ? (Oid) strtoul(relation, NULL, 10) : InvalidOid,
								value_of(i, PROBE_PROBLEM), value_of(i, PROBE_FIX));
		}
		SPI_freetuptable(SPI_tuptable);
	}
	synchro_sql_close(&scope);
	return tables;
}
