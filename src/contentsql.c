/*-------------------------------------------------------------------------
 *
 * contentsql.c
 *	  SQL text for what a row is called and what is in it, the same on every
 *	  server.
 *
 * A row is called by its natural key, in which a foreign key stands for the
 * name of the row that it references, and so on; the same goes for foreign
 * keys among the values.  Names are put together from quoted strings,
 * parentheses and commas, so no two are the same by chance.  Ids that a server
 * has handed out itself appear nowhere.
 *
 * Values are compared as text, see contentvalue.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "applysql.h"
#include "contentsql.h"
#include "contentvalue.h"
#include "fksql.h"
#include "localsql.h"

/* names may go through that many tables */
#define MAX_DEPTH	32

/*
 * Values that are put together by one call, of two arguments at most: a function
 * takes 100, if no server was built otherwise.
 */
#define CALL_VALUES	45

typedef struct Builder
{
	const SynchroContentSide *side;
	List	   *path;			/* of tables whose content is being written */
	const SynchroLinkTable *flat;	/* of this table, rows above others are left
									 * out */
} Builder;

static char *source(Builder *builder, const SynchroLinkTable *lt, const AttrNumber *columns, int ncolumns);
static char *self_source(Builder *builder, const SynchroLinkTable *lt, int self);

/*
 * The foreign key by which a row's name contains that of another row of the
 * same table, or -1.
 */
static int
tree_fk(const SynchroLinkTable *lt)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (lt->parents[fk] == lt && synchro_fk_names_key(lt, fk))
			return fk;
	return -1;
}

/*
 * The table whose rows are meant, without those that inherit from it.
 */
static const char *
rows_of(const Builder *builder, const SynchroLinkTable *lt)
{
	return builder->side->there ? lt->remote->rows : synchro_table_rows(lt->table);
}

/*
 * Does a name or content say what the row is that a foreign key references?
 * A table that is being written is not written once more within itself; but
 * rows that are known by what is in them are known by those above them, too.
 */
static bool
is_followed(const Builder *builder, const SynchroLinkTable *lt, int fk)
{
	const SynchroLinkTable *parent = lt->parents[fk];

	if (parent == NULL)
		return false;
	return !list_member_ptr(builder->path, parent) || (parent == lt && builder->flat != lt);
}

/*
 * The collation by which a foreign key's column number i is compared, as SQL to
 * come after the referenced one; see synchro_sql_fk_collate().
 */
static char *
collate(const Builder *builder, const SynchroLinkTable *lt, int fk, int i)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];
	const SynchroLinkTable *parent = lt->parents[fk];
	const char *from;
	const char *to;

	if (!builder->side->there)
		return synchro_sql_fk_collate(lt->table, key, i);
	from = lt->remote->columns[key->cols[i]].collation;
	to = parent->remote->columns[synchro_table_attribute(parent->table, key->refcols[i])].collation;
	return to == NULL || (from != NULL && strcmp(from, to) == 0) ? pstrdup("") : psprintf(" COLLATE %s", to);
}

/*
 * Append joins of the rows that foreign keys of alias reference, as
 * <alias>_f<number>.  key_only: only those of the natural key.  except: not
 * this one.
 */
static void
append_joins(Builder *builder, StringInfo sql, const SynchroLinkTable *lt, const char *alias,
			 bool key_only, int except)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroForeignKey *key = &lt->table->fks[fk];
		const SynchroLinkTable *parent = lt->parents[fk];

		if (fk == except || (key_only && !synchro_fk_names_key(lt, fk)) || !is_followed(builder, lt, fk))
			continue;
		appendStringInfo(sql, " LEFT JOIN (%s) %s_f%d ON ",
						 list_member_ptr(builder->path, parent) ? self_source(builder, lt, fk) :
						 source(builder, parent, key->refcols, key->ncols), alias, fk);
		for (int i = 0; i < key->ncols; i++)
			appendStringInfo(sql, "%s%s_f%d.r%d%s %s %s.%s", i > 0 ? " AND " : "", alias, fk, i, collate(builder, lt, fk, i),
							 synchro_content_equality(parent, builder->side->there,
													  synchro_table_attribute(parent->table, key->refcols[i])),
							 alias, quote_identifier(lt->table->columns[key->cols[i]].name));
	}
}

