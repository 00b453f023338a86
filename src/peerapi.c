/*-------------------------------------------------------------------------
 *
 * peerapi.c
 *	  SQL-callable functions for other nodes: what the session of a pusher
 *	  calls here while it applies a batch, see decidesql.c.
 *
 * They give the one who may call them power over what the log says, and tell
 * keys of the watched tables that he may read: so they are for the roles that
 * allow_peer() was called for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
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
#include "clock.h"
#include "compat.h"
#include "conflict.h"
#include "identities.h"
#include "localsql.h"
#include "peerlock.h"
#include "peerlog.h"
#include "peernames.h"
#include "peersession.h"
#include "settings.h"
#include "stalled.h"

PG_FUNCTION_INFO_V1(synchro_peer_table);
PG_FUNCTION_INFO_V1(synchro_peer_begin);
PG_FUNCTION_INFO_V1(synchro_peer_newest);
PG_FUNCTION_INFO_V1(synchro_peer_names);
PG_FUNCTION_INFO_V1(synchro_peer_apply);
PG_FUNCTION_INFO_V1(synchro_peer_lost);
PG_FUNCTION_INFO_V1(synchro_peer_kept);
PG_FUNCTION_INFO_V1(synchro_peer_won);
PG_FUNCTION_INFO_V1(synchro_peer_recheck);

/*
 * The same, to push to it: its triggers must be there, and those of the tables
 * inside its key, or the log would not have what is pushed, and cannot tell what
 * is newer, nor what names were.
 */
static const SynchroTable *
pushed_table(Datum name)
{
	const SynchroTable *table = synchro_peersession_table(name);
	const SynchroTable *uncaptured = table != NULL ? synchro_table_uncaptured(table->relid) : NULL;

	if (uncaptured != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg(SYNCHRO_NOT_CAPTURED, uncaptured->qualified),
				 errhint("Run there: SELECT synchro.alter_table(%s).", quote_literal_cstr(table->qualified))));
	return table;
}

/*
 * peer_table(relation): by which columns the rows of a watched table are
 * identified and named here; NULL if it is not watched.
 */
Datum
synchro_peer_table(PG_FUNCTION_ARGS)
{
	const SynchroTable *table = synchro_peersession_table(PG_GETARG_DATUM(0));

	if (table == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(synchro_table_keys_text(table)));
}

/*
 * Names have changed here of which the other node has not heard, and the batch
 * does not look for them.
 */
static void
refuse_renames(void)
{
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE('4', '0', 'S', 'Y', '2')),	/* SYNCHRO_RENAMED_THERE */
			 errmsg("rows have been renamed here that the other node calls by their old names"),
			 errhint("The batch is tried again.")));
}

/*
 * peer_begin(node, seen, uncertainty, named, looks): the present transaction
 * applies a batch of another node.
 *
 * seen: how much of this node's log that one had got when it read the batch,
 * as a snapshot of this node; NULL if it gets nothing from here.  uncertainty:
 * how exactly the two clocks are known to each other, in microseconds.
 *
 * named: how much of what the rows here are called the other node had been
 * told, likewise; NULL if that is nothing, or does not matter.  looks: whether
 * the batch looks for names that have changed hands since, see crosssql.c.
 * Names rarely change: so a batch that does not look is refused if any have, at
 * the cost of one look at the log's index of renames, and comes again looking.
 */
