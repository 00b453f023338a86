/*-------------------------------------------------------------------------
 *
 * sharedstate.c
 *	  Shared memory of the always-on workers: who pushes where, what they
 *	  are doing, and how they are woken.
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
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sharedstate.h"

#define MAX_SLOTS	256			/* databases times remotes */
#define MAX_LOOKS	256			/* databases that wait to be looked into */

/* how long a pusher that could not be started, or has died, is left alone */
#define RESTART_DELAY	5000	/* ms */

typedef struct Slot
{
	bool		used;
	Oid			database;
	char		server[NAMEDATALEN];
	int			pid;
	Latch	   *latch;
	TimestampTz start_after;	/* no start before; set anew with each */

	pg_atomic_uint64 logged;	/* entries committed since the server started */
	pg_atomic_uint64 pending_since; /* TimestampTz of the first not yet seen */
	uint64		pushed;			/* of them, seen by the last pass */
	int64		left;			/* pending besides, as last counted */

	/* synchronize(): tickets are handed out in order and served in order */
	uint64		requested;
	uint64		served;
	bool		failed;
	bool		had_changes;
	SynchroCounts counts;

	SynchroPusherStatus status;
} Slot;

typedef struct Shared
{
	LWLock	   *lock;
	int			launcher_pid;
	Latch	   *launcher_latch;
	bool		look_everywhere;
	int			nlooks;
	Oid			looks[MAX_LOOKS];
	ConditionVariable served;
	Slot		slots[MAX_SLOTS];
} Shared;

static Shared *shared = NULL;
static Slot *my_slot = NULL;
static uint64 my_since = 0;		/* of what the pass at hand pushes */
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static void
request_memory(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(Shared)));
	RequestNamedLWLockTranche("synchro", 1);
}

static void
set_up_memory(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("synchro", sizeof(Shared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(Shared));
		shared->lock = &(GetNamedLWLockTranche("synchro"))->lock;
		shared->look_everywhere = true;
		ConditionVariableInit(&shared->served);
		for (int i = 0; i < MAX_SLOTS; i++)
		{
			pg_atomic_init_u64(&shared->slots[i].logged, 0);
			pg_atomic_init_u64(&shared->slots[i].pending_since, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * Ask for shared memory; called when the postmaster preloads the library.
 */
void
synchro_shared_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = set_up_memory;
}

/*
 * Is there shared memory, and so a launcher?
 */
bool
synchro_shared_available(void)
{
	return shared != NULL;
}

static Slot *
find_slot(Oid database, const char *server)
{
	for (int i = 0; i < MAX_SLOTS; i++)
	{
		Slot	   *slot = &shared->slots[i];

		if (slot->used && slot->database == database && strcmp(slot->server, server) == 0)
			return slot;
	}
	return NULL;
}

/*
 * Wake the pushers of our database.
 */
static void
wake_pushers(int64 entries)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_SLOTS; i++)
	{
		Slot	   *slot = &shared->slots[i];
		uint64		none = 0;

		if (!slot->used || slot->database != MyDatabaseId)
			continue;
		pg_atomic_fetch_add_u64(&slot->logged, entries);
		if (pg_atomic_read_u64(&slot->pending_since) == 0)
			pg_atomic_compare_exchange_u64(&slot->pending_since, &none,
										   (uint64) GetCurrentTimestamp());
		if (slot->pid != 0)
			SetLatch(slot->latch);
	}
	LWLockRelease(shared->lock);
}

/*
 * Have the launcher look which remotes a database has now; InvalidOid: look
 * for databases, too.
 */
void
synchro_shared_look(Oid database)
{
	bool		queued = false;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nlooks; i++)
		queued |= shared->looks[i] == database;
	if (!OidIsValid(database) || (!queued && shared->nlooks == MAX_LOOKS))
		shared->look_everywhere = true;
	else if (!queued)
		shared->looks[shared->nlooks++] = database;
	if (shared->launcher_pid != 0)
		SetLatch(shared->launcher_latch);
	LWLockRelease(shared->lock);
}

/* what our transaction is to do when it has committed */
static int64 commit_entries = 0;
static bool commit_wake = false;
static bool commit_look = false;
static Oid	commit_look_database = InvalidOid;

