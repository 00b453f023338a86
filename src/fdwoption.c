/*-------------------------------------------------------------------------
 *
 * fdwoption.c
 *	  Which libpq options servers and user mappings of remotes may have: the
 *	  validator of synchro_fdw.
 *
 * What says who we are on the remote (user, password and other secrets) is for
 * user mappings, all else for servers.  What makes libpq read or write files
 * of this server is for superusers.  An option that libpq knows and we do not
 * is new: it is for superusers until we have looked at it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "fdwoption.h"
#include "remoteconnect.h"
#include "synchro.h"

PG_FUNCTION_INFO_V1(synchro_fdw_validator);

/* where an option may stand, and who may set it */
#define ON_SERVER	0x01
#define ON_MAPPING	0x02
#define SUPERUSER	0x04
#define OURS		0x08		/* we set it ourselves */

typedef struct KnownOption
{
	const char *name;
	int			flags;
} KnownOption;

/* the usual ones first: hints list them in this order */
static const KnownOption known_options[] = {
	{"host", ON_SERVER},
	{"port", ON_SERVER},
	{"dbname", ON_SERVER},
	{"hostaddr", ON_SERVER},
	{"user", ON_MAPPING},
	{"password", ON_MAPPING},
	{"sslmode", ON_SERVER},
	{"connect_timeout", ON_SERVER},
	{"application_name", ON_SERVER},
	{"channel_binding", ON_SERVER},
	{"client_encoding", OURS},
	{"fallback_application_name", OURS},
	{"gssdelegation", ON_SERVER | SUPERUSER},
	{"gssencmode", ON_SERVER},
	{"gsslib", ON_SERVER},
	{"keepalives", ON_SERVER},
	{"keepalives_count", ON_SERVER},
	{"keepalives_idle", ON_SERVER},
	{"keepalives_interval", ON_SERVER},
	{"krbsrvname", ON_SERVER},
	{"load_balance_hosts", ON_SERVER},
	{"max_protocol_version", ON_SERVER},
	{"min_protocol_version", ON_SERVER},
	{"options", OURS},
	{"passfile", ON_SERVER | ON_MAPPING | SUPERUSER},
	{"replication", OURS},
	{"require_auth", ON_SERVER},
	{"requirepeer", ON_SERVER},
	{"requiressl", ON_SERVER},
	{"service", ON_SERVER | SUPERUSER},
	{"servicefile", ON_SERVER | SUPERUSER},
	{"ssl_max_protocol_version", ON_SERVER},
	{"ssl_min_protocol_version", ON_SERVER},
	{"sslcert", ON_SERVER | ON_MAPPING | SUPERUSER},
	{"sslcertmode", ON_SERVER},
	{"sslcompression", ON_SERVER},
	{"sslcrl", ON_SERVER | SUPERUSER},
	{"sslcrldir", ON_SERVER | SUPERUSER},
	{"sslkey", ON_SERVER | ON_MAPPING | SUPERUSER},
	{"sslkeylogfile", ON_SERVER | SUPERUSER},
	{"sslnegotiation", ON_SERVER},
	{"sslpassword", ON_MAPPING},
	{"sslrootcert", ON_SERVER | SUPERUSER},
	{"sslsni", ON_SERVER},
	{"target_session_attrs", ON_SERVER},
	{"tcp_user_timeout", ON_SERVER},
};

/*
 * Flags of an option; 0 if this libpq does not have it.
 */
static int
option_flags(const char *name)
{
	bool		secret = false;

	if (!synchro_connect_has_option(name, &secret))
		return 0;
	for (int i = 0; i < lengthof(known_options); i++)
		if (strcmp(known_options[i].name, name) == 0)
			return known_options[i].flags;
	return (secret ? ON_MAPPING : ON_SERVER) | SUPERUSER;
}

/*
 * Is an option, of a server of any wrapper, one to be given to libpq?
 */
bool
synchro_fdwoption_is_usable(const char *name)
{
	return (option_flags(name) & (ON_SERVER | ON_MAPPING)) != 0;
}

/*
 * Must a superuser have set an option to that value?
 */
bool
synchro_fdwoption_needs_superuser(const char *name, const char *value)
{
	/* not a file: the certificates of the operating system */
	if (strcmp(name, "sslrootcert") == 0 && strcmp(value, "system") == 0)
		return false;
	return (option_flags(name) & SUPERUSER) != 0;
}

/*
 * The hint for an option that is not valid: the one that was perhaps meant,
 * or else all that there are.
 */
static const char *
hint_for_option(const char *name, int place)
{
	StringInfoData all;
	const char *closest = NULL;
	int			best = 3;		/* more letters off, and it is no misspelling */

	initStringInfo(&all);
	for (int i = 0; i < lengthof(known_options); i++)
	{
		const char *known = known_options[i].name;
		int			distance;

		if ((option_flags(known) & (ON_SERVER | ON_MAPPING)) == 0)
			continue;
		if (option_flags(known) & place)
			appendStringInfo(&all, "%s%s", all.len > 0 ? ", " : "", known);
		distance = varstr_levenshtein_less_equal(name, Min(strlen(name), NAMEDATALEN),
												 known, strlen(known), 1, 1, 1, best, true);
		if (distance < best && distance < (int) strlen(known) / 2 + 1)
		{
			best = distance;
			closest = known;
		}
	}
	if (closest != NULL)
		return psprintf("Perhaps you meant the option \"%s\".", closest);
	return psprintf("Valid options in this context are: %s.", all.data);
}

/*
 * Error if an option cannot stand in that place, or not be set by the caller.
 */
static void
check_option(const DefElem *option, int place)
{
	const char *name = option->defname;
	int			flags = option_flags(name);
	const char *where = place == ON_SERVER ? "a server" : "a user mapping";

	if (flags & OURS)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" cannot be set", name),
				 errdetail("Each connection to a remote sets it by itself."),
				 errhint("Leave it out.")));
	if ((flags & (ON_SERVER | ON_MAPPING)) != 0 && (flags & place) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" is not valid for %s", name, where),
				 errhint("Set it in the %s.", place == ON_SERVER ? "user mapping" : "server")));
	if (flags == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" is not valid for %s", name, where),
				 errhint("%s", hint_for_option(name, place))));
	if (!superuser() && synchro_fdwoption_needs_superuser(name, defGetString(unconstify(DefElem *, option))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("option \"%s\" is for superusers only", name),
				 errdetail("It makes this server use files or an identity of its own."),
				 errhint("Leave it out, or ask a superuser to set it.")));
}

/*
 * synchro.fdw_validator(options text[], catalog oid): error unless the options
 * are right for that kind of object.
 */
Datum
synchro_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (catalog == ForeignServerRelationId)
			check_option(option, ON_SERVER);
		else if (catalog == UserMappingRelationId)
			check_option(option, ON_MAPPING);
		else
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" is not valid here", option->defname),
					 errdetail(SYNCHRO_FDW " has no foreign tables and no options of its own."),
					 errhint("Set it in the server or in the user mapping.")));
	}
	PG_RETURN_VOID();
}
