/*-------------------------------------------------------------------------
 *
 * resolvejoin.h
 *	  SQL text of the joins by which remote rows are found: by natural key,
 *	  and by reference.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_RESOLVEJOIN_H
#define SYNCHRO_RESOLVEJOIN_H

#include "lib/stringinfo.h"
#include "link.h"

/* how the join to the remote table sees parents in the natural key */
typedef enum SynchroParentView
{
	SYNCHRO_PARENT_NOW,					/* as they are now */
	SYNCHRO_PARENT_BEFORE				/* as they were called before, if they were */
} SynchroParentView;

extern bool synchro_resolve_may_be_remembered(const SynchroLinkTable *lt);
extern bool synchro_resolve_is_pair(const SynchroLinkTable *lt);
extern int synchro_resolve_self_fk_in_key(const SynchroLinkTable *lt);
extern void synchro_resolve_join_parents_before(StringInfo sql, const SynchroLinkTable *lt, const char *source, int except);
extern char *synchro_resolve_key_value(const SynchroLinkTable *lt, int column, const char *source, SynchroParentView view);
extern char *synchro_resolve_key_null(const SynchroLinkTable *lt, int column, const char *source, SynchroParentView view);
extern void synchro_resolve_key_join(StringInfo sql, const SynchroLinkTable *lt, const char *source, SynchroParentView view, bool outer);
extern void synchro_resolve_reference_join(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, const char *source, const char *key);
extern bool synchro_resolve_is_lateral(const SynchroLinkTable *lt);
extern void synchro_resolve_insert_head(StringInfo sql, const SynchroLinkTable *lt, const char *columns);
extern void synchro_resolve_take(StringInfo sql, const SynchroLinkTable *lt, const char *from);
extern void synchro_resolve_found(StringInfo sql, const SynchroLinkTable *lt);
extern bool synchro_resolve_may_be_renamed_there(const SynchroLinkTable *lt);
extern void synchro_resolve_renamed_there(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_resolve_not_mapped(StringInfo sql, const SynchroLinkTable *lt, const char *alias, const char *kind);
extern void synchro_resolve_not_reborn(StringInfo sql, const SynchroLinkTable *lt, const char *alias);
extern void synchro_resolve_adopt_olds(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_resolve_not_ambiguous(StringInfo sql, const SynchroLinkTable *lt);

#endif							/* SYNCHRO_RESOLVEJOIN_H */
