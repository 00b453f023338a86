/*-------------------------------------------------------------------------
 *
 * previewsql.c
 *	  SQL text that says what a batch does to each row.
 *
 * A preview runs the batches of a pass, each of them between a savepoint and
 * its release, in one transaction of the remote that is rolled back in the
 * end: so each batch finds what those before it have done, and a part that
 * fails is undone alone.  Beside what a batch does anyway stand these
 * statements, which say of each row what is about to be done to it.
 *
 *	  x_N	what the staged rows and names of table N are called: by their
 *			natural key, in which foreign keys stand for the name of the row
 *			that they reference, as verify() calls them.  Kind n: now; o, d, g:
 *			before
 *	  synchro_gone
 *			what was called so whose delete is left to the last batch
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "previewsql.h"
#include "resolvejoin.h"

/* values are shown up to so many characters */
#define SHOWN_LENGTH	"40"

/* from that many rows on the planner is told how many there are; as in batchscript.c */
#define ANALYZE_ROWS	500

/* a stamp of the log as text */
#define STAMP_TEXT(stamp) \
	"('2000-01-01 00:00:00+00'::timestamptz + " stamp "::float8 * interval '1 microsecond')::text"

/*
 * Append what a new session needs besides synchro_sql_session().
 */
void
synchro_sql_preview_session(StringInfo sql)
{
	appendStringInfoString(sql,
						   "CREATE TEMPORARY TABLE synchro_gone (relation text, remote_key text[], name text);"
						   "CREATE INDEX ON pg_temp.synchro_gone (remote_key);"
						   "CREATE FUNCTION pg_temp.synchro_shown(v text, category \"char\") RETURNS text LANGUAGE sql IMMUTABLE AS"
						   " $$SELECT CASE WHEN v IS NULL THEN 'NULL' WHEN pg_catalog.length(v) > " SHOWN_LENGTH " THEN pg_catalog.quote_literal(pg_catalog.left(v, " SHOWN_LENGTH ") || '...')"
						   " WHEN category IN ('N', 'B') THEN v ELSE pg_catalog.quote_literal(v) END$$;");
}

/*
 * Append the creation of a table's staging table for what rows are called.
 */
void
synchro_sql_preview_stage(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "CREATE TEMPORARY TABLE x_%d (kind \"char\", name text", lt->number);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, ", l%d %s", i, synchro_stage_type(lt->table, i));
	appendStringInfoString(sql, ");");
}

/*
 * Append the staged columns that names are made of, of rows or of names.
 */
static void
append_key_columns(StringInfo sql, const SynchroLinkTable *lt, bool of_rows)
{
	synchro_sql_list(sql, "l", lt->table->nidentity);
	for (int i = 0; i < lt->table->nkey; i++)
	{
		int			column = lt->table->key[i];
		int			fk = synchro_column_fk(lt, column);

		if (fk < 0)
			appendStringInfo(sql, ", %s AS c%d", synchro_sql_remote_text(lt, column, psprintf("c%d", column)), column);
		else if (synchro_fk_beyond_identity(lt, fk))
			appendStringInfo(sql, ", %s AS b%d",
							 of_rows ? "NULL::text" : synchro_sql_remote_text(lt, column, psprintf("b%d", column)), column);
	}
	for (int fk = 0; fk < lt->table->nfks; fk++)
		for (int x = 0; lt->parents[fk] != NULL && synchro_fk_names_key(lt, fk) && x < lt->parents[fk]->table->nidentity; x++)
			appendStringInfo(sql, ", f%d_%d", fk, x);
}

/*
 * Append a query of all that is staged of a table and has a name.
 */
static void
append_named(StringInfo sql, const SynchroLinkTable *lt)
{
	if (lt->rows != NULL)
	{
		appendStringInfoString(sql, "SELECT 'n'::\"char\" AS kind, ");
		append_key_columns(sql, lt, true);
		appendStringInfo(sql, " FROM pg_temp.s_%d", lt->number);
	}
	if (lt->nnames > 0)
	{
		/* what is both a row and a name is the same in both */
		appendStringInfo(sql, "%sSELECT CASE kind WHEN '" SYNCHRO_KIND_PRESENT "' THEN 'n' ELSE kind END AS kind, ",
						 lt->rows != NULL ? " UNION " : "");
		append_key_columns(sql, lt, false);
		appendStringInfo(sql, " FROM pg_temp.n_%d WHERE kind <> '" SYNCHRO_KIND_WAITING "'", lt->number);
	}
}

