/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  Configuration parameters; read-only outside settings.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SETTINGS_H
#define SYNCHRO_SETTINGS_H

extern bool synchro_atomic_pass;
extern int	synchro_batch_size;			/* rows */
extern int	synchro_buffer_size;		/* kB */
extern int	synchro_conflicts_kept;
extern int	synchro_connect_timeout;	/* s */
extern bool synchro_log_changes;
extern int	synchro_log_retention;		/* s */
extern int	synchro_max_clock_uncertainty;	/* ms */
extern int	synchro_retry_max_interval; /* s */
extern int	synchro_statement_timeout;	/* ms */
extern int	synchro_verify_wait;		/* s */

extern void synchro_settings_init(void);

#endif							/* SYNCHRO_SETTINGS_H */
