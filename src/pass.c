/*-------------------------------------------------------------------------
 *
 * pass.c
 *	  One pass: from what is pending to nothing is pending.
 *
 * A pass takes a snapshot, S1; which keys it pushes is what S1 sees of the
 * log and the position's snapshot, S0, did not.  What is pushed of them are
 * the rows as they are when their batch is read.  S1 becomes the position
 * with the last batch; batches before it only move the keys snapshot.  So a
 * crash in between repeats reads, but writes nothing twice: a row that is
 * already as it should be is not touched.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "applysql.h"
#include "batch.h"
#include "followers.h"
#include "clocklink.h"
#include "localsql.h"
#include "order.h"
#include "pass.h"
#include "settings.h"

/* how often a batch is tried when others are in its way */
#define MAX_CONFLICT_RETRIES	5

typedef struct Pass
{
	MemoryContext context;
	SynchroLink *link;
	SynchroPosition *position;
	SynchroChangeSet *changes;	/* since the position's snapshot */
	char	   *snapshot;		/* S1 */
	TimestampTz started;		/* when S1 was taken */
	List	   *order;			/* changed tables, parents first */
	int			current;		/* the one whose keys are being taken */
	List	   *ensured;		/* tables whose missing rows are pushed along */
	MemoryContext batch_context;
	SynchroCounts counts;
	int64		keys_done;
} Pass;

static void order_tables(Pass *pass);

/*
 * Take S1 and collect what is new.  A local transaction of its own.
 */
static void
collect(Pass *pass)
{
	SynchroSqlScope scope;
	SynchroSnapshot *since = synchro_snapshot_parse(pass->position->snapshot);
	SynchroSnapshot *named = synchro_snapshot_parse(pass->position->keys_snapshot);

	synchro_local_begin_locked("synchro: reading the log", synchro_log_lock);
	synchro_link_refresh(pass->link);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	MemoryContextSwitchTo(pass->context);
	pass->started = GetCurrentTimestamp();
	pass->snapshot = synchro_snapshot_current();
	pass->changes = synchro_changes_collect(since, named, pass->link->target->name, pass->link->peer_node, true);
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(pass->context);
	order_tables(pass);
	synchro_local_commit();
	MemoryContextSwitchTo(pass->context);
}

static SynchroChangeSet *
collect_olds(Pass *pass)
{
	SynchroSqlScope scope;
	SynchroChangeSet *olds;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	MemoryContextSwitchTo(pass->batch_context);
	olds = synchro_changes_collect(synchro_snapshot_parse(pass->position->keys_snapshot),
								   NULL, NULL, pass->link->peer_node, false);
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(pass->batch_context);
	return olds;
}

/*
 * Put the changed tables in order: parents first, so that a child rarely
 * finds its parent missing.
 */
static void
order_tables(Pass *pass)
{
	List	   *tables = NIL;
	ListCell   *cell;
	ListCell   *member;

	foreach(cell, pass->changes->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		if (changed->nkeys > 0)
			tables = lappend(tables, synchro_link_table(pass->link, changed->relid, true));
	}
	pass->order = NIL;
	foreach(cell, synchro_order_by_references(tables))
		foreach(member, lfirst(cell))
		{
			SynchroLinkTable *lt = lfirst(member);
			ListCell   *other;

			foreach(other, pass->changes->tables)
				if (((SynchroChangedTable *) lfirst(other))->relid == lt->table->relid)
					pass->order = lappend(pass->order, lfirst(other));
		}
}

static void
add_dead(SynchroBatch *batch, Oid relid, const SynchroChangedKey *key)
{
	SynchroBatchDead *dead = palloc(sizeof(SynchroBatchDead));

	dead->relid = relid;
	dead->key = *key;
	dead->key.kind = SYNCHRO_KIND_GONE[0];
	batch->dead = lappend(batch->dead, dead);
}

/*
 * Take the next keys, up to a batch's size.  Returns whether any are left.
 */
