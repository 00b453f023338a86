/*-------------------------------------------------------------------------
 *
 * localsql.c
 *	  SQL in the local database: the only SPI_connect, and the only bracket
 *	  of a worker's own transactions.
 *
 * Every statement runs with search_path = pg_catalog, pg_temp, so that no
 * name in it can be captured by an object of the caller's, and as the role
 * that it is meant to have.  An error leaves through the transaction's abort,
 * which restores user, settings and SPI by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_operator.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "localsql.h"
#include "sequence.h"
#include "synchro.h"

static bool is_worker = false;	/* synchro_local_begin() has been called */
static Oid	workers_owner = InvalidOid; /* as its transaction at hand knows it */

/*
 * Oid of the extension, or an error with the advice to create it.
 */
Oid
synchro_extension_oid(void)
{
	Oid			oid = get_extension_oid(SYNCHRO_EXTENSION, true);

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database",
						SYNCHRO_EXTENSION),
				 errhint("Run CREATE EXTENSION %s.", SYNCHRO_EXTENSION)));
	return oid;
}

/*
 * The role that owns the extension, hence its tables and functions.  A worker
 * asks once in a transaction.
 */
Oid
synchro_extension_owner(void)
{
	Oid			extension;
	Relation	rel;
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	if (OidIsValid(workers_owner))
		return workers_owner;
	extension = synchro_extension_oid();
	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key[0], Anum_pg_extension_oid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!OidIsValid(owner))
		elog(ERROR, "could not find the owner of extension \"%s\"", SYNCHRO_EXTENSION);
	if (is_worker)
		workers_owner = owner;
	return owner;
}

/*
 * Has a table of the extension's no pages, so no rows, or is it not there at
 * all?  Most of those that are read in each pass have none, and to begin a
 * query takes more time than to see that.
 */
bool
synchro_sql_is_empty(const char *table)
{
	Oid			relid = synchro_own_relation(table, true);
	Relation	rel = OidIsValid(relid) ? try_table_open(relid, AccessShareLock) : NULL;
	bool		empty;

	if (rel == NULL)
		return true;
	empty = RelationGetNumberOfBlocks(rel) == 0;
	table_close(rel, AccessShareLock);
	return empty;
}

/*
 * Make the settings that rows are read with: each value and name has one form as
 * text, and no row is hidden.
 *
 * session: for good; else until the scope that was opened last is closed.
 */
