/*-------------------------------------------------------------------------
 *
 * peertables.c
 *	  SQL text: schema synchro_peer, which nodes that push to a database have
 *	  there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "checkpoint.h"

/*
 * Append the SQL that makes the tables of ours on a remote without the
 * extension.
 *
 * again: it may be run where they are already, and makes what is missing.
 *
 * The indexes of the references begin with what differs from row to row: with
 * no statistics yet, two that begin with node and relation look alike to the
 * planner, which then reads all references of a table for each row of a batch.
 */
void
synchro_peer_tables(StringInfo sql, bool again)
{
	const char *missing = again ? "IF NOT EXISTS " : "";

	appendStringInfo(sql,
					 "CREATE SCHEMA %s" SYNCHRO_PEER_SCHEMA ";\n"
					 "CREATE TABLE %s" SYNCHRO_PEER_SCHEMA ".position (\n"
					 "	node uuid PRIMARY KEY,\n"
					 "	token uuid NOT NULL,\n"
					 "	snapshot text NOT NULL,\n"
					 "	keys_snapshot text NOT NULL,\n"
					 "	moved_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()\n"
					 ");\n"
					 "CREATE TABLE %s" SYNCHRO_PEER_SCHEMA ".reference (\n"
					 "	node uuid,\n"
					 "	relation text,\n"
					 "	local_key text[],\n"
					 "	remote_key text[] NOT NULL,\n"
					 "	made int8,\n"
					 "	PRIMARY KEY (local_key, relation, node)\n"
					 ");\n"
					 "CREATE INDEX %sreference_remote_key ON " SYNCHRO_PEER_SCHEMA ".reference (remote_key, relation, node);\n"
					 "CREATE TABLE %s" SYNCHRO_PEER_SCHEMA ".unapplied (\n"
					 "	node uuid NOT NULL,\n"
					 "	relation text NOT NULL,\n"
					 "	operation text NOT NULL,\n"
					 "	local_key text[],\n"
					 "	remote_key text[],\n"
					 "	stamp bigint,\n"
					 "	origin uuid\n"
					 ");\n"
					 "CREATE INDEX %sunapplied_node ON " SYNCHRO_PEER_SCHEMA ".unapplied (node, relation);\n"
					 "ALTER TABLE " SYNCHRO_PEER_SCHEMA ".unapplied REPLICA IDENTITY FULL;\n"
					 "CREATE TABLE %s" SYNCHRO_PEER_SCHEMA ".known_table (\n"
					 "	node uuid,\n"
					 "	relation text NOT NULL,\n"
					 "	node_table oid,\n"
					 "	own_table regclass NOT NULL,\n"
					 "	node_key text NOT NULL,\n"
					 "	own_key text NOT NULL,\n"
					 "	PRIMARY KEY (node, node_table)\n"
					 ");\n"
					 "COMMENT ON SCHEMA " SYNCHRO_PEER_SCHEMA " IS 'what the extension synchro of other servers keeps here';\n"
					 "COMMENT ON TABLE " SYNCHRO_PEER_SCHEMA ".position IS 'how far each node has brought this database';\n"
					 "COMMENT ON TABLE " SYNCHRO_PEER_SCHEMA ".reference IS 'which row here stands for which row of a node, where no natural key tells';\n"
					 "COMMENT ON TABLE " SYNCHRO_PEER_SCHEMA ".unapplied IS 'changes that are still to be applied';\n"
					 "COMMENT ON TABLE " SYNCHRO_PEER_SCHEMA ".known_table IS 'which table of a node, and which one here, these are about';\n",
					 missing, missing, missing, missing, missing, missing, missing);
}
