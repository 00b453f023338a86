/*-------------------------------------------------------------------------
 *
 * applied.c
 *	  Rows that this transaction changes on behalf of another node.
 *
 * What another node pushes is logged here with the stamp that it was given
 * there, so that it is not taken for a change of this node's own and goes on
 * to others under its first name.  The pushing session says beforehand which
 * rows it will write (synchro.peer_apply()); the row trigger asks here.  All
 * other rows, for instance those that triggers of this database write
 * meanwhile, are logged as usual.
 *
 * The set is the present transaction's and goes with it.  That a
 * subtransaction which is rolled back leaves its rows in the set is harmless:
 * the session of a pusher has none, and nobody else may add rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "applied.h"
#include "source.h"

/* hash key; its bytes belong to the entry */
typedef struct AppliedKey
{
	Oid			relation;
	SynchroBytes identity;
} AppliedKey;

typedef struct AppliedEntry
{
	AppliedKey	key;
	SynchroApplied applied;
} AppliedEntry;

static MemoryContext context = NULL;
static HTAB *entries = NULL;
static HTAB *affected = NULL;	/* of AppliedKey */
static List *refused = NIL;		/* of SynchroRefused */
static List *referring = NIL;	/* tables whose rows deletes may affect */

static uint32
hash_key(const void *key, Size size)
{
	const AppliedKey *k = key;

	return hash_combine(hash_bytes_uint32(k->relation),
						hash_bytes((const unsigned char *) k->identity.data, k->identity.len));
}

static int
match_key(const void *a, const void *b, Size size)
{
	const AppliedKey *x = a;
	const AppliedKey *y = b;

	return x->relation != y->relation || x->identity.len != y->identity.len ||
		memcmp(x->identity.data, y->identity.data, x->identity.len) != 0;
}

static void
make_context(void)
{
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "synchro applied", ALLOCSET_DEFAULT_SIZES);
}

/*
 * Does this transaction write anything on behalf of another node?
 */
bool
synchro_applied_any(void)
{
	return entries != NULL;
}

