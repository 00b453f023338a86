/*-------------------------------------------------------------------------
 *
 * divisionolds.c
 *	  Names of before, of a batch that the remote would not take: which of them
 *	  are to blame.
 *
 * They cannot be left to a later batch, since with it the remote's names are as
 * of its snapshot, and each may need those that come before it.  So there are no
 * parts: the first so many are tried, and what has failed is parked, until all
 * that are left go through.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "division.h"
#include "localsql.h"

/* from so many failures on it is taken that those that are to blame follow one another */
#define MANY_OLDS		16

/* from so many on, or when so many rows have been tried since, they are not looked for one by one */
#define MAX_SINGLES		250
#define MAX_TRIED		10000000

/* those of a batch */
typedef struct Olds
{
	SynchroDivision *division;
	SynchroPrefix prefix;		/* in the order in which they are read */
	int64		ntried;			/* each as often as it was, since many failed */
	int			nfound;			/* that are to blame */
	List	   *later;			/* of SynchroLater: they may go through together */
} Olds;

static bool
looks_for_each(const Olds *olds)
{
	return olds->nfound < MAX_SINGLES && olds->ntried < MAX_TRIED;
}

/*
 * The row of a name of before as a key: one whose reference has followed has none
 * any more (synchro_parking_old()).  NULL if its table is gone.
 */
static SynchroBatchKeys *
keys_of(const SynchroBatchOld *old)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroBatchKeys *keys = palloc0(sizeof(SynchroBatchKeys));
	const SynchroTable *table;

	synchro_local_begin("synchro: looking up what has failed");
	MemoryContextSwitchTo(context);
	table = synchro_table_get(old->relid, true);
	if (table != NULL)
	{
		keys->relid = old->relid;
		keys->identities = synchro_identities_create(table);
		synchro_identities_decode(keys->identities, table, old->key.identity);
		synchro_identities_stamp(keys->identities, old->key.changed, old->key.born);
	}
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	return table != NULL ? keys : NULL;
}

/*
 * Try the first so many together.  blame: without the last of them they go
 * through, so if they do not, that one is parked.
 */
static bool
try_olds(void *arg, int64 count, bool blame)
{
	Olds	   *olds = arg;
	SynchroDivision *division = olds->division;
	SynchroPart part = synchro_part_begin(division, NIL);
	bool		done;

	part.batch->max_olds = count;
	synchro_part_send(division, &part, false, false);
	if (part.error != NULL && !synchro_division_is_about_rows(division, part.error))
		synchro_quarantine_olds(division->pass, part.batch, part.error);
	if (olds->nfound >= MANY_OLDS)
		olds->ntried += count;
	done = part.error == NULL;
	if (!done && blame)
	{
		SynchroParked *parked = synchro_parking_old(division->pass, &part.batch->last_old, part.error, false);

		synchro_later_add(division, &olds->later, parked,
						  parked != NULL && parked->moves ? keys_of(&part.batch->last_old) : NULL, part.error);
		olds->nfound++;
	}
	synchro_part_end(division, &part);
	return done;
}

/*
 * Park one with which the batch fails.  bad, count: see synchro_prefix_blame().
 * False if there is none: only COMMIT fails, which is not tried.
 */
static bool
park_one(Olds *olds, int64 bad, int64 count)
{
	SynchroPrefix *prefix = &olds->prefix;

	/* one of them may take a name that the row which was parked keeps now */
	if (prefix->good > 0 && !try_olds(olds, prefix->good, false))
		prefix->good = 0;
	return synchro_prefix_blame(prefix, bad, count);
}

/*
 * All that are left have gone through: see synchro_division_olds_again().
 */
static void
note_pushed(SynchroDivision *division, const SynchroBatch *batch)
{
	division->has_olds = division->pass->atomic && batch->nolds > 0;
}

/*
 * Push all that are left, or park those that come after the first so many.
 */
static bool
push_or_park(Olds *olds, int64 count)
{
	SynchroDivision *division = olds->division;
	SynchroPart part = synchro_part_begin(division, NIL);
	bool		done;
	SynchroRemoteError *error = NULL;
	Oid			relid = InvalidOid;
	ListCell   *cell;

	part.batch->note_olds = true;
	synchro_part_send(division, &part, true, false);
	done = part.error == NULL;
	if (done)
		note_pushed(division, part.batch);
	else if (part.batch->all_olds == NIL)
		synchro_quarantine_report(division->pass, part.error);
	foreach(cell, done ? NIL : part.batch->all_olds)
	{
		const SynchroBatchOld *old = lfirst(cell);

		if (foreach_current_index(cell) < count)
			continue;
		if (old->relid != relid)
			error = synchro_parking_shared(division->pass, part.batch, old->relid, part.error);
		relid = old->relid;
		(void) synchro_parking_old(division->pass, old, error, true);
	}
	synchro_part_end(division, &part);
	return done;
}

/*
 * So much has failed that the rest goes together, or waits: but for those that
 * are known to go.
 */
static void
park_rest(Olds *olds)
{
	int64		good = olds->prefix.good;

	if (good > 0 && !try_olds(olds, good, false))
		good = 0;
	if (!push_or_park(olds, good) && good > 0)
		(void) push_or_park(olds, 0);
}

/*
 * Push all names of before, but for rows that the remote refuses to call what
 * they are called now, or to take as they are.
 *
 * As long as few have failed, all of the others are tried after each: rows that
 * exchange their names go through together only.  Those that were parked
 * because the first of them was tried without the others are tried together when
 * these have gone.  That can wait: what is parked has its name of before.
 */
static void
push_olds(SynchroDivision *division)
{
	Olds		olds = {division, {try_olds, &olds}};

	division->olds_turn = synchro_parked_turn(division->pass->parked, MAX_SINGLES);
	for (;;)
	{
		SynchroPart part = synchro_part_begin(division, NIL);
		int			before = olds.nfound;
		bool		many = before >= MANY_OLDS;
		int64		count;

		synchro_part_send(division, &part, true, false);
		if (part.error == NULL)
		{
			note_pushed(division, part.batch);
			synchro_part_end(division, &part);
			synchro_later_push(division, olds.later, NIL);
			return;
		}
		count = part.batch->nolds;
		while (count > 0 && looks_for_each(&olds) && park_one(&olds, many ? 0 : count, count) && many)
			count--;
		if (olds.nfound == before && looks_for_each(&olds))
			synchro_quarantine_report(division->pass, part.error);
		synchro_part_end(division, &part);
		if (!looks_for_each(&olds))
		{
			park_rest(&olds);
			return;
		}
	}
}

/*
 * The same.  Of its parts none is looked into for such names (synchro_part_send()).
 */
void
synchro_division_push_olds(SynchroDivision *division)
{
	division->pushes_olds = true;
	push_olds(division);
	division->pushes_olds = false;
}

/*
 * In one transaction with all else, names of before have been tried when rows that have been
 * refused since still seemed to come.  Who refers to these by their names waits with them
 * (claimsql.c, synchro_sql_forget_unborn()): else no part would go through any more.
 */
void
synchro_division_olds_again(SynchroDivision *division)
{
	if (!division->unborn)
		return;
	division->unborn = false;
	synchro_division_push_olds(division);
}
