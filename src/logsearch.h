/*-------------------------------------------------------------------------
 *
 * logsearch.h
 *	  What searches of this node's log for rows of one table have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LOGSEARCH_H
#define SYNCHRO_LOGSEARCH_H

#include "utils/hsearch.h"

#include "logstamp.h"

/* a string or encoded key, and what it stands for */
typedef struct SynchroNamed
{
	SynchroBytes bytes;			/* hash key */
	void	   *what;
} SynchroNamed;

typedef struct SynchroLogSearch
{
	const SynchroTable *table;
	SynchroStamps *stamps;
	HTAB	   *wanted;			/* of SynchroNamed */
	uint64		own;			/* transaction id */
	MemoryContext context;
} SynchroLogSearch;

extern HTAB *synchro_logsearch_table(int size);
extern void synchro_logsearch_begin(SynchroLogSearch *search, const SynchroTable *table, int size,
									SynchroStamps *stamps);
extern bool synchro_logsearch_is_of_table(SynchroLogSearch *search, const SynchroLogRow *row);
extern void synchro_logsearch_latest(TimestampTz since, const SynchroSnapshot *unseen_by,
									 SynchroLogCallback callback, void *arg);
extern void synchro_logsearch_unseen(const SynchroSnapshot *snapshot, SynchroLogCallback callback, void *arg);

#endif							/* SYNCHRO_LOGSEARCH_H */
