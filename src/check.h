/*-------------------------------------------------------------------------
 *
 * check.h
 *	  What is in the way of syncing, here and on remotes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CHECK_H
#define SYNCHRO_CHECK_H

#include "finding.h"
#include "target.h"

extern char *synchro_check_here(SynchroFindings *findings, const char *remote);
extern void synchro_check_there(SynchroFindings *findings, const SynchroTarget *target,
								const char *tables);

#endif							/* SYNCHRO_CHECK_H */
