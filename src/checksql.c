/*-------------------------------------------------------------------------
 *
 * checksql.c
 *	  SQL text: what check() looks for, on either side.
 *
 * What is known here of the tables goes to the probes as one JSON document
 * (checktables.c), so that the same text can be run here and on a remote that has
 * no extension.  Probes read catalogs only, which need no rights, and no rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_trigger.h"

#include "checkpoint.h"
#include "checksql.h"
#include "registryrow.h"
#include "stalled.h"
#include "synchro.h"

/*
 * What $1 and $2 say; x, which follows, are the tables that are there on the
 * probe's side.  MATERIALIZED: the document is to be parsed once, not for each row.
 */
#define TABLES \
	"WITH RECURSIVE p AS (SELECT $2::text AS remote), t AS MATERIALIZED (" \
	" SELECT * FROM json_to_recordset($1::json) AS t (relid oid, relname name, schema name, name text, watched boolean," \
	"  mode text, many boolean, keys text, key name[], identity name[], registered name[], primary_key name[]," \
	"  columns json, fks json, triggers json))"

#define HERE TABLES ", x AS MATERIALIZED (SELECT t.*, t.relid AS oid, true AS is_table FROM t)"
#define THERE TABLES \
	", x AS MATERIALIZED (SELECT t.*, c.oid, c.relkind IN ('r', 'p') AS is_table FROM t JOIN pg_namespace n ON n.nspname = t.schema" \
	"  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.relname AND c.relkind IN ('r', 'p', 'v', 'f'))"

/* their columns here, and how they are on the probe's side: attnum NULL where they are not */
#define COLUMNS \
	", c AS MATERIALIZED (SELECT x.relid, x.oid, x.name AS relation, x.mode, x.watched, c.name, c.type, c.skipped, c.generated, c.key," \
	"  c.identity, c.not_null, c.sequence, c.own, c.collated, c.deterministic, c.provider, c.locale, c.labels," \
	"  a.attnum, a.atttypid, a.atttypmod, a.attcollation, a.attnotnull" \
	"  FROM x CROSS JOIN json_to_recordset(x.columns) AS c (name name, type text, skipped boolean, generated boolean," \
	"   key boolean, identity boolean, not_null boolean, sequence boolean, own boolean, collated text, deterministic boolean," \
	"   provider text, locale text, labels text[])" \
	"  LEFT JOIN pg_attribute a ON a.attrelid = x.oid AND a.attname = c.name AND NOT a.attisdropped)"

#define FKS \
	", f AS MATERIALIZED (SELECT x.relid, x.name AS relation, f.name, f.parent, f.columns, f.referenced, f.in_key FROM x" \
	"  CROSS JOIN json_to_recordset(x.fks) AS f (name name, parent oid, columns name[], referenced name[], in_key boolean))"

#define LIST(names) "(SELECT string_agg(quote_ident(u), ', ' ORDER BY o) FROM unnest(" names ") WITH ORDINALITY AS u (u, o))"

/* a unique index on just these columns keeps rows apart; exact: there is one, though NULLs may get round it */
#define UNIQUE_ON(columns, apart) \
	"(SELECT coalesce(bool_or(" apart "), false) FROM pg_index i WHERE i.indrelid = x.oid AND i.indisunique AND i.indisvalid" \
	" AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = cardinality(" columns ")" \
	" AND NOT EXISTS (SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) u JOIN pg_attribute a ON a.attrelid = x.oid AND a.attnum = u" \
	"  WHERE a.attname <> ALL (" columns ")))"

#define KEY_NOT_UNIQUE(side, otherwise) \
	side COLUMNS ", k AS MATERIALIZED (SELECT x.*, EXISTS (SELECT FROM c WHERE c.relid = x.relid AND c.key AND NOT (c.not_null OR c.attnotnull)) AS nullable," \
	"  EXISTS (SELECT FROM c WHERE c.relid = x.relid AND c.key AND c.attnum IS NULL) AS incomplete FROM x)" \
	"SELECT 'warning', x.relid, CASE WHEN NOT " UNIQUE_ON("x.key", "true") \
	"  THEN format('there is no unique index on the key (%s) of table %s', " LIST("x.key") ", x.name)" \
	"  ELSE format('the key (%s) of table %s may hold NULL, and its unique index does not keep NULLs apart', " LIST("x.key") ", x.name) END," \
	" format('CREATE UNIQUE INDEX ON %s (%s)%s;', x.name, " LIST("x.key") "," \
	"  CASE WHEN x.nullable THEN ' NULLS NOT DISTINCT' ELSE '' END), true" \
	" FROM k x WHERE x.key <> '{}' AND x.is_table AND NOT x.many AND NOT x.incomplete" \
	" AND NOT " UNIQUE_ON("x.key", "NOT x.nullable OR i.indnullsnotdistinct") otherwise

/* here it is as good if a part of the key is unique: rows are not looked up by it */
#define PART_IS_UNIQUE \
	" AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = x.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL" \
	"  AND NOT EXISTS (SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) u JOIN pg_attribute a ON a.attrelid = x.oid AND a.attnum = u" \
	"   WHERE NOT a.attnotnull OR a.attname <> ALL (x.key)))"

/* a foreign key's index must begin with its columns, in any order */
#define REFERENCES_WITHOUT_INDEX(side) \
	side "SELECT 'warning', coalesce((SELECT y.relid FROM x y WHERE y.oid = k.conrelid), x.relid)," \
	" format('foreign key %I of table %I.%I has no index: each row deleted from %s costs reading all of it'," \
	"  k.conname, n.nspname, r.relname, x.name)," \
	" format('CREATE INDEX ON %I.%I (%s);', n.nspname, r.relname, (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY o)" \
	"  FROM unnest(k.conkey) WITH ORDINALITY AS u (u, o) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u)), true" \
	" FROM x JOIN pg_constraint k ON k.confrelid = x.oid AND k.contype = 'f' AND k.conparentid = 0" \
	" JOIN pg_class r ON r.oid = k.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace" \
	" WHERE x.watched AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam" \
	"  WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL AND m.amname IN ('btree', 'hash')" \
	"  AND k.conkey <@ (i.indkey[0:cardinality(k.conkey) - 1])::int2[])"

/*
 * Tables that refer to each other in a circle are written by one statement, at
 * whose end foreign keys are checked, so they arrive.  Hard are circles that
 * have no way in: each row needs another one to be there at the same time.
 */