Datum
synchro_peer_begin(PG_FUNCTION_ARGS)
{
	SynchroSqlScope scope;
	MemoryContext old;
	SynchroPeerSession *session;
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
				 errhint("On the copy, run SELECT synchro.confirm_node(). If they are one, correct the server's options.")));

	/* a preview rolls back to where it has begun a batch, with all that was said of that */
	if (!synchro_log_changes)
		synchro_applied_forget();
	session = synchro_peersession_begin();
	old = MemoryContextSwitchTo(TopTransactionContext);
	session->txid = U64FromFullTransactionId(GetTopFullTransactionId());
	session->node = *PG_GETARG_UUID_P(0);
	session->own = own;
	session->seen = NULL;
	session->named = NULL;
	session->looks = PG_ARGISNULL(4) || PG_GETARG_BOOL(4);
	session->uncertainty = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	if (!PG_ARGISNULL(1))
		session->seen = synchro_snapshot_parse(DatumGetCString(DirectFunctionCall1(pg_snapshot_out, PG_GETARG_DATUM(1))));
	if (!PG_ARGISNULL(3))
		session->named = synchro_snapshot_parse(DatumGetCString(DirectFunctionCall1(pg_snapshot_out, PG_GETARG_DATUM(3))));
	session->begun = synchro_snapshot_parse(synchro_snapshot_current());
	MemoryContextSwitchTo(old);
	if (session->named != NULL && !session->looks && synchro_peernames_any(session->named, &session->node))
		refuse_renames();
	PG_RETURN_VOID();
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
	SynchroPeerSession *peer = synchro_peersession();
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const SynchroTable *table = pushed_table(PG_GETARG_DATUM(0));
	Datum	   *elements;
	int			count;
	SynchroNewest *rows;
	SynchroStamps *stamps;

	InitMaterializedSRF(fcinfo, 0);
	if (table == NULL)
		return (Datum) 0;
	count = synchro_text_elements(PG_GETARG_DATUM(1), &elements);
	rows = palloc0(sizeof(SynchroNewest) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		rows[i].identity = TextDatumGetCString(elements[i]);
		rows[i].bytes = synchro_identities_encode_text(table, table->identity, table->nidentity, rows[i].identity);
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

	(void) synchro_peersession();
	InitMaterializedSRF(fcinfo, 0);
	if (table == NULL)
		return (Datum) 0;
	count = synchro_text_elements(PG_GETARG_DATUM(1), &elements);
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
	SynchroPeerSession *peer = synchro_peersession();
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

		/* in a preview nothing is logged, and nothing is to stay, of which sequences and the clock would be */
		if (synchro_log_changes && (last_source == 0 || !synchro_uuid_equal(origin, &last_origin)))
		{
			last_source = synchro_source_number(origin, &peer->node);
			last_origin = *origin;
		}
		stamp.source = last_source;
		newest = Max(newest, stamp.at);
		synchro_applied_put(table, synchro_identities_encode_text(table, table->identity, table->nidentity, TextDatumGetCString(columns[0][i])),
							stamp, DatumGetBool(columns[3][i]), DatumGetBool(columns[4][i]));
	}

	/* whatever is done here from now on is later, in particular to these rows */
	if (synchro_log_changes)
		synchro_clock_saw(newest);
	PG_RETURN_VOID();
}

/*
 * Until the node that is pushing hears that its change of a row's name has
 * lost, it calls the row so, and says of whatever has the row in its own name
 * what is true of this one.  So the log gets the name as one that the row has lost,
 * at the time and by the origin of the change that has won, by way of that node:
 * what is pushed to it calls the row so, too (keyhistory.c).
 */
static void
refuse_name(const SynchroPeerSession *peer, const SynchroTable *table, const char *identity, const char *name,
			TimestampTz at, const pg_uuid_t *origin)
{
	SynchroStamp stamp = {at, synchro_source_number(origin, &peer->node)};

	synchro_applied_refuse(table, synchro_identities_encode_text(table, table->identity, table->nidentity, identity),
						   synchro_identities_encode_text(table, table->key, table->nkey, name), stamp);
}

/*
 * What a conflict was about, as far as peer_lost(), peer_kept() and peer_won()
 * have the same arguments.
 */
static void
fill_conflict(FunctionCallInfo fcinfo, const SynchroPeerSession *peer, const SynchroTable *table, SynchroConflict *conflict)
{
	memset(conflict, 0, sizeof(*conflict));
	conflict->table = table;
	conflict->node = &peer->node;
	conflict->identity = synchro_text_or_null(fcinfo, 1);
	conflict->local_at = PG_GETARG_INT64(2);
	conflict->remote_at = PG_GETARG_INT64(4);
	conflict->ambiguous = i64abs(conflict->local_at - conflict->remote_at) <= peer->uncertainty;
	conflict->loser = fcinfo->nargs <= 6 || PG_ARGISNULL(6) ? (Datum) 0 : PG_GETARG_DATUM(6);

	/* undo() takes it for a row */
	if (conflict->loser != (Datum) 0 && !JB_ROOT_IS_OBJECT(PG_GETARG_JSONB_P(6)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("loser must be a JSON object"),
				 errhint("This function is called by the workers of synchro.")));
}

