/*-------------------------------------------------------------------------
 *
 * conflict.h
 *	  Changes that lost against newer ones: the record of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CONFLICT_H
#define SYNCHRO_CONFLICT_H

#include "tableinfo.h"
#include "utils/uuid.h"

typedef struct SynchroConflict
{
	const SynchroTable *table;
	const pg_uuid_t *node;		/* that pushed */
	char	   *identity;		/* of the row here, as an array's text, or NULL */
	char	   *name;			/* its natural key, likewise */
	TimestampTz local_at;
	TimestampTz remote_at;
	bool		remote_wins;
	bool		ambiguous;
	Datum		loser;			/* jsonb, or 0: the loser was a delete */
} SynchroConflict;

extern void synchro_conflict_record(const SynchroConflict *conflict);

#endif							/* SYNCHRO_CONFLICT_H */
