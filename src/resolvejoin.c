/*-------------------------------------------------------------------------
 *
 * resolvejoin.c
 *	  SQL text of the joins by which remote rows are found: by natural key,
 *	  and by reference.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "resolvejoin.h"

/*
 * May the remote call rows of the table otherwise than they are called here,
 * since changes of their names are not pushed?  They are remembered by
 * reference then.
 */
bool
synchro_resolve_may_be_remembered(const SynchroLinkTable *lt)
{
	return !lt->table->watched && lt->table->key_only &&
		lt->table->mode != SYNCHRO_MODE_REFERENCE;
}

/*
 * Is a row of the table nothing but a pair of references?  Between two pairs
 * there is no free value that a row could be given until another has left its
 * place, so they are not moved where that can be helped.
 */
bool
synchro_resolve_is_pair(const SynchroLinkTable *lt)
{
	for (int i = 0; i < lt->table->nidentity; i++)
		if (synchro_column_fk(lt, lt->table->identity[i]) < 0)
			return false;
	return lt->table->mode == SYNCHRO_MODE_PRIMARY_KEY;
}

int
synchro_resolve_self_fk_in_key(const SynchroLinkTable *lt)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (lt->parents[fk] == lt && synchro_fk_names_key(lt, fk))
			return fk;
	return -1;
}

/*
 * Append joins that give the parents of names of before: what they were
 * called before, and failing that what they are now.
 */
void
synchro_resolve_join_parents_before(StringInfo sql, const SynchroLinkTable *lt, const char *source, int except)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroLinkTable *parent = lt->parents[fk];
		const char *columns = psprintf("%s.f%d_", source, fk);

		if (parent == NULL || fk == except || !synchro_fk_names_key(lt, fk))
			continue;
		appendStringInfo(sql, " LEFT JOIN pg_temp.m_%d p%d ON p%d.kind = 'n' AND NOT p%d.fresh AND ",
						 parent->number, fk, fk, fk);
		synchro_sql_equal(sql, psprintf("p%d.l", fk), columns, parent->table->nidentity);
		if (parent->nolds == 0)
			continue;
		appendStringInfo(sql, " LEFT JOIN pg_temp.m_%d o%d ON o%d.kind = 'o' AND ", parent->number, fk, fk);
		synchro_sql_equal(sql, psprintf("o%d.l", fk), columns, parent->table->nidentity);
		appendStringInfo(sql, " LEFT JOIN pg_temp.m_%d d%d ON d%d.kind = 'd' AND ", parent->number, fk, fk);
		synchro_sql_equal(sql, psprintf("d%d.l", fk), columns, parent->table->nidentity);
	}
}

/*
 * The value that a key column of the remote row must have, as SQL.
 */
char *
synchro_resolve_key_value(const SynchroLinkTable *lt, int column, const char *source, SynchroParentView view)
{
	StringInfoData value;
	int			fk = synchro_column_fk(lt, column);
	int			position;

	initStringInfo(&value);
	if (view == SYNCHRO_PARENT_BEFORE && fk >= 0 && synchro_fk_beyond_identity(lt, fk))
	{
		appendStringInfo(&value, "%s.b%d", source, column);
		return value.data;
	}
	if (fk < 0 || view == SYNCHRO_PARENT_NOW || lt->parents[fk]->nolds == 0)
	{
		synchro_sql_value(&value, lt, column, source, "r");
		return value.data;
	}
	position = synchro_identity_position(lt->parents[fk]->table,
										 lt->table->fks[fk].refcols[lt->table->columns[column].fk_pos]);
	appendStringInfo(&value, "coalesce(d%d.r%d, o%d.r%d, p%d.r%d)",
					 fk, position, fk, position, fk, position);
	return value.data;
}

/*
 * The staged value that is NULL where the key column is, as SQL.
 */
