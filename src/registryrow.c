/*-------------------------------------------------------------------------
 *
 * registryrow.c
 *	  The rows of synchro.watched and synchro.natural_key: read, written, and
 *	  kept in line with tables that are dropped and columns that are renamed;
 *	  and those of synchro.dropped, under which names tables were watched that
 *	  were dropped or renamed.
 *
 * Rows are read by catalog scans, so that event triggers may ask at DDL of
 * any user, and written as the owner of the extension.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "localsql.h"
#include "registryrow.h"
#include "sequence.h"
#include "synchro.h"

/* tables of the registry: the first two columns are relation and names */
#define WATCHED			"watched"
#define NATURAL_KEY		"natural_key"

/* in synchro.watched: names of the primary key that is noted; those of its columns that a sequence makes are among them */
#define WATCHED_PRIMARY_KEY	3

/* watched tables among what an event trigger's command has dropped */
#define DROPPED_WATCHED \
	" FROM pg_event_trigger_dropped_objects() o JOIN synchro.watched w ON w.relation = o.objid" \
	" LEFT JOIN synchro.natural_key k ON k.relation = o.objid" \
	" WHERE o.classid = 'pg_class'::regclass AND o.objsubid = 0"

/* a column that a table does not have any more; that the command at hand has dropped one says what its name does not, where it has made another one of that name */
#define LOST_COLUMN(relation, name) \
	"(NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = " relation " AND a.attname = " name " AND NOT a.attisdropped)" \
	" OR EXISTS (SELECT FROM pg_event_trigger_dropped_objects() o WHERE o.classid = 'pg_class'::regclass AND o.objid = " relation \
	"  AND o.objsubid > 0 AND o.address_names[3] = " name "))"

/* how watched tables w are watched, noted under the names that they had: SQL texts for these, and where w and k, their keys, come from */
#define NOTE(schema, name, from) \
	"INSERT INTO synchro.dropped (schema, name, natural_key, skip, allow_many)" \
	" SELECT " schema ", " name ", k.columns, w.skip, coalesce(k.allow_many, false)" from \
	" ON CONFLICT (schema, name) DO UPDATE SET natural_key = excluded.natural_key, skip = excluded.skip," \
	"  allow_many = excluded.allow_many, dropped_at = excluded.dropped_at"

/* one row of such a table */
typedef struct RegistryRow
{
	Oid			relid;
	List	   *names;			/* of char * */
	List	   *primary_key;	/* the same; NIL: none is noted */
} RegistryRow;

/*
 * Take the lock that whoever changes the registry holds to the end of the
 * transaction.  Readers, and so capture, need not wait for it.
 */
void
synchro_registry_lock(void)
{
	Oid			relid = synchro_own_relation(WATCHED, true);

	if (!OidIsValid(relid))
		synchro_extension_oid();	/* complains */
	LockRelationOid(relid, ShareRowExclusiveLock);
}

static Datum
names_to_array(List *names)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(list_length(names), 1));
	int			n = 0;
	ListCell   *cell;

	foreach(cell, names)
		elements[n++] = DirectFunctionCall1(namein, CStringGetDatum(lfirst(cell)));
	return PointerGetDatum(construct_array(elements, n, NAMEOID, NAMEDATALEN,
										   false, TYPALIGN_CHAR));
}

static List *
array_to_names(Datum array)
{
	Datum	   *elements;
	int			n;
	List	   *names = NIL;

	deconstruct_array(DatumGetArrayTypeP(array), NAMEOID, NAMEDATALEN, false,
					  TYPALIGN_CHAR, &elements, NULL, &n);
	for (int i = 0; i < n; i++)
		names = lappend(names, pstrdup(NameStr(*DatumGetName(elements[i]))));
	return names;
}

static List *
noted_primary_key(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull = true;
	Datum		names = (Datum) 0;

	/* version 1.0 notes none */
	if (desc->natts >= WATCHED_PRIMARY_KEY)
		names = heap_getattr(tuple, WATCHED_PRIMARY_KEY, desc, &isnull);
	return isnull ? NIL : array_to_names(names);
}

/*
 * All rows of a table of the registry.  By a catalog scan, not by SPI: event
 * triggers ask for it at DDL of any user.
 */
static List *
read_registry(const char *name)
{
	Oid			relid = synchro_own_relation(name, true);
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *rows = NIL;

	if (!OidIsValid(relid))
		return NIL;
	rel = table_open(relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RegistryRow *row = palloc(sizeof(RegistryRow));
		bool		isnull;

		row->relid = DatumGetObjectId(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull));
		row->names = array_to_names(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull));
		row->primary_key = strcmp(name, WATCHED) == 0 ? noted_primary_key(tuple, RelationGetDescr(rel)) : NIL;
		rows = lappend(rows, row);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return rows;
}

static const RegistryRow *
registry_row(List *rows, Oid relid)
{
	ListCell   *cell;

	foreach(cell, rows)
		if (((RegistryRow *) lfirst(cell))->relid == relid)
			return lfirst(cell);
	return NULL;
}

