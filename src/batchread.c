/*-------------------------------------------------------------------------
 *
 * batchread.c
 *	  What a batch consists of, read here.
 *
 * A batch consists of the rows whose keys it is given, as they are now, of
 * all rows whose natural key has changed since the keys snapshot, and of the
 * natural keys of all rows that these refer to.  It carries every change of a
 * name, so when it is applied the remote calls its rows what they were called
 * here in the batch's own snapshot, which is the keys snapshot of the next.
 * That is why names never have to be guessed, whatever happens between two
 * batches and whichever of them gets through.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"
#include "utils/memutils.h"

#include "applysql.h"
#include "batch.h"
#include "localsql.h"
#include "refpairs.h"
#include "requests.h"
#include "stalled.h"

/* identities looked up by one local query */
#define READ_ROWS		1000

/* from so many rows on it is worth while to ask whether the remote has them */
#define STRAIGHT_ROWS	1000

/*
 * Note what the batch needs to know of its tables.  In a local transaction.
 *
 * Returns false if the remote has to be asked first, outside of it:
 * synchro_staging_prepare().
 */
bool
synchro_batch_describe(SynchroBatch *batch)
{
	ListCell   *cell;

	synchro_link_refresh(batch->link);
	foreach(cell, batch->keys)
	{
		SynchroBatchKeys *keys = lfirst(cell);

		if (synchro_table_get(keys->relid, true) != NULL)
			synchro_link_table(batch->link, keys->relid, true);
	}
	foreach(cell, batch->olds->tables)
	{
		SynchroChangedTable *changed = lfirst(cell);

		if (changed->nolds > 0 && synchro_table_get(changed->relid, true) != NULL)
			synchro_link_table(batch->link, changed->relid, changed->table->watched);
	}
	foreach(cell, batch->ensured)
		if (synchro_table_get(lfirst_oid(cell), true) != NULL)
			synchro_link_table(batch->link, lfirst_oid(cell), true);
	/* with all foreign keys: they give the order of deletes */
	foreach(cell, batch->extras)
		synchro_link_table(batch->link, ((SynchroCopy *) lfirst(cell))->relid, true);
	foreach(cell, batch->emptied)
		synchro_link_table(batch->link, ((SynchroCopy *) lfirst(cell))->relid, true)->emptied = true;
	foreach(cell, batch->link->leftovers)
	{
		Oid			relid = synchro_table_by_name(lfirst(cell));

		if (OidIsValid(relid))
			synchro_link_table(batch->link, relid, false);
	}
	foreach(cell, synchro_batch_guarded_tables(batch))
		synchro_link_table(batch->link, lfirst_oid(cell), false);
	return synchro_link_is_prepared(batch->link);
}

static void
read_rows(SynchroBatch *batch, SynchroLinkTable *lt, const SynchroIdentities *identities,
		  bool ensure)
{
	for (int first = 0, count; first < identities->count; first += count)
	{
		count = synchro_stream_piece(lt, identities, first);
		synchro_stream_rows(batch->link, lt, identities, first, count, ensure);
	}
}

static void
read_pairs(SynchroBatch *batch, SynchroLinkTable *lt, const SynchroIdentities *identities)
{
	for (int first = 0; first < identities->count; first += READ_ROWS)
		synchro_refpairs_read(batch->link, lt, identities, first,
							  Min(READ_ROWS, identities->count - first));
}

/*
 * Does the batch want nothing but rows to be as they are here, or to be gone?
 * Not if deletes wait on the remote, of which one may be of a row that is
 * wanted again; nor if the remote decides, or unique values are to be freed.
 */
bool
synchro_batch_is_plain(const SynchroBatch *batch)
{
	const SynchroLink *link = batch->link;

	return !batch->careful && !batch->apart && batch->extras == NIL && batch->emptied == NIL && !batch->parked->has_deletes &&
		link->peer_node == NULL && link->preview == NULL && link->leftovers == NIL;
}

static bool
may_be_straight(const SynchroBatch *batch)
{
	return batch->may_be_straight && batch->dead == NIL && synchro_batch_is_plain(batch);
}

/*
 * If all that has been read is names of rows of one table that are gone, and
 * the pass ends with them: that table.  See straightsql.c.
 */