char *
synchro_resolve_key_null(const SynchroLinkTable *lt, int column, const char *source, SynchroParentView view)
{
	int			fk = synchro_column_fk(lt, column);

	if (fk < 0)
		return psprintf("%s.c%d", source, column);
	if (view == SYNCHRO_PARENT_BEFORE && synchro_fk_beyond_identity(lt, fk))
		return psprintf("%s.b%d", source, column);
	return psprintf("%s.f%d_0", source, fk);
}

/*
 * Append "the remote row alias bears the staged row's natural key", for key
 * columns from number first on.
 */
static void
append_key_equal(StringInfo sql, const SynchroLinkTable *lt, const char *alias,
				 const char *source, SynchroParentView view, int first)
{
	bool		any = false;

	for (int i = first; i < lt->table->nkey; i++)
	{
		int			column = lt->table->key[i];
		char	   *value = synchro_resolve_key_value(lt, column, source, view);

		appendStringInfoString(sql, any ? " AND " : "");
		any = true;
		if (lt->table->columns[column].not_null)
			appendStringInfo(sql, "%s.%s %s %s", alias, synchro_column_name(lt, column),
							 lt->remote->columns[column].equals, value);
		else
			appendStringInfo(sql, "(%s.%s %s %s OR (%s.%s " SYNCHRO_SQL_IS_NULL " AND %s " SYNCHRO_SQL_IS_NULL "))",
							 alias, synchro_column_name(lt, column),
							 lt->remote->columns[column].equals, value,
							 alias, synchro_column_name(lt, column), synchro_resolve_key_null(lt, column, source, view));
	}
	if (!any)
		appendStringInfoString(sql, "true");
}

/*
 * Append the join of the remote table, alias t, by natural key.
 *
 * A key column that may hold NULL cannot be looked up in an index together
 * with its NULLs.  Where another column is NOT NULL, that one is looked up;
 * else values and NULLs are looked up apart.
 */
void
synchro_resolve_key_join(StringInfo sql, const SynchroLinkTable *lt, const char *source,
				SynchroParentView view, bool outer)
{
	const SynchroTable *table = lt->table;
	const char *join = outer ? " LEFT JOIN" : " JOIN";
	const char *first = synchro_column_name(lt, table->key[0]);
	bool		nullable = true;

	for (int i = 0; i < table->nkey; i++)
		nullable &= !table->columns[table->key[i]].not_null;
	if (!nullable && lt->remote->key_is_indexed &&
		(lt->remote->key_is_unique || !table->allow_many))
	{
		/*
		 * The index finds each row by itself.  LIMIT keeps the planner from
		 * reading the whole table into a hash for the sake of a batch; two
		 * rows are too many already, but where all are wanted: see waitingsql.c.
		 */
		appendStringInfo(sql, "%s LATERAL (SELECT x.tableoid", join);
		for (int i = 0; i < table->nidentity; i++)
			appendStringInfo(sql, ", x.%s", synchro_column_name(lt, table->identity[i]));
		appendStringInfo(sql, " FROM %s x WHERE ", lt->remote->rows);
		append_key_equal(sql, lt, "x", source, view, 0);
		appendStringInfo(sql, " %s) t ON true", lt->waiting != NULL && !lt->remote->key_is_unique ? "OFFSET 0" : "LIMIT 2");
		return;
	}
	if (!nullable)
	{
		appendStringInfo(sql, "%s %s t ON ", join, lt->remote->rows);
		append_key_equal(sql, lt, "t", source, view, 0);
		return;
	}
	appendStringInfo(sql, "%s LATERAL (SELECT x.tableoid", join);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, ", x.%s", synchro_column_name(lt, table->identity[i]));
	appendStringInfo(sql, " FROM %s x WHERE x.%s %s %s AND ", lt->remote->rows, first,
					 lt->remote->columns[table->key[0]].equals,
					 synchro_resolve_key_value(lt, table->key[0], source, view));
	append_key_equal(sql, lt, "x", source, view, 1);
	appendStringInfoString(sql, " UNION ALL SELECT x.tableoid");
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, ", x.%s", synchro_column_name(lt, table->identity[i]));
	appendStringInfo(sql, " FROM %s x WHERE %s " SYNCHRO_SQL_IS_NULL " AND x.%s " SYNCHRO_SQL_IS_NULL " AND ",
					 lt->remote->rows, synchro_resolve_key_null(lt, table->key[0], source, view), first);
	append_key_equal(sql, lt, "x", source, view, 1);
	appendStringInfoString(sql, ") t ON true");
}

