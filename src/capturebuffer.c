/*-------------------------------------------------------------------------
 *
 * capturebuffer.c
 *	  The transaction's buffer of keys, from the triggers to the log.
 *
 * It is written to the log when the transaction is about to commit
 * (capturexact.c), or when it becomes too large.
 *
 * A subtransaction remembers the buffer's length at its start and cuts it
 * back when it aborts.  If the buffer outgrows synchro.buffer_size, what the
 * current subtransaction added itself is written early: those log rows bear
 * its xid and vanish with it.  Keys of its parents stay in memory, since they
 * must survive its abort.  When these are written at last they bear a time
 * before what was written early, so that the reader sees the true order.
 *
 * Many small subtransactions add to their parent's keys, which nobody could
 * write while there is always another child.  So when one is about to commit
 * and its keys and its parent's outgrow the buffer, both are written, under its
 * xid: from then on it aborts if and only if its parent does, so these rows
 * vanish just when the parent's keys would.  Should the child fail to commit
 * after all, its rows vanish alone; so the keys stay in memory until it has,
 * and if it aborts, its parent's are there as before.  Keys of grandparents
 * stay: they must survive the parent's abort.  So each level keeps about
 * synchro.buffer_size at most.
 *
 * A key that the transaction logged a moment ago is not logged again: a
 * direct-mapped table of recent keys knows most of them.  It may forget, never
 * be wrong: an entry counts only if it is of the present epoch, and each cut
 * of the buffer begins a new one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "capturebuffer.h"
#include "capturetables.h"
#include "capturewrite.h"
#include "changelog.h"
#include "keycodec.h"
#include "settings.h"

#define WRITER_MEMORY	512		/* kB: what the log's writer takes besides the buffer, see 076_memory */
#define RECORD_ROOM		8192	/* bytes, for all but a few records */
#define GROWTH			8		/* of the buffer, in each step */

#define RECENT_KEYS 4096		/* power of two; 64 kB per backend */

typedef struct RecentKey
{
	uint64		epoch;
	uint32		offset;			/* of the record's header in the buffer */
	uint32		hash;			/* of the identity: most others are told apart
								 * without a look at the record */
} RecentKey;

/* what a subtransaction that is about to commit has written of the buffer */
typedef struct WrittenPart
{
	int			level;			/* of the subtransaction; 0: nothing */
	int			from;
	int			to;
	uint64		epoch;
	TimestampTz time;			/* when */
} WrittenPart;

/* the record that is being appended */
typedef struct CurrentRecord
{
	SynchroBufferHeader header;
	int			start;			/* of the header in the buffer */
	int			record;			/* of the record itself */
	RecentKey  *recent;			/* where the record is to be remembered */
	uint32		hash;
} CurrentRecord;

static StringInfoData buffer;	/* data NULL until first used */
static RecentKey *recent_keys = NULL;
static uint64 epoch = 1;		/* of the buffer's present contents */
static int	own_records = 0;	/* where those of the current subtransaction begin */
static bool tx_flushed_early = false;
static bool tx_closing = false; /* PRE_COMMIT has been through */
static CommandId latest_command = 0;	/* of the records in the buffer */
static bool unordered = false;	/* one of them was made before another that lies before it */
static CurrentRecord current;
static WrittenPart written;

#define KEEP_BUFFER (64 * 1024) /* larger ones are freed at transaction end */

/*
 * The buffer is empty: whatever comes next comes first.
 */
static void
forget_order(void)
{
	latest_command = 0;
	unordered = false;
}

/*
 * Write the buffer from offset on to the log.  Returns when.
 */
static TimestampTz
write_buffer(int offset)
{
	return synchro_capture_write(buffer.data, offset, buffer.len, unordered, tx_flushed_early && tx_closing);
}

/*
 * The same, and cut it back to there.
 */
static void
flush_buffer(int offset)
{
	TimestampTz now = write_buffer(offset);

	synchro_capture_note_break(offset, now - 1);
	buffer.len = offset;
	if (offset == 0)
		forget_order();
	epoch++;
}

static void
begin_buffer(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (buffer.data == NULL)
		initStringInfo(&buffer);
	if (recent_keys == NULL)
		recent_keys = palloc0(sizeof(RecentKey) * RECENT_KEYS);
	MemoryContextSwitchTo(old);
}