static SynchroLinkTable *
find_straight_deletes(const SynchroBatch *batch)
{
	SynchroLinkTable *result = NULL;
	ListCell   *cell;

	if (!may_be_straight(batch) || batch->snapshot == NULL)
		return NULL;
	foreach(cell, batch->link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		if (!lt->involved)
			continue;
		if (result != NULL || lt->rows != NULL || lt->changes != NULL || lt->nolds < lt->nnames ||
			lt->nolds < STRAIGHT_ROWS || !synchro_sql_is_named_alone(lt))
			return NULL;
		result = lt;
	}
	return result;
}

/*
 * If the batch is nothing but many rows of one table that the remote does not
 * know, and nothing else is to be done about them: that table.  See
 * straightsql.c.
 */
static SynchroLinkTable *
find_straight(SynchroBatch *batch)
{
	SynchroBatchKeys *only = NULL;
	SynchroLinkTable *lt;
	ListCell   *cell;

	if (!may_be_straight(batch))
		return NULL;
	foreach(cell, batch->olds->tables)
		if (((SynchroChangedTable *) lfirst(cell))->nolds > 0)
			return NULL;
	foreach(cell, batch->keys)
	{
		SynchroBatchKeys *keys = lfirst(cell);

		if (keys->identities->count > 0 && only != NULL)
			return NULL;
		if (keys->identities->count > 0)
			only = keys;
	}
	if (only == NULL || only->identities->count < STRAIGHT_ROWS || only->identities->stamps == NULL ||
		synchro_table_get(only->relid, true) == NULL)
		return NULL;
	for (int i = 0; i < only->identities->count; i++)
		if (only->identities->stamps[i].born == 0)
			return NULL;
	lt = synchro_link_table(batch->link, only->relid, true);

	/* what would get the names that rows keep there must not escape notice: see claimsql.c */
	return synchro_sql_is_straight(lt) && synchro_parked_names(batch->parked, lt->table) == NIL ? lt : NULL;
}

/*
 * Rows that have changed, and when.
 */
void
synchro_batch_read_changed(SynchroBatch *batch, SynchroLinkTable *lt, const SynchroIdentities *identities)
{
	if (batch->straight != NULL && lt == batch->straight)
	{
		bool		with_keys = lt->table->relid != batch->looked_for || lt->remote->may_fire;

		for (int first = 0, count; first < identities->count; first += count)
		{
			count = synchro_stream_piece(lt, identities, first);
			synchro_stream_straight(batch->link, lt, identities, first, count, with_keys);
		}
		return;
	}
	if (lt->decides)
		synchro_stream_changes(batch->link, lt, identities, batch->olds->sources);
	read_pairs(batch, lt, identities);
	read_rows(batch, lt, identities, false);
}

/*
 * Keep which rows others need, for as long as there is the batch: it outlives
 * what was asked for while it was read.
 *
 * One that waits since it was refused when it was new is to be there as it is
 * here, and does not wait any longer then: if it did, and were deleted before its
 * own turn comes, the remote would not be told.
 */
static void
note_ensured(SynchroBatch *batch, SynchroLinkTable *lt, const SynchroIdentities *rows)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(batch));
	SynchroBatchKeys *ensured = palloc0(sizeof(SynchroBatchKeys));
	SynchroBatchKeys *unborn = palloc0(sizeof(SynchroBatchKeys));
	int			n = rows->nidentity;

	ensured->relid = unborn->relid = lt->table->relid;
	ensured->ensure = true;
	ensured->identities = synchro_identities_create(lt->table);
	unborn->identities = synchro_identities_create(lt->table);
	for (int i = 0; i < rows->count; i++)
	{
		char	  **identity = palloc(sizeof(char *) * n);
		const SynchroParked *parked;

		for (int x = 0; x < n; x++)
			identity[x] = rows->values[i * n + x] != NULL ? pstrdup(rows->values[i * n + x]) : NULL;
		parked = synchro_parked_find(batch->parked, lt->table->relid, identity, n);
		if (parked != NULL && synchro_parked_is_insert(parked, lt->table))
		{
			SynchroStamp stamp = synchro_parked_stamp(parked, lt->table);

			synchro_identities_add(unborn->identities, identity);
			synchro_identities_stamp(unborn->identities, stamp, stamp.at);
		}
		else
			synchro_identities_add(ensured->identities, identity);
	}
	if (ensured->identities->count > 0)
		batch->ensured_rows = lappend(batch->ensured_rows, ensured);
	if (unborn->identities->count > 0)
		batch->ensured_rows = lappend(batch->ensured_rows, unborn);
	MemoryContextSwitchTo(old);
}

