/*-------------------------------------------------------------------------
 *
 * statusapi.c
 *	  SQL-callable functions about the state of remotes: what the views
 *	  remotes and progress show, and pausing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "copyqueue.h"
#include "pending.h"
#include "pushcall.h"
#include "sharedstate.h"
#include "target.h"

PG_FUNCTION_INFO_V1(synchro_pause);
PG_FUNCTION_INFO_V1(synchro_resume);
PG_FUNCTION_INFO_V1(synchro_pusher_status);

enum
{
	STATUS_REMOTE, STATUS_STATE, STATUS_PENDING, STATUS_LAG, STATUS_LAST_ERROR,
	STATUS_LAST_ERROR_AT, STATUS_ATTEMPTS, STATUS_NEXT_ATTEMPT, STATUS_WORKER_PID,
	STATUS_PHASE, STATUS_RELATION, STATUS_ROWS_DONE, STATUS_ROWS_TOTAL,
	STATUS_STARTED_AT, STATUS_COLUMNS
};

/*
 * pause(remote): nothing is pushed there until resume().
 */
Datum
synchro_pause(PG_FUNCTION_ARGS)
{
	synchro_target_pause(NameStr(*PG_GETARG_NAME(0)), true);
	PG_RETURN_VOID();
}

/*
 * resume(remote): take back pause().
 */
Datum
synchro_resume(PG_FUNCTION_ARGS)
{
	synchro_target_pause(NameStr(*PG_GETARG_NAME(0)), false);
	PG_RETURN_VOID();
}

static const char *
state_name(SynchroPusherState state)
{
	switch (state)
	{
		case SYNCHRO_STARTING:
			return "starting";
		case SYNCHRO_CONNECTING:
			return "connecting";
		case SYNCHRO_PUSHING:
			return "pushing";
		case SYNCHRO_IDLE:
			return "idle";
		case SYNCHRO_WAITING:
			return "waiting to try again";
	}
	return "unknown";
}

static void
set_time(Datum *values, bool *nulls, int column, TimestampTz time)
{
	nulls[column] = time == 0;
	values[column] = TimestampTzGetDatum(time);
}

static void
fill_from_pusher(SynchroPusherStatus *status, Datum *values, bool *nulls)
{
	synchro_pushcall_censor(&status->error);
	values[STATUS_STATE] = CStringGetTextDatum(state_name(status->state));
	nulls[STATUS_LAST_ERROR] = status->error.at == 0;
	if (!nulls[STATUS_LAST_ERROR])
		values[STATUS_LAST_ERROR] =
			CStringGetTextDatum(status->error.detail[0] == '\0' ? status->error.message :
								psprintf("%s: %s", status->error.message, status->error.detail));
	set_time(values, nulls, STATUS_LAST_ERROR_AT, status->error.at);
	values[STATUS_ATTEMPTS] = Int32GetDatum(status->attempts);
	set_time(values, nulls, STATUS_NEXT_ATTEMPT, status->next_attempt);
	nulls[STATUS_WORKER_PID] = status->pid == 0;
	values[STATUS_WORKER_PID] = Int32GetDatum(status->pid);
	nulls[STATUS_PHASE] = status->phase[0] == '\0';
	if (!nulls[STATUS_PHASE])
	{
		values[STATUS_PHASE] = CStringGetTextDatum(status->phase);
		nulls[STATUS_RELATION] = !OidIsValid(status->relation);
		values[STATUS_RELATION] = ObjectIdGetDatum(status->relation);
		nulls[STATUS_ROWS_DONE] = nulls[STATUS_ROWS_TOTAL] = false;
		values[STATUS_ROWS_DONE] = Int64GetDatum(status->rows_done);
		values[STATUS_ROWS_TOTAL] = Int64GetDatum(status->rows_total);
		set_time(values, nulls, STATUS_STARTED_AT, status->started_at);
	}
}

/*
 * Of copies, what is queued tells more than the pass that pushes a piece.
 */
static void
fill_from_copy(const SynchroCopy *copy, Datum *values, bool *nulls)
{
	nulls[STATUS_PHASE] = nulls[STATUS_RELATION] = nulls[STATUS_ROWS_DONE] = nulls[STATUS_ROWS_TOTAL] = false;
	values[STATUS_PHASE] = CStringGetTextDatum(copy->rows_sent || copy->empty ? "deleting" : "copying");
	values[STATUS_RELATION] = ObjectIdGetDatum(copy->relid);
	values[STATUS_ROWS_DONE] = Int64GetDatum(copy->rows_done);
	values[STATUS_ROWS_TOTAL] = Int64GetDatum(copy->rows_total);
	set_time(values, nulls, STATUS_STARTED_AT, copy->queued_at);
}

static void
set_lag(Datum *values, bool *nulls, TimestampTz since)
{
	if (since == 0)
		values[STATUS_LAG] = DirectFunctionCall3(interval_in, CStringGetDatum("0"),
												 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	else
		values[STATUS_LAG] = DirectFunctionCall2(timestamp_mi,
												 TimestampTzGetDatum(GetCurrentTimestamp()),
												 TimestampTzGetDatum(since));
	nulls[STATUS_LAG] = false;
}

/*
 * pusher_status(): a row for each remote, for the views remotes and progress.
 */
Datum
synchro_pusher_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, synchro_target_list())
	{
		SynchroTarget *target = lfirst(cell);
		SynchroPusherStatus status;
		SynchroPending pending;
		SynchroCopy copy;
		int64		rows_left;
		bool		served;
		Datum		values[STATUS_COLUMNS] = {0};
		bool		nulls[STATUS_COLUMNS];

		memset(nulls, true, sizeof(nulls));
		nulls[STATUS_REMOTE] = nulls[STATUS_STATE] = nulls[STATUS_PENDING] = nulls[STATUS_ATTEMPTS] = false;
		values[STATUS_REMOTE] = DirectFunctionCall1(namein, CStringGetDatum(target->name));
		served = !target->paused && synchro_shared_status(MyDatabaseId, target->name, &status);
		if (served)
			fill_from_pusher(&status, values, nulls);
		else
		{
			values[STATUS_STATE] = CStringGetTextDatum(target->paused ? "paused" :
													   RecoveryInProgress() ? "standby" : "on call");
			values[STATUS_ATTEMPTS] = Int32GetDatum(0);
		}
		if (served && status.counted)
		{
			pending.entries = status.pending;
			pending.oldest = status.pending > 0 ? status.pending_since : 0;
		}
		else
			synchro_pending_count(target->name, &pending);
		if (synchro_copyqueue_status(target->name, &copy, &rows_left))
			fill_from_copy(&copy, values, nulls);
		values[STATUS_PENDING] = Int64GetDatum(pending.entries + rows_left);
		set_lag(values, nulls, pending.oldest);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
