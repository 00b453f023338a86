/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  Which tables are watched, and by which natural keys: added, changed and
 *	  removed with all that follows from it.
 *
 * Rights have been checked by the callers.  Whoever changes the registry holds
 * its lock (see synchro_registry_lock()) to the end of the transaction, since
 * which triggers a table needs depends on what is registered for all the
 * others.  The lock comes before that of any table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "copyqueue.h"
#include "keycheck.h"
#include "localsql.h"
#include "registry.h"
#include "registryrow.h"
#include "synchro.h"
#include "tableinfo.h"
#include "unwatched.h"
#include "tabletrigger.h"
#include "watchtrigger.h"

/*
 * Bring all triggers in line with the registry.
 */
void
synchro_registry_renew_triggers(void)
{
	synchro_registry_lock();
	synchro_watchtrigger_renew(synchro_registry_watched(), true, InvalidOid);
}

/*
 * Lock registry and table, and describe the table; the description is the
 * caller's.  The lock is that of CREATE TRIGGER: writers wait.
 */
static const SynchroTable *
lock_table(Oid relid)
{
	synchro_registry_lock();
	LockRelationOid(relid, ShareRowExclusiveLock);
	return synchro_table_copy(synchro_table_get(relid, false), CurrentMemoryContext);
}

static void
require_watched(const SynchroTable *table)
{
	if (!table->watched)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" is not watched", table->name),
				 synchro_table_root(table->relid) != table->relid ?
				 errhint("It is a partition: name the table that is watched.") :
				 errhint("The view synchro.tables lists what is watched.")));
}

static const SynchroTable *
lock_watched_table(Oid relid)
{
	const SynchroTable *table = lock_table(relid);

	require_watched(table);
	return table;
}

/*
 * After a change to a table's rows: check where its key leads, and renew the
 * triggers.
 */
static void
settle(Oid relid)
{
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
	synchro_keycheck_circle(relid);
	synchro_registry_renew_triggers();
}

/*
 * Store a natural key.  with_table: it is to go when the table is no longer
 * watched; a key that was registered for itself stays so.
 */
static void
store_key(Oid relid, List *key, bool allow_many, bool with_table)
{
	const char *sql;

	if (with_table)
		sql = "INSERT INTO synchro.natural_key (relation, columns, allow_many, with_table)"
			" VALUES ($1, $2, $3, true) ON CONFLICT (relation) DO UPDATE"
			" SET columns = excluded.columns, allow_many = excluded.allow_many";
	else
		sql = "INSERT INTO synchro.natural_key (relation, columns, allow_many, with_table)"
			" VALUES ($1, $2, $3, false) ON CONFLICT (relation) DO UPDATE"
			" SET columns = excluded.columns, allow_many = excluded.allow_many, with_table = false";
	synchro_registry_write(sql, relid, key, allow_many);
}

/*
 * Set allow_many of a natural key that is registered, or say that there is
 * none to which it could apply.
 */
static void
store_allow_many(const SynchroTable *table, bool allow_many)
{
	uint64		rows;

	rows = synchro_registry_write("UPDATE synchro.natural_key SET allow_many = $3 WHERE relation = $1",
								  table->relid, NIL, allow_many);
	if (rows == 0 && allow_many)
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("allow_many has no effect on table \"%s\"", table->name),
				 errdetail("It has no natural key, so its rows are matched one to one.")));
}

static List *
key_names(const SynchroTable *table)
{
	List	   *names = NIL;

	if (table->mode == SYNCHRO_MODE_NATURAL_KEY)
		for (int i = 0; i < table->nkey; i++)
			names = lappend(names, table->columns[table->key[i]].name);
	return names;
}

static List *
skipped_names(const SynchroTable *table)
{
	List	   *names = NIL;

	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].skipped)
			names = lappend(names, table->columns[i].name);
	return names;
}

/*
 * Note which columns of the primary key a sequence makes, if that is not noted
 * of this primary key yet.
 */
