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
 * Of more than two nodes any two may push to a third what is one row, which has
 * made it of the one that came first.  So what others have left of a row here is
 * told as well: if the remote knows one of these, ours is the same row; and if
 * not, it will know them when they come.  Nodes that push at the same time take
 * turns for that, see append_turns().
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

#include "applysql.h"
#include "known.h"
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
 * Is it noted there which table is meant, whatever its name, and of which
 * primary key the references are?  See known.c.
 */
static bool
tables_are_known(void)
{
	Oid			schema = get_namespace_oid(SYNCHRO_PEER_SCHEMA, true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid("known_table", schema) : InvalidOid;

	return OidIsValid(relid) && get_attnum(relid, "own_key") != InvalidAttrNumber;
}

static void
add_pairs(SynchroLink *link, StringInfo *list, int column)
{
	char	   *pairs = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
	MemoryContext old;

	if (pairs == NULL)
		return;
	old = MemoryContextSwitchTo(link->batch_context);
	if (*list == NULL)
		*list = makeStringInfo();
	else
		appendStringInfoString(*list, ", ");
	appendStringInfoString(*list, pairs);
	MemoryContextSwitchTo(old);
}

/*
 * Append "as an array that is the row's identity", of the values u.k0...; by_cast:
 * as version 1.0 has stored it.
 */
static void
append_own_key(StringInfo sql, const SynchroTable *table, bool by_cast)
{
	for (int i = 0; i < table->nidentity; i++)
	{
		char	   *value = psprintf("u.k%d", i);
		char	   *cast = by_cast ? synchro_sql_cast(value, synchro_column_base(table, table->identity[i])) : NULL;

		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "ARRAY[", cast != NULL ? cast : value);
	}
	appendStringInfoChar(sql, ']');
}

/*
 * Note, for the batch, the references that the remote and others have left of
 * rows with these identities.
 */
void
synchro_refpairs_read(SynchroLink *link, SynchroLinkTable *lt,
					  const SynchroIdentities *identities, int first, int count)
{
	int			n = lt->table->nidentity;
	char	   *key_there;
	bool		known;
	Oid			types[INDEX_MAX_KEYS + 2];
	Datum		values[INDEX_MAX_KEYS + 2];
	SynchroSqlScope scope;
	StringInfoData sql;
	StringInfoData own;
	StringInfoData own_by_cast;
	Oid			owner;

	if (link->peer_node == NULL || lt->table->mode != SYNCHRO_MODE_REFERENCE || count == 0 ||
		!OidIsValid(synchro_refpairs_table(&owner)))
		return;
	key_there = lt->remote != NULL ? synchro_known_key_there(lt) : NULL;
	known = key_there != NULL && tables_are_known();
	types[0] = UUIDOID;
	values[0] = UUIDPGetDatum(link->peer_node);
	types[1] = TEXTOID;
	values[1] = CStringGetTextDatum(lt->table->qualified);
	initStringInfo(&own);
	append_own_key(&own, lt->table, false);
	initStringInfo(&own_by_cast);
	append_own_key(&own_by_cast, lt->table, true);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT string_agg(format('(%%L::text[], %%L::text[])', %s, x.local_key), ', ') FILTER (WHERE x.node = $1),"
					 " string_agg(format('(%%L::uuid, %%L::text[], %%L::text[], %%L::int8)', x.node, x.local_key, %s, x.made), ', ') FILTER (WHERE x.node <> $1)"
					 " FROM unnest(", own.data, own.data);
	for (int i = 0; i < n; i++)
	{
		types[i + 2] = TEXTARRAYOID;
		values[i + 2] = synchro_identities_array(identities, first, count, i);
		appendStringInfo(&sql, "%s$%d", i > 0 ? ", " : "", i + 3);
	}
	appendStringInfoString(&sql, ") u(");
	for (int i = 0; i < n; i++)
		appendStringInfo(&sql, "%sk%d", i > 0 ? ", " : "", i);
	appendStringInfoString(&sql, ") JOIN " SYNCHRO_PEER_SCHEMA ".reference x ON ");

	/* each node by the name that the table had there */
	appendStringInfoString(&sql, known ?
						   "x.relation = ANY (ARRAY(SELECT k.relation FROM " SYNCHRO_PEER_SCHEMA ".known_table k WHERE k.own_table = to_regclass($2) UNION SELECT $2))"
						   " AND x.relation = coalesce((SELECT k.relation FROM " SYNCHRO_PEER_SCHEMA ".known_table k"
						   " WHERE k.node = x.node AND k.own_table = to_regclass($2) LIMIT 1), $2)" : "x.relation = $2");

	/* and if they are of the primary keys that it has now, here and on the remote, as far as these are of the same tables */
	if (known)
		appendStringInfo(&sql, " AND NOT EXISTS (SELECT FROM " SYNCHRO_PEER_SCHEMA ".known_table k"
						 " WHERE k.node = x.node AND k.relation = x.relation AND k.own_table = to_regclass($2)"
						 " AND (k.node_key = '" SYNCHRO_MIXED_KEY "' OR k.own_key LIKE '%u %%' AND k.own_key <> %s OR x.node = $1 AND k.node_key LIKE %s AND k.node_key <> %s))",
						 lt->table->relid, quote_literal_cstr(synchro_known_key(lt->table)),
						 quote_literal_cstr(psprintf("%s %%", lt->remote->oid)), quote_literal_cstr(key_there));

	/* until who has left them writes them anew, some may be as version 1.0 wrote them */
	appendStringInfo(&sql, " AND x.remote_key %s %s", strcmp(own.data, own_by_cast.data) == 0 ? "=" : "IN",
					 strcmp(own.data, own_by_cast.data) == 0 ? own.data : psprintf("(%s, %s)", own.data, own_by_cast.data));

	synchro_sql_open(&scope, owner);
	synchro_sql_run(sql.data, n + 2, types, values, NULL);
	add_pairs(link, &lt->pairs, 1);
	add_pairs(link, &lt->pairs_of_others, 2);
	synchro_sql_close(&scope);
}

