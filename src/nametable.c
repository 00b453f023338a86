/*-------------------------------------------------------------------------
 *
 * nametable.c
 *	  Names of a table's rows, that are looked up as their types compare them.
 *
 * Values of a natural key may be equal and look different, those of citext and
 * numeric for instance, or of a column whose collation is not deterministic.
 * Rows are found by such names as a unique index finds them, so what the log
 * says of names must be, too.
 *
 * Only operator classes' functions are called, which superusers have made.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "nametable.h"

struct SynchroNameTable
{
	const SynchroTable *table;
	TypeCacheEntry *types[INDEX_MAX_KEYS];	/* of the key's columns; these are never freed */
	Oid			collations[INDEX_MAX_KEYS];
	HTAB	   *entries;		/* of EnteredName */
	MemoryContext context;
};

/* a hash key: a name, taken to pieces */
typedef struct NameKey
{
	const SynchroNameTable *names;
	const Datum *values;
	const bool *nulls;
} NameKey;

typedef struct EnteredName
{
	NameKey		key;
	void	   *what;
} EnteredName;

/* what has no hash function is equal or not */
static uint32
hash_name(const void *key, Size size)
{
	const NameKey *name = key;
	uint32		hash = 0;

	for (int i = 0; i < name->names->table->nkey; i++)
	{
		TypeCacheEntry *type = name->names->types[i];
		uint32		value = 0;

		if (!name->nulls[i] && OidIsValid(type->hash_proc))
			value = DatumGetUInt32(FunctionCall1Coll(&type->hash_proc_finfo, name->names->collations[i], name->values[i]));
		hash = hash_combine(hash, value);
	}
	return hash;
}

static int
match_name(const void *a, const void *b, Size size)
{
	const NameKey *x = a;
	const NameKey *y = b;

	for (int i = 0; i < x->names->table->nkey; i++)
	{
		TypeCacheEntry *type = x->names->types[i];

		if (x->nulls[i] != y->nulls[i])
			return 1;
		if (!x->nulls[i] && !DatumGetBool(FunctionCall2Coll(&type->eq_opr_finfo, x->names->collations[i], x->values[i], y->values[i])))
			return 1;
	}
	return 0;
}

/*
 * Make an empty table, in the current memory context.
 */
SynchroNameTable *
synchro_nametable_create(const SynchroTable *table, int size)
{
	SynchroNameTable *names = palloc0(sizeof(SynchroNameTable));
	HASHCTL		ctl = {0};

	names->table = table;
	names->context = CurrentMemoryContext;
	for (int i = 0; i < table->nkey; i++)
	{
		const SynchroColumn *column = &table->columns[table->key[i]];
		Oid			type;
		int32		typmod;

		get_atttypetypmodcoll(table->relid, column->attnum, &type, &typmod, &names->collations[i]);
		names->types[i] = lookup_type_cache(getBaseType(type), TYPECACHE_EQ_OPR_FINFO | TYPECACHE_HASH_PROC_FINFO);
		if (!OidIsValid(names->types[i]->eq_opr))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("cannot tell whether values of column \"%s\" of table %s are equal", column->name, table->qualified),
					 errhint("Choose a natural key of columns whose types have an equality operator.")));
	}
	ctl.keysize = sizeof(NameKey);
	ctl.entrysize = sizeof(EnteredName);
	ctl.hash = hash_name;
	ctl.match = match_name;
	ctl.hcxt = CurrentMemoryContext;
	names->entries = hash_create("synchro names", Max(size, 16), &ctl, HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	return names;
}

/*
 * Take an encoded name (see keycodec.h) to pieces, in the current memory
 * context.
 */
static NameKey
take_apart(const SynchroNameTable *names, SynchroBytes name)
{
	int			nkey = names->table->nkey;
	Datum	   *values = palloc(sizeof(Datum) * nkey);
	bool	   *nulls = palloc(sizeof(bool) * nkey);
	NameKey		key = {names, values, nulls};

	synchro_key_values(name, names->table, names->table->key, nkey, values, nulls);
	return key;
}

/*
 * Where to put what a name stands for; NULL is there as long as nothing is.
 */
void **
synchro_nametable_enter(SynchroNameTable *names, SynchroBytes name)
{
	MemoryContext old = MemoryContextSwitchTo(names->context);
	NameKey		key = take_apart(names, name);
	EnteredName *entry;
	bool		found;

	entry = hash_search(names->entries, &key, HASH_ENTER, &found);
	if (!found)
		entry->what = NULL;
	MemoryContextSwitchTo(old);
	return &entry->what;
}

/*
 * What a name stands for, or NULL.  Leaves something in the current memory
 * context.
 */
void *
synchro_nametable_find(SynchroNameTable *names, SynchroBytes name)
{
	NameKey		key = take_apart(names, name);
	EnteredName *entry = hash_search(names->entries, &key, HASH_FIND, NULL);

	return entry != NULL ? entry->what : NULL;
}
