/*-------------------------------------------------------------------------
 *
 * logrow.h
 *	  A row of the log as those get it who read the log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LOGROW_H
#define SYNCHRO_LOGROW_H

#include "datatype/timestamp.h"
#include "keycodec.h"
#include "logsnapshot.h"

/* relation of a row that only gives its transaction's commit time */
#define SYNCHRO_STAMP_RELATION	InvalidOid

/*
 * Relation of a row whose keys are sections, one for each table.  A section
 * is its relation and layout, 4 bytes each, the length of the table's records
 * as 4 bytes, and these.  No table of a user's has that oid.
 */
#define SYNCHRO_SEVERAL_RELATIONS	((Oid) 1)
#define SYNCHRO_SECTION_HEADER		(3 * (int) sizeof(uint32))

typedef struct SynchroLogRow
{
	Oid			relation;
	uint32		layout;
	uint64		txid;
	TimestampTz changed_at;
	int32		part;
	SynchroBytes keys;
	bool		renames;		/* some of it tells of names that rows have
								 * lost; of a section: some of the whole row */
	bool		parked;			/* not of the log: see parked.c */
	bool		due;			/* of those: to be tried now */
	bool		copied;			/* not of the log: a table is copied */
} SynchroLogRow;

typedef void (*SynchroLogCallback) (const SynchroLogRow *row, void *arg);

/* what is read, and who gets it */
typedef struct SynchroLogScan
{
	SynchroLogCallback callback;
	void	   *arg;
	const SynchroSnapshot *since;	/* without what it saw; NULL: all */
	bool		as_logged;		/* times are taken as they are */
} SynchroLogScan;

extern void synchro_logrow_hand_on(const SynchroLogScan *scan, const Datum *values, const Datum *stored_keys, bool renames);

#endif							/* SYNCHRO_LOGROW_H */
