/*-------------------------------------------------------------------------
 *
 * comparemerge.h
 *	  Rows of both sides, brought together by the hashes of their keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_COMPAREMERGE_H
#define SYNCHRO_COMPAREMERGE_H

#include "remote.h"

typedef void (*SynchroPairCallback) (int64 hash, char **here, char **there, void *arg);

extern void synchro_compare_merge(SynchroRemote *remote, const char *here_sql, const char *there_sql, int ncolumns,
								  int fetch, SynchroPairCallback callback, void *arg);

#endif							/* SYNCHRO_COMPAREMERGE_H */
