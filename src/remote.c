/*-------------------------------------------------------------------------
 *
 * remote.c
 *	  The session on a remote: pinned, and scripts run in it.
 *
 * Every wait is for the socket and for our latch, so that a worker ends at
 * once when it is told to, whatever the network does.  A connection whose
 * transaction state is unknown is closed, never used again.
 *
 * A peer's host that is gone is noticed by TCP itself, see the options in
 * remoteconnect.c.  A proxy in between answers for it, though: so when the
 * peer has been silent for long, which a long statement may be as well, we try
 * whether it still takes connections.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq-fe.h"
#include "libpq/libpq-be-fe-helpers.h"
#include "mb/pg_wchar.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "remote.h"
#include "remoteconnect.h"
#include "settings.h"

struct SynchroRemote
{
	MemoryContext context;
	char	   *name;			/* of the foreign server */
	char	   *mark;			/* see synchro_remote_mark() */
	const char **keywords;		/* what we connected with */
	const char **values;
	PGconn	   *conn;
	const char *undo;			/* what undoes a script that has failed */
	TimestampTz heard;			/* when the peer last gave a sign of life */
	TimestampTz sent;			/* when the last statement was sent */
	int64		round_trip;		/* us that the fastest has taken; 0: none yet */
	int64		copied;			/* rows of the last COPY */
};

/*
 * A peer that has been silent for so many times connect_timeout while we wait
 * for it is asked whether it is there, by a second connection.
 */
#define SILENCE_FACTOR 3

/* a round trip that costs less than to flush WAL, in microseconds */
#define NEAR	1000

/* one that costs more than anything that is asked on the way; likewise */
#define FAR		10000

/*
 * Wait until the socket is ready for what we want to do, or the latch is set.
 */
static void
wait_for_socket(SynchroRemote *remote, int events, uint32 wait_event)
{
	long		patience = SILENCE_FACTOR * synchro_connect_time(remote->keywords, remote->values);
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													   TimestampTzPlusMilliseconds(remote->heard, patience));
	int			rc = synchro_connect_wait(remote->conn, events, left, wait_event);

	if (rc & WL_SOCKET_READABLE)
		PQconsumeInput(remote->conn);
	if (rc & WL_SOCKET_MASK)
		remote->heard = GetCurrentTimestamp();
	if (!TimestampDifferenceExceeds(remote->heard, GetCurrentTimestamp(), patience))
		return;
	if (!synchro_connect_answers(remote->conn, remote->keywords, remote->values))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("remote \"%s\" does not answer any more", remote->name),
				 errdetail("It has been silent for %ld seconds, and takes no new connection.", patience / 1000)));
	remote->heard = GetCurrentTimestamp();
}

/*
 * PQgetResult() that waits in our way.
 */
static PGresult *
get_result(SynchroRemote *remote)
{
	while (PQisBusy(remote->conn) && PQstatus(remote->conn) == CONNECTION_OK)
		wait_for_socket(remote, WL_SOCKET_READABLE, synchro_wait_result());
	return PQgetResult(remote->conn);
}

/*
 * Pin what the session's SQL and its text forms of values depend on.
 */
static void
pin_session(SynchroRemote *remote)
{
	char	   *sql = psprintf("SET search_path = pg_catalog, pg_temp;"
							   "SET datestyle = 'ISO, YMD';"
							   "SET intervalstyle = postgres;"
							   "SET timezone = 'UTC';"
							   "SET extra_float_digits = 3;"
							   "SET bytea_output = hex;"
							   "SET xmloption = content;"
							   "SET array_nulls = on;"
							   "SET quote_all_identifiers = off;"
							   "SET lc_monetary = 'C';"
							   "SET standard_conforming_strings = on;"
							   "SET row_security = off;"
							   "SET default_transaction_isolation = 'read committed';"
							   "SET default_transaction_read_only = off;"
							   "SET idle_in_transaction_session_timeout = 0;"
							   "SET client_min_messages = warning;"
							   "SET jit = off;"
							   "SET default_table_access_method = heap;"
							   "SET statement_timeout = %d;"
							   /* what is acknowledged must survive a crash over there */
							   "SELECT set_config('synchronous_commit', 'local', false)"
							   " WHERE current_setting('synchronous_commit') = 'off';"
							   /* not every version has these */
							   "SELECT set_config(name, '0', false) FROM pg_settings"
							   " WHERE name IN ('idle_session_timeout', 'transaction_timeout');"
							   /* a session whose client is gone must not hold our locks for hours */
							   "SELECT set_config(name, value, false) FROM pg_settings"
							   " JOIN (VALUES ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'),"
							   " ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '25000')) v (name, value) USING (name)",
							   synchro_statement_timeout);
	SynchroRemoteError *error = synchro_remote_script(remote, sql, NIL, NULL);

	if (error != NULL)
		synchro_remote_report(remote, error, "while preparing the session");
}