#define CIRCLES \
	", e AS (SELECT x.relid AS child, y.relid AS parent, k.conname, NOT k.condeferrable AND NOT EXISTS (SELECT FROM pg_attribute a" \
	"   WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND NOT a.attnotnull) AS hard" \
	"  FROM pg_constraint k JOIN x ON x.oid = k.conrelid JOIN x y ON y.oid = k.confrelid" \
	"  WHERE " SYNCHRO_IS_FOREIGN_KEY("k") " AND k.conrelid <> k.confrelid)," \
	" way AS (SELECT child, parent FROM e UNION SELECT w.child, e.parent FROM way w JOIN e ON e.child = w.parent)," \
	" hard_way AS (SELECT child, parent FROM e WHERE hard UNION SELECT w.child, e.parent FROM hard_way w JOIN e ON e.child = w.parent WHERE e.hard)," \
	" circle AS (SELECT a.child AS relid, array_agg(DISTINCT a.parent) AS members FROM way a JOIN way b ON b.child = a.parent AND b.parent = a.child" \
	"  GROUP BY a.child HAVING a.child = min(a.parent))," \
	" hard_circle AS (SELECT a.child AS relid, array_agg(DISTINCT a.parent) AS members FROM hard_way a JOIN hard_way b ON b.child = a.parent AND b.parent = a.child" \
	"  GROUP BY a.child HAVING a.child = min(a.parent))"

#define MEMBERS(circle) "(SELECT string_agg(x.name, ', ' ORDER BY x.name) FROM x WHERE x.relid = ANY (" circle ".members))"

#define HARD_CIRCLE(side) \
	side CIRCLES "SELECT 'warning', h.relid," \
	" format('tables %s refer to each other in a circle without a way in: no foreign key of it may be NULL or deferred, so one row that is refused takes all with it', " \
	MEMBERS("h") ")," \
	" (SELECT string_agg(format('ALTER TABLE %s ALTER CONSTRAINT %I DEFERRABLE INITIALLY IMMEDIATE;', x.name, e.conname), E'\\n' ORDER BY e.conname)" \
	"  FROM e JOIN x ON x.relid = e.child WHERE e.hard AND e.child = h.relid AND e.parent = ANY (h.members)), true FROM hard_circle h"

#define UNLOGGED(side) \
	side "SELECT 'warning', x.relid, format('table %s is UNLOGGED: a crash empties it, and that is no change', o.name)," \
	" format('ALTER TABLE %s SET LOGGED;', o.name), true" \
	" FROM x CROSS JOIN LATERAL (SELECT x.oid AS id UNION SELECT relid FROM pg_partition_tree(x.oid)) r" \
	" JOIN pg_class c ON c.oid = r.id AND c.relpersistence = 'u' JOIN pg_namespace n ON n.oid = c.relnamespace" \
	" CROSS JOIN LATERAL (SELECT format('%I.%I', n.nspname, c.relname) AS name) o"

/* synchronous_commit is not among them: pushers see to that themselves */
#define UNSAFE_SETTINGS(side) \
	side "SELECT 'warning', NULL::oid, format('setting %s is off: a crash of the server can lose or corrupt what was committed', s.name)," \
	" format(E'ALTER SYSTEM SET %s = on;\\nSELECT pg_reload_conf();', s.name), true" \
	" FROM pg_settings s WHERE s.name IN ('fsync', 'full_page_writes') AND s.setting = 'off'"

/* tables whose old names the log must know: inside the keys of watched ones */
#define IN_KEYS \
	", inside AS (SELECT x.relid FROM x WHERE x.watched UNION SELECT f.parent FROM inside i JOIN f ON f.relid = i.relid AND f.in_key)"

/* in a comment a line break would end it, and any name may have one */
#define IN_COMMENT(text) "translate(" text ", E'\\r\\n', '  ')"

/* columns of y's first unique index that could be a natural key, alias u; no row: there is none */
#define UNIQUE_COLUMNS(y) \
	"(SELECT * FROM (SELECT array_agg(a.attname ORDER BY o) AS columns, bool_or(NOT a.attnotnull OR c.sequence) AS unfit, i.indexrelid" \
	"    FROM pg_index i CROSS JOIN unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS u (u, o)" \
	"    JOIN pg_attribute a ON a.attrelid = " y ".oid AND a.attnum = u" \
	"    JOIN json_to_recordset(" y ".columns) AS c (name name, sequence boolean) ON c.name = a.attname" \
	"    WHERE i.indrelid = " y ".oid AND i.indisunique AND NOT i.indisprimary AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL" \
	"    GROUP BY i.indexrelid) u WHERE NOT u.unfit ORDER BY cardinality(u.columns), u.indexrelid LIMIT 1) u"

#define NOT_IN_THE_LOG " || E'\\n-- what was changed meanwhile is in no log: change these rows once more'"

