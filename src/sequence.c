/*-------------------------------------------------------------------------
 *
 * sequence.c
 *	  Our sequences, each of which keeps one number for all transactions.
 *
 * They are read and written in users' transactions, on the way to COMMIT: so
 * without SQL, and without regard to snapshots or to the user's rights.  What
 * is written counts at once for everybody, and stays if the transaction is
 * rolled back.  It is on disk when the transaction is, since WAL is flushed in
 * order.  setval() leaves the user's lastval() alone, as nextval() does not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "sequence.h"
#include "synchro.h"

/*
 * Oid of a table, index or sequence of ours.
 *
 * missing_ok: InvalidOid where there is none, instead of an error: there may be
 * no extension, or its catalog may be of an older version.
 */
Oid
synchro_own_relation(const char *name, bool missing_ok)
{
	Oid			schema = get_namespace_oid(SYNCHRO_SCHEMA, missing_ok);
	Oid			oid = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;

	if (!OidIsValid(oid) && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", SYNCHRO_SCHEMA, name),
				 errhint("Drop and create the extension \"%s\" anew.", SYNCHRO_EXTENSION)));
	return oid;
}

static int64
read_page(Relation rel)
{
	Buffer		buf = ReadBuffer(rel, 0);
	Page		page;
	ItemId		item;
	HeapTupleData tuple;
	int64		value;

	LockBuffer(buf, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buf);
	item = PageGetItemId(page, FirstOffsetNumber);
	tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
	value = ((Form_pg_sequence_data) GETSTRUCT(&tuple))->last_value;
	UnlockReleaseBuffer(buf);
	return value;
}

/*
 * A sequence's last_value, straight from its page.
 */
int64
synchro_sequence_read(const char *name)
{
	Relation	rel = sequence_open(synchro_own_relation(name, false), AccessShareLock);
	int64		value = read_page(rel);

	sequence_close(rel, AccessShareLock);
	return value;
}

/*
 * setval() as the sequence's owner.
 */
static void
set_value(Relation rel, int64 value)
{
	bool		read_only = XactReadOnly;
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(rel->rd_rel->relowner, context | SECURITY_LOCAL_USERID_CHANGE);

	/* a transaction may be declared read-only after it has written */
	XactReadOnly = false;
	(void) DirectFunctionCall2(setval_oid, ObjectIdGetDatum(RelationGetRelid(rel)),
							   Int64GetDatum(value));
	XactReadOnly = read_only;
	SetUserIdAndSecContext(user, context);
}

/*
 * Set a sequence.
 */
void
synchro_sequence_set(const char *name, int64 value)
{
	Relation	rel = sequence_open(synchro_own_relation(name, false), ShareUpdateExclusiveLock);

	set_value(rel, value);
	sequence_close(rel, ShareUpdateExclusiveLock);
}

/*
 * Set a sequence if that makes it greater.
 *
 * The lock keeps out only others who do the same, so that nobody lowers what
 * another has just raised.  It is held for some microseconds, not to the
 * transaction's end, and nothing is waited for meanwhile.
 */
void
synchro_sequence_raise(const char *name, int64 value)
{
	Relation	rel;

	if (synchro_sequence_read(name) >= value)
		return;
	rel = sequence_open(synchro_own_relation(name, false), ShareUpdateExclusiveLock);
	if (read_page(rel) < value)
		set_value(rel, value);
	sequence_close(rel, ShareUpdateExclusiveLock);
}
