/*-------------------------------------------------------------------------
 *
 * verify.c
 *	  What differs between here and the remote, and keeps doing so.
 *
 * A difference may be a change that is still under way.  So what a look finds
 * is looked at again, with everything pushed in between, until it is gone or
 * two looks have found it the same: the same versions of both rows.  Had the
 * row been changed here before the second look, it would be another version of
 * it; it has not, so what the pass in between has pushed, if it had to push it
 * at all, is what the look has found, and the remote does not have it.
 * The same goes for a row that is not here, but for one that is inserted and
 * deleted again in between each time.
 *
 * A remote that pushes here may have changes under way, too.  We cannot make it
 * push, so it is given some time instead: what differs must do so for a tenth
 * of synchro.verify_wait.
 *
 * It ends whatever the load.  The number of looks is bounded, and so is the
 * time that each waits for a push: where more is written all the time than can
 * be pushed, no push would ever end.  What has not been confirmed by then is
 * left out, with a notice: it is not known to differ.
 *
 * All this runs in the backend of whoever asks, which holds a snapshot and no
 * locks but those of reading meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "applysql.h"
#include "compat.h"
#include "comparepairs.h"
#include "contentvalue.h"
#include "localsql.h"
#include "pushcall.h"
#include "settings.h"
#include "verify.h"
#include "verifyvalue.h"

/* keys that are looked at again by one pair of queries */
#define AGAIN_KEYS		100000

/* a row that changes between that many looks more than it takes is left out */
#define SPARE_LOOKS		7

/*
 * Where the remote pushes, too: the wait before the second look, doubled each
 * time, in milliseconds.
 */
#define PEER_WAIT		200

typedef struct Suspect
{
	int64		hash;
	uint64		version;		/* of all its rows that differ; 0: not looked at
								 * yet */
	int			seen;			/* looks that have found it so */
	bool		found;			/* by this look */
	bool		done;
} Suspect;

typedef struct Verifier
{
	const SynchroComparison *comparison;
	Suspect    *suspects;		/* ascending */
	int64		nsuspects;
	int			needed;			/* looks after the first one */
	SynchroDifferenceCallback callback;
	void	   *arg;

	/* the key that is being looked at: there may be several rows of it */
	Suspect    *suspect;
	uint64		version;
	bool		here;			/* one of them is here */
	List	   *differences;	/* of SynchroDifference */
	MemoryContext key_context;	/* holds those */
} Verifier;

static uint64
hash_text(const char *text, uint64 seed)
{
	return text == NULL ? seed ^ 1 : hash_bytes_extended((const unsigned char *) text, strlen(text), seed);
}

/*
 * A number for the present versions of two rows; never 0.  seed: that of other
 * rows of the same key, or 0.
 */
static uint64
version_of(const SynchroComparedRow *here, const SynchroComparedRow *there, int nvalues, uint64 seed)
{
	uint64		version = hash_text(there != NULL ? there->version : NULL, hash_text(here != NULL ? here->version : NULL, seed));

	/* a parent's new name is no new version of the child */
	for (int i = 0; i < nvalues; i++)
	{
		if (here != NULL)
			version = hash_text(here->values[i], version);
		if (there != NULL)
			version = hash_text(there->values[i], version);
	}
	return Max(version, 1);
}

static int
compare_suspects(const void *a, const void *b)
{
	int64		x = ((const Suspect *) a)->hash;
	int64		y = ((const Suspect *) b)->hash;

	return x < y ? -1 : x > y;
}

/*
 * The columns in which two rows differ, by their types' equality.
 */
static List *
differing_columns(const Verifier *verifier, const SynchroComparedRow *here, const SynchroComparedRow *there)
{
	const SynchroComparison *comparison = verifier->comparison;
	const SynchroContent *content = comparison->here;
	List	   *columns = NIL;

	for (int i = 0; i < content->nvalues; i++)
	{
		const SynchroColumn *column = &comparison->lt->table->columns[content->columns[i]];
		bool		translated = synchro_column_fk(comparison->lt, content->columns[i]) >= 0;

		if (!synchro_values_equal(translated ? TEXTOID : column->type,
								  translated ? NULL : synchro_content_other_type(comparison->lt, content->columns[i]),
								  here->values[i], there->values[i], comparison->lt->table->relid))
			columns = lappend(columns, content->names[i]);
	}
	return columns;
}

