/*-------------------------------------------------------------------------
 *
 * tableinfo.c
 *	  What a table looks like: columns, identity, natural key, foreign keys.
 *
 * Descriptions are built from the catalogs and, in tablemode.c, from what is
 * registered; tablecache.c keeps them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "nodes/nodeFuncs.h"
#include "nodes/primnodes.h"
#include "rewrite/rewriteHandler.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/regproc.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "tableinfo.h"

/*
 * Is a column part of the natural key?
 */
bool
synchro_column_is_key(const SynchroTable *table, int column)
{
	for (int i = 0; i < table->nkey; i++)
		if (table->key[i] == column)
			return true;
	return false;
}

/*
 * Index in columns of the column with that attribute number, or -1.
 */
static int
column_by_attnum(const SynchroTable *table, AttrNumber attnum)
{
	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].attnum == attnum)
			return i;
	return -1;
}

/*
 * The same of a column that must be there: one that a foreign key references.
 */
int
synchro_table_attribute(const SynchroTable *table, AttrNumber attnum)
{
	int			column = column_by_attnum(table, attnum);

	if (column < 0)
		elog(ERROR, "table %s has no attribute %d", table->qualified, attnum);
	return column;
}

/*
 * Index in table->columns of the column with that name, or -1.
 */
int
synchro_table_column(const SynchroTable *table, const char *name)
{
	for (int i = 0; i < table->ncolumns; i++)
		if (strcmp(table->columns[i].name, name) == 0)
			return i;
	return -1;
}

static bool
calls_nextval(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, NextValueExpr))
		return true;
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == F_NEXTVAL)
		return true;
	return expression_tree_walker(node, calls_nextval, context);
}

static void
build_columns(SynchroTable *table, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	table->columns = palloc0(sizeof(SynchroColumn) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		SynchroColumn *column;
		Node	   *value;

		if (att->attisdropped)
			continue;
		column = &table->columns[table->ncolumns++];
		column->attnum = att->attnum;
		column->name = pstrdup(NameStr(att->attname));
		column->type = att->atttypid;
		column->typmod = att->atttypmod;
		column->typlen = att->attlen;
		column->typbyval = att->attbyval;
		column->not_null = synchro_attribute_not_null(desc, i);
		column->generated = att->attgenerated != '\0';
		column->identity = att->attidentity;

		/* the default may be the type's */
		value = column->generated || column->identity ? NULL : build_column_default(rel, att->attnum);
		column->from_sequence = column->identity || calls_nextval(value, NULL);
		column->has_default = value != NULL;
		column->fk = -1;
	}
}

static void
build_primary_key(SynchroTable *table, Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;

	/* rd_pkindex names a deferrable one in some server versions only */
	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indisprimary && index->rd_index->indisvalid)
		{
			table->nidentity = IndexRelationGetNumberOfKeyAttributes(index);
			table->identity = palloc(sizeof(int) * table->nidentity);
			for (int i = 0; i < table->nidentity; i++)
				table->identity[i] = column_by_attnum(table, index->rd_index->indkey.values[i]);
			table->has_primary_key = true;
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
}

/*
 * Set what one foreign key says: its parent, partitions replaced by what
 * covers them, and the columns on either side.
 */
static bool
build_foreign_key(SynchroTable *table, SynchroForeignKey *fk, HeapTuple tuple)
{
	Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
	AttrNumber	conkey[INDEX_MAX_KEYS];
	AttrNumber	confkey[INDEX_MAX_KEYS];
	int			deleted;

	DeconstructFkConstraintRow(tuple, &fk->ncols, conkey, confkey,
							   NULL, NULL, NULL, &deleted, NULL);
	fk->name = pstrdup(NameStr(con->conname));
	fk->parent = synchro_table_covering(con->confrelid);
	fk->cols = palloc(sizeof(int) * fk->ncols);
	fk->refcols = palloc(sizeof(AttrNumber) * fk->ncols);
	for (int i = 0; i < fk->ncols; i++)
	{
		fk->cols[i] = column_by_attnum(table, conkey[i]);
		fk->refcols[i] = confkey[i];
		if (fk->parent != con->confrelid)
			fk->refcols[i] = get_attnum(fk->parent,
										get_attname(con->confrelid, confkey[i], false));
		if (fk->cols[i] < 0 || fk->refcols[i] == InvalidAttrNumber)
			return false;
	}
	return true;
}

