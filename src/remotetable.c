/*-------------------------------------------------------------------------
 *
 * remotetable.c
 *	  What a table looks like on the remote, as far as SQL for it needs.
 *
 * Columns correspond by name.  Names of types and operators come qualified,
 * since the session's search_path is pinned to pg_catalog.  An equality
 * operator is the one of the type's own operator class, which only superusers
 * can make, or where it has none a superuser's of the type's schema: so nobody
 * else can put one in our way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "remotetable.h"
#include "sqltext.h"

static const char *const columns_query =
	"SELECT a.attname, format_type(a.atttypid, a.atttypmod),"
	"       format_type(b.oid, -1), t.typcategory,"
	"       a.attnotnull, a.attidentity, a.attgenerated <> '',"
	"       CASE WHEN a.attgenerated <> '' THEN NULL"
	"            WHEN a.attidentity <> '' THEN format('nextval(%L::regclass)', (SELECT s.oid::regclass"
	"              FROM pg_depend p JOIN pg_class s ON s.oid = p.objid AND s.relkind = 'S'"
	"              WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass"
	"                AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum AND p.deptype = 'i'))"
	"            ELSE coalesce(pg_get_expr(d.adbin, d.adrelid), pg_get_expr(t.typdefaultbin, 'pg_type'::regclass)) END,"
	"       (SELECT format('OPERATOR(%I.%s)', n.nspname, e.oprname) FROM (SELECT o.*, 1 AS choice FROM pg_opclass l JOIN pg_am h ON h.oid = l.opcmethod"
	"           JOIN pg_amop m ON m.amopfamily = l.opcfamily AND m.amoplefttype = l.opcintype AND m.amoprighttype = l.opcintype JOIN pg_operator o ON o.oid = m.amopopr"
	"           WHERE l.opcdefault AND l.opcintype = b.oid AND (h.amname, m.amopstrategy) IN (('btree', 3::int2), ('hash', 1::int2))"
	"         UNION ALL SELECT o.*, 2 FROM pg_operator o JOIN pg_roles r ON r.oid = o.oprowner AND r.rolsuper"
	"           WHERE o.oprname = '=' AND o.oprleft = b.oid AND o.oprright = b.oid AND o.oprnamespace = b.typnamespace) e"
	"         JOIN pg_namespace n ON n.oid = e.oprnamespace ORDER BY e.choice LIMIT 1),"
	"       (SELECT c.relkind IN ('r', 'p') AND NOT c.relhasrules FROM pg_class c WHERE c.oid = a.attrelid),"
	"       a.attrelid, " SYNCHRO_REMOTE_SHAPE("to_regclass($1)::oid") ","
	"       (SELECT c.relkind <> 'r' OR EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgtype & 4 <> 0)"
	"         FROM pg_class c WHERE c.oid = a.attrelid),"
	"       (SELECT c.relkind = 'r' FROM pg_class c WHERE c.oid = a.attrelid), a.attnum,"
	"       (SELECT format('%I.%I.%I', n.nspname, c.relname, r.attname) FROM pg_constraint k CROSS JOIN unnest(k.conkey, k.confkey) u (a, r)"
	"         JOIN pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = u.r JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
	"         WHERE k.conrelid = a.attrelid AND k.contype = 'f' AND k.conparentid = 0 AND u.a = a.attnum"
	"           AND NOT coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false) ORDER BY k.oid LIMIT 1),"
	"       (SELECT format('%I.%I', n.nspname, l.collname) FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation),"
	"       format_type(b.oid, b.typmod)"
	" FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
	" CROSS JOIN LATERAL (WITH RECURSIVE base AS (SELECT t.oid, t.typnamespace, t.typbasetype, a.atttypmod AS typmod, t.typtypmod"
	"   UNION ALL SELECT u.oid, u.typnamespace, u.typbasetype, base.typtypmod, u.typtypmod FROM base JOIN pg_type u ON u.oid = base.typbasetype)"
	"   SELECT * FROM base WHERE typbasetype = 0) b"
	" LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
	" WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";

static const char *const indexes_query =
	"SELECT c.relname, i.indimmediate, a.attname"
	" FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
	" CROSS JOIN unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, position)"
	" JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum"
	" WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid"
	"   AND i.indpred IS NULL AND i.indexprs IS NULL"
	" ORDER BY c.relname, k.position";

static bool
is_true(const char *value)
{
	return value != NULL && value[0] == 't';
}

static void
fetch_columns(SynchroRemote *remote, const SynchroTable *table, SynchroRemoteTable *result)
{
	const char *params[1] = {table->qualified};
	SynchroRows *rows = synchro_remote_query(remote, columns_query, 1, params);
	StringInfoData shown;

	if (rows->nrows == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("remote \"%s\" has no table %s",
						synchro_remote_name(remote), table->qualified),
				 errhint("Create the table there, and grant the remote's user access to it.")));
	result->oid = synchro_value(rows, 0, 10);
	result->rows = psprintf("%s%s", is_true(synchro_value(rows, 0, 13)) ? "ONLY " : "", table->qualified);
	result->shape = synchro_value(rows, 0, 11);
	result->columns = palloc0(sizeof(SynchroRemoteColumn) * table->ncolumns);
	initStringInfo(&shown);
	for (int i = 0; i < rows->nrows; i++)
	{
		int			index = synchro_table_column(table, synchro_value(rows, i, 0));
		const char *name = quote_identifier(synchro_value(rows, i, 0));
		SynchroRemoteColumn *column;

		appendStringInfo(&shown, "%s%s AS %s", i > 0 ? ", " : "",
						 synchro_sql_jsonable(psprintf("x.%s", name), synchro_value(rows, i, 2)), name);
		if (index < 0)
			continue;
		column = &result->columns[index];
		column->type = synchro_value(rows, i, 1);
		column->base = synchro_value(rows, i, 2);
		column->category = synchro_value(rows, i, 3)[0];
		column->not_null = is_true(synchro_nullable(rows, i, 4));
		column->identity = synchro_value(rows, i, 5)[0];
		column->generated = is_true(synchro_nullable(rows, i, 6));
		column->attnum = synchro_value(rows, i, 14);
		column->fresh_value = synchro_nullable(rows, i, 7);
		result->is_plain = is_true(synchro_nullable(rows, i, 9));
		result->may_fire = is_true(synchro_nullable(rows, i, 12));
		column->equals = synchro_nullable(rows, i, 8) != NULL ? synchro_value(rows, i, 8) :
			"OPERATOR(pg_catalog.=)";
		column->refers = synchro_nullable(rows, i, 15);
		column->collation = synchro_nullable(rows, i, 16);
		column->staged = synchro_value(rows, i, 17);
	}
	result->shown = shown.data;
}

static bool
covers_key(const SynchroTable *table, const SynchroRemoteIndex *index)
{
	if (index->ncolumns != table->nkey)
		return false;
	for (int i = 0; i < table->nkey; i++)
	{
		bool		found = false;

		for (int j = 0; j < index->ncolumns; j++)
			found |= index->columns[j] == table->key[i];
		if (!found)
			return false;
	}
	return true;
}

static void
fetch_indexes(SynchroRemote *remote, const SynchroTable *table, SynchroRemoteTable *result)
{
	const char *params[1] = {table->qualified};
	SynchroRows *rows = synchro_remote_query(remote, indexes_query, 1, params);
	SynchroRemoteIndex *index = NULL;
	ListCell   *cell;

	for (int i = 0; i < rows->nrows; i++)
	{
		if (index == NULL || strcmp(index->name, synchro_value(rows, i, 0)) != 0)
		{
			index = palloc0(sizeof(SynchroRemoteIndex));
			index->name = synchro_value(rows, i, 0);
			index->immediate = is_true(synchro_nullable(rows, i, 1));
			index->columns = palloc(sizeof(int) * INDEX_MAX_KEYS);
			result->unique_indexes = lappend(result->unique_indexes, index);
		}
		if (index->ncolumns < INDEX_MAX_KEYS)
			index->columns[index->ncolumns++] =
				synchro_table_column(table, synchro_value(rows, i, 2));
	}
	foreach(cell, result->unique_indexes)
		result->key_is_indexed |= covers_key(table, lfirst(cell));
	result->key_is_unique = result->key_is_indexed;
	for (int i = 0; i < table->nkey; i++)
		result->key_is_unique &= table->columns[table->key[i]].not_null ||
			result->columns[table->key[i]].not_null;
}

/*
 * Ask the remote how a table looks there; allocated in the current memory
 * context.  A table that is not there is an error.
 */
SynchroRemoteTable *
synchro_remote_table_fetch(SynchroRemote *remote, const SynchroTable *table)
{
	SynchroRemoteTable *result = palloc0(sizeof(SynchroRemoteTable));

	fetch_columns(remote, table, result);
	fetch_indexes(remote, table, result);
	return result;
}
