/*-------------------------------------------------------------------------
 *
 * compare.c
 *	  Compares a table's rows here with those of the remote, by natural key.
 *
 * Both sides hash keys and contents in SQL and add the contents' hashes up in
 * buckets of the keys' hashes.  Only buckets that differ are looked into: in
 * narrower ones as long as that saves enough, then row by row, both sides in
 * the order of the keys' hashes.  So equal tables cost one scan on each side
 * and a few kilobytes, whatever their size, and a few different rows two scans
 * more (as in Merkle trees, or Percona's pt-table-checksum, but by keys' hashes
 * since the sides have no order of ids in common).
 *
 * Each look is made under one snapshot on each side, but not the same moment:
 * what it finds may be under way.  Whoever calls has to look again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "applysql.h"
#include "compare.h"
#include "comparemerge.h"
#include "comparepairs.h"
#include "localsql.h"
#include "reader.h"
#include "staging.h"

/* each step looks at that many buckets in each one that differed before */
#define STEP_BITS		8

/* buckets are not narrowed down when so few rows are left, or so many buckets */
#define FEW_ROWS		20000
#define MANY_BUCKETS	128
#define MAX_BITS		24

/* rows fetched at a time */
#define FETCH_HASHES	2000
#define FETCH_ROWS		20

/* a bucket: the keys' hashes that begin with these bits */
typedef struct Bucket
{
	int64		number;
	int64		rows;
	char	   *sum;
} Bucket;

typedef struct Buckets
{
	MemoryContext context;
	int			count;
	int			allocated;
	Bucket	   *list;
} Buckets;

static char *
hash_of(const SynchroComparison *comparison, const char *expression)
{
	if (comparison->fast)
		return psprintf("hashtextextended((%s) COLLATE \"C\", 0)", expression);
	return psprintf("('x' || encode(substr(sha256(convert_to(%s, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint", expression);
}

/*
 * The hash that is added up for a row.  Where its name is not made of its values,
 * that counts, too: rows of one bucket may have exchanged what is in them.
 */
static char *
hash_of_row(const SynchroComparison *comparison, const SynchroContent *content)
{
	if (comparison->lt->table->mode == SYNCHRO_MODE_REFERENCE)
		return hash_of(comparison, psprintf("%s || %s", content->key, content->all));
	return hash_of(comparison, content->all);
}

/*
 * Do both servers hash text alike?  Another byte order, or encoding, makes a
 * difference.
 */
static bool
hash_alike(SynchroLink *link)
{
	const char *question = "SELECT hashtextextended('synchro' COLLATE \"C\", 0)::text || ' ' || current_setting('server_encoding')";
	SynchroRows *rows = synchro_remote_query(link->remote, question, 0, NULL);
	SynchroSqlScope scope;
	bool		same;

	synchro_sql_open(&scope, link->target->owner);
	synchro_sql_run(question, 0, NULL, NULL, NULL);
	same = strcmp(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1), synchro_value(rows, 0, 0)) == 0;
	synchro_sql_close(&scope);
	return same;
}

/*
 * Describe a table on the link, on both sides, with all that its names are
 * made of.
 */
void
synchro_compare_prepare(SynchroLink *link, Oid relid)
{
	MemoryContext old;
	ListCell   *cell;

	(void) synchro_link_table(link, relid, true);
	old = MemoryContextSwitchTo(link->tables_context);
	foreach(cell, link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		if (lt->remote == NULL)
			lt->remote = synchro_remote_table_fetch(link->remote, lt->table);
		if (lt->for_rows && lt->pushed == NULL)
			synchro_staging_choose(link, lt);
	}
	MemoryContextSwitchTo(old);
}

/*
 * Get a table ready to be compared.  After synchro_compare_prepare() and, where
 * there are rows without natural keys, synchro_compare_pairs().
 */
SynchroComparison *
synchro_compare_table(SynchroLink *link, Oid relid)
{
	SynchroComparison *comparison = palloc0(sizeof(SynchroComparison));
	SynchroContentSide here = {.by_reference = true};
	SynchroContentSide there = {.there = true,.by_reference = true,.pairs = synchro_compare_pairs_table(link)};

	comparison->link = link;
	comparison->lt = synchro_link_table(link, relid, true);
	comparison->here = synchro_content_sql(comparison->lt, &here);
	comparison->there = synchro_content_sql(comparison->lt, &there);
	comparison->fast = hash_alike(link);
	return comparison;
}