/*
 * Append "the columns of the foreign key are not NULL".
 */
static void
append_not_null(StringInfo sql, const SynchroForeignKey *fk, const SynchroLinkTable *lt, const char *alias)
{
	for (int i = 0; i < fk->ncols; i++)
		appendStringInfo(sql, "%s%s.%s IS NOT NULL", i > 0 ? " AND " : "", alias,
						 quote_identifier(lt->table->columns[fk->cols[i]].name));
}

/*
 * Append what a foreign key contributes to a name.  tree: alias of the row
 * above it in the tree, NULL: there is none.
 */
static void
append_parent(const Builder *builder, StringInfo key, StringInfo shown, const SynchroLinkTable *lt,
			  int fk, const char *alias, bool is_tree, const char *tree)
{
	char	   *row = is_tree && tree != NULL ? pstrdup(tree) : psprintf("%s_f%d", alias, fk);

	if ((is_tree && tree == NULL) || !is_followed(builder, lt, fk))
	{
		appendStringInfoString(key, ", '()'");
		appendStringInfoString(shown, ", NULL");
		return;
	}
	appendStringInfo(key, ", '(' || coalesce(%s.k, ", row);
	if (list_member_ptr(builder->path, lt->parents[fk]))
	{
		/* a row in a circle has a parent, but none with a name */
		appendStringInfoString(key, "CASE WHEN ");
		append_not_null(key, &lt->table->fks[fk], lt, alias);
		appendStringInfoString(key, " THEN 'ROUND' END, ");
	}
	appendStringInfoString(key, "'NULL') || ')'");
	appendStringInfo(shown, ", %s.s", row);
}

static bool
is_first_of_fk(const SynchroLinkTable *lt, const int *columns, int ncolumns, int position)
{
	int			fk = synchro_column_fk(lt, columns[position]);

	for (int i = 0; i < position; i++)
		if (synchro_column_fk(lt, columns[i]) == fk)
			return false;
	return true;
}

/*
 * Make the expressions for a row's name by its natural key.  above: see
 * append_parent().
 */
static void
natural_key(const Builder *builder, const SynchroLinkTable *lt, const char *alias, int tree, const char *above,
			char **key, char **shown)
{
	const SynchroTable *table = lt->table;
	StringInfoData k;
	StringInfoData s;

	initStringInfo(&k);
	initStringInfo(&s);
	for (int i = 0; i < table->nkey; i++)
	{
		int			fk = synchro_column_fk(lt, table->key[i]);
		char	   *value;

		if (fk >= 0)
		{
			if (is_first_of_fk(lt, table->key, table->nkey, i))
				append_parent(builder, &k, &s, lt, fk, alias, fk == tree, above);
			continue;
		}
		value = synchro_content_value(lt, builder->side->there, table->key[i], alias);
		appendStringInfo(&k, ", quote_nullable(%s)", value);
		appendStringInfo(&s, ", coalesce(%s, 'NULL')", value);
	}
	*key = psprintf("concat_ws(','%s)", k.data);
	*shown = psprintf("concat_ws(', '%s)", s.data);
}

static char *
identity_array(const Builder *builder, const SynchroLinkTable *lt, const char *alias)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "ARRAY[");
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "",
						 synchro_content_plain(lt, builder->side->there, lt->table->identity[i], alias));
	appendStringInfoString(&sql, "]::text[]");
	return sql.data;
}

/*
 * An array of such values, SQL, in the form in which all compare, whichever
 * version has stored them.
 */
