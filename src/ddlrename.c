/*-------------------------------------------------------------------------
 *
 * ddlrename.c
 *	  What follows from DDL that renames or moves something: the registry's
 *	  columns and the remotes' servers bear their new names, and the name that a
 *	  watched table had is noted, since another table may take it.
 *
 * For the event triggers.  A watched table itself is known by its OID.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "ddlrename.h"
#include "registryrow.h"
#include "target.h"

/* the table that is about to be moved to another schema, and where it is */
static Oid	moving = InvalidOid;
static Oid	moved_from = InvalidOid;

/*
 * The tables that are made OF a composite type.
 */
List *
synchro_ddlrename_typed_tables(Oid type)
{
	Relation	rel = table_open(RelationRelationId, AccessShareLock);
	List	   *tables = NIL;
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], Anum_pg_class_reloftype, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(type));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, lengthof(key), key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		tables = lappend_oid(tables, ((Form_pg_class) GETSTRUCT(tuple))->oid);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tables;
}

/*
 * Tables with the column that RENAME COLUMN, or RENAME ATTRIBUTE ... CASCADE, is
 * about in the registry: the table itself, or those that inherit the column.
 */
static List *
tables_that_name(RenameStmt *rename)
{
	Oid			relid = RangeVarGetRelid(rename->relation, NoLock, true);
	List	   *tables;
	List	   *concerned = NIL;
	ListCell   *cell;
	ListCell   *member;

	if (!OidIsValid(relid))
		return NIL;
	tables = rename->renameType == OBJECT_ATTRIBUTE ? synchro_ddlrename_typed_tables(get_rel_type_id(relid)) : list_make1_oid(relid);
	foreach(cell, tables)
		foreach(member, find_all_inheritors(lfirst_oid(cell), NoLock, NULL))
			if (synchro_registry_names_column(lfirst_oid(member), rename->subname))
				concerned = list_append_unique_oid(concerned, lfirst_oid(member));
	return concerned;
}

static void
rename_column(RenameStmt *rename)
{
	ListCell   *cell;

	foreach(cell, tables_that_name(rename))
		synchro_registry_rename_column(lfirst_oid(cell), rename->subname, rename->newname);
}

/*
 * May a watched table have got that name, or schema?  Any that has it: which one was
 * meant can only be asked by SQL.
 *
 * NULL: whatever it is.
 */
static bool
is_watched_as(const char *schema, const char *name)
{
	Oid			namespace = schema != NULL ? get_namespace_oid(schema, true) : InvalidOid;
	ListCell   *cell;

	foreach(cell, synchro_registry_watched())
	{
		char	   *present = get_rel_name(lfirst_oid(cell));

		if ((schema == NULL || get_rel_namespace(lfirst_oid(cell)) == namespace) &&
			(name == NULL || (present != NULL && strcmp(present, name) == 0)))
			return true;
	}
	return false;
}

/*
 * Before a table is moved to another schema: afterwards nobody can tell from which one,
 * where the statement does not say.
 */
void
synchro_ddlrename_begin(AlterObjectSchemaStmt *move)
{
	moving = move->objectType == OBJECT_TABLE ? RangeVarGetRelid(move->relation, NoLock, true) : InvalidOid;
	moved_from = OidIsValid(moving) ? get_rel_namespace(moving) : InvalidOid;
}

/*
 * Was that statement about something of ours?
 */
bool
synchro_ddlrename_concerns(Node *statement)
{
	RenameStmt *rename = (RenameStmt *) statement;

	if (IsA(statement, AlterObjectSchemaStmt))
		return OidIsValid(moving) && list_member_oid(synchro_registry_watched(), moving) &&
			get_rel_namespace(moving) != moved_from;
	switch (rename->renameType)
	{
		case OBJECT_COLUMN:
		case OBJECT_ATTRIBUTE:
			return rename->relation != NULL && tables_that_name(rename) != NIL;
		case OBJECT_TABLE:
			return is_watched_as(NULL, rename->newname);
		case OBJECT_SCHEMA:
			return is_watched_as(rename->newname, NULL);
		case OBJECT_FOREIGN_SERVER:
			return synchro_target_is_registered(strVal(rename->object));
		default:
			return false;
	}
}

/*
 * Do what follows from it.  From an event trigger at ddl_command_end only.
 */
void
synchro_ddlrename_follow(Node *statement)
{
	RenameStmt *rename = (RenameStmt *) statement;

	if (IsA(statement, AlterObjectSchemaStmt))
	{
		synchro_registry_note_renamed(get_namespace_name(moved_from), NULL);
		return;
	}
	switch (rename->renameType)
	{
		case OBJECT_TABLE:
			synchro_registry_note_renamed(NULL, rename->relation->relname);
			break;
		case OBJECT_SCHEMA:
			synchro_registry_note_renamed(rename->subname, NULL);
			break;
		case OBJECT_FOREIGN_SERVER:
			synchro_target_renamed(strVal(rename->object), rename->newname);
			break;
		default:
			rename_column(rename);
			break;
	}
}
