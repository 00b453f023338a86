/*-------------------------------------------------------------------------
 *
 * comparepairs.c
 *	  Which rows of the remote stand for which of ours, for comparing them.
 *
 * Rows without natural key are known by stored pairs.  The remote keeps those
 * of rows that we have pushed; those of rows that it has pushed itself are kept
 * here, and are sent there into a temporary table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "comparepairs.h"
#include "identities.h"
#include "localsql.h"
#include "refpairs.h"
#include "spool.h"

static void
put_pair(TupleTableSlot *slot, void *arg)
{
	StringInfoData line;

	initStringInfo(&line);
	slot_getallattrs(slot);
	for (int i = 0; i < 3; i++)
		synchro_copy_put(&line, TextDatumGetCString(slot->tts_values[i]));
	appendStringInfoChar(&line, '\n');
	synchro_spool_append(arg, line.data, line.len);
	pfree(line.data);
}

static bool
any_by_reference(const SynchroLink *link)
{
	ListCell   *cell;

	foreach(cell, link->tables)
		if (((SynchroLinkTable *) lfirst(cell))->table->mode == SYNCHRO_MODE_REFERENCE)
			return true;
	return false;
}

/*
 * Make link->peer known, and tell the remote the pairs that it has left here;
 * anew each time, since there may be more by now.
 */
void
synchro_compare_pairs(SynchroLink *link)
{
	SynchroRows *rows;
	SynchroRemoteError *error;
	SynchroSpool *spool;
	SynchroSqlScope scope;
	Oid			owner;
	Oid			type = UUIDOID;
	Datum		value;

	link->peer = NULL;
	if (!any_by_reference(link))
		return;
	rows = synchro_remote_query(link->remote, "SELECT to_regclass('" SYNCHRO_PEER_SCHEMA ".reference') IS NOT NULL", 0, NULL);
	if (synchro_value(rows, 0, 0)[0] == 't')
		link->peer = SYNCHRO_PEER_SCHEMA;
	spool = synchro_spool_create();
	if (link->peer_node != NULL && OidIsValid(synchro_refpairs_table(&owner)))
	{
		value = UUIDPGetDatum(link->peer_node);
		synchro_sql_open(&scope, owner);
		synchro_sql_query("SELECT relation, remote_key::text, local_key::text FROM " SYNCHRO_PEER_SCHEMA ".reference WHERE node = $1",
						  1, &type, &value, NULL, synchro_sql_callback(put_pair, spool));
		synchro_sql_close(&scope);
	}
	synchro_spool_rewind(spool);
	error = synchro_remote_script(link->remote,
								  "BEGIN;CREATE TEMP TABLE IF NOT EXISTS synchro_pairs (relation text, local_key text[], remote_key text[]);"
								  "TRUNCATE pg_temp.synchro_pairs;COPY pg_temp.synchro_pairs FROM STDIN;"
								  "ANALYZE pg_temp.synchro_pairs;COMMIT", list_make1(spool), NULL);
	synchro_spool_free(spool);
	if (error != NULL)
		synchro_remote_report(link->remote, error, "while sending references");
}

/*
 * SQL for the pairs, on the remote; NULL if none are needed.
 */
const char *
synchro_compare_pairs_table(const SynchroLink *link)
{
	if (!any_by_reference(link))
		return NULL;
	if (link->peer == NULL)
		return "pg_temp.synchro_pairs";
	return psprintf("(SELECT relation, local_key, remote_key FROM pg_temp.synchro_pairs"
					" UNION SELECT relation, local_key, remote_key FROM %s.reference WHERE node = '%s')",
					link->peer, link->node);
}
