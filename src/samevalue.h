/*-------------------------------------------------------------------------
 *
 * samevalue.h
 *	  Which columns have the same value on both sides.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SAMEVALUE_H
#define SYNCHRO_SAMEVALUE_H

#include "compat.h"
#include "tableinfo.h"

extern int	synchro_trees_in_key(const SynchroTable *table, const bool *same);
pg_noreturn extern void synchro_report_trees(const SynchroTable *table);
extern bool *synchro_same_references(const SynchroTable *table);

#endif							/* SYNCHRO_SAMEVALUE_H */