static void
store_sequences(const SynchroTable *table)
{
	List	   *names = NIL;

	if (!synchro_registry_notes_primary_keys())
		return;
	for (int i = 0; i < table->nidentity && table->has_primary_key; i++)
		if (table->columns[table->identity[i]].from_sequence)
			names = lappend(names, table->columns[table->identity[i]].name);
	synchro_registry_write("UPDATE synchro.watched w SET primary_key = k.names, from_sequence = $2"
						   " FROM (SELECT array_agg(a.attname ORDER BY u.nr) AS names FROM pg_constraint c"
						   "  CROSS JOIN unnest(c.conkey) WITH ORDINALITY AS u (attnum, nr) JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = u.attnum"
						   "  WHERE c.conrelid = $1 AND c.contype = 'p') k"
						   " WHERE w.relation = $1 AND k.names IS NOT NULL AND w.primary_key IS DISTINCT FROM k.names",
						   table->relid, names, false);
}

/*
 * Error if one of a root's partitions is watched by itself: it cannot have
 * the trigger twice.
 */
static void
refuse_watched_partitions(const SynchroTable *table)
{
	List	   *watched;
	ListCell   *cell;

	if (table->relkind != RELKIND_PARTITIONED_TABLE)
		return;
	watched = synchro_registry_watched();
	foreach(cell, find_all_inheritors(table->relid, NoLock, NULL))
		if (list_member_oid(watched, lfirst_oid(cell)))
		{
			const SynchroTable *partition = synchro_table_get(lfirst_oid(cell), false);

			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("partition \"%s\" of table \"%s\" is watched by itself",
							partition->name, table->name),
					 errhint("SELECT synchro.remove_table(%s); first.",
							 quote_literal_cstr(partition->qualified))));
		}
}

/*
 * Watch a table: all of synchro_registry_add() but settling.
 */
static void
add_row(const SynchroTable *table, List *key, List *skip, bool allow_many)
{
	refuse_watched_partitions(table);
	synchro_keycheck_primary_key(table);
	synchro_keycheck_columns(table, key != NIL ? key : key_names(table), skip);
	if (key == NIL && table->mode == SYNCHRO_MODE_NONE)
		synchro_keycheck_no_usable_key(table);
	synchro_keycheck_notices(table, key, allow_many);
	synchro_keycheck_rows(table);

	if (key != NIL)
		store_key(table->relid, key, allow_many, true);
	else if (allow_many)
		store_allow_many(table, true);
	synchro_registry_write("INSERT INTO synchro.watched (relation, skip) VALUES ($1, $2)",
						   table->relid, skip, false);
	store_sequences(table);
	synchro_registry_forget_dropped(table->relid);
}

/*
 * Watch a table.
 *
 * key: its natural key's columns; NIL: as registered before, or none.
 * skip: columns that are never pushed.
 * allow_many: a key may match many remote rows.
 *
 * Error if the table is watched already, is of the wrong kind, has no usable
 * key, or if a column does not fit its use.
 */
void
synchro_registry_add(Oid relid, List *key, List *skip, bool allow_many)
{
	const SynchroTable *table;

	synchro_keycheck_relation(relid, SYNCHRO_USE_WATCHED);
	table = lock_table(relid);
	if (table->watched)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("table \"%s\" is already watched", table->name),
				 errhint("Use synchro.alter_table to change its natural key or skipped columns.")));
	add_row(table, key, skip, allow_many);
	settle(relid);
}

/*
 * Change what was said when a table was added.  Error if it is not watched,
 * or as in synchro_registry_add().
 */
void
synchro_registry_alter(Oid relid, const SynchroAlteration *change)
{
	const SynchroTable *table = lock_watched_table(relid);
	List	   *key = change->key != NIL ? change->key : key_names(table);
	List	   *skip = change->set_skip ? change->skip : skipped_names(table);
	bool		allow_many = change->set_allow_many ? change->allow_many : table->allow_many;

	synchro_keycheck_columns(table, key, skip);
	if (change->key != NIL)
	{
		synchro_keycheck_notices(table, key, allow_many);
		store_key(relid, key, allow_many, true);
	}
	else if (change->set_allow_many)
		store_allow_many(table, allow_many);
	if (change->set_skip)
		synchro_registry_write("UPDATE synchro.watched SET skip = $2 WHERE relation = $1", relid, skip, false);
	store_sequences(table);
	settle(relid);
}

/*
 * Watch a table no longer, or forget that one was watched that had its name until it
 * was dropped or renamed, or that it was itself, as its triggers tell.  Error if
 * nothing of this is the case.
 */
