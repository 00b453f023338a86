/*-------------------------------------------------------------------------
 *
 * applied.h
 *	  Rows that this transaction changes on behalf of another node.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_APPLIED_H
#define SYNCHRO_APPLIED_H

#include "keycodec.h"

typedef struct SynchroApplied
{
	Oid			relation;
	uint32		layout;
	SynchroBytes identity;
	SynchroStamp stamp;
	bool		derived;		/* see SYNCHRO_KEY_DERIVED */
	bool		touch;			/* to be logged even if nothing is written */
	bool		logged;
} SynchroApplied;

extern bool synchro_applied_any(void);
extern void synchro_applied_put(const SynchroTable *table, SynchroBytes identity,
								SynchroStamp stamp, bool derived, bool touch);
extern SynchroApplied *synchro_applied_find(Oid relation, SynchroBytes identity);
extern SynchroApplied *synchro_applied_next(bool first);
extern void synchro_applied_forget(void);

#endif							/* SYNCHRO_APPLIED_H */
