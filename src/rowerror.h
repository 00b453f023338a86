/*-------------------------------------------------------------------------
 *
 * rowerror.h
 *	  Which errors of the remote a row can be to blame for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_ROWERROR_H
#define SYNCHRO_ROWERROR_H

#include "lib/stringinfo.h"

extern bool synchro_error_is_about_rows(const char *state);
extern bool synchro_error_is_about_definitions(const char *state);
extern bool synchro_error_may_be_deferred(const char *state);
extern bool synchro_error_may_need_others(const char *state);
extern void synchro_sql_about_definitions(StringInfo sql, const char *state);
extern void synchro_sql_not_about_rows(StringInfo sql, const char *state);

#endif							/* SYNCHRO_ROWERROR_H */
