/*-------------------------------------------------------------------------
 *
 * applysql.c
 *	  SQL text that stages a batch on the remote and applies it.
 *
 * For each table with number N the remote session has three temporary tables:
 *
 *	  s_N	rows as they are here: l0.. (local identity), c<i> (column i of
 *			the description), f<j>_<x> (identity of the row that foreign key
 *			j references).  ensure: the row shall only be there.
 *	  n_N	natural keys of rows that others reference (kind p), and of
 *			rows as they were called before (kinds o and d), in the same
 *			columns; in mode reference the former identity as k0.. ; where a
 *			foreign key of the natural key references other columns than the
 *			parent's identity, o and d have its value as b<i> instead
 *	  m_N	the map that resolving makes of them: local identity l0.. ->
 *			remote identity r0.. ; v0.. is what the identity will be when the
 *			batch has been applied, w0.. what it was before, where others
 *			follow it.  Kind n: rows as they are now; o, d: as they were
 *			called before.  fresh: r is a value made for a row to
 *			be inserted.
 *
 * Because new rows get their identities while they are resolved, rows of
 * trees and cycles can refer to each other before any of them exists, and one
 * statement inserts them all: foreign keys are checked at its end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "applysql.h"

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

static const char *
column_name(const SynchroLinkTable *lt, int column)
{
	return quote_identifier(lt->table->columns[column].name);
}

/*
 * Append "left and right are equal", values of the remote's identity number i.
 */
static void
append_identity_equal(StringInfo sql, const SynchroLinkTable *lt, int i,
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
 * Append "the remote row alias is the one that mapped0.. names".
 */
void
synchro_sql_identity_equal(StringInfo sql, const SynchroLinkTable *lt,
						   const char *alias, const char *mapped)
{
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		appendStringInfoString(sql, i > 0 ? " AND " : "");
		append_identity_equal(sql, lt, i,
							  psprintf("%s.%s", alias, column_name(lt, lt->table->identity[i])),
							  psprintf("%s%d", mapped, i));
	}
}

bool
synchro_column_is_key(const SynchroTable *table, int column)
{
	for (int i = 0; i < table->nkey; i++)
		if (table->key[i] == column)
			return true;
	return false;
}

/*
 * The foreign key that translates a column, or -1 where its value is taken
 * as it is.
 */
int
synchro_column_fk(const SynchroLinkTable *lt, int column)
{
	int			fk = lt->table->columns[column].fk;

	return fk >= 0 && lt->parents[fk] != NULL ? fk : -1;
}

/*
 * Does a foreign key translate a column of the natural key?
 */
bool
synchro_fk_names_key(const SynchroLinkTable *lt, int fk)
{
	for (int i = 0; i < lt->table->nkey; i++)
		if (synchro_column_fk(lt, lt->table->key[i]) == fk)
			return true;
	return false;
}

/*
 * Position in the identity of the column with that attribute number, or -1.
 */
int
synchro_identity_position(const SynchroTable *table, AttrNumber attnum)
{
	for (int i = 0; i < table->nidentity; i++)
		if (table->columns[table->identity[i]].attnum == attnum)
			return i;
	return -1;
}

/*
 * Is a column of the identity a value like any other, beside one that a
 * sequence makes?  So is the partition key in a primary key.
 */
bool
synchro_identity_beside_sequence(const SynchroTable *table, int column)
{
	if (table->columns[column].from_sequence)
		return false;
	for (int i = 0; i < table->nidentity; i++)
		if (table->columns[table->identity[i]].from_sequence)
			return true;
	return false;
}

/*
 * Does a column of the identity take the value that it has here?  Else it is
 * the remote's own.
 */
bool
synchro_identity_is_value(const SynchroLinkTable *lt, int column)
{
	return synchro_column_is_key(lt->table, column) || synchro_column_fk(lt, column) >= 0 ||
		(lt->pushed[column] && synchro_identity_beside_sequence(lt->table, column));
}

static int
column_of_attnum(const SynchroTable *table, AttrNumber attnum)
{
	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].attnum == attnum)
			return i;
	elog(ERROR, "table %s has no attribute %d", table->qualified, attnum);
}

