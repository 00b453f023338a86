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
 * A free value for a column, as SQL: n counts the rows concerned.  NULL if
 * there is none to be had.
 */
static char *
free_value(const SynchroLinkTable *lt, int column)
{
	const SynchroRemoteColumn *there = &lt->remote->columns[column];
	const char *name = synchro_column_name(lt, column);

	if (synchro_column_fk(lt, column) >= 0)
		return there->not_null ? NULL : "NULL";
	if (!there->not_null)
		return "NULL";
	if (there->category == 'S')
		return psprintf("pg_catalog.chr(1) || pg_catalog.to_hex(x.n + (SELECT pg_catalog.floor(pg_catalog.random() OPERATOR(pg_catalog.*) %ld)::bigint))", free_range(there));
	if (strcmp(there->base, "smallint") == 0 || strcmp(there->base, "integer") == 0 ||
		strcmp(there->base, "bigint") == 0 || strcmp(there->base, "numeric") == 0)
		return psprintf("(SELECT least(pg_catalog.min(%s), 0) FROM %s) OPERATOR(pg_catalog.-) x.n", name, lt->table->qualified);
	if (strcmp(there->base, "uuid") == 0)
		return "pg_catalog.gen_random_uuid()";
	if (there->category == 'D' &&
		(strcmp(there->base, "date") == 0 || strncmp(there->base, "timestamp", 9) == 0))
		return psprintf("(SELECT pg_catalog.max(%s) FROM %s WHERE pg_catalog.isfinite(%s)) OPERATOR(pg_catalog.+) (x.n OPERATOR(pg_catalog.*) interval '1 day')",
						name, lt->table->qualified, name);
	return NULL;
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
 * Append "the remote rows that hold what others of the batch are to get".
 */
static void
append_holders(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const SynchroRemoteIndex *index)
{
	appendStringInfoString(sql, "SELECT DISTINCT ");
	append_identities(sql, lt, "h", "h");
	appendStringInfo(sql, " FROM pg_temp.s_%d s JOIN pg_temp.m_%d m ON m.kind = 'n' AND ",
					 lt->number, lt->number);
	synchro_sql_equal(sql, "m.l", "s.l", lt->table->nidentity);
	synchro_sql_join_parents(sql, lt, "s", false);
	appendStringInfo(sql, " JOIN %s h ON ", lt->table->qualified);
	for (int i = 0; i < index->ncolumns; i++)
	{
		appendStringInfo(sql, "%sh.%s %s ", i > 0 ? " AND " : "",
						 synchro_column_name(lt, index->columns[i]),
						 lt->remote->columns[index->columns[i]].equals);
		synchro_sql_value(sql, lt, index->columns[i], "s", "v");
	}
	appendStringInfoString(sql, " WHERE NOT s.ensure AND NOT (");
	synchro_sql_identity_equal(sql, lt, "h", "m.r");
	appendStringInfo(sql, ") AND (EXISTS (SELECT FROM pg_temp.m_%d y WHERE NOT y.fresh AND y.kind IN ('n', 'o', 'd', 'g') AND ",
					 lt->number);
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
 * Append statements that free the unique values of a table which rows of the
 * batch are to get.  Where a value is part of the rows' identity, the map
 * follows.
 */
void
synchro_sql_free_values(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	ListCell   *cell;

	foreach(cell, lt->remote->unique_indexes)
	{
		const SynchroRemoteIndex *index = lfirst(cell);
		int			column = choose_column(lt, index);

		if (column < 0)
			continue;
		appendStringInfo(sql, "WITH p AS (UPDATE %s t SET %s = %s FROM (SELECT pg_catalog.row_number() OVER () AS n, g.* FROM (",
						 lt->table->qualified, synchro_column_name(lt, column), free_value(lt, column));
		append_holders(sql, link, lt, index);
		appendStringInfoString(sql, ") g) x WHERE ");
		synchro_sql_identity_equal(sql, lt, "t", "x.h");
		appendStringInfoString(sql, " RETURNING ");
		synchro_sql_list(sql, "x.h", lt->table->nidentity);
		appendStringInfoString(sql, ", ");
		append_identities(sql, lt, "t", "i");
		appendStringInfo(sql, ") UPDATE pg_temp.m_%d m SET ", lt->number);
		for (int i = 0; i < lt->table->nidentity; i++)
			appendStringInfo(sql, "%sr%d = p.i%d", i > 0 ? ", " : "", i, i);
		appendStringInfoString(sql, " FROM p WHERE NOT m.fresh AND ");
		synchro_sql_equal(sql, "m.r", "p.h", lt->table->nidentity);
		appendStringInfoChar(sql, ';');
	}
}
