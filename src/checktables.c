/*-------------------------------------------------------------------------
 *
 * checktables.c
 *	  SQL text: the tables that check() looks at, those that are watched and all
 *	  that they refer to, as one JSON document.  (header: checksql.h)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/fmgroids.h"

#include "checksql.h"

/* an expression that asks a sequence: tableinfo.c looks for the same */
#define CALLS_NEXTVAL(expression) expression "::text LIKE '%:funcid " CppAsString2(F_NEXTVAL) " %'"

/*
 * The tables as the registry and the catalogs here have them.  A column is its
 * side's own if the remote makes its values itself: ids from a sequence, and
 * foreign keys that are translated.
 */
static const char *const tables_query =
	"WITH RECURSIVE f AS ("
	" SELECT k.oid, k.conname, k.conrelid, " SYNCHRO_COVERING("k.confrelid") " AS parent, k.conkey,"
	"        ARRAY(SELECT a.attname FROM unnest(k.confkey) u JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u) AS referenced,"
	"        ARRAY(SELECT a.attname FROM unnest(k.conkey) u JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u) AS columns"
	" FROM pg_constraint k WHERE " SYNCHRO_IS_FOREIGN_KEY("k")
	"), concerned AS ("
	" SELECT w.relation::oid AS id FROM synchro.watched w"
	" UNION"
	" SELECT f.parent FROM concerned c JOIN f ON f.conrelid = c.id LEFT JOIN synchro.watched w ON w.relation = c.id"
	" WHERE NOT f.columns <@ coalesce(w.skip, '{}')"
	"), described AS MATERIALIZED ("
	" SELECT c.oid AS relid, c.relname, n.nspname AS schema, format('%I.%I', n.nspname, c.relname) AS name, c.relowner,"
	"        w.relation IS NOT NULL AS watched, coalesce(w.skip, '{}') AS skip, synchro.table_mode(c.oid) AS mode,"
	"        w.primary_key AS noted, w.from_sequence, k.columns AS registered, coalesce(k.allow_many, false) AS many, synchro.peer_table(format('%I.%I', n.nspname, c.relname)) AS keys,"
	"        ARRAY(SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY u (attnum, position)"
	"              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.attnum"
	"              WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid ORDER BY u.position) AS primary_key"
	" FROM concerned e JOIN pg_class c ON c.oid = e.id JOIN pg_namespace n ON n.oid = c.relnamespace"
	" LEFT JOIN synchro.watched w ON w.relation = c.oid LEFT JOIN synchro.natural_key k ON k.relation = c.oid"
	"), d AS MATERIALIZED ("
	" SELECT *, CASE mode WHEN 'natural key' THEN registered WHEN 'primary key' THEN primary_key ELSE '{}' END AS key,"
	"        CASE WHEN primary_key <> '{}' OR registered IS NULL THEN primary_key ELSE registered END AS identity FROM described"
	"), sequence_columns AS MATERIALIZED ("
	" SELECT a.attrelid, a.attnum FROM pg_attribute a WHERE a.attidentity <> '' AND NOT a.attisdropped"
	" UNION SELECT b.adrelid, b.adnum FROM pg_attrdef b WHERE " CALLS_NEXTVAL("b.adbin")
	" UNION SELECT a.attrelid, a.attnum FROM pg_type y JOIN pg_attribute a ON a.atttypid = y.oid AND NOT a.atthasdef AND NOT a.attisdropped"
	"  WHERE " CALLS_NEXTVAL("y.typdefaultbin")
	")"
	"SELECT coalesce(json_agg(json_build_object('relid', d.relid, 'relname', d.relname, 'schema', d.schema, 'name', d.name,"
	" 'watched', d.watched, 'mode', d.mode, 'many', d.many, 'keys', d.keys, 'key', d.key, 'identity', d.identity,"
	" 'registered', d.registered, 'primary_key', d.primary_key,"
	" 'columns', (SELECT coalesce(json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),"
	"   'skipped', a.attname = ANY (d.skip), 'generated', a.attgenerated <> '', 'key', a.attname = ANY (d.key),"
	"   'identity', a.attname = ANY (d.identity), 'not_null', a.attnotnull, 'sequence', q.is_own,"
	"   'own', (q.is_own AND a.attname = ANY (d.identity) AND NOT a.attname = ANY (d.key))"
	"     OR EXISTS (SELECT FROM f JOIN d e ON e.relid = f.parent WHERE f.conrelid = d.relid AND a.attnum = ANY (f.conkey)"
	"       AND e.mode IN ('natural key', 'reference')),"
	"   'collated', CASE WHEN a.attcollation <> 0 THEN format('%I.%I', l.collnamespace::regnamespace::name, l.collname) END,"
	"   'deterministic', l.collisdeterministic, 'provider', l.collprovider,"
	"   'labels', (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = a.atttypid),"
	"   'locale', coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', l.collcollate)) ORDER BY a.attnum), '[]')"
	"  FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation"
	"  LEFT JOIN sequence_columns s ON s.attrelid = a.attrelid AND s.attnum = a.attnum"
	"  CROSS JOIN LATERAL (SELECT CASE WHEN d.noted = d.primary_key AND a.attname = ANY (d.noted) THEN a.attname = ANY (d.from_sequence)"
	"   ELSE s.attnum IS NOT NULL END AS is_own) q"
	"  WHERE a.attrelid = d.relid AND a.attnum > 0 AND NOT a.attisdropped),"
	" 'fks', (SELECT coalesce(json_agg(json_build_object('name', f.conname, 'parent', f.parent, 'columns', f.columns,"
	"   'referenced', f.referenced, 'in_key', f.columns && d.key)), '[]') FROM f WHERE f.conrelid = d.relid AND NOT f.columns <@ d.skip),"
	" 'triggers', (SELECT coalesce(json_agg(json_build_object('name', g.tgname, 'function', g.tgfoid::regprocedure::text,"
	"   'logs', NOT coalesce(p.proconfig @> '{synchro.log_changes=off}', false))), '[]')"
	"  FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid WHERE g.tgrelid = d.relid AND NOT g.tgisinternal AND d.watched"
	"  AND g.tgenabled IN ('O', 'A') AND p.prosrc ~* '\\m(insert|update|delete|merge|copy)\\M' AND p.prosrc !~* 'disable_log|synchro\\.log_changes'"
	"  AND EXISTS (SELECT FROM d o WHERE o.watched AND p.prosrc ~* ('\\m' || regexp_replace(o.relname, '(\\W)', '\\\\\\1', 'g') || '\\M')))"
	") ORDER BY d.schema, d.relname), '[]')::text FROM d";

/*
 * The SQL that describes the tables, to be run here.
 */
const char *
synchro_check_tables_sql(void)
{
	return tables_query;
}
