/*-------------------------------------------------------------------------
 *
 * readsql.h
 *	  SQL text that reads local rows, and the natural keys of rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_READSQL_H
#define SYNCHRO_READSQL_H

#include "lib/stringinfo.h"
#include "link.h"

extern char *synchro_sql_staged(const SynchroTable *table, int identity, const char *value);
extern bool synchro_sql_is_direct(const SynchroLinkTable *lt, int fk);
extern bool synchro_sql_joins(const SynchroLinkTable *lt, int fk, bool key_only);
extern void synchro_sql_parent_identity(StringInfo sql, const SynchroLinkTable *lt, int fk);
extern void synchro_sql_from_all(StringInfo sql, const SynchroLinkTable *lt, bool key_only);
extern void synchro_sql_from_range(StringInfo sql, const SynchroLinkTable *lt, bool key_only);
extern void synchro_sql_from(StringInfo sql, const SynchroLinkTable *lt, bool key_only);
extern bool synchro_sql_identities(StringInfo sql, const SynchroTable *table, bool after, bool until);
extern bool synchro_sql_last_identity(StringInfo sql, const SynchroTable *table);
extern void synchro_sql_count(StringInfo sql, const SynchroTable *table);

#endif							/* SYNCHRO_READSQL_H */
