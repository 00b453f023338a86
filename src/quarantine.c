/*-------------------------------------------------------------------------
 *
 * quarantine.c
 *	  What an error of the remote means for a batch, and what is parked.
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
#include "stalled.h"

/* how often a batch is tried when others are in its way */
#define MAX_CONFLICT_RETRIES	5

/* so many batches look for names that have changed hands, see crosssql.c */
#define CROSSING_BATCHES		64

/* likewise, that find all their rows by maps, see upsertsql.c */
#define MAPPING_BATCHES			64

/*
 * Can a row be to blame for an error with that SQLSTATE?  Triggers may raise
 * whatever they like, so all others are.
 */
bool
synchro_error_is_about_rows(const char *state)
{
	static const char *const classes[] = {
		"08",					/* connection */
		"0A", "0B", "25", "26", "28", "2B", "2D", "34", "3B", "3D", "3F",
		"40",					/* rolled back: deadlock, serialization */
		"42",					/* names, definitions, rights */
		"53",					/* resources */
		"55",					/* locks, state of objects */
		"57",					/* shutdown, timeout */
		"58", "72", "F0", "XX001", "XX002"	/* the system, broken data */
	};

	if (strcmp(state, SYNCHRO_MISSING_PARENTS) == 0 || strcmp(state, SYNCHRO_AMBIGUOUS_KEY) == 0)
		return true;
	for (int i = 0; i < lengthof(classes); i++)
		if (strncmp(state, classes[i], strlen(classes[i])) == 0)
			return false;
	return true;
}

/*
 * May a row that has failed so go through together with others?
 */
bool
synchro_error_may_need_others(const char *state)
{
	return strcmp(state, SYNCHRO_MISSING_PARENTS) == 0 || strcmp(state, "23503") == 0 ||
		strcmp(state, "23505") == 0 || strcmp(state, "23P01") == 0;
}

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
 * A key as messages show it: without the braces of the array.
 */
static char *
shown_key(const SynchroNamedRow *row)
{
	return pnstrdup(row->key + 1, strlen(row->key) - 2);
}

/*
 * Parents are missing on the remote: have them pushed along.  False if that
 * was done already, and they are missing still.
 */
