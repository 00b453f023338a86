/*-------------------------------------------------------------------------
 *
 * pushcall.h
 *	  What synchronize() does in the caller's backend: have a worker push,
 *	  and wait for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PUSHCALL_H
#define SYNCHRO_PUSHCALL_H

#include "pass.h"

extern void synchro_pushcall(const SynchroTarget *target, SynchroPassResult *result);

#endif							/* SYNCHRO_PUSHCALL_H */