/*
 * Append the value of a column on the remote.
 *
 * source: alias of the staged row.  part: "r" or "v", which identity of the
 * parent's is meant.  The parents are joined by synchro_sql_join_parents().
 */
void
synchro_sql_value(StringInfo sql, const SynchroLinkTable *lt, int column,
				  const char *source, const char *part)
{
	int			fk = synchro_column_fk(lt, column);
	AttrNumber	refcol;
	int			position;

	if (fk < 0)
	{
		appendStringInfo(sql, "%s.c%d", source, column);
		return;
	}
	refcol = lt->table->fks[fk].refcols[lt->table->columns[column].fk_pos];
	position = synchro_identity_position(lt->parents[fk]->table, refcol);
	if (position >= 0)
		appendStringInfo(sql, "p%d.%s%d", fk, part, position);
	else
		appendStringInfo(sql, "t%d.%s", fk,
						 column_name(lt->parents[fk], column_of_attnum(lt->parents[fk]->table, refcol)));
}

/*
 * Does a foreign key reference other columns than the parent's identity?
 */
bool
synchro_fk_beyond_identity(const SynchroLinkTable *lt, int fk)
{
	for (int i = 0; i < lt->table->fks[fk].ncols; i++)
		if (synchro_identity_position(lt->parents[fk]->table, lt->table->fks[fk].refcols[i]) < 0)
			return true;
	return false;
}

/*
 * Append joins that give the mapped parents of a staged row: alias p<fk>, and
 * t<fk> for the remote row where more than its identity is referenced.
 */
void
synchro_sql_join_parents(StringInfo sql, const SynchroLinkTable *lt,
						 const char *source, bool key_only)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroLinkTable *parent = lt->parents[fk];

		if (parent == NULL || (key_only && !synchro_fk_names_key(lt, fk)))
			continue;
		appendStringInfo(sql, " LEFT JOIN pg_temp.m_%d p%d ON p%d.kind = 'n' AND ",
						 parent->number, fk, fk);
		synchro_sql_equal(sql, psprintf("p%d.l", fk), psprintf("%s.f%d_", source, fk),
						  parent->table->nidentity);
		if (synchro_fk_beyond_identity(lt, fk))
		{
			appendStringInfo(sql, " LEFT JOIN %s t%d ON ", parent->table->qualified, fk);
			synchro_sql_identity_equal(sql, parent, psprintf("t%d", fk), psprintf("p%d.r", fk));
		}
	}
}

/*
 * Append what a new session needs besides its settings: a function by which
 * plain SQL can raise an error.
 */
void
synchro_sql_session(StringInfo sql)
{
	appendStringInfoString(sql,
						   "CREATE FUNCTION pg_temp.synchro_raise(state text, message text, detail text) RETURNS void "
						   "LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION USING ERRCODE = state, MESSAGE = message, DETAIL = detail; END$$;");
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
			appendStringInfo(sql, " %s", lt->remote->columns[i].type);
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
			appendStringInfo(sql, " %s", lt->remote->columns[i].type);
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
	appendStringInfoString(sql, ") ON COMMIT DELETE ROWS;");
}

/*
 * Append the creation of a table's staging tables for names and for the map.
 */
void
synchro_sql_stage_names(StringInfo sql, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;

	appendStringInfo(sql, "CREATE TEMPORARY TABLE n_%d (kind \"char\"", lt->number);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, ", l%d %s", i, synchro_stage_type(table, i));
	for (int i = 0; i < table->nidentity && table->mode == SYNCHRO_MODE_REFERENCE; i++)
		appendStringInfo(sql, ", k%d text", i);
	append_staged_parents(sql, lt, true, true);
	append_staged_columns(sql, lt, true, true);
	append_staged_values(sql, lt, true);
	appendStringInfo(sql, ") ON COMMIT DELETE ROWS;CREATE TEMPORARY TABLE m_%d (kind \"char\", fresh boolean", lt->number);
	for (int i = 0; i < table->nidentity; i++)
	{
		const char *base = lt->remote->columns[table->identity[i]].base;

		appendStringInfo(sql, ", l%d %s, r%d %s, v%d %s, w%d %s", i, synchro_stage_type(table, i),
						 i, base, i, base, i, base);
	}
	appendStringInfoString(sql, ") ON COMMIT DELETE ROWS;");
}

