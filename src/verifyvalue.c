/*-------------------------------------------------------------------------
 *
 * verifyvalue.c
 *	  Are two values that look different equal?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "localsql.h"
#include "reader.h"
#include "verifyvalue.h"

/*
 * Values of these types are equal only if they look the same.
 */
static bool
looks_tell(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case UUIDOID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case BYTEAOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return true;
		default:
			return get_typtype(type) == TYPTYPE_ENUM;
	}
}

/*
 * The question as SQL about two values of the type, NULL if the type has no
 * answer.  JSON that is no valid jsonb has none.
 */
static char *
question(Oid type)
{
	TypeCacheEntry *entry;

	if (type == JSONOID)
		return pstrdup("SELECT $1::jsonb = $2::jsonb");
	entry = lookup_type_cache(type, TYPECACHE_EQ_OPR);
	if (!OidIsValid(entry->eq_opr))
		return NULL;
	return psprintf("SELECT $1 %s $2", synchro_operator_name(entry->eq_opr));
}

/*
 * Is an error about the session, and not about the value that is being read?  A value
 * may name what is only on the remote, or break a rule of here, so reading it may fail
 * in many ways.
 */
static bool
is_about_session(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return true;
		default:
			return false;
	}
}

/*
 * Ask the type, as a table's owner.  Values that it cannot read are different.
 * other: see synchro_values_equal().
 */
static bool
ask(Oid type, const char *other, char *a, char *b, Oid relid)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool equal = false;
	volatile bool reading = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		Oid			asked = type;
		Oid			types[2];
		Datum		values[2];
		char	   *sql;
		Oid			input;
		Oid			param;
		SynchroSqlScope scope;
		SynchroReader reader;
		bool		isnull;

		synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
		synchro_sql_settings(false);
		synchro_reader_begin_as_owner(&reader, relid);
		if (other != NULL)
			asked = DatumGetObjectId(DirectFunctionCall1(regtypein, CStringGetDatum(other)));
		types[0] = types[1] = asked;
		sql = question(asked);

		/* not by a cast of text, which may be a function of the type's owner */
		getTypeInputInfo(asked, &input, &param);
		values[0] = OidInputFunctionCall(input, a, param, -1);
		values[1] = OidInputFunctionCall(input, b, param, -1);
		reading = false;
		if (sql != NULL)
		{
			synchro_sql_run(sql, 2, types, values, NULL);
			equal = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) && !isnull;
		}
		synchro_reader_end(&reader);
		synchro_sql_close(&scope);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = synchro_undo_subtransaction(context, owner);

		/* whatever is not about the values is not ours to keep quiet */
		if (reading ? is_about_session(error->sqlerrcode) : ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return equal;
}

/*
 * Are two values of a type equal, in the sense of its equality operator?
 *
 * other: the name of the type of the server's own that the remote has the value in;
 * then it is that one that says whether it has read the same.  NULL: it has the
 * same type.  a, b: as text, NULL where null.  relid: the table, as whose owner the
 * type's functions run.
 */
bool
synchro_values_equal(Oid type, const char *other, const char *a, const char *b, Oid relid)
{
	if (a == NULL || b == NULL)
		return a == b;
	if (strcmp(a, b) == 0)
		return true;
	type = getBaseType(type);
	if (other == NULL && (looks_tell(type) || question(type) == NULL))
		return false;
	return ask(type, other, unconstify(char *, a), unconstify(char *, b), relid);
}