static bool
ensure_parents(SynchroPass *pass, SynchroBatch *batch, const List *parents)
{
	const ListCell *cell;
	bool		any = false;

	foreach(cell, parents)
	{
		Oid			relid = ((SynchroNamedRow *) lfirst(cell))->lt->table->relid;

		if (!list_member_oid(pass->ensured, relid))
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
 * Names, definitions, rights: see stalled.c.
 */
static bool
is_about_definitions(const char *state)
{
	return strncmp(state, "42", 2) == 0 || strncmp(state, "0A", 2) == 0 || strcmp(state, "55000") == 0;
}

/*
 * Does a batch of the first of some keys meet such an error?  keys: NULL for a
 * batch of nothing at all.
 */
static bool
first_meets(SynchroPass *pass, const SynchroBatchKeys *keys)
{
	SynchroBatch *trial = synchro_pass_batch(pass);
	SynchroBatchKeys one = {0};
	SynchroRemoteError *error;

	trial->max_olds = 0;
	if (keys != NULL)
	{
		one.relid = keys->relid;
		one.identities = synchro_identities_first(keys->identities);
		trial->keys = list_make1(&one);
	}
	error = synchro_pass_try(pass, trial, false);
	return error != NULL && is_about_definitions(error->sqlstate);
}

/*
 * Does the pass's last batch meet such an error with the first of its rows
 * that have names of before, so many of them, and the deletes of the link's
 * leftovers?  last: set to the last of these rows.
 */
static bool
deletes_meet(SynchroPass *pass, int64 nolds, SynchroBatchOld *last)
{
	SynchroBatch *trial = synchro_pass_batch(pass);
	SynchroRemoteError *error;

	trial->max_olds = nolds;
	error = synchro_pass_try(pass, trial, true);
	*last = trial->last_old;
	return error != NULL && is_about_definitions(error->sqlstate);
}

/*
 * Find the table whose deletes meet such an error: among those that earlier
 * batches have left to the last one, or of this batch, by halves.
 */
static void
find_suspect_of_deletes(SynchroPass *pass, const SynchroBatch *batch)
{
	List	   *leftovers = pass->link->leftovers;
	SynchroBatchOld last;
	Oid			found = InvalidOid;
	int64		good = 0;
	int64		bad = batch->nolds;
	ListCell   *cell;

	foreach(cell, leftovers)
	{
		pass->link->leftovers = list_make1(lfirst(cell));
		if (!deletes_meet(pass, 0, &last))
			continue;
		synchro_local_begin("synchro: looking at what has failed");
		found = synchro_table_by_name(lfirst(cell));
		synchro_local_commit();
		MemoryContextSwitchTo(pass->batch_context);
		break;
	}
	pass->link->leftovers = NIL;
	if (!OidIsValid(found) && bad > 0 && deletes_meet(pass, bad, &last))
	{
		/* with the first of good it goes through, with the first of bad not */
		while (bad - good > 1)
		{
			int64		middle = (good + bad) / 2;

			CHECK_FOR_INTERRUPTS();
			if (deletes_meet(pass, middle, &last))
				bad = middle;
			else
				good = middle;
		}
		(void) deletes_meet(pass, bad, &last);
		found = last.relid;
	}
	pass->link->leftovers = leftovers;
	if (OidIsValid(found))
		synchro_suspect(found);
}

/*
 * Find the table with which a batch meets such an error, by trying a row of
 * each by itself, and name it as the suspect.  Of deletes there is no row: they
 * are names, and are done by the pass's last batch.
 */
static void
find_suspect(SynchroPass *pass, const SynchroBatch *batch)
{
	List	   *all = list_concat_copy(batch->keys, batch->named);
	List	   *tried = NIL;
	ListCell   *cell;

	if (first_meets(pass, NULL))
		return;
	foreach(cell, all)
	{
		const SynchroBatchKeys *keys = lfirst(cell);

		if (keys->identities->count == 0 || list_member_oid(tried, keys->relid))
			continue;
		tried = lappend_oid(tried, keys->relid);
		if (first_meets(pass, keys))
		{
			synchro_suspect(keys->relid);
			return;
		}
	}
	if (batch->snapshot != NULL)
		find_suspect_of_deletes(pass, batch);
}

/*
 * Decide what to do about an error: true if the batch is to be tried again,
 * false if a row of it is to blame.  Others are raised.
 *
 * retries: how often others were in the way; counted here.
 */
bool
synchro_quarantine_again(SynchroPass *pass, SynchroBatch *batch, SynchroRemoteError *error, int *retries)
{
	const char *state = error->sqlstate;
	List	   *parents = synchro_quarantine_named(pass->link, error, SYNCHRO_MISSING_PARENTS);

	if (error->lost)
		synchro_remote_report(pass->link->remote, error, "while applying a batch");
	if (error->statement < SYNCHRO_FENCE_STATEMENTS && strcmp(state, "22012") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("another worker has moved the position of remote \"%s\"",
						pass->link->target->name)));

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
	if (is_about_definitions(state) && !batch->looked_again)
	{
		/* the tables may have been altered since they were described */
		synchro_link_forget(pass->link);
		return batch->looked_again = true;
	}
	if (is_about_definitions(state))
		find_suspect(pass, batch);
	if (!synchro_error_is_about_rows(state))
		synchro_remote_report(pass->link->remote, error, "while applying a batch");
	return false;
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
			 errmsg("remote \"%s\": %s", pass->link->target->name, error->message),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 errhint("No single row is to blame. Mend the cause on the remote, and synchronize again.")));
}

