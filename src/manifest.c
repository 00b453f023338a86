/*-------------------------------------------------------------------------
 *
 * manifest.c
 *	  Fingerprints of tables' contents.
 *
 * A fingerprint is the SHA-256 of the columns' names, the number of rows and
 * the sum, modulo 2^256, of the rows' own SHA-256 digests, so neither order nor
 * ids count (the sum as in Bellare and Micciancio, "A New Paradigm for
 * Collision-Free Hashing: Incrementality at Reduced Cost", 1997).  It takes
 * one scan and no memory.  Text is hashed in UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "compare.h"
#include "keycheck.h"
#include "localsql.h"
#include "reader.h"

PG_FUNCTION_INFO_V1(synchro_manifest);

#define DIGEST_WORDS	(PG_SHA256_DIGEST_LENGTH / sizeof(uint32))

typedef struct Fingerprint
{
	pg_cryptohash_ctx *hash;
	int64		rows;
	uint32		sum[DIGEST_WORDS];	/* the lowest first */
} Fingerprint;

static void
begin_digest(pg_cryptohash_ctx *hash)
{
	if (pg_cryptohash_init(hash) < 0)
		elog(ERROR, "could not begin a SHA-256 digest");
}

static void
add_to_digest(pg_cryptohash_ctx *hash, const void *data, size_t len)
{
	if (pg_cryptohash_update(hash, data, len) < 0)
		elog(ERROR, "could not make a SHA-256 digest");
}

static void
end_digest(pg_cryptohash_ctx *hash, uint8 *digest)
{
	if (pg_cryptohash_final(hash, digest, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not end a SHA-256 digest");
}

static void
add_row(TupleTableSlot *slot, void *arg)
{
	Fingerprint *fingerprint = arg;
	text	   *row;
	char	   *data;
	int			len;
	char	   *converted;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint64		carry = 0;

	CHECK_FOR_INTERRUPTS();
	slot_getallattrs(slot);
	row = DatumGetTextPP(slot->tts_values[0]);
	data = VARDATA_ANY(row);
	len = VARSIZE_ANY_EXHDR(row);
	converted = synchro_content_utf8(data, len);
	begin_digest(fingerprint->hash);
	add_to_digest(fingerprint->hash, converted, converted == data ? len : strlen(converted));
	end_digest(fingerprint->hash, digest);
	for (int i = 0; i < DIGEST_WORDS; i++)
	{
		uint32		word;

		memcpy(&word, digest + i * sizeof(word), sizeof(word));
		carry += (uint64) fingerprint->sum[i] + pg_ntoh32(word);
		fingerprint->sum[i] = (uint32) carry;
		carry >>= 32;
	}
	fingerprint->rows++;
	if (converted != data)
		pfree(converted);
	if ((Pointer) row != DatumGetPointer(slot->tts_values[0]))
		pfree(row);
}

/*
 * The fingerprint as hexadecimal text.
 */
static char *
finish(const Fingerprint *fingerprint, const SynchroContent *content)
{
	uint64		rows = pg_hton64((uint64) fingerprint->rows);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	char	   *result = palloc0(2 * PG_SHA256_DIGEST_LENGTH + 1);

	begin_digest(fingerprint->hash);
	for (int i = 0; i < content->nvalues; i++)
	{
		const char *name = synchro_content_utf8(content->names[i], strlen(content->names[i]));

		add_to_digest(fingerprint->hash, name, strlen(name) + 1);
	}
	add_to_digest(fingerprint->hash, &rows, sizeof(rows));
	for (int i = 0; i < DIGEST_WORDS; i++)
	{
		uint32		word = pg_hton32(fingerprint->sum[i]);

		add_to_digest(fingerprint->hash, &word, sizeof(word));
	}
	end_digest(fingerprint->hash, digest);
	hex_encode((const char *) digest, PG_SHA256_DIGEST_LENGTH, result);
	return result;
}

/*
 * A table with all that it takes to say what is in it: rows without a natural
 * key stand for themselves, so it takes all of their foreign keys, too.
 */
static SynchroLinkTable *
describe(SynchroLink *link, Oid relid)
{
	SynchroLinkTable *lt = synchro_link_table(link, relid, true);

	/* the list grows meanwhile */
	for (int i = 0; i < list_length(link->tables); i++)
	{
		const SynchroLinkTable *other = list_nth(link->tables, i);

		if (other->table->mode == SYNCHRO_MODE_REFERENCE && !other->for_rows)
			(void) synchro_link_table(link, other->table->relid, true);
	}
	return lt;
}

/*
 * Read a table on behalf of the caller.
 */
static void
take_fingerprint(SynchroLink *link, Oid relid, Fingerprint *fingerprint, SynchroContent **content)
{
	SynchroContentSide side = {0};
	SynchroSqlScope scope;
	SynchroReader reader;
	SynchroLinkTable *lt = describe(link, relid);
	List	   *parents = synchro_compare_parents(lt);
	Oid			caller = GetUserId();
	ListCell   *cell;

	*content = synchro_content_sql(lt, &side);
	synchro_sql_open(&scope, caller);
	synchro_sql_settings(false);
	synchro_reader_begin(&reader, caller, lt->table, false, parents);

	/* a row without a natural key is hashed as a whole for who refers to it, so its values could be guessed */
	foreach(cell, parents)
		if (((SynchroTable *) lfirst(cell))->mode == SYNCHRO_MODE_REFERENCE)
			synchro_reader_require(caller, lfirst(cell), false);
	synchro_sql_query(psprintf("SELECT %s %s", (*content)->all, (*content)->from), 0, NULL, NULL, NULL,
					  synchro_sql_callback(add_row, fingerprint));
	synchro_reader_end(&reader);
	synchro_sql_close(&scope);
}

/*
 * The tables that are meant: those of a schema, or all that are watched; in
 * the current memory context.
 */
static List *
tables_of(FunctionCallInfo fcinfo)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0));
	SynchroSqlScope scope;
	List	   *result;

	if (!PG_ARGISNULL(0))
		(void) synchro_keycheck_schema(PG_GETARG_OID(0));
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	result = synchro_sql_oids("SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
							  " WHERE CASE WHEN $1 = 0 THEN c.oid IN (SELECT relation FROM synchro.watched)"
							  " ELSE c.relnamespace = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition END"
							  " ORDER BY n.nspname, c.relname", 1, &type, &value, context);
	synchro_sql_close(&scope);
	return result;
}

/*
 * manifest(schema): number of rows and fingerprint of each table.
 *
 * All are read under one snapshot, with the caller's rights.
 */
Datum
synchro_manifest(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SynchroLink *link = synchro_link_create(NULL, CurrentMemoryContext);
	pg_cryptohash_ctx *volatile hash = pg_cryptohash_create(PG_SHA256);
	ListCell   *cell;

	if (hash == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	link->compares = true;
	InitMaterializedSRF(fcinfo, 0);
	PG_TRY();
	{
		foreach(cell, tables_of(fcinfo))
		{
			Fingerprint fingerprint = {hash};
			SynchroContent *content;
			Datum		values[3];
			bool		nulls[3] = {0};

			take_fingerprint(link, lfirst_oid(cell), &fingerprint, &content);
			values[0] = ObjectIdGetDatum(lfirst_oid(cell));
			values[1] = Int64GetDatum(fingerprint.rows);
			values[2] = CStringGetTextDatum(finish(&fingerprint, content));
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	PG_FINALLY();
	{
		pg_cryptohash_free(hash);
	}
	PG_END_TRY();
	return (Datum) 0;
}