static void
at_transaction_event(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && commit_wake)
		wake_pushers(commit_entries);
	if (event == XACT_EVENT_COMMIT && commit_look)
		synchro_shared_look(commit_look_database);
	commit_wake = commit_look = false;
	commit_entries = 0;
}

static void
watch_transaction(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(at_transaction_event, NULL);
	registered = true;
}

/*
 * When this transaction commits, the pushers of our database have work.
 *
 * entries: how many changes it has logged.
 */
void
synchro_shared_wake_at_commit(int64 entries)
{
	if (shared == NULL)
		return;
	watch_transaction();
	commit_wake = true;
	commit_entries += entries;
}

/*
 * When this transaction commits, the launcher is to look into a database, or
 * for databases, see synchro_shared_look().
 */
void
synchro_shared_look_at_commit(Oid database)
{
	if (shared == NULL)
		return;
	watch_transaction();
	commit_look = true;
	commit_look_database = database;
}

/*
 * Copy a pusher's published state.  False if it has no slot.
 */
bool
synchro_shared_status(Oid database, const char *server, SynchroPusherStatus *status)
{
	Slot	   *slot;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	slot = find_slot(database, server);
	if (slot != NULL)
	{
		*status = slot->status;
		status->pid = slot->pid;
		status->pending = slot->left +
			(int64) (pg_atomic_read_u64(&slot->logged) - slot->pushed);
		status->pending_since = (TimestampTz) pg_atomic_read_u64(&slot->pending_since);
	}
	LWLockRelease(shared->lock);
	return slot != NULL;
}

/*
 * Ask a running pusher for a pass.  False if none is running.
 */
bool
synchro_shared_request(Oid database, const char *server, uint64 *ticket)
{
	Slot	   *slot;
	bool		running;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database, server);
	running = slot != NULL && slot->pid != 0;
	if (running)
	{
		*ticket = ++slot->requested;
		SetLatch(slot->latch);
	}
	LWLockRelease(shared->lock);
	return running;
}

/*
 * Has the request been served?  If so, how.  pid is set to the pusher's, 0 if
 * it has gone.
 */
bool
synchro_shared_served(Oid database, const char *server, uint64 ticket, int *pid,
					  SynchroCounts *counts, bool *had_changes,
					  SynchroKeptError *error, bool *failed)
{
	Slot	   *slot;
	bool		served;

	LWLockAcquire(shared->lock, LW_SHARED);
	slot = find_slot(database, server);
	*pid = slot != NULL ? slot->pid : 0;
	served = slot != NULL && slot->served >= ticket;
	if (served)
	{
		*counts = slot->counts;
		*had_changes = slot->had_changes;
		*failed = slot->failed;
		*error = slot->status.error;
	}
	LWLockRelease(shared->lock);
	return served;
}

/*
 * Sleep until some request has been served, or for timeout ms.  Call until
 * what one waits for has come, then with timeout 0.
 */
void
synchro_shared_wait(long timeout, uint32 wait_event)
{
	if (timeout == 0)
		ConditionVariableCancelSleep();
	else
		(void) ConditionVariableTimedSleep(&shared->served, timeout, wait_event);
}

/*
 * Take away the slots of a database's pushers, or of one, for a while: the
 * launcher looks again later.  Returns the pids of those that run; the caller
 * ends them.
 */
List *
synchro_shared_stop(Oid database, const char *server)
{
	List	   *pids = NIL;
	int			running[MAX_SLOTS];
	int			n = 0;

	if (shared == NULL)
		return NIL;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_SLOTS; i++)
	{
		Slot	   *slot = &shared->slots[i];

		if (!slot->used || slot->database != database ||
			(server != NULL && strcmp(slot->server, server) != 0))
			continue;
		slot->start_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RESTART_DELAY);
		if (slot->pid != 0)
			running[n++] = slot->pid;
	}
	LWLockRelease(shared->lock);
	for (int i = 0; i < n; i++)
		pids = lappend_int(pids, running[i]);
	return pids;
}

/*
 * The launcher says that it is there, or goes.
 */
void
synchro_shared_launcher(bool running)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher_pid = running ? MyProcPid : 0;
	shared->launcher_latch = running ? &MyProc->procLatch : NULL;
	if (running)
		shared->look_everywhere = true;
	LWLockRelease(shared->lock);
}

