/*-------------------------------------------------------------------------
 *
 * batchscript.c
 *	  One batch as one script.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "batch.h"
#include "clocklink.h"
#include "copychunk.h"
#include "decidesql.h"
#include "followers.h"
#include "order.h"
#include "prepared.h"
#include "previewsql.h"
#include "refpairs.h"
#include "resolvejoin.h"
#include "stalled.h"

/*
 * From that many rows on, the planner is told what is in a table's map: it
 * takes an unknown table's few kinds for many, so a few rows for each, and
 * joins large maps by nested loops.  Once in a session is enough for batches
 * whose statements are kept, whose plans would have to be made anew: what it
 * remembers is how many of them are of which kind.
 */
#define ANALYZE_ROWS	500

/*
 * If there are more rows, staged ones are joined with each other by hashing,
 * whatever the planner takes a staging table's few kinds for.  Not where it
 * might read the remote's own table for that.
 */
#define HASH_ROWS		100

/*
 * What the planner takes a page of the remote's tables for that an index points
 * to, by one that a scan of all comes by.  Its default is made for disks; but
 * resolving has just read those that the batch's rows are on, and their keys'.
 */
#define INDEXED_PAGE_COST "0.5"

/*
 * Decisions join staged rows with each other, of which the planner knows
 * nothing: what it takes for a few rows it would join by nested loops, in
 * quadratic time.  Where the remote's own tables are looked into, LATERAL and
 * LIMIT see to it that their index is used.
 */
#define BY_HASHING		"SET LOCAL enable_nestloop = off;"
#define AS_PLANNED		"SET LOCAL enable_nestloop TO DEFAULT;"

/* ms for which the remote waits for a late COMMIT */
#define LATE_COMMIT		10000

/* first key of our advisory locks on the remote: "sync" */
#define TURN_LOCK		"1937337955"

static List *
involved_tables(SynchroLink *link)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, link->tables)
		if (((SynchroLinkTable *) lfirst(cell))->involved)
			result = lappend(result, lfirst(cell));
	return result;
}

static bool
identity_may_move(const SynchroLinkTable *lt)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (synchro_fk_moves(lt, fk))
			return true;
	return false;
}

/*
 * Mark where rows are whose moves others will follow.
 */
static void
append_marks(StringInfo sql, List *tables)
{
	List	   *marked = NIL;
	ListCell   *cell;

	foreach(cell, tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		for (int fk = 0; fk < lt->table->nfks; fk++)
			if (synchro_fk_moves(lt, fk))
				marked = list_append_unique_ptr(marked, lt->parents[fk]);
	}
	foreach(cell, marked)
		synchro_sql_mark(sql, lfirst(cell));
}

/*
 * Does the batch look for names that have changed hands on the remote?  As a
 * rule there are none, and a batch that does not look has the remote tell it:
 * see peer_begin().
 */
static bool
looks_for_crossings(const SynchroBatch *batch)
{
	return batch->link->crossing > 0 && batch->named_there != NULL && batch->link->preview == NULL;
}

/*
 * Take out what has lost, children first, and say what is going to be
 * written.  In a preview nothing is: its writes are not logged there.
 */
static void
append_decisions(const SynchroBatch *batch, StringInfo sql, List *tables, List *components, bool leftovers)
{
	ListCell   *cell;

	/* a preview says it only for the question below */
	if (batch->link->preview == NULL || batch->snapshot != NULL)
		foreach(cell, tables)
			synchro_sql_apply(sql, lfirst(cell), leftovers);

	/* deletes are for the last batch: until then they are only put on a list */
	if (batch->snapshot != NULL)
		synchro_sql_referred(sql, tables, leftovers, batch->link->preview != NULL);
	for (int i = list_length(components) - 1; i >= 0; i--)
		foreach(cell, (List *) list_nth(components, i))
		{
			const SynchroLinkTable *lt = lfirst(cell);

			synchro_sql_losers(sql, batch->link, lt, tables, list_member_oid(batch->ensured, lt->table->relid));
		}
	if (batch->link->preview != NULL)
		return;
	foreach(cell, tables)
	{
		synchro_sql_winners(sql, lfirst(cell), leftovers);
		if (list_member_oid(batch->ensured, ((SynchroLinkTable *) lfirst(cell))->table->relid))
			synchro_sql_returning(sql, lfirst(cell));
		if (looks_for_crossings(batch))
			synchro_sql_restate(sql, lfirst(cell));
	}
	foreach(cell, tables)
		synchro_sql_anew(sql, lfirst(cell));
}

