/*-------------------------------------------------------------------------
 *
 * checkpoint.c
 *	  How far a remote has been brought: position here and on the remote.
 *
 * The position lies on the remote, and each batch exchanges it in its own
 * transaction: a token for a new one, by compare and set.  That is the fence.
 * Of two workers, or of a worker and the COMMIT of its predecessor that is
 * still under way, only one finds the token that it expects.
 *
 * Here we keep the token of the last batch that was acknowledged, and, before
 * a batch is sent, the one that it will set.  At connect the remote must show
 * one of the two: so a lost answer to COMMIT is settled, and a remote or a
 * node that was set back to an earlier state is noticed.
 *
 * The attempt is committed with synchronous_commit = local after the batch's
 * snapshot was taken, and before the remote is told to commit.  WAL is flushed
 * in order, so everything that the snapshot saw is on disk before the remote
 * has anything of it for good: otherwise a crash could undo transactions
 * committed with synchronous_commit = off, hand out their ids again, and the
 * remote would believe it had the new ones.  Where a round trip costs less than
 * that flush, it is done while the remote applies the batch, and COMMIT is sent
 * by itself; if we die in between, the remote rolls back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "checkpoint.h"
#include "formercontact.h"
#include "localsql.h"
#include "logsnapshot.h"
#include "parked.h"
#include "prepared.h"
#include "stalled.h"

static char *
spi_text(int column)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
}

static bool
is_true(const char *value)
{
	return value != NULL && value[0] == 't';
}

static char *
copy_in(MemoryContext context, const char *value)
{
	return value != NULL ? MemoryContextStrdup(context, value) : NULL;
}

/*
 * An error if this database is a copy that must not push.  previous is set to
 * the id of the node that it was before, or NULL.
 */
void
synchro_active_node(MemoryContext context, char **previous)
{
	SynchroSqlScope scope;
	bool		active;
	bool		isnull;
	uint64		count;

	/* what view node says, which takes longer */
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	count = synchro_sql_run("SELECT previous, system_identifier, database::bigint FROM synchro.node_identity", 0, NULL, NULL, NULL);
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has no identity as a node"),
				 errhint("Drop and create the extension \"%s\" anew.", SYNCHRO_EXTENSION)));
	*previous = copy_in(context, spi_text(1));
	active = count == 1 &&
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull)) == (int64) GetSystemIdentifier() &&
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &isnull)) == (int64) MyDatabaseId;
	synchro_sql_close(&scope);
	if (!active)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a copy and does not push until that is confirmed"),
				 errdetail("Its system identifier or OID is not the one that it had as a node."),
				 errhint("If it shall push, run synchro.confirm_node().")));
}

/*
 * The position as it is kept here, in the current memory context, and whose it
 * is: both by one statement, or confirm_node() might come in between, and the
 * new position would be told to the remote as the former node's.  Needs a
 * transaction.
 *
 * missing_ok: return NULL where there is none, instead of an error.
 */
SynchroPosition *
synchro_position_read(const char *server, bool missing_ok)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroPosition *position = palloc0(sizeof(SynchroPosition));
	SynchroSqlScope scope;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(server);

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run(psprintf("SELECT acknowledged, attempted, snapshot, keys_snapshot, rebased, forget_references,"
								 " (SELECT id FROM synchro.node_identity LIMIT 1), %s"
								 " FROM synchro.remote_state WHERE server = $1::name",
								 synchro_former_is_noted() ? "forget_deletes" : "false"),
						1, &type, &value, NULL) != 1)
	{
		synchro_sql_close(&scope);
		if (missing_ok)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("remote \"%s\" does not exist", server),
				 errhint("Run synchro.add_remote(%s).", quote_literal_cstr(server))));
	}
	position->acknowledged = copy_in(context, spi_text(1));
	position->attempted = copy_in(context, spi_text(2));
	position->snapshot = copy_in(context, spi_text(3));
	position->keys_snapshot = copy_in(context, spi_text(4));
	position->rebased = is_true(spi_text(5));
	position->forget_references = is_true(spi_text(6));
	position->node = copy_in(context, spi_text(7));
	position->forget_deletes = is_true(spi_text(8));
	synchro_sql_close(&scope);
	return position;
}

