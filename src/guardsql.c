/*-------------------------------------------------------------------------
 *
 * guardsql.c
 *	  SQL text that keeps rows that wait from going along with what is deleted.
 *
 * A row that was moved here from one parent to another may have been refused on the
 * remote, where it then still refers to the former.  If that is gone here, its
 * delete must not take the row along, by ON DELETE CASCADE, with all that is below
 * it, or have it refer to nothing: what is below it is not in the log and would
 * never come again, and between nodes it would be a change that comes back.
 *
 * So it is noted where the rows that wait are, and looked whether they are there
 * still when something has been deleted.  If not, the delete is refused, as if
 * by a foreign key, and tried again when the row has arrived.  However a row
 * would be changed: by foreign keys of any tables in between, or by triggers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"

/*
 * Append the definition of the place where that is noted, and of the function
 * that looks.  guarded: of SynchroGuarded; nothing is appended if there are none.
 */
void
synchro_sql_define_guard(StringInfo sql, List *guarded)
{
	ListCell   *cell;

	if (guarded == NIL)
		return;
	appendStringInfoString(sql, "CREATE TEMPORARY TABLE IF NOT EXISTS synchro_waiting (number integer, part oid, place tid) ON COMMIT DROP;"
						   "CREATE OR REPLACE FUNCTION pg_temp.synchro_guard() RETURNS void LANGUAGE plpgsql AS $synchro$ BEGIN");
	foreach(cell, guarded)
	{
		const SynchroLinkTable *lt = ((SynchroGuarded *) lfirst(cell))->lt;

		appendStringInfo(sql, " IF EXISTS (SELECT FROM pg_temp.synchro_waiting w LEFT JOIN LATERAL (SELECT true AS here FROM %s x"
						 " WHERE x.tableoid = w.part AND x.ctid = w.place LIMIT 1) y ON true WHERE w.number = %d AND y.here " SYNCHRO_SQL_IS_NULL ") THEN"
						 " PERFORM pg_temp.synchro_raise('23503', %s, ''); END IF;",
						 lt->remote->rows, lt->number,
						 quote_literal_cstr(psprintf("a row of table %s, of which a change was refused, still refers to it, and would go along or lose that", lt->table->qualified)));
	}
	appendStringInfoString(sql, " END $synchro$;");
}

/*
 * Append statements that note where the rows are which wait.  Right before
 * something is deleted: until then they may be moved with their parents.
 */
void
synchro_sql_guard(StringInfo sql, List *guarded)
{
	ListCell   *cell;

	if (guarded != NIL)
		appendStringInfoString(sql, "DELETE FROM pg_temp.synchro_waiting;");
	foreach(cell, guarded)
	{
		const SynchroGuarded *rows = lfirst(cell);
		const SynchroLinkTable *lt = rows->lt;
		int			n = lt->table->nidentity;

		appendStringInfo(sql, "INSERT INTO pg_temp.synchro_waiting SELECT %d, t.tableoid, t.ctid FROM (VALUES %s) p (",
						 lt->number, rows->rows);
		synchro_sql_list(sql, "l", n);
		appendStringInfo(sql, ") JOIN pg_temp.m_%d m ON m.kind IN ('n', '" SYNCHRO_KIND_WAITING "') AND ", lt->number);
		synchro_sql_equal(sql, "m.l", "p.l", n);
		appendStringInfo(sql, " CROSS JOIN LATERAL (SELECT x.tableoid, x.ctid FROM %s x WHERE ", lt->remote->rows);
		synchro_sql_identity_equal(sql, lt, "x", "m.v");
		appendStringInfoString(sql, " LIMIT 1) t;");
	}
}

/*
 * Append the statement that looks.
 */
void
synchro_sql_check_guard(StringInfo sql)
{
	appendStringInfoString(sql, "SELECT pg_temp.synchro_guard();");
}
