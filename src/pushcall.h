/*-------------------------------------------------------------------------
 *
 * pushcall.h
 *	  What synchronize() and preview() do in the caller's backend: have a
 *	  worker push, or show what it would push, and wait for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PUSHCALL_H
#define SYNCHRO_PUSHCALL_H

#include "pass.h"
#include "previewqueue.h"

typedef enum SynchroPushOutcome
{
	SYNCHRO_PUSH_DONE,
	SYNCHRO_PUSH_FAILED,
	SYNCHRO_PUSH_LATE			/* not done in time */
} SynchroPushOutcome;

extern List *synchro_pushcall_targets(const char *name);
extern SynchroPushOutcome synchro_pushcall_within(const SynchroTarget *target, long timeout,
												  SynchroPassResult *result, SynchroKeptError *error);
extern bool synchro_pushcall(const SynchroTarget *target, SynchroPassResult *result,
							 SynchroKeptError *error);
extern bool synchro_pushcall_preview(const SynchroTarget *target, SynchroPreviewCallback callback, void *arg,
									 SynchroKeptError *error);
extern void synchro_pushcall_censor(SynchroKeptError *error);
pg_noreturn extern void synchro_pushcall_report(SynchroKeptError *error);

#endif							/* SYNCHRO_PUSHCALL_H */
