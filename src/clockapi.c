/*-------------------------------------------------------------------------
 *
 * clockapi.c
 *	  SQL-callable functions about the clock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "clock.h"
#include "settings.h"
#include "source.h"

PG_FUNCTION_INFO_V1(synchro_peer_clock);
PG_FUNCTION_INFO_V1(synchro_peer_node);

/*
 * peer_clock(node, reference, stratum, clock_difference, uncertainty): the
 * node that pushes to us says what it knows of common time, and we take it if
 * that is better.  Returns what we know then; nulls if we do not know who we
 * are.
 */
Datum
synchro_peer_clock(PG_FUNCTION_ARGS)
{
	char	   *node = DatumGetCString(DirectFunctionCall1(uuid_out, PG_GETARG_DATUM(0)));
	char	   *reference = DatumGetCString(DirectFunctionCall1(uuid_out, PG_GETARG_DATUM(1)));
	int32		stratum = PG_GETARG_INT32(2);
	int64		difference = PG_GETARG_INT64(3);
	int64		uncertainty = PG_GETARG_INT64(4);
	SynchroClock clock;
	TupleDesc	desc;
	Datum		values[6] = {0};
	bool		nulls[6] = {true, true, true, true, true, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (stratum < 0 || stratum == PG_INT32_MAX || uncertainty < 0 ||
		difference < -END_TIMESTAMP || difference > END_TIMESTAMP)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid clock of a node")));
	if (synchro_clock_get(&clock))
	{
		/* a copy of ourselves is not another node */
		if (strcmp(node, clock.node) != 0 &&
			uncertainty <= (int64) synchro_max_clock_uncertainty * 1000)
		{
			synchro_clock_offer(reference, stratum, difference, uncertainty);
			(void) synchro_clock_get(&clock);
		}
		memset(nulls, false, sizeof(nulls));
		values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(clock.node));
		values[1] = DirectFunctionCall1(uuid_in, CStringGetDatum(clock.reference));
		values[2] = Int32GetDatum(clock.stratum);
		values[3] = Int64GetDatum(clock.offset);
		values[4] = Int64GetDatum(clock.uncertainty);
	}
	values[5] = TimestampTzGetDatum(GetCurrentTimestamp());
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
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
