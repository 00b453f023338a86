/*-------------------------------------------------------------------------
 *
 * resolvesql.c
 *	  SQL text that finds the remote rows which staged rows stand for.
 *
 * The remote's rows bear the natural keys that they had here in the keys
 * snapshot; each batch moves that on in its own transaction.  So a row whose
 * key has changed since is looked up by the key that it bore then (kind o),
 * and a row that is gone by the last it was known by; all others by the key
 * that they bear now.  Foreign keys in natural keys are compared by the
 * mapped parent's remote identity, so parents are resolved before.
 *
 * If several claim one remote row, a present row that bore the name before
 * comes first, then a present row that bears it now (deleted and inserted
 * again: the remote row and what refers to it survive), and only a row that
 * nobody claims is deleted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "resolvejoin.h"
#include "resolvetree.h"

/*
 * Rows that are remembered by reference -> m: names of before, rows and names
 * of rows that others reference.
 */
static void
resolve_remembered(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	if (lt->nolds > 0 || lt->nnames > 0)
	{
		synchro_resolve_insert_head(sql, lt, "");
		appendStringInfo(sql, "SELECT CASE q.kind WHEN '" SYNCHRO_KIND_PRESENT "' THEN 'n' ELSE q.kind END, false, ");
		synchro_sql_list(sql, "q.l", n);
		synchro_resolve_found(sql, lt);
		appendStringInfo(sql, " FROM pg_temp.n_%d q", lt->number);
		synchro_sql_join_parents(sql, lt, "q", true);
		synchro_resolve_reference_join(sql, link, lt, "q", "l");
		appendStringInfoString(sql, " WHERE q.kind <> '" SYNCHRO_KIND_PRESENT "' OR ");
		synchro_resolve_not_reborn(sql, lt, "q");
		appendStringInfoChar(sql, ';');
	}
	if (lt->rows != NULL)
	{
		synchro_resolve_insert_head(sql, lt, "");
		appendStringInfoString(sql, "SELECT 'n', false, ");
		synchro_sql_list(sql, "q.l", n);
		synchro_resolve_found(sql, lt);
		appendStringInfo(sql, " FROM pg_temp.s_%d q", lt->number);
		synchro_sql_join_parents(sql, lt, "q", true);
		synchro_resolve_reference_join(sql, link, lt, "q", "l");
		appendStringInfoString(sql, " WHERE ");
		synchro_resolve_not_mapped(sql, lt, "q", "'n'");
		appendStringInfoString(sql, " AND ");
		synchro_resolve_not_reborn(sql, lt, "q");
		appendStringInfoChar(sql, ';');
	}
}

/*
 * Append which of several remote rows of one name comes first: by primary key,
 * those that are to be deleted last.
 */
static void
append_first(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const char *head)
{
	appendStringInfo(sql, " ORDER BY %s", head);
	synchro_sql_list(sql, "q.l", lt->table->nidentity);
	appendStringInfoString(sql, ", ");
	synchro_sql_awaits_delete(sql, link, lt, "t");
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, ", t.%s", synchro_column_name(lt, lt->table->identity[i]));
}

/*
 * Names of before -> m, kinds o and d; and w, names that rows keep which wait.
 * Of those that are not sent with the batch, that is: else o says it.
 */
