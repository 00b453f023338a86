/*-------------------------------------------------------------------------
 *
 * parked.c
 *	  Changes that could not be applied on a remote, and wait.
 *
 * What is parked is kept as the log would say it: which row, what the remote
 * calls it, and when it was changed.  A pass reads it like entries of the log
 * that are older than all others, see changeset.c, so what is sent in the end
 * are the values of that time.  It is committed here before a batch is sent
 * that goes without the row, so that the position never steps over a change
 * that is not kept anywhere; see synchro_position_attempt() for how it comes
 * to disk before that.
 *
 * It is done with the batch that has it, neither before nor after: were it
 * taken to wait still, a row that is there would be new to the remote, and a
 * delete of it would not be sent; or a row that it has renamed would be looked
 * for by a name that is another's now.  So before that batch is sent, its token
 * is noted here, and what bears the token goes when we know that the remote has
 * it: in the transaction that acknowledges it, or at the next contact.
 *
 * Deletes that fail wait on the remote, in unapplied, since only there their
 * rows can still be found; here is noted why, and when they are tried again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "changestore.h"
#include "identities.h"
#include "localsql.h"
#include "parked.h"
#include "peerlog.h"
#include "sequence.h"
#include "settings.h"

/* others may have waited for the row: a foreign key that failed may hold now */
#define WAITS_FOR_OTHERS "sqlstate IN ('23503', '23001', '23505', '23P01')"

/*
 * A row of the table: a change of a row.
 */
static void
load_change(TupleTableSlot *slot, void *arg)
{
	SynchroParkedSet *set = arg;
	SynchroParked parked = {0};
	SynchroKeyRecord record;
	const SynchroTable *table;

	slot_getallattrs(slot);
	parked.id = DatumGetInt64(slot->tts_values[0]);
	parked.relid = DatumGetObjectId(slot->tts_values[1]);
	parked.layout = (uint32) DatumGetInt32(slot->tts_values[2]);
	parked.changed_at = DatumGetTimestampTz(slot->tts_values[3]);
	parked.record = synchro_key_unseal(synchro_datum_bytes(slot->tts_values[4]), parked.relid, parked.layout);
	parked.due = DatumGetBool(slot->tts_values[5]);
	parked.alone = slot->tts_isnull[6] ? 0 : DatumGetTimestampTz(slot->tts_values[6]);

	table = synchro_table_get(parked.relid, true);
	if (table == NULL)
		return;

	/* of another primary key it is nobody's; whoever collects changes says so */
	if (SYNCHRO_LAYOUT_IDENTITY(parked.layout) != SYNCHRO_LAYOUT_IDENTITY(table->layout))
		parked.row = psprintf("%u#" INT64_FORMAT, parked.relid, parked.id);
	else
	{
		(void) synchro_key_next(parked.record.data, parked.record.data + parked.record.len, table, parked.layout, &record);
		parked.row = synchro_parked_row(parked.relid,
							 synchro_identities_values(table, table->identity, table->nidentity, record.identity),
							 table->nidentity);
		parked.has_name = record.has_old || record.op == SYNCHRO_OP_DELETE;
	}
	set->any_due |= parked.due;
	synchro_parked_remember(set, &parked);
}

/*
 * Does synchro.parked note when a row has failed by itself?  In version 1.0 it
 * does not.
 */
static bool
notes_alone(void)
{
	Oid			relid = synchro_own_relation("parked", true);

	return OidIsValid(relid) && get_attnum(relid, "alone_at") != InvalidAttrNumber;
}

/*
 * All that is parked of a remote's, in the current memory context.  In a
 * local transaction.
 *
 * all_due: try all of it, whatever its time.
 */
