/*-------------------------------------------------------------------------
 *
 * stagesql.c
 *	  SQL text that stages a batch on the remote, and the pieces that all SQL
 *	  about staged rows is made of.
 *
 * For each table with number N the remote session has three temporary tables:
 *
 *	  s_N	rows as they are here: l0.. (local identity), c<i> (column i of
 *			the description), f<j>_<x> (identity of the row that foreign key
 *			j references).  ensure: the row shall only be there.
 *	  n_N	natural keys of rows that others reference (kind p), and of
 *			rows as they were called before (kinds o, d and g), in the same
 *			columns; in mode reference the former identity as k0.. ; where a
 *			foreign key of the natural key references other columns than the
 *			parent's identity, o and d have its value as b<i> instead.  for_waiting:
 *			only rows that wait need it, see waitingsql.c
 *	  m_N	the map that resolving makes of them: local identity l0.. ->
 *			remote identity r0.. ; v0.. is what the identity will be when the
 *			batch has been applied, w0.. what it was before, where others
 *			follow it.  Kind n: rows as they are now; o, d, g: as they were
 *			called before.  fresh: r is a value made for a row to
 *			be inserted.  The columns from stamp to verdict are
 *			decidesql.c's, those from crossed on crosssql.c's.
 *	  x_N	in a preview, what rows and names are called: see previewsql.c
 *	  c_N	when and where rows were changed, if the remote logs the table,
 *			too: see decidesql.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "applysql.h"
#include "prepared.h"

/*
 * Type in which the given value of a table's identity is staged.  Equal
 * values must be equal there whatever type a referencing column has, and
 * NULLs as well: see rowstream.c.
 */
const char *
synchro_stage_type(const SynchroTable *table, int identity)
{
	if (!table->columns[table->identity[identity]].not_null)
		return "text";
	switch (table->columns[table->identity[identity]].type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return "int8";
		case UUIDOID:
			return "uuid";
		default:
			return "text";
	}
}

/*
 * Of batches that are small enough for statements and their plans to be kept
 * (prepared.c): the least size, a number of rows, that such statements are made
 * for and that nrows are less than.  Of others, 0.
 */
int
synchro_stage_size(int64 nrows)
{
	static const int sizes[] = {100, 250, 500, 1000, 2000};

	for (int i = 0; i < lengthof(sizes); i++)
		if (nrows < sizes[i])
			return sizes[i];
	return 0;
}

/*
 * Append "prefix0, prefix1, ...".
 */
void
synchro_sql_list(StringInfo sql, const char *prefix, int count)
{
	for (int i = 0; i < count; i++)
		appendStringInfo(sql, "%s%s%d", i > 0 ? ", " : "", prefix, i);
}

/*
 * Append "left0 = right0 AND left1 = right1 ...", of staged columns.
 */
void
synchro_sql_equal(StringInfo sql, const char *left, const char *right, int count)
{
	for (int i = 0; i < count; i++)
		appendStringInfo(sql, "%s%s%d OPERATOR(pg_catalog.=) %s%d", i > 0 ? " AND " : "",
						 left, i, right, i);
}

/*
 * Name of a column, quoted where it has to be on the remote, whose version may reserve
 * words that ours does not.
 */
const char *
synchro_column_name(const SynchroLinkTable *lt, int column)
{
	const char *name = lt->table->columns[column].name;

	return strcmp(name, "system_user") == 0 ? "\"system_user\"" : quote_identifier(name);
}

/*
 * A column's type here, named as SynchroRemoteColumn.base names it; NULL if it is
 * not one of the server's own.
 */
const char *
synchro_column_base(const SynchroTable *table, int column)
{
	Oid			type = getBaseType(table->columns[column].type);

	return type < FirstNormalObjectId ? format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN) : NULL;
}

/*
 * A value of a column here as its type writes it, as SQL.
 */
