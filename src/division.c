/*-------------------------------------------------------------------------
 *
 * division.c
 *	  Divides a batch that the remote would not take, until the rows that are
 *	  to blame are alone and can be parked.
 *
 * A batch is divided into smaller ones, each of them a batch like any other,
 * which is committed if it goes through: a batch moves the position's keys
 * snapshot, but the snapshot itself only the pass's last one does, so a crash
 * in between repeats reads, see pass.c.  Names of before cannot be left to a
 * later batch; so they go first, all but those that fail, and are parked.
 *
 * With n rows and b bad ones among them that takes some b * log(n / b) + 2b
 * batches: of two halves of which one went through, the other need not be
 * tried as a whole.
 *
 * With synchro.atomic_pass the parts are only tried, and what is left is pushed
 * at once.
 *
 * What may have failed only because of the order is tried once more together
 * when all else is through: rows that exchange unique values, or need each
 * other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "passwork.h"

/* from so many failures in a pass on, rows are not looked for one by one */
#define MAX_SINGLES		1000

/* so many rows are tried together but for one */
#define MAX_LATER		16

/* parents of parents that are pushed for a single row */
#define MAX_NESTING		8

/* a batch that is being divided */
typedef struct Division
{
	SynchroPass *pass;
	List	   *dead;			/* of SynchroBatchDead, as the batch has them */
	List	   *later;			/* of SynchroBatchKeys, a row each: for another try */
	int			nparked;
} Division;

/* a part of it that was sent */
typedef struct Part
{
	MemoryContext context;		/* of all that follows */
	SynchroBatch *batch;
	SynchroRemoteError *error;	/* NULL: it went through */
} Part;

static int
count_keys(const List *keys)
{
	const ListCell *cell;
	int			count = 0;

	foreach(cell, keys)
		count += ((SynchroBatchKeys *) lfirst(cell))->identities->count;
	return count;
}

/*
 * Some of a list's keys, as a list of its own: reading a batch takes out of
 * its keys what it has already.
 */
static List *
slice_keys(const List *keys, int first, int count)
{
	const ListCell *cell;
	List	   *result = NIL;

	foreach(cell, keys)
	{
		const SynchroBatchKeys *all = lfirst(cell);
		const SynchroIdentities *from = all->identities;
		int			n = from->nidentity;
		int			begin = Min(Max(first, 0), from->count);
		int			end = Min(Max(first + count, 0), from->count);

		if (begin < end)
		{
			SynchroBatchKeys *part = palloc(sizeof(SynchroBatchKeys));
			SynchroIdentities *slice = palloc0(sizeof(SynchroIdentities));

			slice->nidentity = n;
			slice->count = slice->allocated = end - begin;
			slice->values = palloc(sizeof(char *) * n * slice->count);
			memcpy(slice->values, &from->values[begin * n], sizeof(char *) * n * slice->count);
			if (from->stamps != NULL)
			{
				slice->stamps = palloc(sizeof(SynchroRowStamp) * slice->count);
				memcpy(slice->stamps, &from->stamps[begin], sizeof(SynchroRowStamp) * slice->count);
			}
			part->relid = all->relid;
			part->identities = slice;
			part->ensure = all->ensure;
			result = lappend(result, part);
		}
		first -= from->count;
	}
	return result;
}

/*
 * The deletes to be sent again that belong to some keys.
 */
static List *
dead_of(const Division *division, const List *keys)
{
	List	   *result = NIL;
	ListCell   *cell;
	const ListCell *other;

	foreach(cell, division->dead)
	{
		SynchroBatchDead *dead = lfirst(cell);

		/* it does no harm to say so several times */
		if (dead->alone)
			result = list_append_unique_ptr(result, dead);
		foreach(other, keys)
		{
			const SynchroBatchKeys *part = lfirst(other);
			const SynchroIdentities *identities = part->identities;
			int			n = identities->nidentity;

			for (int i = 0; part->relid == dead->relid && i < identities->count; i++)
				if (strcmp(synchro_identity_key(&identities->values[i * n], n), dead->text) == 0)
					result = list_append_unique_ptr(result, dead);
		}
	}
	return result;
}

/*
 * Begin a part: what is made of it goes when it ends.
 */
