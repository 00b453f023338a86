/*-------------------------------------------------------------------------
 *
 * restored.c
 *	  Remotes and databases that were restored or copied: which of the two is
 *	  older, and how they go on when they are to.
 *
 * A remote that shows another token than those that we know has another past
 * than ours.  Which side is older is told by the snapshots in the positions:
 * those of one database only grow.  If the remote's is the younger, we were set
 * back, or are a copy of the database that has brought it there.  If it is the
 * older, the remote was set back.
 *
 * After confirm_node() we are another node, and the position of the node that
 * we were still lies on the remote.  What was pushed in between to a remote that
 * was set back is pushed again, from its own position on; the log has it as far
 * as it has not been truncated since, which the sequence log_horizon tells.  Of
 * what the remote remembers for the node that we were, we take over what was
 * so when we were it: pairs that were made later stand for rows of the other
 * past, and ids that we are still to give.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "applysql.h"
#include "compat.h"
#include "formercontact.h"
#include "localsql.h"
#include "logsnapshot.h"
#include "restored.h"
#include "sequence.h"

/* what a remote is given that knows nothing of us: the beginning of time */
#define BEGINNING	"1:1:"

/*
 * Compare two snapshots of one database by their age.
 */
static int
compare_age(const char *a, const char *b)
{
	const SynchroSnapshot *x = synchro_snapshot_parse(a);
	const SynchroSnapshot *y = synchro_snapshot_parse(b);

	if (x->xmax != y->xmax)
		return x->xmax < y->xmax ? -1 : 1;
	if (x->xmin != y->xmin)
		return x->xmin < y->xmin ? -1 : 1;
	return x->nxip == y->nxip ? 0 : x->nxip > y->nxip ? -1 : 1;
}

/*
 * The same for positions: all batches of a pass but the last move the keys
 * snapshot only.
 */
static int
compare_positions(const char *snapshot, const char *keys_snapshot,
				  const char *other_snapshot, const char *other_keys_snapshot)
{
	int			order = compare_age(snapshot, other_snapshot);

	return order != 0 ? order : compare_age(keys_snapshot, other_keys_snapshot);
}

/*
 * Has the log all that is not visible in that snapshot?
 */
static bool
log_reaches(const char *snapshot)
{
	bool		reaches;

	synchro_local_begin("synchro: looking how far the log reaches");
	reaches = synchro_sequence_read("log_horizon") < (int64) synchro_snapshot_parse(snapshot)->xmin;
	synchro_local_commit();
	return reaches;
}

/*
 * Say which side is older, and what to do.
 *
 * remote_snapshot: NULL if the remote knows nothing of us.  moved_at: when its
 * position was moved last, by its clock.
 */