/*
 * The next database that asks to be looked into; InvalidOid: look for
 * databases.  False if there is none.
 */
bool
synchro_shared_next_look(Oid *database)
{
	bool		any = true;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (shared->look_everywhere)
	{
		*database = InvalidOid;
		shared->look_everywhere = false;
	}
	else if (shared->nlooks > 0)
		*database = shared->looks[--shared->nlooks];
	else
		any = false;
	LWLockRelease(shared->lock);
	return any;
}

/*
 * Drop the slots of databases that are not in the list.
 */
void
synchro_shared_forget_databases(List *existing)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_SLOTS; i++)
		if (shared->slots[i].used && shared->slots[i].pid == 0 &&
			!list_member_oid(existing, shared->slots[i].database))
			shared->slots[i].used = false;
	LWLockRelease(shared->lock);
}

/*
 * The next pusher to be started.  If there is none now, false, with
 * *not_before the earliest time at which there will be, 0 for never.
 */
bool
synchro_shared_next_start(Oid *database, char *server, TimestampTz *not_before)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		any = false;

	*not_before = 0;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_SLOTS && !any; i++)
	{
		Slot	   *slot = &shared->slots[i];

		if (!slot->used || slot->pid != 0)
			continue;
		if (slot->start_after > now)
		{
			if (*not_before == 0 || slot->start_after < *not_before)
				*not_before = slot->start_after;
			continue;
		}
		any = true;
		slot->start_after = TimestampTzPlusMilliseconds(now, RESTART_DELAY);
		*database = slot->database;
		strlcpy(server, slot->server, NAMEDATALEN);
	}
	LWLockRelease(shared->lock);
	return any;
}

/*
 * Say which remotes a database wants pushers for: names as char *.
 */
void
synchro_shared_want(Oid database, List *servers)
{
	ListCell   *cell;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_SLOTS; i++)
	{
		Slot	   *slot = &shared->slots[i];
		bool		wanted = false;

		if (!slot->used || slot->database != database)
			continue;
		foreach(cell, servers)
			wanted |= strcmp(slot->server, lfirst(cell)) == 0;
		if (wanted)
			continue;
		slot->used = false;
		if (slot->pid != 0)
			SetLatch(slot->latch);	/* it sees that it is no longer wanted */
	}
	foreach(cell, servers)
	{
		Slot	   *slot = find_slot(database, lfirst(cell));

		for (int i = 0; slot == NULL && i < MAX_SLOTS; i++)
		{
			if (shared->slots[i].used || shared->slots[i].pid != 0)
				continue;
			slot = &shared->slots[i];
			slot->used = true;
			slot->database = database;
			strlcpy(slot->server, lfirst(cell), NAMEDATALEN);
			slot->start_after = 0;
			slot->pushed = pg_atomic_read_u64(&slot->logged);
			slot->left = 0;
			slot->served = slot->requested;
			pg_atomic_write_u64(&slot->pending_since, 0);
			memset(&slot->status, 0, sizeof(slot->status));
			slot->status.database = database;
			strlcpy(slot->status.server, lfirst(cell), NAMEDATALEN);
		}
		if (slot == NULL)
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("synchro serves no more than %d remotes on one server", MAX_SLOTS)));
	}
	if (shared->launcher_pid != 0)
		SetLatch(shared->launcher_latch);
	LWLockRelease(shared->lock);
}

static void
detach_at_exit(int code, Datum arg)
{
	synchro_shared_detach(false);
}

/*
 * A pusher takes its slot.  False if it is not wanted, or there is another.
 */
bool
synchro_shared_attach(Oid database, const char *server)
{
	Slot	   *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database, server);
	if (slot != NULL && slot->pid == 0)
	{
		slot->pid = MyProcPid;
		slot->latch = &MyProc->procLatch;
		slot->status.state = SYNCHRO_STARTING;
		my_slot = slot;
	}
	LWLockRelease(shared->lock);
	if (my_slot != NULL)
		before_shmem_exit(detach_at_exit, (Datum) 0);
	return my_slot != NULL;
}

/*
 * A pusher gives its slot back.  for_good: the remote is gone; else it is to
 * be started again.
 */
