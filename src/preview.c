/*-------------------------------------------------------------------------
 *
 * preview.c
 *	  What a pass would do, found out by doing it in a transaction of the
 *	  remote that is rolled back.
 *
 * A preview is a pass over a link of its own whose field preview is set.  All
 * its batches are parts of one transaction, see previewsql.c, which has the
 * remote's position locked from the beginning as any batch has: so no other
 * worker's batch goes through in between, and ours are not in anybody's way
 * for longer than that.
 *
 * Nothing is written here.  In particular no attempted token is kept, and WAL
 * need not be flushed: both are there to know the state of the remote again
 * after a crash, and the remote's state does not change, whatever happens to
 * either side or to the line in between.  A transaction that was never
 * committed leaves no token there that we would not know.  What fails is
 * remembered until the preview ends, as if it were parked.
 *
 * The rows that are shown wait in a spool until the transaction is over: whoever
 * reads them slowly keeps no locks on the remote.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "preview.h"
#include "previewsql.h"

/*
 * An empty preview, in the current memory context.
 */
SynchroPreview *
synchro_preview_create(void)
{
	SynchroPreview *preview = palloc0(sizeof(SynchroPreview));

	preview->context = CurrentMemoryContext;
	preview->rows = synchro_spool_create();
	return preview;
}

/*
 * Let nothing stay of what is done over a new link; begin with the rows to be
 * shown anew.
 */
void
synchro_preview_begin(SynchroLink *link, SynchroPreview *preview)
{
	MemoryContext old = MemoryContextSwitchTo(preview->context);

	synchro_spool_free(preview->rows);
	preview->rows = synchro_spool_create();
	MemoryContextSwitchTo(old);
	link->preview = preview;
	synchro_remote_query(link->remote, "BEGIN", 0, NULL);

	/* nor does its capture log what is not going to stay */
	if (link->peer_node != NULL)
		synchro_remote_query(link->remote, "SET LOCAL synchro.log_changes = off", 0, NULL);
	synchro_remote_set_undo(link->remote, SYNCHRO_PREVIEW_UNDO);
}

/*
 * Roll all back.
 */
void
synchro_preview_end(SynchroLink *link)
{
	synchro_remote_query(link->remote, "ROLLBACK", 0, NULL);
}

/*
 * How an error is shown.
 */
char *
synchro_preview_reason(const char *sqlstate, const char *message)
{
	return psprintf("%s: %s", sqlstate, message);
}

/*
 * Leave out a table that cannot be pushed, when the preview begins anew.
 */
void
synchro_preview_stall(SynchroPreview *preview, Oid relid, const SynchroKeptError *error)
{
	MemoryContext old = MemoryContextSwitchTo(preview->context);
	SynchroPreviewRow *row = palloc0(sizeof(SynchroPreviewRow));

	row->relid = relid;
	row->action = "fail";
	row->detail = synchro_preview_reason(unpack_sql_state(error->sqlerrcode), error->message);
	preview->stalled = lappend(preview->stalled, row);
	MemoryContextSwitchTo(old);
}

static void
append_text(StringInfo buf, const char *text)
{
	appendStringInfoChar(buf, text != NULL ? 'v' : 'n');
	if (text != NULL)
		appendBinaryStringInfo(buf, text, strlen(text) + 1);
}

/*
 * Add a row to be shown: its length, the table, and three strings.
 */
void
synchro_preview_put(SynchroPreview *preview, const SynchroPreviewRow *row)
{
	StringInfoData buf;
	uint32		len = 0;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, (char *) &len, sizeof(len));
	appendBinaryStringInfo(&buf, (char *) &row->relid, sizeof(row->relid));
	append_text(&buf, row->key);
	append_text(&buf, row->action);
	append_text(&buf, row->detail);
	len = buf.len;
	memcpy(buf.data, &len, sizeof(len));
	synchro_spool_append(preview->rows, buf.data, buf.len);
	pfree(buf.data);
}

static char *
take_text(const char **pos)
{
	char	   *text;

	if (*(*pos)++ == 'n')
		return NULL;
	text = pstrdup(*pos);
	*pos += strlen(text) + 1;
	return text;
}

/*
 * Take a row from bytes that synchro_preview_put() has made.  Returns how many
 * it has, 0 if they are not all there yet.
 */
int
synchro_preview_take(const char *data, int len, SynchroPreviewRow *row)
{
	uint32		needed;
	const char *pos = data + sizeof(needed) + sizeof(row->relid);

	if (len < (int) sizeof(needed))
		return 0;
	memcpy(&needed, data, sizeof(needed));
	if (len < (int) needed)
		return 0;
	memcpy(&row->relid, data + sizeof(needed), sizeof(row->relid));
	row->key = take_text(&pos);
	row->action = take_text(&pos);
	row->detail = take_text(&pos);
	return (int) needed;
}
