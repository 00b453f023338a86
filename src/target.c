/*-------------------------------------------------------------------------
 *
 * target.c
 *	  The remotes: foreign servers that changes are pushed to, and how to
 *	  connect to them.
 *
 * A remote is a foreign server with a row in synchro.remote.  Where it is and
 * who we are there stays in pg_foreign_server and pg_user_mapping; password
 * and all never enter a table of ours.
 *
 * Servers of our own foreign-data wrapper keep the extension from being
 * dropped without CASCADE, as do their user mappings, unless they depend on
 * the extension themselves in the way that lets them go along.  That
 * dependency (synchro_target_adopt()) is renewed at each CREATE SERVER and
 * CREATE USER MAPPING, hence also when a dump is restored, which does not
 * contain it; and by confirm_node(), for what was made without our event
 * triggers: pg_upgrade restores them last.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "fdwoption.h"
#include "formercontact.h"
#include "localsql.h"
#include "sequence.h"
#include "sharedstate.h"
#include "synchro.h"
#include "target.h"

static bool
is_own_server(const ForeignServer *server)
{
	return strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, SYNCHRO_FDW) == 0;
}

/*
 * Can servers of that wrapper be remotes?  Theirs are libpq options, too.
 */
static bool
is_accepted_wrapper(const char *name)
{
	return strcmp(name, SYNCHRO_FDW) == 0 ||
		strcmp(name, "postgres_fdw") == 0 ||
		strcmp(name, "dblink_fdw") == 0;
}

/*
 * Run a statement of ours about one remote: $1 is its name, $2 another.
 */
static uint64
write_remote(const char *sql, const char *name, const char *other)
{
	static const Oid types[] = {NAMEOID, NAMEOID};
	Datum		values[2];
	SynchroSqlScope scope;
	uint64		rows;

	values[0] = DirectFunctionCall1(namein, CStringGetDatum(name));
	values[1] = DirectFunctionCall1(namein, CStringGetDatum(other));
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	rows = synchro_sql_run(sql, 2, types, values, NULL);
	synchro_sql_close(&scope);
	if (rows > 0)
		synchro_shared_look_at_commit(MyDatabaseId);
	return rows;
}

/*
 * The server of that name, which the caller must own.
 */
static ForeignServer *
require_own_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", name),
				 errhint("CREATE SERVER %s FOREIGN DATA WRAPPER " SYNCHRO_FDW
						 " OPTIONS (host '...', dbname '...'), then CREATE USER MAPPING.",
						 quote_identifier(name))));
	if (!has_privs_of_role(GetUserId(), server->owner))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_SERVER, name);
	return server;
}

/*
 * Let one object go with the extension, as ALTER ... DEPENDS ON EXTENSION
 * does for the kinds of objects that it knows.
 */
static void
adopt_object(Oid classid, Oid objid)
{
	Oid			extension = synchro_extension_oid();
	ObjectAddress object;
	ObjectAddress owner;

	if (list_member_oid(getAutoExtensionsOfObject(classid, objid), extension))
		return;
	ObjectAddressSet(object, classid, objid);
	ObjectAddressSet(owner, ExtensionRelationId, extension);
	recordDependencyOn(&object, &owner, DEPENDENCY_AUTO_EXTENSION);
}

