/*-------------------------------------------------------------------------
 *
 * referring.h
 *	  Rows that have been changed here, and refer to rows that another node
 *	  deletes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_REFERRING_H
#define SYNCHRO_REFERRING_H

#include "utils/hsearch.h"

#include "logstamp.h"

/* a row that is to be deleted, was changed, or that one which was refers to */
typedef struct SynchroReferringRow
{
	SynchroBytes identity;		/* hash key */
	Datum		text;			/* as the caller gave it, if it is to be deleted, else 0 */
	bool		overridden;		/* the batch writes it */
	SynchroStamp newest;		/* change of it, or of what refers to it, if it is reached */
	List	   *refers;			/* to these: of SynchroReferringRow */
	bool		listed;			/* what it refers to has been read, or will be */
	bool		reached;		/* newest is what it will be */
} SynchroReferringRow;

/* a table with rows to be deleted, or one that refers to such a table */
typedef struct SynchroReferringPlace
{
	const SynchroTable *table;
	Datum		name;			/* as the caller gave it, or 0 */
	bool		refers;			/* to one of the places */
	bool	   *written;		/* by column: the batch writes it; NULL if none */
	HTAB	   *rows;			/* of SynchroReferringRow */
	List	   *changed;		/* of SynchroNewest */
	List	   *unread;			/* of SynchroReferringRow: what they refer to is not known yet */
} SynchroReferringPlace;

typedef struct SynchroReferring
{
	MemoryContext context;
	List	   *places;			/* of SynchroReferringPlace */
	List	   *changed;		/* of SynchroReferringRow */
	SynchroStamps *stamps;
} SynchroReferring;

extern SynchroReferringPlace *synchro_referring_find(const SynchroReferring *search, Oid relid);
extern SynchroReferringPlace *synchro_referring_place(SynchroReferring *search, const SynchroTable *table);
extern SynchroReferringRow *synchro_referring_row(SynchroReferring *search, SynchroReferringPlace *place, SynchroBytes identity);
extern bool synchro_referring_changed(SynchroReferring *search, TimestampTz since);
extern bool synchro_referring_follow(SynchroReferring *search);

#endif							/* SYNCHRO_REFERRING_H */