static char *
uniform_array(const SynchroLinkTable *lt, bool there, const char *array)
{
	bool		any = false;
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < lt->table->nidentity; i++)
	{
		int			column = lt->table->identity[i];
		const char *base = there ? lt->remote->columns[column].base : synchro_column_base(lt->table, column);
		char	   *value = psprintf("(%s)[%d]", array, i + 1);
		char	   *uniform = synchro_sql_uniform(value, base);

		any |= strcmp(uniform, value) != 0;
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "ARRAY[", uniform);
	}
	appendStringInfoString(&sql, "]::text[]");
	return any ? sql.data : pstrdup(array);
}

/*
 * The pairs of a table's rows, SQL.  Where a pair is stored in both forms it
 * comes once.
 */
static char *
pairs_of(const Builder *builder, const SynchroLinkTable *lt)
{
	char	   *local_key = uniform_array(lt, false, "u.local_key");
	char	   *remote_key = uniform_array(lt, true, "u.remote_key");

	if (strcmp(local_key, "u.local_key") == 0 && strcmp(remote_key, "u.remote_key") == 0)
		return pstrdup(builder->side->pairs);
	return psprintf("(SELECT DISTINCT u.relation, %s AS local_key, %s AS remote_key FROM %s u WHERE u.relation = %s)",
					local_key, remote_key, builder->side->pairs, quote_literal_cstr(lt->table->qualified));
}

/*
 * Make the expressions for the name of a row that has no natural key: its
 * primary key here.  A row of the remote's that nothing here is known to stand
 * for has a name that no row has here.
 */
static void
reference_key(const Builder *builder, StringInfo joins, const SynchroLinkTable *lt, const char *alias,
			  char **key, char **shown)
{
	char	   *own = uniform_array(lt, builder->side->there, identity_array(builder, lt, alias));

	if (!builder->side->there)
	{
		*key = psprintf("'L' || %s::text", own);
		*shown = psprintf("array_to_string(%s, ', ')", own);
		return;
	}
	if (builder->side->pairs != NULL)
		appendStringInfo(joins, " LEFT JOIN %s %s_r ON %s_r.relation = %s AND %s_r.remote_key = %s",
						 pairs_of(builder, lt), alias, alias, quote_literal_cstr(lt->table->qualified), alias, own);
	if (builder->side->pairs == NULL)
		*key = psprintf("'R' || %s::text", own);
	else
		*key = psprintf("coalesce('L' || %s_r.local_key::text, 'R' || %s::text)", alias, own);
	if (builder->side->pairs == NULL)
		*shown = psprintf("'remote ' || array_to_string(%s, ', ')", own);
	else
		*shown = psprintf("coalesce(array_to_string(%s_r.local_key, ', '), 'remote ' || array_to_string(%s, ', '))", alias, own);
}

/*
 * Text as it is in UTF-8, whatever the database's encoding; as it is where
 * nobody knows what that is.  The result may be the argument.
 */
char *
synchro_content_utf8(char *data, int len)
{
	if (GetDatabaseEncoding() == PG_SQL_ASCII)
		return data;
	return pg_server_to_any(data, len, PG_UTF8);
}

static char *
utf8_name(const SynchroColumn *column)
{
	return synchro_content_utf8(column->name, strlen(column->name));
}

/*
 * The digest of an expression's text, the same in all encodings.
 */
static char *
digest(const char *expression)
{
	return psprintf("encode(sha256(convert_to(%s, '%s')), 'hex')", expression,
					GetDatabaseEncoding() == PG_SQL_ASCII ? "SQL_ASCII" : "UTF8");
}

static int
by_name(const void *a, const void *b, void *table)
{
	const SynchroColumn *columns = ((const SynchroTable *) table)->columns;

	return strcmp(utf8_name(&columns[*(const int *) a]), utf8_name(&columns[*(const int *) b]));
}

/*
 * SQL for which columns that a foreign key of several translates have a value though
 * it references no row, since it is NULL in part: such a value is not pushed.  NULL
 * in all other rows; and if there is no such foreign key.
 */
