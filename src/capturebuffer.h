/*-------------------------------------------------------------------------
 *
 * capturebuffer.h
 *	  The transaction's buffer of keys, from the triggers to the log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CAPTUREBUFFER_H
#define SYNCHRO_CAPTUREBUFFER_H

#include "capturetables.h"
#include "keycodec.h"

extern StringInfo synchro_buffer_begin(SynchroTablePlace *place, Oid relation,
									   uint32 layout, uint8 flags, CommandId command);
extern void synchro_buffer_set_flags(uint8 flags);
extern bool synchro_buffer_needs_more(void);
extern void synchro_buffer_end(void);
extern void synchro_buffer_touch(Oid relation, uint32 layout, SynchroBytes identity);
extern bool synchro_buffer_pending(void);

/* for capturexact.c */
extern void synchro_buffer_repeat(void);
extern void synchro_buffer_close(void);
extern void synchro_buffer_forget(void);
extern int	synchro_buffer_begin_subxact(void);
extern void synchro_buffer_precommit_subxact(int from);
extern void synchro_buffer_commit_subxact(int parent);
extern void synchro_buffer_abort_subxact(int own, int parent);

#endif							/* SYNCHRO_CAPTUREBUFFER_H */
