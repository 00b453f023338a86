/*-------------------------------------------------------------------------
 *
 * pushapi.c
 *	  SQL-callable functions about pushing and checkpoints.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "capture.h"
#include "changelog.h"
#include "checkpoint.h"
#include "localsql.h"
#include "pushcall.h"
#include "synchro.h"

PG_FUNCTION_INFO_V1(synchro_synchronize);
PG_FUNCTION_INFO_V1(synchro_reset);
PG_FUNCTION_INFO_V1(synchro_checkpoint);
PG_FUNCTION_INFO_V1(synchro_set_checkpoint);
PG_FUNCTION_INFO_V1(synchro_peer_setup);
PG_FUNCTION_INFO_V1(synchro_log_entries);

#define DONE_MESSAGE	"Synchronization performed successfully."
#define NOTHING_MESSAGE "No changes since last synchronization."

/*
 * The remotes that an argument means: the one named, or all that are not
 * paused.
 */
static List *
targets_of(FunctionCallInfo fcinfo)
{
	List	   *all;
	List	   *result = NIL;
	ListCell   *cell;

	if (!PG_ARGISNULL(0))
		return list_make1(synchro_target_get(NameStr(*PG_GETARG_NAME(0)), false));
	all = synchro_target_list();
	if (all == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no remote to synchronize with"),
				 errhint("Create a foreign server of %s and run synchro.add_remote() for it.", SYNCHRO_FDW)));
	foreach(cell, all)
		if (!((SynchroTarget *) lfirst(cell))->paused)
			result = lappend(result, lfirst(cell));
	return result;
}

/*
 * synchronize(remote): push what is pending; returns a row for each remote.
 */
Datum
synchro_synchronize(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *targets;
	ListCell   *cell;

	PreventCommandIfReadOnly("synchronize()");
	PreventCommandDuringRecovery("synchronize()");
	InitMaterializedSRF(fcinfo, 0);
	targets = targets_of(fcinfo);
	if (synchro_capture_pending())
		ereport(NOTICE,
				(errmsg("changes of this transaction are not committed yet, so they are not pushed")));
	foreach(cell, targets)
	{
		SynchroTarget *target = lfirst(cell);
		SynchroPassResult result = {{0}};
		Datum		values[7];
		bool		nulls[7] = {0};

		synchro_pushcall(target, &result);
		values[0] = DirectFunctionCall1(namein, CStringGetDatum(target->name));
		values[1] = Int64GetDatum(result.counts.inserted);
		values[2] = Int64GetDatum(result.counts.updated);
		values[3] = Int64GetDatum(result.counts.deleted);
		values[4] = Int64GetDatum(result.counts.skipped);
		values[5] = Int64GetDatum(result.counts.failed);
		values[6] = CStringGetTextDatum(result.had_changes ? DONE_MESSAGE : NOTHING_MESSAGE);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * reset(remote, keep_references): forget what is pending; the checkpoint is
 * now.
 */
Datum
synchro_reset(PG_FUNCTION_ARGS)
{
	ListCell   *cell;
	bool		keep_references = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);

	PushActiveSnapshot(GetLatestSnapshot());
	foreach(cell, targets_of(fcinfo))
		synchro_position_rebase(((SynchroTarget *) lfirst(cell))->name, !keep_references);
	PopActiveSnapshot();
	PG_RETURN_VOID();
}

/*
 * checkpoint(remote): when the remote was brought where it is.
 */
Datum
synchro_checkpoint(PG_FUNCTION_ARGS)
{
	SynchroTarget *target = synchro_target_get(NameStr(*PG_GETARG_NAME(0)), false);
	SynchroSqlScope scope;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(target->name);
	Datum		result;
	bool		isnull;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("SELECT checkpoint FROM synchro.remote_state WHERE server = $1::name",
						1, &type, &value, NULL) != 1)
		elog(ERROR, "remote \"%s\" has no state", target->name);
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	synchro_sql_close(&scope);
	PG_RETURN_DATUM(result);
}

/* copies log rows that are young enough into a remote's backlog */
typedef struct Backlogger
{
	const char *server;
	TimestampTz at;
} Backlogger;

static void
add_to_backlog(const SynchroLogRow *row, void *arg)
{
	const Backlogger *backlogger = arg;
	Oid			types[] = {TEXTOID, OIDOID, INT4OID, TIMESTAMPTZOID, INT4OID, BYTEAOID};
	Datum		values[lengthof(types)];
	SynchroSqlScope scope;

	if (row->relation == SYNCHRO_STAMP_RELATION || row->changed_at < backlogger->at)
		return;
	values[0] = CStringGetTextDatum(backlogger->server);
	values[1] = ObjectIdGetDatum(row->relation);
	values[2] = Int32GetDatum((int32) row->layout);
	values[3] = TimestampTzGetDatum(row->changed_at);
	values[4] = Int32GetDatum(row->part);
	values[5] = PointerGetDatum(cstring_to_text_with_len(row->keys.data, row->keys.len));

	/* within the query that calls us: that one's memory goes with the end of another in the same scope */
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("INSERT INTO synchro.backlog (server, relation, layout, changed_at, part, keys)"
					" VALUES ($1::name, $2, $3, $4, $5, $6)", lengthof(types), types, values, NULL);
	synchro_sql_close(&scope);
}

