/*-------------------------------------------------------------------------
 *
 * applied.h
 *	  Rows that this transaction changes on behalf of another node.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_APPLIED_H
#define SYNCHRO_APPLIED_H

#include "nodes/pg_list.h"
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
	SynchroStamp restated;		/* this node's own change just after; at 0: none */
} SynchroApplied;

/* what another node calls a row, whose change of its name has lost here */
typedef struct SynchroRefused
{
	Oid			relation;
	uint32		layout;
	SynchroBytes identity;
	SynchroBytes name;
	SynchroStamp stamp;			/* of the row's newest change */
} SynchroRefused;

extern bool synchro_applied_any(void);
extern void synchro_applied_put(const SynchroTable *table, SynchroBytes identity,
								SynchroStamp stamp, bool derived, bool touch);
extern void synchro_applied_take_out(const SynchroTable *table, SynchroBytes identity);
extern void synchro_applied_restate(const SynchroTable *table, SynchroBytes identity, TimestampTz after);
extern SynchroApplied *synchro_applied_find(Oid relation, SynchroBytes identity);
extern void synchro_applied_refers(Oid relation);
extern bool synchro_applied_is_referring(Oid relation);
extern void synchro_applied_note_affected(Oid relation, SynchroBytes identity);
extern bool synchro_applied_is_affected(Oid relation, SynchroBytes identity);
extern SynchroApplied *synchro_applied_next(bool first);
extern void synchro_applied_refuse(const SynchroTable *table, SynchroBytes identity,
								   SynchroBytes name, SynchroStamp stamp);
extern List *synchro_applied_refused(void);
extern void synchro_applied_forget(void);

#endif							/* SYNCHRO_APPLIED_H */
