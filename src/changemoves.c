/*-------------------------------------------------------------------------
 *
 * changemoves.c
 *	  Which row of an earlier snapshot a row is, whose identity has changed.
 *
 * A row may move several times, to identities that other rows have left.  The
 * log says of each move from where to where; followed in the order in which
 * their transactions committed, over all keys of the table, the moves tell
 * which row of the earlier snapshot has ended where.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "changemoves.h"

typedef struct Move
{
	int64		time;
	int64		txid;
	int32		part;
	int32		position;
	SynchroBytes from;
	SynchroBytes to;
	bool		known;
} Move;

/*
 * Note that a row moved, as an entry of the log says.  known: the remote has
 * said so itself, so it knows the row where it is now.  Returns the list, in
 * the current memory context.
 */
List *
synchro_moves_add(List *moves, const SynchroLogRow *row,
				  const SynchroKeyRecord *record, int position, bool known)
{
	Move	   *move = palloc(sizeof(Move));

	move->time = row->changed_at;
	move->txid = (int64) row->txid;
	move->part = row->part;
	move->position = position;
	move->from = synchro_key_copy(record->from);
	move->to = synchro_key_copy(record->identity);
	move->known = known;
	return lappend(moves, move);
}

static int
compare_moves(const ListCell *a, const ListCell *b)
{
	const Move *x = lfirst(a);
	const Move *y = lfirst(b);

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	if (x->txid != y->txid)
		return x->txid < y->txid ? -1 : 1;
	if (x->part != y->part)
		return x->part < y->part ? -1 : 1;
	return x->position < y->position ? -1 : x->position > y->position;
}

/*
 * Follow the moves of a table in commit order: which row of the earlier
 * snapshot has ended where.  Returns SynchroOrigin by identity, in the current
 * memory context.
 */
HTAB *
synchro_moves_follow(List *moves)
{
	HTAB	   *origins = synchro_bytes_table("synchro moves", sizeof(SynchroOrigin), 64);
	HASH_SEQ_STATUS status;
	SynchroOrigin *arrived;
	ListCell   *cell;

	list_sort(moves, compare_moves);
	foreach(cell, moves)
	{
		Move	   *move = lfirst(cell);
		bool		found;
		SynchroOrigin *from;
		SynchroOrigin *to;
		SynchroBytes origin;

		from = hash_search(origins, &move->from, HASH_ENTER, &found);
		if (!found)
			memset((char *) from + sizeof(SynchroBytes), 0, sizeof(SynchroOrigin) - sizeof(SynchroBytes));
		origin = from->arrived ? from->from : move->from;
		from->arrived = false;
		to = hash_search(origins, &move->to, HASH_ENTER, &found);
		if (!found)
			memset((char *) to + sizeof(SynchroBytes), 0, sizeof(SynchroOrigin) - sizeof(SynchroBytes));
		to->arrived = !move->known;
		to->from = origin;
	}
	hash_seq_init(&status, origins);
	while ((arrived = hash_seq_search(&status)) != NULL)
	{
		SynchroOrigin *from = arrived->arrived ? synchro_moves_find(origins, arrived->from) : NULL;

		if (from != NULL)
			from->followed = true;
	}
	return origins;
}

/*
 * What is known of an identity, or NULL if no row moved to it or from it.
 */
SynchroOrigin *
synchro_moves_find(HTAB *origins, SynchroBytes identity)
{
	return hash_search(origins, &identity, HASH_FIND, NULL);
}
