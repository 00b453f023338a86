/*-------------------------------------------------------------------------
 *
 * keyhistory.c
 *	  What the entries of the log say of a key, one after the other.
 *
 * All log entries of a key are brought together by sorting, in the order in
 * which their transactions committed: two transactions that changed the same
 * row did so one after the other, since the first held the row's lock until
 * it ended, so their log times are in order, too.  Of a key's entries count:
 *
 * - the first: if it is an insert, the row is new since then, and the remote
 *   does not know it by any name of before;
 * - the first with an old key: that is what the row was called in the earlier
 *   snapshot, so what the remote calls it; not that of a row that moved here;
 * - those that say that the row moved here from another identity: followed
 *   (changemoves.c), they tell which row of the earlier snapshot it is.
 *
 * What the remote itself has pushed here it knows: such an entry makes the
 * row known there as it then was, and whatever came before it does not count.
 * Only where it changed a name that the remote does not know of (derived, see
 * keycodec.h), that name is told to be gone.
 *
 * The last one tells whether the row is here.  If it was updated, and is not, no
 * delete has been logged that came after it: it has gone with a partition that was
 * detached (batchdetached.c).
 *
 * What is parked (parked.c) counts as if it came before all that: it tells
 * what the remote calls the row.  By itself it makes a key only when it is due.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "changemoves.h"
#include "keyhistory.h"

/*
 * Has the remote itself pushed a change here?
 */
bool
synchro_history_known_to_peer(const SynchroHistories *histories, SynchroStamp stamp)
{
	return histories->peer != NULL && stamp.source != 0 &&
		synchro_uuid_equal(&synchro_stamps_source(histories->stamps, stamp)->via, histories->peer);
}

/* a name that is gone, and since when */
typedef struct GoneName
{
	SynchroBytes name;
	SynchroStamp stamp;
} GoneName;

/* all that the log says about one key */
typedef struct KeyHistory
{
	SynchroBytes identity;
	bool		pending;		/* something of it is new to the remote */
	bool		unnamed;		/* has entries that count, see HISTORY_NAMED */
	SynchroOp	first_op;		/* of those */
	bool		came;			/* by which a row moved here */
	bool		removed;		/* deleted, or moved to another identity */
	bool		has_old;
	SynchroBytes old_key;
	SynchroStamp renamed;		/* when it lost that */
	bool		has_own;		/* an old key of a row that did not move here */
	SynchroBytes own_key;
	bool		again;			/* is sent again */
	List	   *gone_again;		/* of GoneName: to be sent again */
	SynchroStamp newest;
	TimestampTz born;
	List	   *derived;		/* of GoneName: the remote may know them */
	bool		waits;			/* is parked, and nothing else is said of it */
	bool		logged;			/* the last entry of the log is an update */
} KeyHistory;

typedef void (*HistoryCallback) (SynchroChangedTable *changed, const KeyHistory *group, void *arg);

static SynchroBytes
slot_old_key(TupleTableSlot *slot)
{
	return synchro_key_copy(synchro_datum_bytes(slot->tts_values[HISTORY_OLD]));
}

static List *
add_gone(List *gone, SynchroBytes old_key, SynchroStamp stamp)
{
	GoneName   *name = palloc(sizeof(GoneName));

	name->name = old_key;
	name->stamp = stamp;
	return lappend(gone, name);
}

/*
 * Has the row a name of before of its own, of which the remote has not been told
 * that it is gone?
 */
static bool
has_untold_name(const KeyHistory *group)
{
	return group->unnamed && group->first_op != SYNCHRO_OP_INSERT && !group->came && group->has_own;
}

/*
 * The remote has sent this: it knows the row as it is now.  Names that are
 * gone are facts of their own, of which it need not know.
 *
 * A row that was renamed here may bear a name by now that the remote has given to
 * another one: this has found the row by that, so the remote does not know yet
 * that the name of before is gone.  If the row was found by that name, it is
 * renamed back (derived), and bears it again.
 */
