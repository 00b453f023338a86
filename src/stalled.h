/*-------------------------------------------------------------------------
 *
 * stalled.h
 *	  Tables that cannot be pushed to a remote as they are.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_STALLED_H
#define SYNCHRO_STALLED_H

#include "logsnapshot.h"
#include "nodes/pg_list.h"
#include "sharedstate.h"
#include "tableinfo.h"

typedef struct SynchroStalled
{
	Oid			relid;
	SynchroSnapshot *since;		/* what it saw of the table is on the remote */
	SynchroSnapshot *named;		/* as the keys snapshot, for the table; NULL:
								 * it is the same */
	bool		due;			/* to be tried in this pass */
} SynchroStalled;

/* of a table whose trigger has been dropped or disabled */
#define SYNCHRO_NOT_CAPTURED	"changes of table %s are not captured: its trigger is missing or disabled"
#define SYNCHRO_CAPTURE_HINT	"Run synchro.alter_table(%s), which renews it. Rows that were changed meanwhile are pushed when they change again."

extern void synchro_suspect(Oid relid);
extern void synchro_suspect_slow(Oid relid, TimestampTz since);
extern Oid	synchro_suspected(void);
extern void synchro_suspect_keyless(const SynchroTable *table, Oid relid);
extern Oid	synchro_suspect_take(int sqlerrcode);

extern List *synchro_stalled_load(const char *server, bool all_due, const List *tried, const char *keys_snapshot);
extern SynchroStalled *synchro_stalled_find(List *stalled, Oid relid);
extern bool synchro_stalled_waits(List *stalled, Oid relid);
extern bool synchro_stalled_any_due(const List *stalled);
extern List *synchro_stalled_waiting(const List *stalled);
extern void synchro_stalled_note(const char *server, Oid relid, const SynchroKeptError *error);
extern void synchro_stalled_uncaptured(Oid relid, const char *uncaptured, const char *watched);
extern void synchro_stalled_sent(const char *server, List *stalled, const char *token, bool all);
extern void synchro_stalled_settle(const char *server, const char *token);

#endif							/* SYNCHRO_STALLED_H */
