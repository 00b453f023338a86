/*-------------------------------------------------------------------------
 *
 * quarantine.c
 *	  What is done about a batch that the remote would not take: tried again,
 *	  or divided until the rows that are to blame are alone, and parked.
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
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "applysql.h"
#include "localsql.h"
#include "passwork.h"
#include "settings.h"

/* how often a batch is tried when others are in its way */
#define MAX_CONFLICT_RETRIES	5

/* from so many failures in a pass on, rows are not looked for one by one */
#define MAX_SINGLES		1000

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

/*
 * Can a row be to blame for an error with that SQLSTATE?  Triggers may raise
 * whatever they like, so all others are.
 */
static bool
is_about_rows(const char *state)
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
 * The row that the remote named in an error's detail: number of the table,
 * and its identity as an array of text.
 */
static SynchroLinkTable *
parse_named_row(SynchroPass *pass, const char *line, char **key)
{
	char	   *end;
	int			number = strtol(line, &end, 10);

	if (key != NULL)
	{
		*key = pstrdup(end);
		while (**key == ' ' || **key == '{')
			(*key)++;
		if (strchr(*key, '}') != NULL)
			*strchr(*key, '}') = '\0';
	}
	return synchro_link_numbered(pass->link, number);
}

/*
 * Parents are missing on the remote: have them pushed along.  False if that
 * was done already, and they are missing still.
 */
static bool
ensure_parents(SynchroPass *pass, SynchroBatch *batch, const SynchroRemoteError *error)
{
	const char *line = error->detail;
	bool		any = false;

	while (line != NULL && *line != '\0')
	{
		SynchroLinkTable *lt = parse_named_row(pass, line, NULL);

		if (!list_member_oid(pass->ensured, lt->table->relid))
		{
			MemoryContext old = MemoryContextSwitchTo(pass->context);

			pass->ensured = lappend_oid(pass->ensured, lt->table->relid);
			MemoryContextSwitchTo(old);
			any = true;
		}
		line = strchr(line, '\n');
		if (line != NULL)
			line++;
	}
	batch->ensured = pass->ensured;
	return any;
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

	if (error->lost)
		synchro_remote_report(pass->link->remote, error, "while applying a batch");
	if (error->statement == 2 && strcmp(state, "22012") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("another worker has moved the position of remote \"%s\"",
						pass->link->target->name)));
	if (strcmp(state, SYNCHRO_MISSING_PARENTS) == 0)
		return ensure_parents(pass, batch, error);
	if ((strcmp(state, "23505") == 0 || strcmp(state, "23P01") == 0) && !batch->careful)
		return batch->careful = true;
	if ((strncmp(state, "40", 2) == 0 || strcmp(state, "55P03") == 0) &&
		++*retries <= MAX_CONFLICT_RETRIES)
		return true;
	if (!is_about_rows(state))
		synchro_remote_report(pass->link->remote, error, "while applying a batch");
	return false;
}

/*
 * Raise an error that no row could be found for.
 */
static void
report_failure(SynchroPass *pass, const SynchroRemoteError *error)
{
	const char *s = error->sqlstate;

	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4])),
			 errmsg("remote \"%s\": %s", pass->link->target->name, error->message),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 errhint("No single row is to blame. Mend the cause on the remote, and synchronize again.")));
}

/*
 * Say in a failure what the remote said.  Needs a transaction.
 */
static void
describe(SynchroPass *pass, const SynchroRemoteError *error, SynchroFailure *failure)
{
	char	   *key;
	SynchroLinkTable *lt;

	failure->sqlstate = error->sqlstate;
	failure->message = error->message;
	failure->detail = error->detail;
	failure->hint = error->hint;
	failure->constraint = error->constraint != NULL && error->constraint[0] != '\0' ? error->constraint : NULL;
	if (strcmp(error->sqlstate, SYNCHRO_MISSING_PARENTS) == 0)
	{
		char	   *identity;

		lt = parse_named_row(pass, error->detail, &key);
		identity = psprintf("{%s}", key);
		failure->sqlstate = "23503";
		failure->detail = NULL;
		if (synchro_parked_find_text(pass->parked, lt->table, identity) != NULL)
			failure->message = psprintf("row of table %s with key %s, which it references, could not be applied either",
										lt->table->qualified, key);
		else
			failure->message = psprintf("row of table %s with key %s, which it references, does not exist",
										lt->table->qualified, key);
	}
	else if (strcmp(error->sqlstate, SYNCHRO_AMBIGUOUS_KEY) == 0)
	{
		lt = parse_named_row(pass, error->detail, &key);
		failure->sqlstate = "21000";
		failure->message = psprintf("natural key of a row of table %s matches several rows on the remote",
									lt->table->qualified);
		failure->detail = psprintf("The row's key here is %s.", key);
		failure->hint = psprintf("Remove the surplus rows and make a unique index there, or allow many: SELECT synchro.alter_table(%s, allow_many => true).",
								 quote_literal_cstr(lt->table->qualified));
	}
}

/*
 * Park a change that the remote has refused.  In a local transaction.  What
 * there is of it is in failure, but for the reason.
 */
