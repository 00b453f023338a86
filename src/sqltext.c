/*-------------------------------------------------------------------------
 *
 * sqltext.c
 *	  SQL text: values as text, by no cast that somebody has made.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "sqltext.h"

/*
 * A value as its type writes it, as SQL.  A cast to text may be a function of
 * the type's owner, which runs as whoever reads the value; to those of the
 * server's own types nobody but a superuser can add one.
 */
char *
synchro_sql_text(const char *value, bool builtin)
{
	if (builtin)
		return psprintf("%s::text", value);
	return psprintf("CASE WHEN %s IS DISTINCT FROM NULL THEN pg_catalog.format('%%s', %s) END", value, value);
}

/*
 * A value for to_jsonb(), as SQL.  It would use a cast to json that the owner of
 * the value's type may have made, whose result nobody could read back: so of all
 * but the server's own types it gets the text.
 *
 * base: the type, as in SynchroRemoteColumn.
 */
char *
synchro_sql_jsonable(const char *value, const char *base)
{
	return strchr(base, '.') == NULL ? pstrdup(value) : synchro_sql_text(value, false);
}
