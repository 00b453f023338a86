/*-------------------------------------------------------------------------
 *
 * identities.c
 *	  Lists of rows' identities, as text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"

#include "identities.h"
#include "keyarray.h"
#include "reader.h"

/*
 * Make an empty list for identities of a table.
 */
SynchroIdentities *
synchro_identities_create(const SynchroTable *table)
{
	SynchroIdentities *identities = palloc0(sizeof(SynchroIdentities));

	identities->nidentity = table->nidentity;
	identities->allocated = 16;
	identities->values = palloc(sizeof(char *) * identities->allocated * table->nidentity);
	return identities;
}

/*
 * Add an identity; its strings are not copied.
 */
void
synchro_identities_add(SynchroIdentities *identities, char **values)
{
	int			n = identities->nidentity;

	if (identities->count == identities->allocated)
	{
		identities->allocated *= 2;
		identities->values = repalloc(identities->values,
									  sizeof(char *) * identities->allocated * n);
		if (identities->stamps != NULL)
			identities->stamps = repalloc(identities->stamps,
										  sizeof(SynchroRowStamp) * identities->allocated);
	}
	for (int i = 0; i < n; i++)
		identities->values[identities->count * n + i] = values[i];
	identities->count++;
}

/*
 * A value as its type writes it; NULL for a NULL.
 */
static char *
written(Oid type, Datum value, bool isnull)
{
	Oid			output;
	bool		is_varlena;

	if (isnull)
		return NULL;
	getTypeOutputInfo(type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

/*
 * The values of a row that was read, as their types write them; NULL for a NULL.
 */
char **
synchro_identities_read(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	char	  **result = palloc(sizeof(char *) * Max(desc->natts, 1));

	slot_getallattrs(slot);
	for (int i = 0; i < desc->natts; i++)
		result[i] = written(TupleDescAttr(desc, i)->atttypid, slot->tts_values[i], slot->tts_isnull[i]);
	return result;
}

/*
 * Encoded values of some columns (see keycodec.h) as the types write them.
 */
char **
synchro_identities_values(const SynchroTable *table, const int *columns, int ncolumns, SynchroBytes bytes)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];
	char	  **result = palloc(sizeof(char *) * Max(ncolumns, 1));

	synchro_key_values(bytes, table, columns, ncolumns, values, nulls);
	for (int i = 0; i < ncolumns; i++)
		result[i] = written(table->columns[columns[i]].type, values[i], nulls[i]);
	return result;
}

/*
 * Values of some columns, as the types write them, encoded (see keycodec.h).
 *
 * They are values that a row has or had, so a domain's own constraints are left
 * out.  Those of domains inside of arrays and the like are not: their code runs
 * as the table's owner.
 */
SynchroBytes
synchro_identities_encode(const SynchroTable *table, const int *columns, int ncolumns, char **values)
{
	SynchroBytes result;
	SynchroReader reader;
	StringInfoData buf;

	initStringInfo(&buf);
	synchro_reader_begin_as_owner(&reader, table->relid);
	for (int i = 0; i < ncolumns; i++)
	{
		const SynchroColumn *column = &table->columns[columns[i]];
		int32		typmod = column->typmod;
		Oid			type = getBaseTypeAndTypmod(column->type, &typmod);
		Oid			input;
		Oid			param;
		Datum		value = (Datum) 0;

		getTypeInputInfo(type, &input, &param);
		if (values[i] != NULL)
			value = OidInputFunctionCall(input, values[i], param, typmod);
		synchro_key_put(&buf, value, values[i] == NULL, column->typlen, column->typbyval);
	}
	synchro_reader_end(&reader);
	result.data = buf.data;
	result.len = buf.len;
	return result;
}

/*
 * Add an identity as the log has it.
 */
void
synchro_identities_decode(SynchroIdentities *identities, const SynchroTable *table,
						  SynchroBytes bytes)
{
	synchro_identities_add(identities,
						   synchro_identities_values(table, table->identity, table->nidentity, bytes));
}

/*
 * Say when the identity that was added last was changed.  To be done for all
 * of a list, or for none.
 */
void
synchro_identities_stamp(SynchroIdentities *identities, SynchroStamp changed, TimestampTz born)
{
	SynchroRowStamp *stamp;

	if (identities->stamps == NULL)
		identities->stamps = palloc(sizeof(SynchroRowStamp) * identities->allocated);
	stamp = &identities->stamps[identities->count - 1];
	stamp->changed = changed;
	stamp->born = born;
}

/*
 * Append a value in COPY's text format.
 */
