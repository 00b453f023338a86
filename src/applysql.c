/*-------------------------------------------------------------------------
 *
 * applysql.c
 *	  SQL text that applies what goes with the rows of a batch: moves of rows
 *	  with their parents, deletes, and references to be remembered.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"

/*
 * Does a foreign key translate only columns of the identity, into the
 * parent's identity?
 */
static bool
fk_is_identity(const SynchroLinkTable *lt, int fk)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];

	for (int i = 0; i < key->ncols; i++)
		if (synchro_identity_position(lt->table, lt->table->columns[key->cols[i]].attnum) < 0 ||
			synchro_identity_position(lt->parents[fk]->table, key->refcols[i]) < 0)
			return false;
	return true;
}

/*
 * Append "the foreign key has ON UPDATE CASCADE on the remote".
 */
static void
append_cascades(StringInfo sql, const SynchroLinkTable *lt, int fk)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];

	appendStringInfo(sql, "EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = %s::regclass AND k.confrelid = %s::regclass"
					 " AND k.contype = 'f' AND k.confupdtype = 'c' AND pg_catalog.cardinality(k.conkey) = %d",
					 quote_literal_cstr(lt->table->qualified),
					 quote_literal_cstr(lt->parents[fk]->table->qualified), key->ncols);
	for (int i = 0; i < key->ncols; i++)
		appendStringInfo(sql, " AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND a.attname = %s)",
						 quote_literal_cstr(lt->table->columns[key->cols[i]].name));
	appendStringInfoChar(sql, ')');
}

/*
 * Append the moves that the remote's ON UPDATE CASCADE made of a table's rows
 * when a parent's rows were renamed: from where the parent was at first, w,
 * to where it is now.
 */
static void
follow_parent(StringInfo sql, const SynchroLinkTable *lt, int fk)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];
	const SynchroLinkTable *parent = lt->parents[fk];

	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET ", lt->number);
	for (int i = 0; i < key->ncols; i++)
	{
		int			position = synchro_identity_position(parent->table, key->refcols[i]);

		appendStringInfo(sql, "%sr%d = CASE WHEN p.kind = 'n' THEN p.v%d ELSE p.r%d END", i > 0 ? ", " : "",
						 synchro_identity_position(lt->table, lt->table->columns[key->cols[i]].attnum),
						 position, position);
	}
	appendStringInfo(sql, " FROM pg_temp.m_%d p WHERE NOT m.fresh AND NOT p.fresh", parent->number);
	for (int i = 0; i < key->ncols; i++)
	{
		int			position = synchro_identity_position(parent->table, key->refcols[i]);

		appendStringInfo(sql, " AND p.w%d %s m.r%d", position,
						 parent->remote->columns[parent->table->identity[position]].equals,
						 synchro_identity_position(lt->table, lt->table->columns[key->cols[i]].attnum));
	}
	appendStringInfo(sql, " AND (p.kind = 'n' OR NOT EXISTS (SELECT FROM pg_temp.m_%d o WHERE o.kind = 'n' AND NOT o.fresh",
					 parent->number);
	appendStringInfoString(sql, " AND ");
	synchro_sql_same_row(sql, parent, "o.w", "p.w");
	appendStringInfoString(sql, ")) AND ");
	append_cascades(sql, lt, fk);
	appendStringInfoChar(sql, ';');
}

/*
 * Append that a table's rows are now where they were found, for
 * synchro_sql_follow() of tables that refer to it.
 */
void
synchro_sql_mark(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfo(sql, "UPDATE pg_temp.m_%d SET ", lt->number);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, "%sw%d = r%d", i > 0 ? ", " : "", i, i);
	appendStringInfoChar(sql, ';');
}

/*
 * Does the identity of a table's rows change with a parent's in this batch?
 */
bool
synchro_fk_moves(const SynchroLinkTable *lt, int fk)
{
	for (int i = 0; i < lt->table->nidentity; i++)
		if (lt->table->columns[lt->table->identity[i]].fk == fk && lt->parents[fk] != NULL)
			return lt->parents[fk]->nolds > 0;
	return false;
}

/*
 * Append a correction of the map for a table whose identity contains foreign
 * keys: if the remote has moved rows along with their parents, they are found
 * where they are now.  component: the tables that are written together with
 * this one, so whose rows have not moved yet.
 */