char *
synchro_sql_column_text(const SynchroTable *table, int column, const char *alias)
{
	return synchro_sql_text(psprintf("%s.%s", alias, quote_identifier(table->columns[column].name)),
							synchro_column_base(table, column));
}

/*
 * The same for a value of a column on the remote: of types of pg_catalog it says
 * no schema.
 */
char *
synchro_sql_remote_text(const SynchroLinkTable *lt, int column, const char *value)
{
	return synchro_sql_text(value, lt->remote->columns[column].base);
}

/*
 * A value of a column on the remote of its text, as SQL; not by a cast, either.
 */
char *
synchro_sql_remote_value(const SynchroLinkTable *lt, int column, const char *text)
{
	const char *base = lt->remote->columns[column].base;

	if (strchr(base, '.') == NULL)
		return psprintf("%s::%s", text, base);
	return psprintf("pg_temp.synchro_read(%s, NULL::%s)", text, base);
}

/*
 * The same as synchro_sql_remote_text() for a column.
 */
char *
synchro_sql_remote_column(const SynchroLinkTable *lt, int column, const char *alias)
{
	return synchro_sql_remote_text(lt, column, psprintf("%s.%s", alias, synchro_column_name(lt, column)));
}

/*
 * Append "left and right are equal", values of the remote's identity number i.
 */
void
synchro_sql_value_equal(StringInfo sql, const SynchroLinkTable *lt, int i,
					  const char *left, const char *right)
{
	int			column = lt->table->identity[i];

	appendStringInfo(sql, "(%s %s %s", left, lt->remote->columns[column].equals, right);
	if (!lt->table->columns[column].not_null)
		appendStringInfo(sql, " OR (%s " SYNCHRO_SQL_IS_NULL " AND %s " SYNCHRO_SQL_IS_NULL ")",
						 left, right);
	appendStringInfoChar(sql, ')');
}

/*
 * Append "left0.. and right0.. are the same row of the remote".
 */
void
synchro_sql_same_row(StringInfo sql, const SynchroLinkTable *lt, const char *left, const char *right)
{
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		appendStringInfoString(sql, i > 0 ? " AND " : "");
		synchro_sql_value_equal(sql, lt, i, psprintf("%s%d", left, i), psprintf("%s%d", right, i));
	}
}

/*
 * Append "the remote row alias is the one that mapped0.. names".
 */
void
synchro_sql_identity_equal(StringInfo sql, const SynchroLinkTable *lt,
						   const char *alias, const char *mapped)
{
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		appendStringInfoString(sql, i > 0 ? " AND " : "");
		synchro_sql_value_equal(sql, lt, i,
							  psprintf("%s.%s", alias, synchro_column_name(lt, lt->table->identity[i])),
							  psprintf("%s%d", mapped, i));
	}
}

/*
 * Append "the remote row alias is the one whose identity an array of text says".
 */
void
synchro_sql_identity_is(StringInfo sql, const SynchroLinkTable *lt, const char *alias, const char *array)
{
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		int			column = lt->table->identity[i];

		appendStringInfoString(sql, i > 0 ? " AND " : "");
		synchro_sql_value_equal(sql, lt, i, psprintf("%s.%s", alias, synchro_column_name(lt, column)),
								synchro_sql_remote_value(lt, column, psprintf("%s[%d]", array, i + 1)));
	}
}

/*
 * Append what a new session needs besides its settings: a function by which
 * plain SQL can raise an error that bears the mark, see synchro_remote_mark(),
 * and one that reads a value as a literal of its type, so by the type's input
 * function.
 */
