/*-------------------------------------------------------------------------
 *
 * batchcalled.c
 *	  Rows by which the remote still calls others that wait: if they are gone here, they
 *	  wait for these.  (header: batch.h)
 *
 * A row that has its parent in its natural key, and whose new name has been refused,
 * keeps on the remote a name that has its former parent in it.  If that is gone here,
 * nothing but its own name of before says which row there it is.  Were that sent, it
 * would be an old story to the next batch: the row that waits would be found by
 * nobody any more, so that it went along with the parent's delete, or was made anew.
 * So the parent is left out, too, and parked with what the remote calls it.
 *
 * One that only gets another primary key here goes, since else all that refers to it
 * would wait.  But later nobody would know which row it was, so in the name of the row
 * that waits it is called by its new key before the batch is sent.  That is true whether
 * this gets through or not: until one does, each says what was called otherwise before.
 * Only where the key was another row's before that, it would not be, and is left as it is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "applysql.h"
#include "batch.h"
#include "localsql.h"
#include "reader.h"
#include "readsql.h"
#include "stalled.h"

/* a row by which another one is called that waits */
typedef struct Called
{
	char	   *row;			/* hash key, see synchro_parked_row() */
	const char *by;				/* that one's table */
	char	  **now;			/* its identity by now, if that is another one */
} Called;

/* a row that waits, and does not come with the batch */
typedef struct Waiting
{
	const SynchroTable *table;
	SynchroBytes identity;
	SynchroParked *parked;
	char	  **name;			/* values of what the remote calls it */
} Waiting;

/* all of them */
typedef struct CalledRows
{
	HTAB	   *rows;
	List	   *parents;		/* oids of their tables */
	List	   *waiting;		/* of Waiting: rows that may be called by others */
	List	   *children;		/* oids of tables that may have some */
} CalledRows;

/* a row that had another identity before */
typedef struct MovedName
{
	char	   *name;			/* hash key: what it was called then */
	Called	   *called;
} MovedName;

/*
 * The table of which a foreign key references rows by columns of the natural key; or
 * NULL.  Then values are those of the row's identity, of a name of before that has these
 * values; if it is known what they were.
 */
static const SynchroTable *
parent_in_name(const SynchroTable *table, int fk, char **name, char **values)
{
	const SynchroTable *parent = synchro_table_get(table->fks[fk].parent, true);

	if (parent == NULL || parent->nidentity == 0)
		return NULL;
	for (int x = 0; x < parent->nidentity; x++)
	{
		int			j = synchro_stream_key_position(table, fk, parent->columns[parent->identity[x]].attnum);

		if (j < 0)
			return NULL;
		if (values != NULL)
			values[x] = name[j];
	}
	return values == NULL || values[0] != NULL ? parent : NULL;
}

static void
add_called(CalledRows *called, const SynchroTable *table, int fk, char **name)
{
	char	   *values[INDEX_MAX_KEYS] = {0};
	const SynchroTable *parent = parent_in_name(table, fk, name, values);
	char	   *row;
	Called	   *slot;

	if (parent == NULL)
		return;
	row = synchro_parked_row(parent->relid, values, parent->nidentity);
	slot = hash_search(called->rows, &row, HASH_ENTER, NULL);
	slot->by = table->qualified;
	slot->now = NULL;
	called->parents = list_append_unique_oid(called->parents, parent->relid);
}

/*
 * Find the rows by which others are called that wait, and do not come with this
 * batch.
 */
static CalledRows
find_called(const SynchroBatch *batch)
{
	CalledRows	called = {synchro_string_table(CurrentMemoryContext, sizeof(Called))};
	ListCell   *cell;
	ListCell   *other;

	foreach(cell, synchro_parked_tables(batch->parked))
	{
		const SynchroTable *table = synchro_table_get(lfirst_oid(cell), true);

		if (table == NULL || !table->watched || table->mode == SYNCHRO_MODE_NONE || table->mode == SYNCHRO_MODE_REFERENCE || table->nfks == 0)
			continue;

		/* the description may be made anew while others are got */
		table = synchro_table_copy(table, CurrentMemoryContext);
		for (int fk = 0; fk < table->nfks; fk++)
			if (parent_in_name(table, fk, NULL, NULL) != NULL)
				called.children = list_append_unique_oid(called.children, table->relid);
		if (!list_member_oid(called.children, table->relid))
			continue;
		foreach(other, synchro_parked_names(batch->parked, table))
		{
			const SynchroChangedKey *name = lfirst(other);
			SynchroParked *parked = synchro_parked_find_key(batch->parked, table, name->identity);
			Waiting    *waiting;

			/* NULL: the type writes the row's key otherwise since a while ago */
			if (parked != NULL && !parked->banned && parked->due && !synchro_stalled_waits(batch->stalled, table->relid))
				continue;
			waiting = palloc(sizeof(Waiting));
			waiting->table = table;
			waiting->identity = name->identity;
			waiting->parked = parked;
			waiting->name = synchro_identities_values(table, table->key, table->nkey, name->name);
			called.waiting = lappend(called.waiting, waiting);
			for (int fk = 0; fk < table->nfks; fk++)
				add_called(&called, table, fk, waiting->name);
		}
	}
	return called;
}

