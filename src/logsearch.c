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
#include "utils/snapmgr.h"

#include "localsql.h"
#include "logsearch.h"

/*
 * A table of SynchroNamed, in the current memory context.
 */
HTAB *
synchro_logsearch_table(int size)
{
	return synchro_bytes_table("synchro peer rows", sizeof(SynchroNamed), Max(size, 16));
}

/*
 * Begin a search, in the current memory context.  size: how many are wanted.
 * stamps: where the stamps of transactions are noted.
 */
void
synchro_logsearch_begin(SynchroLogSearch *search, const SynchroTable *table, int size, SynchroStamps *stamps)
{
	search->table = table;
	search->stamps = stamps;
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

static void
begin_latest(SynchroSqlScope *scope)
{
	synchro_sql_open(scope, SYNCHRO_AS_OWNER);
	synchro_log_begin_latest();
}

static void
end_latest(SynchroSqlScope *scope)
{
	PopActiveSnapshot();
	synchro_sql_close(scope);
}

/*
 * Call back for what was logged at a given time or later, or was not seen by a
 * snapshot if there is one.
 */
void
synchro_logsearch_latest(TimestampTz since, const SynchroSnapshot *unseen_by, SynchroLogCallback callback, void *arg)
{
	SynchroSqlScope scope;

	begin_latest(&scope);
	synchro_log_scan_recent(since, unseen_by, callback, arg);
	end_latest(&scope);
}

/*
 * Call back for what was not seen by a snapshot.
 */
void
synchro_logsearch_unseen(const SynchroSnapshot *snapshot, SynchroLogCallback callback, void *arg)
{
	SynchroSqlScope scope;

	begin_latest(&scope);
	synchro_log_scan(snapshot, callback, arg);
	end_latest(&scope);
}
