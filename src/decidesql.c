/*-------------------------------------------------------------------------
 *
 * decidesql.c
 *	  SQL text that lets the newer change win, on a remote that logs changes,
 *	  too.
 *
 * Every change has a stamp, the time of its commit and the node where it was
 * made; the pair decides, on all nodes alike.  What a batch says are two kinds
 * of facts: the row with this natural key is such, since then; and nothing is
 * called by that name any more, since then.  Each is compared with what the
 * remote's own log knows of the row that it would change, in the columns that
 * the map m_N has for this:
 *
 *	  stamp, origin			of the fact; NULL where the row is only looked up
 *	  born					when the row was inserted, if the remote cannot know
 *							it; else NULL
 *	  there, there_origin	of the newest change that the remote's log has of the
 *							remote row
 *	  concurrent			whoever made the change had not seen that one
 *	  ghost					found by a name that the remote's row has lost
 *	  verdict				l: the fact has lost.  k: it is a delete that has lost
 *							against newer rows which refer to the row.  s: the
 *							remote has it already.  NULL: it is applied
 *
 * A name that no row of the remote bears may have been borne by one that was
 * renamed there since, or is gone.  The remote's log tells (g_N): a row that
 * has been renamed is the same row still, and whichever change of it is newer
 * wins, its name included; one that is gone wins if it went later.  A row that
 * is known to have been inserted after the remote's row lost the name is
 * another one.  If the batch has a fact for the name that the remote's row
 * bears now, and that wins, the row is not taken from it.
 *
 * When a fact by a ghost's name wins, the name that the remote's row had until
 * now is gone, which the batch's sender does not know: the log says so
 * ("derived"), and that is sent back.
 *
 * A fact that loses is recorded, and the winner is queued for the sender.  So
 * whatever order changes arrive in and whichever way, two nodes that disagree
 * about a name hear of it, and both end up with the newer fact.
 *
 * All this sees what is committed.  What commits between here and the moment
 * when a row is locked is seen by synchro_sql_recheck() at the end, by when
 * the locks keep everybody else out: the batch is then tried again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "decidesql.h"
#include "previewsql.h"
#include "resolvejoin.h"

/* see append_second_look() */
#define SECOND_LOOKS 3

/*
 * Append an identity of the remote as text, as the functions of the remote
 * take and return it.
 */
void
synchro_decide_identity(StringInfo sql, const SynchroLinkTable *lt, const char *prefix)
{
	appendStringInfoString(sql, "ARRAY[");
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "",
						 synchro_sql_remote_text(lt, lt->table->identity[i], psprintf("%s%d", prefix, i)));
	appendStringInfoString(sql, "]::text");
}

/*
 * Append "prefix0 = (identity)[1]::type, ..." or only the values.
 */
void
synchro_decide_decoded(StringInfo sql, const SynchroLinkTable *lt, const char *prefix, const char *source)
{
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		appendStringInfoString(sql, i > 0 ? ", " : "");
		if (prefix != NULL)
			appendStringInfo(sql, "%s%d = ", prefix, i);
		appendStringInfoString(sql, synchro_sql_remote_value(lt, lt->table->identity[i], psprintf("(%s)[%d]", source, i + 1)));
	}
}

/*
 * Can a row of the table be found by the names that it had?
 */
static bool
has_names(const SynchroLinkTable *lt)
{
	return lt->table->nkey > 0;
}

/*
 * Append the creation of a table's staging table for names to be looked for in
 * the remote's log.
 */
void
synchro_sql_stage_decisions(StringInfo sql, const SynchroLinkTable *lt)
{
	if (!lt->decides)
		return;
	appendStringInfo(sql, "CREATE TEMPORARY TABLE g_%d (kind \"char\", name text, born int8, identity text[],"
					 " live boolean, stamp int8, origin uuid, named tid, searched boolean NOT NULL DEFAULT false", lt->number);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, ", l%d %s", i, synchro_stage_type(lt->table, i));
	appendStringInfoString(sql, ") ON COMMIT DELETE ROWS;");
}

