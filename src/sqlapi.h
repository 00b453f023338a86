/*-------------------------------------------------------------------------
 *
 * sqlapi.h
 *	  What SQL-callable functions about tables share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SQLAPI_H
#define SYNCHRO_SQLAPI_H

extern void synchro_require_relation_owner(Oid relid);

#endif							/* SYNCHRO_SQLAPI_H */