/*
 * Append the join of the remote table, alias t, by stored reference.  LIMIT:
 * see synchro_resolve_key_join().
 */
void
synchro_resolve_reference_join(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt,
					  const char *source, const char *key)
{
	appendStringInfoString(sql, " JOIN LATERAL (SELECT x.*");
	appendStringInfo(sql, " FROM %s.reference y, LATERAL (SELECT z.tableoid", link->peer);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, ", z.%s", synchro_column_name(lt, lt->table->identity[i]));
	appendStringInfo(sql, " FROM %s z WHERE ", lt->remote->rows);
	synchro_sql_identity_is(sql, lt, "z", "y.remote_key");
	appendStringInfoString(sql, " LIMIT 1) x");
	appendStringInfo(sql, " WHERE y.node = '%s' AND y.relation = %s AND y.local_key OPERATOR(pg_catalog.=) ARRAY[",
					 link->node, quote_literal_cstr(lt->table->qualified));
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, "%s%s.%s%d::text", i > 0 ? ", " : "", source, key, i);
	appendStringInfoString(sql, "] LIMIT 1) t ON true");
}

/*
 * Are the remote's own rows looked up one by one, by LATERAL and LIMIT, in all
 * that resolves a table's staged rows?  Else its planner is to choose whether
 * it takes an index or reads all of the table.
 */
bool
synchro_resolve_is_lateral(const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;
	bool		nullable = true;

	for (int fk = 0; fk < table->nfks; fk++)
		if (lt->parents[fk] != NULL && synchro_fk_beyond_identity(lt, fk))
			return false;
	if (table->mode == SYNCHRO_MODE_REFERENCE)
		return true;
	if (synchro_resolve_self_fk_in_key(lt) >= 0)
		return false;
	for (int i = 0; i < table->nkey; i++)
		nullable &= !table->columns[table->key[i]].not_null;
	return nullable || (lt->remote->key_is_indexed && (lt->remote->key_is_unique || !table->allow_many));
}

/*
 * Append the head of an INSERT into the map: kind, fresh, local identity,
 * remote identity as it is and as it will be, and whatever columns says.
 *
 * columns: further ones, ", named", or "".
 */
void
synchro_resolve_insert_head(StringInfo sql, const SynchroLinkTable *lt, const char *columns)
{
	appendStringInfo(sql, "INSERT INTO pg_temp.m_%d (kind, fresh, ", lt->number);
	synchro_sql_list(sql, "l", lt->table->nidentity);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "r", lt->table->nidentity);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "v", lt->table->nidentity);
	appendStringInfo(sql, "%s) ", columns);
}

/*
 * Append ", r0 = from.r0, ..., v0 = from.r0, ...": a row of the map is that
 * remote row; values that are pushed stay what it will be.
 */
void
synchro_resolve_take(StringInfo sql, const SynchroLinkTable *lt, const char *from)
{
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		appendStringInfo(sql, ", r%d = %s.r%d", i, from, i);
		if (!synchro_identity_is_value(lt, lt->table->identity[i]))
			appendStringInfo(sql, ", v%d = %s.r%d", i, from, i);
	}
}

/*
 * Append the remote row's identity, twice: as it is, and as it will be when
 * its parents have been renamed.
 */
