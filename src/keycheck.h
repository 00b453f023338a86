/*-------------------------------------------------------------------------
 *
 * keycheck.h
 *	  What may be registered: errors and notices about tables, natural keys
 *	  and skipped columns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_KEYCHECK_H
#define SYNCHRO_KEYCHECK_H

#include "nodes/pg_list.h"
#include "tableinfo.h"

/* what a relation is to become; says what the error is about */
typedef enum SynchroUse
{
	SYNCHRO_USE_WATCHED,
	SYNCHRO_USE_NATURAL_KEY
} SynchroUse;

extern bool synchro_keycheck_is_reserved(Oid schema);
extern char *synchro_keycheck_schema(Oid schema);
extern void synchro_keycheck_relation(Oid relid, SynchroUse use);
extern void synchro_keycheck_columns(const SynchroTable *table, List *key, List *skip);
extern const char *synchro_keycheck_generated(const SynchroTable *table);
extern void synchro_keycheck_primary_key(const SynchroTable *table);
extern void synchro_keycheck_circle(Oid relid);
extern void synchro_keycheck_notices(const SynchroTable *table, List *key, bool allow_many);
extern void synchro_keycheck_rows(const SynchroTable *table);
extern void synchro_keycheck_no_usable_key(const SynchroTable *table);

#endif							/* SYNCHRO_KEYCHECK_H */