/*
 * Append the COPY of rows: ensure, identity, parents, columns; see rowstream.c.
 */
void
synchro_sql_copy_rows(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "COPY pg_temp.s_%d (ensure, ", lt->number);
	synchro_sql_list(sql, "l", lt->table->nidentity);
	append_staged_parents(sql, lt, false, false);
	append_staged_columns(sql, lt, false, false);
	appendStringInfoString(sql, ") FROM STDIN;");

	/* a row that is there for its own sake need not be ensured */
	if (lt->nensured > 0 && lt->nensured < lt->nrows)
	{
		appendStringInfo(sql, "DELETE FROM pg_temp.s_%d e USING pg_temp.s_%d s WHERE e.ensure AND NOT s.ensure AND ",
						 lt->number, lt->number);
		synchro_sql_equal(sql, "e.l", "s.l", lt->table->nidentity);
		appendStringInfoChar(sql, ';');
	}
}

/*
 * Append the COPY of names: kind, identity, (reference: former identity,)
 * parents, key columns, values of key columns.
 */
void
synchro_sql_copy_names(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "COPY pg_temp.n_%d (kind, ", lt->number);
	synchro_sql_list(sql, "l", lt->table->nidentity);
	if (lt->table->mode == SYNCHRO_MODE_REFERENCE)
	{
		appendStringInfoString(sql, ", ");
		synchro_sql_list(sql, "k", lt->table->nidentity);
	}
	append_staged_parents(sql, lt, true, false);
	append_staged_columns(sql, lt, true, false);
	append_staged_values(sql, lt, false);
	appendStringInfoString(sql, ") FROM STDIN;");
}

/*
 * Append a check that the parents of all staged rows are there or about to
 * be.  If not, it raises SYNCHRO_MISSING_PARENTS with a line for each: the
 * parent table's number and its local identity as an array of text.
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
									   "string_agg(line, E'\\n')) FROM (");
			else
				appendStringInfoString(sql, " UNION ALL ");
			first = false;
			appendStringInfo(sql, "SELECT DISTINCT '%d ' || ARRAY[", parent->number);
			for (int x = 0; x < parent->table->nidentity; x++)
				appendStringInfo(sql, "%ss.f%d_%d::text", x > 0 ? ", " : "", fk, x);
			appendStringInfo(sql, "]::text AS line FROM pg_temp.s_%d s LEFT JOIN pg_temp.m_%d p ON p.kind = 'n' AND ",
							 lt->number, parent->number);
			synchro_sql_equal(sql, "p.l", psprintf("s.f%d_", fk), parent->table->nidentity);
			appendStringInfo(sql, " WHERE p.l0 IS NULL AND s.f%d_0 IS NOT NULL", fk);
		}
	}
	if (!first)
		appendStringInfoString(sql, ") x HAVING count(*) > 0;");
}

/*
 * May an existing row's column be written?
 */
bool
synchro_column_updatable(const SynchroLinkTable *lt, int column)
{
	if (!lt->pushed[column] || lt->remote->columns[column].identity == 'a')
		return false;

	return synchro_identity_position(lt->table, lt->table->columns[column].attnum) < 0 ||
		synchro_identity_is_value(lt, column);
}

static void
append_from_staged(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, " FROM pg_temp.s_%d s JOIN pg_temp.m_%d m ON m.kind = 'n' AND ",
					 lt->number, lt->number);
	synchro_sql_equal(sql, "m.l", "s.l", lt->table->nidentity);
	synchro_sql_join_parents(sql, lt, "s", false);
}

