/*-------------------------------------------------------------------------
 *
 * pending.h
 *	  Counts what is pending for a remote.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PENDING_H
#define SYNCHRO_PENDING_H

#include "datatype/timestamp.h"

typedef struct SynchroPending
{
	int64		entries;
	TimestampTz oldest;			/* when the first was logged; 0: none */
} SynchroPending;

extern void synchro_pending_count(const char *server, SynchroPending *pending);

#endif							/* SYNCHRO_PENDING_H */
