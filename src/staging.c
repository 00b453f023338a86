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

#include "catalog/namespace.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/regproc.h"

#include "applysql.h"
#include "decidesql.h"
#include "known.h"
#include "localsql.h"
#include "placeholder.h"
#include "prepared.h"
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
	there = synchro_nullable(rows, 0, 0);
	if (there != NULL && strcmp(there, synchro_table_keys_text(lt->table)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is watched by other keys on remote \"%s\"", lt->table->qualified, link->target->name),
				 errdetail("Primary key and natural key here: %s.  There: %s.", synchro_table_keys_text(lt->table), there),
				 errhint("If a column was renamed, rename it on the other side, too. Else name the same natural key on both: SELECT synchro.alter_table(%s, natural_key => ...).",
						 quote_literal_cstr(lt->table->qualified))));
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
 * SQL text: the table's skipped columns but one, as alter_table() is to have them.
 */
static char *
skipped_without(const SynchroTable *table, int column)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].skipped && i != column)
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", quote_literal_cstr(table->columns[i].name));
	return list.len > 0 ? psprintf("ARRAY[%s]::name[]", list.data) : "'{}'";
}

/*
 * Error if a column that rows are found by is skipped.  It is refused when it is named
 * (keycheck.c, check_skipped_column()), but the primary key may have come to have it since.
 */
static void
check_not_skipped(const SynchroLinkTable *lt, int column, bool in_key)
{
	const SynchroTable *table = lt->table;
	const SynchroColumn *here = &table->columns[column];

	/* where a natural key finds the row, the remote may make up its own id */
	if (!here->skipped ||
		(!in_key && (here->from_sequence || (table->mode == SYNCHRO_MODE_NATURAL_KEY && here->has_default))))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			 errmsg("column \"%s\" of table %s is skipped, but is in its primary key", here->name, table->qualified),
			 errdetail("It identifies the table's rows, which are not found without its values."),
			 errhint("Have it pushed: SELECT synchro.alter_table(%s, skip => %s); or make other columns the primary key.",
					 quote_literal_cstr(table->qualified), skipped_without(table, column))));
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
		{
			check_not_generated(link, lt, i, in_key);
			check_not_skipped(lt, i, in_key);
		}
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
 * Error if the remote has a foreign key that there is none of here, to a table
 * whose ids are others there: it was dropped, for a load perhaps, and the ids that
 * the column has here would be taken for the remote's.
 */
static void
require_same_reference(const SynchroLink *link, const SynchroLinkTable *lt, int column)
{
	const char *refers = lt->remote->columns[column].refers;
	List	   *names = stringToQualifiedNameList(refers, NULL);
	Oid			relid = RangeVarGetRelid(makeRangeVar(strVal(linitial(names)), strVal(lsecond(names)), -1), NoLock, true);
	const SynchroTable *parent = OidIsValid(relid) ? synchro_table_get(relid, true) : NULL;
	int			referenced = parent != NULL ? synchro_table_column(parent, strVal(lthird(names))) : -1;

	if (referenced < 0 || synchro_identity_position(parent, parent->columns[referenced].attnum) < 0)
		return;
	if (parent->mode == SYNCHRO_MODE_REFERENCE ? !parent->watched : parent->mode != SYNCHRO_MODE_NATURAL_KEY)
		return;
	if (synchro_column_is_key(parent, referenced))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("column \"%s\" of table %s has a foreign key on remote \"%s\", and none here",
					lt->table->columns[column].name, lt->table->qualified, link->target->name),
			 errdetail("It references table %s, whose rows have other ids there.", parent->qualified),
			 errhint("Add it here, too: ALTER TABLE %s ADD FOREIGN KEY (%s) REFERENCES %s (%s). Or drop it there, if the values mean the same on both sides.",
					 lt->table->qualified, synchro_column_name(lt, column), parent->qualified, quote_identifier(parent->columns[referenced].name))));
}

/*
 * The same for all columns that are pushed.  Local transactions of its own.
 */
static void
require_same_references(const SynchroLink *link, const SynchroLinkTable *lt)
{
	for (int i = 0; i < lt->table->ncolumns; i++)
	{
		MemoryContext context = CurrentMemoryContext;

		if (!lt->pushed[i] || lt->table->columns[i].fk >= 0 || lt->remote->columns[i].refers == NULL)
			continue;
		synchro_local_begin("synchro: comparing foreign keys");
		require_same_reference(link, lt, i);
		synchro_local_commit();
		MemoryContextSwitchTo(context);
	}
}

static char *
sql_for_names(const SynchroLink *link, const SynchroLinkTable *lt)
{
	StringInfoData sql;

	/* of a table that was altered there, plans are made anew in any case */
	initStringInfo(&sql);
	appendStringInfo(&sql, "/* %s %s */", lt->remote->oid, lt->remote->shape);
	synchro_sql_stage_names(&sql, lt);
	synchro_sql_stage_decisions(&sql, lt);
	if (link->preview != NULL)
		synchro_sql_preview_stage(&sql, lt);
	return sql.data;
}

