/*-------------------------------------------------------------------------
 *
 * batchdeletes.c
 *	  What a batch deletes, as part of its script.  (header: batch.h)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "batch.h"
#include "previewsql.h"
#include "stalled.h"

/*
 * Carry out the deletes of tables that refer to each other in a circle, or of one, in the
 * pass's last batch.  No table of which nothing is to be deleted is to be touched: that
 * would need the right to delete from it.
 */
static void
append_final_deletes(const SynchroBatch *batch, StringInfo sql, const List *component, bool leftovers)
{
	List	   *tables = NIL;
	const ListCell *cell;
	const ListCell *other;

	foreach(cell, component)
	{
		SynchroLinkTable *lt = lfirst(cell);
		bool		deletes = lt->nolds > 0;

		foreach(other, batch->link->leftovers)
			deletes |= strcmp(lfirst(other), lt->table->qualified) == 0;
		if (deletes && lt->table->watched && !synchro_stalled_waits(batch->stalled, lt->table->relid))
			tables = lappend(tables, lt);
	}
	if (tables == NIL)
		return;
	synchro_sql_guard(sql, batch->guarded);
	synchro_sql_delete(sql, batch->link, tables, leftovers);
	synchro_sql_check_guard(sql, batch->guarded);
}

/*
 * Put deletes off, or, in the pass's last batch, carry all of them out.
 */
static void
append_deletes(SynchroBatch *batch, StringInfo sql, List *components)
{
	SynchroLink *link = batch->link;
	bool		final = batch->snapshot != NULL;
	bool		leftovers = final && link->leftovers != NIL;
	ListCell   *cell;

	for (int i = list_length(components) - 1; i >= 0; i--)
	{
		List	   *component = list_nth(components, i);

		/* rows below that are to be deleted are found where they were */
		foreach(cell, component)
			synchro_sql_heirs(sql, lfirst(cell));
		foreach(cell, component)
		{
			const SynchroLinkTable *lt = lfirst(cell);
			bool		decided = batch->apart && leftovers && lt->decides && lt->table->watched;

			if (link->preview != NULL)
				synchro_sql_preview_gone(sql, lt);

			/* those that have won come again at once */
			if (decided)
				appendStringInfo(sql, "DELETE FROM %s.unapplied WHERE node = '%s' AND relation = %s;",
								 link->peer, link->node, quote_literal_cstr(lt->table->qualified));

			/*
			 * What is wanted again is taken off the list, too, also while
			 * deletes that have failed wait there: such a row would be
			 * deleted as soon as that went through.
			 */
			if (!lt->unmapped && !synchro_stalled_waits(batch->stalled, lt->table->relid) &&
				(!final || batch->apart || leftovers || batch->parked->has_deletes))
				synchro_sql_postpone(sql, link, lt,
									 decided || (lt->nolds > 0 && (!final || batch->apart)));
		}
		if (link->preview != NULL && final && !batch->apart)
			foreach(cell, component)
				synchro_sql_preview_deletes(sql, link, lfirst(cell), leftovers);
		if (final && !batch->apart)
			append_final_deletes(batch, sql, component, leftovers);
	}
	if (leftovers && !batch->apart)
		foreach(cell, link->leftovers)
			appendStringInfo(sql, "DELETE FROM %s.unapplied WHERE node = '%s' AND relation = %s;",
							 link->peer, link->node, quote_literal_cstr(lfirst(cell)));
}

/*
 * Have all deletes that have been put off tried one by one.
 */
static void
append_deletes_apart(SynchroBatch *batch, StringInfo sql, List *components)
{
	ListCell   *cell;

	batch->kept = NIL;
	synchro_sql_define_check(sql, batch->guarded);
	synchro_sql_define_try(sql, batch->guarded != NIL);
	synchro_sql_guard(sql, batch->guarded);
	for (int i = list_length(components) - 1; i >= 0; i--)
	{
		List	   *watched = NIL;

		foreach(cell, (List *) list_nth(components, i))
		{
			const SynchroLinkTable *lt = lfirst(cell);

			if (!lt->table->watched || synchro_stalled_waits(batch->stalled, lt->table->relid))
				continue;
			watched = lappend(watched, lfirst(cell));
			batch->kept = lappend(batch->kept, pstrdup(lt->table->qualified));
		}
		if (watched != NIL && batch->link->preview != NULL)
			synchro_sql_preview_apart(sql, batch->link, watched);
		else if (watched != NIL)
			synchro_sql_delete_apart(sql, batch->link, watched);
	}
}

/*
 * Append what deletes rows that are gone here.  components: the batch's tables,
 * in the order of synchro_order_by_references().
 */
void
synchro_batch_append_deletes(SynchroBatch *batch, StringInfo sql, List *components)
{
	append_deletes(batch, sql, components);
	if (batch->apart)
		append_deletes_apart(batch, sql, components);
}