/*
 * Is the record at offset one of the same row that says all that a new one
 * with these flags would say?
 *
 * The first operation on a row and its first old key are what the reader
 * goes by, so an earlier record makes a later one without an old key
 * needless.  One with an old key is needless, too, if there is an earlier old
 * key, or if the row was inserted by this transaction and so had none.  Earlier is
 * what was changed earlier.
 *
 * Other nodes ask whether the row is there still (SynchroNewest.live): that the
 * transaction has inserted it again after a delete has to be said, that it
 * has deleted what it had inserted they see by themselves.
 */
static bool
says_already(uint32 offset, const SynchroBufferHeader *header, const char *identity, uint8 flags)
{
	SynchroBufferHeader earlier;

	memcpy(&earlier, buffer.data + offset, sizeof(earlier));
	if (earlier.table != header->table ||
		earlier.identity_len != header->identity_len ||
		memcmp(buffer.data + offset + sizeof(earlier) + 1, identity,
			   header->identity_len) != 0)
		return false;
	if (header->command < earlier.command)
		return false;
	if ((flags & SYNCHRO_KEY_MOVED) != 0 || ((flags | earlier.flags) & SYNCHRO_KEY_REFUSED) != 0)
		return false;
	if ((flags & SYNCHRO_KEY_OP_MASK) != SYNCHRO_OP_DELETE &&
		(earlier.flags & SYNCHRO_KEY_OP_MASK) == SYNCHRO_OP_DELETE)
		return false;

	/* where there is no old key, only the operation tells that it is gone */
	if ((flags & SYNCHRO_KEY_OP_MASK) == SYNCHRO_OP_DELETE &&
		(earlier.flags & SYNCHRO_KEY_OP_MASK) == SYNCHRO_OP_UPDATE)
		return false;
	return (flags & SYNCHRO_KEY_HAS_OLD) == 0 ||
		(earlier.flags & SYNCHRO_KEY_HAS_OLD) != 0 ||
		(earlier.flags & SYNCHRO_KEY_OP_MASK) == SYNCHRO_OP_INSERT;
}

/*
 * How many bytes of records a level may have before they are written: what the
 * writer, the buffer's growth, and an order of them leave of synchro.buffer_size.
 */
static int
buffer_limit(void)
{
	int			limit = (synchro_buffer_size - Min(synchro_buffer_size / 2, WRITER_MEMORY + synchro_buffer_size / GROWTH)) * 1024;

	return unordered ? limit - limit / 6 : limit;
}

/*
 * Have room for a record.  Where a buffer is moved, the old one is there, too: so it
 * grows by large steps, the last of which is to the size that it needs at most.  A
 * StringInfo would double, and end with twice that.
 */
static inline void
make_room(void)
{
	int			needed = buffer.len + RECORD_ROOM;
	int			size;

	if (likely(needed <= buffer.maxlen))
		return;
	size = own_records + buffer_limit() + RECORD_ROOM;
	while (size / GROWTH >= needed)
		size /= GROWTH;
	if (size > buffer.maxlen && AllocSizeIsValid(size))
	{
		buffer.data = repalloc(buffer.data, size);
		buffer.maxlen = size;
	}
}

/*
 * Begin a record (see keycodec.h) of a table with these flags.  command: by which the
 * change was made.
 *
 * Returns where to append the row's identity.
 */
StringInfo
synchro_buffer_begin(SynchroTablePlace *place, Oid relation, uint32 layout, uint8 flags, CommandId command)
{
	begin_buffer();
	make_room();
	memset(&current.header, 0, sizeof(current.header));
	current.header.table = synchro_capture_table_index(place, relation, layout);
	current.header.flags = flags;
	current.header.command = command;
	if (unlikely(command < latest_command))
		unordered = true;
	else
		latest_command = command;
	current.start = buffer.len;
	appendBinaryStringInfo(&buffer, (char *) &current.header, sizeof(current.header));
	current.record = buffer.len;
	appendStringInfoCharMacro(&buffer, (char) flags);
	return &buffer;
}

/*
 * Set the record's flags anew, before anything follows the identity.
 */
void
synchro_buffer_set_flags(uint8 flags)
{
	current.header.flags = flags;
	buffer.data[current.record] = (char) flags;
}

/*
 * The identity has been appended.  False if the transaction's log says
 * already what the record would: it is taken back, and nothing is to follow.
 * Else the rest is to be appended in the same way, then comes
 * synchro_buffer_end().
 */
