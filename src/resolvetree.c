/*-------------------------------------------------------------------------
 *
 * resolvetree.c
 *	  SQL text that finds the remote rows of a tree.
 *
 * A table whose natural key contains a reference to itself (a path in a
 * tree) is resolved by a recursive query, from the roots down: a row is found
 * by its parent, which has been found before, and by the rest of its key.
 * Names of before and of now are resolved at once, since a row whose own name
 * stayed may stand below one that was renamed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"
#include "resolvejoin.h"
#include "resolvetree.h"

/*
 * Append the columns of a name: foreign keys in the natural key, and what else
 * is in that.
 */
static void
append_name_columns(StringInfo sql, const SynchroLinkTable *lt, const char *source)
{
	const SynchroTable *table = lt->table;
	const char *comma = "";

	for (int fk = 0; fk < table->nfks; fk++)
		for (int x = 0; lt->parents[fk] != NULL && synchro_fk_names_key(lt, fk) &&
			 x < lt->parents[fk]->table->nidentity; x++)
		{
			appendStringInfo(sql, "%s%sf%d_%d", comma, source, fk, x);
			comma = ", ";
		}
	for (int i = 0; i < table->nkey; i++)
		if (synchro_column_fk(lt, table->key[i]) < 0)
			appendStringInfo(sql, ", %sc%d", source, table->key[i]);
}

/*
 * The columns that staged rows and names have in common: identity and name.
 */
static char *
tree_columns(const SynchroLinkTable *lt)
{
	StringInfoData columns;

	initStringInfo(&columns);
	synchro_sql_list(&columns, "l", lt->table->nidentity);
	appendStringInfoString(&columns, ", ");
	append_name_columns(&columns, lt, "");
	return columns.data;
}

/*
 * Append "AND the row n is not called as one of old, of which that is true".
 */
static void
append_not_called_as(StringInfo sql, const SynchroLinkTable *lt, const char *which)
{
	appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM old WHERE %s AND ROW(", which);
	append_name_columns(sql, lt, "old.");
	appendStringInfoString(sql, ")::record OPERATOR(pg_catalog.=) ROW(");
	append_name_columns(sql, lt, "n.");
	appendStringInfoString(sql, ")::record)");
}

/*
 * Append q, the names by which rows are looked for: those of before, those
 * that rows keep which wait, and of the other rows those of now.  A row that is
 * called so now as one that waits is called there still, or as one was called
 * that is in the batch with another name, is another row, so not there; nor is
 * what stands below it.
 */
static void
append_tree_names(StringInfo sql, const SynchroLinkTable *lt)
{
	const char *columns = tree_columns(lt);

	appendStringInfo(sql, "WITH RECURSIVE old AS (SELECT kind, %s FROM pg_temp.n_%d n WHERE kind IN ('o', 'd', 'g')", columns, lt->number);
	if (lt->nwaiting > 0)
	{
		appendStringInfo(sql, " OR kind = '" SYNCHRO_KIND_WAITING "' AND NOT EXISTS (SELECT FROM pg_temp.n_%d o WHERE o.kind = '" SYNCHRO_KIND_OLD "' AND ", lt->number);
		synchro_sql_equal(sql, "o.l", "n.l", lt->table->nidentity);
		appendStringInfoChar(sql, ')');
	}
	appendStringInfo(sql, "), q AS (SELECT kind, %s FROM old UNION ALL SELECT 'x', %s FROM (SELECT %s FROM pg_temp.n_%d WHERE kind = 'p'",
					 columns, columns, columns, lt->number);

	/* of a tree that is only referred to there may be no staging table for rows */
	if (lt->rows != NULL)
		appendStringInfo(sql, " UNION SELECT %s FROM pg_temp.s_%d", columns, lt->number);
	appendStringInfoString(sql, ") n WHERE NOT EXISTS (SELECT FROM old WHERE kind <> 'g' AND ");
	synchro_sql_equal(sql, "old.l", "n.l", lt->table->nidentity);
	appendStringInfoChar(sql, ')');
	if (lt->nwaiting > 0)
		append_not_called_as(sql, lt, "kind = '" SYNCHRO_KIND_WAITING "'");
	if (lt->nolds > 0 && lt->rows != NULL)
	{
		StringInfoData renamed;

		initStringInfo(&renamed);
		appendStringInfo(&renamed, "kind = '" SYNCHRO_KIND_OLD "' AND EXISTS (SELECT FROM pg_temp.s_%d i WHERE ", lt->number);
		synchro_sql_equal(&renamed, "i.l", "old.l", lt->table->nidentity);
		appendStringInfoChar(&renamed, ')');
		append_not_called_as(sql, lt, renamed.data);
	}
	appendStringInfoString(sql, "), ");
}

/*
 * Position in the identity of what a key column references in the row above, by
 * the foreign key of a tree.
 */
static int
identity_above(const SynchroLinkTable *lt, int column, int fk)
{
	const SynchroColumn *here = &lt->table->columns[column];
	int			position = synchro_identity_position(lt->table, lt->table->fks[fk].refcols[here->fk_pos]);

	if (position < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("rows of table %s cannot be found on the remote", lt->table->qualified),
				 errdetail("Column \"%s\" of its natural key references another row of it by a column that is an id, and not in the primary key.",
						   here->name),
				 errhint("Let a foreign key in a natural key reference the primary key.")));
	return position;
}

