/*-------------------------------------------------------------------------
 *
 * tablemode.c
 *	  How rows of a table are found on a remote: what is registered of it, read.
 *	  (header: tableinfo.h)
 *
 * Our tables are read by a catalog scan, not by SPI: this runs inside row
 * triggers of users without any right on schema synchro.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "sequence.h"
#include "tableinfo.h"

/* in synchro.watched: skipped columns; in synchro.natural_key: the key's */
#define REGISTERED_NAMES		2

/* in synchro.watched besides */
#define WATCHED_PRIMARY_KEY		3
#define WATCHED_FROM_SEQUENCE	4

/*
 * Read the row of one of our tables that is keyed by relation.
 *
 * Returns a copy of the tuple, with *desc the table's descriptor copied, or
 * NULL where there is none.
 */
static HeapTuple
fetch_registered(const char *name, const char *index, Oid relid, TupleDesc *desc)
{
	Oid			our_table = synchro_own_relation(name, true);
	Oid			our_index = synchro_own_relation(index, true);
	Relation	rel;
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;

	/* the extension may be on its way out */
	if (!OidIsValid(our_table) || !OidIsValid(our_index))
		return NULL;

	rel = table_open(our_table, AccessShareLock);
	ScanKeyInit(&key[0], 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, our_index, true, NULL, 1, key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		tuple = heap_copytuple(tuple);
		*desc = CreateTupleDescCopy(RelationGetDescr(rel));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tuple;
}

/*
 * Is a table watched, by a row of its own?
 */
bool
synchro_table_is_watched(Oid relid)
{
	TupleDesc	desc;

	return fetch_registered("watched", "watched_pkey", relid, &desc) != NULL;
}

/*
 * Is it, or has it a natural key?
 */
bool
synchro_table_is_registered(Oid relid)
{
	TupleDesc	desc;

	return synchro_table_is_watched(relid) ||
		fetch_registered("natural_key", "natural_key_pkey", relid, &desc) != NULL;
}

/*
 * The names in a name[] of ours; *isnull: it is NULL.
 */
static List *
listed_names(HeapTuple tuple, int attribute, TupleDesc desc, bool *isnull)
{
	Datum		value = heap_getattr(tuple, attribute, desc, isnull);
	Datum	   *elements;
	int			count;
	List	   *names = NIL;

	if (*isnull)
		return NIL;
	deconstruct_array(DatumGetArrayTypeP(value), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
		names = lappend(names, NameStr(*DatumGetName(elements[i])));
	return names;
}

/*
 * Names of the columns of a table's natural key, if one is registered.
 */
List *
synchro_table_registered_key(Oid relid, bool *registered)
{
	TupleDesc	desc;
	HeapTuple	tuple = fetch_registered("natural_key", "natural_key_pkey", relid, &desc);
	bool		isnull;

	*registered = tuple != NULL;
	return tuple != NULL ? listed_names(tuple, REGISTERED_NAMES, desc, &isnull) : NIL;
}

/*
 * The indexes of the columns that a name[] of ours lists; NULL: it is NULL.
 * Names that are gone are left out: the registry refuses them when given.
 *
 * listed: set to how many names there are.
 */
static int *
columns_of_names(const SynchroTable *table, HeapTuple tuple, int attribute, TupleDesc desc, int *count, int *listed)
{
	bool		isnull;
	List	   *names = listed_names(tuple, attribute, desc, &isnull);
	int		   *result;
	ListCell   *cell;

	*count = 0;
	*listed = list_length(names);
	if (isnull)
		return NULL;
	result = palloc(sizeof(int) * Max(*listed, 1));
	foreach(cell, names)
	{
		int			column = synchro_table_column(table, lfirst(cell));

		if (column >= 0)
			result[(*count)++] = column;
	}
	return result;
}

/*
 * Which columns of the primary key a sequence makes was decided when the table
 * was added, since the mode follows from it: a default that is dropped, be it to
 * make an identity column of it, does not have rows be found in another way.
 * With another primary key it is as the columns say.
 */
static void
keep_sequences(SynchroTable *table, HeapTuple tuple, TupleDesc desc)
{
	int			nkey;
	int			nsequences;
	int			listed;
	const int  *key;
	const int  *sequences;

	/* version 1.0 has not noted it */
	if (desc->natts < WATCHED_FROM_SEQUENCE || !table->has_primary_key)
		return;
	sequences = columns_of_names(table, tuple, WATCHED_FROM_SEQUENCE, desc, &nsequences, &listed);
	key = columns_of_names(table, tuple, WATCHED_PRIMARY_KEY, desc, &nkey, &listed);
	if (key == NULL || sequences == NULL || nkey != table->nidentity || listed != nkey ||
		memcmp(key, table->identity, sizeof(int) * nkey) != 0)
		return;
	for (int i = 0; i < nkey; i++)
		table->columns[key[i]].from_sequence = false;
	for (int i = 0; i < nsequences; i++)
		table->columns[sequences[i]].from_sequence = true;
}

/*
 * Read registered key and skipped columns, and decide how rows are matched.
 */
void
synchro_table_build_mode(SynchroTable *table)
{
	TupleDesc	desc;
	HeapTuple	tuple;
	bool		isnull;

	tuple = fetch_registered("watched", "watched_pkey", table->relid, &desc);
	if (tuple != NULL)
	{
		int			n;
		int			listed;
		int		   *columns = columns_of_names(table, tuple, REGISTERED_NAMES, desc, &n, &listed);

		table->watched = true;
		for (int i = 0; i < n; i++)
			table->columns[columns[i]].skipped = true;
		keep_sequences(table, tuple, desc);
	}

	table->mode = SYNCHRO_MODE_NONE;
	tuple = fetch_registered("natural_key", "natural_key_pkey", table->relid, &desc);
	if (tuple != NULL)
	{
		int			listed;

		table->key = columns_of_names(table, tuple, REGISTERED_NAMES, desc, &table->nkey, &listed);
		table->allow_many = DatumGetBool(heap_getattr(tuple, 3, desc, &isnull));
		table->mode = SYNCHRO_MODE_NATURAL_KEY;

		/* without a column that was dropped it would match other rows */
		if (table->nkey < listed)
		{
			table->mode = SYNCHRO_MODE_NONE;
			table->lost_key = true;
			table->nkey = 0;
			return;
		}
		if (!table->has_primary_key)
		{
			table->identity = table->key;
			table->nidentity = table->nkey;
		}
	}
	else if (table->has_primary_key)
	{
		table->mode = SYNCHRO_MODE_PRIMARY_KEY;
		for (int i = 0; i < table->nidentity; i++)
		{
			SynchroColumn *column = &table->columns[table->identity[i]];

			if (column->from_sequence && column->fk < 0)
				table->mode = SYNCHRO_MODE_REFERENCE;
		}
		if (table->mode == SYNCHRO_MODE_PRIMARY_KEY)
		{
			table->key = table->identity;
			table->nkey = table->nidentity;
		}
	}
	else
		table->lost_key = table->watched;
}