static void
resolve_olds(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	bool		first_of_many = lt->table->allow_many && !lt->remote->key_is_unique;

	/* a row may have several names that are gone: each is decided by itself */
	synchro_resolve_insert_head(sql, lt, ", named");
	appendStringInfoString(sql, "SELECT ");
	if (first_of_many)
	{
		appendStringInfoString(sql, "DISTINCT ON (q.kind, ");
		synchro_sql_list(sql, "q.l", lt->table->nidentity);
		appendStringInfoString(sql, ") ");
	}
	appendStringInfoString(sql, "q.kind, false, ");
	synchro_sql_list(sql, "q.l", lt->table->nidentity);
	synchro_resolve_found(sql, lt);
	appendStringInfo(sql, ", q.ctid FROM pg_temp.n_%d q", lt->number);
	if (lt->table->mode == SYNCHRO_MODE_REFERENCE)
		synchro_resolve_reference_join(sql, link, lt, "q", "k");
	else
	{
		synchro_resolve_join_parents_before(sql, lt, "q", -1);
		synchro_resolve_key_join(sql, lt, "q", SYNCHRO_PARENT_BEFORE, false);
	}
	appendStringInfoString(sql, " WHERE (q.kind IN " SYNCHRO_OLD_KINDS);
	if (lt->nwaiting > 0)
	{
		appendStringInfo(sql, " OR q.kind = '" SYNCHRO_KIND_WAITING "' AND NOT EXISTS (SELECT FROM pg_temp.n_%d o WHERE o.kind = '" SYNCHRO_KIND_OLD "' AND ", lt->number);
		synchro_sql_equal(sql, "o.l", "q.l", lt->table->nidentity);
		appendStringInfoChar(sql, ')');
	}
	appendStringInfoChar(sql, ')');
	if (synchro_resolve_may_be_remembered(lt))
	{
		appendStringInfoString(sql, " AND ");
		synchro_resolve_not_mapped(sql, lt, "q", "q.kind");
	}
	if (synchro_resolve_may_be_renamed_there(lt))
	{
		appendStringInfoString(sql, " AND (q.kind <> '" SYNCHRO_KIND_OLD "' OR ");
		synchro_resolve_not_mapped(sql, lt, "q", "'n'");
		appendStringInfoChar(sql, ')');
	}
	if (first_of_many)
		append_first(sql, link, lt, "q.kind, ");
	appendStringInfoChar(sql, ';');
}

/*
 * Append what puts rows that wait, which are where they were, into m, kind n.
 * several: those of which there may be several, or the others.
 */
static void
append_waiting(StringInfo sql, const SynchroLinkTable *lt, bool several)
{
	int			n = lt->table->nidentity;

	synchro_resolve_insert_head(sql, lt, "");
	appendStringInfoString(sql, "SELECT 'n', false, ");
	synchro_sql_list(sql, "w.l", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "w.r", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "w.v", n);
	appendStringInfo(sql, " FROM pg_temp.m_%d w WHERE w.kind = '" SYNCHRO_KIND_WAITING "' AND %s (SELECT FROM pg_temp.m_%d x WHERE x.kind = '" SYNCHRO_KIND_WAITING "' AND x.ctid <> w.ctid AND ",
					 lt->number, several ? "EXISTS" : "NOT EXISTS", lt->number);
	synchro_sql_equal(sql, "x.l", "w.l", n);
	appendStringInfoChar(sql, ')');
	if (several)
	{
		appendStringInfoString(sql, " AND ");
		synchro_sql_only_waiting(sql, lt, "w");
	}
	appendStringInfoChar(sql, ';');
}

/*
 * Rows that wait are where they were -> m, kind n; for those who refer to them, unless
 * that may be several.  Not pairs: the row there may become another one's when the pair is
 * mended (see resolve_pairs()), so who refers to it waits, too.
 */
static void
resolve_waiting(StringInfo sql, const SynchroLinkTable *lt)
{
	append_waiting(sql, lt, false);
	if (!lt->remote->key_is_unique || lt->table->nfks > 0)
		append_waiting(sql, lt, true);
}

/*
 * Append "AND the remote row t is none that waits under its name there", but
 * for the staged row q itself.
 */
static void
append_not_waiting(StringInfo sql, const SynchroLinkTable *lt)
{
	if (lt->nwaiting == 0)
		return;
	appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM pg_temp.m_%d w WHERE w.kind = '" SYNCHRO_KIND_WAITING "' AND NOT (", lt->number);
	synchro_sql_equal(sql, "w.l", "q.l", lt->table->nidentity);
	appendStringInfoString(sql, ") AND ");
	synchro_sql_identity_equal(sql, lt, "t", "w.r");
	appendStringInfoChar(sql, ')');
}

/*
 * Append "AND the remote row t is none that is called otherwise now", but for
 * the staged row q itself: one whose name of before that is, and which is in the
 * batch, with its new name.
 */
static void
append_not_renamed(StringInfo sql, const SynchroLinkTable *lt)
{
	if (lt->rows == NULL || lt->nolds == 0)
		return;
	appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM pg_temp.m_%d h JOIN pg_temp.s_%d i ON ",
					 lt->number, lt->number);
	synchro_sql_equal(sql, "i.l", "h.l", lt->table->nidentity);
	appendStringInfoString(sql, " WHERE h.kind = 'o' AND NOT (");
	synchro_sql_equal(sql, "h.l", "q.l", lt->table->nidentity);
	appendStringInfoString(sql, ") AND ");
	synchro_sql_identity_equal(sql, lt, "t", "h.r");
	appendStringInfoChar(sql, ')');
}

