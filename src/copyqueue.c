/*-------------------------------------------------------------------------
 *
 * copyqueue.c
 *	  Copies of whole tables: which are queued, and how far each has come.
 *
 * Of a copy we keep how far it has come, not its keys: a position in the order
 * of the table's primary key.  It is moved on in the local transaction that
 * acknowledges the pass's last batch (checkpoint.c), so a crash in between has
 * a piece pushed again, which writes nothing twice.
 *
 * copy_table() only ever adds a row, so a transaction of the user's that is
 * open for long is in no pusher's way: of several copies of one table the
 * latest counts, and the pusher removes the others.  If the table was to be emptied
 * first for one of these, it still is, with all that go with it: also when the
 * transaction in which that was asked commits late, and pieces of the latest copy are
 * there already.  These go, too, and are pushed once more.  Not so where the remote
 * is a node, which is not emptied: there a later copy takes the place of that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "changestore.h"
#include "copyqueue.h"
#include "localsql.h"

/* does the remote of a row o log changes itself?  Then its tables are not emptied */
#define IS_NODE \
	"EXISTS (SELECT FROM synchro.remote_state s WHERE s.server = o.server AND s.node IS NOT NULL)"

/* latest copies of tables that are watched still */
#define COPIES_FROM \
	" FROM synchro.copying c LEFT JOIN LATERAL (SELECT bool_or(o.empty) AS empty," \
	"  (array_agg(o.forgotten ORDER BY o.id DESC) FILTER (WHERE o.forgotten IS NOT NULL))[1] AS forgotten" \
	"  FROM synchro.copying o WHERE o.server = c.server AND o.relation = c.relation AND o.id < c.id" \
	"  AND NOT (o.empty AND " IS_NODE ")) b ON true" \
	" WHERE c.server = $1::name" \
	" AND NOT EXISTS (SELECT FROM synchro.copying n WHERE n.server = c.server AND n.relation = c.relation AND n.id > c.id)" \
	" AND EXISTS (SELECT FROM synchro.watched w WHERE w.relation = c.relation)"

/*
 * Identities are all that is kept here: their half of the layout counts.
 */
static Datum
sealed_or_null(SynchroBytes bytes, Oid relid, uint32 layout, bool *isnull)
{
	*isnull = bytes.data == NULL;
	return *isnull ? (Datum) 0 : synchro_key_sealed(bytes, relid, SYNCHRO_LAYOUT_IDENTITY(layout));
}

static SynchroBytes
column_bytes(HeapTuple tuple, int column)
{
	SynchroBytes bytes = {0};
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, SPI_tuptable->tupdesc, column, &isnull);

	if (!isnull)
		bytes = synchro_datum_bytes(PointerGetDatum(PG_DETOAST_DATUM_PACKED(value)));
	return bytes;
}

static int64
column_number(HeapTuple tuple, int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, column, &isnull));
}

/*
 * Queue a copy: part of the caller's transaction.  seen: a snapshot that is not
 * younger than what the copy says of the table's rows.
 */
void
synchro_copyqueue_add(const char *server, const SynchroCopy *copy, const char *seen)
{
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, OIDOID, INT4OID, BYTEAOID, INT8OID, BOOLOID, BOOLOID, TEXTOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};

	values[0] = CStringGetTextDatum(server);
	values[1] = ObjectIdGetDatum(copy->relid);
	values[2] = Int32GetDatum((int32) copy->layout);
	values[3] = sealed_or_null(copy->until, copy->relid, copy->layout, &nulls[3]);
	values[4] = Int64GetDatum(copy->rows_total);
	values[5] = BoolGetDatum(copy->delete_extra);
	values[6] = BoolGetDatum(copy->empty);
	values[7] = CStringGetTextDatum(seen);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("INSERT INTO synchro.copying (server, relation, layout, until_key, rows_total, delete_extra, empty, forgotten)"
					" VALUES ($1::name, $2, $3, $4, $5, $6, $7, CASE WHEN $7 THEN $8::pg_snapshot END)", lengthof(types), types, values, nulls);
	synchro_sql_close(&scope);
}

/*
 * The copies that a remote waits for, oldest first, in the current memory
 * context.  In a local transaction.
 */
List *
synchro_copyqueue_load(const char *server)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *result = NIL;
	SynchroSqlScope scope;
	Oid			type = TEXTOID;
	Datum		value;
	uint64		count;

	if (synchro_sql_is_empty("copying"))
		return NIL;
	value = CStringGetTextDatum(server);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	count = synchro_sql_run("SELECT c.id, c.relation::bigint, c.layout::bigint, c.last_key, c.until_key, c.rows_total, c.rows_done,"
							" c.delete_extra::integer::bigint, c.rows_sent::integer::bigint, c.queued_at, (c.empty OR coalesce(b.empty, false))::integer::bigint, coalesce(c.forgotten, b.forgotten)" COPIES_FROM " ORDER BY c.id",
							1, &type, &value, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		isnull;
		SynchroBytes last = column_bytes(tuple, 4);
		SynchroBytes until = column_bytes(tuple, 5);
		char	   *forgotten = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 12);
		MemoryContext old = MemoryContextSwitchTo(context);
		SynchroCopy *copy = palloc0(sizeof(SynchroCopy));

		copy->id = column_number(tuple, 1);
		copy->relid = (Oid) column_number(tuple, 2);
		copy->layout = (uint32) column_number(tuple, 3);
		if (last.data != NULL)
			copy->last = synchro_key_copy(synchro_key_unseal(last, copy->relid, SYNCHRO_LAYOUT_IDENTITY(copy->layout)));
		if (until.data != NULL)
			copy->until = synchro_key_copy(synchro_key_unseal(until, copy->relid, SYNCHRO_LAYOUT_IDENTITY(copy->layout)));
		copy->rows_total = column_number(tuple, 6);
		copy->rows_done = column_number(tuple, 7);
		copy->delete_extra = column_number(tuple, 8) != 0;
		copy->rows_sent = column_number(tuple, 9) != 0;
		copy->queued_at = DatumGetTimestampTz(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 10, &isnull));
		copy->empty = column_number(tuple, 11) != 0;
		copy->forgotten = forgotten != NULL ? synchro_snapshot_parse(forgotten) : NULL;
		result = lappend(result, copy);
		MemoryContextSwitchTo(old);
	}
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(context);
	return result;
}