void
synchro_sql_follow(StringInfo sql, const SynchroLinkTable *lt, List *component)
{
	int			n = lt->table->nidentity;

	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (synchro_fk_moves(lt, fk) && fk_is_identity(lt, fk) &&
			!list_member_ptr(component, lt->parents[fk]))
			follow_parent(sql, lt, fk);

	/* whatever else has moved them */
	appendStringInfo(sql, "UPDATE pg_temp.m_%d m SET ", lt->number);
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%sr%d = v%d", i > 0 ? ", " : "", i, i);
	appendStringInfoString(sql, " WHERE NOT fresh AND ROW(");
	synchro_sql_list(sql, "r", n);
	appendStringInfoString(sql, ")::record OPERATOR(pg_catalog.*<>) ROW(");
	synchro_sql_list(sql, "v", n);
	appendStringInfo(sql, ")::record AND NOT EXISTS (SELECT FROM %s t WHERE ", lt->remote->rows);
	synchro_sql_identity_equal(sql, lt, "t", "m.r");
	appendStringInfoString(sql, ");");
}

/*
 * Append "SELECT the remote identities that nobody bears here any more", nor keeps
 * there as the new one has been refused.
 */
void
synchro_sql_doomed(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfoString(sql, "SELECT ");
	synchro_sql_list(sql, "r", lt->table->nidentity);
	appendStringInfo(sql, ", pg_catalog.max(stamp) AS stamp, pg_catalog.max(origin::text)::uuid AS origin FROM pg_temp.m_%d o WHERE o.kind IN " SYNCHRO_OLD_KINDS
					 " AND o.verdict IS NULL"
					 " AND NOT EXISTS (SELECT FROM pg_temp.m_%d n WHERE n.kind %s AND ",
					 lt->number, lt->number, lt->nwaiting > 0 ? "IN ('n', '" SYNCHRO_KIND_WAITING "')" : "= 'n'");
	synchro_sql_same_row(sql, lt, "n.r", "o.r");
	appendStringInfoString(sql, ") GROUP BY ");
	synchro_sql_list(sql, "r", lt->table->nidentity);
}

/*
 * Append a remote identity as an array of text, as our tables there have it.
 */
void
synchro_sql_remote_key(StringInfo sql, const SynchroLinkTable *lt, const char *prefix)
{
	appendStringInfoString(sql, "ARRAY[");
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "",
						 synchro_sql_remote_text(lt, lt->table->identity[i], psprintf("%s%d", prefix, i)));
	appendStringInfoChar(sql, ']');
}

/*
 * May a value of an identity's column look otherwise with other settings, or to
 * version 1.0 (see synchro_sql_cast())?
 */
static bool
text_varies(const SynchroLinkTable *lt, int column)
{
	static const char *const settled[] = {
		"smallint", "integer", "bigint", "numeric", "uuid", "text", "character varying"
	};

	for (int i = 0; i < lengthof(settled); i++)
		if (strcmp(lt->remote->columns[column].base, settled[i]) == 0)
			return false;
	return true;
}

/*
 * May a table's references?
 */
bool
synchro_references_vary(const SynchroLinkTable *lt)
{
	for (int i = 0; i < lt->table->nidentity; i++)
		if (text_varies(lt, lt->table->identity[i]))
			return true;
	return false;
}

/*
 * Append what has a table's identities written with settings of ours, where they
 * may look otherwise with the role's; or, if begin is false, what ends that.
 */
void
synchro_sql_pin(StringInfo sql, const SynchroLinkTable *lt, bool begin)
{
	if (synchro_references_vary(lt))
		appendStringInfoString(sql, begin ? SYNCHRO_SQL_PINNED : SYNCHRO_SQL_AS_ROLE);
}

/*
 * The same where a table's rows are told to the remote's log, or by it, as text:
 * by their identities, or by what they are called.
 */
void
synchro_sql_pin_names(StringInfo sql, const SynchroLinkTable *lt, bool begin)
{
	bool		varies = synchro_references_vary(lt);

	for (int i = 0; i < lt->table->nkey; i++)
		varies |= text_varies(lt, lt->table->key[i]);
	if (varies)
		appendStringInfoString(sql, begin ? SYNCHRO_SQL_PINNED : SYNCHRO_SQL_AS_ROLE);
}

/*
 * Are references to a table's rows stored?
 */
bool
synchro_keeps_references(const SynchroLinkTable *lt)
{
	return lt->table->mode == SYNCHRO_MODE_REFERENCE || !lt->table->watched;
}

/*
 * Append "value number i of the row u of unapplied is that value".  It was
 * written with settings of ours, whatever they are now.
 */
static void
append_is_kept(StringInfo sql, const SynchroLinkTable *lt, int i, const char *value)
{
	int			column = lt->table->identity[i];
	char	   *kept = psprintf("u.remote_key[%d]", i + 1);

	if (text_varies(lt, column) && strchr(lt->remote->columns[column].base, '.') == NULL)
	{
		synchro_sql_value_equal(sql, lt, i, synchro_sql_remote_value(lt, column, kept), value);
		return;
	}
	appendStringInfo(sql, "(%s = %s", kept, synchro_sql_remote_text(lt, column, value));
	if (!lt->table->columns[column].not_null)
		appendStringInfo(sql, " OR (%s IS NULL AND %s " SYNCHRO_SQL_IS_NULL ")", kept, value);
	appendStringInfoChar(sql, ')');
}

