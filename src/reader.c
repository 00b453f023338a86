/*-------------------------------------------------------------------------
 *
 * reader.c
 *	  On whose behalf users' tables are read, and as whom.
 *
 * Whoever reads a table runs code of its owner's: to plan a query, the server
 * evaluates what is constant in expressions of indexes, statistics, checks and
 * partition keys, and constraints of domains are checked when a value is made
 * from text.  The same goes for DDL, at least on partitioned tables.  So what a
 * remote gets is decided by the rights of the foreign server's owner, but all
 * of it runs as the table's owner, and as a security-restricted operation: the
 * code can do nothing that its author could not do anyway.  With that go the
 * table owner's rights: he must have SELECT on his own table.
 *
 * Columns may be of types that belong to others.  Their input and output
 * functions are the server's, or a superuser's, but casts are not: so no SQL of
 * ours casts a column, or makes a value for one by a cast (keyarray.c,
 * synchro_sql_text()).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "compat.h"
#include "reader.h"
#include "registryrow.h"

static Oid
owner_of(const char *name, Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 name != NULL ? errmsg("table %s does not exist any more", name) :
				 errmsg("relation with OID %u does not exist", relid)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

static bool
is_among(const int *columns, int ncolumns, int column)
{
	for (int i = 0; i < ncolumns; i++)
		if (columns[i] == column)
			return true;
	return false;
}

/*
 * Is a column read for its row, or for its row's name alone?
 */
static bool
is_read(const SynchroTable *table, int column, bool names_only)
{
	const SynchroColumn *c = &table->columns[column];

	if (is_among(table->identity, table->nidentity, column) ||
		is_among(table->key, table->nkey, column))
		return true;
	return !names_only && !c->skipped && !c->generated;
}

/*
 * May a role read the columns that we read?
 */
static bool
has_select(Oid role, const SynchroTable *table, bool names_only)
{
	if (pg_class_aclcheck(table->relid, role, ACL_SELECT) == ACLCHECK_OK)
		return true;
	for (int i = 0; i < table->ncolumns; i++)
		if (is_read(table, i, names_only) &&
			pg_attribute_aclcheck(table->relid, table->columns[i].attnum, role, ACL_SELECT) != ACLCHECK_OK)
			return false;
	return true;
}

/*
 * Error unless the role may read the table, all of its rows.  The messages are
 * as the server's own, with what to do.
 */
void
synchro_reader_require(Oid role, const SynchroTable *table, bool names_only)
{
	const char *name;

	if (superuser_arg(role))
		return;
	name = quote_identifier(GetUserNameFromId(role, false));
	if (synchro_namespace_aclcheck(get_rel_namespace(table->relid), role, ACL_USAGE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for schema %s", table->schema),
				 errhint("Run GRANT USAGE ON SCHEMA %s TO %s.", quote_identifier(table->schema), name)));
	if (!has_select(role, table, names_only))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", table->name),
				 errhint("Run GRANT SELECT ON %s TO %s.", table->qualified, name)));
	if (check_enable_rls(table->relid, role, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("query would be affected by row-level security policy for table \"%s\"", table->name),
				 errhint("Give role %s the attribute BYPASSRLS, or lift the policy for it.", name)));
}

/*
 * Has each of the tables' owners the rights of this role anyway?
 */
static bool
all_can_be(Oid role, Oid owner, List *parents)
{
	ListCell   *cell;

	if (!has_privs_of_role(owner, role))
		return false;
	foreach(cell, parents)
	{
		const SynchroTable *parent = lfirst(cell);

		if (!has_privs_of_role(owner_of(parent->qualified, parent->relid), role))
			return false;
	}
	return true;
}

/*
 * Who may run the code of a table and of parents in one query: an owner whose
 * rights all the others have, too, so that nobody gains any.  InvalidOid if
 * there is none.
 */
static Oid
find_common_owner(const SynchroTable *table, List *parents)
{
	Oid			owner = owner_of(table->qualified, table->relid);
	Oid			runner = all_can_be(owner, owner, parents) ? owner : InvalidOid;
	ListCell   *cell;

	foreach(cell, parents)
	{
		const SynchroTable *parent = lfirst(cell);
		Oid			parent_owner = owner_of(parent->qualified, parent->relid);

		if (!OidIsValid(runner) && all_can_be(parent_owner, owner, parents))
			runner = parent_owner;
	}
	return runner;
}

