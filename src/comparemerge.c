/*-------------------------------------------------------------------------
 *
 * comparemerge.c
 *	  Rows of both sides, brought together by the hashes of their keys.
 *
 * Both sides are read piece by piece, by a cursor each, so it takes no more
 * memory the more rows there are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "comparemerge.h"
#include "localsql.h"

/* rows of one side, one after the other, as text */
typedef struct Reader
{
	SynchroRemote *remote;		/* NULL: here */
	Portal		portal;
	int			ncolumns;
	int			fetch;			/* rows at a time */
	bool		sent;			/* the remote is fetching */
	MemoryContext context;		/* of the rows fetched */
	char	  **values;
	int			nrows;
	int			next;
} Reader;

static void
open_reader(Reader *reader, SynchroRemote *remote, const char *sql, int ncolumns, int fetch)
{
	memset(reader, 0, sizeof(*reader));
	reader->remote = remote;
	reader->ncolumns = ncolumns;
	reader->fetch = fetch;
	reader->context = AllocSetContextCreate(CurrentMemoryContext, "synchro compared rows", ALLOCSET_DEFAULT_SIZES);
	if (remote != NULL)
		synchro_remote_query(remote, psprintf("DECLARE synchro_compared NO SCROLL CURSOR FOR %s", sql), 0, NULL);
	else
		reader->portal = synchro_sql_cursor(sql);
}

static void send_fetch(Reader *reader);

static void
fetch_rows(Reader *reader)
{
	MemoryContext old;

	MemoryContextReset(reader->context);
	old = MemoryContextSwitchTo(reader->context);
	reader->next = 0;
	if (reader->remote != NULL)
	{
		SynchroRows *rows;

		if (!reader->sent)
			send_fetch(reader);
		reader->sent = false;
		rows = synchro_remote_receive(reader->remote);
		reader->values = rows->values;
		reader->nrows = rows->nrows;
		MemoryContextSwitchTo(old);
		return;
	}
	SPI_cursor_fetch(reader->portal, true, reader->fetch);
	reader->nrows = (int) SPI_processed;
	MemoryContextSwitchTo(reader->context);
	reader->values = palloc(sizeof(char *) * Max(reader->nrows * reader->ncolumns, 1));
	for (int i = 0; i < reader->nrows; i++)
		for (int j = 0; j < reader->ncolumns; j++)
		{
			bool		isnull;
			Datum		value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, j + 1, &isnull);

			reader->values[i * reader->ncolumns + j] = isnull ? NULL : TextDatumGetCString(value);
		}
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(old);
}

/*
 * Have the remote begin to fetch, which takes it a scan the first time.
 */
static void
send_fetch(Reader *reader)
{
	synchro_remote_send(reader->remote, psprintf("FETCH %d FROM synchro_compared", reader->fetch), 0, NULL);
	reader->sent = true;
}

/*
 * The row that the reader is at, or NULL at the end; good until the next call.
 */
static char **
current_row(Reader *reader)
{
	if (reader->next == reader->nrows && (reader->values == NULL || reader->nrows == reader->fetch))
		fetch_rows(reader);
	return reader->next < reader->nrows ? &reader->values[reader->next * reader->ncolumns] : NULL;
}

static void
close_reader(Reader *reader)
{
	if (reader->remote != NULL)
		synchro_remote_query(reader->remote, "CLOSE synchro_compared", 0, NULL);
	else
		SPI_cursor_close(reader->portal);
	MemoryContextDelete(reader->context);
}

/*
 * Bring the rows of both queries, of columns of text, together by the first one, the
 * key's hash, by which they are sorted.  fetch: so many at a time.  The callback is
 * given NULL for a side that has no row of that hash, or none any more.
 */
void
synchro_compare_merge(SynchroRemote *remote, const char *here_sql, const char *there_sql, int ncolumns,
					  int fetch, SynchroPairCallback callback, void *arg)
{
	Reader		here;
	Reader		there;

	open_reader(&there, remote, there_sql, ncolumns, fetch);
	send_fetch(&there);
	open_reader(&here, NULL, here_sql, ncolumns, fetch);
	for (;;)
	{
		char	  **a = current_row(&here);
		char	  **b = current_row(&there);
		int64		hash_a;
		int64		hash_b;

		CHECK_FOR_INTERRUPTS();
		/* both queries ask for certain hashes */
		Assert((a == NULL || a[0] != NULL) && (b == NULL || b[0] != NULL));
		hash_a = a != NULL ? strtoll(a[0], NULL, 10) : 0;
		hash_b = b != NULL ? strtoll(b[0], NULL, 10) : 0;
		if (a == NULL && b == NULL)
			break;
		if (a != NULL && b != NULL && hash_a != hash_b)
		{
			if (hash_a < hash_b)
				b = NULL;
			else
				a = NULL;
		}
		callback(a != NULL ? hash_a : hash_b, a, b, arg);
		here.next += a != NULL;
		there.next += b != NULL;
	}
	close_reader(&here);
	close_reader(&there);
}
