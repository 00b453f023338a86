/*-------------------------------------------------------------------------
 *
 * link.c
 *	  What a worker knows of the remote that it is connected to: session,
 *	  tables on both sides, and their staging tables there.
 *
 * Tables are described in two steps, since the local half needs a transaction
 * and the remote half the network, which no transaction waits for:
 * synchro_link_table() notes in a transaction what is needed, and
 * synchro_staging_prepare() asks the remote after it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "link.h"
#include "localsql.h"
#include "samevalue.h"
#include "settings.h"
#include "stalled.h"

static uint64 conninfo_generation = 0;

static SynchroLinkTable *describe_table(SynchroLink *link, Oid relid, bool for_rows, Oid root);

static void
invalidate_conninfo(Datum arg, int cacheid, uint32 hashvalue)
{
	conninfo_generation++;
}

static uint64
current_generation(void)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(FOREIGNSERVEROID, invalidate_conninfo, (Datum) 0);
		CacheRegisterSyscacheCallback(USERMAPPINGOID, invalidate_conninfo, (Datum) 0);

		/* who is no superuser any more needs a password of his own */
		CacheRegisterSyscacheCallback(AUTHOID, invalidate_conninfo, (Datum) 0);
	}
	registered = true;
	return conninfo_generation;
}

/*
 * Read who the remote runs as and what to connect with, in a local transaction
 * of its own unless there is one.
 *
 * target: which remote; its server and owner are set to what they are now.
 * missing_ok: return false where there is none, instead of an error.
 */
static bool
read_conninfo(SynchroTarget *target, MemoryContext context, const char ***keywords,
			  const char ***values, bool *password_required, bool missing_ok)
{
	bool		alone = !IsTransactionState();
	SynchroTarget *current;
	bool		found;

	if (alone)
		synchro_local_begin("synchro: looking up the remote");
	MemoryContextSwitchTo(context);
	current = synchro_target_get(target->name, missing_ok);
	found = current != NULL;
	if (found)
	{
		target->server = current->server;
		target->owner = current->owner;
		synchro_target_conninfo(target, keywords, values, password_required);
	}
	if (alone)
		synchro_local_commit();
	MemoryContextSwitchTo(context);
	return found;
}

static bool
same_strings(const char **a, const char **b)
{
	while (*a != NULL && *b != NULL && strcmp(*a, *b) == 0)
	{
		a++;
		b++;
	}
	return *a == NULL && *b == NULL;
}

/*
 * Would we connect in another way now, or read as somebody else?  Not to be
 * called in a local transaction.
 */
bool
synchro_link_is_outdated(SynchroLink *link)
{
	uint64		generation = current_generation();
	MemoryContext old;
	MemoryContext context;
	const char **keywords;
	const char **values;
	bool		password_required;
	SynchroTarget target = *link->target;

	if (link->statement_timeout != synchro_statement_timeout)
		return true;
	if (link->conninfo_generation == generation)
		return false;

	/* some server, user mapping or role was altered; is it ours? */
	context = AllocSetContextCreate(CurrentMemoryContext, "synchro conninfo", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	if (read_conninfo(&target, context, &keywords, &values, &password_required, true) &&
		target.server == link->target->server && target.owner == link->target->owner &&
		same_strings(keywords, link->keywords) && same_strings(values, link->values) &&
		password_required == link->password_required)
		link->conninfo_generation = generation;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return link->conninfo_generation != generation;
}

/*
 * Find out whether the remote logs changes itself, so is a node like this one.
 */
static void
find_peer(SynchroLink *link)
{
	SynchroRows *rows;

	/* most remotes are none, which takes a look at one row to see; each batch asks again, see alteredsql.c */
	rows = synchro_remote_query(link->remote, "SELECT oid FROM pg_extension WHERE extname = '" SYNCHRO_EXTENSION "'", 0, NULL);
	link->extension = rows->nrows > 0 ? synchro_value(rows, 0, 0) : "0";
	if (rows->nrows == 0)
		return;
	rows = synchro_remote_query(link->remote,
								"SELECT has_function_privilege(f.oid, 'EXECUTE'), quote_literal(current_user)"
								" FROM " SYNCHRO_PEER_NODE_FUNCTION " f", 0, NULL);
	if (rows->nrows == 0)
		return;
	if (synchro_value(rows, 0, 0)[0] != 't')
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("remote \"%s\" runs synchro, too, and its user may not push there", link->target->name),
				 errhint("Have an administrator of the remote run there: SELECT synchro.allow_peer(%s).",
						 synchro_value(rows, 0, 1))));
	rows = synchro_remote_query(link->remote, "SELECT synchro.peer_node()", 0, NULL);
	link->peer_node = palloc(sizeof(pg_uuid_t));
	*link->peer_node = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(synchro_value(rows, 0, 0))));
}

