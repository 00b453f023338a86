/*-------------------------------------------------------------------------
 *
 * pushlink.h
 *	  A pusher's link to its remote: passes over it, and what an error leaves.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PUSHLINK_H
#define SYNCHRO_PUSHLINK_H

#include "storage/lock.h"

#include "pass.h"
#include "preview.h"
#include "sharedstate.h"

/* all zero at first, but for the upper part */
typedef struct SynchroPushLink
{
	char		server[NAMEDATALEN];
	MemoryContext context;		/* of the push at hand */
	SynchroPreview *preview;	/* only that is made; else NULL */

	SynchroLink *link;			/* NULL: not connected */
	bool		fresh;			/* no pass has gone over the link yet */
	char	   *token;			/* the position that the link has seen */
	bool		locked;
	LOCKTAG		lock;
	TimestampTz next_retry;		/* of what has failed; 0: nothing has */

	/* after an error */
	bool		littered;		/* temporary files could not be removed */
	Oid			suspect;		/* the table that it was about */
	List	   *stalled;		/* such tables since the last pass that came to its end */
} SynchroPushLink;

extern void synchro_pushlink_say(SynchroPusherState state);
extern void synchro_pushlink_push(SynchroPushLink *push, bool all_due, SynchroPassResult *result);
extern void synchro_pushlink_recover(SynchroPushLink *push, SynchroKeptError *kept, bool *lost);
extern void synchro_pushlink_forget_stalled(SynchroPushLink *push);
extern bool synchro_pushlink_may_stall(const SynchroPushLink *push);
extern bool synchro_pushlink_stall(SynchroPushLink *push, const SynchroKeptError *error);
extern void synchro_pushlink_close(SynchroPushLink *push);

#endif							/* SYNCHRO_PUSHLINK_H */
