/*-------------------------------------------------------------------------
 *
 * divisionturn.c
 *	  Whose turn it is, of more bad rows than are looked for one by one.
 *
 * Were rows always tried in the same order, the same first ones would be found
 * to be bad each time, and what comes after them would be parked with them,
 * good or bad, for ever.  So what has never failed by itself comes first, then
 * what has failed so longest ago.  With n bad rows, of which so
 * many are looked for in a pass (MAX_SINGLES), each has been tried by itself, or
 * gone through with others, after n / MAX_SINGLES + 1 passes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "division.h"

/* a row among those of its table */
typedef struct Turn
{
	TimestampTz alone;
	int			position;
} Turn;

static int
compare_turns(const void *a, const void *b)
{
	const Turn *x = a;
	const Turn *y = b;

	if (x->alone != y->alone)
		return x->alone < y->alone ? -1 : 1;
	return x->position < y->position ? -1 : 1;
}

static SynchroBatchKeys *
sort_keys(const SynchroParkedSet *set, const SynchroBatchKeys *keys)
{
	SynchroBatchKeys *result = linitial(synchro_division_slice(list_make1(unconstify(SynchroBatchKeys *, keys)), 0, keys->identities->count));
	const SynchroIdentities *from = keys->identities;
	SynchroIdentities *to = result->identities;
	int			n = from->nidentity;
	Turn	   *turns = palloc(sizeof(Turn) * from->count);

	for (int i = 0; i < from->count; i++)
	{
		const SynchroParked *parked = synchro_parked_find(set, keys->relid, &from->values[i * n], n);

		turns[i].alone = parked != NULL ? parked->alone : 0;
		turns[i].position = i;
	}
	qsort(turns, from->count, sizeof(Turn), compare_turns);
	for (int i = 0; i < from->count; i++)
	{
		memcpy(&to->values[i * n], &from->values[turns[i].position * n], sizeof(char *) * n);
		if (from->stamps != NULL)
			to->stamps[i] = from->stamps[turns[i].position];
	}
	pfree(turns);
	return result;
}

/*
 * A batch's keys, of each table in the order in which they have their turn.
 */
List *
synchro_division_by_turn(const SynchroPass *pass, List *keys)
{
	List	   *result = NIL;
	ListCell   *cell;

	if (pass->parked->count == 0)
		return keys;
	foreach(cell, keys)
		if (((SynchroBatchKeys *) lfirst(cell))->identities->count > 0)
			result = lappend(result, sort_keys(pass->parked, lfirst(cell)));
	return result;
}