static bool
append_update(StringInfo sql, const SynchroLinkTable *lt)
{
	StringInfoData set;
	StringInfoData there;
	StringInfoData here;
	bool		any = false;

	initStringInfo(&set);
	initStringInfo(&there);
	initStringInfo(&here);
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		const char *comma = any ? ", " : "";

		if (!synchro_column_updatable(lt, i))
			continue;
		appendStringInfo(&set, "%s%s = ", comma, column_name(lt, i));
		synchro_sql_value(&set, lt, i, "s", "v");
		appendStringInfo(&there, "%st.%s", comma, column_name(lt, i));
		appendStringInfo(&here, "%sCAST(", comma);
		synchro_sql_value(&here, lt, i, "s", "v");
		appendStringInfo(&here, " AS %s)", lt->remote->columns[i].type);
		any = true;
	}
	if (!any)
		return false;

	/*
	 * Rows are compared as images, byte by byte: that works for every type,
	 * and 1.0 becomes 1.00 where that is what the row says here.  A foreign
	 * key's column may have another type than what it references.
	 */
	appendStringInfo(sql, "u%d AS (UPDATE %s t SET %s", lt->number, lt->table->qualified, set.data);
	append_from_staged(sql, lt);
	appendStringInfoString(sql, " WHERE NOT m.fresh AND NOT s.ensure AND ");
	synchro_sql_identity_equal(sql, lt, "t", "m.r");
	appendStringInfo(sql, " AND ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record RETURNING 1), ",
					 there.data, here.data);
	return true;
}

static void
append_insert(StringInfo sql, const SynchroLinkTable *lt)
{
	StringInfoData columns;
	StringInfoData values;
	bool		any = false;

	initStringInfo(&columns);
	initStringInfo(&values);
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		int			identity = synchro_identity_position(lt->table, lt->table->columns[i].attnum);

		if (identity < 0 && !lt->pushed[i])
			continue;
		appendStringInfo(&columns, "%s%s", any ? ", " : "", column_name(lt, i));
		appendStringInfoString(&values, any ? ", " : "");
		if (identity >= 0)
			appendStringInfo(&values, "m.v%d", identity);
		else
			synchro_sql_value(&values, lt, i, "s", "v");
		any = true;
	}
	appendStringInfo(sql, "i%d AS (INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s",
					 lt->number, lt->table->qualified, columns.data, values.data);
	append_from_staged(sql, lt);
	appendStringInfoString(sql, " WHERE m.fresh RETURNING 1)");
}

/*
 * Append the statement that makes the remote's rows of some tables as they
 * are here.  component: tables that refer to each other in a circle, or one.
 * Its result: for each table the numbers of rows updated and inserted.
 *
 * The updates come first, so that a new row may take what an existing one
 * gives up; both are parts of one statement, so that an existing row may
 * refer to a new one.
 */
void
synchro_sql_upsert(StringInfo sql, const SynchroLink *link, List *component)
{
	StringInfoData counts;
	ListCell   *cell;
	bool		first = true;

	initStringInfo(&counts);
	foreach(cell, component)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (lt->rows == NULL)
			continue;
		appendStringInfoString(sql, first ? "WITH " : ", ");
		appendStringInfo(&counts, "%s%s, (SELECT count(*) FROM i%d)", first ? "" : ", ",
						 append_update(sql, lt) ? psprintf("(SELECT count(*) FROM u%d)", lt->number) : "0",
						 lt->number);
		append_insert(sql, lt);
		first = false;
	}
	if (!first)
		appendStringInfo(sql, " SELECT '" SYNCHRO_UPSERT_TAG "', %s;", counts.data);
}

/*
 * Does a foreign key translate only columns of the identity, into the
 * parent's identity?
 */
static bool
fk_is_identity(const SynchroLinkTable *lt, int fk)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];

	for (int i = 0; i < key->ncols; i++)
		if (synchro_identity_position(lt->table, lt->table->columns[key->cols[i]].attnum) < 0 ||
			synchro_identity_position(lt->parents[fk]->table, key->refcols[i]) < 0)
			return false;
	return true;
}

/*
 * Append "the foreign key has ON UPDATE CASCADE on the remote".
 */
