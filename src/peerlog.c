/*-------------------------------------------------------------------------
 *
 * peerlog.c
 *	  What this node's log knows of rows that another node pushes.
 *
 * The log is read with the latest snapshot, taken after the segments have been
 * locked (see synchro_log_lock()), and without what the present transaction
 * has written itself.  It is read only as far back as the caller asks for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "applied.h"
#include "compat.h"
#include "identities.h"
#include "localsql.h"
#include "logsearch.h"
#include "nametable.h"
#include "peerlog.h"
#include "successors.h"

/* a log entry of one of the rows that are asked for */
typedef struct Entry
{
	SynchroNewest *row;
	uint64		txid;
	TimestampTz logged_at;
	SynchroStamp stamp;
	bool		refused;
} Entry;

typedef struct Search
{
	SynchroLogSearch log;
	Entry	   *entries;
	int			nentries;
	int			maxentries;
	MemoryContext row_context;
	SynchroNameTable *names;	/* of SynchroBearer */
	List	   *parents;		/* of SynchroTable: may have been made anew */
	bool		parents_deleted;
	const SynchroSuccessors *successors;	/* by which names are read, or NULL */
} Search;

static void
begin_search(Search *search, const SynchroTable *table, int size, SynchroStamps *stamps)
{
	memset(search, 0, sizeof(*search));
	synchro_logsearch_begin(&search->log, table, size, stamps);
	search->row_context = AllocSetContextCreate(CurrentMemoryContext, "synchro peer row",
												ALLOCSET_DEFAULT_SIZES);
}

/* does an entry come after another in the log? */
static bool
is_later(const SynchroLogRow *row, int position, TimestampTz logged_at, uint64 txid, int32 part, int32 other)
{
	if (row->changed_at != logged_at)
		return row->changed_at > logged_at;
	if (row->txid != txid)
		return row->txid > txid;
	if (row->part != part)
		return row->part > part;
	return position >= other;
}

static void
note_entry(Search *search, SynchroNewest *wanted, const SynchroLogRow *row,
		   const SynchroKeyRecord *record, int position)
{
	Entry	   *entry;
	bool		later = !wanted->found ||
		is_later(row, position, wanted->logged_at, wanted->last_txid, wanted->part, wanted->position);

	if (search->nentries == search->maxentries)
	{
		search->maxentries = Max(64, search->maxentries * 2);
		search->entries = search->entries == NULL ?
			MemoryContextAllocHuge(search->log.context, sizeof(Entry) * search->maxentries) :
			repalloc_huge(search->entries, sizeof(Entry) * search->maxentries);
	}
	entry = &search->entries[search->nentries++];
	entry->row = wanted;
	entry->txid = row->txid;
	entry->logged_at = row->changed_at;
	entry->stamp = record->stamp;
	entry->refused = record->refused;

	/*
	 * A command that moves several rows logs one that has come to an identity
	 * perhaps before the one that has left it, so within a transaction the
	 * order says nothing.
	 */
	if (wanted->found && row->txid == wanted->last_txid)
		wanted->live |= record->op != SYNCHRO_OP_DELETE;
	else if (later)
		wanted->live = record->op != SYNCHRO_OP_DELETE;
	if (!later)
		return;
	wanted->found = true;
	wanted->logged_at = row->changed_at;
	wanted->last_txid = row->txid;
	wanted->part = row->part;
	wanted->position = position;
}

static void
search_newest(const SynchroLogRow *row, void *arg)
{
	Search	   *search = arg;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;

	if (!synchro_logsearch_is_of_table(&search->log, row))
		return;
	for (int position = 0; pos < end; position++)
	{
		SynchroKeyRecord record;
		SynchroNamed *named;

		pos = synchro_key_next(pos, end, search->log.table, row->layout, &record);
		named = hash_search(search->log.wanted, &record.identity, HASH_FIND, NULL);
		if (named != NULL)
			note_entry(search, named->what, row, &record, position);
	}
}

/*
 * Of each row that was found: its newest change.  All stamps of transactions
 * have been read by now.
 */
static void
settle_stamps(Search *search)
{
	for (int i = 0; i < search->nentries; i++)
	{
		Entry	   *entry = &search->entries[i];
		SynchroStamp stamp = synchro_stamps_of(search->log.stamps, entry->txid, entry->logged_at, entry->stamp);

		if (entry->row->stamp.at != 0 &&
			synchro_stamps_compare(search->log.stamps, stamp, entry->row->stamp) < (entry->refused ? 1 : 0))
			continue;
		entry->row->stamp = stamp;

		/* a name that was refused is no change, so nothing that the other node has not seen */
		entry->row->txid = entry->refused ? 0 : entry->txid;
	}
}

