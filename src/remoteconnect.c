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
 * A remote may have several hosts, and a host several addresses.  libpq takes
 * the next one where one refuses; where one does not answer, it does so only
 * for who lets it block.  So we take away the one that has had its time, and
 * have libpq begin anew with the others: in which order they are tried, and
 * which of them will do (target_session_attrs), stays its business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "libpq-fe.h"
#include "common/ip.h"
#include "lib/stringinfo.h"
#include "libpq/libpq-be-fe-helpers.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
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
 * How long one address may take to answer, in ms: connect_timeout, which libpq
 * leaves to callers like us.
 */
long
synchro_connect_time(const char **keywords, const char **values)
{
	long		seconds = 0;

	for (int i = 0; keywords[i] != NULL; i++)
		if (strcmp(keywords[i], "connect_timeout") == 0)
			seconds = strtol(values[i], NULL, 10);
	if (seconds <= 0)
		seconds = synchro_connect_timeout;
	return Min(seconds, 3600) * 1000;
}

/*
 * Wait until a connection begun by PQconnectStartParams() is made or has
 * failed.  False if an address takes too long.
 */
static bool
finish_connecting(PGconn *conn, long timeout)
{
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	TimestampTz end = 0;
	char	   *current = NULL;

	while (PQstatus(conn) != CONNECTION_BAD &&
		   status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED)
	{
		int			events = status == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		char	   *address = psprintf("%s %s %s", PQhost(conn), PQhostaddr(conn), PQport(conn));
		long		left;

		/* each has its own time */
		if (current == NULL || strcmp(address, current) != 0)
			end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
		current = address;
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
		if (left <= 0)
			return false;
		if (synchro_connect_wait(conn, events, left, synchro_wait_connect()) & events)
			status = PQconnectPoll(conn);
	}
	return true;
}

/* an address to connect to, as options have it: each may be empty */
typedef struct Host
{
	const char *host;
	const char *hostaddr;
	const char *port;
} Host;

/*
 * The n-th of a list in an option; NULL behind its end.
 */
static const char *
list_item(const char *list, int n)
{
	const char *end;

	for (; n > 0 && list != NULL; n--)
	{
		list = strchr(list, ',');
		if (list != NULL)
			list++;
	}
	if (list == NULL)
		return NULL;
	end = strchr(list, ',');
	return end != NULL ? pnstrdup(list, end - list) : pstrdup(list);
}

/*
 * The hosts that libpq has been told, wherever it has them from.
 */