/*
 * Append the identity that a new row gets: what its natural key says, what the
 * remote's default makes, or failing that what it is here.
 *
 * source: alias of the staged row, as in synchro_sql_value().
 */
void
synchro_sql_fresh_identity(StringInfo sql, const SynchroLinkTable *lt, int identity, const char *source)
{
	int			column = lt->table->identity[identity];

	if (synchro_identity_is_value(lt, column))
		synchro_sql_value(sql, lt, column, source, "v");
	else if (!lt->pushed[column])
		appendStringInfo(sql, "(%s)", lt->remote->columns[column].fresh_value);
	else
		appendStringInfo(sql, "%s.c%d", source, column);
}

/*
 * Append what a staged row's identity will be when the batch is applied.
 */
static void
append_final_identity(StringInfo sql, const SynchroLinkTable *lt, int identity, const char *found)
{
	int			column = lt->table->identity[identity];

	if (synchro_identity_is_value(lt, column))
		synchro_sql_value(sql, lt, column, "q", "v");
	else
		appendStringInfo(sql, "%s%d", found, identity);
}

/*
 * Staged rows -> m, kind n.  found: SQL that gives (matched, i0..) for the
 * staged row q through joins already appended by the caller's text.
 */
static void
append_rows_from(StringInfo sql, const SynchroLinkTable *lt, const char *from)
{
	int			n = lt->table->nidentity;

	synchro_resolve_insert_head(sql, lt, "");
	appendStringInfoString(sql, "SELECT 'n', z.fresh, ");
	synchro_sql_list(sql, "z.l", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "z.r", n);
	for (int i = 0; i < n; i++)
	{
		int			column = lt->table->identity[i];

		/* what is no natural key stays as it was found or made */
		if (synchro_identity_is_value(lt, column))
			appendStringInfo(sql, ", z.v%d", i);
		else
			appendStringInfo(sql, ", z.r%d", i);
	}
	appendStringInfo(sql, " FROM (%s) z", from);
	if (synchro_resolve_may_be_remembered(lt) || (synchro_resolve_is_pair(lt) && lt->nolds + lt->nwaiting > 0) || synchro_resolve_may_be_renamed_there(lt))
	{
		appendStringInfoString(sql, " WHERE ");
		synchro_resolve_not_mapped(sql, lt, "z", "'n'");
	}
	appendStringInfoChar(sql, ';');
}

/*
 * Rows whose table has no names of before in this batch: by the key that
 * they bear now, or by reference.
 */
static void
resolve_rows(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	bool		by_reference = table->mode == SYNCHRO_MODE_REFERENCE;
	bool		first_of_many = table->allow_many && !lt->remote->key_is_unique;
	StringInfoData from;

	initStringInfo(&from);
	appendStringInfoString(&from, "SELECT ");
	if (first_of_many)
	{
		appendStringInfoString(&from, "DISTINCT ON (");
		synchro_sql_list(&from, "q.l", table->nidentity);
		appendStringInfoString(&from, ") ");
	}
	synchro_sql_list(&from, "q.l", table->nidentity);
	appendStringInfoString(&from, ", t.tableoid IS NULL AS fresh");
	for (int i = 0; i < table->nidentity; i++)
	{
		appendStringInfo(&from, ", CASE WHEN t.tableoid IS NOT NULL THEN t.%s ELSE ",
						 synchro_column_name(lt, table->identity[i]));
		synchro_sql_fresh_identity(&from, lt, i, "q");
		appendStringInfo(&from, " END AS r%d", i);
		if (synchro_identity_is_value(lt, table->identity[i]))
		{
			appendStringInfoString(&from, ", ");
			append_final_identity(&from, lt, i, "");
			appendStringInfo(&from, " AS v%d", i);
		}
	}
	appendStringInfo(&from, " FROM pg_temp.s_%d q", lt->number);
	synchro_sql_join_parents(&from, lt, "q", false);
	if (by_reference)
	{
		appendStringInfoString(&from, " LEFT JOIN (SELECT ");
		synchro_sql_list(&from, "q.l", table->nidentity);
		appendStringInfoString(&from, ", t.tableoid");
		for (int i = 0; i < table->nidentity; i++)
			appendStringInfo(&from, ", t.%s", synchro_column_name(lt, table->identity[i]));
		appendStringInfo(&from, " FROM pg_temp.s_%d q", lt->number);
		synchro_resolve_reference_join(&from, link, lt, "q", "l");
		appendStringInfoString(&from, ") t ON ");
		synchro_sql_equal(&from, "t.l", "q.l", table->nidentity);
	}
	else
		synchro_resolve_key_join(&from, lt, "q", SYNCHRO_PARENT_NOW, true);
	if (first_of_many)
		append_first(&from, link, lt, "");
	append_rows_from(sql, lt, from.data);
}