/*
 * Does a foreign key only carry out another one of the same table, on a partition of
 * what that references?  Such rows have a parent, as has a partition's own that is its
 * root's, too.
 */
static bool
only_carries_out(Form_pg_constraint con)
{
	HeapTuple	tuple;
	bool		result;

	if (!OidIsValid(con->conparentid))
		return false;
	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(con->conparentid));
	result = !HeapTupleIsValid(tuple) || ((Form_pg_constraint) GETSTRUCT(tuple))->conrelid == con->conrelid;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

static void
build_foreign_keys(SynchroTable *table)
{
	Relation	rel = table_open(ConstraintRelationId, AccessShareLock);
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;
	int			allocated = 4;

	table->fks = palloc0(sizeof(SynchroForeignKey) * allocated);
	ScanKeyInit(&key[0], Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(table->relid));
	scan = systable_beginscan(rel, ConstraintRelidTypidNameIndexId, true, NULL, 1, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);

		if (con->contype != CONSTRAINT_FOREIGN || only_carries_out(con) || synchro_constraint_has_period(con))
			continue;
		if (table->nfks == allocated)
		{
			allocated *= 2;
			table->fks = repalloc(table->fks, sizeof(SynchroForeignKey) * allocated);
		}
		if (build_foreign_key(table, &table->fks[table->nfks], tuple))
			table->nfks++;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	/*
	 * Each column is translated by one foreign key: the narrowest, since a
	 * wider one over the same column says the same and more.
	 */
	for (int i = 0; i < table->nfks; i++)
	{
		SynchroForeignKey *fk = &table->fks[i];

		for (int j = 0; j < fk->ncols; j++)
		{
			SynchroColumn *column = &table->columns[fk->cols[j]];

			if (column->fk < 0 || table->fks[column->fk].ncols > fk->ncols)
			{
				column->fk = i;
				column->fk_pos = j;
			}
		}
	}
}

static uint32
columns_hash(const SynchroTable *table, const int *columns, int ncolumns)
{
	uint32		hash = hash_uint32(ncolumns);

	for (int i = 0; i < ncolumns; i++)
	{
		const SynchroColumn *column = &table->columns[columns[i]];
		Oid			type = column->type;

		/* the key codec reads any integer as any other */
		if (type == INT2OID || type == INT4OID)
			type = INT8OID;

		/* the same bytes */
		if (type == VARCHAROID)
			type = TEXTOID;
		hash = hash_combine(hash, hash_uint32(column->attnum));
		hash = hash_combine(hash, hash_uint32(type));
	}
	return hash;
}

static uint32
layout_of(const SynchroTable *table)
{
	return (columns_hash(table, table->identity, table->nidentity) & 0xffff0000) |
		((columns_hash(table, table->key, table->nkey) & 0x7ff) << 5) |
		((uint32) (table->nkey - 1) & 0x1f);
}

bool
synchro_trigger_fires(char tgenabled)
{
	return tgenabled == TRIGGER_FIRES_ALWAYS || tgenabled == TRIGGER_FIRES_ON_ORIGIN;
}

/*
 * Our triggers of a table.  TRUNCATE of a partitioned table fires those of its leaves.
 */
static void
look_at_triggers(SynchroTable *table, Relation rel)
{
	bool		rows = false;
	bool		truncate = table->relkind != RELKIND_RELATION;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (strcmp(trigger->tgname, SYNCHRO_ROW_TRIGGER) == 0)
		{
			table->key_only = !trigger->tgisclone;
			rows = synchro_trigger_fires(trigger->tgenabled);
		}
		else if (strcmp(trigger->tgname, SYNCHRO_TRUNCATE_TRIGGER) == 0)
			truncate = synchro_trigger_fires(trigger->tgenabled);
	}
	table->captured = rows && truncate;
}

/*
 * Name of a table with its schema, quoted where it has to be.  Also kept by that, and
 * compared, so the same whatever the caller has set.
 */
