/*-------------------------------------------------------------------------
 *
 * remoteconnect.h
 *	  Connecting to a remote: libpq's options, and connections made in time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_REMOTECONNECT_H
#define SYNCHRO_REMOTECONNECT_H

extern bool synchro_connect_has_option(const char *keyword, bool *is_secret);

/* for remote.c; libpq's PGconn, whose header is not for others */
struct pg_conn;

extern void synchro_connect_merge(const char **keywords, const char **values,
								  const char ***all_keywords, const char ***all_values);
extern long synchro_connect_time(const char **keywords, const char **values);
extern void synchro_connect(struct pg_conn **conn, const char *name, const char **keywords,
							const char **values, bool password_required);
extern bool synchro_connect_answers(struct pg_conn *session, const char **keywords, const char **values);
extern int	synchro_connect_wait(struct pg_conn *conn, int events, long timeout,
								 uint32 wait_event);

#endif							/* SYNCHRO_REMOTECONNECT_H */
