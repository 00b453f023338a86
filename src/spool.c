/*-------------------------------------------------------------------------
 *
 * spool.c
 *	  Bytes on their way to the remote: in memory, and in a temporary file
 *	  beyond that.
 *
 * A batch is read in one local transaction and sent after that has ended, so
 * that no snapshot is held while the network is waited for.  The spool lives
 * in between: it outlasts transactions and takes a bounded piece of memory.
 *
 * Not a BufFile: to close one writes what it has buffered, which fails where
 * the disk is full, so that the file, and the room that it takes, would stay.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/tablespace.h"
#include "lib/stringinfo.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "compat.h"
#include "spool.h"

#define SPOOL_MEMORY	(4 * 1024 * 1024)
#define SPOOL_PIECE		(64 * 1024) /* handed out at once */

struct SynchroSpool
{
	StringInfoData memory;
	File		file;			/* what came before the bytes in memory */
	bool		has_file;
	int64		file_size;
	int64		read_pos;
	char	   *piece;
};

/*
 * Make an empty spool in the current memory context, which must live as long
 * as the spool is used.
 */
SynchroSpool *
synchro_spool_create(void)
{
	SynchroSpool *spool = palloc0(sizeof(SynchroSpool));

	initStringInfo(&spool->memory);
	return spool;
}

static void
spill(SynchroSpool *spool)
{
	int			written;

	if (!spool->has_file)
	{
		/* to be closed by us, not with the transaction */
		PrepareTempTablespaces();
		spool->file = OpenTemporaryFile(true);
		spool->has_file = true;
	}
	errno = 0;
	written = FileWrite(spool->file, spool->memory.data, spool->memory.len, spool->file_size,
						WAIT_EVENT_BUFFILE_WRITE);
	if (written != spool->memory.len)
	{
		/* a short write says nothing, but means that the disk is full */
		if (errno == 0)
			errno = ENOSPC;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write to file \"%s\": %m", FilePathName(spool->file))));
	}
	spool->file_size += spool->memory.len;
	resetStringInfo(&spool->memory);
}

/*
 * Add bytes at the end.
 */
void
synchro_spool_append(SynchroSpool *spool, const char *data, int len)
{
	/* there is a byte behind the last one, for which twice as much would be taken */
	if (spool->memory.len > 0 && spool->memory.len + len >= SPOOL_MEMORY)
		spill(spool);
	appendBinaryStringInfo(&spool->memory, data, len);
}

/*
 * Number of bytes added.
 */
int64
synchro_spool_size(const SynchroSpool *spool)
{
	return spool->file_size + spool->memory.len;
}

/*
 * Begin to read from the start, again where it was read before.
 */
void
synchro_spool_rewind(SynchroSpool *spool)
{
	spool->read_pos = 0;
	if (spool->has_file && spool->memory.len > 0)
		spill(spool);
}

/*
 * The next bytes: sets *data, good until the next call; returns how many, 0
 * at the end.
 */
int
synchro_spool_read(SynchroSpool *spool, const char **data)
{
	int64		left = synchro_spool_size(spool) - spool->read_pos;
	int			len = (int) Min(left, SPOOL_PIECE);

	if (len == 0)
		return 0;
	if (!spool->has_file)
		*data = spool->memory.data + spool->read_pos;
	else
	{
		int			got;

		if (spool->piece == NULL)
			spool->piece = MemoryContextAlloc(GetMemoryChunkContext(spool), SPOOL_PIECE);
		got = FileRead(spool->file, spool->piece, len, spool->read_pos, WAIT_EVENT_BUFFILE_READ);
		if (got < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", FilePathName(spool->file))));
		if (got != len)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("could not read file \"%s\": read %d of %d", FilePathName(spool->file), got, len)));
		*data = spool->piece;
	}
	spool->read_pos += len;
	return len;
}

/*
 * Give back memory and file.
 */
void
synchro_spool_free(SynchroSpool *spool)
{
	if (spool->has_file)
		FileClose(spool->file);
	if (spool->piece != NULL)
		pfree(spool->piece);
	pfree(spool->memory.data);
	pfree(spool);
}
