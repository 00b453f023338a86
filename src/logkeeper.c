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
 * - when a remote is behind and the segment has grown as large as what was
 *   folded before (FOLD_BLOCKS at least): then the segments that are not live
 *   are folded into one, which keeps of each row what has to be known.
 *
 * A remote is behind if it has been waiting for something for some seconds:
 * one that is served as fast as changes come is not, nor is one whose pusher
 * has just come to the end of a pass: what the pass saw is not needed any
 * more, and what came after it is what the next one takes.
 *
 * So with D for what folding leaves of the changes that a remote is behind by
 * (the entry that committed last for each distinct row, and those that tell
 * what it was called before), the log takes at most D + max(D, FOLD_BLOCKS),
 * and what is written between two looks; with entries of a single integer
 * FOLD_BLOCKS are some 16,000.  Each entry is folded twice on average.  While a
 * remote is down its own pusher does this; others step in only if the log gets
 * four times as large, lest they keep their remotes waiting.
 *
 * A transaction pins the segment that it has written to until it ends.  Then
 * that segment stays as it is, besides what was said above, and the other two
 * take turns: the one that is not live is folded in place, and written to again
 * though it is not empty.
 *
 * A segment is truncated or folded under ACCESS EXCLUSIVE, which we only take
 * if it is free at once.  Then no writer is left: whoever comes later writes
 * to the live segment, see changelog.c; and no reader, whose snapshot would
 * not see what folding has written.  Remotes' positions are looked at after
 * the lock is there, since only then nobody can add what they have not seen.
 *
 * The log's indexes say for ranges of pages which transactions they hold, but
 * do not learn of new ranges by themselves: full ones are added here before
 * each pass.  One that is not full would cost writers more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changelog.h"
#include "clock.h"
#include "localsql.h"
#include "logindex.h"
#include "logkeeper.h"
#include "sequence.h"
#include "settings.h"

#define FOLD_BLOCKS		((BlockNumber) (128 * 1024 / BLCKSZ))
#define BUSY_FACTOR		4
#define BEHIND			5000	/* ms that a remote may take to get a change */
#define LOOK_INTERVAL	5000	/* ms between two looks while there are changes */
#define MIN_INTERVAL	1000	/* ms until the next look while there are none */
#define MAX_INTERVAL	(60 * 60 * 1000)
#define RETRY_INTERVAL	(60 * 1000) /* ms until the next one after one that has failed */

/* what we remember of a segment; nothing depends on it but speed */
typedef struct SegmentNote
{
	Oid			file;			/* it is about this file */
	BlockNumber folded;			/* size when it was folded last, 0: not yet */
	TimestampTz newest;			/* time of its newest entry; 0: not looked at */
} SegmentNote;

/* one step of keeping, which is a local transaction */
typedef struct Keeping
{
	const char *served;			/* remote that is waiting for us, or NULL */
	SynchroSqlScope scope;
	int			live;
	BlockNumber blocks[SYNCHRO_LOG_SEGMENTS];
	bool		anything;
	bool		again;			/* look again before long */
} Keeping;

static SegmentNote notes[SYNCHRO_LOG_SEGMENTS];
static TimestampTz last_look = 0;
static TimestampTz next_look = 0;	/* 0: at once; -1: the log is empty */

/*
 * Milliseconds until there may be something to do, -1 if the log is empty.
 */
long
synchro_logkeeper_timeout(void)
{
	if (next_look < 0)
		return -1;
	return Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_look), 0);
}

/*
 * Size of a segment; what we remember of it is dropped if that was about an
 * earlier file.
 */
