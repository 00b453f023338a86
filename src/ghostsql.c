/*-------------------------------------------------------------------------
 *
 * ghostsql.c
 *	  SQL text that finds rows of a remote by names that they have lost there.
 *
 * A row whose name nobody bears on the remote may have been renamed there
 * since, or be gone: the remote's log tells.  What decidesql.c's banner says of
 * ghosts is done here.
 *
 * In a tree the parent may be a ghost of the same table: there all this is done
 * level by level, from the root down.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "decidesql.h"
#include "resolvejoin.h"
#include "resolvetree.h"

/* a stamp before all others */
#define BEFORE_ALL "'-9223372036854775808'::int8"

/*
 * Append the joins of parents that are gone on the remote: alias h<fk>.
 */
static void
append_ghost_parents(StringInfo sql, const SynchroLinkTable *lt)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroLinkTable *parent = lt->parents[fk];

		if (parent == NULL || !synchro_fk_names_key(lt, fk))
			continue;
		appendStringInfo(sql, " LEFT JOIN pg_temp.m_%d h%d ON h%d.kind = '" SYNCHRO_KIND_GHOST "' AND ",
						 parent->number, fk, fk);
		synchro_sql_equal(sql, psprintf("h%d.l", fk), psprintf("q.f%d_", fk), parent->table->nidentity);
	}
}

/*
 * The value that a key column had or has on the remote, of the staged name q,
 * as text; also where the parent is gone there.
 */
static char *
name_value(const SynchroLinkTable *lt, int column, SynchroParentView view)
{
	int			fk = synchro_column_fk(lt, column);
	char	   *value = synchro_resolve_key_value(lt, column, "q", view);
	int			position;

	if (fk < 0 || synchro_fk_beyond_identity(lt, fk))
		return synchro_sql_remote_text(lt, column, value);
	position = synchro_identity_position(lt->parents[fk]->table,
										 lt->table->fks[fk].refcols[lt->table->columns[column].fk_pos]);
	return synchro_sql_remote_text(lt, column, psprintf("coalesce(h%d.r%d, %s)", fk, position, value));
}

/*
 * Append a query of names that no row of the remote bears.
 *
 * from: the table with staged columns, alias q, and what else chooses them.
 */
static void
append_unknown_names(StringInfo sql, const SynchroLinkTable *lt, const char *kind, const char *born,
					 const char *from, const char *where, SynchroParentView view)
{
	const SynchroTable *table = lt->table;
	int			self = synchro_resolve_self_fk_in_key(lt);

	appendStringInfo(sql, "INSERT INTO pg_temp.g_%d (named, kind, born, ", lt->number);
	synchro_sql_list(sql, "l", table->nidentity);
	appendStringInfo(sql, ", name) SELECT q.ctid, %s, %s, ", kind, born);
	synchro_sql_list(sql, "q.l", table->nidentity);
	appendStringInfoString(sql, ", ARRAY[");
	for (int i = 0; i < table->nkey; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", name_value(lt, table->key[i], view));
	appendStringInfo(sql, "]::text FROM %s", from);
	if (view == SYNCHRO_PARENT_BEFORE)
		synchro_resolve_join_parents_before(sql, lt, "q", -1);
	else
		synchro_sql_join_parents(sql, lt, "q", true);
	append_ghost_parents(sql, lt);
	appendStringInfo(sql, " WHERE %s", where);

	/* a parent of which nothing is known makes no name */
	for (int i = 0; i < table->nkey; i++)
	{
		int			fk = synchro_column_fk(lt, table->key[i]);

		if (fk >= 0)
			appendStringInfo(sql, " AND (q.f%d_0 IS NULL OR %s IS NOT NULL)", fk, name_value(lt, table->key[i], view));
	}
	if (self < 0)
		return;

	/* once for each, when it is known what is above it; below a row that is new there is nothing */
	appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM pg_temp.g_%d a WHERE a.kind = %s AND a.named = q.ctid)", lt->number, kind);
	if (view == SYNCHRO_PARENT_NOW)
		appendStringInfo(sql, " AND (q.f%d_0 IS NULL OR h%d.kind IS NOT NULL OR NOT p%d.fresh)", self, self, self);
}

/*
 * The statements that search for names that no row of the remote bears in the
 * log of the remote: who bore them last.
 */
