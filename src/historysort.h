/*-------------------------------------------------------------------------
 *
 * historysort.h
 *	  Entries of the log, brought together by key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_HISTORYSORT_H
#define SYNCHRO_HISTORYSORT_H

#include "executor/tuptable.h"

/* columns; what is compared first, and what is found fastest, comes first */
enum
{
	HISTORY_ORDER, HISTORY_TIME, HISTORY_TXID,
	HISTORY_PLACE,				/* part of the log's row, and position in that */
	HISTORY_STAMP, HISTORY_SOURCE, HISTORY_FLAGS, HISTORY_IDENTITY, HISTORY_OLD, HISTORY_COLUMNS
};

typedef struct SynchroHistorySort SynchroHistorySort;

extern TupleDesc synchro_historysort_descriptor(void);
extern SynchroHistorySort *synchro_historysort_create(TupleDesc desc);
extern void synchro_historysort_put(SynchroHistorySort *sort, TupleTableSlot *slot);
extern void synchro_historysort_finish(SynchroHistorySort *sort, bool again);
extern TupleTableSlot *synchro_historysort_next(SynchroHistorySort *sort);
extern void synchro_historysort_rewind(SynchroHistorySort *sort);
extern void synchro_historysort_end(SynchroHistorySort *sort);

#endif							/* SYNCHRO_HISTORYSORT_H */
