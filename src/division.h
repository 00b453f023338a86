/*-------------------------------------------------------------------------
 *
 * division.h
 *	  A batch that is being divided; for the files division*.c only.
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
	TimestampTz olds_turn;		/* as all of its parts have it */
	List	   *later;			/* of SynchroLater: for another try */
	int			nparked;		/* one by one */
	bool		has_olds;		/* names of before go along with each part */
	uint64		olds_mark;		/* of those that have gone through, if so */
	bool		pushes_olds;	/* they are being pushed by themselves */
	bool		unborn;			/* new rows were, since these were tried */
	int			ndeferred;		/* of later, by what may be a deferred trigger's */
} SynchroDivision;

/* a part of it that was sent */
typedef struct SynchroPart
{
	MemoryContext context;		/* of all that follows */
	SynchroBatch *batch;
	SynchroRemoteError *error;	/* NULL: it went through */
} SynchroPart;

/* a row that has failed, and may go through together with others */
typedef struct SynchroLater
{
	const SynchroParked *parked;
	SynchroBatchKeys *keys;		/* of this row; NULL: it has a name of before */
	SynchroRemoteError error;	/* by itself; not all of it */
} SynchroLater;

/* an order of things, of which the first so many go through together */
typedef struct SynchroPrefix
{
	/* try the first so many; blame: the last of them is parked if they do not go through */
	bool		(*try) (void *arg, int64 count, bool blame);
	void	   *arg;
	int64		good;			/* so many went through when they were tried last */
} SynchroPrefix;

/* in division.c */
extern List *synchro_division_slice(const List *keys, int first, int count);
extern List *synchro_division_keys_left(const SynchroDivision *division, const List *keys);
extern void synchro_division_park(SynchroDivision *division, const SynchroBatchKeys *keys, int position,
								  const SynchroRemoteError *error, bool shared);
extern SynchroPart synchro_part_begin(SynchroDivision *division, const List *keys);
extern void synchro_part_send(SynchroDivision *division, SynchroPart *part, bool commit, bool final);
extern void synchro_part_end(SynchroDivision *division, SynchroPart *part);
extern bool synchro_division_is_about_rows(const SynchroDivision *division, const SynchroRemoteError *error);
extern void synchro_division_require_about_rows(const SynchroDivision *division, const SynchroRemoteError *error);

/* in divisionturn.c */
extern List *synchro_division_by_turn(const SynchroPass *pass, List *keys);

/* in divisionprefix.c */
extern bool synchro_prefix_blame(SynchroPrefix *prefix, int64 bad, int64 count);

/* in divisionlater.c */
extern void synchro_later_add(SynchroDivision *division, List **later, const SynchroParked *parked, SynchroBatchKeys *keys,
							  const SynchroRemoteError *error);
extern void synchro_later_push(SynchroDivision *division, List *later, const List *base);

/* in divisionwhole.c */
extern void synchro_division_join(SynchroDivision *division, const List *keys);

/* in divisionolds.c */
extern void synchro_division_push_olds(SynchroDivision *division);
extern void synchro_division_olds_again(SynchroDivision *division);

#endif							/* SYNCHRO_DIVISION_H */