/*
 * Pairs that are there already, whatever they were before -> m, kind n.  Not
 * those that are another's, which waits there.
 */
static void
resolve_pairs(StringInfo sql, const SynchroLinkTable *lt)
{
	synchro_resolve_insert_head(sql, lt, "");
	appendStringInfoString(sql, "SELECT 'n', false, ");
	synchro_sql_list(sql, "q.l", lt->table->nidentity);
	synchro_resolve_found(sql, lt);
	appendStringInfo(sql, " FROM pg_temp.s_%d q", lt->number);
	synchro_sql_join_parents(sql, lt, "q", false);
	synchro_resolve_key_join(sql, lt, "q", SYNCHRO_PARENT_NOW, false);
	append_not_waiting(sql, lt);
	appendStringInfoChar(sql, ';');
}

/*
 * Append the join of who bears the staged rows' present names there, alias t, but
 * for rows that are called otherwise now, or wait.
 *
 * These are left out of an inner join, which is joined then: as a condition of an
 * outer join that would be asked for each row, and all of the map read as often,
 * where rows have handed on their names to each other.
 */
static void
append_bearers(StringInfo sql, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;

	appendStringInfoString(sql, " LEFT JOIN (SELECT q.ctid AS \"staged row\", t.tableoid");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, ", t.%s", synchro_column_name(lt, table->identity[i]));
	appendStringInfo(sql, " FROM pg_temp.s_%d q", lt->number);
	synchro_sql_join_parents(sql, lt, "q", false);
	synchro_resolve_key_join(sql, lt, "q", SYNCHRO_PARENT_NOW, false);
	appendStringInfoString(sql, " WHERE true");
	append_not_renamed(sql, lt);
	append_not_waiting(sql, lt);
	appendStringInfoString(sql, ") t ON t.\"staged row\" = q.ctid");
}

/*
 * Rows whose table has names of before in this batch.
 *
 * o: what the row was called before; t: who bears its present name there,
 * unless that one is a present row's of before.  Both, and they differ: the
 * present name's row is taken, unless it is about to go; the other is then
 * nobody's any more and goes.
 *
 * About to go is also what an earlier batch has put on the list of deletes:
 * its row is gone here, and a name that it gave up is free to be taken before
 * the pass's last batch deletes it there.  Whoever takes it is the row that it
 * was; what refers to that one is not in the log, and must not be left behind.
 */
