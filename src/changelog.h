/*-------------------------------------------------------------------------
 *
 * changelog.h
 *	  The log: its segments' only reader and writer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CHANGELOG_H
#define SYNCHRO_CHANGELOG_H

#include "datatype/timestamp.h"
#include "keycodec.h"
#include "logsnapshot.h"

/* relation of a row that only gives its transaction's commit time */
#define SYNCHRO_STAMP_RELATION	InvalidOid

#define SYNCHRO_LOG_SEGMENTS	3

/*
 * Relation of a row whose keys are sections, one for each table.  A section
 * is its relation and layout, 4 bytes each, the length of the table's records
 * as 4 bytes, and these.  No table of a user's has that oid.
 */
#define SYNCHRO_SEVERAL_RELATIONS	((Oid) 1)
#define SYNCHRO_SECTION_HEADER		(3 * (int) sizeof(uint32))

extern int	synchro_log_live(void);
extern Oid	synchro_log_segment(int segment);
extern Oid	synchro_log_index(int segment);
extern Oid	synchro_log_renames_index(int segment);

/* writing, in logwrite.c */
typedef struct SynchroLogWriter SynchroLogWriter;

extern SynchroLogWriter *synchro_log_open(int segment, int first_part);
extern TimestampTz synchro_log_stamp(const SynchroLogWriter *writer);
extern void synchro_log_pose(SynchroLogWriter *writer, uint64 txid, TimestampTz stamp);
extern void synchro_log_put(SynchroLogWriter *writer, Oid relation, uint32 layout,
							const char *record, int len);
extern void synchro_log_put_stamp(SynchroLogWriter *writer);
extern int	synchro_log_close(SynchroLogWriter *writer, int *next_part);

/* reading */
typedef struct SynchroLogRow
{
	Oid			relation;
	uint32		layout;
	uint64		txid;
	TimestampTz changed_at;
	int32		part;
	SynchroBytes keys;
	bool		parked;			/* not of the log: see parked.c */
	bool		due;			/* of those: to be tried now */
	bool		copied;			/* not of the log: a table is copied */
} SynchroLogRow;

typedef void (*SynchroLogCallback) (const SynchroLogRow *row, void *arg);

extern void synchro_log_lock(void);
extern void synchro_log_scan_segment(int segment, SynchroLogCallback callback, void *arg);
extern void synchro_log_scan(const SynchroSnapshot *since,
							 SynchroLogCallback callback, void *arg);
extern void synchro_log_scan_recent(TimestampTz since, const SynchroSnapshot *unseen_by,
									SynchroLogCallback callback, void *arg);
extern void synchro_log_scan_renames(const SynchroSnapshot *since, SynchroLogCallback callback,
									 void *arg, const bool *enough);
extern bool synchro_log_has_unseen(int segment, const SynchroSnapshot *since,
								   TimestampTz before);
extern void synchro_log_scan_backlog(const char *server,
									 SynchroLogCallback callback, void *arg);

#endif							/* SYNCHRO_CHANGELOG_H */
