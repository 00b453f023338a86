/*-------------------------------------------------------------------------
 *
 * contentvalue.c
 *	  SQL text for a column's value, the same on every server.
 *
 * Values are compared as text, which settings of the session see to that it
 * is the same everywhere.  Where equal values may look different it is made
 * the same as far as SQL can do that at little cost: whoever finds a
 * difference has to ask the type (see verifyvalue.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "applysql.h"
#include "contentvalue.h"
#include "localsql.h"

/*
 * A column's type on the side in question, without modifier and domain.  Not
 * one that only bears the name of the server's own.
 */
static const char *
base_type(const SynchroLinkTable *lt, bool there, int column)
{
	const char *base = there ? lt->remote->columns[column].base : synchro_column_base(lt->table, column);

	return base != NULL ? base : "";
}

/*
 * A column as its type writes it.
 */
char *
synchro_content_plain(const SynchroLinkTable *lt, bool there, int column, const char *alias)
{
	if (there)
		return synchro_sql_remote_column(lt, column, alias);
	return synchro_sql_column_text(lt->table, column, alias);
}

/*
 * Types that write equal values alike in some form, whatever the types are.
 */
static int
family(const char *type)
{
	static const char *const numbers[] = {
		"smallint", "integer", "bigint", "numeric", "real", "double precision", "money"
	};

	for (int i = 0; i < lengthof(numbers); i++)
		if (strcmp(type, numbers[i]) == 0)
			return 1;
	return strcmp(type, "inet") == 0 || strcmp(type, "cidr") == 0 ? 2 : 0;
}

/*
 * A column's value as text.
 *
 * Where the remote's type is another one, it has read what the type here writes: so
 * that is compared, but for blanks at the end that its type adds.
 */
char *
synchro_content_value(const SynchroLinkTable *lt, bool there, int column, const char *alias)
{
	const char *type = base_type(lt, there, column);
	const char *other = lt->remote != NULL ? base_type(lt, !there, column) : type;
	bool		alike = strcmp(type, other) == 0;
	const char *name = synchro_column_name(lt, column);
	char	   *plain = synchro_content_plain(lt, there, column, alias);
	char	   *cast = synchro_sql_cast(psprintf("%s.%s", alias, name), type);

	if (!alike && (family(type) == 0 || family(type) != family(other)))
		return strcmp(there ? type : other, "bpchar") == 0 ? psprintf("rtrim(%s, ' ')", plain) : plain;

	/* the same whatever the width, and what fingerprints are made of */
	if (cast != NULL)
		return cast;
	if (strcmp(type, "numeric") == 0)
		return psprintf("trim_scale(%s.%s)::text", alias, name);
	if (strcmp(type, "money") == 0)
		return psprintf(alike ? "%s.%s::numeric::text" : "trim_scale(%s.%s::numeric)::text", alias, name);

	/* PostgreSQL 19 writes more zeros */
	if (strcmp(type, "pg_lsn") == 0)
		return psprintf("(%s.%s - '0/0'::pg_lsn)::text", alias, name);

	/*
	 * Each writes the fewest digits that tell its values apart, but not at the
	 * same point in powers of ten; and there is a zero below zero.
	 */
	if (strcmp(type, "real") == 0 || strcmp(type, "double precision") == 0)
		return psprintf("trim_scale(%s.%s::text::numeric)::text", alias, name);
	return plain;
}

/*
 * The name of the remote's type of a column, if it is one of the server's own and
 * not that of here; else NULL.
 */
const char *
synchro_content_other_type(const SynchroLinkTable *lt, int column)
{
	const char *there = base_type(lt, true, column);

	return strchr(there, '.') != NULL || strcmp(there, base_type(lt, false, column)) == 0 ? NULL : there;
}

/*
 * The equality operator of a column's type.
 */
char *
synchro_content_equality(const SynchroLinkTable *lt, bool there, int column)
{
	if (there)
		return lt->remote->columns[column].equals;
	return synchro_equality_name(lt->table->columns[column].type);
}

/*
 * Does a value belong to a row's content?  What only this server has handed
 * out, or computes, does not; nor does an id that is pushed for new rows alone,
 * since the remote has none to give them: one that was there has its own.
 */
bool
synchro_content_counts(const SynchroLinkTable *lt, int column)
{
	const SynchroColumn *c = &lt->table->columns[column];

	if (lt->pushed != NULL)
		return lt->pushed[column] && (synchro_identity_position(lt->table, c->attnum) < 0 || synchro_identity_is_value(lt, column));
	if (c->skipped || c->generated)
		return false;
	return synchro_column_is_key(lt->table, column) || synchro_column_fk(lt, column) >= 0 ||
		synchro_identity_position(lt->table, c->attnum) < 0 || !(c->from_sequence || c->has_default) ||
		synchro_identity_beside_sequence(lt->table, column);
}
