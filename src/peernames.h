/*-------------------------------------------------------------------------
 *
 * peernames.h
 *	  What this node's log knows of rows that have been renamed, and another
 *	  node that pushes may call by their old names.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PEERNAMES_H
#define SYNCHRO_PEERNAMES_H

#include "nodes/pg_list.h"
#include "utils/uuid.h"

#include "keycodec.h"
#include "logsnapshot.h"

/* a row that has lost a name */
typedef struct SynchroRenamed
{
	char	   *identity;		/* as text */
	char	   *name;			/* as text */
	TimestampTz lost;			/* since when it is not called so here; 0: not asked for */
} SynchroRenamed;

extern List *synchro_peernames_renames(const SynchroTable *table, const TimestampTz *lost, int count);
extern List *synchro_peernames_renamed(const SynchroTable *table, const SynchroBytes *rows, int count,
									   const SynchroSnapshot *named, const pg_uuid_t *node);
extern List *synchro_peernames_lost(const SynchroTable *table, const SynchroSnapshot *named, const pg_uuid_t *node);
extern bool synchro_peernames_any(const SynchroSnapshot *named, const pg_uuid_t *node);

#endif							/* SYNCHRO_PEERNAMES_H */