void
synchro_restored_report(const SynchroLink *link, const char *snapshot, const char *keys_snapshot,
						const char *remote_snapshot, const char *remote_keys_snapshot,
						const char *moved_at)
{
	MemoryContext context = CurrentMemoryContext;
	const char *detail;
	const char *hint;
	int			order = -1;

	if (remote_snapshot != NULL)
		order = compare_positions(remote_snapshot, remote_keys_snapshot, snapshot, keys_snapshot);
	if (order < 0)
	{
		bool		reaches = log_reaches(remote_snapshot != NULL ? remote_snapshot : BEGINNING);

		MemoryContextSwitchTo(context);
		detail = remote_snapshot == NULL ? "The remote is the older side: it knows nothing of this database any more." :
			psprintf("The remote is the older side: it is as it was left at %s by its clock.", moved_at);
		hint = reaches ? "If that is to be so, run synchro.confirm_node(): what it has lost is pushed again." :
			"If that is to be so, run synchro.confirm_node(): what the log still has is pushed again. "
			"Then copy what the remote lacks from before, since the log does not reach back that far.";
	}
	else if (order > 0)
	{
		detail = psprintf("This database is the older side: the remote was brought further at %s by its clock, by the database that this one is a copy or an earlier state of.",
						  moved_at);
		hint = "If this database is to push, run synchro.confirm_node(): it goes on from where it is as a node of its own.";
	}
	else
	{
		detail = "Neither side is older: both have come as far, but by different ways, so one is a copy.";
		hint = "If this database is to push, run synchro.confirm_node().";
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("remote \"%s\" is not in the state that this database left it in", link->target->name),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/*
 * The position of a node, or NULL.
 */
static SynchroRows *
position_of(const SynchroLink *link, const char *node)
{
	const char *params[1] = {node};
	SynchroRows *rows = synchro_remote_query(link->remote,
											 "SELECT snapshot, keys_snapshot FROM " SYNCHRO_PEER_SCHEMA ".position WHERE node = $1",
											 1, params);

	return rows->nrows == 1 ? rows : NULL;
}

/*
 * Is this the first contact as the node that we are?
 */
bool
synchro_restored_is_new(const SynchroLink *link)
{
	return position_of(link, link->node) == NULL;
}

/*
 * Before a position of a node that was another one is written to a remote: if
 * the remote is older than we are, go back to where it is.  Not in a local
 * transaction.  previous: the other one.
 */
void
synchro_restored_set_back(const SynchroLink *link, const char *previous, SynchroPosition *position)
{
	SynchroRows *rows = position_of(link, previous);
	char	   *there = rows != NULL ? synchro_value(rows, 0, 0) : BEGINNING;
	char	   *keys_there = rows != NULL ? synchro_value(rows, 0, 1) : BEGINNING;

	if (compare_positions(there, keys_there, position->snapshot, position->keys_snapshot) >= 0)
		return;
	position->snapshot = there;
	position->keys_snapshot = keys_there;
	if (link->preview == NULL)
		synchro_position_correct(link->target->name, position);
}

/*
 * Take over which tables, and which primary keys, that is about: as far as
 * tables here are still those, so not what a dump has made anew, which goes by
 * names.
 */
static void
inherit_tables(const SynchroLink *link, const char *previous)
{
	MemoryContext context = CurrentMemoryContext;
	const char *params[3] = {link->node, previous};
	StringInfoData tables;
	SynchroRows *rows;

	rows = synchro_remote_query(link->remote, "SELECT relation, node_table FROM " SYNCHRO_PEER_SCHEMA ".known_table WHERE node = $1::uuid", 1, &params[1]);
	initStringInfo(&tables);
	synchro_local_begin("synchro: looking which tables are known");
	for (int i = 0; i < rows->nrows; i++)
	{
		const SynchroTable *table = synchro_table_get(atooid(synchro_value(rows, i, 1)), true);

		if (table != NULL && strcmp(table->qualified, synchro_value(rows, i, 0)) == 0)
			appendStringInfo(&tables, "%s%u", tables.len > 0 ? "," : "{", table->relid);
	}
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	if (tables.len == 0)
		return;
	appendStringInfoChar(&tables, '}');
	params[2] = tables.data;
	synchro_remote_query(link->remote,
						 "INSERT INTO " SYNCHRO_PEER_SCHEMA ".known_table (node, relation, node_table, own_table, node_key, own_key)"
						 " SELECT $1::uuid, relation, node_table, own_table, node_key, own_key FROM " SYNCHRO_PEER_SCHEMA ".known_table"
						 " WHERE node = $2::uuid AND node_table = ANY ($3::oid[]) ON CONFLICT DO NOTHING", 3, params);
}

/*
 * Of a database that was restored from a dump: rows that were pushed after the
 * dump was made are lost here, and still on the remote, with references.  An id
 * that is given once more would be taken for the row that had it, and that be
 * written over.  So sequences that primary keys own go on after the highest id
 * that the remote remembers.  What has been inserted before that is not helped.
 */
static void
pass_ids(const SynchroLink *link, const char *previous)
{
	MemoryContext context = CurrentMemoryContext;
	const char *params[1] = {previous};
	SynchroRows *rows;
	SynchroSqlScope scope;

	rows = synchro_remote_query(link->remote,
								"SELECT relation, max(local_key[1]::int8) FROM " SYNCHRO_PEER_SCHEMA ".reference"
								" WHERE node = $1::uuid AND cardinality(local_key) = 1 AND local_key[1] ~ '^[0-9]{1,18}$' GROUP BY relation",
								1, params);
	synchro_local_begin("synchro: passing ids that were given before");
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);

	/* version 1.0 does not say which columns have a sequence */
	for (int i = 0; i < rows->nrows && synchro_former_is_noted(); i++)
	{
		Oid			types[] = {TEXTOID, TEXTOID};
		Datum		values[lengthof(types)];
		char	   *sequence;

		values[0] = CStringGetTextDatum(synchro_value(rows, i, 0));
		values[1] = CStringGetTextDatum(synchro_value(rows, i, 1));
		if (synchro_sql_run("SELECT q.sequence, s.seqincrement FROM (SELECT pg_get_serial_sequence($1, a.attname) AS sequence"
							"  FROM synchro.watched w JOIN pg_attribute a ON a.attrelid = w.relation AND a.attname = ANY (w.from_sequence)"
							"  WHERE w.relation = to_regclass($1) AND cardinality(w.from_sequence) = 1 OFFSET 0) q"
							" JOIN pg_sequence s ON s.seqrelid = q.sequence::regclass WHERE s.seqincrement > 0",
							1, types, values, NULL) != 1)
			continue;
		sequence = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		/* by whole steps, which may be what keeps the ids of several nodes apart; never back */
		values[0] = CStringGetTextDatum(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2));
		synchro_sql_run(psprintf("SELECT setval(%s, q.v::bigint) FROM (SELECT last_value + ceil(($2::numeric - last_value) / $1::numeric) * $1::numeric AS v"
								 "  FROM %s WHERE $2::bigint >= last_value) q JOIN pg_sequence s ON s.seqrelid = %s::regclass WHERE q.v < s.seqmax",
								 quote_literal_cstr(sequence), sequence, quote_literal_cstr(sequence)),
						lengthof(types), types, values, NULL);
	}
	synchro_sql_close(&scope);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * The deletes that the remote has refused, and that wait there: arrays of their
 * tables and of their keys, as the view of failures shows them.
 */
static void
refused_deletes(const SynchroLink *link, const char **tables, const char **keys)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroSqlScope scope;
	Oid			type = TEXTOID;
	Datum		value;

	synchro_local_begin("synchro: looking at what has failed");
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	value = CStringGetTextDatum(link->target->name);
	synchro_sql_run("SELECT coalesce(array_agg(format('%I.%I', n.nspname, c.relname)), '{}'), coalesce(array_agg(p.key), '{}')"
					" FROM synchro.parked p JOIN pg_class c ON c.oid = p.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
					" WHERE p.server = $1::name AND p.record IS NULL", 1, &type, &value, NULL);
	*tables = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	*keys = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2));
	synchro_sql_close(&scope);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * Take over what the remote remembers for the node that we were, previous.
 *
 * sent_before: see SynchroFormerContact; what was pushed before that is ours,
 * though keys_snapshot, how far we know that the remote was brought, may be
 * older.
 *
 * all: nobody has pushed as that node since, else that is told by the positions.
 * If somebody has, of the deletes that wait there those are ours that were
 * refused before: others that it left there may be of rows that are still here.
 */
