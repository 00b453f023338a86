/*-------------------------------------------------------------------------
 *
 * reader.h
 *	  On whose behalf users' tables are read, and as whom.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_READER_H
#define SYNCHRO_READER_H

#include "nodes/pg_list.h"

#include "tableinfo.h"

/* the user to come back to */
typedef struct SynchroReader
{
	Oid			saved_user;
	int			saved_context;
} SynchroReader;

extern void synchro_reader_require(Oid role, const SynchroTable *table, bool names_only);
extern void synchro_reader_begin(SynchroReader *reader, Oid role, const SynchroTable *table,
								 bool names_only, List *parents);
extern void synchro_reader_begin_as_owner(SynchroReader *reader, Oid relid);
extern bool synchro_reader_begin_as_common_owner(SynchroReader *reader, const SynchroTable *table,
												 const SynchroTable *parent);
extern bool synchro_reader_may_read_all(Oid relid);
extern void synchro_reader_end(const SynchroReader *reader);
extern bool synchro_reader_may_see(Oid role, Oid relid);
extern bool synchro_reader_may_see_all(Oid role);

#endif							/* SYNCHRO_READER_H */
