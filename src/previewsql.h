/*-------------------------------------------------------------------------
 *
 * previewsql.h
 *	  SQL text that says what a batch does to each row.  Pure functions of
 *	  descriptions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_PREVIEWSQL_H
#define SYNCHRO_PREVIEWSQL_H

#include "lib/stringinfo.h"
#include "link.h"

/* first column of the results; then number of the table, key, action, detail */
#define SYNCHRO_PREVIEW_TAG		"preview"

/* each batch of a preview is a part of one transaction, which is rolled back */
#define SYNCHRO_PREVIEW_BEGIN	"SAVEPOINT synchro_batch;"
#define SYNCHRO_PREVIEW_UNDO	"ROLLBACK TO SAVEPOINT synchro_batch;RELEASE SAVEPOINT synchro_batch"

extern void synchro_sql_preview_session(StringInfo sql);
extern void synchro_sql_preview_stage(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_preview_names(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_preview_name(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_preview_losers(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_preview_changes(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_preview_gone(StringInfo sql, const SynchroLinkTable *lt);
extern void synchro_sql_preview_deletes(StringInfo sql, const SynchroLink *link, const SynchroLinkTable *lt, bool leftovers);
extern void synchro_sql_preview_apart(StringInfo sql, const SynchroLink *link, List *tables);
extern void synchro_sql_preview_end(StringInfo sql, bool keep);

#endif							/* SYNCHRO_PREVIEWSQL_H */
