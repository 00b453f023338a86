/*-------------------------------------------------------------------------
 *
 * keycodec.c
 *	  Keys as bytes: how the log stores which rows changed.
 *
 * The bytes are those of the server's own datums (varlena payload without its
 * header, never toasted or compressed), so nothing that can fail runs in the
 * user's transaction.  They never leave the server.
 *
 * A log may be damaged like any other table, and the server's functions trust
 * their datums: an array with a wrong length in it is read beyond its end, and
 * the server goes down.  No check of ours could tell for each type.  So what is
 * stored is sealed by a checksum, and nothing is made of bytes that are not
 * those that were written.  What reads them checks every length all the same:
 * a checksum can be right by chance.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "port/pg_crc32c.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "compat.h"
#include "keycodec.h"

static void
put_length(StringInfo buf, uint32 len)
{
	while (len >= 0x80)
	{
		appendStringInfoCharMacro(buf, (char) (len | 0x80));
		len >>= 7;
	}
	appendStringInfoCharMacro(buf, (char) len);
}

/*
 * A copy in the current memory context.
 */
SynchroBytes
synchro_key_copy(SynchroBytes bytes)
{
	SynchroBytes copy;

	copy.data = memcpy(palloc(Max(bytes.len, 1)), bytes.data, bytes.len);
	copy.len = bytes.len;
	return copy;
}

/*
 * Append one value.
 */
void
synchro_key_put(StringInfo buf, Datum value, bool isnull, int16 typlen, bool typbyval)
{
	Datum		aligned;

	if (isnull)
		put_length(buf, 0);
	else if (typbyval)
	{
		/* the payload is not aligned, and not every machine takes that */
		store_att_byval((char *) &aligned, value, typlen);
		put_length(buf, typlen + 1);
		appendBinaryStringInfo(buf, (char *) &aligned, typlen);
	}
	else if (typlen > 0)
	{
		put_length(buf, typlen + 1);
		appendBinaryStringInfo(buf, DatumGetPointer(value), typlen);
	}
	else if (typlen == -1)
	{
		struct varlena *packed = PG_DETOAST_DATUM_PACKED(value);
		int			len = VARSIZE_ANY_EXHDR(packed);

		put_length(buf, len + 1);
		appendBinaryStringInfo(buf, VARDATA_ANY(packed), len);
		if ((Pointer) packed != DatumGetPointer(value))
			pfree(packed);
	}
	else
	{
		const char *string = DatumGetCString(value);
		int			len = strlen(string);

		put_length(buf, len + 1);
		appendBinaryStringInfo(buf, string, len);
	}
}

/*
 * Append values of the given columns (indexes of table->columns).
 */
void
synchro_key_put_values(StringInfo buf, const SynchroTable *table, const int *columns, int ncolumns,
					   const Datum *values, const bool *nulls)
{
	for (int i = 0; i < ncolumns; i++)
	{
		const SynchroColumn *column = &table->columns[columns[i]];

		synchro_key_put(buf, values[i], nulls[i], column->typlen, column->typbyval);
	}
}

/*
 * Append when and where the record's change was first made.
 */
void
synchro_key_put_stamp(StringInfo buf, SynchroStamp stamp)
{
	appendBinaryStringInfo(buf, (char *) &stamp.at, sizeof(stamp.at));
	put_length(buf, (uint32) stamp.source);
}

/*
 * Raise the error that there are bytes in the log that are no keys.
 */
void
synchro_key_damaged(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("damaged key in the change log"),
			 errhint(SYNCHRO_LOG_DAMAGED_HINT)));
}

static pg_crc32c
checksum(const char *data, int len, Oid relation, uint32 layout)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &relation, sizeof(relation));
	COMP_CRC32C(crc, &layout, sizeof(layout));
	COMP_CRC32C(crc, data, len);
	FIN_CRC32C(crc);
	return crc;
}

/*
 * Seal what the buffer holds from start on, of a table with that layout.
 */
void
synchro_key_seal(StringInfo buf, int start, Oid relation, uint32 layout)
{
	pg_crc32c	crc = checksum(buf->data + start, buf->len - start, relation, layout);

	appendBinaryStringInfo(buf, (char *) &crc, sizeof(crc));
}

/*
 * A sealed copy, as a datum of type bytea.
 */
