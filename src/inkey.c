/*-------------------------------------------------------------------------
 *
 * inkey.c
 *	  Does a table stand inside a watched table's natural key?  (header:
 *	  tableinfo.h)
 *
 * A trigger of ours says so, but may be left over, or anybody's: whoever has a
 * table may make one of that name.  Were its entries taken for those of a table in
 * a key, each pass would describe the table on the remote, where there need not be
 * one, and keep the log for it.
 *
 * Asked in users' transactions and while a table is described: so this reads
 * catalogs only, and opens no table, which could wait for whoever rewrites it.
 * A primary key that a sequence makes part of counts as a key here, though its
 * rows are known by reference: that is too much by a table at most.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "nodes/bitmapset.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "tableinfo.h"

/* a foreign key to the table in question */
typedef struct Referrer
{
	Oid			relid;
	Bitmapset  *columns;		/* attribute numbers */
} Referrer;

/*
 * The primary key's columns, as attribute numbers.
 */
static Bitmapset *
primary_key_columns(Relation constraints, Oid relid)
{
	Bitmapset  *columns = NULL;
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], Anum_pg_constraint_conrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(constraints, ConstraintRelidTypidNameIndexId, true, NULL, 1, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		value;
		ArrayType  *conkey;

		if (((Form_pg_constraint) GETSTRUCT(tuple))->contype != CONSTRAINT_PRIMARY)
			continue;
		value = heap_getattr(tuple, Anum_pg_constraint_conkey, RelationGetDescr(constraints), &isnull);
		if (isnull)
			continue;
		conkey = DatumGetArrayTypeP(value);
		for (int i = 0; i < ARR_DIMS(conkey)[0]; i++)
			columns = bms_add_member(columns, ((int16 *) ARR_DATA_PTR(conkey))[i]);
	}
	systable_endscan(scan);
	return columns;
}

/*
 * The natural key's columns, as attribute numbers.
 */
static Bitmapset *
natural_key_columns(Relation constraints, Oid relid)
{
	bool		registered;
	List	   *names = synchro_table_registered_key(relid, &registered);
	Bitmapset  *columns = NULL;
	ListCell   *cell;

	if (!registered)
		return primary_key_columns(constraints, relid);
	foreach(cell, names)
	{
		AttrNumber	attnum = get_attnum(relid, lfirst(cell));

		if (attnum > 0)
			columns = bms_add_member(columns, attnum);
	}
	return columns;
}

/*
 * The foreign keys to a table, also by way of those of its partitions that it covers.
 */
static List *
find_referrers(Relation constraints, Oid relid)
{
	bool		partitioned = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE;
	List	   *parts = partitioned ? find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
	SysScanDesc scan = systable_beginscan(constraints, InvalidOid, false, NULL, 0, NULL);
	List	   *referrers = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);
		AttrNumber	conkey[INDEX_MAX_KEYS];
		AttrNumber	confkey[INDEX_MAX_KEYS];
		int			ncolumns;
		int			deleted;
		Referrer   *referrer;

		if (con->contype != CONSTRAINT_FOREIGN || !list_member_oid(parts, con->confrelid) ||
			(con->confrelid != relid && synchro_table_covering(con->confrelid) != relid))
			continue;
		DeconstructFkConstraintRow(tuple, &ncolumns, conkey, confkey, NULL, NULL, NULL, &deleted, NULL);
		referrer = palloc0(sizeof(Referrer));
		referrer->relid = con->conrelid;
		for (int i = 0; i < ncolumns; i++)
			referrer->columns = bms_add_member(referrer->columns, conkey[i]);
		referrers = lappend(referrers, referrer);
	}
	systable_endscan(scan);
	return referrers;
}

/*
 * Does a table stand inside a watched table's natural key, at any depth?
 */
bool
synchro_table_stands_in_key(Oid relid)
{
	Relation	constraints = table_open(ConstraintRelationId, AccessShareLock);
	List	   *queue = list_make1_oid(relid);
	bool		result = false;

	/* grows while we go */
	for (int i = 0; i < list_length(queue) && !result; i++)
	{
		ListCell   *cell;

		foreach(cell, find_referrers(constraints, list_nth_oid(queue, i)))
		{
			Referrer   *referrer = lfirst(cell);

			if (list_member_oid(queue, referrer->relid) ||
				!bms_overlap(referrer->columns, natural_key_columns(constraints, referrer->relid)))
				continue;
			result |= synchro_table_is_watched(referrer->relid);
			queue = lappend_oid(queue, referrer->relid);
		}
	}
	table_close(constraints, AccessShareLock);
	return result;
}
