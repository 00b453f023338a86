/*-------------------------------------------------------------------------
 *
 * sharedstate.c
 *	  Shared memory of the always-on workers: who pushes where, what they
 *	  are doing, and how they are woken.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sharedslot.h"

static void wake_pushers(int64 entries, bool retry);

Shared	   *synchro_shared = NULL;

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
	synchro_shared = ShmemInitStruct("synchro", sizeof(Shared), &found);
	if (!found)
	{
		memset(synchro_shared, 0, sizeof(Shared));
		synchro_shared->lock = &(GetNamedLWLockTranche("synchro"))->lock;
		synchro_shared->look_for_databases = true;
		ConditionVariableInit(&synchro_shared->served);
		pg_atomic_init_u32(&synchro_shared->prepared, 0);
		for (int i = 0; i < MAX_SLOTS; i++)
		{
			pg_atomic_init_u64(&synchro_shared->slots[i].logged, 0);
			pg_atomic_init_u64(&synchro_shared->slots[i].pending_since, 0);
		}
		for (int i = 0; i < MAX_CLOCKS; i++)
		{
			pg_atomic_init_u64(&synchro_shared->clocks[i].owner, 0);
			pg_atomic_init_u64(&synchro_shared->clocks[i].offset, SYNCHRO_CLOCK_UNKNOWN);
			pg_atomic_init_u64(&synchro_shared->clocks[i].stamp, 0);
			pg_atomic_init_u64(&synchro_shared->clocks[i].kept, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * A worker that applies changes of a subscription commits what is prepared by
 * no utility command, and in a transaction that has no id.
 */
static void
after_replicated_commit(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && IsLogicalWorker() && !TransactionIdIsValid(GetTopTransactionIdIfAny()))
		wake_pushers(1, false);
}

/*
 * Ask for shared memory; called when the postmaster preloads the library.
 */
void
synchro_shared_init(void)
{
	RegisterXactCallback(after_replicated_commit, NULL);
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
	return synchro_shared != NULL;
}

/*
 * The slot of a remote, or NULL.  The caller holds the lock.
 */
Slot *
synchro_shared_find_slot(Oid database, const char *server)
{
	for (int i = 0; i < synchro_shared->nslots; i++)
	{
		Slot	   *slot = &synchro_shared->slots[i];

		if (slot->used && slot->database == database && strcmp(slot->server, server) == 0)
			return slot;
	}
	return NULL;
}

/*
 * Wake the pushers of our database.
 *
 * entries: logged for them.  retry: have them try at once, also one that
 * waits after an error.
 */
static void
wake_pushers(int64 entries, bool retry)
{
	LWLockAcquire(synchro_shared->lock, retry ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < synchro_shared->nslots; i++)
	{
		Slot	   *slot = &synchro_shared->slots[i];
		uint64		none = 0;

		if (!slot->used || slot->database != MyDatabaseId)
			continue;
		if (retry)
		{
			slot->retry = true;
			slot->status.counted = false;
		}
		pg_atomic_fetch_add_u64(&slot->logged, entries);
		if (entries > 0 && pg_atomic_read_u64(&slot->pending_since) == 0)
			pg_atomic_compare_exchange_u64(&slot->pending_since, &none,
										   (uint64) GetCurrentTimestamp());
		if (slot->pid != 0)
			SetLatch(slot->latch);
	}
	LWLockRelease(synchro_shared->lock);
}

/*
 * Have the launcher look which remotes a database has now; InvalidOid: look
 * for databases that are new or gone.
 */
void
synchro_shared_look(Oid database)
{
	synchro_shared_look_later(database, 0);
}

/*
 * The same, but not before a given time.
 */
void
synchro_shared_look_later(Oid database, TimestampTz at)
{
	Look	   *look = NULL;

	if (synchro_shared == NULL)
		return;
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < synchro_shared->nlooks && look == NULL; i++)
		if (synchro_shared->looks[i].database == database)
			look = &synchro_shared->looks[i];
	if (!OidIsValid(database))
		synchro_shared->look_for_databases = true;
	else if (look != NULL)
		look->at = Min(look->at, at);
	else if (synchro_shared->nlooks == MAX_LOOKS)
		synchro_shared->look_into_all = true;
	else
	{
		look = &synchro_shared->looks[synchro_shared->nlooks++];
		look->database = database;
		look->at = at;
	}
	if (synchro_shared->launcher_pid != 0)
		SetLatch(synchro_shared->launcher_latch);
	LWLockRelease(synchro_shared->lock);
}

