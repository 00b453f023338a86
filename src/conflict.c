/*-------------------------------------------------------------------------
 *
 * conflict.c
 *	  Changes that lost against newer ones: the record of them.
 *
 * A conflict is recorded by the transaction that decides it, on the node where
 * it is decided, and goes with it.  Of each table's records so many are kept
 * as synchro.conflicts_kept says.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "conflict.h"
#include "localsql.h"
#include "settings.h"

/* how many more than are to be kept are borne with */
#define PRUNE_EVERY		100

/*
 * Up to which id the present subtransaction has pruned.  What it has deleted itself
 * no index can leave out before it has ended: if all rows of a large table lose, each
 * pruning would read again what those before it have deleted.
 */
static struct
{
	uint64		txid;
	SubTransactionId subid;
	int64		last;
}			pruned;

/*
 * Forget all up to that id.
 */
static void
prune(int64 last)
{
	uint64		txid = U64FromFullTransactionId(GetTopFullTransactionId());
	SubTransactionId subid = GetCurrentSubTransactionId();
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[lengthof(types)];

	if (pruned.txid != txid || pruned.subid != subid)
		pruned.last = 0;
	values[0] = Int64GetDatum(pruned.last);
	values[1] = Int64GetDatum(last);
	synchro_sql_run("DELETE FROM synchro.conflict WHERE id > $1 AND id <= $2", lengthof(types), types, values, NULL);
	pruned.txid = txid;
	pruned.subid = subid;
	pruned.last = Max(pruned.last, last);
}

/*
 * Record one conflict.
 */
void
synchro_conflict_record(const SynchroConflict *conflict)
{
	Oid			types[] = {UUIDOID, OIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	TEXTOID, BOOLOID, JSONBOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	SynchroSqlScope scope;
	bool		isnull;
	int64		id;

	if (synchro_conflicts_kept == 0)
		return;
	values[0] = UUIDPGetDatum(conflict->node);
	values[1] = ObjectIdGetDatum(conflict->table->relid);
	nulls[2] = conflict->identity == NULL;
	values[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(conflict->identity);
	nulls[3] = conflict->name == NULL;
	values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(conflict->name);
	values[4] = TimestampTzGetDatum(conflict->local_at);
	values[5] = TimestampTzGetDatum(conflict->remote_at);
	values[6] = CStringGetTextDatum(conflict->remote_wins ? "remote" : "local");
	values[7] = BoolGetDatum(conflict->ambiguous);
	nulls[8] = conflict->loser == (Datum) 0;
	values[8] = conflict->loser;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("INSERT INTO synchro.conflict (node, relation, identity, name, local_changed_at, remote_changed_at,"
					" winner, ambiguous, loser) VALUES ($1, $2, $3::text[], $4::text[], $5, $6, $7, $8, $9) RETURNING id",
					lengthof(types), types, values, nulls);
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (id % PRUNE_EVERY == 0)
		prune(id - synchro_conflicts_kept);
	synchro_sql_close(&scope);
}
