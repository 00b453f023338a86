/*-------------------------------------------------------------------------
 *
 * known.h
 *	  Which tables what a remote keeps for us is about: stored references and
 *	  deletes that wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_KNOWN_H
#define SYNCHRO_KNOWN_H

#include "link.h"

/* noted instead of a primary key where references are of more than one */
#define SYNCHRO_MIXED_KEY ""

extern void synchro_known_load(SynchroLink *link);
extern void synchro_known_meet(SynchroLink *link, const SynchroLinkTable *lt);
extern char *synchro_known_key(const SynchroTable *table);
extern char *synchro_known_key_there(const SynchroLinkTable *lt);
extern void synchro_known_sql_emptied(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt);
extern const char *synchro_known_name(const SynchroLink *link, const char *relation);

#endif							/* SYNCHRO_KNOWN_H */
