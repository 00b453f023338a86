/*-------------------------------------------------------------------------
 *
 * followers.c
 *	  Rows that are named by another one, which a remote had to make anew.
 *
 * A row may be new to a remote though it is not new here: the remote's own was
 * deleted or renamed there meanwhile, and the change here is newer.  Whatever
 * has this row in its natural key went with the other one, and nobody has
 * changed it here.  Nor has anybody where a row was renamed and its new name
 * belongs to another one there.  So it is logged here as changed at the time of
 * the row that it follows, for that is since when there is something of that
 * name on the remote, and goes there and to all others with the next pass.
 *
 * It is the log that must say so, not only what is sent: the remote may have
 * deleted its own of these rows meanwhile, and its delete may come here before
 * or after the remote gets them.  Both must find the same stamps to compare, or
 * the row lives on one side only.
 *
 * That holds for this moment, too: a session that applies a delete of such a
 * row here has looked at the log when it decided, and once more when it has
 * deleted the row (synchro_sql_recheck()), and relies on the row's lock from then
 * on.  So a row is logged with its lock held, and what the log has of it is
 * looked at after that: either the delete is seen here and counts, or that
 * session waits for the lock, and then finds what was logged.  Whoever waits
 * for a row holds no other one, so that applications are never the victims of a
 * deadlock with us: what is locked at the moment is left for later, one by one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "applied.h"
#include "applysql.h"
#include "decidesql.h"
#include "followers.h"
#include "identities.h"
#include "keycodec.h"
#include "localsql.h"
#include "peerlog.h"
#include "reader.h"
#include "requests.h"
#include "source.h"
#include "stalled.h"

/* a follower's identity, and the stamp that it gets */
typedef struct Follower
{
	char	   *identity;
	SynchroStamp stamp;
	pg_uuid_t	origin;
} Follower;

typedef struct Followers
{
	MemoryContext context;
	List	   *list;			/* of Follower */
} Followers;

/* how rows are looked for */
typedef enum Locking
{
	LOCK_NONE,
	LOCK_IF_FREE,				/* only those that nobody has locked */
	LOCK_WAIT
} Locking;

/* which rows follow which: those with that foreign key, of rows made anew */
typedef struct Following
{
	const SynchroLink *link;
	const SynchroTable *table;
	int			fk;
	const SynchroTable *parent;
	const SynchroAnew *anew;
} Following;

/*
 * Append the question which rows of a table are made anew in this batch that
 * are not new here, or are another row there: the new name is taken to be that
 * of a row which bears it on the remote, whether it wins or loses, and the row
 * that bore the old one goes, with all that it names.
 */