void
synchro_sql_session(StringInfo sql, const char *mark)
{
	appendStringInfo(sql,
					 "CREATE FUNCTION pg_temp.synchro_raise(state text, message text, detail text) RETURNS void "
					 "LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION USING ERRCODE = state, MESSAGE = message, DETAIL = detail, SCHEMA = %s; END$$;"
					 "CREATE FUNCTION pg_temp.synchro_read(value text, INOUT result anyelement) LANGUAGE plpgsql STABLE AS $$BEGIN IF value IS NOT NULL THEN"
					 " EXECUTE pg_catalog.format('SELECT %%L::%%s', value, pg_catalog.format_type(pg_catalog.pg_typeof(result), NULL)) INTO result; END IF; END$$;"
					 "CREATE FUNCTION pg_temp.synchro_repeat(VARIADIC statements text[]) RETURNS void LANGUAGE plpgsql AS $$DECLARE statement text; done int8; total int8;"
					 " BEGIN LOOP total := 0; FOREACH statement IN ARRAY statements LOOP EXECUTE statement; GET DIAGNOSTICS done = ROW_COUNT; total := total + done; END LOOP;"
					 " EXIT WHEN total = 0; END LOOP; END$$;",
					 quote_literal_cstr(mark));
	synchro_sql_waiting_session(sql);
}

/*
 * Append a row's local identity as it is staged: the text of an array of text.  column:
 * of the first value, but for the number.
 */
void
synchro_sql_staged_key(StringInfo sql, const SynchroLinkTable *lt, const char *column)
{
	appendStringInfoString(sql, "ARRAY[");
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, "%s%s%d::text", i > 0 ? ", " : "", column, i);
	appendStringInfoString(sql, "]::text");
}

/*
 * Append an expression for a line by which an error names a row, for
 * synchro_quarantine_named(): the table's number and the row's local identity,
 * as an array of text.  Whatever is in a key, the line has no other line in it.
 * column: of the identity's first value, but for the number.
 */
void
synchro_sql_named_row(StringInfo sql, const SynchroLinkTable *lt, const char *column)
{
	appendStringInfo(sql, "'%d ' || pg_catalog.replace(pg_catalog.replace(", lt->number);
	synchro_sql_staged_key(sql, lt, column);
	appendStringInfoString(sql, ", E'\\\\', E'\\\\\\\\'), E'\\n', E'\\\\n')");
}

static void
append_staged_parents(StringInfo sql, const SynchroLinkTable *lt, bool key_only, bool types)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		if (lt->parents[fk] == NULL || (key_only && !synchro_fk_names_key(lt, fk)))
			continue;
		for (int x = 0; x < lt->parents[fk]->table->nidentity; x++)
		{
			appendStringInfo(sql, ", f%d_%d", fk, x);
			if (types)
				appendStringInfo(sql, " %s", synchro_stage_type(lt->parents[fk]->table, x));
		}
	}
}

/*
 * Not of a domain's type: what it checks is to be checked with the role's settings, as
 * that may call functions, so where the value is written.
 */
static void
append_staged_columns(StringInfo sql, const SynchroLinkTable *lt, bool key_only, bool types)
{
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		if (synchro_column_fk(lt, i) >= 0 ||
			!(key_only ? synchro_column_is_key(lt->table, i) : lt->pushed[i]))
			continue;
		appendStringInfo(sql, ", c%d", i);
		if (types)
			appendStringInfo(sql, " %s", lt->remote->columns[i].staged);
	}
}

/*
 * Key columns that reference other columns than the parent's identity: of a
 * name of before the value is known, but not whose it was.
 */
static void
append_staged_values(StringInfo sql, const SynchroLinkTable *lt, bool types)
{
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		int			fk = synchro_column_fk(lt, i);

		if (fk < 0 || !synchro_column_is_key(lt->table, i) || !synchro_fk_beyond_identity(lt, fk))
			continue;
		appendStringInfo(sql, ", b%d", i);
		if (types)
			appendStringInfo(sql, " %s", lt->remote->columns[i].staged);
	}
}

/*
 * Append the creation of a table's staging table for rows.
 */
void
synchro_sql_stage_rows(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "CREATE TEMPORARY TABLE s_%d (ensure boolean", lt->number);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, ", l%d %s", i, synchro_stage_type(lt->table, i));
	append_staged_parents(sql, lt, false, true);
	append_staged_columns(sql, lt, false, true);
	appendStringInfoString(sql, ");");
}

