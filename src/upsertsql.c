/*-------------------------------------------------------------------------
 *
 * upsertsql.c
 *	  SQL text that updates and inserts the rows of a batch which has been
 *	  staged and resolved.
 *
 * Because new rows get their identities while they are resolved, rows of
 * trees and cycles can refer to each other before any of them exists, and one
 * statement inserts them all: foreign keys are checked at its end.
 *
 * As a rule the map says which remote row is which.  It costs a row of its
 * own for each, and joins.  Of a table that nothing else of the batch asks for,
 * whose natural keys say by themselves which row is meant, the rows are looked
 * up by the very statement that writes them, and the map stays empty:
 * unmapped, see synchro_sql_is_unmapped().
 *
 * Others may write such a row between the statement's snapshot and the moment when it
 * is locked.  If it is updated, the statement waits and finds it by its identity.  If
 * it is gone, perhaps for another one of its name, the statement has updated fewer
 * rows than it was to: that is counted, all is rolled back, and the batch is tried
 * again, with a map, as are those that follow (link->mapping): where others delete all
 * the time, or a trigger has rows left as they are, that would never end otherwise.
 * If such a row is inserted in between, the unique index refuses ours, and the batch is
 * tried again likewise.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "placeholder.h"
#include "resolvejoin.h"

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

/*
 * Append "FROM the staged rows s".
 *
 * LIMIT, which leaves out none, tells the planner how many they are at most: it
 * goes by the staging table's pages, which deleted rows of many a batch fill,
 * and would read all of the remote's table for a few rows.
 */
static void
append_staged(StringInfo sql, const SynchroLinkTable *lt)
{
	int			size = synchro_stage_size(lt->nrows);

	appendStringInfo(sql, " FROM (SELECT * FROM pg_temp.s_%d LIMIT " INT64_FORMAT ") s", lt->number, size > 0 ? size : lt->nrows);
}

/*
 * Append "FROM the staged rows s, their places in the map m, and their parents".
 */
void
synchro_sql_from_staged(StringInfo sql, const SynchroLinkTable *lt)
{
	append_staged(sql, lt);
	appendStringInfo(sql, " JOIN pg_temp.m_%d m ON m.kind = 'n' AND ", lt->number);
	synchro_sql_equal(sql, "m.l", "s.l", lt->table->nidentity);
	synchro_sql_join_parents(sql, lt, "s", false);
}

/*
 * Can a table's rows be looked up as they are written?  That is for batches
 * that want nothing but rows to be as they are here (synchro_batch_is_plain()).
 *
 * Not where its map is read: by rows that refer to it, or for names of it.
 * tables: all that the batch is about.
 */
bool
synchro_sql_is_unmapped(const SynchroLinkTable *lt, const List *tables)
{
	const SynchroTable *table = lt->table;
	const ListCell *cell;

	if (lt->rows == NULL || lt->nnames > 0 || lt->nensured > 0 || lt->all_names || !synchro_sql_is_named_alone(lt))
		return false;
	for (int i = 0; i < table->nkey; i++)
		if (!lt->pushed[table->key[i]])
			return false;
	for (int i = 0; i < table->nidentity; i++)
		if (synchro_column_fk(lt, table->identity[i]) >= 0 ||
			(!lt->pushed[table->identity[i]] && lt->remote->columns[table->identity[i]].fresh_value == NULL))
			return false;
	foreach(cell, tables)
	{
		const SynchroLinkTable *other = lfirst(cell);

		for (int fk = 0; fk < other->table->nfks; fk++)
			if (other->parents[fk] == lt)
				return false;
	}
	return true;
}

/*
 * Append what rows are written from: s and m, or f for both.
 */
static void
append_source(StringInfo sql, const SynchroLinkTable *lt)
{
	if (lt->unmapped)
		appendStringInfo(sql, " FROM f%d f", lt->number);
	else
		synchro_sql_from_staged(sql, lt);
}

/*
 * Append the value of a column from there.
 */
static void
append_value(StringInfo sql, const SynchroLinkTable *lt, int column)
{
	if (lt->unmapped)
		appendStringInfo(sql, "f.c%d", column);
	else
		synchro_sql_value(sql, lt, column, "s", "v");
}