static void
resolve_rows_renamed(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	int			n = table->nidentity;
	const char *use_old;
	StringInfoData doomed;
	StringInfoData from;

	initStringInfo(&doomed);
	appendStringInfo(&doomed, "EXISTS (SELECT FROM pg_temp.m_%d g WHERE g.kind IN ('o', 'd', 'g') AND ", lt->number);
	synchro_sql_identity_equal(&doomed, lt, "t", "g.r");
	appendStringInfoString(&doomed, ") OR ");
	synchro_sql_awaits_delete(&doomed, link, lt, "t");
	use_old = psprintf("o.kind IS NOT NULL AND (t.tableoid IS NULL OR %s)", doomed.data);

	initStringInfo(&from);
	appendStringInfoString(&from, "SELECT ");
	if (!lt->remote->key_is_unique && table->allow_many)
	{
		appendStringInfoString(&from, "DISTINCT ON (");
		synchro_sql_list(&from, "q.l", n);
		appendStringInfoString(&from, ") ");
	}
	synchro_sql_list(&from, "q.l", n);
	appendStringInfoString(&from, ", o.kind IS NULL AND t.tableoid IS NULL AS fresh");
	for (int i = 0; i < n; i++)
	{
		appendStringInfo(&from, ", CASE WHEN %s THEN o.r%d WHEN t.tableoid IS NOT NULL THEN t.%s ELSE ",
						 use_old, i, synchro_column_name(lt, table->identity[i]));
		synchro_sql_fresh_identity(&from, lt, i, "q");
		appendStringInfo(&from, " END AS r%d", i);
		if (synchro_identity_is_value(lt, table->identity[i]))
		{
			appendStringInfoString(&from, ", ");
			append_final_identity(&from, lt, i, "");
			appendStringInfo(&from, " AS v%d", i);
		}
	}
	appendStringInfo(&from, " FROM pg_temp.s_%d q", lt->number);
	synchro_sql_join_parents(&from, lt, "q", false);
	appendStringInfo(&from, " LEFT JOIN pg_temp.m_%d o ON o.kind = 'o' AND ", lt->number);
	synchro_sql_equal(&from, "o.l", "q.l", n);
	if (synchro_resolve_is_pair(lt))
	{
		appendStringInfo(&from, " AND NOT EXISTS (SELECT FROM pg_temp.m_%d c WHERE c.kind = 'n' AND ", lt->number);
		synchro_sql_equal(&from, "c.r", "o.r", n);
		appendStringInfoChar(&from, ')');
	}
	append_bearers(&from, lt);
	if (!lt->remote->key_is_unique && table->allow_many)
		append_first(&from, link, lt, "");
	append_rows_from(sql, lt, from.data);
}

/*
 * Rows in mode reference where some moved or are gone: o says where the row
 * that is here now was before.
 */
static void
resolve_rows_moved(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	int			n = table->nidentity;

	/* the others' references are looked up as names of before, too */
	synchro_resolve_insert_head(sql, lt, "");
	appendStringInfoString(sql, "SELECT 'x', false, ");
	synchro_sql_list(sql, "q.l", n);
	synchro_resolve_found(sql, lt);
	appendStringInfo(sql, " FROM pg_temp.s_%d q", lt->number);
	synchro_resolve_reference_join(sql, link, lt, "q", "l");
	appendStringInfo(sql, " WHERE NOT EXISTS (SELECT FROM pg_temp.n_%d o WHERE o.kind IN ('o', 'd') AND ", lt->number);
	synchro_sql_equal(sql, "o.l", "q.l", n);
	appendStringInfoString(sql, ");");
}

/*
 * After the olds (o, d) and the other rows (x) are known: rows -> m, kind n.
 */
static void
resolve_rows_known(StringInfo sql, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	int			n = table->nidentity;
	StringInfoData from;

	initStringInfo(&from);
	appendStringInfoString(&from, "SELECT ");
	synchro_sql_list(&from, "q.l", n);
	appendStringInfoString(&from, ", o.kind IS NULL AS fresh");
	for (int i = 0; i < n; i++)
	{
		appendStringInfo(&from, ", CASE WHEN o.kind IS NOT NULL THEN o.r%d ELSE ", i);
		synchro_sql_fresh_identity(&from, lt, i, "q");
		appendStringInfo(&from, " END AS r%d", i);
		if (synchro_identity_is_value(lt, table->identity[i]))
		{
			appendStringInfoString(&from, ", ");
			append_final_identity(&from, lt, i, "");
			appendStringInfo(&from, " AS v%d", i);
		}
	}
	appendStringInfo(&from, " FROM pg_temp.s_%d q", lt->number);
	synchro_sql_join_parents(&from, lt, "q", false);
	appendStringInfo(&from, " LEFT JOIN pg_temp.m_%d o ON o.kind IN ('o', 'x') AND ", lt->number);
	synchro_sql_equal(&from, "o.l", "q.l", n);
	append_rows_from(sql, lt, from.data);
}

/*
 * Names of rows that others reference -> m, kind n.  Those not found are
 * simply not there.
 *
 * A row may have got its name after the pass's keys were collected, from one
 * that has another name now.  The batch has this one, as it has every change of
 * a name, but not the new one; there the old one still bears the name.  It must
 * not get the new one's children, not even for a moment: the new one is not
 * there, and comes with them.
 */
