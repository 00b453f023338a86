/*-------------------------------------------------------------------------
 *
 * tablecache.c
 *	  Tables' descriptions, cached per backend.
 *
 * A relcache invalidation marks the entry, and one of a schema those of its
 * tables; it is built anew at the next synchro_table_get() and never freed in the
 * callback, since a caller may be looking at it.  Whoever changes synchro.watched or synchro.natural_key
 * invalidates the relation's relcache entry, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "tableinfo.h"

typedef struct TableEntry
{
	Oid			relid;			/* hash key */
	bool		valid;
	uint32		schema;			/* hash of its schema's OID, as the syscache has it */
	SynchroTable *table;		/* NULL until first built */
	bool		parts_known;	/* the partitions have been looked at */
	bool		parts_captured;
} TableEntry;

static HTAB *table_cache = NULL;
static uint64 generation = 0;

static void
invalidate_table(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	TableEntry *entry;

	if (OidIsValid(relid))
	{
		entry = hash_search(table_cache, &relid, HASH_FIND, NULL);
		if (entry != NULL)
		{
			entry->valid = false;
			generation++;
		}
		return;
	}
	generation++;
	hash_seq_init(&status, table_cache);
	while ((entry = hash_seq_search(&status)) != NULL)
		entry->valid = false;
}

/*
 * A schema was renamed, perhaps: descriptions have its name.  Others that come and
 * go, as sessions' temporary ones do, are no reason to describe tables anew.
 */
static void
invalidate_schema(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS status;
	TableEntry *entry;

	hash_seq_init(&status, table_cache);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (hashvalue == 0 || entry->schema == hashvalue)
		{
			entry->valid = false;
			generation++;
		}
}

/*
 * Prepare the cache; called once per backend.
 */
void
synchro_table_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(TableEntry);
	ctl.hcxt = CacheMemoryContext != NULL ? CacheMemoryContext : TopMemoryContext;
	table_cache = hash_create("synchro tables", 64, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(invalidate_table, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, invalidate_schema, (Datum) 0);
}

/*
 * Counts invalidations: as long as it stays, so do all descriptions.
 */
uint64
synchro_table_generation(void)
{
	return generation;
}

/*
 * The description of a table, from the cache.
 *
 * missing_ok: return NULL where there is no such table, instead of an error.
 */
const SynchroTable *
synchro_table_get(Oid relid, bool missing_ok)
{
	TableEntry *entry;
	bool		found;

	entry = hash_search(table_cache, &relid, HASH_ENTER, &found);
	if (!found)
	{
		entry->valid = false;
		entry->table = NULL;
	}
	if (!entry->valid)
	{
		SynchroTable *table;

		/* set first: an invalidation that comes meanwhile must count */
		entry->schema = GetSysCacheHashValue1(NAMESPACEOID, ObjectIdGetDatum(get_rel_namespace(relid)));
		entry->valid = true;
		PG_TRY();
		{
			table = synchro_table_build(relid, CacheMemoryContext);
		}
		PG_CATCH();
		{
			entry->valid = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
		if (entry->table != NULL)
			MemoryContextDelete(entry->table->context);
		entry->table = table;
		entry->parts_known = false;
		if (table == NULL)
			hash_search(table_cache, &relid, HASH_REMOVE, NULL);
		if (table == NULL && missing_ok)
			return NULL;
		if (table == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("relation with OID %u does not exist", relid)));
		return table;
	}
	return entry->table;
}

/*
 * Are all changes of a table captured, those of its partitions included?
 *
 * That is known anew when the table's description is, so whoever switches a
 * partition's trigger on or off invalidates the root.  Users' transactions,
 * which do not ask, need not look at all partitions.
 */
bool
synchro_table_captured(const SynchroTable *table)
{
	TableEntry *entry;

	if (!table->captured || table->relkind != RELKIND_PARTITIONED_TABLE)
		return table->captured;
	entry = hash_search(table_cache, &table->relid, HASH_FIND, NULL);
	if (entry == NULL || entry->table != table)
		return synchro_table_parts_captured(table->relid);
	if (!entry->parts_known)
	{
		bool		captured = synchro_table_parts_captured(table->relid);

		entry->parts_captured = captured;
		entry->parts_known = true;
	}
	return entry->parts_captured;
}

/*
 * The tables given, and all that stand inside their natural keys, at any depth:
 * each once, in the order in which they are met, without those that are gone.
 */
List *
synchro_table_with_names(List *tables)
{
	List	   *queue = list_copy(tables);
	List	   *result = NIL;

	/* grows while we go */
	for (int i = 0; i < list_length(queue); i++)
	{
		Oid			relid = list_nth_oid(queue, i);
		const SynchroTable *table = list_member_oid(result, relid) ? NULL : synchro_table_get(relid, true);

		if (table == NULL)
			continue;
		result = lappend_oid(result, relid);
		for (int fk = 0; fk < table->nfks; fk++)
			if (synchro_table_fk_in_key(table, fk))
				queue = lappend_oid(queue, table->fks[fk].parent);
	}
	list_free(queue);
	return result;
}

/*
 * Which table's changes keep those of a watched table from being known: its own,
 * or one's inside its natural key, since only the log has that one's old names;
 * NULL if all are captured.
 */
const SynchroTable *
synchro_table_uncaptured(Oid relid)
{
	ListCell   *cell;

	foreach(cell, synchro_table_with_names(list_make1_oid(relid)))
	{
		const SynchroTable *table = synchro_table_get(lfirst_oid(cell), true);

		if (table != NULL && !synchro_table_captured(table))
			return table;
	}
	return NULL;
}
