/*-------------------------------------------------------------------------
 *
 * rowstream.h
 *	  Local rows, and the natural keys that they refer to, as COPY text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_ROWSTREAM_H
#define SYNCHRO_ROWSTREAM_H

#include "changeset.h"
#include "identities.h"
#include "link.h"

extern int	synchro_stream_piece(const SynchroLinkTable *lt, const SynchroIdentities *identities,
								 int first);
extern void synchro_stream_rows(SynchroLink *link, SynchroLinkTable *lt,
								const SynchroIdentities *identities, int first, int count,
								bool ensure);
extern void synchro_stream_all_names(SynchroLink *link, SynchroLinkTable *lt);
extern void synchro_stream_straight(SynchroLink *link, SynchroLinkTable *lt,
									const SynchroIdentities *identities, int first, int count, bool with_keys);
extern void synchro_stream_names(SynchroLink *link, SynchroLinkTable *lt,
								 const SynchroIdentities *identities, int first, int count);
extern void synchro_stream_names_of(SynchroLink *link, SynchroLinkTable *lt, const SynchroIdentities *identities);
extern void synchro_stream_reads(Oid relid);
extern Oid	synchro_stream_being_read(void);

/* for namestream.c */
extern SynchroSpool *synchro_stream_spool(SynchroLink *link);
extern SynchroSpool *synchro_stream_names_spool(SynchroLink *link, SynchroLinkTable *lt);
extern List *synchro_stream_joined(const SynchroLinkTable *lt, bool key_only);

/* in namestream.c */
extern int	synchro_stream_key_position(const SynchroTable *table, int fk, AttrNumber refcol);
extern void synchro_stream_changes(SynchroLink *link, SynchroLinkTable *lt,
								   const SynchroIdentities *identities,
								   const SynchroSources *sources);
extern void synchro_stream_old(SynchroLink *link, SynchroLinkTable *lt,
							   const SynchroChangedKey *old, const SynchroSources *sources);

#endif							/* SYNCHRO_ROWSTREAM_H */
