/*-------------------------------------------------------------------------
 *
 * straightsql.c
 *	  SQL text that copies new rows straight into the remote's table, and
 *	  that deletes rows by nothing but their names.
 *
 * Rows that were inserted here since the remote was last brought up to date
 * are rarely there already.  So a large batch of nothing else first sends
 * their natural keys alone; if none of them is found, COPY writes the table
 * itself, with the remote's defaults, constraints and triggers as for any
 * other client.  If one is found, that is an error before any row has been
 * sent: no trigger has fired for a row that is there, and no sequence value
 * is used up.  The batch is then staged like all others.  What others insert
 * between that look and the COPY is met by the unique index, as it is by a
 * batch that was staged.
 *
 * That look costs the remote almost half as much as the COPY.  So where a
 * table has no triggers that an INSERT fires, only the first such batch of a
 * pass looks, and the unique index meets what is there of the others: then
 * the batch's sequence values are lost, as they are with any statement that
 * is rolled back.
 *
 * A pass of nothing but deletes needs no map, either: whatever bears one of
 * the names goes.
 *
 * Only where nothing else is asked of the batch: no foreign key to translate,
 * no references to remember, no other rows or names, no decisions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"
#include "resolvejoin.h"

/*
 * Is a value's text the same value whatever the session's settings are?  COPY
 * reads it with those of the remote's user, since triggers and defaults run with
 * them.  Dates and times only where their own type has written them: it names
 * the zone that it has, and puts the year first.
 */
static bool
is_plain(const SynchroLinkTable *lt, int column)
{
	static const struct
	{
		const char *type;
		bool		own;		/* only as written by this type */
	}			types[] = {
		{"bigint"}, {"boolean"}, {"bytea"}, {"character"}, {"character varying"}, {"date", true}, {"double precision"},
		{"integer"}, {"json"}, {"jsonb"}, {"numeric"}, {"real"}, {"smallint"}, {"text"},
		{"timestamp with time zone", true}, {"timestamp without time zone", true}, {"uuid"}
	};
	const char *here = synchro_column_base(lt->table, column);
	const char *there = lt->remote->columns[column].base;

	for (int i = 0; i < lengthof(types); i++)
		if (strcmp(there, types[i].type) == 0)
			return !types[i].own || (here != NULL && strcmp(here, there) == 0);
	return false;
}

/*
 * Does a natural key name at most one row on the remote, without looking at
 * other tables?
 */
bool
synchro_sql_is_named_alone(const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;

	if (!table->watched || table->mode == SYNCHRO_MODE_REFERENCE || table->allow_many || lt->decides ||
		!lt->remote->key_is_unique || !synchro_resolve_is_lateral(lt))
		return false;
	for (int i = 0; i < table->nkey; i++)
		if (!table->columns[table->key[i]].not_null || synchro_column_fk(lt, table->key[i]) >= 0)
			return false;
	return true;
}

/*
 * Can new rows of a table be copied straight into it?
 */
bool
synchro_sql_is_straight(const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;

	if (!synchro_sql_is_named_alone(lt) || !lt->remote->is_plain)
		return false;
	for (int fk = 0; fk < table->nfks; fk++)
		if (lt->parents[fk] != NULL)
			return false;
	for (int i = 0; i < table->ncolumns; i++)
		if (lt->pushed[i] && !is_plain(lt, i))
			return false;
	return true;
}

/*
 * Append the COPY of the rows' natural keys; see synchro_stream_straight().
 */
void
synchro_sql_straight_keys(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "COPY pg_temp.n_%d (kind", lt->number);
	for (int i = 0; i < lt->table->ncolumns; i++)
		if (synchro_column_is_key(lt->table, i))
			appendStringInfo(sql, ", c%d", i);
	appendStringInfoString(sql, ") FROM STDIN;");
}

/*
 * Append a check that none of them is there, if their keys are sent, and the
 * COPY of the rows.
 */
void
synchro_sql_straight_rows(StringInfo sql, const SynchroLinkTable *lt)
{
	bool		any = false;

	if (lt->names != NULL)
	{
		appendStringInfo(sql, "SELECT pg_temp.synchro_raise('" SYNCHRO_KNOWN_ROWS "', 'rows are there already', '') FROM pg_temp.n_%d q",
						 lt->number);
		synchro_resolve_key_join(sql, lt, "q", SYNCHRO_PARENT_NOW, false);
		appendStringInfoString(sql, " LIMIT 1;");
	}
	appendStringInfo(sql, "COPY %s (", lt->table->qualified);
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		if (!lt->pushed[i])
			continue;
		appendStringInfo(sql, "%s%s", any ? ", " : "", synchro_column_name(lt, i));
		any = true;
	}
	appendStringInfoString(sql, ") FROM STDIN;");
}

/*
 * Append the statement that deletes whatever bears one of the staged names.
 * Its result is that of synchro_sql_delete().
 */
void
synchro_sql_straight_delete(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "WITH d AS (DELETE FROM %s t USING pg_temp.n_%d q WHERE ", lt->remote->rows, lt->number);
	for (int i = 0; i < lt->table->nkey; i++)
		appendStringInfo(sql, "%st.%s %s q.c%d", i > 0 ? " AND " : "", synchro_column_name(lt, lt->table->key[i]),
						 lt->remote->columns[lt->table->key[i]].equals, lt->table->key[i]);
	appendStringInfoString(sql, " RETURNING 1) SELECT '" SYNCHRO_DELETE_TAG "', (SELECT count(*) FROM d);");
}