/*
 * The value of a column in the remote row t, as it is compared with what is staged: no
 * domain has to check that one for it.
 */
const char *
synchro_sql_stored(const SynchroLinkTable *lt, int column)
{
	const SynchroRemoteColumn *there = &lt->remote->columns[column];
	const char *name = synchro_column_name(lt, column);

	return strcmp(there->type, there->staged) == 0 ? psprintf("t.%s", name) : psprintf("CAST(t.%s AS %s)", name, there->staged);
}

/*
 * Append "the remote row t is not as the staged one says", of what is updated.
 * At least one column must be.
 *
 * Rows are compared as images, byte by byte: that works for every type, and
 * 1.0 becomes 1.00 where that is what the row says here.  A foreign key's
 * column may have another type than what it references.
 */
void
synchro_sql_differs(StringInfo sql, const SynchroLinkTable *lt)
{
	StringInfoData there;
	StringInfoData here;
	bool		any = false;

	initStringInfo(&there);
	initStringInfo(&here);
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		const char *comma = any ? ", " : "";

		if (!synchro_column_updatable(lt, i))
			continue;
		appendStringInfo(&there, "%s%s", comma, synchro_sql_stored(lt, i));
		appendStringInfo(&here, "%sCAST(", comma);
		append_value(&here, lt, i);
		appendStringInfo(&here, " AS %s)", lt->remote->columns[i].staged);
		any = true;
	}
	appendStringInfo(sql, "ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record", there.data, here.data);
}

/*
 * Append the remote's rows that staged ones are, found by their natural keys,
 * with the staged values.  Kept, since what is updated is read from it, and what
 * is inserted.
 */
static void
append_lookup(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "f%d AS MATERIALIZED (SELECT t.tableoid IS NULL AS fresh", lt->number);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, ", t.%s AS r%d", synchro_column_name(lt, lt->table->identity[i]), i);
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		if (!lt->pushed[i])
			continue;
		appendStringInfoString(sql, ", ");
		synchro_sql_value(sql, lt, i, "s", "v");
		appendStringInfo(sql, " AS c%d", i);
	}
	append_staged(sql, lt);
	synchro_sql_join_parents(sql, lt, "s", false);
	synchro_resolve_key_join(sql, lt, "s", SYNCHRO_PARENT_NOW, true);
	appendStringInfoString(sql, "), ");
}

static bool
append_update(StringInfo sql, const SynchroLinkTable *lt)
{
	bool		any = false;

	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		if (!synchro_column_updatable(lt, i))
			continue;
		if (any)
			appendStringInfoString(sql, ", ");
		else
			appendStringInfo(sql, "u%d AS (UPDATE %s t SET ", lt->number, lt->remote->rows);
		appendStringInfo(sql, "%s = ", synchro_column_name(lt, i));
		append_value(sql, lt, i);
		any = true;
	}
	if (!any)
		return false;
	append_source(sql, lt);
	appendStringInfoString(sql, lt->unmapped ? " WHERE NOT f.fresh AND " : " WHERE NOT m.fresh AND NOT s.ensure AND ");
	synchro_sql_identity_equal(sql, lt, "t", lt->unmapped ? "f.r" : "m.r");
	appendStringInfoString(sql, " AND ");
	synchro_sql_differs(sql, lt);
	appendStringInfoString(sql, " RETURNING 1), ");
	return true;
}

/*
 * Append the columns that the remote's sequences would fill, and what a preview
 * puts there instead.
 */
static void
append_placeholders(StringInfo columns, StringInfo values, const SynchroLinkTable *lt, bool any)
{
	ListCell   *cell;

	foreach(cell, lt->placeholders)
	{
		const SynchroPlaceholder *placeholder = lfirst(cell);
		int			column = synchro_table_column(lt->table, placeholder->column);

		if (column >= 0 && (lt->pushed[column] || synchro_identity_position(lt->table, lt->table->columns[column].attnum) >= 0))
			continue;
		appendStringInfo(columns, "%s%s", any ? ", " : "", quote_identifier(placeholder->column));
		appendStringInfo(values, "%s%s", any ? ", " : "", placeholder->value);
		any = true;
	}
}