/*
 * Which of the rows that are named wait since they were refused when they were
 * new: what bears such a name on the remote, and is gone here, is not that row
 * (claimsql.c, synchro_sql_forget_unborn()).
 */
void
synchro_batch_note_unborn(SynchroBatch *batch, SynchroLinkTable *lt, const SynchroIdentities *named)
{
	int			n = named->nidentity;
	SynchroIdentities *unborn = synchro_identities_create(lt->table);
	MemoryContext old;
	char	   *rows;

	for (int i = 0; i < named->count; i++)
	{
		char	  **identity = &named->values[i * n];
		const SynchroParked *parked = synchro_parked_find(batch->parked, lt->table->relid, identity, n);

		if (parked != NULL && synchro_parked_is_insert(parked, lt->table))
			synchro_identities_add(unborn, identity);
	}
	old = MemoryContextSwitchTo(GetMemoryChunkContext(batch));
	rows = synchro_sql_identity_rows(lt->table, list_make1(unborn));
	if (rows != NULL)
		lt->unborn = lappend(lt->unborn, rows);
	MemoryContextSwitchTo(old);
}

/*
 * Rows that others need are pushed along: those that wait because they have
 * failed are not.  Nor are those that were new then, so whoever needs them fails, and
 * they are pushed before him, see note_ensured(): but where that is one transaction.
 */
static void
read_ensured(SynchroBatch *batch, SynchroLinkTable *lt, const SynchroIdentities *requests)
{
	int			n = requests->nidentity;
	SynchroIdentities *rows = synchro_identities_create(lt->table);
	SynchroIdentities *names = synchro_identities_create(lt->table);
	SynchroIdentities *wanted = synchro_identities_create(lt->table);

	for (int i = 0; i < requests->count; i++)
	{
		char	  **identity = &requests->values[i * n];
		SynchroParked *parked = synchro_parked_find(batch->parked, lt->table->relid, identity, n);
		bool		waits = parked != NULL && (parked->banned || !parked->due);
		bool		apart = parked != NULL && !batch->atomic && synchro_parked_is_insert(parked, lt->table);

		synchro_identities_add(waits || apart ? names : rows, identity);
		if (!waits)
			synchro_identities_add(wanted, identity);
	}
	read_rows(batch, lt, rows, true);
	synchro_stream_names_of(batch->link, lt, names);
	if (batch->note_ensured && wanted->count > 0)
		note_ensured(batch, lt, wanted);
}

/*
 * Names that rows of the batch's tables keep on the remote since their new
 * ones have been refused.  Whoever refers to such a row means the remote row of
 * that name; and one that is called so here meanwhile, or whom the refused name
 * fits, is another row.  Returns whether that was not known yet.
 */
static bool
read_waiting(SynchroBatch *batch, SynchroLinkTable *lt, List **known)
{
	ListCell   *cell;

	if (!lt->involved || !lt->table->watched || lt == batch->straight || list_member_ptr(*known, lt))
		return false;
	*known = lappend(*known, lt);
	foreach(cell, synchro_parked_names(batch->parked, lt->table))
	{
		batch->names_waiting = true;
		synchro_stream_old(batch->link, lt, lfirst(cell), batch->olds->sources);
	}
	return lt->nwaiting > 0;
}

/*
 * Natural keys of rows that the batch refers to, until nothing new is asked
 * for.  Rows of tables whose rows were found missing come as a whole.
 *
 * When that is done, the same for rows that wait (link->for_waiting), which nobody
 * else refers to then: see waitingsql.c.
 */
