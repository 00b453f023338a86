/*-------------------------------------------------------------------------
 *
 * stalled.c
 *	  Tables that cannot be pushed to a remote as they are.
 *
 * A table that is missing on the remote, has not the columns that it has here,
 * may not be read or written: nothing of it can be pushed until somebody mends
 * that, but the other tables go on.  So each such table has a position of its
 * own, which stays where the remote's position was when it stalled, and which
 * the log is kept for.  When it is tried again, its changes since then are
 * collected along with what is new of the others; its names of before go with
 * the first batch, and when the pass is through, the table is like any other.
 *
 * What the remote calls its rows moves with each batch of a pass that does not
 * leave it out: one during which it stalls, one that tries it again once its
 * names of before are there, whether or not we hear how that ends.  So what they
 * are called as of is noted by the first pass that leaves it out, before its
 * batches; until then it is as with the other tables, NULL.
 *
 * Which table is to blame for an error we know by what was being done: whoever
 * describes or reads a table names it as the suspect before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "localsql.h"
#include "rowerror.h"
#include "settings.h"
#include "stalled.h"

static Oid	suspect = InvalidOid;
static TimestampTz suspect_since = 0;	/* what is tried again began then; 0: it is quick */

/*
 * Name the table that an error from now on would be about; InvalidOid: none.
 */
void
synchro_suspect(Oid relid)
{
	suspect = relid;
	suspect_since = 0;
}

/*
 * The same, where all other tables have been kept waiting since then.  They are to
 * have as much time for themselves until that is tried again.
 */
void
synchro_suspect_slow(Oid relid, TimestampTz since)
{
	suspect = relid;
	suspect_since = since;
}

/*
 * That table.
 */
Oid
synchro_suspected(void)
{
	return suspect;
}

/*
 * Error, about the table relid, if a table has lost its key: neither are its
 * rows found on the remote, nor those that others refer to.
 */
void
synchro_suspect_keyless(const SynchroTable *table, Oid relid)
{
	if (!table->lost_key)
		return;
	synchro_suspect(relid);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table %s has lost its key", table->qualified),
			 errdetail("Its rows, and whom others refer to, cannot be found on the remote without one."),
			 errhint("Add a primary key, or name another key with synchro.register_natural_key, or do without the one that is named by synchro.unregister_natural_key.")));
}

/*
 * The table that an error with that code is about, and none from now on.
 * InvalidOid if it is one that no table's definition, rights or damage are to
 * blame for.
 */
Oid
synchro_suspect_take(int sqlerrcode)
{
	Oid			result = suspect;

	suspect = InvalidOid;
	return synchro_error_is_about_definitions(unpack_sql_state(sqlerrcode)) ||
		sqlerrcode == ERRCODE_TOO_MANY_COLUMNS || sqlerrcode == ERRCODE_UNTRANSLATABLE_CHARACTER ||
		sqlerrcode == ERRCODE_DATA_CORRUPTED || sqlerrcode == ERRCODE_INDEX_CORRUPTED ? result : InvalidOid;
}

/*
 * Note as of when the remote calls the rows of tables that are left out from
 * now on.  In a scope.
 */
static void
keep_names(const char *server, List *stalled, const char *keys_snapshot)
{
	Oid			types[] = {TEXTOID, OIDOID, TEXTOID};
	Datum		values[lengthof(types)];
	ListCell   *cell;

	values[0] = CStringGetTextDatum(server);
	values[2] = CStringGetTextDatum(keys_snapshot);
	foreach(cell, stalled)
	{
		const SynchroStalled *table = lfirst(cell);

		if (table->due || table->named != NULL)
			continue;
		values[1] = ObjectIdGetDatum(table->relid);
		synchro_sql_run("UPDATE synchro.stalled SET keys_snapshot = $3::pg_snapshot WHERE server = $1::name AND relation = $2",
						lengthof(types), types, values, NULL);
	}
}