/*
 * May what is inserted get another identity than others of the batch, or stored
 * references, are to name it by?  Nobody else minds.
 */
static bool
may_get_other_ids(const SynchroLinkTable *lt)
{
	return lt->remote->may_fire && !lt->unmapped && (synchro_keeps_references(lt) || lt->nnames > lt->nolds);
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
		appendStringInfo(&columns, "%s%s", any ? ", " : "", synchro_column_name(lt, i));
		appendStringInfoString(&values, any ? ", " : "");
		if (identity >= 0 && lt->unmapped)
			synchro_sql_fresh_identity(&values, lt, identity, "f");
		else if (identity >= 0)
			appendStringInfo(&values, "m.v%d", identity);
		else
			append_value(&values, lt, i);
		any = true;
	}
	append_placeholders(&columns, &values, lt, any);
	appendStringInfo(sql, "i%d AS (INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s",
					 lt->number, lt->table->qualified, columns.data, values.data);
	append_source(sql, lt);
	appendStringInfo(sql, " WHERE %s.fresh RETURNING ", lt->unmapped ? "f" : "m");
	if (!may_get_other_ids(lt))
		appendStringInfoString(sql, "1)");
	else
	{
		for (int i = 0; i < lt->table->nidentity; i++)
			appendStringInfo(sql, "%s%s AS v%d", i > 0 ? ", " : "", synchro_column_name(lt, lt->table->identity[i]), i);
		appendStringInfoChar(sql, ')');
	}
}

/*
 * Append a column that raises an error if rows were inserted with other
 * identities than the map gives them: whatever refers to them would refer to
 * another row, and stored references would.  Where a natural key finds them, what
 * refers to them goes after them (synchro_division_push()).
 */
static void
append_other_ids(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, ", (SELECT pg_temp.synchro_raise('27000', %s, 'Let it give an id only where there is none.')"
					 " WHERE EXISTS (SELECT FROM i%d i WHERE NOT EXISTS (SELECT FROM pg_temp.m_%d m WHERE m.kind = 'n' AND ",
					 quote_literal_cstr(psprintf("a trigger of table %s gives new rows other ids than they are inserted with", lt->table->qualified)),
					 lt->number, lt->number);
	synchro_sql_same_row(sql, lt, "i.v", "m.v");
	appendStringInfoString(sql, "))");
	if (!synchro_keeps_references(lt))
	{
		appendStringInfo(sql, " AND EXISTS (SELECT FROM pg_temp.m_%d m JOIN pg_temp.n_%d q ON q.kind = '" SYNCHRO_KIND_PRESENT "' AND ",
						 lt->number, lt->number);
		synchro_sql_equal(sql, "q.l", "m.l", lt->table->nidentity);
		appendStringInfo(sql, " WHERE m.kind = 'n' AND m.fresh AND NOT EXISTS (SELECT FROM i%d i WHERE ", lt->number);
		synchro_sql_same_row(sql, lt, "i.v", "m.v");
		appendStringInfoString(sql, "))");
	}
	appendStringInfoChar(sql, ')');
}

/*
 * Append a column that raises SYNCHRO_DELETED_THERE if fewer of the rows that were
 * looked up have been updated than the statement's snapshot has different.  As a
 * rule all have been; only if not does it look which are as they should be.
 */
static void
append_missed(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, ", (SELECT pg_temp.synchro_raise('" SYNCHRO_DELETED_THERE "', 'rows were deleted while they were pushed to', '')"
					 " WHERE CASE WHEN (SELECT count(*) FROM u%d) < (SELECT count(*) FROM f%d WHERE NOT fresh)"
					 " THEN (SELECT count(*) FROM u%d) < (SELECT count(*) FROM f%d f JOIN %s t ON ",
					 lt->number, lt->number, lt->number, lt->number, lt->remote->rows);
	synchro_sql_identity_equal(sql, lt, "t", "f.r");
	appendStringInfoString(sql, " WHERE NOT f.fresh AND ");
	synchro_sql_differs(sql, lt);
	appendStringInfoString(sql, ") END)");
}

