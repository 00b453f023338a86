/*-------------------------------------------------------------------------
 *
 * keycheck.c
 *	  What may be registered: errors and notices about tables, natural keys
 *	  and skipped columns.
 *
 * Nothing here writes.  Columns come as lists of char *, as the caller named
 * them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "keycheck.h"
#include "localsql.h"
#include "reader.h"
#include "registryrow.h"
#include "samevalue.h"

/*
 * Name of a relation for messages, with schema, quoted where SQL needs it.
 */
static char *
qualified_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		return psprintf("%u", relid);
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}

static const char *
advice_for_relkind(char relkind)
{
	switch (relkind)
	{
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
			return "Register the tables that it reads.";
		case RELKIND_FOREIGN_TABLE:
			return "Register the table on the server where its rows are.";
		case RELKIND_INDEX:
		case RELKIND_PARTITIONED_INDEX:
			return "Register the table that the index belongs to.";
		default:
			return "Only tables can be registered.";
	}
}

/*
 * Is a schema one whose tables belong to the server or to ourselves?
 */
bool
synchro_keycheck_is_reserved(Oid schema)
{
	char	   *name = get_namespace_name(schema);

	return IsCatalogNamespace(schema) || IsToastNamespace(schema) ||
		(name != NULL && (strcmp(name, SYNCHRO_SCHEMA) == 0 ||
						  strcmp(name, SYNCHRO_PEER_SCHEMA) == 0 ||
						  strcmp(name, "information_schema") == 0));
}

/*
 * The schema's name; an error if there is none, since a regnamespace may be any
 * number.
 */
char *
synchro_keycheck_schema(Oid schema)
{
	char	   *name = get_namespace_name(schema);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema with OID %u does not exist", schema)));
	return name;
}

/*
 * Error unless the relation is a table that can be put to that use.
 */
void
synchro_keycheck_relation(Oid relid, SynchroUse use)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	const char *problem = use == SYNCHRO_USE_WATCHED ? "\"%s\" cannot be watched" :
		"\"%s\" cannot have a natural key";
	FormData_pg_class class;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	memcpy(&class, GETSTRUCT(tuple), CLASS_TUPLE_SIZE);
	ReleaseSysCache(tuple);

	if (class.relkind != RELKIND_RELATION && class.relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg_internal(problem, NameStr(class.relname)),
				 errdetail_relkind_not_supported(class.relkind),
				 errhint("%s", advice_for_relkind(class.relkind))));
	if (class.relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg_internal(problem, NameStr(class.relname)),
				 errdetail("It is a temporary table."),
				 errhint("Only tables that other sessions can read are pushed; use a permanent table.")));
	if (synchro_keycheck_is_reserved(class.relnamespace))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg_internal(problem, NameStr(class.relname)),
				 errdetail("Tables of schema \"%s\" belong to the server or to synchro itself.",
						   get_namespace_name(class.relnamespace)),
				 errhint("Register tables of your own.")));
	if (synchro_table_is_detaching(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_internal(problem, NameStr(class.relname)),
				 errdetail("It is a partition that is being detached."),
				 errhint("Wait until it is, or finish that: ALTER TABLE ... DETACH PARTITION %s FINALIZE.", qualified_name(relid))));
	if (class.relispartition)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg_internal(problem, NameStr(class.relname)),
				 errdetail("It is a partition."),
				 errhint("Register its root, table %s: that covers all partitions.",
						 qualified_name(synchro_table_root(relid)))));
}

/*
 * Index in table->columns of a column that the caller named; error if the
 * table has none of that name.
 */
static int
require_column(const SynchroTable *table, const char *name)
{
	int			column = synchro_table_column(table, name);
	StringInfoData names;

	if (column >= 0)
		return column;

	initStringInfo(&names);
	for (int i = 0; i < table->ncolumns; i++)
		appendStringInfo(&names, "%s\"%s\"", i > 0 ? ", " : "", table->columns[i].name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"%s\" does not exist", name, table->name),
			 table->ncolumns == 0 ? errhint("The table has no columns.") :
			 errhint("The table has these columns: %s.", names.data)));
	return -1;
}

static void
check_not_twice(const SynchroTable *table, List *names, ListCell *at, const char *where)
{
	for (ListCell *cell = list_head(names); cell != at; cell = lnext(names, cell))
		if (strcmp((char *) lfirst(cell), (char *) lfirst(at)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("column \"%s\" of table \"%s\" is listed twice among the %s",
							(char *) lfirst(at), table->name, where),
					 errhint("Name each column once.")));
}

static bool
in_primary_key(const SynchroTable *table, int column)
{
	if (!table->has_primary_key)
		return false;
	for (int i = 0; i < table->nidentity; i++)
		if (table->identity[i] == column)
			return true;
	return false;
}

/*
 * Error if a column cannot be part of the table's natural key.
 */
