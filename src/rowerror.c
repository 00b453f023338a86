/*-------------------------------------------------------------------------
 *
 * rowerror.c
 *	  Which errors of the remote a row can be to blame for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"
#include "rowerror.h"

/*
 * How SQLSTATEs begin for which no row is to blame.  Triggers may raise
 * whatever they like, so all others may be a row's.
 */
static const char *const others[] = {
	"08",						/* connection */
	"0A", "0B", "25", "26", "28", "2B", "2D", "34", "3B", "3D", "3F",
	"40",						/* rolled back: deadlock, serialization */
	"42",						/* names, definitions, rights */
	"53",						/* resources */
	"55",						/* locks, state of objects */
	"57",						/* shutdown, timeout */
	"58", "72", "F0", "XX001", "XX002"	/* the system, broken data */
};

/*
 * Can a row be to blame for an error with that SQLSTATE?
 */
bool
synchro_error_is_about_rows(const char *state)
{
	if (strcmp(state, SYNCHRO_MISSING_PARENTS) == 0 || strcmp(state, SYNCHRO_AMBIGUOUS_KEY) == 0)
		return true;
	for (int i = 0; i < lengthof(others); i++)
		if (strncmp(state, others[i], strlen(others[i])) == 0)
			return false;
	return true;
}

/*
 * May a row that has failed so go through together with others?  From PostgreSQL 18
 * on ON DELETE RESTRICT has an SQLSTATE of its own, 23001.
 */
bool
synchro_error_may_need_others(const char *state)
{
	return strcmp(state, SYNCHRO_MISSING_PARENTS) == 0 || strcmp(state, "23503") == 0 || strcmp(state, "23001") == 0 ||
		strcmp(state, "23505") == 0 || strcmp(state, "23P01") == 0;
}

/*
 * Append a condition: no row can be to blame for an error whose SQLSTATE is the
 * value of that expression, of errors that others than ourselves raise.
 */
void
synchro_sql_not_about_rows(StringInfo sql, const char *state)
{
	appendStringInfo(sql, "%s OPERATOR(pg_catalog.~) '^(", state);
	for (int i = 0; i < lengthof(others); i++)
		appendStringInfo(sql, "%s%s", i > 0 ? "|" : "", others[i]);
	appendStringInfoString(sql, ")'");
}
