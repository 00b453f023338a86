/*-------------------------------------------------------------------------
 *
 * target.h
 *	  The remotes: foreign servers that changes are pushed to, and how to
 *	  connect to them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_TARGET_H
#define SYNCHRO_TARGET_H

#include "nodes/pg_list.h"

typedef struct SynchroTarget
{
	char	   *name;			/* of the foreign server */
	Oid			server;
	Oid			owner;			/* of the server: whom the remote runs as */
	bool		paused;
} SynchroTarget;

extern void synchro_target_add(const char *name);
extern void synchro_target_remove(const char *name);
extern void synchro_target_pause(const char *name, bool paused);
extern SynchroTarget *synchro_target_get(const char *name, bool missing_ok);
extern List *synchro_target_list(void);

/* what the event triggers need */
extern void synchro_target_adopt(const char *name);
extern void synchro_target_adopt_all(void);
extern bool synchro_target_is_registered(const char *name);
extern void synchro_target_renamed(const char *old_name, const char *new_name);
extern bool synchro_target_has_dangling(void);
extern void synchro_target_forget_dangling(void);

/*
 * libpq keywords and values of a remote, both NULL-terminated, in the current
 * memory context.  Contains the password: never to be logged.
 */
extern void synchro_target_conninfo(const SynchroTarget *target,
									const char ***keywords, const char ***values,
									bool *password_required);

#endif							/* SYNCHRO_TARGET_H */
