/*-------------------------------------------------------------------------
 *
 * samevalue.h
 *	  Which columns have the same value on both sides.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SAMEVALUE_H
#define SYNCHRO_SAMEVALUE_H

#include "tableinfo.h"

extern bool *synchro_same_references(const SynchroTable *table);

#endif							/* SYNCHRO_SAMEVALUE_H */
