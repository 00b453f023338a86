/*-------------------------------------------------------------------------
 *
 * capturexact.h
 *	  Capture follows transactions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CAPTUREXACT_H
#define SYNCHRO_CAPTUREXACT_H

extern void synchro_capturexact_init(void);
extern bool synchro_capturexact_disabled(void);

#endif							/* SYNCHRO_CAPTUREXACT_H */
