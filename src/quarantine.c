/*-------------------------------------------------------------------------
 *
 * quarantine.c
 *	  What an error of the remote means for a batch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "applysql.h"
#include "localsql.h"
#include "passwork.h"
#include "requests.h"
#include "rowerror.h"
#include "stalled.h"

/* how often a batch is tried when others are in its way */
#define MAX_CONFLICT_RETRIES	5

/* so many batches look for names that have changed hands, see crosssql.c */
#define CROSSING_BATCHES		64

/* likewise, that find all their rows by maps, see upsertsql.c */
#define MAPPING_BATCHES			64

/* so many rows with names of before are tried to see whether any goes */
#define MANY_OTHERS				1000

/*
 * Undo what synchro_sql_named_row() does to a key, in place.  Returns where the
 * line ends.
 */
static char *
unescape_key(char *line)
{
	char	   *to = line;

	for (; *line != '\0' && *line != '\n'; line++)
	{
		if (line[0] == '\\' && line[1] == 'n')
			*to++ = '\n';
		else if (line[0] == '\\' && line[1] == '\\')
			*to++ = '\\';
		else
		{
			*to++ = *line;
			continue;
		}
		line++;
	}
	if (*line == '\n')
		line++;
	*to = '\0';
	return line;
}

/*
 * The rows that an error names (SynchroNamedRow), see synchro_sql_named_row().
 * NIL if it is not that error of ours.  A trigger can have raised it, too, and
 * have put anything into it.
 */
List *
synchro_quarantine_named(SynchroLink *link, const SynchroRemoteError *error, const char *sqlstate)
{
	List	   *result = NIL;
	char	   *line;

	if (!error->ours || error->detail == NULL || strcmp(error->sqlstate, sqlstate) != 0)
		return NIL;
	line = pstrdup(error->detail);
	while (*line != '\0')
	{
		SynchroNamedRow *row = palloc(sizeof(SynchroNamedRow));
		char	   *end;
		long		number = strtol(line, &end, 10);

		row->lt = synchro_link_numbered(link, number, true);
		if (end == line || row->lt == NULL || strncmp(end, " {", 2) != 0)
			return NIL;
		row->key = end + 1;
		line = unescape_key(row->key);
		if (row->key[strlen(row->key) - 1] != '}')
			return NIL;
		result = lappend(result, row);
	}
	return result;
}

/*
 * Parents are missing on the remote: have them pushed along.  False if that
 * was done already, and they are missing still.  Not where their table is left out:
 * its names go by a snapshot of its own, to which they would be new still.
 */
static bool
ensure_parents(SynchroPass *pass, SynchroBatch *batch, const List *parents)
{
	const ListCell *cell;
	bool		any = false;

	foreach(cell, parents)
	{
		Oid			relid = ((SynchroNamedRow *) lfirst(cell))->lt->table->relid;

		if (!list_member_oid(pass->ensured, relid) && !synchro_stalled_waits(pass->stalled, relid))
		{
			MemoryContext old = MemoryContextSwitchTo(pass->context);

			pass->ensured = lappend_oid(pass->ensured, relid);
			MemoryContextSwitchTo(old);
			any = true;
		}
	}
	batch->ensured = pass->ensured;
	return any;
}

/*
 * The remote does not have rows by the names that were kept of them: they are new
 * there.  False if that was known.
 */
static bool
forget_names(SynchroPass *pass, const List *rows)
{
	const ListCell *cell;
	bool		any = false;

	synchro_local_begin("synchro: looking at what waits");
	foreach(cell, rows)
	{
		const SynchroNamedRow *row = lfirst(cell);
		const SynchroTable *table = row->lt->table;
		SynchroBytes identity = synchro_identities_encode_text(table, table->identity, table->nidentity, synchro_unstaged_text(table, row->key));
		SynchroParked *parked = synchro_parked_find_key(pass->parked, table, identity);

		if (parked == NULL || synchro_parked_is_insert(parked, table))
			continue;
		synchro_parked_forget_name(pass->parked, parked, table, identity);
		any = true;
	}
	synchro_local_commit();
	MemoryContextSwitchTo(pass->batch_context);
	return any;
}

/*
 * Does a batch of one of some keys meet such an error?  keys: NULL for a batch of
 * nothing at all.
 */
