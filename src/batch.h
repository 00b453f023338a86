/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  One batch through one remote transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_BATCH_H
#define SYNCHRO_BATCH_H

#include "changeset.h"
#include "checkpoint.h"
#include "rowstream.h"

/* keys of one table in a batch */
typedef struct SynchroBatchKeys
{
	Oid			relid;
	SynchroIdentities *identities;
} SynchroBatchKeys;

/* a row whose delete is sent again */
typedef struct SynchroBatchDead
{
	Oid			relid;
	SynchroChangedKey key;
} SynchroBatchDead;

typedef struct SynchroBatch
{
	SynchroLink *link;
	SynchroPosition *position;
	List	   *keys;			/* of SynchroBatchKeys */
	List	   *dead;			/* of SynchroBatchDead */
	SynchroChangeSet *olds;		/* names of before */
	char	   *seen;			/* what the remote has pushed here, as a
								 * snapshot of it, or NULL */
	List	   *ensured;		/* oids of tables whose missing rows are pushed
								 * when they are referenced */
	char	   *keys_snapshot;	/* when the rows were read */
	char	   *snapshot;		/* where the pass has come to, or NULL */
	bool		only;			/* the pass has no other batch */
	bool		careful;		/* free unique values before they are taken */
	SynchroCounts counts;
	List	   *anew;			/* of SynchroAnew: what the remote made anew */
} SynchroBatch;

extern bool synchro_batch_describe(SynchroBatch *batch);
extern void synchro_batch_read(SynchroBatch *batch);
extern SynchroRemoteError *synchro_batch_apply(SynchroBatch *batch, const char *token, bool commit);

#endif							/* SYNCHRO_BATCH_H */
