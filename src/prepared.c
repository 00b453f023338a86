/*-------------------------------------------------------------------------
 *
 * prepared.c
 *	  Statements of small batches that the remote session keeps the plans of.
 *
 * To parse and plan its statements is most of what a batch of a few rows
 * costs the remote, and they are the same from batch to batch: what they are
 * about lies in the staging tables.  A statement that comes for the second
 * time is prepared, and from then on executed; one that never comes again, as
 * it holds values of its batch, is not kept.
 *
 * It is always run at the same place of the script, so with the search_path
 * and the settings with which it was prepared, and for batches of about the
 * same size (synchro_stage_size()), each of which has plans of its own.  The
 * server makes a plan anew when a table that it reads is altered or analyzed.
 * What it does not notice is that a table has grown, perhaps from nothing, and
 * has not been analyzed since: so plans are kept for a minute and for a number
 * of rows at most.
 *
 * PREPARE is not undone by ROLLBACK, and a script that fails tells not how far
 * it got with them: all are forgotten then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "prepared.h"

/* statements kept at once, and remembered to have come once */
#define PREPARED_STATEMENTS 200
#define SEEN_STATEMENTS		1024

/* places that one may be remembered at */
#define SEEN_PLACES			4

/* plans are kept for so many ms and staged rows */
#define PREPARED_TIME		60000
#define PREPARED_ROWS		10000

typedef struct KeptStatement
{
	uint32		hash;			/* of text and size */
	int			size;			/* of the batches that it is for */
	char	   *text;
} KeptStatement;

/* lives in a child of the link's context, reset when all are forgotten */
struct SynchroPrepared
{
	MemoryContext context;
	int			count;
	KeptStatement statements[PREPARED_STATEMENTS];
	uint32		seen[SEEN_STATEMENTS];	/* hashes */
	uint32		nseen;			/* so many have been remembered */
	int			size;			/* of the batch at hand */
	TimestampTz since;			/* when the first of them was prepared */
	int64		nrows;			/* staged since then */
	bool		forget;			/* the session is to, with the next script */
};

static struct SynchroPrepared *
get_prepared(SynchroLink *link)
{
	if (link->prepared == NULL)
	{
		link->prepared = MemoryContextAllocZero(link->context, sizeof(struct SynchroPrepared));
		link->prepared->context = AllocSetContextCreate(link->context, "synchro prepared statements",
														ALLOCSET_DEFAULT_SIZES);
	}
	return link->prepared;
}

/*
 * Where the statement ends that begins there: at its semicolon, or at the end
 * of the text.  What we write has no comments and no dollar quotes here, and
 * no backslash before a quote.
 */
static const char *
end_of_statement(const char *text)
{
	char		quote = '\0';

	for (; *text != '\0' && (quote != '\0' || *text != ';'); text++)
	{
		if (quote != '\0')
			quote = *text == quote ? '\0' : quote;
		else if (*text == '\'' || *text == '"')
			quote = *text;
	}
	return text;
}

static bool
can_be_prepared(const char *statement)
{
	static const char *const verbs[] = {"WITH ", "SELECT ", "INSERT ", "UPDATE ", "DELETE "};

	for (int i = 0; i < lengthof(verbs); i++)
		if (strncmp(statement, verbs[i], strlen(verbs[i])) == 0)
			return true;
	return false;
}

static uint32
hash_statement(const struct SynchroPrepared *prepared, const char *statement, int len)
{
	return hash_combine(hash_bytes((const unsigned char *) statement, len), prepared->size);
}

/*
 * Number of a statement that is prepared, or -1.
 */
static int
find_statement(const struct SynchroPrepared *prepared, const char *statement, int len, uint32 hash)
{
	for (int i = 0; i < prepared->count; i++)
	{
		const KeptStatement *entry = &prepared->statements[i];

		if (entry->hash == hash && entry->size == prepared->size && strncmp(entry->text, statement, len) == 0 && entry->text[len] == '\0')
			return i;
	}
	return -1;
}

/*
 * Append what prepares it; returns its number.
 */
static int
keep_statement(StringInfo sql, struct SynchroPrepared *prepared, const char *statement, int len, uint32 hash)
{
	KeptStatement *entry = &prepared->statements[prepared->count];

	if (prepared->count == 0)
		prepared->since = GetCurrentTimestamp();
	entry->hash = hash;
	entry->size = prepared->size;
	entry->text = MemoryContextStrdup(prepared->context, pnstrdup(statement, len));
	appendStringInfo(sql, "PREPARE synchro_%d AS %s;", prepared->count, entry->text);
	return prepared->count++;
}

