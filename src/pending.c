/*-------------------------------------------------------------------------
 *
 * pending.c
 *	  Counts what is pending for a remote.
 *
 * This reads all of it, so it is done once after a start, and where no pusher
 * keeps count; see sharedstate.h for the count that is always at hand.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "changelog.h"
#include "checkpoint.h"
#include "clock.h"
#include "localsql.h"
#include "pending.h"

static void
count_row(const SynchroLogRow *row, void *arg)
{
	SynchroPending *pending = arg;
	const SynchroTable *table;
	const char *pos = row->keys.data;
	const char *end = row->keys.data + row->keys.len;

	table = row->relation == SYNCHRO_STAMP_RELATION ? NULL : synchro_table_get(row->relation, true);
	if (table == NULL || !table->watched ||
		SYNCHRO_LAYOUT_IDENTITY(table->layout) != SYNCHRO_LAYOUT_IDENTITY(row->layout))
		return;
	while (pos < end)
	{
		SynchroKeyRecord record;

		pos = synchro_key_next(pos, end, table, row->layout, &record);
		pending->entries++;
	}
	if (pending->oldest == 0 || row->changed_at < pending->oldest)
		pending->oldest = row->changed_at;
}

/*
 * Count the log entries that are pending for a remote.
 */
void
synchro_pending_count(const char *server, SynchroPending *pending)
{
	SynchroPosition *position;
	SynchroSqlScope scope;

	memset(pending, 0, sizeof(*pending));
	synchro_log_begin_latest();
	position = synchro_position_read(server, true);

	/* a restored database has no position before confirm_node() */
	if (position != NULL)
	{
		synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
		synchro_log_scan(synchro_snapshot_parse(position->snapshot), count_row, pending);
		synchro_log_scan_backlog(server, count_row, pending);
		synchro_sql_close(&scope);
	}
	synchro_log_end_latest();

	/* the log's times are common time; others go by this server's clock */
	if (pending->oldest != 0)
		pending->oldest -= synchro_clock_offset();
}
