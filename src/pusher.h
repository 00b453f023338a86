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

extern void synchro_pusher_call(const SynchroTarget *target, SynchroPassResult *result);
extern PGDLLEXPORT void synchro_pusher_main(Datum main_arg);

#endif							/* SYNCHRO_PUSHER_H */
