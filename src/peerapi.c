/*-------------------------------------------------------------------------
 *
 * peerapi.c
 *	  SQL-callable functions for other nodes: what the session of a pusher
 *	  calls here while it applies a batch, see decidesql.c.
 *
 * They give the one who may call them power over what the log says, and tell
 * keys of all watched tables: so they are for the roles that allow_peer() was
 * called for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "applied.h"
#include "checkpoint.h"
#include "clock.h"
#include "compat.h"
#include "conflict.h"
#include "localsql.h"
#include "peerlog.h"
#include "sharedstate.h"
#include "stalled.h"

PG_FUNCTION_INFO_V1(synchro_allow_peer);
PG_FUNCTION_INFO_V1(synchro_peer_node);
PG_FUNCTION_INFO_V1(synchro_peer_table);
PG_FUNCTION_INFO_V1(synchro_peer_begin);
PG_FUNCTION_INFO_V1(synchro_peer_newest);
PG_FUNCTION_INFO_V1(synchro_peer_names);
PG_FUNCTION_INFO_V1(synchro_peer_apply);
PG_FUNCTION_INFO_V1(synchro_peer_lost);
PG_FUNCTION_INFO_V1(synchro_peer_won);
PG_FUNCTION_INFO_V1(synchro_peer_recheck);

/* what peer_begin() said, for its transaction */
typedef struct PeerSession
{
	uint64		txid;
	pg_uuid_t	node;
	SynchroSnapshot *seen;		/* or NULL */
	SynchroSnapshot *begun;
	int64		uncertainty;	/* of both sides' times, microseconds */
} PeerSession;

static PeerSession session;

static PeerSession *
current_session(void)
{
	if (session.txid == 0 || session.txid != U64FromFullTransactionId(GetTopFullTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no other node is pushing in this transaction"),
				 errhint("This function is called by the workers of synchro.")));
	return &session;
}

/*
 * The watched table of that name, or NULL.
 */
static const SynchroTable *
watched_table(Datum name)
{
	Oid			relid = synchro_table_by_name(TextDatumGetCString(name));
	const SynchroTable *table = OidIsValid(relid) ? synchro_table_get(relid, true) : NULL;

	if (table == NULL || !table->watched || table->mode == SYNCHRO_MODE_NONE)
		return NULL;
	return synchro_table_copy(table, CurrentMemoryContext);
}

/*
 * The same, to push to it: its trigger must be there, or the log would not
 * have what is pushed, and cannot tell what is newer.
 */
static const SynchroTable *
pushed_table(Datum name)
{
	const SynchroTable *table = watched_table(name);

	if (table != NULL && !table->captured)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg(SYNCHRO_NOT_CAPTURED, table->qualified),
				 errhint("Run there: SELECT synchro.alter_table(%s).", quote_literal_cstr(table->qualified))));
	return table;
}

/*
 * allow_peer(role): give a role what it needs to push to this node.
 */
