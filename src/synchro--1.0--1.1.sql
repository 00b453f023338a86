/* src/synchro--1.0--1.1.sql: what version 1.1 adds */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION or ALTER EXTENSION
\echo Use "ALTER EXTENSION synchro UPDATE TO '1.1'" to load this file. \quit

--
-- First copy
--
CREATE TABLE synchro.copying (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	server name NOT NULL REFERENCES synchro.remote ON DELETE CASCADE ON UPDATE CASCADE,
	relation oid NOT NULL,
	layout integer NOT NULL,
	last_key bytea,
	until_key bytea,
	rows_total bigint NOT NULL,
	rows_done bigint NOT NULL DEFAULT 0,
	rows_sent boolean NOT NULL DEFAULT false,
	delete_extra boolean NOT NULL,
	empty boolean NOT NULL DEFAULT false,
	forgotten pg_snapshot,
	queued_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE synchro.copying IS 'tables of which every row is to be pushed to a remote';
COMMENT ON COLUMN synchro.copying.last_key IS 'primary key of the last row that was pushed, in the key codec''s format; NULL: none yet';
COMMENT ON COLUMN synchro.copying.until_key IS 'primary key of the last row when the copy was queued; what comes later is in the log';
COMMENT ON COLUMN synchro.copying.rows_total IS 'when it was queued';
COMMENT ON COLUMN synchro.copying.rows_sent IS 'only rows that are on the remote only are left to be deleted';
COMMENT ON COLUMN synchro.copying.empty IS 'first, all of the remote''s rows are to be deleted';
COMMENT ON COLUMN synchro.copying.forgotten IS 'what is visible in it of the table''s log is not pushed';
CREATE INDEX copying_server ON synchro.copying (server, relation);

CREATE FUNCTION synchro.copy_table(remote name, relation regclass, delete_extra boolean DEFAULT false)
	RETURNS bigint LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_copy_table';
COMMENT ON FUNCTION synchro.copy_table(name, regclass, boolean) IS
	'queues every row of a watched table for a remote: a first copy, or to bring it in line again; returns how many rows; delete_extra: what is on the remote only is deleted there';
REVOKE ALL ON FUNCTION synchro.copy_table(name, regclass, boolean) FROM PUBLIC;

--
-- The log's first blocks are covered by its indexes when they are full
--
SELECT pg_catalog.brin_desummarize_range('synchro.log_0_txid', 0), pg_catalog.brin_desummarize_range('synchro.log_1_txid', 0),
	pg_catalog.brin_desummarize_range('synchro.log_2_txid', 0);

--
-- What has failed is settled by the batch that has it
--
ALTER TABLE synchro.parked ADD COLUMN sent_with uuid, ADD COLUMN alone_at timestamptz;
COMMENT ON COLUMN synchro.parked.sent_with IS 'position token of the last batch that has it: with that one it is done';
COMMENT ON COLUMN synchro.parked.alone_at IS 'when it has failed by itself, so the reason is its own; NULL: never';
ALTER TABLE synchro.stalled ADD COLUMN sent_with uuid, ADD COLUMN sent_all boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN synchro.stalled.sent_with IS 'position token of the last batch that has something of it';
COMMENT ON COLUMN synchro.stalled.sent_all IS 'that batch ends it; else it has only what rows were called before';

--
-- A position that is moved by hand while the remote is met anew
--
UPDATE synchro.remote_state SET attempted = pg_catalog.gen_random_uuid()
	WHERE acknowledged IS NULL AND attempted IS NULL;
COMMENT ON COLUMN synchro.remote_state.acknowledged IS
	'position token of the last batch known to be committed on the remote; NULL: the remote is to be given the position first';
COMMENT ON COLUMN synchro.remote_state.attempted IS
	'position token of the last batch that was sent, or a random one: the position was moved by hand since';

--
-- Preview
--
CREATE FUNCTION synchro.preview(remote name DEFAULT NULL,
		OUT remote name, OUT relation regclass, OUT key text, OUT action text, OUT detail text)
	RETURNS SETOF record LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_preview';
COMMENT ON FUNCTION synchro.preview(name) IS
	'what the next pass would do to each row of a remote, or of every one that is not paused: insert, update, delete, skip what is older than the remote''s, or fail; nothing is written anywhere';
REVOKE ALL ON FUNCTION synchro.preview(name) FROM PUBLIC;

--
-- Comparing
--
CREATE FUNCTION synchro.manifest(schema regnamespace DEFAULT NULL,
		OUT relation regclass, OUT rows bigint, OUT fingerprint text)
	RETURNS SETOF record LANGUAGE c CALLED ON NULL INPUT STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_manifest';
COMMENT ON FUNCTION synchro.manifest(regnamespace) IS
	'rows and a fingerprint of the content of each table of a schema, or of each watched one: the same on two servers if the contents are, whatever ids and order';
REVOKE ALL ON FUNCTION synchro.manifest(regnamespace) FROM PUBLIC;

CREATE FUNCTION synchro.verify(remote name, relation regclass DEFAULT NULL,
		OUT relation regclass, OUT key text, OUT difference text, OUT columns text[])
	RETURNS SETOF record LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_verify';
COMMENT ON FUNCTION synchro.verify(name, regclass) IS
	'compares a watched table, or all, with a remote by natural key, after pushing what is pending: rows that are missing there, different (in which columns), or extra';
REVOKE ALL ON FUNCTION synchro.verify(name, regclass) FROM PUBLIC;

CREATE FUNCTION synchro.requeue(remote name, relation regclass DEFAULT NULL)
	RETURNS bigint LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_requeue';
COMMENT ON FUNCTION synchro.requeue(name, regclass) IS
	'logs the rows that verify() finds missing or different on a remote as changed now, so that they are pushed again; returns how many';
REVOKE ALL ON FUNCTION synchro.requeue(name, regclass) FROM PUBLIC;

--
-- Checking
--
CREATE FUNCTION synchro.check(remote name DEFAULT NULL, OUT severity text, OUT relation regclass, OUT problem text, OUT fix text)
	RETURNS SETOF record LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_check';
COMMENT ON FUNCTION synchro.check(name) IS
	'what is in the way of syncing, here and on a remote, or on every one that is not paused: what does not work (error), what is slow or risky (warning), what else to know (info), each with SQL that mends it';
REVOKE ALL ON FUNCTION synchro.check(name) FROM PUBLIC;

--
-- Beginning anew
--
CREATE FUNCTION synchro.reset_schema(schema regnamespace, soft boolean DEFAULT true, remote name DEFAULT NULL, confirm boolean DEFAULT false)
	RETURNS bigint LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_reset_schema';
COMMENT ON FUNCTION synchro.reset_schema(regnamespace, boolean, name, boolean) IS
	'soft: renews keys and triggers of a schema''s watched tables, returns how many; else, with confirm: deletes their rows on a remote and copies them anew, returns how many rows';
REVOKE ALL ON FUNCTION synchro.reset_schema(regnamespace, boolean, name, boolean) FROM PUBLIC;

--
-- Monitoring
--
CREATE VIEW synchro.metrics_remotes AS
	SELECT r.remote,
		   (r.state OPERATOR(pg_catalog.=) 'paused')::integer AS paused,
		   (r.worker_pid IS NOT NULL)::integer AS worker,
		   COALESCE(r.attempts, 0) AS attempts,
		   COALESCE(r.pending, 0) AS pending,
		   COALESCE(EXTRACT(epoch FROM r.lag), 0)::double precision AS lag_seconds,
		   EXTRACT(epoch FROM r.checkpoint)::double precision AS checkpoint_seconds,
		   EXTRACT(epoch FROM r.last_success)::double precision AS last_success_seconds,
		   COALESCE(r.inserted, 0) AS inserted_total,
		   COALESCE(r.updated, 0) AS updated_total,
		   COALESCE(r.deleted, 0) AS deleted_total,
		   COALESCE(r.skipped, 0) AS skipped_total,
		   r.failed,
		   EXTRACT(epoch FROM r.clock_offset)::double precision AS clock_offset_seconds
	FROM synchro.remotes r;
COMMENT ON VIEW synchro.metrics_remotes IS 'view remotes in numbers, for programs that collect such';

CREATE VIEW synchro.metrics_node AS
	SELECT (n.state OPERATOR(pg_catalog.<>) 'active')::integer AS held,
		   (SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(c.oid))::bigint
			FROM pg_catalog.pg_class c
			WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY['synchro.log_0', 'synchro.log_1', 'synchro.log_2']::regclass[])) AS log_bytes,
		   (SELECT pg_catalog.count(*) FROM synchro.watched) AS tables,
		   (SELECT pg_catalog.count(*)
			FROM synchro.watched w
			WHERE EXISTS (
				SELECT FROM (SELECT w.relation UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(w.relation) p) parts (relid)
				JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) parts.relid
				CROSS JOIN (VALUES ('synchro_capture'::name), ('synchro_truncate')) ours (name)
				LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) c.oid AND t.tgname OPERATOR(pg_catalog.=) ours.name
				WHERE (ours.name OPERATOR(pg_catalog.=) 'synchro_capture' OR c.relkind OPERATOR(pg_catalog.=) 'r')
					  AND t.tgenabled IS DISTINCT FROM 'A')) AS tables_not_captured,
		   (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM synchro.conflict_id_seq s) AS conflicts_total,
		   EXTRACT(epoch FROM n.clock_uncertainty)::double precision AS clock_uncertainty_seconds
	FROM synchro.node n;