/*
 * Note what a pass has done.  Part of the transaction that acknowledges its
 * last batch.
 *
 * step: the rows that it has pushed, or NULL.  finished: copies (of
 * SynchroCopy) of which nothing is left to do, or only the remote's rows were
 * to be deleted first.
 */
void
synchro_copyqueue_advance(const char *server, const SynchroCopyStep *step, List *finished)
{
	SynchroSqlScope scope;
	Oid			types[] = {INT8OID, INT4OID, BYTEAOID, INT8OID, BOOLOID, TEXTOID, OIDOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	ListCell   *cell;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (step != NULL)
	{
		values[0] = Int64GetDatum(step->copy->id);
		values[1] = Int32GetDatum((int32) step->layout);
		values[2] = sealed_or_null(step->last, step->copy->relid, step->layout, &nulls[2]);
		values[3] = Int64GetDatum(step->nrows);
		values[4] = BoolGetDatum(step->complete);
		values[5] = CStringGetTextDatum(server);
		values[6] = ObjectIdGetDatum(step->copy->relid);

		/* first what a later call has taken the place of, lest it come back; but for the wish to empty the table, which has come since */
		synchro_sql_run("WITH gone AS (DELETE FROM synchro.copying o WHERE server = $6::name AND relation = $7 AND id < $1"
						"  AND (NOT empty OR " IS_NODE ") RETURNING id, empty, forgotten)"
						" UPDATE synchro.copying c SET forgotten = g.forgotten"
						" FROM (SELECT forgotten FROM gone WHERE forgotten IS NOT NULL AND NOT empty ORDER BY id DESC LIMIT 1) g"
						" WHERE c.id = $1 AND c.forgotten IS NULL",
						lengthof(types), types, values, nulls);
		synchro_sql_run(step->complete && !step->copy->delete_extra ?
						"DELETE FROM synchro.copying WHERE id = $1" :
						"UPDATE synchro.copying SET layout = $2, last_key = coalesce($3, CASE WHEN layout >> 16 = $2 >> 16 THEN last_key END),"
						" until_key = CASE WHEN layout = $2 THEN until_key END,"
						" rows_done = rows_done + $4, rows_sent = $5 WHERE id = $1",
						lengthof(types), types, values, nulls);
	}
	foreach(cell, finished)
	{
		const SynchroCopy *copy = lfirst(cell);

		values[0] = Int64GetDatum(copy->id);

		/*
		 * What one has pushed that was not to empty the table itself is gone.  And they do not know where to end: a row beyond that,
		 * which was written straight to a partition since, and pushed from the log before the table was emptied, is gone as well.
		 */
		synchro_sql_run(copy->empty ? "UPDATE synchro.copying c SET empty = false, last_key = NULL, rows_done = 0, rows_sent = false,"
						" until_key = NULL FROM synchro.copying l"
						" WHERE l.id = $1 AND c.server = l.server AND c.relation = l.relation AND c.id <= l.id" :
						"DELETE FROM synchro.copying WHERE id = $1", 1, types, values, NULL);
	}
	synchro_sql_close(&scope);
}

/*
 * The copy of a table, or NULL.
 */
const SynchroCopy *
synchro_copyqueue_find(const List *copies, Oid relid)
{
	const ListCell *cell;

	foreach(cell, copies)
		if (((const SynchroCopy *) lfirst(cell))->relid == relid)
			return lfirst(cell);
	return NULL;
}

/*
 * Forget all copies to a remote.
 */
void
synchro_copyqueue_forget(const char *server)
{
	SynchroSqlScope scope;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(server);

	if (synchro_sql_is_empty("copying"))
		return;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("DELETE FROM synchro.copying WHERE server = $1::name", 1, &type, &value, NULL);
	synchro_sql_close(&scope);
}

/*
 * Forget all copies of tables that are watched no longer.
 */
void
synchro_copyqueue_forget_unwatched(void)
{
	SynchroSqlScope scope;

	if (synchro_sql_is_empty("copying"))
		return;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("DELETE FROM synchro.copying c WHERE NOT EXISTS (SELECT FROM synchro.watched w WHERE w.relation = c.relation)",
					0, NULL, NULL, NULL);
	synchro_sql_close(&scope);
}

/*
 * What is to be told of the copies to a remote: the one that is under way or
 * comes next, and how many rows are left of all.  False if there are none.
 */
bool
synchro_copyqueue_status(const char *server, SynchroCopy *copy, int64 *left)
{
	List	   *copies = synchro_copyqueue_load(server);
	const SynchroCopy *shown = NULL;
	ListCell   *cell;

	*left = 0;
	foreach(cell, copies)
	{
		const SynchroCopy *one = lfirst(cell);

		if (!one->rows_sent)
			*left += Max(one->rows_total - one->rows_done, 0);
		if (one->empty)
			shown = one;
		if (shown == NULL || shown->rows_sent ||
			(shown->rows_done == 0 && one->rows_done > 0 && !one->rows_sent))
			shown = one;
	}
	if (shown == NULL)
		return false;
	*copy = *shown;
	copy->rows_total = Max(copy->rows_total, copy->rows_done);
	return true;
}