/*
 * A token for a position, in the current memory context.
 */
char *
synchro_position_token(void)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, DirectFunctionCall1(gen_random_uuid, (Datum) 0)));
}

/*
 * Are there two tokens, and the same?
 */
bool
synchro_position_same(const char *a, const char *b)
{
	return a != NULL && b != NULL && strcmp(a, b) == 0;
}

/*
 * Keep the token of a batch about to be committed, and flush WAL.  A
 * transaction of its own.
 *
 * previous: the token kept so far, or NULL.  If that is no longer so, then
 * reset() or set_checkpoint() has been called meanwhile: an error, the pass
 * has to begin anew.  keys_snapshot: under which the batch was read, or NULL if
 * it is none.  settled: what the batch settles, or NULL; that is noted, for we
 * may not hear whether it got there.
 */
void
synchro_position_attempt(const char *server, const char *previous, const char *token,
						 const char *keys_snapshot, const SynchroSettled *settled)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};

	synchro_local_begin("synchro: keeping the position");
	synchro_local_durable(true);
	values[0] = CStringGetTextDatum(server);
	nulls[1] = previous == NULL;
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(previous);
	values[2] = CStringGetTextDatum(token);
	nulls[3] = keys_snapshot == NULL;
	values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(keys_snapshot);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (keys_snapshot != NULL && synchro_former_is_noted())
		synchro_sql_run("UPDATE synchro.remote_state SET attempted = $3::uuid, sent_before = pg_snapshot_xmax($4::pg_snapshot)"
						" WHERE server = $1::name AND attempted IS NOT DISTINCT FROM $2::uuid",
						lengthof(types), types, values, nulls);
	else
		synchro_sql_run("UPDATE synchro.remote_state SET attempted = $3::uuid"
						" WHERE server = $1::name AND attempted IS NOT DISTINCT FROM $2::uuid",
						3, types, values, nulls);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("remote \"%s\" was reset or removed while it was being pushed to", server),
				 errhint("Synchronize again.")));
	synchro_sql_close(&scope);
	if (settled != NULL)
	{
		synchro_parked_sent(settled->parked, token);
		synchro_stalled_sent(server, settled->stalled, token, settled->all);
	}
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * Before a remote is told the position of a node that was another one: that is
 * where the remote is, not where we had believed it.  Kept first, since the log
 * is kept for it; and a crash before the remote has been told, or just after,
 * finds it.  A transaction of its own.
 *
 * position: its attempted token is the one kept here; if it is another by now,
 * somebody has moved the position by hand, and that counts.
 */
void
synchro_position_correct(const char *server, const SynchroPosition *position)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};

	synchro_local_begin("synchro: correcting the position");
	values[0] = CStringGetTextDatum(server);
	values[1] = CStringGetTextDatum(position->snapshot);
	values[2] = CStringGetTextDatum(position->keys_snapshot);
	nulls[3] = position->attempted == NULL;
	values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(position->attempted);
	values[4] = BoolGetDatum(position->forget_references);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("UPDATE synchro.remote_state SET snapshot = $2::pg_snapshot, keys_snapshot = $3::pg_snapshot,"
					" forget_references = $5"
					" WHERE server = $1::name AND acknowledged IS NULL AND attempted IS NOT DISTINCT FROM $4::uuid",
					lengthof(types), types, values, nulls);
	synchro_sql_close(&scope);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * The remote has committed the batch with that token, or had when it was left:
 * note what was settled by it.  In a local transaction.
 */
void
synchro_position_settle(const char *server, const char *token)
{
	synchro_parked_settle(server, token);
	synchro_stalled_settle(server, token);
}

/*
 * Note that a batch is committed on the remote.  A transaction of its own; if
 * a crash undoes it, the remote's position says the same.
 *
 * snapshot: where the pass ended, NULL if it goes on.  checkpoint: its time.
 * step, finished: see synchro_copyqueue_advance(); they count when it has
 * ended.  left_out: OIDs of tables that the pass went without: what is queued of
 * them stays.  settled: what the batch has settled.
 */