/*
 * The tables that have stalled for a remote, in the current memory context.
 * In a local transaction.
 *
 * all_due: try all, whatever their time.  tried: not these, whatever that is.
 * keys_snapshot: the position's, which a pass is about to move; NULL if it is a
 * preview's.
 */
List *
synchro_stalled_load(const char *server, bool all_due, const List *tried, const char *keys_snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *result = NIL;
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, BOOLOID};
	Datum		values[lengthof(types)];
	uint64		count;

	if (synchro_sql_is_empty("stalled"))
		return NIL;
	values[0] = CStringGetTextDatum(server);
	values[1] = BoolGetDatum(all_due);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	count = synchro_sql_run("SELECT relation, snapshot, keys_snapshot, $2 OR next_attempt <= clock_timestamp()"
							" FROM synchro.stalled WHERE server = $1::name",
							lengthof(types), types, values, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		char	   *since = SPI_getvalue(tuple, desc, 2);
		char	   *named = SPI_getvalue(tuple, desc, 3);
		bool		isnull;
		MemoryContext old = MemoryContextSwitchTo(context);
		SynchroStalled *stalled = palloc0(sizeof(SynchroStalled));

		stalled->relid = DatumGetObjectId(SPI_getbinval(tuple, desc, 1, &isnull));
		stalled->since = synchro_snapshot_parse(since);
		stalled->named = named != NULL ? synchro_snapshot_parse(named) : NULL;
		stalled->due = DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull)) && !list_member_oid(tried, stalled->relid);
		result = lappend(result, stalled);
		MemoryContextSwitchTo(old);
	}
	if (keys_snapshot != NULL)
		keep_names(server, result, keys_snapshot);
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(context);
	return result;
}

/*
 * The table among those that have stalled, or NULL.
 */
SynchroStalled *
synchro_stalled_find(List *stalled, Oid relid)
{
	ListCell   *cell;

	foreach(cell, stalled)
		if (((SynchroStalled *) lfirst(cell))->relid == relid)
			return lfirst(cell);
	return NULL;
}

/*
 * Has a table stalled that is not to be tried in this pass?
 */
bool
synchro_stalled_waits(List *stalled, Oid relid)
{
	const SynchroStalled *found = synchro_stalled_find(stalled, relid);

	return found != NULL && !found->due;
}

/*
 * Is any of them to be tried?
 */
bool
synchro_stalled_any_due(const List *stalled)
{
	const ListCell *cell;

	foreach(cell, stalled)
		if (((SynchroStalled *) lfirst(cell))->due)
			return true;
	return false;
}

/*
 * OIDs of those that a pass goes without.
 */
List *
synchro_stalled_waiting(const List *stalled)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, stalled)
		if (!((SynchroStalled *) lfirst(cell))->due)
			result = lappend_oid(result, ((SynchroStalled *) lfirst(cell))->relid);
	return result;
}

/*
 * Note that a table cannot be pushed; it stays where the remote's position
 * is, or where it was when it stalled.  In a local transaction.
 */