static bool
take_keys(Pass *pass, SynchroBatch *batch)
{
	int			count = 0;
	int			limit = synchro_atomic_pass ? PG_INT32_MAX : synchro_batch_size;

	batch->keys = NIL;
	while (pass->current < list_length(pass->order))
	{
		SynchroChangedTable *changed = list_nth(pass->order, pass->current);
		SynchroBatchKeys *keys = palloc0(sizeof(SynchroBatchKeys));
		SynchroChangedKey key;

		keys->relid = changed->relid;
		keys->identities = synchro_identities_create(changed->table);
		batch->keys = lappend(batch->keys, keys);
		while (count < limit && synchro_changes_next_key(changed, &key))
		{
			synchro_identities_decode(keys->identities, changed->table, key.identity);
			synchro_identities_stamp(keys->identities, key.changed, key.born);
			if (key.name.data != NULL)
				add_dead(batch, changed->relid, &key);
			count++;
		}
		if (count >= limit)
			return true;
		pass->current++;
	}
	return false;
}

/*
 * Leave out keys of rows that are in the batch by a name of before.  Names
 * that the pass collected itself are apart from its keys already.
 */
static void
drop_double_keys(SynchroBatch *batch)
{
	ListCell   *cell;
	ListCell   *other;

	foreach(cell, batch->olds->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);
		SynchroIdentities *named;
		SynchroChangedKey key;

		if (changed->nolds == 0)
			continue;
		named = synchro_identities_create(changed->table);
		while (synchro_changes_next_old(changed, &key))
			synchro_identities_decode(named, changed->table, key.identity);
		foreach(other, batch->keys)
		{
			SynchroBatchKeys *keys = lfirst(other);

			if (keys->relid == changed->relid)
				synchro_identities_subtract(keys->identities, named);
		}
	}
	synchro_changes_rewind(batch->olds);
}

/*
 * One local transaction that reads the batch, or as many as it takes until
 * all is known about its tables.
 */
static void
read_batch(Pass *pass, SynchroBatch *batch, bool new_keys, bool *more)
{
	for (;;)
	{
		bool		ready;

		CHECK_FOR_INTERRUPTS();
		synchro_local_begin_locked("synchro: reading changed rows", synchro_log_lock);
		MemoryContextSwitchTo(pass->batch_context);
		batch->olds = collect_olds(pass);
		ready = synchro_batch_describe(batch);
		if (ready)
		{
			if (new_keys)
				*more = take_keys(pass, batch);
			new_keys = false;
			drop_double_keys(batch);
			batch->snapshot = *more ? NULL : pass->snapshot;
			ready = synchro_batch_describe(batch);
		}
		if (ready)
		{
			if (pass->link->peer_node != NULL)
				batch->seen = synchro_position_of_peer(pass->link->peer_node);
			synchro_batch_read(batch);
		}
		MemoryContextSwitchTo(pass->batch_context);
		synchro_local_commit();
		MemoryContextSwitchTo(pass->batch_context);
		synchro_changes_free(batch->olds);
		batch->olds = NULL;
		if (ready)
			return;
		synchro_link_prepare(pass->link);
	}
}

/*
 * Raise the error of a row that the remote would not take.
 */
static void
report_failure(Pass *pass, const SynchroRemoteError *error, Oid relid, const char *key)
{
	const char *s = error->sqlstate;
	const char *table;

	if (OidIsValid(relid))
	{
		synchro_local_begin("synchro: reporting");
		table = MemoryContextStrdup(pass->context, synchro_table_get(relid, false)->qualified);
		synchro_local_commit();
	}
	else
		table = error->table != NULL ?
			quote_qualified_identifier(error->schema, error->table) : "(unknown)";
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4])),
			 errmsg("remote \"%s\": %s", pass->link->target->name, error->message),
			 errdetail("Table %s%s%s.%s%s", table, key != NULL ? ", key " : "", key != NULL ? key : "",
					   error->detail != NULL ? " " : "", error->detail != NULL ? error->detail : ""),
			 error->hint != NULL ? errhint("%s", error->hint) :
			 errhint("Mend the row here or the cause on the remote, and synchronize again. Nothing of this batch has been applied.")));
}

/*
 * Try a batch of some of the keys without committing it.
 */
static SynchroRemoteError *
try_keys(Pass *pass, SynchroBatch *batch, List *keys, const char *token)
{
	SynchroBatch trial = *batch;
	bool		more = batch->snapshot == NULL;

	trial.keys = keys;
	read_batch(pass, &trial, false, &more);
	return synchro_batch_apply(&trial, token, false);
}

/*
 * Find the row that makes a batch fail, by halving it, and raise its error.
 */
