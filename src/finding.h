/*-------------------------------------------------------------------------
 *
 * finding.h
 *	  What check() has found.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_FINDING_H
#define SYNCHRO_FINDING_H

#include "nodes/pg_list.h"

/* in the order in which they are shown */
typedef enum SynchroSeverity
{
	SYNCHRO_ERROR,				/* does not work: data does not arrive */
	SYNCHRO_WARNING,			/* slow, or risky */
	SYNCHRO_INFO
} SynchroSeverity;

typedef struct SynchroFinding
{
	SynchroSeverity severity;
	Oid			relation;		/* InvalidOid: of no table in particular */
	char	   *relation_name;
	char	   *problem;
	char	   *fix;
} SynchroFinding;

typedef struct SynchroFindings
{
	MemoryContext context;
	List	   *list;			/* of SynchroFinding */
} SynchroFindings;

extern void synchro_finding_add(SynchroFindings *findings, SynchroSeverity severity, Oid relation,
								const char *problem, const char *fix);
extern SynchroSeverity synchro_finding_severity(const char *name);
extern const char *synchro_finding_severity_name(SynchroSeverity severity);
extern void synchro_finding_sort(SynchroFindings *findings);

#endif							/* SYNCHRO_FINDING_H */