/*
 * Append the creation of a table's staging tables for names and for the map.
 */
void
synchro_sql_stage_names(StringInfo sql, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;

	appendStringInfo(sql, "CREATE TEMPORARY TABLE n_%d (kind \"char\", for_waiting boolean, stamp int8, origin uuid, lost int8", lt->number);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, ", l%d %s", i, synchro_stage_type(table, i));
	for (int i = 0; i < table->nidentity && table->mode == SYNCHRO_MODE_REFERENCE; i++)
		appendStringInfo(sql, ", k%d text", i);
	append_staged_parents(sql, lt, true, true);
	append_staged_columns(sql, lt, true, true);
	append_staged_values(sql, lt, true);
	appendStringInfo(sql, ");CREATE TEMPORARY TABLE m_%d (kind \"char\", fresh boolean,"
					 " stamp int8, origin uuid, born int8, there int8, there_origin uuid, concurrent boolean, ghost boolean, again boolean, verdict \"char\", named tid,"
					 " crossed boolean, meant text, missing text",
					 lt->number);
	for (int i = 0; i < table->nidentity; i++)
	{
		const char *base = lt->remote->columns[table->identity[i]].base;

		appendStringInfo(sql, ", l%d %s, r%d %s, v%d %s, w%d %s", i, synchro_stage_type(table, i),
						 i, base, i, base, i, base);
	}
	appendStringInfoString(sql, ");");
	if (!lt->decides)
		return;
	appendStringInfo(sql, "CREATE TEMPORARY TABLE c_%d (stamp int8, origin uuid, born int8", lt->number);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, ", l%d %s", i, synchro_stage_type(table, i));
	appendStringInfoString(sql, ") ON COMMIT DELETE ROWS;");
}

/*
 * Append what drops all that there is of a table's staging tables.
 */
void
synchro_sql_unstage(StringInfo sql, const SynchroStaging *staging)
{
	static const char *const names[] = {"s", "n", "m", "c", "g", "x"};

	for (int i = 0; i < lengthof(names); i++)
		appendStringInfo(sql, "%s pg_temp.%s_%d", i == 0 ? "DROP TABLE IF EXISTS" : ",", names[i], staging->number);
	appendStringInfoChar(sql, ';');
}

/*
 * Append what fills a staging table.
 *
 * into: the table's name in pg_temp, and its columns without the parenthesis
 * at their end.  Returns whether the script is to be fed the spool.
 */
static bool
fill(StringInfo sql, SynchroFilling how, const StringInfoData *into, SynchroSpool *spool)
{
	bool		prepared = false;

	if (synchro_spool_size(spool) == 0)
		return false;
	if (how.by_copy || !synchro_values_are_few(spool))
	{
		appendStringInfo(sql, "COPY pg_temp.%s) FROM STDIN;", into->data);
		return true;
	}
	if (how.prepare != NULL)
	{
		StringInfoData statement;
		StringInfoData arguments;

		initStringInfo(&statement);
		initStringInfo(&arguments);
		appendStringInfo(&statement, "INSERT INTO pg_temp.%s) ", into->data);
		synchro_sql_values(&statement, &arguments, spool);
		prepared = synchro_prepared_execute(sql, how.prepare, statement.data, arguments.data);
	}
	if (!prepared)
	{
		appendStringInfo(sql, "INSERT INTO pg_temp.%s) ", into->data);
		synchro_sql_values(sql, NULL, spool);
		appendStringInfoChar(sql, ';');
	}
	return false;
}

/*
 * Append what stages changes: stamp, origin, when inserted, identity; see
 * rowstream.c.  Returns whether the script is to be fed their spool, as the next
 * two do.
 */
bool
synchro_sql_fill_changes(StringInfo sql, SynchroFilling how, const SynchroLinkTable *lt)
{
	StringInfoData into;

	initStringInfo(&into);
	appendStringInfo(&into, "c_%d (stamp, origin, born, ", lt->number);
	synchro_sql_list(&into, "l", lt->table->nidentity);
	return fill(sql, how, &into, lt->changes);
}