void
synchro_copy_put(StringInfo line, const char *value)
{
	if (line->len > 0)
		appendStringInfoCharMacro(line, '\t');
	if (value == NULL)
	{
		appendStringInfoString(line, "\\N");
		return;
	}
	for (const char *c = value; *c != '\0'; c++)
	{
		switch (*c)
		{
			case '\\':
				appendStringInfoString(line, "\\\\");
				break;
			case '\n':
				appendStringInfoString(line, "\\n");
				break;
			case '\r':
				appendStringInfoString(line, "\\r");
				break;
			case '\t':
				appendStringInfoString(line, "\\t");
				break;
			default:
				appendStringInfoCharMacro(line, *c);
		}
	}
}

static uint32
hash_string(const void *key, Size size)
{
	const char *string = *(const char *const *) key;

	return hash_bytes((const unsigned char *) string, strlen(string));
}

static int
match_string(const void *a, const void *b, Size size)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/*
 * Make a set of strings: its entries are pointers to them.
 */
HTAB *
synchro_string_set(MemoryContext context)
{
	return synchro_string_table(context, sizeof(char *));
}

/*
 * Make a table of entries of that size, each of which begins with a pointer
 * to its key, a string.
 */
HTAB *
synchro_string_table(MemoryContext context, Size entrysize)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(char *);
	ctl.entrysize = entrysize;
	ctl.hash = hash_string;
	ctl.match = match_string;
	ctl.hcxt = context;
	return hash_create("synchro identities", 256, &ctl,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/*
 * The values of an identity as one string, different for different ones.
 */
char *
synchro_identity_key(char **values, int count)
{
	StringInfoData joined;

	initStringInfo(&joined);
	appendStringInfoChar(&joined, '=');
	for (int i = 0; i < count; i++)
		synchro_copy_put(&joined, values[i]);
	return joined.data;
}

/*
 * A list of one identity of a list.
 */
SynchroIdentities *
synchro_identities_nth(const SynchroIdentities *identities, int n)
{
	SynchroIdentities *result = palloc0(sizeof(SynchroIdentities));

	result->nidentity = identities->nidentity;
	result->count = result->allocated = 1;
	result->values = palloc(sizeof(char *) * identities->nidentity);
	memcpy(result->values, &identities->values[n * identities->nidentity], sizeof(char *) * identities->nidentity);
	if (identities->stamps != NULL)
	{
		result->stamps = palloc(sizeof(SynchroRowStamp));
		result->stamps[0] = identities->stamps[n];
	}
	return result;
}

/*
 * Enter a list into a set of synchro_string_set(): by synchro_identity_key(), in
 * the current memory context.
 */
void
synchro_identities_enter(const SynchroIdentities *identities, HTAB *set)
{
	int			n = identities->nidentity;

	for (int i = 0; i < identities->count; i++)
	{
		char	   *key = synchro_identity_key(&identities->values[i * n], n);

		(void) hash_search(set, &key, HASH_ENTER, NULL);
	}
}

static void
filter(SynchroIdentities *identities, HTAB *set, bool wanted)
{
	int			n = identities->nidentity;
	int			kept = 0;

	for (int i = 0; i < identities->count; i++)
	{
		char	   *key = synchro_identity_key(&identities->values[i * n], n);
		bool		found = hash_search(set, &key, HASH_FIND, NULL) != NULL;

		pfree(key);
		if (found != wanted)
			continue;
		memmove(&identities->values[kept * n], &identities->values[i * n], sizeof(char *) * n);
		if (identities->stamps != NULL)
			identities->stamps[kept] = identities->stamps[i];
		kept++;
	}
	identities->count = kept;
}

/*
 * Leave in a list only what is in such a set.
 */
void
synchro_identities_intersect(SynchroIdentities *identities, HTAB *set)
{
	filter(identities, set, true);
}

/*
 * Leave in a list only what is not in such a set.
 */
void
synchro_identities_subtract(SynchroIdentities *identities, HTAB *set)
{
	filter(identities, set, false);
}

/*
 * How many identities, from number first on, follow each other without a gap,
 * as integers do that a sequence has made.  1 for all other identities.
 */
int
synchro_identities_run(const SynchroIdentities *identities, const SynchroTable *table, int first)
{
	Oid			type = table->columns[table->identity[0]].type;
	int			count = 1;
	int64		next;

	if (identities->nidentity != 1 || identities->values[first] == NULL ||
		!synchro_type_is_integer(type))
		return 1;
	next = strtoi64(identities->values[first], NULL, 10);
	while (first + count < identities->count && identities->values[first + count] != NULL &&
		   next < PG_INT64_MAX && strtoi64(identities->values[first + count], NULL, 10) == ++next)
		count++;
	return count;
}

/*
 * An identity for people: its values, joined by commas.
 */
char *
synchro_identities_text(const SynchroIdentities *identities, int position)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < identities->nidentity; i++)
	{
		const char *value = identities->values[position * identities->nidentity + i];

		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "", value != NULL ? value : "NULL");
	}
	return text.data;
}

