/*-------------------------------------------------------------------------
 *
 * emptysql.c
 *	  SQL text: staging tables emptied of what the batch before has left.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"

/*
 * Staging tables are truncated after so many bytes of rows and names, or when
 * reading past what was deleted from them has cost as much as that does: about
 * so many rows, all batches taken together.
 */
#define TRUNCATE_BYTES	(512 * 1024)
#define TRUNCATE_ROWS	60000

static bool
is_to_be_truncated(const SynchroStaging *staging)
{
	return staging->staged >= TRUNCATE_BYTES || staging->passed >= TRUNCATE_ROWS;
}

/*
 * Append what empties a table's staging tables of the batch before, if that
 * has left anything there: one statement, since to begin one costs more than to
 * delete a row.
 *
 * ON COMMIT DELETE ROWS would truncate all of them at each commit, also those
 * that are empty, with their TOAST tables and indexes: a third of what a batch
 * of one row cost.  So rows are deleted, and pruned as the next batch comes by.
 * But their line pointers stay, as no VACUUM comes to a temporary table, and
 * each statement reads past them.
 */
void
synchro_sql_empty(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt)
{
	const SynchroStaging *staging = lt->staging;
	const char *names[6];
	int			n = 0;

	if (!staging->stale)
		return;
	names[n++] = "m";
	names[n++] = "n";

	/* also if the table is only looked up now, and was not before */
	if (staging->rows != NULL)
		names[n++] = "s";

	/* a preview's batches are one transaction, whose end would empty these */
	if (link->preview != NULL)
		names[n++] = "x";
	if (link->preview != NULL && lt->decides)
	{
		names[n++] = "c";
		names[n++] = "g";
	}
	if (is_to_be_truncated(staging))
	{
		for (int i = 0; i < n; i++)
			appendStringInfo(sql, "%s pg_temp.%s_%d", i == 0 ? "TRUNCATE" : ",", names[i], lt->number);
	}
	else
	{
		for (int i = 1; i < n; i++)
			appendStringInfo(sql, "%s d%d AS (DELETE FROM pg_temp.%s_%d)", i == 1 ? "WITH" : ",", i, names[i], lt->number);
		appendStringInfo(sql, " DELETE FROM pg_temp.%s_%d", names[0], lt->number);
	}
	appendStringInfoChar(sql, ';');
}

/*
 * Note that the batch, which did that, is committed, and has left rows itself
 * if it used the table.
 */
void
synchro_stage_committed(SynchroStaging *staging, bool used)
{
	if (staging->stale && is_to_be_truncated(staging))
		staging->staged = staging->dead = staging->passed = 0;
	staging->stale = used;
	staging->staged += staging->sent_bytes;
	staging->dead += staging->sent_rows;
	if (used)
		staging->passed += staging->dead;
}
