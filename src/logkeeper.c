/*-------------------------------------------------------------------------
 *
 * logkeeper.c
 *	  Keeps the log small: rotates, folds and truncates its segments.
 *
 * Of the three segments one is live.  It is left for another, empty one
 *
 * - when its first entry is older than synchro.log_retention: so each
 *   segment comes to cover about that time, and is truncated when its newest
 *   entry is older, too, and every remote has got all of it;
 * - when a remote is behind and the segment has grown as large as what is
 *   kept already (a megabyte at least): then the segments that are not live
 *   are folded into one, which keeps of each row what has to be known.  So
 *   the log of a remote that is down stays within some four times of what its
 *   distinct changed rows take, plus two megabytes, and each entry is folded
 *   twice on average.
 *
 * A segment is truncated or folded under ACCESS EXCLUSIVE, which we only take
 * if it is free at once.  Then no writer is left: whoever comes later writes
 * to the live segment, see changelog.c; and no reader, whose snapshot would
 * not see what folding has written.  Remotes' positions are looked at after
 * the lock is there, since only then nobody can add what they have not seen.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changelog.h"
#include "localsql.h"
#include "logkeeper.h"
#include "settings.h"

#define FOLD_BLOCKS		((BlockNumber) (1024 * 1024 / BLCKSZ))
#define LOOK_INTERVAL	5000	/* ms between two looks while there is work */
#define MIN_INTERVAL	1000	/* ms until the next look while there is none */
#define MAX_INTERVAL	(60 * 60 * 1000)

static TimestampTz last_look = 0;
static TimestampTz next_look = 0;
static bool anything_kept = true;

/*
 * Milliseconds until there may be something to do, -1 if the log is empty.
 */
long
synchro_logkeeper_timeout(void)
{
	if (!anything_kept)
		return -1;
	return Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_look), 0);
}

static BlockNumber
segment_blocks(int segment)
{
	Relation	rel = table_open(synchro_log_segment(segment), AccessShareLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	table_close(rel, AccessShareLock);
	return blocks;
}

/*
 * Does a query on a segment, given with one %d for its number, return a row?
 */
static bool
segment_has(int segment, const char *condition)
{
	return synchro_sql_run(psprintf("SELECT FROM synchro.log_%d WHERE %s LIMIT 1", segment, condition),
						   0, NULL, NULL, NULL) > 0;
}

/*
 * Is a remote waiting for something in the segment?
 */
static bool
is_needed(int segment)
{
	return synchro_sql_run(psprintf("SELECT FROM synchro.remote_state r WHERE EXISTS (SELECT FROM synchro.log_%d l"
									" WHERE l.txid >= pg_snapshot_xmax(r.snapshot)::text::bigint)"
									" OR EXISTS (SELECT FROM pg_snapshot_xip(r.snapshot) x JOIN synchro.log_%d l"
									" ON l.txid = x::text::bigint) LIMIT 1", segment, segment),
						   0, NULL, NULL, NULL) > 0;
}

static char *
is_young(void)
{
	return psprintf("changed_at > clock_timestamp() - interval '%d s'", synchro_log_retention);
}

static void
rotate_to(int segment)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(segment);

	synchro_sql_run("SELECT setval('synchro.log_switch', $1)", 1, &type, &value, NULL);
}

static int
empty_segment(const BlockNumber *blocks, int live)
{
	for (int i = 1; i < SYNCHRO_LOG_SEGMENTS; i++)
		if (blocks[(live + i) % SYNCHRO_LOG_SEGMENTS] == 0)
			return (live + i) % SYNCHRO_LOG_SEGMENTS;
	return -1;
}

/*
 * Leave the live segment if it is time.
 */
static void
rotate(const BlockNumber *blocks, int live)
{
	int			next = empty_segment(blocks, live);
	BlockNumber kept = 0;
	Oid			old_type = INT4OID;
	Datum		retention = Int32GetDatum(synchro_log_retention);

	if (next < 0 || blocks[live] == 0)
		return;
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
		if (i != live)
			kept += blocks[i];

	/* the first row on disk is about the oldest */
	if (synchro_sql_run(psprintf("SELECT FROM (SELECT changed_at FROM synchro.log_%d LIMIT 1) f"
								 " WHERE changed_at <= clock_timestamp() - $1 * interval '1 s'", live),
						1, &old_type, &retention, NULL) > 0 ||
		(blocks[live] > Max(FOLD_BLOCKS, kept) && is_needed(live)))
		rotate_to(next);
}

/*
 * Truncate a segment if nobody needs it.
 */
static void
truncate_segment(int segment)
{
	if (segment_has(segment, is_young()) || is_needed(segment) ||
		!ConditionalLockRelationOid(synchro_log_segment(segment), AccessExclusiveLock))
		return;

	/* again, with a snapshot that sees all who have written to it */
	PushActiveSnapshot(GetLatestSnapshot());
	if (synchro_log_live() != segment && !segment_has(segment, is_young()) && !is_needed(segment))
		synchro_sql_run(psprintf("TRUNCATE synchro.log_%d", segment), 0, NULL, NULL, NULL);
	PopActiveSnapshot();
}

static void
fold(const BlockNumber *blocks, int live)
{
	int			target = (live + 1) % SYNCHRO_LOG_SEGMENTS;
	int			other = (live + 2) % SYNCHRO_LOG_SEGMENTS;

	/* one of them is to be empty, for the next rotation */
	if (blocks[target] == 0 || blocks[other] == 0 ||
		!ConditionalLockRelationOid(synchro_log_segment(target), AccessExclusiveLock) ||
		!ConditionalLockRelationOid(synchro_log_segment(other), AccessExclusiveLock))
		return;
	PushActiveSnapshot(GetLatestSnapshot());
	if (synchro_log_live() == live)
		synchro_log_fold(target, other);
	PopActiveSnapshot();
}

/*
 * Look after the log, if the last time is not too recent.  Local
 * transactions of its own.
 */
void
synchro_logkeeper_run(void)
{
	BlockNumber blocks[SYNCHRO_LOG_SEGMENTS];
	SynchroSqlScope scope;
	int			live;
	int64		interval = Min(Max((int64) synchro_log_retention * 1000 / 4, MIN_INTERVAL), MAX_INTERVAL);

	if (next_look != 0 && GetCurrentTimestamp() < next_look &&
		!TimestampDifferenceExceeds(last_look, GetCurrentTimestamp(), LOOK_INTERVAL))
		return;
	last_look = GetCurrentTimestamp();
	next_look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), interval);

	synchro_local_begin("synchro: keeping the log");
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	live = synchro_log_live();
	anything_kept = false;
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
	{
		blocks[i] = segment_blocks(i);
		anything_kept |= blocks[i] > 0;
	}
	rotate(blocks, live);
	synchro_sql_close(&scope);
	synchro_local_commit();
	if (!anything_kept)
		return;

	/* the lock on a segment is given back at once, so one at a time */
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
	{
		synchro_local_begin("synchro: keeping the log");
		synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
		live = synchro_log_live();
		if (i != live && segment_blocks(i) > 0)
			truncate_segment(i);
		synchro_sql_close(&scope);
		synchro_local_commit();
	}
	synchro_local_begin("synchro: folding the log");
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	live = synchro_log_live();
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
		blocks[i] = segment_blocks(i);
	if (blocks[live] > FOLD_BLOCKS / 2)
		fold(blocks, live);
	synchro_sql_close(&scope);
	synchro_local_commit();
}