/*
 * Append the join of the names q with the remote's rows t: the roots, or
 * those below the rows x that have been found.
 */
static void
append_tree_join(StringInfo sql, const SynchroLinkTable *lt, int self, bool roots)
{
	const SynchroTable *table = lt->table;

	synchro_resolve_join_parents_before(sql, lt, "q", self);
	appendStringInfo(sql, " JOIN %s t ON ", lt->remote->rows);
	for (int i = 0; i < table->nkey; i++)
	{
		int			column = table->key[i];
		const char *name = synchro_column_name(lt, column);
		int			fk = synchro_column_fk(lt, column);

		appendStringInfoString(sql, i > 0 ? " AND " : "");
		if (fk == self && roots)
			appendStringInfo(sql, "t.%s IS NULL", name);
		else if (fk == self)
			appendStringInfo(sql, "t.%s %s x.r%d", name, lt->remote->columns[column].equals, identity_above(lt, column, fk));
		else if (table->columns[column].not_null)
			appendStringInfo(sql, "t.%s %s %s", name, lt->remote->columns[column].equals,
							 synchro_resolve_key_value(lt, column, "q", SYNCHRO_PARENT_BEFORE));
		else
		{
			/* a parent that is not there yet has no value, and is none the less named */
			appendStringInfo(sql, "(t.%s %s %s OR (t.%s " SYNCHRO_SQL_IS_NULL " AND %s " SYNCHRO_SQL_IS_NULL "))",
							 name, lt->remote->columns[column].equals,
							 synchro_resolve_key_value(lt, column, "q", SYNCHRO_PARENT_BEFORE),
							 name, synchro_resolve_key_null(lt, column, "q", SYNCHRO_PARENT_BEFORE));
		}
	}
}

/*
 * Names of before and of now -> m: kinds o, d and w as usual, x for what bears
 * its name since before.  self: the foreign key that makes it a tree.
 */
void
synchro_resolve_tree(StringInfo sql, const SynchroLinkTable *lt, int self)
{
	const SynchroTable *table = lt->table;
	int			n = table->nidentity;

	synchro_resolve_insert_head(sql, lt, "");
	append_tree_names(sql, lt);
	appendStringInfoString(sql, "x AS (SELECT q.kind, ");
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "q.l%d, t.%s AS r%d%s", i, synchro_column_name(lt, table->identity[i]), i, i < n - 1 ? ", " : "");
	appendStringInfoString(sql, " FROM q");
	append_tree_join(sql, lt, self, true);
	appendStringInfo(sql, " WHERE q.f%d_0 IS NULL UNION ALL SELECT q.kind, ", self);
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "q.l%d, t.%s%s", i, synchro_column_name(lt, table->identity[i]), i < n - 1 ? ", " : "");
	appendStringInfoString(sql, " FROM x JOIN q ON ");
	synchro_sql_equal(sql, psprintf("q.f%d_", self), "x.l", n);
	appendStringInfoString(sql, " AND x.kind <> 'g'");
	append_tree_join(sql, lt, self, false);
	appendStringInfoString(sql, ") SELECT kind, false, ");
	synchro_sql_list(sql, "l", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "r", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "r", n);
	appendStringInfoString(sql, " FROM x;");
}

/*
 * After that: names of rows that others reference -> m, kind n.
 */