/*
 * The peer's notices go to our log at a level where they do not disturb.
 */
static void
receive_notice(void *arg, const char *message)
{
	SynchroRemote *remote = arg;

	ereport(DEBUG1,
			(errmsg_internal("remote \"%s\": %s", remote->name, pchomp(message))));
}

/*
 * Connect, in a memory context of its own.
 *
 * name: of the remote, for messages.  password_required: the remote must have
 * asked for the password that we gave, as it must of a role that is no
 * superuser, lest it use an identity of the server's.
 */
SynchroRemote *
synchro_remote_open(const char *name, const char **keywords, const char **values,
					bool password_required)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "synchro remote",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SynchroRemote *remote = palloc0(sizeof(SynchroRemote));

	remote->context = context;
	remote->name = pstrdup(name);
	remote->mark = DatumGetCString(DirectFunctionCall1(uuid_out, DirectFunctionCall1(gen_random_uuid, (Datum) 0)));
	synchro_connect_merge(keywords, values, &remote->keywords, &remote->values);
	MemoryContextSwitchTo(old);

	PG_TRY();
	{
		synchro_connect(&remote->conn, name, remote->keywords, remote->values,
						password_required);
		remote->undo = "ROLLBACK";
		PQsetnonblocking(remote->conn, 1);
		PQsetNoticeProcessor(remote->conn, receive_notice, remote);
		pin_session(remote);
	}
	PG_CATCH();
	{
		synchro_remote_close(remote);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return remote;
}

/*
 * End the connection.
 */
void
synchro_remote_close(SynchroRemote *remote)
{
	if (remote->conn != NULL)
		libpqsrv_disconnect(remote->conn);
	MemoryContextDelete(remote->context);
}

/*
 * Name of the remote.
 */
const char *
synchro_remote_name(const SynchroRemote *remote)
{
	return remote->name;
}

/*
 * What errors bear as the name of a schema that our own SQL raises in this
 * session, so that no others are taken for them, whatever their SQLSTATE.  Not a
 * secret: a trigger there can look it up if it wants to.
 */
const char *
synchro_remote_mark(const SynchroRemote *remote)
{
	return remote->mark;
}

/*
 * Let scripts be parts of a transaction from now on: what undoes one of them
 * if it fails.  sql: a constant.
 */
void
synchro_remote_set_undo(SynchroRemote *remote, const char *sql)
{
	remote->undo = sql;
}

/*
 * Is the server a standby?
 */
bool
synchro_remote_is_standby(const SynchroRemote *remote)
{
	const char *said = PQparameterStatus(remote->conn, "in_hot_standby");

	return said != NULL && strcmp(said, "on") == 0;
}

/*
 * Microseconds that the fastest round trip has taken so far; 0: none yet.
 */
int64
synchro_remote_round_trip(const SynchroRemote *remote)
{
	return remote->round_trip;
}

/*
 * Is a round trip so short that one more does not matter?
 */
bool
synchro_remote_is_near(const SynchroRemote *remote)
{
	return remote->round_trip > 0 && remote->round_trip < NEAR;
}

/*
 * Is it so long that what there is to do is better done in fewer of them?
 */
bool
synchro_remote_is_far(const SynchroRemote *remote)
{
	return remote->round_trip >= FAR;
}

/*
 * How many rows the last COPY of the last script has written.
 */
int64
synchro_remote_copied(const SynchroRemote *remote)
{
	return remote->copied;
}

/*
 * A field of an error.  libpq takes over whatever bytes come, and they end up in
 * tables here.
 */
static char *
copy_field(PGresult *result, int field)
{
	const char *value = result != NULL ? PQresultErrorField(result, field) : NULL;

	if (value == NULL)
		return NULL;
	return pg_verifymbstr(value, strlen(value), true) ? pstrdup(value) : pstrdup("(text that is not valid in this database's encoding)");
}

/*
 * Describe what went wrong.  result may be NULL if libpq itself failed.
 */
