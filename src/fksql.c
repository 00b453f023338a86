/*-------------------------------------------------------------------------
 *
 * fksql.c
 *	  SQL text that compares foreign keys with what they reference, here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "fksql.h"
#include "localsql.h"

/*
 * The collation of a column.
 */
static Oid
collation_of(Oid relid, AttrNumber attnum)
{
	Oid			type;
	int32		typmod;
	Oid			collation;

	get_atttypetypmodcoll(relid, attnum, &type, &typmod, &collation);
	return collation;
}

/*
 * Do texts in a column differ wherever they look different?
 */
static bool
looks_tell(Oid relid, AttrNumber attnum)
{
	Oid			collation = collation_of(relid, attnum);

	return !OidIsValid(collation) || get_collation_isdeterministic(collation);
}

/*
 * Can a referencing value be compared with the parent's identity as text?
 * Only if equal values always look the same.
 */
bool
synchro_sql_fk_is_direct(const SynchroTable *table, const SynchroForeignKey *key, const SynchroTable *parent)
{
	if (!synchro_table_fk_to_identity(key, parent))
	{
		/* the same columns in another order will do, too */
		if (key->ncols != parent->nidentity)
			return false;
		for (int i = 0; i < parent->nidentity; i++)
			if (synchro_identity_position(parent, key->refcols[i]) < 0)
				return false;
	}
	for (int i = 0; i < key->ncols; i++)
	{
		Oid			here = table->columns[key->cols[i]].type;
		Oid			there = get_atttype(parent->relid, key->refcols[i]);
		bool		integers = synchro_type_is_integer(here) && synchro_type_is_integer(there);

		if (integers)
			continue;
		if (here != there || (get_typtype(here) != TYPTYPE_ENUM &&
							  here != TEXTOID && here != VARCHAROID && here != UUIDOID &&
							  here != DATEOID && here != TIMESTAMPOID &&
							  here != TIMESTAMPTZOID && here != OIDOID && here != BYTEAOID))
			return false;
		if (!looks_tell(table->relid, table->columns[key->cols[i]].attnum) ||
			!looks_tell(parent->relid, key->refcols[i]))
			return false;
	}
	return true;
}

/*
 * The collation by which two columns of a foreign key are compared, as SQL: the
 * referenced one's, as the server does it.  Nothing where both have it.
 */
char *
synchro_sql_fk_collate(const SynchroTable *table, const SynchroForeignKey *key, int i)
{
	Oid			there = collation_of(key->parent, key->refcols[i]);
	HeapTuple	tuple;
	char	   *result;

	if (!OidIsValid(there) || there == collation_of(table->relid, table->columns[key->cols[i]].attnum))
		return pstrdup("");
	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(there));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", there);
	result = psprintf(" COLLATE %s",
					  quote_qualified_identifier(get_namespace_name(((Form_pg_collation) GETSTRUCT(tuple))->collnamespace),
												 NameStr(((Form_pg_collation) GETSTRUCT(tuple))->collname)));
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Append "the row child references the row parent by that foreign key", both
 * aliases.
 */
void
synchro_sql_fk_equal(StringInfo sql, const SynchroTable *table, const SynchroForeignKey *key,
					 const char *parent, const char *child)
{
	for (int i = 0; i < key->ncols; i++)
		appendStringInfo(sql, "%s%s.%s%s %s %s.%s", i > 0 ? " AND " : "", parent,
						 quote_identifier(get_attname(key->parent, key->refcols[i], false)), synchro_sql_fk_collate(table, key, i),
						 synchro_equality_name(get_atttype(key->parent, key->refcols[i])), child,
						 quote_identifier(table->columns[key->cols[i]].name));
}
