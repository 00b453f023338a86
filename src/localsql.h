/*-------------------------------------------------------------------------
 *
 * localsql.h
 *	  SQL in the local database: the only SPI_connect, and the only bracket
 *	  of a worker's own transactions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_LOCALSQL_H
#define SYNCHRO_LOCALSQL_H

#include "executor/spi.h"
#include "tcop/dest.h"
#include "utils/resowner.h"

/* state of the session to come back to */
typedef struct SynchroSqlScope
{
	Oid			saved_user;
	int			saved_context;
	int			guc_level;		/* 0: the settings are the caller's */
} SynchroSqlScope;

/*
 * Who statements run as.  OWNER: the owner of the extension, for our own
 * tables, on behalf of a caller whose rights were checked before.
 */
#define SYNCHRO_AS_OWNER	InvalidOid

extern void synchro_sql_settings(bool session);
extern void synchro_sql_open(SynchroSqlScope *scope, Oid role);
extern void synchro_sql_open_as_caller(SynchroSqlScope *scope);
extern void synchro_sql_nested_loops(void);
extern void synchro_sql_close(SynchroSqlScope *scope);
extern uint64 synchro_sql_run(const char *sql, int nargs, const Oid *types,
							  const Datum *values, const bool *nulls);
extern uint64 synchro_sql_run_latest(const char *sql, int nargs, const Oid *types,
									 const Datum *values, const bool *nulls);
extern void synchro_sql_script(const char *sql);
extern uint64 synchro_sql_query(const char *sql, int nargs, const Oid *types,
								const Datum *values, const bool *nulls,
								DestReceiver *dest);

extern uint64 synchro_sql_query_locking(const char *sql, DestReceiver *dest);
extern List *synchro_sql_oids(const char *sql, int nargs, const Oid *types, const Datum *values,
							  MemoryContext context);
extern Portal synchro_sql_cursor(const char *sql);

/* called for each row; the slot is only good during the call */
typedef void (*SynchroRowCallback) (TupleTableSlot *slot, void *arg);

extern DestReceiver *synchro_sql_callback(SynchroRowCallback callback, void *arg);
extern char *synchro_operator_name(Oid operator);
extern char *synchro_equality_name(Oid type);
extern Oid	synchro_extension_owner(void);
extern bool synchro_sql_is_empty(const char *table);
extern Oid	synchro_extension_oid(void);

extern void synchro_local_begin(const char *activity);
extern void synchro_local_begin_locked(const char *activity, void (*lock) (void));
extern void synchro_local_durable(bool durable);
extern void synchro_local_commit(void);
extern ErrorData *synchro_undo_subtransaction(MemoryContext context, ResourceOwner owner);

#endif							/* SYNCHRO_LOCALSQL_H */