COMMENT ON VIEW synchro.metrics_node IS 'this node and its log in numbers, for programs that collect such';

--
-- Names that change hands
--
CREATE FUNCTION synchro.peer_lost_names(relation text, OUT identity text, OUT name text)
	RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_lost_names';
COMMENT ON FUNCTION synchro.peer_lost_names(text) IS 'for workers of other nodes: names that rows here have lost, as far as the other node has not been told';
REVOKE ALL ON FUNCTION synchro.peer_lost_names(text) FROM PUBLIC;

CREATE FUNCTION synchro.peer_renamed(relation text, identities text[], OUT identity text, OUT name text)
	RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_renamed';
COMMENT ON FUNCTION synchro.peer_renamed(text, text[]) IS 'for workers of other nodes: which of these rows the other node calls otherwise than they are called here';
REVOKE ALL ON FUNCTION synchro.peer_renamed(text, text[]) FROM PUBLIC;

CREATE FUNCTION synchro.peer_renames(relation text, lost bigint[], OUT identity text, OUT name text, OUT lost_at bigint)
	RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_renames';
COMMENT ON FUNCTION synchro.peer_renames(text, bigint[]) IS 'for workers of other nodes: rows here that lost their names by given changes';
REVOKE ALL ON FUNCTION synchro.peer_renames(text, bigint[]) FROM PUBLIC;

