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
	char	   *staged;			/* the same with modifier */
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
 * What decides how rows are pushed to a table, as text: something that changes with
 * whatever synchro_remote_table_fetch() asks of the table itself.  oid is SQL for the
 * table's.  With every name qualified, since it is asked under the role's own
 * search_path, too.
 *
 * Each batch asks, so it looks at as little as it can.  A column gets another row
 * in the catalog when it, or its default, is altered, and an index or a foreign key
 * that is made anew another OID.  Where that tells more than matters, a table is
 * described once too often.  Subqueries of single values have the planner use an
 * index for each; for EXISTS it may read all triggers that there are.
 */
#define SYNCHRO_REMOTE_SHAPE(oid) \
	"pg_catalog.format('%s %s %s %s %s'::text," \
	" (SELECT pg_catalog.sum(pg_catalog.hashint8extended(c.xmin::text::int8, c.attnum::int8)) FROM pg_catalog.pg_attribute c" \
	"   WHERE c.attrelid OPERATOR(pg_catalog.=) " oid " AND c.attnum OPERATOR(pg_catalog.>) 0::int2 AND NOT c.attisdropped)," \
	" (SELECT pg_catalog.format('%s%s'::text, c.relkind, c.relhasrules) FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) " oid ")," \
	" (SELECT 'fires' FROM pg_catalog.pg_trigger g WHERE g.tgrelid OPERATOR(pg_catalog.=) " oid " AND NOT g.tgisinternal" \
	"   AND (g.tgtype OPERATOR(pg_catalog.&) 4::int2) OPERATOR(pg_catalog.<>) 0::int2 LIMIT 1)," \
	" (SELECT pg_catalog.sum(pg_catalog.hashoidextended(i.indexrelid, 0::int8)) FROM pg_catalog.pg_index i WHERE i.indrelid OPERATOR(pg_catalog.=) " oid \
	"   AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL)," \
	" (SELECT pg_catalog.sum(pg_catalog.hashoidextended(k.oid, 0::int8)) FROM pg_catalog.pg_constraint k" \
	"   WHERE k.conrelid OPERATOR(pg_catalog.=) " oid " AND k.contype OPERATOR(pg_catalog.=) 'f'::\"char\"))"

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