/*
 * peer_lost(relation, identity, there, there_origin, stamp, origin, loser,
 * name, former, pending, refused): the other node's change has lost.  It is recorded,
 * and the winner queued for that node.
 *
 * identity: of the row here, NULL if it is gone.  name: under which the
 * other's row was found in the log, of the row that had the identity former.
 * pending: that node has not got what the winner has changed.  refused: what
 * that node calls the row, and nobody is called here.
 */
Datum
synchro_peer_lost(PG_FUNCTION_ARGS)
{
	SynchroPeerSession *peer = synchro_peersession();
	const SynchroTable *table = PG_ARGISNULL(0) ? NULL : pushed_table(PG_GETARG_DATUM(0));
	char	   *name = synchro_text_or_null(fcinfo, 7);
	char	   *former = synchro_text_or_null(fcinfo, 8);
	SynchroConflict conflict;

	if (table == NULL || PG_ARGISNULL(2) || PG_ARGISNULL(3) || PG_ARGISNULL(4))
		PG_RETURN_NULL();
	fill_conflict(fcinfo, peer, table, &conflict);
	conflict.name = name;
	synchro_conflict_record(&conflict);
	if (conflict.identity != NULL && !PG_ARGISNULL(10))
		refuse_name(peer, table, conflict.identity, synchro_text_or_null(fcinfo, 10), conflict.local_at, PG_GETARG_UUID_P(3));

	/* a row that the other node has not got yet is on its way there already */
	if ((conflict.identity != NULL || former != NULL) &&
		(name != NULL || PG_ARGISNULL(9) || !PG_GETARG_BOOL(9)))
		synchro_peersession_queue(peer, table, conflict.identity != NULL ? conflict.identity : former, name,
								  conflict.local_at, PG_GETARG_UUID_P(3));
	PG_RETURN_BOOL(true);
}

/*
 * peer_kept(relation, identity, there, there_origin, stamp, origin): the other
 * node's delete has lost against a row changed then and there that refers to
 * this one, see referredsql.c.  It is recorded, and the row is this node's own
 * change, made just after the delete.
 *
 * So it comes back to that node, and wherever else its delete has come or will
 * come; the log here has it, too, so that it is decided here as there.
 */
Datum
synchro_peer_kept(PG_FUNCTION_ARGS)
{
	SynchroPeerSession *peer = synchro_peersession();
	const SynchroTable *table = pushed_table(PG_GETARG_DATUM(0));
	SynchroConflict conflict;
	SynchroBytes identity;

	if (table == NULL)
		PG_RETURN_NULL();
	fill_conflict(fcinfo, peer, table, &conflict);
	synchro_conflict_record(&conflict);
	identity = synchro_identities_encode_text(table, table->identity, table->nidentity, conflict.identity);
	synchro_applied_take_out(table, identity);
	synchro_applied_restate(table, identity, conflict.remote_at);
	synchro_clock_saw(conflict.remote_at + 1);
	PG_RETURN_BOOL(true);
}

/*
 * peer_won(relation, identity, there, there_origin, stamp, origin, loser): the
 * other node's change is newer than one made here, which it does not know of.
 */
Datum
synchro_peer_won(PG_FUNCTION_ARGS)
{
	SynchroPeerSession *peer = synchro_peersession();
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
 * that have been written since, or are only logged, this transaction holds the
 * locks: whoever changed one of them before has committed, so is seen now, and
 * whoever comes later gets a later stamp.
 *
 * A row that was renamed after peer_begin() looked may be one whose name the
 * batch has met at another row since.  If it was renamed after the batch had
 * looked its rows up, nothing has crossed, and the batch is only refused
 * needlessly; that happens once, since it comes again looking.
 */
Datum
synchro_peer_recheck(PG_FUNCTION_ARGS)
{
	SynchroPeerSession *peer = synchro_peersession();

	synchro_peerlock_touched();
	if (synchro_applied_any() && synchro_peerlog_changed_since(peer->begun))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("rows were changed while they were being pushed"),
				 errhint("The batch is tried again.")));
	if (peer->named != NULL && !peer->looks && synchro_peernames_any(peer->begun, &peer->node))
		refuse_renames();
	PG_RETURN_VOID();
}
