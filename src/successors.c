/*-------------------------------------------------------------------------
 *
 * successors.c
 *	  Rows that have been made anew: which bears the name of one that is gone.
 *
 * Where a foreign key is part of a name, the log says which parent that was
 * by its identity.  Once the parent has been deleted, with what was below it,
 * and one of the same name was inserted, the names that were lost below the
 * former would be nobody's: a change made elsewhere of a row that went along,
 * older than that, would be taken for a new row below the successor.  So names
 * of the log are translated: below the successor they are looked for.
 *
 * A row is a successor if it was inserted after the former was deleted, and had
 * its name from the beginning: one that was there before, or was called otherwise,
 * has had rows of its own below it, which another node may mean by that name.
 * Names that were lost below the former's identity after its delete were lost below
 * another row that got that identity, so these are not translated.  All this is in
 * the order of the log here.
 *
 * A parent's name may have a parent in it that was made anew itself, or be
 * one of the same tree: so this is done for the parents first, as far up as
 * rows were deleted and inserted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "keyarray.h"
#include "localsql.h"
#include "logsearch.h"
#include "nametable.h"
#include "reader.h"
#include "successors.h"

/* rows that are below themselves have no root */
#define MAX_DEPTH 100

/* when something was logged here */
typedef struct Moment
{
	TimestampTz at;				/* 0: never */
	uint64		txid;
} Moment;

/* a row that names refer to */
typedef struct Parent
{
	SynchroBytes identity;		/* hash key */
	Moment		inserted;		/* last */
	bool		renamed;		/* it was called otherwise before */
	bool		named;
	SynchroBytes name;			/* what it is called, or was when it went */
	Moment		gone;			/* last, if that is where the name is from */
} Parent;

/* a row that is gone, and whose name a parent bears */
typedef struct Former
{
	SynchroBytes identity;		/* hash key */
	Moment		gone;			/* last */
	SynchroBytes successor;
} Former;

struct SynchroSuccessors
{
	const SynchroTable *table;
	const SynchroTable **parents;	/* by foreign key; NULL: no names of its own */
	HTAB	  **former;			/* by foreign key: of Former; NULL: none */
};

/* what is looked for among the deletes of a parent table */
typedef struct Search
{
	SynchroLogSearch log;		/* wanted is not used */
	MemoryContext row_context;
	HTAB	   *parents;		/* of Parent */
	bool		any;			/* parents were inserted */
	const SynchroSuccessors *above; /* of the parents' own parents, or NULL */
	SynchroNameTable *names;	/* of Parent */
	HTAB	   *former;			/* of Former */
	StringInfoData bytes;
	void		(*note) (struct Search *search, const SynchroLogRow *row, const SynchroKeyRecord *record);
} Search;

/*
 * The parent whose identity a foreign key has in the table's names, NULL if it
 * does not, or if the log says nothing of what rows there are called.
 */
static const SynchroTable *
parent_in_key(const SynchroTable *table, int fk)
{
	const SynchroForeignKey *key = &table->fks[fk];
	const SynchroTable *parent;

	for (int i = 0; i < key->ncols; i++)
		if (!synchro_column_is_key(table, key->cols[i]) || table->columns[key->cols[i]].fk != fk)
			return NULL;
	parent = synchro_table_get(key->parent, true);
	if (parent == NULL || parent->mode != SYNCHRO_MODE_NATURAL_KEY || !synchro_table_fk_to_identity(key, parent))
		return NULL;
	for (int i = 0; i < key->ncols; i++)
	{
		Oid			here = table->columns[key->cols[i]].type;
		Oid			there = parent->columns[parent->identity[i]].type;

		if (here != there && !(synchro_type_is_integer(here) && synchro_type_is_integer(there)))
			return NULL;
	}
	return parent;
}

/*
 * The tables whose rows may have successors, and be in names of this one:
 * copies, in the current memory context.
 */
List *
synchro_successors_parents(const SynchroTable *table)
{
	List	   *parents = NIL;

	for (int fk = 0; fk < table->nfks; fk++)
	{
		const SynchroTable *parent = parent_in_key(table, fk);

		if (parent != NULL)
			parents = lappend(parents, unconstify(SynchroTable *, synchro_table_copy(parent, CurrentMemoryContext)));
	}
	return parents;
}

static bool
tells_names(const SynchroLogRow *row, const SynchroTable *table)
{
	return row->relation == table->relid && row->layout == table->layout;
}

static bool
loses_name(const SynchroKeyRecord *record)
{
	return record->op == SYNCHRO_OP_DELETE && record->has_old && !record->refused;
}