CREATE FUNCTION synchro.peer_restate(relation text, identities text[], stamps bigint[])
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_restate';
COMMENT ON FUNCTION synchro.peer_restate(text, text[], bigint[]) IS 'for workers of other nodes: rows that are changed here by what another node said of their names';
REVOKE ALL ON FUNCTION synchro.peer_restate(text, text[], bigint[]) FROM PUBLIC;

CREATE FUNCTION synchro.peer_gone(relation text, identity text, name text, after bigint)
	RETURNS boolean LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_gone';
COMMENT ON FUNCTION synchro.peer_gone(text, text, text, bigint) IS 'for workers of other nodes: tells them that no row here has a name';
REVOKE ALL ON FUNCTION synchro.peer_gone(text, text, text, bigint) FROM PUBLIC;

CREATE FUNCTION synchro.peer_referred(relations text[], identities text[], since bigint, written text[],
		OUT relation text, OUT identity text, OUT stamp bigint, OUT origin uuid)
	RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_referred';
COMMENT ON FUNCTION synchro.peer_referred(text[], text[], bigint, text[]) IS 'for workers of other nodes: the newest changes of rows that refer to these rows here';
REVOKE ALL ON FUNCTION synchro.peer_referred(text[], text[], bigint, text[]) FROM PUBLIC;

CREATE FUNCTION synchro.peer_kept(relation text, identity text, there bigint, there_origin uuid, stamp bigint, origin uuid)
	RETURNS boolean LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_kept';
COMMENT ON FUNCTION synchro.peer_kept(text, text, bigint, uuid, bigint, uuid) IS 'for workers of other nodes: records a delete that is older than what refers to the row here';
REVOKE ALL ON FUNCTION synchro.peer_kept(text, text, bigint, uuid, bigint, uuid) FROM PUBLIC;

--
-- Rights to views, and tables that are moved to another schema
--
CREATE FUNCTION synchro.on_ddl_command_start()
	RETURNS event_trigger LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_ddl_command_start';
COMMENT ON FUNCTION synchro.on_ddl_command_start() IS 'event trigger: who may read the views before a REVOKE; where a table is before it is moved';
REVOKE ALL ON FUNCTION synchro.on_ddl_command_start() FROM PUBLIC;