void
synchro_resolve_found(StringInfo sql, const SynchroLinkTable *lt)
{
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(sql, ", t.%s", synchro_column_name(lt, lt->table->identity[i]));
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		int			column = lt->table->identity[i];
		int			fk = synchro_column_fk(lt, column);

		if (fk < 0 || !synchro_fk_names_key(lt, fk) || lt->parents[fk] == lt)
			appendStringInfo(sql, ", t.%s", synchro_column_name(lt, column));
		else
		{
			appendStringInfoString(sql, ", coalesce(");
			synchro_sql_value(sql, lt, column, "q", "v");
			appendStringInfo(sql, ", t.%s)", synchro_column_name(lt, column));
		}
	}
}

/*
 * Append "the row alias is not in the map yet", of that kind.
 */
void
synchro_resolve_not_mapped(StringInfo sql, const SynchroLinkTable *lt, const char *alias, const char *kind)
{
	appendStringInfo(sql, "NOT EXISTS (SELECT FROM pg_temp.m_%d m WHERE m.kind = %s AND ",
					 lt->number, kind);
	synchro_sql_equal(sql, "m.l", psprintf("%s.l", alias), lt->table->nidentity);
	appendStringInfoChar(sql, ')');
}

/*
 * Append "the row alias is not one that has got the identity of another,
 * which is gone".
 */
void
synchro_resolve_not_reborn(StringInfo sql, const SynchroLinkTable *lt, const char *alias)
{
	appendStringInfo(sql, "NOT EXISTS (SELECT FROM pg_temp.n_%d d WHERE d.kind = '" SYNCHRO_KIND_DEAD "' AND ",
					 lt->number);
	synchro_sql_equal(sql, "d.l", psprintf("%s.l", alias), lt->table->nidentity);
	appendStringInfoChar(sql, ')');
}

/*
 * May the remote have been told of changes of names by another way, too?
 */
bool
synchro_resolve_may_be_renamed_there(const SynchroLinkTable *lt)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (lt->parents[fk] != NULL && synchro_fk_names_key(lt, fk) && synchro_fk_beyond_identity(lt, fk))
			return false;
	return lt->decides && lt->table->watched && lt->rows != NULL && lt->nrenamed > 0 &&
		lt->table->mode != SYNCHRO_MODE_REFERENCE && !synchro_resolve_is_pair(lt);
}

/*
 * Rows whose change of a name the remote has heard of by another way already
 * -> m, kind n.  There the name of before may be another row's by now: of two
 * that have exchanged names, each would be taken for the other, and one of
 * them deleted.  The remote's log tells: the row that bears the present name
 * there lost the same name by the same change.
 */
