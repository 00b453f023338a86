/*-------------------------------------------------------------------------
 *
 * sharedpusher.c
 *	  Shared memory of the always-on workers, as the workers themselves see
 *	  it: what is to be looked into and started, and what they publish.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sharedslot.h"

/* how long a pusher that could not be started, or has died, is left alone */
#define RESTART_DELAY	5000	/* ms */

/* after a pass of so many rows more are let gather, for so many ms */
#define GATHER_ROWS		50
#define GATHER_TIME		40

static Slot *my_slot = NULL;

/*
 * The launcher says that it is there, or goes.
 */
void
synchro_shared_launcher(bool running)
{
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	synchro_shared->launcher_pid = running ? MyProcPid : 0;
	synchro_shared->launcher_latch = running ? &MyProc->procLatch : NULL;
	if (running)
		synchro_shared->look_for_databases = true;
	LWLockRelease(synchro_shared->lock);
}

/*
 * The next database that is to be looked into now; InvalidOid: look for
 * databases, or into_all of them.  If there is none, false, with *not_before
 * the earliest time at which there will be, 0 for never.
 */
bool
synchro_shared_next_look(Oid *database, bool *into_all, TimestampTz *not_before)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		any = false;

	*not_before = 0;
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	*into_all = synchro_shared->look_into_all;
	if (synchro_shared->look_for_databases || synchro_shared->look_into_all)
	{
		*database = InvalidOid;
		synchro_shared->look_for_databases = synchro_shared->look_into_all = false;
		any = true;
	}
	for (int i = 0; i < synchro_shared->nlooks && !any; i++)
	{
		Look	   *look = &synchro_shared->looks[i];

		if (look->at > now)
		{
			if (*not_before == 0 || look->at < *not_before)
				*not_before = look->at;
			continue;
		}
		*database = look->database;
		*look = synchro_shared->looks[--synchro_shared->nlooks];
		any = true;
	}
	LWLockRelease(synchro_shared->lock);
	return any;
}

/*
 * Forget databases that are not in the list.
 */
void
synchro_shared_forget_databases(List *existing)
{
	int			kept = 0;

	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < synchro_shared->nslots; i++)
		if (synchro_shared->slots[i].used && synchro_shared->slots[i].pid == 0 &&
			!list_member_oid(existing, synchro_shared->slots[i].database))
			synchro_shared->slots[i].used = false;
	for (int i = 0; i < synchro_shared->nlooks; i++)
		if (list_member_oid(existing, synchro_shared->looks[i].database))
			synchro_shared->looks[kept++] = synchro_shared->looks[i];
	synchro_shared->nlooks = kept;
	LWLockRelease(synchro_shared->lock);
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
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < synchro_shared->nslots && !any; i++)
	{
		Slot	   *slot = &synchro_shared->slots[i];

		if (!slot->used || slot->pid != 0 || slot->stopped)
			continue;
		/* further away it is only if the clock has been set back */
		if (slot->start_after > now && slot->start_after <= TimestampTzPlusMilliseconds(now, RESTART_DELAY))
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
	LWLockRelease(synchro_shared->lock);
	return any;
}

/*
 * That pusher could not be started: it may be tried again at once.
 */
void
synchro_shared_not_started(Oid database, const char *server)
{
	Slot	   *slot;

	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	slot = synchro_shared_find_slot(database, server);
	if (slot != NULL)
		slot->start_after = 0;
	LWLockRelease(synchro_shared->lock);
}

/*
 * Say which remotes a database wants pushers for: names as char *.
 */
