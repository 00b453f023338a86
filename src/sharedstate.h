/*-------------------------------------------------------------------------
 *
 * sharedstate.h
 *	  Shared memory of the always-on workers: who pushes where, what they
 *	  are doing, and how they are woken.
 *
 * All of it exists only if the library is preloaded; without, the functions
 * do nothing and say so.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SHAREDSTATE_H
#define SYNCHRO_SHAREDSTATE_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"

/* what a pass did, in rows */
typedef struct SynchroCounts
{
	int64		inserted;
	int64		updated;
	int64		deleted;
	int64		skipped;
	int64		failed;
} SynchroCounts;

/* what a pusher is doing; synchro.remotes shows the name */
typedef enum SynchroPusherState
{
	SYNCHRO_STARTING,
	SYNCHRO_CONNECTING,
	SYNCHRO_PUSHING,
	SYNCHRO_IDLE,
	SYNCHRO_WAITING				/* for the next attempt after an error */
} SynchroPusherState;

/* an error as it is kept for others to see or to raise */
typedef struct SynchroKeptError
{
	int			sqlerrcode;		/* 0: none */
	char		message[512];
	char		detail[2048];
	char		hint[512];
	TimestampTz at;
} SynchroKeptError;

/* one pusher's published state, as copied out for a reader */
typedef struct SynchroPusherStatus
{
	Oid			database;
	char		server[NAMEDATALEN];
	int			pid;			/* 0: not running */
	SynchroPusherState state;
	int			attempts;		/* that have failed since the last success */
	TimestampTz next_attempt;	/* 0: none is planned */
	TimestampTz last_success;
	SynchroKeptError error;
	bool		counted;		/* pending is known */
	int64		pending;
	TimestampTz pending_since;	/* 0: nothing is pending */
	char		phase[32];
	Oid			relation;
	int64		rows_done;
	int64		rows_total;
	TimestampTz started_at;
} SynchroPusherStatus;

/*
 * The clock of a database's node, see clock.c.  Changed without a lock.
 */
typedef struct SynchroSharedClock
{
	pg_atomic_uint64 owner;		/* whose it is; 0: nobody's */
	pg_atomic_uint64 offset;	/* as int64; SYNCHRO_CLOCK_UNKNOWN: not read yet */
	pg_atomic_uint64 stamp;		/* the last one given or seen; 0: not read yet */
	pg_atomic_uint64 kept;		/* up to which one the sequence has them */
} SynchroSharedClock;

#define SYNCHRO_CLOCK_UNKNOWN	((uint64) PG_INT64_MIN)

extern void synchro_shared_init(void);
extern bool synchro_shared_available(void);

/* for backends */
extern void synchro_shared_wake_at_commit(int64 entries);
extern void synchro_shared_look_at_commit(Oid database);
extern void synchro_shared_retry_at_commit(void);
extern void synchro_shared_prepared_at_commit(void);
extern void synchro_shared_look(Oid database);
extern SynchroSharedClock *synchro_shared_clock(Oid database, Oid schema);
extern bool synchro_shared_status(Oid database, const char *server,
								  SynchroPusherStatus *status);
extern bool synchro_shared_request(Oid database, const char *server, uint64 *ticket);
extern bool synchro_shared_served(Oid database, const char *server, uint64 ticket,
								  int *pid, SynchroCounts *counts, bool *had_changes,
								  SynchroKeptError *error, bool *failed);
extern void synchro_shared_wait(long timeout, uint32 wait_event);
extern List *synchro_shared_stop(Oid database);

/* for the launcher */
extern void synchro_shared_launcher(bool running);
extern bool synchro_shared_next_look(Oid *database, bool *into_all, TimestampTz *not_before);
extern void synchro_shared_forget_databases(List *existing);
extern bool synchro_shared_next_start(Oid *database, char *server, TimestampTz *not_before);
extern void synchro_shared_not_started(Oid database, const char *server);

/* for looking workers and pushers */
extern void synchro_shared_look_later(Oid database, TimestampTz at);
extern void synchro_shared_want(Oid database, List *servers);
extern bool synchro_shared_attach(Oid database, const char *server);
extern void synchro_shared_detach(bool for_good);
extern bool synchro_shared_wanted(void);
extern bool synchro_shared_take_request(uint64 *ticket);
extern void synchro_shared_serve(uint64 ticket, const SynchroCounts *counts, bool had_changes,
								 const SynchroKeptError *error);
extern void synchro_shared_publish_state(SynchroPusherState state);
extern void synchro_shared_publish_failure(const SynchroKeptError *error, int attempts,
										   TimestampTz next_attempt);
extern void synchro_shared_publish_progress(const char *phase, Oid relation,
											int64 rows_done, int64 rows_total);
extern void synchro_shared_gather(const SynchroCounts *counts);
extern uint64 synchro_shared_logged(void);
extern void synchro_shared_publish_pushed(uint64 logged);
extern bool synchro_shared_unseen(void);
extern bool synchro_shared_counted(void);
extern void synchro_shared_publish_pending(uint64 logged, int64 pending, TimestampTz since);

#endif							/* SYNCHRO_SHAREDSTATE_H */
