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
 * Read a field of COPY text; value is set to it, unless it is NULL (*is_null).
 * Returns where the field ends.
 */
const char *
synchro_values_field(const char *pos, StringInfo value, bool *is_null)
{
	static const char escaped[] = "bfnrtv";
	static const char meant[] = "\b\f\n\r\t\v";

	resetStringInfo(value);
	*is_null = pos[0] == '\\' && pos[1] == 'N';
	if (*is_null)
		return pos + 2;
	for (; *pos != '\t' && *pos != '\n'; pos++)
	{
		char		c = *pos;

		if (c == '\\')
		{
			const char *letter = strchr(escaped, *++pos);

			c = letter != NULL ? meant[letter - escaped] : *pos;
		}
		appendStringInfoChar(value, c);
	}
	return pos;
}

/*
 * Append it as an SQL literal.
 */
void
synchro_values_literal(StringInfo sql, const StringInfoData *value, bool is_null)
{
	if (is_null)
	{
		appendStringInfoString(sql, "NULL");
		return;
	}
	appendStringInfoChar(sql, '\'');
	for (const char *c = value->data; *c != '\0'; c++)
	{
		if (*c == '\'')
			appendStringInfoChar(sql, *c);
		appendStringInfoChar(sql, *c);
	}
	appendStringInfoChar(sql, '\'');
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
	StringInfoData value;
	bool		is_null;

	initStringInfo(&value);
	synchro_spool_rewind(spool);
	len = synchro_spool_read(spool, &pos);
	end = pos + len;
	appendStringInfoString(sql, "VALUES (");
	for (int number = 1; pos < end; number++, pos++)
	{
		pos = synchro_values_field(pos, &value, &is_null);
		synchro_values_literal(arguments != NULL ? arguments : sql, &value, is_null);
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
 * Hexadecimal digits of bytes.
 */
void
synchro_values_digits(StringInfo sql, const char *data, int len)
{
	enlargeStringInfo(sql, 2 * len);
	sql->len += hex_encode(data, len, sql->data + sql->len);
	sql->data[sql->len] = '\0';
}

/*
 * May a text have characters that the remote's encoding lacks?
 */
bool
synchro_values_may_be_foreign(const char *text)
{
	for (; *text != '\0'; text++)
		if (IS_HIGHBIT_SET(*text))
			return true;
	return false;
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
 * An array of text as one of digits.
 */
static Datum
as_digits(Datum array)
{
	Datum	   *values;
	int			count;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &values, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		StringInfoData digits;

		initStringInfo(&digits);
		synchro_values_digits(&digits, VARDATA_ANY(DatumGetPointer(values[i])), VARSIZE_ANY_EXHDR(DatumGetPointer(values[i])));
		values[i] = CStringGetTextDatum(digits.data);
	}
	return PointerGetDatum(construct_array(values, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * A query of identities (lists of SynchroIdentities), or NULL if there are none.  A literal for
 * each column, not for each value: there may be many rows, and the server parses all of a script at once.
 * What the remote's encoding may lack is given by digits: see waitingsql.c.
 */
char *
synchro_sql_identity_rows(const SynchroTable *table, const List *lists)
{
	ArrayBuildState **columns = palloc0(sizeof(ArrayBuildState *) * table->nidentity);
	int			count = 0;
	StringInfoData sql;
	StringInfoData from;
	const ListCell *cell;

	foreach(cell, lists)
		count += add_identities(columns, table, lfirst(cell));
	if (count == 0)
		return NULL;
	initStringInfo(&sql);
	initStringInfo(&from);
	appendStringInfoString(&sql, "SELECT ");
	for (int x = 0; x < table->nidentity; x++)
	{
		Datum		array = makeArrayResult(columns[x], CurrentMemoryContext);
		char	   *literal = OidOutputFunctionCall(F_ARRAY_OUT, array);
		bool		foreign = synchro_values_may_be_foreign(literal);

		if (foreign)
			literal = OidOutputFunctionCall(F_ARRAY_OUT, as_digits(array));
		appendStringInfo(&sql, foreign ? "%spg_temp.synchro_decode(u.l%d)" : "%su.l%d::%s", x > 0 ? ", " : "", x, synchro_stage_type(table, x));
		appendStringInfo(&from, "%spg_catalog.unnest(%s::text[])", x > 0 ? ", " : "", quote_literal_cstr(literal));
	}
	appendStringInfo(&sql, " FROM ROWS FROM (%s) u (", from.data);
	synchro_sql_list(&sql, "l", table->nidentity);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}
