/*-------------------------------------------------------------------------
 *
 * freesql.c
 *	  SQL that frees unique values before they are taken.
 *
 * If two rows swap a unique value, or a new row takes the value of one that
 * is about to be deleted, no order of single statements passes a constraint
 * that is checked at once.  So when a batch has failed for that reason, it is
 * run again with these statements: a row that holds a value which another row
 * of the batch is to get, and that is itself to be rewritten or deleted in
 * this batch, is first given some other value.  A row that the batch leaves
 * alone keeps its value: that clash is real, and the batch fails.
 *
 * The value in between must pass the remote's rules as any other: NULL where
 * the column may be that, else one that nobody is likely to have.
 *
 * Where nothing on the remote checks at once that identities are unique, such
 * a batch does not fail: for a moment two rows have one identity, and what
 * deletes the one by it would take the other with it.  There a doomed row gives
 * its identity up in any case, before another takes it:
 * synchro_sql_free_identities().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"

/*
 * From how many numbers the first one of free strings is chosen by chance:
 * those of batches before may still be there, since deletes wait for the last
 * one.  A string has one letter more than hexadecimal digits.
 */
static long
free_range(const SynchroRemoteColumn *there)
{
	size_t		base_len = strlen(there->base);
	const char *paren;
	int			digits = 7;

	/* how long a domain's values may be is not known */
	if (strncmp(there->type, there->base, base_len) != 0)
		return 1;
	paren = strchr(there->type + base_len, '(');
	if (paren != NULL)
		digits = Min(digits, atoi(paren + 1) - 2);
	return digits > 0 ? 1L << (4 * digits) : 1;
}

/*
 * A free value for a column that is not NULL, as SQL: n counts the rows
 * concerned.  NULL if there is none to be had.
 */
static char *
other_value(const SynchroLinkTable *lt, int column)
{
	const SynchroRemoteColumn *there = &lt->remote->columns[column];
	const char *name = synchro_column_name(lt, column);

	if (synchro_column_fk(lt, column) >= 0)
		return NULL;
	if (there->category == 'S')
		return psprintf("pg_catalog.chr(1) || pg_catalog.to_hex(x.n + (SELECT pg_catalog.floor(pg_catalog.random() OPERATOR(pg_catalog.*) %ld)::bigint))", free_range(there));
	if (strcmp(there->base, "smallint") == 0 || strcmp(there->base, "integer") == 0 ||
		strcmp(there->base, "bigint") == 0 || strcmp(there->base, "numeric") == 0)
		return psprintf("(SELECT least(pg_catalog.min(%s), 0) FROM %s) OPERATOR(pg_catalog.-) x.n", name, lt->remote->rows);
	if (strcmp(there->base, "uuid") == 0)
		return "pg_catalog.gen_random_uuid()";
	if (there->category == 'D' &&
		(strcmp(there->base, "date") == 0 || strncmp(there->base, "timestamp", 9) == 0))
		return psprintf("(SELECT pg_catalog.max(%s) FROM %s WHERE pg_catalog.isfinite(%s)) OPERATOR(pg_catalog.+) (x.n OPERATOR(pg_catalog.*) interval '1 day')",
						name, lt->remote->rows, name);
	return NULL;
}

/*
 * The same, or "NULL" where the column may be that.
 */
static char *
free_value(const SynchroLinkTable *lt, int column)
{
	return lt->remote->columns[column].not_null ? other_value(lt, column) : "NULL";
}

/*
 * The column of a unique index that is to be changed, or -1 if the index
 * cannot be or need not be cared for.
 */
static int
choose_column(const SynchroLinkTable *lt, const SynchroRemoteIndex *index)
{
	int			chosen = -1;

	if (!index->immediate)
		return -1;
	for (int i = 0; i < index->ncolumns; i++)
	{
		int			column = index->columns[i];
		char	   *value;

		/* what we do not write, we do not know */
		if (column < 0 || !synchro_column_updatable(lt, column))
			return -1;
		value = free_value(lt, column);
		if (value == NULL)
			continue;
		if (chosen < 0 || strcmp(value, "NULL") == 0)
			chosen = column;
	}
	return chosen;
}

static void
append_identities(StringInfo sql, const SynchroLinkTable *lt, const char *alias, const char *as)
{
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		appendStringInfo(sql, "%s%s.%s", i > 0 ? ", " : "", alias,
						 synchro_column_name(lt, lt->table->identity[i]));
		if (as != NULL)
			appendStringInfo(sql, " AS %s%d", as, i);
	}
}

