/*-------------------------------------------------------------------------
 *
 * registryrow.h
 *	  The rows of synchro.watched and synchro.natural_key: read, written, and
 *	  kept in line with tables that are dropped and columns that are renamed;
 *	  and those of synchro.dropped, under which names tables were watched that
 *	  were dropped or renamed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_REGISTRYROW_H
#define SYNCHRO_REGISTRYROW_H

#include "nodes/pg_list.h"

/* SQL text: the call by which a table is watched; of SQL texts for its name, natural key, or NULL, skipped columns, and whether many are allowed */
#define SYNCHRO_ADD_TABLE_CALL(name, natural_key, skip, allow_many) \
	"format('synchro.add_table(%L%s%s%s)', " name ", ', natural_key => ' || quote_literal(" natural_key ")," \
	" ', skip => ' || quote_literal(nullif(" skip ", '{}')), CASE WHEN " allow_many " THEN ', allow_many => true' END)"

extern void synchro_registry_lock(void);
extern List *synchro_registry_watched(void);
extern bool synchro_registry_has_key(Oid relid);
extern uint64 synchro_registry_write(const char *sql, Oid relid, List *names, bool flag);

extern bool synchro_registry_notes_primary_keys(void);
extern bool synchro_names_have(const List *names, const char *name);
extern bool synchro_registry_has_dangling(void);
extern void synchro_registry_note_dropped(void);
extern void synchro_registry_note_renamed(const char *schema, const char *name);
extern bool synchro_registry_forget_dropped(Oid relid);
extern void synchro_registry_forget_dangling(void);
extern char *synchro_registry_lost_key_column(Oid relid);
extern bool synchro_registry_names_column(Oid relid, const char *column);
extern void synchro_registry_rename_column(Oid relid, const char *old_name, const char *new_name);

#endif							/* SYNCHRO_REGISTRYROW_H */