void
synchro_registry_remove(Oid relid)
{
	const SynchroTable *table = lock_table(relid);
	bool		noted = synchro_registry_forget_dropped(relid);

	if (!table->watched && synchro_tabletrigger_is_watched(relid))
		synchro_watchtrigger_renew(synchro_registry_watched(), true, relid);
	else if (!noted)
		require_watched(table);
	if (!table->watched)
		return;
	synchro_registry_write("DELETE FROM synchro.watched WHERE relation = $1", relid, NIL, false);
	synchro_registry_write("DELETE FROM synchro.natural_key WHERE relation = $1 AND with_table", relid, NIL, false);
	synchro_copyqueue_forget_unwatched();
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
	synchro_watchtrigger_renew(synchro_registry_watched(), true, relid);
	CommandCounterIncrement();
	synchro_unwatched_forget();
}

/*
 * Register a table's natural key, or another one in its place; the table need
 * not be watched.  Errors as in synchro_registry_add().
 */
void
synchro_registry_set_key(Oid relid, List *columns, bool allow_many)
{
	const SynchroTable *table;

	synchro_keycheck_relation(relid, SYNCHRO_USE_NATURAL_KEY);
	table = lock_table(relid);
	synchro_keycheck_columns(table, columns, skipped_names(table));
	synchro_keycheck_notices(table, columns, allow_many);
	store_key(relid, columns, allow_many, false);
	settle(relid);
}

/*
 * Forget a table's natural key.  Error if there is none, or if the table is
 * watched and would be left without usable key.
 */
void
synchro_registry_unset_key(Oid relid)
{
	const SynchroTable *table = lock_table(relid);

	if (!synchro_registry_has_key(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no registered natural key", table->name),
				 errhint("Only what add_table, alter_table or register_natural_key named can be unregistered.")));
	if (table->watched && !table->has_primary_key)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the natural key of table \"%s\" is the only key it has", table->name),
				 errdetail("The table is watched and has no primary key."),
				 errhint("Add a primary key or remove the table first, "
						 "or name another key with synchro.alter_table.")));
	if (table->watched)
		synchro_keycheck_columns(table, NIL, skipped_names(table));
	synchro_registry_write("DELETE FROM synchro.natural_key WHERE relation = $1", relid, NIL, false);
	settle(relid);
}

/*
 * Tables of a schema that are not watched yet, by name.
 */
static List *
tables_of_schema(Oid schema)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(schema)};
	SynchroSqlScope scope;
	List	   *tables = NIL;
	uint64		rows;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	rows = synchro_sql_run("SELECT c.oid FROM pg_class c"
						   " WHERE c.relnamespace = $1 AND c.relkind IN ('r', 'p')"
						   " AND NOT EXISTS (SELECT FROM synchro.watched w WHERE w.relation = c.oid)"
						   " ORDER BY c.relname",
						   1, types, values, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		Oid			relid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
														   SPI_tuptable->tupdesc, 1, &isnull));
		MemoryContext old = MemoryContextSwitchTo(caller);

		tables = lappend_oid(tables, relid);
		MemoryContextSwitchTo(old);
	}
	synchro_sql_close(&scope);
	return tables;
}

/*
 * Error that names all the tables that are not the caller's.  watched: they have
 * been added already.
 */
static void
require_ownership(List *tables, Oid schema, bool watched)
{
	StringInfoData names;
	ListCell   *cell;

	initStringInfo(&names);
	foreach(cell, tables)
	{
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(lfirst_oid(cell)));
		Form_pg_class class;

		if (!HeapTupleIsValid(tuple))
			continue;
		class = (Form_pg_class) GETSTRUCT(tuple);
		if (!has_privs_of_role(GetUserId(), class->relowner))
			appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "", NameStr(class->relname));
		ReleaseSysCache(tuple);
	}
	if (names.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 watched ? errmsg("must be owner of all watched tables of schema \"%s\"", get_namespace_name(schema)) :
				 errmsg("must be owner of all tables of schema \"%s\"", get_namespace_name(schema)),
				 errdetail("These tables have another owner: %s.", names.data),
				 watched ? errhint("Let a role that owns all of them call it, or a superuser.") :
				 errhint("Let their owners add them with synchro.add_table.")));
}