/*
 * set_checkpoint(remote, at): send again what has changed since then, and
 * nothing else that is pending.
 */
Datum
synchro_set_checkpoint(PG_FUNCTION_ARGS)
{
	SynchroTarget *target = synchro_target_get(NameStr(*PG_GETARG_NAME(0)), false);
	Backlogger	backlogger = {target->name, PG_GETARG_TIMESTAMPTZ(1)};
	SynchroSqlScope scope;

	PushActiveSnapshot(GetLatestSnapshot());
	synchro_position_rebase(target->name, false);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_log_scan(NULL, add_to_backlog, &backlogger);
	synchro_sql_close(&scope);
	PopActiveSnapshot();
	PG_RETURN_VOID();
}

/*
 * peer_setup(): SQL for an administrator of a remote whose user may not
 * create our schema.
 */
Datum
synchro_peer_setup(PG_FUNCTION_ARGS)
{
	StringInfoData sql;
	SynchroSqlScope scope;
	uint64		n;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "-- in place of PUBLIC, name the role that pushes\n");
	synchro_peer_tables(&sql);
	appendStringInfoString(&sql,
						   "GRANT USAGE ON SCHEMA " SYNCHRO_PEER_SCHEMA " TO PUBLIC;\n"
						   "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " SYNCHRO_PEER_SCHEMA " TO PUBLIC;\n");
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	n = synchro_sql_run("SELECT format('GRANT USAGE ON SCHEMA %1$I TO PUBLIC;"
						"\nGRANT SELECT, INSERT, UPDATE, DELETE ON %1$I.%2$I TO PUBLIC;', n.nspname, c.relname),"
						" (SELECT string_agg(format(E'\\nGRANT USAGE ON SEQUENCE %s TO PUBLIC;', s), '') FROM"
						"  (SELECT pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname) AS s"
						"   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) x WHERE s IS NOT NULL)"
						" FROM synchro.watched w JOIN pg_class c ON c.oid = w.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
						" ORDER BY n.nspname, c.relname", 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *sequences = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);

		appendStringInfo(&sql, "%s%s\n", SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1),
						 sequences != NULL ? sequences : "");
	}
	synchro_sql_close(&scope);
	PG_RETURN_TEXT_P(cstring_to_text(sql.data));
}

/* hands the log's records to a tuplestore */
typedef struct LogLister
{
	ReturnSetInfo *rsinfo;
} LogLister;

static void
list_log_row(const SynchroLogRow *row, void *arg)
{
	static const char *const operations[] = {"insert", "update", "delete"};
	LogLister  *lister = arg;
	const SynchroTable *table;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;
	bool		readable;

	if (row->relation == SYNCHRO_STAMP_RELATION)
		return;
	table = synchro_table_get(row->relation, true);
	readable = table != NULL && SYNCHRO_LAYOUT_IDENTITY(table->layout) == SYNCHRO_LAYOUT_IDENTITY(row->layout);
	while (pos < end)
	{
		SynchroKeyRecord record;
		Datum		values[6];
		bool		nulls[6] = {0};

		/* the key of a table that is gone cannot be read any more */
		if (readable)
			pos = synchro_key_next(pos, end, table->nidentity,
								   SYNCHRO_LAYOUT_NKEY(row->layout), &record);
		else
			pos = end;
		values[0] = TimestampTzGetDatum(row->changed_at);
		values[1] = ObjectIdGetDatum(row->relation);
		nulls[2] = nulls[3] = !readable;
		if (readable)
		{
			values[2] = CStringGetTextDatum(synchro_key_text(record.identity, table,
															 table->identity, table->nidentity));
			values[3] = CStringGetTextDatum(operations[record.op]);
		}
		nulls[4] = true;
		values[5] = UInt64GetDatum(row->txid);
		tuplestore_putvalues(lister->rsinfo->setResult, lister->rsinfo->setDesc, values, nulls);
	}
}

/*
 * log_entries(): the log as text, for the view changes.
 */
Datum
synchro_log_entries(PG_FUNCTION_ARGS)
{
	LogLister	lister = {(ReturnSetInfo *) fcinfo->resultinfo};
	SynchroSqlScope scope;

	InitMaterializedSRF(fcinfo, 0);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_log_scan(NULL, list_log_row, &lister);
	synchro_sql_close(&scope);
	return (Datum) 0;
}
