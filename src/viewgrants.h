/*-------------------------------------------------------------------------
 *
 * viewgrants.h
 *	  Whoever may read a view of ours may call the functions that it reads.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_VIEWGRANTS_H
#define SYNCHRO_VIEWGRANTS_H

#include "nodes/parsenodes.h"

extern bool synchro_viewgrants_concern(const GrantStmt *grant);
extern void synchro_viewgrants_begin(const GrantStmt *revoke);
extern void synchro_viewgrants_follow(const GrantStmt *grant);

#endif							/* SYNCHRO_VIEWGRANTS_H */
