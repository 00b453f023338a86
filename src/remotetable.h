/*-------------------------------------------------------------------------
 *
 * remotetable.h
 *	  What a table looks like on the remote, as far as SQL for it needs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_REMOTETABLE_H
#define SYNCHRO_REMOTETABLE_H

#include "nodes/pg_list.h"
#include "remote.h"
#include "tableinfo.h"

typedef struct SynchroRemoteColumn
{
	char	   *type;			/* as SQL writes it, with modifier */
	char	   *base;			/* type without modifier, domains resolved */
	char		category;		/* pg_type.typcategory */
	bool		not_null;
	char		identity;		/* attidentity */
	bool		generated;
	char	   *attnum;
	char	   *fresh_value;	/* expression that makes a value for a new
								 * row: default or sequence; NULL: none */
	char	   *equals;			/* its equality operator, qualified */
	char	   *collation;		/* qualified; NULL: it has none */
	char	   *refers;			/* column that a foreign key has it reference, as
								 * schema.table.column; NULL: none */
} SynchroRemoteColumn;

typedef struct SynchroRemoteIndex
{
	char	   *name;
	bool		immediate;
	int			ncolumns;
	int		   *columns;		/* indexes of the local description's columns,
								 * -1 where there is none */
} SynchroRemoteIndex;

/*
 * What the columns of a table are, as a number; oid is SQL for the table's.
 * With every name qualified, since it is asked under the role's own
 * search_path, too.
 */
#define SYNCHRO_REMOTE_SHAPE(oid) \
	"(SELECT pg_catalog.hashtextextended(pg_catalog.string_agg(pg_catalog.format('%s %s %s %s'::text, c.attnum, c.attname, c.atttypid, c.atttypmod)," \
	" ','::text ORDER BY c.attnum), 0::int8) FROM pg_catalog.pg_attribute c WHERE c.attrelid OPERATOR(pg_catalog.=) " oid \
	" AND c.attnum OPERATOR(pg_catalog.>) 0::int2 AND NOT c.attisdropped)"

typedef struct SynchroRemoteTable
{
	char	   *oid;
	char	   *rows;			/* the table, for FROM, UPDATE and DELETE: without
								 * those that inherit from it, but with its
								 * partitions */
	char	   *shape;			/* see SYNCHRO_REMOTE_SHAPE() */
	char	   *shown;			/* all of its columns, of alias x, as to_jsonb()
								 * is to have them */

	/* one for each column of the local description; type NULL: not there */
	SynchroRemoteColumn *columns;
	List	   *unique_indexes; /* of SynchroRemoteIndex */
	bool		is_plain;		/* a table or partitioned table without rules */
	bool		may_fire;		/* inserts fire triggers of its owner's */
	bool		key_is_indexed; /* a unique index covers just the key */
	bool		key_is_unique;	/* and no NULL gets round it */
} SynchroRemoteTable;

extern SynchroRemoteTable *synchro_remote_table_fetch(SynchroRemote *remote,
													  const SynchroTable *table);

#endif							/* SYNCHRO_REMOTETABLE_H */
