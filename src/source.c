/*-------------------------------------------------------------------------
 *
 * source.c
 *	  Where changes come from that were not first made here.
 *
 * The log names a source by a small number, which synchro.source explains.
 * Rows are only added to that, so whoever sees a log entry sees its source.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "localsql.h"
#include "source.h"
#include "synchro.h"

bool
synchro_uuid_equal(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN) == 0;
}

/*
 * As PostgreSQL orders them.
 */
int
synchro_uuid_compare(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN);
}

static void
spi_uuid(uint64 row, int column, pg_uuid_t *uuid)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	memset(uuid, 0, sizeof(*uuid));
	if (!isnull)
		*uuid = *DatumGetUUIDP(value);
}

/*
 * Read all sources, into the current memory context.  Opens a scope of
 * synchro_sql_open() of its own.
 */
SynchroSources *
synchro_sources_load(void)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroSources *result = palloc0(sizeof(SynchroSources));
	SynchroSqlScope scope;
	bool		isnull;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);

	/* the view tells what two rows mean, and takes longer */
	if (!synchro_sql_is_empty("source") ||
		synchro_sql_run("SELECT 0, id, NULL::uuid FROM synchro.node_identity", 0, NULL, NULL, NULL) != 1)
		synchro_sql_run("SELECT 0, id, NULL::uuid FROM synchro.node"
						" UNION ALL SELECT number, origin, via FROM synchro.source ORDER BY 1", 0, NULL, NULL, NULL);
	result->count = (int) SPI_processed;
	result->sources = MemoryContextAllocZero(context, sizeof(SynchroSource) * Max(result->count, 1));
	for (int i = 0; i < result->count; i++)
	{
		SynchroSource *source = &result->sources[i];

		source->number = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		spi_uuid(i, 2, &source->origin);
		spi_uuid(i, 3, &source->via);
	}
	synchro_sql_close(&scope);
	return result;
}

/*
 * The source with that number.
 */
const SynchroSource *
synchro_source_find(const SynchroSources *sources, int32 number)
{
	int			low = 0;
	int			high = sources->count;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (sources->sources[middle].number == number)
			return &sources->sources[middle];
		if (sources->sources[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("the change log refers to source %d, of which nothing is known", number),
			 errhint(SYNCHRO_LOG_DAMAGED_HINT)));
}

/*
 * The number of a source, which is noted if it is new.
 */
int32
synchro_source_number(const pg_uuid_t *origin, const pg_uuid_t *via)
{
	SynchroSqlScope scope;
	Oid			types[] = {UUIDOID, UUIDOID};
	Datum		values[] = {UUIDPGetDatum(origin), UUIDPGetDatum(via)};
	const char *find = "SELECT number FROM synchro.source WHERE origin = $1 AND via = $2";
	bool		isnull;
	int32		number;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run(find, 2, types, values, NULL) == 0)
	{
		synchro_sql_run("INSERT INTO synchro.source (origin, via) VALUES ($1, $2) ON CONFLICT DO NOTHING",
						2, types, values, NULL);
		synchro_sql_run(find, 2, types, values, NULL);
	}
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not note where a change comes from"),
				 errhint("Try again.")));
	number = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	synchro_sql_close(&scope);
	return number;
}