Datum
synchro_allow_peer(PG_FUNCTION_ARGS)
{
	char	   *role = GetUserNameFromId(PG_GETARG_OID(0), false);
	SynchroSqlScope scope;
	StringInfoData sql;
	const char *quoted = quote_identifier(role);

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	initStringInfo(&sql);
	if (!OidIsValid(get_namespace_oid(SYNCHRO_PEER_SCHEMA, true)))
		synchro_peer_tables(&sql);
	appendStringInfo(&sql, "GRANT USAGE ON SCHEMA " SYNCHRO_PEER_SCHEMA ", " SYNCHRO_SCHEMA " TO %s;"
					 "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " SYNCHRO_PEER_SCHEMA " TO %s;",
					 quoted, quoted);
	synchro_sql_run("SELECT string_agg(format('GRANT EXECUTE ON FUNCTION %s TO ', oid::regprocedure) || quote_ident($1), ';')"
					" FROM pg_proc WHERE pronamespace = '" SYNCHRO_SCHEMA "'::regnamespace AND proname LIKE 'peer\\_%'"
					" AND proname <> 'peer_setup'", 1, (Oid[]) {TEXTOID}, (Datum[]) {CStringGetTextDatum(role)}, NULL);
	appendStringInfoString(&sql, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	synchro_sql_script(sql.data);
	synchro_sql_close(&scope);
	PG_RETURN_VOID();
}

/*
 * peer_node(): this node's id.
 */
Datum
synchro_peer_node(PG_FUNCTION_ARGS)
{
	SynchroSources *sources = synchro_sources_load();
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	*id = synchro_source_find(sources, 0)->origin;
	PG_RETURN_UUID_P(id);
}

/*
 * peer_table(relation): by which columns the rows of a watched table are
 * identified and named here; NULL if it is not watched.
 */
Datum
synchro_peer_table(PG_FUNCTION_ARGS)
{
	const SynchroTable *table = watched_table(PG_GETARG_DATUM(0));

	if (table == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(synchro_table_keys_text(table)));
}

/*
 * peer_begin(node, seen, uncertainty): the present transaction applies a batch of another
 * node.
 *
 * seen: how much of this node's log that one had got when it read the batch,
 * as a snapshot of this node; NULL if it gets nothing from here.  uncertainty:
 * how exactly the two clocks are known to each other, in microseconds.
 */
Datum
synchro_peer_begin(PG_FUNCTION_ARGS)
{
	SynchroSqlScope scope;
	MemoryContext old;
	pg_uuid_t	own;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("node must not be NULL")));
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("SELECT FROM synchro.node WHERE state = 'active'", 0, NULL, NULL, NULL);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a copy that is held"),
				 errhint("When it is to take part, run there: SELECT synchro.confirm_node().")));
	synchro_sql_close(&scope);
	own = synchro_source_find(synchro_sources_load(), 0)->origin;
	if (synchro_uuid_equal(&own, PG_GETARG_UUID_P(0)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a node cannot push to itself"),
				 errdetail("Both databases have the node id %s: one is a copy of the other, or they are one.",
						   DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&own)))),
				 errhint("On the copy, run SELECT synchro.confirm_node().")));
	old = MemoryContextSwitchTo(TopTransactionContext);
	session.txid = U64FromFullTransactionId(GetTopFullTransactionId());
	session.node = *PG_GETARG_UUID_P(0);
	session.seen = NULL;
	session.uncertainty = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	if (!PG_ARGISNULL(1))
		session.seen = synchro_snapshot_parse(DatumGetCString(DirectFunctionCall1(pg_snapshot_out, PG_GETARG_DATUM(1))));
	session.begun = synchro_snapshot_parse(synchro_snapshot_current());
	MemoryContextSwitchTo(old);
	PG_RETURN_VOID();
}

static int
text_elements(Datum array, Datum **elements)
{
	int			count;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, elements, NULL, &count);
	return count;
}

static Datum
origin_datum(const SynchroStamps *stamps, SynchroStamp stamp)
{
	pg_uuid_t  *origin = palloc(sizeof(pg_uuid_t));

	*origin = synchro_stamps_source(stamps, stamp)->origin;
	return UUIDPGetDatum(origin);
}

/*
 * peer_newest(relation, identities, since): the newest changes of rows that
 * were made since then, or that the other node has not seen.
 */
