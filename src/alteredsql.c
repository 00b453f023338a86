/*-------------------------------------------------------------------------
 *
 * alteredsql.c
 *	  SQL text: are the remote's tables still those that were described?
 *
 * A link keeps what it knows of a table, for months perhaps.  Some of what is altered
 * there meanwhile is an error by itself, and the table is looked at anew then.  The
 * rest is not, and pushing as if nothing had been altered would do harm:
 *
 * - A column whose type is another one now takes what was staged as the old type
 *   by an assignment cast, which rounds a number and cuts a time off; had the
 *   value come as what it is, the new type would have refused it.
 * - A table that was dropped and made again has other rows behind the same ids.
 * - Without its unique index a name may mean several rows, which would all be
 *   updated; a new trigger may give rows other ids than the stored pairs say; a
 *   column that is not generated any more is to be pushed; and whatever else
 *   SYNCHRO_REMOTE_SHAPE() tells.
 *
 * So each batch asks in the end.  By then it has locked all tables that it has
 * read or written, if only by reading them, so nobody can have altered them
 * since it did; and the catalogs are read with the newest snapshot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"

/*
 * Append a check that the tables are what they were when they were described.
 * If not, it raises SYNCHRO_ALTERED.
 */
void
synchro_sql_unaltered(StringInfo sql, const List *tables)
{
	const ListCell *cell;
	bool		any = false;

	foreach(cell, tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (lt->remote == NULL)
			continue;
		appendStringInfoString(sql, any ? ", " : "SELECT pg_temp.synchro_raise('" SYNCHRO_ALTERED "', 'a table was altered while it was pushed to', '') FROM (VALUES ");
		appendStringInfo(sql, "(%s, %s::oid, %s::text)", quote_literal_cstr(lt->table->qualified), lt->remote->oid,
						 quote_literal_cstr(lt->remote->shape));
		any = true;
	}
	if (any)
		appendStringInfoString(sql, ") v (q, o, s) WHERE NOT coalesce(pg_catalog.to_regclass(v.q)::oid OPERATOR(pg_catalog.=) v.o"
							   " AND " SYNCHRO_REMOTE_SHAPE("v.o") " OPERATOR(pg_catalog.=) v.s, false) LIMIT 1;");
}
