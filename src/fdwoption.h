/*-------------------------------------------------------------------------
 *
 * fdwoption.h
 *	  Which libpq options servers and user mappings of remotes may have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_FDWOPTION_H
#define SYNCHRO_FDWOPTION_H

extern bool synchro_fdwoption_is_usable(const char *name);
extern bool synchro_fdwoption_needs_superuser(const char *name, const char *value);

#endif							/* SYNCHRO_FDWOPTION_H */
