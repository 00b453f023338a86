/*-------------------------------------------------------------------------
 *
 * crosssql.c
 *	  SQL text about facts that meet another row than they were said of, since
 *	  a name has changed hands on the remote.
 *
 * A fact is about a name, and meets the remote's row of that name.  Where rows
 * have exchanged names on the remote, and the sender has not been told, that is
 * another row than the one which the sender said it of.  For the rows
 * themselves that is as it should be: names decide.  But whatever refers to
 * them follows the row and not the name: as soon as the sender is told of the
 * exchange, its own row, with the fact and all that refers to it, goes to the
 * other name, while here the fact stays at the name that it came with.  No
 * entry of either log would ever say that the two differ.
 *
 * So what becomes of such a fact here is a change that this node makes itself:
 * the row that the fact has met, and the row that it was said of, as they are
 * then, each with a stamp just after the fact's; if there is no row that it was
 * said of, that the name is gone which the sender's row is going to have.  All
 * nodes hear of that, and it is newer than all that they can have made of the
 * fact, so they end up with these rows by these names, in whatever order they
 * hear of fact and exchange.  A change that anybody makes later is newer
 * still.  That a fact has met another row is found where the remote's log has
 * the exchange and has not told the sender; to restate a row needlessly, since
 * the sender has heard of the exchange by another way, costs a message and
 * changes nothing.
 *
 * That need not be so young as the fact: a name that was exchanged before the
 * fact was made crosses it just as well, as long as the sender has not been
 * told.  So it is not a matter of time how much of the log is read, but of
 * renames: the log has an index of these (logwrite.c), whose entries that the
 * sender has not been told are few, or none.  Batches do not look for them, and
 * cost nothing, unless there are any: the remote then refuses the batch
 * (peer_begin(), peer_recheck()), and it comes again with what is here, as do
 * the next ones (quarantine.c).
 *
 * Columns of the map m_N:
 *
 *	  crossed		the row is another one than the sender means by its name
 *	  meant			identity of the one that it means, as text; NULL if there is
 *					none
 *	  missing		what that would be called here, as text
 *
 * In a tree, whose rows are found from the root down, and where foreign keys
 * reference other columns than the parent's identity, nothing is restated.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "decidesql.h"
#include "resolvejoin.h"

/* of the map: a name of before that nobody bears */
#define KIND_MET_NONE	"c"

/*
 * Can it be told of the table's rows?
 */
static bool
may_cross(const SynchroLinkTable *lt)
{
	if (!lt->decides || lt->table->nkey == 0 || synchro_resolve_self_fk_in_key(lt) >= 0)
		return false;
	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (lt->parents[fk] != NULL && synchro_fk_names_key(lt, fk) && synchro_fk_beyond_identity(lt, fk))
			return false;
	return true;
}

/*
 * Append the identity of the remote row alias, as text.
 */
static void
append_identity(StringInfo sql, const SynchroLinkTable *lt, const char *alias)
{
	appendStringInfoString(sql, "ARRAY[");
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", synchro_sql_remote_column(lt, lt->table->identity[i], alias));
	appendStringInfoString(sql, "]::text");
}

/*
 * Append "the key column of a remote row is that value", NULL being equal to
 * NULL.
 */
static void
append_is_called(StringInfo sql, const SynchroLinkTable *lt, int column, const char *called, const char *value)
{
	appendStringInfo(sql, "(%s %s %s", called, lt->remote->columns[column].equals, value);
	if (!lt->table->columns[column].not_null)
		appendStringInfo(sql, " OR (%s " SYNCHRO_SQL_IS_NULL " AND (%s) " SYNCHRO_SQL_IS_NULL ")", called, value);
	appendStringInfoChar(sql, ')');
}

/*
 * Append "the row that the batch has met bears a name that this row has lost":
 * aliases x and w.
 */
