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
 * made to refer to the other, by each foreign key of a table whose owner the
 * pushing role trusts.  What cannot,
 * since the other one has such a row already by a unique index, is that row: it
 * goes with the deleted one, and what refers to it in turn is made to refer to
 * that one.  If anything else would go along, or lose its reference, the batch is
 * not applied, as if a constraint had refused it: so the renamed row is parked.
 * Where a foreign key keeps a row from being deleted, it says so itself.
 *
 * The functions look for foreign keys when there is such a row, which is rare,
 * and go row by row, since each may fail by itself.  Two of them run with a
 * search_path of their own and write the statements, all names qualified; the
 * third has these executed with the role's, as triggers are to find it.
 *
 * A unique constraint that is deferrable notices only at the end that the other
 * one has such a row: the batch fails then, and the renamed row is parked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"

#include "applysql.h"

/*
 * SQL for the base type of one, and for text as a value of that: by no cast that
 * its owner has made.
 */
#define BASE_TYPE(oid) \
"(WITH RECURSIVE base AS (SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = " oid \
" UNION ALL SELECT t.oid, t.typbasetype FROM base JOIN pg_type t ON t.oid = base.typbasetype) SELECT base.oid FROM base WHERE typbasetype = 0)"
#define READ(n, type) \
"format(CASE WHEN " type " < " CppAsString2(FirstNormalObjectId) " THEN '($1::text[])[%s]::%s' ELSE 'pg_temp.synchro_read(($1::text[])[%s], NULL::%s)' END, " n ", format_type(" type ", -1))"

/*
 * Of pairs of rows, each by table and place, and each foreign key to the former:
 * how to find what refers to it (parameter 1: was), and to move that (1: will, 2
 * and 3: table and place; NULL if it cannot be); goes: it would go along; refused:
 * why we leave it alone.  The values are read before anything is moved, since that
 * may move these rows, too.
 *
 * Anybody who has been granted REFERENCES can make such a table, and grant the
 * pushing role what he likes: then its triggers and indexes would run with that
 * one's rights.  So we write only where the owner is one whom it trusts anyway: of
 * the table that is pushed to, or of another.
 */