static const char *const probes_here[] = {
	/* a watched table that has lost its key */
	HERE "SELECT 'error', x.relid, format('table %s has lost its key%s: its changes are not logged', x.name,"
	"  coalesce(' (' || " LIST("x.registered") " || ')', '')),"
	" CASE WHEN u.columns IS NOT NULL THEN format('SELECT synchro.register_natural_key(%L, %L);', x.name, u.columns::text)"
	"  WHEN x.primary_key <> '{}' THEN " IN_COMMENT("format('-- name other columns that identify a row: SELECT synchro.register_natural_key(%L, ''{...}'');', x.name)")
	"   || E'\\n' || " IN_COMMENT("format('-- or let ids find rows; those that are on a remote already are inserted there once more then: SELECT synchro.unregister_natural_key(%L);', x.name)")
	"  ELSE " IN_COMMENT("format('-- add a primary key, or name columns that identify a row: SELECT synchro.register_natural_key(%L, ''{...}'');', x.name)") " END"
	NOT_IN_THE_LOG ", true"
	" FROM x LEFT JOIN LATERAL (SELECT (SELECT array_agg(a.attname ORDER BY o) FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS u (u, o)"
	"   JOIN pg_attribute a ON a.attrelid = x.oid AND a.attnum = u) AS columns FROM pg_index i"
	"  WHERE i.indrelid = x.oid AND i.indisunique AND NOT i.indisprimary AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL"
	"  AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = x.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)"
	"  ORDER BY i.indnkeyatts, i.indexrelid LIMIT 1) u ON true"
	" WHERE x.mode = 'none' AND (x.watched OR x.registered IS NOT NULL)",

	/* triggers that are not there, or do not fire; alter_table() renews all of them */
	HERE FKS IN_KEYS "SELECT DISTINCT ON (x.relid) CASE WHEN g.tgenabled = 'O' THEN 'warning' ELSE 'error' END, x.relid,"
	" format('changes of table %s are not all captured: trigger %s of %I.%I %s', x.name, q.trigger, n.nspname, c.relname,"
	"  CASE WHEN g.tgenabled IS NULL THEN 'is missing' WHEN g.tgenabled = 'O' THEN 'does not fire for replicated rows' ELSE 'is disabled' END),"
	" format('SELECT synchro.alter_table(%L);', (SELECT w.name FROM x w WHERE w.watched ORDER BY w.relid <> x.relid, w.name LIMIT 1))"
	NOT_IN_THE_LOG ", true"
	" FROM x JOIN inside i ON i.relid = x.relid"
	" CROSS JOIN LATERAL (SELECT x.oid AS id UNION SELECT relid FROM pg_partition_tree(x.oid)) r"
	" JOIN pg_class c ON c.oid = r.id JOIN pg_namespace n ON n.oid = c.relnamespace"
	" CROSS JOIN (VALUES ('synchro_capture'), ('synchro_truncate')) q (trigger)"
	" LEFT JOIN pg_trigger g ON g.tgrelid = c.oid AND g.tgname = q.trigger"
	" WHERE x.mode <> 'none' AND (q.trigger = 'synchro_capture' OR c.relkind = 'r')"
	" AND g.tgenabled IS DISTINCT FROM 'A' ORDER BY x.relid, g.tgenabled IS NOT DISTINCT FROM 'O', g.tgenabled IS NOT NULL, q.trigger",

	/* not the table that was watched but one that has its name now, be it watched by itself or as a partition */
	HERE "SELECT 'error', u.relation, u.problem,"
	" format(E'SELECT %s;\\n%s', " SYNCHRO_ADD_TABLE_CALL("u.name", "u.natural_key", "u.skip", "u.allow_many") ","
	"  " IN_COMMENT("format('-- or, if it is not to be: SELECT synchro.remove_table(%L);', u.name)") "), true"
	" FROM synchro.unwatched u",

	/*
	 * Watched once, by its trigger, and not any more: where a restored dump lacks one table, none of the registry is there.  What
	 * was said of a table's columns has gone with that.  The trigger of one that is only in a key, which may be left over, says nothing.
	 */
	HERE FKS IN_KEYS "SELECT 'error', c.oid, format('table %s is not watched, but has the trigger of one that is', o.name),"
	" " IN_COMMENT("format('-- watch it as it was before, with its natural key and skipped columns: SELECT synchro.add_table(%L%s);', o.name,"
	"  ', natural_key => ' || quote_literal((SELECT k.columns FROM synchro.natural_key k WHERE k.relation = c.oid)))")
	NOT_IN_THE_LOG " || E'\\n' || " IN_COMMENT("format('-- or, if it is not to be: SELECT synchro.remove_table(%L);', o.name)") ", true"
	" FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
	" CROSS JOIN LATERAL (SELECT format('%I.%I', n.nspname, c.relname) AS name) o"
	" WHERE g.tgfoid = 'synchro.capture'::regproc AND g.tgparentid = 0 AND g.tgtype & " CppAsString2(TRIGGER_TYPE_INSERT) " <> 0"
	" AND NOT EXISTS (SELECT FROM synchro.watched w WHERE w.relation = c.oid) AND NOT EXISTS (SELECT FROM inside i WHERE i.relid = c.oid)",

	UNLOGGED(HERE),
	KEY_NOT_UNIQUE(HERE, PART_IS_UNIQUE),

	/* a name that is made of something that has none */
	HERE FKS "SELECT 'warning', x.relid,"
	" format('the key of table %s contains foreign key %I to table %s, which has no natural key: rows of it that were on both sides before are not found',"
	"  x.name, f.name, y.name),"
	" coalesce((SELECT format('SELECT synchro.register_natural_key(%L, %L);', y.name, u.columns::text) FROM " UNIQUE_COLUMNS("y") "),"
	"  " IN_COMMENT("format('-- name the columns that identify a row: SELECT synchro.register_natural_key(%L, ''{...}'');', y.name)") "), true"
	" FROM x JOIN f ON f.relid = x.relid AND f.in_key JOIN x y ON y.relid = f.parent"
	" WHERE y.mode = 'reference' AND y.relid <> x.relid",

	/* whoever watches a schema has not said what its rows are known by; other keys while changes are pending are not to be made by the way */
	HERE "SELECT 'info', x.relid, format('rows of table %s are found by stored references, though (%s) is unique: those that were on both sides before are not found',"
	"  x.name, " LIST("u.columns") "),"
	" " IN_COMMENT("format('-- if they are to be: SELECT synchro.alter_table(%L, natural_key => %L);', x.name, u.columns::text)") ", true"
	" FROM x CROSS JOIN LATERAL " UNIQUE_COLUMNS("x") " WHERE x.watched AND x.mode = 'reference'",

	/* without a key of the parent's, foreign keys to it are pushed as they are */
	HERE FKS "SELECT 'error', x.relid, format('foreign key %I of table %s refers to values of a sequence, but table %s has no primary key: they are pushed as they are here',"
	"  f.name, x.name, y.name), format('ALTER TABLE %s ADD PRIMARY KEY (%s);', y.name, " LIST("f.referenced") "), true"
	" FROM x JOIN f ON f.relid = x.relid JOIN x y ON y.relid = f.parent WHERE y.mode = 'none' AND y.registered IS NULL AND NOT y.watched"
	" AND EXISTS (SELECT FROM json_to_recordset(y.columns) AS c (name name, sequence boolean) WHERE c.sequence AND c.name = ANY (f.referenced))",

	/* of a partitioned table only its own foreign keys are known */
	HERE "SELECT DISTINCT 'error', x.relid, format('foreign key %I is of partition %I.%I only, not of table %s: it is not known, and what it says is pushed as it is here', k.conname, n.nspname, l.relname, x.name),"
	" format('ALTER TABLE %s ADD %s;', x.name, replace(pg_get_constraintdef(k.oid), ' NOT VALID', '')), true"
	" FROM x CROSS JOIN LATERAL pg_partition_tree(x.oid) r JOIN pg_constraint k ON k.conrelid = r.relid AND k.contype = 'f' AND k.conparentid = 0"
	" JOIN pg_class l ON l.oid = r.relid JOIN pg_namespace n ON n.oid = l.relnamespace"
	" LEFT JOIN x y ON y.oid = " SYNCHRO_COVERING("k.confrelid")
	" WHERE r.relid <> x.oid AND " SYNCHRO_COVERING("r.relid") " = x.oid AND (y.oid IS NULL OR y.mode IN ('natural key', 'reference'))",

	REFERENCES_WITHOUT_INDEX(HERE),
	HARD_CIRCLE(HERE),
	HERE CIRCLES "SELECT 'info', o.relid, format('tables %s refer to each other in a circle; their rows arrive, since a foreign key of it may be NULL or deferred', "
	MEMBERS("o") "), '-- nothing to do', true FROM circle o WHERE NOT EXISTS (SELECT FROM hard_circle h WHERE h.members && o.members)",

	/* a circle of keys can only come about by DDL after the registration */
	HERE FKS ", way AS (SELECT f.relid, f.parent FROM f WHERE f.in_key AND f.parent <> f.relid"
	"  UNION SELECT w.relid, f.parent FROM way w JOIN f ON f.relid = w.parent WHERE f.in_key AND f.parent <> f.relid)"
	"SELECT 'error', x.relid, format('the key of table %s goes round in a circle of foreign keys', x.name),"
	" format('SELECT synchro.unregister_natural_key(%L);', x.name), true"
	" FROM way w JOIN x ON x.relid = w.relid WHERE w.relid = w.parent AND x.mode = 'natural key' AND x.primary_key <> '{}'",

	/* rows are read as the owner of the foreign server */
	HERE "SELECT 'error', x.relid, format('role %I, who owns remote \"%s\", may not read table %s', o.rolname, r.server, x.name),"
	" format('GRANT SELECT ON %s TO %I;', x.name, o.rolname), true"
	" FROM p JOIN synchro.remote r ON p.remote IS NULL OR p.remote = r.server JOIN pg_foreign_server s ON s.srvname = r.server"
	" JOIN pg_roles o ON o.oid = s.srvowner CROSS JOIN x"
	" WHERE NOT has_table_privilege(o.oid, x.oid, 'SELECT') AND EXISTS (SELECT FROM json_to_recordset(x.columns) AS c (name name, skipped boolean)"
	"  WHERE NOT c.skipped AND NOT has_column_privilege(o.oid, x.oid, c.name, 'SELECT'))",
	HERE "SELECT DISTINCT 'error', NULL::oid, format('role %I, who owns remote \"%s\", may not use schema %I', o.rolname, r.server, n.nspname),"
	" format('GRANT USAGE ON SCHEMA %I TO %I;', n.nspname, o.rolname), true"
	" FROM p JOIN synchro.remote r ON p.remote IS NULL OR p.remote = r.server JOIN pg_foreign_server s ON s.srvname = r.server"
	" JOIN pg_roles o ON o.oid = s.srvowner CROSS JOIN x JOIN pg_namespace n ON n.nspname = x.schema"
	" WHERE NOT has_schema_privilege(o.oid, n.oid, 'USAGE')",
	HERE "SELECT 'error', x.relid, format('row-level security of table %s is in the way of role %I, who owns remote \"%s\"', x.name, o.rolname, r.server),"
	" format('ALTER ROLE %I BYPASSRLS;', o.rolname), true"
	" FROM p JOIN synchro.remote r ON p.remote IS NULL OR p.remote = r.server JOIN pg_foreign_server s ON s.srvname = r.server"
	" JOIN pg_roles o ON o.oid = s.srvowner CROSS JOIN x JOIN pg_class c ON c.oid = x.oid"
	" WHERE c.relrowsecurity AND NOT o.rolsuper AND NOT o.rolbypassrls"
	" AND (c.relforcerowsecurity OR NOT pg_has_role(o.oid, c.relowner, 'USAGE'))",

	/* remotes */
	HERE "SELECT 'error', NULL::oid, format('remote \"%s\" has no user mapping for %I, who owns it', r.server, o.rolname),"
	" CASE WHEN o.rolsuper THEN format('CREATE USER MAPPING FOR %I SERVER %I; -- add OPTIONS (user ''...'', password ''...'') where the remote asks for them', o.rolname, r.server)"
	"  ELSE " IN_COMMENT("format('-- with the user and password there: CREATE USER MAPPING FOR %I SERVER %I OPTIONS (user %L, password ''...'');', o.rolname, r.server, o.rolname)") " END, true"
	" FROM p JOIN synchro.remote r ON p.remote IS NULL OR p.remote = r.server JOIN pg_foreign_server s ON s.srvname = r.server"
	" JOIN pg_roles o ON o.oid = s.srvowner"
	" WHERE NOT EXISTS (SELECT FROM pg_user_mappings m WHERE m.srvid = s.oid AND m.umuser IN (s.srvowner, 0))",

	/*
	 * What does not arrive, whose cause may be in no definition; what the remote said is for who may read the table.  Triggers
	 * are looked at above, and what they have caused may be noted still.
	 */
	HERE ", refused AS (SELECT server, relation, count(*) AS rows FROM synchro.parked GROUP BY 1, 2"
	"  UNION ALL SELECT server, relation, NULL FROM synchro.stalled WHERE message NOT LIKE replace('" SYNCHRO_NOT_CAPTURED "', '%s', '%'))"
	"SELECT 'error', r.relation,"
	" CASE WHEN r.rows IS NULL THEN format('nothing of table %s can be pushed to remote \"%s\"', o.name, r.server)"
	"  ELSE format('changes of table %s that remote \"%s\" does not take: %s', o.name, r.server, r.rows) END,"
	" " IN_COMMENT("format('-- see why, and mend that (it is tried again by itself): SELECT * FROM synchro.failures WHERE remote = %L AND relation = %L::regclass;',"
	"  r.server, o.name)") ", true"
	" FROM p JOIN refused r ON p.remote IS NULL OR p.remote = r.server CROSS JOIN LATERAL (SELECT coalesce("
	"  (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = r.relation),"
	"  r.relation::text) AS name) o",

	/* this database and server */
	HERE "SELECT 'error', NULL::oid, 'this database is a copy or was restored, and is held: it pushes nothing',"
	" E'-- if this database is to push, too, or in place of the original:\\n-- SELECT synchro.confirm_node();', true"
	" FROM synchro.node n WHERE n.state <> 'active'",
	HERE "SELECT 'warning', NULL::oid, format('changes are not logged %s: synchro.log_changes is off',"
	"  CASE WHEN s.setrole = 0 THEN 'in this database' WHEN s.setdatabase = 0 THEN format('of role %I', o.rolname)"
	"   ELSE format('of role %I in this database', o.rolname) END),"
	" format('ALTER %s%s RESET synchro.log_changes;', CASE WHEN s.setrole = 0 THEN format('DATABASE %I', d.datname) ELSE format('ROLE %I', o.rolname) END,"
	"  CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN format(' IN DATABASE %I', d.datname) ELSE '' END), true"
	" FROM pg_db_role_setting s LEFT JOIN pg_roles o ON o.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase"
	" WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"
	" AND EXISTS (SELECT FROM unnest(s.setconfig) u WHERE u ~* '^synchro\\.log_changes=(off|of|false|fals|fal|fa|f|no|n|0)$')",
	HERE "SELECT 'warning', NULL::oid, 'changes are not logged on this server: synchro.log_changes is off',"
	" E'LOAD ''synchro'';\\nALTER SYSTEM SET synchro.log_changes = on;\\nSELECT pg_reload_conf();', true"
	" FROM pg_settings s WHERE s.name = 'synchro.log_changes' AND s.source IN ('configuration file', 'command line') AND s.setting = 'off'",
	HERE "SELECT 'warning', NULL::oid, format('changes for remote \"%s\" are pending since %s, longer than synchro.log_retention (%s): what other nodes did meanwhile may not be told from it',"
	"  r.remote, r.lag, l.value),"
	" format(E'LOAD ''synchro'';\\nALTER SYSTEM SET synchro.log_retention = ''%sd'';\\nSELECT pg_reload_conf();', ceil(extract(epoch FROM r.lag) / 86400) + 1), true"
	" FROM p CROSS JOIN (SELECT current_setting('synchro.log_retention') AS value) l JOIN synchro.remotes r ON p.remote IS NULL OR p.remote = r.remote"
	" WHERE l.value::interval > '0' AND r.lag > l.value::interval",
	HERE "SELECT 'error', NULL::oid, format('the clock of this node is known to its group to within %s only, synchro.max_clock_uncertainty is %s', n.clock_uncertainty, l.value),"
	" format(E'LOAD ''synchro'';\\nALTER SYSTEM SET synchro.max_clock_uncertainty = ''%sms'';\\nSELECT pg_reload_conf();', ceil(extract(epoch FROM n.clock_uncertainty) * 2000)), true"
	" FROM synchro.node n CROSS JOIN (SELECT current_setting('synchro.max_clock_uncertainty') AS value) l WHERE n.clock_uncertainty > l.value::interval",
	UNSAFE_SETTINGS(HERE),
	NULL
};