void
synchro_sql_settings(bool session)
{
	static const char *const settings[][2] = {
		{"datestyle", "ISO, YMD"},
		{"intervalstyle", "postgres"},
		{"timezone", "UTC"},
		{"extra_float_digits", "3"},
		{"bytea_output", "hex"},
		{"lc_monetary", "C"},
		{"array_nulls", "on"},
		{"quote_all_identifiers", "off"},
		{"row_security", "off"},
		{"jit", "off"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		if (session)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
		else
			(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Begin a stretch of SQL in the current transaction.
 *
 * scope: filled here, to be handed to synchro_sql_close() on the way out.
 * role: who the statements run as, or SYNCHRO_AS_OWNER.
 */
void
synchro_sql_open(SynchroSqlScope *scope, Oid role)
{
	int			restriction = SECURITY_LOCAL_USERID_CHANGE;

	/*
	 * As another role we touch that role's tables, whose indexes, policies
	 * and types may call functions of anyone's: those must not leave anything
	 * behind in the session.
	 */
	if (OidIsValid(role))
		restriction |= SECURITY_RESTRICTED_OPERATION;
	else
		role = synchro_extension_owner();

	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&scope->saved_user, &scope->saved_context);
	SetUserIdAndSecContext(role, scope->saved_context | restriction);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

/*
 * The same for statements that are to be the caller's own: with the caller's
 * rights and settings, so names and operators in them need their schema.
 */
void
synchro_sql_open_as_caller(SynchroSqlScope *scope)
{
	scope->guc_level = 0;
	GetUserIdAndSecContext(&scope->saved_user, &scope->saved_context);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

/*
 * Have statements planned with nested loops until the scope that was opened last
 * is closed.  A batch of another node that decides has them off: then a query for
 * rows by their identities would read all of a table.
 */
void
synchro_sql_nested_loops(void)
{
	(void) set_config_option("enable_nestloop", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/*
 * End what synchro_sql_open() or synchro_sql_open_as_caller() began.
 */
void
synchro_sql_close(SynchroSqlScope *scope)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	SetUserIdAndSecContext(scope->saved_user, scope->saved_context);
	if (scope->guc_level > 0)
		AtEOXact_GUC(false, scope->guc_level);
}

/*
 * Plans that a worker keeps: for a pass of one row, planning is most of the
 * work.  The server makes them anew when something that they depend on has
 * changed, the role and search_path among them.  There are only so many
 * statements, a few for each table; what is too much is planned each time.
 */
#define KEPT_PLANS		128
#define KEPT_LENGTH		8192

typedef struct KeptPlan
{
	uint32		hash;
	char	   *sql;
	int			nargs;
	Oid		   *types;			/* one that was made again has another OID */
	SPIPlanPtr	plan;
} KeptPlan;

static KeptPlan kept_plans[KEPT_PLANS];
static int	nkept_plans = 0;

static SPIPlanPtr
prepare(const char *sql, int nargs, const Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(sql, nargs, unconstify(Oid *, types));

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql,
			 SPI_result_code_string(SPI_result));
	return plan;
}

/*
 * The plan of a statement; *keep is set if it is not to be freed.
 */
static SPIPlanPtr
get_plan(const char *sql, int nargs, const Oid *types, bool *keep)
{
	size_t		len = strlen(sql);
	uint32		hash;
	KeptPlan   *entry;
	SPIPlanPtr	plan;

	*keep = false;
	if (MyBgworkerEntry == NULL || len > KEPT_LENGTH)
		return prepare(sql, nargs, types);
	hash = hash_bytes((const unsigned char *) sql, (int) len);
	for (int i = 0; i < nkept_plans; i++)
		if (kept_plans[i].hash == hash && strcmp(kept_plans[i].sql, sql) == 0 && kept_plans[i].nargs == nargs &&
			(nargs == 0 || memcmp(kept_plans[i].types, types, sizeof(Oid) * nargs) == 0))
		{
			*keep = true;
			return kept_plans[i].plan;
		}
	plan = prepare(sql, nargs, types);
	if (nkept_plans == KEPT_PLANS)
		return plan;
	entry = &kept_plans[nkept_plans];
	entry->hash = hash;
	entry->sql = MemoryContextStrdup(TopMemoryContext, sql);
	entry->nargs = nargs;
	entry->types = MemoryContextAlloc(TopMemoryContext, sizeof(Oid) * Max(nargs, 1));
	if (nargs > 0)
		memcpy(entry->types, types, sizeof(Oid) * nargs);
	entry->plan = plan;
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_keepplan failed");
	nkept_plans++;
	*keep = true;
	return plan;
}

static uint64
run(const char *sql, int nargs, const Oid *types, const Datum *values, const bool *nulls, bool latest)
{
	char	   *null_chars = NULL;
	SPIPlanPtr	plan;
	bool		keep;
	int			rc;

	if (nulls != NULL)
	{
		null_chars = palloc(nargs + 1);
		for (int i = 0; i < nargs; i++)
			null_chars[i] = nulls[i] ? 'n' : ' ';
		null_chars[nargs] = '\0';
	}
	plan = get_plan(sql, nargs, types, &keep);
	rc = SPI_execute_snapshot(plan, unconstify(Datum *, values), null_chars,
							  latest ? GetLatestSnapshot() : InvalidSnapshot, InvalidSnapshot, false, true, 0);
	if (rc < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(rc));
	if (!keep)
		SPI_freeplan(plan);
	return SPI_processed;
}

/*
 * Run one statement that may write; its rows are in SPI_tuptable.
 *
 * nulls may be NULL where no argument is.  Returns the number of rows.
 */
uint64
synchro_sql_run(const char *sql, int nargs, const Oid *types,
				const Datum *values, const bool *nulls)
{
	return run(sql, nargs, types, values, nulls, false);
}

/*
 * The same, but it also sees what others have committed since a transaction in
 * REPEATABLE READ has taken its snapshot, as DDL does.
 */
uint64
synchro_sql_run_latest(const char *sql, int nargs, const Oid *types,
					   const Datum *values, const bool *nulls)
{
	return run(sql, nargs, types, values, nulls, true);
}

/*
 * Run several statements without parameters, of which later ones may use what
 * earlier ones make.
 */
void
synchro_sql_script(const char *sql)
{
	int			rc = SPI_execute(sql, false, 0);

	if (rc < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(rc));
}

static uint64
run_query(const char *sql, bool read_only, int nargs, const Oid *types,
		  const Datum *values, const bool *nulls, DestReceiver *dest)
{
	ParamListInfo params = makeParamList(nargs);
	SPIPlanPtr	plan;
	SPIExecuteOptions execute = {0};
	bool		keep;
	int			rc;

	for (int i = 0; i < nargs; i++)
	{
		ParamExternData *param = &params->params[i];

		param->value = values[i];
		param->isnull = nulls != NULL && nulls[i];
		param->pflags = PARAM_FLAG_CONST;
		param->ptype = types[i];
	}
	plan = get_plan(sql, nargs, types, &keep);
	execute.params = params;
	execute.read_only = read_only;
	execute.dest = dest;
	rc = SPI_execute_plan_extended(plan, &execute);
	if (rc < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(rc));
	if (!keep)
		SPI_freeplan(plan);
	return SPI_processed;
}

/*
 * Run one query under the active snapshot and hand its rows to dest, without
 * a tuplestore in between.  Returns the number of rows.
 */
uint64
synchro_sql_query(const char *sql, int nargs, const Oid *types,
				  const Datum *values, const bool *nulls, DestReceiver *dest)
{
	return run_query(sql, true, nargs, types, values, nulls, dest);
}

/*
 * The same for a query that locks rows.  It takes a snapshot of its own.
 */
uint64
synchro_sql_query_locking(const char *sql, DestReceiver *dest)
{
	return run_query(sql, false, 0, NULL, NULL, NULL, dest);
}

/*
 * Run a query whose only column is an OID: those of its rows, as a list in a
 * memory context.
 */
List *
synchro_sql_oids(const char *sql, int nargs, const Oid *types, const Datum *values, MemoryContext context)
{
	List	   *result = NIL;

	synchro_sql_run(sql, nargs, types, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			oid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		MemoryContext old = MemoryContextSwitchTo(context);

		result = lappend_oid(result, oid);
		MemoryContextSwitchTo(old);
	}
	return result;
}

/*
 * Open a cursor for a query under the active snapshot; of the present scope.
 * Leaves the memory context alone.
 */
Portal
synchro_sql_cursor(const char *sql)
{
	MemoryContext old = CurrentMemoryContext;
	Portal		portal = SPI_cursor_open(NULL, prepare(sql, 0, NULL), NULL, NULL, true);

	MemoryContextSwitchTo(old);
	return portal;
}

/*
 * An operator's name as SQL writes it, with its schema.
 */
char *
synchro_operator_name(Oid operator)
{
	char	   *name = get_opname(operator);
	Oid			schema = InvalidOid;
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));

	if (HeapTupleIsValid(tuple))
	{
		schema = ((Form_pg_operator) GETSTRUCT(tuple))->oprnamespace;
		ReleaseSysCache(tuple);
	}
	if (name == NULL || !OidIsValid(schema))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	return psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(schema)), name);
}

/*
 * The equality operator of a type, likewise.  Error if it has none.
 */
char *
synchro_equality_name(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR);

	if (!OidIsValid(entry->eq_opr))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("could not identify an equality operator for type %s",
						format_type_be(type))));
	return synchro_operator_name(entry->eq_opr);
}