static void
check_key_column(const SynchroTable *table, int index)
{
	const SynchroColumn *column = &table->columns[index];
	TypeCacheEntry *type;

	/* what the remote computes itself cannot be given to it */
	if (column->generated)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("generated column \"%s\" of table \"%s\" cannot be in a natural key",
						column->name, table->name),
				 errhint("Name the columns that it is generated from instead.")));

	if (in_primary_key(table, index) && column->from_sequence && column->fk < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("column \"%s\" of table \"%s\" cannot be in a natural key",
						column->name, table->name),
				 errdetail("Its values come from a sequence, so the same row has another one on each server."),
				 errhint("Name columns whose values mean the same on every server, or give no natural key: "
						 "rows are then matched by stored references.")));

	type = lookup_type_cache(column->type, TYPECACHE_EQ_OPR);
	if (!OidIsValid(type->eq_opr))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("column \"%s\" of table \"%s\" cannot be in a natural key",
						column->name, table->name),
				 errdetail("Type %s has no equality operator.", format_type_be(column->type)),
				 errhint("Name columns whose values can be compared.")));
}

/*
 * A generated column of the table's primary key, or NULL: new rows get their
 * identity before they are written, and what is generated cannot be written.
 */
const char *
synchro_keycheck_generated(const SynchroTable *table)
{
	for (int i = 0; i < table->nidentity && table->has_primary_key; i++)
		if (table->columns[table->identity[i]].generated)
			return table->columns[table->identity[i]].name;
	return NULL;
}

/*
 * Error if there is one.
 */
void
synchro_keycheck_primary_key(const SynchroTable *table)
{
	const char *name = synchro_keycheck_generated(table);

	if (name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("column \"%s\" in the primary key of table \"%s\" is generated", name, table->name),
				 errdetail("It identifies the table's rows, and what a server generates cannot be pushed to it."),
				 errhint("Make it an ordinary column on all servers, filled by a trigger or by who inserts: ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION;",
						 table->qualified, quote_identifier(name))));
}

/*
 * Error if a column cannot be skipped.
 *
 * by_key: rows are matched by a natural key, not by the primary key.
 */
static void
check_skipped_column(const SynchroTable *table, int index, bool by_key)
{
	const SynchroColumn *column = &table->columns[index];

	if (!in_primary_key(table, index) || column->from_sequence)
		return;

	/* a natural key finds the row, so the remote may make up its own id */
	if (!by_key)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("column \"%s\" of table \"%s\" cannot be skipped",
						column->name, table->name),
				 errdetail("It is in the primary key, by which rows are found on the remote."),
				 errhint("Register a natural key, or do not skip the column.")));
	if (!column->has_default)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("column \"%s\" of table \"%s\" cannot be skipped",
						column->name, table->name),
				 errdetail("It is in the primary key and nothing generates its value for a new row."),
				 errhint("Give it a default, or do not skip the column.")));
}

/*
 * Check a natural key and skipped columns against the table and against each
 * other.  An empty key means none, that is: rows are found by primary key.
 *
 * Errors name the column and say what to do.
 */
void
synchro_keycheck_columns(const SynchroTable *table, List *key, List *skip)
{
	ListCell   *cell;

	/* keys are kept in arrays of that size, and counted in five bits of a layout */
	if (list_length(key) > INDEX_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("natural key of table \"%s\" has %d columns", table->name, list_length(key)),
				 errdetail("It cannot have more than %d.", INDEX_MAX_KEYS),
				 errhint("Name fewer columns that identify a row.")));
	foreach(cell, key)
	{
		char	   *name = lfirst(cell);
		int			column = require_column(table, name);

		check_not_twice(table, key, cell, "natural key's columns");
		if (synchro_names_have(skip, name))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("column \"%s\" of table \"%s\" is both skipped and in the natural key",
							name, table->name),
					 errhint("A skipped column is never pushed, so no row can be found by it: "
							 "leave it out of one of the two.")));
		check_key_column(table, column);
	}
	foreach(cell, skip)
	{
		int			column = require_column(table, lfirst(cell));

		check_not_twice(table, skip, cell, "skipped columns");
		check_skipped_column(table, column, key != NIL);
	}
}

/*
 * Parents that a table's key stands for: those that its foreign keys in the
 * key point at, without the table itself.
 */
static List *
parents_in_key(Oid relid)
{
	const SynchroTable *table = synchro_table_get(relid, true);
	List	   *parents = NIL;

	for (int i = 0; table != NULL && i < table->nfks; i++)
		if (table->fks[i].parent != relid && synchro_table_fk_in_key(table, i))
			parents = list_append_unique_oid(parents, table->fks[i].parent);
	return parents;
}

static void
report_circle(List *path, Oid again)
{
	StringInfoData way;
	bool		inside = false;
	ListCell   *cell;

	initStringInfo(&way);
	foreach(cell, path)
	{
		inside |= lfirst_oid(cell) == again;
		if (inside)
			appendStringInfo(&way, "%s to ", qualified_name(lfirst_oid(cell)));
	}
	appendStringInfoString(&way, qualified_name(again));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			 errmsg("the key of table \"%s\" goes round in a circle", get_rel_name(again)),
			 errdetail("Its foreign keys lead from %s.", way.data),
			 errhint("Leave the foreign key out of the natural key of one of these tables.")));
}

