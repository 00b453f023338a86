/*-------------------------------------------------------------------------
 *
 * tableinfo.h
 *	  What a table looks like: columns, identity, natural key, foreign keys.
 *
 * Entries live in a backend-local cache.  A pointer got from
 * synchro_table_get() is good until the next call that may process
 * invalidations (any lock, any catalog access): hold it across such calls
 * only after synchro_table_copy().
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_TABLEINFO_H
#define SYNCHRO_TABLEINFO_H

#include "access/attnum.h"
#include "catalog/pg_type_d.h"
#include "nodes/pg_list.h"
#include "synchro.h"

/* one user column that is not dropped */
typedef struct SynchroColumn
{
	AttrNumber	attnum;
	char	   *name;
	Oid			type;
	int32		typmod;
	int16		typlen;
	bool		typbyval;
	bool		not_null;
	bool		generated;		/* GENERATED ALWAYS AS (expression) */
	char		identity;		/* attidentity: '\0', 'a' or 'd' */
	bool		from_sequence;	/* identity, or default draws from a sequence; in a
								 * primary key: did so when the table was added */
	bool		has_default;	/* its own or its type's, and is not generated */
	bool		skipped;		/* registered as skipped */
	int			fk;				/* index into fks of the foreign key that
								 * translates it, or -1 */
	int			fk_pos;			/* its position among that key's columns */
} SynchroColumn;

/* one foreign key */
typedef struct SynchroForeignKey
{
	char	   *name;			/* of the constraint */
	Oid			parent;			/* referenced table (partition root) */
	int			ncols;
	int		   *cols;			/* referencing columns, as indexes of columns */
	AttrNumber *refcols;		/* referenced columns, attnums of parent */
} SynchroForeignKey;

typedef struct SynchroTable
{
	Oid			relid;
	char	   *schema;
	char	   *name;
	char	   *qualified;		/* quoted, with schema: for SQL and messages */
	char		relkind;
	bool		watched;
	bool		key_only;		/* has our trigger only because it is inside a
								 * natural key */
	bool		captured;		/* its own triggers are there, and enabled */
	bool		allow_many;
	bool		lost_key;		/* it had one, and mode none has come of that */
	SynchroMode mode;

	int			ncolumns;
	SynchroColumn *columns;

	/*
	 * The identity says which local row is meant: the primary key, or without
	 * one the natural key.  It is what the log keeps of each change.  Indexes
	 * of columns.
	 */
	int			nidentity;
	int		   *identity;
	bool		has_primary_key;

	/* the natural key's own columns, none in mode reference */
	int			nkey;
	int		   *key;

	int			nfks;
	SynchroForeignKey *fks;

	/*
	 * Stored with logged keys.  High half: fingerprint of the identity's
	 * columns; then 11 bits of the natural key's, and its number of values
	 * less one, since it may have 32.  That says nothing where it has none.
	 */
	uint32		layout;

	MemoryContext context;		/* holds all of the above */
} SynchroTable;

#define SYNCHRO_LAYOUT_IDENTITY(layout) ((layout) >> 16)
#define SYNCHRO_LAYOUT_KEY(layout)		((layout) & 0xffff)
#define SYNCHRO_LAYOUT_NKEY(layout)		((int) ((layout) & 0x1f) + 1)

/*
 * Values of such types are numbers that differ in nothing but their width.
 */
static inline bool
synchro_type_is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

extern SynchroTable *synchro_table_build(Oid relid, MemoryContext parent);
extern const SynchroTable *synchro_table_copy(const SynchroTable *table, MemoryContext context);
extern Oid	synchro_table_by_name(const char *qualified);
extern int	synchro_table_attribute(const SynchroTable *table, AttrNumber attnum);
extern bool synchro_column_is_key(const SynchroTable *table, int column);
extern int	synchro_table_column(const SynchroTable *table, const char *name);
extern bool synchro_table_fk_in_key(const SynchroTable *table, int fk);
extern int	synchro_identity_position(const SynchroTable *table, AttrNumber attnum);
extern bool synchro_table_fk_to_identity(const SynchroForeignKey *fk, const SynchroTable *parent);
extern char *synchro_table_rows(const SynchroTable *table);
extern char *synchro_table_keys_text(const SynchroTable *table);
extern const char *synchro_mode_name(SynchroMode mode);
extern bool synchro_trigger_fires(char tgenabled);

/* in tablemode.c */
extern void synchro_table_build_mode(SynchroTable *table);
extern bool synchro_table_is_watched(Oid relid);
extern bool synchro_table_is_registered(Oid relid);
extern List *synchro_table_registered_key(Oid relid, bool *registered);

/* in inkey.c */
extern bool synchro_table_stands_in_key(Oid relid);

/* in partitions.c */
extern bool synchro_table_parts_captured(Oid relid);
extern Oid	synchro_table_root(Oid relid);
extern Oid	synchro_table_covering(Oid relid);
extern void synchro_table_forget_referring(Oid relid);
extern bool synchro_table_is_detaching(Oid relid);
extern Oid	synchro_table_covering_seen(Oid relid, bool *passing);

/* in tablecache.c */
extern void synchro_table_init(void);
extern uint64 synchro_table_generation(void);
extern const SynchroTable *synchro_table_get(Oid relid, bool missing_ok);
extern bool synchro_table_captured(const SynchroTable *table);
extern List *synchro_table_with_names(List *tables);
extern const SynchroTable *synchro_table_uncaptured(Oid relid);

#endif							/* SYNCHRO_TABLEINFO_H */
