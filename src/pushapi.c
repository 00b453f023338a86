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
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "capturebuffer.h"
#include "changelog.h"
#include "checkpoint.h"
#include "clock.h"
#include "formercontact.h"
#include "localsql.h"
#include "pushcall.h"
#include "reader.h"
#include "sequence.h"
#include "source.h"
#include "synchro.h"

PG_FUNCTION_INFO_V1(synchro_synchronize);
PG_FUNCTION_INFO_V1(synchro_reset);
PG_FUNCTION_INFO_V1(synchro_checkpoint);
PG_FUNCTION_INFO_V1(synchro_set_checkpoint);
PG_FUNCTION_INFO_V1(synchro_peer_setup);
PG_FUNCTION_INFO_V1(synchro_confirm_node);
PG_FUNCTION_INFO_V1(synchro_retry);
PG_FUNCTION_INFO_V1(synchro_log_entries);

#define DONE_MESSAGE	"Synchronization performed successfully."
#define FAILED_MESSAGE	"Some changes could not be applied; see view synchro.failures."
#define NOTHING_MESSAGE "No changes since last synchronization."

/*
 * synchronize(remote): push what is pending; returns a row for each remote.
 */
Datum
synchro_synchronize(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *targets;
	ListCell   *cell;
	SynchroKeptError error;
	SynchroKeptError first_error = {0};

	PreventCommandIfReadOnly("synchronize()");
	PreventCommandDuringRecovery("synchronize()");
	InitMaterializedSRF(fcinfo, 0);
	targets = synchro_pushcall_targets(PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0)));
	if (!PG_ARGISNULL(0) && ((SynchroTarget *) linitial(targets))->paused)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("remote \"%s\" is paused", NameStr(*PG_GETARG_NAME(0))),
				 errhint("Run synchro.resume(%s).", quote_literal_cstr(NameStr(*PG_GETARG_NAME(0))))));
	if (synchro_buffer_pending())
		ereport(NOTICE,
				(errmsg("changes of this transaction are not committed yet, so they are not pushed")));
	foreach(cell, targets)
	{
		SynchroTarget *target = lfirst(cell);
		SynchroPassResult result = {{0}};
		Datum		values[7];
		bool		nulls[7] = {0};

		/* one remote that fails does not keep the others waiting */
		if (!synchro_pushcall(target, &result, &error))
		{
			if (list_length(targets) > 1)
				ereport(WARNING,
						(errcode(error.sqlerrcode),
						 errmsg("could not push to remote \"%s\"", target->name)));
			if (first_error.sqlerrcode == 0)
				first_error = error;
			continue;
		}
		values[0] = DirectFunctionCall1(namein, CStringGetDatum(target->name));
		values[1] = Int64GetDatum(result.counts.inserted);
		values[2] = Int64GetDatum(result.counts.updated);
		values[3] = Int64GetDatum(result.counts.deleted);
		values[4] = Int64GetDatum(result.counts.skipped);
		values[5] = Int64GetDatum(result.counts.failed);
		values[6] = CStringGetTextDatum(result.counts.failed > 0 ? FAILED_MESSAGE :
										result.had_changes ? DONE_MESSAGE : NOTHING_MESSAGE);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	if (first_error.sqlerrcode != 0)
		synchro_pushcall_report(&first_error);
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
	foreach(cell, synchro_pushcall_targets(PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0))))
		synchro_position_rebase(((SynchroTarget *) lfirst(cell))->name, !keep_references, true, true);
	PopActiveSnapshot();
	PG_RETURN_VOID();
}

/*
 * retry(remote): what has failed is due; returns how much.
 */
