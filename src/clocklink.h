/*-------------------------------------------------------------------------
 *
 * clocklink.h
 *	  The remote's clock: measured, and common time agreed upon with it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CLOCKLINK_H
#define SYNCHRO_CLOCKLINK_H

#include "link.h"

extern void synchro_clocklink_measure(SynchroLink *link);
extern void synchro_clocklink_refresh(SynchroLink *link);
extern int64 synchro_clocklink_uncertainty(const SynchroLink *link);

#endif							/* SYNCHRO_CLOCKLINK_H */