static List *
ghost_statements(const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;
	List	   *statements = NIL;
	StringInfo	sql;
	StringInfoData where;
	StringInfoData found;

	if (lt->rows != NULL)
	{
		StringInfoData from;

		initStringInfo(&from);
		appendStringInfo(&from, "pg_temp.s_%d q JOIN pg_temp.m_%d m ON m.kind = 'n' AND m.fresh AND m.stamp IS NOT NULL AND ",
						 lt->number, lt->number);
		synchro_sql_equal(&from, "m.l", "q.l", n);
		sql = makeStringInfo();
		append_unknown_names(sql, lt, "'n'", "m.born", from.data, "NOT q.ensure", SYNCHRO_PARENT_NOW);
		statements = lappend(statements, sql->data);

		/* what others need: may be there by another name, and whatever it named may be gone with it */
		initStringInfo(&from);
		appendStringInfo(&from, "pg_temp.s_%d q JOIN pg_temp.m_%d m ON m.kind = 'n' AND m.fresh AND m.stamp IS NULL AND ", lt->number, lt->number);
		synchro_sql_equal(&from, "m.l", "q.l", n);
		sql = makeStringInfo();
		append_unknown_names(sql, lt, "'" SYNCHRO_KIND_ENSURED "'", "NULL", from.data, "q.ensure", SYNCHRO_PARENT_NOW);
		statements = lappend(statements, sql->data);
	}
	if (lt->nolds > 0)
	{
		initStringInfo(&where);
		appendStringInfoString(&where, "q.kind IN " SYNCHRO_OLD_KINDS " AND ");
		synchro_resolve_not_mapped(&where, lt, "q", "q.kind AND coalesce(m.named, q.ctid) = q.ctid");
		sql = makeStringInfo();
		append_unknown_names(sql, lt, "q.kind", "NULL", psprintf("pg_temp.n_%d q", lt->number),
							 where.data, SYNCHRO_PARENT_BEFORE);
		statements = lappend(statements, sql->data);
	}
	if (lt->nnames > lt->nolds)
	{
		initStringInfo(&where);
		appendStringInfoString(&where, "q.kind = '" SYNCHRO_KIND_PRESENT "' AND ");
		synchro_resolve_not_mapped(&where, lt, "q", "'n'");
		sql = makeStringInfo();
		append_unknown_names(sql, lt, "q.kind", "NULL", psprintf("pg_temp.n_%d q", lt->number),
							 where.data, SYNCHRO_PARENT_NOW);
		statements = lappend(statements, sql->data);
	}

	/* the log does not know of everything: not of what the transaction that inserted the row has deleted again */
	initStringInfo(&found);
	synchro_sql_identity_is(&found, lt, "t", "(w.identity::text[])");
	return lappend(statements,
				   psprintf("UPDATE pg_temp.g_%d g SET identity = w.identity::text[], stamp = w.stamp, origin = w.origin,"
							" live = w.live AND EXISTS (SELECT FROM %s t WHERE %s)"
							" FROM synchro.peer_names(%s, (SELECT pg_catalog.array_agg(DISTINCT name) FROM pg_temp.g_%d WHERE NOT searched),"
							" (SELECT pg_catalog.min(coalesce(born, " BEFORE_ALL ")) FROM pg_temp.g_%d WHERE NOT searched)) w"
							" WHERE w.name = g.name AND g.identity IS NULL AND (g.born IS NULL OR w.lost > g.born)",
							lt->number, lt->remote->rows, found.data, quote_literal_cstr(lt->table->qualified), lt->number, lt->number));
}

/*
 * Append the local identity of a name that was found, and the remote one that
 * bore it last, twice; see synchro_resolve_insert_head().
 */
static void
append_decoded_ghost(StringInfo sql, const SynchroLinkTable *lt)
{
	synchro_sql_list(sql, "g.l", lt->table->nidentity);
	for (int twice = 0; twice < 2; twice++)
	{
		appendStringInfoString(sql, ", ");
		synchro_decide_decoded(sql, lt, NULL, "g.identity");
	}
}

/*
 * Append "r0 = ..., v0 = ...": a row of the map is the one which bore the name g
 * last; values that are pushed stay what it will be.
 */
static void
append_take_ghost(StringInfo sql, const SynchroLinkTable *lt)
{
	synchro_decide_decoded(sql, lt, "r", "g.identity");
	for (int i = 0; i < lt->table->nidentity; i++)
		if (!synchro_identity_is_value(lt, lt->table->identity[i]))
			appendStringInfo(sql, ", v%d = %s", i,
							 synchro_sql_remote_value(lt, lt->table->identity[i], psprintf("(g.identity)[%d]", i + 1)));
}

