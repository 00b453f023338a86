/*-------------------------------------------------------------------------
 *
 * apartsql.c
 *	  SQL text that tries deletes one by one, where they cannot be done at once.
 *
 * Tables are taken children first.  In a table that refers to itself the order
 * of rows counts, too, and nobody knows it: so rows that others of the same
 * table still refer to are tried again as long as any has gone meanwhile, from
 * the other end each time, since most trees have grown in one direction.
 * Without that, rows would be parked though nothing is wrong with them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "rowerror.h"

/*
 * Append the definitions of functions that try statements, and say what was
 * wrong with the row where that has failed.  Errors that have nothing to do
 * with rows are raised: see synchro_error_is_about_rows().  Where an operator of
 * ours takes any array, one for integer[] that the search_path finds would be
 * preferred, whoever has made it.
 *
 * synchro_try_all() tries all of them; again: those that others are in the way
 * of as often as helps.
 */
void
synchro_sql_define_try(StringInfo sql)
{
	appendStringInfoString(sql,
						   "CREATE OR REPLACE FUNCTION pg_temp.synchro_try(statement text, OUT state text, OUT message text, OUT constraint_name text)"
						   " LANGUAGE plpgsql AS $synchro$ BEGIN EXECUTE statement; EXCEPTION WHEN OTHERS THEN"
						   " GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, constraint_name = CONSTRAINT_NAME; IF ");
	synchro_sql_not_about_rows(sql, "state");
	appendStringInfoString(sql,
						   " THEN RAISE; END IF; END $synchro$;"
						   "CREATE OR REPLACE FUNCTION pg_temp.synchro_try_all(statements text[], again boolean,"
						   " OUT place integer, OUT state text, OUT message text, OUT constraint_name text)"
						   " RETURNS SETOF record LANGUAGE plpgsql STRICT AS $synchro$"
						   " DECLARE waiting integer[] := ARRAY(SELECT pg_catalog.generate_subscripts(statements, 1));"
						   " failed integer[]; stuck boolean := NOT again;"
						   " BEGIN LOOP failed := '{}';"
						   " FOREACH place IN ARRAY waiting LOOP"
						   " SELECT t.state, t.message, t.constraint_name INTO state, message, constraint_name"
						   " FROM pg_temp.synchro_try(statements[place]) t;"
						   " IF state = '23503' AND NOT stuck THEN failed := failed OPERATOR(pg_catalog.||) place; ELSE RETURN NEXT; END IF; END LOOP;"
						   " EXIT WHEN failed OPERATOR(pg_catalog.=) '{}';"
						   " stuck := pg_catalog.cardinality(failed) = pg_catalog.cardinality(waiting);"
						   " waiting := ARRAY(SELECT failed[i] FROM pg_catalog.generate_subscripts(failed, 1, true) i);"
						   " END LOOP; END $synchro$;"
						   "SET CONSTRAINTS ALL IMMEDIATE;");
}

/*
 * A text as format() takes it.
 */
static char *
escape_format(const char *text)
{
	StringInfoData result;

	initStringInfo(&result);
	for (const char *c = text; *c != '\0'; c++)
	{
		if (*c == '%')
			appendStringInfoChar(&result, '%');
		appendStringInfoChar(&result, *c);
	}
	return result.data;
}

static bool
refers_to_itself(const SynchroTable *table)
{
	for (int fk = 0; fk < table->nfks; fk++)
		if (table->fks[fk].parent == table->relid)
			return true;
	return false;
}

/*
 * Append the beginning of a statement that tries a table's deletes which were
 * put off, one by one: x says of each how it has fared, d has a row for each
 * that is done.
 */
void
synchro_sql_try_deletes(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	StringInfoData condition;

	/* a format() for a row's condition */
	initStringInfo(&condition);
	for (int i = 0; i < table->nidentity; i++)
	{
		const SynchroColumn *column = &table->columns[table->identity[i]];
		const char *name = escape_format(quote_identifier(column->name));

		appendStringInfo(&condition, "%s(t.%s %s %%%d$L::%s", i > 0 ? " AND " : "", name,
						 escape_format(lt->remote->columns[table->identity[i]].equals), i + 1,
						 escape_format(lt->remote->columns[table->identity[i]].base));
		if (!column->not_null)
			appendStringInfo(&condition, " OR (t.%s " SYNCHRO_SQL_IS_NULL " AND %%%d$L IS NULL)", name, i + 1);
		appendStringInfoChar(&condition, ')');
	}
	appendStringInfo(sql, "WITH s AS MATERIALIZED (SELECT u.ctid AS place, u.remote_key, pg_catalog.row_number() OVER () AS n,"
					 " pg_catalog.format(%s, VARIADIC u.remote_key) AS statement"
					 " FROM %s.unapplied u WHERE u.node = '%s' AND u.relation = %s),"
					 " x AS MATERIALIZED (SELECT s.place, s.remote_key, y.state, y.message, y.constraint_name"
					 " FROM pg_temp.synchro_try_all((SELECT pg_catalog.array_agg(s.statement ORDER BY s.n) FROM s), %s) y JOIN s ON s.n = y.place),"
					 " d AS (DELETE FROM %s.unapplied u USING x WHERE u.ctid = x.place AND x.state IS NULL RETURNING 1)",
					 quote_literal_cstr(psprintf("DELETE FROM %s t WHERE %s", escape_format(lt->remote->rows), condition.data)),
					 link->peer, link->node, quote_literal_cstr(table->qualified),
					 refers_to_itself(table) ? "true" : "false", link->peer);
}

/*
 * Append such a statement.  Its result: how many rows were deleted, how many
 * failed, and of these the keys, SQLSTATEs, messages and constraints as arrays.
 */
void
synchro_sql_delete_apart(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	synchro_sql_try_deletes(sql, link, lt);
	appendStringInfo(sql, " SELECT '" SYNCHRO_APART_TAG "', %d, (SELECT count(*) FROM d), pg_catalog.count(x.state),"
					 " pg_catalog.array_agg(pg_catalog.array_to_string(x.remote_key, ', ', 'NULL')) FILTER (WHERE x.state IS NOT NULL),"
					 " pg_catalog.array_agg(x.state) FILTER (WHERE x.state IS NOT NULL),"
					 " pg_catalog.array_agg(x.message) FILTER (WHERE x.state IS NOT NULL),"
					 " pg_catalog.array_agg(coalesce(x.constraint_name, '')) FILTER (WHERE x.state IS NOT NULL) FROM x;",
					 lt->number);
}