SynchroParkedSet *
synchro_parked_load(const char *server, bool all_due)
{
	SynchroParkedSet *set = synchro_parked_create(server);
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, BOOLOID, INT4OID};
	Datum		values[lengthof(types)];
	uint64		count;
	MemoryContext context = CurrentMemoryContext;

	if (synchro_sql_is_empty("parked"))
		return set;
	values[0] = CStringGetTextDatum(server);
	values[1] = BoolGetDatum(all_due);
	values[2] = Int32GetDatum(synchro_retry_max_interval);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_query(psprintf("SELECT id, relation, layout, changed_at, record, $2 OR " SYNCHRO_IS_DUE("next_attempt", "$3") ", %s"
							   " FROM synchro.parked WHERE server = $1::name AND record IS NOT NULL", notes_alone() ? "alone_at" : "NULL::timestamptz"),
					  lengthof(types), types, values, NULL,
					  synchro_sql_callback(load_change, set));
	count = synchro_sql_run("SELECT format('%I.%I', n.nspname, c.relname), bool_or(bool_or($2 OR " SYNCHRO_IS_DUE("p.next_attempt", "$3") ")) OVER ()"
							" FROM synchro.parked p JOIN pg_class c ON c.oid = p.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
							" WHERE p.server = $1::name AND p.record IS NULL GROUP BY n.nspname, c.relname",
							lengthof(types), types, values, NULL);
	set->has_deletes = count > 0;
	for (uint64 i = 0; i < count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];

		if (SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2)[0] == 't')
		{
			char	   *relation = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1);
			MemoryContext old = MemoryContextSwitchTo(context);

			set->deletes = lappend(set->deletes, pstrdup(relation));
			MemoryContextSwitchTo(old);
		}
	}
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(context);
	return set;
}

static SynchroBytes
make_record(const SynchroFailure *failure)
{
	SynchroBytes identity = synchro_identities_encode(failure->table, failure->table->identity,
													  failure->table->nidentity, failure->identity);
	SynchroBytes result;
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, (char) (failure->op | SYNCHRO_KEY_STAMPED | (failure->has_old ? SYNCHRO_KEY_HAS_OLD : 0)));
	appendBinaryStringInfo(&buf, identity.data, identity.len);
	if (failure->has_old)
		appendBinaryStringInfo(&buf, failure->old.data, failure->old.len);
	synchro_key_put_stamp(&buf, failure->stamp);
	result.data = buf.data;
	result.len = buf.len;
	return result;
}

static void
fill_parked(SynchroParked *parked, const SynchroFailure *failure, const SynchroParked *known)
{
	parked->row = synchro_parked_row(failure->table->relid, failure->identity, failure->table->nidentity);
	parked->relid = failure->table->relid;
	parked->layout = failure->table->layout;
	parked->changed_at = failure->stamp.at;
	parked->record = make_record(failure);
	parked->has_name = failure->has_old || failure->op == SYNCHRO_OP_DELETE;
	parked->alone = !failure->shared ? GetCurrentTimestamp() : known != NULL ? known->alone : 0;
	parked->banned = true;
	parked->ensured = failure->ensured && (known == NULL || known->ensured);
	parked->moves = failure->moves;
}

/*
 * Remember a change as parked for as long as the set lasts: what a preview
 * does.
 */
SynchroParked *
synchro_parked_keep(SynchroParkedSet *set, const SynchroFailure *failure)
{
	SynchroParked parked = {0};

	fill_parked(&parked, failure, synchro_parked_find(set, failure->table->relid, failure->identity, failure->table->nidentity));
	synchro_parked_remember(set, &parked);
	return synchro_parked_find(set, failure->table->relid, failure->identity, failure->table->nidentity);
}

/* by SynchroOp */
static const char *const operations[] = {"insert", "update", "delete"};

/*
 * Park a change, or note that it has failed once more.  In a local
 * transaction.  It is not tried again in this pass, until the caller says so.
 * A reason of its own is kept as long as it is not tried by itself again.
 */