/*
 * If the remote's type of a column has refused a value, name the column: its
 * own message says only what was wrong with the value.
 */
static void
describe_column(SynchroPass *pass, const SynchroRemoteError *error, SynchroFailure *failure)
{
	const char *copy = error->context != NULL ? strstr(error->context, "COPY s_") : NULL;
	int			number;
	int			column;
	ListCell   *cell;

	if (failure->detail != NULL || copy == NULL || sscanf(copy, "COPY s_%d, line %*u, column c%d", &number, &column) != 2)
		return;
	foreach(cell, pass->link->tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (lt->number != number || lt->remote == NULL || column < 0 || column >= lt->table->ncolumns || lt->remote->columns[column].type == NULL)
			continue;
		failure->detail = psprintf("It is the value of column \"%s\" of table %s, which is of type %s on the remote.",
								   lt->table->columns[column].name, lt->table->qualified, lt->remote->columns[column].type);
		failure->hint = "Correct the value here, or make the column's type there the same as here.";
	}
}

/*
 * Say of which parent a row has failed.
 */
static void
describe_missing(SynchroPass *pass, const SynchroNamedRow *parent, SynchroFailure *failure)
{
	const SynchroTable *table = parent->lt->table;

	failure->sqlstate = "23503";
	failure->detail = NULL;
	failure->message = psprintf(synchro_parked_find_text(pass->parked, table, parent->key) != NULL ?
								"row of table %s with key %s, which it references, could not be applied either" :
								"row of table %s with key %s, which it references, does not exist",
								table->qualified, shown_key(parent));
}

/*
 * Say of which row the remote has several.
 */
static void
describe_ambiguous(const SynchroNamedRow *row, SynchroFailure *failure)
{
	const char *table = row->lt->table->qualified;

	failure->sqlstate = "21000";
	failure->message = psprintf("natural key of a row of table %s matches several rows on the remote", table);
	failure->detail = psprintf("The row's key here is %s.", shown_key(row));
	failure->hint = psprintf("Remove the surplus rows and make a unique index there, or allow many: SELECT synchro.alter_table(%s, allow_many => true).",
							 quote_literal_cstr(table));
}

/*
 * Say in a failure what the remote said.  Needs a transaction.
 */
static void
describe(SynchroPass *pass, const SynchroRemoteError *error, SynchroFailure *failure)
{
	List	   *parents = synchro_quarantine_named(pass->link, error, SYNCHRO_MISSING_PARENTS);
	List	   *rows = synchro_quarantine_named(pass->link, error, SYNCHRO_AMBIGUOUS_KEY);

	failure->sqlstate = error->sqlstate;
	failure->message = error->message;
	failure->detail = error->detail;
	failure->hint = error->hint;
	failure->constraint = error->constraint != NULL && error->constraint[0] != '\0' ? error->constraint : NULL;
	if (parents != NIL)
		describe_missing(pass, linitial(parents), failure);
	else if (rows != NIL)
		describe_ambiguous(linitial(rows), failure);
	else
		describe_column(pass, error, failure);
}

/*
 * Park a change that the remote has refused.  In a local transaction.  What
 * there is of it is in failure, but for the reason.  name: by which a preview
 * shows it, or NULL.
 */
static void
park(SynchroPass *pass, Oid relid, SynchroFailure *failure, const SynchroRemoteError *error, const char *name)
{
	const SynchroTable *table = synchro_table_get(relid, true);

	if (table == NULL)
		return;
	failure->table = synchro_table_copy(table, CurrentMemoryContext);
	failure->origin = &synchro_source_find(pass->changes->sources, failure->stamp.source)->origin;
	describe(pass, error, failure);
	if (pass->link->preview == NULL)
		(void) synchro_parked_put(pass->parked, failure);
	else
	{
		SynchroParked *parked = synchro_parked_keep(pass->parked, failure);
		SynchroIdentities identity = {failure->table->nidentity, 1, 1, failure->identity};
		MemoryContext old = MemoryContextSwitchTo(pass->parked->context);

		parked->name = name != NULL ? pstrdup(name) : synchro_identities_text(&identity, 0);
		parked->reason = synchro_preview_reason(failure->sqlstate, failure->message);
		MemoryContextSwitchTo(old);
	}
	pass->counts.failed++;
}