static void
check_trees(Oid relid)
{
	const SynchroTable *table = synchro_table_get(relid, true);

	if (table == NULL)
		return;
	table = synchro_table_copy(table, CurrentMemoryContext);
	if (synchro_trees_in_key(table, synchro_same_references(table)) > 1)
		synchro_report_trees(table);
}

/*
 * Walk the keys' foreign keys depth first.  path: the tables above this one,
 * *done: tables from which no circle can be reached.
 */
static void
walk_keys(Oid relid, List *path, List **done)
{
	ListCell   *cell;
	List	   *parents;

	check_stack_depth();
	if (list_member_oid(path, relid))
		report_circle(path, relid);
	if (list_member_oid(*done, relid))
		return;
	check_trees(relid);
	parents = parents_in_key(relid);
	path = lappend_oid(list_copy(path), relid);
	foreach(cell, parents)
		walk_keys(lfirst_oid(cell), path, done);
	*done = lappend_oid(*done, relid);
}

/*
 * Error if a table's key, as registered, leads over other tables' keys back
 * to where it has been.  A table that references itself is a tree, no circle; but
 * it can be one tree only.
 */
void
synchro_keycheck_circle(Oid relid)
{
	List	   *done = NIL;

	walk_keys(relid, NIL, &done);
}

/*
 * Has the table a unique index on exactly these columns, over all rows?
 */
static bool
has_unique_index(const SynchroTable *table, List *key)
{
	Relation	rel = relation_open(table->relid, AccessShareLock);
	List	   *indexes = RelationGetIndexList(rel);
	bool		found = false;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));
		Form_pg_index index;
		bool		fits;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		fits = index->indisunique && index->indisvalid &&
			index->indnkeyatts == list_length(key) &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
		for (int i = 0; fits && i < index->indnkeyatts; i++)
		{
			char	   *name = index->indkey.values[i] == 0 ? NULL :
				get_attname(table->relid, index->indkey.values[i], false);

			fits = name != NULL && synchro_names_have(key, name);
		}
		found |= fits;
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	relation_close(rel, AccessShareLock);
	return found;
}

/*
 * Tell what is allowed, but may not be what the caller wants: columns that
 * may hold NULL, and a natural key that nothing keeps unique.
 */
void
synchro_keycheck_notices(const SynchroTable *table, List *key, bool allow_many)
{
	StringInfoData columns;
	bool		nullable = false;
	ListCell   *cell;

	if (key == NIL)
		return;

	initStringInfo(&columns);
	foreach(cell, key)
	{
		char	   *name = lfirst(cell);

		appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "", quote_identifier(name));
		if (table->columns[require_column(table, name)].not_null)
			continue;
		nullable = true;
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("column \"%s\" of the natural key of table \"%s\" may hold NULL",
						name, table->name),
				 errdetail("A NULL in a natural key matches NULL.")));
	}
	if (!allow_many && !has_unique_index(table, key))
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("the natural key of table \"%s\" is not unique by any index", table->name),
				 errdetail("Rows that share a key cannot be told apart on the remote."),
				 errhint("CREATE UNIQUE INDEX ON %s (%s)%s, there as well.",
						 table->qualified, columns.data, nullable ? " NULLS NOT DISTINCT" : "")));
}

/*
 * Say of a table that is to be watched how its rows get to the remotes, if it
 * has any: the log knows nothing of them.
 */
void
synchro_keycheck_rows(const SynchroTable *table)
{
	SynchroSqlScope scope;
	SynchroReader owner;
	char	   *remote = "...";
	bool		has_rows;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_reader_begin_as_owner(&owner, table->relid);
	has_rows = synchro_sql_run(psprintf("SELECT FROM %s LIMIT 1", synchro_table_rows(table)),
							   0, NULL, NULL, NULL) > 0;
	synchro_reader_end(&owner);
	if (has_rows && synchro_sql_run("SELECT quote_literal(server) FROM synchro.remote ORDER BY server LIMIT 1", 0, NULL, NULL, NULL) == 1)
		remote = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (has_rows)
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("table \"%s\" has rows already", table->name),
				 errdetail("They are pushed when they change."),
				 errhint("To have all of them on a remote: SELECT synchro.copy_table(%s, %s);",
						 remote, quote_literal_cstr(table->qualified))));
	synchro_sql_close(&scope);
}

/*
 * Error for a table whose rows cannot be found on a remote.
 */
void
synchro_keycheck_no_usable_key(const SynchroTable *table)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" has no usable key", table->name),
			 errdetail("It has neither a primary key nor a natural key, so its rows cannot be found on a remote."),
			 errhint("Add a primary key, or name the columns that identify a row: "
					 "SELECT synchro.%s(%s, natural_key => ARRAY[...]);",
					 table->watched ? "alter_table" : "add_table", quote_literal_cstr(table->qualified))));
}