static BlockNumber
segment_blocks(int segment)
{
	Relation	rel = table_open(synchro_log_segment(segment), AccessShareLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	if (notes[segment].file != rel->rd_rel->relfilenode)
	{
		memset(&notes[segment], 0, sizeof(SegmentNote));
		notes[segment].file = rel->rd_rel->relfilenode;
	}
	table_close(rel, AccessShareLock);
	return blocks;
}

/*
 * The positions of all remotes but one, and of all tables that have stalled: a
 * list of SynchroSnapshot.  Names of before that are to go with the next batch
 * may be older, after set_checkpoint().  but: name of a remote, or NULL.
 */
static List *
read_positions(const char *but)
{
	List	   *positions = NIL;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(but != NULL ? but : "");
	uint64		n = synchro_sql_run("SELECT snapshot::text FROM synchro.remote_state WHERE server <> $1::name"
									" UNION SELECT keys_snapshot::text FROM synchro.remote_state WHERE server <> $1::name"
									" UNION SELECT snapshot::text FROM synchro.stalled"
									" UNION SELECT keys_snapshot::text FROM synchro.stalled WHERE keys_snapshot IS NOT NULL",
									1, &type, &value, NULL);

	for (uint64 i = 0; i < n; i++)
		positions = lappend(positions,
							synchro_snapshot_parse(SPI_getvalue(SPI_tuptable->vals[i],
																SPI_tuptable->tupdesc, 1)));
	return positions;
}

static bool
any_has_unseen(int segment, List *positions, TimestampTz before)
{
	ListCell   *cell;

	foreach(cell, positions)
		if (synchro_log_has_unseen(segment, lfirst(cell), before))
			return true;
	return false;
}

/*
 * Is a remote waiting for something in the segment?
 */
static bool
is_needed(int segment)
{
	return any_has_unseen(segment, read_positions(NULL), DT_NOEND);
}

/*
 * Has a remote been waiting for something in the segment for some time, but
 * for the one that is being served?
 */
static bool
is_behind(const Keeping *keeping, int segment)
{
	return any_has_unseen(segment, read_positions(keeping->served),
						  TimestampTzPlusMilliseconds(synchro_clock_now(), -BEHIND));
}

/*
 * Is an entry of that time older than log_retention?  Where nothing is to be kept for its
 * age, all are, also those of the future: the clock was ahead then.
 */
static bool
is_old(TimestampTz time)
{
	return synchro_log_retention == 0 ||
		TimestampTzPlusMilliseconds(time, (int64) synchro_log_retention * 1000) <= synchro_clock_now();
}

/*
 * A time that a query on the segment, with %d for its number, returns; 0 if
 * it returns none.
 */
static TimestampTz
query_time(const char *sql, int segment)
{
	bool		isnull = true;
	Datum		value = (Datum) 0;

	if (synchro_sql_run(psprintf(sql, segment), 0, NULL, NULL, NULL) > 0)
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? 0 : DatumGetTimestampTz(value);
}

/*
 * Has the segment an entry that is younger than log_retention?  We look only
 * once at all of them, not again before the newest has become old: nobody
 * adds to a segment that is not live but transactions that pin it.
 */
static bool
has_young(int segment)
{
	if (notes[segment].newest == 0 || is_old(notes[segment].newest))
		notes[segment].newest = query_time("SELECT max(changed_at) FROM synchro.log_%d", segment);
	return notes[segment].newest != 0 && !is_old(notes[segment].newest);
}

/*
 * Note up to which transaction the log will have lost entries.
 */
static void
note_horizon(int segment)
{
	bool		isnull = true;
	Datum		value = (Datum) 0;

	if (synchro_sql_run(psprintf("SELECT max(txid) FROM synchro.log_%d", segment), 0, NULL, NULL, NULL) > 0)
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		synchro_sequence_raise("log_horizon", DatumGetInt64(value));
}

/*
 * Lock a segment if nobody uses it.  A reader, or autovacuum, will soon be
 * gone, and nobody tells us.
 */
static bool
lock_segment(Keeping *keeping, int segment)
{
	bool		locked = ConditionalLockRelationOid(synchro_log_segment(segment), AccessExclusiveLock);

	keeping->again |= !locked;
	return locked;
}

static void
rotate_to(int segment)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(segment);

	synchro_sql_run("SELECT setval('synchro.log_switch', $1)", 1, &type, &value, NULL);
}

/*
 * The segment to write to next, or -1.
 *
 * crowded: it need not be empty, but nobody may have pinned it.
 */
static int
next_segment(Keeping *keeping, bool crowded)
{
	int			best = -1;

	for (int i = 1; i < SYNCHRO_LOG_SEGMENTS; i++)
	{
		int			segment = (keeping->live + i) % SYNCHRO_LOG_SEGMENTS;

		if (keeping->blocks[segment] == 0)
			return segment;
		if (crowded && (best < 0 || keeping->blocks[segment] < keeping->blocks[best]) &&
			lock_segment(keeping, segment))
			best = segment;
	}
	return best;
}

/*
 * Has the live segment grown so large that what we would fold together with
 * it is no larger?  What is pinned would not be folded.
 */
static bool
is_large(Keeping *keeping)
{
	BlockNumber folded = notes[keeping->live].folded;
	BlockNumber fresh = keeping->blocks[keeping->live] - Min(folded, keeping->blocks[keeping->live]);
	int			factor = keeping->served != NULL ? BUSY_FACTOR : 1;

	if (fresh <= FOLD_BLOCKS * factor)
		return false;
	if (!is_behind(keeping, keeping->live))
	{
		/* it may be in a moment, without a word from anybody */
		keeping->again = is_needed(keeping->live);
		return false;
	}
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
		if (i != keeping->live && keeping->blocks[i] > 0 && lock_segment(keeping, i))
			folded += keeping->blocks[i];
	return fresh > folded * factor;
}

/*
 * Leave the live segment if it is time.
 */
static void
rotate(Keeping *keeping)
{
	TimestampTz first;
	bool		large;
	int			next;

	if (keeping->blocks[keeping->live] == 0)
		return;
	large = is_large(keeping);

	/* the first row on disk is about the oldest; none: all were rolled back */
	first = query_time("SELECT changed_at FROM synchro.log_%d LIMIT 1", keeping->live);
	if (!large && first != 0 && !is_old(first))
		return;
	next = next_segment(keeping, large);
	if (next >= 0)
		rotate_to(next);
}

