-- foreign servers as remotes: options, rights, what follows when they change; nothing here connects
CREATE EXTENSION synchro;
CREATE ROLE regress_synchro_owner;
CREATE ROLE regress_synchro_other;
CREATE VIEW regress_remotes AS
	SELECT r.server, r.paused, s.snapshot, s.keys_snapshot, s.checkpoint = now() AS just_now, s.last_success, s.inserted
	FROM synchro.remote r LEFT JOIN synchro.remote_state s USING (server) ORDER BY r.server;

--
-- options
--
CREATE SERVER office FOREIGN DATA WRAPPER synchro_fdw
	OPTIONS (host 'db.office', hostaddr '127.0.0.1', port '5432', dbname 'shop', sslmode 'prefer', connect_timeout '3', application_name 'a');
CREATE USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (user 'sync', password 'secret');
ALTER SERVER office OPTIONS (ADD sslrootcert '/root.crt', ADD passfile '/passfile', SET port '5433', DROP application_name);
ALTER USER MAPPING FOR CURRENT_USER SERVER office OPTIONS (ADD sslkey '/key', ADD sslcert '/cert', SET password 'secret2');
CREATE SERVER bad FOREIGN DATA WRAPPER synchro_fdw OPTIONS (hots 'db.office');
\echo :LAST_ERROR_SQLSTATE
CREATE SERVER bad FOREIGN DATA WRAPPER synchro_fdw OPTIONS (user 'sync');
CREATE SERVER bad FOREIGN DATA WRAPPER synchro_fdw OPTIONS (password 'secret');
CREATE SERVER bad FOREIGN DATA WRAPPER synchro_fdw OPTIONS (client_encoding 'UTF8');
CREATE SERVER bad FOREIGN DATA WRAPPER synchro_fdw OPTIONS (fallback_application_name 'a');
CREATE SERVER bad FOREIGN DATA WRAPPER synchro_fdw OPTIONS (options '-c work_mem=1');
ALTER SERVER office OPTIONS (ADD pasword 'secret');
-- the hint lists all the options of this libpq
\set VERBOSITY terse
CREATE SERVER bad FOREIGN DATA WRAPPER synchro_fdw OPTIONS (fetch_size '1');
\set VERBOSITY default
CREATE USER MAPPING FOR PUBLIC SERVER office OPTIONS (host 'db.office');
CREATE USER MAPPING FOR PUBLIC SERVER office OPTIONS (usr 'sync');
CREATE USER MAPPING FOR PUBLIC SERVER office OPTIONS (nonsense 'secret');
ALTER FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host 'db.office');
CREATE FOREIGN TABLE bad (a int) SERVER office OPTIONS (table_name 'a');
SELECT srvoptions FROM pg_foreign_server WHERE srvname IN ('office', 'bad');

--
-- add and remove
--
SELECT synchro.add_remote('nowhere');
\echo :LAST_ERROR_SQLSTATE
SELECT synchro.add_remote(NULL);
SELECT synchro.add_remote('office');
SELECT synchro.add_remote('office');
\echo :LAST_ERROR_SQLSTATE
CREATE FOREIGN DATA WRAPPER regress_synchro_fdw;
CREATE SERVER regress_synchro_stranger FOREIGN DATA WRAPPER regress_synchro_fdw;
SELECT synchro.add_remote('regress_synchro_stranger');
\echo :LAST_ERROR_SQLSTATE
SELECT synchro.remove_remote('nowhere');
SELECT synchro.remove_remote('regress_synchro_stranger');
BEGIN;
SELECT synchro.remove_remote('office');
SELECT * FROM regress_remotes;
SELECT synchro.add_remote('office');
SELECT * FROM regress_remotes;
COMMIT;

--
-- another wrapper's servers, odd names
--
CREATE FOREIGN DATA WRAPPER postgres_fdw;
CREATE SERVER "Büro ""Nord" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nord', fetch_size '10');
SELECT synchro.add_remote('Büro "Nord');
SELECT server FROM regress_remotes;

--
-- the owner, and others
--
GRANT USAGE ON FOREIGN DATA WRAPPER synchro_fdw TO regress_synchro_owner;
GRANT USAGE ON SCHEMA synchro TO regress_synchro_owner, regress_synchro_other;
GRANT EXECUTE ON FUNCTION synchro.add_remote, synchro.remove_remote TO regress_synchro_owner, regress_synchro_other;
SET ROLE regress_synchro_owner;
CREATE SERVER branch FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host 'db.branch', passfile '/passfile');
CREATE SERVER branch FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host 'db.branch', sslrootcert '/root.crt');
CREATE SERVER branch FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host 'db.branch', service 'branch');
\echo :LAST_ERROR_SQLSTATE
CREATE SERVER branch FOREIGN DATA WRAPPER synchro_fdw OPTIONS (host 'db.branch');
CREATE USER MAPPING FOR CURRENT_USER SERVER branch OPTIONS (user 'sync', sslkey '/key');
CREATE USER MAPPING FOR CURRENT_USER SERVER branch OPTIONS (user 'sync', password 'secret');
SELECT synchro.add_remote('branch');
SELECT synchro.add_remote('regress_synchro_stranger');
SELECT synchro.remove_remote('office');
SET ROLE regress_synchro_other;
SELECT synchro.remove_remote('branch');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT server FROM regress_remotes;
-- nothing of ours holds a secret
SELECT count(*) FROM synchro.remote r WHERE r::text ~ 'secret';

--
-- renamed, dropped
--
SET ROLE regress_synchro_owner;
ALTER SERVER branch RENAME TO outpost;
RESET ROLE;
ALTER SERVER "Büro ""Nord" RENAME TO nord;
SELECT server, snapshot IS NOT NULL AS has_state FROM regress_remotes;
DROP SERVER nord;
SET ROLE regress_synchro_owner;
DROP SERVER outpost CASCADE;
RESET ROLE;
SELECT server, snapshot IS NOT NULL AS has_state FROM regress_remotes;
SELECT count(*) FROM synchro.remote_state;

--
-- all goes with the extension, without CASCADE: servers of ours, those that
-- are no remotes too, and mappings made after add_remote; not the others
--
CREATE SERVER unused FOREIGN DATA WRAPPER synchro_fdw;
CREATE USER MAPPING FOR regress_synchro_other SERVER office OPTIONS (user 'sync');
CREATE USER MAPPING FOR PUBLIC SERVER unused;
CREATE SERVER west FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'west');
SELECT synchro.add_remote('west');
REVOKE ALL ON FOREIGN DATA WRAPPER synchro_fdw FROM regress_synchro_owner;
DROP VIEW regress_remotes;
DROP EXTENSION synchro;
SELECT srvname FROM pg_foreign_server ORDER BY 1;
SELECT count(*) FROM pg_user_mapping;
SELECT fdwname FROM pg_foreign_data_wrapper ORDER BY 1;
SELECT evtname FROM pg_event_trigger WHERE evtname ~ 'synchro';
SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'x';

DROP SERVER west;
DROP SERVER regress_synchro_stranger;
DROP FOREIGN DATA WRAPPER postgres_fdw;
DROP FOREIGN DATA WRAPPER regress_synchro_fdw;
DROP ROLE regress_synchro_owner, regress_synchro_other;
