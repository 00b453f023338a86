/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The worker that has pushers running wherever they are wanted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LAUNCHER_H
#define SYNCHRO_LAUNCHER_H

extern void synchro_launcher_register(void);
extern PGDLLEXPORT void synchro_launcher_main(Datum main_arg);
extern PGDLLEXPORT void synchro_look_main(Datum main_arg);

#endif							/* SYNCHRO_LAUNCHER_H */
