/* src/synchro--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION synchro" to load this file. \quit

-- not IF NOT EXISTS: nobody may have prepared a schema of that name for us
CREATE SCHEMA synchro;
COMMENT ON SCHEMA synchro IS 'keeps another database in step with this one by natural key';

--
-- This database as one of a group of nodes
--
CREATE TABLE synchro.node_identity (
	id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
	previous uuid,
	system_identifier bigint NOT NULL,
	database oid NOT NULL,
	clock_reference uuid,
	clock_stratum integer NOT NULL DEFAULT 0,
	clock_uncertainty bigint NOT NULL DEFAULT 0,
	clock_measured_at timestamptz,
	clock_set_at timestamptz,
	clock_set_from timestamptz,
	clock_set_xid xid8
);
COMMENT ON TABLE synchro.node_identity IS 'who this node is, and in which cluster and database it was last seen';
COMMENT ON COLUMN synchro.node_identity.previous IS 'its id before confirm_node()';
COMMENT ON COLUMN synchro.node_identity.clock_reference IS 'the node whose clock is common time; NULL: this one';
COMMENT ON COLUMN synchro.node_identity.clock_stratum IS 'how many links away that is';
COMMENT ON COLUMN synchro.node_identity.clock_uncertainty IS 'how exactly clock_offset is known, in microseconds';
COMMENT ON COLUMN synchro.node_identity.clock_measured_at IS 'when clock_offset was taken over, by this server''s clock';
COMMENT ON COLUMN synchro.node_identity.clock_set_at IS 'common time when it was last set far back';
COMMENT ON COLUMN synchro.node_identity.clock_set_from IS 'what common time was before that';
COMMENT ON COLUMN synchro.node_identity.clock_set_xid IS 'transactions with ids below this may have stamps of that earlier time';

-- For sequences, see clock.c: they are read without SQL, and their values
-- count at once, committed or not.
CREATE SEQUENCE synchro.clock AS bigint MINVALUE 0 START 0;
COMMENT ON SEQUENCE synchro.clock IS 'last_value: stamps given here are above it, in microseconds since 2000';
CREATE SEQUENCE synchro.clock_offset AS bigint MINVALUE -9223372036854775807 START 0;
COMMENT ON SEQUENCE synchro.clock_offset IS 'last_value: common time less local time, in microseconds';

INSERT INTO synchro.node_identity (system_identifier, database)
	SELECT s.system_identifier, d.oid
	FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
	WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();

-- After pg_restore there are two rows: the one that CREATE EXTENSION made, and
-- the dumped one.  Only a single row that is of this database makes an active
-- node.
CREATE VIEW synchro.node AS
	SELECT n.id, n.system_identifier, n.database,
		   CASE WHEN n.is_here AND n.rows OPERATOR(pg_catalog.=) 1 THEN 'active' ELSE 'held' END AS state,
		   COALESCE(n.clock_reference, n.id) AS clock_reference, n.clock_stratum,
		   c.last_value OPERATOR(pg_catalog.*) '1 microsecond'::interval AS clock_offset,
		   n.clock_uncertainty OPERATOR(pg_catalog.*) '1 microsecond'::interval AS clock_uncertainty
	FROM (SELECT i.id, i.system_identifier, i.database, i.clock_reference, i.clock_stratum, i.clock_uncertainty,
				 i.system_identifier OPERATOR(pg_catalog.=) s.system_identifier AND i.database OPERATOR(pg_catalog.=) d.oid AS is_here,
				 pg_catalog.count(*) OVER () AS rows
		  FROM synchro.node_identity i, pg_catalog.pg_control_system() s, pg_catalog.pg_database d
		  WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
		  ORDER BY is_here
		  LIMIT 1) n CROSS JOIN synchro.clock_offset c;
COMMENT ON VIEW synchro.node IS 'this node; state held: a copy or restored database that pushes nothing until confirm_node()';
COMMENT ON COLUMN synchro.node.clock_reference IS 'the node whose clock is the group''s common time';
COMMENT ON COLUMN synchro.node.clock_stratum IS 'how many links away that is; 0: this node';
COMMENT ON COLUMN synchro.node.clock_offset IS 'common time less local time';
COMMENT ON COLUMN synchro.node.clock_uncertainty IS 'how exactly clock_offset is known';

--
-- What is watched
--
CREATE TABLE synchro.natural_key (
	relation regclass PRIMARY KEY,
	columns name[] NOT NULL,
	allow_many boolean NOT NULL DEFAULT false,
	with_table boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE synchro.natural_key IS 'registered natural keys, of watched tables and of others';
COMMENT ON COLUMN synchro.natural_key.with_table IS 'registered by add_table, so it goes with remove_table';

CREATE TABLE synchro.watched (
	relation regclass PRIMARY KEY,
	skip name[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE synchro.watched IS 'watched tables and their skipped columns';

--
-- The log: three segments, of which log_switch names the live one.  Rows are
-- only added; a segment that nobody needs any more is truncated.
--
CREATE SEQUENCE synchro.log_switch AS integer MINVALUE 0 MAXVALUE 2 START 0 CYCLE;
COMMENT ON SEQUENCE synchro.log_switch IS 'last_value is the number of the live log segment';

CREATE SEQUENCE synchro.log_horizon AS bigint MINVALUE 0 START 0;
COMMENT ON SEQUENCE synchro.log_horizon IS 'last_value: the log has all entries of transactions with ids above it';

CREATE TABLE synchro.log_0 (
	relation oid NOT NULL,
	layout integer NOT NULL,
	txid bigint NOT NULL,
	changed_at timestamptz NOT NULL,
	part integer NOT NULL,
	keys bytea,
	long_key bytea,
	renames boolean
) WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
ALTER TABLE synchro.log_0 ALTER COLUMN keys SET STORAGE PLAIN;
ALTER TABLE synchro.log_0 ALTER COLUMN long_key SET STORAGE EXTERNAL;
CREATE TABLE synchro.log_1 (LIKE synchro.log_0 INCLUDING STORAGE) WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE TABLE synchro.log_2 (LIKE synchro.log_0 INCLUDING STORAGE) WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE INDEX log_0_txid ON synchro.log_0 USING brin (txid, changed_at) WITH (pages_per_range = 16, autosummarize = off);
CREATE INDEX log_1_txid ON synchro.log_1 USING brin (txid, changed_at) WITH (pages_per_range = 16, autosummarize = off);
CREATE INDEX log_2_txid ON synchro.log_2 USING brin (txid, changed_at) WITH (pages_per_range = 16, autosummarize = off);
CREATE INDEX log_0_renames ON synchro.log_0 USING btree (txid) WHERE renames;
CREATE INDEX log_1_renames ON synchro.log_1 USING btree (txid) WHERE renames;
CREATE INDEX log_2_renames ON synchro.log_2 USING btree (txid) WHERE renames;
COMMENT ON TABLE synchro.log_0 IS 'log segment: one row per transaction, or per table and some 500 keys';
COMMENT ON TABLE synchro.log_1 IS 'log segment, as log_0';
COMMENT ON TABLE synchro.log_2 IS 'log segment, as log_0';
COMMENT ON COLUMN synchro.log_0.layout IS 'fingerprint of the key columns'' types when the keys were logged';
COMMENT ON COLUMN synchro.log_0.txid IS 'top-level transaction id (xid8 as bigint: xid8 has no BRIN operator class)';
COMMENT ON COLUMN synchro.log_0.part IS 'position of this row among the transaction''s own';
COMMENT ON COLUMN synchro.log_0.keys IS 'the changed rows'' keys, in the key codec''s format';
COMMENT ON COLUMN synchro.log_0.long_key IS 'instead of keys, one key too long for a page';
COMMENT ON COLUMN synchro.log_0.renames IS 'true where rows among them were called otherwise before; else NULL, which takes no room';

CREATE TABLE synchro.source (
	number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	origin uuid NOT NULL,
	via uuid NOT NULL,
	UNIQUE (origin, via)
);
COMMENT ON TABLE synchro.source IS 'where changes in the log come from that were not first made here';
COMMENT ON COLUMN synchro.source.origin IS 'node on which the changes were first made';
COMMENT ON COLUMN synchro.source.via IS 'node that pushed them here';

--
-- Remotes.  Where they are and who we are there is in pg_foreign_server and
-- pg_user_mapping; nothing secret is here.
--
CREATE TABLE synchro.remote (
	server name PRIMARY KEY,
	paused boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE synchro.remote IS 'foreign servers that changes are pushed to';

CREATE TABLE synchro.remote_state (
	server name PRIMARY KEY REFERENCES synchro.remote ON DELETE CASCADE ON UPDATE CASCADE,
	acknowledged uuid,
	attempted uuid,
	snapshot pg_snapshot NOT NULL,
	keys_snapshot pg_snapshot NOT NULL,
	checkpoint timestamptz NOT NULL,
	rebased boolean NOT NULL DEFAULT false,
	forget_references boolean NOT NULL DEFAULT false,
	node uuid,
	clock_offset bigint,
	clock_uncertainty bigint,
	last_success timestamptz,
	inserted bigint NOT NULL DEFAULT 0,
	updated bigint NOT NULL DEFAULT 0,
	deleted bigint NOT NULL DEFAULT 0,
	skipped bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE synchro.remote_state IS 'how far each remote has been brought';
COMMENT ON COLUMN synchro.remote_state.acknowledged IS 'position token of the last batch known to be committed on the remote';
COMMENT ON COLUMN synchro.remote_state.attempted IS 'position token of the last batch that was sent';
COMMENT ON COLUMN synchro.remote_state.node IS 'id of the remote, if it logs changes itself';
COMMENT ON COLUMN synchro.remote_state.snapshot IS 'all changes visible in it have been pushed, but for the backlog';
COMMENT ON COLUMN synchro.remote_state.keys_snapshot IS 'rows on the remote bear the natural keys that they had here in this snapshot';
COMMENT ON COLUMN synchro.remote_state.rebased IS 'the snapshots here, not the remote''s, count at the next contact';
COMMENT ON COLUMN synchro.remote_state.forget_references IS 'the remote''s stored pairs are to be forgotten at the next contact';
COMMENT ON COLUMN synchro.remote_state.clock_offset IS 'the remote''s clock less ours, in microseconds, as last measured';
COMMENT ON COLUMN synchro.remote_state.clock_uncertainty IS 'how exactly that is known, in microseconds';

CREATE TABLE synchro.backlog (
	server name NOT NULL REFERENCES synchro.remote ON DELETE CASCADE ON UPDATE CASCADE,
	relation oid NOT NULL,
	layout integer NOT NULL,
	changed_at timestamptz NOT NULL,
	part integer NOT NULL,
	queued_by xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
	keys bytea,
	long_key bytea
);
COMMENT ON TABLE synchro.backlog IS 'keys to be pushed to one remote besides those that are new in the log';
COMMENT ON COLUMN synchro.backlog.queued_by IS 'transaction that queued the keys: a pass removes what its snapshot saw';
CREATE INDEX backlog_server ON synchro.backlog (server);
-- with a publication FOR ALL TABLES, nothing could be deleted otherwise
ALTER TABLE synchro.backlog REPLICA IDENTITY FULL;

--
-- Changes that could not be applied
--
CREATE TABLE synchro.parked (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	server name NOT NULL REFERENCES synchro.remote ON DELETE CASCADE ON UPDATE CASCADE,
	relation oid NOT NULL,
	layout integer NOT NULL,
	record bytea,
	key text NOT NULL,
	operation text NOT NULL,
	changed_at timestamptz NOT NULL,
	origin uuid NOT NULL,
	sqlstate text NOT NULL,
	message text NOT NULL,
	detail text,
	hint text,
	constraint_name text,
	attempts integer NOT NULL DEFAULT 1,
	first_failed timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	last_failed timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	next_attempt timestamptz NOT NULL
);
COMMENT ON TABLE synchro.parked IS 'changes that could not be applied on a remote, and are tried again';
COMMENT ON COLUMN synchro.parked.record IS 'the change as the log would have it; NULL: a delete that waits on the remote';
CREATE INDEX parked_server ON synchro.parked (server);

CREATE TABLE synchro.stalled (
	server name REFERENCES synchro.remote ON DELETE CASCADE ON UPDATE CASCADE,
	relation oid,
	snapshot pg_snapshot NOT NULL,
	keys_snapshot pg_snapshot,
	sqlstate text NOT NULL,
	message text NOT NULL,
	detail text,
	hint text,
	attempts integer NOT NULL DEFAULT 1,
	first_failed timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	next_attempt timestamptz NOT NULL,
	PRIMARY KEY (server, relation)
);
COMMENT ON TABLE synchro.stalled IS 'tables that cannot be pushed to a remote as they are, and are tried again';
COMMENT ON COLUMN synchro.stalled.snapshot IS 'all changes of the table visible in it have been pushed';
COMMENT ON COLUMN synchro.stalled.keys_snapshot IS 'the table''s rows on the remote bear the natural keys that they had here in this snapshot; NULL: as the others';

-- Views that show keys or values do so of tables that the reader may read, all
-- of their rows, and to superusers of tables that are gone.  security_barrier:
-- no function of his in a condition gets to see the others.  A view that is a
-- UNION ALL itself would have no such barrier: the server takes it apart.
CREATE VIEW synchro.failures WITH (security_barrier) AS
	SELECT f.id, f.changed_at, f.origin, f.remote, f.relation::regclass AS relation, f.key, f.operation, f.sqlstate, f.message,
		   f.constraint_name, f.attempts, f.first_failed, f.next_attempt, f.detail, f.hint
	FROM (SELECT p.id, p.changed_at, p.origin, p.server AS remote, p.relation, p.key, p.operation, p.sqlstate, p.message,
				 p.constraint_name, p.attempts, p.first_failed, p.next_attempt, p.detail, p.hint
		  FROM synchro.parked p
		  UNION ALL
		  SELECT NULL, NULL, NULL, s.server, s.relation, NULL, 'all', s.sqlstate, s.message,
				 NULL, s.attempts, s.first_failed, s.next_attempt, s.detail, s.hint
		  FROM synchro.stalled s) f
	WHERE COALESCE(pg_catalog.has_table_privilege(f.relation, 'SELECT') AND NOT pg_catalog.row_security_active(f.relation),
				   (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER));
COMMENT ON VIEW synchro.failures IS 'changes that could not be applied on a remote, of tables that you may read: why, how often they were tried, and when they are tried again';
COMMENT ON COLUMN synchro.failures.key IS 'the row''s primary key here; NULL: nothing of the table can be pushed';
COMMENT ON COLUMN synchro.failures.attempts IS 'that have failed';

CREATE FUNCTION synchro.retry(remote name DEFAULT NULL)
	RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_retry';
COMMENT ON FUNCTION synchro.retry(name) IS
	'has the changes that could not be applied on a remote, or on any, tried again now rather than at their time; returns how many';
REVOKE ALL ON FUNCTION synchro.retry(name) FROM PUBLIC;

--
-- Changes that lost against newer ones
--
CREATE TABLE synchro.conflict (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	node uuid NOT NULL,
	relation regclass NOT NULL,
	identity text[],
	name text[],
	local_changed_at timestamptz NOT NULL,
	remote_changed_at timestamptz NOT NULL,
	winner text NOT NULL,
	decided_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	ambiguous boolean NOT NULL,
	loser jsonb
);
COMMENT ON TABLE synchro.conflict IS 'changes that lost against newer ones, here';
COMMENT ON COLUMN synchro.conflict.node IS 'the other node, which pushed';
COMMENT ON COLUMN synchro.conflict.identity IS 'primary key of the row here; NULL: it is gone';
COMMENT ON COLUMN synchro.conflict.name IS 'natural key under which the other node''s row was looked for, if no row here bears it';
COMMENT ON COLUMN synchro.conflict.loser IS 'values that were not taken over, or were overwritten; NULL: a delete';

CREATE VIEW synchro.conflicts WITH (security_barrier) AS
	SELECT c.id, COALESCE(s.server, c.node::text::name) AS remote, c.relation,
		   pg_catalog.array_to_string(COALESCE(c.identity, c.name), ', ', 'NULL') AS key,
		   c.local_changed_at, c.remote_changed_at, c.winner, c.decided_at, c.ambiguous, c.loser
	FROM synchro.conflict c
		 LEFT JOIN synchro.remote_state s ON s.node OPERATOR(pg_catalog.=) c.node
	WHERE COALESCE(pg_catalog.has_table_privilege(c.relation, 'SELECT') AND NOT pg_catalog.row_security_active(c.relation),
				   (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER));
COMMENT ON VIEW synchro.conflicts IS 'changes that lost against newer ones, of tables that you may read: when both were made, which won, and the loser''s values';
COMMENT ON COLUMN synchro.conflicts.winner IS 'local or remote';
COMMENT ON COLUMN synchro.conflicts.ambiguous IS 'the times are closer to each other than the clocks are known';

CREATE FUNCTION synchro.undo(conflict bigint)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_undo';
COMMENT ON FUNCTION synchro.undo(bigint) IS 'writes the loser of a conflict back, as a new change of yours, with your rights on the table';
REVOKE ALL ON FUNCTION synchro.undo(bigint) FROM PUBLIC;

--
-- Registration: which tables are watched, and by which natural keys
--
CREATE FUNCTION synchro.add_table(relation regclass, natural_key name[] DEFAULT NULL, skip name[] DEFAULT '{}', allow_many boolean DEFAULT false)
	RETURNS void LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_add_table';
COMMENT ON FUNCTION synchro.add_table(regclass, name[], name[], boolean) IS
	'watch a table that you own: rows are matched by natural_key, else by a primary key that no sequence makes, else by stored reference; columns in skip are never pushed; allow_many: a key that matches many remote rows means the first of them';
REVOKE ALL ON FUNCTION synchro.add_table(regclass, name[], name[], boolean) FROM PUBLIC;

CREATE FUNCTION synchro.add_schema(schema regnamespace)
	RETURNS integer LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_add_schema';
COMMENT ON FUNCTION synchro.add_schema(regnamespace) IS
	'watch every table of a schema that is not watched yet and has a usable key; returns how many were added';
REVOKE ALL ON FUNCTION synchro.add_schema(regnamespace) FROM PUBLIC;

CREATE FUNCTION synchro.alter_table(relation regclass, natural_key name[] DEFAULT NULL, skip name[] DEFAULT NULL, allow_many boolean DEFAULT NULL)
	RETURNS void LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_alter_table';
COMMENT ON FUNCTION synchro.alter_table(regclass, name[], name[], boolean) IS
	'change natural key, skipped columns or allow_many of a watched table; what is NULL stays as it is';
REVOKE ALL ON FUNCTION synchro.alter_table(regclass, name[], name[], boolean) FROM PUBLIC;

CREATE FUNCTION synchro.remove_table(relation regclass)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_remove_table';
COMMENT ON FUNCTION synchro.remove_table(regclass) IS
	'watch a table no longer; a natural key that add_table or alter_table named goes with it, one that register_natural_key named stays';
REVOKE ALL ON FUNCTION synchro.remove_table(regclass) FROM PUBLIC;

CREATE FUNCTION synchro.register_natural_key(relation regclass, columns name[], allow_many boolean DEFAULT false)
	RETURNS void LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_register_natural_key';
COMMENT ON FUNCTION synchro.register_natural_key(regclass, name[], boolean) IS
	'say which columns identify a row of a table on any server, in place of what was said before; the table need not be watched';
REVOKE ALL ON FUNCTION synchro.register_natural_key(regclass, name[], boolean) FROM PUBLIC;

CREATE FUNCTION synchro.unregister_natural_key(relation regclass)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_unregister_natural_key';
COMMENT ON FUNCTION synchro.unregister_natural_key(regclass) IS
	'forget a table''s natural key: its rows are matched by primary key or stored reference again';
REVOKE ALL ON FUNCTION synchro.unregister_natural_key(regclass) FROM PUBLIC;

CREATE FUNCTION synchro.table_mode(relation regclass)
	RETURNS text LANGUAGE c STRICT STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_table_mode';
COMMENT ON FUNCTION synchro.table_mode(regclass) IS
	'how rows of a table, watched or not, are matched: natural key, primary key, reference, or none';
REVOKE ALL ON FUNCTION synchro.table_mode(regclass) FROM PUBLIC;

CREATE VIEW synchro.tables AS
	SELECT w.relation,
		   CASE m.mode
				WHEN 'natural key' THEN k.columns
				WHEN 'primary key' THEN ARRAY(
					SELECT a.attname
					FROM pg_catalog.pg_constraint c
						 CROSS JOIN pg_catalog.unnest(c.conkey) WITH ORDINALITY u (attnum, position)
						 JOIN pg_catalog.pg_attribute a
						 ON a.attrelid OPERATOR(pg_catalog.=) c.conrelid AND a.attnum OPERATOR(pg_catalog.=) u.attnum
					WHERE c.conrelid OPERATOR(pg_catalog.=) w.relation AND c.contype OPERATOR(pg_catalog.=) 'p'
					ORDER BY u.position)
		   END AS natural_key,
		   w.skip, COALESCE(k.allow_many, false) AS allow_many, m.mode
	FROM synchro.watched w
		 CROSS JOIN LATERAL (SELECT synchro.table_mode(w.relation) AS mode OFFSET 0) m
		 LEFT JOIN synchro.natural_key k ON k.relation OPERATOR(pg_catalog.=) w.relation;
COMMENT ON VIEW synchro.tables IS 'watched tables, and how their rows are matched';
COMMENT ON COLUMN synchro.tables.natural_key IS 'columns that identify a row on any server; NULL in mode reference';
COMMENT ON COLUMN synchro.tables.skip IS 'columns that are never pushed';
COMMENT ON COLUMN synchro.tables.allow_many IS 'a key that matches many remote rows means the first of them by primary key';
COMMENT ON COLUMN synchro.tables.mode IS 'natural key, primary key or reference; none: the table has lost its key and is not pushed';

--
-- Remotes: the foreign-data wrapper of their servers, and which servers are remotes
--
CREATE FUNCTION synchro.fdw_validator(options text[], catalog oid)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_fdw_validator';
COMMENT ON FUNCTION synchro.fdw_validator(text[], oid) IS
	'checks options of servers and user mappings of synchro_fdw: those of libpq';
REVOKE ALL ON FUNCTION synchro.fdw_validator(text[], oid) FROM PUBLIC;

CREATE FOREIGN DATA WRAPPER synchro_fdw NO HANDLER VALIDATOR synchro.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER synchro_fdw IS 'servers that synchro pushes changes to';

CREATE FUNCTION synchro.add_remote(server name)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_add_remote';
COMMENT ON FUNCTION synchro.add_remote(name) IS
	'push changes to a foreign server that you own, of synchro_fdw, postgres_fdw or dblink_fdw, from what the log still has on';
REVOKE ALL ON FUNCTION synchro.add_remote(name) FROM PUBLIC;

CREATE FUNCTION synchro.remove_remote(server name)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_remove_remote';
COMMENT ON FUNCTION synchro.remove_remote(name) IS
	'push to a foreign server no longer and forget what is pending for it; the server itself stays';
REVOKE ALL ON FUNCTION synchro.remove_remote(name) FROM PUBLIC;

-- what pg_dump is to keep: the set-up, not the positions, which hold for this
-- cluster's transaction ids only
SELECT pg_catalog.pg_extension_config_dump('synchro.natural_key', '');
SELECT pg_catalog.pg_extension_config_dump('synchro.watched', '');
SELECT pg_catalog.pg_extension_config_dump('synchro.remote', '');

--
-- Event triggers: registry, triggers and remotes follow DDL
--
CREATE FUNCTION synchro.on_ddl_command_end()
	RETURNS event_trigger LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_ddl_command_end';
COMMENT ON FUNCTION synchro.on_ddl_command_end() IS
	'event trigger: new partitions, foreign keys and columns'' names of watched tables, servers and user mappings of remotes';
REVOKE ALL ON FUNCTION synchro.on_ddl_command_end() FROM PUBLIC;

CREATE FUNCTION synchro.on_sql_drop()
	RETURNS event_trigger LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_sql_drop';
COMMENT ON FUNCTION synchro.on_sql_drop() IS
	'event trigger: dropped tables, columns and servers are forgotten';
REVOKE ALL ON FUNCTION synchro.on_sql_drop() FROM PUBLIC;

CREATE EVENT TRIGGER synchro_ddl_command_end ON ddl_command_end
	WHEN TAG IN ('CREATE TABLE', 'CREATE SCHEMA', 'ALTER TABLE', 'DROP TRIGGER', 'CREATE SERVER', 'ALTER SERVER', 'CREATE USER MAPPING',
				 'GRANT', 'REVOKE')
	EXECUTE FUNCTION synchro.on_ddl_command_end();
COMMENT ON EVENT TRIGGER synchro_ddl_command_end IS 'keeps triggers and registry of synchro in line with DDL';
ALTER EVENT TRIGGER synchro_ddl_command_end ENABLE ALWAYS;

CREATE EVENT TRIGGER synchro_sql_drop ON sql_drop
	WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED', 'DROP SERVER', 'DROP FOREIGN DATA WRAPPER', 'DROP EXTENSION',
				 'DROP TYPE', 'DROP DOMAIN', 'ALTER TABLE')
	EXECUTE FUNCTION synchro.on_sql_drop();
COMMENT ON EVENT TRIGGER synchro_sql_drop IS 'lets synchro forget tables, columns and servers that are dropped';
ALTER EVENT TRIGGER synchro_sql_drop ENABLE ALWAYS;

SELECT pg_catalog.pg_extension_config_dump('synchro.node_identity', '');

--
-- Capture
--
CREATE FUNCTION synchro.capture() RETURNS trigger LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_capture';
COMMENT ON FUNCTION synchro.capture() IS 'trigger function: logs which row changed';

CREATE FUNCTION synchro.capture_truncate() RETURNS trigger LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_capture_truncate';
COMMENT ON FUNCTION synchro.capture_truncate() IS 'trigger function: logs each row of a truncated table as deleted';

-- The trigger functions are not revoked from PUBLIC: PostgreSQL asks whoever
-- makes a partition of a watched table for the right to them, and that is the
-- application.  They cannot be called but by a trigger, and as a trigger on a
-- table that is not watched they do nothing.

CREATE FUNCTION synchro.disable_log() RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_disable_log';
COMMENT ON FUNCTION synchro.disable_log() IS 'changes are not logged until enable_log() or the end of this transaction or savepoint; nestable';

CREATE FUNCTION synchro.enable_log() RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_enable_log';
COMMENT ON FUNCTION synchro.enable_log() IS 'takes back one disable_log()';

-- the log-scope functions are for everyone
GRANT USAGE ON SCHEMA synchro TO PUBLIC;
GRANT SET ON PARAMETER synchro.log_changes TO PUBLIC;

CREATE FUNCTION synchro.log_entries(OUT changed_at timestamptz, OUT relation regclass, OUT key text,
		OUT operation text, OUT origin uuid, OUT xid xid8)
	RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_log_entries';
COMMENT ON FUNCTION synchro.log_entries() IS 'the log of tables that you may read, readable: for the view changes';
REVOKE ALL ON FUNCTION synchro.log_entries() FROM PUBLIC;

CREATE VIEW synchro.changes AS
	SELECT l.changed_at, l.relation, l.key, l.operation, COALESCE(l.origin, n.id) AS origin, l.xid
	FROM synchro.log_entries() l CROSS JOIN synchro.node n;
COMMENT ON VIEW synchro.changes IS 'the log: which rows of watched tables have changed, and when; of tables that you may read';

--
-- Pushing
--
CREATE FUNCTION synchro.synchronize(INOUT remote name DEFAULT NULL, OUT inserted bigint, OUT updated bigint,
		OUT deleted bigint, OUT skipped bigint, OUT failed bigint, OUT message text)
	RETURNS SETOF record LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_synchronize';
COMMENT ON FUNCTION synchro.synchronize(name) IS 'pushes all that has been committed to a remote, or to every one, and waits until it is there';
REVOKE ALL ON FUNCTION synchro.synchronize(name) FROM PUBLIC;

CREATE FUNCTION synchro.reset(remote name DEFAULT NULL, keep_references boolean DEFAULT false)
	RETURNS void LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_reset';
COMMENT ON FUNCTION synchro.reset(name, boolean) IS 'forgets pending changes and stored references of a remote, or of every one; the checkpoint is now';
REVOKE ALL ON FUNCTION synchro.reset(name, boolean) FROM PUBLIC;

CREATE FUNCTION synchro.checkpoint(remote name)
	RETURNS timestamptz LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_checkpoint';
COMMENT ON FUNCTION synchro.checkpoint(name) IS 'time up to which a remote has been brought';
REVOKE ALL ON FUNCTION synchro.checkpoint(name) FROM PUBLIC;

CREATE FUNCTION synchro.set_checkpoint(remote name, at timestamptz)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_set_checkpoint';
COMMENT ON FUNCTION synchro.set_checkpoint(name, timestamptz) IS 'what the log has since that time is sent again to a remote, and nothing else that is pending';
REVOKE ALL ON FUNCTION synchro.set_checkpoint(name, timestamptz) FROM PUBLIC;

CREATE FUNCTION synchro.confirm_node()
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_confirm_node';
COMMENT ON FUNCTION synchro.confirm_node() IS 'lets a copy or a restored database push, as a node with an id of its own; remotes that were restored get again what they have lost';
REVOKE ALL ON FUNCTION synchro.confirm_node() FROM PUBLIC;

CREATE FUNCTION synchro.peer_setup()
	RETURNS text LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_setup';
COMMENT ON FUNCTION synchro.peer_setup() IS 'SQL for an administrator of a remote whose user may not create schema synchro_peer';
REVOKE ALL ON FUNCTION synchro.peer_setup() FROM PUBLIC;

--
-- What other nodes that push to this one call here
--
CREATE FUNCTION synchro.allow_peer(role regrole)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_allow_peer';
COMMENT ON FUNCTION synchro.allow_peer(regrole) IS 'lets a role push to this database as another node, besides the rights on tables that it needs';
REVOKE ALL ON FUNCTION synchro.allow_peer(regrole) FROM PUBLIC;

CREATE FUNCTION synchro.peer_node()
	RETURNS uuid LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_node';
COMMENT ON FUNCTION synchro.peer_node() IS 'for workers of other nodes: the id of this one';
REVOKE ALL ON FUNCTION synchro.peer_node() FROM PUBLIC;

CREATE FUNCTION synchro.peer_table(relation text)
	RETURNS text LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_table';
COMMENT ON FUNCTION synchro.peer_table(text) IS 'for workers of other nodes: by which keys a table is watched here';
REVOKE ALL ON FUNCTION synchro.peer_table(text) FROM PUBLIC;

CREATE FUNCTION synchro.peer_begin(node uuid, seen pg_snapshot, uncertainty bigint, named pg_snapshot DEFAULT NULL, looks boolean DEFAULT false)
	RETURNS void LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_begin';
COMMENT ON FUNCTION synchro.peer_begin(uuid, pg_snapshot, bigint, pg_snapshot, boolean) IS 'for workers of other nodes: this transaction applies what a node has changed';
REVOKE ALL ON FUNCTION synchro.peer_begin(uuid, pg_snapshot, bigint, pg_snapshot, boolean) FROM PUBLIC;

CREATE FUNCTION synchro.peer_newest(relation text, identities text[], since bigint,
		OUT identity text, OUT stamp bigint, OUT origin uuid, OUT concurrent boolean)
	RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_newest';
COMMENT ON FUNCTION synchro.peer_newest(text, text[], bigint) IS 'for workers of other nodes: the newest changes of rows here';
REVOKE ALL ON FUNCTION synchro.peer_newest(text, text[], bigint) FROM PUBLIC;

CREATE FUNCTION synchro.peer_names(relation text, names text[], since bigint,
		OUT name text, OUT identity text, OUT live boolean, OUT lost bigint, OUT stamp bigint, OUT origin uuid)
	RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_names';
COMMENT ON FUNCTION synchro.peer_names(text, text[], bigint) IS 'for workers of other nodes: which rows bore natural keys that no row here bears now';
REVOKE ALL ON FUNCTION synchro.peer_names(text, text[], bigint) FROM PUBLIC;

CREATE FUNCTION synchro.peer_apply(relation text, identities text[], stamps bigint[], origins uuid[], derived boolean[], touch boolean[])
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_apply';
COMMENT ON FUNCTION synchro.peer_apply(text, text[], bigint[], uuid[], boolean[], boolean[]) IS 'for workers of other nodes: rows that are going to be written, and when they were changed';
REVOKE ALL ON FUNCTION synchro.peer_apply(text, text[], bigint[], uuid[], boolean[], boolean[]) FROM PUBLIC;

CREATE FUNCTION synchro.peer_lost(relation text, identity text, there bigint, there_origin uuid, stamp bigint, origin uuid,
		loser jsonb, name text, former text, pending boolean, refused text)
	RETURNS boolean LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_lost';
COMMENT ON FUNCTION synchro.peer_lost(text, text, bigint, uuid, bigint, uuid, jsonb, text, text, boolean, text) IS 'for workers of other nodes: records a change that is older than the one here';
REVOKE ALL ON FUNCTION synchro.peer_lost(text, text, bigint, uuid, bigint, uuid, jsonb, text, text, boolean, text) FROM PUBLIC;

CREATE FUNCTION synchro.peer_won(relation text, identity text, there bigint, there_origin uuid, stamp bigint, origin uuid, loser jsonb)
	RETURNS boolean LANGUAGE c CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_won';
COMMENT ON FUNCTION synchro.peer_won(text, text, bigint, uuid, bigint, uuid, jsonb) IS 'for workers of other nodes: records a change of here that is older than the one that is pushed';
REVOKE ALL ON FUNCTION synchro.peer_won(text, text, bigint, uuid, bigint, uuid, jsonb) FROM PUBLIC;

CREATE FUNCTION synchro.peer_recheck()
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_recheck';
COMMENT ON FUNCTION synchro.peer_recheck() IS 'for workers of other nodes: fails if rows were changed here while they were decided about';
REVOKE ALL ON FUNCTION synchro.peer_recheck() FROM PUBLIC;

CREATE FUNCTION synchro.peer_clock(node uuid, reference uuid, stratum integer, clock_difference bigint, uncertainty bigint,
		OUT own_node uuid, OUT own_reference uuid, OUT own_stratum integer, OUT own_offset bigint, OUT own_uncertainty bigint,
		OUT own_clock timestamptz)
	RETURNS record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_peer_clock';
COMMENT ON FUNCTION synchro.peer_clock(uuid, uuid, integer, bigint, bigint) IS
	'another node says what it knows of the group''s clock: its reference and stratum, common time there less local time here and how exactly that is known, in microseconds; returns what this one knows afterwards';
REVOKE ALL ON FUNCTION synchro.peer_clock(uuid, uuid, integer, bigint, bigint) FROM PUBLIC;

--
-- State of the remotes
--
CREATE FUNCTION synchro.pause(remote name)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_pause';
COMMENT ON FUNCTION synchro.pause(name) IS 'nothing is pushed to a remote until resume(); its changes are kept';
REVOKE ALL ON FUNCTION synchro.pause(name) FROM PUBLIC;

CREATE FUNCTION synchro.resume(remote name)
	RETURNS void LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_resume';
COMMENT ON FUNCTION synchro.resume(name) IS 'takes back pause()';
REVOKE ALL ON FUNCTION synchro.resume(name) FROM PUBLIC;

CREATE FUNCTION synchro.pusher_status(OUT remote name, OUT state text, OUT pending bigint, OUT lag interval,
		OUT last_error text, OUT last_error_at timestamptz, OUT attempts integer, OUT next_attempt timestamptz,
		OUT worker_pid integer, OUT phase text, OUT relation regclass, OUT rows_done bigint, OUT rows_total bigint,
		OUT started_at timestamptz)
	RETURNS SETOF record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'synchro_pusher_status';
COMMENT ON FUNCTION synchro.pusher_status() IS 'what the pusher of each remote is doing: for the views remotes and progress';
REVOKE ALL ON FUNCTION synchro.pusher_status() FROM PUBLIC;

CREATE VIEW synchro.remotes AS
	SELECT p.remote, p.state, p.pending, p.lag, s.checkpoint, s.last_success, p.last_error, p.last_error_at,
		   p.attempts, p.next_attempt, s.inserted, s.updated, s.deleted, s.skipped,
		   (SELECT pg_catalog.count(*) FROM synchro.parked f WHERE f.server OPERATOR(pg_catalog.=) p.remote) OPERATOR(pg_catalog.+)
		   (SELECT pg_catalog.count(*) FROM synchro.stalled f WHERE f.server OPERATOR(pg_catalog.=) p.remote) AS failed, p.worker_pid,
		   s.clock_offset OPERATOR(pg_catalog.*) '1 microsecond'::interval AS clock_offset
	FROM synchro.pusher_status() p
		 LEFT JOIN synchro.remote_state s ON s.server OPERATOR(pg_catalog.=) p.remote;
COMMENT ON VIEW synchro.remotes IS 'state of each remote: what is pending (log entries, and rows of tables that are copied) and since when, the last success and error, rows pushed so far';

CREATE VIEW synchro.progress AS
	SELECT p.remote, p.phase, p.relation, p.rows_done, p.rows_total, p.started_at
	FROM synchro.pusher_status() p
	WHERE p.phase IS NOT NULL;
COMMENT ON VIEW synchro.progress IS 'passes that are under way';
