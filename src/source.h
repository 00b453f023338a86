/*-------------------------------------------------------------------------
 *
 * source.h
 *	  Where changes come from that were not first made here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SOURCE_H
#define SYNCHRO_SOURCE_H

#include "utils/uuid.h"

/* where a change was first made, and which node brought it here */
typedef struct SynchroSource
{
	int32		number;			/* 0: made here, via is not set */
	pg_uuid_t	origin;
	pg_uuid_t	via;
} SynchroSource;

/* all that are known */
typedef struct SynchroSources
{
	int			count;
	SynchroSource *sources;		/* by number, this node first */
} SynchroSources;

extern SynchroSources *synchro_sources_load(void);
extern const SynchroSource *synchro_source_find(const SynchroSources *sources, int32 number);
extern int32 synchro_source_number(const pg_uuid_t *origin, const pg_uuid_t *via);
extern bool synchro_uuid_equal(const pg_uuid_t *a, const pg_uuid_t *b);
extern int	synchro_uuid_compare(const pg_uuid_t *a, const pg_uuid_t *b);

#endif							/* SYNCHRO_SOURCE_H */
