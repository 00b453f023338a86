/*-------------------------------------------------------------------------
 *
 * compare.h
 *	  Compares a table's rows here with those of the remote, by natural key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_COMPARE_H
#define SYNCHRO_COMPARE_H

#include "contentsql.h"

/* a table as it is compared */
typedef struct SynchroComparison
{
	SynchroLink *link;
	const SynchroLinkTable *lt;
	SynchroContent *here;
	SynchroContent *there;
	bool		fast;			/* both servers hash text alike */
} SynchroComparison;

/* keys' hashes that differ in a first look, ascending */
typedef struct SynchroSuspects
{
	int64	   *hashes;
	int64		count;
	int64		allocated;
} SynchroSuspects;

/* one row on one side; all but the hash are NULL where there is none */
typedef struct SynchroComparedRow
{
	char	   *shown;			/* its key */
	char	   *identity;		/* text of an array of text */
	char	   *version;		/* another one after each change of the row */
	char	  **values;			/* as in SynchroContent */
} SynchroComparedRow;

typedef void (*SynchroCompareCallback) (int64 hash, const SynchroComparedRow *here,
										const SynchroComparedRow *there, void *arg);

extern void synchro_compare_prepare(SynchroLink *link, Oid relid);
extern List *synchro_compare_parents(const SynchroLinkTable *lt);
extern SynchroComparison *synchro_compare_table(SynchroLink *link, Oid relid);
extern void synchro_compare_first(const SynchroComparison *comparison, SynchroSuspects *suspects);
extern void synchro_compare_again(const SynchroComparison *comparison, const int64 *hashes, int count,
								  SynchroCompareCallback callback, void *arg);

#endif							/* SYNCHRO_COMPARE_H */