void
synchro_shared_want(Oid database, List *servers)
{
	ListCell   *cell;

	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < synchro_shared->nslots; i++)
	{
		Slot	   *slot = &synchro_shared->slots[i];
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
		Slot	   *slot = synchro_shared_find_slot(database, lfirst(cell));

		for (int i = 0; slot == NULL && i < MAX_SLOTS; i++)
		{
			if (synchro_shared->slots[i].used || synchro_shared->slots[i].pid != 0)
				continue;
			slot = &synchro_shared->slots[i];
			synchro_shared->nslots = Max(synchro_shared->nslots, i + 1);
			slot->used = true;
			slot->database = database;
			strlcpy(slot->server, lfirst(cell), NAMEDATALEN);
			slot->start_after = 0;
			slot->stopped = slot->retry = false;
			slot->pushed = pg_atomic_read_u64(&slot->logged);
			slot->left = 0;
			slot->pass_since = 0;
			slot->served = slot->requested = synchro_shared->last_ticket;
			slot->first_ticket = synchro_shared->last_ticket + 1;
			memset(slot->answers, 0, sizeof(slot->answers));
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
	if (synchro_shared->launcher_pid != 0)
		SetLatch(synchro_shared->launcher_latch);
	LWLockRelease(synchro_shared->lock);
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

	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	slot = synchro_shared_find_slot(database, server);
	if (slot != NULL && slot->pid == 0 && !slot->stopped)
	{
		slot->pid = MyProcPid;
		slot->latch = &MyProc->procLatch;
		slot->status.state = SYNCHRO_STARTING;
		my_slot = slot;
	}
	LWLockRelease(synchro_shared->lock);
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
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	my_slot->pid = 0;
	my_slot->latch = NULL;
	my_slot->status.state = SYNCHRO_STARTING;
	my_slot->status.phase[0] = '\0';
	if (for_good)
		my_slot->used = false;
	else if (my_slot->start_after < GetCurrentTimestamp())
		my_slot->start_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RESTART_DELAY);
	ConditionVariableBroadcast(&synchro_shared->served);
	if (synchro_shared->launcher_pid != 0)
		SetLatch(synchro_shared->launcher_latch);
	LWLockRelease(synchro_shared->lock);
	my_slot = NULL;
}

/*
 * Is the pusher still wanted?  True where there is no shared memory.
 */
bool
synchro_shared_wanted(void)
{
	bool		wanted;

	if (my_slot == NULL)
		return true;
	LWLockAcquire(synchro_shared->lock, LW_SHARED);
	wanted = my_slot->used;
	LWLockRelease(synchro_shared->lock);
	return wanted;
}

/*
 * Has a pass been asked for since the request with that ticket?  Sets the
 * ticket that it will serve.  To be called before the pass takes its snapshot.
 *
 * A request that takes many passes is taken once.
 */
bool
synchro_shared_take_request(uint64 *ticket)
{
	uint64		taken = *ticket;
	bool		asked;

	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	*ticket = my_slot->requested;
	asked = my_slot->requested > Max(my_slot->served, taken) || my_slot->retry;
	my_slot->retry = false;
	LWLockRelease(synchro_shared->lock);
	return asked;
}

/*
 * Say that all requests up to a ticket are served.  error: NULL if the pass
 * went well.
 *
 * A pass that nobody has asked for leaves the results of others as they are:
 * they may not have been seen yet.
 */
void
synchro_shared_serve(uint64 ticket, const SynchroCounts *counts, bool had_changes,
					 const SynchroKeptError *error)
{
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	if (ticket > my_slot->served)
	{
		Answer	   *answer = &my_slot->answers[my_slot->next_answer];

		my_slot->next_answer = (my_slot->next_answer + 1) % MAX_ANSWERS;
		my_slot->served = answer->ticket = ticket;
		answer->counts = *counts;
		answer->had_changes = had_changes;
		answer->failed = error != NULL;
		if (error != NULL)
			my_slot->failure = *error;
	}
	if (error != NULL)
		my_slot->status.error = *error;
	else
	{
		my_slot->status.attempts = 0;
		my_slot->status.next_attempt = 0;
		my_slot->status.last_success = GetCurrentTimestamp();
	}
	LWLockRelease(synchro_shared->lock);
	ConditionVariableBroadcast(&synchro_shared->served);
}