/*
 * A name of before as it is compared with others of its table.
 */
static char *
name_text(const SynchroTable *table, SynchroBytes name)
{
	bool		by_reference = table->mode == SYNCHRO_MODE_REFERENCE;
	int			n = by_reference ? table->nidentity : table->nkey;

	return synchro_identity_key(synchro_identities_values(table, by_reference ? table->identity : table->key, n, name), n);
}

/*
 * Begin to look through a table's names of before, in a context of their own, which is
 * returned.
 */
static MemoryContext
begin_names(SynchroBatch *batch, const SynchroLinkTable *lt, SynchroChangedTable *changed)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro called row", ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(context);
	synchro_batch_require_rights(batch, lt);
	synchro_suspect(lt->root);
	synchro_stream_reads(changed->table->relid);
	tuplestore_rescan(changed->olds);
	return context;
}

/*
 * Whoever comes next begins with the first of them.
 */
static void
end_names(SynchroChangedTable *changed, MemoryContext context)
{
	tuplestore_rescan(changed->olds);
	synchro_stream_reads(InvalidOid);
	synchro_suspect(InvalidOid);
	MemoryContextSwitchTo(MemoryContextGetParent(context));
	MemoryContextDelete(context);
}

static Called *
find_row(const CalledRows *called, const SynchroTable *table, SynchroBytes identity)
{
	char	   *row = synchro_parked_row(table->relid, synchro_identities_values(table, table->identity, table->nidentity, identity),
										 table->nidentity);

	return hash_search(called->rows, &row, HASH_FIND, NULL);
}

/*
 * Look through a table's names of before for rows by which others are called, and which
 * have another identity by now.  Of such a row there are two names, which are the same:
 * that of a row which had the former identity (kind d), and that of the row which has
 * the new one.
 */
static void
find_moved(SynchroBatch *batch, const CalledRows *called, SynchroChangedTable *changed)
{
	SynchroLinkTable *lt = synchro_link_table(batch->link, changed->relid, changed->table->watched);
	const SynchroTable *table = changed->table;
	HTAB	   *names = synchro_string_table(CurrentMemoryContext, sizeof(MovedName));
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = begin_names(batch, lt, changed);
	Called	   *arrived = NULL;
	SynchroChangedKey key;

	while (synchro_changes_next_old(changed, &key))
	{
		Called	   *slot = key.kind == SYNCHRO_KIND_DEAD[0] ? find_row(called, table, key.identity) : NULL;

		CHECK_FOR_INTERRUPTS();
		if (slot != NULL)
		{
			char	   *name = MemoryContextStrdup(old, name_text(table, key.name));

			((MovedName *) hash_search(names, &name, HASH_ENTER, NULL))->called = slot;
		}
		MemoryContextReset(context);
	}
	tuplestore_rescan(changed->olds);
	while (hash_get_num_entries(names) > 0 && synchro_changes_next_old(changed, &key))
	{
		CHECK_FOR_INTERRUPTS();
		if (key.kind == SYNCHRO_KIND_OLD[0])
		{
			char	   *name = name_text(table, key.name);
			const MovedName *moved = hash_search(names, &name, HASH_FIND, NULL);

			arrived = moved != NULL ? moved->called : NULL;
			if (arrived != NULL)
			{
				MemoryContextSwitchTo(old);
				arrived->now = synchro_identities_values(table, table->identity, table->nidentity, key.identity);
				MemoryContextSwitchTo(context);
			}
		}
		else if (key.kind == SYNCHRO_KIND_DEAD[0] && arrived != NULL)
		{
			char	  **other = synchro_identities_values(table, table->identity, table->nidentity, key.identity);

			/* it comes right after the one that has its identity now */
			if (strcmp(synchro_identity_key(other, table->nidentity), synchro_identity_key(arrived->now, table->nidentity)) == 0)
				arrived->now = NULL;
			arrived = NULL;
		}
		MemoryContextReset(context);
	}
	end_names(changed, context);
}

/*
 * What the remote calls rows that wait has others in it: call these by their present
 * identities.  Returns whether any had another one.
 */
