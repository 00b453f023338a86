/*-------------------------------------------------------------------------
 *
 * valuessql.c
 *	  SQL text: a few rows as VALUES.
 *
 * Each COPY costs a round trip, since the server asks for its data.  So the
 * few rows of a small batch are part of its script, which then takes one round
 * trip in all.  Not many of them: each number of rows is another statement for
 * whoever keeps statistics of statements.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"

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
