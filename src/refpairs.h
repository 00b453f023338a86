/*-------------------------------------------------------------------------
 *
 * refpairs.h
 *	  Stored references that the remote itself, and others, have left here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_REFPAIRS_H
#define SYNCHRO_REFPAIRS_H

#include "identities.h"
#include "link.h"

extern Oid	synchro_refpairs_table(Oid *owner);
extern void synchro_refpairs_read(SynchroLink *link, SynchroLinkTable *lt,
								  const SynchroIdentities *identities, int first, int count);
extern void synchro_sql_refpairs(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, uint64 made);
extern void synchro_sql_refpairs_of_others(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt);

#endif							/* SYNCHRO_REFPAIRS_H */