void
synchro_restored_inherit(const SynchroLink *link, const char *previous, const char *keys_snapshot,
						 uint64 sent_before, bool all)
{
	SynchroRows *rows = position_of(link, previous);
	const char *params[4] = {link->node, previous};

	all = all || rows == NULL || strcmp(keys_snapshot, BEGINNING) == 0 ||
		compare_age(synchro_value(rows, 0, 1), keys_snapshot) <= 0;
	if (link->preview == NULL && strcmp(keys_snapshot, BEGINNING) == 0)
		pass_ids(link, previous);
	if (link->knows_tables)
		inherit_tables(link, previous);
	params[2] = all ? NULL : psprintf(UINT64_FORMAT, Max(synchro_snapshot_parse(keys_snapshot)->xmax, sent_before));
	synchro_remote_query(link->remote,
						 "INSERT INTO " SYNCHRO_PEER_SCHEMA ".reference (node, relation, local_key, remote_key, made)"
						 " SELECT $1::uuid, relation, local_key, remote_key, made FROM " SYNCHRO_PEER_SCHEMA ".reference"
						 " WHERE node = $2::uuid AND ($3::int8 IS NULL OR made <= $3::int8) ON CONFLICT DO NOTHING", 3, params);
	params[2] = NULL;
	if (!all)
		refused_deletes(link, &params[2], &params[3]);
	synchro_remote_query(link->remote,
						 "INSERT INTO " SYNCHRO_PEER_SCHEMA ".unapplied (node, relation, operation, local_key, remote_key, stamp, origin)"
						 " SELECT $1::uuid, u.relation, u.operation, u.local_key, u.remote_key, u.stamp, u.origin FROM " SYNCHRO_PEER_SCHEMA ".unapplied u"
						 " WHERE u.node = $2::uuid AND ($3::text[] IS NULL OR EXISTS (SELECT FROM unnest($3::text[], $4::text[]) d(relation, key)"
						 " WHERE d.relation = u.relation AND d.key = " SYNCHRO_SQL_SHOWN_KEY("u.remote_key") "))"
						 " AND NOT EXISTS (SELECT FROM " SYNCHRO_PEER_SCHEMA ".unapplied x WHERE x.node = $1::uuid"
						 " AND x.relation = u.relation AND x.remote_key = u.remote_key)", 4, params);
}
