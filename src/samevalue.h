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

/* what is wrong with a natural key that has several */
#define SYNCHRO_SEVERAL_TREES			"the natural key of table %s refers to other rows of it by several foreign keys"
#define SYNCHRO_SEVERAL_TREES_DETAIL	"Rows are found from the roots of one tree downwards."
#define SYNCHRO_SEVERAL_TREES_HINT		"Leave all but one of these foreign keys out of the natural key."

extern int	synchro_trees_in_key(const SynchroTable *table);
extern bool *synchro_same_references(const SynchroTable *table);

#endif							/* SYNCHRO_SAMEVALUE_H */
