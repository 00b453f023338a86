/*-------------------------------------------------------------------------
 *
 * checkthere.c
 *	  What is in the way of syncing on a remote.
 *
 * The remote is looked at in the caller's backend, by a connection of its own
 * that lasts as long as that takes, as the user that changes are pushed as.
 * Nothing is written there.  What ends the connection, or a query, is a finding,
 * too: so everything about a remote runs in a subtransaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "check.h"
#include "checkpoint.h"
#include "checksql.h"
#include "localsql.h"
#include "remote.h"
#include "settings.h"

/* an answer is delayed by chance, so the clock is asked for more than once */
#define CLOCK_ROUNDS	8

typedef struct Checked
{
	SynchroFindings *findings;
	const SynchroTarget *target;
	SynchroRemote *remote;
	const char *tables;
	char	   *user;			/* whom we are there, as SQL writes it */
	bool		is_peer;		/* it runs synchro, too, and we may push */
} Checked;

/*
 * Add what is to be mended on the remote: such a fix says so at its beginning.
 */
static void
add_there(const Checked *checked, SynchroSeverity severity, Oid relation, const char *problem, const char *fix)
{
	const char *name = checked->target->name;
	char	   *comment = psprintf("-- on remote \"%s\"", name);

	/* a line break in its name would end the comment */
	for (char *c = comment; *c != '\0'; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	synchro_finding_add(checked->findings, severity, relation,
						psprintf("on remote \"%s\": %s", name, problem), psprintf("%s\n%s", comment, fix));
}

/*
 * Is the schema there that positions are kept in, or may we make it?
 */
static void
check_schema(Checked *checked)
{
	SynchroRows *rows = synchro_remote_query(checked->remote,
											 "SELECT quote_ident(current_user), to_regnamespace('" SYNCHRO_PEER_SCHEMA "') IS NOT NULL"
											 " OR has_database_privilege(current_database(), 'CREATE'),"
											 " coalesce(has_function_privilege(f.oid, 'EXECUTE'), false), f.oid IS NOT NULL"
											 " FROM (VALUES (1)) v LEFT JOIN " SYNCHRO_PEER_NODE_FUNCTION " f ON true", 0, NULL);
	StringInfoData fix;

	checked->user = synchro_value(rows, 0, 0);
	checked->is_peer = synchro_value(rows, 0, 2)[0] == 't';

	/* allow_peer(), which another finding advises then, makes it, too */
	if (synchro_value(rows, 0, 1)[0] == 't' || (synchro_value(rows, 0, 3)[0] == 't' && !checked->is_peer))
		return;
	initStringInfo(&fix);
	synchro_peer_tables(&fix, false);
	appendStringInfo(&fix, "GRANT USAGE ON SCHEMA " SYNCHRO_PEER_SCHEMA " TO %s;\n"
					 "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " SYNCHRO_PEER_SCHEMA " TO %s;",
					 checked->user, checked->user);
	add_there(checked, SYNCHRO_ERROR, InvalidOid,
			  psprintf("there is no schema \"" SYNCHRO_PEER_SCHEMA "\", and role %s may not create it", checked->user), fix.data);
}

/*
 * Is the way to the clock of another node short enough?
 */
static void
check_clock(const Checked *checked)
{
	int64		most = (int64) synchro_max_clock_uncertainty * 1000;
	int64		uncertainty = PG_INT64_MAX;

	for (int i = 0; i < CLOCK_ROUNDS && uncertainty > most; i++)
	{
		TimestampTz sent = GetCurrentTimestamp();

		(void) synchro_remote_query(checked->remote, "SELECT clock_timestamp()", 0, NULL);
		uncertainty = Min(uncertainty, (GetCurrentTimestamp() - sent) / 2 + 1);
	}
	if (uncertainty > most)
		synchro_finding_add(checked->findings, SYNCHRO_ERROR, InvalidOid,
							psprintf("the clock of remote \"%s\" is known to within %.3f seconds only, synchro.max_clock_uncertainty is %.3f seconds",
									 checked->target->name, uncertainty / 1000000.0, most / 1000000.0),
							psprintf("LOAD 'synchro';\nALTER SYSTEM SET synchro.max_clock_uncertainty = '%lldms';\nSELECT pg_reload_conf();",
									 (long long) (uncertainty / 500 + 1)));
}

/*
 * What is to be done here because of what a remote has said.  The SQL is made of
 * what is known here alone: whoever has the remote decides what it says.
 *
 * trigger: of that table, if one of its is concerned.
 */
static const char *
fix_here(const Checked *checked, Oid relid, const char *trigger)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[] = {TEXTOID, OIDOID, TEXTOID};
	Datum		values[lengthof(types)];
	SynchroSqlScope scope;
	const char *fix = "-- there is no such trigger here any more";

	if (trigger == NULL)
		return "-- let the foreign server lead to the primary";
	values[0] = CStringGetTextDatum(checked->tables);
	values[1] = ObjectIdGetDatum(relid);
	values[2] = CStringGetTextDatum(trigger);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run(synchro_check_trigger_sql(), lengthof(types), types, values, NULL) > 0)
		fix = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	synchro_sql_close(&scope);
	return fix;
}