/*
 * Append "the remote is the node still that the link has met", to come before
 * the fence.  What comes from that one has been left out; to another one, as
 * confirm_node() makes it, all that would be pushed back, rows without a natural
 * key as new ones.  If it is not, that is an error by SQLSTATE SYNCHRO_OTHER_NODE:
 * nothing of ours that could raise one need be there yet.
 */
void
synchro_sql_same_node(StringInfo sql, const SynchroLink *link)
{
	appendStringInfo(sql, "SELECT pg_catalog.ln((synchro.peer_node() OPERATOR(pg_catalog.=) '%s'::uuid)::int4::float8);",
					 DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(link->peer_node))));
}

/*
 * Append what comes first in a transaction that decides.  seen: how much of
 * the remote's log had been pushed here when the batch was read, as a snapshot
 * of the remote; NULL if nothing is known of that.  uncertainty: of the clocks,
 * microseconds.  named: likewise, how much of what its rows are called; looks:
 * whether the batch looks for what has changed of that since.
 */
void
synchro_sql_begin_deciding(StringInfo sql, const SynchroLink *link, const char *seen, int64 uncertainty,
						   const char *named, bool looks)
{
	appendStringInfo(sql, "SELECT synchro.peer_begin('%s', %s, " INT64_FORMAT, link->node,
					 seen != NULL ? quote_literal_cstr(seen) : "NULL", uncertainty);
	if (named != NULL)
		appendStringInfo(sql, ", %s, %s", quote_literal_cstr(named), looks ? "true" : "false");
	appendStringInfoString(sql, ");");
}

/*
 * Append the comparison with what the remote's log has of rows that were
 * found.  where: which rows of the map, alias m.
 */
static void
append_newest(StringInfo sql, const SynchroLinkTable *lt, const char *where)
{
	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET there = w.stamp, there_origin = w.origin, concurrent = w.concurrent, verdict = "
					 SYNCHRO_VERDICT("m", "w") " FROM synchro.peer_newest(%s, (SELECT pg_catalog.array_agg(DISTINCT ",
					 lt->number, quote_literal_cstr(lt->table->qualified));
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfo(sql, ") FROM pg_temp.m_%d m WHERE %s), (SELECT pg_catalog.min(stamp) FROM pg_temp.m_%d m WHERE %s)) w WHERE %s AND w.identity = ",
					 lt->number, where, lt->number, where, where);
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfoChar(sql, ';');
}

/*
 * Append a second look at which remote row is which, after a batch has failed
 * because a unique value was taken.
 *
 * Resolving takes it that rows whose name of before is known will get the new
 * one, and that names which nobody bears any more become free.  A fact that
 * has lost does neither: then the remote row keeps the name, and is the one
 * that another fact of that name is about.  So each row whose present name a
 * remote row bears that stays as it is, is taken for that one.  As this may
 * leave others in turn, it is done a few times; what is still in the way after
 * that has the batch fail.
 */