/* a receiver that calls a function for each row */
typedef struct CallbackReceiver
{
	DestReceiver pub;
	SynchroRowCallback callback;
	void	   *arg;
} CallbackReceiver;

static void
callback_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static bool
callback_receive(TupleTableSlot *slot, DestReceiver *self)
{
	CallbackReceiver *receiver = (CallbackReceiver *) self;

	receiver->callback(slot, receiver->arg);
	return true;
}

static void
callback_shutdown(DestReceiver *self)
{
}

static void
callback_destroy(DestReceiver *self)
{
	pfree(self);
}

/*
 * A receiver for synchro_sql_query(), in the current memory context, that
 * calls back for each row.
 */
DestReceiver *
synchro_sql_callback(SynchroRowCallback callback, void *arg)
{
	CallbackReceiver *receiver = palloc0(sizeof(CallbackReceiver));

	receiver->pub.receiveSlot = callback_receive;
	receiver->pub.rStartup = callback_startup;
	receiver->pub.rShutdown = callback_shutdown;
	receiver->pub.rDestroy = callback_destroy;
	receiver->pub.mydest = DestNone;
	receiver->callback = callback;
	receiver->arg = arg;
	return &receiver->pub;
}

/*
 * Begin a transaction of a background worker's, with an active snapshot, and
 * with the settings of now: SIGHUP counts from the next batch on.
 *
 * activity: what pg_stat_activity shows meanwhile.
 */
void
synchro_local_begin(const char *activity)
{
	synchro_local_begin_locked(activity, NULL);
}

/*
 * The same; lock is called before the snapshot is taken.
 */
void
synchro_local_begin_locked(const char *activity, void (*lock) (void))
{
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	is_worker = true;
	workers_owner = InvalidOid;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, activity);
	if (lock != NULL)
		lock();
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * Is the transaction at hand to be on disk when its commit returns, whatever
 * the settings are?
 */
void
synchro_local_durable(bool durable)
{
	(void) set_config_option("synchronous_commit", durable ? "local" : "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Commit it.  What is to live on must be in a memory context that outlives
 * the transaction.
 */
void
synchro_local_commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * In PG_CATCH(): roll the internal subtransaction back in which an error was
 * raised, and return that error, in the given context.
 *
 * context, owner: those that were current before the subtransaction began; they
 * are again.
 */
ErrorData *
synchro_undo_subtransaction(MemoryContext context, ResourceOwner owner)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}
