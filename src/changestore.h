/*-------------------------------------------------------------------------
 *
 * changestore.h
 *	  Where the distinct keys of a set of changes are kept.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CHANGESTORE_H
#define SYNCHRO_CHANGESTORE_H

#include "keycodec.h"
#include "utils/tuplestore.h"

/* a key, or a name of before, of a table */
typedef struct SynchroChangedKey
{
	SynchroBytes identity;
	char		kind;			/* of a name: 'o', 'd' or 'g' */
	SynchroBytes name;			/* a natural key, or a former identity in mode
								 * reference; data may be NULL */
	SynchroStamp named;			/* since when nothing is called so; of kind o,
								 * when the row lost the name */
	SynchroStamp changed;		/* when the row was changed */
	TimestampTz born;			/* when the row was inserted, if the remote
								 * does not know it; else 0, or the following */
	SynchroBytes logged_at;		/* of a name of before, if only a partition that
								 * was detached can have taken the row along:
								 * its present identity; data may be NULL */
} SynchroChangedKey;

/*
 * Of a row that is copied: whether the remote knows it nobody can tell.  It is
 * as if it had always been there, so what names it does not follow it.
 */
#define SYNCHRO_BORN_LONG_AGO	1

/* those of one table */
typedef struct SynchroChangedTable
{
	Oid			relid;
	const SynchroTable *table;
	int64		nkeys;
	Tuplestorestate *keys;		/* identities, sorted */
	int64		nolds;
	Tuplestorestate *olds;		/* kind, identity, value */
	struct ChangeSort *sort;	/* while collecting */
} SynchroChangedTable;

extern Tuplestorestate *synchro_changestore_create(void);
extern void synchro_changestore_end(Tuplestorestate *store);
extern bool synchro_changestore_end_all(void);
extern void synchro_changestore_put(Tuplestorestate *store, const SynchroChangedKey *key);
extern bool synchro_changestore_next(Tuplestorestate *store, SynchroChangedKey *key);
extern Datum synchro_bytes_datum(SynchroBytes bytes);
extern SynchroBytes synchro_datum_bytes(Datum datum);

#endif							/* SYNCHRO_CHANGESTORE_H */
