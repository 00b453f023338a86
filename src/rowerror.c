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

/* how those begin which are about names, definitions and rights */
static const char *const definitions[] = {"42", "0A", "3F", "55000"};

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
 * Is it about names, definitions or rights?  A table's as a rule, see stalled.c;
 * but a value may be such a name.
 */
bool
synchro_error_is_about_definitions(const char *state)
{
	for (int i = 0; i < lengthof(definitions); i++)
		if (strncmp(state, definitions[i], strlen(definitions[i])) == 0)
			return true;
	return false;
}

/*
 * Can a deferred trigger there have raised it, which a row may pass together with
 * others?  What is no constraint's and no value's.
 */
bool
synchro_error_may_be_deferred(const char *state)
{
	return synchro_error_is_about_rows(state) && strncmp(state, "22", 2) != 0 &&
		strcmp(state, "23502") != 0 && strcmp(state, "23514") != 0;
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

static void
append_begins_with(StringInfo sql, const char *state, const char *const *beginnings, int count)
{
	appendStringInfo(sql, "%s OPERATOR(pg_catalog.~) '^(", state);
	for (int i = 0; i < count; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? "|" : "", beginnings[i]);
	appendStringInfoString(sql, ")'");
}

/*
 * Append a condition: no row can be to blame for an error whose SQLSTATE is the
 * value of that expression, of errors that others than ourselves raise.
 */
void
synchro_sql_not_about_rows(StringInfo sql, const char *state)
{
	append_begins_with(sql, state, others, lengthof(others));
}

/*
 * Append a condition: it is about names, definitions or rights.
 */
void
synchro_sql_about_definitions(StringInfo sql, const char *state)
{
	append_begins_with(sql, state, definitions, lengthof(definitions));
}