/*
 * Append what follows for names of before whose row has another name on the
 * remote now.
 */
static void
append_old_ghosts(StringInfo sql, const SynchroLinkTable *lt)
{
	bool		is_tree = synchro_resolve_self_fk_in_key(lt) >= 0;

	synchro_resolve_insert_head(sql, lt, ", ghost, concurrent, named, stamp, origin, there, there_origin, verdict");
	appendStringInfoString(sql, "SELECT g.kind, false, ");
	append_decoded_ghost(sql, lt);
	appendStringInfo(sql, ", true, true, %s, q.stamp, q.origin, g.stamp, g.origin, " SYNCHRO_VERDICT("q", "g"), is_tree ? "g.named" : "NULL");
	appendStringInfo(sql, " FROM pg_temp.g_%d g JOIN pg_temp.n_%d q ON q.kind = g.kind AND q.ctid = g.named AND ", lt->number, lt->number);
	synchro_sql_equal(sql, "q.l", "g.l", lt->table->nidentity);
	appendStringInfoString(sql, " WHERE g.live AND g.kind <> '" SYNCHRO_KIND_PRESENT "'");
	if (is_tree)
		appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM pg_temp.m_%d a WHERE a.ghost AND a.kind = g.kind AND a.named = g.named)", lt->number);
	appendStringInfoChar(sql, ';');
}

/*
 * Append what follows for rows: the remote row that bore the name which the
 * row had before, or has now, is taken, or has gone.
 */
static void
append_row_ghosts(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	/* of several that take one row, the newest gets it */
	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET fresh = false, ghost = true, concurrent = true, there = g.stamp, there_origin = g.origin,"
					 " verdict = " SYNCHRO_VERDICT("m", "g") ", ", lt->number);
	append_take_ghost(sql, lt);
	appendStringInfoString(sql, " FROM (SELECT DISTINCT ON (b.identity) b.* FROM (SELECT DISTINCT ON (");
	synchro_sql_list(sql, "a.l", n);
	appendStringInfo(sql, ") a.*, f.stamp AS fact FROM pg_temp.g_%d a JOIN pg_temp.m_%d f ON f.kind = 'n' AND f.fresh AND f.stamp IS NOT NULL AND ",
					 lt->number, lt->number);
	synchro_sql_equal(sql, "f.l", "a.l", n);
	appendStringInfoString(sql, " WHERE a.identity IS NOT NULL AND a.kind IN ('n', '" SYNCHRO_KIND_OLD "') ORDER BY ");
	synchro_sql_list(sql, "a.l", n);
	appendStringInfo(sql, ", a.kind DESC) b WHERE b.live AND NOT EXISTS (SELECT FROM pg_temp.m_%d c WHERE c.kind = 'n' AND NOT c.fresh"
					 " AND c.stamp IS NOT NULL AND c.verdict IS DISTINCT FROM 'l' AND ", lt->number);
	synchro_decide_identity(sql, lt, "c.r");
	appendStringInfoString(sql, " = b.identity::text) ORDER BY b.identity, b.fact DESC) g WHERE m.kind = 'n' AND m.fresh AND ");
	synchro_sql_equal(sql, "m.l", "g.l", n);
	appendStringInfoChar(sql, ';');

	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET fresh = false, ", lt->number);
	append_take_ghost(sql, lt);
	appendStringInfo(sql, " FROM pg_temp.g_%d g WHERE g.kind = '" SYNCHRO_KIND_ENSURED "' AND g.live AND m.kind = 'n' AND m.fresh AND m.stamp IS NULL AND ", lt->number);
	synchro_sql_equal(sql, "m.l", "g.l", n);
	appendStringInfoChar(sql, ';');

	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET concurrent = true, there = g.stamp, there_origin = g.origin, verdict = " SYNCHRO_VERDICT("m", "g")
					 " FROM pg_temp.g_%d g WHERE m.kind = 'n' AND m.fresh AND m.stamp IS NOT NULL AND m.there IS NULL AND NOT g.live"
					 " AND g.kind IN ('n', '" SYNCHRO_KIND_OLD "') AND ", lt->number, lt->number);
	synchro_sql_equal(sql, "g.l", "m.l", n);
	appendStringInfoChar(sql, ';');
}

/*
 * Append what follows for rows that are referenced: they have another name
 * on the remote now, or are gone there.
 */
