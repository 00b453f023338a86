/*-------------------------------------------------------------------------
 *
 * keycodec.h
 *	  Keys as bytes: how the log stores which rows changed.
 *
 * A chunk is a sequence of records:
 *
 *	  flags		1 byte: operation, and which of the parts below follow
 *	  identity	the row's identity
 *	  old key	(has_old) natural-key columns as they were before the change
 *	  from		(moved) the identity that the row had before the change.  together:
 *				by the same command as the table's last moved record before
 *	  stamp		(stamped) when and where the change was first made, if that was
 *				not this transaction: 8 bytes, and the source's number as a
 *				variable length integer
 *
 * Each part is a sequence of values, each a length plus one as a variable
 * length integer (0: NULL) and that many bytes.  Identities are compared as
 * bytes; what splits a record sees to it that integers in them are as wide as
 * the table's columns are now.
 *
 * Whatever of this a table keeps is sealed: a checksum follows it, of the
 * bytes and of the table and layout without which they mean something else.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_KEYCODEC_H
#define SYNCHRO_KEYCODEC_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/hsearch.h"
#include "compat.h"
#include "tableinfo.h"

#define SYNCHRO_KEY_OP_MASK		0x03
#define SYNCHRO_KEY_HAS_OLD		0x04
#define SYNCHRO_KEY_MOVED		0x08
#define SYNCHRO_KEY_STAMPED		0x10
#define SYNCHRO_KEY_DERIVED		0x20	/* whoever sent the change does not know
										 * that the old key is gone */
#define SYNCHRO_KEY_REFUSED		0x40	/* no change: what another node calls the
										 * row, whose change of its name has lost
										 * here, in the place of the old key */
#define SYNCHRO_KEY_TOGETHER	0x80	/* see changemoves.c; older logs have none */

/* a run of encoded values; not terminated, not owned */
typedef struct SynchroBytes
{
	const char *data;
	int			len;
} SynchroBytes;

/* when a change was first made, in the group's time, and where */
typedef struct SynchroStamp
{
	TimestampTz at;				/* 0: none */
	int32		source;			/* see source.h; 0: here */
} SynchroStamp;

/* its parts are good as long as the bytes are, and until the next one is split */
typedef struct SynchroKeyRecord
{
	SynchroOp	op;
	bool		has_old;
	bool		moved;
	bool		derived;
	bool		refused;
	bool		together;
	SynchroBytes identity;
	SynchroBytes old_key;
	SynchroBytes from;
	SynchroStamp stamp;
} SynchroKeyRecord;

/*
 * Does a record say that a row, which lives on, has lost a name?
 */
static inline bool
synchro_key_renames(const char *record)
{
	return (*record & (SYNCHRO_KEY_HAS_OLD | SYNCHRO_KEY_REFUSED)) == SYNCHRO_KEY_HAS_OLD &&
		(*record & SYNCHRO_KEY_OP_MASK) != SYNCHRO_OP_DELETE;
}

static inline bool
synchro_bytes_equal(SynchroBytes a, SynchroBytes b)
{
	return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

extern SynchroBytes synchro_key_copy(SynchroBytes bytes);
extern void synchro_key_put(StringInfo buf, Datum value, bool isnull,
							int16 typlen, bool typbyval);
extern void synchro_key_put_values(StringInfo buf, const SynchroTable *table, const int *columns, int ncolumns,
								   const Datum *values, const bool *nulls);
extern void synchro_key_put_stamp(StringInfo buf, SynchroStamp stamp);
pg_noreturn extern void synchro_key_damaged(void);
extern const char *synchro_key_next(const char *pos, const char *end,
									const SynchroTable *table, uint32 layout,
									SynchroKeyRecord *record);
extern bool synchro_key_fits(SynchroBytes bytes, const SynchroTable *table, const int *columns, int ncolumns);
extern void synchro_key_seal(StringInfo buf, int start, Oid relation, uint32 layout);
extern Datum synchro_key_sealed(SynchroBytes bytes, Oid relation, uint32 layout);
extern SynchroBytes synchro_key_unseal(SynchroBytes bytes, Oid relation, uint32 layout);
extern void synchro_key_values(SynchroBytes bytes, const SynchroTable *table,
							   const int *columns, int ncolumns,
							   Datum *values, bool *nulls);
extern HTAB *synchro_bytes_table(const char *name, Size entrysize, long size);
extern int64 synchro_key_order(SynchroBytes bytes, const SynchroTable *table);
extern char *synchro_key_text(SynchroBytes bytes, const SynchroTable *table,
							  const int *columns, int ncolumns);

#endif							/* SYNCHRO_KEYCODEC_H */