CREATE EVENT TRIGGER synchro_ddl_command_start ON ddl_command_start
	WHEN TAG IN ('REVOKE', 'ALTER TABLE')
	EXECUTE FUNCTION synchro.on_ddl_command_start();
COMMENT ON EVENT TRIGGER synchro_ddl_command_start IS 'lets synchro see whether a REVOKE has taken a view from somebody, and from which schema a table is moved';
ALTER EVENT TRIGGER synchro_ddl_command_start ENABLE ALWAYS;

--
-- Columns of typed tables are renamed with the attributes of their type, tables with their schema
--
DROP EVENT TRIGGER synchro_ddl_command_end;
CREATE EVENT TRIGGER synchro_ddl_command_end ON ddl_command_end
	WHEN TAG IN ('CREATE TABLE', 'CREATE SCHEMA', 'ALTER SCHEMA', 'ALTER TABLE', 'ALTER TYPE', 'DROP TRIGGER', 'CREATE SERVER', 'ALTER SERVER',
				 'CREATE USER MAPPING', 'GRANT', 'REVOKE')
	EXECUTE FUNCTION synchro.on_ddl_command_end();
COMMENT ON EVENT TRIGGER synchro_ddl_command_end IS 'keeps triggers and registry of synchro in line with DDL';
ALTER EVENT TRIGGER synchro_ddl_command_end ENABLE ALWAYS;

--
-- Columns of typed tables are dropped with the attributes of their type
--
DROP EVENT TRIGGER synchro_sql_drop;
CREATE EVENT TRIGGER synchro_sql_drop ON sql_drop
	WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED', 'DROP SERVER', 'DROP FOREIGN DATA WRAPPER', 'DROP EXTENSION',
				 'DROP TYPE', 'DROP DOMAIN', 'ALTER TABLE', 'ALTER TYPE')
	EXECUTE FUNCTION synchro.on_sql_drop();
COMMENT ON EVENT TRIGGER synchro_sql_drop IS 'lets synchro forget tables, columns and servers that are dropped';
ALTER EVENT TRIGGER synchro_sql_drop ENABLE ALWAYS;

--
-- How rows are found is decided when a table is added
--
ALTER TABLE synchro.watched ADD COLUMN primary_key name[], ADD COLUMN from_sequence name[];
COMMENT ON COLUMN synchro.watched.primary_key IS 'columns of the primary key that from_sequence is about; NULL: not noted';
COMMENT ON COLUMN synchro.watched.from_sequence IS 'those of its columns that a sequence made when the table was added';

--
-- What was said of these left out whom they leave out
--
COMMENT ON FUNCTION synchro.synchronize(name) IS
	'pushes all that has been committed to a remote, or to every one that is not paused, and waits until it is there';
COMMENT ON FUNCTION synchro.reset(name, boolean) IS
	'forgets pending changes of a remote, or of every one, and unless told to keep them stored references, whose rows are new there from then on; the checkpoint is now';
COMMENT ON VIEW synchro.progress IS 'passes that are under way: the table at hand, rows done, and how many there are in all';
COMMENT ON COLUMN synchro.failures.key IS
	'the row''s primary key here, or the natural key where there is none; NULL: nothing of the table can be pushed';

--
-- Watched tables that were dropped or renamed
--
CREATE TABLE synchro.dropped (
	schema name NOT NULL,
	name name NOT NULL,
	natural_key name[],
	skip name[] NOT NULL,
	allow_many boolean NOT NULL,
	dropped_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	PRIMARY KEY (schema, name)
);
COMMENT ON TABLE synchro.dropped IS 'how tables were watched under names that they lost when they were dropped or renamed: check() tells which tables have these now and are not watched';

--
-- Another table that has such a name now is as one that has stalled, for every remote: only the owner's word has it watched
--
CREATE VIEW synchro.unwatched AS
	SELECT c.oid AS relation, o.name, d.natural_key, d.skip, d.allow_many, d.dropped_at,
		   pg_catalog.format('table %s is not watched, but one that had its name was', o.name) COLLATE pg_catalog."default" AS problem
	FROM synchro.dropped d
		 JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) d.schema
		 JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) d.name
		 CROSS JOIN LATERAL (SELECT pg_catalog.format('%I.%I', d.schema, d.name) AS name) o
	WHERE (c.relkind OPERATOR(pg_catalog.=) 'r' OR c.relkind OPERATOR(pg_catalog.=) 'p')
		  AND NOT EXISTS (SELECT FROM synchro.watched w
						  WHERE w.relation OPERATOR(pg_catalog.=) c.oid
								OR w.relation OPERATOR(pg_catalog.=) ANY (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) a));