static void
read_requests(SynchroBatch *batch)
{
	bool		for_waiting = batch->link->for_waiting;
	bool		again = true;
	List	   *known = NIL;

	while (again)
	{
		ListCell   *cell;

		again = false;
		foreach(cell, batch->link->tables)
		{
			SynchroLinkTable *lt = lfirst(cell);
			SynchroIdentities *requests = synchro_requests_take(lt);

			if (for_waiting && batch->parked->count > 0)
				again |= read_waiting(batch, lt, &known);
			if (requests == NULL)
				continue;
			again = true;
			if (batch->parked->count > 0)
				synchro_batch_note_unborn(batch, lt, requests);
			read_pairs(batch, lt, requests);
			if (!for_waiting && list_member_oid(batch->ensured, lt->table->relid) && !synchro_stalled_waits(batch->stalled, lt->table->relid))
			{
				read_ensured(batch, lt, requests);
				continue;
			}
			synchro_stream_names_of(batch->link, lt, requests);
		}
	}
}

/*
 * Begin to read into spools, under the active snapshot and by the rights of the
 * role that the remote runs as.
 */
static void
open_reading(const SynchroBatch *batch, SynchroSqlScope *scope)
{
	synchro_link_clear_batch(batch->link);
	synchro_sql_open(scope, batch->link->target->owner);

	/* rows are looked up by key, however young the table's statistics are */
	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);

	/* for a few rows a plan of their own looks cheaper, but for what it costs to make it */
	(void) set_config_option("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Read nothing but the names of rows that wait, to see whether that can be done.
 */
void
synchro_batch_read_waiting(SynchroBatch *batch)
{
	SynchroSqlScope scope;
	ListCell   *cell;

	batch->straight = NULL;
	open_reading(batch, &scope);
	foreach(cell, batch->link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		if (synchro_parked_waiting(batch->parked, lt->table) == NIL)
			continue;
		lt->involved = true;
		synchro_request_names(batch->link, lt, synchro_parked_updates(batch->parked, lt->table, false));
	}
	batch->link->for_waiting = true;
	read_requests(batch);
	synchro_sql_close(&scope);
}

/*
 * Read the batch's rows into spools.
 */
void
synchro_batch_read(SynchroBatch *batch)
{
	SynchroSqlScope scope;
	ListCell   *cell;

	batch->nolds = 0;
	batch->olds_mark = 0;
	batch->all_olds = NIL;
	batch->ensured_rows = NIL;
	batch->keys_snapshot = synchro_snapshot_current();
	batch->names_waiting = false;
	batch->straight = find_straight(batch);
	open_reading(batch, &scope);

	/* which they are first: of these tables no single names are asked for */
	foreach(cell, batch->extras)
		synchro_link_table(batch->link, ((SynchroCopy *) lfirst(cell))->relid, false)->all_names = true;
	foreach(cell, batch->extras)
	{
		SynchroLinkTable *lt = synchro_link_table(batch->link, ((SynchroCopy *) lfirst(cell))->relid, false);

		synchro_stream_all_names(batch->link, lt);
		synchro_batch_note_unborn(batch, lt, synchro_parked_inserts(batch->parked, lt->table));
	}
	synchro_batch_spare_detached(batch);
	synchro_batch_keep_called(batch);
	synchro_batch_read_olds(batch, false);
	if (batch->olds_turn != PG_INT64_MAX)
	{
		synchro_changes_rewind(batch->olds);
		synchro_batch_read_olds(batch, true);
	}
	foreach(cell, batch->dead)
	{
		SynchroBatchDead *dead = lfirst(cell);
		SynchroLinkTable *lt;

		if (synchro_table_get(dead->relid, true) == NULL)
			continue;
		lt = synchro_link_table(batch->link, dead->relid, true);
		synchro_batch_require_rights(batch, lt);
		synchro_stream_old(batch->link, lt, &dead->key, batch->olds->sources);
	}
	foreach(cell, batch->keys)
	{
		SynchroBatchKeys *keys = lfirst(cell);
		SynchroLinkTable *lt;

		if (synchro_table_get(keys->relid, true) == NULL)
			continue;
		lt = synchro_link_table(batch->link, keys->relid, true);

		/* what others need says nothing of a time, so must not win against a change */
		if (keys->ensure)
		{
			read_pairs(batch, lt, keys->identities);
			read_rows(batch, lt, keys->identities, true);
		}
		else
			synchro_batch_read_changed(batch, lt, keys->identities);
	}
	read_requests(batch);
	batch->link->for_waiting = true;
	synchro_batch_read_guarded(batch);
	read_requests(batch);
	if (batch->straight == NULL)
		batch->straight = find_straight_deletes(batch);
	synchro_sql_close(&scope);
}
