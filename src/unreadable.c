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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
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
 * Read a batch as synchro_batch_read() does.  Returns NULL, or, in the current
 * memory context, the error of a row that could not be read; others are raised.
 * In a local transaction.
 */
SynchroRemoteError *
synchro_unreadable_read(SynchroBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	SynchroRemoteError *volatile result = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		synchro_batch_read(batch);
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