/*
 * Append joins of what the parents in a key are called: a<fk> now, b<fk>
 * before.  except: not that foreign key.
 */
static void
append_parents(StringInfo sql, const SynchroLinkTable *lt, const char *source, bool key_only, bool before, int except)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroLinkTable *parent = lt->parents[fk];

		if (parent == NULL || fk == except || (key_only && !synchro_fk_names_key(lt, fk)))
			continue;
		for (int old = 0; old <= (before ? 1 : 0); old++)
		{
			char	   *alias = psprintf("%s%d", old ? "b" : "a", fk);

			appendStringInfoString(sql, " LEFT JOIN (SELECT DISTINCT ON (");
			synchro_sql_list(sql, "l", parent->table->nidentity);
			appendStringInfo(sql, ") * FROM pg_temp.x_%d WHERE kind %s " SYNCHRO_OLD_KINDS " ORDER BY ", parent->number, old ? "IN" : "NOT IN");
			synchro_sql_list(sql, "l", parent->table->nidentity);
			appendStringInfo(sql, ", kind DESC) %s ON ", alias);
			synchro_sql_equal(sql, psprintf("%s.l", alias), psprintf("%s.f%d_", source, fk), parent->table->nidentity);
		}
	}
}

/*
 * Append what the row q is called.  above: what its parent in a tree is called,
 * as SQL, by the foreign key self.
 */
static void
append_name(StringInfo sql, const SynchroLinkTable *lt, int self, const char *above)
{
	const SynchroTable *table = lt->table;
	Bitmapset  *done = NULL;
	bool		any = false;

	if (table->mode == SYNCHRO_MODE_REFERENCE)
	{
		appendStringInfoString(sql, "pg_catalog.concat_ws(', ', ");
		synchro_sql_list(sql, "q.l", table->nidentity);
		appendStringInfoChar(sql, ')');
		return;
	}
	appendStringInfoString(sql, "pg_catalog.array_to_string(ARRAY[");
	for (int i = 0; i < table->nkey; i++)
	{
		int			column = table->key[i];
		int			fk = synchro_column_fk(lt, column);

		if (fk >= 0 && bms_is_member(fk, done))
			continue;
		appendStringInfoString(sql, any ? ", " : "");
		any = true;
		if (fk < 0)
			appendStringInfo(sql, "coalesce(q.c%d, 'NULL')", column);
		else if (fk == self)
			appendStringInfoString(sql, above);
		else
		{
			appendStringInfo(sql, "CASE WHEN q.kind IN " SYNCHRO_OLD_KINDS " THEN coalesce(b%d.name, a%d.name%s) ELSE a%d.name END",
							 fk, fk, synchro_fk_beyond_identity(lt, fk) ? psprintf(", q.b%d", column) : "", fk);
			done = bms_add_member(done, fk);
		}
	}
	appendStringInfoString(sql, "]::text[], ', ')");
}

/*
 * Names in a tree: from the roots down.
 */
static void
append_tree_names(StringInfo sql, const SynchroLinkTable *lt, int self)
{
	int			n = lt->table->nidentity;

	appendStringInfoString(sql, "WITH RECURSIVE q AS (");
	append_named(sql, lt);
	appendStringInfoString(sql, "), w AS (SELECT q.kind, ");
	synchro_sql_list(sql, "q.l", n);
	appendStringInfoString(sql, ", ");
	append_name(sql, lt, self, "NULL");
	appendStringInfoString(sql, " AS name FROM q");
	append_parents(sql, lt, "q", true, true, self);
	appendStringInfo(sql, " WHERE q.f%d_0 IS NULL UNION ALL SELECT q.kind, ", self);
	synchro_sql_list(sql, "q.l", n);
	appendStringInfoString(sql, ", ");
	append_name(sql, lt, self, "w.name");
	appendStringInfoString(sql, " FROM w JOIN q ON ");
	synchro_sql_equal(sql, psprintf("q.f%d_", self), "w.l", n);

	/* below what its parent was called before, if that was otherwise */
	appendStringInfoString(sql, " AND w.kind <> '" SYNCHRO_KIND_GONE "' AND (w.kind = 'n') = (q.kind = 'n' OR NOT EXISTS (SELECT FROM q z"
						   " WHERE z.kind IN ('" SYNCHRO_KIND_OLD "', '" SYNCHRO_KIND_DEAD "') AND ");
	synchro_sql_equal(sql, "z.l", psprintf("q.f%d_", self), n);
	appendStringInfoString(sql, "))");
	append_parents(sql, lt, "q", true, true, self);
	appendStringInfoString(sql, ") SELECT DISTINCT ON (kind, ");
	synchro_sql_list(sql, "l", n);
	appendStringInfoString(sql, ") kind, ");
	synchro_sql_list(sql, "l", n);
	appendStringInfoString(sql, ", name FROM w;");
}