void
synchro_resolve_tree_names(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	synchro_resolve_insert_head(sql, lt, "");
	appendStringInfoString(sql, "SELECT 'n', false, ");
	synchro_sql_list(sql, "q.l", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "o.r", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "o.r", n);
	appendStringInfo(sql, " FROM pg_temp.n_%d q JOIN pg_temp.m_%d o ON o.kind IN ('o', 'x', '" SYNCHRO_KIND_WAITING "') AND ",
					 lt->number, lt->number);
	synchro_sql_equal(sql, "o.l", "q.l", n);
	appendStringInfo(sql, " WHERE q.kind = 'p' AND NOT EXISTS (SELECT FROM pg_temp.m_%d m WHERE m.kind = 'n' AND ", lt->number);
	synchro_sql_equal(sql, "m.l", "q.l", n);
	appendStringInfoString(sql, ");");
}

/*
 * Append "FROM a staging table q, the rows x above its rows or names, which
 * have been found by a name that they have lost, and the remote's rows t below
 * these".
 */
static void
append_below(StringInfo sql, const SynchroLinkTable *lt, char from)
{
	int			self = synchro_resolve_self_fk_in_key(lt);

	appendStringInfo(sql, " FROM pg_temp.%c_%d q JOIN pg_temp.m_%d x ON x.kind IN ('n', '" SYNCHRO_KIND_OLD "') AND NOT x.fresh AND (x.ghost OR x.again) AND ",
					 from, lt->number, lt->number);
	synchro_sql_equal(sql, psprintf("q.f%d_", self), "x.l", lt->table->nidentity);
	append_tree_join(sql, lt, self, false);
}

static void
append_found(StringInfo sql, const SynchroLinkTable *lt)
{
	for (int twice = 0; twice < 2; twice++)
		for (int i = 0; i < lt->table->nidentity; i++)
			appendStringInfo(sql, ", t.%s", synchro_column_name(lt, lt->table->identity[i]));
}

static void
append_take(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET fresh = false, again = true", lt->number);
	synchro_resolve_take(sql, lt, "z");
}

/*
 * The statements that find rows and names, which have not been found, below
 * those that bear another name there: one level further down each time.  Their
 * newest changes are still to be looked for (again).
 */
List *
synchro_resolve_tree_below(const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;
	List	   *statements = NIL;
	StringInfo	sql;

	if (lt->nolds > 0)
	{
		sql = makeStringInfo();
		synchro_resolve_insert_head(sql, lt, ", again, named, stamp, origin");
		appendStringInfoString(sql, "SELECT DISTINCT ON (q.ctid) q.kind, false, ");
		synchro_sql_list(sql, "q.l", n);
		append_found(sql, lt);
		appendStringInfoString(sql, ", true, q.ctid, q.stamp, q.origin");
		append_below(sql, lt, 'n');
		appendStringInfoString(sql, " WHERE q.kind IN " SYNCHRO_OLD_KINDS " AND ");
		synchro_resolve_not_mapped(sql, lt, "q", "q.kind AND coalesce(m.named, q.ctid) = q.ctid");
		statements = lappend(statements, sql->data);
	}
	if (lt->nolds > 0 && lt->rows != NULL)
	{
		sql = makeStringInfo();
		append_take(sql, lt);
		appendStringInfo(sql, " FROM pg_temp.m_%d z WHERE z.kind = '" SYNCHRO_KIND_OLD "' AND z.again AND m.kind = 'n' AND m.fresh AND ", lt->number);
		synchro_sql_equal(sql, "m.l", "z.l", n);
		statements = lappend(statements, sql->data);
	}
	if (lt->rows != NULL)
	{
		sql = makeStringInfo();
		append_take(sql, lt);
		appendStringInfoString(sql, " FROM (SELECT ");
		synchro_sql_list(sql, "q.l", n);
		for (int i = 0; i < n; i++)
			appendStringInfo(sql, ", t.%s AS r%d", synchro_column_name(lt, lt->table->identity[i]), i);
		append_below(sql, lt, 's');
		appendStringInfoString(sql, ") z WHERE m.kind = 'n' AND m.fresh AND ");
		synchro_sql_equal(sql, "m.l", "z.l", n);
		statements = lappend(statements, sql->data);
	}
	if (lt->nnames > lt->nolds)
	{
		sql = makeStringInfo();
		synchro_resolve_insert_head(sql, lt, ", again");
		appendStringInfoString(sql, "SELECT DISTINCT ON (q.ctid) 'n', false, ");
		synchro_sql_list(sql, "q.l", n);
		append_found(sql, lt);
		appendStringInfoString(sql, ", true");
		append_below(sql, lt, 'n');
		appendStringInfoString(sql, " WHERE q.kind = '" SYNCHRO_KIND_PRESENT "' AND ");
		synchro_resolve_not_mapped(sql, lt, "q", "'n'");
		statements = lappend(statements, sql->data);
	}
	return statements;
}
