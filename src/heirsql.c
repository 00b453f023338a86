/*-------------------------------------------------------------------------
 *
 * heirsql.c
 *	  SQL text that has what refers to a row refer to the one which takes its
 *	  place.
 *
 * A row that was renamed here may get a name which another row bears on the
 * remote.  By its name it is that other one then (see resolve_rows_renamed() in
 * resolvesql.c), and nobody is called by the name of before any more, so the row
 * that bears that on the remote goes.  But what refers to that one refers to the
 * renamed row, as it does here: it must not go along, by ON DELETE CASCADE, or
 * lose the reference, which on nodes would come back as a change.  Some of it is
 * not in the batch, since nothing of it has changed; some is not even watched.
 *
 * So before anything is deleted, all rows of the remote that refer to the one are
 * made to refer to the other, by each foreign key that there is.  What cannot,
 * since the other one has such a row already, is that row by a unique value: it
 * goes with the deleted one, and what refers to it in turn is made to refer to
 * that one.  What this user must not change keeps the batch from being applied,
 * as a row would that still refers to one to be deleted: so the renamed row is
 * parked.
 *
 * The function looks for foreign keys when there is such a row, which is rare,
 * and works row by row, since each may fail by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"

/*
 * Append the function: of the rows that refer to one, which is at before in
 * table part, to have them refer to the one at now in table its_part.  What they
 * refer to is read first, since triggers may move these rows.
 */
void
synchro_sql_define_heir(StringInfo sql)
{
	appendStringInfoString(sql,
						   "CREATE FUNCTION pg_temp.synchro_heir(part oid, before tid, its_part oid, now tid) RETURNS void LANGUAGE plpgsql AS $synchro$"
						   " DECLARE fk record; child record; same record; columns text[] := '{}'; name text; space text; matching text; was text[]; will text[]; finding text[] := '{}'; found text[] := '{}'; moving text[] := '{}'; moved text[] := '{}';"
						   " BEGIN"
						   " FOR fk IN SELECT k.conrelid::regclass AS child, k.confrelid::regclass AS parent,"
						   "   array_agg(a.attname ORDER BY u.n)::text AS columns,"
						   "   string_agg(format('p.%I::text', r.attname), ', ' ORDER BY u.n) AS referenced,"
						   "   string_agg(format('($1::text[])[%s]::%s OPERATOR(%I.%s) c.%I', u.n, format_type(r.atttypid, r.atttypmod), s.nspname, o.oprname, a.attname), ' AND ' ORDER BY u.n) AS finding,"
						   "   string_agg(format('%I = ($1::text[])[%s]::%s', a.attname, u.n, format_type(r.atttypid, r.atttypmod)), ', ' ORDER BY u.n) AS moving"
						   "  FROM pg_constraint k CROSS JOIN unnest(k.conkey, k.confkey, k.conpfeqop) WITH ORDINALITY u (a, r, o, n)"
						   "  JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.a JOIN pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = u.r"
						   "  JOIN pg_operator o ON o.oid = u.o JOIN pg_namespace s ON s.oid = o.oprnamespace"
						   "  WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.confrelid = part OR k.confrelid IN (SELECT relid FROM pg_partition_ancestors(part)))"
						   "  GROUP BY k.oid ORDER BY k.oid"
						   " LOOP"
						   "  EXECUTE format('SELECT ARRAY[%s] FROM %s p WHERE p.tableoid = $1 AND p.ctid = $2', fk.referenced, fk.parent) INTO was USING part, before;"
						   "  EXECUTE format('SELECT ARRAY[%s] FROM %s p WHERE p.tableoid = $1 AND p.ctid = $2', fk.referenced, fk.parent) INTO will USING its_part, now;"
						   "  CONTINUE WHEN was IS NULL OR will IS NULL OR was = will OR array_position(was, NULL) IS NOT NULL;"
						   "  finding := finding || format('SELECT c.tableoid AS part, c.ctid AS place FROM %s c WHERE %s FOR UPDATE', fk.child, fk.finding);"
						   "  found := found || was::text;"
						   "  columns := columns || fk.columns;"
						   "  moving := moving || format('UPDATE %s c SET %s WHERE c.tableoid = $2 AND c.ctid = $3', fk.child, fk.moving);"
						   "  moved := moved || will::text;"
						   " END LOOP;"
						   " FOR i IN 1 .. cardinality(finding) LOOP"
						   "  FOR child IN EXECUTE finding[i] USING found[i] LOOP"
						   "   BEGIN EXECUTE moving[i] USING moved[i], child.part, child.place; EXCEPTION WHEN unique_violation OR exclusion_violation THEN"
						   "    GET STACKED DIAGNOSTICS name = CONSTRAINT_NAME, space = SCHEMA_NAME;"
						   "    SELECT string_agg(format('x.%I::text = ', a.attname) || coalesce('($1::text[])[' || array_position(columns[i]::name[], a.attname) || ']', format('c.%I::text', a.attname)), ' AND ') INTO matching"
						   "     FROM pg_index n CROSS JOIN unnest(n.indkey) k JOIN pg_attribute a ON a.attrelid = child.part AND a.attname = (SELECT attname FROM pg_attribute WHERE attrelid = n.indrelid AND attnum = k)"
						   "     WHERE n.indexrelid = to_regclass(format('%I.%I', space, name)) AND n.indisunique AND n.indpred IS NULL AND n.indexprs IS NULL;"
						   "    CONTINUE WHEN matching IS NULL;"
						   "    EXECUTE format('SELECT x.tableoid AS part, x.ctid AS place FROM %s x, %s c WHERE c.tableoid = $2 AND c.ctid = $3 AND %s',"
						   "     coalesce(pg_partition_root(child.part), child.part::regclass), child.part::regclass, matching) INTO same USING moved[i], child.part, child.place;"
						   "    IF same.place IS NOT NULL THEN PERFORM pg_temp.synchro_heir(child.part, child.place, same.part, same.place); END IF;"
						   "   END;"
						   "  END LOOP;"
						   " END LOOP;"
						   " EXCEPTION WHEN insufficient_privilege THEN"
						   "  PERFORM pg_temp.synchro_raise('23503', 'the row that had the name before is still referred to, which cannot be changed: ' || SQLERRM, '');"
						   " END $synchro$;");
}