/*
 * Append the statement that finds what staged rows and names are called.  Its
 * parents in the key have been named before.
 */
void
synchro_sql_preview_names(StringInfo sql, const SynchroLinkTable *lt)
{
	int			self = synchro_resolve_self_fk_in_key(lt);
	int			n = lt->table->nidentity;

	if (lt->rows == NULL && lt->nnames == 0)
		return;
	appendStringInfo(sql, "INSERT INTO pg_temp.x_%d (kind, ", lt->number);
	synchro_sql_list(sql, "l", n);
	appendStringInfoString(sql, ", name) ");
	if (self >= 0 && lt->table->mode != SYNCHRO_MODE_REFERENCE)
		append_tree_names(sql, lt, self);
	else
	{
		appendStringInfoString(sql, "SELECT DISTINCT ON (q.kind, ");
		synchro_sql_list(sql, "q.l", n);
		appendStringInfoString(sql, ") q.kind, ");
		synchro_sql_list(sql, "q.l", n);
		appendStringInfoString(sql, ", ");
		append_name(sql, lt, -1, NULL);
		appendStringInfoString(sql, " FROM (");
		append_named(sql, lt);
		appendStringInfoString(sql, ") q");
		if (lt->table->mode != SYNCHRO_MODE_REFERENCE)
			append_parents(sql, lt, "q", true, true, -1);
		appendStringInfoChar(sql, ';');
	}
	if (lt->nrows + lt->nnames >= ANALYZE_ROWS)
		appendStringInfo(sql, "ANALYZE pg_temp.x_%d;", lt->number);
}

/*
 * Append the question what the only staged row of a table is called.
 */
void
synchro_sql_preview_name(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "SELECT '" SYNCHRO_PREVIEW_TAG "', x.name FROM pg_temp.s_%d s JOIN pg_temp.x_%d x ON x.kind = 'n' AND ",
					 lt->number, lt->number);
	synchro_sql_equal(sql, "x.l", "s.l", lt->table->nidentity);
	appendStringInfoString(sql, " LIMIT 1;");
}

/*
 * Append the beginning of a result.  distinct: DISTINCT ON or nothing.  key and
 * detail: SQL.
 */
static void
append_result(StringInfo sql, const SynchroLinkTable *lt, const char *distinct, const char *key, const char *action, const char *detail)
{
	appendStringInfo(sql, "SELECT %s'" SYNCHRO_PREVIEW_TAG "', %d, %s, %s, %s", distinct, lt->number, key, action, detail);
}

static void
append_name_join(StringInfo sql, const SynchroLinkTable *lt, const char *kind, const char *identity)
{
	appendStringInfo(sql, " LEFT JOIN pg_temp.x_%d x ON x.kind = %s AND ", lt->number, kind);
	synchro_sql_equal(sql, "x.l", identity, lt->table->nidentity);
}

/*
 * Append what has lost, rows and deletes, before it is taken out of the batch.
 */
void
synchro_sql_preview_losers(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	if (!lt->decides)
		return;
	if (lt->rows != NULL)
	{
		append_result(sql, lt, "", "x.name", "'skip'",
					  "'changed here ' || " STAMP_TEXT("m.stamp") " || CASE WHEN m.fresh THEN ', deleted on the remote later, ' ELSE ', changed on the remote later, ' END || "
					  STAMP_TEXT("m.there"));
		appendStringInfo(sql, " FROM pg_temp.m_%d m JOIN pg_temp.s_%d s ON ", lt->number, lt->number);
		synchro_sql_equal(sql, "s.l", "m.l", n);
		append_name_join(sql, lt, "'n'", "m.l");
		appendStringInfoString(sql, " WHERE m.kind = 'n' AND m.verdict = 'l';");
	}
	append_result(sql, lt, "", "x.name", "'skip'",
				  "'deleted here ' || " STAMP_TEXT("m.stamp") " || ', changed on the remote later, ' || " STAMP_TEXT("m.there"));
	appendStringInfo(sql, " FROM pg_temp.m_%d m", lt->number);
	append_name_join(sql, lt, "m.kind", "m.l");
	appendStringInfo(sql, " WHERE m.kind IN " SYNCHRO_OLD_KINDS " AND m.verdict IN ('l', 'k') AND NOT EXISTS (SELECT FROM pg_temp.m_%d y"
					 " WHERE y.kind = 'n' AND y.verdict = 'l' AND ", lt->number);
	synchro_sql_same_row(sql, lt, "y.r", "m.r");
	appendStringInfoString(sql, ");");
}