static void
begin_anew(KeyHistory *group, TupleTableSlot *slot, int flags, SynchroStamp stamp)
{
	SynchroBytes identity = group->identity;
	KeyHistory	before = *group;

	memset(group, 0, sizeof(*group));
	group->identity = identity;
	group->newest = stamp;
	group->gone_again = before.gone_again;
	group->pending = before.gone_again != NIL;
	group->derived = before.derived;
	group->logged = before.logged;
	if ((flags & HISTORY_DERIVED) != 0 && !slot->tts_isnull[HISTORY_OLD])
		group->derived = add_gone(group->derived, slot_old_key(slot), stamp);
	else if (has_untold_name(&before))
		group->derived = add_gone(group->derived, before.own_key, before.renamed);
}

/*
 * The remote has renamed the row, too, and lost.  So it calls the row by that
 * name, not by the one that the row had when both knew it: this may be another
 * row's there by now.
 */
static void
call_as_refused(KeyHistory *group, TupleTableSlot *slot)
{
	if (has_untold_name(group) && !slot->tts_isnull[HISTORY_OLD])
		group->own_key = slot_old_key(slot);
}

static void
add_to_group(const SynchroHistories *histories, KeyHistory *group, TupleTableSlot *slot)
{
	int			flags = DatumGetInt32(slot->tts_values[HISTORY_FLAGS]);
	SynchroOp	op = (SynchroOp) (flags & HISTORY_OP_MASK);
	SynchroStamp stamp = {DatumGetInt64(slot->tts_values[HISTORY_STAMP]), DatumGetInt32(slot->tts_values[HISTORY_SOURCE])};

	if ((flags & HISTORY_REFUSED) != 0)
	{
		call_as_refused(group, slot);
		return;
	}
	group->waits = (flags & (HISTORY_PARKED | HISTORY_DUE)) == HISTORY_PARKED;

	/* that it was inserted may be said where the same transaction deleted it again */
	if ((flags & (HISTORY_AGAIN | HISTORY_PARKED | HISTORY_COPIED)) == 0)
		group->logged = op == SYNCHRO_OP_UPDATE;
	if ((flags & (HISTORY_AGAIN | HISTORY_PARKED)) == 0 && synchro_history_known_to_peer(histories, stamp))
	{
		begin_anew(group, slot, flags, stamp);
		return;
	}
	stamp = synchro_stamps_of(histories->stamps, (uint64) DatumGetInt64(slot->tts_values[HISTORY_TXID]),
							  DatumGetInt64(slot->tts_values[HISTORY_TIME]), stamp);
	group->pending = true;
	if (group->newest.at == 0 || synchro_stamps_compare(histories->stamps, stamp, group->newest) > 0)
		group->newest = stamp;
	if (flags & HISTORY_NAMED)
	{
		bool		gone = (flags & HISTORY_AGAIN) != 0 && !slot->tts_isnull[HISTORY_OLD] && op == SYNCHRO_OP_DELETE;

		/* another node is told of a name whatever came after it */
		if (histories->peer == NULL)
			group->gone_again = NIL;
		group->again |= (flags & HISTORY_AGAIN) != 0;
		if ((flags & HISTORY_COPIED) != 0 && group->born == 0)
			group->born = SYNCHRO_BORN_LONG_AGO;
		if (gone)
			group->gone_again = add_gone(group->gone_again, slot_old_key(slot), stamp);
		return;
	}
	if (!group->unnamed)
	{
		group->first_op = op;
		group->came = (flags & HISTORY_MOVED) != 0;
		if (op == SYNCHRO_OP_INSERT)
			group->born = stamp.at;
	}
	group->unnamed = true;
	group->removed |= op == SYNCHRO_OP_DELETE;
	if (slot->tts_isnull[HISTORY_OLD])
		return;
	if (!group->has_old)
	{
		group->has_old = true;
		group->old_key = slot_old_key(slot);
		group->renamed = stamp;
	}
	if (!group->has_own && (flags & HISTORY_MOVED) == 0)
	{
		group->has_own = true;
		group->own_key = slot_old_key(slot);
	}
}

