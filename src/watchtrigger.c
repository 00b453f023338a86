/*-------------------------------------------------------------------------
 *
 * watchtrigger.c
 *	  The triggers of watched tables and of tables inside a natural key: made
 *	  and dropped as registry and foreign keys ask for it.
 *
 * A watched table has a row trigger for all three operations.  A table that
 * stands inside another one's key, at any depth, has one for UPDATE and
 * DELETE: only the log knows the old key of a parent that went together with
 * its child.  PostgreSQL itself copies a row trigger of a partition root to
 * the partitions; it does not do so with a statement trigger, so the truncate
 * trigger is on each leaf, which TRUNCATE of the root reaches, too.
 *
 * All of them are ENABLE ALWAYS, so that rows applied by replication are
 * logged, and depend on the extension in a way that lets DROP EXTENSION take
 * them along.
 *
 * What is wanted is worked out from the catalogs each time and compared with
 * what is there; so everything here may be repeated at will.  A trigger that
 * nothing needs any more, or anybody has made, does nothing (inkey.c), as far as the
 * table is described anew when it comes to be, or no more to be, in a key.
 * So after DDL we only add what is missing, and leave the rest to the next
 * registration: to look at all watched tables could wait for locks that the
 * user's DDL has nothing to do with.  One thing that such a trigger is in the way
 * of is that its table is attached to a watched root, which has PostgreSQL make
 * another one of that name: README.md says what to do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "tableinfo.h"
#include "tabletrigger.h"
#include "watchtrigger.h"

/* which triggers a table is to have */
typedef struct WantedTable
{
	Oid			relid;			/* hash key */
	int16		row_type;		/* SYNCHRO_TYPE_WATCHED, SYNCHRO_TYPE_KEY_ONLY or 0: none */
	bool		truncate;
	bool		row_found;		/* it has it already, just so */
	bool		truncate_found;
	bool		part_differs;	/* a partition's copy of it does not always fire */
} WantedTable;

/* a trigger of ours that nothing asks for any more */
typedef struct SurplusTrigger
{
	Oid			relid;
	char	   *name;
} SurplusTrigger;

static bool renewing = false;

static WantedTable *
wanted_entry(HTAB *wanted, Oid relid)
{
	bool		found;
	WantedTable *entry = hash_search(wanted, &relid, HASH_ENTER, &found);

	if (!found)
	{
		memset(entry, 0, sizeof(WantedTable));
		entry->relid = relid;
	}
	return entry;
}

/*
 * Enter a table with its leaf partitions.
 */
static void
want_table(HTAB *wanted, Oid relid, int16 row_type)
{
	WantedTable *entry = wanted_entry(wanted, relid);
	ListCell   *cell;

	entry->row_type = row_type;
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		entry->truncate = true;
	else
		foreach(cell, find_all_inheritors(relid, NoLock, NULL))
			if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION)
				wanted_entry(wanted, lfirst_oid(cell))->truncate = true;
}

/*
 * All tables that are to have triggers of ours: those given, if they are
 * watched, and from each the parents that its key stands for, and theirs.
 */
