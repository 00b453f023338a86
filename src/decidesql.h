/*-------------------------------------------------------------------------
 *
 * decidesql.h
 *	  SQL text that lets the newer change win, on a remote that logs changes,
 *	  too.  Pure functions of descriptions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_DECIDESQL_H
#define SYNCHRO_DECIDESQL_H

#include "lib/stringinfo.h"
#include "link.h"

/* first column of the result that counts what has lost */
#define SYNCHRO_SKIPPED_TAG		"skipped"

/* the verdict, given stamps of both sides */
#define SYNCHRO_VERDICT(here, there) \
	"CASE WHEN " there ".stamp = " here ".stamp AND " there ".origin = " here ".origin THEN 's'" \
	" WHEN (" there ".stamp, " there ".origin) > (" here ".stamp, " here ".origin) THEN 'l' END::\"char\""

extern void synchro_sql_stage_decisions(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_same_node(StringInfo sql, const SynchroLink *link);
extern void synchro_sql_begin_deciding(StringInfo sql, const SynchroLink *link, const char *seen, int64 uncertainty,
									   const char *named, bool looks);
extern void synchro_sql_decide(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt,
							   bool leftovers, bool careful);
extern void synchro_sql_losers(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, List *tables, bool ensured);
extern void synchro_sql_apply(StringInfo sql, const SynchroLinkTable *lt, bool leftovers);
extern void synchro_sql_winners(StringInfo sql, const SynchroLinkTable *lt, bool leftovers);
extern void synchro_sql_recheck(StringInfo sql);

/* in ghostsql.c */
extern void synchro_sql_ghosts(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt);

/* in referredsql.c */
extern void synchro_sql_referred(StringInfo sql, List *tables, bool leftovers, bool preview);
extern void synchro_sql_returning(StringInfo sql, const SynchroLinkTable *lt);

/* in crosssql.c */
extern void synchro_sql_crossed(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_crossed_references(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_restate(StringInfo sql, const SynchroLinkTable *lt);

/* pieces that it shares */
extern void synchro_decide_identity(StringInfo sql, const SynchroLinkTable *lt, const char *prefix);
extern void synchro_decide_decoded(StringInfo sql, const SynchroLinkTable *lt, const char *prefix, const char *source);

#endif							/* SYNCHRO_DECIDESQL_H */
