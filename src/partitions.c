/*-------------------------------------------------------------------------
 *
 * partitions.c
 *	  Partitions: which table covers them, also while they are being detached, and
 *	  whether their triggers fire.  (header: tableinfo.h)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/partition.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "tableinfo.h"

/*
 * Look up a trigger; false if the table has none of that name.
 */
static bool
find_trigger(Relation triggers, Oid relid, const char *name, FormData_pg_trigger *trigger)
{
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&key[0], Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&key[1], Anum_pg_trigger_tgname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum(name));
	scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, NULL, 2, key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		memcpy(trigger, GETSTRUCT(tuple), sizeof(*trigger));
	systable_endscan(scan);
	return found;
}

static bool
has_firing_trigger(Relation triggers, Oid relid, const char *name)
{
	FormData_pg_trigger trigger;

	return find_trigger(triggers, relid, name, &trigger) && synchro_trigger_fires(trigger.tgenabled);
}

/*
 * Have all partitions of a table, at any depth, its triggers, enabled?  Takes no
 * lock on them.
 */
bool
synchro_table_parts_captured(Oid relid)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	bool		result = true;
	ListCell   *cell;

	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
	{
		Oid			part = lfirst_oid(cell);
		char		relkind = get_rel_relkind(part);

		/* rows are in the leaves, and their triggers fire */
		if (relkind != RELKIND_PARTITIONED_TABLE)
			result = result && has_firing_trigger(triggers, part, SYNCHRO_ROW_TRIGGER);
		if (relkind == RELKIND_RELATION)
			result = result && has_firing_trigger(triggers, part, SYNCHRO_TRUNCATE_TRIGGER);
	}
	table_close(triggers, AccessShareLock);
	return result;
}

/*
 * The partition root of a table, or the table itself.  A partition that is being
 * detached concurrently has none any more, though it counts as one until that is
 * done: it is a root itself.
 */
Oid
synchro_table_root(Oid relid)
{
	List	   *ancestors;
	Oid			root;

	if (!get_rel_relispartition(relid))
		return relid;
	ancestors = get_partition_ancestors(relid);
	root = ancestors != NIL ? llast_oid(ancestors) : relid;
	list_free(ancestors);
	return root;
}

/*
 * Is it such a partition?
 */
bool
synchro_table_is_detaching(Oid relid)
{
	return get_rel_relispartition(relid) && synchro_table_root(relid) == relid;
}

/*
 * Has the table a row trigger of ours that is not a root's?
 */
static bool
has_own_trigger(Oid relid)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	FormData_pg_trigger trigger;
	bool		result = find_trigger(rel, relid, SYNCHRO_ROW_TRIGGER, &trigger) && !OidIsValid(trigger.tgparentid);

	table_close(rel, AccessShareLock);
	return result;
}

/*
 * The table that a table's rows are logged and known under: itself, or the root of
 * which it is a partition.  One that was watched, or stood in a key, before it was made
 * a partition goes on by itself; so the nearest one that is watched or has a trigger of
 * its own.  Where nothing is logged, the nearest one that has a key, or else the root.
 */
Oid
synchro_table_covering(Oid relid)
{
	List	   *candidates;
	Oid			named = InvalidOid;
	Oid			captured = InvalidOid;
	Oid			root;
	ListCell   *cell;

	if (!get_rel_relispartition(relid))
		return relid;
	candidates = lcons_oid(relid, get_partition_ancestors(relid));
	foreach(cell, candidates)
	{
		Oid			candidate = lfirst_oid(cell);

		if (synchro_table_is_watched(candidate) || has_own_trigger(candidate))
		{
			captured = candidate;
			break;
		}
		if (!OidIsValid(named) && synchro_table_is_registered(candidate))
			named = candidate;
	}
	root = llast_oid(candidates);
	list_free(candidates);
	return OidIsValid(captured) ? captured : OidIsValid(named) ? named : root;
}

/*
 * A table becomes a partition, or none: have those that refer to it, or to a
 * partition of it, be described anew.
 */
void
synchro_table_forget_referring(Oid relid)
{
	List	   *parts = find_all_inheritors(relid, NoLock, NULL);
	Relation	rel = table_open(ConstraintRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(tuple);

		if (con->contype == CONSTRAINT_FOREIGN && list_member_oid(parts, con->confrelid))
			CacheInvalidateRelcacheByRelid(con->conrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * Does the statement at hand not see yet that the partition is being detached?
 */
static bool
is_seen_attached(Oid relid)
{
	Relation	rel = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result = false;

	ScanKeyInit(&key[0], Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, InheritsRelidSeqnoIndexId, true, NULL, lengthof(key), key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple) && ActiveSnapshotSet())
		result = XidInMVCCSnapshot(HeapTupleHeaderGetXmin(tuple->t_data), GetActiveSnapshot());
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * The covering table as the statement at hand sees it: one with a snapshot of
 * before the partition was being detached writes to it through the root, and is
 * waited for by DETACH PARTITION.
 *
 * passing: set if the next statement may see it otherwise.
 */
Oid
synchro_table_covering_seen(Oid relid, bool *passing)
{
	Oid			root = synchro_table_covering(relid);

	*passing = false;
	while (synchro_table_is_detaching(root))
	{
		*passing = true;
		if (!is_seen_attached(root))
			break;
		root = synchro_table_covering(get_partition_parent(root, true));
	}
	return root;
}