/*
 * Has a statement come before?  If not, remember it, instead of another one.
 * Which of its places it gets changes: two that come with each batch would
 * drive each other away for ever.
 */
static bool
seen_before(struct SynchroPrepared *prepared, uint32 hash)
{
	uint32		first = hash % (SEEN_STATEMENTS / SEEN_PLACES) * SEEN_PLACES;

	for (int i = 0; i < SEEN_PLACES; i++)
		if (prepared->seen[first + i] == hash)
			return true;
	prepared->seen[first + prepared->nseen++ % SEEN_PLACES] = hash;
	return false;
}

/*
 * Append the statement, or what runs it as one that was prepared.
 */
static void
append_statement(StringInfo sql, struct SynchroPrepared *prepared, const char *statement, int len)
{
	uint32		hash = hash_statement(prepared, statement, len);
	int			number = find_statement(prepared, statement, len, hash);

	if (number < 0 && (!seen_before(prepared, hash) || prepared->count == PREPARED_STATEMENTS))
	{
		appendBinaryStringInfo(sql, statement, len);
		appendStringInfoChar(sql, ';');
		return;
	}
	if (number < 0)
		number = keep_statement(sql, prepared, statement, len, hash);
	appendStringInfo(sql, "EXECUTE synchro_%d;", number);
}

/*
 * A script of a small batch begins: append what forgets statements that are
 * not to be executed any more.
 *
 * size: see synchro_stage_size().
 */
void
synchro_prepared_begin(StringInfo sql, SynchroLink *link, int size)
{
	struct SynchroPrepared *prepared = get_prepared(link);

	prepared->size = size;
	if (prepared->forget ||
		(prepared->count > 0 &&
		 (prepared->nrows > PREPARED_ROWS ||
		  TimestampDifferenceExceeds(prepared->since, GetCurrentTimestamp(), PREPARED_TIME))))
	{
		appendStringInfoString(sql, "DEALLOCATE ALL;");
		MemoryContextReset(prepared->context);
		prepared->count = 0;
		prepared->nrows = 0;
		prepared->forget = false;
	}
}

/*
 * Append a statement with parameters, which is prepared at once: it holds no
 * values, so it comes again.
 *
 * arguments: as SQL, separated by commas.  Returns false, and appends nothing,
 * if no more statements are kept.
 */
bool
synchro_prepared_execute(StringInfo sql, SynchroLink *link, const char *statement, const char *arguments)
{
	struct SynchroPrepared *prepared = get_prepared(link);
	int			len = strlen(statement);
	uint32		hash = hash_statement(prepared, statement, len);
	int			number = find_statement(prepared, statement, len, hash);

	if (number < 0 && prepared->count == PREPARED_STATEMENTS)
		return false;
	if (number < 0)
		number = keep_statement(sql, prepared, statement, len, hash);
	appendStringInfo(sql, "EXECUTE synchro_%d(%s);", number, arguments);
	return true;
}

/*
 * Append a small batch's statements, of which those that are the same as in
 * batches before are executed as prepared ones.
 */
void
synchro_prepared_append(StringInfo sql, SynchroLink *link, const char *statements)
{
	struct SynchroPrepared *prepared = get_prepared(link);

	while (*statements != '\0')
	{
		const char *end = end_of_statement(statements);
		int			len = (int) (end - statements);

		if (can_be_prepared(statements))
			append_statement(sql, prepared, statements, len);
		else
		{
			appendBinaryStringInfo(sql, statements, len);
			appendStringInfoChar(sql, ';');
		}
		statements = *end == ';' ? end + 1 : end;
	}
}

/*
 * Have all statements forgotten by the next script that executes any: what
 * they are about is not what it was.
 */
void
synchro_prepared_forget(SynchroLink *link)
{
	if (link->prepared != NULL)
		link->prepared->forget = true;
}

/*
 * Note what became of a script: how many rows it has staged, and whether it
 * ran to its end.
 */
void
synchro_prepared_note(SynchroLink *link, int64 nrows, bool done)
{
	struct SynchroPrepared *prepared = get_prepared(link);

	prepared->nrows += nrows;
	if (!done)
		prepared->forget = true;
}
