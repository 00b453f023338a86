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
 * at once, when that goes through: see divisionwhole.c.
 *
 * What may have failed only because of the order is tried once more together
 * when all else is through, see divisionlater.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "division.h"
#include "rowerror.h"

/* from so many failures on, rows are not looked for one by one */
#define MAX_SINGLES		1000

/* parents of parents that are pushed for a single row */
#define MAX_NESTING		8

/* how often a part is tried again since rows were refused that have lost names meanwhile */
#define MAX_OTHER_OLDS	5

/*
 * Some of a list's keys, as a list of its own: reading a batch takes out of
 * its keys what it has already.
 */
List *
synchro_division_slice(const List *keys, int first, int count)
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
dead_of(const SynchroDivision *division, const List *keys)
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
SynchroPart
synchro_part_begin(SynchroDivision *division, const List *keys)
{
	SynchroPass *pass = division->pass;
	SynchroPart part = {0};

	part.context = AllocSetContextCreate(pass->batch_context, "synchro part", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(part.context);
	part.batch = synchro_pass_batch(pass);
	part.batch->keys = synchro_division_slice(keys, 0, PG_INT32_MAX / 2);
	part.batch->dead = dead_of(division, part.batch->keys);
	part.batch->olds_turn = division->olds_turn;
	return part;
}

static void
send_once(SynchroDivision *division, SynchroPart *part, bool commit, bool final)
{
	SynchroPass *pass = division->pass;
	MemoryContext whole = pass->batch_context;

	CHECK_FOR_INTERRUPTS();
	pass->batch_context = part->context;
	MemoryContextSwitchTo(part->context);
	if (!commit)
		part->error = synchro_pass_try(pass, part->batch, false);
	else if (final || !pass->atomic)
		part->error = synchro_pass_push(pass, part->batch, final);
	else
		part->error = synchro_pass_rehearse(pass, part->batch);
	pass->batch_context = whole;
	MemoryContextSwitchTo(part->context);
}

/*
 * Has the part names of before that have not gone through since their rows were changed
 * last?
 */
static bool
has_other_olds(const SynchroDivision *division, const SynchroPart *part)
{
	return part->batch->nolds > 0 && part->batch->olds_mark != division->olds_mark;
}

/*
 * Send a part.
 *
 * It has the names that rows have lost meanwhile, too, and if one of these rows is refused,
 * so is each part that comes after, whatever is in it.  So if it fails, and has such
 * names, they are pushed by themselves first, and what is refused of them is parked.
 * By then there may be others.  If none was refused the part is tried once more all the
 * same, as it may have been one that was mended since.
 */
void
synchro_part_send(SynchroDivision *division, SynchroPart *part, bool commit, bool final)
{
	SynchroPass *pass = division->pass;
	int64		failed;

	send_once(division, part, commit, final);
	for (int i = 0; part->error != NULL && !division->pushes_olds && has_other_olds(division, part) && i < MAX_OTHER_OLDS; i++)
	{
		failed = pass->counts.failed;
		synchro_division_push_olds(division);
		send_once(division, part, commit, final);
		if (pass->counts.failed == failed)
			break;
	}

	/* what is committed is not in the next part any more */
	if (part->error == NULL && commit && pass->atomic)
		division->olds_mark = part->batch->olds_mark;
}

void
synchro_part_end(SynchroDivision *division, SynchroPart *part)
{
	MemoryContextSwitchTo(division->pass->batch_context);
	MemoryContextDelete(part->context);
}

/*
 * Is a row to blame for an error?
 */
bool
synchro_division_is_about_rows(const SynchroDivision *division, const SynchroRemoteError *error)
{
	return error->here || synchro_error_is_about_rows(error->sqlstate) ||
		(division->pass->blames_rows && synchro_error_is_about_definitions(error->sqlstate));
}

/*
 * Raise an error for which no row is to blame.
 */
void
synchro_division_require_about_rows(const SynchroDivision *division, const SynchroRemoteError *error)
{
	if (!synchro_division_is_about_rows(division, error))
		synchro_remote_report(division->pass->link->remote, error, "while trying a batch");
}

/*
 * Park a row, and note it if it may go through together with others.  shared:
 * see synchro_parking_key().
 */
void
synchro_division_park(SynchroDivision *division, const SynchroBatchKeys *keys, int position,
					  const SynchroRemoteError *error, bool shared)
{
	List	   *one = synchro_division_slice(list_make1(unconstify(SynchroBatchKeys *, keys)), position, 1);
	List	   *dead = dead_of(division, one);
	SynchroParked *parked;

	parked = synchro_parking_key(division->pass, keys, position, dead != NIL ? linitial(dead) : NULL, error, shared);
	division->nparked++;
	if (division->has_olds && parked != NULL && SYNCHRO_PARKED_OP(parked) == SYNCHRO_OP_INSERT)
		division->unborn = true;
	synchro_later_add(division, &division->later, parked, linitial(one), error);
}

static bool divide(SynchroDivision *division, List *keys, bool known_bad);

/*
 * Push a single row: by itself, or after the rows that it needs.  False if it
 * had to be parked.
 */
static bool
push_single(SynchroDivision *division, List *keys)
{
	SynchroPass *pass = division->pass;
	SynchroPart part = synchro_part_begin(division, keys);
	bool		done;

	part.batch->note_ensured = true;
	synchro_part_send(division, &part, true, false);
	if (part.error != NULL && part.batch->ensured_rows != NIL && pass->nesting < MAX_NESTING)
	{
		SynchroPart again;

		pass->nesting++;
		(void) divide(division, part.batch->ensured_rows, false);
		pass->nesting--;
		synchro_division_olds_again(division);
		again = synchro_part_begin(division, keys);
		synchro_part_send(division, &again, true, false);
		done = again.error == NULL;
		if (!done)
			synchro_division_park(division, linitial(keys), 0, again.error, false);
		synchro_part_end(division, &again);
	}
	else
	{
		done = part.error == NULL;
		if (!done)
			synchro_division_park(division, linitial(keys), 0, part.error, false);
	}
	synchro_part_end(division, &part);
	return done;
}

/*
 * So much has failed that the rest goes without looking for the rows that are
 * to blame.  All rows of a part get the same reason, so there is one for each
 * table.
 */
static void
park_all(SynchroDivision *division, const List *keys)
{
	const ListCell *cell;

	foreach(cell, keys)
	{
		const SynchroBatchKeys *table = lfirst(cell);
		SynchroPart part = synchro_part_begin(division, list_make1(lfirst(cell)));
		SynchroRemoteError *error;

		synchro_part_send(division, &part, true, false);
		if (part.error != NULL)
		{
			synchro_division_require_about_rows(division, part.error);
			error = synchro_parking_shared(division->pass, part.batch, table->relid, part.error);
			for (int i = 0; i < table->identities->count; i++)
				synchro_division_park(division, table, i, error, true);
		}
		synchro_part_end(division, &part);
	}
}

/*
 * Push rows, and park those that fail.  known_bad: there is one among them.
 * Returns whether all went through.
 */
static bool
divide(SynchroDivision *division, List *keys, bool known_bad)
{
	int			count = synchro_batch_count_keys(keys);
	MemoryContext context;
	bool		first;
	bool		second;

	if (count == 0)
		return true;
	synchro_division_olds_again(division);
	if (count == 1)
		return push_single(division, keys);
	if (division->nparked >= MAX_SINGLES)
	{
		park_all(division, keys);
		return false;
	}
	if (!known_bad)
	{
		SynchroPart part = synchro_part_begin(division, keys);

		synchro_part_send(division, &part, true, false);
		first = part.error == NULL;
		synchro_part_end(division, &part);
		if (first)
			return true;
	}

	/* on its way down, a list is there for each level */
	context = AllocSetContextCreate(division->pass->batch_context, "synchro division", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	first = divide(division, synchro_division_slice(keys, 0, count / 2), false);
	MemoryContextSwitchTo(context);
	second = divide(division, synchro_division_slice(keys, count / 2, count - count / 2), first);
	MemoryContextSwitchTo(division->pass->batch_context);
	MemoryContextDelete(context);
	return first && second;
}

/*
 * The keys of a list that did not fail.
 */
List *
synchro_division_keys_left(const SynchroDivision *division, const List *keys)
{
	const ListCell *cell;
	List	   *result = NIL;

	foreach(cell, keys)
	{
		const SynchroBatchKeys *all = lfirst(cell);
		List	   *one = list_make1(unconstify(SynchroBatchKeys *, all));
		int			n = all->identities->nidentity;
		int			first = 0;

		for (int i = 0; i < all->identities->count; i++)
		{
			SynchroParked *parked = synchro_parked_find(division->pass->parked, all->relid, &all->identities->values[i * n], n);

			if (parked == NULL || !parked->banned)
				continue;
			result = list_concat(result, synchro_division_slice(one, first, i - first));
			first = i + 1;
		}
		result = list_concat(result, synchro_division_slice(one, first, all->identities->count - first));
	}
	return result;
}

/*
 * End the pass: its deletes, one by one if they cannot be done at once.
 * keys: what is to be pushed in the same transaction.
 */
static void
finish(SynchroDivision *division, const List *keys)
{
	SynchroPass *pass = division->pass;
	SynchroPart part = synchro_part_begin(division, keys);
	bool		done;

	synchro_part_send(division, &part, true, true);
	done = part.error == NULL;
	synchro_part_end(division, &part);
	if (done)
		return;
	synchro_peer_find_leftovers(pass->link);
	synchro_pass_leave_out_leftovers(pass);
	part = synchro_part_begin(division, keys);
	part.batch->apart = true;
	synchro_part_send(division, &part, true, true);
	if (part.error != NULL)
		synchro_quarantine_report(pass, part.error);
	synchro_part_end(division, &part);
}

/*
 * Push what can be pushed of a batch that has failed, and park the rest.  If
 * others were in the way of so many rows, it goes in parts.  final: the pass ends
 * with it.
 */
void
synchro_division_push(SynchroPass *pass, SynchroBatch *batch, SynchroRemoteError *error, bool final)
{
	SynchroDivision division = {pass, .olds_turn = PG_INT64_MAX};
	bool		atomic = pass->atomic;
	List	   *keys;

	ereport(DEBUG1,
			(errmsg_internal("synchro: dividing a batch that has failed with %s: %s", error->sqlstate, error->message)));
	MemoryContextSwitchTo(pass->batch_context);
	division.dead = batch->dead;
	synchro_division_push_olds(&division);
	keys = synchro_division_by_turn(pass, batch->keys);
	(void) divide(&division, keys, !synchro_error_is_about_rows(error->sqlstate));
	if (atomic)
		synchro_division_join(&division, keys);
	if (division.nparked < MAX_SINGLES)
		synchro_later_push(&division, division.later, atomic ? synchro_division_keys_left(&division, keys) : NIL);
	if (final)
		finish(&division, atomic ? synchro_division_keys_left(&division, keys) : NIL);
	pass->blames_rows = false;
	MemoryContextSwitchTo(pass->batch_context);
}
