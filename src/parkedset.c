/*-------------------------------------------------------------------------
 *
 * parkedset.c
 *	  What is parked of a remote's, as a pass has it: by rows.  (header: parked.h)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "changestore.h"
#include "identities.h"
#include "parked.h"

/* entry of a set's table */
typedef struct ParkedSlot
{
	char	   *row;			/* hash key */
	SynchroParked *parked;
} ParkedSlot;

/*
 * By which a set finds what is parked of a row.
 */
char *
synchro_parked_row(Oid relid, char **identity, int nidentity)
{
	return psprintf("%u%s", relid, synchro_identity_key(identity, nidentity));
}

/*
 * A set with nothing in it, in the current memory context.
 */
SynchroParkedSet *
synchro_parked_create(const char *server)
{
	SynchroParkedSet *set = palloc0(sizeof(SynchroParkedSet));

	set->context = CurrentMemoryContext;
	set->server = pstrdup(server);
	set->rows = synchro_string_table(set->context, sizeof(ParkedSlot));
	return set;
}

/*
 * Have a copy in the set, in place of what it has of that row.
 */
void
synchro_parked_remember(SynchroParkedSet *set, const SynchroParked *parked)
{
	MemoryContext old = MemoryContextSwitchTo(set->context);
	SynchroParked *entry = palloc(sizeof(SynchroParked));
	bool		found;
	ParkedSlot *slot;

	*entry = *parked;
	entry->row = pstrdup(parked->row);
	entry->record = synchro_key_copy(parked->record);
	slot = hash_search(set->rows, &entry->row, HASH_ENTER, &found);
	slot->parked = entry;
	if (!found)
		set->count++;
	MemoryContextSwitchTo(old);
}

/*
 * What is parked of a row, or NULL.
 */
SynchroParked *
synchro_parked_find(const SynchroParkedSet *set, Oid relid, char **identity, int nidentity)
{
	ParkedSlot *slot;
	char	   *row;

	if (set == NULL || set->count == 0)
		return NULL;
	row = synchro_parked_row(relid, identity, nidentity);
	slot = hash_search(set->rows, &row, HASH_FIND, NULL);
	pfree(row);
	return slot != NULL ? slot->parked : NULL;
}

/*
 * The same by the row's identity as the log has it.
 */
SynchroParked *
synchro_parked_find_key(const SynchroParkedSet *set, const SynchroTable *table, SynchroBytes identity)
{
	if (set == NULL || set->count == 0)
		return NULL;
	return synchro_parked_find(set, table->relid,
							   synchro_identities_values(table, table->identity, table->nidentity, identity),
							   table->nidentity);
}

/*
 * The same by the text of an array of text with the row's identity.
 */
SynchroParked *
synchro_parked_find_text(const SynchroParkedSet *set, const SynchroTable *table, const char *array_text)
{
	return synchro_parked_find_key(set, table, synchro_identities_encode_text(table, table->identity, table->nidentity, array_text));
}

/*
 * What is parked by now of a row of which that was parked, or NULL.
 */
SynchroParked *
synchro_parked_again(const SynchroParkedSet *set, const SynchroParked *parked)
{
	ParkedSlot *slot = hash_search(set->rows, &parked->row, HASH_FIND, NULL);

	return slot != NULL ? slot->parked : NULL;
}

static int
compare_times(const void *a, const void *b)
{
	const TimestampTz *x = a;
	const TimestampTz *y = b;

	return *x < *y ? -1 : *x > *y ? 1 : 0;
}

/*
 * Of rows with names of before that are to be tried, so many have their turn
 * first: those that have not failed by themselves since that time.
 */
TimestampTz
synchro_parked_turn(const SynchroParkedSet *set, int count)
{
	HASH_SEQ_STATUS status;
	ParkedSlot *slot;
	TimestampTz *times;
	TimestampTz result = PG_INT64_MAX;
	int			ntimes = 0;

	if (set->count <= count)
		return result;
	times = palloc(sizeof(TimestampTz) * set->count);
	hash_seq_init(&status, set->rows);
	while ((slot = hash_seq_search(&status)) != NULL)
		if (slot->parked->has_name && slot->parked->due)
			times[ntimes++] = slot->parked->alone;
	qsort(times, ntimes, sizeof(TimestampTz), compare_times);
	if (ntimes > count)
		result = times[count - 1];
	pfree(times);
	return result;
}