void
synchro_sql_anew(StringInfo sql, const SynchroLinkTable *lt)
{
	int			n = lt->table->nidentity;

	if (!lt->decides || (lt->rows == NULL && lt->nolds == 0) || lt->table->nkey == 0)
		return;
	appendStringInfo(sql, "SELECT '" SYNCHRO_ANEW_TAG "', %d, pg_catalog.array_agg(x.identity), pg_catalog.array_agg(x.stamp), pg_catalog.array_agg(x.origin) FROM (SELECT ",
					 lt->number);
	synchro_sql_staged_key(sql, lt, "m.l");
	appendStringInfo(sql, " AS identity, m.stamp, m.origin FROM pg_temp.m_%d m JOIN pg_temp.s_%d s ON ",
					 lt->number, lt->number);
	synchro_sql_equal(sql, "s.l", "m.l", n);
	appendStringInfoString(sql, " WHERE m.kind = 'n' AND m.fresh AND m.stamp IS NOT NULL AND m.born IS NULL"
						   " AND m.verdict IS NULL");
	if (lt->nolds > 0)
	{
		appendStringInfoString(sql, " UNION ALL SELECT ");
		synchro_sql_staged_key(sql, lt, "m.l");
		appendStringInfo(sql, ", m.stamp, m.origin FROM pg_temp.m_%d m JOIN pg_temp.m_%d o ON o.kind = '" SYNCHRO_KIND_OLD "' AND ",
						 lt->number, lt->number);
		synchro_sql_equal(sql, "o.l", "m.l", n);
		appendStringInfoString(sql, " WHERE m.kind = 'n' AND NOT m.fresh AND m.stamp IS NOT NULL AND o.verdict IS NULL AND NOT (");
		synchro_sql_same_row(sql, lt, "o.r", "m.r");

		/* or if it is not in the batch, since the remote has it by the new name: what it has by the old one goes, or is another row */
		appendStringInfoString(sql, ") UNION ALL SELECT ");
		synchro_sql_staged_key(sql, lt, "g.l");
		appendStringInfo(sql, ", g.stamp, g.origin FROM pg_temp.m_%d g WHERE g.kind = '" SYNCHRO_KIND_GONE "' AND g.l0 IS NOT NULL"
						 " AND g.stamp IS NOT NULL AND NOT EXISTS (SELECT FROM pg_temp.m_%d y WHERE y.kind = 'n' AND ",
						 lt->number, lt->number);
		synchro_sql_same_row(sql, lt, "y.r", "g.r");
		appendStringInfoChar(sql, ')');
	}

	/* each time in the same order: by that it is known that it has been told, see batch.c */
	appendStringInfoString(sql, " ORDER BY 1, 2, 3) x HAVING count(*) > 0;");
}

static void
note_follower(TupleTableSlot *slot, void *arg)
{
	Followers  *followers = arg;
	MemoryContext old = MemoryContextSwitchTo(followers->context);
	Follower   *follower = palloc(sizeof(Follower));

	slot_getallattrs(slot);
	follower->identity = TextDatumGetCString(slot->tts_values[0]);
	follower->stamp.at = DatumGetInt64(slot->tts_values[1]);
	follower->stamp.source = 0;
	follower->origin = *DatumGetUUIDP(slot->tts_values[2]);
	followers->list = lappend(followers->list, follower);
	MemoryContextSwitchTo(old);
}

/*
 * Append the rows that were made anew, alias u: identity, stamp, origin, and
 * where with_values, the identity's values as k0...  These are literals, since
 * a cast of text may be a function of the type's owner.
 */
