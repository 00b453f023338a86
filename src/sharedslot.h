/*-------------------------------------------------------------------------
 *
 * sharedslot.h
 *	  What lies in shared memory; for sharedstate.c and sharedpusher.c only.
 *
 * A slot stands for a database and one of its remotes that is not paused,
 * from when a worker has looked into the database until the remote, or the
 * database, is gone.  All fields of a slot are changed under the lock in
 * exclusive mode, by the pusher that owns it or by whoever takes it, except
 * the two atomic ones: every commit that logged changes adds to them, under
 * the lock in shared mode.
 *
 * A latch pointer stays valid after its process has gone, since it is part
 * of the PGPROC array: waking the wrong process at worst makes it look once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SHAREDSLOT_H
#define SYNCHRO_SHAREDSLOT_H

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "sharedstate.h"

#define MAX_SLOTS	256			/* databases times remotes */
#define MAX_LOOKS	256			/* databases that wait to be looked into */
#define MAX_CLOCKS	256			/* databases with the extension */
#define MAX_ANSWERS	8			/* of requests, until those who asked have seen them */

/* what has come of requests, those up to a ticket that were not served before */
typedef struct Answer
{
	uint64		ticket;			/* 0: none */
	bool		failed;
	bool		had_changes;
	SynchroCounts counts;
} Answer;

typedef struct Slot
{
	bool		used;
	Oid			database;
	char		server[NAMEDATALEN];
	int			pid;
	Latch	   *latch;
	TimestampTz start_after;	/* no start before; set anew with each */
	bool		stopped;		/* not to be started while a command runs */
	bool		retry;			/* try at once: what we connect with changed */

	pg_atomic_uint64 logged;	/* entries committed since the server started */
	pg_atomic_uint64 pending_since; /* TimestampTz of the first not yet seen */
	uint64		pushed;			/* of them, seen by the last pass */
	int64		left;			/* pending besides, as last counted */
	TimestampTz pass_since;		/* pending_since of what a pass is pushing */

	/* synchronize(): tickets are handed out in order and served in order */
	uint64		first_ticket;	/* earlier ones were for what the slot, or
								 * another one of the remote's, was before */
	uint64		requested;
	uint64		served;
	Answer		answers[MAX_ANSWERS];	/* a ring, as who asked may be slow to wake up */
	int			next_answer;
	SynchroKeptError failure;	/* of the last request that failed: a text for each would be large */

	SynchroPusherStatus status;
} Slot;

/* a database to be looked into */
typedef struct Look
{
	Oid			database;
	TimestampTz at;				/* not before; 0: now */
} Look;

typedef struct Shared
{
	LWLock	   *lock;
	int			launcher_pid;
	Latch	   *launcher_latch;
	bool		look_for_databases;
	bool		look_into_all;
	int			nlooks;
	Look		looks[MAX_LOOKS];
	ConditionVariable served;
	uint64		last_ticket;	/* of all slots */
	pg_atomic_uint32 prepared;	/* since the server started some prepared
								 * transaction was to have us look */
	int			nslots;			/* from this one on none has ever been used; a commit looks at all before */
	Slot		slots[MAX_SLOTS];
	SynchroSharedClock clocks[MAX_CLOCKS];
} Shared;

/* NULL unless the library is preloaded */
extern Shared *synchro_shared;

extern Slot *synchro_shared_find_slot(Oid database, const char *server);

#endif							/* SYNCHRO_SHAREDSLOT_H */