static void
report_culprit(Pass *pass, SynchroBatch *batch, SynchroRemoteError *error, const char *token)
{
	ListCell   *cell;

	if (try_keys(pass, batch, NIL, token) == NULL)
	{
		foreach(cell, batch->keys)
		{
			SynchroBatchKeys *keys = lfirst(cell);
			SynchroBatchKeys part = *keys;
			SynchroIdentities slice = *keys->identities;
			SynchroRemoteError *found;
			SynchroRemoteError *last = NULL;

			part.identities = &slice;
			if (keys->identities->count == 0 ||
				(found = try_keys(pass, batch, list_make1(&part), token)) == NULL)
				continue;
			last = found;
			while (slice.count > 1)
			{
				int			half = slice.count / 2;
				int			rest = slice.count - half;

				slice.count = half;
				found = try_keys(pass, batch, list_make1(&part), token);
				if (found != NULL)
				{
					last = found;
					continue;
				}
				slice.values += half * slice.nidentity;
				if (slice.stamps != NULL)
					slice.stamps += half;
				slice.count = rest;
			}
			found = try_keys(pass, batch, list_make1(&part), token);
			if (found != NULL)
				report_failure(pass, found, part.relid, synchro_identities_text(&slice, 0));
			report_failure(pass, last, part.relid, NULL);
		}
	}
	report_failure(pass, error, InvalidOid, NULL);
}

/*
 * The row that the remote named in an error's detail: number of the table,
 * and its identity as an array of text.
 */
static SynchroLinkTable *
parse_named_row(Pass *pass, const char *line, char **key)
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
 * Parents are missing on the remote: have them pushed along.
 */
static void
ensure_parents(Pass *pass, SynchroBatch *batch, const SynchroRemoteError *error)
{
	const char *line = error->detail;
	bool		any = false;
	char	   *key;

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
	if (!any)
	{
		SynchroLinkTable *lt = parse_named_row(pass, error->detail, &key);

		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("row of table %s with key %s is referenced but does not exist",
						lt->table->qualified, key),
				 errhint("Mend the reference here, and synchronize again.")));
	}
	batch->ensured = pass->ensured;
}

/*
 * Decide what to do about an error: returns if the batch is to be tried
 * again, raises it otherwise.
 */
static void
handle_error(Pass *pass, SynchroBatch *batch, SynchroRemoteError *error,
			 const char *token, int *retries)
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
		ensure_parents(pass, batch, error);
	else if (strcmp(state, SYNCHRO_AMBIGUOUS_KEY) == 0)
	{
		char	   *key;
		SynchroLinkTable *lt = parse_named_row(pass, error->detail, &key);

		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("natural key of a row of table %s matches several rows on remote \"%s\"",
						lt->table->qualified, pass->link->target->name),
				 errdetail("The row's key here is %s.", key),
				 errhint("Remove the surplus rows and make a unique index there, or allow many: SELECT synchro.alter_table(%s, allow_many => true).",
						 quote_literal_cstr(lt->table->qualified))));
	}
	else if ((strcmp(state, "23505") == 0 || strcmp(state, "23P01") == 0) && !batch->careful)
		batch->careful = true;
	else if ((strncmp(state, "40", 2) == 0 || strcmp(state, "55P03") == 0) &&
			 ++*retries <= MAX_CONFLICT_RETRIES)
		return;
	else if (strncmp(state, "22", 2) == 0 || strncmp(state, "23", 2) == 0 ||
			 strcmp(state, "P0001") == 0)
		report_culprit(pass, batch, error, token);
	else
		synchro_remote_report(pass->link->remote, error, "while applying a batch");
}