/*
 * Hand what is parked on as rows of the log, all that did not fail in this
 * pass.
 */
void
synchro_parked_scan(const SynchroParkedSet *set, SynchroLogCallback callback, void *arg)
{
	HASH_SEQ_STATUS status;
	ParkedSlot *slot;

	if (set == NULL || set->count == 0)
		return;
	hash_seq_init(&status, set->rows);
	while ((slot = hash_seq_search(&status)) != NULL)
	{
		SynchroParked *parked = slot->parked;
		SynchroLogRow row = {0};

		if (parked->banned)
			continue;
		row.relation = parked->relid;
		row.layout = parked->layout;
		row.changed_at = parked->changed_at;
		row.keys = parked->record;
		row.parked = true;
		row.due = parked->due;
		callback(&row, arg);
	}
}

/*
 * Ids of what is parked of rows of that table with no name of before: array of bigint,
 * in the current memory context.
 */
Datum
synchro_parked_without_name(const SynchroParkedSet *set, Oid relid)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(set->count, 1));
	int			count = 0;
	HASH_SEQ_STATUS status;
	ParkedSlot *slot;

	hash_seq_init(&status, set->rows);
	while ((slot = hash_seq_search(&status)) != NULL)
		if (slot->parked->relid == relid && !slot->parked->has_name && slot->parked->id != 0)
			ids[count++] = Int64GetDatum(slot->parked->id);
	return PointerGetDatum(construct_array(ids, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * Read what is parked of a row of that table.  Returns false if nothing can be said of it.
 */
static bool
read_record(const SynchroParked *parked, const SynchroTable *table, SynchroKeyRecord *record)
{
	if (parked->unreadable || parked->relid != table->relid || SYNCHRO_LAYOUT_IDENTITY(parked->layout) != SYNCHRO_LAYOUT_IDENTITY(table->layout))
		return false;
	(void) synchro_key_next(parked->record.data, parked->record.data + parked->record.len, table, parked->layout, record);
	return true;
}

/*
 * Of a scan of the set, the next row of that table that the remote has, and of which
 * it has refused a change; NULL: no more.  record is set to that.
 */
static SynchroParked *
next_update(HASH_SEQ_STATUS *scan, const SynchroTable *table, SynchroKeyRecord *record)
{
	ParkedSlot *slot;

	while ((slot = hash_seq_search(scan)) != NULL)
		if (read_record(slot->parked, table, record) && record->op == SYNCHRO_OP_UPDATE)
			return slot->parked;
	return NULL;
}

/*
 * Is it a row of that table that the remote does not have as ours, since it has
 * refused it when it was new?
 */
bool
synchro_parked_is_insert(const SynchroParked *parked, const SynchroTable *table)
{
	SynchroKeyRecord record;

	return read_record(parked, table, &record) && record.op == SYNCHRO_OP_INSERT;
}

/*
 * When that was changed.
 */
SynchroStamp
synchro_parked_stamp(const SynchroParked *parked, const SynchroTable *table)
{
	SynchroKeyRecord record = {0};

	(void) read_record(parked, table, &record);
	return record.stamp;
}

/*
 * Does it say what the row is called on the remote?
 */
static bool
is_renamed(const SynchroParked *parked, const SynchroTable *table, const SynchroKeyRecord *record)
{
	return record->has_old && parked->layout == table->layout;
}

/*
 * Rows of a table that the remote calls otherwise than they are called here,
 * since it has refused the change of their name: list of SynchroChangedKey, in
 * the current memory context.  And those known by reference that are gone here:
 * others may be called by them.
 */
List *
synchro_parked_names(const SynchroParkedSet *set, const SynchroTable *table)
{
	HASH_SEQ_STATUS status;
	ParkedSlot *slot;
	SynchroKeyRecord record;
	List	   *result = NIL;

	if (set == NULL || set->count == 0)
		return NIL;
	hash_seq_init(&status, set->rows);
	while ((slot = hash_seq_search(&status)) != NULL)
	{
		bool		by_reference;
		SynchroChangedKey *key;

		if (!read_record(slot->parked, table, &record))
			continue;
		by_reference = table->mode == SYNCHRO_MODE_REFERENCE && record.op == SYNCHRO_OP_DELETE;
		if (!by_reference && (record.op != SYNCHRO_OP_UPDATE || !is_renamed(slot->parked, table, &record)))
			continue;
		key = palloc0(sizeof(SynchroChangedKey));
		key->identity = synchro_key_copy(record.identity);
		key->kind = 'w';
		key->name = by_reference ? key->identity : record.old_key;
		result = lappend(result, key);
	}
	return result;
}

/*
 * Tables of which anything is parked: list of oids.
 */
List *
synchro_parked_tables(const SynchroParkedSet *set)
{
	HASH_SEQ_STATUS status;
	ParkedSlot *slot;
	List	   *result = NIL;

	if (set == NULL || set->count == 0)
		return NIL;
	hash_seq_init(&status, set->rows);
	while ((slot = hash_seq_search(&status)) != NULL)
		result = list_append_unique_oid(result, slot->parked->relid);
	return result;
}

/*
 * Rows of a table that the remote has, and of which it has refused a change: those
 * of synchro_parked_names(), or the others.
 */
SynchroIdentities *
synchro_parked_updates(const SynchroParkedSet *set, const SynchroTable *table, bool renamed)
{
	HASH_SEQ_STATUS status;
	SynchroParked *parked;
	SynchroKeyRecord record;
	SynchroIdentities *result = synchro_identities_create(table);

	hash_seq_init(&status, set->rows);
	while ((parked = next_update(&status, table, &record)) != NULL)
		if (is_renamed(parked, table, &record) == renamed)
			synchro_identities_decode(result, table, record.identity);
	return result;
}

/*
 * Rows of a table that the remote has refused when they were new.
 */
SynchroIdentities *
synchro_parked_inserts(const SynchroParkedSet *set, const SynchroTable *table)
{
	HASH_SEQ_STATUS status;
	ParkedSlot *slot;
	SynchroKeyRecord record;
	SynchroIdentities *result = synchro_identities_create(table);

	if (set == NULL || set->count == 0)
		return result;
	hash_seq_init(&status, set->rows);
	while ((slot = hash_seq_search(&status)) != NULL)
		if (read_record(slot->parked, table, &record) && record.op == SYNCHRO_OP_INSERT)
			synchro_identities_decode(result, table, record.identity);
	return result;
}

/*
 * What synchro_parked_updates() finds, both: list of SynchroParked.
 */
List *
synchro_parked_waiting(const SynchroParkedSet *set, const SynchroTable *table)
{
	HASH_SEQ_STATUS status;
	SynchroParked *parked;
	SynchroKeyRecord record;
	List	   *result = NIL;

	hash_seq_init(&status, set->rows);
	while ((parked = next_update(&status, table, &record)) != NULL)
		result = lappend(result, parked);
	return result;
}

/*
 * What was so kept and has not gone through since, in the current memory
 * context.
 */
List *
synchro_parked_kept(const SynchroParkedSet *set)
{
	HASH_SEQ_STATUS status;
	ParkedSlot *slot;
	List	   *result = NIL;

	hash_seq_init(&status, set->rows);
	while ((slot = hash_seq_search(&status)) != NULL)
		if (slot->parked->banned && slot->parked->reason != NULL)
			result = lappend(result, slot->parked);
	return result;
}

/*
 * Changes have been applied: forget them for as long as the set lasts.  healed:
 * list of SynchroParked.
 */
void
synchro_parked_forget(SynchroParkedSet *set, List *healed)
{
	ListCell   *cell;

	foreach(cell, healed)
		if (hash_search(set->rows, &((SynchroParked *) lfirst(cell))->row, HASH_REMOVE, NULL) != NULL)
			set->count--;
}