static void
collect_parents(const SynchroLinkTable *lt, List **parents)
{
	for (int fk = 0; fk < lt->table->nfks; fk++)
	{
		const SynchroLinkTable *parent = lt->parents[fk];

		if (parent == NULL || list_member_ptr(*parents, parent->table))
			continue;
		*parents = lappend(*parents, unconstify(SynchroTable *, parent->table));
		collect_parents(parent, parents);
	}
}

/*
 * Tables that the names of a table's rows, and of what they refer to, may be
 * made of, as synchro_reader_begin() wants them.
 */
List *
synchro_compare_parents(const SynchroLinkTable *lt)
{
	List	   *parents = NIL;

	collect_parents(lt, &parents);
	return list_delete_ptr(parents, unconstify(SynchroTable *, lt->table));
}

/* one snapshot on each side, and as whom is read here */
typedef struct Look
{
	SynchroSqlScope scope;
	SynchroReader reader;
} Look;

static void
begin_look(const SynchroComparison *comparison, Look *look)
{
	Oid			owner = comparison->link->target->owner;

	synchro_remote_query(comparison->link->remote, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", 0, NULL);
	PushActiveSnapshot(GetLatestSnapshot());
	synchro_sql_open(&look->scope, owner);
	synchro_sql_settings(false);
	synchro_reader_begin(&look->reader, owner, comparison->lt->table, false, synchro_compare_parents(comparison->lt));
}

static void
end_look(const SynchroComparison *comparison, Look *look)
{
	synchro_reader_end(&look->reader);
	synchro_sql_close(&look->scope);
	PopActiveSnapshot();
	synchro_remote_query(comparison->link->remote, "COMMIT", 0, NULL);
}

static void
add_bucket(Buckets *buckets, const char *number, const char *rows, const char *sum)
{
	MemoryContext old = MemoryContextSwitchTo(buckets->context);
	Bucket	   *bucket;

	if (buckets->count == buckets->allocated)
	{
		buckets->allocated = Max(256, buckets->allocated * 2);
		buckets->list = buckets->list == NULL ? palloc(sizeof(Bucket) * buckets->allocated) :
			repalloc(buckets->list, sizeof(Bucket) * buckets->allocated);
	}
	bucket = &buckets->list[buckets->count++];
	bucket->number = strtoll(number, NULL, 10);
	bucket->rows = strtoll(rows, NULL, 10);
	bucket->sum = pstrdup(sum);
	MemoryContextSwitchTo(old);
}

static void
note_bucket(TupleTableSlot *slot, void *arg)
{
	slot_getallattrs(slot);
	add_bucket(arg, TextDatumGetCString(slot->tts_values[0]), TextDatumGetCString(slot->tts_values[1]),
			   TextDatumGetCString(slot->tts_values[2]));
}

static int64
mask_of(int bits)
{
	return (INT64CONST(1) << bits) - 1;
}

/*
 * The first bits of a hash that is called h, as SQL.
 */
static char *
bits_of(int bits)
{
	return psprintf("((h >> %d) & " INT64_FORMAT ")", 64 - bits, mask_of(bits));
}

/*
 * Append "the hash is in one of these buckets"; bits: 0 for all rows.
 */
static void
append_filter(StringInfo sql, int bits, const Buckets *within)
{
	if (bits == 0)
		return;
	appendStringInfo(sql, " WHERE %s = ANY ('{", bits_of(bits));
	for (int i = 0; i < within->count; i++)
		appendStringInfo(sql, "%s" INT64_FORMAT, i > 0 ? "," : "", within->list[i].number);
	appendStringInfoString(sql, "}'::bigint[])");
}

static char *
buckets_query(const SynchroComparison *comparison, const SynchroContent *content, int bits,
			  int before, const Buckets *within)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s::text, count(*)::text, sum(v)::text FROM (SELECT %s AS h, %s AS v %s) x",
					 bits_of(bits), hash_of(comparison, content->key), hash_of_row(comparison, content), content->from);
	append_filter(&sql, before, within);
	appendStringInfo(&sql, " GROUP BY %s", bits_of(bits));
	return sql.data;
}

