/*-------------------------------------------------------------------------
 *
 * changeset.h
 *	  What has changed between two snapshots: distinct keys, and what rows
 *	  were called before.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CHANGESET_H
#define SYNCHRO_CHANGESET_H

#include "changelog.h"
#include "changestore.h"
#include "copyqueue.h"
#include "parked.h"
#include "source.h"
#include "stalled.h"

typedef struct SynchroChangeSet
{
	MemoryContext context;
	List	   *tables;			/* of SynchroChangedTable */
	int64		nkeys;
	int64		nolds;
	int64		nentries;		/* of the log, read */
	int64		nagain;			/* of them, what is sent again */
	SynchroSources *sources;	/* of the stamps */
	TimestampTz newest;			/* time of the newest change, 0 if none */
} SynchroChangeSet;

/* rows as if of the log, which a caller adds */
typedef struct SynchroMoreKeys
{
	void		(*scan) (SynchroLogCallback callback, void *callback_arg, void *arg);
	void	   *arg;
} SynchroMoreKeys;

extern SynchroChangeSet *synchro_changes_collect(const SynchroSnapshot *since,
												 const SynchroSnapshot *named,
												 const char *backlog,
												 const SynchroParkedSet *parked,
												 List *stalled, List *copies,
												 const pg_uuid_t *peer,
												 bool with_keys,
												 const SynchroMoreKeys *more);
extern bool synchro_changes_next_key(SynchroChangedTable *changed, SynchroChangedKey *key);
extern bool synchro_changes_next_old(SynchroChangedTable *changed, SynchroChangedKey *old);
extern void synchro_changes_rewind(SynchroChangeSet *changes);
extern void synchro_changes_free(SynchroChangeSet *changes);

#endif							/* SYNCHRO_CHANGESET_H */