static char *
value_without_row(const Builder *builder, const SynchroLinkTable *lt, int fk, const char *alias)
{
	const SynchroForeignKey *key = &lt->table->fks[fk];
	StringInfoData columns;
	StringInfoData signs;

	if (key->ncols == 1 || !is_followed(builder, lt, fk) || list_member_ptr(builder->path, lt->parents[fk]))
		return NULL;
	initStringInfo(&columns);
	initStringInfo(&signs);
	for (int i = 0; i < key->ncols; i++)
	{
		const char *name = quote_identifier(lt->table->columns[key->cols[i]].name);

		if (synchro_column_fk(lt, key->cols[i]) != fk)
			continue;
		appendStringInfo(&columns, "%s%s.%s", columns.len > 0 ? ", " : "", alias, name);
		appendStringInfo(&signs, " || CASE WHEN %s.%s IS NULL THEN '-' ELSE '+' END", alias, name);
	}
	return psprintf("CASE WHEN %s_f%d.k IS NULL AND num_nonnulls(%s) > 0 THEN 'PART'%s END", alias, fk, columns.data, signs.data);
}

/*
 * All values of a row in one text; list: SQL for each, after a comma, in calls of
 * their own where they are too many for one.
 */
static char *
all_values(const char *list, int nvalues)
{
	if (nvalues == 0)
		return pstrdup("''::text");
	if (nvalues <= CALL_VALUES)
		return psprintf("concat_ws(','%s)", list);
	return psprintf("concat_ws(',', concat_ws(','%s))", list);
}

/*
 * Fill the lists of a row's values, in the order of the columns' names.
 */
static void
make_values(const Builder *builder, const SynchroLinkTable *lt, const char *alias, SynchroContent *content)
{
	const SynchroTable *table = lt->table;
	int		   *order = palloc(sizeof(int) * Max(table->ncolumns, 1));
	StringInfoData all;
	StringInfoData unused;

	for (int i = 0; i < table->ncolumns; i++)
		order[i] = i;
	qsort_arg(order, table->ncolumns, sizeof(int), by_name, unconstify(SynchroTable *, table));
	initStringInfo(&all);
	initStringInfo(&unused);
	content->values = palloc(sizeof(char *) * Max(table->ncolumns, 1));
	content->names = palloc(sizeof(char *) * Max(table->ncolumns, 1));
	content->columns = palloc(sizeof(int) * Max(table->ncolumns, 1));
	content->nvalues = 0;
	for (int position = 0; position < table->ncolumns; position++)
	{
		int			i = order[position];
		int			fk = synchro_column_fk(lt, i);
		int			n = content->nvalues;

		if (!synchro_content_counts(lt, i))
			continue;
		content->columns[n] = i;
		content->names[n] = table->columns[i].name;
		if (fk >= 0)
		{
			bool		first = true;

			for (int j = 0; j < n && first; j++)
				if (synchro_column_fk(lt, content->columns[j]) == fk)
				{
					content->names[j] = psprintf("%s, %s", content->names[j], table->columns[i].name);
					first = false;
				}
			if (!first)
				continue;
		}
		if (n > 0 && n % CALL_VALUES == 0)
			appendStringInfoString(&all, "), concat_ws(','");
		if (fk >= 0)
		{
			char	   *without_row = value_without_row(builder, lt, fk, alias);

			append_parent(builder, &all, &unused, lt, fk, alias, false, NULL);
			content->values[n] = is_followed(builder, lt, fk) ? psprintf("%s_f%d.k", alias, fk) : pstrdup("NULL::text");
			if (without_row != NULL)
			{
				appendStringInfo(&all, ", %s", without_row);
				content->values[n] = psprintf("coalesce(%s, %s)", content->values[n], without_row);
			}
		}
		else
		{
			content->values[n] = synchro_content_value(lt, builder->side->there, i, alias);
			appendStringInfo(&all, ", quote_nullable(%s)", content->values[n]);
		}
		content->nvalues++;
	}
	content->all = all_values(all.data, content->nvalues);
}