static void
resolve_names(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	int			n = table->nidentity;
	bool		first_of_many = table->allow_many && !lt->remote->key_is_unique;

	synchro_resolve_insert_head(sql, lt, "");
	appendStringInfoString(sql, "SELECT ");
	if (first_of_many)
	{
		appendStringInfoString(sql, "DISTINCT ON (");
		synchro_sql_list(sql, "q.l", n);
		appendStringInfoString(sql, ") ");
	}
	appendStringInfoString(sql, "'n', false, ");
	synchro_sql_list(sql, "q.l", n);
	synchro_resolve_found(sql, lt);
	appendStringInfo(sql, " FROM pg_temp.n_%d q", lt->number);
	synchro_sql_join_parents(sql, lt, "q", true);
	if (table->mode == SYNCHRO_MODE_REFERENCE)
		synchro_resolve_reference_join(sql, link, lt, "q", "l");
	else
		synchro_resolve_key_join(sql, lt, "q", SYNCHRO_PARENT_NOW, false);
	appendStringInfoString(sql, " WHERE q.kind = '" SYNCHRO_KIND_PRESENT "'");
	if (table->mode != SYNCHRO_MODE_REFERENCE)
	{
		append_not_waiting(sql, lt);
		append_not_renamed(sql, lt);
	}

	/* of a table with nothing but names, none is mapped yet */
	if (lt->rows != NULL || lt->nolds + lt->nwaiting > 0 || synchro_resolve_may_be_remembered(lt))
	{
		appendStringInfoString(sql, " AND ");
		synchro_resolve_not_mapped(sql, lt, "q", "'n'");
	}
	if (table->mode == SYNCHRO_MODE_REFERENCE && !table->watched)
	{
		appendStringInfoString(sql, " AND ");
		synchro_resolve_not_reborn(sql, lt, "q");
	}
	if (first_of_many)
		append_first(sql, link, lt, "");
	appendStringInfoChar(sql, ';');
}

/*
 * Append statements that fill a table's map.  Its parents in the natural key
 * have been resolved before.
 */
void
synchro_sql_resolve(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	int			self = synchro_resolve_self_fk_in_key(lt);

	if (self >= 0)
	{
		synchro_resolve_tree(sql, lt, self);
		if (lt->rows != NULL)
			resolve_rows_known(sql, lt);
		synchro_resolve_tree_names(sql, lt);
		synchro_sql_forget_unborn(sql, link, lt);
		return;
	}
	if (synchro_resolve_may_be_remembered(lt))
		resolve_remembered(sql, link, lt);
	if (synchro_resolve_may_be_renamed_there(lt))
	{
		synchro_sql_pin_names(sql, lt, true);
		synchro_resolve_renamed_there(sql, lt);
		synchro_sql_pin_names(sql, lt, false);
	}
	if (lt->nolds + lt->nwaiting > 0)
		resolve_olds(sql, link, lt);
	if (lt->nwaiting > 0 && !synchro_resolve_is_pair(lt))
		resolve_waiting(sql, lt);
	if (lt->rows != NULL)
	{
		if (lt->nolds + lt->nwaiting == 0)
			resolve_rows(sql, link, lt);
		else if (lt->table->mode == SYNCHRO_MODE_REFERENCE)
		{
			resolve_rows_moved(sql, link, lt);
			resolve_rows_known(sql, lt);
		}
		else
		{
			if (synchro_resolve_is_pair(lt))
				resolve_pairs(sql, lt);
			resolve_rows_renamed(sql, link, lt);
		}
	}
	if (lt->nolds > 0 && (!lt->table->watched || (lt->table->mode == SYNCHRO_MODE_REFERENCE && lt->nnames > lt->nolds)))
		synchro_resolve_adopt_olds(sql, lt);
	if (lt->nnames > 0)
		resolve_names(sql, link, lt);
	synchro_sql_forget_unborn(sql, link, lt);
	if (!lt->table->allow_many && !lt->remote->key_is_unique &&
		lt->table->mode != SYNCHRO_MODE_REFERENCE)
		synchro_resolve_not_ambiguous(sql, lt);
}