void
synchro_position_acknowledge(const char *server, const char *token,
							 const char *snapshot, const char *keys_snapshot,
							 TimestampTz checkpoint, const SynchroCounts *counts,
							 const SynchroCopyStep *step, List *finished, List *left_out,
							 const SynchroSettled *settled)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
	INT8OID, INT8OID, INT8OID, INT8OID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};

	synchro_local_begin("synchro: moving the checkpoint");
	synchro_local_durable(false);
	values[0] = CStringGetTextDatum(server);
	values[1] = CStringGetTextDatum(token);
	nulls[2] = snapshot == NULL;
	values[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(snapshot);
	values[3] = CStringGetTextDatum(keys_snapshot);
	values[4] = TimestampTzGetDatum(checkpoint);
	values[5] = Int64GetDatum(counts->inserted);
	values[6] = Int64GetDatum(counts->updated);
	values[7] = Int64GetDatum(counts->deleted);
	values[8] = Int64GetDatum(counts->skipped);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("UPDATE synchro.remote_state SET acknowledged = $2::uuid, attempted = $2::uuid,"
					" snapshot = coalesce($3::pg_snapshot, snapshot), keys_snapshot = $4::pg_snapshot,"
					" checkpoint = CASE WHEN $3 IS NULL THEN checkpoint ELSE $5 END,"
					" rebased = rebased AND $3 IS NULL, forget_references = false, last_success = clock_timestamp(),"
					" inserted = inserted + $6, updated = updated + $7, deleted = deleted + $8, skipped = skipped + $9"
					" WHERE server = $1::name AND attempted = $2::uuid",
					lengthof(types), types, values, nulls);

	/* not if the position was reset meanwhile: then that counts */
	if (snapshot != NULL && SPI_processed == 1)
	{
		StringInfoData sql;
		ListCell   *cell;

		initStringInfo(&sql);
		appendStringInfoString(&sql, "DELETE FROM synchro.backlog WHERE server = $1::name"
							   " AND pg_visible_in_snapshot(queued_by, $3::pg_snapshot)");
		foreach(cell, left_out)
			appendStringInfo(&sql, " AND relation <> %u", lfirst_oid(cell));
		synchro_sql_run(sql.data, 3, types, values, NULL);
		synchro_copyqueue_advance(server, step, finished);
	}
	synchro_sql_close(&scope);
	if (settled->parked != NIL || settled->stalled != NIL)
		synchro_position_settle(server, token);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * Note that there was nothing to push up to a snapshot: all that the log had
 * since the last one came from the remote itself.  A transaction of its own.
 *
 * The remote is not told: if it shows the old position at the next connect,
 * the same is found again.
 */
void
synchro_position_skip(const char *server, const SynchroPosition *position,
					  const char *snapshot, TimestampTz checkpoint)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID};
	Datum		values[lengthof(types)];

	synchro_local_begin("synchro: moving the checkpoint");
	synchro_local_durable(false);
	values[0] = CStringGetTextDatum(server);
	values[1] = CStringGetTextDatum(position->acknowledged);
	values[2] = CStringGetTextDatum(snapshot);
	values[3] = TimestampTzGetDatum(checkpoint);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("UPDATE synchro.remote_state SET snapshot = $3::pg_snapshot,"
					" keys_snapshot = CASE WHEN rebased THEN keys_snapshot ELSE $3::pg_snapshot END, checkpoint = $4"
					" WHERE server = $1::name AND acknowledged = $2::uuid", lengthof(types), types, values, NULL);
	synchro_sql_close(&scope);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * How much of its log another node has pushed here, as a snapshot of that
 * node, as far as the active snapshot sees; NULL if nothing is known.  named is
 * set to how much of what its rows are called, which is ahead of that.
 *
 * The table is read as its owner: whoever made it for a node that pushes here.
 */
char *
synchro_position_of_peer(const pg_uuid_t *node, char **named)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			schema = get_namespace_oid(SYNCHRO_PEER_SCHEMA, true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid("position", schema) : InvalidOid;
	HeapTuple	tuple;
	Oid			owner;
	SynchroSqlScope scope;
	Oid			type = UUIDOID;
	Datum		value = UUIDPGetDatum(node);
	char	   *result = NULL;

	*named = NULL;
	if (!OidIsValid(relid))
		return NULL;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return NULL;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	synchro_sql_open(&scope, owner);
	if (synchro_sql_run("SELECT snapshot, keys_snapshot FROM " SYNCHRO_PEER_SCHEMA ".position WHERE node = $1",
						1, &type, &value, NULL) == 1)
	{
		result = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
		*named = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2));
	}
	synchro_sql_close(&scope);
	return result;
}