/*
 * Oids of all watched tables that exist.
 */
List *
synchro_registry_watched(void)
{
	List	   *watched = NIL;
	ListCell   *cell;

	foreach(cell, read_registry(WATCHED))
	{
		Oid			relid = ((RegistryRow *) lfirst(cell))->relid;

		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
			watched = lappend_oid(watched, relid);
	}
	return watched;
}

/*
 * Has the table a natural key registered, be it one that lost a column?
 */
bool
synchro_registry_has_key(Oid relid)
{
	return registry_row(read_registry(NATURAL_KEY), relid) != NULL;
}

/*
 * Run a statement of ours on a table's row: $1 is the table, $2 the names, $3
 * the flag.  Returns the number of rows.
 */
uint64
synchro_registry_write(const char *sql, Oid relid, List *names, bool flag)
{
	static const Oid types[] = {REGCLASSOID, NAMEARRAYOID, BOOLOID};
	Datum		values[3];
	SynchroSqlScope scope;
	uint64		rows;

	values[0] = ObjectIdGetDatum(relid);
	values[1] = names_to_array(names);
	values[2] = BoolGetDatum(flag);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	rows = synchro_sql_run_latest(sql, 3, types, values, NULL);
	synchro_sql_close(&scope);
	return rows;
}

/*
 * First of the names that no column of the table bears, or NULL.
 */
static char *
missing_column(Oid relid, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
		if (get_attnum(relid, lfirst(cell)) == InvalidAttrNumber)
			return lfirst(cell);
	return NULL;
}

/*
 * Is there a row whose table is gone, or a column that is skipped or of the primary
 * key that is noted?
 */
bool
synchro_registry_has_dangling(void)
{
	ListCell   *cell;

	foreach(cell, read_registry(WATCHED))
	{
		RegistryRow *row = lfirst(cell);

		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(row->relid)) ||
			missing_column(row->relid, row->names) != NULL || missing_column(row->relid, row->primary_key) != NULL)
			return true;
	}
	foreach(cell, read_registry(NATURAL_KEY))
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(((RegistryRow *) lfirst(cell))->relid)))
			return true;
	return false;
}

static void
warn_of_dropped(HeapTuple tuple, TupleDesc desc)
{
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("table %s is not watched any more", SPI_getvalue(tuple, desc, 1)),
			 errdetail("It was dropped. What remotes have not got of it as yet is not pushed."),
			 errhint("If it is made again: SELECT %s.", SPI_getvalue(tuple, desc, 2))));
}

/*
 * Does synchro.watched note primary keys?  In version 1.0 it does not.
 */
bool
synchro_registry_notes_primary_keys(void)
{
	return get_attnum(synchro_own_relation(WATCHED, false), "primary_key") != InvalidAttrNumber;
}

/*
 * Is there a synchro.dropped?  Version 1.0 has none.
 */
static bool
notes_dropped(void)
{
	return OidIsValid(synchro_own_relation("dropped", true));
}

/*
 * Warn of watched tables that the command at hand has dropped, and note how
 * they were watched: one that takes such a table's place is another one, of
 * which nothing is pushed, and check() says so.  It is not watched unasked,
 * since whoever may make tables would have the owners of remotes read his.
 * From an event trigger at sql_drop only.
 */