static bool
one_meets(SynchroPass *pass, const SynchroBatchKeys *keys, int position)
{
	SynchroBatch *trial = synchro_pass_batch(pass);
	SynchroBatchKeys one = {0};
	SynchroRemoteError *error;

	trial->max_olds = 0;
	if (keys != NULL)
	{
		one.relid = keys->relid;
		one.identities = synchro_identities_nth(keys->identities, position);
		trial->keys = list_make1(&one);
	}
	error = synchro_pass_try(pass, trial, false);
	return error != NULL && synchro_error_is_about_definitions(error->sqlstate);
}

/*
 * Does a batch meet such an error with the first so many of the rows that have
 * names of before?  final: the pass's last one, with deletes, those of the link's
 * leftovers, too.  last: set to the last of these rows.
 */
static bool
olds_meet(SynchroPass *pass, int64 nolds, bool final, SynchroBatchOld *last)
{
	SynchroBatch *trial = synchro_pass_batch(pass);
	SynchroRemoteError *error;

	trial->max_olds = nolds;
	error = synchro_pass_try(pass, trial, final);
	*last = trial->last_old;
	return error != NULL && synchro_error_is_about_definitions(error->sqlstate);
}

/*
 * Has that row failed by itself before?
 */
static bool
is_parked_already(SynchroPass *pass, const SynchroBatchOld *old)
{
	const SynchroTable *table;
	bool		result;

	synchro_local_begin("synchro: looking at what has failed");
	table = synchro_table_get(old->relid, true);
	result = table != NULL && synchro_parked_find_key(pass->parked, table, old->key.identity) != NULL;
	synchro_local_commit();
	MemoryContextSwitchTo(pass->batch_context);
	return result;
}

/*
 * Do others of its table, of those that come after the first so many, go through?
 */
static bool
others_go(SynchroPass *pass, Oid relid, int64 nolds)
{
	SynchroBatch *trial = synchro_pass_batch(pass);
	SynchroRemoteError *error;
	ListCell   *cell;

	trial->skipped_olds = nolds;
	trial->max_olds = nolds + MANY_OTHERS;
	trial->note_olds = true;
	error = synchro_pass_try(pass, trial, true);
	if (error != NULL && synchro_error_is_about_definitions(error->sqlstate))
		return false;
	foreach(cell, trial->all_olds)
		if (((SynchroBatchOld *) lfirst(cell))->relid == relid)
			return true;
	return false;
}

/*
 * Find the table whose names of before, or deletes, meet such an error: among
 * the deletes that earlier batches have left to the last one, or of this batch, by
 * halves.  Returns it; InvalidOid if there is none, or it is for a row.
 */
static Oid
find_suspect_of_olds(SynchroPass *pass, const SynchroBatch *batch)
{
	List	   *leftovers = pass->link->leftovers;
	SynchroBatchOld tried;
	SynchroBatchOld last;		/* of the first of bad */
	SynchroBatchOld before = {0};	/* of the first of good */
	Oid			found = InvalidOid;
	int64		good = 0;
	int64		bad = batch->nolds;
	ListCell   *cell;

	foreach(cell, leftovers)
	{
		pass->link->leftovers = list_make1(lfirst(cell));
		if (!olds_meet(pass, 0, true, &tried))
			continue;
		synchro_local_begin("synchro: looking at what has failed");
		found = synchro_table_by_name(lfirst(cell));
		synchro_local_commit();
		MemoryContextSwitchTo(pass->batch_context);
		break;
	}
	pass->link->leftovers = NIL;
	if (!OidIsValid(found) && bad > 0 && olds_meet(pass, bad, true, &last))
	{
		/* with the first of good it goes through, with the first of bad not */
		while (bad - good > 1)
		{
			int64		middle = (good + bad) / 2;

			CHECK_FOR_INTERRUPTS();
			if (olds_meet(pass, middle, true, &tried))
			{
				bad = middle;
				last = tried;
			}
			else
			{
				good = middle;
				before = tried;
			}
		}

		/*
		 * If the one before is of the same table, or others after it go, or the row has
		 * failed by itself before, that one's definition is not to
		 * blame.  A row that is to be deleted is left to its table all the same:
		 * deletes are tried one by one, but not for such errors.
		 */
		if ((before.relid != last.relid && !is_parked_already(pass, &last) && !others_go(pass, last.relid, bad)) ||
			!olds_meet(pass, bad, false, &tried))
			found = last.relid;
	}
	pass->link->leftovers = leftovers;
	return found;
}

