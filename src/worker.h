/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  What all our background workers have in common: how they are started,
 *	  and what they do first.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_WORKER_H
#define SYNCHRO_WORKER_H

struct BackgroundWorkerHandle;

/* what an always-on worker is told by the launcher, in bgw_extra; no server: to
 * look into the database */
typedef struct SynchroPusherOrder
{
	Oid			database;
	char		server[NAMEDATALEN];
} SynchroPusherOrder;

extern bool synchro_worker_start(const char *function, const char *name, Datum arg,
								 const SynchroPusherOrder *order,
								 struct BackgroundWorkerHandle **handle);
extern void synchro_worker_connect(Oid database, const char *name);

#endif							/* SYNCHRO_WORKER_H */
