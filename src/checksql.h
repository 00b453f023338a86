/*-------------------------------------------------------------------------
 *
 * checksql.h
 *	  SQL text: what check() looks for, on either side.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_CHECKSQL_H
#define SYNCHRO_CHECKSQL_H

#include "synchro.h"

typedef enum SynchroCheckSide
{
	SYNCHRO_CHECK_HERE,
	SYNCHRO_CHECK_THERE,		/* on the remote */
	SYNCHRO_CHECK_PEER			/* on a remote that is a node, besides */
} SynchroCheckSide;

/*
 * A probe's columns: severity, oid of the table here or NULL, problem, fix,
 * and whether the fix is to be run on the side where the probe is.  If not, it is
 * no SQL, since a remote may say what it likes, but the name of the trigger here
 * that is concerned, or NULL.  $1: what synchro_check_tables_sql() gives.  $2: the
 * name of the remote; here, NULL for all.
 */
enum
{
	PROBE_SEVERITY, PROBE_RELATION, PROBE_PROBLEM, PROBE_FIX, PROBE_FIX_IS_HERE, PROBE_COLUMNS
};

/* SQL text: as synchro_table_covering() has it, the table here that a table's rows are known under */
#define SYNCHRO_COVERING(table) \
	"coalesce((SELECT a.relid::oid FROM pg_partition_ancestors(" table ") WITH ORDINALITY AS a (relid, nr)" \
	"  WHERE EXISTS (SELECT FROM synchro.watched w WHERE w.relation = a.relid)" \
	"   OR EXISTS (SELECT FROM synchro.natural_key k WHERE k.relation = a.relid)" \
	"   OR EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = a.relid AND g.tgname = '" SYNCHRO_ROW_TRIGGER "' AND g.tgparentid = 0)" \
	"  ORDER BY a.nr LIMIT 1), pg_partition_root(" table ")::oid, " table ")"

/* a foreign key that does not only carry out another one of the same table, on a partition of what that references */
#define SYNCHRO_IS_FOREIGN_KEY(k) \
	k ".contype = 'f' AND NOT EXISTS (SELECT FROM pg_constraint carried WHERE carried.oid = " k ".conparentid AND carried.conrelid = " k ".conrelid)"

/* in checktables.c */
extern const char *synchro_check_tables_sql(void);

/* in checksql.c */
extern const char *synchro_check_trigger_sql(void);
extern const char *const *synchro_check_probes(SynchroCheckSide side);

#endif							/* SYNCHRO_CHECKSQL_H */