void
synchro_resolve_renamed_there(StringInfo sql, const SynchroLinkTable *lt)
{
	const SynchroTable *table = lt->table;

	synchro_resolve_insert_head(sql, lt, "");
	appendStringInfoString(sql, "SELECT DISTINCT ON (");
	synchro_sql_list(sql, "q.l", table->nidentity);
	appendStringInfoString(sql, ") 'n', false, ");
	synchro_sql_list(sql, "q.l", table->nidentity);
	synchro_resolve_found(sql, lt);
	appendStringInfo(sql, " FROM pg_temp.s_%d q JOIN pg_temp.n_%d o ON o.kind = '" SYNCHRO_KIND_OLD "' AND ", lt->number, lt->number);
	synchro_sql_equal(sql, "o.l", "q.l", table->nidentity);
	synchro_sql_join_parents(sql, lt, "q", false);
	synchro_resolve_key_join(sql, lt, "q", SYNCHRO_PARENT_NOW, false);
	appendStringInfo(sql, " JOIN synchro.peer_renames(%s, (SELECT pg_catalog.array_agg(DISTINCT lost ORDER BY lost) FROM pg_temp.n_%d WHERE kind = '" SYNCHRO_KIND_OLD
					 "')) w ON w.lost_at = o.lost AND w.identity = ARRAY[", quote_literal_cstr(table->qualified), lt->number);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", synchro_sql_remote_column(lt, table->identity[i], "t"));
	appendStringInfoString(sql, "]::text");

	for (int i = 0; i < table->nkey; i++)
	{
		int			fk = synchro_column_fk(lt, table->key[i]);
		int			position;

		appendStringInfo(sql, " AND (w.name::text[])[%d] IS NOT DISTINCT FROM ", i + 1);
		if (fk < 0)
		{
			appendStringInfoString(sql, synchro_sql_remote_text(lt, table->key[i], psprintf("o.c%d", table->key[i])));
			continue;
		}
		position = synchro_identity_position(lt->parents[fk]->table, table->fks[fk].refcols[table->columns[table->key[i]].fk_pos]);
		appendStringInfo(sql, "(SELECT %s FROM pg_temp.m_%d b WHERE b.kind IN ('d', 'o', 'n') AND NOT b.fresh AND ",
						 synchro_sql_remote_text(lt->parents[fk], lt->parents[fk]->table->identity[position], psprintf("b.r%d", position)),
						 lt->parents[fk]->number);
		synchro_sql_equal(sql, "b.l", psprintf("o.f%d_", fk), lt->parents[fk]->table->nidentity);
		appendStringInfoString(sql, " ORDER BY b.kind <> 'd', b.kind <> 'o' LIMIT 1)");
	}
	appendStringInfoChar(sql, ';');
}

/*
 * Names of before that are also looked at now, of a table that is not
 * watched: its remote row keeps its name, and is remembered by reference.  Nor
 * are rows in mode reference written of which only the name of now has come: the
 * remote has refused the rest of them.
 */
void
synchro_resolve_adopt_olds(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	synchro_resolve_insert_head(sql, lt, "");
	appendStringInfoString(sql, "SELECT 'n', false, ");
	synchro_sql_list(sql, "o.l", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "o.r", n);
	appendStringInfoString(sql, ", ");
	synchro_sql_list(sql, "o.r", n);
	appendStringInfo(sql, " FROM pg_temp.m_%d o WHERE o.kind = 'o' AND NOT EXISTS (SELECT FROM pg_temp.m_%d m WHERE m.kind = 'n' AND ",
					 lt->number, lt->number);
	synchro_sql_equal(sql, "m.l", "o.l", n);
	appendStringInfoChar(sql, ')');
	if (lt->table->watched)
	{
		appendStringInfo(sql, " AND EXISTS (SELECT FROM pg_temp.n_%d p WHERE p.kind = '" SYNCHRO_KIND_PRESENT "' AND ", lt->number);
		synchro_sql_equal(sql, "p.l", "o.l", n);
		appendStringInfoChar(sql, ')');
	}
	appendStringInfoChar(sql, ';');
}

/*
 * Append a check that no staged row was found to be several remote rows, unless
 * only rows that wait refer to it.
 */
void
synchro_resolve_not_ambiguous(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	appendStringInfoString(sql, "SELECT pg_temp.synchro_raise('" SYNCHRO_AMBIGUOUS_KEY "', 'natural key matches several rows', ");
	synchro_sql_named_row(sql, lt, "l");
	appendStringInfoString(sql, ") FROM (SELECT kind, ");
	synchro_sql_list(sql, "l", n);
	appendStringInfo(sql, " FROM pg_temp.m_%d WHERE kind NOT IN ('" SYNCHRO_KIND_GONE "', '" SYNCHRO_KIND_WAITING "') GROUP BY kind, ", lt->number);
	synchro_sql_list(sql, "l", n);
	appendStringInfoString(sql, " HAVING count(*) > 1) m");
	if (lt->waiting != NULL)
	{
		appendStringInfoString(sql, " WHERE NOT (kind = 'n' AND ");
		synchro_sql_only_waiting(sql, lt, "m");
		appendStringInfoChar(sql, ')');
	}
	appendStringInfoChar(sql, ';');
}
