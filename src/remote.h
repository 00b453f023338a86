/*-------------------------------------------------------------------------
 *
 * remote.h
 *	  The session on a remote: pinned, and scripts run in it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_REMOTE_H
#define SYNCHRO_REMOTE_H

#include "nodes/pg_list.h"

#include "compat.h"
#include "spool.h"

typedef struct SynchroRemote SynchroRemote;

/* rows of a result, as text: see synchro_value() */
typedef struct SynchroRows
{
	const char *remote;			/* whose they are, for messages */
	int			nrows;
	int			ncolumns;
	char	  **values;			/* row by row; NULL where null */
} SynchroRows;

/* what went wrong on the remote, or on the way to it */
typedef struct SynchroRemoteError
{
	char		sqlstate[6];
	char	   *message;
	char	   *detail;
	char	   *hint;
	char	   *schema;
	char	   *table;
	char	   *column;
	char	   *datatype;
	char	   *constraint;
	char	   *context;		/* where it came up, a line for each level */
	int			statement;		/* of the script, counted from 0 */
	bool		lost;			/* the connection is gone */
	bool		ours;			/* it bears synchro_remote_mark() */
	bool		here;			/* it is no error of the remote: unreadable.c */
} SynchroRemoteError;

/* what is done while the remote is at work; must not raise errors, nor use the session */
typedef void (*SynchroMeanwhile) (void *arg);

extern SynchroRemote *synchro_remote_open(const char *name, const char **keywords,
										  const char **values, bool password_required);
extern void synchro_remote_close(SynchroRemote *remote);
extern const char *synchro_remote_name(const SynchroRemote *remote);
extern void synchro_remote_set_undo(SynchroRemote *remote, const char *sql);
extern const char *synchro_remote_mark(const SynchroRemote *remote);
extern char *synchro_value(const SynchroRows *rows, int row, int column);
extern char *synchro_nullable(const SynchroRows *rows, int row, int column);
extern int64 synchro_remote_round_trip(const SynchroRemote *remote);
extern bool synchro_remote_is_far(const SynchroRemote *remote);
extern bool synchro_remote_is_near(const SynchroRemote *remote);
extern int64 synchro_remote_copied(const SynchroRemote *remote);
extern bool synchro_remote_is_standby(const SynchroRemote *remote);
extern void synchro_remote_send(SynchroRemote *remote, const char *sql, int nparams, const char *const *params);
extern SynchroRows *synchro_remote_receive(SynchroRemote *remote);
extern SynchroRows *synchro_remote_query(SynchroRemote *remote, const char *sql,
										 int nparams, const char *const *params);
extern SynchroRemoteError *synchro_remote_script(SynchroRemote *remote, const char *sql,
												 List *spools, List **results);
extern SynchroRemoteError *synchro_remote_long_script(SynchroRemote *remote, const char *sql, List *spools,
													  SynchroMeanwhile meanwhile, void *arg, List **results);
pg_noreturn extern void synchro_remote_report(const SynchroRemote *remote,
											  const SynchroRemoteError *error,
											  const char *context);

#endif							/* SYNCHRO_REMOTE_H */
