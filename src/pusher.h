/*-------------------------------------------------------------------------
 *
 * pusher.h
 *	  The background worker that pushes to one remote.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PUSHER_H
#define SYNCHRO_PUSHER_H

#include "pass.h"
#include "sharedstate.h"
#include "worker.h"

/*
 * What a caller of synchronize() and the worker started for it share, in
 * dynamic shared memory.  The caller fills in the upper part before the
 * worker starts; the worker the rest, and sets state last, after a barrier.
 */
typedef enum SynchroCallState
{
	SYNCHRO_CALL_RUNNING,
	SYNCHRO_CALL_DONE,
	SYNCHRO_CALL_FAILED
} SynchroCallState;

typedef struct SynchroPusherCall
{
	Oid			database;
	char		server[NAMEDATALEN];
	bool		preview;		/* only a preview; then a queue for its rows follows */

	volatile SynchroCallState state;
	SynchroPassResult result;
	SynchroKeptError error;
} SynchroPusherCall;

#define SYNCHRO_CALL_QUEUE(call)	((char *) (call) + MAXALIGN(sizeof(SynchroPusherCall)))

extern PGDLLEXPORT void synchro_pusher_main(Datum main_arg);

#endif							/* SYNCHRO_PUSHER_H */