/*
 * All rows of a key have been looked at: it is done if they are as in the looks
 * before.
 */
static void
end_key(Verifier *verifier)
{
	Suspect    *suspect = verifier->suspect;
	MemoryContext old = MemoryContextSwitchTo(verifier->key_context);
	ListCell   *cell;

	if (verifier->differences != NIL)
	{
		suspect->seen = suspect->version == verifier->version ? suspect->seen + 1 : 0;
		suspect->version = verifier->version;
		suspect->found = true;
		suspect->done = suspect->seen >= verifier->needed;
		if (suspect->done)
			foreach(cell, verifier->differences)
				verifier->callback(lfirst(cell), verifier->arg);
	}
	verifier->suspect = NULL;
	verifier->version = 0;
	verifier->here = false;
	verifier->differences = NIL;
	MemoryContextSwitchTo(old);
	MemoryContextReset(verifier->key_context);
}

static void
look_at(int64 hash, const SynchroComparedRow *here, const SynchroComparedRow *there, void *arg)
{
	Verifier   *verifier = arg;
	Suspect		key = {hash};
	SynchroDifference *difference;
	MemoryContext old;

	if (verifier->suspect == NULL || verifier->suspect->hash != hash)
	{
		end_key(verifier);
		verifier->suspect = bsearch(&key, verifier->suspects, verifier->nsuspects, sizeof(Suspect), compare_suspects);
		if (verifier->suspect == NULL)
			return;
	}

	/* a key that may match many rows there means the first of them */
	verifier->here |= here != NULL;
	if (here == NULL && verifier->here && verifier->comparison->lt->table->allow_many)
		return;
	old = MemoryContextSwitchTo(verifier->key_context);
	difference = palloc0(sizeof(SynchroDifference));
	difference->kind = here == NULL ? SYNCHRO_EXTRA : there == NULL ? SYNCHRO_MISSING : SYNCHRO_DIFFERENT;
	difference->table = verifier->comparison->lt->table;
	difference->shown = pstrdup(here != NULL ? here->shown : there->shown);
	difference->identity = here != NULL ? pstrdup(here->identity) : NULL;
	if (difference->kind == SYNCHRO_DIFFERENT)
		difference->columns = differing_columns(verifier, here, there);
	if (difference->kind != SYNCHRO_DIFFERENT || difference->columns != NIL)
	{
		verifier->version = version_of(here, there, verifier->comparison->here->nvalues, verifier->version);
		verifier->differences = lappend(verifier->differences, difference);
	}
	MemoryContextSwitchTo(old);
}

/*
 * Have everything pushed that has been committed here.  False if that has not
 * come to an end in time.
 */
static bool
push_all(const SynchroTarget *target)
{
	SynchroPassResult result = {{0}};
	SynchroKeptError error;
	SynchroPushOutcome outcome;

	if (target->paused)
		return true;
	outcome = synchro_pushcall_within(target, synchro_verify_wait * 1000L, &result, &error);
	if (outcome == SYNCHRO_PUSH_FAILED)
		synchro_pushcall_report(&error);
	return outcome == SYNCHRO_PUSH_DONE;
}

/*
 * How many looks after the first must find the same: one, or, where the remote
 * pushes here, as many as take a tenth of verify_wait.
 */
static int
looks_needed(const SynchroLink *link)
{
	int			looks = 1;

	if (link->peer_node != NULL)
		while (((long) PEER_WAIT << looks) - PEER_WAIT < synchro_verify_wait * 100L)
			looks++;
	return looks;
}

/*
 * Wait, in milliseconds.
 */
static void
wait_for_peer(long timeout)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
	long		left;

	/* the latch may be set for other reasons */
	while ((left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until)) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left, synchro_wait_worker());
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Look at all suspects once more; forget those that are cleared or done.
 */