Datum
synchro_peer_newest(PG_FUNCTION_ARGS)
{
	PeerSession *peer = current_session();
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const SynchroTable *table = pushed_table(PG_GETARG_DATUM(0));
	Datum	   *elements;
	int			count;
	SynchroNewest *rows;
	SynchroStamps *stamps;

	InitMaterializedSRF(fcinfo, 0);
	if (table == NULL)
		return (Datum) 0;
	count = text_elements(PG_GETARG_DATUM(1), &elements);
	rows = palloc0(sizeof(SynchroNewest) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		rows[i].identity = TextDatumGetCString(elements[i]);
		rows[i].bytes = synchro_peerlog_encode(table, table->identity, table->nidentity, rows[i].identity);
	}
	stamps = synchro_peerlog_newest(table, rows, count, PG_GETARG_INT64(2), peer->seen);
	for (int i = 0; i < count; i++)
	{
		const SynchroSource *source;
		Datum		values[4];
		bool		nulls[4] = {0};

		if (!rows[i].found)
			continue;
		source = synchro_stamps_source(stamps, rows[i].stamp);
		values[0] = elements[i];
		values[1] = Int64GetDatum(rows[i].stamp.at);
		values[2] = origin_datum(stamps, rows[i].stamp);
		values[3] = BoolGetDatum((rows[i].stamp.source == 0 || !synchro_uuid_equal(&source->via, &peer->node)) &&
								 (peer->seen == NULL || !synchro_snapshot_has(peer->seen, rows[i].txid)));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * peer_names(relation, names, since): who bore names last that nobody bears
 * any more, as far as they were lost since then.
 */
Datum
synchro_peer_names(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const SynchroTable *table = pushed_table(PG_GETARG_DATUM(0));
	Datum	   *elements;
	int			count;
	SynchroBearer *names;
	SynchroStamps *stamps;

	(void) current_session();
	InitMaterializedSRF(fcinfo, 0);
	if (table == NULL)
		return (Datum) 0;
	count = text_elements(PG_GETARG_DATUM(1), &elements);
	names = palloc0(sizeof(SynchroBearer) * Max(count, 1));
	for (int i = 0; i < count; i++)
		names[i].name = TextDatumGetCString(elements[i]);
	stamps = synchro_peerlog_bearers(table, names, count, PG_GETARG_INT64(2));
	for (int i = 0; i < count; i++)
	{
		Datum		values[6];
		bool		nulls[6] = {0};

		if (!names[i].found)
			continue;
		values[0] = elements[i];
		values[1] = CStringGetTextDatum(names[i].identity);
		values[2] = BoolGetDatum(names[i].row->live);
		values[3] = Int64GetDatum(names[i].lost.at);
		values[4] = Int64GetDatum(names[i].row->stamp.at);
		values[5] = origin_datum(stamps, names[i].row->stamp);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * peer_apply(relation, identities, stamps, origins, derived, touch): these
 * rows are going to be written, by changes that were made then and there.
 */
Datum
synchro_peer_apply(PG_FUNCTION_ARGS)
{
	PeerSession *peer = current_session();
	const SynchroTable *table = pushed_table(PG_GETARG_DATUM(0));
	Datum	   *columns[5];
	int			count = 0;
	pg_uuid_t	last_origin;
	int32		last_source = 0;
	TimestampTz newest = 0;

	if (table == NULL)
		PG_RETURN_VOID();
	for (int i = 0; i < 5; i++)
	{
		static const Oid types[] = {TEXTOID, INT8OID, UUIDOID, BOOLOID, BOOLOID};
		int			n;
		int16		typlen;
		bool		typbyval;
		char		typalign;

		get_typlenbyvalalign(types[i], &typlen, &typbyval, &typalign);
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(i + 1), types[i], typlen, typbyval, typalign, &columns[i], NULL, &n);
		if (i > 0 && n != count)
			ereport(ERROR,
					(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
					 errmsg("arrays of different lengths")));
		count = n;
	}
	for (int i = 0; i < count; i++)
	{
		const pg_uuid_t *origin = DatumGetUUIDP(columns[2][i]);
		SynchroStamp stamp = {DatumGetInt64(columns[1][i])};

		if (last_source == 0 || !synchro_uuid_equal(origin, &last_origin))
		{
			last_source = synchro_source_number(origin, &peer->node);
			last_origin = *origin;
		}
		stamp.source = last_source;
		newest = Max(newest, stamp.at);
		synchro_applied_put(table, synchro_peerlog_encode(table, table->identity, table->nidentity, TextDatumGetCString(columns[0][i])),
							stamp, DatumGetBool(columns[3][i]), DatumGetBool(columns[4][i]));
	}

	/* whatever is done here from now on is later, in particular to these rows */
	synchro_clock_saw(newest);
	PG_RETURN_VOID();
}

static char *
text_or_null(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : TextDatumGetCString(PG_GETARG_DATUM(n));
}

/*
 * Queue a row for the node that is pushing.
 *
 * name: tell that nothing is called so any more; NULL: only send the row.
 */
static void
queue_winner(const PeerSession *peer, const SynchroTable *table, const char *identity,
			 const char *name, TimestampTz at, const pg_uuid_t *origin)
{
	SynchroSqlScope scope;
	StringInfoData record;
	SynchroBytes bytes = synchro_peerlog_encode(table, table->identity, table->nidentity, identity);
	SynchroStamp stamp = {at};
	pg_uuid_t	own = synchro_source_find(synchro_sources_load(), 0)->origin;
	Oid			types[] = {UUIDOID, OIDOID, INT4OID, TIMESTAMPTZOID, BYTEAOID};
	Datum		values[lengthof(types)];

	if (!synchro_uuid_equal(origin, &own))
		stamp.source = synchro_source_number(origin, origin);
	initStringInfo(&record);
	appendStringInfoChar(&record, (char) (SYNCHRO_KEY_STAMPED | (name != NULL ? SYNCHRO_OP_DELETE | SYNCHRO_KEY_HAS_OLD : SYNCHRO_OP_UPDATE)));
	appendBinaryStringInfo(&record, bytes.data, bytes.len);
	if (name != NULL)
	{
		bytes = synchro_peerlog_encode(table, table->key, table->nkey, name);
		appendBinaryStringInfo(&record, bytes.data, bytes.len);
	}
	synchro_key_put_stamp(&record, stamp);
	synchro_key_seal(&record, 0, table->relid, table->layout);
	values[0] = UUIDPGetDatum(&peer->node);
	values[1] = ObjectIdGetDatum(table->relid);
	values[2] = Int32GetDatum((int32) table->layout);
	values[3] = TimestampTzGetDatum(synchro_clock_now());
	values[4] = PointerGetDatum(cstring_to_text_with_len(record.data, record.len));

	/* a remote that was never reached may be that node */
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("INSERT INTO synchro.backlog (server, relation, layout, changed_at, part, keys)"
						" SELECT server, $2, $3, $4, 0, $5 FROM synchro.remote_state WHERE node = $1 OR node IS NULL",
						lengthof(types), types, values, NULL) > 0)
		synchro_shared_wake_at_commit(1);
	synchro_sql_close(&scope);
}

/*
 * What a conflict was about, as far as peer_lost() and peer_won() have the
 * same arguments.
 */
static void
fill_conflict(FunctionCallInfo fcinfo, const PeerSession *peer, const SynchroTable *table, SynchroConflict *conflict)
{
	memset(conflict, 0, sizeof(*conflict));
	conflict->table = table;
	conflict->node = &peer->node;
	conflict->identity = text_or_null(fcinfo, 1);
	conflict->local_at = PG_GETARG_INT64(2);
	conflict->remote_at = PG_GETARG_INT64(4);
	conflict->ambiguous = i64abs(conflict->local_at - conflict->remote_at) <= peer->uncertainty;
	conflict->loser = PG_ARGISNULL(6) ? (Datum) 0 : PG_GETARG_DATUM(6);
}

/*
 * peer_lost(relation, identity, there, there_origin, stamp, origin, loser,
 * name, former, pending): the other node's change has lost.  It is recorded, and the
 * winner queued for that node.
 *
 * identity: of the row here, NULL if it is gone.  name: under which the
 * other's row was found in the log, of the row that had the identity former.
 * pending: that node has not got what the winner has changed.
 */
Datum
synchro_peer_lost(PG_FUNCTION_ARGS)
{
	PeerSession *peer = current_session();
	const SynchroTable *table = PG_ARGISNULL(0) ? NULL : pushed_table(PG_GETARG_DATUM(0));
	char	   *name = text_or_null(fcinfo, 7);
	char	   *former = text_or_null(fcinfo, 8);
	SynchroConflict conflict;

	if (table == NULL || PG_ARGISNULL(2) || PG_ARGISNULL(3) || PG_ARGISNULL(4))
		PG_RETURN_NULL();
	fill_conflict(fcinfo, peer, table, &conflict);
	conflict.name = name;
	synchro_conflict_record(&conflict);

	/* a row that the other node has not got yet is on its way there already */
	if ((conflict.identity != NULL || former != NULL) &&
		(name != NULL || PG_ARGISNULL(9) || !PG_GETARG_BOOL(9)))
		queue_winner(peer, table, conflict.identity != NULL ? conflict.identity : former, name,
					 conflict.local_at, PG_GETARG_UUID_P(3));
	PG_RETURN_BOOL(true);
}

/*
 * peer_won(relation, identity, there, there_origin, stamp, origin, loser): the
 * other node's change is newer than one made here, which it does not know of.
 */
Datum
synchro_peer_won(PG_FUNCTION_ARGS)
{
	PeerSession *peer = current_session();
	const SynchroTable *table = PG_ARGISNULL(0) ? NULL : pushed_table(PG_GETARG_DATUM(0));
	SynchroConflict conflict;

	if (table == NULL || PG_ARGISNULL(2) || PG_ARGISNULL(4))
		PG_RETURN_NULL();
	fill_conflict(fcinfo, peer, table, &conflict);
	conflict.remote_wins = true;
	synchro_conflict_record(&conflict);
	PG_RETURN_BOOL(true);
}

/*
 * peer_recheck(): raise 40001 if somebody has changed rows meanwhile that this
 * transaction writes for the other node.
 *
 * What was decided is right as of peer_begin() at the earliest.  Of the rows
 * that have been written since, this transaction holds the locks: whoever
 * changed one of them before has committed, so is seen now, and whoever comes
 * later gets a later stamp.
 */
Datum
synchro_peer_recheck(PG_FUNCTION_ARGS)
{
	PeerSession *peer = current_session();

	if (synchro_applied_any() && synchro_peerlog_changed_since(peer->begun))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("rows were changed while they were being pushed"),
				 errhint("The batch is tried again.")));
	PG_RETURN_VOID();
}
