/*-------------------------------------------------------------------------
 *
 * keyhistory.h
 *	  What the entries of the log say of a key, one after the other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_KEYHISTORY_H
#define SYNCHRO_KEYHISTORY_H

#include "changestore.h"
#include "historysort.h"
#include "logstamp.h"

#define HISTORY_REFUSED 0x200		/* see SYNCHRO_KEY_REFUSED; no change */
#define HISTORY_MOVED	0x100		/* came from another identity */
#define HISTORY_NAMED	0x80		/* from before the keys snapshot: its names
								 * have reached the remote */
#define HISTORY_AGAIN	0x40		/* from the backlog, so to be sent again */
#define HISTORY_DERIVED 0x20		/* see SYNCHRO_KEY_DERIVED */
#define HISTORY_PARKED	0x10		/* see parked.c */
#define HISTORY_DUE	0x08
#define HISTORY_COPIED	0x04		/* a table is copied, so a key; tells no more */
#define HISTORY_OP_MASK 0x03

struct ChangeSort
{
	SynchroHistorySort *sort;
	List	   *moves;			/* see synchro_moves_add() */
};

/* what is needed to read them */
typedef struct SynchroHistories
{
	const pg_uuid_t *peer;		/* the remote's id, if it is a node, too */
	SynchroStamps *stamps;
} SynchroHistories;

extern bool synchro_history_known_to_peer(const SynchroHistories *histories, SynchroStamp stamp);
extern void synchro_history_finish(const SynchroHistories *histories, SynchroChangedTable *changed,
								   bool with_keys);

#endif							/* SYNCHRO_KEYHISTORY_H */