void
synchro_shared_detach(bool for_good)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->pid = 0;
	my_slot->latch = NULL;
	if (for_good)
		my_slot->used = false;
	else if (my_slot->start_after < GetCurrentTimestamp())
		my_slot->start_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RESTART_DELAY);
	ConditionVariableBroadcast(&shared->served);
	if (shared->launcher_pid != 0)
		SetLatch(shared->launcher_latch);
	LWLockRelease(shared->lock);
	my_slot = NULL;
}

/*
 * Is a pass asked for?  Sets the ticket that it will serve.  To be called
 * before the pass takes its snapshot.  Ends the process if the pusher is no
 * longer wanted.
 */
bool
synchro_shared_take_request(uint64 *ticket)
{
	bool		asked;
	bool		wanted;

	LWLockAcquire(shared->lock, LW_SHARED);
	wanted = my_slot->used;
	*ticket = my_slot->requested;
	asked = my_slot->requested > my_slot->served;
	LWLockRelease(shared->lock);
	if (!wanted)
	{
		synchro_shared_detach(true);
		proc_exit(0);
	}
	return asked;
}

/*
 * Say that all requests up to a ticket are served.  error: NULL if the pass
 * went well.
 */
void
synchro_shared_serve(uint64 ticket, const SynchroCounts *counts, bool had_changes,
					 const SynchroKeptError *error)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->served = Max(my_slot->served, ticket);
	my_slot->counts = *counts;
	my_slot->had_changes = had_changes;
	my_slot->failed = error != NULL;
	if (error != NULL)
		my_slot->status.error = *error;
	else
	{
		my_slot->status.attempts = 0;
		my_slot->status.next_attempt = 0;
		my_slot->status.last_success = GetCurrentTimestamp();
	}
	LWLockRelease(shared->lock);
	ConditionVariableBroadcast(&shared->served);
}

/*
 * Publish what we are doing.
 */
void
synchro_shared_publish_state(SynchroPusherState state)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->status.state = state;
	if (state == SYNCHRO_IDLE || state == SYNCHRO_WAITING)
		my_slot->status.phase[0] = '\0';
	LWLockRelease(shared->lock);
}

/*
 * Publish that an attempt has failed.
 */
void
synchro_shared_publish_failure(const SynchroKeptError *error, int attempts,
							   TimestampTz next_attempt)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->status.error = *error;
	my_slot->status.attempts = attempts;
	my_slot->status.next_attempt = next_attempt;

	/* it is pending still, and since then */
	if (my_since != 0)
		pg_atomic_write_u64(&my_slot->pending_since, my_since);
	my_since = 0;
	LWLockRelease(shared->lock);
}

/*
 * Publish how far a pass has come.
 */
void
synchro_shared_publish_progress(const char *phase, Oid relation,
								int64 rows_done, int64 rows_total)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (rows_done == 0)
		my_slot->status.started_at = GetCurrentTimestamp();
	strlcpy(my_slot->status.phase, phase, sizeof(my_slot->status.phase));
	my_slot->status.relation = relation;
	my_slot->status.rows_done = rows_done;
	my_slot->status.rows_total = rows_total;
	LWLockRelease(shared->lock);
}

/*
 * How many entries our database has logged; to be read before a snapshot is
 * taken, then all of them are visible in it.
 */
uint64
synchro_shared_logged(void)
{
	uint64		since;

	if (my_slot == NULL)
		return 0;

	/* what is logged from now on is not seen by the coming snapshot */
	since = pg_atomic_exchange_u64(&my_slot->pending_since, 0);
	if (my_since == 0)
		my_since = since;
	return pg_atomic_read_u64(&my_slot->logged);
}

/*
 * A pass has pushed all that had been logged when synchro_shared_logged() was
 * called.
 */
void
synchro_shared_publish_pushed(uint64 logged)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->pushed = logged;
	my_slot->left = 0;
	my_since = 0;
	LWLockRelease(shared->lock);
}

/*
 * Publish a count of what is pending, as of the last synchro_shared_logged().
 */
void
synchro_shared_publish_pending(int64 pending)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->left = pending;
	my_slot->pushed = pg_atomic_read_u64(&my_slot->logged);
	LWLockRelease(shared->lock);
}