COMMENT ON VIEW synchro.unwatched IS 'tables that are not watched, and have the name of one that was: how that was watched, and until when';

CREATE OR REPLACE VIEW synchro.failures WITH (security_barrier) AS
	SELECT f.id, f.changed_at, f.origin, f.remote, f.relation::regclass AS relation, f.key, f.operation, f.sqlstate, f.message,
		   f.constraint_name, f.attempts, f.first_failed, f.next_attempt, f.detail, f.hint
	FROM (SELECT p.id, p.changed_at, p.origin, p.server AS remote, p.relation, p.key, p.operation, p.sqlstate, p.message,
				 p.constraint_name, p.attempts, p.first_failed, p.next_attempt, p.detail, p.hint
		  FROM synchro.parked p
		  UNION ALL
		  SELECT NULL, NULL, NULL, s.server, s.relation, NULL, 'all', s.sqlstate, s.message,
				 NULL, s.attempts, s.first_failed, s.next_attempt, s.detail, s.hint
		  FROM synchro.stalled s
		  UNION ALL
		  SELECT NULL, NULL, NULL, r.server, u.relation, NULL, 'all', '55000', u.problem,
				 NULL, 0, u.dropped_at, NULL,
				 'That one was dropped, renamed or moved to another schema. Nothing of this one is pushed.',
				 'SELECT problem, fix FROM synchro.check() has the call that watches this one, and the one that says it is not to be.'
		  FROM synchro.unwatched u CROSS JOIN synchro.remote r) f
	WHERE COALESCE(pg_catalog.has_table_privilege(f.relation, 'SELECT') AND NOT pg_catalog.row_security_active(f.relation),
				   (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER));

CREATE OR REPLACE VIEW synchro.remotes AS
	SELECT p.remote, p.state, p.pending, p.lag, s.checkpoint, s.last_success, p.last_error, p.last_error_at,
		   p.attempts, p.next_attempt, s.inserted, s.updated, s.deleted, s.skipped,
		   (SELECT pg_catalog.count(*) FROM synchro.parked f WHERE f.server OPERATOR(pg_catalog.=) p.remote) OPERATOR(pg_catalog.+)
		   (SELECT pg_catalog.count(*) FROM synchro.stalled f WHERE f.server OPERATOR(pg_catalog.=) p.remote) OPERATOR(pg_catalog.+)
		   (SELECT pg_catalog.count(*) FROM synchro.unwatched) AS failed, p.worker_pid,
		   s.clock_offset OPERATOR(pg_catalog.*) '1 microsecond'::interval AS clock_offset
	FROM synchro.pusher_status() p
		 LEFT JOIN synchro.remote_state s ON s.server OPERATOR(pg_catalog.=) p.remote;

--
-- Remotes that are met as another node
--
CREATE TABLE synchro.former_contact (
	server name PRIMARY KEY REFERENCES synchro.remote ON DELETE CASCADE ON UPDATE CASCADE,
	node uuid NOT NULL,
	acknowledged uuid,
	attempted uuid,
	sent_before xid8,
	moved boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE synchro.former_contact IS 'remotes that are to be met anew: how they were left';
COMMENT ON COLUMN synchro.former_contact.node IS 'as which they were met last';
COMMENT ON COLUMN synchro.former_contact.acknowledged IS 'position token of the last batch known to be committed there';
COMMENT ON COLUMN synchro.former_contact.attempted IS 'of the last one that was sent';
COMMENT ON COLUMN synchro.former_contact.sent_before IS 'what that one has had been read before this transaction';
COMMENT ON COLUMN synchro.former_contact.moved IS 'the snapshots were moved by hand since';
ALTER TABLE synchro.remote_state ADD COLUMN sent_before xid8;
COMMENT ON COLUMN synchro.remote_state.sent_before IS 'what the attempted batch has was read before this transaction';
ALTER TABLE synchro.remote_state ADD COLUMN forget_deletes boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN synchro.remote_state.forget_deletes IS 'deletes that wait on the remote are to be forgotten at the next contact';
INSERT INTO synchro.former_contact (server, node)
	SELECT s.server, i.previous FROM synchro.remote_state s, synchro.node_identity i WHERE s.acknowledged IS NULL AND NOT s.rebased AND i.previous IS NOT NULL
	ON CONFLICT DO NOTHING;