/*
 * Append the columns in which the remote row t differs from the staged one, as
 * an array of text, with NULLs for the others.  False if there are none that
 * are written.
 */
static bool
append_differences(StringInfo sql, const SynchroLinkTable *lt)
{
	bool		any = false;

	appendStringInfoString(sql, "ARRAY[");
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		const char *comma = any ? ", " : "";
		const char *said = quote_literal_cstr(lt->table->columns[i].name);
		int			fk = synchro_column_fk(lt, i);
		StringInfoData value;

		if (!synchro_column_updatable(lt, i))
			continue;
		initStringInfo(&value);
		appendStringInfoString(&value, "CAST(");
		synchro_sql_value(&value, lt, i, "s", "v");
		appendStringInfo(&value, " AS %s)", lt->remote->columns[i].staged);
		appendStringInfo(sql, "%sCASE WHEN ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record THEN %s || ", comma,
						 synchro_sql_stored(lt, i), value.data, said);

		/* ids of the remote's say nothing, in particular those made up for new rows */
		if (fk >= 0)
			appendStringInfo(sql, "' -> ' || coalesce(quote_literal(a%d.name), 'NULL') END", fk);
		else
			appendStringInfo(sql, "': ' || pg_temp.synchro_shown(%s, '%c') || ' -> ' || pg_temp.synchro_shown(%s, '%c') END",
							 synchro_sql_remote_column(lt, i, "t"), lt->remote->columns[i].category,
							 synchro_sql_remote_text(lt, i, value.data), lt->remote->columns[i].category);
		any = true;
	}
	appendStringInfoString(sql, "]::text[]");
	return any;
}

/*
 * Append which rows of a table are about to be inserted, and which updated.
 */
void
synchro_sql_preview_changes(StringInfo sql, const SynchroLinkTable *lt)
{
	StringInfoData differences;
	StringInfoData distinct;

	if (lt->rows == NULL)
		return;
	append_result(sql, lt, "", "x.name", "'insert'", "CASE WHEN s.ensure THEN 'rows that refer to it need it' END");
	synchro_sql_from_staged(sql, lt);
	append_name_join(sql, lt, "'n'", "s.l");
	appendStringInfoString(sql, " WHERE m.fresh;");

	initStringInfo(&differences);
	if (!append_differences(&differences, lt))
		return;
	appendStringInfoString(sql, SYNCHRO_SQL_PINNED);

	/* if several staged rows have been found to be one, that is written once */
	initStringInfo(&distinct);
	appendStringInfoString(&distinct, "DISTINCT ON (");
	synchro_sql_list(&distinct, "m.r", lt->table->nidentity);
	appendStringInfoString(&distinct, ") ");
	append_result(sql, lt, distinct.data, "x.name", "'update'", psprintf("pg_catalog.array_to_string(%s, ', ')", differences.data));
	synchro_sql_from_staged(sql, lt);
	append_parents(sql, lt, "s", false, false, -1);
	append_name_join(sql, lt, "'n'", "s.l");
	appendStringInfo(sql, " JOIN %s t ON ", lt->remote->rows);
	synchro_sql_identity_equal(sql, lt, "t", "m.r");
	appendStringInfoString(sql, " WHERE NOT m.fresh AND NOT s.ensure AND ");
	synchro_sql_differs(sql, lt);
	appendStringInfoString(sql, ";" SYNCHRO_SQL_AS_ROLE);
}

/*
 * Append what keeps the names of rows that are to be deleted, for the last
 * batch.
 */
void
synchro_sql_preview_gone(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	if (lt->nolds == 0 || !lt->table->watched)
		return;
	appendStringInfo(sql, "INSERT INTO pg_temp.synchro_gone SELECT %s, ", quote_literal_cstr(lt->table->qualified));
	synchro_sql_remote_key(sql, lt, "o.r");
	appendStringInfoString(sql, ", pg_catalog.max(x.name) FROM (");
	synchro_sql_doomed(sql, lt);
	appendStringInfo(sql, ") d JOIN pg_temp.m_%d o ON o.kind IN " SYNCHRO_OLD_KINDS, lt->number);
	appendStringInfoString(sql, " AND ");
	synchro_sql_same_row(sql, lt, "o.r", "d.r");
	appendStringInfo(sql, " JOIN pg_temp.x_%d x ON x.kind = o.kind AND ", lt->number);
	synchro_sql_equal(sql, "x.l", "o.l", n);
	appendStringInfoString(sql, " GROUP BY 2;");
}

