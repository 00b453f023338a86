/*-------------------------------------------------------------------------
 *
 * restored.h
 *	  Remotes and databases that were restored or copied: which of the two is
 *	  older, and how they go on when they are to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_RESTORED_H
#define SYNCHRO_RESTORED_H

#include "checkpoint.h"
#include "link.h"

pg_noreturn extern void synchro_restored_report(const SynchroLink *link, const char *snapshot, const char *keys_snapshot,
												const char *remote_snapshot, const char *remote_keys_snapshot,
												const char *moved_at);
extern bool synchro_restored_is_new(const SynchroLink *link);
extern void synchro_restored_set_back(const SynchroLink *link, const char *previous, SynchroPosition *position);
extern void synchro_restored_inherit(const SynchroLink *link, const char *previous, const char *keys_snapshot,
									 uint64 sent_before, bool all);

#endif							/* SYNCHRO_RESTORED_H */
