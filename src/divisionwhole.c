/*-------------------------------------------------------------------------
 *
 * divisionwhole.c
 *	  With synchro.atomic_pass: rows that go through one by one, but not
 *	  together.
 *
 * A part that was only tried is not there for the next one, so two rows that
 * clash with nothing but each other both seem to be good.  So what is left when
 * a batch has been divided is tried as a whole, and as long as that fails the
 * first row is parked with which it does: with those before it, but not without
 * it.  Rows that go together only are none of these: they have failed one by one
 * before, and are tried when the others do not fail any more.
 *
 * With n rows each that is parked takes log2(n) + 2 tries of n rows at most.  After so
 * many, or when so many rows have been tried, the rest is parked as it is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "division.h"

/* from so many failures on it is taken that they follow one another */
#define MANY_FOUND		16

/* as those of names of before, see divisionolds.c */
#define MAX_SINGLES		250
#define MAX_TRIED		10000000

/* what is to go together */
typedef struct Whole
{
	SynchroDivision *division;
	SynchroPrefix prefix;
	List	   *keys;			/* of SynchroBatchKeys: all that did not fail */
	int			nfound;			/* that were parked */
	int64		ntried;			/* each as often as it was */
} Whole;

/*
 * Try the first so many together, see SynchroPrefix.
 */
static bool
try_keys(void *arg, int64 count, bool blame)
{
	Whole	   *whole = arg;
	SynchroDivision *division = whole->division;
	SynchroPart part = synchro_part_begin(division, synchro_division_slice(whole->keys, 0, (int) count));
	bool		done;

	whole->ntried += count;
	synchro_part_send(division, &part, true, false);
	done = part.error == NULL;
	if (!done)
		synchro_division_require_about_rows(division, part.error);
	if (!done && blame)
	{
		synchro_division_park(division, linitial(synchro_division_slice(whole->keys, (int) count - 1, 1)), 0, part.error, false);
		whole->nfound++;
	}
	synchro_part_end(division, &part);
	return done;
}

/*
 * So much has failed that what is not known to go through is parked as it is.
 */
static void
park_rest(Whole *whole)
{
	SynchroDivision *division = whole->division;
	int			good = (int) whole->prefix.good;
	SynchroPart part = synchro_part_begin(division, whole->keys);
	ListCell   *cell;

	synchro_part_send(division, &part, true, false);
	if (part.error != NULL)
	{
		synchro_division_require_about_rows(division, part.error);
		foreach(cell, synchro_division_slice(whole->keys, good, synchro_batch_count_keys(whole->keys) - good))
		{
			const SynchroBatchKeys *table = lfirst(cell);
			SynchroRemoteError *error = synchro_parking_shared(division->pass, part.batch, table->relid, part.error);

			for (int i = 0; i < table->identities->count; i++)
				synchro_division_park(division, table, i, error, true);
		}
	}
	synchro_part_end(division, &part);
}

/*
 * Park one row of what did not fail, or the rest, so that all others may go
 * through together.  False if they do, or that does not help.
 */
static bool
park_any(Whole *whole)
{
	int			count = synchro_batch_count_keys(whole->keys);

	if (count == 0 || try_keys(whole, count, false))
		return false;
	if (whole->nfound < MAX_SINGLES && whole->ntried < MAX_TRIED)
		return synchro_prefix_blame(&whole->prefix, whole->nfound < MANY_FOUND ? count : 0, count);
	park_rest(whole);
	return false;
}

/*
 * Park rows until all that did not fail go through together.  keys: of the
 * batch.
 */
void
synchro_division_join(SynchroDivision *division, const List *keys)
{
	SynchroPass *pass = division->pass;
	Whole		whole = {division, {try_keys, &whole}};
	bool		again = true;

	while (again)
	{
		/* the first ones that are known to go through are the same */
		MemoryContext context = AllocSetContextCreate(pass->batch_context, "synchro whole", ALLOCSET_SMALL_SIZES);

		synchro_division_olds_again(division);
		MemoryContextSwitchTo(context);
		whole.keys = synchro_division_keys_left(division, keys);
		again = park_any(&whole);
		MemoryContextSwitchTo(pass->batch_context);
		MemoryContextDelete(context);
	}
	synchro_division_olds_again(division);
}