/*
 * A link without a connection: it only knows tables.  target: NULL if it is
 * not to have one.
 */
SynchroLink *
synchro_link_create(SynchroTarget *target, MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "synchro link",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SynchroLink *link = palloc0(sizeof(SynchroLink));

	link->context = context;
	if (target != NULL)
	{
		link->target = palloc(sizeof(SynchroTarget));
		*link->target = *target;
		link->target->name = pstrdup(target->name);
	}
	link->tables_context = AllocSetContextCreate(context, "synchro link tables",
												 ALLOCSET_DEFAULT_SIZES);

	link->batch_context = AllocSetContextCreate(context, "synchro batch",
												ALLOCSET_DEFAULT_SIZES);
	link->sent_context = AllocSetContextCreate(context, "synchro batch", ALLOCSET_DEFAULT_SIZES);
	link->leftovers_context = AllocSetContextCreate(context, "synchro deletes that wait", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(old);
	return link;
}

/*
 * Connect to a remote.  Begins and ends a local transaction of its own, unless
 * in one.
 */
SynchroLink *
synchro_link_open(SynchroTarget *target)
{
	SynchroLink *link = synchro_link_create(target, TopMemoryContext);
	MemoryContext context = link->context;
	MemoryContext old = MemoryContextSwitchTo(context);

	PG_TRY();
	{
		SynchroRows *rows;

		link->conninfo_generation = current_generation();
		link->statement_timeout = synchro_statement_timeout;
		(void) read_conninfo(link->target, context, &link->keywords, &link->values, &link->password_required, false);
		link->remote = synchro_remote_open(link->target->name, link->keywords, link->values,
										   link->password_required);
		if (synchro_remote_is_standby(link->remote))
			ereport(ERROR,
					(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
					 errmsg("remote \"%s\" is a standby", link->target->name),
					 errhint("Let the foreign server lead to the primary, or name all hosts and set its option target_session_attrs to 'read-write'.")));
		rows = synchro_remote_query(link->remote,
									"SELECT quote_literal('pg_catalog, ' || coalesce(nullif(reset_val, '') || ', ', '') || 'pg_temp')"
									" FROM pg_settings WHERE name = 'search_path'", 0, NULL);
		link->search_path = synchro_value(rows, 0, 0);
		find_peer(link);
	}
	PG_CATCH();
	{
		/* nobody else knows of it yet, and each attempt makes another one */
		MemoryContextSwitchTo(old);
		synchro_link_close(link);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return link;
}

/*
 * End the connection and forget all.
 */
void
synchro_link_close(SynchroLink *link)
{
	synchro_link_clear_batch(link);
	synchro_link_clear_sent(link);
	if (link->remote != NULL)
		synchro_remote_close(link->remote);
	MemoryContextDelete(link->context);
}

/*
 * Forget the tables if one of them may have been altered here.  Their
 * staging tables are used again if they still fit.  Needs a local transaction.
 */
void
synchro_link_refresh(SynchroLink *link)
{
	ListCell   *cell;

	if (link->generation == synchro_table_generation())
		return;
	synchro_link_clear_batch(link);
	MemoryContextReset(link->tables_context);
	link->tables = NIL;
	foreach(cell, link->stagings)
	{
		SynchroStaging *staging = lfirst(cell);

		staging->gone = !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(staging->relid));
	}
	link->generation = synchro_table_generation();
}

/*
 * Have all tables looked at anew: something on the remote is not as it was
 * when they were described.
 */
void
synchro_link_forget(SynchroLink *link)
{
	link->generation = PG_UINT64_MAX;
}

/*
 * The staging tables of a table, which may not have been made yet.
 */
static SynchroStaging *
staging_of(SynchroLink *link, Oid relid)
{
	SynchroStaging *staging;
	MemoryContext old;
	ListCell   *cell;

	foreach(cell, link->stagings)
	{
		staging = lfirst(cell);
		if (staging->relid == relid)
			return staging;
	}
	old = MemoryContextSwitchTo(link->context);
	staging = palloc0(sizeof(SynchroStaging));
	staging->relid = relid;
	staging->number = ++link->last_number;
	link->stagings = lappend(link->stagings, staging);
	MemoryContextSwitchTo(old);
	return staging;
}

/*
 * The link's description of a table; made here in part if it is not there,
 * see synchro_staging_prepare().  Needs a local transaction.
 *
 * for_rows: rows of it will be pushed, so all its parents are needed; else
 * only those in its natural key.
 */
SynchroLinkTable *
synchro_link_table(SynchroLink *link, Oid relid, bool for_rows)
{
	return describe_table(link, relid, for_rows, relid);
}

/*
 * Changes of a watched table must all be captured, and those of the names in its
 * natural key.  root: the table because of which it is pushed.
 */
static void
require_captured(Oid relid, Oid root)
{
	const SynchroTable *table = synchro_table_get(relid, false);
	const SynchroTable *uncaptured;
	const char *watched;

	if (!table->watched)
		return;
	watched = pstrdup(table->qualified);
	uncaptured = synchro_table_uncaptured(relid);
	if (uncaptured == NULL)
		return;
	synchro_suspect(root);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(SYNCHRO_NOT_CAPTURED, uncaptured->qualified),
			 errhint(SYNCHRO_CAPTURE_HINT, quote_literal_cstr(watched))));
}