/*
 * Append "the remote row of the map's y is to be rewritten or deleted by this
 * batch": not if what is said of it has lost, or is there already, or if it is
 * only to be there.
 */
static void
append_is_written(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "(y.kind = 'n' AND EXISTS (SELECT FROM pg_temp.s_%d z WHERE NOT z.ensure AND ", lt->number);
	synchro_sql_equal(sql, "z.l", "y.l", lt->table->nidentity);
	appendStringInfo(sql, ") OR y.kind IN " SYNCHRO_OLD_KINDS " AND y.verdict IS NULL"
					 " AND NOT EXISTS (SELECT FROM pg_temp.m_%d k WHERE k.kind = 'n' AND ", lt->number);
	synchro_sql_same_row(sql, lt, "k.r", "y.r");
	appendStringInfoString(sql, "))");
}

/*
 * Append "the remote rows that hold what others of the batch are to get".
 */
static void
append_holders(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const SynchroRemoteIndex *index)
{
	appendStringInfoString(sql, "SELECT DISTINCT ");
	append_identities(sql, lt, "h", "h");

	/*
	 * Staged rows and their map are joined by themselves: the planner takes the lookup of h for so dear, with its
	 * subqueries, that any way to join these two beside it is as good to it, comparing each with each included.
	 */
	appendStringInfoString(sql, " FROM (SELECT s.*, ");
	synchro_sql_list(sql, "m.r", lt->table->nidentity);
	appendStringInfo(sql, " FROM pg_temp.s_%d s JOIN pg_temp.m_%d m ON m.kind = 'n' AND ", lt->number, lt->number);
	synchro_sql_equal(sql, "m.l", "s.l", lt->table->nidentity);
	appendStringInfoString(sql, " WHERE NOT s.ensure OFFSET 0) s");
	synchro_sql_join_parents(sql, lt, "s", false);
	appendStringInfo(sql, " JOIN %s h ON ", lt->remote->rows);
	for (int i = 0; i < index->ncolumns; i++)
	{
		appendStringInfo(sql, "%sh.%s %s ", i > 0 ? " AND " : "",
						 synchro_column_name(lt, index->columns[i]),
						 lt->remote->columns[index->columns[i]].equals);
		synchro_sql_value(sql, lt, index->columns[i], "s", "v");
	}
	appendStringInfoString(sql, " WHERE NOT (");
	synchro_sql_identity_equal(sql, lt, "h", "s.r");
	appendStringInfo(sql, ") AND (EXISTS (SELECT FROM pg_temp.m_%d y WHERE NOT y.fresh AND ", lt->number);
	append_is_written(sql, lt);
	appendStringInfoString(sql, " AND ");
	synchro_sql_identity_equal(sql, lt, "h", "y.r");

	/* the delete may have been left to the pass's last batch */
	appendStringInfoString(sql, ") OR ");
	synchro_sql_awaits_delete(sql, link, lt, "h");
	appendStringInfoChar(sql, ')');

	/* one that waits under its name is not rewritten */
	if (lt->nwaiting > 0)
	{
		appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM pg_temp.m_%d w WHERE w.kind = '" SYNCHRO_KIND_WAITING "' AND ", lt->number);
		synchro_sql_identity_equal(sql, lt, "h", "w.r");
		appendStringInfoChar(sql, ')');
	}
}

/*
 * Append the statement that gives the remote rows that holders selects another
 * value of a column.  Where that is part of the rows' identity, the map follows,
 * and the list of deletes.
 */
static void
append_freeing(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt,
			   int column, const char *value, const char *holders)
{
	int			n = lt->table->nidentity;
	int			position = synchro_identity_position(lt->table, lt->table->columns[column].attnum);

	if (position >= 0)
		synchro_sql_pin(sql, lt, true);
	appendStringInfo(sql, "WITH p AS (UPDATE %s t SET %s = %s FROM (SELECT pg_catalog.row_number() OVER () AS n, g.* FROM (%s) g) x WHERE ",
					 lt->remote->rows, synchro_column_name(lt, column), value, holders);
	synchro_sql_identity_equal(sql, lt, "t", "x.h");
	appendStringInfoString(sql, " RETURNING ");
	synchro_sql_list(sql, "x.h", n);
	appendStringInfoString(sql, ", ");
	append_identities(sql, lt, "t", "i");
	if (position >= 0)
	{
		appendStringInfo(sql, "), u AS (UPDATE %s.unapplied u SET remote_key[%d] = %s FROM p WHERE u.node = '%s' AND u.relation = %s AND ",
						 link->peer, position + 1, synchro_sql_remote_text(lt, column, psprintf("p.i%d", position)),
						 link->node, quote_literal_cstr(lt->table->qualified));
		synchro_sql_is_kept(sql, lt, "p.h");
	}
	appendStringInfo(sql, ") UPDATE pg_temp.m_%d m SET ", lt->number);
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%sr%d = p.i%d", i > 0 ? ", " : "", i, i);
	appendStringInfoString(sql, " FROM p WHERE NOT m.fresh");
	appendStringInfoString(sql, " AND ");
	synchro_sql_same_row(sql, lt, "m.r", "p.h");
	appendStringInfoChar(sql, ';');
	if (position >= 0)
		synchro_sql_pin(sql, lt, false);
}

