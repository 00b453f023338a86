/*-------------------------------------------------------------------------
 *
 * rowstream.h
 *	  Local rows, and the natural keys that they refer to, as COPY text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_ROWSTREAM_H
#define SYNCHRO_ROWSTREAM_H

#include "keycodec.h"
#include "link.h"

/* identities of rows, as text: one array element for each value */
typedef struct SynchroIdentities
{
	int			nidentity;
	int			count;
	int			allocated;
	char	  **values;			/* row by row; NULL where null */
} SynchroIdentities;

extern SynchroIdentities *synchro_identities_create(const SynchroTable *table);
extern void synchro_identities_add(SynchroIdentities *identities, char **values);
extern void synchro_identities_decode(SynchroIdentities *identities,
									  const SynchroTable *table, SynchroBytes bytes);
extern void synchro_identities_subtract(SynchroIdentities *identities,
										const SynchroIdentities *others);
extern char *synchro_identities_text(const SynchroIdentities *identities, int position);

extern void synchro_stream_rows(SynchroLink *link, SynchroLinkTable *lt,
								const SynchroIdentities *identities, int first, int count,
								bool ensure);
extern void synchro_stream_names(SynchroLink *link, SynchroLinkTable *lt,
								 const SynchroIdentities *identities, int first, int count);
extern void synchro_stream_old(SynchroLink *link, SynchroLinkTable *lt, char kind,
							   SynchroBytes identity, SynchroBytes value);
extern SynchroIdentities *synchro_stream_requests(SynchroLinkTable *lt);

#endif							/* SYNCHRO_ROWSTREAM_H */