/*
 * The same as synchro_link_table().  root: the table because of which it is needed.
 */
static SynchroLinkTable *
describe_table(SynchroLink *link, Oid relid, bool for_rows, Oid root)
{
	SynchroLinkTable *lt = NULL;
	MemoryContext old;
	ListCell   *cell;

	foreach(cell, link->tables)
	{
		lt = lfirst(cell);
		if (lt->table->relid == relid)
			break;
		lt = NULL;
	}
	if (lt != NULL && (lt->for_rows || !for_rows))
		return lt;

	old = MemoryContextSwitchTo(link->tables_context);
	if (lt == NULL)
	{
		const SynchroTable *table;

		if (for_rows && !link->compares)
			require_captured(relid, root);
		table = synchro_table_get(relid, false);
		lt = palloc0(sizeof(SynchroLinkTable));
		lt->table = synchro_table_copy(table, link->tables_context);
		lt->staging = staging_of(link, relid);
		lt->staging->gone = false;
		lt->number = lt->staging->number;
		lt->root = root;
		lt->parents = palloc0(sizeof(SynchroLinkTable *) * Max(lt->table->nfks, 1));
		lt->same_references = synchro_same_references(lt->table);
		link->tables = lappend(link->tables, lt);
	}
	lt->for_rows |= for_rows;
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroTable *parent;
		bool		used = false;

		for (int i = 0; i < lt->table->ncolumns; i++)
			used |= lt->table->columns[i].fk == fk && !lt->table->columns[i].skipped;
		if (!used || lt->parents[fk] != NULL || (!for_rows && !synchro_table_fk_in_key(lt->table, fk)))
			continue;
		parent = synchro_table_get(lt->table->fks[fk].parent, false);

		/* without it, ids of ours would be taken for the remote's */
		if (!link->compares)
			synchro_suspect_keyless(parent, root);
		if (parent->mode != SYNCHRO_MODE_NONE)
			lt->parents[fk] = describe_table(link, parent->relid, false, root);
	}
	MemoryContextSwitchTo(old);
	if (synchro_trees_in_key(lt->table, lt->same_references) > 1)
	{
		/* by a foreign key that came after the registration */
		synchro_suspect(link->compares ? InvalidOid : root);
		synchro_report_trees(lt->table);
	}
	return lt;
}

/*
 * The table with that number, which the remote has named.  missing_ok: NULL if
 * there is none, else an error.
 */
