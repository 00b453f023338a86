/*-------------------------------------------------------------------------
 *
 * followers.h
 *	  Rows that are named by another one, which a remote had to make anew.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_FOLLOWERS_H
#define SYNCHRO_FOLLOWERS_H

#include "link.h"

/* rows of one table, as texts of arrays of the same length */
typedef struct SynchroAnew
{
	Oid			relid;
	char	   *identities;
	char	   *stamps;
	char	   *origins;
} SynchroAnew;

/* first column of the result that names them */
#define SYNCHRO_ANEW_TAG		"anew"

extern void synchro_sql_anew(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_followers_touch(const SynchroLink *link, List *anew);

#endif							/* SYNCHRO_FOLLOWERS_H */