/*
 * Call back for each key of a table.
 */
static void
walk_groups(const SynchroHistories *histories, SynchroChangedTable *changed,
			HistoryCallback callback, void *arg)
{
	TupleTableSlot *slot;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "synchro group",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	KeyHistory	group = {{0}};

	while ((slot = synchro_historysort_next(changed->sort->sort)) != NULL)
	{
		SynchroBytes identity = synchro_datum_bytes(slot->tts_values[HISTORY_IDENTITY]);

		CHECK_FOR_INTERRUPTS();
		if (group.identity.data == NULL || group.identity.len != identity.len ||
			memcmp(group.identity.data, identity.data, identity.len) != 0)
		{
			if (group.identity.data != NULL)
				callback(changed, &group, arg);
			MemoryContextReset(context);
			memset(&group, 0, sizeof(group));
			group.identity = synchro_key_copy(identity);
		}
		add_to_group(histories, &group, slot);
	}
	if (group.identity.data != NULL)
		callback(changed, &group, arg);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * Store a key (kind 0) or a name of before.  at: where the log says that the row of
 * that name is, or NULL.
 */
static void
put_key(SynchroChangedTable *changed, const KeyHistory *group, char kind,
		SynchroBytes name, SynchroStamp named, const SynchroBytes *at)
{
	SynchroChangedKey key = {group->identity, kind, name, named, group->newest, group->born};

	if (at != NULL && changed->table->relkind == RELKIND_PARTITIONED_TABLE)
		key.logged_at = *at;
	synchro_changestore_put(kind == 0 ? changed->keys : changed->olds, &key);
	if (kind == 0)
		changed->nkeys++;
	else
		changed->nolds++;
}

/*
 * Store a name that is gone among the keys, after its row's.
 */
static void
put_gone(SynchroChangedTable *changed, const KeyHistory *group, SynchroBytes name, SynchroStamp named)
{
	SynchroChangedKey key = {group->identity, 'g', name, named, group->newest, group->born};

	synchro_changestore_put(changed->keys, &key);
	changed->nkeys++;
}

static void
put_old(SynchroChangedTable *changed, const KeyHistory *group, SynchroBytes name)
{
	put_key(changed, group, 'o', name, group->has_old ? group->renamed : group->newest,
			group->logged ? &group->identity : NULL);
}

/*
 * The same of a row that is not the one which is there now.  origin: what is known of
 * its identity, or NULL.
 */
static void
put_dead(SynchroChangedTable *changed, const KeyHistory *group, SynchroBytes name,
		 const SynchroOrigin *origin, HTAB *origins)
{
	const SynchroOrigin *heir = origin != NULL && origin->followed ? synchro_moves_find(origins, origin->heir) : NULL;

	put_key(changed, group, 'd', name, group->newest, heir != NULL && heir->logged ? &heir->identity : NULL);
}

/*
 * What the row with that key was called in the earlier snapshot: its natural
 * key, or its identity in mode reference.  False if it was not there, or is
 * called the same still.
 *
 * origin: what is known of its identity, or NULL.  If what comes first is a row that
 * moved there, nothing was there before: but for one that the same command has
 * moved away, see changemoves.c.
 */
static bool
name_of_before(SynchroChangedTable *changed, const KeyHistory *group, const SynchroOrigin *origin, SynchroBytes *name)
{
	if (!group->unnamed || group->first_op == SYNCHRO_OP_INSERT)
		return false;
	if (group->came && (origin == NULL || !origin->left))
		return false;
	if (changed->table->mode == SYNCHRO_MODE_REFERENCE)
	{
		*name = group->identity;
		return group->removed;
	}
	*name = group->own_key;
	return group->has_own;
}

static void
learn_name(SynchroChangedTable *changed, const KeyHistory *group, void *arg)
{
	SynchroOrigin *origin = synchro_moves_find(arg, group->identity);
	SynchroBytes name;

	if (origin != NULL)
		origin->logged = group->logged;
	if (origin != NULL && name_of_before(changed, group, origin, &name))
	{
		MemoryContext old = MemoryContextSwitchTo(changed->table->context);

		origin->known = true;
		origin->name = synchro_key_copy(name);
		MemoryContextSwitchTo(old);
	}
}

typedef struct Emitter
{
	HTAB	   *origins;		/* NULL: no row moved */
	bool		with_keys;
	bool		for_peer;
} Emitter;

static void
emit_group(SynchroChangedTable *changed, const KeyHistory *group, void *arg)
{
	const Emitter *emitter = arg;
	const SynchroBytes none = {0};
	SynchroOrigin *origin = NULL;
	SynchroBytes name;
	int64		nolds = changed->nolds;
	ListCell   *cell;

	if (group->waits)
		return;
	if (emitter->origins != NULL)
		origin = synchro_moves_find(emitter->origins, group->identity);

	if (origin != NULL && origin->arrived)
	{
		SynchroOrigin *from = synchro_moves_find(emitter->origins, origin->from);

		if (from != NULL && from->known)
			put_old(changed, group, from->name);
		if (name_of_before(changed, group, origin, &name))
			put_dead(changed, group, name, origin, emitter->origins);
	}
	else if (name_of_before(changed, group, origin, &name))
	{
		/*
		 * What is gone of a table that is not watched leaves no successor.
		 * What has arrived elsewhere has it there: who is here since is
		 * another row.
		 */
		bool		dead = (origin != NULL && origin->followed) || (group->removed && !changed->table->watched);

		if (dead)
			put_dead(changed, group, name, origin, emitter->origins);
		else
			put_old(changed, group, name);
	}

	if (!changed->table->watched)
		return;
	foreach(cell, group->derived)
	{
		const GoneName *gone = lfirst(cell);

		put_key(changed, group, 'g', gone->name, gone->stamp, NULL);
	}
	if (!emitter->with_keys)
		return;

	/* a row with a name of before is in the batch because of that */
	cell = list_head(group->gone_again);
	if (changed->nolds == nolds && group->pending)
	{
		if (cell != NULL)
		{
			const GoneName *gone = lfirst(cell);

			put_key(changed, group, 0, gone->name, gone->stamp, NULL);
			cell = lnext(group->gone_again, cell);
		}
		else if (emitter->for_peer && group->again && group->unnamed && group->has_old)
		{
			/*
			 * The row is new, and yet the remote has one of its first name, or
			 * it would not have been told to hear of it: the name is gone.
			 */
			put_key(changed, group, 0, group->old_key, group->newest, NULL);
		}
		else
			put_key(changed, group, 0, none, group->newest, NULL);
	}
	for (; cell != NULL; cell = lnext(group->gone_again, cell))
	{
		const GoneName *gone = lfirst(cell);

		put_gone(changed, group, gone->name, gone->stamp);
	}
}

/*
 * Make of a table's sort its keys and names of before.
 *
 * with_keys: the keys as well as the names.
 */
void
synchro_history_finish(const SynchroHistories *histories, SynchroChangedTable *changed, bool with_keys)
{
	Emitter		emitter = {NULL, with_keys, histories->peer != NULL};

	synchro_historysort_finish(changed->sort->sort, changed->sort->moves != NIL);
	if (changed->sort->moves != NIL)
	{
		emitter.origins = synchro_moves_follow(changed->sort->moves);
		walk_groups(histories, changed, learn_name, emitter.origins);
		synchro_historysort_rewind(changed->sort->sort);
	}
	walk_groups(histories, changed, emit_group, &emitter);
	synchro_historysort_end(changed->sort->sort);
	changed->sort = NULL;
}
