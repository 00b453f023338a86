/*-------------------------------------------------------------------------
 *
 * logindex.h
 *	  Which blocks of the log its indexes cover.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LOGINDEX_H
#define SYNCHRO_LOGINDEX_H

extern void synchro_logindex_cover(void);
extern void synchro_logindex_begin(int segment);

#endif							/* SYNCHRO_LOGINDEX_H */
