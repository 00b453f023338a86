/*-------------------------------------------------------------------------
 *
 * peerlog.h
 *	  What this node's log knows of rows that another node pushes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PEERLOG_H
#define SYNCHRO_PEERLOG_H

#include "logsnapshot.h"
#include "logstamp.h"

/* the newest change of a row */
typedef struct SynchroNewest
{
	char	   *identity;		/* text, as the caller gave it */
	SynchroBytes bytes;
	bool		found;
	SynchroStamp stamp;
	uint64		txid;
	bool		live;			/* may be there; else its last transaction has
								 * only deleted it */
	/* order of the last entry in the log */
	TimestampTz logged_at;
	uint64		last_txid;
	int32		part;
	int32		position;
} SynchroNewest;

/* who bore a name last that nobody bears any more */
typedef struct SynchroBearer
{
	char	   *name;			/* text, as the caller gave it */
	bool		found;
	SynchroStamp lost;			/* when it was renamed or deleted */
	char	   *identity;		/* as text */
	SynchroNewest *row;			/* what is known of it */
	uint64		txid;
	TimestampTz logged_at;
	int32		part;
	int32		position;
	SynchroStamp given;
	SynchroBytes bytes;
	struct SynchroBearer *same; /* the next one whose name is equal, though it looks different */
} SynchroBearer;

extern SynchroStamps *synchro_peerlog_newest(const SynchroTable *table, SynchroNewest *rows, int count,
											 TimestampTz since, const SynchroSnapshot *unseen_by);
extern SynchroStamps *synchro_peerlog_changed(List *tables, TimestampTz since, List **rows);
extern SynchroStamps *synchro_peerlog_bearers(const SynchroTable *table, SynchroBearer *names, int count,
											  TimestampTz since);
extern bool synchro_peerlog_changed_since(const SynchroSnapshot *snapshot);

#endif							/* SYNCHRO_PEERLOG_H */
