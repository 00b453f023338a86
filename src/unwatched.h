/*-------------------------------------------------------------------------
 *
 * unwatched.h
 *	  What has failed of tables that are not watched.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_UNWATCHED_H
#define SYNCHRO_UNWATCHED_H

#include "parked.h"

extern void synchro_unwatched_forget(void);
extern void synchro_unwatched_forget_parents(const SynchroParkedSet *parked, bool all_due, TimestampTz started);

#endif							/* SYNCHRO_UNWATCHED_H */
