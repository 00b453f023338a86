/*-------------------------------------------------------------------------
 *
 * resolvetree.h
 *	  SQL text that finds the remote rows of a tree.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_RESOLVETREE_H
#define SYNCHRO_RESOLVETREE_H

#include "lib/stringinfo.h"
#include "link.h"

extern void synchro_resolve_tree(StringInfo sql, const SynchroLinkTable *lt, int self);
extern List *synchro_resolve_tree_below(const SynchroLinkTable *lt);
extern void synchro_resolve_tree_names(StringInfo sql, const SynchroLinkTable *lt);

#endif							/* SYNCHRO_RESOLVETREE_H */