static void
run_probes(const Checked *checked, SynchroCheckSide side)
{
	const char *params[] = {checked->tables, checked->target->name};

	for (const char *const *probe = synchro_check_probes(side); *probe != NULL; probe++)
	{
		SynchroRows *rows = synchro_remote_query(checked->remote, *probe, lengthof(params), params);

		for (int i = 0; i < rows->nrows; i++)
		{
			SynchroSeverity severity = synchro_finding_severity(synchro_value(rows, i, PROBE_SEVERITY));
			char	   *relation = synchro_nullable(rows, i, PROBE_RELATION);
			Oid			relid = relation != NULL ? (Oid) strtoul(relation, NULL, 10) : InvalidOid;

			if (synchro_value(rows, i, PROBE_FIX_IS_HERE)[0] == 't')
				add_there(checked, severity, relid, synchro_value(rows, i, PROBE_PROBLEM), synchro_value(rows, i, PROBE_FIX));
			else
				synchro_finding_add(checked->findings, severity, relid,
									psprintf("on remote \"%s\": %s", checked->target->name, synchro_value(rows, i, PROBE_PROBLEM)),
									fix_here(checked, relid, synchro_nullable(rows, i, PROBE_FIX)));
		}
	}
}

static void
check_remote(Checked *checked)
{
	const char **keywords;
	const char **values;
	bool		password_required;

	synchro_target_conninfo(checked->target, &keywords, &values, &password_required);
	checked->remote = synchro_remote_open(checked->target->name, keywords, values, password_required);
	PG_TRY();
	{
		check_schema(checked);
		run_probes(checked, SYNCHRO_CHECK_THERE);
		if (checked->is_peer)
		{
			run_probes(checked, SYNCHRO_CHECK_PEER);
			check_clock(checked);
		}
	}
	PG_FINALLY();
	{
		synchro_remote_close(checked->remote);
	}
	PG_END_TRY();
}

/*
 * An error's hint as an SQL comment.
 */
static char *
comment_of(const ErrorData *error)
{
	StringInfoData fix;
	const char *hint = error->hint;

	if (hint == NULL)
		hint = ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION ?
			"See that the remote is up, and that its pg_hba.conf and the foreign server's options let this server in." :
			"Mend what the remote says, and check again.";
	initStringInfo(&fix);
	appendStringInfoString(&fix, "-- ");
	for (const char *c = hint; *c != '\0'; c++)
	{
		appendStringInfoChar(&fix, *c != '\r' ? *c : ' ');
		if (*c == '\n')
			appendStringInfoString(&fix, "-- ");
	}
	return fix.data;
}

/*
 * Look for everything on a remote.
 *
 * tables: what synchro_check_here() has returned.  A remote that cannot be
 * reached is a finding, no error.
 */
void
synchro_check_there(SynchroFindings *findings, const SynchroTarget *target, const char *tables)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Checked    *checked = palloc0(sizeof(Checked));

	checked->findings = findings;
	checked->target = target;
	checked->tables = tables;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		check_remote(checked);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = synchro_undo_subtransaction(context, owner);

		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);

		/* that there is no user mapping has been found here already, with SQL to make one */
		if (checked->remote != NULL || error->sqlerrcode != ERRCODE_UNDEFINED_OBJECT)
			synchro_finding_add(findings, SYNCHRO_ERROR, InvalidOid,
								error->detail == NULL ? error->message : psprintf("%s: %s", error->message, error->detail),
								comment_of(error));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}