static void
adopt_server(const ForeignServer *server)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!is_own_server(server))
		return;
	adopt_object(ForeignServerRelationId, server->serverid);

	rel = table_open(UserMappingRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_user_mapping mapping = (Form_pg_user_mapping) GETSTRUCT(tuple);

		if (mapping->umserver == server->serverid)
			adopt_object(UserMappingRelationId, mapping->oid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * Let a server of our wrapper and its user mappings go with the extension.
 * Servers of other wrappers are left alone.
 */
void
synchro_target_adopt(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);

	if (server != NULL)
		adopt_server(server);
}

/*
 * The same with all servers that there are.
 */
void
synchro_target_adopt_all(void)
{
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		adopt_server(GetForeignServer(((Form_pg_foreign_server) GETSTRUCT(tuple))->oid));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * Make a foreign server a remote.  All that the log still has is pending for
 * it.
 *
 * Error if there is no such server, if it is not the caller's, of a wrapper
 * whose options we do not know, or a remote already.
 */
void
synchro_target_add(const char *name)
{
	ForeignServer *server = require_own_server(name);
	ForeignDataWrapper *wrapper = GetForeignDataWrapper(server->fdwid);

	if (!is_accepted_wrapper(wrapper->fdwname))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" cannot be a remote", name),
				 errdetail("Its foreign-data wrapper is \"%s\".", wrapper->fdwname),
				 errhint("Use a server of " SYNCHRO_FDW ", postgres_fdw or dblink_fdw.")));

	if (write_remote("INSERT INTO synchro.remote (server) VALUES ($1) ON CONFLICT DO NOTHING",
					 name, "") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("server \"%s\" is already a remote", name),
				 errhint("To begin anew with it, use synchro.remove_remote first.")));
	write_remote("INSERT INTO synchro.remote_state (server, attempted, snapshot, keys_snapshot, checkpoint)"
				 " VALUES ($1, gen_random_uuid(), '1:1:', '1:1:', now())", name, "");

	/* those that it has from before synchro_target_remove(); version 1.0 forgets none */
	if (synchro_former_is_noted())
		write_remote("UPDATE synchro.remote_state SET forget_deletes = true WHERE server = $1", name, "");
	synchro_target_adopt(name);
}

/*
 * Make a server no remote any more: its state and what is pending for it are
 * forgotten, the server itself stays.
 *
 * Error if it is no remote, or not the caller's.
 */
void
synchro_target_remove(const char *name)
{
	(void) synchro_target_get(name, false);
	(void) require_own_server(name);
	write_remote("DELETE FROM synchro.remote WHERE server = $1", name, "");
}

/*
 * Let nothing be pushed to a remote until further notice, or let it again.
 * The caller must own the server.
 */
void
synchro_target_pause(const char *name, bool paused)
{
	(void) synchro_target_get(name, false);
	(void) require_own_server(name);
	write_remote(paused ? "UPDATE synchro.remote SET paused = true WHERE server = $1" :
				 "UPDATE synchro.remote SET paused = false WHERE server = $1", name, "");
}

/*
 * All remotes whose server exists, or (missing) does not exist: a list of
 * SynchroTarget.  By a catalog scan, since event triggers ask for it at DDL of
 * any user.
 */
static List *
read_remotes(bool missing)
{
	Oid			relid = synchro_own_relation("remote", true);
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *targets = NIL;

	if (!OidIsValid(relid))
		return NIL;
	rel = table_open(relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		SynchroTarget *target = palloc0(sizeof(SynchroTarget));
		ForeignServer *server;
		bool		isnull;

		target->name = pstrdup(NameStr(*DatumGetName(heap_getattr(tuple, 1, RelationGetDescr(rel),
																  &isnull))));
		target->paused = DatumGetBool(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull));
		server = GetForeignServerByName(target->name, true);
		if ((server == NULL) != missing)
			continue;
		if (server != NULL)
		{
			target->server = server->serverid;
			target->owner = server->owner;
		}
		targets = lappend(targets, target);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return targets;
}

static int
compare_targets(const ListCell *a, const ListCell *b)
{
	return strcmp(((SynchroTarget *) lfirst(a))->name, ((SynchroTarget *) lfirst(b))->name);
}

/*
 * All remotes, as a list of SynchroTarget sorted by name.
 */
List *
synchro_target_list(void)
{
	List	   *targets = read_remotes(false);

	list_sort(targets, compare_targets);
	return targets;
}

/*
 * The remote of that name.
 *
 * missing_ok: return NULL where there is none, instead of an error.
 */
SynchroTarget *
synchro_target_get(const char *name, bool missing_ok)
{
	ListCell   *cell;

	foreach(cell, read_remotes(false))
		if (strcmp(((SynchroTarget *) lfirst(cell))->name, name) == 0)
			return lfirst(cell);

	if (!missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no remote \"%s\"", name),
				 errhint("The view synchro.remotes lists them; synchro.add_remote makes a server one.")));
	return NULL;
}

/*
 * Is there a remote whose server has been dropped?
 */
bool
synchro_target_has_dangling(void)
{
	return read_remotes(true) != NIL;
}

/*
 * Is that a remote, even though its server may be gone or renamed?
 */