static void
append_columns(StringInfo sql, const SynchroLinkTable *lt, const char *alias, const char *prefix,
			   const AttrNumber *columns, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
		appendStringInfo(sql, "%s.%s AS %s%d, ", alias,
						 quote_identifier(lt->table->columns[synchro_table_attribute(lt->table, columns[i])].name), prefix, i);
}

/*
 * A query for the names of a table whose natural key contains the name of
 * another of its rows: from the roots downwards.
 */
static char *
tree_source(Builder *builder, const SynchroLinkTable *lt, int tree, const AttrNumber *columns, int ncolumns)
{
	const SynchroForeignKey *self = &lt->table->fks[tree];
	StringInfoData sql;
	StringInfoData joins;
	StringInfoData list;
	char	   *key;
	char	   *shown;

	initStringInfo(&sql);
	initStringInfo(&joins);
	initStringInfo(&list);
	append_joins(builder, &joins, lt, "p", true, tree);
	append_columns(&list, lt, "p", "r", columns, ncolumns);
	append_columns(&list, lt, "p", "x", self->refcols, self->ncols);

	natural_key(builder, lt, "p", tree, NULL, &key, &shown);
	appendStringInfo(&sql, "WITH RECURSIVE w AS (SELECT %s%s AS k, %s AS s FROM %s p%s WHERE NOT (",
					 list.data, key, shown, rows_of(builder, lt), joins.data);
	append_not_null(&sql, self, lt, "p");
	natural_key(builder, lt, "p", tree, "w", &key, &shown);
	appendStringInfo(&sql, ") UNION ALL SELECT %s%s, %s FROM w JOIN %s p ON ",
					 list.data, key, shown, rows_of(builder, lt));
	for (int i = 0; i < self->ncols; i++)
		appendStringInfo(&sql, "%sp.%s %s w.x%d%s", i > 0 ? " AND " : "",
						 quote_identifier(lt->table->columns[self->cols[i]].name),
						 synchro_content_equality(lt, builder->side->there,
												  synchro_table_attribute(lt->table, self->refcols[i])), i, collate(builder, lt, tree, i));
	appendStringInfo(&sql, "%s) SELECT * FROM w", joins.data);
	return sql.data;
}

/*
 * A query for what is in the rows of a table without natural key that refers to
 * itself, and in those above each of them: k, and by the referenced columns
 * r0..  From the roots downwards; what goes round in a circle is not there.
 * Digests, since paths may be long.
 */
static char *
self_source(Builder *builder, const SynchroLinkTable *lt, int self)
{
	const SynchroForeignKey *fk = &lt->table->fks[self];
	const SynchroLinkTable *flat = builder->flat;
	SynchroContent content = {0};
	StringInfoData sql;
	StringInfoData joins;
	StringInfoData list;

	initStringInfo(&sql);
	initStringInfo(&joins);
	initStringInfo(&list);
	builder->flat = lt;
	append_joins(builder, &joins, lt, "p", false, -1);
	make_values(builder, lt, "p", &content);
	builder->flat = flat;
	append_columns(&list, lt, "p", "r", fk->refcols, fk->ncols);
	appendStringInfo(&sql, "WITH RECURSIVE w AS (SELECT %s%s AS k FROM %s p%s WHERE NOT (",
					 list.data, digest(content.all), rows_of(builder, lt), joins.data);
	append_not_null(&sql, fk, lt, "p");
	appendStringInfo(&sql, ") UNION ALL SELECT %s%s FROM w JOIN %s p ON ",
					 list.data, digest(psprintf("%s || w.k", content.all)), rows_of(builder, lt));
	for (int i = 0; i < fk->ncols; i++)
		appendStringInfo(&sql, "%sp.%s %s w.r%d%s", i > 0 ? " AND " : "",
						 quote_identifier(lt->table->columns[fk->cols[i]].name),
						 synchro_content_equality(lt, builder->side->there,
												  synchro_table_attribute(lt->table, fk->refcols[i])), i, collate(builder, lt, self, i));
	appendStringInfo(&sql, "%s) SELECT w.*, w.k AS s FROM w", joins.data);
	return sql.data;
}

