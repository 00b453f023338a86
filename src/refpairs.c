/*-------------------------------------------------------------------------
 *
 * refpairs.c
 *	  Stored references that the remote itself has left here.
 *
 * In mode reference it is the receiver who keeps which of his rows stands for
 * which of the sender's.  Where both sides push, a row that the remote has made
 * here is known to us by such a pair, and not to the remote under the id that
 * it has here: so the pair is told, the other way round, with the first batch
 * that has to do with the row.  Without it, the remote would take our row for a
 * new one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "localsql.h"
#include "refpairs.h"

/*
 * The table in which remotes leave references, and its owner; as that one it
 * is read, since whoever made it may be anybody.
 */
Oid
synchro_refpairs_table(Oid *owner)
{
	Oid			schema = get_namespace_oid(SYNCHRO_PEER_SCHEMA, true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid("reference", schema) : InvalidOid;
	HeapTuple	tuple = OidIsValid(relid) ? SearchSysCache1(RELOID, ObjectIdGetDatum(relid)) : NULL;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	*owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return relid;
}

/*
 * Is it noted there which table is meant, whatever its name?  See known.c.
 */
static bool
tables_are_known(void)
{
	Oid			schema = get_namespace_oid(SYNCHRO_PEER_SCHEMA, true);

	return OidIsValid(schema) && OidIsValid(get_relname_relid("known_table", schema));
}

/*
 * Note, for the batch, the references that the remote has left of rows with
 * these identities.
 */
void
synchro_refpairs_read(SynchroLink *link, SynchroLinkTable *lt,
					  const SynchroIdentities *identities, int first, int count)
{
	int			n = lt->table->nidentity;
	Oid			types[INDEX_MAX_KEYS + 2];
	Datum		values[INDEX_MAX_KEYS + 2];
	SynchroSqlScope scope;
	StringInfoData sql;
	Oid			owner;
	char	   *pairs;

	if (link->peer_node == NULL || lt->table->mode != SYNCHRO_MODE_REFERENCE || count == 0 ||
		!OidIsValid(synchro_refpairs_table(&owner)))
		return;
	types[0] = UUIDOID;
	values[0] = UUIDPGetDatum(link->peer_node);
	types[1] = TEXTOID;
	values[1] = CStringGetTextDatum(lt->table->qualified);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT string_agg(format('(%L::text[], %L::text[])', x.remote_key, x.local_key), ', ') FROM unnest(");
	for (int i = 0; i < n; i++)
	{
		types[i + 2] = TEXTARRAYOID;
		values[i + 2] = synchro_identities_array(identities, first, count, i);
		appendStringInfo(&sql, "%s$%d", i > 0 ? ", " : "", i + 3);
	}
	appendStringInfoString(&sql, ") u(");
	for (int i = 0; i < n; i++)
		appendStringInfo(&sql, "%sk%d", i > 0 ? ", " : "", i);
	appendStringInfoString(&sql, ") CROSS JOIN LATERAL (SELECT y.local_key, y.remote_key FROM " SYNCHRO_PEER_SCHEMA ".reference y"
						   " WHERE y.node = $1 AND y.relation = ");
	appendStringInfoString(&sql, tables_are_known() ?
						   "coalesce((SELECT k.relation FROM " SYNCHRO_PEER_SCHEMA ".known_table k"
						   " WHERE k.node = $1 AND k.own_table = to_regclass($2)), $2)" : "$2");
	appendStringInfoString(&sql, " AND y.remote_key = ARRAY[");
	for (int i = 0; i < n; i++)
		appendStringInfo(&sql, "%su.k%d", i > 0 ? ", " : "", i);
	appendStringInfoString(&sql, "] LIMIT 1) x");

	synchro_sql_open(&scope, owner);
	synchro_sql_run(sql.data, n + 2, types, values, NULL);
	pairs = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (pairs != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(link->batch_context);

		if (lt->pairs == NULL)
			lt->pairs = makeStringInfo();
		else
			appendStringInfoString(lt->pairs, ", ");
		appendStringInfoString(lt->pairs, pairs);
		MemoryContextSwitchTo(old);
	}
	synchro_sql_close(&scope);
}

/*
 * Append the statement that tells them to the remote; before it resolves.
 */
void
synchro_sql_refpairs(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, uint64 made)
{
	if (lt->pairs == NULL)
		return;
	appendStringInfo(sql, "INSERT INTO %s.reference (node, relation, made, local_key, remote_key) SELECT '%s', %s, " UINT64_FORMAT ", v.l, v.r FROM (VALUES %s) v(l, r)"
					 " ON CONFLICT DO NOTHING;",
					 link->peer, link->node, quote_literal_cstr(lt->table->qualified), made, lt->pairs->data);
}