Datum
synchro_retry(PG_FUNCTION_ARGS)
{
	Oid			type = TEXTOID;
	Datum		value = (Datum) 0;
	bool		isnull = PG_ARGISNULL(0);
	SynchroSqlScope scope;
	uint64		count;

	if (!isnull)
		value = CStringGetTextDatum(synchro_target_get(NameStr(*PG_GETARG_NAME(0)), false)->name);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	count = synchro_sql_run("UPDATE synchro.parked SET next_attempt = clock_timestamp() WHERE server = $1::name OR $1 IS NULL",
							1, &type, &value, &isnull);
	count += synchro_sql_run("UPDATE synchro.stalled SET next_attempt = clock_timestamp() WHERE server = $1::name OR $1 IS NULL",
							 1, &type, &value, &isnull);
	synchro_sql_close(&scope);
	synchro_shared_retry_at_commit();
	PG_RETURN_INT64((int64) count);
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
	HTAB	   *committed_since;	/* transactions that wrote rows before, too */
} Backlogger;

static void
note_late_commit(const SynchroLogRow *row, void *arg)
{
	const Backlogger *backlogger = arg;

	if (row->relation == SYNCHRO_STAMP_RELATION && row->changed_at >= backlogger->at)
		(void) hash_search(backlogger->committed_since, &row->txid, HASH_ENTER, NULL);
}

