/*-------------------------------------------------------------------------
 *
 * staging.c
 *	  Gets the remote ready for rows of the tables that a link describes.
 *
 * What link.c knows of a table comes from here, as long as local transactions
 * last; what its columns are on the remote, and its staging tables there, is
 * asked for and made between them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "applysql.h"
#include "decidesql.h"
#include "known.h"
#include "placeholder.h"
#include "previewsql.h"
#include "staging.h"
#include "stalled.h"

/*
 * Does the remote log a table, by the same keys as this side?
 */
static bool
remote_decides(SynchroLink *link, const SynchroLinkTable *lt)
{
	const char *params[1] = {lt->table->qualified};
	SynchroRows *rows;
	const char *there;

	if (link->peer_node == NULL || !lt->table->watched)
		return false;
	rows = synchro_remote_query(link->remote, "SELECT synchro.peer_table($1)", 1, params);
	there = SYNCHRO_VALUE(rows, 0, 0);
	if (there != NULL && strcmp(there, synchro_table_keys_text(lt->table)) != 0)
	{
		synchro_suspect(lt->root);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is watched by other keys on remote \"%s\"", lt->table->qualified, link->target->name),
				 errdetail("Primary key and natural key here: %s.  There: %s.", synchro_table_keys_text(lt->table), there),
				 errhint("Name the same natural key on both sides: SELECT synchro.alter_table(%s, natural_key => ...).",
						 quote_literal_cstr(lt->table->qualified))));
	}
	return there != NULL;
}

/*
 * Error if a column that identifies the table's rows is generated, on either
 * side, so that the remote makes of a new row's identity what it likes.  One that
 * is generated only here may be the remote's own there.
 */
static void
check_not_generated(const SynchroLink *link, const SynchroLinkTable *lt, int column, bool in_key)
{
	const SynchroColumn *here = &lt->table->columns[column];
	const SynchroRemoteColumn *there = &lt->remote->columns[column];

	if (!there->generated &&
		(!here->generated || (!in_key && synchro_column_fk(lt, column) < 0 && there->fresh_value != NULL)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			 there->generated ?
			 errmsg("column \"%s\" of table %s is generated on remote \"%s\"",
					here->name, lt->table->qualified, link->target->name) :
			 errmsg("column \"%s\" of table %s is generated", here->name, lt->table->qualified),
			 errdetail("It identifies the table's rows, and what a server generates cannot be pushed to it."),
			 errhint("Make it an ordinary column%s: ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION;",
					 !here->generated ? " there" : there->generated ? " on both sides" : "",
					 lt->table->qualified, quote_identifier(here->name))));
}

/*
 * Decide which columns are written on the remote.  Both sides are described.
 */
void
synchro_staging_choose(SynchroLink *link, SynchroLinkTable *lt)
{
	lt->pushed = palloc0(sizeof(bool) * lt->table->ncolumns);
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		const SynchroColumn *column = &lt->table->columns[i];
		const SynchroRemoteColumn *there = &lt->remote->columns[i];
		bool		in_identity = synchro_identity_position(lt->table, column->attnum) >= 0;
		bool		in_key = synchro_column_is_key(lt->table, i);

		if (there->type == NULL && (in_identity || in_key))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table %s of remote \"%s\" has no column \"%s\"",
							lt->table->qualified, link->target->name, column->name),
					 errdetail("The column identifies the table's rows."),
					 errhint("Make the table's definition there the same as here.")));
		if (in_identity || in_key)
			check_not_generated(link, lt, i, in_key);
		if (column->skipped || column->generated || there->generated)
			continue;
		if (there->type == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table %s of remote \"%s\" has no column \"%s\"",
							lt->table->qualified, link->target->name, column->name),
					 errhint("Add the column there, or skip it: SELECT synchro.alter_table(%s, skip => ...).",
							 quote_literal_cstr(lt->table->qualified))));

		/* what the remote hands out itself is not pushed */
		if (!in_key && there->identity == 'a' && !in_identity)
			continue;
		if (in_identity && !in_key && synchro_column_fk(lt, i) < 0 && there->fresh_value != NULL &&
			!synchro_identity_beside_sequence(lt->table, i))
			continue;
		lt->pushed[i] = true;
	}
}

/*
 * Ask the remote about tables that are new, and make their staging tables.
 * Waits for the network: not to be called in a local transaction.
 */
void
synchro_staging_prepare(SynchroLink *link)
{
	MemoryContext old = MemoryContextSwitchTo(link->tables_context);
	StringInfoData sql;
	ListCell   *cell;
	SynchroRemoteError *error;

	initStringInfo(&sql);
	foreach(cell, link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		if (lt->remote == NULL)
		{
			synchro_suspect(lt->root);
			lt->remote = synchro_remote_table_fetch(link->remote, lt->table);
			synchro_known_meet(link, lt);
			if (link->preview != NULL)
				synchro_placeholders_prepare(link, lt);
			synchro_suspect(InvalidOid);
			lt->decides = remote_decides(link, lt);
		}
	}
	foreach(cell, link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		synchro_suspect(lt->root);
		if (lt->for_rows && !lt->rows_staged)
		{
			synchro_staging_choose(link, lt);
			synchro_sql_stage_rows(&sql, lt);
			lt->rows_staged = true;
		}
		if (!lt->names_staged)
		{
			synchro_sql_stage_names(&sql, lt);
			synchro_sql_stage_decisions(&sql, lt);
			if (link->preview != NULL)
				synchro_sql_preview_stage(&sql, lt);
		}
		lt->names_staged = true;
	}
	synchro_suspect(InvalidOid);
	MemoryContextSwitchTo(old);
	if (sql.len > 0 && !link->session_prepared)
		synchro_sql_session(&sql);
	if (sql.len > 0 && !link->session_prepared && link->preview != NULL)
	{
		synchro_sql_placeholder_session(&sql);
		synchro_sql_preview_session(&sql);
	}
	if (sql.len > 0)
	{
		error = synchro_remote_script(link->remote, sql.data, NIL, NULL);
		if (error != NULL)
			synchro_remote_report(link->remote, error, "while making temporary tables");
		link->session_prepared = true;
	}
}
