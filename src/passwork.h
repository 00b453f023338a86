/*-------------------------------------------------------------------------
 *
 * passwork.h
 *	  A pass at work: what pass.c and quarantine.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PASSWORK_H
#define SYNCHRO_PASSWORK_H

#include "batch.h"
#include "parked.h"

typedef struct SynchroPass
{
	MemoryContext context;
	SynchroLink *link;
	SynchroPosition *position;
	bool		shared;			/* the transaction of collecting is still open,
								 * for the first batch */
	SynchroChangeSet *changes;	/* since the position's snapshot */
	char	   *snapshot;		/* S1 */
	TimestampTz started;		/* when S1 was taken */
	List	   *order;			/* changed tables, parents first */
	int			current;		/* the one whose keys are being taken */
	SynchroIdentities *again;	/* of its keys, those that have failed before;
								 * NULL: none so far */
	List	   *ensured;		/* tables whose missing rows are pushed along */
	MemoryContext batch_context;
	SynchroCounts counts;
	int64		keys_done;
	bool		all_due;		/* whatever is parked is to be tried */
	SynchroParkedSet *parked;
	int			nesting;		/* parents that are pushed for children */
} SynchroPass;

/* in pass.c */
extern SynchroBatch *synchro_pass_batch(SynchroPass *pass);
extern SynchroRemoteError *synchro_pass_push(SynchroPass *pass, SynchroBatch *batch, bool final);
extern SynchroRemoteError *synchro_pass_try(SynchroPass *pass, SynchroBatch *batch);

/* in quarantine.c */
extern bool synchro_quarantine_again(SynchroPass *pass, SynchroBatch *batch,
									 SynchroRemoteError *error, int *retries);
extern void synchro_quarantine_divide(SynchroPass *pass, SynchroBatch *batch,
									  SynchroRemoteError *error, bool final);

#endif							/* SYNCHRO_PASSWORK_H */