/*
 * After a pass of many rows, if more has come meanwhile, let that gather for a
 * moment: under load the passes that are saved are worth more than the time.
 */
void
synchro_shared_gather(const SynchroCounts *counts)
{
	if (counts->inserted + counts->updated + counts->deleted >= GATHER_ROWS && synchro_shared_unseen())
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, GATHER_TIME, synchro_wait_work());
}

/*
 * Publish what we are doing.
 */
void
synchro_shared_publish_state(SynchroPusherState state)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	my_slot->status.state = state;
	if (state == SYNCHRO_IDLE || state == SYNCHRO_WAITING)
		my_slot->status.phase[0] = '\0';
	LWLockRelease(synchro_shared->lock);
}

/*
 * Publish that an attempt has failed.
 */
void
synchro_shared_publish_failure(const SynchroKeptError *error, int attempts,
							   TimestampTz next_attempt)
{
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	my_slot->status.error = *error;
	my_slot->status.attempts = attempts;
	my_slot->status.next_attempt = next_attempt;

	/* it is pending still, and since then */
	if (my_slot->pass_since != 0)
		pg_atomic_write_u64(&my_slot->pending_since, my_slot->pass_since);
	my_slot->pass_since = 0;
	LWLockRelease(synchro_shared->lock);
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
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	if (rows_done == 0)
		my_slot->status.started_at = GetCurrentTimestamp();
	strlcpy(my_slot->status.phase, phase, sizeof(my_slot->status.phase));
	my_slot->status.relation = relation;
	my_slot->status.rows_done = rows_done;
	my_slot->status.rows_total = rows_total;
	LWLockRelease(synchro_shared->lock);
}

/*
 * How many entries our database has logged; to be read before a snapshot is
 * taken, then all of them are visible in it.
 */
uint64
synchro_shared_logged(void)
{
	uint64		since;
	uint64		logged;

	if (my_slot == NULL)
		return 0;

	/* what is logged from now on is not seen by the coming snapshot */
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	since = pg_atomic_exchange_u64(&my_slot->pending_since, 0);
	if (my_slot->pass_since == 0)
		my_slot->pass_since = (TimestampTz) since;
	logged = pg_atomic_read_u64(&my_slot->logged);
	LWLockRelease(synchro_shared->lock);
	return logged;
}

/*
 * Has anything been logged that no pass has seen?
 */
bool
synchro_shared_unseen(void)
{
	bool		unseen;

	LWLockAcquire(synchro_shared->lock, LW_SHARED);
	unseen = pg_atomic_read_u64(&my_slot->logged) != my_slot->pushed;
	LWLockRelease(synchro_shared->lock);
	return unseen;
}

/*
 * A pass has pushed all that had been logged when synchro_shared_logged() was
 * called.
 */
void
synchro_shared_publish_pushed(uint64 logged)
{
	synchro_shared_publish_pending(logged, 0, 0);
}

/*
 * Is it known how much is pending?  After a start, not before somebody has
 * counted.
 */
bool
synchro_shared_counted(void)
{
	bool		counted;

	LWLockAcquire(synchro_shared->lock, LW_SHARED);
	counted = my_slot->status.counted;
	LWLockRelease(synchro_shared->lock);
	return counted;
}

/*
 * Publish a count of what is pending, as of a synchro_shared_logged(), and
 * since when.
 */
void
synchro_shared_publish_pending(uint64 logged, int64 pending, TimestampTz since)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(synchro_shared->lock, LW_EXCLUSIVE);
	my_slot->left = pending;
	my_slot->pushed = logged;
	my_slot->pass_since = 0;
	if (since != 0)
		pg_atomic_write_u64(&my_slot->pending_since, (uint64) since);
	my_slot->status.counted = true;
	LWLockRelease(synchro_shared->lock);
}