static void
append_bears_name(StringInfo sql, const SynchroLinkTable *lt)
{
	for (int i = 0; i < lt->table->nkey; i++)
	{
		append_is_called(sql, lt, lt->table->key[i], psprintf("x.k%d", i),
						 synchro_sql_remote_value(lt, lt->table->key[i], psprintf("(w.name::text[])[%d]", i + 1)));
		appendStringInfoString(sql, " AND ");
	}
	appendStringInfoString(sql, "x.identity <> w.identity");
}

/*
 * Append the search for rows of the map that bear names now which the sender
 * calls others by.
 *
 * First only names that rows here have lost are compared with those of the
 * rows that were met, by the log's index of renames.  What more the log says
 * of a row, which the sender may know by its present name nevertheless, is
 * read of those alone that have a name in common with one of the batch.
 */
static void
append_exchanged(StringInfo sql, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	char	   *relation = quote_literal_cstr(table->qualified);

	appendStringInfoString(sql, "WITH x AS MATERIALIZED (SELECT m.ctid AS place, t.* FROM pg_temp.m_");
	appendStringInfo(sql, "%d m CROSS JOIN LATERAL (SELECT ", lt->number);
	append_identity(sql, lt, "t");
	appendStringInfoString(sql, " AS identity");
	for (int i = 0; i < table->nkey; i++)
		appendStringInfo(sql, ", t.%s AS k%d", synchro_column_name(lt, table->key[i]), i);
	appendStringInfo(sql, " FROM %s t WHERE ", lt->remote->rows);
	synchro_sql_identity_equal(sql, lt, "t", "m.r");
	appendStringInfo(sql, " LIMIT 1) t WHERE NOT coalesce(m.fresh, false)) UPDATE pg_temp.m_%d m SET crossed = true, meant = w.identity FROM x"
					 " JOIN synchro.peer_renamed(%s, (SELECT pg_catalog.array_agg(DISTINCT w.identity) FROM x JOIN synchro.peer_lost_names(%s) w ON ",
					 lt->number, relation, relation);
	append_bears_name(sql, lt);
	appendStringInfoString(sql, ")) w ON ");
	append_bears_name(sql, lt);
	appendStringInfoString(sql, " WHERE m.ctid = x.place;");
}

/*
 * A column of the map about the parent that a key column stands for.
 */
static char *
parent_says(const SynchroLinkTable *lt, int fk, const char *what, SynchroParentView view)
{
	if (view == SYNCHRO_PARENT_NOW || lt->parents[fk]->nolds == 0)
		return psprintf("p%d.%s", fk, what);
	return psprintf("coalesce(d%d.%s, o%d.%s, p%d.%s)", fk, what, fk, what, fk, what);
}

/*
 * The value that a key column has in the name by which the sender means a row,
 * of the staged row or name q.
 */
static char *
meant_value(const SynchroLinkTable *lt, int column, SynchroParentView view)
{
	int			fk = synchro_column_fk(lt, column);
	char	   *value = synchro_resolve_key_value(lt, column, "q", view);
	int			position;

	if (fk < 0)
		return value;
	position = synchro_identity_position(lt->parents[fk]->table,
										 lt->table->fks[fk].refcols[lt->table->columns[column].fk_pos]);
	return psprintf("CASE WHEN %s THEN %s ELSE %s END", parent_says(lt, fk, "crossed", view),
					synchro_sql_remote_value(lt, column, psprintf("((%s)::text[])[%d]", parent_says(lt, fk, "meant", view), position + 1)),
					value);
}

/*
 * Append a query of staged rows or names whose parents are others than the
 * sender means.  from: s or n.
 */