/*
 * Let pushers take turns where the remote has no unique index on a natural
 * key: of two that look up the same new row at the same time neither would
 * find it, and both insert it.  Whoever comes second waits here, until the
 * first has committed, and looks after that: each of the statements that
 * follow has a snapshot of its own.
 *
 * An advisory lock, not one on the table: applications are not to wait for
 * us, nor to be the victims of a deadlock with us.  Pushers cannot deadlock
 * each other by it: each takes all of its turns at once, by ascending oid, and
 * has locked nothing by then but its own position.  A preview's later batches
 * have, so that one may have to try again.
 *
 * Likewise where nodes push what may be one row that only stored references
 * tell: see refpairs.c.
 */
static void
append_turns(StringInfo sql, List *tables)
{
	bool		any = false;
	ListCell   *cell;

	foreach(cell, tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		if (lt->rows == NULL || (lt->table->mode == SYNCHRO_MODE_REFERENCE ? !lt->decides : lt->remote->key_is_unique))
			continue;
		appendStringInfo(sql, "%s%s", any ? ", " : "SELECT pg_catalog.pg_advisory_xact_lock(" TURN_LOCK ", o) FROM (SELECT u.o::oid::int AS o FROM pg_catalog.unnest(ARRAY[",
						 quote_literal_cstr(lt->table->qualified));
		any = true;
	}
	if (any)
		appendStringInfoString(sql, "]::regclass[]) u (o) ORDER BY 1 OFFSET 0) t;");
}

/*
 * What fills the staging tables with what was read, and in *spools what the
 * COPYs among it are fed.  Then come the turns.
 */
static void
append_filling(StringInfo sql, SynchroFilling how, List *tables, List **spools)
{
	ListCell   *cell;

	*spools = NIL;
	foreach(cell, tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		if (lt->rows != NULL && synchro_sql_fill_rows(sql, how, lt))
			*spools = lappend(*spools, lt->rows);
		if (lt->names != NULL && synchro_sql_fill_names(sql, how, lt))
			*spools = lappend(*spools, lt->names);
		if (lt->waiting != NULL && synchro_spool_size(lt->waiting) > 0)
			synchro_sql_fill_waiting(sql, lt);
		if (lt->changes != NULL && synchro_sql_fill_changes(sql, how, lt))
			*spools = lappend(*spools, lt->changes);
	}
	append_turns(sql, tables);
}

/*
 * The link's tables that are to be emptied, in the order of their foreign keys:
 * see synchro_order_by_references().
 */
List *
synchro_batch_emptied(const SynchroLink *link, List *copies)
{
	List	   *tables = NIL;
	ListCell   *cell;

	foreach(cell, link->tables)
		if (synchro_copyqueue_find(copies, ((SynchroLinkTable *) lfirst(cell))->table->relid) != NULL)
			tables = lappend(tables, lfirst(cell));
	return synchro_order_by_references(tables);
}

/*
 * Have all rows of tables deleted, children first.
 */
static void
append_emptying(const SynchroBatch *batch, StringInfo sql)
{
	List	   *components = synchro_batch_emptied(batch->link, batch->emptied);

	if (components != NIL)
		synchro_sql_spare_others(sql, components);
	for (int i = list_length(components) - 1; i >= 0; i--)
		synchro_sql_empty_tables(sql, batch->link, list_nth(components, i));
}

/*
 * Have what is on the remote only put on the list of deletes.  Before anything
 * is written: the maps say where rows are now.
 */