static Part
begin_part(Division *division, const List *keys)
{
	SynchroPass *pass = division->pass;
	Part		part = {0};

	part.context = AllocSetContextCreate(pass->batch_context, "synchro part", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(part.context);
	part.batch = synchro_pass_batch(pass);
	part.batch->keys = slice_keys(keys, 0, PG_INT32_MAX / 2);
	part.batch->dead = dead_of(division, part.batch->keys);
	return part;
}

static void
send_part(Division *division, Part *part, bool commit, bool final)
{
	SynchroPass *pass = division->pass;
	MemoryContext whole = pass->batch_context;

	CHECK_FOR_INTERRUPTS();
	pass->batch_context = part->context;
	MemoryContextSwitchTo(part->context);
	if (!commit)
		part->error = synchro_pass_try(pass, part->batch, false);
	else if (final || !synchro_pass_is_atomic(pass))
		part->error = synchro_pass_push(pass, part->batch, final);
	else
		part->error = synchro_pass_rehearse(pass, part->batch);
	pass->batch_context = whole;
	MemoryContextSwitchTo(part->context);
}

static void
end_part(Division *division, Part *part)
{
	MemoryContextSwitchTo(division->pass->batch_context);
	MemoryContextDelete(part->context);
}

/*
 * Park the first row with a name of before with which a batch fails: with
 * those before it, but not without it.  count: how many the batch has.  False
 * if there is none: only COMMIT fails, which is not tried.
 */
static bool
park_first_old(Division *division, int64 count)
{
	int64		good = 0;		/* with so many it goes through */
	int64		bad = count;
	Part		part;
	bool		found = false;
	bool		parked = false;

	while (!found)
	{
		int64		middle = bad - good > 1 ? (good + bad) / 2 : bad;

		part = begin_part(division, NIL);
		part.batch->max_olds = middle;
		send_part(division, &part, false, false);
		if (part.error != NULL && !synchro_error_is_about_rows(part.error->sqlstate))
			synchro_remote_report(division->pass->link->remote, part.error, "while trying a batch");
		found = middle == bad && bad - good <= 1;
		if (found && part.error != NULL)
		{
			synchro_parking_old(division->pass, &part.batch->last_old, part.error);
			division->nparked++;
			parked = true;
		}
		else if (part.error != NULL)
			bad = middle;
		else
			good = middle;
		end_part(division, &part);
	}
	return parked;
}

/*
 * Push all names of before, but for rows that the remote refuses to call what
 * they are called now, or to take as they are.
 */
static void
push_olds(Division *division)
{
	for (;;)
	{
		Part		part = begin_part(division, NIL);
		int64		count;

		send_part(division, &part, true, false);
		count = part.batch->nolds;
		if (part.error == NULL)
		{
			end_part(division, &part);
			return;
		}
		if (count == 0 || !park_first_old(division, count))
			synchro_quarantine_report(division->pass, part.error);
		end_part(division, &part);
	}
}

static void
park_key(Division *division, const SynchroBatchKeys *keys, int position, const SynchroRemoteError *error)
{
	List	   *one = list_make1(unconstify(SynchroBatchKeys *, keys));
	List	   *dead = dead_of(division, slice_keys(one, position, 1));

	synchro_parking_key(division->pass, keys, position, dead != NIL ? linitial(dead) : NULL, error);
	division->nparked++;
	if (synchro_error_may_need_others(error->sqlstate))
	{
		MemoryContext old = MemoryContextSwitchTo(division->pass->batch_context);
		List	   *kept = slice_keys(one, position, 1);
		SynchroIdentities *identities = ((SynchroBatchKeys *) linitial(kept))->identities;

		/* those of a row that others needed go with the part that needed it */
		for (int i = 0; i < identities->nidentity; i++)
			if (identities->values[i] != NULL)
				identities->values[i] = pstrdup(identities->values[i]);
		division->later = list_concat(division->later, kept);
		MemoryContextSwitchTo(old);
	}
}

static bool divide(Division *division, List *keys, bool known_bad);

/*
 * Push a single row: by itself, or after the rows that it needs.  False if it
 * had to be parked.
 */
static bool
push_single(Division *division, List *keys)
{
	SynchroPass *pass = division->pass;
	Part		part = begin_part(division, keys);
	bool		done;

	part.batch->note_ensured = true;
	send_part(division, &part, true, false);
	if (part.error != NULL && part.batch->ensured_rows != NIL && pass->nesting < MAX_NESTING)
	{
		Part		again;

		pass->nesting++;
		(void) divide(division, part.batch->ensured_rows, false);
		pass->nesting--;
		again = begin_part(division, keys);
		send_part(division, &again, true, false);
		done = again.error == NULL;
		if (!done)
			park_key(division, linitial(keys), 0, again.error);
		end_part(division, &again);
	}
	else
	{
		done = part.error == NULL;
		if (!done)
			park_key(division, linitial(keys), 0, part.error);
	}
	end_part(division, &part);
	return done;
}

/*
 * So much has failed that the rest goes without looking for the rows that are
 * to blame.  All rows of a part get the same reason, so there is one for each
 * table.
 */
static void
park_all(Division *division, const List *keys)
{
	const ListCell *cell;

	foreach(cell, keys)
	{
		const SynchroBatchKeys *table = lfirst(cell);
		Part		part = begin_part(division, list_make1(lfirst(cell)));
		SynchroRemoteError *error;

		send_part(division, &part, true, false);
		if (part.error != NULL)
		{
			error = synchro_parking_shared(division->pass, part.batch, table->relid, part.error);
			for (int i = 0; i < table->identities->count; i++)
				park_key(division, table, i, error);
		}
		end_part(division, &part);
	}
}

/*
 * Push rows, and park those that fail.  known_bad: there is one among them.
 * Returns whether all went through.
 */
static bool
divide(Division *division, List *keys, bool known_bad)
{
	int			count = count_keys(keys);
	MemoryContext context;
	bool		first;
	bool		second;

	if (count == 0)
		return true;
	if (count == 1)
		return push_single(division, keys);
	if (division->nparked >= MAX_SINGLES)
	{
		park_all(division, keys);
		return false;
	}
	if (!known_bad)
	{
		Part		part = begin_part(division, keys);

		send_part(division, &part, true, false);
		first = part.error == NULL;
		end_part(division, &part);
		if (first)
			return true;
	}

	/* on its way down, a list is there for each level */
	context = AllocSetContextCreate(division->pass->batch_context, "synchro division", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	first = divide(division, slice_keys(keys, 0, count / 2), false);
	MemoryContextSwitchTo(context);
	second = divide(division, slice_keys(keys, count / 2, count - count / 2), first);
	MemoryContextSwitchTo(division->pass->batch_context);
	MemoryContextDelete(context);
	return first && second;
}

/*
 * Have rows counted as failed in this pass, or not.
 */
static void
ban(Division *division, const List *keys, bool banned)
{
	const ListCell *cell;

	foreach(cell, keys)
	{
		const SynchroBatchKeys *part = lfirst(cell);
		SynchroParked *parked = synchro_parked_find(division->pass->parked, part->relid,
													part->identities->values, part->identities->nidentity);

		if (parked != NULL)
			parked->banned = banned;
	}
}

/*
 * Push rows together that have failed one by one.
 */
static bool
push_together(Division *division, List *keys)
{
	Part		part;
	bool		done;

	ban(division, keys, false);
	part = begin_part(division, keys);
	send_part(division, &part, true, false);
	done = part.error == NULL;
	end_part(division, &part);
	if (done)
		division->pass->counts.failed -= list_length(keys);
	else
		ban(division, keys, true);
	return done;
}

/*
 * Try what failed by a constraint once more, together, or all but one.
 */
static void
push_later(Division *division)
{
	List	   *later = division->later;

	if (later == NIL || division->nparked >= MAX_SINGLES || push_together(division, later))
		return;
	for (int i = 0; list_length(later) > 2 && list_length(later) <= MAX_LATER && i < list_length(later); i++)
		if (push_together(division, list_delete_nth_cell(list_copy(later), i)))
			return;
}

/*
 * The keys of a list that did not fail.
 */
static List *
keys_left(const Division *division, const List *keys)
{
	const ListCell *cell;
	List	   *result = NIL;

	foreach(cell, keys)
	{
		const SynchroBatchKeys *all = lfirst(cell);
		List	   *one = list_make1(unconstify(SynchroBatchKeys *, all));
		int			n = all->identities->nidentity;

		for (int i = 0; i < all->identities->count; i++)
		{
			SynchroParked *parked = synchro_parked_find(division->pass->parked, all->relid, &all->identities->values[i * n], n);

			if (parked == NULL || !parked->banned)
				result = list_concat(result, slice_keys(one, i, 1));
		}
	}
	return result;
}

/*
 * End the pass: its deletes, one by one if they cannot be done at once.
 * keys: what is to be pushed in the same transaction.
 */
static void
finish(Division *division, const List *keys)
{
	SynchroPass *pass = division->pass;
	Part		part = begin_part(division, keys);
	bool		done;

	send_part(division, &part, true, true);
	done = part.error == NULL;
	end_part(division, &part);
	if (done)
		return;
	synchro_peer_find_leftovers(pass->link);
	part = begin_part(division, keys);
	part.batch->apart = true;
	send_part(division, &part, true, true);
	if (part.error != NULL)
		synchro_quarantine_report(pass, part.error);
	end_part(division, &part);
}

/*
 * Push what can be pushed of a batch that has failed, and park the rest.
 * final: the pass ends with it.
 */
void
synchro_division_push(SynchroPass *pass, SynchroBatch *batch, SynchroRemoteError *error, bool final)
{
	Division	division = {pass};

	ereport(DEBUG1,
			(errmsg_internal("synchro: dividing a batch that has failed with %s: %s", error->sqlstate, error->message)));
	MemoryContextSwitchTo(pass->batch_context);
	division.dead = batch->dead;
	push_olds(&division);
	(void) divide(&division, batch->keys, false);
	push_later(&division);
	if (final)
		finish(&division, synchro_pass_is_atomic(pass) ? keys_left(&division, batch->keys) : NIL);
	MemoryContextSwitchTo(pass->batch_context);
}