static bool
follow_moved(SynchroBatch *batch, const CalledRows *called)
{
	bool		any = false;
	ListCell   *cell;

	foreach(cell, called->waiting)
	{
		const Waiting *waiting = lfirst(cell);
		const SynchroTable *table = waiting->table;
		char	  **name = memcpy(palloc(sizeof(char *) * table->nkey), waiting->name, sizeof(char *) * table->nkey);
		bool		moved = false;

		for (int fk = 0; fk < table->nfks; fk++)
		{
			char	   *values[INDEX_MAX_KEYS] = {0};
			const SynchroTable *parent = parent_in_name(table, fk, waiting->name, values);
			char	   *row = parent != NULL ? synchro_parked_row(parent->relid, values, parent->nidentity) : NULL;
			const Called *slot = row != NULL ? hash_search(called->rows, &row, HASH_FIND, NULL) : NULL;

			if (slot == NULL || slot->now == NULL)
				continue;
			for (int x = 0; x < parent->nidentity; x++)
				name[synchro_stream_key_position(table, fk, parent->columns[parent->identity[x]].attnum)] = slot->now[x];
			moved = true;
		}
		moved &= waiting->parked != NULL;
		if (moved)
			synchro_parked_call(batch->parked, waiting->parked, table, waiting->identity,
								synchro_identities_encode(table, table->key, table->nkey, name));
		any |= moved;
	}
	return any;
}

static void
receive_here(TupleTableSlot *slot, void *arg)
{
	*(bool *) arg = true;
}

static bool
is_here(const SynchroBatch *batch, const SynchroLinkTable *lt, SynchroBytes identity)
{
	const SynchroTable *table = lt->table;
	SynchroIdentities *identities = synchro_identities_create(table);
	SynchroReader reader;
	StringInfoData sql;
	Datum		values[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	int			nparams;
	bool		here = false;
	MemoryContext context = CurrentMemoryContext;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT true");
	synchro_sql_from(&sql, lt, true);
	synchro_identities_decode(identities, table, identity);
	synchro_reader_begin(&reader, batch->link->target->owner, table, true, synchro_stream_joined(lt, true));
	nparams = synchro_identities_params(identities, table, 0, 1, types, values);
	synchro_sql_query(sql.data, nparams, types, values, NULL, synchro_sql_callback(receive_here, &here));
	synchro_reader_end(&reader);

	/* queries leave their own behind */
	MemoryContextSwitchTo(context);
	return here;
}

/*
 * Look through a table's names of before for rows by which others are called, and
 * that are gone; and for what the remote calls rows that have failed in this pass,
 * which may have other such rows in it.  Returns whether there are any that were
 * not known.
 */
static bool
keep_table(SynchroBatch *batch, SynchroChangedTable *changed, const CalledRows *called)
{
	SynchroLinkTable *lt = synchro_link_table(batch->link, changed->relid, changed->table->watched);
	const SynchroTable *table = changed->table;
	MemoryContext context = begin_names(batch, lt, changed);
	SynchroChangedKey name;
	bool		any = false;

	while (synchro_changes_next_old(changed, &name))
	{
		SynchroParked *parked = synchro_parked_find_key(batch->parked, table, name.identity);
		const Called *slot = find_row(called, table, name.identity);

		CHECK_FOR_INTERRUPTS();
		if (parked != NULL && parked->banned)
			any |= synchro_batch_keep_name(batch, parked, changed, &name);
		else if (slot != NULL && name.kind == SYNCHRO_KIND_OLD[0] && !is_here(batch, lt, name.identity))
		{
			synchro_parked_hold(batch->parked, table, &name, batch->olds->sources, slot->by);
			any = true;
		}
		MemoryContextReset(context);
	}
	end_names(changed, context);
	return any;
}

/*
 * Has the batch names of before of a table that is in that list?
 */
static bool
has_olds(const SynchroChangedTable *changed, const List *tables)
{
	return changed->nolds > 0 && list_member_oid(tables, changed->relid) && synchro_table_get(changed->relid, true) != NULL;
}

/*
 * Follow those that have moved, and leave the others out of the batch.  One may itself be
 * called by another one: until nothing new is found.
 */
void
synchro_batch_keep_called(SynchroBatch *batch)
{
	bool		again = batch->parked->count > 0 && batch->olds->nolds > 0;

	while (again)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro called rows", ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);
		CalledRows	called = find_called(batch);
		List	   *both = list_concat_unique_oid(list_copy(called.parents), called.children);
		ListCell   *cell;

		foreach(cell, batch->olds->tables)
			if (has_olds(lfirst(cell), called.parents))
				find_moved(batch, &called, lfirst(cell));
		again = follow_moved(batch, &called);
		foreach(cell, again ? NIL : batch->olds->tables)
		{
			SynchroChangedTable *changed = lfirst(cell);

			if (changed->table->watched && has_olds(changed, both))
				again |= keep_table(batch, changed, &called);
		}
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
	}
}
