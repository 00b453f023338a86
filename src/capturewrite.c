/*-------------------------------------------------------------------------
 *
 * capturewrite.c
 *	  The buffer's records, written to the log.
 *
 * A transaction writes all to the segment that it has written to first.  What lies in
 * the buffer (capturebuffer.c) when something after it is written is older than that:
 * where it does, and what its time is to be before, is remembered here (breaks).
 *
 * The reader goes by the order of a transaction's records.  What a row trigger of
 * somebody else's writes, or a function within a statement, fires our trigger
 * before the statement's own rows do, that come after it by the triggers' names or
 * were queued; so a row's second change can come first.  Each record has the command
 * that made its change, as the row's version tells, and where they did not come in
 * that order they are put into it when they are written.  What has been written
 * by then, the buffer being full, is not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "capturetables.h"
#include "capturewrite.h"
#include "changelog.h"
#include "keycodec.h"
#include "sharedstate.h"

/* what lies in the buffer before offset is older than time */
typedef struct BufferBreak
{
	int			offset;
	TimestampTz time;
} BufferBreak;

static BufferBreak *breaks = NULL;	/* ascending, in both */
static int	nbreaks = 0;
static int	maxbreaks = 0;
static int	tx_segment = -1;	/* the segment this transaction writes to */
static int	tx_part = 0;

/*
 * What follows after offset is about to be written: what lies before it in
 * the buffer is older than time.
 */
void
synchro_capture_note_break(int offset, TimestampTz time)
{
	/* and older than what was written from further on, or from here, before */
	while (nbreaks > 0 && breaks[nbreaks - 1].offset >= offset)
		time = breaks[--nbreaks].time;
	if (offset == 0)
		return;
	if (nbreaks == maxbreaks)
	{
		int			newmax = Max(16, maxbreaks * 2);

		breaks = breaks == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(BufferBreak) * newmax) :
			repalloc(breaks, sizeof(BufferBreak) * newmax);
		maxbreaks = newmax;
	}
	breaks[nbreaks].offset = offset;
	breaks[nbreaks++].time = time;
}

/*
 * The buffer has been cut back to len.
 */
void
synchro_capture_cut_breaks(int len)
{
	while (nbreaks > 0 && breaks[nbreaks - 1].offset > len)
		nbreaks--;
}

/*
 * Write the record at offset.  Returns where the next one lies.
 */
static int
write_record(SynchroLogWriter *writer, const char *buffer, int offset)
{
	SynchroBufferHeader header;
	const char *record = buffer + offset + sizeof(header);
	uint32		layout;
	Oid			relation;

	memcpy(&header, buffer + offset, sizeof(header));
	relation = synchro_capture_table(header.table, &layout);
	synchro_log_put(writer, relation, layout, record, header.len, synchro_key_renames(record));
	return offset + sizeof(header) + header.len;
}

/*
 * By command; of one, as they came.
 */
static int
compare_records(const void *a, const void *b, void *buffer)
{
	uint32		x = *(const uint32 *) a;
	uint32		y = *(const uint32 *) b;
	SynchroBufferHeader xheader;
	SynchroBufferHeader yheader;

	memcpy(&xheader, (const char *) buffer + x, sizeof(xheader));
	memcpy(&yheader, (const char *) buffer + y, sizeof(yheader));
	if (xheader.command != yheader.command)
		return xheader.command < yheader.command ? -1 : 1;
	return x < y ? -1 : x > y ? 1 : 0;
}

/*
 * The same for the records from offset to end, in the order in which the changes were
 * made.  Returns how many.
 */
static int64
write_by_command(SynchroLogWriter *writer, const char *buffer, int offset, int end)
{
	int64		count = 0;
	int64		i = 0;
	uint32	   *offsets;
	SynchroBufferHeader header;

	for (int pos = offset; pos < end; pos += sizeof(header) + header.len)
	{
		memcpy(&header, buffer + pos, sizeof(header));
		count++;
	}
	offsets = palloc(sizeof(uint32) * Max(count, 1));
	for (int pos = offset; pos < end; pos += sizeof(header) + header.len)
	{
		memcpy(&header, buffer + pos, sizeof(header));
		offsets[i++] = pos;
	}
	qsort_arg(offsets, count, sizeof(uint32), compare_records, unconstify(char *, buffer));
	for (i = 0; i < count; i++)
		(void) write_record(writer, buffer, offsets[i]);
	pfree(offsets);
	return count;
}

/*
 * Write the buffer's records from offset up to len to the log.  unordered: they did not
 * come in the order of their commands.  last: nothing comes after them, and the time of
 * all is to be said.  Returns when.
 */
TimestampTz
synchro_capture_write(const char *buffer, int offset, int len, bool unordered, bool last)
{
	SynchroLogWriter *writer = synchro_log_open(tx_segment, tx_part);
	TimestampTz now = synchro_log_stamp(writer);
	uint64		txid = U64FromFullTransactionId(GetTopFullTransactionId());
	int			pos = offset;
	int			next = 0;		/* break that the record lies before */
	int64		entries = 0;

	while (next < nbreaks && breaks[next].offset <= pos)
		next++;
	if (next < nbreaks)
		synchro_log_pose(writer, txid, breaks[next].time);
	while (pos < len)
	{
		int			end = next < nbreaks ? Min(breaks[next].offset, len) : len;

		if (unordered)
		{
			entries += write_by_command(writer, buffer, pos, end);
			pos = end;
		}
		else
			for (; pos < end; entries++)
				pos = write_record(writer, buffer, pos);
		if (next < nbreaks && pos >= breaks[next].offset)
		{
			next++;
			synchro_log_pose(writer, txid, next < nbreaks ? breaks[next].time : now);
		}
	}
	synchro_shared_wake_at_commit(entries);
	if (last)
		synchro_log_put_stamp(writer);
	tx_segment = synchro_log_close(writer, &tx_part);
	return now;
}

/*
 * Has the transaction written to the log?
 */
bool
synchro_capture_has_written(void)
{
	return tx_segment >= 0;
}

/*
 * The transaction has ended.
 */
void
synchro_capture_forget_written(void)
{
	nbreaks = 0;
	tx_segment = -1;
	tx_part = 0;
}