/*
 * Find the newest changes of rows that were logged at a given time or later,
 * or were not seen by a snapshot if there is one.
 *
 * rows: their bytes are given; the rest is set here, found where there is any.
 * Returns what their stamps mean.
 */
SynchroStamps *
synchro_peerlog_newest(const SynchroTable *table, SynchroNewest *rows, int count,
					   TimestampTz since, const SynchroSnapshot *unseen_by)
{
	Search		search;

	begin_search(&search, table, count, synchro_stamps_create());
	for (int i = 0; i < count; i++)
	{
		SynchroNamed *named = hash_search(search.log.wanted, &rows[i].bytes, HASH_ENTER, NULL);

		named->what = &rows[i];
		rows[i].found = false;
		rows[i].stamp.at = 0;
	}
	synchro_logsearch_latest(since, unseen_by, search_newest, &search);
	settle_stamps(&search);
	return search.log.stamps;
}

static void
search_changed(const SynchroLogRow *row, void *arg)
{
	Search	   *search = NULL;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;
	ListCell   *cell;

	foreach(cell, (List *) arg)
	{
		Search	   *candidate = lfirst(cell);

		/* it notes a stamp row in what all of them share */
		if (synchro_logsearch_is_of_table(&candidate->log, row))
			search = candidate;
		if (search != NULL || row->relation == SYNCHRO_STAMP_RELATION)
			break;
	}
	if (search == NULL)
		return;
	for (int position = 0; pos < end; position++)
	{
		SynchroKeyRecord record;
		SynchroNamed *named;
		bool		known;

		pos = synchro_key_next(pos, end, search->log.table, row->layout, &record);
		named = hash_search(search->log.wanted, &record.identity, HASH_ENTER, &known);
		if (!known)
		{
			MemoryContext old = MemoryContextSwitchTo(search->log.context);
			SynchroNewest *newest = palloc0(sizeof(SynchroNewest));

			newest->bytes = named->bytes = synchro_key_copy(record.identity);
			named->what = newest;
			MemoryContextSwitchTo(old);
		}
		note_entry(search, named->what, row, &record, position);
	}
}

/*
 * Find all rows of some tables that were changed at a given time or later, or
 * were logged then: their newest changes.
 *
 * tables: of SynchroTable.  rows: set, for each table, to a list of
 * SynchroNewest, whose identity as text is not set.  Returns what their stamps
 * mean.
 */
SynchroStamps *
synchro_peerlog_changed(List *tables, TimestampTz since, List **rows)
{
	List	   *searches = NIL;
	SynchroStamps *stamps = synchro_stamps_create();
	ListCell   *cell;

	foreach(cell, tables)
	{
		Search	   *search = palloc(sizeof(Search));

		begin_search(search, lfirst(cell), 0, stamps);
		searches = lappend(searches, search);
	}
	synchro_logsearch_latest(since, NULL, search_changed, searches);
	foreach(cell, searches)
	{
		Search	   *search = lfirst(cell);
		HASH_SEQ_STATUS status;
		SynchroNamed *named;
		List	  **changed = &rows[foreach_current_index(cell)];

		settle_stamps(search);
		*changed = NIL;
		hash_seq_init(&status, search->log.wanted);
		while ((named = hash_seq_search(&status)) != NULL)
			*changed = lappend(*changed, named->what);
	}
	return stamps;
}

static void
note_bearer(Search *search, SynchroBearer *bearer, const SynchroLogRow *row, const SynchroKeyRecord *record, int position)
{
	MemoryContext old;

	if (bearer->found && !is_later(row, position, bearer->logged_at, bearer->txid, bearer->part, bearer->position))
		return;
	bearer->found = true;
	bearer->txid = row->txid;
	bearer->logged_at = row->changed_at;
	bearer->part = row->part;
	bearer->position = position;
	bearer->given = record->stamp;
	old = MemoryContextSwitchTo(search->log.context);
	bearer->bytes = synchro_key_copy(record->identity);
	MemoryContextSwitchTo(old);
}

/*
 * Have parents of the table's rows been deleted?
 */
static void
note_deleted_parents(Search *search, const SynchroLogRow *row)
{
	ListCell   *cell;

	if (search->parents_deleted || row->relation == SYNCHRO_STAMP_RELATION)
		return;
	foreach(cell, search->parents)
		search->parents_deleted |= synchro_successors_deletes(row, lfirst(cell));
}

