/*-------------------------------------------------------------------------
 *
 * division.h
 *	  A batch that is being divided; for division.c and divisionolds.c only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_DIVISION_H
#define SYNCHRO_DIVISION_H

#include "passwork.h"

/* a batch that is being divided */
typedef struct SynchroDivision
{
	SynchroPass *pass;
	List	   *dead;			/* of SynchroBatchDead, as the batch has them */
	List	   *later;			/* of SynchroBatchKeys, a row each: for another try */
	int			nparked;		/* one by one */
} SynchroDivision;

/* a part of it that was sent */
typedef struct SynchroPart
{
	MemoryContext context;		/* of all that follows */
	SynchroBatch *batch;
	SynchroRemoteError *error;	/* NULL: it went through */
} SynchroPart;

/* in division.c */
extern SynchroPart synchro_part_begin(SynchroDivision *division, const List *keys);
extern void synchro_part_send(SynchroDivision *division, SynchroPart *part, bool commit, bool final);
extern void synchro_part_end(SynchroDivision *division, SynchroPart *part);
extern void synchro_division_require_about_rows(const SynchroDivision *division, const SynchroRemoteError *error);

/* in divisionolds.c */
extern void synchro_division_push_olds(SynchroDivision *division);

#endif							/* SYNCHRO_DIVISION_H */