/*
 * The name by which another node, v.node, knows the table, on the remote.
 */
static char *
others_name(const SynchroLink *link, const SynchroLinkTable *lt)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);

	if (!link->knows_tables)
		return psprintf("%s::text", relation);
	return psprintf("coalesce((SELECT k.relation FROM %s.known_table k WHERE k.node = v.node AND k.own_table::oid = %s::oid LIMIT 1), %s::text)",
					link->peer, lt->remote->oid, relation);
}

/*
 * Append the statements that tell them to the remote; before it resolves.
 */
void
synchro_sql_refpairs(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, uint64 made)
{
	const char *relation = quote_literal_cstr(lt->table->qualified);

	if (lt->pairs != NULL)
		appendStringInfo(sql, "INSERT INTO %s.reference (node, relation, made, local_key, remote_key) SELECT '%s', %s, " UINT64_FORMAT ", v.l, v.r FROM (VALUES %s) v(l, r)"
						 " ON CONFLICT DO NOTHING;",
						 link->peer, link->node, relation, made, lt->pairs->data);
	if (lt->pairs_of_others != NULL)
		appendStringInfo(sql, "INSERT INTO %s.reference (node, relation, made, local_key, remote_key) SELECT '%s', %s, " UINT64_FORMAT ", v.l, y.remote_key"
						 " FROM (VALUES %s) v(node, k, l, made) JOIN %s.reference y ON y.node = v.node AND y.relation = %s AND y.local_key OPERATOR(pg_catalog.=) v.k"
						 " ON CONFLICT DO NOTHING;",
						 link->peer, link->node, relation, made, lt->pairs_of_others->data, link->peer, others_name(link, lt));
}

/*
 * Append the statement that has the remote know the rows as those of the other
 * nodes, too; when it knows them as ours.
 */
void
synchro_sql_refpairs_of_others(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	if (lt->pairs_of_others == NULL)
		return;
	appendStringInfo(sql, "INSERT INTO %s.reference (node, relation, made, local_key, remote_key) SELECT v.node, %s, v.made, v.k, y.remote_key"
					 " FROM (VALUES %s) v(node, k, l, made) JOIN %s.reference y ON y.node = '%s' AND y.relation = %s AND y.local_key OPERATOR(pg_catalog.=) v.l"
					 " ON CONFLICT DO NOTHING;",
					 link->peer, others_name(link, lt), lt->pairs_of_others->data, link->peer, link->node, quote_literal_cstr(lt->table->qualified));
}
