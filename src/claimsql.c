/*-------------------------------------------------------------------------
 *
 * claimsql.c
 *	  SQL text: rows of the remote that are taken for others by their names alone.
 *
 * A row is gone here, and its name is another one's, which is new.  In a batch
 * that has rows which refer to the new one, but not that one itself, these get
 * the remote's row of the name, which is then not deleted: the new one claims
 * it.  As a rule that one follows in a later batch and makes the remote's row
 * its own.  The pusher is told (claimed.c); also of new ones that are only put there for
 * the sake of others: as far as the log says they are yet to come, too.
 *
 * A row that waits is taken for the remote's row of the name which it has lost here.  If
 * there is none, another row may get that name, and would be renamed or deleted in
 * place of the one that waits: so that is told before (synchro_sql_not_there()).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "resolvejoin.h"

/*
 * Append "the batch does not send the row with that identity for its own sake".
 */
static void
append_not_sent(StringInfo sql, const SynchroLinkTable *lt, const char *identity)
{
	appendStringInfo(sql, "NOT EXISTS (SELECT FROM pg_temp.s_%d s WHERE NOT s.ensure AND ", lt->number);
	synchro_sql_equal(sql, "s.l", identity, lt->table->nidentity);
	appendStringInfoChar(sql, ')');
}

/*
 * Rows that were refused when they were new, and that others refer to, are not those of their
 * names there which are gone here.  Taken for these, they would keep them from being
 * deleted; and if they are deleted before they have ever arrived, nobody would ever tell the
 * remote, since they have never been there.  So whoever refers to them waits with them.
 */
void
synchro_sql_forget_unborn(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;
	ListCell   *cell;

	if (lt->unborn == NIL)
		return;
	synchro_sql_pin(sql, lt, true);
	foreach(cell, lt->unborn)
	{
		appendStringInfo(sql, "DELETE FROM pg_temp.m_%d m USING (%s) p (", lt->number, (char *) lfirst(cell));
		synchro_sql_list(sql, "l", n);
		appendStringInfoString(sql, ") WHERE m.kind = 'n' AND ");
		synchro_sql_equal(sql, "m.l", "p.l", n);
		appendStringInfo(sql, " AND (EXISTS (SELECT FROM pg_temp.m_%d o WHERE o.kind IN " SYNCHRO_OLD_KINDS " AND ", lt->number);
		synchro_sql_same_row(sql, lt, "o.r", "m.r");
		appendStringInfoString(sql, ") OR ");
		synchro_sql_is_unapplied(sql, link, lt, "m.r");
		appendStringInfoChar(sql, ')');
		if (lt->rows != NULL)
		{
			appendStringInfoString(sql, " AND ");
			append_not_sent(sql, lt, "m.l");
		}
		appendStringInfoChar(sql, ';');
	}
	synchro_sql_pin(sql, lt, false);
}

/*
 * Append what takes the remote's rows that are wanted again off the list of
 * those which are to be deleted, and says which rows here have claimed them, or
 * what the batch would have put there, or have been put there for others.
 */
void
synchro_sql_claim(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;
	bool		may_claim = lt->nnames > lt->nolds || lt->nensured > 0;

	if (lt->rows == NULL && !may_claim)
		return;
	if (may_claim)
		appendStringInfoString(sql, "WITH d AS (");
	appendStringInfo(sql, "DELETE FROM %s.unapplied u USING pg_temp.m_%d m WHERE u.node = '%s' AND u.relation = %s AND m.kind = 'n' AND ",
					 link->peer, lt->number, link->node, quote_literal_cstr(lt->table->qualified));
	synchro_sql_is_kept(sql, lt, "m.r");
	if (may_claim)
	{
		appendStringInfoString(sql, " RETURNING ");
		synchro_sql_list(sql, "m.l", n);
		appendStringInfo(sql, ") SELECT '" SYNCHRO_CLAIMED_TAG "', %d, ", lt->number);
		synchro_sql_staged_key(sql, lt, "x.l");
		appendStringInfoString(sql, " FROM (TABLE d");
		if (lt->nolds > 0)
		{
			appendStringInfoString(sql, " UNION ALL SELECT ");
			synchro_sql_list(sql, "m.l", n);
			appendStringInfo(sql, " FROM pg_temp.m_%d m WHERE m.kind = 'n' AND NOT m.fresh AND EXISTS (SELECT FROM pg_temp.m_%d o WHERE o.kind IN " SYNCHRO_OLD_KINDS " AND ",
							 lt->number, lt->number);
			synchro_sql_same_row(sql, lt, "o.r", "m.r");
			appendStringInfoChar(sql, ')');
		}
		if (lt->nensured > 0)
		{
			appendStringInfoString(sql, " UNION ALL SELECT ");
			synchro_sql_list(sql, "m.l", n);
			appendStringInfo(sql, " FROM pg_temp.m_%d m JOIN pg_temp.s_%d e ON e.ensure AND ", lt->number, lt->number);
			synchro_sql_equal(sql, "e.l", "m.l", n);
			appendStringInfoString(sql, " WHERE m.kind = 'n' AND m.fresh");
		}
		appendStringInfoString(sql, ") x");
		if (lt->rows != NULL)
		{
			appendStringInfoString(sql, " WHERE ");
			append_not_sent(sql, lt, "x.l");
		}
		appendStringInfo(sql, " LIMIT %d", SYNCHRO_MAX_CLAIMED + 1);
	}
	appendStringInfoChar(sql, ';');
}

