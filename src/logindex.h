/*-------------------------------------------------------------------------
 *
 * logindex.h
 *	  The log's indexes: which blocks they cover, and those that come and go.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LOGINDEX_H
#define SYNCHRO_LOGINDEX_H

#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"

extern List *synchro_logindex_others(Relation rel, int segment);
extern void synchro_logindex_insert(Relation rel, List *others, TupleTableSlot *slot);
extern void synchro_logindex_close(List *others);
extern void synchro_logindex_cover(void);
extern void synchro_logindex_begin(int segment);

#endif							/* SYNCHRO_LOGINDEX_H */