static SynchroRemoteError *
make_error(SynchroRemote *remote, PGresult *result, int statement)
{
	SynchroRemoteError *error = palloc0(sizeof(SynchroRemoteError));
	char	   *sqlstate = copy_field(result, PG_DIAG_SQLSTATE);

	error->lost = PQstatus(remote->conn) != CONNECTION_OK;
	strlcpy(error->sqlstate,
			sqlstate != NULL ? sqlstate : unpack_sql_state(ERRCODE_CONNECTION_FAILURE),
			sizeof(error->sqlstate));
	error->message = copy_field(result, PG_DIAG_MESSAGE_PRIMARY);
	if (error->message == NULL)
		error->message = pchomp(PQerrorMessage(remote->conn));
	error->detail = copy_field(result, PG_DIAG_MESSAGE_DETAIL);
	error->hint = copy_field(result, PG_DIAG_MESSAGE_HINT);
	error->schema = copy_field(result, PG_DIAG_SCHEMA_NAME);
	error->table = copy_field(result, PG_DIAG_TABLE_NAME);
	error->column = copy_field(result, PG_DIAG_COLUMN_NAME);
	error->datatype = copy_field(result, PG_DIAG_DATATYPE_NAME);
	error->constraint = copy_field(result, PG_DIAG_CONSTRAINT_NAME);
	error->context = copy_field(result, PG_DIAG_CONTEXT);
	error->statement = statement;
	error->ours = error->schema != NULL && strcmp(error->schema, remote->mark) == 0;
	return error;
}

static SynchroRows *
make_rows(const SynchroRemote *remote, PGresult *result)
{
	SynchroRows *rows = palloc0(sizeof(SynchroRows));

	rows->remote = pstrdup(remote->name);
	rows->nrows = PQntuples(result);
	rows->ncolumns = PQnfields(result);
	rows->values = palloc(sizeof(char *) * Max(rows->nrows * rows->ncolumns, 1));
	for (int i = 0; i < rows->nrows; i++)
		for (int j = 0; j < rows->ncolumns; j++)
		{
			if (PQgetisnull(result, i, j))
			{
				rows->values[i * rows->ncolumns + j] = NULL;
				continue;
			}
			(void) pg_verifymbstr(PQgetvalue(result, i, j), PQgetlength(result, i, j), false);
			rows->values[i * rows->ncolumns + j] = pstrdup(PQgetvalue(result, i, j));
		}
	return rows;
}

#define ALTERED_HINT "Look for what has been altered there in schemas \"synchro_peer\" and \"synchro\"."

/*
 * A value of a row, or NULL where null.  Whether there is such a row is for the
 * remote to say, whatever was asked.
 */
char *
synchro_nullable(const SynchroRows *rows, int row, int column)
{
	if (row >= rows->nrows || column >= rows->ncolumns)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("remote \"%s\" returned %d rows of %d columns, which are too few", rows->remote, rows->nrows, rows->ncolumns),
				 errhint(ALTERED_HINT)));
	return rows->values[row * rows->ncolumns + column];
}

/*
 * A value of a row that cannot be null, if all is as it should be there.
 */
char *
synchro_value(const SynchroRows *rows, int row, int column)
{
	char	   *value = synchro_nullable(rows, row, column);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("remote \"%s\" returned NULL where there must be a value", rows->remote),
				 errhint(ALTERED_HINT)));
	return value;
}

/*
 * Send what libpq has buffered.  Input is taken meanwhile, since a server
 * that cannot send its messages does not read ours.
 */
static bool
flush_output(SynchroRemote *remote)
{
	int			rc;

	while ((rc = PQflush(remote->conn)) > 0)
		wait_for_socket(remote, WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE, synchro_wait_send());
	return rc == 0;
}

/*
 * The result of one statement that was sent; NULL if that failed.
 */
static PGresult *
last_result(SynchroRemote *remote)
{
	PGresult   *last = NULL;
	PGresult   *result;

	if (!flush_output(remote))
		return NULL;
	while ((result = get_result(remote)) != NULL)
	{
		PQclear(last);
		last = result;
	}
	return last;
}

/*
 * Answer the server's request for COPY data with a spool's bytes.
 */
static bool
send_spool(SynchroRemote *remote, SynchroSpool *spool)
{
	const char *data;
	int			len;
	int			rc;

	synchro_spool_rewind(spool);
	while ((len = synchro_spool_read(spool, &data)) > 0)
	{
		while ((rc = PQputCopyData(remote->conn, data, len)) == 0)
			wait_for_socket(remote, WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE, synchro_wait_send());
		if (rc < 0 || !flush_output(remote))
			return false;
	}
	while ((rc = PQputCopyEnd(remote->conn, NULL)) == 0)
		wait_for_socket(remote, WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE, synchro_wait_send());
	return rc > 0 && flush_output(remote);
}

static void
run_meanwhile(SynchroRemote *remote, SynchroMeanwhile meanwhile, void *arg)
{
	if (meanwhile == NULL)
		return;
	meanwhile(arg);

	/* it was us who did not listen */
	remote->heard = GetCurrentTimestamp();
}

/*
 * Run several statements in one round trip and more, one for each COPY.
 *
 * sql: the statements, separated by semicolons.  spools: what each COPY FROM
 * STDIN among them is given, in order.  results: where not NULL, set to the
 * rows (SynchroRows) of each statement that returns some, in order.
 *
 * Returns NULL, or what went wrong, in the current memory context; the remote
 * transaction is then aborted, and ROLLBACK has been sent where that was
 * needed, or what synchro_remote_set_undo() has said.  Does not raise errors of the remote.
 */