/*
 * Append the statement for a table whose rows have been written, before any of
 * it are deleted, and after rows that refer to them are: of those the map says
 * where they were.
 */
void
synchro_sql_heirs(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	if (!lt->table->watched || lt->table->mode == SYNCHRO_MODE_REFERENCE || lt->unmapped || lt->rows == NULL || lt->nolds == 0)
		return;
	appendStringInfoString(sql, "SELECT pg_temp.synchro_heir(p.tableoid, p.ctid, t.tableoid, t.ctid) FROM (");
	synchro_sql_doomed(sql, lt);
	appendStringInfo(sql, ") x JOIN pg_temp.m_%d b ON b.kind = '" SYNCHRO_KIND_OLD "' AND ", lt->number);
	synchro_sql_same_row(sql, lt, "b.r", "x.r");

	/* one that has lost is there as it was */
	appendStringInfoString(sql, " JOIN (SELECT ");
	synchro_sql_list(sql, "l", n);
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, ", CASE WHEN verdict IS NULL THEN v%d ELSE r%d END AS v%d", i, i, i);
	appendStringInfo(sql, " FROM pg_temp.m_%d WHERE kind = 'n') h ON ", lt->number);
	synchro_sql_equal(sql, "h.l", "b.l", n);
	appendStringInfo(sql, " JOIN %s p ON ", lt->remote->rows);
	synchro_sql_identity_equal(sql, lt, "p", "x.r");
	appendStringInfo(sql, " JOIN %s t ON ", lt->remote->rows);
	synchro_sql_identity_equal(sql, lt, "t", "h.v");
	appendStringInfoString(sql, ";");
}
