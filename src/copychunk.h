/*-------------------------------------------------------------------------
 *
 * copychunk.h
 *	  The next piece of a copy, as keys to be pushed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_COPYCHUNK_H
#define SYNCHRO_COPYCHUNK_H

#include "changelog.h"
#include "copyqueue.h"

typedef struct SynchroCopyChunk
{
	SynchroCopyStep step;		/* what the piece is: filled by the scan */
	const SynchroTable *table;
	Oid			reader;			/* role that reads the rows */
	bool		stamped;		/* the remote compares times of changes */
	int64		limit;			/* so many rows at most */
} SynchroCopyChunk;

extern SynchroCopyChunk *synchro_copychunk_create(const SynchroCopy *copy, Oid reader,
												  bool stamped, int64 limit);
extern void synchro_copychunk_scan(SynchroLogCallback callback, void *callback_arg, void *arg);
extern void synchro_copychunk_measure(const SynchroTable *table, Oid reader, SynchroCopy *copy);
extern void synchro_copychunk_require_extra(const SynchroTable *table);

#endif							/* SYNCHRO_COPYCHUNK_H */