Datum
synchro_key_sealed(SynchroBytes bytes, Oid relation, uint32 layout)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, bytes.data, bytes.len);
	synchro_key_seal(&buf, 0, relation, layout);
	return PointerGetDatum(cstring_to_text_with_len(buf.data, buf.len));
}

/*
 * What was sealed; not copied.
 */
SynchroBytes
synchro_key_unseal(SynchroBytes bytes, Oid relation, uint32 layout)
{
	pg_crc32c	crc;

	if (bytes.len < (int) sizeof(crc))
		synchro_key_damaged();
	bytes.len -= sizeof(crc);
	memcpy(&crc, bytes.data + bytes.len, sizeof(crc));
	if (!EQ_CRC32C(crc, checksum(bytes.data, bytes.len, relation, layout)))
		synchro_key_damaged();
	return bytes;
}

static const char *
next_length(const char *pos, const char *end, uint32 *len)
{
	int			shift = 0;
	uint8		byte;

	*len = 0;
	do
	{
		if (pos >= end || shift > 28)
			synchro_key_damaged();
		byte = (uint8) *pos++;
		*len |= (uint32) (byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80);
	return pos;
}

/*
 * Step over one value; sets its payload, data NULL for a null.
 */
static const char *
next_value(const char *pos, const char *end, SynchroBytes *value)
{
	uint32		len;

	pos = next_length(pos, end, &len);
	if (len == 0)
	{
		value->data = NULL;
		value->len = 0;
		return pos;
	}
	len--;
	if (len > (uint32) (end - pos))
		synchro_key_damaged();
	value->data = pos;
	value->len = len;
	return pos + len;
}

static const char *
next_stamp(const char *pos, const char *end, SynchroStamp *stamp)
{
	uint32		source;

	if (end - pos < (int) sizeof(stamp->at))
		synchro_key_damaged();
	memcpy(&stamp->at, pos, sizeof(stamp->at));
	pos = next_length(pos + sizeof(stamp->at), end, &source);
	stamp->source = (int32) source;
	return pos;
}

static const char *
next_values(const char *pos, const char *end, int count, SynchroBytes *run)
{
	SynchroBytes value;

	run->data = pos;
	for (int i = 0; i < count; i++)
		pos = next_value(pos, end, &value);
	run->len = pos - run->data;
	return pos;
}

/*
 * An integer of any width: it may have been logged before its type was
 * altered.
 */
static int64
read_integer(SynchroBytes value)
{
	int16		two;
	int32		four;
	int64		eight;

	switch (value.len)
	{
		case sizeof(two):
			memcpy(&two, value.data, sizeof(two));
			return two;
		case sizeof(four):
			memcpy(&four, value.data, sizeof(four));
			return four;
		case sizeof(eight):
			memcpy(&eight, value.data, sizeof(eight));
			return eight;
		default:
			synchro_key_damaged();
	}
	return 0;
}

static Datum
make_integer(int64 number, int16 typlen)
{
	if (typlen == sizeof(int16))
		return Int16GetDatum((int16) number);
	if (typlen == sizeof(int32))
		return Int32GetDatum((int32) number);
	return Int64GetDatum(number);
}

static bool
integer_fits(int64 number, int16 typlen)
{
	if (typlen == sizeof(int16))
		return number == (int16) number;
	return typlen != sizeof(int32) || number == (int32) number;
}

/*
 * Write integers of an identity as wide as the columns are now.  What has no
 * room there cannot be the identity of any row that is there: it stays as it
 * is, and so is equal to none.
 */
static SynchroBytes
fit_integers(SynchroBytes bytes, const SynchroTable *table, StringInfo buf)
{
	const char *pos = bytes.data;
	const char *end = bytes.data + bytes.len;

	if (buf->data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(buf);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(buf);
	for (int i = 0; i < table->nidentity; i++)
	{
		const SynchroColumn *column = &table->columns[table->identity[i]];
		const char *start = pos;
		SynchroBytes value;

		pos = next_value(pos, end, &value);
		if (value.data != NULL && synchro_type_is_integer(column->type) && integer_fits(read_integer(value), column->typlen))
			synchro_key_put(buf, make_integer(read_integer(value), column->typlen), false, column->typlen, column->typbyval);
		else
			appendBinaryStringInfo(buf, start, pos - start);
	}
	return (SynchroBytes) {buf->data, buf->len};
}

/*
 * Step over an identity.  Identities are compared as bytes, so one that was
 * logged when its integers had another width is written anew, into buf.
 */
static const char *
next_identity(const char *pos, const char *end, const SynchroTable *table, SynchroBytes *identity, StringInfo buf)
{
	bool		fits = true;

	identity->data = pos;
	for (int i = 0; i < table->nidentity; i++)
	{
		int16		typlen = table->columns[table->identity[i]].typlen;
		SynchroBytes value;

		pos = next_value(pos, end, &value);
		fits &= value.data == NULL || typlen <= 0 || value.len == typlen;
	}
	identity->len = pos - identity->data;
	if (unlikely(!fits))
		*identity = fit_integers(*identity, table, buf);
	return pos;
}

/*
 * Split the record at pos, of the given table, whose identity is that of the
 * layout with which the record was logged.  Returns where the next record
 * begins; bytes that make no record are an error.
 */
const char *
synchro_key_next(const char *pos, const char *end, const SynchroTable *table, uint32 layout,
				 SynchroKeyRecord *record)
{
	static StringInfoData identity = {0};
	static StringInfoData from = {0};
	uint8		flags;

	if (pos >= end)
		synchro_key_damaged();
	flags = (uint8) *pos++;
	if ((flags & SYNCHRO_KEY_OP_MASK) > SYNCHRO_OP_DELETE ||
		(flags & ~(SYNCHRO_KEY_OP_MASK | SYNCHRO_KEY_HAS_OLD | SYNCHRO_KEY_MOVED |
				   SYNCHRO_KEY_STAMPED | SYNCHRO_KEY_DERIVED | SYNCHRO_KEY_REFUSED | SYNCHRO_KEY_TOGETHER)) != 0 ||
		(flags & (SYNCHRO_KEY_MOVED | SYNCHRO_KEY_TOGETHER)) == SYNCHRO_KEY_TOGETHER)
		synchro_key_damaged();
	memset(record, 0, sizeof(*record));
	record->op = (SynchroOp) (flags & SYNCHRO_KEY_OP_MASK);
	record->has_old = (flags & SYNCHRO_KEY_HAS_OLD) != 0;
	record->moved = (flags & SYNCHRO_KEY_MOVED) != 0;
	record->derived = (flags & SYNCHRO_KEY_DERIVED) != 0;
	record->refused = (flags & SYNCHRO_KEY_REFUSED) != 0;
	record->together = (flags & SYNCHRO_KEY_TOGETHER) != 0;
	pos = next_identity(pos, end, table, &record->identity, &identity);
	if (record->has_old)
		pos = next_values(pos, end, SYNCHRO_LAYOUT_NKEY(layout), &record->old_key);
	if (record->moved)
		pos = next_identity(pos, end, table, &record->from, &from);
	if (flags & SYNCHRO_KEY_STAMPED)
		pos = next_stamp(pos, end, &record->stamp);
	return pos;
}

/*
 * Is there room for all integers among encoded values of these columns, as wide as
 * they are now?
 */
bool
synchro_key_fits(SynchroBytes bytes, const SynchroTable *table, const int *columns, int ncolumns)
{
	const char *pos = bytes.data;
	const char *end = bytes.data + bytes.len;

	for (int i = 0; i < ncolumns; i++)
	{
		const SynchroColumn *column = &table->columns[columns[i]];
		SynchroBytes value;

		pos = next_value(pos, end, &value);
		if (value.data != NULL && synchro_type_is_integer(column->type) && value.len > column->typlen &&
			!integer_fits(read_integer(value), column->typlen))
			return false;
	}
	return true;
}

static Datum
make_datum(SynchroBytes value, const SynchroColumn *column)
{
	if (synchro_type_is_integer(column->type))
		return make_integer(read_integer(value), column->typlen);
	if (column->typlen > 0 && value.len != column->typlen)
		synchro_key_damaged();
	if (column->typbyval)
	{
		/* the payload is not aligned */
		union
		{
			char		one;
			int16		two;
			int32		four;
			int64		eight;
		}			aligned;

		memcpy(&aligned, value.data, value.len);
		switch (value.len)
		{
			case sizeof(char):
				return CharGetDatum(aligned.one);
			case sizeof(int16):
				return Int16GetDatum(aligned.two);
			case sizeof(int32):
				return Int32GetDatum(aligned.four);
			default:
				return Int64GetDatum(aligned.eight);
		}
	}
	if (column->typlen > 0)
	{
		char	   *copy = palloc(value.len);

		memcpy(copy, value.data, value.len);
		return PointerGetDatum(copy);
	}
	if (column->typlen == -1)
	{
		char	   *copy = palloc(value.len + VARHDRSZ);

		SET_VARSIZE(copy, value.len + VARHDRSZ);
		memcpy(VARDATA(copy), value.data, value.len);
		return PointerGetDatum(copy);
	}
	return CStringGetDatum(pnstrdup(value.data, value.len));
}

/*
 * Make datums, in the current memory context, of encoded values of the given
 * columns (indexes of table->columns).
 */
void
synchro_key_values(SynchroBytes bytes, const SynchroTable *table,
				   const int *columns, int ncolumns, Datum *values, bool *nulls)
{
	const char *pos = bytes.data;
	const char *end = bytes.data + bytes.len;

	for (int i = 0; i < ncolumns; i++)
	{
		SynchroBytes value;

		pos = next_value(pos, end, &value);
		nulls[i] = value.data == NULL;
		values[i] = nulls[i] ? (Datum) 0 : make_datum(value, &table->columns[columns[i]]);
	}
	if (pos != end)
		synchro_key_damaged();
}

/*
 * The values as the types write them, for people: joined by commas where
 * there are several.
 */
char *
synchro_key_text(SynchroBytes bytes, const SynchroTable *table,
				 const int *columns, int ncolumns)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];
	StringInfoData buf;

	synchro_key_values(bytes, table, columns, ncolumns, values, nulls);
	initStringInfo(&buf);
	for (int i = 0; i < ncolumns; i++)
	{
		Oid			output;
		bool		is_varlena;

		if (i > 0)
			appendStringInfoString(&buf, ", ");
		if (nulls[i])
		{
			appendStringInfoString(&buf, "NULL");
			continue;
		}
		getTypeOutputInfo(table->columns[columns[i]].type, &output, &is_varlena);
		appendStringInfoString(&buf, OidOutputFunctionCall(output, values[i]));
	}
	return buf.data;
}

