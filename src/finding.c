/*-------------------------------------------------------------------------
 *
 * finding.c
 *	  What check() has found.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "finding.h"

static const char *const severities[] = {
	[SYNCHRO_ERROR] = "error",
	[SYNCHRO_WARNING] = "warning",
	[SYNCHRO_INFO] = "info"
};

/*
 * Add a finding; all is copied.
 *
 * fix: SQL that mends it, or an SQL comment that says what does.
 */
void
synchro_finding_add(SynchroFindings *findings, SynchroSeverity severity, Oid relation,
					const char *problem, const char *fix)
{
	MemoryContext old = MemoryContextSwitchTo(findings->context);
	SynchroFinding *finding = palloc(sizeof(SynchroFinding));
	char	   *schema = OidIsValid(relation) ? get_namespace_name(get_rel_namespace(relation)) : NULL;

	finding->severity = severity;
	finding->relation = relation;
	finding->relation_name = schema == NULL ? "" : psprintf("%s.%s", schema, get_rel_name(relation));
	finding->problem = pstrdup(problem);
	finding->fix = pstrdup(fix);
	findings->list = lappend(findings->list, finding);
	MemoryContextSwitchTo(old);
}

SynchroSeverity
synchro_finding_severity(const char *name)
{
	for (int i = 0; i < lengthof(severities); i++)
		if (strcmp(severities[i], name) == 0)
			return i;
	elog(ERROR, "unknown severity \"%s\"", name);
}

const char *
synchro_finding_severity_name(SynchroSeverity severity)
{
	return severities[severity];
}

static int
compare_findings(const ListCell *a, const ListCell *b)
{
	const SynchroFinding *x = lfirst(a);
	const SynchroFinding *y = lfirst(b);
	int			order = (int) x->severity - (int) y->severity;

	if (order == 0)
		order = strcmp(x->relation_name, y->relation_name);
	return order != 0 ? order : strcmp(x->problem, y->problem);
}

/*
 * Put them in the order in which they are shown: the worst first, then by
 * table; what is of no table in particular before the others.
 */
void
synchro_finding_sort(SynchroFindings *findings)
{
	list_sort(findings->list, compare_findings);
}