static char *
sql_for_rows(const SynchroLinkTable *lt)
{
	StringInfoData sql;

	initStringInfo(&sql);
	synchro_sql_stage_rows(&sql, lt);
	return sql.data;
}

/*
 * Append what drops staging tables.  Statements that were prepared for them
 * would take others of the same names for them.
 */
static void
unstage(StringInfo sql, SynchroLink *link, SynchroStaging *staging)
{
	synchro_sql_unstage(sql, staging);
	synchro_prepared_forget(link);
	if (staging->names != NULL)
		pfree(staging->names);
	if (staging->rows != NULL)
		pfree(staging->rows);
	staging->names = staging->rows = NULL;
	staging->stale = staging->analyzed = false;
	staging->staged = staging->dead = staging->passed = 0;
}

/*
 * Append what makes a table's staging tables, instead of others if there are
 * any that do not fit any more.  Those that would be made the same are kept: a
 * link may last for months, and tables are described anew quite often.
 */
static void
stage(StringInfo sql, SynchroLink *link, SynchroLinkTable *lt)
{
	SynchroStaging *staging = lt->staging;
	char	   *names = sql_for_names(link, lt);
	char	   *rows = lt->for_rows ? sql_for_rows(lt) : NULL;

	if ((staging->names != NULL && strcmp(staging->names, names) != 0) ||
		(staging->rows != NULL && rows != NULL && strcmp(staging->rows, rows) != 0))
		unstage(sql, link, staging);
	if (staging->names == NULL)
	{
		appendStringInfoString(sql, names);
		staging->names = MemoryContextStrdup(link->context, names);
	}
	if (staging->rows == NULL && rows != NULL)
	{
		appendStringInfoString(sql, rows);
		staging->rows = MemoryContextStrdup(link->context, rows);
	}
	lt->names_staged = true;
	lt->rows_staged = lt->for_rows;
}

/*
 * Append what drops the staging tables of tables that are gone here.
 */
static void
unstage_gone(StringInfo sql, SynchroLink *link)
{
	ListCell   *cell;

	foreach(cell, link->stagings)
	{
		SynchroStaging *staging = lfirst(cell);

		if (!staging->gone)
			continue;
		unstage(sql, link, staging);
		link->stagings = foreach_delete_current(link->stagings, cell);
		pfree(staging);
	}
}

/* the statements that make a table's staging tables */
typedef struct Made
{
	const SynchroLinkTable *lt;
	char	   *sql;
} Made;

/*
 * Staging tables could not be made: find because of which table, so that the
 * others go on without it.  Its types may be out of reach, say.
 */
static void
find_suspect(SynchroLink *link, List *made)
{
	ListCell   *cell;

	/* not if none can be made */
	if (synchro_remote_script(link->remote, "CREATE TEMPORARY TABLE synchro_trial ();DROP TABLE pg_temp.synchro_trial", NIL, NULL) != NULL)
		return;
	foreach(cell, made)
	{
		const Made *one = lfirst(cell);
		SynchroRemoteError *error;

		error = synchro_remote_script(link->remote, one->sql, NIL, NULL);
		if (error == NULL)
			continue;
		synchro_suspect(one->lt->root);
		synchro_remote_report(link->remote, error, "while making temporary tables");
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
	List	   *made = NIL;
	ListCell   *cell;
	SynchroRemoteError *error;

	initStringInfo(&sql);
	unstage_gone(&sql, link);
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
			lt->decides = remote_decides(link, lt);
			synchro_suspect(InvalidOid);
		}
	}
	foreach(cell, link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		synchro_suspect(lt->root);
		if (lt->for_rows && !lt->rows_staged)
		{
			synchro_staging_choose(link, lt);
			require_same_references(link, lt);
		}
		if (!lt->names_staged || (lt->for_rows && !lt->rows_staged))
		{
			int			start = sql.len;
			Made	   *one = palloc(sizeof(Made));

			stage(&sql, link, lt);
			one->lt = lt;
			one->sql = pstrdup(sql.data + start);
			made = lappend(made, one);
		}
	}
	synchro_suspect(InvalidOid);
	MemoryContextSwitchTo(old);
	if (sql.len > 0 && !link->session_prepared)
		synchro_sql_session(&sql, synchro_remote_mark(link->remote));
	if (sql.len > 0 && !link->session_prepared && link->preview != NULL)
	{
		synchro_sql_placeholder_session(&sql);
		synchro_sql_preview_session(&sql);
	}
	if (sql.len > 0)
	{
		error = synchro_remote_script(link->remote, sql.data, NIL, NULL);
		if (error != NULL && !error->lost)
			find_suspect(link, made);
		if (error != NULL)
			synchro_remote_report(link->remote, error, "while making temporary tables");
		link->session_prepared = true;
	}
}