static int
compare_buckets_by_number(const void *a, const void *b)
{
	int64		x = ((const Bucket *) a)->number;
	int64		y = ((const Bucket *) b)->number;

	return x < y ? -1 : x > y;
}

/*
 * Which buckets differ, and how many rows are in them.
 */
static void
compare_buckets(const SynchroComparison *comparison, int bits, int before, const Buckets *within,
				Buckets *differing, int64 *rows)
{
	Buckets		here = {CurrentMemoryContext};
	Buckets		there = {CurrentMemoryContext};
	SynchroRows *result;
	int			j = 0;

	/*
	 * Both sides scan at the same time.  Neither planner knows how few buckets
	 * there are, and would rather sort all rows.
	 */
	synchro_remote_query(comparison->link->remote, "SET LOCAL enable_sort = off", 0, NULL);
	(void) set_config_option("enable_sort", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	synchro_remote_send(comparison->link->remote, buckets_query(comparison, comparison->there, bits, before, within), 0, NULL);
	synchro_sql_query(buckets_query(comparison, comparison->here, bits, before, within), 0, NULL, NULL, NULL,
					  synchro_sql_callback(note_bucket, &here));
	MemoryContextSwitchTo(here.context);
	result = synchro_remote_receive(comparison->link->remote);
	for (int i = 0; i < result->nrows; i++)
		add_bucket(&there, synchro_value(result, i, 0), synchro_value(result, i, 1), synchro_value(result, i, 2));
	synchro_remote_query(comparison->link->remote, "SET LOCAL enable_sort = on", 0, NULL);
	(void) set_config_option("enable_sort", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	qsort(here.list, here.count, sizeof(Bucket), compare_buckets_by_number);
	qsort(there.list, there.count, sizeof(Bucket), compare_buckets_by_number);
	*rows = 0;
	for (int i = 0; i < here.count || j < there.count;)
	{
		const Bucket *a = i < here.count ? &here.list[i] : NULL;
		const Bucket *b = j < there.count ? &there.list[j] : NULL;

		if (a != NULL && b != NULL && a->number == b->number && a->rows == b->rows && strcmp(a->sum, b->sum) == 0)
		{
			i++;
			j++;
			continue;
		}
		if (b == NULL || (a != NULL && a->number <= b->number))
			i++;
		else
			a = NULL;
		if (a == NULL || (b != NULL && b->number == a->number))
			j++;
		else
			b = NULL;
		Assert(a != NULL || b != NULL);
		add_bucket(differing, psprintf(INT64_FORMAT, a != NULL ? a->number : b->number), "0", "");
		*rows += Max(a != NULL ? a->rows : 0, b != NULL ? b->rows : 0);
	}
}

static void
note_suspect(int64 hash, char **here, char **there, void *arg)
{
	SynchroSuspects *suspects = arg;

	if (here != NULL && there != NULL && strcmp(here[1], there[1]) == 0)
		return;
	if (suspects->count > 0 && suspects->hashes[suspects->count - 1] == hash)
		return;
	if (suspects->count == suspects->allocated)
	{
		suspects->allocated = Max(1024, suspects->allocated * 2);
		suspects->hashes = suspects->hashes == NULL ? palloc_extended(sizeof(int64) * suspects->allocated, MCXT_ALLOC_HUGE) :
			repalloc_huge(suspects->hashes, sizeof(int64) * suspects->allocated);
	}
	suspects->hashes[suspects->count++] = hash;
}

static char *
hashes_query(const SynchroComparison *comparison, const SynchroContent *content, int bits, const Buckets *within)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT h::text, v::text FROM (SELECT %s AS h, %s AS v %s) x",
					 hash_of(comparison, content->key), hash_of_row(comparison, content), content->from);
	append_filter(&sql, bits, within);
	appendStringInfoString(&sql, " ORDER BY x.h, x.v");
	return sql.data;
}

/*
 * Look at the whole table.  suspects: empty; filled with what differs, in the
 * current memory context.
 */
