/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  One batch through one remote transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "pgstat.h"

#include "applysql.h"
#include "batch.h"
#include "claimed.h"
#include "clocklink.h"
#include "decidesql.h"
#include "followers.h"
#include "prepared.h"
#include "previewsql.h"

/*
 * How many keys there are in a list of SynchroBatchKeys.
 */
int
synchro_batch_count_keys(const List *keys)
{
	const ListCell *cell;
	int			count = 0;

	foreach(cell, keys)
		count += ((SynchroBatchKeys *) lfirst(cell))->identities->count;
	return count;
}

/*
 * Take what a preview is told of rows.
 */
static void
take_preview(SynchroBatch *batch, const SynchroRows *rows)
{
	for (int i = 0; i < rows->nrows; i++)
	{
		SynchroPreviewRow *row = palloc(sizeof(SynchroPreviewRow));

		row->relid = synchro_link_numbered(batch->link, atoi(synchro_value(rows, i, 1)), false)->table->relid;
		row->key = synchro_nullable(rows, i, 2);
		row->action = synchro_value(rows, i, 3);
		row->detail = synchro_nullable(rows, i, 4);
		batch->shown = lappend(batch->shown, row);
	}
}

/*
 * Take how deletes have fared that were tried one by one.
 */
static void
take_undeleted(SynchroBatch *batch, const SynchroRows *rows)
{
	for (int i = 0; i < rows->nrows; i++)
	{
		SynchroUndeleted *undeleted = palloc(sizeof(SynchroUndeleted));

		undeleted->relation = pstrdup(synchro_link_numbered(batch->link, atoi(synchro_value(rows, i, 1)), false)->table->qualified);
		batch->counts.deleted += strtoll(synchro_value(rows, i, 2), NULL, 10);
		batch->counts.failed += strtoll(synchro_value(rows, i, 3), NULL, 10);
		undeleted->keys = synchro_nullable(rows, i, 4);
		undeleted->sqlstates = synchro_nullable(rows, i, 5);
		undeleted->messages = synchro_nullable(rows, i, 6);
		undeleted->constraints = synchro_nullable(rows, i, 7);
		batch->undeleted = lappend(batch->undeleted, undeleted);
	}
}

static void
count_results(SynchroBatch *batch, List *results)
{
	ListCell   *cell;

	foreach(cell, results)
	{
		SynchroRows *rows = lfirst(cell);
		const char *tag = rows->nrows > 0 ? synchro_nullable(rows, 0, 0) : NULL;

		if (tag != NULL && strcmp(tag, SYNCHRO_PREVIEW_TAG) == 0)
			take_preview(batch, rows);
		else if (tag != NULL && strcmp(tag, SYNCHRO_APART_TAG) == 0)
			take_undeleted(batch, rows);
		else if (tag != NULL && strcmp(tag, SYNCHRO_CLAIMED_TAG) == 0)
			batch->claimed = synchro_claimed_take(batch->claimed, batch->link, rows);
		else if (rows->nrows > 1)
			continue;
		else if (tag != NULL && strcmp(tag, SYNCHRO_UPSERT_TAG) == 0)
		{
			/* NULL: what would have raised an error */
			for (int i = 1; i + 1 < rows->ncolumns && synchro_nullable(rows, 0, i) != NULL; i += 2)
			{
				batch->counts.updated += strtoll(synchro_value(rows, 0, i), NULL, 10);
				batch->counts.inserted += strtoll(synchro_value(rows, 0, i + 1), NULL, 10);
			}
		}
		else if (tag != NULL && strcmp(tag, SYNCHRO_SKIPPED_TAG) == 0)
			batch->counts.skipped += strtoll(synchro_value(rows, 0, 1), NULL, 10);
		else if (tag != NULL && strcmp(tag, SYNCHRO_ANEW_TAG) == 0 && synchro_clocklink_uncertainty(batch->link) > 0)
		{
			SynchroAnew *anew = palloc(sizeof(SynchroAnew));

			anew->relid = synchro_link_numbered(batch->link, atoi(synchro_value(rows, 0, 1)), false)->table->relid;
			anew->identities = pstrdup(synchro_value(rows, 0, 2));
			anew->stamps = pstrdup(synchro_value(rows, 0, 3));
			anew->origins = pstrdup(synchro_value(rows, 0, 4));
			batch->anew = lappend(batch->anew, anew);
		}
		else if (tag != NULL && strcmp(tag, SYNCHRO_DELETE_TAG) == 0)
		{
			for (int i = 1; i < rows->ncolumns; i++)
				batch->counts.deleted += strtoll(synchro_value(rows, 0, i), NULL, 10);
		}
	}
}

/*
 * Staging tables that the batch has filled are emptied by the next one.  What
 * has been put off, or lost, may have put something into the maps of others.
 */
static void
note_committed(SynchroLink *link)
{
	bool		all = link->leftovers != NIL || link->peer_node != NULL;
	ListCell   *cell;

	/* tables may have been described anew since it was sent, to read ahead */
	foreach(cell, link->stagings)
	{
		SynchroStaging *staging = lfirst(cell);

		if (!staging->was_known)
			continue;
		synchro_stage_committed(staging, all || staging->was_involved);
		staging->analyzed |= staging->analyzes;
	}
}

