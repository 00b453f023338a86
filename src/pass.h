/*-------------------------------------------------------------------------
 *
 * pass.h
 *	  One pass: from what is pending to nothing is pending.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PASS_H
#define SYNCHRO_PASS_H

#include "checkpoint.h"

typedef struct SynchroPassResult
{
	SynchroCounts counts;
	bool		had_changes;
	bool		unfinished;		/* stopped between two batches, see there */
	int64		oldest_copy;	/* of the copies that are not done; 0: none */
	int64		newest_copy;	/* of those that the pass knew of */
	TimestampTz next_retry;		/* when something that has failed is to be tried
								 * again; 0: nothing is */
} SynchroPassResult;

extern void synchro_pass_run(SynchroLink *link, SynchroPosition *position,
							 bool all_due, const List *stalled, SynchroPassResult *result);
extern void synchro_pass_add(SynchroPassResult *sum, const SynchroPassResult *part);

#endif							/* SYNCHRO_PASS_H */
