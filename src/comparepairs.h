/*-------------------------------------------------------------------------
 *
 * comparepairs.h
 *	  Which rows of the remote stand for which of ours, for comparing them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_COMPAREPAIRS_H
#define SYNCHRO_COMPAREPAIRS_H

#include "link.h"

extern void synchro_compare_pairs(SynchroLink *link);
extern const char *synchro_compare_pairs_table(const SynchroLink *link);

#endif							/* SYNCHRO_COMPAREPAIRS_H */