static const char *const define_plan =
"CREATE FUNCTION pg_temp.synchro_heir_plan(parts oid[], befores tid[], its_parts oid[], nows tid[], OUT child regclass, OUT columns name[], OUT was text,"
"  OUT will text, OUT finding text, OUT moving text, OUT goes boolean, OUT refused text) RETURNS SETOF record LANGUAGE plpgsql"
"  SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC' SET intervalstyle = postgres SET extra_float_digits = 1 AS $synchro$"
" DECLARE fk record; was_values text[]; will_values text[]; trusted oid[] := '{}';"
" BEGIN"
" IF to_regclass('" SYNCHRO_PEER_SCHEMA ".known_table') IS NOT NULL THEN"
"  SELECT array_agg(c.relowner) INTO trusted FROM " SYNCHRO_PEER_SCHEMA ".known_table t JOIN pg_class c ON c.oid = t.own_table;"
" END IF;"
" trusted := trusted || (SELECT array_agg(r.oid) FROM pg_roles r WHERE r.rolsuper OR r.rolname = current_user)"
"  || (SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = '" SYNCHRO_PEER_SCHEMA "');"
" FOR i IN 1 .. cardinality(parts) LOOP"
"  FOR fk IN SELECT k.conrelid::regclass AS child, k.confrelid::regclass AS parent, k.confdeltype, k.conkey, c.relowner, c.relowner = d.relowner AS ours,"
"    CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || k.conrelid::regclass AS rows,"
"    array_agg(a.attname ORDER BY u.n) AS columns,"
"    string_agg(format('CASE WHEN p.%1$I IS DISTINCT FROM NULL THEN format(%2$L, p.%1$I) END', r.attname, '%s'), ', ' ORDER BY u.n) AS referenced,"
"    string_agg(format('%s OPERATOR(%I.%s) c.%I', " READ("u.n", "rt.oid") ", s.nspname, o.oprname, a.attname), ' AND ' ORDER BY u.n) AS finding,"
"    string_agg(format('%I = %s', a.attname, CASE WHEN ct.oid < " CppAsString2(FirstNormalObjectId) " THEN " READ("u.n", "rt.oid") " ELSE " READ("u.n", "ct.oid") " END), ', ' ORDER BY u.n)"
"     FILTER (WHERE a.attgenerated = '' AND a.attidentity <> 'a') AS moving,"
"    bool_or(EXISTS (SELECT FROM pg_cast x JOIN pg_proc f ON f.oid = x.castfunc WHERE x.castsource = ct.oid AND x.casttarget = o.oprright AND f.proowner <> ALL (trusted))) AS is_cast"
"   FROM pg_constraint k CROSS JOIN unnest(k.conkey, k.confkey, k.conpfeqop) WITH ORDINALITY u (a, r, o, n)"
"   JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class d ON d.oid = k.confrelid"
"   JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.a JOIN pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = u.r"
"   JOIN pg_operator o ON o.oid = u.o JOIN pg_namespace s ON s.oid = o.oprnamespace"
"   CROSS JOIN LATERAL " BASE_TYPE("a.atttypid") " ct CROSS JOIN LATERAL " BASE_TYPE("r.atttypid") " rt"
"   WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.confrelid = parts[i] OR k.confrelid IN (SELECT relid FROM pg_partition_ancestors(parts[i])))"
"   AND NOT coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false)"
"   GROUP BY k.oid, c.oid, d.oid ORDER BY k.oid"
"  LOOP"
"   EXECUTE format('SELECT ARRAY[%s] FROM %s p WHERE p.tableoid = $1 AND p.ctid = $2', fk.referenced, fk.parent) INTO was_values USING parts[i], befores[i];"
"   EXECUTE format('SELECT ARRAY[%s] FROM %s p WHERE p.tableoid = $1 AND p.ctid = $2', fk.referenced, fk.parent) INTO will_values USING its_parts[i], nows[i];"
"   CONTINUE WHEN was_values IS NULL OR array_position(was_values, NULL) IS NOT NULL OR was_values = will_values;"
"   child := fk.child; columns := fk.columns; was := was_values; will := will_values;"
"   finding := format('SELECT c.tableoid AS part, c.ctid AS place FROM %s c WHERE %s', fk.rows, fk.finding);"
"   moving := CASE WHEN array_position(will_values, NULL) IS NULL AND will_values IS NOT NULL THEN format('UPDATE %s c SET %s WHERE c.tableoid = $2 AND c.ctid = $3', fk.rows, fk.moving) END;"
"   goes := fk.confdeltype IN ('c', 'n', 'd');"
"   refused := CASE WHEN NOT fk.ours AND fk.relowner <> ALL (trusted)"
"    THEN format('table %s belongs to role %I, none of whose tables is pushed to', fk.child, pg_get_userbyid(fk.relowner))"
"    WHEN fk.is_cast THEN format('a foreign key of table %s needs a cast of somebody else''s', fk.child)"
"    WHEN NOT has_table_privilege(fk.child, 'SELECT') AND EXISTS (SELECT FROM unnest(fk.conkey) u WHERE NOT has_column_privilege(fk.child, u, 'SELECT'))"
"    THEN format('permission denied for table %s', fk.child) END;"
"   RETURN NEXT;"
"  END LOOP;"
" END LOOP;"
" END $synchro$;";

/*
 * How to find the row with which one (2 and 3: table and place) clashes by an
 * index, with other values (1) in some columns; NULL: by none that says which.
 */
static const char *const define_same =
"CREATE FUNCTION pg_temp.synchro_heir_same(part oid, space text, name text, columns name[]) RETURNS text LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $synchro$"
" SELECT format('SELECT x.tableoid AS part, x.ctid AS place FROM %s x, %s c WHERE c.tableoid = $2 AND c.ctid = $3 AND (x.tableoid <> $2 OR x.ctid <> $3) AND ',"
"   coalesce(pg_partition_root(part), part::regclass), part::regclass)"
"  || string_agg(CASE WHEN array_position(columns, a.attname) IS NOT NULL"
"    THEN format('x.%I OPERATOR(%I.%s) %s', a.attname, s.nspname, o.oprname, " READ("array_position(columns, a.attname)", "t.oid") ")"
"    ELSE format('(x.%1$I OPERATOR(%2$I.%3$s) c.%1$I OR x.%1$I IS NULL AND c.%1$I IS NULL)', a.attname, s.nspname, o.oprname) END, ' AND ')"
"  FROM pg_index n CROSS JOIN LATERAL unnest(n.indkey[0:n.indnkeyatts - 1], n.indclass[0:n.indnkeyatts - 1]) k (attnum, class)"
"  JOIN pg_attribute b ON b.attrelid = n.indrelid AND b.attnum = k.attnum JOIN pg_attribute a ON a.attrelid = part AND a.attname = b.attname"
"  JOIN pg_opclass l ON l.oid = k.class JOIN pg_amop m ON m.amopfamily = l.opcfamily AND m.amoplefttype = l.opcintype AND m.amoprighttype = l.opcintype AND m.amopstrategy = 3"
"  JOIN pg_am h ON h.oid = m.amopmethod AND h.amname = 'btree' JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace s ON s.oid = o.oprnamespace"
"  CROSS JOIN LATERAL " BASE_TYPE("a.atttypid") " t"
"  WHERE n.indexrelid = to_regclass(format('%I.%I', space, name)) AND n.indisunique AND n.indpred IS NULL AND n.indexprs IS NULL"
"  AND (n.indrelid = part OR n.indrelid IN (SELECT relid FROM pg_partition_ancestors(part)))"
"  HAVING count(*) = max(n.indnkeyatts)"
" $synchro$;";