static void
add_to_backlog(const SynchroLogRow *row, void *arg)
{
	const Backlogger *backlogger = arg;
	Oid			types[] = {TEXTOID, OIDOID, INT4OID, TIMESTAMPTZOID, INT4OID, BYTEAOID};
	Datum		values[lengthof(types)];
	SynchroSqlScope scope;

	if (row->relation == SYNCHRO_STAMP_RELATION ||
		(row->changed_at < backlogger->at &&
		 hash_search(backlogger->committed_since, &row->txid, HASH_FIND, NULL) == NULL))
		return;
	values[0] = CStringGetTextDatum(backlogger->server);
	values[1] = ObjectIdGetDatum(row->relation);
	values[2] = Int32GetDatum((int32) row->layout);
	values[3] = TimestampTzGetDatum(row->changed_at);
	values[4] = Int32GetDatum(row->part);
	values[5] = synchro_key_sealed(row->keys, row->relation, row->layout);

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
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(1);
	Backlogger	backlogger = {target->name, at};
	HASHCTL		ctl = {0};
	SynchroSqlScope scope;

	ctl.keysize = ctl.entrysize = sizeof(uint64);
	ctl.hcxt = CurrentMemoryContext;
	backlogger.committed_since = hash_create("synchro late commits", 64, &ctl,
											 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	/* the caller speaks of his server's clock, the log of common time */
	if (!TIMESTAMP_NOT_FINITE(at))
		backlogger.at = at + synchro_clock_offset();
	synchro_log_begin_latest();

	/* now() is not past, though time has gone on since the transaction began */
	synchro_position_rebase(target->name, false, at >= GetCurrentTimestamp(), at >= GetCurrentTransactionStartTimestamp());
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_log_scan(NULL, note_late_commit, &backlogger);
	synchro_log_scan(NULL, add_to_backlog, &backlogger);
	synchro_sql_close(&scope);
	synchro_log_end_latest();
	PG_RETURN_VOID();
}

/*
 * confirm_node(): let this database push, as a node of its own.  Remotes are
 * met as at the first contact, and told whose references are ours.  Those that
 * were set back get again what they have lost, see restored.c.
 */
Datum
synchro_confirm_node(PG_FUNCTION_ARGS)
{
	SynchroSqlScope scope;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_former_note(NULL);

	/* of two calls the later one has to see the other's id */
	LockRelationOid(synchro_own_relation("node_identity", false), ShareRowExclusiveLock);
	synchro_sql_run("WITH gone AS (DELETE FROM synchro.node_identity)"
					" INSERT INTO synchro.node_identity (previous, system_identifier, database)"
					" SELECT " SYNCHRO_KNOWN_AS ", c.system_identifier, d.oid FROM pg_control_system() c, pg_database d"
					" WHERE d.datname = current_database()",
					0, NULL, NULL, NULL);
	synchro_sql_run("UPDATE synchro.remote_state SET acknowledged = NULL, attempted = gen_random_uuid()",
					0, NULL, NULL, NULL);

	/* of a database that was restored from a dump, only the remotes are there */
	synchro_sql_run("INSERT INTO synchro.remote_state (server, attempted, snapshot, keys_snapshot, checkpoint)"
					" SELECT server, gen_random_uuid(), '1:1:', '1:1:', now() FROM synchro.remote ON CONFLICT DO NOTHING",
					0, NULL, NULL, NULL);
	synchro_sql_close(&scope);

	/* pg_upgrade has made them, and the event triggers after them */
	synchro_target_adopt_all();

	/* perhaps on another machine, where the offset that was copied is wrong */
	synchro_clock_forget();
	synchro_shared_look_at_commit(MyDatabaseId);
	PG_RETURN_VOID();
}

/*
 * Append a text as a string in dollars, by a tag that does not occur in it:
 * names are in it that others have chosen.
 */
static void
append_in_dollars(StringInfo sql, const char *text)
{
	StringInfoData tag;

	initStringInfo(&tag);
	appendStringInfoString(&tag, "$synchro");
	while (strstr(text, tag.data) != NULL)
		appendStringInfoChar(&tag, '_');
	appendStringInfo(sql, "%s$%s%s$", tag.data, text, tag.data);
}

/*
 * peer_setup(): SQL for an administrator of a remote whose user may not
 * create our schema, to be run by psql.
 */
Datum
synchro_peer_setup(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	StringInfoData sql;
	StringInfoData body;
	SynchroSqlScope scope;
	char	   *roles = "'PUBLIC'";
	char	   *tables = "";

	initStringInfo(&sql);
	initStringInfo(&body);
	appendStringInfoString(&sql, "\\set ON_ERROR_STOP on\n");
	synchro_peer_tables(&sql, true);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);

	/* the roles that our remotes are mapped to, and tables with all parents */
	if (synchro_sql_run("SELECT coalesce(string_agg(DISTINCT quote_literal(quote_ident(o.option_value)), ', '), quote_literal('PUBLIC'))"
						" FROM synchro.remote r JOIN pg_foreign_server s ON s.srvname = r.server"
						" JOIN pg_user_mapping m ON m.umserver = s.oid"
						" CROSS JOIN pg_options_to_table(m.umoptions) o WHERE o.option_name = 'user'",
						0, NULL, NULL, NULL) == 1)
		roles = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	if (synchro_sql_run("WITH RECURSIVE t AS (SELECT relation::oid AS id FROM synchro.watched UNION"
						" SELECT c.confrelid FROM t JOIN pg_constraint c ON c.conrelid = t.id AND c.contype = 'f')"
						" SELECT coalesce(string_agg(quote_literal(format('%I.%I', n.nspname, c.relname)), ', ' ORDER BY n.nspname, c.relname), '')"
						" FROM t JOIN pg_class c ON c.oid = t.id JOIN pg_namespace n ON n.oid = c.relnamespace",
						0, NULL, NULL, NULL) == 1)
		tables = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	appendStringInfo(&body,
					 "\n"
					 "DECLARE\n"
					 "	pusher text;\n"
					 "	watched regclass;\n"
					 "	sequence text;\n"
					 "	stranger name;\n"
					 "BEGIN\n"
					 "	FOR stranger IN " SYNCHRO_PEER_STRANGERS " LOOP\n"
					 "		RAISE WARNING 'something of schema " SYNCHRO_PEER_SCHEMA " belongs to role %%', quote_ident(stranger)\n"
					 "			USING DETAIL = 'Triggers and indexes of his would run as whoever pushes.',\n"
					 "			HINT = 'Where nothing was pushed yet, drop the schema and run this again.';\n"
					 "	END LOOP;\n"
					 "	FOREACH pusher IN ARRAY ARRAY[%s] LOOP\n"
					 "		EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %%I TO %%s', current_database(), pusher);\n"
					 "		EXECUTE format('GRANT USAGE ON SCHEMA " SYNCHRO_PEER_SCHEMA " TO %%s', pusher);\n"
					 "		EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " SYNCHRO_PEER_SCHEMA " TO %%s', pusher);\n"
					 "		FOR watched IN SELECT to_regclass(n) FROM unnest(ARRAY[%s]::text[]) n WHERE to_regclass(n) IS NOT NULL LOOP\n"
					 "			EXECUTE format('GRANT USAGE ON SCHEMA %%s TO %%s',\n"
					 "				(SELECT relnamespace::regnamespace FROM pg_class WHERE oid = watched), pusher);\n"
					 "			EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %%s TO %%s', watched, pusher);\n"
					 "			FOR sequence IN SELECT pg_get_serial_sequence(watched::text, attname) FROM pg_attribute\n"
					 "				WHERE attrelid = watched AND attnum > 0 AND NOT attisdropped LOOP\n"
					 "				CONTINUE WHEN sequence IS NULL;\n"
					 "				EXECUTE format('GRANT USAGE ON SEQUENCE %%s TO %%s', sequence, pusher);\n"
					 "			END LOOP;\n"
					 "		END LOOP;\n"
					 "	END LOOP;\n"
					 "END\n", roles, tables);
	appendStringInfoString(&sql, "DO ");
	append_in_dollars(&sql, body.data);
	appendStringInfoString(&sql, ";\n");
	synchro_sql_close(&scope);
	PG_RETURN_TEXT_P(cstring_to_text(sql.data));
}

