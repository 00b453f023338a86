/*-------------------------------------------------------------------------
 *
 * referredsql.c
 *	  SQL text that lets a delete lose against newer changes of rows that refer
 *	  to the row on the remote.  See peerreferred.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "decidesql.h"

static void
append_deletes(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "SELECT %s::text AS relation, ", quote_literal_cstr(lt->table->qualified));
	synchro_decide_identity(sql, lt, "x.r");
	appendStringInfoString(sql, " AS identity, x.stamp FROM (");
	synchro_sql_doomed(sql, lt);
	appendStringInfoString(sql, ") x WHERE x.stamp IS NOT NULL");
}

static void
append_verdict(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "(UPDATE pg_temp.m_%d m SET verdict = 'l', there = w.stamp, there_origin = w.origin, concurrent = false FROM w WHERE w.relation = %s"
					 " AND m.kind IN ('" SYNCHRO_KIND_OLD "', '" SYNCHRO_KIND_DEAD "', '" SYNCHRO_KIND_GONE "') AND m.verdict IS NULL AND "
					 SYNCHRO_VERDICT("m", "w") " = 'l' AND w.identity = ", lt->number, quote_literal_cstr(lt->table->qualified));
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfoChar(sql, ')');
}

/*
 * Append the decisions about deletes, which have not lost otherwise, in view of
 * what refers to the rows.  leftovers: also about those that earlier batches
 * of the pass have left to this one.
 *
 * The row that is kept is not on its way to the sender: it is not "concurrent",
 * so it is queued for him, as changed when the newer row was.
 */
void
synchro_sql_referred(StringInfo sql, List *tables, bool leftovers)
{
	List	   *decided = NIL;
	ListCell   *cell;

	foreach(cell, tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (lt->decides && lt->table->watched && (lt->nolds > 0 || leftovers))
			decided = lappend(decided, unconstify(SynchroLinkTable *, lt));
	}
	if (decided == NIL)
		return;
	appendStringInfoString(sql, "WITH d AS MATERIALIZED (");
	foreach(cell, decided)
	{
		if (foreach_current_index(cell) > 0)
			appendStringInfoString(sql, " UNION ALL ");
		append_deletes(sql, lfirst(cell));
	}
	appendStringInfoString(sql, "), w AS MATERIALIZED (SELECT * FROM synchro.peer_referred((SELECT pg_catalog.array_agg(relation) FROM d),"
						   " (SELECT pg_catalog.array_agg(identity) FROM d), (SELECT pg_catalog.min(stamp) FROM d)))");
	foreach(cell, decided)
	{
		appendStringInfo(sql, ", u%d AS ", foreach_current_index(cell));
		append_verdict(sql, lfirst(cell));
	}
	appendStringInfoString(sql, " SELECT count(*) FROM w;");
}