static HTAB *
collect_wanted(List *from)
{
	HASHCTL		ctl = {0};
	HTAB	   *wanted;
	ListCell   *cell;

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(WantedTable);
	ctl.hcxt = CurrentMemoryContext;
	wanted = hash_create("synchro triggers", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	foreach(cell, synchro_table_with_names(from))
	{
		const SynchroTable *table = synchro_table_get(lfirst_oid(cell), true);

		/* without a key as yet, it may get one: capture waits for that */
		if (table != NULL)
			want_table(wanted, table->relid, table->watched ? SYNCHRO_TYPE_WATCHED : SYNCHRO_TYPE_KEY_ONLY);
	}
	return wanted;
}

/*
 * Compare one trigger of ours with what is wanted: mark it as found, or
 * return true if it is to go.
 */
static bool
match_trigger(HTAB *wanted, Form_pg_trigger trigger, bool is_row)
{
	WantedTable *entry = hash_search(wanted, &trigger->tgrelid, HASH_FIND, NULL);
	const char *name = is_row ? SYNCHRO_ROW_TRIGGER : SYNCHRO_TRUNCATE_TRIGGER;
	int16		type = entry == NULL ? 0 :
		is_row ? entry->row_type : entry->truncate ? SYNCHRO_TYPE_TRUNCATE : 0;

	/* one made by hand with another name would log everything twice */
	if (type == 0 || strcmp(NameStr(trigger->tgname), name) != 0)
		return true;
	if (trigger->tgtype == type && trigger->tgenabled == TRIGGER_FIRES_ALWAYS &&
		synchro_tabletrigger_goes_with_extension(trigger->oid))
	{
		if (is_row)
			entry->row_found = true;
		else
			entry->truncate_found = true;
	}
	return false;
}

/*
 * A partition's copy of a row trigger comes and goes with the root's, but may
 * have been switched off by itself.
 */
static void
match_copy(HTAB *wanted, Form_pg_trigger trigger)
{
	Oid			root;
	WantedTable *entry;

	if (trigger->tgenabled == TRIGGER_FIRES_ALWAYS)
		return;
	root = synchro_table_covering(trigger->tgrelid);
	entry = hash_search(wanted, &root, HASH_FIND, NULL);
	if (entry != NULL)
		entry->part_differs = true;
}

/*
 * Without the triggers of tables that were watched, and their partitions'.
 */
static List *
without_those_of(List *surplus, List *once_watched)
{
	List	   *rest = NIL;
	ListCell   *cell;

	foreach(cell, surplus)
		if (!list_member_oid(once_watched, synchro_table_covering(((SurplusTrigger *) lfirst(cell))->relid)))
			rest = lappend(rest, lfirst(cell));
	return rest;
}

/*
 * Mark in wanted what is there already; returns the triggers of ours that
 * nothing asks for.
 *
 * Not among them are those of a watched table of which the registry does not know: a
 * dump was restored without it.  They are all that tells so, and check() goes by them.
 *
 * removed: a table that is watched no longer, as it was said just now.
 */
static List *
match_existing(HTAB *wanted, Oid removed)
{
	Oid			row_function = synchro_tabletrigger_function(SYNCHRO_ROW_FUNCTION);
	Oid			truncate_function = synchro_tabletrigger_function(SYNCHRO_TRUNCATE_FUNCTION);
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	List	   *surplus = NIL;
	List	   *once_watched = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		if (trigger->tgfoid != row_function && trigger->tgfoid != truncate_function)
			continue;
		if (OidIsValid(trigger->tgparentid))
			match_copy(wanted, trigger);
		else if (match_trigger(wanted, trigger, trigger->tgfoid == row_function))
		{
			SurplusTrigger *drop = palloc(sizeof(SurplusTrigger));

			drop->relid = trigger->tgrelid;
			drop->name = pstrdup(NameStr(trigger->tgname));
			surplus = lappend(surplus, drop);
			if (trigger->tgtype == SYNCHRO_TYPE_WATCHED && trigger->tgrelid != removed && strcmp(drop->name, SYNCHRO_ROW_TRIGGER) == 0)
				once_watched = lappend_oid(once_watched, trigger->tgrelid);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return without_those_of(surplus, once_watched);
}

static int
compare_wanted(const void *a, const void *b)
{
	Oid			x = (*(WantedTable *const *) a)->relid;
	Oid			y = (*(WantedTable *const *) b)->relid;

	return x < y ? -1 : x > y ? 1 : 0;
}

/*
 * Make what is wanted and not there yet, in the order of oids, so that two
 * sessions take their locks alike.
 */
static void
make_missing(HTAB *wanted)
{
	long		n = 0;
	WantedTable **entries = palloc(sizeof(WantedTable *) * Max(hash_get_num_entries(wanted), 1));
	HASH_SEQ_STATUS status;
	WantedTable *entry;

	hash_seq_init(&status, wanted);
	while ((entry = hash_seq_search(&status)) != NULL)
		entries[n++] = entry;
	qsort(entries, n, sizeof(WantedTable *), compare_wanted);
	for (long i = 0; i < n; i++)
	{
		entry = entries[i];
		if (entry->row_type != 0 && (!entry->row_found || entry->part_differs))
			synchro_tabletrigger_make(entry->relid, entry->row_type);
		if (entry->truncate && !entry->truncate_found)
			synchro_tabletrigger_make(entry->relid, SYNCHRO_TYPE_TRUNCATE);
	}
}

/*
 * Have it seen anew of each table with a trigger for it whether it stands in a key:
 * that also depends on tables further down, and on what is registered of them.
 */
void
synchro_watchtrigger_forget_in_key(void)
{
	Oid			function = synchro_tabletrigger_function(SYNCHRO_ROW_FUNCTION);
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		if (trigger->tgfoid == function && trigger->tgtype != SYNCHRO_TYPE_WATCHED &&
			!OidIsValid(trigger->tgparentid) && get_rel_name(trigger->tgrelid) != NULL)
			CacheInvalidateRelcacheByRelid(trigger->tgrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * Bring triggers in line.
 *
 * from: oids of tables to begin with; from there it goes on to the tables
 * inside their keys.
 * drop: also drop all triggers of ours that were not met on the way.  Then
 * from must be all watched tables, and the caller must hold the registry's
 * lock: another session's registration, not yet committed, may ask for them.
 * removed: see match_existing().
 */
void
synchro_watchtrigger_renew(List *from, bool drop, Oid removed)
{
	HTAB	   *wanted;
	List	   *surplus;
	ListCell   *cell;

	/* the extension may be on its way out */
	if (!OidIsValid(synchro_tabletrigger_function(SYNCHRO_ROW_FUNCTION)) ||
		!OidIsValid(synchro_tabletrigger_function(SYNCHRO_TRUNCATE_FUNCTION)))
		return;

	wanted = collect_wanted(from);
	surplus = match_existing(wanted, removed);
	renewing = true;
	PG_TRY();
	{
		if (drop)
			foreach(cell, surplus)
			{
				SurplusTrigger *trigger = lfirst(cell);

				synchro_tabletrigger_drop(trigger->relid, trigger->name);
			}
		make_missing(wanted);
	}
	PG_FINALLY();
	{
		renewing = false;
	}
	PG_END_TRY();
	hash_destroy(wanted);
	synchro_watchtrigger_forget_in_key();
}

/*
 * Is DDL our own, in the middle of which a table may have one of its triggers
 * and not yet the other?
 */
bool
synchro_watchtrigger_renewing(void)
{
	return renewing;
}

/*
 * Bring only the truncate triggers of a table and its partitions in line:
 * where PostgreSQL has put, or taken away, the row trigger, the truncate
 * trigger follows.
 */
void
synchro_watchtrigger_renew_partitions(Oid relid)
{
	Oid			row_function = synchro_tabletrigger_function(SYNCHRO_ROW_FUNCTION);
	Oid			truncate_function = synchro_tabletrigger_function(SYNCHRO_TRUNCATE_FUNCTION);
	ListCell   *cell;

	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
	{
		Oid			leaf = lfirst_oid(cell);
		bool		has_row;
		bool		has_truncate;

		if (get_rel_relkind(leaf) != RELKIND_RELATION)
			continue;
		has_row = synchro_tabletrigger_runs(leaf, SYNCHRO_ROW_TRIGGER) == row_function;
		has_truncate = synchro_tabletrigger_runs(leaf, SYNCHRO_TRUNCATE_TRIGGER) == truncate_function;
		if (has_row && !has_truncate)
			synchro_tabletrigger_make(leaf, SYNCHRO_TYPE_TRUNCATE);
		else if (!has_row && has_truncate)
			synchro_tabletrigger_drop(leaf, SYNCHRO_TRUNCATE_TRIGGER);
	}
}
