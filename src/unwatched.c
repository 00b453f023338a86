/*-------------------------------------------------------------------------
 *
 * unwatched.c
 *	  What has failed of tables that are not watched: of those that were, and of
 *	  parents of others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "localsql.h"
#include "tableinfo.h"
#include "unwatched.h"

/*
 * Is there anything of a table that is pushed for its own sake?
 */
static bool
is_pushed(Oid relid)
{
	const SynchroTable *table = synchro_table_get(relid, true);

	return table != NULL && (table->watched || table->key_only);
}

/*
 * Forget what has failed of tables that nothing is pushed of any more, changes
 * and tables.  Needs a transaction.
 */
void
synchro_unwatched_forget(void)
{
	SynchroSqlScope scope;
	Oid			type = OIDOID;
	List	   *relations;
	ListCell   *cell;

	if (synchro_sql_is_empty("parked") && synchro_sql_is_empty("stalled"))
		return;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	relations = synchro_sql_oids("SELECT relation FROM synchro.parked UNION SELECT relation FROM synchro.stalled",
								 0, NULL, NULL, CurrentMemoryContext);
	foreach(cell, relations)
	{
		Datum		value = ObjectIdGetDatum(lfirst_oid(cell));

		if (is_pushed(lfirst_oid(cell)))
			continue;
		synchro_sql_run("DELETE FROM synchro.parked WHERE relation = $1", 1, &type, &value, NULL);
		synchro_sql_run("DELETE FROM synchro.stalled WHERE relation = $1", 1, &type, &value, NULL);
	}
	synchro_sql_close(&scope);
}

/*
 * Forget parents of tables that are not watched, which are pushed only where
 * others need them, if nobody does any more: all that is parked, and might, has
 * been tried in the pass that has started then, and they have not been refused
 * once more.  A transaction of its own.
 *
 * Of a table in a natural key renames and deletes are pushed for the key's sake; they
 * have a name of before.  What has none was refused as a parent there, too.
 *
 * all_due: see synchro_parked_load().
 */
void
synchro_unwatched_forget_parents(const SynchroParkedSet *parked, bool all_due, TimestampTz started)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, BOOLOID, TIMESTAMPTZOID, OIDOID, INT8ARRAYOID, BOOLOID};
	Datum		values[lengthof(types)];
	List	   *relations;
	ListCell   *cell;

	synchro_local_begin("synchro: looking at what has failed");
	values[0] = CStringGetTextDatum(parked->server);
	values[1] = BoolGetDatum(all_due);
	values[2] = TimestampTzGetDatum(started);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	relations = synchro_sql_oids("SELECT DISTINCT relation FROM synchro.parked WHERE server = $1::name", 1, types, values, CurrentMemoryContext);
	foreach(cell, relations)
	{
		const SynchroTable *table = synchro_table_get(lfirst_oid(cell), true);

		if (table != NULL && table->watched)
			continue;
		values[3] = ObjectIdGetDatum(lfirst_oid(cell));
		values[4] = synchro_parked_without_name(parked, lfirst_oid(cell));
		values[5] = BoolGetDatum(table == NULL || !table->key_only);
		synchro_sql_run("DELETE FROM synchro.parked p WHERE server = $1::name AND relation = $4 AND record IS NOT NULL"
						" AND (id = ANY ($5) OR $6)"
						" AND last_failed < $3 AND ($2 OR next_attempt <= $3) AND NOT EXISTS (SELECT FROM synchro.parked o"
						"  WHERE o.server = p.server AND o.last_failed < $3 AND NOT $2 AND o.next_attempt > $3)",
						lengthof(types), types, values, NULL);
	}
	synchro_sql_close(&scope);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}