static void
append_inheriting(StringInfo sql, const SynchroLinkTable *lt, char from, SynchroParentView view)
{
	const SynchroTable *table = lt->table;
	bool		any = false;

	appendStringInfoString(sql, "(SELECT q.*, q.ctid AS place, (SELECT ");
	append_identity(sql, lt, "t");
	appendStringInfo(sql, " FROM %s t WHERE ", lt->remote->rows);
	for (int i = 0; i < table->nkey; i++)
	{
		appendStringInfoString(sql, i > 0 ? " AND " : "");
		append_is_called(sql, lt, table->key[i], psprintf("t.%s", synchro_column_name(lt, table->key[i])),
						 meant_value(lt, table->key[i], view));
	}
	appendStringInfoString(sql, " LIMIT 1) AS meant, CASE WHEN true");
	for (int fk = 0; fk < table->nfks; fk++)
		if (lt->parents[fk] != NULL && synchro_fk_names_key(lt, fk))
			appendStringInfo(sql, " AND (%s IS NULL OR %s IS NOT NULL)", parent_says(lt, fk, "crossed", view),
							 parent_says(lt, fk, "meant", view));
	appendStringInfoString(sql, " THEN ARRAY[");
	for (int i = 0; i < table->nkey; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "",
						 synchro_sql_remote_text(lt, table->key[i], psprintf("(%s)", meant_value(lt, table->key[i], view))));
	appendStringInfo(sql, "]::text END AS missing FROM pg_temp.%c_%d q", from, lt->number);
	if (view == SYNCHRO_PARENT_BEFORE)
		synchro_resolve_join_parents_before(sql, lt, "q", -1);
	else
		synchro_sql_join_parents(sql, lt, "q", true);
	for (int fk = 0; fk < table->nfks; fk++)
	{
		if (lt->parents[fk] == NULL || !synchro_fk_names_key(lt, fk))
			continue;
		appendStringInfo(sql, "%s%s", any ? " OR " : " WHERE (", parent_says(lt, fk, "crossed", view));
		any = true;
	}
	appendStringInfoString(sql, ")) z");
}

/*
 * Append the search for rows of the map whose parents are others than the
 * sender means.  which: rows of the map, alias m, of that z.
 */
static void
append_inherited(StringInfo sql, const SynchroLinkTable *lt, char from, const char *which, SynchroParentView view)
{
	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET crossed = true, meant = z.meant, missing = z.missing FROM ", lt->number);
	append_inheriting(sql, lt, from, view);
	appendStringInfo(sql, " WHERE %s AND ", which);
	synchro_sql_equal(sql, "z.l", "m.l", lt->table->nidentity);
	appendStringInfoChar(sql, ';');
}

/*
 * Append names of before that nobody bears here, of rows that are called
 * otherwise here: the sender's fact meets none, but was said of one.
 */
static void
append_met_none(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "INSERT INTO pg_temp.m_%d (kind, fresh, stamp, origin, crossed, meant, named, ", lt->number);
	synchro_sql_list(sql, "l", lt->table->nidentity);
	appendStringInfoString(sql, ") SELECT '" KIND_MET_NONE "', true, z.stamp, z.origin, true, z.meant, z.place, ");
	synchro_sql_list(sql, "z.l", lt->table->nidentity);
	appendStringInfoString(sql, " FROM ");
	append_inheriting(sql, lt, 'n', SYNCHRO_PARENT_BEFORE);
	appendStringInfo(sql, " WHERE z.kind NOT IN ('" SYNCHRO_KIND_PRESENT "', '" SYNCHRO_KIND_WAITING "') AND z.meant IS NOT NULL AND NOT EXISTS (SELECT FROM pg_temp.m_%d m"
					 " WHERE m.kind = z.kind AND coalesce(m.named, z.place) = z.place AND ", lt->number);
	synchro_sql_equal(sql, "z.l", "m.l", lt->table->nidentity);
	appendStringInfoString(sql, ");");
}

/*
 * Append what finds the rows of a table that are others than the sender means.
 * Its parents in the natural key have been looked at before.
 */
