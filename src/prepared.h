/*-------------------------------------------------------------------------
 *
 * prepared.h
 *	  Statements of small batches that the remote session keeps the plans of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PREPARED_H
#define SYNCHRO_PREPARED_H

#include "link.h"

extern void synchro_prepared_begin(StringInfo sql, SynchroLink *link, int size);
extern bool synchro_prepared_execute(StringInfo sql, SynchroLink *link, const char *statement, const char *arguments);
extern void synchro_prepared_append(StringInfo sql, SynchroLink *link, const char *statements);
extern void synchro_prepared_forget(SynchroLink *link);
extern void synchro_prepared_note(SynchroLink *link, int64 nrows, bool done);

#endif							/* SYNCHRO_PREPARED_H */
