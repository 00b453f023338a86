/*-------------------------------------------------------------------------
 *
 * batchscript.h
 *	  One batch as one script.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_BATCHSCRIPT_H
#define SYNCHRO_BATCHSCRIPT_H

#include "batch.h"

extern int64 synchro_batch_staged(const List *tables);
extern char *synchro_batch_script(SynchroBatch *batch, const char *token, bool commit, List **spools);
extern char *synchro_batch_name_script(SynchroBatch *batch, List **spools);

#endif							/* SYNCHRO_BATCHSCRIPT_H */