/*
 * Append "the row u of unapplied is the one that mapped0.. names".
 */
void
synchro_sql_is_kept(StringInfo sql, const SynchroLinkTable *lt, const char *mapped)
{
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		appendStringInfoString(sql, i > 0 ? " AND " : "");
		append_is_kept(sql, lt, i, psprintf("%s%d", mapped, i));
	}
}

/*
 * Append "the remote row alias is to be deleted, as an earlier batch has
 * noted".
 */
void
synchro_sql_awaits_delete(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const char *alias)
{
	appendStringInfo(sql, "EXISTS (SELECT FROM %s.unapplied u WHERE u.node = '%s' AND u.relation = %s",
					 link->peer, link->node, quote_literal_cstr(lt->table->qualified));
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		appendStringInfoString(sql, " AND ");
		append_is_kept(sql, lt, i, psprintf("%s.%s", alias, synchro_column_name(lt, lt->table->identity[i])));
	}
	appendStringInfoChar(sql, ')');
}

/*
 * Append the same of the row with that identity (see synchro_sql_is_kept()), between
 * calls of synchro_sql_pin().
 */
void
synchro_sql_is_unapplied(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const char *mapped)
{
	appendStringInfo(sql, "EXISTS (SELECT FROM %s.unapplied u WHERE u.node = '%s' AND u.relation = %s AND ",
					 link->peer, link->node, quote_literal_cstr(lt->table->qualified));
	synchro_sql_is_kept(sql, lt, mapped);
	appendStringInfoChar(sql, ')');
}

/*
 * What synchro_sql_doomed() selects, with what earlier batches have left to
 * this one, if leftovers is true.
 */
void
synchro_sql_condemned(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, bool leftovers)
{
	synchro_sql_doomed(sql, lt);
	if (!leftovers || lt->decides)
		return;
	appendStringInfoString(sql, " UNION SELECT ");
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "",
						 synchro_sql_remote_value(lt, lt->table->identity[i], psprintf("remote_key[%d]", i + 1)));
	appendStringInfo(sql, ", NULL, NULL FROM %s.unapplied WHERE node = '%s' AND relation = %s",
					 link->peer, link->node, quote_literal_cstr(lt->table->qualified));
}

/*
 * Append the statement that deletes what is gone here, of tables that refer
 * to each other in a circle, or of one.
 *
 * leftovers: also what earlier batches of this pass left to the last one.
 * Its result: for each table the number of rows deleted.
 */
void
synchro_sql_delete(StringInfo sql, const SynchroLink *link, List *component, bool leftovers)
{
	StringInfoData counts;
	ListCell   *cell;
	bool		first = true;

	initStringInfo(&counts);
	foreach(cell, component)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (!lt->table->watched || (lt->nolds == 0 && !leftovers))
			continue;
		appendStringInfo(sql, "%sd%d AS (DELETE FROM %s t USING (", first ? "WITH " : ", ",
						 lt->number, lt->remote->rows);
		synchro_sql_condemned(sql, link, lt, leftovers);
		appendStringInfoString(sql, ") x WHERE ");
		synchro_sql_identity_equal(sql, lt, "t", "x.r");
		appendStringInfoString(sql, " RETURNING 1)");
		appendStringInfo(&counts, "%s(SELECT count(*) FROM d%d)", first ? "" : ", ", lt->number);
		first = false;
	}
	if (!first)
		appendStringInfo(sql, " SELECT '" SYNCHRO_DELETE_TAG "', %s;", counts.data);
}

/*
 * Append statements that leave a table's deletes to the pass's last batch:
 * until then, rows that refer to what is to be deleted may still be on their
 * way elsewhere.  A row that is wanted again is taken off the list.  So is one
 * that only stands for a row which others refer to, since that one has come
 * into being after the pass began: the last batch need not have either, and
 * would delete it, perhaps with all that refers to it.  put: if false, only
 * that.
 */
void
synchro_sql_postpone(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, bool put)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);

	if (!lt->table->watched)
		return;
	if (put)
	{
		synchro_sql_pin(sql, lt, true);
		appendStringInfo(sql, "INSERT INTO %s.unapplied (node, relation, operation, remote_key, stamp, origin) SELECT '%s', %s, 'delete', ",
						 link->peer, link->node, relation);
		synchro_sql_remote_key(sql, lt, "x.r");
		appendStringInfoString(sql, ", x.stamp, x.origin FROM (");
		synchro_sql_doomed(sql, lt);
		appendStringInfoString(sql, ") x WHERE NOT ");
		synchro_sql_is_unapplied(sql, link, lt, "x.r");
		appendStringInfoChar(sql, ';');
		synchro_sql_pin(sql, lt, false);
	}
	synchro_sql_claim(sql, link, lt);
}

