/*-------------------------------------------------------------------------
 *
 * checksql.h
 *	  SQL text: what check() looks for, on either side.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CHECKSQL_H
#define SYNCHRO_CHECKSQL_H

typedef enum SynchroCheckSide
{
	SYNCHRO_CHECK_HERE,
	SYNCHRO_CHECK_THERE,		/* on the remote */
	SYNCHRO_CHECK_PEER			/* on a remote that is a node, besides */
} SynchroCheckSide;

/*
 * A probe's columns: severity, oid of the table here or NULL, problem, fix,
 * and whether the fix is to be run on the side where the probe is.  If not, it is
 * no SQL, since a remote may say what it likes, but the name of the trigger here
 * that is concerned, or NULL.  $1: what synchro_check_tables_sql() gives.  $2: the
 * name of the remote; here, NULL for all.
 */
enum
{
	PROBE_SEVERITY, PROBE_RELATION, PROBE_PROBLEM, PROBE_FIX, PROBE_FIX_IS_HERE, PROBE_COLUMNS
};

extern const char *synchro_check_tables_sql(void);
extern const char *synchro_check_trigger_sql(void);
extern const char *const *synchro_check_probes(SynchroCheckSide side);

#endif							/* SYNCHRO_CHECKSQL_H */
