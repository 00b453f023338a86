/*-------------------------------------------------------------------------
 *
 * referredsql.c
 *	  SQL text that lets a delete lose against newer changes of rows that refer
 *	  to the row, on the remote (see peerreferred.c) or here.
 *
 * That does not make the row as new as these: it counts as changed just after
 * the delete, by the remote.  So whatever a third node has changed in it since
 * the delete is newer, on all nodes.
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
	appendStringInfoString(sql, " AS identity, x.stamp, x.origin FROM (");
	synchro_sql_doomed(sql, lt);
	appendStringInfoString(sql, ") x WHERE x.stamp IS NOT NULL");
}

static void
append_verdict(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "(UPDATE pg_temp.m_%d m SET verdict = 'k', there = w.stamp, there_origin = w.origin FROM d JOIN w USING (relation, identity)"
					 " WHERE relation = %s AND m.kind IN " SYNCHRO_OLD_KINDS " AND m.verdict IS NULL AND "
					 SYNCHRO_VERDICT("d", "w") " = 'l' AND identity = ", lt->number, quote_literal_cstr(lt->table->qualified));
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfoChar(sql, ')');
}

static void
append_kept(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "SELECT '" SYNCHRO_SKIPPED_TAG "', count(*), pg_catalog.count(synchro.peer_kept(%s, x.identity, x.there, x.there_origin, x.stamp, x.origin))"
					 " FROM (SELECT DISTINCT ON (y.identity) y.* FROM (SELECT ", quote_literal_cstr(lt->table->qualified));
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfo(sql, " AS identity, m.there, m.there_origin, m.stamp, m.origin FROM pg_temp.m_%d m WHERE m.verdict = 'k') y ORDER BY y.identity, y.stamp DESC) x;",
					 lt->number);
}

/*
 * Append the columns that the batch writes, each after the name that its table
 * has on the remote, as text[].
 */
static void
append_written(StringInfo sql, List *tables)
{
	bool		any = false;
	ListCell   *cell;

	appendStringInfoString(sql, "ARRAY[");
	foreach(cell, tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		for (int i = 0; lt->decides && lt->rows != NULL && i < lt->table->ncolumns; i++)
			if (lt->pushed[i])
			{
				appendStringInfo(sql, "%s%s, %s", any ? ", " : "", quote_literal_cstr(lt->table->qualified),
								 quote_literal_cstr(lt->table->columns[i].name));
				any = true;
			}
	}
	appendStringInfoString(sql, "]::text[]");
}

/*
 * Append the decisions about deletes, which have not lost otherwise, in view of
 * what refers to the rows.  leftovers: also about those that earlier batches
 * of the pass have left to this one.  preview: nothing is recorded.
 *
 * Comes after synchro_sql_apply(), by which the remote knows what the batch is
 * going to write.
 */
void
synchro_sql_referred(StringInfo sql, List *tables, bool leftovers, bool preview)
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
						   " (SELECT pg_catalog.array_agg(identity) FROM d), (SELECT pg_catalog.min(stamp) FROM d), ");
	append_written(sql, tables);
	appendStringInfoString(sql, "))");
	foreach(cell, decided)
	{
		appendStringInfo(sql, ", u%d AS ", foreach_current_index(cell));
		append_verdict(sql, lfirst(cell));
	}
	appendStringInfoString(sql, " SELECT count(*) FROM w;");
	foreach(cell, decided)
		if (!preview)
			append_kept(sql, lfirst(cell));
}

/*
 * Append what is said to the remote's log about rows which are made anew there
 * since others of the batch refer to them: they lose against their own deletes.
 * It has been said what else is going to be written.
 */
void
synchro_sql_returning(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	if (!lt->decides || lt->rows == NULL)
		return;
	appendStringInfo(sql, "SELECT synchro.peer_restate(%s, pg_catalog.array_agg(x.identity), pg_catalog.array_agg(x.deleted)) FROM (SELECT ",
					 quote_literal_cstr(lt->table->qualified));
	synchro_decide_identity(sql, lt, "m.v");
	appendStringInfo(sql, " AS identity, coalesce(m.there, g.stamp) AS deleted FROM pg_temp.m_%d m JOIN pg_temp.s_%d s ON s.ensure AND ", lt->number, lt->number);
	synchro_sql_equal(sql, "s.l", "m.l", n);
	appendStringInfoString(sql, " LEFT JOIN (SELECT ");
	synchro_sql_list(sql, "l", n);
	appendStringInfo(sql, ", pg_catalog.max(stamp) AS stamp FROM pg_temp.g_%d WHERE kind = '" SYNCHRO_KIND_ENSURED "' AND NOT live GROUP BY ", lt->number);
	synchro_sql_list(sql, "l", n);
	appendStringInfoString(sql, ") g ON ");
	synchro_sql_equal(sql, "g.l", "m.l", n);
	appendStringInfoString(sql, " WHERE m.kind = 'n' AND m.fresh) x WHERE x.deleted IS NOT NULL HAVING count(*) > 0;");
}
