/*-------------------------------------------------------------------------
 *
 * logkeeper.h
 *	  Keeps the log small: rotates, folds and truncates its segments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LOGKEEPER_H
#define SYNCHRO_LOGKEEPER_H

extern bool synchro_logkeeper_run(bool written, const char *served);
extern long synchro_logkeeper_timeout(void);

/* in logfold.c; other: -1 for none */
extern void synchro_log_fold(int target, int other);

#endif							/* SYNCHRO_LOGKEEPER_H */