static void
append_cascades(StringInfo sql, const SynchroLinkTable *lt, int fk)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];

	appendStringInfo(sql, "EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = %s::regclass AND k.confrelid = %s::regclass"
					 " AND k.contype = 'f' AND k.confupdtype = 'c' AND cardinality(k.conkey) = %d",
					 quote_literal_cstr(lt->table->qualified),
					 quote_literal_cstr(lt->parents[fk]->table->qualified), key->ncols);
	for (int i = 0; i < key->ncols; i++)
		appendStringInfo(sql, " AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND a.attname = %s)",
						 quote_literal_cstr(lt->table->columns[key->cols[i]].name));
	appendStringInfoChar(sql, ')');
}

/*
 * Append the moves that the remote's ON UPDATE CASCADE made of a table's rows
 * when a parent's rows were renamed: from where the parent was at first, w,
 * to where it is now.
 */
static void
follow_parent(StringInfo sql, const SynchroLinkTable *lt, int fk)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];
	const SynchroLinkTable *parent = lt->parents[fk];

	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET ", lt->number);
	for (int i = 0; i < key->ncols; i++)
	{
		int			position = synchro_identity_position(parent->table, key->refcols[i]);

		appendStringInfo(sql, "%sr%d = CASE WHEN p.kind = 'n' THEN p.v%d ELSE p.r%d END", i > 0 ? ", " : "",
						 synchro_identity_position(lt->table, lt->table->columns[key->cols[i]].attnum),
						 position, position);
	}
	appendStringInfo(sql, " FROM pg_temp.m_%d p WHERE NOT m.fresh AND NOT p.fresh", parent->number);
	for (int i = 0; i < key->ncols; i++)
	{
		int			position = synchro_identity_position(parent->table, key->refcols[i]);

		appendStringInfo(sql, " AND p.w%d %s m.r%d", position,
						 parent->remote->columns[parent->table->identity[position]].equals,
						 synchro_identity_position(lt->table, lt->table->columns[key->cols[i]].attnum));
	}
	appendStringInfo(sql, " AND (p.kind = 'n' OR NOT EXISTS (SELECT FROM pg_temp.m_%d o WHERE o.kind = 'n' AND NOT o.fresh",
					 parent->number);
	for (int i = 0; i < parent->table->nidentity; i++)
	{
		appendStringInfoString(sql, " AND ");
		append_identity_equal(sql, parent, i, psprintf("o.w%d", i), psprintf("p.w%d", i));
	}
	appendStringInfoString(sql, ")) AND ");
	append_cascades(sql, lt, fk);
	appendStringInfoChar(sql, ';');
}

/*
 * Append that a table's rows are now where they were found, for
 * synchro_sql_follow() of tables that refer to it.
 */
void
synchro_sql_mark(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "UPDATE pg_temp.m_%d SET ", lt->number);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, "%sw%d = r%d", i > 0 ? ", " : "", i, i);
	appendStringInfoChar(sql, ';');
}

/*
 * Does the identity of a table's rows change with a parent's in this batch?
 */
bool
synchro_fk_moves(const SynchroLinkTable *lt, int fk)
{
	for (int i = 0; i < lt->table->nidentity; i++)
		if (synchro_column_fk(lt, lt->table->identity[i]) == fk)
			return lt->parents[fk]->nolds > 0;
	return false;
}

/*
 * Append a correction of the map for a table whose identity contains foreign
 * keys: if the remote has moved rows along with their parents, they are found
 * where they are now.  component: the tables that are written together with
 * this one, so whose rows have not moved yet.
 */
void
synchro_sql_follow(StringInfo sql, const SynchroLinkTable *lt, List *component)
{
	int			n = lt->table->nidentity;

	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (synchro_fk_moves(lt, fk) && fk_is_identity(lt, fk) &&
			!list_member_ptr(component, lt->parents[fk]))
			follow_parent(sql, lt, fk);

	/* whatever else has moved them */
	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET ", lt->number);
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%sr%d = v%d", i > 0 ? ", " : "", i, i);
	appendStringInfoString(sql, " WHERE NOT fresh AND ROW(");
	synchro_sql_list(sql, "r", n);
	appendStringInfoString(sql, ")::record OPERATOR(pg_catalog.*<>) ROW(");
	synchro_sql_list(sql, "v", n);
	appendStringInfo(sql, ")::record AND NOT EXISTS (SELECT FROM %s t WHERE ", lt->table->qualified);
	synchro_sql_identity_equal(sql, lt, "t", "m.r");
	appendStringInfoString(sql, ");");
}