/*
 * Append statements that free the unique values of a table which rows of the
 * batch are to get.
 */
void
synchro_sql_free_values(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	ListCell   *cell;

	foreach(cell, lt->remote->unique_indexes)
	{
		const SynchroRemoteIndex *index = lfirst(cell);
		int			column = choose_column(lt, index);
		StringInfoData holders;

		if (column < 0)
			continue;
		initStringInfo(&holders);
		append_holders(&holders, link, lt, index);
		append_freeing(sql, link, lt, column, free_value(lt, column), holders.data);
	}
}

/*
 * Does the remote refuse a second row of the same identity at once, even within
 * a transaction?
 */
static bool
identities_are_checked(const SynchroLinkTable *lt)
{
	ListCell   *cell;

	foreach(cell, lt->remote->unique_indexes)
	{
		const SynchroRemoteIndex *index = lfirst(cell);
		bool		covered = index->immediate;

		for (int i = 0; i < index->ncolumns && covered; i++)
		{
			int			column = index->columns[i];

			covered = column >= 0 && synchro_identity_position(lt->table, lt->table->columns[column].attnum) >= 0 &&
				(lt->table->columns[column].not_null || lt->remote->columns[column].not_null);
		}
		if (covered)
			return true;
	}
	return false;
}

/*
 * Append "the remote rows that are to be deleted, by this batch or the pass's
 * last one, and whose identity another row of the batch is to get".
 */
static void
append_doomed_holders(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	appendStringInfoString(sql, "SELECT DISTINCT ");
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%sd.r%d AS h%d", i > 0 ? ", " : "", i, i);
	appendStringInfoString(sql, " FROM (SELECT ");
	synchro_sql_list(sql, "c.r", n);
	appendStringInfoString(sql, " FROM (");
	synchro_sql_doomed(sql, lt);
	appendStringInfoString(sql, ") c UNION SELECT ");
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "",
						 synchro_sql_remote_value(lt, lt->table->identity[i], psprintf("u.remote_key[%d]", i + 1)));
	appendStringInfo(sql, " FROM %s.unapplied u WHERE u.node = '%s' AND u.relation = %s) d JOIN pg_temp.m_%d m ON m.kind = 'n'",
					 link->peer, link->node, quote_literal_cstr(lt->table->qualified), lt->number);
	appendStringInfoString(sql, " AND ");
	synchro_sql_same_row(sql, lt, "m.v", "d.r");

	/* not those that the batch wants again */
	appendStringInfo(sql, " WHERE NOT EXISTS (SELECT FROM pg_temp.m_%d k WHERE k.kind = 'n'", lt->number);
	appendStringInfoString(sql, " AND ");
	synchro_sql_same_row(sql, lt, "k.r", "d.r");
	appendStringInfoChar(sql, ')');
}

/*
 * Append the statement that has doomed rows give up identities which other rows
 * of the batch are to get, where nothing else would keep the two apart.
 *
 * They cannot be deleted before: others may still refer to them by other
 * columns.  If there is no other value for them, the batch fails as it does
 * where the remote has a unique index: the row that takes the identity waits
 * until the other is gone.
 */
void
synchro_sql_free_identities(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	StringInfoData holders;
	bool		taken = false;

	if (lt->rows == NULL || lt->nolds == 0 || !lt->table->watched || identities_are_checked(lt))
		return;
	initStringInfo(&holders);
	append_doomed_holders(&holders, link, lt);
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		int			column = lt->table->identity[i];
		char	   *value;

		if (!synchro_identity_is_value(lt, column) || !synchro_column_updatable(lt, column))
			continue;
		taken = true;
		value = other_value(lt, column);
		if (value == NULL)
			continue;
		append_freeing(sql, link, lt, column, value, holders.data);
		return;
	}
	if (taken)
		appendStringInfo(sql, "SELECT pg_temp.synchro_raise('23505', 'key of a row that is still to be deleted', '') FROM (%s) h LIMIT 1;",
						 holders.data);
}
