/*-------------------------------------------------------------------------
 *
 * synchro.h
 *	  Names and enums that every room shares; nothing else.
 *
 * Words used all over (see README.md): a *change* is one log entry's
 * statement that a row was inserted, updated or deleted; a *batch* is what is
 * applied in one remote transaction; a *pass* goes from "what is pending" to
 * "nothing is pending"; a *checkpoint* is the transaction snapshot up to which
 * a remote has been brought.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_H
#define SYNCHRO_H

/* the extension, and the schema that its install script creates */
#define SYNCHRO_EXTENSION	"synchro"
#define SYNCHRO_SCHEMA		"synchro"

/* what our own servers are made with */
#define SYNCHRO_FDW			"synchro_fdw"

/* where a remote without the extension keeps position and references */
#define SYNCHRO_PEER_SCHEMA "synchro_peer"

/*
 * SQL on a remote, a subquery: the function that tells which node it is, as oid.
 * No row if it is none: anybody's functions in a schema of that name are not the
 * extension's, and must not run with our rights.  Needs no rights there.
 */
#define SYNCHRO_PEER_NODE_FUNCTION \
	"(SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace" \
	" JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'" \
	" JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid" \
	" WHERE n.nspname = '" SYNCHRO_SCHEMA "' AND p.proname = 'peer_node' AND p.pronargs = 0 AND e.extname = '" SYNCHRO_EXTENSION "')"

/* what to do if what the log says cannot be relied on */
#define SYNCHRO_LOG_DAMAGED_HINT \
	"Run synchro.reset() for each remote, with keep_references => true, then update the rows that it lacks, so that they are logged anew."

/* in SQL, tells a NULL of any type: a composite value of NULLs IS NULL, but is none */
#define SYNCHRO_SQL_IS_NULL		"IS NOT DISTINCT FROM NULL"

/* triggers on watched tables, and on tables inside a natural key */
#define SYNCHRO_ROW_TRIGGER		 "synchro_capture"
#define SYNCHRO_TRUNCATE_TRIGGER "synchro_truncate"

/* what a log entry says happened to a row; values are stored in the log */
typedef enum SynchroOp
{
	SYNCHRO_OP_INSERT = 0,
	SYNCHRO_OP_UPDATE = 1,
	SYNCHRO_OP_DELETE = 2
} SynchroOp;

/* how the rows of a table are found on the remote */
typedef enum SynchroMode
{
	SYNCHRO_MODE_NONE,			/* no usable key: cannot be watched */
	SYNCHRO_MODE_NATURAL_KEY,	/* by registered natural key */
	SYNCHRO_MODE_PRIMARY_KEY,	/* by a primary key that no sequence makes */
	SYNCHRO_MODE_REFERENCE		/* by the stored pair of primary keys */
} SynchroMode;

#endif							/* SYNCHRO_H */