/*
 * What a preview calls a row that has failed: by its natural key, if it is
 * here and the remote's tables can hold it; else NULL.  Waits for the network.
 */
static char *
name_of(SynchroPass *pass, Oid relid, const SynchroIdentities *identities, int position)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext whole = pass->batch_context;
	SynchroRowStamp unknown = {{0}};
	SynchroIdentities one = {identities->nidentity, 1, 1, &identities->values[position * identities->nidentity], &unknown};
	SynchroBatchKeys keys = {relid, &one};
	SynchroBatch *batch;
	char	   *name;
	bool		more = true;

	if (pass->link->preview == NULL)
		return NULL;
	pass->batch_context = AllocSetContextCreate(whole, "synchro name", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(pass->batch_context);
	batch = synchro_pass_batch(pass);
	batch->keys = list_make1(&keys);
	batch->ensured = NIL;
	batch->max_olds = 0;
	synchro_pass_read(pass, batch, false, &more);
	name = synchro_batch_name(batch);
	if (name != NULL)
		name = MemoryContextStrdup(context, name);
	MemoryContextSwitchTo(context);
	MemoryContextDelete(pass->batch_context);
	pass->batch_context = whole;
	return name;
}

/*
 * The same of a row with a name of before.
 */
static char *
name_of_old(SynchroPass *pass, const SynchroBatchOld *old)
{
	MemoryContext context = CurrentMemoryContext;
	const SynchroTable *table;
	SynchroIdentities *identities = NULL;

	if (pass->link->preview == NULL)
		return NULL;
	synchro_local_begin("synchro: looking up a name");
	MemoryContextSwitchTo(context);
	table = synchro_table_get(old->relid, true);
	if (table != NULL)
	{
		identities = synchro_identities_create(table);
		synchro_identities_decode(identities, table, old->key.identity);
	}
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	return identities != NULL ? name_of(pass, old->relid, identities, 0) : NULL;
}

static bool
refers_to(const SynchroTable *table, Oid parent)
{
	for (int i = 0; i < table->nfks; i++)
		if (table->fks[i].parent == parent)
			return true;
	return false;
}

/*
 * Is an error about a row of that table, as far as it can be told?
 *
 * Of a table's constraints the remote says whose they are, and of a staged value
 * the COPY.  Any other error may be about what the batch has of other tables.
 */
static bool
is_about_table(SynchroPass *pass, const SynchroBatch *batch, const SynchroTable *table, const SynchroRemoteError *error)
{
	const char *copy = error->context != NULL ? strstr(error->context, "COPY s_") : NULL;
	List	   *named;
	int			number;
	ListCell   *cell;

	/* what a row refers to is in the row */
	named = synchro_quarantine_named(pass->link, error, SYNCHRO_MISSING_PARENTS);
	if (named != NIL)
		return refers_to(table, ((SynchroNamedRow *) linitial(named))->lt->table->relid);
	named = synchro_quarantine_named(pass->link, error, SYNCHRO_AMBIGUOUS_KEY);
	if (named != NIL)
		return ((SynchroNamedRow *) linitial(named))->lt->table->relid == table->relid;
	if (error->table != NULL && error->table[0] != '\0')
		return error->schema != NULL && strcmp(error->schema, table->schema) == 0 && strcmp(error->table, table->name) == 0;
	if (copy == NULL || sscanf(copy, "COPY s_%d", &number) != 1)
		return batch->ensured == NIL;
	foreach(cell, pass->link->tables)
		if (((SynchroLinkTable *) lfirst(cell))->number == number)
			return ((SynchroLinkTable *) lfirst(cell))->table->relid == table->relid;
	return false;
}