static void
search_bearers(const SynchroLogRow *row, void *arg)
{
	Search	   *search = arg;
	const SynchroTable *table = search->log.table;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;
	MemoryContext old;

	old = MemoryContextSwitchTo(search->row_context);
	note_deleted_parents(search, row);
	if (!synchro_logsearch_is_of_table(&search->log, row) ||
		SYNCHRO_LAYOUT_KEY(row->layout) != SYNCHRO_LAYOUT_KEY(table->layout))
		pos = end;
	for (int position = 0; pos < end; position++)
	{
		SynchroKeyRecord record;
		SynchroBytes name;

		pos = synchro_key_next(pos, end, table, row->layout, &record);
		name = record.old_key;
		if (!record.has_old || (search->successors != NULL && !synchro_successors_translate(search->successors, row, &name)))
			continue;
		for (SynchroBearer *bearer = synchro_nametable_find(search->names, name); bearer != NULL; bearer = bearer->same)
			note_bearer(search, bearer, row, &record, position);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(search->row_context);
}

/*
 * Find who bore names last that the log says were lost at a given time or
 * later, also below a parent that was deleted and made anew since.
 *
 * names: given as text; the rest is set here, found where somebody bore it.
 * Returns what their stamps mean.
 */
SynchroStamps *
synchro_peerlog_bearers(const SynchroTable *table, SynchroBearer *names, int count, TimestampTz since)
{
	Search		search;
	SynchroBytes *encoded = palloc(sizeof(SynchroBytes) * Max(count, 1));
	SynchroNewest *rows = palloc0(sizeof(SynchroNewest) * Max(count, 1));
	HTAB	   *by_identity = synchro_logsearch_table(count);
	TimestampTz first = DT_NOEND;
	int			nrows = 0;
	SynchroStamps *stamps;

	begin_search(&search, table, count, synchro_stamps_create());
	search.names = synchro_nametable_create(table, count);
	for (int i = 0; i < count; i++)
	{
		void	  **first_same;

		encoded[i] = synchro_identities_encode_text(table, table->key, table->nkey, names[i].name);
		first_same = synchro_nametable_enter(search.names, encoded[i]);
		names[i].same = *first_same;
		*first_same = &names[i];
	}
	search.parents = synchro_successors_parents(table);
	synchro_logsearch_latest(since, NULL, search_bearers, &search);

	/* rarely: what was lost below parents that were made anew bears their names, too */
	if (search.parents_deleted && (search.successors = synchro_successors_find(table, encoded, count, since)) != NULL)
		synchro_logsearch_latest(since, NULL, search_bearers, &search);
	for (int i = 0; i < count; i++)
	{
		SynchroNamed *named;
		bool		known;

		if (!names[i].found)
			continue;
		names[i].lost = synchro_stamps_of(search.log.stamps, names[i].txid, names[i].logged_at, names[i].given);
		names[i].identity = synchro_identities_array_text(table, table->identity, table->nidentity, names[i].bytes);
		named = hash_search(by_identity, &names[i].bytes, HASH_ENTER, &known);
		if (!known)
		{
			rows[nrows].bytes = names[i].bytes;
			named->what = &rows[nrows++];
		}
		names[i].row = named->what;
		first = Min(first, names[i].logged_at);
	}
	if (nrows == 0)
		return search.log.stamps;

	/* the entry by which the name was lost is among these */
	stamps = synchro_peerlog_newest(table, rows, nrows, first, NULL);
	for (int i = 0; i < count; i++)
		names[i].found &= names[i].row != NULL && names[i].row->found;
	return stamps;
}

static void
search_applied(const SynchroLogRow *row, void *arg)
{
	bool	   *changed = arg;
	const SynchroTable *table;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;

	if (row->relation == SYNCHRO_STAMP_RELATION || *changed ||
		row->txid == U64FromFullTransactionId(GetTopFullTransactionIdIfAny()))
		return;
	table = synchro_table_get(row->relation, true);
	if (table == NULL || SYNCHRO_LAYOUT_IDENTITY(row->layout) != SYNCHRO_LAYOUT_IDENTITY(table->layout))
		return;
	while (pos < end && !*changed)
	{
		SynchroKeyRecord record;

		pos = synchro_key_next(pos, end, table, row->layout, &record);
		*changed = synchro_applied_find(row->relation, record.identity) != NULL ||
			synchro_applied_is_affected(row->relation, record.identity);
	}
}

/*
 * Has anybody else changed a row that this transaction writes for another
 * node, or deletes along with one, that the snapshot did not see?
 */
bool
synchro_peerlog_changed_since(const SynchroSnapshot *snapshot)
{
	bool		changed = false;

	synchro_logsearch_unseen(snapshot, search_applied, &changed);
	return changed;
}
