/*-------------------------------------------------------------------------
 *
 * changestore.c
 *	  Where the distinct keys of a set of changes are kept.
 *
 * In files beyond a bounded piece of memory.  These outlive the transaction,
 * and are not closed when their memory is freed: after an error somebody has to
 * remember them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "changestore.h"
#include "compat.h"

#define STORE_MEMORY	1024	/* kB */

/* columns of the stores */
enum
{
	STORE_IDENTITY, STORE_KIND, STORE_NAME, STORE_NAMED_AT, STORE_NAMED_SOURCE,
	STORE_CHANGED_AT, STORE_CHANGED_SOURCE, STORE_BORN, STORE_LOGGED_AT, STORE_COLUMNS
};

static List *open_stores = NIL;	/* of Tuplestorestate */

static TupleDesc
store_descriptor(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(STORE_COLUMNS);

	TupleDescInitEntry(desc, STORE_IDENTITY + 1, "identity", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, STORE_KIND + 1, "kind", INT4OID, -1, 0);
	TupleDescInitEntry(desc, STORE_NAME + 1, "name", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, STORE_NAMED_AT + 1, "named_at", INT8OID, -1, 0);
	TupleDescInitEntry(desc, STORE_NAMED_SOURCE + 1, "named_source", INT4OID, -1, 0);
	TupleDescInitEntry(desc, STORE_CHANGED_AT + 1, "changed_at", INT8OID, -1, 0);
	TupleDescInitEntry(desc, STORE_CHANGED_SOURCE + 1, "changed_source", INT4OID, -1, 0);
	TupleDescInitEntry(desc, STORE_BORN + 1, "born", INT8OID, -1, 0);
	TupleDescInitEntry(desc, STORE_LOGGED_AT + 1, "logged_at", BYTEAOID, -1, 0);
	synchro_finish_tupledesc(desc);
	return desc;
}

/*
 * Bytes as a datum of type bytea, in the current memory context.
 */
Datum
synchro_bytes_datum(SynchroBytes bytes)
{
	return PointerGetDatum(cstring_to_text_with_len(bytes.data, bytes.len));
}

/*
 * And back; not copied.
 */
SynchroBytes
synchro_datum_bytes(Datum datum)
{
	SynchroBytes bytes;

	bytes.data = VARDATA_ANY(DatumGetPointer(datum));
	bytes.len = VARSIZE_ANY_EXHDR(DatumGetPointer(datum));
	return bytes;
}

/*
 * A store that outlives the transaction in which it is made.
 */
Tuplestorestate *
synchro_changestore_create(void)
{
	Tuplestorestate *store;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext old;

	/* it shall outlive the transaction */
	CurrentResourceOwner = NULL;
	store = tuplestore_begin_heap(false, true, STORE_MEMORY);
	CurrentResourceOwner = owner;
	old = MemoryContextSwitchTo(TopMemoryContext);
	open_stores = lappend(open_stores, store);
	MemoryContextSwitchTo(old);
	return store;
}

/*
 * Give back a store's memory and files.
 */
void
synchro_changestore_end(Tuplestorestate *store)
{
	open_stores = list_delete_ptr(open_stores, store);
	tuplestore_end(store);
}

/*
 * The same for all that an error has left open, before their memory goes.
 * False if that has failed: to close a file writes what was buffered of it,
 * and the disk may be full.  Then only the end of the process removes it.
 */
bool
synchro_changestore_end_all(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = true;

	while (open_stores != NIL)
	{
		PG_TRY();
		{
			synchro_changestore_end(linitial(open_stores));
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(context);
			FlushErrorState();
			done = false;
		}
		PG_END_TRY();
	}
	return done;
}

/*
 * Add a key or a name of before.
 */
void
synchro_changestore_put(Tuplestorestate *store, const SynchroChangedKey *key)
{
	static TupleDesc desc = NULL;
	Datum		values[STORE_COLUMNS];
	bool		nulls[STORE_COLUMNS] = {0};

	if (desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		desc = store_descriptor();
		MemoryContextSwitchTo(old);
	}
	values[STORE_IDENTITY] = synchro_bytes_datum(key->identity);
	values[STORE_KIND] = Int32GetDatum(key->kind);
	nulls[STORE_NAME] = key->name.data == NULL;
	values[STORE_NAME] = nulls[STORE_NAME] ? (Datum) 0 : synchro_bytes_datum(key->name);
	values[STORE_NAMED_AT] = Int64GetDatum(key->named.at);
	values[STORE_NAMED_SOURCE] = Int32GetDatum(key->named.source);
	values[STORE_CHANGED_AT] = Int64GetDatum(key->changed.at);
	values[STORE_CHANGED_SOURCE] = Int32GetDatum(key->changed.source);
	values[STORE_BORN] = Int64GetDatum(key->born);
	nulls[STORE_LOGGED_AT] = key->logged_at.data == NULL;
	values[STORE_LOGGED_AT] = nulls[STORE_LOGGED_AT] ? (Datum) 0 : synchro_bytes_datum(key->logged_at);
	tuplestore_putvalues(store, desc, values, nulls);
}

static bool
next_stored(Tuplestorestate *store, TupleTableSlot **slot)
{
	static TupleTableSlot *shared = NULL;
	MemoryContext old;
	bool		found;

	/* the slot frees its tuple at the next call: that must not be gone before */
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (shared == NULL)
		shared = MakeSingleTupleTableSlot(store_descriptor(), &TTSOpsMinimalTuple);
	found = tuplestore_gettupleslot(store, true, true, shared);
	if (found)
		slot_getallattrs(shared);
	MemoryContextSwitchTo(old);
	*slot = shared;
	return found;
}

static void
read_stored(TupleTableSlot *slot, SynchroChangedKey *key)
{
	memset(key, 0, sizeof(*key));
	key->identity = synchro_key_copy(synchro_datum_bytes(slot->tts_values[STORE_IDENTITY]));
	key->kind = (char) DatumGetInt32(slot->tts_values[STORE_KIND]);
	if (!slot->tts_isnull[STORE_NAME])
		key->name = synchro_key_copy(synchro_datum_bytes(slot->tts_values[STORE_NAME]));
	key->named.at = DatumGetInt64(slot->tts_values[STORE_NAMED_AT]);
	key->named.source = DatumGetInt32(slot->tts_values[STORE_NAMED_SOURCE]);
	key->changed.at = DatumGetInt64(slot->tts_values[STORE_CHANGED_AT]);
	key->changed.source = DatumGetInt32(slot->tts_values[STORE_CHANGED_SOURCE]);
	key->born = DatumGetInt64(slot->tts_values[STORE_BORN]);
	if (!slot->tts_isnull[STORE_LOGGED_AT])
		key->logged_at = synchro_key_copy(synchro_datum_bytes(slot->tts_values[STORE_LOGGED_AT]));
}

/*
 * The next one, in the current memory context; false at the end.
 */
bool
synchro_changestore_next(Tuplestorestate *store, SynchroChangedKey *key)
{
	TupleTableSlot *slot;

	if (!next_stored(store, &slot))
		return false;
	read_stored(slot, key);
	return true;
}
