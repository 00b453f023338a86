/*-------------------------------------------------------------------------
 *
 * unreadable.c
 *	  Rows that cannot be read on this side.
 *
 * A value that is damaged on disk, that is too large as text, or that the output
 * function of its type refuses, makes the reading of a batch fail each time,
 * whatever else is in it.  That is taken for the remote's refusal: the batch is
 * divided, the row is parked, and all others go.
 *
 * It is read in a subtransaction, since what the transaction has noted before
 * must be kept, and the batch's keys have been taken.
 *
 * A row that waits is named by batches of others, too (batchguard.c, read_waiting()
 * of batchread.c).  If that cannot be read either, it is left out there, or all of
 * these would fail.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "localsql.h"
#include "passwork.h"
#include "rowerror.h"
#include "rowstream.h"
#include "stalled.h"

/*
 * Broken data is a row's on this side: only those are read that are wanted.
 */
static bool
is_about_rows(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_DATA_CORRUPTED || sqlerrcode == ERRCODE_INDEX_CORRUPTED ||
		sqlerrcode == ERRCODE_IO_ERROR || sqlerrcode == ERRCODE_UNDEFINED_FILE ||
		synchro_error_is_about_rows(unpack_sql_state(sqlerrcode));
}

/*
 * The error as if the remote had raised it, in the current memory context.
 * table: of the row that was being read.
 */
static SynchroRemoteError *
as_refused(const ErrorData *error, const SynchroTable *table)
{
	SynchroRemoteError *result = palloc0(sizeof(SynchroRemoteError));

	strlcpy(result->sqlstate, unpack_sql_state(error->sqlerrcode), sizeof(result->sqlstate));
	result->message = pstrdup(error->message);
	result->detail = error->detail != NULL ? pstrdup(error->detail) :
		psprintf("A row of table %s could not be read on this side.", table->qualified);
	result->hint = pstrdup("Mend the row here, or delete it.");
	result->schema = pstrdup(table->schema);
	result->table = pstrdup(table->name);
	result->here = true;
	return result;
}

/*
 * Run that in a subtransaction.  Returns NULL, or, in the current memory context,
 * the error of a row that could not be read; others are raised.
 */
static SynchroRemoteError *
try_reading(void (*reading) (SynchroBatch *batch), SynchroBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	SynchroRemoteError *volatile result = NULL;

	/* what a reading that has failed has left */
	synchro_stream_reads(InvalidOid);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		reading(batch);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		const SynchroTable *table;
		ErrorData  *error;

		/* whose definition is to blame is told by who catches it */
		if (!OidIsValid(synchro_suspected()) || !is_about_rows(geterrcode()))
			PG_RE_THROW();
		error = synchro_undo_subtransaction(context, owner);
		synchro_suspect(InvalidOid);
		table = synchro_table_get(synchro_stream_being_read(), true);
		if (table == NULL)
			ReThrowError(error);
		result = as_refused(error, table);
		FreeErrorData(error);
	}
	PG_END_TRY();
	return result;
}

static void
set_unreadable(List *rows, int first, int count, bool unreadable)
{
	for (int i = first; i < first + count; i++)
		((SynchroParked *) list_nth(rows, i))->unreadable = unreadable;
}

/*
 * Which of these rows, all of them unreadable as far as is known, cannot be named?
 * By halves.  The others are added to *readable, and are taken for unreadable until
 * all have been looked at.
 */
static void
divide_waiting(SynchroBatch *batch, List *rows, int first, int count, List **readable)
{
	bool		any;

	CHECK_FOR_INTERRUPTS();
	set_unreadable(rows, first, count, false);
	any = try_reading(synchro_batch_read_waiting, batch) != NULL;
	set_unreadable(rows, first, count, true);
	if (!any)
		for (int i = first; i < first + count; i++)
			*readable = lappend(*readable, list_nth(rows, i));
	else if (count > 1)
	{
		divide_waiting(batch, rows, first, count / 2, readable);
		divide_waiting(batch, rows, first + count / 2, count - count / 2, readable);
	}
}

/*
 * Leave out rows that wait and that cannot be named.  Returns whether there are any
 * that were not left out before.
 */
static bool
leave_out_waiting(SynchroBatch *batch)
{
	List	   *rows = NIL;
	List	   *readable = NIL;
	ListCell   *cell;

	foreach(cell, batch->link->tables)
		rows = list_concat(rows, synchro_parked_waiting(batch->parked, ((SynchroLinkTable *) lfirst(cell))->table));
	if (rows == NIL)
		return false;
	set_unreadable(rows, 0, list_length(rows), true);
	divide_waiting(batch, rows, 0, list_length(rows), &readable);
	set_unreadable(readable, 0, list_length(readable), false);
	return list_length(readable) < list_length(rows);
}

/*
 * Read a batch as synchro_batch_read() does.  Returns NULL, or, in the current
 * memory context, the error of a row that could not be read; others are raised.
 * In a local transaction.
 */
SynchroRemoteError *
synchro_unreadable_read(SynchroBatch *batch)
{
	SynchroRemoteError *error = try_reading(synchro_batch_read, batch);

	while (error != NULL && batch->names_waiting && leave_out_waiting(batch))
	{
		synchro_changes_rewind(batch->olds);
		error = try_reading(synchro_batch_read, batch);
	}
	return error;
}
