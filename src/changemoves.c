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
 * The moves of one command are made at once, not one after the other.  That
 * makes a difference where a primary key is checked late: SET id = id + 1 has
 * row 1 arrive at 2 before row 2 has left.  A command sees no row that it wrote
 * itself and changes each row once, so all its "from" are identities of before it, and
 * all its "to" of after it, whatever their order: first each one's origin is
 * looked up, then they arrive.  Such moves are marked in the log, as "together"
 * with the one before (keycodec.h): if they are not next to each other, as a
 * trigger has moved rows of the table meanwhile, they are not marked, and are
 * followed one by one.  If the log got a large command's moves in several
 * pieces, other transactions may have committed in between.  They come before it:
 * it may take identities that they have left, while whoever takes one that it has left
 * waits for its commit.
 *
 * Two commands of one transaction can only be told apart by identities, so if the
 * constraint is deferred to the end of the transaction and two rows have one
 * identity when the second begins, the one that came last is taken for both.
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
	bool		together;
	int64		ended;			/* time of its command's last move */
	int			rank;			/* in its transaction */
	SynchroBytes origin;		/* where it was in the earlier snapshot */
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
	move->together = record->together;
	return lappend(moves, move);
}

/*
 * By transaction, and as it made them.
 */
static int
compare_made(const ListCell *a, const ListCell *b)
{
	const Move *x = lfirst(a);
	const Move *y = lfirst(b);

	if (x->txid != y->txid)
		return x->txid < y->txid ? -1 : 1;
	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	if (x->part != y->part)
		return x->part < y->part ? -1 : 1;
	return x->position < y->position ? -1 : x->position > y->position;
}

/*
 * In commit order, those of one command next to each other.
 */
static int
compare_commands(const ListCell *a, const ListCell *b)
{
	const Move *x = lfirst(a);
	const Move *y = lfirst(b);

	if (x->ended != y->ended)
		return x->ended < y->ended ? -1 : 1;
	if (x->txid != y->txid)
		return x->txid < y->txid ? -1 : 1;
	return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static void
sort_moves(List *moves)
{
	const Move *after = NULL;

	list_sort(moves, compare_made);
	for (int i = list_length(moves) - 1; i >= 0; i--)
	{
		Move	   *move = list_nth(moves, i);

		move->ended = after != NULL && after->together && after->txid == move->txid ? after->ended : move->time;
		move->rank = i;
		after = move;
	}
	list_sort(moves, compare_commands);
}

static SynchroOrigin *
enter_origin(HTAB *origins, const SynchroBytes *identity)
{
	bool		found;
	SynchroOrigin *origin = hash_search(origins, identity, HASH_ENTER, &found);

	if (!found)
		memset((char *) origin + sizeof(SynchroBytes), 0, sizeof(SynchroOrigin) - sizeof(SynchroBytes));
	return origin;
}

/*
 * Where does the next command begin?
 */
static int
next_command(const List *moves, int first)
{
	int			next = first + 1;

	while (next < list_length(moves))
	{
		const Move *move = list_nth(moves, next);

		if (!move->together || move->txid != ((const Move *) list_nth(moves, first))->txid)
			break;
		next++;
	}
	return next;
}

/*
 * Follow the moves of one command.
 */
static void
follow_command(HTAB *origins, const List *moves, int first, int next)
{
	for (int i = first; i < next; i++)
	{
		Move	   *move = list_nth(moves, i);
		SynchroOrigin *from = enter_origin(origins, &move->from);

		from->left |= !from->arrived;
		move->origin = from->arrived ? from->from : move->from;
	}
	for (int i = first; i < next; i++)
		synchro_moves_find(origins, ((Move *) list_nth(moves, i))->from)->arrived = false;
	for (int i = first; i < next; i++)
	{
		const Move *move = list_nth(moves, i);
		SynchroOrigin *to = enter_origin(origins, &move->to);

		to->arrived = !move->known;
		to->from = move->origin;
	}
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
	int			next;

	sort_moves(moves);
	for (int first = 0; first < list_length(moves); first = next)
	{
		next = next_command(moves, first);
		follow_command(origins, moves, first, next);
	}
	hash_seq_init(&status, origins);
	while ((arrived = hash_seq_search(&status)) != NULL)
	{
		SynchroOrigin *from = arrived->arrived ? synchro_moves_find(origins, arrived->from) : NULL;

		if (from != NULL)
		{
			from->followed = true;
			from->heir = arrived->identity;
		}
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
