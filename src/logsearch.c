/*-------------------------------------------------------------------------
 *
 * logsearch.c
 *	  What searches of this node's log for rows of one table have in common.
 *
 * The log is read with the latest snapshot, taken after the segments have been
 * locked (see synchro_log_lock()), and without what the present transaction
 * has written itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/snapmgr.h"

#include "localsql.h"
#include "logsearch.h"

static uint32
hash_named(const void *key, Size size)
{
	const SynchroBytes *bytes = key;

	return hash_bytes((const unsigned char *) bytes->data, bytes->len);
}

static int
match_named(const void *a, const void *b, Size size)
{
	const SynchroBytes *x = a;
	const SynchroBytes *y = b;

	return x->len != y->len || memcmp(x->data, y->data, x->len) != 0;
}

/*
 * A table of SynchroNamed, in the current memory context.
 */
HTAB *
synchro_logsearch_table(int size)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(SynchroBytes);
	ctl.entrysize = sizeof(SynchroNamed);
	ctl.hash = hash_named;
	ctl.match = match_named;
	ctl.hcxt = CurrentMemoryContext;
	return hash_create("synchro peer rows", Max(size, 16), &ctl,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/*
 * Begin a search, in the current memory context.  size: how many are wanted.
 */
void
synchro_logsearch_begin(SynchroLogSearch *search, const SynchroTable *table, int size)
{
	search->table = table;
	search->stamps = synchro_stamps_create();
	search->wanted = synchro_logsearch_table(size);
	search->own = U64FromFullTransactionId(GetTopFullTransactionIdIfAny());
	search->context = CurrentMemoryContext;
}

/*
 * Is a row of the log one of this table, of another transaction?
 */
bool
synchro_logsearch_is_of_table(SynchroLogSearch *search, const SynchroLogRow *row)
{
	if (synchro_stamps_note(search->stamps, row))
		return false;
	return row->relation == search->table->relid && row->txid != search->own &&
		SYNCHRO_LAYOUT_IDENTITY(row->layout) == SYNCHRO_LAYOUT_IDENTITY(search->table->layout);
}

/*
 * Call back for what was logged at a given time or later, or was not seen by a
 * snapshot if there is one.
 */
void
synchro_logsearch_latest(TimestampTz since, const SynchroSnapshot *unseen_by, SynchroLogCallback callback, void *search)
{
	SynchroSqlScope scope;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_log_lock();
	PushActiveSnapshot(GetLatestSnapshot());
	synchro_log_scan_recent(since, unseen_by, callback, search);
	PopActiveSnapshot();
	synchro_sql_close(&scope);
}

/*
 * Call back for what was not seen by a snapshot.
 */
void
synchro_logsearch_unseen(const SynchroSnapshot *snapshot, SynchroLogCallback callback, void *search)
{
	SynchroSqlScope scope;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_log_lock();
	PushActiveSnapshot(GetLatestSnapshot());
	synchro_log_scan(snapshot, callback, search);
	PopActiveSnapshot();
	synchro_sql_close(&scope);
}
