/*-------------------------------------------------------------------------
 *
 * fksql.h
 *	  SQL text that compares foreign keys with what they reference, here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_FKSQL_H
#define SYNCHRO_FKSQL_H

#include "lib/stringinfo.h"
#include "tableinfo.h"

extern bool synchro_sql_fk_is_direct(const SynchroTable *table, const SynchroForeignKey *key, const SynchroTable *parent);
extern char *synchro_sql_fk_collate(const SynchroTable *table, const SynchroForeignKey *key, int i);
extern void synchro_sql_fk_equal(StringInfo sql, const SynchroTable *table, const SynchroForeignKey *key,
								 const char *parent, const char *child);

#endif							/* SYNCHRO_FKSQL_H */
