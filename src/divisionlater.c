/*-------------------------------------------------------------------------
 *
 * divisionlater.c
 *	  Rows that have failed one by one, and may go through together: rows that
 *	  exchange unique values or names, need each other, or of which a deferred
 *	  trigger wants several, such as both sides of an entry.
 *
 * All of them are tried together.  If that fails for the same reason for which
 * one of them has failed by itself, nothing that goes with it helps that one: it
 * stays parked, and the others are tried without it.  So whoever needed it fails
 * for his own reason next, and what is left in the end are all that can go, as
 * long as errors say whom they are about.  Where an error is none of theirs, a few
 * are tried once more, all but one.
 *
 * That takes at most a try for each row, and MAX_ALL_BUT_ONE more.  They are parked as long
 * as that has not gone through, so nothing is lost by giving up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "applysql.h"
#include "division.h"
#include "rowerror.h"

/* so many rows are tried together but for one */
#define MAX_ALL_BUT_ONE	16

/* so many of those that any trigger has refused: hardly one helps another */
#define MAX_DEFERRED	16

static char *
copy_text(const char *text)
{
	return text != NULL ? pstrdup(text) : NULL;
}

/*
 * What is noted of that row already: one that others need is tried before each of
 * them, and may fail each time.
 */
static SynchroLater *
find_later(const List *later, const SynchroParked *parked)
{
	const ListCell *cell;

	foreach(cell, later)
		if (strcmp(((SynchroLater *) lfirst(cell))->parked->row, parked->row) == 0)
			return lfirst(cell);
	return NULL;
}

/*
 * Note a row that was parked, if it may go through together with others.  keys:
 * of it only, NULL if it has a name of before.
 */
void
synchro_later_add(SynchroDivision *division, List **later, const SynchroParked *parked, SynchroBatchKeys *keys,
				  const SynchroRemoteError *error)
{
	MemoryContext old;
	SynchroLater *row;

	if (parked == NULL)
		return;
	if (!synchro_error_may_need_others(error->sqlstate) &&
		(error->here || !synchro_error_may_be_deferred(error->sqlstate) || division->ndeferred++ >= MAX_DEFERRED))
		return;
	old = MemoryContextSwitchTo(division->pass->batch_context);
	row = find_later(*later, parked);
	if (row == NULL)
	{
		row = palloc0(sizeof(SynchroLater));
		*later = lappend(*later, row);
	}
	row->parked = parked;
	if (keys != NULL)
	{
		SynchroIdentities *identities;

		row->keys = linitial(synchro_division_slice(list_make1(keys), 0, 1));
		identities = row->keys->identities;

		/* those of a row that others needed go with the part that needed it */
		for (int i = 0; i < identities->nidentity; i++)
			identities->values[i] = copy_text(identities->values[i]);
	}
	strlcpy(row->error.sqlstate, error->sqlstate, sizeof(row->error.sqlstate));
	row->error.message = copy_text(error->message);
	row->error.detail = copy_text(error->detail);
	row->error.constraint = copy_text(error->constraint);
	MemoryContextSwitchTo(old);
}

/*
 * Have rows counted as failed in this pass, or not.
 */
static void
ban(SynchroDivision *division, const List *later, bool banned)
{
	const ListCell *cell;

	foreach(cell, later)
	{
		SynchroParked *parked = synchro_parked_again(division->pass->parked, ((SynchroLater *) lfirst(cell))->parked);

		if (parked == NULL)
			continue;
		parked->banned = banned;

		/* or its name of before would wait */
		parked->due = !banned;
	}
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/*
 * Has one text a line that the other has, too?
 */
static bool
share_line(const char *a, const char *b)
{
	for (const char *line = a; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n' ? 1 : 0)
	{
		size_t		len = strcspn(line, "\n");

		for (const char *other = b; *other != '\0'; other += strcspn(other, "\n"), other += *other == '\n' ? 1 : 0)
			if (len > 0 && strcspn(other, "\n") == len && strncmp(line, other, len) == 0)
				return true;
	}
	return false;
}

/*
 * Is it the same reason?  Of parents that are missing there is a line for each.
 */
static bool
same_reason(const SynchroRemoteError *a, const SynchroRemoteError *b)
{
	if (strcmp(a->sqlstate, b->sqlstate) != 0 || !same_text(a->message, b->message) || !same_text(a->constraint, b->constraint))
		return false;
	if (strcmp(a->sqlstate, SYNCHRO_MISSING_PARENTS) == 0 && a->detail != NULL && b->detail != NULL)
		return share_line(a->detail, b->detail);
	return same_text(a->detail, b->detail);
}

/*
 * The rows but for the last one that failed with that reason before, as a list
 * of its own; NIL if there is none.
 */
static List *
without_failed(const List *later, const SynchroRemoteError *error)
{
	for (int i = list_length(later) - 1; i >= 0; i--)
		if (same_reason(&((SynchroLater *) list_nth(later, i))->error, error))
			return list_delete_nth_cell(list_copy(later), i);
	return NIL;
}

/*
 * Try rows together, and with base.  True if they went through; else *left are
 * those that are to be tried next.
 */
static bool
push_together(SynchroDivision *division, const List *later, const List *base, List **left)
{
	List	   *keys = list_copy(base);
	const ListCell *cell;
	MemoryContext context = CurrentMemoryContext;
	SynchroPart part;
	bool		done;

	foreach(cell, later)
		if (((SynchroLater *) lfirst(cell))->keys != NULL)
			keys = lappend(keys, ((SynchroLater *) lfirst(cell))->keys);
	ban(division, later, false);
	part = synchro_part_begin(division, keys);
	synchro_part_send(division, &part, true, false);
	done = part.error == NULL;
	MemoryContextSwitchTo(context);
	*left = done ? NIL : without_failed(later, part.error);
	synchro_part_end(division, &part);
	MemoryContextSwitchTo(context);
	if (done)
		division->pass->counts.failed -= list_length(later);
	else
		ban(division, later, true);
	return done;
}

/*
 * Push those rows that go through together.  base: keys that go in the same
 * transaction, if that is one for all.
 */
void
synchro_later_push(SynchroDivision *division, List *later, const List *base)
{
	List	   *left;

	for (; later != NIL; later = left)
	{
		if (push_together(division, later, base, &left))
			return;
		if (left == NIL)
			break;
	}
	for (int i = 0; list_length(later) > 2 && list_length(later) <= MAX_ALL_BUT_ONE && i < list_length(later); i++)
		if (push_together(division, list_delete_nth_cell(list_copy(later), i), base, &left))
			return;
}
