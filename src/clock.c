/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  Stamps: when changes were made, in the group's common time.
 *
 * Common time is the local clock plus an offset, which clockgroup.c finds
 * out.  A change's stamp is common time, or, where that is not greater than
 * every stamp given or seen before (the floor), a little more than the floor:
 * a hybrid logical clock.  So what was done later to a row has the greater
 * stamp, also if a clock runs behind or is set back.
 *
 * Two transactions that change one row never get the same stamp, nor the
 * second the smaller one.  The second gets the row's lock when the first has
 * ended, so the first's stamp was given, and the floor raised with it, before
 * the second asks for its own.  If both stamps come from the clock, they
 * differ all the same: a commit record is written in between, which takes
 * longer than the microsecond that a TimestampTz counts.
 *
 * With shared memory, the floor of the running server lies there, and a stamp
 * costs two atomic operations.  The sequence synchro.clock keeps what must
 * outlive the server: stamps seen from elsewhere, and those given here that
 * are so far ahead of the clock that after a restart it might not have caught
 * up.
 *
 * Without shared memory the sequence is all that backends share.  It has the
 * stamps seen and every one that was given above the clock, but not those that
 * the clock gave: if that is set back, only a backend's own last stamp is
 * still known, in itself.
 *
 * All of this runs in users' transactions, at PRE_COMMIT: no SQL, no rights,
 * and no lock but the short one of synchro_sequence_raise().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "sequence.h"
#include "sharedstate.h"
#include "synchro.h"

#define CLOCK_SEQUENCE	"clock"
#define OFFSET_SEQUENCE "clock_offset"

/*
 * How far above the floor a stamp is: capturewrite.c uses up the microsecond
 * before a stamp as well, for what is older than that.
 */
#define STEP			2

/* less than this ahead of the clock, a stamp is in the past after a restart */
#define RESTART_TIME	(10 * 1000)

/* the sequence is set ahead by so much, so that few stamps have to wait for it */
#define RESERVE			(100 * 1000)

/*
 * Our clock in shared memory, or NULL.
 */
static SynchroSharedClock *
shared_clock(void)
{
	SynchroSharedClock *clock;
	uint64		unknown = SYNCHRO_CLOCK_UNKNOWN;
	uint64		none = 0;
	uint64		kept;

	/* on a standby the sequences are replayed, and nobody tells us */
	if (RecoveryInProgress())
		return NULL;
	clock = synchro_shared_clock(MyDatabaseId, get_namespace_oid(SYNCHRO_SCHEMA, false));
	if (clock == NULL || pg_atomic_read_u64(&clock->stamp) != 0)
		return clock;

	/*
	 * The first one here reads the sequences.  Whoever sets one of them does
	 * so before he changes the value here, so what we have read is put there
	 * only if nobody was faster.  The stamp comes last: it says that all is
	 * there.
	 */
	kept = Max(synchro_sequence_read(CLOCK_SEQUENCE), 1);
	(void) pg_atomic_compare_exchange_u64(&clock->offset, &unknown,
										  (uint64) synchro_sequence_read(OFFSET_SEQUENCE));
	(void) pg_atomic_compare_exchange_u64(&clock->kept, &none, kept);
	none = 0;
	(void) pg_atomic_compare_exchange_u64(&clock->stamp, &none, kept);
	return clock;
}

/*
 * Raise a shared value.
 */
static void
raise_shared(pg_atomic_uint64 *value, uint64 to)
{
	uint64		now = pg_atomic_read_u64(value);

	while (now < to && !pg_atomic_compare_exchange_u64(value, &now, to))
		 /* now has become what is there */ ;
}

/*
 * Common time less local time, in microseconds.
 */
int64
synchro_clock_offset(void)
{
	SynchroSharedClock *clock = shared_clock();

	return clock != NULL ? (int64) pg_atomic_read_u64(&clock->offset) :
		synchro_sequence_read(OFFSET_SEQUENCE);
}

/*
 * Common time.
 */
TimestampTz
synchro_clock_now(void)
{
	return GetCurrentTimestamp() + synchro_clock_offset();
}

/*
 * Have the sequence keep stamps up to a given one at least.
 */