/*
 * Let the pushers of a database that were stopped be started again.
 */
static void
restart_pushers(Oid database)
{
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < synchro_shared->nslots; i++)
	{
		Slot	   *slot = &synchro_shared->slots[i];

		if (!slot->used || slot->database != database || !slot->stopped)
			continue;
		slot->stopped = false;
		slot->start_after = 0;
	}
	if (synchro_shared->launcher_pid != 0)
		SetLatch(synchro_shared->launcher_latch);
	LWLockRelease(synchro_shared->lock);
}

/* what our transaction is to do when it has committed */
static int64 commit_entries = 0;
static bool commit_wake = false;
static bool commit_retry = false;
static bool commit_look_here = false;
static bool commit_look_for_databases = false;

/* and at its end, however it ends; in the transaction's memory */
static List *stopped_databases = NIL;

static void
at_transaction_event(XactEvent event, void *arg)
{
	bool		committed = event == XACT_EVENT_COMMIT;
	ListCell   *cell;

	if (!committed && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_PREPARE && (commit_look_here || commit_retry))
		pg_atomic_write_u32(&synchro_shared->prepared, 1);
	if (committed && commit_wake)
		wake_pushers(commit_entries, false);
	if (committed && commit_look_for_databases)
		synchro_shared_look(InvalidOid);
	if (committed && commit_look_here)
		synchro_shared_look(MyDatabaseId);

	/* a pusher that is not wanted any more need not wait for the look */
	if (committed && (commit_look_here || commit_look_for_databases))
		wake_pushers(0, true);
	foreach(cell, stopped_databases)
		restart_pushers(lfirst_oid(cell));
	if (!committed)
		commit_retry = false;
	commit_wake = commit_look_here = commit_look_for_databases = false;
	commit_entries = 0;
	stopped_databases = NIL;
}

/*
 * Later than the above: the caches of others have been told of what changed
 * in the catalogs.
 */
static void
after_invalidation(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level || !commit_retry)
		return;
	commit_retry = false;
	wake_pushers(0, true);
}

static void
watch_transaction(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(at_transaction_event, NULL);
		RegisterResourceReleaseCallback(after_invalidation, NULL);
	}
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
	if (synchro_shared == NULL)
		return;
	watch_transaction();
	commit_wake = true;
	commit_entries += entries;
}

/*
 * When this transaction commits, the pushers of our database are to make a
 * pass, also those that wait after an error, and what is pending counts anew.
 */
void
synchro_shared_retry_at_commit(void)
{
	if (synchro_shared == NULL)
		return;
	watch_transaction();
	commit_retry = true;
}

/*
 * When this transaction commits, the launcher is to look into our database, or,
 * with InvalidOid, for databases, see synchro_shared_look().
 */
void
synchro_shared_look_at_commit(Oid database)
{
	Assert(database == MyDatabaseId || !OidIsValid(database));
	if (synchro_shared == NULL)
		return;
	watch_transaction();
	if (OidIsValid(database))
		commit_look_here = true;
	else
		commit_look_for_databases = true;
}

/*
 * A prepared transaction commits with this one.  What it logged counts from now on,
 * and so does what it has done about remotes: which one did is not known any more, but
 * few do, so where none has, whoever prepares all of his transactions pays nothing.
 * After a restart the launcher has looked at all of them, but for those that were
 * prepared: they wait for the next look.
 */
void
synchro_shared_prepared_at_commit(void)
{
	synchro_shared_wake_at_commit(1);
	if (synchro_shared == NULL || pg_atomic_read_u32(&synchro_shared->prepared) == 0)
		return;
	synchro_shared_look_at_commit(MyDatabaseId);
	synchro_shared_retry_at_commit();
}

/*
 * The clock of a database's node; NULL where there is no shared memory, or no
 * room in it.
 *
 * schema: ours there, so that an extension which is dropped and created anew
 * does not go on with the old one's clock.  Clocks are given back by a restart
 * only: whoever writes to a watched table reads one without a lock.
 */