/*
 * What the remote's row t with the key k was called here, as SQL.  Of a delete
 * that an earlier pass has left, no name was kept: then what the row is called
 * there, unless others are part of that.
 */
static char *
gone_name(const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	StringInfoData there;

	initStringInfo(&there);
	for (int i = 0; i < table->nkey; i++)
	{
		if (synchro_column_fk(lt, table->key[i]) >= 0)
			return "coalesce(g.name, 'remote ' || pg_catalog.array_to_string(k.key, ', ', 'NULL'))";
		appendStringInfo(&there, "%s%s", i > 0 ? ", " : "", synchro_sql_remote_column(lt, table->key[i], "t"));
	}
	if (table->nkey == 0)
		return "coalesce(g.name, 'remote ' || pg_catalog.array_to_string(k.key, ', ', 'NULL'))";
	return psprintf("coalesce(g.name, pg_catalog.array_to_string(ARRAY[%s], ', ', 'NULL'))", there.data);
}

static void
append_gone_join(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, " LEFT JOIN LATERAL (SELECT name FROM pg_temp.synchro_gone WHERE relation = %s AND remote_key OPERATOR(pg_catalog.=) k.key LIMIT 1) g ON true",
					 quote_literal_cstr(lt->table->qualified));
}

/*
 * Append which rows are about to be deleted.
 */
void
synchro_sql_preview_deletes(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, bool leftovers)
{
	if (!lt->table->watched || (lt->nolds == 0 && !leftovers))
		return;
	append_result(sql, lt, "", gone_name(lt), "'delete'", "NULL");
	appendStringInfoString(sql, " FROM (SELECT DISTINCT ");
	synchro_sql_list(sql, "y.r", lt->table->nidentity);
	appendStringInfoString(sql, " FROM (");
	synchro_sql_condemned(sql, link, lt, leftovers);
	appendStringInfo(sql, ") y) x JOIN %s t ON ", lt->remote->rows);
	synchro_sql_identity_equal(sql, lt, "t", "x.r");
	appendStringInfoString(sql, " CROSS JOIN LATERAL (SELECT ");
	synchro_sql_remote_key(sql, lt, "x.r");
	appendStringInfoString(sql, ") k(key)");
	append_gone_join(sql, lt);
	appendStringInfoChar(sql, ';');
}

/*
 * Append what is shown of a table's deletes that were tried one by one.
 */
static void
append_apart(StringInfo sql, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;

	append_result(sql, lt, "", gone_name(lt), "CASE WHEN x.state IS NULL THEN 'delete' ELSE 'fail' END", "x.state || ': ' || x.message");

	/* the statement still sees what it has deleted; what was not there is nothing */
	appendStringInfo(sql, " FROM x CROSS JOIN LATERAL (SELECT x.remote_key) k(key) JOIN %s t ON ", lt->remote->rows);
	for (int i = 0; i < table->nidentity; i++)
	{
		appendStringInfoString(sql, i > 0 ? " AND " : "");
		synchro_sql_value_equal(sql, lt, i, psprintf("t.%s", synchro_column_name(lt, table->identity[i])),
								synchro_sql_remote_value(lt, table->identity[i], psprintf("x.remote_key[%d]", i + 1)));
	}
	append_gone_join(sql, lt);
	appendStringInfo(sql, " WHERE x.number = %d", lt->number);
}

/*
 * Append a statement that tries deletes one by one, and says of each how it
 * has fared.  tables: see synchro_sql_try_deletes().
 */
void
synchro_sql_preview_apart(StringInfo sql, const SynchroLink *link, List *tables)
{
	ListCell   *cell;

	synchro_sql_try_deletes(sql, link, tables);
	foreach(cell, tables)
	{
		appendStringInfoString(sql, cell != list_head(tables) ? " UNION ALL " : " ");
		append_apart(sql, lfirst(cell));
	}
	appendStringInfoChar(sql, ';');
}

/*
 * Append the end of a batch.  keep: what it did is what the next one finds;
 * else it was only tried.  The settings are the session's again.
 */
void
synchro_sql_preview_end(StringInfo sql, bool keep)
{
	if (keep)
		appendStringInfoString(sql, SYNCHRO_SQL_PINNED "SET LOCAL search_path = pg_catalog, pg_temp;RELEASE SAVEPOINT synchro_batch");
	else
		appendStringInfoString(sql, SYNCHRO_PREVIEW_UNDO);
}