/*
 * Append "AND it is known which row of the remote a foreign key of the name q means, or
 * that it is none".  Where the parent waits, or is gone here, who is below it there may
 * only not be found.
 */
static void
append_parent_is_known(StringInfo sql, const SynchroLinkTable *lt, int fk)
{
	const SynchroLinkTable *parent = lt->parents[fk];
	const char *columns = psprintf("q.f%d_", fk);
	int			n = parent->table->nidentity;

	appendStringInfo(sql, " AND (%s0 IS NULL OR EXISTS (SELECT FROM pg_temp.m_%d p WHERE p.kind IN ('n', '" SYNCHRO_KIND_OLD "', '" SYNCHRO_KIND_DEAD "'%s) AND ",
					 columns, parent->number, parent == lt ? ", 'x', '" SYNCHRO_KIND_WAITING "'" : "");
	synchro_sql_equal(sql, "p.l", columns, n);
	appendStringInfoChar(sql, ')');
	if (parent->table->watched)
	{
		appendStringInfo(sql, " OR EXISTS (SELECT FROM pg_temp.n_%d p WHERE p.kind = '" SYNCHRO_KIND_PRESENT "' AND ", parent->number);
		synchro_sql_equal(sql, "p.l", columns, n);
		appendStringInfo(sql, ") AND NOT EXISTS (SELECT FROM pg_temp.n_%d p WHERE p.kind = '" SYNCHRO_KIND_WAITING "' AND ", parent->number);
		synchro_sql_equal(sql, "p.l", columns, n);
		appendStringInfoChar(sql, ')');
	}
	appendStringInfoChar(sql, ')');
}

/*
 * Append a check that the remote has the rows which wait, by the names that they keep
 * there.  If not, it raises SYNCHRO_NOT_THERE with a line for each.
 *
 * Not of a table where the remote decides: there its row may have another name by now,
 * which its log tells when the change is tried again.
 */
void
synchro_sql_not_there(StringInfo sql, List *tables)
{
	ListCell   *cell;
	bool		any = false;

	foreach(cell, tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (lt->nwaiting == 0 || lt->decides || lt->table->mode == SYNCHRO_MODE_REFERENCE)
			continue;
		if (any)
			appendStringInfoString(sql, " UNION ALL ");
		else
			appendStringInfoString(sql, "SELECT pg_temp.synchro_raise('" SYNCHRO_NOT_THERE "', 'rows that wait are not there', string_agg(line, E'\\n')) FROM (");
		any = true;
		appendStringInfoString(sql, "SELECT ");
		synchro_sql_named_row(sql, lt, "q.l");
		appendStringInfo(sql, " AS line FROM pg_temp.n_%d q WHERE q.kind = '" SYNCHRO_KIND_WAITING "' AND NOT EXISTS (SELECT FROM pg_temp.n_%d o WHERE o.kind = '" SYNCHRO_KIND_OLD "' AND ",
						 lt->number, lt->number);
		synchro_sql_equal(sql, "o.l", "q.l", lt->table->nidentity);
		appendStringInfoString(sql, ") AND ");
		synchro_resolve_not_mapped(sql, lt, "q", "q.kind");
		for (int fk = 0; fk < lt->table->nfks; fk++)
			if (lt->parents[fk] != NULL && synchro_fk_names_key(lt, fk) && !synchro_fk_beyond_identity(lt, fk))
				append_parent_is_known(sql, lt, fk);
	}
	if (any)
		appendStringInfoString(sql, ") x HAVING count(*) > 0;");
}
