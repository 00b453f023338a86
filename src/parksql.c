/*-------------------------------------------------------------------------
 *
 * parksql.c
 *	  SQL that frees unique values before they are taken.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "applysql.h"

void
synchro_sql_park(StringInfo sql, const SynchroLinkTable *lt)
{
}