/*
 * Append columns that raise an error for rows which reference a new row of the
 * same statement by a column that is not in its identity, and which the remote
 * fills: what that holds is not to be seen yet.  They go by themselves
 * (synchro_division_push()), but for one that references itself.
 */
static void
append_unseen(StringInfo sql, const SynchroLinkTable *lt, List *component)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		if (lt->parents[fk] == NULL || !list_member_ptr(component, lt->parents[fk]) || !synchro_fk_beyond_identity(lt, fk) ||
			synchro_fk_staged_tells(lt, fk))
			continue;
		appendStringInfo(sql, ", (SELECT pg_temp.synchro_raise('23503', %s, '') WHERE EXISTS (SELECT",
						 quote_literal_cstr(psprintf("a row of table %s references one that is new, and not by its primary key", lt->table->qualified)));
		append_source(sql, lt);
		appendStringInfo(sql, " WHERE s.f%d_0 IS NOT NULL AND t%d.tableoid IS NULL))", fk, fk);
	}
}

/*
 * Append columns that raise an error for rows whose keys are to be changed in
 * columns that the remote does not let anybody change.
 */
static void
append_unchangeable(StringInfo sql, const SynchroLinkTable *lt)
{
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		/* such a column is only pushed for the sake of a key */
		if (!lt->pushed[i] || lt->remote->columns[i].identity != 'a')
			continue;
		appendStringInfo(sql, ", (SELECT pg_temp.synchro_raise('27000', %s, 'Make it GENERATED BY DEFAULT there.') WHERE EXISTS (SELECT",
						 quote_literal_cstr(psprintf("column %s of table %s is GENERATED ALWAYS AS IDENTITY there, so the row cannot get the key that it has here",
													 synchro_column_name(lt, i), lt->table->qualified)));
		append_source(sql, lt);
		appendStringInfo(sql, " JOIN %s t ON ", lt->remote->rows);
		synchro_sql_identity_equal(sql, lt, "t", lt->unmapped ? "f.r" : "m.r");
		appendStringInfo(sql, " WHERE NOT %s.fresh AND t.%s IS DISTINCT FROM ", lt->unmapped ? "f" : "m", synchro_column_name(lt, i));
		append_value(sql, lt, i);
		appendStringInfoString(sql, "))");
	}
}

/*
 * Append the statement that makes the remote's rows of some tables as they
 * are here.  component: tables that refer to each other in a circle, or one.
 * Its result: for each table the numbers of rows updated and inserted.  It
 * raises SYNCHRO_DELETED_THERE if rows that were looked up are not there any more,
 * and others for rows whose ids or references would not be what they should be.
 *
 * The updates come first, so that a new row may take what an existing one
 * gives up; both are parts of one statement, so that an existing row may
 * refer to a new one.
 */
void
synchro_sql_upsert(StringInfo sql, List *component)
{
	StringInfoData counts;
	StringInfoData missed;
	ListCell   *cell;
	bool		first = true;

	initStringInfo(&counts);
	initStringInfo(&missed);
	foreach(cell, component)
	{
		const SynchroLinkTable *lt = lfirst(cell);
		bool		updates;

		if (lt->rows == NULL)
			continue;
		appendStringInfoString(sql, first ? "WITH " : ", ");
		if (lt->unmapped)
			append_lookup(sql, lt);
		updates = append_update(sql, lt);
		append_insert(sql, lt);
		appendStringInfo(&counts, "%s%s, (SELECT count(*) FROM i%d)", first ? "" : ", ",
						 updates ? psprintf("(SELECT count(*) FROM u%d)", lt->number) : "0", lt->number);

		/* which is the only one then, as others of a circle refer to each other */
		if (lt->unmapped && updates)
			append_missed(&missed, lt);
		if (may_get_other_ids(lt))
			append_other_ids(&missed, lt);
		if (!lt->unmapped)
			append_unseen(&missed, lt, component);
		append_unchangeable(&missed, lt);
		first = false;
	}
	if (first)
		return;
	appendStringInfo(sql, " SELECT '" SYNCHRO_UPSERT_TAG "', %s%s;", counts.data, missed.data);
}