SynchroParked *
synchro_parked_put(SynchroParkedSet *set, const SynchroFailure *failure)
{
	SynchroParked *known = synchro_parked_find(set, failure->table->relid, failure->identity, failure->table->nidentity);
	SynchroParked parked = {0};
	SynchroIdentities readable = {failure->table->nidentity, 1, 1, failure->identity};
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, OIDOID, INT4OID, BYTEAOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
	UUIDOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT8OID, TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	bool		isnull;
	MemoryContext context = CurrentMemoryContext;

	/* what has only been kept in memory so far */
	if (known != NULL && known->id == 0)
		known = NULL;
	fill_parked(&parked, failure, known);
	values[0] = CStringGetTextDatum(set->server);
	values[1] = ObjectIdGetDatum(parked.relid);
	values[2] = Int32GetDatum((int32) parked.layout);
	values[3] = synchro_key_sealed(parked.record, parked.relid, parked.layout);
	values[4] = CStringGetTextDatum(synchro_identities_text(&readable, 0));
	values[5] = CStringGetTextDatum(operations[failure->op]);
	values[6] = TimestampTzGetDatum(parked.changed_at);
	values[7] = UUIDPGetDatum(failure->origin);
	values[8] = CStringGetTextDatum(failure->sqlstate);
	values[9] = CStringGetTextDatum(failure->message);
	nulls[10] = failure->constraint == NULL;
	values[10] = nulls[10] ? (Datum) 0 : CStringGetTextDatum(failure->constraint);
	values[11] = Int32GetDatum(synchro_retry_max_interval);
	nulls[12] = known == NULL;
	values[12] = nulls[12] ? (Datum) 0 : Int64GetDatum(known->id);
	nulls[13] = failure->detail == NULL;
	values[13] = nulls[13] ? (Datum) 0 : CStringGetTextDatum(failure->detail);
	nulls[14] = failure->hint == NULL;
	values[14] = nulls[14] ? (Datum) 0 : CStringGetTextDatum(failure->hint);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (known != NULL && failure->shared && known->alone != 0)
		synchro_sql_run("UPDATE synchro.parked SET layout = $3, record = $4, operation = $6, changed_at = $7, origin = $8,"
						" attempts = attempts + 1, last_failed = clock_timestamp(),"
						" next_attempt = " SYNCHRO_NEXT_ATTEMPT("attempts + 1", "$12") " WHERE id = $13 RETURNING id",
						lengthof(types), types, values, nulls);
	else if (known != NULL)
		synchro_sql_run("UPDATE synchro.parked SET layout = $3, record = $4, operation = $6, changed_at = $7, origin = $8,"
						" sqlstate = $9, message = $10, constraint_name = $11, detail = $14, hint = $15, attempts = attempts + 1, last_failed = clock_timestamp(),"
						" next_attempt = " SYNCHRO_NEXT_ATTEMPT("attempts + 1", "$12") " WHERE id = $13 RETURNING id",
						lengthof(types), types, values, nulls);
	else
		synchro_sql_run("INSERT INTO synchro.parked (server, relation, layout, record, key, operation, changed_at, origin,"
						" sqlstate, message, constraint_name, detail, hint, next_attempt)"
						" VALUES ($1::name, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $14, $15, " SYNCHRO_NEXT_ATTEMPT("1", "$12") ") RETURNING id",
						lengthof(types), types, values, nulls);
	if (SPI_processed == 1)
		parked.id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (parked.alone != (known != NULL ? known->alone : 0) && notes_alone())
		synchro_sql_run("UPDATE synchro.parked SET alone_at = $2 WHERE id = $1", 2, (Oid[]) {INT8OID, TIMESTAMPTZOID},
						(Datum[]) {Int64GetDatum(parked.id), TimestampTzGetDatum(parked.alone)}, NULL);
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(context);
	synchro_parked_remember(set, &parked);
	return synchro_parked_find(set, failure->table->relid, failure->identity, failure->table->nidentity);
}

/* a name that is kept, but not on disk yet */
typedef struct UnsavedName
{
	SynchroParked *parked;
	const pg_uuid_t *origin;	/* NULL: the same */
} UnsavedName;

/*
 * A row that has failed in this pass is kept as something else from now on.
 * It is known for the set at once, and saved by synchro_parked_save_names().
 * sources: NULL if it was first made where it was.
 */
static void
keep_as(SynchroParkedSet *set, SynchroParked *parked, const SynchroTable *table, SynchroOp op, bool has_old,
		const SynchroChangedKey *name, const SynchroSources *sources)
{
	SynchroFailure failure = {.table = table};
	MemoryContext old = MemoryContextSwitchTo(set->context);
	UnsavedName *unsaved = palloc(sizeof(UnsavedName));

	failure.op = op;
	failure.has_old = has_old;
	failure.old = name->name;
	failure.identity = synchro_identities_values(table, table->identity, table->nidentity, name->identity);
	failure.stamp = name->named;
	parked->record = make_record(&failure);
	parked->layout = table->layout;
	parked->changed_at = failure.stamp.at;
	parked->has_name = has_old || op == SYNCHRO_OP_DELETE;
	unsaved->parked = parked;
	unsaved->origin = NULL;
	if (sources != NULL)
	{
		pg_uuid_t  *origin = palloc(sizeof(pg_uuid_t));

		*origin = synchro_source_find(sources, failure.stamp.source)->origin;
		unsaved->origin = origin;
	}
	set->unsaved = lappend(set->unsaved, unsaved);
	MemoryContextSwitchTo(old);
}