/*
 * The same, or an error that names one of the parents with another owner.
 */
static Oid
common_owner(const SynchroTable *table, List *parents)
{
	Oid			runner = find_common_owner(table, parents);
	const SynchroTable *other = NULL;
	ListCell   *cell;

	if (OidIsValid(runner))
		return runner;
	foreach(cell, parents)
	{
		const SynchroTable *parent = lfirst(cell);

		if (owner_of(parent->qualified, parent->relid) != owner_of(table->qualified, table->relid))
			other = parent;
	}

	/* one owner of all would do */
	Assert(other != NULL);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("tables %s and %s have different owners and cannot be read together", table->qualified, other->qualified),
			 errdetail("What a row refers to is found by a join, which runs code of both owners as one of them."),
			 errhint("Give both tables the same owner, or make one owner a member of the other.")));
}

static void
become(SynchroReader *reader, Oid role)
{
	GetUserIdAndSecContext(&reader->saved_user, &reader->saved_context);
	SetUserIdAndSecContext(role, reader->saved_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
}

/*
 * Begin to read a table on behalf of a role, within a scope of
 * synchro_sql_open().
 *
 * names_only: its rows' identities and natural keys.  parents: tables that are
 * joined, of which only that much is read.
 *
 * The locks keep names, owners and columns as they are until the query has
 * been run.
 */
void
synchro_reader_begin(SynchroReader *reader, Oid role, const SynchroTable *table,
					 bool names_only, List *parents)
{
	ListCell   *cell;

	LockRelationOid(table->relid, AccessShareLock);
	synchro_reader_require(role, table, names_only);
	foreach(cell, parents)
	{
		const SynchroTable *parent = lfirst(cell);

		LockRelationOid(parent->relid, AccessShareLock);
		synchro_reader_require(role, parent, true);
	}
	become(reader, common_owner(table, parents));
}

/*
 * Begin to do something with a table as its owner, whose rights nobody needs to
 * be asked for.
 */
void
synchro_reader_begin_as_owner(SynchroReader *reader, Oid relid)
{
	become(reader, owner_of(NULL, relid));
}

/*
 * The same for a table that is read together with a parent.  False, and nothing
 * is begun, if nobody may run the code of both.  The tables must be locked.
 */
bool
synchro_reader_begin_as_common_owner(SynchroReader *reader, const SynchroTable *table, const SynchroTable *parent)
{
	Oid			owner = find_common_owner(table, list_make1(unconstify(SynchroTable *, parent)));

	if (!OidIsValid(owner))
		return false;
	become(reader, owner);
	return true;
}

/*
 * May the present user read all rows of a table?
 */
bool
synchro_reader_may_read_all(Oid relid)
{
	return pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		synchro_namespace_aclcheck(get_rel_namespace(relid), GetUserId(), ACL_USAGE) == ACLCHECK_OK &&
		check_enable_rls(relid, GetUserId(), true) != RLS_ENABLED;
}

/*
 * End what any of them began.  After an error, the transaction's abort
 * does.
 */
void
synchro_reader_end(const SynchroReader *reader)
{
	SetUserIdAndSecContext(reader->saved_user, reader->saved_context);
}

/*
 * May a role see keys and values of a table's rows?  Of a table that is gone
 * only a superuser may.
 */
bool
synchro_reader_may_see(Oid role, Oid relid)
{
	if (superuser_arg(role))
		return true;
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) &&
		pg_class_aclcheck(relid, role, ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(relid, role, true) != RLS_ENABLED;
}

/*
 * May it see those of all watched tables?
 */
bool
synchro_reader_may_see_all(Oid role)
{
	ListCell   *cell;

	if (superuser_arg(role))
		return true;
	foreach(cell, synchro_registry_watched())
		if (!synchro_reader_may_see(role, lfirst_oid(cell)))
			return false;
	return true;
}