/*
 * Truncate a segment if nobody needs it.  That the log does not reach back so
 * far any more is noted before, at once and for good: if the truncation is
 * undone by a crash, too little is claimed.
 */
static void
truncate_segment(Keeping *keeping, int segment)
{
	if (has_young(segment) || is_needed(segment) || !lock_segment(keeping, segment))
		return;

	/* again, with snapshots that see all who have written to it */
	notes[segment].newest = 0;
	if (synchro_log_live() != segment && !has_young(segment) && !is_needed(segment))
	{
		note_horizon(segment);
		synchro_log_truncate(segment);
		synchro_logindex_begin(segment);
	}
}

/*
 * Fold the segments that are not live into one, or, if somebody has pinned
 * one, the other in place.
 */
static void
fold(Keeping *keeping)
{
	int			mine[SYNCHRO_LOG_SEGMENTS] = {0};
	int			n = 0;
	bool		behind = false;

	for (int i = 1; i < SYNCHRO_LOG_SEGMENTS; i++)
	{
		int			segment = (keeping->live + i) % SYNCHRO_LOG_SEGMENTS;

		if (keeping->blocks[segment] > 0 && is_behind(keeping, segment) && lock_segment(keeping, segment))
			mine[n++] = segment;
	}
	if (n == 0 || synchro_log_live() != keeping->live ||
		(n == 1 && keeping->blocks[mine[0]] <= Max(FOLD_BLOCKS, notes[mine[0]].folded)))
		return;
	for (int i = 0; i < n; i++)
		behind |= is_behind(keeping, mine[i]);
	if (!behind)
		return;

	PushActiveSnapshot(GetLatestSnapshot());
	synchro_log_fold(mine[0], n > 1 ? mine[1] : -1);
	PopActiveSnapshot();
	CommandCounterIncrement();
	notes[mine[0]].folded = segment_blocks(mine[0]);
}

static void
begin_step(Keeping *keeping)
{
	synchro_local_begin("synchro: keeping the log");
	synchro_sql_open(&keeping->scope, SYNCHRO_AS_OWNER);
	keeping->live = synchro_log_live();
	keeping->anything = false;
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS; i++)
	{
		keeping->blocks[i] = segment_blocks(i);
		keeping->anything |= keeping->blocks[i] > 0;
	}
}

static void
end_step(Keeping *keeping)
{
	synchro_sql_close(&keeping->scope);
	synchro_local_commit();
}

/*
 * Look after the log now.
 */
static void
look(Keeping *keeping)
{
	/* also while nothing is pushed: nodes that push to this one read the log */
	synchro_logindex_cover();
	begin_step(keeping);
	rotate(keeping);
	end_step(keeping);

	/* the lock on a segment is to be given back soon, so one at a time */
	for (int i = 0; i < SYNCHRO_LOG_SEGMENTS && keeping->anything; i++)
	{
		begin_step(keeping);
		if (i != keeping->live && keeping->blocks[i] > 0)
			truncate_segment(keeping, i);
		end_step(keeping);
	}
	begin_step(keeping);
	fold(keeping);
	end_step(keeping);
}

/*
 * Look after the log, if the last time is not too recent.  Local
 * transactions of its own.
 *
 * written: something may have been added to the log since the last call.
 * served: the remote whose pusher we are, between two passes; NULL: nobody is
 * waiting for us.  Returns whether it was time to look.
 *
 * What fails is logged, and tried again later: whoever calls has something else to
 * do, which goes without, and what there is no room for now may have some then.
 */
bool
synchro_logkeeper_run(bool written, const char *served)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		interval = Min(Max((int64) synchro_log_retention * 1000 / 4, MIN_INTERVAL), MAX_INTERVAL);
	TimestampTz soon = TimestampTzPlusMilliseconds(last_look, Min(LOOK_INTERVAL, interval));
	MemoryContext context = CurrentMemoryContext;
	Keeping		keeping = {.served = served};

	if (written)
		next_look = next_look < 0 ? soon : Min(next_look, soon);

	/* further away it is only if the clock has been set back */
	if (next_look < 0 || (now < next_look && next_look <= TimestampTzPlusMilliseconds(now, MAX_INTERVAL + RETRY_INTERVAL)))
		return false;
	last_look = now;
	PG_TRY();
	{
		look(&keeping);
	}
	PG_CATCH();
	{
		/* we are to end */
		if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_OPERATOR_INTERVENTION)
			PG_RE_THROW();
		HOLD_INTERRUPTS();
		errcontext("looking after the change log");
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		MemoryContextSwitchTo(context);
		RESUME_INTERRUPTS();
		last_look = now + (RETRY_INTERVAL - LOOK_INTERVAL) * INT64CONST(1000);
		next_look = TimestampTzPlusMilliseconds(now, RETRY_INTERVAL);
		return true;
	}
	PG_END_TRY();
	if (keeping.again)
		interval = Min(interval, LOOK_INTERVAL);
	next_look = keeping.anything ? TimestampTzPlusMilliseconds(now, interval) : -1;
	return true;
}
