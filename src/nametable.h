/*-------------------------------------------------------------------------
 *
 * nametable.h
 *	  Names of a table's rows, that are looked up as their types compare them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_NAMETABLE_H
#define SYNCHRO_NAMETABLE_H

#include "keycodec.h"

typedef struct SynchroNameTable SynchroNameTable;

extern SynchroNameTable *synchro_nametable_create(const SynchroTable *table, int size);
extern void **synchro_nametable_enter(SynchroNameTable *names, SynchroBytes name);
extern void *synchro_nametable_find(SynchroNameTable *names, SynchroBytes name);

#endif							/* SYNCHRO_NAMETABLE_H */
