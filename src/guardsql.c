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
 * So it is noted what the rows that wait refer to, and looked whether they are
 * there and still do when something has been deleted.  If not, the delete is
 * refused, as if by a foreign key, and tried again when the row has arrived.  However a row
 * would be changed: by foreign keys of any tables in between, or by triggers.
 * Other columns may change: a trigger there may count what has been deleted.
 *
 * What is noted is found by its place as long as it is there, and then by its key.
 * Where several rows may be the one that waits (waitingsql.c) all of them are kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"

/*
 * Append an expression: what a row of alias x refers to, as text.
 */
static void
append_references(StringInfo sql, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	const char *separator = "";

	appendStringInfoString(sql, "ROW(");
	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].fk >= 0 && lt->remote->columns[i].type != NULL)
		{
			appendStringInfo(sql, "%sx.%s", separator, quote_identifier(table->columns[i].name));
			separator = ", ";
		}
	appendStringInfoString(sql, ")::text");
}

/*
 * Append a query of the rows of a table that wait: columns of synchro_waiting.
 */
static void
append_rows(StringInfo sql, const SynchroGuarded *guarded)
{
	const SynchroLinkTable *lt = guarded->lt;
	int			n = lt->table->nidentity;

	appendStringInfo(sql, "SELECT %d AS number, ROW(", lt->number);
	synchro_sql_list(sql, "p.l", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "m.v", n);
	appendStringInfo(sql, ")::text AS identity, t.part, t.place, t.refers FROM (%s) p (", guarded->rows);
	synchro_sql_list(sql, "l", n);
	appendStringInfo(sql, ") JOIN pg_temp.m_%d m ON m.kind IN ('n', '" SYNCHRO_KIND_WAITING "') AND ", lt->number);
	synchro_sql_equal(sql, "m.l", "p.l", n);
	appendStringInfoString(sql, " CROSS JOIN LATERAL (SELECT x.tableoid AS part, x.ctid AS place, ");
	append_references(sql, lt);
	appendStringInfo(sql, " AS refers FROM %s x WHERE ", lt->remote->rows);
	synchro_sql_identity_equal(sql, lt, "x", "m.v");
	appendStringInfoString(sql, " LIMIT 1) t");
}

/*
 * Append statements that look whether any that was noted has gone along.  verb: SELECT,
 * or PERFORM where PL/pgSQL runs them.
 */
static void
append_checks(StringInfo sql, const char *verb, const List *guarded)
{
	const ListCell *cell;

	foreach(cell, guarded)
	{
		const SynchroLinkTable *lt = ((SynchroGuarded *) lfirst(cell))->lt;

		appendStringInfo(sql, "%s pg_temp.synchro_raise('23503', %s, '') FROM pg_temp.synchro_waiting w LEFT JOIN LATERAL"
						 " (SELECT true AS here FROM %s x WHERE x.tableoid = w.part AND x.ctid = w.place LIMIT 1) y ON true"
						 " WHERE w.number = %d AND y.here " SYNCHRO_SQL_IS_NULL " AND NOT EXISTS (SELECT FROM (",
						 verb,
						 quote_literal_cstr(psprintf("a row of table %s, of which a change has not arrived, still refers to it, and would go along or lose that", lt->table->qualified)),
						 lt->remote->rows, lt->number);
		append_rows(sql, lfirst(cell));
		appendStringInfoString(sql, ") z WHERE z.identity = w.identity AND z.refers = w.refers) LIMIT 1;");
	}
}

/*
 * Append the definition of the place where that is noted.  guarded: of SynchroGuarded;
 * nothing is appended if there are none.
 *
 * Not ON COMMIT DELETE ROWS: from then on each commit of the session would truncate it
 * (emptysql.c), also of batches that guard nothing.  Nor are rows only deleted, since no
 * VACUUM comes to a temporary table.
 */
void
synchro_sql_define_guard(StringInfo sql, List *guarded)
{
	if (guarded != NIL)
		appendStringInfoString(sql, "CREATE TEMPORARY TABLE IF NOT EXISTS synchro_waiting"
							   " (number integer, identity text, part oid, place tid, refers text); TRUNCATE pg_temp.synchro_waiting;");
}

/*
 * Append statements that note the rows which wait.  Right before something is
 * deleted: until then they may be moved with their parents.
 */
void
synchro_sql_guard(StringInfo sql, List *guarded)
{
	ListCell   *cell;

	if (guarded != NIL)
		appendStringInfoString(sql, "DELETE FROM pg_temp.synchro_waiting;");
	foreach(cell, guarded)
	{
		appendStringInfoString(sql, "INSERT INTO pg_temp.synchro_waiting ");
		append_rows(sql, lfirst(cell));
		appendStringInfoChar(sql, ';');
	}
}

/*
 * Append statements that look.
 */
void
synchro_sql_check_guard(StringInfo sql, List *guarded)
{
	append_checks(sql, "SELECT", guarded);
}

/*
 * Append the definition of pg_temp.synchro_guard(), which looks.
 */
void
synchro_sql_define_check(StringInfo sql, List *guarded)
{
	StringInfoData body;

	if (guarded == NIL)
		return;
	initStringInfo(&body);
	append_checks(&body, "PERFORM", guarded);
	appendStringInfo(sql, "CREATE OR REPLACE FUNCTION pg_temp.synchro_guard() RETURNS void LANGUAGE plpgsql AS %s;",
					 quote_literal_cstr(psprintf("BEGIN %s END", body.data)));
}