void
synchro_compare_first(const SynchroComparison *comparison, SynchroSuspects *suspects)
{
	MemoryContext caller = CurrentMemoryContext;
	Look		look;
	Buckets		differing = {CurrentMemoryContext};
	int			bits = 0;
	int64		rows;

	begin_look(comparison, &look);
	MemoryContextSwitchTo(caller);
	do
	{
		Buckets		narrower = {CurrentMemoryContext};

		compare_buckets(comparison, bits + STEP_BITS, bits, &differing, &narrower, &rows);
		bits += STEP_BITS;
		differing = narrower;
	} while (differing.count > 0 && differing.count <= MANY_BUCKETS && rows > FEW_ROWS && bits < MAX_BITS);
	if (differing.count > 0)
		synchro_compare_merge(comparison->link->remote, hashes_query(comparison, comparison->here, bits, &differing),
							  hashes_query(comparison, comparison->there, bits, &differing), 2, FETCH_HASHES,
							  note_suspect, suspects);
	end_look(comparison, &look);
	MemoryContextSwitchTo(caller);
}

/*
 * The rows of one name come in the order of their values, so that equal ones meet;
 * where a name means the first of many rows of the remote, in that of identities.
 */
static char *
rows_query(const SynchroComparison *comparison, const SynchroContent *content, const int64 *hashes, int count)
{
	const SynchroTable *table = comparison->lt->table;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT h::text, s, version, identity");
	for (int i = 0; i < content->nvalues; i++)
		appendStringInfo(&sql, ", v%d", i);
	appendStringInfo(&sql, " FROM (SELECT %s AS h, %s AS s, format('%%s %%s %%s', t.tableoid, t.ctid, t.xmin) AS version, ARRAY[",
					 hash_of(comparison, content->key), content->shown);
	for (int i = 0; i < table->nidentity; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "", content->identity[i]);
	appendStringInfo(&sql, "]::text[]::text AS identity, %s AS v", hash_of(comparison, content->all));
	for (int i = 0; table->allow_many && i < table->nidentity; i++)
		appendStringInfo(&sql, ", t.%s AS o%d", synchro_column_name(comparison->lt, table->identity[i]), i);
	for (int i = 0; i < content->nvalues; i++)
		appendStringInfo(&sql, ", %s AS v%d", content->values[i], i);
	appendStringInfo(&sql, " %s) x WHERE h = ANY ('{", content->from);
	for (int i = 0; i < count; i++)
		appendStringInfo(&sql, "%s" INT64_FORMAT, i > 0 ? "," : "", hashes[i]);
	appendStringInfoString(&sql, "}'::bigint[]) ORDER BY x.h");
	for (int i = 0; table->allow_many && i < table->nidentity; i++)
		appendStringInfo(&sql, ", x.o%d", i);
	appendStringInfoString(&sql, ", x.v");
	return sql.data;
}

/* columns before the values */
#define FIXED_COLUMNS	4

typedef struct Comparer
{
	SynchroCompareCallback callback;
	void	   *arg;
} Comparer;

static void
hand_over(int64 hash, char **here, char **there, void *arg)
{
	Comparer   *comparer = arg;
	SynchroComparedRow rows[2];
	char	  **sides[2] = {here, there};

	for (int i = 0; i < 2; i++)
	{
		if (sides[i] == NULL)
			continue;
		rows[i].shown = sides[i][1];
		rows[i].version = sides[i][2];
		rows[i].identity = sides[i][3];
		rows[i].values = sides[i] + FIXED_COLUMNS;
	}
	comparer->callback(hash, here != NULL ? &rows[0] : NULL, there != NULL ? &rows[1] : NULL, comparer->arg);
}

/*
 * Look at some rows again, those whose keys have the given hashes, with their
 * values: also at those that turn out to be equal.
 */
void
synchro_compare_again(const SynchroComparison *comparison, const int64 *hashes, int count,
					  SynchroCompareCallback callback, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	Comparer	comparer = {callback, arg};
	Look		look;

	begin_look(comparison, &look);
	MemoryContextSwitchTo(caller);
	synchro_compare_merge(comparison->link->remote, rows_query(comparison, comparison->here, hashes, count),
						  rows_query(comparison, comparison->there, hashes, count),
						  comparison->here->nvalues + FIXED_COLUMNS, FETCH_ROWS, hand_over, &comparer);
	end_look(comparison, &look);
	MemoryContextSwitchTo(caller);
}
