/*-------------------------------------------------------------------------
 *
 * successors.h
 *	  Rows that have been made anew: which bears the name of one that is gone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SUCCESSORS_H
#define SYNCHRO_SUCCESSORS_H

#include "keycodec.h"

typedef struct SynchroSuccessors SynchroSuccessors;

extern List *synchro_successors_parents(const SynchroTable *table);
extern bool synchro_successors_deletes(const SynchroLogRow *row, const SynchroTable *table);
extern SynchroSuccessors *synchro_successors_find(const SynchroTable *table, const SynchroBytes *names, int count,
												  TimestampTz since);
extern bool synchro_successors_translate(const SynchroSuccessors *successors, const SynchroLogRow *row, SynchroBytes *name);

#endif							/* SYNCHRO_SUCCESSORS_H */