/* a trigger on both sides, of the same name or function, that writes into watched tables here */
#define TWIN_TRIGGERS \
	", twins AS (SELECT DISTINCT x.relid, x.name AS relation, g.name, g.function, g.logs, k.tgfoid::regprocedure::text AS there," \
	"  NOT coalesce(o.proconfig @> '{synchro.log_changes=off}', false) AND o.prosrc !~* 'disable_log|synchro\\.log_changes' AS logs_there" \
	"  FROM x CROSS JOIN json_to_recordset(x.triggers) AS g (name name, function text, logs boolean)" \
	"  JOIN pg_trigger k ON k.tgrelid = x.oid AND NOT k.tgisinternal AND k.tgenabled IN ('O', 'A')" \
	"   AND (k.tgname = g.name OR k.tgfoid::regprocedure::text = g.function)" \
	"  JOIN pg_proc o ON o.oid = k.tgfoid)"

#define TYPE_FIRST "CASE WHEN to_regtype(c.type) IS NULL THEN format(E'-- make type %s there first\\n', " IN_COMMENT("c.type") ") ELSE '' END"

/* as which a column's values are staged: a domain's own rights are not needed */
#define STAGED_TYPE "(WITH RECURSIVE base AS (SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = c.atttypid" \
	" UNION ALL SELECT t.oid, t.typbasetype FROM base JOIN pg_type t ON t.oid = base.typbasetype) SELECT base.oid FROM base WHERE base.typbasetype = 0)"

