/*-------------------------------------------------------------------------
 *
 * previewqueue.c
 *	  Rows of a preview on their way from the worker to the caller.
 *
 * The worker sends the bytes of its spool in pieces, and waits where the queue
 * is full; the caller puts the rows together.  Whichever of the two goes is
 * noticed by the other when the queue is detached.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/dsm.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#include "previewqueue.h"

/*
 * The worker's part: send all rows, and wait until they are in the queue.
 */
void
synchro_previewqueue_send(dsm_segment *segment, char *place, SynchroPreview *preview)
{
	shm_mq	   *mq = (shm_mq *) place;
	shm_mq_handle *queue;
	const char *data;
	int			len;

	shm_mq_set_sender(mq, MyProc);
	queue = shm_mq_attach(mq, segment, NULL);
	synchro_spool_rewind(preview->rows);
	while ((len = synchro_spool_read(preview->rows, &data)) > 0)
		if (shm_mq_send(queue, len, data, false, true) != SHM_MQ_SUCCESS)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("nobody waits for the preview any more")));
	shm_mq_detach(queue);
}

/*
 * The caller's part: make the queue, before the worker starts.  The callback
 * is given each row, as long as it lasts.
 */
void
synchro_previewqueue_open(SynchroPreviewReader *reader, dsm_segment *segment, char *place,
						  SynchroPreviewCallback callback, void *arg)
{
	shm_mq	   *mq = shm_mq_create(place, SYNCHRO_PREVIEW_QUEUE);

	shm_mq_set_receiver(mq, MyProc);
	reader->queue = shm_mq_attach(mq, segment, NULL);
	initStringInfo(&reader->bytes);
	reader->row_context = AllocSetContextCreate(CurrentMemoryContext, "synchro preview row", ALLOCSET_SMALL_SIZES);
	reader->callback = callback;
	reader->arg = arg;
}

/*
 * Take what is there, without waiting.
 */
void
synchro_previewqueue_read(SynchroPreviewReader *reader)
{
	Size		len;
	void	   *data;

	while (shm_mq_receive(reader->queue, &len, &data, true) == SHM_MQ_SUCCESS)
	{
		SynchroPreviewRow row;
		int			done = 0;
		int			taken;
		MemoryContext old = MemoryContextSwitchTo(reader->row_context);

		appendBinaryStringInfo(&reader->bytes, data, (int) len);
		while ((taken = synchro_preview_take(reader->bytes.data + done, reader->bytes.len - done, &row)) > 0)
		{
			reader->callback(&row, reader->arg);
			MemoryContextReset(reader->row_context);
			done += taken;
		}
		MemoryContextSwitchTo(old);
		memmove(reader->bytes.data, reader->bytes.data + done, reader->bytes.len - done);
		reader->bytes.len -= done;
	}
}