/*
 * Append "SELECT the remote identities that nobody bears here any more".
 */
static void
append_doomed(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfoString(sql, "SELECT DISTINCT ");
	synchro_sql_list(sql, "r", lt->table->nidentity);
	appendStringInfo(sql, " FROM pg_temp.m_%d o WHERE o.kind IN ('" SYNCHRO_KIND_OLD "', '" SYNCHRO_KIND_DEAD "')"
					 " AND NOT EXISTS (SELECT FROM pg_temp.m_%d n WHERE n.kind = 'n' AND ",
					 lt->number, lt->number);
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		appendStringInfoString(sql, i > 0 ? " AND " : "");
		append_identity_equal(sql, lt, i, psprintf("n.r%d", i), psprintf("o.r%d", i));
	}
	appendStringInfoChar(sql, ')');
}

static void
append_remote_key(StringInfo sql, const SynchroLinkTable *lt, const char *prefix)
{
	appendStringInfoString(sql, "ARRAY[");
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, "%s%s%d::text", i > 0 ? ", " : "", prefix, i);
	appendStringInfoChar(sql, ']');
}

/*
 * Append the statement that deletes what is gone here, of tables that refer
 * to each other in a circle, or of one.
 *
 * leftovers: also what earlier batches of this pass left to the last one.
 * Its result: for each table the number of rows deleted.
 */
void
synchro_sql_delete(StringInfo sql, const SynchroLink *link, List *component, bool leftovers)
{
	StringInfoData counts;
	ListCell   *cell;
	bool		first = true;

	initStringInfo(&counts);
	foreach(cell, component)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (!lt->table->watched || (lt->nolds == 0 && !leftovers))
			continue;
		appendStringInfo(sql, "%sd%d AS (DELETE FROM %s t USING (", first ? "WITH " : ", ",
						 lt->number, lt->table->qualified);
		append_doomed(sql, lt);
		if (leftovers)
		{
			appendStringInfoString(sql, " UNION SELECT ");
			for (int i = 0; i < lt->table->nidentity; i++)
				appendStringInfo(sql, "%sremote_key[%d]::%s", i > 0 ? ", " : "", i + 1,
								 lt->remote->columns[lt->table->identity[i]].base);
			appendStringInfo(sql, " FROM %s.unapplied WHERE node = '%s' AND relation = %s",
							 link->peer, link->node, quote_literal_cstr(lt->table->qualified));
		}
		appendStringInfoString(sql, ") x WHERE ");
		synchro_sql_identity_equal(sql, lt, "t", "x.r");
		appendStringInfoString(sql, " RETURNING 1)");
		appendStringInfo(&counts, "%s(SELECT count(*) FROM d%d)", first ? "" : ", ", lt->number);
		first = false;
	}
	if (!first)
		appendStringInfo(sql, " SELECT '" SYNCHRO_DELETE_TAG "', %s;", counts.data);
}

/*
 * Append statements that leave a table's deletes to the pass's last batch:
 * until then, rows that refer to what is to be deleted may still be on their
 * way elsewhere.  A row that is wanted again is taken off the list.
 */
void
synchro_sql_postpone(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);

	if (!lt->table->watched)
		return;
	if (lt->nolds > 0)
	{
		appendStringInfo(sql, "INSERT INTO %s.unapplied (node, relation, operation, remote_key) SELECT '%s', %s, 'delete', ",
						 link->peer, link->node, relation);
		append_remote_key(sql, lt, "x.r");
		appendStringInfoString(sql, " FROM (");
		append_doomed(sql, lt);
		appendStringInfoString(sql, ") x;");
	}
	if (lt->rows != NULL)
	{
		appendStringInfo(sql, "DELETE FROM %s.unapplied u USING pg_temp.m_%d m WHERE u.node = '%s' AND u.relation = %s"
						 " AND m.kind = 'n' AND u.remote_key OPERATOR(pg_catalog.=) ",
						 link->peer, lt->number, link->node, relation);
		append_remote_key(sql, lt, "m.r");
		appendStringInfoChar(sql, ';');
	}
}

