/*-------------------------------------------------------------------------
 *
 * capture.h
 *	  Row and truncate triggers, and the transaction's buffer of keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CAPTURE_H
#define SYNCHRO_CAPTURE_H

extern void synchro_capture_init(void);
extern bool synchro_capture_pending(void);

#endif							/* SYNCHRO_CAPTURE_H */
