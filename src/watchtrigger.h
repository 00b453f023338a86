/*-------------------------------------------------------------------------
 *
 * watchtrigger.h
 *	  The triggers of watched tables and of tables inside a natural key: made
 *	  and dropped as registry and foreign keys ask for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_WATCHTRIGGER_H
#define SYNCHRO_WATCHTRIGGER_H

#include "nodes/pg_list.h"

extern void synchro_watchtrigger_renew(List *from, bool drop, Oid removed);
extern bool synchro_watchtrigger_renewing(void);
extern void synchro_watchtrigger_forget_in_key(void);
extern void synchro_watchtrigger_renew_partitions(Oid relid);

#endif							/* SYNCHRO_WATCHTRIGGER_H */
