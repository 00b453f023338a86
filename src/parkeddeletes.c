/*-------------------------------------------------------------------------
 *
 * parkeddeletes.c
 *	  Deletes that the remote keeps and has tried one by one, as they are parked.
 *	  (header: parked.h)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "localsql.h"
#include "parked.h"
#include "settings.h"

/*
 * Note how deletes have fared that the remote had kept.  In a local
 * transaction.
 *
 * tables: names of the tables whose deletes were tried.  undeleted: of
 * SynchroUndeleted, those that have failed.
 */
void
synchro_parked_put_deletes(SynchroParkedSet *set, List *tables, List *undeleted)
{
	SynchroSqlScope scope;
	ListCell   *cell;
	ListCell   *other;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)];

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	foreach(cell, tables)
	{
		const char *relation = lfirst(cell);
		const SynchroUndeleted *failed = NULL;

		foreach(other, undeleted)
			if (strcmp(((SynchroUndeleted *) lfirst(other))->relation, relation) == 0)
				failed = lfirst(other);
		memset(nulls, true, sizeof(nulls));
		nulls[0] = nulls[1] = nulls[6] = nulls[7] = false;
		values[0] = CStringGetTextDatum(set->server);
		values[1] = CStringGetTextDatum(relation);
		values[6] = Int32GetDatum(synchro_retry_max_interval);
		values[7] = TimestampTzGetDatum(synchro_clock_now());
		if (failed != NULL && failed->keys != NULL)
		{
			memset(nulls, false, sizeof(nulls));
			values[2] = CStringGetTextDatum(failed->keys);
			values[3] = CStringGetTextDatum(failed->sqlstates);
			values[4] = CStringGetTextDatum(failed->messages);
			values[5] = CStringGetTextDatum(failed->constraints);
		}
		synchro_sql_run("WITH before AS (DELETE FROM synchro.parked WHERE server = $1::name AND relation = to_regclass($2)"
						" AND record IS NULL RETURNING *)"
						" INSERT INTO synchro.parked (server, relation, layout, key, operation, changed_at, origin,"
						" sqlstate, message, constraint_name, hint, attempts, first_failed, next_attempt)"
						" SELECT $1::name, to_regclass($2), 0, f.key, 'delete', coalesce(b.changed_at, $8),"
						" (SELECT id FROM synchro.node), f.state, f.message, nullif(f.constraint_name, ''),"
						" CASE WHEN f.state IN ('23503', '23001') AND f.constraint_name <> '' THEN '" SYNCHRO_STILL_REFERENCED "' END, coalesce(b.attempts, 0) + 1,"
						" coalesce(b.first_failed, clock_timestamp()), " SYNCHRO_NEXT_ATTEMPT("coalesce(b.attempts, 0) + 1", "$7")
						" FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) f(key, state, message, constraint_name)"
						" LEFT JOIN before b ON b.key = f.key",
						lengthof(types), types, values, nulls);
	}
	synchro_sql_close(&scope);
}
