/*-------------------------------------------------------------------------
 *
 * valuessql.c
 *	  SQL text: a few rows as VALUES; many identities as arrays.
 *
 * Each COPY costs a round trip, since the server asks for its data.  So the
 * few rows of a small batch are part of its script, which then takes one round
 * trip in all.  Not many of them: each number of rows is another statement for
 * whoever keeps statistics of statements.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "applysql.h"
#include "requests.h"

#define VALUES_ROWS		4
#define VALUES_BYTES	4096	/* less than a spool hands out at once */

/*
 * Is a spool's COPY text so little that it is better sent with the script?
 */
bool
synchro_values_are_few(SynchroSpool *spool)
{
	const char *data;
	int			len;
	int			nrows = 0;

	if (synchro_spool_size(spool) > VALUES_BYTES)
		return false;
	synchro_spool_rewind(spool);
	len = synchro_spool_read(spool, &data);
	for (int i = 0; i < len; i++)
		nrows += data[i] == '\n' ? 1 : 0;
	return nrows <= VALUES_ROWS;
}

/*
 * Append a field of COPY text as an SQL literal.  Returns where the field ends.
 */
static const char *
append_literal(StringInfo sql, const char *pos)
{
	static const char escaped[] = "bfnrtv";
	static const char meant[] = "\b\f\n\r\t\v";

	if (pos[0] == '\\' && pos[1] == 'N')
	{
		appendStringInfoString(sql, "NULL");
		return pos + 2;
	}
	appendStringInfoChar(sql, '\'');
	for (; *pos != '\t' && *pos != '\n'; pos++)
	{
		char		c = *pos;

		if (c == '\\')
		{
			const char *letter = strchr(escaped, *++pos);

			c = letter != NULL ? meant[letter - escaped] : *pos;
		}
		if (c == '\'')
			appendStringInfoChar(sql, c);
		appendStringInfoChar(sql, c);
	}
	appendStringInfoChar(sql, '\'');
	return pos;
}

/*
 * Append VALUES with the rows of a spool for which synchro_values_are_few().
 *
 * arguments: NULL, or what gets the values, separated by commas, in whose stead
 * there are parameters then.
 */
void
synchro_sql_values(StringInfo sql, StringInfo arguments, SynchroSpool *spool)
{
	const char *pos;
	const char *end;
	int			len;

	synchro_spool_rewind(spool);
	len = synchro_spool_read(spool, &pos);
	end = pos + len;
	appendStringInfoString(sql, "VALUES (");
	for (int number = 1; pos < end; number++, pos++)
	{
		pos = append_literal(arguments != NULL ? arguments : sql, pos);
		if (arguments != NULL)
			appendStringInfo(sql, "$%d", number);
		if (arguments != NULL && pos + 1 < end)
			appendStringInfoString(arguments, ", ");
		if (*pos == '\t')
			appendStringInfoString(sql, ", ");
		else
			appendStringInfoString(sql, pos + 1 < end ? "), (" : ")");
	}
}

/*
 * Add identities to the columns of them as they are staged, arrays of text.  Those that
 * no row can have any more, since a column has become NOT NULL, are left out.
 */
static int
add_identities(ArrayBuildState **columns, const SynchroTable *table, const SynchroIdentities *identities)
{
	char	  **staged = palloc(sizeof(char *) * identities->nidentity);
	int			count = 0;

	for (int i = 0; i < identities->count; i++)
	{
		bool		complete = true;

		for (int x = 0; x < identities->nidentity; x++)
		{
			staged[x] = synchro_staged_value(table, x, identities->values[i * identities->nidentity + x]);
			complete &= staged[x] != NULL;
		}
		for (int x = 0; complete && x < identities->nidentity; x++)
			columns[x] = accumArrayResult(columns[x], CStringGetTextDatum(staged[x]), false, TEXTOID, CurrentMemoryContext);
		count += complete;
	}
	return count;
}

/*
 * A query of identities (lists of SynchroIdentities), or NULL if there are none.  A literal for
 * each column, not for each value: there may be many rows, and the server parses all of a script at once.
 */
char *
synchro_sql_identity_rows(const SynchroTable *table, const List *lists)
{
	ArrayBuildState **columns = palloc0(sizeof(ArrayBuildState *) * table->nidentity);
	int			count = 0;
	StringInfoData sql;
	const ListCell *cell;

	foreach(cell, lists)
		count += add_identities(columns, table, lfirst(cell));
	if (count == 0)
		return NULL;
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int x = 0; x < table->nidentity; x++)
		appendStringInfo(&sql, "%su.l%d::%s", x > 0 ? ", " : "", x, synchro_stage_type(table, x));
	appendStringInfoString(&sql, " FROM ROWS FROM (");
	for (int x = 0; x < table->nidentity; x++)
		appendStringInfo(&sql, "%spg_catalog.unnest(%s::text[])", x > 0 ? ", " : "",
						 quote_literal_cstr(OidOutputFunctionCall(F_ARRAY_OUT, makeArrayResult(columns[x], CurrentMemoryContext))));
	appendStringInfoString(&sql, ") u (");
	synchro_sql_list(&sql, "l", table->nidentity);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}