static void
append_extras(const SynchroBatch *batch, StringInfo sql)
{
	ListCell   *cell;
	ListCell   *other;

	append_emptying(batch, sql);
	if (batch->extras == NIL)
		return;
	appendStringInfoString(sql, BY_HASHING);
	foreach(cell, batch->extras)
	{
		const SynchroCopy *copy = lfirst(cell);

		foreach(other, batch->link->tables)
		{
			const SynchroLinkTable *lt = lfirst(other);

			if (lt->table->relid != copy->relid)
				continue;

			/* it may have another key since the copy was queued */
			synchro_suspect(copy->relid);
			synchro_copychunk_require_extra(lt->table);
			synchro_suspect(InvalidOid);
			synchro_sql_extra(sql, batch->link, lt, copy->id);
		}
	}
	appendStringInfoString(sql, AS_PLANNED);
}

/*
 * Begin the script: the position, and all that was read, in staging tables.
 * commit: false for one that is only tried, which need not look for names.
 * size: of a batch whose statements are kept, see synchro_stage_size(), else 0.
 */
static void
append_opening(SynchroBatch *batch, StringInfo sql, const char *token, bool commit, List *tables, int size, List **spools)
{
	SynchroLink *link = batch->link;
	StringInfoData emptying;
	ListCell   *cell;

	appendStringInfoString(sql, link->preview != NULL ? SYNCHRO_PREVIEW_BEGIN : "BEGIN;");
	appendStringInfoString(sql, "SET CONSTRAINTS ALL DEFERRED;");
	if (link->peer_node != NULL)
		synchro_sql_same_node(sql, link);
	if (size > 0)
		synchro_prepared_begin(sql, link, size);
	synchro_sql_fence(sql, link, size > 0 ? link : NULL, batch->position, token, batch->snapshot, batch->keys_snapshot);
	if (link->peer_node != NULL)
	{
		bool		looks = looks_for_crossings(batch);

		synchro_sql_begin_deciding(sql, link, batch->seen, synchro_clocklink_uncertainty(link),
								   looks || (commit && link->preview == NULL) ? batch->named_there : NULL, looks);
	}
	initStringInfo(&emptying);
	foreach(cell, link->tables)
		synchro_sql_empty(&emptying, link, lfirst(cell));
	if (size > 0)
		synchro_prepared_append(sql, link, emptying.data);
	else
		appendBinaryStringInfo(sql, emptying.data, emptying.len);
	if (batch->straight != NULL && batch->straight->rows != NULL)
	{
		*spools = list_make1(batch->straight->rows);
		if (batch->straight->names != NULL)
		{
			synchro_sql_straight_keys(sql, batch->straight);
			*spools = lcons(batch->straight->names, *spools);
		}
	}
	else
		append_filling(sql, (SynchroFilling){batch->by_copy, size > 0 ? link : NULL}, tables, spools);
	if (link->preview != NULL)
		foreach(cell, synchro_order_by_names(tables))
			synchro_sql_preview_names(sql, lfirst(cell));
}

/*
 * References that the batch makes are younger than this transaction id.
 */
static uint64
made_before(const SynchroBatch *batch)
{
	return synchro_snapshot_parse(batch->keys_snapshot)->xmax;
}

/*
 * Are names in that table as the batch says, and those of the rows that are in its names?
 * Those of a table that is left out, as it has stalled, are not.
 */
static bool
names_are_known(const SynchroBatch *batch, const SynchroLinkTable *lt)
{
	if (synchro_stalled_waits(batch->stalled, lt->table->relid))
		return false;
	for (int fk = 0; fk < lt->table->nfks; fk++)
		if (lt->parents[fk] != NULL && lt->parents[fk] != lt && synchro_fk_names_key(lt, fk) && !names_are_known(batch, lt->parents[fk]))
			return false;
	return true;
}

/*
 * Find out which remote row is which, and what of it is to be applied.
 *
 * commit: see synchro_batch_script().  What is only tried changes nothing about who is
 * there.
 *
 * size: as in append_opening().  What is kept must be planned with the same
 * settings each time, so the batch's size decides, not the table's.
 */
