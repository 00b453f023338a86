/*-------------------------------------------------------------------------
 *
 * keyarray.h
 *	  Identities of rows as parameters of SQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_KEYARRAY_H
#define SYNCHRO_KEYARRAY_H

#include "lib/stringinfo.h"
#include "tableinfo.h"

extern bool synchro_keyarray_of_rows(const SynchroTable *table);
extern int	synchro_keyarray_params(const SynchroTable *table, Datum *const *values, bool *const *nulls, int count,
									Oid *types, Datum *params);
extern void synchro_keyarray_from(StringInfo sql, const SynchroTable *table);
extern char *synchro_keyarray_value(const SynchroTable *table, int identity);

#endif							/* SYNCHRO_KEYARRAY_H */