SynchroSharedClock *
synchro_shared_clock(Oid database, Oid schema)
{
	static SynchroSharedClock *last = NULL;
	uint64		owner = ((uint64) database << 32) | schema;

	if (synchro_shared == NULL)
		return NULL;
	if (last != NULL && pg_atomic_read_u64(&last->owner) == owner)
		return last;
	for (int i = 0; i < MAX_CLOCKS; i++)
	{
		SynchroSharedClock *clock = &synchro_shared->clocks[i];
		uint64		found = pg_atomic_read_u64(&clock->owner);

		/* if another backend is faster, found is set to what it has put there */
		if (found == 0 && pg_atomic_compare_exchange_u64(&clock->owner, &found, owner))
			found = owner;
		if (found == owner)
			return last = clock;
	}
	return NULL;
}

/*
 * Copy a pusher's published state.  False if it has no slot.
 */
bool
synchro_shared_status(Oid database, const char *server, SynchroPusherStatus *status)
{
	Slot	   *slot;

	if (synchro_shared == NULL)
		return false;
	LWLockAcquire(synchro_shared->lock, LW_SHARED);
	slot = synchro_shared_find_slot(database, server);
	if (slot != NULL)
	{
		*status = slot->status;
		status->pid = slot->pid;
		status->pending = slot->left +
			(int64) (pg_atomic_read_u64(&slot->logged) - slot->pushed);
		status->pending_since = slot->pass_since != 0 ? slot->pass_since :
			(TimestampTz) pg_atomic_read_u64(&slot->pending_since);
	}
	LWLockRelease(synchro_shared->lock);
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

	if (synchro_shared == NULL)
		return false;
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	slot = synchro_shared_find_slot(database, server);
	running = slot != NULL && slot->pid != 0;
	if (running)
	{
		*ticket = slot->requested = ++synchro_shared->last_ticket;
		SetLatch(slot->latch);
	}
	LWLockRelease(synchro_shared->lock);
	return running;
}

/*
 * What has come of a request that is served: of later ones, the first that is
 * still known, if so many have been served since.
 */
static const Answer *
find_answer(const Slot *slot, uint64 ticket)
{
	const Answer *found = NULL;

	for (int i = 0; i < MAX_ANSWERS; i++)
	{
		const Answer *answer = &slot->answers[i];

		if (answer->ticket >= ticket && (found == NULL || answer->ticket < found->ticket))
			found = answer;
	}
	return found;
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
	const Answer *answer = NULL;

	LWLockAcquire(synchro_shared->lock, LW_SHARED);
	slot = synchro_shared_find_slot(database, server);

	/* the remote was paused, or removed, and is here again: who was asked is gone */
	if (slot != NULL && ticket < slot->first_ticket)
		slot = NULL;
	*pid = slot != NULL ? slot->pid : 0;
	if (slot != NULL)
		answer = find_answer(slot, ticket);
	if (answer != NULL)
	{
		*counts = answer->counts;
		*had_changes = answer->had_changes;
		*failed = answer->failed;
		if (answer->failed)
			*error = slot->failure;
	}
	LWLockRelease(synchro_shared->lock);
	return answer != NULL;
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
		(void) ConditionVariableTimedSleep(&synchro_shared->served, timeout, wait_event);
}

/*
 * Keep the pushers of a database from being started until this transaction
 * ends.  Returns the pids of those that run; the caller ends them.
 */
List *
synchro_shared_stop(Oid database)
{
	List	   *pids = NIL;
	int			running[MAX_SLOTS];
	int			n = 0;
	MemoryContext old;

	if (synchro_shared == NULL)
		return NIL;
	watch_transaction();
	old = MemoryContextSwitchTo(TopTransactionContext);
	stopped_databases = list_append_unique_oid(stopped_databases, database);
	MemoryContextSwitchTo(old);
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < synchro_shared->nslots; i++)
	{
		Slot	   *slot = &synchro_shared->slots[i];

		/* one that is no longer wanted may run still */
		if (slot->database != database)
			continue;
		slot->stopped = slot->used;
		if (slot->pid != 0)
			running[n++] = slot->pid;
	}
	LWLockRelease(synchro_shared->lock);
	for (int i = 0; i < n; i++)
		pids = lappend_int(pids, running[i]);
	return pids;
}