/*
 * Let a remote's checkpoint be the active snapshot.  Part of the caller's
 * transaction; the remote learns of it at the next contact.  A contact that is
 * under way, perhaps because of another call, is to notice that it has come too
 * late: so the attempted token is a new one each time.
 *
 * forget_names: also what rows were called when they were last pushed; else changes
 * of names that are pending still get there with the next batch.  forget_refused:
 * also what the remote has refused, and the deletes that wait there.
 */
void
synchro_position_rebase(const char *server, bool forget_references, bool forget_names, bool forget_refused)
{
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TEXTOID, BOOLOID, BOOLOID};
	Datum		values[lengthof(types)];

	values[0] = CStringGetTextDatum(server);
	values[1] = CStringGetTextDatum(synchro_snapshot_current());
	values[2] = BoolGetDatum(forget_references);
	values[3] = BoolGetDatum(forget_names);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_former_note(server);
	synchro_sql_run("UPDATE synchro.remote_state SET snapshot = $2::pg_snapshot,"
					" keys_snapshot = CASE WHEN $4 THEN $2::pg_snapshot ELSE keys_snapshot END,"
					" checkpoint = clock_timestamp(), rebased = true, acknowledged = NULL, attempted = gen_random_uuid(),"
					" forget_references = forget_references OR $3 WHERE server = $1::name",
					lengthof(types), types, values, NULL);
	synchro_sql_run("DELETE FROM synchro.backlog WHERE server = $1::name", 1, types, values, NULL);
	if (forget_names)
		synchro_sql_run("DELETE FROM synchro.stalled WHERE server = $1::name", 1, types, values, NULL);
	else if (forget_refused)
		synchro_sql_run("UPDATE synchro.stalled SET snapshot = $2::pg_snapshot, next_attempt = clock_timestamp() WHERE server = $1::name",
						2, types, values, NULL);
	if (forget_refused)
	{
		synchro_sql_run("DELETE FROM synchro.parked WHERE server = $1::name", 1, types, values, NULL);
		if (synchro_former_is_noted())
			synchro_sql_run("UPDATE synchro.remote_state SET forget_deletes = true WHERE server = $1::name", 1, types, values, NULL);
	}
	synchro_sql_close(&scope);
	synchro_copyqueue_forget(server);
	synchro_shared_retry_at_commit();
}

/*
 * Append the fence: exchange the position, or fail with a division by zero if
 * another worker has done so.
 *
 * prepare: the link, if the statement is to be prepared; else NULL.  snapshot:
 * where the pass has come to with this batch, NULL if it goes on.
 */
void
synchro_sql_fence(StringInfo sql, const SynchroLink *link, SynchroLink *prepare, const SynchroPosition *position,
				  const char *token, const char *snapshot, const char *keys_snapshot)
{
	static const char *const fence = "WITH u AS (UPDATE %s.position SET token = %s, snapshot = %s, keys_snapshot = %s,"
		" moved_at = clock_timestamp() WHERE node = %s AND token = %s RETURNING 1)"
		" SELECT 1 / count(*) FROM u";
	const char *moved = quote_literal_cstr(snapshot != NULL ? snapshot : position->snapshot);

	if (prepare == NULL ||
		!synchro_prepared_execute(sql, prepare, psprintf(fence, link->peer, "$1", "$2", "$3", "$4", "$5"),
								  psprintf("'%s', %s, '%s', '%s', '%s'", token, moved, keys_snapshot, link->node, position->acknowledged)))
	{
		appendStringInfo(sql, fence, link->peer, quote_literal_cstr(token), moved, quote_literal_cstr(keys_snapshot),
						 quote_literal_cstr(link->node), quote_literal_cstr(position->acknowledged));
		appendStringInfoChar(sql, ';');
	}
	if (position->forget_references)
		appendStringInfo(sql, "DELETE FROM %s.reference WHERE node = '%s';DELETE FROM %s.unapplied WHERE node = '%s';",
						 link->peer, link->node, link->peer, link->node);
}