static const char *const probes_there[] = {
	/* the session's server and database */
	THERE "SELECT 'error', NULL::oid, 'the server is a standby', NULL, false"
	" WHERE pg_is_in_recovery()",
	UNSAFE_SETTINGS(THERE),
	THERE "SELECT 'error', NULL::oid, format('role %I may not make temporary tables', current_user),"
	" format('GRANT TEMPORARY ON DATABASE %I TO %I;', current_database(), current_user), true"
	" WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')",
	THERE "SELECT 'error', NULL::oid, 'the language plpgsql is missing', 'CREATE EXTENSION plpgsql;', true"
	" WHERE NOT EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql')",
	THERE "SELECT 'error', NULL::oid, format('role %I may not use the language plpgsql', current_user),"
	" format('GRANT USAGE ON LANGUAGE plpgsql TO %I;', current_user), true"
	" FROM pg_language WHERE lanname = 'plpgsql' AND NOT has_language_privilege(oid, 'USAGE')",
	THERE "SELECT 'error', NULL::oid, format('role %I may not write the tables of schema synchro_peer', current_user),"
	" format(E'GRANT USAGE ON SCHEMA synchro_peer TO %1$I;\\nGRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA synchro_peer TO %1$I;', current_user), true"
	" FROM pg_namespace n WHERE n.nspname = 'synchro_peer' AND (NOT has_schema_privilege(n.oid, 'USAGE')"
	"  OR EXISTS (SELECT FROM pg_class c CROSS JOIN unnest('{SELECT, INSERT, UPDATE, DELETE}'::text[]) u"
	"   WHERE c.relnamespace = n.oid AND c.relkind = 'r' AND NOT has_table_privilege(c.oid, u)))",
	THERE "SELECT 'warning', NULL::oid, format('something of schema synchro_peer belongs to role %I, whose triggers and indexes would run as role %I', r.rolname, current_user),"
	" E'-- where nothing was pushed yet: drop the schema, and run what synchro.peer_setup() returns\\n-- else: drop triggers and indexes that synchro has not made, and give schema and tables to another owner', true"
	" FROM (" SYNCHRO_PEER_STRANGERS ") r",
	THERE "SELECT 'error', NULL::oid, format('role %I may not push to this database, which runs synchro, too', current_user),"
	" format('SELECT synchro.allow_peer(%L);', quote_ident(current_user)), true"
	" FROM " SYNCHRO_PEER_NODE_FUNCTION " f WHERE NOT has_function_privilege(f.oid, 'EXECUTE')",

	/* tables and columns */
	THERE "SELECT 'error', t.relid, format('there is no table %s', t.name),"
	" format(E'CREATE SCHEMA IF NOT EXISTS %I;\\nCREATE TABLE %s (%s);\\nGRANT USAGE ON SCHEMA %I TO %I;\\nGRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I;"
	"\\n-- without foreign keys, defaults and checks: pg_dump --schema-only --table=%s makes it as it is here"
	"\\n-- but if it was renamed here, rename it there, too',"
	"  t.schema, t.name, concat_ws(', ', (SELECT string_agg(format('%I %s%s%s%s', c.name, c.type,"
	"   CASE WHEN c.collated <> 'pg_catalog.\"default\"' THEN ' COLLATE ' || c.collated ELSE '' END,"
	"   CASE WHEN c.sequence AND c.type IN ('smallint', 'integer', 'bigint') THEN ' GENERATED BY DEFAULT AS IDENTITY' ELSE '' END,"
	"   CASE WHEN c.not_null THEN ' NOT NULL' ELSE '' END), ', ')"
	"   FROM json_to_recordset(t.columns) AS c (name name, type text, collated text, sequence boolean, not_null boolean, generated boolean) WHERE NOT c.generated),"
	"   CASE WHEN t.primary_key <> '{}' THEN format('PRIMARY KEY (%s)', " LIST("t.primary_key") ") END,"
	"   CASE WHEN t.key <> '{}' AND t.key <> t.primary_key AND NOT t.many THEN format('UNIQUE NULLS NOT DISTINCT (%s)', " LIST("t.key") ") END),"
	"  t.schema, current_user, t.name, current_user, " IN_COMMENT("t.name") ") || coalesce((SELECT string_agg(format("
	"   E'\nDO $grant$BEGIN EXECUTE format(''GRANT USAGE ON SEQUENCE %%s TO %%I'', pg_get_serial_sequence(%L, %L), %L); END$grant$;', t.name, c.name, current_user), '')"
	"   FROM json_to_recordset(t.columns) AS c (name name, type text, sequence boolean, generated boolean)"
	"   WHERE c.sequence AND NOT c.generated AND c.type IN ('smallint', 'integer', 'bigint')), ''), true"
	" FROM t WHERE NOT EXISTS (SELECT FROM x WHERE x.relid = t.relid)",

	/* a column of the key by another name: without that, each row would be another one */
	THERE COLUMNS "SELECT 'error', c.relid, format('table %s has no column %I', c.relation, c.name),"
	" CASE WHEN c.key AND u.other IS NOT NULL THEN " IN_COMMENT("format('-- it is in the natural key. If it was renamed: ALTER TABLE %1$s RENAME COLUMN %2$I TO %3$I; if it is new: ALTER TABLE %1$s ADD COLUMN %3$I %4$s;', c.relation, u.other, c.name, c.type)") " ELSE "
	" " TYPE_FIRST " ||"
	" format('ALTER TABLE %s ADD COLUMN %I %s%s;', c.relation, c.name, c.type,"
	"  CASE WHEN c.collated <> 'pg_catalog.\"default\"' THEN ' COLLATE ' || c.collated ELSE '' END) END, true"
	" FROM c CROSS JOIN LATERAL (SELECT min(a.attname::text) AS other FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
	"  AND NOT EXISTS (SELECT FROM c o WHERE o.relid = c.relid AND o.name = a.attname)) u"
	" WHERE c.attnum IS NULL AND (c.key OR c.identity OR NOT (c.skipped OR c.generated))",
	THERE COLUMNS "SELECT CASE WHEN array_position(w.numbers, c.type) < array_position(w.numbers, y.type)"
	"   OR (c.type, y.type) IN (('real', 'double precision'), ('text', 'character varying'))"
	"   OR (c.type LIKE 'character varying%' AND (y.type IN ('text', 'character varying')"
	"    OR substring(c.type, '^character varying.(\\d+)')::int < substring(y.type, '^character varying.(\\d+)')::int))"
	"  THEN 'info' ELSE 'warning' END, c.relid,"
	" format('column %I of table %s has type %s, not %s', c.name, c.relation, y.type, c.type),"
	" " TYPE_FIRST " ||"
	" format('ALTER TABLE %s ALTER COLUMN %I TYPE %s USING %I::%s;', c.relation, c.name, c.type, c.name, c.type), true"
	" FROM c CROSS JOIN LATERAL (SELECT format_type(c.atttypid, c.atttypmod) AS type) y"
	" CROSS JOIN (SELECT '{smallint, integer, bigint, numeric}'::text[] AS numbers) w"
	" WHERE c.attnum IS NOT NULL AND NOT c.skipped AND NOT c.generated AND NOT c.own AND y.type <> c.type",
	THERE "SELECT 'error', x.relid, format('%s is a view, where a table is needed', x.name),"
	" " IN_COMMENT("format('-- rename the view, and let the table that it shows be called %s', x.name)") ", true"
	" FROM x JOIN pg_class v ON v.oid = x.oid AND v.relkind = 'v'",
	THERE COLUMNS "SELECT 'error', c.relid, format('column %I of table %s is generated, but identifies its rows', c.name, c.relation),"
	" CASE a.attgenerated WHEN 's' THEN format('ALTER TABLE %s ALTER COLUMN %I DROP EXPRESSION;', c.relation, c.name)"
	"  ELSE " IN_COMMENT("format('-- make column %I of table %s an ordinary column', c.name, c.relation)") " END, true"
	" FROM c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = c.attnum WHERE c.watched AND (c.key OR c.identity) AND a.attgenerated <> ''",

	/* a value that nobody gives: what may not be NULL is the column, its type, or all of a primary key */
	THERE COLUMNS "SELECT 'error', x.relid, format('column %I of table %s must not be NULL, has no default, and is not pushed: no row can be inserted', a.attname, x.name),"
	" CASE WHEN NOT a.attnotnull THEN format('ALTER DOMAIN %s DROP NOT NULL;', format_type(y.oid, NULL))"
	"  WHEN EXISTS (SELECT FROM c WHERE c.relid = x.relid AND c.attnum IS NULL AND NOT (c.skipped OR c.generated)) THEN "
	IN_COMMENT("format('-- if it was renamed here, rename it there; else: ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL;', x.name, a.attname)")
	"  WHEN NOT k.primary_key THEN format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL;', x.name, a.attname)"
	"  WHEN y.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)"
	"  THEN format(E'ALTER TABLE %1$s ALTER COLUMN %2$I ADD GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME %3$s);\\n"
	"SELECT setval(%3$L, max(%2$I)) FROM %1$s;\\nGRANT USAGE ON SEQUENCE %3$s TO %4$I;', x.name, a.attname, k.sequence, current_user)"
	"  WHEN y.oid = 'uuid'::regtype THEN format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT gen_random_uuid();', x.name, a.attname)"
	"  ELSE " IN_COMMENT("format('-- give column %I of table %s a default that makes keys', a.attname, x.name)") " END, true"
	" FROM x JOIN pg_attribute a ON a.attrelid = x.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.atthasdef AND a.attidentity = ''"
	" JOIN pg_type y ON y.oid = a.atttypid CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_index i"
	"   WHERE i.indrelid = x.oid AND i.indisprimary AND a.attnum = ANY (i.indkey)) AS primary_key,"
	"  format('%I.%I', x.schema, left(x.relname || '_' || a.attname, 55) || '_seq') AS sequence) k"
	" WHERE (a.attnotnull OR y.typnotnull) AND y.typdefault IS NULL AND x.watched"
	" AND NOT EXISTS (SELECT FROM c WHERE c.relid = x.relid AND c.name = a.attname AND NOT c.skipped AND NOT c.generated)",
	THERE COLUMNS "SELECT 'warning', c.relid, format('column %I of table %s must not be NULL, as it may be here', c.name, c.relation),"
	" format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL;', c.relation, c.name), true"
	" FROM c WHERE c.attnotnull AND NOT c.not_null AND NOT c.skipped AND NOT c.generated AND NOT c.identity",
	THERE COLUMNS "SELECT DISTINCT 'warning', c.relid, format('type %s of column %I of table %s lacks the value %L', format_type(c.atttypid, -1), c.name, c.relation, u),"
	" format('ALTER TYPE %s ADD VALUE IF NOT EXISTS %L;', format_type(c.atttypid, -1), u), true"
	" FROM c CROSS JOIN unnest(c.labels) u WHERE NOT c.skipped AND NOT c.generated AND EXISTS (SELECT FROM pg_enum e WHERE e.enumtypid = c.atttypid)"
	" AND NOT EXISTS (SELECT FROM pg_enum e WHERE e.enumtypid = c.atttypid AND e.enumlabel = u)",

	/* what is equal must be equal on both sides */
	THERE COLUMNS "SELECT CASE WHEN c.deterministic AND l.collisdeterministic THEN 'info' ELSE 'warning' END, c.relid,"
	" format('key column %I of table %s has collation %s, not %s%s', c.name, c.relation, y.collated, c.collated,"
	"  CASE WHEN c.deterministic AND l.collisdeterministic THEN '' ELSE ': what is one key here may be two there, or the other way round' END),"
	" CASE WHEN o.oid IS NULL AND NOT c.deterministic THEN format(E'CREATE COLLATION %s (provider = %s, locale = %L, deterministic = false);\\n', c.collated,"
	"   CASE c.provider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END, c.locale) || s.sql"
	"  WHEN (o.collprovider::text, o.collisdeterministic, o.locale) IS DISTINCT FROM (c.provider, c.deterministic, c.locale) AND c.collated <> 'pg_catalog.\"default\"'"
	"  THEN format(E'-- collation %s is not there, or not as it is here: make it so first\\n-- %s', " IN_COMMENT("c.collated") ", " IN_COMMENT("s.sql") ")"
	"  ELSE s.sql END, true"
	" FROM c JOIN pg_collation l ON l.oid = c.attcollation"
	" CROSS JOIN LATERAL (SELECT format('ALTER TABLE %s ALTER COLUMN %I TYPE %s COLLATE %s;',"
	"  c.relation, c.name, format_type(c.atttypid, c.atttypmod), c.collated) AS sql) s"
	" CROSS JOIN LATERAL (SELECT format('%I.%I', l.collnamespace::regnamespace::name, l.collname) AS collated,"
	"  coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', l.collcollate) AS locale) y"
	" LEFT JOIN LATERAL (SELECT n.*, coalesce(to_jsonb(n) ->> 'colllocale', to_jsonb(n) ->> 'colliculocale', n.collcollate) AS locale"
	"  FROM pg_collation n WHERE format('%I.%I', n.collnamespace::regnamespace::name, n.collname) = c.collated"
	"  ORDER BY n.collencoding LIMIT 1) o ON true"
	" WHERE c.key AND c.collated IS NOT NULL AND (c.deterministic <> l.collisdeterministic"
	"  OR (NOT c.deterministic AND (c.provider, c.locale) IS DISTINCT FROM (l.collprovider::text, y.locale))"
	"  OR (c.deterministic AND c.collated <> y.collated AND c.collated <> 'pg_catalog.\"default\"'))",
	KEY_NOT_UNIQUE(THERE, ""),
	THERE COLUMNS "SELECT 'warning', x.relid, format('the primary key''s columns (%s) of table %s are not unique by any index', " LIST("x.identity") ", x.name),"
	" format('CREATE UNIQUE INDEX ON %s (%s);', x.name, " LIST("x.identity") "), true"
	" FROM x WHERE x.is_table AND x.identity <> '{}' AND x.identity <> x.key AND NOT EXISTS (SELECT FROM c WHERE c.relid = x.relid AND c.identity AND c.attnum IS NULL)"
	" AND NOT " UNIQUE_ON("x.identity", "true"),
	REFERENCES_WITHOUT_INDEX(THERE),
	HARD_CIRCLE(THERE),
	UNLOGGED(THERE),

	/* which PostgreSQL refuses in the statements that a batch consists of */
	THERE "SELECT 'error', x.relid, format('rule %I of table %s: batches cannot write a table that has rules', r.rulename, x.name),"
	" format('ALTER TABLE %s DISABLE RULE %I;', x.name, r.rulename), true"
	" FROM x JOIN pg_rewrite r ON r.ev_class = x.oid AND r.ev_type IN ('2', '3', '4') AND r.ev_enabled IN ('O', 'A') WHERE x.is_table",

	/* rights of the role that we are there */
	THERE "SELECT DISTINCT 'error', NULL::oid, format('role %I may not use schema %I', current_user, x.schema),"
	" format('GRANT USAGE ON SCHEMA %I TO %I;', x.schema, current_user), true FROM x WHERE NOT has_schema_privilege(x.schema, 'USAGE')",
	THERE COLUMNS "SELECT DISTINCT 'error', NULL::oid, format('role %I may not use schema %I, in which types of columns are', current_user, n.nspname),"
	" format('GRANT USAGE ON SCHEMA %I TO %I;', n.nspname, current_user), true"
	" FROM c JOIN pg_type y ON y.oid = " STAGED_TYPE " JOIN pg_namespace n ON n.oid = y.typnamespace"
	" WHERE NOT c.skipped AND NOT c.generated AND NOT c.own AND NOT has_schema_privilege(n.oid, 'USAGE') AND NOT EXISTS (SELECT FROM x WHERE x.schema = n.nspname)",
	THERE COLUMNS "SELECT 'error', c.relid, format('role %I may not use type %s of column %I of table %s', current_user, format_type(y.oid, NULL), c.name, c.relation),"
	" format('GRANT USAGE ON TYPE %s TO %I;', format_type(y.oid, NULL), current_user), true"
	" FROM c JOIN pg_type a ON a.oid = " STAGED_TYPE " JOIN pg_type y ON y.oid = CASE WHEN a.typcategory = 'A' AND a.typelem <> 0 THEN a.typelem ELSE a.oid END"
	" WHERE NOT c.skipped AND NOT c.generated AND NOT c.own AND NOT has_type_privilege(y.oid, 'USAGE')",
	THERE COLUMNS "SELECT 'error', x.relid, format('role %I lacks %s on table %s', current_user, r.rights, x.name),"
	" format('GRANT %s ON %s TO %I;', r.rights, x.name, current_user), true"
	" FROM x CROSS JOIN LATERAL (SELECT string_agg(u, ', ' ORDER BY o) AS rights FROM unnest('{SELECT, INSERT, UPDATE, DELETE}'::text[]) WITH ORDINALITY AS u (u, o)"
	"  WHERE NOT has_table_privilege(x.oid, u) AND (u = 'DELETE' OR EXISTS (SELECT FROM c WHERE c.relid = x.relid AND c.attnum IS NOT NULL AND NOT c.skipped AND NOT c.generated"
	"   AND NOT has_column_privilege(x.oid, c.attnum, u)))) r WHERE r.rights IS NOT NULL",
	THERE COLUMNS "SELECT DISTINCT 'error', x.relid, format('role %I may not use sequence %I.%I of table %s', current_user, n.nspname, s.relname, x.name),"
	" format('GRANT USAGE ON SEQUENCE %I.%I TO %I;', n.nspname, s.relname, current_user), true"
	" FROM x JOIN pg_attribute a ON a.attrelid = x.oid AND a.attnum > 0 AND NOT a.attisdropped"
	" CROSS JOIN LATERAL (SELECT p.objid AS id FROM pg_depend p WHERE p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass"
	"   AND p.refobjid = x.oid AND p.refobjsubid = a.attnum AND p.deptype = 'i'"
	"  UNION SELECT p.refobjid FROM pg_attrdef b JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = b.oid AND p.refclassid = 'pg_class'::regclass"
	"   WHERE b.adrelid = x.oid AND b.adnum = a.attnum"
	"  UNION SELECT p.refobjid FROM pg_depend p WHERE p.classid = 'pg_type'::regclass AND p.objid = a.atttypid AND p.refclassid = 'pg_class'::regclass"
	"   AND NOT a.atthasdef) q"
	" JOIN pg_class s ON s.oid = q.id JOIN pg_namespace n ON n.oid = s.relnamespace"
	" WHERE NOT EXISTS (SELECT FROM c WHERE c.relid = x.relid AND c.name = a.attname AND NOT c.skipped AND NOT c.identity)"
	" AND CASE s.relkind WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') AND NOT has_sequence_privilege(s.oid, 'UPDATE') END",
	THERE "SELECT 'error', x.relid, format('row-level security of table %s is in the way of role %I', x.name, current_user),"
	" format('ALTER ROLE %I BYPASSRLS;', current_user), true FROM x WHERE row_security_active(x.oid)",

	/* what it was dropped for here may be over */
	THERE COLUMNS FKS "SELECT DISTINCT ON (c.relid, c.attnum) 'error', c.relid, format('foreign key %I of table %s references table %s, whose rows have other ids there, and there is none here', k.conname, c.relation, p.name),"
	" " IN_COMMENT("format('-- here: ALTER TABLE %s ADD FOREIGN KEY (%I) REFERENCES %s (%I); or, if the values mean the same on both sides', c.relation, c.name, p.name, d.name)")
	" || format(E'\\nALTER TABLE %s DROP CONSTRAINT %I;', c.relation, k.conname), true"
	" FROM c JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0 AND NOT coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false)"
	" CROSS JOIN unnest(k.conkey, k.confkey) u (a, r) JOIN x p ON p.oid = k.confrelid AND (p.watched OR p.mode = 'natural key') JOIN c d ON d.relid = p.relid AND d.attnum = u.r AND d.identity AND NOT d.key"
	" WHERE u.a = c.attnum AND c.watched AND NOT c.skipped AND NOT c.generated AND p.mode IN ('natural key', 'reference')"
	" AND NOT EXISTS (SELECT FROM f WHERE f.relid = c.relid AND c.name = ANY (f.columns)) ORDER BY c.relid, c.attnum, k.conname",

	/* the same trigger on both sides: what ours writes is pushed, and theirs writes it again */
	THERE TWIN_TRIGGERS "SELECT 'warning', m.relid, format('trigger %I of table %s is on both sides, and what its function %s writes here is pushed: it is done twice', m.name, m.relation, m.function),"
	" m.name, false FROM twins m WHERE m.logs",
	NULL
};

