/*-------------------------------------------------------------------------
 *
 * passcopy.c
 *	  What a pass does for copies of whole tables.
 *
 * One piece of one copy a pass, beside what is new in the log.  When the rows
 * of all copies are there, a pass looks for what is on the remote only, of the
 * tables for which that was asked, and deletes it together, so that foreign keys
 * allow it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "applysql.h"
#include "localsql.h"
#include "passwork.h"
#include "settings.h"
#include "stalled.h"

/*
 * Can anything be done for a copy at present?
 *
 * Extra rows are told by their names.  If a table inside the key has stalled, these
 * are not what they are called there: new names of that one's rows wait here.
 */
static bool
is_runnable(const SynchroPass *pass, const SynchroCopy *copy)
{
	const SynchroTable *table = synchro_table_get(copy->relid, true);
	ListCell   *cell;

	if (synchro_stalled_waits(pass->stalled, copy->relid) || table == NULL || !table->watched || table->mode == SYNCHRO_MODE_NONE)
		return false;
	foreach(cell, copy->rows_sent ? synchro_table_with_names(list_make1_oid(copy->relid)) : NIL)
		if (synchro_stalled_waits(pass->stalled, lfirst_oid(cell)))
			return false;
	return true;
}

/*
 * The copies for which something can be done.  Tables are emptied together or
 * not at all: what is emptied alone is soon referred to again.
 */
static List *
runnable_copies(const SynchroPass *pass)
{
	List	   *result = NIL;
	bool		hold = false;
	ListCell   *cell;

	foreach(cell, pass->copies)
		hold |= ((SynchroCopy *) lfirst(cell))->empty && !is_runnable(pass, lfirst(cell));
	foreach(cell, pass->copies)
		if (is_runnable(pass, lfirst(cell)) && !(hold && ((SynchroCopy *) lfirst(cell))->empty))
			result = lappend(result, lfirst(cell));
	return result;
}

/*
 * Does the table refer to one of another copy whose rows are not there yet?
 */
static bool
has_parent_among(const SynchroCopy *copy, const List *others)
{
	const SynchroTable *table = synchro_table_get(copy->relid, false);
	const ListCell *cell;

	foreach(cell, others)
	{
		const SynchroCopy *other = lfirst(cell);

		if (other == copy)
			continue;
		for (int fk = 0; fk < table->nfks; fk++)
			if (table->fks[fk].parent == other->relid)
				return true;
	}
	return false;
}

/*
 * Choose what the pass does: empty tables, which comes first; or the next piece
 * of a copy, parents first; or the deletes that are left.  In the transaction
 * that collects.
 */
void
synchro_pass_choose_copy(SynchroPass *pass)
{
	List	   *waiting = NIL;
	const SynchroCopy *chosen = NULL;
	ListCell   *cell;

	MemoryContextSwitchTo(pass->context);
	pass->copies = synchro_copyqueue_load(pass->link->target->name);
	MemoryContextSwitchTo(pass->context);
	pass->runnable = runnable_copies(pass);
	foreach(cell, pass->runnable)
		if (((SynchroCopy *) lfirst(cell))->empty)
			pass->extras = lappend(pass->extras, lfirst(cell));
	if (pass->extras != NIL)
		return;
	foreach(cell, pass->runnable)
	{
		SynchroCopy *copy = lfirst(cell);

		if (copy->rows_sent)
			pass->extras = lappend(pass->extras, copy);
		else
			waiting = lappend(waiting, copy);
	}
	if (waiting == NIL)
		return;
	pass->extras = NIL;
	foreach(cell, waiting)
	{
		if (chosen == NULL)
			chosen = lfirst(cell);
		if (!has_parent_among(lfirst(cell), waiting))
		{
			chosen = lfirst(cell);
			break;
		}
	}

	/* some room is left for what has changed meanwhile: all of it in one batch */
	pass->chunk = synchro_copychunk_create(chosen, pass->link->target->owner, pass->link->peer_node != NULL,
										   Max(1, (int64) synchro_batch_size * 9 / 10));
}

/*
 * A batch with which tables are emptied.
 */
static SynchroBatch *
emptying_batch(SynchroPass *pass, List *copies)
{
	SynchroBatch *batch = synchro_pass_batch(pass);

	batch->emptied = copies;
	return batch;
}

/*
 * Find the table that cannot be emptied, by trying more and more of them,
 * children first.  InvalidOid if now all can be.
 */
static Oid
find_full_table(SynchroPass *pass)
{
	List	   *copies = NIL;
	List	   *components = synchro_batch_emptied(pass->link, pass->extras);
	ListCell   *cell;

	for (int i = list_length(components) - 1; i >= 0; i--)
	{
		Oid			relid = InvalidOid;

		foreach(cell, (List *) list_nth(components, i))
		{
			relid = ((SynchroLinkTable *) lfirst(cell))->table->relid;
			copies = lappend(copies, unconstify(SynchroCopy *, synchro_copyqueue_find(pass->extras, relid)));
		}
		if (synchro_pass_try(pass, emptying_batch(pass, copies), false) != NULL)
			return relid;
	}
	return InvalidOid;
}

/*
 * Has a statement taken as long as it may?  Then to try which table is to blame
 * would take that time again for each of them, with their rows locked.
 */
static bool
took_too_long(const SynchroRemoteError *error)
{
	return strcmp(error->sqlstate, "57014") == 0;
}

/*
 * Name a table as the one that an error is about, and describe it for that.
 * since: when was begun what has failed?
 */
