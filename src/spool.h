/*-------------------------------------------------------------------------
 *
 * spool.h
 *	  Bytes on their way to the remote: in memory, and in a temporary file
 *	  beyond that.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SPOOL_H
#define SYNCHRO_SPOOL_H

typedef struct SynchroSpool SynchroSpool;

extern SynchroSpool *synchro_spool_create(void);
extern void synchro_spool_append(SynchroSpool *spool, const char *data, int len);
extern int64 synchro_spool_size(const SynchroSpool *spool);
extern void synchro_spool_rewind(SynchroSpool *spool);
extern int	synchro_spool_read(SynchroSpool *spool, const char **data);
extern void synchro_spool_free(SynchroSpool *spool);

#endif							/* SYNCHRO_SPOOL_H */