void
synchro_registry_note_dropped(void)
{
	SynchroSqlScope scope;
	uint64		rows;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	rows = synchro_sql_run_latest("SELECT o.object_identity, " SYNCHRO_ADD_TABLE_CALL("o.object_identity", "k.columns", "w.skip", "k.allow_many") DROPPED_WATCHED
								  " ORDER BY 1", 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < rows; i++)
		warn_of_dropped(SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	if (notes_dropped())
		synchro_sql_run_latest(NOTE("o.schema_name", "o.object_name", DROPPED_WATCHED), 0, NULL, NULL, NULL);
	synchro_sql_close(&scope);
}

/*
 * Note the names that watched tables had until the command at hand renamed them, or
 * moved them to another schema: one that takes such a name is another table, as after
 * a drop.  From an event trigger at ddl_command_end only.
 *
 * schema, name: which they had; NULL: as they are now.
 */
void
synchro_registry_note_renamed(const char *schema, const char *name)
{
	static const Oid types[] = {TEXTOID, TEXTOID};
	Datum		values[2];
	bool		nulls[2] = {schema == NULL, name == NULL};
	SynchroSqlScope scope;

	if (!notes_dropped())
		return;
	values[0] = nulls[0] ? (Datum) 0 : CStringGetTextDatum(schema);
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(name);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run_latest(NOTE("coalesce($1::name, n.nspname)", "coalesce($2::name, c.relname)",
								" FROM pg_event_trigger_ddl_commands() o JOIN pg_class c ON (o.classid = 'pg_class'::regclass AND o.objid = c.oid)"
								"  OR (o.classid = 'pg_namespace'::regclass AND o.objid = c.relnamespace)"
								" JOIN pg_namespace n ON n.oid = c.relnamespace"
								" JOIN synchro.watched w ON w.relation = c.oid LEFT JOIN synchro.natural_key k ON k.relation = c.oid"),
						   lengthof(types), types, values, nulls);
	synchro_sql_close(&scope);
}

/*
 * Forget that a watched table had this table's name until it was dropped or renamed.
 * Returns whether that was noted.  With the registry's lock.
 *
 * Tables whose names do not come back leave their notes behind, so these go
 * after a year; here, not where others are dropped, which need not wait for each
 * other otherwise.
 */
bool
synchro_registry_forget_dropped(Oid relid)
{
	if (!notes_dropped())
		return false;
	synchro_registry_write("DELETE FROM synchro.dropped WHERE dropped_at < now() - interval '1 year'", InvalidOid, NIL, false);
	return synchro_registry_write("DELETE FROM synchro.dropped d USING pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
							   " WHERE c.oid = $1 AND d.schema = n.nspname AND d.name = c.relname",
							   relid, NIL, false) > 0;
}

/*
 * Forget tables that are gone, and skipped columns that are: a later column of
 * that name is not to be skipped unasked.  So with what is noted of a primary key.  A
 * natural key that lost a column stays as it is, since a shorter one would match other
 * rows.  From an event trigger at sql_drop only.
 */
void
synchro_registry_forget_dangling(void)
{
	synchro_registry_write("DELETE FROM synchro.watched w WHERE NOT EXISTS"
						   " (SELECT FROM pg_class c WHERE c.oid = w.relation)",
						   InvalidOid, NIL, false);
	synchro_registry_write("DELETE FROM synchro.natural_key k WHERE NOT EXISTS"
						   " (SELECT FROM pg_class c WHERE c.oid = k.relation)",
						   InvalidOid, NIL, false);
	synchro_registry_write("UPDATE synchro.watched w SET skip = ARRAY(SELECT s.name FROM unnest(w.skip) WITH ORDINALITY AS s (name, nr)"
						   "  WHERE NOT " LOST_COLUMN("w.relation", "s.name") " ORDER BY s.nr)"
						   " WHERE EXISTS (SELECT FROM unnest(w.skip) s (name) WHERE " LOST_COLUMN("w.relation", "s.name") ")",
						   InvalidOid, NIL, false);
	if (synchro_registry_notes_primary_keys())
		synchro_registry_write("UPDATE synchro.watched w SET primary_key = NULL, from_sequence = NULL"
							   " WHERE EXISTS (SELECT FROM unnest(w.primary_key) s (name) WHERE " LOST_COLUMN("w.relation", "s.name") ")",
							   InvalidOid, NIL, false);
}

/*
 * Name of a column of the table's natural key that the table no longer has,
 * or NULL.
 */
char *
synchro_registry_lost_key_column(Oid relid)
{
	const RegistryRow *row = registry_row(read_registry(NATURAL_KEY), relid);

	return row == NULL ? NULL : missing_column(relid, row->names);
}

/*
 * Is a name among names (char *)?
 */
bool
synchro_names_have(const List *names, const char *name)
{
	const ListCell *cell;

	foreach(cell, names)
		if (strcmp((char *) lfirst(cell), name) == 0)
			return true;
	return false;
}

/*
 * Is a column of that name in the table's natural key, skipped, or noted of its
 * primary key?
 *
 * relid: InvalidOid: that of any table.
 */
bool
synchro_registry_names_column(Oid relid, const char *column)
{
	List	   *rows = list_concat(read_registry(WATCHED), read_registry(NATURAL_KEY));
	ListCell   *cell;

	foreach(cell, rows)
	{
		const RegistryRow *row = lfirst(cell);

		if ((!OidIsValid(relid) || row->relid == relid) &&
			(synchro_names_have(row->names, column) || synchro_names_have(row->primary_key, column)))
			return true;
	}
	return false;
}

/*
 * Follow ALTER TABLE ... RENAME COLUMN.
 */
void
synchro_registry_rename_column(Oid relid, const char *old_name, const char *new_name)
{
	List	   *names = list_make2(unconstify(char *, old_name), unconstify(char *, new_name));

	synchro_registry_write("UPDATE synchro.watched SET skip = array_replace(skip, ($2)[1], ($2)[2])"
						   " WHERE relation = $1", relid, names, false);
	if (synchro_registry_notes_primary_keys())
		synchro_registry_write("UPDATE synchro.watched SET primary_key = array_replace(primary_key, ($2)[1], ($2)[2]),"
							   " from_sequence = array_replace(from_sequence, ($2)[1], ($2)[2]) WHERE relation = $1",
							   relid, names, false);
	synchro_registry_write("UPDATE synchro.natural_key SET columns = array_replace(columns, ($2)[1], ($2)[2])"
						   " WHERE relation = $1", relid, names, false);
	CacheInvalidateRelcacheByRelid(relid);
}