static uint32
hash_key_bytes(const void *key, Size size)
{
	const SynchroBytes *bytes = key;

	return hash_bytes((const unsigned char *) bytes->data, bytes->len);
}

static int
match_key_bytes(const void *a, const void *b, Size size)
{
	return synchro_bytes_equal(*(const SynchroBytes *) a, *(const SynchroBytes *) b) ? 0 : 1;
}

/*
 * A hash table of entries of that size, each of which begins with its key, a
 * SynchroBytes; in the current memory context.  size: about how many.
 */
HTAB *
synchro_bytes_table(const char *name, Size entrysize, long size)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(SynchroBytes);
	ctl.entrysize = entrysize;
	ctl.hash = hash_key_bytes;
	ctl.match = match_key_bytes;
	ctl.hcxt = CurrentMemoryContext;
	return hash_create(name, size, &ctl, HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/*
 * A number by which keys are read in an order that suits the table: that of
 * integers, whose bytes do not sort like their values; else that of the bytes,
 * as far as eight of them tell.
 */
int64
synchro_key_order(SynchroBytes bytes, const SynchroTable *table)
{
	const SynchroColumn *column = &table->columns[table->identity[0]];
	int16		i2;
	int32		i4;
	int64		i8;
	uint64		first = 0;

	/* the length comes first, and says so if the value is null */
	if (column->type == INT2OID && bytes.len > sizeof(i2) && bytes.data[0] == sizeof(i2) + 1)
	{
		memcpy(&i2, bytes.data + 1, sizeof(i2));
		return i2;
	}
	if (column->type == INT4OID && bytes.len > sizeof(i4) && bytes.data[0] == sizeof(i4) + 1)
	{
		memcpy(&i4, bytes.data + 1, sizeof(i4));
		return i4;
	}
	if (column->type == INT8OID && bytes.len > sizeof(i8) && bytes.data[0] == sizeof(i8) + 1)
	{
		memcpy(&i8, bytes.data + 1, sizeof(i8));
		return i8;
	}
	memcpy(&first, bytes.data, Min(bytes.len, sizeof(first)));
	return (int64) (pg_ntoh64(first) ^ (UINT64CONST(1) << 63));
}
