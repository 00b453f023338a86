/*-------------------------------------------------------------------------
 *
 * ddlhook.h
 *	  Commands on whole databases, and COMMIT PREPARED, as the always-on
 *	  workers are concerned.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_DDLHOOK_H
#define SYNCHRO_DDLHOOK_H

extern void synchro_ddlhook_init(void);

#endif							/* SYNCHRO_DDLHOOK_H */