static void
append_name_ghosts(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	synchro_resolve_insert_head(sql, lt, ", ghost");
	appendStringInfoString(sql, "SELECT DISTINCT ON (");
	synchro_sql_list(sql, "g.l", n);
	appendStringInfoString(sql, ") CASE WHEN g.live THEN 'n' ELSE '" SYNCHRO_KIND_GHOST "' END::\"char\", false, ");
	append_decoded_ghost(sql, lt);
	appendStringInfo(sql, ", true FROM pg_temp.g_%d g WHERE g.identity IS NOT NULL AND (NOT g.live OR g.kind = '" SYNCHRO_KIND_PRESENT "')", lt->number);
	if (synchro_resolve_self_fk_in_key(lt) >= 0)
	{
		appendStringInfoString(sql, " AND ");
		synchro_resolve_not_mapped(sql, lt, "g", "CASE WHEN g.live THEN 'n' ELSE '" SYNCHRO_KIND_GHOST "' END");
	}
	appendStringInfoString(sql, " ORDER BY ");
	synchro_sql_list(sql, "g.l", n);
	appendStringInfoString(sql, ", g.kind DESC;");
}

/*
 * Append what follows from the search.
 */
static void
append_found_ghosts(StringInfo sql, const SynchroLinkTable *lt)
{
	if (lt->nolds > 0)
		append_old_ghosts(sql, lt);
	if (lt->rows != NULL)
		append_row_ghosts(sql, lt);
	append_name_ghosts(sql, lt);
}

/*
 * Append the search for ghosts in a tree, and what follows from it.  Each level
 * of ghosts makes names of the next one, and one that has another name now has
 * rows below it that bear theirs still.
 */
static void
append_tree_ghosts(StringInfo sql, const SynchroLinkTable *lt)
{
	List	   *statements = ghost_statements(lt);
	StringInfoData found;
	ListCell   *cell;

	/* each name once: all of the log may be read for it */
	statements = lappend(statements, psprintf("UPDATE pg_temp.g_%d SET searched = true WHERE NOT searched", lt->number));
	initStringInfo(&found);
	append_found_ghosts(&found, lt);
	statements = list_concat(lappend(statements, found.data), synchro_resolve_tree_below(lt));
	appendStringInfoString(sql, "SELECT pg_temp.synchro_repeat(");
	foreach(cell, statements)
		appendStringInfo(sql, "%s%s", foreach_current_index(cell) > 0 ? ", " : "", quote_literal_cstr(lfirst(cell)));
	appendStringInfoString(sql, ");");
}

/*
 * Append the decisions about rows in mode reference whose remote row is gone:
 * the reference still tells which that was.
 */
static void
append_gone_references(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);
	StringInfoData pairs;

	initStringInfo(&pairs);
	appendStringInfo(&pairs, "pg_temp.m_%d f JOIN %s.reference y ON y.node = '%s' AND y.relation = %s AND y.local_key OPERATOR(pg_catalog.=) ARRAY[",
					 lt->number, link->peer, link->node, relation);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(&pairs, "%sf.l%d::text", i > 0 ? ", " : "", i);
	appendStringInfoString(&pairs, "] WHERE f.kind = 'n' AND f.fresh AND f.stamp IS NOT NULL");
	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET there = w.stamp, there_origin = w.origin, concurrent = true, verdict = " SYNCHRO_VERDICT("m", "w")
					 " FROM (SELECT f.*, y.remote_key::text AS former FROM %s) p, synchro.peer_newest(%s, (SELECT pg_catalog.array_agg(y.remote_key::text) FROM %s),"
					 " (SELECT pg_catalog.min(stamp) FROM pg_temp.m_%d)) w WHERE m.kind = 'n' AND w.identity = p.former AND ",
					 lt->number, pairs.data, relation, pairs.data, lt->number);
	synchro_sql_equal(sql, "p.l", "m.l", lt->table->nidentity);
	appendStringInfoChar(sql, ';');
}

/*
 * Append the search for rows of a table that were not found by their names,
 * and what follows from it.  The other rows have been decided about.
 */
void
synchro_sql_ghosts(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	ListCell   *cell;

	if (lt->table->nkey == 0)
	{
		if (lt->rows != NULL)
			append_gone_references(sql, link, lt);
		return;
	}
	if (synchro_resolve_self_fk_in_key(lt) >= 0)
	{
		append_tree_ghosts(sql, lt);
		return;
	}
	foreach(cell, ghost_statements(lt))
		appendStringInfo(sql, "%s;", (char *) lfirst(cell));
	append_found_ghosts(sql, lt);
}