/*
 * A query for the names of a table's rows: k, for readers s, and by columns
 * r0.. that they are referenced by.
 */
static char *
source(Builder *builder, const SynchroLinkTable *lt, const AttrNumber *columns, int ncolumns)
{
	int			tree = tree_fk(lt);
	List	   *path = builder->path;
	StringInfoData sql;
	StringInfoData joins;
	SynchroContent content = {0};

	if (list_length(path) > MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("natural key of table %s goes round in a circle", lt->table->qualified)));
	if (tree >= 0 && lt->table->mode != SYNCHRO_MODE_REFERENCE)
		return tree_source(builder, lt, tree, columns, ncolumns);
	initStringInfo(&sql);
	initStringInfo(&joins);

	/* whoever references a row of this table on the way down ends there */
	if (lt->table->mode == SYNCHRO_MODE_REFERENCE && !builder->side->by_reference)
	{
		builder->path = lappend(list_copy(path), unconstify(SynchroLinkTable *, lt));
		append_joins(builder, &joins, lt, "p", false, -1);
		make_values(builder, lt, "p", &content);
		content.key = content.shown = content.all;
	}
	else if (lt->table->mode == SYNCHRO_MODE_REFERENCE)
		reference_key(builder, &joins, lt, "p", &content.key, &content.shown);
	else
	{
		builder->path = lappend(list_copy(path), NULL);
		append_joins(builder, &joins, lt, "p", true, -1);
		natural_key(builder, lt, "p", -1, NULL, &content.key, &content.shown);
	}
	builder->path = path;
	appendStringInfoString(&sql, "SELECT ");
	append_columns(&sql, lt, "p", "r", columns, ncolumns);
	appendStringInfo(&sql, "%s AS k, %s AS s FROM %s p%s", content.key, content.shown,
					 rows_of(builder, lt), joins.data);
	return sql.data;
}

/*
 * The SQL for a table's rows.  In the current memory context; needs a local
 * transaction.
 *
 * lt: with all its parents, see synchro_link_table(); described on the remote,
 * too, for that side.
 */
SynchroContent *
synchro_content_sql(const SynchroLinkTable *lt, const SynchroContentSide *side)
{
	SynchroContent *content = palloc0(sizeof(SynchroContent));
	Builder		builder = {side, NIL};
	int			tree = tree_fk(lt);
	StringInfoData from;

	initStringInfo(&from);
	appendStringInfo(&from, "FROM %s t", rows_of(&builder, lt));
	content->identity = palloc(sizeof(char *) * Max(lt->table->nidentity, 1));
	for (int i = 0; i < lt->table->nidentity; i++)
		content->identity[i] = synchro_content_plain(lt, side->there, lt->table->identity[i], "t");
	if (lt->table->mode == SYNCHRO_MODE_NONE || (lt->table->mode == SYNCHRO_MODE_REFERENCE && !side->by_reference))
	{
		builder.path = list_make1(unconstify(SynchroLinkTable *, lt));
		append_joins(&builder, &from, lt, "t", false, -1);
		make_values(&builder, lt, "t", content);
		content->key = content->shown = content->all;
		content->from = from.data;
		return content;
	}
	append_joins(&builder, &from, lt, "t", false, -1);
	make_values(&builder, lt, "t", content);
	if (lt->table->mode == SYNCHRO_MODE_REFERENCE)
		reference_key(&builder, &from, lt, "t", &content->key, &content->shown);
	else
		natural_key(&builder, lt, "t", tree, psprintf("t_f%d", tree), &content->key, &content->shown);
	content->from = from.data;
	return content;
}