/*
 * Append "the row of the map m will have another identity on the remote".
 */
static void
append_moved(StringInfo sql, const SynchroLinkTable *lt)
{
	appendStringInfoString(sql, "ROW(");
	synchro_sql_list(sql, "m.r", lt->table->nidentity);
	appendStringInfoString(sql, ")::record OPERATOR(pg_catalog.*<>) ROW(");
	synchro_sql_list(sql, "m.v", lt->table->nidentity);
	appendStringInfoString(sql, ")::record");
}

/*
 * Append statements that remember which remote row stands for which local
 * one, where no natural key tells: new rows in mode reference, and rows of
 * tables that are not watched whose natural key has changed here only.
 *
 * made: the id of the first transaction here that the batch knows nothing of.
 */
static void
append_references(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, uint64 made)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);
	bool		by_reference = lt->table->mode == SYNCHRO_MODE_REFERENCE;

	if (lt->nolds > 0 && by_reference)
	{
		/* LIMIT: one look into the index for each, whatever the statistics say */
		appendStringInfo(sql, "DELETE FROM %s.reference x USING pg_temp.n_%d q, LATERAL (SELECT y.ctid AS place FROM %s.reference y"
						 " WHERE y.node = '%s' AND y.relation = %s AND y.local_key OPERATOR(pg_catalog.=) ",
						 link->peer, lt->number, link->peer, link->node, relation);
		synchro_sql_remote_key(sql, lt, "q.k");
		appendStringInfoString(sql, " LIMIT 1) y WHERE x.ctid = y.place AND q.kind IN ('" SYNCHRO_KIND_OLD "', '" SYNCHRO_KIND_DEAD "')");
		appendStringInfo(sql, " AND NOT EXISTS (SELECT FROM pg_temp.m_%d m WHERE m.kind = 'n' AND ", lt->number);
		for (int i = 0; i < lt->table->nidentity; i++)
			appendStringInfo(sql, "%sm.l%d::text = q.k%d", i > 0 ? " AND " : "", i, i);
		appendStringInfoString(sql, ");");
	}
	if (lt->nolds > 0 && !by_reference)
	{
		/* its id may be another's next time */
		appendStringInfo(sql, "DELETE FROM %s.reference x USING pg_temp.n_%d q WHERE x.node = '%s' AND x.relation = %s"
						 " AND q.kind = '" SYNCHRO_KIND_DEAD "' AND x.local_key OPERATOR(pg_catalog.=) ",
						 link->peer, lt->number, link->node, relation);
		synchro_sql_remote_key(sql, lt, "q.l");
		appendStringInfoChar(sql, ';');
	}
	if (lt->rows == NULL && lt->nolds == 0)
		return;
	appendStringInfo(sql, "INSERT INTO %s.reference (node, relation, made, local_key, remote_key) SELECT '%s', %s, " UINT64_FORMAT ", ",
					 link->peer, link->node, relation, made);
	synchro_sql_remote_key(sql, lt, "m.l");
	appendStringInfoString(sql, ", ");
	synchro_sql_remote_key(sql, lt, by_reference ? "m.v" : "m.r");
	appendStringInfo(sql, " FROM pg_temp.m_%d m WHERE ", lt->number);
	if (!by_reference)
		appendStringInfoString(sql, "m.kind = '" SYNCHRO_KIND_OLD "'");
	else
	{
		appendStringInfoString(sql, "m.kind = 'n' AND (m.fresh OR ");
		append_moved(sql, lt);
		if (lt->nolds > 0)
		{
			appendStringInfo(sql, " OR EXISTS (SELECT FROM pg_temp.m_%d o WHERE o.kind = '"
							 SYNCHRO_KIND_OLD "' AND ", lt->number);
			synchro_sql_equal(sql, "o.l", "m.l", lt->table->nidentity);
			appendStringInfoChar(sql, ')');
		}
		appendStringInfoChar(sql, ')');
	}
	appendStringInfoString(sql, " ON CONFLICT (node, relation, local_key) DO UPDATE SET remote_key = EXCLUDED.remote_key, made = EXCLUDED.made;");
}

/*
 * Append what remembers the references of a table's rows, if it has any.  They
 * are found again as text, by sessions with other settings than the role's.
 */
void
synchro_sql_references(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, uint64 made)
{
	if (!synchro_keeps_references(lt))
		return;
	synchro_sql_pin(sql, lt, true);
	append_references(sql, link, lt, made);
	synchro_sql_pin(sql, lt, false);
}
