/*-------------------------------------------------------------------------
 *
 * sequence.h
 *	  Our sequences, each of which keeps one number for all transactions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SEQUENCE_H
#define SYNCHRO_SEQUENCE_H

extern Oid	synchro_own_relation(const char *name, bool missing_ok);
extern int64 synchro_sequence_read(const char *name);
extern void synchro_sequence_set(const char *name, int64 value);
extern void synchro_sequence_raise(const char *name, int64 value);

#endif							/* SYNCHRO_SEQUENCE_H */
