/*-------------------------------------------------------------------------
 *
 * changelog.h
 *	  The log: its segments' only reader and writer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CHANGELOG_H
#define SYNCHRO_CHANGELOG_H

#include "logrow.h"

#define SYNCHRO_LOG_SEGMENTS	3

extern int	synchro_log_live(void);
extern bool synchro_log_exists(void);
extern Oid	synchro_log_segment(int segment);
extern Oid	synchro_log_index(int segment);
extern Oid	synchro_log_renames_index(int segment);

/* writing, in logwrite.c */
typedef struct SynchroLogWriter SynchroLogWriter;

extern SynchroLogWriter *synchro_log_open(int segment, int first_part);
extern TimestampTz synchro_log_stamp(const SynchroLogWriter *writer);
extern void synchro_log_pose(SynchroLogWriter *writer, uint64 txid, TimestampTz stamp);
extern void synchro_log_put(SynchroLogWriter *writer, Oid relation, uint32 layout,
							const char *records, int len, bool renames);
extern void synchro_log_put_stamp(SynchroLogWriter *writer);
extern int	synchro_log_close(SynchroLogWriter *writer, int *next_part);

extern void synchro_log_truncate(int segment);

/* reading */
extern void synchro_log_scan_segment(int segment, SynchroLogCallback callback, void *arg);
extern void synchro_log_scan(const SynchroSnapshot *since,
							 SynchroLogCallback callback, void *arg);
extern void synchro_log_scan_recent(TimestampTz since, const SynchroSnapshot *unseen_by,
									SynchroLogCallback callback, void *arg);
extern bool synchro_log_has_unseen(int segment, const SynchroSnapshot *since,
								   TimestampTz before);
extern void synchro_log_scan_backlog(const char *server,
									 SynchroLogCallback callback, void *arg);

/* in logunseen.c */
extern void synchro_log_lock(void);
extern void synchro_log_begin_latest(void);
extern void synchro_log_end_latest(void);
extern uint64 synchro_log_unseen_txids(const SynchroSnapshot *since, uint64 **ended, int *nended);
extern void synchro_log_scan_unseen(const SynchroSnapshot *since, SynchroLogCallback callback, void *arg);
extern void synchro_log_scan_renames(const SynchroSnapshot *since, SynchroLogCallback callback,
									 void *arg, const bool *enough);

#endif							/* SYNCHRO_CHANGELOG_H */
