/*-------------------------------------------------------------------------
 *
 * registry.h
 *	  Which tables are watched, and by which natural keys: added, changed and
 *	  removed with all that follows from it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_REGISTRY_H
#define SYNCHRO_REGISTRY_H

#include "nodes/pg_list.h"

/* columns and skip are lists of char *; NIL key: none given */
extern void synchro_registry_add(Oid relid, List *key, List *skip, bool allow_many);
extern int	synchro_registry_add_schema(Oid schema);
extern void synchro_registry_remove(Oid relid);
extern void synchro_registry_set_key(Oid relid, List *columns, bool allow_many);
extern void synchro_registry_unset_key(Oid relid);

/* what alter_table() is to change; the rest stays */
typedef struct SynchroAlteration
{
	List	   *key;			/* NIL: stays */
	bool		set_skip;
	List	   *skip;
	bool		set_allow_many;
	bool		allow_many;
} SynchroAlteration;

extern void synchro_registry_alter(Oid relid, const SynchroAlteration *change);

extern List *synchro_registry_schema(Oid schema);
extern void synchro_registry_renew(List *tables);
extern void synchro_registry_renew_triggers(void);

#endif							/* SYNCHRO_REGISTRY_H */
