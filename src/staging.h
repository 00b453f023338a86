/*-------------------------------------------------------------------------
 *
 * staging.h
 *	  Gets the remote ready for rows of the tables that a link describes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_STAGING_H
#define SYNCHRO_STAGING_H

#include "link.h"

extern void synchro_staging_choose(SynchroLink *link, SynchroLinkTable *lt);
extern void synchro_staging_prepare(SynchroLink *link);

#endif							/* SYNCHRO_STAGING_H */
