/*-------------------------------------------------------------------------
 *
 * sqltext.c
 *	  SQL text: values as text, by no cast that somebody has made.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "sqltext.h"

/* types of the server's own that a cast to text writes otherwise than they do */
typedef enum OtherText
{
	NO_OTHER_TEXT,
	OTHER_BOOLEAN,				/* true for t */
	OTHER_CHARACTER,			/* without the blanks at the end */
	OTHER_INET,					/* with a netmask that goes without saying */
	OTHER_XML					/* with the encoding that it was written in */
} OtherText;

static OtherText
other_text(const char *base)
{
	static const struct
	{
		const char *name;
		OtherText	other;
	}			types[] = {{"boolean", OTHER_BOOLEAN}, {"bpchar", OTHER_CHARACTER}, {"inet", OTHER_INET}, {"xml", OTHER_XML}};

	for (int i = 0; base != NULL && i < lengthof(types); i++)
		if (strcmp(base, types[i].name) == 0)
			return types[i].other;
	return NO_OTHER_TEXT;
}

/*
 * A value as its type writes it, as SQL.  A cast to text may be a function of
 * the type's owner, which runs as whoever reads the value; to those of the
 * server's own types nobody but a superuser can add one.
 *
 * base: the type, as in SynchroRemoteColumn; NULL: it is not the server's own.
 */
char *
synchro_sql_text(const char *value, const char *base)
{
	if (base != NULL && strchr(base, '.') == NULL && other_text(base) == NO_OTHER_TEXT)
		return psprintf("%s::text", value);
	return psprintf("CASE WHEN %s IS DISTINCT FROM NULL THEN pg_catalog.format('%%s', %s) END", value, value);
}

/*
 * A value that is given as its type writes it, as a cast to text writes it, as
 * SQL: so version 1.0 has stored identities.  NULL if that is the same.
 */
char *
synchro_sql_cast(const char *text, const char *base)
{
	OtherText	other = other_text(base);

	return other == NO_OTHER_TEXT || other == OTHER_XML ? NULL : psprintf("%s::%s::text", text, base);
}

/*
 * The text of a value, whether its type or a cast has written it, in one form for
 * both, as SQL.  It is read as text, so whatever it is that is no error.
 */
char *
synchro_sql_uniform(const char *text, const char *base)
{
	switch (other_text(base))
	{
		case OTHER_BOOLEAN:
			return psprintf("pg_catalog.left(%s, 1)", text);
		case OTHER_CHARACTER:
			return psprintf("pg_catalog.rtrim(%s, ' ')", text);
		case OTHER_INET:
			return psprintf("CASE WHEN pg_catalog.regexp_like(%s, '^[0-9.]+/32$|/128$') THEN pg_catalog.split_part(%s, '/', 1) ELSE %s END",
							text, text, text);
		default:
			return pstrdup(text);
	}
}

/*
 * JSON texts that jsonb may not be able to hold: a character that is written by its
 * number, as that may be none of the server's encoding, and a number that may be
 * too large for it.  Not worth to be told exactly.
 */
#define MAY_BE_NO_JSONB	"(pg_catalog.length(%s) > 16000 OR %s OPERATOR(pg_catalog.~) '\\\\u|[0-9][eE][+-]?[0-9]{4}')"

/*
 * A value for to_jsonb(), as SQL.  It would use a cast to json that the owner of
 * the value's type may have made, whose result nobody could read back: so of all
 * but the server's own types it gets the text.  So it does of JSON that it could
 * not hold, and of JSON that is a string, lest that be taken for such a text: see
 * undo() in conflictapi.c.
 *
 * base: the type, as in SynchroRemoteColumn.
 */
char *
synchro_sql_jsonable(const char *value, const char *base)
{
	char	   *text = synchro_sql_text(value, base);

	if (strcmp(base, "json") == 0)
		return psprintf("CASE WHEN " MAY_BE_NO_JSONB " OR pg_catalog.json_typeof(%s) OPERATOR(pg_catalog.=) 'string'"
						" THEN pg_catalog.to_jsonb(%s) ELSE pg_catalog.to_jsonb(%s) END",
						text, text, value, text, value);
	return strchr(base, '.') == NULL && strcmp(base, "json[]") != 0 ? pstrdup(value) : text;
}
