/*-------------------------------------------------------------------------
 *
 * capturewrite.h
 *	  The buffer's records, written to the log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CAPTUREWRITE_H
#define SYNCHRO_CAPTUREWRITE_H

#include "utils/timestamp.h"

/* precedes each record in the buffer; unaligned there, so copied in and out */
typedef struct SynchroBufferHeader
{
	uint16		table;			/* see capturetables.h */
	uint8		flags;			/* the record's first byte */
	CommandId	command;		/* that made the change */
	uint32		identity_len;
	uint32		len;			/* of the record */
} SynchroBufferHeader;

extern TimestampTz synchro_capture_write(const char *buffer, int offset, int len, bool unordered, bool last);
extern void synchro_capture_note_break(int offset, TimestampTz time);
extern void synchro_capture_cut_breaks(int len);
extern bool synchro_capture_has_written(void);
extern void synchro_capture_forget_written(void);

#endif							/* SYNCHRO_CAPTUREWRITE_H */