/*
 * Was that logged after a given moment, or by the same transaction?
 */
static bool
is_since(Moment now, Moment moment)
{
	return now.at >= moment.at || now.txid == moment.txid;
}

/*
 * Does a row of the log say that named rows of a table were deleted?
 */
bool
synchro_successors_deletes(const SynchroLogRow *row, const SynchroTable *table)
{
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;

	while (tells_names(row, table) && pos < end)
	{
		SynchroKeyRecord record;

		pos = synchro_key_next(pos, end, table, row->layout, &record);
		if (loses_name(&record))
			return true;
	}
	return false;
}

/*
 * The identity of the parent in a name, as the parent's table has it, in the
 * current memory context.  False if the name has none.
 */
static bool
parent_identity(const SynchroTable *table, int fk, const SynchroTable *parent, SynchroBytes name, SynchroBytes *identity)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];
	int			positions[INDEX_MAX_KEYS] = {0};
	StringInfoData buf;

	synchro_key_values(name, table, table->key, table->nkey, values, nulls);
	for (int i = 0; i < table->nkey; i++)
	{
		if (table->columns[table->key[i]].fk != fk)
			continue;
		if (nulls[i])
			return false;
		positions[table->columns[table->key[i]].fk_pos] = i;
	}
	initStringInfo(&buf);
	for (int i = 0; i < parent->nidentity; i++)
	{
		const SynchroColumn *column = &table->columns[table->key[positions[i]]];

		synchro_key_put(&buf, values[positions[i]], false, column->typlen, column->typbyval);
	}

	/* its integers may have another width there */
	synchro_key_values((SynchroBytes) {buf.data, buf.len}, parent, parent->identity, parent->nidentity, values, nulls);
	resetStringInfo(&buf);
	synchro_key_put_values(&buf, parent, parent->identity, parent->nidentity, values, nulls);
	*identity = (SynchroBytes) {buf.data, buf.len};
	return true;
}

static void
set_name(const Search *search, Parent *parent, SynchroBytes name)
{
	MemoryContext old = MemoryContextSwitchTo(search->log.context);

	parent->named = true;
	parent->name = synchro_key_copy(name);
	MemoryContextSwitchTo(old);
}

/*
 * Note what the log says of rows of the parent table.
 */