static void
acknowledge(Pass *pass, SynchroBatch *batch, const char *token)
{
	SynchroPosition *position = pass->position;
	MemoryContext old;

	/* before it counts as done: a crash in between repeats the batch */
	if (batch->anew != NIL)
	{
		synchro_local_begin("synchro: queuing rows that follow others");
		MemoryContextSwitchTo(pass->batch_context);
		synchro_followers_queue(pass->link, batch->anew);
		synchro_local_commit();
		MemoryContextSwitchTo(pass->batch_context);
	}
	synchro_position_acknowledge(pass->link->target->name, token, batch->snapshot,
								 batch->keys_snapshot, pass->started, &batch->counts);
	old = MemoryContextSwitchTo(pass->link->context);
	position->acknowledged = pstrdup(token);
	position->keys_snapshot = pstrdup(batch->keys_snapshot);
	if (batch->snapshot != NULL)
		position->snapshot = pstrdup(batch->snapshot);
	position->forget_references = false;
	if (batch->snapshot != NULL)
		pass->link->leftovers = NIL;
	else
	{
		ListCell   *cell;

		/* this batch may have left deletes of each of its tables */
		foreach(cell, pass->link->tables)
		{
			SynchroLinkTable *lt = lfirst(cell);

			if (lt->nolds > 0 && lt->table->watched)
				pass->link->leftovers = lappend(pass->link->leftovers,
												pstrdup(lt->table->qualified));
		}
	}
	MemoryContextSwitchTo(old);
	pass->counts.inserted += batch->counts.inserted;
	pass->counts.updated += batch->counts.updated;
	pass->counts.deleted += batch->counts.deleted;
	pass->counts.skipped += batch->counts.skipped;
}

static void
publish_progress(Pass *pass, const SynchroBatch *batch)
{
	ListCell   *cell;
	Oid			relid = InvalidOid;

	foreach(cell, batch->keys)
	{
		pass->keys_done += ((SynchroBatchKeys *) lfirst(cell))->identities->count;
		relid = ((SynchroBatchKeys *) lfirst(cell))->relid;
	}
	synchro_shared_publish_progress("pushing", relid, Max(pass->keys_done, 1), pass->changes->nkeys);
}

/*
 * Push one batch.  Returns whether there are more.
 */
static bool
run_batch(Pass *pass)
{
	SynchroBatch *batch;
	SynchroRemoteError *error;
	char	   *token;
	bool		more = false;
	int			retries = 0;

	MemoryContextReset(pass->batch_context);
	MemoryContextSwitchTo(pass->batch_context);
	synchro_clocklink_refresh(pass->link);
	batch = palloc0(sizeof(SynchroBatch));
	batch->link = pass->link;
	batch->position = pass->position;
	batch->ensured = pass->ensured;
	for (bool first = true;; first = false)
	{
		read_batch(pass, batch, first, &more);
		token = synchro_position_attempt(pass->link->target->name, pass->position->attempted);
		pass->position->attempted = MemoryContextStrdup(pass->link->context, token);
		pgstat_report_activity(STATE_RUNNING, "synchro: applying a batch on the remote");
		error = synchro_batch_apply(batch, token, true);
		if (error == NULL)
			break;
		handle_error(pass, batch, error, token, &retries);
	}
	acknowledge(pass, batch, token);
	publish_progress(pass, batch);
	synchro_link_clear_batch(pass->link);
	return more;
}

/*
 * Push all that is pending for the link's remote.
 *
 * position: as synchro_peer_open() left it; moved on here.  Errors of the
 * remote are raised as ours; what batches before have committed stays.  If
 * the result is unfinished, the link is not to be used any more, or the remote
 * no longer wanted; another pass goes on.
 */
void
synchro_pass_run(SynchroLink *link, SynchroPosition *position, SynchroPassResult *result)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro pass",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Pass	   *pass = palloc0(sizeof(Pass));

	pass->context = context;
	pass->link = link;
	pass->position = position;
	pass->batch_context = AllocSetContextCreate(context, "synchro pass batch",
												ALLOCSET_DEFAULT_SIZES);
	collect(pass);
	memset(result, 0, sizeof(*result));
	if (pass->changes->nkeys > 0 || pass->changes->nolds > 0 || link->leftovers != NIL)
	{
		result->had_changes = true;
		synchro_shared_publish_progress("pushing", InvalidOid, 0, pass->changes->nkeys);
		while (run_batch(pass))
		{
			CHECK_FOR_INTERRUPTS();

			/* an altered server, or pause(), counts from the next batch on */
			result->unfinished = synchro_link_is_outdated(link) || !synchro_shared_wanted();
			if (result->unfinished)
				break;
		}
		result->counts = pass->counts;
	}
	else if (pass->changes->nentries > 0 && !position->rebased)
		synchro_position_skip(link->target->name, position, pass->snapshot, pass->started);
	MemoryContextSwitchTo(old);
	synchro_changes_free(pass->changes);
	MemoryContextDelete(context);
}
