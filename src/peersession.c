/*-------------------------------------------------------------------------
 *
 * peersession.c
 *	  What the functions for other nodes that push to this one have in common:
 *	  what peer_begin() said, for its transaction, and what is queued for the
 *	  node.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rls.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "identities.h"
#include "localsql.h"
#include "peersession.h"
#include "reader.h"
#include "sharedstate.h"
#include "source.h"

static SynchroPeerSession session;

/*
 * Where peer_begin() keeps what it is told.
 */
SynchroPeerSession *
synchro_peersession_begin(void)
{
	return &session;
}

/*
 * The session of the present transaction, or an error.
 */
SynchroPeerSession *
synchro_peersession(void)
{
	if (session.txid == 0 || session.txid != U64FromFullTransactionId(GetTopFullTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no other node is pushing in this transaction"),
				 errhint("This function is called by the workers of synchro.")));
	return &session;
}

/*
 * The watched table of that name, or NULL; an error if the caller may not read it,
 * since what the log says of its rows has keys and names in it.
 */
const SynchroTable *
synchro_peersession_table(Datum name)
{
	Oid			relid = synchro_table_by_name(TextDatumGetCString(name));
	const SynchroTable *table = OidIsValid(relid) ? synchro_table_get(relid, true) : NULL;

	if (table == NULL || !table->watched || table->mode == SYNCHRO_MODE_NONE)
		return NULL;

	/* PostgreSQL's own error, where the session has switched row_security off as our workers do */
	(void) check_enable_rls(relid, InvalidOid, false);
	if (!synchro_reader_may_see(GetUserId(), relid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", table->qualified),
				 errhint("Who pushes to this node has to be able to read all rows of the table.")));
	return synchro_table_copy(table, CurrentMemoryContext);
}

/*
 * The elements of an array of text; returns how many.
 */
int
synchro_text_elements(Datum array, Datum **elements)
{
	int			count;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, elements, NULL, &count);
	return count;
}

/*
 * An argument of type text, or NULL.
 */
char *
synchro_text_or_null(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : TextDatumGetCString(PG_GETARG_DATUM(n));
}

/*
 * The stamp of a change that was made then and there, for a record of the log.
 */
static SynchroStamp
stamp_of(const SynchroPeerSession *peer, TimestampTz at, const pg_uuid_t *origin)
{
	SynchroStamp stamp = {at};

	if (!synchro_uuid_equal(origin, &peer->own))
		stamp.source = synchro_source_number(origin, origin);
	return stamp;
}

/*
 * Queue a row for the node that is pushing.
 *
 * name: tell that nothing is called so any more; NULL: only send the row.
 */
void
synchro_peersession_queue(const SynchroPeerSession *peer, const SynchroTable *table, const char *identity,
						  const char *name, TimestampTz at, const pg_uuid_t *origin)
{
	SynchroSqlScope scope;
	StringInfoData record;
	SynchroBytes bytes = synchro_identities_encode_text(table, table->identity, table->nidentity, identity);
	Oid			types[] = {UUIDOID, OIDOID, INT4OID, TIMESTAMPTZOID, BYTEAOID};
	Datum		values[lengthof(types)];

	initStringInfo(&record);
	appendStringInfoChar(&record, (char) (SYNCHRO_KEY_STAMPED | (name != NULL ? SYNCHRO_OP_DELETE | SYNCHRO_KEY_HAS_OLD : SYNCHRO_OP_UPDATE)));
	appendBinaryStringInfo(&record, bytes.data, bytes.len);
	if (name != NULL)
	{
		bytes = synchro_identities_encode_text(table, table->key, table->nkey, name);
		appendBinaryStringInfo(&record, bytes.data, bytes.len);
	}
	synchro_key_put_stamp(&record, stamp_of(peer, at, origin));
	synchro_key_seal(&record, 0, table->relid, table->layout);
	values[0] = UUIDPGetDatum(&peer->node);
	values[1] = ObjectIdGetDatum(table->relid);
	values[2] = Int32GetDatum((int32) table->layout);
	values[3] = TimestampTzGetDatum(synchro_clock_now());
	values[4] = PointerGetDatum(cstring_to_text_with_len(record.data, record.len));

	/* a remote that was never reached may be that node */
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("INSERT INTO synchro.backlog (server, relation, layout, changed_at, part, keys)"
						" SELECT server, $2, $3, $4, 0, $5 FROM synchro.remote_state WHERE node = $1 OR node IS NULL",
						lengthof(types), types, values, NULL) > 0)
		synchro_shared_wake_at_commit(1);
	synchro_sql_close(&scope);
}