static void
append_resolving(SynchroBatch *batch, StringInfo sql, bool commit, List *tables, List *components, int size, bool leftovers)
{
	List	   *known = NIL;
	SynchroLink *link = batch->link;
	ListCell   *cell;

	foreach(cell, synchro_order_by_names(tables))
	{
		SynchroLinkTable *lt = lfirst(cell);
		bool		by_hashing = (size > 0 ? size : lt->nrows + lt->nnames) > HASH_ROWS && synchro_resolve_is_lateral(lt);

		if (lt->unmapped)
			continue;
		if (names_are_known(batch, lt))
			known = lappend(known, lt);
		synchro_sql_refpairs(sql, link, lt, made_before(batch));
		if (by_hashing)
			appendStringInfoString(sql, BY_HASHING);
		synchro_sql_resolve(sql, link, lt);
		if (by_hashing)
			appendStringInfoString(sql, AS_PLANNED);
		if (lt->nrows + lt->nnames >= ANALYZE_ROWS && (size == 0 || !lt->staging->analyzed))
		{
			appendStringInfo(sql, "ANALYZE pg_temp.m_%d;", lt->number);
			lt->staging->analyzes = lt->nrows + lt->nnames >= lt->nolds;
		}
		if (lt->decides)
		{
			appendStringInfoString(sql, BY_HASHING);
			synchro_sql_pin_names(sql, lt, true);
			synchro_sql_decide(sql, link, lt, leftovers, batch->careful);
			if (looks_for_crossings(batch))
				synchro_sql_crossed(sql, lt);
			synchro_sql_pin_names(sql, lt, false);
			appendStringInfoString(sql, AS_PLANNED);

			/* rows that are found by the remote's log are of kinds that the map had none of */
			if (lt->nolds >= ANALYZE_ROWS)
				appendStringInfo(sql, "ANALYZE pg_temp.m_%d;", lt->number);
		}
	}
	if (link->peer_node != NULL)
	{
		/* what has lost is recorded with all of its values */
		appendStringInfoString(sql, BY_HASHING SYNCHRO_SQL_PINNED);
		foreach(cell, tables)
			if (looks_for_crossings(batch))
				synchro_sql_crossed_references(sql, lfirst(cell));
		append_decisions(batch, sql, tables, components, leftovers);
		appendStringInfoString(sql, SYNCHRO_SQL_AS_ROLE AS_PLANNED);
	}
	if (commit)
		synchro_sql_not_there(sql, known);
	append_extras(batch, sql);
	synchro_sql_missing(sql, tables);
	append_marks(sql, tables);
}

/*
 * Make rows as they are here, of tables that refer to each other in a circle,
 * or of one.
 */
static void
append_upsert(const SynchroBatch *batch, StringInfo sql, List *component)
{
	ListCell   *cell;

	foreach(cell, component)
		if (identity_may_move(lfirst(cell)))
			synchro_sql_follow(sql, lfirst(cell), component);
	if (batch->link->preview != NULL)
		foreach(cell, component)
			synchro_sql_preview_changes(sql, lfirst(cell));
	foreach(cell, component)
		if (batch->careful && ((SynchroLinkTable *) lfirst(cell))->rows != NULL)
			synchro_sql_free_values(sql, batch->link, lfirst(cell));
	foreach(cell, component)
		synchro_sql_free_identities(sql, batch->link, lfirst(cell));
	synchro_sql_upsert(sql, component);
}

/*
 * What is done with the rows once they are staged.
 */
static void
append_applying(SynchroBatch *batch, StringInfo sql, bool commit, List *tables, int size, bool leftovers)
{
	SynchroLink *link = batch->link;
	List	   *components = synchro_order_by_references(tables);
	ListCell   *cell;

	append_resolving(batch, sql, commit, tables, components, size, leftovers);
	synchro_sql_define_guard(sql, batch->guarded);
	foreach(cell, components)
		append_upsert(batch, sql, lfirst(cell));
	synchro_batch_append_deletes(batch, sql, components);
	if (link->peer_node != NULL && link->preview == NULL)
		synchro_sql_recheck(sql);
	foreach(cell, tables)
	{
		synchro_sql_references(sql, link, lfirst(cell), made_before(batch));
		synchro_sql_refpairs_of_others(sql, link, lfirst(cell));
	}
}

/*
 * How many rows the batch at hand has in these tables' staging tables.
 */