static void
look_again(Verifier *verifier)
{
	int64	   *hashes = palloc(sizeof(int64) * AGAIN_KEYS);
	int64		left = 0;

	for (int64 first = 0; first < verifier->nsuspects; first += AGAIN_KEYS)
	{
		int			count = (int) Min(AGAIN_KEYS, verifier->nsuspects - first);

		for (int i = 0; i < count; i++)
		{
			hashes[i] = verifier->suspects[first + i].hash;
			verifier->suspects[first + i].found = false;
		}
		synchro_compare_again(verifier->comparison, hashes, count, look_at, verifier);
		end_key(verifier);
	}
	for (int64 i = 0; i < verifier->nsuspects; i++)
		if (verifier->suspects[i].found && !verifier->suspects[i].done)
			verifier->suspects[left++] = verifier->suspects[i];
	verifier->nsuspects = left;
	pfree(hashes);
}

/*
 * Connect to a remote to compare tables with it, without pushing anything first; in
 * a transaction of a backend's.  To be ended with synchro_link_close(), whatever
 * happens.
 */
SynchroLink *
synchro_verify_connect(SynchroTarget *target)
{
	SynchroLink *link;
	SynchroSqlScope scope;
	char	   *node = NULL;
	MemoryContext context = CurrentMemoryContext;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("SELECT id FROM synchro.node", 0, NULL, NULL, NULL) == 1)
		node = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	synchro_sql_close(&scope);
	link = synchro_link_open(target);
	link->compares = true;
	link->node = node == NULL ? NULL : MemoryContextStrdup(link->context, node);
	return link;
}

/*
 * The same, when everything has been pushed.
 */
SynchroLink *
synchro_verify_open(SynchroTarget *target)
{
	/* if this takes too long, no more than a look is lost */
	(void) push_all(target);
	return synchro_verify_connect(target);
}

/*
 * Look at the suspects, again and again.  False if a push was late.
 */
static bool
confirm(Verifier *verifier, SynchroLink *link)
{
	for (int look = 0; verifier->nsuspects > 0 && look <= verifier->needed + SPARE_LOOKS; look++)
	{
		if (look > 0)
		{
			if (!push_all(link->target))
				return false;
			if (link->peer_node != NULL)
				wait_for_peer((long) PEER_WAIT << Min(look - 1, verifier->needed - 1));
			synchro_compare_pairs(link);
		}
		look_again(verifier);
	}
	return true;
}

static void
tell_what_is_left(const Verifier *verifier, const SynchroLink *link, bool in_time)
{
	const char *table = verifier->comparison->lt->table->qualified;

	if (verifier->nsuspects == 0)
		return;
	if (in_time)
		ereport(NOTICE,
				(errmsg("rows of table %s that change all the time were left out: %lld",
						table, (long long) verifier->nsuspects),
				 errhint("Compare again when they change less: SELECT * FROM synchro.verify(%s, %s);",
						 quote_literal_cstr(link->target->name), quote_literal_cstr(table))));
	else
		ereport(NOTICE,
				(errmsg("rows of table %s that differ but may be on their way were left out: %lld",
						table, (long long) verifier->nsuspects),
				 errdetail("What is pending for remote \"%s\" was not pushed within %d s.",
						   link->target->name, synchro_verify_wait),
				 errhint("Compare again when less is pending, or raise synchro.verify_wait.")));
}

/*
 * Compare a table with the remote's; each row that differs is handed to the
 * callback, as long as it lasts.
 */
void
synchro_verify_table(SynchroLink *link, Oid relid, SynchroDifferenceCallback callback, void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro verify", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SynchroSuspects suspects = {0};
	Verifier	verifier = {NULL};
	bool		in_time;

	synchro_compare_prepare(link, relid);
	synchro_compare_pairs(link);
	verifier.comparison = synchro_compare_table(link, relid);
	verifier.needed = looks_needed(link);
	verifier.callback = callback;
	verifier.arg = arg;
	verifier.key_context = AllocSetContextCreate(context, "synchro verify key", ALLOCSET_DEFAULT_SIZES);
	synchro_compare_first(verifier.comparison, &suspects);
	verifier.nsuspects = suspects.count;
	if (suspects.count > 0)
	{
		verifier.suspects = palloc_extended(sizeof(Suspect) * suspects.count, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
		for (int64 i = 0; i < suspects.count; i++)
			verifier.suspects[i].hash = suspects.hashes[i];
		pfree(suspects.hashes);
	}
	in_time = confirm(&verifier, link);
	tell_what_is_left(&verifier, link, in_time);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