/*
 * A row that has failed in this pass has lost its name since, or is gone.  The remote
 * is not told, as the row is left out, so it still calls it that: keep it with what
 * is parked.
 */
void
synchro_parked_keep_name(SynchroParkedSet *set, SynchroParked *parked, const SynchroTable *table,
						 const SynchroChangedKey *name, const SynchroSources *sources)
{
	bool		by_reference = table->mode == SYNCHRO_MODE_REFERENCE;

	/* a reference says nothing but that the row is gone */
	if (by_reference && !synchro_bytes_equal(name->name, name->identity))
		return;
	keep_as(set, parked, table, by_reference ? SYNCHRO_OP_DELETE : SYNCHRO_OP_UPDATE, !by_reference, name, sources);
}

/*
 * A row known by reference has taken the identity of one that has failed in this pass,
 * and the remote is told.  If that one was new it is not any more: were it kept so, a
 * delete of this one would not be sent, nor where it moves next.  What else is kept of
 * it holds for either.
 */
void
synchro_parked_take_place(SynchroParkedSet *set, SynchroParked *parked, const SynchroTable *table,
						  const SynchroChangedKey *name, const SynchroSources *sources)
{
	if (synchro_parked_is_insert(parked, table))
		keep_as(set, parked, table, SYNCHRO_OP_UPDATE, false, name, sources);
}

/*
 * What the remote calls a row is said otherwise from now on: one that is in it has
 * another identity here.
 */
void
synchro_parked_call(SynchroParkedSet *set, SynchroParked *parked, const SynchroTable *table,
					SynchroBytes identity, SynchroBytes name)
{
	SynchroChangedKey called = {.identity = identity, .name = name, .named = synchro_parked_stamp(parked, table)};
	ListCell   *cell;

	/* one that is still to be saved has the name of before */
	foreach(cell, set->held)
	{
		SynchroFailure *failure = lfirst(cell);

		if (strcmp(synchro_parked_row(failure->table->relid, failure->identity, failure->table->nidentity), parked->row) == 0)
		{
			MemoryContext old = MemoryContextSwitchTo(set->context);

			failure->old = synchro_key_copy(name);
			MemoryContextSwitchTo(old);
		}
	}
	keep_as(set, parked, table, SYNCHRO_OP_UPDATE, true, &called, NULL);
}

/*
 * The remote does not have the row by the name that was kept of it, so it is new there.  If
 * it were looked for by that name once another row has it, it would be taken for that one.
 */
void
synchro_parked_forget_name(SynchroParkedSet *set, SynchroParked *parked, const SynchroTable *table,
						   SynchroBytes identity)
{
	SynchroChangedKey unnamed = {.identity = identity, .named = synchro_parked_stamp(parked, table)};

	keep_as(set, parked, table, SYNCHRO_OP_INSERT, false, &unnamed, NULL);
}

/*
 * A row is gone here, and is left out, since the remote calls another one by it which
 * waits: a row of the table by.  As above, it is known at once, and saved by the
 * following.
 */
void
synchro_parked_hold(SynchroParkedSet *set, const SynchroTable *table, const SynchroChangedKey *name,
					const SynchroSources *sources, const char *by)
{
	MemoryContext old = MemoryContextSwitchTo(set->context);
	bool		by_reference = table->mode == SYNCHRO_MODE_REFERENCE;
	const SynchroParked *known = synchro_parked_find_key(set, table, name->identity);
	SynchroFailure *failure = palloc0(sizeof(SynchroFailure));
	pg_uuid_t  *origin = palloc(sizeof(pg_uuid_t));
	SynchroParked parked = {0};

	*origin = synchro_source_find(sources, name->changed.source)->origin;
	failure->table = synchro_table_copy(table, set->context);
	failure->identity = synchro_identities_values(table, table->identity, table->nidentity, name->identity);
	failure->op = by_reference ? SYNCHRO_OP_DELETE : SYNCHRO_OP_UPDATE;
	failure->has_old = !by_reference;
	failure->old = synchro_key_copy(name->name);
	failure->stamp = name->changed;
	failure->origin = origin;
	failure->sqlstate = "23503";
	failure->message = psprintf("a row of table %s, of which a change has not arrived, is still called by it on the remote", by);
	failure->hint = "It is deleted there when that one has arrived.";
	fill_parked(&parked, failure, known);
	parked.id = known != NULL ? known->id : 0;
	synchro_parked_remember(set, &parked);
	set->held = lappend(set->held, failure);
	MemoryContextSwitchTo(old);
}

