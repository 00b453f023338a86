/*-------------------------------------------------------------------------
 *
 * preview.h
 *	  What a pass would do, found out by doing it in a transaction of the
 *	  remote that is rolled back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PREVIEW_H
#define SYNCHRO_PREVIEW_H

#include "link.h"
#include "sharedstate.h"

typedef struct SynchroPreviewRow
{
	Oid			relid;
	char	   *key;			/* NULL: the table as a whole */
	char	   *action;
	char	   *detail;			/* or NULL */
} SynchroPreviewRow;

typedef struct SynchroPreview
{
	MemoryContext context;
	SynchroSpool *rows;			/* see synchro_preview_put() */
	List	   *stalled;		/* of SynchroPreviewRow: tables that are left out */
} SynchroPreview;

extern SynchroPreview *synchro_preview_create(void);
extern void synchro_preview_begin(SynchroLink *link, SynchroPreview *preview);
extern void synchro_preview_end(SynchroLink *link);
extern char *synchro_preview_reason(const char *sqlstate, const char *message);
extern void synchro_preview_stall(SynchroPreview *preview, Oid relid, const SynchroKeptError *error);
extern void synchro_preview_put(SynchroPreview *preview, const SynchroPreviewRow *row);
extern int	synchro_preview_take(const char *data, int len, SynchroPreviewRow *row);

#endif							/* SYNCHRO_PREVIEW_H */