static void
append_second_look(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	for (int i = 0; i < SECOND_LOOKS; i++)
	{
		appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET fresh = false, again = true, there = NULL, there_origin = NULL,"
						 " concurrent = NULL, verdict = NULL", lt->number);
		synchro_resolve_take(sql, lt, "x");
		appendStringInfoString(sql, " FROM (SELECT ");
		synchro_sql_list(sql, "q.l", n);
		for (int j = 0; j < n; j++)
			appendStringInfo(sql, ", t.%s AS r%d", synchro_column_name(lt, lt->table->identity[j]), j);
		appendStringInfo(sql, " FROM pg_temp.s_%d q", lt->number);
		synchro_sql_join_parents(sql, lt, "q", false);
		synchro_resolve_key_join(sql, lt, "q", SYNCHRO_PARENT_NOW, false);

		/* another row's that wins, so gets another name */
		appendStringInfo(sql, " WHERE NOT EXISTS (SELECT FROM pg_temp.m_%d c WHERE c.kind = 'n' AND NOT c.fresh"
						 " AND c.verdict IS DISTINCT FROM 'l' AND NOT (", lt->number);
		synchro_sql_equal(sql, "c.l", "q.l", n);
		appendStringInfoString(sql, ") AND ");
		synchro_sql_identity_equal(sql, lt, "t", "c.r");
		appendStringInfoString(sql, ")) x WHERE m.kind = 'n' AND m.stamp IS NOT NULL AND (m.fresh OR m.verdict IS DISTINCT FROM 'l') AND ");
		synchro_sql_equal(sql, "m.l", "x.l", n);

		/* what another row was before, that is one of its own now: it goes, with all that it names */
		appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM pg_temp.m_%d o JOIN pg_temp.m_%d p ON p.kind = 'n' AND p.stamp IS NOT NULL AND ",
						 lt->number, lt->number);
		synchro_sql_equal(sql, "p.l", "o.l", n);
		appendStringInfoString(sql, " WHERE o.kind = '" SYNCHRO_KIND_OLD "' AND o.verdict IS NULL AND NOT (");
		synchro_sql_equal(sql, "o.l", "m.l", n);
		appendStringInfoString(sql, ") AND ");
		synchro_sql_same_row(sql, lt, "o.r", "x.r");
		appendStringInfoString(sql, ") AND (m.fresh OR ROW(");
		synchro_sql_list(sql, "m.r", n);
		appendStringInfoString(sql, ")::record OPERATOR(pg_catalog.*<>) ROW(");
		synchro_sql_list(sql, "x.r", n);
		/* one that is about to go gives its name up */
		appendStringInfo(sql, ")::record AND NOT EXISTS (SELECT FROM pg_temp.m_%d g WHERE g.kind IN " SYNCHRO_OLD_KINDS " AND g.verdict IS NULL AND ", lt->number);
		synchro_sql_same_row(sql, lt, "g.r", "x.r");
		appendStringInfoString(sql, "));");
		append_newest(sql, lt, "m.again");
	}
}

/*
 * Append the decisions about a table's rows and names, which have been
 * resolved.  leftovers: also about deletes that earlier batches of the pass
 * have left to this one.  careful: the batch has failed because a unique value
 * was taken.
 */
void
synchro_sql_decide(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, bool leftovers, bool careful)
{
	int			n = lt->table->nidentity;

	if (!lt->decides)
		return;
	if (lt->rows != NULL)
	{
		appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET stamp = c.stamp, origin = c.origin, born = c.born"
						 " FROM pg_temp.c_%d c JOIN pg_temp.s_%d s ON NOT s.ensure AND ", lt->number, lt->number, lt->number);
		synchro_sql_equal(sql, "s.l", "c.l", n);
		appendStringInfoString(sql, " WHERE m.kind = 'n' AND ");
		synchro_sql_equal(sql, "m.l", "c.l", n);
		appendStringInfoChar(sql, ';');
	}
	if (lt->nolds > 0)
	{
		appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET stamp = q.stamp, origin = q.origin FROM pg_temp.n_%d q"
						 " WHERE m.kind = q.kind AND q.kind <> '" SYNCHRO_KIND_PRESENT "' AND coalesce(m.named, q.ctid) = q.ctid AND ", lt->number, lt->number);
		synchro_sql_equal(sql, "m.l", "q.l", n);
		appendStringInfoChar(sql, ';');
	}
	if (leftovers)
	{
		appendStringInfo(sql, "INSERT INTO pg_temp.m_%d (kind, fresh, stamp, origin, ", lt->number);
		synchro_sql_list(sql, "r", n);
		appendStringInfoString(sql, ", ");
		synchro_sql_list(sql, "v", n);
		appendStringInfoString(sql, ") SELECT '" SYNCHRO_KIND_GONE "', false, stamp, origin, ");
		synchro_decide_decoded(sql, lt, NULL, "remote_key");
		appendStringInfoString(sql, ", ");
		synchro_decide_decoded(sql, lt, NULL, "remote_key");
		appendStringInfo(sql, " FROM %s.unapplied WHERE node = '%s' AND relation = %s AND stamp IS NOT NULL;",
						 link->peer, link->node, quote_literal_cstr(lt->table->qualified));
	}

	append_newest(sql, lt, "m.stamp IS NOT NULL AND NOT m.fresh");

	/*
	 * A row that waits for its delete may have been renamed together with what it refers to, by an earlier batch: that
	 * was logged with the delete's stamp, and is not the delete.
	 */
	if (leftovers)
		appendStringInfo(sql, "UPDATE pg_temp.m_%d SET verdict = NULL WHERE kind = '" SYNCHRO_KIND_GONE "' AND verdict = 's' AND l0 IS NULL;", lt->number);
	if (careful && has_names(lt) && lt->rows != NULL && synchro_resolve_self_fk_in_key(lt) < 0)
		append_second_look(sql, lt);
	synchro_sql_ghosts(sql, link, lt);

	/* what was found below ghosts */
	if (synchro_resolve_self_fk_in_key(lt) >= 0)
		append_newest(sql, lt, "m.again AND m.stamp IS NOT NULL AND NOT m.fresh");
}

