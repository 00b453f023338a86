/*-------------------------------------------------------------------------
 *
 * apartsql.c
 *	  SQL text that tries deletes one by one, where they cannot be done at once.
 *
 * Tables are taken children first.  In a table that refers to itself the order
 * of rows counts, too, and nobody knows it, nor in tables that refer to each
 * other in a circle: so rows that others of these tables still refer to are tried
 * again as long as any has gone meanwhile, from the other end each time, since
 * most trees have grown in one direction.  What is left refers to each other, or is
 * needed by something else.  So it is deleted by one statement, which
 * foreign keys see the end of only; if that fails, without the row that the error
 * is about, and so on, MAX_TOGETHER times at most.
 *
 * Without that, rows would be parked though nothing is wrong with them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "rowerror.h"

/* rows that refer to each other are deleted by one statement that often at most, and so many rows in all */
#define MAX_TOGETHER	"100"
#define MAX_DELETED		"100000"

/*
 * Append the definition of the function that tries a statement, and says what
 * was wrong with the row if it has failed.  Errors that have nothing to do with
 * rows are raised: see synchro_error_is_about_rows().  guard: rows that wait are
 * not to go along, see guardsql.c.
 */
static void
define_try(StringInfo sql, bool guard)
{
	appendStringInfoString(sql,
						   "CREATE OR REPLACE FUNCTION pg_temp.synchro_try(statement text,"
						   " OUT state text, OUT message text, OUT constraint_name text, OUT detail text, OUT referring text)"
						   " LANGUAGE plpgsql AS $synchro$ DECLARE s text; t text; BEGIN EXECUTE statement; ");
	if (guard)
		appendStringInfoString(sql, "PERFORM pg_temp.synchro_guard(); ");
	appendStringInfoString(sql,
						   "EXCEPTION WHEN OTHERS THEN"
						   " GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, constraint_name = CONSTRAINT_NAME,"
						   " detail = PG_EXCEPTION_DETAIL, s = SCHEMA_NAME, t = TABLE_NAME;"
						   " referring := pg_catalog.format('%I.%I', s, t); IF ");
	synchro_sql_not_about_rows(sql, "state");
	appendStringInfoString(sql, " THEN RAISE; END IF; END $synchro$;");
}

/*
 * Append the definition of the function that tries to delete rows together
 * which refer to each other; its result: places of those that are gone.
 *
 * heads, conditions: what each is deleted from, and of which row.  stuck: places of rows
 * that have failed one by one; messages, details: with what.  An error is about
 * the row that has failed with the same one before, or else, as several may refer to
 * it, about the one whose key it names (that is how all translations have it).
 * That one cannot go, whatever goes with it.
 */
static void
define_try_together(StringInfo sql)
{
	appendStringInfoString(sql,
						   "CREATE OR REPLACE FUNCTION pg_temp.synchro_try_together(heads text[], conditions text[], stuck integer[], messages text[], details text[])"
						   " RETURNS integer[] LANGUAGE plpgsql AS $synchro$"
						   " DECLARE e record; named integer[]; sum integer := 0;"
						   " BEGIN FOR i IN 1 .. " MAX_TOGETHER " LOOP"
						   " sum := sum + pg_catalog.cardinality(stuck);"
						   " EXIT WHEN pg_catalog.cardinality(stuck) < 2 OR sum > " MAX_DELETED ";"
						   " SELECT t.* INTO e FROM pg_temp.synchro_try((SELECT 'WITH ' || pg_catalog.string_agg(y.part, ', ') || ' SELECT' FROM"
						   " (SELECT pg_catalog.format('d%s AS (%s%s)', pg_catalog.row_number() OVER (), heads[p], pg_catalog.string_agg(conditions[p], ' OR ')) AS part"
						   " FROM pg_catalog.unnest(stuck) p GROUP BY heads[p]) y)) t;"
						   " IF e.state IS NULL THEN RETURN stuck; END IF;"
						   " named := ARRAY(SELECT p FROM pg_catalog.unnest(stuck) p WHERE messages[p] = e.message AND details[p] = e.detail);"
						   " IF named OPERATOR(pg_catalog.=) '{}' THEN named := ARRAY(SELECT p FROM pg_catalog.unnest(stuck) p WHERE"
						   " pg_catalog.split_part(messages[p], '\"', 2) = pg_catalog.split_part(e.message, '\"', 2)"
						   " AND pg_catalog.substring(details[p], '[(].*[)]=[(].*[)]') = pg_catalog.substring(e.detail, '[(].*[)]=[(].*[)]')); END IF;"
						   " EXIT WHEN named OPERATOR(pg_catalog.=) '{}';"
						   " stuck := ARRAY(SELECT p FROM pg_catalog.unnest(stuck) p WHERE p <> ALL (named));"
						   " END LOOP; RETURN '{}'; END $synchro$;");
}

/*
 * Append the definitions of functions that try deletes.
 *
 * synchro_try_all() tries all of them; tables: as SQL writes them, those whose
 * rows may refer to each other, and are tried as often as helps, and together.
 * None: each is tried once.
 *
 * Where an operator of ours takes any array, one for integer[] that the search_path
 * finds would be preferred, whoever has made it.
 */
