/*-------------------------------------------------------------------------
 *
 * clock.h
 *	  The group's common time: stamps of changes, and whose clock counts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CLOCK_H
#define SYNCHRO_CLOCK_H

#include "datatype/timestamp.h"

/* clock.c: stamps.  No SQL, no rights, at any time in any transaction */
extern TimestampTz synchro_clock_now(void);
extern TimestampTz synchro_clock_stamp(void);
extern void synchro_clock_saw(TimestampTz stamp);

/* for clockgroup.c only */
extern int64 synchro_clock_offset(void);
extern void synchro_clock_set_offset(int64 offset);
extern void synchro_clock_set_back(int64 offset);

/*
 * clockgroup.c: what this node knows of the group's clock.  Common time is
 * the local clock plus offset, give or take uncertainty (microseconds, both).
 */
#define SYNCHRO_UUID_TEXT	37

typedef struct SynchroClock
{
	char		node[SYNCHRO_UUID_TEXT];	/* this one */
	char		reference[SYNCHRO_UUID_TEXT];	/* whose clock is common time */
	int			stratum;		/* nodes on the way to it; 0: this one */
	int64		offset;
	int64		uncertainty;
} SynchroClock;

extern bool synchro_clock_get(SynchroClock *clock);
extern bool synchro_clock_is_fresh(int64 offset, int64 uncertainty, TimestampTz measured_at,
								   int64 new_offset, int64 new_uncertainty);
extern void synchro_clock_offer(const char *reference, int stratum,
								int64 offset, int64 uncertainty);
extern void synchro_clock_forget(void);

/* readers of the log */
extern void synchro_clock_load(void);
extern TimestampTz synchro_clock_clamp(uint64 txid, TimestampTz stamp);

#endif							/* SYNCHRO_CLOCK_H */
