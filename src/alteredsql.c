/*-------------------------------------------------------------------------
 *
 * alteredsql.c
 *	  SQL text: is the remote still what it was when it was met, and are its
 *	  tables those that were described?
 *
 * A link keeps what it knows of the remote, for months perhaps.  Some of what is
 * altered there meanwhile is an error by itself, and is looked at anew then.  The
 * rest is not, and pushing as if nothing had been altered would do harm:
 *
 * - A remote that becomes a node, or begins to watch a table, is to be asked which
 *   change is newer.  Else an older one overwrites it, and is logged there as the
 *   remote's own.  Two nodes are set up one after the other, so the first of them
 *   always meets the second like that.
 * - A column whose type is another one now takes what was staged as the old type
 *   by an assignment cast, which rounds a number and cuts a time off; had the
 *   value come as what it is, the new type would have refused it.
 * - A table that was dropped and made again has other rows behind the same ids.
 * - Without its unique index a name may mean several rows, which would all be
 *   updated; a new trigger may give rows other ids than the stored pairs say; a
 *   column that is not generated any more is to be pushed; and whatever else
 *   SYNCHRO_REMOTE_SHAPE() tells.
 *
 * So each batch asks, in the end.  If it asked in the beginning, all of that could
 * still come about before it writes; what it has written by the end is rolled back.
 * By then it holds locks on all tables that it has read or written, itself or by
 * way of triggers and cascades.  Whoever has the database watch a table, or gives
 * it a trigger, a column or a foreign key, or drops its index, takes a lock on it
 * that does not go with that of a writer; and what matters to those who only
 * read, one that does not go with theirs either.  If he got his before us, he has committed
 * before we came to the table: we see it, since the catalogs are read with the newest
 * snapshot, and the session has heard of it as it took its own lock.  If he gets it
 * after us, he waits until we have committed: for him our rows were there before.
 *
 * CREATE EXTENSION takes no lock that we wait for.  It matters only once a table is
 * watched, so what is seen of it in the end is enough.  Nor does DROP INDEX
 * CONCURRENTLY take one; but it lets the index go only when those who have locked
 * the table have gone, so as long as we are there no value comes in twice.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"

/*
 * By which columns a node's table is watched, as it was described, as SQL; ''
 * if it is not.  NULL where that does not matter.
 */
static char *
watched_by(const SynchroLink *link, const SynchroLinkTable *lt)
{
	if (link->peer_node == NULL || !lt->table->watched)
		return "NULL";
	return quote_literal_cstr(lt->decides ? synchro_table_keys_text(lt->table) : "");
}

/*
 * Append a check that the tables are what they were when they were described,
 * and the remote what it was when it was met.  If not, it raises
 * SYNCHRO_ALTERED or SYNCHRO_NODE_THERE.
 */
void
synchro_sql_unaltered(StringInfo sql, const SynchroLink *link, const List *tables)
{
	const ListCell *cell;
	bool		any = false;

	/* else there is nothing to raise it by, nor to be written but the position */
	if (link->session_prepared)
		appendStringInfo(sql, "SELECT pg_temp.synchro_raise('" SYNCHRO_NODE_THERE "', 'this database runs synchro, or does no more, since a worker has connected', '')"
						 " WHERE coalesce((SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) '" SYNCHRO_EXTENSION "'::name), 0::oid)"
						 " OPERATOR(pg_catalog.<>) %s::oid;", link->extension);
	foreach(cell, tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (lt->remote == NULL)
			continue;
		appendStringInfoString(sql, any ? ", " : "SELECT pg_temp.synchro_raise('" SYNCHRO_ALTERED "', 'a table was altered while it was pushed to', '') FROM (VALUES ");
		appendStringInfo(sql, "(%s, %s::oid, %s::text, %s::text)", quote_literal_cstr(lt->table->qualified), lt->remote->oid,
						 quote_literal_cstr(lt->remote->shape), watched_by(link, lt));
		any = true;
	}
	if (!any)
		return;
	appendStringInfoString(sql, ") v (q, o, s, k) WHERE NOT coalesce(pg_catalog.to_regclass(v.q)::oid OPERATOR(pg_catalog.=) v.o"
						   " AND " SYNCHRO_REMOTE_SHAPE("v.o") " OPERATOR(pg_catalog.=) v.s");
	if (link->peer_node != NULL)
		appendStringInfoString(sql, " AND (v.k IS NULL OR coalesce(synchro.peer_table(v.q), '') OPERATOR(pg_catalog.=) v.k)");
	appendStringInfoString(sql, ", false) LIMIT 1;");
}
