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

typedef enum SynchroPushOutcome
{
	SYNCHRO_PUSH_DONE,
	SYNCHRO_PUSH_FAILED,
	SYNCHRO_PUSH_LATE			/* not done in time */
} SynchroPushOutcome;

extern SynchroPushOutcome synchro_pushcall_within(const SynchroTarget *target, long timeout,
												  SynchroPassResult *result, SynchroKeptError *error);
extern bool synchro_pushcall(const SynchroTarget *target, SynchroPassResult *result,
							 SynchroKeptError *error);
extern void synchro_pushcall_censor(SynchroKeptError *error);
pg_noreturn extern void synchro_pushcall_report(SynchroKeptError *error);

#endif							/* SYNCHRO_PUSHCALL_H */