/*
 * Append a condition: a row of the batch that is applied refers to the staged
 * row s.  False if no table of the batch does.
 */
static bool
append_is_referenced(StringInfo sql, const SynchroLinkTable *lt, List *tables)
{
	ListCell   *cell;
	bool		any = false;

	foreach(cell, tables)
	{
		const SynchroLinkTable *child = lfirst(cell);

		for (int fk = 0; child->rows != NULL && fk < child->table->nfks; fk++)
		{
			if (child->parents[fk] != lt)
				continue;
			appendStringInfo(sql, "%sEXISTS (SELECT FROM pg_temp.s_%d x WHERE ", any ? " OR " : "(", child->number);
			synchro_sql_equal(sql, psprintf("x.f%d_", fk), "s.l", lt->table->nidentity);
			appendStringInfoChar(sql, ')');
			any = true;
		}
	}
	if (any)
		appendStringInfoChar(sql, ')');
	return any;
}

/*
 * Append a staged row as the remote would have it, in JSON.
 */
static void
append_staged_json(StringInfo sql, const SynchroLinkTable *lt)
{
	bool		any = false;
	StringInfoData value;

	initStringInfo(&value);
	appendStringInfoString(sql, "(SELECT pg_catalog.to_jsonb(z.*) FROM (SELECT ");
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		if (!lt->pushed[i])
			continue;
		resetStringInfo(&value);
		synchro_sql_value(&value, lt, i, "s", "r");
		appendStringInfo(sql, "%s%s AS %s", any ? ", " : "",
						 synchro_sql_jsonable(value.data, lt->remote->columns[i].base), synchro_column_name(lt, i));
		any = true;
	}
	appendStringInfoString(sql, ") z)");
}

/*
 * Append the join of rows that are given another name by this batch, or go:
 * alias u, of the remote row t, which bears the present name of a row that has
 * lost.
 *
 * A join, since a subquery that is asked for each row that has lost would read
 * the map each time: where both sides have renamed all rows of a table alike,
 * all have lost.  Its condition is about m, too, or the planner might join u
 * with t, which is looked up row by row, and so for each row anew.  The map has
 * a remote row's identity as that row has it, so DISTINCT leaves one for each.
 * A row that has lost is none of these itself.
 */
static void
append_join_giving_up(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	appendStringInfoString(sql, " LEFT JOIN (SELECT DISTINCT true AS gives_up, ");
	synchro_sql_list(sql, "x.r", n);
	appendStringInfoString(sql, " FROM (SELECT ");
	synchro_sql_list(sql, "x.r", n);
	appendStringInfo(sql, " FROM pg_temp.m_%d x WHERE x.stamp IS NOT NULL AND x.verdict IS NULL AND x.kind = 'n' AND NOT x.fresh UNION ALL SELECT ",
					 lt->number);
	synchro_sql_list(sql, "x.r", n);
	appendStringInfo(sql, " FROM pg_temp.m_%d x WHERE x.stamp IS NOT NULL AND x.verdict IS NULL AND x.kind IN " SYNCHRO_OLD_KINDS
					 " AND NOT EXISTS (SELECT FROM pg_temp.m_%d y WHERE y.kind = 'n' AND ", lt->number, lt->number);
	synchro_sql_same_row(sql, lt, "y.r", "x.r");
	appendStringInfoString(sql, ")) x) u ON m.verdict = 'l' AND ");
	synchro_sql_identity_equal(sql, lt, "t", "u.r");
}

