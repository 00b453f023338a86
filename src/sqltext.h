/*-------------------------------------------------------------------------
 *
 * sqltext.h
 *	  SQL text: values as text, by no cast that somebody has made.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_SQLTEXT_H
#define SYNCHRO_SQLTEXT_H

extern char *synchro_sql_text(const char *value, const char *base);
extern char *synchro_sql_cast(const char *text, const char *base);
extern char *synchro_sql_uniform(const char *text, const char *base);
extern char *synchro_sql_jsonable(const char *value, const char *base);

#endif							/* SYNCHRO_SQLTEXT_H */