/*
 * Append "the row of the map m will have another identity on the remote".
 */
static void
append_moved(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfoString(sql, "ROW(");
	synchro_sql_list(sql, "m.r", lt->table->nidentity);
	appendStringInfoString(sql, ")::record OPERATOR(pg_catalog.*<>) ROW(");
	synchro_sql_list(sql, "m.v", lt->table->nidentity);
	appendStringInfoString(sql, ")::record");
}

/*
 * Append statements that remember which remote row stands for which local
 * one, where no natural key tells: new rows in mode reference, and rows of
 * tables that are not watched whose natural key has changed here only.
 */
void
synchro_sql_references(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);
	bool		by_reference = lt->table->mode == SYNCHRO_MODE_REFERENCE;

	if (!by_reference && lt->table->watched)
		return;
	if (lt->nolds > 0 && by_reference)
	{
		/* LIMIT: one look into the index for each, whatever the statistics say */
		appendStringInfo(sql, "DELETE FROM %s.reference x USING pg_temp.n_%d q, LATERAL (SELECT y.ctid AS place FROM %s.reference y"
						 " WHERE y.node = '%s' AND y.relation = %s AND y.local_key OPERATOR(pg_catalog.=) ",
						 link->peer, lt->number, link->peer, link->node, relation);
		append_remote_key(sql, lt, "q.k");
		appendStringInfoString(sql, " LIMIT 1) y WHERE x.ctid = y.place AND q.kind IN ('" SYNCHRO_KIND_OLD "', '" SYNCHRO_KIND_DEAD "')");
		appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM pg_temp.m_%d m WHERE m.kind = 'n' AND ", lt->number);
		for (int i = 0; i < lt->table->nidentity; i++)
			appendStringInfo(sql, "%sm.l%d::text = q.k%d", i > 0 ? " AND " : "", i, i);
		appendStringInfoString(sql, ");");
	}
	if (lt->nolds > 0 && !by_reference)
	{
		/* its id may be another's next time */
		appendStringInfo(sql, "DELETE FROM %s.reference x USING pg_temp.n_%d q WHERE x.node = '%s' AND x.relation = %s"
						 " AND q.kind = '" SYNCHRO_KIND_DEAD "' AND x.local_key OPERATOR(pg_catalog.=) ",
						 link->peer, lt->number, link->node, relation);
		append_remote_key(sql, lt, "q.l");
		appendStringInfoChar(sql, ';');
	}
	if (lt->rows == NULL && lt->nolds == 0)
		return;
	appendStringInfo(sql, "INSERT INTO %s.reference (node, relation, local_key, remote_key) SELECT '%s', %s, ",
					 link->peer, link->node, relation);
	append_remote_key(sql, lt, "m.l");
	appendStringInfoString(sql, ", ");
	append_remote_key(sql, lt, by_reference ? "m.v" : "m.r");
	appendStringInfo(sql, " FROM pg_temp.m_%d m WHERE ", lt->number);
	if (!by_reference)
		appendStringInfoString(sql, "m.kind = '" SYNCHRO_KIND_OLD "'");
	else
	{
		appendStringInfoString(sql, "m.kind = 'n' AND (m.fresh OR ");
		append_moved(sql, lt);
		if (lt->nolds > 0)
		{
			appendStringInfo(sql, " OR EXISTS (SELECT FROM pg_temp.m_%d o WHERE o.kind = '"
							 SYNCHRO_KIND_OLD "' AND ", lt->number);
			synchro_sql_equal(sql, "o.l", "m.l", lt->table->nidentity);
			appendStringInfoChar(sql, ')');
		}
		appendStringInfoChar(sql, ')');
	}
	appendStringInfoString(sql, " ON CONFLICT (node, relation, local_key) DO UPDATE SET remote_key = EXCLUDED.remote_key;");
}