static const char *const probes_peer[] = {
	THERE TWIN_TRIGGERS "SELECT 'warning', m.relid, format('trigger %I of table %s is on both sides, and what its function %s writes there is pushed here: it is done twice', m.name, m.relation, m.there),"
	" format('ALTER FUNCTION %s SET synchro.log_changes = off;', m.there), true FROM twins m WHERE m.logs_there",
	THERE "SELECT 'error', x.relid, format('table %s is watched by other keys: %s, not %s', x.name, k.keys, x.keys),"
	" CASE WHEN x.key = '{}' THEN " IN_COMMENT("format('-- or rather here, with the key that it has there: SELECT synchro.register_natural_key(%L, ''{...}'');', x.name)")
	"  ELSE format('SELECT synchro.register_natural_key(%L, %L);', x.name, x.key::text) END, true"
	" FROM x CROSS JOIN LATERAL (SELECT synchro.peer_table(x.name) AS keys) k WHERE x.watched AND k.keys <> x.keys",
	NULL
};

/* what is to be done here about a trigger that a remote has named, of the table $2; $3: its name */
static const char *const trigger_fix =
	"SELECT format('ALTER FUNCTION %s SET synchro.log_changes = off;', g.function)"
	" FROM json_to_recordset($1::json) AS t (relid oid, triggers json)"
	" CROSS JOIN json_to_recordset(t.triggers) AS g (name name, function text, logs boolean)"
	" WHERE t.relid = $2 AND g.name = $3::name AND g.logs";

/*
 * The SQL that tells what mends a trigger here, to be run here.
 */
const char *
synchro_check_trigger_sql(void)
{
	return trigger_fix;
}

/*
 * What is to be run on a side; ends with NULL.
 */
const char *const *
synchro_check_probes(SynchroCheckSide side)
{
	switch (side)
	{
		case SYNCHRO_CHECK_HERE:
			return probes_here;
		case SYNCHRO_CHECK_THERE:
			return probes_there;
		case SYNCHRO_CHECK_PEER:
			return probes_peer;
	}
	return NULL;
}
