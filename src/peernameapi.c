/*-------------------------------------------------------------------------
 *
 * peernameapi.c
 *	  SQL-callable functions for other nodes that push to this one, about names
 *	  that change hands: see crosssql.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "applied.h"
#include "clock.h"
#include "identities.h"
#include "peerlog.h"
#include "peernames.h"
#include "peersession.h"

PG_FUNCTION_INFO_V1(synchro_peer_lost_names);
PG_FUNCTION_INFO_V1(synchro_peer_renamed);
PG_FUNCTION_INFO_V1(synchro_peer_renames);
PG_FUNCTION_INFO_V1(synchro_peer_restate);
PG_FUNCTION_INFO_V1(synchro_peer_gone);

/*
 * Return rows as identity and name, and if there is a third column, when they
 * lost that.
 */
static void
return_renamed(FunctionCallInfo fcinfo, List *rows)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *cell;

	foreach(cell, rows)
	{
		const SynchroRenamed *renamed = lfirst(cell);
		Datum		values[3] = {CStringGetTextDatum(renamed->identity), CStringGetTextDatum(renamed->name), Int64GetDatum(renamed->lost)};
		bool		nulls[3] = {0};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/*
 * peer_lost_names(relation): names that rows here have lost, as far as the
 * other node had not been told when it read the batch.
 */
Datum
synchro_peer_lost_names(PG_FUNCTION_ARGS)
{
	SynchroPeerSession *peer = synchro_peersession();
	const SynchroTable *table = synchro_peersession_table(PG_GETARG_DATUM(0));

	InitMaterializedSRF(fcinfo, 0);
	if (table != NULL && peer->named != NULL)
		return_renamed(fcinfo, synchro_peernames_lost(table, peer->named, &peer->node));
	return (Datum) 0;
}

/*
 * peer_renamed(relation, identities): which of these rows the other node calls
 * otherwise than they are called here, and how.
 */
Datum
synchro_peer_renamed(PG_FUNCTION_ARGS)
{
	SynchroPeerSession *peer = synchro_peersession();
	const SynchroTable *table = synchro_peersession_table(PG_GETARG_DATUM(0));
	Datum	   *identities;
	int			count = synchro_text_elements(PG_GETARG_DATUM(1), &identities);
	SynchroBytes *rows = palloc(sizeof(SynchroBytes) * Max(count, 1));

	InitMaterializedSRF(fcinfo, 0);
	if (table == NULL || peer->named == NULL)
		return (Datum) 0;
	for (int i = 0; i < count; i++)
		rows[i] = synchro_identities_encode_text(table, table->identity, table->nidentity, TextDatumGetCString(identities[i]));
	return_renamed(fcinfo, synchro_peernames_renamed(table, rows, count, peer->named, &peer->node));
	return (Datum) 0;
}

/*
 * peer_renames(relation, lost): rows that lost a name at one of these times,
 * given in order, and which.
 */
Datum
synchro_peer_renames(PG_FUNCTION_ARGS)
{
	const SynchroTable *table = synchro_peersession_table(PG_GETARG_DATUM(0));
	Datum	   *elements;
	TimestampTz *lost;
	int			count;

	(void) synchro_peersession();
	InitMaterializedSRF(fcinfo, 0);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, NULL, &count);
	lost = palloc(sizeof(TimestampTz) * Max(count, 1));
	for (int i = 0; i < count; i++)
		lost[i] = DatumGetInt64(elements[i]);
	if (table != NULL)
		return_renamed(fcinfo, synchro_peernames_renames(table, lost, count));
	return (Datum) 0;
}

/*
 * peer_restate(relation, identities, stamps): these rows, as they will be when
 * the batch has been applied, are changes of this node's own, each made just
 * after the given time and after its newest one.
 */
Datum
synchro_peer_restate(PG_FUNCTION_ARGS)
{
	const SynchroTable *table = synchro_peersession_table(PG_GETARG_DATUM(0));
	TimestampTz since = DT_NOEND;
	TimestampTz newest = 0;
	Datum	   *identities;
	Datum	   *times;
	SynchroNewest *rows;
	int			count;
	int			ntimes;

	(void) synchro_peersession();
	if (table == NULL)
		PG_RETURN_VOID();
	count = synchro_text_elements(PG_GETARG_DATUM(1), &identities);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &times, NULL, &ntimes);
	if (ntimes != count)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("arrays of different lengths")));
	rows = palloc0(sizeof(SynchroNewest) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		rows[i].bytes = synchro_identities_encode_text(table, table->identity, table->nidentity, TextDatumGetCString(identities[i]));
		since = Min(since, DatumGetInt64(times[i]));
	}
	(void) synchro_peerlog_newest(table, rows, count, since, NULL);
	for (int i = 0; i < count; i++)
	{
		TimestampTz after = Max(DatumGetInt64(times[i]), rows[i].found ? rows[i].stamp.at : 0);

		synchro_applied_restate(table, rows[i].bytes, after);
		newest = Max(newest, after + 2);
	}
	synchro_clock_saw(newest);
	PG_RETURN_VOID();
}

/*
 * peer_gone(relation, identity, name, after): the other node is to hear that
 * no row here is called so, as of just after the given time.  identity: of a
 * row here that carries the message.
 */
Datum
synchro_peer_gone(PG_FUNCTION_ARGS)
{
	SynchroPeerSession *peer = synchro_peersession();
	const SynchroTable *table = synchro_peersession_table(PG_GETARG_DATUM(0));
	pg_uuid_t	own = synchro_source_find(synchro_sources_load(), 0)->origin;

	if (table != NULL)
		synchro_peersession_queue(peer, table, synchro_text_or_null(fcinfo, 1), synchro_text_or_null(fcinfo, 2), PG_GETARG_INT64(3) + 1, &own);
	PG_RETURN_BOOL(true);
}