void
synchro_stalled_note(const char *server, Oid relid, const SynchroKeptError *error)
{
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	const char *hint = error->hint;

	/* a server says which right is missing, not which statement gives it */
	if (hint[0] == '\0' && error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE)
		hint = psprintf("SELECT * FROM synchro.check(%s) gives what mends it.", quote_literal_cstr(server));
	else if (hint[0] == '\0' && strncmp(error->message, "remote ", strlen("remote ")) == 0 &&
			 (error->sqlerrcode == ERRCODE_UNDEFINED_TABLE || error->sqlerrcode == ERRCODE_UNDEFINED_FUNCTION))
		hint = "If a trigger, a constraint or a default there names it without its schema: set search_path there, by ALTER FUNCTION or ALTER ROLE.";
	values[0] = CStringGetTextDatum(server);
	values[1] = ObjectIdGetDatum(relid);
	values[2] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[3] = CStringGetTextDatum(error->message);
	nulls[4] = error->detail[0] == '\0';
	values[4] = CStringGetTextDatum(error->detail);
	nulls[5] = hint[0] == '\0';
	values[5] = CStringGetTextDatum(hint);
	values[6] = Int32GetDatum(synchro_retry_max_interval);
	nulls[7] = suspect_since == 0;
	values[7] = TimestampTzGetDatum(suspect_since);
	suspect_since = 0;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("INSERT INTO synchro.stalled AS s (server, relation, snapshot, sqlstate, message, detail, hint, next_attempt)"
					" SELECT server, $2, snapshot, $3, $4, $5, $6, clock_timestamp() + greatest(least(1, $7) * interval '1 s', clock_timestamp() - $8)"
					" FROM synchro.remote_state WHERE server = $1::name"
					" ON CONFLICT (server, relation) DO UPDATE SET sqlstate = $3, message = $4, detail = $5, hint = $6,"
					" attempts = s.attempts + 1, next_attempt = clock_timestamp()"
					" + greatest(least(power(2, least(s.attempts, 30)), $7) * (0.8 + 0.4 * random()) * interval '1 s', clock_timestamp() - $8)",
					lengthof(types), types, values, nulls);
	synchro_sql_close(&scope);
}

/*
 * Note for all remotes that a watched table cannot be pushed because changes of
 * uncaptured, which is the table itself or stands inside its key, are not captured.
 */
void
synchro_stalled_uncaptured(Oid relid, const char *uncaptured, const char *watched)
{
	SynchroSqlScope scope;
	Oid			types[] = {OIDOID, TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];

	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(psprintf(SYNCHRO_NOT_CAPTURED, uncaptured));
	values[2] = CStringGetTextDatum(psprintf(SYNCHRO_CAPTURE_HINT, quote_literal_cstr(watched)));
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("INSERT INTO synchro.stalled (server, relation, snapshot, sqlstate, message, hint, next_attempt)"
					" SELECT server, $1, snapshot, '55000', $2, $3, clock_timestamp() FROM synchro.remote_state"
					" ON CONFLICT DO NOTHING", lengthof(types), types, values, NULL);
	synchro_sql_close(&scope);
	synchro_shared_retry_at_commit();
}

/*
 * Note that the batch which sets the position's token to this one has the names
 * of before of these tables, and, if all is true, everything else of them.  In the local transaction that keeps the token.
 */
void
synchro_stalled_sent(const char *server, List *stalled, const char *token, bool all)
{
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, OIDOID, TEXTOID, BOOLOID};
	Datum		values[lengthof(types)];
	ListCell   *cell;

	if (stalled == NIL)
		return;
	values[0] = CStringGetTextDatum(server);
	values[2] = CStringGetTextDatum(token);
	values[3] = BoolGetDatum(all);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	foreach(cell, stalled)
	{
		values[1] = ObjectIdGetDatum(((SynchroStalled *) lfirst(cell))->relid);
		synchro_sql_run("UPDATE synchro.stalled SET sent_with = $3::uuid, sent_all = $4 WHERE server = $1::name AND relation = $2",
						lengthof(types), types, values, NULL);
	}
	synchro_sql_close(&scope);
}

/*
 * The remote has committed the batch with that token: tables that it has ended
 * are like any other, and names that it had are known there.  In a local
 * transaction.
 */
void
synchro_stalled_settle(const char *server, const char *token)
{
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];

	if (synchro_sql_is_empty("stalled"))
		return;
	values[0] = CStringGetTextDatum(server);
	values[1] = CStringGetTextDatum(token);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("DELETE FROM synchro.stalled WHERE server = $1::name AND sent_with = $2::uuid AND sent_all", lengthof(types), types, values, NULL);
	synchro_sql_run("UPDATE synchro.stalled SET keys_snapshot = NULL WHERE server = $1::name AND sent_with = $2::uuid AND keys_snapshot IS NOT NULL",
					lengthof(types), types, values, NULL);
	synchro_sql_close(&scope);
}