/*
 * Watch one of a schema's tables, if it can be; true if it was added.
 */
static bool
add_table_of_schema(Oid relid, Oid schema)
{
	const SynchroTable *table = lock_table(relid);
	Oid			root = synchro_table_root(relid);

	if (synchro_table_is_detaching(relid))
	{
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("partition \"%s\" was not added: it is being detached", table->name),
				 errhint("Add it when that is done: SELECT synchro.add_table(%s);", quote_literal_cstr(table->qualified))));
		return false;
	}
	if (root != relid)
	{
		/* what covers it is added, or not, for itself */
		if (get_rel_namespace(root) != schema && !list_member_oid(synchro_registry_watched(), root))
			ereport(NOTICE,
					(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
					 errmsg("partition \"%s\" was not added", table->name),
					 errhint("Its root is in another schema: SELECT synchro.add_table(%s);",
							 quote_literal_cstr(synchro_table_get(root, false)->qualified))));
		return false;
	}
	if (table->mode == SYNCHRO_MODE_NONE)
	{
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("table \"%s\" was not added: it has no usable key", table->name),
				 errhint("Add a primary key, or name the columns that identify a row: "
						 "SELECT synchro.add_table(%s, natural_key => ARRAY[...]);",
						 quote_literal_cstr(table->qualified))));
		return false;
	}
	if (synchro_keycheck_generated(table) != NULL)
	{
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("table \"%s\" was not added: column \"%s\" in its primary key is generated",
						table->name, synchro_keycheck_generated(table)),
				 errhint("Make it an ordinary column on all servers.")));
		return false;
	}
	add_row(table, NIL, NIL, false);
	CacheInvalidateRelcacheByRelid(relid);
	return true;
}

/*
 * Watch every table of a schema that is not watched yet and has a usable key.
 * Returns how many were added.  Error if one is not the caller's own, or if
 * the schema is one of the server's or ours.
 */
int
synchro_registry_add_schema(Oid schema)
{
	char	   *name = synchro_keycheck_schema(schema);
	List	   *tables;
	List	   *added = NIL;
	ListCell   *cell;

	if (isAnyTempNamespace(schema) || synchro_keycheck_is_reserved(schema))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("schema \"%s\" cannot be added", name),
				 errdetail("Its tables are temporary, or belong to the server or to synchro itself."),
				 errhint("Name a schema with tables of your own.")));

	synchro_registry_lock();
	tables = tables_of_schema(schema);
	require_ownership(tables, schema, false);
	foreach(cell, tables)
		if (add_table_of_schema(lfirst_oid(cell), schema))
			added = lappend_oid(added, lfirst_oid(cell));

	CommandCounterIncrement();
	foreach(cell, added)
		synchro_keycheck_circle(lfirst_oid(cell));
	synchro_registry_renew_triggers();
	return list_length(added);
}

/*
 * The watched tables of a schema.  Error if one is not the caller's own, or if
 * there are none.
 */
List *
synchro_registry_schema(Oid schema)
{
	char	   *name = synchro_keycheck_schema(schema);
	List	   *tables = NIL;
	ListCell   *cell;

	foreach(cell, synchro_registry_watched())
		if (get_rel_namespace(lfirst_oid(cell)) == schema)
			tables = lappend_oid(tables, lfirst_oid(cell));
	if (tables == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no table of schema \"%s\" is watched", name),
				 errhint("SELECT synchro.add_schema(%s); watches all of them.",
						 quote_literal_cstr(quote_identifier(name)))));
	require_ownership(tables, schema, true);
	return tables;
}

/*
 * Look at the definitions of watched tables anew: their keys are checked, their
 * triggers made where they are missing or not as they should be.  Nothing of
 * the log is touched.
 */
void
synchro_registry_renew(List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		const SynchroTable *table = lock_watched_table(lfirst_oid(cell));

		synchro_keycheck_columns(table, key_names(table), skipped_names(table));
		if (table->mode == SYNCHRO_MODE_NONE)
			synchro_keycheck_no_usable_key(table);
		store_sequences(table);
		CacheInvalidateRelcacheByRelid(table->relid);
	}
	CommandCounterIncrement();
	foreach(cell, tables)
		synchro_keycheck_circle(lfirst_oid(cell));
	synchro_registry_renew_triggers();
}