/*
 * One of the values of some identities as an array of text.
 */
Datum
synchro_identities_array(const SynchroIdentities *identities, int first, int count, int position)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(count, 1));
	int			dimensions[1] = {count};
	int			bounds[1] = {1};

	for (int i = 0; i < count; i++)
	{
		const char *value = identities->values[(first + i) * identities->nidentity + position];

		nulls[i] = value == NULL;
		elements[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(value);
	}
	return PointerGetDatum(construct_md_array(elements, nulls, 1, dimensions, bounds,
											  TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * One of the values of some identities, read by its type.  Domains' own
 * constraints are left out, as in synchro_identities_encode().
 */
static void
read_values(const SynchroIdentities *identities, Oid type, int first, int count, int position,
			Datum *values, bool *nulls)
{
	FmgrInfo	input;
	Oid			function;
	Oid			param;

	getTypeInputInfo(type, &function, &param);
	fmgr_info(function, &input);
	for (int i = 0; i < count; i++)
	{
		char	   *value = identities->values[(first + i) * identities->nidentity + position];

		nulls[i] = value == NULL;
		values[i] = nulls[i] ? (Datum) 0 : InputFunctionCall(&input, value, param, -1);
	}
}

/*
 * Make parameters of some identities, see synchro_keyarray_params(); within
 * synchro_reader_begin(), whose role the types' code runs as.
 */
int
synchro_identities_params(const SynchroIdentities *identities, const SynchroTable *table, int first, int count,
						  Oid *types, Datum *params)
{
	Datum	   *values[INDEX_MAX_KEYS];
	bool	   *nulls[INDEX_MAX_KEYS];

	for (int i = 0; i < table->nidentity; i++)
	{
		values[i] = palloc(sizeof(Datum) * Max(count, 1));
		nulls[i] = palloc(sizeof(bool) * Max(count, 1));
		read_values(identities, getBaseType(table->columns[table->identity[i]].type), first, count, i, values[i], nulls[i]);
	}
	return synchro_keyarray_params(table, values, nulls, count, types, params);
}

/*
 * The same for the bounds of a range of identities, which are integers.
 */
int
synchro_identities_bounds(const SynchroIdentities *identities, const SynchroTable *table, int first, int count,
						  Oid *types, Datum *params)
{
	bool		isnull;

	types[0] = types[1] = table->columns[table->identity[0]].type;
	read_values(identities, types[0], first, 1, 0, &params[0], &isnull);
	read_values(identities, types[1], first + count - 1, 1, 0, &params[1], &isnull);
	return 2;
}

/*
 * Take an array of text, given as text, to pieces; NULL where null.  Returns how
 * many there are.
 */
int
synchro_identities_split(const char *array_text, char ***values)
{
	Datum		array = OidInputFunctionCall(F_ARRAY_IN, unconstify(char *, array_text), TEXTOID, -1);
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &count);
	*values = palloc(sizeof(char *) * Max(count, 1));
	for (int i = 0; i < count; i++)
		(*values)[i] = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
	return count;
}

/*
 * Encode (see keycodec.h) an identity or a name that is given as the text of
 * an array of text.
 */
SynchroBytes
synchro_identities_encode_text(const SynchroTable *table, const int *columns, int ncolumns, const char *array_text)
{
	char	  **texts;
	int			count = synchro_identities_split(array_text, &texts);

	if (count != ncolumns)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key of table %s must have %d values, not %d", table->qualified, ncolumns, count),
				 errhint("Watch the table by the same key on both sides.")));
	return synchro_identities_encode(table, columns, ncolumns, texts);
}

/*
 * The text of an array of text with encoded values.
 */
char *
synchro_identities_array_text(const SynchroTable *table, const int *columns, int ncolumns, SynchroBytes bytes)
{
	char	  **values = synchro_identities_values(table, columns, ncolumns, bytes);
	Datum	   *elements = palloc(sizeof(Datum) * Max(ncolumns, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(ncolumns, 1));
	int			dimensions[1] = {ncolumns};
	int			bounds[1] = {1};

	for (int i = 0; i < ncolumns; i++)
	{
		nulls[i] = values[i] == NULL;
		elements[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(values[i]);
	}
	return OidOutputFunctionCall(F_ARRAY_OUT,
								 PointerGetDatum(construct_md_array(elements, nulls, 1, dimensions, bounds,
																	TEXTOID, -1, false, TYPALIGN_INT)));
}