/*
 * The error that rows of a table are parked with which were not tried one by
 * one.  Whoever may read that table is shown it, so it says nothing of rows of
 * others.  In the current memory context.
 */
SynchroRemoteError *
synchro_quarantine_shared(SynchroPass *pass, const SynchroBatch *batch, Oid relid, SynchroRemoteError *error)
{
	MemoryContext context = CurrentMemoryContext;
	const SynchroTable *table;
	SynchroRemoteError *shared;
	bool		own;

	synchro_local_begin("synchro: looking at what has failed");
	table = synchro_table_get(relid, true);
	own = table == NULL || is_about_table(pass, batch, table, error);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	if (own)
		return error;
	shared = palloc0(sizeof(SynchroRemoteError));

	/* ours are said with what they name, see describe() */
	strlcpy(shared->sqlstate, strcmp(error->sqlstate, SYNCHRO_AMBIGUOUS_KEY) == 0 ? "21000" :
			strcmp(error->sqlstate, SYNCHRO_MISSING_PARENTS) == 0 ? "23503" : error->sqlstate, sizeof(shared->sqlstate));
	shared->message = pstrdup("it was in a batch that failed because of a row of another table");
	shared->hint = pstrdup("So much had failed that rows were not tried one by one. Mend what is shown for other rows, and run synchro.retry().");
	return shared;
}

/*
 * Park a row with a name of before that the remote has refused.
 */
void
synchro_quarantine_park_old(SynchroPass *pass, const SynchroBatchOld *old, const SynchroRemoteError *error)
{
	MemoryContext context = CurrentMemoryContext;
	const SynchroTable *table;
	bool		by_reference;
	SynchroFailure failure = {0};
	char	   *name = name_of_old(pass, old);

	synchro_local_begin("synchro: parking what has failed");
	table = synchro_table_get(old->relid, true);
	if (table != NULL)
	{
		by_reference = table->mode == SYNCHRO_MODE_REFERENCE;
		failure.identity = synchro_identities_values(table, table->identity, table->nidentity, old->key.identity);
		failure.op = old->key.kind == SYNCHRO_KIND_OLD[0] && !by_reference ? SYNCHRO_OP_UPDATE : SYNCHRO_OP_DELETE;
		failure.has_old = old->key.name.data != NULL && !by_reference;
		failure.old = old->key.name;
		failure.stamp = old->key.changed;
		park(pass, old->relid, &failure, error, name);
	}
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * Park a change of a row that the remote has refused.  dead: the delete that is
 * sent again with it, or NULL.
 */
void
synchro_quarantine_park_key(SynchroPass *pass, const SynchroBatchKeys *keys, int position,
							const SynchroBatchDead *dead, const SynchroRemoteError *error)
{
	const SynchroIdentities *identities = keys->identities;
	MemoryContext context = CurrentMemoryContext;
	SynchroFailure failure = {0};
	char	   *name = name_of(pass, keys->relid, identities, position);

	failure.identity = &identities->values[position * identities->nidentity];
	failure.op = SYNCHRO_OP_UPDATE;
	if (identities->stamps != NULL)
	{
		failure.stamp = identities->stamps[position].changed;
		if (identities->stamps[position].born > SYNCHRO_BORN_LONG_AGO)
			failure.op = SYNCHRO_OP_INSERT;
	}
	if (failure.stamp.at == 0)
		failure.stamp.at = GetCurrentTimestamp();
	if (dead != NULL)
	{
		failure.op = SYNCHRO_OP_DELETE;
		failure.has_old = true;
		failure.old = dead->key.name;
	}
	synchro_local_begin("synchro: parking what has failed");
	park(pass, keys->relid, &failure, error, name);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}