static char *
qualified_name(const SynchroTable *table)
{
	bool		quotes_all = quote_all_identifiers;
	char	   *name;

	quote_all_identifiers = false;
	name = quote_qualified_identifier(table->schema, table->name);
	quote_all_identifiers = quotes_all;
	return name;
}

/*
 * Describe a table, in a child of the memory context parent; NULL where there
 * is no such table.
 */
SynchroTable *
synchro_table_build(Oid relid, MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "synchro table",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Relation	rel = try_relation_open(relid, AccessShareLock);
	SynchroTable *table;

	if (rel == NULL)
	{
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
		return NULL;
	}
	table = palloc0(sizeof(SynchroTable));
	table->context = context;
	table->relid = relid;
	table->schema = get_namespace_name(RelationGetNamespace(rel));
	table->name = pstrdup(RelationGetRelationName(rel));
	table->qualified = qualified_name(table);
	table->relkind = rel->rd_rel->relkind;
	look_at_triggers(table, rel);

	build_columns(table, rel);
	build_primary_key(table, rel);
	build_foreign_keys(table);
	synchro_table_build_mode(table);
	table->key_only = table->key_only && !table->watched && synchro_table_stands_in_key(relid);
	table->layout = layout_of(table);

	relation_close(rel, AccessShareLock);
	MemoryContextSwitchTo(old);
	return table;
}

/*
 * A description of the same table that lives as long as context does.
 */
const SynchroTable *
synchro_table_copy(const SynchroTable *table, MemoryContext context)
{
	SynchroTable *copy = synchro_table_build(table->relid, context);

	if (copy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", table->relid)));
	return copy;
}

/*
 * Oid of the table with that quoted, qualified name, or InvalidOid.
 */
Oid
synchro_table_by_name(const char *qualified)
{
	List	   *names = stringToQualifiedNameList(qualified, NULL);

	return RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);
}

/*
 * Does the natural key contain a column of that foreign key, so that it
 * stands for the natural key of the row it references?
 */
bool
synchro_table_fk_in_key(const SynchroTable *table, int fk)
{
	for (int i = 0; i < table->nkey; i++)
		if (table->columns[table->key[i]].fk == fk)
			return true;
	return false;
}

/*
 * Position in the identity of the column with that attribute number, or -1.
 */
int
synchro_identity_position(const SynchroTable *table, AttrNumber attnum)
{
	for (int i = 0; i < table->nidentity; i++)
		if (table->columns[table->identity[i]].attnum == attnum)
			return i;
	return -1;
}

/*
 * Are a foreign key's referenced columns the parent's identity, in the
 * identity's order?
 */
bool
synchro_table_fk_to_identity(const SynchroForeignKey *fk, const SynchroTable *parent)
{
	if (fk->ncols != parent->nidentity)
		return false;
	for (int i = 0; i < fk->ncols; i++)
		if (fk->refcols[i] != parent->columns[parent->identity[i]].attnum)
			return false;
	return true;
}

/*
 * The mode's name as the user sees it.
 */
const char *
synchro_mode_name(SynchroMode mode)
{
	switch (mode)
	{
		case SYNCHRO_MODE_NATURAL_KEY:
			return "natural key";
		case SYNCHRO_MODE_PRIMARY_KEY:
			return "primary key";
		case SYNCHRO_MODE_REFERENCE:
			return "reference";
		case SYNCHRO_MODE_NONE:
			break;
	}
	return "none";
}

/*
 * The table, for FROM, UPDATE and DELETE: without those that inherit from it,
 * which are tables of their own, but with its partitions.
 */
char *
synchro_table_rows(const SynchroTable *table)
{
	return psprintf("%s%s", table->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ", table->qualified);
}

/*
 * The columns of identity and natural key, to compare with another node's.
 */
char *
synchro_table_keys_text(const SynchroTable *table)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "", quote_identifier(table->columns[table->identity[i]].name));
	appendStringInfoString(&text, "; ");
	for (int i = 0; i < table->nkey; i++)
		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "", quote_identifier(table->columns[table->key[i]].name));
	return text.data;
}