/*
 * Save names that are kept: before a batch is committed, since with it the names move
 * on over them; if it is not, they are true all the same.  In a local transaction.
 */
void
synchro_parked_save_names(SynchroParkedSet *set)
{
	SynchroSqlScope scope;
	Oid			types[] = {INT8OID, INT4OID, BYTEAOID, TEXTOID, TIMESTAMPTZOID, UUIDOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	ListCell   *cell;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	foreach(cell, set->unsaved)
	{
		UnsavedName *unsaved = lfirst(cell);
		const SynchroParked *parked = unsaved->parked;

		values[0] = Int64GetDatum(parked->id);
		values[1] = Int32GetDatum((int32) parked->layout);
		values[2] = synchro_key_sealed(parked->record, parked->relid, parked->layout);
		values[3] = CStringGetTextDatum(operations[SYNCHRO_PARKED_OP(parked)]);
		values[4] = TimestampTzGetDatum(parked->changed_at);
		nulls[5] = unsaved->origin == NULL;
		values[5] = UUIDPGetDatum(unsaved->origin);
		synchro_sql_run("UPDATE synchro.parked SET layout = $2, record = $3, operation = $4, changed_at = $5, origin = coalesce($6, origin) WHERE id = $1",
						lengthof(types), types, values, nulls);
	}
	synchro_sql_close(&scope);
	set->unsaved = NIL;
	foreach(cell, set->held)
		synchro_parked_put(set, lfirst(cell));
	set->held = NIL;
}

/*
 * Note that changes are part of the batch which sets the position's token to
 * this one.  In the local transaction that keeps the token.  healing: list of
 * SynchroParked.
 */
void
synchro_parked_sent(List *healing, const char *token)
{
	SynchroSqlScope scope;
	Oid			types[] = {INT8ARRAYOID, TEXTOID};
	Datum		values[lengthof(types)];
	Datum	   *ids;
	ListCell   *cell;

	if (healing == NIL)
		return;
	ids = palloc(sizeof(Datum) * list_length(healing));
	foreach(cell, healing)
		ids[foreach_current_index(cell)] = Int64GetDatum(((SynchroParked *) lfirst(cell))->id);
	values[0] = PointerGetDatum(construct_array(ids, list_length(healing), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = CStringGetTextDatum(token);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("UPDATE synchro.parked SET sent_with = $2::uuid WHERE id = ANY ($1)", lengthof(types), types, values, NULL);
	synchro_sql_close(&scope);
}

/*
 * The remote has committed the batch with that token: what was part of it is
 * done, and what may have waited for that is due.  In a local transaction.
 */
void
synchro_parked_settle(const char *server, const char *token)
{
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];

	if (synchro_sql_is_empty("parked"))
		return;
	values[0] = CStringGetTextDatum(server);
	values[1] = CStringGetTextDatum(token);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("DELETE FROM synchro.parked WHERE server = $1::name AND sent_with = $2::uuid", lengthof(types), types, values, NULL);
	if (SPI_processed > 0)
		synchro_sql_run("UPDATE synchro.parked SET next_attempt = clock_timestamp() WHERE server = $1::name AND " WAITS_FOR_OTHERS,
						1, types, values, NULL);
	synchro_sql_close(&scope);
}

/*
 * When the next of what has failed of a remote's, changes and tables, is to be
 * tried; 0: nothing is.  In a local transaction.
 *
 * since: when the last pass began.  What was due by then and still is could not
 * be tried: its table has stalled, and is tried at that one's time, or has
 * another primary key by now.  It is no reason for a pass, or one would follow
 * the other without end, but any pass tries it.
 */
TimestampTz
synchro_parked_next(const char *server, TimestampTz since)
{
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	Datum		time;
	bool		isnull;

	values[0] = CStringGetTextDatum(server);
	values[1] = TimestampTzGetDatum(since);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("SELECT min(next_attempt) FROM synchro.failures WHERE remote = $1::name AND next_attempt > $2",
					lengthof(types), types, values, NULL);
	time = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	synchro_sql_close(&scope);
	return isnull ? 0 : DatumGetTimestampTz(time);
}
