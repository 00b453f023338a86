/*-------------------------------------------------------------------------
 *
 * tablecache.c
 *	  Tables' descriptions, cached per backend.
 *
 * A relcache invalidation marks the entry; it is built anew at the next
 * synchro_table_get() and never freed in the callback, since a caller may be
 * looking at it.  Whoever changes synchro.watched or synchro.natural_key
 * invalidates the relation's relcache entry, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "tableinfo.h"

typedef struct TableEntry
{
	Oid			relid;			/* hash key */
	bool		valid;
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
