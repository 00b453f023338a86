/*-------------------------------------------------------------------------
 *
 * ddlrename.h
 *	  What follows from DDL that renames or moves something.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_DDLRENAME_H
#define SYNCHRO_DDLRENAME_H

#include "nodes/parsenodes.h"

extern List *synchro_ddlrename_typed_tables(Oid type);
extern void synchro_ddlrename_begin(AlterObjectSchemaStmt *move);
extern bool synchro_ddlrename_concerns(Node *statement);
extern void synchro_ddlrename_follow(Node *statement);

#endif							/* SYNCHRO_DDLRENAME_H */
