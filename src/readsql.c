/*-------------------------------------------------------------------------
 *
 * readsql.c
 *	  SQL text that reads local rows, and the natural keys of rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "applysql.h"
#include "fksql.h"
#include "keyarray.h"
#include "localsql.h"
#include "readsql.h"

/*
 * A value of an identity as it is staged, see rowstream.c, as SQL.
 */
char *
synchro_sql_staged(const SynchroTable *table, int identity, const char *value)
{
	if (table->columns[table->identity[identity]].not_null)
		return pstrdup(value);
	return psprintf("CASE WHEN %s " SYNCHRO_SQL_IS_NULL " THEN '' ELSE format('=%%s', %s) END",
					value, value);
}

/*
 * Can a referencing value be compared with the parent's identity as text?
 */
bool
synchro_sql_is_direct(const SynchroLinkTable *lt, int fk)
{
	return synchro_sql_fk_is_direct(lt->table, &lt->table->fks[fk], lt->parents[fk]->table);
}

/*
 * Append "the foreign key references a row".  One that is NULL in part
 * references nothing.
 */
static void
append_references(StringInfo sql, const SynchroLinkTable *lt, int fk, bool direct)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];

	if (!direct)
		appendStringInfo(sql, "t%d.tableoid IS NOT NULL", fk);
	for (int i = 0; direct && i < key->ncols; i++)
		appendStringInfo(sql, "%st.%s IS NOT NULL", i > 0 ? " AND " : "",
						 quote_identifier(lt->table->columns[key->cols[i]].name));
}

/*
 * A value of the joined parent's identity, as SQL.  A row whose parent is not
 * there, though the foreign key says so (NOT VALID, or triggers were off), names
 * the one that there would be, so that it is missed on the remote, too.  No cast
 * of anybody's own is called for that.
 */
static char *
joined_identity(const SynchroLinkTable *lt, int fk, int x)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];
	const SynchroTable *parent = lt->parents[fk]->table;
	const SynchroColumn *column = &parent->columns[parent->identity[x]];
	char	   *value = psprintf("t%d.%s", fk, quote_identifier(column->name));
	char	   *here = NULL;
	int			nknown = 0;		/* of the parent's identity, by the foreign key */
	StringInfoData all;

	initStringInfo(&all);
	for (int i = 0; i < key->ncols; i++)
	{
		const SynchroColumn *from = &lt->table->columns[key->cols[i]];
		const char *name = quote_identifier(from->name);

		appendStringInfo(&all, " AND t.%s IS NOT NULL", name);
		nknown += synchro_identity_position(parent, key->refcols[i]) >= 0;
		if (key->refcols[i] != column->attnum)
			continue;
		if (from->type == column->type)
			here = psprintf("t.%s", name);
		else if (getBaseType(from->type) < FirstNormalObjectId && getBaseType(column->type) < FirstNormalObjectId)
			here = psprintf("CAST(t.%s AS %s)", name,
							format_type_extended(getBaseType(column->type), -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	}
	if (here == NULL || nknown < parent->nidentity)
		return value;
	return psprintf("CASE WHEN t%d.tableoid IS NULL%s THEN %s ELSE %s END", fk, all.data, here, value);
}

/*
 * Append the identity of the row that a foreign key references, from alias t,
 * or from the joined parent t<fk> where values do not tell.
 */
void
synchro_sql_parent_identity(StringInfo sql, const SynchroLinkTable *lt, int fk)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];
	const SynchroTable *parent = lt->parents[fk]->table;
	bool		direct = synchro_sql_is_direct(lt, fk);

	for (int x = 0; x < parent->nidentity; x++)
	{
		const SynchroColumn *column = &parent->columns[parent->identity[x]];
		char	   *value = direct ? NULL : joined_identity(lt, fk, x);

		for (int i = 0; direct && i < key->ncols; i++)
			if (key->refcols[i] == column->attnum)
				value = psprintf("t.%s", quote_identifier(lt->table->columns[key->cols[i]].name));
		if (column->not_null && !(direct && key->ncols > 1))
		{
			appendStringInfo(sql, ", %s", value);
			continue;
		}
		appendStringInfoString(sql, ", CASE WHEN ");
		append_references(sql, lt, fk, direct);
		appendStringInfo(sql, " THEN %s END", synchro_sql_staged(parent, x, value));
	}
}

/*
 * Does reading rows, or names, take a join with the parent?
 */
bool
synchro_sql_joins(const SynchroLinkTable *lt, int fk, bool key_only)
{
	return lt->parents[fk] != NULL && (!key_only || synchro_fk_names_key(lt, fk)) &&
		!synchro_sql_is_direct(lt, fk);
}

static void
append_parent_joins(StringInfo sql, const SynchroLinkTable *lt, bool key_only)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		if (!synchro_sql_joins(lt, fk, key_only))
			continue;
		appendStringInfo(sql, " LEFT JOIN %s t%d ON ", synchro_table_rows(lt->parents[fk]->table), fk);
		synchro_sql_fk_equal(sql, lt->table, &lt->table->fks[fk], psprintf("t%d", fk), "t");
	}
}

static void
append_from(StringInfo sql, const SynchroTable *table)
{
	appendStringInfo(sql, " FROM %s t", synchro_table_rows(table));
}

/*
 * Append FROM: all rows.
 */
void
synchro_sql_from_all(StringInfo sql, const SynchroLinkTable *lt, bool key_only)
{
	append_from(sql, lt->table);
	append_parent_joins(sql, lt, key_only);
}

/*
 * Append FROM and WHERE: the rows whose identities, integers, lie between the
 * two parameters.
 */
