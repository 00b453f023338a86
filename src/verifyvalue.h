/*-------------------------------------------------------------------------
 *
 * verifyvalue.h
 *	  Are two values that look different equal?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_VERIFYVALUE_H
#define SYNCHRO_VERIFYVALUE_H

extern bool synchro_values_equal(Oid type, const char *other, const char *a, const char *b, Oid relid);

#endif							/* SYNCHRO_VERIFYVALUE_H */