SynchroLinkTable *
synchro_link_numbered(SynchroLink *link, long number, bool missing_ok)
{
	ListCell   *cell;

	foreach(cell, link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		if (lt->number == number)
			return lt;
	}
	if (!missing_ok)
		elog(ERROR, "remote \"%s\" names unknown table %ld", link->target->name, number);
	return NULL;
}

/*
 * Is all known of the tables that is needed to stage rows?
 */
bool
synchro_link_is_prepared(const SynchroLink *link)
{
	ListCell   *cell;

	foreach(cell, link->tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (!lt->names_staged || (lt->for_rows && !lt->rows_staged))
			return false;
	}
	return true;
}

static void
clear_table(SynchroLinkTable *lt)
{
	lt->rows = lt->names = lt->waiting = lt->changes = NULL;
	lt->pairs = NULL;
	lt->pairs_of_others = NULL;
	lt->requests = NULL;
	lt->unborn = NIL;
	lt->nrows = lt->nensured = lt->nnames = lt->nolds = lt->nrenamed = lt->nwaiting = 0;
	lt->involved = lt->all_names = false;
}

/*
 * Forget the batch at hand.
 */
void
synchro_link_clear_batch(SynchroLink *link)
{
	ListCell   *cell;

	foreach(cell, link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		if (lt->rows != NULL)
			synchro_spool_free(lt->rows);
		if (lt->names != NULL)
			synchro_spool_free(lt->names);
		if (lt->waiting != NULL)
			synchro_spool_free(lt->waiting);
		if (lt->changes != NULL)
			synchro_spool_free(lt->changes);
		clear_table(lt);
	}
	link->for_waiting = false;
	MemoryContextReset(link->batch_context);
}

/*
 * The batch at hand is about to be sent: its spools, in link->sent, are apart
 * from now on, so that another can be read meanwhile.
 */
void
synchro_link_send_batch(SynchroLink *link)
{
	MemoryContext batch_context = link->batch_context;
	MemoryContext old;
	ListCell   *cell;

	synchro_link_clear_sent(link);
	link->batch_context = link->sent_context;
	link->sent_context = batch_context;
	old = MemoryContextSwitchTo(link->sent_context);
	foreach(cell, link->stagings)
	{
		SynchroStaging *staging = lfirst(cell);

		staging->was_known = staging->was_involved = false;
		staging->sent_bytes = staging->sent_rows = 0;
	}
	foreach(cell, link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);
		SynchroStaging *staging = lt->staging;

		lt->had_olds = lt->nolds > 0 || lt->all_names;
		staging->was_known = true;
		staging->was_involved = lt->involved;
		staging->sent_rows = lt->nrows + lt->nnames;
		if (lt->rows != NULL)
		{
			link->sent = lappend(link->sent, lt->rows);
			staging->sent_bytes += synchro_spool_size(lt->rows);
		}
		if (lt->names != NULL)
		{
			link->sent = lappend(link->sent, lt->names);
			staging->sent_bytes += synchro_spool_size(lt->names);
		}
		if (lt->waiting != NULL)
		{
			link->sent = lappend(link->sent, lt->waiting);
			staging->sent_bytes += synchro_spool_size(lt->waiting);
		}
		if (lt->changes != NULL)
			link->sent = lappend(link->sent, lt->changes);
		clear_table(lt);
	}
	MemoryContextSwitchTo(old);
}

/*
 * Free the spools of the batch that was sent.
 */
void
synchro_link_clear_sent(SynchroLink *link)
{
	ListCell   *cell;

	foreach(cell, link->sent)
		synchro_spool_free(lfirst(cell));
	link->sent = NIL;
	MemoryContextReset(link->sent_context);
}

/*
 * Note that deletes of a table, by its qualified name, are left to a pass's
 * last batch.
 */
void
synchro_link_add_leftover(SynchroLink *link, const char *table)
{
	MemoryContext old;
	ListCell   *cell;

	foreach(cell, link->leftovers)
		if (strcmp(lfirst(cell), table) == 0)
			return;
	old = MemoryContextSwitchTo(link->leftovers_context);
	link->leftovers = lappend(link->leftovers, pstrdup(table));
	MemoryContextSwitchTo(old);
}

void
synchro_link_forget_leftovers(SynchroLink *link)
{
	link->leftovers = NIL;
	MemoryContextReset(link->leftovers_context);
}