static void
append_anew(StringInfo sql, const SynchroTable *table, const SynchroAnew *anew, bool with_values)
{
	char	  **identities;
	char	  **stamps;
	char	  **origins;
	char	  **values;
	int			count = synchro_identities_split(anew->identities, &identities);

	if (synchro_identities_split(anew->stamps, &stamps) != count || synchro_identities_split(anew->origins, &origins) != count)
		elog(ERROR, "rows made anew do not have one stamp each");
	appendStringInfoString(sql, "(VALUES ");
	for (int row = 0; row < count; row++)
	{
		identities[row] = synchro_unstaged_text(table, identities[row]);
		appendStringInfo(sql, "%s(%s::text, %s::int8, %s::uuid", row > 0 ? ", " : "", quote_literal_cstr(identities[row]),
						 quote_literal_cstr(stamps[row]), quote_literal_cstr(origins[row]));
		if (with_values && synchro_identities_split(identities[row], &values) != table->nidentity)
			elog(ERROR, "identity of table %s does not have %d values", table->qualified, table->nidentity);
		for (int i = 0; with_values && i < table->nidentity; i++)
			appendStringInfo(sql, ", %s::%s", values[i] != NULL ? quote_literal_cstr(values[i]) : "NULL",
							 format_type_extended(getBaseType(table->columns[table->identity[i]].type), -1,
												  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		appendStringInfoChar(sql, ')');
	}
	appendStringInfoString(sql, ") u (identity, stamp, origin");
	for (int i = 0; with_values && i < table->nidentity; i++)
		appendStringInfo(sql, ", k%d", i);
	appendStringInfoChar(sql, ')');
}

/*
 * Append the query of rows that have others in their natural key by one foreign
 * key.  only: identity of the one that is wanted, or NULL.
 */
static void
append_query(StringInfo sql, const Following *following, const char *only)
{
	const SynchroTable *table = following->table;
	const SynchroTable *parent = following->parent;
	const SynchroForeignKey *key = &table->fks[following->fk];
	bool		joins = !synchro_table_fk_to_identity(key, parent);
	StringInfoData identity;

	initStringInfo(&identity);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(&identity, "%s%s", i > 0 ? ", " : "ARRAY[", synchro_sql_column_text(table, table->identity[i], "c"));
	appendStringInfoString(&identity, "]::text");
	appendStringInfo(sql, "SELECT %s, u.stamp, u.origin FROM ", identity.data);
	append_anew(sql, parent, following->anew, !joins);
	if (joins)
	{
		appendStringInfo(sql, " JOIN %s p ON u.identity = ARRAY[", synchro_table_rows(parent));
		for (int i = 0; i < parent->nidentity; i++)
			appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", synchro_sql_column_text(parent, parent->identity[i], "p"));
		appendStringInfoString(sql, "]::text");
	}
	appendStringInfo(sql, " JOIN %s c ON ROW(", synchro_table_rows(table));
	for (int i = 0; i < key->ncols; i++)
		appendStringInfo(sql, "%sc.%s", i > 0 ? ", " : "", quote_identifier(table->columns[key->cols[i]].name));
	appendStringInfoString(sql, ") = ROW(");
	for (int i = 0; i < key->ncols; i++)
	{
		int			column = synchro_table_column(parent, get_attname(parent->relid, key->refcols[i], false));

		if (joins)
			appendStringInfo(sql, "%sp.%s", i > 0 ? ", " : "", quote_identifier(parent->columns[column].name));
		else
			appendStringInfo(sql, "%su.k%d", i > 0 ? ", " : "", i);
	}
	appendStringInfoChar(sql, ')');
	if (only != NULL)
		appendStringInfo(sql, " WHERE %s = %s", identity.data, quote_literal_cstr(only));
}

/*
 * The rows that follow others.  An owner who has taken the right to update the
 * table from himself cannot lock its rows.
 */
static List *
find_followers(const Following *following, Locking locking, const char *only)
{
	Followers	followers = {CurrentMemoryContext, NIL};
	const SynchroTable *parent = following->parent;
	bool		joins = !synchro_table_fk_to_identity(&following->table->fks[following->fk], parent);
	SynchroSqlScope scope;
	SynchroReader reader;
	StringInfoData sql;

	initStringInfo(&sql);
	append_query(&sql, following, only);
	synchro_sql_open(&scope, following->link->target->owner);
	synchro_suspect(following->table->relid);
	synchro_reader_begin(&reader, following->link->target->owner, following->table, true,
						 joins ? list_make1(unconstify(SynchroTable *, parent)) : NIL);
	if (locking != LOCK_NONE && pg_class_aclcheck(following->table->relid, GetUserId(), ACL_UPDATE) == ACLCHECK_OK)
		appendStringInfo(&sql, " FOR NO KEY UPDATE OF c%s", locking == LOCK_IF_FREE ? " SKIP LOCKED" : "");
	synchro_sql_query_locking(sql.data, synchro_sql_callback(note_follower, &followers));
	synchro_reader_end(&reader);
	synchro_suspect(InvalidOid);
	synchro_sql_close(&scope);
	return followers.list;
}

/*
 * Log followers with the stamps that they get, as far as the log does not have
 * them as changed later, or deleted.
 */
static void
touch(const SynchroTable *table, List *followers)
{
	pg_uuid_t	own = synchro_source_find(synchro_sources_load(), 0)->origin;
	SynchroNewest *rows = palloc0(sizeof(SynchroNewest) * Max(list_length(followers), 1));
	TimestampTz since = DT_NOEND;
	SynchroStamps *stamps;
	ListCell   *cell;

	foreach(cell, followers)
	{
		Follower   *follower = lfirst(cell);

		rows[foreach_current_index(cell)].bytes =
			synchro_identities_encode_text(table, table->identity, table->nidentity, follower->identity);
		since = Min(since, follower->stamp.at);

		/* it did not come here by that node's hands: all remotes get it */
		if (!synchro_uuid_equal(&follower->origin, &own))
			follower->stamp.source = synchro_source_number(&follower->origin, &own);
	}
	stamps = synchro_peerlog_newest(table, rows, list_length(followers), since, NULL);
	foreach(cell, followers)
	{
		Follower   *follower = lfirst(cell);
		SynchroNewest *row = &rows[foreach_current_index(cell)];

		if (row->found && (!row->live || synchro_stamps_compare(stamps, row->stamp, follower->stamp) >= 0))
			continue;
		synchro_applied_put(table, row->bytes, follower->stamp, false, true);
	}
}

static int
compare_followers(const ListCell *a, const ListCell *b)
{
	return strcmp(((const Follower *) lfirst(a))->identity, ((const Follower *) lfirst(b))->identity);
}

static void
begin(MemoryContext context)
{
	synchro_local_begin("synchro: logging rows that follow others");
	synchro_local_durable(true);
	MemoryContextSwitchTo(context);
}

static void
commit(MemoryContext context)
{
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * Log the rows that follow others by one foreign key: in the present local
 * transaction, and one for each that is locked by somebody else now.  A
 * transaction is open afterwards, too.
 */
static void
touch_followers(const Following *following, MemoryContext context)
{
	List	   *all = find_followers(following, LOCK_NONE, NULL);
	List	   *locked = find_followers(following, LOCK_IF_FREE, NULL);
	ListCell   *cell;
	int			next = 0;

	touch(following->table, locked);
	commit(context);
	list_sort(all, compare_followers);
	list_sort(locked, compare_followers);
	foreach(cell, all)
	{
		const Follower *follower = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		while (next < list_length(locked) && compare_followers(list_nth_cell(locked, next), cell) < 0)
			next++;
		if (next < list_length(locked) && compare_followers(list_nth_cell(locked, next), cell) == 0)
			continue;
		begin(context);
		touch(following->table, find_followers(following, LOCK_WAIT, follower->identity));
		commit(context);
	}
	begin(context);
}

/*
 * Log what has rows in its natural key that the remote has made anew.  Outside of
 * a local transaction; what is needed until the end is made in the present
 * memory context.  anew: list of SynchroAnew.
 */
void
synchro_followers_touch(const SynchroLink *link, List *anew)
{
	List	   *relids;
	ListCell   *cell;
	ListCell   *other;
	SynchroSqlScope scope;
	MemoryContext context = CurrentMemoryContext;

	if (anew == NIL)
		return;
	begin(context);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	relids = synchro_sql_oids("SELECT relation::oid FROM synchro.watched", 0, NULL, NULL, context);
	synchro_sql_close(&scope);
	MemoryContextSwitchTo(context);
	foreach(cell, relids)
	{
		const SynchroTable *table = synchro_table_get(lfirst_oid(cell), true);

		if (table == NULL || !table->watched || table->nkey == 0)
			continue;
		table = synchro_table_copy(table, context);
		for (int fk = 0; fk < table->nfks; fk++)
		{
			foreach(other, anew)
			{
				const SynchroAnew *rows = lfirst(other);
				Following	following = {link, table, fk, NULL, rows};

				if (rows->relid != table->fks[fk].parent || !synchro_table_fk_in_key(table, fk))
					continue;
				following.parent = synchro_table_get(rows->relid, true);
				if (following.parent == NULL)
					continue;
				following.parent = synchro_table_copy(following.parent, context);
				touch_followers(&following, context);
			}
		}
	}
	commit(context);
}
