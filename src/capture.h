/*-------------------------------------------------------------------------
 *
 * capture.h
 *	  Row and truncate triggers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CAPTURE_H
#define SYNCHRO_CAPTURE_H

extern void synchro_capture_init(void);

#endif							/* SYNCHRO_CAPTURE_H */
