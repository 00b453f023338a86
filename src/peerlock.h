/*-------------------------------------------------------------------------
 *
 * peerlock.h
 *	  Rows locked that are logged as changed by another node, but not written.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PEERLOCK_H
#define SYNCHRO_PEERLOCK_H

extern void synchro_peerlock_touched(void);

#endif							/* SYNCHRO_PEERLOCK_H */