/*
 * Append the name that a row which has lost bears now, if nobody on the
 * remote, alias t, will bear it after the batch; see append_join_giving_up().
 * The sender has to hear that it is gone: the winner may be another row to him.
 */
static void
append_refused_name(StringInfo sql, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;

	if (!has_names(lt))
	{
		appendStringInfoString(sql, "NULL");
		return;
	}
	appendStringInfoString(sql, "CASE WHEN (t.tableoid IS NULL");
	if (lt->nolds > 0)
		appendStringInfoString(sql, " OR u.gives_up");
	appendStringInfoChar(sql, ')');
	for (int i = 0; i < table->nkey; i++)
	{
		int			fk = synchro_column_fk(lt, table->key[i]);

		if (fk >= 0)
			appendStringInfo(sql, " AND (s.f%d_0 IS NULL OR %s IS NOT NULL)", fk,
							 synchro_resolve_key_value(lt, table->key[i], "s", SYNCHRO_PARENT_NOW));
	}
	appendStringInfoString(sql, " THEN ARRAY[");
	for (int i = 0; i < table->nkey; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "",
						 synchro_sql_remote_text(lt, table->key[i], synchro_resolve_key_value(lt, table->key[i], "s", SYNCHRO_PARENT_NOW)));
	appendStringInfoString(sql, "]::text END");
}

/*
 * Append the record of rows that have lost; the winners are queued for the
 * sender.
 */
static void
append_lost_rows(StringInfo sql, const SynchroLinkTable *lt)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);
	int			n = lt->table->nidentity;

	appendStringInfo(sql, "SELECT '" SYNCHRO_SKIPPED_TAG "', count(*), pg_catalog.count(synchro.peer_lost(%s, CASE WHEN NOT m.fresh THEN ", relation);
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfoString(sql, " END, m.there, m.there_origin, m.stamp, m.origin, ");
	append_staged_json(sql, lt);
	appendStringInfoString(sql, ", coalesce(CASE WHEN g.kind = 'n' THEN g.name END, ");
	append_refused_name(sql, lt);
	appendStringInfoString(sql, ", g.name), g.identity::text, m.concurrent, CASE WHEN NOT m.fresh THEN ");
	append_refused_name(sql, lt);
	appendStringInfo(sql, " END)) FROM pg_temp.m_%d m JOIN pg_temp.s_%d s ON ", lt->number, lt->number);
	synchro_sql_equal(sql, "s.l", "m.l", n);
	synchro_sql_join_parents(sql, lt, "s", false);
	if (has_names(lt))
	{
		synchro_resolve_key_join(sql, lt, "s", SYNCHRO_PARENT_NOW, true);
		if (lt->nolds > 0)
			append_join_giving_up(sql, lt);
	}
	appendStringInfoString(sql, " LEFT JOIN (SELECT DISTINCT ON (");
	synchro_sql_list(sql, "g.l", n);
	appendStringInfo(sql, ") g.* FROM pg_temp.g_%d g WHERE g.identity IS NOT NULL AND g.kind IN ('n', '" SYNCHRO_KIND_OLD "') ORDER BY ", lt->number);
	synchro_sql_list(sql, "g.l", n);
	appendStringInfoString(sql, ", g.kind DESC) g ON ");
	synchro_sql_equal(sql, "g.l", "m.l", n);
	appendStringInfoString(sql, " WHERE m.kind = 'n' AND m.verdict = 'l';");
}

/*
 * Deletes; a rename that has lost went with its row.
 */
static void
append_lost_deletes(StringInfo sql, const SynchroLinkTable *lt)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);

	appendStringInfo(sql, "SELECT '" SYNCHRO_SKIPPED_TAG "', count(*), pg_catalog.count(synchro.peer_lost(%s, ", relation);
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfo(sql, ", m.there, m.there_origin, m.stamp, m.origin, NULL, NULL, NULL, m.concurrent, NULL)) FROM pg_temp.m_%d m WHERE m.kind IN " SYNCHRO_OLD_KINDS " AND m.verdict = 'l' AND NOT EXISTS (SELECT FROM pg_temp.m_%d x"
					 " WHERE x.kind = 'n' AND x.verdict = 'l' AND ", lt->number, lt->number);
	synchro_decide_identity(sql, lt, "x.r");
	appendStringInfoString(sql, " = ");
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfoString(sql, ");");
}