void
synchro_sql_from_range(StringInfo sql, const SynchroLinkTable *lt, bool key_only)
{
	const SynchroTable *table = lt->table;
	const char *name = quote_identifier(table->columns[table->identity[0]].name);

	synchro_sql_from_all(sql, lt, key_only);
	appendStringInfo(sql, " WHERE t.%s OPERATOR(pg_catalog.>=) $1 AND t.%s OPERATOR(pg_catalog.<=) $2", name, name);
}

/*
 * Append FROM and WHERE: the rows whose identities are in the parameters, see
 * synchro_keyarray_params().
 */
void
synchro_sql_from(StringInfo sql, const SynchroLinkTable *lt, bool key_only)
{
	const SynchroTable *table = lt->table;
	bool		may_be_null[INDEX_MAX_KEYS];

	if (table->nidentity == 1 && !synchro_keyarray_of_rows(table))
	{
		const SynchroColumn *column = &table->columns[table->identity[0]];

		appendStringInfo(sql, " FROM %s t", synchro_table_rows(table));
		append_parent_joins(sql, lt, key_only);
		appendStringInfo(sql, " WHERE t.%s %s ANY ($1)", quote_identifier(column->name), synchro_equality_name(column->type));
		if (!column->not_null)
			appendStringInfo(sql, " OR (t.%s " SYNCHRO_SQL_IS_NULL " AND array_position($1, NULL) IS NOT NULL)",
							 quote_identifier(column->name));
		return;
	}
	for (int i = 0; i < table->nidentity; i++)
		may_be_null[i] = !table->columns[table->identity[i]].not_null;
	synchro_keyarray_join(sql, table, may_be_null);
	append_parent_joins(sql, lt, key_only);
}

/*
 * Is there an order of the table's rows in which they can be read piece by
 * piece, each beginning where the last one ended?  Then *schema is where its
 * operators are.
 *
 * That takes a primary key, so an index, and comparisons of rows, which need
 * operators of one name and schema for all columns.
 */
static bool
has_order(const SynchroTable *table, char **schema)
{
	Oid			namespace = InvalidOid;

	if (!table->has_primary_key)
		return false;
	for (int i = 0; i < table->nidentity; i++)
	{
		TypeCacheEntry *entry = lookup_type_cache(table->columns[table->identity[i]].type, TYPECACHE_GT_OPR);
		HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(entry->gt_opr));
		bool		fits;

		if (!HeapTupleIsValid(tuple))
			return false;
		fits = strcmp(NameStr(((Form_pg_operator) GETSTRUCT(tuple))->oprname), ">") == 0 &&
			(i == 0 || ((Form_pg_operator) GETSTRUCT(tuple))->oprnamespace == namespace);
		namespace = ((Form_pg_operator) GETSTRUCT(tuple))->oprnamespace;
		ReleaseSysCache(tuple);
		if (!fits)
			return false;
	}
	*schema = get_namespace_name(namespace);
	return true;
}

static void
append_identity(StringInfo sql, const SynchroTable *table, const char *after)
{
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, "%st.%s%s", i > 0 ? ", " : "",
						 quote_identifier(table->columns[table->identity[i]].name), after);
}

/*
 * Append a comparison of identities with one that is given as parameters from
 * number first on.
 */
static void
append_bound(StringInfo sql, const SynchroTable *table, const char *schema, const char *operator, int first)
{
	appendStringInfoString(sql, "ROW(");
	append_identity(sql, table, "");
	appendStringInfo(sql, ") OPERATOR(%s.%s) ROW(", quote_identifier(schema), operator);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(sql, "%s$%d", i > 0 ? ", " : "", first + i);
	appendStringInfoChar(sql, ')');
}

static void
append_identities_from(StringInfo sql, const SynchroTable *table)
{
	appendStringInfoString(sql, "SELECT ");
	append_identity(sql, table, "");
	append_from(sql, table);
}

/*
 * Append a query for the identities of a table's rows in the order of its
 * primary key: those after one, if after is true, and up to another, if until
 * is.  The bounds are the parameters, one for each value; after them, as
 * bigint, comes how many.
 *
 * Returns false, with a query for all of them that has no parameters, where
 * there is no such order.
 */
bool
synchro_sql_identities(StringInfo sql, const SynchroTable *table, bool after, bool until)
{
	char	   *schema;
	int			n = table->nidentity;

	append_identities_from(sql, table);
	if (!has_order(table, &schema))
		return false;
	if (after || until)
		appendStringInfoString(sql, " WHERE ");
	if (after)
		append_bound(sql, table, schema, ">", 1);
	if (after && until)
		appendStringInfoString(sql, " AND ");
	if (until)
		append_bound(sql, table, schema, "<=", after ? n + 1 : 1);
	appendStringInfoString(sql, " ORDER BY ");
	append_identity(sql, table, "");
	appendStringInfo(sql, " LIMIT $%d", 1 + (after ? n : 0) + (until ? n : 0));
	return true;
}

/*
 * Append a query for the identity of the last row in that order.  Returns
 * false if there is no order.
 */
bool
synchro_sql_last_identity(StringInfo sql, const SynchroTable *table)
{
	char	   *schema;

	append_identities_from(sql, table);
	appendStringInfoString(sql, " ORDER BY ");
	append_identity(sql, table, " DESC");
	appendStringInfoString(sql, " LIMIT 1");
	return has_order(table, &schema);
}

/*
 * Append a query for the number of a table's rows.
 */
void
synchro_sql_count(StringInfo sql, const SynchroTable *table)
{
	appendStringInfoString(sql, "SELECT count(*)");
	append_from(sql, table);
}
