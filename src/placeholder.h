/*-------------------------------------------------------------------------
 *
 * placeholder.h
 *	  What a preview gives new rows instead of values of the remote's
 *	  sequences.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PLACEHOLDER_H
#define SYNCHRO_PLACEHOLDER_H

#include "lib/stringinfo.h"
#include "link.h"

/* a column that a sequence fills on the remote */
typedef struct SynchroPlaceholder
{
	char	   *column;			/* as it is called */
	char	   *value;			/* SQL */
} SynchroPlaceholder;

extern void synchro_sql_placeholder_session(StringInfo sql);
extern void synchro_placeholders_prepare(SynchroLink *link, SynchroLinkTable *lt);

#endif							/* SYNCHRO_PLACEHOLDER_H */
