/*-------------------------------------------------------------------------
 *
 * keyarray.h
 *	  Identities of rows as parameters of SQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_KEYARRAY_H
#define SYNCHRO_KEYARRAY_H

#include "keycodec.h"

extern bool synchro_keyarray_of_rows(const SynchroTable *table);
extern int	synchro_keyarray_params(const SynchroTable *table, Datum *const *values, bool *const *nulls, int count,
									Oid *types, Datum *params);
extern int	synchro_keyarray_of_bytes(const SynchroTable *table, const SynchroBytes *identities, int count,
									  Oid *types, Datum *params, bool *any_null);
extern void synchro_keyarray_from(StringInfo sql, const SynchroTable *table);
extern void synchro_keyarray_join(StringInfo sql, const SynchroTable *table, const bool *may_be_null);
extern char *synchro_keyarray_value(const SynchroTable *table, int identity);

#endif							/* SYNCHRO_KEYARRAY_H */