/*
 * Append the removal of rows that were only to be there for others, and are
 * gone there, if all who needed them have lost.  In a tree these may be of the
 * same table.
 */
static void
append_needless(StringInfo sql, const SynchroLinkTable *lt, List *tables)
{
	int			n = lt->table->nidentity;
	StringInfoData needless;
	StringInfoData needed;

	initStringInfo(&needed);
	initStringInfo(&needless);
	appendStringInfo(&needless, "DELETE FROM pg_temp.s_%d s USING pg_temp.m_%d m, pg_temp.m_%d h WHERE s.ensure AND m.kind = 'n' AND m.fresh AND m.stamp IS NULL"
					 " AND h.kind = '" SYNCHRO_KIND_GHOST "' AND ", lt->number, lt->number, lt->number);
	synchro_sql_equal(&needless, "m.l", "s.l", n);
	appendStringInfoString(&needless, " AND ");
	synchro_sql_equal(&needless, "h.l", "s.l", n);
	if (append_is_referenced(&needed, lt, tables))
		appendStringInfo(&needless, " AND NOT %s", needed.data);
	appendStringInfo(sql, "SELECT pg_temp.synchro_repeat(%s);", quote_literal_cstr(needless.data));
	appendStringInfo(sql, "DELETE FROM pg_temp.m_%d m WHERE m.kind = 'n' AND m.fresh AND m.stamp IS NULL AND NOT EXISTS (SELECT FROM pg_temp.s_%d s WHERE ",
					 lt->number, lt->number);
	synchro_sql_equal(sql, "s.l", "m.l", n);
	appendStringInfoString(sql, ");");
}

/*
 * Append the removal of what has lost: it is recorded, the winner queued for
 * the sender, and the row taken out of the batch.  tables: of the batch;
 * those that refer to this one come before it.
 *
 * ensured: rows of the table are pushed if others need them.  A row that has
 * lost against its own delete is then still put in place for the sake of
 * newer rows that refer to it; not as the sender's change, but as one of the
 * remote's own, which all nodes will hear of.
 */
void
synchro_sql_losers(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, List *tables, bool ensured)
{
	int			n = lt->table->nidentity;

	if (!lt->decides)
		return;

	/* whatever the record takes from sequences is not given back */
	if (link->preview != NULL)
		synchro_sql_preview_losers(sql, lt);
	else if (lt->rows != NULL)
		append_lost_rows(sql, lt);
	if (lt->rows != NULL)
	{
		StringInfoData needed;

		/* those that are gone there, and yet needed */
		initStringInfo(&needed);
		if (ensured && append_is_referenced(&needed, lt, tables))
		{
			appendStringInfo(sql, "UPDATE pg_temp.s_%d s SET ensure = true FROM pg_temp.m_%d m WHERE m.kind = 'n' AND m.verdict = 'l' AND m.fresh AND ",
							 lt->number, lt->number);
			synchro_sql_equal(sql, "m.l", "s.l", n);
			appendStringInfo(sql, " AND %s;", needed.data);
		}
		appendStringInfo(sql, "DELETE FROM pg_temp.s_%d s USING pg_temp.m_%d m WHERE m.kind = 'n' AND m.verdict IS NOT NULL AND NOT s.ensure AND ",
						 lt->number, lt->number);
		synchro_sql_equal(sql, "m.l", "s.l", n);
		appendStringInfo(sql, ";DELETE FROM pg_temp.m_%d m WHERE m.kind = 'n' AND m.fresh AND m.verdict = 'l' AND NOT EXISTS (SELECT FROM pg_temp.s_%d s WHERE ",
						 lt->number, lt->number);
		synchro_sql_equal(sql, "s.l", "m.l", n);
		appendStringInfoString(sql, ");");
	}
	if (lt->rows != NULL && ensured)
		append_needless(sql, lt, tables);
	if (link->preview == NULL)
		append_lost_deletes(sql, lt);
}

/* of rows, only those that are staged have a stamp */
#define CHOSEN "m.stamp IS NOT NULL AND m.verdict IS NULL"