/* hands the log's records to a tuplestore */
typedef struct LogLister
{
	ReturnSetInfo *rsinfo;
	SynchroSources *sources;
	Oid			caller;
	Oid			relid;			/* of the last row */
	bool		visible;		/* may the caller see that table's keys? */
	MemoryContext record_context;	/* reset with each record: there may be
									 * millions */
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
	MemoryContext old;

	if (row->relation == SYNCHRO_STAMP_RELATION)
		return;
	if (row->relation != lister->relid)
	{
		lister->relid = row->relation;
		lister->visible = synchro_reader_may_see(lister->caller, row->relation);
	}
	if (!lister->visible)
		return;
	table = synchro_table_get(row->relation, true);
	readable = table != NULL && SYNCHRO_LAYOUT_IDENTITY(table->layout) == SYNCHRO_LAYOUT_IDENTITY(row->layout);
	old = MemoryContextSwitchTo(lister->record_context);
	while (pos < end)
	{
		SynchroKeyRecord record;
		Datum		values[6];
		bool		nulls[6] = {0};

		MemoryContextReset(lister->record_context);

		/* the key of a table that is gone cannot be read any more */
		if (readable)
			pos = synchro_key_next(pos, end, table, row->layout, &record);
		else
			pos = end;
		if (readable && record.refused)
			continue;
		values[0] = TimestampTzGetDatum(row->changed_at);
		values[1] = ObjectIdGetDatum(row->relation);
		nulls[2] = nulls[3] = !readable;
		if (readable)
		{
			values[2] = CStringGetTextDatum(synchro_key_text(record.identity, table,
															 table->identity, table->nidentity));
			values[3] = CStringGetTextDatum(operations[record.op]);
		}
		nulls[4] = !readable || record.stamp.source == 0;
		if (!nulls[4])
			values[4] = UUIDPGetDatum(&synchro_source_find(lister->sources, record.stamp.source)->origin);
		if (readable && record.stamp.at != 0)
			values[0] = TimestampTzGetDatum(record.stamp.at);
		values[5] = UInt64GetDatum(row->txid);
		tuplestore_putvalues(lister->rsinfo->setResult, lister->rsinfo->setDesc, values, nulls);
	}
	MemoryContextSwitchTo(old);
}

/*
 * log_entries(): the log as text, for the view changes; of tables that the
 * caller may read.
 */
Datum
synchro_log_entries(PG_FUNCTION_ARGS)
{
	LogLister	lister = {(ReturnSetInfo *) fcinfo->resultinfo};
	SynchroSqlScope scope;

	InitMaterializedSRF(fcinfo, 0);
	lister.sources = synchro_sources_load();
	lister.caller = GetUserId();
	lister.record_context = AllocSetContextCreate(CurrentMemoryContext, "synchro log record", ALLOCSET_DEFAULT_SIZES);
	synchro_log_begin_latest();
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_log_scan(NULL, list_log_row, &lister);
	synchro_sql_close(&scope);
	synchro_log_end_latest();
	return (Datum) 0;
}