void
synchro_sql_define_try(StringInfo sql, bool guard)
{
	define_try(sql, guard);
	define_try_together(sql);
	appendStringInfoString(sql,
						   "CREATE OR REPLACE FUNCTION pg_temp.synchro_try_all(heads text[], conditions text[], tables text[],"
						   " OUT place integer, OUT state text, OUT message text, OUT constraint_name text)"
						   " RETURNS SETOF record LANGUAGE plpgsql STRICT AS $synchro$"
						   " DECLARE waiting integer[] := ARRAY(SELECT pg_catalog.generate_subscripts(heads, 1));"
						   " failed integer[]; gone integer[]; e record; states text[]; messages text[]; details text[]; names text[]; referring text[];"
						   " BEGIN LOOP failed := '{}';"
						   " FOREACH place IN ARRAY waiting LOOP"
						   " SELECT t.* INTO e FROM pg_temp.synchro_try(heads[place] || conditions[place]) t;"
						   " IF e.state IN ('23503', '23001') AND tables OPERATOR(pg_catalog.<>) '{}' THEN failed := failed OPERATOR(pg_catalog.||) place; states[place] := e.state; messages[place] := e.message;"
						   " details[place] := e.detail; names[place] := e.constraint_name; referring[place] := e.referring;"
						   " ELSE state := e.state; message := e.message; constraint_name := e.constraint_name; RETURN NEXT; END IF; END LOOP;"
						   " EXIT WHEN pg_catalog.cardinality(failed) IN (0, pg_catalog.cardinality(waiting));"
						   " waiting := ARRAY(SELECT failed[i] FROM pg_catalog.generate_subscripts(failed, 1, true) i);"
						   " END LOOP;"
						   " gone := pg_temp.synchro_try_together(heads, conditions,"
						   " ARRAY(SELECT p FROM pg_catalog.unnest(failed) p WHERE referring[p] = ANY (tables)), messages, details);"
						   " FOREACH place IN ARRAY failed LOOP"
						   " IF place = ANY (gone) THEN state := NULL; message := NULL; constraint_name := NULL;"
						   " ELSE state := states[place]; message := messages[place]; constraint_name := names[place]; END IF;"
						   " RETURN NEXT; END LOOP; END $synchro$;"
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
 * Append a query of a table's deletes which were put off.
 */
static void
append_deletes(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
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
	appendStringInfo(sql, "SELECT %d AS number, u.ctid AS place, u.remote_key, %s AS head, pg_catalog.format(%s, VARIADIC u.remote_key) AS condition"
					 " FROM %s.unapplied u WHERE u.node = '%s' AND u.relation = %s",
					 lt->number, quote_literal_cstr(psprintf("DELETE FROM %s t WHERE ", lt->remote->rows)),
					 quote_literal_cstr(psprintf("(%s)", condition.data)), link->peer, link->node, quote_literal_cstr(table->qualified));
}

/*
 * Append the beginning of a statement that tries tables' deletes which were put
 * off, one by one: x says of each how it has fared, d has a row for each that is
 * done; number is the table's.  tables: that refer to each other in a circle, or
 * one.
 */
void
synchro_sql_try_deletes(StringInfo sql, const SynchroLink *link, List *tables)
{
	StringInfoData names;
	ListCell   *cell;

	initStringInfo(&names);
	appendStringInfoString(sql, "WITH s AS MATERIALIZED (SELECT u.*, pg_catalog.row_number() OVER () AS n FROM (");
	foreach(cell, tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		appendStringInfoString(sql, cell != list_head(tables) ? " UNION ALL " : "");
		append_deletes(sql, link, lt);
		if (list_length(tables) > 1 || refers_to_itself(lt->table))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", quote_literal_cstr(lt->table->qualified));
	}
	appendStringInfo(sql, ") u), x AS MATERIALIZED (SELECT s.number, s.place, s.remote_key, y.state, y.message, y.constraint_name"
					 " FROM pg_temp.synchro_try_all((SELECT pg_catalog.array_agg(s.head ORDER BY s.n) FROM s),"
					 " (SELECT pg_catalog.array_agg(s.condition ORDER BY s.n) FROM s), ARRAY[%s]::text[]) y JOIN s ON s.n = y.place),"
					 " d AS (DELETE FROM %s.unapplied u USING x WHERE u.ctid = x.place AND x.state IS NULL RETURNING x.number)",
					 names.data, link->peer);
}

/*
 * Append such a statement.  Its result, for each table of which any was tried: how
 * many rows were deleted, how many failed, and of these the keys, SQLSTATEs,
 * messages and constraints as arrays.
 */
void
synchro_sql_delete_apart(StringInfo sql, const SynchroLink *link, List *tables)
{
	synchro_sql_try_deletes(sql, link, tables);
	appendStringInfoString(sql, " SELECT '" SYNCHRO_APART_TAG "', x.number, (SELECT count(*) FROM d WHERE d.number = x.number), pg_catalog.count(x.state),"
						   " pg_catalog.array_agg(" SYNCHRO_SQL_SHOWN_KEY("x.remote_key") ") FILTER (WHERE x.state IS NOT NULL),"
						   " pg_catalog.array_agg(x.state) FILTER (WHERE x.state IS NOT NULL),"
						   " pg_catalog.array_agg(x.message) FILTER (WHERE x.state IS NOT NULL),"
						   " pg_catalog.array_agg(coalesce(x.constraint_name, '')) FILTER (WHERE x.state IS NOT NULL) FROM x GROUP BY x.number;");
}
