/*-------------------------------------------------------------------------
 *
 * peernames.c
 *	  What this node's log knows of rows that have been renamed, and another
 *	  node that pushes may call by their old names.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "identities.h"
#include "logsearch.h"
#include "peernames.h"

/* an entry of a row that has been renamed */
typedef struct NameEntry
{
	int			row;			/* number of the row */
	SynchroBytes identity;
	TimestampTz logged_at;
	uint64		txid;
	int32		part;
	int32		position;
	SynchroOp	op;
	SynchroStamp stamp;
	bool		known;			/* the other node brought it */
	SynchroBytes old_key;		/* data NULL: none */
} NameEntry;

typedef struct NameSearch
{
	SynchroLogSearch log;
	const pg_uuid_t *node;
	List	   *entries;		/* of NameEntry */
} NameSearch;

/*
 * Has the other node brought an entry with that stamp?
 */
static bool
is_known(const SynchroSources *sources, SynchroStamp stamp, const pg_uuid_t *node)
{
	return stamp.source != 0 && synchro_uuid_equal(&synchro_source_find(sources, stamp.source)->via, node);
}

static SynchroRenamed *
make_renamed(const SynchroTable *table, SynchroBytes identity, SynchroBytes name, TimestampTz lost)
{
	SynchroRenamed *renamed = palloc(sizeof(SynchroRenamed));

	renamed->identity = synchro_identities_array_text(table, table->identity, table->nidentity, identity);
	renamed->name = synchro_identities_array_text(table, table->key, table->nkey, name);
	renamed->lost = lost;
	return renamed;
}

static void
note_name(NameSearch *names, const SynchroLogRow *row, const SynchroKeyRecord *record, int position, int number)
{
	NameEntry  *entry = palloc0(sizeof(NameEntry));

	entry->row = number;
	entry->identity = synchro_key_copy(record->identity);
	entry->logged_at = row->changed_at;
	entry->txid = row->txid;
	entry->part = row->part;
	entry->position = position;
	entry->op = record->op;
	entry->stamp = record->stamp;
	entry->known = names->node != NULL &&
		is_known(synchro_stamps_sources(names->log.stamps), record->stamp, names->node);
	if (record->has_old && SYNCHRO_LAYOUT_KEY(row->layout) == SYNCHRO_LAYOUT_KEY(names->log.table->layout))
		entry->old_key = synchro_key_copy(record->old_key);
	names->entries = lappend(names->entries, entry);
}

static void
search_names(const SynchroLogRow *row, void *arg)
{
	NameSearch *names = arg;
	SynchroLogSearch *search = &names->log;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;
	MemoryContext old;

	if (!synchro_logsearch_is_of_table(search, row))
		return;
	old = MemoryContextSwitchTo(search->context);
	for (int position = 0; pos < end; position++)
	{
		SynchroKeyRecord record;
		SynchroNamed *named;

		pos = synchro_key_next(pos, end, search->table, row->layout, &record);
		named = record.refused ? NULL : hash_search(search->wanted, &record.identity, HASH_FIND, NULL);
		if (named != NULL)
			note_name(names, row, &record, position, (int) (intptr_t) named->what);
	}
	MemoryContextSwitchTo(old);
}

/* by row, then in the order of the log */
static int
compare_names(const ListCell *a, const ListCell *b)
{
	const NameEntry *x = lfirst(a);
	const NameEntry *y = lfirst(b);

	if (x->row != y->row)
		return x->row < y->row ? -1 : 1;
	if (x->logged_at != y->logged_at)
		return x->logged_at < y->logged_at ? -1 : 1;
	if (x->txid != y->txid)
		return x->txid < y->txid ? -1 : 1;
	if (x->part != y->part)
		return x->part < y->part ? -1 : 1;
	return x->position < y->position ? -1 : x->position > y->position;
}

/*
 * Of the rows with these identities find those that have been renamed since
 * another node was told what they are called, and what that node still calls
 * them.  As in keyhistory.c: the first old name counts; what that node has
 * brought it knows; a row that is new since then, or is gone, is none that it
 * calls otherwise.
 *
 * Reads all that the node has not been told, so it is called with rows of which
 * synchro_peernames_lost() has found something.
 */
List *
synchro_peernames_renamed(const SynchroTable *table, const SynchroBytes *rows, int count,
						  const SynchroSnapshot *named, const pg_uuid_t *node)
{
	NameSearch	names = {.node = node};
	List	   *result = NIL;
	const NameEntry *first = NULL;	/* since that node knows the row */
	const NameEntry *bore = NULL;
	ListCell   *cell;

	synchro_logsearch_begin(&names.log, table, count, synchro_stamps_create());
	for (int i = 0; i < count; i++)
		((SynchroNamed *) hash_search(names.log.wanted, &rows[i], HASH_ENTER, NULL))->what = (void *) (intptr_t) i;
	synchro_logsearch_unseen(named, search_names, &names);
	list_sort(names.entries, compare_names);
	foreach(cell, names.entries)
	{
		const NameEntry *entry = lfirst(cell);
		const NameEntry *next = lnext(names.entries, cell) != NULL ? lfirst(lnext(names.entries, cell)) : NULL;

		if (entry->known)
			first = bore = NULL;
		else if (first == NULL)
			first = entry;
		if (!entry->known && bore == NULL && entry->old_key.data != NULL)
			bore = entry;
		if (next != NULL && next->row == entry->row)
			continue;
		if (bore != NULL && first->op != SYNCHRO_OP_INSERT && entry->op != SYNCHRO_OP_DELETE)
			result = lappend(result, make_renamed(table, entry->identity, bore->old_key, 0));
		first = bore = NULL;
	}
	return result;
}