/*
 * Do all of some keys meet such an error, by what can be told from a few?  Of those
 * that are parked that was told before.
 */
static bool
all_meet(SynchroPass *pass, const SynchroBatchKeys *keys)
{
	const SynchroIdentities *identities = keys->identities;
	int		   *fresh = palloc(sizeof(int) * identities->count);
	int			count = 0;

	for (int i = 0; i < identities->count; i++)
		if (synchro_parked_find(pass->parked, keys->relid, &identities->values[i * identities->nidentity], identities->nidentity) == NULL)
			fresh[count++] = i;
	return count > 0 && one_meets(pass, keys, fresh[0]) &&
		(count < 2 || one_meets(pass, keys, fresh[count - 1])) &&
		(count < 3 || one_meets(pass, keys, fresh[count / 2]));
}

/*
 * Find the table with which a batch meets such an error, by trying rows of each
 * by themselves, and name it as the suspect.  Of deletes there is no row: they
 * are names, and are done by the pass's last batch.
 *
 * Returns true if it is not for a table's definition: where one row meets it and
 * another of the table does not, or none of those that are tried, some row has a
 * value that is a name, as of a type or a table, or a trigger has raised it.
 *
 * olds: names of before are looked at, too.
 */
static bool
find_suspect(SynchroPass *pass, const SynchroBatch *batch, bool olds)
{
	List	   *all = list_concat_copy(batch->keys, batch->named);
	List	   *tried = NIL;
	Oid			suspect = InvalidOid;
	ListCell   *cell;

	if (one_meets(pass, NULL, 0))
		return false;
	foreach(cell, all)
	{
		const SynchroBatchKeys *keys = lfirst(cell);

		if (keys->identities->count == 0 || list_member_oid(tried, keys->relid))
			continue;
		tried = lappend_oid(tried, keys->relid);
		if (all_meet(pass, keys))
		{
			synchro_suspect(keys->relid);
			return false;
		}
	}
	if (olds)
		synchro_suspect(suspect = find_suspect_of_olds(pass, batch));
	return !OidIsValid(suspect);
}

/*
 * Where others change rows of a batch faster than it is applied, each try meets
 * some that the one before has not.  And one that takes longer than a statement may
 * does so each time.  A part of it takes less time and has fewer rows.
 */
static bool
may_be_divided(const SynchroPass *pass, const SynchroBatch *batch)
{
	return synchro_batch_count_keys(batch->keys) > 1 && pass->link->preview == NULL && !pass->atomic;
}

/*
 * Raise an error if it says that the remote is not the node any more that it was
 * when it was met, or has become one, or is none any more.  Whoever has the link
 * meets it anew.
 */
void
synchro_quarantine_require_node(SynchroLink *link, const SynchroRemoteError *error)
{
	const char *state = error->sqlstate;
	bool		is_another = error->statement < SYNCHRO_FENCE_STATEMENTS && strcmp(state, SYNCHRO_OTHER_NODE) == 0;

	/* where it is none any more, there is no such schema or function */
	bool		is_none = link->peer_node != NULL && error->statement == SYNCHRO_NODE_STATEMENT &&
		(strcmp(state, "3F000") == 0 || strcmp(state, "42883") == 0);

	/* confirm_node() is for a copy, which its administrator is to see has been noticed; this is how nodes are set up */
	link->is_other = is_none || strcmp(state, SYNCHRO_NODE_THERE) == 0;
	if (!is_another && !link->is_other)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 is_another ? errmsg("remote \"%s\" has become another node while it was connected", link->target->name) :
			 link->peer_node == NULL ? errmsg("remote \"%s\" has become a node while it was connected", link->target->name) :
			 errmsg("remote \"%s\" has ceased to be the node that it was while it was connected", link->target->name),
			 errhint("Synchronize again.")));
}

/*
 * Decide what to do about an error: true if the batch is to be tried again,
 * false if a row of it is to blame, or others are in the way of so many.  Others
 * are raised.
 *
 * retries: how often others were in the way; counted here.
 */
