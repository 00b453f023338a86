/*-------------------------------------------------------------------------
 *
 * placeholder.c
 *	  What a preview gives new rows instead of values of the remote's
 *	  sequences.
 *
 * A preview is rolled back, but nextval() is not.  So the session has
 * sequences of its own, temporary ones, which go with the transaction that
 * made them.  They count down from the end of the column's type: that passes
 * what rules a remote may have for its ids, and is not what its own sequences
 * hand out next, so nobody who inserts there meanwhile waits for us.  Where the
 * end is taken, they count down from the smallest value that is there, or 0.
 *
 * What a trigger or a function in a default asks of a sequence by itself
 * cannot be prevented.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "utils/builtins.h"

#include "placeholder.h"

#define NEXTVAL		"nextval("

/* a column's default, be it its type's */
#define DEFAULT_VALUE	"coalesce(pg_get_expr(d.adbin, d.adrelid), pg_get_expr(t.typdefaultbin, 'pg_type'::regclass))"

/* with its number: a column keeps its sequence when the table is described anew */
static const char *const columns_query =
	"SELECT a.attname, a.attnum, CASE WHEN format_type(coalesce(nullif(t.typbasetype, 0), t.oid), -1) IN ('smallint', 'integer', 'bigint') THEN t.typlen ELSE 0 END,"
	"       CASE WHEN a.attidentity <> '' THEN '" NEXTVAL ")' ELSE " DEFAULT_VALUE " END,"
	"       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum)"
	" FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
	" LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
	" WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
	"   AND (a.attidentity <> '' OR " DEFAULT_VALUE " LIKE '%" NEXTVAL "%')"
	" ORDER BY a.attnum";

/*
 * Append what a session needs for values that are no plain numbers.
 */
void
synchro_sql_placeholder_session(StringInfo sql)
{
	appendStringInfoString(sql,
						   "CREATE TEMPORARY SEQUENCE synchro_ids AS bigint START 2147483647 INCREMENT BY -1 MAXVALUE 2147483647;"
						   "CREATE FUNCTION pg_temp.synchro_nextval(regclass) RETURNS bigint LANGUAGE sql VOLATILE"
						   " AS $$SELECT nextval('pg_temp.synchro_ids'::regclass)$$;");
}

/*
 * Append a sequence for a column of integers of that length, and return its
 * next value, as SQL.  indexed: so two rows may not have the same value, and
 * it can be seen at no cost which ones are taken.
 */
static char *
own_sequence(StringInfo sql, const SynchroLinkTable *lt, const char *column, const char *attnum, int len, bool indexed)
{
	char	   *name = psprintf("synchro_id_%u_%s", lt->table->relid, attnum);
	int64		end = len == 2 ? PG_INT16_MAX : len == 4 ? PG_INT32_MAX : PG_INT64_MAX;

	appendStringInfo(sql, "CREATE TEMPORARY SEQUENCE IF NOT EXISTS %s AS bigint START " INT64_FORMAT
					 " INCREMENT BY -1 MINVALUE -9223372036854775808 MAXVALUE " INT64_FORMAT ";", name, end, end);
	if (indexed)
		appendStringInfo(sql, "SELECT setval('pg_temp.%s'::regclass, least(x.lowest, 0)::bigint) FROM (SELECT min(t.%s) AS lowest, max(t.%s) AS highest FROM %s t) x"
						 " WHERE x.highest > " INT64_FORMAT " AND NOT (SELECT is_called FROM pg_temp.%s);",
						 name, quote_identifier(column), quote_identifier(column), lt->table->qualified, end / 2, name);
	return psprintf(NEXTVAL "'pg_temp.%s'::regclass)", name);
}

/*
 * May a name go on after this one?
 */
static bool
is_part_of_name(char c)
{
	return isalnum((unsigned char) c) || IS_HIGHBIT_SET(c) || c == '_' || c == '$' || c == '.';
}

/*
 * An expression that asks our own sequence instead of the remote's, and is the remote's
 * own otherwise: constants and names that have the word in them stay.  Both are written
 * with their quotes doubled, and so without a backslash before one.
 */
static char *
replace_nextval(const char *expression)
{
	StringInfoData result;
	char		quote = 0;		/* that of the constant or the name that we are in */
	char		before = 0;

	initStringInfo(&result);
	for (const char *at = expression; *at != '\0'; before = *at++)
	{
		if (quote != 0 ? *at == quote : *at == '\'' || *at == '"')
			quote = quote != 0 ? 0 : *at;
		else if (quote == 0 && !is_part_of_name(before) && strncmp(at, NEXTVAL, strlen(NEXTVAL)) == 0)
			appendStringInfoString(&result, "pg_temp.synchro_");
		appendStringInfoChar(&result, *at);
	}
	return result.data;
}

/*
 * Find the columns that sequences fill on the remote, and replace what makes
 * their values.  Waits for the network; in the memory context of the tables'
 * descriptions.
 */
void
synchro_placeholders_prepare(SynchroLink *link, SynchroLinkTable *lt)
{
	const char *params[1] = {lt->table->qualified};
	SynchroRows *rows = synchro_remote_query(link->remote, columns_query, 1, params);
	StringInfoData sql;
	SynchroRemoteError *error;

	initStringInfo(&sql);
	lt->placeholders = NIL;
	for (int i = 0; i < rows->nrows; i++)
	{
		SynchroPlaceholder *placeholder = palloc(sizeof(SynchroPlaceholder));
		int			len = atoi(synchro_value(rows, i, 2));
		int			column;

		placeholder->column = synchro_value(rows, i, 0);
		placeholder->value = len > 0 ?
			own_sequence(&sql, lt, placeholder->column, synchro_value(rows, i, 1), len, synchro_value(rows, i, 4)[0] == 't') :
			replace_nextval(synchro_value(rows, i, 3));
		lt->placeholders = lappend(lt->placeholders, placeholder);
		column = synchro_table_column(lt->table, placeholder->column);
		if (column >= 0 && lt->remote->columns[column].fresh_value != NULL)
			lt->remote->columns[column].fresh_value = placeholder->value;
	}
	error = sql.len > 0 ? synchro_remote_script(link->remote, sql.data, NIL, NULL) : NULL;
	if (error != NULL)
		synchro_remote_report(link->remote, error, "while looking at which ids are taken");
}