static void
park(Division *division, Oid relid, SynchroFailure *failure, const SynchroRemoteError *error)
{
	SynchroPass *pass = division->pass;
	const SynchroTable *table = synchro_table_get(relid, true);

	if (table == NULL)
		return;
	failure->table = synchro_table_copy(table, CurrentMemoryContext);
	failure->origin = &synchro_source_find(pass->changes->sources, failure->stamp.source)->origin;
	describe(pass, error, failure);
	(void) synchro_parked_put(pass->parked, failure);
	pass->counts.failed++;
	division->nparked++;
}

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
	part->error = commit && (final || !synchro_atomic_pass) ? synchro_pass_push(pass, part->batch, final) : synchro_pass_try(pass, part->batch);
	pass->batch_context = whole;
	MemoryContextSwitchTo(part->context);
}

static void
end_part(Division *division, Part *part)
{
	MemoryContextSwitchTo(division->pass->batch_context);
	MemoryContextDelete(part->context);
}

static void
park_old(Division *division, const SynchroBatchOld *old, const SynchroRemoteError *error)
{
	MemoryContext context = CurrentMemoryContext;
	const SynchroTable *table;
	bool		by_reference;
	SynchroFailure failure = {0};

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
		park(division, old->relid, &failure, error);
	}
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * Find the first row with a name of before with which a batch fails: with
 * those before it, but not without it.  count: how many the batch has.
 */
static void
park_first_old(Division *division, int64 count)
{
	int64		good = 0;		/* with so many it goes through */
	int64		bad = count;
	Part		part;
	bool		found = false;

	while (!found)
	{
		int64		middle = bad - good > 1 ? (good + bad) / 2 : bad;

		part = begin_part(division, NIL);
		part.batch->max_olds = middle;
		send_part(division, &part, false, false);
		if (part.error != NULL && !is_about_rows(part.error->sqlstate))
			synchro_remote_report(division->pass->link->remote, part.error, "while trying a batch");
		found = middle == bad && bad - good <= 1;
		if (found && part.error != NULL)
			park_old(division, &part.batch->last_old, part.error);
		else if (part.error != NULL)
			bad = middle;
		else
			good = middle;
		end_part(division, &part);
	}
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
		if (part.error == NULL || count == 0)
		{
			if (part.error != NULL)
				report_failure(division->pass, part.error);
			end_part(division, &part);
			return;
		}
		end_part(division, &part);
		park_first_old(division, count);
	}
}

static void
park_key(Division *division, const SynchroBatchKeys *keys, int position, const SynchroRemoteError *error)
{
	const SynchroIdentities *identities = keys->identities;
	SynchroFailure failure = {0};
	List	   *one = list_make1(unconstify(SynchroBatchKeys *, keys));
	List	   *dead = dead_of(division, slice_keys(one, position, 1));
	MemoryContext context = CurrentMemoryContext;

	failure.identity = &identities->values[position * identities->nidentity];
	failure.op = SYNCHRO_OP_UPDATE;
	if (identities->stamps != NULL)
	{
		failure.stamp = identities->stamps[position].changed;
		if (identities->stamps[position].born != 0)
			failure.op = SYNCHRO_OP_INSERT;
	}
	if (failure.stamp.at == 0)
		failure.stamp.at = GetCurrentTimestamp();
	if (dead != NIL)
	{
		failure.op = SYNCHRO_OP_DELETE;
		failure.has_old = true;
		failure.old = ((SynchroBatchDead *) linitial(dead))->key.name;
	}
	synchro_local_begin("synchro: parking what has failed");
	park(division, keys->relid, &failure, error);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	if (error->sqlstate[0] == '2' && error->sqlstate[1] == '3')
	{
		MemoryContext old = MemoryContextSwitchTo(division->pass->batch_context);

		division->later = list_concat(division->later, slice_keys(one, position, 1));
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
 * to blame.
 */
static void
park_all(Division *division, const List *keys)
{
	Part		part = begin_part(division, keys);
	const ListCell *cell;

	send_part(division, &part, true, false);
	if (part.error != NULL)
		foreach(cell, keys)
			for (int i = 0; i < ((SynchroBatchKeys *) lfirst(cell))->identities->count; i++)
				park_key(division, lfirst(cell), i, part.error);
	end_part(division, &part);
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
 * Try what failed by a constraint once more, together.
 */
static void
push_later(Division *division)
{
	Part		part;

	if (list_length(division->later) == 0 || division->nparked >= MAX_SINGLES)
		return;
	ban(division, division->later, false);
	part = begin_part(division, division->later);
	send_part(division, &part, true, false);
	if (part.error == NULL)
		division->pass->counts.failed -= list_length(division->later);
	else
		ban(division, division->later, true);
	end_part(division, &part);
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
		report_failure(pass, part.error);
	end_part(division, &part);
}

/*
 * Push what can be pushed of a batch that has failed, and park the rest.
 * final: the pass ends with it.
 */
void
synchro_quarantine_divide(SynchroPass *pass, SynchroBatch *batch, SynchroRemoteError *error, bool final)
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
		finish(&division, synchro_atomic_pass ? keys_left(&division, batch->keys) : NIL);
	MemoryContextSwitchTo(pass->batch_context);
}