SynchroRemoteError *
synchro_remote_script(SynchroRemote *remote, const char *sql, List *spools, List **results)
{
	return synchro_remote_long_script(remote, sql, spools, NULL, NULL, results);
}

/*
 * The same, and something else meanwhile, or NULL: once the remote has been
 * given all that the script wants, so that nothing there waits for us.
 */
SynchroRemoteError *
synchro_remote_long_script(SynchroRemote *remote, const char *sql, List *spools,
						   SynchroMeanwhile meanwhile, void *arg, List **results)
{
	SynchroRemoteError *error = NULL;
	PGresult   *result;
	int			statement = 0;
	int			spool = 0;

	if (results != NULL)
		*results = NIL;
	remote->heard = GetCurrentTimestamp();
	if (!PQsendQuery(remote->conn, sql) || !flush_output(remote))
		error = make_error(remote, NULL, 0);
	else if (spools == NIL)
		run_meanwhile(remote, meanwhile, arg);

	while (error == NULL || !error->lost)
	{
		ExecStatusType status;

		result = get_result(remote);
		if (result == NULL)
			break;
		status = PQresultStatus(result);
		if (status == PGRES_COPY_IN && spool < list_length(spools))
		{
			if (!send_spool(remote, list_nth(spools, spool++)) && error == NULL)
				error = make_error(remote, NULL, statement);
			if (error == NULL && spool == list_length(spools))
				run_meanwhile(remote, meanwhile, arg);
		}
		else if (status == PGRES_TUPLES_OK)
		{
			if (results != NULL)
				*results = lappend(*results, make_rows(remote, result));
			statement++;
		}
		else if (status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY)
		{
			if (strncmp(PQcmdStatus(result), "COPY", 4) == 0)
				remote->copied = strtoll(PQcmdTuples(result), NULL, 10);
			statement++;
		}
		else if (error == NULL)
			error = make_error(remote, result, statement);
		PQclear(result);

		/* half-way in a COPY there is no way back to a known state */
		if (status == PGRES_COPY_IN && error != NULL)
			error->lost = true;
	}

	if (error != NULL && !error->lost &&
		PQtransactionStatus(remote->conn) != PQTRANS_IDLE)
	{
		(void) PQsendQuery(remote->conn, remote->undo);
		result = last_result(remote);
		error->lost = PQresultStatus(result) != PGRES_COMMAND_OK;
		PQclear(result);
	}
	return error;
}

/*
 * Send one statement with text parameters; synchro_remote_receive() is to
 * follow, and nothing else on this connection.
 */
void
synchro_remote_send(SynchroRemote *remote, const char *sql, int nparams, const char *const *params)
{
	remote->heard = remote->sent = GetCurrentTimestamp();
	(void) PQsendQueryParams(remote->conn, sql, nparams, NULL, params, NULL, NULL, 0);

	/* what is left to be sent goes as soon as the answer is waited for */
	(void) PQflush(remote->conn);
}

static SynchroRows *
receive(SynchroRemote *remote, const char *context)
{
	PGresult   *result = last_result(remote);
	int64		taken = GetCurrentTimestamp() - remote->sent;
	SynchroRows *rows = NULL;
	SynchroRemoteError *error = NULL;

	if (taken > 0 && (remote->round_trip == 0 || taken < remote->round_trip))
		remote->round_trip = taken;
	if (PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_COMMAND_OK)
		rows = make_rows(remote, result);
	else
		error = make_error(remote, result, 0);
	PQclear(result);
	if (error != NULL)
		synchro_remote_report(remote, error, context);
	return rows;
}

/*
 * Wait for what was sent: its rows, or an error.
 */
SynchroRows *
synchro_remote_receive(SynchroRemote *remote)
{
	return receive(remote, NULL);
}

/*
 * Run one statement with text parameters; its rows, or an error.
 */
SynchroRows *
synchro_remote_query(SynchroRemote *remote, const char *sql, int nparams,
					 const char *const *params)
{
	synchro_remote_send(remote, sql, nparams, params);
	return receive(remote, sql);
}

/*
 * Raise a remote's error as ours, with its SQLSTATE.
 *
 * context: what was being done, shown as the error's context; may be NULL.
 */
void
synchro_remote_report(const SynchroRemote *remote, const SynchroRemoteError *error,
					  const char *context)
{
	const char *s = error->sqlstate;

	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4])),
			 errmsg("remote \"%s\": %s", remote->name, error->message),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 error->hint != NULL ? errhint("%s", error->hint) : 0,
			 context != NULL ? errcontext("%s", context) : 0));
}