static void
keep(SynchroSharedClock *clock, TimestampTz stamp)
{
	if (pg_atomic_read_u64(&clock->kept) >= (uint64) stamp)
		return;
	synchro_sequence_raise(CLOCK_SEQUENCE, stamp);
	raise_shared(&clock->kept, (uint64) stamp);
}

static TimestampTz
shared_stamp(SynchroSharedClock *clock)
{
	uint64		floor = pg_atomic_read_u64(&clock->stamp);
	TimestampTz now;
	TimestampTz stamp;

	/*
	 * The offset is read after the floor: when the clock is set back, the
	 * floor is lowered after that, so a stamp by the old offset does not get
	 * in behind it.
	 */
	do
	{
		pg_read_barrier();
		now = GetCurrentTimestamp() + (int64) pg_atomic_read_u64(&clock->offset);
		stamp = Max(now, (TimestampTz) floor + STEP);
	} while (!pg_atomic_compare_exchange_u64(&clock->stamp, &floor, (uint64) stamp));

	if (stamp > now + RESTART_TIME && pg_atomic_read_u64(&clock->kept) < (uint64) stamp)
		keep(clock, stamp + RESERVE);
	return stamp;
}

static TimestampTz
unshared_stamp(void)
{
	static TimestampTz last = 0;	/* given by this backend ... */
	static int64 last_offset = 0;	/* ... with this offset */
	static Oid	last_relation = InvalidOid; /* ... of this sequence */
	int64		offset = synchro_sequence_read(OFFSET_SEQUENCE);
	Oid			relation = synchro_own_relation(CLOCK_SEQUENCE, false);
	TimestampTz floor = synchro_sequence_read(CLOCK_SEQUENCE);
	TimestampTz stamp = GetCurrentTimestamp() + offset;

	/* with another offset, the sequence has what still counts of the last one */
	if (last_offset == offset && last_relation == relation)
		floor = Max(floor, last);
	if (stamp <= floor)
	{
		stamp = floor + STEP;
		synchro_sequence_raise(CLOCK_SEQUENCE, stamp);
	}
	last = stamp;
	last_offset = offset;
	last_relation = relation;
	return stamp;
}

/*
 * A stamp for changes that are made here and now.
 */
TimestampTz
synchro_clock_stamp(void)
{
	SynchroSharedClock *clock = shared_clock();

	return clock != NULL ? shared_stamp(clock) : unshared_stamp();
}

/*
 * A change with this stamp has come from elsewhere: whatever is done here from
 * now on is later.
 */
void
synchro_clock_saw(TimestampTz stamp)
{
	SynchroSharedClock *clock = shared_clock();

	if (clock == NULL)
	{
		synchro_sequence_raise(CLOCK_SEQUENCE, stamp);
		return;
	}
	raise_shared(&clock->stamp, (uint64) stamp);
	keep(clock, stamp);
}

static void
write_offset(SynchroSharedClock *clock, int64 offset)
{
	synchro_sequence_set(OFFSET_SEQUENCE, offset);
	if (clock != NULL)
	{
		pg_atomic_write_u64(&clock->offset, (uint64) offset);
		pg_write_barrier();
	}
}

/*
 * Set the offset.  Stamps that were given stay below those to come: if the
 * clock goes back, it stands still until it has caught up.
 */
void
synchro_clock_set_offset(int64 offset)
{
	SynchroSharedClock *clock = shared_clock();
	int64		old = synchro_clock_offset();

	if (offset == old)
		return;
	write_offset(clock, offset);

	/* with shared memory the floor is there already */
	if (offset < old && clock == NULL)
		synchro_clock_saw(GetCurrentTimestamp() + old);
}

/*
 * Set the offset to a much smaller one, and the floor to what is then common
 * time.  Stamps that were given before, and those seen in the group whose
 * time it was, are in the future now; what is done here is not to win over all
 * others until that has come.  See synchro_clock_clamp().
 */
void
synchro_clock_set_back(int64 offset)
{
	SynchroSharedClock *clock = shared_clock();
	TimestampTz now;

	write_offset(clock, offset);
	now = GetCurrentTimestamp() + offset;
	if (synchro_sequence_read(CLOCK_SEQUENCE) > now)
		synchro_sequence_set(CLOCK_SEQUENCE, now);
	if (clock == NULL)
		return;
	pg_atomic_write_u64(&clock->kept, (uint64) now);
	pg_atomic_write_u64(&clock->stamp, (uint64) now);
}
