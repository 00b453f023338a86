/*-------------------------------------------------------------------------
 *
 * peersession.h
 *	  What the functions for other nodes that push to this one have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PEERSESSION_H
#define SYNCHRO_PEERSESSION_H

#include "fmgr.h"
#include "utils/uuid.h"

#include "logsnapshot.h"
#include "tableinfo.h"

/* what peer_begin() said, for its transaction */
typedef struct SynchroPeerSession
{
	uint64		txid;
	pg_uuid_t	node;
	pg_uuid_t	own;			/* this node's id */
	SynchroSnapshot *seen;		/* or NULL */
	SynchroSnapshot *named;		/* or NULL */
	bool		looks;			/* for what has been renamed since that */
	SynchroSnapshot *begun;
	int64		uncertainty;	/* of both sides' times, microseconds */
} SynchroPeerSession;

extern SynchroPeerSession *synchro_peersession_begin(void);
extern SynchroPeerSession *synchro_peersession(void);
extern const SynchroTable *synchro_peersession_table(Datum name);
extern int	synchro_text_elements(Datum array, Datum **elements);
extern char *synchro_text_or_null(FunctionCallInfo fcinfo, int n);
extern void synchro_peersession_queue(const SynchroPeerSession *peer, const SynchroTable *table, const char *identity,
									  const char *name, TimestampTz at, const pg_uuid_t *origin);

#endif							/* SYNCHRO_PEERSESSION_H */