static const SynchroTable *
suspect_table(SynchroPass *pass, Oid relid, TimestampTz since)
{
	const SynchroTable *table;

	synchro_local_begin("synchro: looking at what has failed");
	table = synchro_table_copy(synchro_table_get(relid, false), pass->context);
	synchro_local_commit();
	MemoryContextSwitchTo(pass->batch_context);
	synchro_suspect_slow(relid, since);
	return table;
}

/*
 * Empty the tables for which that was asked, in one transaction.  If one
 * cannot be, for whatever reason, it stalls, and the others wait for it with being
 * emptied, until the cause is gone.
 */
static void
empty_tables(SynchroPass *pass)
{
	SynchroRemoteError *error;
	const SynchroTable *table;
	TimestampTz began = GetCurrentTimestamp();
	Oid			relid;

	if (pass->link->peer_node != NULL)
	{
		synchro_suspect(((SynchroCopy *) linitial(pass->extras))->relid);
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("tables of remote \"%s\" cannot be emptied", pass->link->target->name),
				 errdetail("It logs changes itself: that its rows were deleted would come back here."),
				 errhint("Run synchro.copy_table() for each table, with delete_extra where rows are found by a natural key: that replaces this.")));
	}
	error = synchro_pass_push(pass, emptying_batch(pass, pass->extras), false);
	if (error == NULL)
		return;
	relid = took_too_long(error) ? InvalidOid : find_full_table(pass);
	table = suspect_table(pass, OidIsValid(relid) ? relid : ((SynchroCopy *) linitial(pass->extras))->relid, began);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table %s of remote \"%s\" cannot be emptied: %s", table->qualified, pass->link->target->name, error->message),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 took_too_long(error) ?
			 errhint("See who holds locks there on this table, or another one that is emptied with it; or raise synchro.statement_timeout.") :
			 errhint("Delete there what is in the way.")));
}

/*
 * A batch that looks for what the remote has and we have not.
 */
static SynchroBatch *
extras_batch(SynchroPass *pass, List *copies)
{
	SynchroBatch *batch = synchro_pass_batch(pass);

	batch->extras = copies;
	return batch;
}

/*
 * Find the table for which that fails: the first that fails by itself, or if
 * none does now, the first.
 */
static Oid
find_unclear_table(SynchroPass *pass, const SynchroRemoteError *error)
{
	ListCell   *cell;

	foreach(cell, list_length(pass->extras) > 1 && !took_too_long(error) ? pass->extras : NIL)
		if (synchro_pass_try(pass, extras_batch(pass, list_make1(lfirst(cell))), false) != NULL)
			return ((SynchroCopy *) lfirst(cell))->relid;
	return ((SynchroCopy *) linitial(pass->extras))->relid;
}

/*
 * Have the remote put on its list of deletes what it has and we have not.
 *
 * If a row with a name of before is in the way, it is for the pass's other
 * batches to park it: then the next pass looks again.  Else the table stalls: a name
 * that the remote's type refuses, say, leaves unknown which row there it is.
 */
static void
find_extras(SynchroPass *pass)
{
	TimestampTz began = GetCurrentTimestamp();
	SynchroRemoteError *error = synchro_pass_push(pass, extras_batch(pass, pass->extras), false);
	List	   *ambiguous;
	const SynchroTable *table;

	if (error == NULL)
		return;
	ambiguous = synchro_quarantine_named(pass->link, error, SYNCHRO_AMBIGUOUS_KEY);
	if (ambiguous != NIL)
	{
		const SynchroLinkTable *lt = ((SynchroNamedRow *) linitial(ambiguous))->lt;

		synchro_suspect(lt->table->relid);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rows of table %s on remote \"%s\" that are not here cannot be told from others",
						lt->table->qualified, pass->link->target->name),
				 errdetail("A natural key matches several rows there."),
				 errhint("Remove the surplus rows, and make a unique index there.")));
	}
	if (pass->changes->nkeys == 0 && pass->changes->nolds == 0)
	{
		table = suspect_table(pass, find_unclear_table(pass, error), began);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rows of table %s on remote \"%s\" that are not here cannot be looked for: %s",
						table->qualified, pass->link->target->name, error->message),
				 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
				 errhint("Mend that, or queue a copy that deletes nothing in place of this one: SELECT synchro.copy_table(%s, %s);",
						 quote_literal_cstr(pass->link->target->name), quote_literal_cstr(table->qualified))));
	}
	pass->extras = NIL;
}

/*
 * Delete what is to go on the remote for the sake of copies.
 */
void
synchro_pass_delete_extras(SynchroPass *pass)
{
	MemoryContextReset(pass->batch_context);
	MemoryContextSwitchTo(pass->batch_context);
	if (((SynchroCopy *) linitial(pass->extras))->empty)
		empty_tables(pass);
	else
		find_extras(pass);
}

/*
 * Say which copies the pass knew of: the oldest that is not done when it has
 * ended, and the newest; 0 if there is none.
 */
void
synchro_pass_copies_left(const SynchroPass *pass, int64 *oldest, int64 *newest)
{
	ListCell   *cell;

	*oldest = *newest = 0;
	foreach(cell, pass->runnable)
	{
		SynchroCopy *copy = lfirst(cell);
		bool		rows_done = pass->chunk != NULL && pass->chunk->step.copy == copy && pass->chunk->step.complete;

		*newest = Max(*newest, copy->id);
		if (!(rows_done && !copy->delete_extra) && (copy->empty || !list_member_ptr(pass->extras, copy)) && *oldest == 0)
			*oldest = copy->id;
	}
}