bool
synchro_quarantine_again(SynchroPass *pass, SynchroBatch *batch, SynchroRemoteError *error, int *retries)
{
	const char *state = error->sqlstate;
	List	   *parents = synchro_quarantine_named(pass->link, error, SYNCHRO_MISSING_PARENTS);
	List	   *not_there = synchro_quarantine_named(pass->link, error, SYNCHRO_NOT_THERE);

	if (error->lost)
		synchro_remote_report(pass->link->remote, error, "while applying a batch");
	if (error->statement < SYNCHRO_FENCE_STATEMENTS && strcmp(state, "22012") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("another worker has moved the position of remote \"%s\"",
						pass->link->target->name)));

	synchro_quarantine_require_node(pass->link, error);

	/* as with the next one, once: a trigger may say so again and again */
	if (strcmp(state, SYNCHRO_RENAMED_THERE) == 0 && pass->link->crossing == 0)
	{
		pass->link->crossing = CROSSING_BATCHES;
		return true;
	}
	if (strcmp(state, SYNCHRO_DELETED_THERE) == 0 && pass->link->mapping == 0)
	{
		pass->link->mapping = MAPPING_BATCHES;
		return true;
	}
	if (batch->straight != NULL)
	{
		/* whatever is wrong with its rows shows when they are staged */
		batch->may_be_straight = false;
		return pass->no_straight = true;
	}

	/* a value that the remote's type refuses: only COPY says of which column */
	if (strncmp(state, "22", 2) == 0 && !batch->by_copy)
		return batch->by_copy = true;
	if (parents != NIL)
		return ensure_parents(pass, batch, parents);
	if (not_there != NIL)
		return forget_names(pass, not_there);
	if ((strcmp(state, "23505") == 0 || strcmp(state, "23P01") == 0) && !batch->careful)
	{
		/* the constraint may be younger than what we know of the table */
		synchro_link_forget(pass->link);
		return batch->careful = true;
	}
	if (strcmp(state, SYNCHRO_ALTERED) == 0)
		synchro_link_forget(pass->link);
	if ((strncmp(state, "40", 2) == 0 || strcmp(state, "55P03") == 0) &&
		++*retries <= MAX_CONFLICT_RETRIES)
		return true;
	if ((strncmp(state, "40", 2) == 0 || strcmp(state, "57014") == 0) && may_be_divided(pass, batch))
	{
		pass->batch_rows = Max(pass->batch_rows / 2, 1);
		return false;
	}
	if (synchro_error_is_about_definitions(state) && pass->blames_rows)
		return false;
	if (synchro_error_is_about_definitions(state) && !batch->looked_again)
	{
		/* the tables may have been altered since they were described */
		synchro_link_forget(pass->link);
		return batch->looked_again = true;
	}

	/* whoever pushes it finds out which table that is for: see passcopy.c */
	if (batch->emptied != NIL || batch->extras != NIL)
		return false;
	if (synchro_error_is_about_definitions(state) && find_suspect(pass, batch, batch->snapshot != NULL))
	{
		/* until the batch has been divided */
		pass->blames_rows = true;
		return false;
	}
	if (!synchro_error_is_about_rows(state))
		synchro_remote_report(pass->link->remote, error, "while applying a batch");
	return false;
}

/*
 * Names of before have met an error that is no row's, when they were tried by
 * themselves: raise it, about a table if it is for the definition of one.  Returns
 * if it is taken for a row's, and from now on in this pass.
 */
void
synchro_quarantine_olds(SynchroPass *pass, const SynchroBatch *batch, const SynchroRemoteError *error)
{
	if (!synchro_error_is_about_definitions(error->sqlstate) || !find_suspect(pass, batch, true))
		synchro_remote_report(pass->link->remote, error, "while trying a batch");
	pass->blames_rows = true;
}

/*
 * Raise an error that no row could be found for.
 */
void
synchro_quarantine_report(SynchroPass *pass, const SynchroRemoteError *error)
{
	const char *s = error->sqlstate;

	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4])),
			 error->here ? errmsg_internal("%s", error->message) :
			 errmsg("remote \"%s\": %s", pass->link->target->name, error->message),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 errhint("No single row is to blame. Mend the cause on the remote, and synchronize again.")));
}