static bool
same_anew(const SynchroAnew *a, const SynchroAnew *b)
{
	return a->relid == b->relid && strcmp(a->identities, b->identities) == 0 && strcmp(a->stamps, b->stamps) == 0;
}

/*
 * Is what follows the rows that were made anew logged already?
 */
static bool
are_told(const SynchroBatch *batch)
{
	ListCell   *cell;
	ListCell   *other;

	foreach(cell, batch->anew)
	{
		bool		found = false;

		foreach(other, batch->told)
			found |= same_anew(lfirst(cell), lfirst(other));
		if (!found)
			return false;
	}
	return true;
}

/*
 * Define the functions that heirs are made by, if the batch may have some and
 * the session has none of them yet.
 */
static void
define_heirs(SynchroLink *link)
{
	ListCell   *cell;
	bool		needed = false;
	StringInfoData sql;
	SynchroRemoteError *error;

	foreach(cell, link->tables)
		needed |= synchro_sql_has_heirs(lfirst(cell));
	if (!needed || link->heirs_defined)
		return;
	initStringInfo(&sql);
	synchro_sql_define_heirs(&sql);
	error = synchro_remote_script(link->remote, sql.data, NIL, NULL);
	if (error != NULL)
		synchro_remote_report(link->remote, error, "while defining temporary functions");
	link->heirs_defined = true;
}

/*
 * Send the batch that was read, and apply it.  No local transaction.
 *
 * token: the position's new token.  commit: false to try it only.  The link's
 * tables have nothing of the batch any more as soon as it is being sent, but
 * for what says so: batch->meanwhile may read another one.
 *
 * Where a round trip costs less than what is to be done before COMMIT, that is
 * done while the remote applies the batch, and COMMIT is sent by itself
 * (batch->commits_late).  If we die in between the remote rolls back, at once
 * or when it has waited for LATE_COMMIT ms.  Not where it would wait for us
 * for long, with its locks: COPY waits, and reading ahead.
 *
 * A node's COMMIT always comes by itself, since only the results tell which rows
 * it has made anew.  What follows these has to be logged here before it has
 * them for good: if we die before that, nobody would know of it any more.  And
 * it must not wait for us meanwhile, with its locks, as we may wait for those
 * of its own worker here.  So then the batch is withdrawn, to be sent again when
 * that is done.
 *
 * Returns NULL, or what went wrong: then nothing is applied, unless the
 * connection is lost.  Nor is it if batch->withdrawn is set.
 */
SynchroRemoteError *
synchro_batch_apply(SynchroBatch *batch, const char *token, bool commit)
{
	List	   *spools;
	List	   *results;
	char	   *sql = synchro_batch_script(batch, token, commit, &spools);
	SynchroLink *link = batch->link;
	int64		staged = synchro_batch_staged(link->tables);
	bool		straight_rows = batch->straight != NULL && batch->straight->rows != NULL;
	SynchroRemoteError *error;

	define_heirs(link);
	elog(DEBUG2, "synchro: %s", sql);
	memset(&batch->counts, 0, sizeof(batch->counts));
	batch->anew = NIL;
	batch->undeleted = NIL;
	batch->claimed = NIL;
	batch->shown = NIL;
	synchro_link_send_batch(link);
	if (commit && batch->before_commit != NULL && !batch->commits_late)
		batch->before_commit(batch->hook_arg);
	pgstat_report_activity(STATE_RUNNING, "synchro: applying a batch on the remote");
	error = synchro_remote_long_script(link->remote, sql, spools, batch->commits_late ? batch->before_commit : batch->meanwhile,
									   batch->hook_arg, &results);
	if (error == NULL)
		count_results(batch, results);
	batch->withdrawn = error == NULL && batch->commits_late && !are_told(batch);
	if (error == NULL && batch->commits_late)
	{
		error = synchro_remote_script(link->remote, batch->withdrawn ? "ROLLBACK" : "COMMIT", NIL, NULL);

		/* it is not the fence that has failed */
		if (error != NULL)
			error->statement += SYNCHRO_FENCE_STATEMENTS;
	}
	commit &= !batch->withdrawn;
	synchro_link_clear_sent(link);
	synchro_prepared_note(link, staged, error == NULL);
	if (error == NULL && straight_rows)
		batch->counts.inserted = synchro_remote_copied(link->remote);
	if (error == NULL && commit)
		note_committed(link);
	return error;
}

/*
 * What the only row of a batch that was read is called, by its natural key;
 * NULL if that cannot be told.  For a preview; nothing is applied.
 */
char *
synchro_batch_name(SynchroBatch *batch)
{
	List	   *spools;
	List	   *results;
	ListCell   *cell;
	char	   *sql = synchro_batch_name_script(batch, &spools);

	if (synchro_remote_script(batch->link->remote, sql, spools, &results) != NULL)
		return NULL;
	foreach(cell, results)
	{
		SynchroRows *rows = lfirst(cell);

		if (rows->nrows == 1 && rows->ncolumns == 2 && synchro_nullable(rows, 0, 0) != NULL &&
			strcmp(synchro_value(rows, 0, 0), SYNCHRO_PREVIEW_TAG) == 0)
			return synchro_nullable(rows, 0, 1);
	}
	return NULL;
}
