/*-------------------------------------------------------------------------
 *
 * claimed.h
 *	  New rows that have claimed others of the remote: what the pusher knows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CLAIMED_H
#define SYNCHRO_CLAIMED_H

#include "link.h"

extern List *synchro_claimed_take(List *claims, SynchroLink *link, const SynchroRows *rows);
extern List *synchro_claimed_keep(List *known, const List *claims);
extern bool synchro_claimed_has(const List *known, const SynchroTable *table, char **identity);

#endif							/* SYNCHRO_CLAIMED_H */
