/*-------------------------------------------------------------------------
 *
 * tabletrigger.h
 *	  A table's triggers of ours: looked for, made and dropped one by one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SYNCHRO_TABLETRIGGER_H
#define SYNCHRO_TABLETRIGGER_H

#include "catalog/pg_trigger.h"

#define SYNCHRO_ROW_FUNCTION	"capture"
#define SYNCHRO_TRUNCATE_FUNCTION "capture_truncate"

/* the types of trigger that we make, as pg_trigger.tgtype has them */
#define SYNCHRO_TYPE_WATCHED \
	(TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE)
#define SYNCHRO_TYPE_KEY_ONLY \
	(TRIGGER_TYPE_ROW | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE)
#define SYNCHRO_TYPE_TRUNCATE \
	(TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_TRUNCATE)

extern Oid	synchro_tabletrigger_function(const char *name);
extern Oid	synchro_tabletrigger_runs(Oid relid, const char *name);
extern bool synchro_tabletrigger_goes_with_extension(Oid trigger);
extern void synchro_tabletrigger_make(Oid relid, int16 type);
extern void synchro_tabletrigger_drop(Oid relid, const char *trigger);
extern void synchro_tabletrigger_fire_always(Oid relid);
extern bool synchro_tabletrigger_present(Oid relid);
extern bool synchro_tabletrigger_is_watched(Oid relid);

#endif							/* SYNCHRO_TABLETRIGGER_H */