static List *
list_hosts(PGconn *conn)
{
	PQconninfoOption *options = PQconninfo(conn);
	const char *hosts = "";
	const char *addresses = "";
	const char *ports = "";
	List	   *result = NIL;

	if (options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	for (PQconninfoOption *option = options; option->keyword != NULL; option++)
	{
		if (option->val == NULL)
			continue;
		if (strcmp(option->keyword, "host") == 0)
			hosts = pstrdup(option->val);
		else if (strcmp(option->keyword, "hostaddr") == 0)
			addresses = pstrdup(option->val);
		else if (strcmp(option->keyword, "port") == 0)
			ports = pstrdup(option->val);
	}
	PQconninfoFree(options);
	for (int i = 0;; i++)
	{
		const char *host = list_item(hosts, i);
		const char *hostaddr = list_item(addresses, i);
		const char *port = list_item(ports, i);
		Host	   *entry;

		if (host == NULL && hostaddr == NULL)
			return result;
		entry = palloc(sizeof(Host));
		entry->host = host != NULL ? host : "";
		entry->hostaddr = hostaddr != NULL ? hostaddr : "";
		entry->port = port != NULL ? port : list_item(ports, 0);	/* one may be for all */
		result = lappend(result, entry);
	}
}

/*
 * The options with other hosts.
 */
static void
replace_hosts(List *hosts, const char **keywords, const char **values,
			  const char ***new_keywords, const char ***new_values)
{
	static const char *const names[] = {"host", "hostaddr", "port"};
	StringInfoData lists[lengthof(names)];
	ListCell   *cell;
	int			given = 0;
	int			n = 0;

	for (int i = 0; i < lengthof(names); i++)
		initStringInfo(&lists[i]);
	foreach(cell, hosts)
	{
		const Host *host = lfirst(cell);
		const char *comma = cell == list_head(hosts) ? "" : ",";

		appendStringInfo(&lists[0], "%s%s", comma, host->host);
		appendStringInfo(&lists[1], "%s%s", comma, host->hostaddr);
		appendStringInfo(&lists[2], "%s%s", comma, host->port);
	}
	while (keywords[given] != NULL)
		given++;
	*new_keywords = palloc(sizeof(char *) * (given + lengthof(names) + 1));
	*new_values = palloc(sizeof(char *) * (given + lengthof(names) + 1));
	for (int i = 0; i < given; i++)
	{
		if (strcmp(keywords[i], "host") == 0 || strcmp(keywords[i], "hostaddr") == 0 || strcmp(keywords[i], "port") == 0)
			continue;
		(*new_keywords)[n] = keywords[i];
		(*new_values)[n++] = values[i];
	}
	for (int i = 0; i < lengthof(names); i++)
	{
		(*new_keywords)[n] = names[i];
		(*new_values)[n++] = lists[i].data;
	}
	(*new_keywords)[n] = (*new_values)[n] = NULL;
}

/*
 * The address that a connection is made to, or is being made to.
 */
static Host *
current_host(PGconn *conn)
{
	Host	   *host = palloc(sizeof(Host));
	const char *port = PQport(conn);

	host->host = pstrdup(PQhost(conn));
	host->hostaddr = pstrdup(PQhostaddr(conn));
	host->port = pstrdup(port != NULL ? port : "");
	return host;
}

/*
 * Two IP addresses, which may be written in several ways.
 */
static bool
same_address(const char *a, const char *b)
{
	unsigned char bytes[2][sizeof(struct in6_addr)];

	for (int i = 0; i < 2; i++)
	{
		int			family = i == 0 ? AF_INET : AF_INET6;

		if (inet_pton(family, a, bytes[0]) == 1 && inet_pton(family, b, bytes[1]) == 1)
			return memcmp(bytes[0], bytes[1], i == 0 ? sizeof(struct in_addr) : sizeof(struct in6_addr)) == 0;
	}
	return strcmp(a, b) == 0;
}

/*
 * Is it that one that libpq says it is at?
 */
static bool
is_current(const Host *host, const Host *current)
{
	const char *name = host->host[0] != '\0' ? host->host : host->hostaddr;
	const char *port = host->port[0] != '\0' ? host->port : DEF_PGPORT_STR;

	return (name[0] != '\0' ? strcmp(name, current->host) == 0 : current->hostaddr[0] == '\0') &&
		(host->hostaddr[0] == '\0' || same_address(host->hostaddr, current->hostaddr)) &&
		strcmp(port, current->port[0] != '\0' ? current->port : DEF_PGPORT_STR) == 0;
}

/*
 * All addresses of a host but one, as hosts.
 */
static List *
other_addresses(const Host *host, const char *address)
{
	struct addrinfo hint = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	List	   *result = NIL;

	if (host->hostaddr[0] != '\0' || address[0] == '\0')
		return NIL;
	if (pg_getaddrinfo_all(host->host, NULL, &hint, &found) != 0)
		found = NULL;
	for (struct addrinfo *info = found; info != NULL; info = info->ai_next)
	{
		char		text[NI_MAXHOST];
		Host	   *other;

		if (getnameinfo(info->ai_addr, info->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST) != 0 ||
			same_address(text, address))
			continue;
		other = palloc(sizeof(Host));
		*other = *host;
		other->hostaddr = pstrdup(text);
		result = lappend(result, other);
	}
	if (found != NULL)
		pg_freeaddrinfo_all(AF_UNSPEC, found);
	return result;
}

/*
 * The hosts without the address that has not answered; NIL if there is no
 * other.
 */
static List *
without_host(List *hosts, const Host *silent)
{
	List	   *result = NIL;
	bool		gone = false;
	ListCell   *cell;

	foreach(cell, hosts)
	{
		Host	   *host = lfirst(cell);
		bool		is_it = is_current(host, silent);

		result = is_it ? list_concat(result, other_addresses(host, silent->hostaddr)) : lappend(result, host);
		gone |= is_it;
	}
	return gone ? result : NIL;
}

/*
 * Does the peer of a session still take connections?  That one is refused is an
 * answer, too.  It is the session's own host that is asked, of all that the
 * options may name.
 */
bool
synchro_connect_answers(PGconn *session, const char **keywords, const char **values)
{
	PGconn	   *volatile conn = NULL;
	volatile bool answers = true;
	const char **its_keywords;
	const char **its_values;

	replace_hosts(list_make1(current_host(session)), keywords, values, &its_keywords, &its_values);
	libpqsrv_connect_prepare();
	PG_TRY();
	{
		conn = PQconnectStartParams(its_keywords, its_values, false);
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

pg_noreturn static void
report_not_connected(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("could not connect to remote \"%s\"", name),
			 errdetail_internal("%s", pchomp(detail))));
}

static void
start(PGconn **conn, const char **keywords, const char **values)
{
	libpqsrv_connect_prepare();
	*conn = PQconnectStartParams(keywords, values, false);
	if (*conn == NULL)
	{
		ReleaseExternalFD();
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
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
	StringInfoData detail;

	initStringInfo(&detail);
	start(conn, keywords, values);
	while (!finish_connecting(*conn, timeout))
	{
		Host	   *current = current_host(*conn);
		List	   *hosts = without_host(list_hosts(*conn), current);

		if (hosts == NIL && detail.len == 0)
			report_not_connected(name, psprintf("It has not answered within %ld seconds.", timeout / 1000));
		appendStringInfo(&detail, "Host \"%s\"", current->host);
		if (current->hostaddr[0] != '\0' && strcmp(current->hostaddr, current->host) != 0)
			appendStringInfo(&detail, " (%s)", current->hostaddr);
		appendStringInfo(&detail, ", port %s, has not answered within %ld seconds.\n", current->port, timeout / 1000);
		if (hosts == NIL)
			report_not_connected(name, detail.data);
		replace_hosts(hosts, keywords, values, &keywords, &values);
		libpqsrv_disconnect(*conn);
		*conn = NULL;
		start(conn, keywords, values);
	}
	if (PQstatus(*conn) != CONNECTION_OK)
		report_not_connected(name, psprintf("%s%s", detail.data, PQerrorMessage(*conn)));
	if (password_required && !PQconnectionUsedPassword(*conn))
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("password is required for remote \"%s\"", name),
				 errdetail("The remote did not ask for the password of the user mapping."),
				 errhint("Have the remote demand a password, or let a superuser own the server.")));
}
