/*-------------------------------------------------------------------------
 *
 * contentvalue.h
 *	  SQL text for a column's value, the same on every server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CONTENTVALUE_H
#define SYNCHRO_CONTENTVALUE_H

#include "link.h"

/* there: the SQL is for the remote */
extern char *synchro_content_plain(const SynchroLinkTable *lt, bool there, int column, const char *alias);
extern char *synchro_content_value(const SynchroLinkTable *lt, bool there, int column, const char *alias);
extern const char *synchro_content_other_type(const SynchroLinkTable *lt, int column);
extern char *synchro_content_equality(const SynchroLinkTable *lt, bool there, int column);
extern bool synchro_content_counts(const SynchroLinkTable *lt, int column);

#endif							/* SYNCHRO_CONTENTVALUE_H */
