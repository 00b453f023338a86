/*-------------------------------------------------------------------------
 *
 * copyqueue.h
 *	  Copies of whole tables: which are queued, and how far each has come.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_COPYQUEUE_H
#define SYNCHRO_COPYQUEUE_H

#include "datatype/timestamp.h"
#include "keycodec.h"
#include "logsnapshot.h"
#include "nodes/pg_list.h"

/* a table's rows, on their way to one remote */
typedef struct SynchroCopy
{
	int64		id;				/* later ones have greater ids */
	Oid			relid;
	uint32		layout;			/* of the keys below */
	SynchroBytes last;			/* identity of the last row pushed; data NULL:
								 * none yet */
	SynchroBytes until;			/* of the last row to be pushed; data NULL: as
								 * many as there are */
	int64		rows_total;		/* when it was queued */
	int64		rows_done;
	bool		delete_extra;	/* rows that are on the remote only go */
	bool		rows_sent;		/* nothing else is left to do */
	bool		empty;			/* first, all of the remote's rows go */
	SynchroSnapshot *forgotten; /* what the log had of the table then is not
								 * pushed; or NULL */
	TimestampTz queued_at;
} SynchroCopy;

/* what a pass has done for it */
typedef struct SynchroCopyStep
{
	const SynchroCopy *copy;
	int64		nrows;
	uint32		layout;
	SynchroBytes last;			/* data NULL: as before */
	bool		complete;		/* there are no more rows */
} SynchroCopyStep;

extern void synchro_copyqueue_add(const char *server, const SynchroCopy *copy, const char *seen);
extern List *synchro_copyqueue_load(const char *server);
extern void synchro_copyqueue_advance(const char *server, const SynchroCopyStep *step, List *finished);
extern const SynchroCopy *synchro_copyqueue_find(const List *copies, Oid relid);
extern void synchro_copyqueue_forget(const char *server);
extern void synchro_copyqueue_forget_unwatched(void);
extern bool synchro_copyqueue_status(const char *server, SynchroCopy *copy, int64 *left);

#endif							/* SYNCHRO_COPYQUEUE_H */