int64
synchro_batch_staged(const List *tables)
{
	int64		result = 0;
	const ListCell *cell;

	foreach(cell, tables)
	{
		const SynchroLinkTable *lt = lfirst(cell);

		result += lt->nrows + lt->nnames + lt->nolds;
	}
	return result;
}

/*
 * The whole batch as one script, but for a late COMMIT (batch->commits_late,
 * which is set); spools is set to what its COPYs are fed.
 */
char *
synchro_batch_script(SynchroBatch *batch, const char *token, bool commit, List **spools)
{
	SynchroLink *link = batch->link;
	List	   *tables = involved_tables(link);
	bool		leftovers = link->leftovers != NIL && batch->snapshot != NULL;
	bool		may_be_unmapped = link->mapping == 0 && synchro_batch_is_plain(batch);
	int			size = !batch->apart && batch->guarded == NIL && link->preview == NULL ? synchro_stage_size(synchro_batch_staged(tables)) : 0;
	StringInfoData sql;
	StringInfoData settings;
	StringInfoData applying;
	ListCell   *cell;

	foreach(cell, link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		lt->staging->analyzes = false;
		lt->unmapped = may_be_unmapped && synchro_sql_is_unmapped(lt, tables);
	}
	initStringInfo(&sql);
	append_opening(batch, &sql, token, commit, tables, size, spools);

	/*
	 * Defaults, constraints and triggers of the remote run as for any other
	 * client of this role, so with the settings that such a one would have.
	 * For the sake of our own statements pg_catalog is searched first in any
	 * case, and they name the operators of columns with their schema.
	 */
	initStringInfo(&settings);
	appendStringInfo(&settings, "SELECT set_config('search_path', %s, true), set_config('random_page_cost', '" INDEXED_PAGE_COST "', true);"
					 SYNCHRO_SQL_AS_ROLE,
					 link->search_path);
	if (size > 0)
		synchro_prepared_append(&sql, link, settings.data);
	else
		appendBinaryStringInfo(&sql, settings.data, settings.len);
	if (leftovers)
		tables = list_union_ptr(tables, link->tables);
	initStringInfo(&applying);
	if (batch->straight != NULL && batch->straight->rows != NULL)
		synchro_sql_straight_rows(&applying, batch->straight);
	else if (batch->straight != NULL)
		synchro_sql_straight_delete(&applying, batch->straight);
	else
		append_applying(batch, &applying, commit, tables, size, leftovers);
	synchro_sql_unaltered(&applying, link, tables);
	if (size > 0)
		synchro_prepared_append(&sql, link, applying.data);
	else
		appendBinaryStringInfo(&sql, applying.data, applying.len);
	appendStringInfoString(&sql, "SET CONSTRAINTS ALL IMMEDIATE;");

	/* a trigger may have left something to COMMIT: what is only tried meets that, too */
	if (!commit || link->preview != NULL)
		appendStringInfoString(&sql, "SET CONSTRAINTS ALL IMMEDIATE;");
	batch->commits_late = commit && batch->before_commit != NULL && batch->meanwhile == NULL &&
		(link->peer_node != NULL || (*spools == NIL && synchro_remote_is_near(link->remote)));
	if (link->preview != NULL)
		synchro_sql_preview_end(&sql, commit);
	else if (batch->commits_late)
		appendStringInfo(&sql, "SET LOCAL idle_in_transaction_session_timeout = %d", LATE_COMMIT);
	else
		appendStringInfoString(&sql, commit ? "COMMIT" : "ROLLBACK");
	return sql.data;
}

/*
 * A script that asks what the only row of the batch is called, and applies
 * nothing.  For a preview.
 */
char *
synchro_batch_name_script(SynchroBatch *batch, List **spools)
{
	List	   *tables = involved_tables(batch->link);
	StringInfoData sql;
	ListCell   *cell;

	initStringInfo(&sql);
	append_opening(batch, &sql, synchro_position_token(), false, tables, 0, spools);
	foreach(cell, tables)
		if (((SynchroLinkTable *) lfirst(cell))->rows != NULL)
			synchro_sql_preview_name(&sql, lfirst(cell));
	synchro_sql_preview_end(&sql, false);
	return sql.data;
}
