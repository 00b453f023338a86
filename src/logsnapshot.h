/*-------------------------------------------------------------------------
 *
 * logsnapshot.h
 *	  Stored transaction snapshots: text, and what they saw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LOGSNAPSHOT_H
#define SYNCHRO_LOGSNAPSHOT_H

/* a stored transaction snapshot; xip is sorted */
typedef struct SynchroSnapshot
{
	uint64		xmin;
	uint64		xmax;
	int			nxip;
	uint64	   *xip;
} SynchroSnapshot;

extern SynchroSnapshot *synchro_snapshot_parse(const char *text);
extern char *synchro_snapshot_current(void);
extern bool synchro_snapshot_has(const SynchroSnapshot *snapshot, uint64 xid);

#endif							/* SYNCHRO_LOGSNAPSHOT_H */
