/*-------------------------------------------------------------------------
 *
 * checkpoint.h
 *	  How far a remote has been brought: position here and on the remote.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CHECKPOINT_H
#define SYNCHRO_CHECKPOINT_H

#include "lib/stringinfo.h"
#include "datatype/timestamp.h"
#include "copyqueue.h"
#include "link.h"
#include "sharedstate.h"

typedef struct SynchroPosition
{
	char	   *node;			/* as which it is ours: this node's id */
	char	   *acknowledged;	/* token of the last batch known to be there;
								 * NULL: it is to be given a position first */
	char	   *attempted;		/* token of the last batch that was sent, or a
								 * random one: moved by hand since */
	char	   *snapshot;		/* pushed up to here, as pg_snapshot's text */
	char	   *keys_snapshot;	/* names on the remote are as of here */
	bool		rebased;		/* moved here since the last pass ended */
	bool		forget_references;
	bool		forget_deletes; /* those that wait on the remote */
} SynchroPosition;

/* what has failed before and is done with a batch, see parked.c and stalled.c */
typedef struct SynchroSettled
{
	List	   *parked;			/* of SynchroParked */
	List	   *stalled;		/* of SynchroStalled */
	bool		all;			/* of stalled, not only the names of before */
} SynchroSettled;

extern void synchro_active_node(MemoryContext context, char **previous);
extern SynchroPosition *synchro_position_read(const char *server, bool missing_ok);
extern char *synchro_position_token(void);
extern bool synchro_position_same(const char *a, const char *b);
extern void synchro_position_attempt(const char *server, const char *previous, const char *token,
									 const char *keys_snapshot, const SynchroSettled *settled);
extern void synchro_position_acknowledge(const char *server, const char *token,
										 const char *snapshot, const char *keys_snapshot,
										 TimestampTz checkpoint, const SynchroCounts *counts,
										 const SynchroCopyStep *step, List *finished, List *left_out,
										 const SynchroSettled *settled);
extern void synchro_position_correct(const char *server, const SynchroPosition *position);
extern void synchro_position_settle(const char *server, const char *token);
extern void synchro_position_rebase(const char *server, bool forget_references,
									bool forget_names, bool forget_refused);
extern void synchro_position_skip(const char *server, const SynchroPosition *position,
								  const char *snapshot, TimestampTz checkpoint);
extern char *synchro_position_of_peer(const pg_uuid_t *node, char **named);
extern void synchro_peer_open(SynchroLink *link, SynchroPosition *position);
/*
 * SQL: roles who own something of schema synchro_peer in the current database,
 * though they own neither that nor the server nor are the current one.  Code of
 * theirs, in triggers and indexes, would run as whoever pushes.
 */
#define SYNCHRO_PEER_STRANGERS \
	"SELECT r.rolname FROM pg_roles r WHERE NOT r.rolsuper AND r.rolname <> current_user" \
	" AND r.oid <> (SELECT d.datdba FROM pg_database d WHERE d.datname = current_database())" \
	" AND r.oid IN (SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = '" SYNCHRO_PEER_SCHEMA "'" \
	"  UNION ALL SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '" SYNCHRO_PEER_SCHEMA "')"

extern void synchro_peer_tables(StringInfo sql, bool again);
extern void synchro_peer_find_leftovers(SynchroLink *link);
/* a division by zero among so many first statements of a script is the fence's; likewise ln(0), see synchro_sql_same_node() */
#define SYNCHRO_FENCE_STATEMENTS	6

/* which of them that one is */
#define SYNCHRO_NODE_STATEMENT		2

extern void synchro_sql_fence(StringInfo sql, const SynchroLink *link, SynchroLink *prepare,
							  const SynchroPosition *position, const char *token,
							  const char *snapshot, const char *keys_snapshot);

#endif							/* SYNCHRO_CHECKPOINT_H */
