/*-------------------------------------------------------------------------
 *
 * extrasql.c
 *	  SQL text that finds the remote's rows which nobody bears here, and that
 *	  empties tables.
 *
 * The batch has the natural keys of all rows of the table, resolved: what the
 * map does not have is on the remote only.  It is put on the list of deletes,
 * which the pass's last batch carries out, children first, and tries one by
 * one if they fail together.
 *
 * The batch is one snapshot here and one transaction there, and rows come to
 * the remote by batches only: so a row that is inserted here meanwhile is
 * either in the map, or not there yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "known.h"
#include "previewsql.h"

/*
 * Rows of other tables that refer to those of emptied ones would be deleted with
 * them, or lose what they refer to, if their foreign keys say so.  All rows go, so
 * whatever refers to any does.  A partitioned table's foreign keys are its
 * partitions', too, and only these have rows.  One that is not enforced does nothing.
 * What is referred to is locked before it is looked at, lest somebody adds a row
 * until the delete.
 */
static const char *const define_spare =
"CREATE OR REPLACE FUNCTION pg_temp.synchro_spare(emptied oid[]) RETURNS void LANGUAGE plpgsql"
"  SET search_path = pg_catalog, pg_temp SET row_security = off AS $synchro$"
" DECLARE fk record; refers boolean;"
" BEGIN"
" emptied := emptied || ARRAY(SELECT t.relid::oid FROM unnest(emptied) e CROSS JOIN LATERAL pg_partition_tree(e) t);"
" FOR fk IN SELECT k.conrelid::regclass AS child, k.confrelid::regclass AS parent, CASE p.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || k.confrelid::regclass AS rows,"
"   CASE k.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' ELSE 'SET DEFAULT' END AS action,"
"   string_agg(format('c.%I IS DISTINCT FROM NULL', a.attname), ' AND ') AS refers,"
"   bool_and(has_column_privilege(k.conrelid, a.attnum, 'SELECT')) AND NOT row_security_active(k.conrelid) AS readable"
"  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid"
"  JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)"
"  WHERE k.contype = 'f' AND k.confdeltype IN ('c', 'n', 'd') AND c.relkind = 'r' AND k.confrelid = ANY (emptied) AND k.conrelid <> ALL (emptied)"
"   AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)"
"  GROUP BY k.oid, p.oid ORDER BY k.oid"
" LOOP"
"  IF NOT fk.readable THEN"
"   RAISE foreign_key_violation USING MESSAGE = format('rows of table %s may refer to %s ON DELETE %s: they cannot be read', fk.child, fk.parent, fk.action);"
"  END IF;"
"  EXECUTE format('SELECT FROM %s FOR UPDATE', fk.rows);"
"  EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %s c WHERE %s)', fk.child, fk.refers) INTO refers;"
"  IF refers THEN"
"   RAISE foreign_key_violation USING MESSAGE = format('rows of table %s refer to %s ON DELETE %s', fk.child, fk.parent, fk.action);"
"  END IF;"
" END LOOP;"
" END $synchro$;";

/*
 * Append a statement that fails if emptying tables would do anything to rows of
 * others.
 */
void
synchro_sql_spare_others(StringInfo sql, List *components)
{
	StringInfoData emptied;
	ListCell   *cell;
	ListCell   *other;

	initStringInfo(&emptied);
	foreach(cell, components)
		foreach(other, (List *) lfirst(cell))
			appendStringInfo(&emptied, "%s%s", emptied.len > 0 ? "," : "", ((SynchroLinkTable *) lfirst(other))->remote->oid);
	appendStringInfoString(sql, define_spare);
	appendStringInfo(sql, "SELECT pg_temp.synchro_spare('{%s}');", emptied.data);
}

/*
 * Append statements that delete all rows of tables which refer to each other
 * in a circle, or of one, and what is stored about them.  Their first result:
 * for each table the number of rows deleted.
 */
void
synchro_sql_empty_tables(StringInfo sql, const SynchroLink *link, List *component)
{
	static const char *const stored[] = {"reference", "unapplied"};
	StringInfoData counts;
	ListCell   *cell;

	initStringInfo(&counts);
	foreach(cell, link->preview != NULL ? component : NIL)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		/* one row for each of theirs would say no more */
		appendStringInfo(sql, "SELECT '" SYNCHRO_PREVIEW_TAG "', %d, NULL, 'delete', pg_catalog.format('all rows: %%s', pg_catalog.count(*)) FROM %s t"
						 " HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0::int8;", lt->number, lt->remote->rows);
	}
	foreach(cell, component)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		appendStringInfo(sql, "%se%d AS (DELETE FROM %s t RETURNING 1)", counts.len == 0 ? "WITH " : ", ", lt->number, lt->remote->rows);
		appendStringInfo(&counts, ", (SELECT count(*) FROM e%d)", lt->number);
	}
	appendStringInfo(sql, " SELECT '" SYNCHRO_DELETE_TAG "'%s;", counts.data);
	foreach(cell, component)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		for (int i = 0; i < lengthof(stored); i++)
			appendStringInfo(sql, "DELETE FROM %s.%s WHERE node = '%s' AND relation = %s;", link->peer, stored[i], link->node,
							 quote_literal_cstr(lt->table->qualified));
		synchro_known_sql_emptied(sql, link, lt);
	}
}

/*
 * Append the statement.  stamp: when the rows were found missing here, where
 * the remote compares times.
 */
void
synchro_sql_extra(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, int64 stamp)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);
	StringInfoData key;

	initStringInfo(&key);
	for (int i = 0; i < lt->table->nidentity; i++)
		appendStringInfo(&key, "%s%s", i > 0 ? ", " : "", synchro_sql_remote_column(lt, lt->table->identity[i], "t"));
	synchro_sql_pin(sql, lt, true);
	appendStringInfo(sql, "INSERT INTO %s.unapplied (node, relation, operation, remote_key, stamp, origin)"
					 " SELECT '%s', %s, 'delete', ARRAY[%s], ", link->peer, link->node, relation, key.data);
	if (lt->decides)
		appendStringInfo(sql, INT64_FORMAT ", '%s'", stamp, link->node);
	else
		appendStringInfoString(sql, "NULL, NULL");

	appendStringInfo(sql, " FROM %s t WHERE NOT EXISTS (SELECT FROM pg_temp.m_%d m WHERE m.kind = 'n' AND ", lt->remote->rows, lt->number);
	synchro_sql_identity_equal(sql, lt, "t", "m.r");
	appendStringInfo(sql, ") AND NOT EXISTS (SELECT FROM %s.unapplied u WHERE u.node = '%s' AND u.relation = %s AND u.remote_key OPERATOR(pg_catalog.=) ARRAY[%s]);",
					 link->peer, link->node, relation, key.data);
	synchro_sql_pin(sql, lt, false);
}
