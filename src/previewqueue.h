/*-------------------------------------------------------------------------
 *
 * previewqueue.h
 *	  Rows of a preview on their way from the worker to the caller.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PREVIEWQUEUE_H
#define SYNCHRO_PREVIEWQUEUE_H

#include "lib/stringinfo.h"
#include "storage/shm_mq.h"

#include "preview.h"

/* bytes of shared memory that a queue takes */
#define SYNCHRO_PREVIEW_QUEUE	65536

typedef void (*SynchroPreviewCallback) (const SynchroPreviewRow *row, void *arg);

/* the caller's end */
typedef struct SynchroPreviewReader
{
	shm_mq_handle *queue;
	StringInfoData bytes;		/* of a row that is not all there yet */
	MemoryContext row_context;
	SynchroPreviewCallback callback;
	void	   *arg;
} SynchroPreviewReader;

extern void synchro_previewqueue_send(dsm_segment *segment, char *place, SynchroPreview *preview);
extern void synchro_previewqueue_open(SynchroPreviewReader *reader, dsm_segment *segment, char *place,
									  SynchroPreviewCallback callback, void *arg);
extern void synchro_previewqueue_read(SynchroPreviewReader *reader);

#endif							/* SYNCHRO_PREVIEWQUEUE_H */