/*
 * Have what refers to some rows refer to others.  Rounds, since a trigger may
 * move rows while they are gone through.  After one that has moved nothing comes
 * the last, which looks at what keeps those that are there still.
 */
static const char *const define_heirs =
"CREATE FUNCTION pg_temp.synchro_heirs(parts oid[], befores tid[], its_parts oid[], nows tid[]) RETURNS void LANGUAGE plpgsql AS $synchro$"
" DECLARE plan record; child record; same record; name text; space text; statement text; reason text; last boolean; moved int8; done int8;"
" BEGIN"
" FOR plan IN SELECT * FROM pg_temp.synchro_heir_plan(parts, befores, its_parts, nows) LOOP"
"  IF plan.refused IS NOT NULL THEN"
"   CONTINUE WHEN NOT plan.goes;"
"   RAISE insufficient_privilege USING MESSAGE = plan.refused;"
"  END IF;"
"  last := false;"
"  LOOP"
"   moved := 0;"
"   FOR child IN EXECUTE plan.finding USING plan.was LOOP"
"    same := NULL; statement := NULL; reason := NULL;"
"    IF plan.moving IS NOT NULL THEN"
"     BEGIN"
"      EXECUTE plan.moving USING plan.will, child.part, child.place;"
"      GET DIAGNOSTICS done = ROW_COUNT;"
"      moved := moved OPERATOR(pg_catalog.+) done;"
"      CONTINUE WHEN done OPERATOR(pg_catalog.>) 0::int8;"
"     EXCEPTION WHEN unique_violation OR exclusion_violation THEN"
"      GET STACKED DIAGNOSTICS name = CONSTRAINT_NAME, space = SCHEMA_NAME, reason = MESSAGE_TEXT;"
"     END;"
"    END IF;"
"    CONTINUE WHEN NOT last;"
"    IF reason IS NOT NULL THEN statement := pg_temp.synchro_heir_same(child.part, space, name, plan.columns); END IF;"
"    IF statement IS NOT NULL THEN"
"     EXECUTE statement INTO same USING plan.will, child.part, child.place;"
"     IF same.place IS NOT NULL THEN PERFORM pg_temp.synchro_heirs(ARRAY[child.part], ARRAY[child.place], ARRAY[same.part], ARRAY[same.place]); CONTINUE; END IF;"
"    END IF;"
"    IF plan.goes THEN"
"     PERFORM pg_temp.synchro_raise('23503', pg_catalog.format('a row of %s refers to the row that had the name before, and cannot be moved to the one that has it now%s',"
"      plan.child, CASE WHEN reason IS NULL THEN '' ELSE pg_catalog.concat(': ', reason) END), '');"
"    END IF;"
"   END LOOP;"
"   EXIT WHEN last;"
"   last := moved OPERATOR(pg_catalog.=) 0::int8;"
"  END LOOP;"
" END LOOP;"
" EXCEPTION WHEN syntax_error_or_access_rule_violation THEN"
"  PERFORM pg_temp.synchro_raise('23503', pg_catalog.concat('the row that had the name before may be referred to, which cannot be changed: ', SQLERRM), '');"
" END $synchro$;";

/*
 * May rows of the table take the place of others in the batch?  Of one that has
 * only rows or only deletes, none does.
 */
bool
synchro_sql_has_heirs(const SynchroLinkTable *lt)
{
	return lt->table->watched && lt->table->mode != SYNCHRO_MODE_REFERENCE && !lt->unmapped && lt->rows != NULL && lt->nrenamed > 0;
}

/*
 * Append the functions, which a session needs before the first batch in which
 * a table has heirs.
 */
void
synchro_sql_define_heirs(StringInfo sql)
{
	appendStringInfoString(sql, define_plan);
	appendStringInfoString(sql, define_same);
	appendStringInfoString(sql, define_heirs);
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

	if (!synchro_sql_has_heirs(lt))
		return;
	appendStringInfoString(sql, "SELECT pg_temp.synchro_heirs(pg_catalog.array_agg(p.tableoid), pg_catalog.array_agg(p.ctid),"
						   " pg_catalog.array_agg(t.tableoid), pg_catalog.array_agg(t.ctid)) FROM (");
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
	appendStringInfoString(sql, " HAVING pg_catalog.count(*) > 0;");
}