bool
synchro_target_is_registered(const char *name)
{
	ListCell   *cell;

	foreach(cell, list_concat(read_remotes(false), read_remotes(true)))
		if (strcmp(((SynchroTarget *) lfirst(cell))->name, name) == 0)
			return true;
	return false;
}

/*
 * Forget remotes whose server has been dropped.
 */
void
synchro_target_forget_dangling(void)
{
	write_remote("DELETE FROM synchro.remote r WHERE NOT EXISTS"
				 " (SELECT FROM pg_foreign_server s WHERE s.srvname = r.server)", "", "");
}

/*
 * Follow ALTER SERVER ... RENAME TO.
 */
void
synchro_target_renamed(const char *old_name, const char *new_name)
{
	write_remote("UPDATE synchro.remote SET server = $2 WHERE server = $1", old_name, new_name);
}

/*
 * The server's mapping for its owner, or else for PUBLIC; error if there is
 * neither.
 */
static UserMapping *
owner_mapping(const SynchroTarget *target)
{
	if (!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(target->owner),
							   ObjectIdGetDatum(target->server)) &&
		!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							   ObjectIdGetDatum(target->server)))
	{
		char	   *owner = GetUserNameFromId(target->owner, false);

		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("remote \"%s\" has no user mapping for \"%s\"", target->name, owner),
				 errdetail("A remote is reached as its server's owner."),
				 errhint("CREATE USER MAPPING FOR %s SERVER %s OPTIONS (user '...', password '...');",
						 quote_identifier(owner), quote_identifier(target->name))));
	}
	return GetUserMapping(target->owner, target->server);
}

/*
 * Add the libpq options among options, of which those of other wrappers'
 * servers are only a part.  Returns the new number of keywords.
 *
 * trusted: the server's owner may make this server read its files.
 */
static int
add_options(const SynchroTarget *target, List *options, bool own, bool trusted,
			const char **keywords, const char **values, int n)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (!synchro_fdwoption_is_usable(option->defname))
			continue;

		/* our own validator has let only a superuser set these */
		if (!own && !trusted && synchro_fdwoption_needs_superuser(option->defname, defGetString(option)))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("option \"%s\" of remote \"%s\" is for superusers only",
							option->defname, target->name),
					 errdetail("It names a file or service of this server, and the foreign server's owner is no superuser."),
					 errhint("Drop the option, or give the foreign server to a superuser.")));
		keywords[n] = pstrdup(option->defname);
		values[n] = pstrdup(defGetString(option));
		n++;
	}
	return n;
}

static bool
has_password(List *options)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "password") == 0 && defGetString(option)[0] != '\0')
			return true;
	}
	return false;
}

/*
 * What to give PQconnectdbParams() for a remote.
 *
 * keywords, values: set to arrays that end with NULL, in the current memory
 * context.  They contain the password: never to be logged.
 * password_required: set to whether the remote must have asked for the
 * password, because the server's owner is no superuser and must not go by the
 * operating system's identity of this server.
 *
 * Error if there is no user mapping, or no password where one is required.
 */
void
synchro_target_conninfo(const SynchroTarget *target,
						const char ***keywords, const char ***values,
						bool *password_required)
{
	ForeignServer *server = GetForeignServer(target->server);
	UserMapping *mapping = owner_mapping(target);
	bool		trusted = superuser_arg(target->owner);
	bool		own = is_own_server(server);
	int			size = list_length(server->options) + list_length(mapping->options) + 1;
	int			n = 0;

	*password_required = !trusted;
	if (!trusted && !has_password(mapping->options))
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("password is required for remote \"%s\"", target->name),
				 errdetail("The foreign server's owner is no superuser, so the user mapping must have a password."),
				 errhint("CREATE or ALTER USER MAPPING FOR %s SERVER %s OPTIONS (..., password '...').",
						 quote_identifier(GetUserNameFromId(target->owner, false)),
						 quote_identifier(target->name))));

	*keywords = palloc0(sizeof(char *) * size);
	*values = palloc0(sizeof(char *) * size);
	n = add_options(target, server->options, own, trusted, *keywords, *values, n);
	(void) add_options(target, mapping->options, own, trusted, *keywords, *values, n);
}