/*
 * Append what stages rows: ensure, identity, parents, columns; see rowstream.c.
 */
bool
synchro_sql_fill_rows(StringInfo sql, SynchroFilling how, const SynchroLinkTable *lt)
{
	StringInfoData into;
	bool		feed;

	initStringInfo(&into);
	appendStringInfo(&into, "s_%d (ensure, ", lt->number);
	synchro_sql_list(&into, "l", lt->table->nidentity);
	append_staged_parents(&into, lt, false, false);
	append_staged_columns(&into, lt, false, false);
	feed = fill(sql, how, &into, lt->rows);

	/* a row that is there for its own sake need not be ensured */
	if (lt->nensured > 0 && lt->nensured < lt->nrows)
	{
		appendStringInfo(sql, "DELETE FROM pg_temp.s_%d e USING pg_temp.s_%d s WHERE e.ensure AND NOT s.ensure AND ",
						 lt->number, lt->number);
		synchro_sql_equal(sql, "e.l", "s.l", lt->table->nidentity);
		appendStringInfoChar(sql, ';');
	}
	return feed;
}

/*
 * Append the staging table for names and its columns, as in fill(): kind, identity,
 * (reference: former identity,) parents, key columns, values of key columns.
 */
void
synchro_sql_names_into(StringInfo into, const SynchroLinkTable *lt)
{
	appendStringInfo(into, "n_%d (kind, %s", lt->number, lt->decides ? "stamp, origin, lost, " : "");
	synchro_sql_list(into, "l", lt->table->nidentity);
	if (lt->table->mode == SYNCHRO_MODE_REFERENCE)
	{
		appendStringInfoString(into, ", ");
		synchro_sql_list(into, "k", lt->table->nidentity);
	}
	append_staged_parents(into, lt, true, false);
	append_staged_columns(into, lt, true, false);
	append_staged_values(into, lt, false);
}

/*
 * Append what stages names.
 */
bool
synchro_sql_fill_names(StringInfo sql, SynchroFilling how, const SynchroLinkTable *lt)
{
	StringInfoData into;

	initStringInfo(&into);
	synchro_sql_names_into(&into, lt);
	return fill(sql, how, &into, lt->names);
}

/*
 * Append a check that the parents of all staged rows are there or about to
 * be.  If not, it raises SYNCHRO_MISSING_PARENTS with a line for each.
 */
void
synchro_sql_missing(StringInfo sql, List *tables)
{
	ListCell   *cell;
	bool		first = true;

	foreach(cell, tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		for (int fk = 0; lt->rows != NULL && fk < lt->table->nfks; fk++)
		{
			const SynchroLinkTable *parent = lt->parents[fk];

			if (parent == NULL)
				continue;
			if (first)
				appendStringInfoString(sql,
									   "SELECT pg_temp.synchro_raise('" SYNCHRO_MISSING_PARENTS "', 'missing parents', "
									   "pg_catalog.string_agg(line, E'\\n')) FROM (");
			else
				appendStringInfoString(sql, " UNION ALL ");
			first = false;
			appendStringInfoString(sql, "SELECT DISTINCT ");
			synchro_sql_named_row(sql, parent, psprintf("s.f%d_", fk));
			appendStringInfo(sql, " AS line FROM pg_temp.s_%d s LEFT JOIN pg_temp.m_%d p ON p.kind = 'n' AND ",
							 lt->number, parent->number);
			synchro_sql_equal(sql, "p.l", psprintf("s.f%d_", fk), parent->table->nidentity);
			appendStringInfo(sql, " WHERE p.l0 IS NULL AND s.f%d_0 IS NOT NULL", fk);
		}
	}
	if (!first)
		appendStringInfoString(sql, ") x HAVING count(*) > 0;");
}