bool
synchro_buffer_needs_more(void)
{
	const char *identity = buffer.data + current.record + 1;

	current.header.identity_len = buffer.len - current.record - 1;
	current.hash = hash_bytes((const unsigned char *) identity, current.header.identity_len);
	current.recent = &recent_keys[current.hash & (RECENT_KEYS - 1)];
	if (current.recent->epoch != epoch || current.recent->hash != current.hash ||
		!says_already(current.recent->offset, &current.header, identity, current.header.flags))
		return true;
	buffer.len = current.start;
	return false;
}

/*
 * The record is complete.
 */
void
synchro_buffer_end(void)
{
	current.header.len = buffer.len - current.record;
	memcpy(buffer.data + current.start, &current.header, sizeof(current.header));
	current.recent->epoch = epoch;
	current.recent->offset = current.start;
	current.recent->hash = current.hash;

	if (tx_closing)
		flush_buffer(0);
	else if (buffer.len - own_records > buffer_limit())
	{
		tx_flushed_early = true;
		flush_buffer(own_records);
	}
}

/*
 * Has the current transaction changes that are not yet committed?
 */
bool
synchro_buffer_pending(void)
{
	return buffer.len > 0 || synchro_capture_has_written();
}

/*
 * Log a row as changed by this transaction, though nothing is written.
 */
void
synchro_buffer_touch(Oid relation, uint32 layout, SynchroBytes identity)
{
	SynchroTablePlace place = {0};
	StringInfo	record = synchro_buffer_begin(&place, relation, layout, SYNCHRO_OP_UPDATE,
												  GetCurrentCommandId(false));

	appendBinaryStringInfo(record, identity.data, identity.len);
	if (synchro_buffer_needs_more())
		synchro_buffer_end();
}

/*
 * What is logged from now on is not what was logged before, though it be of the
 * same row.
 */
void
synchro_buffer_repeat(void)
{
	epoch++;
}

/*
 * The transaction is about to commit, or to be prepared: write all.  What comes
 * after that is written at once.
 */
void
synchro_buffer_close(void)
{
	tx_closing = true;
	if ((buffer.len > 0 || tx_flushed_early) && synchro_log_exists())
		flush_buffer(0);
}

/*
 * The transaction has ended.
 */
void
synchro_buffer_forget(void)
{
	if (buffer.data != NULL)
	{
		if (buffer.maxlen > KEEP_BUFFER)
		{
			pfree(buffer.data);
			buffer.data = NULL;
			buffer.maxlen = 0;
		}
		buffer.len = 0;
	}
	forget_order();
	epoch++;
	synchro_capture_forget_tables();
	synchro_capture_forget_written();
	own_records = 0;
	tx_flushed_early = false;
	tx_closing = false;
	written.level = 0;
}

/*
 * A subtransaction begins, or is found to have begun.  Returns where its records
 * begin.
 */
int
synchro_buffer_begin_subxact(void)
{
	own_records = buffer.len;
	return own_records;
}

/*
 * The current subtransaction is about to commit: its parent's records, which
 * begin at from, are written with its own if they are too many.
 */
void
synchro_buffer_precommit_subxact(int from)
{
	if (buffer.len - from <= buffer_limit() || !synchro_log_exists())
		return;
	tx_flushed_early = true;
	written.time = write_buffer(from);
	written.level = GetCurrentTransactionNestLevel();
	written.from = from;
	written.to = buffer.len;
	written.epoch = epoch;
}

/*
 * It has committed.  What another extension's callback has changed meanwhile
 * stays in the buffer; if that was written, too, so does all, to be written
 * once more.
 */
static void
forget_written(void)
{
	if (written.epoch == epoch)
	{
		memmove(buffer.data + written.from, buffer.data + written.to, buffer.len - written.to);
		buffer.len -= written.to - written.from;
		synchro_capture_note_break(written.from, written.time - 1);
		epoch++;
	}
	written.level = 0;
}

/*
 * The current subtransaction has committed.  parent: where its parent's records
 * begin.
 */
void
synchro_buffer_commit_subxact(int parent)
{
	int			level = GetCurrentTransactionNestLevel();

	if (written.level == level)
		forget_written();
	own_records = parent;
}

/*
 * It has aborted.  own: where its records begin.
 */
void
synchro_buffer_abort_subxact(int own, int parent)
{
	int			level = GetCurrentTransactionNestLevel();

	if (written.level == level)
		written.level = 0;

	if (buffer.len > own)
	{
		buffer.len = own;
		synchro_capture_cut_breaks(buffer.len);
		epoch++;
	}
	own_records = parent;
}