void
synchro_sql_crossed(StringInfo sql, const SynchroLinkTable *lt)
{
	bool		named = false;

	if (!may_cross(lt))
		return;
	append_exchanged(sql, lt);
	for (int fk = 0; fk < lt->table->nfks; fk++)
		named |= lt->parents[fk] != NULL && synchro_fk_names_key(lt, fk);
	if (!named)
		return;
	if (lt->rows != NULL)
		append_inherited(sql, lt, 's', "m.kind = 'n'", SYNCHRO_PARENT_NOW);
	if (lt->nnames > lt->nolds)
		append_inherited(sql, lt, 'n', "z.kind = '" SYNCHRO_KIND_PRESENT "' AND m.kind = 'n'", SYNCHRO_PARENT_NOW);
	if (lt->nolds == 0)
		return;
	append_inherited(sql, lt, 'n', "z.kind NOT IN ('" SYNCHRO_KIND_PRESENT "', '" SYNCHRO_KIND_WAITING "') AND m.kind = z.kind AND coalesce(m.named, z.place) = z.place",
					 SYNCHRO_PARENT_BEFORE);

	append_met_none(sql, lt);

	/* a row that the sender has renamed is the one that bore the name before */
	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET crossed = true, meant = coalesce(o.meant, m.meant) FROM pg_temp.m_%d o"
					 " WHERE m.kind = 'n' AND o.kind = '" SYNCHRO_KIND_OLD "' AND o.crossed AND ", lt->number, lt->number);
	synchro_sql_equal(sql, "o.l", "m.l", lt->table->nidentity);
	appendStringInfoChar(sql, ';');
}

/*
 * Append what finds the rows of a table that refer to others than the sender
 * means, by foreign keys that do not stand for their names.  Here they come to
 * refer to the row that bears the name; the sender's would go with the one
 * that bore it.  All tables have been looked at by synchro_sql_crossed().
 */
void
synchro_sql_crossed_references(StringInfo sql, const SynchroLinkTable *lt)
{
	bool		any = false;

	if (!lt->decides || lt->rows == NULL)
		return;
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroLinkTable *parent = lt->parents[fk];

		if (parent == NULL || !may_cross(parent) || synchro_fk_names_key(lt, fk))
			continue;
		if (!any)
			appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET crossed = true FROM pg_temp.s_%d q WHERE m.kind = 'n' AND ",
							 lt->number, lt->number);
		if (!any)
			synchro_sql_equal(sql, "q.l", "m.l", lt->table->nidentity);
		appendStringInfo(sql, "%s EXISTS (SELECT FROM pg_temp.m_%d p WHERE p.kind = 'n' AND p.crossed AND ",
						 any ? " OR" : " AND (", parent->number);
		synchro_sql_equal(sql, "p.l", psprintf("q.f%d_", fk), parent->table->nidentity);
		appendStringInfoChar(sql, ')');
		any = true;
	}
	if (any)
		appendStringInfoString(sql, ");");
}

/*
 * Append what makes rows that facts have met, and those that they were said
 * of, changes of the remote's own.  It has been said what is going to be
 * written.
 */
void
synchro_sql_restate(StringInfo sql, const SynchroLinkTable *lt)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);

	if (!lt->decides)
		return;
	appendStringInfo(sql, "SELECT synchro.peer_restate(%s, pg_catalog.array_agg(x.identity), pg_catalog.array_agg(x.stamp)) FROM ("
					 "SELECT y.identity, pg_catalog.max(y.stamp) AS stamp FROM (SELECT m.meant AS identity, m.stamp FROM pg_temp.m_%d m"
					 " WHERE m.crossed AND m.stamp IS NOT NULL AND m.verdict IS DISTINCT FROM 's' UNION ALL SELECT ",
					 relation, lt->number);
	synchro_decide_identity(sql, lt, "m.v");
	appendStringInfo(sql, ", m.stamp FROM pg_temp.m_%d m WHERE m.crossed AND m.kind <> '" KIND_MET_NONE "' AND m.stamp IS NOT NULL AND m.verdict IS NULL) y"
					 " WHERE y.identity IS NOT NULL GROUP BY y.identity) x HAVING count(*) > 0;", lt->number);
	if (!may_cross(lt))
		return;
	appendStringInfo(sql, "SELECT pg_catalog.count(synchro.peer_gone(%s, ", relation);
	synchro_decide_identity(sql, lt, "m.v");
	appendStringInfo(sql, ", m.missing, m.stamp)) FROM pg_temp.m_%d m WHERE m.crossed AND m.kind = 'n' AND m.meant IS NULL"
					 " AND m.missing IS NOT NULL AND m.stamp IS NOT NULL AND m.verdict IS DISTINCT FROM 's';", lt->number);
}
