/*-------------------------------------------------------------------------
 *
 * remoteconnect.c
 *	  Connecting to a remote: libpq's options, and connections made in time.
 *
 * Every wait is for the socket and for our latch, so that a worker ends at
 * once when it is told to, whatever the network does.
 *
 * Connection strings hold passwords: neither they nor libpq's own messages
 * about them are put into errors, except libpq's message of why a connection
 * failed, which does not contain the password.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq-fe.h"
#include "libpq/libpq-be-fe-helpers.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "remoteconnect.h"
#include "settings.h"

/*
 * Is that a libpq option that a server or user mapping may set?
 *
 * is_secret: its value must not be shown.
 */
bool
synchro_connect_has_option(const char *keyword, bool *is_secret)
{
	PQconninfoOption *options = PQconndefaults();
	bool		found = false;

	if (options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Could not get libpq's default connection options.")));
	for (PQconninfoOption *option = options; option->keyword != NULL; option++)
	{
		if (strcmp(option->keyword, keyword) != 0)
			continue;
		/* 'D': a debug option, not for users */
		found = strchr(option->dispchar, 'D') == NULL || strcmp(keyword, "options") == 0;
		if (is_secret != NULL)
			*is_secret = strchr(option->dispchar, '*') != NULL;
		break;
	}
	PQconninfoFree(options);
	return found;
}

/*
 * Add options of ours that come before the user's (which win) and after them
 * (which the user cannot change).  Both arrays are made in the current memory
 * context.
 */
void
synchro_connect_merge(const char **keywords, const char **values,
					  const char ***all_keywords, const char ***all_values)
{
	static const char *const first[][2] = {
		/* a host that swallows packets is noticed in half a minute */
		{"keepalives_idle", "10"},
		{"keepalives_interval", "5"},
		{"keepalives_count", "3"},
		{"tcp_user_timeout", "25000"},
		{NULL, NULL}
	};
	int			n = 0;
	int			given = 0;

	while (keywords[given] != NULL)
		given++;
	*all_keywords = palloc(sizeof(char *) * (given + lengthof(first) + 5));
	*all_values = palloc(sizeof(char *) * (given + lengthof(first) + 5));
	for (int i = 0; first[i][0] != NULL; i++)
	{
		(*all_keywords)[n] = first[i][0];
		(*all_values)[n++] = first[i][1];
	}
	(*all_keywords)[n] = "connect_timeout";
	(*all_values)[n++] = psprintf("%d", synchro_connect_timeout);
	for (int i = 0; i < given; i++)
	{
		(*all_keywords)[n] = keywords[i];
		(*all_values)[n++] = values[i];
	}
	(*all_keywords)[n] = "fallback_application_name";
	(*all_values)[n++] = "synchro";
	(*all_keywords)[n] = "client_encoding";
	(*all_values)[n++] = GetDatabaseEncodingName();
	(*all_keywords)[n] = (*all_values)[n] = NULL;
}

/*
 * Wait for the socket and our latch.  Returns the events.  timeout: in ms.
 */
int
synchro_connect_wait(PGconn *conn, int events, long timeout, uint32 wait_event)
{
	int			rc = WaitLatchOrSocket(MyLatch,
									   WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT | events,
									   PQsocket(conn), Max(timeout, 0), wait_event);

	if (rc & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return rc;
}

/*
 * How long a connection may take to be made, in ms: connect_timeout, which
 * libpq leaves to callers like us, for each of the hosts.
 */
long
synchro_connect_time(const char **keywords, const char **values)
{
	long		seconds = 0;
	long		hosts = 1;

	for (int i = 0; keywords[i] != NULL; i++)
	{
		if (strcmp(keywords[i], "connect_timeout") == 0)
			seconds = strtol(values[i], NULL, 10);
		else if (strcmp(keywords[i], "host") == 0 || strcmp(keywords[i], "hostaddr") == 0)
		{
			hosts = 1;
			for (const char *c = values[i]; *c != '\0'; c++)
				hosts += *c == ',';
		}
	}
	if (seconds <= 0)
		seconds = synchro_connect_timeout;
	return Min(seconds, 3600) * hosts * 1000;
}

/*
 * Wait until a connection begun by PQconnectStartParams() is made or has
 * failed.  False if it takes too long.
 */
static bool
finish_connecting(PGconn *conn, long timeout)
{
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);

	while (PQstatus(conn) != CONNECTION_BAD &&
		   status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED)
	{
		int			events = status == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		if (left <= 0)
			return false;
		if (synchro_connect_wait(conn, events, left, synchro_wait_connect()) & events)
			status = PQconnectPoll(conn);
	}
	return true;
}

/*
 * Does a peer still take connections?  That one is refused is an answer,
 * too.
 */
bool
synchro_connect_answers(const char **keywords, const char **values)
{
	PGconn	   *volatile conn = NULL;
	volatile bool answers = true;

	libpqsrv_connect_prepare();
	PG_TRY();
	{
		conn = PQconnectStartParams(keywords, values, false);
		if (conn != NULL)
			answers = finish_connecting(conn, synchro_connect_time(keywords, values));
	}
	PG_FINALLY();
	{
		ReleaseExternalFD();
		PQfinish(conn);
	}
	PG_END_TRY();
	return answers;
}

/*
 * Connect.  *conn is set as soon as there is something to be disconnected, so
 * that the caller can do that after an error, too.
 *
 * name: of the remote, for messages.  password_required: the remote must have
 * asked for the password that we gave, as it must of a role that is no
 * superuser, lest it use an identity of the server's.
 */
void
synchro_connect(PGconn **conn, const char *name, const char **keywords,
				const char **values, bool password_required)
{
	long		timeout = synchro_connect_time(keywords, values);

	libpqsrv_connect_prepare();
	*conn = PQconnectStartParams(keywords, values, false);
	if (*conn == NULL)
	{
		ReleaseExternalFD();
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	if (!finish_connecting(*conn, timeout))
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to remote \"%s\"", name),
				 errdetail("It has not answered within %ld seconds.", timeout / 1000)));
	if (PQstatus(*conn) != CONNECTION_OK)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to remote \"%s\"", name),
				 errdetail_internal("%s", pchomp(PQerrorMessage(*conn)))));
	if (password_required && !PQconnectionUsedPassword(*conn))
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("password is required for remote \"%s\"", name),
				 errdetail("The remote did not ask for the password of the user mapping."),
				 errhint("Have the remote demand a password, or let a superuser own the server.")));
}