static void
search_records(const SynchroLogRow *row, void *arg)
{
	Search	   *search = arg;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;
	MemoryContext old;

	if (!synchro_logsearch_is_of_table(&search->log, row) || !tells_names(row, search->log.table))
		return;
	old = MemoryContextSwitchTo(search->row_context);
	while (pos < end)
	{
		SynchroKeyRecord record;

		pos = synchro_key_next(pos, end, search->log.table, row->layout, &record);
		if (!record.refused)
			search->note(search, row, &record);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(search->row_context);
}

/*
 * Note when parents were inserted, and what they were called when they went.
 */
static void
note_parent(Search *search, const SynchroLogRow *row, const SynchroKeyRecord *record)
{
	const Moment now = {row->changed_at, row->txid};
	Parent	   *parent = hash_search(search->parents, &record->identity, HASH_FIND, NULL);

	if (parent == NULL)
		return;
	if (record->op == SYNCHRO_OP_INSERT && is_since(now, parent->inserted))
		parent->inserted = now;
	if (record->op != SYNCHRO_OP_DELETE && record->has_old)
		parent->renamed = true;
	if (loses_name(record) && is_since(now, parent->gone))
	{
		parent->gone = now;
		set_name(search, parent, record->old_key);
	}
	search->any |= record->op == SYNCHRO_OP_INSERT;
}

static SynchroBytes
put_columns(StringInfo buf, const SynchroTable *table, const int *columns, int ncolumns, TupleTableSlot *slot, int first)
{
	resetStringInfo(buf);
	synchro_key_put_values(buf, table, columns, ncolumns, slot->tts_values + first, slot->tts_isnull + first);
	return (SynchroBytes) {buf->data, buf->len};
}

static void
note_name(TupleTableSlot *slot, void *arg)
{
	Search	   *search = arg;
	const SynchroTable *table = search->log.table;
	SynchroBytes bytes;
	Parent	   *parent;

	slot_getallattrs(slot);
	bytes = put_columns(&search->bytes, table, table->identity, table->nidentity, slot, 0);
	parent = hash_search(search->parents, &bytes, HASH_FIND, NULL);
	if (parent != NULL)
		set_name(search, parent, put_columns(&search->bytes, table, table->key, table->nkey, slot, table->nidentity));
}

/*
 * Read what parents are called now, with the rights of their table's owner; if
 * that one may not read it, they have no names.
 */
static void
read_names(Search *search)
{
	const SynchroTable *table = search->log.table;
	int			count = (int) hash_get_num_entries(search->parents);
	SynchroBytes *identities = palloc(sizeof(SynchroBytes) * count);
	bool		any_null[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	Datum		params[INDEX_MAX_KEYS];
	int			nparams;
	SynchroSqlScope scope;
	SynchroReader reader;
	StringInfoData sql;
	HASH_SEQ_STATUS status;
	Parent	   *parent;

	count = 0;
	hash_seq_init(&status, search->parents);
	while ((parent = hash_seq_search(&status)) != NULL)
		identities[count++] = parent->identity;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_nested_loops();
	LockRelationOid(table->relid, AccessShareLock);
	nparams = synchro_keyarray_of_bytes(table, identities, count, types, params, any_null);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(&sql, "%st.%s", i > 0 ? ", " : "", quote_identifier(table->columns[table->identity[i]].name));
	for (int i = 0; i < table->nkey; i++)
		appendStringInfo(&sql, ", t.%s", quote_identifier(table->columns[table->key[i]].name));
	synchro_keyarray_join(&sql, table, any_null);
	synchro_reader_begin_as_owner(&reader, table->relid);
	if (synchro_reader_may_read_all(table->relid))
		synchro_sql_query(sql.data, nparams, types, params, NULL, synchro_sql_callback(note_name, search));
	synchro_reader_end(&reader);
	synchro_sql_close(&scope);
}

/*
 * Note a deleted row if its name is that of a parent which was inserted after
 * that.
 */
static void
note_former(Search *search, const SynchroLogRow *row, const SynchroKeyRecord *record)
{
	const Moment now = {row->changed_at, row->txid};
	SynchroBytes name = record->old_key;
	const Parent *parent;
	Former	   *former;
	bool		known;

	if (!loses_name(record))
		return;
	if (search->above != NULL)
		(void) synchro_successors_translate(search->above, row, &name);
	parent = synchro_nametable_find(search->names, name);
	if (parent == NULL || synchro_bytes_equal(parent->identity, record->identity) || !is_since(parent->inserted, now))
		return;
	former = hash_search(search->former, &record->identity, HASH_ENTER, &known);
	if (!known)
	{
		MemoryContext old = MemoryContextSwitchTo(search->log.context);

		former->identity = synchro_key_copy(record->identity);
		MemoryContextSwitchTo(old);
	}
	else if (!is_since(now, former->gone))
		return;
	former->gone = now;
	former->successor = parent->identity;
}

/*
 * Make the table of what parents are called, of those that may be successors: of
 * two that are called the same, one which is gone, and the other.  Returns how many
 * there are; names: set to their names.
 */
static int
put_names(Search *search, SynchroBytes *names)
{
	int			count = 0;
	HASH_SEQ_STATUS status;
	Parent	   *parent;

	hash_seq_init(&status, search->parents);
	while ((parent = hash_seq_search(&status)) != NULL)
	{
		Parent	  **bearer;

		if (!parent->named || parent->renamed || parent->inserted.at == 0)
			continue;
		bearer = (Parent **) synchro_nametable_enter(search->names, parent->name);
		if (*bearer == NULL || is_since(parent->inserted, (*bearer)->inserted))
			*bearer = parent;
		names[count++] = parent->name;
	}
	return count;
}

static SynchroSuccessors *find_successors(const SynchroTable *table, const SynchroBytes *names, int count,
										  TimestampTz since, int depth);

/*
 * Find deleted rows of a parent table whose names these parents have had since
 * they were inserted.  Returns a table of Former, NULL if there are none.
 */
static HTAB *
find_former(const SynchroTable *table, HTAB *parents, TimestampTz since, int depth)
{
	Search		search = {.parents = parents};
	int			count = (int) hash_get_num_entries(parents);
	SynchroBytes *names;

	if (count == 0 || depth > MAX_DEPTH)
		return NULL;
	synchro_logsearch_begin(&search.log, table, 0, synchro_stamps_create());
	search.row_context = AllocSetContextCreate(CurrentMemoryContext, "synchro former parent", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&search.bytes);
	search.note = note_parent;
	synchro_logsearch_latest(since, NULL, search_records, &search);
	if (!search.any)
		return NULL;
	read_names(&search);
	search.names = synchro_nametable_create(table, count);
	names = palloc(sizeof(SynchroBytes) * count);
	count = put_names(&search, names);
	if (count == 0)
		return NULL;
	search.above = find_successors(table, names, count, since, depth + 1);
	search.former = synchro_bytes_table("synchro former parents", sizeof(Former), 16);
	search.note = note_former;
	synchro_logsearch_latest(since, NULL, search_records, &search);
	return hash_get_num_entries(search.former) > 0 ? search.former : NULL;
}

static SynchroSuccessors *
find_successors(const SynchroTable *table, const SynchroBytes *names, int count, TimestampTz since, int depth)
{
	SynchroSuccessors *successors = palloc0(sizeof(SynchroSuccessors));
	bool		any = false;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	successors->table = table;
	successors->parents = palloc0(sizeof(SynchroTable *) * Max(table->nfks, 1));
	successors->former = palloc0(sizeof(HTAB *) * Max(table->nfks, 1));
	for (int fk = 0; fk < table->nfks; fk++)
	{
		const SynchroTable *parent = parent_in_key(table, fk);
		HTAB	   *parents;

		if (parent == NULL)
			continue;
		parent = successors->parents[fk] = synchro_table_copy(parent, CurrentMemoryContext);
		parents = synchro_bytes_table("synchro parents in names", sizeof(Parent), 256);
		for (int i = 0; i < count; i++)
		{
			SynchroBytes identity;
			bool		known;
			Parent	   *row;

			if (!parent_identity(table, fk, parent, names[i], &identity))
				continue;
			row = hash_search(parents, &identity, HASH_ENTER, &known);
			if (!known)
			{
				memset(row, 0, sizeof(Parent));
				row->identity = identity;
			}
		}
		successors->former[fk] = find_former(parent, parents, since, depth);
		any |= successors->former[fk] != NULL;
	}
	return any ? successors : NULL;
}

/*
 * Find which parents in names of a table's rows have the name of parents that
 * were deleted at a given time or later.
 *
 * table: a copy, see synchro_table_copy().  names: encoded, see keycodec.h.
 * Returns NULL if none have; else what synchro_successors_translate() takes, in
 * the current memory context.  Reads the log some times over, for each level of
 * parents.
 */
SynchroSuccessors *
synchro_successors_find(const SynchroTable *table, const SynchroBytes *names, int count, TimestampTz since)
{
	return find_successors(table, names, count, since, 0);
}

/*
 * Make a name that a row of the log says was lost below a former parent the one
 * that it would be below its successor, as synchro_nametable_find() takes it:
 * integers of the parent's are as wide as there.  False, and the name is as it was,
 * if it was below none.  Leaves something in the current memory context.
 */
bool
synchro_successors_translate(const SynchroSuccessors *successors, const SynchroLogRow *row, SynchroBytes *name)
{
	const SynchroTable *table = successors->table;
	const SynchroColumn *columns[INDEX_MAX_KEYS];
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];
	bool		translated = false;
	StringInfoData buf;

	for (int fk = 0; fk < table->nfks; fk++)
	{
		const SynchroTable *parent = successors->parents[fk];
		SynchroBytes identity;
		const Former *former;
		Datum		successor[INDEX_MAX_KEYS];
		bool		none[INDEX_MAX_KEYS];

		if (successors->former[fk] == NULL || !parent_identity(table, fk, parent, *name, &identity))
			continue;
		former = hash_search(successors->former[fk], &identity, HASH_FIND, NULL);
		if (former == NULL || !is_since(former->gone, (Moment) {row->changed_at, row->txid}))
			continue;
		if (!translated)
		{
			synchro_key_values(*name, table, table->key, table->nkey, values, nulls);
			for (int i = 0; i < table->nkey; i++)
				columns[i] = &table->columns[table->key[i]];
		}
		translated = true;
		synchro_key_values(former->successor, parent, parent->identity, parent->nidentity, successor, none);
		for (int i = 0; i < table->nkey; i++)
		{
			int			position = table->columns[table->key[i]].fk_pos;

			if (table->columns[table->key[i]].fk != fk)
				continue;
			values[i] = successor[position];
			columns[i] = &parent->columns[parent->identity[position]];
		}
	}
	if (!translated)
		return false;
	initStringInfo(&buf);
	for (int i = 0; i < table->nkey; i++)
		synchro_key_put(&buf, values[i], nulls[i], columns[i]->typlen, columns[i]->typbyval);
	*name = (SynchroBytes) {buf.data, buf.len};
	return true;
}