/* what the search for lost names is told */
typedef struct LostNames
{
	const SynchroTable *table;	/* NULL: any */
	const pg_uuid_t *node;
	MemoryContext context;
	SynchroSources *sources;	/* NULL: not needed so far */
	bool		any;
	List	   *names;			/* of SynchroRenamed, if there is a table */
} LostNames;

static void
search_lost(const SynchroLogRow *row, void *arg)
{
	LostNames  *lost = arg;
	const SynchroTable *table = lost->table;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;
	MemoryContext old;

	if (row->txid == U64FromFullTransactionId(GetTopFullTransactionIdIfAny()) || (table != NULL && table->relid != row->relation))
		return;
	if (table == NULL)
		table = synchro_table_get(row->relation, true);
	if (table == NULL || SYNCHRO_LAYOUT_IDENTITY(row->layout) != SYNCHRO_LAYOUT_IDENTITY(table->layout) ||
		SYNCHRO_LAYOUT_KEY(row->layout) != SYNCHRO_LAYOUT_KEY(table->layout))
		return;
	old = MemoryContextSwitchTo(lost->context);
	while (pos < end && (lost->table != NULL || !lost->any))
	{
		const char *start = pos;
		SynchroKeyRecord record;

		pos = synchro_key_next(pos, end, table, row->layout, &record);
		if (!synchro_key_renames(start))
			continue;
		if (lost->sources == NULL && record.stamp.source != 0)
			lost->sources = synchro_sources_load();
		if (is_known(lost->sources, record.stamp, lost->node))
			continue;
		lost->any = true;
		if (lost->table != NULL)
			lost->names = lappend(lost->names, make_renamed(table, record.identity, record.old_key, 0));
	}
	MemoryContextSwitchTo(old);
}

static void
scan_lost(const SynchroSnapshot *since, LostNames *lost)
{
	lost->context = CurrentMemoryContext;
	synchro_log_begin_latest();
	synchro_log_scan_renames(since, search_lost, lost, lost->table == NULL ? &lost->any : NULL);
	PopActiveSnapshot();
}

/*
 * Names that rows here have lost, and live on, that a snapshot has not seen and
 * that node has not brought.
 *
 * A row that was deleted and inserted anew with another name is none of them: as
 * it went, all went that referred to it, so nothing has followed it to that name.
 */
List *
synchro_peernames_lost(const SynchroTable *table, const SynchroSnapshot *named, const pg_uuid_t *node)
{
	LostNames	lost = {table, node};

	scan_lost(named, &lost);
	return lost.names;
}

/*
 * Are there any, of whatever table?
 */
bool
synchro_peernames_any(const SynchroSnapshot *named, const pg_uuid_t *node)
{
	LostNames	lost = {NULL, node};

	scan_lost(named, &lost);
	return lost.any;
}

static void
search_renames(const SynchroLogRow *row, void *arg)
{
	NameSearch *names = arg;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;
	MemoryContext old;

	if (!synchro_logsearch_is_of_table(&names->log, row))
		return;
	old = MemoryContextSwitchTo(names->log.context);
	for (int position = 0; pos < end; position++)
	{
		SynchroKeyRecord record;

		pos = synchro_key_next(pos, end, names->log.table, row->layout, &record);
		if (record.has_old && record.op == SYNCHRO_OP_UPDATE && !record.refused)
			note_name(names, row, &record, position, 0);
	}
	MemoryContextSwitchTo(old);
}

/*
 * Find the rows here that have lost a name at one of the given times, which
 * are in order.  Reads what is as young as the first of them.
 */
List *
synchro_peernames_renames(const SynchroTable *table, const TimestampTz *lost, int count)
{
	NameSearch	names = {.node = NULL};
	List	   *result = NIL;
	ListCell   *cell;

	if (count == 0)
		return NIL;
	synchro_logsearch_begin(&names.log, table, 16, synchro_stamps_create());
	synchro_logsearch_latest(lost[0], NULL, search_renames, &names);
	foreach(cell, names.entries)
	{
		const NameEntry *entry = lfirst(cell);
		TimestampTz at = synchro_stamps_of(names.log.stamps, entry->txid, entry->logged_at, entry->stamp).at;
		int			i = 0;

		while (i < count && lost[i] < at)
			i++;
		if (i == count || lost[i] != at || entry->old_key.data == NULL)
			continue;
		result = lappend(result, make_renamed(table, entry->identity, entry->old_key, at));
	}
	return result;
}
