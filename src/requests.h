/*-------------------------------------------------------------------------
 *
 * requests.h
 *	  Rows that others refer to, asked for while a batch is read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_REQUESTS_H
#define SYNCHRO_REQUESTS_H

#include "identities.h"
#include "link.h"

extern char *synchro_staged_value(const SynchroTable *table, int identity, char *value);
extern char *synchro_unstaged_text(const SynchroTable *table, char *array_text);
extern void synchro_request_name(SynchroLink *link, SynchroLinkTable *lt, char **values);
extern void synchro_request_names(SynchroLink *link, SynchroLinkTable *lt, const SynchroIdentities *identities);
extern SynchroIdentities *synchro_requests_take(SynchroLinkTable *lt);

#endif							/* SYNCHRO_REQUESTS_H */
