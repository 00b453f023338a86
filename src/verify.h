/*-------------------------------------------------------------------------
 *
 * verify.h
 *	  What differs between here and the remote, and keeps doing so.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_VERIFY_H
#define SYNCHRO_VERIFY_H

#include "compare.h"

typedef enum SynchroDifferenceKind
{
	SYNCHRO_MISSING,			/* there */
	SYNCHRO_DIFFERENT,
	SYNCHRO_EXTRA				/* not here */
} SynchroDifferenceKind;

typedef struct SynchroDifference
{
	SynchroDifferenceKind kind;
	const SynchroTable *table;
	const char *shown;			/* the row's key */
	const char *identity;		/* here, as text of an array; NULL: extra */
	List	   *columns;		/* of char *: those that differ */
} SynchroDifference;

/* called in a memory context that is reset soon after */
typedef void (*SynchroDifferenceCallback) (const SynchroDifference *difference, void *arg);

extern SynchroLink *synchro_verify_connect(SynchroTarget *target);
extern SynchroLink *synchro_verify_open(SynchroTarget *target);
extern void synchro_verify_table(SynchroLink *link, Oid relid, SynchroDifferenceCallback callback, void *arg);

#endif							/* SYNCHRO_VERIFY_H */