static HTAB *
make_table(const char *name, Size entrysize)
{
	HASHCTL		ctl = {0};

	make_context();
	ctl.keysize = sizeof(AppliedKey);
	ctl.entrysize = entrysize;
	ctl.hash = hash_key;
	ctl.match = match_key;
	ctl.hcxt = context;
	return hash_create(name, 1024, &ctl, HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/*
 * Find a row in one of our tables, or put it there, with bytes of its own.
 */
static void *
find_or_enter(HTAB *table, Oid relation, SynchroBytes identity, bool *found)
{
	AppliedKey	key = {relation, identity};
	void	   *entry = hash_search(table, &key, HASH_FIND, found);

	if (*found)
		return entry;
	key.identity.data = memcpy(MemoryContextAlloc(context, Max(identity.len, 1)), identity.data, identity.len);
	return hash_search(table, &key, HASH_ENTER, NULL);
}

/*
 * The row with that identity is going to be written for another node.
 *
 * touch: log it at the end even if it needs not be written, since it is as the
 * other node wants it.
 */
void
synchro_applied_put(const SynchroTable *table, SynchroBytes identity,
					SynchroStamp stamp, bool derived, bool touch)
{
	AppliedEntry *entry;
	bool		found;

	if (entries == NULL)
		entries = make_table("synchro applied", sizeof(AppliedEntry));
	entry = find_or_enter(entries, table->relid, identity, &found);
	if (!found)
		memset(&entry->applied, 0, sizeof(entry->applied));
	entry->applied.relation = table->relid;
	entry->applied.layout = table->layout;
	entry->applied.identity = entry->key.identity;
	entry->applied.stamp = stamp;
	entry->applied.derived = derived;
	entry->applied.touch = touch;
}

/*
 * The row with that identity is not written after all.
 */
void
synchro_applied_take_out(const SynchroTable *table, SynchroBytes identity)
{
	AppliedKey	key = {table->relid, identity};

	if (entries != NULL)
		(void) hash_search(entries, &key, HASH_REMOVE, NULL);
}

/*
 * The row with that identity is this node's own change, newer than a given
 * time, and than what is applied to it for another node.
 *
 * The latter is logged, too, as the change that it is, so that nodes which hear
 * of it by other ways know a change of a name again; but as one that has not
 * been brought by that node, which is to get the row back.
 */
void
synchro_applied_restate(const SynchroTable *table, SynchroBytes identity, TimestampTz after)
{
	SynchroApplied *applied = synchro_applied_find(table->relid, identity);
	SynchroStamp stamp = {after + 1};

	if (applied == NULL)
	{
		synchro_applied_put(table, identity, stamp, false, true);
		return;
	}
	stamp.at = Max(stamp.at, applied->stamp.at + 1);
	if (applied->stamp.source != 0)
	{
		SynchroSources *sources = synchro_sources_load();
		pg_uuid_t	origin = synchro_source_find(sources, applied->stamp.source)->origin;
		pg_uuid_t	own = synchro_source_find(sources, 0)->origin;

		if (!synchro_uuid_equal(&origin, &own))
			applied->stamp.source = synchro_source_number(&origin, &own);
		else
			applied->stamp.source = 0;
	}
	applied->restated = stamp;
}

/*
 * What is known of a row, or NULL if it is not written for another node.
 */
SynchroApplied *
synchro_applied_find(Oid relation, SynchroBytes identity)
{
	AppliedKey	key = {relation, identity};
	AppliedEntry *entry;

	if (entries == NULL)
		return NULL;
	entry = hash_search(entries, &key, HASH_FIND, NULL);
	return entry != NULL ? &entry->applied : NULL;
}

/*
 * Rows of a table refer to some that are going to be deleted for the other node,
 * be it by way of others.
 */
void
synchro_applied_refers(Oid relation)
{
	MemoryContext old;

	make_context();
	old = MemoryContextSwitchTo(context);
	referring = list_append_unique_oid(referring, relation);
	MemoryContextSwitchTo(old);
}

/*
 * May rows of that table be changed by what is deleted for the other node?
 */
bool
synchro_applied_is_referring(Oid relation)
{
	return list_member_oid(referring, relation);
}

/*
 * A row is deleted that the other node has not asked for, or loses a reference.
 * Of tables that refer to what is deleted for it, that may come of a foreign
 * key, by ON DELETE CASCADE, SET NULL or SET DEFAULT.
 */
void
synchro_applied_note_affected(Oid relation, SynchroBytes identity)
{
	bool		found;

	if (!synchro_applied_is_referring(relation))
		return;
	if (affected == NULL)
		affected = make_table("synchro affected", sizeof(AppliedKey));
	(void) find_or_enter(affected, relation, identity, &found);
}

/*
 * Has that become of a row?
 */
bool
synchro_applied_is_affected(Oid relation, SynchroBytes identity)
{
	AppliedKey	key = {relation, identity};

	return affected != NULL && hash_search(affected, &key, HASH_FIND, NULL) != NULL;
}

/*
 * One row after the other; NULL after the last, to which the caller must go.
 */
SynchroApplied *
synchro_applied_next(bool first)
{
	static HASH_SEQ_STATUS status;
	AppliedEntry *entry;

	if (entries == NULL)
		return NULL;
	if (first)
		hash_seq_init(&status, entries);
	entry = hash_seq_search(&status);
	return entry != NULL ? &entry->applied : NULL;
}

/*
 * A change of a name has lost here, and nobody bears the name: the other node
 * calls that row so until it is told.  The log says it at the end, when all
 * names have been given up that are given up meanwhile.
 */
void
synchro_applied_refuse(const SynchroTable *table, SynchroBytes identity, SynchroBytes name, SynchroStamp stamp)
{
	MemoryContext old;
	SynchroRefused *entry;

	make_context();
	old = MemoryContextSwitchTo(context);
	entry = palloc(sizeof(SynchroRefused));
	entry->relation = table->relid;
	entry->layout = table->layout;
	entry->identity = synchro_key_copy(identity);
	entry->name = synchro_key_copy(name);
	entry->stamp = stamp;
	refused = lappend(refused, entry);
	MemoryContextSwitchTo(old);
}

List *
synchro_applied_refused(void)
{
	return refused;
}

/*
 * The transaction is at its end.
 */
void
synchro_applied_forget(void)
{
	if (context != NULL)
		MemoryContextDelete(context);
	entries = NULL;
	affected = NULL;
	referring = NIL;
	refused = NIL;
	context = NULL;
}
