/*-------------------------------------------------------------------------
 *
 * changemoves.h
 *	  Which row of an earlier snapshot a row is, whose identity has changed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CHANGEMOVES_H
#define SYNCHRO_CHANGEMOVES_H

#include "nodes/pg_list.h"
#include "utils/hsearch.h"

#include "changelog.h"

/* what is known of an identity that rows moved to or from */
typedef struct SynchroOrigin
{
	SynchroBytes identity;		/* hash key */
	bool		arrived;		/* a row moved here since */
	SynchroBytes from;			/* and was there in the earlier snapshot */
	bool		left;			/* a row that had not arrived has moved away */
	bool		followed;		/* who was here then has arrived elsewhere */
	SynchroBytes heir;			/* there */
	bool		logged;			/* the log says that a row is here now */
	bool		known;			/* it was there in the earlier snapshot */
	SynchroBytes name;			/* under that name */
} SynchroOrigin;

extern List *synchro_moves_add(List *moves, const SynchroLogRow *row,
							   const SynchroKeyRecord *record, int position, bool known);
extern HTAB *synchro_moves_follow(List *moves);
extern SynchroOrigin *synchro_moves_find(HTAB *origins, SynchroBytes identity);

#endif							/* SYNCHRO_CHANGEMOVES_H */