static bool
says_anything(const SynchroLinkTable *lt, bool leftovers)
{
	return lt->decides && (lt->rows != NULL || lt->nolds > 0 || leftovers);
}

/*
 * Append what is said to the remote's log about a table's rows that are going
 * to be written or deleted: with which stamp.
 */
void
synchro_sql_apply(StringInfo sql, const SynchroLinkTable *lt, bool leftovers)
{
	if (!says_anything(lt, leftovers))
		return;

	/* where both a row and a name say something of one remote row, the row counts */
	appendStringInfo(sql, "SELECT synchro.peer_apply(%s, pg_catalog.array_agg(x.identity), pg_catalog.array_agg(x.stamp), pg_catalog.array_agg(x.origin),"
					 " pg_catalog.array_agg(x.ghost), pg_catalog.array_agg(x.touch)) FROM (SELECT DISTINCT ON (y.identity) y.* FROM (SELECT ", quote_literal_cstr(lt->table->qualified));
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfoString(sql, " AS identity, m.stamp, m.origin, coalesce(m.ghost, false) AS ghost, m.kind = 'n' AND NOT m.fresh AS touch, m.kind");
	appendStringInfo(sql, " FROM pg_temp.m_%d m WHERE %s", lt->number, CHOSEN);
	if (lt->rows != NULL)
	{
		appendStringInfoString(sql, " UNION ALL SELECT ");
		synchro_decide_identity(sql, lt, "m.v");
		appendStringInfo(sql, ", m.stamp, m.origin, coalesce(m.ghost, false), false, 'v' FROM pg_temp.m_%d m WHERE m.kind = 'n' AND %s AND ",
						 lt->number, CHOSEN);
		synchro_decide_identity(sql, lt, "m.v");
		appendStringInfoString(sql, " IS DISTINCT FROM ");
		synchro_decide_identity(sql, lt, "m.r");
	}
	appendStringInfoString(sql, ") y ORDER BY y.identity, y.kind = 'n' DESC, y.stamp DESC) x HAVING count(*) > 0;");

}

/*
 * Append the record of those that had been changed there by somebody who did
 * not know of what is going to be written.
 */
void
synchro_sql_winners(StringInfo sql, const SynchroLinkTable *lt, bool leftovers)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);

	if (!says_anything(lt, leftovers))
		return;
	appendStringInfo(sql, "SELECT pg_catalog.count(synchro.peer_won(%s, ", relation);
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfo(sql, ", m.there, m.there_origin, m.stamp, m.origin, t.loser)) FROM pg_temp.m_%d m CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(z.*) AS loser FROM (SELECT %s FROM %s x WHERE ",
					 lt->number, lt->remote->shown, lt->remote->rows);
	synchro_sql_identity_equal(sql, lt, "x", "m.r");

	/* m.kind within it, not beside it: by OR it would be no join, but asked for each row */
	appendStringInfo(sql, " LIMIT 1) z) t WHERE m.concurrent AND NOT m.fresh AND %s AND NOT EXISTS (SELECT FROM pg_temp.m_%d x WHERE m.kind <> 'n' AND x.kind = 'n' AND ",
					 CHOSEN, lt->number);
	synchro_decide_identity(sql, lt, "x.r");
	appendStringInfoString(sql, " = ");
	synchro_decide_identity(sql, lt, "m.r");
	appendStringInfoString(sql, ");");

	/* the loser is a delete: the row that comes back is a new one */
	if (lt->rows == NULL)
		return;
	appendStringInfo(sql, "SELECT pg_catalog.count(synchro.peer_won(%s, ", relation);
	synchro_decide_identity(sql, lt, "m.v");
	appendStringInfo(sql, ", m.there, m.there_origin, m.stamp, m.origin, NULL)) FROM pg_temp.m_%d m"
					 " WHERE m.concurrent AND m.fresh AND m.kind = 'n' AND %s;", lt->number, CHOSEN);
}

/*
 * Append the last look: has somebody changed meanwhile what was decided
 * about?  Raises 40001 then.
 */
void
synchro_sql_recheck(StringInfo sql)
{
	appendStringInfoString(sql, "SELECT synchro.peer_recheck();");
}
