/*-------------------------------------------------------------------------
 *
 * claimed.c
 *	  New rows that have claimed others of the remote: what the pusher knows.
 *
 * See claimsql.c.  If such a row is refused, it is not parked as an insert.  For if it
 * is deleted here before it has arrived, nobody would tell the remote of an
 * insert that has never been there, and the row which it has claimed would stay
 * for good.
 *
 * It is enough to know that as long as the pass lasts: a later one begins at the
 * names that the last batch has left (keys snapshot), among which the new row's is,
 * so to that one the row is not new.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"
#include "claimed.h"
#include "identities.h"
#include "requests.h"

/* a row here, and the text of an array of text with its identity as it was staged */
typedef struct Claimed
{
	Oid			relid;
	char	   *key;
} Claimed;

/*
 * What the remote has said of a table: the new list, in the current memory context.
 */
List *
synchro_claimed_take(List *claims, SynchroLink *link, const SynchroRows *rows)
{
	for (int i = 0; i < rows->nrows; i++)
	{
		Claimed    *claimed = palloc(sizeof(Claimed));

		claimed->relid = synchro_link_numbered(link, atoi(synchro_value(rows, i, 1)), false)->table->relid;
		claimed->key = pstrdup(synchro_value(rows, i, 2));
		claims = lappend(claims, claimed);
	}
	return claims;
}

/*
 * What a batch that has been committed adds to what is known for the rest of the
 * pass: the new list, in the current memory context.
 */
List *
synchro_claimed_keep(List *known, const List *claims)
{
	const ListCell *cell;

	foreach(cell, claims)
	{
		const Claimed *claimed = lfirst(cell);
		Claimed    *kept;

		if (list_length(known) > SYNCHRO_MAX_CLAIMED)
			break;
		kept = palloc(sizeof(Claimed));
		kept->relid = claimed->relid;
		kept->key = pstrdup(claimed->key);
		known = lappend(known, kept);
	}
	return known;
}

/*
 * May that row, though it is new, be among those that have claimed others?  Where too
 * many have to know each, any of a table may that has some.  In a local transaction.
 */
bool
synchro_claimed_has(const List *known, const SynchroTable *table, char **identity)
{
	SynchroBytes wanted;
	const ListCell *cell;

	if (known == NIL)
		return false;
	wanted = synchro_identities_encode(table, table->identity, table->nidentity, identity);
	foreach(cell, known)
	{
		const Claimed *claimed = lfirst(cell);

		if (claimed->relid != table->relid)
			continue;
		if (list_length(known) > SYNCHRO_MAX_CLAIMED ||
			synchro_bytes_equal(synchro_identities_encode_text(table, table->identity, table->nidentity,
															   synchro_unstaged_text(table, claimed->key)), wanted))
			return true;
	}
	return false;
}
