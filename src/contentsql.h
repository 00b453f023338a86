/*-------------------------------------------------------------------------
 *
 * contentsql.h
 *	  SQL text for what a row is called and what is in it, the same on every
 *	  server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CONTENTSQL_H
#define SYNCHRO_CONTENTSQL_H

#include "link.h"

/* where the SQL is to be run */
typedef struct SynchroContentSide
{
	bool		there;			/* on the remote */

	/*
	 * Rows of tables without natural key are called what they are called
	 * here.  pairs: a relation with columns relation, local_key and remote_key
	 * that says so for rows of this side; NULL: there is none.
	 */
	bool		by_reference;	/* else such rows are known by what is in them */
	const char *pairs;
} SynchroContentSide;

/* SQL expressions over the rows of from, in which a table's own row is t */
typedef struct SynchroContent
{
	char	   *from;			/* FROM with all joins */
	char	   *key;			/* text, not NULL, one for each name */
	char	   *shown;			/* the same for readers */
	int			nvalues;
	char	  **values;			/* text, may be NULL */
	char	  **names;			/* the column, or columns, of each */
	int		   *columns;		/* (the first) as index of the table's */
	char	   *all;			/* text, not NULL: of all values */
	char	  **identity;		/* text, may be NULL */
} SynchroContent;

extern char *synchro_content_utf8(char *data, int len);
extern SynchroContent *synchro_content_sql(const SynchroLinkTable *lt, const SynchroContentSide *side);

#endif							/* SYNCHRO_CONTENTSQL_H */
